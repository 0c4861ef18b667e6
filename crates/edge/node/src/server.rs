//! Answers the socket: one thread per connection, only for the service user and root.

use crate::check;
use crate::frame::{self, FrameError};
use crate::host::NodeHost;
use crate::key;
use crate::message::{Answer, Failure, PROTOCOL, Request};
use isolarium_runtime::executor::ExecutorError;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Longest a request may block the connection it came on.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Conversations at one time. Each is a thread, and the service needs one for each of its own threads that wait.
const CONVERSATIONS: usize = 256;

/// A listening node.
pub struct NodeServer {
    listener: UnixListener,
    host: Arc<dyn NodeHost>,
    allowed_uid: u32,
    /// Conversations that run. The sum of what a misbehaving service can make this process hold is bounded by it.
    running: Arc<AtomicUsize>,
}

/// One of the conversations; gives its place back however it ends.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(running: &Arc<AtomicUsize>) -> Option<Self> {
        let seat = Self(Arc::clone(running));
        (running.fetch_add(1, Ordering::Relaxed) < CONVERSATIONS).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NodeServer {
    /// Binds `socket` (replacing a left-over one) for clients that run as `allowed_uid` or root.
    ///
    /// # Errors
    /// When the socket cannot be made or given to that user.
    pub fn bind(socket: &Path, allowed_uid: u32, host: Arc<dyn NodeHost>) -> io::Result<Self> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        std::os::unix::fs::chown(socket, Some(allowed_uid), None)?;
        Ok(Self {
            listener,
            host,
            allowed_uid,
            running: Arc::default(),
        })
    }

    /// Accepts for ever.
    ///
    /// # Errors
    /// When the listener itself fails.
    pub fn run(&self) -> io::Result<()> {
        loop {
            let (stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Out of descriptors or memory: the connections that exist go on, new ones wait.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of the service; trying again");
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
            };
            if !self.may_ask(&stream) {
                tracing::warn!("refused a connection from a foreign user");
                continue;
            }
            let Some(seat) = Seat::take(&self.running) else {
                tracing::warn!("refused a connection of the service, which has {CONVERSATIONS} already");
                continue;
            };
            let host = Arc::clone(&self.host);
            let spawned = std::thread::Builder::new()
                .name("node-conn".into())
                .stack_size(512 << 10)
                .spawn(move || {
                    let _seat = seat;
                    converse(&stream, host.as_ref());
                });
            if let Err(error) = spawned {
                tracing::warn!(%error, "no thread for a connection of the service");
            }
        }
    }

    fn may_ask(&self, stream: &UnixStream) -> bool {
        rustix::net::sockopt::socket_peercred(stream.as_fd())
            .is_ok_and(|peer| peer.uid.is_root() || peer.uid.as_raw() == self.allowed_uid)
    }
}

fn converse(stream: &UnixStream, host: &dyn NodeHost) {
    let mut greeted = false;
    loop {
        let (request, descriptor) = match frame::receive::<Request>(stream) {
            Ok(received) => received,
            Err(FrameError::Closed) => return,
            Err(error) => {
                let failure = Failure::Host(format!("the request was not understood: {error}"));
                let _peer_may_be_gone = frame::send(stream, &Answer::Failed { failure }, None);
                return;
            }
        };
        let reply = match request {
            Request::Hello { protocol } if protocol == PROTOCOL => {
                greeted = true;
                Ok((Answer::Done, None))
            }
            Request::Hello { .. } => Err(ExecutorError::Host(
                "the two halves are of different versions; restart both".into(),
            )),
            _ if !greeted => Err(ExecutorError::Host("the first message must be hello".into())),
            Request::Lifeline => {
                let _until_the_asker_ends = frame::receive::<Request>(stream);
                return;
            }
            request => answer(request, descriptor, host),
        };
        let sent = match reply {
            Ok((answer, fd)) => frame::send(stream, &answer, fd.as_ref().map(AsFd::as_fd)),
            Err(error) => frame::send(stream, &Answer::Failed { failure: error.into() }, None),
        };
        if sent.is_err() {
            return;
        }
    }
}

type Reply = Result<(Answer, Option<OwnedFd>), ExecutorError>;

fn answer(request: Request, descriptor: Option<OwnedFd>, host: &dyn NodeHost) -> Reply {
    let done = |()| (Answer::Done, None);
    let carried = || -> Result<OwnedFd, ExecutorError> {
        let descriptor =
            descriptor.ok_or_else(|| ExecutorError::Host("the request came without its descriptor".into()))?;
        check::regular_file(&descriptor).map_err(refused)?;
        Ok(descriptor)
    };
    let wait = |ms: u64| Duration::from_millis(ms).min(LONGEST_WAIT);
    match request {
        Request::Hello { .. } | Request::Lifeline => Err(ExecutorError::Host("out of order".into())),
        Request::EnsureNetwork { network } => host.ensure_network(&network).map(done),
        Request::Listen { listener } => host.listen(&listener).map(|fd| (Answer::Descriptor, Some(fd))),
        Request::WriteCredentials { text } => {
            check::credentials(&text).map_err(refused)?;
            host.write_credentials(&text).map(done)
        }
        Request::Prepare { workload } => host.prepare(&workload).map(done),
        Request::MakeVolume { workload, volume } => {
            check::volume(&volume).map_err(refused)?;
            let key = key::read(&carried()?)
                .map_err(|error| ExecutorError::Busy(format!("the key of a volume did not arrive: {error}")))?;
            host.make_volume(&workload, &volume, &key).map(done)
        }
        Request::OpenVolume { workload } => host.open_volume(&workload).map(|fd| (Answer::Descriptor, Some(fd))),
        Request::CloseVolume { workload } => host.close_volume(&workload).map(done),
        Request::Launch { spec } => {
            check::launch(&spec).map_err(refused)?;
            host.launch(&spec).map(done)
        }
        Request::Observe => host.observe().map(|all| (Answer::Observed { all }, None)),
        Request::ObserveOne { workload } => host
            .observe_one(&workload)
            .map(|observed| (Answer::One { observed }, None)),
        Request::Release { workload } => host.release(&workload).map(done),
        Request::Terminate { workload, kill } => host.terminate(&workload, kill).map(done),
        Request::Remove { workload } => host.remove(&workload).map(done),
        Request::Changed { timeout_ms } => host.changed(wait(timeout_ms)).map(done),
        Request::ReadLog {
            workload,
            offset,
            max_bytes,
        } => host
            .read_log(&workload, offset, max_bytes.min(1 << 20))
            .map(|chunk| (Answer::Log { chunk }, None)),
        Request::UnpackLayer { diff_id } => host.unpack_layer(carried()?, &diff_id).map(done),
        Request::UnpackArchive {
            workload,
            scratch,
            limit_ms,
        } => {
            check::component("scratch directory", &scratch).map_err(refused)?;
            let limit = limit_ms.map(Duration::from_millis);
            host.unpack_archive(carried()?, &workload, &scratch, limit).map(done)
        }
        Request::UnpackModel {
            workload,
            scratch,
            folder,
            limit_ms,
        } => {
            check::component("scratch directory", &scratch).map_err(refused)?;
            check::component("folder of a model", &folder).map_err(refused)?;
            let limit = limit_ms.map(Duration::from_millis);
            host.unpack_model(carried()?, &workload, &scratch, &folder, limit)
                .map(done)
        }
        Request::RemoveModel {
            workload,
            scratch,
            folder,
        } => {
            check::component("scratch directory", &scratch).map_err(refused)?;
            check::component("folder of a model", &folder).map_err(refused)?;
            host.remove_model(&workload, &scratch, &folder).map(done)
        }
        Request::Pack {
            workload,
            scratch,
            format,
        } => {
            check::component("scratch directory", &scratch).map_err(refused)?;
            let packed = host.pack(&workload, &scratch, format, carried()?)?;
            Ok((Answer::Packed { packed }, None))
        }
        Request::ReadFile {
            workload,
            scratch,
            path,
            max,
        } => {
            check::component("scratch directory", &scratch).map_err(refused)?;
            check::relative(&path).map_err(refused)?;
            let bytes = host.read_file(&workload, &scratch, &path, max.min(1 << 20))?;
            Ok((
                Answer::File {
                    hex: bytes.map(hex::encode),
                },
                None,
            ))
        }
        Request::Dial {
            workload,
            port,
            timeout_ms,
        } => host
            .dial(&workload, port, wait(timeout_ms))
            .map(|fd| (Answer::Descriptor, Some(fd))),
        Request::Attempts { workload } => host
            .attempts(&workload)
            .map(|attempts| (Answer::Attempts { attempts }, None)),
        Request::Sight { workload } => host.sight(&workload).map(|sight| (Answer::Sight { sight }, None)),
        request => answer_vpc(request, host),
    }
}

fn answer_vpc(request: Request, host: &dyn NodeHost) -> Reply {
    let done = |()| (Answer::Done, None);
    let passed = |fd| (Answer::Descriptor, Some(fd));
    let wait = |ms: u64| Duration::from_millis(ms).min(LONGEST_WAIT);
    match request {
        Request::ApplyVpc { vpc } => host.apply_vpc(&vpc).map(done),
        Request::CompareVpc { vpc } => host
            .compare_vpc(&vpc)
            .map(|differences| (Answer::Differences { differences }, None)),
        Request::SetPeers { groups } => host.set_peers(&groups).map(done),
        Request::RemoveVpc { vpc } => host.remove_vpc(vpc).map(done),
        Request::ListVpcs => host.list_vpcs().map(|all| (Answer::Vpcs { all }, None)),
        Request::ListenVpc { vpc, door } => host.listen_vpc(vpc, door).map(passed),
        Request::AttachInterface { vpc, interface } => host.attach_interface(vpc, interface).map(done),
        Request::DetachInterface { vpc, interface } => host.detach_interface(vpc, interface).map(done),
        Request::DialFrom {
            vpc,
            interface,
            to,
            timeout_ms,
        } => host.dial_from(vpc, interface, to, wait(timeout_ms)).map(passed),
        Request::ReadFlows { vpc, since, timeout_ms } => host
            .read_flows(vpc, since, wait(timeout_ms))
            .map(|flows| (Answer::Flows { flows }, None)),
        _ => Err(ExecutorError::Host("out of order".into())),
    }
}

fn refused(bad: check::BadRequest) -> ExecutorError {
    ExecutorError::Host(format!("refused by the node process: {bad}"))
}
