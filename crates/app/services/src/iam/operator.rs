//! What the operator does without an API caller: accounts, their root keys, first users (IAM-68). There are no default
//! secrets: every key is made here, from chance.

use super::change::unique_id;
use super::role::whole_seconds;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isolarium_model::iam::{AccessKey, Account, Attachments, KeyOwner, User};
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{AccountId, Secret};
use isolarium_store::StateStore;
use isolarium_store::state::{Batch, Expect, StoreError};
use std::collections::{BTreeMap, BTreeSet};

/// Access keys that a user or root may have.
pub(super) const MOST_KEYS: usize = 2;

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no such account or user")]
    NoOwner,
    #[error("the owner already has {0} access keys; delete one first")]
    TooMany(usize),
    #[error("the key cannot be kept")]
    Store(#[from] StoreError),
}

/// Makes an account unless it exists.
///
/// # Errors
/// When the store fails.
pub fn create_account(store: &dyn StateStore, clock: &dyn Clock, id: &AccountId) -> Result<Account, StoreError> {
    let key = Account::key(id);
    let account = Account {
        id: id.clone(),
        created: whole_seconds(clock.now()),
        access_keys: Vec::new(),
        alias: None,
    };
    match store.commit(Batch::default().put(&key, Expect::Absent, &account)?) {
        Ok(_) => Ok(account),
        Err(StoreError::Conflict { .. }) => Ok(store.get::<Account>(&key)?.map_or(account, |stored| stored.record)),
        Err(other) => Err(other),
    }
}

/// Makes a key of the account's root, and the account itself where it does not exist yet.
///
/// # Errors
/// [`KeyError::TooMany`], or the store's failure.
pub fn create_root_key(
    store: &dyn StateStore,
    clock: &dyn Clock,
    ids: &dyn IdSource,
    account: &AccountId,
) -> Result<AccessKey, KeyError> {
    create_account(store, clock, account)?;
    create_key(store, clock, ids, account, &KeyOwner::Root)
}

/// A user that is not kept yet. `path` begins and ends with `/`.
pub(super) fn new_user(clock: &dyn Clock, ids: &dyn IdSource, account: &AccountId, path: &str, name: &str) -> User {
    User {
        account: account.clone(),
        path: path.into(),
        name: name.into(),
        id: unique_id(ids, "AIDA", 17),
        created: whole_seconds(clock.now()),
        access_keys: Vec::new(),
        groups: BTreeSet::new(),
        attachments: Attachments::default(),
    }
}

/// Makes a user. `path` begins and ends with `/`.
///
/// # Errors
/// [`StoreError::Conflict`] when the name is taken.
pub fn create_user(
    store: &dyn StateStore,
    clock: &dyn Clock,
    ids: &dyn IdSource,
    account: &AccountId,
    path: &str,
    name: &str,
    tags: BTreeMap<String, String>,
) -> Result<User, StoreError> {
    let mut user = new_user(clock, ids, account, path, name);
    user.attachments.tags = tags;
    store.commit(Batch::default().put(&User::key(account, name), Expect::Absent, &user)?)?;
    Ok(user)
}

/// Makes an access key of a root or user. Key and owner change together.
///
/// # Errors
/// [`KeyError`].
pub fn create_key(
    store: &dyn StateStore,
    clock: &dyn Clock,
    ids: &dyn IdSource,
    account: &AccountId,
    owner: &KeyOwner,
) -> Result<AccessKey, KeyError> {
    let key = AccessKey {
        id: unique_id(ids, "AKIA", 16),
        secret: secret(ids),
        account: account.clone(),
        owner: owner.clone(),
        active: true,
        created: whole_seconds(clock.now()),
    };
    let add = |ids: &mut Vec<String>| {
        if ids.len() >= MOST_KEYS {
            return Err(KeyError::TooMany(MOST_KEYS));
        }
        ids.push(key.id.clone());
        Ok(())
    };
    let batch = Batch::default().put(&AccessKey::key(&key.id), Expect::Absent, &key)?;
    let batch = match owner {
        KeyOwner::Root => {
            let place = Account::key(account);
            let mut found = store.get::<Account>(&place)?.ok_or(KeyError::NoOwner)?;
            add(&mut found.record.access_keys)?;
            batch.put(&place, Expect::At(found.revision), &found.record)?
        }
        KeyOwner::User { name } => {
            let place = User::key(account, name);
            let mut found = store.get::<User>(&place)?.ok_or(KeyError::NoOwner)?;
            add(&mut found.record.access_keys)?;
            batch.put(&place, Expect::At(found.revision), &found.record)?
        }
    };
    store.commit(batch)?;
    Ok(key)
}

/// Forty characters of base64 from 30 bytes that cannot be guessed.
fn secret(ids: &dyn IdSource) -> Secret {
    let bytes = hex::decode(ids.hex(60)).unwrap_or_default();
    Secret::new(STANDARD.encode(bytes))
}
