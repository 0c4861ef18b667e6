//! From a CreateTrainingJob request to what the engine acts on. What it does not carry out yet is refused here.

use super::channels::{JOB_PIPES, channels};
use super::check::{encrypted_volume, given_key, refuse, s3_uri, unsupported};
use super::{keep, shapes};
use isolarium_model::Arn;
use isolarium_model::sagemaker::metric_pattern::MetricPattern;
use isolarium_model::sagemaker::network::MAX_PEERS;
use isolarium_model::sagemaker::training_job::{
    CheckpointConfig, InstanceGroup, JobSpec, MetricDefinition, OutputCompression, OutputConfig,
};
use isolarium_model::sagemaker::{ContainerSpec, Echo, InstanceTable, JobNetwork};
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};

type Request = shapes::CreateTrainingJobRequest;

/// Time limit of a job that names none, seconds (SM-32).
const DEFAULT_MAX_RUNTIME: u64 = 86_400;

/// Longest time limit that a job may name, seconds: 28 days (SM-32).
const LONGEST_RUN: u64 = 28 * 86_400;

/// Longest time for which a warm pool is kept, seconds.
const LONGEST_POOL: u64 = 3600;

/// Where checkpoints lie unless the request says otherwise (CC-16).
const CHECKPOINTS: &str = "/opt/ml/checkpoints";

/// Directories that a checkpoint path may not cover or lie in: the platform's own and the kernel's.
const RESERVED: [&str; 7] = [
    "/opt/ml/input",
    "/opt/ml/model",
    "/opt/ml/output",
    "/proc",
    "/sys",
    "/dev",
    "/etc",
];

/// The typed part of a request.
pub(super) fn spec(request: &Request, role_arn: Arn, table: &InstanceTable) -> Result<JobSpec, ApiError> {
    refuse_unsupported(request)?;
    let instances = instances(request)?;
    let groups = groups(request, table)?;
    let algorithm = algorithm(request)?;
    let instance_type = match groups.first() {
        Some(first) => first.instance_type.clone(),
        None => resources(request, table)?,
    };
    let image = algorithm.training_image.clone().unwrap_or_default();
    let environment = request
        .environment
        .iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let output = &request.output_data_config;
    let compression = match output.compression_type {
        Some(shapes::OutputCompressionType::None) => OutputCompression::None,
        Some(shapes::OutputCompressionType::Gzip) | None => OutputCompression::Gzip,
    };
    let stopping = request.stopping_condition.as_ref();
    let max_runtime = stopping.and_then(|condition| condition.max_runtime_in_seconds);
    let max_pending = stopping.and_then(|condition| condition.max_pending_time_in_seconds);
    let spec = JobSpec {
        container: ContainerSpec { image, environment },
        entrypoint: algorithm.container_entrypoint.clone(),
        arguments: algorithm.container_arguments.clone(),
        hyperparameters: pairs(request),
        channels: channels(request, algorithm.training_input_mode, &groups)?,
        output: OutputConfig {
            uri: s3_uri("S3OutputPath", &output.s3_output_path)?,
            compression,
            kms_key: given_key(output.kms_key_id.as_ref()),
        },
        checkpoints: checkpoints(request)?,
        metrics: metrics(algorithm)?,
        instance_type,
        instances,
        groups,
        role_arn,
        max_runtime: run_limit(max_runtime)?,
        max_pending: max_pending.and_then(|seconds| u64::try_from(seconds).ok()),
        max_wait: max_wait(request)?,
        max_retries: retries(request),
        keep_alive: keep_alive(request)?,
        volume: None,
        network: JobNetwork::new(request.enable_network_isolation, None),
    };
    let types: Vec<&str> = spec
        .clusters()
        .into_iter()
        .map(|(_, instance_type, _)| instance_type)
        .collect();
    let resources = request.resource_config.as_ref();
    let volume = encrypted_volume(
        resources.and_then(|resources| resources.volume_kms_key_id.as_ref()),
        resources.and_then(|resources| resources.volume_size_in_gb),
        &types,
    )?;
    let spec = JobSpec { volume, ..spec };
    match spec.pipes() {
        0..=JOB_PIPES => Ok(spec),
        pipes => Err(ApiError::validation(format!(
            "A training job can have at most {JOB_PIPES} channels with input mode Pipe times instances. This one has {pipes}."
        ))),
    }
}

/// `MaxRuntimeInSeconds`; the model of the API has its least value alone (SM-32).
fn run_limit(given: Option<i64>) -> Result<u64, ApiError> {
    let given = given.and_then(|seconds| u64::try_from(seconds).ok());
    match given.unwrap_or(DEFAULT_MAX_RUNTIME) {
        seconds @ ..=LONGEST_RUN => Ok(seconds),
        _ => Err(ApiError::validation(format!(
            "Invalid MaxRuntimeInSeconds. It must be at most {LONGEST_RUN}, which is 28 days."
        ))),
    }
}

/// `MaximumRetryAttempts`; the model of the API bounds it (SM-34).
fn retries(request: &Request) -> u32 {
    let given = request.retry_strategy.as_ref();
    let given = given.map_or(0, |strategy| strategy.maximum_retry_attempts);
    u32::try_from(given).unwrap_or(0)
}

/// `KeepAlivePeriodInSeconds`: what a warm pool is kept for.
fn keep_alive(request: &Request) -> Result<u64, ApiError> {
    let resources = request.resource_config.as_ref();
    let given = resources.and_then(|resources| resources.keep_alive_period_in_seconds);
    kept_alive(given.unwrap_or(0))
}

/// A `KeepAlivePeriodInSeconds` of a request.
pub(super) fn kept_alive(given: i64) -> Result<u64, ApiError> {
    match u64::try_from(given) {
        Ok(seconds) if seconds <= LONGEST_POOL => Ok(seconds),
        _ => Err(ApiError::validation(format!(
            "KeepAlivePeriodInSeconds must be between 0 and {LONGEST_POOL}."
        ))),
    }
}

/// `MaxWaitTimeInSeconds` of managed spot training, which must have one (SM-32).
fn max_wait(request: &Request) -> Result<Option<u64>, ApiError> {
    let stopping = request.stopping_condition.as_ref();
    let given = stopping.and_then(|condition| condition.max_wait_time_in_seconds);
    let run = stopping.and_then(|condition| condition.max_runtime_in_seconds);
    let least = run.and_then(|seconds| u64::try_from(seconds).ok());
    let least = least.unwrap_or(DEFAULT_MAX_RUNTIME);
    if request.enable_managed_spot_training != Some(true) {
        return match given {
            None => Ok(None),
            Some(_) => Err(ApiError::validation(
                "MaxWaitTimeInSeconds is only valid when EnableManagedSpotTraining is true.",
            )),
        };
    }
    let given = given.and_then(|seconds| u64::try_from(seconds).ok());
    match given.filter(|most| *most >= least) {
        Some(most) => Ok(Some(most)),
        None => Err(ApiError::validation(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds.",
        )),
    }
}

/// Members that Describe gives back as they came.
pub(super) fn echo(request: &Request) -> Result<Echo, ApiError> {
    let mut echo = Echo::new();
    keep(
        &mut echo,
        "AlgorithmSpecification",
        request.algorithm_specification.as_ref(),
    )?;
    keep(&mut echo, "HyperParameters", request.hyper_parameters.as_ref())?;
    keep(&mut echo, "InputDataConfig", request.input_data_config.as_ref())?;
    keep(&mut echo, "OutputDataConfig", Some(&request.output_data_config))?;
    keep(&mut echo, "ResourceConfig", request.resource_config.as_ref())?;
    keep(&mut echo, "StoppingCondition", request.stopping_condition.as_ref())?;
    keep(&mut echo, "CheckpointConfig", request.checkpoint_config.as_ref())?;
    keep(&mut echo, "DebugHookConfig", request.debug_hook_config.as_ref())?;
    keep(&mut echo, "ProfilerConfig", request.profiler_config.as_ref())?;
    keep(&mut echo, "ExperimentConfig", request.experiment_config.as_ref())?;
    keep(&mut echo, "Environment", request.environment.as_ref())?;
    keep(&mut echo, "RetryStrategy", request.retry_strategy.as_ref())?;
    keep(
        &mut echo,
        "EnableInterContainerTrafficEncryption",
        request.enable_inter_container_traffic_encryption.as_ref(),
    )?;
    Ok(echo)
}

fn refuse_unsupported(request: &Request) -> Result<(), ApiError> {
    let some = |present: bool, what: &'static str| (present, what);
    let filled = |list: Option<usize>| list.is_some_and(|length| length > 0);
    refuse(&[
        some(
            filled(request.debug_rule_configurations.as_ref().map(Vec::len)),
            "DebugRuleConfigurations",
        ),
        some(
            filled(request.profiler_rule_configurations.as_ref().map(Vec::len)),
            "ProfilerRuleConfigurations",
        ),
        some(request.tensor_board_output_config.is_some(), "TensorBoardOutputConfig"),
        some(
            request
                .remote_debug_config
                .as_ref()
                .is_some_and(|c| c.enable_remote_debug == Some(true)),
            "RemoteDebugConfig with EnableRemoteDebug",
        ),
        some(
            request
                .infra_check_config
                .as_ref()
                .is_some_and(|c| c.enable_infra_check == Some(true)),
            "InfraCheckConfig with EnableInfraCheck",
        ),
        some(
            request
                .session_chaining_config
                .as_ref()
                .is_some_and(|c| c.enable_session_tag_chaining == Some(true)),
            "SessionChainingConfig with EnableSessionTagChaining",
        ),
        some(request.serverless_job_config.is_some(), "ServerlessJobConfig"),
        some(request.mlflow_config.is_some(), "MlflowConfig"),
        some(request.model_package_config.is_some(), "ModelPackageConfig"),
    ])
}

fn algorithm(request: &Request) -> Result<&shapes::AlgorithmSpecification, ApiError> {
    let algorithm = request
        .algorithm_specification
        .as_ref()
        .ok_or_else(|| ApiError::validation("AlgorithmSpecification is required."))?;
    if algorithm.algorithm_name.is_some() && algorithm.training_image.is_some() {
        return Err(ApiError::validation(
            "Specify either AlgorithmName or TrainingImage, not both.",
        ));
    }
    let private_registry = algorithm
        .training_image_config
        .as_ref()
        .is_some_and(|config| config.training_repository_access_mode == shapes::TrainingRepositoryAccessMode::Vpc);
    refuse(&[
        (
            private_registry,
            "TrainingImageConfig with TrainingRepositoryAccessMode Vpc",
        ),
        (
            algorithm.enable_sage_maker_metrics_time_series == Some(true),
            "EnableSageMakerMetricsTimeSeries",
        ),
    ])?;
    if algorithm.training_image.as_ref().is_none_or(String::is_empty) {
        return Err(ApiError::validation(
            "AlgorithmSpecification must name a TrainingImage.",
        ));
    }
    Ok(algorithm)
}

/// How many instances a job asks for.
///
/// # Errors
/// Of a number that no job can have.
pub(super) fn instances(request: &Request) -> Result<usize, ApiError> {
    let resources = request.resource_config.as_ref();
    let groups = resources.and_then(|resources| resources.instance_groups.as_deref());
    let counts: Vec<i64> = match groups.unwrap_or_default() {
        [] => vec![resources.and_then(|resources| resources.instance_count).unwrap_or(1)],
        groups => groups.iter().map(|group| group.instance_count).collect(),
    };
    let counts = counts.into_iter().map(|count| usize::try_from(count).unwrap_or(0));
    if counts.clone().any(|count| count == 0) {
        return Err(ApiError::validation("InstanceCount must be at least 1."));
    }
    let count = counts.fold(0, usize::saturating_add);
    let many = format!("InstanceCount above {MAX_PEERS}");
    refuse(&[(count > MAX_PEERS, many.as_str())])?;
    Ok(count)
}

/// The groups of a heterogeneous cluster; none where all instances are alike.
fn groups(request: &Request, table: &InstanceTable) -> Result<Vec<InstanceGroup>, ApiError> {
    let Some(resources) = &request.resource_config else {
        return Ok(Vec::new());
    };
    let given = resources.instance_groups.as_deref().unwrap_or_default();
    if !given.is_empty() && (resources.instance_type.is_some() || resources.instance_count.is_some()) {
        return Err(ApiError::validation(
            "Specify either InstanceGroups, or InstanceType and InstanceCount in ResourceConfig, and not both.",
        ));
    }
    refuse_resources(resources)?;
    let mut names = BTreeSet::new();
    let group = |given: &shapes::InstanceGroup| {
        let name = &given.instance_group_name;
        if !names.insert(name.clone()) {
            return Err(ApiError::validation(format!(
                "The instance group name \"{name}\" is used twice."
            )));
        }
        Ok(InstanceGroup {
            name: name.clone(),
            instance_type: instance_type(Some(&given.instance_type), table)?,
            instances: usize::try_from(given.instance_count).unwrap_or(1),
        })
    };
    given.iter().map(group).collect()
}

/// The instance type of all instances.
fn resources(request: &Request, table: &InstanceTable) -> Result<String, ApiError> {
    let resources = request
        .resource_config
        .as_ref()
        .ok_or_else(|| ApiError::validation("ResourceConfig is required."))?;
    instance_type(resources.instance_type.as_deref(), table)
}

/// What no cluster can have here.
fn refuse_resources(resources: &shapes::ResourceConfig) -> Result<(), ApiError> {
    refuse(&[
        (
            resources
                .instance_groups
                .as_ref()
                .is_some_and(|groups| !groups.is_empty())
                && resources
                    .keep_alive_period_in_seconds
                    .is_some_and(|seconds| seconds > 0),
            "KeepAlivePeriodInSeconds with InstanceGroups",
        ),
        (resources.training_plan_arn.is_some(), "TrainingPlanArn"),
        (resources.instance_placement_config.is_some(), "InstancePlacementConfig"),
        (resources.instance_preferences.is_some(), "InstancePreferences"),
    ])
}

/// An instance type that this engine can stand for (CC-7).
pub(super) fn instance_type(given: Option<&str>, table: &InstanceTable) -> Result<String, ApiError> {
    let name = given.ok_or_else(|| ApiError::validation("InstanceType is required."))?;
    match table.shape(name) {
        None => Err(unsupported(&format!("The instance type {name}"))),
        Some(shape) if shape.accelerators > table.accelerators() => Err(unsupported(&format!(
            "The instance type {name}, which needs {} accelerators where this machine offers {},",
            shape.accelerators,
            table.accelerators()
        ))),
        Some(_) => Ok(name.into()),
    }
}

fn pairs(request: &Request) -> BTreeMap<String, String> {
    request
        .hyper_parameters
        .iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Definitions whose pattern can be used (CC-38).
fn metrics(algorithm: &shapes::AlgorithmSpecification) -> Result<Vec<MetricDefinition>, ApiError> {
    metric_definitions(algorithm.metric_definitions.as_deref().unwrap_or_default())
}

/// As [`metrics`], of whatever defines some.
pub(super) fn metric_definitions(given: &[shapes::MetricDefinition]) -> Result<Vec<MetricDefinition>, ApiError> {
    given
        .iter()
        .map(|one| match MetricPattern::compile(&one.regex) {
            Some(_) => Ok(MetricDefinition {
                name: one.name.clone(),
                regex: one.regex.clone(),
            }),
            None => Err(ApiError::validation(format!(
                "The Regex \"{}\" of the metric definition \"{}\" is not a valid regular expression.",
                one.regex, one.name
            ))),
        })
        .collect()
}

fn checkpoints(request: &Request) -> Result<Option<CheckpointConfig>, ApiError> {
    let Some(given) = &request.checkpoint_config else {
        return Ok(None);
    };
    let local_path = given.local_path.clone().unwrap_or_else(|| CHECKPOINTS.into());
    let trimmed = local_path.trim_end_matches('/');
    let plain = trimmed.starts_with('/')
        && trimmed
            .split('/')
            .skip(1)
            .all(|part| !part.is_empty() && part != "." && part != "..");
    let inside = |outer: &str, inner: &str| {
        inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
    };
    let clashes = RESERVED
        .iter()
        .any(|reserved| inside(reserved, trimmed) || inside(trimmed, reserved));
    if !plain || clashes {
        return Err(ApiError::validation(format!(
            "The checkpoint LocalPath \"{local_path}\" cannot be used."
        )));
    }
    Ok(Some(CheckpointConfig {
        uri: s3_uri("S3Uri", &given.s3_uri)?,
        local_path: trimmed.into(),
    }))
}
