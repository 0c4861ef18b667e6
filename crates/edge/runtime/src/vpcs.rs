//! VPCs as the executor's host carries them: the seam between whoever knows the records and whoever holds the kernel.
//! Every method may be repeated safely; all are blocking calls. Everything serialises: it crosses the socket to `node`.

use crate::executor::ExecutorError;
pub use isolarium_netplan::flowlog::{Counts, Fate, Flow, Flows, Path, Refusal, Tcp};
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::Transport;
pub use isolarium_netplan::intent::vpc::Door;
use isolarium_netplan::intent::vpc::Vpc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Where [`Vpcs::dial_from`] connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    pub transport: Transport,
    pub address: Ipv4Addr,
    pub port: u16,
}

/// A VPC that exists on the host, and which of its interfaces have a namespace of [`Vpcs::attach_interface`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcSeen {
    pub vpc: VpcId,
    pub interfaces: BTreeSet<InterfaceId>,
}

/// The VPCs of a host. A VPC is known to the host from [`Vpcs::apply_vpc`] on; what needs its intent (launches, interfaces,
/// listeners) fails until then, also after the host's process was restarted. Network namespaces, links and rules outlive
/// the process.
pub trait Vpcs: Send + Sync {
    /// Brings the VPC's router in line with the intent, creating it when it is absent, and reads it back. Interfaces that
    /// are attached follow (their routes and addresses); the links of interfaces that the intent no longer attaches are
    /// removed. When this fails, what stood before still stands or nothing passes.
    ///
    /// # Errors
    /// `Host` when the intent contradicts itself or the kernel refuses.
    fn apply_vpc(&self, vpc: &Vpc) -> Result<(), ExecutorError>;
    /// What the kernel has other than this intent asks for, as the steps that would mend it, read back in full; nothing is
    /// changed. Attached interfaces that have no link yet are no difference.
    ///
    /// # Errors
    /// `Unknown` for a VPC that is not on the host, `Host` when the intent contradicts itself or the kernel cannot be read.
    fn compare_vpc(&self, vpc: &Vpc) -> Result<Vec<String>, ExecutorError>;
    /// Says which containers of the platform network may talk to each other: those whose addresses are in one group, and no
    /// others (CC-85). The groups outlive the process.
    ///
    /// # Errors
    /// `Host` when the platform network does not stand or the kernel refuses; nothing is attached to it then.
    fn set_peers(&self, groups: &BTreeSet<BTreeSet<Ipv4Addr>>) -> Result<(), ExecutorError>;
    /// Removes the router, every interface attached to it and their namespaces. A VPC that is not there is a success.
    ///
    /// # Errors
    /// What could not be removed.
    fn remove_vpc(&self, vpc: VpcId) -> Result<(), ExecutorError>;
    /// The VPCs that exist on the host, applied by this process or an earlier one.
    ///
    /// # Errors
    /// When the host cannot be asked.
    fn list_vpcs(&self) -> Result<Vec<VpcSeen>, ExecutorError>;
    /// A listening socket (TCP) or a bound one (UDP) inside the VPC's router. Asked again, it is another socket for the same
    /// door, and while both are open each gets a part of what arrives.
    ///
    /// # Errors
    /// `Unknown` for a VPC that is not applied, `Refused` for a door that the VPC does not have.
    fn listen_vpc(&self, vpc: VpcId, door: Door) -> Result<OwnedFd, ExecutorError>;
    /// Makes a namespace that holds this interface and nothing else, of holder [`Transfer`] or [`Program`]. It lives until
    /// [`Self::detach_interface`] or [`Self::remove_vpc`], also when the host's process ends.
    ///
    /// # Errors
    /// `Unknown` for a VPC that is not applied or an interface that it does not have, `Refused` for another holder, `Seal`
    /// when the namespace could not be proven; nothing is left then.
    ///
    /// [`Transfer`]: isolarium_netplan::intent::vpc::Holder::Transfer
    /// [`Program`]: isolarium_netplan::intent::vpc::Holder::Program
    fn attach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError>;
    /// Removes that namespace. One that is not there is a success.
    ///
    /// # Errors
    /// When it could not be removed.
    fn detach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), ExecutorError>;
    /// Connects from inside the namespace of an attached interface. The descriptor is a blocking, connected socket.
    ///
    /// # Errors
    /// `Unknown` when it is not attached; `Refused` with the kernel's text when nobody answers or `timeout` passes.
    fn dial_from(
        &self,
        vpc: VpcId,
        interface: InterfaceId,
        to: Destination,
        timeout: Duration,
    ) -> Result<OwnedFd, ExecutorError>;
    /// What passed and what was refused since `since` (0 at first, then [`Flows::next`]). Waits up to `timeout` while there
    /// is nothing. Accounting begins with the first call for a VPC; a VPC of which nobody reads for 15 minutes is no longer
    /// listened to, and the next call says that something was lost.
    ///
    /// # Errors
    /// `Unknown` for a VPC that does not exist.
    fn read_flows(&self, vpc: VpcId, since: u64, timeout: Duration) -> Result<Flows, ExecutorError>;
}
