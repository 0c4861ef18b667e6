//! Paging by `Marker` and `MaxItems`.

use super::error;
use crate::Ctx;
use isolarium_model::{Record, Scope};
use isolarium_store::state::{Query, StoreError};
use isolarium_wire::ApiError;

/// One page, and the marker of the next.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) marker: Option<String>,
}

impl<T> Page<T> {
    /// `IsTruncated` and `Marker` of the answer.
    pub(super) fn truncated(&self) -> Option<bool> {
        Some(self.marker.is_some())
    }
}

/// Items per page: 1 to 1,000, 100 unless the caller says.
fn page_size(max_items: Option<i64>) -> usize {
    usize::try_from(max_items.unwrap_or(100)).unwrap_or(100).clamp(1, 1_000)
}

/// Records of a scope by name that satisfy `wanted`.
pub(super) fn records<R: Record>(
    ctx: &Ctx<'_>,
    scope: &Scope,
    marker: Option<String>,
    max_items: Option<i64>,
    wanted: impl Fn(&R) -> bool,
) -> Result<Page<R>, ApiError> {
    let size = page_size(max_items);
    let mut page = Page {
        items: Vec::new(),
        marker,
    };
    loop {
        let query = Query {
            after: page.marker.take(),
            limit: size - page.items.len(),
            ..Query::all(scope)
        };
        let found = ctx.store.query::<R>(&query).map_err(|failure| match failure {
            StoreError::BadToken => error::invalid("Invalid Marker."),
            other => error::store(other),
        })?;
        page.items
            .extend(found.rows.into_iter().map(|stored| stored.record).filter(&wanted));
        page.marker = found.next;
        if page.marker.is_none() || page.items.len() >= size {
            return Ok(page);
        }
    }
}

/// Names in order. The marker is the last name of the page before, so it stays good when names come and go.
pub(super) fn names<'a>(
    all: impl Iterator<Item = &'a String>,
    marker: Option<&str>,
    max_items: Option<i64>,
) -> Page<String> {
    let size = page_size(max_items);
    let mut items: Vec<String> = all
        .filter(|name| marker.is_none_or(|marker| name.as_str() > marker))
        .take(size + 1)
        .cloned()
        .collect();
    let more = items.len() > size;
    items.truncate(size);
    let marker = if more { items.last().cloned() } else { None };
    Page { items, marker }
}
