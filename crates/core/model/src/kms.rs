//! Keys of the key store and their aliases. A key's material is never here in the clear: `material` is sealed.

use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whether a key may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum KmsState {
    Enabled,
    Disabled,
    /// Its material goes at this time; until then the deletion can be called off.
    PendingDeletion {
        at: Timestamp,
    },
}

impl KmsState {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::PendingDeletion { .. } => "PendingDeletion",
        }
    }
}

/// A symmetric key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsKey {
    /// A UUID.
    pub id: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub state: KmsState,
    pub description: String,
    /// The key's policy, the only thing that lets anybody use it.
    pub policy: String,
    pub tags: BTreeMap<String, String>,
    /// 32 bytes, sealed with a key that is not in the database; base64.
    pub material: String,
    /// Whether a service made it for the account, as S3 makes `aws/s3`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_service: bool,
}

impl Record for KmsKey {
    const KIND: &'static str = "kms.key";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.id.clone(),
            created: self.created,
            modified: self.created,
            status: self.state.as_str().into(),
        }
    }
}

impl KmsKey {
    /// The record's key.
    pub fn key(scope: &Scope, id: &str) -> Key {
        Key::exact(scope, id)
    }

    /// The ARN of a key.
    pub fn arn(scope: &Scope, id: &str) -> Arn {
        Arn::regional("kms", scope, &format!("key/{id}"))
    }

    /// Whether it is past its deletion: nobody sees it any more.
    pub fn is_gone(&self, now: Timestamp) -> bool {
        matches!(self.state, KmsState::PendingDeletion { at } if at <= now)
    }
}

/// Another name of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsAlias {
    /// With `alias/` in front.
    pub name: String,
    pub key_id: String,
    pub created: Timestamp,
    pub updated: Timestamp,
}

impl Record for KmsAlias {
    const KIND: &'static str = "kms.alias";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.name.clone(),
            created: self.created,
            modified: self.updated,
            status: String::new(),
        }
    }
}

impl KmsAlias {
    /// The record's key; `name` has `alias/` in front.
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::exact(scope, name)
    }

    /// The ARN of an alias.
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::regional("kms", scope, name)
    }
}
