//! Handlers of the `kms` service: symmetric keys, their aliases and policies, encryption under them.
//!
//! A key's policy must let a caller use the key; IAM's policies count where it names the account, as on AWS.

mod alias;
mod crypto;
mod cryptography;
pub mod housekeeping;
mod key;
mod policy;
mod tag;
pub mod through;

use crate::Ctx;
use crate::dispatch::{Handler, handler};
use isolarium_model::kms::{KmsAlias, KmsKey, KmsState};
use isolarium_model::{Arn, Scope};
use isolarium_policy::Question;
use isolarium_store::{Batch, Expect, Query, StateStore, StoreError, Stored};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::kms as shapes;

pub use cryptography::{Seals, seals};
pub use policy::{added, resource_side};

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::CancelKeyDeletionRequest>(),
        handler::<shapes::CreateAliasRequest>(),
        handler::<shapes::CreateKeyRequest>(),
        handler::<shapes::DecryptRequest>(),
        handler::<shapes::DeleteAliasRequest>(),
        handler::<shapes::DescribeKeyRequest>(),
        handler::<shapes::DisableKeyRequest>(),
        handler::<shapes::EnableKeyRequest>(),
        handler::<shapes::EncryptRequest>(),
        handler::<shapes::GenerateDataKeyRequest>(),
        handler::<shapes::GenerateDataKeyWithoutPlaintextRequest>(),
        handler::<shapes::GetKeyPolicyRequest>(),
        handler::<shapes::ListAliasesRequest>(),
        handler::<shapes::ListKeyPoliciesRequest>(),
        handler::<shapes::ListKeysRequest>(),
        handler::<shapes::ListResourceTagsRequest>(),
        handler::<shapes::PutKeyPolicyRequest>(),
        handler::<shapes::ScheduleKeyDeletionRequest>(),
        handler::<shapes::TagResourceRequest>(),
        handler::<shapes::UntagResourceRequest>(),
        handler::<shapes::UpdateAliasRequest>(),
    ]
}

fn stored(error: StoreError) -> ApiError {
    match error {
        StoreError::BadToken => ApiError::client("InvalidMarkerException", "The marker that was given is not valid."),
        other => ApiError::internal(other),
    }
}

/// The key that a request names, by id, ARN, alias or ARN of an alias.
struct Named {
    /// Where the key lives: another account's by ARN.
    scope: Scope,
    id: String,
    /// The alias that the request used.
    alias: Option<String>,
}

/// What a text names. `None` when it is an alias that there is not.
fn named(ctx: &Ctx<'_>, given: &str) -> Result<Option<Named>, ApiError> {
    named_in(ctx.store, &ctx.caller.scope, given)
}

/// What a text names for whoever belongs to `own`.
fn named_in(store: &dyn StateStore, own: &Scope, given: &str) -> Result<Option<Named>, ApiError> {
    let (scope, rest) = match given.parse::<Arn>() {
        Err(_) => (own.clone(), given.to_owned()),
        Ok(arn) => {
            let (Some(account), Some(region)) = (arn.account(), arn.region()) else {
                return Err(invalid_arn(given));
            };
            if arn.service() != "kms" || region != own.region {
                return Err(invalid_arn(given));
            }
            (Scope { account, region }, arn.resource().to_owned())
        }
    };
    if !rest.starts_with("alias/") {
        let id = rest.strip_prefix("key/").unwrap_or(&rest).to_owned();
        let alias = None;
        return Ok(Some(Named { scope, id, alias }));
    }
    let found = store.get::<KmsAlias>(&KmsAlias::key(&scope, &rest)).map_err(stored)?;
    Ok(found.map(|found| Named {
        scope,
        id: found.record.key_id,
        alias: Some(rest),
    }))
}

fn invalid_arn(given: &str) -> ApiError {
    ApiError::client("InvalidArnException", format!("Invalid arn {given}"))
}

/// Asks about the key that a request names, with what is known of it. What names no key is asked about as a key of that
/// name, and refused later.
fn ask(ctx: &Ctx<'_>, action: &str, given: &str) -> Question {
    let named = named(ctx, given).ok().flatten();
    let arn = match &named {
        Some(named) => KmsKey::arn(&named.scope, &named.id.replace(['/', ':'], "-")),
        None => KmsKey::arn(&ctx.caller.scope, &given.replace(['/', ':'], "-")),
    };
    let question = Question::on(action, &arn).with("kms:CallerAccount", caller_account(ctx));
    match named.and_then(|named| named.alias) {
        Some(alias) => question.with("kms:RequestAlias", alias),
        None => question,
    }
}

fn caller_account(ctx: &Ctx<'_>) -> String {
    ctx.caller.scope.account.to_string()
}

fn missing(ctx: &Ctx<'_>, given: &str) -> ApiError {
    missing_in(&ctx.caller.scope, given)
}

fn missing_in(scope: &Scope, given: &str) -> ApiError {
    let text = match given {
        alias if alias.starts_with("alias/") => format!("Alias {} is not found.", KmsAlias::arn(scope, alias)),
        arn if arn.starts_with("arn:") && arn.contains(":alias/") => format!("Alias {arn} is not found."),
        arn if arn.starts_with("arn:") => format!("Key '{arn}' does not exist"),
        id => format!("Key '{}' does not exist", KmsKey::arn(scope, id)),
    };
    ApiError::client("NotFoundException", text)
}

/// The key that a request names.
fn find(ctx: &Ctx<'_>, given: &str) -> Result<Stored<KmsKey>, ApiError> {
    let named = named(ctx, given)?.ok_or_else(|| missing(ctx, given))?;
    let found = ctx
        .store
        .get::<KmsKey>(&KmsKey::key(&named.scope, &named.id))
        .map_err(stored)?;
    let now = ctx.clock.now();
    found
        .filter(|found| !found.record.is_gone(now))
        .ok_or_else(|| missing(ctx, given))
}

/// Whether a request names something of the caller's own account. Nobody was asked about another account's keys where this
/// matters: whether they exist must not show.
fn is_own(ctx: &Ctx<'_>, given: &str) -> bool {
    let account = given.parse::<Arn>().map(|arn| arn.account());
    account.is_ok_and(|account| account.as_ref() == Some(&ctx.caller.scope.account)) || !given.starts_with("arn:")
}

/// A key that may encrypt and decrypt now.
fn usable(ctx: &Ctx<'_>, given: &str) -> Result<KmsKey, ApiError> {
    enabled(find(ctx, given)?.record)
}

fn enabled(key: KmsKey) -> Result<KmsKey, ApiError> {
    match key.state {
        KmsState::Enabled => Ok(key),
        KmsState::Disabled => Err(ApiError::client(
            "DisabledException",
            format!("{} is disabled.", key.arn),
        )),
        KmsState::PendingDeletion { .. } => Err(pending(&key)),
    }
}

fn pending(key: &KmsKey) -> ApiError {
    ApiError::client("KMSInvalidStateException", format!("{} is pending deletion.", key.arn))
}

/// Changes a key until the write meets what it read.
fn update(
    ctx: &Ctx<'_>,
    given: &str,
    mut change: impl FnMut(&mut KmsKey) -> Result<(), ApiError>,
) -> Result<KmsKey, ApiError> {
    loop {
        let mut found = find(ctx, given)?;
        change(&mut found.record)?;
        let batch = Batch::default()
            .put(&found.key, Expect::At(found.revision), &found.record)
            .map_err(stored)?;
        match ctx.store.commit(batch) {
            Ok(_) => return Ok(found.record),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(stored(error)),
        }
    }
}

/// Aliases of one key.
fn aliases_of(store: &dyn StateStore, scope: &Scope, id: &str) -> Result<Vec<KmsAlias>, StoreError> {
    let page = store.query::<KmsAlias>(&Query::all(scope))?;
    let all = page.rows.into_iter().map(|row| row.record);
    Ok(all.filter(|alias| alias.key_id == id).collect())
}

#[cfg(test)]
mod tests;
