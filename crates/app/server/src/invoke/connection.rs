//! One connection to a container, driven by the task that waits for its answer: no other task has to wake for it.

use super::answer::{self, Framing, Head, Malformed, Piece};
use bytes::{Buf, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

/// Room made for an answer whose length is not known, bytes.
const ROOM: usize = 8 << 10;
/// Most room made at once for one whose length is, bytes.
const MOST_ROOM: usize = 256 << 10;

/// What a container is asked: the same for every connection that it is tried on.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    head: Bytes,
    body: Bytes,
}

impl Outgoing {
    /// An invocation with those of the caller's headers that the contract passes on (CC-50, SM-52).
    pub fn new(headers: &HeaderMap, body: Bytes) -> Self {
        Self::with(|name| headers.get(name), body)
    }

    /// An invocation of one of the models of a container (CC-58). `folder` is a plain name.
    pub fn to_model(headers: &HeaderMap, folder: &str, body: Bytes) -> Self {
        let mut head = Vec::with_capacity(512);
        head.extend_from_slice(format!("POST /models/{folder}/invoke").as_bytes());
        let model = headers.get(super::TARGET_MODEL);
        Self::rest(head, |name| headers.get(name), model, body)
    }

    /// The same for one container of several in a row, whose content type is that of the answer before. What the caller
    /// accepts is for the last of them alone.
    pub fn stage(headers: &HeaderMap, content_type: Option<&HeaderValue>, last: bool, body: Bytes) -> Self {
        let field = |name: &HeaderName| match name {
            name if *name == CONTENT_TYPE => content_type,
            name if *name == ACCEPT && !last => None,
            name => headers.get(name),
        };
        Self::with(field, body)
    }

    fn with<'a>(field: impl Fn(&HeaderName) -> Option<&'a HeaderValue>, body: Bytes) -> Self {
        let mut head = Vec::with_capacity(512);
        head.extend_from_slice(b"POST /invocations");
        Self::rest(head, field, None, body)
    }

    /// What follows the path.
    fn rest<'a>(
        mut head: Vec<u8>,
        field: impl Fn(&HeaderName) -> Option<&'a HeaderValue>,
        model: Option<&HeaderValue>,
        body: Bytes,
    ) -> Self {
        head.extend_from_slice(b" HTTP/1.1\r\nhost: localhost:8080\r\ncontent-length: ");
        head.extend_from_slice(body.len().to_string().as_bytes());
        if let Some(model) = model {
            head.extend_from_slice(b"\r\n");
            head.extend_from_slice(super::TARGET_MODEL.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(model.as_bytes());
        }
        for name in super::FORWARDED {
            // A header's value has no line end in it: its type refuses them.
            if let Some(value) = field(&name) {
                for part in [b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
                    head.extend_from_slice(part);
                }
            }
        }
        head.extend_from_slice(b"\r\n\r\n");
        Self {
            head: head.into(),
            body,
        }
    }
}

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// Nothing of the request was sent: it can be tried elsewhere.
    #[error("the connection was closed before the request")]
    Unsent,
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the container closed the connection before its answer was complete")]
    Closed,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A connection. Dropping it closes it.
pub(super) struct Connection {
    stream: TcpStream,
    /// What has arrived and is not yet read.
    arrived: BytesMut,
    /// What is left of the request.
    head: Bytes,
    body: Bytes,
    /// The rest of the request cannot be sent any more; what the container has answered can still be read.
    deaf: bool,
    framing: Framing,
    keeps: bool,
}

impl Connection {
    /// A connection that has carried nothing.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            arrived: BytesMut::new(),
            head: Bytes::new(),
            body: Bytes::new(),
            deaf: false,
            framing: Framing::Length(0),
            keeps: true,
        }
    }

    /// Whether the answer was read to its end and another request may follow.
    pub fn is_reusable(&self) -> bool {
        let sent = self.head.is_empty() && self.body.is_empty() && !self.deaf;
        self.keeps && sent && self.arrived.is_empty() && self.framing.is_at_end()
    }

    /// Whether the other side has neither closed nor spoken unasked. Asks the kernel: what the runtime knows may be a
    /// turn old, and a request that meets a close cannot be repeated safely.
    pub fn is_quiet(&self) -> bool {
        let seen = rustix::net::recv(&self.stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(seen, Err(Errno::WOULDBLOCK))
    }

    /// Sends a request and reads the head of its answer, which may come before all of the request was taken.
    ///
    /// # Errors
    /// [`Broken::Unsent`] only while the kernel has taken no byte.
    pub async fn exchange(&mut self, request: &Outgoing) -> Result<Head, Broken> {
        (self.head, self.body) = (request.head.clone(), request.body.clone());
        (self.framing, self.keeps) = (Framing::Length(0), false);
        let mut looked = 0;
        let head = poll_fn(|cx| {
            self.send(cx);
            if self.deaf && self.head.len() == request.head.len() {
                return Poll::Ready(Err(Broken::Unsent));
            }
            loop {
                if let Some(head) = answer::head(&mut self.arrived, &mut looked)? {
                    return Poll::Ready(Ok(head));
                }
                match self.receive(cx, ROOM) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broken::Closed)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await?;
        (self.framing, self.keeps) = (head.framing, head.keeps);
        Ok(head)
    }

    /// The next piece of the answer's body, `None` at its end.
    ///
    /// # Errors
    /// When the body does not end as its head promised.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Broken> {
        poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// As [`piece`](Self::piece), for readers that lend the connection to nobody while they wait.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        loop {
            match self.framing.next(&mut self.arrived)? {
                Piece::Data(data) => return Poll::Ready(Ok(Some(data))),
                Piece::End => return Poll::Ready(Ok(None)),
                Piece::More => {}
            }
            // A container may answer while it still reads.
            self.send(cx);
            match self.receive(cx, self.framing.expected().clamp(ROOM, MOST_ROOM)) {
                Poll::Ready(Ok(0)) if self.framing == Framing::UntilClose => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broken::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Sends what the kernel takes now.
    fn send(&mut self, cx: &mut Context<'_>) {
        while !self.deaf && (self.head.has_remaining() || self.body.has_remaining()) {
            let rest = [IoSlice::new(&self.head), IoSlice::new(&self.body)];
            match Pin::new(&mut self.stream).poll_write_vectored(cx, &rest) {
                Poll::Ready(Ok(taken)) if taken > 0 => {
                    let of_head = taken.min(self.head.len());
                    self.head.advance(of_head);
                    self.body.advance(taken.saturating_sub(of_head).min(self.body.len()));
                }
                // Why it failed shows when the answer is read.
                Poll::Ready(_) => self.deaf = true,
                Poll::Pending => return,
            }
        }
    }

    /// Reads what has arrived, making at least `room`.
    fn receive(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        self.arrived.reserve(room);
        pin!(self.stream.read_buf(&mut self.arrived)).poll(cx)
    }
}
