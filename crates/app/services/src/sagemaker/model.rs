//! CreateModel, Describe, List, Delete. Models never change (SM-19, AU-8).

use super::check::{
    DataRule, attachment, isolation, model_data, pass_role, product, refuse, refused, role, s3_uri, shown,
};
use super::listing::{Listing, descending, page};
use super::{conditions, create, creating, delete, find, keep, kept, model_package, shapes, tag};
use crate::platform::Actor;
use crate::{Ctx, Operation};
use isolarium_model::Arn;
use isolarium_model::sagemaker::model::{ExecutionMode, FurtherContainer, ModelSpec, SeveralContainers};
use isolarium_model::sagemaker::{ContainerSpec, Echo, JobNetwork, Model, ModelData};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};

/// SM-60.
pub(super) fn missing(arn: &Arn) -> ApiError {
    ApiError::validation(format!("Could not find model \"{arn}\"."))
}

fn taken(arn: &Arn) -> ApiError {
    ApiError::validation(format!("Cannot create already existing model \"{arn}\"."))
}

impl Operation for shapes::CreateModelInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateModel";
    type Output = shapes::CreateModelOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let arn = Model::arn(&ctx.caller.scope, &self.model_name);
        let question = conditions::model(Question::on("sagemaker:CreateModel", &arn), self);
        let mut questions = creating(question, &arn, self.tags.as_ref());
        questions.extend(self.execution_role_arn.iter().map(|role| pass_role(role, &arn)));
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        let arn = Model::arn(scope, &request.model_name);
        let key = Model::key(scope, &request.model_name);
        let tags = tag::of_request(request.tags.clone())?;
        let unpacked = model_package::unpacked(ctx, &request)?;
        let (listed, mode) = containers(&unpacked.request)?;
        let role_arn = request.execution_role_arn.as_deref();
        let role_arn = role_arn.ok_or_else(|| ApiError::validation("ExecutionRoleArn is required."))?;
        let role_arn = role(ctx, role_arn)?;
        many_models(&listed)?;
        let mut containers = Vec::new();
        for (number, given) in listed.iter().enumerate() {
            containers.push(FurtherContainer {
                hostname: hostname(given, number),
                container: ContainerSpec {
                    image: image(given)?,
                    environment: environment(given),
                },
                data: data(given)?,
            });
        }
        let isolated = request.enable_network_isolation;
        if find::<Model>(ctx, &key)?.is_some() {
            return Err(taken(&arn));
        }
        let actor = Actor {
            scope: scope.clone(),
            role_arn: role_arn.clone(),
            owner_arn: arn.clone(),
        };
        ctx.platform.assume(&actor).map_err(refused)?;
        if let Some(package) = unpacked.package.as_ref().filter(|_| unpacked.is_product) {
            product(&arn, &package.arn, isolated.unwrap_or(false))?;
        }
        for one in &containers {
            isolation(ctx, &arn, &one.container.image, isolated.unwrap_or(false))?;
        }
        let network = JobNetwork::new(isolated, attachment(ctx, &actor, request.vpc_config.as_ref())?);
        for one in &containers {
            ctx.platform
                .check_image(&actor, &one.container.image)
                .map_err(refused)?;
            if let Some(data) = &one.data {
                let rule = match data {
                    ModelData::Archive { .. } | ModelData::Object { .. } => DataRule::Object,
                    ModelData::Prefix { .. } => DataRule::AnyBelow,
                    ModelData::Many { .. } => DataRule::Below,
                };
                model_data(ctx, &actor, data.uri(), &data.uri().to_string(), rule, &network)?;
            }
        }
        let mut containers = containers.into_iter();
        let first = containers.next().ok_or_else(neither)?;
        let others: Vec<_> = containers.collect();
        let spec = ModelSpec {
            container: first.container,
            data: first.data,
            role_arn,
            network,
            package: unpacked.package.map(Box::new),
            several: (!others.is_empty()).then(|| {
                Box::new(SeveralContainers {
                    mode,
                    first: first.hostname,
                    others,
                })
            }),
        };
        let model = Model {
            name: request.model_name.clone(),
            arn: arn.clone(),
            created: ctx.clock.now(),
            spec,
            tags,
            echo: echo(&request)?,
        };
        create(ctx, &key, &model, || taken(&arn))?;
        Ok(shapes::CreateModelOutput {
            model_arn: arn.to_string(),
        })
    }
}

fn neither() -> ApiError {
    ApiError::validation("Specify either PrimaryContainer or Containers.")
}

/// The containers in order, and how they are asked (SM-15, SM-16, CC-57).
fn containers(
    request: &shapes::CreateModelInput,
) -> Result<(Vec<&shapes::ContainerDefinition>, ExecutionMode), ApiError> {
    let listed = request.containers.as_deref().unwrap_or_default();
    let given = request.inference_execution_config.as_ref().map(|config| config.mode);
    let mode = match given {
        Some(shapes::InferenceExecutionMode::Direct) => ExecutionMode::Direct,
        Some(shapes::InferenceExecutionMode::Serial) | None => ExecutionMode::Serial,
    };
    match (&request.primary_container, listed) {
        (Some(_), [_, ..]) => Err(ApiError::validation(
            "Specify either PrimaryContainer or Containers, not both.",
        )),
        (None, []) => Err(neither()),
        (Some(_), []) | (None, [_]) if given.is_some() => Err(ApiError::validation(
            "InferenceExecutionConfig is only valid for a model of two or more Containers.",
        )),
        (Some(only), []) | (None, [only]) => Ok((vec![only], mode)),
        (None, several) => {
            let named = several.iter().filter(|one| one.container_hostname.is_some()).count();
            if named < several.len() && (named > 0 || mode == ExecutionMode::Direct) {
                return Err(ApiError::validation(
                    "Each of the Containers needs a ContainerHostname if one has it, or if the Mode is Direct.",
                ));
            }
            let names: BTreeSet<String> = several
                .iter()
                .enumerate()
                .map(|(number, one)| hostname(one, number))
                .collect();
            if names.len() < several.len() {
                return Err(ApiError::validation("Each ContainerHostname must be unique."));
            }
            Ok((several.iter().collect(), mode))
        }
    }
}

/// SM-16.
fn hostname(container: &shapes::ContainerDefinition, number: usize) -> String {
    let given = container.container_hostname.clone();
    given.unwrap_or_else(|| format!("container-{}", number.saturating_add(1)))
}

pub(super) fn environment(container: &shapes::ContainerDefinition) -> BTreeMap<String, String> {
    let entries = container.environment.iter().flatten();
    entries.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn image(container: &shapes::ContainerDefinition) -> Result<String, ApiError> {
    let vpc_image = container
        .image_config
        .as_ref()
        .is_some_and(|config| config.repository_access_mode == shapes::RepositoryAccessMode::Vpc);
    refuse(&[
        (
            container.inference_specification_name.is_some(),
            "InferenceSpecificationName",
        ),
        (
            container
                .additional_model_data_sources
                .as_ref()
                .is_some_and(|all| !all.is_empty()),
            "AdditionalModelDataSources",
        ),
        (container.container_metrics_config.is_some(), "ContainerMetricsConfig"),
        (vpc_image, "ImageConfig with RepositoryAccessMode Vpc"),
    ])?;
    let image = container.image.clone().filter(|image| !image.is_empty());
    image.ok_or_else(|| ApiError::validation("Each container needs an Image or a ModelPackageName."))
}

/// What a container of Mode MultiModel must be, and no other (CC-58).
fn many_models(listed: &[&shapes::ContainerDefinition]) -> Result<(), ApiError> {
    for one in listed {
        if one.mode == Some(shapes::ContainerMode::MultiModel) {
            refuse(&[(listed.len() > 1, "Mode MultiModel beside other containers")])?;
            if one.model_data_url.is_none() || one.model_data_source.is_some() {
                return Err(ApiError::validation(
                    "A container with Mode MultiModel needs a ModelDataUrl, the prefix of its models, and no ModelDataSource.",
                ));
            }
        } else if one.multi_model_config.is_some() {
            return Err(ApiError::validation(
                "MultiModelConfig is only valid for a container with Mode MultiModel.",
            ));
        }
    }
    Ok(())
}

/// The prefix below which the archives of a container of Mode MultiModel lie: `TargetModel` is a path below it.
fn prefix_of_many(container: &shapes::ContainerDefinition, url: &str) -> Result<ModelData, ApiError> {
    let mut uri = s3_uri("ModelDataUrl", url)?;
    if !uri.key.is_empty() && !uri.key.ends_with('/') {
        uri.key.push('/');
    }
    let setting = container.multi_model_config.as_ref();
    let setting = setting.and_then(|config| config.model_cache_setting);
    Ok(ModelData::Many {
        uri,
        caches: setting != Some(shapes::ModelCacheSetting::Disabled),
    })
}

/// Where the model's files come from (SM-15).
pub(super) fn data(container: &shapes::ContainerDefinition) -> Result<Option<ModelData>, ApiError> {
    let source = container
        .model_data_source
        .as_ref()
        .and_then(|source| source.s3_data_source.as_ref());
    match (&container.model_data_url, source) {
        (Some(_), Some(_)) => Err(ApiError::validation(
            "Specify either ModelDataUrl or ModelDataSource, not both.",
        )),
        (None, None) => Ok(None),
        (Some(url), None) if container.mode == Some(shapes::ContainerMode::MultiModel) => {
            prefix_of_many(container, url).map(Some)
        }
        (Some(url), None) => Ok(Some(ModelData::Archive {
            uri: s3_uri("ModelDataUrl", url)?,
        })),
        (None, Some(source)) => {
            refuse(&[
                (source.model_access_config.is_some(), "ModelAccessConfig"),
                (source.hub_access_config.is_some(), "HubAccessConfig"),
                (source.manifest_s3_uri.is_some(), "ManifestS3Uri"),
                (source.e_tag.is_some() || source.manifest_etag.is_some(), "ETag"),
            ])?;
            let uri = s3_uri("S3Uri", &source.s3_uri)?;
            match (source.s3_data_type, source.compression_type) {
                (shapes::S3ModelDataType::S3Object, shapes::ModelCompressionType::Gzip) => {
                    Ok(Some(ModelData::Archive { uri }))
                }
                (shapes::S3ModelDataType::S3Object, shapes::ModelCompressionType::None) => {
                    Ok(Some(ModelData::Object { uri }))
                }
                (shapes::S3ModelDataType::S3Prefix, shapes::ModelCompressionType::None) if uri.key.ends_with('/') => {
                    Ok(Some(ModelData::Prefix { uri }))
                }
                (shapes::S3ModelDataType::S3Prefix, shapes::ModelCompressionType::None) => Err(ApiError::validation(
                    "With S3DataType S3Prefix the S3Uri must end with \"/\".",
                )),
                (shapes::S3ModelDataType::S3Prefix, shapes::ModelCompressionType::Gzip) => Err(ApiError::validation(
                    "CompressionType Gzip is only valid with S3DataType S3Object.",
                )),
            }
        }
    }
}

fn echo(request: &shapes::CreateModelInput) -> Result<Echo, ApiError> {
    let mut echo = Echo::new();
    let shown = |container: &shapes::ContainerDefinition| shapes::ContainerDefinition {
        // Describe names the mode also where the request did not (SM-18).
        mode: Some(container.mode.unwrap_or(shapes::ContainerMode::SingleModel)),
        environment: container.environment.clone().filter(|entries| !entries.is_empty()),
        ..container.clone()
    };
    keep(
        &mut echo,
        "PrimaryContainer",
        request.primary_container.as_ref().map(shown).as_ref(),
    )?;
    let listed: Option<Vec<_>> = request.containers.as_ref().map(|all| all.iter().map(shown).collect());
    keep(&mut echo, "Containers", listed.as_ref())?;
    keep(
        &mut echo,
        "InferenceExecutionConfig",
        request.inference_execution_config.as_ref(),
    )?;
    Ok(echo)
}

/// Asks about one model.
fn ask(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
    Question::on(action, &Model::arn(&ctx.caller.scope, name))
}

impl Operation for shapes::DescribeModelInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeModel";
    type Output = shapes::DescribeModelOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DescribeModel", &self.model_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (scope, name) = (&ctx.caller.scope, &request.get().model_name);
        let found = find::<Model>(ctx, &Model::key(scope, name))?;
        described(found.ok_or_else(|| missing(&Model::arn(scope, name)))?.record)
    }
}

/// What DescribeModel shows.
pub(super) fn described(model: Model) -> Result<shapes::DescribeModelOutput, ApiError> {
    Ok(shapes::DescribeModelOutput {
        primary_container: kept(&model.echo, "PrimaryContainer")?,
        containers: kept(&model.echo, "Containers")?,
        inference_execution_config: kept(&model.echo, "InferenceExecutionConfig")?,
        execution_role_arn: Some(model.spec.role_arn.to_string()),
        vpc_config: shown(&model.spec.network),
        creation_time: model.created.0,
        model_arn: model.arn.to_string(),
        // Always a boolean (SM-18, AU-18).
        enable_network_isolation: Some(model.spec.network.isolated()),
        deployment_recommendation: None,
        model_name: model.name,
    })
}

impl Operation for shapes::ListModelsInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListModels";
    type Output = shapes::ListModelsOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListModels")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by {
                shapes::ModelSortKey::Name => SortBy::Name,
                shapes::ModelSortKey::CreationTime => SortBy::Created,
            }),
            descending: descending(request.sort_order),
            next_token: request.next_token,
            max_results: request.max_results,
            name_contains: request.name_contains,
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            ..Listing::default()
        };
        let (rows, next_token) = page::<Model>(ctx, listing)?;
        let models = rows.into_iter().map(|row| shapes::ModelSummary {
            model_name: row.record.name,
            model_arn: row.record.arn.to_string(),
            creation_time: row.record.created.0,
        });
        Ok(shapes::ListModelsOutput {
            models: models.collect(),
            next_token,
        })
    }
}

impl Operation for shapes::DeleteModelInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteModel";
    type Output = shapes::DeleteModelOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DeleteModel", &self.model_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let (scope, name) = (&ctx.caller.scope, &request.get().model_name);
        // A model in use may go too (SM-19).
        delete::<Model>(ctx, &Model::key(scope, name), || missing(&Model::arn(scope, name)))?;
        Ok(shapes::DeleteModelOutput {})
    }
}
