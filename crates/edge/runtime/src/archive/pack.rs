//! Packing a directory that a container filled.

use super::path::link_stays;
use super::{ArchiveError, Limits, refuse};
use crate::executor::{PackFormat, Packed};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// Deepest nesting of directories; each level holds a descriptor.
const DEEPEST: usize = 200;

/// Models are mostly incompressible numbers: a low level loses little and is several times faster.
const LEVEL: Compression = Compression::new(3);

/// Packs everything below `directory`, sorted by name. Symbolic links are kept as links when they stay inside and left
/// out when they lead out; none is followed (CC-37). Sockets, pipes and devices are left out.
///
/// # Errors
/// `Refused` beyond the limits.
pub fn pack(directory: &OwnedFd, out: OwnedFd, format: PackFormat, limits: Limits) -> Result<Packed, ArchiveError> {
    let out = BufWriter::with_capacity(128 << 10, File::from(out));
    match format {
        PackFormat::Tar => {
            let (packed, mut out) = pack_into(directory, out, limits)?;
            out.flush()?;
            Ok(packed)
        }
        PackFormat::TarGz => {
            let (packed, out) = pack_into(directory, GzEncoder::new(out, LEVEL), limits)?;
            out.finish()?.flush()?;
            Ok(packed)
        }
    }
}

fn pack_into<W: Write>(directory: &OwnedFd, out: W, limits: Limits) -> Result<(Packed, W), ArchiveError> {
    let mut packer = Packer {
        builder: Builder::new(out),
        packed: Packed { entries: 0, bytes: 0 },
        limits,
    };
    packer.directory(directory, Path::new(""), 0)?;
    Ok((packer.packed, packer.builder.into_inner()?))
}

struct Packer<W: Write> {
    builder: Builder<W>,
    packed: Packed,
    limits: Limits,
}

impl<W: Write> Packer<W> {
    fn directory(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> Result<(), ArchiveError> {
        if depth > DEEPEST {
            return refuse(format!("directories are nested deeper than {DEEPEST}"));
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(directory)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let inner = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Gone since it was listed: the container may still run.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let open = openat(directory, &name, flags, Mode::empty())?;
                    self.append(EntryType::Directory, &inner, &fstat(&open)?, 0, io::empty())?;
                    self.directory(&open, &inner, depth + 1)?;
                }
                FileType::RegularFile => {
                    // The name may mean something else by now: no link, no blocking, and look again.
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                    let open = openat(directory, &name, flags, Mode::empty())?;
                    let stat = fstat(&open)?;
                    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                        self.file(&inner, &stat, File::from(open))?;
                    }
                }
                FileType::Symlink => {
                    let text = readlinkat(directory, &name, Vec::new())?;
                    if link_stays(depth, text.to_bytes()) {
                        self.link(&inner, &stat, text.to_bytes())?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, stat: &Stat, file: File) -> Result<(), ArchiveError> {
        let size = u64::try_from(stat.st_size).map_err(io::Error::other)?;
        self.packed.entries += 1;
        self.packed.bytes = self.packed.bytes.saturating_add(size);
        self.check()?;
        // A file that grows meanwhile is cut, one that shrinks is filled up: the header says `size`.
        self.append(
            EntryType::Regular,
            path,
            stat,
            size,
            file.take(size).chain(io::repeat(0)).take(size),
        )
    }

    fn link(&mut self, path: &Path, stat: &Stat, text: &[u8]) -> Result<(), ArchiveError> {
        self.packed.entries += 1;
        self.check()?;
        let mut header = header(EntryType::Symlink, stat, 0)?;
        Ok(self
            .builder
            .append_link(&mut header, path, PathBuf::from(std::ffi::OsStr::from_bytes(text)))?)
    }

    fn check(&self) -> Result<(), ArchiveError> {
        if self.packed.entries > self.limits.entries || self.packed.bytes > self.limits.bytes {
            return refuse("the directory holds more files or bytes than allowed");
        }
        Ok(())
    }

    fn append(
        &mut self,
        kind: EntryType,
        path: &Path,
        stat: &Stat,
        size: u64,
        data: impl Read,
    ) -> Result<(), ArchiveError> {
        let mut header = header(kind, stat, size)?;
        Ok(self.builder.append_data(&mut header, path, data)?)
    }
}

fn header(kind: EntryType, stat: &Stat, size: u64) -> Result<Header, ArchiveError> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(stat.st_mode & 0o777);
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(size);
    Ok(header)
}
