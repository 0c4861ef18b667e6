//! The [`LogStore`] of a data directory.

use super::read::{self, Reach};
use super::{
    EventPage, FilterPage, FilterQuery, GroupQuery, Listing, LogError, LogStore, ReadFrom, Source, StreamQuery,
    TimeRange, segment,
};
use crate::database::{Database, Schema};
use crate::state::token::prefix_end;
use isolarium_model::logs::{GroupName, LogEvent, LogGroup, LogStream};
use isolarium_model::{Scope, Timestamp};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tables of the logs; pass it to [`Database::open`].
///
/// Stream ids are never reused (AUTOINCREMENT), so a removed stream's folder cannot be mistaken for another's. A block is
/// a run of events within one segment, the unit in which events are found and read.
pub const SCHEMA: Schema = Schema {
    module: "logs",
    steps: &["
    CREATE TABLE logs_group (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
        created INTEGER NOT NULL, retention_days INTEGER, tags TEXT NOT NULL,
        UNIQUE (account, region, name)
    );
    CREATE TABLE logs_stream (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        grp INTEGER NOT NULL REFERENCES logs_group (id) ON DELETE CASCADE,
        name TEXT NOT NULL, created INTEGER NOT NULL,
        first_event INTEGER, last_event INTEGER, last_ingestion INTEGER,
        bytes INTEGER NOT NULL DEFAULT 0,
        segment INTEGER NOT NULL DEFAULT 0, end INTEGER NOT NULL DEFAULT 0, sequence INTEGER NOT NULL DEFAULT 0,
        UNIQUE (grp, name)
    );
    CREATE INDEX logs_stream_by_time ON logs_stream (grp, coalesce(last_event, 0), name);
    CREATE TABLE logs_block (
        id INTEGER PRIMARY KEY,
        grp INTEGER NOT NULL,
        stream INTEGER NOT NULL REFERENCES logs_stream (id) ON DELETE CASCADE,
        segment INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
        min_time INTEGER NOT NULL, max_time INTEGER NOT NULL
    );
    CREATE INDEX logs_block_in_order ON logs_block (stream, id);
    CREATE INDEX logs_block_of_stream ON logs_block (stream, max_time);
    CREATE INDEX logs_block_of_group ON logs_block (grp, max_time);
    CREATE TABLE logs_source (id TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
    "],
};

/// Size at which the next segment begins, and with it the grain of [`LogStore::prune`].
const SEGMENT_BYTES: i64 = 8 << 20;
/// Size up to which appends extend the stream's last block instead of beginning one.
const BLOCK_BYTES: i64 = 64 << 10;
/// Locks that keep two appends to one stream apart.
const STRIPES: usize = 64;
const DAY: i64 = 86_400_000;

/// Logs in segment files under one folder, with their index in a database.
pub struct DiskLogs {
    database: Arc<Database>,
    root: PathBuf,
    stripes: [Mutex<()>; STRIPES],
}

/// A stream's place for the next append.
#[derive(Clone, Copy, Debug)]
struct Tail {
    group: i64,
    stream: i64,
    segment: i64,
    end: i64,
    sequence: i64,
}

/// A run of events to be written, with what the index says of it.
struct Block {
    start: i64,
    bytes: i64,
    min_time: i64,
    max_time: i64,
}

impl DiskLogs {
    /// Opens the logs under `root`, whose index is in a database opened with [`SCHEMA`], and removes the folders of
    /// streams that no longer exist (a crash may have come between forgetting and removing).
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(database: Arc<Database>, root: &Path) -> Result<Self, LogError> {
        std::fs::create_dir_all(root).map_err(|source| LogError::Segment {
            path: root.into(),
            source,
        })?;
        let logs = Self {
            database,
            root: root.into(),
            stripes: std::array::from_fn(|_| Mutex::default()),
        };
        logs.sweep().map_err(|source| LogError::Segment {
            path: root.into(),
            source,
        })??;
        Ok(logs)
    }

    fn sweep(&self) -> std::io::Result<Result<(), LogError>> {
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i64>().ok()) else {
                continue;
            };
            let lives = self.database.read::<_, LogError>(|c| {
                Ok(c.prepare_cached("SELECT 1 FROM logs_stream WHERE id = ?1")?
                    .exists([id])?)
            });
            match lives {
                Ok(true) => {}
                Ok(false) => std::fs::remove_dir_all(entry.path())?,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    fn stripe(&self, stream: i64) -> MutexGuard<'_, ()> {
        let index = usize::try_from(stream).unwrap_or(0) % STRIPES;
        let stripe = self.stripes.get(index).unwrap_or(&self.stripes[0]);
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail(&self, group: &GroupName, stream: &str) -> Result<Tail, LogError> {
        self.database.read(|c| {
            let grp = find_group(c, group)?;
            c.prepare_cached("SELECT id, segment, end, sequence FROM logs_stream WHERE grp = ?1 AND name = ?2")?
                .query_row((grp, stream), |row| {
                    Ok(Tail {
                        group: grp,
                        stream: row.get(0)?,
                        segment: row.get(1)?,
                        end: row.get(2)?,
                        sequence: row.get(3)?,
                    })
                })
                .optional()?
                .ok_or(LogError::NoStream)
        })
    }

    /// Writes the events behind the stream's committed end, then commits the new end together with `also`.
    fn append_and<T: Send + 'static>(
        &self,
        group: &GroupName,
        stream: &str,
        events: &[LogEvent],
        now: Timestamp,
        also: impl FnOnce(&Connection) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let id = self.tail(group, stream)?.stream;
        let _alone = self.stripe(id);
        let mut tail = self.tail(group, stream)?; // again, now that nobody else can move it
        if tail.end >= SEGMENT_BYTES {
            tail = Tail {
                segment: tail.segment + 1,
                end: 0,
                ..tail
            };
        }
        let path = segment::path(&self.root, tail.stream, tail.segment);
        let (bytes, blocks) = lay_out(tail, events, now).map_err(|source| LogError::Segment {
            path: path.clone(),
            source,
        })?;
        if !bytes.is_empty() {
            segment::write(&path, u64::try_from(tail.end).unwrap_or(0), &bytes)?;
        }
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let messages: usize = events.iter().map(|event| event.message.len()).sum();
        let messages = i64::try_from(messages).unwrap_or(i64::MAX);
        self.database.write(move |c| {
            let value = also(c)?;
            if count > 0 {
                commit_blocks(c, tail, &blocks, count, messages, now)?;
            }
            Ok(value)
        })
    }

    fn remove_folders(&self, streams: &[i64]) {
        for stream in streams {
            let _alone = self.stripe(*stream);
            let folder = segment::folder(&self.root, *stream);
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    // The records are gone; the folder is swept at the next start.
                    tracing::warn!(folder = %folder.display(), %error, "could not remove the segments of a deleted stream");
                }
                _ => {}
            }
        }
    }
}

/// Encodes events and cuts them into blocks.
fn lay_out(tail: Tail, events: &[LogEvent], now: Timestamp) -> std::io::Result<(Vec<u8>, Vec<Block>)> {
    let mut bytes = Vec::with_capacity(events.iter().map(segment::size).sum());
    let mut blocks: Vec<Block> = Vec::new();
    for (sequence, event) in (u64::try_from(tail.sequence).unwrap_or(0)..).zip(events) {
        let start = tail.end + i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        segment::encode(sequence, now, event, &mut bytes)?;
        let size = i64::try_from(segment::size(event)).unwrap_or(i64::MAX);
        let time = event.timestamp.0;
        match blocks.last_mut().filter(|block| block.bytes + size <= BLOCK_BYTES) {
            Some(block) => {
                block.bytes += size;
                block.min_time = block.min_time.min(time);
                block.max_time = block.max_time.max(time);
            }
            None => blocks.push(Block {
                start,
                bytes: size,
                min_time: time,
                max_time: time,
            }),
        }
    }
    Ok((bytes, blocks))
}

fn commit_blocks(
    c: &Connection,
    tail: Tail,
    blocks: &[Block],
    count: i64,
    messages: i64,
    now: Timestamp,
) -> Result<(), LogError> {
    let end = blocks.last().map_or(tail.end, |block| block.start + block.bytes);
    let times = (
        blocks.iter().map(|b| b.min_time).min(),
        blocks.iter().map(|b| b.max_time).max(),
    );
    let updated = c
        .prepare_cached(
            "UPDATE logs_stream SET segment = ?2, end = ?3, sequence = sequence + ?4, bytes = bytes + ?5, last_ingestion = ?6, \
             first_event = min(coalesce(first_event, ?7), ?7), last_event = max(coalesce(last_event, ?8), ?8) WHERE id = ?1",
        )?
        .execute((tail.stream, tail.segment, end, count, messages, now.0, times.0, times.1))?;
    if updated != 1 {
        return Err(LogError::NoStream);
    }
    for block in blocks {
        let what = (
            tail.stream,
            tail.segment,
            block.start,
            block.bytes,
            block.min_time,
            block.max_time,
        );
        // Many small appends share a block, or the index would grow as fast as the log.
        let extended = c
            .prepare_cached(
                "UPDATE logs_block SET length = length + ?4, min_time = min(min_time, ?5), max_time = max(max_time, ?6) \
                 WHERE id = (SELECT max(id) FROM logs_block WHERE stream = ?1) AND segment = ?2 \
                 AND start + length = ?3 AND length + ?4 <= ?7",
            )?
            .execute((what.0, what.1, what.2, what.3, what.4, what.5, BLOCK_BYTES))?;
        if extended == 0 {
            c.prepare_cached(
                "INSERT INTO logs_block (stream, segment, start, length, min_time, max_time, grp) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((what.0, what.1, what.2, what.3, what.4, what.5, tail.group))?;
        }
    }
    Ok(())
}

fn find_group(c: &Connection, group: &GroupName) -> Result<i64, LogError> {
    c.prepare_cached("SELECT id FROM logs_group WHERE account = ?1 AND region = ?2 AND name = ?3")?
        .query_row(
            (group.scope.account.as_str(), group.scope.region.as_str(), &*group.name),
            |row| row.get(0),
        )
        .optional()?
        .ok_or(LogError::NoGroup)
}

fn insert_group(c: &Connection, group: &GroupName, tags: &str, now: Timestamp) -> Result<bool, LogError> {
    let made = c
        .prepare_cached(
            "INSERT INTO logs_group (account, region, name, created, tags) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        )?
        .execute((group.scope.account.as_str(), group.scope.region.as_str(), &*group.name, now.0, tags))?;
    Ok(made == 1)
}

fn insert_stream(c: &Connection, group: i64, stream: &str, now: Timestamp) -> Result<bool, LogError> {
    let made = c
        .prepare_cached("INSERT INTO logs_stream (grp, name, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute((group, stream, now.0))?;
    Ok(made == 1)
}

const GROUP_COLUMNS: &str = "g.name, g.created, g.retention_days, g.tags, \
    (SELECT coalesce(sum(bytes), 0) FROM logs_stream WHERE grp = g.id)";

fn group_row(scope: &Scope, row: &Row<'_>) -> rusqlite::Result<LogGroup> {
    let (name, tags): (String, String) = (row.get(0)?, row.get(3)?);
    let bytes: i64 = row.get(4)?;
    Ok(LogGroup {
        name: GroupName::new(scope, &name),
        created: Timestamp(row.get(1)?),
        retention_days: row.get(2)?,
        tags: serde_json::from_str(&tags).unwrap_or_default(),
        stored_bytes: u64::try_from(bytes).unwrap_or(0),
    })
}

fn tags_text(tags: &BTreeMap<String, String>) -> Result<String, LogError> {
    Ok(serde_json::to_string(tags).map_err(crate::StoreError::Encode)?)
}

impl LogStore for DiskLogs {
    fn create_group(&self, group: &GroupName, tags: &BTreeMap<String, String>, now: Timestamp) -> Result<(), LogError> {
        let (group, tags) = (group.clone(), tags_text(tags)?);
        self.database.write(move |c| {
            if insert_group(c, &group, &tags, now)? {
                Ok(())
            } else {
                Err(LogError::Exists)
            }
        })
    }

    fn delete_group(&self, group: &GroupName) -> Result<(), LogError> {
        let group = group.clone();
        let streams = self.database.write(move |c| {
            let id = find_group(c, &group)?;
            let streams = c
                .prepare_cached("SELECT id FROM logs_stream WHERE grp = ?1")?
                .query_map([id], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<i64>>>()?;
            c.prepare_cached("DELETE FROM logs_group WHERE id = ?1")?
                .execute([id])?;
            Ok::<_, LogError>(streams)
        })?;
        self.remove_folders(&streams);
        Ok(())
    }

    fn group(&self, group: &GroupName) -> Result<Option<LogGroup>, LogError> {
        self.database.read(|c| {
            let sql =
                format!("SELECT {GROUP_COLUMNS} FROM logs_group g WHERE account = ?1 AND region = ?2 AND name = ?3");
            let place = (group.scope.account.as_str(), group.scope.region.as_str(), &*group.name);
            Ok(c.prepare_cached(&sql)?
                .query_row(place, |row| group_row(&group.scope, row))
                .optional()?)
        })
    }

    fn groups(&self, scope: &Scope, query: &GroupQuery) -> Result<Listing<LogGroup>, LogError> {
        self.database.read(|c| {
            let mut sql = format!("SELECT {GROUP_COLUMNS} FROM logs_group g WHERE account = ? AND region = ?");
            let mut values: Vec<Sql> = vec![scope.account.to_string().into(), scope.region.to_string().into()];
            prefix_condition(&mut sql, &mut values, query.prefix.as_deref());
            if let Some(text) = &query.contains {
                sql.push_str(" AND instr(lower(name), ?) > 0");
                values.push(text.to_ascii_lowercase().into());
            }
            if let Some(after) = &query.after {
                sql.push_str(" AND name > ?");
                values.push(after.clone().into());
            }
            sql.push_str(" ORDER BY name LIMIT ?");
            listing(c, &sql, values, query.limit, |row| group_row(scope, row))
        })
    }

    fn set_retention(&self, group: &GroupName, days: Option<u32>) -> Result<(), LogError> {
        let group = group.clone();
        self.database.write(move |c| {
            let id = find_group(c, &group)?;
            c.prepare_cached("UPDATE logs_group SET retention_days = ?2 WHERE id = ?1")?
                .execute((id, days))?;
            Ok(())
        })
    }

    fn tag(&self, group: &GroupName, add: &BTreeMap<String, String>, remove: &[String]) -> Result<(), LogError> {
        let (group, add, remove) = (group.clone(), add.clone(), remove.to_vec());
        self.database.write(move |c| {
            let id = find_group(c, &group)?;
            let text: String = c
                .prepare_cached("SELECT tags FROM logs_group WHERE id = ?1")?
                .query_row([id], |row| row.get(0))?;
            let mut tags: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
            tags.extend(add);
            tags.retain(|key, _| !remove.contains(key));
            let text = tags_text(&tags)?;
            c.prepare_cached("UPDATE logs_group SET tags = ?2 WHERE id = ?1")?
                .execute((id, text))?;
            Ok(())
        })
    }

    fn create_stream(&self, group: &GroupName, stream: &str, now: Timestamp) -> Result<(), LogError> {
        let (group, stream) = (group.clone(), stream.to_owned());
        self.database.write(move |c| {
            let id = find_group(c, &group)?;
            if insert_stream(c, id, &stream, now)? {
                Ok(())
            } else {
                Err(LogError::Exists)
            }
        })
    }

    fn ensure_stream(&self, group: &GroupName, stream: &str, now: Timestamp) -> Result<(), LogError> {
        match self.tail(group, stream) {
            Err(LogError::NoGroup | LogError::NoStream) => {}
            other => return other.map(|_| ()),
        }
        let (group, stream) = (group.clone(), stream.to_owned());
        self.database.write(move |c| {
            insert_group(c, &group, "{}", now)?;
            insert_stream(c, find_group(c, &group)?, &stream, now)?;
            Ok(())
        })
    }

    fn delete_stream(&self, group: &GroupName, stream: &str) -> Result<(), LogError> {
        let id = self.tail(group, stream)?.stream;
        self.database.write(move |c| {
            let gone = c
                .prepare_cached("DELETE FROM logs_stream WHERE id = ?1")?
                .execute([id])?;
            if gone == 1 { Ok(()) } else { Err(LogError::NoStream) }
        })?;
        self.remove_folders(&[id]);
        Ok(())
    }

    fn streams(&self, group: &GroupName, query: &StreamQuery) -> Result<Listing<LogStream>, LogError> {
        self.database.read(|c| {
            let id = find_group(c, group)?;
            let mut sql = String::from(
                "SELECT name, created, first_event, last_event, last_ingestion FROM logs_stream WHERE grp = ?",
            );
            let mut values: Vec<Sql> = vec![id.into()];
            prefix_condition(&mut sql, &mut values, query.prefix.as_deref());
            let (beyond, order) = if query.descending { ("<", "DESC") } else { (">", "ASC") };
            if let Some(after) = &query.after {
                if query.by_last_event {
                    sql.push_str(&format!(" AND (coalesce(last_event, 0), name) {beyond} (?, ?)"));
                    values.push(after.last_event.into());
                } else {
                    sql.push_str(&format!(" AND name {beyond} ?"));
                }
                values.push(after.name.clone().into());
            }
            sql.push_str(&match query.by_last_event {
                true => format!(" ORDER BY coalesce(last_event, 0) {order}, name {order} LIMIT ?"),
                false => format!(" ORDER BY name {order} LIMIT ?"),
            });
            listing(c, &sql, values, query.limit, |row| {
                let name: String = row.get(0)?;
                let time = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp));
                Ok(LogStream {
                    name: name.into(),
                    created: Timestamp(row.get(1)?),
                    first_event: time(2)?,
                    last_event: time(3)?,
                    last_ingestion: time(4)?,
                })
            })
        })
    }

    fn append(&self, group: &GroupName, stream: &str, events: &[LogEvent], now: Timestamp) -> Result<(), LogError> {
        self.append_and(group, stream, events, now, |_| Ok(()))
    }

    fn append_from(
        &self,
        group: &GroupName,
        stream: &str,
        source: &Source<'_>,
        events: &[LogEvent],
        now: Timestamp,
    ) -> Result<u64, LogError> {
        let at = self.source_offset(source.id)?;
        if at != source.from {
            return Ok(at);
        }
        let (id, from, to) = (source.id.to_owned(), offset(source.from)?, offset(source.to)?);
        let moved = self.append_and(group, stream, events, now, move |c| {
            c.prepare_cached("INSERT INTO logs_source (id, offset) VALUES (?1, 0) ON CONFLICT DO NOTHING")?
                .execute([&id])?;
            let moved = c
                .prepare_cached("UPDATE logs_source SET offset = ?3 WHERE id = ?1 AND offset = ?2")?
                .execute((&id, from, to))?;
            // Somebody else ingested the same range between our look and our turn: drop ours.
            if moved == 1 { Ok(()) } else { Err(LogError::Exists) }
        });
        match moved {
            Ok(()) => Ok(source.to),
            Err(LogError::Exists) => self.source_offset(source.id),
            Err(error) => Err(error),
        }
    }

    fn source_offset(&self, source_id: &str) -> Result<u64, LogError> {
        self.database.read(|c| {
            let offset: Option<i64> = c
                .prepare_cached("SELECT offset FROM logs_source WHERE id = ?1")?
                .query_row([source_id], |row| row.get(0))
                .optional()?;
            Ok(u64::try_from(offset.unwrap_or(0)).unwrap_or(0))
        })
    }

    fn sources(&self) -> Result<Vec<String>, LogError> {
        self.database.read(|c| {
            let mut all = c.prepare_cached("SELECT id FROM logs_source")?;
            let ids = all.query_map((), |row| row.get(0))?;
            Ok(ids.collect::<Result<_, _>>()?)
        })
    }

    fn forget_source(&self, source_id: &str) -> Result<(), LogError> {
        let id = source_id.to_owned();
        self.database.write(move |c| {
            c.prepare_cached("DELETE FROM logs_source WHERE id = ?1")?
                .execute([id])?;
            Ok(())
        })
    }

    fn read(
        &self,
        group: &GroupName,
        stream: &str,
        from: &ReadFrom,
        range: TimeRange,
        limit: usize,
        now: Timestamp,
    ) -> Result<EventPage, LogError> {
        self.database.read(|c| {
            let id = find_group(c, group)?;
            let of_stream: i64 = c
                .prepare_cached("SELECT id FROM logs_stream WHERE grp = ?1 AND name = ?2")?
                .query_row((id, stream), |row| row.get(0))
                .optional()?
                .ok_or(LogError::NoStream)?;
            let reach = Reach::new(range, kept_since(c, id, now)?);
            read::page(c, &self.root, of_stream, stream, from, reach, limit)
        })
    }

    fn filter(&self, group: &GroupName, query: &FilterQuery, now: Timestamp) -> Result<FilterPage, LogError> {
        self.database.read(|c| {
            let id = find_group(c, group)?;
            let reach = Reach::new(query.range, kept_since(c, id, now)?);
            read::filter(c, &self.root, id, query, reach)
        })
    }

    fn prune(&self, now: Timestamp) -> Result<u64, LogError> {
        // A stream's last segment stays: its end is where the next append goes.
        let stale = self.database.read::<_, LogError>(|c| {
            let mut statement = c.prepare_cached(
                "SELECT b.stream, b.segment FROM logs_group g JOIN logs_stream s ON s.grp = g.id \
                 JOIN logs_block b ON b.stream = s.id WHERE g.retention_days IS NOT NULL AND b.segment < s.segment \
                 GROUP BY b.stream, b.segment HAVING max(b.max_time) < ?1 - max(g.retention_days) * ?2",
            )?;
            let rows = statement.query_map((now.0, DAY), |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<Vec<(i64, i64)>>>()?)
        })?;
        let mut freed = 0;
        for (stream, segment) in stale {
            self.database.write::<_, LogError>(move |c| {
                c.prepare_cached("DELETE FROM logs_block WHERE stream = ?1 AND segment = ?2")?
                    .execute((stream, segment))?;
                Ok(())
            })?;
            let path = segment::path(&self.root, stream, segment);
            freed += std::fs::metadata(&path).map_or(0, |file| file.len());
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LogError::Segment { path, source });
                }
                _ => {}
            }
        }
        Ok(freed)
    }
}

/// The earliest time a group's retention still shows.
fn kept_since(c: &Connection, group: i64, now: Timestamp) -> Result<i64, LogError> {
    let days: Option<i64> = c
        .prepare_cached("SELECT retention_days FROM logs_group WHERE id = ?1")?
        .query_row([group], |row| row.get(0))?;
    Ok(days.map_or(i64::MIN, |days| now.0.saturating_sub(days.saturating_mul(DAY))))
}

fn offset(value: u64) -> Result<i64, LogError> {
    i64::try_from(value).map_err(|error| LogError::Index(crate::StoreError::Database(Box::new(error))))
}

/// Restricts `name` to a prefix.
pub(super) fn prefix_condition(sql: &mut String, values: &mut Vec<Sql>, prefix: Option<&str>) {
    let Some(prefix) = prefix.filter(|prefix| !prefix.is_empty()) else {
        return;
    };
    sql.push_str(" AND name >= ?");
    values.push(prefix.to_owned().into());
    if let Some(end) = prefix_end(prefix) {
        sql.push_str(" AND name < ?");
        values.push(end.into());
    }
}

fn listing<T>(
    c: &Connection,
    sql: &str,
    mut values: Vec<Sql>,
    limit: usize,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Listing<T>, LogError> {
    values.push(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1).into());
    let mut statement = c.prepare_cached(sql)?;
    let mut rows = statement
        .query_map(params_from_iter(values), read)?
        .collect::<rusqlite::Result<Vec<T>>>()?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    Ok(Listing { rows, more })
}
