//! Interface endpoints on the real kernel: an address of the router, under groups of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use isolarium_dataplane::HostError;
use isolarium_dataplane::kernel::netns;
use isolarium_netplan::id::{EndpointId, GroupId, InterfaceId};
use isolarium_netplan::intent::Transport;
use isolarium_netplan::intent::vpc::{
    Door, EndpointService, GroupRule, Holder, Interface, InterfaceEndpoint, Match, Peer, SecurityGroup, Vpc,
};
use isolarium_testkit::lab::topology::{self, Tape};
use isolarium_testkit::lab::vpc::VpcLab;
use isolarium_testkit::lab::{Internet, Lab};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

const CALLER: u128 = 0x701;
const STRANGER: u128 = 0x702;
const SERVED: u128 = 0x703;
const AT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 80);
const MOVED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 81);

fn eni(n: u128) -> InterfaceId {
    InterfaceId::of(n)
}

fn group(n: u128) -> GroupId {
    GroupId::of(0x70 + n)
}

fn rule(peer: Peer, traffic: Match) -> BTreeSet<GroupRule> {
    BTreeSet::from([GroupRule { traffic, peer }])
}

fn https() -> Match {
    Match::Tcp {
        ports: (443, 443).try_into().unwrap(),
    }
}

/// Two programs in groups of their own; an endpoint whose group admits the first one's to port 443.
fn intent() -> Vpc {
    let mut vpc = (*topology::vpc(&mut Tape::new(&[]))).clone();
    let anybody = || rule(Peer::Block("0.0.0.0/0".parse().unwrap()), Match::All);
    let subnet = *vpc.subnets.keys().next().unwrap();
    let open = |ingress| SecurityGroup {
        ingress,
        egress: anybody(),
    };
    vpc.groups = [
        (group(1), open(anybody())),
        (group(2), open(BTreeSet::new())),
        (group(3), open(rule(Peer::Group(group(1)), https()))),
    ]
    .into();
    let one = |n: u8, carried, holder| Interface {
        subnet,
        primary: Ipv4Addr::new(10, 0, 0, n),
        secondary: BTreeSet::new(),
        groups: [carried].into(),
        source_dest_check: true,
        public: None,
        holder,
    };
    vpc.nat_gateways.clear();
    vpc.route_tables.values_mut().for_each(|table| table.routes.clear());
    vpc.interfaces = [
        (eni(CALLER), one(10, group(1), Holder::Program)),
        (eni(STRANGER), one(11, group(2), Holder::Program)),
        (eni(SERVED), one(80, group(3), Holder::Endpoint(EndpointId::of(5)))),
    ]
    .into();
    let endpoint = InterfaceEndpoint {
        service: EndpointService::SagemakerApi,
        private_dns: false,
        suffix: "0123abcd".into(),
    };
    vpc.interface_endpoints = BTreeMap::from([(EndpointId::of(5), endpoint)]);
    vpc
}

/// How long a connection may take where it is to succeed, on a machine that is busy.
const OPEN: Duration = Duration::from_secs(20);
/// How long one is tried that must not.
const SHUT: Duration = Duration::from_millis(300);

/// Proves: NET-41, NET-46, PL-32, PL-34
#[test]
fn an_address_is_served_at_one_port_under_its_own_groups_and_begins_nothing() {
    let lab = Lab::around(Internet::bare().unwrap()).unwrap();
    let mut vpc = VpcLab::new(&lab, intent()).unwrap();
    let door = |address| Door::Endpoint { address };
    let listener = vpc.listener(door(AT)).unwrap();
    let dial = |from, address: Ipv4Addr, port, limit| {
        let to = (SocketAddrV4::new(address, port), Transport::Tcp);
        lab.host().dial_from(vpc.id(), from, to, limit)
    };
    let mut caller = TcpStream::from(dial(eni(CALLER), AT, 443, OPEN).unwrap());
    let (mut served, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), Ipv4Addr::new(10, 0, 0, 10), "the private source address");
    assert!(dial(eni(STRANGER), AT, 443, SHUT).is_err(), "its group is not admitted");
    assert!(
        dial(eni(CALLER), AT, 80, SHUT).is_err() && dial(eni(CALLER), AT, 8443, SHUT).is_err(),
        "other ports"
    );
    assert!(
        dial(eni(CALLER), MOVED, 443, SHUT).is_err(),
        "an address that nobody has"
    );
    // Nobody else's address is a door.
    let other = lab.host().open_door(vpc.id(), door(Ipv4Addr::new(10, 0, 0, 10)));
    assert!(matches!(other, Err(HostError::Door(_))));

    // The service cannot dial back, though the caller's group admits everybody.
    let open = netns::within(vpc.at(eni(CALLER)), || TcpListener::bind(("0.0.0.0", 8080)).unwrap()).unwrap();
    let back = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 10), 8080));
    let from = |at: std::os::fd::BorrowedFd<'_>, limit| {
        netns::within(at, || TcpStream::connect_timeout(&back, limit)).unwrap()
    };
    from(vpc.at(eni(STRANGER)), OPEN).expect("control: a program reaches it");
    open.accept().unwrap();
    let router = vpc.router().unwrap();
    assert!(
        from(router.as_fd(), SHUT).is_err(),
        "the router, where the service's sockets are, does not"
    );

    // Without the rule nobody begins; what began goes on (NET-16).
    vpc.edit(|vpc| vpc.groups.get_mut(&group(3)).unwrap().ingress.clear())
        .unwrap();
    let dial = |from, address: Ipv4Addr, port, limit| {
        let to = (SocketAddrV4::new(address, port), Transport::Tcp);
        lab.host().dial_from(vpc.id(), from, to, limit)
    };
    assert!(dial(eni(CALLER), AT, 443, SHUT).is_err());
    let mut told = [0; 2];
    caller.write_all(b"hi").unwrap();
    served.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"hi");
    vpc.edit(|vpc| vpc.groups.get_mut(&group(3)).unwrap().ingress = rule(Peer::Group(group(1)), https()))
        .unwrap();

    // The endpoint moves to another address while connections are open.
    vpc.edit(|vpc| vpc.interfaces.get_mut(&eni(SERVED)).unwrap().primary = MOVED)
        .unwrap();
    let moved = vpc.listener(door(MOVED)).unwrap();
    let gone = lab.host().open_door(vpc.id(), door(AT));
    assert!(matches!(gone, Err(HostError::Door(_))));
    let dial = |address: Ipv4Addr, limit| {
        let to = (SocketAddrV4::new(address, 443), Transport::Tcp);
        lab.host().dial_from(vpc.id(), eni(CALLER), to, limit)
    };
    assert!(dial(AT, SHUT).is_err(), "the old address is nobody's");
    let _again = dial(MOVED, OPEN).unwrap();
    moved.accept().unwrap();
}
