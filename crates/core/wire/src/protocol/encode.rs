//! From an outcome to an HTTP response.

use super::{Call, Protocol, cbor, json, json_type, refuse, rest, with_id, xml};
use crate::catalog::service::{Kind, Service, Structure};
use crate::{ApiError, Document};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use indexmap::IndexMap;

/// Writes the answer of a decoded request. Where [`Service::streams_output`] says so, a success has an empty body that
/// the caller replaces by the stream.
pub fn encode(call: &Call, outcome: &Result<Document, ApiError>, request_id: &str) -> Response<Bytes> {
    match outcome {
        Ok(output) => success(call, output, request_id),
        Err(error) => refuse(&call.dialect, error, request_id),
    }
}

fn success(call: &Call, output: &Document, request_id: &str) -> Response<Bytes> {
    let Call {
        dialect,
        service,
        operation,
    } = *call;
    let empty = IndexMap::new();
    let members = if let Document::Map(members) = output {
        members
    } else {
        &empty
    };
    let structure = operation.output.and_then(|id| service.structure(id));
    let mut answer = Response::new(Bytes::new());
    let mut status = operation.status;
    let mut body = Vec::new();
    let mut content_type = None;
    match (dialect.protocol, structure) {
        (Protocol::Json, structure) => {
            content_type = Some(json_type(&dialect));
            if let Some(structure) = structure {
                json::write(service, structure, members, &mut body);
            }
        }
        (Protocol::Cbor, structure) => {
            if let Some(structure) = structure {
                content_type = Some("application/cbor");
                cbor::write(service, structure, members, &mut body);
            }
            answer
                .headers_mut()
                .insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
        }
        (Protocol::RestJson, None) => {}
        (Protocol::RestJson, Some(structure)) => {
            content_type = write_rest_body(service, structure, members, &mut body);
            // Last, because a member may be the Content-Type itself.
            let type_of_body = content_type.take().map(HeaderValue::from_static);
            answer
                .headers_mut()
                .extend(type_of_body.map(|value| (CONTENT_TYPE, value)));
            status = rest::write_head(service, structure, members, answer.headers_mut()).unwrap_or(status);
        }
        (Protocol::Query | Protocol::Ec2, structure) => {
            content_type = Some("text/xml;charset=utf-8");
            body = xml_answer(call, structure, members, request_id).into_bytes();
        }
    }
    if let Some(content_type) = content_type {
        answer
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    *answer.body_mut() = body.into();
    with_id(answer, request_id)
}
fn write_rest_body(
    service: &Service,
    structure: &Structure,
    members: &IndexMap<String, Document>,
    body: &mut Vec<u8>,
) -> Option<&'static str> {
    let Some(payload) = structure.payload.and_then(|name| structure.member(name)) else {
        json::write(service, structure, members, body);
        return Some("application/json");
    };
    match (&service.shape(payload.shape).kind, members.get(payload.name)) {
        (Kind::Structure(inner), _) if inner.event_stream => Some("application/vnd.amazon.eventstream"),
        (Kind::Structure(inner), Some(Document::Map(value))) => {
            json::write(service, inner, value, body);
            Some("application/json")
        }
        (Kind::Text(_), Some(Document::String(text))) => {
            body.extend_from_slice(text.as_bytes());
            None
        }
        _ => None,
    }
}

fn xml_answer(
    call: &Call,
    structure: Option<&Structure>,
    members: &IndexMap<String, Document>,
    request_id: &str,
) -> String {
    let ec2 = call.dialect.protocol == Protocol::Ec2;
    let root = format!("{}Response", call.operation.name);
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{root} xmlns=\"{}\">",
        call.service.xml_namespace()
    );
    let write = |out: &mut String| {
        if let Some(structure) = structure {
            xml::write(call.service, structure, members, ec2, out);
        }
    };
    if ec2 {
        xml::element("requestId", request_id, &mut out);
        write(&mut out);
        // Operations without output answer `return`, which older clients read.
        if structure.is_none() {
            xml::element("return", "true", &mut out);
        }
    } else {
        match call.operation.result_wrapper {
            Some(wrapper) => xml::within(wrapper, &mut out, write),
            None => write(&mut out),
        }
        xml::within("ResponseMetadata", &mut out, |out| {
            xml::element("RequestId", request_id, out)
        });
    }
    out.push_str(&format!("</{root}>"));
    out
}
