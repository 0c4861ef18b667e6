//! Questions and answers of the operator socket.

use super::denial::DenialReport;
use crate::proxy::refusals::Listed;
use isolarium_model::sagemaker::flows::OwnerFlows;
use isolarium_model::sagemaker::network::Sight;
use isolarium_model::{AccountId, Timestamp};
use isolarium_reconcile::scheduler::Usage;
use isolarium_runtime::executor::BlockedAttempt;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// Longest line in either direction, bytes.
pub const LONGEST: u64 = 8 << 20;

/// What the operator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// The isolation report of a training job or endpoint, by name (default account and region) or ARN.
    Report { target: String },
    /// What passed in its VPC for a training job or endpoint, by name or ARN.
    Flows { target: String },
    /// Why a request was denied (IAM-27).
    ExplainDenied { request_id: String },
    /// Leave to push an image into a repository, which is made where it is missing; of the default account where none is
    /// named.
    Push {
        account: Option<AccountId>,
        repository: String,
    },
    /// A new account with a root key, and perhaps an alias (IAM-68).
    CreateAccount {
        account: Option<AccountId>,
        alias: Option<String>,
    },
    /// One more root key for an account (IAM-68).
    CreateRootKey { account: AccountId },
    /// Every account.
    Accounts,
    /// Whether the kernel has every VPC as its records say.
    Vpcs,
    /// What runs and what waits.
    Usage,
    /// What the proxy refused since the server started.
    Refusals,
    /// A place in a subnet for a program of the operator's (PL-5), with these groups or the VPC's default group. It lasts as
    /// long as the connection on which this is asked.
    EnterSubnet { subnet: String, groups: Vec<String> },
    /// Makes an algorithm or model package a product of the marketplace (D-13): by ARN, or `algorithm/NAME` or
    /// `model-package/NAME` of the default account and region.
    ImportProduct { target: String, product_id: String },
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
    Flows {
        flows: OwnerFlows,
    },
    /// The denials of a request.
    Denials {
        denials: Vec<DenialReport>,
    },
    /// Where, at which host name and with which authorization token to push, and what images there are called.
    Push {
        endpoint: String,
        host: String,
        authorization_token: String,
        repository_uri: String,
    },
    /// A key, shown this once.
    Key {
        account: AccountId,
        access_key_id: String,
        secret_access_key: String,
    },
    /// Every account, by id.
    Accounts {
        accounts: Vec<AccountLine>,
    },
    /// Every VPC that is on the host or should be.
    Vpcs {
        vpcs: Vec<VpcLine>,
    },
    /// What is reserved on the machine, and who waits.
    Usage {
        usage: Usage,
    },
    /// Where the proxy is, if there is one, and what it refused.
    Refusals {
        proxy: Option<SocketAddr>,
        #[serde(flatten)]
        listed: Listed,
    },
    /// The place that was asked for.
    Entered {
        host: HostLine,
    },
    /// What is a product now.
    Product {
        arn: String,
    },
    /// It did not work; the text is for the operator.
    Failed {
        reason: String,
    },
}

/// An account as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLine {
    pub account: AccountId,
    /// The account's other name, if it has one.
    pub alias: Option<String>,
    pub created: Timestamp,
    /// Ids of the root's access keys.
    pub root_keys: Vec<String>,
    /// Whether it is the account of requests that name none.
    pub default: bool,
}

/// A host of the operator's in a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLine {
    pub account: AccountId,
    pub region: String,
    pub vpc_id: String,
    pub interface_id: String,
    pub address: Ipv4Addr,
    pub name_servers: Vec<Ipv4Addr>,
    /// The domain in which names are looked up.
    pub search: Option<String>,
}

/// A VPC as the kernel has it, beside its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcLine {
    pub vpc_id: String,
    /// What differs, a sentence each; none: the kernel has what the records ask for.
    pub differences: Vec<String>,
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
    /// `source`, `raw_sockets` and `left_out`.
    #[serde(flatten)]
    pub sight: Sight,
    pub attempts: Vec<BlockedAttempt>,
}
