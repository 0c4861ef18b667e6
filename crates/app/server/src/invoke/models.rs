//! Invocations of containers that load models when callers name them (CC-58): which model, loading it first, making room.

use super::connection::Outgoing;
use super::failure::{Failure, MESSAGE_LIMIT};
use super::{Answered, Proxy, outcome, unavailable};
use http::HeaderValue;
use isolarium_model::{AccountId, WorkloadId};
use isolarium_reconcile::many_models::{self, InUse, LoadError, Shelf};
use isolarium_reconcile::workdir::relative_path;
use isolarium_wire::ApiError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Models that are loaded at once, by all containers and by those of one account: each takes a thread, and a download.
const LOADS: usize = 32;
const LOADS_OF_ONE: usize = 8;

/// Further tries of an invocation whose container had lost the model, or had no room to run it.
const TRIES: usize = 2;

/// The model that a caller names.
pub(super) struct Named {
    /// `TargetModel`: the path of its archive below the model's prefix.
    path: String,
    /// Its name in the container.
    pub folder: String,
}

impl Named {
    /// Reads `X-Amzn-SageMaker-Target-Model`.
    pub fn read(value: &HeaderValue) -> Result<Self, ApiError> {
        let path = value.to_str().ok();
        let path = path.filter(|path| path.len() <= 1024 && relative_path(path).is_ok());
        let path = path.ok_or_else(|| {
            let text = "TargetModel must be the path of an archive below the ModelDataUrl of the model.";
            ApiError::client("ValidationError", text)
        })?;
        Ok(Self {
            path: path.into(),
            folder: many_models::folder(path),
        })
    }
}

/// The endpoint is one of many models and the caller names none, or the other way round.
pub(super) fn misplaced(endpoint: &str, named: bool) -> ApiError {
    let text = if named {
        format!("Endpoint {endpoint} is not a multi-model endpoint and does not support target model header.")
    } else {
        format!("Endpoint {endpoint} is a multi-model endpoint and requires the target model header.")
    };
    ApiError::client("ValidationError", text)
}

fn not_ready(model: &str) -> ApiError {
    let text = format!(
        "Model {model} is not ready for inference yet: it is still being downloaded or loaded. Wait and try your request \
         again."
    );
    ApiError::client("ModelNotReadyException", text).with_status(429)
}

/// An invocation of one model of a container.
pub(super) struct To<'a> {
    pub shelf: &'a Arc<Shelf>,
    pub model: &'a Named,
    pub workload: &'a WorkloadId,
    pub request: &'a Outgoing,
    pub streamed: bool,
    /// When the caller is answered at the latest; loading goes on behind it.
    pub limit: Instant,
}

/// Who may load a model now.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    by_account: Mutex<HashMap<AccountId, Weak<Semaphore>>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(LOADS)),
            by_account: Mutex::default(),
        }
    }
}

impl Turns {
    fn of(&self, account: &AccountId) -> Arc<Semaphore> {
        let mut all = self.by_account.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get(account).and_then(Weak::upgrade) {
            return own;
        }
        all.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(LOADS_OF_ONE));
        all.insert(account.clone(), Arc::downgrade(&own));
        own
    }

    /// First the account's turn, so that nobody waits for one of all while holding nothing that others want.
    async fn turn(&self, account: &AccountId) -> Result<[OwnedSemaphorePermit; 2], ApiError> {
        let own = self.of(account).acquire_owned().await.map_err(ApiError::internal)?;
        let all = Arc::clone(&self.all)
            .acquire_owned()
            .await
            .map_err(ApiError::internal)?;
        Ok([own, all])
    }
}

impl Proxy {
    /// Loads the model if need be and asks it. What is returned with the answer keeps the model loaded.
    pub(super) async fn of_model(&self, to: &To<'_>, failure: &Failure<'_>) -> Result<(Answered, InUse), ApiError> {
        let mut tries = 0;
        loop {
            let used = self.loaded(to, failure).await?;
            let asked = self.answered(to.workload, super::SERVING_PORT, to.request, to.streamed);
            let answered = outcome(timeout_at(to.limit, asked).await, to.workload, failure)?;
            let again = match answered.status() {
                // Either its own word for a bad request, or it has lost the model.
                404 if tries < TRIES => !self.confirmed(to, failure).await?,
                507 if tries < TRIES => self.made_room(to, failure).await?,
                _ => false,
            };
            if !again {
                return Ok((answered, used));
            }
            tries += 1;
        }
    }

    /// The model, loaded. Loading goes on when the caller is answered that it is not ready.
    async fn loaded(&self, to: &To<'_>, failure: &Failure<'_>) -> Result<InUse, ApiError> {
        let (shelf, model) = (to.shelf, to.model);
        if let Some(used) = shelf.take(&model.folder) {
            return Ok(kept(shelf, self.turns_of(failure), used));
        }
        let waiting = async {
            let gate = Arc::clone(&shelf.gate).lock_owned().await;
            // Somebody else may have loaded it meanwhile.
            if let Some(used) = shelf.take(&model.folder) {
                return Ok(Err(used));
            }
            let turn = self.loads.turn(&failure.scope.account).await?;
            Ok::<_, ApiError>(Ok((gate, turn)))
        };
        let late = |_| not_ready(&model.path);
        let (gate, turn) = match timeout_at(to.limit, waiting).await.map_err(late)?? {
            Ok(turn) => turn,
            Err(used) => return Ok(kept(shelf, self.turns_of(failure), used)),
        };
        let (loading, path) = (Arc::clone(shelf), model.path.clone());
        let loading = tokio::task::spawn_blocking(move || {
            let done = loading.load(&path);
            drop((gate, turn));
            done
        });
        let done = timeout_at(to.limit, loading).await.map_err(late)?;
        match done.map_err(ApiError::internal)? {
            // Not before: what nobody waited for stays loaded for the next try.
            Ok(used) => Ok(kept(shelf, self.turns_of(failure), used)),
            Err(LoadError::Unusable(text)) => Err(ApiError::client("ValidationError", text)),
            Err(LoadError::NoRoom(words)) => Err(failure.answered(507, some(&words))),
            Err(LoadError::Refused(status, words)) => Err(failure.answered(status, some(&words))),
            Err(LoadError::Away(cause)) => {
                tracing::info!(workload = %to.workload, cause = &*cause as &dyn std::error::Error, "a model cannot be loaded now");
                Err(unavailable())
            }
            Err(LoadError::Engine(cause)) => Err(ApiError::internal(cause)),
        }
    }

    fn turns_of(&self, failure: &Failure<'_>) -> (Arc<Turns>, AccountId) {
        (Arc::clone(&self.loads), failure.scope.account.clone())
    }

    /// Asks the container whether it has the model; one that does not say so in time has it.
    async fn confirmed(&self, to: &To<'_>, failure: &Failure<'_>) -> Result<bool, ApiError> {
        let folder = to.model.folder.clone();
        let asked = self.with_gate(to, failure, move |shelf| shelf.confirm(&folder));
        Ok(asked.await?.unwrap_or(true))
    }

    /// Unloads another model than the one that is asked. `false` when there is none that nobody uses, or not in time.
    async fn made_room(&self, to: &To<'_>, failure: &Failure<'_>) -> Result<bool, ApiError> {
        let folder = to.model.folder.clone();
        let asked = self.with_gate(to, failure, move |shelf| shelf.unload_one(&folder));
        Ok(asked.await?.unwrap_or(false))
    }

    /// Asks a container something, one question at a time, within the account's turns and for as long as the caller waits;
    /// `None` when it cannot be asked, or is too late. The question goes on behind that.
    async fn with_gate(
        &self,
        to: &To<'_>,
        failure: &Failure<'_>,
        ask: impl FnOnce(&Shelf) -> Result<bool, LoadError> + Send + 'static,
    ) -> Result<Option<bool>, ApiError> {
        let asking = async {
            let gate = Arc::clone(&to.shelf.gate).lock_owned().await;
            let turn = self.loads.turn(&failure.scope.account).await?;
            let shelf = Arc::clone(to.shelf);
            let asked = tokio::task::spawn_blocking(move || {
                let done = ask(&shelf);
                drop((gate, turn));
                done
            });
            asked.await.map_err(ApiError::internal)
        };
        match timeout_at(to.limit, asking).await {
            Ok(asked) => Ok(asked?.ok()),
            Err(_late) => Ok(None),
        }
    }
}

/// As much of a container's words as errors repeat.
fn some(words: &str) -> &[u8] {
    words.as_bytes().get(..MESSAGE_LIMIT).unwrap_or(words.as_bytes())
}

/// Where models are not to stay loaded, the last request that uses one unloads it, within its account's turns.
fn kept(shelf: &Arc<Shelf>, (turns, account): (Arc<Turns>, AccountId), used: InUse) -> InUse {
    if shelf.caches {
        return used;
    }
    let (shelf, runtime) = (Arc::clone(shelf), Handle::current());
    used.then(move || {
        runtime.spawn(async move {
            let gate = Arc::clone(&shelf.gate).lock_owned().await;
            let Ok(turn) = turns.turn(&account).await else { return };
            let unloading = tokio::task::spawn_blocking(move || {
                let done = shelf.unload_one("");
                drop((gate, turn));
                done
            });
            if let Ok(Err(error)) = unloading.await {
                tracing::info!(%error, "a model stays loaded for now");
            }
        });
    })
}
