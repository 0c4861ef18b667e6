//! The eBPF object that is checked in: built from its source here, or compared with it where clang is present.

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::{Command, Output};

const CRATE: &str = "crates/edge/dataplane";
const SOURCE: &str = "bpf/egress.bpf.c";
const OBJECT: &str = "bpf/egress.bpf.o";
/// The object is a function of the source and the compiler's version; the one that made the checked-in object.
const CLANG_MAJOR: &str = "14";

/// Builds the object anew. With `check` it is compared with the one checked in instead of replacing it; a machine without
/// this clang says so and succeeds, since users and most builders have none.
///
/// # Errors
/// When the source does not compile, or with `check` gives another object.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let dir = root.join(CRATE);
    if let Err(missing) = clang_is_the_one() {
        if check {
            eprintln(&format!("bpf: the object was not compared with its source: {missing}"));
            return Ok(());
        }
        return Err(missing);
    }
    let built = dir.join("bpf/egress.bpf.new.o");
    let outcome = build(&dir, &built).and_then(|()| {
        if !check {
            return std::fs::rename(&built, dir.join(OBJECT)).context("the object cannot be replaced");
        }
        let (new, old) = (std::fs::read(&built)?, std::fs::read(dir.join(OBJECT)).context(OBJECT)?);
        ensure!(
            new == old,
            "{CRATE}/{OBJECT} is not what {SOURCE} compiles to; run `cargo xtask bpf` and commit it"
        );
        Ok(())
    });
    match std::fs::remove_file(&built) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("bpf: the new object stays");
        }
        _ => {}
    }
    outcome
}

fn clang_is_the_one() -> Result<()> {
    let output = Command::new("clang")
        .arg("-dumpversion")
        .output()
        .context("clang is missing (package clang)")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        version.split('.').next() == Some(CLANG_MAJOR),
        "clang {CLANG_MAJOR} is needed, this is {version}"
    );
    Command::new("llvm-strip")
        .arg("--version")
        .output()
        .context("llvm-strip is missing (package llvm)")?;
    ensure!(
        Path::new("/usr/include/bpf/bpf_helpers.h").exists(),
        "bpf_helpers.h is missing (package libbpf-dev)"
    );
    Ok(())
}

fn build(dir: &Path, out: &Path) -> Result<()> {
    // Relative names and a fixed compilation directory: the object must not depend on where the tree lies.
    let headers = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let flags = [
        "-O2",
        "-g",
        "-Wall",
        "-Werror",
        "-target",
        "bpf",
        "-mcpu=v3",
        "-fdebug-compilation-dir=.",
    ];
    let compiled = Command::new("clang")
        .current_dir(dir)
        .args(flags)
        .arg(headers)
        .args(["-c", SOURCE, "-o"])
        .arg(out)
        .output()?;
    succeeded("clang", &compiled)?;
    succeeded("llvm-strip", &Command::new("llvm-strip").arg("-g").arg(out).output()?)
}

fn succeeded(program: &str, output: &Output) -> Result<()> {
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a developer's tool speaks on standard error")]
fn eprintln(text: &str) {
    eprintln!("{text}");
}
