//! Paging by `Marker` and `MaxItems`.

use super::error;
use crate::Ctx;
use isolarium_model::{Record, Scope};
use isolarium_store::state::{Query, StoreError};
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use std::collections::BTreeMap;

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

    /// Nothing, and nothing after it.
    pub(super) fn empty() -> Self {
        Self {
            items: Vec::new(),
            marker: None,
        }
    }

    /// The page with other items.
    pub(super) fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(change).collect(),
            marker: self.marker,
        }
    }
}

/// Items per page: 1 to 1,000, 100 unless the caller says.
pub(super) fn page_size(max_items: Option<i64>) -> usize {
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
            StoreError::BadToken => bad_marker(),
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
pub(super) fn names(
    all: impl IntoIterator<Item = String>,
    marker: Option<&str>,
    max_items: Option<i64>,
) -> Page<String> {
    keyed(all.into_iter().map(|name| (name.clone(), name)), marker, max_items)
}

/// Items in the order of their keys. The marker is the last key of the page before.
pub(super) fn keyed<T>(
    all: impl IntoIterator<Item = (String, T)>,
    marker: Option<&str>,
    max_items: Option<i64>,
) -> Page<T> {
    let size = page_size(max_items);
    let mut sorted: Vec<(String, T)> = all
        .into_iter()
        .filter(|(key, _)| marker.is_none_or(|marker| key.as_str() > marker))
        .collect();
    sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
    let more = sorted.len() > size;
    sorted.truncate(size);
    let marker = if more {
        sorted.last().map(|(key, _)| key.clone())
    } else {
        None
    };
    Page {
        items: sorted.into_iter().map(|(_, item)| item).collect(),
        marker,
    }
}

/// Tags in the order of their keys. They may hold characters that a marker may not, so the marker counts.
pub(super) fn tags(all: &BTreeMap<String, String>, marker: Option<&str>, max_items: Option<i64>) -> Page<shapes::Tag> {
    let tag = |(position, (key, value)): (usize, (&String, &String))| {
        let tag = shapes::Tag {
            key: key.clone(),
            value: value.clone(),
        };
        (format!("{position:03}"), tag)
    };
    keyed(all.iter().enumerate().map(tag), marker, max_items)
}

/// One list made of several, one after the other: `fetch` gives a page of the list with that number. The marker names
/// the list and its own marker.
pub(super) fn chain<T>(
    lists: usize,
    marker: Option<&str>,
    max_items: Option<i64>,
    fetch: impl Fn(usize, Option<String>, i64) -> Result<Page<T>, ApiError>,
) -> Result<Page<T>, ApiError> {
    let size = page_size(max_items);
    let (mut list, mut inner) = match marker {
        None => (0, None),
        Some(text) => {
            let (list, inner) = text.split_once(':').ok_or_else(bad_marker)?;
            let list = list.parse().map_err(|_| bad_marker())?;
            (list, (!inner.is_empty()).then(|| inner.to_owned()))
        }
    };
    let mut items = Vec::new();
    while list < lists {
        // A full page still looks whether anything follows, so that the last page is known as the last.
        let room = i64::try_from(size - items.len()).unwrap_or(1);
        let page = fetch(list, inner.clone(), room.max(1))?;
        if room == 0 && !page.items.is_empty() {
            return Ok(Page {
                items,
                marker: Some(format!("{list}:{}", inner.unwrap_or_default())),
            });
        }
        items.extend(page.items);
        if let Some(next) = page.marker {
            return Ok(Page {
                items,
                marker: Some(format!("{list}:{next}")),
            });
        }
        (list, inner) = (list + 1, None);
    }
    Ok(Page { items, marker: None })
}

fn bad_marker() -> ApiError {
    error::invalid("Invalid Marker.")
}
