//! Requests as clients write them, through VPC endpoints with the documented policies: decoded by the wire, asked about by
//! the services, decided by the engine. P1 to P3 are tried likewise in `s3/tests/rights.rs`.

use crate::audit::authorize;
use crate::ecr::fixture::Fixture;
use crate::iam::tests::user_caller;
use crate::sagemaker::invocation_question;
use crate::{Caller, Dispatch, EndpointSource, Source};
use http::Request;
use isolarium_policy::ResourceSide;
use isolarium_wire::protocol::{self, Dialect, decode};
use isolarium_wire::{ApiError, Document};

const ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
/// Everything for everybody, as endpoints have it that were given no policy.
const OPEN: &str = r#"{"Statement":[{"Action":"*","Effect":"Allow","Resource":"*","Principal":"*"}]}"#;
/// Fixture P4.
const P4: &str = r#"{"Statement":[{"Action":"sagemaker:InvokeEndpoint","Effect":"Allow",
    "Resource":"arn:aws:sagemaker:us-east-1:123456789012:endpoint/myEndpoint","Principal":"*"}]}"#;

/// A call of the SageMaker API as a client sends it.
fn api(operation: &str, body: &str) -> protocol::Request {
    let head = Request::post("/")
        .header("host", "api.sagemaker.us-east-1.amazonaws.com")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("SageMaker.{operation}"));
    decoded(head, body)
}

/// An invocation as a client sends it.
fn invocation(path: &str) -> protocol::Request {
    let head = Request::post(path).header("host", "runtime.sagemaker.us-east-1.amazonaws.com");
    decoded(head, "")
}

fn decoded(head: http::request::Builder, body: &str) -> protocol::Request {
    let (parts, ()) = head.body(()).unwrap().into_parts();
    let dialect = Dialect::of(&parts, Some("sagemaker"));
    decode(&dialect, &parts, body.as_bytes(), 1 << 20).unwrap_or_else(|error| panic!("{}: {error:?}", parts.uri))
}

/// What becomes of a request: denied with these words, or let through, whatever the handler then finds.
fn denial(lab: &Fixture, caller: &Caller, request: protocol::Request) -> Option<String> {
    let ctx = lab.ctx(caller);
    let (service, operation) = (request.call.service.name(), request.call.operation.name);
    let outcome = if service == "sagemaker-runtime" {
        let Document::Map(members) = &request.input else {
            panic!("an input has members")
        };
        let Some(Document::String(name)) = members.get("EndpointName") else {
            panic!("an invocation names its endpoint")
        };
        let question = invocation_question(&caller.scope, operation, name, &request.input);
        let authority = crate::iam::authority(&ctx).unwrap();
        authorize(caller, (), &authority, &[question], &|_| ResourceSide::default())
            .map(|_| Document::Bool(true))
            .map_err(|denial| ApiError::client("AccessDeniedException", denial.to_string()))
    } else {
        Dispatch::default()
            .call(service, operation, request.input, &ctx)
            .unwrap()
    };
    outcome
        .err()
        .filter(|error| error.code == "AccessDeniedException")
        .map(|error| error.message)
}

/// The same caller through an interface endpoint with this policy, or one that takes none.
fn through(caller: &Caller, policy: Option<&str>) -> Caller {
    let source = Source::Endpoint(EndpointSource {
        vpc_id: "vpc-0a".into(),
        endpoint_id: "vpce-0a".into(),
        region: "us-east-1".parse().unwrap(),
        address: [10, 0, 1, 7].into(),
        secure: true,
        gateway: false,
        policy: policy.map(Into::into),
    });
    Caller {
        source,
        ..caller.clone()
    }
}

const OTHER: &str = "/endpoints/other/invocations";

/// Calls that P4 does not name.
fn unnamed() -> Vec<protocol::Request> {
    vec![
        invocation(OTHER),
        invocation("/endpoints/myEndpoint/invocations-response-stream"),
        api("ListModels", "{}"),
        api("DescribeEndpoint", r#"{"EndpointName":"myEndpoint"}"#),
        api(
            "CreateEndpoint",
            r#"{"EndpointName":"myEndpoint","EndpointConfigName":"c"}"#,
        ),
    ]
}

/// Proves: IAM-30, IAM-33, IAM-35, PL-24, PL-25, PL-26, PL-27
#[test]
fn p4_lets_one_endpoint_be_invoked_through_its_endpoint_and_has_no_effect_outside() {
    let lab = Fixture::new();
    let public = user_caller(&lab, "alice", Some(ALL));
    let inside = through(&public, Some(P4));
    for name in ["myEndpoint", "myendpoint"] {
        let path = format!("/endpoints/{name}/invocations");
        assert_eq!(denial(&lab, &inside, invocation(&path)), None, "{name}");
    }
    for (at, request) in unnamed().into_iter().enumerate() {
        let operation = request.call.operation.name;
        let told = denial(&lab, &inside, request).unwrap_or_else(|| panic!("{at}: {operation} is let through"));
        assert!(
            told.contains("because no VPC endpoint policy allows the sagemaker:"),
            "{told}"
        );
    }
    // The same caller by the public side, and through an endpoint that was given no policy.
    for caller in [&public, &through(&public, Some(OPEN))] {
        for request in unnamed() {
            let operation = request.call.operation.name;
            assert_eq!(denial(&lab, caller, request), None, "{operation} {:?}", caller.source);
        }
    }
    // The policy gives nothing that the caller has not.
    let nobody = through(&user_caller(&lab, "bob", None), Some(P4));
    let told = denial(&lab, &nobody, invocation("/endpoints/myEndpoint/invocations")).unwrap();
    assert!(told.contains("no identity-based policy"), "{told}");
}

/// Proves: IAM-38, PL-28
#[test]
fn identity_policies_can_keep_api_and_runtime_to_a_vpc_or_an_endpoint() {
    let lab = Fixture::new();
    let conditions = [
        (r#"{"StringEquals":{"aws:SourceVpc":"vpc-0a"}}"#, true),
        (r#"{"StringEquals":{"aws:SourceVpc":"vpc-0b"}}"#, false),
        (r#"{"StringEquals":{"aws:SourceVpce":["vpce-0a","vpce-0b"]}}"#, true),
        (r#"{"ForAnyValue:StringEquals":{"aws:SourceVpce":["vpce-0b"]}}"#, false),
    ];
    for (at, (condition, passes)) in conditions.into_iter().enumerate() {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"sagemaker:*","Resource":"*","Condition":{condition}}}]}}"#
        );
        let public = user_caller(&lab, &format!("user-{at}"), Some(&text));
        let inside = through(&public, Some(OPEN));
        for request in [|| invocation(OTHER), || api("ListModels", "{}")] {
            assert_eq!(
                denial(&lab, &inside, request()).is_none(),
                passes,
                "{condition} through the endpoint"
            );
            assert!(
                denial(&lab, &public, request()).is_some(),
                "{condition} by the public side"
            );
        }
    }
}

/// Proves: IAM-34
#[test]
fn an_endpoint_of_the_fips_runtime_narrows_no_invocation() {
    let lab = Fixture::new();
    let public = user_caller(&lab, "alice", Some(ALL));
    assert_eq!(denial(&lab, &through(&public, None), invocation(OTHER)), None);
    assert!(
        denial(&lab, &through(&public, Some(P4)), invocation(OTHER)).is_some(),
        "control: any other endpoint's policy does"
    );
    // It opens nothing either, and where the request came from is still told.
    let nobody = user_caller(&lab, "bob", None);
    assert!(denial(&lab, &through(&nobody, None), invocation(OTHER)).is_some());
    let kept = ALL.replace(
        r#""Resource""#,
        r#""Condition":{"StringEquals":{"aws:SourceVpce":"vpce-0a"}},"Resource""#,
    );
    let kept = user_caller(&lab, "carol", Some(&kept));
    assert_eq!(denial(&lab, &through(&kept, None), invocation(OTHER)), None);
    assert!(
        denial(&lab, &kept, invocation(OTHER)).is_some(),
        "control: by the public side"
    );
}
