//! Records of CloudWatch Logs: groups, streams and events.

use crate::{Arn, Scope, Timestamp};
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
