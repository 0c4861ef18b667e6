//! Which rule decided about a record, by the oracle.

use super::records::FlowRecord;
use crate::intent::vpc::CheckedVpc;
use crate::reach::{Block, Direction, Flow, Hop, Leg, Origin, Traffic, Verdict, reach};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// What decided about a record's traffic, as the VPC is now: for what passed the rule of a group and the entries of network
/// ACLs that let it, for what did not every setting in its way. Empty where the oracle knows nothing of it, such as the
/// answers of a connection, which pass with it.
pub fn explain(vpc: &CheckedVpc, services: &[Ipv4Net], record: &FlowRecord) -> Vec<String> {
    let (from, to) = (record.source_port, record.destination_port);
    let traffic = match record.protocol {
        6 => Traffic::Tcp { from, to },
        17 => Traffic::Udp { from, to },
        // Records keep no type: the one that programs send to be answered.
        1 => Traffic::Icmp { kind: 8, code: 0 },
        _ => return Vec::new(),
    };
    let source = record.packet_source;
    let sender = holder(vpc, source);
    let flow = Flow {
        from: match sender {
            Some(id) => Origin::Interface { id, source },
            None => Origin::Internet(source),
        },
        to: record.packet_destination,
        traffic,
    };
    match reach(vpc, services, &flow) {
        Verdict::Reached { path, .. } if record.accepted => path.into_iter().filter_map(|hop| passed(&hop)).collect(),
        // The rules let it go, and it was lost behind them.
        Verdict::Blocked { by } if record.direction == Direction::Egress && by.iter().all(is_way) => {
            by.iter().map(|block| format!("lost: {}", stopped(block))).collect()
        }
        // Its own side let it go; what the other side did is no answer to why.
        Verdict::Blocked { by } if !record.accepted => by.iter().map(stopped).collect(),
        Verdict::Reached { .. } | Verdict::Blocked { .. } => Vec::new(),
    }
}

/// What no rule and no entry decides.
fn is_way(block: &Block) -> bool {
    matches!(
        block,
        Block::NoRoute { .. }
            | Block::Blackhole { .. }
            | Block::NoPublicAddress { .. }
            | Block::NoInternetGateway
            | Block::NatWithoutInternet { .. }
            | Block::NotOnInternet(_)
    )
}

fn holder(vpc: &CheckedVpc, address: Ipv4Addr) -> Option<crate::id::InterfaceId> {
    let mut all = vpc.interfaces.iter();
    all.find(|(_, one)| one.addresses().any(|own| own == address))
        .map(|(id, _)| *id)
}

fn side(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "inbound",
        Direction::Egress => "outbound",
    }
}

fn leg(leg: Leg) -> &'static str {
    match leg {
        Leg::Request => "",
        Leg::Reply => " (answers)",
    }
}

fn passed(hop: &Hop) -> Option<String> {
    match hop {
        Hop::Group { group, direction } => Some(format!("{group} {}", side(*direction))),
        Hop::Acl {
            acl,
            direction,
            rule,
            leg: of,
        } => Some(format!("{acl} {} {rule}{}", side(*direction), leg(*of))),
        Hop::S3Endpoint(id) => Some(id.to_string()),
        Hop::InternetGateway(id) => Some(id.to_string()),
        Hop::NatGateway(id) => Some(id.to_string()),
        Hop::Interface(_) | Hop::Route { .. } => None,
    }
}

fn stopped(block: &Block) -> String {
    match block {
        Block::NoGroupRule { groups, direction, .. } => {
            let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
            format!("no {} rule of {}", side(*direction), names.join(", "))
        }
        Block::Acl {
            acl,
            direction,
            rule,
            leg: of,
        } => {
            let entry = rule.map_or_else(|| "the final deny".to_owned(), |rule| rule.to_string());
            format!("{acl} {} {entry}{}", side(*direction), leg(*of))
        }
        Block::NoRoute { table, leg: of } => format!("{table} has no route{}", leg(*of)),
        Block::Blackhole {
            table,
            destination,
            leg: of,
        } => format!("{table} {destination} is a blackhole{}", leg(*of)),
        Block::OtherRoute {
            table,
            destination,
            leg: of,
        } => format!("{table} {destination} leads elsewhere{}", leg(*of)),
        Block::NoPublicAddress { interface, gateway } => format!("{interface} has no public address for {gateway}"),
        Block::NoInternetGateway => "no internet gateway".into(),
        Block::NatWithoutInternet { nat, table } => format!("{nat} has no way out by {table}"),
        Block::NatRefusesInbound(nat) => format!("{nat} takes no connections"),
        Block::Unassigned(address) => format!("nobody has {address}"),
        Block::NotOnInternet(address) => format!("{address} is not on the internet"),
        Block::NotServed(address) => format!("{address} serves nothing there"),
        Block::DnsSupportOff => "DNS support is off".into(),
        Block::SourceDestCheck(id) => format!("source/destination check of {id}"),
        Block::Isolated(id) => format!("{id} is of an isolated container"),
        Block::NotAttached(id) => format!("nobody holds {id}"),
        Block::NoSuchInterface(id) | Block::BeginsNothing(id) => format!("{id} begins nothing"),
    }
}
