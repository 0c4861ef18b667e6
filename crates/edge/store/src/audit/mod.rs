//! The audit trail: append-only JSON lines, each carrying the hash of the one before it.
//!
//! A line is `{"n":17,"at":…,"previous":"…","event":{…},"hash":"…"}`, where the hash covers everything before it, the
//! previous hash included. Changing, removing or reordering a line breaks the chain at that place. Files are rotated by
//! size and the chain goes on across them. Cutting lines off the end leaves a shorter chain that is whole in itself:
//! [`AuditTrail::head`] is what to keep elsewhere to notice that.

use isolarium_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Size at which the next file begins.
const FILE_BYTES: u64 = 64 << 20;

/// What is recorded: who did what to what, and how it ended. Members that mean nothing for an event are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// The principal's ARN, or the service or `anonymous`.
    pub principal: String,
    /// `service:Operation`.
    pub action: String,
    /// ARNs of what it was about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// The AWS error code; absent when the operation succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub request_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("audit file {path} failed; check the disk that holds the data directory")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the audit trail is broken at {path} line {line}: {fault}")]
    Broken {
        path: PathBuf,
        line: u64,
        fault: &'static str,
    },
    #[error("an audit event could not be written as JSON")]
    Encode(#[source] serde_json::Error),
}

/// The end of the chain: how many events there are, and the hash of the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub events: u64,
    /// 64 hexadecimal digits; zeros before the first event.
    pub hash: String,
}

impl Head {
    fn origin() -> Self {
        Self {
            events: 0,
            hash: "0".repeat(64),
        }
    }
}

/// An open trail.
pub struct AuditTrail {
    folder: PathBuf,
    file_bytes: u64,
    state: Mutex<Open>,
}

struct Open {
    file: File,
    path: PathBuf,
    size: u64,
    head: Head,
    /// A write failed half-way; the torn line is cut off before the next one.
    torn: bool,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    n: u64,
    at: Timestamp,
    previous: String,
    #[serde(borrow)]
    event: &'a RawValue,
    hash: String,
}

fn hash(n: u64, at: Timestamp, previous: &str, event: &str) -> String {
    // Numbers and the hash have no quotes in them, so the parts cannot run into each other.
    hex::encode(Sha256::digest(format!("{n} {} {previous} {event}", at.0)))
}

impl AuditTrail {
    /// Opens the trail in a folder, going on behind its last whole line; what follows that line came from a crash in the
    /// middle of a write and is cut off.
    ///
    /// # Errors
    /// When the folder cannot be used, or its last file is broken.
    pub fn open(folder: &Path) -> Result<Self, AuditError> {
        Self::with_file_size(folder, FILE_BYTES)
    }

    fn with_file_size(folder: &Path, file_bytes: u64) -> Result<Self, AuditError> {
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let files = files(folder)?;
        let (path, head, size) = match files.last() {
            Some(path) => {
                let start = match files.len().checked_sub(2).and_then(|before| files.get(before)) {
                    Some(before) => last_of(before)?,
                    None => Head::origin(),
                };
                let (head, size) = walk(path, start, Tail::MayBeTorn)?;
                (path.clone(), head, size)
            }
            None => (file_path(folder, 0), Head::origin(), 0),
        };
        let file = append_to(&path)?;
        file.set_len(size)
            .and_then(|()| file.sync_all())
            .map_err(failed(&path))?;
        sync(folder)?;
        let state = Mutex::new(Open {
            file,
            path,
            size,
            head,
            torn: false,
        });
        Ok(Self {
            folder: folder.into(),
            file_bytes,
            state,
        })
    }

    /// Appends one event; durable when it returns.
    ///
    /// # Errors
    /// When the disk fails; the chain is then as it was before.
    pub fn append(&self, event: &AuditEvent, at: Timestamp) -> Result<Head, AuditError> {
        let event = serde_json::value::to_raw_value(event).map_err(AuditError::Encode)?;
        let mut open = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if open.torn {
            open.file.set_len(open.size).map_err(failed(&open.path))?;
            open.torn = false;
        }
        if open.size >= self.file_bytes {
            let path = file_path(&self.folder, open.head.events);
            let file = append_to(&path)?;
            sync(&self.folder)?;
            (open.file, open.path, open.size) = (file, path, 0);
        }
        let (n, previous) = (open.head.events, open.head.hash.clone());
        let hash = hash(n, at, &previous, event.get());
        let line = Line {
            n,
            at,
            previous,
            event: &event,
            hash: hash.clone(),
        };
        let mut text = serde_json::to_vec(&line).map_err(AuditError::Encode)?;
        text.push(b'\n');
        let written = open.file.write_all(&text).and_then(|()| open.file.sync_data());
        if let Err(source) = written {
            open.torn = true;
            return Err(failed(&open.path)(source));
        }
        open.size = open.size.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        open.head = Head {
            events: n.saturating_add(1),
            hash,
        };
        Ok(open.head.clone())
    }

    /// The end of the chain.
    pub fn head(&self) -> Head {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).head.clone()
    }
}

/// Checks a whole trail from its first line to its last.
///
/// # Errors
/// `Broken` at the first line that is not the one that was written, or when a file cannot be read.
pub fn verify(folder: &Path) -> Result<Head, AuditError> {
    let files = files(folder)?;
    let mut head = Head::origin();
    for (index, path) in files.iter().enumerate() {
        if *path != file_path(folder, head.events) {
            return Err(AuditError::Broken {
                path: path.clone(),
                line: 0,
                fault: "a file before it is missing or incomplete",
            });
        }
        let tail = if index + 1 == files.len() {
            Tail::MayBeTorn
        } else {
            Tail::Whole
        };
        head = walk(path, head, tail)?.0;
    }
    Ok(head)
}

/// Whether a file may end in a line that a crash cut short.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    Whole,
    MayBeTorn,
}

/// Checks one file against the end of the chain before it; the new end, and the bytes of whole lines.
fn walk(path: &Path, mut head: Head, tail: Tail) -> Result<(Head, u64), AuditError> {
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
        let broken = |fault| AuditError::Broken {
            path: path.into(),
            line: number,
            fault,
        };
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
        if line.hash != hash(line.n, line.at, &line.previous, line.event.get()) {
            return Err(broken("it is not what its hash says"));
        }
        head = Head {
            events: line.n.saturating_add(1),
            hash: line.hash,
        };
        size = size.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

/// The end of the chain that a file says it ends with. The next file is checked against it.
fn last_of(path: &Path) -> Result<Head, AuditError> {
    let mut last = None;
    for text in BufReader::new(File::open(path).map_err(failed(path))?).split(b'\n') {
        last = Some(text.map_err(failed(path))?);
    }
    let broken = || AuditError::Broken {
        path: path.into(),
        line: 0,
        fault: "its last line cannot be read",
    };
    let text = last.ok_or_else(broken)?;
    let line: Line<'_> = serde_json::from_slice(&text).map_err(|_| broken())?;
    Ok(Head {
        events: line.n.saturating_add(1),
        hash: line.hash,
    })
}

/// The file that begins with a given event.
fn file_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.jsonl"))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let entries =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    let mut files: Vec<PathBuf> = entries.map_err(failed(folder))?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    Ok(files)
}

fn append_to(path: &Path) -> Result<File, AuditError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(failed(path))
}

fn sync(folder: &Path) -> Result<(), AuditError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> AuditError {
    let path = path.to_path_buf();
    move |source| AuditError::File {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
