//! Paging, sorting and filters, the same for every list operation (SM-10..12).

use super::{shapes, stored};
use crate::Ctx;
use isolarium_model::{Record, Timestamp};
use isolarium_store::state::SortBy;
use isolarium_store::{Query, Stored};
use isolarium_wire::ApiError;

/// Size of a page when the request names none (SM-10).
const PAGE: usize = 10;

/// What list operations ask for.
#[derive(Default)]
pub(super) struct Listing {
    pub sort_by: Option<SortBy>,
    pub descending: bool,
    pub next_token: Option<String>,
    pub max_results: Option<i64>,
    pub name_contains: Option<String>,
    pub status: Option<&'static str>,
    pub created_after: Option<i64>,
    pub created_before: Option<i64>,
    pub modified_after: Option<i64>,
    pub modified_before: Option<i64>,
}

/// A page and the token of the next one.
pub(super) fn page<R: Record>(ctx: &Ctx<'_>, listing: Listing) -> Result<(Vec<Stored<R>>, Option<String>), ApiError> {
    let query = Query {
        sort_by: listing.sort_by.unwrap_or(SortBy::Created),
        descending: listing.descending,
        name_contains: listing.name_contains,
        statuses: listing.status.map(String::from).into_iter().collect(),
        created_after: listing.created_after.map(Timestamp),
        created_before: listing.created_before.map(Timestamp),
        modified_after: listing.modified_after.map(Timestamp),
        modified_before: listing.modified_before.map(Timestamp),
        after: listing.next_token,
        limit: listing
            .max_results
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(PAGE),
        ..Query::all(&ctx.caller.scope)
    };
    let page = ctx.store.query::<R>(&query).map_err(stored)?;
    Ok((page.rows, page.next))
}

/// As [`page`], of the records that are wanted alone.
pub(super) fn page_of<R: Record>(
    ctx: &Ctx<'_>,
    listing: Listing,
    wanted: impl Fn(&R) -> bool,
) -> Result<(Vec<Stored<R>>, Option<String>), ApiError> {
    let most = listing
        .max_results
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(PAGE);
    let (mut found, mut after) = (Vec::new(), listing.next_token.clone());
    loop {
        let left = most.saturating_sub(found.len());
        let listing = Listing {
            next_token: after,
            // Never more than there is room for: the token tells where the last row that was read stands.
            max_results: i64::try_from(left).ok(),
            name_contains: listing.name_contains.clone(),
            ..listing
        };
        let (rows, next) = page::<R>(ctx, listing)?;
        found.extend(rows.into_iter().filter(|row| wanted(&row.record)));
        if next.is_none() || found.len() >= most {
            return Ok((found, next));
        }
        after = next;
    }
}

/// Whether a listing of models, configurations or endpoints is descending: the default (SM-11).
pub(super) fn descending(order: Option<shapes::OrderKey>) -> bool {
    order != Some(shapes::OrderKey::Ascending)
}
