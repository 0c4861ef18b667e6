//! Code planted in a dependency tries to carry data out, and what counts is whether the data was received. The control
//! sends the same from a container whose namespace is plugged into the internet, or from where the other job is reachable.

use crate::stand::{ALL, Findings, Stand, on_host};
use isolarium_dataplane::kernel::netns;
use isolarium_testkit::lab::Stub;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const HTTP: &str = "tcp=203.0.113.10,80,weights";
const UDP: &str = "udp=192.0.2.80,80,weights";
const DNS: &str = "dns=198.51.100.53,77656967687473.collector.example";
const ICMP: &str = "icmp=203.0.113.10,weights-in-an-echo";
const FRIEND: &str = "tcp=100.64.0.10,8080,weights-for-a-friend";
const OUT: [&str; 4] = [HTTP, UDP, DNS, ICMP];

/// Which data was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Received {
    http: bool,
    udp: bool,
    dns: bool,
    icmp: bool,
    friend: bool,
}

struct Runs {
    sealed: (Findings, Received),
    plugged: (Findings, Received),
}

fn received(stand: &Stand, echoes: &OwnedFd, friend: &isolarium_model::WorkloadId) -> Received {
    let to = |address: Ipv4Addr| {
        let to = SocketAddr::from((address, Stub::PORT));
        stand.internet.arrivals().iter().any(|arrival| arrival.to == to)
    };
    let (_, name) = DNS.split_once(',').unwrap();
    let mut packet = vec![0; 2048];
    let mut icmp = false;
    while let Ok((length, _)) = rustix::net::recv(echoes, packet.as_mut_slice(), RecvFlags::empty()) {
        icmp |= String::from_utf8_lossy(&packet[..length]).contains("weights-in-an-echo");
    }
    Received {
        http: to(Stub::WEB),
        udp: to(Stub::OTHER),
        dns: stand.internet.questions().iter().any(|asked| asked == name),
        icmp,
        friend: stand
            .said(friend)
            .iter()
            .any(|line| line.contains("weights-for-a-friend")),
    }
}

fn runs() -> &'static Runs {
    static RUNS: OnceLock<Runs> = OnceLock::new();
    RUNS.get_or_init(|| {
        let stand = Stand::new(ALL);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listen =
            || rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP)).unwrap();
        let echoes = stand.internet.inside(listen).unwrap();
        let friend = stand.default_container(Ipv4Addr::new(100, 64, 0, 10), &["serve", "8080"]);
        stand.wait_for(&friend, "serving");
        let attempts = [&OUT[..], &[FRIEND]].concat();
        // The container may use echo sockets here, so that only the namespace's emptiness is in the way.
        let container = stand.breached(&attempts, |sealed| {
            let allow = || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
            netns::within(sealed.as_fd(), allow).unwrap();
        });
        let found = stand.found(&container);
        let product = stand.found(&stand.isolated(&attempts));
        assert!(product.values().all(|finding| !finding.open), "{product:?}");
        std::thread::sleep(Duration::from_millis(20));
        let sealed = (found, received(&stand, &echoes, &friend));

        let mut found = stand.found(&stand.breached(&OUT, |sealed| stand.plug(sealed)));
        found.extend(netns::within(stand.platform().as_fd(), || on_host(&[FRIEND])).unwrap());
        let all = Received {
            http: true,
            udp: true,
            dns: true,
            icmp: true,
            friend: true,
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut seen = received(&stand, &echoes, &friend);
        while seen != all && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            let now = received(&stand, &echoes, &friend);
            seen = Received {
                icmp: seen.icmp || now.icmp,
                ..now
            };
        }
        Runs {
            sealed,
            plugged: (found, seen),
        }
    })
}

fn judge(attempt: &str, got: impl Fn(&Received) -> bool) {
    let Runs { sealed, plugged } = runs();
    let finding = &sealed.0[attempt];
    assert_eq!((finding.open, finding.errno), (false, libc::ENETUNREACH));
    assert!(!got(&sealed.1), "it was received");
    assert!(plugged.0[attempt].open, "control: {:?}", plugged.0[attempt]);
    assert!(got(&plugged.1), "control: it is received: {:?}", plugged.1);
}

/// Proves: NI-22, NI-6
#[test]
fn data_does_not_get_out_in_an_http_request() {
    judge(HTTP, |received| received.http);
}

/// Proves: NI-22, NI-6
#[test]
fn data_does_not_get_out_in_a_datagram() {
    judge(UDP, |received| received.udp);
}

/// Proves: NI-22, NI-6
#[test]
fn data_does_not_get_out_in_the_labels_of_a_dns_name() {
    judge(DNS, |received| received.dns);
}

/// Proves: NI-22, NI-6
#[test]
fn data_does_not_get_out_in_the_payload_of_an_echo() {
    judge(ICMP, |received| received.icmp);
}

/// Proves: NI-22
#[test]
fn data_does_not_get_out_by_way_of_another_jobs_address() {
    judge(FRIEND, |received| received.friend);
}
