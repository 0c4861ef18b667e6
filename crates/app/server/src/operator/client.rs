//! Asking a running server.

use super::message::{Answer, Ask, LONGEST};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing listens.
    #[error("no server answers on {socket}; start it with `isolarium serve`")]
    NoServer {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the server ended the conversation on {socket}")]
    Broken {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Refused(String),
}

/// Asks the server of a data directory. A failure of the server comes as [`AskError::Refused`].
///
/// # Errors
/// When nobody answers, or the answer is a failure.
pub fn ask(data_dir: &Path, ask: &Ask) -> Result<Answer, AskError> {
    converse(data_dir, ask).map(|(answer, _)| answer)
}

/// As [`ask`], with the conversation that goes on: it ends when the socket is closed here, and the server's end closes when
/// that is gone.
///
/// # Errors
/// As [`ask`].
pub fn converse(data_dir: &Path, ask: &Ask) -> Result<(Answer, UnixStream), AskError> {
    let socket = data_dir.join("run/operator.sock");
    let mut stream = UnixStream::connect(&socket).map_err(|source| AskError::NoServer {
        socket: socket.clone(),
        source,
    })?;
    let mut talk = || -> std::io::Result<Answer> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut line = serde_json::to_vec(ask)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = Vec::new();
        BufReader::new((&stream).take(LONGEST)).read_until(b'\n', &mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    };
    match talk() {
        Ok(Answer::Failed { reason }) => Err(AskError::Refused(reason)),
        Ok(answer) => Ok((answer, stream)),
        Err(source) => Err(AskError::Broken { socket, source }),
    }
}
