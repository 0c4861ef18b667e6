//! A container's output on disk: written by its shim, read by `node`, complete whoever dies.
//!
//! `log/` holds segments named by the offset of their first byte. A segment is a row of records: capture time
//! (milliseconds, 8 bytes little-endian), length (4 bytes), that many bytes of text. A record that a crash cut off is
//! not read.

pub mod lines;
mod writer;

pub use writer::Writer;

use crate::executor::{LogChunk, LogLine};
use isolarium_model::Timestamp;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Longest line; a longer one is split (CC-6).
pub const LONGEST_LINE: usize = 256 << 10;

/// A segment is closed when it is at least this long, bytes.
const SEGMENT: u64 = 4 << 20;

/// Bytes in front of a record's text.
const HEAD: usize = 12;

/// File that holds how far the reader has come.
const READ_MARK: &str = "read";

fn segment_path(folder: &Path, start: u64) -> PathBuf {
    folder.join(format!("{start:020}"))
}

/// Offsets of the segments, ascending.
fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let mut starts: Vec<u64> = fs::read_dir(folder)?
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()
                .filter(|name| name.len() == 20)?
                .parse()
                .ok()
        })
        .collect();
    starts.sort_unstable();
    Ok(starts)
}

/// Appends a record.
fn frame(out: &mut Vec<u8>, time: Timestamp, text: &[u8]) {
    out.extend_from_slice(&time.0.to_le_bytes());
    // A line is at most LONGEST_LINE.
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text);
}

/// One whole record at the beginning of `bytes` and its length on disk.
fn parse(bytes: &[u8]) -> Option<(LogLine, usize)> {
    let (time, rest) = bytes.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let text = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let line = LogLine {
        time: Timestamp(i64::from_le_bytes(*time)),
        text: String::from_utf8_lossy(text).into_owned(),
    };
    Some((line, HEAD + text.len()))
}

/// Lines from `offset` on, about `max_bytes` of them but at least one if there is one. `complete` is left `false`.
///
/// Asking from an offset says that everything before it is kept elsewhere: old segments may then go. An offset before
/// the oldest kept segment counts as that segment's beginning.
///
/// # Errors
/// What the file system answers.
pub fn read(folder: &Path, offset: u64, max_bytes: usize) -> io::Result<LogChunk> {
    let starts = segments(folder)?;
    let mut chunk = LogChunk {
        lines: Vec::new(),
        next: offset,
        complete: false,
    };
    let Some(oldest) = starts.first() else { return Ok(chunk) };
    chunk.next = offset.max(*oldest);
    let mut room = max_bytes;
    while room > 0 {
        let Some(start) = starts.iter().rev().find(|start| **start <= chunk.next) else {
            break;
        };
        let before = chunk.next;
        match File::open(segment_path(folder, *start)) {
            Ok(file) => room = read_segment(file, *start, &mut chunk, room)?,
            // The shim dropped it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if chunk.next == before {
            break;
        }
    }
    Ok(chunk)
}

fn read_segment(mut file: File, start: u64, chunk: &mut LogChunk, room: usize) -> io::Result<usize> {
    file.seek(SeekFrom::Start(chunk.next - start))?;
    let mut bytes = Vec::new();
    // Room for the longest record, so that progress is always possible.
    let want = u64::try_from(room.max(LONGEST_LINE + HEAD)).unwrap_or(u64::MAX);
    file.take(want).read_to_end(&mut bytes)?;
    let mut rest = bytes.as_slice();
    let mut left = room;
    while left > 0 {
        let Some((line, length)) = parse(rest) else { break };
        chunk.lines.push(line);
        chunk.next += u64::try_from(length).map_err(io::Error::other)?;
        left = left.saturating_sub(length);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(left)
}

/// Notes that everything before `offset` has been read.
///
/// # Errors
/// What the file system answers.
pub fn mark_read(folder: &Path, offset: u64) -> io::Result<()> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(READ_MARK))?;
    file.write_all_at(&offset.to_le_bytes(), 0)
}

fn read_mark(folder: &Path) -> u64 {
    let mut bytes = [0_u8; 8];
    match File::open(folder.join(READ_MARK)).and_then(|file| file.read_exact_at(&mut bytes, 0)) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests;
