use super::*;
use crate::deps::{Deps, Next};
use crate::fake::{IMAGE, World, key, scope};
use crate::job::{ProcessingMemory, step};
use isolarium_model::WorkloadId;
use isolarium_model::ec2::id::VpcId;
use isolarium_model::sagemaker::processing_job::{LocalPath, ProcessingOutput, ProcessingSpec};
use isolarium_model::sagemaker::training_job::{StopCause, TrainingJobStatus};
use isolarium_model::sagemaker::{Attachment, ContainerSpec, Placement, Tags};
use isolarium_runtime::executor::BlockedAttempt;
use isolarium_store::{Batch, Expect};
use std::sync::Arc;

const NAME: &str = "Sort";

/// One job in a fake world, stepped by hand.
struct Lab {
    world: Arc<World>,
    deps: Deps,
    memory: ProcessingMemory,
    workloads: Vec<WorkloadId>,
}

fn path(text: &str) -> LocalPath {
    LocalPath::parse(text).unwrap()
}

fn input(name: &str, uri: &str, at: &str) -> ProcessingInput {
    ProcessingInput {
        name: name.into(),
        uri: uri.parse().unwrap(),
        data_type: S3DataType::S3Prefix,
        distribution: Distribution::FullyReplicated,
        local_path: path(at),
    }
}

fn output(name: &str, mode: UploadMode) -> ProcessingOutput {
    ProcessingOutput {
        name: name.into(),
        uri: format!("s3://out/{name}").parse().unwrap(),
        mode,
        local_path: path(&format!("/opt/ml/processing/{name}")),
    }
}

impl Lab {
    fn new(instances: usize, edit: impl FnOnce(&mut ProcessingJob)) -> Self {
        let world = World::new();
        for name in ["a", "b", "c"] {
            world.put_object(&format!("s3://data/in/{name}.csv"), name.as_bytes());
        }
        world.put_object("s3://code/sort.py", b"print()");
        let deps = world.deps();
        let arn = ProcessingJob::arn(&scope(), NAME);
        let network = JobNetwork::new(Some(true), None);
        let mut placements: Vec<Placement> = Vec::new();
        for _ in 0..instances {
            placements.push(deps.place(&network, &key(NAME), &arn, Batch::default()).unwrap().0);
        }
        if instances > 1 {
            let peers = VpcId::of(placements[0].workload.number());
            for (number, placement) in placements.iter_mut().enumerate() {
                placement.attachment = Attachment::peer(peers, &placement.workload, number).unwrap();
            }
        }
        let workloads = placements.iter().map(|one| one.workload.clone()).collect();
        let mut job = ProcessingJob {
            name: NAME.into(),
            arn,
            created: world.now(),
            modified: world.now(),
            phase: SecondaryStatus::Starting,
            failure_reason: None,
            exit_message: None,
            started: None,
            ended: None,
            spec: ProcessingSpec {
kms_key: None,
            volume: None,
                container: ContainerSpec {
                    image: IMAGE.into(),
                    environment: BTreeMap::from([("MODE".into(), "fast".into())]),
                },
                entrypoint: Some(vec!["python3".into(), "/opt/ml/processing/input/code/sort.py".into()]),
                arguments: None,
                inputs: vec![
                    input("code", "s3://code/sort.py", "/opt/ml/processing/input/code"),
                    input("data", "s3://data/in", "/opt/ml/processing/input"),
                ],
                outputs: vec![
                    output("sorted", UploadMode::EndOfJob),
                    output("live", UploadMode::Continuous),
                ],
                instance_type: "ml.m5.large".into(),
                role_arn: "arn:aws:iam::123456789012:role/job".parse().unwrap(),
                max_runtime: 3600,
                network,
            },
            run: JobRun::new(placements).unwrap(),
            tags: Tags::new(),
            echo: serde_json::from_value(json!({
                "AppSpecification": {"ImageUri": IMAGE},
                "ProcessingInputs": [{"InputName": "data", "S3Input": {"S3Uri": "s3://data/in", "S3DataType": "S3Prefix"}}],
            }))
            .unwrap(),
        };
        edit(&mut job);
        let batch = Batch::default().put(&key(NAME), Expect::Absent, &job).unwrap();
        world.state().commit(batch).unwrap();
        Self {
            world,
            deps,
            memory: ProcessingMemory::default(),
            workloads,
        }
    }

    /// Steps until the job waits for something.
    fn run(&mut self) -> ProcessingJob {
        for _ in 0..50 {
            let before = self.world.changes();
            self.world.look(&self.deps);
            match step(&self.deps, &key(NAME), &mut self.memory).unwrap() {
                Next::At(time) if time > self.world.now() && self.world.changes() == before => return self.job(),
                Next::Done => return self.job(),
                Next::At(_) => {}
            }
        }
        panic!("the job never waits");
    }

    fn after(&mut self, seconds: u64) -> ProcessingJob {
        self.world.clock.advance(Duration::from_secs(seconds));
        self.run()
    }

    /// A new process: nothing is remembered.
    fn restart(&mut self) {
        self.deps = self.world.deps();
        self.memory = ProcessingMemory::default();
        self.world.look(&self.deps);
    }

    fn job(&self) -> ProcessingJob {
        let stored = self.world.state().get::<ProcessingJob>(&key(NAME)).unwrap();
        stored.unwrap().record
    }

    fn ask_to_stop(&self) {
        let now = self.world.now();
        self.deps
            .update::<ProcessingJob>(&key(NAME), |job, batch| {
                job.run.stop = Some((StopCause::Asked, now));
                job.apply(JobEvent::StopRequested, now)?;
                Ok(Some(batch))
            })
            .unwrap();
    }

    fn text(&self, uri: &str) -> Option<String> {
        let bytes = self.world.object(uri)?;
        Some(String::from_utf8(bytes).unwrap())
    }

    fn write_bytes(&self, instance: usize, file: &str, bytes: &[u8]) {
        let at = (OUTPUT.to_string(), file.to_string());
        let workload = &self.workloads[instance];
        self.world.with(workload, |one| one.files.insert(at, bytes.to_vec()));
    }
}

fn scratches(spec: &LaunchSpec) -> BTreeMap<String, String> {
    let all = spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Scratch { name, target, .. } => Some((target.clone(), name.clone())),
        Mount::Input { .. } | Mount::Copied { .. } | Mount::Volume { .. } => None,
    });
    all.collect()
}

/// Proves: SM-40, CC-40, CC-41, CC-42, CC-43, CC-44, CC-90
#[test]
fn a_job_gets_its_inputs_and_leaves_its_outputs_and_its_message() {
    let mut lab = Lab::new(1, |_| {});
    let running = lab.run();
    assert_eq!(
        (running.phase, running.started),
        (SecondaryStatus::Training, Some(lab.world.now()))
    );
    let one = lab.world.container(&lab.workloads[0]);
    assert_eq!(
        one.spec.process.argv,
        ["python3", "/opt/ml/processing/input/code/sort.py"]
    );
    assert_eq!(one.spec.hostname, "algo-1");
    let files: Vec<&str> = one.input.keys().map(String::as_str).collect();
    assert_eq!(
        files,
        [
            "a.csv",
            "b.csv",
            "c.csv",
            "code/sort.py",
            "processingjobconfig.json",
            "resourceconfig.json"
        ],
        "an input may lie in another, and a folder needs no final slash"
    );
    let inputs: Vec<&Mount> = one
        .spec
        .mounts
        .iter()
        .filter(|one| matches!(one, Mount::Input { .. }))
        .collect();
    assert_eq!(
        inputs.len(),
        2,
        "the inner input is in the outer one's directory: {inputs:?}"
    );
    let config: Value = serde_json::from_str(&one.input["processingjobconfig.json"]).unwrap();
    assert_eq!(config["ProcessingJobName"], NAME);
    assert_eq!(config["StoppingCondition"]["MaxRuntimeInSeconds"], 3600);
    assert_eq!(
        config["ProcessingInputs"][0]["S3Input"]["S3DataDistributionType"],
        "FullyReplicated"
    );
    assert_eq!(config["AppSpecification"]["ContainerArguments"], Value::Null);
    assert!(
        config.as_object().unwrap().contains_key("ProcessingOutputConfig"),
        "absent members are null"
    );
    let own = scratches(&one.spec);
    let (sorted, live) = (&own["/opt/ml/processing/sorted"], &own["/opt/ml/processing/live"]);
    let workload = lab.workloads[0].clone();
    lab.world.print(&workload, "sorting");
    lab.world.write(&workload, sorted, "deep/part.csv", "1");
    lab.world.write(&workload, live, "progress", "10 %");
    lab.world.write(&workload, OUTPUT, MESSAGE, "three rows were sorted");
    lab.after(61);
    assert_eq!(
        lab.text("s3://out/live/progress").as_deref(),
        Some("10 %"),
        "while it runs"
    );
    assert_eq!(lab.text("s3://out/sorted/deep/part.csv"), None, "not before its end");
    lab.world.write(&workload, live, "progress", "100 %");
    lab.world.exit(&workload, 0);
    let done = lab.after(1);
    assert_eq!(done.status(), TrainingJobStatus::Completed);
    assert_eq!(done.ended, Some(lab.world.now()));
    assert_eq!(done.exit_message.as_deref(), Some("three rows were sorted"));
    assert_eq!(lab.text("s3://out/live/progress").as_deref(), Some("100 %"));
    assert_eq!(lab.text("s3://out/sorted/deep/part.csv").as_deref(), Some("1"));
    assert_eq!(
        lab.world.lines("/aws/sagemaker/ProcessingJobs", &done.log_stream(0)),
        ["sorting"]
    );
    assert!(lab.world.lock().containers.is_empty(), "nothing is left on the host");
}

/// Proves: CC-28, CC-31, CC-43, CC-44
#[test]
fn instances_share_the_objects_and_their_messages_follow_each_other() {
    let mut lab = Lab::new(2, |job| {
        job.spec.inputs = vec![ProcessingInput {
            distribution: Distribution::ShardedByS3Key,
            ..input("data", "s3://data/in/", "/opt/ml/processing/input")
        }];
    });
    lab.run();
    for (workload, (host, share)) in lab.workloads.iter().zip([("algo-1", 2), ("algo-2", 1)]) {
        let one = lab.world.container(workload);
        let config: Value = serde_json::from_str(&one.input["resourceconfig.json"]).unwrap();
        assert_eq!(config, json!({"current_host": host, "hosts": ["algo-1", "algo-2"]}));
        let objects = one.input.keys().filter(|name| name.ends_with(".csv")).count();
        assert_eq!((one.spec.hostname.as_str(), objects), (host, share));
    }
    let workloads = lab.workloads.clone();
    for (workload, text) in workloads.iter().zip(["one, ", "two"]) {
        lab.world.write(workload, OUTPUT, MESSAGE, text);
        lab.world.write(workload, &scratch(0), &text[..3], text);
        lab.world.exit(workload, 0);
    }
    let done = lab.after(1);
    assert_eq!(done.status(), TrainingJobStatus::Completed);
    assert_eq!(done.exit_message.as_deref(), Some("one, two"));
    assert_eq!(lab.text("s3://out/sorted/one").as_deref(), Some("one, "));
    assert_eq!(lab.text("s3://out/sorted/two").as_deref(), Some("two"));
}

/// Proves: CC-44, SM-40
#[test]
fn a_long_message_is_cut_between_characters_and_one_that_is_no_text_fails_the_job() {
    let mut lab = Lab::new(1, |_| {});
    lab.run();
    lab.write_bytes(0, MESSAGE, "é".repeat(600).replacen('é', "x", 1).as_bytes());
    lab.world.exit(&lab.workloads[0], 0);
    let done = lab.after(1);
    assert_eq!(done.status(), TrainingJobStatus::Completed);
    let message = done.exit_message.unwrap();
    assert_eq!(
        (message.len(), message.chars().count()),
        (1023, 512),
        "a cut character is left out"
    );

    let mut lab = Lab::new(1, |_| {});
    lab.run();
    lab.write_bytes(0, MESSAGE, b"caf\xe9");
    lab.world.write(&lab.workloads[0], &scratch(0), "result", "kept");
    lab.world.exit(&lab.workloads[0], 0);
    let failed = lab.after(1);
    assert_eq!(failed.status(), TrainingJobStatus::Failed);
    let reason = failed.failure_reason.unwrap().to_string();
    assert!(
        reason.starts_with("ClientError: The exit message") && reason.contains("UTF-8"),
        "{reason}"
    );
    assert_eq!(failed.exit_message, None);
    assert_eq!(lab.text("s3://out/sorted/result").as_deref(), Some("kept"));
}

/// Proves: CC-31, CC-42, CC-44, SM-41, SM-65
#[test]
fn a_failed_job_tells_its_message_its_exit_code_and_what_was_blocked() {
    let mut lab = Lab::new(1, |_| {});
    lab.run();
    let (workload, now) = (lab.workloads[0].clone(), lab.world.now());
    let attempt = BlockedAttempt {
        first: now,
        last: now,
        count: 1,
        pid: 7,
        process: "curl".into(),
        protocol: "tcp".into(),
        address: "203.0.113.10".parse().unwrap(),
        port: 443,
        name: None,
    };
    lab.world.with(&workload, |one| one.attempts.push(attempt));
    lab.world.write(&workload, OUTPUT, MESSAGE, "no rows");
    lab.world.write(&workload, &scratch(0), "half", "1");
    lab.world.exit(&workload, 3);
    let failed = lab.after(1);
    assert_eq!(failed.status(), TrainingJobStatus::Failed);
    assert_eq!(
        failed.failure_reason.unwrap().as_str(),
        "AlgorithmError: , exit code: 3 [network isolation blocked tcp 203.0.113.10:443 first]"
    );
    assert_eq!(failed.exit_message.as_deref(), Some("no rows"));
    assert_eq!(lab.text("s3://out/sorted/half").as_deref(), Some("1"));
}

/// Proves: CC-45, SM-40
#[test]
fn a_stop_and_the_time_limit_send_sigterm_first_and_upload_afterwards() {
    for (asked, seconds) in [(true, 0), (false, 3600)] {
        let mut lab = Lab::new(1, |_| {});
        lab.run();
        let workload = lab.workloads[0].clone();
        lab.world.with(&workload, |one| one.on_term = None);
        lab.world.write(&workload, &scratch(0), "half", "1");
        if asked {
            lab.ask_to_stop();
        }
        let stopping = lab.after(seconds);
        assert_eq!(stopping.status(), TrainingJobStatus::Stopping);
        assert_eq!(lab.world.container(&workload).signals, [false]);
        // A new process takes the stop up where the old one left it.
        lab.restart();
        lab.after(119);
        assert!(
            !lab.world.container(&workload).signals.contains(&true),
            "SIGKILL not before the grace is over"
        );
        let stopped = lab.after(2);
        assert_eq!(stopped.status(), TrainingJobStatus::Stopped);
        assert_eq!(lab.text("s3://out/sorted/half").as_deref(), Some("1"));
    }
}

/// Proves: CC-30, CC-41
#[test]
fn inputs_that_cannot_be_laid_out_fail_the_job() {
    for (edit, text) in [
        (
            input("code", "s3://code/none", "/opt/ml/processing/input/code"),
            "ClientError: Data download failed:No S3 objects found under \"s3://code/none\"",
        ),
        (
            input("code", "s3://code/sort.py", "/opt/ml/processing/input/a.csv"),
            "ClientError: Data download failed:An object of another input has the path /opt/ml/processing/input/a.csv",
        ),
    ] {
        let mut lab = Lab::new(1, |job| job.spec.inputs[0] = edit);
        let failed = lab.run();
        assert_eq!(failed.status(), TrainingJobStatus::Failed);
        let reason = failed.failure_reason.unwrap().to_string();
        assert!(reason.starts_with(text), "{reason}");
        assert_eq!((failed.started, failed.ended.is_some()), (None, true));
        assert!(lab.world.lock().containers.is_empty());
    }
}

/// Proves: CC-40
#[test]
fn an_image_without_a_program_fails_the_job_and_says_so() {
    let mut lab = Lab::new(1, |job| job.spec.entrypoint = Some(Vec::new()));
    let failed = lab.run();
    let reason = failed.failure_reason.unwrap().to_string();
    assert!(
        reason.starts_with("ClientError: The image ") && reason.contains("neither an entry point"),
        "{reason}"
    );
}

/// Proves: NET-72, SM-40
#[test]
fn a_new_process_adopts_the_containers_and_ends_the_job_once() {
    let mut lab = Lab::new(1, |_| {});
    lab.run();
    let workload = lab.workloads[0].clone();
    lab.world.write(&workload, &scratch(1), "progress", "50 %");
    lab.restart();
    let running = lab.after(61);
    assert_eq!(running.phase, SecondaryStatus::Training);
    assert_eq!(lab.world.lock().launches, 1, "nothing is started twice");
    assert_eq!(lab.text("s3://out/live/progress").as_deref(), Some("50 %"));
    lab.world.exit(&workload, 0);
    lab.restart();
    assert_eq!(lab.after(1).status(), TrainingJobStatus::Completed);
}
