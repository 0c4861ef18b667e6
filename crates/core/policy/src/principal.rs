//! Who a resource-type policy names (IAM-4, IAM-5, IAM-22, IAM-31).

use isolarium_model::{AccountId, Arn, Principal};

/// `Principal` or `NotPrincipal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrincipalElement {
    pub(crate) negated: bool,
    pub(crate) entries: Vec<PrincipalEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PrincipalEntry {
    /// `"*"` and `{"AWS": "*"}`.
    Everyone,
    /// An account id or its root's ARN.
    Account(AccountId),
    /// A user, role or role session.
    Arn(Arn),
    /// The unique id of a user or role.
    UniqueId(String),
    Service(String),
    /// Federated and canonical users: kept, matched by nobody here.
    Other,
}

impl PrincipalEntry {
    pub(crate) fn parse(kind: &str, text: &str) -> Result<Self, String> {
        let invalid = || format!("Invalid principal in policy: \"{kind}\":\"{text}\"");
        match kind {
            "AWS" if text == "*" => Ok(Self::Everyone),
            "AWS" => {
                if let Ok(account) = text.parse::<AccountId>() {
                    return Ok(Self::Account(account));
                }
                let unique = ["AIDA", "AROA"].iter().any(|prefix| text.starts_with(prefix));
                if unique && text.len() >= 16 && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    return Ok(Self::UniqueId(text.into()));
                }
                let arn: Arn = text.parse().map_err(|_| invalid())?;
                let account = arn.account().ok_or_else(invalid)?;
                // A wildcard within an ARN is refused: only `*` as a whole names everyone (IAM-4).
                if text.contains(['*', '?']) || !matches!(arn.service(), "iam" | "sts") {
                    return Err(invalid());
                }
                let resource = arn.resource();
                match resource.split('/').next() {
                    _ if resource == "root" => Ok(Self::Account(account)),
                    Some("user" | "role" | "assumed-role" | "federated-user") => Ok(Self::Arn(arn)),
                    _ => Err(invalid()),
                }
            }
            "Service" if text.contains('.') && !text.contains(['*', '?']) => Ok(Self::Service(text.into())),
            "Federated" | "CanonicalUser" if !text.is_empty() => Ok(Self::Other),
            _ => Err(invalid()),
        }
    }
}

/// How a policy names the caller; the order is that of IAM-22's table, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Named {
    /// The user, the session or the root itself, or everyone.
    Direct,
    /// The role of the session.
    Role,
    /// The account, which delegates to its identity policies.
    Account,
}

/// What naming an account means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccountMeans {
    /// Every principal of it.
    Everybody,
    /// Its root alone: gateway endpoints (IAM-31).
    RootAlone,
}

impl PrincipalElement {
    /// How the element names the caller; `None` when the statement is not about it. `denying` is whether the statement
    /// denies: then everyone includes AWS services, and an exemption has to name all that the caller is (IAM-5).
    pub(crate) fn names(&self, caller: &Principal, denying: bool, account: AccountMeans) -> Option<Named> {
        if !self.negated {
            return self
                .entries
                .iter()
                .filter_map(|entry| entry.names(caller, denying, account))
                .min();
        }
        let exempt = if denying {
            self.exempts(caller)
        } else {
            // An Allow for everyone but a few reaches no AWS service, as `*` reaches none.
            self.lists(caller) || matches!(caller, Principal::Service { .. })
        };
        (!exempt).then_some(Named::Direct)
    }

    fn lists(&self, caller: &Principal) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.names(caller, true, AccountMeans::Everybody).is_some())
    }

    /// A user is exempt when it and its account are listed, a session when it, its role and its account are.
    fn exempts(&self, caller: &Principal) -> bool {
        if self.entries.contains(&PrincipalEntry::Everyone) {
            return true;
        }
        let listed = |level| {
            self.entries
                .iter()
                .any(|entry| entry.names(caller, true, AccountMeans::Everybody) == Some(level))
        };
        match caller {
            Principal::User { .. } => listed(Named::Direct) && listed(Named::Account),
            Principal::RoleSession { .. } => listed(Named::Direct) && listed(Named::Role) && listed(Named::Account),
            Principal::Root { .. } | Principal::Service { .. } => listed(Named::Direct),
            Principal::Anonymous => false,
        }
    }
}

impl PrincipalEntry {
    fn names(&self, caller: &Principal, denying: bool, means: AccountMeans) -> Option<Named> {
        match self {
            Self::Everyone => {
                let service = matches!(caller, Principal::Service { .. });
                (denying || !service).then_some(Named::Direct)
            }
            Self::Account(account) if caller.account() == Some(account) => match (caller, means) {
                (Principal::Root { .. }, _) => Some(Named::Direct),
                (_, AccountMeans::Everybody) => Some(Named::Account),
                (_, AccountMeans::RootAlone) => None,
            },
            Self::Arn(arn) if caller.arn().as_ref() == Some(arn) => Some(Named::Direct),
            Self::Arn(arn) if caller.principal_arn().as_ref() == Some(arn) => Some(Named::Role),
            Self::UniqueId(id) => match caller {
                Principal::User { id: own, .. } if own == id => Some(Named::Direct),
                Principal::RoleSession { role_id, .. } if role_id == id => Some(Named::Role),
                _ => None,
            },
            Self::Service(service) => match caller {
                Principal::Service { name } if name == service => Some(Named::Direct),
                _ => None,
            },
            Self::Account(_) | Self::Arn(_) | Self::Other => None,
        }
    }
}
