//! Asks a VPC's router about flows, packet by packet.

use isolarium_netplan::id::InterfaceId;
use isolarium_netplan::intent::Transport;
use isolarium_netplan::intent::vpc::{CheckedVpc, Door, Holder, Interface};
use isolarium_netplan::plan::LinkName;
use isolarium_netplan::reach::{Arrival, Flow, Origin};
use isolarium_testkit::lab::Lab;
use isolarium_testkit::lab::vpc::{Tap, VpcLab, run_in};
use isolarium_testkit::lab::wire::Packet;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// What sees a VPC's packets: taps in every namespace, and the engine's sockets in the router.
pub struct Bench<'a> {
    lab: &'a Lab,
    link: LinkName,
    next: Cell<u32>,
    pub taps: BTreeMap<InterfaceId, Tap>,
    pub outside: Tap,
    _listeners: Vec<TcpListener>,
    resolvers: Vec<UdpSocket>,
}

impl<'a> Bench<'a> {
    pub fn new(vpc: &VpcLab<'_>, lab: &'a Lab) -> Self {
        let platform = lab.platform().unwrap();
        let link = LinkName::of_vpc(vpc.id());
        let outside = Tap::behind(platform.as_fd(), &link).unwrap();
        // Packets for addresses that the platform would not lead here: the router has to refuse them by itself.
        let near = lab.network().vpc_edge().near.to_string();
        for block in ["10.0.0.0/16", "192.0.3.0/24"] {
            let args = ["route", "replace", block, "via", &near, "dev", link.as_str(), "onlink"];
            run_in(platform.as_fd(), "ip", &args).unwrap();
        }
        let taps = vpc.held().iter().map(|(id, at)| (*id, Tap::on(at.as_fd()).unwrap()));
        let mut bench = Self {
            lab,
            link,
            next: Cell::new(0),
            taps: taps.collect(),
            outside,
            _listeners: Vec::new(),
            resolvers: Vec::new(),
        };
        let mut doors = vec![Door::S3 { port: 80 }, Door::S3 { port: 443 }, Door::Credentials];
        if vpc.vpc().dns.support {
            for address in [vpc.vpc().resolver().unwrap(), Ipv4Addr::new(169, 254, 169, 253)] {
                let transport = Transport::Tcp;
                doors.push(Door::Resolver { address, transport });
                let socket = vpc.datagrams(address).unwrap();
                socket.set_nonblocking(true).unwrap();
                bench.resolvers.push(socket);
            }
        }
        bench._listeners = doors.into_iter().map(|door| vpc.listener(door).unwrap()).collect();
        bench.from(0)
    }

    /// The same, with other numbers in its packets than a bench that asked before: the number of an echo request is its id, by
    /// which the router knows a flow.
    pub fn from(self, first: u32) -> Self {
        self.next.set(first);
        self
    }

    fn serve(&self) {
        for socket in &self.resolvers {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                assert_eq!(length, 4);
                let asked = u32::from_be_bytes(buffer[..4].try_into().unwrap());
                let _refused_by_rules = socket.send_to(&(asked | 0x4000_0000).to_be_bytes(), from);
            }
        }
    }

    /// What every tap sees until nothing has come for a while.
    fn collect(&self) -> Vec<(Option<InterfaceId>, Packet)> {
        let mut all = Vec::new();
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(12) {
            self.serve();
            let before = all.len();
            for (id, tap) in &self.taps {
                all.extend(tap.seen().unwrap().into_iter().map(|packet| (Some(*id), packet)));
            }
            all.extend(self.outside.seen().unwrap().into_iter().map(|packet| (None, packet)));
            if all.len() > before {
                quiet = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        all
    }

    /// Where flows arrived, and whether their answers came back.
    pub fn ask(&self, vpc: &CheckedVpc, flows: &[Flow]) -> Vec<Option<Arrival>> {
        let bench = self;
        let first = self.next.get();
        self.next.set(first + u32::try_from(flows.len()).unwrap());
        let number = |n: usize| first + u32::try_from(n).unwrap();
        bench.collect();
        for (n, flow) in flows.iter().enumerate() {
            let (at, source) = origin(flow);
            let packet = Packet {
                source,
                destination: flow.to,
                traffic: flow.traffic,
                probe: number(n),
                answer: false,
            };
            if let Some(tap) = bench.tap(at) {
                tap.send(&packet);
            }
        }
        let mut seen = bench.collect();
        let mut arrived: BTreeMap<u32, (Option<InterfaceId>, Packet)> = BTreeMap::new();
        for (at, packet) in seen.iter().filter(|(_, packet)| !packet.answer) {
            let of_this_round = usize::try_from(packet.probe.wrapping_sub(first)).unwrap() < flows.len();
            assert!(of_this_round, "a probe of another round: {packet:?}");
            arrived.insert(packet.probe, (*at, *packet));
        }
        for (at, packet) in arrived.values() {
            if let (Some(tap), Some(reply)) = (bench.tap(*at), packet.reply()) {
                tap.send(&reply);
            }
        }
        seen.extend(bench.collect());
        let answered: BTreeSet<(Option<InterfaceId>, u32)> = seen
            .iter()
            .filter(|(_, packet)| packet.answer)
            .map(|(at, packet)| (*at, packet.probe))
            .collect();
        let decide = |(n, flow): (usize, &Flow)| {
            answered.contains(&(origin(flow).0, number(n))).then_some(())?;
            Some(match arrived.get(&number(n)) {
                Some((Some(id), _)) => Arrival::Interface(*id),
                Some((None, packet)) => Arrival::Internet { seen_as: packet.source },
                None => served(vpc, flow.to),
            })
        };
        flows.iter().enumerate().map(decide).collect()
    }

    fn tap(&self, at: Option<InterfaceId>) -> Option<&Tap> {
        at.map_or(Some(&self.outside), |id| self.taps.get(&id))
    }
}

pub fn origin(flow: &Flow) -> (Option<InterfaceId>, Ipv4Addr) {
    match flow.from {
        Origin::Interface { id, source } => (Some(id), source),
        Origin::Internet(source) => (None, source),
    }
}

/// What answers in the router at an address.
fn served(vpc: &CheckedVpc, address: Ipv4Addr) -> Arrival {
    let holds =
        |one: &Interface| matches!(one.holder, Holder::Endpoint(_)) && one.addresses().any(|own| own == address);
    if let Some((id, _)) = vpc.interfaces.iter().find(|(_, one)| holds(one)) {
        return Arrival::Interface(*id);
    }
    if address == Ipv4Addr::new(169, 254, 170, 2) {
        return Arrival::Credentials;
    }
    if Some(address) == vpc.resolver() || address == Ipv4Addr::new(169, 254, 169, 253) {
        return Arrival::Resolver;
    }
    let endpoint = vpc.s3_endpoints.keys().next();
    Arrival::S3Endpoint(*endpoint.unwrap_or_else(|| panic!("nothing answers at {address}")))
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        let platform = self.lab.platform().unwrap();
        let table = format!("q_{}", self.link);
        run_in(platform.as_fd(), "nft", &["delete", "table", "netdev", &table]).unwrap();
        for tap in self.taps.values() {
            run_in(tap.netns(), "nft", &["delete", "table", "inet", "q"]).unwrap();
        }
    }
}
