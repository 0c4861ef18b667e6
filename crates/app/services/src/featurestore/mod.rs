//! Handlers of the `sagemaker-featurestore-runtime` service: the records of online stores.

mod event_time;
pub mod housekeeping;
mod record;
mod values;

use crate::Ctx;
use crate::dispatch::{Handler, handler};
use isolarium_model::Key;
use isolarium_model::sagemaker::{FeatureGroup, FeatureRecord};
use isolarium_store::Stored;
use isolarium_wire::ApiError;
use isolarium_wire::shapes::sagemaker_featurestore_runtime as shapes;
use std::sync::Arc;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::BatchGetRecordRequest>(),
        handler::<shapes::DeleteRecordRequest>(),
        handler::<shapes::GetRecordRequest>(),
        handler::<shapes::PutRecordRequest>(),
    ]
}

/// The service's word for a request that cannot be carried out.
fn invalid(message: impl std::fmt::Display) -> ApiError {
    ApiError::client("ValidationError", format!("Validation Error: {message}"))
}

/// How reads tell that there is no such group; writes have no such error in AWS's model and use [`invalid`].
fn not_found(given: &str) -> ApiError {
    ApiError::client("ResourceNotFound", absent(given)).with_status(404)
}

fn absent(given: &str) -> String {
    format!("Resource Not Found: Amazon SageMaker can't find a FeatureGroup with name {given}.")
}

/// The group of a request, by name or ARN.
fn group(ctx: &Ctx<'_>, given: &str) -> Result<Option<Arc<Stored<FeatureGroup>>>, ApiError> {
    let Some(name) = crate::sagemaker::feature_group_named(ctx, given) else {
        return Ok(None);
    };
    let key = FeatureGroup::key(&ctx.caller.scope, name);
    ctx.store.shared(&key).map_err(ApiError::internal)
}

/// A record as it is stored, expired or not.
fn stored_record(ctx: &Ctx<'_>, key: &Key) -> Result<Option<Stored<FeatureRecord>>, ApiError> {
    ctx.store.get(key).map_err(ApiError::internal)
}

#[cfg(test)]
mod tests;
