//! Multipart uploads.

use super::body::{blocking, receive};
use super::buckets::{of_bucket, on_bucket};
use super::convert::{
    algorithm, algorithm_name, encoded, etag, fill_checksums, given_checksums, header_tags, kept, kind_name, kind_of,
    names, object_headers, owner, shown_version, signed, timestamp, write_condition,
};
use super::copies::{check_part_source, copy_ask, source_ask, source_of, source_owner};
use super::encryption::{Wish, show_encryption};
use super::fault;
use super::gate::{Allowed, Ask, Call, Write};
use super::lists::{limit, prefixes, url_encoding};
use super::objects::{LARGEST_PUT, Wanted};
use isolarium_model::s3::{BucketName, ChecksumAlgorithm, ChecksumKind, ObjectHeaders, ObjectKey, Upload, Versioning};
use isolarium_store::ObjectError;
use isolarium_store::objects::{Completion, PartRef};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result, s3_error};

/// Least bytes of every part but the last.
const LEAST_PART: u64 = 5 << 20;

fn part_number(number: i32) -> S3Result<u16> {
    u16::try_from(number)
        .ok()
        .filter(|number| (1..=10_000).contains(number))
        .ok_or_else(|| {
            s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive"
            )
        })
}

/// The upload, which must be of this key.
fn upload_of(allowed: &Allowed, bucket: &BucketName, key: &ObjectKey, id: &str) -> S3Result<Upload> {
    let upload = allowed.store.upload(bucket, id).map_err(fault::of)?;
    if upload.key == *key {
        Ok(upload)
    } else {
        Err(fault::of(ObjectError::NoSuchUpload))
    }
}

fn checksum_plan(
    name: Option<&dto::ChecksumAlgorithm>,
    kind: Option<&dto::ChecksumType>,
) -> S3Result<Option<(ChecksumAlgorithm, ChecksumKind)>> {
    let Some(name) = name else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(s3_error!(
                InvalidRequest,
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            )),
        };
    };
    let algorithm = algorithm(name.as_str())?;
    let kind = match kind.map(dto::ChecksumType::as_str) {
        Some("FULL_OBJECT") => ChecksumKind::FullObject,
        Some("COMPOSITE") => ChecksumKind::Composite,
        None if algorithm == ChecksumAlgorithm::Crc64Nvme => ChecksumKind::FullObject,
        None => ChecksumKind::Composite,
        Some(_) => {
            return Err(s3_error!(
                InvalidRequest,
                "Value for x-amz-checksum-type header is invalid."
            ));
        }
    };
    let fits = match algorithm {
        ChecksumAlgorithm::Crc64Nvme => kind == ChecksumKind::FullObject,
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => kind == ChecksumKind::Composite,
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => true,
    };
    if fits {
        Ok(Some((algorithm, kind)))
    } else {
        Err(s3_error!(
            InvalidRequest,
            "The checksum type cannot be used with the {} checksum algorithm.",
            name.as_str()
        ))
    }
}

pub(super) async fn create(
    request: S3Request<dto::CreateMultipartUploadInput>,
) -> S3Result<S3Response<dto::CreateMultipartUploadOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    let kept = kept!(input);
    let tags = header_tags(input.tagging.as_deref())?;
    let checksum = checksum_plan(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
    let headers: ObjectHeaders = object_headers!(input);
    let wish = Wish::of(&request.headers);
    blocking(move || {
        let mut asks = vec![Ask::write(&bucket, &key, &request.headers, Write::Upload).with_tags(&tags)];
        if !tags.is_empty() {
            asks.push(Ask::object("s3:PutObjectTagging", &bucket, key.as_str()).with_tags(&tags));
        }
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let account = allowed.bucket()?.owner.clone();
        kept?;
        let sealing = call.sealing(allowed.bucket()?, &key, &wish?)?;
        let encryption = sealing.map(|sealing| sealing.encryption);
        let shown = encryption.clone();
        let initiator = call
            .caller
            .principal
            .arn()
            .map(|arn| arn.to_string())
            .unwrap_or_default();
        let id = allowed
            .store
            .begin_upload(
                &bucket, &key, headers, &tags, &account, &initiator, checksum, encryption, call.now,
            )
            .map_err(fault::of)?;
        let mut output = dto::CreateMultipartUploadOutput {
            bucket: Some(bucket.into()),
            key: Some(key.into()),
            upload_id: Some(id),
            checksum_algorithm: checksum.map(|(algorithm, _)| algorithm_name(algorithm)),
            checksum_type: checksum.map(|(_, kind)| kind_name(kind)),
            ..Default::default()
        };
        output.ssekms_encryption_context = show_encryption!(output, shown.as_ref());
        Ok(S3Response::new(output))
    })
    .await
}

pub(super) async fn part(mut request: S3Request<dto::UploadPartInput>) -> S3Result<S3Response<dto::UploadPartOutput>> {
    let call = Call::of(&request)?;
    let body = request.input.body.take();
    let input = &request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    let encrypted = input.sse_customer_algorithm.is_some();
    let number = part_number(input.part_number)?;
    let (expected, id) = (input.expected_bucket_owner.clone(), input.upload_id.clone());
    let (given, named) = (given_checksums!(input), input.checksum_algorithm.clone());
    let md5 = input.content_md5.clone();
    let asks = [Ask::write(&bucket, &key, &request.headers, Write::Upload)];
    let asked = (bucket.clone(), key.clone(), id.clone());
    let (call, allowed, upload, sealing) = blocking(move || {
        let (bucket, key, id) = asked;
        let allowed = call.allow(&asks, expected.as_deref())?;
        allowed.bucket()?;
        if encrypted {
            return Err(super::convert::not_implemented());
        }
        let upload = upload_of(&allowed, &bucket, &key, &id)?;
        let sealing = call.upload_sealing(allowed.bucket()?, &upload)?;
        Ok((call, allowed, upload, sealing))
    })
    .await?;
    let planned = upload.checksum.map(|(algorithm, _)| algorithm);
    let wanted = Wanted::new(&request, given, named.as_ref(), md5, planned)?;
    let mut algorithms = wanted.algorithms();
    algorithms.extend(planned);
    let staged = receive(&allowed.store, body, algorithms, LARGEST_PUT, call.now, sealing).await?;
    wanted.check(&staged)?;
    let part = blocking(move || {
        allowed
            .store
            .put_part(&bucket, &id, number, staged, call.now)
            .map_err(fault::of)
    })
    .await?;
    let mut output = dto::UploadPartOutput {
        e_tag: Some(etag(&part.etag)),
        ..Default::default()
    };
    fill_checksums!(output, &part.checksums);
    show_encryption!(output, upload.encryption.as_ref());
    Ok(S3Response::new(output))
}

fn source_range(text: &str, size: u64) -> S3Result<(u64, u64)> {
    let invalid = || {
        s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
             zero-based offsets of the first and last bytes to copy"
        )
    };
    match dto::Range::parse(text).map_err(|_| invalid())? {
        dto::Range::Int {
            first,
            last: Some(last),
        } if last < size => Ok((first, last + 1 - first)),
        dto::Range::Int { last: Some(_), .. } => Err(s3_error!(
            InvalidArgument,
            "Range specified is not valid for source object of size: {}",
            size
        )),
        _ => Err(invalid()),
    }
}

pub(super) async fn part_copy(
    request: S3Request<dto::UploadPartCopyInput>,
) -> S3Result<S3Response<dto::UploadPartCopyOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    let encrypted = input.sse_customer_algorithm.is_some() || input.copy_source_sse_customer_algorithm.is_some();
    let number = part_number(input.part_number)?;
    let source = source_of(&input.copy_source)?;
    blocking(move || {
        let writing = copy_ask(&bucket, &key, &request.headers, &source, Write::Upload);
        let asks = [writing, source_ask(&source)];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        allowed.bucket()?;
        if encrypted {
            return Err(super::convert::not_implemented());
        }
        source_owner(&allowed, &source.bucket, input.expected_source_bucket_owner.as_deref())?;
        let upload = upload_of(&allowed, &bucket, &key, &input.upload_id)?;
        let sealing = call.upload_sealing(allowed.bucket()?, &upload)?;
        let reading = allowed
            .store
            .open_object(&source.bucket, &source.key, source.version.as_deref())
            .map_err(|error| call.missing(error, &source.bucket))?;
        check_part_source(&input, &reading.object)?;
        let (from, length) = match &input.copy_source_range {
            None => (0, reading.object.size),
            Some(range) => source_range(range, reading.object.size)?,
        };
        if length > LARGEST_PUT {
            return Err(s3_error!(
                EntityTooLarge,
                "Your proposed upload exceeds the maximum allowed size"
            ));
        }
        let source_bucket = allowed.store.bucket(&source.bucket).map_err(fault::of)?;
        let opening = call.data_key(&source_bucket, &source.key, reading.object.encryption.as_ref())?;
        let algorithms: Vec<_> = upload.checksum.map(|(algorithm, _)| algorithm).into_iter().collect();
        let version = reading.object.version.clone();
        let mut bytes = reading.stretch(opening.as_ref(), from, length).map_err(fault::of)?;
        let staged = allowed
            .store
            .receive_all(&mut bytes, &algorithms, call.now, sealing.as_ref())
            .map_err(fault::of)?;
        let part = allowed
            .store
            .put_part(&bucket, &input.upload_id, number, staged, call.now)
            .map_err(fault::of)?;
        let mut result = dto::CopyPartResult {
            e_tag: Some(etag(&part.etag)),
            last_modified: Some(timestamp(part.modified)),
            ..Default::default()
        };
        fill_checksums!(result, &part.checksums);
        let mut output = dto::UploadPartCopyOutput {
            copy_part_result: Some(result),
            copy_source_version_id: Some(version).filter(|version| version != "null"),
            ..Default::default()
        };
        show_encryption!(output, upload.encryption.as_ref());
        Ok(S3Response::new(output))
    })
    .await
}

pub(super) async fn complete(
    request: S3Request<dto::CompleteMultipartUploadInput>,
) -> S3Result<S3Response<dto::CompleteMultipartUploadOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    let named = input
        .multipart_upload
        .as_ref()
        .and_then(|upload| upload.parts.clone())
        .unwrap_or_default();
    if named.is_empty() {
        return Err(s3_error!(
            MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema"
        ));
    }
    let mut parts = Vec::new();
    for part in named {
        parts.push(PartRef {
            number: part_number(part.part_number.unwrap_or_default())?,
            etag: part
                .e_tag
                .as_ref()
                .map(|etag| etag.value().to_owned())
                .unwrap_or_default(),
            checksum: given_checksums!(part).into_iter().next(),
        });
    }
    let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let checksum = given_checksums!(input).into_iter().next();
    blocking(move || {
        let asks = [Ask::write(&bucket, &key, &request.headers, Write::Object)];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let versioned = allowed.bucket()?.versioning != Versioning::Never;
        let upload = upload_of(&allowed, &bucket, &key, &input.upload_id)?;
        if let (Some(kind), Some((_, planned))) = (&input.checksum_type, upload.checksum)
            && *kind != kind_name(planned)
        {
            return Err(s3_error!(
                InvalidRequest,
                "The checksum type of the completion is not the one the upload was created with."
            ));
        }
        // S3 asks for the key here too, though the parts are joined without being opened.
        call.data_key(allowed.bucket()?, &key, upload.encryption.as_ref())?;
        let how = Completion {
            parts,
            condition,
            // A composite checksum may come with or without its part count.
            checksum: checksum.map(|(algorithm, value)| (algorithm, with_count(value, upload.checksum, &input))),
            size: input.mpu_object_size.and_then(|size| u64::try_from(size).ok()),
            least: LEAST_PART,
            now: call.now,
        };
        let object = allowed
            .store
            .complete(&bucket, &input.upload_id, how)
            .map_err(fault::of)?;
        let mut output = dto::CompleteMultipartUploadOutput {
            location: Some(format!("/{bucket}/{key}")),
            bucket: Some(bucket.into()),
            e_tag: Some(etag(&object.etag)),
            checksum_type: kind_of(&object.checksums),
            version_id: shown_version(&object, versioned),
            ..Default::default()
        };
        fill_checksums!(output, &object.checksums);
        show_encryption!(output, object.encryption.as_ref());
        output.key = Some(key.into());
        Ok(S3Response::new(output))
    })
    .await
}

fn with_count(
    value: String,
    planned: Option<(ChecksumAlgorithm, ChecksumKind)>,
    input: &dto::CompleteMultipartUploadInput,
) -> String {
    let parts = input
        .multipart_upload
        .as_ref()
        .and_then(|upload| upload.parts.as_ref())
        .map_or(0, Vec::len);
    match planned {
        Some((_, ChecksumKind::Composite)) if !value.contains('-') => format!("{value}-{parts}"),
        _ => value,
    }
}

pub(super) async fn abort(
    request: S3Request<dto::AbortMultipartUploadInput>,
) -> S3Result<S3Response<dto::AbortMultipartUploadOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    blocking(move || {
        let asks = [Ask::object("s3:AbortMultipartUpload", &bucket, key.as_str())];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        allowed.bucket()?;
        upload_of(&allowed, &bucket, &key, &input.upload_id)?;
        allowed.store.abort(&bucket, &input.upload_id).map_err(fault::of)?;
        Ok(S3Response::new(dto::AbortMultipartUploadOutput::default()))
    })
    .await
}

pub(super) async fn parts(request: S3Request<dto::ListPartsInput>) -> S3Result<S3Response<dto::ListPartsOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    let (most, limit) = limit(input.max_parts)?;
    let after = u16::try_from(input.part_number_marker.unwrap_or(0)).unwrap_or(u16::MAX);
    blocking(move || {
        let asks = [Ask::object("s3:ListMultipartUploadParts", &bucket, key.as_str())];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        allowed.bucket()?;
        upload_of(&allowed, &bucket, &key, &input.upload_id)?;
        let found = allowed
            .store
            .list_parts(&bucket, &input.upload_id, after, limit)
            .map_err(fault::of)?;
        let shown: Vec<dto::Part> = found
            .parts
            .iter()
            .map(|part| {
                let mut shown = dto::Part {
                    part_number: Some(i32::from(part.number)),
                    size: Some(signed(part.size)),
                    e_tag: Some(etag(&part.etag)),
                    last_modified: Some(timestamp(part.modified)),
                    ..Default::default()
                };
                fill_checksums!(shown, &part.checksums);
                shown
            })
            .collect();
        let checksum = found.upload.checksum;
        Ok(S3Response::new(dto::ListPartsOutput {
            bucket: Some(bucket.into()),
            key: Some(key.into()),
            upload_id: Some(input.upload_id),
            is_truncated: Some(found.more),
            max_parts: Some(most),
            part_number_marker: Some(i32::from(after)),
            next_part_number_marker: Some(shown.last().and_then(|part| part.part_number).unwrap_or(0)),
            parts: (!shown.is_empty()).then_some(shown),
            initiator: Some(dto::Initiator {
                id: Some(found.upload.initiator),
                display_name: None,
            }),
            owner: Some(owner(&found.upload.owner)),
            storage_class: Some(dto::StorageClass::from_static(dto::StorageClass::STANDARD)),
            checksum_algorithm: checksum.map(|(algorithm, _)| algorithm_name(algorithm)),
            checksum_type: checksum.map(|(_, kind)| kind_name(kind)),
            ..Default::default()
        }))
    })
    .await
}

pub(super) async fn list(
    request: S3Request<dto::ListMultipartUploadsInput>,
) -> S3Result<S3Response<dto::ListMultipartUploadsOutput>> {
    on_bucket(
        request,
        "s3:ListBucketMultipartUploads",
        of_bucket!(),
        |allowed, bucket, input| {
            let (most, limit) = limit(input.max_uploads)?;
            let url = url_encoding(input.encoding_type.as_ref())?;
            let prefix = input.prefix.clone().unwrap_or_default();
            let delimiter = input.delimiter.clone().filter(|delimiter| !delimiter.is_empty());
            let key = input.key_marker.clone().filter(|marker| !marker.is_empty());
            let id = input.upload_id_marker.clone().filter(|marker| !marker.is_empty());
            let after = key.as_deref().map(|key| (key, id.as_deref()));
            let found = allowed
                .store
                .list_uploads_by(bucket, &prefix, delimiter.as_deref(), after, limit)
                .map_err(fault::of)?;
            let uploads: Vec<dto::MultipartUpload> = found
                .uploads
                .into_iter()
                .map(|upload| dto::MultipartUpload {
                    checksum_algorithm: upload.checksum.map(|(algorithm, _)| algorithm_name(algorithm)),
                    checksum_type: upload.checksum.map(|(_, kind)| kind_name(kind)),
                    initiated: Some(timestamp(upload.initiated)),
                    initiator: Some(dto::Initiator {
                        id: Some(upload.initiator),
                        display_name: None,
                    }),
                    key: Some(encoded(upload.key.into(), url)),
                    owner: Some(owner(&upload.owner)),
                    storage_class: Some(dto::StorageClass::from_static(dto::StorageClass::STANDARD)),
                    upload_id: Some(upload.id),
                })
                .collect();
            let (next_key, next_id) = found.next.map_or((None, None), |(key, id)| (Some(key), id));
            Ok(dto::ListMultipartUploadsOutput {
                bucket: Some(bucket.to_string()),
                common_prefixes: prefixes(found.prefixes, url),
                delimiter: delimiter.map(|delimiter| encoded(delimiter, url)),
                encoding_type: input.encoding_type,
                is_truncated: Some(next_key.is_some()),
                key_marker: Some(encoded(input.key_marker.unwrap_or_default(), url)),
                max_uploads: Some(most),
                next_key_marker: next_key.map(|key| encoded(key, url)),
                next_upload_id_marker: next_id,
                prefix: Some(encoded(prefix, url)),
                upload_id_marker: Some(input.upload_id_marker.unwrap_or_default()),
                uploads: (!uploads.is_empty()).then_some(uploads),
                ..Default::default()
            })
        },
    )
    .await
}
