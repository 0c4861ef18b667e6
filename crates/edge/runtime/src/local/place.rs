//! Where things lie below the data directory, and who owns them.

use crate::executor::ExecutorError;
use isolarium_model::{Sha256Digest, WorkloadId};
use std::fmt::Display;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// First of the 65,536 ids that own unpacked layers and scratch directories on disk. Containers see them id-mapped to
/// their own range; no process but the archive helper runs with them.
pub const DISK_IDS: u32 = 600_000_000 - RANGE;

/// First id of the first workload range.
pub const FIRST_WORKLOAD_ID: u32 = 600_000_000;

/// Ids per workload.
pub const RANGE: u32 = 65_536;

/// The folder of encrypted volumes below the data directory.
pub const VOLUMES: &str = "volumes";

/// Workload ranges on one machine.
pub const SLOTS: u32 = 4096;

/// Paths below one data directory.
#[derive(Clone, Debug)]
pub struct Place {
    data_dir: PathBuf,
}

impl Place {
    pub fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.into(),
        }
    }

    pub fn layers(&self) -> PathBuf {
        self.data_dir.join("layers")
    }

    pub fn layer(&self, diff_id: &Sha256Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    pub fn works(&self) -> PathBuf {
        self.data_dir.join("work")
    }

    /// Root's, sticky, group-writable for the service: it stages inputs here and cannot touch what `node` made.
    pub fn work(&self, workload: &WorkloadId) -> PathBuf {
        self.works().join(workload.as_str())
    }

    pub fn log(&self, workload: &WorkloadId) -> PathBuf {
        self.work(workload).join("log")
    }

    /// On the workload's encrypted volume, if it has one: where that is closed nothing is found there.
    pub fn scratches(&self, workload: &WorkloadId) -> PathBuf {
        if self.image(workload).exists() {
            return self.volume(workload).join(super::volume::SCRATCH);
        }
        self.own_scratches(workload)
    }

    /// Scratch directories of a workload without an encrypted volume.
    pub fn own_scratches(&self, workload: &WorkloadId) -> PathBuf {
        self.work(workload).join("scratch")
    }

    /// Images of encrypted volumes, and where they are mounted. Root's alone.
    pub fn volumes(&self) -> PathBuf {
        self.data_dir.join(VOLUMES)
    }

    /// Where a workload's encrypted volume is mounted while it is open.
    pub fn volume(&self, workload: &WorkloadId) -> PathBuf {
        self.volumes().join(workload.as_str())
    }

    /// The volume itself, once it is whole. A workload that has one keeps nothing anywhere else.
    pub fn image(&self, workload: &WorkloadId) -> PathBuf {
        self.volumes().join(format!("{workload}.img"))
    }

    /// A volume that is being made.
    pub fn unfinished_image(&self, workload: &WorkloadId) -> PathBuf {
        self.volumes().join(format!("{workload}.new"))
    }

    /// Records, locks, exit files and gates, `<workload>.{json,lock,exit,gate}`. One folder, so that one watch sees every change.
    pub fn shims(&self) -> PathBuf {
        self.data_dir.join("run/shims")
    }

    pub fn record(&self, workload: &WorkloadId) -> PathBuf {
        self.shims().join(format!("{workload}.json"))
    }

    pub fn exit(&self, workload: &WorkloadId) -> PathBuf {
        self.shims().join(format!("{workload}.exit"))
    }

    pub fn lock(&self, workload: &WorkloadId) -> PathBuf {
        self.shims().join(format!("{workload}.lock"))
    }

    /// A pipe by which [`crate::Executor::release`] reaches the shim of a held container; gone once it has.
    pub fn gate(&self, workload: &WorkloadId) -> PathBuf {
        self.shims().join(format!("{workload}.gate"))
    }

    /// Public keys of the processes that encrypt, by workload. Root alone writes here; the keys are no secrets.
    pub fn tunnels(&self) -> PathBuf {
        self.data_dir.join("run/tunnels")
    }

    pub fn slots(&self) -> PathBuf {
        self.data_dir.join("run/slots")
    }
}

/// A host failure with what was being done and what to look at.
pub fn host<E: Display>(doing: impl Display) -> impl FnOnce(E) -> ExecutorError {
    move |error| ExecutorError::Host(format!("{doing}: {error}"))
}

/// Makes a folder (and its parents) unless it exists. What is in the way must be a directory of the caller's own: in a
/// folder that the service may write to, a link or a directory of its making would hand it what is kept there.
///
/// # Errors
/// `PermissionDenied` when it belongs to somebody else or is a link; otherwise what the file system answers.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        // A recursive builder takes an existing directory, and a link to one, for success.
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{} is not a directory of this user; look who made it, then remove it",
            path.display()
        ),
    ))
}

/// Whether `error` says that the thing is not there: what deleting wants.
pub fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Where [`write_whole`] writes first. One writer at a time has a path: the shim while it lives, `node` otherwise.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// Temporary file, then rename: a reader sees the old text or the new one. `durable` adds the fsyncs that make that
/// hold across a power failure.
pub fn write_whole(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = unfinished(path);
    let written = (|| {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) if durable => fs::File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    })();
    if written.is_err() {
        let _half_written = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first folder is the control.
    ///
    /// Proves: ISO-17
    #[test]
    fn a_folder_that_somebody_else_put_there_is_not_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        make_folder(&own, 0o700).unwrap();
        make_folder(&own, 0o700).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert_eq!(
            make_folder(&link, 0o700).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(make_folder(&file, 0o700).is_err());
        let strange = folder.path().join("strange");
        fs::create_dir(&strange).unwrap();
        std::os::unix::fs::chown(&strange, Some(64_900), None).unwrap();
        assert_eq!(
            make_folder(&strange, 0o700).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
    }
}
