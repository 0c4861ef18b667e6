//! Records and lifecycles of SageMaker: training, processing and transform jobs, models, endpoint configurations, endpoints,
//! feature groups, algorithms, model packages and notebook instances.
//!
//! A record holds typed fields for everything the engine acts on, and `echo`: the members of the request that the
//! engine only gives back in Describe (for example `DebugHookConfig`). Nothing that must be enforced is kept in `echo`.

pub mod algorithm;
pub mod async_inference;
pub mod data_capture;
pub mod endpoint;
pub mod endpoint_config;
pub mod failure;
pub mod feature_group;
pub mod flows;
pub mod instance_type;
pub mod metric_pattern;
pub mod model;
pub mod model_package;
pub mod network;
pub mod notebook;
pub mod processing_job;
pub mod s3_uri;
pub mod takeover;
pub mod training_job;
pub mod transform_job;
mod trial_curve;
pub mod tuning_job;
pub mod volume;
pub mod warm_pool;

pub use algorithm::Algorithm;
pub use endpoint::{Endpoint, EndpointEvent, EndpointStatus, Fleet, Instance, VariantFleet};
pub use endpoint_config::{EndpointConfig, ProductionVariant};
pub use failure::{FailureKind, FailureReason};
pub use feature_group::{Feature, FeatureGroup, FeatureRecord, FeatureRemains};
pub use instance_type::{InstanceShape, InstanceTable};
pub use model::{ContainerSpec, Model, ModelData};
pub use model_package::{ModelPackage, ModelPackageGroup};
pub use network::{
    AddressLease, Attachment, BlockedDestination, JobNetwork, Placement, Reach, VpcAttachment, VpcPlace,
};
pub use notebook::{
    NotebookEvent, NotebookInstance, NotebookLifecycleConfig, NotebookRun, NotebookSpec, NotebookStatus,
};
pub use processing_job::ProcessingJob;
pub use s3_uri::S3Uri;
pub use takeover::{Shift, Takeover};
pub use training_job::{JobEvent, SecondaryStatus, TrainingJob, TrainingJobStatus};
pub use transform_job::{TransformEvent, TransformJob, TransformJobStatus};
pub use tuning_job::{TuningEvent, TuningJob, TuningStatus};
pub use volume::EncryptedVolume;
pub use warm_pool::{WarmPool, WarmPoolState};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Members of a request that are only given back, as JSON in the API's spelling.
pub type Echo = serde_json::Map<String, serde_json::Value>;

/// Tags of a resource, by key. At most 50 (SM-13).
pub type Tags = BTreeMap<String, String>;

/// Most tags one resource may carry (SM-13).
pub const MAX_TAGS: usize = 50;

/// A step that a lifecycle does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{event} is not possible in status {from}")]
pub struct IllegalTransition {
    pub from: String,
    pub event: String,
}
