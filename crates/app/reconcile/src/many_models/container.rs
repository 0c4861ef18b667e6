//! What a container that loads models is asked besides invocations: to load one, to unload one, which it has (CC-58).

use crate::Cut;
use crate::http::{Asked, Connection, Patient, Reply, Sent};
use crate::ping::SERVING_PORT;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue};
use isolarium_model::WorkloadId;
use isolarium_runtime::Dial;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a connection may take to be made.
const DIAL: Duration = Duration::from_secs(5);
/// The largest answer that is read, bytes.
const ANSWER: usize = 1 << 20;
/// Pages of a list that are read: a container may name a next page for ever.
const PAGES: usize = 100;
/// Models that a container may have: of one that lists more, the list is not read further.
const MODELS: usize = 10_000;

/// One container.
pub(super) struct Container<'a> {
    pub dial: &'a dyn Dial,
    pub workload: &'a WorkloadId,
    /// From now to the last byte of the answer, or of the last page.
    pub patience: Duration,
}

/// A page of `GET /models`.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    models: Vec<Listed>,
    #[serde(default, rename = "nextPageToken")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "modelName")]
    name: String,
}

impl Container<'_> {
    /// `POST /models`: status and words of the answer.
    pub fn load(&self, name: &str, url: &str) -> io::Result<(u16, String)> {
        let body = serde_json::json!({ "model_name": name, "url": url }).to_string();
        self.ask("POST", "/models", Some(body.as_bytes()), self.until())
    }

    /// `DELETE /models/{name}`.
    pub fn unload(&self, name: &str) -> io::Result<(u16, String)> {
        self.ask("DELETE", &format!("/models/{name}"), None, self.until())
    }

    /// `GET /models/{name}`.
    pub fn describe(&self, name: &str) -> io::Result<(u16, String)> {
        self.ask("GET", &format!("/models/{name}"), None, self.until())
    }

    /// `GET /models`: those of all models that it has whose names the engine gave. A container that does not answer as agreed
    /// is taken to have none.
    pub fn list(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        let (mut target, until) = ("/models".to_string(), self.until());
        for _ in 0..PAGES {
            let (status, text) = self.ask("GET", &target, None, until)?;
            let Some(page) = (status == 200)
                .then(|| serde_json::from_str::<Page>(&text).ok())
                .flatten()
            else {
                break;
            };
            names.extend(
                page.models
                    .into_iter()
                    .map(|one| one.name)
                    .filter(|name| super::is_folder(name)),
            );
            match page.next.filter(|next| !next.is_empty() && names.len() < MODELS) {
                Some(next) => target = format!("/models?next_page_token={}", escaped(&next)),
                None => break,
            }
        }
        Ok(names)
    }

    fn until(&self) -> Option<Instant> {
        Instant::now().checked_add(self.patience)
    }

    fn ask(
        &self,
        method: &str,
        target: &str,
        body: Option<&[u8]>,
        until: Option<Instant>,
    ) -> io::Result<(u16, String)> {
        let dialled = self.dial.dial(self.workload, SERVING_PORT, DIAL);
        let socket = TcpStream::from(dialled.map_err(io::Error::other)?);
        let stream = Patient::new(socket, self.patience, Arc::new(Cut::default()))?;
        let mut connection = Connection::new(Box::new(stream), self.patience).without_waiting();
        connection.set_until(until);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost:8080"));
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let asked = Asked {
            method,
            target,
            headers: &headers,
        };
        let mut bytes = body.unwrap_or_default();
        let sent = body.map(|body| Sent {
            bytes: &mut bytes,
            length: u64::try_from(body.len()).ok(),
        });
        let mut reply: Reply = connection.ask(&asked, sent)?;
        let words = connection.collect(&mut reply, ANSWER)?;
        Ok((reply.status, String::from_utf8_lossy(&words).into_owned()))
    }
}

/// A text as a part of a query.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
