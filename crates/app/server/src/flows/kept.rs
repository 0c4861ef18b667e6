//! A journal on disk: a file to which every change is appended, and which is written anew when most of it is over. So the
//! loop writes what is new, however much waits for a flow log that cannot deliver.

use super::journal::Journal;
use isolarium_model::sagemaker::flows::OwnerFlow;
use isolarium_model::{Key, Timestamp};
use isolarium_netplan::flowlog::FlowRecord;
use isolarium_netplan::id::{FlowLogId, InterfaceId, SubnetId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file below this many bytes is not written anew.
const SMALL: u64 = 1 << 20;

/// One change, one line of the file.
#[derive(Serialize, Deserialize)]
enum Entry {
    /// Everything, in place of what stood before.
    Whole(Box<Whole>),
    Read(Reading),
    /// The owners' records have what was owed to them.
    Paid,
    Delivered {
        flow_log: FlowLogId,
        until: Timestamp,
    },
    Forgotten {
        flow_logs: Vec<FlowLogId>,
        minute: Duration,
    },
}

/// What was read of a VPC at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reading {
    pub now: Timestamp,
    /// The length of a minute.
    pub minute: Duration,
    pub records: Vec<FlowRecord>,
    pub lost: bool,
    /// Interfaces that are there, with their subnets.
    pub interfaces: BTreeMap<InterfaceId, SubnetId>,
    /// Where to read on.
    pub next: u64,
    pub owed: Vec<Owed>,
}

/// Traffic that is to be added to one owner's record, exactly once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Owed {
    pub key: Key,
    pub owner_arn: String,
    pub flows: Vec<OwnerFlow>,
    /// Names the reading. A record that has this one already has these flows.
    pub reading: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Whole {
    journal: Journal,
    owed: Vec<Owed>,
}

/// A journal with its file.
pub(super) struct Kept {
    path: PathBuf,
    file: File,
    /// Bytes of the file that are whole lines.
    length: u64,
    /// Its length after it was written anew.
    began: u64,
    whole: Whole,
}

impl Kept {
    /// Reads a journal, or begins one.
    ///
    /// # Errors
    /// When the file cannot be read or written, or was not written by this.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut whole = Whole::default();
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut length = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            // The end of the file may be half a line: the engine was killed over it, and nobody was told of it.
            if line.last() != Some(&b'\n') {
                break;
            }
            whole.apply(serde_json::from_slice(line)?);
            length += u64::try_from(line.len()).unwrap_or(u64::MAX);
        }
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.create(true).truncate(false).write(true).open(path)?;
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        Ok(Self {
            path: path.into(),
            file,
            length,
            began: 0,
            whole,
        })
    }

    pub fn journal(&self) -> &Journal {
        &self.whole.journal
    }

    /// What the owners' records lack.
    pub fn owed(&self) -> &[Owed] {
        &self.whole.owed
    }

    /// Adds a reading. Once this returns the node may be told of it.
    pub fn read(&mut self, reading: Reading) -> io::Result<()> {
        // Only what cannot be read again has to be on the disk.
        let durable = !reading.records.is_empty() || reading.lost;
        self.append(Entry::Read(reading), durable)
    }

    /// The owners' records have what was owed to them.
    pub fn paid(&mut self) -> io::Result<()> {
        match self.whole.owed.is_empty() {
            true => Ok(()),
            false => self.append(Entry::Paid, false),
        }
    }

    /// A flow log has delivered until then.
    pub fn delivered(&mut self, flow_log: FlowLogId, until: Timestamp) -> io::Result<()> {
        self.append(Entry::Delivered { flow_log, until }, true)
    }

    /// See [`Journal::forget`].
    pub fn forget(&mut self, flow_logs: Vec<FlowLogId>, minute: Duration) -> io::Result<()> {
        if self.whole.journal.has_to_forget(&flow_logs, minute) {
            self.append(Entry::Forgotten { flow_logs, minute }, false)?;
        }
        if self.length > SMALL.max(self.began.saturating_mul(2)) {
            self.write_anew()?;
        }
        Ok(())
    }

    fn append(&mut self, entry: Entry, durable: bool) -> io::Result<()> {
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| match durable {
            true => self.file.sync_data(),
            false => Ok(()),
        });
        if let Err(error) = written {
            // Half a line must not stand in the middle; the change did not happen.
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length += u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.whole.apply(entry);
        Ok(())
    }

    fn write_anew(&mut self) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Entry::Whole(Box::new(self.whole.clone())))?;
        line.push(b'\n');
        crate::layout::write_whole(&self.path, &line, 0o600)?;
        let mut file = OpenOptions::new().write(true).open(&self.path)?;
        self.length = file.seek(SeekFrom::End(0))?;
        self.began = self.length;
        self.file = file;
        Ok(())
    }
}

impl Whole {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Whole(whole) => *self = *whole,
            Entry::Read(reading) => {
                self.owed.extend(reading.owed);
                self.journal.add(
                    reading.now,
                    reading.minute,
                    reading.records,
                    reading.lost,
                    &reading.interfaces,
                );
                self.journal.next = reading.next;
            }
            Entry::Paid => self.owed.clear(),
            Entry::Delivered { flow_log, until } => self.journal.deliver(flow_log, until),
            Entry::Forgotten { flow_logs, minute } => self.journal.forget(&flow_logs, minute),
        }
    }
}

#[cfg(test)]
mod tests;
