//! What the audit trail is told of S3: management events of buckets, data events of objects.

use super::front::{S3Front, error_code};
use super::log::Noted;
use crate::Caller;
use crate::audit::{self, Ended};
use http::{Request, Response};
use isolarium_model::Timestamp;
use isolarium_model::s3::BucketName;
use isolarium_store::{AuditDown, AuditEvent, Keep};
use s3s::{Body, S3Error, S3ErrorCode};

const SOURCE: &str = "s3.amazonaws.com";

/// What is kept of a request before it is taken apart.
pub(super) struct Seen {
    pub(super) caller: Caller,
    host: Option<String>,
    bytes_in: Option<String>,
    /// The secret of a presigned URL never leaves the request: only that there was one.
    presigned: bool,
}

impl Seen {
    pub(super) fn of<B>(request: &Request<B>, caller: Caller) -> Self {
        let text = |name: http::HeaderName| {
            let value = request.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let query = request.uri().query().unwrap_or_default();
        Self {
            host: text(http::header::HOST),
            bytes_in: text(http::header::CONTENT_LENGTH),
            presigned: query.contains("X-Amz-Signature=") || query.contains("Signature="),
            caller,
        }
    }
}

/// The refusal of a change that could not be told.
pub(super) fn down(down: &AuditDown) -> S3Error {
    tracing::error!(error = %down, "an S3 request is refused");
    S3Error::with_message(S3ErrorCode::ServiceUnavailable, audit::UNAVAILABLE)
}

/// Operations on objects and their parts, and listings of them: data events in CloudTrail.
fn is_data(operation: &str) -> bool {
    const BUCKETS: [&str; 3] = ["ObjectLockConfiguration", "ListBuckets", "GetBucketLocation"];
    let names = ["Object", "Part", "MultipartUpload", "PostObject", "HeadBucket"];
    !BUCKETS.iter().any(|name| operation.contains(name)) && names.iter().any(|name| operation.contains(name))
}

impl S3Front {
    /// Tells of an answered request; comes back when the answer may leave.
    pub(super) async fn tell(
        &self,
        seen: &Seen,
        noted: &Noted,
        response: &Response<Body>,
        changes: bool,
    ) -> Result<(), AuditDown> {
        let code = error_code(response);
        let message = code.as_ref().and_then(|_| message(response)).unwrap_or_default();
        let ended = Ended {
            error: code.as_deref().map(|code| (code, message.as_str())),
        };
        let name = noted.operation.as_deref().unwrap_or("Unknown");
        let denied = seen.caller.inquiry.is_denied() || response.status() == http::StatusCode::FORBIDDEN;
        let mut event = event(&seen.caller, name, noted, ended, self.gate.now());
        let members = [
            ("bucketName", noted.bucket.as_deref()),
            ("key", noted.key.as_deref()),
            ("Host", seen.host.as_deref()),
        ];
        event.request_parameters = audit::texts(&members);
        let method = if seen.presigned { "QueryString" } else { "AuthHeader" };
        event.additional_event_data = audit::texts(&[
            ("AuthenticationMethod", Some(method)),
            ("bytesTransferredIn", seen.bytes_in.as_deref()),
        ]);
        // An error changed nothing: what it waits for is that a refusal is never lost.
        let keep = match (denied, changes && code.is_none()) {
            (true, _) => Keep::Refusal,
            (_, true) => Keep::Change,
            _ => Keep::Later,
        };
        let told = self.audit.submit(event, keep).await;
        if keep == Keep::Change { told } else { Ok(()) }
    }

    /// Tells of a transfer of the platform's own.
    pub(super) fn tell_transfer(
        &self,
        caller: &Caller,
        operation: &str,
        bucket: &BucketName,
        key: Option<&str>,
        error: Option<&S3Error>,
        now: Timestamp,
    ) -> Result<(), AuditDown> {
        let noted = Noted {
            operation: None,
            bucket: Some(bucket.to_string()),
            key: key.map(str::to_owned),
        };
        let ended = Ended {
            error: error.map(|error| (error.code().as_str(), error.message().unwrap_or_default())),
        };
        let keep = if caller.inquiry.is_denied() {
            Keep::Refusal
        } else {
            audit::keep(operation)
        };
        let mut event = event(caller, operation, &noted, ended, now);
        event.request_parameters = audit::texts(&[("bucketName", Some(bucket.as_str())), ("key", key)]);
        self.audit.submit(event, keep).wait()
    }
}

fn event<'a>(caller: &'a Caller, name: &'a str, noted: &Noted, ended: Ended<'a>, now: Timestamp) -> AuditEvent<'a> {
    let mut event = audit::of_request(caller, SOURCE, name, ended, now);
    if event.resources.is_empty()
        && let Some(bucket) = &noted.bucket
    {
        event.resources.push(audit::resource(&format!("arn:aws:s3:::{bucket}")));
    }
    if is_data(name) { event.as_data() } else { event }
}

/// The text of an error answer.
fn message(response: &Response<Body>) -> Option<String> {
    let body = response.body().bytes()?;
    let text = String::from_utf8_lossy(&body);
    let (_, rest) = text.split_once("<Message>")?;
    let (message, _) = rest.split_once("</Message>")?;
    Some(
        message
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&amp;", "&"),
    )
}

#[cfg(test)]
mod tests {
    use super::is_data;

    #[test]
    fn objects_are_data_and_buckets_are_management() {
        for name in [
            "GetObject",
            "PutObject",
            "DeleteObjects",
            "UploadPart",
            "CompleteMultipartUpload",
            "ListObjectsV2",
        ] {
            assert!(is_data(name), "{name}");
        }
        for name in [
            "CreateBucket",
            "PutBucketPolicy",
            "ListBuckets",
            "DeleteBucket",
            "PutObjectLockConfiguration",
        ] {
            assert!(!is_data(name), "{name}");
        }
    }
}
