//! What an error is called and which status it has in each protocol (SM-3, IAM-47, IAM-48, NET-80).

use super::Protocol;
use crate::ApiError;
use crate::catalog::service::{ErrorShape, Service};

/// An error as one protocol spells it.
#[derive(Debug, PartialEq)]
pub struct Spelling<'a> {
    pub code: &'a str,
    /// The code of the query protocols, for `x-amzn-query-error`.
    pub query_code: &'a str,
    pub status: u16,
}

/// Codes that every service has, under the names of JSON services: (JSON, query, its status, EC2, its status).
const COMMON: &[(&str, &str, u16, &str, u16)] = &[
    (
        "AccessDeniedException",
        "AccessDenied",
        403,
        "UnauthorizedOperation",
        403,
    ),
    (
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        403,
        "AuthFailure",
        401,
    ),
    (
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        403,
        "AuthFailure",
        401,
    ),
    (
        "IncompleteSignatureException",
        "IncompleteSignature",
        400,
        "AuthFailure",
        401,
    ),
    (
        "MissingAuthenticationTokenException",
        "MissingAuthenticationToken",
        403,
        "AuthFailure",
        401,
    ),
    ("ExpiredTokenException", "ExpiredToken", 403, "RequestExpired", 400),
    ("ThrottlingException", "Throttling", 400, "RequestLimitExceeded", 503),
    ("UnknownOperationException", "InvalidAction", 400, "InvalidAction", 400),
    (
        "SerializationException",
        "MalformedInput",
        400,
        "InvalidParameterValue",
        400,
    ),
    (
        "ValidationException",
        "ValidationError",
        400,
        "InvalidParameterValue",
        400,
    ),
    ("InternalFailure", "InternalFailure", 500, "InternalError", 500),
    ("ServiceUnavailable", "ServiceUnavailable", 503, "Unavailable", 503),
];

/// The modelled error, where the service has one of this code.
pub fn modelled<'a>(service: Option<&'a Service>, error: &ApiError) -> Option<&'a ErrorShape> {
    service.and_then(|service| service.error(&error.code))
}

/// Spells an error. A modelled error has the model's status; others have the protocol's for common codes and the
/// handler's for the rest.
pub fn spell<'a>(protocol: Protocol, service: Option<&'a Service>, error: &'a ApiError) -> Spelling<'a> {
    if let Some(shape) = modelled(service, error) {
        let query_code = shape.query_code.unwrap_or(shape.name);
        let code = if matches!(protocol, Protocol::Query | Protocol::Ec2) {
            query_code
        } else {
            shape.name
        };
        return Spelling {
            code,
            query_code,
            status: shape.status.unwrap_or(error.status),
        };
    }
    let common = COMMON
        .iter()
        .find(|(json, query, ..)| *json == error.code || *query == error.code);
    let Some(&(json, query, query_status, ec2, ec2_status)) = common else {
        return Spelling {
            code: &error.code,
            query_code: &error.code,
            status: error.status,
        };
    };
    match protocol {
        Protocol::Query => Spelling {
            code: query,
            query_code: query,
            status: query_status,
        },
        Protocol::Ec2 => Spelling {
            code: ec2,
            query_code: ec2,
            status: ec2_status,
        },
        // JSON 1.1 denials are 400, REST's are 403.
        Protocol::RestJson if query_status == 403 => Spelling {
            code: json,
            query_code: query,
            status: 403,
        },
        _ => Spelling {
            code: json,
            query_code: query,
            status: error.status,
        },
    }
}
