use super::*;
use crate::compile::{Tag, compile_host};
use crate::intent::{HostNetwork, Uplink};
use crate::plan::HostPlan;

fn plan(uplink: Uplink) -> HostPlan {
    let network = HostNetwork {
        uplink,
        platform: "100.64.0.0/16".parse().unwrap(),
        services: "198.18.0.0/17".parse().unwrap(),
        s3_prefix_list: "198.18.128.0/20".parse().unwrap(),
        uplink_links: "169.254.64.0/18".parse().unwrap(),
        elastic_ips: "198.19.0.0/16".parse().unwrap(),
        nat_idle: HostNetwork::NAT_IDLE,
    };
    compile_host(&network, &Tag::of(1)).unwrap()
}

/// What a machine shows that holds a plan.
fn held(plan: &HostPlan) -> HostSeen {
    let link_seen = |link: &Link| LinkSeen {
        kind: if link.kind == LinkKind::Loopback {
            KindSeen::Loopback
        } else {
            KindSeen::Veth
        },
        up: true,
        strict: true,
        mac: link.mac,
        addresses: link.addresses.clone(),
    };
    let places = plan.places.iter().map(|(place, want)| {
        let seen = NamespaceSeen {
            sysctls: want
                .sysctls
                .iter()
                .chain(want.links.values().flat_map(|link| &link.sysctls))
                .map(|(a, b)| (a.clone(), b.clone()))
                .collect(),
            links: want
                .links
                .iter()
                .map(|(name, link)| (name.clone(), link_seen(link)))
                .collect(),
            neighbours: want.neighbours.clone(),
            routes: want.routes.clone(),
            rules: want.rules.clone(),
            tables: want
                .tables
                .iter()
                .map(|(name, table)| (name.clone(), table.seen()))
                .collect(),
            foreign: BTreeSet::new(),
        };
        (*place, seen)
    });
    HostSeen {
        places: places.collect(),
    }
}

#[test]
fn nothing_is_to_do_where_the_plan_is_held() {
    for uplink in [Uplink::None, Uplink::Host, Uplink::Netns { path: "/x".into() }] {
        let plan = plan(uplink);
        assert_eq!(diff(&held(&plan), &plan.places), []);
    }
}

#[test]
fn rules_come_before_interfaces_and_forwarding() {
    let steps = diff(&HostSeen::default(), &plan(Uplink::Host).places);
    let first = |wanted: fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
    let last_table = steps
        .iter()
        .rposition(|step| matches!(step, Step::ReplaceTable { .. }))
        .unwrap();
    assert!(
        last_table < first(|step| matches!(step, Step::SetSysctl { .. })),
        "{steps:?}"
    );
    assert!(last_table < first(|step| matches!(step, Step::AddPair { .. })));
    assert!(last_table < first(|step| matches!(step, Step::SetUp { .. })));
    assert!(matches!(steps.first(), Some(Step::CreateNamespace { .. })));
}

#[test]
fn a_pair_that_lost_an_end_is_made_anew_with_all_that_hung_on_it() {
    let plan = plan(Uplink::Host);
    let mut seen = held(&plan);
    let name = plan.places[&Place::Host].links.keys().next().unwrap().clone();
    seen.places.get_mut(&Place::Host).unwrap().links.remove(&name);
    let steps = diff(&seen, &plan.places);
    let deleted: Vec<_> = steps
        .iter()
        .filter(|step| matches!(step, Step::DeleteLink { .. }))
        .collect();
    assert_eq!(deleted.len(), 1, "the end that is left: {steps:?}");
    assert_eq!(
        steps.iter().filter(|step| matches!(step, Step::AddPair { .. })).count(),
        1
    );
    let default = |step: &&Step| matches!(step, Step::AddRoute { route, .. } if route.destination.prefix_len() == 0);
    assert!(
        steps.iter().any(|step| default(&step)),
        "the default route went with its interface"
    );
}

#[test]
fn workloads_come_and_go_without_the_shared_plan_noticing() {
    let plan = plan(Uplink::None);
    let mut seen = held(&plan);
    let platform = seen.places.get_mut(&Place::Platform).unwrap();
    let name = LinkName::of_workload(Ipv4Addr::new(100, 64, 0, 10));
    let link = LinkSeen {
        kind: KindSeen::Veth,
        up: true,
        strict: true,
        mac: None,
        addresses: BTreeSet::new(),
    };
    platform.links.insert(name.clone(), link.clone());
    platform.routes.insert(Route {
        kind: crate::plan::RouteKind::Unicast,
        destination: "100.64.0.10/32".parse().unwrap(),
        table: Route::MAIN,
        link: Some(name),
        via: None,
        source: None,
    });
    assert_eq!(diff(&seen, &plan.places), []);

    let platform = seen.places.get_mut(&Place::Platform).unwrap();
    platform.links.insert("stray0".parse().unwrap(), link);
    let steps = diff(&seen, &plan.places);
    assert!(
        matches!(steps.as_slice(), [Step::DeleteLink { .. }]),
        "control: another interface is removed: {steps:?}"
    );
}

#[test]
fn what_no_plan_makes_is_refused_first() {
    let plan = plan(Uplink::None);
    let mut seen = held(&plan);
    seen.places
        .get_mut(&Place::Platform)
        .unwrap()
        .foreign
        .insert("an IPv6 route".into());
    seen.places.get_mut(&Place::Platform).unwrap().routes.clear();
    let steps = diff(&seen, &plan.places);
    assert!(matches!(steps.first(), Some(Step::Refuse { .. })), "{steps:?}");
}

#[test]
fn on_the_host_everything_that_is_not_named_is_somebody_elses() {
    let plan = plan(Uplink::Host);
    let mut seen = held(&plan);
    let host = seen.places.get_mut(&Place::Host).unwrap();
    let other = LinkSeen {
        kind: KindSeen::Veth,
        up: true,
        strict: true,
        mac: None,
        addresses: BTreeSet::new(),
    };
    host.links.insert("docker0".parse().unwrap(), other);
    host.tables
        .insert("firewall".into(), crate::ruleset::TableSeen::default());
    host.foreign.insert("an IPv6 route".into());
    assert_eq!(diff(&seen, &plan.places), []);
}
