//! Connections: accepted, bounded, HTTP/1.1 or HTTP/2, plain or TLS, and drained when the server stops.

use super::body::Body;
use super::local::{is_local, unpace};
use crate::lanes::Lanes;
use crate::resolver::shares::Shares;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use isolarium_services::s3::TlsVersion;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

#[cfg(test)]
mod tests;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    /// The connection is TLS.
    pub secure: bool,
}

/// An answer in the making.
pub type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Whatever answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped when the client goes away.
    fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answering;
}

/// Limits of one listener's connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Request line and headers, bytes. Heads up to twice as long are read, so that the handler can refuse them in the
    /// language of the request; longer ones get a bare status.
    pub head: usize,
    pub head_timeout: Duration,
    /// Connections at one time.
    pub connections: usize,
    /// Connections of one client address; more are closed at once. `None`: as many as there are.
    pub each: Option<usize>,
}

/// hyper asks for at least this much.
const LEAST_HEAD: usize = 8192;
/// Streams at one time on one HTTP/2 connection.
const STREAMS: u32 = 256;
/// Pause after the operating system refused a connection (out of descriptors): the ones that exist go on.
const PAUSE: Duration = Duration::from_millis(50);

/// The version in the words of `s3:TlsVersion`; the listener speaks no other.
pub(crate) fn tls_version(negotiated: rustls::ProtocolVersion) -> Option<TlsVersion> {
    match negotiated {
        rustls::ProtocolVersion::TLSv1_2 => Some(TlsVersion("1.2")),
        rustls::ProtocolVersion::TLSv1_3 => Some(TlsVersion("1.3")),
        _ => None,
    }
}

/// One listening socket.
pub struct Listener {
    pub socket: TcpListener,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub handler: Arc<dyn Handler>,
    pub limits: ConnectionLimits,
    /// Where connections are served; `None` for the runtime that accepts them.
    pub lanes: Option<Arc<Lanes>>,
}

impl Listener {
    /// Accepts until `stop` turns true, then waits for the running requests; connections that are idle close at once.
    /// The caller bounds the wait.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(self.limits.connections));
        let shares = self.limits.each.map(Shares::of);
        let acceptor = self.tls.clone().map(TlsAcceptor::from);
        let protocol = Arc::new(protocol(&self.limits));
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&permits) => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some((stream, address, permit)) = accepted else {
                continue;
            };
            let peer = Peer {
                address: address.ip().to_canonical(),
                secure: acceptor.is_some(),
            };
            let share = shares.as_ref().map(|shares| shares.take(peer.address));
            if matches!(share, Some(None)) {
                // Its neighbours are served all the same.
                continue;
            }
            let (protocol, handler, watcher) = (protocol.clone(), self.handler.clone(), graceful.watcher());
            let (acceptor, patience) = (acceptor.clone(), self.limits.head_timeout);
            let serving = move |stream: TcpStream| async move {
                let _held = (permit, share);
                let answers = |version: Option<TlsVersion>| {
                    service_fn(move |mut request: Request<Incoming>| {
                        if let Some(version) = version {
                            request.extensions_mut().insert(version);
                        }
                        let answer = handler.clone().handle(peer, request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    })
                };
                let ended = match acceptor {
                    None => {
                        let (io, answers) = (TokioIo::new(stream), answers(None));
                        watcher
                            .watch(protocol.serve_connection_with_upgrades(io, answers).into_owned())
                            .await
                    }
                    Some(acceptor) => match tokio::time::timeout(patience, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let version = stream.get_ref().1.protocol_version().and_then(tls_version);
                            let (io, answers) = (TokioIo::new(stream), answers(version));
                            watcher
                                .watch(protocol.serve_connection_with_upgrades(io, answers).into_owned())
                                .await
                        }
                        Ok(Err(error)) => Err(error.into()),
                        Err(late) => Err(late.into()),
                    },
                };
                if let Err(error) = ended {
                    tracing::debug!(client = %peer.address, %error, "a connection ended");
                }
            };
            match &self.lanes {
                None => drop(tokio::spawn(serving(stream))),
                // The socket is watched by the runtime of its lane alone.
                Some(lanes) => match stream.into_std() {
                    Ok(stream) => lanes.spawn(move || async move {
                        match TcpStream::from_std(stream) {
                            Ok(stream) => serving(stream).await,
                            Err(error) => tracing::warn!(%error, "a connection could not be taken over"),
                        }
                    }),
                    Err(error) => tracing::warn!(%error, "a connection could not be handed over"),
                },
            }
        }
        drop(self.socket);
        graceful.shutdown().await;
    }

    async fn accept(
        &self,
        permits: &Arc<Semaphore>,
    ) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let permit = permits.clone().acquire_owned().await.ok()?;
        match self.socket.accept().await {
            Ok((stream, address)) => {
                // Answers are small and written at once; waiting to fill a packet only costs time.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY was refused");
                }
                if stream.local_addr().is_ok_and(|own| is_local(own, address)) {
                    unpace(&stream);
                }
                Some((stream, address, permit))
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                None
            }
        }
    }
}

/// How connections with these limits are served.
pub(crate) fn protocol(limits: &ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head = limits.head.max(LEAST_HEAD).saturating_mul(2);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    builder
}
