//! RecordIO as MXNet writes it (CC-26): the mark, a word with part and length, the data, zeros up to a multiple of four. Data
//! that holds the mark at a multiple of four is cut there; readers put the mark back.
//!
//! [`crate::Splitter`] reads it.

use crate::split::MAGIC;

/// The largest record, bytes: its length has 29 bits.
pub const LARGEST: u64 = (1 << 29) - 1;

/// Bytes of the mark that a cut leaves out.
pub const MARK: u64 = 4;

/// Which part of a record a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    First,
    Middle,
    Last,
}

impl Part {
    /// By what stands before and behind it.
    pub fn of(first: bool, last: bool) -> Self {
        match (first, last) {
            (true, true) => Self::Whole,
            (true, false) => Self::First,
            (false, false) => Self::Middle,
            (false, true) => Self::Last,
        }
    }
}

/// What stands before a part of so many bytes. `None`: longer than [`LARGEST`].
pub fn head(part: Part, length: u64) -> Option<[u8; 8]> {
    let length = u32::try_from(length)
        .ok()
        .filter(|length| u64::from(*length) <= LARGEST)?;
    let flag: u32 = match part {
        Part::Whole => 0,
        Part::First => 1,
        Part::Middle => 2,
        Part::Last => 3,
    };
    let mut head = [0; 8];
    let (mark, word) = head.split_at_mut(4);
    mark.copy_from_slice(&MAGIC);
    word.copy_from_slice(&(flag << 29 | length).to_le_bytes());
    Some(head)
}

/// What follows a part of so many bytes.
pub fn padding(length: u64) -> &'static [u8] {
    match length % 4 {
        0 => &[],
        1 => &[0; 3],
        2 => &[0; 2],
        _ => &[0; 1],
    }
}

/// Finds where a record is cut, in pieces of any size.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    /// Bytes since the last cut, without `held`.
    part: u64,
    /// Up to three bytes that begin a word.
    held: Vec<u8>,
}

impl Cuts {
    /// The record's next bytes; `each` sees the length of every part that ends at a mark in them.
    pub fn feed(&mut self, bytes: &[u8], each: &mut dyn FnMut(u64)) {
        let mut rest = bytes;
        if !self.held.is_empty() {
            let (now, after) = rest.split_at((4 - self.held.len()).min(rest.len()));
            self.held.extend_from_slice(now);
            rest = after;
            if self.held.len() < 4 {
                return;
            }
            let word = std::mem::take(&mut self.held);
            self.word(&word, each);
        }
        let words = rest.chunks_exact(4);
        self.held.extend_from_slice(words.remainder());
        for word in words {
            self.word(word, each);
        }
    }

    fn word(&mut self, word: &[u8], each: &mut dyn FnMut(u64)) {
        if word == MAGIC {
            each(self.part);
            self.part = 0;
        } else {
            self.part = self.part.saturating_add(MARK);
        }
    }

    /// The record's end: the length of its last part.
    pub fn finish(self) -> u64 {
        self.part
            .saturating_add(u64::try_from(self.held.len()).unwrap_or(u64::MAX))
    }
}

/// A record that is in memory, framed. `None`: larger than [`LARGEST`].
pub fn record(data: &[u8]) -> Option<Vec<u8>> {
    if u64::try_from(data.len()).map_or(true, |length| length > LARGEST) {
        return None;
    }
    let mut lengths = Vec::new();
    let mut cuts = Cuts::default();
    cuts.feed(data, &mut |length| lengths.push(length));
    lengths.push(cuts.finish());
    let mut framed = Vec::with_capacity(data.len().saturating_add(12));
    let (mut rest, count) = (data, lengths.len());
    for (number, length) in lengths.into_iter().enumerate() {
        let (part, after) = rest.split_at(usize::try_from(length).unwrap_or(rest.len()).min(rest.len()));
        framed.extend_from_slice(&head(Part::of(number == 0, number + 1 == count), length)?);
        framed.extend_from_slice(part);
        framed.extend_from_slice(padding(length));
        rest = after.get(MAGIC.len()..).unwrap_or_default();
    }
    Some(framed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::tests::{record_io, records};
    use isolarium_model::sagemaker::transform_job::SplitType;
    use proptest::prelude::*;

    /// Data with many marks, and with words that are nearly marks.
    fn data() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(MAGIC.to_vec()),
            Just(MAGIC[..3].to_vec()),
            prop::collection::vec(any::<u8>(), 0..9),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Proves: CC-26
    #[test]
    fn a_records_bytes_are_mxnets() {
        assert_eq!(record(b"").unwrap(), [0x0a, 0x23, 0xd7, 0xce, 0, 0, 0, 0]);
        let one = [0x0a, 0x23, 0xd7, 0xce, 1, 0, 0, 0, b'x', 0, 0, 0];
        assert_eq!(record(b"x").unwrap(), one);
        let four = [0x0a, 0x23, 0xd7, 0xce, 4, 0, 0, 0, b'a', b'b', b'c', b'd'];
        assert_eq!(record(b"abcd").unwrap(), four);
        // The mark at a multiple of four: two parts, the mark itself is left out.
        let cut = record(&[b"abcd", &MAGIC[..], b"e"].concat()).unwrap();
        let first = [0x0a, 0x23, 0xd7, 0xce, 4, 0, 0, 0x20, b'a', b'b', b'c', b'd'];
        let last = [0x0a, 0x23, 0xd7, 0xce, 1, 0, 0, 0x60, b'e', 0, 0, 0];
        assert_eq!(cut, [first, last].concat());
        // Elsewhere it is data like any other.
        let beside = record(&[b"a", &MAGIC[..], b"bcd"].concat()).unwrap();
        assert_eq!(beside[4..8], [8, 0, 0, 0]);
        assert_eq!(head(Part::Whole, LARGEST).unwrap()[4..], [0xff, 0xff, 0xff, 0x1f]);
        assert!(head(Part::Whole, LARGEST + 1).is_none());
    }

    proptest! {
        /// Proves: CC-26
        #[test]
        fn what_is_framed_is_read_back(one in data(), two in data(), size in 1usize..9) {
            let framed = [record(&one).unwrap(), record(&two).unwrap()].concat();
            prop_assert_eq!(&framed, &[record_io(&one), record_io(&two)].concat());
            let back = records(SplitType::RecordIo, false, 1 << 20, &framed, &[size]).unwrap();
            prop_assert_eq!(back, vec![one.clone(), two]);
            // Pieces of any size are cut at the same places.
            let lengths = |size: usize| {
                let (mut cuts, mut found) = (Cuts::default(), Vec::new());
                one.chunks(size).for_each(|piece| cuts.feed(piece, &mut |length| found.push(length)));
                found.push(cuts.finish());
                found
            };
            prop_assert_eq!(lengths(size), lengths(one.len().max(1)));
        }
    }
}
