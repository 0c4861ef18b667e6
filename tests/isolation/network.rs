//! Attempts to send something out. The isolated container tries them on the node with its network and internet up, while
//! every frame outside is watched; the control tries the same with its namespace plugged into the internet. What counts
//! is what arrived.

use crate::stand::{ALL, Findings, Stand, on_host};
use isolarium_dataplane::kernel::netns;
use isolarium_runtime::executor::{BlockedAttempt, EgressReport};
use isolarium_testkit::lab::{Capture, Frame, Stub};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::OnceLock;

/// One attempt and where its frames go.
pub struct Aim {
    pub attempt: &'static str,
    target: &'static str,
    port: u16,
    protocol: u8,
}

impl Aim {
    fn address(&self) -> IpAddr {
        self.target.parse().unwrap()
    }

    fn is_in(&self, frames: &[Frame]) -> bool {
        frames
            .iter()
            .any(|frame| frame.protocol == self.protocol && frame.ip.is_some_and(|(_, to)| to == self.address()))
    }
}

macro_rules! aims {
    ($($(#[$attribute:meta])* fn $name:ident { $attempt:literal, $protocol:literal => $target:literal $port:literal })*) => {
        const AIMED: &[Aim] = &[$(Aim { attempt: $attempt, target: $target, port: $port, protocol: $protocol }),*];
        $($(#[$attribute])* #[test] fn $name() { judge($attempt); })*
    };
}

aims! {
    /// Proves: NI-6
    fn a_public_web_server_cannot_be_connected_to { "connect-outside", 6 => "203.0.113.10" 443 }
    /// Proves: NI-6
    fn a_public_web_server_cannot_be_connected_to_by_multipath_tcp { "connect-mptcp", 6 => "203.0.113.10" 443 }
    /// Proves: NI-6
    fn data_cannot_ride_on_the_first_packet_of_a_connection { "fast-open", 6 => "203.0.113.10" 443 }
    /// Proves: NI-8
    fn the_metadata_address_cannot_be_connected_to { "connect-metadata", 6 => "169.254.169.254" 80 }
    /// Proves: NI-8
    fn the_container_credentials_address_cannot_be_connected_to { "connect-credentials", 6 => "169.254.170.2" 80 }
    /// Proves: NI-7
    fn an_address_of_the_platforms_services_cannot_be_connected_to { "connect-services", 6 => "198.18.0.1" 443 }
    /// Proves: NI-6
    fn a_datagram_cannot_be_sent_to_a_public_host { "udp-outside", 17 => "203.0.113.10" 9 }
    /// Proves: NI-6
    fn a_public_resolver_cannot_be_asked { "dns-outside", 17 => "198.51.100.53" 53 }
    /// Proves: NI-6
    fn a_broadcast_cannot_be_sent { "broadcast", 17 => "255.255.255.255" 9 }
    /// Proves: NI-6
    fn an_ipv6_host_cannot_be_connected_to { "connect-ipv6", 6 => "2001:db8::1" 443 }
    /// Proves: NI-6
    fn an_ipv6_multicast_cannot_be_sent { "multicast-ipv6", 17 => "ff02::1" 9 }
}

/// An echo socket, which sends nothing by itself: `exfiltration` uses it.
const ECHO: Aim = Aim {
    attempt: "ping-socket",
    target: "203.0.113.10",
    port: 0,
    protocol: 1,
};

/// Everything of the program's list that this file judges.
pub const ATTEMPTS: &[&Aim] = &{
    let mut all = [&ECHO; AIMED.len() + 1];
    let mut at = 0;
    while at < AIMED.len() {
        all[at] = &AIMED[at];
        at += 1;
    }
    all
};

struct Runs {
    sealed: Findings,
    report: Vec<BlockedAttempt>,
    /// Frames in the namespaces of the platform and of the internet while the sealed container ran.
    outside: Vec<Frame>,
    /// Frames in the host's own namespace meanwhile, everybody's.
    host: Vec<Frame>,
    plugged: Findings,
    arrived: Vec<Frame>,
}

fn runs() -> &'static Runs {
    static RUNS: OnceLock<Runs> = OnceLock::new();
    RUNS.get_or_init(|| {
        let attempts: Vec<&str> = ATTEMPTS.iter().map(|aim| aim.attempt).collect();
        let stand = Stand::new(ALL);
        let places = [stand.platform(), stand.internet.netns().try_clone_to_owned().unwrap()];
        let outside = places.each_ref().map(|place| Capture::start(place.as_fd()).unwrap());
        let own = File::open("/proc/self/ns/net").unwrap();
        let host = Capture::start(own.as_fd()).unwrap();
        let container = stand.isolated(&attempts);
        let sealed = stand.found(&container);
        let report = stand.host.attempts(&container).unwrap();
        let frames = |captures: &[Capture]| captures.iter().flat_map(|one| one.frames().unwrap()).collect();
        let (seen_outside, seen_by_host): (Vec<Frame>, _) = (frames(&outside), host.frames().unwrap());

        // Control of the captures: they see a container that is not isolated, and the host's own datagram.
        let address = Ipv4Addr::new(100, 64, 0, 10);
        let open = stand.found(&stand.default_container(address, &["tcp=203.0.113.10,80,control"]));
        assert!(open.values().all(|finding| finding.open), "{open:?}");
        assert!(outside.iter().all(|capture| !capture.frames().unwrap().is_empty()));
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.send_to(b"x", datagrams.local_addr().unwrap()).unwrap();
        assert!(!host.frames().unwrap().is_empty());

        let _answering = stand
            .internet
            .inside(|| {
                (
                    TcpListener::bind("[::]:443").unwrap(),
                    UdpSocket::bind("[::]:9").unwrap(),
                )
            })
            .unwrap();
        let breached = stand.breached(&attempts, |sealed| stand.plug(sealed));
        let plugged = stand.found(&breached);
        let arrived = outside[1].frames().unwrap();
        Runs {
            sealed,
            report,
            outside: seen_outside,
            host: seen_by_host,
            plugged,
            arrived,
        }
    })
}

fn judge(attempt: &str) {
    let runs = runs();
    let aim = AIMED.iter().find(|aim| aim.attempt == attempt).unwrap();
    let sealed = &runs.sealed[attempt];
    assert_eq!(
        (sealed.open, sealed.errno),
        (false, libc::ENETUNREACH),
        "refused at once, by the missing route"
    );
    assert!(!aim.is_in(&runs.outside) && !aim.is_in(&runs.host));
    let reported = |row: &BlockedAttempt| (row.address, row.port) == (aim.address(), aim.port);
    assert!(runs.report.iter().any(reported), "{:?}", runs.report);
    assert!(runs.plugged[attempt].open, "control: {:?}", runs.plugged[attempt]);
    assert!(aim.is_in(&runs.arrived), "control: it arrives: {:?}", runs.arrived);
}

/// Proves: NI-6
#[test]
fn an_echo_socket_cannot_be_made() {
    let (sealed, plugged) = (&runs().sealed["ping-socket"], &runs().plugged["ping-socket"]);
    assert_eq!((sealed.open, sealed.errno), (false, libc::EACCES));
    assert!(plugged.open, "control: {plugged:?}");
}

/// The control, that the captures see frames and that the attempts send some, is in the run itself.
///
/// Proves: NI-6, NI-11, CC-85, D-23
#[test]
fn no_frame_of_the_hostile_container_is_seen_on_any_interface_outside() {
    let runs = runs();
    assert_eq!(runs.outside, []);
    for aim in AIMED {
        assert!(!aim.is_in(&runs.host), "{}", aim.attempt);
        assert!(aim.is_in(&runs.arrived), "control: {}", aim.attempt);
    }
}

/// Proves: NI-1, NI-25
#[test]
fn a_default_container_reaches_the_internet_and_no_private_or_metadata_address() {
    let stand = Stand::new(ALL);
    let private = ["10.1.2.3", "172.16.9.9", "192.168.77.7", "169.254.169.254"];
    let to_private = private.map(|address| format!("tcp={address},80,x"));
    let web = format!("tcp={},80,x", Stub::WEB);
    let mut attempts = vec![web.as_str()];
    attempts.extend(to_private.iter().map(String::as_str));
    let container = stand.default_container(Ipv4Addr::new(100, 64, 0, 10), &attempts);
    for (attempt, finding) in stand.found(&container) {
        assert_eq!(finding.open, attempt == web, "{attempt}: errno {}", finding.errno);
    }
    let arrived = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        stand
            .internet
            .arrivals()
            .iter()
            .any(|arrival| arrival.to.ip() == address)
    };
    assert!(arrived("203.0.113.10"));
    assert!(private.iter().all(|address| !arrived(address)));
    // Control: they are there, for the router.
    let routed: Vec<&str> = to_private.iter().map(String::as_str).collect();
    let found = netns::within(stand.platform().as_fd(), || on_host(&routed)).unwrap();
    assert!(found.values().all(|finding| finding.open), "{found:?}");
    assert!(private.iter().all(|address| arrived(address)));
}
