//! Handlers of the `iam` service.

pub mod credentials;

use crate::dispatch::Handler;
use isolarium_model::Timestamp;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    Vec::new()
}

/// Everything that decides what the caller may do (IAM-21): its identity policies, boundary, session policies.
///
/// # Errors
/// When the store cannot be read.
pub fn authority(ctx: &crate::Ctx<'_>) -> Result<isolarium_policy::Authority, isolarium_wire::ApiError> {
    Ok(isolarium_policy::Authority {
        principal: ctx.caller.principal.clone(),
        identity: Vec::new(),
        boundary: None,
        session: None,
        endpoint: None,
        context: ctx.caller.context(ctx.clock.now()),
    })
}

/// A time as policies compare it: ISO 8601 in UTC, whole seconds.
pub(crate) fn iso_time(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.0.div_euclid(1000))
        .map(|time| time.to_string())
        .unwrap_or_default()
}
