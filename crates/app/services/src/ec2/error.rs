//! EC2's errors, worded and coded as its clients match them (NET-84).

use isolarium_store::StoreError;
use isolarium_wire::ApiError;
use std::fmt::Display;

/// The request may do what it asks, and did not because it says so (NET-80).
pub(super) fn dry_run() -> ApiError {
    let text = "Request would have succeeded, but DryRun flag is set.";
    ApiError::client("DryRunOperation", text).with_status(412)
}

pub(super) fn missing(parameter: &str) -> ApiError {
    let text = format!("The request must contain the parameter {parameter}");
    ApiError::client("MissingParameter", text)
}

pub(super) fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameterValue", text)
}

/// A value that a parameter cannot have.
pub(super) fn bad_value(parameter: &str, value: impl Display, why: &str) -> ApiError {
    invalid(format!("Value ({value}) for parameter {parameter} is invalid. {why}"))
}

pub(super) fn combination(text: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameterCombination", text)
}

/// Something that the API has and this engine does not: never stored without a word.
pub(super) fn unsupported(what: &str) -> ApiError {
    let text = format!("{what} is not supported by this engine; see docs/known-limits.md.");
    ApiError::client("UnsupportedOperation", text)
}

/// Refuses the first parameter that is there.
pub(super) fn refuse(parameters: &[(bool, &str)]) -> Result<(), ApiError> {
    let given = parameters.iter().find(|(present, _)| *present);
    given.map_or(Ok(()), |(_, what)| Err(unsupported(what)))
}

/// Something still hangs on what is to be deleted.
pub(super) fn dependency(text: impl Into<String>) -> ApiError {
    ApiError::client("DependencyViolation", text)
}

/// The usual sentence of [`dependency`]: `The vpc 'vpc-1' has dependencies and cannot be deleted.`
pub(super) fn has_dependencies(what: &str, id: impl Display) -> ApiError {
    dependency(format!("The {what} '{id}' has dependencies and cannot be deleted."))
}

/// A service's own interface, address or attachment that its owner may not touch (NET-11).
pub(super) fn not_permitted(text: impl Into<String>) -> ApiError {
    ApiError::client("OperationNotPermitted", text)
}

/// One more than a quota allows (NET-86).
pub(super) fn limit(code: &str, text: impl Into<String>) -> ApiError {
    ApiError::client(code, text)
}

/// Other writers were faster too often; clients try again by themselves.
pub(super) fn busy() -> ApiError {
    let text = "Too many concurrent changes of the same resources. Try again.";
    ApiError::client("Unavailable", text).with_status(503)
}

pub(super) fn stored(error: StoreError) -> ApiError {
    match error {
        StoreError::Conflict { .. } | StoreError::Stale => busy(),
        other => ApiError::internal(other),
    }
}

pub(super) fn group_not_found(id: &str) -> ApiError {
    let text = format!("The security group '{id}' does not exist");
    ApiError::client("InvalidGroup.NotFound", text)
}

pub(super) fn prefix_list_not_found(id: &str) -> ApiError {
    let text = format!("The prefix list ID '{id}' does not exist");
    ApiError::client("InvalidPrefixListID.NotFound", text)
}

pub(super) fn association_not_found(id: &str) -> ApiError {
    let text = format!("The association ID '{id}' does not exist");
    ApiError::client("InvalidAssociationID.NotFound", text)
}
