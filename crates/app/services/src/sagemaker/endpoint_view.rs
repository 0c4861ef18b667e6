//! DescribeEndpoint (SM-23, SM-27).

use super::endpoint::{ask, missing};
use super::{find, serving, shapes};
use crate::{Ctx, Operation};
use isolarium_model::ec2;
use isolarium_model::sagemaker::data_capture::DataCapture;
use isolarium_model::sagemaker::model::ResolvedImage;
use isolarium_model::sagemaker::{Endpoint, EndpointStatus, Fleet, Takeover, VariantFleet};
use isolarium_policy::{Granted, Question};
use isolarium_wire::ApiError;
use std::collections::BTreeSet;

impl Operation for shapes::DescribeEndpointInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeEndpoint";
    type Output = shapes::DescribeEndpointOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DescribeEndpoint", &self.endpoint_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (scope, name) = (&ctx.caller.scope, &request.get().endpoint_name);
        let found = find::<Endpoint>(ctx, &Endpoint::key(scope, name))?;
        described(ctx, found.ok_or_else(|| missing(&Endpoint::arn(scope, name)))?.record)
    }
}

/// What DescribeEndpoint shows.
pub(super) fn described(ctx: &Ctx<'_>, endpoint: Endpoint) -> Result<shapes::DescribeEndpointOutput, ApiError> {
    let updating = endpoint.status == EndpointStatus::Updating;
    let pending = endpoint.pending.as_ref().filter(|_| updating);
    let pending = pending.map(|fleet| pending_summary(ctx, fleet)).transpose()?;
    let variants = endpoint
        .active
        .as_ref()
        .map(|fleet| fleet.variants.iter().map(|one| summary(one, fleet)).collect::<Vec<_>>());
    let capture = endpoint.active.as_ref().and_then(|fleet| fleet.capture.as_ref());
    let capture = capture.map(capture_summary);
    let serving = endpoint.active.as_ref().or(endpoint.pending.as_ref());
    let queue = serving.and_then(|fleet| fleet.asynchronous.as_ref());
    let queue = queue.map(serving::async_shown);
    let deployment = endpoint.last_deployment_config.map(serde_json::from_value).transpose();
    Ok(shapes::DescribeEndpointOutput {
        endpoint_arn: endpoint.arn.to_string(),
        endpoint_config_name: Some(endpoint.config_name),
        production_variants: variants,
        data_capture_config: capture,
        endpoint_status: endpoint.status.as_str().parse()?,
        failure_reason: endpoint.failure_reason.map(|reason| reason.to_string()),
        creation_time: endpoint.created.0,
        last_modified_time: endpoint.modified.0,
        last_deployment_config: deployment.map_err(ApiError::internal)?,
        async_inference_config: queue,
        pending_deployment_summary: pending,
        explainer_config: None,
        shadow_production_variants: None,
        metrics_config: None,
        cross_region_traffic_config: None,
        endpoint_name: endpoint.name,
    })
}

fn capture_summary(capture: &DataCapture) -> shapes::DataCaptureConfigSummary {
    let status = if capture.enabled {
        shapes::CaptureStatus::Started
    } else {
        shapes::CaptureStatus::Stopped
    };
    shapes::DataCaptureConfigSummary {
        enable_capture: capture.enabled,
        current_sampling_percentage: i64::from(capture.percentage),
        destination_s3_uri: capture.destination.to_string(),
        kms_key_id: capture.kms_key.clone().unwrap_or_default(),
        ..shapes::DataCaptureConfigSummary::new(status)
    }
}

fn healthy(variant: &VariantFleet) -> Option<i64> {
    i64::try_from(variant.instances.iter().filter(|instance| instance.healthy).count()).ok()
}

/// The specified reference and the digest it meant (SM-27): `REPOSITORY@DIGEST`.
fn images(variant: &VariantFleet, fleet: &Fleet) -> Option<Vec<shapes::DeployedImage>> {
    let first = variant.image.as_ref()?;
    let all = std::iter::once(first).chain(&variant.other_images);
    Some(all.map(|image| deployed(image, fleet)).collect())
}

fn deployed(image: &ResolvedImage, fleet: &Fleet) -> shapes::DeployedImage {
    let (registry, path) = image.specified.split_once('/').unwrap_or(("", &image.specified));
    let repository = path.split(['@', ':']).next().unwrap_or(path);
    let prefix = if registry.is_empty() {
        repository.to_string()
    } else {
        format!("{registry}/{repository}")
    };
    shapes::DeployedImage {
        specified_image: Some(image.specified.clone()),
        resolved_image: Some(format!("{prefix}@{}", image.digest)),
        resolution_time: Some(fleet.started.0),
    }
}

fn summary(variant: &VariantFleet, fleet: &Fleet) -> shapes::ProductionVariantSummary {
    let serverless = variant.variant.serverless.as_ref().map(serving::serverless_shown);
    let counts = serverless.is_none();
    shapes::ProductionVariantSummary {
        variant_name: variant.variant.name.clone(),
        deployed_images: images(variant, fleet),
        current_weight: Some(variant.current_weight),
        desired_weight: Some(variant.desired_weight),
        current_instance_count: counts.then(|| healthy(variant)).flatten(),
        desired_instance_count: counts.then(|| i64::from(variant.desired_count)),
        current_serverless_config: serverless.clone(),
        desired_serverless_config: serverless,
        ..shapes::ProductionVariantSummary::default()
    }
}

/// NET-64: one zone is taken, and told. AWS has a place for words about a variant while it is deployed, and none afterwards.
fn one_zone(ctx: &Ctx<'_>, variant: &VariantFleet) -> Result<Option<Vec<shapes::ProductionVariantStatus>>, ApiError> {
    let Some(attachment) = variant.model.network.vpc() else {
        return Ok(None);
    };
    let mut zones = BTreeSet::new();
    for subnet in &attachment.subnets {
        let key = ec2::key(&ctx.caller.scope, subnet);
        let found = ctx.store.get::<ec2::Subnet>(&key).map_err(super::stored)?;
        zones.extend(found.map(|subnet| subnet.record.zone.name));
    }
    let mut zones = zones.into_iter();
    let (Some(zone), None) = (zones.next(), zones.next()) else {
        return Ok(None);
    };
    let message = format!(
        "Warning: all subnets of the VpcConfig are in {zone}. Name subnets in two Availability Zones to keep serving \
         when one of them fails."
    );
    Ok(Some(vec![shapes::ProductionVariantStatus {
        status: shapes::VariantStatus::Creating,
        status_message: Some(message),
        start_time: None,
    }]))
}

/// How far the takeover of a fleet is (SM-24, SM-25): what traffic it has since when, and a word about places of a variant.
fn progress(
    ctx: &Ctx<'_>,
    variant: &VariantFleet,
    fleet: &Fleet,
) -> Result<Option<Vec<shapes::ProductionVariantStatus>>, ApiError> {
    let places = one_zone(ctx, variant)?;
    let Some(Takeover::Shift(shift)) = &fleet.takeover else {
        return Ok(places);
    };
    let status = if shift.since().is_some() {
        shapes::VariantStatus::Baking
    } else {
        shapes::VariantStatus::Creating
    };
    let whole = shift.share().checked_div(100).unwrap_or(0);
    let step = shapes::ProductionVariantStatus {
        status,
        status_message: Some(format!("{whole}% of the traffic goes to the new fleet.")),
        start_time: Some(shift.since().unwrap_or(fleet.started).0),
    };
    Ok(Some(
        std::iter::once(step).chain(places.into_iter().flatten()).collect(),
    ))
}

fn pending_summary(ctx: &Ctx<'_>, fleet: &Fleet) -> Result<shapes::PendingDeploymentSummary, ApiError> {
    let variants = fleet.variants.iter().map(|variant| {
        let serverless = variant.variant.serverless.as_ref().map(serving::serverless_shown);
        let counts = serverless.is_none();
        Ok(shapes::PendingProductionVariantSummary {
            variant_name: variant.variant.name.clone(),
            variant_status: progress(ctx, variant, fleet)?,
            deployed_images: images(variant, fleet),
            current_weight: Some(variant.current_weight),
            desired_weight: Some(variant.desired_weight),
            current_instance_count: counts.then(|| healthy(variant)).flatten(),
            desired_instance_count: counts.then(|| i64::from(variant.desired_count)),
            instance_type: counts.then(|| variant.variant.instance_type.clone()),
            current_serverless_config: serverless.clone(),
            desired_serverless_config: serverless,
            ..shapes::PendingProductionVariantSummary::default()
        })
    });
    Ok(shapes::PendingDeploymentSummary {
        endpoint_config_name: fleet.config_name.clone(),
        production_variants: Some(variants.collect::<Result<_, ApiError>>()?),
        start_time: Some(fleet.started.0),
        shadow_production_variants: None,
    })
}
