//! Data capture: requests and answers of an endpoint as JSON lines in S3 (CC-60 to CC-63). The proxy adds lines, the
//! endpoint's loop delivers them as the execution role. Lines wait in memory: what was not delivered when the engine dies
//! is lost, and so is what finds no room: one variant, one account and all together may keep so much waiting. Nobody waits
//! for a delivery. Variants in a VPC are not captured: their data would have to travel through it.

use crate::deps::Deps;
use crate::transfer::{Actor, TransferError};
use base64::Engine as _;
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::sagemaker::data_capture::DataCapture;
use isolarium_model::time::Clock;
use isolarium_model::{AccountId, Timestamp, WorkloadId};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may wait for one variant; further lines are dropped and counted.
const MOST: usize = 32 << 20;

/// Bytes that may wait for all variants of the engine.
const MOST_OF_ALL: usize = 256 << 20;

/// Bytes of these that may be one account's: a customer whose data cannot be delivered leaves room for the others'.
const MOST_OF_ONE: usize = 128 << 20;

/// How often the delivery of lines that nobody adds to any more is tried before they are given up.
const TRIES: u32 = 10;

/// Bytes that are delivered without waiting for the interval.
const MANY: usize = 4 << 20;

/// One side of an invocation.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    pub content_type: Option<&'a str>,
    pub data: &'a [u8],
}

/// How many bytes wait for delivery, by account. All endpoints share one bound, so that memory does not follow what
/// tenants send while their data cannot be delivered.
#[derive(Debug)]
pub struct Budget {
    most: usize,
    share: usize,
    held: Mutex<BTreeMap<AccountId, usize>>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(MOST_OF_ALL, MOST_OF_ONE)
    }
}

impl Budget {
    /// At most so many bytes in all, and so many of them for one account.
    pub fn new(most: usize, share: usize) -> Self {
        Self {
            most,
            share,
            held: Mutex::default(),
        }
    }

    /// Whether there is room; what is taken is given back with [`Self::give`].
    fn take(&self, account: &AccountId, bytes: usize) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let all = held.values().fold(bytes, |sum, one| sum.saturating_add(*one));
        let own = held.get(account).copied().unwrap_or(0).saturating_add(bytes);
        let fits = all <= self.most && own <= self.share;
        if fits {
            held.insert(account.clone(), own);
        }
        fits
    }

    fn give(&self, account: &AccountId, bytes: usize) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = held.get(account).copied().unwrap_or(0).saturating_sub(bytes);
        if left == 0 {
            held.remove(account);
        } else {
            held.insert(account.clone(), left);
        }
    }
}

/// What is captured of one variant.
pub struct Capture {
    settings: DataCapture,
    /// Who delivers it: the role of the model that served when it was captured, whatever serves later.
    actor: Actor,
    budget: Arc<Budget>,
    endpoint: String,
    variant: String,
    clock: Arc<dyn Clock>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Lines by the hour of their file, milliseconds since 1970 divided by those of an hour.
    hours: BTreeMap<i64, Vec<u8>>,
    /// Of all lines, those under delivery too.
    bytes: usize,
    since: Option<Timestamp>,
    dropped: u64,
    /// Deliveries in a row that left lines behind.
    failures: u32,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

const HOUR: i64 = 3_600_000;

impl Capture {
    /// Nothing captured yet. `actor` delivers it, `budget` bounds it together with all others.
    pub fn new(
        settings: DataCapture,
        actor: Actor,
        endpoint: &str,
        variant: &str,
        clock: Arc<dyn Clock>,
        budget: Arc<Budget>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            actor,
            budget,
            endpoint: endpoint.into(),
            variant: variant.into(),
            clock,
            waiting: Mutex::default(),
        })
    }

    /// Whether it keeps this for that actor.
    pub(crate) fn is_for(&self, settings: &DataCapture, actor: &Actor) -> bool {
        self.settings == *settings && self.actor == *actor
    }

    /// Whether this invocation is one of those that are kept. `chance` is any random number.
    pub fn samples(&self, chance: u64) -> bool {
        self.settings.enabled && chance % 100 < u64::from(self.settings.percentage)
    }

    /// Adds one invocation that succeeded. `event_id` is a UUID.
    pub fn add(&self, event_id: &str, inference_id: Option<&str>, input: Side<'_>, output: Side<'_>) {
        let now = self.clock.now();
        let line = self.line(now, event_id, inference_id, input, output);
        let mut waiting = self.lock();
        let fits = waiting.bytes.saturating_add(line.len()) <= MOST;
        if !fits || !self.budget.take(&self.actor.scope.account, line.len()) {
            waiting.dropped = waiting.dropped.saturating_add(1);
            return;
        }
        waiting.bytes = waiting.bytes.saturating_add(line.len());
        waiting.since.get_or_insert(now);
        waiting.hours.entry(now.0.div_euclid(HOUR)).or_default().extend(line);
    }

    /// CC-62.
    fn line(
        &self,
        now: Timestamp,
        event_id: &str,
        inference_id: Option<&str>,
        input: Side<'_>,
        output: Side<'_>,
    ) -> Vec<u8> {
        let mut captured = serde_json::Map::new();
        let sides = [
            ("endpointInput", "INPUT", input, self.settings.input),
            ("endpointOutput", "OUTPUT", output, self.settings.output),
        ];
        for (name, mode, side, wanted) in sides {
            if wanted {
                captured.insert(name.into(), self.side(mode, side));
            }
        }
        let mut metadata = serde_json::Map::new();
        metadata.insert("eventId".into(), json!(event_id));
        if let Some(id) = inference_id {
            metadata.insert("inferenceId".into(), json!(id));
        }
        metadata.insert("inferenceTime".into(), json!(utc(now, "%Y-%m-%dT%H:%M:%SZ")));
        let whole = json!({ "captureData": captured, "eventMetadata": metadata, "eventVersion": "0" });
        let mut line = whole.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    fn side(&self, mode: &str, side: Side<'_>) -> serde_json::Value {
        let kind = side.content_type.unwrap_or_default();
        // Parameters such as the character set say nothing of the form.
        let bare = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let encoding = match () {
            () if self.settings.csv.contains(&bare) => "CSV",
            () if self.settings.json.contains(&bare) => "JSON",
            () => "BASE64",
        };
        let text = std::str::from_utf8(side.data).ok().filter(|_| encoding != "BASE64");
        let (data, encoding) = match text {
            Some(text) => (text.to_owned(), encoding),
            None => (base64::engine::general_purpose::STANDARD.encode(side.data), "BASE64"),
        };
        json!({ "observedContentType": kind, "mode": mode, "data": data, "encoding": encoding })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When there will be something to deliver; `None` while nothing waits.
    pub(crate) fn due(&self, interval: Duration) -> Option<Timestamp> {
        let waiting = self.lock();
        let since = waiting.since?;
        // What could not be delivered waits for the next turn, however much it is.
        Some(if waiting.bytes >= MANY && waiting.failures == 0 {
            since
        } else {
            since.after(interval)
        })
    }

    /// Whether the last delivery left nothing behind.
    pub(crate) fn moves(&self) -> bool {
        self.lock().failures == 0
    }

    /// Delivers everything that waits, as objects of its hours. What cannot be delivered is lost where the role may not
    /// or the bucket is gone, and waits on where another try may do; `last` when nothing is added any more, which ends the
    /// tries at some time.
    pub(crate) fn deliver(&self, deps: &Deps, workload: &WorkloadId, last: bool) {
        let actor = &self.actor;
        let (hours, dropped) = {
            let mut waiting = self.lock();
            waiting.since = None;
            (std::mem::take(&mut waiting.hours), std::mem::take(&mut waiting.dropped))
        };
        if dropped > 0 {
            tracing::warn!(endpoint = %actor.owner_arn, lines = dropped, "captured data found no room and is lost");
        }
        let mut left = BTreeMap::new();
        let mut gone = 0usize;
        for (hour, lines) in hours {
            let size = lines.len();
            match self.put(deps, actor, workload, hour, &lines) {
                Ok(()) => gone = gone.saturating_add(size),
                Err(Undelivered::Passing(cause)) => {
                    tracing::warn!(endpoint = %actor.owner_arn, cause, "captured data is delivered later");
                    left.insert(hour, lines);
                }
                Err(Undelivered::Lost(cause)) => {
                    gone = gone.saturating_add(size);
                    tracing::warn!(endpoint = %actor.owner_arn, cause, "captured data is lost");
                }
            }
        }
        let mut waiting = self.lock();
        waiting.failures = if left.is_empty() {
            0
        } else {
            waiting.failures.saturating_add(1)
        };
        if last && waiting.failures >= TRIES {
            let given_up = left.values().map(Vec::len).sum();
            gone = gone.saturating_add(given_up);
            left.clear();
            waiting.failures = 0;
            tracing::warn!(
                endpoint = %actor.owner_arn, bytes = given_up, tries = TRIES,
                "captured data of a fleet that is gone could not be delivered and is lost"
            );
        }
        waiting.bytes = waiting.bytes.saturating_sub(gone);
        self.budget.give(&actor.scope.account, gone);
        if left.is_empty() {
            return;
        }
        // In front of what came meanwhile, and waiting for a whole interval again.
        for (hour, mut lines) in left {
            let newer = waiting.hours.remove(&hour).unwrap_or_default();
            lines.extend(newer);
            waiting.hours.insert(hour, lines);
        }
        waiting.since = Some(self.clock.now());
    }

    fn put(
        &self,
        deps: &Deps,
        actor: &Actor,
        workload: &WorkloadId,
        hour: i64,
        lines: &[u8],
    ) -> Result<(), Undelivered> {
        let disk = |error: io::Error| Undelivered::Passing(error.to_string());
        let (mut file, path) = deps
            .work
            .archive(workload, &format!("capture-{}", self.variant))
            .map_err(disk)?;
        file.write_all(lines).map_err(disk)?;
        drop(file);
        let object = self.object(hour, &deps.ids.hex(32));
        let put = deps.transfer.put(actor, &object, &path);
        // Where it was not moved away.
        let _moved = std::fs::remove_file(&path);
        put.map_err(|error| match error {
            error @ (TransferError::Denied(_) | TransferError::Unusable(_) | TransferError::Role(_)) => {
                Undelivered::Lost(error.to_string())
            }
            error @ (TransferError::NoPath(_)
            | TransferError::Cut
            | TransferError::Away(_)
            | TransferError::Engine(_)) => Undelivered::Passing(error.to_string()),
        })
    }

    /// CC-61: `<destination>/<endpoint>/<variant>/yyyy/mm/dd/hh/<minute>-<second>-<random>.jsonl`.
    fn object(&self, hour: i64, random: &str) -> S3Uri {
        let folder = utc(Timestamp(hour.saturating_mul(HOUR)), "%Y/%m/%d/%H");
        let name = utc(self.clock.now(), "%M-%S");
        let destination = &self.settings.destination;
        let below = destination.key.trim_end_matches('/');
        let slash = if below.is_empty() { "" } else { "/" };
        S3Uri {
            bucket: destination.bucket.clone(),
            key: format!(
                "{below}{slash}{}/{}/{folder}/{name}-{random}.jsonl",
                self.endpoint, self.variant
            ),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let waiting = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.budget.give(&self.actor.scope.account, waiting.bytes);
        if waiting.bytes > 0 || waiting.dropped > 0 {
            tracing::warn!(endpoint = %self.actor.owner_arn, bytes = waiting.bytes, "captured data that nobody can deliver is lost");
        }
    }
}

/// Why lines were not delivered.
enum Undelivered {
    /// Another try may do.
    Passing(String),
    Lost(String),
}

/// A point in time in UTC by a format of `strftime`'s.
fn utc(at: Timestamp, format: &str) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime(format).to_string()
}

#[cfg(test)]
mod tests;
