//! What a change of rules takes from flows that EC2 does not track (NET-16).
//!
//! The kernel tracks every connection, so it would keep such a flow too. Here is said which ones EC2 would cut: at an
//! interface whose groups admitted TCP or UDP from or to everyone, and everything of that protocol in the other direction,
//! EC2 asks the rules about every packet. ICMP, and what leaves by a NAT gateway, it tracks always.

use crate::flowlog::Path;
use crate::id::{GroupId, InterfaceId};
use crate::intent::vpc::{CheckedVpc, GroupRule, Interface, LINK_LOCAL_SERVICES, Match, Peer, RangeInclusive16};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// A connection as a router's kernel tracks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IANA number.
    pub protocol: u8,
    /// As the first packet was sent.
    pub path: Path,
    /// The way of answers as they arrive at the router, see [`crate::flowlog::Fate::Passed`].
    pub answers: Path,
}

/// The rules that one intent had and the next has not.
#[derive(Debug)]
pub struct Withdrawal<'a> {
    after: &'a CheckedVpc,
    /// By address.
    sides: BTreeMap<Ipv4Addr, Side<'a>>,
}

/// One interface that lost rules.
#[derive(Clone, Debug)]
struct Side<'a> {
    id: InterfaceId,
    public: Option<Ipv4Addr>,
    before: Open<'a>,
}

/// What the groups of an interface admitted for everyone.
#[derive(Clone, Debug, Default)]
struct Open<'a> {
    ingress: BTreeSet<&'a Match>,
    egress: BTreeSet<&'a Match>,
}

#[derive(Clone, Copy)]
enum Direction {
    Ingress,
    Egress,
}

fn rules<'a>(vpc: &'a CheckedVpc, interface: &'a Interface, way: Direction) -> impl Iterator<Item = &'a GroupRule> {
    let groups = interface.groups.iter().filter_map(|id| vpc.groups.get(id));
    groups.flat_map(move |group| match way {
        Direction::Ingress => &group.ingress,
        Direction::Egress => &group.egress,
    })
}

fn open<'a>(vpc: &'a CheckedVpc, interface: &'a Interface) -> Open<'a> {
    let everyone = |rule: &&GroupRule| matches!(rule.peer, Peer::Block(block) if block.prefix_len() == 0);
    let admitted = |way| {
        let open = rules(vpc, interface, way).filter(everyone);
        open.map(|rule| &rule.traffic).collect()
    };
    Open {
        ingress: admitted(Direction::Ingress),
        egress: admitted(Direction::Egress),
    }
}

fn carries(traffic: &Match, protocol: u8, port: u16) -> bool {
    match traffic {
        Match::All => true,
        Match::Tcp { ports } => protocol == TCP && ports.range().contains(&port),
        Match::Udp { ports } => protocol == UDP && ports.range().contains(&port),
        Match::Icmp { .. } => false,
    }
}

/// Every port of the protocol.
fn carries_all(traffic: &Match, protocol: u8) -> bool {
    match traffic {
        Match::All => true,
        Match::Tcp { ports } => protocol == TCP && *ports == RangeInclusive16::ALL,
        Match::Udp { ports } => protocol == UDP && *ports == RangeInclusive16::ALL,
        Match::Icmp { .. } => false,
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

impl<'a> Withdrawal<'a> {
    /// What `after` takes away. `None`: no flow has to be looked at.
    pub fn between(before: &'a CheckedVpc, after: &'a CheckedVpc) -> Option<Self> {
        let changed = before
            .groups
            .iter()
            .filter(|(id, group)| after.groups.get(id) != Some(*group));
        let changed: BTreeSet<GroupId> = changed.map(|(id, _)| *id).collect();
        let mut sides = BTreeMap::new();
        for (id, was) in &before.interfaces {
            let Some(is) = after.interfaces.get(id).filter(|_| was.is_attached()) else {
                continue;
            };
            if was.groups == is.groups && was.groups.is_disjoint(&changed) {
                continue;
            }
            let (had, has) = (open(before, was), open(after, is));
            if had.ingress.is_subset(&has.ingress) && had.egress.is_subset(&has.egress) {
                continue;
            }
            let side = Side {
                id: *id,
                public: was.public,
                before: had,
            };
            sides.extend(was.addresses().map(|address| (address, side.clone())));
        }
        (!sides.is_empty()).then_some(Self { after, sides })
    }

    /// Whether EC2 would cut this connection.
    pub fn cuts(&self, one: &Connection) -> bool {
        // Groups do not filter these (NET-18).
        let to = one.path.destination;
        let unfiltered = Some(to) == self.after.resolver() || LINK_LOCAL_SERVICES.contains(&to);
        if !matches!(one.protocol, TCP | UDP) || unfiltered {
            return false;
        }
        let began = self.sides.get(&one.path.source).is_some_and(|side| {
            // Behind another address than its own it left by a NAT gateway.
            let translated = one.answers.destination != one.path.source;
            let by_nat = translated && Some(one.answers.destination) != side.public;
            let ports = (one.path.destination_port, one.path.source_port);
            !by_nat && self.lost(side, Direction::Egress, one.protocol, one.path.destination, ports)
        });
        let answered = || {
            self.sides.get(&one.answers.source).is_some_and(|side| {
                let ports = (one.answers.source_port, one.path.source_port);
                self.lost(side, Direction::Ingress, one.protocol, one.path.source, ports)
            })
        };
        began || answered()
    }

    /// The interface did not track a flow of this direction, and does not admit all its packets any more. `ports`: where
    /// the flow leads, and where its answers do.
    fn lost(&self, side: &Side<'_>, way: Direction, protocol: u8, peer: Ipv4Addr, ports: (u16, u16)) -> bool {
        let (forth, back, other) = match way {
            Direction::Ingress => (&side.before.ingress, &side.before.egress, Direction::Egress),
            Direction::Egress => (&side.before.egress, &side.before.ingress, Direction::Ingress),
        };
        let untracked = forth.iter().any(|traffic| carries(traffic, protocol, ports.0))
            && back.iter().any(|traffic| carries_all(traffic, protocol));
        untracked
            && !(self.admits(side.id, way, protocol, peer, ports.0)
                && self.admits(side.id, other, protocol, peer, ports.1))
    }

    fn admits(&self, id: InterfaceId, way: Direction, protocol: u8, peer: Ipv4Addr, port: u16) -> bool {
        let Some(interface) = self.after.interfaces.get(&id) else {
            return false;
        };
        let whom = |rule: Peer| match rule {
            Peer::Block(block) => block.contains(&peer),
            Peer::PrefixList(list) => {
                let mut listed = self.after.prefix_lists.get(&list).into_iter().flatten();
                listed.any(|block| block.contains(&peer))
            }
            Peer::Group(group) => {
                let carriers = self.after.interfaces.values().filter(|one| one.groups.contains(&group));
                carriers.flat_map(Interface::addresses).any(|address| address == peer)
            }
        };
        rules(self.after, interface, way).any(|rule| carries(&rule.traffic, protocol, port) && whom(rule.peer))
    }
}

#[cfg(test)]
mod tests;
