//! The kernel's network: namespaces, links, routes, nftables, eBPF. The only crate that speaks netlink and nft.
//!
//! - [`Host`]: the shared network of the machine (platform namespace, uplink), listeners in it, and [`Host::seal`],
//!   the only source of a [`SealedNetns`].
//! - [`NetHost`]: observe and apply, with [`converge`] on top; [`kernel`] is the real one, [`fake`] keeps it in memory.
//! - [`dial()`]: connections from inside a workload's namespace.
//! - [`flow`]: what passed through VPCs' routers and what they refused.
//! - [`Reporter`]: what sealed containers tried to reach.

pub mod dial;
pub mod fake;
mod flow;
pub mod host;
pub mod kernel;
pub mod net_host;
pub mod report;
pub mod seal;

pub use dial::dial;
pub use host::{Host, HostError, HostOptions, TunnelEnds};
pub use net_host::{ApplyError, NetHost, ObserveError, converge};
pub use report::{Question, RawAttempt, ReportError, Reporter};
pub use seal::{SealError, SealedNetns};
