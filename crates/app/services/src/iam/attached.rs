//! Managed policies attached to users, groups and roles (IAM-25).

use super::change::change_with;
use super::entity::{self, About, Entity};
use super::managed::{Use, hold};
use super::operation::operation;
use super::{error, page};
use crate::Ctx;
use isolarium_model::Arn;
use isolarium_model::iam::{Group, Role, User};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;

/// Managed policies that one user, group or role may have (IAM-25).
pub(super) const MOST: usize = 10;

fn attach<E: Entity>(ctx: &Ctx<'_>, name: &str, arn: &str) -> Result<(), ApiError> {
    let key = E::place(&ctx.caller.scope.account, name);
    let missing = || entity::missing::<E>(name);
    change_with(ctx, &key, missing, |entity: &mut E, batch| {
        let (arn, batch) = hold(ctx, arn, Use::Permissions, batch)?;
        entity.policies_mut().managed.insert(arn);
        error::quota(
            &format!("PoliciesPer{}", E::NOUN),
            MOST,
            entity.policies().managed.len(),
        )?;
        Ok(batch)
    })?;
    Ok(())
}

fn detach<E: Entity>(ctx: &Ctx<'_>, name: &str, arn: &str) -> Result<(), ApiError> {
    entity::change(ctx, name, |entity: &mut E| {
        let managed = &mut entity.policies_mut().managed;
        let found = arn.parse().is_ok_and(|arn: Arn| managed.remove(&arn));
        let missing = || error::no_such(format!("Policy {arn} was not found."));
        found.then_some(()).ok_or_else(missing)
    })?;
    Ok(())
}

/// Name and path of a managed policy's ARN: `/team/` and `Read`.
fn parts(arn: &Arn) -> (&str, &str) {
    let rest = arn.resource().strip_prefix("policy").unwrap_or_default();
    rest.rfind('/').map_or((rest, ""), |at| rest.split_at(at + 1))
}

/// As answers name attached policies.
pub(super) fn shape(arn: &Arn) -> shapes::AttachedPolicy {
    shapes::AttachedPolicy {
        policy_name: Some(parts(arn).1.into()),
        policy_arn: Some(arn.to_string()),
    }
}

fn list<E: Entity>(
    entity: &E,
    prefix: Option<&str>,
    marker: Option<&str>,
    max_items: Option<i64>,
) -> page::Page<shapes::AttachedPolicy> {
    let within = |arn: &&Arn| prefix.is_none_or(|prefix| parts(arn).0.starts_with(prefix));
    let managed = entity.policies().managed.iter().filter(within);
    // A customer's policy and one of AWS's may have the same name; an ARN can be longer than a marker.
    let keyed = managed.map(|arn| {
        let owner = arn.account().map(|account| account.to_string()).unwrap_or_default();
        (format!("{}/{owner}", parts(arn).1), shape(arn))
    });
    page::keyed(keyed, marker, max_items)
}

macro_rules! attached_policies {
    (
        $entity:ty, $noun:literal, $name:ident, $attach:ident -> $attached:ident, $detach:ident -> $detached:ident,
        $list:ident -> $listed:ident
    ) => {
        operation!(
            concat!("Attach", $noun, "Policy"), $attach -> $attached,
            asks |this, ctx| {
                let about = About::named::<$entity>(ctx, &this.$name);
                let question = about.asks_bounded(concat!("iam:Attach", $noun, "Policy"));
                vec![question.with("iam:PolicyARN", this.policy_arn.clone())]
            },
            does |request, ctx| {
                attach::<$entity>(ctx, &request.$name, &request.policy_arn)?;
                Ok(shapes::$attached {})
            },
        );

        operation!(
            concat!("Detach", $noun, "Policy"), $detach -> $detached,
            asks |this, ctx| {
                let about = About::named::<$entity>(ctx, &this.$name);
                let question = about.asks_bounded(concat!("iam:Detach", $noun, "Policy"));
                vec![question.with("iam:PolicyARN", this.policy_arn.clone())]
            },
            does |request, ctx| {
                detach::<$entity>(ctx, &request.$name, &request.policy_arn)?;
                Ok(shapes::$detached {})
            },
        );

        operation!(
            concat!("ListAttached", $noun, "Policies"), $list -> $listed,
            asks |this, ctx| {
                let about = About::named::<$entity>(ctx, &this.$name);
                vec![about.asks(concat!("iam:ListAttached", $noun, "Policies"))]
            },
            does |request, ctx| {
                let entity = entity::load::<$entity>(ctx, &request.$name)?;
                let (prefix, marker) = (request.path_prefix.as_deref(), request.marker.as_deref());
                let page = list(&entity, prefix, marker, request.max_items);
                Ok(shapes::$listed {
                    is_truncated: page.truncated(),
                    attached_policies: Some(page.items),
                    marker: page.marker,
                })
            },
        );
    };
}

attached_policies!(
    User, "User", user_name,
    AttachUserPolicyRequest -> AttachUserPolicyOutput,
    DetachUserPolicyRequest -> DetachUserPolicyOutput,
    ListAttachedUserPoliciesRequest -> ListAttachedUserPoliciesResponse
);
attached_policies!(
    Group, "Group", group_name,
    AttachGroupPolicyRequest -> AttachGroupPolicyOutput,
    DetachGroupPolicyRequest -> DetachGroupPolicyOutput,
    ListAttachedGroupPoliciesRequest -> ListAttachedGroupPoliciesResponse
);
attached_policies!(
    Role, "Role", role_name,
    AttachRolePolicyRequest -> AttachRolePolicyOutput,
    DetachRolePolicyRequest -> DetachRolePolicyOutput,
    ListAttachedRolePoliciesRequest -> ListAttachedRolePoliciesResponse
);
