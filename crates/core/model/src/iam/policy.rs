//! Managed policies with their versions (IAM-25).

use super::{facets, global};
use crate::record::Facets;
use crate::{AccountId, Arn, Key, Record, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One version of a managed policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// From 1, never used twice within a policy.
    pub number: u32,
    /// JSON text.
    pub document: String,
    pub created: Timestamp,
}

impl PolicyVersion {
    /// `v` and the number, as the API names it.
    pub fn id(&self) -> String {
        format!("v{}", self.number)
    }
}

/// A managed policy: a customer's, kept in the store, or one that AWS's name stands for (IAM-56), kept in the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `arn:aws:iam::ACCOUNT:policy/PATH/NAME`; `aws` stands in the account's place of AWS's own.
    pub arn: Arn,
    /// `ANPA` and 17 characters, never used twice.
    pub id: String,
    pub created: Timestamp,
    /// When a version was last made, chosen or deleted.
    pub updated: Timestamp,
    pub description: Option<String>,
    /// The version that counts.
    pub default: PolicyVersion,
    /// All others, oldest first.
    #[serde(default)]
    pub others: Vec<PolicyVersion>,
    /// Number of the version to be made next.
    pub next_version: u32,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Policy {
    /// The ARN of a customer's policy. `path` begins and ends with `/`.
    pub fn arn_of(account: &AccountId, path: &str, name: &str) -> Arn {
        Arn::iam(account, &format!("policy{path}{name}"))
    }

    /// Where the record of the customer's policy that an ARN names would live; `None` when the ARN is none's. Names are
    /// unique without regard to case and path.
    pub fn key_of(arn: &Arn) -> Option<Key> {
        let (_, name) = split(arn)?;
        Some(Key::folded(&global(&arn.account()?), name))
    }

    /// The name, without the path.
    pub fn name(&self) -> &str {
        split(&self.arn).map_or("", |(_, name)| name)
    }

    /// Begins and ends with `/`.
    pub fn path(&self) -> &str {
        split(&self.arn).map_or("/", |(path, _)| path)
    }

    /// A version by its id, such as `v2`.
    pub fn version(&self, id: &str) -> Option<&PolicyVersion> {
        self.versions().into_iter().find(|version| version.id() == id)
    }

    /// All versions, newest first.
    pub fn versions(&self) -> Vec<&PolicyVersion> {
        let mut all: Vec<_> = self.others.iter().chain([&self.default]).collect();
        all.sort_by_key(|version| std::cmp::Reverse(version.number));
        all
    }

    /// Adds a version and makes it the default if asked.
    pub fn add(&mut self, document: &str, as_default: bool, now: Timestamp) -> PolicyVersion {
        let version = PolicyVersion {
            number: self.next_version,
            document: document.into(),
            created: now,
        };
        self.next_version += 1;
        self.updated = now;
        self.others.push(version.clone());
        if as_default {
            self.choose(&version.id(), now);
        }
        version
    }

    /// Makes another version the default; says whether there is such a version.
    pub fn choose(&mut self, id: &str, now: Timestamp) -> bool {
        if self.default.id() == id {
            return true;
        }
        let Some(at) = self.others.iter().position(|version| version.id() == id) else {
            return false;
        };
        let chosen = self.others.remove(at);
        let former = std::mem::replace(&mut self.default, chosen);
        self.others.push(former);
        self.others.sort_by_key(|version| version.number);
        self.updated = now;
        true
    }

    /// Removes a version that is not the default; says whether there was one.
    pub fn remove(&mut self, id: &str, now: Timestamp) -> bool {
        let before = self.others.len();
        self.others.retain(|version| version.id() != id);
        let removed = self.others.len() < before;
        if removed {
            self.updated = now;
        }
        removed
    }
}

/// Path and name of a policy's ARN.
fn split(arn: &Arn) -> Option<(&str, &str)> {
    if arn.service() != "iam" {
        return None;
    }
    let rest = arn.resource().strip_prefix("policy")?;
    let (path, name) = rest.split_at_checked(rest.rfind('/')? + 1)?;
    (rest.starts_with('/') && !name.is_empty()).then_some((path, name))
}

impl Record for Policy {
    const KIND: &'static str = "iam.policy";
    fn facets(&self) -> Facets {
        Facets {
            modified: self.updated,
            ..facets(self.name(), self.created, "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(arn: &str) -> Policy {
        Policy {
            arn: arn.parse().unwrap(),
            id: "ANPAEXAMPLE".into(),
            created: Timestamp(0),
            updated: Timestamp(0),
            description: None,
            default: PolicyVersion {
                number: 1,
                document: "one".into(),
                created: Timestamp(0),
            },
            others: Vec::new(),
            next_version: 2,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn a_policy_is_found_by_its_arn_whatever_its_path_and_case() {
        let deep = policy("arn:aws:iam::111122223333:policy/a/b/Read");
        let flat = policy("arn:aws:iam::111122223333:policy/READ");
        assert_eq!((deep.path(), deep.name()), ("/a/b/", "Read"));
        assert_eq!((flat.path(), flat.name()), ("/", "READ"));
        assert_eq!(Policy::key_of(&deep.arn), Policy::key_of(&flat.arn));
        for other in [
            "arn:aws:iam::aws:policy/ReadOnlyAccess",
            "arn:aws:iam::111122223333:role/Read",
            "arn:aws:iam::111122223333:policy",
            "arn:aws:iam::111122223333:policy/",
            "arn:aws:iam::111122223333:policyx/Read",
            "arn:aws:s3::111122223333:policy/Read",
        ] {
            assert_eq!(Policy::key_of(&other.parse().unwrap()), None, "{other}");
        }
    }

    /// Proves: IAM-25
    #[test]
    fn the_default_version_is_always_one_of_the_versions() {
        let mut policy = policy("arn:aws:iam::111122223333:policy/p");
        let ids = |policy: &Policy| policy.versions().iter().map(|v| v.id()).collect::<Vec<_>>();
        policy.add("two", false, Timestamp(2));
        policy.add("three", true, Timestamp(3));
        assert_eq!(policy.default.document, "three");
        assert_eq!(ids(&policy), ["v3", "v2", "v1"]);
        assert!(!policy.remove("v3", Timestamp(4)), "the default stays");
        assert!(policy.remove("v2", Timestamp(4)) && !policy.remove("v2", Timestamp(5)));
        assert!(policy.choose("v1", Timestamp(6)) && !policy.choose("v2", Timestamp(7)));
        assert_eq!(
            (policy.default.document.as_str(), policy.updated),
            ("one", Timestamp(6))
        );
        assert_eq!(
            policy.add("four", false, Timestamp(8)).id(),
            "v4",
            "a number is never used twice"
        );
        assert_eq!(ids(&policy), ["v4", "v3", "v1"]);
    }
}
