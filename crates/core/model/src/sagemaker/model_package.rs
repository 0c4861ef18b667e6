//! Model packages: what serves a model, ready to be deployed; alone under a name, or as the versions of a group (SM-42..44).

use super::model::{ContainerSpec, ModelData};
use super::{Echo, Tags};
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A container of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedContainer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The image by its digest where the package names one.
    pub container: ContainerSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ModelData>,
    /// Of the marketplace (D-13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<String>,
}

/// How the models of a package or algorithm serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inference {
    /// In the order in which they are asked.
    pub containers: Vec<PackagedContainer>,
    /// Instance types of transform jobs; empty: any.
    pub transform_types: BTreeSet<String>,
    /// Instance types of endpoints; empty: any.
    pub realtime_types: BTreeSet<String>,
}

impl Inference {
    /// Whether any container is a product of the marketplace (D-13).
    pub fn is_product(&self) -> bool {
        self.containers.iter().any(|one| one.product_id.is_some())
    }
}

/// What a model keeps of the package that it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageUse {
    pub arn: Arn,
    /// Instance types of transform jobs; empty: any.
    pub transform_types: BTreeSet<String>,
    /// Instance types of endpoints; empty: any.
    pub realtime_types: BTreeSet<String>,
}

/// `ModelApprovalStatus` of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Approval {
    Approved,
    Rejected,
    PendingManualApproval,
}

impl Approval {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "Approved",
            Self::Rejected => "Rejected",
            Self::PendingManualApproval => "PendingManualApproval",
        }
    }
}

/// Where a package stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case")]
pub enum PackageName {
    /// Under its own name.
    Alone { name: String },
    /// A version of a group, counted from 1.
    Version {
        group: String,
        version: u32,
        approval: Approval,
    },
}

/// A model package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPackage {
    pub name: PackageName,
    pub arn: Arn,
    pub created: Timestamp,
    pub modified: Timestamp,
    /// ARN of whoever made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Arn>,
    /// ARN of whoever changed it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_by: Option<Arn>,
    /// `ClientToken` of its creation: the same one again makes no second version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    pub inference: Inference,
    /// `CustomerMetadataProperties`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    pub tags: Tags,
    /// All other members, as given.
    pub echo: Echo,
}

impl Record for ModelPackage {
    const KIND: &'static str = "sagemaker.model_package";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.label(),
            created: self.created,
            modified: self.modified,
            status: self.approval().map_or_else(String::new, |one| one.as_str().into()),
        }
    }
}

impl ModelPackage {
    /// The record's key by name, or by `group/version`.
    pub fn key(scope: &Scope, label: &str) -> Key {
        Key::folded(scope, label)
    }

    /// The ARN by name, or by `group/version` (SM-7).
    pub fn arn(scope: &Scope, label: &str) -> Arn {
        Arn::sagemaker(scope, "model-package", label)
    }

    /// Its name, or `group/version`.
    pub fn label(&self) -> String {
        match &self.name {
            PackageName::Alone { name } => name.clone(),
            PackageName::Version { group, version, .. } => format!("{group}/{version}"),
        }
    }

    /// `ModelApprovalStatus`; a package under its own name has none.
    pub fn approval(&self) -> Option<Approval> {
        match &self.name {
            PackageName::Alone { .. } => None,
            PackageName::Version { approval, .. } => Some(*approval),
        }
    }

    /// The group and the version.
    pub fn version(&self) -> Option<(&str, u32)> {
        match &self.name {
            PackageName::Alone { .. } => None,
            PackageName::Version { group, version, .. } => Some((group, *version)),
        }
    }
}

/// A group of versions of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPackageGroup {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Arn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The number of the newest version that ever was; numbers are not given twice.
    pub last_version: u32,
    pub tags: Tags,
}

impl Record for ModelPackageGroup {
    const KIND: &'static str = "sagemaker.model_package_group";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.name.clone(), self.created)
    }
}

impl ModelPackageGroup {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The group's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "model-package-group", name)
    }
}
