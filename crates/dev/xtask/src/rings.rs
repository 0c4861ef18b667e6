//! Dependencies point inward: `app` to `edge` to `core`, by the table of the style guide; and each ring has its own list of
//! outside crates, so that a new one is a decision.

use crate::metadata;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Which workspace crates each crate may depend on (normal dependencies).
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &[]),
    ("policy", &["model"]),
    ("netplan", &["model"]),
    ("tuning", &["model"]),
    ("batch", &["model"]),
    ("store", &["model"]),
    ("dataplane", &["model", "netplan"]),
    ("runtime", &["model", "netplan", "dataplane"]),
    ("node", &["model", "netplan", "dataplane", "runtime"]),
    ("services", &["model", "wire", "policy", "tuning", "batch", "store"]),
    // The traits of `dataplane` and `runtime` alone: a loop never holds a privilege.
    (
        "reconcile",
        &["model", "netplan", "tuning", "batch", "store", "dataplane", "runtime"],
    ),
    (
        "server",
        &[
            "model",
            "wire",
            "policy",
            "netplan",
            "batch",
            "store",
            "dataplane",
            "runtime",
            "node",
            "services",
            "reconcile",
        ],
    ),
];

/// Outside crates that the pure ring may use: none of them does I/O by itself.
const CORE_OUTSIDE: &[&str] = &[
    "base64",
    "bytes",
    "crc32fast",
    "fancy-regex",
    "flate2",
    "hex",
    "hmac",
    "http",
    "indexmap",
    "ipnet",
    "jiff",
    "minicbor",
    "quick-xml",
    "regex",
    "serde",
    "serde_json",
    "sha1",
    "sha2",
    "subtle",
    "thiserror",
];

/// Outside crates that only the named crates may use.
const RESERVED: &[(&str, &[&str])] = &[
    ("aya", &["dataplane"]),
    ("rusqlite", &["store"]),
    ("hyper", &["server"]),
    ("rustls", &["server"]),
    ("s3s", &["services", "server"]),
    ("clap", &["server", "xtask"]),
];

/// Checks every crate of the workspace.
///
/// # Errors
/// Every dependency that points outward or is not on its ring's list.
pub fn run(root: &Path) -> Result<()> {
    let mut faults = Vec::new();
    let mut checked = 0;
    for package in metadata::packages(root, false)? {
        let normal = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.is_none());
        let dependencies: BTreeSet<&str> = normal.map(|dependency| dependency.name.as_str()).collect();
        checked += 1;
        check(&package.name, &package.manifest_path, &dependencies, &mut faults);
    }
    if faults.is_empty() {
        crate::say(&format!("rings: {checked} crates, all dependencies point inward"))
    } else {
        bail!("rings are broken:\n  {}", faults.join("\n  "))
    }
}

fn check(package: &str, manifest: &str, dependencies: &BTreeSet<&str>, faults: &mut Vec<String>) {
    let short = package.strip_prefix("isolarium-").unwrap_or(package);
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let shipped = allowed.get(short);
    for dependency in dependencies {
        match (dependency.strip_prefix("isolarium-"), shipped) {
            (Some(inner), Some(list)) if !list.contains(&inner) => {
                faults.push(format!("{package} must not depend on {dependency}"));
            }
            (None, _) if manifest.contains("/core/") && !CORE_OUTSIDE.contains(dependency) => {
                faults.push(format!(
                    "{package} is in the core ring; {dependency} is not on its list"
                ));
            }
            (None, _) => {
                for (reserved, users) in RESERVED {
                    if reserved == dependency && !users.contains(&short) {
                        faults.push(format!(
                            "{dependency} belongs to {}; {package} uses it",
                            users.join(", ")
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    if shipped.is_none() && !manifest.contains("/dev/") && !manifest.contains("/tests/") {
        faults.push(format!("{package} is not in the table of rings"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outward_dependency_is_a_fault() {
        let mut faults = Vec::new();
        check(
            "isolarium-store",
            "/x/edge/store/Cargo.toml",
            &BTreeSet::from(["isolarium-model", "rusqlite"]),
            &mut faults,
        );
        assert!(faults.is_empty(), "control: {faults:?}");
        check(
            "isolarium-store",
            "/x/edge/store/Cargo.toml",
            &BTreeSet::from(["isolarium-services"]),
            &mut faults,
        );
        check(
            "isolarium-model",
            "/x/core/model/Cargo.toml",
            &BTreeSet::from(["tokio"]),
            &mut faults,
        );
        check(
            "isolarium-services",
            "/x/app/services/Cargo.toml",
            &BTreeSet::from(["rusqlite"]),
            &mut faults,
        );
        assert_eq!(faults.len(), 3);
    }
}
