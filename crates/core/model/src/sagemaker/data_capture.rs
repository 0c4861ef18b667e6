//! What is kept of an endpoint's requests and answers (CC-60).

use super::s3_uri::S3Uri;
use serde::{Deserialize, Serialize};

/// `DataCaptureConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataCapture {
    /// Whether anything is kept at all.
    pub enabled: bool,
    /// How many of 100 invocations are kept, 0 to 100.
    pub percentage: u8,
    /// Where the files go; their names follow CC-61.
    pub destination: S3Uri,
    /// Requests are kept.
    pub input: bool,
    /// Answers are kept.
    pub output: bool,
    /// Content types that are kept as text, in lower case.
    pub csv: Vec<String>,
    /// The same of JSON.
    pub json: Vec<String>,
    /// The key of the key store under which it is encrypted (CC-36); `None`: as the bucket does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
}
