//! What the containers and transfers of a job or endpoint in a VPC sent and received, for `isolarium report --flows`.

use crate::ec2::id::InterfaceId;
use crate::record::Facets;
use crate::{Key, Record, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Traffic of one job or endpoint. Its key is the owner's ARN in the owner's scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerFlows {
    pub owner_arn: String,
    pub began: Timestamp,
    /// Oldest first, at most [`Self::MOST`].
    pub flows: Vec<OwnerFlow>,
    /// Flows that found no place any more.
    pub left_out: u64,
    /// The reading that was added last: none is added twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<String>,
}

/// One direction of a 5-tuple on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerFlow {
    pub interface: InterfaceId,
    /// The platform's downloads and uploads, not the container.
    pub transfer: bool,
    pub egress: bool,
    pub accepted: bool,
    /// IANA number.
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub source_port: u16,
    pub destination: Ipv4Addr,
    pub destination_port: u16,
    pub packets: u64,
    pub bytes: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    /// The rules of groups and entries of network ACLs that decided when it was first seen.
    pub decided_by: Vec<String>,
}

impl Record for OwnerFlows {
    const KIND: &'static str = "platform.flows";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.owner_arn.clone(), self.began)
    }
}

impl OwnerFlows {
    /// Flows kept of one owner; the first ones stay.
    pub const MOST: usize = 512;

    /// The record's key.
    pub fn key(owner: &Key, owner_arn: &str) -> Key {
        Key::exact(&owner.scope, owner_arn)
    }

    /// Adds traffic: to the flow it is more of, or as a new one while there is room.
    pub fn add(&mut self, flow: OwnerFlow) {
        let same = |one: &OwnerFlow| {
            (one.interface, one.egress, one.accepted, one.protocol)
                == (flow.interface, flow.egress, flow.accepted, flow.protocol)
                && (one.source, one.source_port, one.destination, one.destination_port)
                    == (flow.source, flow.source_port, flow.destination, flow.destination_port)
        };
        if let Some(known) = self.flows.iter_mut().find(|one| same(one)) {
            known.packets = known.packets.saturating_add(flow.packets);
            known.bytes = known.bytes.saturating_add(flow.bytes);
            known.last = known.last.max(flow.last);
        } else if self.flows.len() < Self::MOST {
            self.flows.push(flow);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_of_one_flow_is_added_up_and_the_first_flows_stay() {
        let flow = |port: u16, packets: u64| OwnerFlow {
            interface: InterfaceId::of(1),
            transfer: false,
            egress: true,
            accepted: true,
            protocol: 6,
            source: Ipv4Addr::new(10, 0, 1, 5),
            source_port: port,
            destination: Ipv4Addr::new(10, 0, 2, 5),
            destination_port: 443,
            packets,
            bytes: packets * 60,
            first: Timestamp(1),
            last: Timestamp(i64::from(port)),
            decided_by: Vec::new(),
        };
        let mut all = OwnerFlows {
            owner_arn: "arn".into(),
            began: Timestamp(0),
            flows: Vec::new(),
            left_out: 0,
            reading: None,
        };
        for port in 0..600 {
            all.add(flow(port, 1));
        }
        all.add(flow(7, 9));
        assert_eq!((all.flows.len(), all.left_out), (OwnerFlows::MOST, 88));
        assert_eq!((all.flows[7].packets, all.flows[7].bytes), (10, 600));
    }
}
