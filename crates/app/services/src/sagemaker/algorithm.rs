//! CreateAlgorithm, Describe, List, Delete, and what training jobs get of an algorithm (SM-42..44, NI-15). Algorithms never
//! change but by the operator's import of a product.

use super::check::refuse;
use super::inference::{inference, pinned};
use super::listing::{Listing, page};
use super::{create, creating, delete, find, keep, kept, must_keep, shapes, tag, training_spec};
use crate::{Ctx, Operation};
use isolarium_model::Arn;
use isolarium_model::sagemaker::Echo;
use isolarium_model::sagemaker::algorithm::{
    Algorithm, ChannelRule, Given, GivenChannel, Parameter, ParameterKind, TrainingRules,
};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};

fn missing(arn: &Arn) -> ApiError {
    ApiError::validation(format!("Could not find algorithm \"{arn}\"."))
}

fn taken(arn: &Arn) -> ApiError {
    ApiError::validation(format!("Cannot create already existing algorithm \"{arn}\"."))
}

/// The name in a member that takes a name or an ARN; an ARN of another account or region names nothing here.
fn named<'a>(ctx: &Ctx<'_>, given: &'a str) -> Option<&'a str> {
    if !given.starts_with("arn:") {
        return Some(given);
    }
    let (_, name) = given.rsplit_once('/')?;
    let own = Algorithm::arn(&ctx.caller.scope, name);
    own.as_str().eq_ignore_ascii_case(given).then_some(name)
}

/// Asks about one algorithm, given by name or ARN.
fn ask(ctx: &Ctx<'_>, action: &str, given: &str) -> Question {
    match given.parse::<Arn>() {
        Ok(arn) => Question::on(action, &arn),
        Err(_) => Question::on(action, &Algorithm::arn(&ctx.caller.scope, given)),
    }
}

/// An algorithm of the caller's account and region, by name or ARN.
pub(super) fn existing(ctx: &Ctx<'_>, given: &str) -> Result<Algorithm, ApiError> {
    let scope = &ctx.caller.scope;
    let absent = || match given.parse::<Arn>() {
        Ok(arn) => missing(&arn),
        Err(_) => missing(&Algorithm::arn(scope, given)),
    };
    let name = named(ctx, given).ok_or_else(absent)?;
    Ok(find::<Algorithm>(ctx, &Algorithm::key(scope, name))?
        .ok_or_else(absent)?
        .record)
}

impl Operation for shapes::CreateAlgorithmInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateAlgorithm";
    type Output = shapes::CreateAlgorithmOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let arn = Algorithm::arn(&ctx.caller.scope, &self.algorithm_name);
        creating(
            Question::on("sagemaker:CreateAlgorithm", &arn),
            &arn,
            self.tags.as_ref(),
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = Algorithm::arn(scope, &request.algorithm_name);
        refuse(&[
            (request.validation_specification.is_some(), "ValidationSpecification"),
            (request.certify_for_marketplace == Some(true), "CertifyForMarketplace"),
        ])?;
        let mut echo = Echo::new();
        keep(
            &mut echo,
            "AlgorithmDescription",
            request.algorithm_description.as_ref(),
        )?;
        keep(
            &mut echo,
            "TrainingSpecification",
            Some(&request.training_specification),
        )?;
        keep(
            &mut echo,
            "InferenceSpecification",
            request.inference_specification.as_ref(),
        )?;
        keep(
            &mut echo,
            "CertifyForMarketplace",
            request.certify_for_marketplace.as_ref(),
        )?;
        let algorithm = Algorithm {
            training: rules(&request.training_specification)?,
            inference: request.inference_specification.as_ref().map(inference).transpose()?,
            tags: tag::of_request(request.tags)?,
            created: ctx.clock.now(),
            product_id: None,
            arn: arn.clone(),
            echo,
            name: request.algorithm_name,
        };
        create(ctx, &Algorithm::key(scope, &algorithm.name), &algorithm, || taken(&arn))?;
        Ok(shapes::CreateAlgorithmOutput {
            algorithm_arn: arn.to_string(),
        })
    }
}

/// The rules of a training specification (SM-44).
fn rules(given: &shapes::TrainingSpecification) -> Result<TrainingRules, ApiError> {
    refuse(&[(
        given.additional_s3_data_source.is_some(),
        "AdditionalS3DataSource of a TrainingSpecification",
    )])?;
    let texts = |all: &[String]| all.iter().cloned().collect::<BTreeSet<String>>();
    let mut channels = BTreeMap::new();
    for one in &given.training_channels {
        let compression = one.supported_compression_types.iter().flatten();
        let rule = ChannelRule {
            required: one.is_required.unwrap_or(false),
            content_types: texts(&one.supported_content_types),
            compression_types: compression.map(|kind| kind.as_str().to_owned()).collect(),
            input_modes: one
                .supported_input_modes
                .iter()
                .map(|mode| mode.as_str().to_owned())
                .collect(),
        };
        if channels.insert(one.name.clone(), rule).is_some() {
            return Err(ApiError::validation(format!(
                "The training channel \"{}\" is specified twice.",
                one.name
            )));
        }
    }
    let metrics = training_spec::metric_definitions(given.metric_definitions.as_deref().unwrap_or_default())?;
    let objectives = given.supported_tuning_job_objective_metrics.iter().flatten();
    let objectives: BTreeSet<(String, String)> = objectives
        .map(|one| (one.r#type.as_str().to_owned(), one.metric_name.clone()))
        .collect();
    if let Some((_, name)) = objectives
        .iter()
        .find(|(_, name)| !metrics.iter().any(|one| one.name == *name))
    {
        return Err(ApiError::validation(format!(
            "The objective metric \"{name}\" is not among the MetricDefinitions."
        )));
    }
    Ok(TrainingRules {
        image: pinned(&given.training_image, given.training_image_digest.as_ref()),
        parameters: given
            .supported_hyper_parameters
            .as_deref()
            .map(parameters)
            .transpose()?,
        instance_types: texts(&given.supported_training_instance_types),
        distributed: given.supports_distributed_training.unwrap_or(false),
        metrics,
        channels,
        objectives,
    })
}

fn parameters(given: &[shapes::HyperParameterSpecification]) -> Result<BTreeMap<String, Parameter>, ApiError> {
    let mut all = BTreeMap::new();
    for one in given {
        let parameter = Parameter {
            kind: kind(one)?,
            tunable: one.is_tunable.unwrap_or(false),
            required: one.is_required.unwrap_or(false),
            default: one.default_value.clone(),
        };
        if let Some(value) = one.default_value.as_ref().filter(|value| !parameter.takes(value)) {
            return Err(ApiError::validation(format!(
                "The default value \"{value}\" of the hyperparameter \"{}\" is not in its range.",
                one.name
            )));
        }
        if all.insert(one.name.clone(), parameter).is_some() {
            return Err(ApiError::validation(format!(
                "The hyperparameter \"{}\" is specified twice.",
                one.name
            )));
        }
    }
    Ok(all)
}

fn kind(given: &shapes::HyperParameterSpecification) -> Result<ParameterKind, ApiError> {
    let range = given.range.as_ref();
    let integer = range.and_then(|range| range.integer_parameter_range_specification.as_ref());
    let continuous = range.and_then(|range| range.continuous_parameter_range_specification.as_ref());
    let categorical = range.and_then(|range| range.categorical_parameter_range_specification.as_ref());
    let bad = || {
        ApiError::validation(format!(
            "The Range of the hyperparameter \"{}\" does not fit its Type {}, or is empty.",
            given.name,
            given.r#type.as_str()
        ))
    };
    match (given.r#type, integer, continuous, categorical) {
        (shapes::ParameterType::Integer, range, None, None) => {
            let parsed = range.map(|range| Some((range.min_value.parse::<i64>().ok()?, range.max_value.parse().ok()?)));
            match parsed {
                None => Ok(ParameterKind::Integer { range: None }),
                Some(Some((min, max))) if min <= max => Ok(ParameterKind::Integer {
                    range: Some((min, max)),
                }),
                Some(_) => Err(bad()),
            }
        }
        (shapes::ParameterType::Continuous, None, range, None) => {
            let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
            let parsed = range.map(|range| Some((number(&range.min_value)?, number(&range.max_value)?)));
            match parsed {
                None => Ok(ParameterKind::Continuous { range: None }),
                Some(Some((min, max))) if min <= max => Ok(ParameterKind::Continuous {
                    range: Some((min, max)),
                }),
                Some(_) => Err(bad()),
            }
        }
        (shapes::ParameterType::Categorical, None, None, range) => Ok(ParameterKind::Categorical {
            values: range.iter().flat_map(|range| &range.values).cloned().collect(),
        }),
        (shapes::ParameterType::FreeText, None, None, None) => Ok(ParameterKind::FreeText),
        _ => Err(bad()),
    }
}

/// A request that names an algorithm, as what it comes to.
pub(super) struct Applied {
    /// As if it had named the algorithm's image, metrics and defaults itself.
    pub request: shapes::CreateTrainingJobRequest,
    /// What Describe gives back: the algorithm's name, and the hyperparameters and metrics in effect.
    pub shown: shapes::CreateTrainingJobRequest,
    pub algorithm: Option<Algorithm>,
}

impl Applied {
    /// The algorithm, where it is a product of the marketplace.
    pub fn product(&self) -> Option<&Arn> {
        self.algorithm
            .as_ref()
            .filter(|one| one.is_product())
            .map(|one| &one.arn)
    }
}

/// Takes image, metrics and defaults from the algorithm that a request names, after its rules were kept (SM-44). `tuned` are
/// hyperparameters that a tuning job chooses. A request without an algorithm stays as it is.
pub(super) fn applied(
    ctx: &Ctx<'_>,
    request: &shapes::CreateTrainingJobRequest,
    tuned: BTreeSet<String>,
) -> Result<Applied, ApiError> {
    let specification = request.algorithm_specification.as_ref();
    let name = specification.and_then(|one| one.algorithm_name.as_ref());
    let (Some(specification), Some(name)) = (specification, name) else {
        return Ok(Applied {
            request: request.clone(),
            shown: request.clone(),
            algorithm: None,
        });
    };
    if specification.training_image.is_some() {
        return Err(ApiError::validation(
            "Specify either AlgorithmName or TrainingImage, not both.",
        ));
    }
    let program = specification.container_entrypoint.is_some() || specification.container_arguments.is_some();
    if program || specification.training_image_config.is_some() {
        return Err(ApiError::validation(
            "ContainerEntrypoint, ContainerArguments and TrainingImageConfig can only be specified with a TrainingImage.",
        ));
    }
    let algorithm = existing(ctx, name)?;
    let all = algorithm.training.apply(&given(request, specification, tuned)?);
    let all = all.map_err(ApiError::validation)?;
    let metrics = metrics(&algorithm.training, specification);
    let hyper_parameters = Some(all.into_iter().collect());
    let shown = shapes::CreateTrainingJobRequest {
        hyper_parameters: hyper_parameters.clone(),
        algorithm_specification: Some(shapes::AlgorithmSpecification {
            algorithm_name: Some(algorithm.arn.to_string()),
            metric_definitions: metrics.clone(),
            ..specification.clone()
        }),
        ..request.clone()
    };
    let own = shapes::AlgorithmSpecification {
        algorithm_name: None,
        training_image: Some(algorithm.training.image.clone()),
        metric_definitions: metrics,
        ..specification.clone()
    };
    Ok(Applied {
        request: shapes::CreateTrainingJobRequest {
            hyper_parameters,
            algorithm_specification: Some(own),
            ..request.clone()
        },
        shown,
        algorithm: Some(algorithm),
    })
}

/// The algorithm of a request, where it is a product of the marketplace.
pub(super) fn product(ctx: &Ctx<'_>, request: &shapes::CreateTrainingJobRequest) -> Result<Option<Arn>, ApiError> {
    let specification = request.algorithm_specification.as_ref();
    let Some(name) = specification.and_then(|one| one.algorithm_name.as_ref()) else {
        return Ok(None);
    };
    let algorithm = existing(ctx, name)?;
    Ok(algorithm.is_product().then_some(algorithm.arn))
}

fn given(
    request: &shapes::CreateTrainingJobRequest,
    specification: &shapes::AlgorithmSpecification,
    tuned: BTreeSet<String>,
) -> Result<Given, ApiError> {
    let channels = request.input_data_config.iter().flatten().map(|one| GivenChannel {
        name: one.channel_name.clone(),
        content_type: one.content_type.clone(),
        compression_type: one.compression_type.map_or("None", |kind| kind.as_str()).to_owned(),
        input_mode: one
            .input_mode
            .unwrap_or(specification.training_input_mode)
            .as_str()
            .to_owned(),
    });
    let resources = request.resource_config.as_ref();
    let given = request.hyper_parameters.iter().flatten();
    Ok(Given {
        parameters: given.map(|(name, value)| (name.clone(), value.clone())).collect(),
        tuned,
        channels: channels.collect(),
        instance_type: resources.and_then(|one| one.instance_type.clone()).unwrap_or_default(),
        instances: training_spec::instances(request)?,
    })
}

/// The algorithm's metrics, but for those that the request defines itself.
fn metrics(
    rules: &TrainingRules,
    specification: &shapes::AlgorithmSpecification,
) -> Option<Vec<shapes::MetricDefinition>> {
    let own = specification.metric_definitions.clone().unwrap_or_default();
    let others = rules
        .metrics
        .iter()
        .filter(|one| !own.iter().any(|given| given.name == one.name));
    let others = others.map(|one| shapes::MetricDefinition {
        name: one.name.clone(),
        regex: one.regex.clone(),
    });
    let all: Vec<_> = others.collect::<Vec<_>>().into_iter().chain(own).collect();
    (!all.is_empty()).then_some(all)
}

impl Operation for shapes::DescribeAlgorithmInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeAlgorithm";
    type Output = shapes::DescribeAlgorithmOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DescribeAlgorithm", &self.algorithm_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let algorithm = existing(ctx, &request.get().algorithm_name)?;
        Ok(shapes::DescribeAlgorithmOutput {
            algorithm_arn: algorithm.arn.to_string(),
            algorithm_description: kept(&algorithm.echo, "AlgorithmDescription")?,
            creation_time: algorithm.created.0,
            training_specification: must_keep(&algorithm.echo, "TrainingSpecification")?,
            inference_specification: kept(&algorithm.echo, "InferenceSpecification")?,
            validation_specification: None,
            // Nothing is validated or scanned: an algorithm that was taken can be used.
            algorithm_status: shapes::AlgorithmStatus::Completed,
            algorithm_status_details: shapes::AlgorithmStatusDetails {
                validation_statuses: Some(vec![]),
                image_scan_statuses: Some(vec![]),
            },
            product_id: algorithm.product_id,
            certify_for_marketplace: kept(&algorithm.echo, "CertifyForMarketplace")?,
            algorithm_name: algorithm.name,
        })
    }
}

impl Operation for shapes::ListAlgorithmsInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListAlgorithms";
    type Output = shapes::ListAlgorithmsOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListAlgorithms")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by.as_str() {
                "Name" => SortBy::Name,
                _ => SortBy::Created,
            }),
            descending: request.sort_order == Some(shapes::SortOrder::Descending),
            next_token: request.next_token,
            max_results: request.max_results,
            name_contains: request.name_contains,
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            ..Listing::default()
        };
        let (rows, next_token) = page::<Algorithm>(ctx, listing)?;
        let each = rows.into_iter().map(|row| {
            Ok(shapes::AlgorithmSummary {
                algorithm_arn: row.record.arn.to_string(),
                algorithm_description: kept(&row.record.echo, "AlgorithmDescription")?,
                creation_time: row.record.created.0,
                algorithm_status: shapes::AlgorithmStatus::Completed,
                algorithm_name: row.record.name,
            })
        });
        Ok(shapes::ListAlgorithmsOutput {
            algorithm_summary_list: each.collect::<Result<_, ApiError>>()?,
            next_token,
        })
    }
}

impl Operation for shapes::DeleteAlgorithmInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteAlgorithm";
    type Output = shapes::DeleteAlgorithmOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DeleteAlgorithm", &self.algorithm_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (scope, name) = (&ctx.caller.scope, &request.get().algorithm_name);
        // Jobs that use it keep what they took from it.
        delete::<Algorithm>(ctx, &Algorithm::key(scope, name), || {
            missing(&Algorithm::arn(scope, name))
        })?;
        Ok(shapes::DeleteAlgorithmOutput {})
    }
}

#[cfg(test)]
mod tests;
