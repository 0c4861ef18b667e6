use super::*;
use crate::EndpointSource;
use crate::s3::{AccessLog, AccessRecord, S3Wiring};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use isolarium_model::iam::{Attachments, Policies, Role};
use isolarium_model::{Scope, Timestamp};
use isolarium_store::objects::NewBucket;
use isolarium_store::state::MemoryState;
use isolarium_store::{Batch, BlobStore, Database, DiskLogs, Expect, ObjectStore, objects};
use isolarium_wire::sigv4::BodyCheck;
use std::collections::BTreeMap;
use std::sync::Mutex;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const TRUST: &str = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow",
    "Principal":{"Service":"sagemaker.amazonaws.com"},"Action":"sts:AssumeRole"}}"#;

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }
}

struct Zero;

impl IdSource for Zero {
    fn hex(&self, digits: usize) -> String {
        "0".repeat(digits)
    }
}

#[derive(Default)]
struct Recorder(Mutex<Vec<AccessRecord>>);

impl AccessLog for Recorder {
    fn record(&self, record: &AccessRecord) {
        self.0.lock().unwrap().push(record.clone());
    }
}

struct Lab {
    roles: ExecutionRoles,
    store: Arc<MemoryState>,
    accesses: Arc<Recorder>,
    audit: Arc<isolarium_store::AuditTrail>,
    directory: tempfile::TempDir,
}

fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

fn actor() -> Actor {
    Actor {
        scope: scope(),
        role_arn: "arn:aws:iam::123456789012:role/exec".parse().unwrap(),
        owner_arn: "arn:aws:sagemaker:us-east-1:123456789012:training-job/j"
            .parse()
            .unwrap(),
    }
}

impl Lab {
    fn new(policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let schemas = [
            isolarium_store::logs::disk::SCHEMA,
            isolarium_store::metrics::SCHEMA,
            objects::SCHEMA,
        ];
        let database = Arc::new(Database::open(&path.join("state.db"), &schemas).unwrap());
        let objects = ObjectStore::open(path, database.clone()).unwrap();
        for name in ["data", "other"] {
            let new = NewBucket {
                name: name.parse().unwrap_or_else(|_| panic!("a bucket name")),
                owner: scope().account,
                region: scope().region,
                now: NOW,
            };
            objects.create_bucket(new).unwrap();
        }
        let store = Arc::new(MemoryState::new());
        let policies = store.clone();
        let accesses = Arc::new(Recorder::default());
        let audit = Arc::new(crate::audit::fixture::trail(path));
        let s3 = S3Front::new(S3Wiring {
            objects,
            clock: Arc::new(Still),
            authorities: Arc::new(move |caller: &Caller| {
                crate::iam::authority_of(&*policies, caller, NOW).map_err(isolarium_wire::ApiError::internal)
            }),
            keys: Arc::new(crate::kms::through::KeyStore {
                store: store.clone(),
                master: crate::iam::credentials::MasterKey::new([7; 32]),
                ids: Arc::new(Zero),
                clock: Arc::new(Still),
            }),
            identities: Arc::new(crate::iam::credentials::StoredIdentities {
                store: store.clone(),
                master: crate::iam::credentials::MasterKey::new([7; 32]),
            }),
            access_log: accesses.clone(),
            audit: audit.clone(),
            base_hosts: vec![],
            regions: vec![scope().region],
        });
        let roles = ExecutionRoles {
            store: store.clone(),
            metrics: Arc::new(isolarium_store::Metrics::new(database.clone())),
            logs: Arc::new(DiskLogs::open(database, &path.join("logs")).unwrap()),
            s3,
            registry: Arc::new(Registry {
                blobs: BlobStore::open(&path.join("registry")).unwrap(),
                key: crate::ecr::TokenKey::derive(&[7; 32]),
                endpoint: "http://127.0.0.1:4599".into(),
            }),
            clock: Arc::new(Still),
            ids: Arc::new(Zero),
            settings: PlatformSettings::default(),
            audit: crate::platform::acts::PlatformAudit::new(audit.clone()),
            source: [127, 0, 0, 1].into(),
        };
        let lab = Self {
            roles,
            store,
            accesses,
            audit,
            directory,
        };
        lab.role(TRUST, policy);
        lab
    }

    fn role(&self, trust: &str, policy: &str) {
        let role = Role {
            account: scope().account,
            path: "/".into(),
            name: "exec".into(),
            id: "AROAEXAMPLEEXAMPLE123".into(),
            created: NOW,
            trust: trust.into(),
            description: None,
            max_session: 3600,
            attachments: Attachments {
                policies: Policies {
                    inline: BTreeMap::from([("p".to_string(), policy.to_string())]),
                    ..Policies::default()
                },
                ..Attachments::default()
            },
        };
        let key = Role::key(&role.account, &role.name);
        let store: &dyn StateStore = &*self.store;
        store
            .commit(Batch::default().put(&key, Expect::Any, &role).unwrap())
            .unwrap();
    }

    fn file(&self, text: &str) -> std::path::PathBuf {
        let path = self.directory.path().join("out.bin");
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn policy(statements: &str) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#)
}

fn uri(text: &str) -> S3Uri {
    text.parse().unwrap()
}

const WRITE: &str =
    r#"{"Effect":"Allow","Action":["s3:PutObject","s3:DeleteObject"],"Resource":"arn:aws:s3:::data/*"}"#;
const READ: &str = r#"{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::data/in/*"}"#;
const LIST: &str = r#"{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::data"}"#;

fn denied<T: std::fmt::Debug>(outcome: Result<T, PlatformError>, action: &str) {
    match outcome {
        Err(PlatformError::Denied(text)) => {
            assert!(text.contains(action), "{text}");
            assert!(text.contains("assumed-role/exec/SageMaker"), "{text}");
        }
        other => panic!("expected a denial of {action}, got {other:?}"),
    }
}

/// Proves: NI-12, NI-14
#[test]
fn every_access_needs_the_roles_own_permission_and_is_logged_as_its_session() {
    let lab = Lab::new(&policy(WRITE));
    let from = lab.file("weights");
    lab.roles.put(&actor(), &uri("s3://data/in/a"), &from, None).unwrap();
    denied(lab.roles.open(&actor(), &uri("s3://data/in/a"), None), "s3:GetObject");
    denied(lab.roles.list(&actor(), &uri("s3://data/in/")), "s3:ListBucket");
    let staging = lab.directory.path().join("work");
    std::fs::create_dir(&staging).unwrap();
    denied(
        lab.roles.link(&actor(), &uri("s3://data/in/a"), &staging, "a"),
        "s3:GetObject",
    );
    assert!(!staging.join("a").exists(), "nothing was staged");

    lab.role(TRUST, &policy(&[WRITE, READ, LIST].join(",")));
    assert_eq!(
        lab.roles.read(&actor(), &uri("s3://data/in/a"), 100, None).unwrap(),
        b"weights"
    );
    assert_eq!(
        lab.roles.list(&actor(), &uri("s3://data/in/")).unwrap(),
        [("in/a".to_string(), 7)]
    );
    lab.roles
        .link(&actor(), &uri("s3://data/in/a"), &staging, "sub/a")
        .unwrap();
    assert_eq!(std::fs::read(staging.join("sub/a")).unwrap(), b"weights");
    denied(
        lab.roles.put(&actor(), &uri("s3://other/x"), &lab.file("x"), None),
        "s3:PutObject",
    );
    lab.roles.delete(&actor(), &uri("s3://data/in/a")).unwrap();
    lab.roles.delete(&actor(), &uri("s3://data/in/a")).unwrap();
    assert!(matches!(
        lab.roles.open(&actor(), &uri("s3://data/in/a"), None),
        Err(PlatformError::Unusable(_))
    ));

    let log = lab.accesses.0.lock().unwrap();
    let session = "arn:aws:sts::123456789012:assumed-role/exec/SageMaker";
    assert!(
        log.iter()
            .all(|one| one.platform && one.principal.as_deref() == Some(session))
    );
    assert!(
        log.iter()
            .any(|one| one.operation.as_deref() == Some("GetObject") && one.status == 200)
    );
    assert!(log.iter().any(|one| one.error.as_deref() == Some("AccessDenied")));
}

/// Proves: IAM-50, IAM-52
#[test]
fn a_role_that_is_gone_or_trusts_somebody_else_can_do_nothing() {
    let lab = Lab::new(&policy(&[WRITE, READ, LIST].join(",")));
    assert!(lab.roles.assume(&actor()).is_ok(), "control");
    lab.role(&TRUST.replace("sagemaker", "ec2"), &policy(LIST));
    let refused = lab.roles.assume(&actor());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Could not assume role arn:aws:iam::123456789012:role/exec. Please ensure that the role exists and allows \
         principal 'sagemaker.amazonaws.com' to assume the role."
    );
    assert!(matches!(
        lab.roles.list(&actor(), &uri("s3://data/")),
        Err(PlatformError::Role(_))
    ));
    let elsewhere = Actor {
        role_arn: "arn:aws:iam::123456789012:role/none".parse().unwrap(),
        ..actor()
    };
    assert!(matches!(lab.roles.assume(&elsewhere), Err(PlatformError::Role(_))));
}

/// Proves: CC-91
#[test]
fn groups_and_streams_are_made_and_filled_once_with_the_roles_permission() {
    let may = |actions: &str| policy(&format!(r#"{{"Effect":"Allow","Action":[{actions}],"Resource":"*"}}"#));
    let lab = Lab::new(&may(r#""logs:PutLogEvents""#));
    let event = |text: &str| LogEvent {
        timestamp: NOW,
        message: text.into(),
    };
    let events = [event("one"), event("two")];
    let append = |from, to| {
        let piece = LogPiece {
            source: "w-1",
            from,
            to,
            events: &events,
        };
        lab.roles
            .append_log(&actor(), "/aws/sagemaker/TrainingJobs", "j/algo-1-1", &piece)
    };
    denied(append(0, 8), "logs:CreateLogGroup");
    lab.role(TRUST, &may(r#""logs:CreateLogGroup","logs:CreateLogStream""#));
    denied(append(0, 8), "logs:PutLogEvents");
    lab.role(
        TRUST,
        &may(r#""logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents""#),
    );
    assert_eq!(append(0, 8).unwrap(), 8);
    assert_eq!(append(0, 8).unwrap(), 8, "a repeated piece adds nothing");
    assert_eq!(append(8, 16).unwrap(), 16);
    let group = GroupName::new(&scope(), "/aws/sagemaker/TrainingJobs");
    let all = logs::TimeRange { start: None, end: None };
    let page = lab
        .roles
        .logs
        .read(&group, "j/algo-1-1", &logs::ReadFrom::Head, all, 100, NOW)
        .unwrap();
    assert_eq!(page.events.len(), 4);
}

/// Fixture P6.
const P6: [&str; 9] = [
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeVpcs",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeSubnets",
    "ec2:DescribeSecurityGroups",
];

fn attaching(actions: &[&str], rest: &str) -> String {
    let actions = serde_json::to_string(actions).unwrap();
    policy(&format!(r#"{{"Effect":"Allow","Action":{actions},{rest}}}"#))
}

/// Proves: BT-6, IAM-55, IAM-62, NET-61
#[test]
fn a_role_without_one_of_nine_actions_on_everything_may_not_attach_to_a_vpc() {
    let lab = Lab::new(&attaching(&P6, r#""Resource":"*""#));
    lab.roles.check_network(&actor()).unwrap();
    for missing in P6 {
        let others: Vec<&str> = P6.into_iter().filter(|action| *action != missing).collect();
        lab.role(TRUST, &attaching(&others, r#""Resource":"*""#));
        assert_eq!(
            lab.roles.check_network(&actor()).unwrap_err().to_string(),
            format!(
                "You are not authorized to perform this operation. User: \
                 arn:aws:sts::123456789012:assumed-role/exec/SageMaker is not authorized to perform: {missing} on \
                 resource: * because no identity-based policy allows the {missing} action"
            )
        );
    }
    for narrowed in [
        r#""Resource":"arn:aws:ec2:us-east-1:123456789012:subnet/*""#,
        r#""Resource":"*","Condition":{"StringEquals":{"ec2:Region":"us-east-1"}}"#,
        r#""Resource":"*","Condition":{"ArnLike":{"ec2:Vpc":"arn:aws:ec2:*:*:vpc/*"}}"#,
        r#""Resource":"*","Condition":{"StringEquals":{"aws:SourceVpc":"vpc-1"}}"#,
    ] {
        lab.role(TRUST, &attaching(&P6, narrowed));
        denied(lab.roles.check_network(&actor()), "ec2:");
    }
    lab.role(TRUST, &attaching(&P6, r#""Resource":"*""#));
    lab.roles.check_network(&actor()).unwrap();
    lab.role(&TRUST.replace("sagemaker", "ec2"), &attaching(&P6, r#""Resource":"*""#));
    assert!(matches!(lab.roles.check_network(&actor()), Err(PlatformError::Role(_))));
    let told = lab.audit.request(&"0".repeat(16)).unwrap();
    assert!(
        told.iter()
            .any(|told| told.event.contains(r#""eventName":"DescribeVpcs""#)),
        "{told:?}"
    );
}

/// Proves: CC-11
#[test]
fn an_image_needs_the_pull_permissions_before_it_is_looked_for() {
    let lab = Lab::new(&policy(LIST));
    let image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1";
    denied(lab.roles.check_image(&actor(), image), "ecr:GetAuthorizationToken");
    lab.role(TRUST, &policy(r#"{"Effect":"Allow","Action":"ecr:*","Resource":"*"}"#));
    let missing = lab.roles.check_image(&actor(), image);
    assert!(
        matches!(&missing, Err(PlatformError::Unusable(text)) if text.contains("not found")),
        "{missing:?}"
    );
    let foreign = "999999999999.dkr.ecr.us-east-1.amazonaws.com/app:1";
    denied(
        lab.roles.check_image(&actor(), foreign),
        "ecr:BatchCheckLayerAvailability",
    );
    let managed = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2";
    assert!(matches!(
        lab.roles.check_image(&actor(), managed),
        Err(PlatformError::Unusable(_))
    ));
}

/// Proves: IAM-27, NI-14
#[test]
fn the_audit_trail_tells_what_the_platform_did_for_whom_and_why_it_was_denied() {
    let lab = Lab::new(&policy(WRITE));
    let from = lab.file("weights");
    lab.roles.put(&actor(), &uri("s3://data/in/a"), &from, None).unwrap();
    denied(lab.roles.open(&actor(), &uri("s3://data/in/a"), None), "s3:GetObject");
    lab.role(&TRUST.replace("sagemaker", "ec2"), &policy(WRITE));
    assert!(lab.roles.assume(&actor()).is_err());
    // Test ids are all the same: everything that is indexed is of one request.
    let told = lab.audit.request(&"0".repeat(16)).unwrap();
    let event = |name: &str, error: Option<&str>| {
        told.iter()
            .map(|told| {
                let event: serde_json::Value = serde_json::from_str(&told.event).unwrap();
                let verdict: crate::audit::Verdict = serde_json::from_str(told.engine.as_deref().unwrap()).unwrap();
                (event, verdict)
            })
            .find(|(event, _)| event["eventName"] == name && event["errorCode"].as_str() == error)
            .unwrap_or_else(|| panic!("{name} {error:?} is not among {told:?}"))
    };
    let (read, verdict) = event("GetObject", Some("AccessDenied"));
    assert_eq!(read["userIdentity"]["invokedBy"], "sagemaker.amazonaws.com");
    assert_eq!(
        read["userIdentity"]["arn"],
        "arn:aws:sts::123456789012:assumed-role/exec/SageMaker"
    );
    assert_eq!(verdict.acted_for.as_deref(), Some(actor().owner_arn.as_str()));
    assert_eq!(
        verdict.denial().unwrap().missing,
        Some(isolarium_policy::PolicyType::Identity)
    );
    let (assumed, verdict) = event("AssumeRole", None);
    assert_eq!(assumed["userIdentity"]["type"], "AWSService");
    assert_eq!(verdict.denial(), None, "control: the first assumption was allowed");
    let (_, verdict) = event("AssumeRole", Some("AccessDenied"));
    assert_eq!(
        verdict.denial().unwrap().missing,
        Some(isolarium_policy::PolicyType::Trust)
    );
}

/// Proves: CC-11, IAM-23, IAM-67
#[test]
fn an_image_of_another_account_is_pulled_where_its_repository_policy_and_the_role_both_allow() {
    let lab = Lab::new(&policy(r#"{"Effect":"Allow","Action":"ecr:*","Resource":"*"}"#));
    let theirs = Scope {
        account: "999999999999".parse().unwrap(),
        ..scope()
    };
    let shelf = ecr::Shelf {
        registry: &lab.roles.registry,
        store: &*lab.store,
        scope: &theirs,
        now: NOW,
    };
    let repository = isolarium_model::ecr::Repository {
        name: "app".into(),
        created: NOW,
        modified: NOW,
        immutable_tags: false,
        tags: BTreeMap::new(),
        policy: None,
    };
    shelf.create(&repository).unwrap();
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#,
        ecr::resolve::host_architecture()
    );
    let digest = lab.roles.registry.blobs.put("u", config.as_bytes(), NOW).unwrap();
    shelf.add_layer("app", &digest, config.len() as u64).unwrap();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],"config":{{
        "mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{}}}}}"#,
        config.len()
    );
    let push = ecr::Push {
        text: manifest.as_bytes(),
        media_type: None,
        tag: Some("1"),
        digest: None,
    };
    let pushed = shelf.push("app", &push).unwrap().digest;
    let image = "999999999999.dkr.ecr.us-east-1.amazonaws.com/app:1";
    let told = |principal: &str, actions: &str| {
        let text = policy(&format!(
            r#"{{"Effect":"Allow","Principal":{{"AWS":"{principal}"}},"Action":{actions}}}"#
        ));
        shelf
            .update("app", |repository| repository.policy = Some(text.clone()))
            .unwrap();
    };
    let pull = r#"["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer","ecr:BatchCheckLayerAvailability"]"#;
    denied(
        lab.roles.resolve_image(&actor(), image),
        "ecr:BatchCheckLayerAvailability",
    );
    told("arn:aws:iam::111122223333:root", pull);
    denied(
        lab.roles.resolve_image(&actor(), image),
        "ecr:BatchCheckLayerAvailability",
    );
    told(
        "arn:aws:iam::123456789012:root",
        r#"["ecr:BatchCheckLayerAvailability"]"#,
    );
    denied(lab.roles.resolve_image(&actor(), image), "ecr:GetDownloadUrlForLayer");
    told("arn:aws:iam::123456789012:root", pull);
    assert_eq!(lab.roles.resolve_image(&actor(), image).unwrap().digest, pushed);
    // The role's own account has its say too.
    lab.role(TRUST, &policy(LIST));
    denied(lab.roles.resolve_image(&actor(), image), "ecr:GetAuthorizationToken");
}

/// Fixture P1.
const P1: [&str; 7] = [
    "s3:GetObject",
    "s3:PutObject",
    "s3:ListBucket",
    "s3:GetBucketLocation",
    "s3:DeleteObject",
    "s3:ListMultipartUploadParts",
    "s3:AbortMultipartUpload",
];

impl Lab {
    /// The execution role's session as it comes through a gateway endpoint that allows these actions on everything.
    fn through(&self, actions: &[&str]) -> Caller {
        let policy = serde_json::json!({"Version": "2008-10-17", "Statement": [
            {"Effect": "Allow", "Principal": "*", "Action": actions, "Resource": "*"}]});
        Caller {
            source: Source::Endpoint(EndpointSource {
                vpc_id: "vpc-0a".into(),
                endpoint_id: "vpce-0a".into(),
                region: "us-east-1".parse().unwrap(),
                address: [10, 0, 1, 7].into(),
                secure: true,
                gateway: true,
                policy: Some(policy.to_string().into()),
            }),
            ..self.roles.session(&actor()).unwrap()
        }
    }

    /// What a training job's transfers do, each with the action that it needs.
    fn transfers(&self, caller: &Caller) -> [(&'static str, Result<(), TransferError>); 8] {
        let (s3, data) = (&self.roles.s3, bucket(&uri("s3://data/")).unwrap());
        let at = |text: &str| text.parse::<ObjectKey>().unwrap();
        let listing = |prefix: &str| {
            let query = ListingQuery {
                prefix: prefix.into(),
                delimiter: None,
                after: None,
                limit: PAGE,
            };
            s3.platform_list(caller, &data, &query).map(|_| ())
        };
        let put = |key: &str| {
            let mut bytes = &b"weights"[..];
            s3.platform_put(caller, &data, &at(key), None, &mut bytes).map(|_| ())
        };
        let link = |key: &str| {
            let staging = tempfile::tempdir_in(self.directory.path()).unwrap();
            s3.platform_link_into(caller, &data, &at(key), staging.path(), "x")
                .map(|_| ())
        };
        [
            ("s3:ListBucket", listing("in/")),
            (
                "s3:GetObject",
                s3.platform_open(caller, &data, &at("in/a"), None).map(|_| ()),
            ),
            ("s3:GetObject", link("in/a")),
            ("s3:ListBucket", listing("checkpoints/")),
            ("s3:GetObject", link("checkpoints/0")),
            ("s3:PutObject", put("checkpoints/1")),
            (
                "s3:DeleteObject",
                s3.platform_delete(caller, &data, &at("checkpoints/1")),
            ),
            ("s3:PutObject", put("out/model.tar.gz")),
        ]
    }

    async fn ask(&self, caller: &Caller, method: Method, target: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("content-length", body.len());
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        let answer = self.roles.s3.call(request, caller.clone(), BodyCheck::Done).await;
        let status = answer.status();
        let told = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&told).into_owned())
    }
}

/// Input, checkpoints and output by the platform's own operations, and an output in parts as clients send it.
///
/// Proves: VPC-18, VPC-16, IAM-32
#[tokio::test]
async fn everything_a_training_job_transfers_passes_an_endpoint_with_p1_alone() {
    let lab = Lab::new(&policy(r#"{"Effect":"Allow","Action":"s3:*","Resource":"*"}"#));
    for place in ["s3://data/in/a", "s3://data/checkpoints/0"] {
        lab.roles.put(&actor(), &uri(place), &lab.file("bytes"), None).unwrap();
    }
    let caller = lab.through(&P1);
    for (action, outcome) in lab.transfers(&caller) {
        outcome.unwrap_or_else(|error| panic!("{action}: {error}"));
    }
    let (status, told) = lab.ask(&caller, Method::POST, "/data/out/parts?uploads", "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let upload = told
        .split("UploadId>")
        .nth(1)
        .unwrap()
        .trim_end_matches("</")
        .to_owned();
    let part = format!("/data/out/parts?partNumber=1&uploadId={upload}");
    assert_eq!(lab.ask(&caller, Method::PUT, &part, "x").await.0, StatusCode::OK);
    let parts = format!("/data/out/parts?uploadId={upload}");
    let (status, told) = lab.ask(&caller, Method::GET, &parts, "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let etag = told.split("ETag>").nth(1).unwrap().trim_end_matches("</");
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let (status, told) = lab.ask(&caller, Method::POST, &parts, &list).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(
        lab.roles.read(&actor(), &uri("s3://data/out/parts"), 9, None).unwrap(),
        b"x"
    );

    // One more action than P1 has is denied by the endpoint, and by nothing else.
    let tags = "/data/in/a?tagging";
    let public = lab.roles.session(&actor()).unwrap();
    assert_eq!(
        lab.ask(&public, Method::GET, tags, "").await.0,
        StatusCode::OK,
        "control: the role may"
    );
    let (status, told) = lab.ask(&caller, Method::GET, tags, "").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{told}");
    let reason = |action: &str| format!("because no VPC endpoint policy allows the {action} action");
    assert!(told.contains(&reason("s3:GetObjectTagging")), "{told}");

    // And each of the actions is needed: without it, what needs it is denied and all else goes on.
    for missing in ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"] {
        let others: Vec<&str> = P1.into_iter().filter(|action| *action != missing).collect();
        let outcomes = lab.transfers(&lab.through(&others));
        assert!(outcomes.iter().any(|(action, _)| *action == missing));
        for (action, outcome) in outcomes {
            if action == missing {
                let error = outcome.unwrap_err();
                assert_eq!(error.code, "AccessDenied");
                assert!(error.message.contains(&reason(missing)), "{error}");
            } else {
                outcome.unwrap_or_else(|error| panic!("without {missing}, {action}: {error}"));
            }
        }
    }
    // What the endpoint lets through is still the role's to do.
    lab.role(TRUST, &policy(LIST));
    for (action, outcome) in lab.transfers(&lab.through(&P1)) {
        assert_eq!(outcome.is_ok(), action == "s3:ListBucket", "{action}: {outcome:?}");
    }
}
