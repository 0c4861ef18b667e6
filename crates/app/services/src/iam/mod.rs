//! Handlers of the `iam` service, and what every other service asks IAM: who a caller is, what it may do, which role
//! it may pass.

mod absent;
mod account;
mod attached;
mod aws_managed;
mod boundary;
mod change;
pub mod credentials;
mod documents;
mod entity;
mod error;
mod group;
mod inline;
mod key;
pub mod managed;
mod operation;
pub mod operator;
mod page;
mod policy;
mod role;
pub(crate) mod simulate;
mod tags;
mod user;

#[cfg(test)]
pub(crate) mod tests;

use crate::Ctx;
use crate::dispatch::{Handler, handler};
use isolarium_model::iam::Role;
use isolarium_model::{Arn, Principal, Timestamp};
use isolarium_policy::{Authority, Question, ResourceSide};
use isolarium_store::{StateStore, StoreError};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;

pub use documents::authority_of;
pub(crate) use documents::{derived, named};
pub(crate) use error::readable;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::AddUserToGroupRequest>(),
        handler::<shapes::AttachGroupPolicyRequest>(),
        handler::<shapes::AttachRolePolicyRequest>(),
        handler::<shapes::AttachUserPolicyRequest>(),
        handler::<shapes::CreateAccessKeyRequest>(),
        handler::<shapes::CreateAccountAliasRequest>(),
        handler::<shapes::CreateGroupRequest>(),
        handler::<shapes::CreatePolicyRequest>(),
        handler::<shapes::CreatePolicyVersionRequest>(),
        handler::<shapes::CreateRoleRequest>(),
        handler::<shapes::CreateUserRequest>(),
        handler::<shapes::DeleteAccessKeyRequest>(),
        handler::<shapes::DeleteAccountAliasRequest>(),
        handler::<shapes::DeleteGroupRequest>(),
        handler::<shapes::DeleteGroupPolicyRequest>(),
        handler::<shapes::DeletePolicyRequest>(),
        handler::<shapes::DeletePolicyVersionRequest>(),
        handler::<shapes::DeleteRoleRequest>(),
        handler::<shapes::DeleteRolePermissionsBoundaryRequest>(),
        handler::<shapes::DeleteRolePolicyRequest>(),
        handler::<shapes::DeleteUserRequest>(),
        handler::<shapes::DeleteUserPermissionsBoundaryRequest>(),
        handler::<shapes::DeleteUserPolicyRequest>(),
        handler::<shapes::DetachGroupPolicyRequest>(),
        handler::<shapes::DetachRolePolicyRequest>(),
        handler::<shapes::DetachUserPolicyRequest>(),
        handler::<shapes::GetAccountAuthorizationDetailsRequest>(),
        handler::<shapes::GetAccountPasswordPolicyInput>(),
        handler::<shapes::GetAccountSummaryInput>(),
        handler::<shapes::GetGroupRequest>(),
        handler::<shapes::GetGroupPolicyRequest>(),
        handler::<shapes::GetLoginProfileRequest>(),
        handler::<shapes::GetPolicyRequest>(),
        handler::<shapes::GetPolicyVersionRequest>(),
        handler::<shapes::GetRoleRequest>(),
        handler::<shapes::GetRolePolicyRequest>(),
        handler::<shapes::GetUserRequest>(),
        handler::<shapes::GetUserPolicyRequest>(),
        handler::<shapes::ListAccessKeysRequest>(),
        handler::<shapes::ListAccountAliasesRequest>(),
        handler::<shapes::ListAttachedGroupPoliciesRequest>(),
        handler::<shapes::ListAttachedRolePoliciesRequest>(),
        handler::<shapes::ListAttachedUserPoliciesRequest>(),
        handler::<shapes::ListEntitiesForPolicyRequest>(),
        handler::<shapes::ListGroupPoliciesRequest>(),
        handler::<shapes::ListGroupsRequest>(),
        handler::<shapes::ListGroupsForUserRequest>(),
        handler::<shapes::ListInstanceProfilesRequest>(),
        handler::<shapes::ListInstanceProfilesForRoleRequest>(),
        handler::<shapes::ListMFADevicesRequest>(),
        handler::<shapes::ListOpenIDConnectProvidersRequest>(),
        handler::<shapes::ListPoliciesRequest>(),
        handler::<shapes::ListPolicyTagsRequest>(),
        handler::<shapes::ListPolicyVersionsRequest>(),
        handler::<shapes::ListRolePoliciesRequest>(),
        handler::<shapes::ListRoleTagsRequest>(),
        handler::<shapes::ListRolesRequest>(),
        handler::<shapes::ListSAMLProvidersRequest>(),
        handler::<shapes::ListSSHPublicKeysRequest>(),
        handler::<shapes::ListServerCertificatesRequest>(),
        handler::<shapes::ListServiceSpecificCredentialsRequest>(),
        handler::<shapes::ListSigningCertificatesRequest>(),
        handler::<shapes::ListUserPoliciesRequest>(),
        handler::<shapes::ListUserTagsRequest>(),
        handler::<shapes::ListUsersRequest>(),
        handler::<shapes::ListVirtualMFADevicesRequest>(),
        handler::<shapes::PutGroupPolicyRequest>(),
        handler::<shapes::PutRolePermissionsBoundaryRequest>(),
        handler::<shapes::PutRolePolicyRequest>(),
        handler::<shapes::PutUserPermissionsBoundaryRequest>(),
        handler::<shapes::PutUserPolicyRequest>(),
        handler::<shapes::RemoveUserFromGroupRequest>(),
        handler::<shapes::SetDefaultPolicyVersionRequest>(),
        handler::<shapes::TagPolicyRequest>(),
        handler::<shapes::TagRoleRequest>(),
        handler::<shapes::TagUserRequest>(),
        handler::<shapes::UntagPolicyRequest>(),
        handler::<shapes::UntagRoleRequest>(),
        handler::<shapes::UntagUserRequest>(),
        handler::<shapes::UpdateAccessKeyRequest>(),
        handler::<shapes::UpdateAssumeRolePolicyRequest>(),
        handler::<shapes::UpdateGroupRequest>(),
        handler::<shapes::UpdateRoleRequest>(),
        handler::<shapes::UpdateRoleDescriptionRequest>(),
        handler::<shapes::UpdateUserRequest>(),
    ]
}

/// Everything that decides what the caller may do (IAM-21): its identity policies, boundary, session policies, and the
/// policy of the endpoint it came through.
///
/// # Errors
/// When the store cannot be read.
pub fn authority(ctx: &Ctx<'_>) -> Result<Authority, ApiError> {
    authority_of(ctx.store, ctx.caller, ctx.clock.now()).map_err(ApiError::internal)
}

/// Who owns the resource of a question and what the resource itself says. A role's trust speaks to `sts:AssumeRole`,
/// repositories have policies, log groups have those of their account, and everything else here has an owner and no
/// policy of its own.
///
/// # Errors
/// When the store cannot be read.
pub fn resource_side(
    store: &dyn StateStore,
    caller: &Principal,
    question: &Question,
) -> Result<ResourceSide, StoreError> {
    let Ok(arn) = question.resource.parse::<Arn>() else {
        return Ok(ResourceSide::default());
    };
    if let Some(side) = crate::ecr::resource_side(store, question)? {
        return Ok(side);
    }
    if let Some(side) = crate::logs::resource_side(store, caller, question)? {
        return Ok(side);
    }
    if let Some(side) = crate::kms::resource_side(store, caller, question)? {
        return Ok(side);
    }
    let trusted = matches!(
        question.action.as_str(),
        "sts:AssumeRole" | "sts:SetSourceIdentity" | "sts:TagSession"
    );
    if trusted && let Some(key) = Role::key_of(&arn) {
        let role = store.get::<Role>(&key)?.map(|stored| stored.record);
        return Ok(match role.filter(|role| role.arn() == arn) {
            Some(role) => credentials::trust_side(&role),
            None => ResourceSide {
                owner: arn.account(),
                policies: Vec::new(),
                trust: true,
                required: false,
            },
        });
    }
    Ok(ResourceSide {
        owner: arn.account(),
        policies: Vec::new(),
        trust: trusted,
        required: false,
    })
}

/// The question whether the caller may hand a role to a service, such as `sagemaker.amazonaws.com` (IAM-51).
pub fn pass_role_question(role_arn: &Arn, service: &str) -> Question {
    Question::on("iam:PassRole", role_arn).with("iam:PassedToService", service)
}

/// A time as policies compare it: ISO 8601 in UTC, whole seconds.
pub(crate) fn iso_time(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.0.div_euclid(1000))
        .map(|time| time.to_string())
        .unwrap_or_default()
}
