//! The four operations.

use super::{Asked, NOBODY, Subject, given, page, simulate, subject, user};
use crate::Ctx;
use crate::dispatch::{Handler, handler};
use crate::iam::error;
use crate::iam::operation::operation;
use isolarium_policy::question::Context;
use isolarium_policy::{NamedPolicy, Question};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use std::collections::BTreeSet;

/// Every served operation of the simulator.
pub(crate) fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::GetContextKeysForCustomPolicyRequest>(),
        handler::<shapes::GetContextKeysForPrincipalPolicyRequest>(),
        handler::<shapes::SimulateCustomPolicyRequest>(),
        handler::<shapes::SimulatePrincipalPolicyRequest>(),
    ]
}

/// Asks about an action on the entity whose policies are read.
fn asks(action: &str, source: &str) -> Vec<Question> {
    vec![match source.parse() {
        Ok(arn) => Question::on(action, &arn),
        Err(_) => Question::any(action),
    }]
}

/// What the engine cannot simulate is refused, never left out of the answer.
fn refuse<T>(member: &str, list: Option<&Vec<T>>) -> Result<(), ApiError> {
    match list {
        Some(list) if !list.is_empty() => Err(error::invalid_input(format!("{member} is not served."))),
        _ => Ok(()),
    }
}

fn nobody(ctx: &Ctx<'_>, policies: &[String]) -> Result<Subject, ApiError> {
    Ok(Subject {
        principal: user(ctx.caller.scope.account.clone(), "/", NOBODY),
        identity: given("PolicyInputList", policies)?,
        boundary: None,
        kind: shapes::PolicySourceType::None,
        context: Context::new(),
    })
}

operation! {
    "SimulateCustomPolicy", SimulateCustomPolicyRequest -> SimulatePolicyResponse,
    asks |_, _| vec![Question::any("iam:SimulateCustomPolicy")],
    does |request, ctx| {
        let levels = request.ordered_organization_policy_input_list.unwrap_or_default();
        let subject = nobody(ctx, &request.policy_input_list)?;
        let asked = Asked {
            actions: request.action_names,
            resources: request.resource_arns,
            resource_policy: request.resource_policy,
            resource_owner: request.resource_owner,
            caller_arn: request.caller_arn,
            boundary: request.permissions_boundary_policy_input_list,
            organization: levels
                .into_iter()
                .map(|level| level.service_control_policy_input_list.unwrap_or_default())
                .collect(),
            entries: request.context_entries,
            marker: request.marker,
            max_items: request.max_items,
        };
        page(simulate(subject, &asked)?, &asked)
    },
}

operation! {
    "SimulatePrincipalPolicy", SimulatePrincipalPolicyRequest -> SimulatePolicyResponse,
    asks |request, _| asks("iam:SimulatePrincipalPolicy", &request.policy_source_arn),
    does |request, ctx| {
        refuse("PolicyExclusionList", request.policy_exclusion_list.as_ref())?;
        let mut subject = subject(ctx, &request.policy_source_arn)?;
        let more = request.policy_input_list.unwrap_or_default();
        subject.identity.extend(given("PolicyInputList", &more)?);
        let asked = Asked {
            actions: request.action_names,
            resources: request.resource_arns,
            resource_policy: request.resource_policy,
            resource_owner: request.resource_owner,
            caller_arn: request.caller_arn,
            boundary: request.permissions_boundary_policy_input_list,
            organization: Vec::new(),
            entries: request.context_entries,
            marker: request.marker,
            max_items: request.max_items,
        };
        page(simulate(subject, &asked)?, &asked)
    },
}

/// The condition keys that policies name, in order.
fn keys(policies: &[NamedPolicy]) -> shapes::GetContextKeysForPolicyResponse {
    let documents = policies.iter().filter_map(|policy| policy.policy.document());
    let keys: BTreeSet<String> = documents.flat_map(|document| document.context_keys()).collect();
    shapes::GetContextKeysForPolicyResponse {
        context_key_names: Some(keys.into_iter().collect()),
    }
}

operation! {
    "GetContextKeysForCustomPolicy", GetContextKeysForCustomPolicyRequest -> GetContextKeysForPolicyResponse,
    asks |_, _| vec![Question::any("iam:GetContextKeysForCustomPolicy")],
    does |request, _ctx| Ok(keys(&given("PolicyInputList", &request.policy_input_list)?)),
}

operation! {
    "GetContextKeysForPrincipalPolicy", GetContextKeysForPrincipalPolicyRequest -> GetContextKeysForPolicyResponse,
    asks |request, _| asks("iam:GetContextKeysForPrincipalPolicy", &request.policy_source_arn),
    does |request, ctx| {
        let mut policies = subject(ctx, &request.policy_source_arn)?.identity;
        policies.extend(given("PolicyInputList", &request.policy_input_list.unwrap_or_default())?);
        Ok(keys(&policies))
    },
}
