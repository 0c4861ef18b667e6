//! The whole server in this process, on a free port, without a node.

use super::*;
use crate::operator::client::{AskError, ask};
use crate::operator::message::{Answer, Ask};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use isolarium_wire::sigv4::{self, Signer};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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
            key: layout::read_credentials(&text).unwrap(),
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
