//! DHCP options (NET-53).

use super::id::DhcpOptionsId;
use super::{Tags, resource};
use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A set of DHCP options. It cannot be changed, only replaced by another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOptions {
    pub id: DhcpOptionsId,
    /// By option name, such as `domain-name-servers`, each with its values in order.
    pub configurations: BTreeMap<String, Vec<String>>,
    pub created: Timestamp,
    pub tags: Tags,
}

/// The value of `domain-name-servers` that means the VPC's resolver.
pub const AMAZON_PROVIDED: &str = "AmazonProvidedDNS";

resource!(
    DhcpOptions,
    "ec2.dhcp_options",
    "dhcp-options",
    |_| None,
    status | _ | ""
);

impl DhcpOptions {
    /// `domain-name`: the first value.
    pub fn domain_name(&self) -> Option<&str> {
        let values = self.configurations.get("domain-name")?;
        values.first().map(String::as_str)
    }

    /// Name servers of the owner's; none when the VPC's resolver is meant.
    pub fn servers(&self) -> Vec<Ipv4Addr> {
        let values = self.configurations.get("domain-name-servers");
        values
            .into_iter()
            .flatten()
            .filter_map(|value| value.parse().ok())
            .collect()
    }
}
