//! Updates in steps and in place.

use super::*;
use crate::settings::Updates;

fn serving(count: u32) -> Lab {
    let mut lab = Lab::new(vec![variant("a", count)]);
    lab.pass(1);
    assert_eq!(lab.endpoint().status, EndpointStatus::InService);
    lab
}

fn counts(lab: &Lab) -> (usize, usize) {
    let endpoint = lab.endpoint();
    let count = |fleet: &Option<Fleet>| {
        fleet
            .iter()
            .flat_map(Fleet::instances)
            .filter(|(_, one)| one.healthy)
            .count()
    };
    (count(&endpoint.active), count(&endpoint.pending))
}

/// Proves: SM-24, AU-26
#[test]
fn a_canary_gets_its_share_until_it_was_looked_at_and_then_the_rest() {
    let mut lab = serving(2);
    lab.shift_to("two", vec![variant("a", 2)], Shift::canary(1000, 60, 30));
    assert_eq!(lab.share_of("two"), 0, "control: before the new fleet is healthy");
    lab.pass(2);
    let share = lab.share_of("two");
    assert!((50..150).contains(&share), "{share}");
    assert_eq!(counts(&lab), (2, 2), "both fleets are whole");
    lab.pass(57);
    assert!(lab.share_of("two") < 150, "not before its time");
    lab.pass(3);
    assert_eq!(lab.share_of("two"), 1000);
    assert_eq!(
        (lab.endpoint().status, counts(&lab)),
        (EndpointStatus::Updating, (2, 2))
    );
    assert_eq!(lab.endpoint().config_name, "one");
    lab.pass(92);
    let endpoint = lab.endpoint();
    assert_eq!(
        (endpoint.status, endpoint.config_name.as_str()),
        (EndpointStatus::InService, "two")
    );
    assert_eq!((lab.running().len(), endpoint.active.unwrap().takeover), (2, None));
}

/// Proves: SM-24
#[test]
fn a_rolling_update_never_has_more_than_a_batch_beyond_the_fleet() {
    let mut lab = serving(4);
    lab.shift_to("two", vec![variant("a", 4)], Shift::rolling(2, 10));
    let mut seen = Vec::new();
    for _ in 0..400 {
        lab.step();
        assert!(lab.pick().is_ok(), "some instance serves at every moment");
        assert!(lab.running().len() <= 6, "a batch of two beside four");
        let now = counts(&lab);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        lab.world.clock.advance(Duration::from_millis(100));
    }
    assert!(
        seen.contains(&(4, 2)) && seen.contains(&(2, 2)) && seen.contains(&(2, 4)),
        "{seen:?}"
    );
    assert_eq!(lab.endpoint().config_name, "two");
    assert_eq!(
        (lab.endpoint().status, counts(&lab)),
        (EndpointStatus::InService, (4, 0))
    );
}

/// Proves: SM-24, AU-29
#[test]
fn a_shift_that_fails_or_takes_too_long_goes_back_to_the_whole_old_fleet() {
    let mut lab = serving(4);
    lab.shift_to("two", vec![variant("a", 4)], Shift::rolling(2, 10));
    lab.pass(5);
    assert_eq!(counts(&lab), (4, 2), "control: the first batch serves");
    let fresh = lab.endpoint().pending.unwrap();
    lab.world.fail("open", "denied:not authorized");
    for _ in 0..400 {
        lab.step();
        assert!(lab.pick().is_ok());
        lab.world.clock.advance(Duration::from_millis(100));
    }
    let endpoint = lab.endpoint();
    let gone = lab.world.lock().removed.clone();
    assert!(fresh.instances().all(|(_, one)| gone.contains(&one.placement.workload)));
    assert_eq!(
        (endpoint.status, endpoint.config_name.as_str()),
        (EndpointStatus::UpdateRollbackFailed, "one")
    );
    let why = endpoint.failure_reason.unwrap().to_string();
    assert!(
        why.contains("not authorized") && why.contains("The roll back failed"),
        "{why}"
    );
    lab.world.mend("open");
    lab.pass(120);
    assert_eq!(
        (lab.endpoint().status, counts(&lab)),
        (EndpointStatus::InService, (4, 0)),
        "it is tried on"
    );

    let mut lab = serving(1);
    lab.shift_to(
        "two",
        vec![variant("a", 1)],
        Shift::canary(1000, 500, 0).within(Some(600)),
    );
    lab.pass(599);
    assert_eq!(lab.endpoint().status, EndpointStatus::Updating, "control");
    lab.pass(5);
    let endpoint = lab.endpoint();
    assert_eq!(
        (endpoint.status, endpoint.config_name.as_str()),
        (EndpointStatus::InService, "one")
    );
    assert!(
        endpoint
            .failure_reason
            .unwrap()
            .to_string()
            .contains("MaximumExecutionTimeoutInSeconds")
    );
    assert_eq!(lab.running().len(), 1);
}

/// Proves: SM-24
#[test]
fn while_an_instance_on_trial_is_replaced_a_step_that_is_due_waits_for_it_and_nobody_looks_again_at_once() {
    let mut lab = serving(1);
    lab.shift_to("two", vec![variant("a", 1)], Shift::canary(1000, 10, 0));
    lab.pass(2);
    assert_eq!(counts(&lab), (1, 1), "control: the canary has its traffic");
    let pending = lab.endpoint().pending.unwrap();
    let (_, one) = pending.instances().next().unwrap();
    let workload = one.placement.workload.clone();
    lab.world.lock().new_answer_ping = false;
    lab.world.exit(&workload, 1);
    lab.pass(12);
    assert_eq!(counts(&lab), (1, 0), "control: its replacement is not healthy");
    let now = lab.world.now();
    let next = lab.step();
    assert!(matches!(next, Next::At(at) if at > now), "{next:?} at {now:?}");
    assert_eq!(lab.endpoint().status, EndpointStatus::Updating);

    lab.world.lock().new_answer_ping = true;
    let mut inner = lab.world.lock();
    inner.containers.values_mut().for_each(|one| one.answers_ping = true);
    drop(inner);
    lab.pass(30);
    assert_eq!(
        (lab.endpoint().status, lab.endpoint().config_name.as_str()),
        (EndpointStatus::InService, "two"),
        "it goes on"
    );
}

/// Proves: AU-28, D-22
#[test]
fn in_place_the_old_fleet_goes_first_once_the_new_one_is_ready_to_start() {
    let mut lab = serving(2).on(Updates::InPlace, None);
    lab.pass(1);
    let old: Vec<WorkloadId> = lab.world.lock().containers.keys().cloned().collect();
    lab.update_to("two", vec![variant("a", 2)]);
    let (mut gap, mut most) = (0, 0);
    for _ in 0..60 {
        lab.step();
        most = most.max(lab.running().len());
        match lab.pick() {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, PickError::NoHealthyInstance, "a 503");
                assert_eq!(lab.endpoint().status, EndpointStatus::Updating);
                gap += 1;
            }
        }
        lab.world.clock.advance(Duration::from_millis(100));
    }
    assert!((1..30).contains(&gap), "{gap}");
    assert_eq!(most, 2, "never both fleets");
    assert_eq!(
        (lab.endpoint().status, lab.endpoint().config_name.as_str()),
        (EndpointStatus::InService, "two")
    );
    assert!(old.iter().all(|workload| lab.world.lock().removed.contains(workload)));
}

/// Proves: AU-28, AU-29
#[test]
fn in_place_what_cannot_even_be_fetched_takes_nothing_down_and_what_does_not_start_brings_the_old_fleet_back() {
    let mut lab = serving(1).on(Updates::InPlace, None);
    lab.pass(1);
    let mut missing = variant("a", 1);
    missing.model.data = Some(ModelData::Archive {
        uri: "s3://models/none.tar.gz".parse().unwrap(),
    });
    lab.update_to("two", vec![missing]);
    for _ in 0..50 {
        lab.step();
        assert!(lab.pick().is_ok(), "no gap");
        lab.world.clock.advance(Duration::from_millis(100));
    }
    assert_eq!(
        (lab.endpoint().status, lab.endpoint().config_name.as_str()),
        (EndpointStatus::InService, "one")
    );
    assert!(lab.endpoint().failure_reason.is_some());

    lab.world.lock().new_answer_ping = false;
    lab.update_to("three", vec![variant("a", 1)]);
    lab.pass(239);
    assert_eq!(
        (lab.endpoint().status, lab.running().len()),
        (EndpointStatus::Updating, 1)
    );
    assert_eq!(lab.pick().unwrap_err(), PickError::NoHealthyInstance);
    lab.world.lock().new_answer_ping = true;
    lab.pass(10);
    assert_eq!(
        (lab.endpoint().status, lab.endpoint().config_name.as_str()),
        (EndpointStatus::InService, "one")
    );
    assert!(
        lab.endpoint()
            .failure_reason
            .unwrap()
            .as_str()
            .contains("did not pass the ping health check")
    );
    assert!(lab.pick().is_ok());
}

/// Proves: AU-27, AU-28, CC-7
#[test]
fn only_where_two_fleets_do_not_fit_is_the_old_one_taken_down() {
    for (vcpus, gap) in [(2, true), (4, false)] {
        let mut lab = Lab::new(vec![variant("a", 1)]).on(Updates::InPlaceWhenFull, Some(vcpus));
        lab.pass(1);
        lab.update_to("two", vec![variant("a", 1)]);
        let mut refused = false;
        for _ in 0..60 {
            lab.step();
            refused |= lab.pick().is_err();
            lab.world.clock.advance(Duration::from_millis(100));
        }
        assert_eq!(refused, gap, "{vcpus} vCPUs");
        assert_eq!(
            (lab.endpoint().status, lab.endpoint().config_name.as_str()),
            (EndpointStatus::InService, "two")
        );
        assert_eq!(lab.deps.scheduler.usage().vcpus, 2);
    }
    // Larger than all there is: nothing is taken down for it.
    let mut lab = Lab::new(vec![variant("a", 1)]).on(Updates::InPlaceWhenFull, Some(2));
    lab.pass(1);
    let mut large = variant("a", 1);
    large.variant.instance_type = "ml.m5.xlarge".into();
    lab.update_to("large", vec![large]);
    for _ in 0..4000 {
        lab.step();
        assert!(lab.pick().is_ok());
        lab.world.clock.advance(Duration::from_millis(100));
    }
    assert_eq!(
        (lab.endpoint().status, lab.endpoint().config_name.as_str()),
        (EndpointStatus::InService, "one")
    );
    assert!(
        lab.endpoint()
            .failure_reason
            .unwrap()
            .as_str()
            .contains("InsufficientInstanceCapacity")
    );
    assert_eq!(lab.deps.scheduler.usage().vcpus, 2);
}

/// Proves: AU-28
#[test]
fn a_new_process_goes_on_with_an_update_in_place() {
    let mut lab = serving(1).on(Updates::InPlace, None);
    lab.pass(1);
    lab.world.lock().new_answer_ping = false;
    lab.update_to("two", vec![variant("a", 1)]);
    lab.pass(5);
    assert_eq!(counts(&lab), (0, 0), "control: in the gap");
    lab = lab.on(Updates::InPlace, None);
    lab.memory = EndpointMemory::default();
    lab.world.lock().new_answer_ping = true;
    lab.world
        .lock()
        .containers
        .values_mut()
        .for_each(|one| one.answers_ping = true);
    lab.pass(3);
    assert_eq!(
        (lab.endpoint().status, lab.endpoint().config_name.as_str()),
        (EndpointStatus::InService, "two")
    );
}
