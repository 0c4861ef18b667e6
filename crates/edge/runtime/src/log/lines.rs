//! Bytes to lines.

use super::{LONGEST_LINE, frame};
use isolarium_model::Timestamp;

/// The unfinished line of one output stream.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes as they were read and appends a record for every line they finish.
    pub fn push(&mut self, mut bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(at);
            bytes = rest.get(1..).unwrap_or_default();
            if self.partial.is_empty() && line.len() <= LONGEST_LINE {
                frame(out, now, line);
            } else {
                self.partial.extend_from_slice(line);
                self.split(now, out);
                frame(out, now, &self.partial);
                self.partial.clear();
                // An idle container should not hold the buffer of its longest line.
                self.partial.shrink_to(4096);
            }
        }
        self.partial.extend_from_slice(bytes);
        self.split(now, out);
    }

    /// CC-6: pieces of at most 256 KiB, cut between characters.
    fn split(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        while self.partial.len() > LONGEST_LINE {
            let cut = char_boundary(&self.partial, LONGEST_LINE);
            frame(out, now, self.partial.get(..cut).unwrap_or_default());
            self.partial.drain(..cut);
        }
    }

    /// Whether an unfinished line waits.
    pub fn is_waiting(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Appends the unfinished line as if it had ended here.
    pub fn flush(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if self.is_waiting() {
            frame(out, now, &self.partial);
            self.partial = Vec::new();
        }
    }
}

/// The last place at or before `at` that is not inside a UTF-8 sequence; `at` itself when the bytes are not UTF-8.
fn char_boundary(bytes: &[u8], at: usize) -> usize {
    let is_inside = |place: usize| bytes.get(place).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    (at.saturating_sub(3)..=at)
        .rev()
        .find(|place| !is_inside(*place))
        .unwrap_or(at)
}
