//! The container-credentials endpoint: `GET /v2/credentials/<token>` at 169.254.170.2 (CC-80..82).
//!
//! A caller is known by its place, which only one container holds (the platform network and VPCs refuse every other source
//! address), and by the unguessable token in its environment. Both must belong to the same workload.

#[cfg(test)]
mod tests;

use crate::http::body::{self, Body};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use isolarium_model::ec2::{self, NetworkInterface};
use isolarium_model::sagemaker::{
    AddressLease, Endpoint, NotebookInstance, Placement, ProcessingJob, TrainingJob, TransformJob,
};
use isolarium_model::time::Clock;
use isolarium_model::{Arn, Key, Record, Scope, Secret, Timestamp, WorkloadId};
use isolarium_store::{StateStore, StoreError};
use serde::Serialize;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PATH: &str = "/v2/credentials/";

/// A session of an execution role.
#[derive(Clone, Debug)]
pub struct Session {
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub token: Secret,
    pub expires: Timestamp,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The role is gone or does not trust the platform any more (IAM-52).
    #[error("the role cannot be assumed: {0}")]
    Role(String),
    #[error("the session could not be made")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Makes a session of an execution role for one job or endpoint, asking its trust policy each time.
pub type Assume = Arc<dyn Fn(&Scope, &Arn, &Arn, Duration) -> Result<Session, SessionError> + Send + Sync>;

/// How long credentials live, and when new ones are handed out.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    pub lifetime: Duration,
    pub refresh_before: Duration,
}

/// The endpoint.
pub struct Credentials {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    assume: Assume,
    lifetimes: Lifetimes,
    handed_out: Mutex<HashMap<WorkloadId, Session>>,
}

/// What a client reads.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    expiration: String,
    role_arn: &'a str,
}

/// Where a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// This address of the platform network.
    Platform(Ipv4Addr),
    /// This network interface; the key of its record.
    Interface(Key),
    /// A place that no container has.
    Nobody,
}

/// A place with the one workload that holds it.
struct Held {
    workload: WorkloadId,
    address: Ipv4Addr,
    owner: Key,
    owner_arn: Arn,
}

/// The container that asks.
struct Holder {
    workload: WorkloadId,
    scope: Scope,
    owner_arn: Arn,
    role_arn: Arn,
}

impl Credentials {
    /// An endpoint that knows containers from `store`.
    pub fn new(store: Arc<dyn StateStore>, clock: Arc<dyn Clock>, assume: Assume, lifetimes: Lifetimes) -> Self {
        Self {
            store,
            clock,
            assume,
            lifetimes,
            handed_out: Mutex::default(),
        }
    }

    /// As [`Self::answer`], on a thread that may block.
    pub async fn serve<B: Send + 'static>(self: Arc<Self>, from: Asker, request: Request<B>) -> Response<Body> {
        let answer = tokio::task::spawn_blocking(move || self.answer(&from, &request)).await;
        answer.unwrap_or_else(|lost| {
            tracing::error!(error = %lost, "the credentials endpoint failed");
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        })
    }

    /// Answers one request. Blocks for a store read or two.
    pub fn answer<B>(&self, from: &Asker, request: &Request<B>) -> Response<Body> {
        if request.method() != Method::GET {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered");
        }
        // One answer for every wrong caller: nothing tells a guesser how near it was.
        let nothing = || refusal(StatusCode::NOT_FOUND, "no credentials here");
        let Some(token) = request.uri().path().strip_prefix(PATH) else {
            return nothing();
        };
        let failed = |error: &(dyn std::error::Error + 'static)| {
            tracing::error!(?from, error, "credentials could not be handed out");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the credentials could not be made")
        };
        let holder = match self.holder(from, token) {
            Ok(Some(holder)) => holder,
            Ok(None) => return nothing(),
            Err(error) => return failed(&error),
        };
        match self.session(&holder) {
            Ok(session) => document(&session, &holder.role_arn),
            Err(error @ SessionError::Role(_)) => {
                tracing::warn!(owner = %holder.owner_arn, %error, "no credentials for a container");
                refusal(StatusCode::FORBIDDEN, "the execution role cannot be assumed")
            }
            Err(error) => failed(&error),
        }
    }

    fn holder(&self, from: &Asker, token: &str) -> Result<Option<Holder>, StoreError> {
        let Some(held) = self.held(from)? else {
            return Ok(None);
        };
        let role_arn = match held.owner_arn.resource().split_once('/') {
            Some(("training-job", _)) => {
                let job = self.owner::<TrainingJob>(&held.owner)?;
                job.and_then(|job| job.role_of(&held, token))
            }
            Some(("processing-job", _)) => {
                let job = self.owner::<ProcessingJob>(&held.owner)?;
                job.and_then(|job| job.role_of(&held, token))
            }
            Some(("transform-job", _)) => {
                let job = self.owner::<TransformJob>(&held.owner)?;
                job.and_then(|job| job.role_of(&held, token))
            }
            Some(("notebook-instance", _)) => {
                let notebook = self.owner::<NotebookInstance>(&held.owner)?;
                notebook.and_then(|notebook| notebook.role_of(&held, token))
            }
            Some(("endpoint", _)) => {
                let endpoint = self.owner::<Endpoint>(&held.owner)?;
                endpoint.and_then(|endpoint| endpoint.role_of(&held, token))
            }
            _ => None,
        };
        Ok(role_arn.map(|role_arn| Holder {
            workload: held.workload,
            scope: held.owner.scope,
            owner_arn: held.owner_arn,
            role_arn,
        }))
    }

    fn held(&self, from: &Asker) -> Result<Option<Held>, StoreError> {
        match from {
            Asker::Nobody => Ok(None),
            Asker::Platform(address) => {
                let Ok(key) = AddressLease::key(*address) else {
                    return Ok(None);
                };
                let lease = self.owner::<AddressLease>(&key)?;
                Ok(lease.and_then(|lease| {
                    Some(Held {
                        workload: lease.workload,
                        address: *address,
                        owner: lease.owner,
                        owner_arn: lease.owner_arn.parse().ok()?,
                    })
                }))
            }
            Asker::Interface(key) => Ok(self.owner::<NetworkInterface>(key)?.and_then(held_by)),
        }
    }

    fn owner<R: Record>(&self, key: &Key) -> Result<Option<R>, StoreError> {
        Ok(self.store.get::<R>(key)?.map(|stored| stored.record))
    }

    fn session(&self, holder: &Holder) -> Result<Session, SessionError> {
        let now = self.clock.now();
        let fresh = |session: &Session| session.expires > now.after(self.lifetimes.refresh_before);
        let handed_out = || self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = handed_out().get(&holder.workload).filter(|session| fresh(session)) {
            return Ok(session.clone());
        }
        let session = (self.assume)(
            &holder.scope,
            &holder.role_arn,
            &holder.owner_arn,
            self.lifetimes.lifetime,
        )?;
        let mut all = handed_out();
        all.retain(|_, session| session.expires > now);
        all.insert(holder.workload.clone(), session.clone());
        Ok(session)
    }
}

/// A record that runs containers under execution roles.
trait HoldsCredentials {
    /// The execution role of the container in this place, if it has this token.
    fn role_of(&self, held: &Held, token: &str) -> Option<Arn>;
}

impl HoldsCredentials for TrainingJob {
    fn role_of(&self, held: &Held, token: &str) -> Option<Arn> {
        let mut all = self.run.placements();
        all.any(|placement| is_holder(placement, held, token))
            .then(|| self.spec.role_arn.clone())
    }
}

impl HoldsCredentials for ProcessingJob {
    fn role_of(&self, held: &Held, token: &str) -> Option<Arn> {
        let mut all = self.run.placements();
        all.any(|placement| is_holder(placement, held, token))
            .then(|| self.spec.role_arn.clone())
    }
}

impl HoldsCredentials for TransformJob {
    fn role_of(&self, held: &Held, token: &str) -> Option<Arn> {
        let mut own = self.placements();
        let is_own = own.any(|placement| is_holder(placement, held, token));
        is_own.then(|| self.spec.model.role_arn.clone())
    }
}

impl HoldsCredentials for NotebookInstance {
    fn role_of(&self, held: &Held, token: &str) -> Option<Arn> {
        let is_own = self.placements().any(|placement| is_holder(placement, held, token));
        is_own.then(|| self.spec.role_arn.clone())
    }
}

impl HoldsCredentials for Endpoint {
    fn role_of(&self, held: &Held, token: &str) -> Option<Arn> {
        let serving = self
            .active
            .iter()
            .chain(&self.pending)
            .flat_map(|fleet| fleet.instances());
        let serving = serving.map(|(variant, instance)| (&instance.placement, &variant.model.role_arn));
        let leaving = self
            .retiring
            .iter()
            .map(|retiring| (&retiring.instance.placement, &retiring.role_arn));
        serving
            .chain(leaving)
            .find(|(placement, _)| is_holder(placement, held, token))
            .map(|(_, role_arn)| role_arn.clone())
    }
}

/// The workload that a network interface was made for, where that is a container with a way out.
fn held_by(interface: NetworkInterface) -> Option<Held> {
    let requester = interface.requester?;
    match interface.holder {
        ec2::Holder::Container(workload) => Some(Held {
            workload,
            address: interface.primary,
            owner: requester.owner?,
            owner_arn: requester.owner_arn?.parse().ok()?,
        }),
        _ => None,
    }
}

fn is_holder(placement: &Placement, held: &Held, token: &str) -> bool {
    let own = placement.credentials_path();
    let own_token = own.as_deref().and_then(|path| path.strip_prefix(PATH));
    placement.workload == held.workload
        && placement.address() == Some(held.address)
        && own_token.is_some_and(|own| same(own, token))
}

/// Comparison whose time tells nothing about where the texts differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (x, y)| differs | (x ^ y)) == 0
}

fn document(session: &Session, role_arn: &Arn) -> Response<Body> {
    let expires = jiff::Timestamp::from_millisecond(session.expires.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let document = Document {
        access_key_id: &session.access_key_id,
        secret_access_key: session.secret_access_key.expose(),
        token: session.token.expose(),
        expiration: expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        role_arn: role_arn.as_str(),
    };
    json(StatusCode::OK, serde_json::to_vec(&document).unwrap_or_default())
}

fn refusal(status: StatusCode, text: &str) -> Response<Body> {
    json(
        status,
        serde_json::json!({ "code": status.as_u16().to_string(), "message": text })
            .to_string()
            .into_bytes(),
    )
}

fn json(status: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
