//! Reading and writing objects.

use super::body::{SMALL, Trailers, blocking, read_small, receive, send, send_bytes, send_unsealed};
use super::convert::{
    CHECKSUMS, algorithm, algorithm_name, etag, etag_text, fill_checksums, given_checksums, header_tags, kept, kind_of,
    names, object_headers, seconds, shown_version, signed, timestamp, write_condition,
};
use super::encryption::{Wish, checksum_asks, show_encryption, unopened};
use super::fault;
use super::gate::{Ask, Call, Write};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode};
use isolarium_model::s3::{Checksum, ChecksumAlgorithm, Object, ObjectHeaders, Versioning};
use isolarium_store::ObjectError;
use isolarium_store::objects::{Attributes, ObjectBytes, Put, Reading, Staged};
use s3s::dto::{self, ETagCondition};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

/// Most bytes of one PUT or part.
pub(super) const LARGEST_PUT: u64 = 5 << 30;

/// Which checksums a body must be hashed with, and what must come out.
pub(super) struct Wanted {
    given: Vec<(ChecksumAlgorithm, String)>,
    trailing: Vec<(ChecksumAlgorithm, &'static str)>,
    trailers: Option<Trailers>,
    md5: Option<String>,
    named: Option<ChecksumAlgorithm>,
    /// What is hashed when the client asks for nothing.
    fallback: Option<ChecksumAlgorithm>,
}

impl Wanted {
    pub(super) fn new<T>(
        request: &S3Request<T>,
        given: Vec<(ChecksumAlgorithm, String)>,
        named: Option<&dto::ChecksumAlgorithm>,
        md5: Option<String>,
        fallback: Option<ChecksumAlgorithm>,
    ) -> S3Result<Self> {
        let promised = request
            .headers
            .get("x-amz-trailer")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let trailing = CHECKSUMS
            .iter()
            .filter(|(_, _, header)| promised.split(',').any(|name| name.trim().eq_ignore_ascii_case(header)))
            .map(|(algorithm, _, header)| (*algorithm, *header))
            .collect();
        if given.len() > 1 {
            return Err(s3_error!(
                InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
            ));
        }
        let named = named.map(|name| algorithm(name.as_str())).transpose()?;
        Ok(Self {
            given,
            trailing,
            trailers: request.extensions.get::<Trailers>().cloned(),
            md5,
            named,
            fallback,
        })
    }

    pub(super) fn algorithms(&self) -> Vec<ChecksumAlgorithm> {
        let mut all: Vec<ChecksumAlgorithm> = self
            .given
            .iter()
            .map(|(algorithm, _)| *algorithm)
            .chain(self.trailing.iter().map(|(a, _)| *a))
            .collect();
        all.extend(self.named);
        if all.is_empty() {
            all.extend(self.fallback);
        }
        all
    }

    /// Compares what came with what was promised.
    pub(super) fn check(&self, staged: &Staged) -> S3Result<()> {
        if let Some(md5) = &self.md5 {
            let given = STANDARD.decode(md5).ok().filter(|bytes| bytes.len() == 16);
            let given = given.ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified was invalid."))?;
            if given != staged.md5 {
                return Err(s3_error!(
                    BadDigest,
                    "The Content-MD5 you specified did not match what we received."
                ));
            }
        }
        let mut promised = self.given.clone();
        for (algorithm, header) in &self.trailing {
            let value = self.trailers.as_ref().and_then(|trailers| trailers.get(header)).ok_or_else(|| {
                fault::custom(
                    "MalformedTrailerError",
                    StatusCode::BAD_REQUEST,
                    "The request contained trailing data that was not well-formed or did not conform to our published \
                     schema.",
                )
            })?;
            promised.push((*algorithm, value));
        }
        for (algorithm, value) in promised {
            let Some(ours) = staged.checksums.iter().find(|sum| sum.algorithm == algorithm) else {
                continue;
            };
            if ours.value != value {
                let name = CHECKSUMS
                    .iter()
                    .find(|(known, _, _)| *known == algorithm)
                    .map_or("", |(_, name, _)| name);
                return Err(s3_error!(
                    BadDigest,
                    "The {} you specified did not match the calculated checksum.",
                    name
                ));
            }
        }
        Ok(())
    }
}

fn content_length<T>(request: &S3Request<T>) -> S3Result<()> {
    let declared = request.headers.get(http::header::CONTENT_LENGTH);
    let chunked = request.headers.contains_key(http::header::TRANSFER_ENCODING);
    if declared.is_none() && chunked {
        return Err(s3_error!(
            MissingContentLength,
            "You must provide the Content-Length HTTP header."
        ));
    }
    Ok(())
}

pub(super) async fn put(mut request: S3Request<dto::PutObjectInput>) -> S3Result<S3Response<dto::PutObjectOutput>> {
    let call = Call::of(&request)?;
    content_length(&request)?;
    let body = request.input.body.take();
    let input = &request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    let kept = match input.write_offset_bytes {
        Some(_) => Err(super::convert::not_implemented()),
        None => kept!(input),
    };
    let tags = header_tags(input.tagging.as_deref())?;
    let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let headers: ObjectHeaders = object_headers!(input);
    let wanted = Wanted::new(
        &request,
        given_checksums!(input),
        input.checksum_algorithm.as_ref(),
        input.content_md5.clone(),
        Some(ChecksumAlgorithm::Crc64Nvme),
    )?;
    let mut asks = vec![Ask::write(&bucket, &key, &request.headers, Write::Object).with_tags(&tags)];
    if !tags.is_empty() {
        asks.push(Ask::object("s3:PutObjectTagging", &bucket, key.as_str()).with_tags(&tags));
    }
    let expected = input.expected_bucket_owner.clone();
    let wish = Wish::of(&request.headers);
    let asked = key.clone();
    let (call, allowed, sealing) = blocking(move || {
        let allowed = call.allow(&asks, expected.as_deref())?;
        let bucket = allowed.bucket()?;
        kept?;
        let sealing = call.sealing(bucket, &asked, &wish?)?;
        Ok((call, allowed, sealing))
    })
    .await?;
    let staged = receive(
        &allowed.store,
        body,
        wanted.algorithms(),
        LARGEST_PUT,
        call.now,
        sealing,
    )
    .await?;
    wanted.check(&staged)?;
    let owner = allowed.bucket()?.owner.clone();
    let versioned = allowed.bucket()?.versioning != Versioning::Never;
    let object = blocking(move || {
        let attributes = Attributes {
            headers,
            tags,
            owner,
            now: call.now,
            condition,
        };
        let put = Put {
            bucket,
            key,
            data: staged,
            etag: None,
            checksums: None,
            parts: Vec::new(),
            attributes,
        };
        allowed.store.put(put).map_err(fault::of)
    })
    .await?;
    let mut output = dto::PutObjectOutput {
        e_tag: Some(etag(&object.etag)),
        version_id: shown_version(&object, versioned),
        checksum_type: kind_of(&object.checksums),
        ..Default::default()
    };
    fill_checksums!(output, &object.checksums);
    output.ssekms_encryption_context = show_encryption!(output, object.encryption.as_ref());
    Ok(S3Response::new(output))
}

/// The conditions of a read, in the order that RFC 9110 gives them.
pub(super) struct ReadConditions<'a> {
    pub(super) matches: Option<&'a ETagCondition>,
    pub(super) none_match: Option<&'a ETagCondition>,
    pub(super) modified_since: Option<&'a dto::Timestamp>,
    pub(super) unmodified_since: Option<&'a dto::Timestamp>,
}

impl ReadConditions<'_> {
    pub(super) fn check(&self, object: &Object) -> Result<(), StatusCode> {
        let holds = |condition: &ETagCondition| condition.is_any() || etag_text(condition) == object.etag;
        let modified = object.modified.0.div_euclid(1000);
        match (self.matches, self.unmodified_since) {
            (Some(condition), _) if !holds(condition) => return Err(StatusCode::PRECONDITION_FAILED),
            (None, Some(time)) if modified > seconds(time) => return Err(StatusCode::PRECONDITION_FAILED),
            _ => {}
        }
        match (self.none_match, self.modified_since) {
            (Some(condition), _) if holds(condition) => Err(StatusCode::NOT_MODIFIED),
            (None, Some(time)) if modified <= seconds(time) => Err(StatusCode::NOT_MODIFIED),
            _ => Ok(()),
        }
    }
}

fn failed_condition(status: StatusCode, object: &Object) -> S3Error {
    if status == StatusCode::PRECONDITION_FAILED {
        return fault::of(ObjectError::PreconditionFailed);
    }
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    error.set_status_code(status);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("\"{}\"", object.etag)) {
        headers.insert(http::header::ETAG, value);
    }
    error.set_headers(headers);
    error
}

/// The bytes a read asks for, and its `Content-Range` when that is not everything.
fn span(object: &Object, range: Option<dto::Range>, part: Option<i32>) -> S3Result<(u64, u64, Option<String>)> {
    let unsatisfiable = || s3_error!(InvalidRange, "The requested range is not satisfiable");
    let (from, end) = match (range, part) {
        (Some(_), Some(_)) => {
            return Err(s3_error!(
                InvalidRequest,
                "Cannot specify both Range header and partNumber query parameter"
            ));
        }
        (None, None) => return Ok((0, object.size, None)),
        (Some(range), None) => {
            let range = range.check(object.size).map_err(|_| unsatisfiable())?;
            (range.start, range.end)
        }
        (None, Some(number)) => {
            let wrong = || {
                fault::custom(
                    "InvalidPartNumber",
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "The requested partnumber is not satisfiable",
                )
            };
            if object.parts.is_empty() {
                if number != 1 {
                    return Err(wrong());
                }
                (0, object.size)
            } else {
                let at = object
                    .parts
                    .iter()
                    .position(|part| i32::from(part.number) == number)
                    .ok_or_else(wrong)?;
                let before: u64 = object.parts.iter().take(at).map(|part| part.size).sum();
                (before, before + object.parts.get(at).map_or(0, |part| part.size))
            }
        }
    };
    let last = end.saturating_sub(1);
    Ok((from, end - from, Some(format!("bytes {from}-{last}/{}", object.size))))
}

fn parsed_date(text: Option<&String>) -> Option<dto::Timestamp> {
    dto::Timestamp::parse(dto::TimestampFormat::HttpDate, text?).ok()
}

fn content_type(headers: &ObjectHeaders) -> String {
    headers
        .content_type
        .clone()
        .unwrap_or_else(|| "binary/octet-stream".into())
}

/// What GetObject and HeadObject share.
macro_rules! describe {
    ($out:ident, $object:expr, $versioned:expr, $checksums:expr, $length:expr, $content_range:expr) => {{
        let object: &Object = $object;
        $out.accept_ranges = Some("bytes".into());
        $out.content_length = Some(signed($length));
        $out.content_range = $content_range;
        $out.content_type = Some(content_type(&object.headers));
        $out.content_encoding = object.headers.content_encoding.clone();
        $out.content_disposition = object.headers.content_disposition.clone();
        $out.content_language = object.headers.content_language.clone();
        $out.cache_control = object.headers.cache_control.clone();
        $out.expires = parsed_date(object.headers.expires.as_ref());
        $out.website_redirect_location = object.headers.website_redirect.clone();
        show_encryption!($out, object.encryption.as_ref());
        $out.e_tag = Some(etag(&object.etag));
        $out.last_modified = Some(timestamp(object.modified));
        $out.version_id = shown_version(object, $versioned);
        if !object.headers.user.is_empty() {
            $out.metadata = Some(object.headers.user.clone().into_iter().collect());
        }
        if $checksums {
            fill_checksums!($out, &object.checksums);
            $out.checksum_type = kind_of(&object.checksums);
        }
    }};
}

/// The action that a read of this version needs (IAM-36).
pub(super) fn read_action(version: Option<&String>, current: &'static str, versioned: &'static str) -> &'static str {
    if version.is_some() { versioned } else { current }
}

pub(super) async fn get(request: S3Request<dto::GetObjectInput>) -> S3Result<S3Response<dto::GetObjectOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    blocking(move || {
        let action = read_action(input.version_id.as_ref(), "s3:GetObject", "s3:GetObjectVersion");
        let asks = [Ask::existing(action, &bucket, &key, input.version_id.as_ref())];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let versioned = allowed.bucket()?.versioning != Versioning::Never;
        let Reading { object, bytes, .. } = allowed
            .store
            .open_object(&bucket, &key, input.version_id.as_deref())
            .map_err(|error| call.missing(error, &bucket))?;
        let conditions = ReadConditions {
            matches: input.if_match.as_ref(),
            none_match: input.if_none_match.as_ref(),
            modified_since: input.if_modified_since.as_ref(),
            unmodified_since: input.if_unmodified_since.as_ref(),
        };
        conditions
            .check(&object)
            .map_err(|status| failed_condition(status, &object))?;
        let (from, length, content_range) = span(&object, input.range, input.part_number)?;
        let partial = content_range.is_some();
        let data_key = call.data_key(allowed.bucket()?, &key, object.encryption.as_ref())?;
        let body = match (bytes, data_key) {
            (ObjectBytes::Plain(file), _) if length <= SMALL => send_bytes(read_small(&file, from, length)?),
            (ObjectBytes::Plain(file), _) => send(file, from, length),
            (ObjectBytes::Sealed(_), None) => return Err(unopened()),
            (ObjectBytes::Sealed(sealed), Some(data_key)) => {
                send_unsealed(sealed.open(&data_key).map_err(fault::of)?, from, length)?
            }
        };
        // The stored checksum is that of all bytes.
        let sums = !partial
            && input
                .checksum_mode
                .as_ref()
                .is_some_and(|mode| mode.as_str() == "ENABLED");
        let mut output = dto::GetObjectOutput {
            body: Some(body),
            ..Default::default()
        };
        describe!(output, &object, versioned, sums, length, content_range);
        output.tag_count = i32::try_from(object.tags.len()).ok().filter(|count| *count > 0);
        output.parts_count = input
            .part_number
            .and(i32::try_from(object.parts.len()).ok())
            .filter(|count| *count > 0);
        let mut response = S3Response::new(output);
        if partial {
            response.status = Some(StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    })
    .await
}

pub(super) async fn head(request: S3Request<dto::HeadObjectInput>) -> S3Result<S3Response<dto::HeadObjectOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    blocking(move || {
        let action = read_action(input.version_id.as_ref(), "s3:GetObject", "s3:GetObjectVersion");
        let asks = [Ask::existing(action, &bucket, &key, input.version_id.as_ref())];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let versioned = allowed.bucket()?.versioning != Versioning::Never;
        let version = input.version_id.as_deref();
        let object = allowed
            .store
            .head(&bucket, &key, version)
            .map_err(|error| call.missing(error, &bucket))?;
        let conditions = ReadConditions {
            matches: input.if_match.as_ref(),
            none_match: input.if_none_match.as_ref(),
            modified_since: input.if_modified_since.as_ref(),
            unmodified_since: input.if_unmodified_since.as_ref(),
        };
        conditions
            .check(&object)
            .map_err(|status| failed_condition(status, &object))?;
        let (_, length, content_range) = span(&object, input.range, input.part_number)?;
        let partial = content_range.is_some();
        let sums = !partial
            && input
                .checksum_mode
                .as_ref()
                .is_some_and(|mode| mode.as_str() == "ENABLED");
        if sums && checksum_asks(&object) {
            call.data_key(allowed.bucket()?, &key, object.encryption.as_ref())?;
        }
        let mut output = dto::HeadObjectOutput::default();
        describe!(output, &object, versioned, sums, length, content_range);
        output.parts_count = input
            .part_number
            .and(i32::try_from(object.parts.len()).ok())
            .filter(|count| *count > 0);
        if let Some(text) = input.response_content_type {
            output.content_type = Some(text);
        }
        let mut response = S3Response::new(output);
        if partial {
            response.status = Some(StatusCode::PARTIAL_CONTENT);
        }
        Ok(response)
    })
    .await
}

/// The algorithms of an object's checksums, as listings show them.
pub(super) fn listed_algorithms(sums: &[Checksum]) -> Option<Vec<dto::ChecksumAlgorithm>> {
    (!sums.is_empty()).then(|| sums.iter().map(|sum| algorithm_name(sum.algorithm)).collect())
}
