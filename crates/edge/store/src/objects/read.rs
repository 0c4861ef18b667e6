//! Reads.

use super::disk::Stamp;
use super::rows::{BucketRow, VersionRow};
use super::seal::{DataKey, ObjectBytes, SealedFile};
use super::{ObjectError, ObjectStore};
use isolarium_model::s3::{BucketName, Object, ObjectKey, Version};
use rusqlite::Connection;
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;

/// How often to look again when an object is replaced between reading the index and opening its file.
const ATTEMPTS: usize = 64;

/// An object and its bytes. The file stays the version it was opened as, whatever happens to the key.
#[derive(Debug)]
pub struct Reading {
    pub object: Object,
    pub bytes: ObjectBytes,
    pub(super) stamp: Stamp,
}

impl Reading {
    /// Plain bytes of the object, `length` of them from `from` on. `key` opens an encrypted one.
    ///
    /// # Errors
    /// `Encrypted` when there is no key for an encrypted one; the host's failures.
    pub fn stretch(self, key: Option<&DataKey>, from: u64, length: u64) -> Result<Box<dyn Read + Send>, ObjectError> {
        match (self.bytes, key) {
            (ObjectBytes::Plain(mut file), _) => {
                file.seek(SeekFrom::Start(from)).map_err(|source| ObjectError::Io {
                    what: "reading an object",
                    source,
                })?;
                Ok(Box::new(file.take(length)))
            }
            (ObjectBytes::Sealed(_), None) => Err(ObjectError::Encrypted),
            (ObjectBytes::Sealed(sealed), Some(key)) => {
                let mut plain = sealed.open(key)?;
                plain.narrow(from, length);
                Ok(Box::new(plain))
            }
        }
    }

    /// Plain bytes of the object as a file. Those of an encrypted one are decrypted to a file that has no name and is gone
    /// when it is closed, in the directory `place` or else among those of the store.
    ///
    /// # Errors
    /// As [`Self::stretch`].
    pub fn into_file(
        self,
        key: Option<&DataKey>,
        store: &ObjectStore,
        place: Option<BorrowedFd<'_>>,
    ) -> Result<File, ObjectError> {
        let failed = |source| ObjectError::Io {
            what: "decrypting an object",
            source,
        };
        match (self.bytes, key) {
            (ObjectBytes::Plain(file), _) => Ok(file),
            (ObjectBytes::Sealed(_), None) => Err(ObjectError::Encrypted),
            (ObjectBytes::Sealed(sealed), Some(key)) => {
                let mut file = store.disk().nameless(place)?;
                sealed.open(key)?.copy_to(&mut file).map_err(failed)?;
                file.rewind().map_err(failed)?;
                Ok(file)
            }
        }
    }
}

pub(super) fn find(
    db: &Connection,
    bucket: &BucketName,
    key: &ObjectKey,
    version: Option<&str>,
) -> Result<VersionRow, ObjectError> {
    let bucket = BucketRow::get(db, bucket)?;
    let row = match version {
        None => VersionRow::latest(db, bucket.id, key)?.ok_or(ObjectError::NoSuchKey)?,
        Some(version) => VersionRow::version(db, bucket.id, key, version)?.ok_or(ObjectError::NoSuchVersion)?,
    };
    let marked = row.is_marker().then(|| row.version_id().to_owned());
    match (marked, version) {
        (None, _) => Ok(row),
        (Some(version), None) => Err(ObjectError::IsDeleted { version }),
        (Some(version), Some(_)) => Err(ObjectError::IsDeleteMarker { version }),
    }
}

/// Reads what the machine has in memory of a file from `at` on, without waiting for the disk. The answer is shorter than
/// `buffer` where memory ends; `None` says that the next byte has to be waited for (or cannot be told from it).
///
/// # Errors
/// The host's failure.
pub fn read_in_memory(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<Option<usize>> {
    let mut slices = [IoSliceMut::new(buffer)];
    match rustix::io::preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(Some(read)),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl ObjectStore {
    /// What the index says about an object; the newest version unless one is named.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoSuchKey`, `NoSuchVersion`, `IsDeleted`, `IsDeleteMarker`.
    pub fn head(&self, bucket: &BucketName, key: &ObjectKey, version: Option<&str>) -> Result<Object, ObjectError> {
        match self.database().read(|db| find(db, bucket, key, version))?.version {
            Version::Object(object) => Ok(*object),
            Version::DeleteMarker { version, .. } => Err(ObjectError::IsDeleteMarker { version }),
        }
    }

    /// Opens an object for reading.
    ///
    /// # Errors
    /// As [`ObjectStore::head`]; `Busy` when the key is being replaced all the time.
    pub fn open_object(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        version: Option<&str>,
    ) -> Result<Reading, ObjectError> {
        for attempt in 0..ATTEMPTS {
            // A file on its way between two places is in neither for an instant only in our eyes: the key's lock
            // shows it at rest.
            let _rest = (attempt > 2).then(|| self.lock_key(bucket, key));
            let row = self.database().read(|db| find(db, bucket, key, version))?;
            let (Version::Object(object), Some(name)) = (row.version, &row.file) else {
                continue;
            };
            if let Some(file) = self.disk().find(bucket, key, name, row.stamp)? {
                let bytes = match &object.encryption {
                    None => ObjectBytes::Plain(file),
                    Some(encryption) => ObjectBytes::Sealed(SealedFile {
                        file,
                        segments: encryption.segments.clone(),
                    }),
                };
                return Ok(Reading {
                    object: *object,
                    bytes,
                    stamp: row.stamp,
                });
            }
        }
        Err(ObjectError::Busy)
    }
}
