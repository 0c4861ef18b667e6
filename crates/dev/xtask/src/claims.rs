//! Which test proves which requirement. Tests carry `Proves: NI-6, CC-34` directly above (Rust) or in their docstring
//! (Python); promises of `docs/isolation.md` name their tests.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Requirements {
    /// Ids whose proof covers only the resources that exist so far.
    partial: BTreeSet<String>,
    /// Ids the product claims: each must have a test.
    claimed: BTreeSet<String>,
    ids: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    tests: Vec<String>,
    partial: bool,
}

/// Prints the table (or JSON rows) and fails on a claim without a test, an unknown id or a test that does not exist.
///
/// # Errors
/// Every fault found, in one message.
pub fn run(root: &Path, json: bool) -> Result<()> {
    let path = root.join("docs/requirements.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let requirements: Requirements = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut tests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut faults = Vec::new();
    let mut known: BTreeSet<String> = requirements.ids.keys().cloned().collect();
    let path = root.join("docs/isolation.md");
    let document = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    known.extend(document.lines().filter_map(promise_of));
    for file in sources(root)? {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        scan(&shown, &text, &known, &mut tests, &mut names, &mut faults);
    }
    promises(&document, &names, &mut tests, &mut faults);
    for id in &requirements.claimed {
        if !requirements.ids.contains_key(id) {
            faults.push(format!("claimed id {id} is not a requirement"));
        } else if !tests.contains_key(id) {
            faults.push(format!("claimed id {id} has no test"));
        }
    }
    for id in &requirements.partial {
        if !requirements.claimed.contains(id) {
            faults.push(format!("partial id {id} is not claimed"));
        }
    }
    let rows: Vec<Row> = tests
        .iter()
        .map(|(id, names)| Row {
            id: id.clone(),
            tests: names.iter().cloned().collect(),
            partial: requirements.partial.contains(id),
        })
        .collect();
    crate::say(&if json {
        serde_json::to_string_pretty(&rows)?
    } else {
        rows.iter()
            .map(|row| {
                format!(
                    "{:8} {}{}",
                    row.id,
                    if row.partial { "(partial) " } else { "" },
                    row.tests.join(", ")
                )
            })
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    if faults.is_empty() {
        Ok(())
    } else {
        bail!("claims do not hold:\n  {}", faults.join("\n  "))
    }
}

/// Rust and Python sources that may hold tests.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.join("crates"), root.join("tests")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs" || ending == "py") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn scan(
    file: &str,
    text: &str,
    known: &BTreeSet<String>,
    tests: &mut BTreeMap<String, BTreeSet<String>>,
    names: &mut BTreeSet<String>,
    faults: &mut Vec<String>,
) {
    // Rust puts the claim above the function, Python inside it.
    let python = file.ends_with(".py");
    let mut claimed: Vec<String> = Vec::new();
    let mut current: Option<String> = None;
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        marked |= !python && (line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
        if let Some(name) = function(line, python) {
            // What no runner calls proves nothing. A macro that writes tests takes their names without parameters.
            let by_macro = text.contains("fn $name") && !line.contains(&format!("{name}("));
            let runs = if python {
                name.starts_with("test_")
            } else {
                std::mem::take(&mut marked) || by_macro
            };
            if runs {
                names.insert(name.clone());
            } else if !claimed.is_empty() {
                faults.push(format!("{file}: {name} claims {}, and is no test", claimed.join(", ")));
                claimed.clear();
            }
            let test = format!("{file}::{name}");
            for id in claimed.drain(..) {
                tests.entry(id).or_default().insert(test.clone());
            }
            current = runs.then_some(test);
        }
        let marker = if python {
            line.strip_prefix("Proves: ").or(line.strip_prefix("\"\"\"Proves: "))
        } else {
            line.strip_prefix("/// Proves: ")
        };
        let Some(list) = marker else { continue };
        for id in list
            .trim_end_matches("\"\"\"")
            .trim_end_matches('.')
            .split([',', ' '])
            .filter(|id| !id.is_empty())
        {
            if !known.contains(id) {
                faults.push(format!(
                    "{file} claims {id}, which is neither a requirement nor a promise"
                ));
            } else if python {
                if let Some(test) = &current {
                    tests.entry(id.into()).or_default().insert(test.clone());
                } else {
                    faults.push(format!("{file} claims {id} in no test"));
                }
            } else {
                claimed.push(id.into());
            }
        }
    }
    for id in claimed {
        faults.push(format!("{file} claims {id} above no test"));
    }
}

fn function(line: &str, python: bool) -> Option<String> {
    let rest = if python {
        line.strip_prefix("def ")?
    } else {
        line.strip_prefix("pub ")
            .unwrap_or(line)
            .strip_prefix("async ")
            .unwrap_or(line)
            .strip_prefix("fn ")?
    };
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The promise that begins in a line.
fn promise_of(line: &str) -> Option<String> {
    let rest = line.trim_start().strip_prefix("- **ISO-")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("ISO-{digits}"))
}

/// Promises of `docs/isolation.md`: lines such as `- **ISO-7** text. Test: \`name\`, \`name\`.`
fn promises(
    text: &str,
    names: &BTreeSet<String>,
    tests: &mut BTreeMap<String, BTreeSet<String>>,
    faults: &mut Vec<String>,
) {
    let mut promise: Option<String> = None;
    for line in text.lines() {
        if let Some(next) = promise_of(line)
            && let Some(id) = promise.replace(next)
        {
            faults.push(format!("{id} names no test"));
        }
        let (Some(id), Some((_, list))) = (&promise, line.split_once("Test: ")) else {
            continue;
        };
        for name in list.split('`').skip(1).step_by(2) {
            if names.contains(name) {
                tests.entry(id.clone()).or_default().insert(name.into());
            } else {
                faults.push(format!("{id} names test {name}, which does not exist"));
            }
        }
        promise = None;
    }
    if let Some(id) = promise {
        faults.push(format!("{id} names no test"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(file: &str, text: &str) -> (BTreeMap<String, BTreeSet<String>>, Vec<String>) {
        let known = ["NI-6", "CC-34"].map(str::to_owned).into();
        let (mut tests, mut names, mut faults) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        scan(file, text, &known, &mut tests, &mut names, &mut faults);
        (tests, faults)
    }

    #[test]
    fn a_claim_belongs_to_the_test_below_it_in_rust_and_around_it_in_python() {
        let (tests, faults) = scanned(
            "a.rs",
            "/// Proves: NI-6, CC-34\n#[test]\nfn sealed() {}\nfn other() {}\n",
        );
        assert!(faults.is_empty());
        assert!(tests["NI-6"].contains("a.rs::sealed") && tests["CC-34"].contains("a.rs::sealed"));
        assert_eq!(tests["NI-6"].len(), 1);
        let (tests, faults) = scanned(
            "b.py",
            "def test_x():\n    \"\"\"Says it.\n    Proves: NI-6\n    \"\"\"\n",
        );
        assert!(faults.is_empty());
        assert!(tests["NI-6"].contains("b.py::test_x"));
    }

    #[test]
    fn an_unknown_id_and_a_claim_above_nothing_are_faults() {
        let (tests, faults) = scanned("a.rs", "/// Proves: NI-999\nfn x() {}\n/// Proves: NI-6\n");
        assert!(tests.is_empty());
        assert_eq!(faults.len(), 2);
    }

    #[test]
    fn a_promise_is_an_id_and_one_without_a_test_is_a_fault() {
        assert_eq!(
            promise_of("- **ISO-7** Data stays. Test: `x`.").as_deref(),
            Some("ISO-7")
        );
        assert_eq!(promise_of("Text about ISO-7"), None);
        let text =
            "- **ISO-1** One. Test: `one`.\n- **ISO-2** Two.\n- **ISO-3** Three. Test: `three`.\n- **ISO-4** Four.\n";
        let (mut tests, mut faults) = (BTreeMap::new(), Vec::new());
        promises(text, &BTreeSet::from(["one".to_owned()]), &mut tests, &mut faults);
        assert!(tests["ISO-1"].contains("one"));
        assert_eq!(
            faults,
            [
                "ISO-2 names no test",
                "ISO-3 names test three, which does not exist",
                "ISO-4 names no test"
            ]
        );
    }
}
