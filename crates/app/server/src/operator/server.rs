//! The socket's other end.

use super::message::{Answer, Ask, LONGEST};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Answers one question; may block.
pub type Answerer = Arc<dyn Fn(Ask) -> Reply + Send + Sync>;

/// An answer, and what is to be done when the conversation is over, however it ends.
pub struct Reply {
    pub answer: Answer,
    /// May block. A process that is killed does not come to it: what it gives back must be found by the next start too.
    pub end: Option<Box<dyn FnOnce() + Send>>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, end: None }
    }
}

/// How long the asker may take to send its line or read the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bound operator socket.
pub struct OperatorSocket {
    listener: UnixListener,
}

impl OperatorSocket {
    /// Binds `path`, replacing a left-over one; mode 0600.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Bound under a name nobody looks for and renamed when its mode is right: never open to others for a moment.
        let young = path.with_extension("new");
        match std::fs::remove_file(&young) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&young)?;
        std::fs::set_permissions(&young, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&young, path)?;
        Ok(Self { listener })
    }

    /// Answers until the listener fails.
    pub async fn run(self, answerer: Answerer) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answerer = answerer.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, answerer).await {
                            tracing::warn!(%error, "an operator's question was not answered");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an operator's connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn converse(mut stream: UnixStream, answerer: Answerer) -> io::Result<()> {
    let mut line = Vec::new();
    let (reader, mut writer) = stream.split();
    tokio::time::timeout(
        PATIENCE,
        BufReader::new(reader.take(LONGEST)).read_until(b'\n', &mut line),
    )
    .await??;
    let reply = match serde_json::from_slice::<Ask>(&line) {
        Err(error) => Reply::from(Answer::Failed {
            reason: format!("the question cannot be read ({error}); is it another version?"),
        }),
        Ok(ask) => tokio::task::spawn_blocking(move || answerer(ask))
            .await
            .map_err(io::Error::other)?,
    };
    let text = serde_json::to_vec(&reply.answer).map(|mut text| {
        text.push(b'\n');
        text
    });
    let told = async { tokio::time::timeout(PATIENCE, writer.write_all(&text?)).await? };
    let told = told.await;
    let Some(end) = reply.end else {
        return told;
    };
    if told.is_ok() {
        until_over(&mut stream).await;
    }
    tokio::task::spawn_blocking(end).await.map_err(io::Error::other)?;
    told
}

/// Waits until the asker closes its end or is gone. What it still says means nothing.
async fn until_over(stream: &mut UnixStream) {
    let mut rest = [0; 64];
    while matches!(stream.read(&mut rest).await, Ok(count) if count > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::client::{AskError, ask};

    #[tokio::test]
    async fn the_operator_asks_and_the_socket_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let path = run.join("operator.sock");
        let data_dir = dir.path().to_path_buf();
        let question = Ask::Report { target: "job".into() };
        assert!(
            matches!(ask(&data_dir, &question), Err(AskError::NoServer { .. })),
            "control: nobody listens yet"
        );
        for _restart in 0..2 {
            let socket = OperatorSocket::bind(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let running = tokio::spawn(socket.run(Arc::new(|ask| {
                Reply::from(Answer::Failed {
                    reason: format!("{ask:?}"),
                })
            })));
            let (dir, question) = (data_dir.clone(), question.clone());
            let answer = tokio::task::spawn_blocking(move || ask(&dir, &question)).await.unwrap();
            assert!(matches!(answer, Err(AskError::Refused(text)) if text.contains("Report")));
            running.abort();
        }
    }

    #[tokio::test]
    async fn what_a_conversation_holds_is_given_back_when_the_asker_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.sock");
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(OperatorSocket::bind(&path).unwrap().run(Arc::new(move |_| {
            let tell = tell.clone();
            Reply {
                answer: Answer::Vpcs { vpcs: vec![] },
                end: Some(Box::new(move || tell.send(()).unwrap())),
            }
        })));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"{\"ask\":\"vpcs\"}\n").await.unwrap();
        let mut text = String::new();
        BufReader::new(&mut stream).read_line(&mut text).await.unwrap();
        assert!(text.contains("vpcs"), "{text}");
        // More words do not end it.
        stream.write_all(b"still here\n").await.unwrap();
        tokio::task::yield_now().await;
        assert!(told.try_recv().is_err(), "control: it is held while the asker is there");
        drop(stream);
        told.recv().await.unwrap();
    }

    #[tokio::test]
    async fn an_unreadable_question_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.sock");
        tokio::spawn(
            OperatorSocket::bind(&path)
                .unwrap()
                .run(Arc::new(|_| panic!("not asked"))),
        );
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"{\"ask\":\"shutdown\"}\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("failed"), "{text}");
    }
}
