//! Records of CloudWatch Logs: groups, streams and events.

use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The place of a log group: group names are unique per account and region, and their case matters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupName {
    pub scope: Scope,
    pub name: Box<str>,
}

impl GroupName {
    /// Names a group of an account and region.
    pub fn new(scope: &Scope, name: &str) -> Self {
        Self {
            scope: scope.clone(),
            name: name.into(),
        }
    }

    /// The ARN as the API writes it in `logGroupArn`, without the `:*` of the older `arn` member.
    pub fn arn(&self) -> Arn {
        Arn::regional("logs", &self.scope, &format!("log-group:{}", self.name))
    }

    /// The ARN that covers the streams as well: `arn:aws:logs:REGION:ACCOUNT:log-group:NAME:*`.
    pub fn streams_arn(&self) -> Arn {
        Arn::regional("logs", &self.scope, &format!("log-group:{}:*", self.name))
    }

    /// The ARN of one stream of the group.
    pub fn stream_arn(&self, stream: &str) -> Arn {
        Arn::regional(
            "logs",
            &self.scope,
            &format!("log-group:{}:log-stream:{stream}", self.name),
        )
    }
}

/// A log group as described to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogGroup {
    pub name: GroupName,
    pub created: Timestamp,
    /// Days after which events may be removed; `None` keeps them for ever.
    pub retention_days: Option<u32>,
    pub tags: BTreeMap<String, String>,
    /// Bytes of all messages held.
    pub stored_bytes: u64,
}

/// A log stream as described to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStream {
    pub name: Box<str>,
    pub created: Timestamp,
    /// Times of the earliest and latest event; `None` while the stream is empty.
    pub first_event: Option<Timestamp>,
    pub last_event: Option<Timestamp>,
    pub last_ingestion: Option<Timestamp>,
}

/// One line of a log, with the time it was captured (CC-92).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEvent {
    pub timestamp: Timestamp,
    pub message: String,
}

/// What AWS's services may write into the log groups of an account and region, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourcePolicy {
    pub document: String,
    pub updated: Timestamp,
}

/// All resource policies of an account and region by name. One record, so that their number has a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourcePolicies {
    pub policies: BTreeMap<String, ResourcePolicy>,
}

impl ResourcePolicies {
    /// The one key in its account and region.
    pub fn key(scope: &Scope) -> Key {
        Key::exact(scope, "account")
    }
}

impl Record for ResourcePolicies {
    const KIND: &'static str = "logs.resource-policies";
    fn facets(&self) -> Facets {
        let times = || self.policies.values().map(|policy| policy.updated);
        Facets {
            display_name: String::new(),
            created: times().min().unwrap_or(Timestamp(0)),
            modified: times().max().unwrap_or(Timestamp(0)),
            status: String::new(),
        }
    }
}
