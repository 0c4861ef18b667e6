//! What is tried next, and its training job (SM-38).

use super::learns;
use crate::deps::{Deps, StepError};
use isolarium_model::Key;
use isolarium_model::sagemaker::training_job::{JobRun, JobSpec, SecondaryStatus, TrainingJob, TrainingJobStatus};
use isolarium_model::sagemaker::tuning_job::{
    Definition, OBJECTIVE_PARAMETER, Trial, TuningJob, Values, WarmStartKind,
};
use isolarium_model::sagemaker::{Echo, WarmPool};
use isolarium_store::{Expect, Query};
use isolarium_tuning::{Observed, Score, Search, Space};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The member of a definition that encrypts what the instances of a training job say to each other.
const ENCRYPTION: &str = "EnableInterContainerTrafficEncryption";

/// Seeds of definitions lie this far apart.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The search of one definition as it stands; calls `act` with it. `None` when its ranges cannot be searched, which
/// creation refuses.
fn with_search<T>(job: &TuningJob, at: usize, act: impl FnOnce(&Search<'_>) -> T) -> Option<T> {
    let definition = job.definitions.get(at)?;
    let space = Space::new(&definition.ranges).ok()?;
    let mut tried: Vec<Observed> = Vec::new();
    if let (Some(start), true) = (&job.warm_start, learns(job)) {
        tried.extend(start.trials.iter().filter_map(|earlier| {
            Some(Observed {
                values: space.pick(&earlier.values)?,
                score: Score::Value(earlier.value),
                elsewhere: match start.kind {
                    WarmStartKind::IdenticalDataAndAlgorithm => None,
                    WarmStartKind::TransferLearning => Some(earlier.parent),
                },
            })
        }));
    }
    let own = job.trials.iter().filter(|trial| trial.definition == at);
    tried.extend(own.map(|trial| Observed {
        values: trial.values.clone(),
        score: match &trial.end {
            None => Score::Pending,
            Some(end) => end.objective.map_or(Score::Missing, Score::Value),
        },
        elsewhere: None,
    }));
    let distance = u64::try_from(at).unwrap_or(u64::MAX).wrapping_mul(SEED_STEP);
    Some(act(&Search {
        strategy: job.strategy,
        space: &space,
        goal: definition.objective.goal,
        seed: job.seed.wrapping_add(distance),
        tried: &tried,
    }))
}

/// The definition and the values to try next: definitions take turns. `None` when nothing is left to try.
pub(super) fn next(job: &TuningJob) -> Option<(usize, Values)> {
    let mut order: Vec<(usize, usize)> = (0..job.definitions.len())
        .map(|at| (job.trials.iter().filter(|trial| trial.definition == at).count(), at))
        .collect();
    order.sort_unstable();
    order
        .into_iter()
        .find_map(|(_, at)| Some((at, with_search(job, at, |search| search.suggest())??)))
}

/// Whether no definition has anything to gain any more.
pub(super) fn has_converged(job: &TuningJob) -> bool {
    (0..job.definitions.len()).all(|at| with_search(job, at, isolarium_tuning::has_converged) == Some(true))
}

/// Whether the operator's limit of training instances leaves room for another one (SM-60): a tuning job waits for it.
pub(super) fn has_room(deps: &Deps, key: &Key, job: &TuningJob, definition: usize) -> Result<bool, StepError> {
    let (Some(limit), Some(definition)) = (deps.settings.training_instances, job.definitions.get(definition)) else {
        return Ok(true);
    };
    let running = [TrainingJobStatus::InProgress, TrainingJobStatus::Stopping];
    let query = Query {
        statuses: running.iter().map(|status| status.as_str().to_owned()).collect(),
        ..Query::all(&key.scope)
    };
    let jobs = deps.store.query::<TrainingJob>(&query)?.rows;
    let fits = |instance_type: &str| {
        let used: usize = jobs.iter().map(|one| one.record.spec.instances_of(instance_type)).sum();
        let all = used.saturating_add(definition.spec.instances_of(instance_type));
        u32::try_from(all).unwrap_or(u32::MAX) <= limit
    };
    Ok(definition
        .spec
        .clusters()
        .into_iter()
        .all(|(_, instance_type, _)| fits(instance_type)))
}

/// Starts a training job: its record and the trial commit together. `None` when the tuning job is not as it was any more;
/// nothing is started then.
pub(super) fn start(
    deps: &Deps,
    key: &Key,
    seen: &TuningJob,
    at: usize,
    values: &Values,
) -> Result<Option<TuningJob>, StepError> {
    let mut started = false;
    let stored = deps.update::<TuningJob>(key, |job, batch| {
        started = false;
        // INVARIANT (trial-and-job): a trial is in the record exactly when its training job was created.
        let Some(definition) = job.definitions.get(at).cloned() else {
            return Ok(None);
        };
        if job.is_over() || job.trials.len() != seen.trials.len() {
            return Ok(None);
        }
        let now = deps.now();
        let name = job.next_job_name(&deps.ids.hex(8));
        let child_key = TrainingJob::key(&key.scope, &name);
        let arn = TrainingJob::arn(&key.scope, &name);
        let spec = spec(&definition, &name, values);
        let (placements, batch) = deps.places(&spec.network, &child_key, &arn, spec.instances, batch)?;
        let encrypted = definition.echo.get(ENCRYPTION) == Some(&Value::Bool(true));
        let child = TrainingJob {
            warning: None,
            name: name.clone(),
            arn,
            created: now,
            modified: now,
            secondary: SecondaryStatus::Starting,
            transitions: vec![TrainingJob::first_transition(now)],
            failure_reason: None,
            training_start: None,
            training_end: None,
            tuning_job: Some(job.arn.clone()),
            warm_pool: WarmPool::asked(spec.keep_alive),
            echo: echo(&definition, &spec),
            spec,
            run: JobRun::new(placements)
                .ok_or(StepError::Identifier)?
                .encrypted(encrypted),
            final_metrics: BTreeMap::new(),
            tags: job.tags.clone(),
        };
        job.trials.push(Trial {
            job_name: name,
            definition: at,
            values: values.clone(),
            created: now,
            end: None,
        });
        job.modified = now;
        started = true;
        Ok(Some(batch.put(&child_key, Expect::Absent, &child)?))
    })?;
    Ok(stored.filter(|_| started).map(|stored| stored.record))
}

/// What a child acts on: its definition with the values and the name of the objective among its hyperparameters (CC-17),
/// and checkpoints in a place of its own.
fn spec(definition: &Definition, name: &str, values: &Values) -> JobSpec {
    let mut spec = definition.spec.clone();
    spec.hyperparameters.extend(values.clone());
    spec.hyperparameters
        .insert(OBJECTIVE_PARAMETER.into(), definition.objective.metric.clone());
    if let Some(checkpoints) = &mut spec.checkpoints {
        checkpoints.uri = checkpoints.uri.join(name);
    }
    spec
}

/// What DescribeTrainingJob of a child gives back.
fn echo(definition: &Definition, spec: &JobSpec) -> Echo {
    let mut echo = definition.echo.clone();
    echo.insert("HyperParameters".into(), json!(spec.hyperparameters));
    if let (Some(checkpoints), Some(Value::Object(shown))) = (&spec.checkpoints, echo.get_mut("CheckpointConfig")) {
        shown.insert("S3Uri".into(), json!(checkpoints.uri.to_string()));
    }
    echo
}
