//! Whose traffic a flow was: one flow is up to four records, two interfaces in two directions, and six at a NAT gateway.

use super::observed::{Counts, Fate, Flow, Path, Refusal, Tcp};
use crate::compile::vpc::LINK_LOCAL_RESOLVER;
use crate::id::{InterfaceId, SubnetId};
use crate::intent::vpc::{CheckedVpc, Interface, Target};
use crate::reach::{Direction, Next, route};
use ipnet::Ipv4Net;
use isolarium_model::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Public ranges by the service that has them, for `pkt-src-aws-service` and `pkt-dst-aws-service`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    pub s3: Vec<Ipv4Net>,
    /// Services other than S3.
    pub amazon: Vec<Ipv4Net>,
}

impl Ranges {
    /// All of them.
    pub fn all(&self) -> Vec<Ipv4Net> {
        self.s3.iter().chain(&self.amazon).copied().collect()
    }

    /// The name of the service that has an address.
    pub fn service(&self, address: Ipv4Addr) -> Option<&'static str> {
        let within = |all: &[Ipv4Net]| all.iter().any(|block| block.contains(&address));
        if within(&self.s3) {
            Some("S3")
        } else {
            within(&self.amazon).then_some("AMAZON")
        }
    }
}

/// One direction of a 5-tuple on one interface (NET-57).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    pub interface: InterfaceId,
    pub subnet: SubnetId,
    /// Ingress: into the interface.
    pub direction: Direction,
    pub accepted: bool,
    /// The interface's side is its primary private address.
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// As the packet's headers have them: they differ at NAT gateways, at secondary addresses and at interfaces that
    /// forward for others.
    pub packet_source: Ipv4Addr,
    pub packet_destination: Ipv4Addr,
    pub source_port: u16,
    pub destination_port: u16,
    /// IANA number.
    pub protocol: u8,
    pub counts: Counts,
    /// FIN 1, SYN 2, RST 4, SYN-ACK 18 of all packets together; `None` where that is not known, and for other protocols.
    pub tcp_flags: Option<u8>,
    pub first: Timestamp,
    pub last: Timestamp,
    /// `traffic-path`, for egress (NET-57).
    pub path: Option<u8>,
}

/// What makes records one: the 5-tuple with the real addresses, on one interface, in one direction, with one action.
type Key = (InterfaceId, bool, bool, [Ipv4Addr; 4], [u16; 2], u8);

impl FlowRecord {
    fn key(&self) -> Key {
        let addresses = [
            self.source,
            self.destination,
            self.packet_source,
            self.packet_destination,
        ];
        let ports = [self.source_port, self.destination_port];
        let egress = self.direction == Direction::Egress;
        (self.interface, egress, self.accepted, addresses, ports, self.protocol)
    }
}

/// Joins records of the same direction of the same 5-tuple, ordered by interface and first packet.
pub fn merge(records: impl IntoIterator<Item = FlowRecord>) -> Vec<FlowRecord> {
    let mut joined: BTreeMap<Key, FlowRecord> = BTreeMap::new();
    for record in records {
        match joined.entry(record.key()) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(record);
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                let all = place.get_mut();
                all.counts = sum(all.counts, record.counts);
                all.tcp_flags = match (all.tcp_flags, record.tcp_flags) {
                    (Some(a), Some(b)) => Some(a | b),
                    (one, other) => one.or(other),
                };
                all.first = all.first.min(record.first);
                all.last = all.last.max(record.last);
                all.path = all.path.or(record.path);
            }
        }
    }
    let mut all: Vec<FlowRecord> = joined.into_values().collect();
    all.sort_by_key(|record| (record.interface, record.first));
    all
}

fn sum(a: Counts, b: Counts) -> Counts {
    Counts {
        packets: a.packets.saturating_add(b.packets),
        bytes: a.bytes.saturating_add(b.bytes),
    }
}

/// The records of flows that were told together.
///
/// The kernel counts a packet of an established flow before a network ACL refuses it, so what was refused is taken off
/// what passed.
pub fn attribute(vpc: &CheckedVpc, flows: &[Flow]) -> Vec<FlowRecord> {
    let mut refused: BTreeMap<(Path, u8), Counts> = BTreeMap::new();
    for flow in flows {
        if let Fate::Refused { .. } = flow.fate {
            let all = refused.entry((flow.path, flow.protocol)).or_default();
            *all = sum(*all, flow.forward);
        }
    }
    let passed = flows.iter().filter(|flow| matches!(flow.fate, Fate::Passed { .. }));
    let known: BTreeSet<Path> = passed.flat_map(|flow| [flow.path, reversed(flow.path)]).collect();
    let mut found = Found {
        vpc,
        records: Vec::new(),
    };
    for flow in flows.iter().filter(|flow| is_logged(vpc, flow)) {
        match flow.fate {
            Fate::Passed {
                answers,
                backward,
                began,
                tcp,
                ..
            } => {
                let forward = less(&mut refused, flow.path, flow.protocol, flow.forward);
                let backward = less(&mut refused, answers, flow.protocol, backward);
                let backward = less(&mut refused, reversed(flow.path), flow.protocol, backward);
                let flags = tcp.map(|tcp| flags(tcp, began, backward.packets > 0));
                found.passed(flow, answers, forward, backward, flags);
            }
            Fate::Refused { by } => {
                // A packet of a connection that exists is more than its first one.
                let opens = flow.protocol == TCP && !known.contains(&flow.path);
                found.refused(flow, by, opens.then_some(SYN));
            }
        }
    }
    found.records
}

/// Takes off what was refused, once.
fn less(refused: &mut BTreeMap<(Path, u8), Counts>, path: Path, protocol: u8, counts: Counts) -> Counts {
    let Some(left) = refused.get_mut(&(path, protocol)) else {
        return counts;
    };
    let rest = |a: Counts, b: Counts| Counts {
        packets: a.packets.saturating_sub(b.packets),
        bytes: a.bytes.saturating_sub(b.bytes),
    };
    let before = std::mem::take(left);
    *left = rest(before, counts);
    rest(counts, before)
}

fn reversed(path: Path) -> Path {
    Path {
        source: path.destination,
        destination: path.source,
        source_port: path.destination_port,
        destination_port: path.source_port,
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const SYN_ACK: u8 = 18;

/// Flags of the packets forward and backward, as far as a connection's state tells them.
fn flags(tcp: Tcp, began: bool, answered: bool) -> (u8, u8) {
    let opened = tcp != Tcp::Opening;
    let (fin_forward, fin_backward) = match tcp {
        Tcp::Opening | Tcp::Open | Tcp::Reset => (0, 0),
        Tcp::ClosedForward => (FIN, 0),
        Tcp::ClosedBackward => (0, FIN),
        Tcp::Closed => (FIN, FIN),
    };
    // Whoever is asked refuses a connection by a RST in place of the SYN-ACK. Of a later one it is not known who sent it.
    let reset = if tcp == Tcp::Reset { RST } else { 0 };
    let syn = if began { SYN } else { 0 };
    let syn_ack = if began && answered && opened && tcp != Tcp::Reset {
        SYN_ACK
    } else {
        0
    };
    (syn | fin_forward, syn_ack | fin_backward | reset)
}

/// What EC2 never logs: the resolver, link-local services, DHCP, the router's reserved addresses.
fn is_logged(vpc: &CheckedVpc, flow: &Flow) -> bool {
    let is_reserved = |address: Ipv4Addr| {
        let is_router = vpc.subnets.values().any(|subnet| {
            subnet.block.contains(&address) && u32::from(address) == u32::from(subnet.block.network()).saturating_add(1)
        });
        address.is_link_local()
            || address == LINK_LOCAL_RESOLVER
            || Some(address) == vpc.resolver()
            || address.is_broadcast()
            || address.is_multicast()
            || is_router
    };
    let is_dhcp = flow.protocol == UDP && [flow.path.source_port, flow.path.destination_port] == [68, 67];
    !is_dhcp && !is_reserved(flow.path.source) && !is_reserved(flow.path.destination)
}

struct Found<'a> {
    vpc: &'a CheckedVpc,
    records: Vec<FlowRecord>,
}

/// One leg at one interface.
struct Leg {
    interface: InterfaceId,
    direction: Direction,
    accepted: bool,
    /// As the packet's headers have it there.
    packet: Path,
    counts: Counts,
    flags: Option<u8>,
}

impl<'a> Found<'a> {
    fn holder(&self, address: Ipv4Addr) -> Option<(InterfaceId, &'a Interface)> {
        let vpc: &'a CheckedVpc = self.vpc;
        let mut all = vpc.interfaces.iter();
        all.find(|(_, one)| one.addresses().any(|own| own == address) || one.public == Some(address))
            .map(|(id, one)| (*id, one))
    }

    fn push(&mut self, flow: &Flow, leg: Leg) {
        let Some(interface) = self.vpc.interfaces.get(&leg.interface) else {
            return;
        };
        if leg.counts.packets == 0 {
            return;
        }
        let packet = leg.packet;
        let (source, destination) = match leg.direction {
            Direction::Ingress => (packet.source, interface.primary),
            Direction::Egress => (interface.primary, packet.destination),
        };
        let egress = leg.direction == Direction::Egress;
        self.records.push(FlowRecord {
            interface: leg.interface,
            subnet: interface.subnet,
            direction: leg.direction,
            accepted: leg.accepted,
            source,
            destination,
            packet_source: packet.source,
            packet_destination: packet.destination,
            source_port: packet.source_port,
            destination_port: packet.destination_port,
            protocol: flow.protocol,
            counts: leg.counts,
            tcp_flags: leg.flags,
            first: flow.first,
            last: flow.last,
            path: egress
                .then(|| self.traffic_path(interface, packet.destination))
                .flatten(),
        });
    }

    /// `traffic-path` of what an interface sends.
    fn traffic_path(&self, interface: &Interface, to: Ipv4Addr) -> Option<u8> {
        if self.vpc.contains(to) {
            return Some(1);
        }
        let table = self.vpc.subnets.get(&interface.subnet)?.route_table;
        match route(self.vpc, table, to) {
            Next::S3(..) => Some(7),
            Next::To(_, Target::InternetGateway(_)) => Some(8),
            // Through another resource of the VPC.
            Next::To(_, Target::NatGateway(_) | Target::Interface(_)) => Some(1),
            Next::To(_, Target::Blackhole) | Next::Nowhere => None,
        }
    }

    fn passed(&mut self, flow: &Flow, answers: Path, forward: Counts, backward: Counts, flags: Option<(u8, u8)>) {
        let (sent, answered) = (flags.map(|(sent, _)| sent), flags.map(|(_, answered)| answered));
        // Where it was translated to the receiver's private address, answers know it; where the sender's was, they do not.
        let inside = Path {
            destination: answers.source,
            destination_port: answers.source_port,
            ..flow.path
        };
        let leg = |interface, direction, packet, counts, flags| Leg {
            interface,
            direction,
            accepted: true,
            packet,
            counts,
            flags,
        };
        if let Some((id, _)) = self.holder(flow.path.source) {
            self.push(flow, leg(id, Direction::Egress, flow.path, forward, sent));
            self.push(
                flow,
                leg(id, Direction::Ingress, reversed(flow.path), backward, answered),
            );
        }
        self.translated(flow, answers, forward, backward, flags);
        if let Some((id, _)) = self.holder(inside.destination) {
            self.push(flow, leg(id, Direction::Ingress, inside, forward, sent));
            self.push(flow, leg(id, Direction::Egress, reversed(inside), backward, answered));
        }
    }

    /// The inner and the outer leg at a NAT gateway, both ways.
    fn translated(&mut self, flow: &Flow, answers: Path, forward: Counts, backward: Counts, flags: Option<(u8, u8)>) {
        let mut gateways = self.vpc.nat_gateways.values();
        let Some(nat) = gateways.find(|nat| nat.elastic_ip == answers.destination) else {
            return;
        };
        let Some(own) = self.vpc.interfaces.get(&nat.interface).map(|one| one.primary) else {
            return;
        };
        let inner = flow.path;
        let outer = Path {
            source: own,
            source_port: answers.destination_port,
            ..flow.path
        };
        let (sent, answered) = (flags.map(|(sent, _)| sent), flags.map(|(_, answered)| answered));
        let legs = [
            (Direction::Ingress, inner, forward, sent),
            (Direction::Egress, outer, forward, sent),
            (Direction::Ingress, reversed(outer), backward, answered),
            (Direction::Egress, reversed(inner), backward, answered),
        ];
        for (direction, packet, counts, flags) in legs {
            self.push(
                flow,
                Leg {
                    interface: nat.interface,
                    direction,
                    accepted: true,
                    packet,
                    counts,
                    flags,
                },
            );
        }
    }

    fn refused(&mut self, flow: &Flow, by: Refusal, flags: Option<u8>) {
        let sender = self.holder(flow.path.source).map(|(id, _)| id);
        let receiver = self.holder(flow.path.destination).map(|(id, _)| id);
        let mut told = |interface: Option<InterfaceId>, direction, accepted| {
            let Some(interface) = interface else { return };
            self.push(
                flow,
                Leg {
                    interface,
                    direction,
                    accepted,
                    packet: flow.path,
                    counts: flow.forward,
                    flags,
                },
            );
        };
        match by {
            Refusal::Egress => told(sender, Direction::Egress, false),
            Refusal::Ingress => {
                // Its own side let it go.
                told(sender, Direction::Egress, true);
                told(receiver, Direction::Ingress, false);
            }
            Refusal::Way => told(sender, Direction::Egress, true),
        }
    }
}

#[cfg(test)]
mod tests;
