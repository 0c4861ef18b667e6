//! The process that encrypts what one container and its peers say to each other: WireGuard in user space
//! (`EnableInterContainerTrafficEncryption`).
//!
//! One beside each container of such a job, child of the container's shim. It makes its key itself, keeps the secret half in its
//! own memory alone, and puts the public half into a folder that is root's, where the processes of its peers find it. Then it
//! gives up everything but the two ends of the tunnel and the sight of that folder. It reads what containers send, so it is
//! the last one that should hold a privilege. It ends with its shim; when it ends first, nothing passes (the namespace sees
//! to that) and the shim ends the container.

mod peers;

#[cfg(test)]
mod tests;

use crate::local::leave_volumes;
use crate::sys::{self, channel, filter};
use isolarium_dataplane::TunnelEnds;
use isolarium_model::WorkloadId;
use isolarium_netplan::intent::Tunnel;
use peers::{Keys, Peers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{chroot, fchdir};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What a shim asks the process to do. With it travel the plain end, the wire, and the folder of public keys.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    workload: WorkloadId,
    tunnel: Tunnel,
}

/// What it answers, once: the public key is there, and packets are read from now on.
#[derive(Debug, Serialize, Deserialize)]
struct Ready;

/// What a shim says when its container has ended: what the kernel still holds of its connections is carried to the peers.
const DRAIN: &[u8] = b"d";

/// The container's kernel has nothing more to send when it was silent for so long: a segment that was lost is sent again several
/// times meanwhile.
const SILENCE: Duration = Duration::from_secs(1);

/// Longest time that the process outlives the container. A peer that takes nothing for so long gets no more.
const LINGER: Duration = Duration::from_secs(30);

/// How often time-outs of the protocol are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Packets that are taken from one end before the other has its turn.
const TURN: usize = 64;

/// Longest packet, with room for what encryption adds.
const ROOM: usize = 65536;

/// How long the process may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nobody's user and group: no file is theirs, and no process of the engine runs with them.
const NOBODY: u32 = 65534;

/// A running process. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    control: UnixStream,
}

impl Running {
    /// Starts the process and waits until it is ready.
    pub fn start(
        workload: &WorkloadId,
        tunnel: &Tunnel,
        ends: [BorrowedFd<'_>; 2],
        keys: BorrowedFd<'_>,
    ) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg("tunnel")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let running = Self { child, control };
        let task = Task {
            workload: workload.clone(),
            tunnel: tunnel.clone(),
        };
        let [plain, wire] = ends;
        channel::send(&running.control, &task, &[plain, wire, keys])?;
        running.control.set_read_timeout(Some(PATIENCE))?;
        let (Ready, _) = channel::receive(&running.control)?;
        Ok(running)
    }

    /// Lets the process carry what the ended container's kernel still has to send, and waits until that is done. A program may
    /// end as soon as it has written its last bytes, and its peers are to read them as they would from a machine that stays up.
    pub fn drain(&self) {
        if (&self.control).write_all(DRAIN).is_err() {
            return;
        }
        let longest = Timespec {
            tv_sec: LINGER.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        // Interrupted or not, the process is ended next.
        let _done = poll(&mut [PollFd::new(&self.control, PollFlags::IN)], Some(&longest));
    }

    /// Becomes readable when the process has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Entry point of the hidden subcommand `tunnel`; standard input is the control socket.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads this process's output; the shim sees the socket close.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> io::Result<()> {
    let control = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let (task, descriptors): (Task, Vec<OwnedFd>) = channel::receive(&control)?;
    let Ok([plain, wire, folder]) = <[OwnedFd; 3]>::try_from(descriptors) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // Before the key is made, so that no copy of it reaches a core file, another process of this user, or swap space.
    sys::keep_memory_private();
    let keys = Keys::make()?;
    publish(&folder, &task.workload, &keys.public())?;
    confine(&folder)?;
    let ends = TunnelEnds { plain, wire };
    let peers = Peers::new(keys, &task.tunnel, folder);
    channel::send(&control, &Ready, &[])?;
    carry(&control, &ends, peers)
}

/// Puts the public key where the peers' processes look: whole, or not at all.
fn publish(folder: &OwnedFd, workload: &WorkloadId, public: &[u8; 32]) -> io::Result<()> {
    let unfinished = format!("{workload}.tmp");
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(folder, &unfinished, flags, Mode::from(0o444))?;
    let mut file = std::fs::File::from(file);
    file.write_all(public)?;
    // Whatever the operator's umask: the processes of peers read it as nobody.
    file.set_permissions(std::fs::Permissions::from_mode(0o444))?;
    rustix::fs::renameat(folder, &unfinished, folder, workload.as_str())?;
    Ok(())
}

/// Gives up everything that moving packets does not take.
fn confine(folder: &OwnedFd) -> io::Result<()> {
    // The two ends stay in the namespace in which they were made.
    sys::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS)?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    leave_volumes(&[])?;
    fchdir(folder)?;
    chroot(".")?;
    sys::become_user(NOBODY)?;
    rustix::thread::set_no_new_privs(true)?;
    sys::keep_memory_private();
    filter::confine_to(filter::PACKETS)
}

/// Moves packets until the shim is gone, or until the container's last bytes were carried.
fn carry(control: &UnixStream, ends: &TunnelEnds, mut peers: Peers) -> io::Result<()> {
    let mut packet = vec![0_u8; ROOM];
    let mut sealed = vec![0_u8; ROOM + 128];
    let mut ticked = Instant::now();
    let mut draining: Option<Instant> = None;
    let mut sent = Instant::now();
    loop {
        if let Some(began) = draining
            && (sent.elapsed().min(began.elapsed()) >= SILENCE || began.elapsed() >= LINGER)
        {
            return Ok(());
        }
        let left = TICK.saturating_sub(ticked.elapsed());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled = [
            PollFd::new(control, PollFlags::IN),
            PollFd::new(&ends.plain, PollFlags::IN),
            PollFd::new(&ends.wire, PollFlags::IN),
        ];
        match poll(&mut polled, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [said, plain, wire] = polled.map(|one| one.revents());
        if !said.is_empty() {
            match taken(rustix::io::read(control, &mut [0_u8; 1]))? {
                // The shim is gone.
                Some(0) => return Ok(()),
                Some(_) => draining = Some(Instant::now()),
                None => {}
            }
        }
        if !plain.is_empty() {
            for _ in 0..TURN {
                let Some(length) = taken(rustix::io::read(&ends.plain, packet.as_mut_slice()))? else {
                    break;
                };
                sent = Instant::now();
                peers.leave(packet.get(..length).unwrap_or_default(), &mut sealed, &mut out(ends));
            }
        }
        if !wire.is_empty() {
            for _ in 0..TURN {
                let got = rustix::net::recvfrom(&ends.wire, packet.as_mut_slice(), RecvFlags::empty());
                let Some((_, length, from)) = taken(got)? else { break };
                let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                if let Some(SocketAddr::V4(from)) = from {
                    peers.arrive(
                        from,
                        packet.get(..length).unwrap_or_default(),
                        &mut sealed,
                        &mut out(ends),
                    );
                }
            }
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            peers.tick(&mut sealed, &mut out(ends));
        }
    }
}

/// A packet, or `None` when none waits. An error that an earlier packet caused (nobody listens there yet) is not this one's.
fn taken<T>(result: Result<T, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(got) => Ok(Some(got)),
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends packets on. One for which there is no room is lost, as on any network.
fn out(ends: &TunnelEnds) -> impl FnMut(peers::Packet<'_>) + '_ {
    |packet| {
        let _lost = match packet {
            peers::Packet::Wire(to, bytes) => {
                let to = SocketAddrV4::new(to, Tunnel::PORT);
                rustix::net::sendto(&ends.wire, bytes, SendFlags::empty(), &to)
            }
            peers::Packet::Plain(bytes) => rustix::io::write(&ends.plain, bytes),
        };
    }
}

/// The folder of public keys.
pub(crate) fn open_keys(place: &crate::local::place::Place) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(place.tunnels(), flags, Mode::empty())?)
}

/// Removes the public key of a workload.
pub(crate) fn forget(place: &crate::local::place::Place, workload: &WorkloadId) -> io::Result<()> {
    let folder = match open_keys(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        folder => folder?,
    };
    for name in [format!("{workload}.tmp"), workload.to_string()] {
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
