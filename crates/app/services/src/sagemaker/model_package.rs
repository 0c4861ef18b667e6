//! CreateModelPackage, Describe, List, Update, Delete, and what models take from a package (SM-42..44, NI-16).

use super::algorithm;
use super::check::refuse;
use super::inference::inference;
use super::listing::{Listing, page_of};
use super::model_package_group as group;
use super::{creating, find, keep, kept, shapes, stored, tag, update};
use crate::{Ctx, Operation};
use isolarium_model::Arn;
use isolarium_model::sagemaker::model_package::{
    Approval, Inference, ModelPackage as Package, ModelPackageGroup as Group, PackageName, PackageUse,
};
use isolarium_model::sagemaker::{Echo, ModelData};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_store::{Batch, Expect, Query, StoreError};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;

/// `CustomerMetadataProperties` of one package.
const MOST_METADATA: usize = 50;

fn missing(arn: &Arn) -> ApiError {
    ApiError::validation(format!("ModelPackage {arn} does not exist."))
}

/// Who made or changed something, as descriptions show it.
pub(super) fn author(arn: Option<&Arn>) -> shapes::UserContext {
    shapes::UserContext {
        iam_identity: arn.map(|arn| shapes::IamIdentity {
            arn: Some(arn.to_string()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The name, or `group/version`, in a member that takes it or an ARN; an ARN of another account or region names nothing
/// here.
fn labelled<'a>(ctx: &Ctx<'_>, given: &'a str) -> Option<&'a str> {
    if !given.starts_with("arn:") {
        return Some(given);
    }
    let (_, label) = given.split_once('/')?;
    let own = Package::arn(&ctx.caller.scope, label);
    own.as_str().eq_ignore_ascii_case(given).then_some(label)
}

fn arn_of(ctx: &Ctx<'_>, given: &str) -> Arn {
    given.parse().unwrap_or_else(|_| Package::arn(&ctx.caller.scope, given))
}

/// A package of the caller's account and region, by name, `group/version` or ARN.
fn existing(ctx: &Ctx<'_>, given: &str) -> Result<Package, ApiError> {
    let absent = || missing(&arn_of(ctx, given));
    let label = labelled(ctx, given).ok_or_else(absent)?;
    let key = Package::key(&ctx.caller.scope, label);
    Ok(find::<Package>(ctx, &key)?.ok_or_else(absent)?.record)
}

/// Asks about one package, with what it says of itself now.
fn ask(ctx: &Ctx<'_>, action: &str, given: &str) -> Question {
    let question = Question::on(action, &arn_of(ctx, given));
    // A package that is not there has no metadata; the execution says so to those who may know.
    let Ok(package) = existing(ctx, given) else {
        return question;
    };
    let question = package.metadata.iter().fold(question, |question, (name, value)| {
        let key = format!("sagemaker:CurrentCustomerMetadataProperties/{name}");
        question.with(&key, value.clone())
    });
    match kept::<shapes::ModelLifeCycle>(&package.echo, "ModelLifeCycle") {
        Ok(Some(cycle)) => question
            .with("sagemaker:CurrentModelLifeCycleStage", cycle.stage)
            .with("sagemaker:CurrentModelLifeCycleStageStatus", cycle.stage_status),
        Ok(None) | Err(_) => question,
    }
}

/// What a creation or an update wants of a package.
fn wanted<'m>(
    mut question: Question,
    approval: Option<shapes::ModelApprovalStatus>,
    metadata: impl IntoIterator<Item = (&'m String, &'m String)>,
    cycle: Option<&shapes::ModelLifeCycle>,
) -> Question {
    if let Some(approval) = approval {
        question = question.with("sagemaker:ModelApprovalStatus", approval.as_str());
    }
    for (name, value) in metadata {
        let key = format!("sagemaker:CustomerMetadataProperties/{name}");
        question = question.with(&key, value.clone());
    }
    match cycle {
        Some(cycle) => question
            .with("sagemaker:ModelLifeCycle:Stage", cycle.stage.clone())
            .with("sagemaker:ModelLifeCycle:StageStatus", cycle.stage_status.clone()),
        None => question,
    }
}

fn approval(given: shapes::ModelApprovalStatus) -> Approval {
    match given {
        shapes::ModelApprovalStatus::Approved => Approval::Approved,
        shapes::ModelApprovalStatus::Rejected => Approval::Rejected,
        shapes::ModelApprovalStatus::PendingManualApproval => Approval::PendingManualApproval,
    }
}

impl Operation for shapes::CreateModelPackageInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateModelPackage";
    type Output = shapes::CreateModelPackageOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let scope = &ctx.caller.scope;
        let group = self.model_package_group_name.as_ref();
        let label = match group.map(|given| group::named(ctx, given).unwrap_or(given)) {
            // Which version it will be nobody knows yet.
            Some(group) => format!("{group}/*"),
            None => self.model_package_name.clone().unwrap_or_else(|| "*".into()),
        };
        let arn = Package::arn(scope, &label);
        let question = wanted(
            Question::on("sagemaker:CreateModelPackage", &arn),
            self.model_approval_status,
            self.customer_metadata_properties.iter().flatten(),
            self.model_life_cycle.as_ref(),
        );
        creating(question, &arn, self.tags.as_ref())
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        refuse_unsupported(&request)?;
        let (inference, shown) = specification(ctx, &request)?;
        let metadata = request.customer_metadata_properties.iter().flatten();
        let metadata: BTreeMap<String, String> = metadata.map(|(k, v)| (k.clone(), v.clone())).collect();
        few_enough(&metadata)?;
        let now = ctx.clock.now();
        let mut echo = echo(&request)?;
        keep(&mut echo, "InferenceSpecification", Some(&shown))?;
        let package = |name: PackageName, label: &str| -> Result<Package, ApiError> {
            Ok(Package {
                name,
                arn: Package::arn(&ctx.caller.scope, label),
                created: now,
                modified: now,
                created_by: ctx.caller.principal.arn(),
                modified_by: None,
                client_token: request.client_token.clone(),
                inference: inference.clone(),
                metadata: metadata.clone(),
                tags: tag::of_request(request.tags.clone())?,
                echo: echo.clone(),
            })
        };
        let arn = match (&request.model_package_name, &request.model_package_group_name) {
            (Some(name), None) => {
                if request.model_approval_status.is_some() {
                    return Err(ApiError::validation(
                        "ModelApprovalStatus can only be specified for a versioned model package.",
                    ));
                }
                let package = package(PackageName::Alone { name: name.clone() }, name)?;
                let key = Package::key(&ctx.caller.scope, name);
                super::create(ctx, &key, &package, || {
                    ApiError::validation(format!(
                        "Cannot create already existing model package \"{}\".",
                        package.arn
                    ))
                })?;
                package.arn
            }
            (None, Some(group)) => {
                let given = request
                    .model_approval_status
                    .map_or(Approval::PendingManualApproval, approval);
                version(ctx, group, request.client_token.as_deref(), |name, number| {
                    let label = format!("{name}/{number}");
                    let name = PackageName::Version {
                        group: name.to_owned(),
                        version: number,
                        approval: given,
                    };
                    package(name, &label)
                })?
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(ApiError::validation(
                    "Specify either ModelPackageName or ModelPackageGroupName, and not both.",
                ));
            }
        };
        Ok(shapes::CreateModelPackageOutput {
            model_package_arn: arn.to_string(),
        })
    }
}

/// Adds the next version of a group; number and package commit together. A client token that made a version before makes no
/// other one.
fn version(
    ctx: &Ctx<'_>,
    given: &str,
    token: Option<&str>,
    make: impl Fn(&str, u32) -> Result<Package, ApiError>,
) -> Result<Arn, ApiError> {
    let scope = &ctx.caller.scope;
    let absent = || group::missing(&given.parse().unwrap_or_else(|_| Group::arn(scope, given)));
    let name = group::named(ctx, given).ok_or_else(absent)?;
    let key = Group::key(scope, name);
    loop {
        let mut found = find::<Group>(ctx, &key)?.ok_or_else(absent)?;
        if let Some(token) = token {
            let query = Query {
                name_prefix: Some(format!("{}/", name.to_ascii_lowercase())),
                ..Query::all(scope)
            };
            let rows = ctx.store.query::<Package>(&query).map_err(stored)?.rows;
            let same = rows
                .into_iter()
                .find(|row| row.record.client_token.as_deref() == Some(token));
            if let Some(same) = same {
                return Ok(same.record.arn);
            }
        }
        let number = found.record.last_version.saturating_add(1);
        found.record.last_version = number;
        let package = make(&found.record.name, number)?;
        let batch = Batch::default()
            .put(&key, Expect::At(found.revision), &found.record)
            .and_then(|batch| batch.put(&Package::key(scope, &package.label()), Expect::Absent, &package))
            .map_err(stored)?;
        match ctx.store.commit(batch) {
            Ok(_) => return Ok(package.arn),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(stored(error)),
        }
    }
}

fn few_enough(metadata: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if metadata.len() > MOST_METADATA {
        return Err(ApiError::validation(format!(
            "A model package can have at most {MOST_METADATA} CustomerMetadataProperties."
        )));
    }
    Ok(())
}

fn refuse_unsupported(request: &shapes::CreateModelPackageInput) -> Result<(), ApiError> {
    let logged = request.model_package_registration_type.map(|one| one.as_str());
    let additional = request.additional_inference_specifications.as_ref();
    refuse(&[
        (request.validation_specification.is_some(), "ValidationSpecification"),
        (request.certify_for_marketplace == Some(true), "CertifyForMarketplace"),
        (
            additional.is_some_and(|all| !all.is_empty()),
            "AdditionalInferenceSpecifications",
        ),
        (request.security_config.is_some(), "SecurityConfig"),
        (request.managed_storage_type.is_some(), "ManagedStorageType"),
        (logged == Some("Logged"), "ModelPackageRegistrationType Logged"),
    ])
}

/// How the package serves: as the request says, or as the algorithm says that made the model.
fn specification(
    ctx: &Ctx<'_>,
    request: &shapes::CreateModelPackageInput,
) -> Result<(Inference, shapes::InferenceSpecification), ApiError> {
    let source = request.source_algorithm_specification.as_ref();
    let source = match (source, &request.inference_specification) {
        (None, Some(given)) => return Ok((inference(given)?, given.clone())),
        (Some(source), None) => source,
        (Some(_), Some(_)) | (None, None) => {
            return Err(ApiError::validation(
                "Specify either InferenceSpecification or SourceAlgorithmSpecification, and not both.",
            ));
        }
    };
    let [only] = source.source_algorithms.as_slice() else {
        return Err(ApiError::validation(
            "SourceAlgorithmSpecification must have exactly one of SourceAlgorithms.",
        ));
    };
    refuse(&[(only.model_data_e_tag.is_some(), "ModelDataETag")])?;
    let made_by = algorithm::existing(ctx, &only.algorithm_name)?;
    let shown: Option<shapes::InferenceSpecification> = kept(&made_by.echo, "InferenceSpecification")?;
    let mut shown = shown.ok_or_else(|| {
        ApiError::validation(format!(
            "The algorithm \"{}\" has no InferenceSpecification.",
            made_by.arn
        ))
    })?;
    if let Some(first) = shown.containers.first_mut() {
        first.model_data_url.clone_from(&only.model_data_url);
        first.model_data_source.clone_from(&only.model_data_source);
    }
    for container in &mut shown.containers {
        // What a product makes is the product's (D-13).
        container.product_id = container.product_id.take().or_else(|| made_by.product_id.clone());
    }
    Ok((inference(&shown)?, shown))
}

fn echo(request: &shapes::CreateModelPackageInput) -> Result<Echo, ApiError> {
    let mut echo = Echo::new();
    let e = &mut echo;
    keep(e, "ModelPackageDescription", request.model_package_description.as_ref())?;
    keep(
        e,
        "ModelPackageRegistrationType",
        request.model_package_registration_type.as_ref(),
    )?;
    keep(
        e,
        "SourceAlgorithmSpecification",
        request.source_algorithm_specification.as_ref(),
    )?;
    keep(e, "CertifyForMarketplace", request.certify_for_marketplace.as_ref())?;
    keep(e, "MetadataProperties", request.metadata_properties.as_ref())?;
    keep(e, "ModelMetrics", request.model_metrics.as_ref())?;
    keep(e, "Domain", request.domain.as_ref())?;
    keep(e, "Task", request.task.as_ref())?;
    keep(e, "SamplePayloadUrl", request.sample_payload_url.as_ref())?;
    keep(e, "DriftCheckBaselines", request.drift_check_baselines.as_ref())?;
    keep(e, "SkipModelValidation", request.skip_model_validation.as_ref())?;
    keep(e, "SourceUri", request.source_uri.as_ref())?;
    keep(e, "ModelCard", request.model_card.as_ref())?;
    keep(e, "ModelLifeCycle", request.model_life_cycle.as_ref())?;
    Ok(echo)
}

impl Operation for shapes::DescribeModelPackageInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeModelPackage";
    type Output = shapes::DescribeModelPackageOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DescribeModelPackage", &self.model_package_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        described(&existing(ctx, &request.get().model_package_name)?)
    }
}

/// What DescribeModelPackage tells of a package.
pub(super) fn described(package: &Package) -> Result<shapes::DescribeModelPackageOutput, ApiError> {
    let echo = &package.echo;
    let metadata = (!package.metadata.is_empty()).then(|| package.metadata.clone().into_iter().collect());
    Ok(shapes::DescribeModelPackageOutput {
        model_package_name: shown_name(package),
        model_package_group_name: package.version().map(|(group, _)| group.to_owned()),
        model_package_version: package.version().map(|(_, number)| i64::from(number)),
        model_package_registration_type: kept(echo, "ModelPackageRegistrationType")?,
        model_package_arn: package.arn.to_string(),
        model_package_description: kept(echo, "ModelPackageDescription")?,
        creation_time: package.created.0,
        inference_specification: kept(echo, "InferenceSpecification")?,
        source_algorithm_specification: kept(echo, "SourceAlgorithmSpecification")?,
        validation_specification: None,
        // Nothing is validated or scanned: a package that was taken can be used.
        model_package_status: shapes::ModelPackageStatus::Completed,
        model_package_status_details: shapes::ModelPackageStatusDetails {
            validation_statuses: vec![],
            image_scan_statuses: Some(vec![]),
        },
        certify_for_marketplace: kept(echo, "CertifyForMarketplace")?,
        model_approval_status: package.approval().map(|one| one.as_str().parse()).transpose()?,
        created_by: package.created_by.as_ref().map(|arn| author(Some(arn))),
        metadata_properties: kept(echo, "MetadataProperties")?,
        model_metrics: kept(echo, "ModelMetrics")?,
        last_modified_time: (package.modified != package.created).then_some(package.modified.0),
        last_modified_by: package.modified_by.as_ref().map(|arn| author(Some(arn))),
        approval_description: kept(echo, "ApprovalDescription")?,
        domain: kept(echo, "Domain")?,
        task: kept(echo, "Task")?,
        sample_payload_url: kept(echo, "SamplePayloadUrl")?,
        customer_metadata_properties: metadata,
        drift_check_baselines: kept(echo, "DriftCheckBaselines")?,
        additional_inference_specifications: None,
        skip_model_validation: kept(echo, "SkipModelValidation")?,
        source_uri: kept(echo, "SourceUri")?,
        security_config: None,
        model_card: kept(echo, "ModelCard")?,
        model_life_cycle: kept(echo, "ModelLifeCycle")?,
        managed_storage_type: None,
    })
}

/// `ModelPackageName`: a version is called after its group.
fn shown_name(package: &Package) -> String {
    match &package.name {
        PackageName::Alone { name } => name.clone(),
        PackageName::Version { group, .. } => group.clone(),
    }
}

impl Operation for shapes::ListModelPackagesInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListModelPackages";
    type Output = shapes::ListModelPackagesOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListModelPackages")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let group = match &request.model_package_group_name {
            None => None,
            Some(given) => {
                let absent = || group::missing(&given.parse().unwrap_or_else(|_| Group::arn(&ctx.caller.scope, given)));
                let name = group::named(ctx, given).ok_or_else(absent)?;
                find::<Group>(ctx, &Group::key(&ctx.caller.scope, name))?.ok_or_else(absent)?;
                Some(name.to_owned())
            }
        };
        let kind = request.model_package_type.map_or("Unversioned", |kind| kind.as_str());
        let status = request.model_approval_status.map(|one| one.as_str());
        let wanted = |package: &Package| match (&group, package.version()) {
            (Some(group), Some((own, _))) => own.eq_ignore_ascii_case(group),
            (Some(_), None) => false,
            (None, Some(_)) => matches!(kind, "Versioned" | "Both"),
            (None, None) => matches!(kind, "Unversioned" | "Both"),
        };
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by.as_str() {
                "Name" => SortBy::Name,
                _ => SortBy::Created,
            }),
            descending: request.sort_order == Some(shapes::SortOrder::Descending),
            next_token: request.next_token.clone(),
            max_results: request.max_results,
            name_contains: request.name_contains.clone(),
            status,
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            ..Listing::default()
        };
        let (rows, next_token) = page_of::<Package>(ctx, listing, wanted)?;
        let each = rows.iter().map(|row| summary(&row.record));
        Ok(shapes::ListModelPackagesOutput {
            model_package_summary_list: each.collect::<Result<_, _>>()?,
            next_token,
        })
    }
}

fn summary(package: &Package) -> Result<shapes::ModelPackageSummary, ApiError> {
    Ok(shapes::ModelPackageSummary {
        model_package_name: Some(shown_name(package)),
        model_package_group_name: package.version().map(|(group, _)| group.to_owned()),
        model_package_version: package.version().map(|(_, number)| i64::from(number)),
        model_package_arn: package.arn.to_string(),
        model_package_description: kept(&package.echo, "ModelPackageDescription")?,
        creation_time: package.created.0,
        model_package_status: shapes::ModelPackageStatus::Completed,
        model_approval_status: package.approval().map(|one| one.as_str().parse()).transpose()?,
        model_life_cycle: kept(&package.echo, "ModelLifeCycle")?,
        model_package_registration_type: kept(&package.echo, "ModelPackageRegistrationType")?,
    })
}

impl Operation for shapes::UpdateModelPackageInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "UpdateModelPackage";
    type Output = shapes::UpdateModelPackageOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let question = ask(ctx, "sagemaker:UpdateModelPackage", &self.model_package_arn);
        let question = wanted(
            question,
            self.model_approval_status,
            self.customer_metadata_properties.iter().flatten(),
            self.model_life_cycle.as_ref(),
        );
        let removed = self.customer_metadata_properties_to_remove.iter().flatten();
        let question = removed.fold(question, |question, name| {
            question.with("sagemaker:CustomerMetadataPropertiesToRemove", name.clone())
        });
        vec![question]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let additional = request.additional_inference_specifications_to_add.as_ref();
        refuse(&[
            (
                additional.is_some_and(|all| !all.is_empty()),
                "AdditionalInferenceSpecificationsToAdd",
            ),
            (
                request.inference_specification.is_some(),
                "InferenceSpecification in UpdateModelPackage",
            ),
            (
                request.model_package_registration_type.is_some(),
                "ModelPackageRegistrationType in UpdateModelPackage",
            ),
        ])?;
        let given = &request.model_package_arn;
        let absent = || missing(&arn_of(ctx, given));
        let label = labelled(ctx, given).ok_or_else(absent)?;
        let now = ctx.clock.now();
        let package = update::<Package>(ctx, &Package::key(&ctx.caller.scope, label), absent, |package| {
            if let Some(given) = request.model_approval_status {
                match &mut package.name {
                    PackageName::Version { approval: own, .. } => *own = approval(given),
                    PackageName::Alone { .. } => {
                        return Err(ApiError::validation(
                            "ModelApprovalStatus can only be updated for a versioned model package.",
                        ));
                    }
                }
            }
            for name in request.customer_metadata_properties_to_remove.iter().flatten() {
                package.metadata.remove(name);
            }
            let more = request.customer_metadata_properties.iter().flatten();
            package
                .metadata
                .extend(more.map(|(name, value)| (name.clone(), value.clone())));
            few_enough(&package.metadata)?;
            keep(
                &mut package.echo,
                "ApprovalDescription",
                request.approval_description.as_ref(),
            )?;
            keep(&mut package.echo, "SourceUri", request.source_uri.as_ref())?;
            keep(&mut package.echo, "ModelCard", request.model_card.as_ref())?;
            keep(&mut package.echo, "ModelLifeCycle", request.model_life_cycle.as_ref())?;
            package.modified = now;
            package.modified_by = ctx.caller.principal.arn();
            Ok(())
        })?;
        Ok(shapes::UpdateModelPackageOutput {
            model_package_arn: package.arn.to_string(),
        })
    }
}

impl Operation for shapes::DeleteModelPackageInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteModelPackage";
    type Output = shapes::DeleteModelPackageOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "sagemaker:DeleteModelPackage", &self.model_package_name)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let package = existing(ctx, &request.get().model_package_name)?;
        // Models made of it keep what they took from it.
        let key = Package::key(&ctx.caller.scope, &package.label());
        let batch = Batch::default().delete::<Package>(&key, Expect::Any);
        ctx.store.commit(batch).map_err(stored)?;
        Ok(shapes::DeleteModelPackageOutput {})
    }
}

/// A CreateModel request with the containers of a package in the place of its name.
pub(super) struct Unpacked {
    pub request: shapes::CreateModelInput,
    pub package: Option<PackageUse>,
    /// The package is a product of the marketplace (D-13).
    pub is_product: bool,
}

/// Puts in the containers of the package that a request names, if it names one (SM-44).
pub(super) fn unpacked(ctx: &Ctx<'_>, request: &shapes::CreateModelInput) -> Result<Unpacked, ApiError> {
    let listed = request.containers.iter().flatten();
    let all: Vec<&shapes::ContainerDefinition> = request.primary_container.iter().chain(listed).collect();
    let Some(given) = all.iter().find(|one| one.model_package_name.is_some()) else {
        return Ok(Unpacked {
            request: request.clone(),
            package: None,
            is_product: false,
        });
    };
    if all.len() > 1 {
        return Err(ApiError::validation(
            "A container with a ModelPackageName must be the only one of its model.",
        ));
    }
    if given.image.is_some() || given.model_data_url.is_some() || given.model_data_source.is_some() {
        return Err(ApiError::validation(
            "Specify either ModelPackageName, or Image and model data, and not both.",
        ));
    }
    refuse(&[
        (
            given.inference_specification_name.is_some(),
            "InferenceSpecificationName",
        ),
        (
            given.mode == Some(shapes::ContainerMode::MultiModel),
            "Mode MultiModel with a ModelPackageName",
        ),
        (given.multi_model_config.is_some(), "MultiModelConfig"),
    ])?;
    let package = existing(ctx, given.model_package_name.as_deref().unwrap_or_default())?;
    if let Some(status) = package.approval().filter(|status| *status != Approval::Approved) {
        return Err(ApiError::validation(format!(
            "The model package \"{}\" cannot be deployed: its ModelApprovalStatus is {}, not Approved.",
            package.arn,
            status.as_str()
        )));
    }
    let containers = package.inference.containers.iter().map(|one| {
        let mut environment = one.container.environment.clone();
        let more = given.environment.iter().flatten();
        environment.extend(more.map(|(name, value)| (name.clone(), value.clone())));
        let (model_data_url, model_data_source) = sources(one.data.as_ref());
        shapes::ContainerDefinition {
            container_hostname: one.hostname.clone(),
            image: Some(one.container.image.clone()),
            mode: given.mode,
            model_data_url,
            model_data_source,
            environment: Some(environment.into_iter().collect()),
            ..Default::default()
        }
    });
    let containers: Vec<_> = containers.collect();
    Ok(Unpacked {
        request: shapes::CreateModelInput {
            primary_container: None,
            containers: Some(containers),
            ..request.clone()
        },
        is_product: package.inference.is_product(),
        package: Some(PackageUse {
            arn: package.arn,
            transform_types: package.inference.transform_types,
            realtime_types: package.inference.realtime_types,
        }),
    })
}

/// Model data as a request gives it.
fn sources(data: Option<&ModelData>) -> (Option<String>, Option<shapes::ModelDataSource>) {
    let source = |uri: String, data_type, compression| {
        let s3 = shapes::S3ModelDataSource {
            s3_uri: uri,
            s3_data_type: data_type,
            compression_type: compression,
            model_access_config: None,
            hub_access_config: None,
            manifest_s3_uri: None,
            e_tag: None,
            manifest_etag: None,
        };
        Some(shapes::ModelDataSource {
            s3_data_source: Some(s3),
        })
    };
    let plain = shapes::ModelCompressionType::None;
    match data {
        None => (None, None),
        Some(ModelData::Archive { uri } | ModelData::Many { uri, .. }) => (Some(uri.to_string()), None),
        Some(ModelData::Prefix { uri }) => (None, source(uri.to_string(), shapes::S3ModelDataType::S3Prefix, plain)),
        Some(ModelData::Object { uri }) => (None, source(uri.to_string(), shapes::S3ModelDataType::S3Object, plain)),
    }
}
