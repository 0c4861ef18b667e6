//! Who asks: the principal kinds of IAM-20.

use crate::{AccountId, Arn};
use serde::{Deserialize, Serialize};

/// The authenticated caller of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Principal {
    /// The account itself.
    Root { account: AccountId },
    /// An IAM user, by its long-lived key. `path` begins and ends with `/`.
    User {
        account: AccountId,
        path: String,
        name: String,
        id: String,
    },
    /// A session of a role: AssumeRole, or the platform acting for an execution role (IAM-52).
    RoleSession {
        account: AccountId,
        path: String,
        role: String,
        role_id: String,
        session: String,
    },
    /// An AWS service, such as `sagemaker.amazonaws.com`.
    Service { name: String },
    /// Nobody: an unsigned S3 request.
    Anonymous,
}

impl Principal {
    /// The account the principal belongs to; services and the anonymous have none.
    pub fn account(&self) -> Option<&AccountId> {
        match self {
            Self::Root { account } | Self::User { account, .. } | Self::RoleSession { account, .. } => Some(account),
            Self::Service { .. } | Self::Anonymous => None,
        }
    }

    /// The ARN as GetCallerIdentity and denial texts show it (session ARN for roles, IAM-63).
    pub fn arn(&self) -> Option<Arn> {
        let arn = match self {
            Self::Root { account } => Arn::iam(account, "root"),
            Self::User {
                account, path, name, ..
            } => Arn::iam(account, &format!("user{path}{name}")),
            Self::RoleSession {
                account, role, session, ..
            } => format!("arn:aws:sts::{account}:assumed-role/{role}/{session}")
                .parse()
                .ok()?,
            Self::Service { .. } | Self::Anonymous => return None,
        };
        Some(arn)
    }

    /// The value of `aws:PrincipalArn`: the role's ARN for role sessions (IAM-16).
    pub fn principal_arn(&self) -> Option<Arn> {
        match self {
            Self::RoleSession {
                account, path, role, ..
            } => Some(Arn::iam(account, &format!("role{path}{role}"))),
            other => other.arn(),
        }
    }
}
