//! The unprivileged half's view of the machine: every call is one request on a pooled connection.

use crate::frame::{self, FrameError};
use crate::host::{Network, NodeHost};
use crate::key;
use crate::message::{Answer, PROTOCOL, Request};
use isolarium_model::sagemaker::network::Sight;
use isolarium_model::{Sha256Digest, WorkloadId};
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::Vpc;
use isolarium_netplan::intent::{HostNetwork, ListenerSpec};
use isolarium_runtime::executor::{
    Archives, BlockedAttempt, Dial, EgressReport, Executor, ExecutorError, LaunchSpec, LogChunk, Observed, PackFormat,
    Packed, VolumeKey, VolumeSpec,
};
use isolarium_runtime::vpcs::{Destination, Door, Flows, VpcSeen, Vpcs};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Connections kept for the next call; more are made and closed under load.
const KEPT_CONNECTIONS: usize = 16;

/// A client of one `node`.
#[derive(Debug)]
pub struct NodeClient {
    socket: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
}

type Reply = (Answer, Option<OwnedFd>);

impl NodeClient {
    /// A client of the node that listens on `socket`. Connects on the first call.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.into(),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Blocks until the node process is gone: the caller ends itself then (supervision, design section 1).
    pub fn wait_until_gone(&self) {
        let Ok(stream) = self.connect() else { return };
        if frame::send(&stream, &Request::Lifeline, None).is_ok() {
            let _end: Result<(Answer, _), FrameError> = frame::receive(&stream);
        }
    }

    fn connect(&self) -> Result<UnixStream, ExecutorError> {
        let away = |error: &dyn std::fmt::Display| {
            ExecutorError::Unreachable(format!(
                "{} does not answer ({error}); is `isolarium serve` or `isolarium node` running as root?",
                self.socket.display()
            ))
        };
        let stream = UnixStream::connect(&self.socket).map_err(|error| away(&error))?;
        match self.exchange(&stream, &Request::Hello { protocol: PROTOCOL }, None) {
            Ok((Answer::Done, _)) => Ok(stream),
            Ok((Answer::Failed { failure }, _)) => Err(failure.into()),
            Ok(_) => Err(away(&"unexpected answer")),
            Err(error) => Err(away(&error)),
        }
    }

    fn exchange(
        &self,
        stream: &UnixStream,
        request: &Request,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, FrameError> {
        frame::send(stream, request, fd)?;
        frame::receive(stream)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<UnixStream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<Reply, ExecutorError> {
        // A kept connection may have died with an earlier node; every request may be repeated, so one fresh try is safe.
        let kept = self.idle().pop();
        let first = kept.and_then(|stream| self.exchange(&stream, request, fd).ok().map(|reply| (stream, reply)));
        let (stream, reply) = match first {
            Some(done) => done,
            None => {
                let stream = self.connect()?;
                let reply = self
                    .exchange(&stream, request, fd)
                    .map_err(|error| ExecutorError::Unreachable(format!("{}: {error}", self.socket.display())))?;
                (stream, reply)
            }
        };
        let mut idle = self.idle();
        if idle.len() < KEPT_CONNECTIONS {
            idle.push(stream);
        }
        match reply {
            (Answer::Failed { failure }, _) => Err(failure.into()),
            reply => Ok(reply),
        }
    }

    fn done(&self, request: &Request, fd: Option<BorrowedFd<'_>>) -> Result<(), ExecutorError> {
        match self.call(request, fd)? {
            (Answer::Done, _) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    fn descriptor(&self, request: &Request) -> Result<OwnedFd, ExecutorError> {
        match self.call(request, None)? {
            (Answer::Descriptor, Some(fd)) => Ok(fd),
            _ => Err(unexpected()),
        }
    }
}

fn unexpected() -> ExecutorError {
    ExecutorError::Unreachable("the node process gave an answer of another request; restart both halves".into())
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

impl Executor for NodeClient {
    fn launch(&self, spec: &LaunchSpec) -> Result<(), ExecutorError> {
        self.done(
            &Request::Launch {
                spec: Box::new(spec.clone()),
            },
            None,
        )
    }

    fn release(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        let workload = workload.clone();
        self.done(&Request::Release { workload }, None)
    }

    fn observe(&self) -> Result<Vec<Observed>, ExecutorError> {
        match self.call(&Request::Observe, None)? {
            (Answer::Observed { all }, _) => Ok(all),
            _ => Err(unexpected()),
        }
    }

    fn observe_one(&self, workload: &WorkloadId) -> Result<Observed, ExecutorError> {
        match self.call(
            &Request::ObserveOne {
                workload: workload.clone(),
            },
            None,
        )? {
            (Answer::One { observed }, _) => Ok(observed),
            _ => Err(unexpected()),
        }
    }

    fn terminate(&self, workload: &WorkloadId, kill: bool) -> Result<(), ExecutorError> {
        self.done(
            &Request::Terminate {
                workload: workload.clone(),
                kill,
            },
            None,
        )
    }

    fn remove(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        self.done(
            &Request::Remove {
                workload: workload.clone(),
            },
            None,
        )
    }

    fn changed(&self, timeout: Duration) -> Result<(), ExecutorError> {
        self.done(
            &Request::Changed {
                timeout_ms: millis(timeout),
            },
            None,
        )
    }

    fn read_log(&self, workload: &WorkloadId, offset: u64, max_bytes: usize) -> Result<LogChunk, ExecutorError> {
        match self.call(
            &Request::ReadLog {
                workload: workload.clone(),
                offset,
                max_bytes,
            },
            None,
        )? {
            (Answer::Log { chunk }, _) => Ok(chunk),
            _ => Err(unexpected()),
        }
    }

    fn prepare(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        self.done(
            &Request::Prepare {
                workload: workload.clone(),
            },
            None,
        )
    }

    fn make_volume(&self, workload: &WorkloadId, volume: &VolumeSpec, key: &VolumeKey) -> Result<(), ExecutorError> {
        let passing = |error| ExecutorError::Host(format!("passing the key of a volume: {error}"));
        let memory = key::write(key).map_err(passing)?;
        let request = Request::MakeVolume {
            workload: workload.clone(),
            volume: volume.clone(),
        };
        let made = self.done(&request, Some(memory.as_fd()));
        // Nobody may have read it.
        key::erase(&memory).map_err(passing)?;
        made
    }

    fn open_volume(&self, workload: &WorkloadId) -> Result<OwnedFd, ExecutorError> {
        let workload = workload.clone();
        self.descriptor(&Request::OpenVolume { workload })
    }

    fn close_volume(&self, workload: &WorkloadId) -> Result<(), ExecutorError> {
        let workload = workload.clone();
        self.done(&Request::CloseVolume { workload }, None)
    }
}

impl Archives for NodeClient {
    fn unpack_layer(&self, blob: OwnedFd, diff_id: &Sha256Digest) -> Result<(), ExecutorError> {
        self.done(
            &Request::UnpackLayer {
                diff_id: diff_id.clone(),
            },
            Some(blob.as_fd()),
        )
    }

    fn unpack_archive(
        &self,
        archive: OwnedFd,
        workload: &WorkloadId,
        scratch: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        let request = Request::UnpackArchive {
            workload: workload.clone(),
            scratch: scratch.into(),
            limit_ms: limit.map(millis),
        };
        self.done(&request, Some(archive.as_fd()))
    }

    fn unpack_model(
        &self,
        archive: OwnedFd,
        workload: &WorkloadId,
        scratch: &str,
        folder: &str,
        limit: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        let request = Request::UnpackModel {
            workload: workload.clone(),
            scratch: scratch.into(),
            folder: folder.into(),
            limit_ms: limit.map(millis),
        };
        self.done(&request, Some(archive.as_fd()))
    }

    fn remove_model(&self, workload: &WorkloadId, scratch: &str, folder: &str) -> Result<(), ExecutorError> {
        let request = Request::RemoveModel {
            workload: workload.clone(),
            scratch: scratch.into(),
            folder: folder.into(),
        };
        self.done(&request, None)
    }

    fn pack(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        format: PackFormat,
        out: OwnedFd,
    ) -> Result<Packed, ExecutorError> {
        let request = Request::Pack {
            workload: workload.clone(),
            scratch: scratch.into(),
            format,
        };
        match self.call(&request, Some(out.as_fd()))? {
            (Answer::Packed { packed }, _) => Ok(packed),
            _ => Err(unexpected()),
        }
    }

    fn read_file(
        &self,
        workload: &WorkloadId,
        scratch: &str,
        path: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, ExecutorError> {
        let request = Request::ReadFile {
            workload: workload.clone(),
            scratch: scratch.into(),
            path: path.into(),
            max,
        };
        match self.call(&request, None)? {
            (Answer::File { hex: None }, _) => Ok(None),
            (Answer::File { hex: Some(text) }, _) => hex::decode(text).map(Some).map_err(|_| unexpected()),
            _ => Err(unexpected()),
        }
    }
}

impl Dial for NodeClient {
    fn dial(&self, workload: &WorkloadId, port: u16, timeout: Duration) -> Result<OwnedFd, ExecutorError> {
        self.descriptor(&Request::Dial {
            workload: workload.clone(),
            port,
            timeout_ms: millis(timeout),
        })
    }
}

impl EgressReport for NodeClient {
    fn attempts(&self, workload: &WorkloadId) -> Result<Vec<BlockedAttempt>, ExecutorError> {
        match self.call(
            &Request::Attempts {
                workload: workload.clone(),
            },
            None,
        )? {
            (Answer::Attempts { attempts }, _) => Ok(attempts),
            _ => Err(unexpected()),
        }
    }

    fn sight(&self, workload: &WorkloadId) -> Result<Sight, ExecutorError> {
        let workload = workload.clone();
        match self.call(&Request::Sight { workload }, None)? {
            (Answer::Sight { sight }, _) => Ok(sight),
            _ => Err(unexpected()),
        }
    }
}

impl Network for NodeClient {
    fn ensure_network(&self, network: &HostNetwork) -> Result<(), ExecutorError> {
        self.done(
            &Request::EnsureNetwork {
                network: network.clone(),
            },
            None,
        )
    }

    fn listen(&self, listener: &ListenerSpec) -> Result<OwnedFd, ExecutorError> {
        self.descriptor(&Request::Listen {
            listener: listener.clone(),
        })
    }
}

impl NodeHost for NodeClient {
    fn write_credentials(&self, text: &str) -> Result<(), ExecutorError> {
        self.done(&Request::WriteCredentials { text: text.into() }, None)
    }
}

impl Vpcs for NodeClient {
    fn apply_vpc(&self, vpc: &Vpc) -> Result<(), ExecutorError> {
        let vpc = Box::new(vpc.clone());
        self.done(&Request::ApplyVpc { vpc }, None)
    }

    fn compare_vpc(&self, vpc: &Vpc) -> Result<Vec<String>, ExecutorError> {
        let vpc = Box::new(vpc.clone());
        match self.call(&Request::CompareVpc { vpc }, None)? {
            (Answer::Differences { differences }, _) => Ok(differences),
            _ => Err(unexpected()),
        }
    }

    fn set_peers(&self, groups: &BTreeSet<BTreeSet<Ipv4Addr>>) -> Result<(), ExecutorError> {
        let groups = groups.clone();
        self.done(&Request::SetPeers { groups }, None)
    }

    fn remove_vpc(&self, vpc: VpcId) -> Result<(), ExecutorError> {
        self.done(&Request::RemoveVpc { vpc }, None)
    }

    fn list_vpcs(&self) -> Result<Vec<VpcSeen>, ExecutorError> {
        match self.call(&Request::ListVpcs, None)? {
            (Answer::Vpcs { all }, _) => Ok(all),
            _ => Err(unexpected()),
        }
    }

    fn listen_vpc(&self, vpc: VpcId, door: Door) -> Result<OwnedFd, ExecutorError> {
        self.descriptor(&Request::ListenVpc { vpc, door })
    }

    fn attach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError> {
        self.done(&Request::AttachInterface { vpc, interface }, None)
    }

    fn detach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError> {
        self.done(&Request::DetachInterface { vpc, interface }, None)
    }

    fn dial_from(
        &self,
        vpc: VpcId,
        interface: InterfaceId,
        to: Destination,
        timeout: Duration,
    ) -> Result<OwnedFd, ExecutorError> {
        self.descriptor(&Request::DialFrom {
            vpc,
            interface,
            to,
            timeout_ms: millis(timeout),
        })
    }

    fn read_flows(&self, vpc: VpcId, since: u64, timeout: Duration) -> Result<Flows, ExecutorError> {
        let timeout_ms = millis(timeout);
        match self.call(&Request::ReadFlows { vpc, since, timeout_ms }, None)? {
            (Answer::Flows { flows }, _) => Ok(flows),
            _ => Err(unexpected()),
        }
    }
}
