use super::*;

fn table() -> Table {
    let rule = |why: &str, expr| Rule { why: why.into(), expr };
    Table {
        timeouts: BTreeMap::new(),
        sets: BTreeMap::from([(
            "far".into(),
            Set {
                kind: "ipv4_addr".into(),
                interval: true,
                elements: ["10.0.0.0/8".into(), "192.0.2.1".into()].into(),
                ..Set::default()
            },
        )]),
        chains: vec![
            Chain {
                name: "no".into(),
                base: None,
                rules: vec![rule("no", vec![expr::counter(), expr::drop()])],
            },
            Chain {
                name: "input".into(),
                base: Some(Base {
                    kind: "filter".into(),
                    hook: "input".into(),
                    priority: -5,
                    policy: Policy::Drop,
                }),
                rules: vec![rule("far", vec![expr::to_set("far"), expr::goto("no")])],
            },
        ],
    }
}

/// What `nft -j list ruleset` prints of a table: other order, handles, counters with values.
fn listing(table: &Table) -> Value {
    let mut objects = vec![json!({"metainfo": {"version": "1.0.6", "json_schema_version": 1}})];
    for command in table.replace_commands("t").into_iter().skip(2) {
        let mut object = command["add"].clone();
        let body = object.as_object_mut().unwrap().values_mut().next().unwrap();
        body["handle"] = json!(objects.len());
        if let Some(elements) = body.get_mut("elem").and_then(Value::as_array_mut) {
            elements.reverse();
        }
        objects.push(object);
    }
    json!({ "nftables": objects })
}

#[test]
fn what_was_loaded_is_recognised_when_it_is_listed() {
    let (tables, foreign) = read_listing(&listing(&table())).unwrap();
    assert_eq!(tables, BTreeMap::from([("t".to_owned(), table().seen())]));
    assert!(foreign.is_empty());
}

#[test]
fn every_tampering_with_a_listing_shows() {
    let good = listing(&table());
    let changes: [fn(&mut Vec<Value>); 6] = [
        |objects| objects.retain(|object| object.get("rule").is_none()),
        |objects| {
            objects
                .push(json!({"rule": {"family": "inet", "table": "t", "chain": "input", "expr": [{"accept": null}]}}))
        },
        |objects| {
            objects
                .iter_mut()
                .filter_map(|object| object.get_mut("set"))
                .for_each(|set| set["elem"] = json!(["192.0.2.1"]))
        },
        |objects| {
            let bases = objects
                .iter_mut()
                .filter_map(|object| object.get_mut("chain"))
                .filter(|chain| chain.get("policy").is_some());
            bases.for_each(|chain| chain["policy"] = json!("accept"));
        },
        |objects| {
            objects
                .iter_mut()
                .filter_map(|object| object.get_mut("rule"))
                .for_each(|rule| rule["comment"] = json!("far #0"))
        },
        |objects| objects.push(json!({"map": {"family": "inet", "table": "t", "name": "m"}})),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut listed = good.clone();
        change(listed["nftables"].as_array_mut().unwrap());
        assert_ne!(listed, good, "change {at} changes something");
        let (tables, _) = read_listing(&listed).unwrap();
        assert_ne!(tables.get("t"), Some(&table().seen()), "change {at} was not noticed");
    }
}

#[test]
fn rules_that_differ_have_marks_that_differ() {
    let one = Rule {
        why: "same".into(),
        expr: vec![expr::to_port("tcp", 80), expr::accept()],
    };
    let other = Rule {
        why: "same".into(),
        expr: vec![expr::to_port("tcp", 443), expr::accept()],
    };
    assert_ne!(one.mark(), other.mark());
}

#[test]
fn tables_of_other_families_are_named_as_foreign() {
    let listing = json!({"nftables": [{"table": {"family": "ip", "name": "nat", "handle": 1}}]});
    let (tables, foreign) = read_listing(&listing).unwrap();
    assert!(tables.is_empty());
    assert_eq!(foreign, BTreeSet::from(["nftables table ip nat".to_owned()]));
}

#[test]
fn a_listing_that_is_none_is_an_error() {
    for bad in [
        json!({}),
        json!({"nftables": [{}]}),
        json!({"nftables": [{"chain": {"name": "x"}}]}),
        json!([1]),
    ] {
        assert!(read_listing(&bad).is_err(), "{bad}");
    }
}
