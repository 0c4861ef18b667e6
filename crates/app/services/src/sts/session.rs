//! GetSessionToken: temporary credentials of a user or root, and what they cannot be used for (IAM-53).

use super::{access_denied, refuse_mfa, shown};
use crate::context::{Caller, Session};
use crate::iam::credentials::mint_session;
use crate::{Ctx, Operation};
use isolarium_model::Principal;
use isolarium_policy::{Granted, Question};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::sts as shapes;
use std::time::Duration;

/// How long such credentials last unless asked, and at most, in seconds; a root's last an hour.
const DEFAULT: i64 = 43_200;
const LONGEST: i64 = 129_600;
const LONGEST_OF_ROOT: i64 = 3_600;

/// Whether the caller's credentials are of GetSessionToken: temporary, and not of a role.
fn is_session_token(caller: &Caller) -> bool {
    let of_role = matches!(caller.principal, Principal::RoleSession { .. });
    caller.session.is_some() && !of_role
}

/// What credentials of GetSessionToken cannot call whatever their user's policies say: IAM, since no MFA device stands
/// behind them, and of STS everything but AssumeRole and GetCallerIdentity (IAM-53).
///
/// # Errors
/// The refusal.
pub(crate) fn may_call(caller: &Caller, service: &str, operation: &str) -> Result<(), ApiError> {
    if !is_session_token(caller) {
        return Ok(());
    }
    match (service, operation) {
        ("iam", _) => {
            let text = "The security token included in the request is invalid";
            Err(ApiError::client("InvalidClientTokenId", text).with_status(403))
        }
        ("sts", "AssumeRole" | "GetCallerIdentity") => Ok(()),
        ("sts", operation) => Err(access_denied(format!(
            "Cannot call {operation} with session credentials"
        ))),
        _ => Ok(()),
    }
}

impl Operation for shapes::GetSessionTokenRequest {
    const SERVICE: &'static str = "sts";
    const NAME: &'static str = "GetSessionToken";
    type Output = shapes::GetSessionTokenResponse;

    /// None: policies cannot control authentication, and the session has no right that its user lacks (IAM-53).
    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        Vec::new()
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        if ctx.caller.session.is_some() {
            return Err(access_denied("Cannot call GetSessionToken with session credentials"));
        }
        refuse_mfa(request.serial_number.as_ref(), request.token_code.as_ref())?;
        let root = matches!(ctx.caller.principal, Principal::Root { .. });
        let longest = if root { LONGEST_OF_ROOT } else { LONGEST };
        // The model has checked the range of the API; a root is given less than it asks for.
        let seconds = request.duration_seconds.unwrap_or(DEFAULT).clamp(900, longest);
        let now = ctx.clock.now();
        let lasts = Duration::from_secs(seconds.unsigned_abs());
        let session = Session::lasting(now, now.after(lasts));
        let made = mint_session(ctx.master, ctx.ids, ctx.caller.principal.clone(), session);
        Ok(shapes::GetSessionTokenResponse {
            credentials: Some(shown(&made)),
            ..Default::default()
        })
    }
}
