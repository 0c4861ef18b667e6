//! What cargo knows of the workspace.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::Path;
use std::process::Command;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// One crate of the graph.
#[derive(Deserialize)]
pub struct Package {
    pub name: String,
    pub license: Option<String>,
    pub manifest_path: String,
    pub dependencies: Vec<Dependency>,
}

/// One declared dependency. `kind` is absent for normal ones, `dev` or `build` otherwise.
#[derive(Deserialize)]
pub struct Dependency {
    pub name: String,
    pub kind: Option<String>,
}

/// The workspace's own crates, or with `all` the whole graph of the lock file.
///
/// # Errors
/// When cargo fails or the lock file is not up to date.
pub fn packages(root: &Path, all: bool) -> Result<Vec<Package>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root);
    if !all {
        cargo.arg("--no-deps");
    }
    let output = cargo.output().context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice::<Metadata>(&output.stdout)?.packages)
}
