//! From an error to an HTTP response.

use super::{Dialect, Protocol, cbor, fault, json, json_type, with_id, xml};
use crate::catalog::Entry;
use crate::catalog::service::{Service, Structure};
use crate::{ApiError, Document};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use indexmap::IndexMap;

/// Writes an error in the language of the request.
pub fn refuse(dialect: &Dialect, error: &ApiError, request_id: &str) -> Response<Bytes> {
    let service = dialect.service.map(Entry::model);
    let spelling = fault::spell(dialect.protocol, service, error);
    let sender = spelling.status < 500;
    let mut answer = Response::new(Bytes::new());
    let headers = answer.headers_mut();
    let body = match dialect.protocol {
        Protocol::Json | Protocol::RestJson => {
            let rest = dialect.protocol == Protocol::RestJson;
            let content_type = if rest { "application/json" } else { json_type(dialect) };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            if rest {
                headers.extend(HeaderValue::from_str(spelling.code).map(|code| (ERROR_TYPE, code)));
            }
            json_error(service, error, &spelling, rest)
        }
        Protocol::Cbor => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cbor"));
            headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
            cbor_error(service, error, &spelling)
        }
        Protocol::Query | Protocol::Ec2 => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml;charset=utf-8"));
            xml_error(dialect, service, error, &spelling, request_id).into_bytes()
        }
    };
    let compatible =
        matches!(dialect.protocol, Protocol::Json | Protocol::Cbor) && service.is_some_and(Service::query_compatible);
    if compatible {
        let text = format!("{};{}", spelling.query_code, if sender { "Sender" } else { "Receiver" });
        headers.extend(HeaderValue::from_str(&text).map(|text| (QUERY_ERROR, text)));
    }
    *answer.status_mut() = StatusCode::from_u16(spelling.status).unwrap_or(StatusCode::BAD_REQUEST);
    *answer.body_mut() = body.into();
    with_id(answer, request_id)
}

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const QUERY_ERROR: HeaderName = HeaderName::from_static("x-amzn-query-error");

/// The shape of a modelled error and the name of the member that is its message.
fn error_shape<'a>(
    service: Option<&'a Service>,
    error: &ApiError,
    otherwise: &'static str,
) -> (Option<&'a Structure>, &'static str) {
    let structure = fault::modelled(service, error).and_then(|shape| service?.structure(shape.shape));
    let modelled = structure.and_then(|s| {
        s.members
            .iter()
            .find(|member| member.name.eq_ignore_ascii_case("message"))
    });
    (structure, modelled.map_or(otherwise, |member| member.wire_name()))
}

fn json_error(service: Option<&Service>, error: &ApiError, spelling: &fault::Spelling<'_>, rest: bool) -> Vec<u8> {
    let (structure, message) = error_shape(service, error, if rest { "Message" } else { "message" });
    let mut out = b"{".to_vec();
    if !rest {
        out.extend_from_slice(b"\"__type\":");
        json::write_text(spelling.code, &mut out);
        out.push(b',');
    }
    json::write_text(message, &mut out);
    out.push(b':');
    json::write_text(&error.message, &mut out);
    let mut members = Vec::new();
    match (service, structure) {
        (Some(service), Some(structure)) => json::write(service, structure, &error.members, &mut members),
        _ => json::write_plain(&Document::Map((*error.members).clone()), &mut members),
    }
    // The members' own braces become part of this object.
    if members.len() > 2 {
        out.push(b',');
        out.extend_from_slice(members.get(1..members.len() - 1).unwrap_or_default());
    }
    out.push(b'}');
    out
}

fn cbor_error(service: Option<&Service>, error: &ApiError, spelling: &fault::Spelling<'_>) -> Vec<u8> {
    let (_, message) = error_shape(service, error, "message");
    let mut members = IndexMap::new();
    members.insert("__type".to_owned(), Document::String(spelling.code.to_owned()));
    members.insert(message.to_owned(), Document::String(error.message.clone()));
    members.extend((*error.members).clone());
    let mut out = Vec::new();
    cbor::write_plain(&Document::Map(members), &mut out);
    out
}

fn xml_error(
    dialect: &Dialect,
    service: Option<&Service>,
    error: &ApiError,
    spelling: &fault::Spelling<'_>,
    request_id: &str,
) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    if dialect.protocol == Protocol::Ec2 {
        xml::within("Response", &mut out, |out| {
            xml::within("Errors", out, |out| {
                xml::within("Error", out, |out| {
                    xml::element("Code", spelling.code, out);
                    xml::element("Message", &error.message, out);
                });
            });
            xml::element("RequestID", request_id, out);
        });
        return out;
    }
    let namespace = service.map(Service::xml_namespace).unwrap_or_default();
    out.push_str(&format!("<ErrorResponse xmlns=\"{namespace}\">"));
    xml::within("Error", &mut out, |out| {
        xml::element("Type", if spelling.status < 500 { "Sender" } else { "Receiver" }, out);
        xml::element("Code", spelling.code, out);
        xml::element("Message", &error.message, out);
        if let (Some(service), (Some(structure), _)) = (service, error_shape(service, error, "message")) {
            xml::write(service, structure, &error.members, false, out);
        }
    });
    xml::element("RequestId", request_id, &mut out);
    out.push_str("</ErrorResponse>");
    out
}
