//! Records that were read lately, decoded, for as long as they are current: what every request asks for (access keys,
//! principals, endpoints) costs no read of the disk.
//!
//! INVARIANT (recent-is-current): once `commit` has returned, no reader gets what the commit replaced. A commit forgets
//! the records it touched before it returns; a read that began before that does not keep what it found.

use super::Stored;
use foldhash::fast::RandomState;
use isolarium_model::{Key, Record};
use std::any::Any;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock};

/// Parts that are locked for themselves.
const SHARDS: usize = 16;
/// JSON bytes of the records that one part keeps at most, 8 MiB in all. A part that is full forgets everything.
const SHARD_BYTES: usize = 512 << 10;

/// The records of one store that were read lately.
#[derive(Default)]
pub struct Recent {
    hasher: RandomState,
    shards: [RwLock<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    /// Commits that touched this part.
    changes: u64,
    bytes: usize,
    kinds: HashMap<&'static str, HashMap<Key, Kept, RandomState>, RandomState>,
}

struct Kept {
    /// A `Stored<R>` of the kind's record.
    record: Arc<dyn Any + Send + Sync>,
    bytes: usize,
}

/// What a read has to show when it wants its record kept.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Recent {
    fn shard(&self, kind: &str, key: &Key) -> &RwLock<Shard> {
        let at = usize::try_from(self.hasher.hash_one((kind, key)) % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.shards;
        self.shards.get(at).unwrap_or(first)
    }

    /// The record, or the moment at which the caller begins to read it.
    pub(super) fn find<R: Record>(&self, key: &Key) -> Result<Arc<Stored<R>>, Moment> {
        let shard = self.shard(R::KIND, key).read().unwrap_or_else(PoisonError::into_inner);
        let kept = shard.kinds.get(R::KIND).and_then(|kind| kind.get(key));
        kept.and_then(|kept| kept.record.clone().downcast().ok())
            .ok_or(Moment(shard.changes))
    }

    /// Keeps a record that was read since `begun`, unless something changed meanwhile. `bytes` is its length as JSON.
    pub(super) fn keep<R: Record>(&self, begun: Moment, record: &Arc<Stored<R>>, bytes: usize) {
        if bytes > SHARD_BYTES {
            return;
        }
        let mut shard = self
            .shard(R::KIND, &record.key)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if shard.changes != begun.0 {
            return;
        }
        if shard.bytes.saturating_add(bytes) > SHARD_BYTES {
            shard.kinds.clear();
            shard.bytes = 0;
        }
        let kept = Kept {
            record: record.clone(),
            bytes,
        };
        shard.bytes = shard.bytes.saturating_add(bytes);
        let before = shard.kinds.entry(R::KIND).or_default().insert(record.key.clone(), kept);
        shard.bytes = shard.bytes.saturating_sub(before.map_or(0, |before| before.bytes));
    }

    /// Forgets records. To be called after they changed and before anybody is told so.
    pub(super) fn forget(&self, changed: &[(&'static str, Key)]) {
        for (kind, key) in changed {
            let mut shard = self.shard(kind, key).write().unwrap_or_else(PoisonError::into_inner);
            shard.changes = shard.changes.wrapping_add(1);
            let kept = shard.kinds.get_mut(kind).and_then(|kind| kind.remove(key));
            shard.bytes = shard.bytes.saturating_sub(kept.map_or(0, |kept| kept.bytes));
        }
    }
}

#[cfg(test)]
mod tests;
