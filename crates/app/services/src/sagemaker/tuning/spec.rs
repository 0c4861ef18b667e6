//! From a CreateHyperParameterTuningJob request to what the loop acts on, with every check that needs no account.

use super::super::check::{refuse, role};
use super::super::{algorithm, keep, shapes, training_spec};
use super::definitions;
use crate::Ctx;
use isolarium_model::sagemaker::Echo;
use isolarium_model::sagemaker::tuning_job::{
    CompletionCriteria, Definition, Domain, Goal, HyperbandResources, MAX_DEFINITIONS, OBJECTIVE_PARAMETER, Objective,
    ParameterRange, ResourceLimits, Scaling, Strategy,
};
use isolarium_tuning::{Space, grid_size, parse_continuous, parse_integer};
use isolarium_wire::ApiError;
use std::collections::BTreeSet;

type Request = shapes::CreateHyperParameterTuningJobRequest;
type Given = shapes::HyperParameterTrainingJobDefinition;

/// SM-35: limits of one tuning job.
const MAX_PARALLEL: u32 = 10;
const MAX_JOBS: u32 = 750;
const MAX_RANGES: usize = 30;
/// CC-38: metrics of one definition.
const MAX_METRICS: usize = 20;
/// Hyperparameters of one training job.
const MAX_PARAMETERS: usize = 100;
/// `MaxResource` of Hyperband.
const MAX_RESOURCE: u32 = 20_000;
/// Static hyperparameters from which `MaxResource` is inferred.
const EPOCHS: [&str; 5] = ["epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs"];

/// What a request asks for.
pub(super) struct Plan {
    pub strategy: Strategy,
    pub hyperband: Option<HyperbandResources>,
    pub limits: ResourceLimits,
    pub early_stopping: bool,
    pub criteria: CompletionCriteria,
    pub definitions: Vec<Definition>,
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::validation(text)
}

/// A definition as the creation of a training job without its tuned values: children are checked and made as any other
/// training job (SM-38).
pub(super) fn training_request(given: &Given) -> shapes::CreateTrainingJobRequest {
    let algorithm = &given.algorithm_specification;
    let mut specification = shapes::AlgorithmSpecification::new(algorithm.training_input_mode);
    specification.training_image = algorithm.training_image.clone();
    specification.algorithm_name = algorithm.algorithm_name.clone();
    specification.metric_definitions = algorithm.metric_definitions.clone();
    shapes::CreateTrainingJobRequest {
        hyper_parameters: given.static_hyper_parameters.clone(),
        algorithm_specification: Some(specification),
        role_arn: given.role_arn.clone(),
        input_data_config: given.input_data_config.clone(),
        vpc_config: given.vpc_config.clone(),
        output_data_config: given.output_data_config.clone(),
        resource_config: resources(given),
        stopping_condition: Some(given.stopping_condition.clone()),
        enable_network_isolation: given.enable_network_isolation,
        enable_inter_container_traffic_encryption: given.enable_inter_container_traffic_encryption,
        enable_managed_spot_training: given.enable_managed_spot_training,
        checkpoint_config: given.checkpoint_config.clone(),
        retry_strategy: given.retry_strategy.clone(),
        environment: given.environment.clone(),
        ..Default::default()
    }
}

/// `ResourceConfig`, or what `HyperParameterTuningResourceConfig` prefers.
fn resources(given: &Given) -> Option<shapes::ResourceConfig> {
    let Some(tuning) = &given.hyper_parameter_tuning_resource_config else {
        return given.resource_config.clone();
    };
    let preferred = tuning.instance_configs.iter().flatten().next();
    Some(shapes::ResourceConfig {
        instance_type: preferred
            .map(|one| one.instance_type.clone())
            .or_else(|| tuning.instance_type.clone()),
        instance_count: preferred.map(|one| one.instance_count).or(tuning.instance_count),
        volume_size_in_gb: preferred.map(|one| one.volume_size_in_gb).or(tuning.volume_size_in_gb),
        volume_kms_key_id: tuning.volume_kms_key_id.clone(),
        ..Default::default()
    })
}

/// Members that Describe gives back.
pub(super) fn echo(request: &Request) -> Result<Echo, ApiError> {
    let mut echo = Echo::new();
    let config = &request.hyper_parameter_tuning_job_config;
    keep(&mut echo, "HyperParameterTuningJobConfig", Some(config))?;
    // Isolation is told of every definition, also where the request said nothing (NI-4).
    let told = |given: &Given| Given {
        enable_network_isolation: Some(given.enable_network_isolation.unwrap_or(false)),
        ..given.clone()
    };
    let one = request.training_job_definition.as_ref().map(told);
    let several: Option<Vec<Given>> = request
        .training_job_definitions
        .as_ref()
        .map(|all| all.iter().map(told).collect());
    keep(&mut echo, "TrainingJobDefinition", one.as_ref())?;
    keep(&mut echo, "TrainingJobDefinitions", several.as_ref())?;
    keep(&mut echo, "WarmStartConfig", request.warm_start_config.as_ref())?;
    Ok(echo)
}

/// Everything of the request, checked as far as the request itself says.
pub(super) fn plan(ctx: &Ctx<'_>, request: &Request) -> Result<Plan, ApiError> {
    refuse(&[(request.autotune.is_some(), "Autotune")])?;
    let config = &request.hyper_parameter_tuning_job_config;
    let strategy = match config.strategy {
        shapes::HyperParameterTuningJobStrategyType::Bayesian => Strategy::Bayesian,
        shapes::HyperParameterTuningJobStrategyType::Random => Strategy::Random,
        shapes::HyperParameterTuningJobStrategyType::Hyperband => Strategy::Hyperband,
        shapes::HyperParameterTuningJobStrategyType::Grid => Strategy::Grid,
    };
    let definitions = all_definitions(ctx, request, strategy)?;
    let early_stopping = config.training_job_early_stopping_type == Some(shapes::TrainingJobEarlyStoppingType::Auto);
    Ok(Plan {
        strategy,
        hyperband: hyperband(config, strategy, early_stopping, &definitions)?,
        limits: limits(config, strategy, &definitions)?,
        early_stopping,
        criteria: criteria(config.tuning_job_completion_criteria.as_ref()),
        definitions,
    })
}

fn all_definitions(ctx: &Ctx<'_>, request: &Request, strategy: Strategy) -> Result<Vec<Definition>, ApiError> {
    let config = &request.hyper_parameter_tuning_job_config;
    let given: Vec<&Given> = definitions(request).collect();
    let several = request.training_job_definitions.is_some();
    if given.is_empty() || several == request.training_job_definition.is_some() {
        return Err(invalid(
            "Specify either TrainingJobDefinition or TrainingJobDefinitions, and not both.",
        ));
    }
    if given.len() > MAX_DEFINITIONS {
        return Err(invalid(format!(
            "A hyperparameter tuning job can have at most {MAX_DEFINITIONS} training job definitions."
        )));
    }
    if several && (config.hyper_parameter_tuning_job_objective.is_some() || config.parameter_ranges.is_some()) {
        return Err(invalid(
            "HyperParameterTuningJobObjective and ParameterRanges cannot be specified in HyperParameterTuningJobConfig \
             together with TrainingJobDefinitions: every definition has its own TuningObjective and HyperParameterRanges.",
        ));
    }
    let mut names = BTreeSet::new();
    let mut parsed = Vec::with_capacity(given.len());
    for one in given {
        if several {
            let name = one.definition_name.as_ref();
            let name = name.ok_or_else(|| invalid("Every one of TrainingJobDefinitions needs a DefinitionName."))?;
            if !names.insert(name) {
                return Err(invalid(format!("The DefinitionName {name} is used more than once.")));
            }
        }
        parsed.push(definition(ctx, one, config, strategy)?);
    }
    let searched: usize = parsed.iter().map(|one| one.ranges.len()).sum();
    if searched == 0 && strategy != Strategy::Grid {
        return Err(invalid("At least one hyperparameter range is required."));
    }
    Ok(parsed)
}

fn definition(
    ctx: &Ctx<'_>,
    given: &Given,
    config: &shapes::HyperParameterTuningJobConfig,
    strategy: Strategy,
) -> Result<Definition, ApiError> {
    let either = |own: bool, shared: bool, what: &str| {
        if own && shared {
            return Err(invalid(format!(
                "Specify {what} in the training job definition or in HyperParameterTuningJobConfig, and not in both."
            )));
        }
        Ok(())
    };
    let shared = config.hyper_parameter_tuning_job_objective.as_ref();
    either(given.tuning_objective.is_some(), shared.is_some(), "the objective")?;
    let objective = given
        .tuning_objective
        .as_ref()
        .or(shared)
        .ok_or_else(|| invalid("An objective metric is required for the hyperparameter tuning job."))?;
    let ranges = given.hyper_parameter_ranges.as_ref();
    either(ranges.is_some(), config.parameter_ranges.is_some(), "ParameterRanges")?;
    let ranges = match ranges.or(config.parameter_ranges.as_ref()) {
        Some(ranges) => parameter_ranges(ranges)?,
        None => Vec::new(),
    };
    Space::new(&ranges).map_err(|error| invalid(error.to_string()))?;
    check_parameters(given, &ranges, strategy)?;
    let tuned = ranges.iter().map(|range| range.name.clone()).collect();
    let applied = algorithm::applied(ctx, &training_request(given), tuned)?;
    let metrics = applied.request.algorithm_specification.as_ref();
    let metrics = metrics.and_then(|one| one.metric_definitions.as_deref());
    check_metrics(metrics.unwrap_or_default(), &objective.metric_name)?;
    if let Some(algorithm) = &applied.algorithm {
        check_objective(&algorithm.training.objectives, objective)?;
    }
    refuse(&[(
        given.resource_config.is_some() && given.hyper_parameter_tuning_resource_config.is_some(),
        "ResourceConfig together with HyperParameterTuningResourceConfig",
    )])?;
    let spec = training_spec::spec(
        &applied.request,
        role(ctx, &given.role_arn)?,
        &ctx.platform.settings().instances,
    )?;
    Ok(Definition {
        name: given.definition_name.clone(),
        objective: Objective {
            goal: match objective.r#type {
                shapes::HyperParameterTuningJobObjectiveType::Maximize => Goal::Maximize,
                shapes::HyperParameterTuningJobObjectiveType::Minimize => Goal::Minimize,
            },
            metric: objective.metric_name.clone(),
        },
        ranges,
        spec,
        echo: training_spec::echo(&applied.shown)?,
    })
}

fn check_parameters(given: &Given, ranges: &[ParameterRange], strategy: Strategy) -> Result<(), ApiError> {
    if ranges.len() > MAX_RANGES {
        return Err(ApiError::client(
            "ResourceLimitExceeded",
            format!(
                "The account-level service limit 'Maximum number of hyperparameters that can be searched' is {MAX_RANGES}, \
                 with a request of {}.",
                ranges.len()
            ),
        ));
    }
    let statics = given.static_hyper_parameters.iter().flatten();
    for (name, _) in statics {
        if name == OBJECTIVE_PARAMETER {
            return Err(invalid(format!(
                "The hyperparameter {OBJECTIVE_PARAMETER} is reserved for hyperparameter tuning."
            )));
        }
        if ranges.iter().any(|range| range.name == *name) {
            return Err(invalid(format!(
                "The hyperparameter {name} is specified as a static hyperparameter and as one to be tuned."
            )));
        }
    }
    let fixed = given.static_hyper_parameters.as_ref().map_or(0, |fixed| fixed.len());
    if fixed + ranges.len() + 1 > MAX_PARAMETERS {
        return Err(invalid(format!(
            "A training job can have at most {MAX_PARAMETERS} hyperparameters, {OBJECTIVE_PARAMETER} included."
        )));
    }
    let reserved = ranges.iter().any(|range| range.name == OBJECTIVE_PARAMETER);
    if reserved || ranges.iter().any(|range| range.name.is_empty()) {
        return Err(invalid(
            "A hyperparameter that is tuned has a name that cannot be used.",
        ));
    }
    let only_categories = ranges
        .iter()
        .all(|range| matches!(range.domain, Domain::Categorical { .. }));
    if strategy == Strategy::Grid && (!only_categories || ranges.is_empty()) {
        return Err(invalid(
            "Grid search needs CategoricalParameterRanges, and no ranges of other types.",
        ));
    }
    Ok(())
}

/// What an algorithm lets tuning jobs aim at; nothing named: any of its metrics.
fn check_objective(
    supported: &BTreeSet<(String, String)>,
    objective: &shapes::HyperParameterTuningJobObjective,
) -> Result<(), ApiError> {
    let wanted = (objective.r#type.as_str().to_owned(), objective.metric_name.clone());
    if supported.is_empty() || supported.contains(&wanted) {
        return Ok(());
    }
    Err(invalid(format!(
        "The algorithm does not support the objective {} of the metric \"{}\".",
        wanted.0, wanted.1
    )))
}

fn check_metrics(metrics: &[shapes::MetricDefinition], objective: &str) -> Result<(), ApiError> {
    if metrics.len() > MAX_METRICS {
        return Err(invalid(format!(
            "A hyperparameter tuning job can have at most {MAX_METRICS} metric definitions."
        )));
    }
    // There are no built-in algorithms here, whose metrics SageMaker knows by itself.
    if !metrics.iter().any(|metric| metric.name == objective) {
        return Err(invalid(
            "A metric is required for this hyperparameter tuning job objective. Provide a metric in the metric definitions.",
        ));
    }
    Ok(())
}

fn scaling(given: Option<shapes::HyperParameterScalingType>) -> Scaling {
    match given {
        Some(shapes::HyperParameterScalingType::Linear) => Scaling::Linear,
        Some(shapes::HyperParameterScalingType::Logarithmic) => Scaling::Logarithmic,
        Some(shapes::HyperParameterScalingType::ReverseLogarithmic) => Scaling::ReverseLogarithmic,
        Some(shapes::HyperParameterScalingType::Auto) | None => Scaling::Auto,
    }
}

fn parameter_ranges(given: &shapes::ParameterRanges) -> Result<Vec<ParameterRange>, ApiError> {
    let automatic = given.auto_parameters.as_ref().is_some_and(|list| !list.is_empty());
    refuse(&[(automatic, "AutoParameters")])?;
    let bad = |error: isolarium_tuning::BadRange| invalid(error.to_string());
    let mut ranges = Vec::new();
    for one in given.continuous_parameter_ranges.iter().flatten() {
        ranges.push(ParameterRange {
            name: one.name.clone(),
            domain: Domain::Continuous {
                min: parse_continuous(&one.name, &one.min_value).map_err(bad)?,
                max: parse_continuous(&one.name, &one.max_value).map_err(bad)?,
                scaling: scaling(one.scaling_type),
            },
        });
    }
    for one in given.integer_parameter_ranges.iter().flatten() {
        ranges.push(ParameterRange {
            name: one.name.clone(),
            domain: Domain::Integer {
                min: parse_integer(&one.name, &one.min_value).map_err(bad)?,
                max: parse_integer(&one.name, &one.max_value).map_err(bad)?,
                scaling: scaling(one.scaling_type),
            },
        });
    }
    for one in given.categorical_parameter_ranges.iter().flatten() {
        ranges.push(ParameterRange {
            name: one.name.clone(),
            domain: Domain::Categorical {
                values: one.values.clone(),
            },
        });
    }
    Ok(ranges)
}

fn hyperband(
    config: &shapes::HyperParameterTuningJobConfig,
    strategy: Strategy,
    early_stopping: bool,
    definitions: &[Definition],
) -> Result<Option<HyperbandResources>, ApiError> {
    let given = config.strategy_config.as_ref();
    let given = given.and_then(|one| one.hyperband_strategy_config.as_ref());
    if strategy != Strategy::Hyperband {
        return match given {
            Some(_) => Err(invalid(
                "HyperbandStrategyConfig can only be specified with the Hyperband strategy.",
            )),
            None => Ok(None),
        };
    }
    if early_stopping {
        return Err(invalid(
            "TrainingJobEarlyStoppingType must be Off with the Hyperband strategy, which has its own early stopping.",
        ));
    }
    let whole = |value: Option<i64>| value.map(|value| u32::try_from(value).unwrap_or(u32::MAX));
    let min = whole(given.and_then(|one| one.min_resource)).unwrap_or(1);
    let inferred = || {
        let all = definitions.iter().map(|one| {
            let fixed = &one.spec.hyperparameters;
            let epochs = EPOCHS.iter().find_map(|name| fixed.get(*name));
            epochs.and_then(|text| text.trim().trim_matches('"').parse::<u32>().ok())
        });
        all.collect::<Option<Vec<u32>>>()?.into_iter().max()
    };
    let max = whole(given.and_then(|one| one.max_resource))
        .or_else(inferred)
        .ok_or_else(|| {
            invalid(
                "MaxResource is required for the Hyperband strategy: it could not be inferred from the static \
                 hyperparameters.",
            )
        })?;
    if max > MAX_RESOURCE {
        return Err(invalid(format!("MaxResource can be at most {MAX_RESOURCE}.")));
    }
    if min == 0 || min > max {
        return Err(invalid("MinResource must be at least 1 and at most MaxResource."));
    }
    Ok(Some(HyperbandResources { min, max }))
}

fn limits(
    config: &shapes::HyperParameterTuningJobConfig,
    strategy: Strategy,
    definitions: &[Definition],
) -> Result<ResourceLimits, ApiError> {
    let given = &config.resource_limits;
    let parallel = u32::try_from(given.max_parallel_training_jobs).unwrap_or(u32::MAX);
    let wanted = given.max_number_of_training_jobs;
    let wanted = wanted.map(|jobs| u32::try_from(jobs).unwrap_or(u32::MAX));
    let runtime = given
        .max_runtime_in_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    let jobs = if strategy == Strategy::Grid {
        let sizes = definitions.iter().map(|one| grid_size(&one.ranges));
        let all = sizes.sum::<Option<u64>>().unwrap_or(u64::MAX);
        let all = u32::try_from(all).unwrap_or(u32::MAX);
        if wanted.is_some_and(|wanted| wanted != all) {
            return Err(invalid(format!(
                "MaxNumberOfTrainingJobs of a grid search must be absent or the number of all combinations, which is {all}."
            )));
        }
        all
    } else {
        let bounded = runtime.is_some() || config.tuning_job_completion_criteria.is_some();
        wanted
            .or_else(|| bounded.then_some(MAX_JOBS))
            .ok_or_else(|| invalid("MaxNumberOfTrainingJobs is required in ResourceLimits."))?
    };
    for (what, most, asked) in [
        ("training jobs per hyperparameter tuning job", MAX_JOBS, jobs),
        (
            "parallel training jobs per hyperparameter tuning job",
            MAX_PARALLEL,
            parallel,
        ),
    ] {
        if asked > most {
            return Err(ApiError::client(
                "ResourceLimitExceeded",
                format!(
                    "The account-level service limit 'Maximum number of {what}' is {most}, with a request of {asked}. Please \
                     contact AWS support to request an increase for this limit."
                ),
            ));
        }
    }
    if strategy != Strategy::Grid && parallel > jobs {
        return Err(invalid(
            "MaxParallelTrainingJobs cannot be larger than MaxNumberOfTrainingJobs.",
        ));
    }
    Ok(ResourceLimits {
        jobs,
        parallel,
        runtime,
    })
}

fn criteria(given: Option<&shapes::TuningJobCompletionCriteria>) -> CompletionCriteria {
    let Some(given) = given else {
        return CompletionCriteria::default();
    };
    let not_improving = given.best_objective_not_improving.as_ref();
    let convergence = given.convergence_detected.as_ref();
    CompletionCriteria {
        target: given.target_objective_metric_value,
        not_improving: not_improving
            .and_then(|one| one.max_number_of_training_jobs_not_improving)
            .and_then(|jobs| u32::try_from(jobs).ok()),
        convergence: convergence.and_then(|one| one.complete_on_convergence)
            == Some(shapes::CompleteOnConvergence::Enabled),
    }
}
