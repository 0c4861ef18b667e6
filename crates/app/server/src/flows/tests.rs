//! The whole loop over real stores: a fake host counts, roles and buckets' policies decide.

use super::*;
use crate::clock::SystemIds;
use crate::vpc::PublicNames;
use flate2::read::GzDecoder;
use isolarium_model::Scope;
use isolarium_model::ec2::flow_format::Format;
use isolarium_model::ec2::flow_log::{FlowLogDestination, FlowLogResource, TrafficType};
use isolarium_model::ec2::{self, Requester};
use isolarium_model::iam::{Attachments, Policies, Role};
use isolarium_model::logs::GroupName;
use isolarium_netplan::flowlog::{Counts, Fate, Flow, Path, Refusal, Tcp};
use isolarium_netplan::id::{AclId, GroupId, RouteTableId};
use isolarium_netplan::intent::vpc::{Dns, NetworkAcl, RouteTable, SecurityGroup, Subnet, Vpc};
use isolarium_runtime::fake::FakeVpcs;
use isolarium_services::ecr::{Registry, TokenKey};
use isolarium_services::iam::credentials::{MasterKey, StoredIdentities};
use isolarium_services::platform::PlatformSettings;
use isolarium_services::platform::acts::PlatformAudit;
use isolarium_services::s3::{FileAccessLog, S3Front, S3Wiring};
use isolarium_store::logs::{ReadFrom, TimeRange};
use isolarium_store::objects::{ListingQuery, NewBucket};
use isolarium_store::state::memory::MemoryState;
use isolarium_store::{BlobStore, Database, DiskLogs, LogStore, ObjectStore, logs, objects};
use std::io::Read;
use std::sync::atomic::{AtomicI64, Ordering};

const TRUST: &str = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow",
    "Principal":{"Service":"vpc-flow-logs.amazonaws.com"},"Action":"sts:AssumeRole"}}"#;
const WRITE: &str = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Resource":"*","Action":
    ["logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents","logs:DescribeLogGroups","logs:DescribeLogStreams"]}}"#;
const MINUTE: i64 = 60_000;

struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

struct Lab {
    host: Arc<FakeVpcs>,
    store: Arc<dyn StateStore>,
    logs: Arc<DiskLogs>,
    objects: ObjectStore,
    clock: Arc<Hand>,
    roles: Arc<ExecutionRoles>,
    directory: tempfile::TempDir,
}

fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

fn eni(n: u128) -> InterfaceId {
    InterfaceId::of(n)
}

fn vpc() -> Vpc {
    let interface = |address: &str, holder| Interface {
        subnet: SubnetId::of(1),
        primary: address.parse().unwrap(),
        secondary: Default::default(),
        groups: [GroupId::of(1)].into(),
        source_dest_check: true,
        public: None,
        holder,
    };
    let workload = "w-0123456789abcdef0".parse().unwrap();
    Vpc {
        id: VpcId::of(1),
        blocks: vec!["10.0.0.0/16".parse().unwrap()],
        dns: Dns {
            support: true,
            hostnames: false,
            domain_name: None,
            servers: Vec::new(),
        },
        subnets: [(
            SubnetId::of(1),
            Subnet {
                block: "10.0.1.0/24".parse().unwrap(),
                zone: "us-east-1a".into(),
                route_table: RouteTableId::of(1),
                acl: AclId::of(1),
            },
        )]
        .into(),
        acls: [(AclId::of(1), NetworkAcl::default())].into(),
        groups: [(GroupId::of(1), SecurityGroup::default())].into(),
        prefix_lists: BTreeMap::new(),
        route_tables: [(RouteTableId::of(1), RouteTable::default())].into(),
        internet_gateway: None,
        nat_gateways: BTreeMap::new(),
        interfaces: [
            (eni(1), interface("10.0.1.20", Holder::Container(workload))),
            (eni(2), interface("10.0.1.30", Holder::Program)),
        ]
        .into(),
        peers_only: false,
        s3_endpoints: BTreeMap::new(),
        interface_endpoints: BTreeMap::new(),
    }
}

fn passed(at: i64, packets: u64) -> Flow {
    let path = Path {
        source: "10.0.1.20".parse().unwrap(),
        destination: "10.0.1.30".parse().unwrap(),
        source_port: 41800,
        destination_port: 443,
    };
    let answers = Path {
        source: path.destination,
        destination: path.source,
        source_port: 443,
        destination_port: 41800,
    };
    let counts = |packets| Counts {
        packets,
        bytes: packets * 60,
    };
    Flow {
        protocol: 6,
        path,
        forward: counts(packets),
        first: Timestamp(at),
        last: Timestamp(at),
        fate: Fate::Passed {
            answers,
            backward: counts(1),
            began: true,
            tcp: Some(Tcp::Open),
            ended: false,
        },
    }
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let schemas = [logs::disk::SCHEMA, objects::SCHEMA];
        let database = Arc::new(Database::open(&path.join("state.db"), &schemas).unwrap());
        let objects = ObjectStore::open(path, database.clone()).unwrap();
        let bucket = NewBucket {
            name: "logs".parse().unwrap(),
            owner: scope().account,
            region: scope().region,
            now: Timestamp(0),
        };
        objects.create_bucket(bucket).unwrap();
        let store: Arc<dyn StateStore> = Arc::new(MemoryState::new());
        let clock = Arc::new(Hand(AtomicI64::new(1_000)));
        let audit = Arc::new(crate::audit_of(path));
        let (policies, now) = (store.clone(), clock.clone());
        let s3 = S3Front::new(S3Wiring {
            objects: objects.clone(),
            clock: clock.clone(),
            authorities: Arc::new(move |caller: &isolarium_services::Caller| {
                isolarium_services::iam::authority_of(policies.as_ref(), caller, now.now())
                    .map_err(isolarium_wire::ApiError::internal)
            }),
            keys: Arc::new(isolarium_services::kms::through::KeyStore {
                store: store.clone(),
                master: MasterKey::new([7; 32]),
                ids: Arc::new(crate::clock::SystemIds),
                clock: clock.clone(),
            }),
            identities: Arc::new(StoredIdentities {
                store: store.clone(),
                master: MasterKey::new([7; 32]),
            }),
            audit: audit.clone(),
            access_log: Arc::new(FileAccessLog::open(&path.join("s3-access.log")).unwrap()),
            base_hosts: Vec::new(),
            regions: vec![scope().region],
        });
        let metrics = Arc::new(isolarium_store::Metrics::new(database.clone()));
        let logs = Arc::new(DiskLogs::open(database, &path.join("events")).unwrap());
        let roles = Arc::new(ExecutionRoles {
            store: store.clone(),
            logs: logs.clone(),
            metrics,
            s3,
            registry: Arc::new(Registry {
                blobs: BlobStore::open(&path.join("registry")).unwrap(),
                key: TokenKey::derive(&[7; 32]),
                endpoint: "http://localhost".into(),
            }),
            clock: clock.clone(),
            ids: Arc::new(SystemIds),
            settings: PlatformSettings::default(),
            audit: PlatformAudit::new(audit),
            source: [127, 0, 0, 1].into(),
        });
        let host = Arc::new(FakeVpcs::default());
        host.apply_vpc(&vpc()).unwrap();
        Self {
            host,
            store,
            logs,
            objects,
            clock,
            roles,
            directory,
        }
    }

    /// A loop as a restart makes it: it knows what is on disk.
    fn flow_logs(&self) -> FlowLogs {
        self.flow_logs_of(vpc())
    }

    fn flow_logs_of(&self, vpc: Vpc) -> FlowLogs {
        let public = PublicNames {
            regions: vec![scope().region],
            services: "198.18.0.0/17".parse().unwrap(),
            s3_prefix_list: "198.18.128.0/20".parse().unwrap(),
            endpoints: Default::default(),
            zone_rule: true,
        };
        let view = Arc::new(View::of(&scope(), &Arc::new(vpc.check().unwrap()), &public));
        FlowLogs {
            host: self.host.clone(),
            views: Arc::new(move || vec![view.clone()]),
            store: self.store.clone(),
            roles: self.roles.clone(),
            clock: self.clock.clone(),
            ranges: Ranges::default(),
            folder: self.directory.path().join("flows"),
            settings: FlowSettings {
                read: Duration::from_secs(5),
                minute: Duration::from_secs(60),
            },
        }
    }

    fn put<R: isolarium_model::Record>(&self, key: &Key, record: &R) {
        self.store
            .commit(Batch::default().put(key, Expect::Any, record).unwrap())
            .unwrap();
    }

    fn role(&self, trust: &str, policy: &str) {
        let role = Role {
            account: scope().account,
            path: "/".into(),
            name: "flows".into(),
            id: "AROAEXAMPLEEXAMPLE123".into(),
            created: Timestamp(0),
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
        self.put(&Role::key(&role.account, &role.name), &role);
    }

    fn flow_log(&self, destination: FlowLogDestination, traffic: TrafficType) {
        let log = FlowLog {
            id: FlowLogId::of(7),
            vpc: VpcId::of(1),
            about: FlowLogResource::Vpc(VpcId::of(1)),
            traffic,
            destination,
            interval: 60,
            format: Format::default().to_string(),
            error: None,
            created: Timestamp(0),
            tags: Default::default(),
        };
        self.put(&key(&scope(), log.id), &log);
    }

    fn to_logs(&self, traffic: TrafficType) {
        let destination = FlowLogDestination::CloudWatchLogs {
            group: "flows".into(),
            role_arn: "arn:aws:iam::123456789012:role/flows".parse().unwrap(),
        };
        self.flow_log(destination, traffic);
    }

    fn error(&self) -> Option<String> {
        let stored = self.store.get::<FlowLog>(&key(&scope(), FlowLogId::of(7))).unwrap();
        stored.unwrap().record.error
    }

    fn sees(&self, flow: Flow) {
        self.host.state().flows.entry(VpcId::of(1)).or_default().push(flow);
    }

    fn at(&self, time: i64) {
        self.clock.0.store(time, Ordering::SeqCst);
    }

    /// The lines of an interface's stream.
    fn lines(&self, stream: &str) -> Vec<String> {
        let group = GroupName::new(&scope(), "flows");
        let all_time = TimeRange { start: None, end: None };
        let page = self
            .logs
            .read(&group, stream, &ReadFrom::Head, all_time, 1000, self.clock.now());
        page.map_or(Vec::new(), |page| {
            page.events.into_iter().map(|stored| stored.event.message).collect()
        })
    }
}

/// Proves: NET-55, NET-56
#[test]
fn an_interval_goes_to_a_stream_of_each_interface_as_the_role_and_once_over_restarts() {
    let lab = Lab::new();
    lab.role(TRUST, WRITE);
    lab.to_logs(TrafficType::All);
    lab.sees(passed(2_000, 3));
    lab.flow_logs().round(&mut Rounds::default());
    assert_eq!(
        lab.lines(&format!("{}-all", eni(1))),
        Vec::<String>::new(),
        "the minute goes on"
    );
    lab.at(MINUTE + 1);
    // Each time as after a restart.
    for _ in 0..3 {
        lab.flow_logs().round(&mut Rounds::default());
    }
    let told = lab.lines(&format!("{}-all", eni(1)));
    assert_eq!(
        told,
        [
            format!(
                "2 123456789012 {} 10.0.1.30 10.0.1.20 443 41800 6 1 60 2 2 ACCEPT OK",
                eni(1)
            ),
            format!(
                "2 123456789012 {} 10.0.1.20 10.0.1.30 41800 443 6 3 180 2 2 ACCEPT OK",
                eni(1)
            ),
        ]
    );
    assert_eq!(lab.lines(&format!("{}-all", eni(2))).len(), 2);
    lab.at(2 * MINUTE + 1);
    lab.flow_logs().round(&mut Rounds::default());
    let told = lab.lines(&format!("{}-all", eni(1)));
    assert_eq!(
        told.last().unwrap(),
        &format!("2 123456789012 {} - - - - - - - 60 120 - NODATA", eni(1))
    );
    assert_eq!(told.len(), 3);
    // How far an interface was told is kept while there is more to tell of it.
    let known = |n: u128| {
        let sources = lab.logs.sources().unwrap();
        sources.contains(&format!("{}/{}", FlowLogId::of(7), eni(n)))
    };
    assert_eq!([1, 2].map(known), [true, true]);
    let mut less = vpc();
    less.interfaces.remove(&eni(2));
    lab.at(3 * MINUTE + 1);
    let mut rounds = Rounds::default();
    lab.flow_logs_of(less).round(&mut rounds);
    assert_eq!(lab.lines(&format!("{}-all", eni(2))).len(), 4, "its last interval");
    assert_eq!([1, 2].map(known), [true, false], "the interface is gone");
    let at = key(&scope(), FlowLogId::of(7));
    let stored = lab.store.get::<FlowLog>(&at).unwrap().unwrap();
    let gone = Batch::default().delete::<FlowLog>(&at, Expect::At(stored.revision));
    lab.store.commit(gone).unwrap();
    lab.flow_logs().round(&mut rounds);
    assert_eq!(
        lab.logs.sources().unwrap(),
        Vec::<String>::new(),
        "the flow log is gone"
    );
}

/// Proves: NET-55
#[test]
fn a_role_that_does_not_trust_the_service_or_may_not_write_delivers_nothing_until_it_does() {
    let lab = Lab::new();
    lab.to_logs(TrafficType::All);
    lab.sees(passed(2_000, 3));
    let foreign = TRUST.replace("vpc-flow-logs", "sagemaker");
    let narrow = WRITE.replace(r#""logs:CreateLogStream","#, "");
    let stream = format!("{}-all", eni(1));
    lab.flow_logs().round(&mut Rounds::default());
    lab.at(MINUTE + 1);
    for (trust, policy) in [(foreign.as_str(), WRITE), (TRUST, narrow.as_str())] {
        lab.role(trust, policy);
        lab.flow_logs().round(&mut Rounds::default());
        assert_eq!(lab.error().as_deref(), Some("Access error"), "{trust} {policy}");
        assert!(lab.lines(&stream).is_empty());
    }
    lab.role(TRUST, WRITE);
    lab.flow_logs().round(&mut Rounds::default());
    assert_eq!(
        (lab.error(), lab.lines(&stream).len()),
        (None, 2),
        "what waited is told"
    );
}

/// Proves: NET-55, NET-56
#[test]
fn a_bucket_gets_a_compressed_file_where_its_policy_lets_the_service_write() {
    let lab = Lab::new();
    let destination = FlowLogDestination::S3 {
        bucket: "logs".into(),
        prefix: "team".into(),
        per_hour: false,
        hive: false,
    };
    lab.flow_log(destination, TrafficType::Reject);
    let mut refused = passed(2_000, 3);
    refused.fate = Fate::Refused { by: Refusal::Egress };
    lab.sees(refused);
    lab.flow_logs().round(&mut Rounds::default());
    lab.at(MINUTE + 1);
    lab.flow_logs().round(&mut Rounds::default());
    assert_eq!(
        lab.error().as_deref(),
        Some("Access error"),
        "control: without a policy"
    );
    let name: isolarium_model::s3::BucketName = "logs".parse().unwrap();
    let policy = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"delivery.logs.amazonaws.com"},
        "Action":"s3:PutObject","Resource":"arn:aws:s3:::logs/team/*","Condition":{
            "StringEquals":{"aws:SourceAccount":"123456789012","s3:x-amz-acl":"bucket-owner-full-control"},
            "ArnLike":{"aws:SourceArn":"arn:aws:ec2:us-east-1:123456789012:vpc-flow-log/*"}}}}"#;
    lab.objects.set_policy(&name, Some(policy.into())).unwrap();
    lab.flow_logs().round(&mut Rounds::default());
    assert_eq!(lab.error(), None);
    let query = ListingQuery {
        prefix: "team/AWSLogs/123456789012/vpcflowlogs/us-east-1/".into(),
        delimiter: None,
        after: None,
        limit: 10,
    };
    let listed = lab.objects.list(&name, &query).unwrap().objects;
    assert_eq!(listed.len(), 1);
    let reading = lab.objects.open_object(&name, &listed[0].key, None).unwrap();
    let mut text = String::new();
    let bytes = reading.stretch(None, 0, u64::MAX).unwrap();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], Format::default().header());
    assert!(
        lines.contains(
            &format!(
                "2 123456789012 {} 10.0.1.20 10.0.1.30 41800 443 6 3 180 2 2 REJECT OK",
                eni(1)
            )
            .as_str()
        )
    );
    assert!(lines[2].ends_with("NODATA"), "the other interface: {text}");
}

/// The job `job-N` and its interface `eni-N`.
fn job_at(lab: &Lab, n: u128) -> Key {
    let owner = Key::folded(&scope(), &format!("job-{n}"));
    let arn = format!("arn:aws:sagemaker:us-east-1:123456789012:training-job/job-{n}");
    let record = NetworkInterface {
        id: eni(n),
        vpc: VpcId::of(1),
        subnet: SubnetId::of(1),
        zone: ec2::zone::zones(&scope().region, "a").remove(0),
        primary: "10.0.1.20".parse().unwrap(),
        secondary: Default::default(),
        groups: [GroupId::of(1)].into(),
        description: String::new(),
        source_dest_check: true,
        requester: Some(Requester {
            id: "sagemaker".into(),
            owner: Some(owner.clone()),
            owner_arn: Some(arn.clone()),
        }),
        holder: ec2::Holder::Container("w-0123456789abcdef0".parse().unwrap()),
        attachment: None,
        created: Timestamp(0),
        tags: Default::default(),
    };
    lab.put(&key(&scope(), eni(n)), &record);
    OwnerFlows::key(&owner, &arn)
}

fn packets(lab: &Lab, owner: &Key) -> u64 {
    let kept = lab.store.get::<OwnerFlows>(owner).unwrap();
    kept.map_or(0, |kept| kept.record.flows.iter().map(|flow| flow.packets).sum())
}

/// A store in which the records of some keys cannot be written.
struct Failing {
    store: Arc<dyn StateStore>,
    key: Key,
}

impl StateStore for Failing {
    fn counts(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        self.store.counts()
    }

    fn get_raw(
        &self,
        kind: &'static str,
        key: &Key,
    ) -> Result<Option<(isolarium_store::Revision, Vec<u8>)>, StoreError> {
        self.store.get_raw(kind, key)
    }

    fn query_raw(&self, kind: &'static str, query: &Query) -> Result<isolarium_store::state::RawPage, StoreError> {
        self.store.query_raw(kind, query)
    }

    fn all_raw(
        &self,
        kind: &'static str,
        statuses: &[&str],
    ) -> Result<Vec<(Key, isolarium_store::Revision, Vec<u8>)>, StoreError> {
        self.store.all_raw(kind, statuses)
    }

    fn commit(&self, batch: Batch) -> Result<isolarium_store::Revision, StoreError> {
        use isolarium_store::state::Change;
        let about = |change: &Change| match change {
            Change::Put { key, .. } | Change::Delete { key, .. } => *key == self.key,
        };
        match batch.changes.iter().any(about) {
            true => Err(StoreError::DiskFull),
            false => self.store.commit(batch),
        }
    }

    fn subscribe(&self, listener: isolarium_store::state::Listener) {
        self.store.subscribe(listener);
    }

    fn recent(&self) -> &isolarium_store::state::Recent {
        self.store.recent()
    }
}

/// Proves: AU-32
#[test]
fn no_flow_is_kept_twice_for_an_owner_when_another_owners_record_fails_or_the_engine_dies() {
    let lab = Lab::new();
    let mut two = vpc();
    let workload = "w-0123456789abcdef1".parse().unwrap();
    two.interfaces.get_mut(&eni(2)).unwrap().holder = Holder::Container(workload);
    let owners = [job_at(&lab, 1), job_at(&lab, 2)];
    lab.sees(passed(2_000, 3));
    let public = PublicNames {
        regions: vec![scope().region],
        services: "198.18.0.0/17".parse().unwrap(),
        s3_prefix_list: "198.18.128.0/20".parse().unwrap(),
        endpoints: Default::default(),
        zone_rule: true,
    };
    let view = Arc::new(View::of(&scope(), &Arc::new(two.check().unwrap()), &public));
    let with = |store: Arc<dyn StateStore>| FlowLogs {
        store,
        views: {
            let view = view.clone();
            Arc::new(move || vec![view.clone()])
        },
        ..lab.flow_logs()
    };
    let fails: Arc<dyn StateStore> = Arc::new(Failing {
        store: lab.store.clone(),
        key: owners[1].clone(),
    });
    let mut rounds = Rounds::default();
    for _ in 0..2 {
        with(fails.clone()).round(&mut rounds);
        let both = owners.each_ref().map(|owner| packets(&lab, owner));
        assert_eq!(both, [4, 0], "three packets and an answer; the other record fails");
    }
    lab.sees(passed(3_000, 10));
    // As after a restart, and once more as after another.
    for _ in 0..2 {
        with(lab.store.clone()).round(&mut Rounds::default());
        let both = owners.each_ref().map(|owner| packets(&lab, owner));
        assert_eq!(both, [15, 15], "everything, once");
    }
}

#[test]
fn the_journal_of_a_vpc_goes_with_its_record() {
    let lab = Lab::new();
    lab.role(TRUST, WRITE);
    lab.to_logs(TrafficType::All);
    let record = |n: u128| ec2::Vpc {
        id: VpcId::of(n),
        blocks: Vec::new(),
        tenancy: ec2::vpc::Tenancy::Default,
        dns_support: true,
        dns_hostnames: false,
        address_usage_metrics: false,
        dhcp_options: None,
        is_default: false,
        generation: 1,
        created: Timestamp(0),
        tags: Default::default(),
    };
    // One that stands, one that has a record alone, one that is gone.
    lab.put(&key(&scope(), VpcId::of(2)), &record(2));
    let file = |n: u128| lab.directory.path().join(format!("flows/{}.log", VpcId::of(n)));
    std::fs::create_dir_all(lab.directory.path().join("flows")).unwrap();
    for n in [2, 3] {
        std::fs::write(file(n), b"").unwrap();
    }
    let mut rounds = Rounds::default();
    lab.flow_logs().round(&mut rounds);
    assert_eq!([1, 2, 3].map(|n| file(n).exists()), [true, true, false]);
    // The first one leaves the host while the engine runs, without a record.
    let nobody = FlowLogs {
        views: Arc::new(Vec::new),
        ..lab.flow_logs()
    };
    nobody.round(&mut rounds);
    assert_eq!([1, 2, 3].map(|n| file(n).exists()), [false, true, false]);
}

/// Proves: AU-32
#[test]
fn traffic_of_a_workload_is_kept_for_its_owner_without_any_flow_log() {
    let lab = Lab::new();
    let owner = job_at(&lab, 1);
    let mut refused = passed(2_000, 3);
    refused.fate = Fate::Refused { by: Refusal::Egress };
    lab.sees(refused);
    lab.flow_logs().round(&mut Rounds::default());
    let kept = lab.store.get::<OwnerFlows>(&owner).unwrap().unwrap().record;
    assert_eq!(kept.flows.len(), 1, "the other interface is nobody's job");
    let flow = &kept.flows[0];
    assert!(flow.egress && !flow.accepted && !flow.transfer);
    assert_eq!((flow.packets, flow.destination_port), (3, 443));
    assert_eq!(flow.decided_by[0], format!("no outbound rule of {}", GroupId::of(1)));
}
