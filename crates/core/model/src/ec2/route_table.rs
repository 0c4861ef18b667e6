//! Route tables (NET-24..27).

use super::id::{InterfaceId, InternetGatewayId, NatGatewayId, RouteTableAssociationId, RouteTableId, SubnetId, VpcId};
use super::{Tags, resource};
use crate::Timestamp;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A route table. Local routes follow from the VPC's blocks, those of gateway endpoints from the endpoint's
/// association; neither is kept here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub id: RouteTableId,
    pub vpc: VpcId,
    /// Routes that the owner made.
    pub routes: BTreeMap<Ipv4Net, RouteTarget>,
    /// Subnets of this table, and the main association.
    pub associations: BTreeMap<RouteTableAssociationId, Associated>,
    pub created: Timestamp,
    pub tags: Tags,
}

/// With what a route table is associated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Associated {
    /// Every subnet without an association of its own. One table of a VPC has this.
    Main,
    Subnet(SubnetId),
}

/// Where a route leads (NET-26). The id stays when the target goes; [`super::Parts::route_state`] then says blackhole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTarget {
    InternetGateway(InternetGatewayId),
    NatGateway(NatGatewayId),
    Interface(InterfaceId),
}

/// What routes may lead to, as found at one moment.
pub trait Targets {
    /// Whether the gateway is attached to the VPC.
    fn attached(&self, gateway: InternetGatewayId) -> bool;
    /// Whether the VPC has the gateway, and it serves.
    fn serves(&self, gateway: NatGatewayId) -> bool;
    /// Whether the VPC has the interface, and something holds it.
    fn held(&self, interface: InterfaceId) -> bool;
}

impl RouteTarget {
    /// Whether a route to it leads anywhere: a target that is gone or detached makes it a blackhole (NET-26).
    pub fn state(self, targets: &dyn Targets) -> RouteState {
        let there = match self {
            Self::InternetGateway(id) => targets.attached(id),
            Self::NatGateway(id) => targets.serves(id),
            Self::Interface(id) => targets.held(id),
        };
        if there {
            RouteState::Active
        } else {
            RouteState::Blackhole
        }
    }
}

/// Whether a route leads anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteState {
    Active,
    Blackhole,
}

resource!(
    RouteTable,
    "ec2.route_table",
    "route-table",
    |this| Some(this.vpc),
    status | _ | ""
);

impl RouteTable {
    /// Whether it is the VPC's main table (NET-24).
    pub fn is_main(&self) -> bool {
        self.associations.values().any(|with| *with == Associated::Main)
    }

    /// The subnets that are explicitly associated.
    pub fn subnets(&self) -> impl Iterator<Item = SubnetId> {
        self.associations.values().filter_map(|with| match with {
            Associated::Subnet(subnet) => Some(*subnet),
            Associated::Main => None,
        })
    }
}
