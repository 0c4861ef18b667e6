//! Networks of a job's own containers, and containers of one job in the platform network, on the real kernel.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use isolarium_dataplane::kernel::netns;
use isolarium_dataplane::{HostError, SealError, SealedNetns};
use isolarium_model::WorkloadId;
use isolarium_netplan::id::{AclId, GroupId, InterfaceId, RouteTableId, SubnetId, VpcId};
use isolarium_netplan::intent::vpc::{
    AclEntry, Dns, Door, GroupRule, Holder, Interface, Match, NetworkAcl, Peer, RouteTable, SecurityGroup, Subnet, Vpc,
};
use isolarium_netplan::intent::{Reach, Tunnel, WorkloadNetwork};
use isolarium_testkit::lab::vpc::run_in;
use isolarium_testkit::lab::{Internet, Lab};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

const PORT: u16 = 7000;

fn workload(network: u128, member: u8) -> WorkloadId {
    format!("w-{:017x}", network * 256 + u128::from(member))
        .parse()
        .unwrap()
}

fn address(member: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 4 + member)
}

fn interface(network: u128, member: u8) -> InterfaceId {
    InterfaceId::of(network * 256 + u128::from(member))
}

/// Three containers among which everything passes; the same addresses in every network.
fn peers(network: u128) -> Vpc {
    let block = "10.0.0.0/24".parse().unwrap();
    let (subnet, table, acl, group) = (SubnetId::of(1), RouteTableId::of(1), AclId::of(1), GroupId::of(1));
    let all = AclEntry {
        allow: true,
        traffic: Match::All,
        peer: "0.0.0.0/0".parse().unwrap(),
    };
    let acl_of_all = NetworkAcl {
        ingress: BTreeMap::from([(100, all.clone())]),
        egress: BTreeMap::from([(100, all)]),
    };
    let rule = GroupRule {
        traffic: Match::All,
        peer: Peer::Group(group),
    };
    let members = (0..3).map(|member| {
        let one = Interface {
            subnet,
            primary: address(member),
            secondary: BTreeSet::new(),
            groups: [group].into(),
            source_dest_check: true,
            public: None,
            holder: Holder::Container(workload(network, member)),
        };
        (interface(network, member), one)
    });
    Vpc {
        id: VpcId::of(network),
        blocks: vec![block],
        dns: Dns {
            support: false,
            hostnames: false,
            domain_name: None,
            servers: Vec::new(),
        },
        subnets: [(
            subnet,
            Subnet {
                block,
                zone: String::new(),
                route_table: table,
                acl,
            },
        )]
        .into(),
        acls: [(acl, acl_of_all)].into(),
        groups: [(
            group,
            SecurityGroup {
                ingress: [rule.clone()].into(),
                egress: [rule].into(),
            },
        )]
        .into(),
        prefix_lists: BTreeMap::new(),
        route_tables: [(table, RouteTable::default())].into(),
        internet_gateway: None,
        nat_gateways: BTreeMap::new(),
        interfaces: members.collect(),
        s3_endpoints: BTreeMap::new(),
        interface_endpoints: BTreeMap::new(),
        peers_only: true,
    }
}

fn sealed(lab: &Lab, network: u128) -> Vec<SealedNetns> {
    lab.host().apply_vpc(peers(network).check().unwrap()).unwrap();
    let one = |member| lab.host().seal(&wanted(network, member)).unwrap();
    (0..3).map(one).collect()
}

fn wanted(network: u128, member: u8) -> WorkloadNetwork {
    WorkloadNetwork {
        workload: workload(network, member),
        reach: Reach::Peers {
            network: VpcId::of(network),
            interface: interface(network, member),
        },
    }
}

fn listen(at: &SealedNetns) -> TcpListener {
    netns::within(at.as_fd(), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap()).unwrap()
}

fn dial(from: &SealedNetns, to: Ipv4Addr) -> std::io::Result<TcpStream> {
    let to = SocketAddr::from((to, PORT));
    netns::within(from.as_fd(), || {
        TcpStream::connect_timeout(&to, Duration::from_millis(300))
    })
    .unwrap()
}

/// Proves: NI-9, NET-73
#[test]
fn the_containers_of_one_job_reach_each_other_and_two_jobs_with_equal_addresses_never_meet() {
    let lab = Lab::around(Internet::bare().unwrap()).unwrap();
    let (a, b) = (sealed(&lab, 1), sealed(&lab, 2));
    for job in [&a, &b] {
        let listeners: Vec<_> = job.iter().map(listen).collect();
        for (from, netns) in (0..).zip(job) {
            for to in (0..3).filter(|to| *to != from) {
                let reached = dial(netns, address(to)).unwrap();
                let (_, peer) = listeners[usize::from(to)].accept().unwrap();
                assert_eq!(
                    peer,
                    reached.local_addr().unwrap(),
                    "it is the one of this job, unchanged"
                );
                assert_eq!(peer.ip(), address(from));
            }
        }
        // Ping needs no privilege, and datagrams pass both ways.
        let ping = run_in(job[0].as_fd(), "cat", &["/proc/sys/net/ipv4/ping_group_range"]).unwrap();
        assert_eq!(ping.trim(), "0\t2147483647");
        let socket = |n: usize| netns::within(job[n].as_fd(), || UdpSocket::bind(("0.0.0.0", 5000)).unwrap()).unwrap();
        let (here, there) = (socket(0), socket(1));
        here.send_to(b"x", (address(1), 5000)).unwrap();
        let (_, from) = there.recv_from(&mut [0]).unwrap();
        assert_eq!(from.ip(), address(0));
    }
    // Of two jobs only one listens: nobody of the other gets there, although the address is the same.
    let listener = listen(&a[1]);
    dial(&a[0], address(1)).expect("control");
    listener.accept().unwrap();
    assert_eq!(
        dial(&b[0], address(1)).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused,
        "its own peer's kernel"
    );
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
    for network in [1, 2] {
        lab.host().remove_vpc(VpcId::of(network)).unwrap();
    }
}

/// Proves: NI-9, NI-23
#[test]
fn nothing_leads_out_of_a_network_of_peers_even_for_one_who_makes_routes() {
    let lab = Lab::around(Internet::bare().unwrap()).unwrap();
    let job = sealed(&lab, 1);
    let routes = run_in(job[0].as_fd(), "ip", &["route"]).unwrap();
    assert!(
        !routes.contains("default") && routes.lines().count() == 2,
        "peers alone: {routes}"
    );
    let router = netns::open(&lab.run_dir().join("netns").join(VpcId::of(1).to_string())).unwrap();
    let links = run_in(router.as_fd(), "ip", &["-o", "link"]).unwrap();
    assert_eq!(
        links.lines().count(),
        4,
        "loopback and three containers, no uplink: {links}"
    );
    assert!(
        !run_in(router.as_fd(), "ip", &["-o", "addr"])
            .unwrap()
            .contains("169.254")
    );
    // With a privilege that no container has: a route to the router, which still carries nothing on and serves nothing.
    run_in(
        job[0].as_fd(),
        "ip",
        &["route", "add", "default", "via", "10.0.0.1", "dev", "eth0", "onlink"],
    )
    .unwrap();
    let served = netns::within(router.as_fd(), || TcpListener::bind(("0.0.0.0", PORT)).unwrap()).unwrap();
    served.set_nonblocking(true).unwrap();
    for out in [
        "203.0.113.10",
        "100.64.0.1",
        "169.254.170.2",
        "169.254.169.253",
        "10.0.0.1",
        "10.0.0.77",
        "198.18.0.1",
    ] {
        assert!(dial(&job[0], out.parse().unwrap()).is_err(), "{out}");
    }
    assert!(served.accept().is_err(), "not even in the router");
    let listener = listen(&job[1]);
    dial(&job[0], address(1)).expect("control: its peer");
    drop(listener);
    // Another source is nobody's.
    run_in(job[0].as_fd(), "ip", &["addr", "add", "10.0.0.99/32", "dev", "eth0"]).unwrap();
    let heard = netns::within(job[1].as_fd(), || UdpSocket::bind(("0.0.0.0", 5000)).unwrap()).unwrap();
    heard.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let forged = netns::within(job[0].as_fd(), || UdpSocket::bind(("10.0.0.99", 0)).unwrap()).unwrap();
    forged.send_to(b"forged", (address(1), 5000)).unwrap();
    assert!(heard.recv_from(&mut [0; 8]).is_err());
    let own = netns::within(job[0].as_fd(), || UdpSocket::bind((address(0), 0)).unwrap()).unwrap();
    own.send_to(b"own", (address(1), 5000)).unwrap();
    heard.recv_from(&mut [0; 8]).expect("control");
    assert!(matches!(
        lab.host().open_door(VpcId::of(1), Door::Credentials),
        Err(HostError::Door(_))
    ));
    lab.host().remove_vpc(VpcId::of(1)).unwrap();
}

/// Proves: NET-73, NI-9
#[test]
fn an_isolated_container_is_put_nowhere_but_into_a_network_of_peers() {
    let lab = Lab::around(Internet::bare().unwrap()).unwrap();
    let early = lab.host().seal(&wanted(1, 0));
    assert!(matches!(early, Err(SealError::Platform(_))), "{early:?}");
    lab.host()
        .apply_vpc(
            Vpc {
                peers_only: false,
                ..peers(1)
            }
            .check()
            .unwrap(),
        )
        .unwrap();
    let open = lab.host().seal(&wanted(1, 0));
    assert!(matches!(open, Err(SealError::Interface(_))), "{open:?}");
    lab.host().remove_vpc(VpcId::of(1)).unwrap();
    lab.host().apply_vpc(peers(1).check().unwrap()).unwrap();
    let as_vpc = WorkloadNetwork {
        reach: Reach::Vpc {
            vpc: VpcId::of(1),
            interface: interface(1, 0),
        },
        ..wanted(1, 0)
    };
    assert!(matches!(lab.host().seal(&as_vpc), Err(SealError::Interface(_))));
    let other = WorkloadNetwork {
        workload: workload(1, 1),
        ..wanted(1, 0)
    };
    assert!(
        matches!(lab.host().seal(&other), Err(SealError::Interface(_))),
        "another's place"
    );
    lab.host().seal(&wanted(1, 0)).expect("control");
    lab.host().remove_vpc(VpcId::of(1)).unwrap();
    let mut leads = peers(1);
    leads.dns.support = true;
    assert!(leads.check().is_err(), "a network of peers serves nobody");
}

fn hears(at: &SealedNetns) -> UdpSocket {
    let socket = netns::within(at.as_fd(), || UdpSocket::bind(("0.0.0.0", 5000)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// As any program may: the socket uses this interface alone, whatever the routes say.
#[expect(unsafe_code, reason = "this socket option has no safe wrapper")]
fn bind_to_device(socket: &UdpSocket, link: &str) {
    let length = libc::socklen_t::try_from(link.len()).unwrap();
    let level = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    // SAFETY: the descriptor is open, the pointer is to a live text of the given length.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level.0, level.1, link.as_ptr().cast(), length) };
    assert_eq!(done, 0);
}

/// Sends a datagram; what the kernel refuses to send is not heard either.
fn say(from: &SealedNetns, to: Ipv4Addr, link: Option<&str>) {
    let socket = netns::within(from.as_fd(), || UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
    if let Some(link) = link {
        bind_to_device(&socket, link);
    }
    let _refused = socket.send_to(b"words", (to, 5000));
}

/// How long is waited for what must come.
const LONG: std::time::Duration = std::time::Duration::from_secs(30);

fn packet_of(device: &std::os::fd::OwnedFd) -> Option<Vec<u8>> {
    let mut room = vec![0; 2048];
    let begun = std::time::Instant::now();
    while begun.elapsed() < LONG {
        match rustix::io::read(device, room.as_mut_slice()) {
            // Not IPv4: the kernel's own words on a new interface.
            Ok(length) if room[0] >> 4 == 4 => return Some(room[..length].to_vec()),
            Ok(_) => {}
            Err(_) => std::thread::yield_now(),
        }
    }
    None
}

/// Proves: CC-89, NI-9
#[test]
fn what_is_said_to_an_encrypted_peer_goes_into_the_tunnel_or_nowhere() {
    let lab = Lab::around(Internet::bare().unwrap()).unwrap();
    lab.host().apply_vpc(peers(1).check().unwrap()).unwrap();
    // The first is encrypted towards the second alone, the second towards both others, the third not at all.
    let tunnel = |own: u8, others: &[u8]| Tunnel {
        own: address(own),
        peers: others.iter().map(|n| (address(*n), workload(1, *n))).collect(),
    };
    let seal = |n: u8, tunnel: Option<Tunnel>| lab.host().seal_for(&wanted(1, n), tunnel.as_ref()).unwrap();
    let (a, b, c) = (
        seal(0, Some(tunnel(0, &[1]))),
        seal(1, Some(tunnel(1, &[0, 2]))),
        seal(2, None),
    );
    let (at_a, at_b) = (hears(&a), hears(&b));
    let heard = |socket: &UdpSocket| socket.recv_from(&mut [0; 16]).is_ok();
    let comes = |socket: &UdpSocket| {
        socket.set_read_timeout(Some(LONG)).unwrap();
        let heard = heard(socket);
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        heard
    };
    say(&c, address(0), None);
    assert!(comes(&at_a), "control: the way is there");
    say(&c, address(1), None);
    assert!(!heard(&at_b), "in the clear from one whose words should be encrypted");

    // What a program says to its peer waits for the process that encrypts, and for nobody else.
    say(&a, address(1), None);
    let ends = a.tunnel().unwrap();
    let packet = packet_of(&ends.plain).expect("it is in the tunnel");
    assert!(packet.ends_with(b"words") && packet[12..16] == address(0).octets());
    say(&a, address(1), Some("eth0"));
    assert!(!heard(&at_b), "not around it either");
    let fake = netns::within(a.as_fd(), || UdpSocket::bind((address(0), 4500)).unwrap()).unwrap();
    bind_to_device(&fake, "eth0");
    let wire_of_b = &b.tunnel().unwrap().wire;
    assert!(
        fake.send_to(b"words", (address(1), Tunnel::PORT)).is_err(),
        "nor to the port of encrypted packets"
    );
    let to = SocketAddrV4::new(address(1), Tunnel::PORT);
    rustix::net::sendto(&ends.wire, b"sealed", rustix::net::SendFlags::empty(), &to).unwrap();
    let mut room = [0; 64];
    // The packet may be some time on its way: a busy machine passes it on later.
    let begun = std::time::Instant::now();
    let (_, length, from) = loop {
        match rustix::net::recvfrom(wire_of_b, room.as_mut_slice(), rustix::net::RecvFlags::empty()) {
            Err(rustix::io::Errno::AGAIN) if begun.elapsed() < LONG => std::thread::yield_now(),
            done => break done.unwrap(),
        }
    };
    assert_eq!(&room[..length], b"sealed", "the process's own packets pass");
    let from = SocketAddrV4::try_from(from.unwrap()).unwrap();
    assert_eq!(from, SocketAddrV4::new(address(0), Tunnel::PORT));
    rustix::io::write(&b.tunnel().unwrap().plain, &packet).unwrap();
    assert!(comes(&at_b), "and what they held is heard");

    // The process is gone: nothing comes from its end, and nothing goes another way.
    let routes = run_in(a.as_fd(), "ip", &["route", "get", &address(1).to_string()]).unwrap();
    assert!(routes.contains("dev peers0"), "{routes}");
    let link = run_in(a.as_fd(), "ip", &["link", "show", "peers0"]).unwrap();
    assert!(link.contains("mtu 1440"), "{link}");
    let a = std::os::fd::OwnedFd::from(a);
    say_in(&a, address(1));
    assert!(!heard(&at_b));
    let routes = run_in(a.as_fd(), "ip", &["route", "get", &address(1).to_string()]).unwrap();
    assert!(routes.contains("dev peers0"), "{routes}");
    lab.host().remove_vpc(VpcId::of(1)).unwrap();
    let nobody = WorkloadNetwork {
        workload: workload(1, 0),
        reach: Reach::Nothing,
    };
    assert!(matches!(
        lab.host().seal_for(&nobody, Some(&tunnel(0, &[1]))),
        Err(SealError::Plan(_))
    ));
}

fn say_in(from: &std::os::fd::OwnedFd, to: Ipv4Addr) {
    let socket = netns::within(from.as_fd(), || UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
    let _refused = socket.send_to(b"words", (to, 5000));
}

/// Proves: CC-85, NET-72
#[test]
fn containers_of_one_job_in_the_platform_network_meet_while_they_are_told_to() {
    let lab = Lab::around(Internet::bare().unwrap()).unwrap();
    let at = |n: u8| Ipv4Addr::new(100, 64, 0, n);
    let all: Vec<SealedNetns> = (10..13).map(|n| lab.connected(at(n)).unwrap()).collect();
    let _listeners: Vec<_> = all.iter().map(listen).collect();
    let met = |from: usize, to: u8| dial(&all[from], at(to)).is_ok();
    assert!(!met(0, 11) && !met(1, 10), "strangers");
    let pair = BTreeSet::from([BTreeSet::from([at(10), at(11)])]);
    lab.host().set_peers(&pair).unwrap();
    assert!(met(0, 11) && met(1, 10));
    assert!(!met(0, 12) && !met(2, 10), "the third is of another job");
    let restarted = lab.restarted();
    restarted.ensure(lab.network()).unwrap();
    assert!(
        met(0, 11) && !met(0, 12),
        "a restarted host lets them go on, and nobody else"
    );
    restarted.set_peers(&BTreeSet::new()).unwrap();
    assert!(!met(0, 11) && !met(1, 10));
    let outside = BTreeSet::from([BTreeSet::from([at(10), Ipv4Addr::new(10, 0, 0, 1)])]);
    assert!(restarted.set_peers(&outside).is_err());
}
