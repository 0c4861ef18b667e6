use super::*;
use crate::fake::{WallClock, World, key, scope};
use crate::job::tests::new_job;
use crate::network::tests::{interface, vpc_of, vpc_with, workload};
use crate::settings::ReconcileSettings;
use isolarium_model::Scope;
use isolarium_model::ec2::Holder;
use isolarium_model::sagemaker::training_job::SecondaryStatus;
use isolarium_model::sagemaker::training_job::{CheckpointConfig, JobEvent, StopCause};
use isolarium_model::sagemaker::{Attachment, EndpointEvent, JobNetwork, VpcAttachment};
use isolarium_store::{Batch, Expect};

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what} does not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

fn settings() -> ReconcileSettings {
    ReconcileSettings {
        retry: Duration::from_millis(20),
        workers: 3,
        ..ReconcileSettings::default()
    }
}

fn phase(world: &World, name: &str) -> Option<SecondaryStatus> {
    world
        .state()
        .get::<TrainingJob>(&key(name))
        .unwrap()
        .map(|stored| stored.record.secondary)
}

#[test]
fn jobs_run_to_their_end_by_commits_and_changes_of_the_host_alone() {
    let world = World::new();
    let driver = Driver::start(world.deps_with(settings(), Arc::new(WallClock))).unwrap();
    let mut workloads = Vec::new();
    for n in 0..20 {
        let name = format!("job-{n}");
        let job = new_job(&world, &name);
        workloads.push(job.run.placement.workload.clone());
        world
            .state()
            .commit(Batch::default().put(&key(&name), Expect::Absent, &job).unwrap())
            .unwrap();
    }
    wait_until("training", || {
        (0..20).all(|n| phase(&world, &format!("job-{n}")) == Some(SecondaryStatus::Training))
    });
    for workload in &workloads {
        world.print(workload, "done");
        world.exit(workload, 0);
    }
    wait_until("the end", || {
        (0..20).all(|n| phase(&world, &format!("job-{n}")) == Some(SecondaryStatus::Completed))
    });
    wait_until("cleaning", || world.lock().containers.is_empty());
    assert_eq!(world.lock().launches, 20);
    drop(driver);
}

#[test]
fn a_host_that_is_away_at_the_start_delays_jobs_and_a_new_driver_adopts_what_runs() {
    let world = World::new();
    for call in ["observe", "launch", "changed"] {
        world.fail(call, "away");
    }
    let job = new_job(&world, "late");
    let workload = job.run.placement.workload.clone();
    world
        .state()
        .commit(Batch::default().put(&key("late"), Expect::Absent, &job).unwrap())
        .unwrap();
    let driver = Driver::start(world.deps_with(settings(), Arc::new(WallClock))).unwrap();
    thread::sleep(Duration::from_millis(60));
    assert_eq!(
        phase(&world, "late").map(SecondaryStatus::status),
        Some(isolarium_model::sagemaker::TrainingJobStatus::InProgress)
    );
    assert_eq!(world.lock().launches, 0);
    for call in ["observe", "launch", "changed"] {
        world.mend(call);
    }
    wait_until("training", || phase(&world, "late") == Some(SecondaryStatus::Training));
    drop(driver);
    let second = Driver::start(world.deps_with(settings(), Arc::new(WallClock))).unwrap();
    world.exit(&workload, 0);
    wait_until("the end", || phase(&world, "late") == Some(SecondaryStatus::Completed));
    assert_eq!(world.lock().launches, 1, "adopted, not started again");
    drop(second);
}

#[test]
fn left_overs_are_removed_and_what_is_wanted_stays() {
    use isolarium_runtime::Executor;
    let world = World::new();
    let job = new_job(&world, "kept");
    let kept = job.run.placement.workload.clone();
    world
        .state()
        .commit(Batch::default().put(&key("kept"), Expect::Absent, &job).unwrap())
        .unwrap();
    let deps = world.deps();
    let mut memory = JobMemory::default();
    crate::job::step(&deps, &key("kept"), &mut memory).unwrap();
    let orphan: isolarium_model::WorkloadId = "w-0000000000000beef".parse().unwrap();
    let mut spec = world.container(&kept).spec;
    spec.workload = orphan.clone();
    world.prepare(&orphan).unwrap();
    world.launch(&spec).unwrap();
    let stale: isolarium_model::WorkloadId = "w-000000000000dead0".parse().unwrap();
    world.prepare(&stale).unwrap();
    let (open, batch) = deps
        .place(
            &isolarium_model::sagemaker::JobNetwork::new(None, None),
            &key("gone"),
            &TrainingJob::arn(&crate::fake::scope(), "gone"),
            Batch::default(),
        )
        .unwrap();
    world.state().commit(batch).unwrap();
    assert!(open.address().is_some());
    world.fail("remove", "busy");
    gc::sweep(&deps).unwrap();
    assert_eq!(world.lock().containers.len(), 2, "control: nothing can be removed");
    world.mend("remove");
    let leases = || {
        let all = world.state().all::<isolarium_model::sagemaker::AddressLease>();
        all.unwrap().len()
    };
    world.vpcs.state().failing.insert("set_peers", "away".into());
    assert_eq!(
        gc::sweep(&deps).unwrap(),
        3,
        "a container, a directory, the holder of an address"
    );
    assert_eq!(leases(), 1, "an address that may still be let to others is not free");
    world.vpcs.state().failing.clear();
    gc::sweep(&deps).unwrap();
    let left: Vec<_> = world.lock().containers.keys().cloned().collect();
    assert_eq!(left, std::slice::from_ref(&kept));
    assert_eq!(deps.work.workloads().unwrap(), std::slice::from_ref(&kept));
    assert_eq!(leases(), 0);
    assert_eq!(gc::sweep(&deps).unwrap(), 0, "a second sweep finds nothing");
    // Positions in output that nobody will read again: of a workload that a kill outlived, not of the wanted one.
    for source in [
        kept.to_string(),
        orphan.to_string(),
        format!("{orphan}/network-isolation"),
    ] {
        world.lock().sources.insert(source, 7);
    }
    gc::sweep(&deps).unwrap();
    let sources: Vec<String> = world.lock().sources.keys().cloned().collect();
    assert_eq!(sources, [kept.to_string()]);
}

/// Proves: NET-16
#[test]
fn networks_do_not_wait_for_transfers() {
    let world = World::new();
    world.fail("list", "held");
    let driver = Driver::start(world.deps_with(settings(), Arc::new(WallClock))).unwrap();
    let names: Vec<String> = (0..settings().workers).map(|n| format!("job-{n}")).collect();
    for name in &names {
        let job = new_job(&world, name);
        world
            .state()
            .commit(Batch::default().put(&key(name), Expect::Absent, &job).unwrap())
            .unwrap();
    }
    let held = || world.lock().ways.iter().filter(|(call, _)| call == "list").count();
    wait_until("a transfer in every worker", || held() == settings().workers);
    vpc_with(&world, 24);
    interface(&world, 1, 9, Holder::Transfer(workload()));
    wait_until("the network", || world.vpcs.state().vpcs.len() == 1);
    assert_eq!(held(), settings().workers, "the transfers still last");
    world.mend("list");
    wait_until("the jobs", || {
        names
            .iter()
            .all(|name| phase(&world, name) == Some(SecondaryStatus::Training))
    });
    drop(driver);
}

fn add_job(world: &Arc<World>, scope: &Scope, name: &str, at: &VpcAttachment, edit: impl FnOnce(&mut TrainingJob)) {
    let mut job = TrainingJob {
        arn: TrainingJob::arn(scope, name),
        ..new_job(world, name)
    };
    job.spec.network = JobNetwork::new(None, Some(at.clone()));
    job.run.placement.attachment = Attachment::Unattached {
        isolated: false,
        peers: None,
    };
    edit(&mut job);
    let batch = Batch::default().put(&Key::folded(scope, name), Expect::Absent, &job);
    world.state().commit(batch.unwrap()).unwrap();
}

fn of(world: &World, scope: &Scope, name: &str) -> TrainingJob {
    let stored = world.state().get::<TrainingJob>(&Key::folded(scope, name)).unwrap();
    stored.unwrap().record
}

fn ask_to_stop(driver: &Driver, scope: &Scope, name: &str) {
    driver
        .deps()
        .update::<TrainingJob>(&Key::folded(scope, name), |job, batch| {
            let now = driver.deps().now();
            job.run.stop = Some((StopCause::Asked, now));
            job.apply(JobEvent::StopRequested, now)?;
            Ok(Some(batch))
        })
        .unwrap();
}

/// Proves: VPC-12, SM-28
#[test]
fn one_accounts_silent_s3_keeps_nobody_else_waiting_and_ends_with_its_jobs() {
    let world = World::new();
    world.fail("list", "held:123456789012");
    let (silent, other) = (
        scope(),
        Scope {
            account: "210987654321".parse().unwrap(),
            ..scope()
        },
    );
    let (there, here) = (vpc_of(&world, &silent, 1, 24), vpc_of(&world, &other, 2, 24));
    let settings = ReconcileSettings {
        workers: 2,
        vpc_workers: 3,
        vpc_workers_per_account: 2,
        ..settings()
    };
    let driver = Driver::start(world.deps_with(settings, Arc::new(WallClock))).unwrap();
    let names: Vec<String> = (0..6).map(|n| format!("silent-{n}")).collect();
    for name in &names {
        add_job(&world, &silent, name, &there, |_| ());
    }
    let held = || world.lock().ways.iter().filter(|(call, _)| call == "list").count();
    wait_until("a transfer in every thread of the share", || held() == 2);
    add_job(&world, &other, "other", &here, |_| ());
    let status = |scope: &Scope, name: &str| of(&world, scope, name).secondary;
    wait_until("the other account's job", || {
        status(&other, "other") == SecondaryStatus::Training
    });
    assert_eq!(held(), 3, "two of the silent account and the other account's own");
    ask_to_stop(&driver, &other, "other");
    wait_until("its end", || status(&other, "other") == SecondaryStatus::Stopped);
    // Those whose transfer is under way and those that wait for a thread, all while S3 says nothing.
    for name in &names {
        ask_to_stop(&driver, &silent, name);
    }
    for name in &names {
        wait_until(name, || status(&silent, name) == SecondaryStatus::Stopped);
    }
    assert_eq!(world.lock().launches, 1, "the other account's alone");
    drop(driver);
}

/// Proves: SM-28, CC-35
#[test]
fn a_transfer_ends_with_its_time_limit_and_with_the_operators() {
    let world = World::new();
    let at = vpc_with(&world, 24);
    world.fail("put", "held");
    let patient = ReconcileSettings {
        checkpoint_interval: Duration::from_millis(10),
        ..settings()
    };
    let driver = Driver::start(world.deps_with(patient, Arc::new(WallClock))).unwrap();
    add_job(&world, &scope(), "timed", &at, |job| {
        job.spec.max_runtime = 1;
        job.spec.checkpoints = Some(CheckpointConfig {
            uri: "s3://out/checkpoints".parse().unwrap(),
            local_path: "/opt/ml/checkpoints".into(),
        });
    });
    let timed = || of(&world, &scope(), "timed").secondary;
    wait_until("training", || timed() == SecondaryStatus::Training);
    let workload = of(&world, &scope(), "timed").run.placement.workload;
    world.write(&workload, "checkpoints", "c", "1");
    let held = || world.lock().ways.iter().any(|(call, _)| call == "put");
    wait_until("a checkpoint on its way", held);
    wait_until("the end of its time", || {
        world
            .lock()
            .containers
            .get(&workload)
            .is_none_or(|one| !one.signals.is_empty())
    });
    world.mend("put");
    wait_until("its end", || timed() == SecondaryStatus::MaxRuntimeExceeded);
    drop(driver);
    // Nobody stops this one: the operator's limit does.
    world.fail("list", "held");
    let hasty = ReconcileSettings {
        transfer_limit: Duration::from_millis(50),
        ..settings()
    };
    let driver = Driver::start(world.deps_with(hasty, Arc::new(WallClock))).unwrap();
    add_job(&world, &scope(), "endless", &at, |_| ());
    wait_until("failure", || {
        of(&world, &scope(), "endless").secondary == SecondaryStatus::Failed
    });
    let reason = of(&world, &scope(), "endless").failure_reason.unwrap().to_string();
    assert!(reason.contains("it lasted too long"), "{reason}");
    drop(driver);
}

#[test]
fn an_endpoint_is_deleted_while_its_model_is_on_its_way() {
    let world = World::new();
    let at = vpc_with(&world, 24);
    world.fail("open", "held");
    let driver = Driver::start(world.deps_with(settings(), Arc::new(WallClock))).unwrap();
    let mut endpoint = crate::endpoint::tests::in_a_vpc(at, driver.deps().now());
    // It has served; its containers are brought up again.
    endpoint.active = endpoint.pending.take();
    endpoint.status = isolarium_model::sagemaker::EndpointStatus::InService;
    let batch = Batch::default().put(&key("Ep"), Expect::Absent, &endpoint).unwrap();
    world.state().commit(batch).unwrap();
    let held = || world.lock().ways.iter().filter(|(call, _)| call == "open").count();
    wait_until("both downloads", || held() == 2);
    driver
        .deps()
        .update::<Endpoint>(&key("Ep"), |endpoint, batch| {
            endpoint.apply(EndpointEvent::DeleteRequested, driver.deps().now())?;
            Ok(Some(batch))
        })
        .unwrap();
    wait_until("deletion", || {
        world.state().get::<Endpoint>(&key("Ep")).unwrap().is_none()
    });
    drop(driver);
}
