use super::*;
use crate::fake::{IMAGE, World, key, scope};
use crate::held::Held;
use isolarium_model::sagemaker::model::{ContainerSpec, ModelData, ModelSpec};
use isolarium_model::sagemaker::training_job::S3DataType;
use isolarium_model::sagemaker::transform_job::{
    AssembleWith, BatchStrategy, DataProcessing, ModelClient, SplitType, TransformEvent, TransformInput,
    TransformOutput, TransformRun, TransformSpec,
};
use isolarium_model::sagemaker::{JobNetwork, Placement};
use isolarium_runtime::executor::BlockedAttempt;
use isolarium_store::{Batch, Expect, StateStore};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

const ROLE: &str = "arn:aws:iam::123456789012:role/exec";

fn job(change: impl FnOnce(&mut TransformSpec)) -> TransformJob {
    let mut spec = TransformSpec {
        model_name: "m".into(),
        model: ModelSpec {
            package: None,
            container: ContainerSpec {
                image: IMAGE.into(),
                environment: [("A".into(), "model".into()), ("B".into(), "model".into())].into(),
            },
            data: None,
            role_arn: ROLE.parse().unwrap(),
            network: JobNetwork::new(Some(true), None),
            several: None,
        },
        environment: [("B".into(), "job".into())].into(),
        instance_type: "ml.m5.large".into(),
        volume: None,
        instance_count: 1,
        input: TransformInput {
            uri: "s3://data/in/".parse().unwrap(),
            data_type: S3DataType::S3Prefix,
            content_type: Some("text/csv".into()),
            gzip: false,
            split: SplitType::Line,
        },
        output: TransformOutput {
            kms_key: None,
            uri: "s3://data/out".parse().unwrap(),
            accept: Some("text/csv".into()),
            assemble: AssembleWith::Line,
        },
        client: ModelClient { timeout: 5, retries: 2 },
        max_concurrent: None,
        max_payload_mb: None,
        strategy: Some(BatchStrategy::SingleRecord),
        processing: DataProcessing::default(),
    };
    change(&mut spec);
    TransformJob {
        name: "Job".into(),
        arn: TransformJob::arn(&scope(), "Job"),
        created: Timestamp(1_700_000_000_000),
        modified: Timestamp(1_700_000_000_000),
        status: TransformJobStatus::InProgress,
        failure_reason: None,
        started: None,
        ended: None,
        spec,
        run: TransformRun::default(),
        tags: Default::default(),
        echo: Default::default(),
    }
}

/// One engine process and its job.
struct Life {
    world: Arc<World>,
    deps: Deps,
    memory: TransformMemory,
}

impl Life {
    fn new(change: impl FnOnce(&mut TransformSpec)) -> Self {
        let world = World::new();
        let deps = world.deps();
        let job = job(change);
        let batch = Batch::default().put(&key("Job"), Expect::Absent, &job).unwrap();
        world.store.commit(batch).unwrap();
        answering(&world, |_, _, body| Some((200, body.to_ascii_uppercase())));
        Self {
            world,
            deps,
            memory: TransformMemory::default(),
        }
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.world.put_object(&format!("s3://data/in/{name}"), bytes.as_ref());
    }

    fn output(&self, name: &str) -> Option<String> {
        let bytes = self.world.object(&format!("s3://data/out/{name}.out"));
        bytes.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    fn job(&self) -> TransformJob {
        self.world
            .state()
            .get::<TransformJob>(&key("Job"))
            .unwrap()
            .unwrap()
            .record
    }

    /// Steps until the record satisfies `enough`.
    fn until(&mut self, what: &str, enough: impl Fn(&TransformJob) -> bool) -> TransformJob {
        for _ in 0..5_000 {
            let next = step(&self.deps, &key("Job"), &mut self.memory).unwrap();
            self.world.look(&self.deps);
            let job = self.job();
            if enough(&job) {
                return job;
            }
            assert!(next != Next::Done || job.status.is_final(), "{what}: {job:?}");
            self.world.clock.advance(Duration::from_millis(200));
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{what}: {:?}", self.job());
    }

    fn run_out(&mut self) -> TransformJob {
        self.until("an end", |job| job.status.is_final())
    }

    fn data_log(&self) -> Vec<String> {
        let inner = self.world.lock();
        let own = inner
            .streams
            .iter()
            .filter(|((_, stream), _)| stream.ends_with("/data-log"));
        own.flat_map(|(_, lines)| lines.clone()).collect()
    }
}

fn answering(
    world: &Arc<World>,
    invocations: impl Fn(&str, &str, &[u8]) -> Option<(u16, Vec<u8>)> + Send + Sync + 'static,
) {
    world.lock().answers = Some(Arc::new(move |line: &str, head: &str, body: &[u8]| {
        if line.starts_with("GET /ping") {
            return Some((200, Vec::new()));
        }
        if line.starts_with("GET /execution-parameters") {
            return Some((404, Vec::new()));
        }
        assert!(line.starts_with("POST /invocations HTTP/1.1"), "{line}");
        invocations(line, head, body)
    }));
}

/// Proves: CC-64, CC-65, CC-67, CC-71, CC-72, CC-73, SM-39
#[test]
fn each_object_becomes_an_output_of_its_name() {
    let mut life = Life::new(|spec| {
        spec.max_concurrent = Some(4);
        spec.max_payload_mb = Some(1);
    });
    let many: String = (0..200).map(|n| format!("row{n}\n")).collect();
    life.put("a.csv", &many);
    life.put("deep/er/b.csv", "x\ny");
    life.put("empty.csv", "");
    life.put("folder/", "");
    answering(&life.world, |_, head, body| {
        assert!(
            head.contains("content-type: text/csv") && head.contains("accept: text/csv"),
            "{head}"
        );
        Some((200, body.to_ascii_uppercase()))
    });
    let done = life.run_out();
    assert_eq!(
        (done.status, done.failure_reason),
        (TransformJobStatus::Completed, None)
    );
    assert!(done.started.is_some() && done.ended.is_some());
    assert_eq!(life.output("a.csv").unwrap(), many.to_ascii_uppercase());
    assert_eq!(life.output("deep/er/b.csv").unwrap(), "X\nY\n");
    assert_eq!(life.output("empty.csv").unwrap(), "");
    let outputs = life
        .world
        .lock()
        .objects
        .keys()
        .filter(|uri| uri.starts_with("s3://data/out"))
        .count();
    assert_eq!(outputs, 3, "as many outputs as objects");
    let log = life.data_log();
    assert!(
        log[0].ends_with(":[sagemaker logs]: MaxConcurrentTransforms=4, MaxPayloadInMB=1, BatchStrategy=SINGLE_RECORD"),
        "{log:?}"
    );
    assert!(life.world.lock().containers.is_empty(), "nothing is left on the host");
    assert!(life.world.lock().sources.is_empty());
}

/// Proves: CC-64
#[test]
fn the_container_serves_and_knows_what_the_request_set() {
    let mut life = Life::new(|spec| {
        spec.strategy = None;
        spec.max_payload_mb = Some(3);
    });
    life.put("a", "x");
    let job = life.until("a launch", |job| {
        job.run.instances.iter().any(|one| one.launched.is_some())
    });
    let spec = life.world.container(&job.run.instances[0].placement.workload).spec;
    assert_eq!(spec.process.argv, ["python3", "/app/main.py", "serve"]);
    let value = |name: &str| {
        let all = spec.process.env.iter().rev();
        all.clone()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!((value("A"), value("B")), (Some("model"), Some("job")));
    assert_eq!(
        (value("SAGEMAKER_BATCH"), value("SAGEMAKER_MAX_PAYLOAD_IN_MB")),
        (Some("true"), Some("3"))
    );
    assert_eq!(value("SAGEMAKER_BATCH_STRATEGY"), None);
    assert_eq!(value("SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"), None);
    assert_eq!(value("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), None, "isolated");
}

/// Proves: CC-65, CC-66, CC-69
#[test]
fn the_containers_parameters_count_where_the_request_is_silent() {
    let mut life = Life::new(|spec| spec.strategy = None);
    life.put("a", "x\ny\nz\n");
    let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&bodies);
    life.world.lock().answers = Some(Arc::new(move |line: &str, _: &str, body: &[u8]| {
        if line.starts_with("GET /execution-parameters") {
            let told = r#"{"MaxConcurrentTransforms": 8, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 2}"#;
            return Some((200, told.into()));
        }
        if line.starts_with("POST") {
            seen.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
        }
        Some((200, body.to_vec()))
    }));
    assert_eq!(life.run_out().status, TransformJobStatus::Completed);
    let mut all = bodies.lock().unwrap().clone();
    all.sort();
    assert_eq!(all, ["x", "y", "z"]);
    assert!(life.data_log()[0].ends_with("MaxConcurrentTransforms=8, MaxPayloadInMB=2, BatchStrategy=SINGLE_RECORD"));
}

/// Proves: CC-71
#[test]
fn so_many_requests_as_allowed_run_at_once_and_no_more() {
    let mut life = Life::new(|spec| spec.max_concurrent = Some(3));
    life.put("a", (0..12).map(|n| format!("{n:02}\n")).collect::<String>());
    // Nobody is answered before three wait: with fewer at once the job would never end.
    let gate = Arc::new((Mutex::new((0_usize, 0_usize)), Condvar::new()));
    let most = Arc::new(AtomicUsize::new(0));
    let (at, highest) = (Arc::clone(&gate), Arc::clone(&most));
    answering(&life.world, move |_, _, body| {
        let mut state = at.0.lock().unwrap();
        state.0 += 1;
        highest.fetch_max(state.0 - state.1, Ordering::SeqCst);
        at.1.notify_all();
        let own_round = state.0.div_ceil(3) * 3;
        let mut state = at.1.wait_while(state, |state| state.0 < own_round).unwrap();
        state.1 += 1;
        Some((200, body.to_vec()))
    });
    assert_eq!(life.run_out().status, TransformJobStatus::Completed);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    let want: String = (0..12).map(|n| format!("{n:02}\n")).collect();
    assert_eq!(life.output("a").unwrap(), want, "in the order of the input");
}

/// Proves: CC-68, CC-70, CC-76
#[test]
fn an_object_without_limit_is_streamed_and_gzip_is_taken_off() {
    let mut life = Life::new(|spec| {
        spec.max_payload_mb = Some(0);
        spec.input.split = SplitType::None;
        spec.input.gzip = true;
        spec.output.assemble = AssembleWith::None;
    });
    let text = "0123456789".repeat(300_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    life.put("a.gz", gzip.finish().unwrap());
    answering(&life.world, |_, head, body| {
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        // A large result waits in a file.
        Some((200, body.to_vec()))
    });
    assert_eq!(life.run_out().status, TransformJobStatus::Completed);
    assert!(life.output("a.gz").unwrap() == text);
}

/// Proves: CC-69, CC-75, SM-41
#[test]
fn a_bad_object_has_no_output_and_the_others_have() {
    let mut life = Life::new(|spec| spec.max_payload_mb = Some(1));
    life.put("a.csv", "good\n");
    life.put("b.csv", "good\nbad\ngood\n");
    life.put("c.csv", "good\n");
    life.put("d.csv", "x".repeat(1 << 20 | 1));
    answering(&life.world, |_, _, body| match body {
        b"bad" => Some((400, b"this row\nis bad".to_vec())),
        _ => Some((200, body.to_vec())),
    });
    let done = life.run_out();
    assert_eq!(done.status, TransformJobStatus::Failed);
    assert_eq!(
        done.failure_reason.unwrap().as_str(),
        "ClientError: See job logs for more information"
    );
    assert_eq!(life.output("a.csv").unwrap(), "good\n");
    assert_eq!(life.output("b.csv"), None, "nothing of an object that failed in part");
    assert_eq!(life.output("c.csv").unwrap(), "good\n");
    assert_eq!(life.output("d.csv"), None, "a record above the limit");
    let log = life.data_log().join("\n");
    for line in [
        "data/in/b.csv: ClientError: 400",
        "data/in/b.csv: Message:",
        "data/in/b.csv: is bad",
        "data/in/d.csv: Too much data for max payload size",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

/// Proves: CC-74, SM-41
#[test]
fn failures_of_the_container_are_tried_again_and_refusals_are_not() {
    for (status, retries, tries, end) in [
        (500, 2, 3, "AlgorithmError"),
        (503, 0, 1, "AlgorithmError"),
        (404, 3, 1, "ClientError"),
    ] {
        let mut life = Life::new(|spec| spec.client.retries = retries);
        life.put("a", "x");
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        answering(&life.world, move |_, _, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            Some((status, b"no".to_vec()))
        });
        let done = life.run_out();
        assert_eq!(count.load(Ordering::SeqCst), tries, "{status}");
        assert_eq!(
            done.failure_reason.unwrap().as_str(),
            format!("{end}: See job logs for more information")
        );
    }
    let mut life = Life::new(|_| {});
    life.put("a", "x");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    answering(&life.world, move |_, _, body| {
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Some((500, Vec::new())),
            _ => Some((200, body.to_vec())),
        }
    });
    assert_eq!(
        life.run_out().status,
        TransformJobStatus::Completed,
        "a further try that works is enough"
    );
}

/// Proves: CC-74
#[test]
fn a_container_that_says_nothing_is_not_waited_for_longer_than_the_request_allows() {
    let mut life = Life::new(|spec| {
        spec.client = ModelClient { timeout: 1, retries: 0 };
    });
    life.put("a", "x");
    answering(&life.world, |_, _, _| None);
    let done = life.run_out();
    assert_eq!(
        done.failure_reason.unwrap().as_str(),
        "AlgorithmError: See job logs for more information"
    );
    assert!(
        life.data_log()
            .join("\n")
            .contains("data/in/a: Unable to get response from algorithm")
    );
}

/// Proves: CC-67
#[test]
fn several_instances_share_the_objects() {
    let mut life = Life::new(|spec| {
        spec.instance_count = 3;
        spec.input.split = SplitType::None;
    });
    for n in 0..7 {
        life.put(&format!("{n}"), format!("{n}"));
    }
    let done = life.run_out();
    assert_eq!(done.status, TransformJobStatus::Completed, "{done:?}");
    let shares: Vec<u64> = done.run.instances.iter().map(|one| one.done).collect();
    assert_eq!(shares, [3, 2, 2]);
    for n in 0..7 {
        assert_eq!(life.output(&format!("{n}")).unwrap(), format!("{n}\n"));
    }
    let mut idle = Life::new(|spec| spec.instance_count = 3);
    idle.put("only", "x\n");
    assert_eq!(
        idle.run_out().status,
        TransformJobStatus::Completed,
        "instances without an object idle"
    );
}

/// Proves: CC-77, CC-79
#[test]
fn results_are_joined_to_what_was_sent_in_part() {
    let mut life = Life::new(|spec| {
        spec.strategy = Some(BatchStrategy::MultiRecord);
        spec.processing = DataProcessing {
            input_filter: "$[1:]".into(),
            output_filter: "$[0,-1]".into(),
            join: true,
        };
    });
    life.put("a.csv", "id1,1,2\nid2,3,4\n");
    answering(&life.world, |_, _, body| {
        assert_eq!(body, b"1,2\n3,4");
        Some((200, b"low\nhigh\n".to_vec()))
    });
    assert_eq!(life.run_out().status, TransformJobStatus::Completed);
    assert_eq!(life.output("a.csv").unwrap(), "id1,low\nid2,high\n");
}

/// Proves: CC-71, CC-77
#[test]
fn results_that_are_filtered_share_one_bound_of_memory() {
    let mut life = Life::new(|spec| {
        spec.max_concurrent = Some(8);
        spec.max_payload_mb = Some(1);
        spec.processing.output_filter = "$[0]".into();
    });
    let bound = 3 << 20;
    life.deps.held = Arc::new(Held::new(bound));
    life.put("a", (0..12).map(|n| format!("{n:02}\n")).collect::<String>());
    let long = "x".repeat(2 << 20);
    let column = long.clone();
    answering(&life.world, move |_, _, body| {
        Some((200, [body, column.as_bytes(), b",1"].concat()))
    });
    assert_eq!(life.run_out().status, TransformJobStatus::Completed);
    let want: String = (0..12).map(|n| format!("{n:02}{long}\n")).collect();
    assert!(life.output("a").unwrap() == want, "in the order of the input");
    let peak = life.deps.held.peak();
    assert!((2 << 20..=bound).contains(&peak), "{peak}");
    assert_eq!(life.deps.held.now(), 0);
}

/// Proves: SM-39
#[test]
fn a_stopped_job_ends_its_container_and_stores_nothing_more() {
    let mut life = Life::new(|_| {});
    life.put("a", "x");
    life.put("b", "y");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    answering(&life.world, move |_, _, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        None
    });
    let waiting = Arc::clone(&asked);
    life.until("a request", |_| waiting.load(Ordering::SeqCst) > 0);
    let mut job = life.job();
    let now = life.world.now();
    job.apply(TransformEvent::StopRequested, now).unwrap();
    job.run.stop = Some(now);
    let workload = job.run.instances[0].placement.workload.clone();
    life.world
        .store
        .commit(Batch::default().put(&key("Job"), Expect::Any, &job).unwrap())
        .unwrap();
    step(&life.deps, &key("Job"), &mut life.memory).unwrap();
    assert_eq!(
        life.world.container(&workload).signals,
        [false],
        "SIGTERM, and time to react"
    );
    let done = life.run_out();
    assert_eq!((done.status, done.failure_reason), (TransformJobStatus::Stopped, None));
    assert_eq!((life.output("a"), life.output("b")), (None, None));
    assert!(life.world.lock().containers.is_empty());
}

/// Proves: SM-39
#[test]
fn nothing_is_stored_after_a_stop_that_the_loop_has_not_seen() {
    for stops in [false, true] {
        let mut life = Life::new(|spec| spec.input.split = SplitType::None);
        life.put("a", "x");
        let world = Arc::downgrade(&life.world);
        // The stop is answered while the last result is on its way.
        answering(&life.world, move |_, _, body| {
            if stops {
                let world = world.upgrade()?;
                let mut job = world.state().get::<TransformJob>(&key("Job")).ok()??.record;
                let now = job.modified;
                job.apply(TransformEvent::StopRequested, now).ok()?;
                job.run.stop = Some(now);
                let batch = Batch::default().put(&key("Job"), Expect::Any, &job).ok()?;
                world.state().commit(batch).ok()?;
            }
            Some((200, body.to_vec()))
        });
        while life.memory.instances.values().all(|own| own.run.is_none()) {
            step(&life.deps, &key("Job"), &mut life.memory).unwrap();
            life.world.look(&life.deps);
            life.world.clock.advance(Duration::from_millis(200));
        }
        let begun = |life: &Life| {
            life.memory
                .instances
                .values()
                .any(|own| own.run.as_ref().is_some_and(Running::is_over))
        };
        while !begun(&life) {
            std::thread::yield_now();
        }
        assert_eq!(life.output("a").is_some(), !stops);
        let want = match stops {
            true => TransformJobStatus::Stopped,
            false => TransformJobStatus::Completed,
        };
        let done = life.run_out();
        assert_eq!(done.status, want);
        assert_eq!(life.output("a").is_some(), !stops);
    }
}

/// Proves: SM-39
#[test]
fn a_container_that_ignores_sigterm_is_killed_after_the_grace() {
    let mut life = Life::new(|_| {});
    life.put("a", "x");
    life.world.lock().new_on_term = None;
    answering(&life.world, |_, _, _| None);
    life.until("a launch", |job| {
        job.run.instances.iter().any(|one| one.launched.is_some())
    });
    let mut job = life.job();
    let now = life.world.now();
    job.apply(TransformEvent::StopRequested, now).unwrap();
    job.run.stop = Some(now);
    life.world
        .store
        .commit(Batch::default().put(&key("Job"), Expect::Any, &job).unwrap())
        .unwrap();
    let done = life.run_out();
    assert_eq!(done.status, TransformJobStatus::Stopped);
    assert!(
        done.ended.unwrap().since(now) >= life.deps.settings.hosting_grace,
        "not before the grace was over"
    );
}

/// Proves: SM-39
#[test]
fn a_new_process_goes_on_where_the_last_note_says() {
    let mut life = Life::new(|spec| spec.input.split = SplitType::None);
    for n in 0..6 {
        life.put(&format!("{n}"), format!("{n}"));
    }
    // Three objects are answered, the fourth is not.
    answering(&life.world, |_, _, body| {
        (body < b"3".as_slice()).then(|| (200, body.to_vec()))
    });
    let job = life.until("three objects", |job| {
        job.run.instances.first().is_some_and(|one| one.done == 3)
    });
    assert_eq!(job.status, TransformJobStatus::InProgress);
    // The input changes meanwhile: what was dealt out stays.
    life.put("00-new", "new");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&asked);
    answering(&life.world, move |_, _, body| {
        seen.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
        Some((200, body.to_vec()))
    });
    let old = std::mem::take(&mut life.memory);
    for own in old.instances.values() {
        own.run.as_ref().unwrap().cancel();
    }
    life.deps = life.world.deps();
    life.world.look(&life.deps);
    let done = life.run_out();
    assert_eq!(done.status, TransformJobStatus::Completed);
    assert_eq!(life.world.lock().launches, 1, "the container lives on");
    let mut asked = asked.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked, ["3", "4", "5"], "finished objects are not sent again");
    assert_eq!(life.output("5").unwrap(), "5\n");
    assert_eq!(life.output("00-new"), None);
}

/// Proves: SM-41, NI-21
#[test]
fn what_ends_the_container_ends_the_job_and_names_the_first_blocked_attempt() {
    let mut life = Life::new(|_| {});
    life.put("a", "x");
    answering(&life.world, |_, _, _| None);
    let job = life.until("a launch", |job| {
        job.run.instances.iter().any(|one| one.launched.is_some())
    });
    let workload = job.run.instances[0].placement.workload.clone();
    life.world.print(&workload, "a last word");
    life.world.with(&workload, |one| {
        one.attempts.push(BlockedAttempt {
            first: Timestamp(1),
            last: Timestamp(1),
            count: 1,
            pid: 1,
            process: "python3".into(),
            protocol: "tcp".into(),
            address: "203.0.113.10".parse().unwrap(),
            port: 443,
            name: None,
        });
    });
    life.world.exit(&workload, 3);
    life.world.look(&life.deps);
    let done = life.run_out();
    assert_eq!(
        done.failure_reason.as_ref().unwrap().as_str(),
        "AlgorithmError: The model container ended with exit code 3 [network isolation blocked tcp 203.0.113.10:443 first]"
    );
    let stream = done.log_stream(&done.run.instances[0]);
    assert_eq!(life.world.lines(LOG_GROUP, &stream), ["a last word"]);
    assert_eq!(
        life.world
            .lines(LOG_GROUP, &format!("{stream}/network-isolation"))
            .len(),
        1
    );
    let placement: &Placement = &done.run.instances[0].placement;
    assert!(placement.isolated());
}

/// Proves: NET-73
#[test]
fn a_host_that_cannot_seal_a_container_fails_the_job_and_starts_nothing() {
    let run = |faulty: bool| {
        let mut life = Life::new(|_| {});
        life.put("a", "x");
        if faulty {
            life.world.fail("launch", "seal:nft cannot be run");
        }
        let done = life.run_out();
        let launches = life.world.lock().launches;
        (done, launches, life.output("a"))
    };
    let (failed, launches, output) = run(true);
    assert_eq!(failed.status, TransformJobStatus::Failed);
    let reason = failed.failure_reason.unwrap().as_str().to_owned();
    assert!(
        reason.starts_with("InternalServerError: The container could not be started.") && !reason.contains("nft"),
        "{reason}"
    );
    assert_eq!((launches, output), (0, None));
    let (done, launches, output) = run(false);
    assert_eq!(done.status, TransformJobStatus::Completed, "control");
    assert_eq!((launches, output.as_deref()), (1, Some("X\n")));
}

/// Proves: CC-49
#[test]
fn a_container_that_never_answers_its_ping_fails_the_job() {
    let mut life = Life::new(|_| {});
    life.put("a", "x");
    life.world.lock().new_answer_ping = false;
    life.deps.settings.startup_deadline = Duration::from_secs(5);
    let done = life.run_out();
    assert!(
        done.failure_reason
            .unwrap()
            .as_str()
            .contains("did not pass the ping health check")
    );
}

/// Proves: SM-41
#[test]
fn a_process_that_finds_containers_its_predecessor_ended_reports_why() {
    let mut life = Life::new(|spec| spec.instance_count = 2);
    life.put("a", "x");
    life.put("b", "x");
    life.world.lock().new_answer_ping = false;
    life.deps.settings.startup_deadline = Duration::from_secs(5);
    let world = Arc::clone(&life.world);
    life.until("a kill", |_| {
        let inner = world.lock();
        inner.containers.values().any(|one| !one.signals.is_empty())
    });
    assert_eq!(life.job().status, TransformJobStatus::InProgress, "it winds down");
    life.memory = TransformMemory::default();
    life.deps = life.world.deps();
    life.world.look(&life.deps);
    let done = life.run_out();
    let reason = done.failure_reason.unwrap();
    assert!(
        reason.as_str().contains("did not pass the ping health check"),
        "{reason}"
    );
}

/// Proves: SM-41
#[test]
fn what_the_role_may_not_read_or_write_is_said() {
    let denied = "denied:User: x is not authorized to perform: s3:PutObject on resource: y";
    for (call, text) in [
        ("open", "Data download failed:"),
        ("put", "Data upload failed:"),
        ("list", "Data download failed:"),
    ] {
        let mut life = Life::new(|_| {});
        life.put("a", "x");
        life.world.fail(call, denied);
        let reason = life.run_out().failure_reason.unwrap();
        let want = format!("ClientError: {text}User: x is not authorized to perform: s3:PutObject on resource: y");
        assert_eq!(reason.as_str(), want, "{call}");
        assert_eq!(life.output("a"), None);
    }
    let mut nothing = Life::new(|spec| {
        spec.model.data = Some(ModelData::Object {
            uri: "s3://models/m".parse().unwrap(),
        });
    });
    nothing.put("a", "x");
    let reason = nothing.run_out().failure_reason.unwrap();
    assert!(
        reason
            .as_str()
            .starts_with("ClientError: Data download failed:No S3 objects found"),
        "{reason}"
    );
}

/// Proves: CC-27, CC-73
#[test]
fn a_manifest_names_the_objects() {
    let mut life = Life::new(|spec| {
        spec.input.data_type = S3DataType::ManifestFile;
        spec.input.uri = "s3://data/list.json".parse().unwrap();
    });
    life.world.put_object(
        "s3://data/list.json",
        br#"[{"prefix": "s3://data/in/"}, "b/two.csv", "one.csv"]"#,
    );
    life.put("one.csv", "1\n");
    life.put("b/two.csv", "2\n");
    life.put("three.csv", "3\n");
    assert_eq!(life.run_out().status, TransformJobStatus::Completed);
    assert_eq!(life.output("one.csv").unwrap(), "1\n");
    assert_eq!(life.output("b/two.csv").unwrap(), "2\n");
    assert_eq!(life.output("three.csv"), None);
}

/// Proves: CC-7
#[test]
fn a_transform_job_waits_for_room_and_fails_where_there_never_is_any() {
    use crate::scheduler::queue::Capacity;
    let capacity = Capacity {
        vcpus: Some(4),
        ..Capacity::default()
    };
    let mut life = Life::new(|spec| spec.instance_count = 2);
    life.put("a.csv", "1\n");
    life.deps.scheduler = Arc::new(crate::Scheduler::new(capacity));
    let other = crate::job::tests::new_job(&life.world, "first");
    let holder = crate::scheduler::request_of(&life.deps, &key("first"), &other).unwrap();
    assert_eq!(
        life.deps.scheduler.ask(holder.clone()),
        crate::scheduler::queue::Answer::Granted
    );
    for _ in 0..5 {
        assert_eq!(
            step(&life.deps, &key("Job"), &mut life.memory).unwrap(),
            Next::At(Timestamp(i64::MAX))
        );
    }
    assert_eq!(life.world.lock().launches, 0);
    assert_eq!(life.job().status, TransformJobStatus::InProgress);
    assert_eq!(life.deps.scheduler.usage().waiting.len(), 1);
    life.deps.scheduler.leave(&holder.owner);
    assert_eq!(life.run_out().status, TransformJobStatus::Completed);
    assert_eq!(life.deps.scheduler.usage().vcpus, 0, "given back");
    let mut large = Life::new(|spec| spec.instance_count = 3);
    large.put("a.csv", "1\n");
    large.deps.scheduler = Arc::new(crate::Scheduler::new(capacity));
    let reason = large.run_out().failure_reason.unwrap();
    assert!(
        reason.as_str().starts_with("CapacityError: Unable to provision"),
        "{reason}"
    );
}
