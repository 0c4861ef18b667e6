use super::queue::Capacity;
use super::*;
use crate::driver::Driver;
use crate::fake::{WallClock, World, key, scope};
use crate::job::tests::new_job;
use crate::settings::ReconcileSettings;
use isolarium_model::Scope;
use isolarium_model::sagemaker::TrainingJob;
use isolarium_model::sagemaker::training_job::{JobEvent, StopCause};
use isolarium_store::{Batch, Expect};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Room for `jobs` jobs on ml.m5.large.
fn room(jobs: u64) -> Capacity {
    Capacity {
        vcpus: Some(2 * jobs),
        ..Capacity::default()
    }
}

fn driver(world: &Arc<World>, capacity: Capacity) -> Driver {
    let settings = ReconcileSettings {
        retry: Duration::from_millis(20),
        workers: 3,
        ..ReconcileSettings::default()
    };
    let mut deps = world.deps_with(settings, Arc::new(WallClock));
    deps.scheduler = Arc::new(Scheduler::new(capacity));
    Driver::start(deps).unwrap()
}

fn put(world: &World, key: &Key, job: &TrainingJob) {
    let batch = Batch::default().put(key, Expect::Absent, job).unwrap();
    world.state().commit(batch).unwrap();
}

fn job_at(world: &World, key: &Key) -> TrainingJob {
    world.state().get::<TrainingJob>(key).unwrap().unwrap().record
}

/// Creates jobs one millisecond apart; their names sort the other way round.
fn queue_up(world: &Arc<World>, count: i64) -> Vec<Key> {
    let base = new_job(world, "base").created.0;
    let make = |n: i64| {
        let name = format!("job-{:03}", 999 - n);
        let mut job = new_job(world, &name);
        job.created = Timestamp(base + n);
        put(world, &key(&name), &job);
        key(&name)
    };
    (0..count).map(make).collect()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} does not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

fn phases(world: &World, keys: &[Key]) -> Vec<SecondaryStatus> {
    keys.iter().map(|key| job_at(world, key).secondary).collect()
}

fn end(world: &World, key: &Key) {
    let workload = job_at(world, key).run.placement.workload;
    world.exit(&workload, 0);
}

/// A full machine: jobs say that they wait, get room in the order of their creation, and a new process keeps that order.
///
/// Proves: CC-7, SM-28, SM-29
#[test]
fn jobs_wait_their_turn_say_so_and_keep_it_over_a_restart() {
    use SecondaryStatus::{Completed, Pending, Training};
    let world = World::new();
    let keys = queue_up(&world, 6);
    let first = driver(&world, room(2));
    wait_until("the first two", || {
        phases(&world, &keys) == [Training, Training, Pending, Pending, Pending, Pending]
    });
    let waiting = job_at(&world, &keys[2]);
    let shown: Vec<(&str, &str)> = waiting
        .transitions
        .iter()
        .map(|one| (one.status.as_str(), one.message.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("Starting", "Starting the training job"),
            ("Pending", "Training job waiting for capacity")
        ]
    );
    assert_eq!(waiting.status().as_str(), "InProgress");
    let usage = first.deps().scheduler.usage();
    assert_eq!(
        (usage.vcpus, usage.capacity_vcpus, usage.running.len()),
        (4, Some(4), 2)
    );
    let names: Vec<&str> = usage.waiting.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["job-997", "job-996", "job-995", "job-994"]);
    end(&world, &keys[1]);
    wait_until("the third", || {
        phases(&world, &keys) == [Training, Completed, Training, Pending, Pending, Pending]
    });
    drop(first);
    let second = driver(&world, room(2));
    wait_until("adoption", || second.deps().scheduler.usage().waiting.len() == 3);
    assert_eq!(
        phases(&world, &keys),
        [Training, Completed, Training, Pending, Pending, Pending]
    );
    for (ended, next) in [(0, 3), (2, 4), (3, 5)] {
        end(&world, &keys[ended]);
        wait_until("the next one", || job_at(&world, &keys[next]).secondary == Training);
    }
    for ended in [4, 5] {
        end(&world, &keys[ended]);
    }
    wait_until("the end", || {
        phases(&world, &keys).iter().all(|phase| *phase == Completed)
    });
    wait_until("room", || second.deps().scheduler.usage().running.is_empty());
    let whole = job_at(&world, &keys[5]);
    let whole: Vec<&str> = whole.transitions.iter().map(|one| one.status.as_str()).collect();
    assert_eq!(
        whole,
        [
            "Starting",
            "Pending",
            "Downloading",
            "Training",
            "Uploading",
            "Completed"
        ]
    );
}

/// Proves: SM-33
#[test]
fn a_queued_job_can_be_stopped_and_gives_its_place_up() {
    use SecondaryStatus::{Pending, Stopped, Training};
    let world = World::new();
    let keys = queue_up(&world, 3);
    let driver = driver(&world, room(1));
    wait_until("the first", || phases(&world, &keys) == [Training, Pending, Pending]);
    driver
        .deps()
        .update::<TrainingJob>(&keys[1], |job, batch| {
            let now = Timestamp(job.created.0 + 1000);
            job.run.stop = Some((StopCause::Asked, now));
            job.apply(JobEvent::StopRequested, now)?;
            Ok(Some(batch))
        })
        .unwrap();
    wait_until("the stop", || phases(&world, &keys) == [Training, Stopped, Pending]);
    assert_eq!(world.lock().launches, 1, "it never ran");
    end(&world, &keys[0]);
    wait_until("the third", || job_at(&world, &keys[2]).secondary == Training);
}

#[test]
fn a_job_waits_no_longer_than_it_wants_to_and_one_that_never_fits_fails() {
    let world = World::new();
    let keys = queue_up(&world, 1);
    let mut impatient = new_job(&world, "impatient");
    impatient.spec.max_pending = Some(0);
    impatient.created = Timestamp(impatient.created.0 + 5);
    put(&world, &key("impatient"), &impatient);
    let mut large = new_job(&world, "large");
    large.spec.instance_type = "ml.m5.xlarge".into();
    put(&world, &key("large"), &large);
    let driver = driver(&world, room(1));
    wait_until("both ends", || {
        [key("impatient"), key("large")]
            .iter()
            .all(|key| job_at(&world, key).status().is_final())
    });
    let stopped = job_at(&world, &key("impatient"));
    assert_eq!(stopped.secondary, SecondaryStatus::Stopped);
    assert_eq!(stopped.run.stop.map(|(cause, _)| cause), Some(StopCause::MaxPending));
    let failed = job_at(&world, &key("large"));
    let reason = failed.failure_reason.unwrap().to_string();
    assert!(
        reason.starts_with("CapacityError: Unable to provision requested ML compute capacity"),
        "{reason}"
    );
    wait_until("control", || {
        job_at(&world, &keys[0]).secondary == SecondaryStatus::Training
    });
    drop(driver);
}

#[test]
fn another_account_is_not_kept_waiting_by_a_long_queue() {
    use SecondaryStatus::{Pending, Training};
    let world = World::new();
    let keys = queue_up(&world, 5);
    let stranger = Scope {
        account: "210987654321".parse().unwrap(),
        ..scope()
    };
    let their_key = TrainingJob::key(&stranger, "theirs");
    let mut theirs = new_job(&world, "theirs");
    theirs.arn = TrainingJob::arn(&stranger, "theirs");
    theirs.created = Timestamp(theirs.created.0 + 60_000);
    put(&world, &their_key, &theirs);
    let driver = driver(&world, room(2));
    wait_until("the first two", || {
        // Of equals the oldest is first; then the account that holds nothing.
        job_at(&world, &their_key).secondary == Training
            && phases(&world, &keys) == [Training, Pending, Pending, Pending, Pending]
    });
    end(&world, &keys[0]);
    wait_until("the next", || job_at(&world, &keys[1]).secondary == Training);
    drop(driver);
}

/// A device stays with a container that began before the engine did, until that container's directory is gone. Proves: CC-5
#[test]
fn accelerators_of_what_a_restart_left_over_are_not_given_away() {
    let folder = tempfile::tempdir().unwrap();
    let work = WorkDir::new(folder.path());
    let (left, new): (WorkloadId, WorkloadId) = (
        "w-0123456789abcdef0".parse().unwrap(),
        "w-0123456789abcdef1".parse().unwrap(),
    );
    let all = ["example.com/gpu=0".to_owned()];
    std::fs::create_dir(work.of(&left)).unwrap();
    work.note_devices(&left, &all).unwrap();
    let scheduler = Scheduler::new(Capacity::default());
    assert_eq!(scheduler.devices(&work, &new, 1, &all), None, "nobody has looked yet");
    scheduler.open(&work);
    assert_eq!(scheduler.devices(&work, &new, 1, &all), None);
    std::fs::remove_dir_all(work.of(&left)).unwrap();
    assert_eq!(scheduler.devices(&work, &new, 1, &all).as_deref(), Some(&all[..]));
    // What cannot be read may be anybody's.
    std::fs::create_dir(work.of(&left)).unwrap();
    std::fs::write(work.of(&left).join("devices.json"), "half a").unwrap();
    let scheduler = Scheduler::new(Capacity::default());
    scheduler.open(&work);
    assert_eq!(scheduler.devices(&work, &new, 1, &all), None);
}

#[test]
fn the_end_of_a_turn_is_found_without_a_request() {
    let world = World::new();
    let mut scheduler = Scheduler::new(room(2));
    let deps = world.deps_with(ReconcileSettings::default(), Arc::new(WallClock));
    let request = |account: &str, name: &str, instance_type: &str| {
        let scope = Scope {
            account: account.parse().unwrap(),
            ..scope()
        };
        let mut job = new_job(&world, name);
        job.spec.instance_type = instance_type.into();
        let request = request_of(&deps, &TrainingJob::key(&scope, name), &job).unwrap();
        (scheduler.ask(request.clone()), request.owner)
    };
    let (runs, _) = request("111111111111", "runs", "ml.m5.large");
    let (large, _) = request("222222222222", "large", "ml.m5.xlarge");
    let (small, owner) = request("333333333333", "small", "ml.m5.large");
    assert_eq!((runs, large, small), (Answer::Granted, Answer::Waits, Answer::Waits));
    assert_eq!(scheduler.take_granted(), [], "control");
    scheduler.began = scheduler.began.checked_sub(Duration::from_secs(660)).unwrap();
    assert_eq!(scheduler.take_granted(), [owner]);
}
