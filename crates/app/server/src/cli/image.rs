//! `isolarium image import` and `isolarium image pack`: images from files into a registry.
//!
//! Both write through an [`ImageSink`], so they neither know nor care whether a server is running. Input is hostile until
//! checked: documents are bounded, every digest is verified while its bytes stream by, and nothing outside the archive is
//! opened. What a layer contains is the unpacker's business.

mod archive;
mod pack;
mod progress;
mod sink;

#[cfg(test)]
mod tests;

use isolarium_model::Sha256Digest;
use isolarium_services::ecr::manifest::{
    BadManifest, CONFIG_BYTES, DOCKER_INDEX, Descriptor, ImageConfig, LAYERS, MANIFEST_BYTES, Manifest, OCI_INDEX,
    OCI_MANIFEST,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::path::Path;

pub use archive::Archive;
pub use pack::{PackOptions, pack};
pub use sink::{HttpSink, ImageSink, SinkError};

/// Most images an index of an archive may list.
const ENTRIES: usize = 100;

/// Why an image could not be imported or packed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("cannot read {name}")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("this is neither an OCI layout, nor an OCI archive, nor a docker archive")]
    Kind,
    #[error("{0} is missing from the archive")]
    Missing(String),
    #[error("{0} is longer than an image may have")]
    TooLong(String),
    #[error("{name} is not what its digest says: it has {actual}")]
    Digest { name: String, actual: Sha256Digest },
    #[error("{name} cannot be understood")]
    Json {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("a manifest is refused")]
    Manifest(#[source] BadManifest),
    #[error("the archive holds {0} images; save one alone, or an index of its variants")]
    Several(usize),
    #[error("the image's layers do not fit its configuration")]
    Layers,
    #[error("the registry refused the image")]
    Sink(#[from] SinkError),
}

/// Puts the image of an OCI layout (folder or tar) or a docker archive into the sink under `tag`. Returns its digest.
///
/// # Errors
/// What is wrong with the archive, or why the sink refused.
pub fn import(path: &Path, tag: &str, sink: &mut dyn ImageSink) -> Result<Sha256Digest, ImageError> {
    let mut archive = Archive::open(path)?;
    if archive.has("oci-layout") || archive.has("index.json") {
        return import_layout(&mut archive, tag, sink);
    }
    if archive.has("manifest.json") {
        return import_docker(&mut archive, tag, sink);
    }
    Err(ImageError::Kind)
}

fn parse<'a, T: Deserialize<'a>>(name: &str, text: &'a [u8]) -> Result<T, ImageError> {
    serde_json::from_slice(text).map_err(|source| ImageError::Json {
        name: name.into(),
        source,
    })
}

#[derive(Deserialize)]
struct Top {
    manifests: Vec<Descriptor>,
}

fn import_layout(archive: &mut Archive, tag: &str, sink: &mut dyn ImageSink) -> Result<Sha256Digest, ImageError> {
    let top: Top = parse("index.json", &archive.document("index.json", MANIFEST_BYTES)?)?;
    match top.manifests.as_slice() {
        [one] => import_manifest(archive, one, Some(tag), sink, 0),
        many => Err(ImageError::Several(many.len())),
    }
}

fn blob_name(digest: &Sha256Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Puts a manifest or index with everything below it.
fn import_manifest(
    archive: &mut Archive,
    descriptor: &Descriptor,
    tag: Option<&str>,
    sink: &mut dyn ImageSink,
    depth: usize,
) -> Result<Sha256Digest, ImageError> {
    let name = blob_name(&descriptor.digest);
    let text = archive.document(&name, MANIFEST_BYTES)?;
    let actual = isolarium_store::blobs::digest(&text);
    if actual != descriptor.digest {
        return Err(ImageError::Digest { name, actual });
    }
    let said = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
    let (manifest, media_type) = Manifest::parse(&text, said).map_err(ImageError::Manifest)?;
    match manifest {
        Manifest::Image { config, layers } => {
            for blob in std::iter::once(&config).chain(&layers) {
                put_blob(archive, &blob_name(&blob.digest), &blob.digest, blob.size, sink)?;
            }
        }
        // An index of indexes is allowed by the specification and used by nobody; one level is enough.
        Manifest::Index { entries } if depth == 0 && entries.len() <= ENTRIES => {
            for entry in &entries {
                if matches!(entry.media_type.as_str(), OCI_INDEX | DOCKER_INDEX) {
                    return Err(ImageError::Several(entries.len()));
                }
                import_manifest(archive, entry, None, sink, depth + 1)?;
            }
        }
        Manifest::Index { entries } => return Err(ImageError::Several(entries.len())),
    }
    sink.put_manifest(tag, &descriptor.digest, &media_type, &text)?;
    Ok(descriptor.digest.clone())
}

fn put_blob(
    archive: &mut Archive,
    name: &str,
    digest: &Sha256Digest,
    size: u64,
    sink: &mut dyn ImageSink,
) -> Result<(), ImageError> {
    if sink.has_blob(digest)? {
        return Ok(());
    }
    let (reader, found) = archive.open_entry(name)?;
    let mut verified = Verified {
        reader,
        hash: Sha256::new(),
        read: 0,
    };
    if found != size {
        return Err(ImageError::TooLong(name.into()));
    }
    // The sink verifies as well; asking here tells which entry is wrong.
    let put = sink.put_blob(digest, size, &mut verified);
    let (read, actual) = verified.finish();
    if read == size && actual != *digest {
        return Err(ImageError::Digest {
            name: name.into(),
            actual,
        });
    }
    Ok(put?)
}

/// Hashes what is read through it.
struct Verified<R> {
    reader: R,
    hash: Sha256,
    read: u64,
}

impl<R> Verified<R> {
    fn finish(self) -> (u64, Sha256Digest) {
        (self.read, Sha256Digest::from_bytes(&self.hash.finalize().into()))
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.read = self.read.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

/// One image of a docker archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// A docker archive has no manifest; one is written from its parts.
fn import_docker(archive: &mut Archive, tag: &str, sink: &mut dyn ImageSink) -> Result<Sha256Digest, ImageError> {
    let saved: Vec<Saved> = parse("manifest.json", &archive.document("manifest.json", MANIFEST_BYTES)?)?;
    let [image] = saved.as_slice() else {
        return Err(ImageError::Several(saved.len()));
    };
    let max = usize::try_from(CONFIG_BYTES).unwrap_or(usize::MAX);
    let config_text = archive.document(&image.config, max)?;
    let config: ImageConfig = parse(&image.config, &config_text)?;
    if config.rootfs.diff_ids.len() != image.layers.len() || image.layers.len() > LAYERS {
        return Err(ImageError::Layers);
    }
    let mut layers: Vec<Value> = Vec::new();
    for (name, diff_id) in image.layers.iter().zip(&config.rootfs.diff_ids) {
        let (kind, digest, size) = archive.measure(name)?;
        if kind == LAYER_TAR && digest != *diff_id {
            return Err(ImageError::Digest {
                name: name.clone(),
                actual: digest,
            });
        }
        put_blob(archive, name, &digest, size, sink)?;
        layers.push(json!({"mediaType": kind, "digest": digest, "size": size}));
    }
    put_image(&config_text, &layers, tag, sink)
}

const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Puts a configuration and the manifest over it.
fn put_image(config: &[u8], layers: &[Value], tag: &str, sink: &mut dyn ImageSink) -> Result<Sha256Digest, ImageError> {
    let config_digest = isolarium_store::blobs::digest(config);
    let size = u64::try_from(config.len()).unwrap_or(u64::MAX);
    if !sink.has_blob(&config_digest)? {
        sink.put_blob(&config_digest, size, &mut io::Cursor::new(config.to_vec()))?;
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": size},
        "layers": layers,
    })
    .to_string();
    let digest = isolarium_store::blobs::digest(manifest.as_bytes());
    sink.put_manifest(Some(tag), &digest, OCI_MANIFEST, manifest.as_bytes())?;
    Ok(digest)
}
