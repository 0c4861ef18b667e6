//! CreateTransformJob, Describe, List, Stop. AWS has no operation that deletes one. Role, network and isolation are the
//! model's (BT-1).

use super::check::{has_objects, output_key, refused, volume_key};
use super::listing::{Listing, page};
use super::{conditions, creating, find, kept, model, must_keep, shapes, tag, transform_spec, update};
use crate::platform::Actor;
use crate::{Ctx, Operation};
use isolarium_model::sagemaker::Model;
use isolarium_model::sagemaker::model::ModelData;
use isolarium_model::sagemaker::transform_job::{
    TransformEvent, TransformJob as Job, TransformJobStatus, TransformRun,
};
use isolarium_model::{Arn, Timestamp};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_wire::ApiError;

/// SM-60.
fn missing(name: &str) -> ApiError {
    ApiError::validation(format!("Could not find requested job with name: {name}"))
}

/// SM-60: stop words it otherwise.
fn nothing_to_stop(name: &str) -> ApiError {
    ApiError::validation(format!("Could not find job to update with name {name}"))
}

/// SM-60: a job name is taken for ever.
fn taken(arn: &Arn) -> ApiError {
    ApiError::client(
        "ResourceInUse",
        format!(
            "Transform job names must be unique within an AWS account and region, and a transform job with this name \
             already exists ({arn})"
        ),
    )
}

/// SM-60: an operation that the job's status does not allow.
fn rejected(job: &Job) -> ApiError {
    let status = job.status.as_str();
    ApiError::validation(format!(
        "The request was rejected because the transform job is in status {status}."
    ))
}

impl Operation for shapes::CreateTransformJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateTransformJob";
    type Output = shapes::CreateTransformJobResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let scope = &ctx.caller.scope;
        let arn = Job::arn(scope, &self.transform_job_name);
        let model = Model::arn(scope, &self.model_name);
        let question = Question::on("sagemaker:CreateTransformJob", &arn);
        let question = conditions::transform_job(question, scope, self, &model);
        creating(question, &arn, self.tags.as_ref())
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = Job::arn(scope, &request.transform_job_name);
        let key = Job::key(scope, &request.transform_job_name);
        let tags = tag::of_request(request.tags.clone())?;
        let asked = transform_spec::asked(&request, &ctx.platform.settings().instances)?;
        if find::<Job>(ctx, &key)?.is_some() {
            return Err(taken(&arn));
        }
        let found = find::<Model>(ctx, &Model::key(scope, &request.model_name))?;
        let found = found.ok_or_else(|| model::missing(&Model::arn(scope, &request.model_name)))?;
        super::check::refuse(&[
            (
                found.record.spec.several.is_some(),
                "A transform job with a model of several containers",
            ),
            (
                matches!(found.record.spec.data, Some(ModelData::Many { .. })),
                "A transform job with a model of Mode MultiModel",
            ),
        ])?;
        let package = found.record.spec.package.as_deref();
        let instance_type = &request.transform_resources.instance_type;
        super::check::packaged_type(package, |package| &package.transform_types, instance_type)?;
        let spec = asked.with(found.record);
        let actor = Actor {
            scope: scope.clone(),
            role_arn: spec.model.role_arn.clone(),
            owner_arn: arn.clone(),
        };
        ctx.platform.assume(&actor).map_err(refused)?;
        output_key(ctx, spec.output.kms_key.as_ref())?;
        volume_key(ctx, spec.volume.as_ref())?;
        let network = &spec.model.network;
        if network.vpc().is_some() {
            ctx.platform.check_network(&actor).map_err(refused)?;
        }
        has_objects(ctx, &actor, &spec.input.uri, &spec.input.uri.to_string(), network)?;
        let created = ctx.clock.now();
        let job = Job {
            name: request.transform_job_name.clone(),
            arn: arn.clone(),
            created,
            modified: created,
            status: TransformJobStatus::InProgress,
            failure_reason: None,
            started: None,
            ended: None,
            spec,
            run: TransformRun::default(),
            tags,
            echo: transform_spec::echo(&request)?,
        };
        super::create(ctx, &key, &job, || taken(&arn))?;
        Ok(shapes::CreateTransformJobResponse {
            transform_job_arn: arn.to_string(),
        })
    }
}

/// Asks about one job.
fn ask(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
    Question::on(action, &Job::arn(&ctx.caller.scope, name))
}

impl Operation for shapes::DescribeTransformJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeTransformJob";
    type Output = shapes::DescribeTransformJobResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DescribeTransformJob", &self.transform_job_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().transform_job_name;
        let found = find::<Job>(ctx, &Job::key(&ctx.caller.scope, name))?;
        let job = found.ok_or_else(|| missing(name))?.record;
        Ok(shapes::DescribeTransformJobResponse {
            transform_job_arn: job.arn.to_string(),
            transform_job_status: job.status.as_str().parse()?,
            failure_reason: job.failure_reason.as_ref().map(ToString::to_string),
            model_name: job.spec.model_name.clone(),
            max_concurrent_transforms: kept(&job.echo, "MaxConcurrentTransforms")?,
            model_client_config: kept(&job.echo, "ModelClientConfig")?,
            max_payload_in_mb: kept(&job.echo, "MaxPayloadInMB")?,
            batch_strategy: kept(&job.echo, "BatchStrategy")?,
            environment: kept(&job.echo, "Environment")?,
            transform_input: must_keep(&job.echo, "TransformInput")?,
            transform_output: Some(must_keep(&job.echo, "TransformOutput")?),
            data_capture_config: None,
            transform_resources: must_keep(&job.echo, "TransformResources")?,
            creation_time: job.created.0,
            transform_start_time: job.started.map(|Timestamp(at)| at),
            transform_end_time: job.ended.map(|Timestamp(at)| at),
            labeling_job_arn: None,
            auto_ml_job_arn: None,
            data_processing: kept(&job.echo, "DataProcessing")?,
            experiment_config: kept(&job.echo, "ExperimentConfig")?,
            transform_job_name: job.name,
        })
    }
}

impl Operation for shapes::ListTransformJobsRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListTransformJobs";
    type Output = shapes::ListTransformJobsResponse;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListTransformJobs")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by {
                shapes::SortBy::Name => SortBy::Name,
                shapes::SortBy::CreationTime => SortBy::Created,
                shapes::SortBy::Status => SortBy::Status,
            }),
            // Descending unless asked otherwise, other than training jobs (SM-11).
            descending: request.sort_order != Some(shapes::SortOrder::Ascending),
            next_token: request.next_token,
            max_results: request.max_results,
            name_contains: request.name_contains,
            status: request.status_equals.map(shapes::TransformJobStatus::as_str),
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            modified_after: request.last_modified_time_after,
            modified_before: request.last_modified_time_before,
        };
        let (rows, next_token) = page::<Job>(ctx, listing)?;
        let summaries = rows.into_iter().map(|row| summary(&row.record));
        Ok(shapes::ListTransformJobsResponse {
            transform_job_summaries: summaries.collect::<Result<_, _>>()?,
            next_token,
        })
    }
}

fn summary(job: &Job) -> Result<shapes::TransformJobSummary, ApiError> {
    Ok(shapes::TransformJobSummary {
        transform_job_name: job.name.clone(),
        transform_job_arn: job.arn.to_string(),
        creation_time: job.created.0,
        transform_end_time: job.ended.map(|Timestamp(at)| at),
        last_modified_time: Some(job.modified.0),
        transform_job_status: job.status.as_str().parse()?,
        failure_reason: job.failure_reason.as_ref().map(ToString::to_string),
    })
}

impl Operation for shapes::StopTransformJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "StopTransformJob";
    type Output = shapes::StopTransformJobOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:StopTransformJob", &self.transform_job_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().transform_job_name;
        let now = ctx.clock.now();
        let gone = || nothing_to_stop(name);
        update::<Job>(ctx, &Job::key(&ctx.caller.scope, name), gone, |job| {
            if job.apply(TransformEvent::StopRequested, now).is_err() {
                return Err(rejected(job));
            }
            job.run.stop = Some(now);
            Ok(())
        })?;
        Ok(shapes::StopTransformJobOutput {})
    }
}

#[cfg(test)]
mod tests;
