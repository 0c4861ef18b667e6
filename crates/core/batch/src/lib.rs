//! What batch transform does to data: objects fall into records, records fill requests, filters and joins, results are
//! assembled (CC-66, CC-68..72, CC-77..79). Bytes in, bytes out; memory depends on the largest request, never on an object.
//! And what streamed channels of training jobs need of it: augmented manifests, RecordIO frames, the order of an epoch
//! (CC-25..27).

pub mod augmented;
pub mod csv;
pub mod parameters;
pub mod path;
pub mod payload;
pub mod processing;
pub mod record_io;
pub mod shuffle;
pub mod split;

pub use parameters::Parameters;
pub use path::JsonPath;
pub use payload::{Batcher, Payload};
pub use processing::Processing;
pub use split::{Splitter, Unreadable};
