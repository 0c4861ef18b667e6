//! S3 over the object store: the s3s backend, with every request authorised (IAM-36, IAM-65).

mod attributes;
mod backend;
mod body;
mod buckets;
mod convert;
mod copies;
mod deletes;
mod encryption;
mod event;
mod fault;
mod form;
mod front;
mod gate;
mod host;
mod lists;
mod log;
mod objects;
mod platform;
mod public;
mod query;
mod uploads;

pub use front::{S3Front, S3Wiring, TlsVersion};
pub use gate::Authorities;
pub use log::{AccessLog, AccessRecord, FileAccessLog};
pub use platform::TransferError;
pub use s3s::Body;

#[cfg(test)]
mod tests;
