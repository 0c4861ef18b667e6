//! Permissions boundaries of users and roles (IAM-24).

use super::change::change_with;
use super::entity::{self, About, Entity};
use super::managed::{Use, hold};
use super::operation::operation;
use isolarium_model::Arn;
use isolarium_model::iam::{Role, User};
use isolarium_wire::shapes::iam as shapes;

/// As answers name a boundary; absent where there is none.
pub(super) fn shape(boundary: Option<&Arn>) -> Option<shapes::AttachedPermissionsBoundary> {
    boundary.map(|arn| shapes::AttachedPermissionsBoundary {
        permissions_boundary_type: Some(shapes::PermissionsBoundaryAttachmentType::PermissionsBoundaryPolicy),
        permissions_boundary_arn: Some(arn.to_string()),
    })
}

macro_rules! boundaries {
    ($entity:ty, $noun:literal, $name:ident, $put:ident -> $was_put:ident, $delete:ident -> $deleted:ident) => {
        operation!(
            concat!("Put", $noun, "PermissionsBoundary"), $put -> $was_put,
            asks |this, ctx| {
                let about = About::named::<$entity>(ctx, &this.$name);
                let question = about.asks(concat!("iam:Put", $noun, "PermissionsBoundary"));
                vec![question.with("iam:PermissionsBoundary", this.permissions_boundary.clone())]
            },
            does |request, ctx| {
                let key = <$entity>::place(&ctx.caller.scope.account, &request.$name);
                let missing = || entity::missing::<$entity>(&request.$name);
                change_with(ctx, &key, missing, |entity: &mut $entity, batch| {
                    let (arn, batch) = hold(ctx, &request.permissions_boundary, Use::Boundary, batch)?;
                    entity.attachments.boundary = Some(arn);
                    Ok(batch)
                })?;
                Ok(shapes::$was_put {})
            },
        );

        operation!(
            concat!("Delete", $noun, "PermissionsBoundary"), $delete -> $deleted,
            asks |this, ctx| {
                let about = About::named::<$entity>(ctx, &this.$name);
                vec![about.asks_bounded(concat!("iam:Delete", $noun, "PermissionsBoundary"))]
            },
            does |request, ctx| {
                entity::change(ctx, &request.$name, |entity: &mut $entity| {
                    entity.attachments.boundary = None;
                    Ok(())
                })?;
                Ok(shapes::$deleted {})
            },
        );
    };
}

boundaries!(
    User, "User", user_name,
    PutUserPermissionsBoundaryRequest -> PutUserPermissionsBoundaryOutput,
    DeleteUserPermissionsBoundaryRequest -> DeleteUserPermissionsBoundaryOutput
);
boundaries!(
    Role, "Role", role_name,
    PutRolePermissionsBoundaryRequest -> PutRolePermissionsBoundaryOutput,
    DeleteRolePermissionsBoundaryRequest -> DeleteRolePermissionsBoundaryOutput
);
