//! Every frame of a namespace, as its interfaces saw it.

use anyhow::{Result, bail};
use isolarium_dataplane::kernel::{frames, netns};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Room for frames between two calls, bytes.
const BUFFER: usize = 32 << 20;

/// A running capture on all interfaces of a namespace.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

/// One frame's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Hardware address it came from; zero on loopback.
    pub mac: [u8; 6],
    /// `0x0800` IPv4, `0x86dd` IPv6, `0x0806` ARP, ...
    pub ether_type: u16,
    /// Source and destination, when it is IP.
    pub ip: Option<(IpAddr, IpAddr)>,
    /// IP protocol number, 0 when it is none.
    pub protocol: u8,
}

impl Capture {
    /// Starts to look. Frames of all interfaces that exist or will exist are kept, loopback's among them.
    ///
    /// # Errors
    /// Without root, or when the namespace cannot be entered.
    pub fn start(at: BorrowedFd<'_>) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = || {
            rustix::net::socket_with(
                AddressFamily::PACKET,
                SocketType::RAW,
                flags,
                Some(rustix::net::eth::ALL),
            )
        };
        let socket = netns::within(at, open)??;
        sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
        Ok(Self { socket })
    }

    /// The frames since the last call.
    ///
    /// # Errors
    /// When frames were lost or the kernel says anything else.
    pub fn frames(&self) -> Result<Vec<Frame>> {
        Ok(self.raw()?.iter().filter_map(|bytes| Frame::parse(bytes)).collect())
    }

    /// The frames since the last call as they were.
    ///
    /// # Errors
    /// When frames were lost or the kernel says anything else.
    pub fn raw(&self) -> Result<Vec<Vec<u8>>> {
        let mut seen = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => seen.push(buffer.get(..length).unwrap_or_default().to_vec()),
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        match frames::lost(self.socket.as_fd())? {
            0 => Ok(seen),
            lost => bail!("{lost} frames were lost: what was not seen says nothing"),
        }
    }
}

impl Frame {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mac = bytes.get(6..12)?.try_into().ok()?;
        let ether_type = u16::from_be_bytes(bytes.get(12..14)?.try_into().ok()?);
        let packet = bytes.get(14..)?;
        let v4 = |at: usize| {
            Some(IpAddr::V4(Ipv4Addr::from(
                <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?,
            )))
        };
        let v6 = |at: usize| {
            Some(IpAddr::V6(Ipv6Addr::from(
                <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?,
            )))
        };
        let (ip, protocol) = match ether_type {
            0x0800 => (v4(12).zip(v4(16)), packet.get(9).copied()),
            0x86dd => (v6(8).zip(v6(24)), packet.get(6).copied()),
            _ => (None, None),
        };
        Some(Self {
            mac,
            ether_type,
            ip,
            protocol: protocol.unwrap_or(0),
        })
    }

    /// Whether it stayed on loopback.
    pub fn is_loopback(&self) -> bool {
        self.mac == [0; 6]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn frames_that_found_no_room_are_an_error_once() {
        netns::within_fresh(|own| {
            let up = std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.unwrap().success());
            let capture = Capture::start(own.as_fd()).unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let send = || socket.send_to(&[0; 1000], socket.local_addr().unwrap()).unwrap();
            send();
            assert!(!capture.frames().unwrap().is_empty(), "control");
            sockopt::set_socket_recv_buffer_size_force(&capture.socket, 4096).unwrap();
            for _ in 0..100 {
                send();
            }
            let error = capture.frames().unwrap_err().to_string();
            assert!(error.contains("frames were lost"), "{error}");
            assert!(
                capture.frames().unwrap().is_empty(),
                "and from then on it is whole again"
            );
        })
        .unwrap();
    }
}
