//! From a request to its answer: route, authenticate, decode, run, encode. Whatever goes wrong is answered in the
//! language of the request; nothing in here can end the process.

use super::authenticate::{Acceptance, Authentic, Claimed};
use super::body::{self, Body};
use super::listen::{Answering, Handler, Peer};
use super::receive::{self, ReceiveError};
use super::route::{self, Only, Route};
use crate::invoke::{Invocation, Proxy};
use crate::names::{self, HostMeaning};
use crate::notebook::NotebookPart;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{AccountId, Region, Scope};
use isolarium_policy::ResourceSide;
use isolarium_services::audit::{self, Ended, Inquiry, Stranger, authorize};
use isolarium_services::ecr::Registry;
use isolarium_services::iam::credentials::{Identities, MasterKey, ResolveError};
use isolarium_services::platform::AsRole;
use isolarium_services::sagemaker::invocation_question;
use isolarium_services::{Caller, Ctx, Dispatch, Source, resource_tags};
use isolarium_store::audit::{AuditDown, Receipt};
use isolarium_store::{AuditEvent, AuditTrail, Keep, LogStore, Metrics, StateStore};
use isolarium_wire::catalog;
use isolarium_wire::protocol::{Call, Dialect, Protocol, decode, encode, refuse};
use isolarium_wire::shapes::sagemaker_runtime::InvokeEndpointAsyncInput;
use isolarium_wire::sigv4::{self, Accept, AuthFault, Head, Parsed};
use isolarium_wire::{ApiError, Document};
use std::borrow::Cow;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
pub(crate) mod tests;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const S3_REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// What every operation works with.
pub struct Engine {
    pub dispatch: Dispatch,
    pub store: Arc<dyn StateStore>,
    pub logs: Arc<dyn LogStore>,
    pub metrics: Arc<Metrics>,
    pub registry: Arc<Registry>,
    pub platform: Arc<dyn AsRole>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    pub master: MasterKey,
    pub audit: Arc<AuditTrail>,
}

/// Limits of requests, bytes.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Request line and headers.
    pub head: usize,
    pub request: u64,
    pub invoke: u64,
    /// Longest pause within a body.
    pub pause: Duration,
}

/// A part of the engine with streams of its own: S3, the registry.
pub trait Part: Send + Sync {
    /// Answers a request.
    fn answer(self: Arc<Self>, visit: Visit, request: Request<Incoming>) -> Answering;
}

/// How a request came in.
#[derive(Debug)]
pub struct Visit {
    pub request_id: String,
    pub peer: Peer,
    /// What IAM is told of the way it took.
    pub source: Source,
    /// Who it says that signed it; not yet believed.
    pub claim: Result<Arc<Parsed>, AuthFault>,
}

/// The front door.
pub struct Door {
    pub engine: Arc<Engine>,
    pub identities: Arc<dyn Identities>,
    pub acceptance: Acceptance,
    /// Owner of unsigned requests.
    pub account: AccountId,
    pub limits: RequestLimits,
    pub proxy: Arc<Proxy>,
    pub s3: Arc<dyn Part>,
    pub registry: Arc<dyn Part>,
    pub notebooks: Arc<NotebookPart>,
}

impl Handler for Door {
    fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Answering {
        let source = Source::Public {
            address: peer.address,
            secure: peer.secure,
        };
        self.enter(peer, source, None, request)
    }
}

impl Door {
    /// Answers a request that came by `source`. `only` is what the way leads to; `None`: the request says.
    pub fn enter(
        self: Arc<Self>,
        peer: Peer,
        source: Source,
        only: Option<Only>,
        request: Request<Incoming>,
    ) -> Answering {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let claim = sigv4::parse(
                &Head::from(&parts),
                Accept {
                    sigv2_query: self.acceptance.sigv2_query,
                },
            )
            .map(Arc::new);
            let notebook = self.notebooks.named(&parts);
            let route = match (only, notebook) {
                (Some(only), notebook) => match only.route(&parts, notebook) {
                    Some(route) => route,
                    None => return turn_away(&elsewhere(), &parts, body).await,
                },
                (None, Some((scope, name))) => Route::Notebook(scope, name),
                (None, None) => route::route(&parts, &claim),
            };
            let visit = Visit {
                request_id: crate::clock::request_id(),
                peer,
                source,
                claim,
            };
            let language = match &route {
                Route::Api(dialect) => *dialect,
                // Only for the sentence that follows a panic, which S3 and the registry catch themselves.
                Route::S3 | Route::Registry | Route::Notebook(..) => Dialect::of(&parts, None),
            };
            let id = visit.request_id.clone();
            let large = head_length(&parts) > self.limits.head;
            let waits = parts.version <= Version::HTTP_11 && parts.headers.contains_key(EXPECT);
            let empty = body.is_end_stream();
            // Each way on its own: a future as large as the largest of them would be moved for every request.
            let answering = async {
                match route {
                    route if large => {
                        Box::pin(throw_away(&parts, body)).await;
                        refuse_head(&route, &parts, &id)
                    }
                    Route::Api(dialect) => Box::pin(self.api(dialect, visit, parts, body)).await,
                    Route::S3 => self.s3.clone().answer(visit, Request::from_parts(parts, body)).await,
                    Route::Registry => {
                        self.registry
                            .clone()
                            .answer(visit, Request::from_parts(parts, body))
                            .await
                    }
                    Route::Notebook(scope, name) => {
                        let request = Request::from_parts(parts, body);
                        Box::pin(self.notebooks.clone().answer(scope, name, visit, request)).await
                    }
                }
            };
            let mut response = match AssertUnwindSafe(answering).catch_unwind().await {
                Ok(response) => response,
                Err(_panic) => {
                    tracing::error!(request_id = %id, "a request ended in a panic");
                    refuse(&language, &ApiError::internal("panic"), &id).map(body::full)
                }
            };
            // S3's answers have an id of S3's own name; clients that see both take the answer for another service's.
            let named = response.headers().contains_key(S3_REQUEST_ID);
            if let (false, Ok(id)) = (named, HeaderValue::from_str(&id)) {
                response.headers_mut().entry(REQUEST_ID).or_insert(id);
            }
            // INVARIANT (no-answer-for-leave-on-a-kept-connection): the aws CLI, answered where it waited for leave to
            // send, takes the next such answer on this connection for the headers of the first one, misses the ETag and
            // waits for the connection's end. AWS either gives leave or closes.
            if waits && (empty || !response.status().is_success()) {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        })
    }
}

/// What is known of a signature before the body is read.
enum Proof {
    /// It is right; the body is held to the digest in the head.
    Head(Box<Authentic>),
    /// It covers the body.
    Body(Box<Claimed>),
}

/// A request that got as far as its body.
struct Admitted {
    caller: Caller,
    body: Bytes,
}

impl Door {
    /// An AWS API.
    async fn api(&self, dialect: Dialect, visit: Visit, parts: Parts, body: Incoming) -> Response<Body> {
        let streams = dialect.streams_body();
        let limit = if streams {
            self.limits.invoke
        } else {
            self.limits.request
        };
        let admitted = match self.admit(&dialect, &visit, &parts, body, limit).await {
            Ok(admitted) => admitted,
            Err(error) => return Box::pin(self.turned_away(&dialect, &visit, &parts, &error)).await,
        };
        let id = &visit.request_id;
        let read = if streams { &[] } else { admitted.body.as_ref() };
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let request = match decode(&dialect, &parts, read, most) {
            Ok(request) => request,
            Err(error) => {
                Box::pin(self.misread(&dialect, &admitted.caller, &parts, read, &error)).await;
                note(id, dialect.service.map_or("-", |entry| entry.name), "-", &error);
                return refuse(&dialect, &error, id).map(body::full);
            }
        };
        let call = request.call;
        let Admitted { caller, body } = admitted;
        if call.service.name() == "sagemaker-runtime" {
            return self.invoke(&call, &request.input, caller, parts.headers, body).await;
        }
        let outcome = self.run(&call, request.input, caller).await;
        if let Err(error) = &outcome {
            note(id, call.service.name(), call.operation.name, error);
        }
        encode(&call, &outcome, id).map(body::full)
    }

    /// The answer to a request that was not admitted.
    async fn turned_away(&self, dialect: &Dialect, visit: &Visit, parts: &Parts, error: &ApiError) -> Response<Body> {
        let id = &visit.request_id;
        self.refused(dialect, visit, parts, error).await;
        note(id, dialect.service.map_or("-", |entry| entry.name), "-", error);
        let mut response = refuse(dialect, error, id).map(body::full);
        if error.status == StatusCode::PAYLOAD_TOO_LARGE.as_u16() {
            // SM-54: 413 whatever status the model gives the code.
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        }
        response
    }

    /// Authenticates before anything of the body is read, reads it, and believes the signature with it.
    async fn admit(
        &self,
        dialect: &Dialect,
        visit: &Visit,
        parts: &Parts,
        mut body: Incoming,
        limit: u64,
    ) -> Result<Admitted, ApiError> {
        let now = self.engine.clock.now();
        let spoken = spoken(dialect);
        let claim = visit.claim.clone();
        let claimed = claim.map_err(ResolveError::Fault).and_then(|parsed| {
            let service = dialect.service.map(|entry| entry.signing_name);
            let host_region = match &visit.source {
                // NET-46: an endpoint leads to its own region.
                Source::Endpoint(endpoint) => Some(endpoint.region.clone()),
                Source::Public { .. } => host_region(parts),
            };
            self.acceptance
                .claim(self.identities.as_ref(), parsed, service, host_region.as_ref(), now)
        });
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                Box::pin(throw_away(parts, body)).await;
                return Err(match error {
                    ResolveError::Fault(fault) => fault.api_error(spoken),
                    ResolveError::Store(cause) => ApiError::internal(cause),
                });
            }
        };
        let head = Head::from(parts);
        let unbelieved = |fault: AuthFault| fault.api_error(spoken);
        // Where the head tells the body's digest, a signature that is wrong costs no memory.
        let proof = if claimed.declares_digest() {
            match self.acceptance.verify(claimed, &head, sigv4::Body::Streamed, None, now) {
                Ok(authentic) => Proof::Head(Box::new(authentic)),
                Err(fault) => {
                    Box::pin(throw_away(parts, body)).await;
                    return Err(unbelieved(fault));
                }
            }
        } else {
            Proof::Body(Box::new(claimed))
        };
        let body = match receive::whole(&mut body, limit, self.limits.pause).await {
            Ok(body) => body,
            Err(ReceiveError::TooLarge(_)) => {
                Box::pin(throw_away(parts, body)).await;
                return Err(too_large(dialect, limit));
            }
            Err(ReceiveError::Stalled) => {
                return Err(
                    ApiError::client("RequestTimeoutException", "The request body did not arrive in time.")
                        .with_status(408),
                );
            }
            Err(error @ ReceiveError::Broken(_)) => {
                return Err(ApiError::client("IncompleteBody", error.to_string()));
            }
        };
        let authentic = match proof {
            Proof::Head(authentic) => authentic.body.holds(&body).map(|()| *authentic),
            Proof::Body(claimed) => {
                let body = sigv4::Body::Bytes(&body);
                self.acceptance.verify(*claimed, &head, body, None, now)
            }
        };
        let authentic = authentic.map_err(unbelieved)?;
        Ok(Admitted {
            caller: self.caller(authentic, visit, parts),
            body,
        })
    }

    fn caller(&self, authentic: Authentic, visit: &Visit, parts: &Parts) -> Caller {
        let account = authentic.principal.account().unwrap_or(&self.account).clone();
        let region = authentic.region.unwrap_or_else(|| self.region().clone());
        let host = route::host(parts);
        Caller {
            principal: authentic.principal,
            scope: Scope { account, region },
            source: visit.source.clone(),
            session: authentic.session,
            request_id: visit.request_id.clone(),
            user_agent: agent(parts).to_owned(),
            inquiry: Inquiry::signed(visit.claim.as_ref().ok().map(|claim| claim.access_key_id.as_str())).at_host(host),
        }
    }

    #[expect(clippy::expect_used, reason = "the configuration refuses an empty list of regions")]
    fn region(&self) -> &Region {
        self.acceptance.regions.first().expect("at least one region")
    }

    /// Tells of a request whose signature was not believed.
    async fn refused(&self, dialect: &Dialect, visit: &Visit, parts: &Parts, error: &ApiError) {
        let stranger = Stranger {
            access_key_id: visit.claim.as_ref().ok().map(|claim| claim.access_key_id.as_str()),
            address: visit.peer.address,
            user_agent: agent(parts),
            request_id: &visit.request_id,
            home: &Scope {
                account: self.account.clone(),
                region: self.region().clone(),
            },
        };
        let (source, name) = (source(dialect), dialect.operation(parts, &[]).unwrap_or("Unknown"));
        let event = audit::of_stranger(&stranger, source, name, Ended::with(error), self.engine.clock.now());
        self.engine.tell(event, Keep::Refusal).await;
    }

    /// Tells of a request that its service's model does not allow.
    async fn misread(&self, dialect: &Dialect, caller: &Caller, parts: &Parts, body: &[u8], error: &ApiError) {
        let (source, name) = (source(dialect), dialect.operation(parts, body).unwrap_or("Unknown"));
        let event = audit::of_request(caller, source, name, Ended::with(error), self.engine.clock.now());
        self.engine.tell(event, Keep::Later).await;
    }

    /// One operation. Reads of a record or two run here: they take microseconds. Writes wait for the disk and other reads decode
    /// much, so these go to a thread that may: a lane also carries invocations.
    async fn run(&self, call: &Call, input: Document, caller: Caller) -> Result<Document, ApiError> {
        let (service, operation) = (call.service.name(), call.operation.name);
        let told = if takes_microseconds(service, operation) {
            self.engine.answered(service, operation, input, &caller)
        } else {
            let engine = self.engine.clone();
            tokio::task::spawn_blocking(move || engine.answered(service, operation, input, &caller))
                .await
                .map_err(ApiError::internal)?
        };
        told.kept().await
    }

    /// InvokeEndpoint and InvokeEndpointWithResponseStream.
    async fn invoke(
        &self,
        call: &Call,
        input: &Document,
        caller: Caller,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response<Body> {
        let mut untold = Untold {
            engine: &self.engine,
            call,
            input,
            caller,
            told: false,
        };
        let outcome = self.invoked(call, input, &untold.caller, headers, body).await;
        let error = match outcome {
            Ok(response) => {
                untold.tell(None).await;
                return response;
            }
            Err(error) => error,
        };
        let id = untold.caller.request_id.clone();
        untold.tell(Some(&error)).await;
        note(&id, call.service.name(), call.operation.name, &error);
        encode(call, &Err(error), &id).map(body::full)
    }

    async fn invoked(
        &self,
        call: &Call,
        input: &Document,
        caller: &Caller,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let streamed = match call.operation.name {
            "InvokeEndpoint" => false,
            "InvokeEndpointWithResponseStream" => true,
            // On its own: the plain way is the smaller for it.
            "InvokeEndpointAsync" => return Box::pin(self.accepted(call, input, caller, &body)).await,
            other => return Err(ApiError::unsupported(call.service.name(), other)),
        };
        let Some(Document::String(endpoint_name)) = member(input, "EndpointName") else {
            return Err(ApiError::client("ValidationError", "The request names no endpoint."));
        };
        let question = invocation_question(&caller.scope, call.operation.name, endpoint_name, input);
        let invocation = Invocation {
            endpoint_name: endpoint_name.clone(),
            headers,
            body,
            streamed,
        };
        let asked = self.engine.with_ctx(caller, |ctx| {
            let authority = isolarium_services::iam::authority(ctx)?;
            let questions = [resource_tags::added(ctx.store, None, &caller.principal, question)?];
            authorize(caller, invocation, &authority, &questions, &|_| ResourceSide::default())
                .map_err(|denial| ApiError::client("AccessDeniedException", denial.to_string()).with_status(403))
        })?;
        self.proxy.invoke(&caller.scope, asked).await
    }
}

impl Door {
    /// InvokeEndpointAsync: asked of the gate, then queued (IAM-35, SM-55).
    async fn accepted(
        &self,
        call: &Call,
        input: &Document,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Response<Body>, ApiError> {
        let asked = InvokeEndpointAsyncInput::try_from(input.clone())?;
        let question = invocation_question(&caller.scope, call.operation.name, &asked.endpoint_name, input);
        let granted = self.engine.with_ctx(caller, |ctx| {
            let authority = isolarium_services::iam::authority(ctx)?;
            let questions = [resource_tags::added(ctx.store, None, &caller.principal, question)?];
            authorize(caller, asked, &authority, &questions, &|_| ResourceSide::default())
                .map_err(|denial| ApiError::client("AccessDeniedException", denial.to_string()).with_status(403))
        })?;
        if !body.is_empty() {
            let text = "A request with a Body is not supported: store it in S3 and name it by InputLocation.";
            return Err(ApiError::client("ValidationError", text));
        }
        let now = self.engine.clock.now();
        let accepted = self.proxy.accept(&caller.scope, granted, now).await?;
        Ok(encode(call, &Ok(accepted), &caller.request_id).map(body::full))
    }
}

/// An invocation that the audit trail is to be told of, also when the caller goes away before the answer: its container
/// may have been asked by then.
struct Untold<'a> {
    engine: &'a Engine,
    call: &'a Call,
    input: &'a Document,
    caller: Caller,
    told: bool,
}

impl Untold<'_> {
    /// Without the body.
    fn event<'e>(&'e self, error: Option<&'e ApiError>) -> AuditEvent<'e> {
        let ended = error.map_or(Ended::WELL, Ended::with);
        let source = audit::source("sagemaker");
        let (name, now) = (self.call.operation.name, self.engine.clock.now());
        let mut event = audit::of_request(&self.caller, source, name, ended, now).as_data();
        event.request_parameters = audit::request_parameters(self.call.service, self.call.operation, self.input);
        event
    }

    fn tell(&mut self, error: Option<&ApiError>) -> impl Future<Output = ()> + use<> {
        self.told = true;
        let denied = self.caller.inquiry.is_denied();
        let keep = if denied { Keep::Refusal } else { Keep::Later };
        self.engine.tell(self.event(error), keep)
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        if !self.told {
            let gone = ApiError::client(
                "ClientDisconnected",
                "The caller closed the connection before the answer.",
            );
            // Nobody waits for it.
            drop(self.engine.audit.submit(self.event(Some(&gone)), Keep::Later));
        }
    }
}

impl Engine {
    pub(crate) fn with_ctx<T>(&self, caller: &Caller, run: impl FnOnce(&Ctx<'_>) -> T) -> T {
        run(&Ctx {
            caller,
            clock: self.clock.as_ref(),
            ids: self.ids.as_ref(),
            store: self.store.as_ref(),
            logs: self.logs.as_ref(),
            metrics: self.metrics.as_ref(),
            registry: self.registry.as_ref(),
            platform: self.platform.as_ref(),
            master: &self.master,
            trail: &self.audit,
        })
    }

    /// Runs an operation and tells the audit trail of it (IAM-27). What changes something is refused while the trail cannot
    /// be written.
    fn answered(&self, service: &str, operation: &str, input: Document, caller: &Caller) -> Told {
        let known = catalog::by_name(service).and_then(|entry| {
            let model = entry.model();
            Some((model, entry.signing_name, model.operation(operation)?))
        });
        let keep = audit::keep(operation);
        let asked = known.and_then(|(model, _, shape)| audit::request_parameters(model, shape, &input));
        let ready = if keep == Keep::Change {
            self.audit.ready()
        } else {
            Ok(())
        };
        let outcome = match ready {
            Err(down) => Err(unavailable(&down)),
            Ok(()) => self
                .with_ctx(caller, |ctx| self.dispatch.call(service, operation, input, ctx))
                .unwrap_or_else(|| Err(ApiError::unsupported(service, operation))),
        };
        let denied = caller.inquiry.is_denied();
        let receipt = known.map(|(model, signing_name, shape)| {
            let now = self.clock.now();
            let event = audit::of_call(caller, (model, signing_name), shape, asked, &outcome, now);
            self.audit.submit(event, waits_for(&outcome, keep, denied))
        });
        Told {
            outcome,
            receipt,
            changed: keep == Keep::Change,
        }
    }

    /// Runs an operation on a thread that may block, and waits until the audit trail has it.
    ///
    /// # Errors
    /// The operation's; `UnsupportedOperation` when it has no handler.
    pub fn call(&self, service: &str, operation: &str, input: Document, caller: &Caller) -> Result<Document, ApiError> {
        let Told {
            outcome,
            receipt,
            changed,
        } = self.answered(service, operation, input, caller);
        settled(outcome, receipt.map_or(Ok(()), Receipt::wait), changed)
    }

    /// Tells of a request that got no further than its head or its body.
    pub(crate) fn tell(&self, event: AuditEvent<'_>, keep: Keep) -> impl Future<Output = ()> + use<> {
        let receipt = self.audit.submit(event, keep);
        async {
            // The answer is a refusal either way; the trail counts what it loses.
            if let Err(error) = receipt.await {
                tracing::debug!(%error, "a refusal is not in the audit trail");
            }
        }
    }
}

/// An outcome whose event is on its way.
struct Told {
    outcome: Result<Document, ApiError>,
    receipt: Option<Receipt>,
    changed: bool,
}

impl Told {
    /// The outcome, when its event is kept.
    async fn kept(self) -> Result<Document, ApiError> {
        let kept = match self.receipt {
            Some(receipt) => receipt.await,
            None => Ok(()),
        };
        settled(self.outcome, kept, self.changed)
    }
}

/// A change that the trail could not be told of is not acknowledged.
fn settled(
    outcome: Result<Document, ApiError>,
    kept: Result<(), AuditDown>,
    changed: bool,
) -> Result<Document, ApiError> {
    match (outcome, kept) {
        (Ok(_), Err(down)) if changed => Err(unavailable(&down)),
        (outcome, _) => outcome,
    }
}

fn unavailable(down: &AuditDown) -> ApiError {
    ApiError {
        source: Some(Box::new(down.clone())),
        ..ApiError::client("ServiceUnavailable", audit::UNAVAILABLE).with_status(503)
    }
}

/// What an answer owes to the trail: a refusal waits too, an error that is no refusal changed nothing.
fn waits_for<T>(outcome: &Result<T, ApiError>, keep: Keep, denied: bool) -> Keep {
    match outcome {
        _ if denied => Keep::Refusal,
        // An engine fault may have come after the change.
        Err(error) if error.status < 500 => Keep::Later,
        _ => keep,
    }
}

fn agent(parts: &Parts) -> &str {
    let value = parts.headers.get(http::header::USER_AGENT);
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads of a record or two. Lists, batches and searches decode many; EC2's and the registry's descriptions are lists; logs, the
/// trail and metrics are read from files and aggregated; a tuning job and an account's details hold or gather many records.
fn takes_microseconds(service: &str, operation: &str) -> bool {
    let one = ["Describe", "Get"].iter().any(|verb| operation.starts_with(verb));
    let long = [
        "DescribeHyperParameterTuningJob",
        "GetAccountAuthorizationDetails",
        "GetGroup",
    ];
    one && !matches!(
        service,
        "ec2" | "cloudwatch" | "logs" | "cloudtrail" | "ecr" | "cloudformation"
    ) && !long.contains(&operation)
}

/// The `eventSource` of a request in this language.
fn source(dialect: &Dialect) -> Cow<'static, str> {
    audit::source(dialect.service.map_or("unknown", |entry| entry.signing_name))
}

fn member<'a>(input: &'a Document, name: &str) -> Option<&'a Document> {
    if let Document::Map(members) = input {
        isolarium_wire::document::member(members, name)
    } else {
        None
    }
}

/// How authentication faults are worded for this language.
fn spoken(dialect: &Dialect) -> sigv4::Dialect {
    match dialect.protocol {
        Protocol::Json | Protocol::Cbor => sigv4::Dialect::Json,
        Protocol::RestJson => sigv4::Dialect::RestJson,
        Protocol::Query => sigv4::Dialect::Query,
        Protocol::Ec2 => sigv4::Dialect::Ec2,
    }
}

fn host_region(parts: &Parts) -> Option<Region> {
    match names::meaning(route::host(parts)?)? {
        HostMeaning::Service { region, .. } | HostMeaning::S3 { region } | HostMeaning::S3Bucket { region, .. } => {
            region
        }
        HostMeaning::Registry { region, .. } | HostMeaning::Notebook { region } => Some(region),
    }
}

/// SM-54: invocations answer with the runtime's own error.
fn too_large(dialect: &Dialect, limit: u64) -> ApiError {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let error = ApiError::too_large(most);
    if dialect.streams_body() {
        ApiError {
            code: "ValidationError".into(),
            ..error
        }
    } else {
        error
    }
}

/// What is for another service than the one that the way leads to.
fn elsewhere() -> ApiError {
    let text = "The requested operation is not of the service that this VPC endpoint leads to.";
    ApiError::client("UnknownOperationException", text).with_status(404)
}

/// Refuses a request before anybody looked who signed it, in its own language, and ends its connection: whatever comes next on it
/// would have the same answer.
pub(crate) async fn turn_away(error: &ApiError, parts: &Parts, body: Incoming) -> Response<Body> {
    Box::pin(throw_away(parts, body)).await;
    let id = crate::clock::request_id();
    note(&id, "-", "-", error);
    let mut response = refuse(&Dialect::of(parts, None), error, &id).map(body::full);
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(&id).map(|id| (REQUEST_ID, id)));
    if parts.version <= Version::HTTP_11 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Lets the sender of a refused request finish, so that it reads the refusal. A sender that waits for leave to begin
/// gets none and reads at once.
async fn throw_away(parts: &Parts, body: Incoming) {
    if !parts.headers.contains_key(EXPECT) {
        receive::discard(body, receive::DISCARD, receive::DISCARD_PATIENCE).await;
    }
}

/// Bytes of the request line and the headers, about.
fn head_length(parts: &Parts) -> usize {
    let line = parts.method.as_str().len() + parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    line + headers.sum::<usize>()
}

/// IAM-48: a head that is too long is refused in the language of its request too.
fn refuse_head(route: &Route, parts: &Parts, id: &str) -> Response<Body> {
    let error = ApiError::client(
        "RequestHeaderSectionTooLarge",
        "Your request header and query parameters used to make the request exceed the maximum allowed size.",
    );
    match route {
        Route::S3 => super::s3::refusal(&error, parts, id),
        Route::Api(dialect) => refuse(dialect, &error, id).map(body::full),
        Route::Registry | Route::Notebook(..) => refuse(&Dialect::of(parts, None), &error, id).map(body::full),
    }
}

/// One line per refused request; faults of the engine with their causes.
fn note(request_id: &str, service: &str, operation: &str, error: &ApiError) {
    if error.status < 500 {
        tracing::debug!(request_id, service, operation, code = %error.code, message = %error.message, "refused");
        return;
    }
    let mut causes = String::new();
    let mut next = Error::source(error);
    while let Some(cause) = next {
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        next = cause.source();
    }
    tracing::error!(request_id, service, operation, code = %error.code, "failed{causes}");
}
