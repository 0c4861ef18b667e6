//! Questions and answers of the operator socket.

use isolarium_model::AccountId;
use isolarium_runtime::executor::BlockedAttempt;
use serde::{Deserialize, Serialize};

/// Longest line in either direction, bytes.
pub const LONGEST: u64 = 8 << 20;

/// What the operator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// The isolation report of a training job or endpoint, by name (default account and region) or ARN.
    Report { target: String },
    /// Leave to push an image into a repository of the default account, which is made where it is missing.
    Push { repository: String },
    /// A new account with a root key (IAM-68).
    CreateAccount { account: Option<AccountId> },
    /// A new IAM user with a key and perhaps an inline policy (IAM-68).
    CreateUser {
        account: Option<AccountId>,
        name: String,
        policy: Option<String>,
    },
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Report {
        report: Report,
    },
    /// Where and with which authorization token to push, and what images there are called.
    Push {
        endpoint: String,
        authorization_token: String,
        repository_uri: String,
    },
    /// A key, shown this once.
    Key {
        account: AccountId,
        access_key_id: String,
        secret_access_key: String,
    },
    /// It did not work; the text is for the operator.
    Failed {
        reason: String,
    },
}

/// What the containers of one job or endpoint tried to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// ARN of the job or endpoint.
    pub owner_arn: String,
    /// Its containers, with their attempts, oldest first.
    pub workloads: Vec<WorkloadReport>,
}

/// What one container tried to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadReport {
    pub workload: String,
    pub attempts: Vec<BlockedAttempt>,
}
