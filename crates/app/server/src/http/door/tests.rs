//! The front door over real connections: raw requests, signed with the engine's own signer.

use super::super::listen::{ConnectionLimits, Listener};
use super::*;
use crate::clock::{SystemClock, SystemIds};
use crate::invoke::InvokeSettings;
use crate::serve::NoNode;
use http::{Method, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use isolarium_model::sagemaker::Endpoint;
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::{Principal, Secret, Timestamp};
use isolarium_services::ecr::TokenKey;
use isolarium_services::iam::credentials::Credential;
use isolarium_services::platform::{Actor, PlatformError, PlatformSettings};
use isolarium_store::logs::DiskLogs;
use isolarium_store::state::memory::MemoryState;
use isolarium_store::{BlobStore, Database, StoreError, logs};
use isolarium_wire::catalog;
use isolarium_wire::sigv4::Signer;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const KEY: &str = "AKIAROOT";
const SECRET: &str = "root-secret";

struct Keys;
impl Identities for Keys {
    fn find(&self, access_key_id: &str, token: Option<&str>, _: Timestamp) -> Result<Credential, ResolveError> {
        let root = |session| Credential {
            principal: Principal::Root { account: account() },
            secret: Secret::new(SECRET),
            session,
        };
        match (access_key_id, token) {
            (KEY, None) => Ok(root(None)),
            ("ASIATEMP", Some("token")) => Ok(root(Some(isolarium_services::context::Session::lasting(
                Timestamp(0),
                Timestamp(i64::MAX),
            )))),
            ("ASIATEMP", Some("old")) => Err(AuthFault::ExpiredToken.into()),
            ("ASIATEMP", _) => Err(AuthFault::BadToken.into()),
            ("AKIABROKEN", _) => Err(ResolveError::Store(StoreError::DiskFull)),
            _ => Err(AuthFault::UnknownKey.into()),
        }
    }
}

fn account() -> AccountId {
    "123456789012".parse().unwrap()
}

/// A platform that can do nothing: no test of the door gets that far.
struct Refusing(PlatformSettings);
impl AsRole for Refusing {
    fn settings(&self) -> &PlatformSettings {
        &self.0
    }
    fn assume(&self, _: &Actor) -> Result<(), PlatformError> {
        Err(PlatformError::Unusable("refused".into()))
    }
    fn check_network(&self, _: &Actor) -> Result<(), PlatformError> {
        Err(PlatformError::Unusable("refused".into()))
    }
    fn check_image(&self, _: &Actor, _: &str) -> Result<(), PlatformError> {
        Err(PlatformError::Unusable("refused".into()))
    }
    fn any_object(&self, _: &Actor, _: &S3Uri) -> Result<bool, PlatformError> {
        Err(PlatformError::Unusable("refused".into()))
    }
    fn check_object(&self, _: &Actor, _: &S3Uri) -> Result<(), PlatformError> {
        Err(PlatformError::Unusable("refused".into()))
    }
    fn check_key(&self, _: &isolarium_model::Scope, _: &str) -> Result<(), PlatformError> {
        Err(PlatformError::Unusable("no keys here".into()))
    }

    fn has_bucket(&self, _: &str) -> Result<bool, PlatformError> {
        Err(PlatformError::Unusable("refused".into()))
    }
}

/// A request for `/slow` has begun.
static SLOW: tokio::sync::Notify = tokio::sync::Notify::const_new();

/// Answers with its name; `/panic` panics, `/slow` takes its time.
struct Named(&'static str);
impl Part for Named {
    fn answer(self: Arc<Self>, _: Visit, request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            match request.uri().path() {
                "/panic" => panic!("on purpose"),
                "/slow" => {
                    SLOW.notify_one();
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                _ => {}
            }
            Response::new(body::full(self.0))
        })
    }
}

struct Bench {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

async fn bench() -> Bench {
    bench_with(|_| {}).await
}

async fn bench_with(change: impl FnOnce(&mut Door)) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let mut door = door_in(dir.path());
    change(&mut door);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let limits = ConnectionLimits {
        head: 8192,
        head_timeout: door.limits.pause,
        connections: 100,
        each: None,
    };
    let (stop, stopping) = watch::channel(false);
    let listener = Listener {
        socket,
        tls: None,
        handler: Arc::new(door),
        limits,
        lanes: None,
    };
    let running = tokio::spawn(listener.run(stopping));
    Bench {
        address,
        stop,
        running,
        _dir: dir,
    }
}

/// A door whose state lies in a folder.
pub(crate) fn door_in(dir: &std::path::Path) -> Door {
    let database = Arc::new(
        Database::open(
            &dir.join("state.db"),
            &[logs::disk::SCHEMA, isolarium_store::metrics::SCHEMA],
        )
        .unwrap(),
    );
    let store: Arc<dyn StateStore> = Arc::new(MemoryState::new());
    let host = Arc::new(NoNode::new(dir));
    let settings = InvokeSettings {
        timeout: Duration::from_secs(1),
        stream_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        body_limit: 1024,
        idle_connections: 1,
    };
    let engine = Arc::new(Engine {
        dispatch: Dispatch::default(),
        store: store.clone(),
        metrics: Arc::new(isolarium_store::Metrics::new(database.clone())),
        logs: Arc::new(DiskLogs::open(database, dir).unwrap()),
        registry: Arc::new(Registry {
            blobs: BlobStore::open(dir).unwrap(),
            key: TokenKey::derive(&[7; 32]),
            endpoint: "http://localhost".into(),
        }),
        platform: Arc::new(Refusing(PlatformSettings::default())),
        clock: Arc::new(SystemClock),
        ids: Arc::new(SystemIds),
        master: MasterKey::new([7; 32]),
        audit: Arc::new(crate::audit_of(dir)),
    });
    Door {
        engine: engine.clone(),
        identities: Arc::new(Keys),
        acceptance: Acceptance {
            regions: vec!["us-east-1".parse().unwrap()],
            skew: 900,
            unknown_keys_are_root_of: None,
            sigv2_query: true,
        },
        account: account(),
        limits: RequestLimits {
            head: 8192,
            request: 4096,
            invoke: 8192,
            pause: Duration::from_secs(60),
        },
        proxy: Arc::new(Proxy::new(Default::default(), store, host.clone(), settings)),
        s3: Arc::new(Named("s3")),
        registry: Arc::new(Named("registry")),
        notebooks: Arc::new(NotebookPart {
            engine,
            dial: host,
            settings: Default::default(),
            port: 8888,
            connect_timeout: Duration::from_secs(1),
            pause: Duration::from_secs(1),
            sockets: Arc::new(tokio::sync::Semaphore::new(1)),
        }),
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

#[derive(Clone, Debug)]
struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// A signed request in the making.
struct As<'a> {
    key: &'a str,
    secret: &'a str,
    token: Option<&'a str>,
    region: &'a str,
    service: &'a str,
    ago: i64,
}

const ROOT: As<'_> = As {
    key: KEY,
    secret: SECRET,
    token: None,
    region: "us-east-1",
    service: "sagemaker",
    ago: 0,
};

fn ask(method: &'static str, path: &str, headers: &[(&'static str, &str)], body: &[u8]) -> Ask {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    Ask {
        method,
        path: path.into(),
        headers,
        body: body.to_vec(),
    }
}

impl Ask {
    fn unsigned(&self) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(&self.path)
            .header("host", "localhost");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.body(Full::new(self.body.clone().into())).unwrap()
    }

    fn signed(&self, by: &As<'_>) -> Request<Full<Bytes>> {
        let mut request = self.unsigned();
        let (path, query) = (
            request.uri().path().to_owned(),
            request.uri().query().unwrap_or("").to_owned(),
        );
        let now = SystemClock.now().0 / 1000 - by.ago;
        let signer = Signer {
            access_key_id: by.key,
            secret: by.secret,
            token: by.token,
            region: by.region,
            service: by.service,
            now,
        };
        sigv4::sign(&signer, self.method, &path, &query, request.headers_mut(), &self.body).unwrap();
        request
    }
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let response = connect(address).await.send_request(request).await.unwrap();
    answer(response).await
}

async fn answer(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(bytes.to_vec()).unwrap(),
    }
}

impl Answer {
    /// The error code, wherever the language of the answer puts it.
    fn code(&self) -> String {
        if let Some(code) = self.headers.get("x-amzn-errortype") {
            return code.to_str().unwrap().to_owned();
        }
        let between = |a: &str, b: &str| Some(self.body.split_once(a)?.1.split_once(b)?.0.to_owned());
        between("\"__type\":\"", "\"")
            .or_else(|| between("<Code>", "</Code>"))
            .unwrap_or_default()
    }
}

fn json(target: &str, body: &str) -> Ask {
    ask(
        "POST",
        "/",
        &[("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)],
        body.as_bytes(),
    )
}

fn form(body: &str) -> Ask {
    ask(
        "POST",
        "/",
        &[("content-type", "application/x-www-form-urlencoded")],
        body.as_bytes(),
    )
}

fn invoke(body: &[u8]) -> Ask {
    ask(
        "POST",
        "/endpoints/nope/invocations",
        &[("content-type", "text/csv")],
        body,
    )
}

/// Every operation of every embedded service, in every language it has, asked by nobody.
///
/// Proves: IAM-47
#[tokio::test]
async fn no_operation_of_any_service_runs_without_a_signature() {
    let bench = bench().await;
    let mut sender = connect(bench.address).await;
    let mut asked = 0;
    for entry in catalog::entries() {
        for operation in entry.model().operations() {
            for protocol in entry.protocols {
                let request = match protocol {
                    Protocol::Json => json(&format!("{}.{}", entry.target_prefix.unwrap(), operation.name), "{}"),
                    Protocol::Query | Protocol::Ec2 => {
                        form(&format!("Action={}&Version={}", operation.name, entry.api_version))
                    }
                    Protocol::Cbor => {
                        let path = format!("/service/{}/operation/{}", entry.target_prefix.unwrap(), operation.name);
                        ask(
                            "POST",
                            &path,
                            &[("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor")],
                            b"",
                        )
                    }
                    Protocol::RestJson => {
                        let path: String = operation.uri.split('?').next().unwrap().replace(['{', '}', '+'], "");
                        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
                        let method = [Method::GET, Method::POST, Method::PUT, Method::DELETE]
                            .iter()
                            .position(|known| *known == method)
                            .map(|at| ["GET", "POST", "PUT", "DELETE"][at])
                            .unwrap();
                        ask(method, &path, &[], b"")
                    }
                };
                sender.ready().await.unwrap();
                let response = sender.send_request(request.unsigned()).await.unwrap();
                let kind = response
                    .headers()
                    .get("x-amzn-errortype")
                    .map(|kind| kind.to_str().unwrap().to_owned());
                let (status, body) = answer_bytes(response).await;
                let name = format!("{} {} {protocol:?}", entry.name, operation.name);
                assert!((400..500).contains(&status), "{name}: {status}");
                assert!(kind.unwrap_or(body).contains("MissingAuthenticationToken"), "{name}");
                asked += 1;
            }
        }
    }
    assert!(asked > 1900, "only {asked} operations were asked");
    let control = send(bench.address, json("SageMaker.ListModels", "{}").signed(&ROOT)).await;
    assert!(
        !control.body.contains("MissingAuthenticationToken"),
        "control: a signature gets further"
    );
}

async fn answer_bytes(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

/// Proves: IAM-42, IAM-44, IAM-45, IAM-46, IAM-47, IAM-48
#[tokio::test]
async fn authentication_faults_are_worded_for_the_language_of_the_request() {
    let bench = bench().await;
    let list = json("SageMaker.ListModels", "{}");
    let users = form("Action=ListUsers&Version=2010-05-08");
    let vpcs = form("Action=DescribeVpcs&Version=2016-11-15");
    let (iam, ec2) = (As { service: "iam", ..ROOT }, As { service: "ec2", ..ROOT });
    for (name, request, status, code) in [
        (
            "unknown key",
            list.signed(&As {
                key: "AKIANOBODY",
                ..ROOT
            }),
            400,
            "UnrecognizedClientException",
        ),
        (
            "wrong secret",
            list.signed(&As {
                secret: "other",
                ..ROOT
            }),
            400,
            "InvalidSignatureException",
        ),
        (
            "late",
            list.signed(&As { ago: 1000, ..ROOT }),
            400,
            "InvalidSignatureException",
        ),
        (
            "early",
            list.signed(&As { ago: -1000, ..ROOT }),
            400,
            "InvalidSignatureException",
        ),
        (
            "other region",
            list.signed(&As {
                region: "eu-west-1",
                ..ROOT
            }),
            400,
            "InvalidSignatureException",
        ),
        (
            "other service",
            list.signed(&As {
                service: "logs",
                ..ROOT
            }),
            400,
            "InvalidSignatureException",
        ),
        (
            "expired token",
            list.signed(&As {
                key: "ASIATEMP",
                token: Some("old"),
                ..ROOT
            }),
            400,
            "ExpiredTokenException",
        ),
        (
            "forged token",
            list.signed(&As {
                key: "ASIATEMP",
                token: Some("x"),
                ..ROOT
            }),
            400,
            "UnrecognizedClientException",
        ),
        (
            "no token",
            list.signed(&As {
                key: "ASIATEMP",
                ..ROOT
            }),
            400,
            "UnrecognizedClientException",
        ),
        (
            "query, unknown key",
            users.signed(&As {
                key: "AKIANOBODY",
                ..iam
            }),
            403,
            "InvalidClientTokenId",
        ),
        (
            "query, wrong secret",
            users.signed(&As { secret: "other", ..iam }),
            403,
            "SignatureDoesNotMatch",
        ),
        (
            "ec2, unknown key",
            vpcs.signed(&As {
                key: "AKIANOBODY",
                ..ec2
            }),
            401,
            "AuthFailure",
        ),
        (
            "ec2, wrong secret",
            vpcs.signed(&As { secret: "other", ..ec2 }),
            401,
            "AuthFailure",
        ),
        (
            "rest, wrong secret",
            invoke(b"1").signed(&As {
                secret: "other",
                ..ROOT
            }),
            403,
            "InvalidSignatureException",
        ),
        (
            "store failure",
            list.signed(&As {
                key: "AKIABROKEN",
                ..ROOT
            }),
            500,
            "InternalFailure",
        ),
    ] {
        let answer = send(bench.address, request).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{name}: {}",
            answer.body
        );
        assert!(!answer.body.contains("disk"), "{name}: causes are the operator's");
        assert_eq!(answer.headers["x-amzn-requestid"].len(), 36, "{name}");
        assert!(answer.headers.contains_key("date"), "{name}");
    }
    for good in [
        list.signed(&ROOT),
        list.signed(&As {
            key: "ASIATEMP",
            token: Some("token"),
            ..ROOT
        }),
        list.signed(&As { ago: 800, ..ROOT }),
    ] {
        let answer = send(bench.address, good).await;
        assert!(
            !["InvalidSignatureException", "UnrecognizedClientException"].contains(&answer.code().as_str()),
            "control: {}",
            answer.body
        );
    }
}

/// Proves: IAM-42
#[tokio::test]
async fn a_request_changed_after_signing_is_refused() {
    let bench = bench().await;
    let sign = || json("SageMaker.ListModels", "{\"MaxResults\":1}").signed(&ROOT);
    let mut other_body = sign();
    *other_body.body_mut() = Full::new(Bytes::from_static(b"{\"MaxResults\":2}"));
    let mut other_target = sign();
    other_target
        .headers_mut()
        .insert("x-amz-target", HeaderValue::from_static("SageMaker.DeleteModel"));
    let mut other_path = sign();
    *other_path.uri_mut() = "/?x=1".parse().unwrap();
    for changed in [other_body, other_target, other_path] {
        let answer = send(bench.address, changed).await;
        assert_eq!(answer.code(), "InvalidSignatureException", "{}", answer.body);
    }
    assert_ne!(
        send(bench.address, sign()).await.code(),
        "InvalidSignatureException",
        "control"
    );
}

/// Proves: SM-1, SM-3
#[tokio::test]
async fn malformed_and_unknown_requests_get_errors_in_their_own_language() {
    let bench = bench().await;
    let (iam, ec2) = (As { service: "iam", ..ROOT }, As { service: "ec2", ..ROOT });
    let cbor = |operation: &str, body: &[u8]| {
        let path = format!("/service/GraniteServiceVersion20100801/operation/{operation}");
        ask(
            "POST",
            &path,
            &[("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor")],
            body,
        )
    };
    let monitoring = As {
        service: "monitoring",
        ..ROOT
    };
    let typed = |media, body: &[u8]| {
        ask(
            "POST",
            "/",
            &[("content-type", media), ("x-amz-target", "SageMaker.ListModels")],
            body,
        )
    };
    for (name, request, status, code) in [
        (
            "broken JSON",
            json("SageMaker.ListModels", "{").signed(&ROOT),
            400,
            "SerializationException",
        ),
        (
            "JSON of another type",
            json("SageMaker.ListModels", "[1]").signed(&ROOT),
            400,
            "SerializationException",
        ),
        (
            "unknown operation",
            json("SageMaker.MakeCoffee", "{}").signed(&ROOT),
            400,
            "UnknownOperationException",
        ),
        (
            "unknown target",
            json("Kettle.Boil", "{}").signed(&ROOT),
            400,
            "UnknownOperationException",
        ),
        (
            "no target",
            ask("POST", "/", &[("content-type", "application/x-amz-json-1.1")], b"{}").signed(&ROOT),
            400,
            "UnknownOperationException",
        ),
        (
            "wrong media type",
            typed("text/html", b"{}").signed(&ROOT),
            400,
            "UnknownOperationException",
        ),
        (
            "wrong method",
            Ask {
                method: "GET",
                ..json("SageMaker.ListModels", "")
            }
            .signed(&ROOT),
            400,
            "UnknownOperationException",
        ),
        (
            "a service nobody has",
            json("SageMaker.ListModels", "{}").signed(&As { service: "rds", ..ROOT }),
            400,
            "InvalidSignatureException",
        ),
        (
            "embedded, not served",
            json(
                "SageMaker.CreateHumanTaskUi",
                "{\"HumanTaskUiName\":\"a\",\"UiTemplate\":{\"Content\":\"x\"}}",
            )
            .signed(&ROOT),
            400,
            "UnsupportedOperation",
        ),
        (
            "query, unknown action",
            form("Action=Nope&Version=2010-05-08").signed(&iam),
            400,
            "InvalidAction",
        ),
        (
            "query, no action",
            form("Version=2010-05-08").signed(&iam),
            400,
            "MissingAction",
        ),
        (
            "query, wrong version",
            form("Action=ListUsers&Version=1999-01-01").signed(&iam),
            400,
            "InvalidAction",
        ),
        (
            "ec2, unknown action",
            form("Action=Nope&Version=2016-11-15").signed(&ec2),
            400,
            "InvalidAction",
        ),
        (
            "cbor, broken",
            cbor("ListMetrics", b"\xff").signed(&monitoring),
            400,
            "",
        ),
        (
            "rest, unknown path",
            ask(
                "POST",
                "/endpoints/a/b/c",
                &[("content-type", "application/json")],
                b"{}",
            )
            .signed(&ROOT),
            400,
            "UnknownOperationException",
        ),
        (
            "rest, wrong method",
            ask("DELETE", "/endpoints/nope/invocations", &[], b"").signed(&ROOT),
            404,
            "UnknownOperationException",
        ),
        (
            "rest, embedded, not served",
            ask("POST", "/FeatureGroup/nope/ListRecords", &[], b"{}").signed(&ROOT),
            400,
            "UnsupportedOperation",
        ),
        (
            "rest, an endpoint that is not there",
            ask(
                "POST",
                "/endpoints/nope/async-invocations",
                &[("x-amzn-sagemaker-inputlocation", "s3://b/k")],
                b"",
            )
            .signed(&ROOT),
            400,
            "ValidationError",
        ),
        (
            "gzip that is none",
            ask(
                "POST",
                "/",
                &[
                    ("content-type", "application/x-amz-json-1.1"),
                    ("x-amz-target", "SageMaker.ListModels"),
                    ("content-encoding", "gzip"),
                ],
                b"{}",
            )
            .signed(&ROOT),
            400,
            "SerializationException",
        ),
    ] {
        let response = connect(bench.address).await.send_request(request).await.unwrap();
        let headers = response.headers().clone();
        let (got, body) = answer_bytes(response).await;
        let found = Answer {
            status: got,
            headers,
            body,
        };
        assert_eq!(found.status, status, "{name}: {}", found.body);
        if code.is_empty() {
            assert!(found.body.contains("SerializationException"), "{name}: {}", found.body);
        } else {
            assert_eq!(found.code(), code, "{name}: {}", found.body);
        }
        assert!(!found.body.to_ascii_lowercase().contains("<html"), "{name}");
        assert!(found.headers.contains_key("x-amzn-requestid"), "{name}");
    }
}

/// Proves: SM-54
#[tokio::test]
async fn bodies_over_the_limit_are_refused_and_their_senders_told() {
    let bench = bench().await;
    let sized = |n: usize| {
        json(
            "SageMaker.ListModels",
            &format!("{{\"NextToken\":\"{}\"}}", "x".repeat(n)),
        )
    };
    let answer = send(bench.address, sized(4096).signed(&ROOT)).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "RequestEntityTooLargeException"),
        "{}",
        answer.body
    );
    assert_ne!(
        send(bench.address, sized(3000).signed(&ROOT)).await.status,
        413,
        "control"
    );
    let answer = send(bench.address, invoke(&vec![b'x'; 8193]).signed(&ROOT)).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "ValidationError"),
        "{}",
        answer.body
    );
    let fits = send(bench.address, invoke(&vec![b'x'; 8192]).signed(&ROOT)).await;
    assert!(
        fits.body.contains("Endpoint nope of account 123456789012 not found."),
        "control: {}",
        fits.body
    );
    // Much larger than anything the socket buffers hold, and still answered.
    let answer = send(bench.address, invoke(&vec![b'x'; 4 << 20]).signed(&ROOT)).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_sender_that_waits_for_leave_is_refused_before_it_sends() {
    let bench = bench().await;
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: SageMaker.ListModels\r\nContent-Type: application/x-amz-json-1.1\r\n\
                Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = vec![0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut text))
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&text[..length]);
    assert!(
        text.starts_with("HTTP/1.1 400") && text.contains("MissingAuthenticationToken"),
        "{text}"
    );
}

/// Where the head tells the body's digest, a wrong signature is refused before anything of the body is read.
///
/// Proves: IAM-42
#[tokio::test]
async fn a_wrong_signature_over_a_declared_digest_is_refused_without_its_body() {
    let bench = bench().await;
    let small = "{}".repeat(1000);
    let told = async |secret: &str, digest: bool, length: usize, waits: bool| {
        let mut request = json("SageMaker.ListModels", &small);
        if digest {
            let hash = hex::encode(Sha256::digest(&small));
            request.headers.push(("x-amz-content-sha256", hash));
        }
        let request = request.signed(&As { secret, ..ROOT });
        let mut head = String::from("POST / HTTP/1.1\r\n");
        for (name, value) in request.headers() {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        let leave = if waits { "expect: 100-continue\r\n" } else { "" };
        head.push_str(&format!("content-length: {length}\r\n{leave}\r\n"));
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = vec![0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut text));
        let read = read.await.expect("answered in time").unwrap();
        String::from_utf8_lossy(&text[..read]).into_owned()
    };
    let wrong = "a secret that nobody was given";
    // The sender waits for leave, and a body that is going to be read gives it.
    let answer = told(wrong, true, small.len(), true).await;
    assert!(answer.contains("InvalidSignatureException"), "{answer}");
    for (secret, digest) in [(SECRET, true), (wrong, false)] {
        let answer = told(secret, digest, small.len(), true).await;
        assert!(answer.starts_with("HTTP/1.1 100"), "control: {answer}");
    }
    // More is declared than is ever taken or thrown away.
    let huge = 1 << 30;
    let answer = told(wrong, true, huge, false).await;
    assert!(answer.contains("InvalidSignatureException"), "{answer}");
    let answer = told(SECRET, true, huge, false).await;
    assert!(answer.contains("RequestEntityTooLargeException"), "control: {answer}");
    // The body is held to the digest that was signed.
    let hash = hex::encode(Sha256::digest(b"{\"MaxResults\":1}"));
    let sign = || {
        let mut request = json("SageMaker.ListModels", "{\"MaxResults\":1}");
        request.headers.push(("x-amz-content-sha256", hash.clone()));
        request.signed(&ROOT)
    };
    let mut other = sign();
    *other.body_mut() = Full::new(Bytes::from_static(b"{\"MaxResults\":2}"));
    let refused = send(bench.address, other).await;
    assert_eq!(refused.code(), "InvalidSignatureException", "{}", refused.body);
    assert_ne!(
        send(bench.address, sign()).await.code(),
        "InvalidSignatureException",
        "control"
    );
}

/// The aws CLI cannot read a second answer of this kind on one connection.
#[tokio::test]
async fn a_request_answered_while_it_waits_for_leave_ends_its_connection() {
    let bench = bench().await;
    for (expect, version, closes) in [
        ("Expect: 100-continue\r\n", "1.1", true),
        ("", "1.1", false),
        ("Expect: 100-continue\r\n", "1.0", true),
    ] {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        let head = format!(
            "PUT /bucket/key HTTP/{version}\r\nHost: s3.us-east-1.amazonaws.com\r\nContent-Length: 0\r\n{expect}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut first, mut byte) = (Vec::new(), [0]);
        while !first.ends_with(b"\r\n\r\ns3") {
            let read = tokio::time::timeout(Duration::from_secs(60), stream.read_exact(&mut byte)).await;
            read.expect("answered in time").expect("answered whole");
            first.push(byte[0]);
        }
        let told = String::from_utf8_lossy(&first).to_lowercase();
        assert!(told.contains(" 200 ok"), "{told}");
        assert_eq!(told.contains("connection: close"), closes, "{expect}{version}: {told}");
        let last = "GET /bucket/last HTTP/1.1\r\nHost: s3.us-east-1.amazonaws.com\r\nConnection: close\r\n\r\n";
        // Whoever is told that the connection ends may find it ended.
        let sent = stream.write_all(last.as_bytes()).await;
        assert!(closes || sent.is_ok(), "{sent:?}");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await;
        assert!(ended.expect("closed in time").is_ok() || closes);
        assert_eq!(rest.ends_with(b"s3"), !closes, "{expect}{version}");
    }
}

/// Proves: SM-61, SM-3
#[tokio::test]
async fn invoking_a_missing_endpoint_is_a_validation_error_of_the_runtime() {
    let bench = bench().await;
    for path in [
        "/endpoints/nope/invocations",
        "/endpoints/nope/invocations-response-stream",
    ] {
        let answer = send(bench.address, ask("POST", path, &[], b"1").signed(&ROOT)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "ValidationError"),
            "{}",
            answer.body
        );
        assert_eq!(
            answer.body,
            "{\"Message\":\"Endpoint nope of account 123456789012 not found.\"}"
        );
    }
}

/// What can be dialled and says nothing.
struct Silent(SocketAddr);
impl isolarium_runtime::Dial for Silent {
    fn dial(
        &self,
        _: &isolarium_model::WorkloadId,
        _: u16,
        timeout: Duration,
    ) -> Result<std::os::fd::OwnedFd, isolarium_runtime::executor::ExecutorError> {
        let stream = std::net::TcpStream::connect_timeout(&self.0, timeout).unwrap();
        Ok(stream.into())
    }
}

/// Proves: IAM-27
#[tokio::test]
async fn an_invocation_whose_caller_goes_away_is_in_the_audit_trail() {
    use isolarium_reconcile::fleets::{EndpointRoutes, Fleets, Target, VariantRoute};
    let container = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dial = Arc::new(Silent(container.local_addr().unwrap()));
    let fleets = Arc::new(Fleets::default());
    let scope = Scope {
        account: account(),
        region: "us-east-1".parse().unwrap(),
    };
    let variants = vec![VariantRoute {
        name: "one".into(),
        weight: 1.0,
        targets: vec![Target::new("w-00000000000000001".parse().unwrap(), "i-1".into())],
        capture: None,
        most: None,
    }];
    let routes = EndpointRoutes {
        asynchronous: false,
        shifted: None,
        name: "nope".into(),
        variants,
    };
    fleets.publish(&Endpoint::key(&scope, "nope"), routes);
    let settings = InvokeSettings {
        timeout: Duration::from_secs(600),
        stream_timeout: Duration::from_secs(600),
        connect_timeout: Duration::from_secs(10),
        body_limit: 1024,
        idle_connections: 1,
    };
    let bench = bench_with(|door| {
        door.proxy = Arc::new(Proxy::new(fleets, door.engine.store.clone(), dial, settings));
    })
    .await;
    let mut caller = connect(bench.address).await;
    let asking = tokio::spawn(async move { caller.send_request(invoke(b"1").signed(&ROOT)).await });
    let (mut asked, _) = container.accept().await.unwrap();
    assert!(
        asked.read(&mut [0; 1024]).await.unwrap() > 0,
        "control: the container is asked"
    );
    asking.abort();
    let told = || {
        let lines = walked(bench._dir.path());
        lines
            .iter()
            .any(|line| line.contains("InvokeEndpoint") && line.contains("ClientDisconnected"))
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !told() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("not told");
}

/// Lines of all text files below a directory.
fn walked(path: &std::path::Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            lines.extend(walked(&entry.path()));
        } else if let Ok(text) = std::fs::read_to_string(entry.path()) {
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines
}

#[tokio::test]
async fn a_panic_is_answered_and_ends_nothing_else() {
    let bench = bench().await;
    let answer = send(bench.address, ask("GET", "/panic", &[], b"").unsigned()).await;
    assert_eq!(answer.status, 500);
    assert!(
        answer.body.contains("InternalFailure") && !answer.body.contains("purpose"),
        "{}",
        answer.body
    );
    assert_eq!(
        send(bench.address, ask("GET", "/fine", &[], b"").unsigned()).await.body,
        "s3",
        "control"
    );
}

#[tokio::test]
async fn a_stop_lets_running_requests_end_and_takes_no_new_ones() {
    let bench = bench().await;
    let mut idle = connect(bench.address).await;
    idle.ready().await.unwrap();
    let address = bench.address;
    let slow = tokio::spawn(async move { send(address, ask("GET", "/slow", &[], b"").unsigned()).await });
    SLOW.notified().await;
    bench.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(60), bench.running)
        .await
        .expect("drained in time")
        .unwrap();
    let answer = slow.await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "s3"));
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    assert!(
        idle.send_request(ask("GET", "/", &[], b"").unsigned()).await.is_err(),
        "idle connections were closed"
    );
}

#[tokio::test]
async fn clients_that_stall_are_given_up() {
    let bench = bench_with(|door| door.limits.pause = Duration::from_millis(300)).await;
    let mut silent = TcpStream::connect(bench.address).await.unwrap();
    silent.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
    let mut text = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), silent.read_to_end(&mut text))
        .await
        .expect("closed in time")
        .unwrap();

    let request = json("SageMaker.ListModels", "{}").signed(&ROOT);
    let mut half = TcpStream::connect(bench.address).await.unwrap();
    let mut head = String::from("POST / HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    head.push_str("content-length: 2\r\n\r\n{");
    half.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), half.read_to_end(&mut text))
        .await
        .expect("answered in time")
        .unwrap();
    let text = String::from_utf8_lossy(&text);
    assert!(
        text.starts_with("HTTP/1.1 408") && text.contains("RequestTimeoutException"),
        "{text}"
    );
}

#[tokio::test]
async fn bytes_that_are_no_http_are_refused_without_a_page() {
    let bench = bench().await;
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    for garbage in [
        "\u{16}\u{3}\u{1}",
        "GET / HTTP/9.9\r\n\r\n",
        "nonsense\r\n\r\n",
        long.as_str(),
    ] {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        // The server may close before it has read everything.
        let _ = stream.write_all(garbage.as_bytes()).await;
        let mut text = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut text))
            .await
            .expect("closed in time");
        assert!(
            !String::from_utf8_lossy(&text).to_ascii_lowercase().contains("html"),
            "{garbage:?}"
        );
    }
    assert_eq!(
        send(bench.address, ask("GET", "/fine", &[], b"").unsigned())
            .await
            .status,
        200,
        "control"
    );
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_in_the_language_of_its_request() {
    let bench = bench().await;
    let long = |ask: Ask, length: usize| {
        let mut ask = ask;
        ask.headers.push(("x-filler", "y".repeat(length)));
        ask
    };
    let list = || json("SageMaker.ListModels", "{}");
    let fine = send(bench.address, long(list(), 7_000).signed(&ROOT)).await;
    assert_eq!(fine.status, 200, "control: it got as far as the operation");
    let s3 = send(
        bench.address,
        long(ask("GET", "/bucket/key", &[], b""), 7_000).unsigned(),
    )
    .await;
    assert_eq!(s3.status, 200, "control");
    for (request, sign) in [
        ("json", long(list(), 9_000).signed(&ROOT)),
        (
            "query",
            long(form("Action=GetCallerIdentity&Version=2011-06-15"), 9_000).unsigned(),
        ),
        ("s3", long(ask("GET", "/bucket/key", &[], b""), 9_000).unsigned()),
        (
            "s3 with a body",
            long(ask("PUT", "/bucket/key", &[], &[b'x'; 100_000]), 9_000).unsigned(),
        ),
    ] {
        let answer = send(bench.address, sign).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "RequestHeaderSectionTooLarge"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn unknown_keys_are_root_only_when_the_operator_says_so() {
    let stranger = || {
        json(
            "SageMaker.CreateHumanTaskUi",
            "{\"HumanTaskUiName\":\"a\",\"UiTemplate\":{\"Content\":\"x\"}}",
        )
        .signed(&As {
            key: "test",
            secret: "test",
            ..ROOT
        })
    };
    let closed = bench().await;
    assert_eq!(
        send(closed.address, stranger()).await.code(),
        "UnrecognizedClientException"
    );
    let open = bench_with(|door| door.acceptance.unknown_keys_are_root_of = Some(account())).await;
    assert_eq!(
        send(open.address, stranger()).await.code(),
        "UnsupportedOperation",
        "it got as far as the operation"
    );
    let wrong = json("SageMaker.ListModels", "{}").signed(&As {
        secret: "other",
        ..ROOT
    });
    assert_eq!(
        send(open.address, wrong).await.code(),
        "InvalidSignatureException",
        "known keys are still checked"
    );
    let unsigned = json("SageMaker.ListModels", "{}").unsigned();
    assert_eq!(
        send(open.address, unsigned).await.code(),
        "MissingAuthenticationTokenException"
    );
}

#[tokio::test]
async fn http_2_is_spoken_too() {
    let bench = bench().await;
    let stream = TcpStream::connect(bench.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method("GET")
        .uri("http://localhost/bucket/key")
        .version(Version::HTTP_2);
    let response = sender
        .send_request(request.body(Full::new(Bytes::new())).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(answer(response).await.body, "s3");
}

/// A lane carries the invocations of all tenants: what reads much must not run on it.
#[test]
fn only_reads_of_a_record_or_two_run_on_a_lane() {
    for (service, operation) in [
        ("cloudwatch", "GetMetricData"),
        ("cloudwatch", "GetMetricStatistics"),
        ("cloudwatch", "ListMetrics"),
        ("ec2", "DescribeSubnets"),
        ("ecr", "BatchGetImage"),
        ("logs", "GetLogEvents"),
        ("sagemaker", "CreateModel"),
        ("sagemaker", "DescribeHyperParameterTuningJob"),
        ("sagemaker", "ListHyperParameterTuningJobs"),
        ("sagemaker", "Search"),
        ("sagemaker-featurestore-runtime", "BatchGetRecord"),
    ] {
        assert!(!takes_microseconds(service, operation), "{service}:{operation}");
    }
    for (service, operation) in [
        ("sagemaker", "DescribeTrainingJob"),
        ("sagemaker-featurestore-runtime", "GetRecord"),
        ("sts", "GetCallerIdentity"),
    ] {
        assert!(takes_microseconds(service, operation), "{service}:{operation}");
    }
}
