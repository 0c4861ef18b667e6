use super::*;
use crate::fake::{IMAGE, World, key, scope};
use crate::stage;
use isolarium_model::WorkloadId;
use isolarium_model::sagemaker::EncryptedVolume;
use isolarium_model::sagemaker::network::{IsolationRecord, Sight, SightSource};
use isolarium_model::sagemaker::training_job::{
    Channel, CheckpointConfig, Distribution, InputMode, JobRun, JobSpec, MetricDefinition, OutputCompression,
    OutputConfig, S3DataType, StopCause, TrainingJobStatus,
};
use isolarium_model::sagemaker::{AddressLease, Attachment, ContainerSpec, Echo, JobNetwork, Placement, Reach, Tags};
use isolarium_netplan::intent;
use isolarium_runtime::executor::VolumeSpec;
use isolarium_runtime::executor::{BlockedAttempt, Mount};
use isolarium_store::{Batch, Expect};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod again;
mod piped;
mod several;

const NAME: &str = "Churn";

/// One job in a fake world, stepped by hand.
struct Lab {
    world: Arc<World>,
    deps: Deps,
    memory: JobMemory,
    workload: WorkloadId,
}

impl Lab {
    fn new(isolated: bool, edit: impl FnOnce(&mut TrainingJob)) -> Self {
        let world = World::new();
        world.put_object("s3://data/train/a.csv", b"1,2");
        let deps = world.deps();
        let created = world.now();
        let (placement, batch) = deps
            .place(
                &JobNetwork::new(Some(isolated), None),
                &key(NAME),
                &TrainingJob::arn(&scope(), NAME),
                Batch::default(),
            )
            .unwrap();
        let workload = placement.workload.clone();
        let mut job = job(created, placement);
        job.spec.network = JobNetwork::new(Some(isolated), None);
        edit(&mut job);
        world
            .state()
            .commit(batch.put(&key(NAME), Expect::Absent, &job).unwrap())
            .unwrap();
        Self {
            world,
            deps,
            memory: JobMemory::default(),
            workload,
        }
    }

    /// Steps until the job waits for something.
    fn run(&mut self) -> TrainingJob {
        for _ in 0..50 {
            let before = self.world.changes();
            self.world.look(&self.deps);
            match step(&self.deps, &key(NAME), &mut self.memory).unwrap() {
                // A step that changed the host wakes the loop, as the driver's watch thread does.
                Next::At(time) if time > self.world.now() && self.world.changes() == before => return self.job(),
                Next::At(time) if time > self.world.now() => {}
                Next::Done => return self.job(),
                Next::At(_) => {}
            }
        }
        panic!("the job never waits");
    }

    /// Waits for `seconds`, then steps on.
    fn after(&mut self, seconds: u64) -> TrainingJob {
        self.world.clock.advance(Duration::from_secs(seconds));
        self.run()
    }

    /// A new process: nothing is remembered.
    fn restart(&mut self) {
        self.deps = self.world.deps();
        self.memory = JobMemory::default();
        self.world.look(&self.deps);
    }

    fn job(&self) -> TrainingJob {
        self.world
            .state()
            .get::<TrainingJob>(&key(NAME))
            .unwrap()
            .unwrap()
            .record
    }

    fn ask_to_stop(&self) {
        let now = self.world.now();
        self.deps
            .update::<TrainingJob>(&key(NAME), |job, batch| {
                job.run.stop = Some((StopCause::Asked, now));
                job.apply(JobEvent::StopRequested, now)?;
                Ok(Some(batch))
            })
            .unwrap();
    }
}

fn job(created: Timestamp, placement: Placement) -> TrainingJob {
    TrainingJob {
        name: NAME.into(),
        arn: TrainingJob::arn(&scope(), NAME),
        created,
        modified: created,
        secondary: SecondaryStatus::Starting,
        transitions: vec![TrainingJob::first_transition(created)],
        failure_reason: None,
        training_start: None,
        training_end: None,
        tuning_job: None,
        warm_pool: None,
        spec: JobSpec {
            container: ContainerSpec {
                image: IMAGE.into(),
                environment: BTreeMap::from([("MODE".into(), "fast".into())]),
            },
            entrypoint: None,
            arguments: None,
            hyperparameters: BTreeMap::from([("epochs".into(), "3".into())]),
            channels: vec![Channel {
                name: "train".into(),
                uri: "s3://data/train/".parse().unwrap(),
                data_type: S3DataType::S3Prefix,
                distribution: Distribution::FullyReplicated,
                content_type: Some("text/csv".into()),
                mode: InputMode::File,
                shuffle_seed: None,
                groups: Vec::new(),
            }],
            output: OutputConfig {
                uri: "s3://out/jobs".parse().unwrap(),
                compression: OutputCompression::Gzip,
                kms_key: None,
            },
            checkpoints: None,
            metrics: vec![MetricDefinition {
                name: "loss".into(),
                regex: "loss=(.*?);".into(),
            }],
            instance_type: "ml.m5.large".into(),
            instances: 1,
            groups: Vec::new(),
            role_arn: "arn:aws:iam::123456789012:role/job".parse().unwrap(),
            max_runtime: 3600,
            max_pending: None,
            max_wait: None,
            max_retries: 0,
            volume: None,
            keep_alive: 0,
            network: JobNetwork {
                container: Reach::Nothing,
                transfer: Reach::ServiceNetwork,
            },
        },
        run: JobRun {
            placement,
            others: Vec::new(),
            image: None,
            stop: None,
            launched: false,
            restarts: 0,
            encrypted: false,
        },
        warning: None,
        final_metrics: BTreeMap::new(),
        tags: Tags::new(),
        echo: Echo::new(),
    }
}

/// A job that is not in the store yet, for other loops' tests.
pub(crate) fn new_job(world: &Arc<World>, name: &str) -> TrainingJob {
    world.put_object("s3://data/train/a.csv", b"1,2");
    let arn = TrainingJob::arn(&scope(), name);
    let (placement, _) = world
        .deps()
        .place(&JobNetwork::new(Some(true), None), &key(name), &arn, Batch::default())
        .unwrap();
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let created = Timestamp(i64::try_from(since.as_millis()).unwrap());
    TrainingJob {
        name: name.into(),
        arn,
        ..job(created, placement)
    }
}

const WATCHED: Sight = Sight {
    source: SightSource::Ebpf,
    raw_sockets: true,
    left_out: 4,
};

fn attempt(at: Timestamp) -> BlockedAttempt {
    BlockedAttempt {
        first: at,
        last: at,
        count: 3,
        pid: 7,
        process: "curl".into(),
        protocol: "tcp".into(),
        address: "203.0.113.10".parse().unwrap(),
        port: 443,
        name: None,
    }
}

/// The first job, of whose objects none lies encrypted, is the control.
///
/// Proves: CC-36
#[test]
fn what_lies_encrypted_is_copied_to_the_encrypted_volume_alone() {
    for sealed in [false, true] {
        let mut lab = Lab::new(true, |job| {
            job.spec.volume = EncryptedVolume::asked(Some(&"alias/k".to_string()), Some(3));
        });
        if sealed {
            lab.world.put_object("s3://data/train/encrypted.csv", b"3,4");
        }
        assert_eq!(lab.run().secondary, SecondaryStatus::Training);
        let made = VolumeSpec {
            bytes: 3 << 30,
            lasting: false,
        };
        assert_eq!(lab.world.lock().volumes, [(lab.workload.clone(), made)]);
        let spec = lab.world.container(&lab.workload).spec;
        assert!(spec.encrypted);
        let copied = spec.mounts.iter().filter(|mount| matches!(mount, Mount::Copied { .. }));
        assert_eq!(copied.count(), usize::from(sealed));
        // A new process finds the volume, and makes no other.
        lab.restart();
        lab.world.write(&lab.workload, "model", "model.bin", "weights");
        lab.world.exit(&lab.workload, 0);
        assert_eq!(lab.after(1).status(), TrainingJobStatus::Completed);
        let model = lab.world.archive("s3://out/jobs/Churn/output/model.tar.gz");
        assert_eq!(model, BTreeMap::from([("model.bin".into(), "weights".into())]));
        assert!(lab.world.lock().volumes.is_empty());
    }
}

/// Proves: SM-28, SM-29, SM-31, CC-31, CC-32, CC-39, CC-90, NI-12, NI-24
#[test]
fn a_sealed_job_runs_from_start_to_uploaded_model() {
    let mut lab = Lab::new(true, |_| {});
    let running = lab.run();
    assert_eq!(running.secondary, SecondaryStatus::Training);
    let spec = lab.world.container(&lab.workload).spec;
    assert_eq!(spec.network.reach, intent::Reach::Nothing);
    lab.world.print(&lab.workload, "loss=0.5;");
    lab.world.print(&lab.workload, "hello");
    lab.world.print(&lab.workload, "loss=0.25;");
    lab.world.write(&lab.workload, "model", "model.bin", "weights");
    lab.world.write(&lab.workload, "output-data", "eval.json", "{}");
    lab.after(2);
    lab.world.exit(&lab.workload, 0);
    let done = lab.after(1);
    assert_eq!(
        (done.status(), done.secondary),
        (TrainingJobStatus::Completed, SecondaryStatus::Completed)
    );
    let phases: Vec<&str> = done.transitions.iter().map(|t| t.status.as_str()).collect();
    assert_eq!(
        phases,
        ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    );
    assert!(done.transitions.iter().all(|t| t.ended.is_some()));
    let model = lab.world.archive("s3://out/jobs/Churn/output/model.tar.gz");
    assert_eq!(model, BTreeMap::from([("model.bin".into(), "weights".into())]));
    let output = lab.world.archive("s3://out/jobs/Churn/output/output.tar.gz");
    assert_eq!(output, BTreeMap::from([("eval.json".into(), "{}".into())]));
    assert_eq!(
        lab.world.lines(TrainingJob::LOG_GROUP, &done.log_stream(0)),
        ["loss=0.5;", "hello", "loss=0.25;"]
    );
    assert_eq!(done.final_metrics.get("loss").map(|m| m.value), Some(0.25));
    let roles: Vec<String> = lab
        .world
        .lock()
        .accesses
        .iter()
        .map(|(role, ..)| role.clone())
        .collect();
    assert!(
        !roles.is_empty() && roles.iter().all(|role| role.ends_with(":role/job")),
        "only the execution role acts"
    );
    assert!(lab.world.lock().containers.is_empty(), "nothing is left on the host");
    assert_eq!(lab.deps.work.workloads().unwrap(), []);
}

/// The loop may meet the new job before it has forgotten the one that had its name.
///
/// Proves: SM-33, CC-34, CC-90
#[test]
fn a_job_under_a_deleted_ones_name_begins_with_nothing_of_it() {
    let checkpoints = |uri: &str| {
        Some(CheckpointConfig {
            uri: uri.parse().unwrap(),
            local_path: "/opt/ml/checkpoints".into(),
        })
    };
    let mut lab = Lab::new(true, |job| job.spec.checkpoints = checkpoints("s3://ckpt/first"));
    lab.run();
    lab.world.with(&lab.workload, |one| one.on_term = None);
    lab.world.print(&lab.workload, "first");
    lab.world.write(&lab.workload, "checkpoints", "step", "equal");
    lab.ask_to_stop();
    lab.run();
    lab.world.exit(&lab.workload, 0);
    let old = lab.after(1);
    assert_eq!(old.status(), TrainingJobStatus::Stopped);
    assert_eq!(lab.world.lines(TrainingJob::LOG_GROUP, &old.log_stream(0)), ["first"]);
    assert_eq!(
        lab.world.object("s3://ckpt/first/step").as_deref(),
        Some(b"equal".as_slice())
    );

    // Deleted and made anew; the memory is the old one's, as between two steps of the driver.
    let batch = Batch::default().delete::<TrainingJob>(&key(NAME), Expect::Any);
    lab.world.state().commit(batch).unwrap();
    lab.world.clock.advance(Duration::from_secs(5));
    let network = JobNetwork::new(Some(true), None);
    let (placement, batch) = lab
        .deps
        .place(&network, &key(NAME), &old.arn, Batch::default())
        .unwrap();
    lab.workload = placement.workload.clone();
    let mut new = job(lab.world.now(), placement);
    new.spec.network = network;
    new.spec.checkpoints = checkpoints("s3://ckpt/second");
    let batch = batch.put(&key(NAME), Expect::Absent, &new).unwrap();
    lab.world.state().commit(batch).unwrap();

    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    lab.world.with(&lab.workload, |one| one.on_term = None);
    lab.world.print(&lab.workload, "second");
    lab.world.write(&lab.workload, "checkpoints", "step", "equal");
    lab.after(1);
    lab.ask_to_stop();
    lab.run();
    // SIGTERM before any SIGKILL.
    assert_eq!(lab.world.container(&lab.workload).signals, [false]);
    lab.world.exit(&lab.workload, 0);
    let done = lab.after(1);
    assert_eq!(done.status(), TrainingJobStatus::Stopped);
    assert_eq!(lab.world.lines(TrainingJob::LOG_GROUP, &done.log_stream(0)), ["second"]);
    assert_eq!(
        lab.world.object("s3://ckpt/second/step").as_deref(),
        Some(b"equal".as_slice())
    );
}

/// A transfer that was ended from outside is not the end of what a failed container left.
///
/// Proves: CC-33
#[test]
fn a_failed_containers_output_is_uploaded_though_the_first_transfer_was_ended() {
    let mut lab = Lab::new(true, |_| {});
    let running = lab.run();
    lab.world.write(&lab.workload, "output-data", "log", "y");
    lab.world.exit(&lab.workload, 3);
    lab.world.clock.advance(Duration::from_secs(1));
    lab.world.look(&lab.deps);
    lab.world.fail("put", "held");
    let cut = Arc::new(crate::Cut::default());
    let begun = lab.deps.cuts.begin(&running.arn, cut.clone());
    cut.make();
    let ended = (0..5).any(|_| step(&lab.deps, &key(NAME), &mut lab.memory).is_err());
    assert!(ended, "control: the transfer was ended");
    assert_eq!(lab.job().status(), TrainingJobStatus::InProgress);
    drop(begun);
    lab.world.mend("put");
    assert_eq!(lab.after(1).status(), TrainingJobStatus::Failed);
    assert!(lab.world.object("s3://out/jobs/Churn/output/output.tar.gz").is_some());
}

/// Proves: CC-31, CC-33, SM-41, SM-65
#[test]
fn a_failed_container_names_its_reason_exit_code_and_first_blocked_destination() {
    let mut lab = Lab::new(true, |_| {});
    lab.run();
    lab.world
        .write(&lab.workload, "output", "failure", "cannot fetch weights");
    lab.world.write(&lab.workload, "model", "half", "x");
    lab.world.write(&lab.workload, "output-data", "log", "y");
    let now = lab.world.now();
    lab.world.with(&lab.workload, |one| {
        one.attempts.push(attempt(now));
        one.sight = WATCHED;
    });
    lab.world.exit(&lab.workload, 3);
    let failed = lab.after(1);
    assert_eq!(failed.status(), TrainingJobStatus::Failed);
    assert_eq!(
        failed.failure_reason.as_ref().map(|reason| reason.as_str()),
        Some(
            "AlgorithmError: cannot fetch weights, exit code: 3 [network isolation blocked tcp 203.0.113.10:443 first]"
        )
    );
    assert!(
        lab.world.object("s3://out/jobs/Churn/output/model.tar.gz").is_none(),
        "no model after a failure"
    );
    assert!(lab.world.object("s3://out/jobs/Churn/output/output.tar.gz").is_some());
    let report = isolarium_model::Key::exact(&scope(), lab.workload.as_str());
    let kept = lab
        .world
        .state()
        .get::<IsolationRecord>(&report)
        .unwrap()
        .unwrap()
        .record;
    assert_eq!(kept.attempts.len(), 1);
    assert_eq!(kept.sight, WATCHED);
    let lines = lab.world.lines(
        TrainingJob::LOG_GROUP,
        &format!("{}/network-isolation", failed.log_stream(0)),
    );
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].contains("\"address\":\"203.0.113.10\"") && lines[0].contains("\"count\":3"),
        "{}",
        lines[0]
    );
}

/// Proves: CC-21
#[test]
fn a_job_without_channels_has_no_data_entries() {
    let inputs = |channels: bool| {
        let mut lab = Lab::new(true, |job| {
            if !channels {
                job.spec.channels.clear();
            }
        });
        lab.run();
        lab.world.container(&lab.workload).input
    };
    let with = inputs(true);
    assert!(with.keys().any(|path| path.starts_with("data/")), "control: {with:?}");
    let without = inputs(false);
    assert!(!without.keys().any(|path| path.starts_with("data")), "{without:?}");
    assert_eq!(
        without.get("config/inputdataconfig.json").map(String::as_str),
        Some("{}")
    );
}

/// Proves: CC-34, SM-33
#[test]
fn stop_sends_sigterm_waits_the_grace_and_uploads_afterwards() {
    let mut lab = Lab::new(true, |_| {});
    lab.run();
    lab.world.with(&lab.workload, |one| one.on_term = None);
    lab.world.write(&lab.workload, "model", "model.bin", "partial");
    lab.ask_to_stop();
    let stopping = lab.run();
    assert_eq!(
        (stopping.status(), stopping.secondary),
        (TrainingJobStatus::Stopping, SecondaryStatus::Stopping)
    );
    assert_eq!(lab.world.container(&lab.workload).signals, [false]);
    lab.after(119);
    assert_eq!(
        lab.world.container(&lab.workload).signals,
        [false],
        "no SIGKILL within the grace"
    );
    let stopped = lab.after(1);
    assert_eq!(
        (stopped.status(), stopped.secondary),
        (TrainingJobStatus::Stopped, SecondaryStatus::Stopped)
    );
    assert!(lab.world.object("s3://out/jobs/Churn/output/model.tar.gz").is_some());
}

/// Proves: CC-34
#[test]
fn a_container_that_obeys_sigterm_is_never_killed() {
    let mut lab = Lab::new(true, |_| {});
    lab.run();
    lab.ask_to_stop();
    lab.world.look(&lab.deps);
    step(&lab.deps, &key(NAME), &mut lab.memory).unwrap();
    assert_eq!(lab.world.container(&lab.workload).signals, [false]);
    assert_eq!(lab.run().secondary, SecondaryStatus::Stopped);
}

/// Proves: SM-32
#[test]
fn the_time_limit_ends_the_job_with_its_artifacts() {
    let mut lab = Lab::new(true, |job| job.spec.max_runtime = 60);
    lab.run();
    lab.world.write(&lab.workload, "model", "model.bin", "partial");
    assert_eq!(
        lab.after(59).secondary,
        SecondaryStatus::Training,
        "control: not before the limit"
    );
    let ended = lab.after(1);
    assert_eq!(
        (ended.status(), ended.secondary),
        (TrainingJobStatus::Stopped, SecondaryStatus::MaxRuntimeExceeded)
    );
    assert!(lab.world.object("s3://out/jobs/Churn/output/model.tar.gz").is_some());
}

/// Proves: SM-32
#[test]
fn managed_spot_training_ends_when_its_wait_time_is_over_whichever_limit_comes_first() {
    for (max_wait, end) in [
        (70, SecondaryStatus::MaxRuntimeExceeded),
        (60, SecondaryStatus::MaxRuntimeExceeded),
        (50, SecondaryStatus::MaxWaitTimeExceeded),
    ] {
        let mut lab = Lab::new(true, |job| {
            job.spec.max_runtime = 60;
            job.spec.max_wait = Some(max_wait);
        });
        lab.run();
        let limit = max_wait.min(60);
        let running = lab.after(limit - 1);
        assert_eq!(
            running.secondary,
            SecondaryStatus::Training,
            "control: not before the limit"
        );
        let ended = lab.after(1);
        assert_eq!((ended.status(), ended.secondary), (TrainingJobStatus::Stopped, end));
    }
}

#[test]
fn a_job_stopped_before_it_started_never_runs() {
    let mut lab = Lab::new(true, |_| {});
    lab.ask_to_stop();
    assert_eq!(lab.run().secondary, SecondaryStatus::Stopped);
    assert_eq!(lab.world.lock().launches, 0);
}

/// Proves: NI-14, CC-30
#[test]
fn a_role_without_permission_fails_the_job_naming_the_denied_action() {
    let mut lab = Lab::new(true, |_| {});
    lab.world.fail(
        "link",
        "denied:User: x is not authorized to perform: s3:GetObject on resource: y",
    );
    let failed = lab.run();
    let reason = failed.failure_reason.unwrap();
    assert!(
        reason.as_str().starts_with("ClientError: Data download failed:"),
        "{reason}"
    );
    assert!(
        reason.as_str().contains("not authorized to perform: s3:GetObject"),
        "{reason}"
    );
    assert_eq!(lab.world.lock().launches, 0, "nothing ran");
    let mut control = Lab::new(true, |_| {});
    assert_eq!(
        control.run().secondary,
        SecondaryStatus::Training,
        "control: with the permission it runs"
    );
}

#[test]
fn a_host_that_is_away_delays_the_job_and_an_image_that_cannot_start_fails_it() {
    let mut lab = Lab::new(true, |_| {});
    lab.world.fail("launch", "away");
    assert!(
        step(&lab.deps, &key(NAME), &mut lab.memory).is_err(),
        "the step is to be repeated"
    );
    assert_eq!(lab.job().status(), TrainingJobStatus::InProgress);
    lab.world.mend("launch");
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    let mut bad = Lab::new(true, |_| {});
    bad.world.fail("launch", "exec: no such file");
    let failed = bad.run();
    assert_eq!(
        failed.failure_reason.unwrap().as_str(),
        "ClientError: The container could not be started: exec: no such file"
    );
    assert!(bad.world.lock().removed.contains(&bad.workload));
}

/// Collects the text of every error that is logged.
#[derive(Clone, Default)]
struct ErrorLog(Arc<std::sync::Mutex<String>>);

impl tracing::field::Visit for ErrorLog {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push_str(&format!("{field}={value:?}\n"));
    }
}

impl tracing::Subscriber for ErrorLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Proves: NET-73
#[test]
fn a_host_that_cannot_seal_or_start_a_container_fails_the_job_and_tells_the_operator_why() {
    for (call, given, why) in [
        (
            "launch",
            "seal:nft cannot be run; install the package nftables",
            "nft cannot be run",
        ),
        (
            "launch",
            "seal:the report's programs could not be attached",
            "programs could not be attached",
        ),
        ("launch", "host:no OCI runtime was found; install crun", "install crun"),
        ("launch", "host:no controller for memory", "no controller for memory"),
        (
            "prepare",
            "host:no space left on the disk of the data directory",
            "no space left",
        ),
    ] {
        let log = ErrorLog::default();
        let mut lab = Lab::new(true, |_| {});
        lab.world.fail(call, given);
        let failed = tracing::subscriber::with_default(log.clone(), || lab.run());
        assert_eq!(failed.status(), TrainingJobStatus::Failed, "{given}");
        let reason = failed.failure_reason.unwrap().as_str().to_owned();
        assert!(
            reason.starts_with("InternalServerError: The container could not be started."),
            "{reason}"
        );
        assert!(
            !reason.contains(why),
            "the caller does not read about the host: {reason}"
        );
        let log = log.0.lock().unwrap().clone();
        assert!(
            log.contains(why) && log.contains("isolarium doctor") && log.contains(&NAME.to_ascii_lowercase()),
            "{log}"
        );
        assert_eq!(lab.world.lock().launches, 0, "nothing was started");
    }
    let mut control = Lab::new(true, |_| {});
    assert_eq!(
        control.run().secondary,
        SecondaryStatus::Training,
        "control: on a whole host it runs"
    );
}

/// Proves: CC-91
#[test]
fn a_role_that_may_not_write_logs_loses_lines_but_not_the_job() {
    let mut lab = Lab::new(true, |_| {});
    lab.world.fail("append_log", "denied:no logs:PutLogEvents");
    lab.run();
    lab.world.print(&lab.workload, "loss=0.125;");
    lab.world.exit(&lab.workload, 0);
    let done = lab.after(1);
    assert_eq!(done.secondary, SecondaryStatus::Completed);
    assert_eq!(
        done.final_metrics.get("loss").map(|m| m.value),
        Some(0.125),
        "metrics do not need the permission"
    );
    assert_eq!(
        lab.world.lines(TrainingJob::LOG_GROUP, &done.log_stream(0)),
        Vec::<String>::new()
    );
}

/// Proves: CC-91, IAM-26
#[test]
fn a_role_that_may_write_logs_again_gets_every_line() {
    let mut lab = Lab::new(true, |_| {});
    lab.world.fail("append_log", "denied:no logs:PutLogEvents");
    lab.run();
    lab.world.print(&lab.workload, "first");
    let stream = lab.after(1).log_stream(0);
    assert_eq!(
        lab.world.lines(TrainingJob::LOG_GROUP, &stream),
        Vec::<String>::new(),
        "denied"
    );
    lab.world.mend("append_log");
    lab.world.print(&lab.workload, "second");
    lab.after(6);
    lab.world.print(&lab.workload, "third");
    lab.after(1);
    assert_eq!(
        lab.world.lines(TrainingJob::LOG_GROUP, &stream),
        ["first", "second", "third"]
    );
}

/// Proves: CC-1
#[test]
fn a_death_between_launch_and_record_loses_no_image() {
    let mut lab = Lab::new(true, |_| {});
    let before = lab.job();
    let image = lab.run().run.image.unwrap();
    assert_eq!(image.specified, IMAGE);
    // As if the process had died before its commit: the container runs, and the record knows nothing of it.
    lab.deps
        .update::<TrainingJob>(&key(NAME), |job, batch| {
            *job = before.clone();
            Ok(Some(batch))
        })
        .unwrap();
    lab.restart();
    let job = lab.run();
    assert_eq!(job.secondary, SecondaryStatus::Training);
    assert_eq!(job.run.image, Some(image));
    assert_eq!(lab.world.lock().launches, 1, "control: it was not launched again");
}

/// A restart after any step: the job ends as it would have, its container starts once, its lines appear once.
#[test]
fn a_restart_at_any_step_changes_nothing() {
    for restart_at in 0..12 {
        let mut lab = Lab::new(true, |_| {});
        let mut steps = 0;
        let mut played = 0;
        let done = loop {
            if steps == restart_at {
                lab.restart();
            }
            steps += 1;
            lab.world.look(&lab.deps);
            let next = step(&lab.deps, &key(NAME), &mut lab.memory).unwrap();
            if next == Next::Done {
                break lab.job();
            }
            if lab.job().secondary == SecondaryStatus::Training && played < 3 {
                match played {
                    0 => lab.world.print(&lab.workload, "loss=1;"),
                    1 => {
                        lab.world.print(&lab.workload, "loss=2;");
                        lab.world.write(&lab.workload, "model", "m", "w");
                    }
                    _ => lab.world.exit(&lab.workload, 0),
                }
                played += 1;
            }
            lab.world.clock.advance(Duration::from_secs(1));
            assert!(steps < 100, "restart at {restart_at} never ends");
        };
        assert_eq!(done.secondary, SecondaryStatus::Completed, "restart at {restart_at}");
        assert_eq!(lab.world.lock().launches, 1, "restart at {restart_at}");
        let lines = lab.world.lines(TrainingJob::LOG_GROUP, &done.log_stream(0));
        assert_eq!(lines, ["loss=1;", "loss=2;"], "restart at {restart_at}");
        assert_eq!(
            done.final_metrics.get("loss").map(|m| m.value),
            Some(2.0),
            "restart at {restart_at}"
        );
        assert_eq!(done.transitions.len(), 5, "restart at {restart_at}");
        assert!(lab.world.lock().containers.is_empty(), "restart at {restart_at}");
    }
}

/// Proves: CC-35
#[test]
fn checkpoints_come_in_go_out_while_running_and_mirror_deletions() {
    let mut lab = Lab::new(true, |job| {
        job.spec.checkpoints = Some(CheckpointConfig {
            uri: "s3://ckpt/run".parse().unwrap(),
            local_path: "/opt/ml/checkpoints".into(),
        });
    });
    lab.world.put_object("s3://ckpt/run/old/step-1", b"one");
    lab.world.put_object("s3://ckpt/run/older", b"zero");
    lab.world.put_object("s3://ckpt/runner", b"not below the prefix");
    lab.run();
    let one = lab.world.container(&lab.workload);
    assert_eq!(
        one.files
            .get(&("checkpoints".into(), "old/step-1".into()))
            .map(Vec::as_slice),
        Some(&b"one"[..])
    );
    assert_eq!(one.files.len(), 2);
    assert!(one.spec.mounts.iter().any(|mount| matches!(
        mount,
        Mount::Scratch { target, read_only: false, .. } if target == "/opt/ml/checkpoints"
    )));
    lab.world.write(&lab.workload, "checkpoints", "step-2", "two");
    lab.after(61);
    assert_eq!(
        lab.world.object("s3://ckpt/run/step-2"),
        Some(b"two".to_vec()),
        "uploaded while running"
    );
    assert!(
        !lab.world
            .lock()
            .accesses
            .iter()
            .any(|(_, call, what)| call == "put" && what.contains("older")),
        "what did not change is not uploaded"
    );
    lab.world.with(&lab.workload, |one| {
        one.files.retain(|(_, name), _| name != "step-2" && name != "older");
    });
    lab.world.write(&lab.workload, "checkpoints", "old/step-1", "ONE");
    lab.after(61);
    assert_eq!(lab.world.object("s3://ckpt/run/step-2"), None, "deletion mirrored");
    assert_eq!(
        lab.world.object("s3://ckpt/run/older"),
        None,
        "also of what was there before"
    );
    assert_eq!(
        lab.world.object("s3://ckpt/run/old/step-1"),
        Some(b"ONE".to_vec()),
        "same size, other bytes"
    );
    lab.world.write(&lab.workload, "checkpoints", "last", "z");
    lab.world.exit(&lab.workload, 0);
    lab.after(1);
    assert_eq!(
        lab.world.object("s3://ckpt/run/last"),
        Some(b"z".to_vec()),
        "final synchronisation"
    );
}

/// Proves: CC-32, CC-37
#[test]
fn uncompressed_output_is_uploaded_file_by_file() {
    let mut lab = Lab::new(true, |job| job.spec.output.compression = OutputCompression::None);
    lab.run();
    lab.world.write(&lab.workload, "model", "a/b.bin", "x");
    lab.world.write(&lab.workload, "output-data", "m.json", "y");
    lab.world.exit(&lab.workload, 0);
    let done = lab.after(1);
    assert_eq!(
        lab.world.object("s3://out/jobs/Churn/output/model/a/b.bin"),
        Some(b"x".to_vec())
    );
    assert_eq!(
        lab.world.object("s3://out/jobs/Churn/output/data/m.json"),
        Some(b"y".to_vec())
    );
    assert_eq!(done.model_artifacts().to_string(), "s3://out/jobs/Churn/output/model/");
}

/// Proves: CC-23, CC-27
#[test]
fn prefixes_single_objects_and_manifests_give_the_promised_tree() {
    let mut lab = Lab::new(true, |job| {
        let channel = |name: &str, uri: &str, data_type| Channel {
            name: name.into(),
            uri: uri.parse().unwrap(),
            data_type,
            distribution: Distribution::ShardedByS3Key,
            content_type: None,
            mode: InputMode::File,
            shuffle_seed: None,
            groups: Vec::new(),
        };
        job.spec.channels = vec![
            channel("middle", "s3://data/train/b", S3DataType::S3Prefix),
            channel("single", "s3://data/train/a.csv", S3DataType::S3Prefix),
            channel("listed", "s3://data/list.json", S3DataType::ManifestFile),
        ];
    });
    lab.world.put_object("s3://data/train/batch/1.csv", b"b1");
    lab.world.put_object("s3://data/train/b2.csv", b"b2");
    lab.world.put_object("s3://data/train/batch/", b"");
    lab.world.put_object(
        "s3://data/list.json",
        br#"[{"prefix":"s3://data/train/"},"b2.csv","batch/1.csv"]"#,
    );
    lab.run();
    let input = lab.world.container(&lab.workload).input;
    let data: Vec<(&str, &str)> = input
        .iter()
        .filter_map(|(path, text)| Some((path.strip_prefix("data/")?, text.as_str())))
        .collect();
    assert_eq!(
        data,
        [
            ("listed/b2.csv", "b2"),
            ("listed/batch/1.csv", "b1"),
            ("middle/b2.csv", "b2"),
            ("middle/batch/1.csv", "b1"),
            ("single/a.csv", "1,2"),
        ]
    );
}

#[test]
fn a_key_that_leaves_the_channel_or_clashes_fails_the_job() {
    for (uri, wanted) in [
        ("s3://data/train/../../../etc/x", "cannot be a file name"),
        ("s3://data/train/a.csv/below", "needs a directory where another object"),
    ] {
        let mut lab = Lab::new(true, |_| {});
        lab.world.put_object(uri, b"x");
        let reason = lab.run().failure_reason.unwrap();
        assert!(reason.as_str().contains(wanted), "{reason}");
        assert_eq!(lab.world.lock().launches, 0);
    }
}

/// Proves: CC-84
#[test]
fn only_a_job_with_a_way_out_has_an_address_and_a_credentials_path() {
    let mut open = Lab::new(false, |_| {});
    open.run();
    let spec = open.world.container(&open.workload).spec;
    let uri = |spec: &isolarium_runtime::executor::LaunchSpec| {
        let found = spec
            .process
            .env
            .iter()
            .find(|(name, _)| name == "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(
        uri(&spec),
        open.job().run.placement.credentials_path(),
        "control: the open job has it"
    );
    assert!(uri(&spec).is_some());
    assert_eq!(open.world.state().all::<AddressLease>().unwrap().len(), 1);
    open.world.exit(&open.workload, 0);
    open.after(1);
    assert_eq!(
        open.world.state().all::<AddressLease>().unwrap().len(),
        0,
        "the address is given back"
    );

    let mut sealed = Lab::new(true, |_| {});
    sealed.run();
    let spec = sealed.world.container(&sealed.workload).spec;
    assert_eq!(uri(&spec), None);
    assert_eq!(spec.resolvers, Vec::<std::net::IpAddr>::new());
    assert_eq!(sealed.job().run.placement.attachment, Attachment::Isolated);
    assert_eq!(sealed.world.state().all::<AddressLease>().unwrap().len(), 0);
}

/// Proves: CC-7
#[test]
fn the_operators_own_instance_shapes_become_the_containers_limits() {
    let mut lab = Lab::new(true, |_| {});
    let shape = isolarium_model::sagemaker::InstanceShape {
        vcpus: 1,
        memory_mib: 512,
        accelerators: 0,
    };
    let instance_type = lab.job().spec.instance_type;
    lab.deps.settings.instances = isolarium_model::sagemaker::InstanceTable::new([(instance_type, shape)]);
    lab.run();
    let limits = lab.world.container(&lab.workload).spec.limits;
    assert_eq!((limits.cpu_millis, limits.memory_bytes), (1000, 512 << 20));
}

/// Only who can go out has somebody to trust; the request's own choice of certificates wins, the image's does not.
#[test]
fn the_operators_certificates_are_shown_to_containers_with_a_way_out_alone() {
    let variables = |lab: &Lab, name: &str| {
        let spec = lab.world.container(&lab.workload).spec;
        let found = spec.process.env.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    for (isolated, configured) in [(false, true), (false, false), (true, true)] {
        let mut lab = Lab::new(isolated, |job| {
            job.spec
                .container
                .environment
                .insert("AWS_CA_BUNDLE".into(), "/mine.pem".into());
        });
        let bundle = lab.deps.work.of(&lab.workload).parent().unwrap().join("bundle.pem");
        std::fs::create_dir_all(bundle.parent().unwrap()).unwrap();
        std::fs::write(&bundle, "certificates").unwrap();
        lab.deps.settings.ca_bundle = configured.then_some(bundle);
        lab.run();
        let staged = lab.deps.work.of(&lab.workload).join("ca-bundle.pem");
        let mounted = lab
            .world
            .container(&lab.workload)
            .spec
            .mounts
            .into_iter()
            .find(|mount| {
                matches!(mount, isolarium_runtime::executor::Mount::Input { source, target }
                if source == "ca-bundle.pem" && target == "/opt/isolarium/ca-bundle.pem")
            });
        let shown = configured && !isolated;
        assert_eq!(staged.exists(), shown, "{isolated} {configured}");
        assert_eq!(mounted.is_some(), shown, "{isolated} {configured}");
        let inside = shown.then(|| "/opt/isolarium/ca-bundle.pem".to_string());
        assert_eq!(variables(&lab, "SSL_CERT_FILE"), inside);
        assert_eq!(variables(&lab, "REQUESTS_CA_BUNDLE"), inside);
        assert_eq!(variables(&lab, "AWS_CA_BUNDLE").as_deref(), Some("/mine.pem"));
        if shown {
            assert_eq!(std::fs::read_to_string(&staged).unwrap(), "certificates");
            stage::ca_bundle(&lab.deps, &lab.job().run.placement).unwrap();
        }
    }
}

/// Proves: CC-7, CC-14, CC-15, CC-16, CC-17, CC-18, CC-19, CC-20
#[test]
fn the_container_finds_the_promised_files_variables_and_limits() {
    let mut lab = Lab::new(true, |job| {
        job.spec
            .hyperparameters
            .insert("sagemaker_program".into(), "\"train.py\"".into());
    });
    lab.run();
    let one = lab.world.container(&lab.workload);
    let parse = |name: &str| -> serde_json::Value {
        serde_json::from_str(one.input.get(&format!("config/{name}")).unwrap()).unwrap()
    };
    assert_eq!(
        parse("hyperparameters.json"),
        serde_json::json!({"epochs": "3", "sagemaker_program": "\"train.py\""}),
        "values are not encoded again"
    );
    assert_eq!(
        parse("inputdataconfig.json"),
        serde_json::json!({"train": {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
            "ContentType": "text/csv",
        }})
    );
    assert_eq!(
        parse("resourceconfig.json"),
        serde_json::json!({
            "current_host": "algo-1",
            "current_instance_type": "ml.m5.large",
            "current_group_name": "homogeneousCluster",
            "hosts": ["algo-1"],
            "instance_groups": [{
                "instance_group_name": "homogeneousCluster",
                "instance_type": "ml.m5.large",
                "hosts": ["algo-1"],
            }],
            "network_interface_name": "lo",
        })
    );
    assert!(
        !one.input.values().any(|text| text.contains("s3://")),
        "S3 URIs are not exposed"
    );
    assert_eq!(one.spec.hostname, "algo-1");
    assert_eq!(
        one.spec.hosts,
        [("127.0.0.1".parse().unwrap(), vec!["algo-1".to_string()])]
    );
    let env: BTreeMap<_, _> = one.spec.process.env.iter().cloned().collect();
    for (name, value) in [
        ("TRAINING_JOB_NAME", "Churn"),
        (
            "TRAINING_JOB_ARN",
            "arn:aws:sagemaker:us-east-1:123456789012:training-job/churn",
        ),
        ("AWS_REGION", "us-east-1"),
        ("MODE", "fast"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(
        (one.spec.limits.cpu_millis, one.spec.limits.memory_bytes),
        (2000, 8 << 30)
    );
    let targets: Vec<&str> = one
        .spec
        .mounts
        .iter()
        .map(|mount| match mount {
            Mount::Input { target, .. }
            | Mount::Copied { target, .. }
            | Mount::Scratch { target, .. }
            | Mount::Volume { target, .. } => target.as_str(),
        })
        .collect();
    assert_eq!(
        targets,
        [
            "/opt/ml",
            "/opt/ml/input",
            "/opt/ml/model",
            "/opt/ml/output",
            "/opt/ml/output/data"
        ]
    );
}

/// A job in the VPC of `network::tests`, which the test makes.
fn in_a_vpc(isolated: bool) -> Lab {
    use isolarium_model::ec2::id::{GroupId, SubnetId, VpcId};
    Lab::new(true, |job| {
        let attachment = isolarium_model::sagemaker::VpcAttachment {
            vpc: VpcId::of(crate::network::tests::VPC),
            subnets: vec![SubnetId::of(1)],
            groups: vec![GroupId::of(1)],
        };
        job.spec.network = JobNetwork::new(Some(isolated), Some(attachment));
        job.run.placement.attachment = Attachment::Unattached { isolated, peers: None };
    })
}

fn interfaces(lab: &Lab) -> Vec<isolarium_model::ec2::NetworkInterface> {
    let all = lab.world.state().all().unwrap();
    all.into_iter().map(|stored| stored.record).collect()
}

fn free(lab: &Lab) -> u32 {
    use isolarium_model::ec2::{Subnet, id::SubnetId};
    crate::network::tests::get::<Subnet>(&lab.world, SubnetId::of(1))
        .unwrap()
        .available()
}

/// Proves: VPC-4, VPC-10, VPC-32, NET-66, NET-67, NET-69, NI-18
#[test]
fn a_job_in_a_vpc_takes_two_addresses_moves_its_data_through_one_and_gives_both_back() {
    use isolarium_model::ec2::Holder;
    for isolated in [false, true] {
        let mut lab = in_a_vpc(isolated);
        crate::network::tests::vpc_with(&lab.world, 24);
        let running = lab.run();
        assert_eq!(
            running.secondary,
            SecondaryStatus::Training,
            "{:?}",
            running.failure_reason
        );
        let place = running.run.placement.vpc().cloned().unwrap();
        assert_eq!(free(&lab), 249);
        let held = interfaces(&lab);
        let holders: Vec<_> = held.iter().map(|one| one.holder.clone()).collect();
        let container = match isolated {
            true => Holder::Isolated(lab.workload.clone()),
            false => Holder::Container(lab.workload.clone()),
        };
        assert!(holders.contains(&container) && holders.contains(&Holder::Transfer(lab.workload.clone())));
        for one in &held {
            assert_eq!(one.status(), "in-use");
            assert!(one.description.contains(running.arn.as_str()) && one.source_dest_check);
            assert_eq!(one.requester.as_ref().unwrap().owner, Some(key(NAME)));
        }
        let spec = lab.world.container(&lab.workload).spec;
        let reach = match isolated {
            true => intent::Reach::Nothing,
            false => intent::Reach::Vpc {
                vpc: place.vpc,
                interface: place.container,
            },
        };
        assert_eq!(spec.network.reach, reach);
        let names: Vec<std::net::IpAddr> = if isolated {
            vec![]
        } else {
            vec!["10.0.0.2".parse().unwrap()]
        };
        assert_eq!(spec.resolvers, names);
        assert_eq!(lab.world.vpcs.state().attached.len(), 1, "the transfer interface alone");
        lab.world.write(&lab.workload, "model", "m", "w");
        lab.world.exit(&lab.workload, 0);
        let done = lab.after(1);
        assert_eq!(done.status(), TrainingJobStatus::Completed);
        let via = crate::transfer::Via {
            vpc: place.vpc,
            interface: place.transfer,
        };
        let inner = lab.world.lock();
        let moved: Vec<_> = inner
            .ways
            .iter()
            .filter(|(call, _)| ["list", "link", "put"].contains(&call.as_str()))
            .collect();
        assert!(
            moved.len() >= 3 && moved.iter().all(|(_, way)| *way == Some(via)),
            "{moved:?}"
        );
        assert_eq!(inner.left, [via]);
        let at_ec2: Vec<&str> = inner
            .accesses
            .iter()
            .filter(|(_, _, what)| what == "ec2")
            .map(|(_, call, _)| call.as_str())
            .collect();
        assert_eq!(at_ec2.len(), 13, "{at_ec2:?}");
        assert_eq!(
            at_ec2.iter().collect::<std::collections::BTreeSet<_>>().len(),
            9,
            "P6, no more and no less"
        );
        drop(inner);
        assert_eq!((free(&lab), interfaces(&lab)), (251, vec![]));
        assert!(lab.world.vpcs.state().attached.is_empty());
    }
}

/// Proves: VPC-11
#[test]
fn too_few_addresses_or_a_missing_right_fail_the_job_and_leave_nothing() {
    let mut lab = in_a_vpc(false);
    crate::network::tests::vpc_with(&lab.world, 28);
    let mut subnet: isolarium_model::ec2::Subnet =
        crate::network::tests::get(&lab.world, isolarium_model::ec2::id::SubnetId::of(1)).unwrap();
    for chance in 0..10 {
        subnet
            .take(isolarium_model::ec2::id::InterfaceId::of(99), None, chance)
            .unwrap();
    }
    crate::network::tests::put(&lab.world, &subnet);
    let failed = lab.run();
    let reason = failed.failure_reason.unwrap().to_string();
    assert!(
        reason.starts_with("ClientError: The specified subnets do not have enough free addresses"),
        "{reason}"
    );
    assert_eq!((free(&lab), interfaces(&lab)), (1, vec![]));

    let mut lab = in_a_vpc(false);
    crate::network::tests::vpc_with(&lab.world, 28);
    lab.world.fail("CreateNetworkInterfacePermission", "denied:may not");
    let failed = lab.run();
    assert_eq!(failed.failure_reason.unwrap().as_str(), "ClientError: may not");
    assert_eq!((free(&lab), interfaces(&lab)), (11, vec![]));
    assert_eq!(lab.world.lock().launches, 0);
}

/// Proves: NET-72, NET-73
#[test]
fn a_restart_finds_the_place_again_and_a_host_that_cannot_carry_it_starts_nothing() {
    let mut lab = in_a_vpc(false);
    crate::network::tests::vpc_with(&lab.world, 24);
    lab.world.fail("launch", "away");
    assert!(step(&lab.deps, &key(NAME), &mut lab.memory).is_err(), "to be repeated");
    let before = interfaces(&lab);
    assert_eq!(before.len(), 2);
    lab.restart();
    lab.world.mend("launch");
    assert_eq!(lab.run().secondary, SecondaryStatus::Training);
    assert_eq!(interfaces(&lab), before, "the same two");

    let mut lab = in_a_vpc(false);
    crate::network::tests::vpc_with(&lab.world, 24);
    lab.world.vpcs.state().failing.insert("apply_vpc", "no nft".into());
    let failed = lab.run();
    assert!(
        failed
            .failure_reason
            .unwrap()
            .as_str()
            .starts_with("InternalServerError: ")
    );
    assert_eq!(lab.world.lock().launches, 0);
    assert_eq!(interfaces(&lab), vec![]);
}
