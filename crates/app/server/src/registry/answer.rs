//! Answers and refusals in the distribution specification's form.

use crate::http::{Body, body};
use http::{HeaderValue, Response, StatusCode, header};
use isolarium_model::Scope;
use isolarium_services::ecr::RegistryError;
use isolarium_store::BlobError;
use serde_json::{Value, json};

pub use crate::http::BodyError;

/// A response before it is put on the wire.
pub(super) struct Answer {
    status: u16,
    headers: Vec<(header::HeaderName, String)>,
    /// Length said in the header, which a HEAD request wants without the body.
    length: u64,
    body: Body,
}

impl Answer {
    pub(super) fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            length: 0,
            body: body::empty(),
        }
    }

    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self::text(status, "application/json", value.to_string())
    }

    pub(super) fn text(status: u16, media_type: &str, text: String) -> Self {
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        Self::stream(status, length, body::full(text)).with(header::CONTENT_TYPE, media_type)
    }

    pub(super) fn stream(status: u16, length: u64, body: Body) -> Self {
        Self {
            status,
            headers: Vec::new(),
            length,
            body,
        }
    }

    pub(super) fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn with_digest(self, digest: &isolarium_model::Sha256Digest) -> Self {
        self.with(
            header::HeaderName::from_static("docker-content-digest"),
            digest.as_str(),
        )
    }

    pub(super) fn into_response(self, head_only: bool) -> Response<Body> {
        let mut response = Response::new(if head_only { body::empty() } else { self.body });
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        for (name, value) in self.headers {
            // Values come from checked names and digests; one that no header can carry is left out.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        if self.status != 204 {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.length));
        }
        headers.insert(
            "docker-distribution-api-version",
            HeaderValue::from_static("registry/2.0"),
        );
        response
    }
}

/// A request that is not served, with the specification's error code.
pub(super) struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
    detail: Option<Box<Value>>,
    headers: Vec<(header::HeaderName, String)>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: None,
            headers: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn unauthorized(endpoint: &str) -> Self {
        let challenge = format!("Basic realm=\"{endpoint}/\",service=\"ecr.amazonaws.com\"");
        Self::new(401, "UNAUTHORIZED", "Not Authorized").with(header::WWW_AUTHENTICATE, challenge)
    }

    pub(super) fn denied(text: &str) -> Self {
        Self::new(403, "DENIED", text)
    }

    pub(super) fn unsupported() -> Self {
        Self::new(405, "UNSUPPORTED", "The operation is unsupported.")
    }

    pub(super) fn unknown_path() -> Self {
        Self::new(404, "UNSUPPORTED", "The path is not one of the registry's.")
    }

    /// A change that could not be told to the audit trail.
    pub(super) fn unrecorded(cause: &isolarium_store::AuditDown) -> Self {
        tracing::error!(error = %cause, "a registry request is refused");
        Self::new(503, "UNAVAILABLE", isolarium_services::audit::UNAVAILABLE)
    }

    /// Code and text.
    pub(super) fn told(&self) -> (&str, &str) {
        (self.code, &self.message)
    }

    pub(super) fn bad_name(name: &str) -> Self {
        Self::new(400, "NAME_INVALID", format!("Invalid repository name '{name}'"))
    }

    pub(super) fn bad_reference(reference: &str) -> Self {
        Self::new(
            400,
            "TAG_INVALID",
            format!("'{reference}' is neither a tag nor a SHA-256 digest"),
        )
    }

    pub(super) fn bad_digest(digest: &str) -> Self {
        Self::new(400, "DIGEST_INVALID", format!("'{digest}' is not a SHA-256 digest"))
    }

    pub(super) fn blob_unknown() -> Self {
        Self::new(404, "BLOB_UNKNOWN", "blob unknown to registry")
    }

    pub(super) fn bad_body(cause: &BodyError) -> Self {
        Self::new(
            400,
            "BLOB_UPLOAD_INVALID",
            format!("The request body broke off: {cause}"),
        )
    }

    /// The engine's own fault: the cause is for the log alone.
    pub(super) fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = cause, "a registry request failed");
        Self::new(500, "UNKNOWN", "The registry failed.")
    }

    pub(super) fn upload(error: BlobError) -> Self {
        match error {
            BlobError::NoUpload => Self::new(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
            BlobError::Gap { at } => Self::new(416, "RANGE_INVALID", format!("The next byte is {at}."))
                .with(header::RANGE, format!("0-{}", at.saturating_sub(1))),
            error @ BlobError::Digest { .. } => Self::new(400, "DIGEST_INVALID", error.to_string()),
            error @ BlobError::TooMany => Self::new(429, "TOOMANYREQUESTS", error.to_string()),
            error @ (BlobError::DiskFull | BlobError::File { .. }) => Self::internal(&error),
        }
    }

    pub(super) fn registry(error: RegistryError, repository: &str, scope: &Scope) -> Self {
        match error {
            RegistryError::NoRepository => Self::new(
                404,
                "NAME_UNKNOWN",
                format!(
                    "The repository with name '{repository}' does not exist in the registry with id '{}'",
                    scope.account
                ),
            ),
            RegistryError::NoImage => Self::new(404, "MANIFEST_UNKNOWN", "Requested image not found"),
            RegistryError::Missing(digests) => Self {
                detail: Some(Box::new(json!(
                    digests
                        .iter()
                        .map(|digest| json!({"digest": digest}))
                        .collect::<Vec<_>>()
                ))),
                ..Self::new(
                    404,
                    "MANIFEST_BLOB_UNKNOWN",
                    "The manifest refers to content that the repository does not have",
                )
            },
            RegistryError::ImmutableTag => Self::new(
                400,
                "TAG_INVALID",
                format!(
                    "The image tag already exists in the '{repository}' repository and cannot be overwritten because \
                     the repository is immutable."
                ),
            ),
            RegistryError::Digest { actual } => {
                Self::new(400, "DIGEST_INVALID", format!("The digest of the manifest is {actual}"))
            }
            RegistryError::Manifest(cause) => Self::new(400, "MANIFEST_INVALID", cause.to_string()),
            RegistryError::Referenced => Self::new(405, "UNSUPPORTED", "The image is part of an index."),
            RegistryError::Blob(cause) => Self::upload(cause),
            error @ (RegistryError::RepositoryExists | RegistryError::NotEmpty | RegistryError::Store(_)) => {
                Self::internal(&error)
            }
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        let mut error = json!({"code": self.code, "message": self.message});
        if let (Some(detail), Some(members)) = (self.detail, error.as_object_mut()) {
            members.insert("detail".into(), *detail);
        }
        let mut answer = Answer::json(self.status, &json!({"errors": [error]}));
        answer.headers.extend(self.headers);
        answer
    }
}
