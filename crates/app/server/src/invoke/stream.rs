//! Streamed answers: each chunk of the container becomes PayloadPart events at once (CC-53, SM-53).

use super::connection::Connection;
use super::pool::Pool;
use crate::http::body::{self, Body};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use isolarium_reconcile::Guard;
use isolarium_wire::eventstream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// What is still to come.
struct Rest {
    /// What the events are read from; given back at the end.
    connection: Option<Connection>,
    /// Events of a chunk that was too long for one.
    waiting: VecDeque<Bytes>,
    deadline: Instant,
    /// Counts the request as running, and names the container the connection goes back to.
    guard: Guard,
    pool: Arc<Pool>,
}

/// The event stream of an answer, at most until `deadline`. When the caller goes away it is dropped, and with it the
/// connection to the container.
pub(super) fn events(connection: Connection, guard: Guard, pool: Arc<Pool>, deadline: Instant) -> Body {
    let rest = Rest {
        connection: Some(connection),
        waiting: VecDeque::new(),
        deadline,
        guard,
        pool,
    };
    body::stream(StreamBody::new(stream::unfold(rest, |mut rest| async move {
        let frame = rest.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(frame)), rest))
    })))
}

impl Rest {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            // Gone when the stream has ended, however it did.
            let mut connection = self.connection.take()?;
            // A container that always has something to say never makes its reader wait, and only a wait looks at the
            // clock.
            let read = if Instant::now() < self.deadline {
                timeout_at(self.deadline, connection.piece()).await.ok()
            } else {
                None
            };
            match read {
                Some(Ok(Some(data))) => {
                    self.connection = Some(connection);
                    self.waiting.extend(eventstream::payload_parts(&data));
                }
                Some(Ok(None)) => self.pool.give_back(self.guard.workload(), connection),
                Some(Err(error)) => {
                    tracing::info!(workload = %self.guard.workload(), %error, "a container broke off a streamed answer");
                    let text = "The container closed the connection before its answer was complete.";
                    return Some(eventstream::model_stream_error(text, "StreamBroken"));
                }
                None => {
                    let text = "The streamed answer took longer than the endpoint allows.";
                    return Some(eventstream::model_stream_error(text, "ModelInvocationTimeExceeded"));
                }
            }
        }
    }
}
