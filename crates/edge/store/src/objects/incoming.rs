//! Bytes on their way in: written to a file of their own while they are hashed, visible to nobody.

use super::digest::Digests;
use super::disk::{Disk, FileName, Stamp};
use super::seal::{Sealer, Sealing};
use super::{ObjectError, ObjectStore};
use isolarium_model::Timestamp;
use isolarium_model::s3::{Checksum, ChecksumAlgorithm, Encryption, Segment, Wrapping};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

/// An object being received. Dropping it takes the bytes back.
pub struct Incoming {
    file: File,
    digests: Digests,
    size: u64,
    stamp: Stamp,
    name: Unclaimed,
    sealing: Option<(Sealer, Encryption)>,
}

/// Bytes that are on the disk and wait for their index entry. Dropping it takes the bytes back.
pub struct Staged {
    pub(super) name: Unclaimed,
    pub(super) stamp: Stamp,
    /// Bytes.
    pub size: u64,
    /// MD5 of the bytes.
    pub md5: [u8; 16],
    /// The checksums that were asked for.
    pub checksums: Vec<Checksum>,
    /// How they are encrypted.
    pub(super) encryption: Option<Encryption>,
}

impl Staged {
    /// The ETag, without quotes: the MD5 of the bytes, but for those under a key of the key store. Theirs says nothing
    /// about them.
    pub(super) fn etag(&self) -> Result<String, ObjectError> {
        match &self.encryption {
            Some(Encryption {
                wrapping: Wrapping::Kms { .. },
                ..
            }) => Disk::fresh_name(),
            _ => Ok(hex::encode(self.md5)),
        }
    }
}

/// A file in `escape/new/` that no index entry names yet.
pub(super) struct Unclaimed {
    disk: Arc<Disk>,
    name: Option<FileName>,
}

impl Unclaimed {
    pub(super) fn new(disk: &Arc<Disk>, name: FileName) -> Self {
        Self {
            disk: Arc::clone(disk),
            name: Some(name),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The index names the file now.
    pub(super) fn claimed(mut self) -> FileName {
        self.name.take().unwrap_or_default()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.disk.remove_new(&name);
        }
    }
}

impl ObjectStore {
    /// Starts receiving an object or part. MD5 is always computed, `algorithms` besides. With `sealing`, no plain byte
    /// reaches the disk.
    ///
    /// # Errors
    /// When no file can be created.
    pub fn receive(
        &self,
        algorithms: &[ChecksumAlgorithm],
        now: Timestamp,
        sealing: Option<&Sealing>,
    ) -> Result<Incoming, ObjectError> {
        let sealer = |sealing: &Sealing| Ok::<_, ObjectError>((Sealer::new(&sealing.key)?, sealing.encryption.clone()));
        let sealing = sealing.map(sealer).transpose()?;
        let (name, file) = self.disk().create()?;
        let name = Unclaimed::new(&self.inner.disk, name);
        Ok(Incoming {
            file,
            digests: Digests::new(algorithms),
            size: 0,
            stamp: self.next_stamp(now),
            name,
            sealing,
        })
    }

    /// Receives everything `source` yields.
    ///
    /// # Errors
    /// When reading or writing fails.
    pub fn receive_all(
        &self,
        source: &mut dyn Read,
        algorithms: &[ChecksumAlgorithm],
        now: Timestamp,
        sealing: Option<&Sealing>,
    ) -> Result<Staged, ObjectError> {
        let mut incoming = self.receive(algorithms, now, sealing)?;
        let mut buffer = vec![0_u8; 1 << 20];
        loop {
            let read = source.read(&mut buffer).map_err(|source| ObjectError::Io {
                what: "reading the bytes to store",
                source,
            })?;
            if read == 0 {
                return incoming.finish();
            }
            incoming.write(buffer.get(..read).unwrap_or_default())?;
        }
    }
}

impl Incoming {
    /// Appends bytes. Large pieces are cheaper than small ones.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        match &mut self.sealing {
            None => self.file.write_all(bytes),
            Some((sealer, _)) => sealer.write(&mut self.file, bytes),
        }
        .map_err(unwritten)?;
        self.digests.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends bytes of another file without hashing them; by reflink or inside the kernel where the file system can.
    pub(super) fn append_file(&mut self, source: &mut File, size: u64) -> Result<(), ObjectError> {
        let failed = |source| ObjectError::Io {
            what: "joining the parts of an object",
            source,
        };
        source.seek(SeekFrom::Start(0)).map_err(failed)?;
        // `io::copy` between files uses copy_file_range, which shares extents where possible.
        let copied = std::io::copy(&mut source.take(size), &mut self.file).map_err(failed)?;
        self.size += copied;
        if copied == size {
            Ok(())
        } else {
            Err(failed(std::io::ErrorKind::UnexpectedEof.into()))
        }
    }

    /// Brings the bytes to the disk.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn finish(mut self) -> Result<Staged, ObjectError> {
        let encryption = match self.sealing.take() {
            None => None,
            Some((sealer, encryption)) => {
                let salt = sealer.finish(&mut self.file).map_err(unwritten)?;
                let size = self.size;
                let segments = vec![Segment { salt, size }];
                Some(Encryption { segments, ..encryption })
            }
        };
        Disk::seal(&self.file, self.stamp)?;
        let (md5, checksums) = self.digests.finish();
        Ok(Staged {
            name: self.name,
            stamp: self.stamp,
            size: self.size,
            md5,
            checksums,
            encryption,
        })
    }
}

fn unwritten(source: std::io::Error) -> ObjectError {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ObjectError::DiskFull,
        _ => ObjectError::Io {
            what: "writing an object",
            source,
        },
    }
}
