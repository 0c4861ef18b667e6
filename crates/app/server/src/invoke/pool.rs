//! Kept connections to containers, made inside their namespaces (CC-51, CC-88).

use super::answer::Head;
use super::connection::{Broken, Connection, Outgoing};
use crate::http::local::unpace;
use crate::lanes;
use isolarium_model::WorkloadId;
use isolarium_runtime::Dial;
use isolarium_runtime::executor::ExecutorError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Idle connections older than this are closed: common servers close theirs after some seconds, and a request that
/// meets such a close cannot be repeated safely.
const LONGEST_IDLE: Duration = Duration::from_secs(1);
/// How often those that grew too old are looked for while any are kept.
const SWEEP: Duration = Duration::from_millis(500);

/// Why a request was not answered.
#[derive(Debug)]
pub(super) enum SendError {
    /// It was not sent: no connection.
    Connect(ConnectError),
    /// It may have been sent, and no answer came.
    Broken(Broken),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("the container does not accept connections")]
    Dial(#[source] ExecutorError),
    #[error("the connection cannot be used")]
    Adopt(#[source] std::io::Error),
}

struct Kept {
    connection: Connection,
    since: Instant,
    /// The lane that made it, whose runtime watches its socket: elsewhere every answer would wake two threads.
    lane: usize,
}

#[derive(Default)]
struct Idle {
    /// The oldest of each first.
    by_workload: HashMap<WorkloadId, Vec<Kept>, foldhash::fast::RandomState>,
    /// A task closes those that grow too old.
    swept: bool,
}

/// Shards; more lanes than this share some.
const SHARDS: usize = 16;

/// All connections. Each lane has a shard, so that none waits for another one.
pub(super) struct Pool {
    dial: Arc<dyn Dial>,
    connect_timeout: Duration,
    kept: usize,
    shards: [Arc<Mutex<Idle>>; SHARDS],
}

impl Pool {
    pub fn new(dial: Arc<dyn Dial>, connect_timeout: Duration, kept: usize) -> Self {
        Self {
            dial,
            connect_timeout,
            kept,
            shards: Default::default(),
        }
    }

    fn shard(&self) -> &Arc<Mutex<Idle>> {
        let [first, ..] = &self.shards;
        self.shards.get(lanes::here() % SHARDS).unwrap_or(first)
    }

    /// Sends a request on a kept connection, or a new one, and reads the head of the answer. A request of which a dying
    /// connection took nothing is sent again. A container always has the same port.
    pub async fn send(
        &self,
        workload: &WorkloadId,
        port: u16,
        request: &Outgoing,
    ) -> Result<(Head, Connection), SendError> {
        while let Some(mut connection) = self.take(workload) {
            match connection.exchange(request).await {
                Ok(head) => return Ok((head, connection)),
                Err(Broken::Unsent) => {}
                Err(error) => return Err(SendError::Broken(error)),
            }
        }
        let mut connection = self.connect(workload, port).await.map_err(SendError::Connect)?;
        match connection.exchange(request).await {
            Ok(head) => Ok((head, connection)),
            Err(error) => Err(SendError::Broken(error)),
        }
    }

    /// Keeps a connection for the next request if it may carry one. To be called within a tokio runtime.
    pub fn give_back(&self, workload: &WorkloadId, connection: Connection) {
        if !connection.is_reusable() {
            return;
        }
        let shard = self.shard();
        let mut idle = locked(shard);
        let now = Instant::now();
        let kept = match idle.by_workload.get_mut(workload) {
            Some(kept) => kept,
            None => idle.by_workload.entry(workload.clone()).or_default(),
        };
        // The oldest goes: one of another lane may never be asked for again.
        kept.push(Kept {
            connection,
            since: now,
            lane: lanes::here(),
        });
        if kept.len() > self.kept {
            kept.remove(0);
        }
        if !idle.swept {
            idle.swept = true;
            tokio::spawn(sweep(shard.clone()));
        }
    }

    /// Whether a kept connection is still open; `None` where none is kept.
    #[cfg(test)]
    pub fn has_quiet(&self) -> Option<bool> {
        let idle = locked(self.shard());
        let newest = idle.by_workload.values().filter_map(|kept| kept.last()).next();
        newest.map(|kept| kept.connection.is_quiet())
    }

    fn take(&self, workload: &WorkloadId) -> Option<Connection> {
        let now = Instant::now();
        loop {
            let connection = self.youngest(workload, now)?;
            // Asks the kernel: nobody else waits meanwhile.
            if connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// The youngest first: it is the least likely to be closed on the other side.
    fn youngest(&self, workload: &WorkloadId, now: Instant) -> Option<Connection> {
        let mut idle = locked(self.shard());
        let kept = idle.by_workload.get_mut(workload)?;
        let lane = lanes::here();
        let at = kept.iter().rposition(|one| one.lane == lane)?;
        let one = kept.remove(at);
        if now.duration_since(one.since) > LONGEST_IDLE {
            kept.retain(|one| now.duration_since(one.since) <= LONGEST_IDLE);
            return None;
        }
        Some(one.connection)
    }

    async fn connect(&self, workload: &WorkloadId, port: u16) -> Result<Connection, ConnectError> {
        let (dial, timeout, workload) = (self.dial.clone(), self.connect_timeout, workload.clone());
        let dialled = tokio::task::spawn_blocking(move || dial.dial(&workload, port, timeout)).await;
        let socket = dialled
            .map_err(|lost| ConnectError::Adopt(std::io::Error::other(lost)))?
            .map_err(ConnectError::Dial)?;
        let socket = std::net::TcpStream::from(socket);
        // The descriptor may come from another process.
        socket
            .set_nonblocking(true)
            .and_then(|()| socket.set_nodelay(true))
            .map_err(ConnectError::Adopt)?;
        unpace(&socket);
        let stream = tokio::net::TcpStream::from_std(socket).map_err(ConnectError::Adopt)?;
        Ok(Connection::new(stream))
    }
}

fn locked(shard: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes connections that grew too old, until none is left. A socket keeps its network namespace alive: without this,
/// that of a container that is gone, and with it its address, would stay until the next request to any container.
async fn sweep(idle: Arc<Mutex<Idle>>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let mut idle = locked(&idle);
        let now = Instant::now();
        idle.by_workload.retain(|_, kept| {
            kept.retain(|one| now.duration_since(one.since) <= LONGEST_IDLE);
            !kept.is_empty()
        });
        if idle.by_workload.is_empty() {
            idle.swept = false;
            return;
        }
    }
}
