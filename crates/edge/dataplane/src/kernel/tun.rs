//! Tun devices: interfaces whose packets a process reads and writes.

use super::netlink::{Request, Socket};
use super::route;
use isolarium_netplan::plan::LinkName;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `TUNSETIFF` and `TUNSETPERSIST`: `_IOW('T', 202, int)` and `_IOW('T', 203, int)`.
const SET_INTERFACE: libc::c_ulong = 0x4004_54ca;
const SET_PERSISTENT: libc::c_ulong = 0x4004_54cb;

/// Makes a tun device in the namespace of the calling thread that stays there without a process: what is sent to it then is
/// lost.
pub(super) fn make(name: &LinkName) -> io::Result<()> {
    let device = open(name, libc::IFF_TUN_EXCL)?;
    control(&device, SET_PERSISTENT, 1)
}

/// Opens a tun device in the namespace of the calling thread: the packets of its interface, without blocking.
pub(crate) fn attach(name: &LinkName) -> io::Result<OwnedFd> {
    open(name, 0)
}

/// Sets the longest packet of an interface.
pub(super) fn set_mtu(socket: &mut Socket, name: &LinkName, mtu: u16) -> io::Result<()> {
    let index = route::index_of(socket, name)?;
    let header = route::link_header(index, 0);
    let request = Request::new(libc::RTM_NEWLINK, 0, &header).with(libc::IFLA_MTU, &u32::from(mtu).to_ne_bytes());
    match socket.carry_out(&[request])?.into_iter().next() {
        None => Ok(()),
        Some((_, error)) => Err(error),
    }
}

#[expect(unsafe_code, reason = "this request has no safe wrapper")]
fn open(name: &LinkName, flags: libc::c_int) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let mode = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let device = rustix::fs::open("/dev/net/tun", mode, Mode::empty())?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | flags;
    let bits = u16::try_from(flags).map_err(io::Error::other)?;
    request.ifr_ifru.ifru_flags = libc::c_short::from_ne_bytes(bits.to_ne_bytes());
    // SAFETY: the descriptor is open; the kernel reads and writes an ifreq, which outlives the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), SET_INTERFACE, &raw mut request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(device),
    }
}

#[expect(unsafe_code, reason = "this request has no safe wrapper")]
fn control(device: &OwnedFd, request: libc::c_ulong, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open and the argument is a plain number.
    match unsafe { libc::ioctl(device.as_raw_fd(), request, value) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
