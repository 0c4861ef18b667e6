//! Errors of every protocol.

use super::*;

fn refused(head: &Parts, signing_name: Option<&str>, error: &ApiError) -> (u16, String, Response<Bytes>) {
    let answer = refuse(&Dialect::of(head, signing_name), error, "id-1");
    (
        answer.status().as_u16(),
        String::from_utf8_lossy(answer.body()).into_owned(),
        answer,
    )
}

/// Proves: SM-3, IAM-48
#[test]
fn json_errors() {
    let head = json_head("SageMaker.DescribeModel");
    let (status, text, answer) = refused(&head, Some("sagemaker"), &ApiError::validation("no \"x\""));
    assert_eq!(
        (status, text.as_str()),
        (400, r#"{"__type":"ValidationException","message":"no \"x\""}"#)
    );
    assert_eq!(answer.headers()["x-amzn-requestid"], "id-1");
    let denied = ApiError::client("AccessDeniedException", "no");
    assert_eq!(refused(&head, Some("sagemaker"), &denied).0, 400);
    let (status, text, _) = refused(&head, Some("sagemaker"), &ApiError::internal("the disk is full"));
    assert_eq!(status, 500);
    assert!(
        text.contains("InternalFailure") && !text.contains("disk"),
        "the cause is for the log"
    );
}

/// Proves: SM-3, SM-58
#[test]
fn rest_errors_have_the_models_status_and_members() {
    let head = head("POST", "/endpoints/e/invocations", &[]);
    let error = ApiError::client("ModelError", "failed")
        .with_member("OriginalStatusCode", Document::Integer(500))
        .with_member("OriginalMessage", Document::String("oops".into()));
    let (status, text, answer) = refused(&head, Some("sagemaker"), &error);
    assert_eq!(
        (status, text.as_str()),
        (
            424,
            r#"{"Message":"failed","OriginalStatusCode":500,"OriginalMessage":"oops"}"#
        )
    );
    assert_eq!(answer.headers()["x-amzn-errortype"], "ModelError");
    assert_eq!(answer.headers()["content-type"], "application/json");
    for (code, status) in [
        ("ModelNotReadyException", 429),
        ("ServiceUnavailable", 503),
        ("InternalFailure", 500),
        ("InternalDependencyException", 530),
        ("ValidationError", 400),
    ] {
        assert_eq!(
            refused(&head, Some("sagemaker"), &ApiError::client(code, "x")).0,
            status,
            "{code}"
        );
    }
    assert_eq!(
        refused(
            &head,
            Some("sagemaker"),
            &ApiError::client("AccessDeniedException", "x")
        )
        .0,
        403
    );
}

/// Proves: IAM-48
#[test]
fn query_errors() {
    let error = ApiError::client("NoSuchEntity", "The role <r> cannot be found.");
    let (status, text, answer) = refused(&form_head(), Some("iam"), &error);
    assert_eq!(status, 404);
    assert_eq!(
        text,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">\
         <Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>The role &lt;r&gt; cannot be found.</Message></Error>\
         <RequestId>id-1</RequestId></ErrorResponse>"
    );
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/xml")
    );
    let (status, text, _) = refused(
        &form_head(),
        Some("iam"),
        &ApiError::client("AccessDeniedException", "no"),
    );
    assert!(status == 403 && text.contains("<Code>AccessDenied</Code>"));
    let (status, text, _) = refused(
        &form_head(),
        Some("sts"),
        &ApiError::client("InvalidSignatureException", "no"),
    );
    assert!(status == 403 && text.contains("<Code>SignatureDoesNotMatch</Code>"));
    let (status, text, _) = refused(&form_head(), Some("iam"), &ApiError::internal("x"));
    assert!(status == 500 && text.contains("<Type>Receiver</Type>"));
}

/// Proves: NET-80
#[test]
fn ec2_errors() {
    let error = ApiError::client("InvalidVpcID.NotFound", "The vpc ID 'v' does not exist");
    let (status, text, _) = refused(&form_head(), Some("ec2"), &error);
    assert_eq!(status, 400);
    assert_eq!(
        text,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>InvalidVpcID.NotFound</Code>\
         <Message>The vpc ID 'v' does not exist</Message></Error></Errors><RequestID>id-1</RequestID></Response>"
    );
    let dry = ApiError::client("DryRunOperation", "x").with_status(412);
    assert_eq!(refused(&form_head(), Some("ec2"), &dry).0, 412);
    let (status, text, _) = refused(
        &form_head(),
        Some("ec2"),
        &ApiError::client("AccessDeniedException", "no"),
    );
    assert!(status == 403 && text.contains("UnauthorizedOperation"));
}

#[test]
fn cbor_errors_name_their_query_code_too() {
    let error = ApiError::client("ResourceNotFound", "none");
    let (status, text, answer) = refused(&cbor_head("GetDashboard"), Some("monitoring"), &error);
    assert!((400..500).contains(&status));
    assert!(text.contains("__type") && text.contains("ResourceNotFound") && text.contains("none"));
    assert_eq!(answer.headers()["content-type"], "application/cbor");
    let query_error = answer.headers()["x-amzn-query-error"].to_str().unwrap();
    assert!(query_error.ends_with(";Sender"), "{query_error}");
    let json = head(
        "POST",
        "/",
        &[
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", "GraniteServiceVersion20100801.GetDashboard"),
        ],
    );
    let (_, _, answer) = refused(&json, Some("monitoring"), &error);
    assert_eq!(answer.headers()["content-type"], "application/x-amz-json-1.0");
    assert!(answer.headers().contains_key("x-amzn-query-error"));
}

/// Name; head and body; signing name; code and status of the answer.
type Case<'a> = (&'a str, (Parts, &'a str), Option<&'a str>, &'a str, u16);

/// Every way to ask for something that is not there, with the code and status of its answer.
#[test]
fn wrong_requests_get_aws_shaped_errors() {
    let form = |body: &'static str| (form_head(), body);
    let plain = head(
        "POST",
        "/",
        &[("x-amz-target", "SageMaker.ListModels"), ("content-type", "text/html")],
    );
    let none = head("POST", "/", &[("x-amz-target", "SageMaker.ListModels")]);
    let get = head("GET", "/", &[("x-amz-target", "SageMaker.ListModels")]);
    let cases: Vec<Case<'_>> = vec![
        (
            "no such operation",
            (json_head("SageMaker.Fly"), "{}"),
            None,
            "UnknownOperationException",
            400,
        ),
        (
            "no such target",
            (json_head("Bird.Fly"), "{}"),
            None,
            "UnknownOperationException",
            400,
        ),
        (
            "no dot",
            (json_head("Fly"), "{}"),
            None,
            "UnknownOperationException",
            400,
        ),
        (
            "target of a query service",
            (json_head("IAM.GetRole"), "{}"),
            Some("iam"),
            "UnknownOperationException",
            400,
        ),
        (
            "wrong content type",
            (plain, "{}"),
            None,
            "UnknownOperationException",
            400,
        ),
        ("no content type", (none, "{}"), None, "UnknownOperationException", 400),
        ("wrong method", (get, ""), None, "UnknownOperationException", 400),
        (
            "nothing at all",
            (head("POST", "/", &[]), ""),
            Some("sagemaker"),
            "UnknownOperationException",
            400,
        ),
        (
            "nobody at all",
            (head("PUT", "/a/b", &[]), ""),
            None,
            "UnknownOperationException",
            400,
        ),
        (
            "no JSON",
            (json_head("SageMaker.ListModels"), "{"),
            None,
            "SerializationException",
            400,
        ),
        (
            "no object",
            (json_head("SageMaker.ListModels"), "[]"),
            None,
            "SerializationException",
            400,
        ),
        (
            "text as list",
            (json_head("SageMaker.CreateModel"), r#"{"Tags":"x"}"#),
            None,
            "SerializationException",
            400,
        ),
        (
            "number as text",
            (json_head("SageMaker.CreateModel"), r#"{"ModelName":1}"#),
            None,
            "SerializationException",
            400,
        ),
        (
            "fraction",
            (json_head("SageMaker.ListModels"), r#"{"MaxResults":1.5}"#),
            None,
            "SerializationException",
            400,
        ),
        (
            "33 bits",
            (json_head("SageMaker.ListModels"), r#"{"MaxResults":4294967296}"#),
            None,
            "SerializationException",
            400,
        ),
        (
            "year 9e9",
            (json_head("SageMaker.ListModels"), r#"{"CreationTimeAfter":1e300}"#),
            None,
            "SerializationException",
            400,
        ),
        (
            "no action",
            form("Version=2010-05-08"),
            Some("iam"),
            "MissingAction",
            400,
        ),
        (
            "no such action",
            form("Action=Fly&Version=2010-05-08"),
            Some("iam"),
            "InvalidAction",
            400,
        ),
        (
            "no such version",
            form("Action=GetRole&Version=1999-01-01&RoleName=r"),
            Some("iam"),
            "InvalidAction",
            400,
        ),
        (
            "no such EC2 action",
            form("Action=Fly&Version=2016-11-15"),
            Some("ec2"),
            "InvalidAction",
            400,
        ),
        (
            "bad number",
            form("Action=ListRoles&Version=2010-05-08&MaxItems=x"),
            Some("iam"),
            "MalformedInput",
            400,
        ),
        (
            "bad escape",
            form("Action=GetRole&Version=2010-05-08&RoleName=%zz"),
            Some("iam"),
            "MalformedInput",
            400,
        ),
        (
            "JSON for query",
            (head("POST", "/", &[("content-type", "application/json")]), "{}"),
            Some("iam"),
            "MalformedInput",
            400,
        ),
        (
            "no such CBOR operation",
            (cbor_head("Fly"), ""),
            None,
            "UnknownOperationException",
            400,
        ),
        (
            "broken CBOR",
            (cbor_head("PutMetricData"), "\u{1}"),
            None,
            "SerializationException",
            400,
        ),
        (
            "wrong REST method",
            (head("GET", "/endpoints/e/invocations", &[]), ""),
            None,
            "UnknownOperationException",
            404,
        ),
    ];
    for (name, (head, body), signing_name, code, status) in cases {
        let error = decoded(&head, signing_name, body.as_bytes()).expect_err(name);
        let (got, text, answer) = refused(&head, signing_name, &error);
        assert_eq!(got, status, "{name}: {text}");
        let named = answer
            .headers()
            .get("x-amzn-errortype")
            .is_some_and(|value| value == code);
        assert!(text.contains(code) || named, "{name}: {text}");
        assert!(!text.to_lowercase().contains("<html"), "{name}");
    }
}

#[test]
fn large_bodies_and_unserved_operations_are_refused() {
    let head = json_head("SageMaker.ListModels");
    let dialect = Dialect::of(&head, None);
    assert!(decode(&dialect, &head, b"{}", 2).is_ok(), "control: the limit itself");
    let (status, text, _) = refused(&head, None, &decode(&dialect, &head, b"{ }", 2).unwrap_err());
    assert!(status == 413 && text.contains("RequestEntityTooLargeException"));
    let (status, text, _) = refused(&head, None, &ApiError::unsupported("sagemaker", "CreateDomain"));
    assert_eq!(status, 400);
    assert!(
        text.contains("UnsupportedOperation")
            && text.contains("CreateDomain")
            && text.contains("docs/compatibility.md")
    );
}
