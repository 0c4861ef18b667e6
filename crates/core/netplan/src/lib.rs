//! The network compiler: what workloads and VPCs should reach (intent) to what the kernel must hold (plan), and from
//! what it holds to the steps that change it (diff).
//!
//! Pure: `compile` is total and deterministic, [`diff::diff`] compares values. The crate `dataplane` observes and
//! applies.

pub mod compile;
pub mod diff;
pub mod flowlog;
pub mod intent;
pub mod plan;
pub mod reach;
pub mod ruleset;
pub mod withdrawal;

pub use compile::vpc::{Edge, compile_interface, compile_vpc};
pub use compile::{BadNetwork, Tag, compile_host, compile_host_with, compile_workload, encrypt, peers_seen};
pub use diff::{Step, diff, diff_place};
pub use plan::{HostPlan, HostSeen, NamespacePlan, NamespaceSeen, Place, WorkloadPlan};

#[cfg(test)]
extern crate self as isolarium_netplan;
#[cfg(test)]
mod simulate;
// Shared with the labs, which hold the kernel to the same oracle.
#[cfg(test)]
#[path = "../../../dev/testkit/src/lab/topology.rs"]
mod topology;

/// Identifiers of EC2's resources: the records' own.
pub use isolarium_model::ec2::id;
