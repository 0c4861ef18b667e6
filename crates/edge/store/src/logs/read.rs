//! Finding events: pages of one stream, and matching events of a group interleaved by time.
//!
//! Events are ordered by (time, stream, number within the stream). Blocks may overlap in time, so a page is the best few
//! events of all blocks that can hold one; what is kept while looking is bounded by the page, not by the log.

use super::segment::{self, Entry};
use super::{EventPage, FilterPage, FilterQuery, LogError, PAGE_BYTES, PAGE_EVENTS, ReadFrom, StoredEvent, TimeRange};
use isolarium_model::logs::LogEvent;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Bytes of segments that one call of `filter` looks through before it answers with what it has and a token.
const SCAN_BYTES: usize = 32 << 20;

/// The place of an event in the order of reads: time, stream, number within the stream. Numbers start at 0, so -1 lies
/// before every event of that time.
type Place = (i64, i64, i64);

/// Times that may be shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    start: i64,
    end: i64,
}

impl Reach {
    /// The range asked for, less what retention has taken away.
    pub(super) fn new(range: TimeRange, kept_since: i64) -> Self {
        let start = range.start.map_or(i64::MIN, |time| time.0).max(kept_since);
        Self {
            start,
            end: range.end.map_or(i64::MAX, |time| time.0),
        }
    }

    fn shows(self, time: i64) -> bool {
        time >= self.start && time < self.end
    }
}

/// The best events seen so far, within a page's limits.
struct Best {
    latest: bool,
    limit: usize,
    kept: BTreeMap<Place, Entry>,
    bytes: usize,
    /// Something was left out.
    dropped: bool,
}

impl Best {
    fn new(latest: bool, limit: usize) -> Self {
        Self {
            latest,
            limit: limit.clamp(1, PAGE_EVENTS),
            kept: BTreeMap::new(),
            bytes: 0,
            dropped: false,
        }
    }

    fn offer(&mut self, place: Place, entry: Entry) {
        self.bytes += entry.event.message.len();
        self.kept.insert(place, entry);
        while self.kept.len() > self.limit || self.worst().is_some_and(|(_, size)| self.bytes - size >= PAGE_BYTES) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let popped = if self.latest {
            self.kept.pop_first()
        } else {
            self.kept.pop_last()
        };
        self.bytes -= popped.map_or(0, |(_, entry)| entry.event.message.len());
        self.dropped = true;
    }

    fn worst(&self) -> Option<(Place, usize)> {
        let worst = if self.latest {
            self.kept.first_key_value()
        } else {
            self.kept.last_key_value()
        };
        worst.map(|(place, entry)| (*place, entry.event.message.len()))
    }

    /// The time beyond which no block can improve the page.
    fn closed(&self) -> Option<i64> {
        let full = self.kept.len() >= self.limit || self.bytes >= PAGE_BYTES;
        self.worst().filter(|_| full).map(|(place, _)| place.0)
    }

    fn finish(mut self) -> (BTreeMap<Place, Entry>, bool) {
        while self.bytes > PAGE_BYTES && self.kept.len() > 1 {
            self.pop();
        }
        (self.kept, self.dropped)
    }
}

/// One page of a stream.
pub(super) fn page(
    c: &Connection,
    root: &Path,
    stream: i64,
    name: &str,
    from: &ReadFrom,
    reach: Reach,
    limit: usize,
) -> Result<EventPage, LogError> {
    let (latest, place) = match from {
        ReadFrom::Head => (false, (reach.start, -1, -1)),
        ReadFrom::Tail => (true, (reach.end, -1, -1)),
        ReadFrom::Token(text) => parse_token(text, stream)?,
    };
    let mut best = Best::new(latest, limit);
    let mut statement = c.prepare_cached(if latest {
        "SELECT segment, start, length, max_time FROM logs_block WHERE stream = ?1 AND max_time >= ?2 AND min_time <= ?3 \
         ORDER BY max_time DESC, id DESC"
    } else {
        "SELECT segment, start, length, min_time FROM logs_block WHERE stream = ?1 AND max_time >= ?2 AND min_time <= ?3 \
         ORDER BY min_time, id"
    })?;
    let (low, high) = if latest {
        (reach.start, place.0.min(reach.end))
    } else {
        (place.0.max(reach.start), reach.end)
    };
    let mut rows = statement.query((stream, low, high))?;
    while let Some(row) = rows.next()? {
        let edge: i64 = row.get(3)?;
        if best
            .closed()
            .is_some_and(|worst| if latest { edge < worst } else { edge > worst })
        {
            break;
        }
        for entry in block(root, stream, row.get(0)?, row.get(1)?, row.get(2)?)? {
            let at = (entry.event.timestamp.0, stream, number(entry.sequence));
            let beyond = if latest { at < place } else { at > place };
            if beyond && reach.shows(at.0) {
                best.offer(at, entry);
            }
        }
    }
    let (kept, _) = best.finish();
    let first = kept.first_key_value().map(|(place, _)| *place);
    let last = kept.last_key_value().map(|(place, _)| *place);
    let forward = last.unwrap_or(match from {
        ReadFrom::Tail => (reach.start, stream, -1),
        // What a backward read would have given next lies before `place`, so going forward begins with `place` itself.
        ReadFrom::Token(_) if latest => (place.0, stream, place.2.saturating_sub(1)),
        ReadFrom::Head | ReadFrom::Token(_) => place,
    });
    let backward = first.unwrap_or(match from {
        ReadFrom::Token(_) if !latest => (place.0, stream, place.2.saturating_add(1)),
        _ => place,
    });
    let events = kept
        .into_iter()
        .map(|(place, entry)| stored(place, entry, name))
        .collect();
    Ok(EventPage {
        events,
        forward: format!("f/{}.{}", forward.0, forward.2),
        backward: format!("b/{}.{}", backward.0, backward.2),
    })
}

fn parse_token(text: &str, stream: i64) -> Result<(bool, Place), LogError> {
    let parse = || {
        let (latest, rest) = match text.split_once('/')? {
            ("f", rest) => (false, rest),
            ("b", rest) => (true, rest),
            _ => return None,
        };
        let (time, sequence) = rest.split_once('.')?;
        Some((latest, (time.parse().ok()?, stream, sequence.parse().ok()?)))
    };
    parse().ok_or(LogError::BadToken)
}

/// Matching events of a group.
pub(super) fn filter(
    c: &Connection,
    root: &Path,
    group: i64,
    query: &FilterQuery,
    reach: Reach,
) -> Result<FilterPage, LogError> {
    let after = query
        .after
        .as_deref()
        .map_or(Some((reach.start, -1, -1)), parse_filter_token)
        .ok_or(LogError::BadToken)?;
    let chosen = chosen_streams(c, group, query)?;
    let mut sql = String::from(
        "SELECT segment, start, length, min_time, stream FROM logs_block WHERE grp = ? AND max_time >= ? AND min_time < ?",
    );
    let mut values: Vec<Sql> = vec![group.into(), after.0.max(reach.start).into(), reach.end.into()];
    if !query.streams.is_empty() || query.stream_prefix.is_some() {
        sql.push_str(" AND stream IN (SELECT value FROM json_each(?))");
        let ids: Vec<i64> = chosen.keys().copied().collect();
        values.push(serde_json::to_string(&ids).map_err(crate::StoreError::Encode)?.into());
    }
    sql.push_str(" ORDER BY min_time, stream, id");
    let mut best = Best::new(false, query.limit);
    let mut scanned = 0_usize;
    // Where looking stopped for lack of patience; events at or beyond that time may be incomplete.
    let mut paused: Option<i64> = None;
    let mut statement = c.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        let min_time: i64 = row.get(3)?;
        if best.closed().is_some_and(|worst| min_time > worst) {
            best.dropped = true; // not looked at: there may be more
            break;
        }
        if scanned > SCAN_BYTES && min_time > after.0 {
            paused = Some(min_time);
            break;
        }
        let (stream, length): (i64, i64) = (row.get(4)?, row.get(2)?);
        scanned = scanned.saturating_add(usize::try_from(length).unwrap_or(0));
        for entry in block(root, stream, row.get(0)?, row.get(1)?, length)? {
            let at = (entry.event.timestamp.0, stream, number(entry.sequence));
            if at > after && reach.shows(at.0) && query.pattern.matches(&entry.event.message) {
                best.offer(at, entry);
            }
        }
    }
    let (mut kept, dropped) = best.finish();
    let mut next = kept.last_key_value().map(|(place, _)| *place).filter(|_| dropped);
    if let Some(time) = paused {
        let beyond = kept.split_off(&(time, -1, -1));
        if next.is_none() || !beyond.is_empty() {
            next = Some((time, -1, -1));
        }
    }
    let events = kept
        .into_iter()
        .map(|(place, entry)| stored(place, entry, chosen.get(&place.1).map_or("", |name| name)))
        .collect();
    Ok(FilterPage {
        events,
        next: next.map(|(time, stream, sequence)| format!("n/{time}.{stream}.{sequence}")),
    })
}

fn parse_filter_token(text: &str) -> Option<Place> {
    let mut parts = text.strip_prefix("n/")?.split('.').map(|part| part.parse::<i64>());
    let place = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    parts.next().is_none().then_some(place)
}

/// Ids and names of the streams to look at.
fn chosen_streams(c: &Connection, group: i64, query: &FilterQuery) -> Result<HashMap<i64, String>, LogError> {
    let mut sql = String::from("SELECT id, name FROM logs_stream WHERE grp = ?");
    let mut values: Vec<Sql> = vec![group.into()];
    super::disk::prefix_condition(&mut sql, &mut values, query.stream_prefix.as_deref());
    if !query.streams.is_empty() {
        sql.push_str(" AND name IN (SELECT value FROM json_each(?))");
        values.push(
            serde_json::to_string(&query.streams)
                .map_err(crate::StoreError::Encode)?
                .into(),
        );
    }
    let mut statement = c.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let chosen = rows.collect::<rusqlite::Result<HashMap<i64, String>>>()?;
    if query
        .streams
        .iter()
        .any(|name| !chosen.values().any(|found| found == name))
    {
        return Err(LogError::NoStream);
    }
    Ok(chosen)
}

fn block(root: &Path, stream: i64, segment: i64, start: i64, length: i64) -> Result<Vec<Entry>, LogError> {
    let path = segment::path(root, stream, segment);
    segment::read(
        &path,
        u64::try_from(start).unwrap_or(0),
        usize::try_from(length).unwrap_or(0),
    )
}

fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

fn stored(place: Place, entry: Entry, stream: &str) -> StoredEvent {
    let (time, stream_id, sequence) = place;
    StoredEvent {
        id: format!("{:020}{stream_id:016}{sequence:020}", time.max(0)),
        ingested: entry.ingested,
        event: LogEvent {
            timestamp: entry.event.timestamp,
            message: entry.event.message,
        },
        stream: stream.into(),
    }
}
