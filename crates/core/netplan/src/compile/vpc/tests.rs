use super::*;
use crate::diff::{Step, diff};
use crate::id::{GroupId, SubnetId};
use crate::intent::vpc::{GroupRule, Match, Peer};
use crate::plan::{HostSeen, KindSeen, LinkSeen, NamespaceSeen};
use crate::ruleset::change::Change;
use crate::ruleset::{Rule, Table, TableSeen};
use crate::simulate::edge;
use crate::topology::{Tape, vpc as random};
use proptest::prelude::*;

/// What a table is after changes, by their meaning.
fn changed(mut held: TableSeen, changes: &[Change]) -> TableSeen {
    for change in changes {
        match change {
            Change::AddSet { name, set } => {
                assert!(
                    held.sets.insert(name.clone(), set.elements.clone()).is_none(),
                    "{name} is new"
                );
            }
            Change::AddChain { name } => {
                assert!(
                    held.chains.insert(name.clone(), Default::default()).is_none(),
                    "{name} is new"
                );
            }
            Change::SetRules { chain, rules } => {
                held.chains.get_mut(chain).unwrap().marks = rules.iter().map(Rule::mark).collect();
            }
            Change::DeleteElements { set, elements } => {
                let held = held.sets.get_mut(set).unwrap();
                assert!(elements.iter().all(|element| held.remove(element)), "they were there");
            }
            Change::AddElements { set, elements } => {
                let held = held.sets.get_mut(set).unwrap();
                assert!(
                    elements.iter().all(|element| held.insert(element.clone())),
                    "they are new"
                );
            }
            Change::DeleteChain { name } => {
                assert!(held.chains.remove(name).unwrap().marks.is_empty(), "emptied before");
            }
            Change::DeleteSet { name } => drop(held.sets.remove(name).unwrap()),
            Change::AddTimeout { name, seconds } => {
                assert!(held.timeouts.insert(name.clone(), *seconds).is_none(), "{name} is new");
            }
            Change::DeleteTimeout { name } => drop(held.timeouts.remove(name).unwrap()),
        }
    }
    held
}

/// Carries steps out on a machine of values; refuses what a kernel refuses.
fn perform(host: &mut HostSeen, steps: &[Step]) {
    for step in steps {
        let lo = LinkSeen {
            kind: KindSeen::Loopback,
            up: false,
            strict: false,
            mac: None,
            addresses: BTreeSet::new(),
        };
        if let Step::CreateNamespace { place } = step {
            let links = BTreeMap::from([(LinkName::lo(), lo)]);
            host.places.insert(
                *place,
                NamespaceSeen {
                    links,
                    ..NamespaceSeen::default()
                },
            );
            continue;
        }
        if let Step::AddPair {
            place,
            link,
            mac,
            peer_place,
            peer,
            peer_mac,
        } = step
        {
            for (place, name, mac) in [(place, link, mac), (peer_place, peer, peer_mac)] {
                let end = LinkSeen {
                    kind: KindSeen::Veth,
                    up: false,
                    strict: false,
                    mac: Some(*mac),
                    addresses: BTreeSet::new(),
                };
                let before = host.places.get_mut(place).unwrap().links.insert(name.clone(), end);
                assert!(before.is_none(), "{name} is new");
            }
            continue;
        }
        let here = host.places.get_mut(&step.place()).unwrap();
        match step {
            Step::ReplaceTable {
                name, table, changes, ..
            } => {
                let after = match (changes, here.tables.get(name)) {
                    (Some(changes), Some(held)) => changed(held.clone(), changes),
                    _ => table.seen(),
                };
                assert_eq!(after, table.seen(), "the changes make the table that is wanted");
                here.tables.insert(name.clone(), after);
            }
            Step::DeleteTable { name, .. } => drop(here.tables.remove(name).unwrap()),
            Step::SetSysctl { path, value, .. } => drop(here.sysctls.insert(path.clone(), value.clone())),
            Step::AddRule { rule, .. } => assert!(here.rules.insert(rule.clone())),
            Step::DeleteRule { rule, .. } => assert!(here.rules.remove(rule)),
            Step::AddRoute { route, .. } => {
                let alike = |other: &Route| (other.table, other.destination) == (route.table, route.destination);
                assert!(
                    !here.routes.iter().any(alike),
                    "the kernel refuses a second route to {}",
                    route.destination
                );
                assert!(route.link.as_ref().is_none_or(|link| here.links.contains_key(link)));
                here.routes.insert(route.clone());
            }
            Step::DeleteRoute { route, .. } => assert!(here.routes.remove(route)),
            Step::AddNeighbour { neighbour, .. } => assert!(here.neighbours.insert(neighbour.clone())),
            Step::DeleteNeighbour { neighbour, .. } => assert!(here.neighbours.remove(neighbour)),
            Step::AddAddress { link, address, .. } => {
                assert!(here.links.get_mut(link).unwrap().addresses.insert(*address));
            }
            Step::DeleteAddress { link, address, .. } => {
                assert!(here.links.get_mut(link).unwrap().addresses.remove(address));
            }
            Step::SetUp { link, .. } => {
                let link = here.links.get_mut(link).unwrap();
                (link.up, link.strict) = (true, true);
            }
            Step::DeleteLink { link, .. } => {
                here.links.remove(link).unwrap();
                here.routes.retain(|route| route.link.as_ref() != Some(link));
                here.neighbours.retain(|neighbour| neighbour.link != *link);
            }
            Step::Refuse { .. } | Step::CreateNamespace { .. } | Step::AddPair { .. } | Step::AddTun { .. } => {
                panic!("{step}")
            }
        }
    }
}

/// What a machine shows of the places of a plan: of places that are not the plan's as a whole, its own links only.
fn observe(host: &HostSeen, plan: &BTreeMap<Place, NamespacePlan>) -> HostSeen {
    let one = |(place, want): (&Place, &NamespacePlan)| {
        let mut seen = host.places.get(place)?.clone();
        if want.scope == Scope::Named {
            let own = |name: &LinkName| want.links.contains_key(name);
            seen.links.retain(|name, _| own(name));
            seen.routes.retain(|route| route.link.as_ref().is_some_and(own));
            seen.neighbours.retain(|neighbour| own(&neighbour.link));
            seen.rules.clear();
            seen.tables.retain(|name, _| want.tables.contains_key(name));
        }
        Some((*place, seen))
    };
    HostSeen {
        places: plan.iter().filter_map(one).collect(),
    }
}

fn steps_to(host: &HostSeen, plan: &BTreeMap<Place, NamespacePlan>) -> Vec<Step> {
    diff(&observe(host, plan), plan)
}

fn tape() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(any::<u32>(), 300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 300, ..ProptestConfig::default() })]

    /// A machine that held any VPC, and was interrupted anywhere on its way to another, ends up with that other one.
    #[test]
    fn from_wherever_a_change_was_interrupted_the_next_one_converges(
        first in tape(), second in tape(), share in 0_usize..100,
    ) {
        let (first, second) = (random(&mut Tape::new(&first)), random(&mut Tape::new(&second)));
        let plans = [&first, &second].map(|vpc| compile_vpc(vpc, Some(&edge())));
        prop_assert_eq!(&plans[1], &compile_vpc(&second, Some(&edge())), "the same intent, the same plan");
        let mut host = HostSeen::default();
        let steps = steps_to(&host, &plans[0].places);
        perform(&mut host, &steps);
        prop_assert_eq!(steps_to(&host, &plans[0].places), []);
        let steps = steps_to(&host, &plans[1].places);
        let done = steps.len() * share / 100;
        perform(&mut host, &steps[..done]);
        let rest = steps_to(&host, &plans[1].places);
        perform(&mut host, &rest);
        prop_assert_eq!(steps_to(&host, &plans[1].places), []);
        for (id, interface) in &second.interfaces {
            let Some(plan) = compile_interface(&second, *id) else { continue };
            let steps = steps_to(&host, &plan.places);
            perform(&mut host, &steps);
            prop_assert_eq!(steps_to(&host, &plan.places), [], "{} of {:?}", id, interface.holder);
            prop_assert_eq!(steps_to(&host, &plans[1].places), [], "the VPC's own plan leaves interfaces alone");
        }
    }
}

/// A VPC with one group of so many rules, and that many interfaces that are programs.
fn vpc(rules: u32, interfaces: u8) -> CheckedVpc {
    let base = random(&mut Tape::new(&[]));
    let mut vpc: Vpc = (*base).clone();
    let group = GroupId::of(0);
    let one = |n: u32| GroupRule {
        traffic: Match::Tcp {
            ports: (443, 443).try_into().unwrap(),
        },
        peer: Peer::Block(Ipv4Net::from(Ipv4Addr::from(0xcb00_7100 + n * 2))),
    };
    vpc.groups.get_mut(&group).unwrap().ingress = (0..rules).map(one).collect();
    let interface = |n: u8| {
        let interface = Interface {
            subnet: SubnetId::of(0),
            primary: Ipv4Addr::new(10, 0, 0, 10 + n),
            secondary: BTreeSet::new(),
            groups: [group].into(),
            source_dest_check: true,
            public: None,
            holder: Holder::Program,
        };
        (InterfaceId::of(u128::from(n)), interface)
    };
    vpc.nat_gateways.clear();
    vpc.interfaces = (0..interfaces).map(interface).collect();
    vpc.check().unwrap()
}

fn table(vpc: &CheckedVpc) -> Table {
    compile_vpc(vpc, Some(&edge())).places[&Place::Vpc(vpc.id)].tables[TABLE].clone()
}

#[test]
fn another_interface_costs_the_same_beside_one_rule_and_beside_ten_thousand() {
    let cost = |rules: u32| {
        let before = table(&vpc(rules, 3)).seen();
        let changes = table(&vpc(rules, 4)).changes_from(&before).unwrap();
        let size: usize = changes.iter().map(Change::size).sum();
        let after = vpc(rules, 4);
        let link = compile_interface(&after, InterfaceId::of(3)).unwrap();
        (changes, size, diff(&HostSeen::default(), &link.places).len())
    };
    let (few, many) = (cost(1), cost(10_000));
    assert_eq!(few, many);
    assert_eq!(few.1, 4, "source, destination, owner, membership: {:?}", few.0);
    assert!(few.0.iter().all(|change| matches!(change, Change::AddElements { .. })));
}

#[test]
fn a_large_set_that_changes_is_built_beside_the_old_one_and_swapped() {
    let (before, after) = (table(&vpc(10_000, 2)), table(&vpc(9_999, 2)));
    let changes = after.changes_from(&before.seen()).unwrap();
    let [
        Change::AddSet { name: new, set },
        Change::SetRules { chain, rules },
        Change::DeleteSet { name: old },
    ] = changes.as_slice()
    else {
        panic!("{changes:?}")
    };
    assert_ne!(new, old);
    assert_eq!(set.elements.len(), 9_999);
    assert_eq!(chain, &format!("{}-in", GroupId::of(0)));
    let names = |set: &str| serde_json::to_string(rules).unwrap().contains(&format!("@{set}\""));
    assert!(names(new) && !names(old));
    assert_eq!(changed(before.seen(), &changes), after.seen());
}

#[test]
fn a_table_that_somebody_tampered_with_is_replaced_as_a_whole() {
    let want = table(&vpc(1, 1));
    let mut held = want.seen();
    held.foreign.insert("flowtable f".into());
    assert_eq!(want.changes_from(&held), None);
    let mut held = want.seen();
    held.chains.get_mut("forward").unwrap().base = None;
    assert_eq!(want.changes_from(&held), None);
    assert_eq!(want.changes_from(&want.seen()), Some(Vec::new()), "control");
}

#[test]
fn the_commands_of_a_change_name_chains_before_the_maps_that_lead_to_them() {
    let (before, after) = (table(&vpc(1, 1)), table(&vpc(2, 2)));
    let changes = after.changes_from(&before.seen()).unwrap();
    let commands = crate::ruleset::change::commands(TABLE, &changes);
    assert!(
        commands
            .iter()
            .all(|command| command.to_string().contains("\"table\":\"vpc\""))
    );
    let whole = after.replace_commands(TABLE);
    let place = |noun: &str, last: bool| {
        let mut at = whole
            .iter()
            .enumerate()
            .filter(|(_, one)| one["add"].get(noun).is_some())
            .map(|(at, _)| at);
        if last { at.next_back() } else { at.next() }.unwrap()
    };
    assert!(place("set", true) < place("chain", false) && place("chain", true) < place("map", false));
    assert!(place("map", true) < place("rule", false));
}
