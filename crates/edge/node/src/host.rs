//! What the machine can do for the other half.

use isolarium_netplan::intent::{HostNetwork, ListenerSpec};
use isolarium_runtime::executor::{Archives, Dial, EgressReport, Executor, ExecutorError};
use isolarium_runtime::vpcs::Vpcs;
use std::os::fd::OwnedFd;

/// The shared network of the host.
pub trait Network: Send + Sync {
    /// Brings platform namespace and uplink in line with the intent. Repeating it changes nothing.
    fn ensure_network(&self, network: &HostNetwork) -> Result<(), ExecutorError>;
    /// Opens a listener inside the platform namespace.
    fn listen(&self, listener: &ListenerSpec) -> Result<OwnedFd, ExecutorError>;
}

/// Everything `serve` may ask of a machine.
pub trait NodeHost: Executor + Archives + Dial + EgressReport + Network + Vpcs {
    /// Writes the credentials file for the person who started the engine.
    fn write_credentials(&self, text: &str) -> Result<(), ExecutorError>;
}
