//! From an HTTP request to a checked document.

use super::{Call, Dialect, FORM, Protocol, Request, cbor, cbor_path, json, media_type, query, rest, target};
use crate::catalog::service::{Kind, Service, Structure};
use crate::catalog::{self, Entry};
use crate::check::check;
use crate::{ApiError, Document};
use flate2::read::GzDecoder;
use http::Method;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use indexmap::IndexMap;
use std::borrow::Cow;
use std::io::Read;

/// Reads a request and checks it against the service's model.
///
/// `body` is the whole body, or empty where [`Dialect::streams_body`] says that it travels beside the request. `limit`
/// is the largest body in bytes, also after unpacking.
///
/// # Errors
/// AWS's error for what is wrong with the request; encode it with [`refuse`].
pub fn decode(dialect: &Dialect, head: &Parts, body: &[u8], limit: usize) -> Result<Request, ApiError> {
    let body = unpacked(head, body, limit)?;
    match dialect.protocol {
        Protocol::Json => decode_json(dialect, head, &body),
        Protocol::Cbor => decode_cbor(dialect, head, &body),
        Protocol::RestJson => decode_rest(dialect, head, &body),
        Protocol::Query | Protocol::Ec2 => decode_query(dialect, head, &body),
    }
}

fn unpacked<'a>(head: &Parts, body: &'a [u8], limit: usize) -> Result<Cow<'a, [u8]>, ApiError> {
    if body.len() > limit {
        return Err(ApiError::too_large(limit));
    }
    let packed = head
        .headers
        .get(CONTENT_ENCODING)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"gzip"));
    if !packed || body.is_empty() {
        return Ok(body.into());
    }
    let mut unpacked = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = GzDecoder::new(body).take(most).read_to_end(&mut unpacked);
    read.map_err(|_| serialization("The body is not valid gzip.".into()))?;
    if unpacked.len() > limit {
        Err(ApiError::too_large(limit))
    } else {
        Ok(unpacked.into())
    }
}

fn serialization(text: String) -> ApiError {
    ApiError::client("SerializationException", text)
}

fn find(entry: Option<&'static Entry>, dialect: &Dialect, name: &str) -> Result<Call, ApiError> {
    let entry = entry.filter(|entry| entry.protocols.contains(&dialect.protocol));
    let service = entry
        .map(Entry::model)
        .ok_or_else(|| ApiError::unknown_operation(name))?;
    let operation = service
        .operation(name)
        .ok_or_else(|| ApiError::unknown_operation(name))?;
    Ok(Call {
        dialect: Dialect {
            service: entry,
            ..*dialect
        },
        service,
        operation,
    })
}

/// Reads the input's members with `read`, then checks them.
fn finish(
    call: Call,
    read: impl FnOnce(&'static Service, &'static Structure) -> Result<IndexMap<String, Document>, String>,
) -> Result<Request, ApiError> {
    let Some((id, structure)) = call
        .operation
        .input
        .and_then(|id| Some((id, call.service.structure(id)?)))
    else {
        return Ok(Request {
            call,
            input: Document::Map(IndexMap::new()),
        });
    };
    let input = Document::Map(read(call.service, structure).map_err(serialization)?);
    check(call.service, call.dialect.protocol, id, &input)?;
    Ok(Request { call, input })
}

fn decode_json(dialect: &Dialect, head: &Parts, body: &[u8]) -> Result<Request, ApiError> {
    let target = target(head).unwrap_or_default();
    let (_, name) = target.rsplit_once('.').unwrap_or(("", target));
    if head.method != Method::POST {
        return Err(ApiError::unknown_operation(name));
    }
    let media = media_type(head).unwrap_or_default().to_ascii_lowercase();
    if !matches!(
        media.as_str(),
        "application/x-amz-json-1.0" | "application/x-amz-json-1.1"
    ) {
        return Err(ApiError::client(
            "UnknownOperationException",
            format!("The content type '{media}' is not one of application/x-amz-json-1.0, application/x-amz-json-1.1."),
        ));
    }
    let call = find(dialect.service, dialect, name)?;
    refused_member(&call, body)?;
    finish(call, |service, structure| json::read(service, structure, body))
}

/// BT-1: a transform job takes its VPC from its model, so a VpcConfig of its own is refused instead of ignored.
fn refused_member(call: &Call, body: &[u8]) -> Result<(), ApiError> {
    #[derive(serde::Deserialize)]
    struct Given {
        #[serde(rename = "VpcConfig")]
        vpc_config: Option<serde::de::IgnoredAny>,
    }
    if (call.service.name(), call.operation.name) != ("sagemaker", "CreateTransformJob") {
        return Ok(());
    }
    match serde_json::from_slice::<Given>(body) {
        Ok(Given { vpc_config: Some(_) }) => Err(ApiError::validation(
            "CreateTransformJob does not take VpcConfig: a transform job uses the VpcConfig of its model.",
        )),
        // What is no JSON is refused by the decoder, with its own text.
        _ => Ok(()),
    }
}

fn decode_cbor(dialect: &Dialect, head: &Parts, body: &[u8]) -> Result<Request, ApiError> {
    let (_, name) = cbor_path(head.uri.path()).unwrap_or_default();
    if head.method != Method::POST {
        return Err(ApiError::unknown_operation(name));
    }
    if !body.is_empty() && media_type(head) != Some("application/cbor") {
        return Err(serialization("The content type is not application/cbor.".into()));
    }
    let call = find(dialect.service, dialect, name)?;
    finish(call, |service, structure| cbor::read(service, structure, body))
}

fn decode_rest(dialect: &Dialect, head: &Parts, body: &[u8]) -> Result<Request, ApiError> {
    let path = head.uri.path();
    let shown = || format!("{} {path}", head.method);
    let service = dialect
        .rest_service()
        .ok_or_else(|| ApiError::unknown_operation(&shown()))?;
    let operation = dialect
        .rest
        .ok_or_else(|| ApiError::unknown_operation(&shown()).with_status(404))?;
    let call = Call {
        dialect: *dialect,
        service,
        operation,
    };
    finish(call, |service, structure| {
        let payload = structure.payload.and_then(|name| structure.member(name));
        let mut members = match payload.map(|member| (member, &service.shape(member.shape).kind)) {
            // The body is one member: a structure here, a blob beside the request, or plain text.
            Some((member, Kind::Structure(inner))) => {
                let inner = json::read(service, inner, body)?;
                IndexMap::from([(member.name.to_owned(), Document::Map(inner))])
            }
            Some((member, Kind::Text(_))) if !body.is_empty() => {
                let text = std::str::from_utf8(body).map_err(|_| "The body is not UTF-8.")?;
                IndexMap::from([(member.name.to_owned(), Document::String(text.to_owned()))])
            }
            Some(_) => IndexMap::new(),
            None => json::read(service, structure, body)?,
        };
        rest::read_head(service, operation, structure, head, &mut members)?;
        Ok(members)
    })
}

fn decode_query(dialect: &Dialect, head: &Parts, body: &[u8]) -> Result<Request, ApiError> {
    let has_form = media_type(head).is_some_and(|media| media.eq_ignore_ascii_case(FORM));
    if !body.is_empty() && !has_form {
        return Err(serialization(format!("The content type is not {FORM}.")));
    }
    let body = std::str::from_utf8(body).map_err(|_| serialization("The form is not UTF-8.".into()))?;
    let form = query::Form::parse([head.uri.query().unwrap_or_default(), body]).map_err(serialization)?;
    let version = form.get("Version");
    let entry = dialect.service.or_else(|| version.and_then(catalog::by_version));
    let Some(action) = form.get("Action").filter(|action| !action.is_empty()) else {
        return Err(ApiError::client(
            "MissingAction",
            "The request must contain the parameter Action.",
        ));
    };
    let unknown = || {
        let version = version.unwrap_or("(none)");
        ApiError::client(
            "InvalidAction",
            format!("Could not find operation {action} for version {version}."),
        )
    };
    let entry = entry
        .filter(|entry| version.is_none_or(|version| version == entry.api_version))
        .ok_or_else(unknown)?;
    // An unsigned request learns its protocol here.
    let dialect = Dialect {
        protocol: entry.query_protocol().unwrap_or(dialect.protocol),
        ..*dialect
    };
    let call = find(Some(entry), &dialect, action).map_err(|_| unknown())?;
    let ec2 = dialect.protocol == Protocol::Ec2;
    finish(call, |service, structure| query::read(service, structure, &form, ec2))
}
