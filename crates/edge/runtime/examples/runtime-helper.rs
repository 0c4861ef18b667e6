//! Stands in for the product's binary in this crate's tests: the hidden subcommands, a program in a namespace, nothing else.

use isolarium_runtime::program::{FileOf, Program, ProgramFailure, Root, run};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("shim") => isolarium_runtime::shim_main(),
        Some("unpack") => isolarium_runtime::unpack_main(),
        Some("tunnel") => isolarium_runtime::tunnel_main(),
        Some("program") => program().unwrap_or(ExitCode::from(79)),
        _ => ExitCode::FAILURE,
    }
}

/// `program HIDDEN ROOT LIFELINE COMMAND…`: in this process's own network namespace. An empty ROOT is the caller's own.
fn program() -> std::io::Result<ExitCode> {
    let mut words = std::env::args_os().skip(2);
    let mut word = || words.next().unwrap_or_default();
    let (hidden, root, lifeline) = (word(), word(), word());
    let program = Program {
        netns: std::fs::File::open("/proc/self/ns/net")?.into(),
        hostname: "ip-10-0-0-4".into(),
        root: match root.is_empty() {
            true => Root::Own,
            false => Root::Folder(root.into()),
        },
        files: vec![FileOf {
            path: "/etc/hosts".into(),
            text: b"10.0.0.4 only\n".to_vec(),
            needed: false,
        }],
        hidden: hidden.into(),
        command: words.collect::<Vec<OsString>>(),
        environment: vec![("WORD".into(), Some("given".into())), ("HOME".into(), None)],
        lifeline: OwnedFd::from(std::fs::File::open(lifeline)?),
    };
    Ok(ExitCode::from(match run(program) {
        Ok(code) | Err(ProgramFailure::Unstartable { code, .. }) => code,
        Err(ProgramFailure::Lost) => 77,
        Err(error) => {
            use std::io::Write;
            writeln!(std::io::stderr(), "{error}")?;
            78
        }
    }))
}
