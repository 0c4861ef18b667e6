use super::*;
use http_body_util::BodyExt;
use isolarium_model::sagemaker::training_job::{JobRun, JobSpec, OutputCompression, OutputConfig};
use isolarium_model::sagemaker::{Attachment, ContainerSpec, JobNetwork, SecondaryStatus};
use isolarium_store::state::memory::MemoryState;
use isolarium_store::{Batch, Expect};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const CONTAINER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 9);

#[derive(Default)]
struct Hand(AtomicI64);
impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

struct Bench {
    credentials: Credentials,
    clock: Arc<Hand>,
    made: Arc<AtomicUsize>,
}

fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

fn workload() -> WorkloadId {
    "w-0123456789abcdef0".parse().unwrap()
}

fn job(attachment: Attachment) -> TrainingJob {
    TrainingJob {
        name: "j".into(),
        arn: Arn::sagemaker(&scope(), "training-job", "j"),
        created: Timestamp(0),
        modified: Timestamp(0),
        secondary: SecondaryStatus::Training,
        transitions: Vec::new(),
        failure_reason: None,
        training_start: None,
        training_end: None,
        tuning_job: None,
        warm_pool: None,
        spec: JobSpec {
            container: ContainerSpec {
                image: "i".into(),
                environment: Default::default(),
            },
            entrypoint: None,
            arguments: None,
            hyperparameters: Default::default(),
            channels: Vec::new(),
            output: OutputConfig {
                uri: "s3://b/o".parse().unwrap(),
                compression: OutputCompression::Gzip,
                kms_key: None,
            },
            checkpoints: None,
            metrics: Vec::new(),
            instance_type: "ml.m5.large".into(),
            instances: 1,
            groups: Vec::new(),
            role_arn: "arn:aws:iam::123456789012:role/exec".parse().unwrap(),
            max_runtime: 60,
            max_pending: None,
            max_wait: None,
            max_retries: 0,
            volume: None,
            keep_alive: 0,
            network: JobNetwork::new(Some(false), None),
        },
        run: JobRun {
            placement: Placement {
                workload: workload(),
                attachment,
            },
            others: Vec::new(),
            image: None,
            stop: None,
            launched: true,
            restarts: 0,
            encrypted: false,
        },
        warning: None,
        final_metrics: Default::default(),
        tags: Default::default(),
        echo: Default::default(),
    }
}

fn bench(attachment: Attachment, role_works: bool) -> Bench {
    let store: Arc<dyn StateStore> = Arc::new(MemoryState::new());
    let job = job(attachment);
    let owner = TrainingJob::key(&scope(), "j");
    let lease = AddressLease {
        workload: workload(),
        owner_arn: job.arn.to_string(),
        owner: owner.clone(),
        leased: Timestamp(0),
    };
    let batch = Batch::default().put(&owner, Expect::Absent, &job).unwrap();
    let batch = batch
        .put(&AddressLease::key(CONTAINER).unwrap(), Expect::Absent, &lease)
        .unwrap();
    store.commit(batch).unwrap();
    let (clock, made) = (Arc::new(Hand::default()), Arc::new(AtomicUsize::new(0)));
    let (clock_seen, made_seen) = (clock.clone(), made.clone());
    let assume: Assume = Arc::new(move |_, role_arn, owner_arn, lifetime| {
        assert_eq!(role_arn.as_str(), "arn:aws:iam::123456789012:role/exec");
        assert!(owner_arn.as_str().ends_with(":training-job/j"));
        if !role_works {
            return Err(SessionError::Role("it is gone".into()));
        }
        let n = made_seen.fetch_add(1, Ordering::SeqCst);
        Ok(Session {
            access_key_id: format!("ASIA{n}"),
            secret_access_key: Secret::new("secret"),
            token: Secret::new("token"),
            expires: clock_seen.now().after(lifetime),
        })
    });
    let lifetimes = Lifetimes {
        lifetime: Duration::from_secs(3600),
        refresh_before: Duration::from_secs(900),
    };
    Bench {
        credentials: Credentials::new(store, clock.clone(), assume, lifetimes),
        clock,
        made,
    }
}

fn open() -> Attachment {
    Attachment::ServiceNetwork {
        address: CONTAINER,
        credentials_token: TOKEN.into(),
    }
}

async fn get(bench: &Bench, from: Ipv4Addr, path: &str) -> (StatusCode, serde_json::Value) {
    let request = Request::get(path).body(()).unwrap();
    told(bench.credentials.answer(&Asker::Platform(from), &request)).await
}

async fn told(response: Response<Body>) -> (StatusCode, serde_json::Value) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

fn path() -> String {
    format!("{PATH}{TOKEN}")
}

/// Proves: CC-80
#[tokio::test]
async fn a_container_reads_the_credentials_of_its_execution_role() {
    let bench = bench(open(), true);
    let (status, body) = get(&bench, CONTAINER, &path()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        serde_json::json!({
            "AccessKeyId": "ASIA0", "SecretAccessKey": "secret", "Token": "token",
            "Expiration": "1970-01-01T01:00:00Z", "RoleArn": "arn:aws:iam::123456789012:role/exec"
        })
    );
}

/// Proves: CC-82
#[tokio::test]
async fn only_the_containers_own_address_and_token_get_an_answer() {
    let bench = bench(open(), true);
    assert_eq!(get(&bench, CONTAINER, &path()).await.0, StatusCode::OK, "control");
    let neighbour = Ipv4Addr::new(100, 64, 0, 10);
    let guess = format!("{PATH}{}", TOKEN.replace('f', "e"));
    for (from, path) in [
        (neighbour, path()),
        (CONTAINER, guess),
        (CONTAINER, PATH.into()),
        (CONTAINER, "/".into()),
        (CONTAINER, "/latest/meta-data/iam/security-credentials/".into()),
        (Ipv4Addr::LOCALHOST, path()),
    ] {
        let (status, body) = get(&bench, from, &path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{from} {path}");
        assert!(body.get("AccessKeyId").is_none());
    }
    let request = Request::post(path()).body(()).unwrap();
    assert_eq!(
        bench.credentials.answer(&Asker::Platform(CONTAINER), &request).status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}

/// Proves: CC-82
#[tokio::test]
async fn in_a_vpc_a_container_is_known_by_its_interface() {
    let bench = bench(open(), true);
    let ids = |n: u128| ec2::id::InterfaceId::of(n);
    let interface = |n: u128, holder: ec2::Holder, primary: Ipv4Addr| NetworkInterface {
        id: ids(n),
        vpc: ec2::id::VpcId::of(1),
        subnet: ec2::id::SubnetId::of(1),
        zone: ec2::zone::zones(&scope().region, "a").remove(0),
        primary,
        secondary: Default::default(),
        groups: Default::default(),
        description: String::new(),
        source_dest_check: true,
        requester: Some(ec2::Requester {
            id: "sagemaker".into(),
            owner: Some(TrainingJob::key(&scope(), "j")),
            owner_arn: Some(job(open()).arn.to_string()),
        }),
        holder,
        attachment: None,
        created: Timestamp(0),
        tags: Default::default(),
    };
    let (container, stranger) = (
        ec2::Holder::Container(workload()),
        "w-00000000000000000".parse().unwrap(),
    );
    let mut batch = Batch::default();
    for one in [
        interface(1, container.clone(), CONTAINER),
        interface(2, ec2::Holder::Transfer(workload()), CONTAINER),
        interface(3, ec2::Holder::Isolated(workload()), CONTAINER),
        interface(4, ec2::Holder::Container(stranger), CONTAINER),
        interface(5, container, Ipv4Addr::new(100, 64, 0, 10)),
    ] {
        batch = batch.put(&ec2::key(&scope(), one.id), Expect::Absent, &one).unwrap();
    }
    bench.credentials.store.commit(batch).unwrap();
    let ask = |n: u128, path: String| {
        let request = Request::get(path).body(()).unwrap();
        told(
            bench
                .credentials
                .answer(&Asker::Interface(ec2::key(&scope(), ids(n))), &request),
        )
    };
    let (status, body) = ask(1, path()).await;
    assert_eq!(
        (status, &body["AccessKeyId"]),
        (StatusCode::OK, &"ASIA0".into()),
        "control"
    );
    let guess = format!("{PATH}{}", TOKEN.replace('f', "e"));
    for (n, path) in [
        (1, guess),
        (2, path()),
        (3, path()),
        (4, path()),
        (5, path()),
        (6, path()),
    ] {
        assert_eq!(
            ask(n, path.clone()).await.0,
            StatusCode::NOT_FOUND,
            "interface {n}, {path}"
        );
    }
    let nobody = bench
        .credentials
        .answer(&Asker::Nobody, &Request::get(path()).body(()).unwrap());
    assert_eq!(nobody.status(), StatusCode::NOT_FOUND);
}

/// Proves: CC-84
#[tokio::test]
async fn an_isolated_container_gets_none_even_from_an_address_that_was_leased() {
    let isolated = bench(Attachment::Isolated, true);
    assert_eq!(get(&isolated, CONTAINER, &path()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        get(&bench(open(), true), CONTAINER, &path()).await.0,
        StatusCode::OK,
        "control"
    );
}

/// Proves: CC-81
#[tokio::test]
async fn credentials_are_kept_until_shortly_before_their_end_and_then_rotate() {
    let bench = bench(open(), true);
    let at = |minutes: i64| bench.clock.0.store(minutes * 60_000, Ordering::SeqCst);
    for (minutes, want) in [(0, "ASIA0"), (44, "ASIA0"), (46, "ASIA1"), (80, "ASIA1")] {
        at(minutes);
        assert_eq!(
            get(&bench, CONTAINER, &path()).await.1["AccessKeyId"],
            want,
            "after {minutes} minutes"
        );
    }
    assert_eq!(bench.made.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_any_more_gives_nothing() {
    let (status, body) = get(&bench(open(), false), CONTAINER, &path()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(!body.to_string().contains("gone"), "the reason is the operator's");
}
