//! Policy texts, compiled once per text.

use super::aws_managed;
use crate::context::{Caller, Session, Source};
use isolarium_model::iam::{Group, Policies, Policy, Role, User};
use isolarium_model::{Arn, Principal, Timestamp};
use isolarium_policy::question::Keys;
use isolarium_policy::{Address, Authority, Compiled, CompiledCache, DocumentKind, EndpointPolicy, NamedPolicy};
use isolarium_store::StateStore;
use isolarium_store::state::{StoreError, Stored};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

/// Texts whose compiled form is kept, bytes.
const MOST_BYTES: usize = 16 << 20;

/// By content, so that a changed policy is another entry and never a stale one (IAM-26).
static COMPILED: LazyLock<RwLock<CompiledCache>> = LazyLock::new(|| RwLock::new(CompiledCache::new(MOST_BYTES)));

/// The compiled form of a text under the name that explanations cite.
pub fn named(name: &str, text: &str, kind: DocumentKind) -> NamedPolicy {
    derived(name, text, kind, || text.into())
}

/// The same of a document that is made from another text: `from` says everything that it is made of and is no document
/// itself, and `text` makes it where it is not known yet.
pub fn derived<'t>(
    name: &str,
    from: &str,
    kind: DocumentKind,
    text: impl FnOnce() -> std::borrow::Cow<'t, str>,
) -> NamedPolicy {
    let address = Address::of(from, kind);
    let known = COMPILED.read().unwrap_or_else(PoisonError::into_inner).get(&address);
    let policy = known.unwrap_or_else(|| {
        let fresh = Arc::new(Compiled::new(&text(), kind));
        let mut all = COMPILED.write().unwrap_or_else(PoisonError::into_inner);
        all.put(address, from, Arc::clone(&fresh));
        fresh
    });
    NamedPolicy {
        name: name.into(),
        policy,
    }
}

/// Records of managed policies whose compiled form is kept at most; when full, all are dropped and looked up anew on use.
const MOST_RECORDS: usize = 1_024;

/// A record and what its default version compiles to.
type OfRecord = (Arc<Stored<Policy>>, Arc<Compiled>);

/// Compiled forms by the place of a record in memory. The record is held beside it, so that no other can come to lie there.
/// To find a form by its text means to read the text, 6 kB for each of the hundred policies that a user can have.
static OF_RECORDS: LazyLock<RwLock<HashMap<usize, OfRecord>>> = LazyLock::new(RwLock::default);

/// The default version of a managed policy under the name that explanations cite.
fn default_of(name: &str, stored: Arc<Stored<Policy>>) -> NamedPolicy {
    let place = Arc::as_ptr(&stored).addr();
    let known = {
        let all = OF_RECORDS.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&place).map(|(_, policy)| Arc::clone(policy))
    };
    let policy = known.unwrap_or_else(|| {
        let fresh = named(name, &stored.record.default.document, DocumentKind::Identity).policy;
        let mut all = OF_RECORDS.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_RECORDS {
            all.clear();
        }
        all.insert(place, (stored, Arc::clone(&fresh)));
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
    let held = held_by(store, &caller.principal)?;
    let (traits, tags) = (caller.traits(), held.tags);
    let keys = Keys::when_asked(move || {
        let mut keys = traits.context(now);
        for (tag, value) in &tags {
            // A session's own tag wins over its role's.
            keys.entry(format!("aws:principaltag/{}", tag.to_lowercase()))
                .or_insert_with(|| vec![value.clone()]);
        }
        keys
    });
    let mut authority = Authority::bare(caller.principal.clone(), keys);
    authority.identity = held.identity;
    authority.boundary = held.boundary;
    authority.session = match &caller.session {
        Some(session) => narrowing(store, session)?,
        None => None,
    };
    if let Source::Endpoint(endpoint) = &caller.source
        && let Some(text) = &endpoint.policy
    {
        let policy = named(&endpoint.endpoint_id, text, DocumentKind::Endpoint);
        authority.endpoint = Some(EndpointPolicy {
            policy,
            gateway: endpoint.gateway,
        });
    }
    Ok(authority)
}

/// The policies that narrow a session; `None` where none does. A managed one that is gone allows nothing.
fn narrowing(store: &dyn StateStore, session: &Session) -> Result<Option<Vec<NamedPolicy>>, StoreError> {
    if session.policies.is_none() && session.managed.is_empty() {
        return Ok(None);
    }
    let texts = session.policies.iter().flatten();
    let mut found: Vec<NamedPolicy> = texts
        .map(|text| named("session policy", text, DocumentKind::Identity))
        .collect();
    for arn in &session.managed {
        found.extend(managed(store, arn, "session policy ")?);
    }
    Ok(Some(found))
}

/// What a principal's own records say about it.
#[derive(Default)]
pub(super) struct Held {
    pub(super) identity: Vec<NamedPolicy>,
    pub(super) boundary: Option<NamedPolicy>,
    pub(super) tags: BTreeMap<String, String>,
}

/// How often the records of a principal are read again when one of them went away in between.
const TRIES: usize = 4;

pub(super) fn held_by(store: &dyn StateStore, principal: &Principal) -> Result<Held, StoreError> {
    for _ in 0..TRIES {
        if let Some(held) = read(store, principal)? {
            return Ok(held);
        }
    }
    Ok(Held {
        identity: vec![unreadable("policies that change all the time")],
        ..Held::default()
    })
}

/// A document that nobody can read: it denies everything.
fn unreadable(name: &str) -> NamedPolicy {
    named(name, "", DocumentKind::Identity)
}

/// Inline and managed policies, those of the user's groups, boundary and tags (IAM-24, IAM-25). `None` when a record
/// names another that is gone: the one that named it has changed since, and is to be read again.
fn read(store: &dyn StateStore, principal: &Principal) -> Result<Option<Held>, StoreError> {
    let (user, role);
    let (account, attachments, groups) = match principal {
        Principal::User { account, name, id, .. } => {
            user = store.shared::<User>(&User::key(account, name))?;
            let user = user.as_ref().map(|stored| &stored.record).filter(|user| user.id == *id);
            (
                account,
                user.map(|user| &user.attachments),
                user.map(|user| &user.groups),
            )
        }
        Principal::RoleSession {
            account,
            role: name,
            role_id,
            ..
        } => {
            role = store.shared::<Role>(&Role::key(account, name))?;
            let role = role.as_ref().map(|stored| &stored.record);
            let role = role.filter(|role| role.id == *role_id);
            (account, role.map(|role| &role.attachments), None)
        }
        Principal::Root { .. } | Principal::Service { .. } | Principal::Anonymous => return Ok(Some(Held::default())),
    };
    let Some(attachments) = attachments else {
        return Ok(Some(Held {
            identity: vec![named("principal that is gone", NOTHING, DocumentKind::Identity)],
            ..Held::default()
        }));
    };
    let mut identity = Vec::new();
    if !add(store, &attachments.policies, "", &mut identity)? {
        return Ok(None);
    }
    for name in groups.into_iter().flatten() {
        let Some(group) = store.shared::<Group>(&Group::key(account, name))? else {
            return Ok(None);
        };
        let from = format!("group {}: ", group.record.name);
        if !add(store, &group.record.policies, &from, &mut identity)? {
            return Ok(None);
        }
    }
    let boundary = match &attachments.boundary {
        None => None,
        Some(arn) => match managed(store, arn, "")? {
            None => return Ok(None),
            found => found,
        },
    };
    Ok(Some(Held {
        identity,
        boundary,
        tags: attachments.tags.clone(),
    }))
}

/// Adds the policies of one user, group or role; says whether all of them are there.
pub(super) fn add(
    store: &dyn StateStore,
    policies: &Policies,
    from: &str,
    to: &mut Vec<NamedPolicy>,
) -> Result<bool, StoreError> {
    for (name, text) in &policies.inline {
        to.push(named(&format!("{from}{name}"), text, DocumentKind::Identity));
    }
    for arn in &policies.managed {
        let Some(policy) = managed(store, arn, from)? else {
            return Ok(false);
        };
        to.push(policy);
    }
    Ok(true)
}

/// The default version of a managed policy (IAM-25), without a copy of the others.
fn managed(store: &dyn StateStore, arn: &Arn, from: &str) -> Result<Option<NamedPolicy>, StoreError> {
    let name = |policy: &Policy| format!("{from}{arn} {}", policy.default.id());
    if let Some(policy) = aws_managed::find(arn) {
        let document = &policy.default.document;
        return Ok(Some(named(&name(policy), document, DocumentKind::Identity)));
    }
    let Some(key) = Policy::key_of(arn) else {
        return Ok(None);
    };
    let found = store.shared::<Policy>(&key)?.filter(|stored| stored.record.arn == *arn);
    Ok(found.map(|stored| default_of(&name(&stored.record), stored)))
}
