//! A second opinion on authorization: cases as plain data, a generator of them, and a naive evaluator.
//!
//! Nothing here uses the engine's code. [`naive`] is written from the language's published rules in the simplest way that
//! can be checked by reading: strings and recursion, nothing compiled, nothing remembered.

pub mod generate;
pub mod naive;
pub mod shrink;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One question with everything that decides it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Case {
    /// What the case is about.
    pub family: String,
    /// `root`, `user:NAME`, `session:ROLE/NAME`, `service:NAME` or `anonymous`; `other:` in front for the second account.
    pub caller: String,
    pub action: String,
    pub resource: String,
    /// The account that owns the resource; `None` is the caller's own.
    pub owner: Option<String>,
    pub identity: Vec<Value>,
    pub boundary: Option<Value>,
    pub session: Option<Vec<Value>>,
    /// By level, from the organisation's root to the account.
    pub organization: Vec<Vec<Value>>,
    pub endpoint: Option<Value>,
    /// Whether the endpoint is a gateway endpoint.
    pub gateway: bool,
    /// The policy of the resource, or the trust policy of a role.
    pub resource_policy: Option<Value>,
    /// Whether the resource is a role and its policy the trust policy.
    pub trust: bool,
    pub context: BTreeMap<String, Vec<String>>,
}

/// What the language knows of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `None` for services and the anonymous.
    pub account: Option<String>,
    /// `root`, `user`, `session`, `service` or `anonymous`.
    pub kind: String,
    /// The user's, role's or service's name.
    pub name: String,
    /// Of a role session.
    pub session: String,
}

/// The account of callers without `other:`.
pub const ACCOUNT: &str = "111122223333";
/// The account of callers with `other:`.
pub const OTHER: &str = "444455556666";
/// The unique id of every user and of every role.
pub const USER_ID: &str = "AIDAEXAMPLEUSER00001";
/// See [`USER_ID`].
pub const ROLE_ID: &str = "AROAEXAMPLEROLE00001";

impl Caller {
    /// Reads [`Case::caller`]; a text of no known form is the anonymous.
    pub fn read(text: &str) -> Self {
        let (text, account) = match text.strip_prefix("other:") {
            Some(rest) => (rest, OTHER),
            None => (text, ACCOUNT),
        };
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let (name, session) = rest.split_once('/').unwrap_or((rest, ""));
        Self {
            account: matches!(kind, "root" | "user" | "session").then(|| account.to_owned()),
            kind: kind.into(),
            name: name.into(),
            session: session.into(),
        }
    }
}
