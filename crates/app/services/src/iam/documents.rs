//! Policy texts, compiled once per text.

use crate::context::{Caller, Source};
use isolarium_model::iam::{Attachments, Role, User};
use isolarium_model::{Principal, Timestamp};
use isolarium_policy::question::Context;
use isolarium_policy::{Authority, Compiled, DocumentKind, EndpointPolicy, NamedPolicy};
use isolarium_store::StateStore;
use isolarium_store::state::StoreError;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

/// Compiled texts of one kind kept at most; when full, all are dropped and read again on use.
const MOST_COMPILED: usize = 4_096;

/// By whole text, so that a changed policy is another entry and never a stale one (IAM-26).
type Texts = HashMap<Box<str>, Arc<Compiled>>;

static COMPILED: LazyLock<RwLock<HashMap<DocumentKind, Texts>>> = LazyLock::new(RwLock::default);

/// The compiled form of a text under the name that explanations cite.
pub fn named(name: &str, text: &str, kind: DocumentKind) -> NamedPolicy {
    let known = {
        let all = COMPILED.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&kind).and_then(|texts| texts.get(text)).cloned()
    };
    let policy = known.unwrap_or_else(|| {
        let fresh = Arc::new(Compiled::new(text, kind));
        let mut all = COMPILED.write().unwrap_or_else(PoisonError::into_inner);
        let texts = all.entry(kind).or_default();
        if texts.len() >= MOST_COMPILED {
            texts.clear();
        }
        texts.insert(text.into(), fresh.clone());
        fresh
    });
    NamedPolicy {
        name: name.into(),
        policy,
    }
}

/// Denies everything: what a session keeps whose user or role is gone.
const NOTHING: &str =
    r#"{"Version":"2012-10-17","Statement":{"Sid":"PrincipalIsGone","Effect":"Deny","Action":"*","Resource":"*"}}"#;

/// Everything that decides what a caller may do, read from the store now (IAM-21, IAM-26).
///
/// # Errors
/// When the store cannot be read.
pub fn authority_of(store: &dyn StateStore, caller: &Caller, now: Timestamp) -> Result<Authority, StoreError> {
    let mut authority = Authority::bare(caller.principal.clone(), caller.context(now));
    authority.identity = identity(store, &caller.principal, &mut authority.context)?;
    let session = caller.session.as_ref().and_then(|session| session.policies.as_ref());
    authority.session = session.map(|texts| {
        texts
            .iter()
            .map(|text| named("session policy", text, DocumentKind::Identity))
            .collect()
    });
    if let Source::Endpoint(endpoint) = &caller.source {
        let policy = named(&endpoint.endpoint_id, &endpoint.policy, DocumentKind::Endpoint);
        authority.endpoint = Some(EndpointPolicy {
            policy,
            gateway: endpoint.gateway,
        });
    }
    Ok(authority)
}

fn identity(
    store: &dyn StateStore,
    principal: &Principal,
    context: &mut Context,
) -> Result<Vec<NamedPolicy>, StoreError> {
    let attachments = match principal {
        Principal::User { account, name, id, .. } => store
            .get::<User>(&User::key(account, name))?
            .filter(|stored| stored.record.id == *id)
            .map(|stored| stored.record.attachments),
        Principal::RoleSession {
            account, role, role_id, ..
        } => store
            .get::<Role>(&Role::key(account, role))?
            .filter(|stored| stored.record.id == *role_id)
            .map(|stored| stored.record.attachments),
        Principal::Root { .. } | Principal::Service { .. } | Principal::Anonymous => return Ok(Vec::new()),
    };
    let Some(Attachments { policies, tags }) = attachments else {
        return Ok(vec![named("principal that is gone", NOTHING, DocumentKind::Identity)]);
    };
    for (tag, value) in tags {
        // A session's own tag wins over its role's.
        context
            .entry(format!("aws:principaltag/{}", tag.to_lowercase()))
            .or_insert_with(|| vec![value]);
    }
    Ok(policies
        .iter()
        .map(|(name, text)| named(name, text, DocumentKind::Identity))
        .collect())
}
