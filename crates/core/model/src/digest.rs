//! Content digests of blobs and layers.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// `sha256:` followed by 64 lower-case hexadecimal digits, as OCI writes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Digest(Box<str>);

/// The text is not a SHA-256 digest in OCI's spelling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is sha256: and 64 lower-case hexadecimal digits")]
pub struct BadDigest;

impl FromStr for Sha256Digest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let hex = text.strip_prefix("sha256:").ok_or(BadDigest)?;
        let good = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        good.then(|| Self(text.into())).ok_or(BadDigest)
    }
}

impl TryFrom<String> for Sha256Digest {
    type Error = BadDigest;
    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<Sha256Digest> for String {
    fn from(digest: Sha256Digest) -> Self {
        digest.0.into()
    }
}

impl Sha256Digest {
    /// From the 32 bytes of a digest.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            for half in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
            }
        }
        Self(text.into())
    }

    /// With the `sha256:` prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits alone: safe as a file name.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
