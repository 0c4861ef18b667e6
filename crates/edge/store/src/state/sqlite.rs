//! Records in SQLite. Sort and filter columns stand beside the JSON body, each sort order has an index that also holds
//! the filter columns, so a page of a listing reads as many bodies as it returns, whatever the number of records.

use super::token::{self, Position, Value};
use super::{Batch, Change, Listener, Query, RawPage, Recent, Revision, SortBy, StateStore, StoreError};
use crate::database::{Database, Schema};
use isolarium_model::{Key, Scope};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use std::sync::{Arc, PoisonError, RwLock};

/// Tables of the records; pass it to [`Database::open`].
pub const SCHEMA: Schema = Schema {
    module: "state",
    steps: &[
        "
    CREATE TABLE state_shelf (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL,
        UNIQUE (kind, account, region)
    );
    CREATE TABLE state_record (
        id INTEGER PRIMARY KEY,
        shelf INTEGER NOT NULL REFERENCES state_shelf (id),
        name TEXT NOT NULL,
        revision INTEGER NOT NULL,
        name_folded TEXT NOT NULL,
        created INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        status TEXT NOT NULL,
        body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX state_by_name ON state_record (shelf, name);
    CREATE INDEX state_by_created ON state_record (shelf, created, name, name_folded, modified, status);
    CREATE INDEX state_by_modified ON state_record (shelf, modified, name, name_folded, created, status);
    CREATE INDEX state_by_status ON state_record (shelf, status, name, name_folded, created, modified);
    CREATE TABLE state_revision (one INTEGER PRIMARY KEY CHECK (one = 1), value INTEGER NOT NULL);
    INSERT INTO state_revision VALUES (1, 0);
    ",
        // Records of networks as they were before they told what they are a part of: see `Record::part_of` of each.
        "
    ALTER TABLE state_record ADD COLUMN whole TEXT NOT NULL DEFAULT '';
    UPDATE state_record SET whole = coalesce(CASE (SELECT kind FROM state_shelf WHERE id = shelf)
            WHEN 'ec2.elastic_ip' THEN json_extract(CAST(body AS TEXT), '$.association.interface')
            WHEN 'ec2.interface_permission' THEN json_extract(CAST(body AS TEXT), '$.interface')
            WHEN 'ec2.internet_gateway' THEN json_extract(CAST(body AS TEXT), '$.attached')
            WHEN 'ec2.vpc' THEN name
            ELSE json_extract(CAST(body AS TEXT), '$.vpc')
        END, '')
        WHERE shelf IN (SELECT id FROM state_shelf WHERE kind IN (
            'ec2.vpc', 'ec2.subnet', 'ec2.route_table', 'ec2.network_acl', 'ec2.security_group',
            'ec2.internet_gateway', 'ec2.nat_gateway', 'ec2.network_interface', 'ec2.elastic_ip',
            'ec2.vpc_endpoint', 'ec2.flow_log', 'ec2.interface_permission'));
    CREATE INDEX state_by_whole ON state_record (shelf, whole, name) WHERE whole <> '';
    ",
    ],
};

/// The [`StateStore`] of a data directory.
pub struct SqliteState {
    database: Arc<Database>,
    recent: Recent,
    listeners: RwLock<Vec<Listener>>,
}

impl SqliteState {
    /// Serves the records of a database that was opened with [`SCHEMA`].
    pub fn new(database: Arc<Database>) -> Self {
        Self {
            database,
            recent: Recent::default(),
            listeners: RwLock::default(),
        }
    }
}

const FIND: &str = "SELECT r.revision, r.body FROM state_record r JOIN state_shelf s ON s.id = r.shelf \
    WHERE s.kind = ?1 AND s.account = ?2 AND s.region = ?3 AND r.name = ?4";

impl StateStore for SqliteState {
    fn get_raw(&self, kind: &'static str, key: &Key) -> Result<Option<(Revision, Vec<u8>)>, StoreError> {
        self.database.read(|c| {
            let place = (kind, key.scope.account.as_str(), key.scope.region.as_str(), &*key.name);
            Ok(c.prepare_cached(FIND)?
                .query_row(place, |row| Ok((revision(row, 0)?, row.get(1)?)))
                .optional()?)
        })
    }

    fn query_raw(&self, kind: &'static str, query: &Query) -> Result<RawPage, StoreError> {
        let after = token::decode(query)?;
        self.database.read(|c| {
            let shelf: Option<i64> = c
                .prepare_cached("SELECT id FROM state_shelf WHERE kind = ?1 AND account = ?2 AND region = ?3")?
                .query_row(
                    (kind, query.scope.account.as_str(), query.scope.region.as_str()),
                    |row| row.get(0),
                )
                .optional()?;
            match shelf {
                Some(shelf) => page(c, shelf, query, after),
                None => Ok(RawPage {
                    rows: Vec::new(),
                    next: None,
                }),
            }
        })
    }

    fn all_raw(&self, kind: &'static str, statuses: &[&str]) -> Result<Vec<(Key, Revision, Vec<u8>)>, StoreError> {
        self.database.read(|c| {
            let narrowed = if statuses.is_empty() {
                String::new()
            } else {
                format!("AND r.status IN ({}) ", vec!["?"; statuses.len()].join(", "))
            };
            let mut statement = c.prepare_cached(&format!(
                "SELECT s.account, s.region, r.name, r.revision, r.body FROM state_shelf s \
                 JOIN state_record r ON r.shelf = s.id WHERE s.kind = ? {narrowed}ORDER BY s.account, s.region, r.name",
            ))?;
            let values = std::iter::once(kind).chain(statuses.iter().copied());
            let mut rows = statement.query(rusqlite::params_from_iter(values))?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let (account, region): (String, String) = (row.get(0)?, row.get(1)?);
                let scope = match (account.parse(), region.parse()) {
                    (Ok(account), Ok(region)) => Scope { account, region },
                    (Err(error), _) | (_, Err(error)) => return Err(StoreError::Database(Box::new(error))),
                };
                let name: String = row.get(2)?;
                all.push((
                    Key {
                        scope,
                        name: name.into(),
                    },
                    revision(row, 3)?,
                    row.get(4)?,
                ));
            }
            Ok(all)
        })
    }

    fn counts(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        self.database.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT s.kind, r.status, count(*) FROM state_shelf s JOIN state_record r ON r.shelf = s.id \
                 GROUP BY s.kind, r.status ORDER BY s.kind, r.status",
            )?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, revision(row, 2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        let changed: Vec<_> = batch.changes.iter().map(Change::place).collect();
        let committed = self.database.write(move |c| apply(c, &batch));
        // Also after a failure: one that came late in the commit may have left the changes on the disk.
        self.recent.forget(&changed);
        let revision = committed?;
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

fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// Carries a batch out inside the writer's savepoint; an error takes everything back.
fn apply(c: &Connection, batch: &Batch) -> Result<Revision, StoreError> {
    let (next, stored) = c
        .prepare_cached("UPDATE state_revision SET value = value + 1 RETURNING value")?
        .query_row([], |row| Ok((revision(row, 0)?, row.get::<_, i64>(0)?)))?;
    for change in &batch.changes {
        let (kind, key) = change.place();
        let shelf = shelf(c, kind, &key.scope)?;
        let found: Option<Revision> = c
            .prepare_cached("SELECT revision FROM state_record WHERE shelf = ?1 AND name = ?2")?
            .query_row((shelf, &*key.name), |row| revision(row, 0))
            .optional()?;
        if !change.expect().holds(found) {
            return Err(StoreError::Conflict {
                kind: kind.into(),
                name: key.name.into(),
            });
        }
        match change {
            Change::Put {
                body, facets, part_of, ..
            } => c
                .prepare_cached(
                    "INSERT INTO state_record (shelf, name, revision, name_folded, created, modified, status, body, \
                     whole) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (shelf, name) DO UPDATE SET \
                     revision = ?3, name_folded = ?4, created = ?5, modified = ?6, status = ?7, body = ?8, whole = ?9",
                )?
                .execute((
                    shelf,
                    &*key.name,
                    stored,
                    facets.display_name.to_lowercase(),
                    facets.created.0,
                    facets.modified.0,
                    &facets.status,
                    body,
                    part_of.as_deref().unwrap_or_default(),
                ))?,
            Change::Delete { .. } => c
                .prepare_cached("DELETE FROM state_record WHERE shelf = ?1 AND name = ?2")?
                .execute((shelf, &*key.name))?,
        };
    }
    Ok(next)
}

fn shelf(c: &Connection, kind: &str, scope: &Scope) -> Result<i64, StoreError> {
    let place = (kind, scope.account.as_str(), scope.region.as_str());
    let found = c
        .prepare_cached("SELECT id FROM state_shelf WHERE kind = ?1 AND account = ?2 AND region = ?3")?
        .query_row(place, |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    c.prepare_cached("INSERT INTO state_shelf (kind, account, region) VALUES (?1, ?2, ?3)")?
        .execute(place)?;
    Ok(c.last_insert_rowid())
}

/// SQL conditions with the values they bind, in order.
struct Filter {
    sql: String,
    values: Vec<Sql>,
}

impl Filter {
    fn and(&mut self, condition: &str, value: impl Into<Sql>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.push(value.into());
    }
}

fn page(c: &Connection, shelf: i64, query: &Query, after: Option<Position>) -> Result<RawPage, StoreError> {
    // The index is named so that the planner never trades the sort order for a filter column.
    let (column, index) = match query.sort_by {
        SortBy::Name => ("name", "state_by_name"),
        SortBy::Created => ("created", "state_by_created"),
        SortBy::Modified => ("modified", "state_by_modified"),
        SortBy::Status => ("status", "state_by_status"),
    };
    // The parts of one whole are few: they are found first, and sorted.
    let index = if query.part_of.is_empty() {
        index
    } else {
        "state_by_whole"
    };
    let mut filter = Filter {
        sql: String::from("shelf = ?"),
        values: vec![shelf.into()],
    };
    if let Some(text) = &query.name_contains {
        filter.and("instr(name_folded, ?) > 0", text.to_lowercase());
    }
    if let Some(prefix) = query.name_prefix.as_ref().filter(|prefix| !prefix.is_empty()) {
        filter.and("name >= ?", prefix.clone());
        if let Some(end) = token::prefix_end(prefix) {
            filter.and("name < ?", end);
        }
    }
    if !query.statuses.is_empty() {
        filter.and(
            "status IN (SELECT value FROM json_each(?))",
            json_list(&query.statuses)?,
        );
    }
    if !query.part_of.is_empty() {
        // The first half is what makes the index usable: it holds parts alone.
        filter.and(
            "whole <> '' AND whole IN (SELECT value FROM json_each(?))",
            json_list(&query.part_of)?,
        );
    }
    for (condition, bound) in [
        ("created > ?", query.created_after),
        ("created < ?", query.created_before),
        ("modified > ?", query.modified_after),
        ("modified < ?", query.modified_before),
    ] {
        if let Some(bound) = bound {
            filter.and(condition, bound.0);
        }
    }
    let (beyond, order) = if query.descending { ("<", "DESC") } else { (">", "ASC") };
    match after {
        Some(Position {
            value: Value::Name(()),
            name,
        }) => filter.and(&format!("name {beyond} ?"), name),
        Some(Position { value, name }) => {
            let value = match value {
                Value::Time(time) => Sql::from(time),
                Value::Text(text) => Sql::from(text),
                Value::Name(()) => Sql::Null,
            };
            filter.and(&format!("({column}, name) {beyond} (?, "), value);
            filter.sql.push_str("?)");
            filter.values.push(name.into());
        }
        None => {}
    }
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    filter.values.push(limit.saturating_add(1).into());
    let by_name = if query.sort_by == SortBy::Name {
        String::new()
    } else {
        format!(", name {order}")
    };
    let sql = format!(
        "SELECT name, revision, body, {column} FROM state_record INDEXED BY {index} WHERE {} \
         ORDER BY {column} {order}{by_name} LIMIT ?",
        filter.sql
    );
    let mut statement = c.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(filter.values))?;
    let mut rows = Vec::new();
    let mut last = None;
    while let Some(row) = found.next()? {
        if rows.len() >= query.limit {
            let next = last.map(|position| token::encode(query, position)).transpose()?;
            return Ok(RawPage { rows, next });
        }
        let name: String = row.get(0)?;
        let value = match query.sort_by {
            SortBy::Name => Value::Name(()),
            SortBy::Created | SortBy::Modified => Value::Time(row.get(3)?),
            SortBy::Status => Value::Text(row.get(3)?),
        };
        last = Some(Position {
            value,
            name: name.clone(),
        });
        rows.push((
            Key {
                scope: query.scope.clone(),
                name: name.into(),
            },
            revision(row, 1)?,
            row.get(2)?,
        ));
    }
    Ok(RawPage { rows, next: None })
}

fn json_list(texts: &[String]) -> Result<String, StoreError> {
    serde_json::to_string(texts).map_err(StoreError::Encode)
}
