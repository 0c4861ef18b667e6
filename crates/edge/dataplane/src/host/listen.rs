//! Sockets inside the platform namespace and the routers of VPCs.

use super::HostError;
use crate::kernel::handle::Handle;
use isolarium_netplan::compile::CREDENTIALS;
use isolarium_netplan::intent::{HostNetwork, ListenerSpec, Transport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

const BACKLOG: i32 = 4096;

pub(super) fn open(network: &HostNetwork, platform: &Handle, spec: &ListenerSpec) -> Result<OwnedFd, HostError> {
    let address = served(network, spec.address).ok_or(HostError::Address(spec.address))?;
    let opened = platform
        .run(|| bind(SocketAddrV4::new(address, spec.port), spec.transport))
        .and_then(|done| done);
    opened.map_err(|source| HostError::Listen {
        address: spec.address,
        port: spec.port,
        source,
    })
}

fn served(network: &HostNetwork, address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V4(address) = address else { return None };
    let known = address.is_unspecified()
        || [network.gateway(), network.resolver(), CREDENTIALS].contains(&address)
        || network.services.contains(&address)
        || network.s3_prefix_list.contains(&address);
    known.then_some(address)
}

/// A socket beside others of the same port: a listener on one address takes what is meant for it, one on the unspecified
/// address the rest.
pub(super) fn bind_shared(address: SocketAddrV4, transport: Transport) -> io::Result<OwnedFd> {
    bind_with(address, transport, true)
}

fn bind(address: SocketAddrV4, transport: Transport) -> io::Result<OwnedFd> {
    bind_with(address, transport, false)
}

fn bind_with(address: SocketAddrV4, transport: Transport, shared: bool) -> io::Result<OwnedFd> {
    let kind = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    if transport == Transport::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    transparent(&socket)?;
    rustix::net::bind(&socket, &address)?;
    if transport == Transport::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// Lets the socket answer for any address that is routed here, also where no interface carries it (AnyIP).
#[expect(unsafe_code, reason = "this socket option has no safe wrapper")]
fn transparent(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the descriptor is open, the pointer is to a live integer of the given size.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_TRANSPARENT,
            (&raw const on).cast(),
            size,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
