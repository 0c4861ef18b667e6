//! Workloads: one container with its namespace.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// `w-` and 17 lower-case hexadecimal digits. Names every directory, cgroup and shim of one container, and is never
/// used twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadId(Box<str>);

/// The text is not a workload id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a workload id is w- and 17 lower-case hexadecimal digits")]
pub struct BadWorkloadId;

impl FromStr for WorkloadId {
    type Err = BadWorkloadId;
    fn from_str(text: &str) -> Result<Self, BadWorkloadId> {
        let digits = text.strip_prefix("w-").ok_or(BadWorkloadId)?;
        let good = digits.len() == 17 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        good.then(|| Self(text.into())).ok_or(BadWorkloadId)
    }
}

impl TryFrom<String> for WorkloadId {
    type Error = BadWorkloadId;
    fn try_from(text: String) -> Result<Self, BadWorkloadId> {
        text.parse()
    }
}

impl From<WorkloadId> for String {
    fn from(id: WorkloadId) -> Self {
        id.0.into()
    }
}

impl WorkloadId {
    /// The digits as a number.
    pub fn number(&self) -> u128 {
        let digits = self.0.get(2..).unwrap_or_default();
        u128::from_str_radix(digits, 16).unwrap_or_default()
    }

    /// The id as text: safe as one path component.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
