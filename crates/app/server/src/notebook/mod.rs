//! The way from a browser to a notebook instance's server (SM-47, SM-48, PL-17, PL-18).
//!
//! Every instance has a host name of its own, so that browsers keep its pages and cookies apart from the API's and from those
//! of other instances. A presigned URL is opened once and becomes a session in a cookie. Before each request, and before each
//! piece of a WebSocket's traffic in either direction, the maker of the URL is authorized anew as if it made the URL from
//! where the visitor is, and the container is looked up again: what was taken away ends there. Requests go to one port of
//! that container alone, over a connection made inside its network namespace.

mod headers;
mod socket;

#[cfg(test)]
mod tests;

use crate::http::body::{self, Body};
use crate::http::door::{Engine, Visit};
use crate::http::receive::Unstalled;
use crate::http::route;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, LOCATION, ORIGIN, REFERRER_POLICY, SET_COOKIE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use isolarium_model::Scope;
use isolarium_runtime::Dial;
use isolarium_services::audit::{self, Ended, Inquiry};
use isolarium_services::platform::notebooks::NotebookSettings;
use isolarium_services::sagemaker::notebook_session::{self as session, ACTION, NotebookSession, Unwelcome};
use isolarium_services::{Caller, Source};
use isolarium_store::Keep;
use isolarium_wire::ApiError;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// WebSockets to notebooks at one time.
pub const MOST_SOCKETS: usize = 1024;

/// Name of the cookie that holds a session's secret.
const COOKIE: &str = "isolarium-notebook";

/// Largest head of a notebook server's answer, bytes.
const HEAD: usize = 64 << 10;

/// The part of the engine that answers for notebook instances.
pub struct NotebookPart {
    pub engine: Arc<Engine>,
    pub dial: Arc<dyn Dial>,
    pub settings: NotebookSettings,
    /// Where notebook servers listen.
    pub port: u16,
    pub connect_timeout: Duration,
    /// Longest pause within a request's body.
    pub pause: Duration,
    /// Room for WebSockets, which outlive their requests.
    pub sockets: Arc<Semaphore>,
}

/// Why a request is not passed on.
#[derive(Debug)]
enum Refusal {
    Unwelcome(Unwelcome),
    /// With words for the visitor.
    Plain(StatusCode, &'static str),
}

impl From<Unwelcome> for Refusal {
    fn from(error: Unwelcome) -> Self {
        Self::Unwelcome(error)
    }
}

/// One who has a session, or a URL to open.
struct Visitor {
    engine: Arc<Engine>,
    scope: Scope,
    session: NotebookSession,
    source: Source,
    user_agent: String,
    request_id: String,
}

impl Visitor {
    /// The maker of the URL, as if it asked from where the visitor is.
    fn caller(&self) -> Caller {
        Caller {
            principal: self.session.principal.clone(),
            scope: self.scope.clone(),
            source: self.source.clone(),
            session: self.session.session.clone(),
            request_id: self.request_id.clone(),
            user_agent: self.user_agent.clone(),
            inquiry: Inquiry::signed(None),
        }
    }

    /// Asks again whether the visitor may be here: which container it is at. Reads a record or two.
    fn check(&self) -> Result<isolarium_model::WorkloadId, Unwelcome> {
        let caller = self.caller();
        let checked = self
            .engine
            .with_ctx(&caller, |ctx| session::admitted(ctx, &self.session));
        if let Err(Unwelcome::Denied(text)) = &checked {
            // The trail is told, and nobody waits for it: the visitor is refused either way.
            let error = ApiError::client("AccessDeniedException", text.clone());
            let (source, now) = (audit::source("sagemaker"), self.engine.clock.now());
            let event = audit::of_request(&caller, source, ACTION, Ended::with(&error), now);
            drop(self.engine.audit.submit(event, Keep::Refusal));
        }
        checked
    }
}

impl NotebookPart {
    /// The instance that a request's host name stands for.
    pub fn named(&self, parts: &Parts) -> Option<(Scope, String)> {
        self.settings.named(route::host(parts)?)
    }

    /// Answers a request to an instance's host name.
    pub async fn answer(
        self: Arc<Self>,
        scope: Scope,
        name: String,
        visit: Visit,
        request: Request<Incoming>,
    ) -> Response<Body> {
        match self.enter(scope, name, visit, request).await {
            Ok(response) => response,
            Err(refusal) => page(refusal),
        }
    }

    async fn enter(
        &self,
        scope: Scope,
        name: String,
        visit: Visit,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Refusal::Plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "This method is not passed on.",
            ));
        }
        let (store, now) = (self.engine.store.as_ref(), self.engine.clock.now());
        let agent = request.headers().get(USER_AGENT);
        let visitor = |session| Visitor {
            engine: self.engine.clone(),
            scope: scope.clone(),
            session,
            source: visit.source.clone(),
            user_agent: agent
                .and_then(|agent| agent.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            request_id: visit.request_id.clone(),
        };
        if let Some(token) = parameter(request.uri().query(), "authToken") {
            let url = session::known(store, now, &scope, &name, token, false)?;
            let opening = visitor(url.clone());
            opening.check()?;
            let caller = opening.caller();
            let opened = self.engine.with_ctx(&caller, |ctx| session::open(ctx, token, &url));
            let (secret, lasts) = opened?;
            return Ok(welcome(&secret, lasts, &visit, request.uri().query()));
        }
        let secret = headers::cookie(request.headers(), COOKIE).ok_or(Unwelcome::Unknown)?;
        let session = session::known(store, now, &scope, &name, secret, true)?;
        same_origin(&request)?;
        let visitor = visitor(session);
        let workload = visitor.check()?;
        let socket = headers::is_websocket(&request);
        let permit = match socket.then(|| self.sockets.clone().try_acquire_owned()) {
            Some(Err(_)) => {
                return Err(Refusal::Plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Too many WebSockets are open.",
                ));
            }
            Some(Ok(permit)) => Some(permit),
            None => None,
        };
        let stream = self.connect(workload).await?;
        let mut request = request;
        let upgrade = socket.then(|| hyper::upgrade::on(&mut request));
        let outgoing = self.outgoing(request, &visit, socket)?;
        let broken = |error: hyper::Error| {
            tracing::info!(notebook = %name, %error, "a notebook server broke off a request");
            Refusal::Plain(StatusCode::BAD_GATEWAY, "The notebook server gave no answer.")
        };
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(HEAD);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the answer's body, or when that is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a notebook server ended");
            }
        });
        let mut answer = sender.send_request(outgoing).await.map_err(broken)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (mut head, rest) = answer.into_parts();
            head.headers = headers::to_visitor(&head.headers, COOKIE);
            head.extensions.clear();
            head.version = Version::HTTP_11;
            return Ok(Response::from_parts(head, body::stream(rest)));
        }
        let (Some(upgrade), Some(permit), true) = (upgrade, permit, headers::takes_websocket(answer.headers())) else {
            return Err(Refusal::Plain(
                StatusCode::BAD_GATEWAY,
                "The notebook server changed to a protocol that nobody asked for.",
            ));
        };
        let inner = hyper::upgrade::on(&mut answer);
        let mut switched = Response::new(body::empty());
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switched.headers_mut() = headers::of_handshake(answer.headers());
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::try_join!(upgrade, inner) {
                Ok((outer, inner)) => socket::relay(TokioIo::new(outer), TokioIo::new(inner), || visitor.check()).await,
                Err(error) => tracing::debug!(%error, "a WebSocket was not taken up"),
            }
        });
        Ok(switched)
    }

    /// A connection to the server, made inside the container's network namespace.
    async fn connect(&self, workload: isolarium_model::WorkloadId) -> Result<TcpStream, Refusal> {
        let (dial, port, timeout) = (self.dial.clone(), self.port, self.connect_timeout);
        let away = || Refusal::Plain(StatusCode::BAD_GATEWAY, "The notebook server cannot be reached.");
        let dialled = tokio::task::spawn_blocking(move || dial.dial(&workload, port, timeout));
        let socket = match dialled.await {
            Ok(Ok(socket)) => std::net::TcpStream::from(socket),
            Ok(Err(error)) => {
                tracing::info!(%error, "a notebook server cannot be reached");
                return Err(away());
            }
            Err(error) => {
                tracing::error!(%error, "a dial failed");
                return Err(away());
            }
        };
        let stream = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
        stream.map_err(|error| {
            tracing::error!(%error, "a connection to a notebook server cannot be used");
            away()
        })
    }

    /// What the server is asked: the visitor's request without what is between the visitor and the engine.
    fn outgoing(&self, request: Request<Incoming>, visit: &Visit, socket: bool) -> Result<Request<Body>, Refusal> {
        let bad = || Refusal::Plain(StatusCode::BAD_REQUEST, "The request cannot be passed on.");
        let (parts, incoming) = request.into_parts();
        let host = authority(&parts).ok_or_else(bad)?;
        let mut all = headers::to_server(&parts.headers, COOKIE);
        all.insert(HOST, host.clone());
        let scheme = if visit.peer.secure { "https" } else { "http" };
        let peer = HeaderValue::from_str(&visit.peer.address.to_string()).map_err(|_| bad())?;
        all.insert("x-forwarded-for", peer);
        all.insert("x-forwarded-proto", HeaderValue::from_static(scheme));
        all.insert("x-forwarded-host", host);
        if socket {
            headers::ask_websocket(&mut all);
        }
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        // An absolute target named this host, or it would not be here; the server gets the path alone.
        let uri = target.parse::<http::Uri>().map_err(|_| bad())?;
        let mut outgoing = Request::new(body::stream(Unstalled::new(incoming, self.pause)));
        *outgoing.method_mut() = parts.method;
        *outgoing.uri_mut() = uri;
        *outgoing.headers_mut() = all;
        Ok(outgoing)
    }
}

/// The host with its port as the visitor wrote it.
fn authority(parts: &Parts) -> Option<HeaderValue> {
    match parts.headers.get(HOST) {
        Some(host) => Some(host.clone()),
        None => HeaderValue::from_str(parts.uri.authority()?.as_str()).ok(),
    }
}

/// A parameter of a query; its value is taken as it is written, for what is looked for needs no escaping.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// What another site's page makes a browser do is not the visitor's own doing: only plain navigation comes from elsewhere.
fn same_origin(request: &Request<Incoming>) -> Result<(), Refusal> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads && !headers::is_websocket(request) {
        return Ok(());
    }
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str().as_bytes()));
    let own = |origin: &HeaderValue| {
        let origin = origin.as_bytes();
        let named = origin
            .strip_prefix(b"https://")
            .or_else(|| origin.strip_prefix(b"http://"));
        named.is_some_and(|named| host.is_some_and(|host| named.eq_ignore_ascii_case(host)))
    };
    // Programs send none; browsers do with all that could change something.
    if request.headers().get_all(ORIGIN).iter().all(own) {
        Ok(())
    } else {
        Err(Refusal::Plain(
            StatusCode::FORBIDDEN,
            "This request comes from another site.",
        ))
    }
}

/// The answer to a URL that was opened: the cookie, and the way to the notebook without the token.
fn welcome(secret: &str, lasts: Duration, visit: &Visit, query: Option<&str>) -> Response<Body> {
    let secure = if visit.peer.secure { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE}={secret}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
        lasts.as_secs()
    );
    // Nothing of the request decides where it leads, but for AWS's way to ask for JupyterLab.
    let to = if parameter(query, "view") == Some("lab") {
        "/lab"
    } else {
        "/"
    };
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static(to));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        headers.insert(SET_COOKIE, cookie);
    }
    response
}

/// A refusal as text.
fn page(refusal: Refusal) -> Response<Body> {
    let (status, text) = match refusal {
        Refusal::Plain(status, text) => (status, text.to_owned()),
        Refusal::Unwelcome(Unwelcome::Unknown) => (
            StatusCode::FORBIDDEN,
            "This link or session is not valid any more. Ask for a new presigned URL.".to_owned(),
        ),
        Refusal::Unwelcome(Unwelcome::Stopped) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The notebook instance is not in service, or was started anew. Ask for a new presigned URL.".to_owned(),
        ),
        Refusal::Unwelcome(Unwelcome::Denied(text)) => (StatusCode::FORBIDDEN, text),
        Refusal::Unwelcome(error @ Unwelcome::Engine(_)) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a notebook's visitor cannot be checked"
            );
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "The engine could not check this session.".to_owned(),
            )
        }
    };
    let mut response = Response::new(body::full(format!("{text}\n")));
    *response.status_mut() = status;
    let mut all = HeaderMap::new();
    all.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    all.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    all.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    *response.headers_mut() = all;
    response
}
