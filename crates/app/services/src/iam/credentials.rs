//! Access keys and temporary credentials.
//!
//! Long-lived keys are records. Temporary ones are not kept at all: the session token says what they are, authenticated
//! with the server's master key, and the secret key is derived from the same bytes (IAM-45).

use super::documents;
use crate::audit::Inquiry;
use crate::context::Session;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use isolarium_model::iam::{AccessKey, Account, KeyOwner, Role, User};
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{AccountId, Arn, Principal, Scope, Secret, Timestamp};
use isolarium_policy::evaluate::decide;
use isolarium_policy::{Authority, NamedPolicy, Question, ResourceSide};
use isolarium_store::StateStore;
use isolarium_store::state::StoreError;
use isolarium_wire::sigv4::AuthFault;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The service that assumes execution roles (IAM-50).
pub const SAGEMAKER: &str = "sagemaker.amazonaws.com";

/// First byte of every session token; another layout takes another one.
const TOKEN_VERSION: u8 = 1;
/// Bytes of a token's authenticator.
const TAG: usize = 32;

/// The key that seals session tokens (IAM-45): 32 random bytes that the server keeps in its data directory. Whoever
/// holds it can make credentials of every role, so it never prints.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Wraps 32 bytes that cannot be guessed.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key for one purpose.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        self.mac(purpose, b"").finalize().into_bytes().into()
    }

    /// An authenticator of `data` for one purpose; no purpose's value tells another's.
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    fn mac(&self, purpose: &str, data: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(data);
        mac
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Who an access key speaks for, and the secret its signatures are checked with.
#[derive(Clone, Debug)]
pub struct Credential {
    pub principal: Principal,
    pub secret: Secret,
    /// What temporary credentials carry; `None` for long-lived keys.
    pub session: Option<Session>,
}

/// Where access keys are looked up. Blocks for a store read.
pub trait Identities: Send + Sync {
    /// Who an access key speaks for; `token` is the request's session token (IAM-45).
    ///
    /// # Errors
    /// What is wrong with key or token, or the store's failure.
    fn find(&self, access_key_id: &str, token: Option<&str>, now: Timestamp) -> Result<Credential, ResolveError>;
}

/// The engine's own keys and sessions.
pub struct StoredIdentities {
    pub store: Arc<dyn StateStore>,
    pub master: MasterKey,
}

impl Identities for StoredIdentities {
    fn find(&self, access_key_id: &str, token: Option<&str>, now: Timestamp) -> Result<Credential, ResolveError> {
        resolve(self.store.as_ref(), &self.master, access_key_id, token, now)
    }
}

/// Why an access key is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Unknown, inactive, forged or expired: the caller's fault, in each protocol's words (IAM-47).
    #[error(transparent)]
    Fault(#[from] AuthFault),
    #[error("access keys cannot be read")]
    Store(#[from] StoreError),
}

/// Temporary credentials of a role (IAM-53, CC-80).
#[derive(Clone, Debug)]
pub struct SessionCredentials {
    /// `ASIA` and 16 characters.
    pub access_key_id: String,
    pub secret: Secret,
    pub token: Secret,
    pub expires: Timestamp,
    /// The session, as every request with these credentials will see it.
    pub principal: Principal,
    pub session: Session,
}

/// What a session token says.
#[derive(Serialize, Deserialize)]
struct Sealed {
    key: String,
    principal: Principal,
    #[serde(flatten)]
    session: Session,
}

/// Makes temporary credentials of a role session, or of a user or root for a while. The caller has checked that the
/// session may exist.
pub fn mint_session(
    master: &MasterKey,
    ids: &dyn IdSource,
    principal: Principal,
    session: Session,
) -> SessionCredentials {
    let expires = session.expires;
    let sealed = Sealed {
        key: session_key_id(ids, principal.account()),
        principal,
        session,
    };
    // Serialising strings, numbers and maps of strings to memory has no way to fail.
    let payload = serde_json::to_vec(&sealed).unwrap_or_default();
    let mut bytes = vec![TOKEN_VERSION];
    bytes.extend_from_slice(&payload);
    bytes.extend_from_slice(&master.mac("session token", &payload).finalize().into_bytes());
    SessionCredentials {
        secret: session_secret(master, &payload),
        token: Secret::new(URL_SAFE_NO_PAD.encode(bytes)),
        access_key_id: sealed.key,
        expires,
        principal: sealed.principal,
        session: sealed.session,
    }
}

/// The alphabet of base32; a digit stands for five bits.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// The bits of a temporary key's id that follow the account's.
const CHANCE_BITS: u32 = 39;

/// `ASIA` and 16 digits of base32: a zero bit, 40 bits of the account's number, 39 bits of chance. Temporary keys are not
/// kept, so the id itself tells the account (GetAccessKeyInfo).
fn session_key_id(ids: &dyn IdSource, account: Option<&AccountId>) -> String {
    let account: u128 = account.and_then(|id| id.as_str().parse().ok()).unwrap_or(0);
    let chance = u128::from_str_radix(&ids.hex(10), 16).unwrap_or(0) & ((1 << CHANCE_BITS) - 1);
    let bits = (account << CHANCE_BITS) | chance;
    let digits = (0..16).rev().filter_map(|place| {
        let digit = usize::try_from((bits >> (5 * place)) & 31).ok()?;
        BASE32.get(digit).map(|digit| char::from(*digit))
    });
    "ASIA".chars().chain(digits).collect()
}

/// The account that the id of a temporary key tells.
fn account_in(key_id: &str) -> Option<AccountId> {
    let digits = key_id.strip_prefix("ASIA").filter(|digits| digits.len() == 16)?;
    let bits = digits.bytes().try_fold(0_u128, |bits, digit| {
        let value = BASE32.iter().position(|known| *known == digit)?;
        Some((bits << 5) | u128::try_from(value).ok()?)
    })?;
    format!("{:012}", bits >> CHANCE_BITS).parse().ok()
}

/// The account that an access key belongs to: a long-lived key that is known, or a temporary one whose id names an
/// account of this engine.
///
/// # Errors
/// When the store cannot be read.
pub fn account_of_key(store: &dyn StateStore, key_id: &str) -> Result<Option<AccountId>, StoreError> {
    if let Some(key) = store.get::<AccessKey>(&AccessKey::key(key_id))? {
        return Ok(Some(key.record.account));
    }
    match account_in(key_id) {
        Some(account) => Ok(store
            .get::<Account>(&Account::key(&account))?
            .map(|stored| stored.record.id)),
        None => Ok(None),
    }
}

fn session_secret(master: &MasterKey, payload: &[u8]) -> Secret {
    let bytes = master.mac("session secret", payload).finalize().into_bytes();
    let text = STANDARD.encode(bytes);
    Secret::new(text.get(..40).unwrap_or(&text))
}

/// Opens a token: authentic, of this key, not expired.
fn open(master: &MasterKey, key_id: &str, token: &str, now: Timestamp) -> Result<(Sealed, Secret), AuthFault> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| AuthFault::BadToken)?;
    let (version, rest) = bytes.split_first().ok_or(AuthFault::BadToken)?;
    let (payload, tag) = rest
        .len()
        .checked_sub(TAG)
        .map(|at| rest.split_at(at))
        .ok_or(AuthFault::BadToken)?;
    if *version != TOKEN_VERSION {
        return Err(AuthFault::BadToken);
    }
    // `verify_slice` compares in constant time.
    master
        .mac("session token", payload)
        .verify_slice(tag)
        .map_err(|_| AuthFault::BadToken)?;
    let sealed: Sealed = serde_json::from_slice(payload).map_err(|_| AuthFault::BadToken)?;
    if sealed.key != key_id {
        return Err(AuthFault::BadToken);
    }
    if now >= sealed.session.expires {
        return Err(AuthFault::ExpiredToken);
    }
    Ok((sealed, session_secret(master, payload)))
}

/// Finds out who signs with an access key. A key of a deleted user and a session of a deleted role are nobody's.
///
/// # Errors
/// [`AuthFault::UnknownKey`], [`AuthFault::BadToken`], [`AuthFault::ExpiredToken`], or the store's failure.
pub fn resolve(
    store: &dyn StateStore,
    master: &MasterKey,
    access_key_id: &str,
    token: Option<&str>,
    now: Timestamp,
) -> Result<Credential, ResolveError> {
    if let Some(token) = token {
        let (sealed, secret) = open(master, access_key_id, token, now)?;
        if !still_there(store, &sealed.principal)? {
            return Err(AuthFault::UnknownKey.into());
        }
        return Ok(Credential {
            principal: sealed.principal,
            secret,
            session: Some(sealed.session),
        });
    }
    let found = store.shared::<AccessKey>(&AccessKey::key(access_key_id))?;
    let key = found
        .as_ref()
        .map(|stored| &stored.record)
        .filter(|key| key.active)
        .ok_or(AuthFault::UnknownKey)?;
    let principal = match &key.owner {
        KeyOwner::Root => Principal::Root {
            account: key.account.clone(),
        },
        KeyOwner::User { name } => {
            let user = store.shared::<User>(&User::key(&key.account, name))?;
            user.ok_or(AuthFault::UnknownKey)?.record.principal()
        }
    };
    Ok(Credential {
        principal,
        secret: key.secret.clone(),
        session: None,
    })
}

/// Whether the very user or role still exists; one made anew under the same name is another (IAM-26).
pub(super) fn still_there(store: &dyn StateStore, principal: &Principal) -> Result<bool, StoreError> {
    Ok(match principal {
        Principal::RoleSession {
            account, role, role_id, ..
        } => store
            .shared::<Role>(&Role::key(account, role))?
            .is_some_and(|stored| stored.record.id == *role_id),
        Principal::User { account, name, id, .. } => store
            .shared::<User>(&User::key(account, name))?
            .is_some_and(|stored| stored.record.id == *id),
        Principal::Root { account } => store.shared::<Account>(&Account::key(account))?.is_some(),
        Principal::Service { .. } | Principal::Anonymous => true,
    })
}

/// A session of an execution role that the platform wants (IAM-50, IAM-52).
#[derive(Clone, Copy, Debug)]
pub struct ExecutionRole<'a> {
    pub role_arn: &'a Arn,
    /// Account and region of the job or endpoint: `aws:SourceAccount`.
    pub scope: &'a Scope,
    /// The job or endpoint: `aws:SourceArn`.
    pub source_arn: &'a Arn,
    /// Last part of the session's ARN, such as `SageMaker` (CC-81).
    pub session_name: &'a str,
    /// At most the role's own limit counts.
    pub lasts: Duration,
    /// Takes note of what the role's trust policy said.
    pub inquiry: &'a Inquiry,
}

/// Why a role cannot be assumed. The first text is SM-60's.
#[derive(Debug, thiserror::Error)]
pub enum AssumeError {
    #[error(
        "Could not assume role {0}. Please ensure that the role exists and allows principal \
         'sagemaker.amazonaws.com' to assume the role."
    )]
    Role(Arn),
    #[error("the role cannot be read")]
    Store(#[from] StoreError),
}

/// Checks that the role exists and that its trust policy lets `sagemaker.amazonaws.com` assume it for this job, without
/// making credentials (IAM-50, SM-60).
///
/// # Errors
/// [`AssumeError::Role`] with SM-60's text; the store's failure.
pub fn check_execution_role(
    store: &dyn StateStore,
    now: Timestamp,
    wanted: &ExecutionRole<'_>,
) -> Result<Role, AssumeError> {
    check_service_role(store, now, wanted, SAGEMAKER)
}

/// As [`check_execution_role`], for a role that trusts another service of AWS.
///
/// # Errors
/// As there.
pub fn check_service_role(
    store: &dyn StateStore,
    now: Timestamp,
    wanted: &ExecutionRole<'_>,
    service: &str,
) -> Result<Role, AssumeError> {
    let refused = || AssumeError::Role(wanted.role_arn.clone());
    let key = Role::key_of(wanted.role_arn).ok_or_else(refused)?;
    let role = store.get::<Role>(&key)?.ok_or_else(refused)?.record;
    // A role of another account is never an execution role, and an ARN with another path is another role.
    if role.account != wanted.scope.account || role.arn() != *wanted.role_arn {
        return Err(refused());
    }
    let principal = Principal::Service { name: service.into() };
    let question = Question::on("sts:AssumeRole", wanted.role_arn)
        .with("aws:SourceAccount", wanted.scope.account.as_str())
        .with("aws:SourceArn", wanted.source_arn.as_str())
        .with("aws:RequestedRegion", wanted.scope.region.as_str())
        .with("aws:CurrentTime", super::iso_time(now))
        .with("aws:EpochTime", now.0.div_euclid(1000).to_string())
        .with("aws:PrincipalIsAWSService", "true")
        .with("aws:PrincipalServiceName", service)
        .with("sts:RoleSessionName", wanted.session_name)
        .with("aws:ResourceAccount", role.account.as_str());
    let question = role.attachments.tags.iter().fold(question, |question, (tag, value)| {
        question
            .with(&format!("aws:ResourceTag/{tag}"), value)
            .with(&format!("iam:ResourceTag/{tag}"), value)
    });
    let authority = Authority::bare(principal, isolarium_policy::question::Context::new());
    match decide(&authority, &question, &trust_side(&role)) {
        Ok(answer) => {
            wanted.inquiry.allowed(vec![answer]);
            Ok(role)
        }
        Err(denial) => {
            wanted
                .inquiry
                .denied(&authority, std::slice::from_ref(&question), &denial);
            Err(refused())
        }
    }
}

/// A role as the resource of `sts:AssumeRole`: its trust policy must allow.
pub(crate) fn trust_side(role: &Role) -> ResourceSide {
    ResourceSide {
        owner: Some(role.account.clone()),
        policies: vec![trust_policy(role)],
        trust: true,
        required: false,
    }
}

fn trust_policy(role: &Role) -> NamedPolicy {
    documents::named(
        &format!("trust policy of {}", role.name),
        &role.trust,
        isolarium_policy::DocumentKind::Trust,
    )
}

/// Assumes an execution role as `sagemaker.amazonaws.com` does, and makes its credentials (IAM-52, CC-80..82). What
/// they may do is decided anew at each use, by the role's policies of that moment.
///
/// # Errors
/// As [`check_execution_role`].
pub fn assume_execution_role(
    store: &dyn StateStore,
    master: &MasterKey,
    clock: &dyn Clock,
    ids: &dyn IdSource,
    wanted: &ExecutionRole<'_>,
) -> Result<SessionCredentials, AssumeError> {
    let role = check_execution_role(store, clock.now(), wanted)?;
    let longest = Duration::from_secs(u64::from(role.max_session));
    let now = clock.now();
    let session = Session::lasting(now, now.after(wanted.lasts.min(longest)));
    Ok(mint_session(master, ids, role.session(wanted.session_name), session))
}

#[cfg(test)]
mod tests;
