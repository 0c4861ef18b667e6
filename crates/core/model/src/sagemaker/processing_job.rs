//! Processing jobs: the record. Their lifecycle is that of training jobs, of which the API shows the status alone (SM-40).

use super::failure::FailureReason;
use super::network::JobNetwork;
use super::s3_uri::S3Uri;
use super::training_job::{Distribution, JobEvent, JobRun, S3DataType, SecondaryStatus, TrainingJobStatus, host_name};
use super::{ContainerSpec, Echo, EncryptedVolume, IllegalTransition, Tags};
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};

/// The directory in which all inputs and outputs lie (CC-41).
pub const PROCESSING: &str = "/opt/ml/processing";

/// Longest ExitMessage: characters by the API, and bytes of the message file that are read (SM-40, CC-44).
pub const MAX_EXIT_MESSAGE: usize = 1024;

/// A directory below [`PROCESSING`], as the path from there: `input/code`. No empty, `.` or `..` parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LocalPath(String);

/// A text that is no [`LocalPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a local path must be a directory below {PROCESSING}")]
pub struct BadLocalPath;

impl LocalPath {
    /// Reads the absolute path of a request. A final slash does not count.
    ///
    /// # Errors
    /// When it does not lie below [`PROCESSING`], or has parts that are no names.
    pub fn parse(text: &str) -> Result<Self, BadLocalPath> {
        let below = text.strip_prefix(PROCESSING).and_then(|rest| rest.strip_prefix('/'));
        Self::try_from(below.ok_or(BadLocalPath)?.trim_end_matches('/').to_owned())
    }

    /// From [`PROCESSING`]: `input/code`.
    pub fn below(&self) -> &str {
        &self.0
    }

    /// As the container sees it.
    pub fn absolute(&self) -> String {
        format!("{PROCESSING}/{}", self.0)
    }

    /// Whether `other` is this directory or lies in it.
    pub fn holds(&self, other: &Self) -> bool {
        let rest = other.0.strip_prefix(&self.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl TryFrom<String> for LocalPath {
    type Error = BadLocalPath;

    fn try_from(below: String) -> Result<Self, BadLocalPath> {
        let name = |part: &str| {
            !part.is_empty() && part != "." && part != ".." && part.len() <= 255 && !part.contains(char::is_control)
        };
        below.split('/').all(name).then_some(Self(below)).ok_or(BadLocalPath)
    }
}

impl From<LocalPath> for String {
    fn from(path: LocalPath) -> Self {
        path.0
    }
}

/// Objects that are there before the container starts. Inputs that the application fetches itself (`AppManaged`) are in the
/// echo alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessingInput {
    pub name: String,
    pub uri: S3Uri,
    pub data_type: S3DataType,
    pub distribution: Distribution,
    pub local_path: LocalPath,
}

/// `S3UploadMode` (CC-42).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UploadMode {
    /// While the containers run, and after them.
    Continuous,
    /// After the containers have ended.
    EndOfJob,
}

/// A directory whose files go to S3. Outputs that the application stores itself (`AppManaged`) are in the echo alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessingOutput {
    pub name: String,
    pub uri: S3Uri,
    pub mode: UploadMode,
    pub local_path: LocalPath,
}

/// Everything the engine acts on, as accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessingSpec {
    pub container: ContainerSpec,
    /// `ContainerEntrypoint`, if given (CC-40).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `ContainerArguments`, if given (CC-40).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
    /// One may lie in another; no two share a directory.
    pub inputs: Vec<ProcessingInput>,
    /// None lies in another or in an input, or holds one.
    pub outputs: Vec<ProcessingOutput>,
    pub instance_type: String,
    pub role_arn: Arn,
    /// Seconds, counted from the start of the containers (SM-40).
    pub max_runtime: u64,
    pub network: JobNetwork,
    /// The key of the key store under which outputs are encrypted (CC-36); `None`: as the bucket does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// Of every instance, where the request has it encrypted (CC-36).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<EncryptedVolume>,
}

impl ProcessingSpec {
    /// The outputs that are uploaded while the containers run.
    pub fn continuous(&self) -> impl Iterator<Item = &ProcessingOutput> {
        let all = self.outputs.iter();
        all.filter(|output| output.mode == UploadMode::Continuous)
    }
}

/// A processing job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessingJob {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub modified: Timestamp,
    /// What the API shows of it is [`Self::status`].
    pub phase: SecondaryStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    /// The containers' own words, at most [`MAX_EXIT_MESSAGE`] bytes (CC-44).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_message: Option<String>,
    /// When the containers were started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    pub spec: ProcessingSpec,
    pub run: JobRun,
    pub tags: Tags,
    pub echo: Echo,
}

impl Record for ProcessingJob {
    const KIND: &'static str = "sagemaker.processing_job";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.name.clone(),
            created: self.created,
            modified: self.modified,
            status: self.status().as_str().into(),
        }
    }
}

impl ProcessingJob {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The job's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "processing-job", name)
    }

    /// `ProcessingJobStatus`: the same five as a training job's (SM-40).
    pub fn status(&self) -> TrainingJobStatus {
        self.phase.status()
    }

    /// Moves the job along its lifecycle at `now`. A repeated stop request changes nothing.
    ///
    /// # Errors
    /// When the lifecycle has no such step.
    pub fn apply(&mut self, event: JobEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        let next = self.phase.on(event)?;
        if next == self.phase {
            return Ok(());
        }
        self.phase = next;
        self.modified = now;
        if next == SecondaryStatus::Training {
            self.started = Some(now);
        }
        if next.status().is_final() {
            self.ended = Some(now);
        }
        Ok(())
    }

    /// Fails the job, unless it has ended already.
    ///
    /// # Errors
    /// When the job has ended.
    pub fn fail(&mut self, reason: FailureReason, now: Timestamp) -> Result<(), IllegalTransition> {
        self.apply(JobEvent::Failed, now)?;
        self.failure_reason = Some(reason);
        Ok(())
    }

    /// The log stream of an instance, counted from 0 (CC-90): `<job>/algo-<n>-<epoch>`, the epoch being the creation time
    /// in seconds.
    pub fn log_stream(&self, instance: usize) -> String {
        let epoch = self.created.0.div_euclid(1000);
        format!("{}/{}-{epoch}", self.name, host_name(instance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: CC-41
    #[test]
    fn a_local_path_is_a_directory_below_the_platforms() {
        for (text, below) in [
            ("/opt/ml/processing/input", "input"),
            ("/opt/ml/processing/input/code/", "input/code"),
            ("/opt/ml/processing/a b", "a b"),
        ] {
            let path = LocalPath::parse(text).unwrap();
            assert_eq!(path.below(), below);
            assert_eq!(path.absolute(), text.trim_end_matches('/'));
            let stored: LocalPath = serde_json::from_str(&serde_json::to_string(&path).unwrap()).unwrap();
            assert_eq!(stored, path);
        }
        for bad in [
            "",
            "/",
            "/opt/ml/processing",
            "/opt/ml/processing/",
            "/opt/ml/processinga",
            "/opt/ml/input",
            "input",
            "/opt/ml/processing/../model",
            "/opt/ml/processing/a//b",
            "/opt/ml/processing/./a",
            "/opt/ml/processing/a\n",
            "/tmp/opt/ml/processing/a",
        ] {
            assert_eq!(LocalPath::parse(bad), Err(BadLocalPath), "{bad}");
        }
        assert!(serde_json::from_str::<LocalPath>("\"../etc\"").is_err(), "records too");
    }

    #[test]
    fn directories_hold_what_lies_below_them_and_not_what_begins_like_them() {
        let path = |below: &str| LocalPath::try_from(below.to_owned()).unwrap();
        assert!(path("a").holds(&path("a")) && path("a").holds(&path("a/b/c")));
        assert!(!path("a").holds(&path("ab")) && !path("a/b").holds(&path("a")));
    }
}
