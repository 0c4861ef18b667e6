//! Hyperparameter tuning jobs: what is searched, what was tried, and the lifecycle (SM-35..38).

use super::failure::FailureReason;
use super::training_job::{JobSpec, TrainingJob, TrainingJobStatus};
pub use super::trial_curve::Curve;
use super::{Echo, IllegalTransition, Tags};
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Values of hyperparameters by name, as training jobs get them: text (SM-35).
pub type Values = BTreeMap<String, String>;

/// Most definitions in one tuning job.
pub const MAX_DEFINITIONS: usize = 10;

/// The hyperparameter that names the objective metric to the container (CC-17).
pub const OBJECTIVE_PARAMETER: &str = "_tuning_objective_metric";

/// `Strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    Bayesian,
    Random,
    Grid,
    Hyperband,
}

impl Strategy {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bayesian => "Bayesian",
            Self::Random => "Random",
            Self::Grid => "Grid",
            Self::Hyperband => "Hyperband",
        }
    }
}

/// `Type` of an objective: which values are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    Maximize,
    Minimize,
}

impl Goal {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Maximize => "Maximize",
            Self::Minimize => "Minimize",
        }
    }

    /// Whether `value` is strictly better than `other`.
    pub fn is_better(self, value: f64, other: f64) -> bool {
        match self {
            Self::Maximize => value > other,
            Self::Minimize => value < other,
        }
    }

    /// The value as a cost: less is better.
    pub fn cost(self, value: f64) -> f64 {
        match self {
            Self::Maximize => -value,
            Self::Minimize => value,
        }
    }
}

/// What is to be made best.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objective {
    pub goal: Goal,
    pub metric: String,
}

/// `ScalingType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scaling {
    Auto,
    Linear,
    Logarithmic,
    ReverseLogarithmic,
}

/// The values one hyperparameter may take, as accepted: bounds are inclusive and in order, lists are without repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    Continuous { min: f64, max: f64, scaling: Scaling },
    Integer { min: i64, max: i64, scaling: Scaling },
    Categorical { values: Vec<String> },
}

/// One searched hyperparameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterRange {
    pub name: String,
    pub domain: Domain,
}

/// `HyperbandStrategyConfig`, in values of the objective metric that a training job tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HyperbandResources {
    /// No job is stopped before it told as many values.
    pub min: u32,
    /// A job that told as many is stopped.
    pub max: u32,
}

/// `ResourceLimits`, with the number of jobs worked out where the strategy says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    pub jobs: u32,
    pub parallel: u32,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<u64>,
}

/// `TuningJobCompletionCriteria`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompletionCriteria {
    /// `TargetObjectiveMetricValue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
    /// `MaxNumberOfTrainingJobsNotImproving`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_improving: Option<u32>,
    /// `CompleteOnConvergence`.
    #[serde(default)]
    pub convergence: bool,
}

/// One training definition: from it every child is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub objective: Objective,
    pub ranges: Vec<ParameterRange>,
    /// What a child acts on; its hyperparameters are the static ones.
    pub spec: JobSpec,
    /// What DescribeTrainingJob of a child gives back; its `HyperParameters` are the static ones.
    pub echo: Echo,
}

/// `WarmStartType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WarmStartKind {
    IdenticalDataAndAlgorithm,
    TransferLearning,
}

/// A training job of an earlier tuning job, as it was when this one was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierTrial {
    /// Which parent it is of, by its place in the request: values of different ones may be on different scales.
    pub parent: usize,
    /// Static and tuned values.
    pub values: Values,
    pub value: f64,
}

/// What a tuning job learns from its parents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmStart {
    pub kind: WarmStartKind,
    pub trials: Vec<EarlierTrial>,
    /// The best training job of all parents, as ListTrainingJobsForHyperParameterTuningJob tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Box<BestOfParents>>,
}

/// See [`WarmStart::best`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestOfParents {
    /// The parent's name.
    pub tuning_job: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    pub objective: Objective,
    pub arn: Arn,
    pub trial: Trial,
}

/// How a trial's training job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialEnd {
    /// Completed, Failed or Stopped, in AWS's spelling.
    pub status: FinalStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The last value of the objective metric, if it told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
}

/// The statuses in which a training job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinalStatus {
    Completed,
    Failed,
    Stopped,
}

impl FinalStatus {
    /// Of a training job; `None` while it goes on.
    pub fn of(status: TrainingJobStatus) -> Option<Self> {
        match status {
            TrainingJobStatus::Completed => Some(Self::Completed),
            TrainingJobStatus::Failed => Some(Self::Failed),
            TrainingJobStatus::Stopped => Some(Self::Stopped),
            TrainingJobStatus::InProgress | TrainingJobStatus::Stopping => None,
        }
    }

    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Stopped => "Stopped",
        }
    }
}

/// One training job that was started. Committed together with the training job's own record: there is never one without
/// the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The training job's name.
    pub job_name: String,
    /// Which definition, from 0.
    pub definition: usize,
    /// The tuned values alone.
    pub values: Values,
    pub created: Timestamp,
    /// Set once, when its training job has ended: the training job may be deleted later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<TrialEnd>,
}

impl Trial {
    /// The objective's last value, once the trial has ended with one.
    pub fn objective(&self) -> Option<f64> {
        self.end.as_ref().and_then(|end| end.objective)
    }
}

/// `HyperParameterTuningJobStatus`. A tuning job is deleted in one commit, so that Deleting is never seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TuningStatus {
    InProgress,
    Stopping,
    Completed,
    Failed,
    Stopped,
}

/// What happens to a tuning job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TuningEvent {
    /// StopHyperParameterTuningJob.
    StopRequested,
    /// Every training job has ended, and no more is wanted.
    Finished,
    /// Every training job has ended, and none was of use.
    Failed,
}

impl TuningStatus {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Stopping => "Stopping",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
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

    /// The lifecycle (SM-37): every pair is written out.
    ///
    /// # Errors
    /// When the event cannot happen in this status.
    pub fn on(self, event: TuningEvent) -> Result<Self, IllegalTransition> {
        use TuningEvent as E;
        match (self, event) {
            (Self::InProgress | Self::Stopping, E::StopRequested) => Ok(Self::Stopping),
            (Self::InProgress, E::Finished) => Ok(Self::Completed),
            (Self::Stopping, E::Finished | E::Failed) => Ok(Self::Stopped),
            (Self::InProgress, E::Failed) => Ok(Self::Failed),
            (Self::Completed | Self::Failed | Self::Stopped, _) => Err(IllegalTransition {
                from: self.as_str().into(),
                event: format!("{event:?}"),
            }),
        }
    }
}

/// Why no more training jobs are started, though the limit of jobs is not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enough {
    /// `MaxRuntimeInSeconds` of the tuning job passed.
    Runtime,
    /// `TargetObjectiveMetricValue` was reached.
    Target,
    /// The last training jobs did not improve the best value.
    NotImproving,
    /// More training jobs are unlikely to improve the best value.
    Converged,
    /// The first training jobs told no objective metric.
    NoObjective,
}

/// A hyperparameter tuning job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuningJob {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub modified: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    pub status: TuningStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    pub strategy: Strategy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyperband: Option<HyperbandResources>,
    pub limits: ResourceLimits,
    /// `TrainingJobEarlyStoppingType` is Auto (SM-36).
    pub early_stopping: bool,
    pub criteria: CompletionCriteria,
    /// `RandomSeed`, or one that was drawn when the job was created.
    pub seed: u64,
    /// 1 to [`MAX_DEFINITIONS`].
    pub definitions: Vec<Definition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_start: Option<WarmStart>,
    /// In the order in which they were started.
    pub trials: Vec<Trial>,
    /// Set once: nothing is started any more, and what runs is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enough: Option<(Enough, Timestamp)>,
    pub tags: Tags,
    pub echo: Echo,
}

impl Record for TuningJob {
    const KIND: &'static str = "sagemaker.tuning_job";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.name.clone(),
            created: self.created,
            modified: self.modified,
            status: self.status.as_str().into(),
        }
    }
}

/// Numbers of trials by how they ended. `Describe` tells of no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrialCounts {
    pub completed: u32,
    pub in_progress: u32,
    pub stopped: u32,
    /// Failed through the engine's fault.
    pub retryable: u32,
    /// Failed through the container's or the caller's.
    pub failed: u32,
    pub objective_succeeded: u32,
    pub objective_pending: u32,
    pub objective_failed: u32,
}

impl TuningJob {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The job's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "hyper-parameter-tuning-job", name)
    }

    /// The name of the next child: `<tuning name>-<three digits>-<8 hex>` (SM-9), at most 46 characters.
    pub fn next_job_name(&self, hex: &str) -> String {
        format!("{}-{:03}-{hex}", self.name, self.trials.len() + 1)
    }

    /// Moves the job along its lifecycle at `now`.
    ///
    /// # Errors
    /// When the lifecycle has no such step.
    pub fn apply(&mut self, event: TuningEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        self.status = self.status.on(event)?;
        self.modified = now;
        if self.status.is_final() {
            self.ended = Some(now);
        }
        Ok(())
    }

    /// Nothing is started any more, and what runs is to be stopped.
    pub fn is_over(&self) -> bool {
        self.status != TuningStatus::InProgress || self.enough.is_some()
    }

    /// Counts trials (SM-35).
    pub fn counts(&self) -> TrialCounts {
        let mut counts = TrialCounts::default();
        for trial in &self.trials {
            let Some(end) = &trial.end else {
                counts.in_progress += 1;
                counts.objective_pending += 1;
                continue;
            };
            match end.status {
                FinalStatus::Completed => counts.completed += 1,
                FinalStatus::Stopped => counts.stopped += 1,
                FinalStatus::Failed if end.failure_reason.as_ref().is_some_and(FailureReason::is_internal) => {
                    counts.retryable += 1;
                }
                FinalStatus::Failed => counts.failed += 1,
            }
            if end.objective.is_some() {
                counts.objective_succeeded += 1;
            } else {
                counts.objective_failed += 1;
            }
        }
        counts
    }

    /// The trial with the best objective of those that ended with one (SM-35); the earlier of two equal ones. Values of
    /// definitions are compared where they have the objective of the first definition; else that one's alone count.
    pub fn best(&self) -> Option<&Trial> {
        let objective = &self.definitions.first()?.objective;
        let mut best: Option<(&Trial, f64)> = None;
        for trial in &self.trials {
            let comparable = self
                .definitions
                .get(trial.definition)
                .is_some_and(|definition| definition.objective == *objective);
            if let (true, Some(value)) = (comparable, trial.objective())
                && best.is_none_or(|(_, other)| objective.goal.is_better(value, other))
            {
                best = Some((trial, value));
            }
        }
        best.map(|(trial, _)| trial)
    }

    /// How many of the last finished trials did not improve the best value before them by more than one percent.
    pub fn not_improving(&self) -> u32 {
        /// What counts as an improvement, as a share of the best value.
        const SHARE: f64 = 0.01;
        let Some(objective) = self.definitions.first().map(|first| &first.objective) else {
            return 0;
        };
        let mut ended: Vec<&Trial> = self.trials.iter().filter(|trial| trial.end.is_some()).collect();
        ended.sort_by_key(|trial| trial.end.as_ref().and_then(|end| end.ended));
        let (mut best, mut since): (Option<f64>, u32) = (None, 0);
        for trial in ended {
            let improved = trial.objective().is_some_and(|value| match best {
                None => true,
                Some(best) => objective.goal.cost(best) - objective.goal.cost(value) > SHARE * best.abs(),
            });
            if improved {
                best = trial.objective();
                since = 0;
            } else if best.is_some() {
                since = since.saturating_add(1);
            }
        }
        since
    }

    /// The key of the tuning job that a training job names as its own.
    pub fn key_of(child: &TrainingJob, scope: &Scope) -> Option<Key> {
        let (_, name) = child.tuning_job.as_ref()?.resource().split_once('/')?;
        Some(Self::key(scope, name))
    }

    /// Whether a training job was started by this tuning job: one of a trial's name may be somebody else's, made after the
    /// trial's own was deleted.
    pub fn owns(&self, child: &TrainingJob) -> bool {
        child.tuning_job.as_ref() == Some(&self.arn)
    }

    /// How a trial ended, as its training job tells it; `None` while that goes on.
    pub fn end_of(&self, trial: &Trial, child: &TrainingJob) -> Option<TrialEnd> {
        FinalStatus::of(child.status()).map(|status| TrialEnd {
            status,
            started: child.training_start,
            // What failed before it ran has no end of training.
            ended: child.training_end.or(Some(child.modified)),
            objective: self.objective_of(trial.definition, child),
            failure_reason: child.failure_reason.clone(),
        })
    }

    /// The objective's last value in a training job of this definition, if the container told one (CC-39).
    pub fn objective_of(&self, definition: usize, job: &TrainingJob) -> Option<f64> {
        let metric = &self.definitions.get(definition)?.objective.metric;
        job.final_metrics.get(metric).map(|metric| metric.value)
    }
}

/// What a training job told of the objective metric: what early stopping compares later jobs with.
/// Written once when the training job has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialCurve {
    pub job_name: String,
    pub ended: Timestamp,
    #[serde(default)]
    pub curve: Curve,
}

impl TrialCurve {
    /// The record's key: that of the training job.
    pub fn key(scope: &Scope, job_name: &str) -> Key {
        TrainingJob::key(scope, job_name)
    }
}

impl Record for TrialCurve {
    const KIND: &'static str = "sagemaker.trial_curve";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.job_name.clone(), self.ended)
    }
}

#[cfg(test)]
mod tests;
