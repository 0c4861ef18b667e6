//! Access keys.

use super::change::again;
use super::entity::{self, About};
use super::operation::operation;
use super::{error, operator, page};
use crate::Ctx;
use isolarium_model::iam::{AccessKey, Account, KeyOwner, User};
use isolarium_model::{Key, Principal};
use isolarium_policy::Question;
use isolarium_store::state::{Batch, Expect, Stored};
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

fn asks(ctx: &Ctx<'_>, action: &str, user_name: Option<&String>) -> Vec<Question> {
    let question = match (user_name, ctx.caller.principal.principal_arn()) {
        (Some(name), _) => About::named::<User>(ctx, name).asks(action),
        (None, Some(own)) => Question::on(action, &own),
        (None, None) => Question::any(action),
    };
    vec![question]
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
            let user = entity::load::<User>(ctx, name)?;
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

/// One of the owner's keys; another's is as unknown as one that does not exist.
fn owned(ctx: &Ctx<'_>, owner: &KeyOwner, id: &str) -> Result<Stored<AccessKey>, ApiError> {
    let (_, ids) = ids_of(ctx, owner)?;
    let found = ids
        .iter()
        .any(|own| own == id)
        .then(|| ctx.store.get::<AccessKey>(&AccessKey::key(id)));
    let found = found.transpose().map_err(error::store)?.flatten();
    found.ok_or_else(|| error::no_such(format!("The Access Key with id {id} cannot be found.")))
}

operation!(
    "CreateAccessKey", CreateAccessKeyRequest -> CreateAccessKeyResponse,
    asks |this, ctx| asks(ctx, "iam:CreateAccessKey", this.user_name.as_ref()),
    does |request, ctx| {
        let owner = owner(ctx, request.user_name.as_ref())?;
        let (shown, _) = ids_of(ctx, &owner)?;
        let made = operator::create_key(ctx.store, ctx.clock, ctx.ids, &ctx.caller.scope.account, &owner);
        let key = made.map_err(|failure| match failure {
            operator::KeyError::NoOwner => entity::missing::<User>(&shown),
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
    },
);

operation!(
    "ListAccessKeys", ListAccessKeysRequest -> ListAccessKeysResponse,
    asks |this, ctx| asks(ctx, "iam:ListAccessKeys", this.user_name.as_ref()),
    does |request, ctx| {
        let (shown, ids) = ids_of(ctx, &owner(ctx, request.user_name.as_ref())?)?;
        let page = page::names(ids, request.marker.as_deref(), request.max_items);
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
    },
);

operation!(
    "UpdateAccessKey", UpdateAccessKeyRequest -> UpdateAccessKeyOutput,
    asks |this, ctx| asks(ctx, "iam:UpdateAccessKey", this.user_name.as_ref()),
    does |request, ctx| {
        let owner = owner(ctx, request.user_name.as_ref())?;
        again(ctx, || {
            let mut key = owned(ctx, &owner, &request.access_key_id)?;
            key.record.active = request.status == shapes::StatusType::Active;
            let batch = Batch::default().put(&key.key, Expect::At(key.revision), &key.record);
            Ok((batch.map_err(error::store)?, ()))
        })?;
        Ok(shapes::UpdateAccessKeyOutput {})
    },
);

operation!(
    "DeleteAccessKey", DeleteAccessKeyRequest -> DeleteAccessKeyOutput,
    asks |this, ctx| asks(ctx, "iam:DeleteAccessKey", this.user_name.as_ref()),
    does |request, ctx| {
        let id = &request.access_key_id;
        let owner = owner(ctx, request.user_name.as_ref())?;
        let account = &ctx.caller.scope.account;
        again(ctx, || {
            let key = owned(ctx, &owner, id)?;
            let batch = Batch::default().delete::<AccessKey>(&key.key, Expect::At(key.revision));
            let batch = match &owner {
                KeyOwner::Root => without(ctx, batch, &Account::key(account), |account: &mut Account| {
                    account.access_keys.retain(|other| other != id);
                })?,
                KeyOwner::User { name } => without(ctx, batch, &User::key(account, name), |user: &mut User| {
                    user.access_keys.retain(|other| other != id);
                })?,
            };
            Ok((batch, ()))
        })?;
        Ok(shapes::DeleteAccessKeyOutput {})
    },
);

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
