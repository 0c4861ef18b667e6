//! From an authenticated HTTP request to an answer.
//!
//! Signatures are not s3s's business here. The front door has verified the request's head with the one verifier of all
//! services, and passes what remains to be checked of the body ([`BodyCheck`]). This module takes the signature off
//! the request (header, query, chunk framing), so that s3s sees a plain request and needs no secret; the body yields
//! only bytes that the check has seen, and ends in an error if the check fails. s3s's own verifier would need every
//! caller's secret, knows no session tokens, and cannot switch signature version 2 off.

use super::backend::Backend;
use super::body::{CheckedBody, Trailers};
use super::event::{self, Seen};
use super::form::{self, Form, Success};
use super::gate::{Authorities, Call, Gate, SignatureKeys};
use super::host::{Hosts, bucket_of};
use super::log::{AccessLog, AccessRecord, Trace};
use super::query;
use crate::iam::credentials::Identities;
use crate::kms::through::KeyStore;
use crate::{Caller, Source};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as HttpBody;
use isolarium_model::time::Clock;
use isolarium_model::{Principal, Region, Timestamp};
use isolarium_store::{AuditTrail, ObjectStore};
use isolarium_wire::sigv4::BodyCheck;
use s3s::access::{S3Access, S3AccessContext};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Error, S3ErrorCode, S3Result, StdError};
use std::sync::Arc;

/// Bucket-level settings that the protocol layer does not know. It would take them for the operation on the bucket
/// itself: `DELETE /bucket?metadataConfiguration` must never delete the bucket.
const UNKNOWN_SETTINGS: [&str; 10] = [
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "abac",
    "renameObject",
    "annotation",
    "annotations",
    "publicAccessBlockStatus",
    "torrent",
    "select",
];

/// What S3 needs from the wiring.
pub struct S3Wiring {
    pub objects: ObjectStore,
    pub clock: Arc<dyn Clock>,
    pub authorities: Arc<dyn Authorities>,
    /// What encrypts objects.
    pub keys: Arc<KeyStore>,
    /// Signers of forms: their signature is in the body, so the front door cannot look for it.
    pub identities: Arc<dyn Identities>,
    pub access_log: Arc<dyn AccessLog>,
    pub audit: Arc<AuditTrail>,
    /// Base host names of the operator's own under which buckets are subdomains; AWS's names are known.
    pub base_hosts: Vec<String>,
    /// Regions for which a form may be signed (IAM-46).
    pub regions: Vec<Region>,
}

/// S3 for requests whose head the front door has authenticated. Cheap to clone.
#[derive(Clone)]
pub struct S3Front {
    service: S3Service,
    pub(super) gate: Arc<Gate>,
    pub(super) access_log: Arc<dyn AccessLog>,
    pub(super) audit: Arc<AuditTrail>,
    base_hosts: Arc<Vec<String>>,
    regions: Arc<[Region]>,
    identities: Arc<dyn Identities>,
}

/// Takes note of the operation for the access log. Authorization happens with the operation's input, in `Call::allow`.
struct Noting;

#[async_trait::async_trait]
impl S3Access for Noting {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = cx.s3_op().name().to_owned();
        refuse_long_document(&operation, cx.headers())?;
        // UpdateObjectEncryption looks like a PutObject to s3s and would replace the object.
        let settings = cx.uri().query().unwrap_or_default().split('&');
        let mut names = settings.map(|pair| pair.split('=').next().unwrap_or_default());
        if operation == "PutObject" && names.any(|name| name == "encryption") {
            return Err(not_implemented());
        }
        if let Some(call) = cx.extensions_mut().get::<Call>() {
            call.trace.note(|noted| noted.operation = Some(operation));
        }
        Ok(())
    }
}

fn not_implemented() -> S3Error {
    S3Error::with_message(
        S3ErrorCode::NotImplemented,
        "This setting of S3 is not implemented; see docs/compatibility.md.",
    )
}

/// Operations whose body is an object's bytes and streams.
const STREAMED: [&str; 3] = ["PutObject", "UploadPart", "PostObject"];
/// Most bytes of a body that is read whole: a document that S3's own limits on keys, parts and policies let through.
const LARGEST_DOCUMENT: u64 = 4 << 20;

/// Documents are read whole before the operation asks for permission, so their length is bounded first.
fn refuse_long_document(operation: &str, headers: &HeaderMap) -> S3Result<()> {
    if STREAMED.contains(&operation) {
        return Ok(());
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match declared.and_then(|text| text.parse::<u64>().ok()) {
        Some(length) if length > LARGEST_DOCUMENT => Err(S3Error::with_message(
            S3ErrorCode::MalformedXML,
            sentence("MalformedXML"),
        )),
        None if headers.contains_key(TRANSFER_ENCODING) => Err(S3Error::with_message(
            S3ErrorCode::MissingContentLength,
            "You must provide the Content-Length HTTP header.",
        )),
        _ => Ok(()),
    }
}

/// Requests reach s3s without signatures, so nobody's secret is ever asked for.
struct NoSecrets;

#[async_trait::async_trait]
impl s3s::auth::S3Auth for NoSecrets {
    async fn get_secret_key(&self, _: &str) -> S3Result<s3s::auth::SecretKey> {
        Err(S3Error::with_message(
            S3ErrorCode::InvalidAccessKeyId,
            "The request still carries a signature.",
        ))
    }
}

impl S3Front {
    /// Builds the service.
    pub fn new(wiring: S3Wiring) -> Self {
        let mut builder = S3ServiceBuilder::new(Backend);
        builder.set_host(Hosts {
            bases: wiring.base_hosts.clone(),
        });
        // The access hook runs only beside an authentication provider.
        builder.set_auth(NoSecrets);
        builder.set_access(Noting);
        Self {
            service: builder.build(),
            gate: Arc::new(Gate::new(wiring.objects, wiring.clock, wiring.authorities, wiring.keys)),
            access_log: wiring.access_log,
            audit: wiring.audit,
            base_hosts: Arc::new(wiring.base_hosts),
            regions: wiring.regions.into(),
            identities: wiring.identities,
        }
    }

    /// The bucket that a host name carries, as signature version 2 needs to know it.
    pub fn bucket_in_host<'h>(&self, host: &'h str) -> Option<&'h str> {
        bucket_of(host, &self.base_hosts)
    }

    /// Answers a request. `caller` is who signed its head ([`isolarium_model::Principal::Anonymous`] for nobody),
    /// `check` what its body must still prove. A body error that is an [`std::io::Error`] of the kind `TimedOut` is
    /// answered as the client's pause. Never fails: failures are S3's error answers.
    pub async fn call<B>(&self, request: Request<B>, caller: Caller, check: BodyCheck) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<StdError>,
    {
        let trace = Trace::default();
        let mut record = AccessRecord::begin(&caller, self.gate.now());
        let request_id = caller.request_id.clone();
        let head_only = request.method() == Method::HEAD;
        let resource = request.uri().path().to_owned();
        let mut seen = Seen::of(&request, caller.clone());
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let prepared = match self.audit.ready() {
            Err(down) if changes => Err(event::down(&down)),
            _ => self.prepare(request, check, caller, &trace).await,
        };
        let mut response = match prepared {
            Ok(Prepared {
                request,
                trailers,
                caller,
                success,
            }) => {
                // A form names its principal itself.
                record.principal = caller.principal.arn().map(|arn| arn.to_string());
                seen.caller = caller;
                let answer = self.service.call(request).await;
                match (answer, trailers.fault()) {
                    // A body that is refused within a small XML request: its own error, not the parser's.
                    (Ok(response), Some(fault)) if response.status().is_server_error() => fault_answer(fault),
                    (Ok(response), _) => match success {
                        Some(success) => success.answer(response),
                        None => response,
                    },
                    (Err(error), _) => {
                        tracing::error!(error = %StdError::from(error), "the S3 protocol layer failed");
                        fault_answer(S3Error::new(S3ErrorCode::InternalError))
                    }
                }
            }
            Err(error) => fault_answer(error),
        };
        let noted = trace.noted();
        if let Err(down) = self.tell(&seen, &noted, &response, changes).await {
            response = fault_answer(event::down(&down));
        }
        let code = error_code(&response);
        complete(&mut response, &resource, &request_id);
        finish(&mut response, &request_id, head_only);
        let noted = trace.noted();
        record.operation = noted.operation;
        record.bucket = noted.bucket;
        record.key = noted.key;
        record.status = response.status().as_u16();
        record.error = code;
        self.access_log.record(&record);
        response
    }

    /// Takes the signature off and puts the call into the extensions.
    async fn prepare<B>(
        &self,
        request: Request<B>,
        check: BodyCheck,
        mut caller: Caller,
        trace: &Trace,
    ) -> S3Result<Prepared>
    where
        B: HttpBody<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<StdError>,
    {
        let (mut parts, body) = request.into_parts();
        if let Source::Endpoint(endpoint) = &caller.source
            && endpoint.gateway
        {
            self.refuse_elsewhere(&parts, &endpoint.region)?;
        }
        let mut keys = signature_keys(&parts, &caller, self.gate.now());
        let sent = parts.uri.query().unwrap_or_default();
        if sent
            .split('&')
            .any(|pair| UNKNOWN_SETTINGS.contains(&pair.split('=').next().unwrap_or_default()))
        {
            return Err(not_implemented());
        }
        let kept = query::without_signature(sent);
        let path = parts.uri.path();
        let target = if kept.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{kept}")
        };
        parts.uri = unsigned_uri(&parts.uri, &target)?;
        parts.headers.remove(AUTHORIZATION);
        for name in ["x-amz-content-sha256", "x-amz-security-token", "x-amz-date"] {
            parts.headers.remove(name);
        }
        if let BodyCheck::Chunked(decoder) = &check {
            parts
                .headers
                .insert(CONTENT_LENGTH, HeaderValue::from(decoder.declared_length()));
            let encoding = parts
                .headers
                .get(CONTENT_ENCODING)
                .and_then(|value| value.to_str().ok());
            match encoding.map(str::to_owned).and_then(super::convert::stored_encoding) {
                Some(kept) => {
                    let value = HeaderValue::from_str(&kept)
                        .map_err(|_| S3Error::with_message(S3ErrorCode::InvalidRequest, "invalid Content-Encoding"))?;
                    parts.headers.insert(CONTENT_ENCODING, value);
                }
                None => {
                    parts.headers.remove(CONTENT_ENCODING);
                }
            }
        }
        let trailers = Trailers::default();
        let body = CheckedBody::new(body, check, trailers.clone());
        let (mut request, success) = match form::boundary(&parts.method, &parts.headers) {
            None => (Request::from_parts(parts, Body::http_body(body)), None),
            Some(boundary) => {
                let bucket = self.form_bucket(&parts)?;
                let mut form = Form::read(body, &boundary).await?;
                let length = form.verify(
                    self.identities.as_ref(),
                    &self.regions,
                    &bucket,
                    &mut caller,
                    self.gate.now(),
                )?;
                keys.retain(|(name, _)| [TLS_VERSION, REFERER].contains(name));
                keys.extend(form.signature_keys(self.gate.now()));
                let (put, success) = form.into_put(&bucket, length)?;
                (put, Some(success))
            }
        };
        request
            .extensions_mut()
            .insert(Call::new(&self.gate, caller.clone(), trace.clone()).signed(keys));
        request.extensions_mut().insert(trailers.clone());
        Ok(Prepared {
            request,
            trailers,
            caller,
            success,
        })
    }

    /// NET-38: a gateway endpoint leads to no bucket of another region. The answer names the host that does.
    fn refuse_elsewhere(&self, parts: &http::request::Parts, home: &Region) -> S3Result<()> {
        let in_header = parts.headers.get(http::header::HOST);
        let host = in_header
            .and_then(|host| host.to_str().ok())
            .or_else(|| parts.uri.host());
        let in_path = || parts.uri.path().trim_start_matches('/').split('/').next();
        let addressed = host.and_then(|host| self.bucket_in_host(host)).or_else(in_path);
        let Some(Ok(name)) = addressed.map(super::convert::bucket_name) else {
            return Ok(());
        };
        let Some(region) = self.gate.region_of(&name)?.filter(|region| region != home) else {
            return Ok(());
        };
        let text = "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all \
                    future requests to this endpoint.";
        let mut error = S3Error::with_message(S3ErrorCode::PermanentRedirect, text);
        if let Ok(region) = HeaderValue::from_str(region.as_str()) {
            let xml = HeaderValue::from_static("application/xml");
            let name = HeaderName::from_static("x-amz-bucket-region");
            error.set_headers(HeaderMap::from_iter([
                (name, region),
                (http::header::CONTENT_TYPE, xml),
            ]));
        }
        Err(error)
    }

    /// The bucket that a form is posted to.
    fn form_bucket(&self, parts: &http::request::Parts) -> S3Result<String> {
        let host = parts
            .headers
            .get(http::header::HOST)
            .and_then(|host| host.to_str().ok());
        if let Some(bucket) = host.and_then(|host| self.bucket_in_host(host)) {
            return Ok(bucket.to_owned());
        }
        let path = parts.uri.path().trim_matches('/');
        super::convert::bucket_name(path).map(Into::into)
    }
}

/// A request as s3s sees it.
struct Prepared {
    request: Request<Body>,
    trailers: Trailers,
    caller: Caller,
    success: Option<Success>,
}

/// The condition key of [`TlsVersion`].
const TLS_VERSION: &str = "s3:TlsVersion";
/// The condition key of the page that led to the request.
const REFERER: &str = "aws:referer";

/// The TLS version of a request's connection, such as `1.3`; the front door puts it into the extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVersion(pub &'static str);

/// The condition keys that tell how a request was signed and whence it came. Nobody's requests have only the latter.
fn signature_keys(parts: &http::request::Parts, caller: &Caller, now: Timestamp) -> SignatureKeys {
    let mut keys = SignatureKeys::new();
    if let Some(TlsVersion(version)) = parts.extensions.get() {
        keys.push((TLS_VERSION, (*version).into()));
    }
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    keys.extend(header("referer").map(|page| (REFERER, page.into())));
    if caller.principal == Principal::Anonymous {
        return keys;
    }
    let query = parts.uri.query().unwrap_or_default();
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let in_header = header("authorization");
    let version_2 = in_header.map_or_else(
        || parameter("AWSAccessKeyId").is_some(),
        |text| !text.starts_with("AWS4-"),
    );
    let kind = if in_header.is_some() {
        "REST-HEADER"
    } else {
        "REST-QUERY-STRING"
    };
    keys.push(("s3:authType", kind.into()));
    let version = if version_2 { "AWS" } else { "AWS4-HMAC-SHA256" };
    keys.push(("s3:signatureversion", version.into()));
    if let Some(hash) = header("x-amz-content-sha256") {
        keys.push(("s3:x-amz-content-sha256", hash.into()));
    }
    let stamp = parameter("X-Amz-Date").or(header("x-amz-date"));
    keys.extend(signature_age(stamp, now).map(|age| ("s3:signatureAge", age)));
    keys
}

/// Milliseconds since a stamp such as `20300101T000000Z`; signatures of version 2 have none.
pub(super) fn signature_age(stamp: Option<&str>, now: Timestamp) -> Option<String> {
    let signed = isolarium_wire::sigv4::parse_stamp(stamp?).ok()?;
    let age = now.0.saturating_sub(signed.saturating_mul(1000));
    Some(age.max(0).to_string())
}

fn unsigned_uri(uri: &Uri, target: &str) -> S3Result<Uri> {
    let invalid = |_| S3Error::with_message(S3ErrorCode::InvalidURI, "Couldn't parse the specified URI.");
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => format!("{scheme}://{authority}{target}").parse().map_err(invalid),
        _ => target.parse().map_err(invalid),
    }
}

fn fault_answer(error: S3Error) -> Response<Body> {
    error.to_http_response().unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// The code of an error answer, for the access log.
pub(super) fn error_code(response: &Response<Body>) -> Option<String> {
    if response.status().is_success() {
        return None;
    }
    let body = response.body().bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map(|(code, _)| code);
    Some(
        code.or(response.status().canonical_reason())
            .unwrap_or("error")
            .to_owned(),
    )
}

/// IAM-48: the members of S3's error body that the protocol layer leaves out.
fn complete(response: &mut Response<Body>, resource: &str, request_id: &str) {
    if response.status().is_success() {
        return;
    }
    let Some(bytes) = response.body().bytes() else { return };
    let Some(told) = bytes.strip_suffix(b"</Error>") else {
        return;
    };
    let mut text = String::from_utf8_lossy(told).into_owned();
    if !text.contains("<Message>") {
        let code = error_code(response).unwrap_or_default();
        text.push_str(&format!("<Message>{}</Message>", sentence(&code)));
    }
    let escaped = resource.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.push_str(&format!("<Resource>{escaped}</Resource>"));
    if !text.contains("<RequestId>") {
        text.push_str(&format!("<RequestId>{request_id}</RequestId>"));
    }
    text.push_str(&format!("<HostId>{request_id}</HostId></Error>"));
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = Body::from(text);
}

/// What S3 says with the codes that the protocol layer answers without a sentence.
fn sentence(code: &str) -> &'static str {
    match code {
        "InvalidBucketName" => "The specified bucket is not valid.",
        "InvalidURI" => "Couldn't parse the specified URI.",
        "KeyTooLongError" => "Your key is too long",
        "MethodNotAllowed" => "The specified method is not allowed against this resource.",
        "NotImplemented" => "A header or parameter you provided implies functionality that is not implemented.",
        "MalformedXML" => "The XML you provided was not well-formed or did not validate against our published schema",
        "MissingRequestBodyError" => "Request body is empty.",
        "IncompleteBody" => "You did not provide the number of bytes specified by the Content-Length HTTP header",
        "InvalidRange" => "The requested range is not satisfiable",
        "InternalError" => "We encountered an internal error. Please try again.",
        _ => "The request cannot be answered.",
    }
}

fn finish(response: &mut Response<Body>, request_id: &str, head_only: bool) {
    let bare = response.status() == StatusCode::NOT_MODIFIED || (head_only && !response.status().is_success());
    if bare {
        // Answers without a body must not promise one.
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().remove(http::header::CONTENT_TYPE);
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-amz-request-id"), value.clone());
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-amz-id-2"), value);
    }
}
