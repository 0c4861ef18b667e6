//! Which way packets leave a subnet: the route table's answer for every destination.

use super::ranges::{self, Span};
use crate::id::{InterfaceId, NatGatewayId, RouteTableId};
use crate::intent::vpc::{Target, Vpc};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;

/// What a route of a subnet's table means for the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The S3 gateway endpoint: served here.
    Served,
    Target(Target),
    /// No route (NET-26).
    Nowhere,
}

/// The table's routes, those of gateway endpoints and the final "nowhere" included, local ones left out.
pub(super) fn ways(vpc: &Vpc, table: RouteTableId) -> BTreeMap<Ipv4Net, Way> {
    let mut all = BTreeMap::from([(Ipv4Net::default(), Way::Nowhere)]);
    for endpoint in vpc
        .s3_endpoints
        .values()
        .filter(|endpoint| endpoint.route_tables.contains(&table))
    {
        let listed = vpc.prefix_lists.get(&endpoint.prefix_list).into_iter().flatten();
        all.extend(listed.map(|block| (*block, Way::Served)));
    }
    // A static route beats one of a prefix list (NET-25).
    let fixed = vpc.route_tables.get(&table).into_iter().flat_map(|table| &table.routes);
    all.extend(fixed.map(|(destination, target)| (*destination, Way::Target(*target))));
    all
}

/// Source and destination ranges that leave by the internet gateway directly.
pub(super) fn by_internet_gateway(vpc: &Vpc) -> Vec<(Ipv4Net, Span)> {
    let mut all = Vec::new();
    for subnet in vpc.subnets.values() {
        all.extend(to_internet_gateway(vpc, subnet.route_table).map(|span| (subnet.block, span)));
    }
    all
}

fn to_internet_gateway(vpc: &Vpc, table: RouteTableId) -> impl Iterator<Item = Span> {
    let flat = ranges::flatten(&ways(vpc, table)).into_iter();
    flat.filter_map(|(span, way)| matches!(way, Way::Target(Target::InternetGateway(_))).then_some(span))
}

/// Source and destination ranges that leave by a NAT gateway: the sender's table leads there, and the table of the
/// gateway's own subnet from there to the internet gateway (NET-29).
pub(super) fn by_nat_gateway(vpc: &Vpc, nat: NatGatewayId) -> Vec<(Ipv4Net, Span)> {
    let own = vpc
        .nat_gateways
        .get(&nat)
        .and_then(|nat| vpc.interfaces.get(&nat.interface));
    let Some(own) = own.and_then(|interface| vpc.subnets.get(&interface.subnet)) else {
        return Vec::new();
    };
    let onward: Vec<Span> = to_internet_gateway(vpc, own.route_table).collect();
    let mut all = Vec::new();
    for subnet in vpc.subnets.values() {
        let flat = ranges::flatten(&ways(vpc, subnet.route_table)).into_iter();
        for (span, _) in flat.filter(|(_, way)| *way == Way::Target(Target::NatGateway(nat))) {
            let both = onward.iter().filter_map(|other| ranges::meet(span, *other));
            all.extend(both.map(|both| (subnet.block, both)));
        }
    }
    all
}

/// Destinations that a table leads to an interface, without overlap.
pub(super) fn to_interface(vpc: &Vpc, table: RouteTableId, id: InterfaceId) -> Vec<Ipv4Net> {
    let routes = || {
        vpc.route_tables
            .get(&table)
            .into_iter()
            .flat_map(|table| table.routes.values())
    };
    if !routes().any(|target| *target == Target::Interface(id)) {
        return Vec::new();
    }
    let flat = ranges::flatten(&ways(vpc, table)).into_iter();
    let led = flat.filter(|(_, way)| *way == Way::Target(Target::Interface(id)));
    led.flat_map(|((from, to), _)| ipnet::Ipv4Subnets::new(from.into(), to.into(), 0))
        .collect()
}
