use super::*;
use crate::iam::credentials::{MasterKey, StoredIdentities};
use crate::kms::through::KeyStore;
use crate::{Caller, Source};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use isolarium_model::s3::{BucketName, ObjectKey};
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{Principal, Scope, Timestamp};
use isolarium_policy::{Authority, DocumentKind, EndpointPolicy, NamedPolicy, Question};
use isolarium_store::objects::{ListingQuery, SCHEMA};
use isolarium_store::state::MemoryState;
use isolarium_store::{Database, ObjectStore};
use isolarium_wire::sigv4::BodyCheck;
use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

mod reference;
mod rights;

const ROLE: &str = "arn:aws:sts::123456789012:assumed-role/exec/job-1";

struct Counter(AtomicU64);

impl IdSource for Counter {
    fn hex(&self, digits: usize) -> String {
        format!("{:0digits$x}", self.0.fetch_add(1, Ordering::Relaxed))
    }
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000)
    }
}

#[derive(Default)]
struct Kept(Mutex<Vec<AccessRecord>>);

impl AccessLog for Kept {
    fn record(&self, record: &AccessRecord) {
        self.0.lock().unwrap().push(record.clone());
    }
}

struct Lab {
    dir: TempDir,
    front: S3Front,
    log: Arc<Kept>,
    /// Identity policies by principal ARN.
    policies: Arc<Mutex<HashMap<String, String>>>,
}

fn account(id: &str) -> Principal {
    Principal::Root {
        account: id.parse().unwrap(),
    }
}

fn root() -> Principal {
    account("123456789012")
}

fn role() -> Principal {
    Principal::RoleSession {
        account: "123456789012".parse().unwrap(),
        path: "/".into(),
        role: "exec".into(),
        role_id: "AROAEXEC".into(),
        session: "job-1".into(),
    }
}

fn caller(principal: Principal) -> Caller {
    let home = "123456789012".parse().unwrap();
    Caller {
        scope: Scope {
            account: principal.account().cloned().unwrap_or(home),
            region: "us-east-1".parse().unwrap(),
        },
        principal,
        source: Source::Public {
            address: "192.0.2.7".parse().unwrap(),
            secure: true,
        },
        session: None,
        request_id: "REQ1".into(),
        user_agent: "test".into(),
        inquiry: Default::default(),
    }
}

fn bucket() -> BucketName {
    "data".parse().unwrap()
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

impl Lab {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let database = Arc::new(Database::open(&dir.path().join("state.db"), &[SCHEMA]).unwrap());
        let (log, policies) = (
            Arc::new(Kept::default()),
            Arc::new(Mutex::new(HashMap::<String, String>::new())),
        );
        let known = Arc::clone(&policies);
        let authority = move |caller: &Caller| {
            let mut authority = Authority::bare(caller.principal.clone(), caller.context(Fixed.now()));
            let arn = caller.principal.arn().map(|arn| arn.to_string()).unwrap_or_default();
            let text = known.lock().unwrap().get(&arn).cloned();
            authority.identity = text
                .iter()
                .map(|text| NamedPolicy::parse("test", text, DocumentKind::Identity))
                .collect();
            if let Source::Endpoint(endpoint) = &caller.source
                && let Some(text) = &endpoint.policy
            {
                authority.endpoint = Some(EndpointPolicy {
                    policy: NamedPolicy::parse(&endpoint.endpoint_id, text, DocumentKind::Endpoint),
                    gateway: endpoint.gateway,
                });
            }
            Ok(authority)
        };
        let front = S3Front::new(S3Wiring {
            objects: ObjectStore::open(dir.path(), database).unwrap(),
            clock: Arc::new(Fixed),
            authorities: Arc::new(authority),
            keys: Arc::new(KeyStore {
                store: Arc::new(MemoryState::new()),
                master: MasterKey::new([7; 32]),
                ids: Arc::new(Counter(AtomicU64::new(1))),
                clock: Arc::new(Fixed),
            }),
            identities: Arc::new(StoredIdentities {
                store: Arc::new(MemoryState::new()),
                master: MasterKey::new([7; 32]),
            }),
            access_log: log.clone(),
            audit: Arc::new(crate::audit::fixture::trail(dir.path())),
            base_hosts: vec!["s3.test".into()],
            regions: vec!["us-east-1".parse().unwrap()],
        });
        Self {
            dir,
            front,
            log,
            policies,
        }
    }

    async fn ready() -> Self {
        let lab = Self::new();
        assert_eq!(lab.send(root(), Method::PUT, "/data", b"").await.0, StatusCode::OK);
        assert_eq!(
            lab.send(root(), Method::PUT, "/data/in/k", b"bytes").await.0,
            StatusCode::OK
        );
        lab
    }

    /// Gives the role an identity policy that allows these actions on everything.
    fn allow(&self, actions: &[&str]) {
        let actions = serde_json::to_string(actions).unwrap();
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":{actions},"Resource":"*"}}]}}"#
        );
        self.policies.lock().unwrap().insert(ROLE.into(), text);
    }

    async fn answer(&self, principal: Principal, request: Request<Full<Bytes>>, check: BodyCheck) -> Response<Body> {
        self.front.call(request, caller(principal), check).await
    }

    async fn send(&self, principal: Principal, method: Method, target: &str, body: &[u8]) -> (StatusCode, String) {
        self.send_with(principal, method, target, body, &[]).await
    }

    async fn send_with(
        &self,
        principal: Principal,
        method: Method,
        target: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> (StatusCode, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("content-length", body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let response = self.answer(principal, request, BodyCheck::Done).await;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map(|all| all.to_bytes())
            .unwrap_or_default();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    fn last(&self) -> AccessRecord {
        self.log.0.lock().unwrap().last().unwrap().clone()
    }
}

/// Every request with the one action it needs: allowed with it alone, denied with all others of the list.
///
/// Proves: IAM-36, IAM-60
#[tokio::test]
async fn each_operation_asks_for_its_own_action() {
    let lab = Lab::ready().await;
    let complete =
        b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>";
    let copy: &[(&str, &str)] = &[("x-amz-copy-source", "/data/in/k")];
    let range: &[(&str, &str)] = &[("range", "bytes=0-1")];
    let tagged: &[(&str, &str)] = &[("x-amz-tagging", "a=1")];
    type Case<'a> = (Method, &'a str, &'a [u8], &'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Case<'_>; 24] = [
        (Method::GET, "/data/in/k", b"", &[], &["s3:GetObject"]),
        (Method::HEAD, "/data/in/k", b"", &[], &["s3:GetObject"]),
        (Method::GET, "/data/in/k", b"", range, &["s3:GetObject"]),
        (
            Method::GET,
            "/data/in/k?versionId=null",
            b"",
            &[],
            &["s3:GetObjectVersion"],
        ),
        (Method::PUT, "/data/out", b"x", &[], &["s3:PutObject"]),
        (
            Method::PUT,
            "/data/out",
            b"x",
            tagged,
            &["s3:PutObject", "s3:PutObjectTagging"],
        ),
        (Method::POST, "/data/out?uploads", b"", &[], &["s3:PutObject"]),
        (
            Method::PUT,
            "/data/out?partNumber=1&uploadId=u",
            b"x",
            &[],
            &["s3:PutObject"],
        ),
        (Method::POST, "/data/out?uploadId=u", complete, &[], &["s3:PutObject"]),
        (Method::PUT, "/data/copy", b"", copy, &["s3:PutObject", "s3:GetObject"]),
        (Method::GET, "/data?list-type=2", b"", &[], &["s3:ListBucket"]),
        (Method::GET, "/data", b"", &[], &["s3:ListBucket"]),
        (Method::HEAD, "/data", b"", &[], &["s3:ListBucket"]),
        (Method::GET, "/data?versions", b"", &[], &["s3:ListBucketVersions"]),
        (
            Method::GET,
            "/data?uploads",
            b"",
            &[],
            &["s3:ListBucketMultipartUploads"],
        ),
        (
            Method::GET,
            "/data/out?uploadId=u",
            b"",
            &[],
            &["s3:ListMultipartUploadParts"],
        ),
        (
            Method::DELETE,
            "/data/out?uploadId=u",
            b"",
            &[],
            &["s3:AbortMultipartUpload"],
        ),
        (Method::GET, "/data?location", b"", &[], &["s3:GetBucketLocation"]),
        (Method::GET, "/data?policy", b"", &[], &["s3:GetBucketPolicy"]),
        (Method::GET, "/data?versioning", b"", &[], &["s3:GetBucketVersioning"]),
        (Method::GET, "/data/in/k?tagging", b"", &[], &["s3:GetObjectTagging"]),
        (
            Method::DELETE,
            "/data/out?versionId=null",
            b"",
            &[],
            &["s3:DeleteObjectVersion"],
        ),
        (Method::DELETE, "/data/out", b"", &[], &["s3:DeleteObject"]),
        (Method::GET, "/", b"", &[], &["s3:ListAllMyBuckets"]),
    ];
    let all: Vec<&str> = cases.iter().flat_map(|case| case.4).copied().collect();
    for (method, target, body, headers, needed) in cases {
        lab.allow(needed);
        let (status, text) = lab.send_with(role(), method.clone(), target, body, headers).await;
        assert_ne!(
            status,
            StatusCode::FORBIDDEN,
            "control: {needed:?} are enough for {method} {target}: {text}"
        );
        for missing in needed {
            let others: Vec<&str> = all.iter().filter(|action| *action != missing).copied().collect();
            lab.allow(&others);
            let (status, text) = lab.send_with(role(), method.clone(), target, body, headers).await;
            assert_eq!(
                status,
                StatusCode::FORBIDDEN,
                "{method} {target} without {missing}: {text}"
            );
            if method != Method::HEAD {
                let wanted = format!("User: {ROLE} is not authorized to perform: {missing} on resource: arn:aws:s3:::");
                assert!(text.contains(&wanted) || target == "/", "{text}");
            }
        }
    }
}

/// The S3 side of NI-12 and NI-14: the role's session is asked about and named.
///
/// Proves: IAM-63
#[tokio::test]
async fn transfers_run_as_the_role_and_the_log_says_so() {
    let lab = Lab::ready().await;
    let session = caller(role());
    let work = lab.dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    lab.allow(&["s3:GetObject", "s3:ListBucket", "s3:PutObject"]);
    let query = ListingQuery {
        prefix: "in/".into(),
        limit: 10,
        ..ListingQuery::default()
    };
    let front = &lab.front;
    assert_eq!(
        front.platform_list(&session, &bucket(), &query).unwrap().objects.len(),
        1
    );
    let mut text = String::new();
    front
        .platform_open(&session, &bucket(), &key("in/k"), None)
        .unwrap()
        .0
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "bytes");
    front
        .platform_link_into(&session, &bucket(), &key("in/k"), &work, "train/k")
        .unwrap();
    assert_eq!(std::fs::read(work.join("train/k")).unwrap(), b"bytes");
    front
        .platform_put(&session, &bucket(), &key("out"), None, &mut &b"model"[..])
        .unwrap();
    let records = lab.log.0.lock().unwrap().clone();
    let platform: Vec<_> = records.iter().filter(|record| record.platform).collect();
    assert_eq!(platform.len(), 4);
    for record in platform {
        assert_eq!((record.principal.as_deref(), record.status), (Some(ROLE), 200));
    }

    lab.allow(&["s3:ListBucket", "s3:PutObject"]);
    let denied = front
        .platform_link_into(&session, &bucket(), &key("in/k"), &work, "second")
        .unwrap_err();
    assert_eq!(denied.code, "AccessDenied");
    assert!(!work.join("second").exists());
    let record = lab.last();
    assert_eq!((record.status, record.error.as_deref()), (403, Some("AccessDenied")));
    assert_eq!(record.key.as_deref(), Some("in/k"));
    assert_eq!(
        front
            .platform_open(&session, &bucket(), &key("in/k"), None)
            .unwrap_err()
            .code,
        "AccessDenied"
    );
    lab.allow(&["s3:GetObject"]);
    let put = front
        .platform_put(&session, &bucket(), &key("out2"), None, &mut &b"x"[..])
        .unwrap_err();
    assert_eq!(put.code, "AccessDenied");
    // Without the right to list, a missing key is no news either.
    assert_eq!(
        front
            .platform_open(&session, &bucket(), &key("none"), None)
            .unwrap_err()
            .code,
        "AccessDenied"
    );
    lab.allow(&["s3:GetObject", "s3:ListBucket"]);
    assert_eq!(
        front
            .platform_open(&session, &bucket(), &key("none"), None)
            .unwrap_err()
            .code,
        "NoSuchKey"
    );
    let nowhere = "nowhere".parse().unwrap();
    assert_eq!(
        front
            .platform_open(&session, &nowhere, &key("k"), None)
            .unwrap_err()
            .code,
        "NoSuchBucket"
    );
}

/// Proves: IAM-23, IAM-37, IAM-59
#[tokio::test]
async fn another_account_needs_its_own_policy_and_the_buckets() {
    let lab = Lab::ready().await;
    let stranger = || account("999988887777");
    assert_eq!(
        lab.send(stranger(), Method::GET, "/data/in/k", b"").await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        lab.send(Principal::Anonymous, Method::GET, "/data/in/k", b"").await.0,
        StatusCode::FORBIDDEN
    );
    let policy = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Principal":{"AWS":"999988887777"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::data/*"},
        {"Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::data/secret/*"}]}"#;
    assert_eq!(
        lab.send(root(), Method::PUT, "/data?policy", policy.as_bytes()).await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        lab.send(stranger(), Method::GET, "/data/in/k", b"").await,
        (StatusCode::OK, "bytes".into())
    );
    // A deny stands above every allow, for the owner too.
    assert_eq!(
        lab.send(root(), Method::PUT, "/data/secret/k", b"s").await.0,
        StatusCode::OK
    );
    assert_eq!(
        lab.send(stranger(), Method::GET, "/data/secret/k", b"").await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        lab.send(root(), Method::GET, "/data/secret/k", b"").await.0,
        StatusCode::FORBIDDEN
    );
    // Denial comes before existence.
    assert_eq!(
        lab.send(stranger(), Method::GET, "/data/none", b"").await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        lab.send(Principal::Anonymous, Method::GET, "/data/in/k", b"").await.0,
        StatusCode::FORBIDDEN
    );
}

/// Proves: IAM-65
#[tokio::test]
async fn the_expected_owner_is_checked_and_hosts_may_carry_the_bucket() {
    let lab = Lab::ready().await;
    let owner = |id: &'static str| [("x-amz-expected-bucket-owner", id)];
    let (right, wrong) = (owner("123456789012"), owner("111111111111"));
    assert_eq!(
        lab.send_with(root(), Method::HEAD, "/data", b"", &right).await.0,
        StatusCode::OK
    );
    assert_eq!(
        lab.send_with(root(), Method::HEAD, "/data", b"", &wrong).await.0,
        StatusCode::FORBIDDEN
    );
    for host in ["data.s3.us-east-1.amazonaws.com", "data.s3.test:4599"] {
        let got = lab
            .send_with(root(), Method::GET, "/in/k", b"", &[("host", host)])
            .await;
        assert_eq!(got, (StatusCode::OK, "bytes".into()), "{host}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_the_signed_one_stores_nothing() {
    let lab = Lab::ready().await;
    let digest = |text: &[u8]| <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(text));
    let put = |body: &'static [u8]| {
        let request = Request::builder()
            .method(Method::PUT)
            .uri("/data/in/k")
            .header("content-length", body.len());
        request.body(Full::new(Bytes::from_static(body))).unwrap()
    };
    let honest = lab
        .answer(root(), put(b"signed"), BodyCheck::Sha256(digest(b"signed")))
        .await;
    assert_eq!(honest.status(), StatusCode::OK, "control: the signed body is stored");
    let forged = lab
        .answer(root(), put(b"forged"), BodyCheck::Sha256(digest(b"signed")))
        .await;
    assert_eq!(forged.status(), StatusCode::BAD_REQUEST);
    assert_eq!(lab.last().error.as_deref(), Some("XAmzContentSHA256Mismatch"));
    assert_eq!(lab.send(root(), Method::GET, "/data/in/k", b"").await.1, "signed");
    // The same for requests whose small body is read as a whole.
    let policy = Request::builder()
        .method(Method::PUT)
        .uri("/data?tagging")
        .header("content-length", 3);
    let policy = policy.body(Full::new(Bytes::from_static(b"abc"))).unwrap();
    let forged = lab.answer(root(), policy, BodyCheck::Sha256(digest(b"signed"))).await;
    assert_eq!(forged.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn settings_that_are_not_known_never_reach_the_bucket_itself() {
    let lab = Lab::new();
    assert_eq!(lab.send(root(), Method::PUT, "/data", b"").await.0, StatusCode::OK);
    for setting in ["metadataConfiguration", "abac", "metadataInventoryTable"] {
        let (status, text) = lab.send(root(), Method::DELETE, &format!("/data?{setting}"), b"").await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{text}");
    }
    assert_eq!(lab.send(root(), Method::HEAD, "/data", b"").await.0, StatusCode::OK);
    assert_eq!(
        lab.send(root(), Method::DELETE, "/data", b"").await.0,
        StatusCode::NO_CONTENT,
        "control"
    );
}

#[tokio::test]
async fn large_objects_stream_whole_and_in_ranges() {
    let lab = Lab::ready().await;
    let bytes: Vec<u8> = (0..3_000_017_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
    assert_eq!(
        lab.send(root(), Method::PUT, "/data/big", &bytes).await.0,
        StatusCode::OK
    );
    let get = |range: Option<&str>| {
        let request = Request::builder().uri("/data/big");
        let request = range
            .into_iter()
            .fold(request, |request, range| request.header("range", range));
        request.body(Full::new(Bytes::new())).unwrap()
    };
    for (range, part) in [
        (None, &bytes[..]),
        (Some("bytes=1000000-2999999"), &bytes[1_000_000..3_000_000]),
    ] {
        let response = lab.answer(root(), get(range), BodyCheck::Done).await;
        assert_eq!(response.headers()["content-length"], part.len().to_string());
        assert!(
            response.into_body().collect().await.unwrap().to_bytes() == part,
            "{range:?}"
        );
    }
}

/// The file log writes one line of JSON per request.
#[test]
fn the_access_log_file_holds_a_line_per_record() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s3-access.jsonl");
    let log = FileAccessLog::open(&path).unwrap();
    let record = AccessRecord {
        principal: Some(ROLE.into()),
        key: Some("a\nb".into()),
        ..AccessRecord::default()
    };
    log.record(&record);
    log.record(&record);
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 2);
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (first["principal"].as_str(), first["key"].as_str()),
        (Some(ROLE), Some("a\nb"))
    );
}

/// A body that breaks off after its first piece.
async fn broken_off(lab: &Lab, error: std::io::Error) -> (StatusCode, String) {
    let pieces = [Ok(http_body::Frame::data(Bytes::from_static(b"half"))), Err(error)];
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(pieces));
    let request = Request::builder()
        .method(Method::PUT)
        .uri("/data/half")
        .header("content-length", 8);
    let request = request.body(body).unwrap();
    let answer = lab.front.call(request, caller(root()), BodyCheck::Done).await;
    let status = answer.status();
    let told = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&told).into_owned())
}

/// Proves: IAM-48
#[tokio::test]
async fn a_client_that_pauses_too_long_is_told_so_and_stores_nothing() {
    let lab = Lab::ready().await;
    for (kind, code) in [
        (std::io::ErrorKind::TimedOut, "RequestTimeout"),
        (std::io::ErrorKind::ConnectionReset, "IncompleteBody"),
    ] {
        let (status, told) = broken_off(&lab, kind.into()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
        assert!(told.contains(&format!("<Code>{code}</Code>")), "{told}");
        assert_eq!(
            lab.send(root(), Method::HEAD, "/data/half", b"").await.0,
            StatusCode::NOT_FOUND
        );
    }
}

#[tokio::test]
async fn a_document_longer_than_any_can_be_is_refused_before_it_is_read() {
    let lab = Lab::ready().await;
    let deletion = |padding: usize| {
        let pad = " ".repeat(padding);
        format!("<Delete>{pad}<Object><Key>none</Key></Object></Delete>").into_bytes()
    };
    let send = async |padding| lab.send(root(), Method::POST, "/data?delete", &deletion(padding)).await;
    assert_eq!(send(3 << 20).await.0, StatusCode::OK, "control: it fits");
    let (status, told) = send(30 << 20).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
    assert!(told.contains("<Code>MalformedXML</Code>"), "{told}");
    assert_eq!(
        lab.send(root(), Method::PUT, "/data/large", &vec![0; 5 << 20]).await.0,
        StatusCode::OK,
        "control: an object is no document"
    );
}
