//! S3 objects: plain files at their keys, with an index in SQLite (docs/design/0003-object-store.md).
//!
//! The index is the truth. A file's place follows from it, and every change runs the same way: the files it touches
//! are brought to `escape/new/`, the index is committed, and each file is *settled* to the place that the index now
//! gives it. Recovery at start-up settles whatever a crash left in `escape/new/`: the same code, no second path.

mod buckets;
mod delete;
mod digest;
mod disk;
mod error;
mod incoming;
mod listing;
mod multipart;
mod put;
mod read;
mod recover;
mod rows;
mod seal;
mod stage;

pub use buckets::NewBucket;
pub use delete::{Deleted, Target};
pub use digest::{Digests, combine, composite};
pub use error::ObjectError;
pub use incoming::{Incoming, Staged};
pub use listing::{Listing, ListingQuery, VersionListing};
pub use multipart::{Completion, PartListing, PartRef, UploadListing};
pub use put::{Attributes, CopySource, Put, WriteCondition};
pub use read::{Reading, read_in_memory};
pub use rows::SCHEMA;
pub use seal::{DataKey, ObjectBytes, SealedFile, Sealing, Unsealed};

use crate::Database;
use disk::Disk;
use isolarium_model::Timestamp;
use isolarium_model::s3::{BucketName, ObjectKey};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks for keys; two keys may share one.
const STRIPES: usize = 512;

/// All buckets and objects of one data directory. Calls block; run them off the async threads. Cheap to clone.
///
/// An `Ok` of a write survives a crash of the process and of the machine; a write without an answer is wholly there or
/// wholly absent afterwards.
#[derive(Clone)]
pub struct ObjectStore {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<Disk>,
    database: Arc<Database>,
    /// Held from before a key's index entry changes until its files are settled, so that the order of renames is the
    /// order of commits.
    stripes: Vec<Mutex<()>>,
    hasher: RandomState,
    /// Creation and deletion of buckets, one at a time.
    buckets: Mutex<()>,
    /// The last stamp given to a file; see [`disk::Stamp`].
    stamp: AtomicI64,
}

impl ObjectStore {
    /// Opens the objects under `dir` (`buckets/` and `escape/`) and finishes what a crash interrupted. The database
    /// must have been opened with [`SCHEMA`].
    ///
    /// # Errors
    /// When the directories cannot be made or read, or the index cannot be read.
    pub fn open(dir: &Path, database: Arc<Database>) -> Result<Self, ObjectError> {
        let disk = Arc::new(Disk::open(dir)?);
        let stamp: i64 = database.read(|db| {
            db.query_row("SELECT coalesce(max(stamp), 0) FROM s3_stamps", [], |row| row.get(0))
                .map_err(ObjectError::from)
        })?;
        let store = Self {
            inner: Arc::new(Inner {
                disk,
                database,
                stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
                hasher: RandomState::new(),
                buckets: Mutex::new(()),
                stamp: AtomicI64::new(stamp),
            }),
        };
        store.recover()?;
        Ok(store)
    }

    fn disk(&self) -> &Disk {
        &self.inner.disk
    }

    fn database(&self) -> &Database {
        &self.inner.database
    }

    fn next_stamp(&self, now: Timestamp) -> i64 {
        let wanted = now.0.max(1).saturating_mul(1_000_000);
        let next = |last: i64| Some(wanted.max(last.saturating_add(1)));
        let last = self
            .inner
            .stamp
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
            .unwrap_or_default();
        wanted.max(last.saturating_add(1))
    }

    fn stripe(&self, bucket: &BucketName, key: &ObjectKey) -> usize {
        let hash = self.inner.hasher.hash_one((bucket, key));
        usize::try_from(hash % STRIPES as u64).unwrap_or(0)
    }

    fn lock_key(&self, bucket: &BucketName, key: &ObjectKey) -> Vec<MutexGuard<'_, ()>> {
        self.lock_keys(bucket, std::iter::once(key))
    }

    /// Locks several keys in one order, so that two callers never wait for each other in a circle.
    fn lock_keys<'k>(&self, bucket: &BucketName, keys: impl Iterator<Item = &'k ObjectKey>) -> Vec<MutexGuard<'_, ()>> {
        let mut wanted: Vec<usize> = keys.map(|key| self.stripe(bucket, key)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
            .into_iter()
            .filter_map(|at| self.inner.stripes.get(at))
            .map(lock)
            .collect()
    }

    fn lock_buckets(&self) -> MutexGuard<'_, ()> {
        lock(&self.inner.buckets)
    }
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    // The mutex guards no data of its own; a panic elsewhere leaves nothing half-done that recovery would not settle.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
