//! A VPC as its owner described it: EC2's nouns as values.

use super::Transport;
use crate::id::{
    AclId, EndpointId, GroupId, InterfaceId, InternetGatewayId, NatGatewayId, PrefixListId, RouteTableId, SubnetId,
    VpcId,
};
use crate::plan::LinkName;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Deref;

pub use isolarium_model::ec2::EndpointService;
pub use isolarium_model::ec2::address::{LINK_LOCAL_SERVICES, assignable};
pub use isolarium_model::ec2::interface::Holder;
pub use isolarium_model::ec2::traffic::{AclEntry, BadRange, Match, RangeInclusive16};

/// One VPC with everything in it. [`Vpc::check`] turns it into what is compiled and asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    pub id: VpcId,
    /// IPv4 blocks, the first one the primary (NET-1).
    pub blocks: Vec<Ipv4Net>,
    pub dns: Dns,
    pub subnets: BTreeMap<SubnetId, Subnet>,
    pub acls: BTreeMap<AclId, NetworkAcl>,
    pub groups: BTreeMap<GroupId, SecurityGroup>,
    pub prefix_lists: BTreeMap<PrefixListId, BTreeSet<Ipv4Net>>,
    pub route_tables: BTreeMap<RouteTableId, RouteTable>,
    /// At most one is attached (NET-28).
    pub internet_gateway: Option<InternetGatewayId>,
    pub nat_gateways: BTreeMap<NatGatewayId, NatGateway>,
    pub interfaces: BTreeMap<InterfaceId, Interface>,
    pub s3_endpoints: BTreeMap<EndpointId, S3Endpoint>,
    /// Interface endpoints that serve; their addresses are those of the interfaces that they hold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub interface_endpoints: BTreeMap<EndpointId, InterfaceEndpoint>,
    /// A network of a job's own containers (NI-9): they reach each other as groups and ACLs allow, and nothing else. There is
    /// no way out, no service of the platform and no default route.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub peers_only: bool,
}

/// A socket of the engine inside a VPC's router. The peer address of what arrives there is the private address of the
/// interface that sent it: the router drops every other source (NET-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "door", rename_all = "snake_case", deny_unknown_fields)]
pub enum Door {
    /// The resolver, port 53 of the VPC's base + 2 or of 169.254.169.253 (NET-50). Refused while the VPC's DNS support is
    /// off: the address is not served then.
    Resolver {
        /// Which of the two.
        address: Ipv4Addr,
        transport: Transport,
    },
    /// S3 gateway endpoints, on every address of the prefix lists that the VPC's endpoints name; port 80 or 443. The
    /// accepted socket's own address is the destination that the container chose (NET-34).
    S3 {
        /// 80 or 443.
        port: u16,
    },
    /// Container credentials, 169.254.170.2 port 80.
    Credentials,
    /// An interface endpoint: port 443 of one of its interfaces' addresses (NET-41).
    Endpoint {
        /// The interface's.
        address: Ipv4Addr,
    },
}

/// DNS attributes and DHCP options (NET-5, NET-50, NET-53).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// `enableDnsSupport`: the resolver answers.
    pub support: bool,
    /// `enableDnsHostnames`.
    pub hostnames: bool,
    /// `domain-name`.
    pub domain_name: Option<String>,
    /// `domain-name-servers`; empty is `AmazonProvidedDNS`.
    pub servers: Vec<Ipv4Addr>,
}

/// A subnet (NET-2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub block: Ipv4Net,
    pub zone: String,
    /// The associated table, or the main one (NET-24).
    pub route_table: RouteTableId,
    pub acl: AclId,
}

/// Ordered entries, first match wins, final deny (NET-22).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAcl {
    #[serde(with = "numbered")]
    pub ingress: BTreeMap<u16, AclEntry>,
    #[serde(with = "numbered")]
    pub egress: BTreeMap<u16, AclEntry>,
}

/// Entries as a list of pairs: a number is no key of a JSON object inside a tagged message.
mod numbered {
    use super::AclEntry;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<S: Serializer>(entries: &BTreeMap<u16, AclEntry>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(entries)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<u16, AclEntry>, D::Error> {
        let entries = Vec::<(u16, AclEntry)>::deserialize(from)?;
        let count = entries.len();
        let all: BTreeMap<u16, AclEntry> = entries.into_iter().collect();
        if all.len() == count {
            Ok(all)
        } else {
            Err(D::Error::custom("two entries have one number"))
        }
    }
}

/// Only allow rules (NET-15). Duplicates mean nothing, so rules are a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub ingress: BTreeSet<GroupRule>,
    pub egress: BTreeSet<GroupRule>,
}

/// One allow rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupRule {
    pub traffic: Match,
    pub peer: Peer,
}

/// Whom a group rule admits (NET-17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    Block(Ipv4Net),
    /// The private addresses of interfaces that carry the group.
    Group(GroupId),
    PrefixList(PrefixListId),
}

/// Routes besides the local ones, which every table has and which cannot be removed (NET-24), and besides those of
/// gateway endpoints, which follow from the association.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub routes: BTreeMap<Ipv4Net, Target>,
}

/// Where a route leads (NET-26). A target that is gone makes the route [`Target::Blackhole`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    InternetGateway(InternetGatewayId),
    NatGateway(NatGatewayId),
    Interface(InterfaceId),
    Blackhole,
}

/// A public NAT gateway in state `available` (NET-29). Its subnet is that of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatGateway {
    /// Held by [`Holder::Nat`].
    pub interface: InterfaceId,
    pub elastic_ip: Ipv4Addr,
}

impl NatGateway {
    /// Source ports that a NAT gateway uses.
    pub const PORTS: (u16, u16) = (1024, 65535);
}

/// A network interface (NET-10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub subnet: SubnetId,
    pub primary: Ipv4Addr,
    /// Other private addresses, each with a public one if it has one.
    pub secondary: BTreeSet<Ipv4Addr>,
    /// 1 to 5 groups; none for [`Holder::Nat`] only.
    pub groups: BTreeSet<GroupId>,
    /// `sourceDestCheck` (NET-13).
    pub source_dest_check: bool,
    /// Public address of the primary one.
    pub public: Option<Ipv4Addr>,
    pub holder: Holder,
}

impl Interface {
    /// All private addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        std::iter::once(self.primary).chain(self.secondary.iter().copied())
    }

    /// Whether a namespace of its own holds the interface.
    pub fn is_attached(&self) -> bool {
        matches!(
            self.holder,
            Holder::Container(_) | Holder::Transfer(_) | Holder::Program
        )
    }
}

/// A gateway endpoint for S3 (NET-32).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Endpoint {
    pub prefix_list: PrefixListId,
    /// A table has one S3 endpoint at most.
    pub route_tables: BTreeSet<RouteTableId>,
}

/// An interface endpoint (NET-40..47), as far as names and certificates need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceEndpoint {
    /// What it leads to.
    pub service: EndpointService,
    /// Whether the service's default names lead to it, where the VPC has both DNS attributes (NET-44).
    pub private_dns: bool,
    /// The eight characters in its own names (NET-42).
    pub suffix: String,
}

/// A VPC whose parts fit together. [`Vpc::check`] is the only source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedVpc(Vpc);

impl Deref for CheckedVpc {
    type Target = Vpc;
    fn deref(&self) -> &Vpc {
        &self.0
    }
}

/// The parts of a VPC contradict each other. The API refuses such requests before this is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadVpc {
    /// A part names another that is not there.
    #[error("{0} names {1}, which is not in the VPC")]
    Dangling(String, String),
    /// A block has host bits, the wrong size, or lies where it must not.
    #[error("the block {0} does not fit")]
    Block(Ipv4Net),
    /// Two things claim one address.
    #[error("the address {0} is taken twice, reserved or outside its subnet")]
    Address(Ipv4Addr),
    /// A route leads into the VPC or to reserved addresses (NET-27).
    #[error("the route to {0} cannot be made")]
    Route(Ipv4Net),
    /// Groups or the source/destination check do not fit the interface's holder, or its id looks like another's.
    #[error("{0} does not fit its holder")]
    Interface(InterfaceId),
    /// A network of peers has a way out, an endpoint, a resolver, or an interface that is no container's.
    #[error("{0} is a network of peers and leads elsewhere")]
    Leads(VpcId),
    /// Two S3 endpoints share a route table.
    #[error("{0} has two S3 endpoints")]
    Endpoints(RouteTableId),
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

impl Vpc {
    /// Whether an address belongs to one of the blocks.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.blocks.iter().any(|block| block.contains(&address))
    }

    /// Public addresses that lead here: of interfaces and of NAT gateways.
    pub fn public_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let interfaces = self.interfaces.values().filter_map(|interface| interface.public);
        interfaces.chain(self.nat_gateways.values().map(|nat| nat.elastic_ip))
    }

    /// The resolver: base + 2 of the primary block (NET-50).
    pub fn resolver(&self) -> Option<Ipv4Addr> {
        self.blocks.first().map(|block| nth(*block, 2))
    }

    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// The first contradiction, in a fixed order.
    pub fn check(self) -> Result<CheckedVpc, BadVpc> {
        self.check_blocks()?;
        self.check_references()?;
        self.check_routes()?;
        self.check_interfaces()?;
        self.check_peers()?;
        Ok(CheckedVpc(self))
    }

    fn check_peers(&self) -> Result<(), BadVpc> {
        let containers = self
            .interfaces
            .values()
            .all(|one| matches!(one.holder, Holder::Container(_)) && one.secondary.is_empty());
        let closed = self.internet_gateway.is_none()
            && self.nat_gateways.is_empty()
            && self.s3_endpoints.is_empty()
            && self.interface_endpoints.is_empty()
            && self.route_tables.values().all(|table| table.routes.is_empty())
            && !self.dns.support;
        if self.peers_only && !(containers && closed) {
            return Err(BadVpc::Leads(self.id));
        }
        Ok(())
    }

    fn check_blocks(&self) -> Result<(), BadVpc> {
        if self.blocks.is_empty() {
            return Err(BadVpc::Block(Ipv4Net::default()));
        }
        let fits = |block: &Ipv4Net| block.trunc() == *block && (16..=28).contains(&block.prefix_len());
        for (at, block) in self.blocks.iter().enumerate() {
            let taken = self.blocks.iter().skip(at + 1).any(|other| overlap(block, other));
            if !fits(block) || taken || overlap(block, &LINK_LOCAL_SERVICES) {
                return Err(BadVpc::Block(*block));
            }
        }
        let subnets: Vec<Ipv4Net> = self.subnets.values().map(|subnet| subnet.block).collect();
        for (at, block) in subnets.iter().enumerate() {
            let inside = self.blocks.iter().any(|outer| outer.contains(block));
            if !fits(block) || !inside || subnets.iter().skip(at + 1).any(|other| overlap(block, other)) {
                return Err(BadVpc::Block(*block));
            }
        }
        let acl_peers = self
            .acls
            .values()
            .flat_map(|acl| acl.ingress.values().chain(acl.egress.values()));
        let rules = self
            .groups
            .values()
            .flat_map(|group| group.ingress.iter().chain(&group.egress));
        let rule_peers = rules.filter_map(|rule| match rule.peer {
            Peer::Block(block) => Some(block),
            Peer::Group(_) | Peer::PrefixList(_) => None,
        });
        let listed = self.prefix_lists.values().flatten().copied();
        let mut all = acl_peers.map(|entry| entry.peer).chain(rule_peers).chain(listed);
        all.find(|block| block.trunc() != *block)
            .map_or(Ok(()), |block| Err(BadVpc::Block(block)))
    }

    fn check_references(&self) -> Result<(), BadVpc> {
        let dangling = |from: &dyn ToString, to: &dyn ToString| Err(BadVpc::Dangling(from.to_string(), to.to_string()));
        for (id, subnet) in &self.subnets {
            if !self.route_tables.contains_key(&subnet.route_table) {
                return dangling(id, &subnet.route_table);
            }
            if !self.acls.contains_key(&subnet.acl) {
                return dangling(id, &subnet.acl);
            }
        }
        for (id, group) in &self.groups {
            for rule in group.ingress.iter().chain(&group.egress) {
                match rule.peer {
                    Peer::Group(peer) if !self.groups.contains_key(&peer) => return dangling(id, &peer),
                    Peer::PrefixList(list) if !self.prefix_lists.contains_key(&list) => return dangling(id, &list),
                    _ => {}
                }
            }
        }
        for (id, nat) in &self.nat_gateways {
            let held = self.interfaces.get(&nat.interface).map(|interface| &interface.holder);
            if held != Some(&Holder::Nat(*id)) {
                return dangling(id, &nat.interface);
            }
        }
        let mut taken = BTreeSet::new();
        for (id, endpoint) in &self.s3_endpoints {
            if !self.prefix_lists.contains_key(&endpoint.prefix_list) {
                return dangling(id, &endpoint.prefix_list);
            }
            for table in &endpoint.route_tables {
                if !self.route_tables.contains_key(table) {
                    return dangling(id, table);
                }
                if !taken.insert(*table) {
                    return Err(BadVpc::Endpoints(*table));
                }
            }
        }
        Ok(())
    }

    fn check_routes(&self) -> Result<(), BadVpc> {
        for (id, table) in &self.route_tables {
            for (destination, target) in &table.routes {
                let inside = self.blocks.iter().any(|block| block.contains(destination));
                if destination.trunc() != *destination || inside || LINK_LOCAL_SERVICES.contains(destination) {
                    return Err(BadVpc::Route(*destination));
                }
                let there = match target {
                    Target::InternetGateway(gateway) => self.internet_gateway.as_ref() == Some(gateway),
                    Target::NatGateway(nat) => self.nat_gateways.contains_key(nat),
                    Target::Interface(interface) => self.interfaces.contains_key(interface),
                    Target::Blackhole => true,
                };
                if !there {
                    return Err(BadVpc::Dangling(id.to_string(), format!("{target:?}")));
                }
            }
        }
        Ok(())
    }

    fn check_interfaces(&self) -> Result<(), BadVpc> {
        let mut private = BTreeSet::new();
        let mut public = BTreeSet::new();
        for nat in self.nat_gateways.values() {
            if !public.insert(nat.elastic_ip) {
                return Err(BadVpc::Address(nat.elastic_ip));
            }
        }
        let mut links = BTreeSet::new();
        for (id, interface) in &self.interfaces {
            if !links.insert(LinkName::of_interface(*id)) {
                return Err(BadVpc::Interface(*id));
            }
            let subnet = self.subnets.get(&interface.subnet);
            let Some(subnet) = subnet else {
                return Err(BadVpc::Dangling(id.to_string(), interface.subnet.to_string()));
            };
            for address in interface.addresses() {
                if !assignable(subnet.block, address) || !private.insert(address) {
                    return Err(BadVpc::Address(address));
                }
            }
            if let Some(address) = interface.public
                && (self.contains(address) || !public.insert(address))
            {
                return Err(BadVpc::Address(address));
            }
            if let Some(group) = interface.groups.iter().find(|group| !self.groups.contains_key(group)) {
                return Err(BadVpc::Dangling(id.to_string(), group.to_string()));
            }
            let fits = match &interface.holder {
                Holder::Nat(nat) => {
                    interface.groups.is_empty()
                        && interface.public.is_none()
                        && self.nat_gateways.get(nat).is_some_and(|nat| nat.interface == *id)
                }
                Holder::Container(_) | Holder::Isolated(_) | Holder::Transfer(_) => {
                    // D-15, NET-13: job interfaces have no public address and keep the check on.
                    interface.public.is_none() && interface.source_dest_check && !interface.groups.is_empty()
                }
                Holder::Endpoint(_) => interface.public.is_none() && !interface.groups.is_empty(),
                Holder::Nobody | Holder::Program => !interface.groups.is_empty(),
            };
            if !fits || interface.groups.len() > 5 {
                return Err(BadVpc::Interface(*id));
            }
        }
        Ok(())
    }
}

pub(crate) fn nth(block: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(block.network()).saturating_add(n))
}
