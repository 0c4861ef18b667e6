//! Reads the CDI files of this machine, and looks at its device nodes.

use crate::cdi::{CdiDevices, CdiSpec, NodeNumbers};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Largest file that is read, bytes.
const LARGEST: u64 = 8 << 20;

/// Every device that the files of these folders describe, later folders winning. A file that cannot be used is told and left
/// out; a folder that is not there has none.
pub fn read(folders: &[PathBuf]) -> CdiDevices {
    CdiDevices::new(folders.iter().map(|folder| of_folder(folder)))
}

fn of_folder(folder: &Path) -> Vec<CdiSpec> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "CDI files cannot be listed");
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|name| name == "json"));
    paths.sort();
    let spec = |path: &PathBuf| {
        let told = |reason: &dyn std::fmt::Display| {
            tracing::warn!(%reason, file = %path.display(), "a CDI file is not used");
        };
        let found = fs::metadata(path).inspect_err(|error| told(error)).ok()?;
        if found.len() > LARGEST {
            told(&"it is too large");
            return None;
        }
        // It names programs and mounts that the privileged process acts on.
        if found.uid() != 0 || found.mode() & 0o022 != 0 {
            told(&"others than root can write it: it must be root's, with mode 0644 or less");
            return None;
        }
        let bytes = fs::read(path).inspect_err(|error| told(error)).ok()?;
        CdiSpec::parse(&bytes).inspect_err(|error| told(error)).ok()
    };
    paths.iter().filter_map(spec).collect()
}

/// What a node on the host is; `None` for what is no device.
pub fn look(path: &str) -> Option<NodeNumbers> {
    let found = fs::metadata(path).ok()?;
    let kind = match found.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return None,
    };
    Some(NodeNumbers {
        kind,
        major: i64::from(rustix::fs::major(found.rdev())),
        minor: i64::from(rustix::fs::minor(found.rdev())),
    })
}
