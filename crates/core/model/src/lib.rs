//! The nouns of the product: identifiers, ARNs, principals, secrets, times, and the records that the store keeps.
//!
//! Pure values: nothing here reads a clock, a file or chance. Text is parsed once, at the border; inside, the type is
//! the proof that it was well formed (style rule 1).

pub mod account;
pub mod arn;
pub mod digest;
pub mod principal;
pub mod record;
pub mod secret;
pub mod time;
pub mod workload;

pub mod ec2;
pub mod ecr;
pub mod iam;
pub mod kms;
pub mod logs;
pub mod metrics;
pub mod s3;
pub mod sagemaker;

pub use account::{AccountId, Region, Scope};
pub use arn::Arn;
pub use digest::Sha256Digest;
pub use principal::Principal;
pub use record::{Key, Record};
pub use secret::Secret;
pub use time::Timestamp;
pub use workload::WorkloadId;
