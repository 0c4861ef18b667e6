//! Connections from inside a workload's namespace.

use crate::kernel::netns;
use isolarium_netplan::intent::Transport;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connects to `127.0.0.1:port` inside the namespace behind `at`, which is a network namespace descriptor or a pidfd of
/// a process in it (CC-88, NI-21). The descriptor is a blocking TCP socket, close-on-exec.
///
/// Only the socket is made by a thread inside the namespace; a socket stays where it was made, so the calling thread
/// connects it.
///
/// # Errors
/// `ConnectionRefused` while nothing listens, `TimedOut` after `timeout`.
pub fn dial(at: BorrowedFd<'_>, port: u16, timeout: Duration) -> io::Result<OwnedFd> {
    dial_to(
        at,
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
        Transport::Tcp,
        timeout,
    )
}

/// Connects to any address from inside the namespace, as [`dial`] does.
///
/// # Errors
/// What a process inside would see; `TimedOut` after `timeout`.
pub fn dial_to(at: BorrowedFd<'_>, to: SocketAddrV4, by: Transport, timeout: Duration) -> io::Result<OwnedFd> {
    let end = Instant::now() + timeout;
    let kind = match by {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let socket = netns::within(at, || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::INET, kind, flags, None)
    })??;
    match rustix::net::connect(&socket, &to) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            writable(&socket, end)?;
            rustix::net::sockopt::socket_error(&socket)??;
        }
        Err(errno) => return Err(errno.into()),
    }
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

fn writable(socket: &OwnedFd, end: Instant) -> io::Result<()> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match rustix::event::poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
