//! The inference proxy: from `InvokeEndpoint` to a container's `/invocations` and back (CC-50..53, SM-50..62).
//!
//! Connections are made inside the container's namespace and kept; requests and answers of plain invocations are
//! buffered up to the body limit, streamed answers pass chunk by chunk.

mod answer;
mod asynchronous;
mod connection;
mod failure;
mod models;
mod pool;
mod stream;

#[cfg(test)]
mod tests;

use crate::http::body::{self, Body};
use crate::metrics::tally::{Lap, Tally};
use answer::Head;
use bytes::{Bytes, BytesMut};
use connection::{Broken, Connection, Outgoing};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use isolarium_model::sagemaker::model::{ExecutionMode, SERVING_PORT};
use isolarium_model::sagemaker::{Endpoint, EndpointStatus};
use isolarium_model::{Key, Scope, WorkloadId};
use isolarium_policy::Granted;
use isolarium_reconcile::capture::{Capture, Side};
use isolarium_reconcile::fleets::{Several, Stage};
use isolarium_reconcile::{Fleets, Guard, PickError};
use isolarium_runtime::Dial;
use isolarium_store::StateStore;
use isolarium_wire::ApiError;
use pool::Pool;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

const CUSTOM_ATTRIBUTES: HeaderName = HeaderName::from_static("x-amzn-sagemaker-custom-attributes");
const INFERENCE_ID: HeaderName = HeaderName::from_static("x-amzn-sagemaker-inference-id");
const TARGET_VARIANT: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-variant");
const TARGET_MODEL: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-model");
const TARGET_CONTAINER: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-container-hostname");
const TARGET_COMPONENT: HeaderName = HeaderName::from_static("x-amzn-sagemaker-inference-component");
const SESSION: HeaderName = HeaderName::from_static("x-amzn-sagemaker-session-id");
const INVOKED_VARIANT: HeaderName = HeaderName::from_static("x-amzn-invoked-production-variant");
const STREAM_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-amzn-sagemaker-content-type");

/// What the container sees of the caller's headers; everything else is stripped (CC-50, SM-52).
const FORWARDED: [HeaderName; 4] = [CONTENT_TYPE, ACCEPT, CUSTOM_ATTRIBUTES, INFERENCE_ID];

/// Limits of the proxy.
#[derive(Clone, Copy, Debug)]
pub struct InvokeSettings {
    /// SM-53, CC-51.
    pub timeout: Duration,
    /// Whole duration of a streamed answer (SM-53).
    pub stream_timeout: Duration,
    /// CC-51.
    pub connect_timeout: Duration,
    /// Largest buffered answer, bytes (SM-54).
    pub body_limit: usize,
    /// Idle connections that each lane keeps to each container.
    pub idle_connections: usize,
}

/// One invocation, within the body limit.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub endpoint_name: String,
    /// The caller's headers; the proxy takes what the contract names.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// InvokeEndpointWithResponseStream.
    pub streamed: bool,
}

/// The proxy.
pub struct Proxy {
    fleets: Arc<Fleets>,
    store: Arc<dyn StateStore>,
    pool: Arc<Pool>,
    settings: InvokeSettings,
    tally: Arc<Tally>,
    loads: Arc<models::Turns>,
}

impl Proxy {
    /// A proxy to the containers in `fleets`.
    pub fn new(fleets: Arc<Fleets>, store: Arc<dyn StateStore>, dial: Arc<dyn Dial>, settings: InvokeSettings) -> Self {
        let pool = Arc::new(Pool::new(dial, settings.connect_timeout, settings.idle_connections));
        Self {
            fleets,
            store,
            pool,
            settings,
            tally: Arc::default(),
            loads: Arc::default(),
        }
    }

    /// The same, counting into counters that others read.
    #[must_use]
    pub fn counting(self, tally: Arc<Tally>) -> Self {
        Self { tally, ..self }
    }

    /// Sends one allowed invocation to a container of the endpoint.
    ///
    /// # Errors
    /// SM-58's errors.
    pub async fn invoke(&self, scope: &Scope, granted: Granted<Invocation>) -> Result<Response<Body>, ApiError> {
        let invocation = granted.into_inner();
        let targets = check_targets(&invocation.headers)?;
        let key = Endpoint::key(scope, &invocation.endpoint_name);
        let chance = u64::from_ne_bytes(crate::clock::passing());
        let name = &invocation.endpoint_name;
        let folder = targets.model.as_ref().map(|model| model.folder.as_str());
        let mut guard = match self.fleets.pick_for(&key, name, targets.variant, folder, chance) {
            Ok(guard) => guard,
            Err(error) => return Err(self.not_picked(&key, name, error)),
        };
        if guard.shelf().is_some() != targets.model.is_some() {
            return Err(models::misplaced(name, targets.model.is_some()));
        }
        let sampled = guard.capture().filter(|capture| {
            let chance = u64::from_ne_bytes(crate::clock::passing());
            capture.samples(chance) && !invocation.streamed
        });
        // Only what is kept is held on to.
        let asked = sampled.map(|_| invocation.body.clone());
        let stages = stages(guard.several(), invocation.headers.get(&TARGET_CONTAINER))?;
        let last = stages.and_then(<[Stage]>::last);
        let (workload, port) = last.map_or((guard.workload(), SERVING_PORT), |last| (&last.workload, last.port));
        let mut lap = self.tally.begin(&key, &invocation.endpoint_name, guard.variant());
        let failure = failure::Failure {
            scope,
            endpoint_name: &invocation.endpoint_name,
            guard: &guard,
            stage: last,
        };
        let (streamed, started) = (invocation.streamed, Instant::now());
        let limit = started + self.settings.timeout;
        let request = match stages {
            Some([before @ .., _]) if !before.is_empty() => {
                let passed = self.passed_on(before, &invocation, scope, &guard, limit, &mut lap);
                // On its own: most models have one container, and their future is the smaller for it.
                Box::pin(passed).await?
            }
            _ => match &targets.model {
                None => Outgoing::new(&invocation.headers, invocation.body),
                Some(model) => Outgoing::to_model(&invocation.headers, &model.folder, invocation.body),
            },
        };
        let mut used = None;
        let answered = match (guard.shelf(), &targets.model) {
            (Some(shelf), Some(model)) => {
                let to = models::To {
                    shelf,
                    model,
                    workload,
                    request: &request,
                    streamed,
                    limit,
                };
                // On its own, as those of pipelines.
                let (answered, model) = Box::pin(self.of_model(&to, &failure)).await?;
                used = Some(model);
                answered
            }
            _ => {
                let answered = timeout_at(limit, self.answered(workload, port, &request, streamed)).await;
                outcome(answered, workload, &failure)?
            }
        };
        lap.answered(answered.status());
        match answered {
            Answered::Whole(head, bytes) if head.status.is_success() => {
                if let (Some(capture), Some(asked)) = (sampled, asked) {
                    keep(capture, &invocation.headers, &asked, &head, &bytes);
                }
                Ok(to_caller(&head, &guard, bytes))
            }
            Answered::TooLarge(head, _) if head.status.is_success() => Err(failure.too_large(self.settings.body_limit)),
            // A failure's text is cut, not refused.
            Answered::Whole(head, bytes) | Answered::TooLarge(head, bytes) => {
                Err(failure.answered(head.status.as_u16(), &bytes))
            }
            Answered::Begun(head, connection) => {
                let mut answer = Response::new(body::empty());
                common_headers(&head, &guard, answer.headers_mut());
                let events_type = HeaderValue::from_static("application/vnd.amazon.eventstream");
                answer.headers_mut().insert(CONTENT_TYPE, events_type);
                if let Some(kind) = head.content_type {
                    answer.headers_mut().insert(STREAM_CONTENT_TYPE, kind);
                }
                let deadline = started + self.settings.stream_timeout;
                let workload = workload.clone();
                if let Some(used) = used {
                    guard.hold(used);
                }
                *answer.body_mut() = stream::events(connection, workload, guard, self.pool.clone(), deadline);
                Ok(answer)
            }
        }
    }

    /// Asks the container and reads its answer: whole, or only its head where the rest is passed on as a stream.
    async fn answered(
        &self,
        workload: &WorkloadId,
        port: u16,
        request: &Outgoing,
        streamed: bool,
    ) -> Result<Answered, pool::SendError> {
        let (head, mut connection) = self.pool.send(workload, port, request).await?;
        if head.status.is_success() && streamed {
            return Ok(Answered::Begun(head, connection));
        }
        let most = if head.status.is_success() {
            self.settings.body_limit
        } else {
            failure::MESSAGE_LIMIT
        };
        match collect(&mut connection, most).await.map_err(pool::SendError::Broken)? {
            (bytes, true) => {
                self.pool.give_back(workload, connection);
                Ok(Answered::Whole(head, bytes))
            }
            (bytes, false) => Ok(Answered::TooLarge(head, bytes)),
        }
    }

    /// Sends an invocation through all containers of a pipeline but the last: what that one is to be asked (CC-57). The
    /// first answer that is no success ends it.
    async fn passed_on(
        &self,
        before: &[Stage],
        invocation: &Invocation,
        scope: &Scope,
        guard: &Guard,
        limit: Instant,
        lap: &mut Lap<'_>,
    ) -> Result<Outgoing, ApiError> {
        let headers = &invocation.headers;
        let mut content_type = headers.get(CONTENT_TYPE).cloned();
        let mut body = invocation.body.clone();
        for stage in before {
            let failure = failure::Failure {
                scope,
                endpoint_name: &invocation.endpoint_name,
                guard,
                stage: Some(stage),
            };
            let request = Outgoing::stage(headers, content_type.as_ref(), false, body);
            let asked = self.answered(&stage.workload, stage.port, &request, false);
            let answered = outcome(timeout_at(limit, asked).await, &stage.workload, &failure)?;
            let status = answered.status();
            (content_type, body) = match answered {
                Answered::Whole(head, bytes) if head.status.is_success() => (head.content_type, bytes),
                Answered::TooLarge(head, _) if head.status.is_success() => {
                    lap.answered(status);
                    return Err(failure.too_large(self.settings.body_limit));
                }
                Answered::Whole(_, bytes) | Answered::TooLarge(_, bytes) => {
                    lap.answered(status);
                    return Err(failure.answered(status, &bytes));
                }
                // Only what is asked for as a stream begins.
                Answered::Begun(..) => return Err(failure.broken()),
            };
        }
        Ok(Outgoing::stage(headers, content_type.as_ref(), true, body))
    }

    /// The cold path: why there was nothing to pick (SM-56, SM-57, SM-61).
    fn not_picked(&self, key: &Key, name: &str, error: PickError) -> ApiError {
        let refused = |text: String| ApiError::client("ValidationError", text);
        match error {
            PickError::NotServing => match self.store.get::<Endpoint>(key) {
                Err(error) => ApiError::internal(error),
                Ok(Some(found)) if found.record.name == name && found.record.status.serves() => unavailable(),
                Ok(Some(found)) if found.record.name == name => out_of_service(key, name, found.record.status),
                Ok(_) => unknown(key, name),
            },
            PickError::Asynchronous => refused(format!(
                "Endpoint {name} of account {} has an AsyncInferenceConfig and supports InvokeEndpointAsync alone.",
                key.scope.account
            )),
            PickError::Throttled => ApiError::client("ThrottlingException", "Rate exceeded"),
            PickError::UnknownVariant(variant) => refused(format!("Variant {variant} not found for endpoint {name}.")),
            PickError::NoWeight => refused(format!("No variant of endpoint {name} has a weight above 0.")),
            PickError::NoHealthyInstance => unavailable(),
        }
    }
}

/// SM-56.
fn out_of_service(key: &Key, name: &str, status: EndpointStatus) -> ApiError {
    let text = format!(
        "Endpoint {name} of account {} is in status {} and does not serve requests.",
        key.scope.account,
        status.as_str()
    );
    ApiError::client("ValidationError", text)
}

/// SM-57.
fn unknown(key: &Key, name: &str) -> ApiError {
    let text = format!("Endpoint {name} of account {} not found.", key.scope.account);
    ApiError::client("ValidationError", text)
}

/// What came of asking a container, as far as it is for the caller.
fn outcome(
    asked: Result<Result<Answered, pool::SendError>, Elapsed>,
    workload: &WorkloadId,
    failure: &failure::Failure<'_>,
) -> Result<Answered, ApiError> {
    match asked {
        Err(_late) => Err(failure.timed_out()),
        Ok(Err(pool::SendError::Connect(error))) => {
            tracing::warn!(%workload, error = &error as &dyn std::error::Error, "a container cannot be reached");
            Err(failure.unreachable())
        }
        Ok(Err(pool::SendError::Broken(error))) => {
            tracing::info!(%workload, %error, "a container broke off an invocation");
            Err(failure.broken())
        }
        Ok(Ok(answered)) => Ok(answered),
    }
}

/// The containers of an instance that an invocation runs through; `None` where it has one alone (SM-51, CC-57).
fn stages<'a>(several: Option<&'a Several>, named: Option<&HeaderValue>) -> Result<Option<&'a [Stage]>, ApiError> {
    let refused = |text: String| Err(ApiError::client("ValidationError", text));
    let direct = || {
        let text = "TargetContainerHostname can only be given for endpoints with direct invocation.";
        refused(text.into())
    };
    let Some(several) = several else {
        return if named.is_some() { direct() } else { Ok(None) };
    };
    match (several.mode, named) {
        (ExecutionMode::Serial, None) => Ok(Some(&several.stages)),
        (ExecutionMode::Serial, Some(_)) => direct(),
        (ExecutionMode::Direct, None) => {
            refused("TargetContainerHostname must be given for an endpoint with direct invocation.".into())
        }
        (ExecutionMode::Direct, Some(name)) => {
            let found = several
                .stages
                .iter()
                .find(|stage| stage.name.as_bytes() == name.as_bytes());
            match found {
                Some(stage) => Ok(Some(std::slice::from_ref(stage))),
                None => refused(format!(
                    "The endpoint has no container {}.",
                    String::from_utf8_lossy(name.as_bytes())
                )),
            }
        }
    }
}

/// Keeps an invocation that succeeded (CC-60).
fn keep(capture: &Capture, headers: &HeaderMap, asked: &[u8], head: &Head, answer: &[u8]) {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let (asked_type, answer_type) = (
        headers.get(CONTENT_TYPE).and_then(text),
        head.content_type.as_ref().and_then(text),
    );
    let input = Side {
        content_type: asked_type.as_deref(),
        data: asked,
    };
    let output = Side {
        content_type: answer_type.as_deref(),
        data: answer,
    };
    let inference_id = headers.get(INFERENCE_ID).and_then(text);
    capture.add(&crate::clock::request_id(), inference_id.as_deref(), input, output);
}

fn unavailable() -> ApiError {
    ApiError::client("ServiceUnavailable", "The service is unavailable. Try your call again.").with_status(503)
}

/// What a caller aims at within an endpoint.
#[derive(Default)]
struct Targets<'a> {
    variant: Option<&'a str>,
    model: Option<models::Named>,
}

/// What is asked for; refuses targets that the endpoints of this engine do not have (SM-51).
fn check_targets(headers: &HeaderMap) -> Result<Targets<'_>, ApiError> {
    let refused = |text: &str| Err(ApiError::client("ValidationError", text));
    // All that is looked for begins so, and most requests have none of it.
    if !headers
        .keys()
        .any(|name| name.as_str().starts_with("x-amzn-sagemaker-"))
    {
        return Ok(Targets::default());
    }
    if headers.contains_key(TARGET_COMPONENT) {
        return refused("The endpoint has no inference components.");
    }
    if headers.contains_key(SESSION) {
        return refused("The model of this endpoint does not have stateful sessions.");
    }
    if let Some(attributes) = headers.get(CUSTOM_ATTRIBUTES)
        && !good_attributes(attributes)
    {
        return refused("CustomAttributes must be at most 1024 visible US-ASCII characters.");
    }
    let variant = headers.get(TARGET_VARIANT).map(|value| {
        value
            .to_str()
            .map_err(|_| ApiError::client("ValidationError", "TargetVariant is not a variant's name."))
    });
    Ok(Targets {
        variant: variant.transpose()?,
        model: headers.get(TARGET_MODEL).map(models::Named::read).transpose()?,
    })
}

/// SM-52.
fn good_attributes(value: &HeaderValue) -> bool {
    value.len() <= 1024 && value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// CC-52: status, content type and custom attributes as the container gave them.
fn to_caller(from: &Head, guard: &Guard, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = from.status;
    if let Some(kind) = &from.content_type {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    common_headers(from, guard, response.headers_mut());
    response
}

fn common_headers(from: &Head, guard: &Guard, onto: &mut HeaderMap) {
    if let Some(attributes) = from.attributes.as_ref().filter(|value| good_attributes(value)) {
        onto.insert(CUSTOM_ATTRIBUTES, attributes.clone());
    }
    if let Ok(variant) = HeaderValue::from_str(guard.variant()) {
        onto.insert(INVOKED_VARIANT, variant);
    }
}

/// What a container said.
enum Answered {
    Whole(Head, Bytes),
    /// With the bytes up to the limit.
    TooLarge(Head, Bytes),
    /// The body is still to be read.
    Begun(Head, Connection),
}

impl Answered {
    /// The container's status.
    fn status(&self) -> u16 {
        match self {
            Self::Whole(head, _) | Self::TooLarge(head, _) | Self::Begun(head, _) => head.status.as_u16(),
        }
    }
}

/// A body of at most `limit` bytes, and whether that is all of it.
async fn collect(connection: &mut Connection, limit: usize) -> Result<(Bytes, bool), Broken> {
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(piece) = connection.piece().await? {
        let length = first.as_ref().map_or(all.len(), Bytes::len);
        if length.saturating_add(piece.len()) > limit {
            all.extend_from_slice(first.as_deref().unwrap_or_default());
            all.extend_from_slice(piece.get(..limit.saturating_sub(length)).unwrap_or_default());
            return Ok((all.freeze(), false));
        }
        // Most answers are one piece: then nothing is copied.
        match (first.take(), all.is_empty()) {
            (None, true) => first = Some(piece),
            (before, _) => {
                all.extend_from_slice(before.as_deref().unwrap_or_default());
                all.extend_from_slice(&piece);
            }
        }
    }
    Ok((first.unwrap_or_else(|| all.freeze()), true))
}
