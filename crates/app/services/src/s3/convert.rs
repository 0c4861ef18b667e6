//! Between the protocol layer's shapes and our records.

use super::fault::custom;
use super::gate::Call;
use http::StatusCode;
use isolarium_model::s3::{BucketName, Checksum, ChecksumAlgorithm, ChecksumKind, Object, ObjectKey, Tags};
use isolarium_model::{AccountId, Timestamp};
use isolarium_store::objects::WriteCondition;
use s3s::dto;
use s3s::{S3Result, s3_error};
use std::time::{Duration, SystemTime};

/// Names of the checksum headers and trailers.
pub(super) const CHECKSUMS: [(ChecksumAlgorithm, &str, &str); 5] = [
    (ChecksumAlgorithm::Crc32, "CRC32", "x-amz-checksum-crc32"),
    (ChecksumAlgorithm::Crc32c, "CRC32C", "x-amz-checksum-crc32c"),
    (ChecksumAlgorithm::Crc64Nvme, "CRC64NVME", "x-amz-checksum-crc64nvme"),
    (ChecksumAlgorithm::Sha1, "SHA1", "x-amz-checksum-sha1"),
    (ChecksumAlgorithm::Sha256, "SHA256", "x-amz-checksum-sha256"),
];

/// Fills the five checksum members, and the type, of an output shape.
macro_rules! fill_checksums {
    ($out:expr, $sums:expr) => {{
        for sum in $sums {
            let value = Some(sum.value.clone());
            match sum.algorithm {
                ChecksumAlgorithm::Crc32 => $out.checksum_crc32 = value,
                ChecksumAlgorithm::Crc32c => $out.checksum_crc32c = value,
                ChecksumAlgorithm::Crc64Nvme => $out.checksum_crc64nvme = value,
                ChecksumAlgorithm::Sha1 => $out.checksum_sha1 = value,
                ChecksumAlgorithm::Sha256 => $out.checksum_sha256 = value,
            }
        }
    }};
}

/// The checksums that an input shape carries.
macro_rules! given_checksums {
    ($input:expr) => {
        [
            (ChecksumAlgorithm::Crc32, $input.checksum_crc32.clone()),
            (ChecksumAlgorithm::Crc32c, $input.checksum_crc32c.clone()),
            (ChecksumAlgorithm::Crc64Nvme, $input.checksum_crc64nvme.clone()),
            (ChecksumAlgorithm::Sha1, $input.checksum_sha1.clone()),
            (ChecksumAlgorithm::Sha256, $input.checksum_sha256.clone()),
        ]
        .into_iter()
        .filter_map(|(algorithm, value)| Some((algorithm, value?)))
        .collect::<Vec<_>>()
    };
}
pub(super) use {fill_checksums, given_checksums};

pub(super) fn bucket_name(text: &str) -> S3Result<BucketName> {
    text.parse()
        .map_err(|_| s3_error!(InvalidBucketName, "The specified bucket is not valid."))
}

pub(super) fn object_key(text: &str) -> S3Result<ObjectKey> {
    text.parse()
        .map_err(|_| s3_error!(KeyTooLongError, "Your key is too long"))
}

/// Notes what a request is about for the access log and parses the names.
pub(super) fn names(call: &Call, bucket: &str, key: &str) -> S3Result<(BucketName, ObjectKey)> {
    call.trace.note(|noted| {
        noted.bucket = Some(bucket.into());
        noted.key = Some(key.into());
    });
    Ok((bucket_name(bucket)?, object_key(key)?))
}

pub(super) fn timestamp(time: Timestamp) -> dto::Timestamp {
    let wait = Duration::from_millis(time.0.unsigned_abs());
    let at = if time.0 < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(wait)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(wait)
    };
    dto::Timestamp::from(at.unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Whole seconds since the epoch: conditional headers know no fractions.
pub(super) fn seconds(time: &dto::Timestamp) -> i64 {
    let mut text = Vec::new();
    if time.format(dto::TimestampFormat::EpochSeconds, &mut text).is_err() {
        return 0;
    }
    let text = String::from_utf8_lossy(&text);
    text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0)
}

pub(super) fn http_date(time: &dto::Timestamp) -> Option<String> {
    let mut text = Vec::new();
    time.format(dto::TimestampFormat::HttpDate, &mut text).ok()?;
    String::from_utf8(text).ok()
}

pub(super) fn etag(text: &str) -> dto::ETag {
    dto::ETag::Strong(text.into())
}

/// A condition on an ETag as text: `*` or the value.
pub(super) fn etag_text(condition: &dto::ETagCondition) -> String {
    condition
        .as_etag()
        .map_or_else(|| "*".into(), |etag| etag.value().into())
}

pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(super) fn owner(account: &AccountId) -> dto::Owner {
    dto::Owner {
        id: Some(account.to_string()),
        display_name: None,
    }
}

/// The version id to show; buckets without versioning show none.
pub(super) fn shown_version(object: &Object, versioned: bool) -> Option<String> {
    (versioned || object.version != "null").then(|| object.version.clone())
}

pub(super) fn write_condition(
    if_match: Option<&dto::ETagCondition>,
    if_none_match: Option<&dto::ETagCondition>,
) -> S3Result<WriteCondition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(WriteCondition::None),
        (Some(condition), None) => Ok(WriteCondition::Matches(etag_text(condition))),
        (None, Some(condition)) if condition.is_any() => Ok(WriteCondition::Absent),
        _ => Err(s3_error!(
            NotImplemented,
            "A header you provided implies functionality that is not implemented"
        )),
    }
}

pub(super) fn algorithm(name: &str) -> S3Result<ChecksumAlgorithm> {
    CHECKSUMS
        .iter()
        .find(|(_, text, _)| text.eq_ignore_ascii_case(name))
        .map(|(algorithm, _, _)| *algorithm)
        .ok_or_else(|| {
            s3_error!(
                InvalidRequest,
                "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, \
                 CRC32C, CRC64NVME, SHA1, SHA256]"
            )
        })
}

pub(super) fn algorithm_name(algorithm: ChecksumAlgorithm) -> dto::ChecksumAlgorithm {
    let name = CHECKSUMS
        .iter()
        .find(|(known, _, _)| *known == algorithm)
        .map_or("", |(_, name, _)| name);
    dto::ChecksumAlgorithm::from(name.to_owned())
}

pub(super) fn kind_name(kind: ChecksumKind) -> dto::ChecksumType {
    dto::ChecksumType::from_static(match kind {
        ChecksumKind::FullObject => dto::ChecksumType::FULL_OBJECT,
        ChecksumKind::Composite => dto::ChecksumType::COMPOSITE,
    })
}

pub(super) fn kind_of(sums: &[Checksum]) -> Option<dto::ChecksumType> {
    sums.first().map(|sum| kind_name(sum.kind))
}

/// Only STANDARD is kept; asking for another class is refused rather than forgotten.
pub(super) fn storage_class(class: Option<&dto::StorageClass>) -> S3Result<()> {
    match class {
        Some(class) if class.as_str() != dto::StorageClass::STANDARD => Err(s3_error!(
            InvalidStorageClass,
            "The storage class you specified is not valid"
        )),
        _ => Ok(()),
    }
}

/// ACLs are switched off (bucket owner enforced): only what changes nothing is accepted.
pub(super) fn canned_acl(acl: Option<&str>, grants: bool) -> S3Result<()> {
    let harmless = acl.is_none_or(|acl| matches!(acl, "private" | "bucket-owner-full-control"));
    if harmless && !grants {
        return Ok(());
    }
    Err(custom(
        "AccessControlListNotSupported",
        StatusCode::BAD_REQUEST,
        "The bucket does not allow ACLs",
    ))
}

/// The access that a request's headers ask for, where it can give grants for everything.
macro_rules! canned {
    ($input:expr) => {{
        let grants = $input.grant_full_control.is_some()
            || $input.grant_read.is_some()
            || $input.grant_read_acp.is_some()
            || $input.grant_write.is_some()
            || $input.grant_write_acp.is_some();
        super::convert::canned_acl($input.acl.as_ref().map(|acl| acl.as_str()), grants)
    }};
}
pub(super) use canned;

/// The same of a request that changes access and nothing else: it has to name a canned ACL.
macro_rules! new_acl {
    ($input:expr) => {{
        let named = $input.acl.is_some() && $input.access_control_policy.is_none();
        super::convert::canned!($input).and_then(|()| super::convert::canned_acl((!named).then_some("none"), false))
    }};
}
pub(super) use new_acl;

pub(super) fn not_implemented() -> s3s::S3Error {
    s3_error!(
        NotImplemented,
        "A header you provided implies functionality that is not implemented"
    )
}

/// Tags of the `x-amz-tagging` header: a query string.
pub(super) fn header_tags(text: Option<&str>) -> S3Result<Tags> {
    let invalid = || {
        s3_error!(
            InvalidArgument,
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates."
        )
    };
    let mut tags = Tags::new();
    for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| super::query::decode(text, true).ok_or_else(invalid);
        tags.push((decode(key)?, decode(value)?));
    }
    check_tags(&tags, 10)?;
    Ok(tags)
}

pub(super) fn tags_of(set: &[dto::Tag], most: usize) -> S3Result<Tags> {
    let tags: Tags = set
        .iter()
        .map(|tag| {
            (
                tag.key.clone().unwrap_or_default(),
                tag.value.clone().unwrap_or_default(),
            )
        })
        .collect();
    check_tags(&tags, most)?;
    Ok(tags)
}

pub(super) fn tag_set(tags: &Tags) -> Vec<dto::Tag> {
    tags.iter()
        .map(|(key, value)| dto::Tag {
            key: Some(key.clone()),
            value: Some(value.clone()),
        })
        .collect()
}

fn check_tags(tags: &Tags, most: usize) -> S3Result<()> {
    if tags.len() > most {
        return Err(s3_error!(InvalidTag, "Tags cannot be more than {}", most));
    }
    for (at, (key, value)) in tags.iter().enumerate() {
        if key.is_empty() || key.chars().count() > 128 {
            return Err(s3_error!(InvalidTag, "The TagKey you have provided is invalid"));
        }
        if value.chars().count() > 256 {
            return Err(s3_error!(InvalidTag, "The TagValue you have provided is invalid"));
        }
        if tags.iter().skip(at + 1).any(|(other, _)| other == key) {
            return Err(s3_error!(InvalidTag, "Cannot provide multiple Tags with the same key"));
        }
    }
    Ok(())
}

/// Reads the headers that are kept with an object from any input that has them.
macro_rules! object_headers {
    ($input:expr) => {
        ObjectHeaders {
            content_type: $input.content_type.clone().map(|text| text.to_string()),
            content_encoding: $input
                .content_encoding
                .clone()
                .and_then(super::convert::stored_encoding),
            content_disposition: $input.content_disposition.clone(),
            content_language: $input.content_language.clone(),
            cache_control: $input.cache_control.clone(),
            expires: $input.expires.as_ref().and_then(super::convert::http_date),
            website_redirect: $input.website_redirect_location.clone(),
            user: $input.metadata.clone().unwrap_or_default().into_iter().collect(),
        }
    };
}
pub(super) use object_headers;

/// The content encoding without the transfer framing of the request.
pub(super) fn stored_encoding(text: String) -> Option<String> {
    let kept: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty() && *part != "aws-chunked")
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// The refusal of a write that carries what this store would have to forget, to be told once IAM has allowed the write
/// (IAM-59).
macro_rules! kept {
    ($input:expr) => {{
        // Other kinds of encryption are `encryption::Wish`'s.
        let encrypted = $input.sse_customer_algorithm.is_some() || $input.sse_customer_key.is_some();
        let locked = $input.object_lock_mode.is_some()
            || $input.object_lock_legal_hold_status.is_some()
            || $input.object_lock_retain_until_date.is_some();
        let grants = $input.grant_full_control.is_some()
            || $input.grant_read.is_some()
            || $input.grant_read_acp.is_some()
            || $input.grant_write_acp.is_some();
        let user: usize = $input
            .metadata
            .iter()
            .flatten()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        let refusal = || {
            if encrypted || locked {
                return Err(super::convert::not_implemented());
            }
            super::convert::canned_acl($input.acl.as_ref().map(|acl| acl.as_str()), grants)?;
            super::convert::storage_class($input.storage_class.as_ref())?;
            if user > 2048 {
                return Err(s3_error!(
                    MetadataTooLarge,
                    "Your metadata headers exceed the maximum allowed metadata size"
                ));
            }
            Ok(())
        };
        refusal()
    }};
}
pub(super) use kept;

/// Percent-encodes a key for a listing with `encoding-type=url`.
pub(super) fn encoded(text: String, url: bool) -> String {
    if !url {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
