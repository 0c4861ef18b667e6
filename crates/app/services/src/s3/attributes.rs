//! What is known about an object besides its bytes: attributes, tags, ACL.

use super::body::blocking;
use super::convert::{
    etag, fill_checksums, kind_of, names, new_acl, owner, shown_version, signed, tag_set, tags_of, timestamp,
};
use super::encryption::checksum_asks;
use super::gate::{Ask, Call};
use super::objects::read_action;
use isolarium_model::s3::{ChecksumAlgorithm, Object, Versioning};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result};

pub(super) async fn attributes(
    request: S3Request<dto::GetObjectAttributesInput>,
) -> S3Result<S3Response<dto::GetObjectAttributesOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    blocking(move || {
        let version = input.version_id.as_ref();
        let asks = [
            Ask::existing(
                read_action(version, "s3:GetObject", "s3:GetObjectVersion"),
                &bucket,
                &key,
                version,
            ),
            Ask::existing(
                read_action(version, "s3:GetObjectAttributes", "s3:GetObjectVersionAttributes"),
                &bucket,
                &key,
                version,
            ),
        ];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let versioned = allowed.bucket()?.versioning != Versioning::Never;
        let object = allowed
            .store
            .head(&bucket, &key, input.version_id.as_deref())
            .map_err(|error| call.missing(error, &bucket))?;
        let asked = |name: &str| {
            input
                .object_attributes
                .iter()
                .flat_map(|one| one.as_str().split(','))
                .any(|one| one.trim() == name)
        };
        if asked("Checksum") && checksum_asks(&object) {
            call.data_key(allowed.bucket()?, &key, object.encryption.as_ref())?;
        }
        let mut output = dto::GetObjectAttributesOutput {
            last_modified: Some(timestamp(object.modified)),
            version_id: shown_version(&object, versioned),
            ..Default::default()
        };
        if asked("ETag") {
            output.e_tag = Some(etag(&object.etag));
        }
        if asked("ObjectSize") {
            output.object_size = Some(signed(object.size));
        }
        if asked("StorageClass") {
            output.storage_class = Some(dto::StorageClass::from_static(dto::StorageClass::STANDARD));
        }
        if asked("Checksum") && !object.checksums.is_empty() {
            let mut sums = dto::Checksum {
                checksum_type: kind_of(&object.checksums),
                ..Default::default()
            };
            fill_checksums!(sums, &object.checksums);
            output.checksum = Some(sums);
        }
        if asked("ObjectParts") && !object.parts.is_empty() {
            output.object_parts = Some(object_parts(&object, input.part_number_marker, input.max_parts));
        }
        Ok(S3Response::new(output))
    })
    .await
}

fn object_parts(object: &Object, after: Option<i32>, most: Option<i32>) -> dto::GetObjectAttributesParts {
    let after = after.unwrap_or(0);
    let most = usize::try_from(most.unwrap_or(1000)).unwrap_or(0).min(1000);
    let rest = || object.parts.iter().filter(|part| i32::from(part.number) > after);
    let shown: Vec<dto::ObjectPart> = rest()
        .take(most)
        .map(|part| {
            let mut shown = dto::ObjectPart {
                part_number: Some(i32::from(part.number)),
                size: Some(signed(part.size)),
                ..Default::default()
            };
            fill_checksums!(shown, part.checksum.iter());
            shown
        })
        .collect();
    dto::GetObjectAttributesParts {
        is_truncated: Some(rest().count() > shown.len()),
        max_parts: i32::try_from(most).ok(),
        next_part_number_marker: shown.last().and_then(|part| part.part_number),
        part_number_marker: Some(after),
        total_parts_count: i32::try_from(object.parts.len()).ok(),
        // Parts are listed only where they have checksums, as S3 does.
        parts: object.parts.iter().any(|part| part.checksum.is_some()).then_some(shown),
    }
}

pub(super) async fn get_tagging(
    request: S3Request<dto::GetObjectTaggingInput>,
) -> S3Result<S3Response<dto::GetObjectTaggingOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    blocking(move || {
        let action = read_action(
            input.version_id.as_ref(),
            "s3:GetObjectTagging",
            "s3:GetObjectVersionTagging",
        );
        let asks = [Ask::existing(action, &bucket, &key, input.version_id.as_ref())];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let versioned = allowed.bucket()?.versioning != Versioning::Never;
        let object = allowed
            .store
            .head(&bucket, &key, input.version_id.as_deref())
            .map_err(|error| call.missing(error, &bucket))?;
        Ok(S3Response::new(dto::GetObjectTaggingOutput {
            tag_set: tag_set(&object.tags),
            version_id: shown_version(&object, versioned),
        }))
    })
    .await
}

pub(super) async fn put_tagging(
    request: S3Request<dto::PutObjectTaggingInput>,
) -> S3Result<S3Response<dto::PutObjectTaggingOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    let tags = tags_of(&input.tagging.tag_set, 10)?;
    blocking(move || {
        let action = read_action(
            input.version_id.as_ref(),
            "s3:PutObjectTagging",
            "s3:PutObjectVersionTagging",
        );
        let asks = [Ask::existing(action, &bucket, &key, input.version_id.as_ref()).with_tags(&tags)];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let version = allowed
            .store
            .set_tags(&bucket, &key, input.version_id.as_deref(), &tags)
            .map_err(|error| call.missing(error, &bucket))?;
        let version_id = Some(version).filter(|version| version != "null");
        Ok(S3Response::new(dto::PutObjectTaggingOutput { version_id }))
    })
    .await
}

pub(super) async fn delete_tagging(
    request: S3Request<dto::DeleteObjectTaggingInput>,
) -> S3Result<S3Response<dto::DeleteObjectTaggingOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    blocking(move || {
        let action = read_action(
            input.version_id.as_ref(),
            "s3:DeleteObjectTagging",
            "s3:DeleteObjectVersionTagging",
        );
        let asks = [Ask::existing(action, &bucket, &key, input.version_id.as_ref())];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let version = allowed
            .store
            .set_tags(&bucket, &key, input.version_id.as_deref(), &Vec::new())
            .map_err(|error| call.missing(error, &bucket))?;
        let version_id = Some(version).filter(|version| version != "null");
        Ok(S3Response::new(dto::DeleteObjectTaggingOutput { version_id }))
    })
    .await
}

pub(super) async fn get_acl(
    request: S3Request<dto::GetObjectAclInput>,
) -> S3Result<S3Response<dto::GetObjectAclOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    blocking(move || {
        let action = read_action(input.version_id.as_ref(), "s3:GetObjectAcl", "s3:GetObjectVersionAcl");
        let asks = [Ask::existing(action, &bucket, &key, input.version_id.as_ref())];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let object = allowed
            .store
            .head(&bucket, &key, input.version_id.as_deref())
            .map_err(|error| call.missing(error, &bucket))?;
        Ok(S3Response::new(dto::GetObjectAclOutput {
            owner: Some(owner(&object.owner)),
            grants: Some(super::buckets::full_control(&object.owner)),
            ..Default::default()
        }))
    })
    .await
}

/// Buckets enforce their owner, so that an ACL can only say what is so already.
pub(super) async fn put_acl(
    request: S3Request<dto::PutObjectAclInput>,
) -> S3Result<S3Response<dto::PutObjectAclOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    blocking(move || {
        let action = read_action(input.version_id.as_ref(), "s3:PutObjectAcl", "s3:PutObjectVersionAcl");
        let storage = request
            .headers
            .get("x-amz-storage-class")
            .and_then(|value| value.to_str().ok());
        let ask = Ask::existing(action, &bucket, &key, input.version_id.as_ref())
            .with_access(&request.headers)
            .with("s3:x-amz-storage-class", storage);
        let allowed = call.allow(&[ask], input.expected_bucket_owner.as_deref())?;
        allowed
            .store
            .head(&bucket, &key, input.version_id.as_deref())
            .map_err(|error| call.missing(error, &bucket))?;
        new_acl!(input)?;
        Ok(S3Response::new(dto::PutObjectAclOutput::default()))
    })
    .await
}
