//! Signature version 2 in the query, as old presigned S3 URLs carry it.

use super::{AuthFault, Form, Head, Parsed, PayloadClaim, canonical};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;

/// Query parameters that name a sub-resource or override an answer's header: only these are signed.
const SIGNED_PARAMETERS: [&str; 35] = [
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "defaultObjectAcl",
    "delete",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "partNumber",
    "policy",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "select",
    "select-type",
    "storageClass",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

pub(super) fn parse(query: &[(String, String)]) -> Result<Parsed, AuthFault> {
    let required = |name: &str| -> Result<&str, AuthFault> {
        let mut found = query
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        match (found.next(), found.next()) {
            (Some(value), None) => Ok(value),
            _ => Err(AuthFault::malformed(format!("the query must have {name} once"))),
        }
    };
    let expires = required("Expires")?
        .parse()
        .map_err(|_| AuthFault::malformed("Expires is no number"))?;
    let signature = STANDARD
        .decode(required("Signature")?)
        .map_err(|_| AuthFault::BadSignature)?;
    let token = query
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case("x-amz-security-token"));
    Ok(Parsed {
        form: Form::QueryV2 { expires },
        access_key_id: required("AWSAccessKeyId")?.into(),
        scope: None,
        token: token.map(|(_, value)| value.clone()),
        payload: PayloadClaim::Unsigned,
        signed_at: expires,
        signed_headers: String::new(),
        stamp: String::new(),
        signature,
    })
}

pub(super) fn verify(parsed: &Parsed, head: &Head<'_>, secret: &str, bucket: Option<&str>) -> Result<(), AuthFault> {
    let Form::QueryV2 { expires } = parsed.form else {
        return Err(AuthFault::BadSignature);
    };
    let text = string_to_sign(head, expires, bucket)?;
    let fits: bool = hmac_sha1(secret.as_bytes(), text.as_bytes())
        .as_slice()
        .ct_eq(&parsed.signature)
        .into();
    if fits { Ok(()) } else { Err(AuthFault::BadSignature) }
}

fn string_to_sign(head: &Head<'_>, expires: i64, bucket: Option<&str>) -> Result<String, AuthFault> {
    let query = canonical::pairs(head.query);
    let mut amz: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut plain: BTreeMap<&str, String> = BTreeMap::new();
    // Signers move headers into the query; they are signed as headers either way.
    let sent = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let moved = query
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec()));
    for (name, value) in sent.chain(moved) {
        let value = String::from_utf8(value).map_err(|_| AuthFault::malformed("a header is not UTF-8"))?;
        let value = value.trim().to_owned();
        match name.as_str() {
            "content-md5" => drop(plain.insert("content-md5", value)),
            "content-type" => drop(plain.insert("content-type", value)),
            _ if name.starts_with("x-amz-") => amz.entry(name).or_default().push(value),
            _ => {}
        }
    }
    let one = |name: &str| plain.get(name).map_or("", String::as_str);
    let mut text = format!(
        "{}\n{}\n{}\n{expires}\n",
        head.method,
        one("content-md5"),
        one("content-type")
    );
    for (name, values) in &amz {
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    if let Some(bucket) = bucket {
        text.push('/');
        text.push_str(bucket);
    }
    text.push_str(head.path);
    let mut signed: Vec<String> = Vec::new();
    for part in head.query.split('&') {
        let (name, value) = part
            .split_once('=')
            .map_or((part, None), |(name, value)| (name, Some(value)));
        if SIGNED_PARAMETERS.contains(&name) {
            let decoded = value.map(|value| String::from_utf8_lossy(&canonical::decode(value)).into_owned());
            signed.push(decoded.map_or_else(|| name.into(), |value| format!("{name}={value}")));
        }
    }
    signed.sort();
    if !signed.is_empty() {
        text.push('?');
        text.push_str(&signed.join("&"));
    }
    Ok(text)
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
fn hmac_sha1(key: &[u8], data: &[u8]) -> [u8; 20] {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}
