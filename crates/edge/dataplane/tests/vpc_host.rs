//! The host's side of VPCs: adoption after a kill, nothing left over, doors, dialing, connections of an address that
//! changes hands, and what flow logs are made of.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use isolarium_dataplane::kernel::netns;
use isolarium_dataplane::{Host, HostError, HostOptions, SealError};
use isolarium_netplan::flowlog::{Fate, Flow, Refusal};
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::{AclEntry, Door, GroupRule, Holder, Interface, Match, NetworkAcl, Peer, Vpc};
use isolarium_netplan::intent::{Reach, Transport, Uplink, WorkloadNetwork};
use isolarium_netplan::reach::Traffic;
use isolarium_testkit::lab::topology::{self, Tape};
use isolarium_testkit::lab::vpc::{Tap, VpcLab, run_in};
use isolarium_testkit::lab::wire::Packet;
use isolarium_testkit::lab::{Internet, Lab, default_network};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

fn eni(n: u128) -> InterfaceId {
    InterfaceId::of(n)
}

fn anybody() -> BTreeSet<GroupRule> {
    let peer = Peer::Block("0.0.0.0/0".parse().unwrap());
    let traffic = Match::All;
    BTreeSet::from([GroupRule { traffic, peer }])
}

/// One open subnet with `count` programs at 10.0.0.10 and up, all in one group that admits everything.
fn open_vpc(id: u128, count: u8) -> Vpc {
    let mut vpc = (*topology::vpc(&mut Tape::new(&[]))).clone();
    vpc.id = VpcId::of(id);
    vpc.dns.support = true;
    vpc.nat_gateways.clear();
    for group in vpc.groups.values_mut() {
        group.ingress = anybody();
        group.egress = anybody();
    }
    let all = AclEntry {
        allow: true,
        traffic: Match::All,
        peer: "0.0.0.0/0".parse().unwrap(),
    };
    for acl in vpc.acls.values_mut() {
        *acl = NetworkAcl {
            ingress: BTreeMap::from([(100, all.clone())]),
            egress: BTreeMap::from([(100, all.clone())]),
        };
    }
    let like = vpc.interfaces.values().next().unwrap().clone();
    let program = |n: u8| Interface {
        primary: Ipv4Addr::new(10, 0, 0, 10 + n),
        secondary: BTreeSet::new(),
        source_dest_check: true,
        public: None,
        holder: Holder::Program,
        ..like.clone()
    };
    vpc.interfaces = (0..count).map(|n| (eni(u128::from(n) + 1), program(n))).collect();
    vpc
}

fn quiet_lab() -> Lab {
    Lab::around(Internet::bare().unwrap()).unwrap()
}

fn at(n: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, 9 + n), port).into()
}

fn listen(at: impl AsFd, port: u16) -> TcpListener {
    netns::within(at.as_fd(), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).unwrap()
}

fn dial(from: impl AsFd, to: SocketAddr) -> std::io::Result<TcpStream> {
    netns::within(from.as_fd(), || {
        TcpStream::connect_timeout(&to, Duration::from_millis(150))
    })
    .unwrap()
}

/// What a namespace's kernel holds, for comparing two moments.
fn held(router: impl AsFd) -> String {
    let mut all = String::new();
    for (program, args) in [
        ("nft", &["-s", "list", "ruleset"][..]),
        ("ip", &["-o", "addr"]),
        ("ip", &["route", "show", "table", "all"]),
        ("ip", &["rule"]),
        ("ip", &["neigh"]),
    ] {
        all += &run_in(router.as_fd(), program, args).unwrap();
    }
    all
}

/// Proves: NET-72
#[test]
fn a_restarted_host_adopts_routers_and_interfaces_and_the_next_intent_changes_nothing() {
    let lab = quiet_lab();
    let vpc = VpcLab::new(&lab, open_vpc(1, 3)).unwrap();
    let before = held(vpc.router().unwrap());
    let server = listen(vpc.at(eni(1)), 8080);
    let mut old = dial(vpc.at(eni(2)), at(1, 8080)).unwrap();
    let (mut accepted, _) = server.accept().unwrap();

    let restarted = lab.restarted();
    let seen = restarted.vpcs().unwrap();
    assert_eq!(seen, BTreeMap::from([(vpc.id(), [1, 2, 3].map(eni).into())]));
    restarted.ensure(lab.network()).unwrap();
    // Not before the intent is known again: nothing is attached by guessing.
    let again = restarted.open_door(vpc.id(), Door::Credentials);
    assert!(matches!(again, Err(HostError::NoVpc(_))), "{again:?}");
    restarted.apply_vpc(vpc.vpc().clone()).unwrap();
    assert_eq!(held(vpc.router().unwrap()), before);
    restarted.attach_interface(vpc.id(), eni(1)).unwrap();
    old.write_all(b"on").unwrap();
    let mut read = [0; 2];
    accepted.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"on", "a connection outlives the process");
    drop(restarted.open_door(vpc.id(), Door::Credentials).unwrap());
}

/// Proves: NET-72
#[test]
fn links_without_an_interface_go_with_the_next_intent_and_a_removed_vpc_leaves_nothing() {
    let lab = quiet_lab();
    let platform = lab.platform().unwrap();
    let links = |at: &OwnedFd| run_in(at.as_fd(), "ip", &["-o", "link"]).unwrap().lines().count();
    let before = held(&platform);
    let mut intent = open_vpc(1, 3);
    let vpc = VpcLab::new(&lab, intent.clone()).unwrap();
    let router = vpc.router().unwrap();
    assert_eq!(links(&router), 5, "control: loopback, uplink and three interfaces");
    let (first, second) = (vpc.at(eni(1)).try_clone_to_owned().unwrap(), vpc.at(eni(2)));
    let server = listen(second, 8080);
    dial(&first, at(2, 8080)).expect("control");
    // As after a kill: another process gets an intent without the first interface, whose container still runs.
    let restarted = lab.restarted();
    restarted.ensure(lab.network()).unwrap();
    intent.interfaces.remove(&eni(1));
    restarted.apply_vpc(intent.check().unwrap()).unwrap();
    assert_eq!(links(&router), 4);
    assert!(dial(&first, at(2, 8080)).is_err());
    drop(server);
    restarted.remove_vpc(vpc.id()).unwrap();
    assert_eq!(links(&router), 1, "although a descriptor still holds the namespace");
    assert_eq!(held(&platform), before);
    assert!(restarted.vpcs().unwrap().is_empty());
    restarted.remove_vpc(vpc.id()).unwrap();
}

/// Proves: NET-73
#[test]
fn a_container_gets_its_own_interface_alone_and_none_before_the_vpc_stands() {
    let lab = quiet_lab();
    let mut intent = open_vpc(1, 3);
    let workload: isolarium_model::WorkloadId = "w-0000000000000000a".parse().unwrap();
    intent.interfaces.get_mut(&eni(2)).unwrap().holder = Holder::Container(workload.clone());
    let network = |interface, workload: &isolarium_model::WorkloadId| WorkloadNetwork {
        workload: workload.clone(),
        reach: Reach::Vpc {
            vpc: VpcId::of(1),
            interface,
        },
    };
    let early = lab.host().seal(&network(eni(2), &workload));
    assert!(matches!(early, Err(SealError::Platform(_))), "{early:?}");
    lab.host().apply_vpc(intent.check().unwrap()).unwrap();
    let other = "w-0000000000000000b".parse().unwrap();
    for wrong in [
        network(eni(2), &other),
        network(eni(1), &workload),
        network(eni(9), &workload),
    ] {
        let refused = lab.host().seal(&wrong);
        assert!(matches!(refused, Err(SealError::Interface(_))), "{refused:?}");
    }
    assert!(
        lab.host().attach_interface(VpcId::of(1), eni(2)).is_err(),
        "it is a container's"
    );
    let sealed = lab.host().seal(&network(eni(2), &workload)).unwrap();
    let seen = run_in(sealed.as_fd(), "ip", &["-o", "addr"]).unwrap();
    assert!(seen.contains("10.0.0.11/32") && seen.lines().count() <= 3, "{seen}");
    assert!(
        lab.host().seal(&network(eni(2), &workload)).is_err(),
        "one namespace at a time"
    );
    let routes = run_in(sealed.as_fd(), "ip", &["route"]).unwrap();
    assert!(
        routes.starts_with("default via 10.0.0.1 dev eth0") && routes.lines().count() == 1,
        "{routes}"
    );
    lab.host().remove_vpc(VpcId::of(1)).unwrap();
}

#[test]
fn doors_tell_the_destination_and_the_interface_and_dialing_goes_through_the_rules() {
    let lab = quiet_lab();
    let mut intent = open_vpc(1, 2);
    let list = *intent.prefix_lists.keys().next().unwrap();
    let endpoint = isolarium_netplan::intent::vpc::S3Endpoint {
        prefix_list: list,
        route_tables: intent.route_tables.keys().copied().collect(),
    };
    intent.s3_endpoints = BTreeMap::from([(isolarium_netplan::id::EndpointId::of(1), endpoint)]);
    let mut vpc = VpcLab::new(&lab, intent).unwrap();
    let s3 = vpc.listener(Door::S3 { port: 80 }).unwrap();
    let credentials = vpc.listener(Door::Credentials).unwrap();
    let resolver = vpc.datagrams(vpc.vpc().resolver().unwrap()).unwrap();
    let from = |to: &str, port, by| {
        let to = (SocketAddrV4::new(to.parse().unwrap(), port), by);
        lab.host().dial_from(vpc.id(), eni(2), to, Duration::from_millis(200))
    };
    for to in ["198.18.128.7", "198.18.140.9"] {
        let _dialed = from(to, 80, Transport::Tcp).unwrap();
        let (accepted, peer) = s3.accept().unwrap();
        assert_eq!(accepted.local_addr().unwrap(), SocketAddr::new(to.parse().unwrap(), 80));
        assert_eq!(peer.ip(), at(2, 0).ip());
    }
    let _dialed = from("169.254.170.2", 80, Transport::Tcp).unwrap();
    assert_eq!(credentials.accept().unwrap().1.ip(), at(2, 0).ip());
    s3.set_nonblocking(true).unwrap();
    assert!(s3.accept().is_err(), "the more exact listener gets it");
    let asking: UdpSocket = from("10.0.0.2", 53, Transport::Udp).unwrap().into();
    asking.send(b"q").unwrap();
    assert_eq!(resolver.recv_from(&mut [0; 8]).unwrap().1.ip(), at(2, 0).ip());
    let server = listen(vpc.at(eni(1)), 8080);
    from("10.0.0.10", 8080, Transport::Tcp).expect("control");
    assert!(from("10.0.0.10", 8081, Transport::Tcp).is_err());
    drop((server, asking));
    let no_port = lab.host().open_door(vpc.id(), Door::S3 { port: 22 });
    assert!(matches!(no_port, Err(HostError::Door(_))));
    vpc.edit(|vpc| {
        vpc.dns.support = false;
        vpc.groups.values_mut().for_each(|group| group.egress.clear());
    })
    .unwrap();
    let gone = Door::Resolver {
        address: Ipv4Addr::new(10, 0, 0, 2),
        transport: Transport::Udp,
    };
    assert!(matches!(lab.host().open_door(vpc.id(), gone), Err(HostError::Door(_))));
    let to = (SocketAddrV4::new(Ipv4Addr::new(198, 18, 128, 7), 80), Transport::Tcp);
    let refused = lab.host().dial_from(vpc.id(), eni(2), to, Duration::from_millis(60));
    assert!(
        refused.is_err() && s3.accept().is_err(),
        "egress rules hold for the platform's transfers too"
    );
}

/// Who gets an address next does not inherit what the one before was allowed.
///
/// Proves: NET-16
#[test]
fn connections_of_an_address_end_when_it_changes_hands() {
    let lab = quiet_lab();
    let mut vpc = VpcLab::new(&lab, open_vpc(1, 2)).unwrap();
    let socket = |at: &dyn AsFd, port: u16| {
        let socket = netns::within(at.as_fd(), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
        socket
    };
    let client = socket(&vpc.at(eni(2)), 4000);
    let server = socket(&vpc.at(eni(1)), 5000);
    client.send_to(b"1", at(1, 5000)).unwrap();
    server.recv_from(&mut [0; 8]).expect("control");
    server.send_to(b"2", at(2, 4000)).unwrap();
    client.recv_from(&mut [0; 8]).expect("control");
    // The same address, another interface, in a group that admits nobody.
    drop(server);
    vpc.edit(|vpc| {
        let mut next = vpc.interfaces.remove(&eni(1)).unwrap();
        let closed = isolarium_netplan::id::GroupId::of(77);
        vpc.groups.insert(closed, Default::default());
        next.groups = BTreeSet::from([closed]);
        vpc.interfaces.insert(eni(5), next);
    })
    .unwrap();
    let server = socket(&vpc.at(eni(5)), 5000);
    client.send_to(b"3", at(1, 5000)).unwrap();
    assert!(server.recv_from(&mut [0; 8]).is_err());
    vpc.edit(|vpc| {
        let open = vpc.groups.keys().next().copied().unwrap();
        vpc.interfaces.get_mut(&eni(5)).unwrap().groups = BTreeSet::from([open]);
    })
    .unwrap();
    client.send_to(b"4", at(1, 5000)).unwrap();
    server.recv_from(&mut [0; 8]).expect("control: with a rule it arrives");
}

fn told(flows: &[Flow], protocol: u8, to: SocketAddr) -> Vec<Flow> {
    let mut found = flows.to_vec();
    let same = |flow: &Flow| {
        SocketAddr::from((flow.path.destination, flow.path.destination_port)) == to && flow.protocol == protocol
    };
    found.retain(same);
    found
}

/// Proves: NET-57
#[test]
fn flows_are_told_with_exact_counts_and_who_refused_them() {
    let lab = quiet_lab();
    let mut intent = open_vpc(1, 3);
    let closed = isolarium_netplan::id::GroupId::of(77);
    intent.groups.insert(closed, Default::default());
    intent.interfaces.get_mut(&eni(3)).unwrap().groups = BTreeSet::from([closed]);
    let vpc = VpcLab::new(&lab, intent).unwrap();
    let read = |since| lab.host().read_flows(vpc.id(), since, Duration::ZERO).unwrap();
    let begun = read(0);
    assert_eq!((begun.flows.len(), begun.lost), (0, 0));
    let sender = netns::within(vpc.at(eni(2)), || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4000)).unwrap()
    })
    .unwrap();
    let silent = netns::within(vpc.at(eni(3)), || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4000)).unwrap()
    })
    .unwrap();
    let receiver = netns::within(vpc.at(eni(1)), || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5000)).unwrap()
    })
    .unwrap();
    for _ in 0..7 {
        sender.send_to(&[0; 100], at(1, 5000)).unwrap();
        receiver.recv_from(&mut [0; 200]).unwrap();
    }
    receiver.send_to(&[0; 10], at(2, 4000)).unwrap();
    for _ in 0..5 {
        sender.send_to(&[0; 100], at(3, 5000)).unwrap();
        let _refused_at_once = silent.send_to(&[0; 50], at(1, 5001));
    }
    let first = read(begun.next);
    let [passed] = told(&first.flows, 17, at(1, 5000))[..] else {
        panic!("{first:?}")
    };
    assert_eq!((passed.forward.packets, passed.forward.bytes), (7, 7 * 128));
    let Fate::Passed {
        answers,
        backward,
        began,
        ended,
        ..
    } = passed.fate
    else {
        panic!("{passed:?}")
    };
    assert_eq!((backward.packets, backward.bytes), (1, 38));
    assert_eq!(SocketAddr::from((answers.source, answers.source_port)), at(1, 5000));
    assert!(began && !ended && passed.first <= passed.last);
    for (to, by) in [(at(3, 5000), Refusal::Ingress), (at(1, 5001), Refusal::Egress)] {
        let [refused] = told(&first.flows, 17, to)[..] else {
            panic!("{to}: {first:?}")
        };
        assert_eq!(refused.fate, Fate::Refused { by });
        assert_eq!(refused.forward.packets, 5);
    }
    // Once told and kept, nothing is told again; what follows is the rest.
    sender.send_to(&[0; 100], at(1, 5000)).unwrap();
    let second = read(first.next);
    let [rest] = second.flows[..] else { panic!("{second:?}") };
    assert_eq!(rest.forward.packets, 1);
    assert!(matches!(rest.fate, Fate::Passed { began: false, .. }));
    // A connection that ends is heard of.
    let server = listen(vpc.at(eni(1)), 8080);
    drop(dial(vpc.at(eni(2)), at(1, 8080)).unwrap());
    run_in(vpc.router().unwrap().as_fd(), "sh", &["-c", "echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait; echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait; echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_fin_wait"]).unwrap();
    drop(server);
    let third = read(second.next);
    assert!(!told(&third.flows, 6, at(1, 8080)).is_empty(), "{third:?}");
    assert_eq!(third.lost, 0);
    // An earlier life's number: what happened between is not known.
    assert!(
        lab.restarted()
            .read_flows(vpc.id(), third.next, Duration::ZERO)
            .unwrap()
            .lost
            > 0
    );
}

const CHILD: &str = "ISOLARIUM_TEST_CHILD";

/// Not a test by itself: what the killed process does, when the test below starts it again under this name.
#[test]
fn child_that_is_killed() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let (run_dir, uplink) = arguments.split_once('|').unwrap();
    let host = Host::new(HostOptions {
        run_dir: PathBuf::from(run_dir),
        host_netns: None,
    });
    host.ensure(&default_network(Uplink::Netns { path: uplink.into() }))
        .unwrap();
    for n in 0_u64.. {
        let count = 1 + u8::try_from(n % 5).unwrap();
        let intent = open_vpc(1 + u128::from(n % 2), count);
        let id = intent.id;
        host.apply_vpc(intent.check().unwrap()).unwrap();
        for interface in 0..count {
            // A number that was attached and is not any more is let go, as reconcilers do.
            host.attach_interface(id, eni(u128::from(interface) + 1)).unwrap();
        }
        for interface in count..6 {
            host.detach_interface(id, eni(u128::from(interface) + 1)).unwrap();
        }
        if n % 7 == 6 {
            host.remove_vpc(id).unwrap();
        }
    }
}

/// Proves: NET-72
#[test]
fn after_a_kill_at_any_moment_the_kernel_becomes_the_plan_without_orphans() {
    let kills: u64 = std::env::var("CRASHES").map_or(12, |text| text.parse().unwrap());
    let seed: u64 = std::env::var("SEED").map_or_else(
        |_| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos().try_into().unwrap(),
        |text| text.parse().unwrap(),
    );
    println!("the same moments again: SEED={seed}");
    let mut state = seed;
    let mut random = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let lab = quiet_lab();
    let arguments = format!("{}|{}", lab.run_dir().display(), lab.internet().path());
    let mut alive = 0;
    for round in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(CHILD, &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Moments spread over start-up, applying, attaching and removing.
        std::thread::sleep(Duration::from_micros(40_000 + random() % 260_000));
        alive += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();

        let host = lab.restarted();
        host.ensure(lab.network()).unwrap();
        for vpc in host.vpcs().unwrap().into_keys() {
            if vpc != VpcId::of(1) {
                host.remove_vpc(vpc).unwrap();
            }
        }
        let intent = open_vpc(1, 2).check().unwrap();
        host.apply_vpc(intent).unwrap();
        for interface in host.vpcs().unwrap().remove(&VpcId::of(1)).unwrap() {
            if interface > eni(2) {
                host.detach_interface(VpcId::of(1), interface).unwrap();
            }
        }
        for interface in [1, 2] {
            host.attach_interface(VpcId::of(1), eni(interface)).unwrap();
        }
        assert_eq!(
            host.vpcs().unwrap(),
            BTreeMap::from([(VpcId::of(1), [1, 2].map(eni).into())])
        );
        let path = |n| host.interface_path(VpcId::of(1), eni(n));
        let (first, second) = (netns::open(&path(1)).unwrap(), netns::open(&path(2)).unwrap());
        let server = listen(&first, 8080);
        dial(&second, at(1, 8080)).unwrap_or_else(|error| panic!("round {round}: {error}"));
        drop(server);
        let router = netns::open(&lab.run_dir().join("netns").join(VpcId::of(1).to_string())).unwrap();
        let crashed = held(&router);
        host.remove_vpc(VpcId::of(1)).unwrap();
        // The same intent on a host that nobody killed.
        let fresh = VpcLab::new(&lab, open_vpc(1, 2)).unwrap();
        assert_eq!(
            without_numbers(&held(fresh.router().unwrap())),
            without_numbers(&crashed),
            "round {round}"
        );
    }
    assert!(
        alive * 2 > kills,
        "control: {alive} of {kills} were killed while they worked"
    );
}

/// Interfaces' numbers differ from one life to the next.
fn without_numbers(held: &str) -> Vec<String> {
    let line = |line: &str| {
        line.split(": ")
            .skip(usize::from(line.contains(": ")))
            .collect::<Vec<_>>()
            .join(": ")
    };
    let mut lines: Vec<String> = held.lines().map(line).collect();
    lines.sort();
    lines
}

/// Proves: NET-72
#[test]
fn what_the_kernel_has_other_than_the_intent_is_told_and_left_as_it_is() {
    let lab = quiet_lab();
    let vpc = VpcLab::new(&lab, open_vpc(1, 2)).unwrap();
    let router = vpc.router().unwrap();
    let compared = || lab.host().compare_vpc(vpc.vpc()).unwrap();
    let inside = |program: &str, arguments: &[&str]| run_in(router.as_fd(), program, arguments).unwrap();
    assert_eq!(compared(), Vec::<String>::new(), "control");
    let before = held(&router);
    for (program, change, back) in [
        (
            "ip",
            "route add 192.0.2.0/24 via 10.0.0.10 dev LINK onlink",
            "route del 192.0.2.0/24",
        ),
        ("ip", "addr add 192.0.2.1/32 dev lo", "addr del 192.0.2.1/32 dev lo"),
        ("ip", "rule add from 192.0.2.1 lookup main", "rule del from 192.0.2.1"),
        ("ip", "link add stray type veth peer name other", "link del stray"),
        ("nft", "add table ip theirs", "delete table ip theirs"),
    ] {
        let link = isolarium_netplan::plan::LinkName::of_interface(eni(1));
        let words = |text: &str| {
            text.replace("LINK", link.as_str())
                .split(' ')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let run = |text: &str| {
            let words = words(text);
            inside(program, &words.iter().map(String::as_str).collect::<Vec<_>>())
        };
        run(change);
        let (changed, told) = (held(&router), compared());
        assert!(!told.is_empty(), "{change}");
        assert_eq!(held(&router), changed, "{change}: comparing changes nothing");
        run(back);
        assert_eq!(compared(), Vec::<String>::new(), "{back}");
    }
    inside("nft", &["flush", "chain", "inet", "vpc", "forward"]);
    assert!(!compared().is_empty(), "an emptied chain");
    lab.host().apply_vpc(vpc.vpc().clone()).unwrap();
    assert_eq!(compared(), Vec::<String>::new());
    assert_eq!(held(&router), before);
    // Another intent than the one that stands.
    let mut other = (**vpc.vpc()).clone();
    other.groups.values_mut().next().unwrap().ingress.clear();
    assert!(!lab.host().compare_vpc(&other.check().unwrap()).unwrap().is_empty());
    assert!(matches!(
        lab.host().compare_vpc(&open_vpc(9, 1).check().unwrap()),
        Err(HostError::NoVpc(_))
    ));
}

/// Proves: NET-73
#[test]
fn a_router_that_somebody_changed_is_mended_before_anything_is_attached_or_nothing_is() {
    let lab = quiet_lab();
    let mut vpc = VpcLab::new(&lab, open_vpc(1, 2)).unwrap();
    let router = vpc.router().unwrap();
    let before = held(&router);
    run_in(router.as_fd(), "nft", &["flush", "chain", "inet", "vpc", "forward"]).unwrap();
    assert_ne!(held(&router), before, "control");
    vpc.edit(|vpc| {
        let mut third = vpc.interfaces[&eni(2)].clone();
        third.primary = Ipv4Addr::new(10, 0, 0, 12);
        vpc.interfaces.insert(eni(3), third);
    })
    .unwrap();
    let forward = |at: &OwnedFd| run_in(at.as_fd(), "nft", &["-s", "list", "chain", "inet", "vpc", "forward"]).unwrap();
    assert!(
        before.contains(
            forward(&router)
                .trim_start_matches("table inet vpc {")
                .trim_end_matches("}\n")
                .trim()
        )
    );
    run_in(router.as_fd(), "nft", &["flush", "chain", "inet", "vpc", "forward"]).unwrap();
    lab.host().detach_interface(vpc.id(), eni(3)).unwrap();
    lab.host().attach_interface(vpc.id(), eni(3)).unwrap();
    assert!(forward(&router).contains("sender"), "an attachment alone mends it too");

    // What no plan can put right: nothing is attached, the rules stand, and nothing is changed.
    run_in(router.as_fd(), "nft", &["add", "table", "ip", "theirs"]).unwrap();
    lab.host().detach_interface(vpc.id(), eni(3)).unwrap();
    let refused = lab.host().attach_interface(vpc.id(), eni(3));
    assert!(refused.is_err());
    assert!(lab.host().apply_vpc(vpc.vpc().clone()).is_err());
    let server = listen(vpc.at(eni(1)), 8080);
    dial(vpc.at(eni(2)), at(1, 8080)).expect("what stood stands");
    drop(server);
    run_in(router.as_fd(), "nft", &["delete", "table", "ip", "theirs"]).unwrap();
    lab.host().apply_vpc(vpc.vpc().clone()).expect("control");
    lab.host().attach_interface(vpc.id(), eni(3)).expect("control");
}

const INHERITED: &str = "for s in accept_source_route proxy_arp route_localnet; do \
                         for c in /proc/sys/net/ipv4/conf/*; do echo 1 > $c/$s; done; done";

/// The settings of [`INHERITED`] that are on, of which a line.
fn inherited(at: impl AsFd) -> usize {
    let list = "cat /proc/sys/net/ipv4/conf/*/accept_source_route /proc/sys/net/ipv4/conf/*/proxy_arp \
                /proc/sys/net/ipv4/conf/*/route_localnet";
    let values = run_in(at.as_fd(), "sh", &["-c", list]).unwrap();
    values.lines().filter(|value| *value != "0").count()
}

/// A container may put a source route into what it sends. On a host that honours those, a packet of a flow that the
/// resolver has answered would be led on to anybody, past every group.
///
/// Proves: NET-19, ISO-17
#[test]
fn source_routes_are_not_followed_whatever_the_host_lets_its_namespaces_inherit() {
    let lab = quiet_lab();
    // Namespaces as they are made where the host has these on.
    let path = lab.run_dir().join("netns").join(VpcId::of(1).to_string());
    let made = netns::create_pinned(&path).unwrap();
    let platform = lab.platform().unwrap();
    run_in(made.as_fd(), "sh", &["-c", INHERITED]).unwrap();
    run_in(platform.as_fd(), "sh", &["-c", INHERITED]).unwrap();
    assert!(inherited(&made) >= 9 && inherited(&platform) >= 9, "control");
    let mut intent = open_vpc(1, 2);
    let closed = isolarium_netplan::id::GroupId::of(77);
    intent.groups.insert(closed, Default::default());
    intent.interfaces.get_mut(&eni(2)).unwrap().groups = BTreeSet::from([closed]);
    let vpc = VpcLab::new(&lab, intent).unwrap();
    lab.host().ensure(lab.network()).unwrap();
    assert_eq!((inherited(&made), inherited(&platform)), (0, 0));

    let resolver = vpc.vpc().resolver().unwrap();
    let socket = vpc.datagrams(resolver).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let (sender, other) = (Tap::on(vpc.at(eni(1))).unwrap(), Tap::on(vpc.at(eni(2))).unwrap());
    let packet = |probe| Packet {
        source: Ipv4Addr::new(10, 0, 0, 10),
        destination: resolver,
        traffic: Traffic::Udp { from: 4000, to: 53 },
        probe,
        answer: false,
    };
    sender.send(&packet(1));
    let (_, from) = socket.recv_from(&mut [0; 8]).expect("control: the resolver hears it");
    socket.send_to(b"answer", from).unwrap();
    let strays = |probe: u32| {
        let packet = packet(probe);
        sender.send_bytes(&packet, &packet.source_routed(Ipv4Addr::new(10, 0, 0, 11)));
        // What comes behind it has passed the router after it.
        sender.send(&packet);
        socket.recv_from(&mut [0; 8]).expect("control: the flow goes on");
        other.seen().unwrap().len()
    };
    assert_eq!(strays(2), 0);
    run_in(made.as_fd(), "sh", &["-c", INHERITED]).unwrap();
    assert_eq!(
        strays(3),
        1,
        "control: a router that follows source routes leads it past the group"
    );
    lab.host().apply_vpc(vpc.vpc().clone()).unwrap();
    assert_eq!(inherited(&made), 0, "the next intent puts it right");
    assert_eq!(strays(4), 0);
}

/// Proves: NET-72
#[test]
fn an_interface_that_an_intent_left_out_for_a_while_works_when_it_is_attached_again() {
    let lab = quiet_lab();
    let whole = open_vpc(1, 2).check().unwrap();
    let id = whole.id;
    lab.host().apply_vpc(whole.clone()).unwrap();
    let attach = |n| lab.host().attach_interface(id, eni(n)).unwrap();
    let open = |n| netns::open(&lab.host().interface_path(id, eni(n))).unwrap();
    attach(1);
    attach(2);
    let server = listen(open(1), 8080);
    dial(open(2), at(1, 8080)).expect("control");
    lab.host().apply_vpc(open_vpc(1, 1).check().unwrap()).unwrap();
    assert!(dial(open(2), at(1, 8080)).is_err(), "it has no link any more");
    lab.host().apply_vpc(whole).unwrap();
    attach(2);
    dial(open(2), at(1, 8080)).unwrap();
    drop(server);
    lab.host().remove_vpc(id).unwrap();
}
