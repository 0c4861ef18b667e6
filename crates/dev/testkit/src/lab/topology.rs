//! Random VPCs and flows, for tests: made from a tape of numbers, so that a shorter tape or smaller numbers make a
//! smaller case. The tests of `netplan` are built from this same file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "generators of tests"
)]

use ipnet::Ipv4Net;
use isolarium_netplan::id::{
    AclId, EndpointId, GroupId, InterfaceId, InternetGatewayId, NatGatewayId, PrefixListId, RouteTableId, SubnetId,
    VpcId,
};
use isolarium_netplan::intent::vpc::{
    AclEntry, CheckedVpc, Dns, GroupRule, Holder, Interface, Match, NatGateway, NetworkAcl, Peer, RouteTable,
    S3Endpoint, SecurityGroup, Subnet, Target, Vpc,
};
use isolarium_netplan::reach::{Flow, Origin, Traffic};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Numbers to choose by; zeros when they run out.
pub struct Tape<'a> {
    numbers: &'a [u32],
}

impl<'a> Tape<'a> {
    pub fn new(numbers: &'a [u32]) -> Self {
        Self { numbers }
    }

    fn below(&mut self, limit: usize) -> usize {
        let (first, rest) = self.numbers.split_first().unwrap_or((&0, &[]));
        self.numbers = rest;
        usize::try_from(*first).unwrap() % limit
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

fn block(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

const PEERS: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.1.0/24",
    "10.0.0.10/32",
    "10.0.1.10/31",
    "203.0.113.0/24",
    "203.0.113.0/25",
    "198.18.128.0/20",
    "198.18.128.9/32",
    "8.0.0.0/8",
    "169.254.0.0/16",
];
const DESTINATIONS: [&str; 9] = [
    "0.0.0.0/0",
    "203.0.113.0/24",
    "203.0.113.4/30",
    "8.0.0.0/8",
    "198.18.128.0/20",
    "198.18.128.0/24",
    "10.0.0.0/8",
    "192.168.0.0/16",
    "128.0.0.0/1",
];

fn traffic(tape: &mut Tape<'_>) -> Match {
    let ports = [
        (0, 65535),
        (80, 80),
        (443, 443),
        (1, 1023),
        (1024, 65535),
        (79, 500),
        (32768, 61000),
        (22, 22),
    ];
    match tape.below(8) {
        0..=2 => Match::All,
        3..=4 => Match::Tcp {
            ports: tape.pick(&ports).try_into().unwrap(),
        },
        5 => Match::Udp {
            ports: tape.pick(&ports).try_into().unwrap(),
        },
        _ => Match::Icmp {
            kind: tape.pick(&[
                None,
                Some((8, None)),
                Some((8, Some(0))),
                Some((0, None)),
                Some((3, Some(4))),
            ]),
        },
    }
}

fn group_rules(tape: &mut Tape<'_>, groups: usize, lists: &[PrefixListId]) -> BTreeSet<GroupRule> {
    let mut rules = BTreeSet::new();
    if tape.chance(75) {
        rules.insert(GroupRule {
            traffic: Match::All,
            peer: Peer::Block(block("0.0.0.0/0")),
        });
    }
    for _ in 0..tape.below(5) {
        let peer = match tape.below(4) {
            0..=1 => Peer::Block(block(tape.pick(&PEERS))),
            2 => Peer::Group(GroupId::of(u128::try_from(tape.below(groups)).unwrap())),
            _ => Peer::PrefixList(tape.pick(lists)),
        };
        rules.insert(GroupRule {
            traffic: traffic(tape),
            peer,
        });
    }
    rules
}

fn acl_entries(tape: &mut Tape<'_>) -> BTreeMap<u16, AclEntry> {
    let mut entries = BTreeMap::new();
    let few = if tape.chance(50) { 0 } else { tape.below(4) };
    for number in 0..u16::try_from(few).unwrap() {
        let entry = AclEntry {
            allow: tape.chance(50),
            traffic: traffic(tape),
            peer: block(tape.pick(&PEERS)),
        };
        entries.insert(number * 10 + 10, entry);
    }
    if tape.chance(90) {
        entries.insert(
            1000,
            AclEntry {
                allow: true,
                traffic: Match::All,
                peer: block("0.0.0.0/0"),
            },
        );
    }
    entries
}

/// Addresses of interface `n` in subnet `s`.
fn private(subnet: usize, n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, u8::try_from(subnet).unwrap(), u8::try_from(10 + n).unwrap())
}

pub fn vpc(tape: &mut Tape<'_>) -> CheckedVpc {
    let number = |n: usize| u128::try_from(n).unwrap();
    let (subnets, tables, acls) = (1 + tape.below(3), 1 + tape.below(3), 1 + tape.below(3));
    let (groups, nats, count) = (1 + tape.below(4), tape.below(3), 2 + tape.below(5));
    let s3_list = PrefixListId::of(0);
    let lists = [s3_list, PrefixListId::of(1)];
    let gateway = tape.chance(80).then(|| InternetGatewayId::of(1));
    let interface_id = |n: usize| InterfaceId::of(0x100 + number(n));
    let nat_interface = |n: usize| InterfaceId::of(0x200 + number(n));

    let mut interfaces = BTreeMap::new();
    let workload = |n: usize| format!("w-{n:017x}").parse().unwrap();
    for n in 0..count {
        let subnet = tape.below(subnets);
        let carried = 1 + tape.below(groups.min(2));
        let holder = match tape.below(12) {
            0..=5 => Holder::Program,
            6..=7 => Holder::Container(workload(n)),
            8 => Holder::Transfer(workload(n)),
            9 => Holder::Endpoint(EndpointId::of(9)),
            10 => Holder::Nobody,
            _ => Holder::Isolated(workload(n)),
        };
        let program = holder == Holder::Program;
        let interface = Interface {
            subnet: SubnetId::of(number(subnet)),
            primary: private(subnet, n),
            secondary: tape.chance(20).then(|| private(subnet, n + 50)).into_iter().collect(),
            groups: (0..carried).map(|_| GroupId::of(number(tape.below(groups)))).collect(),
            source_dest_check: !(program && tape.chance(30)),
            public: (program && tape.chance(60)).then(|| Ipv4Addr::new(192, 0, 3, u8::try_from(n + 1).unwrap())),
            holder,
        };
        interfaces.insert(interface_id(n), interface);
    }
    let mut nat_gateways = BTreeMap::new();
    for n in 0..nats {
        let (id, subnet) = (NatGatewayId::of(number(n)), tape.below(subnets));
        let interface = Interface {
            subnet: SubnetId::of(number(subnet)),
            primary: private(subnet, n + 100),
            secondary: BTreeSet::new(),
            groups: BTreeSet::new(),
            source_dest_check: false,
            public: None,
            holder: Holder::Nat(id),
        };
        interfaces.insert(nat_interface(n), interface);
        let elastic_ip = Ipv4Addr::new(192, 0, 3, u8::try_from(n + 200).unwrap());
        nat_gateways.insert(
            id,
            NatGateway {
                interface: nat_interface(n),
                elastic_ip,
            },
        );
    }
    let mut route_tables = BTreeMap::new();
    for n in 0..tables {
        let mut routes = BTreeMap::new();
        for _ in 0..tape.below(6) {
            let destination = if tape.chance(50) {
                "0.0.0.0/0"
            } else {
                tape.pick(&DESTINATIONS)
            };
            let target = match (tape.below(8), gateway) {
                (0..=2, Some(gateway)) => Target::InternetGateway(gateway),
                (3..=5, _) if nats > 0 => Target::NatGateway(NatGatewayId::of(number(tape.below(nats)))),
                (6, _) => Target::Interface(interface_id(tape.below(count))),
                _ => Target::Blackhole,
            };
            routes.insert(block(destination), target);
        }
        route_tables.insert(RouteTableId::of(number(n)), RouteTable { routes });
    }
    let mut s3_endpoints = BTreeMap::new();
    if tape.chance(80) {
        let chosen = (0..tables)
            .filter(|_| tape.chance(60))
            .map(|n| RouteTableId::of(number(n)))
            .collect();
        s3_endpoints.insert(
            EndpointId::of(1),
            S3Endpoint {
                prefix_list: s3_list,
                route_tables: chosen,
            },
        );
    }
    let vpc = Vpc {
        id: VpcId::of(1),
        blocks: vec![block("10.0.0.0/16")],
        dns: Dns {
            support: tape.chance(80),
            hostnames: false,
            domain_name: None,
            servers: Vec::new(),
        },
        subnets: (0..subnets)
            .map(|n| {
                let subnet = Subnet {
                    block: Ipv4Net::new(Ipv4Addr::new(10, 0, u8::try_from(n).unwrap(), 0), 24).unwrap(),
                    zone: "a".into(),
                    route_table: RouteTableId::of(number(tape.below(tables))),
                    acl: AclId::of(number(tape.below(acls))),
                };
                (SubnetId::of(number(n)), subnet)
            })
            .collect(),
        acls: (0..acls)
            .map(|n| {
                (
                    AclId::of(number(n)),
                    NetworkAcl {
                        ingress: acl_entries(tape),
                        egress: acl_entries(tape),
                    },
                )
            })
            .collect(),
        groups: (0..groups)
            .map(|n| {
                let group = SecurityGroup {
                    ingress: group_rules(tape, groups, &lists),
                    egress: group_rules(tape, groups, &lists),
                };
                (GroupId::of(number(n)), group)
            })
            .collect(),
        prefix_lists: BTreeMap::from([
            (s3_list, BTreeSet::from([block("198.18.128.0/20")])),
            (
                lists[1],
                BTreeSet::from([block("10.0.1.0/24"), block("8.8.0.0/16"), block("203.0.113.5/32")]),
            ),
        ]),
        route_tables,
        internet_gateway: gateway,
        nat_gateways,
        interfaces,
        peers_only: false,
        s3_endpoints,
        interface_endpoints: BTreeMap::new(),
    };
    vpc.check().expect("the generator makes VPCs that fit together")
}

const PLACES: [&str; 16] = [
    "198.18.128.9",
    "198.18.143.255",
    "203.0.113.5",
    "203.0.113.200",
    "8.8.8.8",
    "198.18.128.9",
    "198.18.0.1",
    "10.0.0.2",
    "169.254.169.253",
    "169.254.170.2",
    "10.0.0.200",
    "10.0.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "10.0.9.9",
    "198.19.0.1",
];

pub fn flow(tape: &mut Tape<'_>, vpc: &Vpc) -> Flow {
    let ids: Vec<InterfaceId> = vpc.interfaces.keys().copied().collect();
    let addresses: Vec<Ipv4Addr> = vpc.interfaces.values().flat_map(Interface::addresses).collect();
    let outside = ["203.0.113.5", "203.0.113.200", "8.8.8.8", "198.18.128.9"].map(|text| text.parse().unwrap());
    let from_port = tape.pick(&[40000, 1024, 50, 33000]);
    let to_port = tape.pick(&[80, 443, 443, 53, 22, 8080]);
    let traffic = match tape.below(6) {
        0..=2 => Traffic::Tcp {
            from: from_port,
            to: to_port,
        },
        3 => Traffic::Udp {
            from: from_port,
            to: to_port,
        },
        4 => Traffic::Icmp { kind: 8, code: 0 },
        _ => Traffic::Icmp { kind: 3, code: 4 },
    };
    if tape.chance(25) {
        let nats = vpc.nat_gateways.values().map(|nat| nat.elastic_ip);
        let mut public: Vec<Ipv4Addr> = vpc
            .interfaces
            .values()
            .filter_map(|one| one.public)
            .chain(nats)
            .collect();
        public.extend([addresses[0], Ipv4Addr::new(192, 0, 3, 99)]);
        return Flow {
            from: Origin::Internet(tape.pick(&outside)),
            to: tape.pick(&public),
            traffic,
        };
    }
    let id = tape.pick(&ids);
    let interface = &vpc.interfaces[&id];
    let own: Vec<Ipv4Addr> = interface.addresses().collect();
    let forged = interface.source_dest_check && tape.chance(10);
    let source = if forged { tape.pick(&addresses) } else { tape.pick(&own) };
    let to = if tape.chance(50) {
        tape.pick(&addresses)
    } else {
        tape.pick(&PLACES).parse().unwrap()
    };
    Flow {
        from: Origin::Interface { id, source },
        to,
        traffic,
    }
}
