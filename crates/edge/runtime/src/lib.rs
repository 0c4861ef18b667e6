//! Running one container: launch, observe, terminate, collect. `Executor` is the seam; `local` runs on this machine.

pub mod executor;

pub use executor::{Archives, Dial, EgressReport, Executor};
