//! Reading, changing and making IAM's records.

use super::error;
use crate::Ctx;
use isolarium_model::time::IdSource;
use isolarium_model::{Key, Record};
use isolarium_store::state::{Batch, Expect, StoreError, Stored};
use isolarium_wire::ApiError;

/// How often a change is tried again when another caller was faster.
const TRIES: usize = 8;

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
    for _ in 0..TRIES {
        let mut found = read::<R>(ctx, key, &missing)?;
        apply(&mut found.record)?;
        let batch = Batch::default()
            .put(key, Expect::At(found.revision), &found.record)
            .map_err(error::store)?;
        match ctx.store.commit(batch) {
            Ok(_) => return Ok(found.record),
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => return Err(error::store(other)),
        }
    }
    Err(error::concurrent())
}

/// An IAM id: a prefix such as `AROA`, then characters that cannot be guessed and are never used twice.
pub(super) fn unique_id(ids: &dyn IdSource, prefix: &str, characters: usize) -> String {
    format!("{prefix}{}", ids.hex(characters).to_ascii_uppercase())
}
