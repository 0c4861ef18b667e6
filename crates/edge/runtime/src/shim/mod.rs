//! One container's parent: builds its file systems in a mount namespace of its own, starts it, keeps its output, notes
//! how it ended. `serve` and `node` may die meanwhile; killing the shim takes mounts and bundle along, nothing can be
//! left over.
//!
//! One thread, because it unshares namespaces and forks; small, because there is one per container.

mod build;
mod gate;
pub(crate) use build::scratch;
mod watch;

use crate::executor::LaunchSpec;
use crate::local::Walls;
use crate::local::cgroup::{self, Layout};
use crate::local::oci::OciProgram;
use crate::local::place::Place;
use crate::local::record::{LaunchOutcome, Process, Record};
use crate::sys::{self, channel};
use crate::tunnel::Running;
use isolarium_model::Timestamp;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

/// What `node` asks a shim to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    pub spec: LaunchSpec,
    pub data_dir: PathBuf,
    pub service_uid: u32,
    pub service_gid: u32,
    pub walls: Walls,
    pub oci: OciProgram,
    pub cgroups: Layout,
    pub cgroup_id: u64,
    /// Number of the workload's range of ids.
    pub slot: u32,
    /// The system call filter as the runtime compiled it for an earlier container of this engine, in base64.
    pub filter: Option<String>,
    /// What the devices of the spec change in the container.
    #[serde(default)]
    pub devices: Vec<crate::cdi::Edits>,
}

/// What a shim answers, once.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The first process runs and the record is written. `filter` is what the runtime compiled, as in [`Job`], when the
    /// job brought none.
    Started { filter: Option<String> },
    /// Image, entry point or user cannot run.
    Unstartable { reason: String },
    /// The machine is to blame.
    Host { reason: String },
}

/// Descriptors that travel with a [`Job`], in this order.
pub(crate) struct Passed {
    /// Held while the shim lives; says so to everyone.
    pub lock: OwnedFd,
    /// The sealed network namespace.
    pub netns: OwnedFd,
    /// The workload's v2 control group.
    pub group: OwnedFd,
    /// The ends of the tunnel to the peers and the folder of public keys, for a job with [`LaunchSpec::tunnel`].
    pub tunnel: Option<[OwnedFd; 3]>,
    /// The runtime's program, where `node` keeps a copy.
    pub program: Option<OwnedFd>,
}

/// Why the container did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{0}")]
    Unstartable(String),
    #[error("{doing}")]
    Host {
        doing: String,
        #[source]
        source: io::Error,
    },
}

pub(crate) fn doing<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> StartError {
    let doing = doing.into();
    move |error| StartError::Host {
        doing,
        source: error.into(),
    }
}

/// The wall clock. The shim is a process of its own, this is its wiring.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Entry point of the hidden subcommand `shim`; standard input is the control socket.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads the shim's output; the reason went over the socket or `node` is gone.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> io::Result<()> {
    // A terminal's interrupt meant for `serve` must not reach containers.
    let _leader_already = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let control = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    let (job, descriptors): (Job, Vec<OwnedFd>) = channel::receive(&control)?;
    let mut descriptors = descriptors.into_iter();
    let (Some(lock), Some(netns), Some(group)) = (descriptors.next(), descriptors.next(), descriptors.next()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let tunnel = match job.spec.tunnel {
        None => None,
        Some(_) => match (descriptors.next(), descriptors.next(), descriptors.next()) {
            (Some(plain), Some(wire), Some(keys)) => Some([plain, wire, keys]),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        },
    };
    let passed = Passed {
        lock,
        netns,
        group,
        tunnel,
        program: descriptors.next(),
    };
    let place = Place::new(&job.data_dir);
    let gate = match job.spec.held {
        true => Some(gate::make(&place, &job.spec.workload)?),
        false => None,
    };
    // First, while this process is in the host's namespaces: no program may run before its peers are reached by it alone.
    let started = encrypt(&job, &passed).and_then(|tunnel| Ok((start(&job, &place, &passed)?, tunnel)));
    match started {
        Ok(((container, started), tunnel)) => {
            drop(passed.tunnel);
            // The namespace lives by the container's processes now: it ends when they do.
            drop(passed.netns);
            let filter = build::compiled_filter(&job);
            channel::send(&control, &Reply::Started { filter }, &[]).ok();
            drop(control);
            if let Some(gate) = gate {
                gate::pass(
                    &gate,
                    tunnel.as_ref(),
                    &job,
                    &place,
                    &container,
                    passed.program.as_ref(),
                )?;
            }
            drop(passed.program);
            let watched = watch::Watched {
                workload: job.spec.workload.clone(),
                place,
                cgroups: job.cgroups.clone(),
                group: passed.group,
                lock: passed.lock,
                slot: job.slot,
                started,
                tunnel,
            };
            drop(job);
            sys::trim_memory();
            watch::watch(watched, container)
        }
        Err(error) => {
            let reason = chain(&error);
            let reply = match error {
                StartError::Unstartable(_) => Reply::Unstartable { reason },
                StartError::Host { .. } => Reply::Host { reason },
            };
            channel::send(&control, &reply, &[])?;
            Ok(())
        }
    }
}

/// A running container: its first process and the read ends of its output.
pub(crate) struct Container {
    pub init: rustix::process::Pid,
    pub output: [OwnedFd; 2],
}

/// Starts the process that encrypts for a container with peers, if it is to have one.
fn encrypt(job: &Job, passed: &Passed) -> Result<Option<Running>, StartError> {
    let (Some(tunnel), Some([plain, wire, keys])) = (&job.spec.tunnel, &passed.tunnel) else {
        return Ok(None);
    };
    let ends = [plain.as_fd(), wire.as_fd()];
    let running = Running::start(&job.spec.workload, tunnel, ends, keys.as_fd());
    running
        .map(Some)
        .map_err(doing("starting the encryption of the traffic between instances"))
}

fn start(job: &Job, place: &Place, passed: &Passed) -> Result<(Container, Timestamp), StartError> {
    build::stage(job, place, passed)?;
    let container = build::spawn(job, passed)?;
    let started = now();
    let init = container.init.as_raw_nonzero().get();
    let noted = Process::identify(init).and_then(|init| {
        let outcome = LaunchOutcome::Started {
            init,
            started,
            cgroup_id: job.cgroup_id,
        };
        Record {
            workload: job.spec.workload.clone(),
            owner_arn: job.spec.owner_arn.clone(),
            outcome,
        }
        .write(place)
    });
    if let Err(error) = noted {
        // A container that nobody could find again must not live.
        let _ended = rustix::process::kill_process(container.init, rustix::process::Signal::KILL);
        let _reaped = rustix::process::waitpid(Some(container.init), rustix::process::WaitOptions::empty());
        return Err(doing("writing the container's record; is the disk full?")(error));
    }
    Ok((container, started))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

/// Moves the shim into the workload's v2 group for the moment in which it starts the runtime. Only where the runtime
/// does not manage v2 itself.
pub(crate) struct InGroup<'a>(Option<&'a OwnedFd>);

impl<'a> InGroup<'a> {
    pub fn enter(layout: &Layout, group: &'a OwnedFd) -> io::Result<Self> {
        if layout.is_unified() {
            return Ok(Self(None));
        }
        cgroup::enter(group.as_fd())?;
        Ok(Self(Some(group)))
    }
}

impl Drop for InGroup<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Staying would only make the report's programs see the shim's own calls, of which there are none.
            let _stays = cgroup::leave(group.as_fd());
        }
    }
}
