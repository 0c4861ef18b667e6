//! The kernel's network: namespaces, links, routes, nftables, eBPF. The only crate that speaks netlink and nft.
//!
//! - [`Host`]: the shared network of the machine (platform namespace, uplink), listeners in it, and [`Host::seal`],
//!   the only source of a [`SealedNetns`].
//! - [`dial`]: connections from inside a workload's namespace.
//! - [`Reporter`]: what sealed containers tried to reach.

pub mod dial;
pub mod host;
pub mod report;
pub mod seal;

pub use dial::dial;
pub use host::{Host, HostError, HostOptions};
pub use report::{Question, RawAttempt, ReportError, Reporter};
pub use seal::{SealError, SealedNetns};
