//! Batch transform jobs: the record and its lifecycle (SM-39, CC-64..79).

use super::EncryptedVolume;
use super::failure::{FailureKind, FailureReason};
use super::model::{ModelSpec, ResolvedImage};
use super::network::Placement;
use super::s3_uri::S3Uri;
use super::training_job::S3DataType;
use super::{Echo, IllegalTransition, Tags};
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `TransformJobStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TransformJobStatus {
    InProgress,
    Completed,
    Failed,
    Stopping,
    Stopped,
}

/// What happens to a transform job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransformEvent {
    /// Every object has its output.
    Succeeded,
    /// An object has none, or the containers do not run.
    Failed,
    /// StopTransformJob.
    StopRequested,
    /// Its containers have ended after that.
    StopFinished,
}

impl TransformJobStatus {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
        }
    }

    /// Whether nothing happens to the job any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Stopped => true,
            Self::InProgress | Self::Stopping => false,
        }
    }

    /// The lifecycle (SM-39): every pair is written out.
    ///
    /// # Errors
    /// When the event cannot happen in this status.
    pub fn on(self, event: TransformEvent) -> Result<Self, IllegalTransition> {
        use TransformEvent as E;
        use TransformJobStatus as S;
        match (self, event) {
            (S::InProgress, E::Succeeded) => Ok(S::Completed),
            (S::InProgress, E::Failed) => Ok(S::Failed),
            (S::InProgress, E::StopRequested) => Ok(S::Stopping),
            (S::Stopping, E::StopFinished) => Ok(S::Stopped),
            (S::InProgress, E::StopFinished)
            | (S::Stopping, E::Succeeded | E::Failed | E::StopRequested)
            | (S::Completed | S::Failed | S::Stopped, E::Succeeded | E::Failed | E::StopRequested | E::StopFinished) => {
                Err(IllegalTransition {
                    from: self.as_str().into(),
                    event: format!("{event:?}"),
                })
            }
        }
    }
}

/// `SplitType`: how an object falls into records (CC-68).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SplitType {
    /// The object is one record.
    #[default]
    None,
    /// A record per line.
    Line,
    /// MXNet's framing.
    #[serde(rename = "RecordIO")]
    RecordIo,
    /// TensorFlow's framing.
    #[serde(rename = "TFRecord")]
    TfRecord,
}

/// `BatchStrategy`: how many records one request carries (CC-69).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BatchStrategy {
    MultiRecord,
    SingleRecord,
}

impl BatchStrategy {
    /// The spelling that containers read and write (CC-64, CC-65).
    pub fn in_container(self) -> &'static str {
        match self {
            Self::MultiRecord => "MULTI_RECORD",
            Self::SingleRecord => "SINGLE_RECORD",
        }
    }
}

/// `AssembleWith`: what stands behind each result (CC-72).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssembleWith {
    #[default]
    None,
    /// A newline.
    Line,
}

/// `DataProcessing` (CC-77). The paths were read once when the job was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataProcessing {
    /// JSONPath; `$` is everything.
    pub input_filter: String,
    /// JSONPath; `$` is everything.
    pub output_filter: String,
    /// `JoinSource` is `Input`.
    pub join: bool,
}

impl Default for DataProcessing {
    fn default() -> Self {
        Self {
            input_filter: "$".into(),
            output_filter: "$".into(),
            join: false,
        }
    }
}

/// Where the data comes from and how it is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformInput {
    pub uri: S3Uri,
    pub data_type: S3DataType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `CompressionType` is `Gzip` (CC-76).
    pub gzip: bool,
    pub split: SplitType,
}

/// Where the results go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformOutput {
    /// Outputs are below it (CC-73).
    pub uri: S3Uri,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    pub assemble: AssembleWith,
    /// The key of the key store under which it is encrypted (CC-36); `None`: as the bucket does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
}

/// `ModelClientConfig` (CC-74).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelClient {
    /// Seconds that one invocation may take, 1..=3600.
    pub timeout: u64,
    /// Further tries of an invocation that failed, 0..=3.
    pub retries: u32,
}

impl Default for ModelClient {
    fn default() -> Self {
        Self {
            timeout: 600,
            retries: 3,
        }
    }
}

/// Most bytes that one request may have as a caller writes it: `MaxPayloadInMB` times this.
pub const MEBIBYTE: u64 = 1 << 20;

/// Largest product of `MaxPayloadInMB` and `MaxConcurrentTransforms` (SM-39).
pub const MAX_IN_FLIGHT_MB: u64 = 100;

/// `MaxPayloadInMB` where neither request nor container says (CC-66).
pub const DEFAULT_PAYLOAD_MB: u64 = 6;

/// Everything the engine acts on, as accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformSpec {
    pub model_name: String,
    /// A copy, because models may be deleted while the job runs (SM-19). Network and role come from it alone (BT-1).
    pub model: ModelSpec,
    /// The request's own environment; it goes before the model's (CC-64).
    pub environment: BTreeMap<String, String>,
    pub instance_type: String,
    pub instance_count: u32,
    /// Of every instance, where the request has it encrypted (CC-36).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<EncryptedVolume>,
    pub input: TransformInput,
    pub output: TransformOutput,
    pub client: ModelClient,
    /// As the request gave it; 0 and none leave it to the container (CC-66).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u64>,
    /// As the request gave it; 0 is without limit (CC-70).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_payload_mb: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<BatchStrategy>,
    #[serde(default)]
    pub processing: DataProcessing,
}

/// Whose fault it was that an object has no output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectFault {
    /// The data, the permissions, or the container said so (4xx).
    Client,
    /// The container failed (5xx) or said nothing.
    Algorithm,
    /// The engine failed.
    Internal,
}

/// One instance of a job: one container, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformInstance {
    /// `i-` and 17 hexadecimal digits; part of its log streams' names (CC-90).
    pub id: String,
    pub placement: Placement,
    /// The container was launched, or may have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched: Option<Timestamp>,
    /// Objects of its share that are finished, in order; those before are not touched again (kill -9).
    #[serde(default)]
    pub done: u64,
    /// Every object of its share is finished.
    #[serde(default)]
    pub finished: bool,
    /// Objects of its share that have no output.
    #[serde(default)]
    pub failed: u64,
    /// Whose fault the first of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<ObjectFault>,
    /// Its words, where they say more than the data log: S3 was not reached, or the role may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What has happened so far; survives restarts of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformRun {
    /// Empty until the job was first looked at.
    pub instances: Vec<TransformInstance>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ResolvedImage>,
    /// When the stop was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Timestamp>,
    /// How the job will have failed once its containers are gone. Noted before the first of them is ended: what the engine
    /// itself ends says nothing of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<(FailureKind, String)>,
}

/// A batch transform job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformJob {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub modified: Timestamp,
    pub status: TransformJobStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    /// The first container was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    pub spec: TransformSpec,
    pub run: TransformRun,
    pub tags: Tags,
    /// Members of the request that Describe gives back.
    pub echo: Echo,
}

impl Record for TransformJob {
    const KIND: &'static str = "sagemaker.transform_job";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.name.clone(),
            created: self.created,
            modified: self.modified,
            status: self.status.as_str().into(),
        }
    }
}

impl TransformJob {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The job's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "transform-job", name)
    }

    /// Moves the job along its lifecycle.
    ///
    /// # Errors
    /// When the lifecycle has no such step.
    pub fn apply(&mut self, event: TransformEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        self.status = self.status.on(event)?;
        self.modified = now;
        if self.status.is_final() {
            self.ended = Some(now);
        }
        Ok(())
    }

    /// The stream of one instance's container (CC-90), the epoch being the creation time in seconds; what the platform
    /// says of the data is in `<stream>/data-log`.
    pub fn log_stream(&self, instance: &TransformInstance) -> String {
        format!("{}/{}-{}", self.name, instance.id, self.created.0.div_euclid(1000))
    }

    /// Every placement the record knows: what gc must leave alone.
    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.run.instances.iter().map(|instance| &instance.placement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransformEvent as E;
    use TransformJobStatus as S;

    /// Proves: SM-39
    #[test]
    fn a_transform_job_moves_only_along_its_table() {
        assert_eq!(S::InProgress.on(E::Succeeded), Ok(S::Completed));
        assert_eq!(S::InProgress.on(E::Failed), Ok(S::Failed));
        assert_eq!(S::InProgress.on(E::StopRequested), Ok(S::Stopping));
        assert_eq!(S::Stopping.on(E::StopFinished), Ok(S::Stopped));
        for ended in [S::Completed, S::Failed, S::Stopped] {
            assert!(ended.is_final());
            for event in [E::Succeeded, E::Failed, E::StopRequested, E::StopFinished] {
                assert!(ended.on(event).is_err(), "{ended:?} {event:?}");
            }
        }
        for event in [E::Succeeded, E::Failed, E::StopRequested] {
            assert!(
                S::Stopping.on(event).is_err(),
                "a job that is stopped stores no more output: {event:?}"
            );
        }
        assert!(S::InProgress.on(E::StopFinished).is_err());
    }

    #[test]
    fn split_types_are_kept_in_the_requests_spelling() {
        for (split, text) in [
            (SplitType::None, "\"None\""),
            (SplitType::Line, "\"Line\""),
            (SplitType::RecordIo, "\"RecordIO\""),
            (SplitType::TfRecord, "\"TFRecord\""),
        ] {
            assert_eq!(serde_json::to_string(&split).unwrap(), text);
        }
    }
}
