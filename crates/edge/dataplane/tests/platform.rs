//! The platform network on the real kernel: what containers without isolation and without VpcConfig reach, and what they
//! do not. Every refusal is decided at the target, and its control is the same target reached by the router itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use isolarium_dataplane::kernel::netns;
use isolarium_dataplane::{Host, HostError};
use isolarium_netplan::intent::{ListenerSpec, Reach, Transport, Uplink};
use isolarium_testkit::lab::{Capture, Internet, Lab, Machine, Stub, default_network, probe};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

const FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 10);
const SECOND: Ipv4Addr = Ipv4Addr::new(100, 64, 7, 11);

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddrV4::new(address, port).into()
}

fn run(program: &str, args: &str) -> String {
    let output = Command::new(program).args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {args}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn tcp(address: Ipv4Addr, port: u16) -> ListenerSpec {
    ListenerSpec {
        address: address.into(),
        port,
        transport: Transport::Tcp,
    }
}

/// Whether somebody connected to a listener.
fn was_reached(listener: &TcpListener) -> bool {
    std::thread::sleep(Duration::from_millis(20));
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_ok()
}

/// Proves: NI-1
#[test]
fn a_default_container_reaches_the_internet_by_nat() {
    let lab = Lab::new().unwrap();
    let container = lab.connected(FIRST).unwrap();
    let answer = probe::http(container.as_fd(), at(Stub::WEB, Stub::PORT)).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("GET /probe"),
        "{answer}"
    );
    let echoed = probe::datagram(container.as_fd(), at(Stub::OTHER, Stub::PORT), b"over udp").unwrap();
    assert_eq!(echoed, b"over udp");
    let sources: Vec<_> = lab
        .internet()
        .arrivals()
        .iter()
        .map(|arrival| arrival.from.ip())
        .collect();
    assert_eq!(
        sources,
        [lab.network().uplink_near(); 2],
        "behind NAT nobody sees the container's address"
    );
}

/// Proves: NI-8, NI-25
#[test]
fn private_shared_link_local_and_metadata_addresses_are_refused_before_nat() {
    let lab = Lab::new().unwrap();
    let container = lab.connected(FIRST).unwrap();
    let platform = lab.platform().unwrap();
    // Control: the stub answers on each of them, and the router has a way there.
    for address in Stub::REFUSED {
        if address.octets()[0] == 100 {
            continue; // within the platform's own range only the router's unreachable route is there
        }
        probe::http(platform.as_fd(), at(address, Stub::PORT)).unwrap();
    }
    probe::http(container.as_fd(), at(Stub::WEB, Stub::PORT)).unwrap();

    let reached = lab.internet().arrivals().len();
    for address in Stub::REFUSED {
        let began = std::time::Instant::now();
        probe::http(container.as_fd(), at(address, Stub::PORT)).unwrap_err();
        assert!(
            began.elapsed() < probe::PATIENCE,
            "{address}: refused at once, not by a time-out"
        );
        probe::datagram(container.as_fd(), at(address, Stub::PORT), b"x").unwrap_err();
    }
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(lab.internet().arrivals().len(), reached, "nothing arrived");
}

#[test]
fn containers_of_the_platform_network_do_not_reach_each_other() {
    let lab = Lab::new().unwrap();
    let (first, second) = (lab.connected(FIRST).unwrap(), lab.connected(SECOND).unwrap());
    let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
    let server = netns::within(first.as_fd(), listen).unwrap();
    let datagrams = netns::within(first.as_fd(), || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap()
    })
    .unwrap();
    datagrams.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let to = at(FIRST, 8080);

    netns::within(second.as_fd(), || TcpStream::connect_timeout(&to, probe::PATIENCE))
        .unwrap()
        .unwrap_err();
    probe::datagram(second.as_fd(), at(FIRST, 9000), b"x").unwrap_err();
    assert!(!was_reached(&server) && datagrams.recv(&mut [0; 8]).is_err());

    let platform = lab.platform().unwrap();
    netns::within(platform.as_fd(), || TcpStream::connect_timeout(&to, probe::PATIENCE))
        .unwrap()
        .expect("control: it listens");
    assert!(was_reached(&server));
    netns::within(platform.as_fd(), || {
        UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"y", (FIRST, 9000))
    })
    .unwrap()
    .unwrap();
    assert!(
        datagrams.recv(&mut [0; 8]).is_ok(),
        "control: the datagram's path exists too"
    );
}

#[test]
fn the_internet_cannot_begin_a_connection_to_a_container() {
    let lab = Lab::new().unwrap();
    let container = lab.connected(FIRST).unwrap();
    let server = netns::within(container.as_fd(), || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap()
    })
    .unwrap();
    let near = lab.network().uplink_near();
    // Also if the outside routes the platform network to us.
    let route = format!(
        "route add {}/32 via {near} dev isl{} onlink",
        FIRST,
        lab.host().tag().as_str()
    );
    lab.internet().inside(|| run("ip", &route)).unwrap();
    for to in [at(FIRST, 8080), at(near, 8080), at(near, 80)] {
        let outcome = lab
            .internet()
            .inside(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)))
            .unwrap();
        outcome.unwrap_err();
    }
    assert!(!was_reached(&server));
    probe::http(container.as_fd(), at(Stub::WEB, Stub::PORT)).expect("control: the uplink works the other way");
}

#[test]
fn a_forged_source_address_gets_nowhere() {
    let lab = Lab::new().unwrap();
    let container = lab.connected(FIRST).unwrap();
    netns::within(container.as_fd(), || run("ip", "addr add 100.64.0.99/32 dev eth0")).unwrap();
    let send = |from: &str| {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(b"x", at(Stub::WEB, Stub::PORT)).unwrap();
    };
    netns::within(container.as_fd(), || send("100.64.0.99")).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(lab.internet().arrivals(), []);
    netns::within(container.as_fd(), || send("100.64.0.10")).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(
        lab.internet().arrivals().len(),
        1,
        "control: from its own address it arrives"
    );
}

#[test]
fn a_default_container_has_no_ipv6_path() {
    let lab = Lab::new().unwrap();
    let container = lab.connected(FIRST).unwrap();
    let capture = Capture::start(lab.platform().unwrap().as_fd()).unwrap();
    let error = probe::http(container.as_fd(), "[2001:db8::10]:80".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
    // A container with the power to give itself an address still gets nothing through.
    netns::within(container.as_fd(), || {
        fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
        run("ip", "-6 addr add 2001:db8::2/64 dev eth0 nodad");
        run("ip", "-6 route add default dev eth0");
        let _sent = UdpSocket::bind("[::]:0").unwrap().send_to(b"x", "[2001:db8::10]:53");
    })
    .unwrap();
    probe::http(container.as_fd(), at(Stub::WEB, Stub::PORT)).expect("control: IPv4 passes");
    let frames = capture.frames().unwrap();
    let near = isolarium_netplan::plan::Mac::of(lab.network().uplink_near(), isolarium_netplan::plan::End::Near);
    assert!(
        frames
            .iter()
            .any(|frame| frame.ether_type == 0x0800 && frame.mac == near.0),
        "control: the capture sees the uplink"
    );
    assert!(
        !frames
            .iter()
            .any(|frame| frame.ether_type == 0x86dd && frame.mac == near.0),
        "no IPv6 leaves by the uplink"
    );
}

/// Proves: NI-6, NI-8, NI-11, NI-26
#[test]
fn no_frame_of_a_sealed_container_leaves_its_namespace() {
    let lab = Lab::new().unwrap();
    let sealed = lab.workload(Reach::Nothing).unwrap();
    let places = [
        lab.platform().unwrap(),
        lab.internet().netns().try_clone_to_owned().unwrap(),
    ];
    let outside: Vec<_> = places
        .iter()
        .map(|place| Capture::start(place.as_fd()).unwrap())
        .collect();
    let inside = Capture::start(sealed.as_fd()).unwrap();
    let mut targets = vec![
        at(Stub::WEB, 80),
        at(Stub::DNS, 53),
        at(FIRST, 80),
        at(Ipv4Addr::BROADCAST, 9),
    ];
    targets.extend(Stub::REFUSED.map(|address| at(address, 80)));
    targets.extend(
        [
            "[2001:db8::1]:443",
            "[fe80::1]:80",
            "[ff02::1]:9",
            "224.0.0.251:5353",
            "169.254.170.2:80",
        ]
        .map(|text| text.parse::<SocketAddr>().unwrap()),
    );
    for to in targets {
        probe::http(sealed.as_fd(), to).unwrap_err();
        probe::datagram(sealed.as_fd(), to, b"x").unwrap_err();
    }
    netns::within(sealed.as_fd(), || {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", "127.0.0.1:53")
    })
    .unwrap()
    .unwrap();
    let seen = inside.frames().unwrap();
    assert!(!seen.is_empty(), "control: loopback's frames are seen");
    assert!(seen.iter().all(|frame| frame.is_loopback()), "{seen:?}");
    for capture in &outside {
        assert_eq!(capture.frames().unwrap(), []);
    }
    // Control: the same capture sees a container that is not sealed.
    let open = lab.connected(FIRST).unwrap();
    probe::http(open.as_fd(), at(Stub::WEB, Stub::PORT)).unwrap();
    assert!(outside.iter().all(|capture| !capture.frames().unwrap().is_empty()));
}

#[test]
fn public_service_addresses_are_answered_inside_the_platform_network() {
    let lab = Lab::new().unwrap();
    let container = lab.connected(FIRST).unwrap();
    let listener = TcpListener::from(lab.host().listen(&tcp(Ipv4Addr::UNSPECIFIED, 80)).unwrap());
    let served = [
        [198, 18, 3, 4],
        [198, 18, 127, 255],
        [198, 18, 130, 1],
        [169, 254, 170, 2],
    ]
    .map(Ipv4Addr::from);
    for address in served {
        let to = at(address, 80);
        let client = netns::within(container.as_fd(), || TcpStream::connect_timeout(&to, probe::PATIENCE)).unwrap();
        let client = client.unwrap_or_else(|error| panic!("{address}: {error}"));
        let (server, from) = listener.accept().unwrap();
        assert_eq!(
            server.local_addr().unwrap(),
            to,
            "the listener learns which name was meant"
        );
        assert_eq!(from.ip(), FIRST, "and who asks");
        drop(client);
    }
    for (address, port) in [
        ([198, 18, 3, 4], 8080),
        ([198, 18, 200, 1], 80),
        ([100, 64, 0, 1], 80),
        ([100, 64, 0, 2], 80),
    ] {
        let to = at(Ipv4Addr::from(address), port);
        netns::within(container.as_fd(), || TcpStream::connect_timeout(&to, probe::PATIENCE))
            .unwrap()
            .unwrap_err();
    }
    assert!(!was_reached(&listener));
}

#[test]
fn the_resolver_address_answers_over_both_transports() {
    let lab = Lab::new().unwrap();
    let container = lab.connected(FIRST).unwrap();
    let resolver = lab.network().resolver();
    let udp = ListenerSpec {
        address: resolver.into(),
        port: 53,
        transport: Transport::Udp,
    };
    let (udp, tcp) = (
        UdpSocket::from(lab.host().listen(&udp).unwrap()),
        TcpListener::from(lab.host().listen(&tcp(resolver, 53)).unwrap()),
    );
    let server = std::thread::spawn(move || {
        let mut buffer = [0; 16];
        let (length, from) = udp.recv_from(&mut buffer).unwrap();
        udp.send_to(&buffer[..length], from).unwrap();
        let mut stream = tcp.accept().unwrap().0;
        stream.read_exact(&mut buffer[..3]).unwrap();
        stream.write_all(&buffer[..3]).unwrap();
    });
    assert_eq!(
        probe::datagram(container.as_fd(), at(resolver, 53), b"who").unwrap(),
        b"who"
    );
    let mut stream = netns::within(container.as_fd(), || {
        TcpStream::connect_timeout(&at(resolver, 53), probe::PATIENCE)
    })
    .unwrap()
    .unwrap();
    stream.write_all(b"who").unwrap();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"who");
    server.join().unwrap();
}

#[test]
fn listeners_are_opened_only_on_the_platforms_own_addresses() {
    let lab = Lab::new().unwrap();
    for address in ["203.0.113.10", "100.64.0.10", "127.0.0.1", "198.18.200.1"] {
        let refused = lab.host().listen(&tcp(address.parse().unwrap(), 80));
        assert!(matches!(refused, Err(HostError::Address(_))), "{address}: {refused:?}");
    }
    lab.host()
        .listen(&tcp("198.18.0.9".parse().unwrap(), 443))
        .expect("control");
    // A client's socket: the engine's own resolver asks the internet's from inside.
    let client = ListenerSpec {
        address: Ipv4Addr::UNSPECIFIED.into(),
        port: 0,
        transport: Transport::Udp,
    };
    let client = UdpSocket::from(lab.host().listen(&client).unwrap());
    client.set_read_timeout(Some(probe::PATIENCE)).unwrap();
    client
        .send_to(b"through the uplink", at(Stub::OTHER, Stub::PORT))
        .unwrap();
    let mut buffer = [0; 32];
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"through the uplink");
}

/// Proves: NET-72
#[test]
fn a_restarted_engine_adopts_the_platform_network_and_its_workloads() {
    let lab = Lab::new().unwrap();
    let container = lab.connected(FIRST).unwrap();
    let inode = || fs::File::from(lab.platform().unwrap()).metadata().unwrap().ino();
    let before = inode();
    let restarted: Host = lab.restarted();
    restarted.ensure(lab.network()).unwrap();
    restarted.ensure(lab.network()).unwrap();
    let after = inode();
    assert_eq!(before, after, "the same namespace");
    probe::http(container.as_fd(), at(Stub::WEB, Stub::PORT)).expect("the running workload keeps its network");

    restarted.teardown().unwrap();
    assert!(lab.platform().is_err());
    probe::http(container.as_fd(), at(Stub::WEB, Stub::PORT)).unwrap_err();
    let left = lab.internet().inside(|| run("ip", "-o link show")).unwrap();
    assert_eq!(left.lines().count(), 1, "only loopback is left at the far end: {left}");
    restarted.teardown().expect("twice is once");
}

/// Proves: NET-73
#[test]
fn rules_that_somebody_removed_are_back_before_the_next_workload_is_attached() {
    let lab = Lab::new().unwrap();
    let first = lab.connected(FIRST).unwrap();
    let platform = lab.platform().unwrap();
    let refused = at(Stub::REFUSED[0], Stub::PORT);
    probe::http(first.as_fd(), refused).unwrap_err();
    netns::within(platform.as_fd(), || run("nft", "flush ruleset")).unwrap();
    netns::within(platform.as_fd(), || run("nft", "add table inet other")).unwrap();
    let second = lab.connected(SECOND).unwrap();
    probe::http(second.as_fd(), refused).unwrap_err();
    probe::http(first.as_fd(), refused).unwrap_err();
    assert_eq!(lab.internet().arrivals(), []);
    let tables = netns::within(platform.as_fd(), || run("nft", "list tables")).unwrap();
    assert_eq!(tables.trim(), "table inet platform");
    probe::http(second.as_fd(), at(Stub::WEB, Stub::PORT)).expect("control: it is connected");
}

#[test]
fn without_an_uplink_only_platform_services_answer() {
    let lab = Lab::new().unwrap();
    let container = lab.connected(FIRST).unwrap();
    probe::http(container.as_fd(), at(Stub::WEB, Stub::PORT)).expect("control: with an uplink");
    lab.host().ensure(&default_network(Uplink::None)).unwrap();
    probe::http(container.as_fd(), at(Stub::WEB, Stub::PORT)).unwrap_err();
    let listener = TcpListener::from(lab.host().listen(&tcp(Ipv4Addr::UNSPECIFIED, 443)).unwrap());
    netns::within(container.as_fd(), || {
        TcpStream::connect_timeout(&at(Ipv4Addr::new(198, 18, 0, 1), 443), probe::PATIENCE)
    })
    .unwrap()
    .unwrap();
    assert!(was_reached(&listener));
    lab.host().ensure(lab.network()).unwrap();
    probe::http(container.as_fd(), at(Stub::WEB, Stub::PORT)).expect("and the uplink comes back");
}

#[test]
fn an_uplink_that_is_not_the_host_leaves_the_host_alone() {
    let host = || {
        let mut links: Vec<String> = fs::read_dir("/sys/class/net")
            .unwrap()
            .map(|link| link.unwrap().file_name().into_string().unwrap())
            .collect();
        links.sort();
        (
            links,
            fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(),
            run("ip", "route show table all"),
        )
    };
    let before = host();
    let lab = Lab::new().unwrap();
    let _container = lab.connected(FIRST).unwrap();
    assert_eq!(host(), before);
}

/// Proves: NI-1, NI-25, NET-72
#[test]
fn an_uplink_through_the_host_masquerades_protects_the_host_and_is_undone() {
    let internet = Internet::new().unwrap();
    let machine = Machine::new(&internet).unwrap();
    let forwarding = "/proc/sys/net/ipv4/ip_forward";
    netns::within(machine.netns(), || fs::write(forwarding, "0").unwrap()).unwrap();
    let shows = |program: &str, args: &str| netns::within(machine.netns(), || run(program, args)).unwrap();
    let forwards = || netns::within(machine.netns(), || fs::read_to_string(forwarding).unwrap()).unwrap();
    let links = || -> Vec<String> {
        let shown = shows("ip", "-4 -o addr show") + &shows("ip", "-o link show");
        let words = |line: &str| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
        shown.lines().map(words).collect()
    };
    let seen = || (links(), shows("nft", "list ruleset"), forwards());
    let before = seen();
    let lab = Lab::through_host(internet, &machine.path()).unwrap();
    let container = lab.connected(FIRST).unwrap();
    probe::http(container.as_fd(), at(Stub::WEB, Stub::PORT)).unwrap();
    assert_eq!(
        lab.internet().arrivals().last().unwrap().from.ip(),
        Machine::ADDRESS,
        "the internet sees the machine"
    );
    assert_eq!(forwards().trim(), "1");

    let service = netns::within(machine.netns(), || TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
    for address in [Machine::ADDRESS, lab.network().uplink_far()] {
        let to = at(address, 8080);
        netns::within(container.as_fd(), || {
            TcpStream::connect_timeout(&to, Duration::from_millis(300))
        })
        .unwrap()
        .unwrap_err();
    }
    assert!(!was_reached(&service), "the host's own services are out of reach");
    lab.internet()
        .inside(|| TcpStream::connect_timeout(&at(Machine::ADDRESS, 8080), probe::PATIENCE))
        .unwrap()
        .expect("control: it listens");

    // The host's own rules refuse private ranges too, should the platform's be gone.
    netns::within(lab.platform().unwrap().as_fd(), || {
        run(
            "nft",
            "delete chain inet platform forward; add chain inet platform forward",
        )
    })
    .unwrap();
    let count = lab.internet().arrivals().len();
    probe::http(container.as_fd(), at(Stub::REFUSED[0], Stub::PORT)).unwrap_err();
    assert_eq!(lab.internet().arrivals().len(), count);

    lab.host().teardown().unwrap();
    drop(service);
    assert_eq!(seen(), before);
}

/// Proves: NI-21, CC-88
#[test]
fn the_platform_dials_into_a_sealed_container() {
    let lab = Lab::new().unwrap();
    let sealed = lab.workload(Reach::Nothing).unwrap();
    let limit = Duration::from_millis(500);
    let none = isolarium_dataplane::dial(sealed.as_fd(), 8080, limit).unwrap_err();
    assert_eq!(none.kind(), std::io::ErrorKind::ConnectionRefused);
    let server = netns::within(sealed.as_fd(), || TcpListener::bind("127.0.0.1:8080").unwrap()).unwrap();
    let mut stream = TcpStream::from(isolarium_dataplane::dial(sealed.as_fd(), 8080, limit).unwrap());
    stream.write_all(b"ping").unwrap();
    let mut buffer = [0; 4];
    server.accept().unwrap().0.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"ping");
    let own = isolarium_dataplane::dial(fs::File::open("/proc/self/ns/net").unwrap().as_fd(), 8080, limit);
    assert!(own.is_err() || !was_reached(&server), "the port is the namespace's own");
}
