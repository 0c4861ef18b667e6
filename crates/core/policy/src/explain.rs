//! Why a request was or was not allowed: statements that decided, and the text of a denial (IAM-27, IAM-60..63).

use isolarium_model::Principal;
use std::fmt;

/// The kinds of policy that IAM-61 tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyType {
    Identity,
    Resource,
    Endpoint,
    Boundary,
    Session,
    Trust,
}

impl PolicyType {
    /// The words of IAM-61 for a missing allow.
    fn implicit(self) -> &'static str {
        match self {
            Self::Identity => "no identity-based policy allows",
            Self::Resource => "no resource-based policy allows",
            Self::Endpoint => "no VPC endpoint policy allows",
            Self::Boundary => "no permissions boundary allows",
            Self::Session => "no session policy allows",
            Self::Trust => "no role trust policy allows",
        }
    }

    /// The words of IAM-61 for a deny.
    fn explicit(self) -> &'static str {
        match self {
            Self::Identity => "in an identity-based policy",
            Self::Resource => "in a resource-based policy",
            Self::Endpoint => "in a VPC endpoint policy",
            Self::Boundary => "in a permissions boundary",
            Self::Session => "in a session policy",
            Self::Trust => "in the role trust policy",
        }
    }
}

/// A statement that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cited {
    pub policy_type: PolicyType,
    /// The policy's name.
    pub policy: String,
    /// Place of the statement in its document, from 0; `None` when the document cannot be read.
    pub index: Option<usize>,
    pub sid: Option<String>,
}

impl fmt::Display for Cited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} policy {}", self.policy_type, self.policy)?;
        match (&self.sid, self.index) {
            (Some(sid), Some(index)) => write!(f, ", statement {index} ({sid})"),
            (None, Some(index)) => write!(f, ", statement {index}"),
            (_, None) => f.write_str(", which cannot be read"),
        }
    }
}

/// Why a request was allowed: one statement per policy type that had to allow. Empty for the root of the account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    pub allowed_by: Vec<Cited>,
}

/// What stood in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A statement denied.
    Explicit(Box<Cited>),
    /// The first policy type, in IAM-21's order, in which nothing allowed.
    Implicit(PolicyType),
}

/// Why a request was not granted. `Display` is IAM-60's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The caller as IAM-63 names it: the session's ARN for roles.
    pub principal: String,
    pub action: String,
    pub resource: String,
    pub reason: Reason,
}

impl Denial {
    pub(crate) fn new(principal: &Principal, action: &str, resource: &str, reason: Reason) -> Self {
        let name = match principal {
            Principal::Service { name } => name.clone(),
            other => other
                .arn()
                .map_or_else(|| "anonymous".to_owned(), |arn| arn.to_string()),
        };
        Self {
            principal: name,
            action: action.into(),
            resource: resource.into(),
            reason,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            principal,
            action,
            resource,
            reason,
        } = self;
        write!(
            f,
            "User: {principal} is not authorized to perform: {action} on resource: {resource} "
        )?;
        match reason {
            Reason::Explicit(cited) => write!(f, "with an explicit deny {}", cited.policy_type.explicit()),
            Reason::Implicit(kind) => write!(f, "because {} the {action} action", kind.implicit()),
        }
    }
}

impl std::error::Error for Denial {}
