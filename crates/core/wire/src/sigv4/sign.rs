//! The other direction: signing requests, for tests, for the engine's own clients and for presigned URLs.

use super::canonical::{self, PathRule, QueryRule};
use super::{ALGORITHM, AuthFault, CredentialScope, Head, hmac_sha256, signing_key, stamp_of, string_to_sign};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

/// A credential and what it signs for.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    pub access_key_id: &'a str,
    pub secret: &'a str,
    pub token: Option<&'a str>,
    pub region: &'a str,
    /// The signing name, such as `sagemaker`.
    pub service: &'a str,
    /// Seconds since the epoch.
    pub now: i64,
}

impl std::fmt::Debug for Signer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

impl Signer<'_> {
    fn scope(&self, stamp: &str) -> CredentialScope {
        let date = stamp.get(..8).unwrap_or(stamp).to_owned();
        CredentialScope {
            date,
            region: self.region.into(),
            service: self.service.into(),
        }
    }

    fn rule(&self) -> PathRule {
        if self.service == "s3" {
            PathRule::AsIs
        } else {
            PathRule::EncodeAgain
        }
    }

    fn signature(&self, scope: &CredentialScope, stamp: &str, request: &[u8]) -> String {
        hex::encode(hmac_sha256(
            &signing_key(self.secret, scope),
            string_to_sign(stamp, scope, request).as_bytes(),
        ))
    }
}

/// Adds date, token, payload digest and `Authorization` to the headers of a request. `headers` must hold `host`; all
/// headers that are there are signed. A `x-amz-content-sha256` that is there is kept.
///
/// # Errors
/// When the time is out of range or a credential is no header text.
pub fn sign(
    signer: &Signer<'_>,
    method: &str,
    path: &str,
    query: &str,
    headers: &mut HeaderMap,
    body: &[u8],
) -> Result<(), AuthFault> {
    let stamp = stamp_of(signer.now)?;
    let scope = signer.scope(&stamp);
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| AuthFault::malformed("not a header text"));
    headers.remove(http::header::AUTHORIZATION);
    headers.insert("x-amz-date", value(&stamp)?);
    if let Some(token) = signer.token {
        headers.insert("x-amz-security-token", value(token)?);
    }
    if signer.service == "s3" && !headers.contains_key("x-amz-content-sha256") {
        headers.insert("x-amz-content-sha256", value(&hex::encode(Sha256::digest(body)))?);
    }
    let payload = match headers.get("x-amz-content-sha256").and_then(|text| text.to_str().ok()) {
        Some(text) => text.to_owned(),
        None => hex::encode(Sha256::digest(body)),
    };
    let mut names: Vec<String> = headers.keys().map(|name| name.as_str().to_owned()).collect();
    names.sort();
    let names = names.join(";");
    let head = Head {
        method,
        path,
        query,
        headers,
        authority: None,
    };
    let request = canonical::request(&head, signer.rule(), QueryRule::Canonical, &names, &payload);
    let signature = signer.signature(&scope, &stamp, &request);
    let text = format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={signature}",
        signer.access_key_id,
        scope.text(),
        names
    );
    headers.insert(http::header::AUTHORIZATION, value(&text)?);
    Ok(())
}

/// What a presigned URL is for.
#[derive(Clone, Copy, Debug)]
pub struct Presign<'a> {
    pub method: &'a str,
    /// Host and port that will be asked.
    pub host: &'a str,
    /// The path, percent-encoded.
    pub path: &'a str,
    /// Further query parameters, percent-encoded; empty when there are none.
    pub query: &'a str,
    /// Seconds from now, at most [`super::LONGEST_PRESIGNED`].
    pub expires: u32,
}

/// The query that makes a URL good without further headers: everything after the question mark.
///
/// # Errors
/// When the time is out of range or the host is no header text.
pub fn presign(signer: &Signer<'_>, wanted: &Presign<'_>) -> Result<String, AuthFault> {
    let stamp = stamp_of(signer.now)?;
    let scope = signer.scope(&stamp);
    let encode = |text: &str| canonical::encode(text.as_bytes(), false);
    let mut query = wanted.query.to_owned();
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(&format!(
        "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={}&X-Amz-Date={stamp}&X-Amz-Expires={}&X-Amz-SignedHeaders=host",
        encode(&format!("{}/{}", signer.access_key_id, scope.text())),
        wanted.expires
    ));
    if let Some(token) = signer.token {
        query.push_str(&format!("&X-Amz-Security-Token={}", encode(token)));
    }
    let mut headers = HeaderMap::new();
    let host = HeaderValue::from_str(wanted.host).map_err(|_| AuthFault::malformed("the host is no header text"))?;
    headers.insert(http::header::HOST, host);
    let head = Head {
        method: wanted.method,
        path: wanted.path,
        query: &query,
        headers: &headers,
        authority: None,
    };
    let payload = match signer.service {
        "s3" => "UNSIGNED-PAYLOAD".to_owned(),
        _ => hex::encode(Sha256::digest(b"")),
    };
    let request = canonical::request(&head, signer.rule(), QueryRule::Canonical, "host", &payload);
    let signature = signer.signature(&scope, &stamp, &request);
    Ok(format!("{query}&X-Amz-Signature={signature}"))
}
