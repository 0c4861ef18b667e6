//! Handlers of the `sts` service.

use crate::dispatch::{Handler, handler};
use crate::iam::credentials::{SessionRequest, mint_session};
use crate::{Ctx, Operation};
use isolarium_model::iam::Role;
use isolarium_model::{Arn, Principal};
use isolarium_policy::{DocumentKind, Granted, Question};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::sts as shapes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Longest session of a role assumed by a session, in seconds (IAM-53).
const LONGEST_CHAINED: u64 = 3_600;
/// Longest session policy, in characters.
const LONGEST_POLICY: usize = 2_048;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::AssumeRoleRequest>(),
        handler::<shapes::GetCallerIdentityRequest>(),
    ]
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::client("ValidationError", text)
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
        let user_id = match principal {
            Principal::Root { account } => Some(account.to_string()),
            Principal::User { id, .. } => Some(id.clone()),
            Principal::RoleSession { role_id, session, .. } => Some(format!("{role_id}:{session}")),
            Principal::Service { .. } | Principal::Anonymous => None,
        };
        Ok(shapes::GetCallerIdentityResponse {
            user_id,
            account: principal.account().map(ToString::to_string),
            arn: principal.arn().map(|arn| arn.to_string()),
        })
    }
}

impl Operation for shapes::AssumeRoleRequest {
    const SERVICE: &'static str = "sts";
    const NAME: &'static str = "AssumeRole";
    type Output = shapes::AssumeRoleResponse;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        let ask = |action: &str| {
            let mut question = match self.role_arn.parse::<Arn>() {
                Ok(arn) => Question::on(action, &arn),
                Err(_) => Question::any(action),
            };
            question = question.with("sts:RoleSessionName", self.role_session_name.clone());
            if let Some(id) = &self.external_id {
                question = question.with("sts:ExternalId", id.clone());
            }
            let tags = self.tags.iter().flatten();
            question.with_request_tags(tags.map(|tag| (&tag.key, &tag.value)))
        };
        let mut questions = vec![ask("sts:AssumeRole")];
        if self.tags.as_ref().is_some_and(|tags| !tags.is_empty()) {
            questions.push(ask("sts:TagSession"));
        }
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let arn: Arn = request
            .role_arn
            .parse()
            .map_err(|_| invalid(format!("{} is invalid", request.role_arn)))?;
        let key = Role::key_of(&arn).ok_or_else(|| invalid(format!("{arn} is invalid")))?;
        // The gate saw the role a moment ago; it may have gone since.
        let role = ctx.store.get::<Role>(&key).map_err(ApiError::internal)?;
        let role = role.ok_or_else(|| invalid(format!("{arn} is invalid")))?.record;
        let lasts = duration(ctx, request.duration_seconds, &role)?;
        let credentials = mint_session(
            ctx.master,
            ctx.clock,
            ctx.ids,
            SessionRequest {
                principal: role.session(&request.role_session_name),
                lasts,
                policies: session_policies(request.policy, request.policy_arns)?,
                tags: session_tags(request.tags)?,
            },
        );
        Ok(shapes::AssumeRoleResponse {
            assumed_role_user: Some(shapes::AssumedRoleUser {
                assumed_role_id: format!("{}:{}", role.id, request.role_session_name),
                arn: credentials
                    .principal
                    .arn()
                    .map(|arn| arn.to_string())
                    .unwrap_or_default(),
            }),
            credentials: Some(shapes::Credentials {
                access_key_id: credentials.access_key_id,
                secret_access_key: credentials.secret.expose().into(),
                session_token: credentials.token.expose().into(),
                expiration: credentials.expires.0,
            }),
            ..Default::default()
        })
    }
}

/// How long the session lasts: an hour unless asked, within the role's limit, an hour at most when a session assumes
/// (IAM-53).
fn duration(ctx: &Ctx<'_>, seconds: Option<i64>, role: &Role) -> Result<Duration, ApiError> {
    let seconds = u64::try_from(seconds.unwrap_or(3_600)).unwrap_or(0);
    if !(900..=43_200).contains(&seconds) {
        return Err(invalid("DurationSeconds must be between 900 and 43200"));
    }
    if seconds > u64::from(role.max_session) {
        let text = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(invalid(text));
    }
    if matches!(ctx.caller.principal, Principal::RoleSession { .. }) && seconds > LONGEST_CHAINED {
        let text = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining";
        return Err(invalid(text));
    }
    Ok(Duration::from_secs(seconds))
}

fn session_policies(
    policy: Option<String>,
    arns: Option<Vec<shapes::PolicyDescriptorType>>,
) -> Result<Option<Vec<Arc<str>>>, ApiError> {
    // There are no managed policies yet; to leave one out would widen the session.
    if let Some(descriptor) = arns.iter().flatten().next() {
        let arn = descriptor.arn.as_deref().unwrap_or("");
        return Err(invalid(format!(
            "The policy {arn} does not exist or is not attachable."
        )));
    }
    let Some(text) = policy else { return Ok(None) };
    if text.chars().count() > LONGEST_POLICY {
        return Err(ApiError::client(
            "PackedPolicyTooLarge",
            "The session policy exceeds 2048 characters.",
        ));
    }
    crate::iam::readable(&text, DocumentKind::Identity)?;
    Ok(Some(vec![text.into()]))
}

fn session_tags(tags: Option<Vec<shapes::Tag>>) -> Result<BTreeMap<String, String>, ApiError> {
    let mut found = BTreeMap::new();
    for tag in tags.unwrap_or_default() {
        let duplicate = found.keys().any(|key: &String| key.eq_ignore_ascii_case(&tag.key));
        if duplicate {
            return Err(ApiError::client("InvalidParameterValue", "Duplicate tag keys found."));
        }
        found.insert(tag.key, tag.value);
    }
    Ok(found)
}
