//! Containers that load models one by one, when callers name them (CC-58): what one container has loaded, and what goes
//! when there is no room. The proxy asks, this module downloads as the model's role and speaks with the container.

mod container;
mod load;

#[cfg(test)]
mod tests;

pub use load::LoadError;

use crate::deps::Deps;
use isolarium_model::Key;
use isolarium_model::sagemaker::endpoint::Instance;
use isolarium_model::sagemaker::model::{ModelData, ModelSpec};
use load::Loader;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hexadecimal digits of a model's name in its container.
const NAME: usize = 32;

/// The name by which a container knows a model: opaque, and a plain file name whatever the caller wrote.
pub fn folder(target_model: &str) -> String {
    let mut name = hex::encode(Sha256::digest(target_model.as_bytes()));
    name.truncate(NAME);
    name
}

/// Whether a container's word can be a [`folder`].
fn is_folder(name: &str) -> bool {
    name.len() == NAME && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The models of one container.
pub struct Shelf {
    /// Whoever loads or unloads a model holds it: a container does one of these at a time.
    pub gate: Arc<tokio::sync::Mutex<()>>,
    /// Models stay loaded until their room is needed (`ModelCacheSetting`).
    pub caches: bool,
    loader: Loader,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    /// The container was asked what it has: an earlier process of the engine may have loaded some.
    asked: bool,
    models: BTreeMap<String, Use>,
    /// Counts uses: the least recently used model goes first.
    uses: u64,
}

impl Loaded {
    /// Begins to use a model. Under the lock: whoever looks for an idle model sees it.
    fn begin(&mut self, folder: &str) -> Option<InUse> {
        self.uses = self.uses.saturating_add(1);
        let of = self.models.get_mut(folder)?;
        of.running.fetch_add(1, Ordering::AcqRel);
        of.last = self.uses;
        Some(InUse {
            running: Arc::clone(&of.running),
            after: None,
        })
    }
}

#[derive(Default)]
struct Use {
    /// Requests that use it; they keep it also when the model was forgotten meanwhile.
    running: Arc<AtomicUsize>,
    last: u64,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let models = self.lock().models.len();
        f.debug_struct("Shelf").field("models", &models).finish_non_exhaustive()
    }
}

impl Shelf {
    /// That of an instance; `None` where the model's container has its data from the start.
    pub(crate) fn of(deps: &Deps, key: &Key, model: &ModelSpec, instance: &Instance) -> Option<Arc<Self>> {
        let Some(ModelData::Many { caches, .. }) = &model.data else {
            return None;
        };
        Some(Arc::new(Self {
            gate: Arc::default(),
            caches: *caches,
            loader: Loader::new(deps, key, &instance.placement.workload),
            loaded: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the model of this [`folder`] is loaded.
    pub fn has(&self, folder: &str) -> bool {
        self.lock().models.contains_key(folder)
    }

    /// Begins to use a model, if it is loaded.
    pub fn take(&self, folder: &str) -> Option<InUse> {
        self.lock().begin(folder)
    }

    /// Whether the container itself still has a model that is said to be loaded; one that it has not is loaded no more. On a
    /// thread that may block, with the gate held.
    ///
    /// # Errors
    /// When the container cannot be asked.
    pub fn confirm(&self, folder: &str) -> Result<bool, LoadError> {
        let has = self.loader.has(folder)?;
        if !has {
            self.lock().models.remove(folder);
        }
        Ok(has)
    }

    /// Loads a model, unloading others where the container has no room, and begins to use it: nobody unloads it before its
    /// caller had it. To be called with the gate held, on a thread that may block. A model that is loaded costs nothing.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(&self, target_model: &str) -> Result<InUse, LoadError> {
        let folder = folder(target_model);
        self.ask_once()?;
        if let Some(used) = self.take(&folder) {
            return Ok(used);
        }
        self.loader.bring(target_model, &folder)?;
        if let Err(error) = self.announce(&folder) {
            self.loader.remove(&folder);
            return Err(error);
        }
        let mut loaded = self.lock();
        loaded.models.insert(folder.clone(), Use::default());
        let gone = || LoadError::Away("the model was unloaded at once".into());
        loaded.begin(&folder).ok_or_else(gone)
    }

    /// Has the container load what lies there, and unload others until it has room.
    fn announce(&self, folder: &str) -> Result<(), LoadError> {
        loop {
            match self.loader.load(folder) {
                Err(LoadError::NoRoom(words)) => {
                    if !self.unload_one(folder)? {
                        return Err(LoadError::NoRoom(words));
                    }
                }
                done => return done,
            }
        }
    }

    /// Unloads the model that was not used for the longest time, but for `keep`. `false` when every other one is in use. To be
    /// called with the gate held, on a thread that may block.
    ///
    /// # Errors
    /// When the container cannot be asked.
    pub fn unload_one(&self, keep: &str) -> Result<bool, LoadError> {
        let oldest = {
            let mut loaded = self.lock();
            let idle = loaded
                .models
                .iter()
                .filter(|(name, of)| of.running.load(Ordering::Acquire) == 0 && *name != keep);
            let oldest = idle.min_by_key(|(_, of)| of.last).map(|(name, _)| name.clone());
            // Nobody begins to use it from here on.
            oldest.and_then(|oldest| loaded.models.remove_entry(&oldest))
        };
        let Some((oldest, of)) = oldest else { return Ok(false) };
        if let Err(error) = self.loader.unload(&oldest) {
            // It still takes its room.
            self.lock().models.insert(oldest, of);
            return Err(error);
        }
        self.loader.remove(&oldest);
        Ok(true)
    }

    fn ask_once(&self) -> Result<(), LoadError> {
        if self.lock().asked {
            return Ok(());
        }
        let names = self.loader.listed()?;
        let mut loaded = self.lock();
        loaded.asked = true;
        for name in names {
            loaded.models.entry(name).or_default();
        }
        Ok(())
    }
}

/// A model that a request uses: it is not unloaded meanwhile.
pub struct InUse {
    running: Arc<AtomicUsize>,
    after: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl InUse {
    /// Does this once the request does not use the model any more.
    #[must_use]
    pub fn then(self, after: impl FnOnce() + Send + Sync + 'static) -> Self {
        let mut used = self;
        used.after = Some(Box::new(after));
        used
    }
}

impl std::fmt::Debug for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InUse").finish_non_exhaustive()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::AcqRel);
        if let Some(after) = self.after.take() {
            after();
        }
    }
}
