//! AWS request signatures: one verifier for every service (IAM-42..47).
//!
//! [`parse`] reads what a request claims, the caller looks the secret up, [`Parsed::verify`] checks the claim. A request
//! whose body is still on its way gets a [`BodyCheck`] that the caller must finish before it acknowledges anything.
//! Nothing here reads a clock: the time arrives as an argument.

mod canonical;
pub mod chunked;
mod fault;
pub mod post;
mod sign;
mod sigv2;

pub use chunked::{ChunkDecoder, ChunkFault};
pub use fault::{AuthFault, Dialect};
pub use sign::{Presign, Signer, presign, sign};

use canonical::{PathRule, QueryRule};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Longest life of a presigned URL, in seconds: seven days (IAM-44).
pub const LONGEST_PRESIGNED: u32 = 604_800;

/// How far a signer's clock may be off, in seconds (IAM-44).
pub const DEFAULT_SKEW: i64 = 900;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const STAMP: HeaderName = HeaderName::from_static("x-amz-date");
const TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");

/// What a signature covers of a request, except its body.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub method: &'a str,
    /// The path as sent, still percent-encoded, without the query.
    pub path: &'a str,
    /// The query as sent, without the question mark; empty when there is none.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    /// The authority of the request line, for HTTP/2 requests without a `host` header (IAM-43).
    pub authority: Option<&'a str>,
}

impl<'a> From<&'a http::request::Parts> for Head<'a> {
    fn from(parts: &'a http::request::Parts) -> Self {
        Self {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or(""),
            headers: &parts.headers,
            authority: parts.uri.authority().map(http::uri::Authority::as_str),
        }
    }
}

/// `<date>/<region>/<service>/aws4_request`: for what a signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialScope {
    /// `YYYYMMDD`.
    pub date: String,
    pub region: String,
    /// The signing name, such as `sagemaker`, `s3`, `monitoring`.
    pub service: String,
}

impl CredentialScope {
    fn text(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }

    /// Refuses a signature made for another service or for a region that is not served (IAM-46). The global hosts of
    /// IAM and STS take `us-east-1` whatever is served.
    ///
    /// # Errors
    /// [`AuthFault::WrongService`] or [`AuthFault::WrongRegion`].
    pub fn expect(&self, service: &str, regions: impl IntoIterator<Item = impl AsRef<str>>) -> Result<(), AuthFault> {
        if self.service != service {
            return Err(AuthFault::WrongService {
                found: self.service.clone(),
                expected: service.into(),
            });
        }
        let global = matches!(service, "iam" | "sts") && self.region == "us-east-1";
        if global {
            return Ok(());
        }
        let mut expected = None;
        for region in regions {
            if region.as_ref() == self.region {
                return Ok(());
            }
            expected.get_or_insert_with(|| region.as_ref().to_owned());
        }
        Err(AuthFault::WrongRegion {
            found: self.region.clone(),
            expected: expected.unwrap_or_else(|| "us-east-1".into()),
        })
    }
}

/// Where the signature travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In the `Authorization` header.
    Header,
    /// In the query, good for `expires` seconds from its date.
    Query { expires: u32 },
    /// Signature version 2 in the query, S3 only; `expires` is a time in seconds since the epoch.
    QueryV2 { expires: i64 },
}

/// What the request says about its body's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadClaim {
    /// Nothing: the digest of the body itself is signed.
    Implicit,
    /// This SHA-256 digest.
    Sha256([u8; 32]),
    /// `UNSIGNED-PAYLOAD`.
    Unsigned,
    /// One of the `STREAMING-` forms.
    Streaming { signed: bool, trailer: bool },
}

/// A request's claim, read but not yet believed.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub form: Form,
    pub access_key_id: String,
    /// Absent in signature version 2.
    pub scope: Option<CredentialScope>,
    /// The session token, if the request has one (IAM-45).
    pub token: Option<String>,
    pub payload: PayloadClaim,
    /// Seconds since the epoch at which the request says it was signed.
    pub signed_at: i64,
    /// Lower-case names of the signed headers, sorted, with semicolons between them.
    pub signed_headers: String,
    /// The signing time as the request wrote it, `YYYYMMDDTHHMMSSZ`.
    stamp: String,
    signature: Vec<u8>,
}

/// What is known of the body when the signature is checked.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// All of it.
    Bytes(&'a [u8]),
    /// It follows as a stream.
    Streamed,
}

/// What is still to be checked while the body arrives. A request is not authentic before this is finished.
#[derive(Debug)]
#[must_use = "a streamed body is authentic only when this check is finished"]
pub enum BodyCheck {
    /// Nothing: the body was checked, or its sender chose not to sign it.
    Done,
    /// The body's SHA-256 must be this.
    Sha256([u8; 32]),
    /// The body is in chunks; only what the decoder returns is the payload.
    Chunked(Box<ChunkDecoder>),
}

impl BodyCheck {
    /// Holds a body that has arrived whole to the check; one in chunks is for the decoder.
    ///
    /// # Errors
    /// [`AuthFault::PayloadMismatch`].
    pub fn holds(&self, body: &[u8]) -> Result<(), AuthFault> {
        match self {
            Self::Done => Ok(()),
            Self::Sha256(digest) if bool::from(Sha256::digest(body).as_slice().ct_eq(digest)) => Ok(()),
            Self::Sha256(_) | Self::Chunked(_) => Err(AuthFault::PayloadMismatch),
        }
    }
}

/// What a signature is checked with. A text is a secret whose signing keys are derived anew each time.
#[derive(Clone, Copy)]
pub struct Secret<'a> {
    pub text: &'a str,
    /// [`signing_key`], or what remembers its results.
    pub derive: fn(&str, &CredentialScope) -> [u8; 32],
}

impl<'a> From<&'a str> for Secret<'a> {
    fn from(text: &'a str) -> Self {
        Self {
            text,
            derive: signing_key,
        }
    }
}

/// Who may sign how.
#[derive(Clone, Copy, Debug)]
pub struct Accept {
    /// Whether S3 takes presigned URLs of signature version 2.
    pub sigv2_query: bool,
}

/// Reads the signature that a request carries.
///
/// # Errors
/// [`AuthFault::Missing`] when it carries none, another fault when it cannot be read.
pub fn parse(head: &Head<'_>, accept: Accept) -> Result<Parsed, AuthFault> {
    let mut authorization = head.headers.get_all(http::header::AUTHORIZATION).iter();
    let query = canonical::pairs(head.query);
    let in_query = query
        .iter()
        .any(|(name, _)| matches!(name.as_str(), "X-Amz-Signature" | "X-Amz-Algorithm"));
    let v2_query = query.iter().any(|(name, _)| name == "AWSAccessKeyId");
    match (authorization.next(), in_query, v2_query) {
        (None, false, false) => Err(AuthFault::Missing),
        (Some(value), false, false) => {
            if authorization.next().is_some() {
                return Err(AuthFault::malformed("the Authorization header appears twice"));
            }
            let text = value
                .to_str()
                .map_err(|_| AuthFault::malformed("the Authorization header is not ASCII"))?;
            parse_header(head, text)
        }
        (None, true, false) => parse_query(head, &query).map_err(|fault| match fault {
            AuthFault::Malformed(text) => AuthFault::MalformedQuery(text),
            other => other,
        }),
        (None, false, true) if accept.sigv2_query => sigv2::parse(&query),
        (None, false, true) => Err(AuthFault::malformed(
            "signature version 2 is switched off; use version 4",
        )),
        _ => Err(AuthFault::malformed("only one authentication mechanism is allowed")),
    }
}

fn parse_header(head: &Head<'_>, text: &str) -> Result<Parsed, AuthFault> {
    let rest = text
        .strip_prefix(ALGORITHM)
        .filter(|rest| rest.starts_with([' ', '\t']))
        .ok_or_else(|| AuthFault::malformed("the Authorization header does not begin with AWS4-HMAC-SHA256"))?;
    let (mut credential, mut signed, mut signature) = (None, None, None);
    for part in pieces(rest, b',') {
        let part = part.trim();
        let at = part.bytes().position(|byte| byte == b'=');
        let (name, value) = at
            .and_then(|at| Some((part.get(..at)?, part.get(at.checked_add(1)?..)?)))
            .ok_or_else(|| {
                AuthFault::malformed("the Authorization header has a part that is not of the form name=value")
            })?;
        let slot = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed,
            "Signature" => &mut signature,
            _ => return Err(AuthFault::malformed("the Authorization header has an unknown part")),
        };
        if slot.replace(value).is_some() {
            return Err(AuthFault::malformed("a part of the Authorization header appears twice"));
        }
    }
    let missing = |what: &str| AuthFault::malformed(format!("the Authorization header lacks {what}"));
    let credential = credential.ok_or_else(|| missing("Credential"))?;
    let signed = signed.ok_or_else(|| missing("SignedHeaders"))?;
    let signature = signature.ok_or_else(|| missing("Signature"))?;
    let (stamp, signed_at) = header_time(head.headers)?;
    let (access_key_id, scope) = credential_parts(credential, &stamp)?;
    let declared = single(head.headers, &CONTENT_SHA256)?;
    let payload = match declared {
        Some(text) => payload_claim(text, &scope.service)?,
        None if scope.service == "s3" => return Err(AuthFault::NoContentSha256),
        None => PayloadClaim::Implicit,
    };
    let token = single(head.headers, &SECURITY_TOKEN)?.map(str::to_owned);
    Ok(Parsed {
        form: Form::Header,
        access_key_id,
        scope: Some(scope),
        token,
        payload,
        signed_at,
        signed_headers: signed_headers(signed)?,
        stamp,
        signature: signature_bytes(signature)?,
    })
}

fn parse_query(head: &Head<'_>, query: &[(String, String)]) -> Result<Parsed, AuthFault> {
    let optional = |name: &str| -> Result<Option<&str>, AuthFault> {
        let mut found = query
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        let first = found.next();
        match found.next() {
            Some(_) => Err(AuthFault::malformed(format!("{name} appears twice in the query"))),
            None => Ok(first),
        }
    };
    let required = |name: &str| {
        optional(name)?.ok_or_else(|| AuthFault::malformed(format!("the query lacks the parameter {name}")))
    };
    if required("X-Amz-Algorithm")? != ALGORITHM {
        return Err(AuthFault::malformed("X-Amz-Algorithm only supports AWS4-HMAC-SHA256"));
    }
    let stamp = required("X-Amz-Date")?.to_owned();
    let signed_at = parse_stamp(&stamp)?;
    let (access_key_id, scope) = credential_parts(required("X-Amz-Credential")?, &stamp)?;
    let expires = required("X-Amz-Expires")?
        .parse::<u32>()
        .ok()
        .filter(|seconds| (1..=LONGEST_PRESIGNED).contains(seconds))
        .ok_or_else(|| AuthFault::malformed("X-Amz-Expires must be between 1 and 604800 seconds"))?;
    let payload = match single(head.headers, &CONTENT_SHA256)?.or(optional("X-Amz-Content-Sha256")?) {
        Some(text) => payload_claim(text, &scope.service)?,
        None if scope.service == "s3" => PayloadClaim::Unsigned,
        None => PayloadClaim::Implicit,
    };
    Ok(Parsed {
        form: Form::Query { expires },
        access_key_id,
        scope: Some(scope),
        token: optional("X-Amz-Security-Token")?.map(str::to_owned),
        payload,
        signed_at,
        signed_headers: signed_headers(required("X-Amz-SignedHeaders")?)?,
        stamp,
        signature: signature_bytes(required("X-Amz-Signature")?)?,
    })
}

/// The pieces of a text between marks of one byte, as `str::split` finds them: the texts of a head are too short for its
/// search to be worth its beginning.
fn pieces(text: &str, mark: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let Some(at) = text.bytes().position(|byte| byte == mark) else {
            return Some(text);
        };
        rest = text.get(at.saturating_add(1)..);
        text.get(..at)
    })
}

/// The value of a header that may appear once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, AuthFault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AuthFault::malformed(format!("the header {name} appears twice")));
    }
    value
        .to_str()
        .map(|text| Some(text.trim()))
        .map_err(|_| AuthFault::malformed(format!("{name} is not ASCII")))
}

fn header_time(headers: &HeaderMap) -> Result<(String, i64), AuthFault> {
    if let Some(stamp) = single(headers, &STAMP)? {
        return Ok((stamp.to_owned(), parse_stamp(stamp)?));
    }
    let text = single(headers, &http::header::DATE)?
        .ok_or_else(|| AuthFault::malformed("the request has neither an X-Amz-Date nor a Date header"))?;
    if let Ok(seconds) = parse_stamp(text) {
        return Ok((text.to_owned(), seconds));
    }
    let seconds = jiff::fmt::rfc2822::parse(text)
        .map_err(|_| AuthFault::malformed("the Date header cannot be read"))?
        .timestamp()
        .as_second();
    Ok((stamp_of(seconds)?, seconds))
}

/// Seconds since the epoch of `YYYYMMDDTHHMMSSZ`.
///
/// # Errors
/// [`AuthFault::Malformed`] for any other text.
pub fn parse_stamp(text: &str) -> Result<i64, AuthFault> {
    let bad = || AuthFault::malformed("the date of the request is not of the form YYYYMMDDTHHMMSSZ");
    let shape = text.len() == 16
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    if !shape {
        return Err(bad());
    }
    let number = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<i8>().ok());
    let parts = || {
        let year = text.get(..4)?.parse::<i16>().ok()?;
        let date = jiff::civil::Date::new(year, number(4, 6)?, number(6, 8)?).ok()?;
        let time = jiff::civil::Time::new(number(9, 11)?, number(11, 13)?, number(13, 15)?, 0).ok()?;
        jiff::tz::Offset::UTC.to_timestamp(date.to_datetime(time)).ok()
    };
    parts().map(jiff::Timestamp::as_second).ok_or_else(bad)
}

/// `YYYYMMDDTHHMMSSZ` of seconds since the epoch.
fn stamp_of(seconds: i64) -> Result<String, AuthFault> {
    jiff::Timestamp::from_second(seconds)
        .map(|time| time.strftime("%Y%m%dT%H%M%SZ").to_string())
        .map_err(|_| AuthFault::malformed("the date of the request is out of range"))
}

fn credential_parts(text: &str, stamp: &str) -> Result<(String, CredentialScope), AuthFault> {
    let mut parts = pieces(text, b'/');
    let [key, date, region, service, end] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    if end != "aws4_request" || parts.next().is_some() {
        return Err(AuthFault::malformed(
            "the credential is not <key>/<date>/<region>/<service>/aws4_request",
        ));
    }
    if [key, region, service].iter().any(|part| part.is_empty()) {
        return Err(AuthFault::malformed("the credential has an empty part"));
    }
    if !stamp.starts_with(date) || date.len() != 8 {
        return Err(AuthFault::malformed(
            "the date in the credential scope is not the date of the request",
        ));
    }
    let scope = CredentialScope {
        date: date.into(),
        region: region.into(),
        service: service.into(),
    };
    Ok((key.into(), scope))
}

/// The list must be lower-case, sorted, without repetition, and must hold `host` (IAM-43).
fn signed_headers(text: &str) -> Result<String, AuthFault> {
    let tidy = !text.bytes().any(|b| b.is_ascii_uppercase());
    let (mut before, mut host) = ("", false);
    for name in pieces(text, b';') {
        // An empty name comes behind no other.
        if !tidy || name <= before {
            return Err(AuthFault::malformed(
                "the signed headers are not a sorted list of lower-case names",
            ));
        }
        host |= name == "host";
        before = name;
    }
    if !host {
        return Err(AuthFault::UnsignedHeader("host".into()));
    }
    Ok(text.into())
}

fn signature_bytes(text: &str) -> Result<Vec<u8>, AuthFault> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| AuthFault::BadSignature)?;
    Ok(bytes.to_vec())
}

fn payload_claim(text: &str, service: &str) -> Result<PayloadClaim, AuthFault> {
    let streaming = |signed, trailer| PayloadClaim::Streaming { signed, trailer };
    let claim = match text {
        "UNSIGNED-PAYLOAD" => PayloadClaim::Unsigned,
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => streaming(true, false),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => streaming(true, true),
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => streaming(false, true),
        digest => {
            let mut bytes = [0; 32];
            hex::decode_to_slice(digest, &mut bytes)
                .map_err(|_| AuthFault::malformed("x-amz-content-sha256 is neither a digest nor a known form"))?;
            return Ok(PayloadClaim::Sha256(bytes));
        }
    };
    // Only S3 lets a sender leave the body out of the signature; elsewhere the body is the request.
    if service == "s3" {
        Ok(claim)
    } else {
        Err(AuthFault::malformed("this service requires a signed body"))
    }
}

impl Parsed {
    /// Checks the claim against the secret key. `now` and `skew` are seconds; `bucket` is the bucket that the host name
    /// carried, which only signature version 2 needs.
    ///
    /// Comparison takes the same time wherever the signatures differ.
    ///
    /// # Errors
    /// The fault, in the order time, headers, signature, body.
    pub fn verify<'a>(
        &self,
        head: &Head<'_>,
        body: Body<'_>,
        secret: impl Into<Secret<'a>>,
        now: i64,
        skew: i64,
        bucket: Option<&str>,
    ) -> Result<BodyCheck, AuthFault> {
        let secret = secret.into();
        self.check_time(now, skew)?;
        let Some(scope) = &self.scope else {
            sigv2::verify(self, head, secret.text, bucket)?;
            return Ok(BodyCheck::Done);
        };
        self.check_headers(head)?;
        let payload = self.payload_text(head, body)?;
        let key = (secret.derive)(secret.text, scope);
        let rule = if scope.service == "s3" {
            PathRule::AsIs
        } else {
            PathRule::EncodeAgain
        };
        // Some signers of S3 requests sign path and query exactly as they send them, others in canonical encoding. Both
        // are functions of the same bytes: a text with characters that canonical encoding replaces is no canonical text
        // of another request.
        let mut forms = vec![(rule, QueryRule::Canonical)];
        if !head.query.is_empty()
            && canonical::query(head.query, QueryRule::Sent) != canonical::query(head.query, QueryRule::Canonical)
        {
            forms.push((rule, QueryRule::Sent));
        }
        if rule == PathRule::AsIs && canonical::path(head.path, PathRule::Sent) != canonical::path(head.path, rule) {
            for (_, query) in forms.clone() {
                forms.push((PathRule::Sent, query));
            }
        }
        let matched = forms.iter().any(|(path, query)| {
            let request = canonical::request(head, *path, *query, &self.signed_headers, &payload);
            let text = string_to_sign(&self.stamp, scope, &request);
            hmac_sha256(&key, text.as_bytes())
                .as_slice()
                .ct_eq(&self.signature)
                .into()
        });
        if !matched {
            return Err(AuthFault::BadSignature);
        }
        self.body_check(head, body, Some((key, scope)))
    }

    /// What the body is held to where no secret is asked for (`auth.unknown_keys = "root"`): framing is taken off and
    /// digests are checked, signatures are not.
    ///
    /// # Errors
    /// When the headers that describe the body cannot be read, or the body is not the one they describe.
    pub fn body_without_secret(&self, head: &Head<'_>, body: Body<'_>) -> Result<BodyCheck, AuthFault> {
        self.body_check(head, body, None)
    }

    fn check_time(&self, now: i64, skew: i64) -> Result<(), AuthFault> {
        match self.form {
            Form::Header if now.saturating_sub(self.signed_at).saturating_abs() > skew => Err(AuthFault::Skewed {
                signed_at: self.stamp.clone(),
            }),
            Form::Query { .. } if self.signed_at > now.saturating_add(skew) => Err(AuthFault::Skewed {
                signed_at: self.stamp.clone(),
            }),
            Form::Query { expires } if now > self.signed_at.saturating_add(i64::from(expires)) => {
                Err(AuthFault::UrlExpired)
            }
            Form::QueryV2 { expires } if now > expires => Err(AuthFault::UrlExpired),
            _ => Ok(()),
        }
    }

    /// Every signed header is there, and every `x-amz-` header that is there is signed.
    fn check_headers(&self, head: &Head<'_>) -> Result<(), AuthFault> {
        for name in pieces(&self.signed_headers, b';') {
            let host = name == "host" && head.authority.is_some();
            if !host && !head.headers.contains_key(name) {
                return Err(AuthFault::BadSignature);
            }
        }
        for name in head.headers.keys() {
            let name = name.as_str();
            if name.starts_with("x-amz-") && !pieces(&self.signed_headers, b';').any(|signed| signed == name) {
                return Err(AuthFault::UnsignedHeader(name.into()));
            }
        }
        Ok(())
    }

    /// The last line of the canonical request.
    fn payload_text(&self, head: &Head<'_>, body: Body<'_>) -> Result<String, AuthFault> {
        if let Some(text) = single(head.headers, &CONTENT_SHA256)? {
            return Ok(text.into());
        }
        match (self.payload, body) {
            (PayloadClaim::Implicit, Body::Bytes(bytes)) => Ok(digest_text(bytes)),
            (PayloadClaim::Implicit, Body::Streamed) => Err(AuthFault::malformed(
                "a streamed body needs an x-amz-content-sha256 header",
            )),
            (PayloadClaim::Sha256(digest), _) => Ok(hex::encode(digest)),
            (PayloadClaim::Unsigned | PayloadClaim::Streaming { .. }, _) => Ok("UNSIGNED-PAYLOAD".into()),
        }
    }

    /// `signing` is what the chunks of a chunked body are signed with; without it they are not checked.
    fn body_check(
        &self,
        head: &Head<'_>,
        body: Body<'_>,
        signing: Option<([u8; 32], &CredentialScope)>,
    ) -> Result<BodyCheck, AuthFault> {
        match (self.payload, body) {
            (PayloadClaim::Sha256(digest), Body::Bytes(bytes)) => {
                BodyCheck::Sha256(digest).holds(bytes).map(|()| BodyCheck::Done)
            }
            (PayloadClaim::Sha256(digest), Body::Streamed) => Ok(BodyCheck::Sha256(digest)),
            (PayloadClaim::Streaming { signed, trailer }, _) => {
                let length = single(head.headers, &DECODED_LENGTH)?
                    .and_then(|text| text.parse::<u64>().ok())
                    .ok_or_else(|| AuthFault::malformed("x-amz-decoded-content-length is missing or no number"))?;
                let seed = signing.filter(|_| signed).map(|(key, scope)| chunked::Seed {
                    key,
                    stamp: self.stamp.clone(),
                    scope: scope.text(),
                    signature: hex::encode(&self.signature),
                });
                let promised = single(head.headers, &TRAILER)?.unwrap_or("");
                Ok(BodyCheck::Chunked(Box::new(ChunkDecoder::new(
                    seed, trailer, promised, length,
                ))))
            }
            (PayloadClaim::Implicit | PayloadClaim::Unsigned, _) => Ok(BodyCheck::Done),
        }
    }
}

/// AWS's percent-encoding of a text: everything but letters, digits, `-`, `_`, `.` and `~` (RFC 3986).
pub fn uri_encode(text: &str) -> String {
    canonical::encode(text.as_bytes(), false)
}

/// The second text of the algorithm: what the signing key signs.
fn string_to_sign(stamp: &str, scope: &CredentialScope, canonical_request: &[u8]) -> String {
    let parts = [
        ALGORITHM,
        "\n",
        stamp,
        "\n",
        &scope.date,
        "/",
        &scope.region,
        "/",
        &scope.service,
        "/aws4_request\n",
    ];
    let mut text = String::with_capacity(200);
    text.extend(parts);
    text.push_str(&digest_text(canonical_request));
    text
}

/// The SHA-256 digest in hexadecimal digits.
fn digest_text(bytes: &[u8]) -> String {
    let mut digits = [0; 64];
    // Twice as many digits as bytes: they fit, and they are ASCII.
    let _fits = hex::encode_to_slice(Sha256::digest(bytes), &mut digits);
    std::str::from_utf8(&digits).unwrap_or_default().to_owned()
}

/// The key that requests within a scope are signed with: derived from the secret, and of no use outside of the scope.
pub fn signing_key(secret: &str, scope: &CredentialScope) -> [u8; 32] {
    let date = hmac_sha256(format!("AWS4{secret}").as_bytes(), scope.date.as_bytes());
    let region = hmac_sha256(&date, scope.region.as_bytes());
    let service = hmac_sha256(&region, scope.service.as_bytes());
    hmac_sha256(&service, b"aws4_request")
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
