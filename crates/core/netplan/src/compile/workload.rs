//! The namespace of one workload.

use super::{BadNetwork, empty, sysctls};
use crate::intent::{HostNetwork, Reach, WorkloadNetwork};
use crate::plan::{
    End, Link, LinkKind, LinkName, Mac, NamespacePlan, Neighbour, Place, Route, RouteKind, Scope, WorkloadPlan,
};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

pub(super) fn compile(network: &HostNetwork, workload: &WorkloadNetwork) -> Result<WorkloadPlan, BadNetwork> {
    match workload.reach {
        Reach::Nothing => Ok(super::compile_nothing()),
        Reach::ServiceNetwork { address } if network.is_workload_address(address) => Ok(WorkloadPlan {
            places: BTreeMap::from(service_network(network, address)),
        }),
        Reach::ServiceNetwork { address } => Err(BadNetwork::Address(address, network.platform)),
        Reach::Vpc { interface, .. } | Reach::Peers { interface, .. } => Err(BadNetwork::Vpc(interface)),
    }
}

/// Loopback and nothing else. Nothing is filtered because there is nothing to filter (NI-6, NI-11, D-25).
pub(super) fn nothing() -> NamespacePlan {
    let mut plan = empty(Scope::Whole { attachments: false });
    plan.sysctls = sysctls([
        // Programs bind low ports without a capability; the namespace is theirs alone.
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/ip_forward", "0"),
        // An empty range: nobody may open ping sockets.
        ("net/ipv4/ping_group_range", "1\t0"),
    ]);
    plan.links.insert(
        LinkName::lo(),
        Link {
            kind: LinkKind::Loopback,
            mac: None,
            addresses: BTreeSet::new(),
            sysctls: BTreeMap::new(),
        },
    );
    plan
}

fn service_network(network: &HostNetwork, address: Ipv4Addr) -> [(Place, NamespacePlan); 2] {
    let (eth0, beside) = (LinkName::eth0(), LinkName::of_workload(address));
    let gateway = network.gateway();
    let (own_mac, router_mac) = (Mac::of(address, End::Far), Mac::of(address, End::Near));
    let route = |destination, link: &LinkName, via| Route {
        kind: RouteKind::Unicast,
        destination,
        table: Route::MAIN,
        link: Some(link.clone()),
        via,
        source: None,
    };

    let mut inside = nothing();
    // Before the interface exists, so that it never gets an IPv6 address; loopback keeps ::1.
    inside.sysctls.extend(sysctls([
        ("net/ipv6/conf/default/disable_ipv6", "1"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
    ]));
    inside.links.insert(
        eth0.clone(),
        Link {
            kind: LinkKind::Veth {
                peer_place: Place::Platform,
                peer: beside.clone(),
            },
            mac: Some(own_mac),
            addresses: BTreeSet::from([address]),
            sysctls: BTreeMap::new(),
        },
    );
    inside.neighbours.insert(Neighbour {
        link: eth0.clone(),
        address: gateway,
        mac: router_mac,
    });
    inside.routes.insert(route(Ipv4Net::default(), &eth0, Some(gateway)));

    let mut platform = empty(Scope::Named);
    platform.links.insert(
        beside.clone(),
        Link {
            kind: LinkKind::Veth {
                peer_place: Place::Workload,
                peer: eth0,
            },
            mac: Some(router_mac),
            addresses: BTreeSet::new(),
            // Reverse-path filtering comes from the namespace's default, and a rule drops forged sources besides.
            sysctls: BTreeMap::new(),
        },
    );
    platform.neighbours.insert(Neighbour {
        link: beside.clone(),
        address,
        mac: own_mac,
    });
    platform.routes.insert(route(Ipv4Net::from(address), &beside, None));
    [(Place::Workload, inside), (Place::Platform, platform)]
}
