//! Brings one model to its container: downloaded as the model's role, unpacked by the archive process, announced (CC-58).

use super::container::Container;
use crate::container::{MODELS, MODELS_INSIDE};
use crate::deps::Deps;
use crate::transfer::{Actor, Transfer, TransferError};
use crate::workdir::relative_path;
use crate::{Cut, Cuts};
use isolarium_model::sagemaker::model::ModelData;
use isolarium_model::sagemaker::{Attachment, Endpoint, Fleet, S3Uri};
use isolarium_model::{Key, WorkloadId};
use isolarium_runtime::executor::ExecutorError;
use isolarium_runtime::{Archives, Dial};
use isolarium_store::StateStore;
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// How long a container may take to load a model, or to let it go.
const PATIENCE: Duration = Duration::from_secs(360);
/// How long it may take to say what it has.
const WORD: Duration = Duration::from_secs(30);

/// Why a model is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// For the caller to mend: no such object, no right to it, no archive.
    #[error("{0}")]
    Unusable(String),
    /// The container has no room for it (its 507): its words.
    #[error("the container has no room for the model")]
    NoRoom(String),
    /// The container refused it: status and words.
    #[error("the container answered {0}")]
    Refused(u16, String),
    /// The container does not serve any more, or its host is away; another try may do.
    #[error("the container cannot be asked")]
    Away(#[source] Box<dyn Error + Send + Sync>),
    /// The engine's own fault.
    #[error("the model could not be brought to the container")]
    Engine(#[source] Box<dyn Error + Send + Sync>),
}

/// What brings models to one container.
pub(super) struct Loader {
    store: Arc<dyn StateStore>,
    transfer: Arc<dyn Transfer>,
    archives: Arc<dyn Archives>,
    dial: Arc<dyn Dial>,
    cuts: Arc<Cuts>,
    limit: Duration,
    endpoint: Key,
    workload: WorkloadId,
}

/// Where a model comes from now.
struct Source {
    actor: Actor,
    object: S3Uri,
    limit: Option<Duration>,
}

impl Loader {
    pub fn new(deps: &Deps, endpoint: &Key, workload: &WorkloadId) -> Self {
        Self {
            store: Arc::clone(&deps.store),
            transfer: Arc::clone(&deps.transfer),
            archives: Arc::clone(&deps.archives),
            dial: Arc::clone(&deps.dial),
            cuts: Arc::clone(&deps.cuts),
            limit: deps.settings.transfer_limit,
            endpoint: endpoint.clone(),
            workload: workload.clone(),
        }
    }

    /// Downloads and unpacks a model. Its files are there when this returns, and only then is the container told.
    pub fn bring(&self, target_model: &str, folder: &str) -> Result<(), LoadError> {
        let Source { actor, object, limit } = self.source(target_model)?;
        let _here = self.cuts.here(Arc::new(Cut::within(self.limit)));
        let unusable = |why: &str| {
            LoadError::Unusable(format!(
                "Failed to download model data(bucket: {}, key: {}). Please ensure that there is an object located at the \
                 URL and that the role passed to CreateModel has permissions to download the model.{why}",
                object.bucket, object.key
            ))
        };
        let archive = self.transfer.open(&actor, &object).map_err(|error| match error {
            TransferError::Denied(why)
            | TransferError::Unusable(why)
            | TransferError::Role(why)
            | TransferError::NoPath(why) => unusable(&format!(" {why}")),
            error @ (TransferError::Cut | TransferError::Away(_)) => LoadError::Away(error.into()),
            TransferError::Engine(cause) => LoadError::Engine(cause),
        })?;
        let unpacked = self
            .archives
            .unpack_model(archive, &self.workload, MODELS, folder, limit);
        unpacked.map_err(|error| match error {
            ExecutorError::Refused(why) => unusable(&format!(" The archive cannot be used: {why}")),
            // Its container is gone, or its host is.
            error @ (ExecutorError::Unknown | ExecutorError::Unreachable(_) | ExecutorError::Busy(_)) => {
                LoadError::Away(error.into())
            }
            other => LoadError::Engine(other.into()),
        })
    }

    /// The record says who downloads, from where and by which way: a container in a VPC has its place there only since it was
    /// launched.
    fn source(&self, target_model: &str) -> Result<Source, LoadError> {
        let gone = || LoadError::Away("the endpoint has no such instance any more".into());
        let stored = self.store.get::<Endpoint>(&self.endpoint);
        let endpoint = stored
            .map_err(|error| LoadError::Engine(error.into()))?
            .ok_or_else(gone)?
            .record;
        let mut all = endpoint
            .active
            .iter()
            .chain(&endpoint.pending)
            .flat_map(Fleet::instances);
        let own = all.find(|(_, instance)| instance.placement.workload == self.workload);
        let (variant, instance) = own.ok_or_else(gone)?;
        let Some(ModelData::Many { uri, .. }) = &variant.model.data else {
            return Err(gone());
        };
        if matches!(instance.placement.attachment, Attachment::Unattached { .. }) {
            return Err(gone());
        }
        // A key is a text: `..` in it leads nowhere in S3, and still is nothing that a prefix is meant to hold.
        relative_path(target_model)
            .map_err(|_| LoadError::Unusable("TargetModel must be a path below the model's prefix.".into()))?;
        let actor = Deps::actor(&self.endpoint, &variant.model.role_arn, &endpoint.arn);
        Ok(Source {
            actor: actor.of(&instance.placement),
            object: S3Uri {
                bucket: uri.bucket.clone(),
                key: format!("{}{target_model}", uri.key),
            },
            limit: variant.variant.download_timeout.map(Duration::from_secs),
        })
    }

    fn container(&self, patience: Duration) -> Container<'_> {
        Container {
            dial: &*self.dial,
            workload: &self.workload,
            patience,
        }
    }

    /// Tells the container of a model whose files are there.
    pub fn load(&self, folder: &str) -> Result<(), LoadError> {
        let url = format!("{MODELS_INSIDE}/{folder}/model");
        let answered = self.container(PATIENCE).load(folder, &url);
        match answered.map_err(|error| LoadError::Away(error.into()))? {
            // It has it already: what is asked for is so.
            (200..300 | 409, _) => Ok(()),
            (507, words) => Err(LoadError::NoRoom(words)),
            (status, words) => Err(LoadError::Refused(status, words)),
        }
    }

    /// Lets the container forget a model.
    pub fn unload(&self, folder: &str) -> Result<(), LoadError> {
        let answered = self.container(PATIENCE).unload(folder);
        match answered.map_err(|error| LoadError::Away(error.into()))? {
            (200..300 | 404, _) => Ok(()),
            (status, words) => Err(LoadError::Refused(status, words)),
        }
    }

    /// Whether the container has a model. Only a plain no counts as one.
    pub fn has(&self, folder: &str) -> Result<bool, LoadError> {
        let answered = self.container(WORD).describe(folder);
        let (status, _) = answered.map_err(|error| LoadError::Away(error.into()))?;
        Ok(status != 404)
    }

    /// Removes a model's files. What stays goes with the container, or when the model is loaded again.
    pub fn remove(&self, folder: &str) {
        if let Err(error) = self.archives.remove_model(&self.workload, MODELS, folder) {
            tracing::warn!(workload = %self.workload, %error, "the files of an unloaded model stay for now");
        }
    }

    /// What the container has.
    pub fn listed(&self) -> Result<BTreeSet<String>, LoadError> {
        let listed = self.container(WORD).list();
        listed.map_err(|error| LoadError::Away(error.into()))
    }
}
