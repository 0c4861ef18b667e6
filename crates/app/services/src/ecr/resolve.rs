//! What an image reference means now: manifest, configuration and layers for the host's architecture (CC-1, CC-11).

use super::manifest::{CONFIG_BYTES, ImageConfig, Manifest};
use super::registry::{Registry, RegistryError, Shelf};
use isolarium_model::ecr::{BadImageReference, ImageReference, ImageVersion, Repository};
use isolarium_model::{Arn, Sha256Digest, Timestamp};
use isolarium_policy::Question;
use isolarium_store::StateStore;

/// An image as it is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    pub repository_arn: Arn,
    /// What the reference names, which may be an index.
    pub digest: Sha256Digest,
    /// The manifest that fits this host; the same unless `digest` is an index's.
    pub manifest_digest: Sha256Digest,
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<ResolvedLayer>,
}

/// One layer, with the blob to read it from ([`isolarium_store::BlobStore::get`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedLayer {
    pub blob: Sha256Digest,
    pub media_type: String,
    /// Digest of the unpacked tar.
    pub diff_id: Sha256Digest,
    /// Bytes of the blob.
    pub size: u64,
}

/// Why a reference has no image to run. `Display` is fit for a FailureReason, but for `Registry`.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("{0} is not an image reference of this registry")]
    Reference(String, #[source] BadImageReference),
    #[error("repository {0} does not exist")]
    NoRepository(String),
    #[error("image {0} does not exist")]
    NoImage(String),
    #[error("image {reference} has no variant for linux/{architecture}")]
    Architecture { reference: String, architecture: String },
    #[error("image {0} cannot be used: its configuration does not fit its layers")]
    Malformed(String),
    #[error("image {0} cannot be used: a layer is of an unknown kind")]
    LayerKind(String),
    #[error("the registry failed")]
    Registry(#[source] RegistryError),
}

/// The host's architecture in OCI's words.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a principal must be allowed in order to pull an image (CC-11): the token, and the three reads of its repository.
///
/// # Errors
/// `Reference`.
pub fn pull_questions(reference: &str) -> Result<Vec<Question>, ResolveError> {
    let parsed = parse(reference)?;
    let arn = Repository::arn(&parsed.scope, &parsed.repository);
    let on = [
        "ecr:BatchCheckLayerAvailability",
        "ecr:GetDownloadUrlForLayer",
        "ecr:BatchGetImage",
    ];
    let on = on.into_iter().map(|action| Question::on(action, &arn));
    Ok(std::iter::once(Question::any("ecr:GetAuthorizationToken"))
        .chain(on)
        .collect())
}

fn parse(reference: &str) -> Result<ImageReference, ResolveError> {
    reference
        .parse()
        .map_err(|error| ResolveError::Reference(reference.into(), error))
}

/// Resolves a reference. Permission is not asked here: the caller asks [`pull_questions`] for the role it acts for.
///
/// # Errors
/// Why there is nothing to run.
pub fn resolve_image(
    registry: &Registry,
    store: &dyn StateStore,
    reference: &str,
    architecture: &str,
) -> Result<ResolvedImage, ResolveError> {
    let parsed = parse(reference)?;
    let shelf = Shelf {
        registry,
        store,
        scope: &parsed.scope,
        now: Timestamp(0),
    };
    let failed = |error| match error {
        RegistryError::NoRepository => ResolveError::NoRepository(parsed.repository.clone()),
        RegistryError::NoImage => ResolveError::NoImage(reference.into()),
        error => ResolveError::Registry(error),
    };
    shelf.repository(&parsed.repository).map_err(failed)?;
    let named = shelf.image(&parsed.repository, &parsed.version).map_err(failed)?;
    let read = |text: &str| {
        Manifest::parse(text.as_bytes(), None).map_err(|error| ResolveError::Registry(RegistryError::Manifest(error)))
    };
    let other = || ResolveError::Architecture {
        reference: reference.into(),
        architecture: architecture.into(),
    };
    let (image, manifest) = match read(&named.manifest)?.0 {
        manifest @ Manifest::Image { .. } => (named.clone(), manifest),
        Manifest::Index { entries } => {
            let fits = entries.into_iter().find(|entry| {
                entry
                    .platform
                    .as_ref()
                    .is_some_and(|p| p.architecture == architecture && p.os == "linux")
            });
            let digest = fits.ok_or_else(other)?.digest;
            let image = shelf
                .image(&parsed.repository, &ImageVersion::Digest(digest))
                .map_err(failed)?;
            let manifest = read(&image.manifest)?.0;
            (image, manifest)
        }
    };
    let malformed = || ResolveError::Malformed(reference.into());
    let Manifest::Image { config, layers } = manifest else {
        return Err(malformed());
    };
    let text = registry
        .blobs
        .read(&config.digest, CONFIG_BYTES)
        .map_err(|error| ResolveError::Registry(error.into()))?
        .ok_or_else(malformed)?;
    let config: ImageConfig = serde_json::from_slice(&text).map_err(|_| malformed())?;
    if config.architecture != architecture || config.os != "linux" {
        return Err(other());
    }
    if config.rootfs.diff_ids.len() != layers.len() {
        return Err(malformed());
    }
    let mut resolved = Vec::with_capacity(layers.len());
    for (layer, diff_id) in layers.into_iter().zip(config.rootfs.diff_ids.iter().cloned()) {
        if !is_layer(&layer.media_type) {
            return Err(ResolveError::LayerKind(reference.into()));
        }
        resolved.push(ResolvedLayer {
            blob: layer.digest,
            media_type: layer.media_type,
            diff_id,
            size: layer.size,
        });
    }
    Ok(ResolvedImage {
        repository_arn: Repository::arn(&parsed.scope, &parsed.repository),
        digest: named.digest,
        manifest_digest: image.digest,
        config,
        layers: resolved,
    })
}

fn is_layer(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
    )
}
