//! Server-side encryption: what a request asks for, what a bucket does by default, and the data keys of objects.
//!
//! SSE-KMS asks the key store in the caller's name, for every object anew; a bucket key changes the encryption context, not
//! how often is asked. SSE-S3 is the engine's own business. Keys of the caller (SSE-C) and the double layer
//! (`aws:kms:dsse`) are refused.

use super::convert::not_implemented;
use super::fault::{self, custom_text};
use super::gate::Call;
use crate::kms::through::{KeyFault, NewDataKey, Use};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode};
use isolarium_model::Principal;
use isolarium_model::s3::{
    Bucket, BucketEncryption, DefaultEncryption, Encryption, Object, ObjectKey, Upload, Wrapping,
};
use isolarium_store::objects::{DataKey, Sealing};
use s3s::dto;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use std::collections::BTreeMap;

const ALGORITHM: &str = "x-amz-server-side-encryption";
const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CONTEXT: &str = "x-amz-server-side-encryption-context";
const BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";
/// What S3 itself puts into every encryption context.
const OWN_CONTEXT: &str = "aws:s3:arn";

/// What a write asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// What the bucket does.
    Default,
    Managed,
    Kms {
        /// By id, ARN or alias; `None` is the account's `aws/s3`.
        key: Option<String>,
        context: BTreeMap<String, String>,
        /// `None`: as the bucket does.
        bucket_key: Option<bool>,
    },
}

impl Wish {
    /// SSE-KMS with a key, as the platform asks for it; without one what the bucket does.
    pub(super) fn of_key(key: Option<&str>) -> Self {
        match key {
            None => Self::Default,
            Some(key) => Self::Kms {
                key: Some(key.into()),
                context: BTreeMap::new(),
                bucket_key: None,
            },
        }
    }

    /// What the headers of a write say.
    ///
    /// # Errors
    /// S3's refusal of headers that do not go together.
    pub(super) fn of(headers: &HeaderMap) -> S3Result<Self> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let of_kms = text(KEY_ID).is_some() || text(CONTEXT).is_some();
        match text(ALGORITHM) {
            Some(dto::ServerSideEncryption::AWS_KMS) => Ok(Self::Kms {
                key: text(KEY_ID).filter(|key| !key.is_empty()).map(str::to_owned),
                context: text(CONTEXT).map(context_of).transpose()?.unwrap_or_default(),
                bucket_key: text(BUCKET_KEY).map(|text| text.eq_ignore_ascii_case("true")),
            }),
            Some(dto::ServerSideEncryption::AWS_KMS_DSSE) => Err(not_implemented()),
            Some(dto::ServerSideEncryption::AES256) | None if of_kms => Err(s3_error!(
                InvalidArgument,
                "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms"
            )),
            Some(dto::ServerSideEncryption::AES256) => Ok(Self::Managed),
            Some(_) => Err(s3_error!(
                InvalidArgument,
                "The encryption method specified is not supported"
            )),
            None => Ok(Self::Default),
        }
    }
}

/// The headers of a write that asks for a key.
pub(super) fn headers(kms_key: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(Ok(key)) = kms_key.map(HeaderValue::from_str) {
        let algorithm = HeaderValue::from_static(dto::ServerSideEncryption::AWS_KMS);
        headers.insert(ALGORITHM, algorithm);
        headers.insert(KEY_ID, key);
    }
    headers
}

/// The encryption context of a header: base64 of JSON.
fn context_of(text: &str) -> S3Result<BTreeMap<String, String>> {
    let read = || {
        let bytes = STANDARD.decode(text).ok()?;
        serde_json::from_slice::<BTreeMap<String, String>>(&bytes).ok()
    };
    read().filter(|context| !context.contains_key(OWN_CONTEXT)).ok_or_else(|| {
        s3_error!(
            InvalidArgument,
            "The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 string holding JSON which \
             represents a string-string map"
        )
    })
}

/// The whole encryption context: what the writer gave, and whose bytes the key opens.
fn whole_context(bucket: &Bucket, key: &ObjectKey, wrapping: &Wrapping) -> BTreeMap<String, String> {
    let (mut context, of_bucket) = match wrapping {
        Wrapping::Managed => (BTreeMap::new(), false),
        Wrapping::Kms {
            context, bucket_key, ..
        } => (context.clone(), *bucket_key),
    };
    let arn = if of_bucket {
        format!("arn:aws:s3:::{}", bucket.name)
    } else {
        format!("arn:aws:s3:::{}/{key}", bucket.name)
    };
    context.insert(OWN_CONTEXT.into(), arn);
    context
}

fn told(fault: KeyFault) -> S3Error {
    match fault {
        KeyFault::Denied(text) => S3Error::with_message(S3ErrorCode::AccessDenied, text),
        KeyFault::Refused(error) => {
            let code = match error.code.as_str() {
                // An ARN that cannot be one names no key.
                "InvalidArnException" => "NotFoundException",
                code => code,
            };
            custom_text(&format!("KMS.{code}"), StatusCode::BAD_REQUEST, error.message)
        }
        KeyFault::Engine(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the key store failed");
            s3_error!(InternalError, "We encountered an internal error. Please try again.")
        }
    }
}

impl Call {
    /// How the bytes of a new object are to be encrypted; asks the key store in the caller's name. `None` leaves them plain.
    ///
    /// # Errors
    /// `AccessDenied` in IAM's words without `kms:GenerateDataKey`; `KMS.…` when the key cannot be used.
    pub(super) fn sealing(&self, bucket: &Bucket, key: &ObjectKey, wish: &Wish) -> S3Result<Option<Sealing>> {
        let default = bucket.encryption.as_ref();
        let by_bucket = default.is_some_and(|default| default.bucket_key);
        let (given, context, bucket_key) = match (wish, default.map(|default| &default.default)) {
            (Wish::Default, None) => return Ok(None),
            (Wish::Managed, _) | (Wish::Default, Some(DefaultEncryption::Managed)) => {
                let context = whole_context(bucket, key, &Wrapping::Managed);
                let made = self
                    .key_store()
                    .generate_managed(&bucket.region, &context)
                    .map_err(told)?;
                return Ok(Some(sealing(made, Wrapping::Managed)));
            }
            (Wish::Default, Some(DefaultEncryption::Kms { key })) => (key, BTreeMap::new(), by_bucket),
            (
                Wish::Kms {
                    key,
                    context,
                    bucket_key,
                },
                _,
            ) => (key, context.clone(), bucket_key.unwrap_or(by_bucket)),
        };
        self.signed_well()?;
        let with_arn = |key_arn| Wrapping::Kms {
            key_arn,
            context: context.clone(),
            bucket_key,
        };
        // The context does not tell the key.
        let unknown = with_arn(isolarium_model::Arn::s3(bucket.name.as_str()));
        let of = Use {
            caller: &self.caller,
            region: &bucket.region,
            context: &whole_context(bucket, key, &unknown),
        };
        let made = self.key_store().generate(&of, given.as_deref()).map_err(told)?;
        let wrapping = with_arn(made.key_arn.clone());
        Ok(Some(sealing(made, wrapping)))
    }

    /// The data key of something encrypted; asks the key store in the caller's name.
    ///
    /// # Errors
    /// `AccessDenied` in IAM's words without `kms:Decrypt`; `KMS.…` when the key cannot be used.
    pub(super) fn data_key(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        encryption: Option<&Encryption>,
    ) -> S3Result<Option<DataKey>> {
        let Some(encryption) = encryption else { return Ok(None) };
        let context = whole_context(bucket, key, &encryption.wrapping);
        let (region, sealed) = (&bucket.region, encryption.data_key.as_str());
        let plain = match &encryption.wrapping {
            Wrapping::Managed => self.key_store().open_managed(region, &context, sealed),
            Wrapping::Kms { key_arn, .. } => {
                self.signed_well()?;
                let of = Use {
                    caller: &self.caller,
                    region,
                    context: &context,
                };
                self.key_store().open(&of, key_arn, sealed)
            }
        };
        Ok(Some(DataKey::new(plain.map_err(told)?)))
    }

    /// How the parts of an upload are encrypted.
    ///
    /// # Errors
    /// As [`Self::data_key`].
    pub(super) fn upload_sealing(&self, bucket: &Bucket, upload: &Upload) -> S3Result<Option<Sealing>> {
        let key = self.data_key(bucket, &upload.key, upload.encryption.as_ref())?;
        Ok(key
            .zip(upload.encryption.clone())
            .map(|(key, encryption)| Sealing { key, encryption }))
    }

    /// Keys are used for callers alone whose signature says who they are.
    fn signed_well(&self) -> S3Result<()> {
        let old = self.signed_by("AWS");
        if self.caller.principal == Principal::Anonymous || old {
            return Err(s3_error!(
                InvalidArgument,
                "Requests specifying Server Side Encryption with AWS KMS managed keys require AWS Signature Version 4."
            ));
        }
        Ok(())
    }
}

fn sealing(made: NewDataKey, wrapping: Wrapping) -> Sealing {
    Sealing {
        key: DataKey::new(made.plain),
        encryption: Encryption {
            wrapping,
            data_key: made.sealed,
            segments: Vec::new(),
        },
    }
}

/// What answers say of an object's encryption.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) algorithm: Option<dto::ServerSideEncryption>,
    pub(super) key: Option<String>,
    pub(super) bucket_key: Option<bool>,
    /// The writer's own context, which only answers to writes repeat.
    pub(super) context: Option<String>,
}

/// What answers say of this encryption.
pub(super) fn shown(encryption: Option<&Encryption>) -> Shown {
    match encryption.map(|encryption| &encryption.wrapping) {
        None => Shown::default(),
        Some(Wrapping::Managed) => Shown {
            algorithm: Some(dto::ServerSideEncryption::from_static(
                dto::ServerSideEncryption::AES256,
            )),
            ..Shown::default()
        },
        Some(Wrapping::Kms {
            key_arn,
            context,
            bucket_key,
        }) => {
            let context = (!context.is_empty()).then(|| serde_json::to_vec(context).unwrap_or_default());
            Shown {
                algorithm: Some(dto::ServerSideEncryption::from_static(
                    dto::ServerSideEncryption::AWS_KMS,
                )),
                key: Some(key_arn.to_string()),
                bucket_key: bucket_key.then_some(true),
                context: context.map(|text| STANDARD.encode(text)),
            }
        }
    }
}

/// Fills the members that all answers about an encrypted object have.
macro_rules! show_encryption {
    ($out:expr, $encryption:expr) => {{
        let shown = super::encryption::shown($encryption);
        $out.server_side_encryption = shown.algorithm;
        $out.ssekms_key_id = shown.key;
        $out.bucket_key_enabled = shown.bucket_key;
        shown.context
    }};
}
pub(super) use show_encryption;

/// A bucket's default as the caller puts it.
///
/// # Errors
/// S3's refusal of a configuration that is none.
pub(super) fn configured(given: &dto::ServerSideEncryptionConfiguration) -> S3Result<BucketEncryption> {
    let malformed = || {
        s3_error!(
            MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema"
        )
    };
    let [rule] = given.rules.as_slice() else {
        return Err(malformed());
    };
    let by_default = rule
        .apply_server_side_encryption_by_default
        .as_ref()
        .ok_or_else(malformed)?;
    let key = by_default.kms_master_key_id.clone().filter(|key| !key.is_empty());
    let default = match by_default.sse_algorithm.as_str() {
        dto::ServerSideEncryption::AWS_KMS => DefaultEncryption::Kms { key },
        dto::ServerSideEncryption::AES256 if key.is_some() => {
            return Err(s3_error!(
                InvalidArgument,
                "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse"
            ));
        }
        dto::ServerSideEncryption::AES256 => DefaultEncryption::Managed,
        dto::ServerSideEncryption::AWS_KMS_DSSE => return Err(not_implemented()),
        _ => return Err(malformed()),
    };
    Ok(BucketEncryption {
        default,
        bucket_key: rule.bucket_key_enabled == Some(true),
    })
}

/// The configuration as callers read it.
pub(super) fn configuration(of: &BucketEncryption) -> dto::ServerSideEncryptionConfiguration {
    let (algorithm, key) = match &of.default {
        DefaultEncryption::Managed => (dto::ServerSideEncryption::AES256, None),
        DefaultEncryption::Kms { key } => (dto::ServerSideEncryption::AWS_KMS, key.clone()),
    };
    dto::ServerSideEncryptionConfiguration {
        rules: vec![dto::ServerSideEncryptionRule {
            apply_server_side_encryption_by_default: Some(dto::ServerSideEncryptionByDefault {
                kms_master_key_id: key,
                sse_algorithm: dto::ServerSideEncryption::from_static(algorithm),
            }),
            bucket_key_enabled: Some(of.bucket_key),
        }],
    }
}

/// Whether a checksum tells of bytes that only a key opens: S3 asks for the key then.
pub(super) fn checksum_asks(object: &Object) -> bool {
    object.encryption.is_some() && !object.checksums.is_empty()
}

/// The object store's refusal of an encrypted object without its key cannot be reached through this module.
pub(super) fn unopened() -> S3Error {
    fault::of(isolarium_store::ObjectError::Encrypted)
}
