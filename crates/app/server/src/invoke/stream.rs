//! Streamed answers: each chunk of the container becomes PayloadPart events at once (CC-53, SM-53).

use super::connection::{Broken, Connection};
use super::pool::Pool;
use crate::http::body::{self, Body};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use isolarium_model::WorkloadId;
use isolarium_reconcile::Guard;
use isolarium_wire::eventstream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

/// What a stream holds of the container; nothing any more once its time is over, or the stream has ended.
#[derive(Clone)]
struct Held(Arc<Mutex<Option<(Connection, Guard)>>>);

impl Held {
    /// Lets go. The guard counts the request as running.
    fn take(&self) -> Option<(Connection, Guard)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The next piece; `None` when the time is over.
    async fn piece(&self) -> Option<Result<Option<Bytes>, Broken>> {
        poll_fn(|cx| {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match held.as_mut() {
                Some((connection, _)) => connection.poll_piece(cx).map(Some),
                None => Poll::Ready(None),
            }
        })
        .await
    }
}

/// What is still to come.
struct Rest {
    held: Held,
    ended: bool,
    /// Events of a chunk that was too long for one.
    waiting: VecDeque<Bytes>,
    deadline: Instant,
    workload: WorkloadId,
    pool: Arc<Pool>,
    /// Lets go at the deadline, also when nobody reads: a caller that stops reading holds nothing of the container.
    closer: AbortHandle,
}

/// The event stream of an answer, at most until `deadline`. When the caller goes away it is dropped, and with it the
/// connection to the container, which is that of `workload`.
pub(super) fn events(
    connection: Connection,
    workload: WorkloadId,
    guard: Guard,
    pool: Arc<Pool>,
    deadline: Instant,
) -> Body {
    let held = Held(Arc::new(Mutex::new(Some((connection, guard)))));
    let closed = held.clone();
    let closer = tokio::spawn(async move {
        sleep_until(deadline).await;
        drop(closed.take());
    });
    let rest = Rest {
        held,
        ended: false,
        waiting: VecDeque::new(),
        deadline,
        workload,
        pool,
        closer: closer.abort_handle(),
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
            if self.ended {
                return None;
            }
            // A container that always has something to say never makes its reader wait, and only a wait looks at the
            // clock.
            let read = if Instant::now() < self.deadline {
                timeout_at(self.deadline, self.held.piece()).await.ok().flatten()
            } else {
                None
            };
            if let Some(Ok(Some(data))) = read {
                self.waiting.extend(eventstream::payload_parts(&data));
                continue;
            }
            self.ended = true;
            let held = self.held.take();
            match read {
                Some(Ok(_)) => {
                    if let Some((connection, _)) = held {
                        self.pool.give_back(&self.workload, connection);
                    }
                }
                Some(Err(error)) => {
                    tracing::info!(workload = %self.workload, %error, "a container broke off a streamed answer");
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

impl Drop for Rest {
    fn drop(&mut self) {
        self.closer.abort();
        // The closer goes when its runtime gets to it.
        drop(self.held.take());
    }
}
