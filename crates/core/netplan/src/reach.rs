//! EC2's rules as an oracle: whether a flow arrives, and if not, every setting that stands in its way.
//!
//! Written from EC2's documents and from the intent alone. It shares no code with the compiler, because each is the
//! other's test.

use crate::id::{AclId, EndpointId, GroupId, InterfaceId, InternetGatewayId, NatGatewayId, RouteTableId, SubnetId};
use crate::intent::vpc::{AclEntry, CheckedVpc, Holder, Interface, Match, NetworkAcl, Peer, Subnet, Target};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// One attempt: a first packet, and the answer to it if there can be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub from: Origin,
    pub to: Ipv4Addr,
    pub traffic: Traffic,
}

/// Where the first packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Sent by an interface with this source address.
    Interface { id: InterfaceId, source: Ipv4Addr },
    /// Sent by a host on the internet.
    Internet(Ipv4Addr),
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    Tcp { from: u16, to: u16 },
    Udp { from: u16, to: u16 },
    Icmp { kind: u8, code: u8 },
}

impl Traffic {
    /// The answer: ports exchanged; an echo reply for an echo request, nothing for other messages.
    pub fn reply(self) -> Option<Self> {
        match self {
            Self::Tcp { from, to } => Some(Self::Tcp { from: to, to: from }),
            Self::Udp { from, to } => Some(Self::Udp { from: to, to: from }),
            Self::Icmp { kind: 8, code } => Some(Self::Icmp { kind: 0, code }),
            Self::Icmp { .. } => None,
        }
    }

    fn matches(self, rule: &Match) -> bool {
        match (rule, self) {
            (Match::All, _) => true,
            (Match::Tcp { ports }, Self::Tcp { to, .. }) | (Match::Udp { ports }, Self::Udp { to, .. }) => {
                ports.range().contains(&to)
            }
            (Match::Icmp { kind: None }, Self::Icmp { .. }) => true,
            (
                Match::Icmp {
                    kind: Some((want, codes)),
                },
                Self::Icmp { kind, code },
            ) => kind == *want && codes.is_none_or(|want| want == code),
            _ => false,
        }
    }

    fn is_web(self) -> bool {
        matches!(self, Self::Tcp { to: 80 | 443, .. })
    }
}

/// Into an interface or subnet, or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Ingress,
    Egress,
}

/// The first packet or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leg {
    Request,
    Reply,
}

/// What the flow passes, in order; the answer's hops follow those of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hop {
    Interface(InterfaceId),
    /// The first group with a rule that allows it.
    Group {
        group: GroupId,
        direction: Direction,
    },
    Acl {
        acl: AclId,
        direction: Direction,
        rule: u16,
        leg: Leg,
    },
    /// `None`: the local route.
    Route {
        table: RouteTableId,
        destination: Option<Ipv4Net>,
    },
    InternetGateway(InternetGatewayId),
    NatGateway(NatGatewayId),
    S3Endpoint(EndpointId),
}

/// Where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    Interface(InterfaceId),
    /// On the internet, seen from this address.
    Internet {
        seen_as: Ipv4Addr,
    },
    /// S3 through the endpoint, seen from the private address (NET-34).
    S3Endpoint(EndpointId),
    Resolver,
    Credentials,
}

/// A setting that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    NoSuchInterface(InterfaceId),
    /// The platform holds it: it begins no flow of its own.
    BeginsNothing(InterfaceId),
    /// Status `available`: nobody holds it.
    NotAttached(InterfaceId),
    /// Its container is isolated (NET-69).
    Isolated(InterfaceId),
    /// NET-13, for the sender's source or a destination that is not the receiver's.
    SourceDestCheck(InterfaceId),
    /// No rule of these groups allows it.
    NoGroupRule {
        interface: InterfaceId,
        groups: Vec<GroupId>,
        direction: Direction,
    },
    /// `rule` is `None` for the final deny.
    Acl {
        acl: AclId,
        direction: Direction,
        rule: Option<u16>,
        leg: Leg,
    },
    NoRoute {
        table: RouteTableId,
        leg: Leg,
    },
    Blackhole {
        table: RouteTableId,
        destination: Ipv4Net,
        leg: Leg,
    },
    /// The answer would leave by something else than what the request came through.
    OtherRoute {
        table: RouteTableId,
        destination: Ipv4Net,
        leg: Leg,
    },
    /// NET-28.
    NoPublicAddress {
        interface: InterfaceId,
        gateway: InternetGatewayId,
    },
    NoInternetGateway,
    /// The NAT gateway's own subnet has no route to the internet gateway (NET-29).
    NatWithoutInternet {
        nat: NatGatewayId,
        table: RouteTableId,
    },
    /// NAT gateways begin no connection inwards (NET-29).
    NatRefusesInbound(NatGatewayId),
    /// Nobody has the address.
    Unassigned(Ipv4Addr),
    /// A private or reserved address is not on the internet.
    NotOnInternet(Ipv4Addr),
    /// The service answers other ports only.
    NotServed(Ipv4Addr),
    /// `enableDnsSupport` is false (NET-50).
    DnsSupportOff,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Reached {
        path: Vec<Hop>,
        arrival: Arrival,
    },
    /// Every setting that blocks, in the order of the way. Never empty.
    Blocked {
        by: Vec<Block>,
    },
}

/// Addresses that no host on the internet has (RFC 6890, RFC 5771).
const NOT_PUBLIC: [&[u8]; 10] = [
    &[0, 8],
    &[10, 8],
    &[100, 64, 10],
    &[127, 8],
    &[169, 254, 16],
    &[172, 16, 12],
    &[192, 168, 16],
    &[198, 18, 15],
    &[224, 4],
    &[240, 4],
];

fn on_internet(address: Ipv4Addr, services: &[Ipv4Net]) -> bool {
    let listed = NOT_PUBLIC.iter().filter_map(|row| {
        let (len, octets) = row.split_last()?;
        let mut octets = octets.iter().copied().chain(std::iter::repeat(0));
        let mut next = || octets.next().unwrap_or_default();
        Ipv4Net::new(Ipv4Addr::new(next(), next(), next(), next()), *len).ok()
    });
    let mut listed = listed;
    services.iter().any(|block| block.contains(&address)) || !listed.any(|block| block.contains(&address))
}

/// Whether a flow arrives and can be answered. `services` are the ranges of public names that count as internet.
pub fn reach(vpc: &CheckedVpc, services: &[Ipv4Net], flow: &Flow) -> Verdict {
    let mut way = Way {
        vpc,
        services,
        flow,
        path: Vec::new(),
        blocks: Vec::new(),
    };
    let arrival = match flow.from {
        Origin::Interface { id, source } => way.begin_inside(id, source),
        Origin::Internet(source) => way.begin_outside(source),
    };
    match arrival {
        Some(arrival) if way.blocks.is_empty() => Verdict::Reached {
            path: way.path,
            arrival,
        },
        _ => Verdict::Blocked { by: way.blocks },
    }
}

struct Way<'a> {
    vpc: &'a CheckedVpc,
    services: &'a [Ipv4Net],
    flow: &'a Flow,
    path: Vec<Hop>,
    blocks: Vec<Block>,
}

/// What a table says about a destination.
pub(crate) enum Next {
    To(Ipv4Net, Target),
    S3(Ipv4Net, EndpointId),
    Nowhere,
}

/// Longest prefix wins; on equal prefixes a static route beats a prefix list's (NET-25).
pub(crate) fn route(vpc: &CheckedVpc, table: RouteTableId, to: Ipv4Addr) -> Next {
    let fixed = vpc.route_tables.get(&table).into_iter().flat_map(|table| &table.routes);
    let fixed = fixed
        .filter(|(block, _)| block.contains(&to))
        .max_by_key(|(block, _)| block.prefix_len());
    let endpoints = vpc
        .s3_endpoints
        .iter()
        .filter(|(_, one)| one.route_tables.contains(&table));
    let listed = endpoints.flat_map(|(id, endpoint)| {
        let blocks = vpc.prefix_lists.get(&endpoint.prefix_list).into_iter().flatten();
        blocks.filter(|block| block.contains(&to)).map(|block| (*block, *id))
    });
    let listed = listed.max_by_key(|(block, _)| block.prefix_len());
    match (fixed, listed) {
        (Some((block, _)), Some((listed, id))) if listed.prefix_len() > block.prefix_len() => Next::S3(listed, id),
        (Some((block, target)), _) => Next::To(*block, *target),
        (None, Some((block, id))) => Next::S3(block, id),
        (None, None) => Next::Nowhere,
    }
}

impl<'a> Way<'a> {
    fn block(&mut self, block: Block) {
        if !self.blocks.contains(&block) {
            self.blocks.push(block);
        }
    }

    fn subnet(&self, interface: &Interface) -> Option<(SubnetId, &'a Subnet)> {
        Some((interface.subnet, self.vpc.subnets.get(&interface.subnet)?))
    }

    fn holder_of(&self, address: Ipv4Addr) -> Option<(InterfaceId, &'a Interface)> {
        let vpc: &'a CheckedVpc = self.vpc;
        let mut all = vpc.interfaces.iter();
        all.find(|(_, interface)| interface.addresses().any(|one| one == address))
            .map(|(id, one)| (*id, one))
    }

    /// Whether packets can come out of the interface and go into it.
    fn present(&mut self, id: InterfaceId, interface: &Interface) {
        match interface.holder {
            Holder::Nobody => self.block(Block::NotAttached(id)),
            Holder::Isolated(_) => self.block(Block::Isolated(id)),
            Holder::Nat(nat) => self.block(Block::NatRefusesInbound(nat)),
            Holder::Container(_) | Holder::Transfer(_) | Holder::Program | Holder::Endpoint(_) => {}
        }
    }

    /// Groups are one union of allow rules (NET-15), and answers pass them (NET-16).
    fn groups(&mut self, id: InterfaceId, interface: &Interface, direction: Direction, peer: Ipv4Addr) {
        let allows = |group: &GroupId| {
            let group = self.vpc.groups.get(group)?;
            let rules = if direction == Direction::Ingress {
                &group.ingress
            } else {
                &group.egress
            };
            rules
                .iter()
                .find(|rule| rule_admits(self.vpc, rule.peer, peer) && self.flow.traffic.matches(&rule.traffic))
        };
        match interface.groups.iter().find(|group| allows(group).is_some()) {
            Some(group) => self.path.push(Hop::Group {
                group: *group,
                direction,
            }),
            None => {
                let groups = interface.groups.iter().copied().collect();
                self.block(Block::NoGroupRule {
                    interface: id,
                    groups,
                    direction,
                });
            }
        }
    }

    /// First match wins, final deny (NET-22).
    fn acl(&mut self, subnet: &Subnet, direction: Direction, peer: Ipv4Addr, leg: Leg) {
        let traffic = match leg {
            Leg::Request => Some(self.flow.traffic),
            Leg::Reply => self.flow.traffic.reply(),
        };
        let (Some(traffic), Some(acl)) = (traffic, self.vpc.acls.get(&subnet.acl)) else {
            return;
        };
        let entries = entries(acl, direction);
        let first = entries
            .iter()
            .find(|(_, entry)| entry.peer.contains(&peer) && traffic.matches(&entry.traffic));
        match first {
            Some((rule, entry)) if entry.allow => {
                self.path.push(Hop::Acl {
                    acl: subnet.acl,
                    direction,
                    rule: *rule,
                    leg,
                });
            }
            other => {
                let rule = other.map(|(rule, _)| *rule);
                self.block(Block::Acl {
                    acl: subnet.acl,
                    direction,
                    rule,
                    leg,
                });
            }
        }
    }

    fn begin_inside(&mut self, id: InterfaceId, source: Ipv4Addr) -> Option<Arrival> {
        let Some(interface) = self.vpc.interfaces.get(&id) else {
            self.block(Block::NoSuchInterface(id));
            return None;
        };
        let (own_subnet, subnet) = self.subnet(interface)?;
        let to = self.flow.to;
        match interface.holder {
            Holder::Nat(_) | Holder::Endpoint(_) => self.block(Block::BeginsNothing(id)),
            _ => self.present(id, interface),
        }
        if interface.source_dest_check && !interface.addresses().any(|one| one == source) {
            self.block(Block::SourceDestCheck(id));
        }
        self.path.push(Hop::Interface(id));
        if let Some(arrival) = self.platform_service(to) {
            return arrival;
        }
        self.groups(id, interface, Direction::Egress, to);
        if self.vpc.contains(to) {
            self.path.push(Hop::Route {
                table: subnet.route_table,
                destination: None,
            });
            let Some((other_id, other)) = self.holder_of(to) else {
                self.block(Block::Unassigned(to));
                return None;
            };
            if matches!(other.holder, Holder::Endpoint(_)) && !matches!(self.flow.traffic, Traffic::Tcp { to: 443, .. })
            {
                self.block(Block::NotServed(to));
            }
            return self.enter(own_subnet, subnet, source, other_id, other);
        }
        match route(self.vpc, subnet.route_table, to) {
            Next::To(destination, target) => {
                self.path.push(Hop::Route {
                    table: subnet.route_table,
                    destination: Some(destination),
                });
                self.by_target(id, interface, (own_subnet, subnet), source, destination, target)
            }
            Next::S3(destination, endpoint) => {
                self.path.push(Hop::Route {
                    table: subnet.route_table,
                    destination: Some(destination),
                });
                self.path.push(Hop::S3Endpoint(endpoint));
                self.acl(subnet, Direction::Egress, to, Leg::Request);
                self.acl(subnet, Direction::Ingress, to, Leg::Reply);
                if !self.flow.traffic.is_web() {
                    self.block(Block::NotServed(to));
                }
                Some(Arrival::S3Endpoint(endpoint))
            }
            Next::Nowhere => {
                self.acl(subnet, Direction::Egress, to, Leg::Request);
                self.block(Block::NoRoute {
                    table: subnet.route_table,
                    leg: Leg::Request,
                });
                None
            }
        }
    }

    /// The resolver and the credentials service: neither groups nor ACLs filter them (NET-18). The outer `None`: the
    /// destination is neither.
    fn platform_service(&mut self, to: Ipv4Addr) -> Option<Option<Arrival>> {
        let primary = self.vpc.blocks.first()?;
        let base_plus_two = Ipv4Addr::from(u32::from(primary.network()).checked_add(2)?);
        if to == base_plus_two || to == Ipv4Addr::new(169, 254, 169, 253) {
            if !self.vpc.dns.support {
                self.block(Block::DnsSupportOff);
            }
            if !matches!(
                self.flow.traffic,
                Traffic::Tcp { to: 53, .. } | Traffic::Udp { to: 53, .. }
            ) {
                self.block(Block::NotServed(to));
            }
            return Some(Some(Arrival::Resolver));
        }
        if to == Ipv4Addr::new(169, 254, 170, 2) {
            if !matches!(self.flow.traffic, Traffic::Tcp { to: 80, .. }) {
                self.block(Block::NotServed(to));
            }
            return Some(Some(Arrival::Credentials));
        }
        // No route leads to other addresses of the platform's link-local range (NET-27).
        let [a, b, c, _] = to.octets();
        if a == 169 && b == 254 && c & 0xfc == 168 {
            self.block(Block::NotServed(to));
            return Some(None);
        }
        None
    }

    /// From an interface's subnet to another interface, by its address or by a route that names it.
    fn enter(
        &mut self,
        own_subnet: SubnetId,
        subnet: &Subnet,
        source: Ipv4Addr,
        other_id: InterfaceId,
        other: &Interface,
    ) -> Option<Arrival> {
        let to = self.flow.to;
        let (other_subnet, there) = self.subnet(other)?;
        let crosses = own_subnet != other_subnet;
        if crosses {
            self.acl(subnet, Direction::Egress, to, Leg::Request);
            self.acl(there, Direction::Ingress, source, Leg::Request);
        }
        self.present(other_id, other);
        if !matches!(other.holder, Holder::Nat(_)) {
            self.groups(other_id, other, Direction::Ingress, source);
        }
        if crosses {
            self.acl(there, Direction::Egress, source, Leg::Reply);
            self.acl(subnet, Direction::Ingress, to, Leg::Reply);
        }
        Some(Arrival::Interface(other_id))
    }

    fn by_target(
        &mut self,
        id: InterfaceId,
        interface: &Interface,
        (own_subnet, subnet): (SubnetId, &Subnet),
        source: Ipv4Addr,
        destination: Ipv4Net,
        target: Target,
    ) -> Option<Arrival> {
        let to = self.flow.to;
        match target {
            Target::Interface(other_id) => {
                let other = self.vpc.interfaces.get(&other_id)?;
                if other.source_dest_check {
                    self.block(Block::SourceDestCheck(other_id));
                }
                if matches!(other.holder, Holder::Endpoint(_)) {
                    self.block(Block::NotServed(to));
                }
                self.enter(own_subnet, subnet, source, other_id, other)
            }
            Target::Blackhole => {
                self.acl(subnet, Direction::Egress, to, Leg::Request);
                self.block(Block::Blackhole {
                    table: subnet.route_table,
                    destination,
                    leg: Leg::Request,
                });
                None
            }
            Target::InternetGateway(gateway) => {
                self.acl(subnet, Direction::Egress, to, Leg::Request);
                self.path.push(Hop::InternetGateway(gateway));
                self.internet(to);
                self.acl(subnet, Direction::Ingress, to, Leg::Reply);
                let public = interface.public.filter(|_| source == interface.primary);
                if public.is_none() {
                    self.block(Block::NoPublicAddress { interface: id, gateway });
                }
                public.map(|seen_as| Arrival::Internet { seen_as })
            }
            Target::NatGateway(nat_id) => {
                let nat = self.vpc.nat_gateways.get(&nat_id)?;
                let (_, there) = self.subnet(self.vpc.interfaces.get(&nat.interface)?)?;
                self.acl(subnet, Direction::Egress, to, Leg::Request);
                self.acl(there, Direction::Ingress, source, Leg::Request);
                self.path.push(Hop::NatGateway(nat_id));
                self.acl(there, Direction::Egress, to, Leg::Request);
                match route(self.vpc, there.route_table, to) {
                    Next::To(destination, Target::InternetGateway(gateway)) => {
                        self.path.push(Hop::Route {
                            table: there.route_table,
                            destination: Some(destination),
                        });
                        self.path.push(Hop::InternetGateway(gateway));
                    }
                    _ => self.block(Block::NatWithoutInternet {
                        nat: nat_id,
                        table: there.route_table,
                    }),
                }
                self.internet(to);
                self.acl(there, Direction::Ingress, to, Leg::Reply);
                self.acl(there, Direction::Egress, source, Leg::Reply);
                self.acl(subnet, Direction::Ingress, to, Leg::Reply);
                Some(Arrival::Internet {
                    seen_as: nat.elastic_ip,
                })
            }
        }
    }

    fn internet(&mut self, to: Ipv4Addr) {
        if !on_internet(to, self.services) {
            self.block(Block::NotOnInternet(to));
        }
    }

    fn begin_outside(&mut self, source: Ipv4Addr) -> Option<Arrival> {
        let to = self.flow.to;
        if let Some((nat, _)) = self.vpc.nat_gateways.iter().find(|(_, nat)| nat.elastic_ip == to) {
            self.block(Block::NatRefusesInbound(*nat));
            return None;
        }
        let Some((id, interface)) = self.vpc.interfaces.iter().find(|(_, one)| one.public == Some(to)) else {
            self.internet(to);
            self.block(Block::Unassigned(to));
            return None;
        };
        let (_, subnet) = self.subnet(interface)?;
        match self.vpc.internet_gateway {
            Some(gateway) => self.path.push(Hop::InternetGateway(gateway)),
            None => self.block(Block::NoInternetGateway),
        }
        self.acl(subnet, Direction::Ingress, source, Leg::Request);
        self.present(*id, interface);
        self.groups(*id, interface, Direction::Ingress, source);
        if self.flow.traffic.reply().is_some() {
            let (table, leg) = (subnet.route_table, Leg::Reply);
            match route(self.vpc, table, source) {
                Next::To(_, Target::InternetGateway(_)) => {}
                Next::To(destination, Target::Blackhole) => self.block(Block::Blackhole {
                    table,
                    destination,
                    leg,
                }),
                Next::To(destination, _) | Next::S3(destination, _) => {
                    self.block(Block::OtherRoute {
                        table,
                        destination,
                        leg,
                    });
                }
                Next::Nowhere => self.block(Block::NoRoute { table, leg }),
            }
        }
        self.acl(subnet, Direction::Egress, source, Leg::Reply);
        Some(Arrival::Interface(*id))
    }
}

fn entries(acl: &NetworkAcl, direction: Direction) -> &BTreeMap<u16, AclEntry> {
    if direction == Direction::Ingress {
        &acl.ingress
    } else {
        &acl.egress
    }
}

/// NET-17.
fn rule_admits(vpc: &CheckedVpc, rule: Peer, peer: Ipv4Addr) -> bool {
    match rule {
        Peer::Block(block) => block.contains(&peer),
        Peer::PrefixList(list) => vpc
            .prefix_lists
            .get(&list)
            .is_some_and(|all| all.iter().any(|one| one.contains(&peer))),
        Peer::Group(group) => {
            let mut carriers = vpc.interfaces.values().filter(|one| one.groups.contains(&group));
            carriers.any(|one| one.addresses().any(|address| address == peer))
        }
    }
}

/// Whether a flow that arrived under `before` goes on under `after` (NET-16): as a new one would, or because every interface
/// whose groups would refuse it now had tracked it, and one that had not still admits its answers.
pub fn goes_on(before: &CheckedVpc, after: &CheckedVpc, services: &[Ipv4Net], flow: &Flow) -> bool {
    let (by_nat, to) = match reach(before, services, flow) {
        Verdict::Reached { path, arrival } => {
            let by_nat = path.iter().any(|hop| matches!(hop, Hop::NatGateway(_)));
            (by_nat, arrival)
        }
        Verdict::Blocked { .. } => return false,
    };
    let answered = || {
        let keeps = |id, way, peer| keeps_answers(before, after, id, way, flow.traffic, peer);
        let peer = match flow.from {
            Origin::Interface { source, .. } => source,
            Origin::Internet(source) => source,
        };
        let began = match flow.from {
            Origin::Interface { id, .. } => by_nat || keeps(id, Direction::Egress, flow.to),
            Origin::Internet(_) => true,
        };
        began && !matches!(to, Arrival::Interface(id) if !keeps(id, Direction::Ingress, peer))
    };
    match reach(after, services, flow) {
        Verdict::Reached { .. } => true,
        Verdict::Blocked { by } => {
            let tracked = by.iter().all(|block| match block {
                Block::NoGroupRule {
                    interface, direction, ..
                } => by_nat || is_tracked(before, *interface, *direction, flow.traffic),
                _ => false,
            });
            tracked && answered()
        }
    }
}

/// Whether the rules of `after` admit the answers at an interface that did not track the flow; tracked ones need none.
fn keeps_answers(
    before: &CheckedVpc,
    after: &CheckedVpc,
    id: InterfaceId,
    direction: Direction,
    traffic: Traffic,
    peer: Ipv4Addr,
) -> bool {
    let Some(reply) = traffic.reply().filter(|_| !is_tracked(before, id, direction, traffic)) else {
        return true;
    };
    let Some(interface) = after.interfaces.get(&id) else {
        return false;
    };
    let mut groups = interface.groups.iter().filter_map(|group| after.groups.get(group));
    groups.any(|group| {
        let rules = match direction {
            Direction::Ingress => &group.egress,
            Direction::Egress => &group.ingress,
        };
        let mut rules = rules.iter().filter(|rule| reply.matches(&rule.traffic));
        rules.any(|rule| rule_admits(after, rule.peer, peer))
    })
}

/// "If a security group rule permits TCP or UDP flows for all traffic (0.0.0.0/0) and there is a corresponding rule in the
/// other direction that permits all response traffic (0.0.0.0/0) for any port (0-65535)", EC2 does not track the flow.
fn is_tracked(vpc: &CheckedVpc, id: InterfaceId, direction: Direction, traffic: Traffic) -> bool {
    let Some(interface) = vpc.interfaces.get(&id) else {
        return true;
    };
    let any_port = |rule: &Match| match (rule, traffic) {
        (Match::All, _) => true,
        (Match::Tcp { ports }, Traffic::Tcp { .. }) | (Match::Udp { ports }, Traffic::Udp { .. }) => {
            ports.range() == (0..=u16::MAX)
        }
        _ => false,
    };
    let everyone = |peer: Peer| peer == Peer::Block(Ipv4Net::default());
    let groups = || interface.groups.iter().filter_map(|group| vpc.groups.get(group));
    let both = |direction| {
        let chosen = move |group: &'_ crate::intent::vpc::SecurityGroup| match direction {
            Direction::Ingress => group.ingress.clone(),
            Direction::Egress => group.egress.clone(),
        };
        groups().flat_map(chosen).filter(|rule| everyone(rule.peer))
    };
    let opposite = match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    };
    let icmp = matches!(traffic, Traffic::Icmp { .. });
    icmp || !both(direction).any(|rule| traffic.matches(&rule.traffic))
        || !both(opposite).any(|rule| any_port(&rule.traffic))
}

#[cfg(test)]
mod tests;
