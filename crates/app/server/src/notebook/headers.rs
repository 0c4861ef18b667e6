//! What passes of headers between a visitor and a notebook server.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SET_COOKIE, STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};

/// Between two neighbours, and no further.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The engine's own word about where a request comes from: the visitor's is dropped.
const ABOUT_VISITOR: [&str; 3] = ["forwarded", "x-real-ip", "x-amz-security-token"];

/// What would speak for more than the server's own host, or for the engine.
const NOT_THE_SERVERS: [&str; 4] = ["alt-svc", "clear-site-data", "x-amzn-requestid", "x-amz-request-id"];

/// The names that `Connection` says are for the next neighbour alone.
fn named(headers: &HeaderMap) -> Vec<String> {
    tokens(headers, &CONNECTION)
}

/// The words of a header that lists some, in lower case.
fn tokens(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(','));
    words.map(|word| word.trim().to_ascii_lowercase()).collect()
}

fn end_to_end(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let named = named(headers);
    headers
        .iter()
        .filter(move |(name, _)| !HOP_BY_HOP.contains(name) && !named.iter().any(|one| one == name.as_str()))
}

/// The visitor's headers for the server: no word of the session, none of the engine's own credentials.
pub(super) fn to_server(headers: &HeaderMap, session: &str) -> HeaderMap {
    let mut all = HeaderMap::new();
    let mut cookies: Vec<&str> = Vec::new();
    for (name, value) in end_to_end(headers) {
        let text = name.as_str();
        if *name == COOKIE {
            let pairs = value.to_str().into_iter().flat_map(|text| text.split(';'));
            cookies.extend(pairs.map(str::trim).filter(|pair| name_of(pair) != session));
            continue;
        }
        let signed = *name == AUTHORIZATION && value.as_bytes().starts_with(b"AWS");
        // The length is told anew by whoever sends the body, the host by whoever knows it.
        let own = [HOST, CONTENT_LENGTH, EXPECT].contains(name);
        let about = text.starts_with("x-forwarded-") || ABOUT_VISITOR.contains(&text);
        if !signed && !own && !about {
            all.append(name.clone(), value.clone());
        }
    }
    let cookies = cookies.join("; ");
    if let (false, Ok(value)) = (cookies.is_empty(), HeaderValue::from_str(&cookies)) {
        all.insert(COOKIE, value);
    }
    all
}

/// The server's headers for the visitor: cookies for its own host alone, and never the session's.
pub(super) fn to_visitor(headers: &HeaderMap, session: &str) -> HeaderMap {
    let mut all = HeaderMap::new();
    for (name, value) in end_to_end(headers) {
        if *name == SET_COOKIE {
            if let Some(cookie) = own_cookie(value, session) {
                all.append(SET_COOKIE, cookie);
            }
        } else if *name != STRICT_TRANSPORT_SECURITY && !NOT_THE_SERVERS.contains(&name.as_str()) {
            all.append(name.clone(), value.clone());
        }
    }
    all
}

/// A cookie without its domain: the browser then keeps it for the host that set it. `None`: one that is not the server's.
fn own_cookie(value: &HeaderValue, session: &str) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let mut parts = text.split(';');
    let pair = parts.next()?;
    if name_of(pair).eq_ignore_ascii_case(session) {
        return None;
    }
    let kept = parts.filter(|part| !name_of(part).eq_ignore_ascii_case("domain"));
    let cookie: Vec<&str> = std::iter::once(pair).chain(kept).collect();
    HeaderValue::from_str(&cookie.join(";")).ok()
}

fn name_of(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default().trim()
}

/// The value of a cookie; the first one counts.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// Whether a request asks for a WebSocket.
pub(super) fn is_websocket<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11 && *request.method() == Method::GET && asks(request.headers())
}

fn asks(headers: &HeaderMap) -> bool {
    tokens(headers, &CONNECTION).iter().any(|word| word == "upgrade")
        && tokens(headers, &UPGRADE).iter().any(|word| word == "websocket")
}

/// Whether an answer that switches protocols switches to WebSocket.
pub(super) fn takes_websocket(headers: &HeaderMap) -> bool {
    asks(headers)
}

/// Asks the server for what the visitor asked for.
pub(super) fn ask_websocket(to: &mut HeaderMap) {
    to.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    to.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // The rest of the handshake is end to end, and was passed on.
}

/// The server's part of the handshake.
pub(super) fn of_handshake(headers: &HeaderMap) -> HeaderMap {
    let mut all = HeaderMap::new();
    all.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    all.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let own = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("sec-websocket-"));
    for (name, value) in own {
        all.append(name.clone(), value.clone());
    }
    all
}
