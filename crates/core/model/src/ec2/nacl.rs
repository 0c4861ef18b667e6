//! Network ACLs (NET-22).

use super::id::{AclAssociationId, AclId, SubnetId, VpcId};
use super::traffic::{AclEntry, Match};
use super::{Tags, resource};
use crate::Timestamp;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A network ACL. The final deny (`32767` on the wire) is not kept: every ACL has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAcl {
    pub id: AclId,
    pub vpc: VpcId,
    pub is_default: bool,
    /// By rule number, 1 to 32766.
    pub ingress: BTreeMap<u16, AclEntry>,
    pub egress: BTreeMap<u16, AclEntry>,
    /// Every subnet of the VPC is in exactly one ACL's associations.
    pub associations: BTreeMap<AclAssociationId, SubnetId>,
    pub created: Timestamp,
    pub tags: Tags,
}

resource!(
    NetworkAcl,
    "ec2.network_acl",
    "network-acl",
    |this| Some(this.vpc),
    status | _ | ""
);

impl NetworkAcl {
    /// The entries of a default ACL: number 100 allows all (NET-5, NET-22).
    pub fn allow_all() -> BTreeMap<u16, AclEntry> {
        let entry = AclEntry {
            allow: true,
            traffic: Match::All,
            peer: Ipv4Net::default(),
        };
        BTreeMap::from([(100, entry)])
    }
}
