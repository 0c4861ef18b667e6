//! Which part of the engine a request is for, from its head alone.

use crate::names::{self, HostMeaning};
use http::Method;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use isolarium_model::Scope;
use isolarium_wire::protocol::{Dialect, Protocol};
use isolarium_wire::sigv4::{AuthFault, Parsed};
use std::sync::Arc;

/// The part of the engine that answers.
#[derive(Debug)]
pub enum Route {
    /// An AWS API in this language.
    Api(Dialect),
    S3,
    Registry,
    /// A notebook instance: where it would be, and its name in lower case.
    Notebook(Scope, String),
}

/// What a way leads to, whatever the request says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    S3,
    Registry,
    Notebook,
    /// One API, by its signing name and its name in `models/`.
    Api {
        signing_name: &'static str,
        service: &'static str,
    },
}

impl Only {
    /// The route of a request that came this way; `None`: it is for something else. `notebook` is the instance that its host
    /// stands for.
    pub fn route(self, parts: &Parts, notebook: Option<(Scope, String)>) -> Option<Route> {
        match self {
            Self::S3 => Some(Route::S3),
            Self::Registry => Some(Route::Registry),
            Self::Notebook => notebook.map(|(scope, name)| Route::Notebook(scope, name)),
            Self::Api { signing_name, service } => {
                let dialect = Dialect::of(parts, Some(signing_name));
                let is_own = dialect.service.is_some_and(|entry| entry.name == service);
                is_own.then_some(Route::Api(dialect))
            }
        }
    }
}

/// The host a request was sent to, without its port.
pub fn host(parts: &Parts) -> Option<&str> {
    let text = match parts.headers.get(HOST) {
        Some(value) => value.to_str().ok()?,
        None => return parts.uri.host(),
    };
    // An IPv6 address keeps its colons inside brackets.
    match text.rfind(']') {
        Some(end) => text.get(..=end),
        None => text.split(':').next(),
    }
}

/// Chooses. `claim` is what the request says about who signed it, not yet believed.
///
/// A signature names its service. Without one the host name decides, then what only one part of the engine understands;
/// what remains is S3, whose paths can be anything.
pub fn route(parts: &Parts, claim: &Result<Arc<Parsed>, AuthFault>) -> Route {
    if let Ok(parsed) = claim {
        return match &parsed.scope {
            None => Route::S3,
            Some(scope) if scope.service == "s3" => Route::S3,
            Some(scope) => Route::Api(Dialect::of(parts, Some(&scope.service))),
        };
    }
    let path = parts.uri.path();
    let meaning = host(parts).and_then(names::meaning);
    let by_host = match &meaning {
        Some(HostMeaning::Registry { .. }) => Some(Route::Registry),
        Some(HostMeaning::S3 { .. } | HostMeaning::S3Bucket { .. }) => Some(Route::S3),
        Some(HostMeaning::Service { signing_name, .. }) => Some(Route::Api(Dialect::of(parts, Some(signing_name)))),
        // Told before, with the operator's own names.
        Some(HostMeaning::Notebook { .. }) | None => None,
    };
    if let Some(route) = by_host {
        return route;
    }
    if path == "/v2" || path.starts_with("/v2/") {
        return Route::Registry;
    }
    let dialect = Dialect::of(parts, None);
    let understood = match dialect.protocol {
        Protocol::Json => parts.headers.contains_key("x-amz-target") || is_json(parts),
        Protocol::Query | Protocol::Ec2 => path == "/",
        Protocol::RestJson | Protocol::Cbor => true,
    };
    // A claim for S3 that cannot be read is still a claim for S3.
    let claims_s3 = parts.headers.get(AUTHORIZATION).is_some_and(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.contains("/s3/aws4_request") || text.starts_with("AWS "))
    });
    if understood && !claims_s3 {
        Route::Api(dialect)
    } else {
        Route::S3
    }
}

/// A POST to the root in one of the JSON protocols' media types is for an API even when it names no target.
fn is_json(parts: &Parts) -> bool {
    let media = parts
        .headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    parts.method == Method::POST && media.is_some_and(|media| media.starts_with("application/x-amz-json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use isolarium_wire::sigv4::{self, Accept, Head};

    fn routed(method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let claim = sigv4::parse(&Head::from(&parts), Accept { sigv2_query: true }).map(Arc::new);
        match route(&parts, &claim) {
            Route::S3 => "s3".into(),
            Route::Registry => "registry".into(),
            Route::Notebook(_, name) => format!("notebook {name}"),
            Route::Api(dialect) => format!(
                "{:?} {}",
                dialect.protocol,
                dialect.service.map_or("-", |entry| entry.name)
            ),
        }
    }

    fn signed(service: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature={}",
            "0".repeat(64)
        )
    }

    /// Proves: SM-1, SM-2
    #[test]
    fn a_signature_names_the_service() {
        let sagemaker = signed("sagemaker");
        let (s3, iam) = (signed("s3"), signed("iam"));
        let date = ("x-amz-date", "20260101T000000Z");
        let sha = ("x-amz-content-sha256", "UNSIGNED-PAYLOAD");
        for (method, uri, headers, want) in [
            (
                "POST",
                "/",
                vec![
                    ("authorization", sagemaker.as_str()),
                    date,
                    ("x-amz-target", "SageMaker.ListModels"),
                ],
                "Json sagemaker",
            ),
            (
                "POST",
                "/endpoints/e/invocations",
                vec![("authorization", sagemaker.as_str()), date],
                "RestJson sagemaker-runtime",
            ),
            ("POST", "/", vec![("authorization", iam.as_str()), date], "Query iam"),
            ("PUT", "/v2/key", vec![("authorization", s3.as_str()), date, sha], "s3"),
            (
                "POST",
                "/endpoints/e/invocations",
                vec![("authorization", s3.as_str()), date, sha],
                "s3",
            ),
        ] {
            assert_eq!(routed(method, uri, &headers), want, "{method} {uri}");
        }
    }

    #[test]
    fn without_a_signature_host_and_form_decide() {
        let form = ("content-type", "application/x-www-form-urlencoded");
        let json = ("content-type", "application/x-amz-json-1.1");
        for (method, uri, headers, want) in [
            ("GET", "/v2/", vec![], "registry"),
            (
                "PUT",
                "/v2/repo/blobs/uploads/1",
                vec![("authorization", "Basic QVdTOng=")],
                "registry",
            ),
            (
                "GET",
                "/v2/key",
                vec![("host", "data.s3.us-east-1.amazonaws.com")],
                "s3",
            ),
            (
                "GET",
                "/token",
                vec![("host", "123456789012.dkr.ecr.us-east-1.amazonaws.com:443")],
                "registry",
            ),
            ("GET", "/v2x", vec![], "s3"),
            ("GET", "/", vec![], "s3"),
            ("GET", "/bucket/key", vec![("host", "[::1]:4599")], "s3"),
            (
                "POST",
                "/bucket",
                vec![("content-type", "multipart/form-data; boundary=x")],
                "s3",
            ),
            (
                "POST",
                "/",
                vec![("x-amz-target", "SageMaker.ListModels"), json],
                "Json sagemaker",
            ),
            ("POST", "/", vec![json], "Json -"),
            ("POST", "/", vec![form], "Query -"),
            ("GET", "/?Action=ListUsers&Version=2010-05-08", vec![], "Query -"),
            ("POST", "/", vec![("host", "iam.amazonaws.com"), form], "Query iam"),
            ("POST", "/endpoints/e/invocations", vec![], "RestJson sagemaker-runtime"),
            (
                "POST",
                "/service/GraniteServiceVersion20100801/operation/ListMetrics",
                vec![("smithy-protocol", "rpc-v2-cbor")],
                "Cbor cloudwatch",
            ),
        ] {
            assert_eq!(routed(method, uri, &headers), want, "{method} {uri} {headers:?}");
        }
    }
}
