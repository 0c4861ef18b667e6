//! Invocations against a real HTTP responder behind a fake `Dial`.

use super::*;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use isolarium_model::sagemaker::EndpointStatus;
use isolarium_model::{Arn, Principal, Timestamp, WorkloadId};
use isolarium_policy::{Authority, ResourceSide, authorize};
use isolarium_reconcile::fleets::{EndpointRoutes, Target, VariantRoute};
use isolarium_runtime::executor::ExecutorError;
use isolarium_store::state::memory::MemoryState;
use isolarium_store::{Batch, Expect};
use isolarium_wire::Document;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

type Seen = Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>;

struct To {
    address: SocketAddr,
    dialled: AtomicUsize,
}

impl Dial for To {
    fn dial(&self, _: &WorkloadId, port: u16, timeout: Duration) -> Result<OwnedFd, ExecutorError> {
        assert_eq!(port, 8080);
        self.dialled.fetch_add(1, Ordering::SeqCst);
        let stream = std::net::TcpStream::connect_timeout(&self.address, timeout);
        stream
            .map(OwnedFd::from)
            .map_err(|error| ExecutorError::Host(error.to_string()))
    }
}

struct Bench {
    proxy: Arc<Proxy>,
    fleets: Arc<Fleets>,
    store: Arc<dyn StateStore>,
    dial: Arc<To>,
    seen: Seen,
}

fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

fn settings() -> InvokeSettings {
    InvokeSettings {
        timeout: Duration::from_millis(300),
        stream_timeout: Duration::from_millis(600),
        connect_timeout: Duration::from_millis(250),
        body_limit: 1024,
        idle_connections: 8,
    }
}

impl Proxy {
    /// As the account's root, who may do everything.
    async fn call(&self, scope: &Scope, invocation: Invocation) -> Result<Response<Body>, ApiError> {
        let root = Principal::Root {
            account: scope.account.clone(),
        };
        let authority = Authority::bare(root, isolarium_policy::question::Context::new());
        let granted = authorize(invocation, &authority, &[], &|_| ResourceSide::default()).unwrap();
        self.invoke(scope, granted).await
    }
}

/// A container that answers with what `answer` makes of the path's last request.
async fn bench<F, Fut>(answer: F) -> Bench
where
    F: Fn(Bytes) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let kept = seen.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answer, kept) = (answer.clone(), kept.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, kept) = (answer.clone(), kept.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let bytes = body.collect().await.unwrap().to_bytes();
                    kept.lock().unwrap().push((parts, bytes.clone()));
                    Ok::<_, Infallible>(answer(bytes).await)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    at(address, seen)
}

fn at(address: SocketAddr, seen: Seen) -> Bench {
    let dial = Arc::new(To {
        address,
        dialled: AtomicUsize::new(0),
    });
    let (fleets, store) = (
        Arc::new(Fleets::default()),
        Arc::new(MemoryState::new()) as Arc<dyn StateStore>,
    );
    let route = |name: &str, n: u8| VariantRoute {
        name: name.into(),
        weight: if n == 1 { 1.0 } else { 0.0 },
        targets: vec![Target::new(
            format!("w-{n:017x}").parse().unwrap(),
            format!("i-{n:017x}"),
        )],
        capture: None,
        most: None,
    };
    let variants = vec![route("blue", 1), route("green", 2)];
    fleets.publish(
        &Endpoint::key(&scope(), "Ep"),
        EndpointRoutes {
            asynchronous: false,
            shifted: None,
            name: "Ep".into(),
            variants,
        },
    );
    let proxy = Arc::new(Proxy::new(fleets.clone(), store.clone(), dial.clone(), settings()));
    Bench {
        proxy,
        fleets,
        store,
        dial,
        seen,
    }
}

fn answered(status: u16, text: &'static str) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/csv")
        .body(body::full(text))
        .unwrap()
}

fn invocation(headers: &[(&'static str, &'static str)]) -> Invocation {
    let headers = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    Invocation {
        endpoint_name: "Ep".into(),
        headers,
        body: Bytes::from_static(b"1,2,3"),
        streamed: false,
    }
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Proves: CC-50, CC-52, SM-52
#[tokio::test]
async fn the_contracts_headers_pass_and_all_others_are_stripped() {
    let bench = bench(|_| async {
        Response::builder()
            .header(CONTENT_TYPE, "application/json")
            .header(CUSTOM_ATTRIBUTES, "trace=9")
            .header("server", "model")
            .header("set-cookie", "a=b")
            .body(body::full("[1]"))
            .unwrap()
    })
    .await;
    let response = bench
        .proxy
        .call(
            &scope(),
            invocation(&[
                ("content-type", "text/csv"),
                ("accept", "application/json"),
                ("x-amzn-sagemaker-custom-attributes", "trace=1, color=blue"),
                ("x-amzn-sagemaker-inference-id", "id-7"),
                ("authorization", "AWS4-HMAC-SHA256 secret"),
                ("x-amz-security-token", "token"),
                ("cookie", "c=d"),
                ("x-forwarded-for", "192.0.2.1"),
            ]),
        )
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(response.headers()[CUSTOM_ATTRIBUTES], "trace=9");
    assert_eq!(response.headers()[INVOKED_VARIANT], "blue");
    assert!(!response.headers().contains_key("server") && !response.headers().contains_key("set-cookie"));
    assert_eq!(text(response).await, "[1]");
    let seen = bench.seen.lock().unwrap();
    let (parts, body) = &seen[0];
    assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/invocations"));
    assert_eq!(&body[..], b"1,2,3");
    let mut names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "content-length",
            "content-type",
            "host",
            "x-amzn-sagemaker-custom-attributes",
            "x-amzn-sagemaker-inference-id"
        ]
    );
    assert_eq!(parts.headers[CUSTOM_ATTRIBUTES], "trace=1, color=blue", "verbatim");
}

/// Proves: SM-50
#[tokio::test]
async fn a_target_variant_overrides_the_weights_and_an_unknown_one_is_refused() {
    let bench = bench(|_| async { answered(200, "") }).await;
    for (headers, want) in [
        (&[][..], "blue"),
        (&[("x-amzn-sagemaker-target-variant", "green")][..], "green"),
    ] {
        let response = bench.proxy.call(&scope(), invocation(headers)).await.unwrap();
        assert_eq!(response.headers()[INVOKED_VARIANT], want);
    }
    let error = bench
        .proxy
        .call(&scope(), invocation(&[("x-amzn-sagemaker-target-variant", "red")]))
        .await
        .unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("ValidationError", 400));
}

/// Proves: SM-51, SM-52
#[tokio::test]
async fn targets_that_do_not_exist_and_bad_attributes_are_refused_before_the_container() {
    let bench = bench(|_| async { answered(200, "") }).await;
    let long: &'static str = Box::leak("x".repeat(1025).into_boxed_str());
    for header in [
        ("x-amzn-sagemaker-target-model", "a.tar.gz"),
        ("x-amzn-sagemaker-target-container-hostname", "second"),
        ("x-amzn-sagemaker-inference-component", "c"),
        ("x-amzn-sagemaker-session-id", "NEW_SESSION"),
        ("x-amzn-sagemaker-custom-attributes", long),
    ] {
        let error = bench.proxy.call(&scope(), invocation(&[header])).await.unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.status),
            ("ValidationError", 400),
            "{header:?}"
        );
    }
    assert!(bench.seen.lock().unwrap().is_empty());
    bench.proxy.call(&scope(), invocation(&[])).await.unwrap();
    assert_eq!(bench.seen.lock().unwrap().len(), 1, "control");
}

/// Proves: SM-62, SM-58, CC-52
#[tokio::test]
async fn a_containers_error_is_a_model_error_with_its_status_and_body() {
    for (status, kind) in [
        (500, "server error (500)"),
        (400, "client error (400)"),
        (302, "server error (302)"),
    ] {
        let bench = bench(move |_| async move { answered(status, "went wrong") }).await;
        let error = bench.proxy.call(&scope(), invocation(&[])).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.status), ("ModelError", 424));
        assert_eq!(
            error.message,
            format!(
                "Received {kind} from primary with message \"went wrong\". See https://us-east-1.console.aws.amazon.com/cloudwatch/\
                 home?region=us-east-1#logEventViewer:group=/aws/sagemaker/Endpoints/Ep in account 123456789012 for more information."
            )
        );
        assert_eq!(error.members["OriginalStatusCode"], Document::Integer(status.into()));
        assert_eq!(error.members["OriginalMessage"], Document::String("went wrong".into()));
        let stream = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/Ep:log-stream:blue/i-00000000000000001";
        assert_eq!(error.members["LogStreamArn"], Document::String(stream.into()));
    }
}

/// Proves: SM-53, CC-51
#[tokio::test]
async fn a_container_that_does_not_answer_in_time_is_a_model_error() {
    let bench = bench(|body| async move {
        if body != "fast" {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        answered(200, "late")
    })
    .await;
    let error = bench.proxy.call(&scope(), invocation(&[])).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("ModelError", 424));
    assert!(error.message.starts_with(
        "Received server error (0) from primary with message \"Your invocation timed out while waiting for a response from \
         container primary."
    ));
    assert_eq!(error.members["OriginalStatusCode"], Document::Integer(0));
    let quick = Invocation {
        body: Bytes::from_static(b"fast"),
        ..invocation(&[])
    };
    assert!(bench.proxy.call(&scope(), quick).await.is_ok(), "control");
}

/// Proves: SM-58
#[tokio::test]
async fn a_container_that_cannot_be_reached_is_unavailable_and_one_that_hangs_up_a_model_error() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = at(closed, Seen::default())
        .proxy
        .call(&scope(), invocation(&[]))
        .await
        .unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("ServiceUnavailable", 503));

    let rude = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = rude.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = rude.accept().await.unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                .await;
        }
    });
    let error = at(address, Seen::default())
        .proxy
        .call(&scope(), invocation(&[]))
        .await
        .unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("ModelError", 424));
}

/// Proves: SM-54
#[tokio::test]
async fn an_answer_over_the_limit_is_a_model_error() {
    let sizes: [(&'static str, bool); 2] = [
        (Box::leak("y".repeat(1024).into_boxed_str()), true),
        (Box::leak("y".repeat(1025).into_boxed_str()), false),
    ];
    for (size, fits) in sizes {
        let bench = bench(move |_| async move { answered(200, size) }).await;
        assert_eq!(bench.proxy.call(&scope(), invocation(&[])).await.is_ok(), fits);
    }
}

/// Proves: SM-61, SM-57, SM-56
#[tokio::test]
async fn endpoints_that_are_missing_foreign_or_not_in_service_are_refused_by_name() {
    let bench = bench(|_| async { answered(200, "") }).await;
    let named = |name: &str| Invocation {
        endpoint_name: name.into(),
        ..invocation(&[])
    };
    assert!(bench.proxy.call(&scope(), named("Ep")).await.is_ok(), "control");
    let elsewhere = Scope {
        account: "210987654321".parse().unwrap(),
        ..scope()
    };
    for (scope, name) in [(scope(), "nope"), (scope(), "EP"), (elsewhere, "Ep")] {
        let error = bench.proxy.call(&scope, named(name)).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.status), ("ValidationError", 400));
        assert_eq!(
            error.message,
            format!("Endpoint {name} of account {} not found.", scope.account)
        );
    }
    bench
        .store
        .commit(
            Batch::default()
                .put(&Endpoint::key(&scope(), "young"), Expect::Absent, &creating())
                .unwrap(),
        )
        .unwrap();
    let error = bench.proxy.call(&scope(), named("young")).await.unwrap_err();
    assert_eq!(error.code, "ValidationError");
    assert!(error.message.contains("Creating"), "{}", error.message);
}

fn creating() -> Endpoint {
    Endpoint {
        name: "young".into(),
        arn: Arn::sagemaker(&scope(), "endpoint", "young"),
        created: Timestamp(0),
        modified: Timestamp(0),
        status: EndpointStatus::Creating,
        failure_reason: None,
        config_name: "c".into(),
        active: None,
        pending: None,
        retiring: Vec::new(),
        last_deployment_config: None,
        tags: Default::default(),
    }
}

/// Proves: CC-51
#[tokio::test]
async fn connections_are_kept_and_a_closed_one_is_replaced() {
    let bench = bench(|body| async move {
        let mut response = answered(200, "");
        if body == "bye" {
            response
                .headers_mut()
                .insert("connection", HeaderValue::from_static("close"));
        }
        response
    })
    .await;
    for _ in 0..5 {
        bench.proxy.call(&scope(), invocation(&[])).await.unwrap();
    }
    assert_eq!(bench.dial.dialled.load(Ordering::SeqCst), 1);
    let last = Invocation {
        body: Bytes::from_static(b"bye"),
        ..invocation(&[])
    };
    bench.proxy.call(&scope(), last).await.unwrap();
    bench.proxy.call(&scope(), invocation(&[])).await.unwrap();
    assert_eq!(bench.dial.dialled.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn concurrent_invocations_do_not_mix() {
    let bench = bench(|body| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Response::new(body::full(body))
    })
    .await;
    let calls = (0..50).map(|n| {
        let proxy = bench.proxy.clone();
        tokio::spawn(async move {
            let body = Bytes::from(format!("call {n}"));
            let call = Invocation {
                body: body.clone(),
                ..invocation(&[])
            };
            assert_eq!(
                text(proxy.call(&scope(), call).await.unwrap()).await.as_bytes(),
                &body[..]
            );
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    let picked = bench
        .fleets
        .pick(&Endpoint::key(&scope(), "Ep"), "Ep", None, 0)
        .unwrap();
    assert_eq!(picked.variant(), "blue", "guards are given back");
}

/// The events of a stream as (type, payload), read without knowing how they were written.
fn events(mut bytes: &[u8]) -> Vec<(String, String)> {
    let word =
        |at: usize, from: &[u8]| usize::try_from(u32::from_be_bytes(from[at..at + 4].try_into().unwrap())).unwrap();
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (total, head) = (word(0, bytes), word(4, bytes));
        let headers = String::from_utf8_lossy(&bytes[12..12 + head]).into_owned();
        let kind = ["PayloadPart", "ModelStreamError"]
            .into_iter()
            .find(|kind| headers.contains(kind))
            .unwrap();
        let payload = String::from_utf8_lossy(&bytes[12 + head..total - 4]).into_owned();
        found.push((kind.to_owned(), payload));
        bytes = &bytes[total..];
    }
    found
}

fn dripping(pieces: &'static [&'static str], pause: Duration, end: bool) -> Response<Body> {
    let drip = futures_util::stream::unfold(0, move |at| async move {
        if at > 0 {
            tokio::time::sleep(pause).await;
        }
        match pieces.get(at) {
            Some(piece) => Some((Ok(http_body::Frame::data(Bytes::from_static(piece.as_bytes()))), at + 1)),
            None if end => None,
            None => Some((Err("broken"), at + 1)),
        }
    });
    let mut response = Response::new(body::stream(http_body_util::StreamBody::new(drip)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Proves: CC-53, SM-53
#[tokio::test]
async fn each_chunk_of_a_streamed_answer_becomes_an_event_at_once() {
    let bench = bench(|_| async { dripping(&["one", "two"], Duration::from_millis(200), true) }).await;
    let call = Invocation {
        streamed: true,
        ..invocation(&[])
    };
    let started = std::time::Instant::now();
    let response = bench.proxy.call(&scope(), call).await.unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "application/vnd.amazon.eventstream");
    assert_eq!(response.headers()[STREAM_CONTENT_TYPE], "text/plain");
    assert_eq!(response.headers()[INVOKED_VARIANT], "blue");
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(
        started.elapsed() < Duration::from_millis(150),
        "before the second chunk was there"
    );
    assert_eq!(events(&first), [("PayloadPart".to_owned(), "one".to_owned())]);
    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!(events(&rest), [("PayloadPart".to_owned(), "two".to_owned())]);
}

/// Proves: SM-53
#[tokio::test]
async fn a_stream_that_breaks_or_never_ends_tells_so_inside_the_stream() {
    for (end, code) in [(false, "StreamBroken"), (true, "ModelInvocationTimeExceeded")] {
        let pause = if end {
            Duration::from_secs(5)
        } else {
            Duration::from_millis(10)
        };
        let bench = bench(move |_| async move { dripping(&["one"], pause, end) }).await;
        let call = Invocation {
            streamed: true,
            ..invocation(&[])
        };
        let response = bench.proxy.call(&scope(), call).await.unwrap();
        let all = events(&response.into_body().collect().await.unwrap().to_bytes());
        assert_eq!(all[0], ("PayloadPart".to_owned(), "one".to_owned()));
        assert!(all[1].0 == "ModelStreamError" && all[1].1.contains(code), "{all:?}");
    }
}

#[tokio::test]
async fn a_streamed_invocation_that_the_container_refuses_is_a_model_error() {
    let bench = bench(|_| async { answered(500, "no") }).await;
    let error = bench
        .proxy
        .call(
            &scope(),
            Invocation {
                streamed: true,
                ..invocation(&[])
            },
        )
        .await
        .unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("ModelError", 424));
}

/// A container that speaks bytes: each connection gets the next script, each request on it the next of its answers, and
/// then the connection is closed. Counts the requests.
async fn scripted(scripts: Vec<Vec<&'static [u8]>>) -> (Bench, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        for script in scripts {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in script {
                let mut request = [0; 4096];
                if stream.read(&mut request).await.unwrap() == 0 {
                    break;
                }
                count.fetch_add(1, Ordering::SeqCst);
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    (at(address, Seen::default()), asked)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Proves: CC-51
#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_no_invocation() {
    let (bench, asked) = scripted(vec![vec![OK], vec![OK, OK]]).await;
    for _ in 0..2 {
        let response = bench.proxy.call(&scope(), invocation(&[])).await.unwrap();
        assert_eq!(text(response).await, "ok");
        // Until the close has arrived here.
        while bench.proxy.pool.has_quiet() == Some(true) && bench.dial.dialled.load(Ordering::SeqCst) == 1 {
            tokio::task::yield_now().await;
        }
    }
    bench.proxy.call(&scope(), invocation(&[])).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 3, "none was sent twice");
    assert_eq!(
        bench.dial.dialled.load(Ordering::SeqCst),
        2,
        "control: an open one is used again"
    );
}

/// The runtime has one thread here, which waits for the close: it cannot have looked at the socket since.
#[tokio::test]
async fn a_close_is_seen_at_once() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = at(listener.local_addr().unwrap(), Seen::default());
    let (close, told) = std::sync::mpsc::channel::<()>();
    let container = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(OK).unwrap();
        told.recv().unwrap();
    });
    let response = bench.proxy.call(&scope(), invocation(&[])).await.unwrap();
    assert_eq!(text(response).await, "ok");
    assert_eq!(bench.proxy.pool.has_quiet(), Some(true), "control: it was kept");
    close.send(()).unwrap();
    container.join().unwrap();
    assert_eq!(bench.proxy.pool.has_quiet(), Some(false));
}

/// What one caller's answer left over is not the next caller's answer.
#[tokio::test]
async fn bytes_behind_an_answer_are_nobodys() {
    let forged = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    let (bench, _) = scripted(vec![vec![forged, OK], vec![OK]]).await;
    for _ in 0..2 {
        let response = bench.proxy.call(&scope(), invocation(&[])).await.unwrap();
        assert_eq!(text(response).await, "ok");
    }
    assert_eq!(bench.dial.dialled.load(Ordering::SeqCst), 2);
}

/// Proves: SM-58
#[tokio::test]
async fn an_answer_that_is_no_http_is_a_model_error() {
    let (bench, _) = scripted(vec![vec![b"SSH-2.0-OpenSSH\r\n\r\n"], vec![OK]]).await;
    let error = bench.proxy.call(&scope(), invocation(&[])).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.status), ("ModelError", 424));
    assert!(bench.proxy.call(&scope(), invocation(&[])).await.is_ok(), "control");
}

/// A container may refuse a body before it has read it, and one may answer while it reads: bodies of many socket
/// buffers cross in both directions.
#[tokio::test]
async fn an_answer_may_come_before_the_whole_request_was_taken() {
    let (bench, _) = scripted(vec![vec![
        b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nbig",
    ]])
    .await;
    let large = || Invocation {
        body: Bytes::from(vec![b'x'; 32 << 20]),
        ..invocation(&[])
    };
    let error = bench.proxy.call(&scope(), large()).await.unwrap_err();
    assert_eq!(error.members["OriginalStatusCode"], Document::Integer(413));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = at(listener.local_addr().unwrap(), Seen::default());
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut from, mut to) = stream.split();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 32 << 20);
        to.write_all(head.as_bytes()).await.unwrap();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let streamed = Invocation {
        streamed: true,
        ..large()
    };
    let response = echo.proxy.call(&scope(), streamed).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.len() > 32 << 20, "all of it, in events");
}

/// A socket in a container's network namespace keeps that alive, and with it the container's address. No request follows
/// here that could look after those kept.
#[tokio::test]
async fn a_kept_connection_is_closed_though_nobody_asks_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = at(listener.local_addr().unwrap(), Seen::default());
    let container = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        for _ in 0..2 {
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(OK).await.unwrap();
        }
        stream.read(&mut request).await.unwrap()
    });
    for _ in 0..2 {
        bench.proxy.call(&scope(), invocation(&[])).await.unwrap();
    }
    let closed = tokio::time::timeout(Duration::from_secs(30), container).await;
    assert_eq!(closed.expect("still open").unwrap(), 0);
    assert_eq!(bench.dial.dialled.load(Ordering::SeqCst), 1, "control: it was kept");
    assert_eq!(bench.proxy.pool.has_quiet(), None);
}

/// The container has always something to say, and the caller takes its time.
///
/// Proves: SM-53
#[tokio::test]
async fn a_stream_without_a_pause_ends_at_its_time_limit_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = at(listener.local_addr().unwrap(), Seen::default());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
    });
    let call = Invocation {
        streamed: true,
        ..invocation(&[])
    };
    let mut body = bench.proxy.call(&scope(), call).await.unwrap().into_body();
    let read = async {
        let mut last = Bytes::new();
        while let Some(frame) = body.frame().await {
            last = frame.unwrap().into_data().unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        last
    };
    let last = tokio::time::timeout(Duration::from_secs(30), read).await;
    let last = events(&last.expect("it goes on"));
    assert!(last[0].1.contains("ModelInvocationTimeExceeded"), "{last:?}");
}

/// Proves: SM-53
#[tokio::test]
async fn a_caller_that_stops_reading_holds_no_container_beyond_the_time_limit() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = at(listener.local_addr().unwrap(), Seen::default());
    let container = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
    });
    let call = Invocation {
        streamed: true,
        ..invocation(&[])
    };
    let mut body = bench.proxy.call(&scope(), call).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(events(&first)[0].0, "PayloadPart", "control: it streams");
    let closed = tokio::time::timeout(Duration::from_secs(30), container).await;
    closed.expect("still held").unwrap();
    let all = events(&body.collect().await.unwrap().to_bytes());
    assert!(all.last().unwrap().1.contains("ModelInvocationTimeExceeded"), "{all:?}");
}
