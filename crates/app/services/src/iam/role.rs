//! Roles.

use super::change::{change, read, unique_id};
use super::{error, page};
use crate::{Ctx, Operation};
use isolarium_model::iam::{Attachments, Role, global};
use isolarium_model::{Arn, Timestamp};
use isolarium_policy::{DocumentKind, Granted, Question};
use isolarium_store::state::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use isolarium_wire::sigv4::uri_encode;
use std::collections::BTreeMap;

/// Longest trust policy, in characters without white space.
const LONGEST_TRUST: usize = 2_048;
/// Tags per entity.
const MOST_TAGS: usize = 50;

/// The ARN of a role for a question: with its path where it exists.
pub(super) fn arn_of(ctx: &Ctx<'_>, name: &str) -> Arn {
    let account = &ctx.caller.scope.account;
    let found = ctx.store.get::<Role>(&Role::key(account, name)).ok().flatten();
    found.map_or_else(
        || Arn::iam(account, &format!("role/{name}")),
        |stored| stored.record.arn(),
    )
}

pub(super) fn load(ctx: &Ctx<'_>, name: &str) -> Result<Role, ApiError> {
    let key = Role::key(&ctx.caller.scope.account, name);
    read::<Role>(ctx, &key, || error::no_such_role(name)).map(|stored| stored.record)
}

fn shape(role: &Role, with_tags: bool) -> shapes::Role {
    shapes::Role {
        path: role.path.clone(),
        role_name: role.name.clone(),
        role_id: role.id.clone(),
        arn: role.arn().to_string(),
        create_date: role.created.0,
        assume_role_policy_document: Some(uri_encode(&role.trust)),
        description: role.description.clone(),
        max_session_duration: Some(i64::from(role.max_session)),
        tags: with_tags.then(|| tag_shapes(&role.attachments)).flatten(),
        ..Default::default()
    }
}

/// Absent where there are none.
pub(super) fn tag_shapes(attachments: &Attachments) -> Option<Vec<shapes::Tag>> {
    let tag = |(key, value): (&String, &String)| shapes::Tag {
        key: key.clone(),
        value: value.clone(),
    };
    let tags: Vec<_> = attachments.tags.iter().map(tag).collect();
    (!tags.is_empty()).then_some(tags)
}

/// Tags of a request: each key once, at most fifty.
pub(super) fn read_tags(tags: Option<Vec<shapes::Tag>>) -> Result<BTreeMap<String, String>, ApiError> {
    let mut found = BTreeMap::new();
    for tag in tags.unwrap_or_default() {
        if found.insert(tag.key, tag.value).is_some() {
            let text = "Duplicate tag keys found. Please note that Tag keys are case insensitive.";
            return Err(ApiError::client("InvalidInput", text));
        }
    }
    if found.len() > MOST_TAGS {
        return Err(error::limit_exceeded(format!(
            "The number of tags has reached the maximum limit: {MOST_TAGS}."
        )));
    }
    Ok(found)
}

/// Questions of creating an entity, which with tags is also tagging it.
pub(super) fn create_questions(kind: &str, arn: &Arn, tags: Option<&Vec<shapes::Tag>>) -> Vec<Question> {
    let tagged = |question: Question| {
        let given = tags.into_iter().flatten();
        question.with_request_tags(given.map(|tag| (&tag.key, &tag.value)))
    };
    let mut questions = vec![tagged(Question::on(&format!("iam:Create{kind}"), arn))];
    if tags.is_some_and(|tags| !tags.is_empty()) {
        questions.push(tagged(Question::on(&format!("iam:Tag{kind}"), arn)));
    }
    questions
}

/// A boundary names a managed policy, and there are none yet.
pub(super) fn no_boundary(boundary: Option<&String>) -> Result<(), ApiError> {
    match boundary {
        Some(arn) => Err(error::no_such(format!(
            "Scope ARN: {arn} does not exist or is not attachable."
        ))),
        None => Ok(()),
    }
}

/// The trust policy is readable and not too long.
fn check_trust(text: &str) -> Result<(), ApiError> {
    error::readable(text, DocumentKind::Trust)?;
    if error::counted_length(text) > LONGEST_TRUST {
        return Err(error::limit_exceeded(format!(
            "Cannot exceed quota for ACLSizePerRole: {LONGEST_TRUST}"
        )));
    }
    Ok(())
}

impl Operation for shapes::CreateRoleRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "CreateRole";
    type Output = shapes::CreateRoleResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let path = self.path.as_deref().unwrap_or("/");
        let arn = Arn::iam(&ctx.caller.scope.account, &format!("role{path}{}", self.role_name));
        create_questions("Role", &arn, self.tags.as_ref())
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        check_trust(&request.assume_role_policy_document)?;
        no_boundary(request.permissions_boundary.as_ref())?;
        let account = &ctx.caller.scope.account;
        let role = Role {
            account: account.clone(),
            path: request.path.unwrap_or_else(|| "/".into()),
            id: unique_id(ctx.ids, "AROA", 17),
            created: whole_seconds(ctx.clock.now()),
            trust: request.assume_role_policy_document,
            description: request.description,
            max_session: request
                .max_session_duration
                .and_then(|s| u32::try_from(s).ok())
                .unwrap_or(3_600),
            attachments: Attachments {
                tags: read_tags(request.tags)?,
                ..Default::default()
            },
            name: request.role_name,
        };
        let batch = Batch::default().put(&Role::key(account, &role.name), Expect::Absent, &role);
        match ctx.store.commit(batch.map_err(error::store)?) {
            Ok(_) => Ok(shapes::CreateRoleResponse {
                role: shape(&role, true),
            }),
            Err(StoreError::Conflict { .. }) => Err(error::already_exists("Role", &role.name)),
            Err(other) => Err(error::store(other)),
        }
    }
}

/// IAM's dates have whole seconds.
pub(super) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp(at.0 - at.0.rem_euclid(1_000))
}

impl Operation for shapes::GetRoleRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "GetRole";
    type Output = shapes::GetRoleResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:GetRole", &arn_of(ctx, &self.role_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let role = load(ctx, &request.get().role_name)?;
        Ok(shapes::GetRoleResponse {
            role: shape(&role, true),
        })
    }
}

impl Operation for shapes::ListRolesRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "ListRoles";
    type Output = shapes::ListRolesResponse;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("iam:ListRoles")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let prefix = request.path_prefix.unwrap_or_else(|| "/".into());
        let scope = global(&ctx.caller.scope.account);
        let within = |role: &Role| role.path.starts_with(&prefix);
        let page = page::records(ctx, &scope, request.marker, request.max_items, within)?;
        Ok(shapes::ListRolesResponse {
            is_truncated: page.truncated(),
            roles: page.items.iter().map(|role| shape(role, false)).collect(),
            marker: page.marker,
        })
    }
}

impl Operation for shapes::DeleteRoleRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "DeleteRole";
    type Output = shapes::DeleteRoleOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:DeleteRole", &arn_of(ctx, &self.role_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().role_name;
        let key = Role::key(&ctx.caller.scope.account, name);
        let found = read::<Role>(ctx, &key, || error::no_such_role(name))?;
        if !found.record.attachments.policies.is_empty() {
            return Err(error::delete_conflict("policies"));
        }
        let batch = Batch::default().delete::<Role>(&key, Expect::At(found.revision));
        ctx.store.commit(batch).map_err(error::store)?;
        Ok(shapes::DeleteRoleOutput {})
    }
}

impl Operation for shapes::UpdateAssumeRolePolicyRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "UpdateAssumeRolePolicy";
    type Output = shapes::UpdateAssumeRolePolicyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on(
            "iam:UpdateAssumeRolePolicy",
            &arn_of(ctx, &self.role_name),
        )]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        check_trust(&request.policy_document)?;
        let key = Role::key(&ctx.caller.scope.account, &request.role_name);
        change(
            ctx,
            &key,
            || error::no_such_role(&request.role_name),
            |role: &mut Role| {
                role.trust.clone_from(&request.policy_document);
                Ok(())
            },
        )?;
        Ok(shapes::UpdateAssumeRolePolicyOutput {})
    }
}
