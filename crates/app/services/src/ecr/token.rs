//! Authorization tokens and download links: values that the engine sealed and that expire.

use crate::context::{Caller, Session};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use isolarium_model::{Principal, Scope, Sha256Digest, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::time::Duration;

/// How long an authorization token lasts, as in ECR.
pub const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);
/// How long a link to a layer lasts.
pub const LINK_LIFE: Duration = Duration::from_secs(3600);
/// The user name that goes with an authorization token.
pub const USER: &str = "AWS";

/// The key that seals tokens. It never prints.
#[derive(Clone)]
pub struct TokenKey([u8; 32]);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Who a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    pub principal: Principal,
    pub scope: Scope,
    pub session: Option<Session>,
    pub expires: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Ticket {
    /// Tells tokens from links.
    #[serde(rename = "use")]
    purpose: String,
    expires: Timestamp,
    scope: Scope,
    principal: Principal,
    session: Option<Session>,
}

#[derive(Serialize, Deserialize)]
struct Link {
    #[serde(rename = "use")]
    purpose: String,
    expires: Timestamp,
    scope: Scope,
    repository: String,
    digest: Sha256Digest,
}

const LOGIN: &str = "ecr-login";
const LAYER: &str = "ecr-layer";

impl TokenKey {
    /// Derives the key from the bytes of the engine's master key.
    pub fn derive(master: &[u8; 32]) -> Self {
        Self(sealed(master, b"isolarium ecr token key v1"))
    }

    fn seal(&self, value: &impl Serialize) -> Option<String> {
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).ok()?);
        let mac = URL_SAFE_NO_PAD.encode(sealed(&self.0, body.as_bytes()));
        Some(format!("{body}.{mac}"))
    }

    fn open<T: DeserializeOwned>(&self, text: &str) -> Option<T> {
        let (body, mac) = text.split_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac(&self.0).chain_update(body).verify_slice(&mac).ok()?; // in constant time
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()
    }

    /// A token for the caller, as GetAuthorizationToken gives it: base64 of `AWS:` and the password. It lasts twelve
    /// hours, but no longer than the caller's own temporary credentials. `None` when the caller cannot be written down.
    pub fn login(&self, caller: &Caller, now: Timestamp) -> Option<(String, Timestamp)> {
        let session = caller.session.as_ref();
        let expires = session
            .map_or(i64::MAX, |session| session.expires.0)
            .min(now.after(TOKEN_LIFE).0);
        let ticket = Ticket {
            purpose: LOGIN.into(),
            expires: Timestamp(expires),
            scope: caller.scope.clone(),
            principal: caller.principal.clone(),
            session: session.cloned(),
        };
        let password = self.seal(&ticket)?;
        Some((STANDARD.encode(format!("{USER}:{password}")), Timestamp(expires)))
    }

    /// Who a password speaks for; `None` when it is not ours, altered, or expired.
    pub fn bearer(&self, password: &str, now: Timestamp) -> Option<Bearer> {
        let ticket: Ticket = self.open(password)?;
        let good = ticket.purpose == LOGIN && now < ticket.expires;
        good.then_some(Bearer {
            principal: ticket.principal,
            scope: ticket.scope,
            session: ticket.session,
            expires: ticket.expires,
        })
    }

    /// A token that lets whoever has it read one layer for an hour.
    pub fn link(&self, scope: &Scope, repository: &str, digest: &Sha256Digest, now: Timestamp) -> Option<String> {
        let expires = now.after(LINK_LIFE);
        let (scope, repository, digest) = (scope.clone(), repository.into(), digest.clone());
        self.seal(&Link {
            purpose: LAYER.into(),
            expires,
            scope,
            repository,
            digest,
        })
    }

    /// Whether a link's token is for this layer and still good; returns where the repository lives.
    pub fn follow(&self, token: &str, repository: &str, digest: &Sha256Digest, now: Timestamp) -> Option<Scope> {
        let link: Link = self.open(token)?;
        let good =
            link.purpose == LAYER && now < link.expires && link.repository == repository && link.digest == *digest;
        good.then_some(link.scope)
    }
}

fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    // A key shorter than HMAC's block is filled up with zeros; so made, it cannot be refused.
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    Hmac::new(&block.into())
}

fn sealed(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    hmac(key).chain_update(text).finalize().into_bytes().into()
}
