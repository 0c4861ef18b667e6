use super::*;
use crate::intent::Reach;
use crate::plan::{Link, LinkName, Route, RouteKind};
use crate::ruleset::{Policy, transaction};
use proptest::prelude::*;

fn network(uplink: Uplink) -> HostNetwork {
    HostNetwork {
        uplink,
        platform: "100.64.0.0/16".parse().unwrap(),
        services: "198.18.0.0/17".parse().unwrap(),
        s3_prefix_list: "198.18.128.0/20".parse().unwrap(),
        uplink_links: "169.254.64.0/18".parse().unwrap(),
        elastic_ips: "198.19.0.0/16".parse().unwrap(),
        nat_idle: HostNetwork::NAT_IDLE,
    }
}

fn tag() -> Tag {
    Tag::of(0x00c0_ffee)
}

fn uplinks() -> [Uplink; 3] {
    [
        Uplink::None,
        Uplink::Host,
        Uplink::Netns {
            path: "/run/netns/internet".into(),
        },
    ]
}

fn workload(reach: Reach) -> WorkloadNetwork {
    WorkloadNetwork {
        workload: "w-0123456789abcdef0".parse().unwrap(),
        reach,
    }
}

#[test]
fn the_platform_ruleset_is_as_reviewed() {
    let plan = compile_host(&network(Uplink::Host), &tag()).unwrap();
    let commands = |place: Place| {
        plan.places[&place]
            .tables
            .iter()
            .flat_map(|(name, table)| table.replace_commands(name))
            .collect::<Vec<_>>()
    };
    let lines = |place: Place| {
        let transaction = transaction(commands(place));
        let commands = transaction["nftables"].as_array().unwrap();
        commands.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!("platform_ruleset", lines(Place::Platform));
    insta::assert_snapshot!("host_ruleset", lines(Place::Host));
}

#[test]
fn the_plans_are_as_reviewed() {
    let bare = |mut plan: NamespacePlan| {
        plan.tables.clear();
        serde_json::to_string_pretty(&plan).unwrap()
    };
    let host = compile_host(&network(Uplink::Netns { path: "/x".into() }), &tag()).unwrap();
    for (place, plan) in host.places {
        insta::assert_snapshot!(format!("plan_{place:?}").to_lowercase(), bare(plan));
    }
    let reach = Reach::ServiceNetwork {
        address: Ipv4Addr::new(100, 64, 0, 10),
    };
    let connected = compile_workload(&network(Uplink::None), &workload(reach)).unwrap();
    for (place, plan) in connected.places {
        insta::assert_snapshot!(format!("plan_connected_{place:?}").to_lowercase(), bare(plan));
    }
}

/// Proves: NI-6, NI-11
#[test]
fn isolation_compiles_to_loopback_alone_whatever_the_network_is() {
    for uplink in uplinks() {
        let plan = compile_workload(&network(uplink), &workload(Reach::Nothing)).unwrap();
        assert_eq!(plan, compile_nothing());
    }
    let plan = compile_nothing();
    assert_eq!(plan.places.keys().collect::<Vec<_>>(), [&Place::Workload]);
    let inside = &plan.places[&Place::Workload];
    assert_eq!(inside.links.keys().collect::<Vec<_>>(), [&LinkName::lo()]);
    assert!(inside.routes.is_empty() && inside.neighbours.is_empty() && inside.rules.is_empty());
    assert_eq!(inside.scope, Scope::Whole { attachments: false });
}

/// Proves: NI-8, NI-25
#[test]
fn every_private_and_reserved_address_is_in_the_refused_set() {
    for uplink in uplinks() {
        let plan = compile_host(&network(uplink), &tag()).unwrap();
        let table = &plan.places[&Place::Platform].tables["platform"];
        let refused: Vec<Ipv4Net> = table.sets["refused"]
            .elements
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let inside = |text: &str| {
            refused
                .iter()
                .any(|range| range.contains(&text.parse::<Ipv4Addr>().unwrap()))
        };
        for address in [
            "10.0.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "169.254.170.2",
            "127.0.0.1",
            "100.64.0.10",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
        ] {
            assert!(inside(address), "{address}");
        }
        for address in [
            "203.0.113.10",
            "198.51.100.53",
            "192.0.2.80",
            "8.8.8.8",
            "172.32.0.1",
            "192.169.0.1",
            "198.20.0.1",
        ] {
            assert!(!inside(address), "control: {address} is the internet");
        }
    }
}

#[test]
fn the_router_drops_what_no_rule_lets_through() {
    let plan = compile_host(&network(Uplink::Host), &tag()).unwrap();
    let table = &plan.places[&Place::Platform].tables["platform"];
    for hook in ["input", "forward"] {
        let policies: Vec<Policy> = table
            .chains
            .iter()
            .filter_map(|chain| chain.base.as_ref())
            .filter(|base| base.hook == hook)
            .map(|base| base.policy)
            .collect();
        assert_eq!(policies, [Policy::Drop], "{hook}");
    }
}

#[test]
fn nothing_of_the_host_is_planned_unless_it_is_the_uplink() {
    for uplink in uplinks() {
        let is_host = uplink == Uplink::Host;
        let plan = compile_host(&network(uplink), &tag()).unwrap();
        assert_eq!(plan.places.contains_key(&Place::Host), is_host);
    }
}

#[test]
fn addresses_that_stay_with_the_platform_are_no_workloads() {
    let network = network(Uplink::None);
    for bad in [
        "100.64.0.0",
        "100.64.0.1",
        "100.64.0.2",
        "100.64.0.3",
        "100.64.255.255",
        "100.65.0.10",
        "10.0.0.10",
    ] {
        let reach = Reach::ServiceNetwork {
            address: bad.parse().unwrap(),
        };
        assert!(
            matches!(
                compile_workload(&network, &workload(reach)),
                Err(BadNetwork::Address(..))
            ),
            "{bad}"
        );
    }
    let reach = Reach::ServiceNetwork {
        address: "100.64.0.4".parse().unwrap(),
    };
    compile_workload(&network, &workload(reach)).expect("control");
}

#[test]
fn contradicting_ranges_are_refused_with_the_names_of_their_keys() {
    let with = |change: fn(&mut HostNetwork)| {
        let mut network = network(Uplink::Host);
        change(&mut network);
        compile_host(&network, &tag()).unwrap_err().to_string()
    };
    let overlap = with(|network| network.platform = "198.18.0.0/16".parse().unwrap());
    assert!(
        overlap.contains("platform") && overlap.contains("services"),
        "{overlap}"
    );
    let metadata = with(|network| network.uplink_links = "169.254.0.0/16".parse().unwrap());
    assert!(
        metadata.contains("uplink_links") && metadata.contains("169.254.169.254"),
        "{metadata}"
    );
    assert!(with(|network| network.services = "127.1.0.0/16".parse().unwrap()).contains("127.0.0.0/8"));
    assert!(with(|network| network.platform = "100.64.0.0/29".parse().unwrap()).contains("/28"));
    assert!(with(|network| network.uplink_links = "169.254.64.0/31".parse().unwrap()).contains("/29"));
}

#[test]
fn ranges_that_overlap_a_route_of_the_host_are_refused_when_the_host_is_the_uplink() {
    let routes: BTreeSet<Ipv4Net> = ["0.0.0.0/0", "100.64.0.0/10", "203.0.113.0/24"]
        .map(|text| text.parse().unwrap())
        .into();
    let clash = network(Uplink::Host).check_host_routes(&routes).unwrap_err();
    assert!(
        clash.to_string().contains("platform") && clash.to_string().contains("100.64.0.0/10"),
        "{clash}"
    );
    network(Uplink::None)
        .check_host_routes(&routes)
        .expect("a router of its own shares no table with the host");
    let free: BTreeSet<Ipv4Net> = ["0.0.0.0/0", "203.0.113.0/24"].map(|text| text.parse().unwrap()).into();
    network(Uplink::Host).check_host_routes(&free).expect("control");
}

fn any_range() -> impl Strategy<Value = Ipv4Net> {
    (any::<u32>(), 0_u8..=32).prop_map(|(address, len)| Ipv4Net::new(address.into(), len).unwrap())
}

fn any_network() -> impl Strategy<Value = HostNetwork> {
    let uplink = prop_oneof![
        Just(Uplink::None),
        Just(Uplink::Host),
        Just(Uplink::Netns { path: "/x".into() })
    ];
    (uplink, any_range(), any_range(), any_range(), any_range(), any_range()).prop_map(
        |(uplink, platform, services, s3_prefix_list, uplink_links, elastic_ips)| HostNetwork {
            nat_idle: HostNetwork::NAT_IDLE,
            uplink,
            platform,
            services,
            s3_prefix_list,
            uplink_links,
            elastic_ips,
        },
    )
}

fn overlaps(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    let (a, b) = (
        (u32::from(a.network()), u32::from(a.broadcast())),
        (u32::from(b.network()), u32::from(b.broadcast())),
    );
    a.0 <= b.1 && b.0 <= a.1
}

proptest! {
    #[test]
    fn compiling_is_total_and_what_it_accepts_is_consistent(network in any_network(), address in any::<u32>()) {
        let tag = tag();
        if let Ok(plan) = compile_host(&network, &tag) {
            prop_assert_eq!(&plan, &compile_host(&network, &tag).unwrap());
            let ranges = [network.platform, network.services, network.s3_prefix_list, network.uplink_links];
            for (at, range) in ranges.iter().enumerate() {
                for other in &ranges[at + 1..] {
                    prop_assert!(!overlaps(range, other));
                }
                prop_assert!(!range.contains(&CREDENTIALS));
            }
            prop_assert!(network.platform.contains(&network.resolver()));
            // nft refuses interval sets whose elements overlap.
            for table in plan.places.values().flat_map(|place| place.tables.values()) {
                for set in table.sets.values() {
                    let elements: Vec<Ipv4Net> =
                        set.elements.iter().map(|text| text.parse().or_else(|_| text.parse().map(|one: Ipv4Addr| one.into())).unwrap()).collect();
                    for (at, one) in elements.iter().enumerate() {
                        prop_assert!(elements[at + 1..].iter().all(|other| !overlaps(one, other)), "{:?}", elements);
                    }
                }
            }
        }
        // Any address, any network: an answer, never a panic; and no plan for an address outside the platform network.
        let reach = Reach::ServiceNetwork { address: address.into() };
        let compiled = compile_workload(&network, &workload(reach));
        prop_assert!(compiled.is_err() || network.platform.contains(&Ipv4Addr::from(address)));
    }

    #[test]
    fn no_two_workloads_share_a_name_or_a_hardware_address(a in 4_u32..65535, b in 4_u32..65535) {
        prop_assume!(a != b);
        let network = network(Uplink::None);
        let compiled = [a, b].map(|host| {
            let address = Ipv4Addr::from(u32::from(network.platform.network()) + host);
            compile_workload(&network, &workload(Reach::ServiceNetwork { address })).unwrap()
        });
        let ends = compiled.each_ref().map(|plan| plan.places[&Place::Platform].links.iter().next().unwrap());
        prop_assert_ne!(ends[0].0, ends[1].0);
        prop_assert_ne!(ends[0].1.mac, ends[1].1.mac);
        for plan in &compiled {
            let inside = &plan.places[&Place::Workload];
            let addresses: Vec<&Link> = inside.links.values().filter(|link| !link.addresses.is_empty()).collect();
            prop_assert_eq!(addresses.len(), 1);
            let only_through_the_router = |route: &Route| route.kind == RouteKind::Unicast && route.via == Some(network.gateway());
            prop_assert!(inside.routes.iter().all(only_through_the_router));
        }
    }
}

#[test]
fn a_plan_survives_the_socket() {
    let plan = compile_host(&network(Uplink::Host), &tag()).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<HostPlan>(&text).unwrap(), plan);
    for bad in ["", "ABCDEF01", "0123456", "012345678", "0123456g"] {
        assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
    }
}
