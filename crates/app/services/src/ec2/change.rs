//! Writing records so that concurrent writers cannot contradict each other.

use super::error;
use super::noun::referred;
use crate::Ctx;
use isolarium_model::ec2::id::VpcId;
use isolarium_model::ec2::{Resource, Vpc};
use isolarium_model::{Key, Record};
use isolarium_store::state::{Batch, Expect, StoreError, Stored};
use isolarium_wire::ApiError;

/// How often a change is tried again when another writer was faster. One of them succeeds in every round.
const TRIES: usize = 64;

/// What was made of a request, with the batch that writes it.
pub(super) type Made<T> = Result<(Batch, T), ApiError>;

/// Commits what `prepare` reads and makes; from the start again when another writer changed something it read and names
/// in its batch.
pub(super) fn again<T>(ctx: &Ctx<'_>, prepare: impl Fn() -> Made<T>) -> Result<T, ApiError> {
    for _ in 0..TRIES {
        let (batch, made) = prepare()?;
        match ctx.store.commit(batch) {
            Ok(_) => return Ok(made),
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => return Err(error::stored(other)),
        }
    }
    Err(error::busy())
}

/// As [`again`], for whatever creates or deletes a part of a VPC, or changes which part refers to which: `prepare` reads
/// the parts after the VPC was read, and the VPC's generation grows in the same batch (vpc-generation). So nothing that
/// `prepare` read of the VPC has changed when the batch commits. `prepare` may change the VPC too.
pub(super) fn in_vpc<T>(
    ctx: &Ctx<'_>,
    vpc: VpcId,
    prepare: impl Fn(&mut Vpc, Batch) -> Made<T>,
) -> Result<T, ApiError> {
    again(ctx, || stepped(ctx, vpc, &prepare))
}

/// One round of [`in_vpc`], for creations that also have a client token.
pub(super) fn stepped<T>(ctx: &Ctx<'_>, vpc: VpcId, prepare: impl Fn(&mut Vpc, Batch) -> Made<T>) -> Made<T> {
    let mut found = referred::<Vpc>(ctx, vpc)?;
    let (batch, made) = prepare(&mut found.record, Batch::default())?;
    found.record.generation = found.record.generation.saturating_add(1);
    Ok((put(batch, &found)?, made))
}

/// Adds a record that was read and changed.
pub(super) fn put<R: Record>(batch: Batch, found: &Stored<R>) -> Result<Batch, ApiError> {
    batch
        .put(&found.key, Expect::At(found.revision), &found.record)
        .map_err(error::stored)
}

/// Adds a record that must be new.
pub(super) fn add<R: Resource>(ctx: &Ctx<'_>, batch: Batch, record: &R) -> Result<Batch, ApiError> {
    let key = Key::exact(&ctx.caller.scope, &record.id_text());
    batch.put(&key, Expect::Absent, record).map_err(error::stored)
}

/// Removes a record that was read.
pub(super) fn remove<R: Record>(batch: Batch, found: &Stored<R>) -> Batch {
    batch.delete::<R>(&found.key, Expect::At(found.revision))
}
