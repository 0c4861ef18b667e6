//! Segment files: events one after the other, each as four little-endian fields and the message's bytes.
//!
//! A segment is valid up to the length that the database knows. Bytes behind it come from an append that was never
//! acknowledged; the next append writes over them.

use super::LogError;
use isolarium_model::Timestamp;
use isolarium_model::logs::LogEvent;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes before the message: its length (4), sequence number (8), time (8), time of ingestion (8).
const HEAD: usize = 28;

/// An event with its number within the stream.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub sequence: u64,
    pub ingested: Timestamp,
    pub event: LogEvent,
}

/// The folder of one stream.
pub(super) fn folder(root: &Path, stream: i64) -> PathBuf {
    root.join(stream.to_string())
}

/// One segment of a stream.
pub(super) fn path(root: &Path, stream: i64, segment: i64) -> PathBuf {
    folder(root, stream).join(format!("{segment:010}.log"))
}

/// Adds one event to a buffer.
///
/// # Errors
/// When the message is longer than a segment can say.
pub(super) fn encode(entry: u64, ingested: Timestamp, event: &LogEvent, into: &mut Vec<u8>) -> io::Result<()> {
    let length = u32::try_from(event.message.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&entry.to_le_bytes());
    into.extend_from_slice(&event.timestamp.0.to_le_bytes());
    into.extend_from_slice(&ingested.0.to_le_bytes());
    into.extend_from_slice(event.message.as_bytes());
    Ok(())
}

/// Bytes an event takes.
pub(super) fn size(event: &LogEvent) -> usize {
    HEAD + event.message.len()
}

/// Splits a block into its events. `None` when the bytes are not a whole number of events.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let (ingested, rest) = rest.split_first_chunk::<8>()?;
        let (message, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        entries.push(Entry {
            sequence: u64::from_le_bytes(*sequence),
            ingested: Timestamp(i64::from_le_bytes(*ingested)),
            event: LogEvent {
                timestamp: Timestamp(i64::from_le_bytes(*time)),
                message: String::from_utf8(message.to_vec()).ok()?,
            },
        });
        bytes = rest;
    }
    Some(entries)
}

/// Writes bytes at a position of a segment and brings them to the disk, with the folder's entry when the file is new.
pub(super) fn write(path: &Path, at: u64, bytes: &[u8]) -> Result<(), LogError> {
    let attempt = || {
        let file = match open(path, at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && at == 0 => {
                let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
                std::fs::create_dir_all(folder)?;
                sync_folder(folder.parent().unwrap_or(folder))?;
                open(path, at)?
            }
            other => other?,
        };
        file.write_all_at(bytes, at)?;
        file.sync_data()?;
        if at == 0 {
            sync_folder(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        }
        Ok(())
    };
    attempt().map_err(|source| failure(path, source))
}

fn open(path: &Path, at: u64) -> io::Result<File> {
    // A segment that lost its file must not silently begin with a hole.
    OpenOptions::new()
        .write(true)
        .create(at == 0)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Makes a folder's entries durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads a block; empty when its segment has been removed meanwhile.
pub(super) fn read(path: &Path, at: u64, length: usize) -> Result<Vec<Entry>, LogError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failure(path, source)),
    };
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)
        .map_err(|source| failure(path, source))?;
    decode(&bytes).ok_or_else(|| failure(path, io::ErrorKind::InvalidData.into()))
}

fn failure(path: &Path, source: io::Error) -> LogError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::Index(crate::StoreError::DiskFull),
        _ => LogError::Segment {
            path: path.into(),
            source,
        },
    }
}
