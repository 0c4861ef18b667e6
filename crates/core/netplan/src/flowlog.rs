//! Flow logs (NET-55..NET-57): from what a VPC's router counted to the records that EC2 would write.
//!
//! Pure. The crate `dataplane` counts, the server's loop reads and delivers.

pub mod observed;

pub use observed::{Counts, Fate, Flow, Flows, Path, Refusal, Tcp};
