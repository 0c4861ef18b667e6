//! Running one container: launch, observe, terminate, collect. `Executor` is the seam; `local` runs on this machine.

pub mod executor;
pub mod local;

pub use executor::{Archives, Dial, EgressReport, Executor};

use std::process::ExitCode;

/// Entry point of the hidden subcommand `shim`: one container's parent. Its descriptors and its spec come from
/// [`local::LocalRuntime::launch`].
pub fn shim_main() -> ExitCode {
    ExitCode::FAILURE
}

/// Entry point of the hidden subcommand `unpack`: unpacks or packs one archive without any privilege.
pub fn unpack_main() -> ExitCode {
    ExitCode::FAILURE
}
