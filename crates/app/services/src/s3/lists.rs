//! Listings of objects and versions.

use super::buckets::{of_bucket, on_bucket_asking};
use super::convert::{encoded, etag, kind_of, owner, signed, timestamp};
use super::fault;
use super::gate::{Ask, Call};
use super::objects::listed_algorithms;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isolarium_model::s3::{BucketName, Object, Version};
use isolarium_store::ObjectStore;
use isolarium_store::objects::{Listing, ListingQuery};
use s3s::dto;
use s3s::{S3Request, S3Response, S3Result, s3_error};

/// Most lines of a page.
const MOST: i32 = 1000;

/// `max-keys` and the like: at most 1,000, zero allowed.
pub(super) fn limit(most: Option<i32>) -> S3Result<(i32, usize)> {
    let most = most.unwrap_or(MOST).min(MOST);
    let limit = usize::try_from(most).map_err(|_| {
        s3_error!(
            InvalidArgument,
            "Argument max-keys must be an integer between 0 and 2147483647"
        )
    })?;
    Ok((most, limit))
}

pub(super) fn url_encoding(wanted: Option<&dto::EncodingType>) -> S3Result<bool> {
    match wanted.map(dto::EncodingType::as_str) {
        None => Ok(false),
        Some("url") => Ok(true),
        Some(_) => Err(s3_error!(
            InvalidArgument,
            "Invalid Encoding Method specified in Request"
        )),
    }
}

pub(super) fn prefixes(found: Vec<String>, url: bool) -> Option<Vec<dto::CommonPrefix>> {
    let list: Vec<_> = found
        .into_iter()
        .map(|prefix| dto::CommonPrefix {
            prefix: Some(encoded(prefix, url)),
        })
        .collect();
    (!list.is_empty()).then_some(list)
}

fn line(object: Object, url: bool, with_owner: bool) -> dto::Object {
    dto::Object {
        checksum_algorithm: listed_algorithms(&object.checksums),
        checksum_type: kind_of(&object.checksums),
        e_tag: Some(etag(&object.etag)),
        key: Some(encoded(object.key.into(), url)),
        last_modified: Some(timestamp(object.modified)),
        owner: with_owner.then(|| owner(&object.owner)),
        restore_status: None,
        size: Some(signed(object.size)),
        storage_class: Some(dto::ObjectStorageClass::from_static(dto::ObjectStorageClass::STANDARD)),
    }
}

fn page(store: &ObjectStore, bucket: &BucketName, query: &ListingQuery) -> S3Result<Listing> {
    store.list(bucket, query).map_err(fault::of)
}

/// The condition keys that ListBucket and ListBucketVersions know, of any listing's input: each is absent unless the
/// request says it.
macro_rules! listing_ask {
    ($action:expr, $bucket:expr, $input:expr) => {
        Ask::bucket($action, $bucket)
            .with("s3:prefix", $input.prefix.as_deref())
            .with("s3:delimiter", $input.delimiter.as_deref())
            .with("s3:max-keys", $input.max_keys.map(|most| most.to_string()))
    };
}

pub(super) async fn v2(request: S3Request<dto::ListObjectsV2Input>) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let bucket = super::convert::bucket_name(&input.bucket)?;
    call.trace.note(|noted| noted.bucket = Some(bucket.to_string()));
    let (most, limit) = limit(input.max_keys)?;
    let url = url_encoding(input.encoding_type.as_ref())?;
    let token = input.continuation_token.as_ref().map(|token| {
        let text = URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        text.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
    });
    let query = ListingQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
        after: token
            .transpose()?
            .or_else(|| input.start_after.clone().filter(|after| !after.is_empty())),
        limit,
    };
    super::body::blocking(move || {
        let asks = [listing_ask!("s3:ListBucket", &bucket, input)];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        allowed.bucket()?;
        let found = page(&allowed.store, &bucket, &query)?;
        let count = found.objects.len() + found.prefixes.len();
        let with_owner = input.fetch_owner.unwrap_or(false);
        let contents: Vec<_> = found
            .objects
            .into_iter()
            .map(|object| line(object, url, with_owner))
            .collect();
        Ok(S3Response::new(dto::ListObjectsV2Output {
            name: Some(bucket.into()),
            prefix: Some(encoded(query.prefix, url)),
            max_keys: Some(most),
            key_count: i32::try_from(count).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(found.next.is_some()),
            next_continuation_token: found.next.map(|next| URL_SAFE_NO_PAD.encode(next)),
            contents: (!contents.is_empty()).then_some(contents),
            common_prefixes: prefixes(found.prefixes, url),
            delimiter: query.delimiter.map(|delimiter| encoded(delimiter, url)),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(|after| encoded(after, url)),
            ..Default::default()
        }))
    })
    .await
}

pub(super) async fn v1(request: S3Request<dto::ListObjectsInput>) -> S3Result<S3Response<dto::ListObjectsOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let bucket = super::convert::bucket_name(&input.bucket)?;
    call.trace.note(|noted| noted.bucket = Some(bucket.to_string()));
    let (most, limit) = limit(input.max_keys)?;
    let url = url_encoding(input.encoding_type.as_ref())?;
    let query = ListingQuery {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().filter(|delimiter| !delimiter.is_empty()),
        after: input.marker.clone().filter(|marker| !marker.is_empty()),
        limit,
    };
    super::body::blocking(move || {
        let asks = [listing_ask!("s3:ListBucket", &bucket, input)];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        allowed.bucket()?;
        let found = page(&allowed.store, &bucket, &query)?;
        let contents: Vec<_> = found
            .objects
            .into_iter()
            .map(|object| line(object, url, true))
            .collect();
        // Only with a delimiter: otherwise the last key is the marker.
        let next = found.next.clone().filter(|_| query.delimiter.is_some());
        Ok(S3Response::new(dto::ListObjectsOutput {
            name: Some(bucket.into()),
            prefix: Some(encoded(query.prefix, url)),
            marker: Some(encoded(input.marker.unwrap_or_default(), url)),
            max_keys: Some(most),
            is_truncated: Some(found.next.is_some()),
            contents: (!contents.is_empty()).then_some(contents),
            common_prefixes: prefixes(found.prefixes, url),
            delimiter: query.delimiter.map(|delimiter| encoded(delimiter, url)),
            next_marker: next.map(|next| encoded(next, url)),
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    })
    .await
}

pub(super) async fn versions(
    request: S3Request<dto::ListObjectVersionsInput>,
) -> S3Result<S3Response<dto::ListObjectVersionsOutput>> {
    on_bucket_asking(
        request,
        |bucket, input, _| listing_ask!("s3:ListBucketVersions", bucket, input),
        of_bucket!(),
        |allowed, bucket, input| {
            let (most, limit) = limit(input.max_keys)?;
            let url = url_encoding(input.encoding_type.as_ref())?;
            let query = ListingQuery {
                prefix: input.prefix.unwrap_or_default(),
                delimiter: input.delimiter.filter(|delimiter| !delimiter.is_empty()),
                after: input.key_marker.clone().filter(|marker| !marker.is_empty()),
                limit,
            };
            let marker = input.version_id_marker.clone().filter(|marker| !marker.is_empty());
            let found = allowed
                .store
                .list_versions(bucket, &query, marker.as_deref())
                .map_err(fault::of)?;
            let (mut versions, mut markers) = (Vec::new(), Vec::new());
            for version in found.versions {
                match version {
                    Version::Object(object) => versions.push(dto::ObjectVersion {
                        checksum_algorithm: listed_algorithms(&object.checksums),
                        checksum_type: kind_of(&object.checksums),
                        e_tag: Some(etag(&object.etag)),
                        is_latest: Some(object.latest),
                        key: Some(encoded(object.key.into(), url)),
                        last_modified: Some(timestamp(object.modified)),
                        owner: Some(owner(&object.owner)),
                        restore_status: None,
                        size: Some(signed(object.size)),
                        storage_class: Some(dto::ObjectVersionStorageClass::from_static(
                            dto::ObjectVersionStorageClass::STANDARD,
                        )),
                        version_id: Some(object.version),
                    }),
                    Version::DeleteMarker {
                        key,
                        version,
                        latest,
                        modified,
                        owner: account,
                    } => {
                        markers.push(dto::DeleteMarkerEntry {
                            is_latest: Some(latest),
                            key: Some(encoded(key.into(), url)),
                            last_modified: Some(timestamp(modified)),
                            owner: Some(owner(&account)),
                            version_id: Some(version),
                        });
                    }
                }
            }
            let (next_key, next_version) = found.next.map_or((None, None), |(key, version)| (Some(key), version));
            Ok(dto::ListObjectVersionsOutput {
                common_prefixes: prefixes(found.prefixes, url),
                delete_markers: (!markers.is_empty()).then_some(markers),
                delimiter: query.delimiter.map(|delimiter| encoded(delimiter, url)),
                encoding_type: input.encoding_type,
                is_truncated: Some(next_key.is_some()),
                key_marker: Some(encoded(input.key_marker.unwrap_or_default(), url)),
                max_keys: Some(most),
                name: Some(bucket.to_string()),
                next_key_marker: next_key.map(|key| encoded(key, url)),
                next_version_id_marker: next_version,
                prefix: Some(encoded(query.prefix, url)),
                version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
                versions: (!versions.is_empty()).then_some(versions),
                ..Default::default()
            })
        },
    )
    .await
}
