//! What a VPC's networks promise, on the real kernel. Every refusal stands beside flows that arrive, in one lab.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod probes;

use isolarium_dataplane::kernel::netns;
use isolarium_netplan::flowlog::{Fate, FlowRecord, Refusal, attribute};
use isolarium_netplan::id::{
    AclId, EndpointId, GroupId, InterfaceId, InternetGatewayId, NatGatewayId, PrefixListId, RouteTableId, SubnetId,
    VpcId,
};
use isolarium_netplan::intent::vpc::{
    AclEntry, BadVpc, Dns, GroupRule, Holder, Interface, Match, NatGateway, NetworkAcl, Peer, RouteTable, S3Endpoint,
    SecurityGroup, Subnet, Target, Vpc,
};
use isolarium_netplan::plan::LinkName;
use isolarium_netplan::reach::{Arrival, Direction, Flow, Origin, Traffic};
use isolarium_testkit::lab::vpc::{VpcLab, run_in};
use isolarium_testkit::lab::wire::Packet;
use isolarium_testkit::lab::{Capture, Internet, Lab, Machine, Stub, probe};
use probes::Bench;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const A: u128 = 0xa;
const B: u128 = 0xb;
const C: u128 = 0xc;

fn eni(n: u128) -> InterfaceId {
    InterfaceId::of(n)
}

fn sg(n: u128) -> GroupId {
    GroupId::of(n)
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn to(peer: &str, traffic: Match) -> GroupRule {
    GroupRule {
        traffic,
        peer: Peer::Block(peer.parse().unwrap()),
    }
}

fn tcp_port(port: u16) -> Match {
    Match::Tcp {
        ports: (port, port).try_into().unwrap(),
    }
}

fn everything() -> BTreeSet<GroupRule> {
    BTreeSet::from([to("0.0.0.0/0", Match::All)])
}

fn program(subnet: u128, at: &str, group: u128) -> Interface {
    Interface {
        subnet: SubnetId::of(subnet),
        primary: address(at),
        secondary: BTreeSet::new(),
        groups: BTreeSet::from([sg(group)]),
        source_dest_check: true,
        public: None,
        holder: Holder::Program,
    }
}

fn open_acl() -> NetworkAcl {
    let all = AclEntry {
        allow: true,
        traffic: Match::All,
        peer: "0.0.0.0/0".parse().unwrap(),
    };
    NetworkAcl {
        ingress: BTreeMap::from([(100, all.clone())]),
        egress: BTreeMap::from([(100, all)]),
    }
}

/// Two subnets with a table and an ACL each. A and B share the first subnet, C is in the second. Group 1 is as made: no
/// ingress, all egress; group 2 admits everything.
fn base() -> Vpc {
    let subnet = |n: u8| Subnet {
        block: format!("10.0.{n}.0/24").parse().unwrap(),
        zone: "us-east-1a".into(),
        route_table: RouteTableId::of(n.into()),
        acl: AclId::of(n.into()),
    };
    let group = |ingress| SecurityGroup {
        ingress,
        egress: everything(),
    };
    Vpc {
        id: VpcId::of(1),
        blocks: vec!["10.0.0.0/16".parse().unwrap()],
        dns: Dns {
            support: true,
            hostnames: false,
            domain_name: None,
            servers: Vec::new(),
        },
        subnets: [1, 2].map(|n| (SubnetId::of(n.into()), subnet(n))).into(),
        acls: [1, 2].map(|n| (AclId::of(n), open_acl())).into(),
        groups: [(sg(1), group(BTreeSet::new())), (sg(2), group(everything()))].into(),
        prefix_lists: BTreeMap::from([(
            PrefixListId::of(1),
            BTreeSet::from(["198.18.128.0/20".parse().unwrap()]),
        )]),
        route_tables: [1, 2].map(|n| (RouteTableId::of(n), RouteTable::default())).into(),
        internet_gateway: None,
        nat_gateways: BTreeMap::new(),
        interfaces: BTreeMap::from([
            (eni(A), program(1, "10.0.1.10", 1)),
            (eni(B), program(1, "10.0.1.11", 2)),
            (eni(C), program(2, "10.0.2.12", 2)),
        ]),
        peers_only: false,
        s3_endpoints: BTreeMap::new(),
        interface_endpoints: BTreeMap::new(),
    }
}

fn with_gateway(mut vpc: Vpc) -> Vpc {
    vpc.internet_gateway = Some(InternetGatewayId::of(1));
    let target = Target::InternetGateway(InternetGatewayId::of(1));
    let table = vpc.route_tables.get_mut(&RouteTableId::of(1)).unwrap();
    table.routes.insert("0.0.0.0/0".parse().unwrap(), target);
    vpc
}

/// The second subnet's way out is a NAT gateway in the first.
fn with_nat(vpc: Vpc) -> Vpc {
    let mut vpc = with_gateway(vpc);
    let id = NatGatewayId::of(1);
    let interface = Interface {
        groups: BTreeSet::new(),
        source_dest_check: false,
        holder: Holder::Nat(id),
        ..program(1, "10.0.1.200", 1)
    };
    vpc.interfaces.insert(eni(0x200), interface);
    let gateway = NatGateway {
        interface: eni(0x200),
        elastic_ip: address("198.19.0.200"),
    };
    vpc.nat_gateways.insert(id, gateway);
    let table = vpc.route_tables.get_mut(&RouteTableId::of(2)).unwrap();
    table
        .routes
        .insert("0.0.0.0/0".parse().unwrap(), Target::NatGateway(id));
    vpc
}

fn source_of(vpc: &Vpc, from: u128) -> Ipv4Addr {
    vpc.interfaces[&eni(from)].primary
}

fn tcp(vpc: &Vpc, from: u128, ports: (u16, u16), at: &str) -> Flow {
    Flow {
        from: Origin::Interface {
            id: eni(from),
            source: source_of(vpc, from),
        },
        to: address(at),
        traffic: Traffic::Tcp {
            from: ports.0,
            to: ports.1,
        },
    }
}

fn udp(vpc: &Vpc, from: u128, ports: (u16, u16), at: &str) -> Flow {
    Flow {
        traffic: Traffic::Udp {
            from: ports.0,
            to: ports.1,
        },
        ..tcp(vpc, from, ports, at)
    }
}

fn at(n: u128) -> Option<Arrival> {
    Some(Arrival::Interface(eni(n)))
}

fn quiet_lab() -> Lab {
    Lab::around(Internet::bare().unwrap()).unwrap()
}

/// Asks once about one intent.
fn ask(vpc: Vpc, flows: &[Flow]) -> Vec<Option<Arrival>> {
    let lab = quiet_lab();
    let vpc = VpcLab::new(&lab, vpc).unwrap();
    Bench::new(&vpc, &lab).ask(vpc.vpc(), flows)
}

/// Proves: NET-15
#[test]
fn a_new_group_admits_nobody_lets_everything_out_and_groups_are_a_union() {
    let lab = quiet_lab();
    let mut vpc = VpcLab::new(&lab, base()).unwrap();
    let flows = |vpc: &Vpc, port| {
        [
            tcp(vpc, B, (port, 443), "10.0.1.10"),
            tcp(vpc, A, (port, 443), "10.0.1.11"),
        ]
    };
    let found = Bench::new(&vpc, &lab).ask(vpc.vpc(), &flows(vpc.vpc(), 40000));
    assert_eq!(found, [None, at(B)]);
    vpc.edit(|vpc| {
        vpc.interfaces.get_mut(&eni(A)).unwrap().groups.insert(sg(2));
    })
    .unwrap();
    let found = Bench::new(&vpc, &lab).ask(vpc.vpc(), &flows(vpc.vpc(), 40001));
    assert_eq!(found, [at(A), at(B)], "the second group admits it");
    vpc.edit(|vpc| {
        vpc.interfaces.get_mut(&eni(A)).unwrap().groups.remove(&sg(2));
        vpc.groups.get_mut(&sg(1)).unwrap().egress.clear();
    })
    .unwrap();
    let found = Bench::new(&vpc, &lab).ask(vpc.vpc(), &flows(vpc.vpc(), 40002));
    assert_eq!(found, [None, None], "no egress rule left: nothing leaves");
}

/// Proves: NET-16
#[test]
fn answers_pass_without_a_rule_and_a_tracked_flow_outlives_its_rule() {
    let lab = quiet_lab();
    let mut intent = base();
    // Not everybody: EC2 would not track that.
    intent.groups.get_mut(&sg(2)).unwrap().ingress = BTreeSet::from([to("10.0.0.0/8", Match::All)]);
    let mut vpc = VpcLab::new(&lab, intent).unwrap();
    let bench = Bench::new(&vpc, &lab);
    let flow = |port| udp(vpc.vpc(), A, (port, 53), "10.0.1.11");
    // A's group has no ingress rule at all: the answer comes back because the flow is known.
    let (old, new) = (flow(40000), flow(40001));
    assert_eq!(bench.ask(vpc.vpc(), &[old]), [at(B)]);
    vpc.edit(|vpc| vpc.groups.get_mut(&sg(2)).unwrap().ingress.clear())
        .unwrap();
    assert_eq!(
        bench.ask(vpc.vpc(), &[old, new]),
        [at(B), None],
        "the old flow goes on, a new one meets the new rules"
    );
}

/// Proves: NET-16
#[test]
fn a_flow_that_ec2_would_not_track_ends_with_its_rule_and_tracked_ones_go_on() {
    let lab = quiet_lab();
    // B admits everybody by group 2 and, on one port, by group 3; what it admits of A's on the last port it tracks.
    let third = SecurityGroup {
        ingress: BTreeSet::from([to("0.0.0.0/0", tcp_port(9001))]),
        egress: BTreeSet::new(),
    };
    let fourth = SecurityGroup {
        ingress: BTreeSet::from([to("10.0.1.10/32", tcp_port(9002))]),
        egress: everything(),
    };
    let mut intent = base();
    intent.groups.insert(sg(3), third);
    intent.groups.insert(sg(4), fourth);
    intent.groups.get_mut(&sg(2)).unwrap().ingress = BTreeSet::from([to("0.0.0.0/0", tcp_port(9000))]);
    intent.interfaces.get_mut(&eni(B)).unwrap().groups = [2, 3, 4].map(sg).into();
    let mut vpc = VpcLab::new(&lab, intent).unwrap();
    let dial = |vpc: &VpcLab<'_>, port: u16| {
        let listener = netns::within(vpc.at(eni(B)), || TcpListener::bind(("0.0.0.0", port)).unwrap()).unwrap();
        let to = (address("10.0.1.11"), port).into();
        let stream = netns::within(vpc.at(eni(A)), || TcpStream::connect_timeout(&to, probe::PATIENCE)).unwrap()?;
        let (accepted, _) = listener.accept().unwrap();
        std::thread::spawn(move || echo(accepted));
        stream.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
        Ok::<_, std::io::Error>(stream)
    };
    let [mut open, mut other, mut tracked] = [9000, 9001, 9002].map(|port| dial(&vpc, port).unwrap());
    for stream in [&mut open, &mut other, &mut tracked] {
        exchange(stream).expect("control");
    }
    vpc.edit(|vpc| {
        vpc.groups.get_mut(&sg(2)).unwrap().ingress.clear();
        vpc.groups.get_mut(&sg(4)).unwrap().ingress.clear();
    })
    .unwrap();
    assert!(exchange(&mut open).is_err(), "nobody tracked it");
    exchange(&mut other).expect("its rule stands");
    exchange(&mut tracked).expect("it was tracked");
    for port in [9000, 9002] {
        assert!(dial(&vpc, port).is_err(), "new ones meet the new rules");
    }
    // The group goes from the interface; and what admitted it comes back before a packet was lost.
    vpc.edit(|vpc| vpc.interfaces.get_mut(&eni(B)).unwrap().groups = [2, 4].map(sg).into())
        .unwrap();
    assert!(exchange(&mut other).is_err());
    exchange(&mut tracked).expect("it was tracked");
    // An attempt that failed in between does not hide what stood before it.
    vpc.edit(|vpc| {
        vpc.groups.get_mut(&sg(2)).unwrap().ingress = BTreeSet::from([to("0.0.0.0/0", tcp_port(9003))]);
    })
    .unwrap();
    let mut late = dial(&vpc, 9003).unwrap();
    exchange(&mut late).expect("control");
    let router = vpc.router().unwrap();
    run_in(router.as_fd(), "nft", &["add", "table", "ip", "theirs"]).unwrap();
    let closed = |vpc: &mut Vpc| vpc.groups.get_mut(&sg(2)).unwrap().ingress.clear();
    assert!(vpc.edit(closed).is_err(), "a table of somebody else's is refused");
    run_in(router.as_fd(), "nft", &["delete", "table", "ip", "theirs"]).unwrap();
    vpc.edit(closed).unwrap();
    assert!(exchange(&mut late).is_err());
    exchange(&mut tracked).expect("it was tracked");
}

/// Proves: NET-17
#[test]
fn a_rule_about_a_group_follows_its_members() {
    let lab = quiet_lab();
    let mut intent = base();
    let rule = GroupRule {
        traffic: Match::All,
        peer: Peer::Group(sg(3)),
    };
    let third = SecurityGroup {
        ingress: BTreeSet::new(),
        egress: everything(),
    };
    intent.groups.insert(sg(3), third);
    intent.groups.get_mut(&sg(2)).unwrap().ingress = BTreeSet::from([rule]);
    let mut vpc = VpcLab::new(&lab, intent).unwrap();
    let bench = Bench::new(&vpc, &lab);
    let flow = |port| tcp(vpc.vpc(), A, (port, 443), "10.0.2.12");
    let (before, member, after) = (flow(40000), flow(40001), flow(40002));
    assert_eq!(bench.ask(vpc.vpc(), &[before]), [None]);
    let carry = |groups: &[u128]| {
        let groups: BTreeSet<GroupId> = groups.iter().map(|n| sg(*n)).collect();
        move |vpc: &mut Vpc| vpc.interfaces.get_mut(&eni(A)).unwrap().groups = groups
    };
    vpc.edit(carry(&[1, 3])).unwrap();
    assert_eq!(bench.ask(vpc.vpc(), &[member]), [at(C)], "control: a member now");
    vpc.edit(carry(&[1])).unwrap();
    assert_eq!(bench.ask(vpc.vpc(), &[after]), [None]);
}

/// Proves: NET-18
#[test]
fn the_resolver_and_the_credentials_are_filtered_by_nobody_and_nothing_else_of_the_router_answers() {
    let mut vpc = base();
    vpc.groups.get_mut(&sg(1)).unwrap().egress.clear();
    for acl in vpc.acls.values_mut() {
        *acl = NetworkAcl::default();
    }
    let flows = [
        udp(&vpc, A, (40000, 53), "10.0.0.2"),
        tcp(&vpc, A, (40000, 53), "169.254.169.253"),
        tcp(&vpc, A, (40001, 80), "169.254.170.2"),
        tcp(&vpc, A, (40002, 80), "10.0.0.2"),
        tcp(&vpc, A, (40003, 53), "10.0.1.1"),
        tcp(&vpc, A, (40004, 80), "169.254.169.254"),
        tcp(&vpc, A, (40005, 443), "10.0.2.12"),
    ];
    let found = ask(vpc, &flows);
    let resolver = Some(Arrival::Resolver);
    assert_eq!(
        found,
        [resolver, resolver, Some(Arrival::Credentials), None, None, None, None]
    );
}

/// Same-subnet traffic passes the router like any other, and the order of interfaces decides nothing.
///
/// Proves: NET-19, VPC-26
#[test]
fn members_of_one_group_do_not_talk_until_a_rule_says_so_in_one_subnet_or_two() {
    let all = |vpc: &Vpc, port: u16| {
        let mut flows = Vec::new();
        for (n, (from, to)) in [(A, B), (B, A), (A, C), (C, A), (B, C), (C, B)].into_iter().enumerate() {
            let port = port + u16::try_from(n).unwrap();
            flows.push(tcp(vpc, from, (port, 5000), &source_of(vpc, to).to_string()));
        }
        flows
    };
    let lab = quiet_lab();
    let mut intent = base();
    for interface in intent.interfaces.values_mut() {
        interface.groups = BTreeSet::from([sg(1)]);
    }
    let mut vpc = VpcLab::new(&lab, intent).unwrap();
    let bench = Bench::new(&vpc, &lab);
    assert_eq!(bench.ask(vpc.vpc(), &all(vpc.vpc(), 40000)), [None; 6]);
    vpc.edit(|vpc| {
        let own = GroupRule {
            traffic: Match::All,
            peer: Peer::Group(sg(1)),
        };
        vpc.groups.get_mut(&sg(1)).unwrap().ingress.insert(own);
    })
    .unwrap();
    let expected = [at(B), at(A), at(C), at(A), at(C), at(B)];
    assert_eq!(
        bench.ask(vpc.vpc(), &all(vpc.vpc(), 41000)),
        expected,
        "control, no restart"
    );
}

/// Proves: VPC-27
#[test]
fn the_self_rule_is_honoured_for_all_protocols_for_one_and_for_a_port_range() {
    let variants = [
        (Match::All, [true, true, true]),
        (
            Match::Tcp {
                ports: (0, 65535).try_into().unwrap(),
            },
            [true, true, false],
        ),
        (
            Match::Tcp {
                ports: (5000, 5010).try_into().unwrap(),
            },
            [true, false, false],
        ),
    ];
    for (traffic, expected) in variants {
        let mut vpc = base();
        vpc.interfaces.get_mut(&eni(C)).unwrap().groups = BTreeSet::from([sg(1)]);
        let own = GroupRule {
            traffic,
            peer: Peer::Group(sg(1)),
        };
        vpc.groups.get_mut(&sg(1)).unwrap().ingress.insert(own);
        let flows = [
            tcp(&vpc, A, (40000, 5005), "10.0.2.12"),
            tcp(&vpc, A, (40001, 6000), "10.0.2.12"),
            udp(&vpc, A, (40002, 5005), "10.0.2.12"),
            // B is in another group.
            tcp(&vpc, B, (40003, 5005), "10.0.2.12"),
        ];
        let found = ask(vpc, &flows);
        let mut wanted: Vec<_> = expected.map(|open| open.then(|| at(C)).flatten()).into();
        wanted.push(None);
        assert_eq!(found, wanted);
    }
}

/// Proves: NET-22
#[test]
fn acls_are_stateless_ordered_and_asked_at_the_border_of_subnets_only() {
    let entry = |allow, traffic| AclEntry {
        allow,
        traffic,
        peer: "0.0.0.0/0".parse().unwrap(),
    };
    let mut vpc = base();
    let acl = vpc.acls.get_mut(&AclId::of(2)).unwrap();
    acl.ingress = BTreeMap::from([
        (90, entry(true, tcp_port(443))),
        (100, entry(false, tcp_port(443))),
        (110, entry(false, tcp_port(22))),
        (120, entry(true, Match::All)),
    ]);
    // Answers need an entry of their own: only those to ports from 1024 on have one.
    let high = Match::Tcp {
        ports: (1024, 65535).try_into().unwrap(),
    };
    acl.egress = BTreeMap::from([(100, entry(true, high))]);
    let near = program(2, "10.0.2.13", 2);
    vpc.interfaces.insert(eni(0xd), near);
    let flows = [
        tcp(&vpc, A, (40000, 443), "10.0.2.12"),
        tcp(&vpc, A, (40001, 22), "10.0.2.12"),
        tcp(&vpc, A, (1000, 80), "10.0.2.12"),
        tcp(&vpc, A, (40002, 80), "10.0.2.12"),
        tcp(&vpc, C, (40003, 22), "10.0.2.13"),
    ];
    let found = ask(vpc, &flows);
    assert_eq!(found, [at(C), None, None, at(C), at(0xd)]);
}

/// Proves: NET-24, NET-25, NET-26, NET-27
#[test]
fn routes_of_the_subnets_table_decide_by_the_longest_prefix_and_blackholes_swallow() {
    let mut vpc = with_gateway(base());
    for (n, from) in [(A, 1), (C, 3)] {
        vpc.interfaces.get_mut(&eni(n)).unwrap().public = Some(Ipv4Addr::new(198, 19, 7, from));
    }
    let table = vpc.route_tables.get_mut(&RouteTableId::of(1)).unwrap();
    table
        .routes
        .insert("203.0.113.0/24".parse().unwrap(), Target::Blackhole);
    table.routes.insert(
        "203.0.113.64/26".parse().unwrap(),
        Target::InternetGateway(InternetGatewayId::of(1)),
    );
    let flows = [
        tcp(&vpc, A, (40000, 443), "8.8.8.8"),
        tcp(&vpc, A, (40001, 443), "203.0.113.10"),
        tcp(&vpc, A, (40002, 443), "203.0.113.70"),
        // The second subnet's table has the local route alone.
        tcp(&vpc, C, (40003, 443), "8.8.8.8"),
        tcp(&vpc, A, (40004, 443), "10.0.2.12"),
        tcp(&vpc, A, (40005, 443), "10.0.2.99"),
    ];
    let mut refused = vpc.clone();
    let inside = "169.254.169.0/24".parse().unwrap();
    let table = refused.route_tables.get_mut(&RouteTableId::of(2)).unwrap();
    table.routes.insert(inside, Target::Blackhole);
    assert_eq!(refused.check(), Err(BadVpc::Route(inside)));
    let seen = Some(Arrival::Internet {
        seen_as: address("198.19.7.1"),
    });
    assert_eq!(ask(vpc, &flows), [seen, None, seen, None, at(C), None]);
}

/// Proves: NET-13
#[test]
fn forged_sources_and_forged_neighbours_harm_nobody() {
    let lab = quiet_lab();
    let vpc = VpcLab::new(&lab, base()).unwrap();
    let bench = Bench::new(&vpc, &lab);
    let forged = Flow {
        from: Origin::Interface {
            id: eni(C),
            source: address("10.0.1.10"),
        },
        ..tcp(vpc.vpc(), C, (40000, 443), "10.0.1.11")
    };
    let honest = tcp(vpc.vpc(), C, (40001, 443), "10.0.1.11");
    assert_eq!(bench.ask(vpc.vpc(), &[forged, honest]), [None, at(B)]);
    drop(bench);
    let own = run_in(vpc.at(eni(C)), "ip", &["neigh", "show", "10.0.2.1"]).unwrap();
    let mac = own.split(' ').find(|word| word.len() == 17).unwrap();
    // C says at the router, by ARP and by an address of its own, that it is B.
    run_in(vpc.at(eni(C)), "ip", &["addr", "add", "10.0.1.11/32", "dev", "eth0"]).unwrap();
    let announce = "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify; ip link set eth0 down; ip link set eth0 up; \
                    ip neigh replace 10.0.2.1 lladdr $1 dev eth0 nud permanent; ip route add default via 10.0.2.1 dev eth0 onlink";
    run_in(vpc.at(eni(C)), "sh", &["-c", announce, "sh", mac]).unwrap();
    let bench = Bench::new(&vpc, &lab);
    let flows = [
        tcp(vpc.vpc(), A, (40010, 443), "10.0.1.11"),
        tcp(vpc.vpc(), A, (40011, 443), "10.0.2.12"),
    ];
    assert_eq!(bench.ask(vpc.vpc(), &flows), [at(B), at(C)], "both keep their own");
}

/// Proves: NET-4
#[test]
fn ipv6_of_an_interface_goes_nowhere() {
    let lab = quiet_lab();
    let vpc = VpcLab::new(&lab, base()).unwrap();
    let enable = "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip -6 addr add fd00::1/64 dev eth0 nodad; \
                  ip -6 neigh add fd00::2 lladdr $1 dev eth0 nud permanent";
    let own = run_in(vpc.at(eni(A)), "sh", &["-c", "ip neigh show 10.0.1.1"]).unwrap();
    let mac = own.split(' ').find(|word| word.len() == 17).unwrap().to_owned();
    run_in(vpc.at(eni(A)), "sh", &["-c", enable, "sh", &mac]).unwrap();
    let (sender, router) = (
        Capture::start(vpc.at(eni(A))).unwrap(),
        Capture::start(vpc.router().unwrap().as_fd()).unwrap(),
    );
    let other = Capture::start(vpc.at(eni(B))).unwrap();
    netns::within(vpc.at(eni(A)), || {
        std::net::UdpSocket::bind("[fd00::1]:0")
            .unwrap()
            .send_to(b"x", "[fd00::2]:53")
    })
    .unwrap()
    .unwrap();
    let bench = Bench::new(&vpc, &lab);
    let flow = udp(vpc.vpc(), A, (40000, 53), "10.0.1.11");
    assert_eq!(bench.ask(vpc.vpc(), &[flow]), [at(B)], "control: IPv4 passes");
    let six = |capture: &Capture| {
        let frames = capture.frames().unwrap();
        frames
            .iter()
            .filter(|frame| frame.ether_type == 0x86dd && frame.protocol == 17)
            .count()
    };
    assert!(six(&sender) > 0 && six(&router) > 0, "control: it was sent");
    assert_eq!(six(&other), 0, "the router has no IPv6");
    // Somebody gives the router IPv6, and a way to B: its rules refuse all the same.
    let inside = vpc.router().unwrap();
    let shown = run_in(vpc.at(eni(B)), "cat", &["/sys/class/net/eth0/address"]).unwrap();
    let open = format!(
        "for one in /proc/sys/net/ipv6/conf/*; do echo 0 > $one/disable_ipv6; done; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; \
         ip -6 route add fd00::2 dev {link}; ip -6 neigh add fd00::2 lladdr {mac} dev {link} nud permanent",
        link = LinkName::of_interface(eni(B)),
        mac = shown.trim(),
    );
    run_in(inside.as_fd(), "sh", &["-ec", &open]).unwrap();
    let counted = || {
        let listed = run_in(inside.as_fd(), "nft", &["list", "chain", "inet", "vpc", "prerouting"]).unwrap();
        let line = listed.lines().find(|line| line.contains("no IPv6")).unwrap().to_owned();
        let packets = line.split("packets ").nth(1).unwrap().split(' ').next().unwrap();
        packets.parse::<u64>().unwrap()
    };
    let send = || {
        netns::within(vpc.at(eni(A)), || {
            let socket = UdpSocket::bind("[fd00::1]:0").unwrap();
            socket.send_to(b"x", "[fd00::2]:53").unwrap()
        })
        .unwrap()
    };
    let before = counted();
    send();
    assert_eq!(bench.ask(vpc.vpc(), &[flow]), [at(B)], "control: IPv4 still passes");
    assert!(counted() > before && six(&other) == 0);
    run_in(inside.as_fd(), "nft", &["flush", "ruleset"]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while six(&other) == 0 {
        assert!(Instant::now() < deadline, "control: without the rules it would arrive");
        send();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Proves: NET-1
#[test]
fn vpcs_with_the_same_blocks_never_meet() {
    let lab = quiet_lab();
    let first = VpcLab::new(&lab, base()).unwrap();
    let mut other = base();
    other.id = VpcId::of(2);
    other.interfaces = other
        .interfaces
        .into_iter()
        .map(|(id, mut one)| {
            one.groups = BTreeSet::from([sg(2)]);
            (
                InterfaceId::of(0x1000 + u128::from_str_radix(&id.digits(), 16).unwrap()),
                one,
            )
        })
        .collect();
    let second = VpcLab::new(&lab, other).unwrap();
    let (one, two) = (Bench::new(&first, &lab), Bench::new(&second, &lab));
    let flows = [
        tcp(first.vpc(), A, (40000, 443), "10.0.2.12"),
        tcp(first.vpc(), B, (40001, 443), "10.0.1.10"),
    ];
    // In the second VPC the same address would admit it.
    assert_eq!(one.ask(first.vpc(), &flows), [at(C), None]);
    for tap in two.taps.values() {
        assert!(tap.seen().unwrap().is_empty());
    }
    let from = Flow {
        from: Origin::Interface {
            id: eni(0x100b),
            source: address("10.0.1.11"),
        },
        ..flows[1]
    };
    assert_eq!(
        two.ask(second.vpc(), &[from]),
        [at(0x100a)],
        "control: the second one works"
    );
    for tap in one.taps.values() {
        assert!(tap.seen().unwrap().is_empty());
    }
}

/// A route of the owner's that is more specific than the prefix list leads past the endpoint, and one as wide wins over it.
///
/// Proves: NET-25, NET-33
#[test]
fn routes_of_the_owners_lead_past_the_gateway_endpoint() {
    let mut vpc = with_gateway(base());
    vpc.interfaces.get_mut(&eni(A)).unwrap().public = Some(address("198.19.7.1"));
    let endpoint = S3Endpoint {
        prefix_list: PrefixListId::of(1),
        route_tables: BTreeSet::from([RouteTableId::of(1)]),
    };
    vpc.s3_endpoints.insert(EndpointId::of(1), endpoint);
    let with_route = |block: &str| {
        let mut vpc = vpc.clone();
        let table = vpc.route_tables.get_mut(&RouteTableId::of(1)).unwrap();
        let target = Target::InternetGateway(InternetGatewayId::of(1));
        table.routes.insert(block.parse().unwrap(), target);
        vpc
    };
    let flows = [
        tcp(&vpc, A, (40000, 443), "198.18.128.1"),
        tcp(&vpc, A, (40001, 443), "198.18.130.1"),
    ];
    let served = Some(Arrival::S3Endpoint(EndpointId::of(1)));
    let past = Some(Arrival::Internet {
        seen_as: address("198.19.7.1"),
    });
    assert_eq!(ask(vpc.clone(), &flows), [served, served], "control");
    assert_eq!(ask(with_route("198.18.128.0/19"), &flows), [served, served]);
    assert_eq!(ask(with_route("198.18.130.0/24"), &flows), [served, past]);
    assert_eq!(ask(with_route("198.18.128.0/20"), &flows), [past, past]);
}

/// Proves: NET-32, NET-36, NET-37
#[test]
fn the_gateway_endpoint_serves_associated_subnets_whose_groups_let_them_and_nobody_outside() {
    let mut vpc = with_gateway(base());
    let endpoint = S3Endpoint {
        prefix_list: PrefixListId::of(1),
        route_tables: BTreeSet::from([RouteTableId::of(1)]),
    };
    vpc.s3_endpoints.insert(EndpointId::of(1), endpoint);
    let listed = GroupRule {
        traffic: tcp_port(443),
        peer: Peer::PrefixList(PrefixListId::of(1)),
    };
    vpc.groups.get_mut(&sg(1)).unwrap().egress = BTreeSet::from([listed]);
    vpc.groups.get_mut(&sg(2)).unwrap().egress = BTreeSet::from([to("10.0.0.0/8", Match::All)]);
    let s3 = "198.18.128.1";
    let flows = [
        tcp(&vpc, A, (40000, 443), s3),
        tcp(&vpc, A, (40001, 443), "198.18.143.200"),
        tcp(&vpc, A, (40002, 80), s3),
        tcp(&vpc, A, (40003, 22), s3),
        tcp(&vpc, B, (40004, 443), s3),
        tcp(&vpc, C, (40005, 443), s3),
        Flow {
            from: Origin::Internet(address("8.8.8.8")),
            ..tcp(&vpc, A, (40006, 443), s3)
        },
    ];
    let served = Some(Arrival::S3Endpoint(EndpointId::of(1)));
    assert_eq!(ask(vpc, &flows), [served, served, None, None, None, None, None]);
}

/// Proves: ISO-17
#[test]
fn link_addresses_and_the_platforms_own_are_reached_from_no_subnet() {
    let lab = quiet_lab();
    let mut intent = with_nat(base());
    intent.interfaces.get_mut(&eni(A)).unwrap().public = Some(address("198.19.7.1"));
    let vpc = VpcLab::new(&lab, intent).unwrap();
    let bench = Bench::new(&vpc, &lab);
    let edge = lab.network().vpc_edge();
    let targets = [
        edge.near,
        edge.far,
        lab.network().uplink_near(),
        lab.network().uplink_far(),
        lab.network().gateway(),
        lab.network().resolver(),
        address("127.0.0.1"),
        address("192.168.0.1"),
        address("172.16.0.1"),
        address("198.19.0.77"),
    ];
    let mut flows: Vec<Flow> = Vec::new();
    for (n, target) in targets.iter().enumerate() {
        let port = 40000 + u16::try_from(n).unwrap();
        for from in [A, C] {
            flows.push(tcp(vpc.vpc(), from, (port, 80), &target.to_string()));
        }
    }
    assert_eq!(bench.ask(vpc.vpc(), &flows), vec![None; flows.len()]);
    let control = tcp(vpc.vpc(), A, (41000, 80), "8.8.8.8");
    let seen_as = address("198.19.7.1");
    assert_eq!(bench.ask(vpc.vpc(), &[control]), [Some(Arrival::Internet { seen_as })]);
}

fn web(port: u16) -> SocketAddr {
    (Stub::WEB, port).into()
}

/// Proves: NET-28, VPC-6, VPC-8
#[test]
fn an_internet_gateway_serves_public_addresses_alone_in_both_directions() {
    let lab = Lab::new().unwrap();
    let mut intent = with_gateway(base());
    intent.interfaces.get_mut(&eni(A)).unwrap().public = Some(address("198.19.7.1"));
    intent.interfaces.get_mut(&eni(A)).unwrap().groups = BTreeSet::from([sg(2)]);
    let workload: isolarium_model::WorkloadId = "w-0000000000000000b".parse().unwrap();
    intent.interfaces.get_mut(&eni(B)).unwrap().holder = Holder::Container(workload);
    let vpc = VpcLab::new(&lab, intent).unwrap();
    probe::http(vpc.at(eni(A)), web(80)).unwrap();
    assert_eq!(lab.internet().arrivals().len(), 1, "control");
    assert_eq!(lab.internet().arrivals()[0].from.ip(), address("198.19.7.1"));
    // In the same subnet, by the same route, without a public address; and in a subnet without any way out.
    for from in [B, C] {
        probe::datagram(vpc.at(eni(from)), web(80), b"x").unwrap_err();
        let sent = netns::within(vpc.at(eni(from)), || {
            std::net::TcpStream::connect_timeout(&web(80), Duration::from_millis(60))
        });
        sent.unwrap().unwrap_err();
    }
    assert_eq!(lab.internet().arrivals().len(), 1);
    // Hosts of the internet have public addresses of their own.
    let own = format!("ip route change $(ip route show 198.19.0.0/16) src {}", Stub::WEB);
    run_in(lab.internet().netns(), "sh", &["-c", &own]).unwrap();
    // Inwards: the listener of A is found at its public address, those of the others at none.
    let listen = |n: u128| {
        let listener = netns::within(vpc.at(eni(n)), || std::net::TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    let (of_a, of_b) = (listen(A), listen(B));
    let dial = |to: &str| {
        let to = SocketAddr::from((address(to), 8080));
        lab.internet()
            .inside(|| std::net::TcpStream::connect_timeout(&to, Duration::from_millis(200)))
            .unwrap()
    };
    dial("198.19.7.1").unwrap();
    assert!(of_a.accept().is_ok(), "control");
    for other in ["198.19.7.2", "10.0.1.11", "10.0.1.10"] {
        assert!(dial(other).is_err(), "{other}");
    }
    assert!(of_a.accept().is_err() && of_b.accept().is_err());
}

/// Proves: NET-29
#[test]
fn a_nat_gateway_carries_tcp_udp_and_icmp_under_its_elastic_ip() {
    let vpc = with_nat(base());
    let echo = Flow {
        traffic: Traffic::Icmp { kind: 8, code: 0 },
        ..tcp(&vpc, C, (1, 1), "8.8.8.8")
    };
    let flows = [
        tcp(&vpc, C, (40000, 443), "8.8.8.8"),
        udp(&vpc, C, (40001, 53), "8.8.8.8"),
        echo,
        // Without the gateway's route, and to what is not the internet.
        tcp(&vpc, A, (40002, 443), "8.8.8.8"),
        tcp(&vpc, C, (40003, 443), "192.168.0.1"),
    ];
    let seen = Some(Arrival::Internet {
        seen_as: address("198.19.0.200"),
    });
    let mut without = vpc.clone();
    without
        .route_tables
        .get_mut(&RouteTableId::of(1))
        .unwrap()
        .routes
        .clear();
    assert_eq!(ask(vpc, &flows), [seen, seen, seen, None, None]);
    assert_eq!(
        ask(without, &flows[..1]),
        [None],
        "its own subnet has no way to the internet"
    );
}

/// Proves: NET-29, VPC-29, VPC-30, VPC-31
#[test]
fn a_nat_gateway_shows_its_elastic_ip_obeys_groups_and_admits_nobody() {
    let lab = Lab::new().unwrap();
    let mut intent = with_nat(base());
    let public = intent.interfaces.get_mut(&eni(A)).unwrap();
    public.public = Some(address("198.19.7.1"));
    public.groups = BTreeSet::from([sg(2)]);
    let mut vpc = VpcLab::new(&lab, intent).unwrap();
    let private = vpc.at(eni(C)).try_clone_to_owned().unwrap();
    probe::http(private.as_fd(), web(80)).unwrap();
    probe::datagram(private.as_fd(), web(80), b"x").unwrap();
    for arrival in lab.internet().arrivals() {
        assert_eq!(arrival.from.ip(), address("198.19.0.200"), "{arrival:?}");
        assert!(arrival.from.port() >= 1024);
    }
    let reached = lab.internet().arrivals().len();
    assert_eq!(reached, 2, "control");
    // Hosts of the internet have public addresses of their own, and answers to them have a way.
    let own = format!("ip route change $(ip route show 198.19.0.0/16) src {}", Stub::WEB);
    run_in(lab.internet().netns(), "sh", &["-c", &own]).unwrap();
    let listen = |at| netns::within(at, || TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
    let (listener, _of_a) = (listen(private.as_fd()), listen(vpc.at(eni(A))));
    listener.set_nonblocking(true).unwrap();
    let dial = |to: &str, patience| {
        let to = SocketAddr::from((address(to), 8080));
        let dialed = lab.internet().inside(|| TcpStream::connect_timeout(&to, patience));
        dialed.unwrap()
    };
    let (capture, of_a) = (
        Capture::start(private.as_fd()).unwrap(),
        Capture::start(vpc.at(eni(A))).unwrap(),
    );
    let from_outside = |capture: &Capture| {
        let outside = std::net::IpAddr::V4(Stub::WEB);
        let frames = capture.frames().unwrap();
        frames
            .iter()
            .filter(|frame| frame.ip.is_some_and(|(source, _)| source == outside))
            .count()
    };
    for to in ["198.19.0.200", "10.0.2.12"] {
        dial(to, Duration::from_millis(200)).unwrap_err();
    }
    dial("198.19.7.1", probe::PATIENCE).expect("control: the dialer's way in and back");
    assert!(from_outside(&of_a) > 0, "control: what comes in is seen");
    assert_eq!(from_outside(&capture), 0);
    assert!(listener.accept().is_err());
    let inside = SocketAddr::from((address("10.0.2.12"), 8080));
    netns::within(vpc.at(eni(A)), || {
        std::net::TcpStream::connect_timeout(&inside, probe::PATIENCE)
    })
    .unwrap()
    .expect("control: it listens");
    vpc.edit(|vpc| vpc.groups.get_mut(&sg(2)).unwrap().egress.clear())
        .unwrap();
    probe::datagram(private.as_fd(), web(80), b"x").unwrap_err();
    assert_eq!(
        lab.internet().arrivals().len(),
        reached,
        "gateway and route are still there"
    );
}

/// The machine's own way to the internet, as an engine with `uplink = "host"` uses it.
///
/// Proves: NET-28, NET-29, VPC-31
#[test]
fn a_nat_gateway_leads_through_the_machines_own_uplink_and_nobody_in() {
    let internet = Internet::new().unwrap();
    let machine = Machine::new(&internet).unwrap();
    let lab = Lab::through_host(internet, &machine.path()).unwrap();
    let vpc = VpcLab::new(&lab, with_nat(base())).unwrap();
    probe::http(vpc.at(eni(C)), web(80)).unwrap();
    let sources: Vec<_> = lab.internet().arrivals().iter().map(|one| one.from.ip()).collect();
    assert_eq!(sources, [Machine::ADDRESS], "the internet sees the machine");
    probe::datagram(vpc.at(eni(C)), web(80), b"x").unwrap();
    let reached = lab.internet().arrivals().len();
    probe::http(vpc.at(eni(A)), web(80)).expect_err("it has the gateway's route and no public address");
    assert_eq!(lab.internet().arrivals().len(), reached);
    // The machine's own services, and what is in the VPC from outside.
    let listen = |at| {
        let listener = netns::within(at, || TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    let (of_machine, of_c) = (listen(machine.netns()), listen(vpc.at(eni(C))));
    for to in [
        Machine::ADDRESS,
        lab.network().uplink_far(),
        lab.network().uplink_near(),
    ] {
        let to = SocketAddr::from((to, 8080));
        let dialed = netns::within(vpc.at(eni(C)), || {
            TcpStream::connect_timeout(&to, Duration::from_millis(200))
        });
        dialed.unwrap().unwrap_err();
    }
    assert!(of_machine.accept().is_err());
    let inward = "for block in 198.19.0.0/16 10.0.0.0/16; do ip route replace $block via $0 dev wan1 onlink; done";
    run_in(
        lab.internet().netns(),
        "sh",
        &["-c", inward, &Machine::ADDRESS.to_string()],
    )
    .unwrap();
    let arriving = Capture::start(machine.netns()).unwrap();
    let dial = |to: Ipv4Addr, patience| {
        let to = SocketAddr::from((to, 8080));
        let dialed = lab.internet().inside(|| TcpStream::connect_timeout(&to, patience));
        dialed.unwrap()
    };
    for to in ["198.19.0.200", "10.0.2.12"] {
        let to = address(to);
        dial(to, Duration::from_millis(200)).unwrap_err();
        let frames = arriving.frames().unwrap();
        let came = frames
            .iter()
            .any(|frame| frame.ip.is_some_and(|(_, destination)| destination == to));
        assert!(came, "control: it comes as far as the machine");
    }
    assert!(of_c.accept().is_err());
    dial(Machine::ADDRESS, probe::PATIENCE).expect("control: the machine listens");
    netns::within(vpc.at(eni(B)), || {
        TcpStream::connect_timeout(&SocketAddr::from((address("10.0.2.12"), 8080)), probe::PATIENCE)
    })
    .unwrap()
    .expect("control: the interface listens");
}

/// Proves: NET-57
#[test]
fn what_a_gateway_does_not_take_is_recorded_as_its_rules_say() {
    let lab = Lab::new().unwrap();
    let mut intent = with_nat(base());
    // B has neither a public address nor, behind its own route, a NAT gateway; C's NAT gateway has no way on.
    intent.interfaces.get_mut(&eni(A)).unwrap().public = Some(address("198.19.7.1"));
    intent.groups.insert(sg(9), SecurityGroup::default());
    let closed = program(1, "10.0.1.13", 9);
    intent.interfaces.insert(eni(0xd), closed);
    let mut vpc = VpcLab::new(&lab, intent).unwrap();
    let read = |since| lab.host().read_flows(vpc.id(), since, Duration::ZERO).unwrap();
    let mut next = read(0).next;
    let mut told = |vpc: &VpcLab<'_>, from: u128, to: SocketAddr| -> Vec<(bool, Fate)> {
        let _lost = netns::within(vpc.at(eni(from)), || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", to)
        });
        let read = lab.host().read_flows(vpc.id(), next, Duration::ZERO).unwrap();
        next = read.next;
        let own =
            |flow: &&isolarium_netplan::flowlog::Flow| flow.path.source == vpc.vpc().interfaces[&eni(from)].primary;
        let flows: Vec<_> = read.flows.iter().filter(own).copied().collect();
        let records = attribute(vpc.vpc(), &flows);
        let sent = |record: &&FlowRecord| record.interface == eni(from) && record.direction == Direction::Egress;
        let accepted = records.iter().filter(sent).map(|record| record.accepted);
        accepted.zip(flows.iter().map(|flow| flow.fate)).collect()
    };
    let lost = Fate::Refused { by: Refusal::Way };
    let [(true, Fate::Passed { .. })] = told(&vpc, A, web(7))[..] else {
        panic!("control: A has a public address")
    };
    assert_eq!(told(&vpc, B, web(7)), [(true, lost)]);
    assert_eq!(
        told(&vpc, B, "192.168.7.7:7".parse().unwrap()),
        [(true, lost)],
        "that is not the internet"
    );
    let refused = Fate::Refused { by: Refusal::Egress };
    assert_eq!(
        told(&vpc, 0xd, web(7)),
        [(false, refused)],
        "its groups let nothing out"
    );
    let [(true, Fate::Passed { .. })] = told(&vpc, C, web(7))[..] else {
        panic!("control: the NAT gateway leads on")
    };
    vpc.edit(|vpc| vpc.route_tables.get_mut(&RouteTableId::of(1)).unwrap().routes.clear())
        .unwrap();
    assert_eq!(
        told(&vpc, C, web(8)),
        [(true, lost)],
        "its own subnet has no way to the internet"
    );
}

/// Proves: NET-30
#[test]
fn an_elastic_ip_that_moves_between_vpcs_leads_to_the_new_one_whoever_is_told_first() {
    let lab = Lab::new().unwrap();
    let intent = |id: u128, nat: bool| {
        let mut vpc = if nat { with_nat(base()) } else { with_gateway(base()) };
        vpc.id = VpcId::of(id);
        vpc
    };
    let out = |vpc: &VpcLab<'_>| {
        let before = lab.internet().arrivals().len();
        let answer = netns::within(vpc.at(eni(C)), || {
            TcpStream::connect_timeout(&web(80), Duration::from_millis(250))
        });
        let answered = answer.unwrap().is_ok() && probe::http(vpc.at(eni(C)), web(80)).is_ok();
        let arrivals = lab.internet().arrivals();
        assert!(
            arrivals[before..]
                .iter()
                .all(|one| one.from.ip() == address("198.19.0.200"))
        );
        answered
    };
    for (loser, gainer) in [(1, 2), (2, 1)] {
        for gainer_first in [true, false] {
            let mut from = VpcLab::new(&lab, intent(loser, true)).unwrap();
            let mut to = VpcLab::new(&lab, intent(gainer, false)).unwrap();
            assert!(out(&from) && !out(&to), "control");
            if gainer_first {
                to.change(intent(gainer, true)).unwrap();
                assert!(out(&to));
                // Somebody who read the records before applies them after.
                from.change(intent(loser, true)).unwrap();
                from.change(intent(loser, false)).unwrap();
            } else {
                from.change(intent(loser, false)).unwrap();
                to.change(intent(gainer, true)).unwrap();
            }
            assert!(
                out(&to) && !out(&from),
                "from {loser} to {gainer}, gainer first: {gainer_first}"
            );
            // A VPC that goes takes nothing along that is another's.
            drop(from);
            assert!(out(&to));
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 16];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// One byte there and back.
fn exchange(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

/// Proves: NET-29
#[test]
fn a_nat_gateway_forgets_an_idle_connection_resets_it_and_leaves_all_others_alone() {
    const IDLE: u32 = 2;
    let lab = Lab::adjusted(Internet::new().unwrap(), |network| network.nat_idle = IDLE).unwrap();
    let vpc = VpcLab::new(&lab, with_nat(base())).unwrap();
    let outside = lab
        .internet()
        .inside(|| TcpListener::bind((Stub::WEB, 9000)).unwrap())
        .unwrap();
    let inside = netns::within(vpc.at(eni(B)), || TcpListener::bind("0.0.0.0:9000").unwrap()).unwrap();
    let dial = |from: u128, listener: &TcpListener, to: SocketAddr| {
        let dialed = netns::within(vpc.at(eni(from)), || TcpStream::connect_timeout(&to, probe::PATIENCE));
        let (accepted, _) = listener.accept().unwrap();
        let answering = accepted.try_clone().unwrap();
        std::thread::spawn(move || echo(answering));
        let stream = dialed.unwrap().unwrap();
        stream.set_read_timeout(Some(probe::PATIENCE)).unwrap();
        (stream, accepted)
    };
    let (mut idle, _) = dial(C, &outside, web(9000));
    let (mut silent, far_end) = dial(C, &outside, web(9000));
    let (mut busy, _) = dial(C, &outside, web(9000));
    let (mut neighbour, _) = dial(C, &inside, (address("10.0.1.11"), 9000).into());
    for stream in [&mut idle, &mut silent, &mut busy, &mut neighbour] {
        exchange(stream).expect("control");
    }
    // The time that passes is what is tested: the kernel's own clock, and an exchange far more often than it runs out.
    let end = Instant::now() + 2 * Duration::from_secs(IDLE.into());
    while Instant::now() < end {
        exchange(&mut busy).expect("a busy connection lives");
        std::thread::sleep(Duration::from_millis(100));
    }
    let failed = exchange(&mut idle).unwrap_err();
    assert_eq!(
        failed.kind(),
        std::io::ErrorKind::ConnectionReset,
        "the gateway says so"
    );
    exchange(&mut busy).expect("a busy connection lives");
    exchange(&mut neighbour).expect("what stays in the VPC is not the gateway's");
    // Nor does anything come in by it: what the far end sends late finds no way.
    (&far_end).write_all(b"late").unwrap();
    let late = silent.read(&mut [0; 8]);
    assert!(late.is_err(), "{late:?}");
    exchange(&mut dial(C, &outside, web(9000)).0).expect("a new connection");
}

/// Proves: ISO-17
#[test]
fn a_large_set_of_rules_is_swapped_without_a_moment_of_more_or_less() {
    let lab = quiet_lab();
    let mut intent = base();
    let rules = |skip: u32| -> BTreeSet<GroupRule> {
        let block = |n: u32| {
            let address = Ipv4Addr::from(u32::from(address("11.0.0.0")) + 2 * n);
            to(
                &format!("{address}/32"),
                tcp_port(1000 + u16::try_from(n % 50000).unwrap()),
            )
        };
        let mut all: BTreeSet<GroupRule> = (0..10_000).filter(|n| *n != skip).map(block).collect();
        all.insert(to("10.0.0.0/16", tcp_port(443)));
        all
    };
    intent.groups.get_mut(&sg(2)).unwrap().ingress = rules(0);
    let mut vpc = VpcLab::new(&lab, intent).unwrap();
    let bench = Bench::new(&vpc, &lab);
    let taps = &bench.taps;
    let (a, b) = (&taps[&eni(A)], &taps[&eni(B)]);
    let over = std::sync::atomic::AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            let mut n: u16 = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                for port in [443, 444] {
                    a.send(&Packet {
                        source: address("10.0.1.10"),
                        destination: address("10.0.1.11"),
                        traffic: Traffic::Tcp {
                            from: 2000 + n,
                            to: port,
                        },
                        probe: n.into(),
                        answer: false,
                    });
                }
                n += 1;
                std::thread::sleep(Duration::from_micros(300));
            }
            n
        });
        for skip in 1..5 {
            vpc.edit(|vpc| vpc.groups.get_mut(&sg(2)).unwrap().ingress = rules(skip))
                .unwrap();
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        probing.join().unwrap()
    });
    std::thread::sleep(Duration::from_millis(20));
    let mut arrived: BTreeMap<u16, usize> = BTreeMap::new();
    for packet in b.seen().unwrap() {
        let Traffic::Tcp { to, .. } = packet.traffic else {
            panic!("{packet:?}")
        };
        *arrived.entry(to).or_default() += 1;
    }
    assert!(
        sent > 100,
        "control: {sent} probes while the set was swapped four times"
    );
    assert_eq!(
        arrived,
        BTreeMap::from([(443, usize::from(sent))]),
        "all of the one, none of the other"
    );
}
