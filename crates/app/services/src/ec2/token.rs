//! `ClientToken`: a creation that is asked twice happens once (NET-82).

use super::change::{Made, again};
use super::error;
use crate::Ctx;
use isolarium_model::ec2::ClientToken;
use isolarium_model::{Key, Sha256Digest, Timestamp};
use isolarium_store::state::{Batch, Expect, Query};
use isolarium_wire::{ApiError, Document};
use sha2::{Digest, Sha256};

/// Old tokens that one creation clears away.
const SWEEP: usize = 16;

/// What a creation with or without a token came to.
pub(super) enum Outcome<T> {
    Made(T),
    /// The same request with the same token made this id before.
    Before(String),
}

/// Runs a creation: `prepare` makes the batch, the id of what it makes, and the answer. With a token, the batch also
/// remembers it, so that of two requests with one token only one can commit.
///
/// # Errors
/// `IdempotentParameterMismatch` when another request used the token; what `prepare` says.
pub(super) fn once<T>(
    ctx: &Ctx<'_>,
    operation: &str,
    token: Option<&str>,
    request: impl Into<Document>,
    prepare: impl Fn() -> Made<(String, T)>,
) -> Result<Outcome<T>, ApiError> {
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return again(ctx, &prepare).map(|(_, made)| Outcome::Made(made));
    };
    let request = fingerprint(request.into())?;
    let now = ctx.clock.now();
    let key = ClientToken::key(&ctx.caller.scope, operation, token);
    again(ctx, || {
        let used = ctx.store.get::<ClientToken>(&key).map_err(error::stored)?;
        let expect = match used {
            Some(found) if now.since(found.record.used) <= ClientToken::LIFETIME => {
                if found.record.request != request {
                    let text = "The request uses the same client token as a previous, but non-identical request.";
                    return Err(ApiError::client("IdempotentParameterMismatch", text));
                }
                return Ok((Batch::default(), Outcome::Before(found.record.made)));
            }
            Some(found) => Expect::At(found.revision),
            None => Expect::Absent,
        };
        let (batch, (made, answer)) = prepare()?;
        let used = ClientToken {
            request: request.clone(),
            made,
            used: now,
        };
        let batch = batch.put(&key, expect, &used).map_err(error::stored)?;
        Ok((sweep(ctx, batch, now, &key)?, Outcome::Made(answer)))
    })
}

/// Of the request without its token.
fn fingerprint(request: Document) -> Result<Sha256Digest, ApiError> {
    let mut request = request;
    if let Document::Map(members) = &mut request {
        members.shift_remove("ClientToken");
    }
    let text = serde_json::to_vec(&request).map_err(ApiError::internal)?;
    Ok(Sha256Digest::from_bytes(&Sha256::digest(text).into()))
}

/// Forgets some tokens that are too old to count; `but` is written in the same batch.
fn sweep(ctx: &Ctx<'_>, batch: Batch, now: Timestamp, but: &Key) -> Result<Batch, ApiError> {
    let lifetime = i64::try_from(ClientToken::LIFETIME.as_millis()).unwrap_or(i64::MAX);
    let query = Query {
        created_before: Some(Timestamp(now.0.saturating_sub(lifetime))),
        limit: SWEEP,
        ..Query::all(&ctx.caller.scope)
    };
    let old = ctx.store.query::<ClientToken>(&query).map_err(error::stored)?.rows;
    let old = old.into_iter().filter(|found| found.key != *but);
    Ok(old.fold(batch, |batch, found| {
        batch.delete::<ClientToken>(&found.key, Expect::At(found.revision))
    }))
}
