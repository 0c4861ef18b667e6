//! The link between the platform namespace and "the internet": /32 addresses and on-link next hops, so that neither side
//! gets a connected route.

use super::{REFUSED, Tag, empty, sysctls};
use crate::intent::HostNetwork;
use crate::plan::{End, Link, LinkKind, LinkName, Mac, NamespacePlan, Neighbour, Place, Route, RouteKind, Scope};
use crate::ruleset::{Base, Chain, Policy, Rule, Set, Table, expr};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

fn veth(peer_place: Place, peer: LinkName, mac: Mac, address: Ipv4Addr, name: &LinkName) -> Link {
    Link {
        kind: LinkKind::Veth { peer_place, peer },
        mac: Some(mac),
        addresses: BTreeSet::from([address]),
        sysctls: BTreeMap::from([(format!("net/ipv6/conf/{name}/disable_ipv6"), "1".to_owned())]),
    }
}

fn host_route(address: Ipv4Addr, link: LinkName) -> Route {
    Route {
        kind: RouteKind::Unicast,
        destination: Ipv4Net::from(address),
        table: Route::MAIN,
        link: Some(link),
        via: None,
        source: None,
    }
}

/// Adds the platform's end and its default route.
pub(super) fn near_side(plan: &mut NamespacePlan, network: &HostNetwork, tag: &Tag, far_place: Place) {
    let name = LinkName::uplink();
    let (near, far) = (network.uplink_near(), network.uplink_far());
    let link = veth(
        far_place,
        LinkName::of_tag(tag.as_str()),
        Mac::of(near, End::Near),
        near,
        &name,
    );
    plan.links.insert(name.clone(), link);
    plan.neighbours.insert(Neighbour {
        link: name.clone(),
        address: far,
        mac: Mac::of(far, End::Far),
    });
    plan.routes.insert(Route {
        kind: RouteKind::Unicast,
        destination: Ipv4Net::default(),
        table: Route::MAIN,
        link: Some(name),
        via: Some(far),
        source: None,
    });
}

/// The far end in a namespace that plays the internet: besides the route back it leads VPCs' public addresses here (NET-30).
pub(super) fn internet(network: &HostNetwork, tag: &Tag) -> NamespacePlan {
    let mut plan = far_side(network, tag);
    plan.routes.insert(Route {
        kind: RouteKind::Unicast,
        destination: network.elastic_ips.trunc(),
        table: Route::MAIN,
        link: Some(LinkName::of_tag(tag.as_str())),
        via: Some(network.uplink_near()),
        source: None,
    });
    plan
}

/// The far end: one interface, one address, the route back.
fn far_side(network: &HostNetwork, tag: &Tag) -> NamespacePlan {
    let name = LinkName::of_tag(tag.as_str());
    let (near, far) = (network.uplink_near(), network.uplink_far());
    let mut plan = empty(Scope::Named);
    plan.links.insert(
        name.clone(),
        veth(Place::Platform, LinkName::uplink(), Mac::of(far, End::Far), far, &name),
    );
    plan.neighbours.insert(Neighbour {
        link: name.clone(),
        address: near,
        mac: Mac::of(near, End::Near),
    });
    plan.routes.insert(host_route(near, name));
    plan
}

/// The far end in the host's namespace: forwards and masquerades what comes from the platform, and lets it reach neither
/// the host itself nor private ranges, should the platform's own rules ever be gone.
pub(super) fn host(network: &HostNetwork, tag: &Tag) -> NamespacePlan {
    let mut plan = far_side(network, tag);
    plan.sysctls = sysctls([("net/ipv4/ip_forward", "1")]);
    plan.tables
        .insert(tag.host_table(), table(network, &LinkName::of_tag(tag.as_str())));
    plan
}

fn table(network: &HostNetwork, link: &LinkName) -> Table {
    let link = link.as_str();
    let rule = |why: &str, expr: Vec<Value>| Rule { why: why.into(), expr };
    let chain = |name: &str, kind: &str, priority: i32, rules: Vec<Rule>| Chain {
        name: name.into(),
        base: Some(Base {
            kind: kind.into(),
            hook: name.into(),
            priority,
            policy: Policy::Accept,
        }),
        rules,
    };
    let elements = REFUSED.iter().map(ToString::to_string).collect();
    let established = || expr::in_state(&["established", "related"]);
    Table {
        timeouts: BTreeMap::new(),
        sets: BTreeMap::from([(
            "refused".into(),
            Set {
                kind: "ipv4_addr".into(),
                interval: true,
                elements,
                ..Set::default()
            },
        )]),
        chains: vec![
            chain(
                "input",
                "filter",
                -10,
                vec![rule(
                    "containers do not reach the host",
                    vec![expr::comes_from(link), expr::counter(), expr::drop()],
                )],
            ),
            chain(
                "forward",
                "filter",
                -10,
                vec![
                    rule(
                        "refused range",
                        vec![
                            expr::comes_from(link),
                            expr::to_set("refused"),
                            expr::counter(),
                            expr::drop(),
                        ],
                    ),
                    rule("replies", vec![expr::goes_to(link), established(), expr::accept()]),
                    rule(
                        "nothing begins outside",
                        vec![expr::goes_to(link), expr::counter(), expr::drop()],
                    ),
                ],
            ),
            chain(
                "postrouting",
                "nat",
                100,
                vec![rule(
                    "NAT",
                    vec![expr::from_address(network.uplink_near()), expr::masquerade()],
                )],
            ),
        ],
    }
}
