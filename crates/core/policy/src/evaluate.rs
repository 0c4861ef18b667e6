//! Evaluation order and decision (IAM-20..26, IAM-30..33).

use crate::document::{AskedAction, DocumentKind, Effect, NamedPolicy};
use crate::explain::{Cited, Denial, Explanation, Outcome, PolicyType, shown};
use crate::pattern::{Lookup, Subject};
use crate::principal::{AccountMeans, Named};
use crate::question::{Authority, Question};
use isolarium_model::{AccountId, Principal};

/// What the resource itself says: its owner and its own policies, of which most resources have one at most.
#[derive(Clone, Debug, Default)]
pub struct ResourceSide {
    /// The account that owns the resource; `None` means the caller's own.
    pub owner: Option<AccountId>,
    pub policies: Vec<NamedPolicy>,
    /// A role's trust: its policy must allow in every case, the same account included (IAM-50).
    pub trust: bool,
    /// Its policy must allow in every case, the same account and its root included, as a KMS key's does: IAM counts where
    /// that policy names the account.
    pub required: bool,
}

/// A question made ready to be held against many statements.
struct Asked<'a> {
    principal: &'a Principal,
    /// Whether a permissions boundary is attached to the principal.
    bounded: bool,
    action: AskedAction<'a>,
    resource: Subject<'a>,
    lookup: &'a Lookup<'a>,
}

/// What the documents of one type say.
#[derive(Default)]
struct Said {
    denied: Option<Cited>,
    /// The strongest way in which an Allow names the caller; [`Named::Direct`] for documents without principals.
    allowed: Option<(Named, Cited)>,
}

impl Asked<'_> {
    fn hear<'d>(
        &self,
        policy_type: PolicyType,
        account: AccountMeans,
        policies: impl IntoIterator<Item = &'d NamedPolicy>,
    ) -> Said {
        let mut said = Said::default();
        for policy in policies {
            let Ok(document) = &policy.policy.document else {
                said.denied.get_or_insert_with(|| Cited {
                    policy_type,
                    policy: policy.name.clone(),
                    index: None,
                    sid: None,
                    span: None,
                });
                continue;
            };
            for (index, statement) in document.speaking_to(self.action.service) {
                let denying = statement.effect == Effect::Deny;
                let named = match &statement.principal {
                    // Whom NotPrincipal exempts, it denies all the same when a boundary is attached (IAM-5).
                    Some(principal) if denying && principal.negated && self.bounded => Some(Named::Direct),
                    Some(principal) => principal.names(self.principal, denying, account),
                    None => Some(Named::Direct),
                };
                let Some(named) = named else { continue };
                let better = said.allowed.as_ref().is_none_or(|(best, _)| named < *best);
                let settled = if denying { said.denied.is_some() } else { !better };
                if settled || !statement.applies(self.action, &self.resource, self.lookup) {
                    continue;
                }
                let cited = Cited {
                    policy_type,
                    policy: policy.name.clone(),
                    index: Some(index),
                    sid: statement.sid.clone(),
                    span: Some(statement.span),
                };
                if denying {
                    said.denied = Some(cited);
                } else {
                    said.allowed = Some((named, cited));
                }
            }
        }
        said
    }
}

/// Answers one question, in the order of IAM-21.
///
/// # Errors
/// The denial, with IAM-60's text and the statement or missing allow that decided.
pub fn decide(authority: &Authority, question: &Question, side: &ResourceSide) -> Result<Explanation, Denial> {
    match Denial::try_from(evaluate(authority, question, side)) {
        Ok(denial) => Err(denial),
        Err(allowed) => Ok(allowed),
    }
}

/// Answers one question, whichever way: what was allowed and by what, what denied, and the first missing allow (IAM-27).
pub fn evaluate(authority: &Authority, question: &Question, side: &ResourceSide) -> Explanation {
    let principal = &authority.principal;
    let lookup = |key: &str| {
        question
            .context
            .get(key)
            .or_else(|| authority.context.get(key))
            .map(Vec::as_slice)
    };
    let action = question.action.to_ascii_lowercase();
    let asked = Asked {
        bounded: authority.boundary.is_some(),
        principal,
        action: AskedAction::new(&action),
        resource: Subject::resource(&question.resource),
        lookup: &lookup,
    };
    let resource_type = if side.is_trust() {
        PolicyType::Trust
    } else {
        PolicyType::Resource
    };
    let gateway = authority.endpoint.as_ref().is_some_and(|endpoint| endpoint.gateway);
    let endpoint_account = if gateway {
        AccountMeans::RootAlone
    } else {
        AccountMeans::Everybody
    };
    let everybody = AccountMeans::Everybody;
    let levels = authority.organization.iter();
    let mut heard = Heard {
        endpoint: asked.hear(
            PolicyType::Endpoint,
            endpoint_account,
            authority.endpoint.as_ref().map(|endpoint| &endpoint.policy),
        ),
        organization: levels
            .map(|level| asked.hear(PolicyType::Organization, everybody, level))
            .collect(),
        resource: asked.hear(resource_type, everybody, &side.policies),
        identity: asked.hear(PolicyType::Identity, everybody, &authority.identity),
        boundary: asked.hear(PolicyType::Boundary, everybody, &authority.boundary),
        session: asked.hear(PolicyType::Session, everybody, authority.session.iter().flatten()),
    };
    let denied_by = heard.denials();
    let mut allowed_by = Vec::new();
    let missing = heard.first_missing(authority, side, resource_type, &mut allowed_by);
    Explanation {
        principal: shown(principal),
        action: question.action.clone(),
        resource: question.resource.clone(),
        outcome: match (denied_by.is_empty(), missing) {
            (false, _) => Outcome::ExplicitDeny,
            (true, Some(_)) => Outcome::ImplicitDeny,
            (true, None) => Outcome::Allowed,
        },
        allowed_by,
        denied_by,
        missing,
    }
}

impl ResourceSide {
    fn is_trust(&self) -> bool {
        let of_trust = |policy: &NamedPolicy| policy.policy.kind == DocumentKind::Trust;
        self.trust || self.policies.iter().any(of_trust)
    }
}

/// What the documents of every type say.
struct Heard {
    endpoint: Said,
    /// By level, from the organisation's root to the account.
    organization: Vec<Said>,
    resource: Said,
    identity: Said,
    boundary: Said,
    session: Said,
}

impl Heard {
    /// (1) of IAM-21: any matching Deny in any applicable policy.
    fn denials(&mut self) -> Vec<Cited> {
        let own = [&mut self.identity, &mut self.boundary, &mut self.session];
        own.into_iter()
            .chain(&mut self.organization)
            .chain([&mut self.endpoint, &mut self.resource])
            .filter_map(|said| said.denied.take())
            .collect()
    }

    /// (2) to (7) of IAM-21: the first policy type that had to allow and did not. Statements that did allow are collected.
    fn first_missing(
        self,
        authority: &Authority,
        side: &ResourceSide,
        resource_type: PolicyType,
        allowed_by: &mut Vec<Cited>,
    ) -> Option<PolicyType> {
        let principal = &authority.principal;
        let mut need = |said: Said, kind| match said.allowed {
            Some((_, cited)) => {
                allowed_by.push(cited);
                None
            }
            None => Some(kind),
        };
        // (2) The endpoint's policy must allow, root included (IAM-20).
        if authority.endpoint.is_some()
            && let Some(missing) = need(self.endpoint, PolicyType::Endpoint)
        {
            return Some(missing);
        }
        // (3) Every level of the organisation must allow, root included. Services stand outside of it.
        if principal.account().is_some() {
            for level in self.organization {
                if let Some(missing) = need(level, PolicyType::Organization) {
                    return Some(missing);
                }
            }
        }
        let foreign = match (&side.owner, principal.account()) {
            (Some(owner), Some(own)) => owner != own,
            (None, Some(_)) => false,
            // Services and the anonymous have no account and so no identity policy: the resource alone decides.
            (_, None) => true,
        };
        // (4) The resource's policy. Across accounts, and for a role's trust, it must allow.
        let named = self.resource.allowed.as_ref().map(|(named, _)| *named);
        let silent = need(self.resource, resource_type);
        if silent.is_some() && (foreign || side.required || side.is_trust()) {
            return silent;
        }
        if principal.account().is_none() || (!foreign && named == Some(Named::Direct)) {
            return None;
        }
        // (5) Identity policies; root needs none, and a role named by the resource in its own account neither.
        let root = matches!(principal, Principal::Root { .. });
        let role_named = !foreign && named == Some(Named::Role);
        let silent = need(self.identity, PolicyType::Identity);
        if silent.is_some() && !root && !role_named {
            return silent;
        }
        // (6) and (7): the boundary and the session can only take away.
        for (present, said, kind) in [
            (authority.boundary.is_some(), self.boundary, PolicyType::Boundary),
            (authority.session.is_some(), self.session, PolicyType::Session),
        ] {
            let silent = need(said, kind);
            if present && silent.is_some() {
                return silent;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
