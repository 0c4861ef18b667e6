//! Condition keys that creations give to policies (IAM-16, IAM-40). They show what the request asks for, whether or not the
//! engine will do it: authorization comes before every other refusal (IAM-59). A key that AWS leaves out is left out.

use super::shapes;
use isolarium_model::sagemaker::NotebookLifecycleConfig;
use isolarium_model::{Arn, Scope};
use isolarium_policy::Question;
use std::collections::BTreeSet;

/// One value per item; no item leaves the key out.
fn each<T: ToString>(question: Question, key: &str, values: impl IntoIterator<Item = T>) -> Question {
    values
        .into_iter()
        .fold(question, |question, value| question.with(key, value.to_string()))
}

/// `sagemaker:VpcSubnets` and `sagemaker:VpcSecurityGroupIds`, absent without `VpcConfig`.
fn vpc(question: Question, config: Option<&shapes::VpcConfig>) -> Question {
    let subnets = config.into_iter().flat_map(|vpc| &vpc.subnets);
    let groups = config.into_iter().flat_map(|vpc| &vpc.security_group_ids);
    let question = each(question, "sagemaker:VpcSubnets", subnets);
    each(question, "sagemaker:VpcSecurityGroupIds", groups)
}

/// A KMS key of a request as an ARN, which is what policies compare: requests may also name it by id or alias.
fn kms_arn(scope: &Scope, given: &str) -> String {
    match given.parse::<Arn>() {
        Ok(arn) => arn.to_string(),
        Err(_) if given.starts_with("alias/") => Arn::regional("kms", scope, given).to_string(),
        Err(_) => Arn::regional("kms", scope, &format!("key/{given}")).to_string(),
    }
}

/// A KMS key under both names that AWS has given the condition key.
fn kms(question: Question, scope: &Scope, key: &str, given: Option<&String>) -> Question {
    let arn = given.map(|given| kms_arn(scope, given));
    let question = each(question, &format!("{key}Arn"), arn.iter());
    each(question, key, arn.iter())
}

/// What CreateModel asks for. Isolation is false when the request says nothing (IAM-16).
pub(super) fn model(question: Question, request: &shapes::CreateModelInput) -> Question {
    let isolated = request.enable_network_isolation.unwrap_or(false);
    vpc(
        question.with("sagemaker:NetworkIsolation", isolated.to_string()),
        request.vpc_config.as_ref(),
    )
}

/// What CreateTrainingJob asks for.
pub(super) fn training_job(question: Question, scope: &Scope, request: &shapes::CreateTrainingJobRequest) -> Question {
    let encrypted = request.enable_inter_container_traffic_encryption.unwrap_or(false);
    let isolated = request.enable_network_isolation.unwrap_or(false);
    let mut question = vpc(question, request.vpc_config.as_ref())
        .with("sagemaker:NetworkIsolation", isolated.to_string())
        .with("sagemaker:InterContainerTrafficEncryption", encrypted.to_string());
    let output = request.output_data_config.kms_key_id.as_ref();
    question = kms(question, scope, "sagemaker:OutputKmsKey", output);
    if let Some(resources) = &request.resource_config {
        let groups = resources
            .instance_groups
            .iter()
            .flatten()
            .map(|group| &group.instance_type);
        let preferred = resources.instance_preferences.iter().flatten();
        let types = resources.instance_type.iter().chain(groups);
        let types = types.chain(preferred.map(|preference| &preference.instance_type));
        question = each(question, "sagemaker:InstanceTypes", types);
        let volume = resources.volume_kms_key_id.as_ref();
        question = kms(question, scope, "sagemaker:VolumeKmsKey", volume);
        question = each(
            question,
            "sagemaker:KeepAlivePeriod",
            resources.keep_alive_period_in_seconds,
        );
    }
    let limit = request.stopping_condition.as_ref();
    let limit = limit.and_then(|condition| condition.max_runtime_in_seconds);
    question = each(question, "sagemaker:MaxRuntimeInSeconds", limit);
    let debug = request.remote_debug_config.as_ref();
    let debug = debug.and_then(|config| config.enable_remote_debug);
    question = each(question, "sagemaker:EnableRemoteDebug", debug);
    let channels = request.input_data_config.iter().flatten();
    let systems = channels.filter_map(|channel| channel.data_source.file_system_data_source.as_ref());
    systems.fold(question, |question, system| {
        question
            .with("sagemaker:FileSystemId", system.file_system_id.clone())
            .with("sagemaker:FileSystemType", system.file_system_type.as_str())
            .with(
                "sagemaker:FileSystemAccessMode",
                system.file_system_access_mode.as_str(),
            )
            .with("sagemaker:FileSystemDirectoryPath", system.directory_path.clone())
    })
}

/// What CreateProcessingJob asks for.
pub(super) fn processing_job(
    question: Question,
    scope: &Scope,
    request: &shapes::CreateProcessingJobRequest,
) -> Question {
    let network = request.network_config.as_ref();
    let asked = |flag: Option<bool>| flag.unwrap_or(false).to_string();
    let isolated = asked(network.and_then(|network| network.enable_network_isolation));
    let encrypted = asked(network.and_then(|network| network.enable_inter_container_traffic_encryption));
    let cluster = &request.processing_resources.cluster_config;
    let mut question = vpc(question, network.and_then(|network| network.vpc_config.as_ref()))
        .with("sagemaker:NetworkIsolation", isolated)
        .with("sagemaker:InterContainerTrafficEncryption", encrypted);
    let preferred = cluster.instance_preferences.iter().flatten();
    let types = cluster.instance_type.iter();
    let types = types.chain(preferred.map(|preference| &preference.instance_type));
    question = each(question, "sagemaker:InstanceTypes", types);
    let output = request.processing_output_config.as_ref();
    let output = output.and_then(|config| config.kms_key_id.as_ref());
    question = kms(question, scope, "sagemaker:OutputKmsKey", output);
    let volume = cluster.volume_kms_key_id.as_ref();
    question = kms(question, scope, "sagemaker:VolumeKmsKey", volume);
    let limit = request.stopping_condition.as_ref();
    let limit = limit.map(|condition| condition.max_runtime_in_seconds);
    each(question, "sagemaker:MaxRuntimeInSeconds", limit)
}

/// What CreateTransformJob asks for. Isolation and VPC are its model's, and the model has its own question.
pub(super) fn transform_job(
    question: Question,
    scope: &Scope,
    request: &shapes::CreateTransformJobRequest,
    model: &Arn,
) -> Question {
    let resources = &request.transform_resources;
    let question = question
        .with("sagemaker:ModelArn", model.to_string())
        .with("sagemaker:InstanceTypes", resources.instance_type.clone());
    let output = request.transform_output.kms_key_id.as_ref();
    let question = kms(question, scope, "sagemaker:OutputKmsKey", output);
    kms(
        question,
        scope,
        "sagemaker:VolumeKmsKey",
        resources.volume_kms_key_id.as_ref(),
    )
}

/// Condition keys of which every definition of a tuning job must be true for the whole to be.
const OF_ALL: [&str; 2] = [
    "sagemaker:networkisolation",
    "sagemaker:intercontainertrafficencryption",
];
/// Keys of CreateTrainingJob that CreateHyperParameterTuningJob does not have.
const NOT_OF_TUNING: [&str; 2] = ["sagemaker:keepaliveperiod", "sagemaker:enableremotedebug"];

/// What CreateHyperParameterTuningJob asks for: subnets, groups, types and the like of all definitions together; isolation
/// and encryption only where all of them have it (IAM-17), and none has where there is no definition.
pub(super) fn tuning_job(
    question: Question,
    scope: &Scope,
    definitions: &[shapes::CreateTrainingJobRequest],
) -> Question {
    let asked: Vec<Question> = definitions
        .iter()
        .map(|one| training_job(Question::any("sagemaker:CreateTrainingJob"), scope, one))
        .collect();
    let mut question = OF_ALL.iter().fold(question, |question, key| {
        let is_true = |one: &Question| one.context.get(*key).is_some_and(|values| values == &["true"]);
        let all = !asked.is_empty() && asked.iter().all(is_true);
        question.with(key, all.to_string())
    });
    let mut seen = BTreeSet::new();
    for (key, values) in asked.iter().flat_map(|one| &one.context) {
        if OF_ALL.contains(&key.as_str()) || NOT_OF_TUNING.contains(&key.as_str()) {
            continue;
        }
        for value in values {
            if seen.insert((key, value)) {
                question = question.with(key, value.clone());
            }
        }
    }
    question
}

/// What CreateEndpointConfig asks for; shadow variants count as the others do.
pub(super) fn endpoint_config(
    question: Question,
    scope: &Scope,
    request: &shapes::CreateEndpointConfigInput,
    models: &[Arn],
) -> Question {
    let mut question = vpc(question, request.vpc_config.as_ref());
    question = each(question, "sagemaker:NetworkIsolation", request.enable_network_isolation);
    question = kms(question, scope, "sagemaker:VolumeKmsKey", request.kms_key_id.as_ref());
    question = each(question, "sagemaker:ModelArn", models);
    for variant in variants(request) {
        let pools = variant.instance_pools.iter().flatten().map(|pool| &pool.instance_type);
        let types = variant.instance_type.iter().chain(pools);
        question = each(question, "sagemaker:InstanceTypes", types);
        question = each(question, "sagemaker:AcceleratorTypes", variant.accelerator_type);
        if let Some(serverless) = &variant.serverless_config {
            question = question
                .with(
                    "sagemaker:ServerlessMaxConcurrency",
                    serverless.max_concurrency.to_string(),
                )
                .with(
                    "sagemaker:ServerlessMemorySize",
                    serverless.memory_size_in_mb.to_string(),
                );
        }
    }
    question
}

/// What CreateFeatureGroup asks for.
pub(super) fn feature_group(
    question: Question,
    scope: &Scope,
    request: &shapes::CreateFeatureGroupRequest,
) -> Question {
    let online = request.online_store_config.as_ref();
    let enabled = online.and_then(|config| config.enable_online_store).unwrap_or(false);
    let offline = request.offline_store_config.as_ref();
    let mut question = question
        .with("sagemaker:FeatureGroupEnableOnlineStore", enabled.to_string())
        .with(
            "sagemaker:FeatureGroupOfflineStoreConfig",
            offline.is_some().to_string(),
        );
    let online_key = online.and_then(|config| config.security_config.as_ref()?.kms_key_id.as_ref());
    let online_key = online_key.map(|given| kms_arn(scope, given));
    question = each(question, "sagemaker:FeatureGroupOnlineStoreKmsKeyArn", online_key);
    let Some(offline) = offline else { return question };
    let bare = offline.disable_glue_table_creation.unwrap_or(false);
    let s3 = &offline.s3_storage_config;
    question = question
        .with("sagemaker:FeatureGroupDisableGlueTableCreation", bare.to_string())
        .with("sagemaker:FeatureGroupOfflineStoreS3Uri", s3.s3_uri.clone());
    let key = s3.kms_key_id.as_ref().map(|given| kms_arn(scope, given));
    each(question, "sagemaker:FeatureGroupOfflineStoreKmsKeyArn", key)
}

/// What CreateNotebookInstance asks for. Access to root and to the internet are Enabled when the request says nothing.
pub(super) fn notebook(question: Question, scope: &Scope, request: &shapes::CreateNotebookInstanceInput) -> Question {
    let internet = request
        .direct_internet_access
        .unwrap_or(shapes::DirectInternetAccess::Enabled);
    let root = request.root_access.unwrap_or(shapes::RootAccess::Enabled);
    let mut question = question
        .with("sagemaker:DirectInternetAccess", internet.as_str())
        .with("sagemaker:RootAccess", root.as_str())
        .with("sagemaker:InstanceTypes", request.instance_type.clone());
    question = each(question, "sagemaker:VpcSubnets", request.subnet_id.iter());
    let groups = request.security_group_ids.iter().flatten();
    question = each(question, "sagemaker:VpcSecurityGroupIds", groups);
    let volume = request.kms_key_id.as_ref().map(|given| kms_arn(scope, given));
    question = each(question, "sagemaker:VolumeKmsKeyArn", volume);
    let accelerators = request.accelerator_types.iter().flatten();
    question = each(
        question,
        "sagemaker:AcceleratorTypes",
        accelerators.map(|one| one.as_str()),
    );
    let service = request.instance_metadata_service_configuration.as_ref();
    notebook_common(question, scope, request.lifecycle_config_name.as_ref(), service)
}

/// What UpdateNotebookInstance asks for: what it does not name stays as it is, and has no key.
pub(super) fn notebook_update(
    question: Question,
    scope: &Scope,
    request: &shapes::UpdateNotebookInstanceInput,
) -> Question {
    let mut question = each(question, "sagemaker:InstanceTypes", request.instance_type.iter());
    let root = request.root_access.iter().map(|one| one.as_str());
    question = each(question, "sagemaker:RootAccess", root);
    let accelerators = request.accelerator_types.iter().flatten();
    question = each(
        question,
        "sagemaker:AcceleratorTypes",
        accelerators.map(|one| one.as_str()),
    );
    let service = request.instance_metadata_service_configuration.as_ref();
    notebook_common(question, scope, request.lifecycle_config_name.as_ref(), service)
}

fn notebook_common(
    question: Question,
    scope: &Scope,
    lifecycle: Option<&String>,
    service: Option<&shapes::InstanceMetadataServiceConfiguration>,
) -> Question {
    let lifecycle = lifecycle.map(|name| NotebookLifecycleConfig::arn(scope, name));
    let question = each(question, "sagemaker:NotebookInstanceLifecycleConfigArns", lifecycle);
    let version = service.map(|service| &service.minimum_instance_metadata_service_version);
    each(question, "sagemaker:MinimumInstanceMetadataServiceVersion", version)
}

/// Production and shadow variants.
fn variants(request: &shapes::CreateEndpointConfigInput) -> impl Iterator<Item = &shapes::ProductionVariant> {
    let shadows = request.shadow_production_variants.iter().flatten();
    request.production_variants.iter().chain(shadows)
}

/// The models that variants name, those of their instance pools included.
pub(super) fn models(request: &shapes::CreateEndpointConfigInput) -> impl Iterator<Item = &String> {
    variants(request).flat_map(|variant| {
        let pools = variant.instance_pools.iter().flatten();
        let overrides = pools.filter_map(|pool| pool.model_name_override.as_ref());
        variant.model_name.iter().chain(overrides)
    })
}

#[cfg(test)]
mod tests;
