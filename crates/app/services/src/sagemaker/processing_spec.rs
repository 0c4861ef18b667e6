//! From a CreateProcessingJob request to what the engine acts on. What it does not carry out yet is refused here.

use super::check::{encrypted_volume, given_key, refuse, s3_uri, unsupported};
use super::training_spec::instance_type;
use super::{keep, shapes};
use crate::Ctx;
use isolarium_model::Arn;
use isolarium_model::sagemaker::network::MAX_PEERS;
use isolarium_model::sagemaker::processing_job::{
    LocalPath, PROCESSING, ProcessingInput, ProcessingOutput, ProcessingSpec, UploadMode,
};
use isolarium_model::sagemaker::training_job::{Distribution, S3DataType};
use isolarium_model::sagemaker::{ContainerSpec, Echo, FeatureGroup, InstanceTable, JobNetwork};
use isolarium_wire::ApiError;
use std::collections::BTreeSet;

type Request = shapes::CreateProcessingJobRequest;

/// Time limit of a job that names none, seconds (SM-40).
const DEFAULT_MAX_RUNTIME: u64 = 86_400;

/// The typed part of a request.
pub(super) fn spec(request: &Request, role_arn: Arn, table: &InstanceTable) -> Result<ProcessingSpec, ApiError> {
    instances(request)?;
    let cluster = &request.processing_resources.cluster_config;
    refuse(&[
        (cluster.instance_preferences.is_some(), "InstancePreferences"),
        (cluster.selected_instance_type.is_some(), "SelectedInstanceType"),
        (cluster.selected_instance_count.is_some(), "SelectedInstanceCount"),
    ])?;
    let program = &request.app_specification;
    if program.image_uri.is_empty() {
        return Err(ApiError::validation("AppSpecification must name an ImageUri."));
    }
    let environment = request.environment.iter().flatten();
    let (inputs, outputs) = (inputs(request)?, outputs(request)?);
    apart(&inputs, &outputs)?;
    let max_runtime = request.stopping_condition.as_ref();
    let max_runtime = max_runtime.and_then(|condition| u64::try_from(condition.max_runtime_in_seconds).ok());
    let instance_type = instance_type(cluster.instance_type.as_deref(), table)?;
    Ok(ProcessingSpec {
        volume: encrypted_volume(
            cluster.volume_kms_key_id.as_ref(),
            Some(cluster.volume_size_in_gb),
            &[&instance_type],
        )?,
        container: ContainerSpec {
            image: program.image_uri.clone(),
            environment: environment.map(|(name, value)| (name.clone(), value.clone())).collect(),
        },
        entrypoint: program.container_entrypoint.clone(),
        arguments: program.container_arguments.clone(),
        inputs,
        outputs,
        instance_type,
        role_arn,
        max_runtime: max_runtime.unwrap_or(DEFAULT_MAX_RUNTIME),
        network: JobNetwork::new(isolation(request), None),
        kms_key: given_key(
            request
                .processing_output_config
                .as_ref()
                .and_then(|config| config.kms_key_id.as_ref()),
        ),
    })
}

/// Members that Describe gives back as they came.
pub(super) fn echo(request: &Request) -> Result<Echo, ApiError> {
    let mut echo = Echo::new();
    keep(&mut echo, "ProcessingInputs", request.processing_inputs.as_ref())?;
    keep(
        &mut echo,
        "ProcessingOutputConfig",
        request.processing_output_config.as_ref(),
    )?;
    keep(&mut echo, "ProcessingResources", Some(&request.processing_resources))?;
    keep(&mut echo, "AppSpecification", Some(&request.app_specification))?;
    keep(&mut echo, "Environment", request.environment.as_ref())?;
    keep(&mut echo, "NetworkConfig", request.network_config.as_ref())?;
    keep(&mut echo, "ExperimentConfig", request.experiment_config.as_ref())?;
    Ok(echo)
}

/// `EnableNetworkIsolation`, if the request says anything of it.
pub(super) fn isolation(request: &Request) -> Option<bool> {
    request.network_config.as_ref()?.enable_network_isolation
}

/// `VpcConfig`, if the request has one.
pub(super) fn vpc_config(request: &Request) -> Option<&shapes::VpcConfig> {
    request.network_config.as_ref()?.vpc_config.as_ref()
}

/// How many instances a job asks for.
///
/// # Errors
/// Of a number that no job can have.
pub(super) fn instances(request: &Request) -> Result<usize, ApiError> {
    let count = request.processing_resources.cluster_config.instance_count.unwrap_or(1);
    let count = usize::try_from(count).unwrap_or(0);
    if count == 0 {
        return Err(ApiError::validation("InstanceCount must be at least 1."));
    }
    let many = format!("InstanceCount above {MAX_PEERS}");
    refuse(&[(count > MAX_PEERS, many.as_str())])?;
    Ok(count)
}

/// `EnableInterContainerTrafficEncryption`.
pub(super) fn encrypted(request: &Request) -> bool {
    let network = request.network_config.as_ref();
    network.and_then(|config| config.enable_inter_container_traffic_encryption) == Some(true)
}

/// Feature groups that outputs name must be there. Only the application itself stores records in them.
pub(super) fn feature_groups(ctx: &Ctx<'_>, request: &Request) -> Result<(), ApiError> {
    let outputs = request
        .processing_output_config
        .iter()
        .flat_map(|config| &config.outputs);
    for output in outputs {
        let Some(store) = &output.feature_store_output else {
            continue;
        };
        let name = &store.feature_group_name;
        if super::find::<FeatureGroup>(ctx, &FeatureGroup::key(&ctx.caller.scope, name))?.is_none() {
            return Err(ApiError::validation(format!(
                "The feature group \"{name}\" of output \"{}\" does not exist.",
                output.output_name
            )));
        }
    }
    Ok(())
}

/// The members that the platform carries out; those of `AppManaged` inputs are the application's.
fn inputs(request: &Request) -> Result<Vec<ProcessingInput>, ApiError> {
    let mut names = BTreeSet::new();
    let mut inputs = Vec::new();
    for given in request.processing_inputs.iter().flatten() {
        let name = &given.input_name;
        if name.is_empty() || !names.insert(name) {
            return Err(ApiError::validation(format!(
                "Each of ProcessingInputs needs an InputName of its own, which \"{name}\" is not."
            )));
        }
        refuse(&[(given.dataset_definition.is_some(), "DatasetDefinition")])?;
        let Some(source) = &given.s3_input else {
            return Err(ApiError::validation(format!("The input \"{name}\" needs an S3Input.")));
        };
        let uri = s3_uri("S3Uri", &source.s3_uri)?;
        if given.app_managed == Some(true) {
            continue;
        }
        let pipe = source.s3_input_mode == Some(shapes::ProcessingS3InputMode::Pipe);
        if source.s3_compression_type == Some(shapes::ProcessingS3CompressionType::Gzip) && !pipe {
            return Err(ApiError::validation(format!(
                "S3CompressionType Gzip of input \"{name}\" is only valid with S3InputMode Pipe."
            )));
        }
        refuse(&[(pipe, "S3InputMode Pipe")])?;
        inputs.push(ProcessingInput {
            name: name.clone(),
            uri,
            data_type: match source.s3_data_type {
                shapes::ProcessingS3DataType::S3Prefix => S3DataType::S3Prefix,
                shapes::ProcessingS3DataType::ManifestFile => S3DataType::ManifestFile,
            },
            distribution: match source.s3_data_distribution_type {
                Some(shapes::ProcessingS3DataDistributionType::ShardedByS3Key) => Distribution::ShardedByS3Key,
                Some(shapes::ProcessingS3DataDistributionType::FullyReplicated) | None => Distribution::FullyReplicated,
            },
            local_path: local_path("input", name, source.local_path.as_deref())?,
        });
    }
    Ok(inputs)
}

/// As [`inputs`].
fn outputs(request: &Request) -> Result<Vec<ProcessingOutput>, ApiError> {
    let mut names = BTreeSet::new();
    let mut outputs = Vec::new();
    let all = request
        .processing_output_config
        .iter()
        .flat_map(|config| &config.outputs);
    for given in all {
        let name = &given.output_name;
        if name.is_empty() || !names.insert(name) {
            return Err(ApiError::validation(format!(
                "Each of Outputs needs an OutputName of its own, which \"{name}\" is not."
            )));
        }
        let app_managed = given.app_managed == Some(true);
        if given.feature_store_output.is_some() && !app_managed {
            return Err(ApiError::validation(format!(
                "FeatureStoreOutput of output \"{name}\" is only valid with AppManaged."
            )));
        }
        let Some(target) = &given.s3_output else {
            if given.feature_store_output.is_some() {
                continue;
            }
            return Err(ApiError::validation(format!(
                "The output \"{name}\" needs an S3Output or a FeatureStoreOutput."
            )));
        };
        let uri = s3_uri("S3Uri", &target.s3_uri)?;
        if app_managed {
            continue;
        }
        outputs.push(ProcessingOutput {
            name: name.clone(),
            uri,
            mode: match target.s3_upload_mode {
                shapes::ProcessingS3UploadMode::Continuous => UploadMode::Continuous,
                shapes::ProcessingS3UploadMode::EndOfJob => UploadMode::EndOfJob,
            },
            local_path: local_path("output", name, target.local_path.as_deref())?,
        });
    }
    Ok(outputs)
}

/// CC-41.
fn local_path(kind: &str, name: &str, given: Option<&str>) -> Result<LocalPath, ApiError> {
    let Some(text) = given.filter(|text| !text.is_empty()) else {
        return Err(ApiError::validation(format!(
            "The {kind} \"{name}\" needs a LocalPath, unless AppManaged is true."
        )));
    };
    LocalPath::parse(text).map_err(|_| {
        ApiError::validation(format!(
            "LocalPath \"{text}\" of {kind} \"{name}\" must be a directory below {PROCESSING}/."
        ))
    })
}

/// Inputs may lie in each other; all else has a directory of its own.
fn apart(inputs: &[ProcessingInput], outputs: &[ProcessingOutput]) -> Result<(), ApiError> {
    let clash = |one: &str, other: &str| {
        Err(unsupported(&format!(
            "The LocalPath of \"{one}\", which that of \"{other}\" is or overlaps,"
        )))
    };
    let overlap = |a: &LocalPath, b: &LocalPath| a.holds(b) || b.holds(a);
    for (number, input) in inputs.iter().enumerate() {
        if let Some(other) = inputs
            .iter()
            .take(number)
            .find(|one| one.local_path == input.local_path)
        {
            return clash(&input.name, &other.name);
        }
    }
    for (number, output) in outputs.iter().enumerate() {
        if let Some(other) = inputs.iter().find(|one| overlap(&one.local_path, &output.local_path)) {
            return clash(&output.name, &other.name);
        }
        let earlier = outputs.iter().take(number);
        if let Some(other) = earlier.clone().find(|one| overlap(&one.local_path, &output.local_path)) {
            return clash(&output.name, &other.name);
        }
    }
    Ok(())
}
