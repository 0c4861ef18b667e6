//! What IAM was asked about stays what a request is carried out on (IAM-58).
//!
//! A request may name a resource by something else than its id: an association, an attachment, an address, a name. What that
//! leads to is read for the question and again by the handler, and may have changed in between.
//!
//! INVARIANT (asked-is-done): a request's changes commit only while everything that it names so leads where it led when IAM
//! was asked. The look and the commit are one step: whatever moves such a name writes the record that it led to and the
//! one that it leads to, and the handler's batch names the revision at which it read the latter.

use super::facts::{Found, leads_to};
use super::questions::Kind;
use isolarium_model::{Key, Scope};
use isolarium_store::state::{Batch, Listener, Query, RawPage, Recent, Revision};
use isolarium_store::{StateStore, StoreError};
use std::sync::atomic::{AtomicBool, Ordering};

/// Something that a request names by something else than its id, and what it led to when IAM was asked.
#[derive(Clone, Debug)]
pub(crate) struct Led {
    pub kind: Kind,
    pub text: String,
    pub found: Found,
}

/// A store whose commits fail with [`StoreError::Stale`] once something leads elsewhere.
pub(crate) struct Settled<'a> {
    store: &'a dyn StateStore,
    scope: &'a Scope,
    led: &'a [Led],
    moved: AtomicBool,
}

impl<'a> Settled<'a> {
    pub(crate) fn new(store: &'a dyn StateStore, scope: &'a Scope, led: &'a [Led]) -> Self {
        Self {
            store,
            scope,
            led,
            moved: AtomicBool::new(false),
        }
    }

    /// Whether a commit was refused: IAM is to be asked anew.
    pub(crate) fn moved(&self) -> bool {
        self.moved.load(Ordering::Relaxed)
    }
}

impl StateStore for Settled<'_> {
    fn get_raw(&self, kind: &'static str, key: &Key) -> Result<Option<(Revision, Vec<u8>)>, StoreError> {
        self.store.get_raw(kind, key)
    }

    fn query_raw(&self, kind: &'static str, query: &Query) -> Result<RawPage, StoreError> {
        self.store.query_raw(kind, query)
    }

    fn all_raw(&self, kind: &'static str, statuses: &[&str]) -> Result<Vec<(Key, Revision, Vec<u8>)>, StoreError> {
        self.store.all_raw(kind, statuses)
    }

    fn counts(&self) -> Result<Vec<(String, String, u64)>, StoreError> {
        self.store.counts()
    }

    fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        for led in self.led {
            if leads_to(self.store, self.scope, led.kind, &led.text)? != led.found {
                self.moved.store(true, Ordering::Relaxed);
                return Err(StoreError::Stale);
            }
        }
        self.store.commit(batch)
    }

    fn subscribe(&self, listener: Listener) {
        self.store.subscribe(listener);
    }

    fn recent(&self) -> &Recent {
        self.store.recent()
    }
}

#[cfg(test)]
mod tests;
