//! Users.

use super::change::read;
use super::role::{create_questions, no_boundary, read_tags, tag_shapes};
use super::{error, operator, page};
use crate::{Ctx, Operation};
use isolarium_model::iam::{Account, User, global};
use isolarium_model::{Arn, Principal};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;

/// The ARN of a user for a question: with its path where it exists.
pub(super) fn arn_of(ctx: &Ctx<'_>, name: &str) -> Arn {
    let account = &ctx.caller.scope.account;
    let found = ctx.store.get::<User>(&User::key(account, name)).ok().flatten();
    found.map_or_else(
        || Arn::iam(account, &format!("user/{name}")),
        |stored| stored.record.arn(),
    )
}

pub(super) fn load(ctx: &Ctx<'_>, name: &str) -> Result<User, ApiError> {
    let key = User::key(&ctx.caller.scope.account, name);
    read::<User>(ctx, &key, || error::no_such_user(name)).map(|stored| stored.record)
}

fn shape(user: &User, with_tags: bool) -> shapes::User {
    shapes::User {
        path: user.path.clone(),
        user_name: user.name.clone(),
        user_id: user.id.clone(),
        arn: user.arn().to_string(),
        create_date: user.created.0,
        tags: with_tags.then(|| tag_shapes(&user.attachments)).flatten(),
        ..Default::default()
    }
}

/// The account's root where a user is asked for.
fn root_shape(ctx: &Ctx<'_>) -> Result<shapes::User, ApiError> {
    let account = &ctx.caller.scope.account;
    let found = ctx.store.get::<Account>(&Account::key(account)).map_err(error::store)?;
    Ok(shapes::User {
        path: "/".into(),
        user_name: "root".into(),
        user_id: account.to_string(),
        arn: Arn::iam(account, "root").to_string(),
        create_date: found.map_or(0, |stored| stored.record.created.0),
        ..Default::default()
    })
}

impl Operation for shapes::CreateUserRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "CreateUser";
    type Output = shapes::CreateUserResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let path = self.path.as_deref().unwrap_or("/");
        let arn = Arn::iam(&ctx.caller.scope.account, &format!("user{path}{}", self.user_name));
        create_questions("User", &arn, self.tags.as_ref())
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        no_boundary(request.permissions_boundary.as_ref())?;
        let tags = read_tags(request.tags)?;
        let account = &ctx.caller.scope.account;
        let path = request.path.as_deref().unwrap_or("/");
        match operator::create_user(ctx.store, ctx.clock, ctx.ids, account, path, &request.user_name, tags) {
            Ok(user) => Ok(shapes::CreateUserResponse {
                user: Some(shape(&user, true)),
            }),
            Err(StoreError::Conflict { .. }) => Err(error::already_exists("User", &request.user_name)),
            Err(other) => Err(error::store(other)),
        }
    }
}

impl Operation for shapes::GetUserRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "GetUser";
    type Output = shapes::GetUserResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let own = match (&self.user_name, &ctx.caller.principal) {
            (Some(name), _) => Some(arn_of(ctx, name)),
            (None, principal) => principal.principal_arn(),
        };
        vec![own.map_or_else(|| Question::any("iam:GetUser"), |arn| Question::on("iam:GetUser", &arn))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let user = match (&request.get().user_name, &ctx.caller.principal) {
            (Some(name), _) | (None, Principal::User { name, .. }) => shape(&load(ctx, name)?, true),
            (None, Principal::Root { .. }) => root_shape(ctx)?,
            (None, _) => {
                return Err(error::invalid(
                    "Must specify userName when calling with non-User credentials",
                ));
            }
        };
        Ok(shapes::GetUserResponse { user })
    }
}

impl Operation for shapes::ListUsersRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "ListUsers";
    type Output = shapes::ListUsersResponse;

    fn questions(&self, _: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("iam:ListUsers")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let prefix = request.path_prefix.unwrap_or_else(|| "/".into());
        let scope = global(&ctx.caller.scope.account);
        let within = |user: &User| user.path.starts_with(&prefix);
        let page = page::records(ctx, &scope, request.marker, request.max_items, within)?;
        Ok(shapes::ListUsersResponse {
            is_truncated: page.truncated(),
            users: page.items.iter().map(|user| shape(user, false)).collect(),
            marker: page.marker,
        })
    }
}

impl Operation for shapes::DeleteUserRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "DeleteUser";
    type Output = shapes::DeleteUserOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::on("iam:DeleteUser", &arn_of(ctx, &self.user_name))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let name = &request.get().user_name;
        let key = User::key(&ctx.caller.scope.account, name);
        let found = read::<User>(ctx, &key, || error::no_such_user(name))?;
        if !found.record.access_keys.is_empty() {
            return Err(error::delete_conflict("access keys"));
        }
        if !found.record.attachments.policies.is_empty() {
            return Err(error::delete_conflict("policies"));
        }
        let batch = Batch::default().delete::<User>(&key, Expect::At(found.revision));
        ctx.store.commit(batch).map_err(error::store)?;
        Ok(shapes::DeleteUserOutput {})
    }
}
