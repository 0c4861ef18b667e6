//! What a request waits for: the word that its event is with the kernel.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// The trail cannot be written now. The text is for the operator and, without the cause, for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the audit trail cannot be written ({cause}); free space on the disk that holds the data directory, or mend it: the \
     engine goes on by itself within a second"
)]
pub struct AuditDown {
    /// What the operating system said.
    pub cause: Arc<str>,
}

/// An event on its way. Wait for it by `await` or, on a thread that may block, by [`Receipt::wait`].
#[derive(Debug)]
#[must_use = "an answer must not leave before the event it is about is kept"]
pub struct Receipt(State);

#[derive(Debug)]
enum State {
    Known(Result<(), AuditDown>),
    Coming(Arc<Slot>),
}

/// Where the writer leaves its word.
#[derive(Debug, Default)]
pub(super) struct Slot {
    word: Mutex<Word>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Word {
    outcome: Option<Result<(), AuditDown>>,
    waker: Option<Waker>,
}

impl Slot {
    pub(super) fn tell(&self, outcome: Result<(), AuditDown>) {
        let mut word = self.word.lock().unwrap_or_else(PoisonError::into_inner);
        word.outcome = Some(outcome);
        let waker = word.waker.take();
        drop(word);
        self.came.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Receipt {
    pub(super) fn known(outcome: Result<(), AuditDown>) -> Self {
        Self(State::Known(outcome))
    }

    pub(super) fn coming(slot: Arc<Slot>) -> Self {
        Self(State::Coming(slot))
    }

    /// Blocks until the event is with the kernel, or need not be waited for.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn wait(self) -> Result<(), AuditDown> {
        let slot = match self.0 {
            State::Known(outcome) => return outcome,
            State::Coming(slot) => slot,
        };
        let mut word = slot.word.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = word.outcome.take() {
                return outcome;
            }
            word = slot.came.wait(word).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Future for Receipt {
    type Output = Result<(), AuditDown>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &self.0 {
            State::Known(outcome) => Poll::Ready(outcome.clone()),
            State::Coming(slot) => {
                let mut word = slot.word.lock().unwrap_or_else(PoisonError::into_inner);
                match word.outcome.clone() {
                    Some(outcome) => Poll::Ready(outcome),
                    None => {
                        word.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                }
            }
        }
    }
}
