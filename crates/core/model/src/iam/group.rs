//! Groups of users.

use super::{Policies, facets, global};
use crate::record::Facets;
use crate::{AccountId, Arn, Key, Record, Timestamp};
use serde::{Deserialize, Serialize};

/// A group: its policies count for its users (IAM-25). Who belongs to it is written in the users' records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub account: AccountId,
    /// Begins and ends with `/`.
    pub path: String,
    pub name: String,
    /// `AGPA` and 17 characters, never used twice.
    pub id: String,
    pub created: Timestamp,
    #[serde(flatten)]
    pub policies: Policies,
}

impl Group {
    /// Where the record lives. Names are unique without regard to case.
    pub fn key(account: &AccountId, name: &str) -> Key {
        Key::folded(&global(account), name)
    }

    /// `arn:aws:iam::ACCOUNT:group/PATH/NAME`.
    pub fn arn(&self) -> Arn {
        Arn::iam(&self.account, &format!("group{}{}", self.path, self.name))
    }
}

impl Record for Group {
    const KIND: &'static str = "iam.group";
    fn facets(&self) -> Facets {
        facets(&self.name, self.created, "")
    }
}
