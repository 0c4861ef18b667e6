//! CreateTrainingJob, Describe, List, Stop, Delete.

use super::channels::ACCOUNT_PIPES;
use super::check::{
    attachment, has_objects, isolation, no_way_between, output_key, pass_role, refuse, refused, role, shared_tenancy,
    shown, volume_key,
};
use super::listing::{Listing, page_of};
use super::{
    algorithm, check, conditions, creating, find, kept, must_keep, place, shapes, stored, tag, training_spec, update,
};
use crate::platform::{Actor, PlatformError};
use crate::{Ctx, Operation};
use isolarium_model::sagemaker::training_job::{InputMode, JobEvent, JobRun, JobSpec, StopCause, TrainingJob as Job};
use isolarium_model::sagemaker::tuning_job::{Trial, TuningJob};
use isolarium_model::sagemaker::{JobNetwork, SecondaryStatus, WarmPool, WarmPoolState};
use isolarium_model::{Arn, Timestamp};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_store::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};

/// SM-60: describe and stop of a job that is not there.
fn missing() -> ApiError {
    ApiError::validation("Requested resource not found.")
}

/// SM-60: a job name is taken for ever, until the job is deleted (SM-33).
fn taken(arn: &Arn) -> ApiError {
    ApiError::client(
        "ResourceInUse",
        format!(
            "Training job names must be unique within an AWS account and region, and a training job with this name \
             already exists ({arn})"
        ),
    )
}

/// SM-60: an operation that the job's status does not allow.
fn rejected(job: &Job) -> ApiError {
    let status = job.status().as_str();
    ApiError::validation(format!(
        "The request was rejected because the training job is in status {status}."
    ))
}

impl Operation for shapes::CreateTrainingJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateTrainingJob";
    type Output = shapes::CreateTrainingJobResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let arn = Job::arn(&ctx.caller.scope, &self.training_job_name);
        let question = Question::on("sagemaker:CreateTrainingJob", &arn);
        let question = conditions::training_job(question, &ctx.caller.scope, self);
        let mut questions = creating(question, &arn, self.tags.as_ref());
        questions.push(pass_role(&self.role_arn, &arn));
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = Job::arn(scope, &request.training_job_name);
        let key = Job::key(scope, &request.training_job_name);
        let tags = tag::of_request(request.tags.clone())?;
        let applied = algorithm::applied(ctx, &request, BTreeSet::new())?;
        let mut spec = training_spec::spec(
            &applied.request,
            role(ctx, &request.role_arn)?,
            &ctx.platform.settings().instances,
        )?;
        if find::<Job>(ctx, &key)?.is_some() {
            return Err(taken(&arn));
        }
        settle(ctx, &request, &arn, applied.product(), &mut spec)?;
        let instances = training_spec::instances(&request)?;
        let encrypted = request.enable_inter_container_traffic_encryption == Some(true);
        let created = ctx.clock.now();
        let run = JobRun::new(place::placements(ctx, &spec.network, instances)?);
        let mut first = Job::first_transition(created);
        let warning = match instances {
            1 => None,
            _ => no_way_between(ctx, spec.network.vpc(), encrypted)?,
        };
        if let Some(warning) = &warning {
            tracing::warn!(%arn, warning, "a job was created");
            first.message = format!("{}. {warning}", first.message);
        }
        let mut job = Job {
            name: request.training_job_name.clone(),
            arn: arn.clone(),
            created,
            modified: created,
            secondary: SecondaryStatus::Starting,
            transitions: vec![first],
            failure_reason: None,
            training_start: None,
            training_end: None,
            tuning_job: None,
            warm_pool: WarmPool::asked(spec.keep_alive),
            spec,
            run: run
                .ok_or_else(|| ApiError::validation("InstanceCount must be at least 1."))?
                .encrypted(encrypted),
            warning,
            final_metrics: BTreeMap::new(),
            tags,
            echo: training_spec::echo(&applied.shown)?,
        };
        place::create_job(ctx, &key, &mut job, || taken(&arn))?;
        Ok(shapes::CreateTrainingJobResponse {
            training_job_arn: arn.to_string(),
        })
    }
}

/// Checks against the account what a training job asks for, in SM-17's order, and settles its network. `owner` is the
/// training job, or the tuning job that is to start such training jobs; `product` the algorithm, where it is one of the
/// marketplace.
pub(super) fn settle(
    ctx: &Ctx<'_>,
    request: &shapes::CreateTrainingJobRequest,
    owner: &Arn,
    product: Option<&Arn>,
    spec: &mut JobSpec,
) -> Result<(), ApiError> {
    let actor = Actor {
        scope: ctx.caller.scope.clone(),
        role_arn: spec.role_arn.clone(),
        owner_arn: owner.clone(),
    };
    ctx.platform.assume(&actor).map_err(refused)?;
    if let Some(product) = product {
        check::product(owner, product, spec.network.isolated())?;
    }
    isolation(ctx, owner, &spec.container.image, spec.network.isolated())?;
    let vpc = attachment(ctx, &actor, request.vpc_config.as_ref())?;
    shared_tenancy(ctx, vpc.as_ref())?;
    spec.network = JobNetwork::new(request.enable_network_isolation, vpc);
    quota(ctx, spec)?;
    output_key(ctx, spec.output.kms_key.as_ref())?;
    volume_key(ctx, spec.volume.as_ref())?;
    ctx.platform
        .check_image(&actor, &spec.container.image)
        .map_err(refused)?;
    for channel in &spec.channels {
        let mut uri = channel.uri.clone();
        if channel.mode == InputMode::FastFile && !uri.key.is_empty() && !uri.key.ends_with('/') {
            // CC-24: an object, or else a folder.
            match ctx.platform.check_object(&actor, &uri) {
                Ok(()) | Err(PlatformError::Denied(_)) => {}
                Err(_) => uri.key.push('/'),
            }
        }
        has_objects(ctx, &actor, &uri, &channel.uri.to_string(), &spec.network)?;
    }
    Ok(())
}

/// SM-60: the operator's limit of instances, if there is one, and the engine's of pipes.
fn quota(ctx: &Ctx<'_>, spec: &JobSpec) -> Result<(), ApiError> {
    let limit = ctx.platform.settings().training_instances;
    let wanted = spec.pipes();
    if limit.is_none() && wanted == 0 {
        return Ok(());
    }
    let running = [
        shapes::TrainingJobStatus::InProgress,
        shapes::TrainingJobStatus::Stopping,
    ];
    let query = isolarium_store::Query {
        statuses: running.iter().map(|status| status.as_str().to_string()).collect(),
        ..isolarium_store::Query::all(&ctx.caller.scope)
    };
    let jobs = ctx.store.query::<Job>(&query).map_err(stored)?.rows;
    let piped = jobs
        .iter()
        .map(|job| job.record.spec.pipes())
        .fold(0, usize::saturating_add);
    if wanted > 0 && piped.saturating_add(wanted) > ACCOUNT_PIPES {
        return Err(ApiError::client(
            "ResourceLimitExceeded",
            format!(
                "The account-level service limit 'Pipe channels times instances of training jobs in progress' is {ACCOUNT_PIPES}, \
                 with current utilization of {piped} and a request delta of {wanted}."
            ),
        ));
    }
    let Some(limit) = limit else {
        return Ok(());
    };
    for (_, instance_type, _) in spec.clusters() {
        let instances = spec.instances_of(instance_type);
        let used = jobs
            .iter()
            .map(|job| job.record.spec.instances_of(instance_type))
            .sum::<usize>();
        if u32::try_from(used.saturating_add(instances)).unwrap_or(u32::MAX) > limit {
            return Err(ApiError::client(
                "ResourceLimitExceeded",
                format!(
                    "The account-level service limit '{instance_type} for training job usage' is {limit} Instances, with \
                     current utilization of {used} Instances and a request delta of {instances} Instances. Please contact AWS \
                     support to request an increase for this limit."
                ),
            ));
        }
    }
    Ok(())
}

impl Operation for shapes::DescribeTrainingJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeTrainingJob";
    type Output = shapes::DescribeTrainingJobResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DescribeTrainingJob", &self.training_job_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let key = Job::key(&ctx.caller.scope, &request.get().training_job_name);
        view(find::<Job>(ctx, &key)?.ok_or_else(missing)?.record, ctx.clock.now())
    }
}

/// Asks about one job.
fn ask(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
    Question::on(action, &Job::arn(&ctx.caller.scope, name))
}

/// What DescribeTrainingJob shows.
pub(super) fn view(job: Job, now: Timestamp) -> Result<shapes::DescribeTrainingJobResponse, ApiError> {
    let spot = job.spec.max_wait.is_some();
    let artifacts = job.model_artifacts().to_string();
    let seconds = job.training_seconds().and_then(|seconds| i64::try_from(seconds).ok());
    let metrics: Vec<shapes::MetricData> = job
        .final_metrics
        .iter()
        .map(|(name, metric)| shapes::MetricData {
            metric_name: Some(name.clone()),
            value: Some(metric.value),
            timestamp: Some(metric.time.0),
        })
        .collect();
    let transitions = job
        .transitions
        .iter()
        .map(|one| {
            Ok(shapes::SecondaryStatusTransition {
                status: phase(one.status)?,
                start_time: one.started.0,
                end_time: one.ended.map(|at| at.0),
                status_message: Some(one.message.clone()),
            })
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    let stopping = shapes::StoppingCondition {
        max_runtime_in_seconds: i64::try_from(job.spec.max_runtime).ok(),
        ..kept(&job.echo, "StoppingCondition")?.unwrap_or_default()
    };
    let output: shapes::OutputDataConfig = must_keep(&job.echo, "OutputDataConfig")?;
    // SageMaker shows the member even without a key, and clients that attach to a job index it.
    let output = shapes::OutputDataConfig {
        kms_key_id: Some(output.kms_key_id.unwrap_or_default()),
        ..output
    };
    Ok(shapes::DescribeTrainingJobResponse {
        training_job_name: job.name.clone(),
        training_job_arn: job.arn.to_string(),
        tuning_job_arn: job.tuning_job.as_ref().map(ToString::to_string),
        labeling_job_arn: None,
        auto_ml_job_arn: None,
        model_artifacts: shapes::ModelArtifacts {
            s3_model_artifacts: artifacts,
        },
        training_job_status: job.status().as_str().parse()?,
        secondary_status: phase(job.secondary)?,
        failure_reason: job.failure_reason.as_ref().map(ToString::to_string),
        hyper_parameters: kept(&job.echo, "HyperParameters")?,
        algorithm_specification: kept(&job.echo, "AlgorithmSpecification")?,
        role_arn: Some(job.spec.role_arn.to_string()),
        input_data_config: kept(&job.echo, "InputDataConfig")?,
        output_data_config: Some(output),
        resource_config: Some(resources(&job)?),
        warm_pool_status: pool(&job, now)?,
        vpc_config: shown(&job.spec.network),
        stopping_condition: stopping,
        creation_time: job.created.0,
        training_start_time: job.training_start.map(|at| at.0),
        training_end_time: job.training_end.map(|at| at.0),
        last_modified_time: Some(job.modified.0),
        secondary_status_transitions: Some(transitions),
        final_metric_data_list: Some(metrics).filter(|metrics| !metrics.is_empty()),
        enable_network_isolation: Some(job.spec.network.isolated()),
        enable_inter_container_traffic_encryption: Some(
            kept(&job.echo, "EnableInterContainerTrafficEncryption")?.unwrap_or(false),
        ),
        enable_managed_spot_training: Some(spot),
        checkpoint_config: kept(&job.echo, "CheckpointConfig")?,
        training_time_in_seconds: seconds,
        billable_time_in_seconds: seconds,
        billable_token_count: None,
        debug_hook_config: kept(&job.echo, "DebugHookConfig")?,
        experiment_config: kept(&job.echo, "ExperimentConfig")?,
        debug_rule_configurations: None,
        tensor_board_output_config: None,
        debug_rule_evaluation_statuses: None,
        profiler_config: kept(&job.echo, "ProfilerConfig")?,
        profiler_rule_configurations: None,
        profiler_rule_evaluation_statuses: None,
        profiling_status: None,
        environment: kept(&job.echo, "Environment")?,
        retry_strategy: kept(&job.echo, "RetryStrategy")?,
        remote_debug_config: None,
        infra_check_config: None,
        serverless_job_config: None,
        mlflow_config: None,
        model_package_config: None,
        mlflow_details: None,
        progress_info: None,
        output_model_package_arn: None,
    })
}

/// `WarmPoolStatus`, of a job that asked for a pool.
fn pool(job: &Job, now: Timestamp) -> Result<Option<shapes::WarmPoolStatus>, ApiError> {
    let Some(pool) = &job.warm_pool else { return Ok(None) };
    let retained = pool.retained(now).and_then(|seconds| i64::try_from(seconds).ok());
    Ok(Some(shapes::WarmPoolStatus {
        status: pool.state().as_str().parse()?,
        resource_retained_billable_time_in_seconds: retained,
        reused_by_job: pool.over.as_ref().and_then(|end| end.reused_by.clone()),
    }))
}

/// `ResourceConfig`, with the period that UpdateTrainingJob may have changed.
fn resources(job: &Job) -> Result<shapes::ResourceConfig, ApiError> {
    let given: shapes::ResourceConfig = must_keep(&job.echo, "ResourceConfig")?;
    let keep_alive = job.warm_pool.as_ref().map(|pool| pool.keep_alive);
    let keep_alive = keep_alive.and_then(|seconds| i64::try_from(seconds).ok());
    Ok(shapes::ResourceConfig {
        keep_alive_period_in_seconds: keep_alive.or(given.keep_alive_period_in_seconds),
        ..given
    })
}

fn phase(status: SecondaryStatus) -> Result<shapes::SecondaryStatus, ApiError> {
    Ok(status.as_str().parse()?)
}

impl Operation for shapes::ListTrainingJobsRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListTrainingJobs";
    type Output = shapes::ListTrainingJobsResponse;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListTrainingJobs")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by {
                shapes::SortBy::Name => SortBy::Name,
                shapes::SortBy::CreationTime => SortBy::Created,
                shapes::SortBy::Status => SortBy::Status,
            }),
            // Ascending unless asked otherwise (SM-11).
            descending: request.sort_order == Some(shapes::SortOrder::Descending),
            next_token: request.next_token,
            max_results: request.max_results,
            name_contains: request.name_contains,
            status: request.status_equals.map(shapes::TrainingJobStatus::as_str),
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            modified_after: request.last_modified_time_after,
            modified_before: request.last_modified_time_before,
        };
        if request.training_plan_arn_equals.is_some() {
            // There are no training plans: no job matches.
            return Ok(shapes::ListTrainingJobsResponse {
                training_job_summaries: vec![],
                next_token: None,
            });
        }
        let pool = request
            .warm_pool_status_equals
            .map(shapes::WarmPoolResourceStatus::as_str);
        let wanted = |job: &Job| {
            let state = job.warm_pool.as_ref().map(|pool| pool.state().as_str());
            pool.is_none() || state == pool
        };
        let (rows, next_token) = page_of::<Job>(ctx, listing, wanted)?;
        let now = ctx.clock.now();
        let summaries = rows
            .into_iter()
            .map(|row| summary(&row.record, now))
            .collect::<Result<_, _>>()?;
        Ok(shapes::ListTrainingJobsResponse {
            training_job_summaries: summaries,
            next_token,
        })
    }
}

fn summary(job: &Job, now: Timestamp) -> Result<shapes::TrainingJobSummary, ApiError> {
    Ok(shapes::TrainingJobSummary {
        training_job_name: job.name.clone(),
        training_job_arn: job.arn.to_string(),
        creation_time: job.created.0,
        training_end_time: job.training_end.map(|Timestamp(at)| at),
        last_modified_time: Some(job.modified.0),
        training_job_status: job.status().as_str().parse()?,
        secondary_status: Some(phase(job.secondary)?),
        warm_pool_status: pool(job, now)?,
        training_plan_arn: None,
    })
}

impl Operation for shapes::StopTrainingJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "StopTrainingJob";
    type Output = shapes::StopTrainingJobOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:StopTrainingJob", &self.training_job_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let key = Job::key(&ctx.caller.scope, &request.get().training_job_name);
        let now = ctx.clock.now();
        update::<Job>(ctx, &key, missing, |job| {
            if job.apply(JobEvent::StopRequested, now).is_err() {
                return Err(rejected(job));
            }
            job.run.stop.get_or_insert((StopCause::Asked, now));
            Ok(())
        })?;
        Ok(shapes::StopTrainingJobOutput {})
    }
}

/// How a tuning job's training job ended goes into the tuning job's record before nobody can tell any more (SM-35).
fn settled(ctx: &Ctx<'_>, child: &Job, batch: Batch) -> Result<Batch, ApiError> {
    let Some(key) = TuningJob::key_of(child, &ctx.caller.scope) else {
        return Ok(batch);
    };
    let Some(mut found) = find::<TuningJob>(ctx, &key)? else {
        return Ok(batch);
    };
    let parent = &found.record;
    let waits = |trial: &Trial| trial.job_name == child.name && trial.end.is_none();
    let at = parent.trials.iter().position(waits).filter(|_| parent.owns(child));
    let end = at
        .and_then(|at| parent.trials.get(at))
        .and_then(|trial| parent.end_of(trial, child));
    let Some(trial) = at.and_then(|at| found.record.trials.get_mut(at)) else {
        return Ok(batch);
    };
    trial.end = end;
    found.record.modified = ctx.clock.now();
    batch
        .put(&key, Expect::At(found.revision), &found.record)
        .map_err(stored)
}

/// The job has ended, and its room waits for another one.
fn retains(job: &Job) -> bool {
    let state = job.warm_pool.as_ref().map(WarmPool::state);
    state == Some(WarmPoolState::Available)
}

impl Operation for shapes::UpdateTrainingJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "UpdateTrainingJob";
    type Output = shapes::UpdateTrainingJobResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let mut question = ask(ctx, "sagemaker:UpdateTrainingJob", &self.training_job_name);
        if let Some(resources) = &self.resource_config {
            let period = resources.keep_alive_period_in_seconds.to_string();
            question = question.with("sagemaker:KeepAlivePeriod", period);
        }
        let rules = self.profiler_rule_configurations.iter().flatten();
        for instance_type in rules.filter_map(|rule| rule.instance_type.as_ref()) {
            question = question.with("sagemaker:InstanceTypes", instance_type.to_string());
        }
        let debug = self.remote_debug_config.as_ref();
        if let Some(debug) = debug.and_then(|config| config.enable_remote_debug) {
            question = question.with("sagemaker:EnableRemoteDebug", debug.to_string());
        }
        vec![question]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let debug = request.remote_debug_config.as_ref();
        refuse(&[
            (
                request
                    .profiler_rule_configurations
                    .as_ref()
                    .is_some_and(|rules| !rules.is_empty()),
                "ProfilerRuleConfigurations",
            ),
            (
                debug.is_some_and(|config| config.enable_remote_debug == Some(true)),
                "RemoteDebugConfig with EnableRemoteDebug",
            ),
        ])?;
        let resources = request.resource_config.as_ref();
        let keep_alive = resources
            .map(|resources| training_spec::kept_alive(resources.keep_alive_period_in_seconds))
            .transpose()?;
        let key = Job::key(&ctx.caller.scope, &request.training_job_name);
        let now = ctx.clock.now();
        let job = update::<Job>(ctx, &key, missing, |job| {
            if let Some(seconds) = keep_alive {
                keep_for(job, seconds, now)?;
            }
            if let Some(profiler) = &request.profiler_config {
                if job.status().is_final() {
                    return Err(rejected(job));
                }
                merge(&mut job.echo, "ProfilerConfig", profiler)?;
            }
            job.modified = now;
            Ok(())
        })?;
        Ok(shapes::UpdateTrainingJobResponse {
            training_job_arn: job.arn.to_string(),
        })
    }
}

/// Another length for a warm pool that is in use or available; 0 ends an available one at once.
fn keep_for(job: &mut Job, seconds: u64, now: Timestamp) -> Result<(), ApiError> {
    let state = job.warm_pool.as_ref().map(WarmPool::state);
    let Some(pool) = &mut job.warm_pool else {
        return Err(ApiError::validation(
            "KeepAlivePeriodInSeconds cannot be updated: the training job was created without a warm pool.",
        ));
    };
    match state {
        Some(WarmPoolState::InUse) => pool.keep_alive = seconds,
        Some(WarmPoolState::Available) => {
            pool.keep_alive = seconds;
            if seconds == 0 {
                pool.end(None, now);
            }
        }
        Some(WarmPoolState::Reused | WarmPoolState::Terminated) | None => {
            return Err(ApiError::validation(format!(
                "KeepAlivePeriodInSeconds cannot be updated: the warm pool is in status {}.",
                pool.state().as_str()
            )));
        }
    }
    Ok(())
}

/// Members of an update beside what was kept of the creation.
fn merge<T: serde::Serialize>(
    echo: &mut isolarium_model::sagemaker::Echo,
    member: &str,
    given: &T,
) -> Result<(), ApiError> {
    let given = serde_json::to_value(given).map_err(ApiError::internal)?;
    let Some(given) = given.as_object() else { return Ok(()) };
    let kept = echo
        .entry(member)
        .or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
    if let Some(kept) = kept.as_object_mut() {
        kept.extend(given.clone());
    }
    Ok(())
}

impl Operation for shapes::DeleteTrainingJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteTrainingJob";
    type Output = shapes::DeleteTrainingJobOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DeleteTrainingJob", &self.training_job_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let key = Job::key(&ctx.caller.scope, &request.get().training_job_name);
        loop {
            let found = find::<Job>(ctx, &key)?.ok_or_else(missing)?;
            if !found.record.status().is_final() {
                return Err(rejected(&found.record));
            }
            if retains(&found.record) {
                return Err(ApiError::validation(
                    "The request was rejected because the training job retains an Available warm pool. Terminate the warm pool \
                     first.",
                ));
            }
            let batch = Batch::default().delete::<Job>(&key, Expect::At(found.revision));
            match ctx.store.commit(settled(ctx, &found.record, batch)?) {
                Ok(_) => return Ok(shapes::DeleteTrainingJobOutput {}),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(stored(error)),
            }
        }
    }
}
