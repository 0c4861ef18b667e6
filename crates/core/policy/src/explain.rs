//! Why a request was or was not allowed: statements that decided, and the text of a denial (IAM-27, IAM-60..63).

use isolarium_model::Principal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The kinds of policy that IAM-61 tells apart, and the organisation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyType {
    /// An organisation's guard rail over a whole account, AWS's service control policy.
    Organization,
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
            Self::Organization => "no service control policy allows",
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
            Self::Organization => "in a service control policy",
            Self::Identity => "in an identity-based policy",
            Self::Resource => "in a resource-based policy",
            Self::Endpoint => "in a VPC endpoint policy",
            Self::Boundary => "in a permissions boundary",
            Self::Session => "in a session policy",
            Self::Trust => "in the role trust policy",
        }
    }
}

/// A place in a document's text. Both are counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// A statement that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cited {
    pub policy_type: PolicyType,
    /// The policy's name.
    pub policy: String,
    /// Place of the statement in its document, from 0; `None` when the document cannot be read.
    pub index: Option<usize>,
    pub sid: Option<String>,
    /// Where the statement's text begins and where it has ended; `None` when the document cannot be read.
    pub span: Option<(Position, Position)>,
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

/// The answer to one question, in the words of the policy simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    Allowed,
    ExplicitDeny,
    ImplicitDeny,
}

/// The whole answer to one question: what the audit trail keeps, what an operator is shown for a denial, and what the
/// policy simulation returns (IAM-27).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The caller as IAM-63 names it: the session's ARN for roles.
    pub principal: String,
    pub action: String,
    pub resource: String,
    pub outcome: Outcome,
    /// One statement per policy type that had to allow and did, in IAM-21's order, up to where the decision fell. Empty
    /// for the root of the account.
    pub allowed_by: Vec<Cited>,
    /// Of each policy type the first statement that denies.
    pub denied_by: Vec<Cited>,
    /// The first policy type, in IAM-21's order, in which nothing allowed.
    pub missing: Option<PolicyType>,
}

impl Explanation {
    pub fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allowed
    }
}

/// What stood in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A statement denied.
    Explicit(Box<Cited>),
    /// The first policy type, in IAM-21's order, in which nothing allowed.
    Implicit(PolicyType),
}

/// Why a request was not granted. `Display` is IAM-60's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    pub reason: Reason,
    /// Everything that was weighed.
    pub explanation: Box<Explanation>,
}

/// The caller as IAM-63 names it.
pub(crate) fn shown(principal: &Principal) -> String {
    match principal {
        Principal::Service { name } => name.clone(),
        other => other
            .arn()
            .map_or_else(|| "anonymous".to_owned(), |arn| arn.to_string()),
    }
}

impl TryFrom<Explanation> for Denial {
    type Error = Explanation;

    /// The denial that an explanation tells of; the explanation itself when it allows.
    fn try_from(explanation: Explanation) -> Result<Self, Explanation> {
        let reason = match (explanation.denied_by.first(), explanation.missing) {
            (Some(cited), _) => Reason::Explicit(Box::new(cited.clone())),
            (None, Some(missing)) => Reason::Implicit(missing),
            (None, None) => return Err(explanation),
        };
        Ok(Self {
            reason,
            explanation: Box::new(explanation),
        })
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation {
            principal,
            action,
            resource,
            ..
        } = &*self.explanation;
        write!(
            f,
            "User: {principal} is not authorized to perform: {action} on resource: {resource} "
        )?;
        match &self.reason {
            Reason::Explicit(cited) => write!(f, "with an explicit deny {}", cited.policy_type.explicit()),
            Reason::Implicit(kind) => write!(f, "because {} the {action} action", kind.implicit()),
        }
    }
}

impl std::error::Error for Denial {}
