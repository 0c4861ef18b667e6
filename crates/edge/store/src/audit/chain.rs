//! The files and the chain: what a line is, how one follows another, and how a whole trail is checked.

use super::AuditError;
use isolarium_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The event that says which files the retention took away.
pub(super) const PRUNED: &str = "TrailPruned";

/// The end of the chain: how many events there are, and the hash of the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    pub events: u64,
    /// 64 hexadecimal digits; zeros before the first event.
    pub hash: String,
}

impl Head {
    pub(super) fn origin() -> Self {
        Self {
            events: 0,
            hash: "0".repeat(64),
        }
    }
}

/// One line as it is read.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    pub(super) n: u64,
    pub(super) at: Timestamp,
    previous: String,
    #[serde(borrow)]
    pub(super) event: &'a RawValue,
    #[serde(borrow, default)]
    pub(super) engine: Option<&'a RawValue>,
    hash: String,
}

/// Details of a [`PRUNED`] record: the first event that is left, and the hash of the one before it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pruned {
    pub(super) first_kept: u64,
    pub(super) previous: String,
    pub(super) files: u64,
}

/// Text behind what a buffer holds.
macro_rules! put {
    ($buffer:expr, $($text:tt)*) => {
        // Memory does not refuse.
        let _written = write!($buffer, $($text)*);
    };
}

/// What the hash begins with is shorter, bytes.
const BEGIN: usize = 160;

/// Writes a line behind `buffer` and returns the hash that ends it.
pub(super) fn write_line(
    buffer: &mut Vec<u8>,
    head: &Head,
    at: Timestamp,
    event: &[u8],
    engine: Option<&[u8]>,
) -> String {
    let hash = hash(head.events, at, &head.hash, event, engine.unwrap_or_default());
    put!(
        buffer,
        "{{\"n\":{},\"at\":{},\"previous\":\"{}\",\"event\":",
        head.events,
        at.0,
        head.hash
    );
    buffer.extend_from_slice(event);
    if let Some(engine) = engine {
        buffer.extend_from_slice(b",\"engine\":");
        buffer.extend_from_slice(engine);
    }
    put!(buffer, ",\"hash\":\"{hash}\"}}\n");
    hash
}

/// The hash of a line covers everything before it in the line. The lengths keep its parts from running into each other.
fn hash(n: u64, at: Timestamp, previous: &str, event: &[u8], engine: &[u8]) -> String {
    let mut hash = Sha256::new();
    let mut begin = Vec::with_capacity(BEGIN);
    put!(begin, "{n} {} {previous} {} {} ", at.0, event.len(), engine.len());
    hash.update(begin);
    hash.update(event);
    hash.update(engine);
    let mut digits = [0; 64];
    // Twice as many digits as bytes: they fit, and they are ASCII.
    let _fits = hex::encode_to_slice(hash.finalize(), &mut digits);
    String::from_utf8_lossy(&digits).into_owned()
}

/// A whole trail that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Number of the first event that is left; the retention took those before it.
    pub first: u64,
    pub head: Head,
    pub files: usize,
    /// Bytes behind the last whole line: a write that is going on, or that a crash cut short.
    pub torn: u64,
}

/// Checks a whole trail from its first line to its last. `kept` is the hash of an event that somebody wrote down
/// elsewhere: a trail that does not hold it was cut off or replaced.
///
/// # Errors
/// `Broken` at the first line that is not the one that was written, `Unknown` when `kept` is not in it, or when a file
/// cannot be read.
pub fn verify(folder: &Path, kept: Option<&str>) -> Result<Verified, AuditError> {
    let files = files(folder)?;
    let mut walk = Walk::default();
    let mut head = Head::origin();
    let mut first = 0;
    let mut torn = 0;
    for (index, path) in files.iter().enumerate() {
        if index == 0 {
            (first, head) = beginning(path)?;
        }
        if *path != file_path(folder, head.events) {
            return Err(broken(path, 0, "a file before it is missing or incomplete"));
        }
        let tail = if index + 1 == files.len() {
            Tail::MayBeTorn
        } else {
            Tail::Whole
        };
        let (end, size) = walk.file(path, head, tail, kept)?;
        head = end;
        torn = fs::metadata(path).map_err(failed(path))?.len().saturating_sub(size);
    }
    if let (Some(path), true) = (files.first(), first > 0)
        && walk
            .pruned
            .as_ref()
            .is_none_or(|pruned| pruned.first_kept != first || Some(&pruned.previous) != walk.began.as_ref())
    {
        return Err(broken(
            path,
            1,
            "files before it are missing, and no record in the trail says that they were removed",
        ));
    }
    match kept {
        Some(hash) if !walk.found && hash != Head::origin().hash => Err(AuditError::Unknown { hash: hash.into() }),
        _ => Ok(Verified {
            first,
            head,
            files: files.len(),
            torn,
        }),
    }
}

/// Number of the first event of the first file, and the end of the chain that its line says it follows.
fn beginning(path: &Path) -> Result<(u64, Head), AuditError> {
    let mut text = Vec::new();
    BufReader::new(File::open(path).map_err(failed(path))?)
        .read_until(b'\n', &mut text)
        .map_err(failed(path))?;
    if !text.ends_with(b"\n") {
        return Ok((0, Head::origin()));
    }
    let line: Line<'_> = serde_json::from_slice(&text).map_err(|_| broken(path, 1, "the line cannot be read"))?;
    if line.n == 0 {
        return Ok((0, Head::origin()));
    }
    let head = Head {
        events: line.n,
        hash: line.previous,
    };
    Ok((line.n, head))
}

/// Whether a file may end in a line that a crash cut short.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    Whole,
    MayBeTorn,
}

/// What a walk through files has met.
#[derive(Default)]
pub(super) struct Walk {
    /// The hash that the very first line follows.
    began: Option<String>,
    /// The last record of a removal.
    pruned: Option<Pruned>,
    found: bool,
}

impl Walk {
    /// Checks one file against the end of the chain before it; the new end, and the bytes of whole lines.
    pub(super) fn file(
        &mut self,
        path: &Path,
        mut head: Head,
        tail: Tail,
        kept: Option<&str>,
    ) -> Result<(Head, u64), AuditError> {
        let mut reader = BufReader::new(File::open(path).map_err(failed(path))?);
        let (mut size, mut number) = (0_u64, 0_u64);
        let mut text = Vec::new();
        loop {
            text.clear();
            number += 1;
            let count = reader.read_until(b'\n', &mut text).map_err(failed(path))?;
            if count == 0 {
                return Ok((head, size));
            }
            let broken = |fault| broken(path, number, fault);
            let Some(whole) = text.strip_suffix(b"\n") else {
                return if tail == Tail::MayBeTorn {
                    Ok((head, size))
                } else {
                    Err(broken("the line is cut short"))
                };
            };
            let line: Line<'_> = serde_json::from_slice(whole).map_err(|_| broken("the line cannot be read"))?;
            if line.n != head.events || line.previous != head.hash {
                return Err(broken("it does not follow the line before it"));
            }
            let engine = line.engine.map(RawValue::get).unwrap_or_default();
            let said = hash(
                line.n,
                line.at,
                &line.previous,
                line.event.get().as_bytes(),
                engine.as_bytes(),
            );
            if line.hash != said {
                return Err(broken("it is not what its hash says"));
            }
            self.began.get_or_insert_with(|| line.previous.clone());
            self.found |= kept == Some(line.hash.as_str());
            if line.event.get().contains(PRUNED)
                && let Some(pruned) = read_pruned(line.event)
            {
                self.pruned = Some(pruned);
            }
            head = Head {
                events: line.n.saturating_add(1),
                hash: line.hash,
            };
            size = size.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }
}

/// The removal that an event of the trail's own records; `None` for every other event, also one that a caller made to
/// look alike (its type is `AwsApiCall`).
fn read_pruned(event: &RawValue) -> Option<Pruned> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Own {
        event_type: String,
        event_name: String,
        service_event_details: Option<Pruned>,
    }
    let own: Own = serde_json::from_str(event.get()).ok()?;
    (own.event_type == "AwsServiceEvent" && own.event_name == PRUNED)
        .then_some(own.service_event_details)
        .flatten()
}

/// The end of the chain that a file says it ends with. The next file is checked against it.
pub(super) fn last_of(path: &Path) -> Result<Head, AuditError> {
    let mut last = None;
    for text in BufReader::new(File::open(path).map_err(failed(path))?).split(b'\n') {
        last = Some(text.map_err(failed(path))?);
    }
    let broken = || broken(path, 0, "its last line cannot be read");
    let text = last.ok_or_else(broken)?;
    let line: Line<'_> = serde_json::from_slice(&text).map_err(|_| broken())?;
    Ok(Head {
        events: line.n.saturating_add(1),
        hash: line.hash,
    })
}

/// Time of a file's first event, and what it follows; `None` when it has no whole line.
pub(super) fn first_of(path: &Path) -> Result<Option<(Timestamp, String)>, AuditError> {
    let mut text = Vec::new();
    BufReader::new(File::open(path).map_err(failed(path))?)
        .read_until(b'\n', &mut text)
        .map_err(failed(path))?;
    let line: Option<Line<'_>> = serde_json::from_slice(&text).ok();
    Ok(line.map(|line| (line.at, line.previous)))
}

/// The file that begins with a given event.
pub(super) fn file_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.jsonl"))
}

/// The number in a file's name.
pub(super) fn first_event(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let entries =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    let mut files: Vec<PathBuf> = entries.map_err(failed(folder))?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    Ok(files)
}

pub(super) fn append_to(path: &Path) -> Result<File, AuditError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(failed(path))
}

pub(super) fn sync(folder: &Path) -> Result<(), AuditError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder))
}

fn broken(path: &Path, line: u64, fault: &'static str) -> AuditError {
    AuditError::Broken {
        path: path.into(),
        line,
        fault,
    }
}

pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> AuditError {
    let path = path.to_path_buf();
    move |source| AuditError::File {
        path: path.clone(),
        source,
    }
}
