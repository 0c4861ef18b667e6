//! DescribeFeatureMetadata, UpdateFeatureMetadata: what is written down about one feature of a group.

use super::feature_group::{ask, existing, key, missing, shown_type};
use super::{shapes, update};
use crate::{Ctx, Operation};
use isolarium_model::sagemaker::{Feature, FeatureGroup};
use isolarium_policy::{Granted, Question};
use isolarium_wire::ApiError;

/// Most parameters of a feature.
const MOST_PARAMETERS: usize = 25;

fn no_feature(group: &str, feature: &str) -> ApiError {
    ApiError::client(
        "ResourceNotFound",
        format!("Resource Not Found: FeatureGroup {group} has no feature {feature}."),
    )
}

impl Operation for shapes::DescribeFeatureMetadataRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeFeatureMetadata";
    type Output = shapes::DescribeFeatureMetadataResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DescribeFeatureMetadata", &self.feature_group_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let group = existing(ctx, &request.feature_group_name)?;
        let feature = group.feature(&request.feature_name);
        let feature = feature.ok_or_else(|| no_feature(&group.name, &request.feature_name))?;
        Ok(described(&group, feature))
    }
}

/// What DescribeFeatureMetadata shows.
pub(super) fn described(group: &FeatureGroup, feature: &Feature) -> shapes::DescribeFeatureMetadataResponse {
    let parameters = feature.parameters.iter().map(|(key, value)| shapes::FeatureParameter {
        key: Some(key.clone()),
        value: Some(value.clone()),
    });
    shapes::DescribeFeatureMetadataResponse {
        feature_group_arn: group.arn.to_string(),
        feature_group_name: group.name.clone(),
        feature_name: feature.name.clone(),
        feature_type: shown_type(feature.kind),
        creation_time: feature.created.0,
        last_modified_time: feature.modified.0,
        description: feature.description.clone(),
        parameters: Some(parameters.collect::<Vec<_>>()).filter(|all| !all.is_empty()),
    }
}

impl Operation for shapes::UpdateFeatureMetadataRequest {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "UpdateFeatureMetadata";
    type Output = shapes::UpdateFeatureMetadataOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:UpdateFeatureMetadata", &self.feature_group_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let mut additions = Vec::new();
        for parameter in request.parameter_additions.into_iter().flatten() {
            let (Some(key), Some(value)) = (parameter.key, parameter.value) else {
                return Err(ApiError::validation(
                    "Validation Error: each of ParameterAdditions needs a Key and a Value.",
                ));
            };
            additions.push((key, value));
        }
        let now = ctx.clock.now();
        let given = request.feature_group_name.as_str();
        update::<FeatureGroup>(
            ctx,
            &key(ctx, given)?,
            || missing(given),
            |group| {
                let name = group.name.clone();
                let feature = group.features.iter_mut().find(|one| one.name == request.feature_name);
                let feature = feature.ok_or_else(|| no_feature(&name, &request.feature_name))?;
                for removed in request.parameter_removals.iter().flatten() {
                    feature.parameters.remove(removed);
                }
                feature.parameters.extend(additions.iter().cloned());
                if feature.parameters.len() > MOST_PARAMETERS {
                    return Err(ApiError::validation(format!(
                        "Validation Error: a feature can have at most {MOST_PARAMETERS} parameters."
                    )));
                }
                if let Some(description) = &request.description {
                    feature.description = Some(description.clone()).filter(|text| !text.is_empty());
                }
                feature.modified = now;
                Ok(())
            },
        )?;
        Ok(shapes::UpdateFeatureMetadataOutput {})
    }
}
