//! What the store keeps: typed records under (kind, account, region, name).

use crate::{Scope, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The place of one record within its kind. `name` is the unique, already case-folded key (SM-8); records keep the
/// spelling the caller gave beside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub scope: Scope,
    pub name: Box<str>,
}

impl Key {
    /// A key that is unique without regard to case (SM-8).
    pub fn folded(scope: &Scope, name: &str) -> Self {
        Self {
            scope: scope.clone(),
            name: name.to_ascii_lowercase().into(),
        }
    }

    /// A key whose case matters (IAM ids, bucket names, log groups).
    pub fn exact(scope: &Scope, name: &str) -> Self {
        Self {
            scope: scope.clone(),
            name: name.into(),
        }
    }
}

/// A noun the store can keep. Bodies are JSON; fields added later need `#[serde(default)]`.
pub trait Record: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Stable name of the kind, such as `sagemaker.model`. Never reused.
    const KIND: &'static str;

    /// The columns that list operations sort and filter by, without reading the body.
    fn facets(&self) -> Facets;

    /// The id of the record that this one is a part of, such as the VPC of a subnet. The parts of one whole are read without
    /// those of others.
    fn part_of(&self) -> Option<String> {
        None
    }
}

/// Columns kept beside a record's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facets {
    /// The name as the caller spelled it; `NameContains` looks at it.
    pub display_name: String,
    pub created: Timestamp,
    pub modified: Timestamp,
    /// Status in AWS's spelling, empty where the noun has none.
    pub status: String,
}

impl Facets {
    /// Of a record that never changes and has no status.
    pub fn unchanging(display_name: String, created: Timestamp) -> Self {
        Self {
            display_name,
            created,
            modified: created,
            status: String::new(),
        }
    }
}
