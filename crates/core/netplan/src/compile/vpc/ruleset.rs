//! The table of a VPC's router: whether packets may pass.
//!
//! Sets and verdict maps answer, so that neither the number of rules nor that of interfaces is a number of steps for a
//! packet, and an interface is a few elements. Groups are compiled in [`groups`].

mod acls;
mod groups;

use super::ranges;
use super::{Edge, exits};
use crate::compile::REFUSED;
use crate::id::InterfaceId;
use crate::intent::vpc::{CheckedVpc, Holder, Interface, NatGateway, Vpc};
use crate::plan::LinkName;
use crate::ruleset::expr::{self, Key};
use crate::ruleset::{Base, Chain, Policy, Rule, Set, Table};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const ANY_INTERFACE: &str = "w*";
/// Ports at which S3 answers behind gateway endpoints (NET-37).
const SERVICE_PORTS: [u16; 2] = [80, 443];
/// Port at which interface endpoints answer (NET-41, PL-32).
const ENDPOINT_PORT: u16 = 443;
/// Flows that a refusal is remembered of, for flow logs; more are counted as lost.
pub const RECORDED: u32 = 65536;
/// Seconds for which a refusal is remembered after its last packet. Whoever reads them does so more often.
const REMEMBERED: u32 = 150;
/// The dynamic sets of refusals: on the sender's side, on the receiver's, and of what rules admitted and no way led on.
pub const REFUSALS: [&str; 3] = ["rejected_egress", "rejected_ingress", "without_way"];

/// A table in the making.
#[derive(Default)]
struct Draft {
    sets: BTreeMap<String, Set>,
    timeouts: BTreeMap<String, u32>,
    chains: Vec<Chain>,
}

impl Draft {
    fn set(&mut self, name: &str, kind: &str, interval: bool, elements: BTreeSet<String>) {
        let set = Set {
            kind: kind.into(),
            interval,
            elements,
            ..Set::default()
        };
        self.sets.insert(name.into(), set);
    }

    fn map(&mut self, name: &str, kind: &str, data: &str, interval: bool, elements: BTreeSet<String>) {
        let set = Set {
            kind: kind.into(),
            data: Some(data.into()),
            interval,
            elements,
        };
        self.sets.insert(name.into(), set);
    }

    fn chain(&mut self, name: impl Into<String>, rules: Vec<Rule>) {
        self.chains.push(Chain {
            name: name.into(),
            base: None,
            rules,
        });
    }

    fn base(&mut self, hook: &str, kind: &str, priority: i32, policy: Policy, name: &str, rules: Vec<Rule>) {
        let base = Base {
            kind: kind.into(),
            hook: hook.into(),
            priority,
            policy,
        };
        self.chains.push(Chain {
            name: name.into(),
            base: Some(base),
            rules,
        });
    }
}

fn rule<const N: usize>(why: &str, expr: [Value; N]) -> Rule {
    Rule {
        why: why.into(),
        expr: expr.into(),
    }
}

fn networks(spans: impl IntoIterator<Item = ranges::Span>) -> BTreeSet<String> {
    spans.into_iter().map(ranges::text).collect()
}

fn pairs(all: &[(Ipv4Net, ranges::Span)]) -> BTreeSet<String> {
    all.iter()
        .map(|(block, span)| format!("{block} . {}", ranges::text(*span)))
        .collect()
}

pub(super) fn table(vpc: &CheckedVpc, edge: Option<&Edge>) -> Table {
    let mut draft = Draft::default();
    refusals(&mut draft);
    groups::compile(vpc, &mut draft);
    acls::compile(vpc, &mut draft);
    sets(vpc, edge, &mut draft);
    shared_chains(vpc, &mut draft);
    let idle = edge.filter(|_| !vpc.nat_gateways.is_empty()).map(|edge| edge.nat_idle);
    base_chains(vpc, idle, &mut draft);
    Table {
        sets: draft.sets,
        timeouts: draft.timeouts,
        chains: draft.chains,
    }
}

fn refusals(draft: &mut Draft) {
    let flow = [
        Key::Source,
        Key::Destination,
        Key::Transport,
        Key::IcmpTypeAndCode,
        Key::Port,
    ];
    for (name, chain) in REFUSALS.into_iter().zip(["refuse_egress", "refuse_ingress", "lose"]) {
        let rules = vec![
            rule("record", [expr::record(&flow, name, RECORDED, REMEMBERED)]),
            rule("refuse", [expr::counter(), expr::drop()]),
        ];
        draft.chain(chain, rules);
    }
}

fn sets(vpc: &Vpc, edge: Option<&Edge>, draft: &mut Draft) {
    let attached = || vpc.interfaces.iter().filter(|(_, interface)| interface.is_attached());
    let link = |id: &InterfaceId| LinkName::of_interface(*id).to_string();
    let (strict, free): (Vec<_>, Vec<_>) = attached().partition(|(_, interface)| interface.source_dest_check);
    let owned = strict
        .iter()
        .flat_map(|(id, one)| one.addresses().map(|address| format!("{} . {address}", link(id))));
    draft.set("owned", "ifname . ipv4_addr", false, owned.collect());
    draft.set(
        "unchecked",
        "ifname",
        false,
        free.iter().map(|(id, _)| link(id)).collect(),
    );
    let from = attached().map(|(id, one)| format!("{} : goto {}", link(id), groups::combination(&one.groups, "out")));
    draft.map("eni_src", "ifname", "verdict", false, from.collect());
    let endpoint = |one: &&Interface| matches!(one.holder, Holder::Endpoint(_));
    let endpoints = || vpc.interfaces.values().filter(endpoint);
    let to = attached().map(|(_, one)| one).chain(endpoints()).flat_map(|one| {
        let chain = groups::combination(&one.groups, "in");
        one.addresses().map(move |address| format!("{address} : goto {chain}"))
    });
    draft.map("eni_dst", "ipv4_addr", "verdict", false, to.collect());
    let through = free
        .iter()
        .map(|(id, one)| format!("{} : goto {}", link(id), groups::combination(&one.groups, "in")));
    draft.map("eni_through", "ifname", "verdict", false, through.collect());
    let served = endpoints()
        .flat_map(Interface::addresses)
        .map(|address| address.to_string());
    draft.set("endpoints", "ipv4_addr", false, served.collect());

    let lists = vpc
        .s3_endpoints
        .values()
        .filter_map(|endpoint| vpc.prefix_lists.get(&endpoint.prefix_list));
    let s3: Vec<Ipv4Net> = lists.flatten().copied().collect();
    draft.set(
        "s3",
        "ipv4_addr",
        true,
        networks(Ipv4Net::aggregate(&s3).into_iter().map(ranges::span)),
    );
    draft.set(
        "blocks",
        "ipv4_addr",
        true,
        networks(vpc.blocks.iter().map(|block| ranges::span(*block))),
    );
    let services = edge.map(|edge| edge.services.as_slice()).unwrap_or_default();
    draft.set(
        "not_internet",
        "ipv4_addr",
        true,
        networks(ranges::without(&REFUSED, services)),
    );
    draft.set(
        "public",
        "ipv4_addr",
        false,
        vpc.public_addresses().map(|one| one.to_string()).collect(),
    );
    // Public addresses mean something at an internet gateway only (NET-28).
    let gateway = vpc.internet_gateway.is_some();
    let associated = || {
        let all = vpc.interfaces.values().filter(move |_| gateway);
        all.filter_map(|one| Some((one.primary, one.public?)))
    };
    let private_of = associated().map(|(private, public)| format!("{public} : {private}"));
    draft.map("private_of", "ipv4_addr", "ipv4_addr", false, private_of.collect());
    let public_of = associated().map(|(private, public)| format!("{private} : {public}"));
    draft.map("public_of", "ipv4_addr", "ipv4_addr", false, public_of.collect());
    let has_public = associated().map(|(private, _)| private.to_string());
    draft.set("has_public", "ipv4_addr", false, has_public.collect());
    draft.set(
        "via_igw",
        "ipv4_addr . ipv4_addr",
        true,
        pairs(&exits::by_internet_gateway(vpc)),
    );
    for id in vpc.nat_gateways.keys() {
        draft.set(
            &id.to_string(),
            "ipv4_addr . ipv4_addr",
            true,
            pairs(&exits::by_nat_gateway(vpc, *id)),
        );
    }
    let mut unfiltered = super::resolvers(vpc);
    unfiltered.insert(crate::compile::CREDENTIALS);
    draft.set(
        "unfiltered",
        "ipv4_addr",
        false,
        unfiltered.iter().map(ToString::to_string).collect(),
    );
    let resolvers = super::resolvers(vpc).iter().map(ToString::to_string).collect();
    draft.set("resolvers", "ipv4_addr", false, resolvers);
}

const PATH: [Key; 2] = [Key::Source, Key::Destination];
const PATH_BACK: [Key; 2] = [Key::Destination, Key::Source];

/// Transports that a NAT gateway carries (NET-29).
fn by_nat() -> Value {
    expr::is(Key::Transport, expr::any_of(&["tcp", "udp", "icmp"]))
}

fn shared_chains(vpc: &Vpc, draft: &mut Draft) {
    let up = || expr::goes_to(LinkName::uplink().as_str());
    let begun = expr::in_state(&["established", "related"]);
    draft.chain(
        "no_way",
        vec![
            rule("begun when there was a way", [begun, expr::goto("lose")]),
            rule("rules are asked first", [expr::set_mark(NO_WAY)]),
        ],
    );
    // INVARIANT (exit-follows-route): what leaves by the uplink has a way out in the sender's own table; asked of every
    // packet, so that a route that is taken away ends established flows as well.
    let mut rules = vec![
        rule(
            "not the internet",
            [expr::within(&[Key::Destination], "not_internet"), expr::goto("no_way")],
        ),
        rule(
            "answers by the gateway",
            [expr::is_reply(), expr::within(&PATH, "via_igw"), expr::back()],
        ),
        rule("answers by another way", [expr::is_reply(), expr::goto("lose")]),
        // NET-28: nobody passes an internet gateway without a public address.
        rule(
            "public address",
            [
                expr::within(&PATH, "via_igw"),
                expr::within(&[Key::Source], "has_public"),
                expr::back(),
            ],
        ),
    ];
    for id in vpc.nat_gateways.keys() {
        rules.push(rule(
            "NAT gateway",
            [expr::within(&PATH, &id.to_string()), by_nat(), expr::back()],
        ));
    }
    rules.push(rule("no way out", [expr::goto("no_way")]));
    draft.chain("exit", rules);

    // A connection that was idle for too long is told so at its next packet, as NAT gateways do (NET-29).
    let mut rules = Vec::new();
    for id in vpc.nat_gateways.keys() {
        let (set, not_again) = (expr::within(&PATH, &id.to_string()), expr::is_no_reset());
        rules.push(rule(
            "a NAT gateway forgot it",
            [up(), set, tcp(), not_again, expr::reset()],
        ));
    }
    rules.push(rule("invalid", [expr::counter(), expr::drop()]));
    draft.chain("invalid", rules);

    let rules = vec![
        rule("no way out", [up(), expr::marked(NO_WAY), expr::goto("lose")]),
        rule("to the uplink", [up(), expr::accept()]),
        rule(
            "S3 gateway endpoint",
            [
                expr::marked(SERVED_HERE),
                expr::within(&[Key::Destination], "s3"),
                tcp(),
                http(),
                expr::accept(),
            ],
        ),
        rule(
            "interface endpoint",
            [
                expr::marked(SERVED_HERE),
                expr::within(&[Key::Destination], "endpoints"),
                expr::to_port("tcp", ENDPOINT_PORT),
                expr::dispatch(&[Key::Destination], "eni_dst"),
            ],
        ),
        rule(
            "served, but not this",
            [expr::marked(SERVED_HERE), expr::goto("refuse_ingress")],
        ),
        rule("receiver", [expr::dispatch(&[Key::Destination], "eni_dst")]),
        rule("passing through", [expr::dispatch(&[Key::OutLink], "eni_through")]),
        rule("nobody", [expr::goto("refuse_ingress")]),
    ];
    draft.chain("ingress", rules);
}

/// Mark of packets whose destination is served in this namespace.
const SERVED_HERE: u32 = 1;
/// Mark of packets that the sender's table leads to a gateway which does not take them. Rules are asked first: EC2 records
/// what they say, and loses the packet afterwards (NET-57).
const NO_WAY: u32 = 2;

fn tcp() -> Value {
    expr::is(Key::Transport, expr::any_of(&["tcp"]))
}

fn http() -> Value {
    expr::is(Key::Port, serde_json::json!({ "set": SERVICE_PORTS }))
}

fn established() -> Rule {
    rule(
        "established",
        [expr::in_state(&["established", "related"]), expr::accept()],
    )
}

fn invalid() -> Rule {
    rule("invalid", [expr::in_state(&["invalid"]), expr::counter(), expr::drop()])
}

/// Name of the time-out that NAT gateways give to connections. It has the value in it: a changed one is another.
fn nat_timeout(seconds: u32) -> String {
    format!("nat-tcp-{seconds}")
}

/// `nat_idle`: seconds, if there is a NAT gateway.
fn base_chains(vpc: &Vpc, nat_idle: Option<u32>, draft: &mut Draft) {
    let uplink = LinkName::uplink();
    let up = || expr::comes_from(uplink.as_str());
    let down = || expr::goes_to(uplink.as_str());
    let resolver = || expr::within(&[Key::Destination], "resolvers");
    let prerouting = vec![
        // First, because nearly every packet ends here.
        rule(
            "own source",
            [expr::within(&[Key::InLink, Key::Source], "owned"), expr::accept()],
        ),
        rule("no IPv6", [expr::family("ipv6"), expr::counter(), expr::drop()]),
        rule(
            "may send any source",
            [expr::within(&[Key::InLink], "unchecked"), expr::accept()],
        ),
        rule(
            "forged source",
            [expr::comes_from(ANY_INTERFACE), expr::counter(), expr::drop()],
        ),
        // Outside, nobody has an address of the VPC, and nothing but its public addresses is a way in.
        rule(
            "forged inside",
            [
                up(),
                expr::within(&[Key::Source], "blocks"),
                expr::counter(),
                expr::drop(),
            ],
        ),
        rule(
            "no way in",
            [
                up(),
                expr::outside(&[Key::Destination], "public"),
                expr::counter(),
                expr::drop(),
            ],
        ),
    ];
    draft.base("prerouting", "filter", -300, Policy::Accept, "prerouting", prerouting);
    let translate = vec![rule(
        "to the private address",
        [up(), expr::destination_nat_by("private_of")],
    )];
    // A hook of address translation costs every packet time, and every new connection more.
    let translates = vpc.internet_gateway.is_some() || !vpc.nat_gateways.is_empty();
    if translates {
        draft.base(
            "prerouting",
            "nat",
            -100,
            Policy::Accept,
            "public_to_private",
            translate,
        );
    }

    // INVARIANT (acl-sees-replies): network ACLs are stateless, so they come before established flows are accepted.
    let acls = || acls::ask(vpc).then(|| rule("network ACLs", [expr::jump("acl")]));
    let mut forward = vec![
        rule("invalid", [expr::in_state(&["invalid"]), expr::goto("invalid")]),
        rule("way out", [down(), expr::jump("exit")]),
    ];
    forward.extend(acls());
    forward.extend([
        established(),
        rule("from outside", [up(), expr::goto("ingress")]),
        rule("sender", [expr::dispatch(&[Key::InLink], "eni_src")]),
        rule("nobody's", [expr::goto("refuse_egress")]),
    ]);
    draft.base("forward", "filter", 0, Policy::Drop, "forward", forward);
    let nothing = vec![rule("nothing is served", [expr::counter(), expr::drop()])];
    let mut input = vec![
        invalid(),
        rule("own", [expr::comes_from("lo"), expr::accept()]),
        rule(
            "not an interface",
            [expr::not_from(ANY_INTERFACE), expr::counter(), expr::drop()],
        ),
    ];
    input.extend(acls());
    input.extend([
        established(),
        // NET-18: groups do not filter these.
        rule("resolver UDP", [resolver(), expr::to_port("udp", 53), expr::accept()]),
        rule("resolver TCP", [resolver(), expr::to_port("tcp", 53), expr::accept()]),
        rule(
            "credentials",
            [
                expr::to_address(crate::compile::CREDENTIALS.into()),
                expr::to_port("tcp", 80),
                expr::accept(),
            ],
        ),
        rule(
            "other ports",
            [
                expr::within(&[Key::Destination], "unfiltered"),
                expr::counter(),
                expr::drop(),
            ],
        ),
        rule("served here", [expr::set_mark(SERVED_HERE)]),
        rule("sender", [expr::dispatch(&[Key::InLink], "eni_src")]),
        rule("nobody's", [expr::goto("refuse_egress")]),
    ]);
    let input = if vpc.peers_only { nothing } else { input };
    draft.base("input", "filter", 0, Policy::Drop, "input", input);
    let mut output = vec![rule("own", [expr::goes_to("lo"), expr::accept()])];
    output.extend(acls());
    output.extend([
        established(),
        // Its connection is not known any more. Nobody but the rules themselves sends such a thing from here.
        rule(
            "a NAT gateway's reset",
            [expr::in_state(&["invalid"]), expr::is_reset(), expr::accept()],
        ),
    ]);
    draft.base("output", "filter", 0, Policy::Drop, "output", output);

    let mut postrouting = vec![rule(
        "interface by the internet gateway",
        [down(), expr::within(&PATH, "via_igw"), expr::source_nat_by("public_of")],
    )];
    if let Some(seconds) = nat_idle {
        let name = nat_timeout(seconds);
        for id in vpc.nat_gateways.keys() {
            let set = expr::within(&PATH, &id.to_string());
            // Only first packets come here, and the connection keeps what it is given.
            postrouting.push(rule("idle time", [down(), set, tcp(), expr::timeout(&name)]));
        }
        draft.timeouts.insert(name, seconds);
    }
    for (id, nat) in &vpc.nat_gateways {
        let set = || expr::within(&PATH, &id.to_string());
        let ports = Some(NatGateway::PORTS);
        let both = expr::is(Key::Transport, expr::any_of(&["tcp", "udp"]));
        postrouting.push(rule(
            "NAT gateway",
            [down(), set(), both, expr::source_nat(nat.elastic_ip, ports)],
        ));
        postrouting.push(rule(
            "NAT gateway",
            [down(), set(), expr::source_nat(nat.elastic_ip, None)],
        ));
    }
    if translates {
        draft.base("postrouting", "nat", 100, Policy::Accept, "postrouting", postrouting);
    }
}
