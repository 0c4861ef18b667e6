//! Records of the container registry (ECR): repositories, images, tags, layers.

use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Sha256Digest, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A repository. Its key is its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    pub name: String,
    pub created: Timestamp,
    pub modified: Timestamp,
    /// A tag, once given, cannot be moved to another image.
    pub immutable_tags: bool,
    pub tags: BTreeMap<String, String>,
    /// What other principals may do in it, as JSON text.
    #[serde(default)]
    pub policy: Option<String>,
}

impl Repository {
    /// The repository's ARN.
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::regional("ecr", scope, &format!("repository/{name}"))
    }

    /// What image references begin with: `ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME`.
    pub fn uri(scope: &Scope, name: &str) -> String {
        format!("{}.dkr.ecr.{}.amazonaws.com/{name}", scope.account, scope.region)
    }

    /// Its key.
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::exact(scope, name)
    }
}

impl Record for Repository {
    const KIND: &'static str = "ecr.repository";
    fn facets(&self) -> Facets {
        facets(&self.name, self.created, self.modified)
    }
}

/// An image manifest or index, exactly as it was pushed. Its key is `REPOSITORY@DIGEST`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub repository: String,
    pub digest: Sha256Digest,
    pub media_type: String,
    /// The text whose digest is `digest`.
    pub manifest: String,
    /// Bytes of configuration and layers; 0 for an index.
    pub size: u64,
    pub pushed: Timestamp,
    /// Digests of the blobs (of an index: of the images) that it refers to.
    pub references: Vec<Sha256Digest>,
}

impl Image {
    /// Its key.
    pub fn key(scope: &Scope, repository: &str, digest: &Sha256Digest) -> Key {
        Key::exact(scope, &format!("{}{digest}", Self::prefix(repository)))
    }

    /// What the keys of all images of a repository begin with.
    pub fn prefix(repository: &str) -> String {
        format!("{repository}@")
    }
}

impl Record for Image {
    const KIND: &'static str = "ecr.image";
    fn facets(&self) -> Facets {
        facets(self.digest.as_str(), self.pushed, self.pushed)
    }
}

/// A tag of a repository. Its key is `REPOSITORY:TAG`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTag {
    pub repository: String,
    pub tag: String,
    pub digest: Sha256Digest,
    pub pushed: Timestamp,
}

impl ImageTag {
    /// Its key.
    pub fn key(scope: &Scope, repository: &str, tag: &str) -> Key {
        Key::exact(scope, &format!("{}{tag}", Self::prefix(repository)))
    }

    /// What the keys of all tags of a repository begin with.
    pub fn prefix(repository: &str) -> String {
        format!("{repository}:")
    }
}

impl Record for ImageTag {
    const KIND: &'static str = "ecr.tag";
    fn facets(&self) -> Facets {
        facets(&self.tag, self.pushed, self.pushed)
    }
}

/// A blob that was uploaded to a repository. Blobs are kept once for all, but only who uploaded one can read it: knowing
/// a digest is no permission. Its key is `REPOSITORY@DIGEST`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub repository: String,
    pub digest: Sha256Digest,
    pub size: u64,
    pub pushed: Timestamp,
}

impl Layer {
    /// Its key.
    pub fn key(scope: &Scope, repository: &str, digest: &Sha256Digest) -> Key {
        Image::key(scope, repository, digest)
    }
}

impl Record for Layer {
    const KIND: &'static str = "ecr.layer";
    fn facets(&self) -> Facets {
        facets(self.digest.as_str(), self.pushed, self.pushed)
    }
}

fn facets(name: &str, created: Timestamp, modified: Timestamp) -> Facets {
    Facets {
        display_name: name.into(),
        created,
        modified,
        status: String::new(),
    }
}

/// An image reference of the engine's own registry (CC-11):
/// `ACCOUNT.dkr.ecr.REGION.SUFFIX/REPOSITORY[:TAG|@DIGEST]`. Without either, the tag is `latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    pub scope: Scope,
    pub repository: String,
    pub version: ImageVersion,
}

/// Which image of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageVersion {
    Tag(String),
    Digest(Sha256Digest),
}

/// Why a text is no reference to an image of this registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadImageReference {
    #[error("an image reference begins with ACCOUNT.dkr.ecr.REGION.amazonaws.com/")]
    Host,
    #[error("the repository's name is malformed")]
    Repository,
    #[error("the tag or digest is malformed")]
    Version,
}

impl std::str::FromStr for ImageReference {
    type Err = BadImageReference;
    fn from_str(text: &str) -> Result<Self, BadImageReference> {
        let (host, path) = text.split_once('/').ok_or(BadImageReference::Host)?;
        let host = ["amazonaws.com", "amazonaws.com.cn"]
            .iter()
            .find_map(|suffix| host.strip_suffix(suffix)?.strip_suffix('.'))
            .ok_or(BadImageReference::Host)?;
        let (account, region) = host.split_once(".dkr.ecr.").ok_or(BadImageReference::Host)?;
        let scope = Scope {
            account: account.parse().map_err(|_| BadImageReference::Host)?,
            region: region.parse().map_err(|_| BadImageReference::Host)?,
        };
        let (repository, version) = split_version(path)?;
        Ok(Self {
            scope,
            repository: repository.into(),
            version,
        })
    }
}

/// Splits `REPOSITORY[:TAG][@DIGEST]`; a digest wins over a tag beside it, and neither means `latest`.
///
/// # Errors
/// When one of the parts is malformed.
pub fn split_version(path: &str) -> Result<(&str, ImageVersion), BadImageReference> {
    let (named, digest) = match path.split_once('@') {
        Some((named, digest)) => (named, Some(digest.parse().map_err(|_| BadImageReference::Version)?)),
        None => (path, None),
    };
    let (repository, tag) = named
        .split_once(':')
        .map_or((named, None), |(name, tag)| (name, Some(tag)));
    if !is_repository_name(repository) {
        return Err(BadImageReference::Repository);
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(BadImageReference::Version);
    }
    let version = digest.map_or_else(
        || ImageVersion::Tag(tag.unwrap_or("latest").into()),
        ImageVersion::Digest,
    );
    Ok((repository, version))
}

/// Whether a text is a repository name: 2 to 256 characters, parts of lower-case letters and digits joined by single
/// `.`, `_`, `-`, `__` or runs of `-`, parts separated by `/`.
pub fn is_repository_name(text: &str) -> bool {
    (2..=256).contains(&text.len()) && text.split('/').all(is_path_part)
}

fn is_path_part(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    // Between the words stand separators of which only these runs are allowed.
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && separators
        .into_iter()
        .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

/// Whether a text is a tag: up to 128 of letters, digits, `_`, `.`, `-`, not beginning with `.` or `-`.
pub fn is_tag(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: CC-1
    #[test]
    fn image_references_name_account_region_repository_and_version() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let parse = |text: &str| text.parse::<ImageReference>();
        let base = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app";
        assert_eq!(parse(base).unwrap().version, ImageVersion::Tag("latest".into()));
        let tagged = parse(&format!("{base}:v1.0")).unwrap();
        assert_eq!(
            (tagged.repository.as_str(), tagged.version),
            ("team/app", ImageVersion::Tag("v1.0".into()))
        );
        let by_digest = ImageVersion::Digest(digest.parse().unwrap());
        assert_eq!(parse(&format!("{base}@{digest}")).unwrap().version, by_digest);
        assert_eq!(parse(&format!("{base}:v1@{digest}")).unwrap().version, by_digest);
        assert_eq!(tagged.scope.account.as_str(), "123456789012");
        for (bad, why) in [
            ("ubuntu", BadImageReference::Host),
            ("docker.io/library/ubuntu", BadImageReference::Host),
            ("12.dkr.ecr.us-east-1.amazonaws.com/app", BadImageReference::Host),
            ("123456789012.dkr.ecr.us-east-1.evil.com/app", BadImageReference::Host),
            (
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/../app",
                BadImageReference::Repository,
            ),
            (
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/App",
                BadImageReference::Repository,
            ),
            (
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:.x",
                BadImageReference::Version,
            ),
            (
                "123456789012.dkr.ecr.us-east-1.amazonaws.com/app@sha256:12",
                BadImageReference::Version,
            ),
        ] {
            assert_eq!(parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn repository_names_follow_the_rules_of_ecr() {
        for good in ["ab", "a-b", "a--b", "a__b", "a.b", "team/app", "a1/b_2/c"] {
            assert!(is_repository_name(good), "{good}");
        }
        for bad in [
            "", "a", "A/b", "/ab", "ab/", "a//b", "a..b", "a___b", "-a", "a-", "a@b", "a:b", "a b",
        ] {
            assert!(!is_repository_name(bad), "{bad}");
        }
    }
}
