//! Devices of the host for containers, as the Container Device Interface describes them: JSON files that a driver's tools
//! write to `/etc/cdi` and `/var/run/cdi`, and what they change in an OCI document (CC-5, CC-7).
//!
//! Everything here works on values; who reads the files decides which folders are believed.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiSpec {
    pub cdi_version: String,
    /// `vendor/class`, such as `nvidia.com/gpu`.
    pub kind: String,
    pub devices: Vec<CdiDevice>,
    /// What every device of the file needs besides its own.
    #[serde(default)]
    pub container_edits: Edits,
}

/// One device, or several under one name such as `all`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiDevice {
    pub name: String,
    #[serde(default)]
    pub container_edits: Edits,
}

/// What is changed in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Edits {
    pub env: Vec<String>,
    pub device_nodes: Vec<DeviceNode>,
    pub mounts: Vec<CdiMount>,
    pub hooks: Vec<Hook>,
    #[serde(rename = "additionalGids")]
    pub additional_gids: Vec<u32>,
}

/// A node below `/dev`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceNode {
    /// Inside the container.
    pub path: String,
    /// On the host, where it differs.
    pub host_path: Option<String>,
    /// `b`, `c`, `u` or `p`; with the numbers, else the host's node tells.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub file_mode: Option<u32>,
    /// `rwm` or a part of it.
    pub permissions: Option<String>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// A file or folder of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CdiMount {
    pub host_path: String,
    pub container_path: String,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub options: Vec<String>,
}

/// A program that the runtime runs at a moment of the container's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    pub hook_name: String,
    pub path: String,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: Vec<String>,
    pub timeout: Option<i64>,
}

/// What a node on the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeNumbers {
    /// `b`, `c` or `p`.
    pub kind: char,
    pub major: i64,
    pub minor: i64,
}

/// Why a file or a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CdiError {
    #[error("it is no CDI document: {0}")]
    Malformed(String),
    #[error("CDI version {0} is not understood")]
    Version(String),
    #[error("\"{0}\" is no kind of devices (vendor/class)")]
    Kind(String),
    #[error("\"{0}\" is no name of a device")]
    Name(String),
    #[error("the path {0} is not absolute")]
    Path(String),
    #[error("the hook {0} is not known")]
    Hook(String),
    #[error("device {0} is described by no CDI file")]
    Unknown(String),
    #[error("device {0} is described by two CDI files")]
    Twice(String),
    #[error("the device node {0} is not on the host")]
    Missing(String),
    #[error("the container's document is not of the expected form")]
    Document,
}

const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

impl CdiSpec {
    /// Reads a file.
    ///
    /// # Errors
    /// `Malformed`, `Version`, `Kind`, `Name`, `Path`, `Hook`: a file with anything unclear is not believed at all.
    pub fn parse(bytes: &[u8]) -> Result<Self, CdiError> {
        let spec: Self = serde_json::from_slice(bytes).map_err(|error| CdiError::Malformed(error.to_string()))?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), CdiError> {
        let mut numbers = self.cdi_version.split('.').map(str::parse::<u32>);
        let known = matches!(
            (numbers.next(), numbers.next(), numbers.next(), numbers.next()),
            (Some(Ok(0)), Some(Ok(3..)), Some(Ok(_)), None) | (Some(Ok(1)), Some(Ok(_)), Some(Ok(_)), None)
        );
        if !known {
            return Err(CdiError::Version(self.cdi_version.clone()));
        }
        let plain = |text: &str, more: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.ends_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        match self.kind.split_once('/') {
            Some((vendor, class)) if plain(vendor, "-_.") && plain(class, "-_") => {}
            _ => return Err(CdiError::Kind(self.kind.clone())),
        }
        let mut names = BTreeSet::new();
        for device in &self.devices {
            if !plain(&device.name, "-_.:") || !names.insert(&device.name) {
                return Err(CdiError::Name(device.name.clone()));
            }
            device.container_edits.check()?;
        }
        self.container_edits.check()
    }
}

impl Edits {
    fn check(&self) -> Result<(), CdiError> {
        let nodes = self.device_nodes.iter();
        let mut paths = nodes.flat_map(|node| std::iter::once(&node.path).chain(&node.host_path));
        let mounts = self
            .mounts
            .iter()
            .flat_map(|mount| [&mount.host_path, &mount.container_path]);
        let hooks = self.hooks.iter().map(|hook| &hook.path);
        let relative = |path: &&String| !path.starts_with('/') || path.split('/').any(|part| part == "..");
        if let Some(wrong) = paths.by_ref().chain(mounts).chain(hooks).find(relative) {
            return Err(CdiError::Path(wrong.clone()));
        }
        let unknown = self.hooks.iter().find(|hook| !HOOKS.contains(&hook.hook_name.as_str()));
        match unknown {
            Some(hook) => Err(CdiError::Hook(hook.hook_name.clone())),
            None => Ok(()),
        }
    }
}

/// Every device of this machine, by its full name such as `nvidia.com/gpu=0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CdiDevices(BTreeMap<String, Result<(Edits, Edits), CdiError>>);

impl CdiDevices {
    /// From the files of several folders, the later folder winning. Two files of one folder that describe the same device make
    /// it unusable.
    pub fn new(folders: impl IntoIterator<Item = Vec<CdiSpec>>) -> Self {
        let mut all = BTreeMap::new();
        for folder in folders {
            let mut own: BTreeMap<String, Result<(Edits, Edits), CdiError>> = BTreeMap::new();
            for spec in folder {
                for device in spec.devices {
                    let name = format!("{}={}", spec.kind, device.name);
                    let found = Ok((device.container_edits, spec.container_edits.clone()));
                    let twice = own.contains_key(&name);
                    own.insert(name.clone(), if twice { Err(CdiError::Twice(name)) } else { found });
                }
            }
            all.extend(own);
        }
        Self(all)
    }

    /// The single devices of a kind, each of which one instance may have: `all` and names that share a node with earlier
    /// ones, here or on the host, are none.
    pub fn single(&self, kind: &str) -> Vec<String> {
        let mut seen: BTreeSet<&String> = BTreeSet::new();
        let mut names = Vec::new();
        for (name, found) in &self.0 {
            let Some(short) = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix('=')) else {
                continue;
            };
            let Ok((edits, _)) = found else { continue };
            let nodes = edits.device_nodes.iter();
            let nodes: BTreeSet<&String> = nodes
                .flat_map(|node| std::iter::once(&node.path).chain(&node.host_path))
                .collect();
            if short != "all" && nodes.is_disjoint(&seen) {
                seen.extend(nodes);
                names.push(name.clone());
            }
        }
        names
    }

    /// What devices change in a container, in this order.
    ///
    /// # Errors
    /// `Unknown`, `Twice`.
    pub fn edits(&self, names: &[String]) -> Result<Vec<Edits>, CdiError> {
        let (mut shared, mut edits): (Vec<&Edits>, Vec<Edits>) = Default::default();
        for name in names {
            let (own, common) = match self.0.get(name) {
                None => return Err(CdiError::Unknown(name.clone())),
                Some(Err(error)) => return Err(error.clone()),
                Some(Ok(found)) => (&found.0, &found.1),
            };
            // What several devices of one file share is done once.
            if !shared.contains(&common) {
                edits.push(common.clone());
                shared.push(common);
            }
            edits.push(own.clone());
        }
        Ok(edits)
    }
}

impl Edits {
    /// Changes an OCI document.
    ///
    /// # Errors
    /// `Missing`, `Document`.
    pub fn apply(&self, document: &mut Value, look: &dyn Fn(&str) -> Option<NodeNumbers>) -> Result<(), CdiError> {
        for entry in &self.env {
            let name = entry.split('=').next().unwrap_or_default();
            let own = list(document, &["process", "env"])?;
            own.retain(|old| old.as_str().and_then(|old| old.split('=').next()) != Some(name));
            own.push(json!(entry));
        }
        for node in &self.device_nodes {
            let host = node.host_path.as_ref().unwrap_or(&node.path);
            let told = match (node.kind.as_deref(), node.major, node.minor) {
                (Some(kind), Some(major), Some(minor)) => {
                    kind.chars().next().map(|kind| NodeNumbers { kind, major, minor })
                }
                _ => look(host),
            };
            let found = told.ok_or_else(|| CdiError::Missing(host.clone()))?;
            let kind = found.kind.to_string();
            let mut device = json!({"path": node.path, "type": kind, "major": found.major, "minor": found.minor});
            if let Value::Object(members) = &mut device {
                for (name, value) in [("fileMode", node.file_mode), ("uid", node.uid), ("gid", node.gid)] {
                    members.extend(value.map(|value| (name.to_owned(), json!(value))));
                }
            }
            list(document, &["linux", "devices"])?.push(device);
            let access = node.permissions.as_deref().unwrap_or("rwm");
            let rule =
                json!({"allow": true, "type": kind, "major": found.major, "minor": found.minor, "access": access});
            list(document, &["linux", "resources", "devices"])?.push(rule);
        }
        for mount in &self.mounts {
            let mut options = mount.options.clone();
            if !options.iter().any(|option| option == "bind" || option == "rbind") {
                options.push("bind".into());
            }
            list(document, &["mounts"])?.push(json!({
                "destination": mount.container_path,
                "source": mount.host_path,
                "type": mount.kind.as_deref().unwrap_or("bind"),
                "options": options,
            }));
        }
        for hook in &self.hooks {
            let mut entry = json!({"path": hook.path, "args": hook.args, "env": hook.env});
            if let (Some(seconds), Value::Object(members)) = (hook.timeout, &mut entry) {
                members.insert("timeout".into(), json!(seconds));
            }
            list(document, &["hooks", &hook.hook_name])?.push(entry);
        }
        for group in &self.additional_gids {
            let own = list(document, &["process", "user", "additionalGids"])?;
            if *group != 0 && !own.contains(&json!(group)) {
                own.push(json!(group));
            }
        }
        Ok(())
    }
}

/// The list at a path, made where it is missing.
fn list<'a>(document: &'a mut Value, path: &[&str]) -> Result<&'a mut Vec<Value>, CdiError> {
    let mut at = document;
    let (last, parents) = path.split_last().ok_or(CdiError::Document)?;
    for name in parents {
        let members = at.as_object_mut().ok_or(CdiError::Document)?;
        at = members.entry((*name).to_owned()).or_insert_with(|| json!({}));
    }
    let members = at.as_object_mut().ok_or(CdiError::Document)?;
    let found = members.entry((*last).to_owned()).or_insert_with(|| json!([]));
    found.as_array_mut().ok_or(CdiError::Document)
}

#[cfg(test)]
mod tests;
