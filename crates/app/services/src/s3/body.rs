//! Bodies: checked against their signature on the way in, pumped between the async side and the disk.

use super::fault;
use super::form::FileFault;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body::{Body as HttpBody, Frame};
use isolarium_model::Timestamp;
use isolarium_model::s3::ChecksumAlgorithm;
use isolarium_store::objects::Staged;
use isolarium_store::{ObjectError, ObjectStore};
use isolarium_wire::sigv4::{BodyCheck, ChunkFault};
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3Result, StdError, s3_error};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// Bytes read from disk at a time, and how many such pieces may wait for a slow client.
const PIECE: usize = 512 << 10;
const AHEAD: usize = 3;

/// Why a body is refused while it arrives.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyFault {
    #[error("the body's SHA-256 is not the signed one")]
    Sha256,
    #[error(transparent)]
    Chunk(#[from] ChunkFault),
    #[error("the connection ended within the body")]
    Broken(#[source] StdError),
}

impl BodyFault {
    fn answer(&self) -> S3Error {
        match self {
            Self::Sha256 => fault::custom(
                "XAmzContentSHA256Mismatch",
                http::StatusCode::BAD_REQUEST,
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ),
            Self::Chunk(ChunkFault::BadSignature) => s3_error!(
                SignatureDoesNotMatch,
                "The request signature we calculated does not match the signature you provided. Check your key and \
                 signing method."
            ),
            Self::Chunk(_) | Self::Broken(_) => s3_error!(
                IncompleteBody,
                "You did not provide the number of bytes specified by the Content-Length HTTP header"
            ),
        }
    }
}

/// How a body ended: its trailers once it was read to its end, or why it was refused.
#[derive(Clone, Default)]
pub(super) struct Trailers(Arc<Mutex<Ending>>);

#[derive(Default)]
struct Ending {
    trailers: Vec<(String, String)>,
    fault: Option<S3Error>,
}

impl Trailers {
    fn lock(&self) -> MutexGuard<'_, Ending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.lock()
            .trailers
            .iter()
            .find(|(seen, _)| seen == name)
            .map(|(_, value)| value.clone())
    }

    /// The answer for a refused body.
    pub(super) fn fault(&self) -> Option<S3Error> {
        self.lock().fault.take()
    }
}

/// A request body that yields only bytes which its check has seen, and an error at its end if the check fails.
pub(super) struct CheckedBody<B> {
    inner: Pin<Box<B>>,
    check: Check,
    trailers: Trailers,
}

enum Check {
    None,
    Sha256(Box<Sha256>, [u8; 32]),
    Chunked(Box<isolarium_wire::sigv4::ChunkDecoder>),
    Over,
}

impl<B> CheckedBody<B> {
    pub(super) fn new(inner: B, check: BodyCheck, trailers: Trailers) -> Self {
        let check = match check {
            BodyCheck::Done => Check::None,
            BodyCheck::Sha256(digest) => Check::Sha256(Box::default(), digest),
            BodyCheck::Chunked(decoder) => Check::Chunked(decoder),
        };
        Self {
            inner: Box::pin(inner),
            check,
            trailers,
        }
    }

    fn take(&mut self, data: Bytes) -> Result<Bytes, BodyFault> {
        match &mut self.check {
            Check::None | Check::Over => Ok(data),
            Check::Sha256(digest, _) => {
                digest.update(&data);
                Ok(data)
            }
            Check::Chunked(decoder) => {
                let mut out = Vec::with_capacity(data.len());
                decoder.push(&data, &mut out)?;
                Ok(out.into())
            }
        }
    }

    fn refuse(&self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        self.trailers.lock().fault = Some(fault.answer());
        Poll::Ready(Some(Err(fault.into())))
    }

    fn end(&mut self) -> Result<(), BodyFault> {
        match std::mem::replace(&mut self.check, Check::Over) {
            Check::None | Check::Over => Ok(()),
            Check::Sha256(digest, wanted) => {
                if <[u8; 32]>::from(digest.finalize()) == wanted {
                    Ok(())
                } else {
                    Err(BodyFault::Sha256)
                }
            }
            Check::Chunked(decoder) => {
                self.trailers.lock().trailers = decoder.finish()?;
                Ok(())
            }
        }
    }
}

impl<B> HttpBody for CheckedBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        loop {
            let frame = match ready!(self.inner.as_mut().poll_frame(cx)) {
                None => {
                    return self
                        .end()
                        .map_or_else(|fault| self.refuse(fault), |()| Poll::Ready(None));
                }
                Some(Err(error)) => return self.refuse(BodyFault::Broken(error.into())),
                Some(Ok(frame)) => frame,
            };
            // HTTP's own trailers are nothing that S3 knows.
            let Ok(data) = frame.into_data() else { continue };
            match self.take(data) {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(fault) => return self.refuse(fault),
            }
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match &self.check {
            Check::Chunked(decoder) => http_body::SizeHint::with_exact(decoder.declared_length()),
            _ => self.inner.size_hint(),
        }
    }
}

/// Writes an incoming body to the disk, hashing on a thread that may block. `limit` is the most bytes accepted.
///
/// # Errors
/// S3's error for a body that is cut short, altered or too long, or the host's failure.
pub(super) async fn receive(
    store: &ObjectStore,
    body: Option<StreamingBlob>,
    algorithms: Vec<ChecksumAlgorithm>,
    limit: u64,
    now: Timestamp,
) -> S3Result<Staged> {
    let (pieces, mut arriving) = mpsc::channel::<Bytes>(8);
    let store = store.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let mut incoming = store.receive(&algorithms, now)?;
        while let Some(piece) = arriving.blocking_recv() {
            incoming.write(&piece)?;
        }
        Ok::<_, ObjectError>(incoming)
    });
    let mut refused = None;
    let mut size = 0_u64;
    if let Some(mut body) = body {
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => {
                    size = size.saturating_add(piece.len() as u64);
                    if size > limit {
                        refused = Some(s3_error!(
                            EntityTooLarge,
                            "Your proposed upload exceeds the maximum allowed size"
                        ));
                        break;
                    }
                    // A writer that has failed says why below.
                    if pieces.send(piece).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    refused = Some(refusal(&error));
                    break;
                }
            }
        }
    }
    drop(pieces);
    let incoming = joined(writer.await)?.map_err(fault::of)?;
    if let Some(refused) = refused {
        return Err(refused);
    }
    // Synced on the blocking side too; nothing is stored before the whole body has passed its checks.
    blocking(move || incoming.finish().map_err(fault::of)).await
}

fn refusal(error: &StdError) -> S3Error {
    let body = error.downcast_ref::<BodyFault>().map(BodyFault::answer);
    let file = || error.downcast_ref::<FileFault>().map(FileFault::answer);
    body.or_else(file)
        .unwrap_or_else(|| s3_error!(IncompleteBody, "The request body terminated unexpectedly"))
}

fn joined<T>(outcome: Result<T, tokio::task::JoinError>) -> S3Result<T> {
    outcome.map_err(|error| {
        tracing::error!(%error, "a storage task ended abnormally");
        s3_error!(InternalError, "We encountered an internal error. Please try again.")
    })
}

/// Runs work that may block on the threads for it.
///
/// # Errors
/// What `work` returns.
pub(super) async fn blocking<T, F>(work: F) -> S3Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> S3Result<T> + Send + 'static,
{
    joined(tokio::task::spawn_blocking(work).await)?
}

/// Bytes `from..from + length` of a file as a response body.
pub(super) fn send(file: File, from: u64, length: u64) -> StreamingBlob {
    let (pieces, arriving) = mpsc::channel(AHEAD);
    // Ends when everything is sent or the client is gone; a slow client holds one thread, not memory.
    tokio::task::spawn_blocking(move || {
        let end = from.saturating_add(length);
        let mut at = from;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE);
            let mut piece = vec![0_u8; wanted];
            let read = file.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece));
            let failed = read.is_err();
            if pieces.blocking_send(read).is_err() || failed {
                return;
            }
            at = at.saturating_add(wanted as u64);
        }
    });
    StreamingBlob::new(Outgoing { arriving, left: length })
}

struct Outgoing {
    arriving: mpsc::Receiver<std::io::Result<Bytes>>,
    left: u64,
}

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(self.arriving.poll_recv(cx));
        if let Some(Ok(bytes)) = &piece {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(piece.map(|piece| piece.map_err(Into::into)))
    }
}

impl ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.left).unwrap_or(usize::MAX))
    }
}

/// A few bytes that are in memory already.
pub(super) fn send_bytes(bytes: Bytes) -> StreamingBlob {
    StreamingBlob::from(s3s::Body::from(bytes))
}

/// Objects up to this many bytes are read at once, without a thread and a channel of their own.
pub(super) const SMALL: u64 = 256 << 10;

/// Reads a small range.
///
/// # Errors
/// The host's failure.
pub(super) fn read_small(file: &File, from: u64, length: u64) -> S3Result<Bytes> {
    let mut bytes = vec![0_u8; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from).map_err(|source| {
        fault::of(ObjectError::Io {
            what: "reading an object",
            source,
        })
    })?;
    Ok(bytes.into())
}
