//! Why a request is not believed, and how each protocol says it (IAM-47).

use crate::{ApiError, Document};

/// How a service words its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// awsJson and CBOR services.
    Json,
    /// REST with JSON bodies: as JSON, with HTTP 403.
    RestJson,
    /// Query services: IAM, STS, CloudFormation.
    Query,
    Ec2,
    S3,
}

/// Why a signature or credential is refused. The text is for the caller and names no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFault {
    #[error("Request is missing Authentication Token")]
    Missing,
    /// The signature's parts cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// The same of a presigned URL, for which S3 has a code of its own.
    #[error("{0}")]
    MalformedQuery(String),
    /// S3 requires the header.
    #[error("Missing required header for this request: x-amz-content-sha256")]
    NoContentSha256,
    /// No such access key, or it is inactive.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// A session token that this engine did not make, or that belongs to another key.
    #[error("The security token included in the request is invalid.")]
    BadToken,
    #[error("The security token included in the request is expired")]
    ExpiredToken,
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    BadSignature,
    /// `host` or an `x-amz-` header is not covered by the signature.
    #[error("There were headers present in the request which were not signed: {0}")]
    UnsignedHeader(String),
    /// The signer's clock is off by more than the allowed skew.
    #[error("The difference between the request time ({signed_at}) and the current time is too large.")]
    Skewed { signed_at: String },
    /// A presigned URL after its end.
    #[error("Request has expired")]
    UrlExpired,
    /// The body is not the one that was signed.
    #[error("The provided 'x-amz-content-sha256' header does not match what was computed.")]
    PayloadMismatch,
    #[error("Credential should be scoped to a valid region; the region '{found}' is wrong; expecting '{expected}'")]
    WrongRegion { found: String, expected: String },
    #[error("Credential should be scoped to correct service: '{expected}', not '{found}'.")]
    WrongService { found: String, expected: String },
}

impl AuthFault {
    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self::Malformed(text.into())
    }

    /// The error that a client of `dialect` expects: code, text and HTTP status (IAM-47).
    pub fn api_error(&self, dialect: Dialect) -> ApiError {
        let (code, status) = match dialect {
            Dialect::Json => (self.json_code(), 400),
            Dialect::RestJson => (self.json_code(), 403),
            Dialect::Query => self.query_code(),
            Dialect::Ec2 => self.ec2_code(),
            Dialect::S3 => self.s3_code(),
        };
        let text = match (self, dialect) {
            (Self::UnknownKey, Dialect::S3) => {
                "The AWS Access Key Id you provided does not exist in our records.".into()
            }
            (Self::BadToken, Dialect::S3) => "The provided token is malformed or otherwise invalid.".into(),
            (Self::ExpiredToken, Dialect::S3) => "The provided token has expired.".into(),
            _ => self.to_string(),
        };
        let error = ApiError::client(code, text).with_status(status);
        match (self, dialect) {
            (Self::WrongRegion { expected, .. }, Dialect::S3) => {
                error.with_member("Region", Document::String(expected.clone()))
            }
            _ => error,
        }
    }

    fn json_code(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Malformed(_) | Self::MalformedQuery(_) | Self::NoContentSha256 => "IncompleteSignatureException",
            Self::UnknownKey | Self::BadToken => "UnrecognizedClientException",
            Self::ExpiredToken => "ExpiredTokenException",
            Self::BadSignature
            | Self::UnsignedHeader(_)
            | Self::Skewed { .. }
            | Self::UrlExpired
            | Self::PayloadMismatch
            | Self::WrongRegion { .. }
            | Self::WrongService { .. } => "InvalidSignatureException",
        }
    }

    fn query_code(&self) -> (&'static str, u16) {
        match self {
            Self::Missing => ("MissingAuthenticationToken", 403),
            Self::Malformed(_) | Self::MalformedQuery(_) | Self::NoContentSha256 => ("IncompleteSignature", 400),
            Self::UnknownKey | Self::BadToken => ("InvalidClientTokenId", 403),
            Self::ExpiredToken => ("ExpiredToken", 403),
            Self::BadSignature
            | Self::UnsignedHeader(_)
            | Self::Skewed { .. }
            | Self::UrlExpired
            | Self::PayloadMismatch
            | Self::WrongRegion { .. }
            | Self::WrongService { .. } => ("SignatureDoesNotMatch", 403),
        }
    }

    fn ec2_code(&self) -> (&'static str, u16) {
        match self {
            Self::ExpiredToken | Self::Skewed { .. } | Self::UrlExpired => ("RequestExpired", 400),
            Self::Missing
            | Self::Malformed(_)
            | Self::MalformedQuery(_)
            | Self::NoContentSha256
            | Self::UnknownKey
            | Self::BadToken
            | Self::BadSignature
            | Self::UnsignedHeader(_)
            | Self::PayloadMismatch
            | Self::WrongRegion { .. }
            | Self::WrongService { .. } => ("AuthFailure", 401),
        }
    }

    fn s3_code(&self) -> (&'static str, u16) {
        match self {
            Self::Missing | Self::UrlExpired | Self::UnsignedHeader(_) => ("AccessDenied", 403),
            Self::Malformed(_) | Self::WrongRegion { .. } | Self::WrongService { .. } => {
                ("AuthorizationHeaderMalformed", 400)
            }
            Self::MalformedQuery(_) => ("AuthorizationQueryParametersError", 400),
            Self::NoContentSha256 => ("InvalidRequest", 400),
            Self::UnknownKey => ("InvalidAccessKeyId", 403),
            Self::BadToken => ("InvalidToken", 400),
            Self::ExpiredToken => ("ExpiredToken", 400),
            Self::BadSignature => ("SignatureDoesNotMatch", 403),
            Self::Skewed { .. } => ("RequestTimeTooSkewed", 403),
            Self::PayloadMismatch => ("XAmzContentSHA256Mismatch", 400),
        }
    }
}
