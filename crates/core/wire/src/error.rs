//! The error every operation answers with.

use crate::Document;
use indexmap::IndexMap;
use std::error::Error;

/// An AWS error: what the caller reads, and beside it what only the log reads (style rule 9).
#[derive(Debug)]
pub struct ApiError {
    /// AWS's error code, such as `ValidationException`.
    pub code: String,
    /// The text the caller reads.
    pub message: String,
    /// HTTP status to use where the protocol leaves a choice; the encoder maps it per protocol.
    pub status: u16,
    /// Further members of a modelled error shape, such as `OriginalStatusCode` of ModelError.
    pub members: Box<IndexMap<String, Document>>,
    /// The cause, for the log only.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl ApiError {
    /// The caller's fault: HTTP 400.
    pub fn client(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            status: 400,
            members: Box::default(),
            source: None,
        }
    }

    /// `ValidationException`, the code most of SageMaker's refusals carry (SM-59).
    pub fn validation(message: impl Into<String>) -> Self {
        Self::client("ValidationException", message)
    }

    /// A known operation without a handler: HTTP 400, so that no client retries.
    pub fn unsupported(service: &str, operation: &str) -> Self {
        let text = format!(
            "The operation {operation} of {service} is known but not served. docs/compatibility.md lists what is served."
        );
        Self::client("UnsupportedOperation", text)
    }

    /// A name that the service does not have.
    pub fn unknown_operation(name: &str) -> Self {
        let text = match name {
            "" => "The request names no operation.".to_owned(),
            name => format!("There is no operation {name}."),
        };
        Self::client("UnknownOperationException", text)
    }

    /// A body of more than `limit` bytes: HTTP 413.
    pub fn too_large(limit: usize) -> Self {
        let text = format!("The request body is larger than the limit of {limit} bytes.");
        Self::client("RequestEntityTooLargeException", text).with_status(413)
    }

    /// The engine's fault: HTTP 500 and no detail for the caller; `cause` goes to the log.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            code: "InternalFailure".into(),
            message: "The request processing has failed because of an unknown error, exception or failure.".into(),
            status: 500,
            members: Box::default(),
            source: Some(cause.into()),
        }
    }

    /// The same error with another HTTP status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same error with one more modelled member.
    pub fn with_member(mut self, name: &str, value: Document) -> Self {
        self.members.insert(name.into(), value);
        self
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|cause| cause.as_ref() as &(dyn Error + 'static))
    }
}
