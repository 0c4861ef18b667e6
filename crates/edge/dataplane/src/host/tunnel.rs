//! What a process that encrypts between containers works with.

use crate::kernel::{netns, tun};
use isolarium_netplan::intent::Tunnel;
use isolarium_netplan::plan::LinkName;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Room for packets that arrive while the process is at others, in bytes.
const ROOM: usize = 4 << 20;

/// The two ends of a tunnel in one container's namespace. Neither takes a privilege to use.
#[derive(Debug)]
pub struct TunnelEnds {
    /// What programs say to peers, packet by packet, and what they are to hear.
    pub plain: OwnedFd,
    /// A UDP socket whose packets may leave for peers. Both are opened without blocking.
    pub wire: OwnedFd,
}

/// Opens both in a namespace that is sealed for the tunnel.
pub(super) fn ends(netns: BorrowedFd<'_>, tunnel: &Tunnel) -> io::Result<TunnelEnds> {
    netns::within(netns, || {
        let plain = tun::attach(&LinkName::tunnel())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let wire = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        option(&wire, libc::SO_MARK, Tunnel::MARK)?;
        sockopt::set_socket_recv_buffer_size_force(&wire, ROOM)?;
        sockopt::set_socket_send_buffer_size_force(&wire, ROOM)?;
        rustix::net::bind(&wire, &SocketAddrV4::new(tunnel.own, Tunnel::PORT))?;
        Ok(TunnelEnds { plain, wire })
    })?
}

#[expect(unsafe_code, reason = "this socket option has no safe wrapper")]
fn option(socket: &OwnedFd, option: libc::c_int, value: u32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<u32>()).unwrap_or(4);
    let pointer = (&raw const value).cast();
    // SAFETY: the descriptor is open, the pointer is to a live integer of the given size.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, pointer, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
