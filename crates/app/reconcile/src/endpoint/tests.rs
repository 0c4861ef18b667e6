use super::*;
use crate::fake::{Fake, IMAGE, World, key, scope};
use crate::fleets::PickError;
use crate::scheduler::queue::Answer;
use isolarium_model::sagemaker::endpoint_config::ProductionVariant;
use isolarium_model::sagemaker::model::{ExecutionMode, FurtherContainer, ModelData, ModelSpec, SeveralContainers};
use isolarium_model::sagemaker::{ContainerSpec, JobNetwork, Shift, Tags};
use isolarium_runtime::executor::Mount;
use std::sync::Arc;

pub(crate) const NAME: &str = "Ep";

/// One endpoint in a fake world, stepped by hand.
pub(crate) struct Lab {
    pub world: Arc<World>,
    pub deps: Deps,
    pub memory: EndpointMemory,
}

fn model() -> ModelSpec {
    ModelSpec {
        package: None,
        container: ContainerSpec {
            image: IMAGE.into(),
            environment: BTreeMap::new(),
        },
        data: Some(ModelData::Archive {
            uri: "s3://models/m.tar.gz".parse().unwrap(),
        }),
        role_arn: "arn:aws:iam::123456789012:role/serve".parse().unwrap(),
        network: JobNetwork::new(Some(true), None),
        several: None,
    }
}

pub(crate) fn variant(name: &str, count: u32) -> VariantFleet {
    VariantFleet {
        variant: ProductionVariant {
            name: name.into(),
            model_name: "m".into(),
            instance_type: "ml.m5.large".into(),
            instance_count: count,
            weight: 1.0,
            startup_timeout: None,
            download_timeout: None,
            serverless: None,
        },
        model: model(),
        current_weight: 1.0,
        desired_weight: 1.0,
        desired_count: count,
        image: None,
        other_images: vec![],
        instances: vec![],
    }
}

fn fleet(config: &str, variants: Vec<VariantFleet>, now: Timestamp) -> Fleet {
    Fleet {
        config_name: config.into(),
        variants,
        capture: None,
        asynchronous: None,
        started: now,
        takeover: None,
    }
}

pub(crate) fn targz(name: &str, text: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}

pub(crate) fn creating(variants: Vec<VariantFleet>, now: Timestamp) -> Endpoint {
    Endpoint {
        name: NAME.into(),
        arn: Endpoint::arn(&scope(), NAME),
        created: now,
        modified: now,
        status: EndpointStatus::Creating,
        failure_reason: None,
        config_name: "one".into(),
        active: None,
        pending: Some(fleet("one", variants, now)),
        retiring: vec![],
        last_deployment_config: None,
        tags: Tags::new(),
    }
}

/// An endpoint called `Ep` with two instances in a VPC.
pub(crate) fn in_a_vpc(attachment: isolarium_model::sagemaker::VpcAttachment, now: Timestamp) -> Endpoint {
    let mut one = variant("a", 2);
    one.model.network = JobNetwork::new(None, Some(attachment));
    creating(vec![one], now)
}

impl Lab {
    pub fn new(variants: Vec<VariantFleet>) -> Self {
        let world = World::new();
        world.put_object("s3://models/m.tar.gz", &targz("model.bin", "weights"));
        let now = world.now();
        let endpoint = creating(variants, now);
        world
            .state()
            .commit(Batch::default().put(&key(NAME), Expect::Absent, &endpoint).unwrap())
            .unwrap();
        let deps = world.deps();
        Self {
            world,
            deps,
            memory: EndpointMemory::default(),
        }
    }

    pub fn step(&mut self) -> Next {
        self.world.look(&self.deps);
        step(&self.deps, &key(NAME), &mut self.memory).unwrap()
    }

    /// Steps for `seconds`, ten times a second.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            if self.step() == Next::Done {
                return;
            }
            self.world.clock.advance(Duration::from_millis(100));
        }
        self.step();
    }

    pub fn endpoint(&self) -> Endpoint {
        self.world.state().get::<Endpoint>(&key(NAME)).unwrap().unwrap().record
    }

    pub fn edit(&self, edit: impl Fn(&mut Endpoint)) {
        self.deps
            .update::<Endpoint>(&key(NAME), |endpoint, batch| {
                edit(endpoint);
                Ok(Some(batch))
            })
            .unwrap();
    }

    /// Another fake machine, with limits of its own.
    fn on(mut self, updates: crate::settings::Updates, vcpus: Option<u64>) -> Self {
        let settings = crate::settings::ReconcileSettings {
            updates,
            ..crate::settings::ReconcileSettings::default()
        };
        self.deps = self.world.deps_with(settings, self.deps.clock.clone());
        let capacity = crate::scheduler::queue::Capacity {
            vcpus,
            ..crate::scheduler::queue::Capacity::default()
        };
        self.deps.scheduler = Arc::new(crate::scheduler::Scheduler::new(capacity));
        self
    }

    fn shift_to(&self, config: &str, variants: Vec<VariantFleet>, shift: Shift) {
        self.update_to(config, variants);
        self.edit(|endpoint| {
            endpoint.pending.as_mut().unwrap().takeover = Some(Takeover::Shift(shift.clone()));
        });
    }

    /// How many of a thousand requests the instances of a configuration get now; the rest goes to the other one.
    fn share_of(&self, config: &str) -> usize {
        let endpoint = self.endpoint();
        let of = |fleet: &Fleet| {
            fleet
                .instances()
                .map(|(_, one)| one.placement.workload.clone())
                .collect::<Vec<_>>()
        };
        let fleets = [&endpoint.active, &endpoint.pending];
        let fleet = fleets.into_iter().flatten().find(|fleet| fleet.config_name == config);
        let own = fleet.map(of).unwrap_or_default();
        let mut chance = 7u64;
        let picks = (0..1000).map(|_| {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let guard = self
                .deps
                .fleets
                .pick(&key(NAME), NAME, None, chance ^ (chance >> 31))
                .unwrap();
            usize::from(own.contains(guard.workload()))
        });
        picks.sum()
    }

    fn update_to(&self, config: &str, variants: Vec<VariantFleet>) {
        let now = self.world.now();
        self.edit(|endpoint| {
            endpoint.apply(EndpointEvent::UpdateRequested, now).unwrap();
            endpoint.pending = Some(fleet(config, variants.clone(), now));
        });
    }

    pub fn pick(&self) -> Result<crate::fleets::Guard, PickError> {
        self.deps.fleets.pick(&key(NAME), NAME, None, 0)
    }

    fn running(&self) -> Vec<Fake> {
        let inner = self.world.lock();
        let alive = |one: &&Fake| matches!(one.state, WorkloadState::Running { .. });
        inner.containers.values().filter(alive).cloned().collect()
    }
}

/// Proves: SM-22, CC-47, CC-48, NI-12
#[test]
fn a_sealed_endpoint_comes_into_service_with_its_model_unpacked_read_only() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 2)]);
    assert_eq!(lab.pick().unwrap_err(), PickError::NotServing);
    lab.pass(1);
    let endpoint = lab.endpoint();
    assert_eq!(endpoint.status, EndpointStatus::InService);
    assert_eq!(endpoint.config_name, "one");
    assert_eq!(lab.running().len(), 2);
    for one in lab.running() {
        assert_eq!(one.spec.process.argv, ["python3", "/app/main.py", "serve"]);
        let model = ("model".to_string(), "model.bin".to_string());
        assert_eq!(one.files.get(&model).map(Vec::as_slice), Some(&b"weights"[..]));
        assert!(one.spec.mounts.iter().any(|mount| matches!(
            mount,
            Mount::Scratch { target, read_only: true, .. } if target == "/opt/ml/model"
        )));
        assert_eq!(one.spec.network.reach, isolarium_netplan::intent::Reach::Nothing);
    }
    assert!(lab.pick().is_ok());
    let image = endpoint.active.unwrap().variants[0].image.clone().unwrap();
    assert_eq!(image.specified, IMAGE);
}

/// Proves: NET-73
#[test]
fn a_host_that_cannot_seal_a_container_fails_the_endpoint_and_starts_nothing() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 1)]);
    lab.world.fail("launch", "seal:nft cannot be run");
    lab.pass(5);
    let failed = lab.endpoint();
    assert_eq!(failed.status, EndpointStatus::Failed);
    let reason = failed.failure_reason.unwrap().as_str().to_owned();
    assert!(
        reason.contains("The container could not be started.") && !reason.contains("nft"),
        "{reason}"
    );
    assert!(lab.running().is_empty());
    assert_eq!(lab.world.lock().launches, 0);
    assert_eq!(lab.pick().unwrap_err(), PickError::NotServing);
    let mut control = Lab::new(vec![variant("AllTraffic", 1)]);
    control.pass(5);
    assert_eq!(control.endpoint().status, EndpointStatus::InService, "control");
}

/// Proves: CC-1
#[test]
fn a_death_between_launch_and_record_loses_no_image() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 1)]);
    lab.step();
    assert_eq!(lab.running().len(), 1);
    let endpoint = lab.endpoint();
    let starting = endpoint.pending.or(endpoint.active).unwrap();
    assert_eq!(starting.variants[0].image, None, "control: not recorded yet");
    lab.deps = lab.world.deps();
    lab.memory = EndpointMemory::default();
    lab.pass(2);
    let endpoint = lab.endpoint();
    assert_eq!(endpoint.status, EndpointStatus::InService);
    assert_eq!(
        endpoint.active.unwrap().variants[0].image.clone().unwrap().specified,
        IMAGE
    );
}

/// Proves: SM-63, CC-49
#[test]
fn a_container_that_never_answers_its_ping_fails_the_endpoint_at_the_deadline() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 1)]);
    lab.world.lock().new_answer_ping = false;
    lab.pass(239);
    assert_eq!(
        lab.endpoint().status,
        EndpointStatus::Creating,
        "control: not before four minutes"
    );
    lab.pass(2);
    let failed = lab.endpoint();
    assert_eq!(failed.status, EndpointStatus::Failed);
    assert_eq!(
        failed.failure_reason.unwrap().as_str(),
        "The primary container for production variant AllTraffic did not pass the ping health check. Please check \
         CloudWatch logs for this endpoint."
    );
    lab.pass(2);
    assert!(
        lab.world.lock().containers.is_empty(),
        "nothing of a failed endpoint stays on the host"
    );
    assert_eq!(lab.pick().unwrap_err(), PickError::NotServing);
}

/// Proves: CC-49
#[test]
fn the_variants_own_start_up_limit_counts() {
    let mut slow = variant("AllTraffic", 1);
    slow.variant.startup_timeout = Some(60);
    let mut lab = Lab::new(vec![slow]);
    lab.world.lock().new_answer_ping = false;
    lab.pass(59);
    assert_eq!(lab.endpoint().status, EndpointStatus::Creating);
    lab.pass(2);
    assert_eq!(lab.endpoint().status, EndpointStatus::Failed);
}

/// Proves: CC-55, CC-49
#[test]
fn model_data_has_its_own_limit_and_takes_nothing_from_the_start_up_deadline() {
    let with_limit = || {
        let mut limited = variant("v", 1);
        limited.variant.download_timeout = Some(300);
        limited
    };
    let mut lab = Lab::new(vec![with_limit()]);
    lab.world.lock().unpacking_takes = Duration::from_secs(301);
    lab.pass(2);
    assert_eq!(lab.endpoint().status, EndpointStatus::Failed);
    let reason = lab.endpoint().failure_reason.unwrap().to_string();
    assert_eq!(reason, "The model data could not be loaded: it took too long");
    // Control: within the limit, and although it took longer than a container may take to answer.
    let mut lab = Lab::new(vec![with_limit()]);
    lab.world.lock().unpacking_takes = Duration::from_secs(299);
    lab.pass(2);
    assert_eq!(lab.endpoint().status, EndpointStatus::InService);
    // Linked objects keep to the limit too.
    let mut prefix = with_limit();
    prefix.model.data = Some(ModelData::Prefix {
        uri: "s3://models/tree/".parse().unwrap(),
    });
    let mut lab = Lab::new(vec![prefix]);
    lab.world.put_object("s3://models/tree/a", b"a");
    lab.world.lock().listing_takes = Duration::from_secs(300);
    lab.pass(2);
    let reason = lab.endpoint().failure_reason.unwrap().to_string();
    assert_eq!(
        reason,
        "The model data could not be loaded: it took longer than 300 seconds"
    );
}

/// Proves: NI-14
#[test]
fn a_role_that_may_not_read_the_model_fails_the_endpoint() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 1)]);
    lab.world.fail("open", "denied:not authorized to perform: s3:GetObject");
    lab.pass(1);
    let failed = lab.endpoint();
    assert_eq!(failed.status, EndpointStatus::Failed);
    assert!(
        failed
            .failure_reason
            .unwrap()
            .as_str()
            .contains("not authorized to perform: s3:GetObject")
    );
    assert_eq!(lab.world.lock().launches, 0);
}

/// Proves: CC-49
#[test]
fn a_dead_container_is_replaced_with_back_off_and_traffic_is_withdrawn_meanwhile() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 1)]);
    lab.pass(1);
    let first = lab.pick().unwrap().workload().clone();
    lab.world.print(&first, "last words");
    lab.world.exit(&first, 1);
    lab.step();
    assert_eq!(lab.pick().unwrap_err(), PickError::NoHealthyInstance);
    assert_eq!(lab.endpoint().status, EndpointStatus::InService);
    assert_eq!(lab.world.lock().launches, 1, "the back-off");
    lab.pass(3);
    let second = lab.pick().unwrap();
    assert_ne!(second.workload(), &first, "a workload id is never used twice");
    assert_eq!(lab.world.lock().launches, 2);
    assert!(lab.world.lock().removed.contains(&first));
    let streams = lab.world.lock().streams.clone();
    assert!(
        streams.values().any(|lines| lines == &["last words"]),
        "its output is kept"
    );
}

/// Proves: CC-49
#[test]
fn a_container_that_stops_answering_is_replaced_after_repeated_failures() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 1)]);
    lab.pass(1);
    let first = lab.pick().unwrap().workload().clone();
    lab.world.with(&first, |one| one.answers_ping = false);
    lab.pass(9);
    assert_eq!(lab.world.lock().launches, 1, "control: one failure is not enough");
    lab.pass(12);
    assert_eq!(lab.world.lock().launches, 2);
    assert_ne!(lab.pick().unwrap().workload(), &first);
}

/// Proves: SM-23, CC-54
#[test]
fn an_update_serves_without_a_gap_and_lets_running_requests_finish() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 1)]);
    lab.pass(1);
    let running = lab.pick().unwrap();
    let old = running.workload().clone();
    lab.update_to("two", vec![variant("AllTraffic", 2)]);
    for _ in 0..20 {
        lab.step();
        assert!(lab.pick().is_ok(), "there is always a container that serves");
        lab.world.clock.advance(Duration::from_millis(100));
    }
    let updated = lab.endpoint();
    assert_eq!(
        (updated.status, updated.config_name.as_str()),
        (EndpointStatus::InService, "two")
    );
    assert_ne!(lab.pick().unwrap().workload(), &old);
    assert_eq!(
        lab.world.container(&old).signals,
        Vec::<bool>::new(),
        "a request still runs on it"
    );
    drop(running);
    lab.pass(1);
    assert!(lab.world.lock().removed.contains(&old));
    assert_eq!(lab.running().len(), 2);
    assert!(lab.endpoint().retiring.is_empty());
}

/// Proves: CC-54
#[test]
fn a_container_that_ignores_sigterm_is_killed_after_thirty_seconds() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 1)]);
    lab.world.lock().new_on_term = None;
    lab.pass(1);
    let old = lab.pick().unwrap().workload().clone();
    lab.edit(|endpoint| endpoint.apply(EndpointEvent::DeleteRequested, Timestamp(0)).unwrap());
    lab.step();
    assert_eq!(
        lab.pick().unwrap_err(),
        PickError::NotServing,
        "traffic is withdrawn first"
    );
    lab.pass(29);
    assert_eq!(lab.world.container(&old).signals, [false]);
    lab.pass(3);
    assert!(
        lab.world.state().get::<Endpoint>(&key(NAME)).unwrap().is_none(),
        "the endpoint is gone"
    );
    assert!(lab.world.lock().containers.is_empty());
}

/// Proves: SM-22
#[test]
fn an_update_that_fails_rolls_back_and_keeps_serving() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 1)]);
    lab.pass(1);
    let old = lab.pick().unwrap().workload().clone();
    let mut bad = variant("AllTraffic", 1);
    bad.model.container.image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/none:1".into();
    lab.update_to("two", vec![bad]);
    lab.pass(2);
    let after = lab.endpoint();
    assert_eq!(
        (after.status, after.config_name.as_str()),
        (EndpointStatus::InService, "one")
    );
    assert!(after.failure_reason.unwrap().as_str().contains("none:1"));
    assert_eq!(lab.pick().unwrap().workload(), &old);
    assert_eq!(lab.running().len(), 1);
}

/// Proves: SM-25
#[test]
fn weights_change_at_once_and_counts_grow_and_shrink() {
    let mut lab = Lab::new(vec![variant("a", 1), variant("b", 1)]);
    lab.pass(1);
    let now = lab.world.now();
    let change = |count: u32, weight: f64| {
        move |endpoint: &mut Endpoint| {
            endpoint.apply(EndpointEvent::UpdateRequested, now).unwrap();
            let first = &mut endpoint.active.as_mut().unwrap().variants[0];
            first.desired_count = count;
            first.current_weight = weight;
        }
    };
    lab.edit(change(3, 0.0));
    lab.step();
    for chance in 0..64 {
        let picked = lab.deps.fleets.pick(&key(NAME), NAME, None, chance << 26).unwrap();
        assert_eq!(picked.variant(), "b");
    }
    lab.pass(1);
    assert_eq!(lab.endpoint().status, EndpointStatus::InService);
    assert_eq!(lab.running().len(), 4);
    lab.edit(change(1, 1.0));
    lab.pass(2);
    assert_eq!(lab.endpoint().status, EndpointStatus::InService);
    assert_eq!(lab.running().len(), 2);
}

#[test]
fn a_restart_of_the_engine_adopts_the_fleet_and_serves_at_once() {
    let mut lab = Lab::new(vec![variant("AllTraffic", 2)]);
    lab.pass(1);
    let launches = lab.world.lock().launches;
    lab.deps = lab.world.deps();
    lab.memory = EndpointMemory::default();
    // Even a container that is slow to answer now stays in service until its pings have failed.
    lab.step();
    assert!(lab.pick().is_ok());
    lab.pass(2);
    assert_eq!(lab.world.lock().launches, launches);
    assert_eq!(lab.running().len(), 2);
}

fn only(vcpus: u64) -> std::sync::Arc<crate::Scheduler> {
    std::sync::Arc::new(crate::Scheduler::new(crate::scheduler::queue::Capacity {
        vcpus: Some(vcpus),
        ..Default::default()
    }))
}

/// Proves: CC-7, SM-22
#[test]
fn a_fleet_without_room_waits_and_then_fails_while_the_serving_one_goes_on() {
    let mut lab = Lab::new(vec![variant("a", 2)]);
    lab.deps.scheduler = only(4);
    lab.deps.settings.endpoint_patience = Duration::from_secs(20);
    lab.pass(2);
    assert_eq!(lab.endpoint().status, EndpointStatus::InService);
    let now = lab.world.now();
    lab.edit(|endpoint| {
        endpoint.pending = Some(fleet("two", vec![variant("a", 1)], now));
        endpoint.apply(EndpointEvent::UpdateRequested, now).unwrap();
    });
    lab.pass(5);
    assert_eq!(lab.endpoint().status, EndpointStatus::Updating, "it waits");
    assert_eq!(lab.world.lock().launches, 2, "nothing of the new fleet was started");
    lab.pass(30);
    let rolled_back = lab.endpoint();
    assert_eq!(rolled_back.status, EndpointStatus::InService);
    assert_eq!(rolled_back.config_name, "one");
    let reason = rolled_back
        .failure_reason
        .map(|reason| reason.to_string())
        .unwrap_or_default();
    assert!(reason.contains("InsufficientInstanceCapacity"), "{reason}");
    assert_eq!(lab.deps.scheduler.usage().waiting, [], "it gave its place up");
    assert_eq!(lab.deps.scheduler.usage().vcpus, 4);
}

/// Proves: CC-7
#[test]
fn a_replaced_container_keeps_its_room_and_a_deleted_endpoint_gives_it_back() {
    let mut lab = Lab::new(vec![variant("a", 1)]);
    lab.deps.scheduler = only(2);
    lab.pass(2);
    let workload = lab.endpoint().active.unwrap().variants[0].instances[0]
        .placement
        .workload
        .clone();
    // Somebody else waits for the room.
    let job = crate::job::tests::new_job(&lab.world, "waits");
    let request = crate::scheduler::request_of(&lab.deps, &key("waits"), &job).unwrap();
    assert_eq!(lab.deps.scheduler.ask(request.clone()), Answer::Waits);
    lab.world.exit(&workload, 1);
    lab.pass(10);
    let endpoint = lab.endpoint();
    let replaced = &endpoint.active.as_ref().unwrap().variants[0].instances[0];
    assert_ne!(replaced.placement.workload, workload);
    assert!(replaced.healthy, "it serves again");
    assert_eq!(lab.deps.scheduler.ask(request.clone()), Answer::Waits);
    lab.edit(|endpoint| endpoint.apply(EndpointEvent::DeleteRequested, Timestamp(0)).unwrap());
    lab.pass(40);
    assert_eq!(lab.deps.scheduler.ask(request), Answer::Granted);
}

fn pipeline(name: &str, count: u32) -> VariantFleet {
    let mut all = variant(name, count);
    all.model.several = Some(Box::new(SeveralContainers {
        mode: ExecutionMode::Serial,
        first: "clean".into(),
        others: vec![FurtherContainer {
            hostname: "infer".into(),
            container: all.model.container.clone(),
            data: None,
        }],
    }));
    all
}

/// The containers of an instance start one after the other in the first one's namespace, end together, and leave
/// nothing; a lone container is the control.
///
/// Proves: CC-10, CC-49, CC-56
#[test]
fn the_containers_of_an_instance_live_and_end_together() {
    let mut lab = Lab::new(vec![pipeline("v", 1)]);
    lab.pass(2);
    assert_eq!(lab.endpoint().status, EndpointStatus::InService);
    let instance = |lab: &Lab| lab.endpoint().active.unwrap().variants[0].instances[0].clone();
    let first = instance(&lab);
    let guard = lab.pick().unwrap();
    let ways: Vec<_> = guard
        .several()
        .unwrap()
        .stages
        .iter()
        .map(|stage| (stage.name.clone(), stage.workload.clone(), stage.port))
        .collect();
    let workloads: Vec<_> = first.workloads().cloned().collect();
    assert_eq!(
        ways,
        [
            ("clean".to_string(), workloads[0].clone(), 8080),
            ("infer".to_string(), workloads[1].clone(), 8180)
        ]
    );
    drop(guard);
    {
        let inner = lab.world.lock();
        let specs: Vec<_> = workloads
            .iter()
            .map(|workload| &inner.containers[workload].spec)
            .collect();
        assert_eq!(specs[0].beside, None);
        assert_eq!(specs[1].beside, Some(workloads[0].clone()));
        assert_eq!(specs[1].network, specs[0].network);
        assert_eq!(
            (specs[0].hostname.as_str(), specs[1].hostname.as_str()),
            ("clean", "infer")
        );
        let bound = |number: usize| {
            let mut env = specs[number].process.env.iter();
            env.find(|(name, _)| name == "SAGEMAKER_SAFE_PORT_RANGE")
                .unwrap()
                .1
                .clone()
        };
        assert_eq!((bound(0), bound(1)), ("8081-8179".into(), "8181-8279".into()));
        assert_eq!(specs[0].limits.memory_bytes, specs[1].limits.memory_bytes);
    }
    // A restart of the engine finds both.
    lab.deps = lab.world.deps();
    lab.world.look(&lab.deps);
    lab.memory = adopt(&lab.deps, &key(NAME), &lab.endpoint());
    assert!(lab.pick().is_ok(), "served on by the first request");
    let launches = lab.world.lock().launches;
    lab.pass(2);
    assert_eq!(lab.world.lock().launches, launches, "control: nothing is started twice");
    // The second one dies: the instance is replaced.
    lab.world.exit(&workloads[1], 1);
    lab.pass(30);
    let second = instance(&lab);
    assert!(second.workloads().all(|workload| !workloads.contains(workload)));
    assert_eq!(lab.running().len(), 2);
    assert!(
        workloads
            .iter()
            .all(|workload| lab.world.lock().removed.contains(workload))
    );
    // An update to a lone container lets both go.
    lab.update_to("two", vec![variant("v", 1)]);
    lab.pass(60);
    assert_eq!(lab.endpoint().config_name, "two");
    assert!(lab.pick().unwrap().several().is_none());
    assert_eq!(lab.running().len(), 1);
    assert!(lab.endpoint().retiring.is_empty());
    let streams: Vec<_> = lab
        .world
        .lock()
        .streams
        .keys()
        .map(|(_, stream)| stream.clone())
        .collect();
    for name in ["clean", "infer"] {
        assert!(streams.contains(&format!("v/{}/{name}", first.id)), "{streams:?}");
    }
}

/// Proves: SM-63, CC-49
#[test]
fn a_further_container_that_never_answers_fails_the_endpoint_under_its_name() {
    let mut lab = Lab::new(vec![pipeline("v", 1)]);
    lab.step();
    lab.world.lock().new_answer_ping = false;
    lab.pass(242);
    let failed = lab.endpoint();
    assert_eq!(failed.status, EndpointStatus::Failed);
    let reason = failed.failure_reason.unwrap().to_string();
    assert!(
        reason.starts_with("The infer container for production variant v did not pass the ping"),
        "{reason}"
    );
    lab.pass(2);
    assert!(lab.world.lock().containers.is_empty());
}

/// Proves: CC-36, CC-61, CC-63
#[test]
fn captured_data_is_delivered_as_the_role_and_not_lost_by_update_or_end() {
    use crate::capture::Side;
    use isolarium_model::sagemaker::data_capture::DataCapture;
    let mut lab = Lab::new(vec![variant("v", 1)]);
    let settings = DataCapture {
        kms_key: Some("alias/captured".into()),
        enabled: true,
        percentage: 100,
        destination: "s3://kept/here".parse().unwrap(),
        input: true,
        output: true,
        csv: vec![],
        json: vec![],
    };
    lab.edit(|endpoint| endpoint.pending.as_mut().unwrap().capture = Some(settings.clone()));
    lab.pass(2);
    let invoke = |lab: &Lab| {
        let guard = lab.pick().unwrap();
        let side = Side {
            content_type: None,
            data: b"x",
        };
        guard.capture().unwrap().add("e", None, side, side);
    };
    let kept = |lab: &Lab| {
        let inner = lab.world.lock();
        let all = inner
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with("s3://kept/here/Ep/v/"));
        all.map(|(_, bytes)| bytes.iter().filter(|byte| **byte == b'\n').count())
            .sum::<usize>()
    };
    invoke(&lab);
    invoke(&lab);
    lab.pass(50);
    assert_eq!(kept(&lab), 0, "control: not before the interval");
    lab.pass(15);
    assert_eq!(kept(&lab), 2);
    let put = lab.world.lock().accesses.iter().any(|(role, call, what)| {
        role.ends_with("role/serve") && call == "put" && what.starts_with("s3://kept/here/Ep/v/")
    });
    assert!(put, "as the execution role");
    let sealed = lab.world.lock().sealed.values().cloned().collect::<Vec<_>>();
    assert_eq!(sealed.first().map(String::as_str), Some("alias/captured"));
    // What the role may not put is lost, and nothing else.
    invoke(&lab);
    lab.world.fail("put", "denied:no");
    lab.pass(70);
    lab.world.mend("put");
    invoke(&lab);
    lab.pass(70);
    assert_eq!(kept(&lab), 3);
    // An update without capture delivers what waits.
    invoke(&lab);
    lab.update_to("two", vec![variant("v", 1)]);
    lab.pass(5);
    assert_eq!(kept(&lab), 4);
    assert!(lab.pick().unwrap().capture().is_none());
    // And so does the end.
    lab.update_to("three", vec![variant("v", 1)]);
    lab.edit(|endpoint| endpoint.pending.as_mut().unwrap().capture = Some(settings.clone()));
    lab.pass(5);
    invoke(&lab);
    let now = lab.world.now();
    lab.edit(|endpoint| endpoint.apply(EndpointEvent::DeleteRequested, now).unwrap());
    lab.pass(60);
    assert_eq!(kept(&lab), 5);
}

fn captured(percentage: u8) -> isolarium_model::sagemaker::data_capture::DataCapture {
    isolarium_model::sagemaker::data_capture::DataCapture {
        kms_key: None,
        enabled: true,
        percentage,
        destination: "s3://kept/here".parse().unwrap(),
        input: true,
        output: true,
        csv: vec![],
        json: vec![],
    }
}

fn captures_one(lab: &Lab) {
    let side = crate::capture::Side {
        content_type: None,
        data: b"x",
    };
    let guard = lab.pick().unwrap();
    guard.capture().unwrap().add("e", None, side, side);
}

/// Roles that put something, in order.
fn puts(lab: &Lab) -> Vec<String> {
    let inner = lab.world.lock();
    let puts = inner.accesses.iter().filter(|(_, call, _)| call == "put");
    puts.map(|(role, ..)| role.rsplit('/').next().unwrap().to_owned())
        .collect()
}

/// An update to a model with another role: what the old model captured is the old role's to write, and the new one's the new role's.
///
/// Proves: CC-63
#[test]
fn captured_data_is_delivered_by_the_role_it_was_captured_under() {
    let mut lab = Lab::new(vec![variant("v", 1)]);
    lab.edit(|endpoint| endpoint.pending.as_mut().unwrap().capture = Some(captured(100)));
    lab.pass(2);
    captures_one(&lab);
    let mut fresh = variant("w", 1);
    fresh.model.role_arn = "arn:aws:iam::123456789012:role/other".parse().unwrap();
    // The same variant under another role, and then another variant in its place: its old instances are gone when the last
    // lines leave.
    for (name, before, after) in [("v", 0, 1), ("w", 1, 2)] {
        fresh.variant.name = name.into();
        lab.update_to(name, vec![fresh.clone()]);
        lab.edit(|endpoint| endpoint.pending.as_mut().unwrap().capture = Some(captured(100)));
        assert_eq!(puts(&lab).len(), before);
        lab.pass(5);
        assert_eq!(puts(&lab).len(), after);
        captures_one(&lab);
    }
    assert_eq!(puts(&lab), ["serve", "other"]);
    lab.pass(70);
    assert_eq!(puts(&lab), ["serve", "other", "other"]);
}

/// Creations refuse it; a record that has it all the same captures nothing.
///
/// Proves: CC-63
#[test]
fn nothing_is_captured_of_a_model_in_a_vpc() {
    use isolarium_model::ec2::id::{GroupId, SubnetId, VpcId};
    let mut lab = Lab::new(vec![variant("v", 1)]);
    lab.edit(|endpoint| endpoint.pending.as_mut().unwrap().capture = Some(captured(100)));
    lab.pass(2);
    assert!(lab.pick().unwrap().capture().is_some(), "control");
    lab.edit(|endpoint| {
        let attachment = isolarium_model::sagemaker::VpcAttachment {
            vpc: VpcId::of(1),
            subnets: vec![SubnetId::of(1)],
            groups: vec![GroupId::of(1)],
        };
        let model = &mut endpoint.active.as_mut().unwrap().variants[0].model;
        model.network = JobNetwork::new(Some(true), Some(attachment));
    });
    lab.pass(1);
    assert!(lab.pick().unwrap().capture().is_none());
}

/// Proves: CC-63
#[test]
fn old_captures_that_cannot_be_delivered_are_few_and_given_up_in_the_end() {
    let mut lab = Lab::new(vec![variant("v", 1)]);
    lab.edit(|endpoint| endpoint.pending.as_mut().unwrap().capture = Some(captured(100)));
    lab.pass(2);
    lab.world.fail("put", "no path");
    for turn in 0..20u8 {
        captures_one(&lab);
        lab.edit(|endpoint| endpoint.active.as_mut().unwrap().capture = Some(captured(turn)));
        lab.pass(1);
    }
    assert_eq!(lab.memory.captures.len(), OLD_CAPTURES + 1, "and the one that serves");
    let tried = puts(&lab).len();
    assert_eq!(tried, 20, "a failed delivery waits for its next turn");
    lab.pass(9 * 61);
    assert_eq!(lab.memory.captures.len(), 1, "given up");
    assert_eq!(puts(&lab).len(), tried + OLD_CAPTURES * 9);
    // The one that serves is never given up.
    captures_one(&lab);
    lab.pass(15 * 61);
    lab.world.mend("put");
    lab.pass(61);
    let inner = lab.world.lock();
    let mut kept = inner
        .objects
        .iter()
        .filter(|(key, _)| key.starts_with("s3://kept/here/"));
    assert!(kept.next().is_some() && kept.next().is_none());
}

mod takeover;
