//! VPC endpoints (NET-32..48).

use super::id::{EndpointId, GroupId, InterfaceId, PrefixListId, RouteTableId, SubnetId, VpcId};
use super::{EndpointService, Tags, resource};
use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A VPC endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcEndpoint {
    pub id: EndpointId,
    pub vpc: VpcId,
    /// Such as `com.amazonaws.us-east-1.s3`.
    pub service_name: String,
    pub kind: EndpointKind,
    pub state: EndpointState,
    /// The policy document as given, or the default one (NET-35).
    pub policy: String,
    pub created: Timestamp,
    pub tags: Tags,
}

/// `VpcEndpointType` with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EndpointKind {
    /// Each associated table has a route to the prefix list (NET-32).
    Gateway {
        prefix_list: PrefixListId,
        route_tables: BTreeSet<RouteTableId>,
    },
    /// One interface per subnet (NET-41).
    Interface {
        service: EndpointService,
        interfaces: BTreeMap<SubnetId, InterfaceId>,
        groups: BTreeSet<GroupId>,
        private_dns: bool,
        /// `PrivateDnsOnlyForInboundResolverEndpoint`: the VPC's own resolver goes on by the gateway endpoint. S3's alone.
        only_inbound: bool,
        /// The eight characters in its own names (NET-42).
        suffix: String,
    },
}

/// States, lower case on the wire (NET-85).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    Pending,
    Available,
    Deleting,
    Deleted,
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Available => "available",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        })
    }
}

resource!(
    VpcEndpoint,
    "ec2.vpc_endpoint",
    "vpc-endpoint",
    |this| Some(this.vpc),
    status | this | this.state
);

impl VpcEndpoint {
    /// Route tables of a gateway endpoint; none of an interface endpoint.
    pub fn route_tables(&self) -> Option<&BTreeSet<RouteTableId>> {
        match &self.kind {
            EndpointKind::Gateway { route_tables, .. } => Some(route_tables),
            EndpointKind::Interface { .. } => None,
        }
    }

    /// Interfaces of an interface endpoint by subnet; none of a gateway endpoint.
    pub fn interfaces(&self) -> Option<&BTreeMap<SubnetId, InterfaceId>> {
        match &self.kind {
            EndpointKind::Gateway { .. } => None,
            EndpointKind::Interface { interfaces, .. } => Some(interfaces),
        }
    }

    /// Whether it serves, or is to as soon as the host has it.
    pub fn is_wanted(&self) -> bool {
        matches!(self.state, EndpointState::Pending | EndpointState::Available)
    }
}
