//! AssumeRole (IAM-53): session policies, tags, source identity, chains of roles.

use super::{access_denied, invalid, refuse_mfa, shown};
use crate::context::Session;
use crate::iam::credentials::mint_session;
use crate::{Ctx, Operation};
use isolarium_model::iam::Role;
use isolarium_model::{Arn, Principal};
use isolarium_policy::{DocumentKind, Granted, Question};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::sts as shapes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest session of a role assumed by a session, in seconds (IAM-53).
const LONGEST_CHAINED: u64 = 3_600;
/// Longest session policy with the ARNs of managed ones, in characters.
const LONGEST_POLICY: usize = 2_048;
/// Bytes of policy, ARNs and tags that a session can carry: the 100 % of `PackedPolicySize`. AWS does not tell its own.
const PACKED: usize = 8_192;
/// Tags of a session, handed on ones included.
const MOST_TAGS: usize = 50;

/// The tags that the caller's own session hands on.
fn handed_on<'a>(ctx: &'a Ctx<'_>) -> impl Iterator<Item = (&'a String, &'a String)> {
    ctx.caller.session.iter().flat_map(Session::passed_on)
}

/// The source identity of the session to be: asked for, or the caller's own.
fn source_identity<'a>(request: &'a shapes::AssumeRoleRequest, ctx: &'a Ctx<'_>) -> Option<&'a String> {
    let own = ctx
        .caller
        .session
        .as_ref()
        .and_then(|session| session.source_identity.as_ref());
    own.or(request.source_identity.as_ref())
}

impl Operation for shapes::AssumeRoleRequest {
    const SERVICE: &'static str = "sts";
    const NAME: &'static str = "AssumeRole";
    type Output = shapes::AssumeRoleResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let ask = |action: &str| match self.role_arn.parse::<Arn>() {
            Ok(arn) => Question::on(action, &arn),
            Err(_) => Question::any(action),
        };
        let handed_on: Vec<_> = handed_on(ctx).collect();
        let tagged = |question: Question| {
            let own = self.tags.iter().flatten().map(|tag| (&tag.key, &tag.value));
            let question = question.with_request_tags(own.chain(handed_on.iter().copied()));
            let keys = self.transitive_tag_keys.iter().flatten();
            let keys = keys.chain(handed_on.iter().map(|(key, _)| *key));
            keys.fold(question, |question, key| {
                question.with("sts:TransitiveTagKeys", key.clone())
            })
        };
        let identified = |question: Question| match source_identity(self, ctx) {
            Some(identity) => question.with("sts:SourceIdentity", identity.clone()),
            None => question,
        };
        let mut assume = identified(tagged(ask("sts:AssumeRole")));
        assume = assume.with("sts:RoleSessionName", self.role_session_name.clone());
        if let Some(id) = &self.external_id {
            assume = assume.with("sts:ExternalId", id.clone());
        }
        let mut questions = vec![assume];
        if self.tags.as_ref().is_some_and(|tags| !tags.is_empty()) || !handed_on.is_empty() {
            questions.push(tagged(ask("sts:TagSession")));
        }
        if source_identity(self, ctx).is_some() {
            questions.push(identified(ask("sts:SetSourceIdentity")));
        }
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        if matches!(ctx.caller.principal, Principal::Root { .. }) {
            return Err(access_denied("Roles may not be assumed by root accounts."));
        }
        refuse_mfa(request.serial_number.as_ref(), request.token_code.as_ref())?;
        if request
            .provided_contexts
            .as_ref()
            .is_some_and(|given| !given.is_empty())
        {
            return Err(invalid("ProvidedContexts are not served."));
        }
        let arn: Arn = request
            .role_arn
            .parse()
            .map_err(|_| invalid(format!("{} is invalid", request.role_arn)))?;
        let key = Role::key_of(&arn).ok_or_else(|| invalid(format!("{arn} is invalid")))?;
        // The gate saw the role a moment ago; it may have gone since.
        let role = ctx.store.get::<Role>(&key).map_err(ApiError::internal)?;
        let role = role.ok_or_else(|| invalid(format!("{arn} is invalid")))?.record;
        let lasts = duration(ctx, request.duration_seconds, &role)?;
        let now = ctx.clock.now();
        let mut session = Session::lasting(now, now.after(lasts));
        session.source_identity = kept_identity(&request, ctx)?;
        (session.tags, session.transitive) = tags(&request, ctx)?;
        session.managed = managed(ctx, &role, request.policy_arns.unwrap_or_default())?;
        session.policies = match request.policy {
            Some(text) => {
                crate::iam::readable(&text, DocumentKind::Identity)?;
                Some(vec![text.into()])
            }
            None => None,
        };
        let packed_policy_size = packed(&session)?;
        let principal = role.session(&request.role_session_name);
        let source_identity = session.source_identity.clone();
        let made = mint_session(ctx.master, ctx.ids, principal, session);
        let arn = made.principal.arn().map(|arn| arn.to_string());
        Ok(shapes::AssumeRoleResponse {
            assumed_role_user: Some(shapes::AssumedRoleUser {
                assumed_role_id: format!("{}:{}", role.id, request.role_session_name),
                arn: arn.unwrap_or_default(),
            }),
            credentials: Some(shown(&made)),
            packed_policy_size,
            source_identity,
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

/// Once set, a source identity stays along the whole chain.
fn kept_identity(request: &shapes::AssumeRoleRequest, ctx: &Ctx<'_>) -> Result<Option<String>, ApiError> {
    let kept = source_identity(request, ctx);
    if request
        .source_identity
        .as_ref()
        .is_some_and(|wanted| Some(wanted) != kept)
    {
        let text = "The source identity of a session cannot be changed by the roles that it assumes.";
        return Err(access_denied(text));
    }
    Ok(kept.cloned())
}

type Tags = (BTreeMap<String, String>, BTreeSet<String>);

/// The session's tags and the keys of those that it hands on: its own and what the caller's session hands on, which
/// nobody can change.
fn tags(request: &shapes::AssumeRoleRequest, ctx: &Ctx<'_>) -> Result<Tags, ApiError> {
    let refused = |text: &str| Err(ApiError::client("InvalidParameterValue", text));
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for tag in request.tags.iter().flatten() {
        if found.keys().any(|key| key.eq_ignore_ascii_case(&tag.key)) {
            return refused("Duplicate tag keys found.");
        }
        found.insert(tag.key.clone(), tag.value.clone());
    }
    let mut transitive = BTreeSet::new();
    for wanted in request.transitive_tag_keys.iter().flatten() {
        let Some(key) = found.keys().find(|key| key.eq_ignore_ascii_case(wanted)) else {
            return refused("The specified transitive tag key must be included in the requested tags.");
        };
        transitive.insert(key.clone());
    }
    for (key, value) in handed_on(ctx) {
        if found.keys().any(|own| own.eq_ignore_ascii_case(key)) {
            return refused("A tag that a previous session of the chain hands on cannot be changed.");
        }
        found.insert(key.clone(), value.clone());
        transitive.insert(key.clone());
    }
    if found.len() > MOST_TAGS {
        return refused("A session has at most 50 tags.");
    }
    Ok((found, transitive))
}

/// The managed policies that narrow the session: AWS's or the role's own account's (`PolicyArns`).
fn managed(ctx: &Ctx<'_>, role: &Role, wanted: Vec<shapes::PolicyDescriptorType>) -> Result<Vec<Arn>, ApiError> {
    let mut found = Vec::new();
    for descriptor in wanted {
        let text = descriptor.arn.unwrap_or_default();
        let missing = || invalid(format!("The policy {text} does not exist or is not attachable."));
        let arn: Arn = text.parse().map_err(|_| missing())?;
        if arn.account().is_some_and(|account| account != role.account) {
            return Err(missing());
        }
        let policy = crate::iam::managed::find(ctx.store, &arn).map_err(ApiError::internal)?;
        policy.ok_or_else(missing)?;
        found.push(arn);
    }
    Ok(found)
}

/// Per cent of what a session can carry that policies and tags take; `None` when there are none.
fn packed(session: &Session) -> Result<Option<i64>, ApiError> {
    let too_large = |text: &str| Err(ApiError::client("PackedPolicyTooLarge", text));
    let texts = session.policies.iter().flatten().map(|text| text.chars().count());
    let policies: usize = texts.chain(session.managed.iter().map(|arn| arn.as_str().len())).sum();
    if policies > LONGEST_POLICY {
        return too_large("The session policies exceed 2048 characters.");
    }
    let tags: usize = session.tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    if policies + tags == 0 {
        return Ok(None);
    }
    let percent = ((policies + tags) * 100).div_ceil(PACKED);
    if percent > 100 {
        return too_large("Session policies and tags exceed what a session can carry.");
    }
    Ok(i64::try_from(percent).ok())
}
