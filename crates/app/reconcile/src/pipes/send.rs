//! What an epoch sends: the entries in their order, and the bytes of each (CC-25..27).

use super::{Source, locked};
use crate::cut::Cut;
use crate::stage::StageError;
use crate::transfer::TransferError;
use flate2::bufread::MultiGzDecoder;
use isolarium_batch::augmented::{self, Piece};
use isolarium_batch::{record_io, shuffle};
use isolarium_model::sagemaker::S3Uri;
use isolarium_runtime::fifo::{End, Feed, Halt};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that are read and written at once.
const PIECE: usize = 256 << 10;

/// The longest line of an augmented manifest, bytes.
const LINE: u64 = 16 << 20;

/// The most entries of a shuffled channel. Where each begins and their order are in memory, 16 bytes an entry and pipe.
const SHUFFLED: usize = 1 << 21;

/// So many bytes of a list are read at most before it is seen that nobody wants them any more.
const LOOK: u64 = 1 << 20;

/// Why an epoch is not sent to its end.
#[derive(Debug)]
pub(super) enum Fault {
    Halt(Halt),
    Stage(StageError),
}

impl From<Halt> for Fault {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Stage(StageError::Disk(error))
    }
}

impl From<TransferError> for Fault {
    fn from(error: TransferError) -> Self {
        Self::Stage(error.into())
    }
}

fn unusable(text: impl Into<String>) -> Fault {
    Fault::Stage(StageError::unusable(text))
}

/// What becomes of each entry: its number, counted from 0, and its line.
type Each<'a> = dyn FnMut(usize, &[u8]) -> Result<(), Fault> + 'a;

/// A channel's entries, a line each; empty lines are none.
pub(super) struct Entries<'a> {
    file: BufReader<File>,
    line: Vec<u8>,
    feed: &'a Feed,
    /// Bytes read since the feed was looked at.
    unseen: u64,
    /// [`SHUFFLED`].
    most: usize,
}

impl<'a> Entries<'a> {
    pub(super) fn open(path: &Path, feed: &'a Feed) -> io::Result<Self> {
        Ok(Self {
            file: BufReader::with_capacity(PIECE, File::open(path)?),
            line: Vec::new(),
            feed,
            unseen: 0,
            most: SHUFFLED,
        })
    }

    /// Reads the next line that is not empty, and says where it began.
    fn next(&mut self, at: &mut u64) -> Result<Option<u64>, Fault> {
        loop {
            self.line.clear();
            let got = (&mut self.file).take(LINE).read_until(b'\n', &mut self.line)?;
            let (began, got) = (*at, u64::try_from(got).unwrap_or(u64::MAX));
            *at = at.saturating_add(got);
            if got == 0 {
                return Ok(None);
            }
            self.unseen = self.unseen.saturating_add(got);
            if self.unseen >= LOOK {
                self.unseen = 0;
                self.feed.wait(Some(Duration::ZERO))?;
            }
            if got == LINE && !self.line.ends_with(b"\n") {
                return Err(unusable(format!(
                    "A line of the augmented manifest has more than {LINE} bytes"
                )));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(began));
            }
        }
    }

    /// This instance's entries of an epoch: every `of`th one, from `number`, of the order that the seed gives.
    pub(super) fn each(
        &mut self,
        seed: Option<i64>,
        epoch: u64,
        number: usize,
        of: usize,
        each: &mut Each<'_>,
    ) -> Result<(), Fault> {
        let (mut at, mut count) = (0, 0_usize);
        let Some(seed) = seed else {
            while self.next(&mut at)?.is_some() {
                if count % of == number {
                    each(count, &self.line)?;
                }
                count = count.saturating_add(1);
            }
            return Ok(());
        };
        let mut places = Vec::new();
        while let Some(place) = self.next(&mut at)? {
            if places.len() >= self.most {
                let most = self.most;
                return Err(unusable(format!(
                    "A channel with ShuffleConfig has more than {most} entries"
                )));
            }
            places.push(place);
        }
        let order = shuffle::order(places.len(), seed, epoch);
        for entry in order.into_iter().skip(number).step_by(of) {
            let mut at = places.get(entry).copied().unwrap_or_default();
            self.file.seek(SeekFrom::Start(at))?;
            if self.next(&mut at)?.is_some() {
                each(entry, &self.line)?;
            }
        }
        Ok(())
    }
}

/// Sends entries into one epoch's pipe.
pub(super) struct Sender<'a, 'b> {
    source: &'a Source,
    feed: &'a Feed,
    end: &'a mut End<'b>,
    piece: Vec<u8>,
}

impl<'a, 'b> Sender<'a, 'b> {
    pub(super) fn new(source: &'a Source, feed: &'a Feed, end: &'a mut End<'b>) -> Self {
        let piece = vec![0; PIECE];
        Self {
            source,
            feed,
            end,
            piece,
        }
    }

    pub(super) fn entry(&mut self, number: usize, line: &[u8]) -> Result<(), Fault> {
        let source = self.source;
        let (Some(manifest), Some(attributes)) = (&source.manifest, &source.input.attributes) else {
            let object: S3Uri = serde_json::from_slice(line).map_err(io::Error::from)?;
            return self.object(&object);
        };
        let pieces = augmented::pieces(line, attributes).map_err(|why| {
            let entry = number.saturating_add(1);
            unusable(format!(
                "Line {entry} of the augmented manifest \"{manifest}\" cannot be used: {why}"
            ))
        })?;
        for piece in pieces {
            match piece {
                Piece::Object(object) => self.object(&object)?,
                Piece::Value(value) if source.input.record_io => {
                    let record = record_io::record(&value).ok_or_else(|| too_large(manifest))?;
                    self.end.write_all(&record)?;
                }
                Piece::Value(value) => self.end.write_all(&value)?,
            }
        }
        Ok(())
    }

    fn object(&mut self, object: &S3Uri) -> Result<(), Fault> {
        let file = Arc::new(self.fetch(object)?);
        if self.source.input.record_io {
            return self.record(object, &file);
        }
        let mut data = self.content(object, &file);
        loop {
            let got = data.read(&mut self.piece)?;
            if got == 0 {
                return Ok(());
            }
            self.end.write_all(self.piece.get(..got).unwrap_or_default())?;
        }
    }

    /// The object as a file; through a VPC it is brought here first.
    fn fetch(&self, object: &S3Uri) -> Result<File, Fault> {
        let source = self.source;
        loop {
            let cut = Arc::new(Cut::within(source.limit));
            locked(&source.shared.cut).clone_from(&cut);
            // Who stops the feed ends the transfer afterwards: either shows here, or that does.
            self.feed.wait(Some(Duration::ZERO))?;
            let _own = source.cuts.here(cut);
            match source.transfer.open(&source.actor, object) {
                Ok(file) => return Ok(file.into()),
                Err(TransferError::Away(_) | TransferError::Cut) => self.feed.wait(Some(source.retry))?,
                Err(refused) => return Err(refused.into()),
            }
        }
    }

    fn content(&self, object: &S3Uri, file: &Arc<File>) -> Content {
        let bytes = Bytes {
            file: Arc::clone(file),
            at: 0,
        };
        match self.source.input.gzip {
            true => Content::Gzip(
                object.clone(),
                Box::new(MultiGzDecoder::new(BufReader::with_capacity(PIECE, bytes))),
            ),
            false => Content::Plain(bytes),
        }
    }

    /// CC-26: the object as one record. Where it has to be cut is looked for by a second reader, which is ahead of the first.
    fn record(&mut self, object: &S3Uri, file: &Arc<File>) -> Result<(), Fault> {
        let (mut ahead, mut data) = (self.content(object, file), self.content(object, file));
        let (mut cuts, mut parts) = (Some(record_io::Cuts::default()), VecDeque::new());
        let (mut size, mut first) = (0_u64, true);
        loop {
            // Whether a part is the last one shows when the next one is looked for.
            while parts.len() < 2
                && let Some(mut looking) = cuts.take()
            {
                let got = ahead.read(&mut self.piece)?;
                size = size.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
                if size > record_io::LARGEST {
                    return Err(too_large(object));
                }
                if got == 0 {
                    parts.push_back(looking.finish());
                } else {
                    let piece = self.piece.get(..got).unwrap_or_default();
                    looking.feed(piece, &mut |length| parts.push_back(length));
                    cuts = Some(looking);
                }
            }
            let Some(length) = parts.pop_front() else {
                return Ok(());
            };
            let last = parts.is_empty();
            let head = record_io::head(record_io::Part::of(first, last), length);
            self.end.write_all(&head.ok_or_else(|| too_large(object))?)?;
            self.copy(&mut data, length, true)?;
            self.end.write_all(record_io::padding(length))?;
            if !last {
                self.copy(&mut data, record_io::MARK, false)?;
            }
            first = false;
        }
    }

    /// Moves on by so many bytes, which are sent or left out.
    fn copy(&mut self, data: &mut Content, length: u64, send: bool) -> Result<(), Fault> {
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let got = data.read(self.piece.get_mut(..most).unwrap_or_default())?;
            if got == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if send {
                self.end.write_all(self.piece.get(..got).unwrap_or_default())?;
            }
            left = left.saturating_sub(u64::try_from(got).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}

fn too_large(about: &S3Uri) -> Fault {
    let most = record_io::LARGEST;
    unusable(format!(
        "\"{about}\" is larger than a RecordIO record can be, {most} bytes"
    ))
}

/// A file, read from its beginning whoever else reads it.
struct Bytes {
    file: Arc<File>,
    at: u64,
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buffer, self.at)?;
        self.at = self.at.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
        Ok(got)
    }
}

/// An object's bytes as the container is to see them.
enum Content {
    Plain(Bytes),
    /// One member after the other, as gzip itself reads them.
    Gzip(S3Uri, Box<MultiGzDecoder<BufReader<Bytes>>>),
}

impl Content {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        loop {
            let read = match self {
                Self::Plain(bytes) => bytes.read(buffer),
                Self::Gzip(_, bytes) => bytes.read(buffer),
            };
            return match (read, &*self) {
                (Ok(got), _) => Ok(got),
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => continue,
                (Err(error), Self::Plain(_)) => Err(error.into()),
                (Err(error), Self::Gzip(object, _)) if error.raw_os_error().is_none() => {
                    Err(unusable(format!("\"{object}\" cannot be decompressed: {error}")))
                }
                (Err(error), Self::Gzip(..)) => Err(error.into()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolarium_runtime::fifo;

    /// The entries that `number` of `of` instances gets, or why there are none.
    fn sent(list: &[u8], feed: &Feed, seed: Option<i64>, (number, of): (usize, usize)) -> Result<Vec<String>, Fault> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entries");
        std::fs::write(&path, list).unwrap();
        let mut entries = Entries::open(&path, feed).unwrap();
        entries.most = 3;
        let mut sent = Vec::new();
        entries.each(seed, 0, number, of, &mut |_, line| {
            sent.push(String::from_utf8_lossy(line).trim().to_string());
            Ok(())
        })?;
        sent.sort();
        Ok(sent)
    }

    /// Proves: CC-25, CC-28
    #[test]
    fn the_list_of_a_shuffled_channel_has_a_limit() {
        let (feed, _stop) = fifo::feed().unwrap();
        let (fits, exceeds) = (b"a\n\nb\nc\n".as_slice(), b"a\nb\n\nc\nd\n".as_slice());
        assert_eq!(sent(fits, &feed, Some(7), (0, 1)).unwrap(), ["a", "b", "c"]);
        // Nothing of it is held in memory where the order is the list's own.
        assert_eq!(sent(exceeds, &feed, None, (0, 1)).unwrap(), ["a", "b", "c", "d"]);
        let Err(Fault::Stage(refused)) = sent(exceeds, &feed, Some(7), (0, 1)) else {
            panic!("a list of any length is held in memory");
        };
        assert_eq!(
            refused.to_string(),
            StageError::unusable("A channel with ShuffleConfig has more than 3 entries").to_string()
        );
    }

    /// Proves: CC-25, CC-34
    #[test]
    fn a_list_is_not_read_to_its_end_once_nobody_wants_it() {
        let long = usize::try_from(LOOK).unwrap() + 1;
        let mut list = b"a\nb\n".to_vec();
        list.resize(long, b'\n');
        let (feed, stop) = fifo::feed().unwrap();
        // Control: it is read while it is wanted.
        assert_eq!(sent(&list, &feed, Some(7), (1, 2)).unwrap().len(), 1);
        assert_eq!(sent(&list, &feed, None, (1, 2)).unwrap(), ["b"]);
        stop.make().unwrap();
        for seed in [Some(7), None] {
            let halted = sent(&list, &feed, seed, (1, 2));
            assert!(matches!(halted, Err(Fault::Halt(Halt::Stopped))), "{halted:?}");
        }
    }
}
