//! Elastic IPs: public addresses from the engine's pool (NET-30).

use super::id::{AllocationId, EipAssociationId, InterfaceId};
use super::{Tags, resource};
use crate::record::Facets;
use crate::sagemaker::network::platform_scope;
use crate::{Key, Record, Scope, Timestamp};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// An Elastic IP. Its association lives here alone: an interface's public address is that of the Elastic IP which names
/// the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElasticIp {
    pub id: AllocationId,
    pub address: Ipv4Addr,
    pub association: Option<EipAssociation>,
    pub created: Timestamp,
    pub tags: Tags,
}

/// With which interface an Elastic IP is associated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EipAssociation {
    pub id: EipAssociationId,
    pub interface: InterfaceId,
    /// The private address that it stands for.
    pub private_address: Ipv4Addr,
}

resource!(
    ElasticIp,
    "ec2.elastic_ip",
    "elastic-ip",
    |_| None,
    status | _ | "",
    part of |this| this.association.map(|association| association.interface)
);

/// One public address in use, whoever's it is: accounts and regions share the pool (public-address).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicAddress {
    pub allocation: AllocationId,
    /// Whose Elastic IP it is.
    pub owner: Scope,
    pub allocated: Timestamp,
}

impl Record for PublicAddress {
    const KIND: &'static str = "ec2.public_address";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.allocation.to_string(), self.allocated)
    }
}

impl PublicAddress {
    /// The record's key: one per address.
    ///
    /// # Errors
    /// Never in practice, see [`platform_scope`].
    pub fn key(address: Ipv4Addr) -> Result<Key, crate::account::BadScope> {
        Ok(Key::exact(&platform_scope()?, &address.to_string()))
    }

    /// The address that `chance` picks from a pool, its first and last left out. `None` when the pool has none.
    pub fn candidate(pool: Ipv4Net, chance: u64) -> Option<Ipv4Addr> {
        let usable = u32::from(pool.broadcast())
            .checked_sub(u32::from(pool.network()))?
            .checked_sub(1)
            .filter(|count| *count > 0)?;
        let offset = u32::try_from(chance % u64::from(usable)).ok()?;
        u32::from(pool.network()).checked_add(1 + offset).map(Ipv4Addr::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: NET-30
    #[test]
    fn candidates_lie_inside_the_pool() {
        let pool: Ipv4Net = "198.19.0.0/29".parse().unwrap();
        let all: std::collections::BTreeSet<_> = (0..40)
            .filter_map(|chance| PublicAddress::candidate(pool, chance))
            .collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), pool.hosts().collect::<Vec<_>>());
        assert_eq!(PublicAddress::candidate("198.19.0.0/31".parse().unwrap(), 3), None);
    }
}
