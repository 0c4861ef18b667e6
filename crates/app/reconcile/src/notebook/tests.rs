use super::*;
use crate::fake::{IMAGE, World, key, scope};
use crate::gc;
use isolarium_model::sagemaker::{JobNetwork, NotebookRun, NotebookSpec};
use isolarium_runtime::executor::Mount;
use isolarium_store::StateStore;
use std::sync::Arc;

const ROLE: &str = "arn:aws:iam::123456789012:role/exec";

fn notebook(change: impl FnOnce(&mut NotebookSpec)) -> NotebookInstance {
    let created = Timestamp(1_700_000_000_000);
    let mut spec = NotebookSpec {
        instance_type: "ml.t3.medium".into(),
        role_arn: ROLE.parse().unwrap(),
        network: JobNetwork::new(None, None),
        root_access: true,
        volume_gb: 5,
        platform: "notebook-al2-v3".into(),
        lifecycle_config: None,
        metadata_version: None,
    };
    change(&mut spec);
    NotebookInstance {
        name: "Lab".into(),
        arn: NotebookInstance::arn(&scope(), "Lab"),
        created,
        modified: created,
        status: NotebookStatus::Pending,
        failure_reason: None,
        spec,
        run: NotebookRun::new(created),
        tags: Default::default(),
    }
}

/// One engine process and its notebook instance.
struct Life {
    world: Arc<World>,
    deps: Deps,
    memory: NotebookMemory,
}

impl Life {
    fn new(change: impl FnOnce(&mut NotebookSpec)) -> Self {
        let world = World::new();
        let mut notebook = notebook(change);
        notebook.run.since = world.now();
        let batch = Batch::default().put(&key("Lab"), Expect::Absent, &notebook).unwrap();
        world.store.commit(batch).unwrap();
        world.lock().new_answer_ping = true;
        world.lock().new_on_term = Some(0);
        let mut life = Self {
            deps: world.deps(),
            world,
            memory: NotebookMemory::default(),
        };
        life.restart();
        life
    }

    /// Another process takes over: it knows nothing but records and host.
    fn restart(&mut self) {
        self.deps = self.world.deps();
        self.deps.settings.notebooks = Some(NotebookProgram {
            image: IMAGE.into(),
            command: vec!["jupyter".into(), "lab".into()],
            port: 8080,
        });
        self.memory = NotebookMemory::default();
        self.world.look(&self.deps);
    }

    fn config(&self, on_create: Option<&str>, on_start: Option<&str>) {
        let encoded = |text: Option<&str>| text.map(|text| STANDARD.encode(text));
        let config = NotebookLifecycleConfig {
            name: "setup".into(),
            arn: NotebookLifecycleConfig::arn(&scope(), "setup"),
            created: Timestamp(0),
            modified: Timestamp(0),
            on_create: encoded(on_create),
            on_start: encoded(on_start),
            tags: Default::default(),
        };
        let key = NotebookLifecycleConfig::key(&scope(), "setup");
        let batch = Batch::default().put(&key, Expect::Any, &config).unwrap();
        self.world.store.commit(batch).unwrap();
    }

    fn record(&self) -> NotebookInstance {
        let found = self.world.state().get::<NotebookInstance>(&key("Lab")).unwrap();
        found.unwrap().record
    }

    fn ask(&self, event: NotebookEvent) {
        let found = self
            .world
            .state()
            .get::<NotebookInstance>(&key("Lab"))
            .unwrap()
            .unwrap();
        let mut record = found.record;
        record.apply(event, self.world.now()).unwrap();
        let batch = Batch::default().put(&key("Lab"), Expect::At(found.revision), &record);
        self.world.store.commit(batch.unwrap()).unwrap();
    }

    fn step(&mut self) -> Next {
        let next = step(&self.deps, &key("Lab"), &mut self.memory).unwrap();
        self.world.look(&self.deps);
        self.world.clock.advance(Duration::from_millis(200));
        next
    }

    fn until(&mut self, status: NotebookStatus) -> NotebookInstance {
        for _ in 0..3000 {
            if self.record().status == status {
                return self.record();
            }
            self.step();
        }
        panic!("{status:?}: {:?}", self.record());
    }

    fn workload(&self) -> WorkloadId {
        self.record().run.placement.unwrap().workload
    }
}

/// Proves: SM-46
#[test]
fn each_start_has_a_container_of_its_own_and_all_have_one_volume() {
    let mut life = Life::new(|_| {});
    life.until(NotebookStatus::InService);
    let first = life.workload();
    let spec = life.world.container(&first).spec;
    assert_eq!(spec.process.argv, ["jupyter", "lab"]);
    assert_eq!(spec.process.user, "0:0");
    assert!(
        spec.process
            .env
            .iter()
            .any(|(name, _)| name == "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    );
    let volume = life.record().run.volume.unwrap();
    let home = |spec: &isolarium_runtime::executor::LaunchSpec| {
        spec.mounts.iter().any(|mount| {
            *mount
                == Mount::Volume {
                    volume: volume.clone(),
                    target: "/home/ec2-user/SageMaker".into(),
                }
        })
    };
    assert!(home(&spec), "{:?}", spec.mounts);
    life.world.print(&first, "served");
    life.step();

    // Another process finds it running, and starts nothing.
    life.restart();
    life.step();
    assert_eq!((life.world.lock().launches, life.workload()), (1, first.clone()));
    assert_eq!(
        gc::sweep(&life.deps).unwrap(),
        0,
        "neither container nor volume is a left-over"
    );

    life.ask(NotebookEvent::StopRequested);
    let stopped = life.until(NotebookStatus::Stopped);
    assert_eq!((stopped.run.placement, stopped.run.launched), (None, None));
    assert_eq!(
        life.world.lines("/aws/sagemaker/NotebookInstances", "Lab/jupyter.log"),
        ["served"]
    );
    assert!(life.world.lock().containers.is_empty());
    assert!(life.deps.work.of(&volume).exists(), "the volume stays");
    gc::sweep(&life.deps).unwrap();
    assert!(
        life.deps.work.of(&volume).exists(),
        "also when left-overs are looked for"
    );

    life.ask(NotebookEvent::StartRequested);
    life.until(NotebookStatus::InService);
    let second = life.workload();
    assert_ne!(first, second);
    assert!(home(&life.world.container(&second).spec));

    life.ask(NotebookEvent::StopRequested);
    life.until(NotebookStatus::Stopped);
    life.ask(NotebookEvent::DeleteRequested);
    while life.step() != Next::Done {}
    assert!(
        life.world
            .state()
            .get::<NotebookInstance>(&key("Lab"))
            .unwrap()
            .is_none()
    );
    assert!(!life.deps.work.of(&volume).exists(), "it goes with the record");
}

/// Proves: NET-73
#[test]
fn a_host_that_cannot_seal_a_container_fails_the_instance_and_starts_nothing() {
    let mut life = Life::new(|_| {});
    life.world.fail("launch", "seal:nft cannot be run");
    let failed = life.until(NotebookStatus::Failed);
    let reason = failed.failure_reason.unwrap().to_string();
    assert!(
        reason.contains("The container could not be started.") && !reason.contains("nft"),
        "{reason}"
    );
    assert_eq!(life.world.lock().launches, 0);
    life.world.mend("launch");
    life.ask(NotebookEvent::StartRequested);
    life.until(NotebookStatus::InService);
    assert_eq!(life.world.lock().launches, 1, "control");
}

/// Proves: SM-46
#[test]
fn a_container_that_ends_fails_the_instance_and_is_gone_before_the_next_has_the_volume() {
    let mut life = Life::new(|spec| spec.root_access = false);
    life.until(NotebookStatus::InService);
    let first = life.workload();
    assert_eq!(life.world.container(&first).spec.process.user, "1000:1000");
    life.world.exit(&first, 3);
    life.world.look(&life.deps);
    let failed = life.until(NotebookStatus::Failed);
    assert_eq!(
        failed.failure_reason.unwrap().to_string(),
        "The notebook server ended with exit code 3."
    );
    // Started again at once, before its container was removed.
    life.ask(NotebookEvent::StartRequested);
    assert!(life.record().run.leaving.is_some());
    life.until(NotebookStatus::InService);
    assert!(life.world.lock().removed.contains(&first));
    assert_eq!(life.world.lock().containers.len(), 1);

    // A machine that forgot it.
    let second = life.workload();
    life.world.lock().containers.remove(&second);
    life.restart();
    let failed = life.until(NotebookStatus::Failed);
    assert!(
        failed
            .failure_reason
            .unwrap()
            .to_string()
            .contains("lost with its machine")
    );
}

/// Proves: SM-46
#[test]
fn lifecycle_scripts_end_before_the_server_counts_and_on_create_runs_once() {
    let mut life = Life::new(|spec| spec.lifecycle_config = Some("setup".into()));
    life.config(Some("#!/bin/sh\necho created"), Some("echo started"));
    while life.record().run.launched.is_none() {
        life.step();
    }
    let workload = life.workload();
    let fake = life.world.container(&workload);
    assert_eq!(
        fake.spec.process.argv[..3],
        ["/bin/sh", "/opt/isolarium/scripts/start.sh", "0:0"]
    );
    assert_eq!(fake.spec.process.argv[3..], ["jupyter", "lab"]);
    assert_eq!(fake.input["on-create"], "#!/bin/sh\necho created");
    assert_eq!(fake.input["on-start"], "echo started");
    let said = |life: &Life, hook: &str| life.world.lines(LOG_GROUP, &format!("Lab/{hook}"));
    for _ in 0..20 {
        life.step();
    }
    assert_eq!(
        life.record().status,
        NotebookStatus::Pending,
        "the server answers, but a script runs"
    );
    life.world.write(&workload, PROGRESS, "on-create.log", "created\n");
    life.world.write(&workload, PROGRESS, "on-create.done", "0");
    life.step();
    assert!(!life.record().run.created, "half a line is no code yet");
    life.world.write(&workload, PROGRESS, "on-create.done", "0\n");
    life.step();
    assert!(life.record().run.created);
    life.restart();
    life.world.write(&workload, PROGRESS, "on-start.done", "0\n");
    life.until(NotebookStatus::InService);
    assert_eq!(
        said(&life, "LifecycleConfigOnCreate"),
        ["created"],
        "once, also after a restart"
    );

    life.ask(NotebookEvent::StopRequested);
    life.until(NotebookStatus::Stopped);
    life.ask(NotebookEvent::StartRequested);
    while life.record().run.launched.is_none() {
        life.step();
    }
    let workload = life.workload();
    let input = life.world.container(&workload).input;
    assert!(!input.contains_key("on-create") && input.contains_key("on-start"));
    // It fails: the container ends with it.
    life.world.write(&workload, PROGRESS, "on-start.log", "no such thing\n");
    life.world.write(&workload, PROGRESS, "on-start.done", "7\n");
    life.world.exit(&workload, 7);
    life.world.look(&life.deps);
    let failed = life.until(NotebookStatus::Failed).failure_reason.unwrap().to_string();
    assert!(
        failed.contains("LifecycleConfigOnStart script ended with exit code 7"),
        "{failed}"
    );
    assert_eq!(said(&life, "LifecycleConfigOnStart"), ["no such thing"]);
}

/// Proves: SM-46
#[test]
fn a_script_that_does_not_end_and_a_server_that_does_not_answer_fail_the_instance() {
    let mut life = Life::new(|spec| spec.lifecycle_config = Some("setup".into()));
    life.config(None, Some("sleep 1000"));
    let began = life.world.now();
    let failed = life.until(NotebookStatus::Failed).failure_reason.unwrap().to_string();
    assert!(failed.contains("took longer than 5 minutes"), "{failed}");
    assert!(life.world.now().since(began) >= Duration::from_secs(300));
    while life.step() != Next::Done {}
    assert!(life.world.lock().containers.is_empty(), "the script is ended");

    let mut mute = Life::new(|_| {});
    mute.world.lock().new_answer_ping = false;
    let failed = mute.until(NotebookStatus::Failed).failure_reason.unwrap().to_string();
    assert!(failed.contains("did not answer in time"), "{failed}");
    let mut imageless = Life::new(|_| {});
    imageless.deps.settings.notebooks = None;
    let failed = imageless
        .until(NotebookStatus::Failed)
        .failure_reason
        .unwrap()
        .to_string();
    assert!(failed.contains("notebooks.image"), "{failed}");
}
