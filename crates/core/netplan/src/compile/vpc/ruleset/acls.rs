//! Network ACLs: asked at the borders of subnets, of every packet (NET-22).

use super::{Draft, PATH, PATH_BACK, groups, pairs, rule};
use crate::compile::vpc::ranges;
use crate::intent::vpc::{AclEntry, Match, Vpc};
use crate::plan::LinkName;
use crate::ruleset::Rule;
use crate::ruleset::expr::{self, Key};
use std::collections::BTreeMap;

pub(super) fn compile(vpc: &Vpc, draft: &mut Draft) {
    for (id, acl) in &vpc.acls {
        draft.chain(format!("{id}-in"), entries(&acl.ingress, Key::Source, "refuse_ingress"));
        draft.chain(
            format!("{id}-out"),
            entries(&acl.egress, Key::Destination, "refuse_egress"),
        );
    }
    for direction in ["in", "out"] {
        let elements = vpc
            .subnets
            .values()
            .map(|subnet| format!("{} : jump {}-{direction}", subnet.block, subnet.acl));
        draft.map(
            &format!("acl_{direction}"),
            "ipv4_addr",
            "verdict",
            true,
            elements.collect(),
        );
    }
    let same: Vec<_> = vpc
        .subnets
        .values()
        .map(|subnet| (subnet.block, ranges::span(subnet.block)))
        .collect();
    draft.set("same_subnet", "ipv4_addr . ipv4_addr", true, pairs(&same));

    // Interfaces without source/destination check: their packets' addresses do not tell which border is crossed.
    let free = || {
        let free = vpc
            .interfaces
            .iter()
            .filter(|(_, one)| one.is_attached() && !one.source_dest_check);
        free.filter_map(|(id, one)| Some((LinkName::of_interface(*id), vpc.subnets.get(&one.subnet)?)))
    };
    let near = free().map(|(link, subnet)| format!("{} . {link}", subnet.block));
    draft.set("to_same_subnet", "ipv4_addr . ifname", true, near.collect());
    for direction in ["in", "out"] {
        let elements = free().map(|(link, subnet)| format!("{link} : jump {}-{direction}", subnet.acl));
        draft.map(
            &format!("acl_through_{direction}"),
            "ifname",
            "verdict",
            false,
            elements.collect(),
        );
    }

    if !ask(vpc) {
        draft.chain("acl", Vec::new());
        for id in vpc.nat_gateways.keys() {
            draft.chain(format!("{id}-acl"), Vec::new());
        }
        return;
    }

    let uplink = LinkName::uplink();
    let (out, back) = (expr::goes_to(uplink.as_str()), expr::comes_from(uplink.as_str()));
    let mut rules = vec![
        // NET-18: the resolver's address lies in a subnet, and nothing filters it.
        rule(
            "to the platform",
            [expr::within(&[Key::Destination], "unfiltered"), expr::back()],
        ),
        rule(
            "from the platform",
            [expr::within(&[Key::Source], "unfiltered"), expr::back()],
        ),
        rule("inside one subnet", [expr::within(&PATH, "same_subnet"), expr::back()]),
        rule(
            "to a router in the subnet",
            [
                expr::within(&[Key::Source, Key::OutLink], "to_same_subnet"),
                expr::back(),
            ],
        ),
        rule(
            "from a router in the subnet",
            [
                expr::within(&[Key::Destination, Key::InLink], "to_same_subnet"),
                expr::back(),
            ],
        ),
        rule("leaves its subnet", [expr::dispatch(&[Key::Source], "acl_out")]),
        rule(
            "passes out of a subnet",
            [expr::dispatch(&[Key::InLink], "acl_through_out")],
        ),
    ];
    for (id, nat) in &vpc.nat_gateways {
        let interface = vpc.interfaces.get(&nat.interface);
        let Some(subnet) = interface.and_then(|interface| vpc.subnets.get(&interface.subnet)) else {
            continue;
        };
        // Packets enter the gateway's subnet and leave it again, in both directions.
        let (set, through) = (id.to_string(), format!("{id}-acl"));
        let ask = |direction: &str| {
            rule(
                "the gateway's subnet",
                [expr::jump(&format!("{}-{direction}", subnet.acl))],
            )
        };
        draft.chain(through.clone(), vec![ask("in"), ask("out")]);
        rules.push(rule(
            "to the NAT gateway",
            [out.clone(), expr::within(&PATH, &set), expr::jump(&through)],
        ));
        rules.push(rule(
            "from the NAT gateway",
            [
                back.clone(),
                expr::is_reply(),
                expr::within(&PATH_BACK, &set),
                expr::jump(&through),
            ],
        ));
    }
    rules.push(rule(
        "passes into a subnet",
        [expr::dispatch(&[Key::OutLink], "acl_through_in")],
    ));
    rules.push(rule("enters a subnet", [expr::dispatch(&[Key::Destination], "acl_in")]));
    draft.chain("acl", rules);
}

/// Whether any entry can refuse a packet. Where none can, as with default ACLs, no packet is asked.
pub(super) fn ask(vpc: &Vpc) -> bool {
    let open = |entries: &BTreeMap<u16, AclEntry>| {
        let first = entries.values().next();
        first.is_some_and(|entry| entry.allow && entry.traffic == Match::All && entry.peer.prefix_len() == 0)
    };
    let mut used = vpc.subnets.values().filter_map(|subnet| vpc.acls.get(&subnet.acl));
    !used.all(|acl| open(&acl.ingress) && open(&acl.egress))
}

fn entries(entries: &BTreeMap<u16, AclEntry>, peer: Key, refuse: &str) -> Vec<Rule> {
    let one = |(number, entry): (&u16, &AclEntry)| {
        let mut expr = Vec::new();
        if entry.peer.prefix_len() > 0 {
            expr.push(expr::is(peer, expr::network(entry.peer)));
        }
        expr.extend(groups::traffic(&entry.traffic));
        expr.push(if entry.allow { expr::back() } else { expr::goto(refuse) });
        Rule {
            why: format!("entry {number}"),
            expr,
        }
    };
    let mut all: Vec<Rule> = entries.iter().map(one).collect();
    all.push(rule("final deny", [expr::goto(refuse)]));
    all
}
