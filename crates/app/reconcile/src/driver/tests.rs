use super::*;
use crate::fake::{WallClock, World, key};
use crate::job::tests::new_job;
use crate::network::tests::{interface, vpc_with, workload};
use crate::settings::ReconcileSettings;
use isolarium_model::ec2::Holder;
use isolarium_model::sagemaker::training_job::SecondaryStatus;
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
    assert_eq!(
        gc::sweep(&deps).unwrap(),
        3,
        "a container, a directory, the holder of an address"
    );
    let left: Vec<_> = world.lock().containers.keys().cloned().collect();
    assert_eq!(left, std::slice::from_ref(&kept));
    assert_eq!(deps.work.workloads().unwrap(), std::slice::from_ref(&kept));
    assert_eq!(
        world
            .state()
            .all::<isolarium_model::sagemaker::AddressLease>()
            .unwrap()
            .len(),
        0
    );
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
