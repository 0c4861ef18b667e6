//! Bodies: checked against their signature on the way in, pumped between the async side and the disk.

use super::fault;
use super::form::FileFault;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http_body::{Body as HttpBody, Frame};
use isolarium_model::Timestamp;
use isolarium_model::s3::ChecksumAlgorithm;
use isolarium_store::objects::{Sealing, Staged, Unsealed, read_in_memory};
use isolarium_store::{ObjectError, ObjectStore};
use isolarium_wire::sigv4::{BodyCheck, ChunkFault};
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3Result, StdError, s3_error};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes sent at a time: small enough that the socket's copy finds them in the processor's cache.
const PIECE: usize = 128 << 10;
/// Pieces of an answer whose memory is used again once the socket has them: the one that is being sent, and the one before.
const PIECES: usize = 2;
/// Bytes read from disk at a time where it has to be waited for.
const DISK_PIECE: usize = 512 << 10;

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
            Self::Broken(cause) if is_pause(cause) => s3_error!(
                RequestTimeout,
                "Your socket connection to the server was not read from or written to within the timeout period. Idle \
                 connections will be closed."
            ),
            Self::Chunk(_) | Self::Broken(_) => s3_error!(
                IncompleteBody,
                "You did not provide the number of bytes specified by the Content-Length HTTP header"
            ),
        }
    }
}

/// Whether the client paused for too long; a body says so by the kind of its error.
fn is_pause(cause: &StdError) -> bool {
    cause
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
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
    sealing: Option<Sealing>,
) -> S3Result<Staged> {
    let (pieces, mut arriving) = mpsc::channel::<Bytes>(8);
    let store = store.clone();
    let writer = tokio::task::spawn_blocking(move || {
        let mut incoming = store.receive(&algorithms, now, sealing.as_ref())?;
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
    StreamingBlob::new(Outgoing {
        file: Arc::new(file),
        at: from,
        left: length,
        waiting: None,
        sent: VecDeque::with_capacity(PIECES),
    })
}

/// A file on its way out. What the machine has in memory is read by the task that sends it: that costs one copy and no
/// change of threads. The disk is waited for on a thread that may.
struct Outgoing {
    file: Arc<File>,
    at: u64,
    left: u64,
    waiting: Option<JoinHandle<std::io::Result<Bytes>>>,
    /// What was given out last, the oldest first.
    sent: VecDeque<Bytes>,
}

impl Outgoing {
    /// The next piece, if it is in memory.
    fn at_hand(&mut self) -> std::io::Result<Option<Bytes>> {
        let mut piece = self.room();
        Ok(match read_in_memory(&self.file, &mut piece, self.at)? {
            // Nothing at all is the end of a file that is shorter than it was: the thread finds the words for it.
            None | Some(0) => None,
            Some(read) => {
                let whole = read == piece.len();
                piece.truncate(read);
                let piece = piece.freeze();
                if whole && read == PIECE {
                    self.sent.push_back(piece.clone());
                }
                Some(piece)
            }
        })
    }

    /// Memory for the next piece: that of one which the socket has taken, where there is one. Fresh memory would have to be
    /// cleared first, which costs as much as reading does.
    fn room(&mut self) -> BytesMut {
        let wanted = self.wanted(PIECE);
        let free = if self.sent.len() < PIECES {
            None
        } else {
            self.sent.pop_front().and_then(|piece| piece.try_into_mut().ok())
        };
        match free {
            Some(mut piece) => {
                piece.truncate(wanted);
                piece
            }
            None => BytesMut::zeroed(wanted),
        }
    }

    /// The read that is waited for, begun if it is not under way.
    fn reader(&mut self) -> &mut JoinHandle<std::io::Result<Bytes>> {
        let (file, at, wanted) = (&self.file, self.at, self.wanted(DISK_PIECE));
        self.waiting.get_or_insert_with(|| {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || {
                let mut piece = vec![0_u8; wanted];
                file.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece))
            })
        })
    }

    fn wanted(&self, most: usize) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX).min(most)
    }
}

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let at_hand = if this.waiting.is_some() {
            Ok(None)
        } else {
            this.at_hand()
        };
        let read = match at_hand {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) => {
                let disk = this.reader();
                let read = ready!(Pin::new(disk).poll(cx));
                this.waiting = None;
                read.unwrap_or_else(|lost| Err(std::io::Error::other(lost)))
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(piece) => {
                this.at = this.at.saturating_add(piece.len() as u64);
                this.left = this.left.saturating_sub(piece.len() as u64);
                Poll::Ready(Some(Ok(piece)))
            }
            Err(error) => {
                // Nothing follows a failure.
                this.left = 0;
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }
}

impl ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.left).unwrap_or(usize::MAX))
    }
}

/// Plain bytes `from..from + length` of an encrypted file as a response body. Few bytes are opened at once, so that a file
/// that was tampered with is an error before anything is sent.
///
/// # Errors
/// The host's failure; a file that is not what was written.
pub(super) fn send_unsealed(mut plain: Unsealed, from: u64, length: u64) -> S3Result<StreamingBlob> {
    if length > SMALL {
        return Ok(StreamingBlob::new(Opening {
            plain: Some(plain),
            at: from,
            left: length,
            waiting: None,
        }));
    }
    let mut bytes = vec![0_u8; usize::try_from(length).unwrap_or(0)];
    plain.read_exact_at(&mut bytes, from).map_err(|source| {
        fault::of(ObjectError::Io {
            what: "decrypting an object",
            source,
        })
    })?;
    Ok(send_bytes(bytes.into()))
}

/// What opening a piece gives back: the file for the next one, and the plain bytes.
type Opened = std::io::Result<(Unsealed, Bytes)>;

/// An encrypted file on its way out, opened on a thread that may wait for the disk.
struct Opening {
    plain: Option<Unsealed>,
    at: u64,
    left: u64,
    waiting: Option<JoinHandle<Opened>>,
}

impl Opening {
    /// The piece that is waited for, begun if it is not under way. `None`: there is nothing to read from any more.
    fn reader(&mut self) -> Option<&mut JoinHandle<Opened>> {
        if self.waiting.is_none() {
            let mut plain = self.plain.take()?;
            let at = self.at;
            let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(DISK_PIECE);
            self.waiting = Some(tokio::task::spawn_blocking(move || {
                let mut piece = vec![0_u8; wanted];
                plain.read_exact_at(&mut piece, at)?;
                Ok((plain, Bytes::from(piece)))
            }));
        }
        self.waiting.as_mut()
    }
}

impl Stream for Opening {
    type Item = Result<Bytes, StdError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let Some(reader) = this.reader() else {
            return Poll::Ready(None);
        };
        let opened = ready!(Pin::new(reader).poll(cx));
        this.waiting = None;
        match opened.unwrap_or_else(|lost| Err(std::io::Error::other(lost))) {
            Ok((plain, piece)) => {
                this.plain = Some(plain);
                this.at = this.at.saturating_add(piece.len() as u64);
                this.left = this.left.saturating_sub(piece.len() as u64);
                Poll::Ready(Some(Ok(piece)))
            }
            Err(error) => {
                tracing::error!(%error, "an encrypted object could not be read to its end");
                // Nothing follows a failure: the answer is cut short, and never looks whole.
                this.left = 0;
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }
}

impl ByteStream for Opening {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    async fn sent(file: File, from: u64, length: u64) -> Result<Vec<u8>, StdError> {
        let (mut blob, mut all) = (send(file, from, length), Vec::new());
        while let Some(piece) = blob.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }

    /// Whoever still holds a piece keeps what was in it.
    #[tokio::test]
    async fn memory_is_used_again_only_when_nobody_holds_the_piece_any_more() {
        let bytes: Vec<u8> = (0..8 * u32::try_from(PIECE).unwrap() / 4)
            .flat_map(u32::to_le_bytes)
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        for held_back in [true, false] {
            let mut blob = send(file.try_clone().unwrap(), 0, bytes.len() as u64);
            let (mut held, mut places, mut all) = (Vec::new(), std::collections::BTreeSet::new(), Vec::new());
            while let Some(piece) = blob.next().await {
                let piece = piece.unwrap();
                places.insert(piece.as_ptr().addr());
                all.extend_from_slice(&piece);
                if held_back {
                    held.push(piece);
                }
            }
            assert!(all == bytes);
            let kept: Vec<u8> = held.iter().flatten().copied().collect();
            assert!(kept == bytes || !held_back);
            assert_eq!(places.len(), if held_back { 8 } else { PIECES });
        }
    }

    #[tokio::test]
    async fn a_file_is_sent_to_its_last_byte_and_one_that_became_shorter_breaks_off() {
        let bytes: Vec<u8> = (0..3_u32 << 18).flat_map(u32::to_le_bytes).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let whole = bytes.len() as u64;
        let open = || file.try_clone().unwrap();
        assert_eq!(sent(open(), 0, whole).await.unwrap(), bytes);
        assert_eq!(sent(open(), 7, whole - 9).await.unwrap(), bytes[7..bytes.len() - 2]);
        file.set_len(whole / 2).unwrap();
        assert!(
            sent(open(), 0, whole).await.is_err(),
            "never an answer that looks whole"
        );
    }
}
