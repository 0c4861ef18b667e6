//! Attempts that the host lost, and room that outlives its job.

use super::*;
use isolarium_model::sagemaker::{WarmPool, WarmPoolState};

/// The container vanishes: its shim and all that it left are gone.
fn lose(lab: &Lab) {
    let workload = lab.job().run.placement.workload;
    lab.world.lock().containers.remove(&workload);
    lab.world.look(&lab.deps);
}

fn phases(job: &TrainingJob) -> Vec<&'static str> {
    job.transitions.iter().map(|one| one.status.as_str()).collect()
}

/// Proves: SM-34
#[test]
fn a_lost_container_is_followed_by_another_attempt_that_keeps_room_and_time_limit() {
    for isolated in [true, false] {
        let mut lab = Lab::new(isolated, |job| job.spec.max_retries = 2);
        let first = lab.run();
        assert_eq!(first.secondary, SecondaryStatus::Training);
        lose(&lab);
        let again = lab.run();
        assert_eq!(
            again.secondary,
            SecondaryStatus::Restarting,
            "it waits a moment: {isolated}"
        );
        assert!(again.transitions.last().unwrap().message.contains("was lost"));
        let own = again.run.placement.workload.clone();
        assert_ne!(own, first.run.placement.workload);
        assert!(lab.deps.scheduler.holds(&own), "the room is its successor's");
        assert!(!lab.deps.scheduler.holds(&first.run.placement.workload));
        let second = lab.after(1);
        assert_eq!(second.secondary, SecondaryStatus::Training);
        assert_eq!(second.training_start, first.training_start);
        assert_eq!(
            phases(&second),
            [
                "Starting",
                "Downloading",
                "Training",
                "Restarting",
                "Downloading",
                "Training"
            ]
        );
        lab.world.exit(&own, 0);
        let ended = lab.run();
        assert_eq!(ended.secondary, SecondaryStatus::Completed);
        assert_eq!((ended.run.restarts, lab.world.lock().launches), (1, 2));
        assert!(lab.world.lock().containers.is_empty());
        let leases = lab.world.state().all::<isolarium_model::sagemaker::AddressLease>();
        assert!(leases.unwrap().is_empty(), "no address is left of either attempt");
    }
}

/// Proves: SM-34
#[test]
fn neither_a_failed_program_nor_a_wrong_request_is_repeated_and_attempts_come_to_an_end() {
    let mut lab = Lab::new(true, |job| job.spec.max_retries = 30);
    let workload = lab.run().run.placement.workload;
    lab.world.exit(&workload, 1);
    let failed = lab.run();
    assert_eq!((failed.secondary, failed.run.restarts), (SecondaryStatus::Failed, 0));
    assert!(failed.failure_reason.unwrap().as_str().starts_with("AlgorithmError: "));

    let mut lab = Lab::new(true, |job| job.spec.max_retries = 30);
    lab.world.fail("launch", "unstartable:no such file");
    let failed = lab.run();
    assert_eq!((failed.secondary, failed.run.restarts), (SecondaryStatus::Failed, 0));
    assert!(failed.failure_reason.unwrap().as_str().starts_with("ClientError: "));

    let mut lab = Lab::new(true, |job| job.spec.max_retries = 2);
    lab.world.fail("launch", "host:no OCI runtime was found");
    for _ in 0..5 {
        lab.after(5);
    }
    let failed = lab.job();
    assert_eq!((failed.secondary, failed.run.restarts), (SecondaryStatus::Failed, 2));
    assert!(
        failed
            .failure_reason
            .unwrap()
            .as_str()
            .starts_with("InternalServerError: ")
    );

    // Control of the last one: a host that is mended in between runs the job.
    let mut lab = Lab::new(true, |job| job.spec.max_retries = 2);
    lab.world.fail("launch", "host:no OCI runtime was found");
    assert_eq!(lab.run().secondary, SecondaryStatus::Restarting);
    lab.world.mend("launch");
    assert_eq!(lab.after(5).secondary, SecondaryStatus::Training);
}

/// Proves: SM-34
#[test]
fn a_job_that_waits_for_its_next_attempt_can_be_stopped_and_a_new_process_goes_on_with_it() {
    let mut lab = Lab::new(true, |job| job.spec.max_retries = 1);
    lab.run();
    lose(&lab);
    assert_eq!(lab.run().secondary, SecondaryStatus::Restarting);
    lab.restart();
    assert_eq!(lab.after(1).secondary, SecondaryStatus::Training, "control: it goes on");
    lose(&lab);
    assert_eq!(
        lab.run().secondary,
        SecondaryStatus::Failed,
        "there are no attempts left"
    );

    let mut lab = Lab::new(true, |job| job.spec.max_retries = 1);
    lab.run();
    lose(&lab);
    assert_eq!(lab.run().secondary, SecondaryStatus::Restarting);
    lab.ask_to_stop();
    assert_eq!(lab.run().secondary, SecondaryStatus::Stopped);
    assert_eq!(lab.world.lock().launches, 1);
}

fn pooled(job: &mut TrainingJob) {
    job.spec.keep_alive = 60;
    job.warm_pool = WarmPool::asked(60);
}

fn pool_of(job: &TrainingJob) -> WarmPoolState {
    job.warm_pool.as_ref().unwrap().state()
}

/// A warm pool keeps room and nothing else; a job that fits takes it, and one that does not leaves it alone.
///
/// Proves: CC-7
#[test]
fn a_jobs_room_is_kept_for_one_that_fits_until_its_time_is_over() {
    let mut lab = Lab::new(true, pooled);
    let first = lab.run();
    assert_eq!(pool_of(&first), WarmPoolState::InUse);
    lab.world.exit(&first.run.placement.workload, 0);
    let ended = lab.run();
    assert_eq!(
        (ended.secondary, pool_of(&ended)),
        (SecondaryStatus::Completed, WarmPoolState::Available)
    );
    assert!(
        lab.world.lock().containers.is_empty(),
        "no container, no file of it is left"
    );
    assert!(!lab.deps.work.of(&first.run.placement.workload).exists());

    let start = |name: &str, edit: &dyn Fn(&mut TrainingJob)| {
        let mut next = new_job(&lab.world, name);
        next.spec = ended.spec.clone();
        edit(&mut next);
        let batch = Batch::default().put(&key(name), Expect::Absent, &next).unwrap();
        lab.world.state().commit(batch).unwrap();
        let mut memory = JobMemory::default();
        step(&lab.deps, &key(name), &mut memory).unwrap();
    };
    start("stranger", &|job| {
        job.spec.role_arn = "arn:aws:iam::123456789012:role/another".parse().unwrap();
    });
    assert_eq!(
        pool_of(&lab.job()),
        WarmPoolState::Available,
        "another role's job has its own room"
    );
    start("open", &|job| job.spec.network = JobNetwork::new(Some(false), None));
    assert_eq!(pool_of(&lab.job()), WarmPoolState::Available);
    start("next", &|_| {});
    let reused = lab.job();
    assert_eq!(pool_of(&reused), WarmPoolState::Reused);
    let end = reused.warm_pool.as_ref().unwrap().over.clone().unwrap();
    assert_eq!(end.reused_by.as_deref(), Some("next"));

    let mut lab = Lab::new(true, pooled);
    let workload = lab.run().run.placement.workload;
    lab.world.exit(&workload, 0);
    assert_eq!(pool_of(&lab.run()), WarmPoolState::Available);
    lab.restart();
    let owner = crate::scheduler::queue::Owner {
        kind: TrainingJob::KIND,
        key: key(NAME),
    };
    lab.deps
        .scheduler
        .adopt_pool(&lab.deps, &key(NAME), &lab.job(), lab.world.now());
    assert_eq!(
        pool_of(&lab.after(30)),
        WarmPoolState::Available,
        "a new process keeps it"
    );
    assert_eq!(pool_of(&lab.after(30)), WarmPoolState::Terminated);
    lab.deps.scheduler.leave(&owner);
    assert!(lab.deps.scheduler.pools(TrainingJob::KIND, &scope()).is_empty());
}

/// Proves: CC-7
#[test]
fn a_cluster_that_the_host_lost_is_not_kept_and_a_failed_programs_is() {
    let mut lab = Lab::new(true, pooled);
    lab.run();
    lose(&lab);
    assert_eq!(pool_of(&lab.run()), WarmPoolState::Terminated);
    let mut lab = Lab::new(true, pooled);
    let workload = lab.run().run.placement.workload;
    lab.world.exit(&workload, 1);
    assert_eq!(
        pool_of(&lab.run()),
        WarmPoolState::Available,
        "control: the program was at fault"
    );
    let mut lab = Lab::new(true, pooled);
    lab.ask_to_stop();
    assert_eq!(
        pool_of(&lab.run()),
        WarmPoolState::Terminated,
        "it never had an instance"
    );
}
