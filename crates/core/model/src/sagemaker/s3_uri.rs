//! `s3://bucket/key` as requests name data.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A bucket and a key or key prefix (which may be empty).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct S3Uri {
    /// The bucket's name, never empty.
    pub bucket: String,
    /// The key or prefix, without a leading slash; empty means the whole bucket.
    pub key: String,
}

/// The text names no bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an S3 address: expected s3://bucket/key")]
pub struct BadS3Uri;

impl FromStr for S3Uri {
    type Err = BadS3Uri;
    /// Reads `s3://bucket/key` and the two https forms of S3 (bucket in the path, bucket in the host; SM-15).
    fn from_str(text: &str) -> Result<Self, BadS3Uri> {
        if let Some(rest) = text.strip_prefix("s3://") {
            return Self::split(rest);
        }
        let rest = text.strip_prefix("https://").ok_or(BadS3Uri)?;
        let (host, path) = rest.split_once('/').ok_or(BadS3Uri)?;
        if host.starts_with("s3.") || host.starts_with("s3-") {
            return Self::split(path);
        }
        let bucket = host
            .find(".s3.")
            .or_else(|| host.find(".s3-"))
            .and_then(|at| host.get(..at))
            .ok_or(BadS3Uri)?;
        Self::split(&format!("{bucket}/{path}"))
    }
}

impl S3Uri {
    fn split(rest: &str) -> Result<Self, BadS3Uri> {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(BadS3Uri);
        }
        Ok(Self {
            bucket: bucket.into(),
            key: key.into(),
        })
    }

    /// The same address with `below` appended to the key as further path components.
    pub fn join(&self, below: &str) -> Self {
        let key = match self.key.trim_end_matches('/') {
            "" => below.to_string(),
            prefix => format!("{prefix}/{below}"),
        };
        Self {
            bucket: self.bucket.clone(),
            key,
        }
    }
}

impl fmt::Display for S3Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

impl TryFrom<String> for S3Uri {
    type Error = BadS3Uri;
    fn try_from(text: String) -> Result<Self, BadS3Uri> {
        text.parse()
    }
}

impl From<S3Uri> for String {
    fn from(uri: S3Uri) -> Self {
        uri.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_address_gives_bucket_and_key() {
        let want = S3Uri {
            bucket: "b".into(),
            key: "p/k".into(),
        };
        for text in [
            "s3://b/p/k",
            "https://s3.us-east-1.amazonaws.com/b/p/k",
            "https://s3-us-west-2.amazonaws.com/b/p/k",
            "https://b.s3.us-east-1.amazonaws.com/p/k",
        ] {
            assert_eq!(text.parse::<S3Uri>().unwrap(), want, "{text}");
        }
        assert_eq!("s3://b".parse::<S3Uri>().unwrap().key, "");
        for bad in ["", "s3://", "s3:///k", "b/k", "https://example.com/b/k"] {
            assert_eq!(bad.parse::<S3Uri>(), Err(BadS3Uri), "{bad}");
        }
    }

    #[test]
    fn joining_never_doubles_the_slash() {
        let base: S3Uri = "s3://b/out/".parse().unwrap();
        assert_eq!(
            base.join("job/output/model.tar.gz").to_string(),
            "s3://b/out/job/output/model.tar.gz"
        );
        assert_eq!("s3://b".parse::<S3Uri>().unwrap().join("x").to_string(), "s3://b/x");
    }
}
