//! How an endpoint's variants are asked: queued (SM-55), or serverless. What goes with what is checked where settings and
//! models meet, which may both be others by the time an endpoint is made or changed.

use super::check::{given_key, refuse, s3_uri, unsupported};
use super::shapes;
use isolarium_model::sagemaker::async_inference::AsyncInference;
use isolarium_model::sagemaker::data_capture::DataCapture;
use isolarium_model::sagemaker::endpoint_config::Serverless;
use isolarium_model::sagemaker::model::ModelSpec;
use isolarium_model::sagemaker::{Fleet, ModelData, ProductionVariant};
use isolarium_wire::ApiError;

/// `AsyncInferenceConfig` as it is carried out.
pub(super) fn asynchronous(given: &shapes::AsyncInferenceConfig) -> Result<AsyncInference, ApiError> {
    let output = &given.output_config;
    refuse(&[(
        output.notification_config.is_some(),
        "NotificationConfig of an AsyncInferenceConfig (there is no SNS)",
    )])?;
    let path = output.s3_output_path.as_deref();
    let path = path.ok_or_else(|| ApiError::validation("AsyncInferenceConfig needs an S3OutputPath."))?;
    let failure = output.s3_failure_path.as_deref();
    let per_instance = given
        .client_config
        .as_ref()
        .and_then(|client| client.max_concurrent_invocations_per_instance);
    Ok(AsyncInference {
        output: s3_uri("S3OutputPath", path)?,
        failure: failure.map(|path| s3_uri("S3FailurePath", path)).transpose()?,
        per_instance: per_instance.and_then(|count| u32::try_from(count).ok()),
        kms_key: given_key(output.kms_key_id.as_ref()),
    })
}

/// The same as DescribeEndpoint shows it.
pub(super) fn async_shown(settings: &AsyncInference) -> shapes::AsyncInferenceConfig {
    let client = settings.per_instance.map(|count| shapes::AsyncInferenceClientConfig {
        max_concurrent_invocations_per_instance: Some(i64::from(count)),
    });
    shapes::AsyncInferenceConfig {
        client_config: client,
        output_config: shapes::AsyncInferenceOutputConfig {
            s3_output_path: Some(settings.output.to_string()),
            kms_key_id: settings.kms_key.clone(),
            s3_failure_path: settings.failure.as_ref().map(ToString::to_string),
            ..shapes::AsyncInferenceOutputConfig::default()
        },
    }
}

/// `ServerlessConfig` of a variant, which then has neither instance type nor count.
pub(super) fn serverless(given: &shapes::ProductionVariant) -> Result<Option<Serverless>, ApiError> {
    let Some(config) = &given.serverless_config else {
        return Ok(None);
    };
    if given.instance_type.is_some() || given.initial_instance_count.is_some() {
        return Err(ApiError::validation(format!(
            "Production variant \"{}\" has a ServerlessConfig and cannot have InstanceType or InitialInstanceCount.",
            given.variant_name
        )));
    }
    if config.memory_size_in_mb % 1024 != 0 {
        return Err(ApiError::validation(
            "MemorySizeInMB must be 1024, 2048, 3072, 4096, 5120 or 6144.",
        ));
    }
    let number = |value: i64| u32::try_from(value).map_err(|_| unsupported("A ServerlessConfig of this size"));
    let settings = Serverless {
        memory_mb: number(config.memory_size_in_mb)?,
        concurrency: number(config.max_concurrency)?,
        provisioned: config.provisioned_concurrency.map(number).transpose()?,
    };
    within(&settings)?;
    Ok(Some(settings))
}

fn within(settings: &Serverless) -> Result<(), ApiError> {
    match settings.provisioned {
        Some(provisioned) if provisioned > settings.concurrency => Err(ApiError::validation(
            "ProvisionedConcurrency must be at most MaxConcurrency.",
        )),
        _ => Ok(()),
    }
}

/// `ServerlessUpdateConfig`.
pub(super) fn update(
    variant: &mut ProductionVariant,
    given: &shapes::ProductionVariantServerlessUpdateConfig,
) -> Result<(), ApiError> {
    let name = variant.name.clone();
    let settings = variant.serverless.as_mut().ok_or_else(|| {
        ApiError::validation(format!(
            "Variant \"{name}\" is not serverless and takes no ServerlessUpdateConfig."
        ))
    })?;
    let number = |value: i64| u32::try_from(value).map_err(|_| unsupported("A ServerlessConfig of this size"));
    if let Some(concurrency) = given.max_concurrency {
        settings.concurrency = number(concurrency)?;
    }
    if let Some(provisioned) = given.provisioned_concurrency {
        settings.provisioned = Some(number(provisioned)?);
    }
    within(settings)
}

/// The same as DescribeEndpoint shows it.
pub(super) fn serverless_shown(settings: &Serverless) -> shapes::ProductionVariantServerlessConfig {
    shapes::ProductionVariantServerlessConfig {
        memory_size_in_mb: i64::from(settings.memory_mb),
        max_concurrency: i64::from(settings.concurrency),
        provisioned_concurrency: settings.provisioned.map(i64::from),
    }
}

/// Whether these settings and models go together. Data of a model in a VPC would have to travel through that, so it is
/// neither captured nor queued (CC-63, NI-18); what AWS keeps from serverless variants, they have not here either.
pub(super) fn fits<'a>(
    capture: Option<&DataCapture>,
    queue: Option<&AsyncInference>,
    variants: impl IntoIterator<Item = (&'a ProductionVariant, &'a ModelSpec)>,
) -> Result<(), ApiError> {
    let captures = capture.is_some_and(|capture| capture.enabled);
    let variants: Vec<_> = variants.into_iter().collect();
    let any = |test: fn(&ModelSpec) -> bool| variants.iter().any(|(_, model)| test(model));
    let in_vpc = any(|model| model.network.vpc().is_some());
    let queued = queue.is_some();
    let serverless: Vec<_> = variants
        .iter()
        .filter(|(variant, _)| variant.serverless.is_some())
        .collect();
    let of_serverless = |test: fn(&ModelSpec) -> bool| serverless.iter().any(|(_, model)| test(model));
    let some = !serverless.is_empty();
    let several = any(|model| model.several.is_some());
    let many = any(|model| matches!(model.data, Some(ModelData::Many { .. })));
    refuse(&[
        (captures && in_vpc, "DataCaptureConfig of a model with VpcConfig"),
        (queued && in_vpc, "AsyncInferenceConfig of a model with VpcConfig"),
        (queued && captures, "DataCaptureConfig with AsyncInferenceConfig"),
        (
            queued && variants.len() > 1,
            "AsyncInferenceConfig with several production variants",
        ),
        (
            queued && several,
            "AsyncInferenceConfig of a model of several containers",
        ),
        (queued && many, "AsyncInferenceConfig of a model of Mode MultiModel"),
        (queued && some, "AsyncInferenceConfig with ServerlessConfig"),
        (some && captures, "DataCaptureConfig with ServerlessConfig"),
        (
            some && variants.len() > 1,
            "ServerlessConfig with several production variants",
        ),
        (
            of_serverless(|model| model.network.isolated()),
            "ServerlessConfig of a model with EnableNetworkIsolation",
        ),
        (
            of_serverless(|model| model.network.vpc().is_some()),
            "ServerlessConfig of a model with VpcConfig",
        ),
        (some && several, "ServerlessConfig of a model of several containers"),
        (some && many, "ServerlessConfig of a model of Mode MultiModel"),
    ])
}

/// The same of a fleet as it is to be.
pub(super) fn fleet_fits(fleet: &Fleet) -> Result<(), ApiError> {
    let variants = fleet.variants.iter().map(|one| (&one.variant, &one.model));
    fits(fleet.capture.as_ref(), fleet.asynchronous.as_ref(), variants)
}

/// An endpoint is asked by one way for as long as it exists: what waits in a queue could not be carried over.
pub(super) fn same_way(fresh: &Fleet, active: Option<&Fleet>) -> Result<(), ApiError> {
    match active {
        Some(active) if active.asynchronous.is_some() != fresh.asynchronous.is_some() => {
            Err(unsupported("An update from or to an AsyncInferenceConfig"))
        }
        _ => Ok(()),
    }
}
