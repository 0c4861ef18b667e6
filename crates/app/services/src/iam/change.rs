//! Reading, changing and making IAM's records.

use super::error;
use crate::Ctx;
use isolarium_model::iam::global;
use isolarium_model::time::IdSource;
use isolarium_model::{Key, Record};
use isolarium_store::state::{Batch, Expect, Query, StoreError, Stored};
use isolarium_wire::ApiError;

/// How often a change is tried again when another caller was faster. One of them succeeds in every round, so this many
/// callers may change the same entity at once.
const TRIES: usize = 32;

/// A record, or the error of a missing one.
pub(super) fn read<R: Record>(ctx: &Ctx<'_>, key: &Key, missing: impl Fn() -> ApiError) -> Result<Stored<R>, ApiError> {
    ctx.store.get::<R>(key).map_err(error::store)?.ok_or_else(missing)
}

/// Reads a record, changes it and writes it back, from the start again when another caller wrote in between.
pub(super) fn change<R: Record>(
    ctx: &Ctx<'_>,
    key: &Key,
    missing: impl Fn() -> ApiError,
    apply: impl Fn(&mut R) -> Result<(), ApiError>,
) -> Result<R, ApiError> {
    change_with(ctx, key, missing, |record, batch| apply(record).map(|()| batch))
}

/// The same, with other changes that `apply` adds to the batch: all commit together.
pub(super) fn change_with<R: Record>(
    ctx: &Ctx<'_>,
    key: &Key,
    missing: impl Fn() -> ApiError,
    apply: impl Fn(&mut R, Batch) -> Result<Batch, ApiError>,
) -> Result<R, ApiError> {
    again(ctx, || {
        let mut found = read::<R>(ctx, key, &missing)?;
        let batch = apply(&mut found.record, Batch::default())?;
        let batch = batch
            .put(key, Expect::At(found.revision), &found.record)
            .map_err(error::store)?;
        Ok((batch, found.record))
    })
}

/// Commits what `prepare` reads and makes, from the start again when another caller wrote in between.
pub(super) fn again<T>(ctx: &Ctx<'_>, prepare: impl Fn() -> Result<(Batch, T), ApiError>) -> Result<T, ApiError> {
    for _ in 0..TRIES {
        let (batch, made) = prepare()?;
        match ctx.store.commit(batch) {
            Ok(_) => return Ok(made),
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => return Err(error::store(other)),
        }
    }
    Err(error::concurrent())
}

/// Every record of a kind in the caller's account.
pub(super) fn every<R: Record>(ctx: &Ctx<'_>) -> Result<Vec<R>, ApiError> {
    let scope = global(&ctx.caller.scope.account);
    let found = ctx.store.query::<R>(&Query::all(&scope)).map_err(error::store)?;
    Ok(found.rows.into_iter().map(|stored| stored.record).collect())
}

/// How many records of a kind the caller's account has; counts no further than `most`.
pub(super) fn count<R: Record>(ctx: &Ctx<'_>, most: usize) -> Result<usize, ApiError> {
    let query = Query {
        limit: most,
        ..Query::all(&global(&ctx.caller.scope.account))
    };
    let found = ctx.store.query_raw(R::KIND, &query).map_err(error::store)?;
    Ok(found.rows.len())
}

/// An IAM id: a prefix such as `AROA`, then characters that cannot be guessed and are never used twice.
pub(super) fn unique_id(ids: &dyn IdSource, prefix: &str, characters: usize) -> String {
    format!("{prefix}{}", ids.hex(characters).to_ascii_uppercase())
}
