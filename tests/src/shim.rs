//! The two hidden subcommands of the product's binary and nothing else, for containers that tests start.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("shim") => isolarium_runtime::shim_main(),
        Some("unpack") => isolarium_runtime::unpack_main(),
        Some("tunnel") => isolarium_runtime::tunnel_main(),
        _ => ExitCode::FAILURE,
    }
}
