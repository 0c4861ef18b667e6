//! The five AWS protocols: which one a request speaks, its decoding, and the encoding of its answer.

mod cbor;
mod decode;
mod encode;
mod fault;
mod json;
mod query;
mod refuse;
mod rest;
mod xml;

pub use decode::decode;
pub use encode::encode;
pub use refuse::refuse;

use crate::Document;
use crate::catalog::service::Service;
use crate::catalog::{self, Entry, Operation};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};

/// How requests and answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// awsJson1.0 and awsJson1.1.
    Json,
    /// awsQuery.
    Query,
    /// ec2Query.
    Ec2,
    /// restJson1.
    RestJson,
    /// rpcV2Cbor.
    Cbor,
}

/// The language of one request: what its answer, error or not, has to be written in.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    pub protocol: Protocol,
    /// The service, where the head names it. Unsigned query requests name it in their body.
    pub service: Option<&'static Entry>,
    json_1_0: bool,
    /// In restJson1, the operation of the method and the path.
    rest: Option<&'static Operation>,
}

/// Which operation of which service, in which language.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub dialect: Dialect,
    pub service: &'static Service,
    pub operation: &'static Operation,
}

/// A request that satisfies the service's model.
#[derive(Debug)]
pub struct Request {
    pub call: Call,
    pub input: Document,
}

impl Dialect {
    /// The language of a request, from its head and the service of its signature (absent for unsigned requests).
    /// Every request has one: what nothing fits is answered in JSON.
    pub fn of(head: &Parts, signing_name: Option<&str>) -> Self {
        let json_1_0 = media_type(head).is_some_and(|media| media.eq_ignore_ascii_case("application/x-amz-json-1.0"));
        let dialect = |protocol, service| Self {
            protocol,
            service,
            json_1_0,
            rest: None,
        };
        if let Some((prefix, _)) = cbor_path(head.uri.path())
            && (head.headers.contains_key("smithy-protocol") || media_type(head) == Some("application/cbor"))
        {
            return dialect(Protocol::Cbor, catalog::by_target(prefix));
        }
        if let Some(target) = target(head) {
            return dialect(
                Protocol::Json,
                target
                    .rsplit_once('.')
                    .and_then(|(prefix, _)| catalog::by_target(prefix)),
            );
        }
        if let Some((entry, rest)) = rest_entry(head, signing_name) {
            return Self {
                rest,
                ..dialect(Protocol::RestJson, Some(entry))
            };
        }
        // A CloudWatch caller without target or CBOR path speaks query too, but only with a form.
        let form = media_type(head).is_some_and(|media| media.eq_ignore_ascii_case(FORM));
        let in_query = head
            .uri
            .query()
            .is_some_and(|query| query.split('&').any(|pair| pair.starts_with("Action=")));
        let known = signing_name.and_then(catalog::by_query);
        if let Some(entry) = known.filter(|entry| form || in_query || entry.target_prefix.is_none()) {
            return dialect(entry.query_protocol().unwrap_or(Protocol::Query), Some(entry));
        }
        if signing_name.is_none() && (form || in_query) {
            return dialect(Protocol::Query, None);
        }
        let signed = signing_name.and_then(|name| catalog::entries().iter().find(|entry| entry.signing_name == name));
        dialect(Protocol::Json, signed)
    }

    /// Whether the body of this request is a stream that travels beside it (InvokeEndpoint): decode it from its head
    /// alone then.
    pub fn streams_body(&self) -> bool {
        let service = self.rest_service();
        service
            .zip(self.rest)
            .is_some_and(|(service, operation)| service.streams_input(operation))
    }

    /// The operation that a request names, believed to be nothing more than a name of the service's model: for what is told
    /// of a request that cannot be decoded.
    pub fn operation(&self, head: &Parts, body: &[u8]) -> Option<&'static str> {
        let model = self.service?.model();
        let named = match self.protocol {
            Protocol::Json => target(head)?.rsplit_once('.')?.1,
            Protocol::Cbor => cbor_path(head.uri.path())?.1,
            Protocol::RestJson => return self.rest.map(|operation| operation.name),
            Protocol::Query | Protocol::Ec2 => {
                let text = std::str::from_utf8(body).unwrap_or_default();
                let mut pairs = head.uri.query().unwrap_or_default().split('&').chain(text.split('&'));
                pairs.find_map(|pair| pair.strip_prefix("Action="))?
            }
        };
        model.operation(named).map(|operation| operation.name)
    }

    fn rest_service(&self) -> Option<&'static Service> {
        (self.protocol == Protocol::RestJson)
            .then_some(self.service)
            .flatten()
            .map(Entry::model)
    }
}

const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const FORM: &str = "application/x-www-form-urlencoded";

fn media_type(head: &Parts) -> Option<&str> {
    let value = head.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim())
}

fn target(head: &Parts) -> Option<&str> {
    head.headers.get(TARGET).map(|value| value.to_str().unwrap_or_default())
}

/// `/service/{Service}/operation/{Operation}`, with any prefix.
fn cbor_path(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.rsplit('/');
    let operation = parts.next()?;
    (parts.next()? == "operation").then_some(())?;
    let service = parts.next()?;
    (parts.next()? == "service").then_some((service, operation))
}

/// The service that a path belongs to, whatever the method, and its operation if the method is right too.
fn rest_entry(head: &Parts, signing_name: Option<&str>) -> Option<(&'static Entry, Option<&'static Operation>)> {
    let path = head.uri.path();
    if path == "/" {
        return None;
    }
    catalog::entries()
        .iter()
        .filter(|entry| entry.protocols.contains(&Protocol::RestJson))
        .filter(|entry| signing_name.is_none_or(|name| name == entry.signing_name))
        .find_map(|entry| Some((entry, rest::route(entry.model(), head.method.as_str(), path)?)))
}
fn json_type(dialect: &Dialect) -> &'static str {
    if dialect.json_1_0 {
        "application/x-amz-json-1.0"
    } else {
        "application/x-amz-json-1.1"
    }
}
fn with_id(mut answer: Response<Bytes>, request_id: &str) -> Response<Bytes> {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        answer.headers_mut().insert("x-amzn-requestid", id);
    }
    answer
}

/// Percent-decoding to UTF-8; `plus` also turns `+` into a space, as forms do. `None` for broken escapes.
fn percent_decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// How texts spell the floats that are no numbers.
fn non_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

#[cfg(test)]
mod tests;
