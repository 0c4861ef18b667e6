//! What Describe and List show of tuning jobs.

use super::super::{find, kept, must_keep, shapes};
use crate::Ctx;
use isolarium_model::sagemaker::TrainingJob;
use isolarium_model::sagemaker::tuning_job::{Enough, Objective, Trial, TuningJob as Job, WarmStart, WarmStartKind};
use isolarium_model::{Arn, Scope};
use isolarium_wire::ApiError;

/// What DescribeHyperParameterTuningJob shows.
pub(super) fn described(ctx: &Ctx<'_>, job: &Job) -> Result<shapes::DescribeHyperParameterTuningJobResponse, ApiError> {
    let (training, objective) = counters(job);
    let best = job
        .best()
        .map(|trial| ended(&ctx.caller.scope, job, trial))
        .transpose()?;
    let now = job.ended.unwrap_or_else(|| ctx.clock.now());
    let runtime = i64::try_from(now.since(job.created).as_secs()).ok();
    let converged = match job.enough {
        Some((Enough::Converged, at)) => Some(at.0),
        Some(_) | None => None,
    };
    let tells_details = converged.is_some() || job.criteria.not_improving.is_some();
    Ok(shapes::DescribeHyperParameterTuningJobResponse {
        hyper_parameter_tuning_job_name: job.name.clone(),
        hyper_parameter_tuning_job_arn: job.arn.to_string(),
        hyper_parameter_tuning_job_config: must_keep(&job.echo, "HyperParameterTuningJobConfig")?,
        training_job_definition: kept(&job.echo, "TrainingJobDefinition")?,
        training_job_definitions: kept(&job.echo, "TrainingJobDefinitions")?,
        hyper_parameter_tuning_job_status: job.status.as_str().parse()?,
        creation_time: job.created.0,
        hyper_parameter_tuning_end_time: job.ended.map(|at| at.0),
        last_modified_time: Some(job.modified.0),
        training_job_status_counters: training,
        objective_status_counters: objective,
        overall_best_training_job: overall_best(job, best.as_ref())?,
        best_training_job: best,
        warm_start_config: kept(&job.echo, "WarmStartConfig")?,
        autotune: None,
        failure_reason: job.failure_reason.as_ref().map(ToString::to_string),
        tuning_job_completion_details: tells_details.then(|| shapes::HyperParameterTuningJobCompletionDetails {
            number_of_training_jobs_objective_not_improving: Some(i64::from(job.not_improving())),
            convergence_detected_time: converged,
        }),
        consumed_resources: Some(shapes::HyperParameterTuningJobConsumedResources {
            runtime_in_seconds: runtime,
        }),
    })
}

/// Of this job and its parents, where they had the same data.
fn overall_best(
    job: &Job,
    own: Option<&shapes::HyperParameterTrainingJobSummary>,
) -> Result<Option<shapes::HyperParameterTrainingJobSummary>, ApiError> {
    let Some(WarmStart {
        kind: WarmStartKind::IdenticalDataAndAlgorithm,
        best,
        ..
    }) = &job.warm_start
    else {
        return Ok(None);
    };
    let value = job.best().and_then(Trial::objective);
    match best {
        Some(theirs)
            if value.is_none_or(|own| {
                let parents = theirs.trial.objective();
                parents.is_some_and(|parents| theirs.objective.goal.is_better(parents, own))
            }) =>
        {
            let mut shown = of(&theirs.arn, &theirs.objective, &theirs.trial)?;
            shown.tuning_job_name = Some(theirs.tuning_job.clone());
            shown.training_job_definition_name.clone_from(&theirs.definition);
            Ok(Some(shown))
        }
        Some(_) | None => Ok(own.cloned().map(|mut own| {
            own.tuning_job_name = Some(job.name.clone());
            own
        })),
    }
}

/// Counters of training jobs and of objectives.
fn counters(job: &Job) -> (shapes::TrainingJobStatusCounters, shapes::ObjectiveStatusCounters) {
    let counts = job.counts();
    let some = |count: u32| Some(i64::from(count));
    (
        shapes::TrainingJobStatusCounters {
            completed: some(counts.completed),
            in_progress: some(counts.in_progress),
            retryable_error: some(counts.retryable),
            non_retryable_error: some(counts.failed),
            stopped: some(counts.stopped),
        },
        shapes::ObjectiveStatusCounters {
            succeeded: some(counts.objective_succeeded),
            pending: some(counts.objective_pending),
            failed: some(counts.objective_failed),
        },
    )
}

/// What ListHyperParameterTuningJobs shows.
pub(super) fn summary(job: &Job) -> Result<shapes::HyperParameterTuningJobSummary, ApiError> {
    let (training, objective) = counters(job);
    let config: shapes::HyperParameterTuningJobConfig = must_keep(&job.echo, "HyperParameterTuningJobConfig")?;
    Ok(shapes::HyperParameterTuningJobSummary {
        hyper_parameter_tuning_job_name: job.name.clone(),
        hyper_parameter_tuning_job_arn: job.arn.to_string(),
        hyper_parameter_tuning_job_status: job.status.as_str().parse()?,
        strategy: config.strategy,
        creation_time: job.created.0,
        hyper_parameter_tuning_end_time: job.ended.map(|at| at.0),
        last_modified_time: Some(job.modified.0),
        training_job_status_counters: training,
        objective_status_counters: objective,
        resource_limits: Some(config.resource_limits),
    })
}

/// One training job, whether it has ended or not.
pub(super) fn child(
    ctx: &Ctx<'_>,
    job: &Job,
    trial: &Trial,
) -> Result<shapes::HyperParameterTrainingJobSummary, ApiError> {
    let scope = &ctx.caller.scope;
    let mut shown = ended(scope, job, trial)?;
    if trial.end.is_none()
        && let Some(running) = find::<TrainingJob>(ctx, &TrainingJob::key(scope, &trial.job_name))?
        && job.owns(&running.record)
    {
        let running = running.record;
        shown.training_job_status = running.status().as_str().parse()?;
        shown.training_start_time = running.training_start.map(|at| at.0);
        shown.training_end_time = running.training_end.map(|at| at.0);
        shown.failure_reason = running.failure_reason.as_ref().map(ToString::to_string);
    }
    Ok(shown)
}

/// A training job as its trial tells it.
fn ended(scope: &Scope, job: &Job, trial: &Trial) -> Result<shapes::HyperParameterTrainingJobSummary, ApiError> {
    let definition = job.definitions.get(trial.definition);
    let definition = definition.ok_or_else(|| ApiError::internal("a trial has no definition"))?;
    let arn = TrainingJob::arn(scope, &trial.job_name);
    let mut shown = of(&arn, &definition.objective, trial)?;
    shown.training_job_definition_name.clone_from(&definition.name);
    Ok(shown)
}

fn of(arn: &Arn, objective: &Objective, trial: &Trial) -> Result<shapes::HyperParameterTrainingJobSummary, ApiError> {
    let end = trial.end.as_ref();
    let status = end.map_or("InProgress", |end| end.status.as_str());
    let mut shown = shapes::HyperParameterTrainingJobSummary::new(status.parse()?);
    shown.training_job_name = trial.job_name.clone();
    shown.training_job_arn = arn.to_string();
    shown.creation_time = trial.created.0;
    shown.tuned_hyper_parameters = trial.values.clone().into_iter().collect();
    shown.objective_status = Some(match end {
        None => shapes::ObjectiveStatus::Pending,
        Some(end) if end.objective.is_some() => shapes::ObjectiveStatus::Succeeded,
        Some(_) => shapes::ObjectiveStatus::Failed,
    });
    if let Some(end) = end {
        shown.training_start_time = end.started.map(|at| at.0);
        shown.training_end_time = end.ended.map(|at| at.0);
        shown.failure_reason = end.failure_reason.as_ref().map(ToString::to_string);
        shown.final_hyper_parameter_tuning_job_objective_metric =
            end.objective
                .map(|value| shapes::FinalHyperParameterTuningJobObjectiveMetric {
                    r#type: None,
                    metric_name: objective.metric.clone(),
                    value,
                });
    }
    Ok(shown)
}
