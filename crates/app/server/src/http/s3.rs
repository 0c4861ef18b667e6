//! The way to S3: authentication in front of the S3 service, whose bodies stream.

use super::authenticate::Acceptance;
use super::body::{self, Body, BodyError};
use super::door::{Part, Visit};
use super::listen::Answering;
use super::receive::{self, ReceiveError, Unstalled};
use super::route;
use crate::names::{self, HostMeaning};
use http::header::{CONTENT_TYPE, EXPECT, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use isolarium_model::time::Clock;
use isolarium_model::{Principal, Region, Scope};
use isolarium_services::audit::{self, Ended, Inquiry, Stranger};
use isolarium_services::iam::credentials::{Identities, ResolveError};
use isolarium_services::s3::S3Front;
use isolarium_services::{Caller, Source};
use isolarium_store::{AuditTrail, Keep};
use isolarium_wire::sigv4::{self, AuthFault, BodyCheck, Dialect, Head};
use isolarium_wire::{ApiError, Document};
use std::sync::Arc;
use std::time::Duration;

/// S3 behind the front door.
pub struct S3Part {
    pub front: S3Front,
    pub identities: Arc<dyn Identities>,
    pub acceptance: Acceptance,
    pub clock: Arc<dyn Clock>,
    pub audit: Arc<AuditTrail>,
    /// Owner and region of requests that name none.
    pub home: Scope,
    /// Longest pause within a body.
    pub pause: Duration,
}

impl Part for S3Part {
    fn answer(self: Arc<Self>, visit: Visit, request: Request<Incoming>) -> Answering {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            match self.admit(&visit, &parts) {
                Ok((caller, check)) => {
                    let waits = parts.headers.contains_key(EXPECT);
                    let (lent, loan) = receive::lend(body);
                    let body = Unstalled::new(lent, self.pause).map_err(paused);
                    let answer = self.front.call(Request::from_parts(parts, body), caller, check).await;
                    // A form or a part that was refused before its end: its sender is to read why.
                    if let Some(rest) = loan.take().filter(|rest| rest.polled || !waits) {
                        receive::discard(rest.body, receive::DISCARD, receive::DISCARD_PATIENCE).await;
                    }
                    answer.map(body::stream)
                }
                Err(error) => {
                    self.tell_refused(&visit, &parts, &error).await;
                    if !parts.headers.contains_key(EXPECT) {
                        receive::discard(body, receive::DISCARD, receive::DISCARD_PATIENCE).await;
                    }
                    refusal(&error, &parts, &visit.request_id)
                }
            }
        })
    }
}

/// The S3 service tells a pause from a connection that broke off by the kind of the error.
fn paused(error: ReceiveError) -> BodyError {
    match error {
        late @ ReceiveError::Stalled => std::io::Error::new(std::io::ErrorKind::TimedOut, late).into(),
        other => other.into(),
    }
}

impl S3Part {
    /// Tells the audit trail of a request whose signature was not believed.
    async fn tell_refused(&self, visit: &Visit, parts: &Parts, error: &ApiError) {
        let stranger = Stranger {
            access_key_id: visit.claim.as_ref().ok().map(|claim| claim.access_key_id.as_str()),
            address: visit.peer.address,
            user_agent: agent(parts),
            request_id: &visit.request_id,
            home: &self.home,
        };
        let event = audit::of_stranger(
            &stranger,
            "s3.amazonaws.com",
            "Unknown",
            Ended::with(error),
            self.clock.now(),
        );
        if let Err(error) = self.audit.submit(event.as_data(), Keep::Refusal).await {
            tracing::debug!(%error, "a refusal is not in the audit trail");
        }
    }

    /// Who asks, and what the body must still prove. A request without any signature is anonymous (IAM-47); bucket
    /// policies decide about it.
    fn admit(&self, visit: &Visit, parts: &Parts) -> Result<(Caller, BodyCheck), ApiError> {
        let caller = |principal: Principal, region: Option<Region>, session| Caller {
            scope: Scope {
                account: principal.account().unwrap_or(&self.home.account).clone(),
                region: region.unwrap_or_else(|| self.home.region.clone()),
            },
            principal,
            source: visit.source.clone(),
            session,
            request_id: visit.request_id.clone(),
            user_agent: agent(parts).to_owned(),
            inquiry: Inquiry::signed(visit.claim.as_ref().ok().map(|claim| claim.access_key_id.as_str()))
                .at_host(route::host(parts)),
        };
        let parsed = match &visit.claim {
            Ok(parsed) => parsed.clone(),
            Err(AuthFault::Missing) => return Ok((caller(Principal::Anonymous, None, None), BodyCheck::Done)),
            Err(fault) => return Err(fault.api_error(Dialect::S3)),
        };
        let now = self.clock.now();
        let host = route::host(parts);
        let own_region = match &visit.source {
            Source::Endpoint(endpoint) if !endpoint.gateway => Some(endpoint.region.clone()),
            Source::Endpoint(_) | Source::Public { .. } => None,
        };
        let host_region = host.and_then(names::meaning).and_then(|meaning| match meaning {
            HostMeaning::S3 { region } | HostMeaning::S3Bucket { region, .. } => region,
            HostMeaning::Service { .. } | HostMeaning::Registry { .. } | HostMeaning::Notebook { .. } => None,
        });
        let host_region = own_region.or(host_region);
        let service = parsed.scope.is_some().then_some("s3");
        let claimed = self
            .acceptance
            .claim(self.identities.as_ref(), parsed, service, host_region.as_ref(), now);
        let claimed = claimed.map_err(|error| match error {
            ResolveError::Fault(fault) => fault.api_error(Dialect::S3),
            ResolveError::Store(cause) => ApiError {
                code: "InternalError".into(),
                ..ApiError::internal(cause)
            },
        })?;
        let bucket = host.and_then(|host| self.front.bucket_in_host(host));
        let head = Head::from(parts);
        let authentic = self
            .acceptance
            .verify(claimed, &head, sigv4::Body::Streamed, bucket, now)
            .map_err(|fault| fault.api_error(Dialect::S3))?;
        Ok((
            caller(authentic.principal, authentic.region, authentic.session),
            authentic.body,
        ))
    }
}

fn agent(parts: &Parts) -> &str {
    parts
        .headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// IAM-48: S3's error body; HEAD has none.
pub(crate) fn refusal(error: &ApiError, parts: &Parts, request_id: &str) -> Response<Body> {
    if let Some(cause) = std::error::Error::source(error) {
        tracing::error!(request_id, error = cause, "an S3 request failed");
    }
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let region = match error.members.get("Region") {
        Some(Document::String(region)) => format!("<Region>{}</Region>", escaped(region)),
        _ => String::new(),
    };
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message>{region}<Resource>{}</Resource>\
         <RequestId>{request_id}</RequestId><HostId>{request_id}</HostId></Error>",
        escaped(&error.code),
        escaped(&error.message),
        escaped(parts.uri.path()),
    );
    let bytes = if parts.method == Method::HEAD {
        String::new()
    } else {
        text
    };
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.extend(HeaderValue::from_str(request_id).map(|id| (http::HeaderName::from_static("x-amz-request-id"), id)));
    response
}
