//! The shared network of the machine.

use crate::seal::{SealError, SealedNetns};
use isolarium_netplan::intent::{HostNetwork, ListenerSpec, WorkloadNetwork};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Where the shared network keeps its handles.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// `DIR/run`: `netns/` below it holds the platform namespace's mount. It must be in a mount namespace that outlives
    /// the node process (the host's own), else a restarted node makes a new platform namespace.
    pub run_dir: PathBuf,
    /// The namespace that counts as the host. `None`: the one of the calling process.
    pub host_netns: Option<PathBuf>,
}

/// The machine's network. Share it by `Arc`; every method takes `&self` and may be called from any thread.
#[derive(Debug)]
pub struct Host {
    options: HostOptions,
}

/// Why the shared network is not as intended. What was there before still stands, deny included.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The host lacks something.
    #[error("{0}")]
    Missing(String),
}

impl Host {
    /// Takes the options; touches nothing.
    pub fn new(options: HostOptions) -> Self {
        Self { options }
    }

    /// Creates or adopts the platform namespace and the uplink, and reads both back. Repeating it changes nothing.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn ensure(&self, network: &HostNetwork) -> Result<(), HostError> {
        let _ = (network, &self.options);
        Err(HostError::Missing("network".into()))
    }

    /// Opens a listener (TCP, listening) or a bound socket (UDP) inside the platform namespace.
    ///
    /// # Errors
    /// Before [`Self::ensure`], or when the address is not one the platform serves.
    pub fn listen(&self, listener: &ListenerSpec) -> Result<OwnedFd, HostError> {
        let _ = listener;
        Err(HostError::Missing("network".into()))
    }

    /// Makes, reads back and hands out the namespace of one workload (NI-6, NI-11, NET-73).
    ///
    /// # Errors
    /// See [`SealError`]; nothing is left behind.
    pub fn seal(&self, network: &WorkloadNetwork) -> Result<SealedNetns, SealError> {
        let _ = network;
        Err(SealError::Plan(std::io::ErrorKind::Unsupported.into()))
    }

    /// Removes everything [`Self::ensure`] made, and restores what it changed on the host (NET-72).
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest was still tried.
    pub fn teardown(&self) -> Result<(), HostError> {
        Ok(())
    }
}
