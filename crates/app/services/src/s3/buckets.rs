//! Buckets and their configuration. What is not enforced is refused, never stored and forgotten.

use super::body::blocking;
use super::convert::{bucket_name, canned, new_acl, owner, tag_set, tags_of, timestamp};
use super::encryption;
use super::fault::{self, custom};
use super::gate::{Allowed, Ask, Call, ROOT_KEEPS};
use super::public::is_public;
use http::{HeaderMap, StatusCode};
use isolarium_model::s3::{BucketName, PublicAccessBlock, Versioning};
use isolarium_model::{AccountId, Region};
use isolarium_policy::{Document, DocumentKind};
use isolarium_store::ObjectError;
use isolarium_store::objects::NewBucket;
use s3s::dto;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

/// Most bytes of a bucket policy.
const LARGEST_POLICY: usize = 20 << 10;

pub(super) fn full_control(account: &AccountId) -> dto::Grants {
    vec![dto::Grant {
        grantee: Some(dto::Grantee {
            display_name: None,
            email_address: None,
            id: Some(account.to_string()),
            type_: dto::Type::from_static(dto::Type::CANONICAL_USER),
            uri: None,
        }),
        permission: Some(dto::Permission::from_static(dto::Permission::FULL_CONTROL)),
    }]
}

/// Asks one question about a bucket that must exist, then answers.
pub(super) async fn on_bucket<T, O, F>(
    request: S3Request<T>,
    action: &'static str,
    name: impl FnOnce(&T) -> (&str, Option<&str>),
    answer: F,
) -> S3Result<S3Response<O>>
where
    T: Send + 'static,
    O: Send + 'static,
    F: FnOnce(&Allowed, &BucketName, T) -> S3Result<O> + Send + 'static,
{
    on_bucket_asking(request, |bucket, _, _| Ask::bucket(action, bucket), name, answer).await
}

/// The same with a question that depends on the input and its headers.
pub(super) async fn on_bucket_asking<T, O, F>(
    request: S3Request<T>,
    ask: impl FnOnce(&BucketName, &T, &HeaderMap) -> Ask,
    name: impl FnOnce(&T) -> (&str, Option<&str>),
    answer: F,
) -> S3Result<S3Response<O>>
where
    T: Send + 'static,
    O: Send + 'static,
    F: FnOnce(&Allowed, &BucketName, T) -> S3Result<O> + Send + 'static,
{
    let call = Call::of(&request)?;
    let (text, expected) = name(&request.input);
    let (bucket, expected) = (bucket_name(text)?, expected.map(str::to_owned));
    call.trace.note(|noted| noted.bucket = Some(bucket.to_string()));
    let ask = ask(&bucket, &request.input, &request.headers);
    let ask_action = ask.action();
    let input = request.input;
    blocking(move || {
        let allowed = call.allow(&[ask], expected.as_deref())?;
        owners_alone(&call, &allowed, ask_action)?;
        answer(&allowed, &bucket, input).map(S3Response::new)
    })
    .await
}

/// A bucket's policy is its owner's business: other accounts are told so, whatever they are allowed.
fn owners_alone(call: &Call, allowed: &Allowed, action: &str) -> S3Result<()> {
    let owner = &allowed.bucket()?.owner;
    let own = call.caller.principal.account() == Some(owner);
    if !own && ROOT_KEEPS.contains(&action) {
        return Err(s3_error!(
            MethodNotAllowed,
            "The specified method is not allowed against this resource."
        ));
    }
    Ok(())
}

/// Bucket and expected owner of any bucket-level input.
macro_rules! of_bucket {
    () => {
        |input| (input.bucket.as_str(), input.expected_bucket_owner.as_deref())
    };
}
pub(super) use of_bucket;

fn region_of(call: &Call, constraint: Option<&str>) -> S3Result<Region> {
    let here = call.caller.scope.region.clone();
    match constraint {
        // The global name: us-east-1 is the one region that a constraint cannot name.
        None if here.as_str() == "us-east-1" => Ok(here),
        None => Err(custom(
            "IllegalLocationConstraintException",
            StatusCode::BAD_REQUEST,
            "The unspecified location constraint is incompatible for the region specific endpoint this request was \
             sent to.",
        )),
        Some("us-east-1" | "") => Err(custom(
            "InvalidLocationConstraint",
            StatusCode::BAD_REQUEST,
            "The specified location-constraint is not valid",
        )),
        Some(named) if named == here.as_str() => Ok(here),
        Some(_) => Err(custom(
            "IllegalLocationConstraintException",
            StatusCode::BAD_REQUEST,
            "The location constraint is incompatible for the region specific endpoint this request was sent to.",
        )),
    }
}

pub(super) async fn create(
    request: S3Request<dto::CreateBucketInput>,
) -> S3Result<S3Response<dto::CreateBucketOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    let name = bucket_name(&input.bucket)?;
    call.trace.note(|noted| noted.bucket = Some(name.to_string()));
    let configuration = input.create_bucket_configuration.as_ref();
    let enforced = |ownership: &dto::ObjectOwnership| ownership.as_str() == dto::ObjectOwnership::BUCKET_OWNER_ENFORCED;
    let unkept = input.object_lock_enabled_for_bucket == Some(true)
        || !input.object_ownership.as_ref().is_none_or(enforced)
        || configuration.is_some_and(|wanted| wanted.bucket.is_some() || wanted.location.is_some());
    let acl = canned!(input);
    let constraint = configuration.and_then(|wanted| wanted.location_constraint.as_ref());
    let constraint = constraint.map(|constraint| constraint.as_str().to_owned());
    let ownership = input.object_ownership.as_ref().map(|ownership| ownership.as_str());
    let ask = Ask::new_bucket("s3:CreateBucket", &name)
        .with("s3:LocationConstraint", constraint.clone())
        .with("s3:x-amz-object-ownership", ownership)
        .with_access(&request.headers);
    blocking(move || {
        let owner = call.account()?.clone();
        let allowed = call.allow(&[ask], None)?;
        // IAM's word comes before the engine's own (IAM-59).
        acl?;
        if unkept {
            return Err(super::convert::not_implemented());
        }
        let region = region_of(&call, constraint.as_deref())?;
        let new = NewBucket {
            name: name.clone(),
            owner: owner.clone(),
            region: region.clone(),
            now: call.now,
        };
        match allowed.store.create_bucket(new) {
            Ok(()) => {}
            Err(ObjectError::BucketExists { owner: holder }) if holder == owner => {
                // In us-east-1 making one's own bucket again succeeds.
                if region.as_str() != "us-east-1" {
                    return Err(s3_error!(
                        BucketAlreadyOwnedByYou,
                        "Your previous request to create the named bucket succeeded and you already own it."
                    ));
                }
            }
            Err(error) => return Err(fault::of(error)),
        }
        Ok(S3Response::new(dto::CreateBucketOutput {
            location: Some(format!("/{name}")),
        }))
    })
    .await
}

pub(super) async fn delete(
    request: S3Request<dto::DeleteBucketInput>,
) -> S3Result<S3Response<dto::DeleteBucketOutput>> {
    let response = on_bucket(request, "s3:DeleteBucket", of_bucket!(), |allowed, bucket, _| {
        allowed.store.delete_bucket(bucket).map_err(fault::of)?;
        Ok(dto::DeleteBucketOutput {})
    })
    .await?;
    Ok(S3Response {
        status: Some(StatusCode::NO_CONTENT),
        ..response
    })
}

pub(super) async fn head(request: S3Request<dto::HeadBucketInput>) -> S3Result<S3Response<dto::HeadBucketOutput>> {
    on_bucket(request, "s3:ListBucket", of_bucket!(), |allowed, _, _| {
        let region = allowed.bucket()?.region.to_string();
        Ok(dto::HeadBucketOutput {
            bucket_region: Some(region),
            ..Default::default()
        })
    })
    .await
}

pub(super) async fn location(
    request: S3Request<dto::GetBucketLocationInput>,
) -> S3Result<S3Response<dto::GetBucketLocationOutput>> {
    on_bucket(request, "s3:GetBucketLocation", of_bucket!(), |allowed, _, _| {
        let region = allowed.bucket()?.region.to_string();
        let named = (region != "us-east-1").then(|| dto::BucketLocationConstraint::from(region));
        Ok(dto::GetBucketLocationOutput {
            location_constraint: named,
        })
    })
    .await
}

pub(super) async fn list(request: S3Request<dto::ListBucketsInput>) -> S3Result<S3Response<dto::ListBucketsOutput>> {
    let call = Call::of(&request)?;
    let input = request.input;
    blocking(move || {
        let account = call.account()?.clone();
        let allowed = call.allow(&[Ask::any("s3:ListAllMyBuckets")], None)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.unwrap_or_default();
        let most = input
            .max_buckets
            .map_or(10_000, |most| usize::try_from(most).unwrap_or(0).clamp(1, 10_000));
        let wanted = |bucket: &isolarium_model::s3::Bucket| {
            bucket.name.as_str().starts_with(&prefix)
                && bucket.name.as_str() > after.as_str()
                && input
                    .bucket_region
                    .as_ref()
                    .is_none_or(|region| *region == bucket.region.as_str())
        };
        let mut found = allowed.store.buckets(&account).map_err(fault::of)?;
        found.retain(wanted);
        let more = found.len() > most;
        found.truncate(most);
        let token = more
            .then(|| found.last().map(|bucket| bucket.name.to_string()))
            .flatten();
        let buckets = found
            .into_iter()
            .map(|bucket| dto::Bucket {
                bucket_region: Some(bucket.region.to_string()),
                creation_date: Some(timestamp(bucket.created)),
                name: Some(bucket.name.into()),
            })
            .collect();
        Ok(S3Response::new(dto::ListBucketsOutput {
            buckets: Some(buckets),
            continuation_token: token,
            owner: Some(owner(&account)),
            prefix: input.prefix,
        }))
    })
    .await
}

pub(super) async fn get_policy(
    request: S3Request<dto::GetBucketPolicyInput>,
) -> S3Result<S3Response<dto::GetBucketPolicyOutput>> {
    on_bucket(request, "s3:GetBucketPolicy", of_bucket!(), |allowed, _, _| {
        let policy = allowed.bucket()?.policy.clone();
        let missing = || s3_error!(NoSuchBucketPolicy, "The bucket policy does not exist");
        Ok(dto::GetBucketPolicyOutput {
            policy: Some(policy.ok_or_else(missing)?),
        })
    })
    .await
}

pub(super) async fn policy_status(
    request: S3Request<dto::GetBucketPolicyStatusInput>,
) -> S3Result<S3Response<dto::GetBucketPolicyStatusOutput>> {
    on_bucket(request, "s3:GetBucketPolicyStatus", of_bucket!(), |allowed, _, _| {
        let policy = allowed.bucket()?.policy.clone();
        let missing = || s3_error!(NoSuchBucketPolicy, "The bucket policy does not exist");
        let status = dto::PolicyStatus {
            is_public: Some(is_public(&policy.ok_or_else(missing)?)),
        };
        Ok(dto::GetBucketPolicyStatusOutput {
            policy_status: Some(status),
        })
    })
    .await
}

fn malformed(message: &'static str) -> S3Error {
    s3_error!(MalformedPolicy, "{}", message)
}

/// What S3 itself demands of a policy; the language is `policy`'s.
fn check_policy(text: &str, bucket: &BucketName) -> S3Result<()> {
    if text.len() > LARGEST_POLICY {
        return Err(malformed("Policy exceeds the maximum allowed document size."));
    }
    Document::parse(text, DocumentKind::Resource)
        .map_err(|error| s3_error!(MalformedPolicy, "{}", error.to_string()))?;
    let document: serde_json::Value =
        serde_json::from_str(text).map_err(|_| malformed("This policy contains invalid Json"))?;
    let statements = match document.get("Statement") {
        Some(serde_json::Value::Array(list)) => list.clone(),
        Some(one) => vec![one.clone()],
        None => return Err(malformed("Missing required field Statement")),
    };
    for statement in &statements {
        let resources = statement.get("Resource").or_else(|| statement.get("NotResource"));
        let resources = match resources {
            Some(serde_json::Value::String(one)) => vec![one.clone()],
            Some(serde_json::Value::Array(list)) => list
                .iter()
                .map(|item| item.as_str().unwrap_or_default().to_owned())
                .collect(),
            _ => return Err(malformed("Missing required field Resource")),
        };
        let about_this = |resource: &String| {
            let named = resource
                .strip_prefix("arn:aws:s3:::")
                .and_then(|rest| rest.split('/').next());
            resource == "*" || named.is_some_and(|named| named == bucket.as_str() || named.contains(['*', '?']))
        };
        if !resources.iter().all(about_this) {
            return Err(malformed("Policy has invalid resource"));
        }
    }
    Ok(())
}

pub(super) async fn put_policy(
    request: S3Request<dto::PutBucketPolicyInput>,
) -> S3Result<S3Response<dto::PutBucketPolicyOutput>> {
    let response = on_bucket(request, "s3:PutBucketPolicy", of_bucket!(), |allowed, bucket, input| {
        check_policy(&input.policy, bucket)?;
        let block = allowed
            .bucket()?
            .public_access_block
            .is_some_and(|block| block.block_public_policy);
        if block && is_public(&input.policy) {
            return Err(s3_error!(
                AccessDenied,
                "Access Denied: the policy is public and BlockPublicPolicy is on for this bucket"
            ));
        }
        allowed
            .store
            .set_policy(bucket, Some(input.policy))
            .map_err(fault::of)?;
        Ok(dto::PutBucketPolicyOutput {})
    })
    .await?;
    Ok(S3Response {
        status: Some(StatusCode::NO_CONTENT),
        ..response
    })
}

pub(super) async fn delete_policy(
    request: S3Request<dto::DeleteBucketPolicyInput>,
) -> S3Result<S3Response<dto::DeleteBucketPolicyOutput>> {
    let response = on_bucket(request, "s3:DeleteBucketPolicy", of_bucket!(), |allowed, bucket, _| {
        allowed.store.set_policy(bucket, None).map_err(fault::of)?;
        Ok(dto::DeleteBucketPolicyOutput {})
    })
    .await?;
    Ok(S3Response {
        status: Some(StatusCode::NO_CONTENT),
        ..response
    })
}

pub(super) async fn get_versioning(
    request: S3Request<dto::GetBucketVersioningInput>,
) -> S3Result<S3Response<dto::GetBucketVersioningOutput>> {
    on_bucket(request, "s3:GetBucketVersioning", of_bucket!(), |allowed, _, _| {
        let status = match allowed.bucket()?.versioning {
            Versioning::Never => None,
            Versioning::Enabled => Some(dto::BucketVersioningStatus::ENABLED),
            Versioning::Suspended => Some(dto::BucketVersioningStatus::SUSPENDED),
        };
        let status = status.map(dto::BucketVersioningStatus::from_static);
        Ok(dto::GetBucketVersioningOutput {
            status,
            mfa_delete: None,
        })
    })
    .await
}

pub(super) async fn put_versioning(
    request: S3Request<dto::PutBucketVersioningInput>,
) -> S3Result<S3Response<dto::PutBucketVersioningOutput>> {
    on_bucket(
        request,
        "s3:PutBucketVersioning",
        of_bucket!(),
        |allowed, bucket, input| {
            let wanted = input.versioning_configuration;
            if wanted.mfa_delete.as_ref().is_some_and(|mfa| mfa.as_str() != "Disabled") {
                return Err(super::convert::not_implemented());
            }
            let versioning = match wanted.status.as_ref().map(|status| status.as_str()) {
                Some("Enabled") => Versioning::Enabled,
                Some("Suspended") => Versioning::Suspended,
                _ => {
                    return Err(s3_error!(
                        IllegalVersioningConfigurationException,
                        "The versioning configuration specified in the request is invalid."
                    ));
                }
            };
            allowed.store.set_versioning(bucket, versioning).map_err(fault::of)?;
            Ok(dto::PutBucketVersioningOutput {})
        },
    )
    .await
}

pub(super) async fn get_tagging(
    request: S3Request<dto::GetBucketTaggingInput>,
) -> S3Result<S3Response<dto::GetBucketTaggingOutput>> {
    on_bucket(request, "s3:GetBucketTagging", of_bucket!(), |allowed, _, _| {
        let tags = allowed.bucket()?.tags.clone();
        let tags = tags.ok_or_else(|| s3_error!(NoSuchTagSet, "The TagSet does not exist"))?;
        Ok(dto::GetBucketTaggingOutput {
            tag_set: tag_set(&tags),
        })
    })
    .await
}

pub(super) async fn put_tagging(
    request: S3Request<dto::PutBucketTaggingInput>,
) -> S3Result<S3Response<dto::PutBucketTaggingOutput>> {
    let response = on_bucket(
        request,
        "s3:PutBucketTagging",
        of_bucket!(),
        |allowed, bucket, input| {
            let tags = tags_of(&input.tagging.tag_set, 50)?;
            allowed.store.set_bucket_tags(bucket, Some(&tags)).map_err(fault::of)?;
            Ok(dto::PutBucketTaggingOutput {})
        },
    )
    .await?;
    Ok(S3Response {
        status: Some(StatusCode::NO_CONTENT),
        ..response
    })
}

pub(super) async fn delete_tagging(
    request: S3Request<dto::DeleteBucketTaggingInput>,
) -> S3Result<S3Response<dto::DeleteBucketTaggingOutput>> {
    let response = on_bucket(request, "s3:PutBucketTagging", of_bucket!(), |allowed, bucket, _| {
        allowed.store.set_bucket_tags(bucket, None).map_err(fault::of)?;
        Ok(dto::DeleteBucketTaggingOutput {})
    })
    .await?;
    Ok(S3Response {
        status: Some(StatusCode::NO_CONTENT),
        ..response
    })
}

pub(super) async fn get_encryption(
    request: S3Request<dto::GetBucketEncryptionInput>,
) -> S3Result<S3Response<dto::GetBucketEncryptionOutput>> {
    on_bucket(
        request,
        "s3:GetEncryptionConfiguration",
        of_bucket!(),
        |allowed, _, _| {
            let found = allowed.bucket()?.encryption.as_ref().ok_or_else(|| {
                custom(
                    "ServerSideEncryptionConfigurationNotFoundError",
                    StatusCode::NOT_FOUND,
                    "The server side encryption configuration was not found",
                )
            })?;
            Ok(dto::GetBucketEncryptionOutput {
                server_side_encryption_configuration: Some(encryption::configuration(found)),
            })
        },
    )
    .await
}

pub(super) async fn put_encryption(
    request: S3Request<dto::PutBucketEncryptionInput>,
) -> S3Result<S3Response<dto::PutBucketEncryptionOutput>> {
    on_bucket(
        request,
        "s3:PutEncryptionConfiguration",
        of_bucket!(),
        |allowed, bucket, input| {
            let wanted = encryption::configured(&input.server_side_encryption_configuration)?;
            allowed.store.set_encryption(bucket, Some(&wanted)).map_err(fault::of)?;
            Ok(dto::PutBucketEncryptionOutput {})
        },
    )
    .await
}

pub(super) async fn delete_encryption(
    request: S3Request<dto::DeleteBucketEncryptionInput>,
) -> S3Result<S3Response<dto::DeleteBucketEncryptionOutput>> {
    let action = "s3:PutEncryptionConfiguration";
    let response = on_bucket(request, action, of_bucket!(), |allowed, bucket, _| {
        allowed.store.set_encryption(bucket, None).map_err(fault::of)?;
        Ok(dto::DeleteBucketEncryptionOutput {})
    })
    .await?;
    Ok(S3Response {
        status: Some(StatusCode::NO_CONTENT),
        ..response
    })
}

pub(super) async fn get_public_access_block(
    request: S3Request<dto::GetPublicAccessBlockInput>,
) -> S3Result<S3Response<dto::GetPublicAccessBlockOutput>> {
    on_bucket(
        request,
        "s3:GetBucketPublicAccessBlock",
        of_bucket!(),
        |allowed, _, _| {
            let block = allowed.bucket()?.public_access_block.ok_or_else(|| {
                custom(
                    "NoSuchPublicAccessBlockConfiguration",
                    StatusCode::NOT_FOUND,
                    "The public access block configuration was not found",
                )
            })?;
            let shown = dto::PublicAccessBlockConfiguration {
                block_public_acls: Some(block.block_public_acls),
                block_public_policy: Some(block.block_public_policy),
                ignore_public_acls: Some(block.ignore_public_acls),
                restrict_public_buckets: Some(block.restrict_public_buckets),
            };
            Ok(dto::GetPublicAccessBlockOutput {
                public_access_block_configuration: Some(shown),
            })
        },
    )
    .await
}

pub(super) async fn put_public_access_block(
    request: S3Request<dto::PutPublicAccessBlockInput>,
) -> S3Result<S3Response<dto::PutPublicAccessBlockOutput>> {
    on_bucket(
        request,
        "s3:PutBucketPublicAccessBlock",
        of_bucket!(),
        |allowed, bucket, input| {
            let wanted = input.public_access_block_configuration;
            let block = PublicAccessBlock {
                block_public_acls: wanted.block_public_acls.unwrap_or(false),
                ignore_public_acls: wanted.ignore_public_acls.unwrap_or(false),
                block_public_policy: wanted.block_public_policy.unwrap_or(false),
                restrict_public_buckets: wanted.restrict_public_buckets.unwrap_or(false),
            };
            allowed
                .store
                .set_public_access_block(bucket, Some(block))
                .map_err(fault::of)?;
            Ok(dto::PutPublicAccessBlockOutput {})
        },
    )
    .await
}

pub(super) async fn delete_public_access_block(
    request: S3Request<dto::DeletePublicAccessBlockInput>,
) -> S3Result<S3Response<dto::DeletePublicAccessBlockOutput>> {
    let response = on_bucket(
        request,
        "s3:PutBucketPublicAccessBlock",
        of_bucket!(),
        |allowed, bucket, _| {
            allowed.store.set_public_access_block(bucket, None).map_err(fault::of)?;
            Ok(dto::DeletePublicAccessBlockOutput {})
        },
    )
    .await?;
    Ok(S3Response {
        status: Some(StatusCode::NO_CONTENT),
        ..response
    })
}

pub(super) async fn get_acl(
    request: S3Request<dto::GetBucketAclInput>,
) -> S3Result<S3Response<dto::GetBucketAclOutput>> {
    on_bucket(request, "s3:GetBucketAcl", of_bucket!(), |allowed, _, _| {
        let account = allowed.bucket()?.owner.clone();
        Ok(dto::GetBucketAclOutput {
            grants: Some(full_control(&account)),
            owner: Some(owner(&account)),
        })
    })
    .await
}

pub(super) async fn put_acl(
    request: S3Request<dto::PutBucketAclInput>,
) -> S3Result<S3Response<dto::PutBucketAclOutput>> {
    on_bucket_asking(
        request,
        |bucket, _, headers| Ask::bucket("s3:PutBucketAcl", bucket).with_access(headers),
        of_bucket!(),
        |_, _, input| {
            new_acl!(input)?;
            Ok(dto::PutBucketAclOutput {})
        },
    )
    .await
}

pub(super) async fn get_ownership(
    request: S3Request<dto::GetBucketOwnershipControlsInput>,
) -> S3Result<S3Response<dto::GetBucketOwnershipControlsOutput>> {
    on_bucket(request, "s3:GetBucketOwnershipControls", of_bucket!(), |_, _, _| {
        let enforced = dto::ObjectOwnership::from_static(dto::ObjectOwnership::BUCKET_OWNER_ENFORCED);
        let rules = vec![dto::OwnershipControlsRule {
            object_ownership: enforced,
        }];
        Ok(dto::GetBucketOwnershipControlsOutput {
            ownership_controls: Some(dto::OwnershipControls { rules }),
        })
    })
    .await
}

pub(super) async fn put_ownership(
    request: S3Request<dto::PutBucketOwnershipControlsInput>,
) -> S3Result<S3Response<dto::PutBucketOwnershipControlsOutput>> {
    on_bucket(request, "s3:PutBucketOwnershipControls", of_bucket!(), |_, _, input| {
        let enforced = dto::ObjectOwnership::BUCKET_OWNER_ENFORCED;
        if input
            .ownership_controls
            .rules
            .iter()
            .any(|rule| rule.object_ownership.as_str() != enforced)
        {
            return Err(super::convert::not_implemented());
        }
        Ok(dto::PutBucketOwnershipControlsOutput {})
    })
    .await
}
