//! Image manifests and indexes: what the registry and the platform read of them. Hostile input: sizes, counts and
//! digests are bounded before anything is believed.

use isolarium_model::Sha256Digest;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Largest manifest or index, the bound of the distribution specification.
pub const MANIFEST_BYTES: usize = 4 << 20;
/// Largest image configuration.
pub const CONFIG_BYTES: u64 = 4 << 20;
/// Most layers of an image: what overlayfs can stack, with room to spare.
pub const LAYERS: usize = 127;
/// Most entries of an index.
const ENTRIES: usize = 1000;

/// OCI's media types and Docker's older names for the same things.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Why a text is no manifest that the registry keeps.
#[derive(Debug, thiserror::Error)]
pub enum BadManifest {
    #[error("a manifest has at most {MANIFEST_BYTES} bytes")]
    TooLong,
    #[error("the manifest is not valid JSON of its kind")]
    Json(#[source] serde_json::Error),
    #[error("the media type {0} is not one of an OCI or Docker v2 manifest or index")]
    MediaType(String),
    #[error("the manifest says it is {inside}, the request says {outside}")]
    Disagreement { inside: String, outside: String },
    #[error("the manifest has too many entries")]
    TooMany,
}

/// Reference to other content.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Sha256Digest,
    pub size: u64,
    pub platform: Option<Platform>,
}

/// What an index says of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// A manifest of one image, or an index of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    Image {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
    Index {
        entries: Vec<Descriptor>,
    },
}

impl Manifest {
    /// Parses a manifest; the media type is the request's, or else the text's own. Returns the media type too.
    ///
    /// # Errors
    /// When the text is too long, malformed, or of another kind.
    pub fn parse(text: &[u8], media_type: Option<&str>) -> Result<(Self, String), BadManifest> {
        if text.len() > MANIFEST_BYTES {
            return Err(BadManifest::TooLong);
        }
        let parsed: Text = serde_json::from_slice(text).map_err(BadManifest::Json)?;
        if let (Some(inside), Some(outside)) = (&parsed.media_type, media_type)
            && inside != outside
        {
            return Err(BadManifest::Disagreement {
                inside: inside.clone(),
                outside: outside.into(),
            });
        }
        let guess = if parsed.manifests.is_some() {
            OCI_INDEX
        } else {
            OCI_MANIFEST
        };
        let media_type = parsed
            .media_type
            .or(media_type.map(Into::into))
            .unwrap_or_else(|| guess.into());
        let manifest = match (media_type.as_str(), parsed.config, parsed.layers, parsed.manifests) {
            (OCI_MANIFEST | DOCKER_MANIFEST, Some(config), Some(layers), None) => Self::Image { config, layers },
            (OCI_INDEX | DOCKER_INDEX, None, None, Some(entries)) => Self::Index { entries },
            _ => return Err(BadManifest::MediaType(media_type)),
        };
        let few = match &manifest {
            Self::Image { layers, .. } => layers.len() <= LAYERS,
            Self::Index { entries } => entries.len() <= ENTRIES,
        };
        if parsed.schema_version != 2 {
            return Err(BadManifest::MediaType(media_type));
        }
        if few {
            Ok((manifest, media_type))
        } else {
            Err(BadManifest::TooMany)
        }
    }

    /// Digests of everything it refers to.
    pub fn references(&self) -> Vec<Sha256Digest> {
        match self {
            Self::Image { config, layers } => std::iter::once(config)
                .chain(layers)
                .map(|descriptor| descriptor.digest.clone())
                .collect(),
            Self::Index { entries } => entries.iter().map(|descriptor| descriptor.digest.clone()).collect(),
        }
    }
}

/// The configuration of an image as far as the platform uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub config: Option<RunConfig>,
    #[serde(default)]
    pub rootfs: RootFs,
}

/// How the image wants to be run. Docker writes null where it means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    pub user: Option<String>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub stop_signal: Option<String>,
}

/// The layers' digests before compression, lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RootFs {
    pub diff_ids: Vec<Sha256Digest>,
}
