//! Hyperparameter tuning jobs: CreateHyperParameterTuningJob, Describe, List, ListTrainingJobsFor, Stop, Delete
//! (SM-35..38). The loop that starts training jobs is `reconcile`'s.

mod children;
mod parents;
mod spec;
mod view;

use super::check::pass_role;
use super::listing::{Listing, page};
use super::{algorithm, conditions, create, creating, find, shapes, stored, tag, training_job, update};
use crate::{Ctx, Operation};
use isolarium_model::Arn;
use isolarium_model::sagemaker::tuning_job::{TrialCurve, TuningEvent, TuningJob as Job, TuningStatus};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_store::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;

/// SM-60: Terraform relies on the code.
fn missing(arn: &Arn) -> ApiError {
    ApiError::client(
        "ResourceNotFound",
        format!("Could not find hyperparameter tuning job \"{arn}\"."),
    )
}

/// SM-60: a name is taken until the tuning job is deleted.
fn taken(arn: &Arn) -> ApiError {
    ApiError::client(
        "ResourceInUse",
        format!(
            "Hyperparameter tuning job names must be unique within an AWS account and region, and a hyperparameter tuning \
             job with this name already exists ({arn})"
        ),
    )
}

/// SM-60: an operation that the job's status does not allow.
fn rejected(job: &Job) -> ApiError {
    ApiError::validation(format!(
        "The request was rejected because the hyperparameter tuning job is in status {}.",
        job.status.as_str()
    ))
}

/// Asks about one tuning job.
fn ask(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
    Question::on(action, &Job::arn(&ctx.caller.scope, name))
}

/// Both ways to give definitions, in order.
fn definitions(
    request: &shapes::CreateHyperParameterTuningJobRequest,
) -> impl Iterator<Item = &shapes::HyperParameterTrainingJobDefinition> {
    let several = request.training_job_definitions.iter().flatten();
    request.training_job_definition.iter().chain(several)
}

impl Operation for shapes::CreateHyperParameterTuningJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateHyperParameterTuningJob";
    type Output = shapes::CreateHyperParameterTuningJobResponse;

    /// One question for all definitions together (IAM-17), where there are several one for each of them too: a condition
    /// that any of several values meets must be met by every definition. Every role is passed (IAM-51).
    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let scope = &ctx.caller.scope;
        let arn = Job::arn(scope, &self.hyper_parameter_tuning_job_name);
        let create = || Question::on("sagemaker:CreateHyperParameterTuningJob", &arn);
        let all: Vec<shapes::CreateTrainingJobRequest> = definitions(self).map(spec::training_request).collect();
        let question = conditions::tuning_job(create(), scope, &all);
        let mut questions = creating(question, &arn, self.tags.as_ref());
        if all.len() > 1 {
            let tags = self.tags.as_deref().unwrap_or_default();
            questions.extend(all.iter().map(|one| {
                let question = conditions::tuning_job(create(), scope, std::slice::from_ref(one));
                tag::requested(question, tags)
            }));
        }
        questions.extend(all.iter().map(|one| pass_role(&one.role_arn, &arn)));
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = Job::arn(scope, &request.hyper_parameter_tuning_job_name);
        let key = Job::key(scope, &request.hyper_parameter_tuning_job_name);
        let tags = tag::of_request(request.tags.clone())?;
        let mut plan = spec::plan(ctx, &request)?;
        if find::<Job>(ctx, &key)?.is_some() {
            return Err(taken(&arn));
        }
        for (definition, given) in plan.definitions.iter_mut().zip(definitions(&request)) {
            let request = spec::training_request(given);
            let product = algorithm::product(ctx, &request)?;
            training_job::settle(ctx, &request, &arn, product.as_ref(), &mut definition.spec)?;
        }
        let warm_start = match &request.warm_start_config {
            Some(config) => Some(parents::warm_start(ctx, config, &plan.definitions)?),
            None => None,
        };
        let created = ctx.clock.now();
        let seed = match request.hyper_parameter_tuning_job_config.random_seed {
            Some(seed) => seed.unsigned_abs(),
            None => u64::from_str_radix(&ctx.ids.hex(15), 16).map_err(ApiError::internal)?,
        };
        let job = Job {
            name: request.hyper_parameter_tuning_job_name.clone(),
            arn: arn.clone(),
            created,
            modified: created,
            ended: None,
            status: TuningStatus::InProgress,
            failure_reason: None,
            strategy: plan.strategy,
            hyperband: plan.hyperband,
            limits: plan.limits,
            early_stopping: plan.early_stopping,
            criteria: plan.criteria,
            seed,
            definitions: plan.definitions,
            warm_start,
            trials: Vec::new(),
            enough: None,
            tags,
            echo: spec::echo(&request)?,
        };
        create(ctx, &key, &job, || taken(&arn))?;
        Ok(shapes::CreateHyperParameterTuningJobResponse {
            hyper_parameter_tuning_job_arn: arn.to_string(),
        })
    }
}

impl Operation for shapes::DescribeHyperParameterTuningJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeHyperParameterTuningJob";
    type Output = shapes::DescribeHyperParameterTuningJobResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let action = "sagemaker:DescribeHyperParameterTuningJob";
        vec![ask(ctx, action, &self.hyper_parameter_tuning_job_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().hyper_parameter_tuning_job_name;
        view::described(ctx, &read(ctx, name)?)
    }
}

/// The tuning job of a name.
fn read(ctx: &Ctx<'_>, name: &str) -> Result<Job, ApiError> {
    let scope = &ctx.caller.scope;
    let found = find::<Job>(ctx, &Job::key(scope, name))?;
    Ok(found.ok_or_else(|| missing(&Job::arn(scope, name)))?.record)
}

impl Operation for shapes::ListHyperParameterTuningJobsRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListHyperParameterTuningJobs";
    type Output = shapes::ListHyperParameterTuningJobsResponse;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListHyperParameterTuningJobs")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        use shapes::HyperParameterTuningJobSortByOptions as By;
        let request = request.into_inner();
        let listing = Listing {
            sort_by: Some(match request.sort_by {
                Some(By::CreationTime) => SortBy::Created,
                Some(By::Status) => SortBy::Status,
                Some(By::Name) | None => SortBy::Name,
            }),
            // Ascending by name unless asked otherwise, as the API reference says of this operation.
            descending: request.sort_order == Some(shapes::SortOrder::Descending),
            next_token: request.next_token,
            max_results: request.max_results,
            name_contains: request.name_contains,
            status: request.status_equals.map(shapes::HyperParameterTuningJobStatus::as_str),
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            modified_after: request.last_modified_time_after,
            modified_before: request.last_modified_time_before,
        };
        let (rows, next_token) = page::<Job>(ctx, listing)?;
        let summaries = rows.iter().map(|row| view::summary(&row.record));
        Ok(shapes::ListHyperParameterTuningJobsResponse {
            hyper_parameter_tuning_job_summaries: summaries.collect::<Result<_, _>>()?,
            next_token,
        })
    }
}

impl Operation for shapes::ListTrainingJobsForHyperParameterTuningJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListTrainingJobsForHyperParameterTuningJob";
    type Output = shapes::ListTrainingJobsForHyperParameterTuningJobResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let action = "sagemaker:ListTrainingJobsForHyperParameterTuningJob";
        vec![ask(ctx, action, &self.hyper_parameter_tuning_job_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let job = read(ctx, &request.hyper_parameter_tuning_job_name)?;
        children::list(ctx, &job, &request)
    }
}

impl Operation for shapes::StopHyperParameterTuningJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "StopHyperParameterTuningJob";
    type Output = shapes::StopHyperParameterTuningJobOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let action = "sagemaker:StopHyperParameterTuningJob";
        vec![ask(ctx, action, &self.hyper_parameter_tuning_job_name)]
    }

    /// The loop stops the training jobs, and the tuning job is Stopped when the last one is (SM-37).
    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (scope, name) = (&ctx.caller.scope, &request.get().hyper_parameter_tuning_job_name);
        let gone = || missing(&Job::arn(scope, name));
        let now = ctx.clock.now();
        update::<Job>(ctx, &Job::key(scope, name), gone, |job| {
            if job.apply(TuningEvent::StopRequested, now).is_err() {
                return Err(rejected(job));
            }
            Ok(())
        })?;
        Ok(shapes::StopHyperParameterTuningJobOutput {})
    }
}

impl Operation for shapes::DeleteHyperParameterTuningJobRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteHyperParameterTuningJob";
    type Output = shapes::DeleteHyperParameterTuningJobOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let action = "sagemaker:DeleteHyperParameterTuningJob";
        vec![ask(ctx, action, &self.hyper_parameter_tuning_job_name)]
    }

    /// Deletes the record alone: training jobs and their artifacts stay.
    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (scope, name) = (&ctx.caller.scope, &request.get().hyper_parameter_tuning_job_name);
        let key = Job::key(scope, name);
        loop {
            let found = find::<Job>(ctx, &key)?.ok_or_else(|| missing(&Job::arn(scope, name)))?;
            if !found.record.status.is_final() {
                return Err(rejected(&found.record));
            }
            let batch = Batch::default().delete::<Job>(&key, Expect::At(found.revision));
            let batch = found.record.trials.iter().fold(batch, |batch, trial| {
                batch.delete::<TrialCurve>(&TrialCurve::key(scope, &trial.job_name), Expect::Any)
            });
            match ctx.store.commit(batch) {
                Ok(_) => return Ok(shapes::DeleteHyperParameterTuningJobOutput {}),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(stored(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
