//! Connections from inside a workload's namespace.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// Connects to `127.0.0.1:port` inside the namespace behind `at`, which is a network namespace descriptor or a pidfd of
/// a process in it (CC-88). The descriptor is a blocking TCP socket, close-on-exec.
///
/// # Errors
/// `ConnectionRefused` while nothing listens, `TimedOut` after `timeout`.
pub fn dial(at: BorrowedFd<'_>, port: u16, timeout: Duration) -> io::Result<OwnedFd> {
    let _ = (at, port, timeout);
    Err(io::ErrorKind::Unsupported.into())
}
