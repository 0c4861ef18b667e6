//! Ends transfers that are under way: when their job is stopped or its time is up, when their endpoint is deleted, and when
//! they last longer than the operator allows. A transfer looks at its [`Cut`] several times a second.

use isolarium_model::Arn;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Whether a transfer is to go on.
#[derive(Debug, Default)]
pub struct Cut {
    unwanted: AtomicBool,
    /// A limit of the owner's, such as `MaxRuntimeInSeconds`.
    until: OnceLock<Instant>,
    /// The operator's limit: its end and its length.
    limit: Option<(Instant, Duration)>,
}

/// Why a transfer ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its owner is to stop, or has no time left: the step that asked for it is repeated, and sees that.
    Unwanted,
    /// It lasted longer than the operator allows, which is this long.
    TooLong(Duration),
}

impl Cut {
    /// Ends what is given to it after `limit` at the latest.
    pub fn within(limit: Duration) -> Self {
        Self {
            limit: Instant::now().checked_add(limit).map(|end| (end, limit)),
            ..Self::default()
        }
    }

    /// Ends it after `left` too, without a word about limits. Said once.
    pub(crate) fn end_after(&self, left: Duration) {
        if let Some(end) = Instant::now().checked_add(left) {
            self.until.get_or_init(|| end);
        }
    }

    /// Nobody wants the transfer any more.
    pub fn make(&self) {
        self.unwanted.store(true, Ordering::Release);
    }

    /// Why to end now. `None`: go on.
    pub fn why(&self) -> Option<Why> {
        let now = Instant::now();
        if self.unwanted.load(Ordering::Acquire) || self.until.get().is_some_and(|end| now >= *end) {
            return Some(Why::Unwanted);
        }
        let (end, limit) = self.limit?;
        (now >= end).then_some(Why::TooLong(limit))
    }
}

/// The cuts of everything that is stepped now, by the ARN of the job or endpoint; and of threads that move data beside the
/// steps, for as long as their own work lasts.
#[derive(Debug, Default)]
pub struct Cuts {
    stepped: Mutex<HashMap<String, Arc<Cut>>>,
    beside: Mutex<HashMap<ThreadId, Arc<Cut>>>,
}

impl Cuts {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Cut>>> {
        self.stepped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beside(&self) -> MutexGuard<'_, HashMap<ThreadId, Arc<Cut>>> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cut of this thread, if it has one of its own, or that of an owner; one that never ends anything where nobody has
    /// begun one.
    pub fn of(&self, owner: &Arn) -> Arc<Cut> {
        if let Some(own) = self.beside().get(&thread::current().id()) {
            return Arc::clone(own);
        }
        self.lock().get(owner.as_str()).cloned().unwrap_or_default()
    }

    /// From now on [`Self::of`] gives this thread this one, whoever the owner is, until what is returned is dropped.
    pub(crate) fn here(self: &Arc<Self>, cut: Arc<Cut>) -> Here {
        let thread = thread::current().id();
        self.beside().insert(thread, cut);
        Here {
            cuts: Arc::clone(self),
            thread,
        }
    }

    /// From now on [`Self::of`] gives this one, until what is returned is dropped.
    pub(crate) fn begin(self: &Arc<Self>, owner: &Arn, cut: Arc<Cut>) -> Begun {
        self.lock().insert(owner.as_str().into(), cut);
        Begun {
            cuts: Arc::clone(self),
            owner: owner.as_str().into(),
        }
    }
}

/// See [`Cuts::here`].
pub(crate) struct Here {
    cuts: Arc<Cuts>,
    thread: ThreadId,
}

impl Drop for Here {
    fn drop(&mut self) {
        self.cuts.beside().remove(&self.thread);
    }
}

/// See [`Cuts::begin`].
pub(crate) struct Begun {
    cuts: Arc<Cuts>,
    owner: String,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.cuts.lock().remove(&self.owner);
    }
}
