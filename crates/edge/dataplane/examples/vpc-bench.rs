//! Figures of VPCs for `bench/network.py`: one JSON object, times in microseconds, medians. Needs root.
//!
//! `vpc-bench [--quick] [--peer CLIENT SERVER ADDRESS]`: the namespaces CLIENT and SERVER, the latter with ADDRESS, are measured
//! beside ours.
//!
//! Everything is measured in one process, the floors between the figures they are compared with; client and server are
//! pinned, because an idle core wakes up slowly.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking"
)]

use isolarium_dataplane::kernel::handle::Handle;
use isolarium_dataplane::kernel::{KernelHost, netns};
use isolarium_dataplane::{Host, NetHost};
use isolarium_netplan::Step;
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::{AclEntry, GroupRule, Holder, Interface, Match, NetworkAcl, Peer, Vpc};
use isolarium_netplan::plan::{LinkName, Mac, Place};
use isolarium_testkit::lab::topology::{self, Tape};
use isolarium_testkit::lab::vpc::run_in;
use isolarium_testkit::lab::{Internet, Lab};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

fn eni(n: u32) -> InterfaceId {
    InterfaceId::of(u128::from(n) + 1)
}

fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 10)) + n)
}

/// `count` programs in one /20, in one group with `rules` rules besides the one that admits the measured port.
fn vpc(id: u128, count: u32, rules: u32) -> Vpc {
    let mut vpc = (*topology::vpc(&mut Tape::new(&[]))).clone();
    vpc.id = VpcId::of(id);
    vpc.nat_gateways.clear();
    let block = |text: &str| text.parse().unwrap();
    vpc.subnets.values_mut().next().unwrap().block = block("10.0.0.0/20");
    let all = AclEntry {
        allow: true,
        traffic: Match::All,
        peer: block("0.0.0.0/0"),
    };
    for acl in vpc.acls.values_mut() {
        *acl = NetworkAcl {
            ingress: BTreeMap::from([(100, all.clone())]),
            egress: BTreeMap::from([(100, all.clone())]),
        };
    }
    for group in vpc.groups.values_mut() {
        group.egress = BTreeSet::from([GroupRule {
            traffic: Match::All,
            peer: Peer::Block(block("0.0.0.0/0")),
        }]);
        group.ingress = ingress(rules, 5000);
    }
    let like = vpc.interfaces.values().next().unwrap().clone();
    let program = |n: u32| Interface {
        primary: address(n),
        secondary: BTreeSet::new(),
        source_dest_check: true,
        public: None,
        holder: Holder::Program,
        ..like.clone()
    };
    vpc.interfaces = (0..count).map(|n| (eni(n), program(n))).collect();
    vpc
}

fn port(port: u16) -> (u16, u16) {
    (port, port)
}

fn ingress(rules: u32, open: u16) -> BTreeSet<GroupRule> {
    let rule = |n: u32| {
        let peer = Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + 2 * n);
        GroupRule {
            traffic: Match::Tcp {
                ports: port(1000 + u16::try_from(n % 30000).unwrap()).try_into().unwrap(),
            },
            peer: Peer::Block(format!("{peer}/32").parse().unwrap()),
        }
    };
    let mut all: BTreeSet<GroupRule> = (1..rules).map(rule).collect();
    for traffic in [
        Match::Tcp {
            ports: port(open).try_into().unwrap(),
        },
        Match::Udp {
            ports: port(open).try_into().unwrap(),
        },
    ] {
        let peer = Peer::Block("10.0.0.0/16".parse().unwrap());
        all.insert(GroupRule { traffic, peer });
    }
    all
}

fn handle(fd: OwnedFd) -> Arc<Handle> {
    Arc::new(Handle::open(fd).unwrap())
}

/// A namespace and a veth pair into it, both ends up: the floor of an attachment. The namespace is returned.
fn bare(router: &Arc<Handle>, n: u32) -> (OwnedFd, f64) {
    let (here, there) = (Place::Platform, Place::Workload);
    let began = Instant::now();
    let fd = netns::within_fresh(|fd| {
        let own = Arc::new(Handle::resident(fd.try_clone().unwrap()).unwrap());
        let mut kernel = KernelHost {
            places: BTreeMap::from([(here, Arc::clone(router)), (there, own)]),
            ..KernelHost::default()
        };
        let name = LinkName::of_workload(address(n));
        let mac = |end| Mac::of(address(n), end);
        let up = |place, link| Step::SetUp { place, link };
        let steps = [
            Step::AddPair {
                place: here,
                link: name.clone(),
                mac: mac(isolarium_netplan::plan::End::Near),
                peer_place: there,
                peer: LinkName::eth0(),
                peer_mac: mac(isolarium_netplan::plan::End::Far),
            },
            up(here, name),
            up(there, LinkName::eth0()),
        ];
        kernel.apply(&steps).unwrap();
        fd
    })
    .unwrap();
    (fd, micros(began))
}

fn pinned<R: Send>(at: &OwnedFd, cpu: usize, work: impl FnOnce() -> R + Send) -> R {
    netns::within(at.as_fd(), || {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set).unwrap();
        work()
    })
    .unwrap()
}

/// One-byte round trips, connections a round, and bytes a second between two namespaces.
fn traffic(client: &OwnedFd, server: &OwnedFd, to: Ipv4Addr, rounds: usize) -> [f64; 3] {
    let listener = netns::within(server.as_fd(), || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 5000)).unwrap()
    })
    .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pinned(server, 0, || {
                loop {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.set_nodelay(true).unwrap();
                    let mut kind = [0];
                    if stream.read(&mut kind).unwrap_or(0) == 0 {
                        continue;
                    }
                    let mut buffer = vec![0; 256 << 10];
                    match kind[0] {
                        b'q' => return,
                        b'e' => {
                            while let Ok(1) = stream.read(&mut buffer[..1]) {
                                stream.write_all(&buffer[..1]).unwrap();
                            }
                        }
                        _ => while stream.read(&mut buffer).unwrap_or(0) > 0 {},
                    }
                }
            });
        });
        let dial = |kind: &[u8]| {
            let mut stream = TcpStream::connect((to, 5000)).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(kind).unwrap();
            stream
        };
        let (trip, connect) = pinned(client, 0, || {
            let mut echo = dial(b"e");
            let mut trips = Vec::new();
            for _ in 0..rounds {
                let began = Instant::now();
                echo.write_all(b"x").unwrap();
                echo.read_exact(&mut [0]).unwrap();
                trips.push(micros(began));
            }
            drop(echo);
            let mut connects = Vec::new();
            for _ in 0..rounds / 4 {
                let began = Instant::now();
                let stream = TcpStream::connect((to, 5000)).unwrap();
                connects.push(micros(began));
                drop(stream);
            }
            (median(trips), median(connects))
        });
        let rate = pinned(client, 1, || {
            let mut sink = dial(b"s");
            let (block, began) = (vec![0_u8; 256 << 10], Instant::now());
            let mut sent = 0_usize;
            while began.elapsed() < Duration::from_millis(400) {
                sink.write_all(&block).unwrap();
                sent += block.len();
            }
            sent as f64 / began.elapsed().as_secs_f64()
        });
        pinned(client, 0, || drop(dial(b"q")));
        [trip, connect, rate]
    })
}

/// How often each path is measured in turn.
const TURNS: u32 = 5;
/// Worse than any measurement.
const NOTHING: [f64; 3] = [f64::MAX, f64::MAX, 0.0];

/// The shorter times and the higher rate.
fn best(one: [f64; 3], other: [f64; 3]) -> [f64; 3] {
    [one[0].min(other[0]), one[1].min(other[1]), one[2].max(other[2])]
}

fn raw_pair() -> (OwnedFd, OwnedFd) {
    let first = netns::within_fresh(|fd| fd).unwrap();
    let (second, _) = bare(&handle(first.try_clone().unwrap()), 0);
    let name = LinkName::of_workload(address(0));
    run_in(
        first.as_fd(),
        "ip",
        &["addr", "add", "10.0.0.1/24", "dev", name.as_str()],
    )
    .unwrap();
    run_in(second.as_fd(), "ip", &["addr", "add", "10.0.0.2/24", "dev", "eth0"]).unwrap();
    (first, second)
}

/// The work while every flow of the VPC is read, as for a flow log.
fn accounted<R>(host: &Host, vpc: VpcId, work: impl FnOnce() -> R) -> R {
    let over = AtomicBool::new(false);
    // From the first call on everything is accounted.
    host.read_flows(vpc, 0, Duration::ZERO).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = 0;
            while !over.load(Ordering::Relaxed) {
                next = host.read_flows(vpc, next, Duration::from_millis(100)).unwrap().next;
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    })
}

/// Memory that the machine could still give, in KiB.
fn available() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// `vpcs` routers with 20 attached interfaces each: what they take, and what a rule of one of them costs then.
fn many_vpcs(host: &Host, vpcs: u32, note: &mut impl FnMut(&str, f64)) {
    const EACH: u32 = 20;
    let id = |n: u32| VpcId::of(u128::from(n) + 100);
    let changed = |of: u32| {
        let times = (0..10).map(|n: u16| {
            let mut other = vpc(id(of).number(), EACH, 10);
            other.groups.values_mut().next().unwrap().ingress = ingress(10, 7000 + n);
            let other = other.check().unwrap();
            let began = Instant::now();
            host.apply_vpc(other).unwrap();
            micros(began)
        });
        median(times.collect())
    };
    let fill = |n: u32| {
        host.apply_vpc(vpc(id(n).number(), EACH, 10).check().unwrap()).unwrap();
        for interface in 0..EACH {
            host.attach_interface(id(n), eni(interface)).unwrap();
        }
    };
    fill(0);
    note("change_alone", changed(0));
    let (free, began) = (available(), Instant::now());
    (1..vpcs).for_each(fill);
    let interfaces = f64::from((vpcs - 1) * EACH);
    note("fill", micros(began) / interfaces);
    note("change_among_many", changed(0));
    note("memory", (free - available()) / interfaces);
    note("vpcs", f64::from(vpcs));
    (0..vpcs).for_each(|n| host.remove_vpc(id(n)).unwrap());
}

/// What stands after `--peer`.
fn peer() -> Option<(OwnedFd, OwnedFd, Ipv4Addr)> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--peer").skip(1);
    let (client, server, address) = (arguments.next()?, arguments.next()?, arguments.next()?);
    let open = |path: String| netns::open(std::path::Path::new(&path)).unwrap();
    Some((open(client), open(server), address.parse().unwrap()))
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let peer = peer();
    let lab = Lab::around(Internet::bare().unwrap()).unwrap();
    let host = lab.host();
    let mut figures: BTreeMap<String, f64> = BTreeMap::new();
    let mut note = |name: &str, value: f64| {
        figures.insert(name.into(), value);
    };

    // Attachments beside their floor, with few and with many attached.
    let many = if quick { 200 } else { 1000 };
    let samples = 40;
    host.apply_vpc(vpc(1, many + 4 * samples, 10).check().unwrap()).unwrap();
    let floor = handle(netns::within_fresh(|fd| fd).unwrap());
    let mut next = 0;
    let mut kept = Vec::new();
    for (name, before) in [("few", 0), ("many", many)] {
        while next < before {
            host.attach_interface(VpcId::of(1), eni(next)).unwrap();
            next += 1;
        }
        let (mut ours, mut bares) = (Vec::new(), Vec::new());
        for _ in 0..samples {
            let began = Instant::now();
            host.attach_interface(VpcId::of(1), eni(next)).unwrap();
            ours.push(micros(began));
            let (fd, took) = bare(&floor, next);
            bares.push(took);
            kept.push(fd);
            next += 1;
        }
        note(&format!("attach_{name}"), median(ours));
        note(&format!("bare_{name}"), median(bares));
    }
    let began = Instant::now();
    for n in 0..samples {
        host.detach_interface(VpcId::of(1), eni(n)).unwrap();
    }
    note("detach", micros(began) / f64::from(samples));
    // One more interface in the intent: what the rules cost.
    let mut grown = vpc(1, many + 4 * samples + 1, 10);
    let mut applies = Vec::new();
    for n in 0..5 {
        let began = Instant::now();
        host.apply_vpc(grown.clone().check().unwrap()).unwrap();
        applies.push(micros(began));
        let like = grown.interfaces.values().next().unwrap().clone();
        let another = Interface {
            primary: address(many + 4 * samples + 1 + n),
            ..like
        };
        grown.interfaces.insert(eni(many + 4 * samples + 1 + n), another);
    }
    note("apply_interface_many", median(applies));
    note("many", f64::from(many));
    host.remove_vpc(VpcId::of(1)).unwrap();
    drop(kept);

    // Filtering.
    let rounds = if quick { 500 } else { 2000 };
    for rules in [1, 100, 10_000] {
        host.apply_vpc(vpc(2, 2, rules).check().unwrap()).unwrap();
        for n in 0..2 {
            host.attach_interface(VpcId::of(2), eni(n)).unwrap();
        }
        let at = |n| netns::open(&host.interface_path(VpcId::of(2), eni(n))).unwrap();
        let (raw_client, raw_server) = raw_pair();
        // In turn, and the best of each: what disturbs a machine for a moment makes times longer, never shorter.
        let (mut raw, mut ours, mut peers) = (NOTHING, NOTHING, peer.as_ref().map(|_| NOTHING));
        for _ in 0..TURNS {
            let to = Ipv4Addr::new(10, 0, 0, 2);
            raw = best(raw, traffic(&raw_client, &raw_server, to, rounds));
            ours = best(ours, traffic(&at(0), &at(1), address(1), rounds));
            if let (Some((client, server, address)), Some(so_far)) = (&peer, peers) {
                peers = Some(best(so_far, traffic(client, server, *address, rounds)));
            }
        }
        for (n, name) in ["trip", "connect", "rate"].into_iter().enumerate() {
            note(&format!("{name}_{rules}"), ours[n]);
            note(&format!("raw_{name}_{rules}"), raw[n]);
            if let Some(peers) = peers {
                note(&format!("peer_{name}_{rules}"), peers[n]);
            }
        }
        if rules == 100 {
            let (mut told, mut plain) = (NOTHING, NOTHING);
            for _ in 0..TURNS {
                let with = accounted(host, VpcId::of(2), || traffic(&at(0), &at(1), address(1), rounds));
                told = best(told, with);
                plain = best(plain, traffic(&at(0), &at(1), address(1), rounds));
            }
            for (n, name) in ["trip", "connect", "rate"].into_iter().enumerate() {
                note(&format!("flows_{name}"), told[n]);
                note(&format!("no_flows_{name}"), plain[n]);
            }
        }
        host.remove_vpc(VpcId::of(2)).unwrap();
    }

    // A changed rule beside 10,000 others and 200 interfaces: until the first packet that it lets through.
    let mut intent = vpc(3, 200, 10);
    let extra = isolarium_netplan::id::GroupId::of(99);
    let mut large = intent.groups.values().next().unwrap().clone();
    large.ingress = ingress(10_000, 5001);
    intent.groups.insert(extra, large);
    intent.interfaces.get_mut(&eni(5)).unwrap().groups.insert(extra);
    host.apply_vpc(intent.clone().check().unwrap()).unwrap();
    for n in 0..2 {
        host.attach_interface(VpcId::of(3), eni(n)).unwrap();
    }
    let at = |n| netns::open(&host.interface_path(VpcId::of(3), eni(n))).unwrap();
    let (client, server) = (at(0), at(1));
    let mut times = Vec::new();
    for n in 0..7_u16 {
        let open = 6000 + n;
        let receiver = netns::within(server.as_fd(), || {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, open)).unwrap()
        })
        .unwrap();
        let sender = netns::within(client.as_fd(), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()).unwrap();
        intent.groups.values_mut().next().unwrap().ingress = ingress(10, open);
        let checked = intent.clone().check().unwrap();
        let over = AtomicBool::new(false);
        let took = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _refused_until_then = sender.send_to(b"x", (address(1), open));
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
            let began = Instant::now();
            let arrival = scope.spawn(|| {
                receiver.recv_from(&mut [0; 8]).unwrap();
                Instant::now()
            });
            host.apply_vpc(checked).unwrap();
            let arrived = arrival.join().unwrap();
            over.store(true, Ordering::Relaxed);
            arrived.duration_since(began).as_secs_f64() * 1e6
        });
        times.push(took);
    }
    note("rule_to_packet", median(times));
    host.remove_vpc(VpcId::of(3)).unwrap();
    many_vpcs(host, if quick { 20 } else { 200 }, &mut note);
    println!("{}", serde_json::to_string(&figures).unwrap());
}
