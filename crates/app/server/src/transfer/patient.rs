//! Names and connections of transfers, for which nobody is waited longer than their owner wants: whoever answers in a VPC may
//! be silent, or send a byte now and then.

use super::{DialError, Inside};
use isolarium_reconcile::Cut;
use isolarium_reconcile::http::{LOOK, goes_on, is_silence};
use std::io::{self, ErrorKind};
use std::net::{SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How late a cut is noticed while a connection is made. As soon as the kernel's first repetition of a SYN.
const LOOK_DIALING: Duration = Duration::from_millis(500);

/// The next datagram, if one comes in time.
pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8], until: Instant, cut: &Cut) -> io::Result<usize> {
    loop {
        goes_on(cut)?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(LOOK.min(left)))?;
        match socket.recv(buffer) {
            Err(error) if is_silence(&error) => {}
            done => return done,
        }
    }
}

/// A connection, made within `patience`: in several tries, so that a cut is noticed between them.
pub(super) fn dial(
    inside: &dyn Inside,
    to: SocketAddrV4,
    patience: Duration,
    cut: &Cut,
) -> Result<TcpStream, DialError> {
    let begun = Instant::now();
    loop {
        goes_on(cut).map_err(|error| DialError::NoPath(error.to_string()))?;
        let slice = LOOK_DIALING.min(patience.saturating_sub(begun.elapsed()));
        let tried = Instant::now();
        let dialed = inside.tcp(to, slice);
        // Whoever was refused before that is not asked again.
        let silent = tried.elapsed() >= slice.mul_f32(0.9);
        match dialed {
            Err(DialError::NoPath(_)) if silent && begun.elapsed() < patience => {}
            done => return done,
        }
    }
}

/// Waits, unless the transfer is to end.
pub(super) fn pause(length: Duration, cut: &Cut) {
    let until = Instant::now().checked_add(length);
    while cut.why().is_none() {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.unwrap_or_default();
        if left.is_zero() {
            return;
        }
        std::thread::sleep(LOOK.min(left));
    }
}
