//! Traffic as rules of security groups and entries of network ACLs name it.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// One numbered entry of a network ACL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclEntry {
    pub allow: bool,
    pub traffic: Match,
    /// Sources of ingress entries, destinations of egress entries.
    pub peer: Ipv4Net,
}

/// Traffic that a rule or an entry is about (NET-18).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
pub enum Match {
    /// `-1`.
    All,
    Tcp {
        ports: RangeInclusive16,
    },
    Udp {
        ports: RangeInclusive16,
    },
    /// `None` is any; a code is meaningless without a type.
    Icmp {
        kind: Option<(u8, Option<u8>)>,
    },
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct RangeInclusive16(u16, u16);

/// The range ends before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the port range ends before it begins")]
pub struct BadRange;

impl TryFrom<(u16, u16)> for RangeInclusive16 {
    type Error = BadRange;
    fn try_from((from, to): (u16, u16)) -> Result<Self, BadRange> {
        (from <= to).then_some(Self(from, to)).ok_or(BadRange)
    }
}

impl From<RangeInclusive16> for (u16, u16) {
    fn from(range: RangeInclusive16) -> Self {
        (range.0, range.1)
    }
}

impl RangeInclusive16 {
    /// All ports.
    pub const ALL: Self = Self(0, u16::MAX);

    /// As a range of the standard library.
    pub fn range(self) -> RangeInclusive<u16> {
        self.0..=self.1
    }
}
