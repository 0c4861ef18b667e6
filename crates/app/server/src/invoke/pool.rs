//! Kept connections to containers, made inside their namespaces (CC-51, CC-88).

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use isolarium_model::WorkloadId;
use isolarium_runtime::Dial;
use isolarium_runtime::executor::ExecutorError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Idle connections older than this are closed: common servers close theirs after some seconds, and a request that
/// meets such a close cannot be repeated safely.
const LONGEST_IDLE: Duration = Duration::from_secs(1);
/// How often workloads without fresh connections are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

type Sender = SendRequest<Full<Bytes>>;

/// Why a request was not answered.
#[derive(Debug)]
pub(super) enum SendError {
    /// It was not sent: no connection.
    Connect(ConnectError),
    /// It may have been sent, and no answer came.
    Broken(hyper::Error),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("the container does not accept connections")]
    Dial(#[source] ExecutorError),
    #[error("the connection cannot be used")]
    Adopt(#[source] std::io::Error),
    #[error("the connection broke before a request")]
    Handshake(#[source] hyper::Error),
}

/// A connection on loan.
pub(super) struct Connection(Sender);

struct Kept {
    sender: Sender,
    since: Instant,
}

#[derive(Default)]
struct Idle {
    by_workload: HashMap<WorkloadId, Vec<Kept>>,
    swept: Option<Instant>,
}

/// All connections.
pub(super) struct Pool {
    dial: Arc<dyn Dial>,
    connect_timeout: Duration,
    kept: usize,
    idle: Mutex<Idle>,
}

impl Pool {
    pub fn new(dial: Arc<dyn Dial>, connect_timeout: Duration, kept: usize) -> Self {
        Self {
            dial,
            connect_timeout,
            kept,
            idle: Mutex::default(),
        }
    }

    /// Sends a request on a kept connection, or a new one. A request that a dying connection never took is sent again.
    pub async fn send(
        &self,
        workload: &WorkloadId,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Connection), SendError> {
        loop {
            let (mut sender, fresh) = match self.take(workload) {
                Some(mut sender) => match sender.ready().await {
                    Ok(()) => (sender, false),
                    // Closed on the other side meanwhile.
                    Err(_) => continue,
                },
                None => (self.connect(workload).await.map_err(SendError::Connect)?, true),
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Connection(sender))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(SendError::Broken(error.into_error())),
                },
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub fn give_back(&self, workload: &WorkloadId, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if idle.swept.is_none_or(|swept| now.duration_since(swept) > SWEEP) {
            idle.swept = Some(now);
            idle.by_workload.retain(|_, kept| {
                kept.retain(|one| now.duration_since(one.since) <= LONGEST_IDLE && !one.sender.is_closed());
                !kept.is_empty()
            });
        }
        let kept = match idle.by_workload.get_mut(workload) {
            Some(kept) => kept,
            None => idle.by_workload.entry(workload.clone()).or_default(),
        };
        if kept.len() < self.kept {
            kept.push(Kept {
                sender: connection.0,
                since: now,
            });
        }
    }

    fn take(&self, workload: &WorkloadId) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.by_workload.get_mut(workload)?;
        let now = Instant::now();
        // The youngest first: it is the least likely to be closed on the other side.
        while let Some(one) = kept.pop() {
            if now.duration_since(one.since) > LONGEST_IDLE {
                kept.clear();
                return None;
            }
            if !one.sender.is_closed() {
                return Some(one.sender);
            }
        }
        None
    }

    async fn connect(&self, workload: &WorkloadId) -> Result<Sender, ConnectError> {
        let (dial, timeout, workload) = (self.dial.clone(), self.connect_timeout, workload.clone());
        let dialled = tokio::task::spawn_blocking(move || dial.dial(&workload, super::SERVING_PORT, timeout)).await;
        let socket = dialled
            .map_err(|lost| ConnectError::Adopt(std::io::Error::other(lost)))?
            .map_err(ConnectError::Dial)?;
        let socket = std::net::TcpStream::from(socket);
        // The descriptor may come from another process.
        socket
            .set_nonblocking(true)
            .and_then(|()| socket.set_nodelay(true))
            .map_err(ConnectError::Adopt)?;
        let stream = tokio::net::TcpStream::from_std(socket).map_err(ConnectError::Adopt)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Handshake)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a container ended");
            }
        });
        Ok(sender)
    }
}
