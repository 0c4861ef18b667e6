//! What each API operation does: one folder per service, one file per resource. A request never touches the host.

pub mod audit;
#[cfg(test)]
mod authorization;
pub mod context;
pub mod dispatch;
pub mod operation;
pub mod resource_tags;

pub mod cloudtrail;
pub mod cloudwatch;
pub mod ec2;
pub mod ecr;
pub mod featurestore;
pub mod iam;
pub mod kms;
pub mod logs;
pub mod platform;
pub mod s3;
pub mod sagemaker;
pub mod sts;

pub use context::{Caller, Ctx, EndpointSource, Session, Source};
pub use dispatch::Dispatch;
pub use operation::{Asked, Operation};
