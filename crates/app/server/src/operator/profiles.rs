//! `DIR/credentials`: the root keys of all accounts as profiles of an AWS shared-credentials file (IAM-68).

use crate::layout::{DEFAULT_PROFILE, profile_text};
use isolarium_model::AccountId;
use isolarium_model::iam::{AccessKey, Account};
use isolarium_store::{StateStore, StoreError};

/// The file's text: the profile `default` for the account `home`, and for every other account one named by its id. Each
/// has the root's oldest key; an account whose root has none is left out.
///
/// # Errors
/// When the records cannot be read.
pub fn text(store: &dyn StateStore, home: &AccountId) -> Result<String, StoreError> {
    let mut accounts: Vec<Account> = store
        .all::<Account>()?
        .into_iter()
        .map(|stored| stored.record)
        .collect();
    accounts.sort_by_key(|account| (account.id != *home, account.id.clone()));
    let mut text = String::new();
    for account in accounts {
        let Some(key) = oldest_key(store, &account)? else {
            continue;
        };
        let profile = if account.id == *home {
            DEFAULT_PROFILE
        } else {
            account.id.as_str()
        };
        text.push_str(&profile_text(profile, &key.id, key.secret.expose()));
    }
    Ok(text)
}

/// The oldest key of an account's root, if it has one.
fn oldest_key(store: &dyn StateStore, account: &Account) -> Result<Option<AccessKey>, StoreError> {
    let Some(id) = account.access_keys.first() else {
        return Ok(None);
    };
    Ok(store.get::<AccessKey>(&AccessKey::key(id))?.map(|stored| stored.record))
}

/// Whether the account's root has a key.
///
/// # Errors
/// When the records cannot be read.
pub fn has_root_key(store: &dyn StateStore, account: &AccountId) -> Result<bool, StoreError> {
    Ok(match store.get::<Account>(&Account::key(account))? {
        Some(stored) => oldest_key(store, &stored.record)?.is_some(),
        None => false,
    })
}
