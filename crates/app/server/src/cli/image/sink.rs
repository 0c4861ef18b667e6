//! Where images go: the registry of a running server.

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, Limited, StreamBody};
use hyper_util::rt::TokioIo;
use isolarium_model::Sha256Digest;
use isolarium_model::ecr::is_repository_name;
use std::future::{Future, ready};
use std::io::{self, Read};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Most of an answer that is read.
const ANSWER: usize = 1 << 20;
/// Bytes sent at once.
const CHUNK: usize = 256 << 10;

/// Why the registry did not take something.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("the registry at {0} cannot be reached; is the server running?")]
    Unreachable(String, #[source] BoxError),
    #[error("the registry answered {status}: {text}")]
    Refused { status: u16, text: String },
    #[error("{0} is not the name of a repository")]
    Name(String),
}

/// Takes the parts of one image; everything may be repeated.
pub trait ImageSink {
    /// Whether a blob is there already.
    ///
    /// # Errors
    /// When the registry cannot tell.
    fn has_blob(&mut self, digest: &Sha256Digest) -> Result<bool, SinkError>;
    /// Takes a blob of `size` bytes.
    ///
    /// # Errors
    /// When the registry refuses it.
    fn put_blob(&mut self, digest: &Sha256Digest, size: u64, content: &mut (dyn Read + Send)) -> Result<(), SinkError>;
    /// Takes a manifest whose blobs are there, under a tag or its digest alone.
    ///
    /// # Errors
    /// When the registry refuses it.
    fn put_manifest(
        &mut self,
        tag: Option<&str>,
        digest: &Sha256Digest,
        media_type: &str,
        text: &[u8],
    ) -> Result<(), SinkError>;
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The head of a request.
struct Ask<'a> {
    method: &'static str,
    path: String,
    kind: &'a str,
    length: u64,
}

/// One repository of a registry that is reached by HTTP.
pub struct HttpSink {
    authority: String,
    /// The registry's own name, which tells the account.
    host: Option<String>,
    repository: String,
    /// The `Authorization` header.
    authorization: String,
    runtime: tokio::runtime::Runtime,
}

impl HttpSink {
    /// A sink for `repository` at `endpoint` (`http://ADDR:PORT`), entered with an authorization token as
    /// `ecr:GetAuthorizationToken` gives it.
    ///
    /// # Errors
    /// When the repository's name or the endpoint is malformed.
    pub fn new(endpoint: &str, repository: &str, authorization_token: &str) -> Result<Self, SinkError> {
        if !is_repository_name(repository) {
            return Err(SinkError::Name(repository.into()));
        }
        let unreachable = |source: BoxError| SinkError::Unreachable(endpoint.into(), source);
        let uri: Uri = endpoint
            .parse()
            .map_err(|error: http::uri::InvalidUri| unreachable(error.into()))?;
        let authority = uri
            .authority()
            .ok_or_else(|| unreachable("no host and port".into()))?
            .to_string();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            authority,
            host: None,
            repository: repository.into(),
            authorization: format!("Basic {authorization_token}"),
            runtime: runtime.map_err(|error| unreachable(error.into()))?,
        })
    }

    /// The same, with requests for the registry of this host name.
    pub fn for_host(self, host: impl Into<String>) -> Self {
        Self {
            host: Some(host.into()),
            ..self
        }
    }

    /// One request on a connection of its own; `feed` fills the body meanwhile.
    fn send<B>(&self, ask: &Ask<'_>, body: B, feed: impl Future<Output = ()>) -> Result<(StatusCode, Bytes), SinkError>
    where
        B: http_body::Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        let unreachable = |source: BoxError| SinkError::Unreachable(self.authority.clone(), source);
        let request = Request::builder()
            .method(ask.method)
            .uri(&ask.path)
            .header(header::HOST, self.host.as_ref().unwrap_or(&self.authority))
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, ask.kind)
            .header(header::CONTENT_LENGTH, ask.length)
            .body(Box::pin(body))
            .map_err(|error| unreachable(error.into()))?;
        self.runtime.block_on(async {
            let stream = TcpStream::connect(&self.authority)
                .await
                .map_err(|error| unreachable(error.into()))?;
            let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = shaken.map_err(|error| unreachable(error.into()))?;
            let exchange = async {
                let (head, body) = sender.send_request(request).await?.into_parts();
                Ok::<_, hyper::Error>((head.status, Limited::new(body, ANSWER).collect().await))
            };
            tokio::pin!(connection, exchange, feed);
            let (mut connected, mut fed) = (true, false);
            let answer = loop {
                tokio::select! {
                    biased;
                    answer = &mut exchange => break answer,
                    ended = &mut connection, if connected => {
                        connected = false;
                        ended.map_err(|error| unreachable(error.into()))?;
                    }
                    () = &mut feed, if !fed => fed = true,
                }
            };
            let (status, body) = answer.map_err(|error| unreachable(error.into()))?;
            Ok((status, body.map_err(unreachable)?.to_bytes()))
        })
    }

    fn expect(&self, answer: (StatusCode, Bytes)) -> Result<(), SinkError> {
        let (status, text) = answer;
        if status.is_success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&text);
        let message = serde_json::from_str::<serde_json::Value>(&text).ok();
        let message = message
            .as_ref()
            .and_then(|value| value.pointer("/errors/0/message")?.as_str());
        Err(SinkError::Refused {
            status: status.as_u16(),
            text: message.unwrap_or(&text).into(),
        })
    }
}

impl ImageSink for HttpSink {
    fn has_blob(&mut self, digest: &Sha256Digest) -> Result<bool, SinkError> {
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        let ask = Ask {
            method: "HEAD",
            path,
            kind: "application/octet-stream",
            length: 0,
        };
        let answer = self.send(&ask, Empty::<Bytes>::new(), ready(()))?;
        match answer.0 {
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.expect(answer).map(|()| true),
        }
    }

    fn put_blob(&mut self, digest: &Sha256Digest, size: u64, content: &mut (dyn Read + Send)) -> Result<(), SinkError> {
        let path = format!("/v2/{}/blobs/uploads/?digest={digest}", self.repository);
        let ask = Ask {
            method: "POST",
            path,
            kind: "application/octet-stream",
            length: size,
        };
        let (chunks, queue) = mpsc::channel::<io::Result<Frame<Bytes>>>(2);
        let frames = futures_util::stream::unfold(queue, |mut queue| async move {
            let frame = queue.recv().await?;
            Some((frame, queue))
        });
        let short: String = digest.hex().chars().take(12).collect();
        let bar = super::progress::sending(format!("sending {short}"), size);
        let mut content = bar.wrap_read(content);
        let feed = async move {
            loop {
                let mut chunk = vec![0; CHUNK];
                // Reading blocks this thread, which does nothing else meanwhile.
                let frame = match content.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(count) => {
                        chunk.truncate(count);
                        Ok(Frame::data(Bytes::from(chunk)))
                    }
                    Err(error) => Err(error),
                };
                let last = frame.is_err();
                if chunks.send(frame).await.is_err() || last {
                    return;
                }
            }
        };
        let answer = self.send(&ask, StreamBody::new(frames), feed)?;
        self.expect(answer)
    }

    fn put_manifest(
        &mut self,
        tag: Option<&str>,
        digest: &Sha256Digest,
        media_type: &str,
        text: &[u8],
    ) -> Result<(), SinkError> {
        let path = format!("/v2/{}/manifests/{}", self.repository, tag.unwrap_or(digest.as_str()));
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let ask = Ask {
            method: "PUT",
            path,
            kind: media_type,
            length,
        };
        let answer = self.send(&ask, Full::new(Bytes::copy_from_slice(text)), ready(()))?;
        self.expect(answer)
    }
}
