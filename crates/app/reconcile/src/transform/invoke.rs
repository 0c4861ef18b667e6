//! Requests to one container over connections made inside its namespace (CC-65, CC-70, CC-74, CC-88).

use crate::cut::Cut;
use crate::http::{Asked, Connection, Patient, Reply, Sent};
use crate::ping::SERVING_PORT;
use http::{HeaderMap, HeaderName, HeaderValue};
use isolarium_model::WorkloadId;
use isolarium_runtime::Dial;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a connection may take to be made.
const DIAL: Duration = Duration::from_secs(5);

/// Results up to this size wait in memory for their turn, larger ones in files.
const IN_MEMORY: usize = 1 << 20;

/// Bytes of a result that are read at once.
const PIECE: usize = 32 << 10;

/// Longest part of an error's body that is read.
const WORDS: usize = 4 << 10;

/// Before the first further try; doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// One container as requests reach it.
pub(super) struct Container {
    pub dial: Arc<dyn Dial>,
    pub workload: WorkloadId,
    /// Ends every request.
    pub cut: Arc<Cut>,
    /// For one request, from its connection to the last byte of its result.
    pub timeout: Duration,
    /// Further tries of a request that failed.
    pub retries: u32,
    pub headers: HeaderMap,
    /// Where large results wait.
    pub directory: PathBuf,
    pub idle: Mutex<Vec<Connection>>,
    pub files: AtomicU64,
}

/// What is sent.
pub(super) enum Body<'a> {
    Bytes(&'a [u8]),
    /// A stream of unknown length, made anew for every try.
    Stream(&'a dyn Fn() -> io::Result<Box<dyn Read>>),
}

/// A result.
pub(super) enum Answer {
    Bytes(Vec<u8>),
    File(File),
}

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The container's status and the beginning of its body.
    Status(u16, String),
    /// It said nothing, or not in time.
    Silent(io::Error),
    /// The engine's own disk.
    Disk(io::Error),
}

impl Container {
    /// GET `/execution-parameters`; `None` when the container does not provide it (CC-65).
    pub(super) fn execution_parameters(&self) -> Option<Vec<u8>> {
        let mut connection = self.connect().ok()?;
        connection.set_until(Instant::now().checked_add(DIAL));
        let asked = Asked {
            method: "GET",
            target: "/execution-parameters",
            headers: &host_only(),
        };
        let mut reply = connection.ask(&asked, None).ok()?;
        if reply.status != 200 {
            return None;
        }
        connection.collect(&mut reply, WORDS).ok()
    }

    /// POST `/invocations` until there is a result, a refusal that a further try would not change, or no try left (CC-74).
    pub(super) fn invoke(&self, body: &Body<'_>) -> Result<Answer, Refusal> {
        let (mut tries, mut pause) = (0, PAUSE);
        loop {
            let refusal = match self.once(body) {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            let final_word = match &refusal {
                Refusal::Status(status, _) => *status < 500,
                Refusal::Disk(_) => true,
                Refusal::Silent(_) => false,
            };
            if final_word || tries >= self.retries || self.cut.why().is_some() {
                return Err(refusal);
            }
            tries += 1;
            wait(pause, &self.cut);
            pause = pause.saturating_mul(2);
        }
    }

    fn once(&self, body: &Body<'_>) -> Result<Answer, Refusal> {
        let until = Instant::now().checked_add(self.timeout);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = idle {
            match self.on(connection, body, until) {
                // The container had closed it already, which says nothing about the request.
                Err(Refusal::Silent(error)) if was_closed(&error) => {}
                done => return done,
            }
        }
        self.on(self.connect().map_err(Refusal::Silent)?, body, until)
    }

    fn on(&self, mut connection: Connection, body: &Body<'_>, until: Option<Instant>) -> Result<Answer, Refusal> {
        connection.set_until(until);
        let asked = Asked {
            method: "POST",
            target: "/invocations",
            headers: &self.headers,
        };
        let reply = match body {
            Body::Bytes(bytes) => {
                let mut reader: &[u8] = bytes;
                let length = u64::try_from(bytes.len()).ok();
                connection.ask(
                    &asked,
                    Some(Sent {
                        bytes: &mut reader,
                        length,
                    }),
                )
            }
            Body::Stream(open) => {
                let mut reader = open().map_err(Refusal::Disk)?;
                connection.ask(
                    &asked,
                    Some(Sent {
                        bytes: &mut *reader,
                        length: None,
                    }),
                )
            }
        };
        let mut reply = reply.map_err(Refusal::Silent)?;
        if !(200..300).contains(&reply.status) {
            let words = some(&mut connection, &mut reply, WORDS);
            return Err(Refusal::Status(reply.status, words));
        }
        let answer = self.result(&mut connection, &mut reply)?;
        if connection.is_reusable(&reply) {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
        Ok(answer)
    }

    fn result(&self, connection: &mut Connection, reply: &mut Reply) -> Result<Answer, Refusal> {
        let (mut held, mut piece) = (Vec::new(), vec![0; PIECE]);
        let mut file: Option<File> = None;
        loop {
            let got = connection.read(reply, &mut piece).map_err(Refusal::Silent)?;
            let bytes = piece.get(..got).unwrap_or_default();
            match &mut file {
                Some(file) if got == 0 => {
                    file.rewind().map_err(Refusal::Disk)?;
                    return Ok(Answer::File(file.try_clone().map_err(Refusal::Disk)?));
                }
                Some(file) => file.write_all(bytes).map_err(Refusal::Disk)?,
                None if got == 0 => return Ok(Answer::Bytes(held)),
                None => held.extend_from_slice(bytes),
            }
            if file.is_none() && held.len() > IN_MEMORY {
                let mut spilled = self.nameless().map_err(Refusal::Disk)?;
                spilled.write_all(&held).map_err(Refusal::Disk)?;
                held = Vec::new();
                file = Some(spilled);
            }
        }
    }

    /// What waits for its turn: in memory where it is small, else in a file.
    pub(super) fn kept(&self, bytes: Vec<u8>) -> io::Result<Answer> {
        if bytes.len() <= IN_MEMORY {
            return Ok(Answer::Bytes(bytes));
        }
        let mut file = self.nameless()?;
        file.write_all(&bytes)?;
        file.rewind()?;
        Ok(Answer::File(file))
    }

    /// A file that is gone when it is closed, also after a crash of this process.
    fn nameless(&self) -> io::Result<File> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("result-{number}"));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }

    fn connect(&self) -> io::Result<Connection> {
        let dialed = self.dial.dial(&self.workload, SERVING_PORT, DIAL.min(self.timeout));
        let socket = TcpStream::from(dialed.map_err(io::Error::other)?);
        // Head and body are written one after the other; nothing is gained by holding the second back.
        let _ = socket.set_nodelay(true);
        let stream = Patient::new(socket, self.timeout, Arc::clone(&self.cut))?;
        Ok(Connection::new(Box::new(stream), self.timeout).without_waiting())
    }
}

fn host_only() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::HOST, HeaderValue::from_static("localhost:8080"));
    headers
}

/// The headers of every invocation (CC-50).
pub(super) fn headers(content_type: Option<&str>, accept: Option<&str>) -> HeaderMap {
    let mut headers = host_only();
    let mut set = |name: HeaderName, value: Option<&str>| {
        if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
            headers.insert(name, value);
        }
    };
    set(http::header::CONTENT_TYPE, content_type);
    set(http::header::ACCEPT, accept);
    headers
}

/// The beginning of a body, as text.
fn some(connection: &mut Connection, reply: &mut Reply, most: usize) -> String {
    let (mut held, mut piece) = (Vec::new(), vec![0; WORDS]);
    while held.len() < most {
        match connection.read(reply, &mut piece) {
            Ok(0) | Err(_) => break,
            Ok(got) => held.extend_from_slice(piece.get(..got).unwrap_or_default()),
        }
    }
    held.truncate(most);
    String::from_utf8_lossy(&held).into_owned()
}

fn was_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Waits, unless everything ends.
fn wait(length: Duration, cut: &Cut) {
    let until = Instant::now() + length;
    while cut.why().is_none() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
