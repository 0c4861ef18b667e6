use super::*;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The credential of AWS's published examples.
const EXAMPLE_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// The same of the published S3 examples, which spell it with a slash.
const S3_EXAMPLE_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const ACCEPT: Accept = Accept { sigv2_query: true };

/// 2015-08-30T12:36:00Z, the time of the published general examples.
const EXAMPLE_TIME: i64 = 1_440_938_160;
/// 2013-05-24T00:00:00Z, the time of the published S3 examples.
const S3_TIME: i64 = 1_369_353_600;

#[derive(Deserialize)]
struct Table {
    now: i64,
    secrets: Vec<String>,
    cases: Vec<Case>,
    uploads: Vec<Upload>,
}

#[derive(Deserialize)]
struct Case {
    form: String,
    service: String,
    region: String,
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: String,
    secret: usize,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Upload {
    secret: usize,
    token: Option<String>,
    fields: BTreeMap<String, String>,
}

fn table() -> Table {
    serde_json::from_str(include_str!("cases.json")).unwrap()
}

fn header_map(headers: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

/// A request that a test may change before it is checked.
#[derive(Clone)]
struct Sent {
    method: String,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Sent {
    fn new(method: &str, path: &str, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        Self {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            headers: header_map(&headers),
            body: body.into(),
        }
    }

    fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            authority: None,
        }
    }

    fn check(&self, secret: &str, now: i64) -> Result<BodyCheck, AuthFault> {
        let head = self.head();
        parse(&head, ACCEPT)?.verify(&head, Body::Bytes(&self.body), secret, now, DEFAULT_SKEW, None)
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

fn sent(case: &Case) -> Sent {
    Sent {
        method: case.method.clone(),
        path: case.path.clone(),
        query: case.query.clone(),
        headers: header_map(&case.headers),
        body: case.body.clone().into_bytes(),
    }
}

fn signer(service: &'static str, now: i64) -> Signer<'static> {
    Signer {
        access_key_id: "AKIDEXAMPLE",
        secret: EXAMPLE_KEY,
        token: None,
        region: "us-east-1",
        service,
        now,
    }
}

/// A request to SageMaker signed by our own signer.
fn signed() -> Sent {
    signed_with(&signer("sagemaker", EXAMPLE_TIME))
}

fn signed_with(signer: &Signer<'_>) -> Sent {
    let headers = [("host", "127.0.0.1:4599"), ("x-amz-target", "SageMaker.ListModels")];
    let mut request = Sent::new("POST", "/", "", &headers, b"{}");
    let mut headers = request.headers.clone();
    sign(signer, "POST", "/", "", &mut headers, b"{}").unwrap();
    request.headers = headers;
    request
}

/// Proves: IAM-42
#[test]
fn the_published_vanilla_request_verifies() {
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
        SignedHeaders=host;x-amz-date, \
        Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    let headers = [
        ("host", "example.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
        ("authorization", authorization),
    ];
    let request = Sent::new("GET", "/", "", &headers, b"");
    assert!(matches!(request.check(EXAMPLE_KEY, EXAMPLE_TIME), Ok(BodyCheck::Done)));
    assert_eq!(
        request.check("another", EXAMPLE_TIME).unwrap_err(),
        AuthFault::BadSignature
    );
}

/// Proves: IAM-42
#[test]
fn the_published_s3_requests_verify() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
        SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
        Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
    let headers = [
        ("host", "examplebucket.s3.amazonaws.com"),
        ("range", "bytes=0-9"),
        ("x-amz-content-sha256", empty),
        ("x-amz-date", "20130524T000000Z"),
        ("authorization", authorization),
    ];
    assert!(
        Sent::new("GET", "/test.txt", "", &headers, b"")
            .check(S3_EXAMPLE_KEY, S3_TIME)
            .is_ok()
    );
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F\
        aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=\
        aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    let url = Sent::new(
        "GET",
        "/test.txt",
        query,
        &[("host", "examplebucket.s3.amazonaws.com")],
        b"",
    );
    assert!(url.check(S3_EXAMPLE_KEY, S3_TIME).is_ok());
    assert_eq!(
        url.check(S3_EXAMPLE_KEY, S3_TIME + 86_401).unwrap_err(),
        AuthFault::UrlExpired
    );
}

/// Proves: IAM-42, IAM-45
#[test]
fn every_request_that_botocore_signs_verifies_and_no_changed_one_does() {
    let table = table();
    assert!(table.cases.len() >= 300);
    for (at, case) in table.cases.iter().enumerate() {
        let secret = &table.secrets[case.secret];
        let request = sent(case);
        let parsed = parse(&request.head(), ACCEPT).unwrap_or_else(|fault| panic!("case {at}: {fault}"));
        assert_eq!(parsed.access_key_id, format!("AKIDEXAMPLE{}", case.secret), "case {at}");
        assert_eq!(parsed.token, case.token, "case {at}");
        if let Some(scope) = &parsed.scope {
            assert_eq!(
                (&scope.service, &scope.region),
                (&case.service, &case.region),
                "case {at}"
            );
        }
        if let Err(fault) = request.check(secret, table.now) {
            panic!("case {at} ({}): {fault} {} {}", case.form, case.path, case.query);
        }
        let wrong_key = &table.secrets[1 - case.secret];
        assert_eq!(
            request.check(wrong_key, table.now).unwrap_err(),
            AuthFault::BadSignature,
            "case {at}"
        );
        for (what, changed) in changes(case, &request) {
            assert!(
                changed.check(secret, table.now).is_err(),
                "case {at}: {what} was not noticed"
            );
        }
    }
}

/// The same request with one thing changed that its signature covers.
fn changes(case: &Case, request: &Sent) -> Vec<(&'static str, Sent)> {
    let method = if case.method == "PUT" { "DELETE" } else { "PUT" };
    let mut found = vec![
        ("method", request.clone().with(|r| r.method = method.into())),
        ("path", request.clone().with(|r| r.path.push('x'))),
        (
            "sub-resource",
            request.clone().with(|r| r.query = format!("uploads&{}", r.query)),
        ),
    ];
    if case.form != "v2" {
        found.push((
            "host",
            request
                .clone()
                .with(|r| drop(r.headers.insert("host", "evil".parse().unwrap()))),
        ));
        found.push((
            "new header",
            request
                .clone()
                .with(|r| drop(r.headers.insert("x-amz-acl", "a".parse().unwrap()))),
        ));
    }
    if case.form == "header" && !case.headers.iter().any(|(_, value)| value == "UNSIGNED-PAYLOAD") {
        found.push(("body", request.clone().with(|r| r.body.push(b' '))));
    }
    found
}

/// Proves: IAM-42
#[test]
fn form_uploads_verify_and_are_held_to_their_policy() {
    let table = table();
    for upload in &table.uploads {
        let secret = &table.secrets[upload.secret];
        let claim = post::parse(&upload.fields).unwrap();
        assert_eq!(claim.token, upload.token);
        let length = claim.verify(&upload.fields, "bucket1", secret, table.now).unwrap();
        assert_eq!((length.least, length.most), (1, 10));
        let refused =
            |fields: &post::Fields, bucket: &str, now: i64| claim.verify(fields, bucket, secret, now).is_err();
        assert!(refused(&upload.fields, "bucket2", table.now), "bucket");
        assert!(refused(&upload.fields, "bucket1", table.now + 3_601), "expiration");
        let mut other_key = upload.fields.clone();
        other_key.insert("key".into(), "down/a.txt".into());
        assert!(refused(&other_key, "bucket1", table.now), "key outside the policy");
        let mut extra = upload.fields.clone();
        extra.insert("acl".into(), "public-read".into());
        assert!(refused(&extra, "bucket1", table.now), "field without condition");
        assert_eq!(
            claim
                .verify(&upload.fields, "bucket1", "another", table.now)
                .unwrap_err(),
            AuthFault::BadSignature
        );
    }
}

/// Proves: IAM-44
#[test]
fn clocks_may_be_fifteen_minutes_apart() {
    let request = signed();
    for offset in [-900, 0, 900] {
        assert!(request.check(EXAMPLE_KEY, EXAMPLE_TIME + offset).is_ok(), "{offset}");
    }
    for offset in [-901, 901, 86_400] {
        let fault = request.check(EXAMPLE_KEY, EXAMPLE_TIME + offset).unwrap_err();
        assert!(matches!(fault, AuthFault::Skewed { .. }), "{offset}: {fault}");
    }
}

/// Proves: IAM-44
#[test]
fn presigned_urls_live_at_most_seven_days() {
    let url = |expires| {
        let wanted = Presign {
            method: "GET",
            host: "localhost:4599",
            path: "/b/k%20x",
            query: "versionId=1",
            expires,
        };
        let query = presign(&signer("s3", S3_TIME), &wanted).unwrap();
        Sent::new("GET", "/b/k%20x", &query, &[("host", "localhost:4599")], b"")
    };
    let longest = url(LONGEST_PRESIGNED);
    assert!(longest.check(EXAMPLE_KEY, S3_TIME + 604_800).is_ok());
    assert_eq!(
        longest.check(EXAMPLE_KEY, S3_TIME + 604_801).unwrap_err(),
        AuthFault::UrlExpired
    );
    assert!(longest.check(EXAMPLE_KEY, S3_TIME - 900).is_ok());
    assert!(matches!(
        longest.check(EXAMPLE_KEY, S3_TIME - 901),
        Err(AuthFault::Skewed { .. })
    ));
    for bad in [0, LONGEST_PRESIGNED + 1] {
        assert!(
            matches!(url(bad).check(EXAMPLE_KEY, S3_TIME), Err(AuthFault::MalformedQuery(_))),
            "{bad}"
        );
    }
}

/// Proves: IAM-43
#[test]
fn host_and_all_x_amz_headers_must_be_signed() {
    assert!(signed().check(EXAMPLE_KEY, EXAMPLE_TIME).is_ok(), "control");
    let unsigned_header = signed().with(|r| drop(r.headers.insert("x-amz-acl", "public-read".parse().unwrap())));
    assert_eq!(
        unsigned_header.check(EXAMPLE_KEY, EXAMPLE_TIME).unwrap_err(),
        AuthFault::UnsignedHeader("x-amz-acl".into())
    );
    let without_host = signed().with(|r| {
        let text = r.headers["authorization"].to_str().unwrap().replace("host;", "");
        r.headers.insert("authorization", text.parse().unwrap());
    });
    assert_eq!(
        without_host.check(EXAMPLE_KEY, EXAMPLE_TIME).unwrap_err(),
        AuthFault::UnsignedHeader("host".into())
    );
    let other_header = signed().with(|r| drop(r.headers.insert("user-agent", "x".parse().unwrap())));
    assert!(
        other_header.check(EXAMPLE_KEY, EXAMPLE_TIME).is_ok(),
        "other headers may be unsigned"
    );
}

/// Proves: IAM-43
#[test]
fn the_authority_stands_for_a_missing_host_header() {
    let mut request = signed();
    request.headers.remove("host");
    let with = |authority| {
        let head = Head {
            authority,
            ..request.head()
        };
        parse(&head, ACCEPT)?.verify(&head, Body::Bytes(b"{}"), EXAMPLE_KEY, EXAMPLE_TIME, DEFAULT_SKEW, None)
    };
    assert!(with(Some("127.0.0.1:4599")).is_ok());
    assert_eq!(with(Some("elsewhere")).unwrap_err(), AuthFault::BadSignature);
    assert_eq!(with(None).unwrap_err(), AuthFault::BadSignature);
}

/// Proves: IAM-45
#[test]
fn a_session_token_cannot_be_taken_away_or_exchanged() {
    let request = signed_with(&Signer {
        token: Some("token-1"),
        ..signer("sagemaker", EXAMPLE_TIME)
    });
    assert_eq!(
        parse(&request.head(), ACCEPT).unwrap().token.as_deref(),
        Some("token-1")
    );
    assert!(request.check(EXAMPLE_KEY, EXAMPLE_TIME).is_ok(), "control");
    let without = request.clone().with(|r| drop(r.headers.remove("x-amz-security-token")));
    assert_eq!(
        without.check(EXAMPLE_KEY, EXAMPLE_TIME).unwrap_err(),
        AuthFault::BadSignature
    );
    let other = request.with(|r| drop(r.headers.insert("x-amz-security-token", "token-2".parse().unwrap())));
    assert_eq!(
        other.check(EXAMPLE_KEY, EXAMPLE_TIME).unwrap_err(),
        AuthFault::BadSignature
    );
}

/// Proves: IAM-42
#[test]
fn unreadable_signatures_are_refused_not_guessed() {
    let good = signed();
    assert!(good.check(EXAMPLE_KEY, EXAMPLE_TIME).is_ok(), "control");
    assert_eq!(
        parse(&Sent::new("GET", "/", "", &[], b"").head(), ACCEPT).unwrap_err(),
        AuthFault::Missing
    );
    let authorization = good.headers["authorization"].to_str().unwrap().to_owned();
    let texts = [
        "Basic QVdTOng=".to_owned(),
        "AWS AKIDEXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg=".to_owned(),
        authorization.replace("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA1 "),
        authorization.replace("aws4_request", "aws5_request"),
        authorization.replace("/20150830/", "/20150831/"),
        authorization.replace("Signature=", "Signature=zz"),
        authorization.replace(", SignedHeaders", ", SignedHeaders=host, SignedHeaders"),
        authorization.replace("host;x-amz-date", "x-amz-date;host"),
        authorization.replace("host;", "Host;"),
        "AWS4-HMAC-SHA256".to_owned(),
        String::new(),
    ];
    for text in texts {
        let request = good
            .clone()
            .with(|r| drop(r.headers.insert("authorization", text.parse().unwrap())));
        let fault = request.check(EXAMPLE_KEY, EXAMPLE_TIME).unwrap_err();
        assert!(
            matches!(fault, AuthFault::Malformed(_) | AuthFault::BadSignature),
            "{text}: {fault}"
        );
    }
    let twice = good
        .clone()
        .with(|r| assert!(r.headers.append("authorization", authorization.parse().unwrap())));
    assert!(matches!(
        twice.check(EXAMPLE_KEY, EXAMPLE_TIME),
        Err(AuthFault::Malformed(_))
    ));
    let both = good.clone().with(|r| r.query = "X-Amz-Signature=00".into());
    assert!(matches!(
        both.check(EXAMPLE_KEY, EXAMPLE_TIME),
        Err(AuthFault::Malformed(_))
    ));
    for date in [
        "20150830T123600",
        "2015-08-30T12:36:00Z",
        "20151330T123600Z",
        "20150830T126000Z",
        "日",
    ] {
        let value = HeaderValue::from_bytes(date.as_bytes()).unwrap();
        let request = good.clone().with(|r| drop(r.headers.insert("x-amz-date", value)));
        assert!(
            matches!(request.check(EXAMPLE_KEY, EXAMPLE_TIME), Err(AuthFault::Malformed(_))),
            "{date}"
        );
    }
}

/// Proves: IAM-42
#[test]
fn only_s3_lets_the_body_be_unsigned_and_s3_wants_the_header() {
    let unsigned = |service| {
        let mut headers = header_map(&[("host".into(), "h".into())]);
        headers.insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().unwrap());
        sign(&signer(service, S3_TIME), "PUT", "/b/k", "", &mut headers, b"").unwrap();
        Sent {
            method: "PUT".into(),
            path: "/b/k".into(),
            query: String::new(),
            headers,
            body: b"any".to_vec(),
        }
    };
    assert!(matches!(
        unsigned("s3").check(EXAMPLE_KEY, S3_TIME),
        Ok(BodyCheck::Done)
    ));
    assert!(matches!(
        unsigned("sagemaker").check(EXAMPLE_KEY, S3_TIME),
        Err(AuthFault::Malformed(_))
    ));
    let without = unsigned("s3").with(|r| drop(r.headers.remove("x-amz-content-sha256")));
    assert_eq!(
        without.check(EXAMPLE_KEY, S3_TIME).unwrap_err(),
        AuthFault::NoContentSha256
    );
}

/// Proves: IAM-42
#[test]
fn a_declared_digest_binds_the_body() {
    let mut headers = header_map(&[("host".into(), "h".into())]);
    sign(&signer("s3", S3_TIME), "PUT", "/b/k", "", &mut headers, b"body").unwrap();
    let request = Sent {
        method: "PUT".into(),
        path: "/b/k".into(),
        query: String::new(),
        headers,
        body: b"body".to_vec(),
    };
    assert!(matches!(request.check(EXAMPLE_KEY, S3_TIME), Ok(BodyCheck::Done)));
    let head = request.head();
    let parsed = parse(&head, ACCEPT).unwrap();
    let later = parsed
        .verify(&head, Body::Streamed, EXAMPLE_KEY, S3_TIME, DEFAULT_SKEW, None)
        .unwrap();
    let digest: [u8; 32] = Sha256::digest(b"body").into();
    assert!(matches!(later, BodyCheck::Sha256(wanted) if wanted == digest));
    let other = request.clone().with(|r| r.body = b"other".to_vec());
    assert_eq!(
        other.check(EXAMPLE_KEY, S3_TIME).unwrap_err(),
        AuthFault::PayloadMismatch
    );
}

/// Proves: IAM-42
#[test]
fn version_two_urls_can_be_switched_off() {
    let table = table();
    let case = table.cases.iter().find(|case| case.form == "v2").unwrap();
    let request = sent(case);
    assert!(request.check(&table.secrets[case.secret], table.now).is_ok(), "control");
    assert_eq!(
        request.check(&table.secrets[case.secret], table.now + 901).unwrap_err(),
        AuthFault::UrlExpired
    );
    let fault = parse(&request.head(), Accept { sigv2_query: false }).unwrap_err();
    assert!(matches!(fault, AuthFault::Malformed(_)));
}

/// Proves: IAM-46
#[test]
fn a_signature_is_good_for_its_service_and_region_only() {
    let scope = |service: &str, region: &str| CredentialScope {
        date: "20260304".into(),
        region: region.into(),
        service: service.into(),
    };
    assert!(
        scope("sagemaker", "eu-west-1")
            .expect("sagemaker", ["eu-west-1"])
            .is_ok()
    );
    assert!(
        scope("iam", "us-east-1").expect("iam", ["eu-west-1"]).is_ok(),
        "the global host"
    );
    assert!(
        scope("sts", "us-east-1").expect("sts", ["eu-west-1"]).is_ok(),
        "the global host"
    );
    let region = scope("sagemaker", "us-east-1").expect("sagemaker", ["eu-west-1"]);
    assert!(matches!(region, Err(AuthFault::WrongRegion { .. })));
    let service = scope("s3", "eu-west-1").expect("sagemaker", ["eu-west-1"]);
    assert!(matches!(service, Err(AuthFault::WrongService { .. })));
}

/// Proves: IAM-47
#[test]
fn each_protocol_hears_its_own_code() {
    let skewed = AuthFault::Skewed {
        signed_at: "20260304T050607Z".into(),
    };
    let rows = [
        (
            AuthFault::UnknownKey,
            "UnrecognizedClientException",
            ("InvalidClientTokenId", 403),
            ("AuthFailure", 401),
            ("InvalidAccessKeyId", 403),
        ),
        (
            AuthFault::BadSignature,
            "InvalidSignatureException",
            ("SignatureDoesNotMatch", 403),
            ("AuthFailure", 401),
            ("SignatureDoesNotMatch", 403),
        ),
        (
            AuthFault::ExpiredToken,
            "ExpiredTokenException",
            ("ExpiredToken", 403),
            ("RequestExpired", 400),
            ("ExpiredToken", 400),
        ),
        (
            skewed,
            "InvalidSignatureException",
            ("SignatureDoesNotMatch", 403),
            ("RequestExpired", 400),
            ("RequestTimeTooSkewed", 403),
        ),
        (
            AuthFault::Missing,
            "MissingAuthenticationTokenException",
            ("MissingAuthenticationToken", 403),
            ("AuthFailure", 401),
            ("AccessDenied", 403),
        ),
    ];
    for (fault, json, query, ec2, s3) in rows {
        let said = |dialect| {
            let error = fault.api_error(dialect);
            (error.code, error.status)
        };
        assert_eq!(said(Dialect::Json), (json.into(), 400));
        assert_eq!(said(Dialect::Query), (query.0.into(), query.1));
        assert_eq!(said(Dialect::Ec2), (ec2.0.into(), ec2.1));
        assert_eq!(said(Dialect::S3), (s3.0.into(), s3.1));
    }
}

mod chunks {
    use super::*;

    /// The published example: 66,560 bytes of `a` in chunks of 65,536 and 1,024.
    fn published() -> (Sent, Vec<u8>) {
        let headers = [
            ("host", "s3.amazonaws.com"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            ("content-length", "66824"),
            (
                "authorization",
                "AWS4-HMAC-SHA256 \
                Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;\
                x-amz-decoded-content-length;x-amz-storage-class,\
                Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
            ),
        ];
        let mut body = Vec::new();
        for (size, signature) in [
            (
                65_536,
                "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
            ),
            (
                1_024,
                "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
            ),
            (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
        ] {
            body.extend_from_slice(format!("{size:x};chunk-signature={signature}\r\n").as_bytes());
            body.extend(std::iter::repeat_n(b'a', size));
            body.extend_from_slice(b"\r\n");
        }
        (
            Sent::new("PUT", "/examplebucket/chunkObject.txt", "", &headers, b""),
            body,
        )
    }

    fn s3_signer() -> Signer<'static> {
        Signer {
            secret: S3_EXAMPLE_KEY,
            ..signer("s3", S3_TIME)
        }
    }

    fn decoder(request: &Sent) -> ChunkDecoder {
        match request.check(S3_EXAMPLE_KEY, S3_TIME).unwrap() {
            BodyCheck::Chunked(decoder) => *decoder,
            other => panic!("{other:?}"),
        }
    }

    type Decoded = (Vec<u8>, Vec<(String, String)>);

    fn decode(mut decoder: ChunkDecoder, body: &[u8], step: usize) -> Result<Decoded, ChunkFault> {
        let mut out = Vec::new();
        for part in body.chunks(step) {
            decoder.push(part, &mut out)?;
        }
        Ok((out, decoder.finish()?))
    }

    /// Proves: IAM-42
    #[test]
    fn the_published_chunked_upload_verifies_however_it_is_cut() {
        let (request, body) = published();
        for step in [1, 7, 1_000, 65_536, body.len()] {
            let (out, trailers) = decode(decoder(&request), &body, step).unwrap();
            assert_eq!((out.len(), trailers.len()), (66_560, 0));
            assert!(out.iter().all(|byte| *byte == b'a'));
        }
    }

    /// Proves: IAM-42
    #[test]
    fn a_changed_missing_or_reordered_chunk_is_refused() {
        let (request, body) = published();
        assert!(decode(decoder(&request), &body, 4_096).is_ok(), "control");
        let mut changed = body.clone();
        changed[40_000] = b'b';
        assert_eq!(
            decode(decoder(&request), &changed, 4_096).unwrap_err(),
            ChunkFault::BadSignature
        );
        let second = body.windows(4).position(|at| at == b"400;").unwrap();
        let last = body.windows(3).rposition(|at| at == b"\n0;").unwrap() + 1;
        let truncated = [&body[..second], &body[last..]].concat();
        assert_eq!(
            decode(decoder(&request), &truncated, 4_096).unwrap_err(),
            ChunkFault::BadSignature
        );
        let reordered = [&body[second..last], &body[..second], &body[last..]].concat();
        assert_eq!(
            decode(decoder(&request), &reordered, 4_096).unwrap_err(),
            ChunkFault::BadSignature
        );
        assert_eq!(
            decode(decoder(&request), &body[..second], 4_096).unwrap_err(),
            ChunkFault::WrongLength
        );
        let more = [&body[..], b"5;chunk-signature=00\r\n"].concat();
        assert!(matches!(
            decode(decoder(&request), &more, 4_096),
            Err(ChunkFault::Malformed(_))
        ));
    }

    /// Signs a body in the signed form with a trailer, as the public algorithm describes it.
    fn with_trailer(checksum: &str) -> (Sent, Vec<u8>) {
        let mut headers = header_map(&[("host".into(), "h".into())]);
        for (name, value) in [
            ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
            ("x-amz-decoded-content-length", "5"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        sign(&s3_signer(), "PUT", "/b/k", "", &mut headers, b"").unwrap();
        let text = headers["authorization"].to_str().unwrap().to_owned();
        let mut previous = text.rsplit_once('=').unwrap().1.to_owned();
        let scope = CredentialScope {
            date: "20130524".into(),
            region: "us-east-1".into(),
            service: "s3".into(),
        };
        let key = signing_key(S3_EXAMPLE_KEY, &scope);
        let empty = hex::encode(Sha256::digest(b""));
        let mut body = String::new();
        for chunk in ["hello", ""] {
            let digest = hex::encode(Sha256::digest(chunk));
            let scope = scope.text();
            let text = format!("AWS4-HMAC-SHA256-PAYLOAD\n20130524T000000Z\n{scope}\n{previous}\n{empty}\n{digest}");
            previous = hex::encode(hmac_sha256(&key, text.as_bytes()));
            body += &format!("{:x};chunk-signature={previous}\r\n{chunk}", chunk.len());
            body += if chunk.is_empty() { "" } else { "\r\n" };
        }
        let digest = hex::encode(Sha256::digest(format!("x-amz-checksum-crc32:{checksum}\n")));
        let text = format!(
            "AWS4-HMAC-SHA256-TRAILER\n20130524T000000Z\n{}\n{previous}\n{digest}",
            scope.text()
        );
        let signature = hex::encode(hmac_sha256(&key, text.as_bytes()));
        body += &format!("x-amz-checksum-crc32:{checksum}\r\nx-amz-trailer-signature:{signature}\r\n\r\n");
        (
            Sent {
                method: "PUT".into(),
                path: "/b/k".into(),
                query: String::new(),
                headers,
                body: Vec::new(),
            },
            body.into(),
        )
    }

    /// Proves: IAM-42
    #[test]
    fn signed_trailers_are_checked() {
        let (request, body) = with_trailer("NhCmhg==");
        for step in [1, 1_000] {
            let (out, trailers) = decode(decoder(&request), &body, step).unwrap();
            assert_eq!(out, b"hello");
            assert_eq!(trailers, [("x-amz-checksum-crc32".to_owned(), "NhCmhg==".to_owned())]);
        }
        let text = String::from_utf8(body).unwrap();
        let changed = text.replace("NhCmhg==", "AAAAAA==");
        assert_eq!(
            decode(decoder(&request), changed.as_bytes(), 9).unwrap_err(),
            ChunkFault::BadSignature
        );
        let at = text.find("x-amz-trailer-signature").unwrap();
        let unsigned = format!("{}\r\n", &text[..at]);
        assert_eq!(
            decode(decoder(&request), unsigned.as_bytes(), 9).unwrap_err(),
            ChunkFault::BadSignature
        );
        let at = text.find("x-amz-checksum").unwrap();
        assert!(
            decode(decoder(&request), &text.as_bytes()[..at], 9).is_err(),
            "trailers cut off"
        );
    }

    #[test]
    fn without_a_secret_the_framing_is_still_taken_off_and_the_length_still_checked() {
        let (request, mut body) = published();
        let at = body.windows(4).position(|at| at == b"400;").unwrap();
        body[at + 30] ^= 1;
        assert_eq!(
            decode(decoder(&request), &body, 4_096).unwrap_err(),
            ChunkFault::BadSignature,
            "control: with the secret the changed signature counts"
        );
        let unchecked = || {
            let head = request.head();
            match parse(&head, ACCEPT)
                .unwrap()
                .body_without_secret(&head, Body::Streamed)
                .unwrap()
            {
                BodyCheck::Chunked(decoder) => *decoder,
                other => panic!("{other:?}"),
            }
        };
        let (out, _) = decode(unchecked(), &body, 4_096).unwrap();
        assert_eq!(out, vec![b'a'; 66_560]);
        assert_eq!(
            decode(unchecked(), &body[..60_000], 4_096).unwrap_err(),
            ChunkFault::WrongLength
        );
    }

    /// Proves: IAM-42
    #[test]
    fn unsigned_chunks_with_a_trailer_are_held_to_length_and_names() {
        let mut headers = header_map(&[("host".into(), "h".into())]);
        for (name, value) in [
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("x-amz-decoded-content-length", "5"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        sign(&s3_signer(), "PUT", "/b/k", "", &mut headers, b"").unwrap();
        let request = Sent {
            method: "PUT".into(),
            path: "/b/k".into(),
            query: String::new(),
            headers,
            body: Vec::new(),
        };
        let good = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
        let (out, trailers) = decode(decoder(&request), good.as_bytes(), 1).unwrap();
        assert_eq!((out.as_slice(), trailers.len()), (&b"hello"[..], 1));
        for bad in [
            "4\r\nhell\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n",
            "6\r\nhello!\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n",
            "5\r\nhello0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nx-amz-other:1\r\n\r\n",
            "5\r\nhello\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "ffffffffffffffffff\r\n",
        ] {
            assert!(decode(decoder(&request), bad.as_bytes(), 3).is_err(), "{bad:?}");
        }
        let endless = vec![b'1'; 10_000];
        assert!(matches!(
            decode(decoder(&request), &endless, 100),
            Err(ChunkFault::Malformed(_))
        ));
    }
}

proptest::proptest! {
    /// Proves: IAM-42
    #[test]
    fn path_and_query_survive_encoding_by_any_client(raw in "[a-zA-Z0-9 /%+=&?#.~_-]{0,24}", value in "\\PC{0,12}") {
        let path = format!("/{}", canonical::encode(raw.as_bytes(), true));
        let query = format!("k={}&a=%20", uri_encode(&value));
        for service in ["s3", "sagemaker"] {
            let mut headers = header_map(&[("host".into(), "h".into())]);
            sign(&signer(service, S3_TIME), "GET", &path, &query, &mut headers, b"").unwrap();
            let request =
                Sent { method: "GET".into(), path: path.clone(), query: query.clone(), headers, body: Vec::new() };
            proptest::prop_assert!(request.check(EXAMPLE_KEY, S3_TIME).is_ok());
            let other = request.with(|r| r.query.push('1'));
            proptest::prop_assert!(other.check(EXAMPLE_KEY, S3_TIME).is_err());
        }
    }

    #[test]
    fn no_authorization_header_breaks_the_reader(text in "\\PC{0,80}", query in "\\PC{0,80}") {
        let mut headers = HeaderMap::new();
        for prefix in ["", "AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256 Credential="] {
            if let Ok(value) = HeaderValue::from_bytes(format!("{prefix}{text}").as_bytes()) {
                headers.insert("authorization", value);
            }
            let head = Head { method: "GET", path: "/", query: &query, headers: &headers, authority: None };
            proptest::prop_assert!(parse(&head, ACCEPT).is_err());
        }
    }
}
