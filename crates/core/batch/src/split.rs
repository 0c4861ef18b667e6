//! An object's bytes, in pieces of any size, into records (CC-68).

use isolarium_model::sagemaker::transform_job::SplitType;

/// MXNet's mark at the beginning of each frame, little endian.
pub(crate) const MAGIC: [u8; 4] = 0xced7_230a_u32.to_le_bytes();

/// Bytes before the data of a RecordIO frame: the mark, the length with its flag.
const RECORD_IO_HEAD: usize = 8;

/// Bytes before the data of a TFRecord: its length and that length's checksum.
const TF_HEAD: usize = 12;

/// Why an object cannot be cut into records, or what they are cannot be sent. `Display` is for the job's data log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Larger than a request may be (CC-69).
    #[error("Too much data for max payload size: a record is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the object ends in the middle of a record")]
    Truncated,
    #[error("the data is not in the {0} format: {1}")]
    Format(&'static str, &'static str),
    /// A record is not what filters and joins need.
    #[error("{0}")]
    Record(String),
}

/// Cuts bytes into records. Holds at most one unfinished record, and never more than its limit.
pub struct Splitter {
    kind: SplitType,
    /// Frames stay around the data of binary formats (MultiRecord).
    framed: bool,
    limit: usize,
    /// The unfinished record. For RecordIO and TFRecord the bytes since the last whole record.
    held: Vec<u8>,
    /// RecordIO without frames: the parts of a record that was cut in several.
    parts: Option<Vec<u8>>,
    /// RecordIO with frames: where in `held` the frame begins that is not whole yet.
    frame: usize,
}

/// What becomes of each record.
pub type Each<'a> = dyn FnMut(&[u8]) -> Result<(), Unreadable> + 'a;

impl Splitter {
    /// A splitter of one object; `framed` leaves the frames of binary formats around the data; a record above `limit`
    /// bytes is refused.
    pub fn new(kind: SplitType, framed: bool, limit: usize) -> Self {
        Self {
            kind,
            framed,
            limit,
            held: Vec::new(),
            parts: None,
            frame: 0,
        }
    }

    /// The next bytes of the object; `each` sees every record that they complete.
    ///
    /// # Errors
    /// When the bytes are no records of the kind, or one is too large; and what `each` answers.
    pub fn feed(&mut self, bytes: &[u8], each: &mut Each<'_>) -> Result<(), Unreadable> {
        match self.kind {
            SplitType::None => self.hold(bytes),
            SplitType::Line => self.lines(bytes, each),
            SplitType::RecordIo | SplitType::TfRecord => self.frames(bytes, each),
        }
    }

    /// The object's end. A last line without a newline is a record; an empty object has none but when it is not split.
    ///
    /// # Errors
    /// When a record is cut off; and what `each` answers.
    pub fn finish(&mut self, each: &mut Each<'_>) -> Result<(), Unreadable> {
        let held = std::mem::take(&mut self.held);
        match self.kind {
            SplitType::None => each(&held),
            SplitType::Line if held.is_empty() => Ok(()),
            SplitType::Line => each(&held),
            SplitType::RecordIo | SplitType::TfRecord if held.is_empty() && self.parts.is_none() => Ok(()),
            SplitType::RecordIo | SplitType::TfRecord => Err(Unreadable::Truncated),
        }
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        if self.held.len().saturating_add(bytes.len()) > self.limit {
            return Err(Unreadable::TooLarge(self.limit));
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    fn lines(&mut self, bytes: &[u8], each: &mut Each<'_>) -> Result<(), Unreadable> {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(at);
            rest = after.get(1..).unwrap_or_default();
            if self.held.is_empty() {
                if line.len() > self.limit {
                    return Err(Unreadable::TooLarge(self.limit));
                }
                each(line)?;
            } else {
                self.hold(line)?;
                let whole = std::mem::take(&mut self.held);
                each(&whole)?;
                // The room is kept for the next line.
                self.held = whole;
                self.held.clear();
            }
        }
        self.hold(rest)
    }

    fn frames(&mut self, bytes: &[u8], each: &mut Each<'_>) -> Result<(), Unreadable> {
        let mut rest = bytes;
        loop {
            let wanted = match self.wanted()? {
                Some(wanted) => wanted,
                None => {
                    self.whole(each)?;
                    continue;
                }
            };
            if rest.is_empty() {
                return Ok(());
            }
            let (now, after) = rest.split_at(wanted.min(rest.len()));
            self.held.extend_from_slice(now);
            rest = after;
        }
    }

    /// How many more bytes the frame needs before more is known of it; `None` when it is whole.
    fn wanted(&self) -> Result<Option<usize>, Unreadable> {
        let frame = self.held.get(self.frame..).unwrap_or_default();
        let head = self.head();
        if frame.len() < head {
            return Ok(Some(head - frame.len()));
        }
        let length = self.length(frame)?;
        let data = self.held.len().saturating_sub(frame.len()).saturating_add(length);
        let gathered = self.parts.as_ref().map_or(0, Vec::len).saturating_add(length);
        if gathered > self.limit || (self.framed && data > self.limit) {
            return Err(Unreadable::TooLarge(self.limit));
        }
        let whole = self.size(length);
        // What stands before this frame in `held` belongs to the same record.
        Ok(Some(whole.saturating_sub(frame.len())).filter(|left| *left > 0))
    }

    fn head(&self) -> usize {
        match self.kind {
            SplitType::TfRecord => TF_HEAD,
            SplitType::RecordIo | SplitType::None | SplitType::Line => RECORD_IO_HEAD,
        }
    }

    /// The length of a frame's data.
    fn length(&self, frame: &[u8]) -> Result<usize, Unreadable> {
        if self.kind == SplitType::TfRecord {
            let bad = || Unreadable::Format("TFRecord", "a length does not match its checksum");
            let (length, sum) = (array::<8>(frame, 0), array::<4>(frame, 8));
            if masked(&length) != u32::from_le_bytes(sum) {
                return Err(bad());
            }
            return usize::try_from(u64::from_le_bytes(length)).map_err(|_| bad());
        }
        if array::<4>(frame, 0) != MAGIC {
            return Err(Unreadable::Format("RecordIO", "a record does not begin with its mark"));
        }
        let word = u32::from_le_bytes(array(frame, 4));
        usize::try_from(word & 0x1fff_ffff).map_err(|_| Unreadable::TooLarge(self.limit))
    }

    /// The size of a whole frame around so many bytes of data.
    fn size(&self, length: usize) -> usize {
        match self.kind {
            SplitType::TfRecord => TF_HEAD.saturating_add(length).saturating_add(4),
            SplitType::RecordIo | SplitType::None | SplitType::Line => {
                RECORD_IO_HEAD.saturating_add(length).saturating_add(padding(length))
            }
        }
    }

    /// The frame at the end of `held` is whole.
    fn whole(&mut self, each: &mut Each<'_>) -> Result<(), Unreadable> {
        let frame = self.held.get(self.frame..).unwrap_or_default();
        let length = self.length(frame)?;
        let head = self.head();
        let data = frame.get(head..head.saturating_add(length)).unwrap_or_default();
        let last = match self.kind {
            SplitType::TfRecord => {
                if masked(data) != u32::from_le_bytes(array(frame, head.saturating_add(length))) {
                    return Err(Unreadable::Format("TFRecord", "a record does not match its checksum"));
                }
                true
            }
            SplitType::RecordIo | SplitType::None | SplitType::Line => {
                // A record that holds the mark was cut there: 1 begins, 2 goes on, 3 ends it; 0 is whole.
                let flag = u32::from_le_bytes(array(frame, 4)) >> 29;
                let begun = self.parts.is_some() || self.frame > 0;
                match (flag, begun) {
                    (0 | 1, false) | (2 | 3, true) => {}
                    _ => return Err(Unreadable::Format("RecordIO", "the parts of a record are out of order")),
                }
                matches!(flag, 0 | 3)
            }
        };
        if self.framed {
            if last {
                let whole = std::mem::take(&mut self.held);
                self.frame = 0;
                if whole.len() > self.limit {
                    return Err(Unreadable::TooLarge(self.limit));
                }
                return each(&whole);
            }
            self.frame = self.held.len();
            return Ok(());
        }
        if last && self.parts.is_none() {
            let done = each(data);
            self.held.clear();
            return done;
        }
        let gathered = match self.parts.take() {
            None => data.to_vec(),
            Some(mut gathered) => {
                gathered.extend_from_slice(&MAGIC);
                gathered.extend_from_slice(data);
                gathered
            }
        };
        self.held.clear();
        if gathered.len() > self.limit {
            return Err(Unreadable::TooLarge(self.limit));
        }
        if last {
            return each(&gathered);
        }
        self.parts = Some(gathered);
        Ok(())
    }
}

/// Bytes that fill a RecordIO frame up to a multiple of four.
fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

/// `N` bytes at a place; zeros where there are none, which no caller asks for.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..at.saturating_add(N));
    found.and_then(|found| found.try_into().ok()).unwrap_or([0; N])
}

/// TensorFlow's checksum: CRC-32C, turned and moved so that a checksum of checksums is none.
fn masked(bytes: &[u8]) -> u32 {
    let crc = !bytes.iter().fold(u32::MAX, |crc, byte| {
        let at = usize::from(crc.to_le_bytes().first().copied().unwrap_or(0) ^ byte);
        (crc >> 8) ^ CRC32C.get(at).copied().unwrap_or(0)
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's polynomial, reflected.
const CRC32C: [u32; 256] = table();

#[expect(clippy::indexing_slicing, reason = "a loop over a constant length, at compile time")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at: u32 = 0;
    while at < 256 {
        let (mut word, mut bit) = (at, 0);
        while bit < 8 {
            word = if word & 1 == 1 {
                (word >> 1) ^ 0x82f6_3b78
            } else {
                word >> 1
            };
            bit += 1;
        }
        table[at as usize] = word;
        at += 1;
    }
    table
}

#[cfg(test)]
pub(crate) mod tests;
