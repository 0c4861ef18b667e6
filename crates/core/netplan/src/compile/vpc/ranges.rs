//! Address ranges without overlap: nft refuses overlapping elements, and a packet has one longest prefix.

use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// First and last number of a range.
pub(super) type Span = (u32, u32);

/// First and last address of a network.
pub(super) fn span(block: Ipv4Net) -> Span {
    (block.network().into(), block.broadcast().into())
}

/// As nft writes it: an address, a network, or two addresses.
pub(super) fn text((from, to): Span) -> String {
    let address = Ipv4Addr::from(from);
    if from == to {
        return address.to_string();
    }
    let nets: Vec<Ipv4Net> = ipnet::Ipv4Subnets::new(address, Ipv4Addr::from(to), 0)
        .take(2)
        .collect();
    match nets.as_slice() {
        [one] => one.to_string(),
        _ => format!("{address}-{}", Ipv4Addr::from(to)),
    }
}

/// Where ranges begin, and one past where they end, in ascending order.
fn cuts(spans: impl Iterator<Item = Span>) -> Vec<u64> {
    let ends = spans.flat_map(|(from, to)| [u64::from(from), u64::from(to) + 1]);
    ends.collect::<BTreeSet<u64>>().into_iter().collect()
}

fn between(cuts: &[u64]) -> impl Iterator<Item = Span> {
    cuts.iter()
        .zip(cuts.iter().skip(1))
        .filter_map(|(from, next)| Some((u32::try_from(*from).ok()?, u32::try_from(next.checked_sub(1)?).ok()?)))
}

/// Every address with what its longest prefix leads to; addresses without any are left out.
pub(super) fn flatten<T: Clone + PartialEq>(entries: &BTreeMap<Ipv4Net, T>) -> Vec<(Span, T)> {
    let mut all: Vec<(Span, T)> = Vec::new();
    for (from, to) in between(&cuts(entries.keys().map(|block| span(*block)))) {
        let holding = entries
            .iter()
            .filter(|(block, _)| block.contains(&Ipv4Addr::from(from)));
        let Some((_, value)) = holding.max_by_key(|(block, _)| block.prefix_len()) else {
            continue;
        };
        match all.last_mut() {
            Some(((_, end), before)) if before == value && u64::from(*end) + 1 == u64::from(from) => *end = to,
            _ => all.push(((from, to), value.clone())),
        }
    }
    all
}

/// The common part of two ranges.
pub(super) fn meet(a: Span, b: Span) -> Option<Span> {
    let both = (a.0.max(b.0), a.1.min(b.1));
    (both.0 <= both.1).then_some(both)
}

/// What is left of ranges after others are taken away, in ascending order.
pub(super) fn without(blocks: &[Ipv4Net], holes: &[Ipv4Net]) -> Vec<Span> {
    let entries = blocks.iter().chain(holes).map(|block| span(*block));
    let inside = |set: &[Ipv4Net], at: u32| set.iter().any(|block| block.contains(&Ipv4Addr::from(at)));
    let mut all: Vec<Span> = Vec::new();
    for (from, to) in between(&cuts(entries)).filter(|(from, _)| inside(blocks, *from) && !inside(holes, *from)) {
        match all.last_mut() {
            Some((_, end)) if u64::from(*end) + 1 == u64::from(from) => *end = to,
            _ => all.push((from, to)),
        }
    }
    all
}

/// A range of addresses and a range of ports.
pub(super) type Area = (Span, (u16, u16));

/// The same addresses and ports as `areas`, without overlap.
pub(super) fn disjoint(areas: &[Area]) -> Vec<Area> {
    let cuts = cuts(areas.iter().map(|(span, _)| *span));
    let mut begins: Vec<&Area> = areas.iter().collect();
    begins.sort_unstable();
    let mut begins = begins.into_iter().peekable();
    // Areas that hold the current address, by the address where they end.
    let mut open: BTreeSet<(u32, (u16, u16))> = BTreeSet::new();
    let mut rows: Vec<(Span, Vec<(u16, u16)>)> = Vec::new();
    for (from, to) in between(&cuts) {
        while let Some(((_, end), ports)) = begins.next_if(|((begin, _), _)| *begin <= from) {
            open.insert((*end, *ports));
        }
        while open.first().is_some_and(|(end, _)| *end < from) {
            open.pop_first();
        }
        let ports = join(open.iter().map(|(_, ports)| *ports).collect());
        if ports.is_empty() {
            continue;
        }
        match rows.last_mut() {
            Some(((_, end), before)) if *before == ports && u64::from(*end) + 1 == u64::from(from) => *end = to,
            _ => rows.push(((from, to), ports)),
        }
    }
    rows.into_iter()
        .flat_map(|(span, ports)| ports.into_iter().map(move |ports| (span, ports)))
        .collect()
}

fn join(mut ports: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ports.sort_unstable();
    let mut all: Vec<(u16, u16)> = Vec::new();
    for (from, to) in ports {
        match all.last_mut() {
            Some((_, end)) if u32::from(from) <= u32::from(*end) + 1 => *end = to.max(*end),
            _ => all.push((from, to)),
        }
    }
    all
}
