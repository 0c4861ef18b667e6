//! The real machine: seals namespaces with `dataplane`, runs containers with `runtime`, keeps the isolation report.

use crate::host::{Network, NodeHost};
use isolarium_dataplane::{Host, HostError, HostOptions, RawAttempt, Reporter, SealError};
use isolarium_model::sagemaker::network::{Sight, SightSource};
use isolarium_model::{Sha256Digest, Timestamp, WorkloadId};
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::{CheckedVpc, Vpc};
use isolarium_netplan::intent::{HostNetwork, ListenerSpec, Reach};
use isolarium_runtime::executor::{
    Archives, BlockedAttempt, Dial, EgressReport, Executor, ExecutorError, LaunchSpec, LogChunk, Observed, PackFormat,
    Packed, VolumeKey, VolumeSpec, WorkloadState,
};
use isolarium_runtime::local::{LocalConfig, LocalRuntime, make_folder};
use isolarium_runtime::vpcs::{Destination, Door, Flows, VpcSeen, Vpcs};
use std::collections::{BTreeSet, HashSet};
use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long [`LocalHost::teardown`] waits for killed containers to be gone.
const LONGEST_END: Duration = Duration::from_secs(20);

/// The isolation report, loaded when it is first needed.
#[derive(Debug)]
struct ReportSource {
    dir: PathBuf,
    /// Control groups that there were before this process made any: all others in the report are left-overs.
    known: HashSet<u64>,
    reporter: OnceLock<Option<Reporter>>,
}

/// This machine. Used by the privileged process alone.
#[derive(Debug)]
pub struct LocalHost {
    runtime: LocalRuntime,
    network: Host,
    /// What the operator configured for this process: the only shared network it makes.
    configured: HostNetwork,
    source: Arc<ReportSource>,
    credentials: PathBuf,
    starter: (u32, u32),
}

impl LocalHost {
    /// Opens containers, shared network and report of one data directory. `starter` is the user who gets the
    /// credentials file, `configured` the one shared network that may be asked for. A machine without eBPF runs containers all the same: the report is never the wall.
    ///
    /// # Errors
    /// What the operator must mend before any container can run.
    pub fn open(config: LocalConfig, starter: (u32, u32), configured: HostNetwork) -> Result<Self, ExecutorError> {
        let run_dir = config.data_dir.join("run");
        // The service can make entries in `run`: what this process trusts there exists before the service does.
        for name in ["netns", "bpf", "host"] {
            let folder = run_dir.join(name);
            make_folder(&folder, 0o700)
                .map_err(|error| ExecutorError::Host(format!("cannot use {}: {error}", folder.display())))?;
        }
        let credentials = config.data_dir.join("credentials");
        let bpf_dir = run_dir.join("bpf");
        let network = Host::new(HostOptions {
            run_dir,
            host_netns: None,
        });
        let runtime = LocalRuntime::open(config)?;
        let source = Arc::new(ReportSource {
            dir: bpf_dir,
            known: runtime.cgroup_ids()?,
            reporter: OnceLock::new(),
        });
        // Loading takes the kernel's verifier tens of milliseconds: not on the way to `ready`. Who needs it first waits.
        let loading = Arc::clone(&source);
        std::thread::Builder::new()
            .name("report-load".into())
            .spawn(move || {
                loading.reporter();
            })
            .map_err(|error| ExecutorError::Host(format!("no thread for the isolation report: {error}")))?;
        Ok(Self {
            runtime,
            network,
            configured,
            source,
            credentials,
            starter,
        })
    }

    /// Ends every container and removes namespaces, links, rules and the keys of encrypted volumes. Data, logs and uncollected output stay; the next
    /// start continues from there.
    ///
    /// # Errors
    /// What could not be removed; the rest was still tried.
    pub fn teardown(&self) -> Result<(), ExecutorError> {
        let running = || -> Result<Vec<WorkloadId>, ExecutorError> {
            let all = self.runtime.observe()?.into_iter();
            Ok(all
                .filter(|seen| matches!(seen.state, WorkloadState::Running { .. }))
                .map(|seen| seen.workload)
                .collect())
        };
        let deadline = Instant::now() + LONGEST_END;
        loop {
            let left = running()?;
            if left.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                return Err(ExecutorError::Host(format!(
                    "{} containers do not end although they were killed",
                    left.len()
                )));
            }
            for workload in &left {
                self.runtime.terminate(workload, true)?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let volumes = self.runtime.close_volumes();
        let network = self.network.teardown().map_err(|error| host_failed(&error));
        // Loading mounts what is unmounted now: it must be over.
        let _loaded = self.reporter();
        let report = Reporter::teardown(&self.source.dir)
            .map_err(|error| ExecutorError::Host(format!("{} stays mounted: {error}", self.source.dir.display())));
        volumes.and(network).and(report)
    }

    fn reporter(&self) -> Option<&Reporter> {
        self.source.reporter()
    }

    /// The network namespace of a running container of this owner, for another one of its instance (CC-10).
    fn inside(&self, beside: &WorkloadId, owner_arn: &str) -> Result<OwnedFd, ExecutorError> {
        let seen = match self.runtime.observe_one(beside) {
            Err(ExecutorError::Unknown) => return Err(not_running(beside)),
            seen => seen?,
        };
        if seen.owner_arn != owner_arn {
            return Err(ExecutorError::Refused(format!("{beside} has another owner")));
        }
        let init = || match self.runtime.init_pid(beside) {
            Err(ExecutorError::Unknown) => Err(not_running(beside)),
            pid => pid,
        };
        let pid = init()?;
        let netns = isolarium_dataplane::kernel::netns::of_process(pid).map_err(|_| not_running(beside))?;
        // The number could have been used again before the namespace was opened.
        if init()? == pid {
            Ok(netns)
        } else {
            Err(not_running(beside))
        }
    }
}

fn not_running(beside: &WorkloadId) -> ExecutorError {
    ExecutorError::Busy(format!("{beside} does not run"))
}

impl ReportSource {
    fn reporter(&self) -> Option<&Reporter> {
        self.reporter.get_or_init(|| self.load()).as_ref()
    }

    fn load(&self) -> Option<Reporter> {
        match Reporter::open(&self.dir) {
            Ok(reporter) => {
                if let Err(error) = reporter.retain(&self.known) {
                    tracing::warn!(%error, "attempts of containers that are gone stay in the isolation report's maps");
                }
                Some(reporter)
            }
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "the isolation report has no source; isolation itself is not affected"
                );
                None
            }
        }
    }
}

/// An error with its causes in one line: what crosses the socket has no source.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn seal_failed(error: &SealError) -> ExecutorError {
    ExecutorError::Seal(chain(error))
}

fn host_failed(error: &HostError) -> ExecutorError {
    if error.is_passing() {
        ExecutorError::Busy(chain(error))
    } else {
        ExecutorError::Host(chain(error))
    }
}

impl Executor for LocalHost {
    fn launch(&self, spec: &LaunchSpec) -> Result<(), ExecutorError> {
        // A repeated launch must not make a second namespace, let alone a second container.
        match self.runtime.observe_one(&spec.workload) {
            Ok(Observed {
                state: WorkloadState::Running { .. } | WorkloadState::Exited(_),
                ..
            }) => return Ok(()),
            Ok(_) | Err(ExecutorError::Unknown) => {}
            Err(error) => return Err(error),
        }
        let sealed = match &spec.beside {
            None => self.network.seal_for(&spec.network, spec.tunnel.as_ref()),
            Some(beside) => {
                let inside = self.inside(beside, &spec.owner_arn)?;
                self.network.join(inside, &spec.network)
            }
        };
        let sealed = sealed.map_err(|error| match (&error, &spec.network.reach) {
            // The job's network is not known to this process yet.
            (SealError::Platform(inner), Reach::Peers { .. }) => match vpc_failed(inner) {
                ExecutorError::Unknown => ExecutorError::Unknown,
                _ => seal_failed(&error),
            },
            _ => seal_failed(&error),
        })?;
        let (watched, peers) = match spec.network.reach {
            Reach::Nothing => (self.reporter(), BTreeSet::new()),
            Reach::Peers { network, .. } => (self.reporter(), self.network.peers(network)),
            Reach::ServiceNetwork { .. } | Reach::Vpc { .. } => (None, BTreeSet::new()),
        };
        self.runtime.launch(spec, sealed, &mut |cgroup, _id| {
            watched.map_or(Ok(()), |reporter| reporter.attach(cgroup, &peers))
        })
    }

    fn release(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        self.runtime.release(workload)
    }

    fn observe(&self) -> Result<Vec<Observed>, ExecutorError> {
        self.runtime.observe()
    }

    fn observe_one(&self, workload: &WorkloadId) -> Result<Observed, ExecutorError> {
        self.runtime.observe_one(workload)
    }

    fn terminate(&self, workload: &WorkloadId, kill: bool) -> Result<(), ExecutorError> {
        self.runtime.terminate(workload, kill)
    }

    fn remove(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        let cgroup = self.runtime.cgroup_id(workload);
        self.runtime.remove(workload)?;
        if let (Ok(id), Some(reporter)) = (cgroup, self.reporter()) {
            reporter.forget(id).map_err(|error| {
                ExecutorError::Host(format!("the report of {workload} could not be dropped: {error}"))
            })?;
        }
        Ok(())
    }

    fn changed(&self, timeout: Duration) -> Result<(), ExecutorError> {
        self.runtime.changed(timeout)
    }

    fn read_log(&self, workload: &WorkloadId, offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError> {
        self.runtime.read_log(workload, offset, max_bytes)
    }

    fn prepare(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        self.runtime.prepare(workload)
    }

    fn make_volume(&self, workload: &WorkloadId, volume: &VolumeSpec, key: &VolumeKey) -> Result<(), ExecutorError> {
        self.runtime.make_volume(workload, volume, key)
    }

    fn open_volume(&self, workload: &WorkloadId) -> Result<OwnedFd, ExecutorError> {
        self.runtime.open_volume(workload)
    }

    fn close_volume(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        self.runtime.close_volume(workload)
    }
}

impl Archives for LocalHost {
    fn unpack_layer(&self, blob: OwnedFd, diff_id: &Sha256Digest) -> Result<(), ExecutorError> {
        self.runtime.unpack_layer(blob, diff_id)
    }

    fn unpack_archive(
        &self,
        archive: OwnedFd,
        workload: &WorkloadId,
        scratch: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        self.runtime.unpack_archive(archive, workload, scratch, limit)
    }

    fn unpack_model(
        &self,
        archive: OwnedFd,
        workload: &WorkloadId,
        scratch: &str,
        folder: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        self.runtime.unpack_model(archive, workload, scratch, folder, limit)
    }

    fn remove_model(&self, workload: &WorkloadId, scratch: &str, folder: &str) -> Result<(), ExecutorError> {
        self.runtime.remove_model(workload, scratch, folder)
    }

    fn pack(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        format: PackFormat,
        out: OwnedFd,
    ) -> Result<Packed, ExecutorError> {
        self.runtime.pack(workload, scratch, format, out)
    }

    fn read_file(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        path: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, ExecutorError> {
        self.runtime.read_file(workload, scratch, path, max)
    }
}

impl Dial for LocalHost {
    fn dial(&self, workload: &WorkloadId, port: u16, timeout: Duration) -> Result<OwnedFd, ExecutorError> {
        let pid = self.runtime.init_pid(workload)?;
        let pidfd = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .ok_or(ExecutorError::Unknown)
            .and_then(|pid| {
                rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                    .map_err(|_| ExecutorError::Unknown)
            })?;
        // The number could have been reused between the two calls; it is still the container's if it is asked again now.
        if self.runtime.init_pid(workload)? != pid {
            return Err(ExecutorError::Unknown);
        }
        isolarium_dataplane::dial(pidfd.as_fd(), port, timeout)
            .map_err(|error| ExecutorError::Host(format!("no connection to port {port} of {workload}: {error}")))
    }
}

impl EgressReport for LocalHost {
    fn attempts(&self, workload: &WorkloadId) -> Result<Vec<BlockedAttempt>, ExecutorError> {
        let Some(reporter) = self.reporter() else {
            return Ok(Vec::new());
        };
        let id = self.runtime.cgroup_id(workload)?;
        let raw = reporter
            .attempts(id)
            .map_err(|error| ExecutorError::Host(format!("the report of {workload} cannot be read: {error}")))?;
        Ok(merged(raw.into_iter().map(attempt)))
    }

    fn sight(&self, workload: &WorkloadId) -> Result<Sight, ExecutorError> {
        let id = self.runtime.cgroup_id(workload)?;
        let Some(reporter) = self.reporter() else {
            return Ok(Sight::default());
        };
        let lost = reporter
            .lost(id)
            .map_err(|error| ExecutorError::Host(format!("the report of {workload} cannot be read: {error}")))?;
        // One that started while there was no source is not watched later either.
        Ok(lost.map_or_else(Sight::default, |left_out| Sight {
            source: SightSource::Ebpf,
            raw_sockets: reporter.sees_raw_sockets(),
            left_out,
        }))
    }
}

/// One row per name: a resolver asks for each address family by itself, which is the same attempt to the reader.
fn merged(attempts: impl Iterator<Item = BlockedAttempt>) -> Vec<BlockedAttempt> {
    let mut rows: Vec<BlockedAttempt> = Vec::new();
    for attempt in attempts {
        let same = |row: &&mut BlockedAttempt| {
            (row.pid, &row.process, &row.protocol, row.address, row.port, &row.name)
                == (
                    attempt.pid,
                    &attempt.process,
                    &attempt.protocol,
                    attempt.address,
                    attempt.port,
                    &attempt.name,
                )
        };
        match rows.iter_mut().find(same) {
            Some(row) => {
                row.count = row.count.saturating_add(attempt.count);
                row.last = row.last.max(attempt.last);
            }
            None => rows.push(attempt),
        }
    }
    rows
}

fn attempt(raw: RawAttempt) -> BlockedAttempt {
    let millis = |nanos: u64| Timestamp(i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX));
    let protocol = match (&raw.question, raw.protocol) {
        (Some(_), _) => "dns".to_owned(),
        (None, 6) => "tcp".to_owned(),
        (None, 17) => "udp".to_owned(),
        (None, 1 | 58) => "icmp".to_owned(),
        (None, 255) => "raw".to_owned(),
        (None, number) => number.to_string(),
    };
    BlockedAttempt {
        first: millis(raw.first_unix_nanos),
        last: millis(raw.last_unix_nanos),
        count: raw.count,
        pid: raw.pid,
        process: raw.process,
        protocol,
        address: raw.address,
        port: raw.port,
        name: raw.question.map(|question| question.name),
    }
}

impl Network for LocalHost {
    fn ensure_network(&self, network: &HostNetwork) -> Result<(), ExecutorError> {
        if *network != self.configured {
            return Err(ExecutorError::Host(
                "the network asked for is not the one configured for the node process; start both halves with the same \
                 configuration"
                    .into(),
            ));
        }
        self.network
            .ensure(&self.configured)
            .map_err(|error| host_failed(&error))
    }

    fn listen(&self, listener: &ListenerSpec) -> Result<OwnedFd, ExecutorError> {
        self.network.listen(listener).map_err(|error| host_failed(&error))
    }
}

impl NodeHost for LocalHost {
    fn write_credentials(&self, text: &str) -> Result<(), ExecutorError> {
        let failed =
            |error: io::Error| ExecutorError::Host(format!("cannot write {}: {error}", self.credentials.display()));
        // A new file under another name, so that nobody who holds the old one open sees the new key.
        let fresh = self.credentials.with_extension("new");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(failed)?;
        fchown(&file, Some(self.starter.0), Some(self.starter.1)).map_err(failed)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        std::fs::rename(&fresh, &self.credentials).map_err(failed)
    }
}

/// What is unknown stays unknown; everything else is the host's.
fn vpc_failed(error: &HostError) -> ExecutorError {
    match error {
        HostError::NoVpc(_) => ExecutorError::Unknown,
        HostError::Door(_) => ExecutorError::Refused(error.to_string()),
        _ => host_failed(error),
    }
}

fn checked(vpc: &Vpc) -> Result<CheckedVpc, ExecutorError> {
    let checked = vpc.clone().check();
    checked.map_err(|bad| ExecutorError::Host(format!("{} cannot be carried out: {bad}", vpc.id)))
}

impl Vpcs for LocalHost {
    fn apply_vpc(&self, vpc: &Vpc) -> Result<(), ExecutorError> {
        let checked = checked(vpc)?;
        if let Some(address) = vpc
            .public_addresses()
            .find(|address| !self.configured.elastic_ips.contains(address))
        {
            // A route to any other address would take it from whoever has it.
            return Err(ExecutorError::Host(format!(
                "{} has the public address {address}, which is not of network.elastic_ips ({})",
                vpc.id, self.configured.elastic_ips
            )));
        }
        self.network.apply_vpc(checked).map_err(|error| vpc_failed(&error))
    }

    fn compare_vpc(&self, vpc: &Vpc) -> Result<Vec<String>, ExecutorError> {
        let compared = self.network.compare_vpc(&checked(vpc)?);
        compared.map_err(|error| vpc_failed(&error))
    }

    fn set_peers(&self, groups: &BTreeSet<BTreeSet<Ipv4Addr>>) -> Result<(), ExecutorError> {
        self.network.set_peers(groups).map_err(|error| host_failed(&error))
    }

    fn remove_vpc(&self, vpc: VpcId) -> Result<(), ExecutorError> {
        self.network.remove_vpc(vpc).map_err(|error| vpc_failed(&error))
    }

    fn list_vpcs(&self) -> Result<Vec<VpcSeen>, ExecutorError> {
        let all = self.network.vpcs().map_err(|error| vpc_failed(&error))?;
        Ok(all
            .into_iter()
            .map(|(vpc, interfaces)| VpcSeen { vpc, interfaces })
            .collect())
    }

    fn listen_vpc(&self, vpc: VpcId, door: Door) -> Result<OwnedFd, ExecutorError> {
        self.network.open_door(vpc, door).map_err(|error| vpc_failed(&error))
    }

    fn attach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError> {
        self.network
            .attach_interface(vpc, interface)
            .map_err(|error| match error {
                SealError::Platform(inner) => vpc_failed(&inner),
                SealError::Interface(_) => ExecutorError::Refused(error.to_string()),
                other => seal_failed(&other),
            })
    }

    fn detach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError> {
        self.network
            .detach_interface(vpc, interface)
            .map_err(|error| vpc_failed(&error))
    }

    fn dial_from(
        &self,
        vpc: VpcId,
        interface: InterfaceId,
        to: Destination,
        timeout: Duration,
    ) -> Result<OwnedFd, ExecutorError> {
        let address = SocketAddrV4::new(to.address, to.port);
        let dialed = self.network.dial_from(vpc, interface, (address, to.transport), timeout);
        dialed.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ExecutorError::Unknown,
            _ => ExecutorError::Refused(format!("no connection to {address} from {interface}: {error}")),
        })
    }

    fn read_flows(&self, vpc: VpcId, since: u64, timeout: Duration) -> Result<Flows, ExecutorError> {
        self.network
            .read_flows(vpc, since, timeout)
            .map_err(|error| vpc_failed(&error))
    }
}
