//! Namespaces proven to reach no more than their plan says.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A workload's network namespace, installed and read back. [`crate::Host::seal`] is the only source (style rule 6).
/// The namespace lives as long as this value or a process in it; nothing else keeps it.
#[derive(Debug)]
pub struct SealedNetns {
    fd: OwnedFd,
}

impl AsFd for SealedNetns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why a namespace was not handed out. Nothing of it is left (NET-73).
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The intent contradicts the host's network.
    #[error("the workload's network cannot be planned")]
    Plan(#[source] std::io::Error),
}
