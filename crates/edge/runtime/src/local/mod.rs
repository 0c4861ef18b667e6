//! Containers on this machine. Used by the privileged `node` process alone.

use crate::executor::{ExecutorError, LaunchSpec, LogChunk, Observed, PackFormat, Packed};
use isolarium_model::{Sha256Digest, WorkloadId};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// Which OCI runtime starts containers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum OciChoice {
    /// `crun` where it is installed and works, else `runc`.
    #[default]
    Auto,
    /// The program at this path, called with runc's command line.
    Path(PathBuf),
}

/// The walls around a container's process. The product always uses [`Walls::default`], all of them; a test takes one
/// away to prove that it, and not chance, closed an attempt. Not part of [`LaunchSpec`]: no request can reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Walls {
    /// The system call allow-list.
    pub seccomp: bool,
    /// An unprivileged range of ids of its own.
    pub user_namespace: bool,
    /// Capabilities reduced to the few that touch only the container's own files and processes.
    pub capabilities: bool,
    /// Masked and read-only paths below `/proc`.
    pub masked_paths: bool,
}

impl Default for Walls {
    fn default() -> Self {
        Self {
            seccomp: true,
            user_namespace: true,
            capabilities: true,
            masked_paths: true,
        }
    }
}

/// How to run containers.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The engine's data directory, absolute.
    pub data_dir: PathBuf,
    /// Owner of staged inputs; appears as root inside containers.
    pub service_uid: u32,
    pub service_gid: u32,
    pub oci: OciChoice,
    /// Program that calls [`crate::shim_main`] for `shim` and [`crate::unpack_main`] for `unpack` as first argument.
    pub self_exe: PathBuf,
    pub walls: Walls,
}

/// Runs containers on this machine. All state is on disk and in the kernel: dropping the value ends nothing, and a new
/// one finds everything again.
#[derive(Debug)]
pub struct LocalRuntime {
    config: LocalConfig,
}

impl LocalRuntime {
    /// Opens the data directory's containers: makes the folders, chooses the OCI runtime, cleans up after shims that
    /// were killed.
    ///
    /// # Errors
    /// `Host` with what the operator should do.
    pub fn open(config: LocalConfig) -> Result<Self, ExecutorError> {
        Ok(Self { config })
    }

    /// As [`crate::Executor::launch`], in a namespace that is sealed already. `attach` gets the container's cgroup v2
    /// directory and its id before any process is in it; when it fails nothing is started (NET-73).
    ///
    /// # Errors
    /// `Seal` when `attach` failed, `Unstartable` when image or process spec cannot run, `Host` for the machine.
    pub fn launch(
        &self,
        spec: &LaunchSpec,
        netns: impl AsFd,
        attach: &mut dyn FnMut(BorrowedFd<'_>, u64) -> io::Result<()>,
    ) -> Result<(), ExecutorError> {
        let _ = (&self.config, spec, netns.as_fd(), attach);
        Err(ExecutorError::Host("launch arrives with the next commit".into()))
    }

    /// See [`crate::Executor::observe`].
    pub fn observe(&self) -> Result<Vec<Observed>, ExecutorError> {
        Ok(Vec::new())
    }

    /// See [`crate::Executor::observe_one`].
    pub fn observe_one(&self, workload: &WorkloadId) -> Result<Observed, ExecutorError> {
        let _ = workload;
        Err(ExecutorError::Unknown)
    }

    /// See [`crate::Executor::terminate`].
    pub fn terminate(&self, workload: &WorkloadId, kill: bool) -> Result<(), ExecutorError> {
        let _ = (workload, kill);
        Err(ExecutorError::Unknown)
    }

    /// See [`crate::Executor::remove`].
    pub fn remove(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        let _ = workload;
        Ok(())
    }

    /// See [`crate::Executor::changed`].
    pub fn changed(&self, timeout: Duration) -> Result<(), ExecutorError> {
        let _ = timeout;
        Ok(())
    }

    /// See [`crate::Executor::read_log`].
    pub fn read_log(&self, workload: &WorkloadId, offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError> {
        let _ = (workload, offset, max_bytes);
        Err(ExecutorError::Unknown)
    }

    /// See [`crate::Executor::prepare`].
    pub fn prepare(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        let _ = workload;
        Ok(())
    }

    /// Pid of a running container's first process in the host's pid namespace: for joining its network namespace
    /// (CC-88). Checked against reuse of the number.
    pub fn init_pid(&self, workload: &WorkloadId) -> Result<u32, ExecutorError> {
        let _ = workload;
        Err(ExecutorError::Unknown)
    }

    /// The id `attach` got: the key of the workload's entries in the report's map. Known until `remove`.
    pub fn cgroup_id(&self, workload: &WorkloadId) -> Result<u64, ExecutorError> {
        let _ = workload;
        Err(ExecutorError::Unknown)
    }

    /// See [`crate::Archives::unpack_layer`].
    pub fn unpack_layer(&self, blob: OwnedFd, diff_id: &Sha256Digest) -> Result<(), ExecutorError> {
        let _ = (blob, diff_id);
        Ok(())
    }

    /// See [`crate::Archives::unpack_archive`].
    pub fn unpack_archive(&self, archive: OwnedFd, workload: &WorkloadId, scratch: &str) -> Result<(), ExecutorError> {
        let _ = (archive, workload, scratch);
        Ok(())
    }

    /// See [`crate::Archives::pack`].
    pub fn pack(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        format: PackFormat,
        out: OwnedFd,
    ) -> Result<Packed, ExecutorError> {
        let _ = (workload, scratch, format, out);
        Err(ExecutorError::Unknown)
    }

    /// See [`crate::Archives::read_file`].
    pub fn read_file(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        path: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, ExecutorError> {
        let _ = (workload, scratch, path, max);
        Err(ExecutorError::Unknown)
    }
}

/// One line of `isolarium doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCheck {
    /// What was looked at, such as `overlay file system`.
    pub name: &'static str,
    pub outcome: CheckOutcome,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// It works; the text is a detail such as a version.
    Good(String),
    /// Workloads run, with less than the full promise; the text says what is missing.
    Reduced(String),
    /// No workload could run; the text says what to do.
    Missing(String),
}

/// Checks everything a workload needs on this machine, without leaving anything behind.
pub fn probe_host(config: &LocalConfig) -> Vec<HostCheck> {
    let _ = config;
    Vec::new()
}
