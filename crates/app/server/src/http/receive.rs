//! Request bodies: read whole up to a limit, or passed on as a stream; either way no client may stall for ever.

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Why a body did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the client paused for too long")]
    Stalled,
    #[error("the connection broke off")]
    Broken(#[source] super::BodyError),
}

/// How much of a refused request's body is read and thrown away, bytes.
pub const DISCARD: u64 = 16 << 20;
/// How long a refused request's body is awaited.
pub const DISCARD_PATIENCE: Duration = Duration::from_secs(2);

/// A body whose pauses are bounded.
pub struct Unstalled<B> {
    inner: B,
    pause: Duration,
    timer: Pin<Box<Sleep>>,
}

impl<B> Unstalled<B> {
    /// `pause` is the longest time without a byte.
    pub fn new(inner: B, pause: Duration) -> Self {
        Self {
            inner,
            pause,
            timer: Box::pin(tokio::time::sleep(pause)),
        }
    }
}

impl<B> Body for Unstalled<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<super::BodyError>,
{
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                let next = Instant::now().checked_add(this.pause);
                if let Some(next) = next {
                    this.timer.as_mut().reset(next);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|error| ReceiveError::Broken(error.into()))))
            }
            Poll::Pending => {
                ready!(this.timer.as_mut().poll(cx));
                Poll::Ready(Some(Err(ReceiveError::Stalled)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reads a body and throws it away, so that its sender gets to see an answer instead of a closed connection. Gives up
/// after `most` bytes or `patience`.
pub async fn discard<B>(mut body: B, most: u64, patience: Duration)
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.is_end_stream() || body.size_hint().lower() > most {
        return;
    }
    let mut seen: u64 = 0;
    let thrown = async {
        while let Some(Ok(frame)) = body.frame().await {
            seen = seen.saturating_add(frame.data_ref().map_or(0, Bytes::len) as u64);
            if seen > most {
                break;
            }
        }
    };
    // Late or not: the answer follows.
    let _ = tokio::time::timeout(patience, thrown).await;
}

/// A body that its reader gives back by letting go of it, so that what was not read can be thrown away before the
/// answer: a sender that sees its connection closed while it still sends reads no answer.
pub struct Lent<B> {
    body: Option<B>,
    polled: bool,
    back: Loan<B>,
}

/// Where a lent body comes back to.
pub struct Loan<B>(Arc<Mutex<Option<Returned<B>>>>);

/// A body that came back.
pub struct Returned<B> {
    pub body: B,
    /// Whether its reader asked for any of it. A sender that waits for leave has got it then.
    pub polled: bool,
}

impl<B> Clone for Loan<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Lends a body out.
pub fn lend<B>(body: B) -> (Lent<B>, Loan<B>) {
    let back = Loan(Arc::default());
    let lent = Lent {
        body: Some(body),
        polled: false,
        back: back.clone(),
    };
    (lent, back)
}

impl<B> Loan<B> {
    /// The body, if its reader has let go of it.
    pub fn take(&self) -> Option<Returned<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            let polled = self.polled;
            *self.back.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Returned { body, polled });
        }
    }
}

impl<B: Body + Unpin> Body for Lent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        this.polled = true;
        match &mut this.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Reads a whole body of at most `limit` bytes. One that declares more is refused unread.
///
/// # Errors
/// See [`ReceiveError`].
pub async fn whole<B>(body: &mut B, limit: u64, pause: Duration) -> Result<Bytes, ReceiveError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<super::BodyError>,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let declared = body.size_hint().lower();
    if declared > limit {
        return Err(ReceiveError::TooLarge(limit));
    }
    let mut body = Unstalled::new(body, pause);
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let mut seen: u64 = 0;
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        seen = seen.saturating_add(piece.len() as u64);
        if seen > limit {
            return Err(ReceiveError::TooLarge(limit));
        }
        // Small bodies come in one piece: then nothing is copied.
        match (first.take(), all.is_empty()) {
            (None, true) => first = Some(piece),
            (before, _) => {
                if all.is_empty() {
                    all.reserve(usize::try_from(declared).unwrap_or(0));
                }
                all.extend_from_slice(before.as_deref().unwrap_or_default());
                all.extend_from_slice(&piece);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use std::convert::Infallible;

    fn pieces(texts: &'static [&'static str]) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        StreamBody::new(stream::iter(
            texts
                .iter()
                .map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))),
        ))
    }

    #[tokio::test]
    async fn a_body_up_to_the_limit_arrives_whole() {
        let pause = Duration::from_secs(1);
        assert_eq!(
            whole(&mut pieces(&["ab", "c", "def"]), 6, pause).await.unwrap(),
            "abcdef"
        );
        assert_eq!(whole(&mut pieces(&[]), 6, pause).await.unwrap(), "");
        assert!(matches!(
            whole(&mut pieces(&["ab", "c", "def"]), 5, pause).await,
            Err(ReceiveError::TooLarge(5))
        ));
        let mut declared = Full::new(Bytes::from_static(b"1234567"));
        assert!(matches!(
            whole(&mut declared, 6, pause).await,
            Err(ReceiveError::TooLarge(6))
        ));
    }

    #[tokio::test]
    async fn a_lent_body_comes_back_with_what_was_not_read() {
        let (mut lent, loan) = lend(pieces(&["ab", "cd"]));
        assert!(loan.take().is_none(), "still with its reader");
        assert_eq!(lent.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        drop(lent);
        let mut rest = loan.take().unwrap();
        assert!(rest.polled);
        assert_eq!(whole(&mut rest.body, 6, Duration::from_secs(1)).await.unwrap(), "cd");
        let (unread, loan) = lend(pieces(&["ab"]));
        drop(unread);
        assert!(!loan.take().unwrap().polled);
    }

    #[tokio::test]
    async fn a_client_that_pauses_too_long_is_given_up() {
        let mut silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        assert!(matches!(
            whole(&mut silent, 6, Duration::from_millis(20)).await,
            Err(ReceiveError::Stalled)
        ));
    }
}
