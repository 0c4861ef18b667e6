//! The traffic of a WebSocket, once both sides speak it.

use isolarium_services::sagemaker::notebook_session::Unwelcome;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes passed on at once.
const PIECE: usize = 16 << 10;

/// Why the traffic ends.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    #[error(transparent)]
    Unwelcome(Unwelcome),
}

/// Passes bytes both ways until one side ends. Before anything that arrived is passed on, `check` is asked: every frame begins
/// in some piece, so none passes unasked (SM-48). What is refused ends both connections.
pub(super) async fn relay<A, B, T>(outer: A, inner: B, check: impl Fn() -> Result<T, Unwelcome>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (from_visitor, to_visitor) = tokio::io::split(outer);
    let (from_server, to_server) = tokio::io::split(inner);
    let ended = tokio::select! {
        ended = pass(from_visitor, to_server, &check) => ended,
        ended = pass(from_server, to_visitor, &check) => ended,
    };
    if let Err(error) = ended {
        tracing::info!(
            reason = &error as &dyn std::error::Error,
            "a notebook's WebSocket was ended"
        );
    }
}

async fn pass<T>(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    check: &impl Fn() -> Result<T, Unwelcome>,
) -> Result<(), Ended> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        check().map_err(Ended::Unwelcome)?;
        to.write_all(piece.get(..length).unwrap_or_default()).await?;
        to.flush().await?;
    }
}
