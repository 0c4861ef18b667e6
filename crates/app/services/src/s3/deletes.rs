//! Deletions.

use super::body::blocking;
use super::convert::{etag_text, names};
use super::fault;
use super::gate::{Ask, Call};
use super::objects::read_action;
use isolarium_store::objects::Target;
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

pub(super) async fn delete(
    request: S3Request<dto::DeleteObjectInput>,
) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let (bucket, key) = names(&call, &input.bucket, &input.key)?;
    blocking(move || {
        let action = read_action(input.version_id.as_ref(), "s3:DeleteObject", "s3:DeleteObjectVersion");
        let if_match = input.if_match.as_ref().map(etag_text);
        let asks = [Ask::object(action, &bucket, key.as_str())
            .with("s3:versionid", input.version_id.as_ref())
            .with("s3:if-match", if_match)];
        let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
        let owner = allowed.bucket()?.owner.clone();
        let target = Target {
            key,
            version: input.version_id,
            etag: input.if_match.as_ref().map(etag_text),
        };
        let done = allowed
            .store
            .delete(&bucket, &[target], &owner, call.now)
            .map_err(fault::of)?;
        let deleted = done
            .into_iter()
            .next()
            .unwrap_or_else(|| Ok(Default::default()))
            .map_err(fault::of)?;
        Ok(S3Response::new(dto::DeleteObjectOutput {
            delete_marker: deleted.marker.then_some(true),
            version_id: deleted.version,
            ..Default::default()
        }))
    })
    .await
}

pub(super) async fn delete_many(
    request: S3Request<dto::DeleteObjectsInput>,
) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let bucket = super::convert::bucket_name(&input.bucket)?;
    call.trace.note(|noted| noted.bucket = Some(bucket.to_string()));
    if input.delete.objects.is_empty() || input.delete.objects.len() > 1000 {
        return Err(s3_error!(
            MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema"
        ));
    }
    blocking(move || {
        let quiet = input.delete.quiet.unwrap_or(false);
        let mut errors = Vec::new();
        let mut targets = Vec::new();
        let mut store = None;
        for object in input.delete.objects {
            let refused = |error: &S3Error| dto::Error {
                code: Some(error.code().as_str().to_owned()),
                key: Some(object.key.clone()),
                message: error.message().map(str::to_owned),
                version_id: object.version_id.clone(),
            };
            // Every key is asked about on its own: some may be allowed and others not.
            let action = read_action(object.version_id.as_ref(), "s3:DeleteObject", "s3:DeleteObjectVersion");
            let asks = [Ask::object(action, &bucket, &object.key).with("s3:versionid", object.version_id.as_ref())];
            let checked = super::convert::object_key(&object.key).and_then(|key| {
                let allowed = call.allow(&asks, input.expected_bucket_owner.as_deref())?;
                Ok((key, allowed.bucket()?.owner.clone(), allowed.store))
            });
            match checked {
                Ok((key, owner, allowed)) => {
                    store = Some((allowed, owner));
                    let etag = object.e_tag.as_ref().map(|etag| etag.value().to_owned());
                    targets.push(Target {
                        key,
                        version: object.version_id.clone(),
                        etag,
                    });
                }
                Err(error) if *error.code() == S3ErrorCode::NoSuchBucket => return Err(error),
                Err(error) => errors.push(refused(&error)),
            }
        }
        let mut deleted = Vec::new();
        if let Some((store, owner)) = store {
            let done = store.delete(&bucket, &targets, &owner, call.now).map_err(fault::of)?;
            for (target, outcome) in targets.into_iter().zip(done) {
                match outcome {
                    Ok(_) if quiet => {}
                    Ok(done) => deleted.push(dto::DeletedObject {
                        key: Some(target.key.into()),
                        delete_marker: done.marker.then_some(true),
                        delete_marker_version_id: done.version.filter(|_| done.marker),
                        version_id: target.version,
                    }),
                    Err(error) => {
                        let error = fault::of(error);
                        errors.push(dto::Error {
                            code: Some(error.code().as_str().to_owned()),
                            key: Some(target.key.into()),
                            message: error.message().map(str::to_owned),
                            version_id: target.version,
                        });
                    }
                }
            }
        }
        Ok(S3Response::new(dto::DeleteObjectsOutput {
            deleted: Some(deleted).filter(|list| !list.is_empty()),
            errors: Some(errors).filter(|list| !list.is_empty()),
            ..Default::default()
        }))
    })
    .await
}
