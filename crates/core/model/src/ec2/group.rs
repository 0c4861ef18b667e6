//! Security groups (NET-15..20).

use super::id::{GroupId, GroupRuleId, PrefixListId, VpcId};
use super::traffic::Match;
use super::{Tags, resource};
use crate::Timestamp;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A security group with its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: GroupId,
    pub vpc: VpcId,
    /// Unique in the VPC; `default` is the default group (NET-20).
    pub name: String,
    pub description: String,
    pub rules: BTreeMap<GroupRuleId, Rule>,
    pub created: Timestamp,
    pub tags: Tags,
}

/// One allow rule (NET-15).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub direction: Direction,
    pub traffic: Match,
    pub peer: Peer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// Which way traffic goes, seen from the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Ingress,
    Egress,
}

/// Whom a rule admits (NET-17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    Block(Ipv4Net),
    /// The private addresses of interfaces that carry the group.
    Group(GroupId),
    PrefixList(PrefixListId),
}

/// The name of every VPC's default group (NET-5).
pub const DEFAULT_NAME: &str = "default";

resource!(
    SecurityGroup,
    "ec2.security_group",
    "security-group",
    |this| Some(this.vpc),
    status | _ | ""
);

impl SecurityGroup {
    /// Whether it is the VPC's default group, which cannot be deleted.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_NAME
    }

    /// Whether a rule names the group as peer.
    pub fn names(&self, peer: GroupId) -> bool {
        self.rules.values().any(|rule| rule.peer == Peer::Group(peer))
    }
}

impl Rule {
    /// Egress of everything to everywhere: what a new group has (NET-15).
    pub fn everything_out() -> Self {
        Self {
            direction: Direction::Egress,
            traffic: Match::All,
            peer: Peer::Block(Ipv4Net::default()),
            description: None,
            tags: Tags::new(),
        }
    }

    /// Ingress of everything from a group: what a default group has for itself (NET-5).
    pub fn everything_from(group: GroupId) -> Self {
        Self {
            direction: Direction::Ingress,
            traffic: Match::All,
            peer: Peer::Group(group),
            description: None,
            tags: Tags::new(),
        }
    }
}
