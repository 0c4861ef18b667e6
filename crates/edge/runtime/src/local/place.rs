//! Where things lie below the data directory, and who owns them.

use crate::executor::ExecutorError;
use isolarium_model::{Sha256Digest, WorkloadId};
use std::fmt::Display;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// First of the 65,536 ids that own unpacked layers and scratch directories on disk. Containers see them id-mapped to
/// their own range; no process but the archive helper runs with them.
pub const DISK_IDS: u32 = 600_000_000 - RANGE;

/// First id of the first workload range.
pub const FIRST_WORKLOAD_ID: u32 = 600_000_000;

/// Ids per workload.
pub const RANGE: u32 = 65_536;

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

    pub fn scratches(&self, workload: &WorkloadId) -> PathBuf {
        self.work(workload).join("scratch")
    }

    /// Records, locks and exit files, `<workload>.{json,lock,exit}`. One folder, so that one watch sees every change.
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

    pub fn slots(&self) -> PathBuf {
        self.data_dir.join("run/slots")
    }
}

/// A host failure with what was being done and what to look at.
pub fn host<E: Display>(doing: impl Display) -> impl FnOnce(E) -> ExecutorError {
    move |error| ExecutorError::Host(format!("{doing}: {error}"))
}

/// Makes a folder (and its parents) unless it exists.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Whether `error` says that the thing is not there: what deleting wants.
pub fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Temporary file, then rename: a reader sees the old text or the new one. `durable` adds the fsyncs that make that
/// hold across a power failure.
pub fn write_whole(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
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
