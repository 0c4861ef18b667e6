//! Endpoint configurations: immutable, deletable at any time (SM-20, SM-21).

use super::async_inference::AsyncInference;
use super::data_capture::DataCapture;
use super::{Echo, Tags};
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One production variant, as far as the engine acts on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProductionVariant {
    pub name: String,
    pub model_name: String,
    pub instance_type: String,
    pub instance_count: u32,
    /// Relative share of the traffic; 1.0 unless given (SM-20).
    pub weight: f64,
    /// `ContainerStartupHealthCheckTimeoutInSeconds`, 60..=3600 (CC-49).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_timeout: Option<u64>,
    /// `ModelDataDownloadTimeoutInSeconds`, 60..=3600 (CC-55).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_timeout: Option<u64>,
    /// `ServerlessConfig`; `instance_type` follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serverless: Option<Serverless>,
}

/// `ServerlessConfig` as it is carried out: one container, always there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serverless {
    /// 1024 to 6144, in steps of 1024.
    pub memory_mb: u32,
    /// Requests at once; further ones are refused. 1 to 200.
    pub concurrency: u32,
    /// As given: what it asks for is there anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned: Option<u32>,
}

impl Serverless {
    /// The size of the container, as the table of instance types knows it.
    pub fn instance_type(&self) -> String {
        format!("{}{}", super::instance_type::SERVERLESS, self.memory_mb)
    }
}

impl ProductionVariant {
    /// How long the container may take to answer its first ping; `default` where the request says nothing (CC-49).
    pub fn startup_deadline(&self, default: Duration) -> Duration {
        self.startup_timeout.map_or(default, Duration::from_secs)
    }
}

/// An endpoint configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointConfig {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub variants: Vec<ProductionVariant>,
    /// `DataCaptureConfig` (CC-60).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<DataCapture>,
    /// `AsyncInferenceConfig` (SM-55).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<AsyncInference>,
    pub tags: Tags,
    /// `ProductionVariants` and the other members as given.
    pub echo: Echo,
}

impl Record for EndpointConfig {
    const KIND: &'static str = "sagemaker.endpoint_config";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.name.clone(), self.created)
    }
}

impl EndpointConfig {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The configuration's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "endpoint-config", name)
    }
}
