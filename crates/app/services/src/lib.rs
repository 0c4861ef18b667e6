//! What each API operation does: one folder per service, one file per resource. A request never touches the host.

pub mod context;
pub mod operation;

pub use context::{Caller, Ctx, Source};
pub use operation::Operation;
