use super::*;
use crate::clock::SystemClock;
use crate::http::body;
use crate::tls::{Authority, Certificates, server_config};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use isolarium_model::time::Clock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::path::Path;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// Answers with the TLS version that it is told.
struct Version;

impl Handler for Version {
    fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answering {
        let version = request.extensions().get::<TlsVersion>().copied();
        assert_eq!(peer.secure, version.is_some());
        Box::pin(async move { Response::new(body::full(version.map_or("none", |version| version.0))) })
    }
}

async fn listening(tls: Option<Arc<rustls::ServerConfig>>) -> (SocketAddr, watch::Sender<bool>) {
    let (address, stop, _) = listening_with(Arc::new(Version), tls, None).await;
    (address, stop)
}

async fn listening_with(
    handler: Arc<dyn Handler>,
    tls: Option<Arc<rustls::ServerConfig>>,
    lanes: Option<Arc<Lanes>>,
) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener {
        socket,
        tls,
        handler,
        limits: ConnectionLimits {
            head: 8192,
            head_timeout: Duration::from_secs(5),
            connections: 10,
            each: None,
        },
        lanes,
    };
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(listener.run(stopping));
    (address, stop, running)
}

/// What the handler answers to a request that names a version in its own words too.
async fn asked(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> String {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .uri("/")
        .header("host", "localhost")
        .header("s3-tlsversion", "1.9");
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body();
    String::from_utf8(answer.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn connector(dir: &Path, version: &'static rustls::SupportedProtocolVersion) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(client))
}

/// `s3:TlsVersion` is the connection's version, and absent where there is no TLS.
///
/// Proves: IAM-16
#[tokio::test]
async fn a_request_knows_the_tls_version_of_its_connection_and_none_without_tls() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let authority = Arc::new(Authority::open(dir.path(), clock.now()).unwrap());
    let regions = ["us-east-1".parse().unwrap()];
    let certificates = Certificates::new(authority, clock, &regions, &["127.0.0.1".parse().unwrap()]);
    let (secure, _running) = listening(Some(server_config(Arc::new(certificates)).unwrap())).await;
    for (version, told) in [(&rustls::version::TLS12, "1.2"), (&rustls::version::TLS13, "1.3")] {
        let stream = TcpStream::connect(secure).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector(dir.path(), version).connect(name, stream).await.unwrap();
        assert_eq!(asked(stream).await, told);
    }
    let (plain, _running) = listening(None).await;
    assert_eq!(asked(TcpStream::connect(plain).await.unwrap()).await, "none");
}

/// A connection is served on a lane, as well as elsewhere, and the end of the server waits for it there.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_served_on_lanes() {
    /// Answers with the number of its lane.
    struct Where;

    impl Handler for Where {
        fn handle(self: Arc<Self>, _: Peer, _: Request<Incoming>) -> Answering {
            Box::pin(async move {
                // A timer and a thread that may block belong to the lane too.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let blocked = tokio::task::spawn_blocking(crate::lanes::here).await.unwrap();
                Response::new(body::full(format!("{} {blocked}", crate::lanes::here())))
            })
        }
    }

    let lanes = Arc::new(Lanes::start(2).unwrap());
    let (on_lanes, stop, running) = listening_with(Arc::new(Where), None, Some(lanes)).await;
    let (first, second) = (
        TcpStream::connect(on_lanes).await.unwrap(),
        TcpStream::connect(on_lanes).await.unwrap(),
    );
    let mut seen = [asked(first).await, asked(second).await];
    seen.sort();
    assert!(seen.iter().all(|seen| seen == "1 0" || seen == "2 0"), "{seen:?}");
    stop.send(true).unwrap();
    running.await.unwrap();
    assert!(TcpStream::connect(on_lanes).await.is_err(), "control: it has ended");
    let (elsewhere, _stop, _running) = listening_with(Arc::new(Where), None, None).await;
    assert_eq!(asked(TcpStream::connect(elsewhere).await.unwrap()).await, "0 0");
}

/// Proves: NET-32, CC-80
#[tokio::test]
async fn one_client_cannot_take_a_listener_from_its_neighbours() {
    use tokio::io::AsyncReadExt;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener {
        socket,
        tls: None,
        handler: Arc::new(Version),
        limits: ConnectionLimits {
            head: 8192,
            head_timeout: Duration::from_secs(60),
            connections: 10,
            each: Some(3),
        },
        lanes: None,
    };
    let (_stop, stopping) = watch::channel(false);
    tokio::spawn(listener.run(stopping));
    let from = async |client: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{client}:0").parse().unwrap()).unwrap();
        socket.connect(address).await.unwrap()
    };
    // As many as the listener takes in all, held open by one client without a word.
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(from("127.0.0.2").await);
    }
    for _ in 0..20 {
        let mut more = from("127.0.0.2").await;
        let ended = more.read(&mut [0; 1]).await;
        assert!(!matches!(ended, Ok(1..)), "closed without a word");
    }
    assert_eq!(asked(from("127.0.0.3").await).await, "none", "the neighbour is served");
    // What is given back can be taken again.
    drop(held);
    let mut tries = 0;
    loop {
        let mut again = from("127.0.0.2").await;
        tokio::io::AsyncWriteExt::write_all(&mut again, b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            .await
            .ok();
        let mut text = Vec::new();
        if again.read_to_end(&mut text).await.is_ok() && text.ends_with(b"none") {
            break;
        }
        tries += 1;
        assert!(tries < 1000, "it is never served again");
        tokio::task::yield_now().await;
    }
}
