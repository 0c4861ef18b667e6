//! Stands in for the product's binary in this crate's tests: the two hidden subcommands and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("shim") => isolarium_runtime::shim_main(),
        Some("unpack") => isolarium_runtime::unpack_main(),
        Some("tunnel") => isolarium_runtime::tunnel_main(),
        _ => ExitCode::FAILURE,
    }
}
