use super::*;
use crate::simulate::{Router, edge};
use crate::topology::{self, Tape};
use proptest::prelude::*;

/// Numbers that follow from a seed (SplitMix64), so that only the topology has to be shrunk.
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

/// One line per part.
fn told(vpc: &CheckedVpc) -> String {
    let value = serde_json::to_value(&**vpc).unwrap();
    let mut lines = String::new();
    for (name, part) in value.as_object().unwrap() {
        match part.as_object() {
            Some(fields) => fields
                .iter()
                .for_each(|(id, one)| lines += &format!("{name} {id}: {one}\n")),
            None => lines += &format!("{name}: {part}\n"),
        }
    }
    lines
}

/// The first flow on which oracle and plan differ, told in full.
fn difference(tape: &[u32], seed: u64, flows: u64) -> Option<String> {
    let vpc = topology::vpc(&mut Tape::new(tape));
    let router = Router::new(&vpc);
    (0..flows).find_map(|n| {
        let flow = topology::flow(&mut Tape::new(&follow(seed.wrapping_add(n), 16)), &vpc);
        let verdict = reach(&vpc, &edge().services, &flow);
        let arrival = match &verdict {
            Verdict::Reached { arrival, .. } => Some(*arrival),
            Verdict::Blocked { .. } => None,
        };
        let done = router.send(&flow);
        let way = router.way();
        let told = || {
            format!(
                "{flow:?}\noracle: {verdict:?}\nplan: {done:?}\nway: {way:#?}\n{}",
                told(&vpc)
            )
        };
        (arrival != done).then(told)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 300, ..ProptestConfig::default() })]

    /// The oracle and the compiled plan were written apart; they must not differ on any packet.
    #[test]
    fn the_plan_does_with_every_packet_what_ec2_would_do(
        tape in prop::collection::vec(any::<u32>(), 300), seed in any::<u64>(),
    ) {
        let found = difference(&tape, seed, 60);
        prop_assert!(found.is_none(), "{}", found.unwrap());
    }
}

fn name_of(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap();
    let named = value.as_object().and_then(|fields| fields.keys().next().cloned());
    named.unwrap_or_else(|| value.as_str().unwrap().to_owned())
}

#[test]
fn the_generated_flows_arrive_everywhere_and_meet_every_obstacle() {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let mut reached = 0;
    for topology in 0..600 {
        let vpc = topology::vpc(&mut Tape::new(&follow(topology, 300)));
        for n in 0..40 {
            let flow = topology::flow(&mut Tape::new(&follow(topology * 1000 + n, 16)), &vpc);
            match reach(&vpc, &edge().services, &flow) {
                Verdict::Reached { arrival, .. } => {
                    reached += 1;
                    *count.entry(name_of(&arrival)).or_default() += 1;
                }
                Verdict::Blocked { by } => {
                    assert!(!by.is_empty(), "a blocked flow has a reason: {flow:?}");
                    for block in by {
                        *count.entry(name_of(&block)).or_default() += 1;
                    }
                }
            }
        }
    }
    assert!(reached > 1500, "{reached} of 24000");
    let wanted = [
        "interface",
        "internet",
        "s3_endpoint",
        "resolver",
        "credentials",
        "not_attached",
        "isolated",
        "begins_nothing",
        "source_dest_check",
        "no_group_rule",
        "acl",
        "no_route",
        "blackhole",
        "other_route",
        "no_public_address",
        "no_internet_gateway",
        "nat_without_internet",
        "nat_refuses_inbound",
        "unassigned",
        "not_on_internet",
        "not_served",
        "dns_support_off",
    ];
    for name in wanted {
        assert!(count.get(name).is_some_and(|times| *times >= 10), "{name}: {count:?}");
    }
}

/// Control of the comparison: a plan that is wrong in one place is found out.
#[test]
fn a_plan_without_one_of_its_rules_differs_from_the_oracle() {
    let lost = [
        ("forward", "network ACLs"),
        ("forward", "way out"),
        ("output", "network ACLs"),
        ("acl", "inside one subnet"),
        ("acl", "enters a subnet"),
        ("ingress", "receiver"),
        ("ingress", "served, but not this"),
        ("prerouting", "forged source"),
        ("exit", "answers by another way"),
        ("exit", "not the internet"),
    ];
    for (chain, why) in lost {
        let differs = (0..600).any(|topology| {
            let vpc = topology::vpc(&mut Tape::new(&follow(topology, 300)));
            let mut router = Router::new(&vpc);
            router.forget(chain, why)
                && (0..40).any(|n| {
                    let flow = topology::flow(&mut Tape::new(&follow(topology * 1000 + n, 16)), &vpc);
                    let reached = matches!(reach(&vpc, &edge().services, &flow), Verdict::Reached { .. });
                    reached != router.send(&flow).is_some()
                })
        });
        assert!(differs, "nobody misses rule {why:?} of chain {chain}");
    }
}

/// Found by the comparison: with the resolver off, its link-local address followed the subnet's default route to an
/// interface that takes any destination.
#[test]
fn no_route_of_a_customer_leads_to_the_platforms_link_local_addresses() {
    let mut found = 0;
    for topology in 0..300 {
        let vpc = topology::vpc(&mut Tape::new(&follow(topology, 300)));
        let router = Router::new(&vpc);
        for (id, interface) in vpc.interfaces.iter().filter(|(_, one)| one.is_attached()) {
            let source = interface.primary;
            let from = Origin::Interface { id: *id, source };
            let flow = |to| Flow {
                from,
                to,
                traffic: Traffic::Tcp { from: 40000, to: 80 },
            };
            for to in ["169.254.169.254", "169.254.169.253", "169.254.168.1"] {
                assert_eq!(router.send(&flow(to.parse().unwrap())), None, "{to}");
            }
            let control = router.send(&flow(Ipv4Addr::new(169, 254, 170, 2)));
            assert_eq!(control, Some(Arrival::Credentials));
            found += 1;
        }
    }
    assert!(found > 100, "{found} senders");
}

/// A VPC without any rule: one subnet, two interfaces of one group.
fn bare() -> crate::intent::vpc::Vpc {
    (*topology::vpc(&mut Tape::new(&[]))).clone()
}

fn ends(vpc: &crate::intent::vpc::Vpc) -> [(InterfaceId, Ipv4Addr); 2] {
    let mut all = vpc.interfaces.iter().map(|(id, one)| (*id, one.primary));
    [all.next().unwrap(), all.next().unwrap()]
}

const WEB: Traffic = Traffic::Tcp { from: 40000, to: 443 };

#[test]
fn members_of_one_group_talk_only_when_a_rule_of_each_side_says_so() {
    use crate::intent::vpc::GroupRule;
    let mut vpc = bare();
    let [(id, source), (other, to)] = ends(&vpc);
    let group = *vpc.groups.keys().next().unwrap();
    let flow = Flow {
        from: Origin::Interface { id, source },
        to,
        traffic: WEB,
    };
    let verdict = |vpc: &crate::intent::vpc::Vpc| {
        let vpc = vpc.clone().check().unwrap();
        let told = reach(&vpc, &[], &flow);
        assert_eq!(
            Router::new(&vpc).send(&flow).is_some(),
            matches!(told, Verdict::Reached { .. })
        );
        told
    };
    let refused = |interface, direction| Block::NoGroupRule {
        interface,
        groups: vec![group],
        direction,
    };
    let (out, into) = (refused(id, Direction::Egress), refused(other, Direction::Ingress));
    let by = vec![out, into.clone()];
    assert_eq!(verdict(&vpc), Verdict::Blocked { by });
    let rule = GroupRule {
        traffic: Match::All,
        peer: Peer::Group(group),
    };
    vpc.groups.get_mut(&group).unwrap().egress.insert(rule.clone());
    assert_eq!(verdict(&vpc), Verdict::Blocked { by: vec![into] });
    vpc.groups.get_mut(&group).unwrap().ingress.insert(rule);
    assert!(matches!(verdict(&vpc), Verdict::Reached { .. }), "control");
}

#[test]
fn everything_that_blocks_is_named_at_once() {
    let mut vpc = bare();
    let [(id, source), _] = ends(&vpc);
    let gateway = InternetGatewayId::of(5);
    vpc.internet_gateway = Some(gateway);
    let table = *vpc.route_tables.keys().next().unwrap();
    let default = Target::InternetGateway(gateway);
    vpc.route_tables.get_mut(&table).unwrap().routes = BTreeMap::from([(Ipv4Net::default(), default)]);
    let (group, acl) = (*vpc.groups.keys().next().unwrap(), *vpc.acls.keys().next().unwrap());
    let refused = |direction, leg| Block::Acl {
        acl,
        direction,
        rule: None,
        leg,
    };
    let flow = Flow {
        from: Origin::Interface { id, source },
        to: Ipv4Addr::new(203, 0, 113, 5),
        traffic: WEB,
    };
    let by = vec![
        Block::NoGroupRule {
            interface: id,
            groups: vec![group],
            direction: Direction::Egress,
        },
        refused(Direction::Egress, Leg::Request),
        refused(Direction::Ingress, Leg::Reply),
        Block::NoPublicAddress { interface: id, gateway },
    ];
    assert_eq!(reach(&vpc.check().unwrap(), &[], &flow), Verdict::Blocked { by });
}

#[test]
fn without_any_rule_nothing_but_the_platforms_services_is_reachable() {
    let vpc = bare().check().unwrap();
    let router = Router::new(&vpc);
    let mut arrived = 0;
    for n in 0..2000 {
        let flow = topology::flow(&mut Tape::new(&follow(n, 16)), &vpc);
        match router.send(&flow) {
            None => {}
            Some(Arrival::Credentials | Arrival::Resolver) => arrived += 1,
            Some(other) => panic!("{flow:?} arrived at {other:?}"),
        }
    }
    assert!(arrived > 0, "control: packets are sent");
}
