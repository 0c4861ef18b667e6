use super::*;
use crate::flowlog::{Interval, Place, explain, lines::lines};
use crate::id::{AclId, EndpointId, GroupId, NatGatewayId, PrefixListId, RouteTableId, VpcId};
use crate::intent::vpc::{
    AclEntry, Dns, GroupRule, Holder, Match, NatGateway, NetworkAcl, Peer, RouteTable, S3Endpoint, SecurityGroup,
    Subnet, Vpc,
};
use isolarium_model::Scope;
use isolarium_model::ec2::flow_format::Format;
use isolarium_model::ec2::flow_log::TrafficType;
use proptest::prelude::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 20);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 21);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 30);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 9);
const NAT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const ELASTIC: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 5);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const S3: Ipv4Addr = Ipv4Addr::new(198, 18, 128, 1);

fn eni(n: u128) -> InterfaceId {
    InterfaceId::of(n)
}

/// Interface 1 (10.0.1.20 and .21) behind a NAT gateway and an S3 endpoint, 2 (10.0.2.30) with a public address, 3 the NAT
/// gateway's.
fn vpc() -> CheckedVpc {
    let internet: Ipv4Net = "0.0.0.0/0".parse().unwrap();
    let gateway = crate::id::InternetGatewayId::of(1);
    let subnet = |block: &str, table: u128, acl: u128| Subnet {
        block: block.parse().unwrap(),
        zone: "us-east-1b".into(),
        route_table: RouteTableId::of(table),
        acl: AclId::of(acl),
    };
    let interface = |subnet: u128, primary, holder| Interface {
        subnet: SubnetId::of(subnet),
        primary,
        secondary: Default::default(),
        groups: [GroupId::of(1)].into(),
        source_dest_check: true,
        public: None,
        holder,
    };
    let open = NetworkAcl {
        ingress: [(100, any(true))].into(),
        egress: [(100, any(true))].into(),
    };
    let table = |target| RouteTable {
        routes: [(internet, target)].into(),
    };
    let rule = GroupRule {
        traffic: Match::All,
        peer: Peer::Block(internet),
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
        subnets: [
            (SubnetId::of(9), subnet("10.0.0.0/24", 2, 1)),
            (SubnetId::of(1), subnet("10.0.1.0/24", 1, 1)),
            (SubnetId::of(2), subnet("10.0.2.0/24", 2, 1)),
        ]
        .into(),
        acls: [(AclId::of(1), open)].into(),
        groups: [(
            GroupId::of(1),
            SecurityGroup {
                ingress: [GroupRule {
                    traffic: Match::Tcp {
                        ports: (443, 443).try_into().unwrap(),
                    },
                    peer: Peer::Block(internet),
                }]
                .into(),
                egress: [rule].into(),
            },
        )]
        .into(),
        prefix_lists: [(PrefixListId::of(1), ["198.18.128.0/20".parse().unwrap()].into())].into(),
        route_tables: [
            (RouteTableId::of(1), table(Target::NatGateway(NatGatewayId::of(1)))),
            (RouteTableId::of(2), table(Target::InternetGateway(gateway))),
        ]
        .into(),
        internet_gateway: Some(gateway),
        nat_gateways: [(
            NatGatewayId::of(1),
            NatGateway {
                interface: eni(3),
                elastic_ip: ELASTIC,
            },
        )]
        .into(),
        interfaces: [
            (
                eni(1),
                Interface {
                    secondary: [SECOND].into(),
                    ..interface(1, CLIENT, Holder::Program)
                },
            ),
            (
                eni(2),
                Interface {
                    public: Some(PUBLIC),
                    ..interface(2, SERVER, Holder::Program)
                },
            ),
            (
                eni(3),
                Interface {
                    groups: Default::default(),
                    ..interface(9, NAT, Holder::Nat(NatGatewayId::of(1)))
                },
            ),
        ]
        .into(),
        peers_only: false,
        interface_endpoints: Default::default(),
        s3_endpoints: [(
            EndpointId::of(1),
            S3Endpoint {
                prefix_list: PrefixListId::of(1),
                route_tables: [RouteTableId::of(1)].into(),
            },
        )]
        .into(),
    }
    .check()
    .unwrap()
}

fn any(allow: bool) -> AclEntry {
    AclEntry {
        allow,
        traffic: Match::All,
        peer: "0.0.0.0/0".parse().unwrap(),
    }
}

fn path(source: Ipv4Addr, source_port: u16, destination: Ipv4Addr, destination_port: u16) -> Path {
    Path {
        source,
        destination,
        source_port,
        destination_port,
    }
}

fn counts(packets: u64, bytes: u64) -> Counts {
    Counts { packets, bytes }
}

fn flow(path: Path, forward: Counts, fate: Fate) -> Flow {
    Flow {
        protocol: 6,
        path,
        forward,
        first: Timestamp(1_700_000_000_000),
        last: Timestamp(1_700_000_058_900),
        fate,
    }
}

fn passed(answers: Path, backward: Counts) -> Fate {
    Fate::Passed {
        answers,
        backward,
        began: true,
        tcp: Some(Tcp::Closed),
        ended: true,
    }
}

fn ranges() -> Ranges {
    Ranges {
        s3: vec!["198.18.128.0/20".parse().unwrap()],
        amazon: vec!["198.18.0.0/17".parse().unwrap()],
    }
}

fn place(interface: InterfaceId) -> Place {
    Place {
        scope: Scope {
            account: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        },
        vpc: VpcId::of(1),
        subnet: SubnetId::of(1),
        interface,
        zone_id: "use1-az2".into(),
    }
}

const INTERVAL: Interval = Interval {
    from: Timestamp(1_700_000_060_000),
    until: Timestamp(1_700_000_118_000),
};

/// The records of an interface as lines.
fn told(records: &[FlowRecord], n: u128, traffic: TrafficType, format: &str) -> Vec<String> {
    let format: Format = format.parse().unwrap();
    let lines = lines(&format, traffic, &place(eni(n)), INTERVAL, records, false, &ranges());
    lines.into_iter().map(|(_, line)| line).collect()
}

fn default_format() -> String {
    Format::default().to_string()
}

/// Proves: NET-57
#[test]
fn a_connection_within_the_vpc_is_two_records_on_each_of_two_interfaces() {
    let there = path(CLIENT, 41800, SERVER, 443);
    let records = attribute(
        &vpc(),
        &[flow(there, counts(12, 2048), passed(reversed(there), counts(10, 900)))],
    );
    let format = default_format();
    assert_eq!(
        told(&records, 1, TrafficType::All, &format),
        [
            format!(
                "2 111122223333 {} 10.0.1.20 10.0.2.30 41800 443 6 12 2048 1700000000 1700000058 ACCEPT OK",
                eni(1)
            ),
            format!(
                "2 111122223333 {} 10.0.2.30 10.0.1.20 443 41800 6 10 900 1700000000 1700000058 ACCEPT OK",
                eni(1)
            ),
        ]
    );
    let more =
        "${interface-id} ${flow-direction} ${traffic-path} ${tcp-flags} ${type} ${instance-id} ${region} ${az-id}";
    assert_eq!(
        told(&records, 1, TrafficType::All, more),
        [
            format!("{} egress 1 3 IPv4 - us-east-1 use1-az2", eni(1)),
            format!("{} ingress - 19 IPv4 - us-east-1 use1-az2", eni(1))
        ]
    );
    assert_eq!(
        told(&records, 2, TrafficType::All, more),
        [
            format!("{} ingress - 3 IPv4 - us-east-1 use1-az2", eni(2)),
            format!("{} egress 1 19 IPv4 - us-east-1 use1-az2", eni(2))
        ]
    );
}

/// Proves: NET-57
#[test]
fn a_refusal_by_egress_is_the_senders_and_one_by_ingress_the_receivers() {
    let there = path(CLIENT, 41802, SERVER, 22);
    let by = |by| {
        let mut refused = flow(there, counts(3, 180), Fate::Refused { by });
        refused.protocol = 6;
        attribute(&vpc(), &[refused])
    };
    let format = default_format();
    let egress = by(Refusal::Egress);
    assert_eq!(
        told(&egress, 1, TrafficType::Reject, &format),
        [format!(
            "2 111122223333 {} 10.0.1.20 10.0.2.30 41802 22 6 3 180 1700000000 1700000058 REJECT OK",
            eni(1)
        )]
    );
    assert!(
        told(&egress, 2, TrafficType::All, "${log-status}")
            .iter()
            .eq(["NODATA"])
    );
    let ingress = by(Refusal::Ingress);
    let short = "${action} ${flow-direction} ${tcp-flags}";
    assert_eq!(
        told(&ingress, 1, TrafficType::All, short),
        ["ACCEPT egress 2"],
        "its own side let it go"
    );
    assert_eq!(told(&ingress, 2, TrafficType::All, short), ["REJECT ingress 2"]);
}

/// Proves: NET-57
#[test]
fn silence_is_nodata_and_loss_is_skipdata_beside_what_is_known() {
    let format = default_format();
    assert_eq!(
        told(&[], 1, TrafficType::All, &format),
        [format!(
            "2 111122223333 {} - - - - - - - 1700000060 1700000118 - NODATA",
            eni(1)
        )]
    );
    let there = path(CLIENT, 1, SERVER, 443);
    let records = attribute(
        &vpc(),
        &[flow(there, counts(1, 60), passed(reversed(there), counts(1, 60)))],
    );
    assert_eq!(
        told(&records, 1, TrafficType::Reject, "${log-status}"),
        ["NODATA"],
        "what the flow log is not about is no data"
    );
    let format: Format = format.parse().unwrap();
    let lossy = lines(
        &format,
        TrafficType::All,
        &place(eni(1)),
        INTERVAL,
        &records,
        true,
        &ranges(),
    );
    assert_eq!(lossy.len(), 3);
    assert!(
        lossy[2].1.ends_with("- - - - - - - 1700000060 1700000118 - SKIPDATA"),
        "{lossy:?}"
    );
}

/// Proves: NET-57
#[test]
fn a_nat_gateway_has_an_inner_and_an_outer_leg() {
    let there = path(CLIENT, 40000, OUTSIDE, 443);
    let answers = path(OUTSIDE, 443, ELASTIC, 2048);
    let records = attribute(&vpc(), &[flow(there, counts(5, 500), passed(answers, counts(4, 400)))]);
    let fields =
        "${srcaddr} ${dstaddr} ${pkt-srcaddr} ${pkt-dstaddr} ${srcport} ${flow-direction} ${traffic-path} ${packets}";
    assert_eq!(
        told(&records, 3, TrafficType::All, fields),
        [
            "10.0.1.20 10.0.0.5 10.0.1.20 203.0.113.7 40000 ingress - 5",
            "10.0.0.5 203.0.113.7 10.0.0.5 203.0.113.7 2048 egress 8 5",
            "203.0.113.7 10.0.0.5 203.0.113.7 10.0.0.5 443 ingress - 4",
            "10.0.0.5 10.0.1.20 203.0.113.7 10.0.1.20 443 egress 1 4",
        ]
    );
    assert_eq!(
        told(&records, 1, TrafficType::All, fields),
        [
            "10.0.1.20 203.0.113.7 10.0.1.20 203.0.113.7 40000 egress 1 5",
            "203.0.113.7 10.0.1.20 203.0.113.7 10.0.1.20 443 ingress - 4",
        ]
    );
}

/// Proves: NET-57
#[test]
fn the_interfaces_side_is_its_primary_address_and_s3_is_named() {
    let there = path(SECOND, 40000, S3, 443);
    let records = attribute(
        &vpc(),
        &[flow(there, counts(5, 500), passed(reversed(there), counts(4, 400)))],
    );
    let fields = "${srcaddr} ${pkt-srcaddr} ${dstaddr} ${pkt-dstaddr} ${pkt-src-aws-service} ${pkt-dst-aws-service} ${traffic-path}";
    assert_eq!(
        told(&records, 1, TrafficType::All, fields),
        [
            "10.0.1.20 10.0.1.21 198.18.128.1 198.18.128.1 - S3 7",
            "198.18.128.1 198.18.128.1 10.0.1.20 10.0.1.21 S3 - -",
        ]
    );
    let inbound = path(OUTSIDE, 5000, PUBLIC, 443);
    let answers = path(SERVER, 443, OUTSIDE, 5000);
    let records = attribute(&vpc(), &[flow(inbound, counts(2, 120), passed(answers, counts(1, 60)))]);
    assert_eq!(
        told(&records, 2, TrafficType::All, fields),
        [
            "203.0.113.7 203.0.113.7 10.0.2.30 10.0.2.30 - - -",
            "10.0.2.30 10.0.2.30 203.0.113.7 203.0.113.7 - - 8"
        ]
    );
}

/// Proves: NET-57
#[test]
fn the_platforms_own_services_are_not_logged() {
    let count = |to: &str, port, protocol| {
        let there = path(CLIENT, 40000, to.parse().unwrap(), port);
        let mut one = flow(there, counts(1, 60), passed(reversed(there), counts(1, 60)));
        one.protocol = protocol;
        attribute(&vpc(), &[one]).len()
    };
    assert_eq!(
        count("10.0.2.30", 53, 17),
        4,
        "control: a name server of one's own is logged"
    );
    for (to, port, protocol) in [
        ("10.0.0.2", 53, 17),
        ("10.0.0.2", 53, 6),
        ("169.254.169.253", 53, 17),
        ("169.254.170.2", 80, 6),
        ("169.254.169.254", 80, 6),
        ("169.254.169.123", 123, 17),
        ("10.0.1.1", 443, 6),
        ("255.255.255.255", 67, 17),
    ] {
        assert_eq!(count(to, port, protocol), 0, "{to}:{port}");
    }
}

/// Proves: NET-57
#[test]
fn packets_of_an_open_connection_that_an_acl_refuses_are_told_once() {
    let there = path(CLIENT, 40000, SERVER, 443);
    let open = flow(there, counts(10, 1000), passed(reversed(there), counts(4, 400)));
    let answer = flow(reversed(there), counts(4, 400), Fate::Refused { by: Refusal::Egress });
    let records = attribute(&vpc(), &[open, answer]);
    let fields = "${flow-direction} ${action} ${packets}";
    assert_eq!(told(&records, 1, TrafficType::All, fields), ["egress ACCEPT 10"]);
    assert_eq!(
        told(&records, 2, TrafficType::All, fields),
        ["ingress ACCEPT 10", "egress REJECT 4"]
    );
}

/// Proves: AU-32
#[test]
fn records_name_the_rule_that_decided() {
    let vpc = vpc();
    let there = path(CLIENT, 40000, SERVER, 443);
    let records = attribute(
        &vpc,
        &[flow(there, counts(1, 60), passed(reversed(there), counts(1, 60)))],
    );
    let why = explain(&vpc, &[], &records[0]);
    assert_eq!(
        why[..2],
        [
            format!("{} outbound", GroupId::of(1)),
            format!("{} outbound 100", AclId::of(1))
        ]
    );
    let refused = path(CLIENT, 40000, SERVER, 22);
    let records = attribute(
        &vpc,
        &[flow(refused, counts(1, 60), Fate::Refused { by: Refusal::Ingress })],
    );
    let rejected = records.iter().find(|record| !record.accepted).unwrap();
    assert_eq!(
        explain(&vpc, &[], rejected),
        [format!("no inbound rule of {}", GroupId::of(1))]
    );
}

fn some_flow() -> impl Strategy<Value = Flow> {
    let address = prop_oneof![
        Just(CLIENT),
        Just(SECOND),
        Just(SERVER),
        Just(OUTSIDE),
        Just(S3),
        Just(PUBLIC)
    ];
    let fate = prop_oneof![Just(0u8), Just(1), Just(2)];
    (address.clone(), address, 1u16..4, 1u16..4, 1u64..50, 0u64..50, fate).prop_map(
        |(source, destination, a, b, forward, backward, fate)| {
            let there = path(source, a, destination, b);
            let fate = match fate {
                0 => passed(reversed(there), counts(backward, backward * 60)),
                1 => Fate::Refused { by: Refusal::Egress },
                _ => Fate::Refused { by: Refusal::Ingress },
            };
            flow(there, counts(forward, forward * 60), fate)
        },
    )
}

proptest! {
    /// Merging loses and invents nothing, whatever the order and however often it is done.
    #[test]
    fn merging_keeps_every_packet(flows in proptest::collection::vec(some_flow(), 0..20), cut in 0usize..20) {
        let all = attribute(&vpc(), &flows);
        let packets = |records: &[FlowRecord]| records.iter().map(|one| one.counts.packets).sum::<u64>();
        let once = merge(all.clone());
        prop_assert_eq!(packets(&all), packets(&once));
        let cut = cut.min(all.len());
        let (early, late) = all.split_at(cut);
        let twice = merge(merge(late.to_vec()).into_iter().chain(merge(early.to_vec())));
        prop_assert_eq!(&once, &twice);
        let keys: std::collections::BTreeSet<_> = once.iter().map(FlowRecord::key).collect();
        prop_assert_eq!(keys.len(), once.len());
        for record in &once {
            let own = vpc().interfaces[&record.interface].primary;
            let side = if record.direction == Direction::Egress { record.source } else { record.destination };
            prop_assert_eq!(side, own);
            prop_assert!(record.counts.packets > 0);
        }
    }
}
