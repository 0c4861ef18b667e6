//! Inline policies of roles. Managed policies and instance profiles do not exist yet, so their lists are empty.

use super::change::change;
use super::role::{arn_of, load};
use super::{error, page};
use crate::{Ctx, Operation};
use isolarium_model::iam::{Attachments, Role};
use isolarium_policy::{DocumentKind, Granted, Question};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use isolarium_wire::sigv4::uri_encode;

/// All inline policies of a role together, in characters without white space.
const LONGEST_FOR_ROLE: usize = 10_240;

/// Adds or replaces an inline policy within the entity's quota.
pub(super) fn put(
    attachments: &mut Attachments,
    name: &str,
    text: &str,
    longest: usize,
    entity: &str,
) -> Result<(), ApiError> {
    let others = attachments.policies.iter().filter(|(other, _)| *other != name);
    let total: usize = others.map(|(_, text)| error::counted_length(text)).sum();
    if total + error::counted_length(text) > longest {
        return Err(error::limit_exceeded(format!(
            "Maximum policy size of {longest} bytes exceeded for {entity}"
        )));
    }
    attachments.policies.insert(name.into(), text.into());
    Ok(())
}

fn missing(name: &str) -> ApiError {
    error::no_such(format!("The role policy with name {name} cannot be found."))
}

impl Operation for shapes::PutRolePolicyRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "PutRolePolicy";
    type Output = shapes::PutRolePolicyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:PutRolePolicy", &arn_of(ctx, &self.role_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        error::readable(&request.policy_document, DocumentKind::Identity)?;
        let key = Role::key(&ctx.caller.scope.account, &request.role_name);
        let entity = format!("role {}", request.role_name);
        change(
            ctx,
            &key,
            || error::no_such_role(&request.role_name),
            |role: &mut Role| {
                let (name, text) = (&request.policy_name, &request.policy_document);
                put(&mut role.attachments, name, text, LONGEST_FOR_ROLE, &entity)
            },
        )?;
        Ok(shapes::PutRolePolicyOutput {})
    }
}

impl Operation for shapes::GetRolePolicyRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "GetRolePolicy";
    type Output = shapes::GetRolePolicyResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:GetRolePolicy", &arn_of(ctx, &self.role_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let role = load(ctx, &request.role_name)?;
        let text = role.attachments.policies.get(&request.policy_name);
        Ok(shapes::GetRolePolicyResponse {
            policy_document: uri_encode(text.ok_or_else(|| missing(&request.policy_name))?),
            role_name: role.name,
            policy_name: request.policy_name,
        })
    }
}

impl Operation for shapes::DeleteRolePolicyRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "DeleteRolePolicy";
    type Output = shapes::DeleteRolePolicyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:DeleteRolePolicy", &arn_of(ctx, &self.role_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let key = Role::key(&ctx.caller.scope.account, &request.role_name);
        change(
            ctx,
            &key,
            || error::no_such_role(&request.role_name),
            |role: &mut Role| {
                let gone = role.attachments.policies.remove(&request.policy_name);
                gone.map(drop).ok_or_else(|| missing(&request.policy_name))
            },
        )?;
        Ok(shapes::DeleteRolePolicyOutput {})
    }
}

impl Operation for shapes::ListRolePoliciesRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "ListRolePolicies";
    type Output = shapes::ListRolePoliciesResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:ListRolePolicies", &arn_of(ctx, &self.role_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let role = load(ctx, &request.role_name)?;
        let page = page::names(
            role.attachments.policies.keys(),
            request.marker.as_deref(),
            request.max_items,
        );
        Ok(shapes::ListRolePoliciesResponse {
            is_truncated: page.truncated(),
            policy_names: page.items,
            marker: page.marker,
        })
    }
}

impl Operation for shapes::ListAttachedRolePoliciesRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "ListAttachedRolePolicies";
    type Output = shapes::ListAttachedRolePoliciesResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on(
            "iam:ListAttachedRolePolicies",
            &arn_of(ctx, &self.role_name),
        )]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        load(ctx, &request.get().role_name)?;
        Ok(shapes::ListAttachedRolePoliciesResponse {
            attached_policies: Some(Vec::new()),
            is_truncated: Some(false),
            marker: None,
        })
    }
}

impl Operation for shapes::ListInstanceProfilesForRoleRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "ListInstanceProfilesForRole";
    type Output = shapes::ListInstanceProfilesForRoleResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on(
            "iam:ListInstanceProfilesForRole",
            &arn_of(ctx, &self.role_name),
        )]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        load(ctx, &request.get().role_name)?;
        Ok(shapes::ListInstanceProfilesForRoleResponse {
            instance_profiles: Vec::new(),
            is_truncated: Some(false),
            marker: None,
        })
    }
}
