//! Handlers of the `sts` service.

mod assume;
pub(crate) mod message;
mod session;

use crate::Ctx;
use crate::Operation;
use crate::dispatch::{Handler, handler};
use crate::iam::credentials::{SessionCredentials, account_of_key};
use isolarium_model::Principal;
use isolarium_policy::{Granted, Question};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::sts as shapes;

pub(crate) use session::may_call;

#[cfg(test)]
mod tests;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::AssumeRoleRequest>(),
        handler::<shapes::DecodeAuthorizationMessageRequest>(),
        handler::<shapes::GetAccessKeyInfoRequest>(),
        handler::<shapes::GetCallerIdentityRequest>(),
        handler::<shapes::GetSessionTokenRequest>(),
    ]
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::client("ValidationError", text)
}

fn access_denied(text: impl Into<String>) -> ApiError {
    ApiError::client("AccessDenied", text).with_status(403)
}

/// No principal here has an MFA device, so no code can be right.
fn refuse_mfa(serial_number: Option<&String>, token_code: Option<&String>) -> Result<(), ApiError> {
    if serial_number.is_none() && token_code.is_none() {
        return Ok(());
    }
    Err(access_denied(
        "MultiFactorAuthentication failed with invalid MFA one time pass code.",
    ))
}

fn shown(credentials: &SessionCredentials) -> shapes::Credentials {
    shapes::Credentials {
        access_key_id: credentials.access_key_id.clone(),
        secret_access_key: credentials.secret.expose().into(),
        session_token: credentials.token.expose().into(),
        expiration: credentials.expires.0,
    }
}

impl Operation for shapes::GetCallerIdentityRequest {
    const SERVICE: &'static str = "sts";
    const NAME: &'static str = "GetCallerIdentity";
    type Output = shapes::GetCallerIdentityResponse;

    /// None: every authenticated caller may know who it is (IAM-53).
    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        Vec::new()
    }

    fn execute(_: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let principal = &ctx.caller.principal;
        Ok(shapes::GetCallerIdentityResponse {
            user_id: user_id(principal),
            account: principal.account().map(ToString::to_string),
            arn: principal.arn().map(|arn| arn.to_string()),
        })
    }
}

/// The unique id as `aws:userid` has it; services and the anonymous have none.
fn user_id(principal: &Principal) -> Option<String> {
    match principal {
        Principal::Root { account } => Some(account.to_string()),
        Principal::User { id, .. } => Some(id.clone()),
        Principal::RoleSession { role_id, session, .. } => Some(format!("{role_id}:{session}")),
        Principal::Service { .. } | Principal::Anonymous => None,
    }
}

impl Operation for shapes::GetAccessKeyInfoRequest {
    const SERVICE: &'static str = "sts";
    const NAME: &'static str = "GetAccessKeyInfo";
    type Output = shapes::GetAccessKeyInfoResponse;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sts:GetAccessKeyInfo")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let id = request.into_inner().access_key_id;
        let account = account_of_key(ctx.store, &id).map_err(ApiError::internal)?;
        let account = account.ok_or_else(|| invalid(format!("The access key {id} is of no account.")))?;
        Ok(shapes::GetAccessKeyInfoResponse {
            account: Some(account.to_string()),
        })
    }
}
