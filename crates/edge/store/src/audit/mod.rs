//! The audit trail: append-only JSON lines, each carrying the hash of the one before it.
//!
//! A line is `{"n":17,"at":…,"previous":"…","event":{…},"engine":{…},"hash":"…"}`: a CloudTrail record, and beside it
//! what the engine decided, for the operator alone (IAM-27). The hash covers everything before it, the previous hash
//! included: changing, removing or reordering a line breaks the chain at that place. Files are rotated by size and the
//! chain goes on across them. Cutting lines off the end leaves a shorter chain that is whole in itself:
//! [`AuditTrail::head`] is what to keep elsewhere to notice that.
//!
//! One thread writes. A request hands its event to a queue of bounded size; the answer to a change and to a refusal
//! waits until the kernel has the line, so that killing the process loses nothing that was acknowledged. A second thread
//! brings the file to the disk in intervals ([`AuditSettings::sync_interval`]). While nothing can be written
//! [`AuditTrail::ready`] says so, and changes are refused before they are made.

mod chain;
mod event;
mod index;
mod receipt;
mod text;
mod writer;

pub use chain::{Head, Verified, verify};
pub use event::{
    AuditEvent, Decision, EventResource, SessionAttributes, SessionContext, SessionIssuer, TlsDetails, UserIdentity,
};
pub use index::{Attribute, Lookup, Recorded};
pub use receipt::{AuditDown, Receipt};
pub use writer::Keep;

use crate::state::StoreError;
use chain::{PRUNED, Pruned, Tail, Walk, append_to, failed, file_path, files, first_event, first_of, last_of, sync};
use index::Index;
use isolarium_model::Timestamp;
use isolarium_model::time::Clock;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use writer::{Medium, Record, Shared, Writer, keep_synced};

/// How the trail is kept.
#[derive(Clone, Copy, Debug)]
pub struct AuditSettings {
    /// Size at which the next file begins.
    pub file_bytes: u64,
    /// Memory for events that wait to be written, bytes, about.
    pub queue_bytes: usize,
    /// How often what the kernel holds is brought to the disk; zero: before every answer that waits.
    pub sync_interval: Duration,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            queue_bytes: 16 << 20,
            sync_interval: Duration::from_secs(1),
        }
    }
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
    #[error("the trail does not hold the event with hash {hash}: its end was cut off, or it is another trail")]
    Unknown { hash: String },
    #[error("an audit event could not be written as JSON")]
    Encode(#[source] serde_json::Error),
    #[error("the index of the audit trail failed; remove audit/index.db* and start again, it is made anew")]
    Index(#[from] StoreError),
    #[error("{0}")]
    Down(#[from] AuditDown),
}

/// An open trail. Dropping it writes what waits.
pub struct AuditTrail {
    folder: PathBuf,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    clock: Arc<dyn Clock>,
    index: Mutex<Option<Arc<Index>>>,
}

impl AuditTrail {
    /// Opens the trail in a folder, going on behind its last whole line. What follows that line came from a crash in the
    /// middle of a write: nobody was told that it was kept; it is cut off, and a record in the chain says so.
    ///
    /// # Errors
    /// When the folder cannot be used, or its last file is broken: the engine does not go on behind a line that somebody
    /// changed.
    pub fn open(folder: &Path, settings: AuditSettings, clock: Arc<dyn Clock>) -> Result<Self, AuditError> {
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let files = files(folder)?;
        let (path, head, size) = match files.last() {
            Some(path) => {
                let start = match files.len().checked_sub(2).and_then(|before| files.get(before)) {
                    Some(before) => last_of(before)?,
                    // The first file that the retention left says itself what it follows; `verify` checks that.
                    None => match (first_event(path), first_of(path)?) {
                        (Some(events), Some((_, hash))) => Head { events, hash },
                        _ => Head::origin(),
                    },
                };
                let (head, size) = Walk::default().file(path, start, Tail::MayBeTorn, None)?;
                (path.clone(), head, size)
            }
            None => (file_path(folder, 0), Head::origin(), 0),
        };
        let file = append_to(&path)?;
        let torn = file.metadata().map_err(failed(&path))?.len().saturating_sub(size);
        file.set_len(size)
            .and_then(|()| file.sync_all())
            .map_err(failed(&path))?;
        sync(folder)?;
        let file: Arc<dyn Medium> = Arc::new(file);
        let shared = Arc::new(Shared::new(Arc::clone(&file), head.clone(), settings));
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            folder: folder.into(),
            clock: Arc::clone(&clock),
            file,
            path: path.clone(),
            size,
            head,
            torn: false,
        };
        if torn > 0 {
            tracing::warn!(bytes = torn, path = %path.display(), "a line of the audit trail that a crash cut short is gone");
            let details = serde_json::value::to_raw_value(&serde_json::json!({ "bytesCutOff": torn }));
            let event = AuditEvent::of_trail(
                "TrailRecovered",
                clock.now(),
                Some(details.map_err(AuditError::Encode)?),
            );
            writer.write(std::iter::once(&Record::of(&event)?)).1?;
        }
        shared.at_head(writer.head.clone());
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .map_err(failed(folder))
        };
        let mut threads = vec![thread("audit-writer", Box::new(move || writer.run()))?];
        if !settings.sync_interval.is_zero() {
            let shared = Arc::clone(&shared);
            threads.push(thread("audit-sync", Box::new(move || keep_synced(&shared)))?);
        }
        Ok(Self {
            folder: folder.into(),
            shared,
            threads,
            clock,
            index: Mutex::default(),
        })
    }

    /// Takes an event. Wait for the receipt before the answer leaves.
    pub fn submit(&self, event: AuditEvent<'_>, keep: Keep) -> Receipt {
        self.shared.submit(event, keep)
    }

    /// Whether events can be kept now. Ask before something is changed.
    ///
    /// # Errors
    /// When the last write failed and none has succeeded since.
    pub fn ready(&self) -> Result<(), AuditDown> {
        self.shared.ready()
    }

    /// The end of the chain.
    pub fn head(&self) -> Head {
        self.shared.head()
    }

    /// Removes the files whose last event is older than `keep`, after a record that says so. Returns how many. The file
    /// that is written stays.
    ///
    /// # Errors
    /// When the trail cannot be read or written.
    pub fn prune(&self, keep: Duration) -> Result<u64, AuditError> {
        let now = self.clock.now();
        self.index()?.forget_old(now)?;
        let files = files(&self.folder)?;
        let mut kept = None;
        let mut gone = Vec::new();
        for pair in files.windows(2) {
            let [path, next] = pair else { continue };
            // A file is as old as the event after its last one.
            match first_of(next)? {
                Some((at, previous)) if now.since(at) > keep => {
                    gone.push(path.clone());
                    kept = first_event(next).map(|first| (first, previous));
                }
                _ => break,
            }
        }
        let Some((first_kept, previous)) = kept else {
            return Ok(0);
        };
        let count = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        let details = Pruned {
            first_kept,
            previous,
            files: count,
        };
        let details = serde_json::value::to_raw_value(&details).map_err(AuditError::Encode)?;
        let event = AuditEvent::of_trail(PRUNED, now, Some(details));
        self.submit(event, Keep::Change).wait()?;
        for path in gone {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
        sync(&self.folder)?;
        self.index()?.forget(first_kept)?;
        Ok(count)
    }

    /// Brings the index up to date with what is written. Called now and then, so that a question finds little to do.
    ///
    /// # Errors
    /// When trail or index cannot be read or written.
    pub fn index_new(&self) -> Result<(), AuditError> {
        self.index()?.catch_up()
    }

    /// Management events by CloudTrail's questions, newest first.
    ///
    /// # Errors
    /// As [`Self::index_new`].
    pub fn lookup(&self, lookup: &Lookup) -> Result<Vec<Recorded>, AuditError> {
        self.shared.settle();
        let index = self.index()?;
        index.catch_up()?;
        index.lookup(lookup)
    }

    /// Every indexed event of a request: management events, and denials of every kind.
    ///
    /// # Errors
    /// As [`Self::index_new`].
    pub fn request(&self, request_id: &str) -> Result<Vec<Recorded>, AuditError> {
        self.shared.settle();
        let index = self.index()?;
        index.catch_up()?;
        index.request(request_id)
    }

    fn index(&self) -> Result<Arc<Index>, AuditError> {
        let mut open = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        match &*open {
            Some(index) => Ok(Arc::clone(index)),
            None => {
                let index = Arc::new(Index::open(&self.folder)?);
                *open = Some(Arc::clone(&index));
                Ok(index)
            }
        }
    }
}

impl Drop for AuditTrail {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// How far back CloudTrail's lookup tells.
pub const LOOKUP_DAYS: u64 = 90;

/// The earliest time that a lookup tells of.
pub fn lookup_horizon(now: Timestamp) -> Timestamp {
    let millis = i64::try_from(LOOKUP_DAYS.saturating_mul(86_400_000)).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_sub(millis))
}

#[cfg(test)]
mod tests;
