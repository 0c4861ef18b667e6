//! Grace periods, deadlines and intervals: the operator's to choose (design section 9).

use isolarium_model::sagemaker::InstanceTable;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the loops take from configuration.
#[derive(Clone, Debug)]
pub struct ReconcileSettings {
    /// SIGTERM to SIGKILL for training jobs. Default 120 s (CC-34).
    pub training_grace: Duration,
    /// SIGTERM to SIGKILL for endpoint containers. Default 30 s (CC-54).
    pub hosting_grace: Duration,
    /// How long requests that run when traffic is withdrawn may take to finish. Default 60 s, the longest an
    /// invocation may last (CC-51, CC-54).
    pub drain_limit: Duration,
    /// Time limit of one ping. Default 2 s (CC-49).
    pub ping_timeout: Duration,
    /// Time between pings of a healthy container. Default 5 s (CC-49).
    pub ping_interval: Duration,
    /// Time between pings of a container that has not answered yet. Default 100 ms.
    pub startup_ping_interval: Duration,
    /// Failed pings in a row after which a container is replaced. Default 3.
    pub ping_failures: u32,
    /// How long a container may take to its first good ping unless its variant says so. Default 4 min (CC-49).
    pub startup_deadline: Duration,
    /// First wait before a dead container is replaced; doubles up to `restart_backoff_max`. Default 1 s.
    pub restart_backoff: Duration,
    /// Longest wait before a dead container is replaced. Default 60 s.
    pub restart_backoff_max: Duration,
    /// Whether updates of endpoints may take down what serves (AU-28). Default never.
    pub updates: Updates,
    /// How long captured data waits for more before it is delivered. Default 60 s (CC-61).
    pub capture_interval: Duration,
    /// Time between synchronisations of checkpoints. Default 60 s (CC-35).
    pub checkpoint_interval: Duration,
    /// Least time between two reads of one container's output. Default 100 ms.
    pub log_interval: Duration,
    /// A phase shorter than this is committed together with the next one. Default 50 ms.
    pub slow_phase: Duration,
    /// Wait before a step that failed for a reason of the host is repeated. Default 500 ms.
    pub retry: Duration,
    /// Time between searches for left-overs. Default 60 s.
    pub gc_interval: Duration,
    /// Threads that carry out steps. Transfers inside the engine block them. Default 16.
    pub workers: usize,
    /// Threads that carry out steps which may move data through a VPC. Default 64.
    pub vpc_workers: usize,
    /// How many of them one account may hold. Default 8.
    pub vpc_workers_per_account: usize,
    /// How long a step may move data through a VPC. Default 6 h.
    pub transfer_limit: Duration,
    /// Most processes and threads in one container. Default 16384.
    pub pids: u64,
    /// Size of a container's writable root, bytes. Default 20 GiB.
    pub overlay_bytes: u64,
    /// `/dev/shm` as a share of memory, in percent. Default 50.
    pub shm_percent: u64,
    /// The platform network, from which containers with a way out get their addresses. Default 100.64.0.0/16.
    pub platform_network: ipnet::Ipv4Net,
    /// The resolver such containers use (CC-86); `None` leaves them without names.
    pub resolver: Option<IpAddr>,
    /// Certificates to trust, PEM, on the data directory's file system: shown to containers with a way out. An isolated
    /// container has nobody to trust and gets none. Default none.
    pub ca_bundle: Option<PathBuf>,
    /// What instance types stand for (CC-7). Default the public tables.
    pub instances: InstanceTable,
    /// Accelerators of the machine, by their CDI names. Default none.
    pub devices: Vec<String>,
    /// How long an endpoint's new instances may wait for room before they fail. Default 5 min.
    pub endpoint_patience: Duration,
    /// Training instances an account may run at once per type, which tuning jobs wait for; `None` means no limit (SM-60).
    pub training_instances: Option<u32>,
    /// What notebook instances run. Default none: they fail.
    pub notebooks: Option<NotebookProgram>,
    /// How long each lifecycle script of a notebook instance may run. Default 5 min (SM-46).
    pub lifecycle_limit: Duration,
}

/// How an endpoint's new fleet takes the place of the old one (AU-27, AU-28).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Updates {
    /// The old one serves until the new one is healthy beside it: no request is lost.
    #[default]
    BlueGreen,
    /// The same, but where there is no room for both the old one is taken down first.
    InPlaceWhenFull,
    /// The old one is always taken down first.
    InPlace,
}

/// The operator's Jupyter image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotebookProgram {
    /// A reference to an image of the engine's own registry.
    pub image: String,
    /// The program; empty: the image's own.
    pub command: Vec<String>,
    /// Where its server listens, on the container's loopback at least.
    pub port: u16,
}

impl Default for ReconcileSettings {
    fn default() -> Self {
        Self {
            training_grace: Duration::from_secs(120),
            hosting_grace: Duration::from_secs(30),
            drain_limit: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(5),
            startup_ping_interval: Duration::from_millis(100),
            ping_failures: 3,
            startup_deadline: Duration::from_secs(240),
            restart_backoff: Duration::from_secs(1),
            restart_backoff_max: Duration::from_secs(60),
            updates: Updates::default(),
            capture_interval: Duration::from_secs(60),
            checkpoint_interval: Duration::from_secs(60),
            log_interval: Duration::from_millis(100),
            slow_phase: Duration::from_millis(50),
            retry: Duration::from_millis(500),
            gc_interval: Duration::from_secs(60),
            workers: 16,
            vpc_workers: 64,
            vpc_workers_per_account: 8,
            transfer_limit: Duration::from_secs(6 * 3600),
            pids: 16_384,
            overlay_bytes: 20 << 30,
            shm_percent: 50,
            platform_network: ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 64, 0, 0), 16),
            resolver: None,
            ca_bundle: None,
            instances: InstanceTable::default(),
            devices: Vec::new(),
            endpoint_patience: Duration::from_secs(300),
            training_instances: None,
            notebooks: None,
            lifecycle_limit: Duration::from_secs(300),
        }
    }
}
