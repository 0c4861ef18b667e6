//! Flow logs (NET-55..NET-57): from what a VPC's router counted to the records that EC2 would write.
//!
//! Pure. The crate `dataplane` counts, the server's loop reads and delivers: [`records::attribute`] says whose traffic a
//! flow was, [`records::merge`] joins what belongs into one record, [`lines`] writes it in a flow log's format.

pub mod explain;
pub mod lines;
pub mod observed;
pub mod records;

pub use explain::explain;
pub use lines::{Interval, Place};
pub use observed::{Counts, Fate, Flow, Flows, Path, Refusal, Tcp};
pub use records::{FlowRecord, Ranges, attribute, merge};
