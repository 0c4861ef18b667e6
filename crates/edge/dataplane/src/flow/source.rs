//! One VPC's flows, kept until they are read.

use super::conntrack::{self, Tracked};
use super::refusals;
use crate::kernel::handle::Handle;
use crate::kernel::netlink::{Events, Heard};
use isolarium_model::Timestamp;
use isolarium_netplan::flowlog::{Flow, Flows};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Flows kept for a reader who is late; older ones are lost.
const KEPT: usize = 100_000;
/// Flows of one answer.
const TOLD: usize = 8_000;
/// Without a reader for so long nobody listens any more.
const UNREAD: Duration = Duration::from_secs(15 * 60);
/// How soon the listener notices that it is over.
const PAUSE: Duration = Duration::from_millis(500);

/// Listens to one router. Its thread ends with it.
#[derive(Debug)]
pub(crate) struct Source {
    handle: Arc<Handle>,
    shared: Arc<Shared>,
    /// One reader asks the kernel at a time.
    asking: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug)]
struct State {
    kept: VecDeque<Flow>,
    /// Number of the first one kept.
    first: u64,
    lost: u64,
    /// Connections that were told and have not ended.
    live: HashSet<u32>,
    /// When the kernel was last asked.
    told: Timestamp,
    read: Instant,
    over: bool,
}

impl State {
    fn push(&mut self, flow: Flow) {
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
            self.first += 1;
            self.lost += 1;
        }
        self.kept.push_back(flow);
    }

    fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn now() -> Timestamp {
    Timestamp(i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of connections that ended, until it is over or nobody reads.
    fn listen(&self, events: &mut Events) {
        loop {
            let heard = events.wait(PAUSE);
            let mut state = self.state();
            if state.over || state.read.elapsed() > UNREAD {
                state.over = true;
                return;
            }
            let (before, now) = (state.told, now());
            match heard {
                Ok(Heard::Messages(messages)) => {
                    for tracked in messages.iter().filter_map(Tracked::of) {
                        let began = !state.live.remove(&tracked.id);
                        if let Some(flow) = tracked.flow(before, now, began, true) {
                            state.push(flow);
                        }
                    }
                    self.more.notify_all();
                }
                Ok(Heard::Nothing) => {}
                // The kernel had more to say than fits; how much is not known.
                Ok(Heard::TooMuch) => state.lost += 1,
                Err(error) => {
                    tracing::warn!(%error, "flows of a VPC are no longer listened to");
                    state.over = true;
                    return;
                }
            }
        }
    }
}

impl Source {
    /// Begins to listen.
    pub(crate) fn begin(handle: Arc<Handle>) -> io::Result<Self> {
        const DESTROYED: u32 = 1 << 2;
        let mut events = handle.run(|| Events::open(DESTROYED))??;
        // Numbers of an earlier life are lower than those of this one.
        let first = u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX / 2);
        let state = State {
            kept: VecDeque::new(),
            first,
            lost: 0,
            live: HashSet::new(),
            told: Timestamp(0),
            read: Instant::now(),
            over: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            more: Condvar::new(),
        });
        let listening = Arc::clone(&shared);
        thread::Builder::new()
            .name("vpc-flows".into())
            .stack_size(256 << 10)
            .spawn(move || listening.listen(&mut events))?;
        Ok(Self {
            handle,
            shared,
            asking: Mutex::new(()),
        })
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.state().over
    }

    /// See `Vpcs::read_flows` of the executor's traits.
    pub(crate) fn read(&self, since: u64, timeout: Duration) -> io::Result<Flows> {
        self.ask()?;
        let mut state = self.shared.state();
        state.read = Instant::now();
        if since != 0 && (since < state.first || since > state.next()) {
            // The caller's number is of an earlier life, or what it names was thrown away (and counted).
            state.lost = state.lost.max(1);
        } else {
            let done = usize::try_from(since.saturating_sub(state.first)).unwrap_or(0);
            state.kept.drain(..done);
            state.first = state.first.max(since);
        }
        let silent = |state: &mut State| state.kept.is_empty() && state.lost == 0 && !state.over;
        let waited = self.shared.more.wait_timeout_while(state, timeout, silent);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.read = Instant::now();
        let flows: Vec<Flow> = state.kept.iter().take(TOLD).copied().collect();
        Ok(Flows {
            next: state.first + flows.len() as u64,
            flows,
            lost: std::mem::take(&mut state.lost),
        })
    }

    /// Asks the kernel what happened since it was asked before.
    fn ask(&self) -> io::Result<()> {
        let _one = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, now) = (self.shared.state().told, now());
        let live = conntrack::read_and_zero(&self.handle)?;
        let (refused, full) = refusals::read_and_zero(&self.handle, before, now)?;
        let mut state = self.shared.state();
        state.told = now;
        state.lost += full;
        let known = std::mem::take(&mut state.live);
        for tracked in &live {
            if let Some(flow) = tracked.flow(before, now, !known.contains(&tracked.id), false) {
                state.push(flow);
            }
        }
        state.live = live.iter().map(|tracked| tracked.id).collect();
        for flow in refused {
            state.push(flow);
        }
        Ok(())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.more.notify_all();
    }
}
