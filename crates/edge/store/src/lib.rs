//! What survives: resource records, S3 objects, logs, the audit trail.

pub mod audit;
pub mod blobs;
pub mod database;
pub mod logs;
pub mod metrics;
pub mod objects;
pub mod state;

pub use audit::{AuditDown, AuditError, AuditEvent, AuditSettings, AuditTrail, Keep};
pub use blobs::{BlobError, BlobStore};
pub use database::{Database, Schema};
pub use logs::{DiskLogs, LogError, LogStore};
pub use metrics::Metrics;
pub use objects::{ObjectError, ObjectStore};
pub use state::{Batch, Expect, Query, Revision, StateStore, StoreError, Stored};
