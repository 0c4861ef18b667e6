//! The platform's own transfers (NI-12, NI-14): the same questions, the same access log, as the execution role's
//! session. Nothing here can reach an object that the role may not.

use super::encryption::{self, Wish};
use super::event;
use super::fault;
use super::front::S3Front;
use super::gate::{Allowed, Ask, Call, SignatureKeys, Write};
use super::log::{AccessRecord, Trace};
use crate::Caller;
use crate::audit;
use crate::kms::through::{KeyFault, NewDataKey, Use};
use http::HeaderMap;
use isolarium_model::s3::{BucketName, Object, ObjectHeaders, ObjectKey};
use isolarium_model::{Arn, Scope};
use isolarium_store::objects::{Attributes, Listing, ListingQuery, Put, Target, WriteCondition};
use isolarium_store::{Keep, ObjectError};
use s3s::S3Error;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Why a transfer failed: S3's code and text, as a client of the role would read them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct TransferError {
    /// S3's error code, such as `AccessDenied` or `NoSuchKey`.
    pub code: String,
    pub message: String,
}

impl From<S3Error> for TransferError {
    fn from(error: S3Error) -> Self {
        Self {
            code: error.code().as_str().into(),
            message: error.message().unwrap_or_default().into(),
        }
    }
}

/// How the platform's own requests count as signed: as those of any client of the role that signs its headers.
fn own_signature() -> SignatureKeys {
    vec![
        ("s3:authType", "REST-HEADER".into()),
        ("s3:signatureversion", "AWS4-HMAC-SHA256".into()),
        ("s3:signatureAge", "0".into()),
        ("s3:TlsVersion", "1.3".into()),
    ]
}

/// All calls block; run them off the async threads. `caller` is the role session that acts.
impl S3Front {
    fn transfer<T>(
        &self,
        caller: &Caller,
        operation: &'static str,
        bucket: &BucketName,
        key: Option<&str>,
        asks: &[Ask],
        act: impl FnOnce(&Allowed, &Call) -> Result<T, S3Error>,
    ) -> Result<T, TransferError> {
        let call = Call::new(&self.gate, caller.clone(), Trace::default()).signed(own_signature());
        let changes = audit::keep(operation) == Keep::Change;
        let ready = self
            .audit
            .ready()
            .or_else(|down| if changes { Err(event::down(&down)) } else { Ok(()) });
        let outcome = ready.and_then(|()| call.allow(asks, None)).and_then(|allowed| {
            allowed.bucket()?;
            act(&allowed, &call)
        });
        let told = self.tell_transfer(caller, operation, bucket, key, outcome.as_ref().err(), call.now);
        let outcome = outcome.and_then(|done| match told {
            Err(down) if changes => Err(event::down(&down)),
            _ => Ok(done),
        });
        let record = AccessRecord {
            operation: Some(operation.into()),
            bucket: Some(bucket.to_string()),
            key: key.map(str::to_owned),
            status: match &outcome {
                Ok(_) => 200,
                Err(error) => error.status_code().map_or(500, |status| status.as_u16()),
            },
            error: outcome.as_ref().err().map(|error| error.code().as_str().to_owned()),
            platform: true,
            ..AccessRecord::begin(caller, call.now)
        };
        self.access_log.record(&record);
        outcome.map_err(Into::into)
    }

    /// Whether there is a bucket of that name, whoever's it is. Names of buckets are no secret: anyone learns as much from
    /// an unsigned HEAD.
    ///
    /// # Errors
    /// S3's error when the index cannot be read.
    pub fn platform_has_bucket(&self, bucket: &BucketName) -> Result<bool, TransferError> {
        self.gate.has_bucket(bucket).map_err(|error| fault::of(error).into())
    }

    /// Whether a key of the key store could be used now; see [`crate::kms::through::KeyStore::check`].
    ///
    /// # Errors
    /// The key store's.
    pub fn platform_check_key(&self, scope: &Scope, key: &str) -> Result<(), KeyFault> {
        self.gate.key_store().check(scope, key)
    }

    /// The data key of a storage volume; see [`crate::kms::through::KeyStore::generate_for_volume`].
    ///
    /// # Errors
    /// The key store's.
    pub fn platform_volume_key(&self, of: &Use<'_>, key: &str) -> Result<NewDataKey, KeyFault> {
        self.gate.key_store().generate_for_volume(of, key)
    }

    /// Opens it again; see [`crate::kms::through::KeyStore::open_for_volume`].
    ///
    /// # Errors
    /// The key store's.
    pub fn platform_open_volume_key(&self, of: &Use<'_>, key: &Arn, sealed: &str) -> Result<[u8; 32], KeyFault> {
        self.gate.key_store().open_for_volume(of, key, sealed)
    }

    /// A page of objects; needs `s3:ListBucket` with `s3:prefix`.
    ///
    /// # Errors
    /// S3's error.
    pub fn platform_list(
        &self,
        caller: &Caller,
        bucket: &BucketName,
        query: &ListingQuery,
    ) -> Result<Listing, TransferError> {
        let ask = Ask::bucket("s3:ListBucket", bucket).with("s3:prefix", Some(query.prefix.as_str()));
        self.transfer(caller, "ListObjectsV2", bucket, None, &[ask], |allowed, _| {
            allowed.store.list(bucket, query).map_err(fault::of)
        })
    }

    /// An object's plain bytes as a file; needs `s3:GetObject`, and `kms:Decrypt` for one that lies encrypted under a key.
    /// Such a one is decrypted to a file without a name, in the directory `copies` or else among the objects.
    ///
    /// # Errors
    /// S3's error.
    pub fn platform_open(
        &self,
        caller: &Caller,
        bucket: &BucketName,
        key: &ObjectKey,
        copies: Option<BorrowedFd<'_>>,
    ) -> Result<(File, Object), TransferError> {
        let ask = Ask::existing("s3:GetObject", bucket, key, None);
        self.transfer(
            caller,
            "GetObject",
            bucket,
            Some(key.as_str()),
            &[ask],
            |allowed, call| {
                let reading = allowed.store.open_object(bucket, key, None);
                let reading = reading.map_err(|error| call.missing(error, bucket))?;
                let object = reading.object.clone();
                let opening = call.data_key(allowed.bucket()?, key, object.encryption.as_ref())?;
                let file = reading
                    .into_file(opening.as_ref(), &allowed.store, copies)
                    .map_err(fault::of)?;
                Ok((file, object))
            },
        )
    }

    /// Whether an object could be opened now, without reading it; asks as [`Self::platform_open`] does.
    ///
    /// # Errors
    /// S3's error.
    pub fn platform_check(&self, caller: &Caller, bucket: &BucketName, key: &ObjectKey) -> Result<(), TransferError> {
        let ask = Ask::existing("s3:GetObject", bucket, key, None);
        let name = Some(key.as_str());
        self.transfer(caller, "GetObject", bucket, name, &[ask], |allowed, call| {
            let found = allowed.store.head(bucket, key, None);
            let found = found.map_err(|error| call.missing(error, bucket))?;
            call.data_key(allowed.bucket()?, key, found.encryption.as_ref())
                .map(|_| ())
        })
    }

    /// Stages an object without copying it: one more name for its file, `relative` below `directory`; needs
    /// `s3:GetObject`. What lies encrypted is decrypted to a file of its own; under a key that needs `kms:Decrypt`.
    ///
    /// # Errors
    /// S3's error; `InternalError` when the name exists or leads out of the directory.
    pub fn platform_link_into(
        &self,
        caller: &Caller,
        bucket: &BucketName,
        key: &ObjectKey,
        directory: &Path,
        relative: &str,
    ) -> Result<Object, TransferError> {
        let ask = Ask::existing("s3:GetObject", bucket, key, None);
        self.transfer(
            caller,
            "GetObject",
            bucket,
            Some(key.as_str()),
            &[ask],
            |allowed, call| {
                match allowed.store.link_into(bucket, key, None, directory, relative) {
                    Err(ObjectError::Encrypted) => {}
                    other => return other.map_err(|error| call.missing(error, bucket)),
                }
                let reading = allowed.store.open_object(bucket, key, None);
                let reading = reading.map_err(|error| call.missing(error, bucket))?;
                let opening = call.data_key(allowed.bucket()?, key, reading.object.encryption.as_ref())?;
                // It was replaced by a plain one since: the next try links that.
                let opening = opening.ok_or_else(|| fault::of(ObjectError::Busy))?;
                allowed
                    .store
                    .copy_into(reading, Some(&opening), directory, relative)
                    .map_err(fault::of)
            },
        )
    }

    /// As [`Self::platform_link_into`], but what lies encrypted is left alone: `false`.
    ///
    /// # Errors
    /// S3's error; `InternalError` when the name exists or leads out of the directory.
    pub fn platform_link(
        &self,
        caller: &Caller,
        bucket: &BucketName,
        key: &ObjectKey,
        directory: &Path,
        relative: &str,
    ) -> Result<bool, TransferError> {
        let ask = Ask::existing("s3:GetObject", bucket, key, None);
        let name = Some(key.as_str());
        self.transfer(caller, "GetObject", bucket, name, &[ask], |allowed, call| match allowed
            .store
            .link_into(bucket, key, None, directory, relative)
        {
            Err(ObjectError::Encrypted) => Ok(false),
            Err(error) => Err(call.missing(error, bucket)),
            Ok(_) => Ok(true),
        })
    }

    /// Copies an object's plain bytes to a file of its own, `relative` below `directory`, on whatever file system that is;
    /// needs `s3:GetObject`, and `kms:Decrypt` for one that lies encrypted under a key.
    ///
    /// # Errors
    /// As [`Self::platform_link_into`].
    pub fn platform_copy_into(
        &self,
        caller: &Caller,
        bucket: &BucketName,
        key: &ObjectKey,
        directory: &Path,
        relative: &str,
    ) -> Result<Object, TransferError> {
        let ask = Ask::existing("s3:GetObject", bucket, key, None);
        let name = Some(key.as_str());
        self.transfer(caller, "GetObject", bucket, name, &[ask], |allowed, call| {
            let reading = allowed.store.open_object(bucket, key, None);
            let reading = reading.map_err(|error| call.missing(error, bucket))?;
            let opening = call.data_key(allowed.bucket()?, key, reading.object.encryption.as_ref())?;
            allowed
                .store
                .copy_into(reading, opening.as_ref(), directory, relative)
                .map_err(fault::of)
        })
    }

    /// Deletes an object, as the bucket's versioning has it; needs `s3:DeleteObject`. One that is gone is no error.
    ///
    /// # Errors
    /// S3's error.
    pub fn platform_delete(&self, caller: &Caller, bucket: &BucketName, key: &ObjectKey) -> Result<(), TransferError> {
        let ask = Ask::object("s3:DeleteObject", bucket, key.as_str());
        let name = Some(key.as_str());
        self.transfer(caller, "DeleteObject", bucket, name, &[ask], |allowed, call| {
            let target = Target {
                key: key.clone(),
                version: None,
                etag: None,
            };
            let owner = &allowed.bucket()?.owner;
            let outcomes = allowed
                .store
                .delete(bucket, &[target], owner, call.now)
                .map_err(fault::of)?;
            outcomes
                .into_iter()
                .try_for_each(|outcome| outcome.map(|_| ()))
                .map_err(fault::of)
        })
    }

    /// Stores an object; needs `s3:PutObject`. With `kms_key` it is encrypted under that key (CC-36), which needs
    /// `kms:GenerateDataKey`; without it as the bucket does.
    ///
    /// # Errors
    /// S3's error.
    pub fn platform_put(
        &self,
        caller: &Caller,
        bucket: &BucketName,
        key: &ObjectKey,
        kms_key: Option<&str>,
        source: &mut dyn Read,
    ) -> Result<Object, TransferError> {
        // What a client would send, so that a bucket policy that insists on it is met.
        let headers = encryption::headers(kms_key);
        let ask = Ask::write(bucket, key, &headers, Write::Object);
        self.put_asking(caller, bucket, key, ask, kms_key, source)
    }

    /// Stores an object as a service of AWS, for the resource that `about` tells the bucket's policy of; needs
    /// `s3:PutObject`.
    ///
    /// # Errors
    /// S3's error.
    pub fn service_put(
        &self,
        caller: &Caller,
        bucket: &BucketName,
        key: &ObjectKey,
        about: &[(&str, String)],
        source: &mut dyn Read,
    ) -> Result<Object, TransferError> {
        let ask = Ask::write(bucket, key, &HeaderMap::new(), Write::Object);
        let ask = about
            .iter()
            .fold(ask, |ask, (key, value)| ask.with(key, Some(value.as_str())));
        self.put_asking(caller, bucket, key, ask, None, source)
    }

    fn put_asking(
        &self,
        caller: &Caller,
        bucket: &BucketName,
        key: &ObjectKey,
        ask: Ask,
        kms_key: Option<&str>,
        source: &mut dyn Read,
    ) -> Result<Object, TransferError> {
        self.transfer(
            caller,
            "PutObject",
            bucket,
            Some(key.as_str()),
            &[ask],
            |allowed, call| {
                let algorithms = [isolarium_model::s3::ChecksumAlgorithm::Crc64Nvme];
                let sealing = call.sealing(allowed.bucket()?, key, &Wish::of_key(kms_key))?;
                let data = allowed
                    .store
                    .receive_all(source, &algorithms, call.now, sealing.as_ref())
                    .map_err(fault::of)?;
                let attributes = Attributes {
                    headers: ObjectHeaders::default(),
                    tags: Vec::new(),
                    owner: allowed.bucket()?.owner.clone(),
                    now: call.now,
                    condition: WriteCondition::None,
                };
                let put = Put {
                    bucket: bucket.clone(),
                    key: key.clone(),
                    data,
                    etag: None,
                    checksums: None,
                    parts: Vec::new(),
                    attributes,
                };
                allowed.store.put(put).map_err(fault::of)
            },
        )
    }
}
