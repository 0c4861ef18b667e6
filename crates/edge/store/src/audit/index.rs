//! Where to find an event: a SQLite file beside the trail, made from it and thrown away without loss. Requests do not pay
//! for it: it is brought up to date when somebody asks, and now and then.

use super::chain::{Line, failed, files, first_event};
use super::event::{Decision, EventResource};
use super::{AuditError, lookup_horizon};
use crate::database::{Database, Schema};
use crate::state::StoreError;
use isolarium_model::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const SCHEMA: Schema = Schema {
    module: "audit",
    steps: &["
        CREATE TABLE audit_events (
            n INTEGER PRIMARY KEY,
            at INTEGER NOT NULL,
            account TEXT NOT NULL,
            region TEXT NOT NULL,
            management INTEGER NOT NULL,
            name TEXT NOT NULL,
            source TEXT NOT NULL,
            event_id TEXT NOT NULL,
            request_id TEXT NOT NULL,
            username TEXT,
            access_key_id TEXT,
            read_only INTEGER NOT NULL,
            file INTEGER NOT NULL,
            place INTEGER NOT NULL,
            length INTEGER NOT NULL
        );
        CREATE INDEX audit_by_scope ON audit_events (account, region, management, n);
        CREATE INDEX audit_by_request ON audit_events (request_id);
        CREATE INDEX audit_by_event ON audit_events (event_id);
        CREATE TABLE audit_resources (
            n INTEGER NOT NULL,
            type TEXT NOT NULL,
            name TEXT NOT NULL,
            arn TEXT NOT NULL
        );
        CREATE INDEX audit_resources_by_event ON audit_resources (n);
        CREATE INDEX audit_resources_by_name ON audit_resources (name, n);
        CREATE INDEX audit_resources_by_arn ON audit_resources (arn, n);
        CREATE TABLE audit_position (one INTEGER PRIMARY KEY CHECK (one = 1), file INTEGER NOT NULL, place INTEGER NOT NULL);
        "],
};

/// Lines that one transaction takes.
const BATCH: usize = 4096;

/// A question of `LookupEvents`.
#[derive(Clone, Debug)]
pub struct Lookup {
    pub account: String,
    pub region: String,
    pub attribute: Option<Attribute>,
    /// Inclusive bounds of the event's time.
    pub from: Timestamp,
    pub to: Timestamp,
    /// Only events with a smaller number.
    pub before: Option<u64>,
    pub limit: usize,
}

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    EventId(String),
    EventName(String),
    ReadOnly(bool),
    Username(String),
    ResourceType(String),
    /// The name or the ARN.
    ResourceName(String),
    EventSource(String),
    AccessKeyId(String),
}

/// An event as it stands in the trail.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its number in the chain.
    pub n: u64,
    pub at: Timestamp,
    pub username: Option<String>,
    /// The CloudTrail record, JSON.
    pub event: String,
    pub resources: Vec<EventResource>,
    /// What the engine decided, JSON; for the operator alone.
    pub engine: Option<String>,
}

/// The index of one trail.
pub(super) struct Index {
    folder: PathBuf,
    database: Database,
    /// One catches up at a time.
    catching_up: Mutex<()>,
}

/// What the index reads of an event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    user_identity: Who,
    event_source: String,
    event_name: String,
    aws_region: String,
    #[serde(rename = "requestID")]
    request_id: String,
    #[serde(rename = "eventID")]
    event_id: String,
    read_only: bool,
    #[serde(default)]
    resources: Vec<EventResource>,
    management_event: bool,
    recipient_account_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Who {
    #[serde(rename = "type")]
    kind: String,
    user_name: Option<String>,
    arn: Option<String>,
    access_key_id: Option<String>,
}

impl Who {
    /// CloudTrail's `Username`: of a session its name.
    fn username(self) -> Option<String> {
        match self.kind.as_str() {
            "Root" => Some("root".into()),
            "AssumedRole" => self.arn?.rsplit('/').next().map(Into::into),
            _ => self.user_name,
        }
    }
}

struct Row {
    n: u64,
    at: Timestamp,
    seen: Seen,
    file: u64,
    place: u64,
    length: usize,
}

impl Index {
    pub(super) fn open(folder: &Path) -> Result<Self, AuditError> {
        Ok(Self {
            folder: folder.into(),
            database: Database::open(&folder.join("index.db"), &[SCHEMA])?,
            catching_up: Mutex::default(),
        })
    }

    /// Reads what was written since the last time.
    pub(super) fn catch_up(&self) -> Result<(), AuditError> {
        let _alone = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        let position: Option<(u64, u64)> = self.database.read(|connection| {
            connection
                .query_row("SELECT file, place FROM audit_position", [], |row| {
                    Ok((number(row.get(0)?), number(row.get(1)?)))
                })
                .optional()
                .map_err(StoreError::from)
        })?;
        for path in files(&self.folder)? {
            let Some(first) = first_event(&path) else { continue };
            match position {
                Some((file, _)) if first < file => {}
                Some((file, place)) if first == file => self.read_file(&path, first, place)?,
                _ => self.read_file(&path, first, 0)?,
            }
        }
        Ok(())
    }

    fn read_file(&self, path: &Path, file: u64, mut place: u64) -> Result<(), AuditError> {
        let mut open = File::open(path).map_err(failed(path))?;
        // A line that is being written has no end yet; a file that was cut begins anew.
        if open.metadata().map_err(failed(path))?.len() <= place {
            return Ok(());
        }
        open.seek(SeekFrom::Start(place)).map_err(failed(path))?;
        let mut reader = BufReader::new(open);
        let mut text = Vec::new();
        loop {
            let mut rows = Vec::new();
            let begun = place;
            while rows.len() < BATCH {
                text.clear();
                let length = reader.read_until(b'\n', &mut text).map_err(failed(path))?;
                if !text.ends_with(b"\n") {
                    break;
                }
                // A line that is not the engine's is `verify`'s business.
                if may_be_wanted(&text)
                    && let Ok(line) = serde_json::from_slice::<Line<'_>>(&text)
                    && let Ok(seen) = serde_json::from_str::<Seen>(line.event.get())
                    && (seen.management_event || denied(line.engine))
                {
                    rows.push(Row {
                        n: line.n,
                        at: line.at,
                        seen,
                        file,
                        place,
                        length,
                    });
                }
                place = place.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            }
            if place == begun {
                return Ok(());
            }
            self.database
                .write(move |connection| store(connection, rows, file, place))?;
        }
    }

    pub(super) fn lookup(&self, lookup: &Lookup) -> Result<Vec<Recorded>, AuditError> {
        let mut sql = String::from(
            "SELECT n, at, username, file, place, length FROM audit_events \
             WHERE account = ? AND region = ? AND management = 1 AND at >= ? AND at <= ?",
        );
        let mut values = vec![
            Value::from(lookup.account.clone()),
            Value::from(lookup.region.clone()),
            Value::from(lookup.from.0),
            Value::from(lookup.to.0),
        ];
        if let Some(before) = lookup.before {
            sql.push_str(" AND n < ?");
            values.push(integer(before).into());
        }
        let (condition, value): (&str, Option<Value>) = match &lookup.attribute {
            None => ("", None),
            Some(Attribute::EventId(id)) => (" AND event_id = ?", Some(id.clone().into())),
            Some(Attribute::EventName(name)) => (" AND name = ?", Some(name.clone().into())),
            Some(Attribute::ReadOnly(value)) => (" AND read_only = ?", Some(i64::from(*value).into())),
            Some(Attribute::Username(name)) => (" AND username = ?", Some(name.clone().into())),
            Some(Attribute::EventSource(source)) => (" AND source = ?", Some(source.clone().into())),
            Some(Attribute::AccessKeyId(id)) => (" AND access_key_id = ?", Some(id.clone().into())),
            Some(Attribute::ResourceType(kind)) => (
                " AND EXISTS (SELECT 1 FROM audit_resources r WHERE r.n = audit_events.n AND r.type = ?)",
                Some(kind.clone().into()),
            ),
            Some(Attribute::ResourceName(name)) => {
                values.push(name.clone().into());
                (
                    " AND n IN (SELECT n FROM audit_resources WHERE name = ? UNION SELECT n FROM audit_resources WHERE arn = ?)",
                    Some(name.clone().into()),
                )
            }
        };
        sql.push_str(condition);
        values.extend(value);
        sql.push_str(" ORDER BY n DESC LIMIT ?");
        values.push(integer(u64::try_from(lookup.limit).unwrap_or(u64::MAX)).into());
        self.recorded(&sql, values)
    }

    pub(super) fn request(&self, request_id: &str) -> Result<Vec<Recorded>, AuditError> {
        let sql =
            "SELECT n, at, username, file, place, length FROM audit_events WHERE request_id = ? ORDER BY n LIMIT 100";
        self.recorded(sql, vec![Value::from(request_id.to_owned())])
    }

    fn recorded(&self, sql: &str, values: Vec<Value>) -> Result<Vec<Recorded>, AuditError> {
        let places: Vec<Place> = self.database.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params_from_iter(values), |row| {
                Ok(Place {
                    n: number(row.get(0)?),
                    at: Timestamp(row.get(1)?),
                    username: row.get(2)?,
                    file: number(row.get(3)?),
                    place: number(row.get(4)?),
                    length: number(row.get(5)?),
                })
            })?;
            rows.collect::<Result<_, _>>().map_err(StoreError::from)
        })?;
        places
            .into_iter()
            .filter_map(|place| self.read(place).transpose())
            .collect()
    }

    /// The line at a place; `None` when the retention took its file meanwhile.
    fn read(&self, at: Place) -> Result<Option<Recorded>, AuditError> {
        let path = super::file_path(&self.folder, at.file);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path)(error)),
        };
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(at.place))
            .and_then(|_| file.take(at.length).read_to_end(&mut text))
            .map_err(failed(&path))?;
        let Ok(line) = serde_json::from_slice::<Line<'_>>(&text) else {
            return Ok(None);
        };
        #[derive(Deserialize)]
        struct About {
            #[serde(default)]
            resources: Vec<EventResource>,
        }
        let about: Option<About> = serde_json::from_str(line.event.get()).ok();
        Ok(Some(Recorded {
            n: at.n,
            at: at.at,
            username: at.username,
            event: line.event.get().to_owned(),
            resources: about.map(|about| about.resources).unwrap_or_default(),
            engine: line.engine.map(|engine| engine.get().to_owned()),
        }))
    }

    /// Forgets what the retention removed, and what is too old for every question.
    pub(super) fn forget(&self, first_kept: u64) -> Result<(), AuditError> {
        self.database.write(move |connection| {
            let kept = integer(first_kept);
            connection.execute("DELETE FROM audit_events WHERE n < ?1", [kept])?;
            connection.execute("DELETE FROM audit_resources WHERE n < ?1", [kept])?;
            Ok::<_, AuditError>(())
        })
    }

    /// Forgets what lookups no longer tell of.
    pub(super) fn forget_old(&self, now: Timestamp) -> Result<(), AuditError> {
        let horizon = lookup_horizon(now).0;
        self.database.write(move |connection| {
            let oldest: Option<i64> =
                connection.query_row("SELECT min(n) FROM audit_events WHERE at >= ?1", [horizon], |row| {
                    row.get(0)
                })?;
            let Some(oldest) = oldest else { return Ok(()) };
            connection.execute("DELETE FROM audit_events WHERE n < ?1", [oldest])?;
            connection.execute("DELETE FROM audit_resources WHERE n < ?1", [oldest])?;
            Ok::<_, AuditError>(())
        })
    }
}

struct Place {
    n: u64,
    at: Timestamp,
    username: Option<String>,
    file: u64,
    place: u64,
    length: u64,
}

/// Whether a line may be of a management event or of a denial. The engine writes both without blanks, and a quotation mark
/// within a text is never alone: the lines of allowed invocations, which are most, are told apart without reading them.
fn may_be_wanted(line: &[u8]) -> bool {
    let has = |line: &str| line.contains("\"managementEvent\":true") || line.contains("\"decision\":\"deny\"");
    // What is no text is no JSON either.
    std::str::from_utf8(line).is_ok_and(has)
}

fn denied(engine: Option<&RawValue>) -> bool {
    #[derive(Deserialize)]
    struct Ended {
        decision: Decision,
    }
    engine
        .and_then(|engine| serde_json::from_str::<Ended>(engine.get()).ok())
        .is_some_and(|ended| ended.decision == Decision::Deny)
}

fn store(connection: &Connection, rows: Vec<Row>, file: u64, place: u64) -> Result<(), AuditError> {
    let mut event = connection.prepare_cached(
        "INSERT OR REPLACE INTO audit_events (n, at, account, region, management, name, source, event_id, request_id, \
         username, access_key_id, read_only, file, place, length) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    let mut resource =
        connection.prepare_cached("INSERT INTO audit_resources (n, type, name, arn) VALUES (?1, ?2, ?3, ?4)")?;
    for row in rows {
        let Row {
            n,
            at,
            mut seen,
            file,
            place,
            length,
        } = row;
        let access_key_id = seen.user_identity.access_key_id.take();
        event.execute(params![
            integer(n),
            at.0,
            seen.recipient_account_id,
            seen.aws_region,
            seen.management_event,
            seen.event_name,
            seen.event_source,
            seen.event_id,
            seen.request_id,
            seen.user_identity.username(),
            access_key_id,
            seen.read_only,
            integer(file),
            integer(place),
            integer(u64::try_from(length).unwrap_or(u64::MAX)),
        ])?;
        for about in seen.resources {
            let name = about.name().to_owned();
            resource.execute(params![integer(n), about.kind.unwrap_or_default(), name, about.arn])?;
        }
    }
    connection.execute(
        "INSERT INTO audit_position (one, file, place) VALUES (1, ?1, ?2) \
         ON CONFLICT (one) DO UPDATE SET file = ?1, place = ?2",
        [integer(file), integer(place)],
    )?;
    Ok(())
}

impl From<rusqlite::Error> for AuditError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Index(error.into())
    }
}

/// SQLite's integers are signed; numbers of events and places in files never come near the sign.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}
