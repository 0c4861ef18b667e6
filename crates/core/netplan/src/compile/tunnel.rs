//! Encryption between the containers of one job, in the namespace of one of them.

use super::{BadNetwork, sysctls};
use crate::intent::Tunnel;
use crate::plan::{Link, LinkKind, LinkName, NamespacePlan, Place, PolicyRule, Route, RouteKind, WorkloadPlan};
use crate::ruleset::expr::{self, Key};
use crate::ruleset::{Base, Chain, Policy, Rule, Set, Table};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The nftables table, and in it the set of those to whom nothing goes in the clear.
const TABLE: &str = "tunnel";
const PEERS: &str = "peers";

/// What carries the mark is routed by this table, and the rule that says so comes before the main table.
const MARKED: u32 = 73;
const PRIORITY: u32 = 100;

pub(super) fn encrypt(plan: &mut WorkloadPlan, tunnel: &Tunnel) -> Result<(), BadNetwork> {
    let inside = plan
        .places
        .iter_mut()
        .find(|(place, _)| matches!(place, Place::Workload | Place::Interface(_)));
    let (_, inside) = inside.ok_or(BadNetwork::Tunnel(tunnel.own))?;
    let eth0 = LinkName::eth0();
    let own = inside.links.get(&eth0);
    own.filter(|link| link.addresses.contains(&tunnel.own))
        .ok_or(BadNetwork::Tunnel(tunnel.own))?;
    let gateway = inside.neighbours.iter().find(|one| one.link == eth0);
    let gateway = gateway.ok_or(BadNetwork::Tunnel(tunnel.own))?.address;
    let peers: BTreeSet<Ipv4Net> = tunnel.peers.iter().map(|(address, _)| (*address).into()).collect();

    inside.links.insert(
        LinkName::tunnel(),
        Link {
            kind: LinkKind::Tun { mtu: Tunnel::MTU },
            mac: None,
            addresses: BTreeSet::new(),
            sysctls: BTreeMap::new(),
        },
    );
    // Answers of a peer come by another interface than the one that leads to it; forged sources are the router's to drop.
    inside.sysctls.extend(sysctls([
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ]));
    inside
        .routes
        .retain(|route| route.table != Route::MAIN || !peers.contains(&route.destination));
    let route = |destination, table, link: LinkName, via| Route {
        kind: RouteKind::Unicast,
        destination,
        table,
        link: Some(link),
        via,
        source: Some(tunnel.own),
    };
    inside.routes.extend(
        peers
            .iter()
            .map(|peer| route(*peer, Route::MAIN, LinkName::tunnel(), None)),
    );
    inside
        .routes
        .insert(route(Ipv4Net::default(), MARKED, eth0, Some(gateway)));
    inside.rules.insert(PolicyRule {
        priority: PRIORITY,
        from: None,
        mark: Some(Tunnel::MARK),
        table: MARKED,
    });
    install(inside, &peers);
    Ok(())
}

fn install(inside: &mut NamespacePlan, peers: &BTreeSet<Ipv4Net>) {
    let rule = |why: &str, expr: Vec<Value>| Rule { why: why.into(), expr };
    let eth0 = LinkName::eth0();
    let set = Set {
        kind: "ipv4_addr".into(),
        elements: peers.iter().map(|peer| peer.addr().to_string()).collect(),
        ..Set::default()
    };
    let chain = |hook: &str, rules| Chain {
        name: hook.into(),
        base: Some(Base {
            kind: "filter".into(),
            hook: hook.into(),
            priority: 0,
            policy: Policy::Accept,
        }),
        rules,
    };
    let table = Table {
        sets: BTreeMap::from([(PEERS.into(), set)]),
        timeouts: BTreeMap::new(),
        // INVARIANT (peers-encrypted): without the process that encrypts nothing passes, whatever routes there are.
        chains: vec![
            chain(
                "output",
                vec![rule(
                    "in the clear to a peer",
                    vec![
                        expr::goes_to(eth0.as_str()),
                        expr::to_set(PEERS),
                        expr::unmarked(Tunnel::MARK),
                        expr::drop(),
                    ],
                )],
            ),
            chain(
                "input",
                vec![
                    rule(
                        "encrypted, of a peer",
                        vec![
                            expr::comes_from(eth0.as_str()),
                            expr::within(&[Key::Source], PEERS),
                            expr::to_port("udp", Tunnel::PORT),
                            expr::accept(),
                        ],
                    ),
                    rule(
                        "in the clear from a peer",
                        vec![
                            expr::comes_from(eth0.as_str()),
                            expr::within(&[Key::Source], PEERS),
                            expr::drop(),
                        ],
                    ),
                ],
            ),
        ],
    };
    inside.tables.insert(TABLE.into(), table);
}
