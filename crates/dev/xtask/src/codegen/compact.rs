//! botocore's service models without their prose: what the engine and the shape generator need, and nothing else.

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;

/// Every embedded service with the API version that is taken from botocore.
pub const SERVICES: &[(&str, &str)] = &[
    ("cloudformation", "2010-05-15"),
    ("cloudtrail", "2013-11-01"),
    ("cloudwatch", "2010-08-01"),
    ("ec2", "2016-11-15"),
    ("ecr", "2015-09-21"),
    ("iam", "2010-05-08"),
    ("kms", "2014-11-01"),
    ("logs", "2014-03-28"),
    ("sagemaker", "2017-07-24"),
    ("sagemaker-featurestore-runtime", "2020-07-01"),
    ("sagemaker-runtime", "2017-05-13"),
    ("sts", "2011-06-15"),
];

/// Keys of a shape or of a member reference that change neither decoding, checking nor encoding.
const PROSE: &[&str] = &[
    "documentation",
    "deprecated",
    "deprecatedMessage",
    "deprecatedSince",
    "box",
    "idempotencyToken",
    "synthetic",
    "xmlOrder",
];
const METADATA: &[&str] = &[
    "apiVersion",
    "awsQueryCompatible",
    "endpointPrefix",
    "jsonVersion",
    "protocol",
    "protocols",
    "serviceFullName",
    "serviceId",
    "signingName",
    "targetPrefix",
    "xmlNamespace",
];

/// Reads `<data>/<service>/<version>/service-2.json.gz` of an unpacked botocore and writes `<models>/<service>.json.gz`.
///
/// # Errors
/// When a model is missing, is not a service model, or cannot be written.
pub fn write_all(data: &Path, models: &Path) -> Result<()> {
    for (service, version) in SERVICES {
        let source = data.join(service).join(version).join("service-2.json.gz");
        let model = read(&source)?;
        let compact = reduce(&model).with_context(|| format!("reducing {service}"))?;
        pack(
            &models.join(format!("{service}.json.gz")),
            &serde_json::to_vec(&compact)?,
        )?;
    }
    Ok(())
}

/// Writes a gzipped file without a time stamp: the same input gives the same bytes.
///
/// # Errors
/// When the file cannot be written; the path is named.
pub fn pack(path: &Path, content: &[u8]) -> Result<()> {
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let mut packed = GzBuilder::new().mtime(0).write(file, Compression::best());
    packed.write_all(content)?;
    packed.finish()?;
    Ok(())
}

/// The text of a gzipped file.
///
/// # Errors
/// When it cannot be read or unpacked; the path is named.
pub fn unpack(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut text = String::new();
    GzDecoder::new(file)
        .read_to_string(&mut text)
        .with_context(|| path.display().to_string())?;
    Ok(text)
}

/// A gzipped JSON file.
///
/// # Errors
/// When it cannot be read, unpacked or parsed; the path is named.
pub fn read(path: &Path) -> Result<Value> {
    serde_json::from_str(&unpack(path)?).with_context(|| path.display().to_string())
}

fn reduce(model: &Value) -> Result<Value> {
    let (Some(metadata), Some(operations), Some(shapes)) = (
        model["metadata"].as_object(),
        model["operations"].as_object(),
        model["shapes"].as_object(),
    ) else {
        bail!("not a service model");
    };
    let mut kept_metadata = Map::new();
    for key in METADATA {
        if let Some(value) = metadata.get(*key) {
            kept_metadata.insert((*key).into(), value.clone());
        }
    }
    let mut kept_operations = Map::new();
    let mut open: Vec<String> = Vec::new();
    for (name, operation) in operations {
        let mut kept = Map::new();
        for key in ["http", "input", "output"] {
            if let Some(value) = operation.get(key) {
                kept.insert(key.into(), value.clone());
                open.extend(value["shape"].as_str().map(str::to_owned));
            }
        }
        let errors: Vec<Value> = operation["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| e["shape"].clone())
            .collect();
        open.extend(errors.iter().filter_map(Value::as_str).map(str::to_owned));
        if !errors.is_empty() {
            kept.insert("errors".into(), errors.into());
        }
        kept_operations.insert(name.clone(), kept.into());
    }
    let mut reached = BTreeSet::new();
    while let Some(name) = open.pop() {
        let shape = shapes.get(&name).with_context(|| format!("shape {name} is missing"))?;
        if reached.insert(name) {
            open.extend(references(shape).map(str::to_owned));
        }
    }
    let mut kept_shapes = Map::new();
    for (name, shape) in shapes.iter().filter(|(name, _)| reached.contains(*name)) {
        kept_shapes.insert(name.clone(), without_prose(shape));
    }
    let mut compact = Map::new();
    compact.insert("metadata".into(), kept_metadata.into());
    compact.insert("operations".into(), kept_operations.into());
    compact.insert("shapes".into(), kept_shapes.into());
    Ok(compact.into())
}

/// The shapes a shape names: members, list members, keys and values.
pub fn references(shape: &Value) -> impl Iterator<Item = &str> {
    let members = shape["members"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, member)| member);
    let parts = ["member", "key", "value"]
        .into_iter()
        .filter_map(|part| shape.get(part));
    members.chain(parts).filter_map(|reference| reference["shape"].as_str())
}

fn without_prose(shape: &Value) -> Value {
    let mut kept = strip(shape);
    if let Some(members) = kept.get_mut("members").and_then(Value::as_object_mut) {
        for member in members.values_mut() {
            *member = strip(member).into();
        }
    }
    for part in ["member", "key", "value"] {
        if let Some(reference) = kept.get_mut(part) {
            *reference = strip(reference).into();
        }
    }
    kept.into()
}

fn strip(value: &Value) -> Map<String, Value> {
    let Some(object) = value.as_object() else {
        return Map::new();
    };
    object
        .iter()
        .filter(|(key, _)| !PROSE.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
