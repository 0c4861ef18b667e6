//! Subnets, and the addresses taken in them (NET-2..4).

use super::address::{assignable, capacity, free_address};
use super::id::{InterfaceId, SubnetId, VpcId};
use super::zone::Zone;
use super::{Tags, resource};
use crate::Timestamp;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A subnet. Which route table and network ACL it has, their associations say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: SubnetId,
    pub vpc: VpcId,
    pub block: Ipv4Net,
    pub zone: Zone,
    /// Every private address in use, with its holder (subnet-addresses). Changed by [`Subnet::take`] and
    /// [`Subnet::release`] alone.
    pub addresses: BTreeMap<Ipv4Addr, InterfaceId>,
    /// `MapPublicIpOnLaunch`: kept and given back; interfaces of jobs never get one (D-15).
    #[serde(default)]
    pub map_public_ip: bool,
    /// `PrivateDnsNameOptionsOnLaunch`.
    #[serde(default)]
    pub launch_names: LaunchNames,
    /// `DefaultForAz` (NET-6).
    #[serde(default)]
    pub is_default: bool,
    pub created: Timestamp,
    pub tags: Tags,
}

/// `PrivateDnsNameOptionsOnLaunch`: names that instances would get. Kept and given back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchNames {
    /// `HostnameType` is `resource-name` rather than `ip-name`.
    pub by_resource: bool,
    pub a_record: bool,
}

resource!(
    Subnet,
    "ec2.subnet",
    "subnet",
    |this| Some(this.vpc),
    status | _ | "available"
);

/// Why an address cannot be had (NET-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// Outside the subnet or one of its five reserved ones.
    #[error("the address {0} is outside the subnet or reserved")]
    Unusable(Ipv4Addr),
    #[error("the address {0} is in use")]
    InUse(Ipv4Addr),
    #[error("the subnet has no free address")]
    Full,
}

impl Subnet {
    /// `AvailableIpAddressCount` (NET-3).
    pub fn available(&self) -> u32 {
        let taken = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
        capacity(self.block).saturating_sub(taken)
    }

    /// Takes the wanted address, or a free one from the place that `chance` picks, for an interface (NET-4). The caller
    /// writes the subnet in the same batch as the interface, at the revision read.
    ///
    /// # Errors
    /// When the wanted address is not to be had, or none is free. Nothing is changed then.
    pub fn take(
        &mut self,
        interface: InterfaceId,
        wanted: Option<Ipv4Addr>,
        chance: u64,
    ) -> Result<Ipv4Addr, AddressFault> {
        let address = match wanted {
            Some(address) if !assignable(self.block, address) => return Err(AddressFault::Unusable(address)),
            Some(address) if self.addresses.contains_key(&address) => return Err(AddressFault::InUse(address)),
            Some(address) => address,
            None => free_address(self.block, chance, |address| self.addresses.contains_key(&address))
                .ok_or(AddressFault::Full)?,
        };
        self.addresses.insert(address, interface);
        Ok(address)
    }

    /// Gives back every address of an interface.
    pub fn release(&mut self, interface: InterfaceId) {
        self.addresses.retain(|_, holder| *holder != interface);
    }

    /// Gives back one address of an interface; an address of another one stays.
    pub fn release_one(&mut self, interface: InterfaceId, address: Ipv4Addr) {
        self.addresses
            .retain(|at, holder| *at != address || *holder != interface);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Subnet {
        Subnet {
            id: SubnetId::of(1),
            vpc: VpcId::of(1),
            block: "10.0.1.0/28".parse().unwrap(),
            zone: Zone {
                name: "us-east-1a".into(),
                id: "use1-az1".into(),
            },
            addresses: BTreeMap::new(),
            map_public_ip: false,
            launch_names: LaunchNames::default(),
            is_default: false,
            created: Timestamp(0),
            tags: Tags::new(),
        }
    }

    /// Proves: NET-3, NET-4
    #[test]
    fn an_address_has_one_holder_and_comes_back_with_its_interface() {
        let mut subnet = subnet();
        let (one, other) = (InterfaceId::of(1), InterfaceId::of(2));
        let wanted = Ipv4Addr::new(10, 0, 1, 9);
        assert_eq!(subnet.take(one, Some(wanted), 0), Ok(wanted));
        assert_eq!(subnet.take(other, Some(wanted), 0), Err(AddressFault::InUse(wanted)));
        for bad in [[10, 0, 1, 0], [10, 0, 1, 3], [10, 0, 1, 15], [10, 0, 2, 9]].map(Ipv4Addr::from) {
            assert_eq!(subnet.take(other, Some(bad), 0), Err(AddressFault::Unusable(bad)));
        }
        assert_eq!(subnet.available(), 10);
        for chance in 0..10 {
            subnet.take(other, None, chance).unwrap();
        }
        assert_eq!(subnet.available(), 0);
        assert_eq!(subnet.take(one, None, 3), Err(AddressFault::Full));
        subnet.release_one(one, Ipv4Addr::new(10, 0, 1, 4));
        assert_eq!(subnet.available(), 0, "another's address stays");
        subnet.release(one);
        assert_eq!(
            subnet.take(other, None, 99),
            Ok(wanted),
            "the address given back is the free one"
        );
        subnet.release(other);
        assert_eq!(subnet.available(), 11);
    }
}
