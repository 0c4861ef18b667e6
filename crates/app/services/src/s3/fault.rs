//! The store's failures as S3's error codes and texts (IAM-48).

use http::StatusCode;
use isolarium_store::{ObjectError, StoreError};
use s3s::{S3Error, S3ErrorCode, s3_error};

/// An error with a code that the protocol layer does not know.
pub(super) fn custom(code: &'static str, status: StatusCode, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

/// The same with a code and a text that are made.
pub(super) fn custom_text(code: &str, status: StatusCode, message: String) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

/// What the caller reads for a failure of the store.
pub(super) fn of(error: ObjectError) -> S3Error {
    match error {
        ObjectError::NoSuchBucket => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
        ObjectError::BucketExists { .. } => s3_error!(
            BucketAlreadyExists,
            "The requested bucket name is not available. The bucket namespace is shared by all users of the system. \
             Please select a different name and try again."
        ),
        ObjectError::BucketNotEmpty => {
            s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty")
        }
        ObjectError::NoSuchKey => s3_error!(NoSuchKey, "The specified key does not exist."),
        ObjectError::IsDeleted { version } => {
            with_marker(s3_error!(NoSuchKey, "The specified key does not exist."), &version)
        }
        ObjectError::IsDeleteMarker { version } => with_marker(
            s3_error!(
                MethodNotAllowed,
                "The specified method is not allowed against this resource."
            ),
            &version,
        ),
        ObjectError::NoSuchVersion => s3_error!(NoSuchVersion, "The specified version does not exist."),
        ObjectError::NoSuchUpload => s3_error!(
            NoSuchUpload,
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or \
             completed."
        ),
        ObjectError::InvalidPart { .. } => s3_error!(
            InvalidPart,
            "One or more of the specified parts could not be found.  The part may not have been uploaded, or the \
             specified entity tag may not match the part's entity tag."
        ),
        ObjectError::InvalidPartOrder => {
            s3_error!(
                InvalidPartOrder,
                "The list of parts was not in ascending order. Parts must be ordered by part number."
            )
        }
        ObjectError::PartTooSmall { .. } => {
            s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size"
            )
        }
        ObjectError::ChecksumMismatch => {
            s3_error!(BadDigest, "The checksum you specified did not match what we received.")
        }
        ObjectError::PreconditionFailed => {
            s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            )
        }
        ObjectError::Busy => s3_error!(
            OperationAborted,
            "A conflicting conditional operation is currently in progress against this resource. Please try again."
        ),
        error @ (ObjectError::DiskFull | ObjectError::Store(StoreError::DiskFull)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the object store is full");
            s3_error!(
                InternalError,
                "The disk of the object store is full. Nothing was stored."
            )
        }
        error @ (ObjectError::BadStagingPath
        | ObjectError::Encrypted
        | ObjectError::Store(_)
        | ObjectError::Io { .. }) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the object store failed");
            s3_error!(InternalError, "We encountered an internal error. Please try again.")
        }
    }
}

fn with_marker(mut error: S3Error, version: &str) -> S3Error {
    let mut headers = http::HeaderMap::new();
    headers.insert("x-amz-delete-marker", http::HeaderValue::from_static("true"));
    if let Ok(version) = http::HeaderValue::from_str(version) {
        headers.insert("x-amz-version-id", version);
    }
    error.set_headers(headers);
    error
}
