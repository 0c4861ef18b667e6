//! Job inputs without a copy: an object's file under one more name, in a staging directory.

use super::disk::{Disk, SEALED, Stamp, link_at, parent_beneath};
use super::seal::{DataKey, ObjectBytes, Unsealed};
use super::{ObjectError, ObjectStore, Reading};
use isolarium_model::Timestamp;
use isolarium_model::s3::{BucketName, Object, ObjectKey};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Plain bytes to be copied.
enum Source {
    Plain(File),
    Sealed(Box<Unsealed>),
}

impl Source {
    fn copy_to(&mut self, out: &mut File) -> std::io::Result<()> {
        match self {
            Self::Plain(file) => std::io::copy(file, out).map(drop),
            Self::Sealed(sealed) => sealed.copy_to(out),
        }
    }
}

impl ObjectStore {
    /// Gives an object's file the name `relative` below `directory` (on the same file system), making directories on
    /// the way. No byte is copied, and the name keeps these bytes whatever happens to the key. When the file system
    /// takes no more links to the inode, the bytes are copied once and further links go to the copy.
    ///
    /// # Errors
    /// As [`ObjectStore::head`]; `BadStagingPath` when `relative` has empty, `.` or `..` components or leads through a
    /// link; an existing name is an I/O failure (`EEXIST`); `Encrypted`: see [`ObjectStore::copy_into`].
    pub fn link_into(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        version: Option<&str>,
        directory: &Path,
        relative: &str,
    ) -> Result<Object, ObjectError> {
        let (parent, name) = parent_of(directory, relative)?;
        let failed = |error| ObjectError::from_errno("linking an input", error);
        let mut tries = 0;
        loop {
            let reading = self.open_object(bucket, key, version)?;
            let ObjectBytes::Plain(file) = &reading.bytes else {
                return Err(ObjectError::Encrypted);
            };
            match link_at(file, parent.as_fd(), name) {
                Ok(()) => return Ok(reading.object),
                // Deleted or replaced since it was opened: look again.
                Err(Errno::NOENT) if tries < 16 => {}
                Err(Errno::MLINK) if tries < 16 => self.renew(bucket, key, reading)?,
                Err(error) => return Err(failed(error)),
            }
            tries += 1;
        }
    }

    /// Copies the plain bytes of an object to a file of its own, `relative` below `directory`, readable as the links of
    /// [`ObjectStore::link_into`] are. A file that could not be finished is taken away again.
    ///
    /// # Errors
    /// As [`ObjectStore::link_into`].
    pub fn copy_into(
        &self,
        reading: Reading,
        key: Option<&DataKey>,
        directory: &Path,
        relative: &str,
    ) -> Result<Object, ObjectError> {
        let (parent, name) = parent_of(directory, relative)?;
        let mut plain = match (reading.bytes, key) {
            (ObjectBytes::Plain(file), _) => Source::Plain(file),
            (ObjectBytes::Sealed(sealed), Some(key)) => Source::Sealed(Box::new(sealed.open(key)?)),
            (ObjectBytes::Sealed(_), None) => return Err(ObjectError::Encrypted),
        };
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ObjectError::DiskFull,
            _ => ObjectError::Io {
                what: "copying an input",
                source,
            },
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(|error| ObjectError::from_errno("creating an input", error))?);
        let done = plain
            .copy_to(&mut file)
            .and_then(|()| rustix::fs::fchmod(&file, SEALED).map_err(Into::into));
        match done {
            Ok(()) => Ok(reading.object),
            Err(error) => {
                let _ = rustix::fs::unlinkat(&parent, name, AtFlags::empty());
                Err(failed(error))
            }
        }
    }

    /// Gives an object whose inode is full of links a fresh inode with the same bytes, in the same place.
    fn renew(&self, bucket: &BucketName, key: &ObjectKey, mut full: Reading) -> Result<(), ObjectError> {
        let ObjectBytes::Plain(file) = &mut full.bytes else {
            return Err(ObjectError::Encrypted);
        };
        let mut incoming = self.receive(&[], Timestamp(0), None)?;
        incoming.append_file(file, full.object.size)?;
        let fresh = incoming.finish()?;
        let _key = self.lock_key(bucket, key);
        let (bucket_name, object_key, version) = (bucket.clone(), key.clone(), full.object.version.clone());
        let (was, stamp, file): (Stamp, Stamp, String) = (full.stamp, fresh.stamp, fresh.name.name().to_owned());
        let row = self
            .database()
            .read(|db| super::read::find(db, bucket, key, Some(&full.object.version)))?;
        let Some(old) = row.file.filter(|_| row.stamp == was) else {
            return Ok(());
        };
        self.disk().recall(bucket, key, &old, was)?;
        self.disk().sync_new()?;
        let changed: Result<(), ObjectError> = self.database().write(move |db| {
            let row = super::read::find(db, &bucket_name, &object_key, Some(&version))?;
            db.execute(
                "UPDATE s3_versions SET file = ?1, stamp = ?2 WHERE id = ?3",
                (file, stamp, row.id),
            )?;
            Ok(())
        });
        self.settle_by_index(&old)?;
        changed?;
        self.settle_by_index(&fresh.name.claimed())
    }
}

fn parent_of<'p>(directory: &Path, relative: &'p str) -> Result<(OwnedFd, &'p str), ObjectError> {
    parent_beneath(directory, relative).map_err(|error| match error {
        Errno::INVAL | Errno::LOOP | Errno::NOTDIR => ObjectError::BadStagingPath,
        other => ObjectError::from_errno("making a staging directory", other),
    })
}

impl Disk {
    /// Brings a kept file to `escape/new/`.
    pub(super) fn recall_kept(&self, name: &str) -> Result<(), ObjectError> {
        match self.move_kept(name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(ObjectError::from_errno("moving an object's file", error)),
        }
    }
}
