//! One contract for the kernel and for the fake: what holds of one holds of the other.

use super::*;
use crate::fake::FakeHost;
use crate::net_host::verify;
use isolarium_netplan::compile_host;
use isolarium_netplan::diff;
use isolarium_netplan::plan::HostSeen;

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
    compile_host(&network, &Tag::of(0xabcd)).unwrap()
}

fn both(work: fn(&mut dyn Machine)) {
    let handle = || Arc::new(Handle::open(netns::within_fresh(|fd| fd).unwrap()).unwrap());
    let places = [Place::Platform, Place::Uplink];
    work(&mut KernelHost {
        places: places.map(|place| (place, handle())).into(),
        ..KernelHost::default()
    });
    work(&mut FakeHost::with(&places));
}

/// [`NetHost`] behind a pointer, so that one text serves both.
trait Machine {
    fn observe(&mut self, plan: &HostPlan) -> HostSeen;
    fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError>;
    fn converge(&mut self, plan: &HostPlan) -> Result<(), ApplyError>;
    fn verify(&mut self, plan: &HostPlan) -> Result<(), ApplyError>;
}

impl<H: NetHost> Machine for H {
    fn observe(&mut self, plan: &HostPlan) -> HostSeen {
        NetHost::observe(self, &plan.places).unwrap()
    }
    fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        NetHost::apply(self, steps)
    }
    fn converge(&mut self, plan: &HostPlan) -> Result<(), ApplyError> {
        crate::converge(self, &plan.places)
    }
    fn verify(&mut self, plan: &HostPlan) -> Result<(), ApplyError> {
        verify(self, &plan.places)
    }
}

fn uplink() -> Uplink {
    Uplink::Netns { path: "/unused".into() }
}

#[test]
fn converging_holds_the_plan_and_twice_is_once() {
    both(|machine| {
        let plan = plan(uplink());
        assert!(machine.verify(&plan).is_err(), "control: nothing is there at first");
        machine.converge(&plan).unwrap();
        let seen = machine.observe(&plan);
        assert_eq!(diff(&seen, &plan.places), []);
        machine.converge(&plan).unwrap();
        assert_eq!(machine.observe(&plan), seen);
    });
}

#[test]
fn an_interrupted_run_is_completed_by_the_next() {
    let steps = {
        let mut fake = FakeHost::with(&[Place::Platform, Place::Uplink]);
        let plan = plan(uplink());
        diff(&Machine::observe(&mut fake, &plan), &plan.places).len()
    };
    // The kernel takes a process for each table, so it is stopped at fewer places.
    for stop in (0..steps).step_by(3) {
        STOP.with(|place| place.set(stop));
        both(|machine| {
            let plan = plan(uplink());
            let steps = diff(&machine.observe(&plan), &plan.places);
            // A kernel has some settings from the start that the machine in memory has to be told.
            let stop = STOP.with(std::cell::Cell::get).min(steps.len());
            machine.apply(&steps[..stop]).unwrap();
            machine.converge(&plan).unwrap();
        });
    }
}

thread_local! {
    static STOP: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[test]
fn a_plan_without_uplink_removes_the_uplink() {
    both(|machine| {
        machine.converge(&plan(uplink())).unwrap();
        let without = plan(Uplink::None);
        machine.converge(&without).unwrap();
        let seen = machine.observe(&plan(uplink()));
        let links: Vec<usize> = seen.places.values().map(|here| here.links.len()).collect();
        assert!(links.iter().all(|count| *count <= 1), "{seen:?}");
        assert_eq!(links.first(), Some(&1));
    });
}

#[test]
fn what_went_missing_comes_back_and_what_is_too_much_goes() {
    both(|machine| {
        let plan = plan(uplink());
        machine.converge(&plan).unwrap();
        let place = Place::Platform;
        let want = &plan.places[&place];
        let route = want
            .routes
            .iter()
            .find(|route| route.destination.prefix_len() == 0)
            .unwrap()
            .clone();
        let address = want.links[&LinkName::lo()].addresses.iter().next().copied().unwrap();
        let stray = "100.64.0.77".parse().unwrap();
        let rule = isolarium_netplan::plan::PolicyRule {
            mark: None,
            priority: 200,
            from: Some("10.0.0.0/8".parse().unwrap()),
            table: 77,
        };
        machine
            .apply(&[
                Step::DeleteRoute { place, route },
                Step::DeleteAddress {
                    place,
                    link: LinkName::lo(),
                    address,
                },
                Step::AddAddress {
                    place,
                    link: LinkName::lo(),
                    address: stray,
                },
                Step::AddRule { place, rule },
                Step::DeleteTable {
                    place,
                    name: "platform".into(),
                },
                Step::SetSysctl {
                    place,
                    path: "net/ipv4/conf/all/send_redirects".into(),
                    value: "1".into(),
                },
            ])
            .unwrap();
        let Err(ApplyError::Drift(left)) = machine.verify(&plan) else {
            panic!("nobody noticed")
        };
        assert_eq!(left.len(), 6, "{left:?}");
        machine.converge(&plan).unwrap();
    });
}

#[test]
fn a_refused_step_stops_the_run_and_is_named() {
    both(|machine| {
        let place = Place::Platform;
        let bad = Step::SetUp {
            place,
            link: "absent0".parse().unwrap(),
        };
        let error = machine
            .apply(&[
                Step::SetUp {
                    place,
                    link: LinkName::lo(),
                },
                bad.clone(),
            ])
            .unwrap_err();
        assert!(
            matches!(error, ApplyError::Refused { ref step, .. } if **step == bad),
            "{error:?}"
        );
        let foreign = Step::Refuse {
            place,
            what: "a bridge".into(),
        };
        assert!(matches!(machine.apply(&[foreign]), Err(ApplyError::Foreign { .. })));
    });
}

#[test]
fn a_fake_fails_when_it_is_told_to() {
    let mut fake = FakeHost::with(&[Place::Platform, Place::Uplink]);
    fake.fail_after = Some(2);
    assert!(matches!(
        Machine::converge(&mut fake, &plan(uplink())),
        Err(ApplyError::Refused { .. })
    ));
}
