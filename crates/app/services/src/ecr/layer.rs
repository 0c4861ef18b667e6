//! Layers: availability, upload in parts, download links.

use super::{ask, invalid, refuse, refuse_upload, registry_of, shapes, shelf, within};
use crate::{Ctx, Operation};
use isolarium_model::Sha256Digest;
use isolarium_policy::{Granted, Question};
use isolarium_wire::ApiError;

/// Size of parts that ECR recommends.
const PART_BYTES: i64 = 20_971_520;

/// Who owns an upload: uploads of one repository cannot be continued through another.
pub fn upload_owner(scope: &isolarium_model::Scope, repository: &str) -> String {
    format!("{}/{}/{repository}", scope.account, scope.region)
}

impl Operation for shapes::BatchCheckLayerAvailabilityRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "BatchCheckLayerAvailability";
    type Output = shapes::BatchCheckLayerAvailabilityResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:BatchCheckLayerAvailability",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let repository = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        let refused = |error| refuse(ctx, repository, error);
        shelf(ctx).repository(repository).map_err(refused)?;
        let (mut layers, mut failures) = (Vec::new(), Vec::new());
        for text in request.layer_digests {
            let Ok(digest) = text.parse::<Sha256Digest>() else {
                failures.push(shapes::LayerFailure {
                    layer_digest: Some(text),
                    failure_code: Some(shapes::LayerFailureCode::InvalidLayerDigest),
                    failure_reason: Some("Invalid layer digest".into()),
                });
                continue;
            };
            let found = shelf(ctx).layer(repository, &digest).map_err(refused)?;
            layers.push(shapes::Layer {
                layer_digest: Some(text),
                layer_availability: Some(match found {
                    Some(_) => shapes::LayerAvailability::Available,
                    None => shapes::LayerAvailability::Unavailable,
                }),
                layer_size: found.map(|layer| i64::try_from(layer.size).unwrap_or(i64::MAX)),
                media_type: None,
            });
        }
        Ok(shapes::BatchCheckLayerAvailabilityResponse {
            layers: Some(layers),
            failures: Some(failures),
        })
    }
}

impl Operation for shapes::InitiateLayerUploadRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "InitiateLayerUpload";
    type Output = shapes::InitiateLayerUploadResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:InitiateLayerUpload",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let repository = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        shelf(ctx)
            .repository(repository)
            .map_err(|error| refuse(ctx, repository, error))?;
        let id = isolarium_model::time::uuid(ctx.ids);
        let owner = upload_owner(&ctx.caller.scope, repository);
        ctx.registry
            .blobs
            .begin(&id, &owner, ctx.clock.now())
            .map_err(refuse_upload)?;
        Ok(shapes::InitiateLayerUploadResponse {
            upload_id: Some(id),
            part_size: Some(PART_BYTES),
        })
    }
}

impl Operation for shapes::UploadLayerPartRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "UploadLayerPart";
    type Output = shapes::UploadLayerPartResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:UploadLayerPart",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let repository = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        let owner = upload_owner(&ctx.caller.scope, repository);
        let upload = ctx
            .registry
            .blobs
            .upload(&request.upload_id, &owner)
            .map_err(refuse_upload)?;
        let length = i64::try_from(request.layer_part_blob.len()).unwrap_or(i64::MAX);
        let first =
            u64::try_from(request.part_first_byte).map_err(|_| invalid("Invalid parameter at 'partFirstByte'"))?;
        if request
            .part_last_byte
            .checked_sub(request.part_first_byte)
            .and_then(|span| span.checked_add(1))
            != Some(length)
        {
            let text = "The first and last byte of the layer part do not fit its length.";
            return Err(ApiError::client("InvalidLayerPartException", text));
        }
        upload
            .append(Some(first), &request.layer_part_blob, ctx.clock.now())
            .map_err(refuse_upload)?;
        Ok(shapes::UploadLayerPartResponse {
            registry_id: Some(ctx.caller.scope.account.to_string()),
            repository_name: Some(request.repository_name),
            upload_id: Some(request.upload_id),
            last_byte_received: Some(request.part_last_byte),
        })
    }
}

impl Operation for shapes::CompleteLayerUploadRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "CompleteLayerUpload";
    type Output = shapes::CompleteLayerUploadResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:CompleteLayerUpload",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let repository = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        let digest = request
            .layer_digests
            .first()
            .and_then(|digest| digest.parse::<Sha256Digest>().ok());
        let digest = digest.ok_or_else(|| invalid("Invalid parameter at 'layerDigests'"))?;
        let owner = upload_owner(&ctx.caller.scope, repository);
        let upload = ctx
            .registry
            .blobs
            .upload(&request.upload_id, &owner)
            .map_err(refuse_upload)?;
        if upload.size() == 0 {
            return Err(ApiError::client(
                "EmptyUploadException",
                "The upload has no layer parts.",
            ));
        }
        let size = ctx
            .registry
            .blobs
            .commit(&request.upload_id, &owner, &digest)
            .map_err(refuse_upload)?;
        shelf(ctx)
            .add_layer(repository, &digest, size)
            .map_err(|error| refuse(ctx, repository, error))?;
        Ok(shapes::CompleteLayerUploadResponse {
            registry_id: Some(ctx.caller.scope.account.to_string()),
            repository_name: Some(request.repository_name),
            upload_id: Some(request.upload_id),
            layer_digest: Some(digest.to_string()),
        })
    }
}

impl Operation for shapes::GetDownloadUrlForLayerRequest {
    const SERVICE: &'static str = "ecr";
    const NAME: &'static str = "GetDownloadUrlForLayer";
    type Output = shapes::GetDownloadUrlForLayerResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask(
            ctx,
            self.registry_id.as_deref(),
            "ecr:GetDownloadUrlForLayer",
            &self.repository_name,
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let repository = &request.repository_name;
        let caller = registry_of(ctx, request.registry_id.as_deref());
        let ctx = &within(ctx, &caller);
        let refused = |error| refuse(ctx, repository, error);
        shelf(ctx).repository(repository).map_err(refused)?;
        let digest: Sha256Digest = request
            .layer_digest
            .parse()
            .map_err(|_| invalid("Invalid parameter at 'layerDigest'"))?;
        if shelf(ctx).layer(repository, &digest).map_err(refused)?.is_none() {
            let text = format!("The layer with digest '{digest}' does not exist in the repository '{repository}'.");
            return Err(ApiError::client("LayersNotFoundException", text));
        }
        let link = ctx
            .registry
            .key
            .link(&ctx.caller.scope, repository, &digest, ctx.clock.now())
            .ok_or_else(|| ApiError::internal("the link cannot be sealed"))?;
        Ok(shapes::GetDownloadUrlForLayerResponse {
            download_url: Some(format!(
                "{}/v2/{repository}/blobs/{digest}?link={link}",
                ctx.registry.endpoint
            )),
            layer_digest: Some(digest.to_string()),
        })
    }
}
