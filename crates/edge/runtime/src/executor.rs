//! The executor's traits and the values that cross them. Every method may be repeated safely; all are blocking calls
//! (the callers run them off the async threads). Everything serialises: it crosses the socket to `node`.

use isolarium_model::sagemaker::network::Sight;
use isolarium_model::{Sha256Digest, Timestamp, WorkloadId};
use isolarium_netplan::intent::{Tunnel, WorkloadNetwork};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Everything needed to start one container. `launch` seals the network first and starts nothing without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    pub workload: WorkloadId,
    /// ARN of the job or endpoint, for the operator's eyes and for finding the container again.
    pub owner_arn: String,
    /// Host name inside (CC-15).
    pub hostname: String,
    pub network: WorkloadNetwork,
    /// Layer diff ids, lowest first; each was unpacked by [`Archives::unpack_layer`].
    pub layers: Vec<Sha256Digest>,
    pub process: ProcessSpec,
    /// Lines of `/etc/hosts` besides localhost.
    pub hosts: Vec<(IpAddr, Vec<String>)>,
    /// The name servers in `/etc/resolv.conf`, in order; none when isolated (CC-86).
    pub resolvers: Vec<IpAddr>,
    /// The domain that names without a dot are looked up in; DHCP options give one (NET-53).
    pub search: Option<String>,
    pub mounts: Vec<Mount>,
    pub limits: Limits,
    /// The container is made, and its program waits for [`Executor::release`]: containers that belong together begin
    /// together (CC-20).
    #[serde(default)]
    pub held: bool,
    /// A running container of the same owner, in whose network namespace this one starts. `network` is then that one's,
    /// and the namespace is proven again to be so (CC-10). Absent: a namespace of its own.
    #[serde(default)]
    pub beside: Option<WorkloadId>,
    /// Encryption of what the containers of the job say to each other; `network` must reach them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// What the workload keeps must lie on its encrypted volume, see [`Executor::make_volume`]: without one that is open it
    /// does not start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// Devices of the host by their CDI names, such as `nvidia.com/gpu=0` (CC-5).
    #[serde(default)]
    pub devices: Vec<String>,
}

/// The program to run, already merged from image and request (CC-13, CC-47).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    pub argv: Vec<String>,
    /// In order; later entries win.
    pub env: Vec<(String, String)>,
    pub cwd: String,
    /// The image's user (`""`, `name`, `uid`, `uid:gid`), resolved against the image's own passwd file (CC-3).
    pub user: String,
}

/// What the container sees at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mount", rename_all = "snake_case")]
pub enum Mount {
    /// A directory or file of the service below the workload's work directory (`DIR/work/<workload>/<source>`): bound
    /// read-only, id-mapped so that the service's uid appears as container root. Modes are shown as they are on disk:
    /// an image whose user is not root needs files 0444 and directories 0555. No link on the way is followed.
    Input { source: String, target: String },
    /// As [`Mount::Input`], of what the service put into its directory on the workload's encrypted volume.
    Copied { source: String, target: String },
    /// A writable directory owned by container root, mode 0777, kept as `DIR/work/<workload>/scratch/<name>` until
    /// [`Executor::remove`]. `read_only` shows it read-only (an unpacked model).
    Scratch {
        name: String,
        target: String,
        read_only: bool,
    },
    /// A writable directory that outlives the workload: the scratch directory `volume` of another workload, which is never
    /// launched and was prepared. Its owner sees to it that one container at a time has it.
    Volume { volume: WorkloadId, target: String },
}

/// An encrypted volume to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// What the container may put on it, less what the file system takes for itself.
    pub bytes: u64,
    /// It outlives its closing, and is opened again with the same key.
    pub lasting: bool,
}

impl VolumeSpec {
    /// Size of the image. Beside the container's files a job's volume takes, in a part that the container cannot use, the
    /// platform's archives and copies.
    pub fn image_bytes(&self) -> u64 {
        if self.lasting {
            self.bytes
        } else {
            self.bytes.saturating_mul(2)
        }
    }
}

/// The key of an encrypted volume. It never prints, is in no message's text, and its memory is overwritten in the end.
pub struct VolumeKey([u8; 32]);

impl VolumeKey {
    /// Wraps 32 bytes that cannot be guessed.
    pub fn new(mut bytes: [u8; 32]) -> Self {
        let key = Self(bytes);
        crate::sys::crypt::forget(&mut bytes);
        key
    }

    /// The key itself.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl Drop for VolumeKey {
    fn drop(&mut self) {
        crate::sys::crypt::forget(&mut self.0);
    }
}

/// Resource limits of one container, from its instance type (CC-7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub pids: u64,
    /// Size of `/dev/shm`, bytes.
    pub shm_bytes: u64,
    /// Size of the writable root overlay, bytes.
    pub overlay_bytes: u64,
}

/// One container as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    pub workload: WorkloadId,
    pub owner_arn: String,
    pub state: WorkloadState,
}

/// State of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum WorkloadState {
    /// Its first process runs since `started`.
    Running { started: Timestamp },
    /// Its first process ended. Collected data stays until `remove`.
    Exited(ExitStatus),
    /// It never started; nothing is left but its record.
    NotStarted { reason: String },
}

/// How a container's first process ended. Survives crashes of `serve` and `node` (fsynced by the shim).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code, or 128 + signal number.
    pub code: i32,
    pub signal: Option<i32>,
    /// The kernel killed it because it went over its memory limit.
    pub out_of_memory: bool,
    /// Its shim went away before it, with the host or alone: it was killed then, and how it would have ended nobody knows.
    #[serde(default)]
    pub lost: bool,
    pub started: Timestamp,
    pub ended: Timestamp,
}

/// Why a container was not started or a call on it failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The network could not be sealed and proven: fail closed (NET-73).
    #[error("the container's network could not be sealed: {0}")]
    Seal(String),
    /// Image, entry point or user cannot run; the container's owner must mend it.
    #[error("the container could not be started: {0}")]
    Unstartable(String),
    #[error("no such workload")]
    Unknown,
    /// What was asked for breaks a rule (an archive's path escape, device or digest; a door that a VPC lacks; a connection
    /// that nobody answers): refused, nothing kept.
    #[error("refused: {0}")]
    Refused(String),
    /// Privilege, kernel feature or tool is missing, disk full: the operator must act. The text says how.
    #[error("{0}")]
    Host(String),
    /// Something was in the way that goes by itself, or changed while it was worked on: try again.
    #[error("not now: {0}")]
    Busy(String),
    /// The privileged process is away; try again.
    #[error("the node process is not reachable: {0}")]
    Unreachable(String),
}

/// A piece of a container's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    pub lines: Vec<LogLine>,
    /// Offset to ask from next time.
    pub next: u64,
    /// The container has ended and `next` is behind its last line.
    pub complete: bool,
}

/// One line of output, without its newline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the platform read it (CC-92).
    pub time: Timestamp,
    pub text: String,
}

/// Starts, watches and ends containers.
pub trait Executor: Send + Sync {
    /// Seals the network, prepares root and mounts, starts the process. Repeating it for a workload that already runs
    /// or ran is a success that changes nothing.
    fn launch(&self, spec: &LaunchSpec) -> Result<(), ExecutorError>;
    /// Lets the program of a container that was launched `held` begin. One that has begun, or ended before, is a success
    /// that changes nothing; so is a container that was not held.
    fn release(&self, workload: &WorkloadId) -> Result<(), ExecutorError>;
    /// All workloads the host knows, whoever started them.
    fn observe(&self) -> Result<Vec<Observed>, ExecutorError>;
    /// One workload.
    fn observe_one(&self, workload: &WorkloadId) -> Result<Observed, ExecutorError>;
    /// Sends SIGTERM (`kill == false`) or SIGKILL to the first process. Not an error when it already ended.
    fn terminate(&self, workload: &WorkloadId, kill: bool) -> Result<(), ExecutorError>;
    /// Ends what still runs and deletes everything the workload owned: mounts, namespace, cgroup, directories.
    fn remove(&self, workload: &WorkloadId) -> Result<(), ExecutorError>;
    /// Blocks until some workload changed state or wrote output, or `timeout` passed; level-triggered: a wake-up
    /// carries no data (style rule 7).
    fn changed(&self, timeout: Duration) -> Result<(), ExecutorError>;
    /// Output from `offset` on, at most about `max_bytes`. Asking from an offset says that the lines before it are kept
    /// by the caller: some 16 MiB behind it they may be dropped, and a container that is 256 MiB ahead of it waits.
    fn read_log(&self, workload: &WorkloadId, offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError>;
    /// Makes the (empty) work directory `DIR/work/<workload>`, in which the service may make entries of any name but
    /// `log` and `scratch`, before inputs are staged into it.
    fn prepare(&self, workload: &WorkloadId) -> Result<(), ExecutorError>;
    /// Gives a workload that was not launched a volume that is encrypted at rest under `key`, for its scratch directories and
    /// the service's copies; made afresh, or, a lasting one, opened again. One that is open stays as it is. It is prepared,
    /// and a failure leaves nothing.
    fn make_volume(&self, workload: &WorkloadId, volume: &VolumeSpec, key: &VolumeKey) -> Result<(), ExecutorError>;
    /// The service's directory on an open volume. Whoever holds it holds the volume: for the length of one task.
    fn open_volume(&self, workload: &WorkloadId) -> Result<OwnedFd, ExecutorError>;
    /// Closes a volume: its key leaves the machine. Not an error when it is closed or there is none.
    fn close_volume(&self, workload: &WorkloadId) -> Result<(), ExecutorError>;
}

/// How collected files leave a scratch directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackFormat {
    Tar,
    TarGz,
}

/// What a pack run found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Regular files and symbolic links that went into the archive; 0 means an empty directory.
    pub entries: u64,
    pub bytes: u64,
}

/// Archives in and out, always by an unprivileged process in a user namespace of its own, never in `serve` or `node`.
pub trait Archives: Send + Sync {
    /// Unpacks a layer blob (tar, tar+gzip, tar+zstd) once, checking its diff id. Nothing is
    /// written for a layer that is there, but the blob must be that layer.
    fn unpack_layer(&self, blob: OwnedFd, diff_id: &Sha256Digest) -> Result<(), ExecutorError>;
    /// Unpacks a gzipped tar (a model) into a scratch directory of a prepared workload. `Refused` when that takes longer
    /// than `limit` (CC-55); what was unpacked until then may stay.
    fn unpack_archive(
        &self,
        archive: OwnedFd,
        workload: &WorkloadId,
        scratch: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError>;
    /// The same into `<scratch>/<folder>/model`, made afresh, for containers that load models one by one (CC-58). It may run
    /// already; what it sees of the scratch directory must be read-only. On an error nothing of the folder stays.
    fn unpack_model(
        &self,
        archive: OwnedFd,
        workload: &WorkloadId,
        scratch: &str,
        folder: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError>;
    /// Removes what [`Self::unpack_model`] made; not an error when it is gone.
    fn remove_model(&self, workload: &WorkloadId, scratch: &str, folder: &str) -> Result<(), ExecutorError>;
    /// Packs a scratch directory into `out`. Symbolic links that leave the directory are not followed (CC-37).
    fn pack(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        format: PackFormat,
        out: OwnedFd,
    ) -> Result<Packed, ExecutorError>;
    /// Reads the beginning of a regular file below a scratch directory (the failure file); `None` when there is none.
    fn read_file(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        path: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, ExecutorError>;
}

/// Connects from inside a workload's namespace (CC-88).
pub trait Dial: Send + Sync {
    /// A TCP connection to `127.0.0.1:port` as the container sees it.
    fn dial(&self, workload: &WorkloadId, port: u16, timeout: Duration) -> Result<OwnedFd, ExecutorError>;
}

/// One kind of attempt to leave, aggregated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedAttempt {
    pub first: Timestamp,
    pub last: Timestamp,
    pub count: u64,
    /// Process id inside the container's pid namespace, of the first attempt.
    pub pid: u32,
    /// The process's name (comm).
    pub process: String,
    /// `tcp`, `udp`, `icmp`, `raw`, `dns`, or the number.
    pub protocol: String,
    pub address: IpAddr,
    pub port: u16,
    /// The name asked for, when the attempt was a DNS question.
    pub name: Option<String>,
}

/// The isolation report's source (design section 5).
pub trait EgressReport: Send + Sync {
    /// Attempts of one workload, oldest first; kept after its end until `remove`.
    fn attempts(&self, workload: &WorkloadId) -> Result<Vec<BlockedAttempt>, ExecutorError>;
    /// How much of one workload's attempts is seen, as long as [`Self::attempts`] is.
    fn sight(&self, workload: &WorkloadId) -> Result<Sight, ExecutorError>;
}
