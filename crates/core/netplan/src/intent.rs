//! What the network should be, in the words of the API.

pub mod vpc;

use crate::id::{InterfaceId, VpcId};
use isolarium_model::WorkloadId;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// What a container may reach. One value per actor, settled where the request enters (style rule 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reach", rename_all = "snake_case")]
pub enum Reach {
    /// `EnableNetworkIsolation`: loopback alone (NI-6, NI-11).
    Nothing,
    /// Neither isolation nor VpcConfig: the platform's own network with NAT to the uplink (NI-1, NI-25).
    ServiceNetwork {
        /// The container's address in the platform network; one container's alone while it lives.
        address: Ipv4Addr,
    },
    /// VpcConfig: one interface of an applied VPC, whose holder is this workload (VPC-5).
    Vpc { vpc: VpcId, interface: InterfaceId },
    /// `EnableNetworkIsolation` with several instances: one interface of an applied network of peers, whose holder is this
    /// workload (NI-9, D-24).
    Peers { network: VpcId, interface: InterfaceId },
}

/// The network of one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadNetwork {
    pub workload: WorkloadId,
    pub reach: Reach,
}

/// Encryption of what the containers of one job say to each other (`EnableInterContainerTrafficEncryption`): WireGuard between
/// every two of them, below everything that a container can change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The container's own address.
    pub own: Ipv4Addr,
    /// The others of its job, each with its address.
    pub peers: Vec<(Ipv4Addr, WorkloadId)>,
}

impl Tunnel {
    /// The UDP port at both ends. Security groups see nothing else, and rules made for AWS's own encryption allow it.
    pub const PORT: u16 = isolarium_model::sagemaker::network::ENCRYPTED_PORT;

    /// Mark of encrypted packets. Setting a mark takes a privilege that no container has.
    pub const MARK: u32 = 0x6973_6c31;

    /// Longest packet inside, in bytes: that of an interface less the headers of IPv4, UDP and WireGuard.
    pub const MTU: u16 = 1500 - 20 - 8 - 32;
}

/// Where "the internet" is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "uplink", rename_all = "snake_case")]
pub enum Uplink {
    /// The host's default route, masqueraded.
    Host,
    /// Nowhere: containers reach platform services and each other's nothing.
    None,
    /// A named network namespace: the test bed's internet.
    Netns { path: String },
}

/// The parts of the host that all workloads share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNetwork {
    pub uplink: Uplink,
    /// Platform network; workloads' addresses come from it. Default 100.64.0.0/16.
    pub platform: ipnet::Ipv4Net,
    /// Addresses on which public service names are served. Default 198.18.0.0/17.
    pub services: ipnet::Ipv4Net,
    /// The S3 prefix list. Default 198.18.128.0/20.
    pub s3_prefix_list: ipnet::Ipv4Net,
    /// /32 addresses for uplink links. Default 169.254.64.0/18.
    pub uplink_links: ipnet::Ipv4Net,
    /// Public addresses of VPCs: Elastic IPs, NAT gateways included (NET-30). Default 198.19.0.0/16.
    pub elastic_ips: ipnet::Ipv4Net,
    /// Seconds after its last packet at which a NAT gateway drops a TCP connection (NET-29); 1 to a day. Default 350.
    #[serde(default = "HostNetwork::default_nat_idle")]
    pub nat_idle: u32,
}

impl HostNetwork {
    /// What EC2's NAT gateways do.
    pub const NAT_IDLE: u32 = 350;

    fn default_nat_idle() -> u32 {
        Self::NAT_IDLE
    }
}

/// A socket the engine wants inside a namespace; `node` opens it there and passes the descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerSpec {
    pub address: IpAddr,
    pub port: u16,
    pub transport: Transport,
}

/// Transport of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    Tcp,
    Udp,
}
