//! Log groups, streams and events (IAM-66). Names, times and positions live in the database; the events themselves in
//! append-only segment files, one folder per stream. An acknowledged append survives a crash of the machine.

pub mod disk;
pub mod pattern;
mod read;
mod segment;

use crate::state::StoreError;
use isolarium_model::Timestamp;
use isolarium_model::logs::{GroupName, LogEvent, LogGroup, LogStream};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub use disk::DiskLogs;
pub use pattern::{BadPattern, Pattern};

/// Most events in one page of a read, AWS's limit for GetLogEvents and FilterLogEvents.
pub const PAGE_EVENTS: usize = 10_000;
/// Most bytes of messages in one page of a read.
pub const PAGE_BYTES: usize = 1 << 20;

/// An event as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    pub event: LogEvent,
    /// When the engine accepted it.
    pub ingested: Timestamp,
    /// The stream it belongs to.
    pub stream: Box<str>,
    /// Unique and increasing with time, as FilterLogEvents shows it: 56 digits.
    pub id: String,
}

/// A page of groups or streams; `more` says whether others follow the last row.
#[derive(Clone, Debug)]
pub struct Listing<T> {
    pub rows: Vec<T>,
    pub more: bool,
}

/// Which groups to list, by name.
#[derive(Clone, Debug)]
pub struct GroupQuery {
    pub prefix: Option<String>,
    /// Substring of the name, without regard to case.
    pub contains: Option<String>,
    /// Name of the last group of the previous page.
    pub after: Option<String>,
    pub limit: usize,
}

/// Where a page of streams ended: its last stream's name and, when sorting by time, its last event's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    pub last_event: i64,
    pub name: String,
}

/// Which streams to list.
#[derive(Clone, Debug)]
pub struct StreamQuery {
    pub prefix: Option<String>,
    /// Sort by the time of the last event instead of the name.
    pub by_last_event: bool,
    pub descending: bool,
    pub after: Option<StreamPosition>,
    pub limit: usize,
}

/// A half-open range of event times.
#[derive(Clone, Copy, Debug)]
pub struct TimeRange {
    /// Inclusive.
    pub start: Option<Timestamp>,
    /// Exclusive.
    pub end: Option<Timestamp>,
}

/// Where a read of one stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the earliest event, towards later ones.
    Head,
    /// At the latest event: the newest page.
    Tail,
    /// Where the `forward` or `backward` token of an earlier page points.
    Token(String),
}

/// A page of one stream, oldest event first.
#[derive(Clone, Debug)]
pub struct EventPage {
    pub events: Vec<StoredEvent>,
    /// Continues after the last event. Reading with it at the end of the stream gives the same token again.
    pub forward: String,
    /// Continues before the first event.
    pub backward: String,
}

/// Which events of a group to look for.
#[derive(Clone, Debug)]
pub struct FilterQuery {
    /// These streams only; empty means all.
    pub streams: Vec<String>,
    pub stream_prefix: Option<String>,
    pub range: TimeRange,
    pub pattern: Pattern,
    /// Token of the previous page.
    pub after: Option<String>,
    pub limit: usize,
}

/// Matching events of a group, interleaved by time. A page may be empty and still have a successor.
#[derive(Clone, Debug)]
pub struct FilterPage {
    pub events: Vec<StoredEvent>,
    /// Only when there may be more.
    pub next: Option<String>,
}

/// What can go wrong. The first four are the caller's to handle.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("there is no such log group")]
    NoGroup,
    #[error("there is no such log stream")]
    NoStream,
    #[error("it exists already")]
    Exists,
    #[error("the token is not one of this log's")]
    BadToken,
    #[error("the log index failed")]
    Index(#[source] StoreError),
    #[error("log segment {path} failed; check the disk that holds the data directory")]
    Segment {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        Self::Index(error)
    }
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Index(error.into())
    }
}

/// Durable logs.
pub trait LogStore: Send + Sync {
    /// Makes a group. `Exists` when there is one.
    fn create_group(&self, group: &GroupName, tags: &BTreeMap<String, String>, now: Timestamp) -> Result<(), LogError>;
    /// Removes a group with its streams and events.
    fn delete_group(&self, group: &GroupName) -> Result<(), LogError>;
    /// One group, if it exists.
    fn group(&self, group: &GroupName) -> Result<Option<LogGroup>, LogError>;
    /// Groups of an account and region by name.
    fn groups(&self, scope: &isolarium_model::Scope, query: &GroupQuery) -> Result<Listing<LogGroup>, LogError>;
    /// Sets or removes the retention. Events beyond it disappear from reads at once and from the disk at [`Self::prune`].
    fn set_retention(&self, group: &GroupName, days: Option<u32>) -> Result<(), LogError>;
    /// Adds or replaces tags, then removes the tags of the keys in `remove`.
    fn tag(&self, group: &GroupName, add: &BTreeMap<String, String>, remove: &[String]) -> Result<(), LogError>;
    /// Makes a stream. `Exists` when there is one.
    fn create_stream(&self, group: &GroupName, stream: &str, now: Timestamp) -> Result<(), LogError>;
    /// Makes group and stream where they are missing (CC-91).
    fn ensure_stream(&self, group: &GroupName, stream: &str, now: Timestamp) -> Result<(), LogError>;
    /// Removes a stream with its events.
    fn delete_stream(&self, group: &GroupName, stream: &str) -> Result<(), LogError>;
    /// Streams of a group.
    fn streams(&self, group: &GroupName, query: &StreamQuery) -> Result<Listing<LogStream>, LogError>;
    /// Appends events; durable when it returns.
    fn append(&self, group: &GroupName, stream: &str, events: &[LogEvent], now: Timestamp) -> Result<(), LogError>;
    /// Appends what was read from a source between two of its byte offsets, exactly once: the source's new offset commits
    /// with the events. When the source is not at `from`, nothing is appended. Either way the answer is the offset from
    /// which the source is to be read next, so a caller that crashed simply goes on there.
    fn append_from(
        &self,
        group: &GroupName,
        stream: &str,
        source: &Source<'_>,
        events: &[LogEvent],
        now: Timestamp,
    ) -> Result<u64, LogError>;
    /// The offset from which a source is to be read next; 0 for one never heard of.
    fn source_offset(&self, source_id: &str) -> Result<u64, LogError>;
    /// Every source of which an offset is kept.
    fn sources(&self) -> Result<Vec<String>, LogError>;
    /// Forgets a source that will not be read again.
    fn forget_source(&self, source_id: &str) -> Result<(), LogError>;
    /// A page of one stream (GetLogEvents). `limit` is at most [`PAGE_EVENTS`]; a page ends at [`PAGE_BYTES`].
    fn read(
        &self,
        group: &GroupName,
        stream: &str,
        from: &ReadFrom,
        range: TimeRange,
        limit: usize,
        now: Timestamp,
    ) -> Result<EventPage, LogError>;
    /// Events of a group that match (FilterLogEvents).
    fn filter(&self, group: &GroupName, query: &FilterQuery, now: Timestamp) -> Result<FilterPage, LogError>;
    /// Removes segments whose events are all beyond their group's retention; returns the bytes freed.
    fn prune(&self, now: Timestamp) -> Result<u64, LogError>;
}

/// A range of bytes of something that is ingested once: a container's output file.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Stable and unique, such as the workload's id and the output's name.
    pub id: &'a str,
    /// First byte of the range.
    pub from: u64,
    /// One past its last byte.
    pub to: u64,
}

#[cfg(test)]
mod tests;
