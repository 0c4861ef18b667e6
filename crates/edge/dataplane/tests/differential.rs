//! The kernel against the oracle: random VPCs, random flows, every packet made by hand and looked for where it should
//! arrive. `reach` was written from EC2's documents and knows nothing of the compiler.
//!
//! `TOPOLOGIES` sets the number of VPCs (300), `SEED` the first one. A difference is made smaller before it is told, and
//! kept in `tests/cases`; every run begins with what lies there. Give a kept case a name that says what was wrong.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod probes;

use ipnet::Ipv4Net;
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::{
    AclEntry, CheckedVpc, GroupRule, Holder, Interface, Match, NetworkAcl, Peer, Vpc,
};
use isolarium_netplan::reach::{Arrival, Block, Flow, Origin, Traffic, Verdict, goes_on, reach};
use isolarium_testkit::lab::topology::{self, Tape};
use isolarium_testkit::lab::vpc::{Tap, VpcLab, run_in};
use isolarium_testkit::lab::{Internet, Lab};
use probes::Bench;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A small topology on which kernel and oracle once differed, or would with one mistake.
#[derive(Serialize, Deserialize)]
struct Case {
    /// What was wrong.
    why: String,
    /// Numbers of the topology, without the zeros at its end.
    tape: Vec<u32>,
    /// Seed of the flows.
    flows: u64,
}

/// Numbers of a whole tape.
const TAPE: usize = 300;

impl Case {
    fn of(why: String, tape: &[u32], flows: u64) -> Self {
        let used = tape.iter().rposition(|number| *number != 0).map_or(0, |last| last + 1);
        Self {
            why,
            tape: tape[..used].to_vec(),
            flows,
        }
    }

    fn tape(&self) -> Vec<u32> {
        let mut tape = self.tape.clone();
        tape.resize(TAPE, 0);
        tape
    }

    fn keep(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(format!("{name}.json"));
        std::fs::write(&path, serde_json::to_string(self).unwrap() + "\n").unwrap();
        path
    }

    /// What is kept in a folder, by name.
    fn all(dir: &Path) -> BTreeMap<String, Self> {
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: PathBuf| {
            let case = serde_json::from_slice(&std::fs::read(&path).unwrap());
            let case = case.unwrap_or_else(|bad| panic!("{}: {bad}", path.display()));
            (path.file_stem().unwrap().to_string_lossy().into_owned(), case)
        };
        files.map(read).collect()
    }
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// Where differences are looked for.
struct Ground<'a> {
    lab: &'a Lab,
    decoy: &'a [Tap],
    /// A mistake that is planted into every router.
    mistake: Option<&'a dyn Fn(&VpcLab<'_>)>,
}

const FLOWS: u64 = 70;
/// Flows of which those that arrive are asked again after the rules changed.
const STANDING: u16 = 12;
/// Numbers of the tape that decide about subnets and interfaces; what follows decides about rules and routes.
const SHAPE: usize = 70;

/// Numbers that follow from a seed (SplitMix64).
fn follow(seed: u64, count: usize) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) >> 32).unwrap()
    };
    (0..count).map(|_| next()).collect()
}

/// Flows of which every first packet is new to the router.
fn flows(vpc: &Vpc, seed: u64, round: u64) -> Vec<Flow> {
    let all = (0..FLOWS).map(|n| {
        let mut flow = topology::flow(&mut Tape::new(&follow(seed.wrapping_add(n), 16)), vpc);
        let own = u16::try_from(n + 100 * round).unwrap();
        flow.traffic = match flow.traffic {
            Traffic::Tcp { from, to } => Traffic::Tcp { from: from + own, to },
            Traffic::Udp { from, to } => Traffic::Udp { from: from + own, to },
            // An error message without what it is about is no flow to the kernel.
            Traffic::Icmp { .. } => Traffic::Icmp { kind: 8, code: 0 },
        };
        flow
    });
    all.collect()
}

/// Flows inside the VPC that go on while the rules change under them.
fn standing(vpc: &Vpc, seed: u64) -> Vec<Flow> {
    let addresses: Vec<(InterfaceId, Ipv4Addr)> = vpc.interfaces.iter().map(|(id, one)| (*id, one.primary)).collect();
    let one = |n: u16| {
        let numbers = follow(seed.wrapping_add(0x57a7 + u64::from(n)), 3);
        let pick = |at: usize| usize::try_from(numbers[at]).unwrap();
        let (id, source) = addresses[pick(0) % addresses.len()];
        Flow {
            from: Origin::Interface { id, source },
            to: addresses[pick(1) % addresses.len()].1,
            traffic: Traffic::Udp {
                from: 50000 + n,
                to: [53, 80, 443, 22, 8080][pick(2) % 5],
            },
        }
    };
    (0..STANDING).map(one).collect()
}

/// What should happen with a flow, and why.
type Expected = (Flow, Option<Arrival>, String);

fn as_a_new_one(lab: &Lab, vpc: &CheckedVpc, flow: &Flow) -> Expected {
    let verdict = reach(vpc, &lab.network().vpc_edge().services, flow);
    let arrival = match &verdict {
        Verdict::Reached { arrival, .. } => Some(*arrival),
        Verdict::Blocked { .. } => None,
    };
    (*flow, arrival, format!("{verdict:?}"))
}

/// A flow that arrived before the rules changed, asked again.
fn as_an_old_one(lab: &Lab, before: &CheckedVpc, after: &CheckedVpc, flow: &Flow) -> Expected {
    let on = goes_on(before, after, &lab.network().vpc_edge().services, flow);
    let arrival = as_a_new_one(lab, before, flow).1.filter(|_| on);
    let told = format!(
        "goes on: {on}, after {}",
        serde_json::to_string_pretty(&**before).unwrap()
    );
    (*flow, arrival, told)
}

fn compare(bench: &Bench<'_>, vpc: &CheckedVpc, expected: &[Expected]) -> Option<String> {
    let flows: Vec<Flow> = expected.iter().map(|(flow, ..)| *flow).collect();
    let done = bench.ask(vpc, &flows);
    expected.iter().zip(done).find_map(|((flow, expected, why), done)| {
        // A packet to the sender's own address never leaves its namespace, nor does the answer to one that a route led back.
        let own = |id: InterfaceId| {
            let to_itself = vpc.interfaces[&id].addresses().any(|address| address == flow.to);
            to_itself || *expected == Some(Arrival::Interface(id))
        };
        if matches!(flow.from, Origin::Interface { id, .. } if own(id)) || *expected == done {
            return None;
        }
        let told = serde_json::to_string_pretty(&**vpc).unwrap();
        Some(format!(
            "{flow:?}\noracle: {expected:?} {why}\nkernel: {done:?}\n{told}"
        ))
    })
}

#[derive(Default)]
struct Tally {
    reached: usize,
    flows: usize,
    /// Flows that arrived before a change of rules and that groups would refuse as new ones: those that went on, those that
    /// were cut.
    outlived: usize,
    cut: usize,
}

impl Tally {
    fn count(&mut self, expected: &[Expected]) {
        let fresh = expected.iter().take(usize::try_from(FLOWS).unwrap());
        self.flows += fresh.len();
        self.reached += fresh.filter(|(_, arrival, _)| arrival.is_some()).count();
    }

    fn count_old(&mut self, lab: &Lab, after: &CheckedVpc, flow: &Flow, goes_on: bool) {
        let Verdict::Blocked { by } = reach(after, &lab.network().vpc_edge().services, flow) else {
            return;
        };
        if by.iter().all(|one| matches!(one, Block::NoGroupRule { .. })) {
            *(if goes_on { &mut self.outlived } else { &mut self.cut }) += 1;
        }
    }
}

/// The first difference on a topology and on the one that it is changed to while its interfaces stay attached.
fn difference(ground: &Ground<'_>, tape: &[u32], seed: u64, tally: &mut Tally) -> Option<String> {
    let Ground { lab, decoy, mistake } = *ground;
    let first = topology::vpc(&mut Tape::new(tape));
    let churned: Vec<u32> = tape
        .iter()
        .take(SHAPE)
        .copied()
        .chain(follow(seed ^ 0x5eed, 300))
        .collect();
    let second = topology::vpc(&mut Tape::new(&churned));
    let mut vpc = VpcLab::new(lab, (*first).clone()).unwrap();
    let old = standing(&first, seed);
    let arrived = old.iter().filter(|flow| as_a_new_one(lab, &first, flow).1.is_some());
    let rounds: [Vec<Expected>; 2] = [
        flows(&first, seed, 0)
            .iter()
            .chain(&old)
            .map(|flow| as_a_new_one(lab, &first, flow))
            .collect(),
        flows(&second, seed.wrapping_add(1000), 1)
            .iter()
            .map(|flow| as_a_new_one(lab, &second, flow))
            .chain(arrived.map(|flow| {
                let expected = as_an_old_one(lab, &first, &second, flow);
                tally.count_old(lab, &second, flow, expected.1.is_some());
                expected
            }))
            .collect(),
    ];
    let mut found = None;
    for (round, (intent, expected)) in [&first, &second].into_iter().zip(&rounds).enumerate() {
        if round > 0 {
            vpc.change((**intent).clone()).unwrap();
        }
        if let Some(mistake) = mistake {
            mistake(&vpc);
        }
        let bench = Bench::new(&vpc, lab).from(u32::try_from(round).unwrap() * 1000);
        tally.count(expected);
        found = compare(&bench, intent, expected).map(|told| format!("round {round}\n{told}"));
        drop(bench);
        if found.is_some() {
            break;
        }
    }
    for tap in decoy {
        let strayed = tap.seen().unwrap();
        assert!(strayed.is_empty(), "another VPC's packets arrived: {strayed:?}");
    }
    found
}

/// A difference, told by fewer numbers that are not zero. `least`: of so many at a time.
fn smaller(ground: &Ground<'_>, tape: &[u32], seed: u64, least: usize) -> Vec<u32> {
    let mut best = tape.to_vec();
    let mut tally = Tally::default();
    let mut chunk = best.len() / 2;
    while chunk >= least.max(1) {
        let mut at = 0;
        while at < best.len() {
            let mut tried = best.clone();
            let end = (at + chunk).min(tried.len());
            if tried[at..end].iter().any(|number| *number != 0) {
                tried[at..end].fill(0);
                if difference(ground, &tried, seed, &mut tally).is_some() {
                    best = tried;
                }
            }
            at = end;
        }
        chunk /= 2;
    }
    best
}

/// A VPC with the same blocks, whose interfaces sit at the same addresses and admit everything.
fn twin() -> Vpc {
    let mut vpc = (*topology::vpc(&mut Tape::new(&[]))).clone();
    let mut interfaces = BTreeMap::new();
    let subnet = *vpc.subnets.keys().next().unwrap();
    let like = vpc.interfaces.values().next().unwrap().clone();
    for n in 0..4 {
        let one = Interface {
            subnet,
            primary: Ipv4Addr::new(10, 0, 0, 10 + n),
            holder: Holder::Program,
            public: None,
            secondary: BTreeSet::new(),
            ..like.clone()
        };
        interfaces.insert(InterfaceId::of(0x900 + u128::from(n)), one);
    }
    vpc.interfaces = interfaces;
    vpc.nat_gateways.clear();
    vpc.id = VpcId::of(2);
    let anybody = BTreeSet::from([GroupRule {
        traffic: Match::All,
        peer: Peer::Block(Ipv4Net::default()),
    }]);
    for group in vpc.groups.values_mut() {
        group.ingress = anybody.clone();
        group.egress = anybody.clone();
    }
    let everything = BTreeMap::from([(
        100,
        AclEntry {
            allow: true,
            traffic: Match::All,
            peer: Ipv4Net::default(),
        },
    )]);
    for acl in vpc.acls.values_mut() {
        *acl = NetworkAcl {
            ingress: everything.clone(),
            egress: everything.clone(),
        };
    }
    vpc
}

/// Proves: NET-1, NET-13, NET-15, NET-16, NET-17, NET-18, NET-19, NET-22, NET-24, NET-25, NET-26, NET-28, NET-29, NET-36, NET-37
#[test]
fn the_kernel_does_with_every_packet_what_ec2_would_do() {
    let variable = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (count, begin) = (variable("TOPOLOGIES", 300), variable("SEED", 1));
    let lab = Lab::around(Internet::bare().unwrap()).unwrap();
    let twin = VpcLab::new(&lab, twin()).unwrap();
    let [from, to] = [0x900, 0x901].map(InterfaceId::of);
    let own = Flow {
        from: Origin::Interface {
            id: from,
            source: twin.vpc().interfaces[&from].primary,
        },
        to: twin.vpc().interfaces[&to].primary,
        traffic: Traffic::Tcp { from: 40000, to: 443 },
    };
    let arrived = Bench::new(&twin, &lab).ask(twin.vpc(), &[own]);
    assert_eq!(
        arrived,
        [Some(Arrival::Interface(to))],
        "control: what strayed into it would arrive"
    );
    let decoy: Vec<Tap> = twin.held().values().map(|at| Tap::on(at.as_fd()).unwrap()).collect();
    let mut tally = Tally::default();
    let ground = Ground {
        lab: &lab,
        decoy: &decoy,
        mistake: None,
    };
    let kept = Case::all(&cases());
    assert!(!kept.is_empty(), "control: the folder of kept cases is read");
    let kept = kept.into_iter().map(|(name, case)| (name, case.tape(), case.flows));
    let random = (begin..begin + count).map(|n| (format!("topology-{n}"), follow(n, TAPE), n << 20));
    for (name, tape, seed) in kept.chain(random) {
        if let Some(told) = difference(&ground, &tape, seed, &mut tally) {
            let least = smaller(&ground, &tape, seed, 1);
            let again = difference(&ground, &least, seed, &mut Tally::default()).unwrap_or(told);
            let case = Case::of(
                "say here what was wrong, and name the file after it".into(),
                &least,
                seed,
            );
            let path = case.keep(&cases(), &name);
            panic!("{name}\n{again}\nkept as {}", path.display());
        }
    }
    eprintln!(
        "{} of {} flows arrived; of those that groups refused later, {} went on and {} were cut",
        tally.reached, tally.flows, tally.outlived, tally.cut
    );
    assert!(
        count < 300 || (tally.outlived > 0 && tally.cut > 0),
        "control: rules changed under both sorts of flows"
    );
    assert!(
        tally.reached * 20 > tally.flows,
        "control: {} of {} flows arrive",
        tally.reached,
        tally.flows
    );
}

/// With a mistake in the kernel that the comparison must find, make smaller, keep and find again.
#[test]
fn a_planted_mistake_is_found_made_smaller_kept_and_found_again() {
    let lab = Lab::around(Internet::bare().unwrap()).unwrap();
    let deaf = |vpc: &VpcLab<'_>| {
        run_in(
            vpc.router().unwrap().as_fd(),
            "nft",
            &["flush", "chain", "inet", "vpc", "acl"],
        )
        .unwrap();
    };
    let ground = Ground {
        lab: &lab,
        decoy: &[],
        mistake: Some(&deaf),
    };
    let sound = Ground {
        mistake: None,
        ..ground
    };
    let differs =
        |ground: &Ground<'_>, tape: &[u32], seed| difference(ground, tape, seed, &mut Tally::default()).is_some();
    let n = (1..40)
        .find(|n| differs(&ground, &follow(*n, TAPE), *n))
        .expect("a topology with an ACL that refuses");
    let tape = follow(n, TAPE);
    let least = smaller(&ground, &tape, n, 30);
    let count = |tape: &[u32]| tape.iter().filter(|number| **number != 0).count();
    assert!(
        count(&least) < count(&tape) * 2 / 3,
        "{} of {} numbers are left",
        count(&least),
        count(&tape)
    );
    let dir = tempfile::tempdir().unwrap();
    let name = "network-acls-are-asked";
    let path = Case::of("the router did not ask network ACLs".into(), &least, n).keep(dir.path(), name);
    eprintln!("{}", std::fs::read_to_string(path).unwrap());
    let kept = Case::all(dir.path()).remove(name).expect("it is found by its name");
    assert!(differs(&ground, &kept.tape(), kept.flows), "it shows the mistake again");
    assert!(
        !differs(&sound, &kept.tape(), kept.flows),
        "control: without the mistake there is no difference"
    );
    // What the folder has of this mistake still shows it.
    let kept = Case::all(&cases()).remove(name).expect("a case of this name is kept");
    assert!(differs(&ground, &kept.tape(), kept.flows));
}
