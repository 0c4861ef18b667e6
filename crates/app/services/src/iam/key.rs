//! Access keys.

use super::user::arn_of;
use super::{error, operator, page};
use crate::{Ctx, Operation};
use isolarium_model::iam::{AccessKey, Account, KeyOwner, User};
use isolarium_model::{Arn, Key, Principal};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::{Batch, Expect};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;

/// Whose keys a request is about: the named user, or the caller itself.
fn owner(ctx: &Ctx<'_>, user_name: Option<&String>) -> Result<KeyOwner, ApiError> {
    match (user_name, &ctx.caller.principal) {
        (Some(name), _) | (None, Principal::User { name, .. }) => Ok(KeyOwner::User { name: name.clone() }),
        (None, Principal::Root { .. }) => Ok(KeyOwner::Root),
        (None, _) => Err(error::invalid(
            "Must specify userName when calling with non-User credentials",
        )),
    }
}

fn question(ctx: &Ctx<'_>, action: &str, user_name: Option<&String>) -> Vec<Question> {
    let arn = match (user_name, &ctx.caller.principal) {
        (Some(name), _) => Some(arn_of(ctx, name)),
        (None, Principal::Root { account }) => Some(Arn::iam(account, "root")),
        (None, principal) => principal.principal_arn(),
    };
    vec![arn.map_or_else(|| Question::any(action), |arn| Question::on(action, &arn))]
}

/// The ids of the owner's keys, with the name that answers show.
fn ids_of(ctx: &Ctx<'_>, owner: &KeyOwner) -> Result<(String, Vec<String>), ApiError> {
    let account = &ctx.caller.scope.account;
    match owner {
        KeyOwner::Root => {
            let found = ctx.store.get::<Account>(&Account::key(account)).map_err(error::store)?;
            Ok((
                "root".into(),
                found.map(|stored| stored.record.access_keys).unwrap_or_default(),
            ))
        }
        KeyOwner::User { name } => {
            let user = super::user::load(ctx, name)?;
            Ok((user.name, user.access_keys))
        }
    }
}

fn status(key: &AccessKey) -> shapes::StatusType {
    if key.active {
        shapes::StatusType::Active
    } else {
        shapes::StatusType::Inactive
    }
}

impl Operation for shapes::CreateAccessKeyRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "CreateAccessKey";
    type Output = shapes::CreateAccessKeyResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        question(ctx, "iam:CreateAccessKey", self.user_name.as_ref())
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let owner = owner(ctx, request.get().user_name.as_ref())?;
        let (shown, _) = ids_of(ctx, &owner)?;
        let made = operator::create_key(ctx.store, ctx.clock, ctx.ids, &ctx.caller.scope.account, &owner);
        let key = made.map_err(|failure| match failure {
            operator::KeyError::NoOwner => error::no_such_user(&shown),
            operator::KeyError::TooMany(most) => {
                error::limit_exceeded(format!("Cannot exceed quota for AccessKeysPerUser: {most}"))
            }
            operator::KeyError::Store(failure) => error::store(failure),
        })?;
        Ok(shapes::CreateAccessKeyResponse::new(shapes::AccessKey {
            user_name: shown,
            access_key_id: key.id.clone(),
            secret_access_key: key.secret.expose().into(),
            create_date: Some(key.created.0),
            ..shapes::AccessKey::new(status(&key))
        }))
    }
}

impl Operation for shapes::ListAccessKeysRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "ListAccessKeys";
    type Output = shapes::ListAccessKeysResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        question(ctx, "iam:ListAccessKeys", self.user_name.as_ref())
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let (shown, mut ids) = ids_of(ctx, &owner(ctx, request.user_name.as_ref())?)?;
        ids.sort();
        let page = page::names(ids.iter(), request.marker.as_deref(), request.max_items);
        let mut found = Vec::new();
        for id in &page.items {
            if let Some(stored) = ctx.store.get::<AccessKey>(&AccessKey::key(id)).map_err(error::store)? {
                found.push(shapes::AccessKeyMetadata {
                    user_name: Some(shown.clone()),
                    access_key_id: Some(id.clone()),
                    status: Some(status(&stored.record)),
                    create_date: Some(stored.record.created.0),
                });
            }
        }
        Ok(shapes::ListAccessKeysResponse {
            is_truncated: page.truncated(),
            access_key_metadata: found,
            marker: page.marker,
        })
    }
}

impl Operation for shapes::DeleteAccessKeyRequest {
    const SERVICE: &'static str = "iam";
    const NAME: &'static str = "DeleteAccessKey";
    type Output = shapes::DeleteAccessKeyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        question(ctx, "iam:DeleteAccessKey", self.user_name.as_ref())
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let id = &request.access_key_id;
        let owner = owner(ctx, request.user_name.as_ref())?;
        let (_, ids) = ids_of(ctx, &owner)?;
        if !ids.contains(id) {
            return Err(error::no_such(format!("The Access Key with id {id} cannot be found.")));
        }
        let account = &ctx.caller.scope.account;
        let batch = Batch::default().delete::<AccessKey>(&AccessKey::key(id), Expect::Any);
        let batch = match &owner {
            KeyOwner::Root => {
                let place = Account::key(account);
                without(ctx, batch, &place, |account: &mut Account| {
                    account.access_keys.retain(|other| other != id)
                })?
            }
            KeyOwner::User { name } => {
                let place = User::key(account, name);
                without(ctx, batch, &place, |user: &mut User| {
                    user.access_keys.retain(|other| other != id)
                })?
            }
        };
        ctx.store.commit(batch).map_err(error::store)?;
        Ok(shapes::DeleteAccessKeyOutput {})
    }
}

/// Adds the owner without the key to the batch that deletes the key.
fn without<R: isolarium_model::Record>(
    ctx: &Ctx<'_>,
    batch: Batch,
    place: &Key,
    apply: impl Fn(&mut R),
) -> Result<Batch, ApiError> {
    let missing = || error::no_such("The owner of the access key cannot be found.");
    let mut found = super::change::read::<R>(ctx, place, missing)?;
    apply(&mut found.record);
    batch
        .put(place, Expect::At(found.revision), &found.record)
        .map_err(error::store)
}
