//! Uploads by HTML form: `POST /BUCKET` with `multipart/form-data`. The form's own fields carry the signature, so it is
//! read up to its file, verified, and turned into a PUT whose body is the file as it streams in.

use super::convert::encoded;
use super::gate::SignatureKeys;
use crate::Caller;
use crate::iam::credentials::{Identities, ResolveError};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use isolarium_model::{Region, Timestamp};
use isolarium_wire::sigv4::post::{self, Fields, FileLength};
use isolarium_wire::sigv4::{AuthFault, Dialect};
use s3s::{Body, S3Error, S3ErrorCode, S3Result, StdError, s3_error};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Most bytes of a form before its file.
const LARGEST_HEAD: usize = 64 << 10;

/// Whether a request is a form upload, and its boundary.
pub(super) fn boundary(method: &Method, headers: &HeaderMap) -> Option<String> {
    let text = headers
        .get(CONTENT_TYPE)
        .filter(|_| *method == Method::POST)?
        .to_str()
        .ok()?;
    let (kind, parameters) = text.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let named = parameters.split(';').find_map(|one| {
        let (name, value) = one.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then_some(value)
    })?;
    let plain = named.trim_matches('"');
    (1..=70).contains(&plain.len()).then(|| plain.to_owned())
}

fn malformed() -> S3Error {
    s3_error!(
        MalformedPOSTRequest,
        "The body of your POST request is not well-formed multipart/form-data."
    )
}

fn position(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}

/// The form up to its file, and the rest of the body.
pub(super) struct Form<B> {
    fields: Fields,
    filename: String,
    file_type: Option<String>,
    rest: Rest<B>,
}

struct Rest<B> {
    buffer: BytesMut,
    delimiter: Vec<u8>,
    body: Pin<Box<B>>,
}

impl<B> Rest<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<StdError>,
{
    /// Reads until `mark` is in the buffer and gives what precedes it; both are taken off.
    async fn until(&mut self, mark: &[u8], left: &mut usize) -> S3Result<Bytes> {
        loop {
            if let Some(at) = position(&self.buffer, mark) {
                *left = left.checked_sub(at).ok_or_else(malformed)?;
                let before = self.buffer.split_to(at).freeze();
                self.buffer.advance(mark.len());
                return Ok(before);
            }
            if self.buffer.len() > *left {
                return Err(s3_error!(
                    MaxPostPreDataLengthExceededError,
                    "Your POST request fields preceding the upload file were too large."
                ));
            }
            let mut frames = futures_util::stream::poll_fn(|cx| self.body.as_mut().poll_frame(cx));
            match frames.next().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(_)) | None => return Err(malformed()),
            }
        }
    }
}

/// A parameter of a Content-Disposition header.
fn parameter(header: &str, name: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|part| {
        let (key, value) = part.trim().split_once('=')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim_matches('"').to_owned())
    })
}

impl<B> Form<B>
where
    B: HttpBody<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<StdError>,
{
    /// Reads the fields before the file. Fields after it are no part of the upload, as in S3.
    pub(super) async fn read(body: B, boundary: &str) -> S3Result<Self> {
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The first delimiter has no line break before it.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        let mut rest = Rest {
            buffer,
            delimiter: delimiter.clone(),
            body: Box::pin(body),
        };
        let mut left = LARGEST_HEAD;
        let mut fields = Fields::new();
        rest.until(&delimiter, &mut left).await?;
        loop {
            // After a delimiter: the end of its line. `--` would be the end of a form without a file.
            let line = rest.until(b"\r\n", &mut left).await?;
            if !line.trim_ascii().is_empty() {
                return Err(s3_error!(
                    InvalidArgument,
                    "POST requires exactly one file upload per request."
                ));
            }
            let head = rest.until(b"\r\n\r\n", &mut left).await?;
            let head = String::from_utf8(head.to_vec()).map_err(|_| malformed())?;
            let header = |name: &str| {
                head.split("\r\n").find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let disposition = header("content-disposition").ok_or_else(malformed)?;
            let name = parameter(&disposition, "name")
                .ok_or_else(malformed)?
                .to_ascii_lowercase();
            if name == "file" {
                let filename = parameter(&disposition, "filename").unwrap_or_default();
                // Browsers of old send whole paths.
                let filename = filename.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
                return Ok(Self {
                    fields,
                    filename,
                    file_type: header("content-type"),
                    rest,
                });
            }
            let value = rest.until(&delimiter, &mut left).await?;
            let value = String::from_utf8(value.to_vec()).map_err(|_| malformed())?;
            if fields.insert(name, value).is_some() {
                return Err(malformed());
            }
        }
    }

    /// Who signed the form and what it lets through. A form without a policy comes from nobody.
    pub(super) fn verify(
        &mut self,
        identities: &dyn Identities,
        regions: &[Region],
        bucket: &str,
        caller: &mut Caller,
        now: Timestamp,
    ) -> S3Result<FileLength> {
        let answer = |fault: AuthFault| {
            let error = fault.api_error(Dialect::S3);
            let code = S3ErrorCode::from_bytes(error.code.as_bytes()).unwrap_or(S3ErrorCode::AccessDenied);
            let mut answer = S3Error::with_message(code, error.message);
            answer.set_status_code(StatusCode::from_u16(error.status).unwrap_or(StatusCode::FORBIDDEN));
            answer
        };
        let claim = match post::parse(&self.fields) {
            Err(AuthFault::Missing) => {
                return Ok(FileLength {
                    least: 0,
                    most: u64::MAX,
                });
            }
            other => other.map_err(answer)?,
        };
        let served: Vec<&str> = regions.iter().map(Region::as_str).collect();
        claim.scope.expect("s3", &served).map_err(answer)?;
        let signer = identities
            .find(&claim.access_key_id, claim.token.as_deref(), now)
            .map_err(|error| match error {
                ResolveError::Fault(fault) => answer(fault),
                error @ ResolveError::Store(_) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a form's signer was not looked up"
                    );
                    s3_error!(InternalError, "We encountered an internal error. Please try again.")
                }
            })?;
        let length = claim
            .verify(&self.fields, bucket, signer.secret.expose(), now.0.div_euclid(1000))
            .map_err(answer)?;
        if let Some(account) = signer.principal.account() {
            caller.scope.account = account.clone();
        }
        caller.principal = signer.principal;
        caller.session = signer.session;
        Ok(length)
    }

    /// The condition keys that tell how the form was signed.
    pub(super) fn signature_keys(&self, now: Timestamp) -> SignatureKeys {
        let Some(algorithm) = self.field("x-amz-algorithm").filter(|_| self.field("policy").is_some()) else {
            return SignatureKeys::new();
        };
        let mut keys = vec![
            ("s3:authType", "POST".to_owned()),
            ("s3:signatureversion", algorithm.to_owned()),
        ];
        let age = super::front::signature_age(self.field("x-amz-date"), now);
        keys.extend(age.map(|age| ("s3:signatureAge", age)));
        keys
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// The PUT that the form stands for, and how to answer its success.
    pub(super) fn into_put(self, bucket: &str, length: FileLength) -> S3Result<(Request<Body>, Success)> {
        let key = self.field("key").filter(|key| !key.is_empty()).ok_or_else(|| {
            s3_error!(InvalidArgument, "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.")
        })?;
        let key = key.replace("${filename}", &self.filename);
        if self.field("tagging").is_some() {
            return Err(super::convert::not_implemented());
        }
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::PUT;
        let target = format!("/{bucket}/{}", encoded(key.clone(), true).replace('*', "%2A"));
        *request.uri_mut() = target.parse().map_err(|_| malformed())?;
        for (name, value) in &self.fields {
            let kept = matches!(
                name.as_str(),
                "cache-control"
                    | "content-type"
                    | "content-disposition"
                    | "content-encoding"
                    | "content-language"
                    | "expires"
            ) || name.starts_with("x-amz-meta-")
                || name.starts_with("x-amz-checksum-")
                || name.starts_with("x-amz-server-side-encryption")
                || matches!(
                    name.as_str(),
                    "x-amz-storage-class" | "x-amz-website-redirect-location" | "acl"
                );
            if kept {
                let name = if name == "acl" { "x-amz-acl" } else { name };
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed())?;
                request
                    .headers_mut()
                    .insert(name, HeaderValue::from_str(value).map_err(|_| malformed())?);
            }
        }
        if let Some(file_type) = self
            .file_type
            .as_ref()
            .filter(|_| !request.headers().contains_key(CONTENT_TYPE))
        {
            let value = HeaderValue::from_str(file_type).map_err(|_| malformed())?;
            request.headers_mut().insert(CONTENT_TYPE, value);
        }
        let success = Success {
            redirect: self
                .field("success_action_redirect")
                .or(self.field("redirect"))
                .map(str::to_owned),
            status: self.field("success_action_status").and_then(|text| text.parse().ok()),
            bucket: bucket.to_owned(),
            key,
        };
        let file = FileBody {
            rest: self.rest,
            length,
            seen: 0,
            ended: false,
        };
        *request.body_mut() = Body::http_body(file);
        Ok((request, success))
    }
}

/// A file that is not of the length its policy allows, or has no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileFault {
    #[error("the file is larger than the form's policy allows")]
    TooLarge,
    #[error("the file is smaller than the form's policy allows")]
    TooSmall,
    #[error("the form ends within its file")]
    Cut,
}

impl FileFault {
    pub(super) fn answer(&self) -> S3Error {
        match self {
            Self::TooLarge => s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size"),
            Self::TooSmall => {
                s3_error!(
                    EntityTooSmall,
                    "Your proposed upload is smaller than the minimum allowed size"
                )
            }
            Self::Cut => malformed(),
        }
    }
}

/// The bytes of the file, up to the delimiter after it.
struct FileBody<B> {
    rest: Rest<B>,
    length: FileLength,
    seen: u64,
    ended: bool,
}

impl<B> FileBody<B> {
    /// Whole bytes of the file that the buffer holds for sure.
    fn take(&mut self) -> Result<Option<Bytes>, FileFault> {
        let delimiter = &self.rest.delimiter;
        let end = position(&self.rest.buffer, delimiter);
        // The tail might be the beginning of the delimiter.
        let sure = end.unwrap_or_else(|| self.rest.buffer.len().saturating_sub(delimiter.len()));
        self.ended = end.is_some();
        let piece = self.rest.buffer.split_to(sure).freeze();
        self.seen = self.seen.saturating_add(piece.len() as u64);
        if self.seen > self.length.most {
            return Err(FileFault::TooLarge);
        }
        if self.ended && self.seen < self.length.least {
            return Err(FileFault::TooSmall);
        }
        Ok((!piece.is_empty()).then_some(piece))
    }
}

impl<B> HttpBody for FileBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            match self.take() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) if self.ended => return Poll::Ready(None),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Some(Err(fault.into()))),
            }
            match ready!(self.rest.body.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(Some(Err(FileFault::Cut.into()))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => self
                    .rest
                    .buffer
                    .extend_from_slice(&frame.into_data().unwrap_or_default()),
            }
        }
    }
}

/// How a form wants its success told.
pub(super) struct Success {
    redirect: Option<String>,
    status: Option<u16>,
    bucket: String,
    key: String,
}

impl Success {
    /// Turns the PUT's answer into the form's.
    pub(super) fn answer(&self, put: Response<Body>) -> Response<Body> {
        if !put.status().is_success() {
            return put;
        }
        let (mut parts, _) = put.into_parts();
        parts.headers.remove(CONTENT_LENGTH);
        let etag = parts
            .headers
            .get(http::header::ETAG)
            .and_then(|etag| etag.to_str().ok())
            .unwrap_or_default();
        let place = format!("/{}/{}", self.bucket, encoded(self.key.clone(), true));
        let (etag_url, key_url) = (
            etag.replace('"', "%22"),
            encoded(self.key.clone(), true).replace('/', "%2F"),
        );
        let mut body = Body::empty();
        if let Some(redirect) = &self.redirect {
            let mark = if redirect.contains('?') { '&' } else { '?' };
            let target = format!("{redirect}{mark}bucket={}&key={key_url}&etag={etag_url}", self.bucket);
            if let Ok(target) = HeaderValue::from_str(&target) {
                parts.status = StatusCode::SEE_OTHER;
                parts.headers.insert(LOCATION, target);
                return Response::from_parts(parts, body);
            }
        }
        parts.status = match self.status {
            Some(200) => StatusCode::OK,
            Some(201) => StatusCode::CREATED,
            _ => StatusCode::NO_CONTENT,
        };
        if parts.status == StatusCode::CREATED {
            let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            body = Body::from(format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Location>{}</Location><Bucket>{}</Bucket>\
                 <Key>{}</Key><ETag>{}</ETag></PostResponse>",
                escaped(&place),
                self.bucket,
                escaped(&self.key),
                escaped(etag),
            ));
            parts
                .headers
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        if let Ok(place) = HeaderValue::from_str(&place) {
            parts.headers.insert(LOCATION, place);
        }
        Response::from_parts(parts, body)
    }
}
