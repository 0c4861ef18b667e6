use super::*;

const ONE: Amount = Amount {
    vcpus: 2,
    memory_mib: 8192,
    accelerators: 0,
};

fn machine(vcpus: u64) -> Queue {
    Queue::new(Capacity {
        vcpus: Some(vcpus),
        ..Capacity::default()
    })
}

fn owner(account: &str, name: &str) -> Owner {
    let scope = isolarium_model::Scope {
        account: account.repeat(12).parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    };
    Owner {
        kind: "job",
        key: Key::folded(&scope, name),
    }
}

fn workload(number: u64) -> WorkloadId {
    format!("w-{number:017x}").parse().unwrap()
}

/// `count` instances of 2 vCPUs; their workloads are numbered from `first`.
fn request(owner: &Owner, since: i64, first: u64, count: u64) -> Request {
    Request {
        owner: owner.clone(),
        since: Timestamp(since),
        instances: Wanted::each((first..first + count).map(workload), "ml.m5.large", ONE),
    }
}

fn ask(queue: &mut Queue, request: Request) -> Answer {
    let mut granted = Vec::new();
    let answer = queue.ask(request, &mut granted);
    assert_eq!(granted, [], "nobody else gets room by a request");
    answer
}

fn names(owners: &[Owner]) -> Vec<String> {
    owners.iter().map(|owner| owner.key.name.to_string()).collect()
}

/// Proves: CC-7
#[test]
fn a_full_machine_lets_requests_wait_and_gives_room_in_their_order() {
    let mut queue = machine(4);
    let jobs: Vec<Owner> = ["a", "b", "c", "d"].map(|name| owner("1", name)).into();
    assert_eq!(ask(&mut queue, request(&jobs[0], 1, 0, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, request(&jobs[1], 2, 1, 1)), Answer::Granted);
    // The later one asks first, as after a restart.
    assert_eq!(ask(&mut queue, request(&jobs[3], 4, 3, 1)), Answer::Waits);
    assert_eq!(ask(&mut queue, request(&jobs[2], 3, 2, 1)), Answer::Waits);
    assert_eq!(
        ask(&mut queue, request(&jobs[3], 4, 3, 1)),
        Answer::Waits,
        "asking again changes nothing"
    );
    assert_eq!(queue.admit(), [], "control: there is no room");
    queue.release(&workload(1));
    assert_eq!(names(&queue.admit()), ["c"]);
    assert_eq!(ask(&mut queue, request(&jobs[2], 3, 2, 1)), Answer::Granted);
    queue.leave(&jobs[0]);
    assert_eq!(names(&queue.admit()), ["d"]);
    assert_eq!(queue.total().vcpus, 4);
    for job in &jobs {
        queue.leave(job);
    }
    assert_eq!(
        (queue.total(), queue.held().len(), queue.by_account.len()),
        (Amount::default(), 0, 0)
    );
}

#[test]
fn several_instances_get_room_together_and_are_not_overtaken() {
    let mut queue = machine(6);
    let (small, large, later) = (owner("1", "small"), owner("1", "large"), owner("1", "later"));
    assert_eq!(ask(&mut queue, request(&small, 1, 0, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, request(&large, 2, 10, 3)), Answer::Waits);
    assert_eq!(
        ask(&mut queue, request(&later, 3, 20, 1)),
        Answer::Waits,
        "there is room, but it is not its turn"
    );
    assert!(!queue.held().contains_key(&workload(10)), "none has got room alone");
    queue.leave(&small);
    assert_eq!(names(&queue.admit()), ["large"]);
    queue.leave(&large);
    assert_eq!(names(&queue.admit()), ["later"]);
}

#[test]
fn what_never_fits_is_told_at_once() {
    let mut queue = machine(4);
    assert_eq!(ask(&mut queue, request(&owner("1", "big"), 1, 0, 3)), Answer::Never);
    assert_eq!(
        ask(&mut queue, request(&owner("1", "fits"), 2, 10, 2)),
        Answer::Granted,
        "control"
    );
    let mut half = Queue::new(Capacity {
        memory_mib: Some(32_768),
        account_percent: 50,
        ..Capacity::default()
    });
    assert_eq!(ask(&mut half, request(&owner("1", "big"), 1, 0, 3)), Answer::Never);
    assert_eq!(
        ask(&mut half, request(&owner("1", "fits"), 2, 10, 2)),
        Answer::Granted,
        "control"
    );
    assert_eq!(
        ask(&mut half, request(&owner("1", "more"), 3, 20, 1)),
        Answer::Waits,
        "the account has its part"
    );
    assert_eq!(
        ask(&mut half, request(&owner("2", "other"), 4, 30, 2)),
        Answer::Granted,
        "another has its own"
    );
}

#[test]
fn an_account_with_a_long_queue_does_not_starve_another() {
    let mut queue = machine(8);
    for number in 0..20u64 {
        let job = owner("1", &format!("a{number:02}"));
        ask(&mut queue, request(&job, 1, number, 1));
    }
    assert_eq!(ask(&mut queue, request(&owner("2", "b0"), 2, 100, 1)), Answer::Waits);
    assert_eq!(ask(&mut queue, request(&owner("2", "b1"), 3, 101, 1)), Answer::Waits);
    assert_eq!(ask(&mut queue, request(&owner("2", "b2"), 3, 102, 1)), Answer::Waits);
    let order: Vec<Owner> = queue.order().into_iter().map(|request| request.owner).collect();
    assert_eq!(
        names(&order)[..4],
        ["b0", "b1", "b2", "a04"],
        "the other account first, until it holds as much"
    );
    let mut granted = Vec::new();
    for number in 0..6 {
        queue.release(&workload(number));
        granted.extend(queue.admit());
    }
    assert_eq!(
        names(&granted),
        ["b0", "b1", "a04", "a05", "a06", "a07"],
        "both hold half of the machine"
    );
    queue.release(&workload(100));
    assert_eq!(names(&queue.admit()), ["b2"]);
}

#[test]
fn a_replacement_keeps_the_room_and_what_runs_is_counted_whatever_there_is() {
    let mut queue = machine(2);
    let (serves, waits) = (owner("1", "endpoint"), owner("1", "job"));
    for number in [0, 1] {
        let running = Wanted::each([workload(number)], "ml.m5.large", ONE).remove(0);
        queue.keep(&serves, running);
    }
    assert_eq!(queue.total().vcpus, 4, "more than there is");
    assert_eq!(ask(&mut queue, request(&waits, 5, 9, 1)), Answer::Waits);
    queue.succeed(&workload(0), &workload(7));
    queue.release(&workload(0));
    assert_eq!(queue.admit(), []);
    assert_eq!(ask(&mut queue, request(&serves, 1, 7, 1)), Answer::Granted);
    queue.release(&workload(7));
    assert_eq!(queue.admit(), [], "still full");
    queue.release(&workload(1));
    assert_eq!(names(&queue.admit()), ["job"]);
}

#[test]
fn without_a_limit_everybody_has_room_and_is_counted() {
    let mut queue = Queue::default();
    for number in 0..100 {
        let job = owner("1", &format!("job-{number}"));
        assert_eq!(ask(&mut queue, request(&job, 1, number, 1)), Answer::Granted);
    }
    assert_eq!((queue.total().vcpus, queue.held().len()), (200, 100));
}

#[test]
fn accelerators_are_never_shared() {
    let mut queue = Queue::new(Capacity {
        accelerators: 2,
        ..Capacity::default()
    });
    let gpus = |name: &str, first: u64, count: u64| {
        let mut one = request(&owner("1", name), 1, first, 1);
        for wanted in &mut one.instances {
            wanted.amount.accelerators = count;
        }
        one
    };
    assert_eq!(ask(&mut queue, gpus("a", 0, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, gpus("b", 1, 2)), Answer::Waits);
    assert_eq!(ask(&mut queue, gpus("c", 2, 3)), Answer::Never);
    queue.release(&workload(0));
    assert_eq!(names(&queue.admit()), ["b"]);
}

/// A request that no end of a job can make fit holds nobody up, and gets its room when an endpoint gives it back.
///
/// Proves: CC-7
#[test]
fn what_does_not_fit_beside_serving_endpoints_keeps_nobody_waiting() {
    let mut queue = machine(8);
    let mut serves = owner("2", "serves");
    serves.kind = Endpoint::KIND;
    let [large, own, third] = [owner("1", "large"), owner("1", "own"), owner("3", "third")];
    assert_eq!(ask(&mut queue, request(&serves, 1, 0, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, request(&large, 2, 10, 4)), Answer::Waits);
    assert_eq!(ask(&mut queue, request(&third, 3, 20, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, request(&own, 4, 30, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, request(&large, 2, 10, 4)), Answer::Waits, "it waits on");
    assert_eq!(names(&[queue.order()[0].owner.clone()]), ["large"], "and is shown");
    queue.leave(&own);
    queue.leave(&third);
    assert_eq!(queue.admit(), []);
    queue.leave(&serves);
    assert_eq!(names(&queue.admit()), ["large"]);
    queue.leave(&large);
    // Control: jobs end, so a large request waits for them and the younger account behind it does, too.
    assert_eq!(ask(&mut queue, request(&own, 5, 40, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, request(&owner("4", "large"), 6, 50, 4)), Answer::Waits);
    assert_eq!(ask(&mut queue, request(&third, 7, 60, 1)), Answer::Waits);
    // One that was set aside leaves as any other does.
    queue.leave(&owner("4", "large"));
    assert_eq!(names(&queue.admit()), ["third"]);
    queue.keep(&serves, Wanted::each([workload(70)], "ml.m5.large", ONE).remove(0));
    assert_eq!(ask(&mut queue, request(&large, 8, 80, 4)), Answer::Waits);
    queue.leave(&large);
    assert_eq!((queue.aside.len(), queue.waiting.len(), queue.places.len()), (0, 0, 0));
}

#[test]
fn a_request_that_fits_is_kept_back_for_one_turn_at_most() {
    let mut queue = machine(8);
    let [runs, large] = [owner("1", "runs"), owner("2", "large")];
    let [third, fourth] = [owner("3", "third"), owner("4", "fourth")];
    assert_eq!(ask(&mut queue, request(&runs, 1, 0, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, request(&large, 2, 10, 4)), Answer::Waits);
    queue.at(TURN * 5);
    assert!(!queue.overdue(), "nobody is kept back");
    assert_eq!(ask(&mut queue, request(&third, 3, 20, 1)), Answer::Waits);
    queue.at(TURN * 6 - Duration::from_secs(1));
    assert!(!queue.overdue());
    assert_eq!(queue.admit(), [], "control: it is the large one's turn");
    queue.at(TURN * 6);
    assert!(queue.overdue());
    assert_eq!(names(&queue.admit()), ["third"]);
    // A new turn begins.
    assert!(!queue.overdue());
    assert_eq!(ask(&mut queue, request(&fourth, 4, 30, 1)), Answer::Waits);
    queue.leave(&runs);
    queue.leave(&third);
    assert_eq!(names(&queue.admit()), ["large"]);
}

#[test]
fn what_takes_nothing_that_is_limited_waits_for_nobody() {
    let mut queue = Queue::new(Capacity {
        accelerators: 1,
        ..Capacity::default()
    });
    let gpu = |name: &str, first: u64| {
        let mut one = request(&owner("1", name), 1, first, 1);
        for wanted in &mut one.instances {
            wanted.amount.accelerators = 1;
        }
        one
    };
    assert_eq!(ask(&mut queue, gpu("a", 0)), Answer::Granted);
    assert_eq!(ask(&mut queue, gpu("b", 1)), Answer::Waits);
    assert_eq!(ask(&mut queue, request(&owner("1", "c"), 2, 2, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, gpu("d", 3)), Answer::Waits, "control");
}

#[test]
fn a_changed_request_takes_the_place_of_the_one_that_waits() {
    let mut queue = machine(4);
    let [runs, waits] = [owner("1", "runs"), owner("1", "waits")];
    assert_eq!(ask(&mut queue, request(&runs, 1, 0, 2)), Answer::Granted);
    for (since, count) in [(2, 1), (2, 1), (2, 2), (3, 2), (3, 1)] {
        assert_eq!(ask(&mut queue, request(&waits, since, 10, count)), Answer::Waits);
        assert_eq!(queue.order(), [request(&waits, since, 10, count)]);
        assert_eq!(queue.places.len(), 1);
    }
    queue.leave(&runs);
    assert_eq!(names(&queue.admit()), ["waits"]);
    assert_eq!((queue.total().vcpus, queue.places.len()), (2, 0));
}

#[test]
fn who_gives_its_place_up_by_asking_for_nothing_lets_the_next_one_in() {
    let mut queue = machine(6);
    let [runs, large, small] = [owner("1", "runs"), owner("1", "large"), owner("1", "small")];
    assert_eq!(ask(&mut queue, request(&runs, 1, 0, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, request(&large, 2, 10, 3)), Answer::Waits);
    assert_eq!(ask(&mut queue, request(&small, 3, 20, 1)), Answer::Waits);
    let mut granted = Vec::new();
    assert_eq!(queue.ask(request(&large, 2, 10, 0), &mut granted), Answer::Granted);
    assert_eq!(names(&granted), ["small"]);
}

/// Room that is kept goes to a job like the one that left it, ahead of nobody who needs it.
///
/// Proves: CC-7
#[test]
fn kept_room_is_reused_at_once_and_given_up_to_whoever_needs_it() {
    let mut queue = machine(4);
    let (left, like, other) = (owner("1", "left"), owner("1", "like"), owner("2", "other"));
    assert_eq!(ask(&mut queue, request(&left, 1, 0, 1)), Answer::Granted);
    queue.shelve(&left, Timestamp(5));
    assert_eq!((queue.total(), queue.pools()), (Amount::default(), vec![left.clone()]));
    assert!(!queue.reuse(&left, &request(&like, 6, 10, 2)), "it asks for more");
    assert!(queue.reuse(&left, &request(&like, 6, 10, 1)));
    assert_eq!((queue.total(), queue.pools()), (ONE, vec![]));
    assert!(!queue.reuse(&left, &request(&other, 7, 20, 1)), "one job has it");
    queue.shelve(&like, Timestamp(8));
    assert_eq!(ask(&mut queue, request(&other, 9, 20, 1)), Answer::Granted);
    assert_eq!(queue.pools(), vec![like.clone()], "control: there was room for both");
    assert_eq!(ask(&mut queue, request(&left, 10, 30, 1)), Answer::Granted);
    assert_eq!((queue.pools(), queue.take_given_up()), (vec![], vec![like.clone()]));
    assert_eq!(queue.take_given_up(), []);
}

/// Whoever waits for more room than a pool has gets the pool's too, or jobs like it could follow each other for ever.
#[test]
fn no_room_is_kept_while_anybody_waits() {
    let mut queue = machine(6);
    let (runs, left, large) = (owner("1", "runs"), owner("1", "left"), owner("2", "large"));
    assert_eq!(ask(&mut queue, request(&runs, 1, 0, 1)), Answer::Granted);
    assert_eq!(ask(&mut queue, request(&left, 1, 1, 1)), Answer::Granted);
    queue.shelve(&left, Timestamp(2));
    assert_eq!(queue.pools(), vec![left.clone()], "control");
    assert_eq!(ask(&mut queue, request(&large, 3, 10, 3)), Answer::Waits);
    assert_eq!(queue.pools(), vec![]);
    assert!(!queue.reuse(&left, &request(&left, 4, 20, 1)));
    queue.leave(&runs);
    assert_eq!(names(&queue.admit()), ["large"]);
}

/// Proves: AU-28, CC-7
#[test]
fn room_goes_over_to_successors_whoever_waits_and_the_way_back_stays_open() {
    let mut queue = machine(8);
    let (fleet, job) = (owner("1", "fleet"), owner("2", "job"));
    assert_eq!(ask(&mut queue, request(&fleet, 1, 0, 3)), Answer::Granted);
    assert_eq!(ask(&mut queue, request(&job, 2, 50, 2)), Answer::Waits);
    let old: Vec<WorkloadId> = (0..3).map(workload).collect();
    // Five instances have ten vCPUs.
    assert!(!queue.exchange(&old, &request(&fleet, 1, 10, 5)));
    assert!(queue.held().contains_key(&workload(0)), "nothing has changed");
    assert!(queue.exchange(&old, &request(&fleet, 1, 10, 1)));
    assert!(queue.exchange(&old, &request(&fleet, 1, 10, 1)), "it may be repeated");
    assert!(!queue.held().contains_key(&workload(0)));
    assert_eq!(queue.admit(), [], "what the old ones had more is kept");
    let back: Vec<WorkloadId> = vec![workload(10)];
    assert!(queue.exchange(&back, &request(&fleet, 1, 20, 3)));
    assert_eq!(queue.total().vcpus, 6);
    let old: Vec<WorkloadId> = (20..23).map(workload).collect();
    assert!(queue.exchange(&old, &request(&fleet, 1, 30, 1)));
    queue.trim(&workload(30), ONE);
    assert_eq!(
        names(&queue.admit()),
        ["job"],
        "control: it is given back once nobody needs it"
    );
    assert_eq!(queue.total().vcpus, 6);
}
