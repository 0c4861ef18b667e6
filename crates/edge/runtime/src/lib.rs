//! Running one container: launch, observe, terminate, collect. `Executor` is the seam; `local` runs on this machine.
//!
//! - [`executor`]: the traits and values that cross the seam.
//! - [`local`]: containers on this machine, as the privileged process sees them.
//! - [`vpcs`]: VPCs on the host. [`fake`]: the same in memory, for tests.
//! - [`fifo`]: named pipes that containers read.
//! - [`program`]: a program of the operator's in a network namespace.
//! - `shim`: one container's parent process. `archive`: the unprivileged process that unpacks and packs.
//! - `tunnel`: the process that encrypts what the containers of a job say to each other.
//! - `log`: output on disk. `sys`: the system calls that need `unsafe`.

mod archive;
pub mod cdi;
pub mod executor;
pub mod fake;
pub mod fifo;
pub mod local;
mod log;
pub mod program;
mod shim;
mod sys;
mod tunnel;
pub mod vpcs;

pub use executor::{Archives, Dial, EgressReport, Executor};
pub use vpcs::Vpcs;

use std::process::ExitCode;

/// Entry point of the hidden subcommand `shim`: one container's parent. Its descriptors and its job come from
/// [`local::LocalRuntime::launch`] over standard input. Call it before anything starts a thread.
pub fn shim_main() -> ExitCode {
    shim::main()
}

/// Entry point of the hidden subcommand `unpack`: unpacks or packs one archive without any privilege. Call it before
/// anything starts a thread.
pub fn unpack_main() -> ExitCode {
    archive::main()
}

/// Entry point of the hidden subcommand `tunnel`: encrypts what one container says to its peers. Started by the container's
/// shim. Call it before anything starts a thread.
pub fn tunnel_main() -> ExitCode {
    tunnel::main()
}
