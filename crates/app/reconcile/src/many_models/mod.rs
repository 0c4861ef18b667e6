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
        let mut loaded = self.lock();
        loaded.uses = loaded.uses.saturating_add(1);
        let now = loaded.uses;
        let of = loaded.models.get_mut(folder)?;
        // Under the lock: whoever looks for an idle model sees it.
        of.running.fetch_add(1, Ordering::AcqRel);
        of.last = now;
        Some(InUse {
            running: Arc::clone(&of.running),
            after: None,
        })
    }

    /// Whether the container itself still has a model that is said to be loaded; one that it has not is loaded no more. On a
    /// thread that may block.
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

    /// Loads a model, unloading others where the container has no room. To be called with the gate held, on a thread that may
    /// block. A model that is loaded costs nothing.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(&self, target_model: &str) -> Result<(), LoadError> {
        let folder = folder(target_model);
        self.ask_once()?;
        if self.has(&folder) {
            return Ok(());
        }
        self.loader.bring(target_model, &folder)?;
        loop {
            match self.loader.load(&folder) {
                Ok(()) => break,
                Err(LoadError::NoRoom(words)) => {
                    if !self.unload_one(&folder)? {
                        self.loader.remove(&folder);
                        return Err(LoadError::NoRoom(words));
                    }
                }
                Err(error) => {
                    self.loader.remove(&folder);
                    return Err(error);
                }
            }
        }
        self.lock().models.insert(folder, Use::default());
        Ok(())
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
            if let Some(oldest) = &oldest {
                loaded.models.remove(oldest);
            }
            oldest
        };
        let Some(oldest) = oldest else { return Ok(false) };
        self.loader.unload(&oldest)?;
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
