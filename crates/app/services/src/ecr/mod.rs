//! The container registry: handlers of the `ecr` service (IAM-67), and what the OCI distribution endpoint and the
//! platform's image pulls share with them.

mod image;
mod layer;
pub mod manifest;
mod policy;
pub mod registry;
mod repository;
pub mod resolve;
pub mod token;

use crate::dispatch::{Handler, handler};
use crate::{Caller, Ctx};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use isolarium_model::ecr::Repository;
use isolarium_policy::Question;
use isolarium_store::BlobError;
use isolarium_wire::ApiError;
use isolarium_wire::shapes::ecr as shapes;

pub use layer::upload_owner;
pub use policy::resource_side;
pub use registry::{Push, Pushed, Registry, RegistryError, Shelf};
pub use resolve::{ResolveError, ResolvedImage, resolve_image};
pub use token::TokenKey;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::BatchCheckLayerAvailabilityRequest>(),
        handler::<shapes::BatchDeleteImageRequest>(),
        handler::<shapes::BatchGetImageRequest>(),
        handler::<shapes::CompleteLayerUploadRequest>(),
        handler::<shapes::CreateRepositoryRequest>(),
        handler::<shapes::DeleteRepositoryPolicyRequest>(),
        handler::<shapes::DeleteRepositoryRequest>(),
        handler::<shapes::DescribeImagesRequest>(),
        handler::<shapes::DescribeRepositoriesRequest>(),
        handler::<shapes::GetAuthorizationTokenRequest>(),
        handler::<shapes::GetDownloadUrlForLayerRequest>(),
        handler::<shapes::GetRepositoryPolicyRequest>(),
        handler::<shapes::InitiateLayerUploadRequest>(),
        handler::<shapes::ListImagesRequest>(),
        handler::<shapes::ListTagsForResourceRequest>(),
        handler::<shapes::PutImageRequest>(),
        handler::<shapes::SetRepositoryPolicyRequest>(),
        handler::<shapes::TagResourceRequest>(),
        handler::<shapes::UntagResourceRequest>(),
        handler::<shapes::UploadLayerPartRequest>(),
    ]
}

/// The caller's own repositories.
fn shelf<'a>(ctx: &'a Ctx<'_>) -> Shelf<'a> {
    Shelf {
        registry: ctx.registry,
        store: ctx.store,
        scope: &ctx.caller.scope,
        now: ctx.clock.now(),
    }
}

/// Asks about a repository of a registry, the caller's own unless named.
fn ask(ctx: &Ctx<'_>, registry_id: Option<&str>, action: &str, repository: &str) -> Vec<Question> {
    let scope = registry_of(ctx, registry_id).scope;
    vec![Question::on(action, &Repository::arn(&scope, repository))]
}

/// The caller, speaking of the registry of another account where the request names one. Whether that account lets it in
/// is asked like everything else: its repositories have policies.
fn registry_of(ctx: &Ctx<'_>, registry_id: Option<&str>) -> Caller {
    let mut caller = ctx.caller.clone();
    if let Some(account) = registry_id.and_then(|id| id.parse().ok()) {
        caller.scope.account = account;
    }
    caller
}

/// The same request, about the registry that `caller` speaks of.
fn within<'a>(ctx: &Ctx<'a>, caller: &'a Caller) -> Ctx<'a> {
    Ctx { caller, ..*ctx }
}

fn no_repository(repository: &str, registry_id: &str) -> ApiError {
    ApiError::client(
        "RepositoryNotFoundException",
        format!("The repository with name '{repository}' does not exist in the registry with id '{registry_id}'"),
    )
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameterException", text)
}

/// The AWS error a caller reads.
fn refuse(ctx: &Ctx<'_>, repository: &str, error: RegistryError) -> ApiError {
    let account = ctx.caller.scope.account.as_str();
    let named = |code: &str, what: &str| {
        let text = format!("The repository with name '{repository}' in registry with id '{account}' {what}");
        ApiError::client(code, text)
    };
    match error {
        RegistryError::NoRepository => no_repository(repository, account),
        RegistryError::RepositoryExists => named("RepositoryAlreadyExistsException", "already exists"),
        RegistryError::NotEmpty => named(
            "RepositoryNotEmptyException",
            "cannot be deleted because it still contains images",
        ),
        RegistryError::NoImage => ApiError::client("ImageNotFoundException", "The image requested does not exist."),
        RegistryError::ImmutableTag => ApiError::client(
            "ImageTagAlreadyExistsException",
            format!(
                "The image tag already exists in the '{repository}' repository and cannot be overwritten because the repository is immutable."
            ),
        ),
        RegistryError::Missing(digests) => ApiError::client(
            "LayersNotFoundException",
            format!(
                "The layers or images {digests:?} do not exist in the repository '{repository}' with registry id '{account}'."
            ),
        ),
        RegistryError::Referenced => {
            ApiError::client("ImageReferencedByManifestList", "The image is part of an index.")
        }
        RegistryError::Digest { actual } => ApiError::client(
            "ImageDigestDoesNotMatchException",
            format!("The digest of the image manifest is '{actual}'."),
        ),
        RegistryError::Manifest(cause) => invalid(format!("Invalid parameter at 'imageManifest': {cause}")),
        RegistryError::Blob(cause) => refuse_upload(cause),
        error @ RegistryError::Store(_) => ApiError::internal(error),
    }
}

fn refuse_upload(error: BlobError) -> ApiError {
    match error {
        BlobError::NoUpload => ApiError::client("UploadNotFoundException", "The upload could not be found."),
        BlobError::Gap { at } => ApiError::client(
            "InvalidLayerPartException",
            format!("The layer part must begin with byte {at}."),
        ),
        BlobError::Digest { actual, .. } => ApiError::client(
            "InvalidLayerException",
            format!("The digest of the layer is '{actual}'."),
        ),
        error @ BlobError::TooMany => ApiError::client("LimitExceededException", error.to_string()),
        error @ (BlobError::DiskFull | BlobError::File { .. }) => ApiError::internal(error),
    }
}

/// One page of rows that are in order of their (unique) names, and the token of the next.
fn page<T>(
    rows: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> String,
    token: Option<&str>,
    size: Option<i64>,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let bad = || {
        invalid("Invalid parameter at 'nextToken' failed to satisfy constraint: 'must be a token of this operation'")
    };
    let after = match token {
        Some(token) => {
            let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
            Some(String::from_utf8(bytes).map_err(|_| bad())?)
        }
        None => None,
    };
    let size = size
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size > 0)
        .unwrap_or(100);
    let mut left = rows
        .into_iter()
        .filter(|row| after.as_ref().is_none_or(|after| name(row) > *after))
        .peekable();
    let taken: Vec<T> = left.by_ref().take(size).collect();
    let next = left
        .peek()
        .and(taken.last())
        .map(|last| URL_SAFE_NO_PAD.encode(name(last)));
    Ok((taken, next))
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
