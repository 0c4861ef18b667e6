//! Models: image, model data and network of what an endpoint serves. They never change (SM-19, AU-8).

use super::model_package::PackageUse;
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
    /// Archives below a prefix, each unpacked when a caller names it (CC-58).
    Many {
        uri: S3Uri,
        /// What was loaded stays until its room is needed (`ModelCacheSetting`).
        caches: bool,
    },
}

impl ModelData {
    /// The address, whatever its form.
    pub fn uri(&self) -> &S3Uri {
        match self {
            Self::Archive { uri } | Self::Prefix { uri } | Self::Object { uri } | Self::Many { uri, .. } => uri,
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
    /// The containers beside the first one, where the model has several (SM-15). Boxed: few models have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub several: Option<Box<SeveralContainers>>,
    /// The package that it was made from, where there is one. Boxed: few models have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Box<PackageUse>>,
}

/// How the containers of a model are asked (CC-57).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutionMode {
    /// One after the other: the answer of each is the request of the next.
    Serial,
    /// The one that the caller names, alone.
    Direct,
}

/// What a model of several containers adds to its first one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeveralContainers {
    pub mode: ExecutionMode,
    /// Host name of the first container (SM-16).
    pub first: String,
    /// The others in order, 1 to 14.
    pub others: Vec<FurtherContainer>,
}

/// A container of a model behind its first one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherContainer {
    /// Its host name, unique in the model (SM-16).
    pub hostname: String,
    pub container: ContainerSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ModelData>,
}

/// Port of the first container of an instance, and of a lone one (CC-47).
pub const SERVING_PORT: u16 = 8080;

/// Ports that each further container of an instance gets for itself (CC-56).
const PORTS_EACH: u16 = 100;

/// One container of a model, as those that start it see it.
#[derive(Clone, Copy, Debug)]
pub struct OneContainer<'a> {
    /// Its name in a model of several; `None` for a lone one.
    pub name: Option<&'a str>,
    pub container: &'a ContainerSpec,
    pub data: Option<&'a ModelData>,
    /// Where it listens.
    pub port: u16,
}

impl OneContainer<'_> {
    /// The ports that it may use besides, inclusive (CC-56).
    pub fn safe_ports(&self) -> (u16, u16) {
        (
            self.port.saturating_add(1),
            self.port.saturating_add(PORTS_EACH.saturating_sub(1)),
        )
    }
}

impl ModelSpec {
    /// How many containers an instance of the model has, 1 to 15.
    pub fn count(&self) -> usize {
        self.several
            .as_ref()
            .map_or(1, |several| several.others.len().saturating_add(1))
    }

    /// The containers in order; the first one is always there.
    pub fn containers(&self) -> impl Iterator<Item = OneContainer<'_>> {
        let first = OneContainer {
            name: self.several.as_ref().map(|several| several.first.as_str()),
            container: &self.container,
            data: self.data.as_ref(),
            port: SERVING_PORT,
        };
        let others = self.several.iter().flat_map(|several| &several.others);
        let ports = (1u16..).map(|number| SERVING_PORT.saturating_add(number.saturating_mul(PORTS_EACH)));
        let others = others.zip(ports).map(|(other, port)| OneContainer {
            name: Some(&other.hostname),
            container: &other.container,
            data: other.data.as_ref(),
            port,
        });
        std::iter::once(first).chain(others)
    }

    /// Names of the containers, in order; none where there is one container alone.
    pub fn names(&self) -> Vec<String> {
        let names = self.containers().filter_map(|one| one.name.map(str::to_owned));
        names.collect()
    }
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
