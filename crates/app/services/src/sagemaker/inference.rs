//! Inference specifications of algorithms and model packages, and what a model made of them is (SM-42, SM-44).

use super::check::refuse;
use super::model::{data, environment};
use super::shapes;
use isolarium_model::sagemaker::ContainerSpec;
use isolarium_model::sagemaker::model_package::{Inference, PackagedContainer};
use isolarium_wire::ApiError;

/// An image reference that means one digest, where one is given.
pub(super) fn pinned(image: &str, digest: Option<&String>) -> String {
    let Some(digest) = digest else { return image.into() };
    let path = image.split_once('@').map_or(image, |(path, _)| path);
    // A colon after the last slash begins a tag; one before it a port.
    let name = path.rfind('/').map_or(0, |slash| slash.saturating_add(1));
    let tag = path.get(name..).and_then(|name_and_tag| name_and_tag.find(':'));
    let repository = tag.and_then(|tag| path.get(..name.saturating_add(tag))).unwrap_or(path);
    format!("{repository}@{}", digest.to_ascii_lowercase())
}

/// The typed part of an inference specification.
pub(super) fn inference(given: &shapes::InferenceSpecification) -> Result<Inference, ApiError> {
    let types = |list: Option<&Vec<String>>| list.into_iter().flatten().cloned().collect();
    let containers = given.containers.iter().map(container);
    Ok(Inference {
        containers: containers.collect::<Result<_, _>>()?,
        transform_types: types(given.supported_transform_instance_types.as_ref()),
        realtime_types: types(given.supported_realtime_inference_instance_types.as_ref()),
    })
}

fn container(given: &shapes::ModelPackageContainerDefinition) -> Result<PackagedContainer, ApiError> {
    let several = given.additional_model_data_sources.as_ref();
    refuse(&[
        (several.is_some_and(|all| !all.is_empty()), "AdditionalModelDataSources"),
        (given.additional_s3_data_source.is_some(), "AdditionalS3DataSource"),
        (given.base_model.is_some(), "BaseModel"),
        (given.is_checkpoint == Some(true), "IsCheckpoint"),
        (given.model_data_e_tag.is_some(), "ModelDataETag"),
    ])?;
    let image = given.image.as_ref().filter(|image| !image.is_empty());
    let image =
        image.ok_or_else(|| ApiError::validation("Each container of an InferenceSpecification needs an Image."))?;
    let plain = shapes::ContainerDefinition {
        model_data_url: given.model_data_url.clone(),
        model_data_source: given.model_data_source.clone(),
        environment: given.environment.clone(),
        ..Default::default()
    };
    Ok(PackagedContainer {
        hostname: given.container_hostname.clone(),
        container: ContainerSpec {
            image: pinned(image, given.image_digest.as_ref()),
            environment: environment(&plain),
        },
        data: data(&plain)?,
        product_id: given.product_id.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_takes_the_place_of_a_tag_and_leaves_ports_alone() {
        let digest = "sha256:AB".to_string();
        for (image, expected) in [
            ("host:4599/repo/name:1", "host:4599/repo/name@sha256:ab"),
            ("host:4599/name", "host:4599/name@sha256:ab"),
            ("name:1@sha256:00", "name@sha256:ab"),
        ] {
            assert_eq!(pinned(image, Some(&digest)), expected);
            assert_eq!(pinned(image, None), image, "control");
        }
    }
}
