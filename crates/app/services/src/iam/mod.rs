//! Handlers of the `iam` service.

use crate::dispatch::Handler;

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
