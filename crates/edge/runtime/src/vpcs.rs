//! VPCs as the executor's host carries them: the seam between whoever knows the records and whoever holds the kernel.
//! Every method may be repeated safely; all are blocking calls. Everything serialises: it crosses the socket to `node`.

use crate::executor::ExecutorError;
use isolarium_model::Timestamp;
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::Transport;
use isolarium_netplan::intent::vpc::Vpc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A socket of the engine inside a VPC's router. The peer address of what arrives there is the private address of the
/// interface that sent it: the router drops every other source (NET-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "door", rename_all = "snake_case", deny_unknown_fields)]
pub enum Door {
    /// The resolver, port 53 of the VPC's base + 2 or of 169.254.169.253 (NET-50). Refused while the VPC's DNS support is
    /// off: the address is not served then.
    Resolver { address: Ipv4Addr, transport: Transport },
    /// S3 gateway endpoints, on every address of the prefix lists that the VPC's endpoints name; port 80 or 443. The
    /// accepted socket's own address is the destination that the container chose (NET-34).
    S3 { port: u16 },
    /// Container credentials, 169.254.170.2 port 80.
    Credentials,
}

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

/// Packets and bytes (with IP headers) of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub packets: u64,
    pub bytes: u64,
}

/// Addresses and ports of one direction of a flow. Ports are 0 where the protocol has none; for ICMP both are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Path {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub source_port: u16,
    pub destination_port: u16,
}

/// Who refused a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Rules, ACL or routes on the sender's side: REJECT on the sender's interface.
    Egress,
    /// Rules or ACL on the receiver's side: REJECT on the receiver's interface, and ACCEPT on the sender's, which let it go.
    Ingress,
}

/// What happened to a flow since it was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fate {
    /// It passed the rules of both sides.
    Passed {
        /// The way of answers as they arrive at the router: source is whom the packets really reached, destination whom
        /// they really came from as the receiver saw it. It differs from the reverse of [`Flow::path`] where addresses were
        /// translated (NAT, public addresses).
        answers: Path,
        /// Answers, since it was last told.
        backward: Counts,
        /// It is over; nothing more will be told of it.
        ended: bool,
    },
    /// It did not pass.
    Refused { by: Refusal },
}

/// One flow through a VPC's router in one interval: the source of flow logs (NET-57). One flow is up to four records of a
/// flow log: two interfaces, two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// IANA number.
    pub protocol: u8,
    /// As the first packet was sent.
    pub path: Path,
    /// Packets along [`Self::path`] since it was last told. Never 0 for refused flows.
    pub forward: Counts,
    /// When the flow began, or when it was last told; no later than `last`.
    pub first: Timestamp,
    /// When its packets were last known to have arrived.
    pub last: Timestamp,
    pub fate: Fate,
}

/// What [`Vpcs::read_flows`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    pub flows: Vec<Flow>,
    /// What to ask from next time; asking from it says that everything before is kept by the caller.
    pub next: u64,
    /// Flows that happened and are in no answer, at least: a listener that was too slow, a full set, a node process that
    /// was restarted. Not 0 is SKIPDATA for every interface of the VPC.
    pub lost: u64,
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
