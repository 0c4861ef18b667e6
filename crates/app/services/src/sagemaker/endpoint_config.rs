//! CreateEndpointConfig, Describe, List, Delete (SM-20, SM-21).

use super::check::{given_key, output_key, packaged_type, refuse, s3_uri, unsupported};
use super::listing::{Listing, descending, page};
use super::serving;
use super::training_spec::instance_type;
use super::{conditions, create, creating, delete, find, keep, kept, model, must_keep, shapes, tag};
use crate::{Ctx, Operation};
use isolarium_model::Arn;
use isolarium_model::sagemaker::data_capture::DataCapture;
use isolarium_model::sagemaker::{Echo, EndpointConfig, InstanceTable, Model, ProductionVariant};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_wire::ApiError;
use std::collections::BTreeSet;

/// Most instances one variant may have here: each is a container on this machine.
const MAX_INSTANCES: i64 = 100;

/// SM-60.
pub(super) fn missing(arn: &Arn) -> ApiError {
    ApiError::validation(format!("Could not find endpoint configuration \"{arn}\"."))
}

fn taken(arn: &Arn) -> ApiError {
    ApiError::validation(format!(
        "Cannot create already existing endpoint configuration \"{arn}\"."
    ))
}

impl Operation for shapes::CreateEndpointConfigInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateEndpointConfig";
    type Output = shapes::CreateEndpointConfigOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let scope = &ctx.caller.scope;
        let arn = EndpointConfig::arn(scope, &self.endpoint_config_name);
        let models: Vec<Arn> = conditions::models(self).map(|name| Model::arn(scope, name)).collect();
        let question = Question::on("sagemaker:CreateEndpointConfig", &arn);
        let question = conditions::endpoint_config(question, scope, self, &models);
        let mut questions = creating(question, &arn, self.tags.as_ref());
        let each = models
            .iter()
            .map(|model| Question::on("sagemaker:CreateEndpointConfig", model));
        questions.extend(each);
        let role = self.execution_role_arn.iter();
        questions.extend(role.map(|role| super::check::pass_role(role, &arn)));
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = EndpointConfig::arn(scope, &request.endpoint_config_name);
        let key = EndpointConfig::key(scope, &request.endpoint_config_name);
        let tags = tag::of_request(request.tags.clone())?;
        refuse(&[
            (request.explainer_config.is_some(), "ExplainerConfig"),
            (
                request
                    .shadow_production_variants
                    .as_ref()
                    .is_some_and(|all| !all.is_empty()),
                "ShadowProductionVariants",
            ),
            (
                request.execution_role_arn.is_some(),
                "ExecutionRoleArn of an endpoint configuration",
            ),
            (
                request.enable_network_isolation == Some(true),
                "EnableNetworkIsolation of an endpoint configuration",
            ),
            (request.metrics_config.is_some(), "MetricsConfig"),
            (
                request.cross_region_traffic_config.is_some(),
                "CrossRegionTrafficConfig",
            ),
            (request.kms_key_id.is_some(), "KmsKeyId of an endpoint configuration"),
        ])?;
        refuse(&[(request.vpc_config.is_some(), "VpcConfig")])?;
        let variants = request
            .production_variants
            .iter()
            .map(|given| variant(given, &ctx.platform.settings().instances))
            .collect::<Result<Vec<_>, _>>()?;
        let capture = request.data_capture_config.as_ref().map(capture).transpose()?;
        output_key(ctx, capture.as_ref().and_then(|capture| capture.kms_key.as_ref()))?;
        let queue = request.async_inference_config.as_ref();
        let queue = queue.map(serving::asynchronous).transpose()?;
        output_key(ctx, queue.as_ref().and_then(|queue| queue.kms_key.as_ref()))?;
        let names: BTreeSet<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
        if names.len() != variants.len() {
            return Err(ApiError::validation("The names of production variants must be unique."));
        }
        if find::<EndpointConfig>(ctx, &key)?.is_some() {
            return Err(taken(&arn));
        }
        let mut models = Vec::new();
        for variant in &variants {
            let found = find::<Model>(ctx, &Model::key(scope, &variant.model_name))?;
            let model = found.ok_or_else(|| model::missing(&Model::arn(scope, &variant.model_name)))?;
            let package = model.record.spec.package.as_deref();
            packaged_type(package, |package| &package.realtime_types, &variant.instance_type)?;
            models.push(model.record.spec);
        }
        serving::fits(capture.as_ref(), queue.as_ref(), variants.iter().zip(&models))?;
        let name = request.endpoint_config_name.clone();
        let echo = echo(&request)?;
        let config = EndpointConfig {
            name,
            arn: arn.clone(),
            created: ctx.clock.now(),
            variants,
            capture,
            asynchronous: queue,
            tags,
            echo,
        };
        create(ctx, &key, &config, || taken(&arn))?;
        Ok(shapes::CreateEndpointConfigOutput {
            endpoint_config_arn: arn.to_string(),
        })
    }
}

fn variant(given: &shapes::ProductionVariant, table: &InstanceTable) -> Result<ProductionVariant, ApiError> {
    refuse(&[
        (given.accelerator_type.is_some(), "AcceleratorType"),
        (given.core_dump_config.is_some(), "CoreDumpConfig"),
        (given.managed_instance_scaling.is_some(), "ManagedInstanceScaling"),
        (given.enable_ssm_access == Some(true), "EnableSSMAccess"),
        (given.inference_ami_version.is_some(), "InferenceAmiVersion"),
        (given.capacity_reservation_config.is_some(), "CapacityReservationConfig"),
        (
            given.instance_pools.as_ref().is_some_and(|all| !all.is_empty()),
            "InstancePools",
        ),
        (
            given
                .accelerator_partition_layouts
                .as_ref()
                .is_some_and(|all| !all.is_empty()),
            "AcceleratorPartitionLayouts",
        ),
        (given.volume_size_in_gb.is_some(), "VolumeSizeInGB"),
        (given.model_name.is_none(), "A production variant without ModelName"),
    ])?;
    let serverless = serving::serverless(given)?;
    // A serverless variant is one container that is always there.
    let otherwise = i64::from(serverless.is_some());
    let count = given.initial_instance_count.unwrap_or(otherwise);
    if count < 1 {
        return Err(ApiError::validation(format!(
            "InitialInstanceCount of production variant \"{}\" must be at least 1.",
            given.variant_name
        )));
    }
    let seconds = |given: Option<i64>| given.and_then(|seconds| u64::try_from(seconds).ok());
    Ok(ProductionVariant {
        name: given.variant_name.clone(),
        model_name: given.model_name.clone().unwrap_or_default(),
        instance_type: match &serverless {
            Some(serverless) => serverless.instance_type(),
            None => instance_type(given.instance_type.as_deref(), table)?,
        },
        instance_count: instances(count)?,
        weight: given.initial_variant_weight.unwrap_or(1.0),
        startup_timeout: seconds(given.container_startup_health_check_timeout_in_seconds),
        download_timeout: seconds(given.model_data_download_timeout_in_seconds),
        serverless,
    })
}

/// `DataCaptureConfig` as it is carried out (CC-60).
fn capture(given: &shapes::DataCaptureConfig) -> Result<DataCapture, ApiError> {
    let wants = |one: shapes::CaptureMode| {
        let mut modes = given.capture_options.iter().map(|option| option.capture_mode);
        modes.any(|mode| mode == one || mode == shapes::CaptureMode::InputAndOutput)
    };
    let kinds = given.capture_content_type_header.as_ref();
    let lower = |kinds: Option<&Vec<String>>| {
        let kinds = kinds.into_iter().flatten();
        kinds.map(|kind| kind.to_ascii_lowercase()).collect::<Vec<_>>()
    };
    Ok(DataCapture {
        enabled: given.enable_capture.unwrap_or(true),
        percentage: u8::try_from(given.initial_sampling_percentage.clamp(0, 100)).unwrap_or(100),
        destination: s3_uri("DestinationS3Uri", &given.destination_s3_uri)?,
        input: wants(shapes::CaptureMode::Input),
        output: wants(shapes::CaptureMode::Output),
        kms_key: given_key(given.kms_key_id.as_ref()),
        csv: lower(kinds.and_then(|kinds| kinds.csv_content_types.as_ref())),
        json: lower(kinds.and_then(|kinds| kinds.json_content_types.as_ref())),
    })
}

/// A number of instances that this machine may be asked for.
pub(super) fn instances(count: i64) -> Result<u32, ApiError> {
    match u32::try_from(count) {
        Ok(number) if count <= MAX_INSTANCES => Ok(number),
        _ => Err(unsupported(&format!("More than {MAX_INSTANCES} instances per variant"))),
    }
}

fn echo(request: &shapes::CreateEndpointConfigInput) -> Result<Echo, ApiError> {
    let shown: Vec<_> = request
        .production_variants
        .iter()
        .map(|variant| shapes::ProductionVariant {
            initial_variant_weight: Some(variant.initial_variant_weight.unwrap_or(1.0)),
            ..variant.clone()
        })
        .collect();
    let mut echo = Echo::new();
    keep(&mut echo, "ProductionVariants", Some(&shown))?;
    keep(&mut echo, "DataCaptureConfig", request.data_capture_config.as_ref())?;
    let queue = request.async_inference_config.as_ref();
    keep(&mut echo, "AsyncInferenceConfig", queue)?;
    keep(
        &mut echo,
        "EnableNetworkIsolation",
        request.enable_network_isolation.as_ref(),
    )?;
    Ok(echo)
}

/// Asks about one configuration.
fn ask(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
    Question::on(action, &EndpointConfig::arn(&ctx.caller.scope, name))
}

impl Operation for shapes::DescribeEndpointConfigInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeEndpointConfig";
    type Output = shapes::DescribeEndpointConfigOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DescribeEndpointConfig", &self.endpoint_config_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (scope, name) = (&ctx.caller.scope, &request.get().endpoint_config_name);
        let found = find::<EndpointConfig>(ctx, &EndpointConfig::key(scope, name))?;
        let config = found.ok_or_else(|| missing(&EndpointConfig::arn(scope, name)))?.record;
        Ok(shapes::DescribeEndpointConfigOutput {
            endpoint_config_arn: config.arn.to_string(),
            production_variants: must_keep(&config.echo, "ProductionVariants")?,
            data_capture_config: kept(&config.echo, "DataCaptureConfig")?,
            kms_key_id: None,
            creation_time: config.created.0,
            async_inference_config: kept(&config.echo, "AsyncInferenceConfig")?,
            explainer_config: None,
            shadow_production_variants: None,
            execution_role_arn: None,
            vpc_config: None,
            enable_network_isolation: kept(&config.echo, "EnableNetworkIsolation")?,
            metrics_config: None,
            cross_region_traffic_config: None,
            endpoint_config_name: config.name,
        })
    }
}

impl Operation for shapes::ListEndpointConfigsInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListEndpointConfigs";
    type Output = shapes::ListEndpointConfigsOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListEndpointConfigs")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by {
                shapes::EndpointConfigSortKey::Name => SortBy::Name,
                shapes::EndpointConfigSortKey::CreationTime => SortBy::Created,
            }),
            descending: descending(request.sort_order),
            next_token: request.next_token,
            max_results: request.max_results,
            name_contains: request.name_contains,
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            ..Listing::default()
        };
        let (rows, next_token) = page::<EndpointConfig>(ctx, listing)?;
        let configs = rows.into_iter().map(|row| shapes::EndpointConfigSummary {
            endpoint_config_name: row.record.name,
            endpoint_config_arn: row.record.arn.to_string(),
            creation_time: row.record.created.0,
        });
        Ok(shapes::ListEndpointConfigsOutput {
            endpoint_configs: configs.collect(),
            next_token,
        })
    }
}

impl Operation for shapes::DeleteEndpointConfigInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteEndpointConfig";
    type Output = shapes::DeleteEndpointConfigOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DeleteEndpointConfig", &self.endpoint_config_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (scope, name) = (&ctx.caller.scope, &request.get().endpoint_config_name);
        let key = EndpointConfig::key(scope, name);
        delete::<EndpointConfig>(ctx, &key, || missing(&EndpointConfig::arn(scope, name)))?;
        Ok(shapes::DeleteEndpointConfigOutput {})
    }
}
