//! What EC2 knows of an account in a region besides its resources.

use super::id::DhcpOptionsId;
use crate::record::Facets;
use crate::{Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};

/// One per account and region; it comes with the first VPC or Elastic IP. Whoever creates a resource that is counted per
/// region writes it in the same batch, so that two creations cannot pass one quota (NET-86).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountAttributes {
    pub generation: u64,
    /// The set of DHCP options that new VPCs get (NET-5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_options: Option<DhcpOptionsId>,
    /// The configured default VPC was made once: it does not come back after its owner deleted it (NET-6).
    #[serde(default)]
    pub default_vpc_made: bool,
}

impl Record for AccountAttributes {
    const KIND: &'static str = "ec2.account";

    fn facets(&self) -> Facets {
        Facets::unchanging("account".into(), Timestamp(0))
    }
}

impl AccountAttributes {
    /// The record's key: one per account and region.
    pub fn key(scope: &Scope) -> Key {
        Key::exact(scope, "account")
    }
}
