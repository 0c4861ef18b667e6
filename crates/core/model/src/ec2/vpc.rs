//! VPCs (NET-1, NET-5).

use super::id::{CidrAssociationId, DhcpOptionsId, VpcId};
use super::{Tags, resource};
use crate::Timestamp;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// A VPC. Which of its parts are the default ones, the parts themselves say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    pub id: VpcId,
    /// The primary block first; 1 to 5 (NET-1).
    pub blocks: Vec<Block>,
    pub tenancy: Tenancy,
    /// `enableDnsSupport` (NET-50).
    pub dns_support: bool,
    /// `enableDnsHostnames`.
    pub dns_hostnames: bool,
    /// `enableNetworkAddressUsageMetrics`: kept and given back, nothing is measured.
    #[serde(default)]
    pub address_usage_metrics: bool,
    /// The set of DHCP options; `None` is the literal `default` (NET-53): no options of its own.
    pub dhcp_options: Option<DhcpOptionsId>,
    /// The region's default VPC (NET-6).
    pub is_default: bool,
    /// Grows with every change of its parts (vpc-generation). A plan made of one generation is out of date in the next.
    pub generation: u64,
    pub created: Timestamp,
    pub tags: Tags,
}

/// A block of a VPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub id: CidrAssociationId,
    pub block: Ipv4Net,
}

/// `InstanceTenancy` (NET-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tenancy {
    Default,
    Dedicated,
}

/// Most IPv4 blocks of one VPC (NET-1).
pub const MAX_BLOCKS: usize = 5;

resource!(Vpc, "ec2.vpc", "vpc", |this| Some(this.id), status | _ | "available");

impl Vpc {
    /// The primary block.
    pub fn primary(&self) -> Option<Ipv4Net> {
        self.blocks.first().map(|block| block.block)
    }

    /// Whether a block lies in one of the VPC's.
    pub fn contains(&self, inner: &Ipv4Net) -> bool {
        self.blocks.iter().any(|block| block.block.contains(inner))
    }
}

/// Whether a block may be a VPC's or a subnet's: /16 to /28 (NET-1, NET-2).
pub fn fits(block: &Ipv4Net) -> bool {
    (16..=28).contains(&block.prefix_len())
}
