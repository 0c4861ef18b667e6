//! Unpacking, entry by entry, never following a link.

use super::path::Inner;
use super::zstd::Zstd;
use super::{ArchiveError, Limits, refuse};
use crate::sys::open_beneath;
use flate2::read::MultiGzDecoder;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, fchmod, fchown, futimens, linkat, mkdirat,
    mknodat, statat, symlinkat, unlinkat, utimensat,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use tar::EntryType;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of a union file system's own bookkeeping: nothing for us.
const BOOKKEEPING: &[u8] = b".wh..wh.";

/// Ids in a container.
const IDS: u64 = 65_536;

/// Reads on, hashing and counting.
struct Measured<R> {
    inner: R,
    hash: Sha256,
    left: u64,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(u64::try_from(count).map_err(io::Error::other)?)
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the archive is larger than allowed when unpacked",
                )
            })?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Recognises gzip and zstd by their first bytes; anything else is taken for a bare tar.
fn decompress(archive: OwnedFd) -> io::Result<Box<dyn Read>> {
    let mut reader = BufReader::with_capacity(128 << 10, File::from(archive));
    let start = std::io::BufRead::fill_buf(&mut reader)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(reader)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(Zstd::new(reader)));
    }
    Ok(Box::new(reader))
}

/// Unpacks an image layer; whiteouts become overlayfs's own. Returns the directories that must become opaque.
///
/// # Errors
/// `Refused` for anything that breaks a rule, a wrong digest above all.
pub fn layer(archive: OwnedFd, target: &OwnedFd, diff_id: &str, limits: Limits) -> Result<Vec<Vec<u8>>, ArchiveError> {
    let mut unpacker = Unpacker::new(target, limits, true);
    let found = unpacker.run(decompress(archive)?)?;
    expect(&found, diff_id)?;
    Ok(unpacker.opaque.into_keys().collect())
}

/// Whether these bytes are, uncompressed, the layer with this digest.
///
/// # Errors
/// `Refused` when they are another, or more than allowed.
pub fn check(archive: OwnedFd, diff_id: &str, limits: Limits) -> Result<(), ArchiveError> {
    let mut bytes = Measured {
        inner: decompress(archive)?,
        hash: Sha256::new(),
        left: limits.bytes,
    };
    io::copy(&mut bytes, &mut io::sink())?;
    expect(&hex::encode(bytes.hash.finalize()), diff_id)
}

fn expect(found: &str, diff_id: &str) -> Result<(), ArchiveError> {
    if found == diff_id {
        return Ok(());
    }
    refuse(format!("the layer's digest is sha256:{found}, not sha256:{diff_id}"))
}

/// Unpacks a plain archive; every file belongs to root.
///
/// # Errors
/// `Refused` for anything that breaks a rule.
pub fn plain(archive: OwnedFd, target: &OwnedFd, limits: Limits) -> Result<(), ArchiveError> {
    Unpacker::new(target, limits, false).run(decompress(archive)?).map(drop)
}

struct Unpacker<'a> {
    target: &'a OwnedFd,
    limits: Limits,
    is_layer: bool,
    opaque: BTreeMap<Vec<u8>, ()>,
    /// Times of directories, set when nothing is put into them any more.
    directory_times: BTreeMap<Vec<u8>, u64>,
    /// The directory of the last entry: the next one is mostly there too.
    last_parent: Option<(Vec<Vec<u8>>, OwnedFd)>,
}

/// Owner, mode and time of an entry.
struct Traits {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    seconds: u64,
}

impl Traits {
    fn times(&self) -> Timestamps {
        let at = Timespec {
            tv_sec: i64::try_from(self.seconds).unwrap_or(0),
            tv_nsec: 0,
        };
        Timestamps {
            last_access: at,
            last_modification: at,
        }
    }
}

impl<'a> Unpacker<'a> {
    fn new(target: &'a OwnedFd, limits: Limits, is_layer: bool) -> Self {
        Self {
            target,
            limits,
            is_layer,
            opaque: BTreeMap::new(),
            directory_times: BTreeMap::new(),
            last_parent: None,
        }
    }

    /// Unpacks everything; returns the digest of the bytes.
    fn run(&mut self, stream: Box<dyn Read>) -> Result<String, ArchiveError> {
        let mut archive = tar::Archive::new(Measured {
            inner: stream,
            hash: Sha256::new(),
            left: self.limits.bytes,
        });
        let mut entries = 0;
        let mut bytes = 0_u64;
        for entry in archive.entries()? {
            let mut entry = entry?;
            entries += 1;
            // Holes of sparse files cost no bytes in the archive, so they are counted here.
            bytes = bytes.saturating_add(entry.size());
            if entries > self.limits.entries || bytes > self.limits.bytes {
                return refuse("the archive has more entries or bytes than allowed");
            }
            self.entry(&mut entry)?;
        }
        for (path, seconds) in &self.directory_times {
            let directory = if path.is_empty() {
                self.target.try_clone()?
            } else {
                open_beneath(
                    self.target,
                    bytes_path(path),
                    OFlags::RDONLY | OFlags::DIRECTORY,
                    Mode::empty(),
                )?
            };
            let at = Timespec {
                tv_sec: i64::try_from(*seconds).unwrap_or(0),
                tv_nsec: 0,
            };
            futimens(
                &directory,
                &Timestamps {
                    last_access: at,
                    last_modification: at,
                },
            )?;
        }
        // The digest covers the padding behind the last entry.
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink())?;
        Ok(hex::encode(rest.hash.finalize()))
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), ArchiveError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = Inner::parse(&entry.path_bytes())?;
        let traits = self.traits(entry.header())?;
        let Some((parent_path, name)) = path.split() else {
            if !kind.is_dir() {
                return refuse("the archive's own directory is not a directory");
            }
            self.dress_directory(&self.target.try_clone()?, &traits)?;
            self.directory_times.insert(Vec::new(), traits.seconds);
            return Ok(());
        };
        let parent = self.parent(parent_path)?;
        if self.is_layer && name.starts_with(WHITEOUT) {
            return self.whiteout(&parent, parent_path, name);
        }
        let in_the_way = self.look(&parent, name)?;
        if kind.is_dir() {
            return self.directory(&parent, &path, name, in_the_way, &traits);
        }
        match in_the_way {
            Some(FileType::Directory) => return refuse(format!("a file replaces the directory {:?}", shown(&path))),
            Some(_) => unlinkat(&parent, name, AtFlags::empty())?,
            None => {}
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(&parent, name, entry, &traits)
            }
            EntryType::Symlink => {
                let text = entry
                    .link_name_bytes()
                    .ok_or_else(|| ArchiveError::Refused("a symbolic link without a target".into()))?;
                symlinkat(&*text, &parent, name)?;
                rustix::fs::chownat(
                    &parent,
                    name,
                    Some(traits.uid),
                    Some(traits.gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
                Ok(utimensat(&parent, name, &traits.times(), AtFlags::SYMLINK_NOFOLLOW)?)
            }
            EntryType::Link => {
                let text = entry
                    .link_name_bytes()
                    .ok_or_else(|| ArchiveError::Refused("a hard link without a target".into()))?;
                self.hard_link(&Inner::parse(&text)?, &parent, name)
            }
            EntryType::Fifo => {
                mknodat(&parent, name, FileType::Fifo, traits.mode, 0)?;
                Ok(rustix::fs::chownat(
                    &parent,
                    name,
                    Some(traits.uid),
                    Some(traits.gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?)
            }
            EntryType::Char | EntryType::Block => refuse(format!("{:?} is a device", shown(&path))),
            other => refuse(format!("{:?} is of an unknown kind ({other:?})", shown(&path))),
        }
    }

    fn traits(&self, header: &tar::Header) -> Result<Traits, ArchiveError> {
        let id = |id: io::Result<u64>| -> Result<u32, ArchiveError> {
            if !self.is_layer {
                // Whoever packed a model, here it belongs to the container's root.
                return Ok(0);
            }
            let id = id?;
            u32::try_from(id).ok().filter(|id| u64::from(*id) < IDS).ok_or_else(|| {
                ArchiveError::Refused(format!(
                    "owner {id} is outside the ids of a container (0 to {})",
                    IDS - 1
                ))
            })
        };
        let mode = header.mode()? & 0o7777;
        // A model has no use for set-user-id; in an image the bits do nothing under no_new_privs. Its owner changed, so
        // that every user of the container must be able to read it: the one that packed it and the one that serves it
        // may be the same.
        let mode = if self.is_layer { mode } else { (mode & 0o777) | 0o644 };
        Ok(Traits {
            uid: Uid::from_raw(id(header.uid())?),
            gid: Gid::from_raw(id(header.gid())?),
            mode: Mode::from_raw_mode(mode),
            seconds: header.mtime().unwrap_or(0),
        })
    }

    /// The directory that an entry goes into; missing ones are made, none is reached through a link.
    fn parent(&mut self, path: &[Vec<u8>]) -> Result<OwnedFd, ArchiveError> {
        if let Some((last, open)) = &self.last_parent
            && last == path
        {
            return Ok(open.try_clone()?);
        }
        let folder = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut open = self.target.try_clone()?;
        for name in path {
            let name = name.as_slice();
            open = match open_beneath(&open, bytes_path(name), folder, Mode::empty()) {
                Ok(next) => next,
                Err(rustix::io::Errno::NOENT) => {
                    mkdirat(&open, name, Mode::from(0o755))?;
                    open_beneath(&open, bytes_path(name), folder, Mode::empty())?
                }
                Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                    return refuse(format!(
                        "{:?} is not a directory on the way to an entry",
                        String::from_utf8_lossy(name)
                    ));
                }
                Err(error) => return Err(error.into()),
            };
        }
        self.last_parent = Some((path.to_vec(), open.try_clone()?));
        Ok(open)
    }

    fn look(&self, parent: &OwnedFd, name: &[u8]) -> Result<Option<FileType>, ArchiveError> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        path: &Inner,
        name: &[u8],
        in_the_way: Option<FileType>,
        traits: &Traits,
    ) -> Result<(), ArchiveError> {
        match in_the_way {
            Some(FileType::Directory) => {}
            Some(found) => {
                unlinkat(parent, name, AtFlags::empty())?;
                mkdirat(parent, name, Mode::from(0o700))?;
                if found == FileType::CharacterDevice {
                    // A whiteout stood here: what lower layers have below it stays hidden.
                    self.opaque.insert(path.joined(), ());
                }
            }
            None => mkdirat(parent, name, Mode::from(0o700))?,
        }
        let directory = open_beneath(
            parent,
            bytes_path(name),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )?;
        self.dress_directory(&directory, traits)?;
        self.directory_times.insert(path.joined(), traits.seconds);
        Ok(())
    }

    fn dress_directory(&self, directory: &OwnedFd, traits: &Traits) -> Result<(), ArchiveError> {
        fchown(directory, Some(traits.uid), Some(traits.gid))?;
        let mode = if self.is_layer {
            traits.mode
        } else {
            traits.mode | Mode::from(0o755)
        };
        Ok(fchmod(directory, mode)?)
    }

    fn file<R: Read>(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &mut tar::Entry<'_, R>,
        traits: &Traits,
    ) -> Result<(), ArchiveError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut file = File::from(open_beneath(parent, bytes_path(name), flags, Mode::from(0o600))?);
        let copied = io::copy(entry, &mut file)?;
        if copied != entry.size() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        fchown(&file, Some(traits.uid), Some(traits.gid))?;
        // After chown, which clears the set-id bits.
        fchmod(&file, traits.mode)?;
        Ok(futimens(&file, &traits.times())?)
    }

    fn hard_link(&mut self, to: &Inner, parent: &OwnedFd, name: &[u8]) -> Result<(), ArchiveError> {
        let Some((from_parent, from_name)) = to.split() else {
            return refuse("a hard link to the archive itself");
        };
        let mut open = self.target.try_clone()?;
        if !from_parent.is_empty() {
            let path = from_parent.join(&b'/');
            open = match open_beneath(
                &open,
                bytes_path(&path),
                OFlags::RDONLY | OFlags::DIRECTORY,
                Mode::empty(),
            ) {
                Ok(found) => found,
                Err(_) => return refuse(format!("a hard link to {:?}, which is not in the archive", shown(to))),
            };
        }
        if self.look(&open, from_name)? != Some(FileType::RegularFile) {
            return refuse(format!(
                "a hard link to {:?}, which is no file of the archive",
                shown(to)
            ));
        }
        Ok(linkat(open.as_fd(), from_name, parent.as_fd(), name, AtFlags::empty())?)
    }

    /// OCI's `.wh.name` to overlayfs's character device 0:0, which needs no privilege to make (since Linux 5.8).
    fn whiteout(&mut self, parent: &OwnedFd, parent_path: &[Vec<u8>], name: &[u8]) -> Result<(), ArchiveError> {
        if name == OPAQUE {
            self.opaque.insert(parent_path.join(&b'/'), ());
            return Ok(());
        }
        if name.starts_with(BOOKKEEPING) {
            return Ok(());
        }
        let hidden = name.get(WHITEOUT.len()..).unwrap_or_default();
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return refuse("a whiteout without a name");
        }
        match self.look(parent, hidden)? {
            // The layer brings its own: only what is below has to go.
            Some(FileType::Directory) => {
                let mut path = parent_path.to_vec();
                path.push(hidden.to_vec());
                self.opaque.insert(path.join(&b'/'), ());
                Ok(())
            }
            Some(_) => Ok(()),
            None => Ok(mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)?),
        }
    }
}

fn shown(path: &Inner) -> String {
    String::from_utf8_lossy(&path.joined()).into_owned()
}

fn bytes_path(bytes: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(bytes))
}
