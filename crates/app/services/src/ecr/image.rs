//! Images: listing, describing, getting, putting, deleting.

use super::{Push, RegistryError, ask, invalid, page, refuse, registry_of, shapes, shelf, within};
use crate::{Ctx, Operation};
use isolarium_model::Sha256Digest;
use isolarium_model::ecr::{Image, ImageVersion, is_tag};
use isolarium_policy::{Granted, Question};
use isolarium_wire::ApiError;
use shapes::ImageFailureCode;

/// What an identifier asks for, or why it cannot be answered. A tag beside a digest must belong to that image.
fn version(id: &shapes::ImageIdentifier) -> Result<(ImageVersion, Option<Sha256Digest>), ImageFailureCode> {
    let digest: Option<Sha256Digest> = match &id.image_digest {
        Some(digest) => Some(digest.parse().map_err(|_| ImageFailureCode::InvalidImageDigest)?),
        None => None,
    };
    match (&id.image_tag, digest) {
        (Some(tag), _) if !is_tag(tag) => Err(ImageFailureCode::InvalidImageTag),
        (Some(tag), digest) => Ok((ImageVersion::Tag(tag.clone()), digest)),
        (None, Some(digest)) => Ok((ImageVersion::Digest(digest), None)),
        (None, None) => Err(ImageFailureCode::MissingDigestAndTag),
    }
}

fn failure(id: &shapes::ImageIdentifier, code: ImageFailureCode) -> shapes::ImageFailure {
    let reason = match code {
        ImageFailureCode::ImageNotFound => "Requested image not found",
        ImageFailureCode::InvalidImageDigest => {
            "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'"
        }
        ImageFailureCode::InvalidImageTag => "Invalid request parameters: the image tag is malformed",
        ImageFailureCode::ImageTagDoesNotMatchDigest => "The tag belongs to another image than the digest",
        ImageFailureCode::MissingDigestAndTag => "Invalid request parameters: both tag and digest cannot be null",
        ImageFailureCode::ImageReferencedByManifestList => "Requested image referenced by manifest list",
        _ => "The image cannot be used",
    };
    shapes::ImageFailure {
        image_id: Some(id.clone()),
        failure_code: Some(code),
        failure_reason: Some(reason.into()),
    }
}

/// Looks an identifier up; the inner error is one image's, the outer the request's.
fn find(
    ctx: &Ctx<'_>,
    repository: &str,
    id: &shapes::ImageIdentifier,
) -> Result<Result<(ImageVersion, Image), ImageFailureCode>, ApiError> {
    let (version, digest) = match version(id) {
        Ok(version) => version,
        Err(code) => return Ok(Err(code)),
    };
    match shelf(ctx).image(repository, &version) {
        Ok(image) if digest.is_some_and(|digest| digest != image.digest) => {
            Ok(Err(ImageFailureCode::ImageTagDoesNotMatchDigest))
        }
        Ok(image) => Ok(Ok((version, image))),
        Err(RegistryError::NoImage) => Ok(Err(ImageFailureCode::ImageNotFound)),
        Err(error) => Err(refuse(ctx, repository, error)),
    }
}

/// Checks that the repository exists.
fn enter(ctx: &Ctx<'_>, repository: &str) -> Result<(), ApiError> {
    shelf(ctx)
        .repository(repository)
        .map_err(|error| refuse(ctx, repository, error))?;
    Ok(())
}

impl Operation for shapes::BatchGetImageRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "BatchGetImage";
    type Output = shapes::BatchGetImageResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:BatchGetImage",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let repository = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        enter(ctx, repository)?;
        let (mut images, mut failures) = (Vec::new(), Vec::new());
        for id in &request.image_ids {
            match find(ctx, repository, id)? {
                Ok((_, image)) => images.push(shown(ctx, image, id.image_tag.clone())),
                Err(code) => failures.push(failure(id, code)),
            }
        }
        Ok(shapes::BatchGetImageResponse {
            images: Some(images),
            failures: Some(failures),
        })
    }
}

fn shown(ctx: &Ctx<'_>, image: Image, tag: Option<String>) -> shapes::Image {
    shapes::Image {
        registry_id: Some(ctx.caller.scope.account.to_string()),
        repository_name: Some(image.repository),
        image_id: Some(shapes::ImageIdentifier {
            image_digest: Some(image.digest.to_string()),
            image_tag: tag,
        }),
        image_manifest: Some(image.manifest),
        image_manifest_media_type: Some(image.media_type),
    }
}

impl Operation for shapes::BatchDeleteImageRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "BatchDeleteImage";
    type Output = shapes::BatchDeleteImageResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:BatchDeleteImage",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let repository = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        enter(ctx, repository)?;
        let (mut image_ids, mut failures) = (Vec::new(), Vec::new());
        for id in &request.image_ids {
            let version = match find(ctx, repository, id)? {
                Ok((version, _)) => version,
                Err(code) => {
                    failures.push(failure(id, code));
                    continue;
                }
            };
            match shelf(ctx).delete_image(repository, &version) {
                Ok(gone) => image_ids.extend(gone.into_iter().map(|(digest, image_tag)| shapes::ImageIdentifier {
                    image_digest: Some(digest.to_string()),
                    image_tag,
                })),
                Err(RegistryError::NoImage) => failures.push(failure(id, ImageFailureCode::ImageNotFound)),
                Err(RegistryError::Referenced) => {
                    failures.push(failure(id, ImageFailureCode::ImageReferencedByManifestList));
                }
                Err(error) => return Err(refuse(ctx, repository, error)),
            }
        }
        Ok(shapes::BatchDeleteImageResponse {
            image_ids: Some(image_ids),
            failures: Some(failures),
        })
    }
}

/// Whether an image (tagged or not) passes a `tagStatus` filter.
fn passes(wanted: Option<shapes::TagStatus>, tagged: bool) -> bool {
    match wanted {
        None | Some(shapes::TagStatus::Any) => true,
        Some(shapes::TagStatus::Tagged) => tagged,
        Some(shapes::TagStatus::Untagged) => !tagged,
    }
}

impl Operation for shapes::ListImagesRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "ListImages";
    type Output = shapes::ListImagesResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:ListImages",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let repository = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        enter(ctx, repository)?;
        let refused = |error| refuse(ctx, repository, error);
        let mut by_image = shelf(ctx).tags_by_image(repository).map_err(refused)?;
        let wanted = request.filter.and_then(|filter| filter.tag_status);
        let mut rows = Vec::new();
        for image in shelf(ctx).images(repository).map_err(refused)? {
            let tags = by_image.remove(&image.record.digest).unwrap_or_default();
            if !passes(wanted, !tags.is_empty()) {
                continue;
            }
            let digest = Some(image.record.digest.to_string());
            match tags.is_empty() {
                true => rows.push(shapes::ImageIdentifier {
                    image_digest: digest,
                    image_tag: None,
                }),
                false => rows.extend(tags.into_iter().map(|tag| shapes::ImageIdentifier {
                    image_digest: digest.clone(),
                    image_tag: Some(tag),
                })),
            }
        }
        let name = |id: &shapes::ImageIdentifier| {
            format!(
                "{} {}",
                id.image_digest.as_deref().unwrap_or(""),
                id.image_tag.as_deref().unwrap_or("")
            )
        };
        let (image_ids, next_token) = page(rows, name, request.next_token.as_deref(), request.max_results)?;
        Ok(shapes::ListImagesResponse {
            image_ids: Some(image_ids),
            next_token,
        })
    }
}

impl Operation for shapes::DescribeImagesRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "DescribeImages";
    type Output = shapes::DescribeImagesResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:DescribeImages",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let repository = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        enter(ctx, repository)?;
        let refused = |error| refuse(ctx, repository, error);
        let by_image = shelf(ctx).tags_by_image(repository).map_err(refused)?;
        let detail = |image: Image| shapes::ImageDetail {
            registry_id: Some(ctx.caller.scope.account.to_string()),
            image_tags: by_image.get(&image.digest).cloned(),
            image_digest: Some(image.digest.to_string()),
            image_size_in_bytes: Some(i64::try_from(image.size).unwrap_or(i64::MAX)),
            image_pushed_at: Some(image.pushed.0),
            image_manifest_media_type: Some(image.media_type),
            repository_name: Some(image.repository),
            ..Default::default()
        };
        if let Some(ids) = &request.image_ids {
            let mut details = Vec::new();
            for id in ids {
                match find(ctx, repository, id)? {
                    Ok((_, image)) => details.push(detail(image)),
                    Err(_) => return Err(no_image(ctx, repository, id)),
                }
            }
            return Ok(shapes::DescribeImagesResponse {
                image_details: Some(details),
                next_token: None,
            });
        }
        let wanted = request.filter.and_then(|filter| filter.tag_status);
        let images = shelf(ctx).images(repository).map_err(refused)?;
        let rows = images
            .into_iter()
            .filter(|row| passes(wanted, by_image.contains_key(&row.record.digest)));
        let (rows, next_token) = page(
            rows,
            |row| row.record.digest.to_string(),
            request.next_token.as_deref(),
            request.max_results,
        )?;
        let details = rows.into_iter().map(|row| detail(row.record)).collect();
        Ok(shapes::DescribeImagesResponse {
            image_details: Some(details),
            next_token,
        })
    }
}

fn no_image(ctx: &Ctx<'_>, repository: &str, id: &shapes::ImageIdentifier) -> ApiError {
    let part = |value: &Option<String>| value.as_ref().map_or("null".into(), |value| format!("'{value}'"));
    let text = format!(
        "The image with imageId {{imageDigest:{}, imageTag:{}}} does not exist within the repository with name \
         '{repository}' in the registry with id '{}'",
        part(&id.image_digest),
        part(&id.image_tag),
        ctx.caller.scope.account
    );
    ApiError::client("ImageNotFoundException", text)
}

impl Operation for shapes::PutImageRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "PutImage";
    type Output = shapes::PutImageResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(ctx, self.registry_id.as_deref(), "ecr:PutImage", &self.repository_name)
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let repository = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        if request.image_tag.as_ref().is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid(
                "Invalid parameter at 'imageTag' failed to satisfy constraint: 'malformed tag'",
            ));
        }
        let digest: Option<Sha256Digest> = match &request.image_digest {
            Some(digest) => Some(
                digest
                    .parse()
                    .map_err(|_| invalid("Invalid parameter at 'imageDigest'"))?,
            ),
            None => None,
        };
        let push = Push {
            text: request.image_manifest.as_bytes(),
            media_type: request.image_manifest_media_type.as_deref(),
            tag: request.image_tag.as_deref(),
            digest: digest.as_ref(),
        };
        let pushed = shelf(ctx)
            .push(repository, &push)
            .map_err(|error| refuse(ctx, repository, error))?;
        if pushed.unchanged {
            let text = format!(
                "Image with digest '{}' and tag '{}' already exists in the repository with name '{repository}' in \
                 registry with id '{}'",
                pushed.digest,
                request.image_tag.as_deref().unwrap_or("null"),
                ctx.caller.scope.account
            );
            return Err(ApiError::client("ImageAlreadyExistsException", text));
        }
        let image = shelf(ctx)
            .image(repository, &ImageVersion::Digest(pushed.digest))
            .map_err(|error| refuse(ctx, repository, error))?;
        Ok(shapes::PutImageResponse {
            image: Some(shown(ctx, image, request.image_tag)),
        })
    }
}
