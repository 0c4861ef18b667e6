//! Describe operations: ids, filters and pages, the same for every noun (NET-81).

use super::filter::Filters;
use super::noun::{Noun, every, find};
use super::shapes;
use crate::Ctx;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isolarium_model::Timestamp;
use isolarium_wire::ApiError;
use std::collections::BTreeSet;

/// Items of a page when the request does not say.
const PAGE: usize = 1000;

/// What every describe operation takes.
pub(super) struct Asked {
    pub(super) ids: Option<Vec<String>>,
    pub(super) filters: Option<Vec<shapes::Filter>>,
    pub(super) next_token: Option<String>,
    pub(super) max_results: Option<i64>,
}

/// The records that are asked for, and the token of the next page. `names` are the operation's filters, `values` what a
/// record has for one of them. An unknown id is an error; nothing found by a filter is not.
pub(super) fn records<N: Noun>(
    ctx: &Ctx<'_>,
    asked: Asked,
    names: &[&str],
    values: impl Fn(&N, &str) -> Vec<String>,
) -> Result<(Vec<N>, Option<String>), ApiError> {
    let filters = Filters::read(asked.filters.as_ref(), names)?;
    let found = match asked.ids.filter(|ids| !ids.is_empty()) {
        Some(ids) => {
            let distinct: BTreeSet<String> = ids.into_iter().collect();
            let found: Result<Vec<_>, _> = distinct.iter().map(|id| find::<N>(ctx, id)).collect();
            found?
        }
        None => every::<N>(ctx)?,
    };
    let passed = found
        .into_iter()
        .map(|stored| stored.record)
        .filter(|record| filters.pass(record.tags(), |name| values(record, name)));
    let placed = passed.map(|record| (place(record.facets().created, &record.id_text()), record));
    page(placed.collect(), asked.next_token.as_deref(), asked.max_results)
}

/// Where an item stands in the order of all: the oldest first.
pub(super) fn place(created: Timestamp, id: &str) -> String {
    format!("{:020}/{id}", created.0.max(0))
}

/// One page of items in the order of their places. A token is the place of the page's last item, so it stays good when
/// items come and go.
///
/// # Errors
/// `InvalidNextToken` for a text that no page gave.
pub(super) fn page<T>(
    mut items: Vec<(String, T)>,
    next_token: Option<&str>,
    max_results: Option<i64>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let after = next_token.map(read).transpose()?;
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    if let Some(after) = after {
        items.retain(|(place, _)| *place > after);
    }
    let most = max_results.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE);
    let most = most.clamp(1, PAGE);
    let more = items.len() > most;
    items.truncate(most);
    let next = items.last().filter(|_| more).map(|(place, _)| write(place));
    Ok((items.into_iter().map(|(_, item)| item).collect(), next))
}

fn write(place: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("1 {place}"))
}

fn read(token: &str) -> Result<String, ApiError> {
    let text = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let place = text.as_deref().and_then(|text| text.strip_prefix("1 "));
    place
        .map(str::to_owned)
        .ok_or_else(|| ApiError::client("InvalidNextToken", "The token is invalid."))
}

/// The items of an answer. EC2 answers an empty set where it found nothing, and clients index it.
pub(super) fn shown<T>(items: Vec<T>) -> Option<Vec<T>> {
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: NET-81
    #[test]
    fn pages_follow_each_other_while_items_come_and_go() {
        let items = |numbers: &[u8]| numbers.iter().map(|n| (format!("{n}"), *n)).collect::<Vec<_>>();
        let (one, next) = page(items(&[3, 1, 2, 5]), None, Some(2)).unwrap();
        assert_eq!(one, [1, 2]);
        let next = next.unwrap();
        let (two, last) = page(items(&[1, 3, 4, 5]), Some(&next), Some(5)).unwrap();
        assert_eq!((two, last), (vec![3, 4, 5], None), "2 went and 4 came");
        let (all, none) = page(items(&[1, 2]), None, Some(2)).unwrap();
        assert_eq!((all.len(), none), (2, None), "a full last page is the last");
        for bad in ["", "!", "bm8"] {
            let refused = page(items(&[1]), Some(bad), None).unwrap_err();
            assert_eq!(refused.code, "InvalidNextToken");
        }
    }
}
