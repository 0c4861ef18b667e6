use super::*;
use crate::kernel::{netns, nft};
use isolarium_netplan::ruleset::{Chain, Set, read_listing, transaction};

fn set(kind: &str, data: Option<&str>) -> Set {
    Set {
        kind: kind.into(),
        data: data.map(Into::into),
        ..Set::default()
    }
}

fn table() -> Table {
    let chain = |name: &str| Chain {
        name: name.into(),
        base: None,
        rules: Vec::new(),
    };
    let sets = [
        ("a", set("ipv4_addr", None)),
        ("b", set("ifname . ipv4_addr", None)),
        ("c", set("ifname", Some("verdict"))),
        ("d", set("ipv4_addr", Some("ipv4_addr"))),
        ("e", set("ifname", None)),
    ];
    Table {
        timeouts: Default::default(),
        sets: sets.map(|(name, set)| (name.to_owned(), set)).into(),
        chains: vec![chain("one"), chain("two")],
    }
}

fn changes(verb: fn(String, BTreeSet<String>) -> Change) -> Vec<Change> {
    let all = [
        ("a", vec!["10.0.0.1", "255.255.255.255"]),
        ("b", vec!["w00000000000001 . 10.0.0.1", "w00000000000002 . 10.0.0.2"]),
        ("c", vec!["w00000000000001 : goto one", "w00000000000002 : goto two"]),
        ("d", vec!["198.19.0.1 : 10.0.0.1"]),
        ("e", vec!["w00000000000003"]),
    ];
    let sets = all.into_iter();
    sets.map(|(set, elements)| verb(set.into(), elements.into_iter().map(String::from).collect()))
        .collect()
}

fn add(set: String, elements: BTreeSet<String>) -> Change {
    Change::AddElements { set, elements }
}

fn delete(set: String, elements: BTreeSet<String>) -> Change {
    Change::DeleteElements { set, elements }
}

/// `nft` reads what netlink wrote, element for element, and a stale generation changes nothing.
#[test]
fn elements_written_by_netlink_are_those_that_nft_lists() {
    let handle = Handle::open(netns::within_fresh(|fd| fd).unwrap()).unwrap();
    let mut table = table();
    let load = transaction(table.replace_commands("t"));
    handle.run(|| nft::load(&load)).unwrap().unwrap();
    let generation = handle.netfilter().unwrap().generation().unwrap();
    let adding = Elements::of(&table, &changes(add)).unwrap();
    assert!(!adding.stand(&handle, "t").unwrap(), "control: nothing is there yet");
    assert!(
        adding.apply(&handle, "t", generation - 1).is_err(),
        "somebody else came first"
    );
    assert!(!adding.stand(&handle, "t").unwrap());
    adding.apply(&handle, "t", generation).unwrap();
    assert!(adding.stand(&handle, "t").unwrap());
    let listed = || {
        let listing = handle.run(|| nft::list(Some("t"))).unwrap().unwrap().unwrap();
        read_listing(&listing).unwrap().0.remove("t").unwrap().sets
    };
    for change in changes(add) {
        if let Change::AddElements { set, elements } = change {
            table.sets.get_mut(&set).unwrap().elements = elements;
        }
    }
    assert_eq!(listed(), table.seen().sets);

    let generation = handle.netfilter().unwrap().generation().unwrap();
    assert!(
        adding.apply(&handle, "t", generation).is_err(),
        "they are there already"
    );
    assert_eq!(listed(), table.seen().sets, "a refused transaction changes nothing");
    let generation = handle.netfilter().unwrap().generation().unwrap();
    let deleting = Elements::of(&table, &changes(delete)).unwrap();
    deleting.apply(&handle, "t", generation).unwrap();
    assert!(deleting.stand(&handle, "t").unwrap() && !adding.stand(&handle, "t").unwrap());
    assert!(listed().values().all(BTreeSet::is_empty));
}

#[test]
fn what_needs_more_than_elements_is_left_to_nft() {
    let mut table = table();
    let only = |change: Change, table: &Table| Elements::of(table, &[change]).is_some();
    let elements = |text: &str| BTreeSet::from([text.to_owned()]);
    assert!(only(add("a".into(), elements("10.0.0.1")), &table), "control");
    assert!(!only(add("a".into(), elements("10.0.0.0/24")), &table));
    assert!(!only(add("c".into(), elements("w1 : jump one")), &table));
    assert!(!only(add("e".into(), elements("w*")), &table));
    assert!(!only(add("none".into(), elements("10.0.0.1")), &table));
    assert!(!only(Change::AddChain { name: "x".into() }, &table));
    let many = (0..600_u32).map(|n| Ipv4Addr::from(n).to_string()).collect();
    assert!(!only(add("a".into(), many), &table));
    table.sets.get_mut("a").unwrap().interval = true;
    assert!(!only(add("a".into(), elements("10.0.0.1")), &table));
}
