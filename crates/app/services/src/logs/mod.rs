//! Handlers of the `logs` service: CloudWatch Logs over the engine's own log store (IAM-66).
//!
//! Sequence tokens are ignored, as AWS ignores them now. What the engine does not do (KMS keys, other classes than
//! STANDARD, deletion protection) is refused instead of being dropped without a word.

mod event;
mod group;
mod policy;
mod stream;
mod tag;

use crate::Ctx;
use crate::dispatch::{Handler, handler};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isolarium_model::Arn;
use isolarium_model::logs::GroupName;
use isolarium_policy::Question;
use isolarium_store::LogError;
use isolarium_wire::ApiError;
use isolarium_wire::shapes::logs as shapes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use policy::resource_side;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::CreateLogGroupRequest>(),
        handler::<shapes::CreateLogStreamRequest>(),
        handler::<shapes::DeleteLogGroupRequest>(),
        handler::<shapes::DeleteLogStreamRequest>(),
        handler::<shapes::DeleteResourcePolicyRequest>(),
        handler::<shapes::DeleteRetentionPolicyRequest>(),
        handler::<shapes::DescribeLogGroupsRequest>(),
        handler::<shapes::DescribeLogStreamsRequest>(),
        handler::<shapes::DescribeResourcePoliciesRequest>(),
        handler::<shapes::FilterLogEventsRequest>(),
        handler::<shapes::GetLogEventsRequest>(),
        handler::<shapes::ListTagsForResourceRequest>(),
        handler::<shapes::ListTagsLogGroupRequest>(),
        handler::<shapes::PutLogEventsRequest>(),
        handler::<shapes::PutResourcePolicyRequest>(),
        handler::<shapes::PutRetentionPolicyRequest>(),
        handler::<shapes::TagResourceRequest>(),
        handler::<shapes::UntagResourceRequest>(),
    ]
}

/// Which of the two nouns an error is about.
#[derive(Clone, Copy)]
enum Noun {
    Group,
    Stream,
}

/// The AWS error a caller reads.
fn refuse(error: LogError, noun: Noun) -> ApiError {
    match error {
        LogError::NoGroup => not_found("The specified log group does not exist."),
        LogError::NoStream => not_found("The specified log stream does not exist."),
        LogError::Exists => ApiError::client(
            "ResourceAlreadyExistsException",
            match noun {
                Noun::Group => "The specified log group already exists",
                Noun::Stream => "The specified log stream already exists",
            },
        ),
        LogError::BadToken => bad_token(),
        error @ (LogError::Index(_) | LogError::Segment { .. }) => ApiError::internal(error),
    }
}

fn not_found(text: &str) -> ApiError {
    ApiError::client("ResourceNotFoundException", text)
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameterException", text)
}

fn bad_token() -> ApiError {
    invalid("The specified nextToken is invalid.")
}

/// The group that a request means by name or by identifier (a name or an ARN).
fn chosen_group(ctx: &Ctx<'_>, name: Option<&str>, identifier: Option<&str>) -> Result<GroupName, ApiError> {
    let scope = &ctx.caller.scope;
    match (name, identifier) {
        (Some(name), None) => Ok(GroupName::new(scope, name)),
        (None, Some(identifier)) if identifier.starts_with("arn:") => group_of_arn(ctx, identifier),
        (None, Some(identifier)) => Ok(GroupName::new(scope, identifier)),
        (Some(_), Some(_)) => Err(invalid(
            "LogGroup name and LogGroup identifier are mutually exclusive parameters.",
        )),
        (None, None) => Err(invalid("LogGroup name or LogGroup identifier must be given.")),
    }
}

/// The group an ARN names; groups of other accounts and regions do not exist here.
fn group_of_arn(ctx: &Ctx<'_>, text: &str) -> Result<GroupName, ApiError> {
    let scope = &ctx.caller.scope;
    let arn: Arn = text.parse().map_err(|_| invalid("The specified ARN is not valid."))?;
    let name = arn
        .resource()
        .strip_prefix("log-group:")
        .filter(|_| arn.service() == "logs");
    let name = name.ok_or_else(|| invalid("The specified ARN is not the ARN of a log group."))?;
    let name = name.strip_suffix(":*").unwrap_or(name);
    if arn.account().as_ref() != Some(&scope.account) || arn.region().as_ref() != Some(&scope.region) {
        return Err(not_found("The specified log group does not exist."));
    }
    Ok(GroupName::new(scope, name))
}

/// Asks about a group as AWS does: as the ARN of its streams without a stream's name, so that policies ending in
/// `log-group:NAME:*` cover it.
fn ask_group(action: &str, group: Result<GroupName, ApiError>) -> Vec<Question> {
    ask_stream(action, group, "")
}

/// Asks about one stream of a group. A request whose group cannot be told is refused by `execute`; until then it is
/// asked about everything.
fn ask_stream(action: &str, group: Result<GroupName, ApiError>, stream: &str) -> Vec<Question> {
    vec![match group {
        Ok(group) => Question::on(action, &group.stream_arn(stream)),
        Err(_) => Question::any(action),
    }]
}

/// An opaque paging token.
fn token(position: &impl Serialize) -> Option<String> {
    serde_json::to_vec(position)
        .ok()
        .map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
}

/// What a paging token says.
fn position<T: DeserializeOwned>(token: Option<&str>) -> Result<Option<T>, ApiError> {
    let Some(token) = token else { return Ok(None) };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad_token())?;
    serde_json::from_slice(&bytes).map(Some).map_err(|_| bad_token())
}

/// A page size, from a request's member that the model has already bounded.
fn page_size(limit: Option<i64>, default: usize) -> usize {
    limit
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0)
        .unwrap_or(default)
}

#[cfg(test)]
mod tests;
