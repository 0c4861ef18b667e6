//! Records into requests (CC-69).

use crate::processing::Processing;
use crate::split::{Splitter, Unreadable};
use isolarium_model::sagemaker::transform_job::{BatchStrategy, SplitType};
use std::collections::VecDeque;

/// The body of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    pub bytes: Vec<u8>,
    /// The records as the object has them, before the input filter; kept where results are joined to them.
    pub input: Vec<u8>,
    pub records: usize,
}

/// Fills requests with one object's records.
pub struct Batcher<'a> {
    splitter: Splitter,
    gather: Gather<'a>,
}

struct Gather<'a> {
    strategy: BatchStrategy,
    /// Lines have a newline between them.
    lines: bool,
    limit: usize,
    processing: Option<&'a Processing>,
    current: Payload,
    ready: VecDeque<Payload>,
}

impl<'a> Batcher<'a> {
    /// For one object; no payload is larger than `limit` bytes.
    pub fn new(split: SplitType, strategy: BatchStrategy, limit: usize, processing: Option<&'a Processing>) -> Self {
        let strategy = match split {
            // One record is all there is.
            SplitType::None => BatchStrategy::SingleRecord,
            _ => strategy,
        };
        let framed = strategy == BatchStrategy::MultiRecord;
        Self {
            splitter: Splitter::new(split, framed, limit),
            gather: Gather {
                strategy,
                lines: split == SplitType::Line,
                limit,
                processing,
                current: Payload::default(),
                ready: VecDeque::new(),
            },
        }
    }

    /// The next bytes of the object.
    ///
    /// # Errors
    /// When they cannot be cut, filtered or sent.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        let gather = &mut self.gather;
        self.splitter.feed(bytes, &mut |record| gather.add(record))
    }

    /// The object's end.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn finish(&mut self) -> Result<(), Unreadable> {
        let gather = &mut self.gather;
        self.splitter.finish(&mut |record| gather.add(record))?;
        gather.send();
        Ok(())
    }

    /// The next full request.
    pub fn next_ready(&mut self) -> Option<Payload> {
        self.gather.ready.pop_front()
    }
}

impl Gather<'_> {
    fn add(&mut self, record: &[u8]) -> Result<(), Unreadable> {
        let Some(processing) = self.processing else {
            return self.take(record, &[]);
        };
        match processing.input(record)? {
            Some(filtered) if processing.joins() => self.take(&filtered, record),
            Some(filtered) => self.take(&filtered, &[]),
            // An empty line is no row.
            None => Ok(()),
        }
    }

    fn take(&mut self, record: &[u8], input: &[u8]) -> Result<(), Unreadable> {
        let too_large = record.len().max(input.len()) > self.limit;
        if too_large {
            return Err(Unreadable::TooLarge(self.limit));
        }
        if self.strategy == BatchStrategy::SingleRecord {
            self.ready.push_back(Payload {
                bytes: record.to_vec(),
                input: input.to_vec(),
                records: 1,
            });
            return Ok(());
        }
        let between = usize::from(self.lines && self.current.records > 0);
        let with = |held: &[u8], more: &[u8]| held.len().saturating_add(between).saturating_add(more.len());
        if with(&self.current.bytes, record).max(with(&self.current.input, input)) > self.limit {
            self.send();
        }
        let (joins, first) = (
            self.processing.is_some_and(Processing::joins),
            self.current.records == 0,
        );
        let held = [
            (&mut self.current.bytes, record, true),
            (&mut self.current.input, input, joins),
        ];
        for (held, more, _) in held.into_iter().filter(|(_, _, wanted)| *wanted) {
            if self.lines && !first {
                held.push(b'\n');
            }
            held.extend_from_slice(more);
        }
        self.current.records += 1;
        Ok(())
    }

    fn send(&mut self) {
        if self.current.records > 0 {
            self.ready.push_back(std::mem::take(&mut self.current));
        }
    }
}

#[cfg(test)]
mod tests;
