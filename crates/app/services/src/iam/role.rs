//! Roles.

use super::change::{again, read, unique_id};
use super::entity::{self, About};
use super::managed::{Use, hold};
use super::operation::operation;
use super::tags::create_questions;
use super::{boundary, error, page, tags};
use isolarium_model::iam::{Attachments, Role, global};
use isolarium_model::{Arn, Timestamp};
use isolarium_policy::{DocumentKind, Question};
use isolarium_store::state::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use isolarium_wire::sigv4::uri_encode;

/// Longest trust policy, in characters without white space.
pub(super) const LONGEST_TRUST: usize = 2_048;
/// Seconds of a session, unless the role says otherwise.
const SESSION: u32 = 3_600;

pub(super) fn shape(role: &Role, alone: bool) -> shapes::Role {
    let detail = alone.then_some(&role.attachments);
    shapes::Role {
        path: role.path.clone(),
        role_name: role.name.clone(),
        role_id: role.id.clone(),
        arn: role.arn().to_string(),
        create_date: role.created.0,
        assume_role_policy_document: Some(uri_encode(&role.trust)),
        description: role.description.clone(),
        max_session_duration: Some(i64::from(role.max_session)),
        // Lists leave these out.
        permissions_boundary: detail.and_then(|has| boundary::shape(has.boundary.as_ref())),
        tags: detail.and_then(|has| tags::shape(&has.tags)),
        ..Default::default()
    }
}

/// The trust policy is readable and not too long.
fn check_trust(text: &str) -> Result<(), ApiError> {
    error::readable(text, DocumentKind::Trust)?;
    error::quota("ACLSizePerRole", LONGEST_TRUST, error::counted_length(text))
}

fn max_session(seconds: Option<i64>) -> Option<u32> {
    seconds.and_then(|seconds| u32::try_from(seconds).ok())
}

/// IAM's dates have whole seconds.
pub(super) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp(at.0 - at.0.rem_euclid(1_000))
}

/// Adds the boundary that a new entity is to have to the first question, which is about creating it.
pub(super) fn with_boundary(mut questions: Vec<Question>, arn: Option<&String>) -> Vec<Question> {
    if let (Some(first), Some(arn)) = (questions.first_mut(), arn) {
        *first = first.clone().with("iam:PermissionsBoundary", arn.clone());
    }
    questions
}

operation!(
    "CreateRole", CreateRoleRequest -> CreateRoleResponse,
    asks |this, ctx| {
        let path = this.path.as_deref().unwrap_or("/");
        let arn = Arn::iam(&ctx.caller.scope.account, &format!("role{path}{}", this.role_name));
        with_boundary(create_questions("Role", &arn, this.tags.as_ref()), this.permissions_boundary.as_ref())
    },
    does |request, ctx| {
        check_trust(&request.assume_role_policy_document)?;
        let tags = tags::read(request.tags)?;
        entity::room_for::<Role>(ctx)?;
        let account = &ctx.caller.scope.account;
        let mut role = Role {
            account: account.clone(),
            path: request.path.unwrap_or_else(|| "/".into()),
            id: unique_id(ctx.ids, "AROA", 17),
            created: whole_seconds(ctx.clock.now()),
            trust: request.assume_role_policy_document,
            description: request.description,
            max_session: max_session(request.max_session_duration).unwrap_or(SESSION),
            attachments: Attachments { tags, ..Attachments::default() },
            name: request.role_name,
        };
        let mut batch = Batch::default();
        if let Some(arn) = &request.permissions_boundary {
            let (arn, holding) = hold(ctx, arn, Use::Boundary, batch)?;
            (role.attachments.boundary, batch) = (Some(arn), holding);
        }
        let batch = batch.put(&Role::key(account, &role.name), Expect::Absent, &role);
        match ctx.store.commit(batch.map_err(error::store)?) {
            Ok(_) => Ok(shapes::CreateRoleResponse { role: shape(&role, true) }),
            Err(StoreError::Conflict { .. }) => Err(error::already_exists("Role", &role.name)),
            Err(other) => Err(error::store(other)),
        }
    },
);

operation!(
    "GetRole", GetRoleRequest -> GetRoleResponse,
    asks |this, ctx| vec![About::named::<Role>(ctx, &this.role_name).asks_bounded("iam:GetRole")],
    does |request, ctx| {
        let role = entity::load::<Role>(ctx, &request.role_name)?;
        Ok(shapes::GetRoleResponse { role: shape(&role, true) })
    },
);

operation!(
    "ListRoles", ListRolesRequest -> ListRolesResponse,
    asks |_, _| vec![Question::any("iam:ListRoles")],
    does |request, ctx| {
        let prefix = request.path_prefix.unwrap_or_else(|| "/".into());
        let scope = global(&ctx.caller.scope.account);
        let within = |role: &Role| role.path.starts_with(&prefix);
        let page = page::records(ctx, &scope, request.marker, request.max_items, within)?;
        Ok(shapes::ListRolesResponse {
            is_truncated: page.truncated(),
            roles: page.items.iter().map(|role| shape(role, false)).collect(),
            marker: page.marker,
        })
    },
);

operation!(
    "UpdateRole", UpdateRoleRequest -> UpdateRoleResponse,
    asks |this, ctx| vec![About::named::<Role>(ctx, &this.role_name).asks_bounded("iam:UpdateRole")],
    does |request, ctx| {
        entity::change(ctx, &request.role_name, |role: &mut Role| {
            // What the request leaves out is set back to what a new role has.
            role.description.clone_from(&request.description);
            role.max_session = max_session(request.max_session_duration).unwrap_or(SESSION);
            Ok(())
        })?;
        Ok(shapes::UpdateRoleResponse {})
    },
);

operation!(
    "UpdateRoleDescription", UpdateRoleDescriptionRequest -> UpdateRoleDescriptionResponse,
    asks |this, ctx| vec![About::named::<Role>(ctx, &this.role_name).asks_bounded("iam:UpdateRoleDescription")],
    does |request, ctx| {
        let role = entity::change(ctx, &request.role_name, |role: &mut Role| {
            role.description = Some(request.description.clone());
            Ok(())
        })?;
        Ok(shapes::UpdateRoleDescriptionResponse { role: Some(shape(&role, true)) })
    },
);

operation!(
    "DeleteRole", DeleteRoleRequest -> DeleteRoleOutput,
    asks |this, ctx| vec![About::named::<Role>(ctx, &this.role_name).asks_bounded("iam:DeleteRole")],
    does |request, ctx| {
        let key = Role::key(&ctx.caller.scope.account, &request.role_name);
        again(ctx, || {
            let found = read::<Role>(ctx, &key, || entity::missing::<Role>(&request.role_name))?;
            entity::bare(&found.record)?;
            Ok((Batch::default().delete::<Role>(&key, Expect::At(found.revision)), ()))
        })?;
        Ok(shapes::DeleteRoleOutput {})
    },
);

operation!(
    "UpdateAssumeRolePolicy", UpdateAssumeRolePolicyRequest -> UpdateAssumeRolePolicyOutput,
    asks |this, ctx| vec![About::named::<Role>(ctx, &this.role_name).asks_bounded("iam:UpdateAssumeRolePolicy")],
    does |request, ctx| {
        check_trust(&request.policy_document)?;
        entity::change(ctx, &request.role_name, |role: &mut Role| {
            role.trust.clone_from(&request.policy_document);
            Ok(())
        })?;
        Ok(shapes::UpdateAssumeRolePolicyOutput {})
    },
);

operation!(
    "ListInstanceProfilesForRole", ListInstanceProfilesForRoleRequest -> ListInstanceProfilesForRoleResponse,
    asks |this, ctx| vec![About::named::<Role>(ctx, &this.role_name).asks("iam:ListInstanceProfilesForRole")],
    does |request, ctx| {
        // Instance profiles cannot be made here, so no role is in one.
        entity::load::<Role>(ctx, &request.role_name)?;
        Ok(shapes::ListInstanceProfilesForRoleResponse {
            instance_profiles: Vec::new(),
            is_truncated: Some(false),
            marker: None,
        })
    },
);
