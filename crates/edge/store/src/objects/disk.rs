//! Files of objects: where they may lie, and how they move.
//!
//! `buckets/B/KEY` holds current objects at their keys, `escape/kept/` what cannot lie there (awkward keys, older
//! versions, parts), `escape/new/` what is on the move. A file's name in `escape/` is generated and never reused.

use super::ObjectError;
use isolarium_model::s3::{BucketName, ObjectKey};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Generated name of a file in `escape/`.
pub(super) type FileName = String;

/// Identifies the bytes of a file: its modification time in nanoseconds, unique within this store. A copy that shares
/// the inode shares the stamp. It survives backups that keep times, which inode numbers do not.
pub(super) type Stamp = i64;

/// Stay below the directory, follow no link of any kind.
// INVARIANT (keys-stay-beneath): every path made from a key is resolved with these flags.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
/// A sealed object's file. A staged input is a link to it, and a container's user other than root must be able to read
/// that: mounts can show other owners but no other mode. On the host nobody gains by it, because every way to the file
/// leads through a directory of mode 0700, or through a workload's directory, which is its own.
pub(super) const SEALED: Mode = Mode::RUSR.union(Mode::RGRP).union(Mode::ROTH);
/// A directory of staged inputs, readable for the same reason.
const STAGED_DIRECTORY: Mode = Mode::RWXU
    .union(Mode::RGRP)
    .union(Mode::XGRP)
    .union(Mode::ROTH)
    .union(Mode::XOTH);

/// Where a file is to end up.
pub(super) enum Fate<'a> {
    Gone,
    Kept,
    /// At its key if that is possible, else kept.
    Plain(&'a BucketName, &'a ObjectKey),
}

pub(super) struct Disk {
    root: PathBuf,
    buckets: OwnedFd,
    new: OwnedFd,
    kept: OwnedFd,
}

/// The path of a key inside its bucket's directory; `None` for keys that no file name can carry faithfully.
pub(super) fn plain_path(key: &ObjectKey) -> Option<&str> {
    let text = key.as_str();
    let component = |c: &str| !c.is_empty() && c != "." && c != ".." && c.len() <= 255;
    (text.split('/').all(component) && !text.chars().any(char::is_control)).then_some(text)
}

pub(super) fn stamp_of(fd: impl AsFd) -> rustix::io::Result<Stamp> {
    let stat = rustix::fs::fstat(fd)?;
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Ok(stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanos))
}

fn open_dir(at: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(at, name, DIRECTORY, Mode::empty())
}

fn ensure_dir(at: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(at.as_fd(), name, PRIVATE_DIRECTORY) {
        Ok(()) | Err(Errno::EXIST) => open_dir(at, name),
        Err(error) => Err(error),
    }
}

impl Disk {
    pub(super) fn open(root: &Path) -> Result<Self, ObjectError> {
        let failed = ObjectError::io("opening the object directories");
        let open = || -> rustix::io::Result<Self> {
            let top = rustix::fs::open(root, DIRECTORY & !OFlags::NOFOLLOW, Mode::empty())?;
            let escape = ensure_dir(&top, "escape")?;
            Ok(Self {
                root: root.into(),
                buckets: ensure_dir(&top, "buckets")?,
                new: ensure_dir(&escape, "new")?,
                kept: ensure_dir(&escape, "kept")?,
            })
        };
        open().map_err(failed)
    }

    /// A name that no other file has.
    pub(super) fn fresh_name() -> Result<FileName, ObjectError> {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes).map_err(|error| ObjectError::Io {
            what: "drawing a file name",
            source: std::io::Error::other(error.to_string()),
        })?;
        Ok(hex::encode(bytes))
    }

    /// Creates an empty file in `escape/new/`.
    pub(super) fn create(&self) -> Result<(FileName, File), ObjectError> {
        let name = Self::fresh_name()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.new, name.as_str(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(ObjectError::io("creating a file for an object"))?;
        Ok((name, File::from(fd)))
    }

    /// A file without a name: gone when it is closed, whatever ends the process.
    /// In the directory `place`, or else among those of the store.
    pub(super) fn nameless(&self, place: Option<BorrowedFd<'_>>) -> Result<File, ObjectError> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(place.unwrap_or(self.new.as_fd()), ".", flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(ObjectError::io("creating a file for a decrypted object"))
    }

    /// Makes a written file final: its stamp, read-only, on the disk.
    pub(super) fn seal(file: &File, stamp: Stamp) -> Result<(), ObjectError> {
        let time = Timespec {
            tv_sec: stamp.div_euclid(1_000_000_000),
            tv_nsec: stamp.rem_euclid(1_000_000_000),
        };
        let omit = Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        };
        let seal = || -> rustix::io::Result<()> {
            rustix::fs::futimens(
                file,
                &Timestamps {
                    last_access: omit,
                    last_modification: time,
                },
            )?;
            rustix::fs::fchmod(file, SEALED)?;
            rustix::fs::fsync(file)
        };
        seal().map_err(ObjectError::io("writing an object to disk"))
    }

    /// Makes the names in `escape/new/`, and moves into it, durable.
    pub(super) fn sync_new(&self) -> Result<(), ObjectError> {
        rustix::fs::fsync(&self.new).map_err(ObjectError::io("writing a directory to disk"))
    }

    pub(super) fn remove_new(&self, name: &str) {
        // What stays behind is swept at the next start.
        let _ = rustix::fs::unlinkat(&self.new, name, AtFlags::empty());
    }

    fn bucket(&self, bucket: &BucketName) -> rustix::io::Result<OwnedFd> {
        open_dir(&self.buckets, bucket.as_str())
    }

    pub(super) fn create_bucket(&self, bucket: &BucketName) -> Result<(), ObjectError> {
        ensure_dir(&self.buckets, bucket.as_str()).map_err(ObjectError::io("creating a bucket's directory"))?;
        rustix::fs::fsync(&self.buckets).map_err(ObjectError::io("writing a directory to disk"))
    }

    /// Removes the directory of a bucket that the index no longer knows, with whatever a crash left in it.
    pub(super) fn remove_bucket(&self, bucket: &str) -> Result<(), ObjectError> {
        let name = Self::fresh_name()?;
        match rustix::fs::renameat(&self.buckets, bucket, &self.new, name.as_str()) {
            Ok(()) => {
                let _ = std::fs::remove_dir_all(self.root.join("escape/new").join(name));
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(ObjectError::from_errno("removing a bucket's directory", error)),
        }
    }

    /// Names of the directories under `buckets/`.
    pub(super) fn bucket_names(&self) -> Result<Vec<String>, ObjectError> {
        names(&self.buckets).map_err(ObjectError::io("listing the buckets' directories"))
    }

    /// Names in `escape/new/`: the leavings of a crash.
    pub(super) fn leavings(&self) -> Result<Vec<String>, ObjectError> {
        names(&self.new).map_err(ObjectError::io("listing unfinished files"))
    }

    pub(super) fn remove_leaving(&self, name: &str) {
        let path = self.root.join("escape/new").join(name);
        if rustix::fs::unlinkat(&self.new, name, AtFlags::empty()).is_err() {
            // A bucket's directory on its way out.
            let _ = std::fs::remove_dir_all(path);
        }
    }

    /// Opens a file by where it may lie. `None` when it is in none of its places at this moment.
    pub(super) fn find(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        name: &str,
        stamp: Stamp,
    ) -> Result<Option<File>, ObjectError> {
        let failed = |error| ObjectError::from_errno("opening an object", error);
        if let Some(file) = self.open_plain(bucket, key).map_err(failed)?
            && stamp_of(&file).map_err(failed)? == stamp
        {
            return Ok(Some(file));
        }
        for place in [&self.kept, &self.new] {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            match rustix::fs::openat(place, name, flags, Mode::empty()) {
                Ok(fd) => return Ok(Some(File::from(fd))),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(None)
    }

    fn open_plain(&self, bucket: &BucketName, key: &ObjectKey) -> rustix::io::Result<Option<File>> {
        let Some(path) = plain_path(key) else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = self
            .bucket(bucket)
            .and_then(|dir| rustix::fs::openat2(dir, path, flags, Mode::empty(), BENEATH));
        match opened {
            Ok(fd) => {
                let regular = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::RegularFile;
                Ok(regular.then(|| File::from(fd)))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The stamp of the file at a key, if a file is there.
    pub(super) fn plain_stamp(&self, bucket: &BucketName, key: &ObjectKey) -> Result<Option<Stamp>, ObjectError> {
        let look = || self.open_plain(bucket, key)?.map(|file| stamp_of(&file)).transpose();
        look().map_err(ObjectError::io("looking at an object"))
    }

    /// Brings a file to `escape/new/` from wherever it lies, under its generated name.
    pub(super) fn recall(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        name: &str,
        stamp: Stamp,
    ) -> Result<(), ObjectError> {
        let recall = || -> rustix::io::Result<()> {
            match rustix::fs::renameat(&self.kept, name, &self.new, name) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            if let Some(file) = self.open_plain(bucket, key)?
                && stamp_of(&file)? == stamp
            {
                let (parent, last) = self.parent(bucket, key, false)?;
                rustix::fs::renameat(&parent, last, &self.new, name)?;
            }
            Ok(())
        };
        recall().map_err(ObjectError::io("moving an object's file"))
    }

    pub(super) fn move_kept(&self, name: &str) -> rustix::io::Result<()> {
        rustix::fs::renameat(&self.kept, name, &self.new, name)
    }

    /// Whether a file lies in `escape/kept/`.
    pub(super) fn is_kept(&self, name: &str) -> bool {
        rustix::fs::statat(&self.kept, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Moves a file of `escape/new/` to its place. Never fails: what cannot be moved stays findable where it is.
    pub(super) fn settle(&self, name: &str, fate: &Fate<'_>) {
        match fate {
            Fate::Gone => self.remove_new(name),
            Fate::Kept => self.keep(name),
            Fate::Plain(bucket, key) => {
                if self.promote(bucket, key, name).is_err() {
                    self.keep(name);
                }
            }
        }
    }

    fn keep(&self, name: &str) {
        if let Err(error) = rustix::fs::renameat(&self.new, name, &self.kept, name)
            && error != Errno::NOENT
        {
            tracing::warn!(%error, name, "an object's file stays among the unfinished ones");
        }
    }

    fn promote(&self, bucket: &BucketName, key: &ObjectKey, name: &str) -> rustix::io::Result<()> {
        // Between making a directory and moving into it, a deletion may clear the empty directory away again.
        for _ in 0..8 {
            let (parent, last) = self.parent(bucket, key, true)?;
            match rustix::fs::renameat(&self.new, name, &parent, last) {
                Ok(()) => {
                    // Renaming onto another link of the same inode does nothing and leaves both names.
                    let _ = rustix::fs::unlinkat(&self.new, name, AtFlags::empty());
                    return Ok(());
                }
                Err(Errno::NOENT) if rustix::fs::fstat(&parent)?.st_nlink == 0 => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::NOENT)
    }

    /// The directory that holds a key's file, and the file's name in it.
    fn parent<'k>(
        &self,
        bucket: &BucketName,
        key: &'k ObjectKey,
        create: bool,
    ) -> rustix::io::Result<(OwnedFd, &'k str)> {
        let path = plain_path(key).ok_or(Errno::INVAL)?;
        let top = self.bucket(bucket)?;
        let Some((folders, last)) = path.rsplit_once('/') else {
            return Ok((top, path));
        };
        match rustix::fs::openat2(&top, folders, DIRECTORY, Mode::empty(), BENEATH) {
            Err(Errno::NOENT) if create => {}
            other => return other.map(|dir| (dir, last)),
        }
        let mut dir = top;
        for folder in folders.split('/') {
            dir = ensure_dir(&dir, folder)?;
        }
        Ok((dir, last))
    }

    /// Removes the directories above a key that have become empty.
    pub(super) fn prune(&self, bucket: &BucketName, key: &ObjectKey) {
        let Some(mut path) = plain_path(key) else { return };
        let Ok(top) = self.bucket(bucket) else { return };
        while let Some((folders, _)) = path.rsplit_once('/') {
            let (above, last) = folders.rsplit_once('/').unwrap_or(("", folders));
            let parent = if above.is_empty() {
                rustix::fs::openat(&top, ".", DIRECTORY, Mode::empty())
            } else {
                rustix::fs::openat2(&top, above, DIRECTORY, Mode::empty(), BENEATH)
            };
            let removed = parent.and_then(|parent| rustix::fs::unlinkat(parent, last, AtFlags::REMOVEDIR));
            if removed.is_err() {
                return;
            }
            path = folders;
        }
    }

    /// A second name in `escape/new/` for an open file. `Ok(None)` when the inode takes no more links or has lost its
    /// last name.
    pub(super) fn link(&self, file: &File) -> Result<Option<FileName>, ObjectError> {
        let name = Self::fresh_name()?;
        match link_at(file, self.new.as_fd(), &name) {
            Ok(()) => Ok(Some(name)),
            Err(Errno::MLINK | Errno::NOENT) => Ok(None),
            Err(error) => Err(ObjectError::from_errno("linking an object", error)),
        }
    }
}

/// Gives an open file one more name. Through `/proc`, so that it is this inode and no other.
pub(super) fn link_at(file: &File, dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, path.as_str(), dir, name, AtFlags::SYMLINK_FOLLOW)
}

/// Opens, and where needed makes (mode 0755), the directory of a relative path below the staging directory `dir`; gives
/// the last component too.
pub(super) fn parent_beneath<'p>(dir: &Path, relative: &'p str) -> rustix::io::Result<(OwnedFd, &'p str)> {
    let component = |c: &str| !c.is_empty() && c != "." && c != ".." && c.len() <= 255 && !c.contains('\0');
    if !relative.split('/').all(component) {
        return Err(Errno::INVAL);
    }
    let mut at = rustix::fs::open(dir, DIRECTORY, Mode::empty())?;
    let (folders, last) = relative.rsplit_once('/').unwrap_or(("", relative));
    for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
        at = ensure_staged(&at, folder)?;
    }
    Ok((at, last))
}

fn ensure_staged(at: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(at.as_fd(), name, STAGED_DIRECTORY) {
        Ok(()) => {
            let made = open_dir(at, name)?;
            // The service's umask had its say about the mode.
            rustix::fs::fchmod(&made, STAGED_DIRECTORY)?;
            Ok(made)
        }
        Err(Errno::EXIST) => open_dir(at, name),
        Err(error) => Err(error),
    }
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if name != "." && name != ".." {
            found.push(name.into_owned());
        }
    }
    Ok(found)
}
