//! Bodies that arrive in chunks, each with its own signature, and their trailers (IAM-42).

use super::{AuthFault, hmac_sha256};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Longest line between chunks, in bytes: a size, a signature, or one trailer.
const LONGEST_LINE: usize = 4096;
/// Trailers a body may have.
const MOST_TRAILERS: usize = 16;

/// Why a chunked body is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkFault {
    /// The framing cannot be read; the text says where.
    #[error("the chunked body is malformed: {0}")]
    Malformed(&'static str),
    /// A chunk or the trailers are not those that were signed.
    #[error("a chunk of the body does not match its signature")]
    BadSignature,
    /// The body ended early, or is not as long as its sender declared.
    #[error("the chunked body is shorter or longer than x-amz-decoded-content-length")]
    WrongLength,
}

impl From<ChunkFault> for AuthFault {
    fn from(fault: ChunkFault) -> Self {
        match fault {
            ChunkFault::BadSignature => Self::BadSignature,
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// What the first chunk's signature is chained to.
#[derive(Clone)]
pub(super) struct Seed {
    pub(super) key: [u8; 32],
    pub(super) stamp: String,
    pub(super) scope: String,
    /// The signature before the next one, in hexadecimal.
    pub(super) signature: String,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Seed {
    fn check(&mut self, given: &str, text: &str) -> Result<(), ChunkFault> {
        let ours = hex::encode(hmac_sha256(&self.key, text.as_bytes()));
        let fits: bool = ours.as_bytes().ct_eq(given.as_bytes()).into();
        if !fits {
            return Err(ChunkFault::BadSignature);
        }
        self.signature = ours;
        Ok(())
    }

    fn check_chunk(&mut self, given: &str, digest: &[u8]) -> Result<(), ChunkFault> {
        let text = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{}\n{}\n{}",
            self.stamp,
            self.scope,
            self.signature,
            hex::encode(Sha256::digest(b"")),
            hex::encode(digest)
        );
        self.check(given, &text)
    }

    fn check_trailers(&mut self, given: &str, canonical: &str) -> Result<(), ChunkFault> {
        let text = format!(
            "AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{}\n{}",
            self.stamp,
            self.scope,
            self.signature,
            hex::encode(Sha256::digest(canonical.as_bytes()))
        );
        self.check(given, &text)
    }
}

#[derive(Debug)]
enum State {
    /// Before a line with a chunk's size.
    Size,
    /// Within a chunk: bytes left.
    Data(u64),
    /// The line end after a chunk's bytes.
    DataEnd,
    /// After the last chunk: trailers until an empty line.
    Trailers,
    Ended,
}

/// Takes the framing off a chunked body and checks every signature.
///
/// Payload is handed on as it arrives; the signature of a chunk is known to fit only when the chunk has ended, and the
/// whole body is authentic only when [`ChunkDecoder::finish`] says so. Nothing may be acknowledged before.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    /// `None` for STREAMING-UNSIGNED-PAYLOAD-TRAILER, and where nobody's signature is asked for.
    seed: Option<Seed>,
    trailer: bool,
    promised: Vec<String>,
    trailers: Vec<(String, String)>,
    /// Bytes of an unfinished line.
    line: Vec<u8>,
    digest: Sha256,
    given: String,
    declared: u64,
    seen: u64,
}

impl ChunkDecoder {
    /// `promised` is the value of `x-amz-trailer`, `declared` that of `x-amz-decoded-content-length` in bytes.
    pub(super) fn new(seed: Option<Seed>, trailer: bool, promised: &str, declared: u64) -> Self {
        let promised = promised.split(',').map(|name| name.trim().to_ascii_lowercase());
        Self {
            state: State::Size,
            seed,
            trailer,
            promised: promised.filter(|name| !name.is_empty()).collect(),
            trailers: Vec::new(),
            line: Vec::new(),
            digest: Sha256::new(),
            given: String::new(),
            declared,
            seen: 0,
        }
    }

    /// Length of the payload in bytes as its sender declared it; [`ChunkDecoder::finish`] holds the body to it.
    pub fn declared_length(&self) -> u64 {
        self.declared
    }

    /// Takes the next bytes as received and appends the payload among them to `out`.
    ///
    /// # Errors
    /// When the framing is broken, a finished chunk does not fit its signature, or the payload grows past its declared
    /// length. The decoder must then be dropped with everything it gave.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ChunkFault> {
        while !bytes.is_empty() {
            if let State::Data(left) = self.state {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let (data, rest) = bytes.split_at(take);
                bytes = rest;
                self.take_data(data, left, out)?;
                continue;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
            bytes = rest;
            if self.line.len() + part.len() > LONGEST_LINE {
                return Err(ChunkFault::Malformed("a line is too long"));
            }
            self.line.extend_from_slice(part);
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                self.take_line(&line)?;
            }
        }
        Ok(())
    }

    fn take_data(&mut self, data: &[u8], left: u64, out: &mut Vec<u8>) -> Result<(), ChunkFault> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.seen = self.seen.saturating_add(length);
        if self.seen > self.declared {
            return Err(ChunkFault::WrongLength);
        }
        if self.seed.is_some() {
            self.digest.update(data);
        }
        out.extend_from_slice(data);
        let left = left.saturating_sub(length);
        self.state = if left > 0 { State::Data(left) } else { State::DataEnd };
        if left == 0 {
            self.end_chunk()?;
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), ChunkFault> {
        let digest = self.digest.finalize_reset_digest();
        match &mut self.seed {
            Some(seed) => seed.check_chunk(&self.given, &digest),
            None => Ok(()),
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), ChunkFault> {
        let text = std::str::from_utf8(line).map_err(|_| ChunkFault::Malformed("a line is not text"))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        match self.state {
            State::Size => self.take_size(text),
            State::DataEnd if text.is_empty() => {
                self.state = State::Size;
                Ok(())
            }
            State::DataEnd => Err(ChunkFault::Malformed("a chunk does not end where its size says")),
            State::Trailers if text.is_empty() => self.end_trailers(),
            State::Trailers => self.take_trailer(text),
            State::Data(_) | State::Ended => Err(ChunkFault::Malformed("bytes after the end")),
        }
    }

    fn take_size(&mut self, text: &str) -> Result<(), ChunkFault> {
        let (size, extension) = text.split_once(';').unwrap_or((text, ""));
        let well_formed = (1..=16).contains(&size.len()) && size.bytes().all(|b| b.is_ascii_hexdigit());
        let size = u64::from_str_radix(size, 16).ok().filter(|_| well_formed);
        let size = size.ok_or(ChunkFault::Malformed("a chunk's size is no hexadecimal number"))?;
        if self.seed.is_some() {
            let given = extension.strip_prefix("chunk-signature=");
            self.given = given.ok_or(ChunkFault::Malformed("a chunk has no signature"))?.into();
        }
        if size > self.declared.saturating_sub(self.seen) {
            return Err(ChunkFault::WrongLength);
        }
        if size > 0 {
            self.state = State::Data(size);
            return Ok(());
        }
        self.end_chunk()?;
        self.state = State::Trailers;
        Ok(())
    }

    fn take_trailer(&mut self, text: &str) -> Result<(), ChunkFault> {
        let (name, value) = text
            .split_once(':')
            .ok_or(ChunkFault::Malformed("a trailer has no colon"))?;
        let name = name.trim().to_ascii_lowercase();
        let expected = name == "x-amz-trailer-signature" || self.promised.contains(&name);
        if !self.trailer || !expected {
            return Err(ChunkFault::Malformed("a trailer that x-amz-trailer does not name"));
        }
        if self.trailers.len() >= MOST_TRAILERS || self.trailers.iter().any(|(seen, _)| *seen == name) {
            return Err(ChunkFault::Malformed("a trailer appears twice"));
        }
        self.trailers.push((name, value.trim().into()));
        Ok(())
    }

    fn end_trailers(&mut self) -> Result<(), ChunkFault> {
        self.state = State::Ended;
        let signature = self
            .trailers
            .iter()
            .position(|(name, _)| name == "x-amz-trailer-signature");
        let signature = signature.map(|at| self.trailers.remove(at).1);
        let (Some(seed), true) = (&mut self.seed, self.trailer) else {
            return Ok(());
        };
        let mut sorted = self.trailers.clone();
        sorted.sort();
        let canonical: String = sorted.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        seed.check_trailers(&signature.ok_or(ChunkFault::BadSignature)?, &canonical)
    }

    /// Says that the body has ended, and gives its trailers: checked names in lower case, with their values.
    ///
    /// # Errors
    /// When it ended within a chunk, before its last chunk, with another length than declared, or without a trailer
    /// that was promised.
    pub fn finish(self) -> Result<Vec<(String, String)>, ChunkFault> {
        // Some senders leave out the empty line when there are no trailers; the last chunk's signature has been checked.
        let bare_end = matches!(self.state, State::Trailers) && !self.trailer && self.line.is_empty();
        if !(matches!(self.state, State::Ended) || bare_end) || self.seen != self.declared {
            return Err(ChunkFault::WrongLength);
        }
        let kept = self
            .promised
            .iter()
            .all(|name| self.trailers.iter().any(|(seen, _)| seen == name));
        if kept {
            Ok(self.trailers)
        } else {
            Err(ChunkFault::Malformed("a promised trailer is missing"))
        }
    }
}

/// A digest that can be read and begun anew.
trait FinalizeReset {
    fn finalize_reset_digest(&mut self) -> [u8; 32];
}

impl FinalizeReset for Sha256 {
    fn finalize_reset_digest(&mut self) -> [u8; 32] {
        std::mem::take(self).finalize().into()
    }
}
