//! The whole server in this process, on a free port, without a node.

use super::*;
use crate::operator::client::{AskError, ask};
use crate::operator::message::{Answer, Ask};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use isolarium_model::{Sha256Digest, WorkloadId};
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::Vpc;
use isolarium_netplan::intent::{HostNetwork, ListenerSpec, Transport};
use isolarium_node::Network;
use isolarium_runtime::executor::{
    Archives, BlockedAttempt, Dial, EgressReport, Executor, LaunchSpec, LogChunk, Observed, PackFormat, Packed,
    VolumeKey, VolumeSpec,
};
use isolarium_runtime::vpcs::{Destination, Door, Flows, VpcSeen, Vpcs};
use isolarium_wire::sigv4::{self, Signer};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

fn config(dir: &Path) -> Config {
    Config {
        data_dir: dir.to_path_buf(),
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Config::default()
    }
}

struct Client {
    address: SocketAddr,
    key: (String, String),
}

impl Client {
    fn of(server: &Server, dir: &Path) -> Self {
        let text = std::fs::read_to_string(dir.join("credentials")).unwrap();
        Self {
            address: server.address,
            key: layout::read_credentials(&text, layout::DEFAULT_PROFILE).unwrap(),
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (StatusCode, String) {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn signed(
        &self,
        service: &str,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> (StatusCode, String) {
        let (path_only, query) = path.split_once('?').unwrap_or((path, ""));
        let mut all = HeaderMap::new();
        all.insert("host", HeaderValue::from_str(&self.address.to_string()).unwrap());
        for (name, value) in headers {
            all.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let now = SystemClock.now().0 / 1000;
        let signer = Signer {
            access_key_id: &self.key.0,
            secret: &self.key.1,
            token: None,
            region: "us-east-1",
            service,
            now,
        };
        sigv4::sign(&signer, method.as_str(), path_only, query, &mut all, body.as_bytes()).unwrap();
        let mut request = Request::new(Full::new(Bytes::from(body.to_owned())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        *request.headers_mut() = all;
        self.send(request).await
    }

    async fn query(&self, service: &str, body: &str) -> (StatusCode, String) {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        self.signed(service, Method::POST, "/", &form, body).await
    }
}

const WHO: &str = "Action=GetCallerIdentity&Version=2011-06-15";

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_a_root_key_that_every_service_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(config(dir.path()), None).await.unwrap();
    let mode = std::fs::metadata(dir.path().join("credentials"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = Client::of(&server, dir.path());
    let (status, text) = client.query("sts", WHO).await;
    assert!(
        status.is_success() && text.contains("arn:aws:iam::123456789012:root"),
        "{text}"
    );
    let json = [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", "SageMaker.ListModels"),
    ];
    let (status, text) = client.signed("sagemaker", Method::POST, "/", &json, "{}").await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "{\"Models\":[]}"));
    let (status, _) = client.signed("s3", Method::PUT, "/first-bucket", &[], "").await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = client
        .signed("s3", Method::PUT, "/first-bucket/key", &[], "hello")
        .await;
    assert_eq!(status, StatusCode::OK);
    let (status, text) = client.signed("s3", Method::GET, "/first-bucket/key", &[], "").await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "hello"));
    let unsigned = Request::get("/first-bucket/key")
        .header("host", "localhost")
        .body(Full::default())
        .unwrap();
    let (status, text) = client.send(unsigned).await;
    assert!(
        status == StatusCode::FORBIDDEN && text.contains("<Code>AccessDenied</Code>"),
        "{text}"
    );
    let registry = Request::get("/v2/")
        .header("host", "localhost")
        .body(Full::default())
        .unwrap();
    assert_eq!(client.send(registry).await.0, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything_and_two_servers_cannot_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::start(config(dir.path()), None).await.unwrap();
    assert!(matches!(
        Server::start(config(dir.path()), None).await,
        Err(StartError::Layout(LayoutError::Locked(_)))
    ));
    let client = Client::of(&first, dir.path());
    client.signed("s3", Method::PUT, "/kept-bucket", &[], "").await;
    client.signed("s3", Method::PUT, "/kept-bucket/key", &[], "hello").await;
    let before = std::fs::read(dir.path().join("credentials")).unwrap();
    first.stop().await;
    assert!(!dir.path().join("run/url").exists() && !dir.path().join("run/serve.pid").exists());

    let second = Server::start(config(dir.path()), None).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("credentials")).unwrap(), before);
    let client = Client::of(&second, dir.path());
    let (status, text) = client.signed("s3", Method::GET, "/kept-bucket/key", &[], "").await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "hello"));
    second.stop().await;

    std::fs::remove_file(dir.path().join("credentials")).unwrap();
    let third = Server::start(config(dir.path()), None).await.unwrap();
    assert_eq!(
        std::fs::read(dir.path().join("credentials")).unwrap(),
        before,
        "a lost file is written again"
    );
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_comes_back_at_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::start(config(dir.path()), None).await.unwrap();
    let address = first.address;
    first.stop().await;
    // What a killed one leaves: the note of where it answered.
    std::fs::write(dir.path().join("run/url"), format!("http://{address}\n")).unwrap();
    let second = Server::start(config(dir.path()), None).await.unwrap();
    assert_eq!(second.address, address);
    let taken = second.address;
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("run")).unwrap();
    std::fs::write(other.path().join("run/url"), format!("http://{taken}\n")).unwrap();
    let third = Server::start(config(other.path()), None).await.unwrap();
    assert_ne!(
        third.address, taken,
        "an address that somebody else took meanwhile is let go"
    );
    second.stop().await;
    third.stop().await;
}

/// Proves: IAM-68
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_makes_accounts_and_users_and_no_key_is_there_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(config(dir.path()), None).await.unwrap();
    let operator = |question: Ask| {
        let data_dir = dir.path().to_path_buf();
        async move {
            tokio::task::spawn_blocking(move || ask(&data_dir, &question))
                .await
                .unwrap()
        }
    };
    let key = |answer: Result<Answer, AskError>| match answer {
        Ok(Answer::Key {
            account,
            access_key_id,
            secret_access_key,
        }) => (account, (access_key_id, secret_access_key)),
        other => panic!("{other:?}"),
    };
    let account = Some("210987654321".parse().unwrap());
    let (_, root) = key(operator(Ask::CreateAccount {
        account: account.clone(),
        alias: None,
    })
    .await);
    let client = Client {
        address: server.address,
        key: root,
    };
    assert!(
        client
            .query("sts", WHO)
            .await
            .1
            .contains("arn:aws:iam::210987654321:root")
    );
    let again = operator(Ask::CreateAccount {
        account: account.clone(),
        alias: None,
    })
    .await;
    assert!(matches!(again, Err(AskError::Refused(text)) if text.contains("exists")));

    let policy =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:ListAllMyBuckets","Resource":"*"}]}"#;
    let user = |name: &str, policy: Option<&str>| Ask::CreateUser {
        account: account.clone(),
        name: name.into(),
        policy: policy.map(str::to_owned),
    };
    let (_, alice) = key(operator(user("alice", Some(policy))).await);
    let client = Client {
        address: server.address,
        key: alice,
    };
    assert!(
        client
            .query("sts", WHO)
            .await
            .1
            .contains("arn:aws:iam::210987654321:user/alice")
    );
    assert_eq!(
        client.signed("s3", Method::GET, "/", &[], "").await.0,
        StatusCode::OK,
        "the policy allows it"
    );
    let denied = client.signed("s3", Method::PUT, "/alices-bucket", &[], "").await;
    assert_eq!(denied.0, StatusCode::FORBIDDEN, "{}", denied.1);

    for (bad, part) in [
        (user("alice", None), "already"),
        (user("a b", None), "letters"),
        (user("bob", Some("{")), "olicy"),
    ] {
        let answer = operator(bad).await;
        assert!(
            matches!(&answer, Err(AskError::Refused(text)) if text.contains(part)),
            "{answer:?}"
        );
    }
    assert!(
        operator(user("bob", Some(policy))).await.is_ok(),
        "the failed try left nothing behind"
    );
    for guess in [
        ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("test", "test"),
        ("admin", "admin"),
    ] {
        let client = Client {
            address: server.address,
            key: (guess.0.into(), guess.1.into()),
        };
        assert_eq!(client.query("sts", WHO).await.0, StatusCode::FORBIDDEN, "{guess:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_said_and_leaves_the_directory_free() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = Config {
        listen: taken.local_addr().unwrap(),
        ..config(dir.path())
    };
    assert!(matches!(
        Server::start(busy, None).await,
        Err(StartError::Listen { .. })
    ));
    Server::start(config(dir.path()), None).await.unwrap().stop().await;
}

/// A machine whose platform network is loopback: every socket gets a free port, and is remembered.
struct Loopback {
    inner: NoNode,
    opened: std::sync::Mutex<Vec<(ListenerSpec, SocketAddr)>>,
}

macro_rules! pass_on {
    ($trait:path { $(fn $name:ident(&self $(, $arg:ident: $kind:ty)*) -> $out:ty;)* }) => {
        impl $trait for Loopback {
            $(fn $name(&self $(, $arg: $kind)*) -> $out { self.inner.$name($($arg),*) })*
        }
    };
}

type Done<T> = Result<T, ExecutorError>;
pass_on!(Executor {
    fn launch(&self, spec: &LaunchSpec) -> Done<()>;
    fn release(&self, workload: &WorkloadId) -> Done<()>;
    fn observe(&self) -> Done<Vec<Observed>>;
    fn observe_one(&self, workload: &WorkloadId) -> Done<Observed>;
    fn terminate(&self, workload: &WorkloadId, kill: bool) -> Done<()>;
    fn remove(&self, workload: &WorkloadId) -> Done<()>;
    fn changed(&self, timeout: Duration) -> Done<()>;
    fn read_log(&self, workload: &WorkloadId, offset: u64, max_bytes: usize) -> Done<LogChunk>;
    fn prepare(&self, workload: &WorkloadId) -> Done<()>;
    fn make_volume(&self, workload: &WorkloadId, volume: &VolumeSpec, key: &VolumeKey) -> Done<()>;
    fn open_volume(&self, workload: &WorkloadId) -> Done<OwnedFd>;
    fn close_volume(&self, workload: &WorkloadId) -> Done<()>;
});
pass_on!(Archives {
    fn unpack_layer(&self, blob: OwnedFd, diff_id: &Sha256Digest) -> Done<()>;
    fn unpack_archive(&self, archive: OwnedFd, workload: &WorkloadId, scratch: &str, limit: Option<Duration>) -> Done<()>;
    fn unpack_model(&self, archive: OwnedFd, workload: &WorkloadId, scratch: &str, folder: &str, limit: Option<Duration>) -> Done<()>;
    fn remove_model(&self, workload: &WorkloadId, scratch: &str, folder: &str) -> Done<()>;
    fn pack(&self, workload: &WorkloadId, scratch: &str, format: PackFormat, out: OwnedFd) -> Done<Packed>;
    fn read_file(&self, workload: &WorkloadId, scratch: &str, path: &str, max: usize) -> Done<Option<Vec<u8>>>;
});
pass_on!(Dial {
    fn dial(&self, workload: &WorkloadId, port: u16, timeout: Duration) -> Done<OwnedFd>;
});
pass_on!(EgressReport {
    fn attempts(&self, workload: &WorkloadId) -> Done<Vec<BlockedAttempt>>;
    fn sight(&self, workload: &WorkloadId) -> Done<isolarium_model::sagemaker::network::Sight>;
});
pass_on!(Vpcs {
    fn apply_vpc(&self, vpc: &Vpc) -> Done<()>;
    fn set_peers(&self, groups: &std::collections::BTreeSet<std::collections::BTreeSet<std::net::Ipv4Addr>>) -> Done<()>;
    fn compare_vpc(&self, vpc: &Vpc) -> Done<Vec<String>>;
    fn remove_vpc(&self, vpc: VpcId) -> Done<()>;
    fn list_vpcs(&self) -> Done<Vec<VpcSeen>>;
    fn listen_vpc(&self, vpc: VpcId, door: Door) -> Done<OwnedFd>;
    fn attach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Done<()>;
    fn detach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Done<()>;
    fn dial_from(&self, vpc: VpcId, interface: InterfaceId, to: Destination, timeout: Duration) -> Done<OwnedFd>;
    fn read_flows(&self, vpc: VpcId, since: u64, timeout: Duration) -> Done<Flows>;
});
pass_on!(NodeHost {
    fn write_credentials(&self, text: &str) -> Done<()>;
});

impl Network for Loopback {
    fn ensure_network(&self, _: &HostNetwork) -> Done<()> {
        Ok(())
    }

    fn listen(&self, listener: &ListenerSpec) -> Done<OwnedFd> {
        let failed = |error: io::Error| ExecutorError::Host(error.to_string());
        let (fd, at): (OwnedFd, SocketAddr) = match listener.transport {
            Transport::Tcp => {
                let socket = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
                let at = socket.local_addr().map_err(failed)?;
                (socket.into(), at)
            }
            Transport::Udp => {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
                let at = socket.local_addr().map_err(failed)?;
                (socket.into(), at)
            }
        };
        self.opened.lock().unwrap().push((listener.clone(), at));
        Ok(fd)
    }
}

impl Loopback {
    fn at(&self, address: &str, port: u16, transport: Transport) -> SocketAddr {
        let address: std::net::IpAddr = address.parse().unwrap();
        let opened = self.opened.lock().unwrap();
        let found = opened
            .iter()
            .find(|(spec, _)| spec.address == address && spec.port == port && spec.transport == transport);
        found.unwrap_or_else(|| panic!("nothing listens on {address}:{port}")).1
    }
}

/// One request over TLS for `name`, trusting only what `roots` holds.
async fn over_tls(
    at: SocketAddr,
    name: &str,
    roots: &Path,
    request: Request<Full<Bytes>>,
) -> io::Result<(StatusCode, String)> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    let mut store = rustls::RootCertStore::empty();
    for der in CertificateDer::pem_file_iter(roots).unwrap() {
        store.add(der.unwrap()).unwrap();
    }
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(at).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(client))
        .connect(name, stream)
        .await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

fn to(host: &str, path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", host).body(Full::default()).unwrap()
}

/// Proves: CC-82, CC-86
#[tokio::test(flavor = "multi_thread")]
async fn the_platform_network_has_credentials_names_and_the_services_under_their_public_names() {
    let dir = tempfile::tempdir().unwrap();
    let host = Arc::new(Loopback {
        inner: NoNode::new(dir.path()),
        opened: Default::default(),
    });
    let server = Server::start(config(dir.path()), Some(host.clone())).await.unwrap();

    let resolver = host.at("100.64.0.2", 53, Transport::Udp);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03sts\x09amazonaws\x03com\0\0\x01\0\x01";
    socket.send_to(question, resolver).await.unwrap();
    let mut reply = [0; 512];
    let length = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut reply))
        .await
        .unwrap()
        .unwrap();
    let sts = std::net::Ipv4Addr::new(
        reply[length - 4],
        reply[length - 3],
        reply[length - 2],
        reply[length - 1],
    );
    assert_eq!(reply[..2], [0x12, 0x34]);

    let plain = Client {
        address: host.at(&sts.to_string(), 80, Transport::Tcp),
        key: Default::default(),
    };
    let (status, text) = plain
        .send(to("sts.amazonaws.com", "/?Action=GetCallerIdentity&Version=2011-06-15"))
        .await;
    assert!(
        status == StatusCode::FORBIDDEN && text.contains("MissingAuthenticationToken"),
        "{text}"
    );
    let roots = dir.path().join("ca/ca.pem");
    let tls = host.at(&sts.to_string(), 443, Transport::Tcp);
    let request = to("sts.amazonaws.com", "/?Action=GetCallerIdentity&Version=2011-06-15");
    let (status, _) = over_tls(tls, "sts.amazonaws.com", &roots, request).await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(
        over_tls(tls, "example.com", &roots, to("example.com", "/"))
            .await
            .is_err(),
        "not ours to certify"
    );
    let s3 = host.at("198.18.128.1", 443, Transport::Tcp);
    let name = "some-bucket.s3.us-east-1.amazonaws.com";
    let (status, text) = over_tls(s3, name, &roots, to(name, "/key")).await.unwrap();
    assert!(status.is_client_error() && text.contains("<Error>"), "{text}");

    let credentials = Client {
        address: host.at("169.254.170.2", 80, Transport::Tcp),
        key: Default::default(),
    };
    let guess = format!("/v2/credentials/{}", "0".repeat(32));
    for path in [guess.as_str(), "/", "/latest/meta-data/"] {
        let (status, text) = credentials.send(to("169.254.170.2", path)).await;
        assert!(
            status == StatusCode::NOT_FOUND && !text.contains("AccessKeyId"),
            "{path}: {text}"
        );
    }
    server.stop().await;
}

/// On the listener of this machine an unknown key counts as root, which is the control; the same request from the platform
/// network, where containers are, is refused.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_that_count_as_root_do_not_do_so_for_containers() {
    let dir = tempfile::tempdir().unwrap();
    let host = Arc::new(Loopback {
        inner: NoNode::new(dir.path()),
        opened: Default::default(),
    });
    let mut config = config(dir.path());
    config.auth.unknown_keys = UnknownKeys::Root;
    let server = Server::start(config, Some(host.clone())).await.unwrap();
    let asking = |address| Client {
        address,
        key: ("anything".into(), "at all".into()),
    };
    let (status, text) = asking(server.address).query("sts", WHO).await;
    assert!(status.is_success() && text.contains(":root"), "{text}");
    let addresses = crate::names::addresses("198.18.0.0/17".parse().unwrap(), "198.18.128.0/20".parse().unwrap());
    assert!(!addresses.is_empty());
    for address in addresses {
        let inside = asking(host.at(&address.to_string(), 80, Transport::Tcp));
        let (status, text) = inside.query("sts", WHO).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{address}: {text}");
        let (status, text) = inside.signed("s3", Method::GET, "/", &[], "").await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{address}: {text}");
    }
    server.stop().await;
}

/// What is configured is taken where there are files for it, which is the control.
#[test]
fn connections_leave_half_of_the_open_files_to_requests() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .and_then(|files| usize::try_from(files).ok())
        .unwrap_or(usize::MAX);
    assert_eq!(most_connections(1), 1);
    assert_eq!(most_connections(usize::MAX), files / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tls_listener_serves_what_the_plain_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        tls_listen: Some("127.0.0.1:0".parse().unwrap()),
        ..config(dir.path())
    };
    let server = Server::start(config, None).await.unwrap();
    let at = server.tls_address().unwrap();
    let roots = dir.path().join("ca/ca.pem");
    for name in ["localhost", "127.0.0.1"] {
        let (status, text) = over_tls(at, name, &roots, to(name, "/bucket/key")).await.unwrap();
        assert!(status.is_client_error() && text.contains("<Error>"), "{name}: {text}");
    }
    server.stop().await;
}

/// Proves: IAM-42, IAM-44, IAM-47
#[tokio::test(flavor = "multi_thread")]
async fn s3_words_authentication_faults_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(config(dir.path()), None).await.unwrap();
    let good = Client::of(&server, dir.path());
    let stranger = Client {
        address: good.address,
        key: ("AKIANOBODY".into(), "x".into()),
    };
    let forger = Client {
        address: good.address,
        key: (good.key.0.clone(), "x".into()),
    };
    assert_eq!(
        good.signed("s3", Method::GET, "/", &[], "").await.0,
        StatusCode::OK,
        "control"
    );
    for (client, code) in [(&stranger, "InvalidAccessKeyId"), (&forger, "SignatureDoesNotMatch")] {
        let (status, text) = client.signed("s3", Method::GET, "/", &[], "").await;
        assert!(
            status == StatusCode::FORBIDDEN && text.contains(&format!("<Code>{code}</Code>")),
            "{text}"
        );
    }
    let (status, text) = forger.signed("s3", Method::HEAD, "/bucket-name", &[], "").await;
    assert_eq!((status, text.as_str()), (StatusCode::FORBIDDEN, ""), "HEAD has no body");

    let presigned = |expires: u32, ago: i64| {
        let signer = Signer {
            access_key_id: &good.key.0,
            secret: &good.key.1,
            token: None,
            region: "us-east-1",
            service: "s3",
            now: SystemClock.now().0 / 1000 - ago,
        };
        let host = good.address.to_string();
        let wanted = sigv4::Presign {
            method: "GET",
            host: &host,
            path: "/",
            query: "",
            expires,
        };
        let query = sigv4::presign(&signer, &wanted).unwrap();
        to(&host, &format!("/?{query}"))
    };
    assert_eq!(good.send(presigned(60, 0)).await.0, StatusCode::OK, "control");
    let (status, text) = good.send(presigned(60, 120)).await;
    assert!(status == StatusCode::FORBIDDEN && text.contains("expired"), "{text}");
    server.stop().await;
}
