//! Models: image, model data and network of what an endpoint serves. They never change (SM-19, AU-8).

use super::network::JobNetwork;
use super::s3_uri::S3Uri;
use super::{Echo, Tags};
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Sha256Digest, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Image and environment as the request gave them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The image reference as given (CC-11).
    pub image: String,
    /// Environment entries of the request (CC-8).
    pub environment: BTreeMap<String, String>,
}

/// The image that a reference meant at launch (CC-1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// As given.
    pub specified: String,
    /// The manifest's digest.
    pub digest: Sha256Digest,
}

/// Where the model's files come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case")]
pub enum ModelData {
    /// One gzipped tar archive, unpacked to `/opt/ml/model` (CC-47).
    Archive { uri: S3Uri },
    /// Plain objects below a prefix, shown as they are.
    Prefix { uri: S3Uri },
    /// One plain object.
    Object { uri: S3Uri },
}

impl ModelData {
    /// The address, whatever its form.
    pub fn uri(&self) -> &S3Uri {
        match self {
            Self::Archive { uri } | Self::Prefix { uri } | Self::Object { uri } => uri,
        }
    }
}

/// What an endpoint needs to run a model; copied into the endpoint, because a model may be deleted while it serves
/// (SM-19).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSpec {
    pub container: ContainerSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ModelData>,
    pub role_arn: Arn,
    pub network: JobNetwork,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub spec: ModelSpec,
    pub tags: Tags,
    /// `PrimaryContainer` or `Containers` as given, and `ExecutionRoleArn`'s siblings that are only echoed.
    pub echo: Echo,
}

impl Record for Model {
    const KIND: &'static str = "sagemaker.model";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.name.clone(), self.created)
    }
}

impl Model {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The model's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "model", name)
    }
}
