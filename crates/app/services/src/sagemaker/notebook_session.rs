//! CreatePresignedNotebookInstanceUrl, and what becomes of its URLs (SM-47, SM-48, PL-17, PL-18).
//!
//! A URL carries a token that opens the instance once, within five minutes. Who opens it gets a session, whose secret is a
//! cookie. The store has neither, only their digests. A session is worth what its maker may do: each request and each frame
//! that comes with it asks anew whether the maker may make a URL from there now, and whether the container is still the one
//! for which it was made.

use super::notebook::missing;
use super::{find, shapes, stored};
use crate::context::Session;
use crate::{Ctx, Operation, dispatch};
use isolarium_model::record::Facets;
use isolarium_model::sagemaker::{NotebookInstance as Instance, NotebookStatus};
use isolarium_model::{Key, Principal, Record, Scope, Timestamp, WorkloadId};
use isolarium_policy::{Granted, Question};
use isolarium_store::{Batch, Expect, StateStore, StoreError};
use isolarium_wire::ApiError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// How long a URL can be opened (SM-47).
pub const OPENS_WITHIN: Duration = Duration::from_secs(300);
/// How long a session lasts where the request says nothing.
const LASTS: i64 = 43_200;
/// Digits of a token and of a session's secret.
const DIGITS: usize = 64;
/// The action that the maker of a URL needs, now and whenever it is used.
pub const ACTION: &str = "CreatePresignedNotebookInstanceUrl";

/// A URL that was not opened yet, or a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotebookSession {
    /// The instance's name, in lower case.
    pub notebook: String,
    /// The container that ran when the URL was made: another one has other visitors.
    pub workload: WorkloadId,
    /// Who made the URL.
    pub principal: Principal,
    /// What the maker's temporary credentials said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    pub created: Timestamp,
    /// It is worth nothing from then on.
    pub expires: Timestamp,
    /// How long the session of a URL lasts, seconds; none for a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_for: Option<u64>,
}

impl Record for NotebookSession {
    const KIND: &'static str = "sagemaker.notebook_session";

    fn facets(&self) -> Facets {
        Facets::unchanging(self.notebook.clone(), self.created)
    }
}

impl NotebookSession {
    /// Where the record of a secret lies: its name tells nothing of the secret.
    fn key(scope: &Scope, secret: &str) -> Key {
        Key::exact(scope, &hex(&Sha256::digest(secret.as_bytes())))
    }

    /// From when on the maker's own credentials are worth nothing, or the session.
    fn ends(&self) -> Timestamp {
        let credentials = self.session.as_ref().map(|session| session.expires);
        credentials.map_or(self.expires, |credentials| credentials.min(self.expires))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// A text that could be a token or a secret; the store is asked for nothing else.
fn is_secret(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Operation for shapes::CreatePresignedNotebookInstanceUrlInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = ACTION;
    type Output = shapes::CreatePresignedNotebookInstanceUrlOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![question(&ctx.caller.scope, &self.notebook_instance_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let found = find::<Instance>(ctx, &Instance::key(scope, &request.notebook_instance_name))?;
        let instance = found.ok_or_else(missing)?.record;
        let (NotebookStatus::InService, Some(placement)) = (instance.status, instance.run.placement) else {
            return Err(ApiError::validation(format!(
                "Status ({}) not in ([InService]). Unable to create a presigned URL for Notebook Instance ({})",
                instance.status.as_str(),
                instance.arn
            )));
        };
        let lasts = request.session_expiration_duration_in_seconds.unwrap_or(LASTS);
        let (token, created) = (ctx.ids.hex(DIGITS), ctx.clock.now());
        let url = NotebookSession {
            notebook: instance.name.to_ascii_lowercase(),
            workload: placement.workload,
            principal: ctx.caller.principal.clone(),
            session: ctx.caller.session.clone(),
            created,
            expires: created.after(OPENS_WITHIN),
            opens_for: Some(lasts.unsigned_abs()),
        };
        let batch = Batch::default().put(&NotebookSession::key(scope, &token), Expect::Absent, &url);
        ctx.store.commit(batch.map_err(stored)?).map_err(stored)?;
        let notebooks = &ctx.platform.settings().notebooks;
        Ok(shapes::CreatePresignedNotebookInstanceUrlOutput {
            authorized_url: Some(notebooks.url(scope, &instance.name, &token)),
        })
    }
}

/// What the maker of a URL is asked about, when it is made and whenever it is used.
fn question(scope: &Scope, name: &str) -> Question {
    Question::on(&format!("sagemaker:{ACTION}"), &Instance::arn(scope, name))
}

/// Why a visitor is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Unwelcome {
    /// Neither a token nor a session, or one that was used, is over, or is another instance's.
    #[error("the link or the session is not valid any more")]
    Unknown,
    /// The instance is not in service, or its container is another one now.
    #[error("the notebook instance is not in service")]
    Stopped,
    /// The maker of the URL may not make one from where the visitor is.
    #[error("{0}")]
    Denied(String),
    /// The engine's own fault.
    #[error("the session cannot be checked")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for Unwelcome {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

/// Finds the URL or session of a secret, as far as it is for this instance and not over. What it is worth is not known yet.
///
/// # Errors
/// `Unknown`; `Engine`.
pub fn known(
    store: &dyn StateStore,
    now: Timestamp,
    scope: &Scope,
    name: &str,
    secret: &str,
    opened: bool,
) -> Result<NotebookSession, Unwelcome> {
    if !is_secret(secret) {
        return Err(Unwelcome::Unknown);
    }
    let found = store.get::<NotebookSession>(&NotebookSession::key(scope, secret))?;
    let fits = |one: &NotebookSession| one.notebook == name && one.opens_for.is_none() == opened && now < one.ends();
    found.map(|found| found.record).filter(fits).ok_or(Unwelcome::Unknown)
}

/// Asks whether a visitor may be where it wants to be: `ctx.caller` is the maker of the URL, come from where the visitor is.
/// Gives the container back.
///
/// # Errors
/// Why not.
pub fn admitted(ctx: &Ctx<'_>, session: &NotebookSession) -> Result<WorkloadId, Unwelcome> {
    let scope = &ctx.caller.scope;
    if ctx.clock.now() >= session.ends() {
        return Err(Unwelcome::Unknown);
    }
    let found = ctx.store.shared::<Instance>(&Instance::key(scope, &session.notebook))?;
    let runs = found.as_ref().is_some_and(|found| {
        let placement = found.record.run.placement.as_ref();
        found.record.status == NotebookStatus::InService
            && placement.is_some_and(|placement| placement.workload == session.workload)
    });
    if !runs {
        return Err(Unwelcome::Stopped);
    }
    let asked = [question(scope, &session.notebook)];
    match dispatch::grant("sagemaker", (), &asked, ctx) {
        Ok(_) => Ok(session.workload.clone()),
        Err(error) if error.status < 500 => Err(Unwelcome::Denied(error.message)),
        Err(error) => Err(Unwelcome::Engine(Box::new(error))),
    }
}

/// Makes a session of a URL, which cannot be used again: the secret of the cookie, and how long it lasts. Ask [`admitted`]
/// first.
///
/// # Errors
/// `Unknown` when somebody else was faster.
pub fn open(ctx: &Ctx<'_>, token: &str, url: &NotebookSession) -> Result<(String, Duration), Unwelcome> {
    let scope = &ctx.caller.scope;
    let key = NotebookSession::key(scope, token);
    let found = ctx.store.get::<NotebookSession>(&key)?.ok_or(Unwelcome::Unknown)?;
    let (Some(seconds), true) = (url.opens_for, found.record == *url) else {
        return Err(Unwelcome::Unknown);
    };
    let (secret, now, lasts) = (ctx.ids.hex(DIGITS), ctx.clock.now(), Duration::from_secs(seconds));
    let session = NotebookSession {
        created: now,
        expires: now.after(lasts),
        opens_for: None,
        ..url.clone()
    };
    let batch = Batch::default()
        .delete::<NotebookSession>(&key, Expect::At(found.revision))
        .put(&NotebookSession::key(scope, &secret), Expect::Absent, &session)?;
    match ctx.store.commit(batch) {
        Ok(_) => Ok((secret, lasts)),
        Err(StoreError::Conflict { .. }) => Err(Unwelcome::Unknown),
        Err(error) => Err(error.into()),
    }
}

/// Removes what is over; returns how much.
///
/// # Errors
/// When the store fails; what is left goes the next time.
pub fn sweep(store: &dyn StateStore, now: Timestamp) -> Result<usize, StoreError> {
    let mut gone = 0_usize;
    for row in store.all::<NotebookSession>()? {
        if now < row.record.ends() {
            continue;
        }
        let batch = Batch::default().delete::<NotebookSession>(&row.key, Expect::At(row.revision));
        match store.commit(batch) {
            Ok(_) => gone = gone.saturating_add(1),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(gone)
}
