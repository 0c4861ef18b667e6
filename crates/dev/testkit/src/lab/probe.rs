//! What code in a namespace can do towards an address.

use isolarium_dataplane::kernel::netns;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Longest a probe waits. Arrival is decided at the target, not by this.
pub const PATIENCE: Duration = Duration::from_millis(700);

/// Sends an HTTP request from inside a namespace and returns the whole answer.
///
/// # Errors
/// What the process in the namespace would see.
pub fn http(at: BorrowedFd<'_>, to: SocketAddr) -> io::Result<String> {
    netns::within(at, || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // At once: the server may answer and close after the first piece.
        stream.write_all(format!("GET /probe HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?
}

/// Sends a datagram from inside a namespace and returns the answer.
///
/// # Errors
/// What the process in the namespace would see.
pub fn datagram(at: BorrowedFd<'_>, to: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    netns::within(at, || {
        let any: SocketAddr = if to.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0_u16; 8], 0).into()
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        socket.send(bytes)?;
        let mut answer = vec![0; 2048];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    })?
}
