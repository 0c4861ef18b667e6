//! Any head of a request as a signed one: reading and verifying end without a fault of ours, a stranger's signature is never
//! accepted, and what our signer signs our verifier accepts, whatever path, query and headers hold.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use isolarium_wire::sigv4::{Accept, Body, DEFAULT_SKEW, Head, Signer, parse, sign};
use libfuzzer_sys::fuzz_target;

const NOW: i64 = 1_790_000_000;
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fuzz_target!(|input: (bool, &str, &str, Vec<(String, Vec<u8>)>, &[u8])| {
    let (s3, path, query, pairs, body) = input;
    // What hyper lets through as the target of a request.
    let Ok(uri) = format!("/{path}?{query}").parse::<http::Uri>() else {
        return;
    };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(&value)) {
            headers.append(name, value);
        }
    }
    let claimed = |headers: &HeaderMap| {
        let head = Head {
            method: "POST",
            path: uri.path(),
            query: uri.query().unwrap_or(""),
            headers,
            authority: None,
        };
        let parsed = parse(&head, Accept { sigv2_query: true })?;
        parsed.verify(&head, Body::Bytes(body), SECRET, NOW, DEFAULT_SKEW, None)
    };
    assert!(
        claimed(&headers).is_err(),
        "a signature made without the secret was accepted"
    );
    let signer = Signer {
        access_key_id: "AKIAIOSFODNN7EXAMPLE",
        secret: SECRET,
        token: None,
        region: "us-east-1",
        service: if s3 { "s3" } else { "sagemaker" },
        now: NOW,
    };
    let in_query = ["X-Amz-Signature", "X-Amz-Algorithm", "AWSAccessKeyId"];
    // A request that also carries a signature in its query is refused for having two; a body's own digest is no digest here.
    if uri
        .query()
        .is_some_and(|query| in_query.iter().any(|name| query.contains(name)) || query.contains('%'))
    {
        return;
    }
    headers.remove("x-amz-content-sha256");
    headers.insert("host", HeaderValue::from_static("127.0.0.1:4599"));
    if sign(
        &signer,
        "POST",
        uri.path(),
        uri.query().unwrap_or(""),
        &mut headers,
        body,
    )
    .is_ok()
    {
        assert!(
            claimed(&headers).is_ok(),
            "our own signature was refused: {:?}",
            claimed(&headers)
        );
        headers.insert("host", HeaderValue::from_static("127.0.0.1:4600"));
        assert!(claimed(&headers).is_err(), "a changed host was accepted");
    }
});
