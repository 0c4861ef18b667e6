//! The OCI distribution endpoint (registry HTTP API v2) over the engine's registry (IAM-67).
//!
//! Clients log in with the token of `ecr:GetAuthorizationToken`; every request is then one ECR action that IAM decides.
//! As in ECR, pushing does not make a repository, the catalog is refused and blobs go by garbage collection. Blobs
//! stream in both directions; only manifests, which are bounded, are held in memory.

mod answer;
mod blob;
mod event;
mod manifest;
mod route;
mod upload;

#[cfg(test)]
mod tests;

use crate::http::Body;
use answer::{Answer, Refusal};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use event::Seen;
use http::{Request, Response, header};
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{Scope, Timestamp};
use isolarium_policy::Question;
use isolarium_services::ecr::{Registry, RegistryError, Shelf, token};
use isolarium_services::{Caller, Source};
use isolarium_store::{AuditTrail, StateStore};
use route::{Method, Route};
use std::sync::Arc;

pub use answer::BodyError;

/// Asks IAM whether a caller may; the wiring implements it over the policy engine.
pub trait Permit: Send + Sync {
    /// `Ok` when every question is allowed.
    ///
    /// # Errors
    /// The denial's text, or why it could not be decided (which denies as well).
    fn permit(&self, caller: &Caller, questions: &[Question]) -> Result<(), Denied>;
}

/// Why a caller may not.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// IAM's text for the caller.
    #[error("{0}")]
    Policy(String),
    #[error("the request could not be authorized")]
    Undecided(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How a request came in.
#[derive(Clone, Debug)]
pub struct Origin {
    pub source: Source,
    /// What the answer's header tells, too.
    pub request_id: String,
}

/// What the endpoint works with.
pub struct Distribution {
    pub registry: Arc<Registry>,
    pub store: Arc<dyn StateStore>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    pub permit: Arc<dyn Permit>,
    pub audit: Arc<AuditTrail>,
}

/// Answers one request below `/v2/`. `scope` is the registry it is for: the account and region of the host name, or the
/// default ones where the request came by address.
pub async fn serve<B>(
    request: Request<B>,
    scope: Scope,
    origin: Origin,
    distribution: Arc<Distribution>,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    let head_only = request.method() == http::Method::HEAD;
    let changes = !matches!(*request.method(), http::Method::GET | http::Method::HEAD);
    let mut seen = Seen::of(&request, scope.clone(), origin.clone());
    let outcome = match distribution.audit.ready() {
        Err(down) if changes => Err(Refusal::unrecorded(&down)),
        _ => handle(request, scope, origin, Arc::clone(&distribution), &mut seen).await,
    };
    let told = seen.tell(&distribution, outcome.as_ref().err(), changes).await;
    let answer = match (outcome, told) {
        (Ok(_), Err(down)) if changes => Refusal::unrecorded(&down).into_answer(),
        (Ok(answer), _) => answer,
        (Err(refusal), _) => refusal.into_answer(),
    };
    answer.into_response(head_only)
}

async fn handle<B>(
    request: Request<B>,
    scope: Scope,
    origin: Origin,
    distribution: Arc<Distribution>,
    seen: &mut Seen,
) -> Result<Answer, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    let (head, body) = request.into_parts();
    let route = Route::parse(&head);
    let now = distribution.clock.now();
    if let (Ok(Route::Blob { repository, digest }), Method::Read, Some(link)) =
        (&route, Method::of(&head), route::parameter(&head, "link"))
    {
        let followed = distribution.registry.key.follow(&link, repository, digest, now);
        let scope = followed.ok_or_else(|| Refusal::denied("The link is not valid or has expired."))?;
        let visit = Visit {
            distribution,
            scope,
            head,
            now,
        };
        return blob::read(&visit, repository, digest).await;
    }
    let caller = authenticate(&head, origin, &distribution, now)?;
    seen.caller = Some(caller.clone());
    // Only after the question who asks: strangers are not told which paths exist.
    let route = route?;
    let questions = route.questions(&scope, &head)?;
    seen.asked(&questions);
    let visit = Visit {
        distribution,
        scope,
        head,
        now,
    };
    visit.permit(caller, questions).await?;
    match route {
        Route::Root => Ok(Answer::json(200, &serde_json::json!({}))),
        Route::Tags { repository } => manifest::tags(&visit, &repository).await,
        Route::Manifest { repository, version } => manifest::serve(&visit, &repository, version, body).await,
        Route::Blob { repository, digest } => blob::read(&visit, &repository, &digest).await,
        Route::Uploads { repository } => upload::begin(&visit, &repository, body).await,
        Route::Upload { repository, id } => upload::go_on(&visit, &repository, &id, body).await,
    }
}

/// One request on its way.
struct Visit {
    distribution: Arc<Distribution>,
    scope: Scope,
    head: http::request::Parts,
    now: Timestamp,
}

impl Visit {
    /// Runs work on the registry where blocking is allowed.
    async fn registry<T: Send + 'static>(
        &self,
        repository: &str,
        work: impl FnOnce(&Shelf<'_>) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (distribution, scope, now) = (Arc::clone(&self.distribution), self.scope.clone(), self.now);
        let done = tokio::task::spawn_blocking(move || {
            let store = &*distribution.store;
            work(&Shelf {
                registry: &distribution.registry,
                store,
                scope: &scope,
                now,
            })
        });
        match done.await {
            Ok(outcome) => outcome.map_err(|error| Refusal::registry(error, repository, &self.scope)),
            Err(error) => Err(Refusal::internal(&error)),
        }
    }

    async fn permit(&self, caller: Caller, questions: Vec<Question>) -> Result<(), Refusal> {
        let permit = Arc::clone(&self.distribution.permit);
        match tokio::task::spawn_blocking(move || permit.permit(&caller, &questions)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Denied::Policy(text))) => Err(Refusal::denied(&text)),
            Ok(Err(error @ Denied::Undecided(_))) => Err(Refusal::internal(&error)),
            Err(error) => Err(Refusal::internal(&error)),
        }
    }
}

/// Who asks, by the token that came with the request: as the password of user `AWS`, or as a bearer.
fn authenticate(
    head: &http::request::Parts,
    origin: Origin,
    distribution: &Distribution,
    now: Timestamp,
) -> Result<Caller, Refusal> {
    let text = |name| {
        head.headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    let unauthorized = || Refusal::unauthorized(&distribution.registry.endpoint);
    let (kind, value) = text(header::AUTHORIZATION)
        .and_then(|value| value.split_once(' '))
        .ok_or_else(unauthorized)?;
    let decoded = STANDARD
        .decode(value.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let with_user = decoded
        .as_deref()
        .and_then(|text| text.split_once(':'))
        .filter(|(user, _)| *user == token::USER);
    let password = match (with_user, kind.to_ascii_lowercase().as_str()) {
        (Some((_, password)), "basic" | "bearer") => password,
        (None, "bearer") => value.trim(),
        _ => return Err(unauthorized()),
    };
    let bearer = distribution
        .registry
        .key
        .bearer(password, now)
        .ok_or_else(unauthorized)?;
    Ok(Caller {
        principal: bearer.principal,
        scope: bearer.scope,
        source: origin.source,
        session: bearer.session,
        request_id: origin.request_id,
        user_agent: text(header::USER_AGENT).unwrap_or_default().into(),
        inquiry: Default::default(),
    })
}
