//! A proxy for clients whose endpoints are fixed: HTTPS by CONNECT, and S3's names by plain HTTP. The real names of the
//! services lead to this engine, whose authority vouches for them; everything else is refused and listed, so nothing that a
//! client does behind this proxy reaches anybody else. The proxy itself opens no connection.

pub mod refusals;
mod target;

use crate::http::body;
use crate::http::listen::{Answering, ConnectionLimits, Handler, Peer, protocol, tls_version};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use isolarium_model::Region;
use isolarium_model::time::Clock;
use refusals::{Reason, Refusals};
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use target::Target;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Answers what is meant for the engine; refuses the rest.
pub struct Proxy {
    /// The same door as the public port's: signatures and policies count as there.
    pub front: Arc<dyn Handler>,
    /// Certificates for the services' names.
    pub tls: Arc<rustls::ServerConfig>,
    pub regions: Vec<Region>,
    pub limits: ConnectionLimits,
    /// Open tunnels; [`Self::drained`] takes all of them.
    pub tunnels: Arc<Semaphore>,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
    pub refusals: Arc<Refusals>,
    pub clock: Arc<dyn Clock>,
}

impl Proxy {
    /// Waits until the server stops and no tunnel is open any more.
    pub async fn drained(tunnels: Arc<Semaphore>, all: usize, mut stop: watch::Receiver<bool>) {
        // A stop that cannot come any more has come.
        let _ = stop.wait_for(|stop| *stop).await;
        let _ = tunnels.acquire_many(u32::try_from(all).unwrap_or(u32::MAX)).await;
    }

    fn refuse(&self, uri: &Uri, reason: Reason) -> Response<body::Body> {
        let target = target::shown(uri);
        if self.refusals.note(&target, reason, self.clock.now()) {
            tracing::warn!(%target, reason = reason.text(), "the proxy refused a client; isolarium proxy --refusals lists them");
        }
        refusal(&target, reason)
    }

    fn connect(self: Arc<Self>, peer: Peer, mut request: Request<Incoming>) -> Response<body::Body> {
        let target = match target::of_connect(request.uri(), &self.regions) {
            Ok(target) => target,
            Err(reason) => return self.refuse(request.uri(), reason),
        };
        let Ok(held) = self.tunnels.clone().try_acquire_owned() else {
            return self.refuse(request.uri(), Reason::Busy);
        };
        let uri = request.uri().clone();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let _held = held;
            let mut stop = self.stop.clone();
            let begun = tokio::select! {
                begun = self.begin(peer, upgrade) => begun,
                _ = stop.wait_for(|stop| *stop) => None,
            };
            if let Some(stream) = begun {
                self.tunnel(peer, &uri, &target, stream).await;
            }
        });
        Response::new(body::empty())
    }

    /// TLS, which is all that a tunnel is for. `None`: it did not begin, or not in time.
    async fn begin(&self, peer: Peer, upgrade: OnUpgrade) -> Option<TlsStream<TokioIo<Upgraded>>> {
        let accepting = async {
            let inner = upgrade.await.map_err(io::Error::other)?;
            TlsAcceptor::from(self.tls.clone()).accept(TokioIo::new(inner)).await
        };
        match tokio::time::timeout(self.limits.head_timeout, accepting).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(client = %peer.address, %error, "TLS in a tunnel failed");
                None
            }
            Err(_) => {
                tracing::debug!(client = %peer.address, "TLS in a tunnel took too long");
                None
            }
        }
    }

    /// The front door, behind TLS under the tunnel's own name.
    async fn tunnel(&self, peer: Peer, uri: &Uri, target: &Target, stream: TlsStream<TokioIo<Upgraded>>) {
        let session = stream.get_ref().1;
        if session
            .server_name()
            .is_some_and(|name| !name.eq_ignore_ascii_case(&target.0))
        {
            // The certificate was for that other name, so the client may think it is there: it is told nothing more.
            drop(self.refuse(uri, Reason::Sni));
            return;
        }
        let version = session.protocol_version().and_then(tls_version);
        let peer = Peer { secure: true, ..peer };
        let front = self.front.clone();
        let answers = service_fn(move |mut request: Request<Incoming>| {
            if let Some(version) = version {
                request.extensions_mut().insert(version);
            }
            let answer = front.clone().handle(peer, request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let protocol: auto::Builder<TokioExecutor> = protocol(&self.limits);
        let mut connection = pin!(protocol.serve_connection_with_upgrades(TokioIo::new(stream), answers));
        let mut stop = self.stop.clone();
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(client = %peer.address, %error, "a tunnel ended");
        }
    }

    /// Plain HTTP with a whole URL: to the front door as if it had come to S3's own address.
    fn plain(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answering {
        let target = match target::of_plain(request.uri(), &self.regions) {
            Ok(target) => target,
            Err(reason) => {
                let answer = self.refuse(request.uri(), reason);
                return Box::pin(async move { answer });
            }
        };
        match inward(request, &target) {
            Some(request) => self.front.clone().handle(peer, request),
            None => Box::pin(async { refusal("", Reason::Malformed) }),
        }
    }
}

/// Headers between a client and its proxy alone.
const HOP: [HeaderName; 2] = [
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authorization"),
];

/// The request as its server expects it. `None`: the Host header says something else than the URL (the URL counts, but
/// whoever signs signs the header).
fn inward(mut request: Request<Incoming>, target: &Target) -> Option<Request<Incoming>> {
    let path = request.uri().path_and_query()?.clone();
    let mut hosts = request.headers().get_all(HOST).iter();
    let named = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        let name = text.strip_suffix(":80").unwrap_or(text);
        name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case(&target.0)
    };
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if named(host) => {}
        (None, _) => {
            let host = HeaderValue::from_str(&target.0).ok()?;
            request.headers_mut().insert(HOST, host);
        }
        _ => return None,
    }
    *request.uri_mut() = Uri::from(path);
    for name in &HOP {
        request.headers_mut().remove(name);
    }
    Some(request)
}

/// The reason in both places where clients look: the status line is all that most tell of a CONNECT.
fn refusal(target: &str, reason: Reason) -> Response<body::Body> {
    let text = match reason {
        Reason::Malformed => {
            "isolarium proxy: this is a proxy; it takes CONNECT name:443 and http://BUCKET.s3.REGION.amazonaws.com"
                .to_owned()
        }
        _ => format!("isolarium proxy: {target} is refused: {}", reason.text()),
    };
    let status = match reason {
        Reason::Malformed => StatusCode::BAD_REQUEST,
        Reason::Busy => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    };
    let mut response = Response::new(body::full(format!("{text}\n")));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    if let Ok(phrase) = hyper::ext::ReasonPhrase::try_from(text.into_bytes()) {
        response.extensions_mut().insert(phrase);
    }
    response
}

impl Handler for Proxy {
    fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answering {
        // A page in a browser of this machine reaches the port too, but cannot make it a proxy: it has no whole URL to send,
        // and what is sent in another form is refused.
        if request.version() == Version::HTTP_2 {
            let answer = self.refuse(request.uri(), Reason::Malformed);
            return Box::pin(async move { answer });
        }
        match *request.method() {
            Method::CONNECT => {
                let answer = self.connect(peer, request);
                Box::pin(async move { answer })
            }
            _ => self.plain(peer, request),
        }
    }
}

/// Tunnels at one time.
pub const TUNNELS: usize = 1024;
