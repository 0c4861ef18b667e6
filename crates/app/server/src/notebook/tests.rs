use super::*;
use http::header::{CONNECTION, COOKIE};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for (name, value) in fields {
        all.append(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    all
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let mut all: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    all.sort();
    all
}

/// Proves: SM-48
#[test]
fn a_server_sees_neither_the_session_nor_what_is_between_neighbours() {
    let came = map(&[
        ("host", "lab.notebook.us-east-1.sagemaker.aws"),
        ("cookie", "a=1; isolarium-notebook=secret; b=2"),
        ("cookie", "isolarium-notebook=other"),
        ("connection", "keep-alive, X-Hop"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("content-length", "3"),
        ("upgrade", "h2c"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=AKIA"),
        ("x-amz-security-token", "token"),
        ("x-forwarded-for", "9.9.9.9"),
        ("forwarded", "for=9.9.9.9"),
        ("x-xsrftoken", "kept"),
        ("accept", "a"),
        ("accept", "b"),
    ]);
    assert_eq!(
        shown(&headers::to_server(&came, COOKIE_NAME)),
        ["accept: a", "accept: b", "cookie: a=1; b=2", "x-xsrftoken: kept"]
    );
    let token = map(&[("authorization", "token mine")]);
    assert_eq!(
        shown(&headers::to_server(&token, COOKIE_NAME)).len(),
        1,
        "control: the server's own passes"
    );
    assert_eq!(headers::cookie(&came, COOKIE_NAME), Some("secret"));
    let only = map(&[(COOKIE.as_str(), "isolarium-notebook=secret")]);
    assert!(headers::to_server(&only, COOKIE_NAME).is_empty());
}

const COOKIE_NAME: &str = super::COOKIE;

/// Proves: SM-48
#[test]
fn a_server_sets_cookies_for_its_own_host_alone() {
    let said = map(&[
        ("set-cookie", "a=1; Domain=.sagemaker.aws; Path=/; HttpOnly"),
        ("set-cookie", "b=2; dOmAiN = localhost"),
        ("set-cookie", " Isolarium-Notebook = stolen; Path=/"),
        ("set-cookie", "plain=3"),
        ("clear-site-data", "\"*\""),
        ("strict-transport-security", "max-age=1; includeSubDomains"),
        ("alt-svc", "h3=\":1\""),
        ("x-amzn-requestid", "forged"),
        ("connection", "close"),
        ("content-type", "text/html"),
    ]);
    assert_eq!(
        shown(&headers::to_visitor(&said, COOKIE_NAME)),
        [
            "content-type: text/html",
            "set-cookie: a=1; Path=/; HttpOnly",
            "set-cookie: b=2",
            "set-cookie: plain=3"
        ]
    );
}

#[test]
fn a_websocket_is_asked_for_with_both_words() {
    let ask = |fields: &[(&str, &str)]| {
        let mut request = Request::new(());
        *request.headers_mut() = map(fields);
        headers::is_websocket(&request)
    };
    assert!(ask(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]));
    assert!(!ask(&[("connection", "keep-alive"), ("upgrade", "websocket")]));
    assert!(!ask(&[("connection", "upgrade"), ("upgrade", "h2c")]));
    let answered = map(&[
        ("sec-websocket-accept", "x"),
        ("set-cookie", "a=1"),
        ("upgrade", "other"),
    ]);
    assert_eq!(
        shown(&headers::of_handshake(&answered)),
        ["connection: upgrade", "sec-websocket-accept: x", "upgrade: websocket"]
    );
    assert!(!headers::takes_websocket(&answered));
    assert!(headers::of_handshake(&answered).contains_key(CONNECTION));
}

/// Proves: SM-48
#[tokio::test]
async fn nothing_passes_in_either_direction_once_the_right_is_gone() {
    // Left over: how often the visitor is still welcome.
    for (allowed, by_server) in [(0, false), (1, false), (1, true)] {
        let (mut visitor, outer) = duplex(64);
        let (mut server, inner) = duplex(64);
        let left = Arc::new(AtomicUsize::new(allowed));
        let own = left.clone();
        let check = move || {
            let welcome = own.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            welcome.map_err(|_| Unwelcome::Denied("no".into()))
        };
        let relayed = tokio::spawn(socket::relay(outer, inner, check));
        let mut room = [0; 16];
        if allowed == 1 {
            visitor.write_all(b"first").await.unwrap();
            let length = server.read(&mut room).await.unwrap();
            assert_eq!(&room[..length], b"first", "control: it passes while it is allowed");
        }
        let (from, to) = if by_server {
            (&mut server, &mut visitor)
        } else {
            (&mut visitor, &mut server)
        };
        from.write_all(b"second").await.unwrap();
        assert_eq!(to.read(&mut room).await.unwrap(), 0, "ended, and nothing of it arrived");
        relayed.await.unwrap();
        assert_eq!(left.load(Ordering::SeqCst), 0);
    }
}
