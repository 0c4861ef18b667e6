//! Users.

use super::change::{again, read};
use super::entity::{self, About};
use super::group::{moved, renamed};
use super::managed::{Use, hold};
use super::operation::operation;
use super::role::with_boundary;
use super::tags::create_questions;
use super::{boundary, error, operator, page, tags};
use crate::Ctx;
use isolarium_model::iam::{AccessKey, Account, KeyOwner, User, global};
use isolarium_model::{Arn, Principal};
use isolarium_policy::Question;
use isolarium_store::state::{Batch, Expect, StoreError};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;

pub(super) fn shape(user: &User, alone: bool) -> shapes::User {
    let detail = alone.then_some(&user.attachments);
    shapes::User {
        path: user.path.clone(),
        user_name: user.name.clone(),
        user_id: user.id.clone(),
        arn: user.arn().to_string(),
        create_date: user.created.0,
        // Lists leave these out.
        permissions_boundary: detail.and_then(|has| boundary::shape(has.boundary.as_ref())),
        tags: detail.and_then(|has| tags::shape(&has.tags)),
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

operation!(
    "CreateUser", CreateUserRequest -> CreateUserResponse,
    asks |this, ctx| {
        let path = this.path.as_deref().unwrap_or("/");
        let arn = Arn::iam(&ctx.caller.scope.account, &format!("user{path}{}", this.user_name));
        with_boundary(create_questions("User", &arn, this.tags.as_ref()), this.permissions_boundary.as_ref())
    },
    does |request, ctx| {
        let tags = tags::read(request.tags)?;
        entity::room_for::<User>(ctx)?;
        let account = &ctx.caller.scope.account;
        let path = request.path.as_deref().unwrap_or("/");
        let mut user = operator::new_user(ctx.clock, ctx.ids, account, path, &request.user_name);
        user.attachments.tags = tags;
        let mut batch = Batch::default();
        if let Some(arn) = &request.permissions_boundary {
            let (arn, holding) = hold(ctx, arn, Use::Boundary, batch)?;
            (user.attachments.boundary, batch) = (Some(arn), holding);
        }
        let batch = batch.put(&User::key(account, &user.name), Expect::Absent, &user);
        match ctx.store.commit(batch.map_err(error::store)?) {
            Ok(_) => Ok(shapes::CreateUserResponse { user: Some(shape(&user, true)) }),
            Err(StoreError::Conflict { .. }) => Err(error::already_exists("User", &request.user_name)),
            Err(other) => Err(error::store(other)),
        }
    },
);

operation!(
    "GetUser", GetUserRequest -> GetUserResponse,
    asks |this, ctx| {
        match (&this.user_name, ctx.caller.principal.principal_arn()) {
            (Some(name), _) => vec![About::named::<User>(ctx, name).asks("iam:GetUser")],
            (None, Some(own)) => vec![Question::on("iam:GetUser", &own)],
            (None, None) => vec![Question::any("iam:GetUser")],
        }
    },
    does |request, ctx| {
        let user = match (&request.user_name, &ctx.caller.principal) {
            (Some(name), _) | (None, Principal::User { name, .. }) => shape(&entity::load::<User>(ctx, name)?, true),
            (None, Principal::Root { .. }) => root_shape(ctx)?,
            (None, _) => return Err(error::invalid("Must specify userName when calling with non-User credentials")),
        };
        Ok(shapes::GetUserResponse { user })
    },
);

operation!(
    "ListUsers", ListUsersRequest -> ListUsersResponse,
    asks |_, _| vec![Question::any("iam:ListUsers")],
    does |request, ctx| {
        let prefix = request.path_prefix.unwrap_or_else(|| "/".into());
        let scope = global(&ctx.caller.scope.account);
        let within = |user: &User| user.path.starts_with(&prefix);
        let page = page::records(ctx, &scope, request.marker, request.max_items, within)?;
        Ok(shapes::ListUsersResponse {
            is_truncated: page.truncated(),
            users: page.items.iter().map(|user| shape(user, false)).collect(),
            marker: page.marker,
        })
    },
);

operation!(
    "UpdateUser", UpdateUserRequest -> UpdateUserOutput,
    asks |this, ctx| {
        let mut questions = vec![About::named::<User>(ctx, &this.user_name).asks("iam:UpdateUser")];
        questions.extend(renamed::<User>(ctx, "iam:UpdateUser", this.new_user_name.as_deref()));
        questions
    },
    does |request, ctx| {
        let old = User::key(&ctx.caller.scope.account, &request.user_name);
        again(ctx, || {
            let found = read::<User>(ctx, &old, || entity::missing::<User>(&request.user_name))?;
            let mut user = found.record;
            if let Some(path) = &request.new_path {
                user.path.clone_from(path);
            }
            if let Some(name) = &request.new_user_name {
                user.name.clone_from(name);
            }
            let new = User::key(&user.account, &user.name);
            let mut batch = moved(ctx, &old, &new, found.revision, &user)?;
            // Keys find their user by its name.
            for id in &user.access_keys {
                let place = AccessKey::key(id);
                let Some(mut key) = ctx.store.get::<AccessKey>(&place).map_err(error::store)? else { continue };
                key.record.owner = KeyOwner::User { name: user.name.clone() };
                batch = batch.put(&place, Expect::At(key.revision), &key.record).map_err(error::store)?;
            }
            Ok((batch, ()))
        })?;
        Ok(shapes::UpdateUserOutput {})
    },
);

operation!(
    "DeleteUser", DeleteUserRequest -> DeleteUserOutput,
    asks |this, ctx| vec![About::named::<User>(ctx, &this.user_name).asks("iam:DeleteUser")],
    does |request, ctx| {
        let key = User::key(&ctx.caller.scope.account, &request.user_name);
        again(ctx, || {
            let found = read::<User>(ctx, &key, || entity::missing::<User>(&request.user_name))?;
            if !found.record.access_keys.is_empty() {
                return Err(error::delete_conflict("delete access keys"));
            }
            entity::bare(&found.record)?;
            if !found.record.groups.is_empty() {
                return Err(error::delete_conflict("remove users from group"));
            }
            Ok((Batch::default().delete::<User>(&key, Expect::At(found.revision)), ()))
        })?;
        Ok(shapes::DeleteUserOutput {})
    },
);
