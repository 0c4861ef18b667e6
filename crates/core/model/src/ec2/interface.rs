//! Network interfaces and permissions on them (NET-10..13).

use super::id::{AttachmentId, EndpointId, GroupId, InterfaceId, InterfacePermissionId, NatGatewayId, SubnetId, VpcId};
use super::zone::Zone;
use super::{Tags, resource};
use crate::{AccountId, Key, Timestamp, WorkloadId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// A network interface (NET-10). Its private addresses are also in its [`super::Subnet`] record; its public address is in
/// the [`super::ElasticIp`] that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    pub id: InterfaceId,
    pub vpc: VpcId,
    pub subnet: SubnetId,
    /// The subnet's zone.
    pub zone: Zone,
    pub primary: Ipv4Addr,
    pub secondary: BTreeSet<Ipv4Addr>,
    /// 1 to 5 groups of the VPC; none for a NAT gateway's interface alone (NET-29).
    pub groups: BTreeSet<GroupId>,
    pub description: String,
    /// `SourceDestCheck` (NET-13).
    pub source_dest_check: bool,
    /// The service that made it and alone may change it (NET-11); `None` for the account's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<Requester>,
    /// Who uses it; what the packet filter is told.
    pub holder: Holder,
    /// `Attachment`; the status is `in-use` where there is one, else `available`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    pub created: Timestamp,
    pub tags: Tags,
}

/// Who made a requester-managed interface (NET-11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// `RequesterId`: a service's name or the id of the caller that acted for it.
    pub id: String,
    /// The record for which it was made, where that is a job or an endpoint: it is removed with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Key>,
    /// ARN of the job, endpoint or gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_arn: Option<String>,
}

/// An attachment as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub id: AttachmentId,
    pub attached: Timestamp,
    /// `DeviceIndex`.
    pub device: u16,
}

/// Who holds an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// Status `available`.
    Nobody,
    Container(WorkloadId),
    /// An isolated container: the address is reserved and configured nowhere (NET-69, D-24).
    Isolated(WorkloadId),
    /// The platform's downloads and uploads for a workload.
    Transfer(WorkloadId),
    /// A program that the operator runs inside the VPC.
    Program,
    Nat(NatGatewayId),
    /// An interface endpoint: served by the engine.
    Endpoint(EndpointId),
}

resource!(
    NetworkInterface,
    "ec2.network_interface",
    "network-interface",
    |this| Some(this.vpc),
    status | this | this.status()
);

impl NetworkInterface {
    /// `Status` (NET-10).
    pub fn status(&self) -> &'static str {
        if self.attachment.is_some() {
            "in-use"
        } else {
            "available"
        }
    }

    /// `InterfaceType` (NET-11).
    pub fn interface_type(&self) -> &'static str {
        match self.holder {
            Holder::Nat(_) => "nat_gateway",
            Holder::Endpoint(_) => "vpc_endpoint",
            Holder::Nobody | Holder::Container(_) | Holder::Isolated(_) | Holder::Transfer(_) | Holder::Program => {
                "interface"
            }
        }
    }

    /// All private addresses, the primary one first.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        std::iter::once(self.primary).chain(self.secondary.iter().copied())
    }
}

/// A permission on an interface (IAM-55).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfacePermission {
    pub id: InterfacePermissionId,
    pub interface: InterfaceId,
    pub vpc: VpcId,
    pub grantee: Grantee,
    pub permission: Permission,
    pub created: Timestamp,
    #[serde(default)]
    pub tags: Tags,
}

/// Who is permitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grantee {
    Account(AccountId),
    Service(String),
}

/// What is permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permission {
    #[serde(rename = "INSTANCE-ATTACH")]
    InstanceAttach,
    #[serde(rename = "EIP-ASSOCIATE")]
    EipAssociate,
}

resource!(
    InterfacePermission,
    "ec2.interface_permission",
    "network-interface-permission",
    |this| Some(this.vpc),
    status | _ | "granted",
    part of |this| Some(this.interface)
);
