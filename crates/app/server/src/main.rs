//! The `isolarium` binary.

fn main() -> std::process::ExitCode {
    isolarium_server::cli::main()
}
