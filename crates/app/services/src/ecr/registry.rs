//! The registry: what a push, a pull and the ECR operations have in common. Records live in the state store, bytes in
//! the blob store; a manifest is accepted only when everything it refers to is in the same repository.

use super::manifest::{BadManifest, Manifest};
use super::token::TokenKey;
use isolarium_model::ecr::{Image, ImageTag, ImageVersion, Layer, Repository};
use isolarium_model::{Key, Record, Scope, Sha256Digest, Timestamp};
use isolarium_store::blobs::{BlobError, BlobStore};
use isolarium_store::{Batch, Expect, Query, StateStore, StoreError, Stored};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How old a blob must be before garbage collection may take it: longer than any push between a blob and its manifest.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// What the registry rests on, besides the state store.
pub struct Registry {
    pub blobs: BlobStore,
    /// Seals authorization tokens and download links.
    pub key: TokenKey,
    /// URL under which clients reach the registry: `proxyEndpoint`.
    pub endpoint: String,
}

/// What can go wrong. All but the last two are the caller's to handle.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("there is no repository of that name")]
    NoRepository,
    #[error("a repository of that name exists")]
    RepositoryExists,
    #[error("the repository still has images")]
    NotEmpty,
    #[error("there is no such image")]
    NoImage,
    #[error("the tag belongs to another image and the repository's tags are immutable")]
    ImmutableTag,
    #[error("the image refers to content that the repository does not have")]
    Missing(Vec<Sha256Digest>),
    #[error("the image is part of an index in the repository")]
    Referenced,
    #[error("the digest of the manifest is {actual}")]
    Digest { actual: Sha256Digest },
    #[error("the manifest is refused")]
    Manifest(#[source] BadManifest),
    #[error("the records of the registry failed")]
    Store(#[from] StoreError),
    #[error("the blobs of the registry failed")]
    Blob(#[from] BlobError),
}

/// A manifest that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    pub digest: Sha256Digest,
    pub media_type: String,
    /// Nothing changed: image and tag were there already.
    pub unchanged: bool,
}

/// A manifest as a client hands it in.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    pub text: &'a [u8],
    pub media_type: Option<&'a str>,
    pub tag: Option<&'a str>,
    /// The digest the client expects.
    pub digest: Option<&'a Sha256Digest>,
}

/// One account's and region's repositories.
#[derive(Clone, Copy)]
pub struct Shelf<'a> {
    pub registry: &'a Registry,
    pub store: &'a dyn StateStore,
    pub scope: &'a Scope,
    pub now: Timestamp,
}

/// The union of pages of a prefix.
fn all_with_prefix<R: Record>(
    store: &dyn StateStore,
    scope: &Scope,
    prefix: String,
) -> Result<Vec<Stored<R>>, StoreError> {
    Ok(store
        .query::<R>(&Query {
            name_prefix: Some(prefix),
            ..Query::all(scope)
        })?
        .rows)
}

impl<'a> Shelf<'a> {
    /// A repository.
    ///
    /// # Errors
    /// `NoRepository`, or when the store fails.
    pub fn repository(&self, name: &str) -> Result<Stored<Repository>, RegistryError> {
        self.store
            .get::<Repository>(&Repository::key(self.scope, name))?
            .ok_or(RegistryError::NoRepository)
    }

    /// Makes a repository.
    ///
    /// # Errors
    /// `RepositoryExists`, or when the store fails.
    pub fn create(&self, repository: &Repository) -> Result<(), RegistryError> {
        let key = Repository::key(self.scope, &repository.name);
        match self
            .store
            .commit(Batch::default().put(&key, Expect::Absent, repository)?)
        {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict { .. }) => Err(RegistryError::RepositoryExists),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes a repository's own record, again when somebody else changed it meanwhile.
    ///
    /// # Errors
    /// `NoRepository`, or when the store fails.
    pub fn update(&self, name: &str, change: impl Fn(&mut Repository)) -> Result<Repository, RegistryError> {
        loop {
            let mut stored = self.repository(name)?;
            change(&mut stored.record);
            stored.record.modified = self.now;
            let batch = Batch::default().put(&stored.key, Expect::At(stored.revision), &stored.record)?;
            match self.store.commit(batch) {
                Ok(_) => return Ok(stored.record),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Removes a repository, with its images only when `force`.
    ///
    /// # Errors
    /// `NoRepository`, `NotEmpty`, or when the store fails.
    pub fn delete(&self, name: &str, force: bool) -> Result<Repository, RegistryError> {
        loop {
            let repository = self.repository(name)?;
            let images = self.images(name)?;
            if !images.is_empty() && !force {
                return Err(RegistryError::NotEmpty);
            }
            // Every push names the repository's revision, so none can slip in between.
            let mut batch = Batch::default().delete::<Repository>(&repository.key, Expect::At(repository.revision));
            for image in images {
                batch = batch.delete::<Image>(&image.key, Expect::Any);
            }
            for tag in self.tags(name)? {
                batch = batch.delete::<ImageTag>(&tag.key, Expect::Any);
            }
            for layer in all_with_prefix::<Layer>(self.store, self.scope, Image::prefix(name))? {
                batch = batch.delete::<Layer>(&layer.key, Expect::Any);
            }
            match self.store.commit(batch) {
                Ok(_) => return Ok(repository.record),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// All images of a repository by digest.
    ///
    /// # Errors
    /// When the store fails.
    pub fn images(&self, repository: &str) -> Result<Vec<Stored<Image>>, RegistryError> {
        Ok(all_with_prefix(self.store, self.scope, Image::prefix(repository))?)
    }

    /// All tags of a repository by name.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tags(&self, repository: &str) -> Result<Vec<Stored<ImageTag>>, RegistryError> {
        Ok(all_with_prefix(self.store, self.scope, ImageTag::prefix(repository))?)
    }

    /// The tags of each image.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tags_by_image(&self, repository: &str) -> Result<BTreeMap<Sha256Digest, Vec<String>>, RegistryError> {
        let mut by_image: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for tag in self.tags(repository)? {
            by_image.entry(tag.record.digest).or_default().push(tag.record.tag);
        }
        Ok(by_image)
    }

    /// One image.
    ///
    /// # Errors
    /// `NoImage`, or when the store fails.
    pub fn image(&self, repository: &str, version: &ImageVersion) -> Result<Image, RegistryError> {
        let digest = match version {
            ImageVersion::Digest(digest) => digest.clone(),
            ImageVersion::Tag(tag) => {
                let key = ImageTag::key(self.scope, repository, tag);
                self.store
                    .get::<ImageTag>(&key)?
                    .ok_or(RegistryError::NoImage)?
                    .record
                    .digest
            }
        };
        let found = self.store.get::<Image>(&Image::key(self.scope, repository, &digest))?;
        Ok(found.ok_or(RegistryError::NoImage)?.record)
    }

    /// Stores a manifest with its tag.
    ///
    /// # Errors
    /// What is wrong with the manifest, the tag or the repository, or when the store fails.
    pub fn push(&self, repository: &str, push: &Push<'_>) -> Result<Pushed, RegistryError> {
        let digest = isolarium_store::blobs::digest(push.text);
        if push.digest.is_some_and(|wanted| *wanted != digest) {
            return Err(RegistryError::Digest { actual: digest });
        }
        let (manifest, media_type) = Manifest::parse(push.text, push.media_type).map_err(RegistryError::Manifest)?;
        let text = std::str::from_utf8(push.text).map_err(|_| {
            RegistryError::Manifest(BadManifest::Json(serde::de::Error::custom("the text is not UTF-8")))
        })?;
        loop {
            let stored = self.repository(repository)?;
            let size = self.check_references(repository, &manifest)?;
            let image_key = Image::key(self.scope, repository, &digest);
            let known = self.store.get::<Image>(&image_key)?.is_some();
            let tag = push.tag.map(|tag| (tag, ImageTag::key(self.scope, repository, tag)));
            let tagged = match &tag {
                Some((_, key)) => self.store.get::<ImageTag>(key)?.map(|tag| tag.record.digest),
                None => None,
            };
            if known && (tag.is_none() || tagged.as_ref() == Some(&digest)) {
                return Ok(Pushed {
                    digest,
                    media_type,
                    unchanged: true,
                });
            }
            if stored.record.immutable_tags && tagged.is_some_and(|tagged| tagged != digest) {
                return Err(RegistryError::ImmutableTag);
            }
            // Naming the repository's revision keeps deletion and other pushes out.
            let touched = Repository {
                modified: self.now,
                ..stored.record
            };
            let mut batch = Batch::default().put(&stored.key, Expect::At(stored.revision), &touched)?;
            if !known {
                let image = Image {
                    repository: repository.into(),
                    digest: digest.clone(),
                    media_type: media_type.clone(),
                    manifest: text.into(),
                    size,
                    pushed: self.now,
                    references: manifest.references(),
                };
                batch = batch.put(&image_key, Expect::Any, &image)?;
            }
            if let Some((tag, key)) = tag {
                let record = ImageTag {
                    repository: repository.into(),
                    tag: tag.into(),
                    digest: digest.clone(),
                    pushed: self.now,
                };
                batch = batch.put(&key, Expect::Any, &record)?;
            }
            match self.store.commit(batch) {
                Ok(_) => {
                    return Ok(Pushed {
                        digest,
                        media_type,
                        unchanged: false,
                    });
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Checks that everything a manifest refers to is in the repository, with the size it says; returns the sum.
    fn check_references(&self, repository: &str, manifest: &Manifest) -> Result<u64, RegistryError> {
        let mut missing = Vec::new();
        let mut size = 0_u64;
        match manifest {
            Manifest::Image { config, layers } => {
                for descriptor in std::iter::once(config).chain(layers) {
                    let layer = self.layer(repository, &descriptor.digest)?;
                    match layer.filter(|layer| layer.size == descriptor.size) {
                        Some(layer) => size = size.saturating_add(layer.size),
                        None => missing.push(descriptor.digest.clone()),
                    }
                }
            }
            Manifest::Index { entries } => {
                for entry in entries {
                    let key = Image::key(self.scope, repository, &entry.digest);
                    if self.store.get_raw(Image::KIND, &key)?.is_none() {
                        missing.push(entry.digest.clone());
                    }
                }
            }
        }
        if missing.is_empty() {
            Ok(size)
        } else {
            Err(RegistryError::Missing(missing))
        }
    }

    /// A blob that was uploaded to the repository.
    ///
    /// # Errors
    /// When the store fails.
    pub fn layer(&self, repository: &str, digest: &Sha256Digest) -> Result<Option<Layer>, RegistryError> {
        let found = self.store.get::<Layer>(&Layer::key(self.scope, repository, digest))?;
        Ok(found.map(|stored| stored.record))
    }

    /// Notes that a blob was uploaded to, or mounted into, a repository.
    ///
    /// # Errors
    /// `NoRepository`, or when the store fails.
    pub fn add_layer(&self, repository: &str, digest: &Sha256Digest, size: u64) -> Result<(), RegistryError> {
        self.repository(repository)?;
        let layer = Layer {
            repository: repository.into(),
            digest: digest.clone(),
            size,
            pushed: self.now,
        };
        let key = Layer::key(self.scope, repository, digest);
        self.store.commit(Batch::default().put(&key, Expect::Any, &layer)?)?;
        Ok(())
    }

    /// Removes a tag, or an image with all its tags. An image that was known only by the removed tag goes with it, as ECR
    /// does when the last tag of an image is deleted. Returns what was removed: (digest, tag).
    ///
    /// # Errors
    /// `NoImage`, `Referenced`, or when the store fails.
    pub fn delete_image(
        &self,
        repository: &str,
        version: &ImageVersion,
    ) -> Result<Vec<(Sha256Digest, Option<String>)>, RegistryError> {
        loop {
            let stored = self.repository(repository)?;
            let image = self.image(repository, version)?;
            let tags = self
                .tags_by_image(repository)?
                .remove(&image.digest)
                .unwrap_or_default();
            let gone: Vec<String> = match version {
                ImageVersion::Tag(tag) => vec![tag.clone()],
                ImageVersion::Digest(_) => tags.clone(),
            };
            let last = gone.len() == tags.len();
            let indexes = self.images(repository)?;
            if last
                && indexes
                    .iter()
                    .any(|other| other.record.references.contains(&image.digest))
            {
                return Err(RegistryError::Referenced);
            }
            let touched = Repository {
                modified: self.now,
                ..stored.record
            };
            let mut batch = Batch::default().put(&stored.key, Expect::At(stored.revision), &touched)?;
            for tag in &gone {
                batch = batch.delete::<ImageTag>(&ImageTag::key(self.scope, repository, tag), Expect::Any);
            }
            if last {
                batch = batch.delete::<Image>(&Image::key(self.scope, repository, &image.digest), Expect::Any);
            }
            match self.store.commit(batch) {
                Ok(_) if gone.is_empty() => return Ok(vec![(image.digest, None)]),
                Ok(_) => return Ok(gone.into_iter().map(|tag| (image.digest.clone(), Some(tag))).collect()),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Registry {
    /// Forgets layers that no image of their repository refers to, then removes blobs that no repository has; only what is
    /// older than a day, since a push uploads blobs long before their manifest. Returns how many blobs went.
    ///
    /// # Errors
    /// When the store or the disk fails; what was done until then stays done, and repeating is safe.
    pub fn collect_garbage(&self, store: &dyn StateStore, now: Timestamp) -> Result<usize, RegistryError> {
        let before = Timestamp(
            now.0
                .saturating_sub(i64::try_from(GRACE.as_millis()).unwrap_or(i64::MAX)),
        );
        let mut wanted: BTreeSet<Key> = BTreeSet::new();
        for image in store.all::<Image>()? {
            let scope = &image.key.scope;
            wanted.extend(
                image
                    .record
                    .references
                    .iter()
                    .map(|digest| Layer::key(scope, &image.record.repository, digest)),
            );
        }
        let mut held = BTreeSet::new();
        for layer in store.all::<Layer>()? {
            if layer.record.pushed >= before || wanted.contains(&layer.key) {
                held.insert(layer.record.digest);
                continue;
            }
            match store.commit(Batch::default().delete::<Layer>(&layer.key, Expect::At(layer.revision))) {
                Ok(_) => {}
                // It was uploaded again meanwhile.
                Err(StoreError::Conflict { .. }) => {
                    held.insert(layer.record.digest);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let stale: Vec<_> = self
            .blobs
            .older_than(before)?
            .into_iter()
            .filter(|digest| !held.contains(digest))
            .collect();
        for digest in &stale {
            self.blobs.remove(digest)?;
        }
        Ok(stale.len())
    }
}
