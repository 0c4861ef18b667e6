//! The embedded services: which there are, and their models, each read at its first use.

mod load;
pub mod pattern;
pub mod service;

pub use service::{Operation, Service};

use crate::protocol::Protocol;
use std::sync::OnceLock;

/// What is known of a service without reading its model.
#[derive(Debug)]
pub struct Entry {
    /// The name in `models/`.
    pub name: &'static str,
    /// The service of the SigV4 scope (IAM-42).
    pub signing_name: &'static str,
    /// What stands before the operation in `X-Amz-Target` and in CBOR paths.
    pub target_prefix: Option<&'static str>,
    pub api_version: &'static str,
    pub protocols: &'static [Protocol],
    packed: &'static [u8],
    model: OnceLock<Service>,
}

macro_rules! entry {
    ($name:literal, $signing:literal, $target:expr, $version:literal, $protocols:expr) => {
        Entry {
            name: $name,
            signing_name: $signing,
            target_prefix: $target,
            api_version: $version,
            protocols: $protocols,
            packed: include_bytes!(concat!("../../../../../models/", $name, ".json.gz")),
            model: OnceLock::new(),
        }
    };
}

static ENTRIES: [Entry; 12] = [
    entry!(
        "cloudformation",
        "cloudformation",
        None,
        "2010-05-15",
        &[Protocol::Query]
    ),
    entry!(
        "cloudtrail",
        "cloudtrail",
        Some("com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101"),
        "2013-11-01",
        &[Protocol::Json]
    ),
    entry!(
        "cloudwatch",
        "monitoring",
        Some("GraniteServiceVersion20100801"),
        "2010-08-01",
        &[Protocol::Cbor, Protocol::Json, Protocol::Query]
    ),
    entry!("ec2", "ec2", None, "2016-11-15", &[Protocol::Ec2]),
    entry!(
        "ecr",
        "ecr",
        Some("AmazonEC2ContainerRegistry_V20150921"),
        "2015-09-21",
        &[Protocol::Json]
    ),
    entry!("iam", "iam", None, "2010-05-08", &[Protocol::Query]),
    entry!("kms", "kms", Some("TrentService"), "2014-11-01", &[Protocol::Json]),
    entry!("logs", "logs", Some("Logs_20140328"), "2014-03-28", &[Protocol::Json]),
    entry!(
        "sagemaker",
        "sagemaker",
        Some("SageMaker"),
        "2017-07-24",
        &[Protocol::Json]
    ),
    entry!(
        "sagemaker-featurestore-runtime",
        "sagemaker",
        None,
        "2020-07-01",
        &[Protocol::RestJson]
    ),
    entry!(
        "sagemaker-runtime",
        "sagemaker",
        None,
        "2017-05-13",
        &[Protocol::RestJson]
    ),
    entry!("sts", "sts", None, "2011-06-15", &[Protocol::Query]),
];

impl Entry {
    /// The model. Read once; a model that cannot be read has no operations, so that nothing can be asked of it.
    pub fn model(&'static self) -> &'static Service {
        self.model
            .get_or_init(|| load::load(self.name, self.packed).unwrap_or_default())
    }
}

/// Every embedded service.
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// The service called `name` in `models/`.
pub fn by_name(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// The service with this target prefix.
pub fn by_target(prefix: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.target_prefix == Some(prefix))
}

/// The service of this signing name that speaks one of the query protocols.
pub fn by_query(signing_name: &str) -> Option<&'static Entry> {
    ENTRIES
        .iter()
        .find(|entry| entry.signing_name == signing_name && entry.query_protocol().is_some())
}

/// The service of this API version that speaks one of the query protocols: for requests that nobody signed.
pub fn by_version(version: &str) -> Option<&'static Entry> {
    ENTRIES
        .iter()
        .find(|entry| entry.api_version == version && entry.query_protocol().is_some())
}

impl Entry {
    /// The query protocol this service speaks, if any.
    pub fn query_protocol(&self) -> Option<Protocol> {
        self.protocols
            .iter()
            .copied()
            .find(|protocol| matches!(protocol, Protocol::Query | Protocol::Ec2))
    }
}

#[cfg(test)]
mod tests;
