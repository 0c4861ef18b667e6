//! Everything that survives: opened once, shared by all.

use crate::layout::{self, Layout};
use isolarium_services::ecr::{Registry, TokenKey};
use isolarium_services::iam::credentials::MasterKey;
use isolarium_services::kms::{self, Seals};
use isolarium_store::logs::{DiskLogs, LogError};
use isolarium_store::state::sqlite::SqliteState;
use isolarium_store::{
    BlobError, BlobStore, Database, LogStore, Metrics, ObjectError, ObjectStore, StateStore, StoreError, logs, metrics,
    objects, state,
};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    #[error("the state database cannot be used")]
    State(#[from] StoreError),
    #[error("the buckets cannot be used")]
    Objects(#[from] ObjectError),
    #[error("the logs cannot be used")]
    Logs(#[from] LogError),
    #[error("the image registry cannot be used")]
    Blobs(#[from] BlobError),
    #[error("the master key {path} cannot be used")]
    Master {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the master key {path} is missing and {keys} keys of the key store are sealed under it; restore the file from its backup, or, \
         if there is none, give these keys up as docs/operations.md says"
    )]
    MasterMissing { path: PathBuf, keys: usize },
    #[error(
        "the master key {path} opens none of the {keys} keys of the key store; restore the file that belongs to this data directory, \
         or, if it is lost, give these keys up as docs/operations.md says"
    )]
    MasterWrong { path: PathBuf, keys: usize },
}

/// All stores of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Stores {
    pub state: Arc<dyn StateStore>,
    pub objects: ObjectStore,
    pub logs: Arc<dyn LogStore>,
    pub metrics: Arc<Metrics>,
    pub registry: Arc<Registry>,
    pub master: MasterKey,
}

impl Stores {
    /// Opens or makes everything, finishing what a crash interrupted. `url` is where clients reach the registry.
    ///
    /// # Errors
    /// The first store that failed.
    pub fn open(layout: &Layout, url: &str) -> Result<Self, StoresError> {
        let schemas = [
            state::sqlite::SCHEMA,
            objects::SCHEMA,
            logs::disk::SCHEMA,
            metrics::SCHEMA,
        ];
        let database = Arc::new(Database::open(&layout.at("state.db"), &schemas)?);
        let state: Arc<dyn StateStore> = Arc::new(SqliteState::new(database.clone()));
        let master = master_key(layout, state.as_ref())?;
        Ok(Self {
            state,
            objects: ObjectStore::open(layout.root(), database.clone())?,
            metrics: Arc::new(Metrics::new(database.clone())),
            logs: Arc::new(DiskLogs::open(database, &layout.at("logs/events"))?),
            registry: Arc::new(Registry {
                blobs: BlobStore::open(&layout.at("registry"))?,
                key: TokenKey::derive(&master),
                endpoint: url.to_owned(),
            }),
            master: MasterKey::new(master),
        })
    }
}

/// The 32 bytes that seal session tokens, registry tokens and the keys of the key store, made at the first start. A missing or a
/// foreign file is refused while there are sealed keys: what would be sealed under a new one is lost when the old one comes back.
fn master_key(layout: &Layout, state: &dyn StateStore) -> Result<[u8; 32], StoresError> {
    let path = layout.at("master.key");
    let failed = |source| StoresError::Master {
        path: path.clone(),
        source,
    };
    let found: Option<[u8; 32]> = match std::fs::read(&path) {
        Ok(bytes) => Some(
            bytes
                .try_into()
                .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "not 32 bytes")))?,
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let key = found.unwrap_or_else(crate::clock::random);
    let Seals { keys, opened } = kms::seals(state, &MasterKey::new(key))?;
    // The operator's word that the sealed keys are lost for good.
    let given_up = layout.at("master.key.lost").exists();
    if keys > 0 && opened == 0 && !given_up {
        return Err(match found {
            Some(_) => StoresError::MasterWrong { path, keys },
            None => StoresError::MasterMissing { path, keys },
        });
    }
    if found.is_none() {
        layout::write_whole(&path, &key, 0o600).map_err(failed)?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests;
