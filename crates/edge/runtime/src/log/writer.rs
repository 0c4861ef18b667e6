//! The shim's side of the log.

use super::{READ_MARK, SEGMENT, read_mark, segment_path, segments};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most bytes kept ahead of the reader. A container that writes more than this while nobody reads blocks in `write`:
/// nothing is dropped and the disk does not fill.
const AHEAD: u64 = 256 << 20;

/// Bytes kept behind the reader, so that one that crashed before it kept what it was given can ask again.
const BEHIND: u64 = 16 << 20;

/// Appends records to segments.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    file: File,
    /// Offset of the current segment.
    start: u64,
    length: u64,
}

impl Writer {
    /// Starts behind whatever is there.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let start = match segments(folder)?.last() {
            Some(last) => last + fs::metadata(segment_path(folder, *last))?.len(),
            None => 0,
        };
        if !folder.join(READ_MARK).exists() {
            super::mark_read(folder, start)?;
        }
        Ok(Self {
            folder: folder.into(),
            file: create(folder, start)?,
            start,
            length: 0,
        })
    }

    /// Offset behind the last record.
    pub fn end(&self) -> u64 {
        self.start + self.length
    }

    /// Whether the reader has fallen so far behind that the container has to wait.
    pub fn must_wait(&self) -> bool {
        self.end() >= AHEAD && self.end() - read_mark(&self.folder).min(self.end()) >= AHEAD
    }

    /// Writes whole records, as far as the disk takes them, and removes what was written from `records`. On an error
    /// the rest stays in `records` for the next try: no record is torn or lost.
    ///
    /// # Errors
    /// What the file system answers; a full disk above all.
    pub fn append(&mut self, records: &mut Vec<u8>) -> io::Result<()> {
        while !records.is_empty() {
            let written = match self.file.write(records) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            records.drain(..written);
            self.length += u64::try_from(written).map_err(io::Error::other)?;
        }
        if self.length >= SEGMENT {
            self.roll()?;
        }
        Ok(())
    }

    fn roll(&mut self) -> io::Result<()> {
        self.file = create(&self.folder, self.end())?;
        (self.start, self.length) = (self.end(), 0);
        let keep_from = read_mark(&self.folder).saturating_sub(BEHIND);
        let starts = segments(&self.folder)?;
        for (start, next) in starts.iter().zip(starts.iter().skip(1)) {
            if *next <= keep_from {
                fs::remove_file(segment_path(&self.folder, *start))?;
            }
        }
        Ok(())
    }
}

fn create(folder: &Path, start: u64) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(segment_path(folder, start))
}
