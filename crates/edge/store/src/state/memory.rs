//! Records in memory, with the semantics of the disk: for tests of whatever takes a [`StateStore`].

use super::token::{self, Position, Value};
use super::{Batch, Change, Listener, Query, RawPage, Recent, Revision, SortBy, StateStore, StoreError};
use isolarium_model::record::Facets;
use isolarium_model::{Key, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

/// A [`StateStore`] that forgets everything when dropped.
#[derive(Default)]
pub struct MemoryState {
    shelves: Mutex<Shelves>,
    recent: Recent,
    listeners: RwLock<Vec<Listener>>,
}

type Rows = BTreeMap<(&'static str, Key), Row>;

#[derive(Default)]
struct Shelves {
    revision: Revision,
    rows: Rows,
}

#[derive(Clone)]
struct Row {
    revision: Revision,
    facets: Facets,
    part_of: Option<String>,
    body: Vec<u8>,
}

impl MemoryState {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for MemoryState {
    fn get_raw(&self, kind: &'static str, key: &Key) -> Result<Option<(Revision, Vec<u8>)>, StoreError> {
        let shelves = self.lock();
        Ok(shelves
            .rows
            .get(&(kind, key.clone()))
            .map(|row| (row.revision, row.body.clone())))
    }

    fn query_raw(&self, kind: &'static str, query: &Query) -> Result<RawPage, StoreError> {
        let after = token::decode(query)?;
        let shelves = self.lock();
        let mut found: Vec<(Position, &Key, &Row)> = shelves
            .rows
            .iter()
            .filter(|((k, key), row)| *k == kind && key.scope == query.scope && matches(query, key, row))
            .map(|((_, key), row)| (position(query.sort_by, key, &row.facets), key, row))
            .collect();
        found.sort_by(|(a, ..), (b, ..)| order(a, b));
        if query.descending {
            found.reverse();
        }
        if let Some(after) = &after {
            found.retain(|(position, ..)| {
                let order = order(position, after);
                if query.descending { order.is_lt() } else { order.is_gt() }
            });
        }
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let last = found.last().filter(|_| more).map(|(position, ..)| position.clone());
        let next = last.map(|position| token::encode(query, position)).transpose()?;
        let rows = found
            .into_iter()
            .map(|(_, key, row)| (key.clone(), row.revision, row.body.clone()))
            .collect();
        Ok(RawPage { rows, next })
    }

    fn all_raw(&self, kind: &'static str, statuses: &[&str]) -> Result<Vec<(Key, Revision, Vec<u8>)>, StoreError> {
        let shelves = self.lock();
        let wanted = |status: &str| statuses.is_empty() || statuses.contains(&status);
        let of_kind = shelves
            .rows
            .iter()
            .filter(|((k, _), row)| *k == kind && wanted(&row.facets.status));
        Ok(of_kind
            .map(|((_, key), row)| (key.clone(), row.revision, row.body.clone()))
            .collect())
    }

    fn counts(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        let mut counts = BTreeMap::new();
        for ((kind, _), row) in &self.lock().rows {
            let count: &mut u64 = counts
                .entry(((*kind).to_owned(), row.facets.status.clone()))
                .or_default();
            *count = count.saturating_add(1);
        }
        Ok(counts
            .into_iter()
            .map(|((kind, status), count)| (kind, status, count))
            .collect())
    }

    fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        let changed: Vec<_> = batch.changes.iter().map(Change::place).collect();
        let revision = {
            let mut shelves = self.lock();
            let next = shelves.revision + 1;
            let mut rows = shelves.rows.clone();
            for change in batch.changes {
                let place = change.place();
                if !change.expect().holds(rows.get(&place).map(|row| row.revision)) {
                    return Err(StoreError::Conflict {
                        kind: place.0.into(),
                        name: place.1.name.into(),
                    });
                }
                match change {
                    Change::Put {
                        body, facets, part_of, ..
                    } => rows.insert(
                        place,
                        Row {
                            revision: next,
                            facets,
                            part_of,
                            body,
                        },
                    ),
                    Change::Delete { .. } => rows.remove(&place),
                };
            }
            *shelves = Shelves { revision: next, rows };
            next
        };
        self.recent.forget(&changed);
        for listener in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(&changed);
        }
        Ok(revision)
    }

    fn subscribe(&self, listener: Listener) {
        self.listeners
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
    }

    fn recent(&self) -> &Recent {
        &self.recent
    }
}

fn order(a: &Position, b: &Position) -> std::cmp::Ordering {
    (&a.value, &a.name).cmp(&(&b.value, &b.name))
}

fn position(sort_by: SortBy, key: &Key, facets: &Facets) -> Position {
    let value = match sort_by {
        SortBy::Name => Value::Name(()),
        SortBy::Created => Value::Time(facets.created.0),
        SortBy::Modified => Value::Time(facets.modified.0),
        SortBy::Status => Value::Text(facets.status.clone()),
    };
    Position {
        value,
        name: key.name.to_string(),
    }
}

fn matches(query: &Query, key: &Key, row: &Row) -> bool {
    let facets = &row.facets;
    let is_part = || row.part_of.as_ref().is_some_and(|whole| query.part_of.contains(whole));
    let folded = facets.display_name.to_lowercase();
    let after = |bound: Option<Timestamp>, time| bound.is_none_or(|bound| time > bound);
    let before = |bound: Option<Timestamp>, time| bound.is_none_or(|bound| time < bound);
    query
        .name_contains
        .as_ref()
        .is_none_or(|text| folded.contains(&text.to_lowercase()))
        && query
            .name_prefix
            .as_ref()
            .is_none_or(|prefix| key.name.starts_with(prefix.as_str()))
        && (query.part_of.is_empty() || is_part())
        && (query.statuses.is_empty() || query.statuses.contains(&facets.status))
        && after(query.created_after, facets.created)
        && before(query.created_before, facets.created)
        && after(query.modified_after, facets.modified)
        && before(query.modified_before, facets.modified)
}
