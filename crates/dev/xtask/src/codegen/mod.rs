//! Code and tables made from AWS's service models: `models/*.json.gz`, `crates/core/wire/src/shapes/*.rs` and
//! `docs/compatibility.md`; and `models/authorization.json.gz` from the Service Authorization Reference.

mod authorization;
mod compact;
#[expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value by key gives null, never a panic"
)]
mod compatibility;
mod names;
#[expect(
    clippy::indexing_slicing,
    reason = "indexing a JSON value by key gives null, never a panic"
)]
mod shapes;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Deserialize)]
struct Served {
    operations: Vec<String>,
}

/// Writes everything that is generated, or with `check` compares it with what is there. `iam_data` is the tarball of the
/// authorization reference; without it that file stays as it is.
///
/// # Errors
/// With `check`: when a file differs. Otherwise when a model cannot be read or a file not be written.
pub fn run(root: &Path, botocore: Option<&Path>, iam_data: Option<&Path>, check: bool) -> Result<()> {
    let models = root.join("models");
    if let Some(data) = botocore {
        compact::write_all(data, &models)?;
    }
    let mut stale = Vec::new();
    if let Some(tarball) = iam_data {
        let path = models.join("authorization.json.gz");
        let text = authorization::generate(tarball)?;
        // Compared by content: two versions of the packer may pack alike texts differently.
        let fresh = compact::unpack(&path).is_ok_and(|present| present == text);
        if check && !fresh {
            stale.push(path.strip_prefix(root).unwrap_or(&path).display().to_string());
        } else if !fresh {
            compact::pack(&path, text.as_bytes())?;
        }
    }
    for (path, text) in generated(root, &models)? {
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        if present == text {
            continue;
        }
        if check {
            stale.push(path.strip_prefix(root).unwrap_or(&path).display().to_string());
        } else {
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
    }
    if stale.is_empty() {
        return crate::say(if check {
            "codegen: everything is as generated"
        } else {
            "codegen: written"
        });
    }
    bail!("not as generated, run `cargo xtask codegen`: {}", stale.join(", "))
}

fn generated(root: &Path, models: &Path) -> Result<Vec<(PathBuf, String)>> {
    let list = models.join("served-operations.toml");
    let text = std::fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let served: BTreeMap<String, Served> = toml::from_str(&text).with_context(|| list.display().to_string())?;
    if let Some(unknown) = served
        .keys()
        .find(|name| !compact::SERVICES.iter().any(|(known, _)| known == name))
    {
        bail!("{}: no service {unknown} is embedded", list.display());
    }
    let mut files = Vec::new();
    let mut rows = Vec::new();
    for (service, version) in compact::SERVICES {
        let model = compact::read(&models.join(format!("{service}.json.gz")))?;
        let operations = served
            .get(*service)
            .map(|s| s.operations.as_slice())
            .unwrap_or_default();
        if !operations.is_empty() {
            let source = shapes::generate(service, &model, operations)?;
            let file = format!("crates/core/wire/src/shapes/{}.rs", service.replace('-', "_"));
            files.push((root.join(file), formatted(root, &source)?));
        }
        rows.push(compatibility::Row::new(service, version, &model, operations)?);
    }
    files.push((root.join("docs/compatibility.md"), compatibility::page(&rows)));
    Ok(files)
}

/// The same source as `cargo fmt` would leave it.
fn formatted(root: &Path, source: &str) -> Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting rustfmt; `rustup component add rustfmt` installs it")?;
    let mut input = child.stdin.take().context("rustfmt has no input")?;
    let text = source.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("writing to rustfmt failed"))??;
    if !output.status.success() {
        bail!("rustfmt refused the generated source");
    }
    Ok(String::from_utf8(output.stdout)?)
}
