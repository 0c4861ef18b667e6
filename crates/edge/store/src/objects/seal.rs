//! Encryption at rest: AES-256-GCM in chunks, so that a range is read without the rest and a changed byte is noticed.
//!
//! An object has a data key of its own, which whoever calls the store keeps sealed. A file is one or more segments, each
//! written in one go under a key that is made of the data key and the segment's salt; that is how parts of an upload are
//! joined without being opened. A segment is chunks of [`CHUNK`] plain bytes, each followed by its tag; a chunk's nonce is
//! its number and whether it is the last, so that chunks cannot be moved, repeated or cut off.

use super::ObjectError;
use isolarium_model::s3::{Encryption, Segment};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

/// Plain bytes of a chunk.
const CHUNK: usize = 64 << 10;
/// Bytes of a chunk's tag.
const TAG: usize = 16;
/// Bytes of a salt.
const SALT: usize = 16;
/// Plain bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// The key of one object. It is never written to the disk in the clear, and never printed.
#[derive(Clone)]
pub struct DataKey([u8; 32]);

impl DataKey {
    /// Wraps 32 bytes that cannot be guessed.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// How bytes to come are to be encrypted.
#[derive(Clone, Debug)]
pub struct Sealing {
    pub key: DataKey,
    /// What is kept of it: everything but the segments, which come with the bytes.
    pub encryption: Encryption,
}

fn refused() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "an encrypted file is not what was written, or its key is another one; restore it from a backup",
    )
}

fn segment_key(key: &DataKey, salt: &[u8]) -> io::Result<LessSafeKey> {
    let made = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.0), salt);
    let unbound = UnboundKey::new(&AES_256_GCM, made.as_ref()).map_err(|_| refused())?;
    Ok(LessSafeKey::new(unbound))
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0_u8; NONCE_LEN];
    let (head, tail) = bytes.split_at_mut(NONCE_LEN - 8);
    head.fill(u8::from(last));
    tail.copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Chunks of so many plain bytes. Nothing at all is one empty chunk: its tag says that it was meant.
fn chunks(size: u64) -> u64 {
    size.div_ceil(CHUNK as u64).max(1)
}

/// Bytes on the disk of so many plain bytes.
pub(super) fn sealed_size(size: u64) -> u64 {
    size.saturating_add(chunks(size).saturating_mul(TAG as u64))
}

/// A segment being written.
pub(super) struct Sealer {
    key: LessSafeKey,
    salt: [u8; SALT],
    chunk: Vec<u8>,
    number: u64,
}

impl Sealer {
    pub(super) fn new(key: &DataKey) -> Result<Self, ObjectError> {
        let failed = |source| ObjectError::Io {
            what: "preparing an encrypted file",
            source,
        };
        let mut salt = [0_u8; SALT];
        getrandom::fill(&mut salt).map_err(|error| failed(io::Error::other(error.to_string())))?;
        Ok(Self {
            key: segment_key(key, &salt).map_err(failed)?,
            salt,
            chunk: Vec::with_capacity(CHUNK + TAG),
            number: 0,
        })
    }

    pub(super) fn write(&mut self, file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // A full chunk waits for the next byte: only then it is known not to be the last.
            if self.chunk.len() == CHUNK {
                self.flush(file, false)?;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = rest;
        }
        Ok(())
    }

    /// Writes the last chunk; gives the salt.
    pub(super) fn finish(mut self, file: &mut File) -> io::Result<String> {
        self.flush(file, true)?;
        Ok(hex::encode(self.salt))
    }

    fn flush(&mut self, file: &mut File, last: bool) -> io::Result<()> {
        self.key
            .seal_in_place_append_tag(nonce(self.number, last), Aad::empty(), &mut self.chunk)
            .map_err(|_| refused())?;
        file.write_all(&self.chunk)?;
        self.chunk.clear();
        self.number += 1;
        Ok(())
    }
}

/// The bytes of an object as they lie on the disk.
#[derive(Debug)]
pub enum ObjectBytes {
    Plain(File),
    /// They say nothing without the object's data key.
    Sealed(SealedFile),
}

/// An encrypted file.
#[derive(Debug)]
pub struct SealedFile {
    pub(super) file: File,
    pub(super) segments: Vec<Segment>,
}

/// Where a segment is.
struct Place {
    salt: Vec<u8>,
    /// Plain bytes before it, and in it.
    from: u64,
    size: u64,
    /// Where it begins in the file.
    at: u64,
}

/// An encrypted object's plain bytes, opened as they are read.
pub struct Unsealed {
    file: File,
    key: DataKey,
    places: Vec<Place>,
    /// The segment that was read last, and its key.
    open: Option<(usize, LessSafeKey)>,
    size: u64,
    /// Where [`Read`] goes on, and where it ends.
    next: u64,
    end: u64,
}

impl SealedFile {
    /// The plain bytes, if the key is the object's: that shows when they are read.
    ///
    /// # Errors
    /// When the index cannot be understood.
    pub fn open(self, key: &DataKey) -> Result<Unsealed, ObjectError> {
        let (mut from, mut at) = (0_u64, 0_u64);
        let mut places = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let salt = hex::decode(&segment.salt).map_err(|_| ObjectError::Io {
                what: "reading an encrypted object",
                source: refused(),
            })?;
            places.push(Place {
                salt,
                from,
                size: segment.size,
                at,
            });
            from = from.saturating_add(segment.size);
            at = at.saturating_add(sealed_size(segment.size));
        }
        Ok(Unsealed {
            file: self.file,
            key: key.clone(),
            places,
            open: None,
            size: from,
            next: 0,
            end: from,
        })
    }
}

impl Unsealed {
    /// Plain bytes of the object.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Lets [`Read`] give `length` bytes from `from` on, as far as there are so many.
    pub fn narrow(&mut self, from: u64, length: u64) {
        self.next = from.min(self.size);
        self.end = from.saturating_add(length).min(self.size);
    }

    /// Fills `buffer` with the plain bytes from `at` on.
    ///
    /// # Errors
    /// `InvalidData` when the file was changed since it was written; `UnexpectedEof` past the end; the host's failures.
    pub fn read_exact_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let (mut at, mut rest) = (at, buffer);
        while !rest.is_empty() {
            let plain = self.chunk_at(at)?;
            let count = plain.len().min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(plain.get(..count).unwrap_or_default());
            at = at.saturating_add(count as u64);
            rest = later;
        }
        Ok(())
    }

    /// The plain bytes from `at` to the end of its chunk.
    fn chunk_at(&mut self, at: u64) -> io::Result<Vec<u8>> {
        if at >= self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let found = self.places.partition_point(|place| place.from <= at).checked_sub(1);
        let (found, place) = found
            .and_then(|found| Some((found, self.places.get(found)?)))
            .ok_or_else(refused)?;
        let within = at - place.from;
        let number = within / CHUNK as u64;
        let before = number * CHUNK as u64;
        let plain = (place.size - before).min(CHUNK as u64);
        let last = number + 1 == chunks(place.size);
        let offset = place.at.saturating_add(number.saturating_mul((CHUNK + TAG) as u64));
        let length = usize::try_from(plain).map_err(|_| refused())?;
        let mut bytes = vec![0_u8; length + TAG];
        self.file.read_exact_at(&mut bytes, offset)?;
        let key = match self.open.take().filter(|(open, _)| *open == found) {
            Some((_, key)) => key,
            None => segment_key(&self.key, &place.salt)?,
        };
        let (_, key) = self.open.insert((found, key));
        key.open_in_place(nonce(number, last), Aad::empty(), &mut bytes)
            .map_err(|_| refused())?;
        bytes.truncate(length);
        let skip = usize::try_from(within - before).map_err(|_| refused())?;
        bytes.drain(..skip);
        Ok(bytes)
    }

    /// Writes all plain bytes to a file.
    pub(super) fn copy_to(&mut self, out: &mut File) -> io::Result<()> {
        let mut piece = vec![0_u8; PIECE];
        let mut at = 0;
        while at < self.size {
            let count = usize::try_from(self.size - at).unwrap_or(usize::MAX).min(PIECE);
            let now = piece.get_mut(..count).ok_or_else(refused)?;
            self.read_exact_at(now, at)?;
            out.write_all(now)?;
            at += count as u64;
        }
        Ok(())
    }
}

impl Read for Unsealed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let Some(now) = buffer.get_mut(..count).filter(|now| !now.is_empty()) else {
            return Ok(0);
        };
        self.read_exact_at(now, self.next)?;
        self.next = self.next.saturating_add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
