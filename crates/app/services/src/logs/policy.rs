//! Resource policies: what AWS's services may write into the log groups of an account. As on AWS they speak to service
//! principals alone; users, roles and other accounts are the business of IAM policies (IAM-22, IAM-66).

use super::{invalid, not_found, page_size, position, shapes, token};
use crate::iam::named;
use crate::{Ctx, Operation};
use isolarium_model::logs::{ResourcePolicies, ResourcePolicy};
use isolarium_model::{Arn, Principal, Scope};
use isolarium_policy::{Document, DocumentKind, Granted, Question, ResourceSide};
use isolarium_store::{Batch, Expect, StateStore, StoreError};
use isolarium_wire::ApiError;
use std::ops::Bound;

/// Policies per account and region at most.
const MOST: usize = 10;
const PAGE: usize = 50;

/// The only actions that these policies can allow.
const ACTIONS: [&str; 2] = ["logs:CreateLogStream", "logs:PutLogEvents"];

/// The owner of a log group or stream, and the policies of its account where a service asks to write into it; `None`
/// when the question is about something else.
///
/// # Errors
/// When the record cannot be read.
pub fn resource_side(
    store: &dyn StateStore,
    caller: &Principal,
    question: &Question,
) -> Result<Option<ResourceSide>, StoreError> {
    let Ok(arn) = question.resource.parse::<Arn>() else {
        return Ok(None);
    };
    let group = arn.service() == "logs" && arn.resource().starts_with("log-group:");
    let (true, Some(account), Some(region)) = (group, arn.account(), arn.region()) else {
        return Ok(None);
    };
    let scope = Scope { account, region };
    let mut side = ResourceSide {
        owner: Some(scope.account.clone()),
        ..ResourceSide::default()
    };
    let asked = ACTIONS
        .iter()
        .any(|action| action.eq_ignore_ascii_case(&question.action));
    if asked && matches!(caller, Principal::Service { .. }) {
        let stored = store.shared::<ResourcePolicies>(&ResourcePolicies::key(&scope))?;
        let known = stored.iter().flat_map(|stored| &stored.record.policies);
        side.policies = known
            .map(|(name, policy)| {
                let cited = format!("logs resource policy {name}");
                named(&cited, &policy.document, DocumentKind::Resource)
            })
            .collect();
    }
    Ok(Some(side))
}

/// Changes the policies of the caller's account and region as they are now.
fn change<T>(ctx: &Ctx<'_>, change: impl Fn(&mut ResourcePolicies) -> Result<T, ApiError>) -> Result<T, ApiError> {
    let key = ResourcePolicies::key(&ctx.caller.scope);
    loop {
        let (mut record, expect) = match ctx.store.get::<ResourcePolicies>(&key).map_err(ApiError::internal)? {
            Some(stored) => (stored.record, Expect::At(stored.revision)),
            None => (ResourcePolicies::default(), Expect::Absent),
        };
        let answer = change(&mut record)?;
        let batch = Batch::default()
            .put(&key, expect, &record)
            .map_err(ApiError::internal)?;
        match ctx.store.commit(batch) {
            Ok(_) => return Ok(answer),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(ApiError::internal(error)),
        }
    }
}

/// The name of a policy; one that belongs to a single log group is refused.
fn of_account<'n>(
    name: Option<&'n str>,
    resource_arn: Option<&str>,
    revision: Option<&str>,
) -> Result<&'n str, ApiError> {
    if resource_arn.is_some() || revision.is_some() {
        return Err(invalid("Resource policies of single log groups are not supported."));
    }
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| invalid("Policy name must be given."))
}

fn described(name: &str, policy: &ResourcePolicy) -> shapes::ResourcePolicy {
    shapes::ResourcePolicy {
        policy_name: Some(name.into()),
        policy_document: Some(policy.document.clone()),
        last_updated_time: Some(policy.updated.0),
        policy_scope: Some(shapes::PolicyScope::Account),
        ..Default::default()
    }
}

impl Operation for shapes::PutResourcePolicyRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "PutResourcePolicy";
    type Output = shapes::PutResourcePolicyResponse;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("logs:PutResourcePolicy")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let revision = request.expected_revision_id.as_deref();
        let name = of_account(
            request.policy_name.as_deref(),
            request.resource_arn.as_deref(),
            revision,
        )?;
        let document = request
            .policy_document
            .as_deref()
            .ok_or_else(|| invalid("Policy document must be given."))?;
        Document::parse(document, DocumentKind::Resource)
            .map_err(|error| invalid(format!("The policy document is not valid: {error}")))?;
        let policy = ResourcePolicy {
            document: document.into(),
            updated: ctx.clock.now(),
        };
        change(ctx, |record| {
            if record.policies.len() >= MOST && !record.policies.contains_key(name) {
                return Err(ApiError::client("LimitExceededException", "Resource limit exceeded."));
            }
            record.policies.insert(name.into(), policy.clone());
            Ok(())
        })?;
        Ok(shapes::PutResourcePolicyResponse {
            resource_policy: Some(described(name, &policy)),
            revision_id: None,
        })
    }
}

impl Operation for shapes::DescribeResourcePoliciesRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "DescribeResourcePolicies";
    type Output = shapes::DescribeResourcePoliciesResponse;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("logs:DescribeResourcePolicies")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let after: Option<String> = position(request.next_token.as_deref())?;
        let stored = ctx
            .store
            .shared::<ResourcePolicies>(&ResourcePolicies::key(&ctx.caller.scope))
            .map_err(ApiError::internal)?;
        // No single log group has any.
        let of_groups = request.resource_arn.is_some() || request.policy_scope == Some(shapes::PolicyScope::Resource);
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut left = stored
            .iter()
            .filter(|_| !of_groups)
            .flat_map(|stored| stored.record.policies.range((after.clone(), Bound::Unbounded)))
            .peekable();
        let page: Vec<_> = left.by_ref().take(page_size(request.limit, PAGE)).collect();
        let next = left.peek().and(page.last()).and_then(|(name, _)| token(name));
        Ok(shapes::DescribeResourcePoliciesResponse {
            resource_policies: Some(page.into_iter().map(|(name, policy)| described(name, policy)).collect()),
            next_token: next,
        })
    }
}

impl Operation for shapes::DeleteResourcePolicyRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "DeleteResourcePolicy";
    type Output = shapes::DeleteResourcePolicyOutput;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("logs:DeleteResourcePolicy")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let revision = request.expected_revision_id.as_deref();
        let name = of_account(
            request.policy_name.as_deref(),
            request.resource_arn.as_deref(),
            revision,
        )?;
        change(ctx, |record| match record.policies.remove(name) {
            Some(_) => Ok(()),
            None => Err(not_found(&format!("Policy with name [{name}] does not exist."))),
        })?;
        Ok(shapes::DeleteResourcePolicyOutput {})
    }
}
