//! Paging tokens: the sort position of the last row of a page. Because they name a position and no row number, they stay
//! valid when rows come and go (SM-11).

use super::{Query, SortBy, StoreError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// The sort column of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Value {
    /// Sorting by name: the name says it all.
    Name(()),
    Time(i64),
    Text(String),
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub value: Value,
    pub name: String,
}

/// (version, sort column, descending, position)
#[derive(Serialize, Deserialize)]
struct Token(u8, char, bool, Position);

const VERSION: u8 = 1;

fn letter(sort_by: SortBy) -> char {
    match sort_by {
        SortBy::Name => 'n',
        SortBy::Created => 'c',
        SortBy::Modified => 'm',
        SortBy::Status => 's',
    }
}

/// The token of the page after `position`.
pub(crate) fn encode(query: &Query, position: Position) -> Result<String, StoreError> {
    let token = Token(VERSION, letter(query.sort_by), query.descending, position);
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).map_err(StoreError::Encode)?))
}

/// The position a query continues after. A token of another sort order is refused like any other text.
pub(crate) fn decode(query: &Query) -> Result<Option<Position>, StoreError> {
    let Some(text) = &query.after else { return Ok(None) };
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| StoreError::BadToken)?;
    let Token(version, sort, descending, position) =
        serde_json::from_slice(&bytes).map_err(|_| StoreError::BadToken)?;
    let shape = matches!(
        (query.sort_by, &position.value),
        (SortBy::Name, Value::Name(()))
            | (SortBy::Created | SortBy::Modified, Value::Time(_))
            | (SortBy::Status, Value::Text(_))
    );
    let ours = version == VERSION && sort == letter(query.sort_by) && descending == query.descending && shape;
    if ours {
        Ok(Some(position))
    } else {
        Err(StoreError::BadToken)
    }
}

/// The smallest text above every text that begins with `prefix`; `None` when there is none.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let mut next = u32::from(last).saturating_add(1);
        if next == 0xD800 {
            next = 0xE000; // surrogates are no characters
        }
        if let Some(above) = char::from_u32(next) {
            chars.push(above);
            return Some(chars.into_iter().collect());
        }
    }
    None
}
