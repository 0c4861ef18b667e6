//! Asynchronous inference: what a configuration says of it, and one request that waits or runs (SM-55).

use super::s3_uri::S3Uri;
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};

/// `AsyncInferenceConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsyncInference {
    /// Below it the outputs go.
    pub output: S3Uri,
    /// Below it the reasons of failures go; without it they are told nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<S3Uri>,
    /// `MaxConcurrentInvocationsPerInstance`, 1 to 1000, as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_instance: Option<u32>,
    /// The key of the key store under which outputs and failures are encrypted (CC-36); `None`: as the bucket does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
}

/// Requests that one instance gets at once where the configuration does not say.
const PER_INSTANCE: u32 = 4;

impl AsyncInference {
    /// How many requests one instance gets at once.
    pub fn concurrency(&self) -> usize {
        usize::try_from(self.per_instance.unwrap_or(PER_INSTANCE)).unwrap_or(usize::MAX)
    }
}

/// A request that was accepted and has no output yet. The record goes when its output, or the reason why there is none, is
/// stored: until then it survives everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsyncInvocation {
    /// A UUID; the last part of the output's name.
    pub id: String,
    /// Folded name of its endpoint.
    pub endpoint: String,
    pub endpoint_arn: Arn,
    /// The caller's, or a UUID.
    pub inference_id: String,
    pub input: S3Uri,
    pub output: S3Uri,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<S3Uri>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_attributes: Option<String>,
    pub accepted: Timestamp,
    /// Not begun after this time.
    pub expires: Timestamp,
    /// Seconds that the container may take, 1 to 3600.
    pub timeout: u64,
}

impl Record for AsyncInvocation {
    const KIND: &'static str = "sagemaker.async_invocation";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.id.clone(), self.accepted)
    }

    fn part_of(&self) -> Option<String> {
        Some(self.endpoint.clone())
    }
}

impl AsyncInvocation {
    /// The record's key: below its endpoint's.
    pub fn key(&self, scope: &Scope) -> Key {
        Key::exact(scope, &format!("{}/{}", self.endpoint, self.id))
    }

    /// The key of the endpoint whose request a record of this key is.
    pub fn endpoint_of(key: &Key) -> Option<Key> {
        let (endpoint, _) = key.name.split_once('/')?;
        Some(Key::exact(&key.scope, endpoint))
    }
}
