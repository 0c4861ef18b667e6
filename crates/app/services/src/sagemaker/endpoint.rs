//! CreateEndpoint, UpdateEndpoint, UpdateEndpointWeightsAndCapacities, DeleteEndpoint, ListEndpoints.

use super::endpoint_config::{self, instances};
use super::listing::{Listing, descending, page};
use super::{create, creating, deployment, find, model, serving, shapes, tag, update};
use crate::{Ctx, Operation};
use isolarium_model::sagemaker::{
    Endpoint, EndpointConfig, EndpointEvent, EndpointStatus, Fleet, Model, Tags, VariantFleet,
};
use isolarium_model::{Arn, Timestamp};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_wire::ApiError;
use std::collections::BTreeSet;

/// SM-60.
pub(super) fn missing(arn: &Arn) -> ApiError {
    ApiError::validation(format!("Could not find endpoint \"{arn}\"."))
}

fn taken(arn: &Arn) -> ApiError {
    ApiError::validation(format!("Cannot create already existing endpoint \"{arn}\"."))
}

/// SM-60, SM-26.
fn in_progress(arn: &Arn) -> ApiError {
    ApiError::validation(format!("Cannot update in-progress endpoint \"{arn}\"."))
}

/// Asks about an operation on one endpoint.
pub(super) fn ask(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
    Question::on(action, &Endpoint::arn(&ctx.caller.scope, name))
}

/// The fleet that a configuration asks for. Its models are copied into it: they may be deleted later (SM-19).
fn fleet(ctx: &Ctx<'_>, config_name: &str, now: Timestamp) -> Result<Fleet, ApiError> {
    let scope = &ctx.caller.scope;
    let found = find::<EndpointConfig>(ctx, &EndpointConfig::key(scope, config_name))?;
    let config = found
        .ok_or_else(|| endpoint_config::missing(&EndpointConfig::arn(scope, config_name)))?
        .record;
    let mut variants = Vec::new();
    for variant in config.variants {
        let found = find::<Model>(ctx, &Model::key(scope, &variant.model_name))?;
        let model = found
            .ok_or_else(|| model::missing(&Model::arn(scope, &variant.model_name)))?
            .record;
        variants.push(VariantFleet {
            current_weight: variant.weight,
            desired_weight: variant.weight,
            desired_count: variant.instance_count,
            model: model.spec,
            image: None,
            other_images: Vec::new(),
            instances: Vec::new(),
            variant,
        });
    }
    Ok(Fleet {
        config_name: config.name,
        variants,
        capture: config.capture,
        asynchronous: config.asynchronous,
        started: now,
        takeover: None,
    })
}

impl Operation for shapes::CreateEndpointInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateEndpoint";
    type Output = shapes::CreateEndpointOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let scope = &ctx.caller.scope;
        let arn = Endpoint::arn(scope, &self.endpoint_name);
        let mut questions = creating(Question::on("sagemaker:CreateEndpoint", &arn), &arn, self.tags.as_ref());
        let config = EndpointConfig::arn(scope, &self.endpoint_config_name);
        questions.push(Question::on("sagemaker:CreateEndpoint", &config));
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = Endpoint::arn(scope, &request.endpoint_name);
        let key = Endpoint::key(scope, &request.endpoint_name);
        let tags: Tags = tag::of_request(request.tags)?;
        let deployment_config = deployment::kept(request.deployment_config.as_ref())?;
        if find::<Endpoint>(ctx, &key)?.is_some() {
            return Err(taken(&arn));
        }
        let now = ctx.clock.now();
        let pending = fleet(ctx, &request.endpoint_config_name, now)?;
        serving::fleet_fits(&pending)?;
        let endpoint = Endpoint {
            name: request.endpoint_name,
            arn: arn.clone(),
            created: now,
            modified: now,
            status: EndpointStatus::Creating,
            failure_reason: None,
            config_name: pending.config_name.clone(),
            active: None,
            pending: Some(pending),
            retiring: Vec::new(),
            last_deployment_config: deployment_config,
            tags,
        };
        create(ctx, &key, &endpoint, || taken(&arn))?;
        Ok(shapes::CreateEndpointOutput {
            endpoint_arn: arn.to_string(),
        })
    }
}

impl Operation for shapes::UpdateEndpointInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "UpdateEndpoint";
    type Output = shapes::UpdateEndpointOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let config = EndpointConfig::arn(&ctx.caller.scope, &self.endpoint_config_name);
        vec![
            ask(ctx, "sagemaker:UpdateEndpoint", &self.endpoint_name),
            Question::on("sagemaker:UpdateEndpoint", &config),
        ]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = Endpoint::arn(scope, &request.endpoint_name);
        let key = Endpoint::key(scope, &request.endpoint_name);
        let given = deployment::kept(request.deployment_config.as_ref())?;
        let settings = ctx.platform.settings();
        let now = ctx.clock.now();
        update::<Endpoint>(
            ctx,
            &key,
            || missing(&arn),
            |endpoint| {
                endpoint
                    .apply(EndpointEvent::UpdateRequested, now)
                    .map_err(|_| in_progress(&arn))?;
                let mut fresh = fleet(ctx, &request.endpoint_config_name, now)?;
                if request.retain_all_variant_properties == Some(true) {
                    retain(&mut fresh, endpoint, &request);
                }
                // Asked of it as it is to be: an update may retain the settings of another configuration.
                serving::fleet_fits(&fresh)?;
                serving::same_way(&fresh, endpoint.active.as_ref())?;
                let config = if request.retain_deployment_config == Some(true) && given.is_none() {
                    let last = endpoint.last_deployment_config.clone();
                    last.map(serde_json::from_value)
                        .transpose()
                        .map_err(ApiError::internal)?
                } else {
                    request.deployment_config.clone()
                };
                fresh.takeover = deployment::takeover(config.as_ref(), &fresh, settings.in_place)?;
                endpoint.pending = Some(fresh);
                endpoint.failure_reason = None;
                if given.is_some() || request.retain_deployment_config != Some(true) {
                    endpoint.last_deployment_config.clone_from(&given);
                }
                Ok(())
            },
        )?;
        Ok(shapes::UpdateEndpointOutput {
            endpoint_arn: arn.to_string(),
        })
    }
}

/// `RetainAllVariantProperties`: current counts and weights stay, but for the excluded kinds (SM-23).
fn retain(fresh: &mut Fleet, endpoint: &Endpoint, request: &shapes::UpdateEndpointInput) {
    let excluded = |kind: shapes::VariantPropertyType| {
        request
            .exclude_retained_variant_properties
            .iter()
            .flatten()
            .any(|one| one.variant_property_type == kind)
    };
    let Some(active) = &endpoint.active else { return };
    if !excluded(shapes::VariantPropertyType::DataCaptureConfig) {
        fresh.capture.clone_from(&active.capture);
    }
    for variant in &mut fresh.variants {
        let Some(old) = active
            .variants
            .iter()
            .find(|old| old.variant.name == variant.variant.name)
        else {
            continue;
        };
        if !excluded(shapes::VariantPropertyType::DesiredInstanceCount) {
            variant.desired_count = old.desired_count;
        }
        if !excluded(shapes::VariantPropertyType::DesiredWeight) {
            variant.current_weight = old.desired_weight;
            variant.desired_weight = old.desired_weight;
        }
    }
}

impl Operation for shapes::UpdateEndpointWeightsAndCapacitiesInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "UpdateEndpointWeightsAndCapacities";
    type Output = shapes::UpdateEndpointWeightsAndCapacitiesOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(
            ctx,
            "sagemaker:UpdateEndpointWeightsAndCapacities",
            &self.endpoint_name,
        )]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = Endpoint::arn(scope, &request.endpoint_name);
        let key = Endpoint::key(scope, &request.endpoint_name);
        let wanted = &request.desired_weights_and_capacities;
        let names: BTreeSet<&str> = wanted.iter().map(|one| one.variant_name.as_str()).collect();
        if names.len() != wanted.len() {
            return Err(ApiError::validation("A variant name is given twice."));
        }
        let now = ctx.clock.now();
        update::<Endpoint>(
            ctx,
            &key,
            || missing(&arn),
            |endpoint| {
                endpoint
                    .apply(EndpointEvent::UpdateRequested, now)
                    .map_err(|_| in_progress(&arn))?;
                endpoint.failure_reason = None;
                let variants = endpoint.active.iter_mut().flat_map(|fleet| &mut fleet.variants);
                let mut variants: Vec<&mut VariantFleet> = variants.collect();
                for one in wanted {
                    let variant = variants
                        .iter_mut()
                        .find(|variant| variant.variant.name == one.variant_name);
                    let variant = variant.ok_or_else(|| {
                        ApiError::validation(format!(
                            "Could not find variant \"{}\" of endpoint \"{arn}\".",
                            one.variant_name
                        ))
                    })?;
                    if let Some(weight) = one.desired_weight {
                        // Weights change at once, counts when the instances are there (SM-25).
                        variant.desired_weight = weight;
                        variant.current_weight = weight;
                    }
                    if let Some(given) = &one.serverless_update_config {
                        serving::update(&mut variant.variant, given)?;
                    }
                    if let Some(count) = one.desired_instance_count {
                        if variant.variant.serverless.is_some() {
                            return Err(ApiError::validation(format!(
                                "Variant \"{}\" is serverless and takes no DesiredInstanceCount.",
                                one.variant_name
                            )));
                        }
                        if count < 1 {
                            return Err(ApiError::validation("DesiredInstanceCount must be at least 1."));
                        }
                        variant.desired_count = instances(count)?;
                    }
                }
                Ok(())
            },
        )?;
        Ok(shapes::UpdateEndpointWeightsAndCapacitiesOutput {
            endpoint_arn: arn.to_string(),
        })
    }
}

impl Operation for shapes::DeleteEndpointInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteEndpoint";
    type Output = shapes::DeleteEndpointOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DeleteEndpoint", &self.endpoint_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let scope = &ctx.caller.scope;
        let arn = Endpoint::arn(scope, &request.get().endpoint_name);
        let key = Endpoint::key(scope, &request.get().endpoint_name);
        let now = ctx.clock.now();
        update::<Endpoint>(
            ctx,
            &key,
            || missing(&arn),
            |endpoint| {
                endpoint
                    .apply(EndpointEvent::DeleteRequested, now)
                    .map_err(|_| in_progress(&arn))
            },
        )?;
        Ok(shapes::DeleteEndpointOutput {})
    }
}

impl Operation for shapes::ListEndpointsInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListEndpoints";
    type Output = shapes::ListEndpointsOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListEndpoints")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by {
                shapes::EndpointSortKey::Name => SortBy::Name,
                shapes::EndpointSortKey::CreationTime => SortBy::Created,
                shapes::EndpointSortKey::Status => SortBy::Status,
            }),
            descending: descending(request.sort_order),
            next_token: request.next_token,
            max_results: request.max_results,
            name_contains: request.name_contains,
            status: request.status_equals.map(shapes::EndpointStatus::as_str),
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            modified_after: request.last_modified_time_after,
            modified_before: request.last_modified_time_before,
        };
        let (rows, next_token) = page::<Endpoint>(ctx, listing)?;
        let endpoints = rows.into_iter().map(|row| {
            Ok(shapes::EndpointSummary {
                endpoint_status: row.record.status.as_str().parse()?,
                endpoint_arn: row.record.arn.to_string(),
                creation_time: row.record.created.0,
                last_modified_time: row.record.modified.0,
                endpoint_name: row.record.name,
            })
        });
        Ok(shapes::ListEndpointsOutput {
            endpoints: endpoints.collect::<Result<_, ApiError>>()?,
            next_token,
        })
    }
}
