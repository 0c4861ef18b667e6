//! Evaluation order and decision (IAM-20..26, IAM-30..33).

use crate::condition::Lookup;
use crate::document::{DocumentKind, Effect, NamedPolicy};
use crate::explain::{Cited, Denial, Explanation, PolicyType, Reason};
use crate::pattern::Subject;
use crate::principal::{AccountMeans, Named};
use crate::question::{Authority, Question};
use isolarium_model::{AccountId, Principal};

/// What the resource itself says: its owner and, where it has one, its own policy.
#[derive(Clone, Debug, Default)]
pub struct ResourceSide {
    /// The account that owns the resource; `None` means the caller's own.
    pub owner: Option<AccountId>,
    pub policy: Option<NamedPolicy>,
    /// A role's trust: its policy must allow in every case, the same account included (IAM-50).
    pub trust: bool,
}

/// A question made ready to be held against many statements.
struct Asked<'a> {
    principal: &'a Principal,
    action: Vec<char>,
    resource: Subject,
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
            let cite = |index, sid| Cited {
                policy_type,
                policy: policy.name.clone(),
                index,
                sid,
            };
            let Ok(document) = &policy.policy.document else {
                said.denied.get_or_insert_with(|| cite(None, None));
                continue;
            };
            for (index, statement) in document.statements.iter().enumerate() {
                let denying = statement.effect == Effect::Deny;
                let named = match &statement.principal {
                    Some(principal) => principal.names(self.principal, denying, account),
                    None => Some(Named::Direct),
                };
                let Some(named) = named else { continue };
                let better = said.allowed.as_ref().is_none_or(|(best, _)| named < *best);
                let settled = if denying { said.denied.is_some() } else { !better };
                if settled || !statement.applies(&self.action, &self.resource, self.lookup) {
                    continue;
                }
                let cited = cite(Some(index), statement.sid.clone());
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
    let principal = &authority.principal;
    let lookup = |key: &str| {
        question
            .context
            .get(key)
            .or_else(|| authority.context.get(key))
            .map(Vec::as_slice)
    };
    let asked = Asked {
        principal,
        action: question.action.to_ascii_lowercase().chars().collect(),
        resource: Subject::resource(&question.resource),
        lookup: &lookup,
    };
    let trust = side.trust
        || side
            .policy
            .as_ref()
            .is_some_and(|p| p.policy.kind == DocumentKind::Trust);
    let resource_type = if trust { PolicyType::Trust } else { PolicyType::Resource };
    let gateway = authority.endpoint.as_ref().is_some_and(|endpoint| endpoint.gateway);
    let endpoint_account = if gateway {
        AccountMeans::RootAlone
    } else {
        AccountMeans::Everybody
    };
    let everybody = AccountMeans::Everybody;
    let identity = asked.hear(PolicyType::Identity, everybody, &authority.identity);
    let boundary = asked.hear(PolicyType::Boundary, everybody, &authority.boundary);
    let session = asked.hear(PolicyType::Session, everybody, authority.session.iter().flatten());
    let endpoint = asked.hear(
        PolicyType::Endpoint,
        endpoint_account,
        authority.endpoint.as_ref().map(|endpoint| &endpoint.policy),
    );
    let resource = asked.hear(resource_type, everybody, &side.policy);
    let deny = |reason| Err(Denial::new(principal, &question.action, &question.resource, reason));

    // (1) Any matching Deny in any applicable policy.
    let denied = [&identity, &boundary, &session, &endpoint, &resource]
        .into_iter()
        .find_map(|said| said.denied.clone());
    if let Some(cited) = denied {
        return deny(Reason::Explicit(Box::new(cited)));
    }
    let mut given = Explanation::default();
    // (2) The endpoint's policy must allow, root included (IAM-20).
    if authority.endpoint.is_some() {
        match endpoint.allowed {
            Some((_, cited)) => given.allowed_by.push(cited),
            None => return deny(Reason::Implicit(PolicyType::Endpoint)),
        }
    }
    let foreign = match (&side.owner, principal.account()) {
        (Some(owner), Some(own)) => owner != own,
        (None, Some(_)) => false,
        // Services and the anonymous have no account and so no identity policy: the resource alone decides.
        (_, None) => true,
    };
    // (4) The resource's policy. Across accounts, and for a role's trust, it must allow.
    let named = resource.allowed.as_ref().map(|(named, _)| *named);
    if let Some((_, cited)) = resource.allowed {
        given.allowed_by.push(cited);
    } else if foreign || trust {
        return deny(Reason::Implicit(resource_type));
    }
    if principal.account().is_none() || (!foreign && named == Some(Named::Direct)) {
        return Ok(given);
    }
    // (5) Identity policies; root needs none, and a role named by the resource in its own account neither.
    let root = matches!(principal, Principal::Root { .. });
    let role_named = !foreign && named == Some(Named::Role);
    match identity.allowed {
        Some((_, cited)) => given.allowed_by.push(cited),
        None if root || role_named => {}
        None => return deny(Reason::Implicit(PolicyType::Identity)),
    }
    // (6) and (7): the boundary and the session can only take away.
    for (present, said, kind) in [
        (authority.boundary.is_some(), boundary, PolicyType::Boundary),
        (authority.session.is_some(), session, PolicyType::Session),
    ] {
        match said.allowed {
            Some((_, cited)) => given.allowed_by.push(cited),
            None if present => return deny(Reason::Implicit(kind)),
            None => {}
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests;
