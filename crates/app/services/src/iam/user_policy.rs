//! Inline policies of users.

use super::change::change;
use super::role_policy::put;
use super::user::{arn_of, load};
use super::{error, page};
use crate::{Ctx, Operation};
use isolarium_model::iam::User;
use isolarium_policy::{DocumentKind, Granted, Question};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use isolarium_wire::sigv4::uri_encode;

/// All inline policies of a user together, in characters without white space.
const LONGEST_FOR_USER: usize = 2_048;

fn missing(name: &str) -> ApiError {
    error::no_such(format!("The user policy with name {name} cannot be found."))
}

impl Operation for shapes::PutUserPolicyRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "PutUserPolicy";
    type Output = shapes::PutUserPolicyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:PutUserPolicy", &arn_of(ctx, &self.user_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        error::readable(&request.policy_document, DocumentKind::Identity)?;
        let key = User::key(&ctx.caller.scope.account, &request.user_name);
        let entity = format!("user {}", request.user_name);
        change(
            ctx,
            &key,
            || error::no_such_user(&request.user_name),
            |user: &mut User| {
                let (name, text) = (&request.policy_name, &request.policy_document);
                put(&mut user.attachments, name, text, LONGEST_FOR_USER, &entity)
            },
        )?;
        Ok(shapes::PutUserPolicyOutput {})
    }
}

impl Operation for shapes::GetUserPolicyRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "GetUserPolicy";
    type Output = shapes::GetUserPolicyResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:GetUserPolicy", &arn_of(ctx, &self.user_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let user = load(ctx, &request.user_name)?;
        let text = user.attachments.policies.get(&request.policy_name);
        Ok(shapes::GetUserPolicyResponse {
            policy_document: uri_encode(text.ok_or_else(|| missing(&request.policy_name))?),
            user_name: user.name,
            policy_name: request.policy_name,
        })
    }
}

impl Operation for shapes::DeleteUserPolicyRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "DeleteUserPolicy";
    type Output = shapes::DeleteUserPolicyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:DeleteUserPolicy", &arn_of(ctx, &self.user_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let key = User::key(&ctx.caller.scope.account, &request.user_name);
        change(
            ctx,
            &key,
            || error::no_such_user(&request.user_name),
            |user: &mut User| {
                let gone = user.attachments.policies.remove(&request.policy_name);
                gone.map(drop).ok_or_else(|| missing(&request.policy_name))
            },
        )?;
        Ok(shapes::DeleteUserPolicyOutput {})
    }
}

impl Operation for shapes::ListUserPoliciesRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "ListUserPolicies";
    type Output = shapes::ListUserPoliciesResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:ListUserPolicies", &arn_of(ctx, &self.user_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let user = load(ctx, &request.user_name)?;
        let page = page::names(
            user.attachments.policies.keys(),
            request.marker.as_deref(),
            request.max_items,
        );
        Ok(shapes::ListUserPoliciesResponse {
            is_truncated: page.truncated(),
            policy_names: page.items,
            marker: page.marker,
        })
    }
}
