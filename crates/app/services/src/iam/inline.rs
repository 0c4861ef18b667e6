//! Inline policies of users, groups and roles.

use super::entity::{self, About, Entity};
use super::operation::operation;
use super::{error, page};
use isolarium_model::iam::{Group, Role, User};
use isolarium_policy::DocumentKind;
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use isolarium_wire::sigv4::uri_encode;

/// Adds or replaces an inline policy within the entity's quota.
fn put<E: Entity>(entity: &mut E, name: &str, text: &str) -> Result<(), ApiError> {
    let inline = &entity.policies().inline;
    let others = inline.iter().filter(|(other, _)| *other != name);
    let total: usize = others.map(|(_, text)| error::counted_length(text)).sum();
    if total + error::counted_length(text) > E::LONGEST_INLINE {
        return Err(error::limit_exceeded(format!(
            "Maximum policy size of {} bytes exceeded for {} {}",
            E::LONGEST_INLINE,
            E::NOUN.to_ascii_lowercase(),
            entity.display_name(),
        )));
    }
    entity.policies_mut().inline.insert(name.into(), text.into());
    Ok(())
}

fn missing<E: Entity>(name: &str) -> ApiError {
    let noun = E::NOUN.to_ascii_lowercase();
    error::no_such(format!("The {noun} policy with name {name} cannot be found."))
}

macro_rules! inline_policies {
    (
        $entity:ty, $noun:literal, $name:ident,
        $put:ident -> $was_put:ident, $get:ident -> $got:ident, $delete:ident -> $deleted:ident,
        $list:ident -> $listed:ident, $list_name:literal
    ) => {
        operation!(
            concat!("Put", $noun, "Policy"), $put -> $was_put,
            asks |this, ctx| {
                vec![About::named::<$entity>(ctx, &this.$name).asks_bounded(concat!("iam:Put", $noun, "Policy"))]
            },
            does |request, ctx| {
                error::readable(&request.policy_document, DocumentKind::Identity)?;
                entity::change(ctx, &request.$name, |entity: &mut $entity| {
                    put(entity, &request.policy_name, &request.policy_document)
                })?;
                Ok(shapes::$was_put {})
            },
        );

        operation!(
            concat!("Get", $noun, "Policy"), $get -> $got,
            asks |this, ctx| vec![About::named::<$entity>(ctx, &this.$name).asks(concat!("iam:Get", $noun, "Policy"))],
            does |request, ctx| {
                let entity = entity::load::<$entity>(ctx, &request.$name)?;
                let text = entity.policies().inline.get(&request.policy_name);
                Ok(shapes::$got {
                    policy_document: uri_encode(text.ok_or_else(|| missing::<$entity>(&request.policy_name))?),
                    $name: entity.name,
                    policy_name: request.policy_name,
                })
            },
        );

        operation!(
            concat!("Delete", $noun, "Policy"), $delete -> $deleted,
            asks |this, ctx| {
                vec![About::named::<$entity>(ctx, &this.$name).asks_bounded(concat!("iam:Delete", $noun, "Policy"))]
            },
            does |request, ctx| {
                entity::change(ctx, &request.$name, |entity: &mut $entity| {
                    let gone = entity.policies_mut().inline.remove(&request.policy_name);
                    gone.map(drop).ok_or_else(|| missing::<$entity>(&request.policy_name))
                })?;
                Ok(shapes::$deleted {})
            },
        );

        operation!(
            $list_name, $list -> $listed,
            asks |this, ctx| vec![About::named::<$entity>(ctx, &this.$name).asks(concat!("iam:", $list_name))],
            does |request, ctx| {
                let entity = entity::load::<$entity>(ctx, &request.$name)?;
                let names = entity.policies().inline.keys().cloned();
                let page = page::names(names, request.marker.as_deref(), request.max_items);
                Ok(shapes::$listed {
                    is_truncated: page.truncated(),
                    policy_names: page.items,
                    marker: page.marker,
                })
            },
        );
    };
}

inline_policies!(
    User, "User", user_name,
    PutUserPolicyRequest -> PutUserPolicyOutput,
    GetUserPolicyRequest -> GetUserPolicyResponse,
    DeleteUserPolicyRequest -> DeleteUserPolicyOutput,
    ListUserPoliciesRequest -> ListUserPoliciesResponse, "ListUserPolicies"
);
inline_policies!(
    Group, "Group", group_name,
    PutGroupPolicyRequest -> PutGroupPolicyOutput,
    GetGroupPolicyRequest -> GetGroupPolicyResponse,
    DeleteGroupPolicyRequest -> DeleteGroupPolicyOutput,
    ListGroupPoliciesRequest -> ListGroupPoliciesResponse, "ListGroupPolicies"
);
inline_policies!(
    Role, "Role", role_name,
    PutRolePolicyRequest -> PutRolePolicyOutput,
    GetRolePolicyRequest -> GetRolePolicyResponse,
    DeleteRolePolicyRequest -> DeleteRolePolicyOutput,
    ListRolePoliciesRequest -> ListRolePoliciesResponse, "ListRolePolicies"
);
