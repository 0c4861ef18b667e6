//! The platform namespace: router of all workloads without isolation and without VpcConfig (NI-1, NI-25).

use super::{REFUSED, Tag, empty, sysctls, uplink};
use crate::intent::{HostNetwork, Uplink};
use crate::plan::{Link, LinkKind, LinkName, NamespacePlan, NamespaceSeen, Place, Route, RouteKind, Scope};
use crate::ruleset::{Base, Chain, Policy, Rule, Set, Table, expr};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

const ANY_WORKLOAD: &str = "w*";
/// The routers of VPCs, see [`LinkName::VPC_PREFIX`].
const ANY_VPC: &str = "wv*";

pub(super) fn compile(network: &HostNetwork, tag: &Tag, peers: &BTreeSet<BTreeSet<Ipv4Addr>>) -> NamespacePlan {
    let mut plan = empty(Scope::Whole { attachments: true });
    plan.sysctls = sysctls([
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
        ("net/ipv4/conf/default/rp_filter", "1"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/disable_ipv6", "1"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
        ("net/netfilter/nf_conntrack_tcp_loose", "0"),
        // A namespace inherits these of the host; see also `LinkSeen::strict`.
        ("net/ipv4/conf/all/accept_source_route", "0"),
        ("net/ipv4/conf/all/proxy_arp", "0"),
        ("net/ipv4/conf/all/route_localnet", "0"),
        ("net/ipv4/conf/default/accept_source_route", "0"),
        ("net/ipv4/conf/default/proxy_arp", "0"),
        ("net/ipv4/conf/default/route_localnet", "0"),
    ]);
    let addresses = BTreeSet::from([network.gateway(), network.resolver(), super::CREDENTIALS]);
    plan.links.insert(
        LinkName::lo(),
        Link {
            kind: LinkKind::Loopback,
            mac: None,
            addresses,
            sysctls: BTreeMap::new(),
        },
    );
    plan.routes
        .extend([network.services, network.s3_prefix_list].map(|range| Route {
            kind: RouteKind::Local,
            destination: range.trunc(),
            table: Route::LOCAL,
            link: Some(LinkName::lo()),
            via: None,
            source: None,
        }));
    // INVARIANT (unassigned-goes-nowhere): an address of the platform network that no workload holds never reaches the
    // default route.
    plan.routes.insert(Route {
        kind: RouteKind::Unreachable,
        destination: network.platform.trunc(),
        table: Route::MAIN,
        link: None,
        via: None,
        source: None,
    });
    if network.uplink != Uplink::None {
        let far = match network.uplink {
            Uplink::Host => Place::Host,
            Uplink::None | Uplink::Netns { .. } => Place::Uplink,
        };
        uplink::near_side(&mut plan, network, tag, far);
    }
    plan.tables.insert("platform".into(), table(network, peers));
    plan
}

fn rule<const N: usize>(why: &str, expr: [Value; N]) -> Rule {
    Rule {
        why: why.into(),
        expr: expr.into(),
    }
}

fn refused(network: &HostNetwork) -> BTreeSet<String> {
    let mut ranges = REFUSED.to_vec();
    ranges.extend([
        network.platform,
        network.services,
        network.s3_prefix_list,
        network.uplink_links,
        network.elastic_ips,
    ]);
    Ipv4Net::aggregate(&ranges).into_iter().map(text).collect()
}

/// As nft writes it: a network of one address is that address.
fn text(range: Ipv4Net) -> String {
    if range.prefix_len() == 32 {
        range.addr().to_string()
    } else {
        range.trunc().to_string()
    }
}

fn served(network: &HostNetwork) -> BTreeSet<String> {
    Ipv4Net::aggregate(&vec![network.services.trunc(), network.s3_prefix_list.trunc()])
        .into_iter()
        .map(text)
        .collect()
}

/// The name of the set of those who may talk to each other.
const PEERS: &str = "peers";

/// Every ordered pair of each group.
fn pairs(groups: &BTreeSet<BTreeSet<Ipv4Addr>>) -> BTreeSet<String> {
    let of = |group: &BTreeSet<Ipv4Addr>| -> Vec<String> {
        let both = |from: &Ipv4Addr| {
            let from = *from;
            let others = group.iter().filter(move |to| **to != from);
            others.map(move |to| format!("{from} . {to}")).collect::<Vec<_>>()
        };
        group.iter().flat_map(both).collect()
    };
    groups.iter().flat_map(of).collect()
}

/// The groups of containers that a platform namespace was seen to let talk to each other.
pub(super) fn peers_seen(seen: &NamespaceSeen) -> BTreeSet<BTreeSet<Ipv4Addr>> {
    let elements = seen.tables.get("platform").and_then(|table| table.sets.get(PEERS));
    let pair = |text: &String| -> Option<BTreeSet<Ipv4Addr>> {
        let (from, to) = text.split_once(" . ")?;
        Some(BTreeSet::from([from.parse().ok()?, to.parse().ok()?]))
    };
    elements.into_iter().flatten().filter_map(pair).collect()
}

fn table(network: &HostNetwork, peers: &BTreeSet<BTreeSet<Ipv4Addr>>) -> Table {
    let base = |hook: &str, priority: i32, policy: Policy, kind: &str| {
        Some(Base {
            kind: kind.into(),
            hook: hook.into(),
            priority,
            policy,
        })
    };
    let set = |elements| Set {
        kind: "ipv4_addr".into(),
        interval: true,
        elements,
        ..Set::default()
    };
    let up = LinkName::uplink();
    let filter = "filter";
    let resolver = Ipv4Net::from(network.resolver());
    let refuse = Chain {
        name: "refuse".into(),
        base: None,
        rules: vec![
            // A reset is final for the caller at once; an ICMP error may find the socket busy and be taken as a hint only.
            rule("refuse TCP", [expr::transport("tcp"), expr::counter(), expr::reset()]),
            rule(
                "refuse the rest",
                [expr::family("ipv4"), expr::counter(), expr::prohibit()],
            ),
            rule("no IPv6", [expr::counter(), expr::drop()]),
        ],
    };
    let prerouting = Chain {
        name: "prerouting".into(),
        base: base("prerouting", -300, Policy::Accept, filter),
        rules: vec![
            rule("no IPv6", [expr::family("ipv6"), expr::counter(), expr::drop()]),
            rule(
                "forged source",
                [
                    expr::comes_from(ANY_WORKLOAD),
                    expr::forged_source(),
                    expr::counter(),
                    expr::drop(),
                ],
            ),
        ],
    };
    let input = Chain {
        name: "input".into(),
        base: base("input", 0, Policy::Drop, filter),
        rules: vec![
            rule(
                "established",
                [expr::in_state(&["established", "related"]), expr::accept()],
            ),
            rule("invalid", [expr::in_state(&["invalid"]), expr::drop()]),
            rule("own", [expr::comes_from("lo"), expr::accept()]),
            rule(
                "not a workload",
                [expr::not_from(ANY_WORKLOAD), expr::counter(), expr::drop()],
            ),
            rule(
                "service HTTP",
                [expr::to_set("served"), expr::to_port("tcp", 80), expr::accept()],
            ),
            rule(
                "service HTTPS",
                [expr::to_set("served"), expr::to_port("tcp", 443), expr::accept()],
            ),
            // Routers of VPCs get the public names and nothing else of the platform.
            rule(
                "other services to a VPC",
                [expr::comes_from(ANY_VPC), expr::goto("refuse")],
            ),
            rule(
                "resolver UDP",
                [expr::to_address(resolver), expr::to_port("udp", 53), expr::accept()],
            ),
            rule(
                "resolver TCP",
                [expr::to_address(resolver), expr::to_port("tcp", 53), expr::accept()],
            ),
            rule(
                "credentials",
                [
                    expr::to_address(super::CREDENTIALS.into()),
                    expr::to_port("tcp", 80),
                    expr::accept(),
                ],
            ),
            rule("refuse", [expr::goto("refuse")]),
        ],
    };
    let forward = Chain {
        name: "forward".into(),
        base: base("forward", 0, Policy::Drop, filter),
        rules: vec![
            // Containers of one job (CC-85). Asked of every packet, so that a pair that goes takes its flows along; who the
            // sender is was settled where it came in.
            rule(
                "containers of one job",
                [
                    expr::comes_from(ANY_WORKLOAD),
                    expr::within(&[expr::Key::Source, expr::Key::Destination], PEERS),
                    expr::accept(),
                ],
            ),
            // INVARIANT (refused-before-established): a range added to `refused` also cuts flows that began before.
            rule(
                "refused range",
                [
                    expr::comes_from(ANY_WORKLOAD),
                    expr::to_set("refused"),
                    expr::goto("refuse"),
                ],
            ),
            rule(
                "established",
                [expr::in_state(&["established", "related"]), expr::accept()],
            ),
            rule("invalid", [expr::in_state(&["invalid"]), expr::drop()]),
            // A VPC's own rules decide which of its public addresses admit what (NET-28, NET-29).
            rule(
                "internet to a VPC",
                [
                    expr::comes_from(up.as_str()),
                    expr::goes_to(ANY_VPC),
                    expr::to_set("public"),
                    expr::accept(),
                ],
            ),
            rule(
                "workload to the uplink",
                [
                    expr::comes_from(ANY_WORKLOAD),
                    expr::goes_to(up.as_str()),
                    expr::accept(),
                ],
            ),
            rule(
                "workload elsewhere",
                [expr::comes_from(ANY_WORKLOAD), expr::goto("refuse")],
            ),
        ],
    };
    let mut translations = Vec::new();
    if let Uplink::Netns { .. } = network.uplink {
        // It has a route to them (`uplink::far_side`). Beyond the host nobody has, so there they are masqueraded as well.
        let public = expr::within(&[expr::Key::Source], "public");
        translations.push(rule(
            "public addresses stay",
            [expr::goes_to(up.as_str()), public, expr::accept()],
        ));
    }
    translations.push(rule(
        "NAT to the uplink",
        [expr::goes_to(up.as_str()), expr::masquerade()],
    ));
    let postrouting = Chain {
        name: "postrouting".into(),
        base: base("postrouting", 100, Policy::Accept, "nat"),
        rules: translations,
    };
    Table {
        timeouts: BTreeMap::new(),
        sets: BTreeMap::from([
            ("refused".into(), set(refused(network))),
            ("served".into(), set(served(network))),
            ("public".into(), set(BTreeSet::from([text(network.elastic_ips)]))),
            (
                PEERS.into(),
                Set {
                    kind: "ipv4_addr . ipv4_addr".into(),
                    elements: pairs(peers),
                    ..Set::default()
                },
            ),
        ]),
        chains: vec![refuse, prerouting, input, forward, postrouting],
    }
}
