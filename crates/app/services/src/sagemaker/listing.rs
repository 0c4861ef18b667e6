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

/// Whether a listing of models, configurations or endpoints is descending: the default (SM-11).
pub(super) fn descending(order: Option<shapes::OrderKey>) -> bool {
    order != Some(shapes::OrderKey::Ascending)
}
