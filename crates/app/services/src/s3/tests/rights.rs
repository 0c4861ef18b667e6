//! Who may do what: condition keys, VPC endpoints, public access, other accounts.

use super::*;
use crate::context::EndpointSource;
use serde_json::{Value, json};

const OWNER: &str = "123456789012";
const OTHER: &str = "999988887777";

type Headers<'a> = &'a [(&'a str, &'a str)];

/// A request with which a condition key has a value, and one with which it has none.
struct KeyCase<'a> {
    action: &'a str,
    key: &'a str,
    value: &'a str,
    method: Method,
    with: (&'a str, Headers<'a>),
    without: (&'a str, Headers<'a>),
}

/// Fixture P1: the actions of the S3 access policy.
const P1: [&str; 7] = [
    "s3:GetObject",
    "s3:PutObject",
    "s3:ListBucket",
    "s3:GetBucketLocation",
    "s3:DeleteObject",
    "s3:ListMultipartUploadParts",
    "s3:AbortMultipartUpload",
];

fn p1(resources: &Value) -> String {
    json!({"Version": "2008-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": P1, "Resource": resources}]})
    .to_string()
}

/// The same caller, but through a gateway endpoint with this policy.
fn through(mut caller: Caller, policy: &str) -> Caller {
    caller.source = Source::Endpoint(EndpointSource {
        vpc_id: "vpc-0a".into(),
        endpoint_id: "vpce-0a".into(),
        region: "us-east-1".parse().unwrap(),
        address: "10.0.1.7".parse().unwrap(),
        secure: true,
        gateway: true,
        policy: Some(policy.into()),
    });
    caller
}

impl Lab {
    /// The status of a request as any caller.
    async fn status(&self, caller: Caller, method: Method, target: &str, body: &[u8]) -> StatusCode {
        self.told(caller, method, target, body, &[]).await.0
    }

    async fn told(
        &self,
        caller: Caller,
        method: Method,
        target: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> (StatusCode, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("content-length", body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let answer = self.front.call(request, caller, BodyCheck::Done).await;
        let status = answer.status();
        let told = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&told).into_owned())
    }

    async fn set_policy(&self, statements: Value) {
        let text = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        let (status, told) = self.send(root(), Method::PUT, "/data?policy", text.as_bytes()).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{told}");
    }

    /// Gives the role one statement of its own.
    fn grant(&self, statement: Value) {
        let text = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
        self.policies.lock().unwrap().insert(ROLE.into(), text);
    }

    /// Whether the role is let through when its only right has this condition.
    async fn passes(
        &self,
        action: &str,
        condition: Value,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
    ) -> bool {
        self.grant(json!({"Effect": "Allow", "Action": action, "Resource": "*", "Condition": condition}));
        let (status, _) = self.told(caller(role()), method, target, b"", headers).await;
        status != StatusCode::FORBIDDEN
    }
}

/// Proves: NET-38
#[tokio::test]
async fn a_gateway_endpoint_leads_to_no_bucket_of_another_region() {
    let lab = Lab::ready().await;
    let mut far = caller(root());
    far.scope.region = "eu-west-1".parse().unwrap();
    let place = br#"<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>"#;
    assert_eq!(
        lab.status(far.clone(), Method::PUT, "/far", place).await,
        StatusCode::OK
    );
    assert_eq!(
        lab.status(far.clone(), Method::PUT, "/far/k", b"far").await,
        StatusCode::OK
    );
    let all = p1(&json!("*"));
    for (target, headers) in [
        ("/far/k", &[][..]),
        ("/far", &[]),
        ("/k", &[("host", "far.s3-us-east-1.amazonaws.com")]),
    ] {
        let near = through(caller(root()), &all);
        let (status, told) = lab.told(near, Method::GET, target, b"", headers).await;
        assert_eq!(status, StatusCode::MOVED_PERMANENTLY, "{target}: {told}");
        assert!(told.contains("<Code>PermanentRedirect</Code>"), "{told}");
        let by_the_internet = lab.told(far.clone(), Method::GET, target, b"", headers).await;
        assert_eq!(by_the_internet.0, StatusCode::OK, "control: {target}");
    }
    let near = through(caller(root()), &all);
    let own = lab.status(near, Method::GET, "/data/in/k", b"").await;
    assert_eq!(own, StatusCode::OK, "control: a bucket of the endpoint's region");
}

/// Proves: IAM-36, VPC-16, VPC-17, VPC-19, IAM-30, IAM-33
#[tokio::test]
async fn the_s3_access_policy_of_an_endpoint_lets_seven_actions_through() {
    let lab = Lab::ready().await;
    lab.allow(&["s3:*"]);
    let any = p1(&json!("*"));
    let policy = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"AWS": "123456789012"},
        "Action": "s3:*", "Resource": "arn:aws:s3:::data/*"}});
    let policy = policy.to_string();
    let cases: [(Method, &str, &[u8], Headers<'_>, bool); 21] = [
        (Method::GET, "/data/in/k", b"", &[], true),
        (Method::HEAD, "/data/in/k", b"", &[], true),
        (Method::GET, "/data/in/k", b"", &[("range", "bytes=0-1")], true),
        (Method::PUT, "/data/out", b"x", &[], true),
        (Method::POST, "/data/out?uploads", b"", &[], true),
        (Method::PUT, "/data/out?partNumber=1&uploadId=u", b"x", &[], true),
        (
            Method::PUT,
            "/data/copy",
            b"",
            &[("x-amz-copy-source", "/data/in/k")],
            true,
        ),
        (Method::GET, "/data/out?uploadId=u", b"", &[], true),
        (Method::DELETE, "/data/out?uploadId=u", b"", &[], true),
        (Method::DELETE, "/data/out", b"", &[], true),
        (Method::GET, "/data?location", b"", &[], true),
        (Method::GET, "/data?list-type=2", b"", &[], true),
        (Method::GET, "/data/in/k?versionId=null", b"", &[], false),
        (Method::GET, "/data/in/k?tagging", b"", &[], false),
        (
            Method::PUT,
            "/data/in/k?acl",
            b"",
            &[("x-amz-acl", "bucket-owner-full-control")],
            false,
        ),
        (
            Method::PUT,
            "/data/in/k?acl&versionId=null",
            b"",
            &[("x-amz-acl", "private")],
            false,
        ),
        (Method::GET, "/data?policy", b"", &[], false),
        (Method::PUT, "/data?policy", policy.as_bytes(), &[], false),
        (Method::PUT, "/another", b"", &[], false),
        (Method::DELETE, "/data", b"", &[], false),
        (Method::GET, "/", b"", &[], false),
    ];
    for (method, target, body, headers, passes) in cases {
        let (open, _) = lab.told(caller(role()), method.clone(), target, body, headers).await;
        assert_ne!(
            open,
            StatusCode::FORBIDDEN,
            "control: {method} {target} is allowed without"
        );
        lab.send(root(), Method::PUT, "/data", b"").await;
        lab.send(root(), Method::DELETE, "/another", b"").await;
        let kept = lab.send(root(), Method::PUT, "/data/in/k", b"bytes").await.0;
        assert_eq!(kept, StatusCode::OK);
        let (status, told) = lab
            .told(through(caller(role()), &any), method.clone(), target, body, headers)
            .await;
        assert_eq!(status != StatusCode::FORBIDDEN, passes, "{method} {target}: {told}");
        if !passes {
            assert!(told.contains("because no VPC endpoint policy allows the s3:"), "{told}");
        }
    }
    // Narrowed to other resources, and without a right of one's own: denied both times.
    let narrow = p1(&json!(["arn:aws:s3:::other", "arn:aws:s3:::other/*"]));
    for (policy, own, passes) in [(&any, true, true), (&narrow, true, false), (&any, false, false)] {
        lab.allow(if own { &["s3:*"] } else { &["s3:ListBucket"] });
        let status = lab
            .status(through(caller(role()), policy), Method::GET, "/data/in/k", b"")
            .await;
        assert_eq!(status == StatusCode::OK, passes, "{policy} {own}");
    }
}

/// Proves: IAM-37, VPC-23, VPC-24
#[tokio::test]
async fn package_buckets_are_denied_by_name_whatever_else_is_allowed() {
    let lab = Lab::ready().await;
    lab.allow(&["s3:*"]);
    let deny = |names: &[&str]| {
        let resources: Vec<String> = names.iter().map(|name| format!("arn:aws:s3:::{name}/*")).collect();
        json!({"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": resources})
    };
    let (p2, p3) = (
        deny(&["packages.*.amazonaws.com", "repo.*.amazonaws.com"]),
        deny(&["amazonlinux.*.amazonaws.com"]),
    );
    let all = json!({"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"});
    let policy = |statements: &[&Value]| json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    for (bucket, denied) in [
        ("packages.us-east-1.amazonaws.com", true),
        ("repo.eu-west-1.amazonaws.com", true),
        ("amazonlinux.us-west-2.amazonaws.com", true),
        ("mydata", false),
    ] {
        let target = format!("/{bucket}/k");
        let made = lab.send(root(), Method::PUT, &format!("/{bucket}"), b"").await.0;
        assert_eq!(made, StatusCode::OK);
        assert_eq!(lab.send(root(), Method::PUT, &target, b"x").await.0, StatusCode::OK);
        let get = async |policy: String| {
            lab.told(through(caller(role()), &policy), Method::GET, &target, b"", &[])
                .await
        };
        assert_eq!(get(policy(&[&all])).await.0, StatusCode::OK, "control: {bucket}");
        let (status, told) = get(policy(&[&all, &p2, &p3])).await;
        assert_eq!(status == StatusCode::FORBIDDEN, denied, "{bucket}: {told}");
        if denied {
            assert!(
                told.contains("with an explicit deny in a VPC endpoint policy"),
                "{told}"
            );
        }
        for only in [&p2, &p3] {
            assert_eq!(get(policy(&[only])).await.0, StatusCode::FORBIDDEN, "{bucket}");
        }
    }
}

/// Proves: IAM-38, IAM-39, VPC-15, PL-28, IAM-16
#[tokio::test]
async fn a_bucket_can_be_kept_to_a_vpc() {
    let lab = Lab::ready().await;
    lab.allow(&["s3:*"]);
    let open = p1(&json!("*"));
    let deny = |condition: Value| {
        json!([{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*",
                "Condition": condition}])
    };
    let get = async |caller: Caller| lab.status(caller, Method::GET, "/data/in/k", b"").await;
    for (condition, inside, outside) in [
        (json!({"StringNotEquals": {"aws:SourceVpc": "vpc-0a"}}), true, false),
        (json!({"StringNotEquals": {"aws:SourceVpce": "vpce-0a"}}), true, false),
        (json!({"StringNotEquals": {"aws:SourceVpce": "vpce-0b"}}), false, false),
        (json!({"Null": {"aws:SourceVpce": "true"}}), true, false),
        // The public address is no key of what came through an endpoint: its negation hits all of that.
        (json!({"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}), false, true),
        (json!({"NotIpAddress": {"aws:VpcSourceIp": "10.0.0.0/16"}}), true, false),
    ] {
        lab.set_policy(deny(condition.clone())).await;
        for (caller, passes) in [
            (through(caller(role()), &open), inside),
            (caller(role()), outside),
            (caller(root()), outside),
        ] {
            let source = caller.source.clone();
            let status = get(caller).await;
            assert_eq!(status == StatusCode::OK, passes, "{condition} {source:?}: {status}");
        }
    }
    // The owner's root can still take the policy away.
    lab.set_policy(json!([{"Effect": "Deny", "Principal": "*", "Action": "s3:*",
        "Resource": ["arn:aws:s3:::data", "arn:aws:s3:::data/*"]}]))
        .await;
    assert_eq!(get(caller(root())).await, StatusCode::FORBIDDEN);
    assert_eq!(
        lab.status(caller(role()), Method::DELETE, "/data?policy", b"").await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        lab.status(caller(root()), Method::DELETE, "/data?policy", b"").await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(get(caller(role())).await, StatusCode::OK);
}

/// Each key decides when its value is sent, and is absent when nothing was sent.
///
/// Proves: IAM-16
#[tokio::test]
async fn condition_keys_of_s3_are_there_when_the_request_says_them_and_only_then() {
    let lab = Lab::ready().await;
    let tags = b"<Tagging><TagSet><Tag><Key>team</Key><Value>red</Value></Tag></TagSet></Tagging>";
    assert_eq!(
        lab.send(root(), Method::PUT, "/data/in/k?tagging", tags).await.0,
        StatusCode::OK
    );
    let copy = ("x-amz-copy-source", "/data/in/k");
    let cases = [
        KeyCase {
            action: "s3:ListBucket",
            key: "s3:prefix",
            value: "in/",
            method: Method::GET,
            with: ("/data?list-type=2&prefix=in/", &[]),
            without: ("/data?list-type=2", &[]),
        },
        KeyCase {
            action: "s3:ListBucket",
            key: "s3:delimiter",
            value: "/",
            method: Method::GET,
            with: ("/data?list-type=2&delimiter=/", &[]),
            without: ("/data", &[]),
        },
        KeyCase {
            action: "s3:ListBucket",
            key: "s3:max-keys",
            value: "5",
            method: Method::GET,
            with: ("/data?max-keys=5", &[]),
            without: ("/data", &[]),
        },
        KeyCase {
            action: "s3:ListBucketVersions",
            key: "s3:prefix",
            value: "in/",
            method: Method::GET,
            with: ("/data?versions&prefix=in/", &[]),
            without: ("/data?versions", &[]),
        },
        KeyCase {
            action: "s3:PutObject",
            key: "s3:x-amz-acl",
            value: "private",
            method: Method::PUT,
            with: ("/data/o", &[("x-amz-acl", "private")]),
            without: ("/data/o", &[]),
        },
        KeyCase {
            action: "s3:PutObject",
            key: "s3:x-amz-storage-class",
            value: "STANDARD",
            method: Method::PUT,
            with: ("/data/o", &[("x-amz-storage-class", "STANDARD")]),
            without: ("/data/o", &[]),
        },
        KeyCase {
            action: "s3:*",
            key: "s3:RequestObjectTag/team",
            value: "red",
            method: Method::PUT,
            with: ("/data/o", &[("x-amz-tagging", "team=red")]),
            without: ("/data/o", &[]),
        },
        KeyCase {
            action: "s3:*",
            key: "s3:RequestObjectTagKeys",
            value: "team",
            method: Method::PUT,
            with: ("/data/o", &[("x-amz-tagging", "team=red")]),
            without: ("/data/o", &[]),
        },
        KeyCase {
            action: "s3:GetObjectVersion",
            key: "s3:versionid",
            value: "null",
            method: Method::GET,
            with: ("/data/in/k?versionId=null", &[]),
            without: ("/data/in/k?versionId=other", &[]),
        },
        KeyCase {
            action: "s3:GetObject",
            key: "s3:ExistingObjectTag/team",
            value: "red",
            method: Method::GET,
            with: ("/data/in/k", &[]),
            without: ("/data/none", &[]),
        },
        KeyCase {
            action: "s3:GetObject",
            key: "s3:ResourceAccount",
            value: OWNER,
            method: Method::GET,
            with: ("/data/in/k", &[]),
            without: ("/nowhere/k", &[]),
        },
        KeyCase {
            action: "s3:GetObject",
            key: "s3:x-amz-content-sha256",
            value: "UNSIGNED-PAYLOAD",
            method: Method::GET,
            with: ("/data/in/k", &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]),
            without: ("/data/in/k", &[]),
        },
    ];
    for case in cases {
        let passes = async |value: &str, (target, headers): (&str, Headers<'_>)| {
            let is = json!({"StringEquals": {case.key: value}});
            lab.passes(case.action, is, case.method.clone(), target, headers).await
        };
        assert!(passes(case.value, case.with).await, "{} is there", case.key);
        assert!(!passes("another", case.with).await, "{} is {}", case.key, case.value);
        assert!(!passes(case.value, case.without).await, "{} is not made up", case.key);
    }
    // The copy's source is asked about by name, and read with a right of its own.
    let from_in = json!([
        {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*",
         "Condition": {"StringLike": {"s3:x-amz-copy-source": "data/in/*"}}},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectTagging", "s3:PutObjectTagging"], "Resource": "*"}]);
    let text = json!({"Version": "2012-10-17", "Statement": from_in}).to_string();
    lab.policies.lock().unwrap().insert(ROLE.into(), text);
    let put = async |headers: &[(&str, &str)]| lab.told(caller(role()), Method::PUT, "/data/c", b"", headers).await;
    let (status, told) = put(&[copy]).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(
        put(&[("x-amz-copy-source", "/data/elsewhere/k")]).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(put(&[]).await.0, StatusCode::FORBIDDEN, "no copy has no source");
}

/// What the engine cannot keep is refused after IAM has had its word, and policies see what was asked for: the usual
/// statement against unencrypted uploads denies what it names, and lets the rest go on.
///
/// Proves: IAM-16, IAM-59
#[tokio::test]
async fn iam_is_asked_before_a_write_is_refused_for_what_it_wants() {
    let lab = Lab::ready().await;
    let encrypted: Headers<'_> = &[("x-amz-server-side-encryption", "AES256")];
    let copied: Headers<'_> = &[
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-copy-source", "/data/in/k"),
    ];
    let customer: Headers<'_> = &[("x-amz-server-side-encryption-customer-algorithm", "AES256")];
    let writes = [
        (Method::PUT, "/data/new", encrypted),
        (Method::PUT, "/data/new", copied),
        (Method::POST, "/data/new?uploads", encrypted),
        (Method::PUT, "/data/new?partNumber=1&uploadId=u", customer),
    ];
    lab.allow(&["s3:GetObject"]);
    for (method, target, headers) in writes.clone() {
        let (status, told) = lab.told(caller(role()), method, target, b"", headers).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{target}: {told}");
        assert!(told.contains("s3:PutObject"), "{told}");
    }
    lab.allow(&["s3:*"]);
    for (method, target, headers) in writes {
        let (status, told) = lab.told(caller(role()), method, target, b"", headers).await;
        let kept = headers == encrypted || headers == copied;
        let wanted = if kept {
            StatusCode::OK
        } else {
            StatusCode::NOT_IMPLEMENTED
        };
        assert_eq!(status, wanted, "control: {target}: {told}");
    }
    lab.set_policy(json!([{"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::data/*",
        "Condition": {"StringNotEquals": {"s3:x-amz-server-side-encryption": "AES256"}}}]))
        .await;
    let put = async |headers: Headers<'_>| lab.told(caller(role()), Method::PUT, "/data/new", b"", headers).await.0;
    assert_eq!(put(&[]).await, StatusCode::FORBIDDEN);
    assert_eq!(put(encrypted).await, StatusCode::OK);
}

/// Proves: IAM-16
#[tokio::test]
async fn how_a_request_was_signed_is_a_condition_key() {
    let lab = Lab::ready().await;
    // The clock of the lab shows 2023-11-14T22:13:20Z.
    let header: &[(&str, &str)] = &[
        ("authorization", "AWS4-HMAC-SHA256 Credential=a"),
        ("x-amz-date", "20231114T221310Z"),
    ];
    let presigned = "/data/in/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20231114T221220Z&X-Amz-Signature=a";
    let old = "/data/in/k?AWSAccessKeyId=a&Signature=b&Expires=1";
    for (condition, in_header, in_query, version_2) in [
        (
            json!({"StringEquals": {"s3:authType": "REST-HEADER"}}),
            true,
            false,
            false,
        ),
        (
            json!({"StringEquals": {"s3:authType": "REST-QUERY-STRING"}}),
            false,
            true,
            true,
        ),
        (
            json!({"StringEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256"}}),
            true,
            true,
            false,
        ),
        (
            json!({"StringEquals": {"s3:signatureversion": "AWS"}}),
            false,
            false,
            true,
        ),
        (
            json!({"NumericLessThanEquals": {"s3:signatureAge": "10000"}}),
            true,
            false,
            false,
        ),
        (
            json!({"NumericGreaterThan": {"s3:signatureAge": "50000"}}),
            false,
            true,
            false,
        ),
        (json!({"Null": {"s3:signatureAge": "true"}}), false, false, true),
        (json!({"Null": {"s3:TlsVersion": "true"}}), true, true, true),
    ] {
        for (target, headers, wanted) in [
            ("/data/in/k", header, in_header),
            (presigned, &[], in_query),
            (old, &[], version_2),
        ] {
            let passes = lab
                .passes("s3:GetObject", condition.clone(), Method::GET, target, headers)
                .await;
            assert_eq!(passes, wanted, "{condition} {target}");
        }
    }
    lab.grant(json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*",
        "Condition": {"NumericGreaterThanEquals": {"s3:TlsVersion": "1.3"}}}));
    for (version, status) in [("1.2", StatusCode::FORBIDDEN), ("1.3", StatusCode::OK)] {
        let request = Request::builder().uri("/data/in/k").extension(TlsVersion(version));
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let answer = lab.front.call(request, caller(role()), BodyCheck::Done).await;
        assert_eq!(answer.status(), status, "TLS {version}");
    }
}

/// Proves: IAM-22, IAM-23, IAM-47, IAM-65
#[tokio::test]
async fn public_access_ends_where_the_owner_blocks_it() {
    let lab = Lab::ready().await;
    let statement = |principal: Value| json!([{"Effect": "Allow", "Principal": principal, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"}]);
    let get = async |principal: Principal| lab.send(principal, Method::GET, "/data/in/k", b"").await.0;
    let block = |name: &str| {
        format!("<PublicAccessBlockConfiguration><{name}>true</{name}></PublicAccessBlockConfiguration>").into_bytes()
    };
    let set = async |name: &str| {
        let put = lab
            .send(root(), Method::PUT, "/data?publicAccessBlock", &block(name))
            .await;
        assert_eq!(put.0, StatusCode::OK, "{}", put.1);
    };
    // A new bucket is shut to the public until its owner opens it.
    let (status, told) = lab.send(root(), Method::GET, "/data?publicAccessBlock", b"").await;
    assert_eq!((status, told.matches(">true<").count()), (StatusCode::OK, 4), "{told}");
    let public = json!({"Version": "2012-10-17", "Statement": statement(json!("*"))}).to_string();
    let (status, told) = lab.send(root(), Method::PUT, "/data?policy", public.as_bytes()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{told}");
    let gone = lab.send(root(), Method::DELETE, "/data?publicAccessBlock", b"").await.0;
    assert_eq!(gone, StatusCode::NO_CONTENT);
    lab.set_policy(statement(json!("*"))).await;
    for principal in [Principal::Anonymous, account(OTHER), role()] {
        assert_eq!(get(principal.clone()).await, StatusCode::OK, "control: {principal:?}");
    }
    // Public policies take effect within the owner's account alone.
    set("RestrictPublicBuckets").await;
    assert_eq!(get(Principal::Anonymous).await, StatusCode::FORBIDDEN);
    assert_eq!(get(account(OTHER)).await, StatusCode::FORBIDDEN);
    assert_eq!(get(role()).await, StatusCode::OK);
    // A policy that names an account is not public.
    lab.set_policy(statement(json!({"AWS": OTHER}))).await;
    assert_eq!(get(account(OTHER)).await, StatusCode::OK);
    assert_eq!(get(Principal::Anonymous).await, StatusCode::FORBIDDEN);
    let status = lab.send(root(), Method::GET, "/data?policyStatus", b"").await.1;
    assert!(status.contains("<IsPublic>false</IsPublic>"), "{status}");
    // And no public policy is taken any more.
    set("BlockPublicPolicy").await;
    let (status, told) = lab.send(root(), Method::PUT, "/data?policy", public.as_bytes()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{told}");
    let gone = lab.send(root(), Method::DELETE, "/data?publicAccessBlock", b"").await.0;
    assert_eq!(gone, StatusCode::NO_CONTENT);
    assert_eq!(
        lab.send(root(), Method::PUT, "/data?policy", public.as_bytes()).await.0,
        StatusCode::NO_CONTENT,
        "control: without the block it is"
    );
}

/// Proves: IAM-23, IAM-65
#[tokio::test]
async fn another_account_writes_what_the_owner_owns_and_never_touches_the_policy() {
    let lab = Lab::ready().await;
    let stranger = || account(OTHER);
    let user = |named: &str| Principal::User {
        account: OTHER.parse().unwrap(),
        path: "/".into(),
        name: named.into(),
        id: "AIDAOTHER".into(),
    };
    lab.set_policy(
        json!([{"Effect": "Allow", "Principal": {"AWS": OTHER}, "Action": "s3:*",
        "Resource": ["arn:aws:s3:::data", "arn:aws:s3:::data/*"]}]),
    )
    .await;
    // Both sides must allow: the owner does, the user's own account does not.
    let put = async |principal: Principal| lab.send(principal, Method::PUT, "/data/theirs", b"x").await.0;
    assert_eq!(put(user("ann")).await, StatusCode::FORBIDDEN);
    let allow = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:PutObject","Resource":"*"}]}"#;
    lab.policies
        .lock()
        .unwrap()
        .insert(format!("arn:aws:iam::{OTHER}:user/ann"), allow.into());
    assert_eq!(put(user("ann")).await, StatusCode::OK);
    assert_eq!(put(stranger()).await, StatusCode::OK);
    // What they wrote is the bucket owner's.
    let (_, told) = lab.send(root(), Method::GET, "/data?versions", b"").await;
    assert!(told.contains(OWNER) && !told.contains(OTHER), "{told}");
    assert_eq!(
        lab.send(root(), Method::GET, "/data/theirs", b"").await.0,
        StatusCode::OK
    );
    let policy = br#"{"Version":"2012-10-17","Statement":[]}"#;
    for (method, body) in [
        (Method::GET, &b""[..]),
        (Method::PUT, &policy[..]),
        (Method::DELETE, &b""[..]),
    ] {
        let (status, told) = lab.send(stranger(), method.clone(), "/data?policy", body).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}: {told}");
        let nobody = account("555566667777");
        assert_eq!(
            lab.send(nobody, method, "/data?policy", body).await.0,
            StatusCode::FORBIDDEN
        );
    }
    assert_eq!(
        lab.send(root(), Method::GET, "/data?policy", b"").await.0,
        StatusCode::OK
    );
}

/// Proves: IAM-36, IAM-65
#[tokio::test]
async fn a_deletion_of_many_asks_for_each_key_and_a_copy_for_both_ends() {
    let lab = Lab::ready().await;
    for key in ["a/1", "b/1"] {
        let put = lab.send(root(), Method::PUT, &format!("/data/{key}"), b"x").await.0;
        assert_eq!(put, StatusCode::OK);
    }
    lab.grant(json!({"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::data/a/*"}));
    let list = b"<Delete><Object><Key>a/1</Key></Object><Object><Key>b/1</Key></Object>\
                 <Object><Key>a/2</Key><VersionId>null</VersionId></Object></Delete>";
    let (status, told) = lab.send(role(), Method::POST, "/data?delete", list).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert!(told.contains("<Deleted><Key>a/1</Key></Deleted>"), "{told}");
    assert_eq!(told.matches("<Code>AccessDenied</Code>").count(), 2, "{told}");
    for (key, status) in [("a/1", StatusCode::NOT_FOUND), ("b/1", StatusCode::OK)] {
        let head = lab.send(root(), Method::HEAD, &format!("/data/{key}"), b"").await.0;
        assert_eq!(head, status, "{key}");
    }
    let (source, target) = ("arn:aws:s3:::data/in/*", "arn:aws:s3:::data/to/*");
    for (read, write, passes) in [(source, target, true), (target, target, false), (source, source, false)] {
        let statements = json!([
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": read},
            {"Effect": "Allow", "Action": "s3:PutObject", "Resource": write}]);
        let text = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        lab.policies.lock().unwrap().insert(ROLE.into(), text);
        let copy = [("x-amz-copy-source", "/data/in/k")];
        for target in ["/data/to/k", "/data/to/k?partNumber=1&uploadId=none"] {
            let (status, told) = lab.told(caller(role()), Method::PUT, target, b"", &copy).await;
            assert_eq!(
                status != StatusCode::FORBIDDEN,
                passes,
                "{target} {read} {write}: {told}"
            );
        }
    }
}

/// Rights are looked up when a request comes, not when its URL was signed.
///
/// Proves: IAM-26
#[tokio::test]
async fn a_signed_request_has_the_rights_of_its_moment() {
    let lab = Lab::ready().await;
    let get = async || {
        let url = "/data/in/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20231114T221220Z&X-Amz-Signature=a";
        lab.status(caller(role()), Method::GET, url, b"").await
    };
    lab.allow(&["s3:GetObject"]);
    assert_eq!(get().await, StatusCode::OK);
    lab.allow(&["s3:PutObject"]);
    assert_eq!(get().await, StatusCode::FORBIDDEN);
    lab.allow(&["s3:GetObject"]);
    lab.set_policy(
        json!([{"Effect": "Deny", "Principal": {"AWS": ROLE}, "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::data/*"}]),
    )
    .await;
    assert_eq!(get().await, StatusCode::FORBIDDEN);
}

/// Users and services in a VPC; services act there as sessions of roles (IAM-32).
///
/// Proves: BT-17, IAM-30
#[tokio::test]
async fn the_default_endpoint_policy_adds_no_limit_and_no_right() {
    let lab = Lab::ready().await;
    let full =
        json!({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}]}).to_string();
    let own = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
    let user = |id: &str| Principal::User {
        account: id.parse().unwrap(),
        path: "/".into(),
        name: "ann".into(),
        id: "AIDAANN".into(),
    };
    let get = async |principal: Principal, policy: &str| {
        lab.told(through(caller(principal), policy), Method::GET, "/data/in/k", b"", &[])
            .await
    };
    let permissive = json!([{"Effect": "Allow", "Principal": {"AWS": OTHER},
        "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"}]);
    let others = [
        account(OWNER),
        account(OTHER),
        role(),
        user(OWNER),
        user(OTHER),
        Principal::Anonymous,
    ];
    // (the callers' own policies, the bucket's policy, who of `others` may)
    for (identity, bucket, may) in [
        (false, false, [true, false, false, false, false, false]),
        (true, false, [true, false, true, true, false, false]),
        (false, true, [true, true, false, false, false, false]),
        (true, true, [true, true, true, true, true, false]),
    ] {
        {
            let mut policies = lab.policies.lock().unwrap();
            policies.clear();
            for arn in [
                ROLE.to_owned(),
                format!("arn:aws:iam::{OWNER}:user/ann"),
                format!("arn:aws:iam::{OTHER}:user/ann"),
            ] {
                identity.then(|| policies.insert(arn, own.into()));
            }
        }
        if bucket {
            lab.set_policy(permissive.clone()).await;
        } else {
            lab.send(root(), Method::DELETE, "/data?policy", b"").await;
        }
        for (principal, may) in others.iter().zip(may) {
            let (status, told) = get(principal.clone(), &full).await;
            let wanted = if may { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(status, wanted, "{identity} {bucket} {principal:?}: {told}");
            assert!(!told.contains("endpoint policy"), "{told}");
            let open = lab
                .status(caller(principal.clone()), Method::GET, "/data/in/k", b"")
                .await;
            assert_eq!(open, status, "control: the same by the public side, {principal:?}");
            // Control: another policy of the endpoint does stop those who may.
            let (status, _) = get(principal.clone(), &p1(&json!("arn:aws:s3:::other/*"))).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{principal:?}");
        }
    }
}

/// Principals by `aws:PrincipalArn`, as a gateway endpoint has them (IAM-31).
///
/// Proves: PL-23, IAM-31
#[tokio::test]
async fn a_gateway_endpoint_constrains_principal_action_and_resource_alone_and_together() {
    let lab = Lab::ready().await;
    lab.allow(&["s3:*"]);
    let ann = Principal::User {
        account: OWNER.parse().unwrap(),
        path: "/".into(),
        name: "ann".into(),
        id: "AIDAANN".into(),
    };
    let all = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
    let arn = format!("arn:aws:iam::{OWNER}:user/ann");
    lab.policies.lock().unwrap().insert(arn, all.into());
    assert_eq!(
        lab.send(root(), Method::PUT, "/data/else/k", b"bytes").await.0,
        StatusCode::OK
    );
    let mut let_through = 0;
    for constrained in 0..8 {
        let (by_principal, by_action, by_resource) = (constrained & 1 != 0, constrained & 2 != 0, constrained & 4 != 0);
        let mut statement = json!({"Effect": "Allow", "Principal": "*",
            "Action": if by_action { "s3:GetObject" } else { "*" },
            "Resource": if by_resource { "arn:aws:s3:::data/in/*" } else { "*" }});
        if by_principal {
            let role = format!("arn:aws:iam::{OWNER}:role/exec");
            statement["Condition"] = json!({"ArnEquals": {"aws:PrincipalArn": role}});
        }
        let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
        for (principal, other_principal) in [(role(), false), (ann.clone(), true)] {
            for (method, other_action) in [(Method::GET, false), (Method::PUT, true)] {
                for (target, other_resource) in [("/data/in/k", false), ("/data/else/k", true)] {
                    let passes = !(by_principal && other_principal
                        || by_action && other_action
                        || by_resource && other_resource);
                    let through = through(caller(principal.clone()), &policy);
                    let (status, told) = lab.told(through, method.clone(), target, b"x", &[]).await;
                    let wanted = if passes { StatusCode::OK } else { StatusCode::FORBIDDEN };
                    assert_eq!(status, wanted, "{policy} {principal:?} {method} {target}: {told}");
                    assert_eq!(told.contains("no VPC endpoint policy allows"), !passes, "{told}");
                    let_through += usize::from(passes);
                }
            }
        }
    }
    assert_eq!(let_through, 27, "8 + 3 times 4 + 3 times 2 + 1");
}
