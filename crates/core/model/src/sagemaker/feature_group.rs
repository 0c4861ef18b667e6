//! Feature groups and the records of their online stores.

use super::Tags;
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What the values of a feature are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeatureType {
    /// A whole number of 64 bits.
    Integral,
    /// A finite floating-point number.
    Fractional,
    /// A text.
    String,
}

/// A feature that has several values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Collection {
    /// In the order given.
    List,
    /// Each value once.
    Set,
    /// As many fractional values as `dimension` says, 1 to 8192.
    Vector { dimension: u16 },
}

/// One feature of a group, with what its owner wrote down about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    pub name: String,
    pub kind: FeatureType,
    /// `None` for a single value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<Collection>,
    pub created: Timestamp,
    pub modified: Timestamp,
    /// UpdateFeatureMetadata's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// UpdateFeatureMetadata's search parameters, at most 25.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// The unit of a time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TtlUnit {
    Seconds,
    Minutes,
    Hours,
    Days,
    Weeks,
}

/// How long records live after their event time; kept as given, because Describe gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ttl {
    pub unit: TtlUnit,
    /// At least 1.
    pub value: u32,
}

impl Ttl {
    /// The time it stands for.
    pub fn duration(self) -> Duration {
        let seconds = match self.unit {
            TtlUnit::Seconds => 1,
            TtlUnit::Minutes => 60,
            TtlUnit::Hours => 3600,
            TtlUnit::Days => 86_400,
            TtlUnit::Weeks => 604_800,
        };
        Duration::from_secs(u64::from(self.value).saturating_mul(seconds))
    }
}

/// A feature group with an online store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureGroup {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub modified: Timestamp,
    /// Names this group's records: one that is made later under the same name does not see them.
    pub generation: Box<str>,
    /// The feature that tells records apart.
    pub record_identifier: String,
    /// The feature that says which version of a record is the latest.
    pub event_time: String,
    /// In the order in which they were given.
    pub features: Vec<Feature>,
    /// Of records that are written without one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// `Standard`, `Standard_V2` or `InMemory`; one store serves all of them, collections need `InMemory`.
    pub storage: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<Arn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether UpdateFeatureGroup ever changed it.
    #[serde(default)]
    pub updated: bool,
    pub tags: Tags,
}

impl Record for FeatureGroup {
    const KIND: &'static str = "sagemaker.feature_group";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.name.clone(),
            created: self.created,
            modified: self.modified,
            status: "Created".into(),
        }
    }
}

impl FeatureGroup {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The group's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "feature-group", name)
    }

    /// The feature called `name`.
    pub fn feature(&self, name: &str) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.name == name)
    }

    /// The key of one record of the online store.
    pub fn record_key(&self, scope: &Scope, identifier: &str) -> Key {
        Key::exact(scope, &format!("{}/{identifier}", self.generation))
    }
}

/// The value of a feature in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FeatureValue {
    One(String),
    Many(Vec<String>),
}

/// The latest version of a record in an online store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureRecord {
    /// What orders the versions: an older one never replaces a newer one.
    pub event_time: Timestamp,
    /// Features and values in the order given; `None` is the mark that a soft deletion leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<(String, FeatureValue)>>,
    /// From when on nobody sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl Record for FeatureRecord {
    const KIND: &'static str = "sagemaker.feature_record";

    /// The column `created` holds the time of expiry, so that expired records are found by it.
    fn facets(&self) -> Facets {
        Facets {
            display_name: String::new(),
            created: self.expires.unwrap_or(Timestamp(i64::MAX)),
            modified: self.event_time,
            status: String::new(),
        }
    }
}

impl FeatureRecord {
    /// Whether it is still there at `now`.
    pub fn lives(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// A feature group that is gone while its records still take space: housekeeping removes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureRemains {
    pub generation: Box<str>,
    pub deleted: Timestamp,
}

impl Record for FeatureRemains {
    const KIND: &'static str = "sagemaker.feature_remains";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.generation.to_string(), self.deleted)
    }
}
