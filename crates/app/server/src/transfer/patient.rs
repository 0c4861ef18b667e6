//! Sockets on which nobody is waited for longer than the owner of the transfer wants: whoever answers in a VPC may be silent,
//! or send a byte now and then.

use isolarium_reconcile::Cut;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DialError, Inside};

/// How late a cut is noticed at most while a peer is silent.
const LOOK: Duration = Duration::from_millis(250);
/// How late it is noticed while a connection is made. As soon as the kernel's first repetition of a SYN.
const LOOK_DIALING: Duration = Duration::from_millis(500);

/// A connected stream that gives up when its peer says nothing, and when it is cut.
pub(super) struct Patient {
    socket: TcpStream,
    /// How long one read or write may wait.
    pub patience: Duration,
    /// When everything ends, whatever was read before.
    pub until: Option<Instant>,
    pub cut: Arc<Cut>,
}

impl Patient {
    pub fn new(socket: TcpStream, patience: Duration, cut: Arc<Cut>) -> io::Result<Self> {
        // The descriptor comes from another process.
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(LOOK))?;
        socket.set_write_timeout(Some(LOOK))?;
        Ok(Self {
            socket,
            patience,
            until: None,
            cut,
        })
    }

    fn wait<T>(&mut self, mut act: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        let begun = Instant::now();
        loop {
            goes_on(&self.cut)?;
            match act(&mut self.socket) {
                Err(error) if is_silence(&error) => {}
                done => return done,
            }
            let late = self.until.is_some_and(|until| Instant::now() >= until);
            if late || begun.elapsed() >= self.patience {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }
}

/// An error once the transfer is to end. Not of the kind `Interrupted`, which readers take for a reason to go on.
fn goes_on(cut: &Cut) -> io::Result<()> {
    match cut.why() {
        None => Ok(()),
        Some(_) => Err(io::Error::new(ErrorKind::ConnectionAborted, "the transfer was ended")),
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(|socket| socket.read(buffer))
    }
}

impl Write for Patient {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.wait(|socket| socket.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

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
