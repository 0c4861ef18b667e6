//! CreateProcessingJob, Describe, List, Stop, Delete.

use super::check::{
    attachment, has_objects, isolation, no_way_between, output_key, pass_role, refused, role, shown, volume_key,
};
use super::listing::{Listing, page};
use super::{conditions, creating, find, kept, must_keep, place, processing_spec, shapes, stored, tag, update};
use crate::platform::Actor;
use crate::{Ctx, Operation};
use isolarium_model::sagemaker::processing_job::{ProcessingJob as Job, ProcessingSpec};
use isolarium_model::sagemaker::training_job::{JobEvent, JobRun, StopCause};
use isolarium_model::sagemaker::{JobNetwork, SecondaryStatus};
use isolarium_model::{Arn, Timestamp};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_store::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;

/// SM-60.
fn missing(name: &str) -> ApiError {
    ApiError::validation(format!("Could not find requested job with name: {name}"))
}

/// SM-60: a job name is taken for ever, until the job is deleted.
fn taken(arn: &Arn) -> ApiError {
    ApiError::client(
        "ResourceInUse",
        format!(
            "Processing job names must be unique within an AWS account and region, and a processing job with this name \
             already exists ({arn})"
        ),
    )
}

/// SM-60: an operation that the job's status does not allow.
fn rejected(job: &Job) -> ApiError {
    let status = job.status().as_str();
    ApiError::validation(format!(
        "The request was rejected because the processing job is in status {status}."
    ))
}

impl Operation for shapes::CreateProcessingJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateProcessingJob";
    type Output = shapes::CreateProcessingJobResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let arn = Job::arn(&ctx.caller.scope, &self.processing_job_name);
        let question = Question::on("sagemaker:CreateProcessingJob", &arn);
        let question = conditions::processing_job(question, &ctx.caller.scope, self);
        let mut questions = creating(question, &arn, self.tags.as_ref());
        questions.push(pass_role(&self.role_arn, &arn));
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = Job::arn(scope, &request.processing_job_name);
        let key = Job::key(scope, &request.processing_job_name);
        let tags = tag::of_request(request.tags.clone())?;
        let table = &ctx.platform.settings().instances;
        let mut spec = processing_spec::spec(&request, role(ctx, &request.role_arn)?, table)?;
        if find::<Job>(ctx, &key)?.is_some() {
            return Err(taken(&arn));
        }
        settle(ctx, &request, &arn, &mut spec)?;
        let instances = processing_spec::instances(&request)?;
        let encrypted = processing_spec::encrypted(&request);
        if instances > 1
            && let Some(warning) = no_way_between(ctx, spec.network.vpc(), encrypted)?
        {
            // A processing job has no place to say so (CC-46).
            tracing::warn!(%arn, warning, "a job was created");
        }
        let run = JobRun::new(place::placements(ctx, &spec.network, instances)?);
        let created = ctx.clock.now();
        let mut job = Job {
            name: request.processing_job_name.clone(),
            arn: arn.clone(),
            created,
            modified: created,
            phase: SecondaryStatus::Starting,
            failure_reason: None,
            exit_message: None,
            started: None,
            ended: None,
            spec,
            run: run
                .ok_or_else(|| ApiError::validation("InstanceCount must be at least 1."))?
                .encrypted(encrypted),
            tags,
            echo: processing_spec::echo(&request)?,
        };
        place::create_job(ctx, &key, &mut job, || taken(&arn))?;
        Ok(shapes::CreateProcessingJobResponse {
            processing_job_arn: arn.to_string(),
        })
    }
}

/// Checks against the account what a job asks for, in SM-17's order, and settles its network.
fn settle(
    ctx: &Ctx<'_>,
    request: &shapes::CreateProcessingJobRequest,
    arn: &Arn,
    spec: &mut ProcessingSpec,
) -> Result<(), ApiError> {
    let actor = Actor {
        scope: ctx.caller.scope.clone(),
        role_arn: spec.role_arn.clone(),
        owner_arn: arn.clone(),
    };
    ctx.platform.assume(&actor).map_err(refused)?;
    isolation(ctx, arn, &spec.container.image, spec.network.isolated())?;
    let vpc = attachment(ctx, &actor, processing_spec::vpc_config(request))?;
    spec.network = JobNetwork::new(processing_spec::isolation(request), vpc);
    processing_spec::feature_groups(ctx, request)?;
    output_key(ctx, spec.kms_key.as_ref())?;
    volume_key(ctx, spec.volume.as_ref())?;
    ctx.platform
        .check_image(&actor, &spec.container.image)
        .map_err(refused)?;
    for input in &spec.inputs {
        has_objects(ctx, &actor, &input.uri, &input.uri.to_string(), &spec.network)?;
    }
    Ok(())
}

/// Asks about one job.
fn ask(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
    Question::on(action, &Job::arn(&ctx.caller.scope, name))
}

impl Operation for shapes::DescribeProcessingJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeProcessingJob";
    type Output = shapes::DescribeProcessingJobResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DescribeProcessingJob", &self.processing_job_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().processing_job_name;
        let found = find::<Job>(ctx, &Job::key(&ctx.caller.scope, name))?;
        let job = found.ok_or_else(|| missing(name))?.record;
        let network: Option<shapes::NetworkConfig> = kept(&job.echo, "NetworkConfig")?;
        Ok(shapes::DescribeProcessingJobResponse {
            processing_inputs: kept(&job.echo, "ProcessingInputs")?,
            processing_output_config: kept(&job.echo, "ProcessingOutputConfig")?,
            processing_resources: must_keep(&job.echo, "ProcessingResources")?,
            stopping_condition: i64::try_from(job.spec.max_runtime)
                .ok()
                .map(|max_runtime_in_seconds| shapes::ProcessingStoppingCondition { max_runtime_in_seconds }),
            app_specification: must_keep(&job.echo, "AppSpecification")?,
            environment: kept(&job.echo, "Environment")?,
            // What holds, not what was asked for.
            network_config: network.map(|asked| shapes::NetworkConfig {
                enable_network_isolation: Some(job.spec.network.isolated()),
                vpc_config: shown(&job.spec.network),
                ..asked
            }),
            role_arn: Some(job.spec.role_arn.to_string()),
            experiment_config: kept(&job.echo, "ExperimentConfig")?,
            processing_job_arn: job.arn.to_string(),
            processing_job_status: job.status().as_str().parse()?,
            exit_message: job.exit_message.clone(),
            failure_reason: job.failure_reason.as_ref().map(ToString::to_string),
            processing_end_time: job.ended.map(|Timestamp(at)| at),
            processing_start_time: job.started.map(|Timestamp(at)| at),
            last_modified_time: Some(job.modified.0),
            creation_time: job.created.0,
            monitoring_schedule_arn: None,
            auto_ml_job_arn: None,
            training_job_arn: None,
            processing_job_name: job.name,
        })
    }
}

impl Operation for shapes::ListProcessingJobsRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListProcessingJobs";
    type Output = shapes::ListProcessingJobsResponse;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListProcessingJobs")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by {
                shapes::SortBy::Name => SortBy::Name,
                shapes::SortBy::CreationTime => SortBy::Created,
                shapes::SortBy::Status => SortBy::Status,
            }),
            // Ascending unless asked otherwise, as its model says (SM-11).
            descending: request.sort_order == Some(shapes::SortOrder::Descending),
            next_token: request.next_token,
            max_results: request.max_results,
            name_contains: request.name_contains,
            status: request.status_equals.map(shapes::ProcessingJobStatus::as_str),
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            modified_after: request.last_modified_time_after,
            modified_before: request.last_modified_time_before,
        };
        let (rows, next_token) = page::<Job>(ctx, listing)?;
        let summaries = rows.into_iter().map(|row| summary(&row.record));
        Ok(shapes::ListProcessingJobsResponse {
            processing_job_summaries: summaries.collect::<Result<_, _>>()?,
            next_token,
        })
    }
}

fn summary(job: &Job) -> Result<shapes::ProcessingJobSummary, ApiError> {
    Ok(shapes::ProcessingJobSummary {
        processing_job_name: job.name.clone(),
        processing_job_arn: job.arn.to_string(),
        creation_time: job.created.0,
        processing_end_time: job.ended.map(|Timestamp(at)| at),
        last_modified_time: Some(job.modified.0),
        processing_job_status: job.status().as_str().parse()?,
        failure_reason: job.failure_reason.as_ref().map(ToString::to_string),
        exit_message: job.exit_message.clone(),
    })
}

impl Operation for shapes::StopProcessingJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "StopProcessingJob";
    type Output = shapes::StopProcessingJobOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:StopProcessingJob", &self.processing_job_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().processing_job_name;
        let (key, now) = (Job::key(&ctx.caller.scope, name), ctx.clock.now());
        update::<Job>(
            ctx,
            &key,
            || missing(name),
            |job| {
                if job.apply(JobEvent::StopRequested, now).is_err() {
                    return Err(rejected(job));
                }
                job.run.stop.get_or_insert((StopCause::Asked, now));
                Ok(())
            },
        )?;
        Ok(shapes::StopProcessingJobOutput {})
    }
}

impl Operation for shapes::DeleteProcessingJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteProcessingJob";
    type Output = shapes::DeleteProcessingJobOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DeleteProcessingJob", &self.processing_job_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().processing_job_name;
        let key = Job::key(&ctx.caller.scope, name);
        loop {
            let found = find::<Job>(ctx, &key)?.ok_or_else(|| missing(name))?;
            if !found.record.status().is_final() {
                return Err(rejected(&found.record));
            }
            let batch = Batch::default().delete::<Job>(&key, Expect::At(found.revision));
            match ctx.store.commit(batch) {
                Ok(_) => return Ok(shapes::DeleteProcessingJobOutput {}),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(stored(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
