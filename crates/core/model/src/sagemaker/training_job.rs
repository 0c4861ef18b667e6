//! Training jobs: the record, and its lifecycle as one table (SM-28).

use super::EncryptedVolume;
use super::failure::FailureReason;
use super::model::{ContainerSpec, ResolvedImage};
use super::network::{JobNetwork, Placement};
use super::s3_uri::S3Uri;
use super::warm_pool::WarmPool;
use super::{Echo, IllegalTransition, Tags};
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `TrainingJobStatus`. Never stored: it follows from the secondary status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrainingJobStatus {
    InProgress,
    Completed,
    Failed,
    Stopping,
    Stopped,
}

impl TrainingJobStatus {
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

    /// The job changes no more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Stopped => true,
            Self::InProgress | Self::Stopping => false,
        }
    }
}

/// `SecondaryStatus`: the one stored status of a training job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SecondaryStatus {
    Starting,
    /// The machine has no room for it yet.
    Pending,
    /// The host lost an attempt, and another one is to begin (SM-34).
    Restarting,
    Downloading,
    Training,
    Uploading,
    Stopping,
    Completed,
    Failed,
    Stopped,
    MaxRuntimeExceeded,
    MaxWaitTimeExceeded,
}

/// Why a job was told to stop before its container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// StopTrainingJob.
    Asked,
    /// MaxRuntimeInSeconds passed (SM-32).
    MaxRuntime,
    /// MaxWaitTimeInSeconds passed since the creation (SM-32).
    MaxWait,
    /// MaxPendingTimeInSeconds passed before there was room.
    MaxPending,
}

/// What happens to a training job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEvent {
    /// There is no room for the instances; the job waits for it.
    NoCapacity,
    /// The host or the engine lost the attempt; the job may have another one (SM-34).
    InstanceLost,
    /// The instance is ready; inputs come next.
    InstanceReady,
    /// Inputs are in place and the container runs.
    ContainerRuns,
    /// The container ended by itself with success; artifacts come next.
    ContainerSucceeded,
    /// Artifacts are in S3.
    Uploaded,
    /// StopTrainingJob, or the time limit passed.
    StopRequested,
    /// The stop sequence is over and artifacts are in S3.
    StopFinished(StopCause),
    /// The job cannot succeed any more.
    Failed,
}

impl SecondaryStatus {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Pending => "Pending",
            Self::Restarting => "Restarting",
            Self::Downloading => "Downloading",
            Self::Training => "Training",
            Self::Uploading => "Uploading",
            Self::Stopping => "Stopping",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Stopped => "Stopped",
            Self::MaxRuntimeExceeded => "MaxRuntimeExceeded",
            Self::MaxWaitTimeExceeded => "MaxWaitTimeExceeded",
        }
    }

    /// The `TrainingJobStatus` of this phase (SM-28).
    pub fn status(self) -> TrainingJobStatus {
        match self {
            Self::Starting
            | Self::Pending
            | Self::Restarting
            | Self::Downloading
            | Self::Training
            | Self::Uploading => TrainingJobStatus::InProgress,
            Self::Stopping => TrainingJobStatus::Stopping,
            Self::Completed => TrainingJobStatus::Completed,
            Self::Failed => TrainingJobStatus::Failed,
            Self::Stopped | Self::MaxRuntimeExceeded | Self::MaxWaitTimeExceeded => TrainingJobStatus::Stopped,
        }
    }

    /// The lifecycle (SM-28): every pair is written out.
    ///
    /// # Errors
    /// When the event cannot happen in this phase.
    pub fn on(self, event: JobEvent) -> Result<Self, IllegalTransition> {
        use JobEvent as E;
        use SecondaryStatus as S;
        match (self, event) {
            (S::Starting | S::Pending | S::Restarting, E::NoCapacity) => Ok(S::Pending),
            (S::Starting | S::Pending | S::Restarting, E::InstanceReady) => Ok(S::Downloading),
            (
                S::Starting | S::Pending | S::Restarting | S::Downloading | S::Training | S::Uploading,
                E::InstanceLost,
            ) => Ok(S::Restarting),
            (S::Downloading, E::ContainerRuns) => Ok(S::Training),
            (S::Training, E::ContainerSucceeded) => Ok(S::Uploading),
            (S::Uploading, E::Uploaded) => Ok(S::Completed),
            (
                S::Starting | S::Pending | S::Restarting | S::Downloading | S::Training | S::Uploading | S::Stopping,
                E::StopRequested,
            ) => Ok(S::Stopping),
            (S::Stopping, E::StopFinished(StopCause::Asked | StopCause::MaxPending)) => Ok(S::Stopped),
            (S::Stopping, E::StopFinished(StopCause::MaxRuntime)) => Ok(S::MaxRuntimeExceeded),
            (S::Stopping, E::StopFinished(StopCause::MaxWait)) => Ok(S::MaxWaitTimeExceeded),
            (
                S::Starting | S::Pending | S::Restarting | S::Downloading | S::Training | S::Uploading | S::Stopping,
                E::Failed,
            ) => Ok(S::Failed),
            (S::Downloading | S::Training | S::Uploading | S::Stopping, E::NoCapacity | E::InstanceReady)
            | (S::Starting | S::Pending | S::Restarting | S::Training | S::Uploading | S::Stopping, E::ContainerRuns)
            | (
                S::Starting | S::Pending | S::Restarting | S::Downloading | S::Uploading | S::Stopping,
                E::ContainerSucceeded,
            )
            | (S::Starting | S::Pending | S::Restarting | S::Downloading | S::Training | S::Stopping, E::Uploaded)
            | (
                S::Starting | S::Pending | S::Restarting | S::Downloading | S::Training | S::Uploading,
                E::StopFinished(_),
            )
            | (S::Stopping, E::InstanceLost)
            | (S::Completed | S::Failed | S::Stopped | S::MaxRuntimeExceeded | S::MaxWaitTimeExceeded, _) => {
                Err(IllegalTransition {
                    from: self.as_str().into(),
                    event: format!("{event:?}"),
                })
            }
        }
    }

    /// The message that clients print for the phase (SM-29).
    pub fn message(self) -> &'static str {
        match self {
            Self::Starting => "Starting the training job",
            Self::Pending => "Training job waiting for capacity",
            Self::Restarting => "Restarting the training job",
            Self::Downloading => "Downloading input data",
            Self::Training => "Training image download completed. Training in progress.",
            Self::Uploading => "Uploading generated training model",
            Self::Stopping => "Stopping the training job",
            Self::Completed => "Training job completed",
            Self::Failed => "Training job failed",
            Self::Stopped => "Training job stopped",
            Self::MaxRuntimeExceeded => "Training job runtime exceeded MaxRuntimeInSeconds provided",
            Self::MaxWaitTimeExceeded => "Training job wait time exceeded MaxWaitTimeInSeconds provided",
        }
    }
}

/// One entry of `SecondaryStatusTransitions` (SM-29).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    pub status: SecondaryStatus,
    pub started: Timestamp,
    /// Set once the phase was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    pub message: String,
}

/// How objects are chosen for a channel (CC-27).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum S3DataType {
    /// Every object whose key begins with the prefix.
    S3Prefix,
    /// A JSON manifest names the objects.
    ManifestFile,
}

/// `S3DataDistributionType` (CC-28). With one instance both give all objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Distribution {
    FullyReplicated,
    ShardedByS3Key,
}

impl Distribution {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FullyReplicated => "FullyReplicated",
            Self::ShardedByS3Key => "ShardedByS3Key",
        }
    }
}

/// How a channel's data reach the container (CC-22).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputMode {
    /// Files, whole before the container starts (CC-23).
    #[default]
    File,
    /// Files whose bytes are read when they are asked for (CC-24).
    FastFile,
    /// A named pipe for each epoch (CC-25).
    Pipe(PipeInput),
}

impl InputMode {
    /// AWS's spelling.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::File => "File",
            Self::FastFile => "FastFile",
            Self::Pipe(_) => "Pipe",
        }
    }
}

/// What a channel's pipes carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeInput {
    /// Objects are decompressed on the way (CC-26).
    #[serde(default)]
    pub gzip: bool,
    /// Every object, and every attribute, is a RecordIO record (CC-26).
    #[serde(default)]
    pub record_io: bool,
    /// The channel's address is an augmented manifest, of which these attributes are sent in this order (CC-27).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Vec<String>>,
}

impl PipeInput {
    /// The name of an epoch's pipe beside the channels' directories (CC-16, CC-25).
    pub fn name(channel: &str, epoch: u64) -> String {
        format!("{channel}_{epoch}")
    }
}

/// One input channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// `[A-Za-z0-9.\-_]{1,64}`: safe as a directory name, but for `.` and `..`, which creation refuses.
    pub name: String,
    pub uri: S3Uri,
    pub data_type: S3DataType,
    pub distribution: Distribution,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default)]
    pub mode: InputMode,
    /// `ShuffleConfig`: what the order of objects, or of an augmented manifest's lines, is drawn from (CC-25).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shuffle_seed: Option<i64>,
    /// `InstanceGroupNames`: who gets it; empty: every instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// `CompressionType` of the output (CC-32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputCompression {
    /// `model.tar.gz` and `output.tar.gz`.
    Gzip,
    /// Plain files below `output/model/` and `output/data/`.
    None,
}

/// Where artifacts go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputConfig {
    pub uri: S3Uri,
    pub compression: OutputCompression,
    /// The key of the key store under which everything the job stores is encrypted (CC-36); `None`: as the bucket does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
}

/// Checkpoints (CC-35).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointConfig {
    pub uri: S3Uri,
    /// Absolute path inside the container.
    pub local_path: String,
}

/// One metric to look for in the log (CC-38).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricDefinition {
    pub name: String,
    pub regex: String,
}

/// One value of `FinalMetricDataList` (CC-39).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricValue {
    pub value: f64,
    pub time: Timestamp,
}

/// Everything the engine acts on, as accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    pub container: ContainerSpec,
    /// `ContainerEntrypoint`, if given (CC-13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `ContainerArguments`, if given (CC-13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
    /// In the request's order is not promised by the API; kept by name.
    pub hyperparameters: BTreeMap<String, String>,
    pub channels: Vec<Channel>,
    pub output: OutputConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<CheckpointConfig>,
    pub metrics: Vec<MetricDefinition>,
    /// Of all instances; of groups, the first one's.
    pub instance_type: String,
    /// At least one.
    #[serde(default = "one")]
    pub instances: usize,
    /// `InstanceGroups` in the request's order, which is that of the instances; empty: all instances are alike.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<InstanceGroup>,
    pub role_arn: Arn,
    /// Seconds (SM-32).
    pub max_runtime: u64,
    /// Seconds that the job may wait for room; none: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pending: Option<u64>,
    /// Of managed spot training: seconds from the creation, waiting and running together; at least `max_runtime` (SM-32).
    /// Nobody takes an instance back here, so the job runs as any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<u64>,
    /// `MaximumRetryAttempts`: how often the job may begin again after the host or the engine lost it (SM-34).
    #[serde(default)]
    pub max_retries: u32,
    /// `KeepAlivePeriodInSeconds`: how long the room is kept for a job that fits; 0: it is given back.
    #[serde(default)]
    pub keep_alive: u64,
    /// Of every instance, where the request has it encrypted; `None`: files lie as those of other jobs (CC-36).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<EncryptedVolume>,
    pub network: JobNetwork,
}

fn one() -> usize {
    1
}

/// Alike instances of a heterogeneous cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceGroup {
    /// Not another group's of the job.
    pub name: String,
    pub instance_type: String,
    /// At least one.
    pub instances: usize,
}

/// The name of the one group of a job without groups (CC-19).
pub const HOMOGENEOUS: &str = "homogeneousCluster";

impl JobSpec {
    /// The groups with their instances, counted from 0: name, instance type, instances (CC-19).
    pub fn clusters(&self) -> Vec<(&str, &str, std::ops::Range<usize>)> {
        if self.groups.is_empty() {
            return vec![(HOMOGENEOUS, &self.instance_type, 0..self.instances)];
        }
        let mut from = 0;
        let mut all = Vec::new();
        for group in &self.groups {
            let to = from + group.instances;
            all.push((group.name.as_str(), group.instance_type.as_str(), from..to));
            from = to;
        }
        all
    }

    /// The name and instance type of an instance's group.
    pub fn cluster_of(&self, instance: usize) -> (&str, &str) {
        let all = self.clusters().into_iter();
        let own = all.filter(|(_, _, members)| members.contains(&instance));
        let own = own.map(|(name, instance_type, _)| (name, instance_type)).next();
        own.unwrap_or((HOMOGENEOUS, &self.instance_type))
    }

    /// Which one of how many an instance is among those that get a channel. `None`: it does not get it.
    pub fn share(&self, channel: &Channel, instance: usize) -> Option<(usize, usize)> {
        let mut receivers = self.clusters();
        receivers.retain(|(name, _, _)| channel.groups.is_empty() || channel.groups.iter().any(|one| one == name));
        let all: Vec<usize> = receivers.into_iter().flat_map(|(_, _, members)| members).collect();
        let number = all.iter().position(|one| *one == instance)?;
        Some((number, all.len()))
    }

    /// How many instances of a type the job has.
    pub fn instances_of(&self, instance_type: &str) -> usize {
        let all = self.clusters().into_iter();
        all.filter(|(_, of, _)| *of == instance_type)
            .map(|(_, _, members)| members.len())
            .sum()
    }

    /// Named pipes that its instances read.
    pub fn pipes(&self) -> usize {
        let piped = self
            .channels
            .iter()
            .filter(|one| matches!(one.mode, InputMode::Pipe(_)));
        let readers = piped.map(|channel| {
            let named = |name: &str| channel.groups.is_empty() || channel.groups.iter().any(|one| one == name);
            let groups = self.clusters().into_iter().filter(|(name, _, _)| named(name));
            groups.map(|(_, _, members)| members.len()).sum::<usize>()
        });
        readers.fold(0, usize::saturating_add)
    }
}

/// What has happened to a job's containers so far; survives restarts of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    /// Of the first instance.
    pub placement: Placement,
    /// Of the second and all further ones, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Placement>,
    /// Set when the image was resolved at launch (CC-1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ResolvedImage>,
    /// Why and when the stop sequence began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<(StopCause, Timestamp)>,
    /// The first program was let go, or may have been.
    #[serde(default)]
    pub launched: bool,
    /// Attempts before this one that the host or the engine lost (SM-34).
    #[serde(default)]
    pub restarts: u32,
    /// What the instances say to each other is encrypted (`EnableInterContainerTrafficEncryption`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
}

impl JobRun {
    /// Of a new job, whose instances stand in this order. `None` without any.
    pub fn new(placements: Vec<Placement>) -> Option<Self> {
        let mut placements = placements.into_iter();
        Some(Self {
            placement: placements.next()?,
            others: placements.collect(),
            image: None,
            stop: None,
            launched: false,
            restarts: 0,
            encrypted: false,
        })
    }

    /// With encryption between the instances, if that is asked for; alone there is nothing to encrypt.
    #[must_use]
    pub fn encrypted(mut self, asked: bool) -> Self {
        self.encrypted = asked && self.instances() > 1;
        self
    }

    /// One per instance: the first is `algo-1`'s (CC-20).
    pub fn placements(&self) -> impl DoubleEndedIterator<Item = &Placement> + Clone {
        std::iter::once(&self.placement).chain(&self.others)
    }

    /// The placement of an instance, counted from 0.
    pub fn placement_mut(&mut self, instance: usize) -> Option<&mut Placement> {
        match instance.checked_sub(1) {
            None => Some(&mut self.placement),
            Some(other) => self.others.get_mut(other),
        }
    }

    /// How many instances there are; at least one.
    pub fn instances(&self) -> usize {
        1 + self.others.len()
    }
}

/// The name of an instance, counted from 0, to the containers of its job: `algo-1` and so on (CC-20).
pub fn host_name(instance: usize) -> String {
    format!("algo-{}", instance + 1)
}

/// A training job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingJob {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub modified: Timestamp,
    pub secondary: SecondaryStatus,
    /// Append-only, but for the message of the last entry (SM-29).
    pub transitions: Vec<Transition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_start: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_end: Option<Timestamp>,
    /// The tuning job that started it, if one did (SM-38).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning_job: Option<Arn>,
    pub spec: JobSpec,
    pub run: JobRun,
    /// What becomes of its room, where the job asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_pool: Option<WarmPool>,
    /// What the caller should know although the job was accepted; part of the first phases' messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Last value per metric (CC-39).
    #[serde(default)]
    pub final_metrics: BTreeMap<String, MetricValue>,
    pub tags: Tags,
    pub echo: Echo,
}

impl Record for TrainingJob {
    const KIND: &'static str = "sagemaker.training_job";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.name.clone(),
            created: self.created,
            modified: self.modified,
            status: self.status().as_str().into(),
        }
    }
}

impl TrainingJob {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The job's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "training-job", name)
    }

    /// `TrainingJobStatus`.
    pub fn status(&self) -> TrainingJobStatus {
        self.secondary.status()
    }

    /// The first entry of a new job's transitions.
    pub fn first_transition(now: Timestamp) -> Transition {
        let status = SecondaryStatus::Starting;
        Transition {
            status,
            started: now,
            ended: None,
            message: status.message().into(),
        }
    }

    /// Moves the job along its lifecycle at `now`: closes the open transition, opens the next, keeps the times of SM-30.
    /// A repeated stop request changes nothing.
    ///
    /// # Errors
    /// When the lifecycle has no such step.
    pub fn apply(&mut self, event: JobEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        let next = self.secondary.on(event)?;
        if next == self.secondary {
            return Ok(());
        }
        if let Some(open) = self.transitions.last_mut() {
            open.ended = Some(now);
        }
        let is_final = next.status().is_final();
        let ended = is_final.then_some(now);
        let message = match &self.warning {
            // Where the instances would meet.
            Some(warning) if next == SecondaryStatus::Training => format!("{} {warning}", next.message()),
            _ => next.message().into(),
        };
        self.transitions.push(Transition {
            status: next,
            started: now,
            ended,
            message,
        });
        self.secondary = next;
        self.modified = now;
        if next == SecondaryStatus::Downloading {
            // The time limit is that of the whole job, attempts that were lost included (SM-34).
            self.training_start.get_or_insert(now);
        }
        if is_final {
            self.training_end = self.training_start.map(|_| now);
        }
        Ok(())
    }

    /// Fails the job, unless it has ended already.
    ///
    /// # Errors
    /// When the job has ended.
    pub fn fail(&mut self, reason: FailureReason, now: Timestamp) -> Result<(), IllegalTransition> {
        self.apply(JobEvent::Failed, now)?;
        if let Some(open) = self.transitions.last_mut() {
            open.message = reason.to_string();
        }
        self.failure_reason = Some(reason);
        Ok(())
    }

    /// Whether the job may begin again after the host or the engine lost it (SM-34).
    pub fn may_restart(&self) -> bool {
        self.run.restarts < self.spec.max_retries && self.secondary.on(JobEvent::InstanceLost).is_ok()
    }

    /// Begins again at these places. Why the last attempt was lost is told by the phase's message.
    ///
    /// # Errors
    /// When the lifecycle has no such step.
    pub fn restart(&mut self, run: JobRun, why: &str, now: Timestamp) -> Result<(), IllegalTransition> {
        self.apply(JobEvent::InstanceLost, now)?;
        if let Some(open) = self.transitions.last_mut() {
            open.message = format!("{}: {why}", SecondaryStatus::Restarting.message());
        }
        // Also where the attempt before was lost in this phase already.
        self.modified = now;
        self.run = JobRun {
            restarts: self.run.restarts.saturating_add(1),
            encrypted: self.run.encrypted,
            ..run
        };
        Ok(())
    }

    /// `TrainingTimeInSeconds`: from start to end (SM-30); whole seconds, at least 1 once the job has ended.
    pub fn training_seconds(&self) -> Option<u64> {
        let (start, end) = (self.training_start?, self.training_end?);
        Some(end.since(start).as_secs().max(1))
    }

    /// `ModelArtifacts.S3ModelArtifacts` (SM-31).
    pub fn model_artifacts(&self) -> S3Uri {
        match self.spec.output.compression {
            OutputCompression::Gzip => self.output_uri("model.tar.gz"),
            OutputCompression::None => self.output_uri("model/"),
        }
    }

    /// A place below `<S3OutputPath>/<job>/output/`.
    pub fn output_uri(&self, file: &str) -> S3Uri {
        self.spec.output.uri.join(&format!("{}/output/{file}", self.name))
    }

    /// The log stream of an instance, counted from 0 (CC-90): `<job>/algo-<n>-<epoch>`, the epoch being the creation time
    /// in seconds.
    pub fn log_stream(&self, instance: usize) -> String {
        format!(
            "{}/{}-{}",
            self.name,
            host_name(instance),
            self.created.0.div_euclid(1000)
        )
    }
}

#[cfg(test)]
mod tests;
