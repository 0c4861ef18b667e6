//! The files of an image archive: a folder, or a tar whose entries are found once and read in place.

use super::{ImageError, LAYER_GZIP, LAYER_TAR, LAYER_ZSTD};
use isolarium_model::Sha256Digest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Take};
use std::path::{Component, Path, PathBuf};

/// Most entries of a tar that is indexed.
const ENTRIES: usize = 100_000;

/// An opened archive.
pub struct Archive {
    source: Source,
}

enum Source {
    Folder(PathBuf),
    Tar {
        path: PathBuf,
        entries: BTreeMap<String, Entry>,
    },
}

enum Entry {
    File {
        at: u64,
        size: u64,
    },
    /// Docker archives link a layer to another entry; the target is a name within the archive.
    Link(String),
}

impl Archive {
    /// Opens a folder or indexes a tar.
    ///
    /// # Errors
    /// When it cannot be read, or has too many entries.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Read {
            name: path.display().to_string(),
            source,
        };
        if std::fs::metadata(path).map_err(failed)?.is_dir() {
            return Ok(Self {
                source: Source::Folder(path.into()),
            });
        }
        let file = File::open(path).map_err(failed)?;
        let mut tar = tar::Archive::new(file);
        let mut entries = BTreeMap::new();
        for entry in tar.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(name) = clean(&entry.path().map_err(failed)?) else {
                continue;
            };
            let found = match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => Entry::File {
                    at: entry.raw_file_position(),
                    size: entry.size(),
                },
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name().map_err(failed)?;
                    let beside = Path::new(&name).parent().unwrap_or(Path::new(""));
                    let base = if entry.header().entry_type() == tar::EntryType::Symlink {
                        beside
                    } else {
                        Path::new("")
                    };
                    match target.and_then(|target| clean(&base.join(target))) {
                        Some(target) => Entry::Link(target),
                        None => continue,
                    }
                }
                _ => continue,
            };
            entries.insert(name, found);
            if entries.len() > ENTRIES {
                return Err(ImageError::TooLong(path.display().to_string()));
            }
        }
        Ok(Self {
            source: Source::Tar {
                path: path.into(),
                entries,
            },
        })
    }

    /// Whether there is an entry of that name.
    pub fn has(&self, name: &str) -> bool {
        match &self.source {
            Source::Folder(folder) => folder.join(name).is_file(),
            Source::Tar { entries, .. } => entries.contains_key(name),
        }
    }

    /// Opens an entry: its content, bounded by its size, and the size in bytes.
    ///
    /// # Errors
    /// `Missing`, or when it cannot be read.
    pub fn open_entry(&self, name: &str) -> Result<(Take<File>, u64), ImageError> {
        let failed = |source| ImageError::Read {
            name: name.into(),
            source,
        };
        let missing = || ImageError::Missing(name.into());
        match &self.source {
            Source::Folder(folder) => {
                let inside = clean(Path::new(name)).ok_or_else(missing)?;
                let path = folder.join(inside);
                // A link would name a file outside of the layout.
                let kind = std::fs::symlink_metadata(&path).map_err(|_| missing())?;
                if !kind.is_file() {
                    return Err(missing());
                }
                let file = File::open(&path).map_err(failed)?;
                let size = file.metadata().map_err(failed)?.len();
                Ok((file.take(size), size))
            }
            Source::Tar { path, entries } => {
                let mut entry = clean(Path::new(name))
                    .and_then(|name| entries.get(&name))
                    .ok_or_else(missing)?;
                if let Entry::Link(target) = entry {
                    entry = entries.get(target).ok_or_else(missing)?;
                }
                let Entry::File { at, size } = entry else {
                    return Err(missing());
                };
                let mut file = File::open(path).map_err(failed)?;
                file.seek(SeekFrom::Start(*at)).map_err(failed)?;
                Ok((file.take(*size), *size))
            }
        }
    }

    /// A small entry as a whole.
    ///
    /// # Errors
    /// `Missing`, `TooLong`, or when it cannot be read.
    pub fn document(&self, name: &str, max: usize) -> Result<Vec<u8>, ImageError> {
        let (mut reader, size) = self.open_entry(name)?;
        if usize::try_from(size).map_or(true, |size| size > max) {
            return Err(ImageError::TooLong(name.into()));
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|source| ImageError::Read {
            name: name.into(),
            source,
        })?;
        Ok(bytes)
    }

    /// The media type (by its first bytes), digest and size of a layer.
    ///
    /// # Errors
    /// `Missing`, or when it cannot be read.
    pub(super) fn measure(&self, name: &str) -> Result<(&'static str, Sha256Digest, u64), ImageError> {
        let failed = |source| ImageError::Read {
            name: name.into(),
            source,
        };
        let (mut reader, _) = self.open_entry(name)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut size = 0_u64;
        let mut kind = None;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            kind.get_or_insert(match bytes {
                [0x1f, 0x8b, ..] => LAYER_GZIP,
                [0x28, 0xb5, 0x2f, 0xfd, ..] => LAYER_ZSTD,
                _ => LAYER_TAR,
            });
            hash.update(bytes);
            size = size.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok((
            kind.unwrap_or(LAYER_TAR),
            Sha256Digest::from_bytes(&hash.finalize().into()),
            size,
        ))
    }
}

/// A name within the archive without `.`, `..` resolved; `None` when it leaves the archive or is no text.
fn clean(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}
