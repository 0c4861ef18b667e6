//! HTTP/1.1 as a client speaks it over one blocking connection: a head, a body, an answer in pieces. Transfers through VPCs
//! and invocations of transform jobs speak it.

mod patient;

pub use patient::{LOOK, Patient, goes_on, is_silence};

use crate::Cut;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest head of an answer, bytes.
const HEAD: usize = 64 << 10;
/// Bytes moved at a time.
pub const PIECE: usize = 128 << 10;
/// How long the word to go on is waited for before a body is sent without it.
const GO_ON: Duration = Duration::from_secs(2);

/// A connected stream whose reads and writes can be given a limit.
pub trait Stream: Read + Write + Send {
    /// Every read and write may pause this long.
    fn set_patience(&mut self, patience: Duration);
    /// What ends every read and write from now on.
    fn set_cut(&mut self, cut: Arc<Cut>);
    /// When everything ends, however lively the peer is.
    fn set_until(&mut self, until: Option<Instant>);
}

/// One connection; asked one thing after the other.
pub struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    patience: Duration,
    /// The part of an answer's head that has arrived.
    head: Vec<u8>,
    reusable: bool,
    /// Large bodies wait for the word to go on.
    waits: bool,
}

/// What is asked.
pub struct Asked<'a> {
    pub method: &'a str,
    /// Path and query, percent-encoded.
    pub target: &'a str,
    /// With `host`, without the ones that say how long the body is.
    pub headers: &'a HeaderMap,
}

/// The body of a question.
pub struct Sent<'a> {
    pub bytes: &'a mut dyn Read,
    /// Exactly so many of the bytes; without it all of them, in chunks.
    pub length: Option<u64>,
}

/// The head of an answer, and how much of its body is still to be read.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    rest: Rest,
}

#[derive(Debug, PartialEq, Eq)]
enum Rest {
    Bytes(u64),
    /// Bytes left of the current chunk; `None` before the first.
    Chunks(Option<u64>),
    UntilClose,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

impl Connection {
    /// A connection over a fresh stream.
    pub fn new(mut stream: Box<dyn Stream>, patience: Duration) -> Self {
        stream.set_patience(patience);
        Self {
            stream: BufReader::with_capacity(PIECE, stream),
            patience,
            head: Vec::new(),
            reusable: true,
            waits: true,
        }
    }

    /// For peers to which bodies are sent at once.
    #[must_use]
    pub fn without_waiting(self) -> Self {
        Self { waits: false, ..self }
    }

    /// For another transfer, which ends when `cut` says so.
    pub fn set_cut(&mut self, cut: Arc<Cut>) {
        self.stream.get_mut().set_cut(cut);
    }

    /// What is asked and answered from now on must be over by then.
    pub fn set_until(&mut self, until: Option<Instant>) {
        self.stream.get_mut().set_until(until);
    }

    /// Whether another question may follow: the last answer was read to its end and nobody wants to close.
    pub fn is_reusable(&self, last: &Reply) -> bool {
        self.reusable && last.rest == Rest::Bytes(0)
    }

    /// Asks, and reads the head of the answer. A refusal that comes before the body is sent is an answer too.
    pub fn ask(&mut self, asked: &Asked<'_>, body: Option<Sent<'_>>) -> io::Result<Reply> {
        let mut head = format!("{} {} HTTP/1.1\r\n", asked.method, asked.target).into_bytes();
        for (name, value) in asked.headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        // Large bodies wait for the word, so that a refusal costs no transfer.
        let length = body.as_ref().map(|body| body.length);
        let waits = self.waits && length.flatten().is_some_and(|length| length > 64 << 10);
        match length {
            Some(Some(length)) => head.extend_from_slice(format!("content-length: {length}\r\n").as_bytes()),
            Some(None) => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            None => {}
        }
        if waits {
            head.extend_from_slice(b"expect: 100-continue\r\n");
        }
        head.extend_from_slice(b"\r\n");
        self.head.clear();
        self.stream.get_mut().write_all(&head)?;
        self.stream.get_mut().flush()?;
        if waits && let Some(early) = self.early()? {
            // The body was not sent: what follows on this connection would be taken for it.
            self.reusable = false;
            return Ok(early);
        }
        if let Some(body) = body
            && let Err(broken) = self.send(body)
        {
            self.reusable = false;
            // Whoever stops reading may have said why.
            return self.final_head(asked.method).map_err(|_| broken);
        }
        self.final_head(asked.method)
    }

    /// An answer that comes in place of the word to go on.
    fn early(&mut self) -> io::Result<Option<Reply>> {
        let patience = self.patience;
        self.stream.get_mut().set_patience(GO_ON.min(patience));
        let read = self.read_head();
        self.stream.get_mut().set_patience(patience);
        match read {
            Ok(reply) if reply.status == 100 => Ok(None),
            Ok(reply) => Ok(Some(reply)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, body: Sent<'_>) -> io::Result<()> {
        let Some(mut left) = body.length else {
            return self.send_chunks(body.bytes);
        };
        let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let got = body.bytes.read(piece.get_mut(..most).unwrap_or_default())?;
            if got == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file became shorter"));
            }
            self.stream.get_mut().write_all(piece.get(..got).unwrap_or_default())?;
            left = left.saturating_sub(u64::try_from(got).unwrap_or(left));
        }
        self.stream.get_mut().flush()
    }

    fn send_chunks(&mut self, bytes: &mut dyn Read) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let got = bytes.read(&mut piece)?;
            let stream = self.stream.get_mut();
            write!(stream, "{got:x}\r\n")?;
            stream.write_all(piece.get(..got).unwrap_or_default())?;
            stream.write_all(b"\r\n")?;
            if got == 0 {
                return stream.flush();
            }
        }
    }

    fn final_head(&mut self, method: &str) -> io::Result<Reply> {
        loop {
            let mut reply = self.read_head()?;
            if reply.status >= 200 {
                if method == "HEAD" || reply.status == 204 || reply.status == 304 {
                    reply.rest = Rest::Bytes(0);
                }
                return Ok(reply);
            }
        }
    }

    fn read_head(&mut self) -> io::Result<Reply> {
        loop {
            let before = self.head.len();
            let room = u64::try_from(HEAD.saturating_sub(before)).unwrap_or(0);
            let got = (&mut self.stream).take(room).read_until(b'\n', &mut self.head)?;
            if got == 0 {
                return Err(match before >= HEAD {
                    true => bad("the head of the answer is too long"),
                    false => io::Error::new(ErrorKind::UnexpectedEof, "closed before the answer"),
                });
            }
            let line = self.head.get(before..).unwrap_or_default();
            if line == b"\r\n" || line == b"\n" {
                break;
            }
        }
        let bytes = std::mem::take(&mut self.head);
        self.parse(&bytes)
    }

    fn parse(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut head = httparse::Response::new(&mut fields);
        let whole = head.parse(bytes).map_err(|_| bad("the answer is no HTTP"))?;
        let (true, Some(status)) = (whole.is_complete(), head.code) else {
            return Err(bad("the answer is no HTTP"));
        };
        let mut headers = HeaderMap::new();
        for field in head.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad("a header has no name"))?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| bad("a header cannot be read"))?;
            headers.append(name, value);
        }
        let text = |name: http::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if head.version == Some(0)
            || text(http::header::CONNECTION).is_some_and(|value| value.eq_ignore_ascii_case("close"))
        {
            self.reusable = false;
        }
        let chunked = text(http::header::TRANSFER_ENCODING).is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = text(http::header::CONTENT_LENGTH).map(|value| value.trim().parse::<u64>());
        let rest = match length {
            _ if chunked => Rest::Chunks(None),
            Some(Ok(length)) => Rest::Bytes(length),
            Some(Err(_)) => return Err(bad("the answer's length cannot be read")),
            None if status < 200 => Rest::Bytes(0),
            None => Rest::UntilClose,
        };
        if rest == Rest::UntilClose {
            self.reusable = false;
        }
        Ok(Reply { status, headers, rest })
    }

    /// The next bytes of the answer's body; 0 at its end.
    pub fn read(&mut self, reply: &mut Reply, into: &mut [u8]) -> io::Result<usize> {
        let early = || io::Error::new(ErrorKind::UnexpectedEof, "the answer broke off");
        match &mut reply.rest {
            Rest::Bytes(0) => Ok(0),
            Rest::UntilClose => self.stream.read(into),
            Rest::Bytes(left) => {
                let got = limited(&mut self.stream, into, *left)?;
                *left = left.saturating_sub(u64::try_from(got).unwrap_or(0));
                if got == 0 { Err(early()) } else { Ok(got) }
            }
            Rest::Chunks(current) => {
                if current.is_none_or(|left| left == 0) {
                    if current.is_some() {
                        line(&mut self.stream)?;
                    }
                    let size = line(&mut self.stream)?;
                    let digits = size.split(';').next().unwrap_or_default().trim();
                    let size = u64::from_str_radix(digits, 16).map_err(|_| bad("a chunk has no length"))?;
                    if size == 0 {
                        while !line(&mut self.stream)?.is_empty() {}
                        reply.rest = Rest::Bytes(0);
                        return Ok(0);
                    }
                    *current = Some(size);
                }
                let left = current.as_mut().ok_or_else(early)?;
                let got = limited(&mut self.stream, into, *left)?;
                *left = left.saturating_sub(u64::try_from(got).unwrap_or(0));
                if got == 0 { Err(early()) } else { Ok(got) }
            }
        }
    }

    /// The whole body, refused above `max` bytes.
    pub fn collect(&mut self, reply: &mut Reply, max: usize) -> io::Result<Vec<u8>> {
        let (mut all, mut piece) = (Vec::new(), vec![0; PIECE]);
        loop {
            let got = self.read(reply, &mut piece)?;
            if got == 0 {
                return Ok(all);
            }
            if all.len().saturating_add(got) > max {
                return Err(bad("the answer is too long"));
            }
            all.extend_from_slice(piece.get(..got).unwrap_or_default());
        }
    }
}

fn limited(stream: &mut impl Read, into: &mut [u8], left: u64) -> io::Result<usize> {
    let most = usize::try_from(left).unwrap_or(into.len()).min(into.len());
    stream.read(into.get_mut(..most).unwrap_or_default())
}

/// One line of a chunked body, without its end.
fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.take(1024).read_until(b'\n', &mut bytes)?;
    match bytes.strip_suffix(b"\r\n").or(bytes.strip_suffix(b"\n")) {
        Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        None => Err(bad("a chunk is not whole")),
    }
}
