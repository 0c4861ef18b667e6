//! Records of a VPC as the network's intent. Total: records that contradict each other give an intent that allows less,
//! or one that [`Vpc::check`] refuses, and never a panic.

use super::ServiceRanges;
use isolarium_model::ec2::group::{Direction, Peer as RecordPeer};
use isolarium_model::ec2::route_table::RouteTarget;
use isolarium_model::ec2::vpc::Vpc as VpcRecord;
use isolarium_model::ec2::{
    DhcpOptions, EndpointKind, Holder, NatState, Parts, RouteState, SecurityGroup as GroupRecord,
};
use isolarium_netplan::id::{GroupId, InterfaceId, NatGatewayId, PrefixListId};
use isolarium_netplan::intent::vpc::{
    Dns, GroupRule, Interface, InterfaceEndpoint, NatGateway, NetworkAcl, Peer, RouteTable, S3Endpoint, SecurityGroup,
    Subnet, Target, Vpc,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What the owner of a VPC asks of the network.
pub fn intent(parts: &Parts, dhcp: Option<&DhcpOptions>, ranges: &ServiceRanges) -> Vpc {
    let interfaces = interfaces(parts);
    let nat_gateways: BTreeMap<NatGatewayId, NatGateway> = parts
        .nat_gateways
        .iter()
        .filter(|(id, nat)| is_wanted(nat.state) && holds(&interfaces, nat.interface, **id))
        .map(|(id, nat)| {
            let wanted = NatGateway {
                interface: nat.interface,
                elastic_ip: nat.public_address,
            };
            (*id, wanted)
        })
        .collect();
    let interface_endpoints = interface_endpoints(parts);
    // The interface of a gateway or endpoint that is going has nothing behind it, and serves nobody.
    let interfaces = interfaces
        .into_iter()
        .filter(|(_, one)| match one.holder {
            Holder::Nat(nat) => nat_gateways.contains_key(&nat),
            Holder::Endpoint(endpoint) => interface_endpoints.contains_key(&endpoint),
            _ => true,
        })
        .collect();
    Vpc {
        id: parts.vpc.id,
        blocks: parts.vpc.blocks.iter().map(|block| block.block).collect(),
        dns: dns(&parts.vpc, dhcp),
        subnets: subnets(parts),
        acls: parts
            .acls
            .iter()
            .map(|(id, acl)| {
                let acl = NetworkAcl {
                    ingress: acl.ingress.clone(),
                    egress: acl.egress.clone(),
                };
                (*id, acl)
            })
            .collect(),
        groups: parts
            .groups
            .iter()
            .map(|(id, group)| (*id, security_group(group, parts, ranges)))
            .collect(),
        prefix_lists: prefix_lists(parts, ranges),
        route_tables: route_tables(parts, &interfaces, &nat_gateways),
        internet_gateway: parts.internet_gateway.as_ref().map(|gateway| gateway.id),
        nat_gateways,
        s3_endpoints: s3_endpoints(parts, ranges),
        interface_endpoints,
        peers_only: false,
        interfaces,
    }
}

/// Whether the kernel is to have a NAT gateway in this state.
pub(super) fn is_wanted(state: NatState) -> bool {
    matches!(state, NatState::Pending | NatState::Available)
}

fn holds(interfaces: &BTreeMap<InterfaceId, Interface>, interface: InterfaceId, nat: NatGatewayId) -> bool {
    interfaces
        .get(&interface)
        .is_some_and(|one| one.holder == Holder::Nat(nat))
}

/// NET-53: servers of the owner's replace the VPC's, which `AmazonProvidedDNS` beside them names.
fn dns(vpc: &VpcRecord, dhcp: Option<&DhcpOptions>) -> Dns {
    Dns {
        support: vpc.dns_support,
        hostnames: vpc.dns_hostnames,
        domain_name: dhcp.and_then(DhcpOptions::domain_name).map(str::to_owned),
        servers: dhcp.map(DhcpOptions::servers).unwrap_or_default(),
    }
}

/// A subnet without a table or an ACL has no place in the network: nothing is let in or out of it.
fn subnets(parts: &Parts) -> BTreeMap<isolarium_netplan::id::SubnetId, Subnet> {
    let whole = parts.subnets.iter().filter_map(|(id, subnet)| {
        let wanted = Subnet {
            block: subnet.block,
            zone: subnet.zone.name.clone(),
            route_table: parts.table_of(*id)?.id,
            acl: parts.acl_of(*id)?.id,
        };
        Some((*id, wanted))
    });
    whole.collect()
}

/// Rules about what is not there admit nobody.
fn security_group(group: &GroupRecord, parts: &Parts, ranges: &ServiceRanges) -> SecurityGroup {
    let mut wanted = SecurityGroup::default();
    for rule in group.rules.values() {
        let peer = match rule.peer {
            RecordPeer::Block(block) => Some(Peer::Block(block.trunc())),
            RecordPeer::Group(id) => parts.groups.contains_key(&id).then_some(Peer::Group(id)),
            RecordPeer::PrefixList(id) => ranges.prefix_lists.contains_key(&id).then_some(Peer::PrefixList(id)),
        };
        let Some(peer) = peer else { continue };
        let rules = match rule.direction {
            Direction::Ingress => &mut wanted.ingress,
            Direction::Egress => &mut wanted.egress,
        };
        rules.insert(GroupRule {
            traffic: rule.traffic.clone(),
            peer,
        });
    }
    wanted
}

/// The lists that groups or endpoints of the VPC name.
fn prefix_lists(parts: &Parts, ranges: &ServiceRanges) -> BTreeMap<PrefixListId, BTreeSet<ipnet::Ipv4Net>> {
    let rules = parts.groups.values().flat_map(|group| group.rules.values());
    let by_rules = rules.filter_map(|rule| match rule.peer {
        RecordPeer::PrefixList(id) => Some(id),
        RecordPeer::Block(_) | RecordPeer::Group(_) => None,
    });
    let by_endpoints = parts.endpoints.values().filter_map(|endpoint| match &endpoint.kind {
        EndpointKind::Gateway { prefix_list, .. } => Some(*prefix_list),
        EndpointKind::Interface { .. } => None,
    });
    let named: BTreeSet<PrefixListId> = by_rules.chain(by_endpoints).collect();
    let known = named
        .into_iter()
        .filter_map(|id| Some((id, ranges.prefix_lists.get(&id)?.clone())));
    known.collect()
}

fn route_tables(
    parts: &Parts,
    interfaces: &BTreeMap<InterfaceId, Interface>,
    nats: &BTreeMap<NatGatewayId, NatGateway>,
) -> BTreeMap<isolarium_netplan::id::RouteTableId, RouteTable> {
    let target = |target: RouteTarget| match (parts.route_state(target), target) {
        (RouteState::Active, RouteTarget::InternetGateway(id)) => Target::InternetGateway(id),
        (RouteState::Active, RouteTarget::NatGateway(id)) if nats.contains_key(&id) => Target::NatGateway(id),
        (RouteState::Active, RouteTarget::Interface(id)) if interfaces.contains_key(&id) => Target::Interface(id),
        _ => Target::Blackhole,
    };
    let tables = parts.route_tables.iter().map(|(id, table)| {
        let routes = table.routes.iter().map(|(to, through)| (*to, target(*through)));
        let table = RouteTable {
            routes: routes.collect(),
        };
        (*id, table)
    });
    tables.collect()
}

/// Interfaces whose subnet is there; the ones that the platform holds for others have a public address by their gateway.
fn interfaces(parts: &Parts) -> BTreeMap<InterfaceId, Interface> {
    let placed = parts.interfaces.iter().filter(|(_, one)| {
        let subnet = parts.subnets.get(&one.subnet);
        subnet.is_some() && parts.table_of(one.subnet).is_some() && parts.acl_of(one.subnet).is_some()
    });
    let wanted = placed.map(|(id, one)| {
        let groups: BTreeSet<GroupId> = one
            .groups
            .iter()
            .copied()
            .filter(|group| parts.groups.contains_key(group))
            .collect();
        let public = match one.holder {
            Holder::Nobody | Holder::Program => public_address(parts, *id, one.primary),
            Holder::Container(_) | Holder::Isolated(_) | Holder::Transfer(_) | Holder::Nat(_) | Holder::Endpoint(_) => {
                None
            }
        };
        let interface = Interface {
            subnet: one.subnet,
            primary: one.primary,
            secondary: one.secondary.clone(),
            groups,
            source_dest_check: one.source_dest_check,
            public,
            holder: one.holder.clone(),
        };
        (*id, interface)
    });
    wanted.collect()
}

fn public_address(parts: &Parts, interface: InterfaceId, primary: Ipv4Addr) -> Option<Ipv4Addr> {
    let own = parts.elastic_ips.get(&interface)?;
    let own = own.iter().find(|ip| {
        ip.association
            .is_some_and(|association| association.private_address == primary)
    });
    own.map(|ip| ip.address)
}

fn s3_endpoints(parts: &Parts, ranges: &ServiceRanges) -> BTreeMap<isolarium_netplan::id::EndpointId, S3Endpoint> {
    let mut taken = BTreeSet::new();
    let gateways = parts.endpoints.iter().filter(|(_, one)| one.is_wanted());
    let wanted = gateways.filter_map(|(id, endpoint)| match &endpoint.kind {
        EndpointKind::Gateway {
            prefix_list,
            route_tables,
        } if ranges.prefix_lists.contains_key(prefix_list) => {
            let tables = route_tables.iter().copied();
            let tables = tables.filter(|table| parts.route_tables.contains_key(table) && taken.insert(*table));
            let endpoint = S3Endpoint {
                prefix_list: *prefix_list,
                route_tables: tables.collect(),
            };
            Some((*id, endpoint))
        }
        EndpointKind::Gateway { .. } | EndpointKind::Interface { .. } => None,
    });
    wanted.collect()
}

/// Those that serve or are to (NET-41).
fn interface_endpoints(parts: &Parts) -> BTreeMap<isolarium_netplan::id::EndpointId, InterfaceEndpoint> {
    let wanted = parts.endpoints.iter().filter(|(_, one)| one.is_wanted());
    let wanted = wanted.filter_map(|(id, endpoint)| match &endpoint.kind {
        EndpointKind::Gateway { .. } => None,
        EndpointKind::Interface {
            service,
            private_dns,
            only_inbound,
            suffix,
            ..
        } => {
            let endpoint = InterfaceEndpoint {
                service: *service,
                private_dns: *private_dns && !*only_inbound,
                suffix: suffix.clone(),
            };
            Some((*id, endpoint))
        }
    });
    wanted.collect()
}
