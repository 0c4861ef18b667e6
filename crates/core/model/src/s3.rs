//! Records of S3: buckets, objects, versions, multipart uploads.

use crate::{AccountId, Arn, Region, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A bucket name by S3's naming rules: 3 to 63 lower-case letters, digits, dots and hyphens, beginning and ending with
/// a letter or digit, no `..`, not an IP address. Such a name is safe as a directory name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketName(Box<str>);

/// Why a text names no bucket or object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("a bucket name has 3 to 63 lower-case letters, digits, dots and hyphens")]
    Bucket,
    #[error("an object key has 1 to 1024 bytes of UTF-8")]
    Key,
}

impl FromStr for BucketName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        let fits = (3..=63).contains(&bytes.len())
            && bytes
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
            && edge(bytes.first())
            && edge(bytes.last())
            && !text.contains("..")
            && !text.starts_with("xn--")
            && text.parse::<IpAddr>().is_err();
        fits.then(|| Self(text.into())).ok_or(BadName::Bucket)
    }
}

/// The key of an object: 1 to 1024 bytes, any characters (line breaks, `..` and slashes included).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectKey(Box<str>);

impl FromStr for ObjectKey {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        (1..=1024)
            .contains(&text.len())
            .then(|| Self(text.into()))
            .ok_or(BadName::Key)
    }
}

macro_rules! text_type {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }
        impl $name {
            /// The whole text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}
text_type!(BucketName);
text_type!(ObjectKey);

/// Whether a bucket keeps old versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versioning {
    /// Versioning was never switched on: a write replaces.
    #[default]
    Never,
    /// Every write adds a version.
    Enabled,
    /// Writes replace the version `null`; older versions stay.
    Suspended,
}

/// A bucket with its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub name: BucketName,
    /// The account that owns the bucket and everything in it.
    pub owner: AccountId,
    pub region: Region,
    pub created: Timestamp,
    pub versioning: Versioning,
    /// The bucket policy, as the JSON text that was put.
    pub policy: Option<String>,
    pub tags: Option<Tags>,
    pub public_access_block: Option<PublicAccessBlock>,
    /// How objects are encrypted whose writer asks for nothing; `None` leaves them plain.
    pub encryption: Option<BucketEncryption>,
}

/// The default encryption of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketEncryption {
    pub default: DefaultEncryption,
    /// Whether the bucket's ARN, not the object's, is the encryption context of data keys.
    pub bucket_key: bool,
}

/// What encrypts by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultEncryption {
    /// SSE-S3.
    Managed,
    /// SSE-KMS with this key, by id, ARN or alias as it was put; `None` is the account's `aws/s3`.
    Kms { key: Option<String> },
}

/// How an object lies encrypted on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    pub wrapping: Wrapping,
    /// The object's own key, sealed as `wrapping` says; base64.
    pub data_key: String,
    /// What the file is made of, in order: one segment, or one for each part. Empty for an upload in progress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
}

/// Who can open an object's data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrapping {
    /// SSE-S3: the engine by itself.
    Managed,
    /// SSE-KMS: whoever may use the key.
    Kms {
        key_arn: Arn,
        /// The encryption context that the writer gave, without what S3 adds to it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        context: BTreeMap<String, String>,
        bucket_key: bool,
    },
}

/// A stretch of an encrypted file that was written in one go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// 16 bytes that no other segment has, hexadecimal: the segment's key is made of them and the data key.
    pub salt: String,
    /// Plain bytes.
    pub size: u64,
}

/// The four switches of a bucket's public access block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicAccessBlock {
    pub block_public_acls: bool,
    pub ignore_public_acls: bool,
    pub block_public_policy: bool,
    pub restrict_public_buckets: bool,
}

impl PublicAccessBlock {
    /// All four on, as every new bucket begins.
    pub const ALL: Self = Self {
        block_public_acls: true,
        ignore_public_acls: true,
        block_public_policy: true,
        restrict_public_buckets: true,
    };
}

/// Tags in the order they were put.
pub type Tags = Vec<(String, String)>;

/// Checksum algorithms that clients may ask S3 to verify and keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

/// What a checksum covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChecksumKind {
    /// All bytes of the object.
    FullObject,
    /// The checksums of the parts of a multipart upload.
    Composite,
}

/// A checksum as S3 shows it: base64, for composite ones with `-N` parts appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    pub algorithm: ChecksumAlgorithm,
    pub kind: ChecksumKind,
    pub value: String,
}

/// Headers that come back on every read, and the caller's own metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectHeaders {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// `Expires` as an HTTP date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub website_redirect: Option<String>,
    /// `x-amz-meta-` headers without the prefix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub user: BTreeMap<String, String>,
}

/// A part of an object that was uploaded in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSize {
    pub number: u16,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
}

/// One version of an object. In a bucket without versioning the only one, called `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub key: ObjectKey,
    /// `null` or an opaque id.
    pub version: String,
    pub latest: bool,
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    pub modified: Timestamp,
    pub owner: AccountId,
    pub headers: ObjectHeaders,
    pub checksums: Vec<Checksum>,
    /// Empty unless the object came by multipart upload.
    pub parts: Vec<PartSize>,
    pub tags: Tags,
    /// `None`: the file holds the plain bytes.
    pub encryption: Option<Encryption>,
}

/// A line of a version listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    Object(Box<Object>),
    /// The key was deleted at this point of its history.
    DeleteMarker {
        key: ObjectKey,
        version: String,
        latest: bool,
        modified: Timestamp,
        owner: AccountId,
    },
}

/// A multipart upload that is neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    pub id: String,
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub initiated: Timestamp,
    /// The account that will own the object.
    pub owner: AccountId,
    /// ARN of the principal that began the upload.
    pub initiator: String,
    pub headers: ObjectHeaders,
    pub tags: Tags,
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// How its parts are encrypted, and the object then.
    pub encryption: Option<Encryption>,
}

/// An uploaded part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u16,
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    pub modified: Timestamp,
    pub checksums: Vec<Checksum>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_are_safe_directory_names() {
        for good in ["abc", "my.bucket-1", "0aa", &"a".repeat(63)] {
            assert!(good.parse::<BucketName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            "a..b",
            "192.168.0.1",
            "xn--abc",
            "a/b",
            &"a".repeat(64),
        ] {
            assert_eq!(bad.parse::<BucketName>(), Err(BadName::Bucket), "{bad}");
        }
    }

    #[test]
    fn keys_are_bounded_in_bytes() {
        assert!("../x\n".parse::<ObjectKey>().is_ok());
        assert_eq!("".parse::<ObjectKey>(), Err(BadName::Key));
        assert!("ä".repeat(512).parse::<ObjectKey>().is_ok());
        assert_eq!("ä".repeat(513).parse::<ObjectKey>(), Err(BadName::Key));
    }
}
