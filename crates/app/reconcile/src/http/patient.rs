//! Sockets on which nobody is waited for longer than the owner of the transfer wants: whoever answers in a VPC may be silent,
//! or send a byte now and then.

use super::Stream;
use crate::Cut;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How late a cut is noticed at most while a peer is silent.
pub const LOOK: Duration = Duration::from_millis(250);

/// A connected stream that gives up when its peer says nothing, and when it is cut.
pub struct Patient {
    socket: TcpStream,
    /// How long one read or write may wait.
    pub patience: Duration,
    /// When everything ends, whatever was read before.
    pub until: Option<Instant>,
    /// What ends every read and write.
    pub cut: Arc<Cut>,
}

impl Patient {
    /// Waits `patience` for each read and write.
    ///
    /// # Errors
    /// When the socket cannot be used.
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
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Err(ErrorKind::TimedOut.into());
            }
            match act(&mut self.socket) {
                Err(error) if is_silence(&error) => {}
                done => return done,
            }
            if begun.elapsed() >= self.patience {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }
}

/// # Errors
/// Once the transfer is to end. Not of the kind `Interrupted`, which readers take for a reason to go on.
pub fn goes_on(cut: &Cut) -> io::Result<()> {
    match cut.why() {
        None => Ok(()),
        Some(_) => Err(io::Error::new(ErrorKind::ConnectionAborted, "the transfer was ended")),
    }
}

/// Whether an error says that the peer has been silent for one look.
pub fn is_silence(error: &io::Error) -> bool {
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

impl Stream for Patient {
    fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    fn set_cut(&mut self, cut: Arc<Cut>) {
        self.cut = cut;
    }

    fn set_until(&mut self, until: Option<Instant>) {
        self.until = until;
    }
}
