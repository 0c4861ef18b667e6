//! How many bytes of results the engine holds whole at once: those that filters and joins are applied to (CC-77). All jobs
//! share one bound, so that memory does not follow what tenants and their containers do at the same time.

use crate::cut::Cut;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most bytes at once.
pub const MOST: u64 = 512 << 20;

/// How long one who waits goes without a look at its cut.
const LOOK: Duration = Duration::from_millis(50);

/// The bound. Whoever asks first is served first: small results do not keep a large one waiting for ever.
#[derive(Debug)]
pub struct Held {
    most: u64,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: u64,
    /// Those who wait, the first one next.
    waiting: VecDeque<u64>,
    last: u64,
    /// The most that was held.
    #[cfg(test)]
    peak: u64,
}

impl Default for Held {
    fn default() -> Self {
        Self::new(MOST)
    }
}

impl Held {
    /// A bound of so many bytes.
    pub fn new(most: u64) -> Self {
        Self {
            most,
            state: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many bytes may be held; they count until what is returned is dropped. What is larger than the bound
    /// is held alone. `None` when the cut is made first. One thread never asks twice: it would wait for itself.
    pub(crate) fn take(&self, bytes: u64, cut: &Cut) -> Option<Permit<'_>> {
        let bytes = bytes.min(self.most);
        let mut state = self.lock();
        state.last = state.last.wrapping_add(1);
        let own = state.last;
        state.waiting.push_back(own);
        let fits = loop {
            if cut.why().is_some() {
                break false;
            }
            if state.waiting.front() == Some(&own) && state.held.saturating_add(bytes) <= self.most {
                break true;
            }
            let waited = self.freed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting.retain(|one| *one != own);
        if fits {
            state.held = state.held.saturating_add(bytes);
            #[cfg(test)]
            {
                state.peak = state.peak.max(state.held);
            }
        }
        drop(state);
        self.freed.notify_all();
        fits.then_some(Permit { of: self, bytes })
    }

    #[cfg(test)]
    pub(crate) fn now(&self) -> u64 {
        self.lock().held
    }

    #[cfg(test)]
    pub(crate) fn peak(&self) -> u64 {
        self.lock().peak
    }
}

/// Bytes that count as held.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    of: &'a Held,
    bytes: u64,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.of.lock();
        state.held = state.held.saturating_sub(self.bytes);
        drop(state);
        self.of.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    /// Proves: CC-77
    #[test]
    fn all_together_never_hold_more_than_the_bound() {
        let (held, cut) = (Held::new(100), Cut::default());
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for size in [40, 60, 100, 30, 70, 5000] {
                let (held, cut, now, most) = (&held, &cut, &now, &most);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let permit = held.take(size, cut).unwrap();
                        let counted = size.min(100);
                        most.fetch_max(now.fetch_add(counted, Ordering::SeqCst) + counted, Ordering::SeqCst);
                        thread::yield_now();
                        now.fetch_sub(counted, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 100);
        assert_eq!(held.now(), 0, "everything was given back");
    }

    #[test]
    fn two_that_fit_are_held_at_once_and_a_cut_ends_the_wait() {
        let (held, cut) = (Held::new(100), Cut::default());
        let first = held.take(40, &cut).unwrap();
        let second = held.take(60, &cut).unwrap();
        assert_eq!(held.now(), 100);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| held.take(1, &cut).is_none());
            while held.lock().waiting.is_empty() {
                thread::yield_now();
            }
            cut.make();
            assert!(waiting.join().unwrap());
        });
        drop((first, second));
        let free = Cut::default();
        assert!(held.take(100, &free).is_some(), "nobody who gave up is in the way");
    }
}
