//! What survives: resource records, S3 objects, logs, the audit trail.

pub mod state;

pub use state::{Batch, Expect, Query, Revision, StateStore, StoreError, Stored};
