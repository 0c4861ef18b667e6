//! Copies: links where possible, bytes where the copy differs.

use super::body::blocking;
use super::convert::{
    algorithm, etag, fill_checksums, header_tags, kept, kind_of, names, object_headers, shown_version, timestamp,
};
use super::encryption::{Wish, show_encryption};
use super::fault;
use super::gate::{Allowed, Ask, Call, Write};
use super::objects::{LARGEST_PUT, ReadConditions, read_action};
use http::HeaderMap;
use isolarium_model::s3::{BucketName, ChecksumAlgorithm, Object, ObjectHeaders, ObjectKey, Tags, Versioning};
use isolarium_store::objects::{Attributes, CopySource, DataKey, Put, Sealing, WriteCondition};
use isolarium_store::{ObjectError, ObjectStore};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result, s3_error};

/// The source of a copy as names; only buckets can be sources.
pub(super) fn source_of(source: &dto::CopySource) -> S3Result<CopySource> {
    match source {
        dto::CopySource::Bucket {
            bucket,
            key,
            version_id,
        } => Ok(CopySource {
            bucket: super::convert::bucket_name(bucket)?,
            key: super::convert::object_key(key)?,
            version: version_id.as_deref().map(str::to_owned),
        }),
        _ => Err(s3_error!(
            InvalidArgument,
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        )),
    }
}

/// The question about reading a copy's source.
pub(super) fn source_ask(source: &CopySource) -> Ask {
    let action = read_action(source.version.as_ref(), "s3:GetObject", "s3:GetObjectVersion");
    Ask::existing(action, &source.bucket, &source.key, source.version.as_ref())
}

/// The question about writing a copy: `s3:x-amz-copy-source` is the source as `BUCKET/KEY`.
pub(super) fn copy_ask(
    bucket: &BucketName,
    key: &ObjectKey,
    headers: &HeaderMap,
    source: &CopySource,
    write: Write,
) -> Ask {
    let text = format!("{}/{}", source.bucket, source.key);
    Ask::write(bucket, key, headers, write).with("s3:x-amz-copy-source", Some(text))
}

macro_rules! check_source {
    ($input:expr, $object:expr) => {
        ReadConditions {
            matches: $input.copy_source_if_match.as_ref(),
            none_match: $input.copy_source_if_none_match.as_ref(),
            modified_since: $input.copy_source_if_modified_since.as_ref(),
            unmodified_since: $input.copy_source_if_unmodified_since.as_ref(),
        }
        .check($object)
        .map_err(|_| fault::of(ObjectError::PreconditionFailed))
    };
}

pub(super) fn check_part_source(input: &dto::UploadPartCopyInput, object: &Object) -> S3Result<()> {
    check_source!(input, object)
}

pub(super) async fn copy(request: S3Request<dto::CopyObjectInput>) -> S3Result<S3Response<dto::CopyObjectOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    let kept = match input.copy_source_sse_customer_algorithm {
        Some(_) => Err(super::convert::not_implemented()),
        None => kept!(input),
    };
    let source = source_of(&input.copy_source)?;
    let directive = |text: Option<&str>| text.is_none_or(|text| text == "COPY");
    let keep_headers = directive(input.metadata_directive.as_ref().map(|text| text.as_str()));
    let keep_tags = directive(input.tagging_directive.as_ref().map(|text| text.as_str()));
    let onto_itself = source.bucket == bucket && source.key == key && source.version.is_none();
    let wish = Wish::of(&request.headers);
    if onto_itself && keep_headers && keep_tags && matches!(wish, Ok(Wish::Default)) {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    let wanted = input
        .checksum_algorithm
        .as_ref()
        .map(|name| algorithm(name.as_str()))
        .transpose()?;
    let tags = header_tags(input.tagging.as_deref())?;
    let headers: ObjectHeaders = object_headers!(input);
    blocking(move || {
        let given = if keep_tags { Tags::new() } else { tags.clone() };
        let writing = copy_ask(&bucket, &key, &request.headers, &source, Write::Object).with_tags(&given);
        let mut asks = vec![writing, source_ask(&source)];
        if !given.is_empty() {
            asks.push(Ask::object("s3:PutObjectTagging", &bucket, key.as_str()).with_tags(&given));
        }
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let (owner, versioned) = (
            allowed.bucket()?.owner.clone(),
            allowed.bucket()?.versioning != Versioning::Never,
        );
        source_owner(&allowed, &source.bucket, input.expected_source_bucket_owner.as_deref())?;
        kept?;
        let from = allowed
            .store
            .head(&source.bucket, &source.key, source.version.as_deref())
            .map_err(|error| call.missing(error, &source.bucket))?;
        check_source!(input, &from)?;
        if keep_tags && !from.tags.is_empty() {
            call.allow(
                &[
                    Ask::existing("s3:GetObjectTagging", &source.bucket, &source.key, None),
                    Ask::object("s3:PutObjectTagging", &bucket, key.as_str()).with_tags(&from.tags),
                ],
                None,
            )?;
        }
        if from.size > LARGEST_PUT {
            return Err(s3_error!(
                InvalidRequest,
                "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120"
            ));
        }
        // The version that was looked at is the one that is copied, even if the key changes meanwhile.
        let source = CopySource {
            version: Some(from.version.clone()),
            ..source
        };
        let attributes = Attributes {
            headers,
            tags,
            owner,
            now: call.now,
            condition: WriteCondition::None,
        };
        let source_bucket = allowed.store.bucket(&source.bucket).map_err(fault::of)?;
        let opening = call.data_key(&source_bucket, &source.key, from.encryption.as_ref())?;
        let sealing = call.sealing(allowed.bucket()?, &key, &wish?)?;
        let object = if needs_hashing(&from, wanted) || opening.is_some() || sealing.is_some() {
            let how = Rewriting {
                attributes,
                wanted,
                keep: (keep_headers, keep_tags),
                opening,
                sealing,
            };
            rehash(&allowed.store, &source, &bucket, &key, how)?
        } else {
            let keep = (keep_headers, keep_tags);
            allowed
                .store
                .copy(&source, &bucket, &key, attributes, keep)
                .map_err(fault::of)?
        };
        let mut result = dto::CopyObjectResult {
            e_tag: Some(etag(&object.etag)),
            last_modified: Some(timestamp(object.modified)),
            checksum_type: kind_of(&object.checksums),
            ..Default::default()
        };
        fill_checksums!(result, &object.checksums);
        let mut output = dto::CopyObjectOutput {
            copy_object_result: Some(result),
            copy_source_version_id: (from.version != "null").then_some(from.version),
            version_id: shown_version(&object, versioned),
            ..Default::default()
        };
        output.ssekms_encryption_context = show_encryption!(output, object.encryption.as_ref());
        Ok(S3Response::new(output))
    })
    .await
}

pub(super) fn source_owner(allowed: &Allowed, bucket: &BucketName, expected: Option<&str>) -> S3Result<()> {
    let Some(expected) = expected else { return Ok(()) };
    let owner = allowed.store.bucket(bucket).map_err(fault::of)?.owner;
    if expected == owner.as_str() {
        Ok(())
    } else {
        Err(s3_error!(AccessDenied, "Access Denied"))
    }
}

/// A copy of a multipart object, or one that asks for another checksum, is read once, and so is what is or becomes
/// encrypted; all others share the bytes.
fn needs_hashing(from: &Object, wanted: Option<ChecksumAlgorithm>) -> bool {
    !from.parts.is_empty() || wanted.is_some_and(|wanted| !from.checksums.iter().any(|sum| sum.algorithm == wanted))
}

/// How a copy is written anew.
struct Rewriting {
    attributes: Attributes,
    wanted: Option<ChecksumAlgorithm>,
    /// Whether headers and tags are the source's.
    keep: (bool, bool),
    /// What opens the source, and what the copy is encrypted with.
    opening: Option<DataKey>,
    sealing: Option<Sealing>,
}

fn rehash(
    store: &ObjectStore,
    source: &CopySource,
    bucket: &BucketName,
    key: &ObjectKey,
    how: Rewriting,
) -> S3Result<Object> {
    let reading = store
        .open_object(&source.bucket, &source.key, source.version.as_deref())
        .map_err(fault::of)?;
    let from = reading.object.clone();
    let mut attributes = how.attributes;
    let kept = from.checksums.first().map(|sum| sum.algorithm);
    let algorithms = [how.wanted.or(kept).unwrap_or(ChecksumAlgorithm::Crc64Nvme)];
    let mut bytes = reading.stretch(how.opening.as_ref(), 0, from.size).map_err(fault::of)?;
    let data = store
        .receive_all(&mut bytes, &algorithms, attributes.now, how.sealing.as_ref())
        .map_err(fault::of)?;
    let (keep_headers, keep_tags) = how.keep;
    if keep_headers {
        attributes.headers = from.headers;
    }
    if keep_tags {
        attributes.tags = from.tags;
    }
    let put = Put {
        bucket: bucket.clone(),
        key: key.clone(),
        data,
        etag: None,
        checksums: None,
        parts: Vec::new(),
        attributes,
    };
    store.put(put).map_err(fault::of)
}
