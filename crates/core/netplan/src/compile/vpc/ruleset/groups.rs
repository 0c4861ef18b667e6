//! Security groups: a chain per group and direction, a pair of chains per combination of groups that an interface has.

use super::{Draft, rule};
use crate::compile::vpc::ranges::{self, Area, Span};
use crate::id::GroupId;
use crate::intent::vpc::{GroupRule, Match, Peer, RangeInclusive16, Vpc};
use crate::ruleset::expr::{self, Key};
use crate::ruleset::{Rule, fnv1a};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::collections::BTreeSet;

/// Name of the chain of a combination of groups; `direction` is `in` or `out`.
pub(super) fn combination(groups: &BTreeSet<GroupId>, direction: &str) -> String {
    let ids: Vec<String> = groups.iter().map(GroupId::digits).collect();
    format!("c-{}-{direction}", ids.join("-"))
}

pub(super) fn compile(vpc: &Vpc, draft: &mut Draft) {
    for (id, group) in &vpc.groups {
        let carriers = vpc
            .interfaces
            .values()
            .filter(|interface| interface.groups.contains(id));
        let members = carriers
            .flat_map(|interface| interface.addresses())
            .map(|address| address.to_string());
        draft.set(&members_of(*id), "ipv4_addr", false, members.collect());
        for (direction, rules, peer) in [
            ("in", &group.ingress, Key::Source),
            ("out", &group.egress, Key::Destination),
        ] {
            let name = format!("{id}-{direction}");
            let rules = one_direction(vpc, &name, rules, peer, draft);
            draft.chain(name, rules);
        }
    }
    let users = vpc.interfaces.values().filter(|interface| !interface.groups.is_empty());
    let combinations: BTreeSet<&BTreeSet<GroupId>> = users.map(|interface| &interface.groups).collect();
    for groups in combinations {
        for (direction, refuse) in [("in", "refuse_ingress"), ("out", "refuse_egress")] {
            let ask = |id: &GroupId| rule("group", [expr::jump(&format!("{id}-{direction}"))]);
            let mut rules: Vec<Rule> = groups.iter().map(ask).collect();
            rules.push(rule("no group allows it", [expr::goto(refuse)]));
            draft.chain(combination(groups, direction), rules);
        }
    }
}

fn members_of(id: GroupId) -> String {
    format!("{id}-members")
}

/// Leads on for what the rules allow: the sender's side to the receiver's, the receiver's to acceptance (NET-19).
fn verdict(peer: Key) -> Value {
    if peer == Key::Destination {
        expr::goto("ingress")
    } else {
        expr::accept()
    }
}

fn one_direction(vpc: &Vpc, name: &str, rules: &BTreeSet<GroupRule>, peer: Key, draft: &mut Draft) -> Vec<Rule> {
    let mut all: Vec<Ipv4Net> = Vec::new();
    let (mut tcp, mut udp, mut icmp): (Vec<Area>, Vec<Area>, Vec<Area>) = (Vec::new(), Vec::new(), Vec::new());
    let mut chain = Vec::new();
    for one in rules {
        let blocks: Vec<Ipv4Net> = match one.peer {
            Peer::Block(block) => vec![block],
            Peer::PrefixList(list) => vpc.prefix_lists.get(&list).into_iter().flatten().copied().collect(),
            Peer::Group(group) => {
                let mut expr = vec![expr::within(&[peer], &members_of(group))];
                expr.extend(traffic(&one.traffic));
                expr.push(verdict(peer));
                chain.push(Rule {
                    why: "members of a group".into(),
                    expr,
                });
                continue;
            }
        };
        let areas = |ports: (u16, u16)| blocks.iter().map(move |block| (ranges::span(*block), ports));
        match &one.traffic {
            Match::All => all.extend(&blocks),
            Match::Tcp { ports } => tcp.extend(areas((*ports).into())),
            Match::Udp { ports } => udp.extend(areas((*ports).into())),
            Match::Icmp { kind } => icmp.extend(areas(type_and_code(*kind))),
        }
    }
    let line =
        |((span, ports), transport): (Area, &str)| format!("{} . {transport} . {}", ranges::text(span), numbers(ports));
    let ported = [(tcp, "tcp"), (udp, "udp")].into_iter();
    let elements = ported.flat_map(|(areas, name)| ranges::disjoint(&areas).into_iter().map(move |area| (area, name)));
    let elements = elements.map(line).collect();
    if let Some(set) = versioned(draft, name, "ports", "ipv4_addr . inet_proto . inet_service", elements) {
        chain.push(rule(
            "ports",
            [expr::within(&[peer, Key::Transport, Key::Port], &set), verdict(peer)],
        ));
    }
    let elements = ranges::disjoint(&icmp).into_iter();
    let elements = elements
        .map(|(span, codes)| format!("{} . {}", ranges::text(span), numbers(codes)))
        .collect();
    if let Some(set) = versioned(draft, name, "icmp", "ipv4_addr . inet_service", elements) {
        let is_icmp = expr::is(Key::Transport, expr::any_of(&["icmp"]));
        chain.push(rule(
            "ICMP",
            [
                is_icmp,
                expr::within(&[peer, Key::IcmpTypeAndCode], &set),
                verdict(peer),
            ],
        ));
    }
    let everything: BTreeSet<Span> = Ipv4Net::aggregate(&all).into_iter().map(ranges::span).collect();
    if let Some(set) = versioned(draft, name, "all", "ipv4_addr", super::networks(everything)) {
        chain.push(rule("all protocols", [expr::within(&[peer], &set), verdict(peer)]));
    }
    chain
}

/// Adds an interval set whose name follows from its content: changed content is another set, built beside the old one
/// and swapped by the rule that names it, because flushing a large one takes seconds.
fn versioned(draft: &mut Draft, chain: &str, what: &str, kind: &str, elements: BTreeSet<String>) -> Option<String> {
    if elements.is_empty() {
        return None;
    }
    let text: Vec<&str> = elements.iter().map(String::as_str).collect();
    let name = format!("{chain}-{what}-{:016x}", fnv1a(text.join("\n").as_bytes()));
    draft.set(&name, kind, true, elements);
    Some(name)
}

fn numbers((from, to): (u16, u16)) -> String {
    if from == to {
        from.to_string()
    } else {
        format!("{from}-{to}")
    }
}

/// Type and code as the first two bytes of the ICMP header, most significant first.
pub(super) fn type_and_code(kind: Option<(u8, Option<u8>)>) -> (u16, u16) {
    match kind {
        None => RangeInclusive16::ALL.into(),
        Some((kind, None)) => (u16::from_be_bytes([kind, 0]), u16::from_be_bytes([kind, 0xff])),
        Some((kind, Some(code))) => (u16::from_be_bytes([kind, code]), u16::from_be_bytes([kind, code])),
    }
}

/// Matches traffic in a rule.
pub(super) fn traffic(traffic: &Match) -> Vec<Value> {
    let of = |name: &str, key: Key, (from, to): (u16, u16)| {
        let mut all = vec![expr::is(Key::Transport, expr::any_of(&[name]))];
        if (from, to) != RangeInclusive16::ALL.into() {
            all.push(expr::is(key, expr::number_range(from, to)));
        }
        all
    };
    match traffic {
        Match::All => Vec::new(),
        Match::Tcp { ports } => of("tcp", Key::Port, (*ports).into()),
        Match::Udp { ports } => of("udp", Key::Port, (*ports).into()),
        Match::Icmp { kind } => of("icmp", Key::IcmpTypeAndCode, type_and_code(*kind)),
    }
}
