//! One request of an asynchronous endpoint: its input read as the execution role, sent to a container, its output stored as
//! the role (SM-55). Its record goes last, so that whatever dies before repeats it: at least once.

use crate::cut::Cut;
use crate::deps::Deps;
use crate::fleets::Busy;
use crate::http::{Asked, Connection, Patient, Sent};
use crate::ping::SERVING_PORT;
use crate::transfer::{Actor, Transfer, TransferError};
use crate::workdir::WorkDir;
use crate::{Cuts, driver};
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::sagemaker::async_inference::AsyncInvocation;
use isolarium_model::time::Clock;
use isolarium_model::{AccountId, Scope, WorkloadId};
use isolarium_runtime::Dial;
use isolarium_store::{Batch, Expect, StateStore};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a connection may take to be made.
const DIAL: Duration = Duration::from_secs(5);
/// The largest input and output, bytes.
const LARGEST: u64 = 1 << 30;
/// Bytes moved at a time.
const PIECE: usize = 128 << 10;
/// How much of a container's own error text is repeated, bytes.
const WORDS: usize = 64 << 10;
/// Requests that run at once, of all endpoints and of one account's: each has a thread.
const RUNNING: usize = 256;
const RUNNING_OF_ONE: usize = 64;

const INFERENCE_ID: HeaderName = HeaderName::from_static("x-amzn-sagemaker-inference-id");
const ATTRIBUTES: HeaderName = HeaderName::from_static("x-amzn-sagemaker-custom-attributes");

/// How many requests run, by account.
#[derive(Debug, Default)]
pub struct Bounds(Mutex<BTreeMap<AccountId, usize>>);

/// One of them.
pub(crate) struct Place {
    bounds: Arc<Bounds>,
    account: AccountId,
}

impl Bounds {
    /// A place for one more; `None` while there is none.
    pub(crate) fn take(self: &Arc<Self>, account: &AccountId) -> Option<Place> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = running.get(account).copied().unwrap_or(0);
        if own >= RUNNING_OF_ONE || running.values().sum::<usize>() >= RUNNING {
            return None;
        }
        running.insert(account.clone(), own.saturating_add(1));
        Some(Place {
            bounds: Arc::clone(self),
            account: account.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.bounds.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = running.get(&self.account).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            running.remove(&self.account);
        } else {
            running.insert(self.account.clone(), left);
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its output or its failure is stored, or nobody can be told; the record is gone.
    Over,
    /// The container ended or broke off: others may do better, but not for ever.
    Broken,
    /// The engine or its store was away.
    Away,
}

/// A request under way.
pub(crate) struct Running {
    pub workload: Option<WorkloadId>,
    outcome: Arc<Mutex<Outcome>>,
    thread: JoinHandle<()>,
}

impl Running {
    /// What became of it, once it has ended.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        let ended = self.thread.is_finished();
        ended.then(|| *self.outcome.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What to do with a request.
pub(crate) enum Task {
    /// Ask this container; it counts as busy.
    Ask(Busy),
    /// Say why there is no output.
    GiveUp(String),
}

/// Everything that a request needs, away from the loop.
struct Run {
    store: Arc<dyn StateStore>,
    transfer: Arc<dyn Transfer>,
    dial: Arc<dyn Dial>,
    clock: Arc<dyn Clock>,
    cuts: Arc<Cuts>,
    limit: Duration,
    work: WorkDir,
    scope: Scope,
    actor: Actor,
    /// In whose directory files are put together.
    desk: WorkloadId,
    request: AsyncInvocation,
}

/// Why there is no output.
enum Trouble {
    /// For whoever asked.
    Final(String),
    Broken(io::Error),
    Away(String),
}

/// Begins with a request. `desk` is a workload of the endpoint, which may be the one that is asked.
pub(crate) fn begin(
    deps: &Deps,
    actor: Actor,
    desk: &WorkloadId,
    request: AsyncInvocation,
    task: Task,
    place: Place,
) -> io::Result<Running> {
    let workload = match &task {
        Task::Ask(busy) => Some(busy.workload().clone()),
        Task::GiveUp(_) => None,
    };
    let run = Run {
        store: Arc::clone(&deps.store),
        transfer: Arc::clone(&deps.transfer),
        dial: Arc::clone(&deps.dial),
        clock: Arc::clone(&deps.clock),
        cuts: Arc::clone(&deps.cuts),
        limit: deps.settings.transfer_limit,
        work: deps.work.clone(),
        scope: actor.scope.clone(),
        actor,
        desk: desk.clone(),
        request,
    };
    // What a thread that panics leaves behind is a request to try again.
    let outcome = Arc::new(Mutex::new(Outcome::Broken));
    let told = Arc::clone(&outcome);
    let thread = driver::beside("async-request", move || {
        let done = run.all(&task);
        *told.lock().unwrap_or_else(PoisonError::into_inner) = done;
        drop((task, place));
    })?;
    Ok(Running {
        workload,
        outcome,
        thread,
    })
}

impl Run {
    fn all(&self, task: &Task) -> Outcome {
        let _here = self.cuts.here(Arc::new(Cut::within(self.limit)));
        let asked = match task {
            Task::Ask(busy) => self.asked(busy),
            Task::GiveUp(why) => Err(Trouble::Final(why.clone())),
        };
        let (id, endpoint) = (&self.request.inference_id, &self.request.endpoint_arn);
        let done = match asked {
            Ok(()) => Ok(()),
            Err(Trouble::Final(why)) => self.failed(&why),
            Err(other) => Err(other),
        };
        match done.and_then(|()| self.forget()) {
            Ok(()) => Outcome::Over,
            Err(Trouble::Broken(error)) => {
                tracing::info!(%endpoint, id, %error, "a container broke off an asynchronous request");
                Outcome::Broken
            }
            Err(Trouble::Away(cause) | Trouble::Final(cause)) => {
                tracing::warn!(%endpoint, id, cause, "an asynchronous request is tried again");
                Outcome::Away
            }
        }
    }

    /// The record goes: the request is over.
    fn forget(&self) -> Result<(), Trouble> {
        let batch = Batch::default().delete::<AsyncInvocation>(&self.request.key(&self.scope), Expect::Any);
        let gone = self.store.commit(batch).map(drop);
        gone.map_err(|error| Trouble::Away(driver::chain(&error)))
    }

    /// Asks the container and stores what it says.
    fn asked(&self, busy: &Busy) -> Result<(), Trouble> {
        let (mut input, length) = self.input()?;
        let disk = |error: io::Error| Trouble::Away(error.to_string());
        let name = format!("async-{}", self.request.id);
        let (mut file, path) = self.work.archive(&self.desk, &name).map_err(disk)?;
        let answered = self.exchange(busy.workload(), &mut input, length, &mut file);
        drop(file);
        let stored = answered.and_then(|()| self.store(&self.request.output, &path));
        // Where it was not moved away.
        let _moved = std::fs::remove_file(&path);
        stored
    }

    fn input(&self) -> Result<(File, u64), Trouble> {
        let opened = self.transfer.open(&self.actor, &self.request.input);
        let file = File::from(opened.map_err(|error| trouble(error, "The input could not be read: "))?);
        let length = file.metadata().map_err(|error| Trouble::Away(error.to_string()))?.len();
        if length > LARGEST {
            return Err(Trouble::Final(format!("The input is larger than {LARGEST} bytes.")));
        }
        Ok((file, length))
    }

    fn exchange(&self, workload: &WorkloadId, input: &mut File, length: u64, output: &mut File) -> Result<(), Trouble> {
        let limit = Duration::from_secs(self.request.timeout);
        let until = Instant::now().checked_add(limit);
        let late = || {
            Trouble::Final(
                "Your invocation timed out while waiting for a response from container primary. Review the latency metrics \
                 for each container in Amazon CloudWatch, resolve the issue, and try again."
                    .into(),
            )
        };
        let broken = |error: io::Error| match until {
            Some(until) if Instant::now() >= until => late(),
            _ => Trouble::Broken(error),
        };
        let dialled = self.dial.dial(workload, SERVING_PORT, DIAL.min(limit));
        let socket = TcpStream::from(
            // Nothing was sent: the container or its host may come back.
            dialled.map_err(|error| Trouble::Away(driver::chain(&error)))?,
        );
        // Nothing is gained by holding the second of two writes back.
        let _ = socket.set_nodelay(true);
        let stream = Patient::new(socket, limit, Arc::default()).map_err(broken)?;
        let mut connection = Connection::new(Box::new(stream), limit).without_waiting();
        connection.set_until(until);
        let headers = self.headers();
        let asked = Asked {
            method: "POST",
            target: "/invocations",
            headers: &headers,
        };
        let body = Sent {
            bytes: input,
            length: Some(length),
        };
        let mut reply = connection.ask(&asked, Some(body)).map_err(broken)?;
        let good = (200..300).contains(&reply.status);
        let (mut piece, mut words, mut size) = (vec![0; PIECE], Vec::new(), 0u64);
        loop {
            let got = match connection.read(&mut reply, &mut piece) {
                Ok(0) => break,
                Ok(got) => got,
                // A refusal is one also where its words break off.
                Err(_) if !good => break,
                Err(error) => return Err(broken(error)),
            };
            let bytes = piece.get(..got).unwrap_or_default();
            size = size.saturating_add(u64::try_from(got).unwrap_or(u64::MAX));
            if good {
                if size > LARGEST {
                    let text = format!("The answer of the container is larger than {LARGEST} bytes.");
                    return Err(Trouble::Final(text));
                }
                output
                    .write_all(bytes)
                    .map_err(|error| Trouble::Away(error.to_string()))?;
            } else {
                words.extend_from_slice(bytes);
                if words.len() >= WORDS {
                    words.truncate(WORDS);
                    break;
                }
            }
        }
        if good {
            return Ok(());
        }
        let kind = if (400..500).contains(&reply.status) {
            "client error"
        } else {
            "server error"
        };
        let (status, words) = (reply.status, String::from_utf8_lossy(&words));
        Err(Trouble::Final(format!(
            "Received {kind} ({status}) from primary with message \"{words}\"."
        )))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost:8080"));
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        let request = &self.request;
        let given = [
            (CONTENT_TYPE, request.content_type.as_deref()),
            (ACCEPT, request.accept.as_deref()),
            (ATTRIBUTES, request.custom_attributes.as_deref()),
            (INFERENCE_ID, Some(request.inference_id.as_str())),
        ];
        for (name, value) in given {
            if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
                headers.insert(name, value);
            }
        }
        headers
    }

    fn store(&self, object: &S3Uri, path: &std::path::Path) -> Result<(), Trouble> {
        let put = self.transfer.put(&self.actor, object, path);
        put.map_err(|error| trouble(error, "The output could not be stored: "))
    }

    /// Tells why there is no output, where the configuration says to.
    fn failed(&self, why: &str) -> Result<(), Trouble> {
        let (id, endpoint) = (&self.request.inference_id, &self.request.endpoint_arn);
        tracing::info!(%endpoint, id, why, now = self.clock.now().0, "an asynchronous request failed");
        let Some(object) = &self.request.failure else {
            return Ok(());
        };
        let disk = |error: io::Error| Trouble::Away(error.to_string());
        let name = format!("async-{}-error", self.request.id);
        let (mut file, path) = self.work.archive(&self.desk, &name).map_err(disk)?;
        file.write_all(why.as_bytes()).map_err(disk)?;
        drop(file);
        let stored = self.store(object, &path);
        let _moved = std::fs::remove_file(&path);
        match stored {
            // Whoever may not be told is not told.
            Err(Trouble::Final(cause)) => {
                tracing::warn!(%endpoint, id, cause, "the failure of an asynchronous request cannot be stored");
                Ok(())
            }
            other => other,
        }
    }
}

fn trouble(error: TransferError, what: &str) -> Trouble {
    match error {
        TransferError::Denied(why)
        | TransferError::Unusable(why)
        | TransferError::Role(why)
        | TransferError::NoPath(why) => Trouble::Final(format!("{what}{why}")),
        error @ (TransferError::Cut | TransferError::Away(_) | TransferError::Engine(_)) => {
            Trouble::Away(driver::chain(&error))
        }
    }
}
