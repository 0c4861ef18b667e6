//! IAM's errors, worded and numbered as its clients match them (IAM-64).

use isolarium_policy::{Document, DocumentKind};
use isolarium_store::state::StoreError;
use isolarium_wire::ApiError;

/// HTTP 404: waiters and Terraform look for the code.
pub(super) fn no_such(text: impl Into<String>) -> ApiError {
    ApiError::client("NoSuchEntity", text).with_status(404)
}

pub(super) fn already_exists(kind: &str, name: &str) -> ApiError {
    ApiError::client(
        "EntityAlreadyExists",
        format!("{kind} with name {name} already exists."),
    )
    .with_status(409)
}

/// A deletion that something else must go before.
pub(super) fn delete_conflict(must: &str) -> ApiError {
    conflict(&format!("Cannot delete entity, must {must} first."))
}

pub(super) fn conflict(text: &str) -> ApiError {
    ApiError::client("DeleteConflict", text).with_status(409)
}

pub(super) fn limit_exceeded(text: impl Into<String>) -> ApiError {
    ApiError::client("LimitExceeded", text).with_status(409)
}

/// Refuses `wanted` of something of which there may be `most`.
pub(super) fn quota(name: &str, most: usize, wanted: usize) -> Result<(), ApiError> {
    if wanted <= most {
        return Ok(());
    }
    Err(limit_exceeded(format!("Cannot exceed quota for {name}: {most}")))
}

pub(super) fn invalid_input(text: impl Into<String>) -> ApiError {
    ApiError::client("InvalidInput", text)
}

pub(super) fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::client("ValidationError", text)
}

/// Two callers changed the same entity at once.
pub(super) fn concurrent() -> ApiError {
    let text = "The request was rejected because multiple requests to change this object were submitted \
                simultaneously. Wait a few minutes and submit your request again.";
    ApiError::client("ConcurrentModification", text).with_status(409)
}

/// A write that found another writer first, or a host that failed.
pub(super) fn store(error: StoreError) -> ApiError {
    match error {
        StoreError::Conflict { .. } => concurrent(),
        other => ApiError::internal(other),
    }
}

/// Refuses a document that the policy engine could not read.
pub(crate) fn readable(text: &str, kind: DocumentKind) -> Result<(), ApiError> {
    match Document::parse(text, kind) {
        Ok(_) => Ok(()),
        Err(malformed) => Err(ApiError::client("MalformedPolicyDocument", malformed.to_string())),
    }
}

/// Length of a policy as IAM's quotas count it: white space is free.
pub(super) fn counted_length(text: &str) -> usize {
    text.chars().filter(|c| !c.is_ascii_whitespace()).count()
}
