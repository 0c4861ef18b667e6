//! Why S3 is not reached from a subnet, in words for the owner of the job (SM-64): every setting that stands in the way,
//! by its id.

use ipnet::Ipv4Net;
use isolarium_netplan::id::InterfaceId;
use isolarium_netplan::intent::vpc::CheckedVpc;
use isolarium_netplan::reach::{Block, Direction, Flow, Leg, Origin, Traffic, Verdict, reach};
use std::net::Ipv4Addr;

/// What SM-64 says whenever the data of a job cannot be moved through its subnets.
pub const NO_PATH: &str = "Please ensure that the subnet's route table has a route to an S3 VPC endpoint or a NAT device, and both the security groups and the subnet's network ACL allow outbound traffic to S3.";

/// Source ports that clients use; the oracle wants one.
const CLIENT_PORT: u16 = 49_152;

/// What stands in the way of a connection from an interface. `None` when nothing that the VPC's owner set does.
pub fn blocked(
    vpc: &CheckedVpc,
    services: &[Ipv4Net],
    from: InterfaceId,
    to: Ipv4Addr,
    traffic: Port,
) -> Option<String> {
    let source = vpc.interfaces.get(&from)?.primary;
    let traffic = match traffic {
        Port::Tcp(to) => Traffic::Tcp { from: CLIENT_PORT, to },
        Port::Udp(to) => Traffic::Udp { from: CLIENT_PORT, to },
    };
    let flow = Flow {
        from: Origin::Interface { id: from, source },
        to,
        traffic,
    };
    match reach(vpc, services, &flow) {
        Verdict::Reached { .. } => None,
        Verdict::Blocked { by } => {
            let texts: Vec<String> = by.iter().map(|block| words(block, to)).collect();
            Some(texts.join("; "))
        }
    }
}

/// The port that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Tcp(u16),
    Udp(u16),
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn of(leg: Leg) -> &'static str {
    match leg {
        Leg::Request => "",
        Leg::Reply => " for the answers",
    }
}

fn words(block: &Block, to: Ipv4Addr) -> String {
    match block {
        Block::NoRoute { table, leg } => format!("the route table {table} has no route to {to}{}", of(*leg)),
        Block::Blackhole { table, destination, .. } => {
            format!("the route to {destination} in the route table {table} is a blackhole")
        }
        Block::OtherRoute { table, destination, .. } => {
            format!("the route to {destination} in the route table {table} leads elsewhere")
        }
        Block::NoGroupRule { groups, direction, .. } => {
            let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
            format!("no {} rule of {} allows it", way(*direction), groups.join(", "))
        }
        Block::Acl {
            acl,
            direction,
            rule,
            leg,
        } => match rule {
            Some(rule) => format!("the {} entry {rule} of {acl} denies it{}", way(*direction), of(*leg)),
            None => format!("no {} entry of {acl} allows it{}", way(*direction), of(*leg)),
        },
        Block::NoPublicAddress { gateway, .. } => format!(
            "the route to {gateway} serves public addresses alone, which jobs never have; a NAT gateway or an S3 endpoint \
             would serve it"
        ),
        Block::NoInternetGateway => "the VPC has no internet gateway".into(),
        Block::NatWithoutInternet { nat, table } => {
            format!("{nat} has no route to an internet gateway in its route table {table}")
        }
        Block::NatRefusesInbound(nat) => format!("{nat} begins no connection inwards"),
        Block::DnsSupportOff => "the VPC's attribute enableDnsSupport is false".into(),
        Block::Unassigned(address) => format!("nobody in the VPC has the address {address}"),
        Block::NotOnInternet(address) => format!("the address {address} is not on the internet"),
        Block::NotServed(address) => format!("{address} does not serve it"),
        Block::NotAttached(interface) => format!("{interface} is not attached"),
        Block::Isolated(interface) => format!("{interface} belongs to an isolated container"),
        Block::SourceDestCheck(interface) => format!("{interface} takes its own addresses alone"),
        Block::NoSuchInterface(interface) | Block::BeginsNothing(interface) => {
            format!("{interface} begins no connection")
        }
    }
}
