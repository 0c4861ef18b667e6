//! A VPC's router namespace, and the namespaces of its interfaces.
//!
//! Routing answers where a packet would go, the ruleset whether it may; neither trusts the other.

mod exits;
mod ranges;
mod ruleset;

use super::{empty, sysctls};
use crate::id::{InterfaceId, RouteTableId};
use crate::intent::vpc::{CheckedVpc, Holder, Interface, LINK_LOCAL_SERVICES, Target, Vpc, nth};
use crate::plan::{
    End, HostPlan, Link, LinkKind, LinkName, Mac, NamespacePlan, Neighbour, Place, PolicyRule, Route, RouteKind, Scope,
    WorkloadPlan,
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The resolver's other address (NET-50).
pub const LINK_LOCAL_RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);

pub use ruleset::{RECORDED, REFUSALS};

/// Name of the nftables table in a VPC's router.
pub const TABLE: &str = "vpc";

/// Where a VPC's router meets "the internet".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The namespace of the far end.
    pub place: Place,
    /// The router's end; a /32, no route leads to it.
    pub near: Ipv4Addr,
    /// The far end.
    pub far: Ipv4Addr,
    /// Ranges at which the far end serves public names. They count as internet although they are not public addresses.
    pub services: Vec<Ipv4Net>,
    /// Seconds after its last packet at which a NAT gateway drops a TCP connection (NET-29).
    pub nat_idle: u32,
}

/// Compiles a VPC: its router, and the far end of its edge. Interfaces' links are not part of it
/// ([`compile_interface`]); everything that decides about their packets is, so it stands before the link does.
pub fn compile_vpc(vpc: &CheckedVpc, edge: Option<&Edge>) -> HostPlan {
    let here = Place::Vpc(vpc.id);
    let edge = edge.filter(|_| !vpc.peers_only);
    let mut plan = empty(Scope::Whole { attachments: true });
    plan.sysctls = sysctls([
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
        // Forged sources are the ruleset's business: interfaces without source/destination check may send any (NET-13).
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        // Nearly every packet is passed on: looking for a socket first is lost time.
        ("net/ipv4/ip_early_demux", "0"),
        ("net/ipv4/ip_forward", "1"),
        // Before any link exists (NET-4).
        ("net/ipv6/conf/all/disable_ipv6", "1"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
        ("net/netfilter/nf_conntrack_acct", "1"),
        // Else flows that began before somebody listens end unheard.
        ("net/netfilter/nf_conntrack_events", "1"),
        ("net/netfilter/nf_conntrack_tcp_loose", "0"),
        ("net/netfilter/nf_conntrack_timestamp", "1"),
        // A namespace inherits these of the host; see also `LinkSeen::strict`.
        ("net/ipv4/conf/all/accept_source_route", "0"),
        ("net/ipv4/conf/all/proxy_arp", "0"),
        ("net/ipv4/conf/all/route_localnet", "0"),
        ("net/ipv4/conf/default/accept_source_route", "0"),
        ("net/ipv4/conf/default/proxy_arp", "0"),
        ("net/ipv4/conf/default/route_localnet", "0"),
    ]);
    let lo = Link {
        kind: LinkKind::Loopback,
        mac: None,
        addresses: served_addresses(vpc),
        sysctls: BTreeMap::new(),
    };
    plan.links.insert(LinkName::lo(), lo);
    routes(vpc, edge, &mut plan);
    plan.tables.insert(TABLE.into(), ruleset::table(vpc, edge));
    let mut places = BTreeMap::new();
    if let Some(edge) = edge {
        let far = LinkName::of_vpc(vpc.id);
        let up = LinkName::uplink();
        plan.links.insert(
            up.clone(),
            veth(edge.place, &far, Mac::of(edge.near, End::Near), [edge.near].into()),
        );
        plan.neighbours.insert(Neighbour {
            link: up.clone(),
            address: edge.far,
            mac: Mac::of(edge.far, End::Far),
        });
        places.insert(edge.place, far_side(vpc, edge, here, &far, &up));
    }
    places.insert(here, plan);
    HostPlan { places }
}

/// Compiles an interface's own namespace and its link in the router. `None` when no namespace holds it.
pub fn compile_interface(vpc: &CheckedVpc, id: InterfaceId) -> Option<WorkloadPlan> {
    let interface = vpc.interfaces.get(&id).filter(|interface| interface.is_attached())?;
    let gateway = nth(vpc.subnets.get(&interface.subnet)?.block, 1);
    let (eth0, beside) = (LinkName::eth0(), LinkName::of_interface(id));
    let (own_mac, router_mac) = (
        Mac::of(interface.primary, End::Far),
        Mac::of(interface.primary, End::Near),
    );
    let (here, inside_place) = (Place::Vpc(vpc.id), Place::Interface(id));

    let mut inside = super::workload::nothing();
    inside.sysctls.extend(sysctls([
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
    ]));
    inside.links.insert(
        eth0.clone(),
        veth(here, &beside, own_mac, interface.addresses().collect()),
    );
    inside.neighbours.insert(Neighbour {
        link: eth0.clone(),
        address: gateway,
        mac: router_mac,
    });
    let way = |to: Ipv4Net| Route {
        source: Some(interface.primary),
        ..route(RouteKind::Unicast, to, Route::MAIN, Some(eth0.clone()), Some(gateway))
    };
    if vpc.peers_only {
        let peers = vpc.interfaces.iter().filter(|(other, _)| **other != id);
        inside.routes.extend(peers.map(|(_, peer)| way(peer.primary.into())));
        // Programs measure their peers by ping, without a capability (NI-9).
        inside
            .sysctls
            .extend(sysctls([("net/ipv4/ping_group_range", "0\t2147483647")]));
    } else {
        inside.routes.insert(way(Ipv4Net::default()));
    }

    let mut router = empty(Scope::Named);
    router
        .links
        .insert(beside.clone(), veth(inside_place, &eth0, router_mac, BTreeSet::new()));
    for address in interface.addresses() {
        router.neighbours.insert(Neighbour {
            link: beside.clone(),
            address,
            mac: own_mac,
        });
        router.routes.insert(route(
            RouteKind::Unicast,
            address.into(),
            Route::MAIN,
            Some(beside.clone()),
            None,
        ));
    }
    for (table, number) in table_numbers(vpc) {
        for block in exits::to_interface(vpc, table, id) {
            let (link, via) = (Some(beside.clone()), Some(interface.primary));
            router
                .routes
                .insert(route(RouteKind::Unicast, block, number | TO_INTERFACES, link, via));
        }
    }
    Some(WorkloadPlan {
        places: BTreeMap::from([(here, router), (inside_place, inside)]),
    })
}

/// Addresses at which the engine serves the VPC: credentials, the resolver if it is on, interface endpoints.
fn served_addresses(vpc: &Vpc) -> BTreeSet<Ipv4Addr> {
    let endpoints = vpc
        .interfaces
        .values()
        .filter(|interface| matches!(interface.holder, Holder::Endpoint(_)));
    let mut all: BTreeSet<Ipv4Addr> = endpoints.flat_map(Interface::addresses).collect();
    if !vpc.peers_only {
        all.insert(super::CREDENTIALS);
    }
    all.extend(resolvers(vpc));
    all
}

/// Addresses of the VPC's resolver; none while `enableDnsSupport` is false (NET-50).
pub(super) fn resolvers(vpc: &Vpc) -> BTreeSet<Ipv4Addr> {
    let all = [vpc.resolver(), Some(LINK_LOCAL_RESOLVER)];
    all.into_iter().flatten().filter(|_| vpc.dns.support).collect()
}

fn veth(peer_place: Place, peer: &LinkName, mac: Mac, addresses: BTreeSet<Ipv4Addr>) -> Link {
    Link {
        kind: LinkKind::Veth {
            peer_place,
            peer: peer.clone(),
        },
        mac: Some(mac),
        addresses,
        sysctls: BTreeMap::new(),
    }
}

fn route(kind: RouteKind, destination: Ipv4Net, table: u32, link: Option<LinkName>, via: Option<Ipv4Addr>) -> Route {
    Route {
        kind,
        destination,
        table,
        link,
        via,
        source: None,
    }
}

/// The far end of the edge: public addresses lead back to the router.
fn far_side(vpc: &Vpc, edge: &Edge, here: Place, far: &LinkName, up: &LinkName) -> NamespacePlan {
    let mut plan = empty(Scope::Named);
    plan.links.insert(
        far.clone(),
        veth(here, up, Mac::of(edge.far, End::Far), [edge.far].into()),
    );
    plan.neighbours.insert(Neighbour {
        link: far.clone(),
        address: edge.near,
        mac: Mac::of(edge.near, End::Near),
    });
    let back = |address: Ipv4Addr| {
        route(
            RouteKind::Unicast,
            address.into(),
            Route::MAIN,
            Some(far.clone()),
            Some(edge.near),
        )
    };
    plan.routes.extend(vpc.public_addresses().map(back));
    plan
}

/// Priority of the look-up of the VPC's own addresses, before every subnet's table.
const LOCAL_PRIORITY: u32 = 100;
/// The part of a subnet's table that leads to interfaces, without overlap, so that it can be asked first.
const INTERFACE_PRIORITY: u32 = 150;
const SUBNET_PRIORITY: u32 = 200;
/// What the number of that part has besides the number of the table.
const TO_INTERFACES: u32 = 0x8000_0000;
/// Behind every subnet's table, before the kernel's own last rules.
const LAST_PRIORITY: u32 = 30000;
/// Table of one route: nothing is reachable.
const NOWHERE: u32 = 999;

/// Numbers of the kernel's tables: they follow from the ids, so that a new table leaves the others alone.
fn table_numbers(vpc: &Vpc) -> BTreeMap<RouteTableId, u32> {
    let mut taken = BTreeSet::new();
    let mut number = |id: RouteTableId| {
        let mut number = u32::try_from(id.number() & 0x3fff_ffff).unwrap_or_default() | 0x4000_0000;
        while !taken.insert(number) {
            number = (number + 1) | 0x4000_0000;
        }
        (id, number)
    };
    vpc.route_tables.keys().map(|id| number(*id)).collect()
}

fn routes(vpc: &Vpc, edge: Option<&Edge>, plan: &mut NamespacePlan) {
    // INVARIANT (unassigned-goes-nowhere): an address of the VPC that no interface holds reaches no table of a subnet.
    let unassigned = |block: &Ipv4Net| route(RouteKind::Unreachable, *block, Route::MAIN, None, None);
    plan.routes.extend(vpc.blocks.iter().map(unassigned));
    plan.routes
        .insert(route(RouteKind::Unreachable, Ipv4Net::default(), NOWHERE, None, None));
    // Nor do the platform's link-local addresses, served or not: no route of a customer reaches them (NET-27).
    plan.routes.insert(unassigned(&LINK_LOCAL_SERVICES));
    plan.rules.insert(PolicyRule {
        priority: LOCAL_PRIORITY,
        from: None,
        mark: None,
        table: Route::MAIN,
    });
    plan.rules.insert(PolicyRule {
        priority: LAST_PRIORITY,
        from: None,
        mark: None,
        table: NOWHERE,
    });
    let numbers = table_numbers(vpc);
    for subnet in vpc.subnets.values() {
        if let Some(number) = numbers.get(&subnet.route_table) {
            plan.rules.insert(PolicyRule {
                priority: SUBNET_PRIORITY,
                from: Some(subnet.block),
                mark: None,
                table: *number,
            });
            let table = vpc.route_tables.get(&subnet.route_table);
            if table.is_some_and(|table| {
                table
                    .routes
                    .values()
                    .any(|target| matches!(target, Target::Interface(_)))
            }) {
                let table = *number | TO_INTERFACES;
                plan.rules.insert(PolicyRule {
                    priority: INTERFACE_PRIORITY,
                    from: Some(subnet.block),
                    mark: None,
                    table,
                });
            }
        }
    }
    for (id, number) in &numbers {
        for (destination, way) in exits::ways(vpc, *id) {
            plan.routes.insert(kernel_route(edge, destination, way, *number));
        }
    }
}

fn kernel_route(edge: Option<&Edge>, destination: Ipv4Net, way: exits::Way, table: u32) -> Route {
    let (lo, up) = (LinkName::lo(), LinkName::uplink());
    let nowhere = route(RouteKind::Unreachable, destination, table, None, None);
    match way {
        exits::Way::Served => route(RouteKind::Local, destination, table, Some(lo), None),
        exits::Way::Target(Target::InternetGateway(_) | Target::NatGateway(_)) => match edge {
            Some(edge) => route(RouteKind::Unicast, destination, table, Some(up), Some(edge.far)),
            None => nowhere,
        },
        exits::Way::Target(Target::Blackhole) => route(RouteKind::Blackhole, destination, table, None, None),
        // The way to an interface comes and goes with its link, in the table before this one ([`TO_INTERFACES`]).
        exits::Way::Target(Target::Interface(_)) | exits::Way::Nowhere => nowhere,
    }
}

#[cfg(test)]
mod tests;
