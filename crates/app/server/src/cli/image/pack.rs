//! `image pack`: a folder becomes an image of one layer.

use super::{ImageError, ImageSink, LAYER_TAR, Verified, put_image};
use isolarium_model::Sha256Digest;
use isolarium_services::ecr::resolve::host_architecture;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// How the image wants to be run.
#[derive(Clone, Debug, Default)]
pub struct PackOptions {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Architecture in OCI's words; the host's when absent.
    pub architecture: Option<String>,
}

/// Packs a root file system into one layer and puts the image into the sink under `tag`. The layer passes through an
/// unnamed temporary file in `scratch`, which needs as much room as the folder. Names are sorted and owners, modes, times,
/// links and hard links kept, so packing the same folder twice gives the same digest. Sockets, pipes and devices have no
/// place in a layer; they are left out and returned.
///
/// # Errors
/// When a file cannot be read, or the sink refuses.
pub fn pack(
    root: &Path,
    tag: &str,
    options: &PackOptions,
    scratch: &Path,
    sink: &mut dyn ImageSink,
) -> Result<(Sha256Digest, Vec<PathBuf>), ImageError> {
    let failed = |source| ImageError::Read {
        name: root.display().to_string(),
        source,
    };
    let mut packer = Packer {
        tar: tar::Builder::new(Hashing {
            file: unnamed(scratch).map_err(failed)?,
            hash: Sha256::new(),
            size: 0,
            bar: super::progress::counting(format!("packing {}", root.display())),
        }),
        links: HashMap::new(),
        left_out: Vec::new(),
    };
    packer.tar.follow_symlinks(false);
    packer.folder(root, Path::new(""))?;
    let Packer { tar, left_out, .. } = packer;
    let Hashing {
        mut file,
        hash,
        size,
        bar,
    } = tar.into_inner().map_err(failed)?;
    bar.finish_and_clear();
    let digest = Sha256Digest::from_bytes(&hash.finalize().into());
    if !sink.has_blob(&digest)? {
        file.rewind().map_err(failed)?;
        let mut reader = Verified {
            reader: file,
            hash: Sha256::new(),
            read: 0,
        };
        sink.put_blob(&digest, size, &mut reader)?;
    }
    let config = json!({
        "architecture": options.architecture.as_deref().unwrap_or(host_architecture()),
        "os": "linux",
        "config": config_of(options),
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    })
    .to_string();
    let layer = json!({"mediaType": LAYER_TAR, "digest": digest, "size": size});
    Ok((put_image(config.as_bytes(), &[layer], tag, sink)?, left_out))
}

/// Only what was said: absent members mean more than empty ones to some readers.
fn config_of(options: &PackOptions) -> serde_json::Value {
    let mut config = serde_json::Map::new();
    let mut set = |name: &str, value: serde_json::Value, said: bool| {
        if said {
            config.insert(name.into(), value);
        }
    };
    set("Entrypoint", json!(options.entrypoint), !options.entrypoint.is_empty());
    set("Cmd", json!(options.cmd), !options.cmd.is_empty());
    set("Env", json!(options.env), !options.env.is_empty());
    set("WorkingDir", json!(options.workdir), options.workdir.is_some());
    set("User", json!(options.user), options.user.is_some());
    set("Labels", json!(options.labels), !options.labels.is_empty());
    serde_json::Value::Object(config)
}

/// A file without a name: it is gone when it is closed, whatever happens.
fn unnamed(folder: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?))
}

struct Hashing {
    file: File,
    hash: Sha256,
    size: u64,
    bar: indicatif::ProgressBar,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        let more = u64::try_from(count).unwrap_or(u64::MAX);
        self.size = self.size.saturating_add(more);
        self.bar.inc(more);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

struct Packer {
    tar: tar::Builder<Hashing>,
    /// First name of each file with several hard links, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    left_out: Vec<PathBuf>,
}

impl Packer {
    fn folder(&mut self, folder: &Path, inside: &Path) -> Result<(), ImageError> {
        let failed = |path: &Path| {
            let name = path.display().to_string();
            move |source| ImageError::Read { name, source }
        };
        let entries = std::fs::read_dir(folder).map_err(failed(folder))?;
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed(folder))?;
        names.sort_unstable();
        for name in names {
            let (path, inside) = (folder.join(&name), inside.join(&name));
            self.entry(&path, &inside).map_err(failed(&path))?;
            // Known by its own kind, so that a link to a folder is not walked.
            if std::fs::symlink_metadata(&path).map_err(failed(&path))?.is_dir() {
                self.folder(&path, &inside)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, inside: &Path) -> io::Result<()> {
        let meta = std::fs::symlink_metadata(path)?;
        let kind = meta.file_type();
        if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
            self.left_out.push(inside.into());
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&meta);
        // Names of owners are the packing host's and mean nothing in the container.
        header.set_username("")?;
        header.set_groupname("")?;
        if kind.is_symlink() {
            header.set_size(0);
            return self.tar.append_link(&mut header, inside, std::fs::read_link(path)?);
        }
        if kind.is_dir() {
            header.set_size(0);
            return self.tar.append_data(&mut header, inside, io::empty());
        }
        if meta.nlink() > 1 {
            match self.links.entry((meta.dev(), meta.ino())) {
                std::collections::hash_map::Entry::Occupied(first) => {
                    header.set_entry_type(tar::EntryType::Link);
                    header.set_size(0);
                    return self.tar.append_link(&mut header, inside, first.get());
                }
                std::collections::hash_map::Entry::Vacant(empty) => {
                    empty.insert(inside.into());
                }
            }
        }
        self.tar.append_data(&mut header, inside, File::open(path)?)
    }
}
