//! What survives: resource records, S3 objects, logs, the audit trail.

pub mod database;
pub mod state;

pub use database::{Database, Schema};
pub use state::{Batch, Expect, Query, Revision, StateStore, StoreError, Stored};
