//! The thread that writes: takes what waits, chains it, hands it to the kernel in few writes, and tells who waits.

use super::chain::{self, Head, append_to, failed, file_path, sync};
use super::event::AuditEvent;
use super::receipt::{AuditDown, Receipt, Slot};
use super::text;
use super::{AuditError, AuditSettings};
use isolarium_model::Timestamp;
use isolarium_model::time::Clock;
use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Events of one write at most, so that nobody waits for ever behind a busy queue.
const GROUP: usize = 512;
/// Room made for the text of one event, bytes.
const LINE: usize = 1500;
/// Most memory of one that is used again, bytes.
const LONG: usize = 4 << 10;
/// Bytes after which lines are handed to the kernel: the same memory carries the next ones. It takes some 50 µs.
const WRITE: usize = 32 << 10;
/// Pause after each of these pieces while no answer waits: threads that woke meanwhile, on the processor where this one
/// writes, would else wait for the end of its turn, which takes longer than most requests.
const PAUSE: Duration = Duration::from_micros(50);
/// How long the event of a read waits for company: the thread that writes is woken some twenty times a second however many
/// are read, and costs them nothing.
const LINGER: Duration = Duration::from_millis(50);
/// Pause after a failed write.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// What a request's answer owes to its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The answer may leave first: something was only read.
    Later,
    /// The answer waits: somebody was refused.
    Refusal,
    /// The answer waits, and the event is never dropped: something changed.
    Change,
}

/// The file as the two threads use it.
pub(super) trait Medium: Send + Sync {
    /// Hands bytes to the kernel, behind what is there.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts everything off behind `size` bytes.
    fn cut(&self, size: u64) -> io::Result<()>;
    /// Brings everything to the disk.
    fn sync(&self) -> io::Result<()>;
}

impl Medium for File {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self;
        file.write_all(bytes)
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// An event as its line will hold it. Whoever submits an event brings it into this form: that costs the submitting thread
/// what it would cost the writing one, and a single thread neither becomes the bottleneck nor frees what others allocated.
pub(super) struct Record {
    at: Timestamp,
    /// The event, and behind it what the engine decided.
    text: Vec<u8>,
    /// Length of the event.
    event: usize,
}

thread_local! {
    /// Memory for the next record of this thread, of one that was written.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Record {
    pub(super) fn of(event: &AuditEvent<'_>) -> Result<Self, AuditError> {
        let mut text = ROOM.take();
        // Most lines are shorter: the buffer need not grow.
        text.reserve(LINE);
        text::write(event, &mut text).map_err(AuditError::Encode)?;
        let length = text.len();
        if let Some(engine) = &event.engine {
            text.extend_from_slice(engine.as_bytes());
        }
        Ok(Self {
            at: event.at,
            text,
            event: length,
        })
    }

    fn parts(&self) -> (&[u8], Option<&[u8]>) {
        let (event, engine) = self.text.split_at_checked(self.event).unwrap_or((&self.text, &[]));
        (event, Some(engine).filter(|engine| !engine.is_empty()))
    }
}

struct Item {
    record: Record,
    weight: usize,
    slot: Option<Arc<Slot>>,
}

/// Events that could not be kept while the disk refused, told by the next record that could.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
struct Lost {
    reads: u64,
    refusals: u64,
}

struct State {
    queue: VecDeque<Item>,
    /// Memory of records that were written, for those to come.
    room: Vec<Vec<u8>>,
    /// Bytes of memory that queue and backlog hold, about.
    weight: usize,
    lost: Lost,
    down: Option<AuditDown>,
    /// An answer waits for something in the queue.
    urgent: bool,
    /// An answer waits for something in the group that is written.
    awaited: bool,
    closing: bool,
    head: Head,
    /// Events that were ever queued, and how many of them the writer is done with.
    queued: u64,
    done: u64,
}

/// What requests and the two threads share.
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// The writer is done with a group.
    written: Condvar,
    /// The trail is being closed.
    closed: Condvar,
    /// The file that is written, for the thread that syncs it.
    file: Mutex<Arc<dyn Medium>>,
    dirty: AtomicBool,
    settings: AuditSettings,
}

impl Shared {
    pub(super) fn new(file: Arc<dyn Medium>, head: Head, settings: AuditSettings) -> Self {
        let state = State {
            queue: VecDeque::new(),
            room: Vec::new(),
            weight: 0,
            lost: Lost::default(),
            down: None,
            urgent: false,
            awaited: false,
            closing: false,
            head,
            queued: 0,
            done: 0,
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            written: Condvar::new(),
            closed: Condvar::new(),
            file: Mutex::new(file),
            dirty: AtomicBool::new(false),
            settings,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn head(&self) -> Head {
        self.lock().head.clone()
    }

    pub(super) fn at_head(&self, head: Head) {
        self.lock().head = head;
    }

    pub(super) fn ready(&self) -> Result<(), AuditDown> {
        self.lock().down.clone().map_or(Ok(()), Err)
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
        self.written.notify_all();
        self.closed.notify_all();
    }

    /// Takes an event. Memory is bounded: beyond [`AuditSettings::queue_bytes`] the answer of a read waits as that of a
    /// change does, so that requests alone hold what is above, and while nothing can be written it is dropped and counted.
    pub(super) fn submit(&self, event: AuditEvent<'_>, keep: Keep) -> Receipt {
        let weight = event.weight();
        let record = match Record::of(&event) {
            Ok(record) => record,
            // Every type in an event has a JSON form; should one lose it, what it would tell of is not acknowledged.
            Err(error) => {
                tracing::error!(%error, "an audit event has no JSON form");
                let cause = error.to_string().into();
                return Receipt::known(Err(AuditDown { cause }));
            }
        };
        let mut state = self.lock();
        let full = state.weight.saturating_add(weight) > self.settings.queue_bytes;
        let down = state.down.clone();
        if let (true, Some(down)) = (full, &down) {
            match keep {
                Keep::Later => state.lost.reads = state.lost.reads.saturating_add(1),
                Keep::Refusal => state.lost.refusals = state.lost.refusals.saturating_add(1),
                Keep::Change => {}
            }
            if keep != Keep::Change {
                return Receipt::known(if keep == Keep::Later { Ok(()) } else { Err(down.clone()) });
            }
        }
        let slot = (down.is_none() && (keep != Keep::Later || full)).then(Arc::<Slot>::default);
        state.weight = state.weight.saturating_add(weight);
        state.queued = state.queued.saturating_add(1);
        state.queue.push_back(Item {
            record,
            weight,
            slot: slot.clone(),
        });
        let hurry = slot.is_some() && !std::mem::replace(&mut state.urgent, true);
        let wake = hurry || matches!(state.queue.len(), 1 | GROUP);
        ROOM.set(state.room.pop().unwrap_or_default());
        drop(state);
        if wake {
            self.wake.notify_all();
        }
        match (slot, down) {
            (Some(slot), _) => Receipt::coming(slot),
            (None, Some(down)) if keep != Keep::Later => Receipt::known(Err(down)),
            (None, _) => Receipt::known(Ok(())),
        }
    }

    /// Waits until every event that was submitted before is written, or nothing can be.
    pub(super) fn settle(&self) {
        let mut state = self.lock();
        let wanted = state.queued;
        while state.done < wanted && state.down.is_none() && !state.closing {
            state.urgent = true;
            self.wake.notify_all();
            state = self.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether nobody waits for what is written, and not much more has come in meanwhile.
    fn has_time(&self) -> bool {
        let state = self.lock();
        !(state.urgent || state.awaited || state.closing) && state.queue.len() < GROUP
    }

    /// What to write next; `None` when everything is written and the trail is being closed.
    fn next(&self, backlog: &mut VecDeque<Item>) -> Option<Lost> {
        let mut state = self.lock();
        let left = state.queue.len().saturating_add(backlog.len());
        state.done = state.queued.saturating_sub(u64::try_from(left).unwrap_or(u64::MAX));
        self.written.notify_all();
        let begun = Instant::now();
        // Since when something waits for company.
        let mut lingers: Option<Instant> = None;
        loop {
            let waiting = state.down.is_some() && !state.closing;
            let nothing = state.queue.is_empty() && backlog.is_empty() && state.lost == Lost::default();
            let at_once = state.closing || state.urgent || !backlog.is_empty() || state.queue.len() >= GROUP;
            let until = if nothing && state.closing {
                return None;
            } else if waiting {
                Some(begun + RETRY)
            } else if nothing {
                lingers = None;
                None
            } else if at_once {
                break;
            } else {
                Some(*lingers.get_or_insert_with(Instant::now) + LINGER)
            };
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let woken = self.wake.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let room = GROUP.saturating_sub(backlog.len()).min(state.queue.len());
        backlog.extend(state.queue.drain(..room));
        state.awaited = backlog.iter().any(|item| item.slot.is_some());
        // Those behind the group are still waited for.
        state.urgent = state.queue.iter().any(|item| item.slot.is_some());
        Some(state.lost)
    }
}

/// The writing end.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) folder: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) file: Arc<dyn Medium>,
    pub(super) path: PathBuf,
    /// Bytes of whole lines in the file.
    pub(super) size: u64,
    pub(super) head: Head,
    /// A write failed half-way and what it left could not be cut off yet.
    pub(super) torn: bool,
}

impl Writer {
    /// Writes until the trail is closed and nothing waits.
    pub(super) fn run(mut self) {
        let mut backlog = VecDeque::new();
        while let Some(lost) = self.shared.next(&mut backlog) {
            let told = self.tell_lost(lost);
            let lost_told = told.is_ok();
            let (written, outcome) = match told {
                Ok(()) => self.write(backlog.iter().map(|item| &item.record)),
                Err(error) => (0, Err(error)),
            };
            let shared = Arc::clone(&self.shared);
            let mut state = shared.lock();
            for item in backlog.drain(..written) {
                state.weight = state.weight.saturating_sub(item.weight);
                let mut room = item.record.text;
                if room.capacity() <= LONG && state.room.len() < GROUP {
                    room.clear();
                    state.room.push(room);
                }
                if let Some(slot) = item.slot {
                    slot.tell(Ok(()));
                }
            }
            state.head = self.head.clone();
            if lost_told {
                state.lost.reads = state.lost.reads.saturating_sub(lost.reads);
                state.lost.refusals = state.lost.refusals.saturating_sub(lost.refusals);
            }
            let Err(error) = outcome else {
                if state.down.take().is_some() {
                    tracing::info!("the audit trail is written again");
                }
                continue;
            };
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let down = AuditDown { cause: cause.into() };
            if state.down.is_none() {
                tracing::error!(error = %down, "changes are refused");
            }
            // What failed is tried again; who waited is told now.
            let state = &mut *state;
            for item in backlog.iter_mut().chain(&mut state.queue) {
                if let Some(slot) = item.slot.take() {
                    slot.tell(Err(down.clone()));
                }
            }
            state.down = Some(down);
            if state.closing {
                return;
            }
        }
    }

    /// The record of what had to be dropped.
    fn tell_lost(&mut self, lost: Lost) -> Result<(), AuditError> {
        if lost == Lost::default() {
            return Ok(());
        }
        let details = serde_json::value::to_raw_value(&lost).map_err(AuditError::Encode)?;
        let event = AuditEvent::of_trail("EventsLost", self.clock.now(), Some(details));
        self.write(std::iter::once(&Record::of(&event)?)).1
    }

    /// Writes records; how many of them the kernel has.
    pub(super) fn write<'e>(&mut self, records: impl Iterator<Item = &'e Record>) -> (usize, Result<(), AuditError>) {
        let mut buffer = Vec::with_capacity(WRITE + LONG);
        let (mut head, mut kept, mut waiting) = (self.head.clone(), 0, 0);
        for record in records {
            if self.size.saturating_add(length(&buffer)) >= self.shared.settings.file_bytes {
                if let Err(error) = self.flush(&mut buffer, &head) {
                    return (kept, Err(error));
                }
                kept += std::mem::take(&mut waiting);
                if let Err(error) = self.rotate() {
                    return (kept, Err(error));
                }
            }
            let (event, engine) = record.parts();
            let hash = chain::write_line(&mut buffer, &head, record.at, event, engine);
            head = Head {
                events: head.events.saturating_add(1),
                hash,
            };
            waiting += 1;
            // Where every write is synced, a group has one.
            if buffer.len() >= WRITE && !self.shared.settings.sync_interval.is_zero() {
                if let Err(error) = self.flush(&mut buffer, &head) {
                    return (kept, Err(error));
                }
                kept += std::mem::take(&mut waiting);
                if self.shared.has_time() {
                    std::thread::sleep(PAUSE);
                }
            }
        }
        match self.flush(&mut buffer, &head) {
            Ok(()) => (kept + waiting, Ok(())),
            Err(error) => (kept, Err(error)),
        }
    }

    /// Hands lines to the kernel. After a failure the file is as it was before.
    fn flush(&mut self, buffer: &mut Vec<u8>, head: &Head) -> Result<(), AuditError> {
        if buffer.is_empty() {
            return Ok(());
        }
        if self.torn {
            // A line that was cut short must not stay in front of the next one.
            self.file.cut(self.size).map_err(failed(&self.path))?;
            self.torn = false;
        }
        let each = self.shared.settings.sync_interval.is_zero();
        let written = self.file.append(buffer).and_then(|()| {
            self.shared.dirty.store(true, Ordering::Release);
            if each { self.file.sync() } else { Ok(()) }
        });
        if let Err(source) = written {
            self.torn = self.file.cut(self.size).is_err();
            return Err(failed(&self.path)(source));
        }
        self.size = self.size.saturating_add(length(buffer));
        self.head = head.clone();
        buffer.clear();
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), AuditError> {
        if self.size == 0 {
            return Ok(());
        }
        self.file.sync().map_err(failed(&self.path))?;
        let path = file_path(&self.folder, self.head.events);
        let file: Arc<dyn Medium> = Arc::new(append_to(&path)?);
        sync(&self.folder)?;
        *self.shared.file.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&file);
        (self.file, self.path, self.size) = (file, path, 0);
        Ok(())
    }
}

fn length(buffer: &[u8]) -> u64 {
    u64::try_from(buffer.len()).unwrap_or(u64::MAX)
}

/// Brings to the disk what the kernel holds, once in every interval: what a power failure can take is no older.
pub(super) fn keep_synced(shared: &Shared) {
    let interval = shared.settings.sync_interval;
    loop {
        let state = shared.lock();
        let waited = shared
            .closed
            .wait_timeout_while(state, interval, |state| !state.closing);
        let closing = waited.unwrap_or_else(PoisonError::into_inner).0.closing;
        if shared.dirty.swap(false, Ordering::AcqRel) {
            let file = Arc::clone(&shared.file.lock().unwrap_or_else(PoisonError::into_inner));
            if let Err(error) = file.sync() {
                shared.dirty.store(true, Ordering::Release);
                tracing::error!(%error, "the audit trail cannot be brought to the disk; check the disk that holds it");
            }
        }
        if closing {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
