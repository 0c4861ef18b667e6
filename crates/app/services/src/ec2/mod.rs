//! EC2's network: VPCs and what is in them (NET-80..86). Handlers commit records; the reconciler makes them real.

pub(crate) mod facts;
pub mod questions;

/// What IAM calls flow logs when a role is passed to them (IAM-51).
pub(crate) const FLOW_LOGS_SERVICE: &str = "vpc-flow-logs.amazonaws.com";
