//! Handlers of the `sagemaker` service: one file per noun. What the engine does not do yet is refused, never stored
//! without a word.

mod algorithm;
mod channels;
mod check;
mod conditions;
mod deployment;
mod endpoint;
mod endpoint_config;
mod endpoint_view;
mod feature_group;
mod feature_metadata;
mod inference;
mod invocation;
mod listing;
mod model;
mod model_package;
mod model_package_group;
mod notebook;
mod notebook_lifecycle;
pub mod notebook_session;
mod place;
mod processing_job;
mod processing_spec;
mod product;
mod search;
mod serving;
mod tag;
mod training_job;
mod training_spec;
mod transform_job;
mod transform_spec;
mod tuning;

pub(crate) use feature_group::{ask as ask_feature_group, named as feature_group_named};
pub use invocation::invocation_question;
pub use product::import_product;

use crate::Ctx;
use crate::dispatch::{Handler, handler};
use isolarium_model::sagemaker::Echo;
use isolarium_model::{Arn, Key, Record};
use isolarium_policy::Question;
use isolarium_store::{Batch, Expect, StoreError, Stored};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::sagemaker as shapes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::AddTagsInput>(),
        handler::<shapes::CreateEndpointConfigInput>(),
        handler::<shapes::CreateEndpointInput>(),
        handler::<shapes::CreateFeatureGroupRequest>(),
        handler::<shapes::CreateHyperParameterTuningJobRequest>(),
        handler::<shapes::CreateModelInput>(),
        handler::<shapes::CreateProcessingJobRequest>(),
        handler::<shapes::CreateTrainingJobRequest>(),
        handler::<shapes::CreateTransformJobRequest>(),
        handler::<shapes::DeleteEndpointConfigInput>(),
        handler::<shapes::DeleteEndpointInput>(),
        handler::<shapes::DeleteFeatureGroupRequest>(),
        handler::<shapes::DeleteHyperParameterTuningJobRequest>(),
        handler::<shapes::DeleteModelInput>(),
        handler::<shapes::DeleteProcessingJobRequest>(),
        handler::<shapes::DeleteTagsInput>(),
        handler::<shapes::DeleteTrainingJobRequest>(),
        handler::<shapes::DescribeEndpointConfigInput>(),
        handler::<shapes::DescribeEndpointInput>(),
        handler::<shapes::DescribeFeatureGroupRequest>(),
        handler::<shapes::DescribeFeatureMetadataRequest>(),
        handler::<shapes::DescribeHyperParameterTuningJobRequest>(),
        handler::<shapes::DescribeModelInput>(),
        handler::<shapes::DescribeProcessingJobRequest>(),
        handler::<shapes::DescribeTrainingJobRequest>(),
        handler::<shapes::DescribeTransformJobRequest>(),
        handler::<shapes::ListEndpointConfigsInput>(),
        handler::<shapes::ListEndpointsInput>(),
        handler::<shapes::ListFeatureGroupsRequest>(),
        handler::<shapes::ListHyperParameterTuningJobsRequest>(),
        handler::<shapes::ListModelsInput>(),
        handler::<shapes::ListProcessingJobsRequest>(),
        handler::<shapes::ListTagsInput>(),
        handler::<shapes::ListTrainingJobsForHyperParameterTuningJobRequest>(),
        handler::<shapes::ListTrainingJobsRequest>(),
        handler::<shapes::ListTransformJobsRequest>(),
        handler::<shapes::StopHyperParameterTuningJobRequest>(),
        handler::<shapes::SearchRequest>(),
        handler::<shapes::StopProcessingJobRequest>(),
        handler::<shapes::StopTrainingJobRequest>(),
        handler::<shapes::StopTransformJobRequest>(),
        handler::<shapes::UpdateEndpointInput>(),
        handler::<shapes::UpdateEndpointWeightsAndCapacitiesInput>(),
        handler::<shapes::UpdateFeatureGroupRequest>(),
        handler::<shapes::UpdateFeatureMetadataRequest>(),
        handler::<shapes::UpdateTrainingJobRequest>(),
        handler::<shapes::CreateAlgorithmInput>(),
        handler::<shapes::DescribeAlgorithmInput>(),
        handler::<shapes::ListAlgorithmsInput>(),
        handler::<shapes::DeleteAlgorithmInput>(),
        handler::<shapes::CreateModelPackageGroupInput>(),
        handler::<shapes::DescribeModelPackageGroupInput>(),
        handler::<shapes::ListModelPackageGroupsInput>(),
        handler::<shapes::DeleteModelPackageGroupInput>(),
        handler::<shapes::CreateModelPackageInput>(),
        handler::<shapes::DescribeModelPackageInput>(),
        handler::<shapes::ListModelPackagesInput>(),
        handler::<shapes::UpdateModelPackageInput>(),
        handler::<shapes::DeleteModelPackageInput>(),
        handler::<shapes::CreateNotebookInstanceInput>(),
        handler::<shapes::CreateNotebookInstanceLifecycleConfigInput>(),
        handler::<shapes::CreatePresignedNotebookInstanceUrlInput>(),
        handler::<shapes::DeleteNotebookInstanceInput>(),
        handler::<shapes::DeleteNotebookInstanceLifecycleConfigInput>(),
        handler::<shapes::DescribeNotebookInstanceInput>(),
        handler::<shapes::DescribeNotebookInstanceLifecycleConfigInput>(),
        handler::<shapes::ListNotebookInstanceLifecycleConfigsInput>(),
        handler::<shapes::ListNotebookInstancesInput>(),
        handler::<shapes::StartNotebookInstanceInput>(),
        handler::<shapes::StopNotebookInstanceInput>(),
        handler::<shapes::UpdateNotebookInstanceInput>(),
        handler::<shapes::UpdateNotebookInstanceLifecycleConfigInput>(),
    ]
}

/// What a store failure means for a caller. A conflict that a handler did not expect is worth another try.
fn stored(error: StoreError) -> ApiError {
    match error {
        StoreError::BadToken => ApiError::validation("The NextToken that was given is not valid."),
        other => ApiError::internal(other),
    }
}

/// Reads a record of the caller's account and region.
fn find<R: Record>(ctx: &Ctx<'_>, key: &Key) -> Result<Option<Stored<R>>, ApiError> {
    ctx.store.get::<R>(key).map_err(stored)
}

/// Changes a record until the write meets the revision it read; `missing` is the error when there is none.
fn update<R: Record>(
    ctx: &Ctx<'_>,
    key: &Key,
    missing: impl Fn() -> ApiError,
    mut change: impl FnMut(&mut R) -> Result<(), ApiError>,
) -> Result<R, ApiError> {
    loop {
        let Some(mut found) = find::<R>(ctx, key)? else {
            return Err(missing());
        };
        change(&mut found.record)?;
        let batch = Batch::default()
            .put(key, Expect::At(found.revision), &found.record)
            .map_err(stored)?;
        match ctx.store.commit(batch) {
            Ok(_) => return Ok(found.record),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(stored(error)),
        }
    }
}

/// Adds a record that must be new; `taken` is the error when its name exists (SM-8).
fn create<R: Record>(ctx: &Ctx<'_>, key: &Key, record: &R, taken: impl Fn() -> ApiError) -> Result<(), ApiError> {
    let batch = Batch::default().put(key, Expect::Absent, record).map_err(stored)?;
    match ctx.store.commit(batch) {
        Ok(_) => Ok(()),
        Err(StoreError::Conflict { .. }) => Err(taken()),
        Err(error) => Err(stored(error)),
    }
}

/// Deletes a record that never changes, so that there is no revision to lose; `missing` is the error when there is none.
fn delete<R: Record>(ctx: &Ctx<'_>, key: &Key, missing: impl FnOnce() -> ApiError) -> Result<(), ApiError> {
    if find::<R>(ctx, key)?.is_none() {
        return Err(missing());
    }
    let batch = Batch::default().delete::<R>(key, Expect::Any);
    ctx.store.commit(batch).map(drop).map_err(stored)
}

/// Keeps a member of the request that Describe gives back; absent and empty ones stay absent.
fn keep<T: Serialize>(echo: &mut Echo, member: &str, value: Option<&T>) -> Result<(), ApiError> {
    let Some(value) = value else { return Ok(()) };
    let json = serde_json::to_value(value).map_err(ApiError::internal)?;
    let empty = json.as_object().is_some_and(serde_json::Map::is_empty) || json.as_array().is_some_and(Vec::is_empty);
    if !empty {
        echo.insert(member.into(), json);
    }
    Ok(())
}

/// A member kept by [`keep`].
fn kept<T: DeserializeOwned>(echo: &Echo, member: &str) -> Result<Option<T>, ApiError> {
    echo.get(member)
        .map(|json| serde_json::from_value(json.clone()))
        .transpose()
        .map_err(ApiError::internal)
}

/// A member kept by [`keep`] that the record cannot be without.
fn must_keep<T: DeserializeOwned>(echo: &Echo, member: &str) -> Result<T, ApiError> {
    kept(echo, member)?.ok_or_else(|| ApiError::internal(format!("a record has no {member}")))
}

/// Asks about a creation; with tags also about `sagemaker:AddTags` on the same resource (IAM-58).
fn creating(question: Question, arn: &Arn, tags: Option<&Vec<shapes::Tag>>) -> Vec<Question> {
    let tags: &[shapes::Tag] = tags.map(Vec::as_slice).unwrap_or_default();
    if tags.is_empty() {
        return vec![question];
    }
    let creation = question
        .action
        .strip_prefix("sagemaker:")
        .unwrap_or_default()
        .to_owned();
    let tagging = Question::on("sagemaker:AddTags", arn).with("sagemaker:TaggingAction", creation);
    vec![tag::requested(question, tags), tag::requested(tagging, tags)]
}

#[cfg(test)]
mod tests;
