//! Records of IAM: accounts, users, access keys, roles, with their policies; groups and managed policies below.
//!
//! IAM knows no regions: its records live under the account and the region word `global`. Access keys are looked up
//! before the account is known, so they live under the account `000000000000`, which nobody can have.

mod group;
mod policy;

use crate::record::Facets;
use crate::{AccountId, Arn, Key, Principal, Record, Region, Scope, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub use group::Group;
pub use policy::{Policy, PolicyVersion};

/// Where an account's IAM records live.
pub fn global(account: &AccountId) -> Scope {
    Scope {
        account: account.clone(),
        region: global_region(),
    }
}

#[expect(clippy::expect_used, reason = "the word is a region name")]
fn global_region() -> Region {
    "global".parse().expect("a region name")
}

#[expect(clippy::expect_used, reason = "the text has twelve digits")]
fn nobody() -> AccountId {
    "000000000000".parse().expect("twelve digits")
}

/// An account that the operator made. The root's access keys hang on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub id: AccountId,
    pub created: Timestamp,
    /// Ids of the root's access keys.
    #[serde(default)]
    pub access_keys: Vec<String>,
    /// The account's other name, if it has one.
    #[serde(default)]
    pub alias: Option<String>,
}

impl Account {
    /// Where the record lives.
    pub fn key(id: &AccountId) -> Key {
        Key::exact(&global(id), id.as_str())
    }
}

/// Who an access key belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum KeyOwner {
    Root,
    User { name: String },
}

/// A long-lived access key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    /// `AKIA` and 16 characters.
    pub id: String,
    pub secret: Secret,
    pub account: AccountId,
    pub owner: KeyOwner,
    pub active: bool,
    pub created: Timestamp,
}

impl AccessKey {
    /// Where the record lives: found by its id alone.
    pub fn key(id: &str) -> Key {
        Key::exact(&global(&nobody()), id)
    }
}

/// The policies of a user, group or role that allow and deny.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// Inline policies by name, as JSON texts.
    #[serde(default, rename = "policies")]
    pub inline: BTreeMap<String, String>,
    /// ARNs of the attached managed policies (IAM-25).
    #[serde(default)]
    pub managed: BTreeSet<Arn>,
}

/// What users and roles have in common: policies, a boundary and tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachments {
    #[serde(flatten)]
    pub policies: Policies,
    /// ARN of the managed policy that limits what the policies can give (IAM-24).
    #[serde(default)]
    pub boundary: Option<Arn>,
    /// Keys are unique without regard to case.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// An IAM user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub account: AccountId,
    /// Begins and ends with `/`.
    pub path: String,
    pub name: String,
    /// `AIDA` and 17 characters, never used twice.
    pub id: String,
    pub created: Timestamp,
    /// Ids of its access keys.
    #[serde(default)]
    pub access_keys: Vec<String>,
    /// The groups it belongs to, by the names of their keys.
    #[serde(default)]
    pub groups: BTreeSet<Box<str>>,
    #[serde(flatten)]
    pub attachments: Attachments,
}

impl User {
    /// Where the record lives. Names are unique without regard to case.
    pub fn key(account: &AccountId, name: &str) -> Key {
        Key::folded(&global(account), name)
    }

    /// `arn:aws:iam::ACCOUNT:user/PATH/NAME`.
    pub fn arn(&self) -> Arn {
        Arn::iam(&self.account, &format!("user{}{}", self.path, self.name))
    }

    /// The user as a caller.
    pub fn principal(&self) -> Principal {
        Principal::User {
            account: self.account.clone(),
            path: self.path.clone(),
            name: self.name.clone(),
            id: self.id.clone(),
        }
    }
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub account: AccountId,
    /// Begins and ends with `/`.
    pub path: String,
    pub name: String,
    /// `AROA` and 17 characters, never used twice.
    pub id: String,
    pub created: Timestamp,
    /// Who may assume it, as JSON text.
    pub trust: String,
    pub description: Option<String>,
    /// Seconds, 3,600 to 43,200.
    pub max_session: u32,
    #[serde(flatten)]
    pub attachments: Attachments,
}

impl Role {
    /// Where the record lives. Names are unique without regard to case.
    pub fn key(account: &AccountId, name: &str) -> Key {
        Key::folded(&global(account), name)
    }

    /// Where the record of the role that an ARN names would live; `None` when the ARN is no role's.
    pub fn key_of(arn: &Arn) -> Option<Key> {
        let name = arn
            .resource()
            .strip_prefix("role/")
            .filter(|_| arn.service() == "iam")?;
        Some(Self::key(&arn.account()?, name.rsplit('/').next()?))
    }

    /// `arn:aws:iam::ACCOUNT:role/PATH/NAME`.
    pub fn arn(&self) -> Arn {
        Arn::iam(&self.account, &format!("role{}{}", self.path, self.name))
    }

    /// A session of this role as a caller.
    pub fn session(&self, name: &str) -> Principal {
        Principal::RoleSession {
            account: self.account.clone(),
            path: self.path.clone(),
            role: self.name.clone(),
            role_id: self.id.clone(),
            session: name.into(),
        }
    }
}

fn facets(name: &str, created: Timestamp, status: &str) -> Facets {
    Facets {
        display_name: name.into(),
        created,
        modified: created,
        status: status.into(),
    }
}

/// The account that an alias names. Aliases are unique on one engine, so the record lives under nobody's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountAlias {
    pub alias: String,
    pub account: AccountId,
    pub created: Timestamp,
}

impl AccountAlias {
    /// Where the record lives.
    pub fn key(alias: &str) -> Key {
        Key::exact(&global(&nobody()), alias)
    }
}

impl Record for AccountAlias {
    const KIND: &'static str = "iam.account_alias";
    fn facets(&self) -> Facets {
        facets(&self.alias, self.created, "")
    }
}

impl Record for Account {
    const KIND: &'static str = "iam.account";
    fn facets(&self) -> Facets {
        facets(self.id.as_str(), self.created, "")
    }
}

impl Record for AccessKey {
    const KIND: &'static str = "iam.access_key";
    fn facets(&self) -> Facets {
        facets(&self.id, self.created, if self.active { "Active" } else { "Inactive" })
    }
}

impl Record for User {
    const KIND: &'static str = "iam.user";
    fn facets(&self) -> Facets {
        facets(&self.name, self.created, "")
    }
}

impl Record for Role {
    const KIND: &'static str = "iam.role";
    fn facets(&self) -> Facets {
        facets(&self.name, self.created, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_found_by_its_arn_whatever_its_path() {
        let account: AccountId = "111122223333".parse().unwrap();
        for text in [
            "arn:aws:iam::111122223333:role/a/b/Worker",
            "arn:aws:iam::111122223333:role/worker",
        ] {
            assert_eq!(
                Role::key_of(&text.parse().unwrap()),
                Some(Role::key(&account, "WORKER")),
                "{text}"
            );
        }
        for text in [
            "arn:aws:iam::111122223333:user/Worker",
            "arn:aws:s3:::role/x",
            "arn:aws:iam:::role/x",
        ] {
            assert_eq!(Role::key_of(&text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn an_access_key_does_not_print_its_secret() {
        let key = AccessKey {
            id: "AKIAEXAMPLE".into(),
            secret: Secret::new("hidden-value"),
            account: "111122223333".parse().unwrap(),
            owner: KeyOwner::Root,
            active: true,
            created: Timestamp(0),
        };
        assert!(!format!("{key:?}").contains("hidden-value"));
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<AccessKey>(&text).unwrap(), key);
    }
}
