//! S3 as a client inside a VPC speaks it: HTTPS to the regional name, path style, signed with a role's session.
//!
//! A connection that cannot be made is no path (SM-64): asked again only while nothing says why. A connection that breaks
//! is tried again, and a download goes on where it broke off.

use super::name::{self, NameError};
use super::patient::{dial, pause};
use super::xml::{self, Element};
use super::{DialError, Inside, Secure, Settings};
use http::{HeaderMap, HeaderName, HeaderValue};
use isolarium_model::Secret;
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::time::{Clock, IdSource};
use isolarium_netplan::intent::Transport;
use isolarium_reconcile::Cut;
use isolarium_reconcile::http::{Asked, Connection, PIECE, Patient, Reply, Sent, Stream};
use isolarium_reconcile::transfer::ObjectEntry;
use isolarium_wire::sigv4::{Signer, sign};
use rustls::pki_types::ServerName;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const HTTPS: u16 = 443;
const DNS: u16 = 53;
/// The largest XML answer that is read: a page of a listing with the longest keys is 4 MiB.
const DOCUMENT: usize = 16 << 20;
/// How long the end of an upload may take that was cut.
const ABORT: Duration = Duration::from_millis(500);
/// Most parts of an upload.
const PARTS: u64 = 10_000;

/// Why S3 did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum S3Error {
    #[error("{name} has no address here: {cause}")]
    Name {
        name: String,
        #[source]
        cause: NameError,
        /// What stands in the way to the name server.
        why: Option<String>,
    },
    /// No connection to S3. `why` is what stands in the way, if that is known.
    #[error("{to} cannot be reached from the subnet")]
    NoPath { to: SocketAddrV4, why: Option<String> },
    /// S3 said no.
    #[error("{code}: {message}")]
    Refused { code: String, message: String },
    /// The connection broke, again and again.
    #[error("the connection to S3 broke")]
    Broken(#[source] io::Error),
    /// The host's own trouble.
    #[error("the connection to S3 could not be begun")]
    Dial(#[source] DialError),
    #[error("the data could not be read or written on this host; check the disk that holds the data directory")]
    Disk(#[source] io::Error),
    #[error("the request could not be made: {0}")]
    Request(&'static str),
}

/// A session of an execution role.
pub(super) struct Keys {
    pub access_key_id: String,
    pub secret: Secret,
    pub token: Secret,
}

/// What is known of the way to S3 when a connection cannot be made.
pub(super) trait Way {
    /// What stands in the way to this address, in words for the job's owner. `None`: nothing that the VPC's owner set.
    fn blocked(&self, to: SocketAddrV4, transport: Transport) -> Option<String>;
}

/// One role's S3 from one interface.
pub(super) struct Client<'a> {
    pub inside: &'a dyn Inside,
    pub way: &'a dyn Way,
    pub secure: &'a Secure,
    pub settings: &'a Settings,
    pub clock: &'a dyn Clock,
    pub ids: &'a dyn IdSource,
    pub keys: Keys,
    pub region: &'a str,
    /// Name servers of the VPC.
    pub servers: Vec<Ipv4Addr>,
    /// A connection that is open and idle.
    pub connection: Option<Connection>,
    /// Ends everything.
    pub cut: Arc<Cut>,
}

/// One call, ready to be made as often as needed.
struct Call<'a> {
    method: &'static str,
    uri: &'a S3Uri,
    /// Encoded.
    query: String,
    headers: Vec<(&'static str, String)>,
    body: Body<'a>,
}

enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    /// A piece of a file.
    Piece {
        file: &'a File,
        from: u64,
        length: u64,
    },
}

/// A call without headers of its own.
fn plain<'a>(method: &'static str, uri: &'a S3Uri, query: String, body: Body<'a>) -> Call<'a> {
    Call {
        method,
        uri,
        query,
        headers: Vec::new(),
        body,
    }
}

/// The headers that ask for encryption under a key (CC-36).
fn encryption(kms_key: Option<&str>) -> Vec<(&'static str, String)> {
    kms_key.map_or_else(Vec::new, |key| {
        vec![
            ("x-amz-server-side-encryption", "aws:kms".into()),
            ("x-amz-server-side-encryption-aws-kms-key-id", key.into()),
        ]
    })
}

/// `text` as it stands in a path or, with the slash encoded, in a query.
fn encoded(text: &str, slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (byte == b'/' && !slash) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl Client<'_> {
    /// The name that is looked up and asked.
    fn host(&self) -> String {
        format!("s3.{}.amazonaws.com", self.region)
    }

    fn connect(&self) -> Result<Connection, S3Error> {
        let name = self.host();
        let id = u16::from_str_radix(&self.ids.hex(4), 16).unwrap_or(1);
        let patience = self.settings.name_timeout;
        let found = name::look_up(self.inside, &self.servers, &name, id, patience, &self.cut);
        let found = found.map_err(|cause| match cause {
            NameError::Dial(error) => S3Error::Dial(error),
            cause => S3Error::Name {
                name: name.clone(),
                why: self.servers.first().and_then(|server| {
                    let server = SocketAddrV4::new(*server, DNS);
                    self.way.blocked(server, Transport::Udp)
                }),
                cause,
            },
        })?;
        let mut failed = S3Error::Request("the name has no address");
        for address in found {
            let to = SocketAddrV4::new(address, HTTPS);
            match dial(self.inside, to, self.settings.connect_timeout, &self.cut) {
                Ok(stream) => return self.secured(stream, name).map_err(S3Error::Broken),
                Err(DialError::NoPath(cause)) => {
                    tracing::debug!(%to, cause, "S3 was not reached from a subnet");
                    failed = S3Error::NoPath {
                        to,
                        why: self.way.blocked(to, Transport::Tcp),
                    };
                }
                Err(error @ DialError::Host(_)) => return Err(S3Error::Dial(error)),
            }
        }
        Err(failed)
    }

    fn secured(&self, stream: TcpStream, name: String) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let stream = Patient::new(stream, self.settings.idle_timeout, Arc::clone(&self.cut))?;
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let config = Arc::clone(&self.secure.0);
        let session = rustls::ClientConnection::new(config, name).map_err(io::Error::other)?;
        let stream = Tls(rustls::StreamOwned::new(session, stream));
        Ok(Connection::new(Box::new(stream), self.settings.idle_timeout))
    }

    /// Makes the call once; the connection it was made on comes back with the head of the answer.
    fn once(&mut self, call: &Call<'_>) -> Result<(Connection, Reply), S3Error> {
        let mut connection = match self.connection.take() {
            Some(mut open) => {
                open.set_cut(Arc::clone(&self.cut));
                open
            }
            None => self.connect()?,
        };
        let path = match call.uri.key.is_empty() {
            true => format!("/{}", call.uri.bucket),
            false => format!("/{}/{}", call.uri.bucket, encoded(&call.uri.key, false)),
        };
        let mut headers = HeaderMap::new();
        let text = |value: &str| HeaderValue::from_str(value).map_err(|_| S3Error::Request("a header is no text"));
        headers.insert(http::header::HOST, text(&self.host())?);
        headers.insert(http::header::USER_AGENT, HeaderValue::from_static(AGENT));
        for (name, value) in &call.headers {
            headers.insert(HeaderName::from_static(name), text(value)?);
        }
        let signed: &[u8] = match &call.body {
            Body::None => b"",
            Body::Bytes(bytes) => bytes,
            Body::Piece { .. } => {
                // As AWS's clients do over TLS, which keeps the bytes whole.
                headers.insert(
                    HeaderName::from_static("x-amz-content-sha256"),
                    HeaderValue::from_static("UNSIGNED-PAYLOAD"),
                );
                b""
            }
        };
        let signer = Signer {
            access_key_id: &self.keys.access_key_id,
            secret: self.keys.secret.expose(),
            token: Some(self.keys.token.expose()),
            region: self.region,
            service: "s3",
            now: self.clock.now().0.div_euclid(1000),
        };
        sign(&signer, call.method, &path, &call.query, &mut headers, signed)
            .map_err(|_| S3Error::Request("it could not be signed"))?;
        let target = match call.query.is_empty() {
            true => path,
            false => format!("{path}?{}", call.query),
        };
        let asked = Asked {
            method: call.method,
            target: &target,
            headers: &headers,
        };
        let answered = match &call.body {
            Body::None if call.method == "POST" => connection.ask(
                &asked,
                Some(Sent {
                    bytes: &mut io::empty(),
                    length: Some(0),
                }),
            ),
            Body::None => connection.ask(&asked, None),
            Body::Bytes(bytes) => {
                let mut reader: &[u8] = bytes;
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                connection.ask(
                    &asked,
                    Some(Sent {
                        bytes: &mut reader,
                        length: Some(length),
                    }),
                )
            }
            Body::Piece { file, from, length } => {
                let mut reader: &File = file;
                reader.seek(SeekFrom::Start(*from)).map_err(S3Error::Disk)?;
                connection.ask(
                    &asked,
                    Some(Sent {
                        bytes: &mut reader,
                        length: Some(*length),
                    }),
                )
            }
        };
        answered.map(|reply| (connection, reply)).map_err(S3Error::Broken)
    }

    /// Makes the call until it is answered, and refuses answers that are no success.
    fn call(&mut self, call: &Call<'_>) -> Result<(Connection, Reply), S3Error> {
        let mut attempt = 0;
        loop {
            let fresh = self.connection.is_none();
            let failed = match self.once(call) {
                Ok((connection, reply)) if (200..300).contains(&reply.status) => return Ok((connection, reply)),
                Ok((connection, reply)) => match self.refusal(connection, reply) {
                    Ok(refused) => refused,
                    Err(broken) => S3Error::Broken(broken),
                },
                // An idle connection may have been closed at the other end: that was no attempt.
                Err(S3Error::Broken(_)) if !fresh => continue,
                Err(error) => error,
            };
            attempt += 1;
            if attempt >= self.settings.attempts || self.cut.why().is_some() || !is_worth_another(&failed) {
                return Err(failed);
            }
            pause(self.settings.pause.saturating_mul(1 << attempt.min(6)), &self.cut);
        }
    }

    fn refusal(&mut self, mut connection: Connection, mut reply: Reply) -> io::Result<S3Error> {
        let status = reply.status;
        let body = connection.collect(&mut reply, DOCUMENT)?;
        self.keep(connection, &reply);
        let said = xml::read(&body);
        let text = |name: &str| said.as_ref().and_then(|root| root.text_of(name)).map(str::to_owned);
        Ok(S3Error::Refused {
            code: text("Code").unwrap_or_else(|| status.to_string()),
            message: text("Message").unwrap_or_else(|| format!("S3 answered with status {status}.")),
        })
    }

    /// A connection for the next call.
    fn keep(&mut self, connection: Connection, reply: &Reply) {
        if connection.is_reusable(reply) {
            self.connection = Some(connection);
        }
    }

    /// A call whose answer is a document, or nothing.
    fn document(&mut self, call: &Call<'_>) -> Result<Option<Element>, S3Error> {
        let (mut connection, mut reply) = self.call(call)?;
        let body = connection.collect(&mut reply, DOCUMENT).map_err(S3Error::Broken)?;
        self.keep(connection, &reply);
        Ok(xml::read(&body))
    }

    /// Every object whose key begins with the prefix, sorted by key.
    pub fn list(&mut self, prefix: &S3Uri) -> Result<Vec<ObjectEntry>, S3Error> {
        let bucket = S3Uri {
            bucket: prefix.bucket.clone(),
            key: String::new(),
        };
        let (mut found, mut after) = (Vec::new(), None::<String>);
        let wrong = || S3Error::Request("the listing cannot be read");
        loop {
            let mut query = String::new();
            if let Some(token) = &after {
                query = format!("continuation-token={}&", encoded(token, true));
            }
            query.push_str(&format!("list-type=2&prefix={}", encoded(&prefix.key, true)));
            let call = Call {
                method: "GET",
                uri: &bucket,
                query,
                headers: Vec::new(),
                body: Body::None,
            };
            let page = self.document(&call)?.ok_or_else(wrong)?;
            for object in page.all("Contents") {
                let bytes = object.text_of("Size").and_then(|size| size.parse().ok());
                found.push(ObjectEntry {
                    key: object.text_of("Key").ok_or_else(wrong)?.to_owned(),
                    bytes: bytes.ok_or_else(wrong)?,
                });
            }
            match page.text_of("NextContinuationToken") {
                Some(token) if page.text_of("IsTruncated") == Some("true") => after = Some(token.to_owned()),
                _ => return Ok(found),
            }
        }
    }

    /// An object's bytes, written behind what `to` holds already; refused above `max` bytes.
    pub fn get(&mut self, object: &S3Uri, to: &mut dyn Write, max: u64) -> Result<u64, S3Error> {
        let (mut done, mut tag, mut broken) = (0u64, None::<String>, 0);
        let mut piece = vec![0; PIECE];
        loop {
            let mut headers = Vec::new();
            if let (true, Some(tag)) = (done > 0, &tag) {
                headers.push(("range", format!("bytes={done}-")));
                headers.push(("if-match", tag.clone()));
            }
            let call = Call {
                method: "GET",
                uri: object,
                query: String::new(),
                headers,
                body: Body::None,
            };
            let (mut connection, mut reply) = self.call(&call)?;
            if done > 0 && reply.status != 206 {
                return Err(S3Error::Request("the object cannot be read on from where it broke off"));
            }
            let given = reply.headers.get(http::header::ETAG);
            tag = tag.or_else(|| given.and_then(|value| value.to_str().ok()).map(str::to_owned));
            let before = done;
            let end = loop {
                match connection.read(&mut reply, &mut piece) {
                    Ok(0) => break Ok(()),
                    Ok(got) => {
                        done = done.saturating_add(u64::try_from(got).unwrap_or(0));
                        if done > max {
                            return Err(S3Error::Refused {
                                code: "EntityTooLarge".into(),
                                message: format!("The object has more than {max} bytes."),
                            });
                        }
                        to.write_all(piece.get(..got).unwrap_or_default())
                            .map_err(S3Error::Disk)?;
                    }
                    Err(error) => break Err(error),
                }
            };
            match end {
                Ok(()) => {
                    self.keep(connection, &reply);
                    return Ok(done);
                }
                Err(error) => {
                    // What moves on is not counted.
                    broken = if done > before { 1 } else { broken + 1 };
                    let over = self.cut.why().is_some() || (done > 0 && tag.is_none());
                    if broken >= self.settings.attempts || over {
                        return Err(S3Error::Broken(error));
                    }
                    pause(self.settings.pause, &self.cut);
                }
            }
        }
    }

    /// Stores a file as an object, in parts when it is large; under a key of the key store where one is named.
    pub fn put(&mut self, object: &S3Uri, file: &File, kms_key: Option<&str>) -> Result<(), S3Error> {
        let length = file.metadata().map_err(S3Error::Disk)?.len();
        if length > self.settings.part {
            return self.put_parts(object, file, length, kms_key);
        }
        let call = Call {
            method: "PUT",
            uri: object,
            query: String::new(),
            headers: encryption(kms_key),
            body: Body::Piece { file, from: 0, length },
        };
        self.document(&call).map(|_| ())
    }

    fn put_parts(&mut self, object: &S3Uri, file: &File, length: u64, kms_key: Option<&str>) -> Result<(), S3Error> {
        let begun = self.document(&Call {
            headers: encryption(kms_key),
            ..plain("POST", object, "uploads=".into(), Body::None)
        })?;
        let upload = begun.as_ref().and_then(|answer| answer.text_of("UploadId"));
        let upload = encoded(upload.ok_or(S3Error::Request("the upload has no id"))?, true);
        let sent = self.parts(object, file, length, &upload).and_then(|list| {
            let done = self.document(&plain(
                "POST",
                object,
                format!("uploadId={upload}"),
                Body::Bytes(list.as_bytes()),
            ))?;
            // S3 may say 200 first and what went wrong afterwards.
            match done {
                Some(said) if said.name == "Error" => Err(S3Error::Refused {
                    code: said.text_of("Code").unwrap_or_default().into(),
                    message: said.text_of("Message").unwrap_or_default().into(),
                }),
                _ => Ok(()),
            }
        });
        if sent.is_err() && self.cut.why().is_some() {
            // The parts are not left behind; that is not waited for long.
            self.cut = Arc::new(Cut::within(ABORT));
        }
        if sent.is_err()
            && let Err(error) = self.document(&plain("DELETE", object, format!("uploadId={upload}"), Body::None))
        {
            tracing::warn!(%object, %error, "a broken upload could not be aborted; its parts stay until somebody does");
        }
        sent
    }

    /// Sends every part; returns the list that completes the upload.
    fn parts(&mut self, object: &S3Uri, file: &File, length: u64, upload: &str) -> Result<String, S3Error> {
        let size = self.settings.part.max(length.div_ceil(PARTS));
        let (mut from, mut number) = (0, 1);
        let mut list = "<CompleteMultipartUpload>".to_string();
        while from < length {
            let piece = size.min(length - from);
            let call = Call {
                method: "PUT",
                uri: object,
                query: format!("partNumber={number}&uploadId={upload}"),
                headers: Vec::new(),
                body: Body::Piece {
                    file,
                    from,
                    length: piece,
                },
            };
            let (mut connection, mut reply) = self.call(&call)?;
            connection.collect(&mut reply, DOCUMENT).map_err(S3Error::Broken)?;
            let tag = reply.headers.get(http::header::ETAG);
            let tag = tag.and_then(|value| value.to_str().ok());
            let tag = tag.ok_or(S3Error::Request("a part has no ETag"))?;
            list.push_str(&format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>",
                tag.replace('"', "&quot;")
            ));
            self.keep(connection, &reply);
            from += piece;
            number += 1;
        }
        list.push_str("</CompleteMultipartUpload>");
        Ok(list)
    }

    /// Deletes an object; not an error when it is gone.
    pub fn delete(&mut self, object: &S3Uri) -> Result<(), S3Error> {
        let call = Call {
            method: "DELETE",
            uri: object,
            query: String::new(),
            headers: Vec::new(),
            body: Body::None,
        };
        self.document(&call).map(|_| ())
    }
}

/// What the platform calls itself.
const AGENT: &str = "sagemaker.amazonaws.com";

/// Whether the same call may end otherwise a moment later.
fn is_worth_another(error: &S3Error) -> bool {
    match error {
        S3Error::Broken(_) => true,
        S3Error::Name { cause, why, .. } => why.is_none() && matches!(cause, NameError::Silence),
        S3Error::NoPath { why, .. } => why.is_none(),
        S3Error::Refused { code, .. } => matches!(
            code.as_str(),
            "InternalError" | "SlowDown" | "ServiceUnavailable" | "503"
        ),
        S3Error::Dial(_) | S3Error::Disk(_) | S3Error::Request(_) => false,
    }
}

/// TLS over a stream that is waited for patiently.
struct Tls(rustls::StreamOwned<rustls::ClientConnection, Patient>);

impl io::Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Tls {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for Tls {
    fn set_patience(&mut self, patience: Duration) {
        self.0.sock.set_patience(patience);
    }

    fn set_cut(&mut self, cut: Arc<Cut>) {
        self.0.sock.set_cut(cut);
    }

    fn set_until(&mut self, until: Option<std::time::Instant>) {
        self.0.sock.set_until(until);
    }
}
