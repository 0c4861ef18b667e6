//! The channels of a training job: which data, and how they reach the container (CC-22..28).

use super::check::{refuse, s3_uri, unsupported};
use super::shapes;
use isolarium_model::sagemaker::training_job::{
    Channel, Distribution, InputMode, InstanceGroup, PipeInput, S3DataType,
};
use isolarium_wire::ApiError;
use std::collections::BTreeSet;

/// How many pipes one training job may read at a time, channels times instances: the engine serves each with a thread, a
/// handful of descriptors and kernel memory that all accounts share.
pub(super) const JOB_PIPES: usize = 64;

/// The same of all of an account's training jobs that have not ended.
pub(super) const ACCOUNT_PIPES: usize = 1024;

/// The channels of a request. `mode` is the job's, before which a channel's own goes (CC-22).
///
/// # Errors
/// Of combinations that AWS does not have, and of what this engine does not carry out.
pub(super) fn channels(
    request: &shapes::CreateTrainingJobRequest,
    mode: shapes::TrainingInputMode,
    groups: &[InstanceGroup],
) -> Result<Vec<Channel>, ApiError> {
    let mut names = BTreeSet::new();
    let mut channels = Vec::new();
    for given in request.input_data_config.iter().flatten() {
        let name = &given.channel_name;
        if !names.insert(name.clone()) {
            return Err(ApiError::validation(format!(
                "The channel name \"{name}\" is used twice."
            )));
        }
        let channel = channel(given, given.input_mode.unwrap_or(mode))?;
        let known = |name: &String| groups.iter().any(|group| group.name == *name);
        if let Some(unknown) = channel.groups.iter().find(|name| !known(name)) {
            return Err(ApiError::validation(format!(
                "The channel \"{}\" names the instance group \"{unknown}\", which is not one of InstanceGroups.",
                channel.name
            )));
        }
        refuse(&[(
            channel.mode == InputMode::FastFile && request.vpc_config.is_some(),
            "Input mode FastFile with VpcConfig",
        )])?;
        channels.push(channel);
    }
    let piped = channels.iter().filter(|one| matches!(one.mode, InputMode::Pipe(_)));
    for Channel { name, .. } in piped {
        // Its pipes have such names (CC-16).
        let is_pipe = |other: &&String| {
            let epoch = other
                .strip_prefix(name.as_str())
                .and_then(|rest| rest.strip_prefix('_'));
            epoch.is_some_and(|epoch| !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()))
        };
        if let Some(other) = names.iter().find(is_pipe) {
            return Err(ApiError::validation(format!(
                "The channel name \"{other}\" is the name of a pipe of the channel \"{name}\"."
            )));
        }
    }
    Ok(channels)
}

fn channel(given: &shapes::Channel, mode: shapes::TrainingInputMode) -> Result<Channel, ApiError> {
    let name = given.channel_name.clone();
    if name == "." || name == ".." {
        return Err(ApiError::validation(format!(
            "\"{name}\" cannot be the name of a channel."
        )));
    }
    let source = given.data_source.s3_data_source.as_ref();
    let source = source.ok_or_else(|| unsupported("A channel without S3DataSource"))?;
    refuse(&[
        (
            given.data_source.file_system_data_source.is_some(),
            "FileSystemDataSource",
        ),
        (given.data_source.dataset_source.is_some(), "DatasetSource"),
        (source.model_access_config.is_some(), "ModelAccessConfig"),
        (source.hub_access_config.is_some(), "HubAccessConfig"),
    ])?;
    let attributes = source.attribute_names.clone().filter(|names| !names.is_empty());
    let augmented = source.s3_data_type == shapes::S3DataType::AugmentedManifestFile;
    let data_type = match source.s3_data_type {
        shapes::S3DataType::S3Prefix => S3DataType::S3Prefix,
        shapes::S3DataType::ManifestFile | shapes::S3DataType::AugmentedManifestFile => S3DataType::ManifestFile,
        other => return Err(unsupported(&format!("S3DataType {other}"))),
    };
    let gzip = given.compression_type == Some(shapes::CompressionType::Gzip);
    let record_io = given.record_wrapper_type == Some(shapes::RecordWrapper::RecordIO);
    let only_piped = [
        (gzip, "CompressionType Gzip"),
        (record_io, "RecordWrapperType RecordIO"),
        (augmented, "AugmentedManifestFile"),
    ];
    let only_piped = only_piped.iter().find(|(given, _)| *given);
    let mode = match (mode, only_piped) {
        (shapes::TrainingInputMode::Pipe, _) => InputMode::Pipe(PipeInput {
            gzip,
            record_io,
            attributes: attributes.clone().filter(|_| augmented),
        }),
        (shapes::TrainingInputMode::File | shapes::TrainingInputMode::FastFile, Some((_, what))) => {
            return Err(ApiError::validation(format!(
                "{what} of channel \"{name}\" is only valid with input mode Pipe."
            )));
        }
        (shapes::TrainingInputMode::File, None) => InputMode::File,
        (shapes::TrainingInputMode::FastFile, None) => InputMode::FastFile,
    };
    if mode == InputMode::FastFile && data_type != S3DataType::S3Prefix {
        return Err(ApiError::validation(format!(
            "Input mode FastFile of channel \"{name}\" is only valid with S3DataType S3Prefix."
        )));
    }
    match (augmented, &attributes) {
        (true, None) => {
            return Err(ApiError::validation(format!(
                "AttributeNames are required with the AugmentedManifestFile of channel \"{name}\"."
            )));
        }
        (false, Some(_)) => {
            return Err(ApiError::validation(
                "AttributeNames are only valid with AugmentedManifestFile.",
            ));
        }
        (true, Some(_)) | (false, None) => {}
    }
    let distribution = match source.s3_data_distribution_type {
        Some(shapes::S3DataDistribution::ShardedByS3Key) => Distribution::ShardedByS3Key,
        Some(shapes::S3DataDistribution::FullyReplicated) | None => Distribution::FullyReplicated,
    };
    Ok(Channel {
        uri: s3_uri("S3Uri", &source.s3_uri)?,
        name,
        data_type,
        distribution,
        content_type: given.content_type.clone(),
        mode,
        groups: source.instance_group_names.clone().unwrap_or_default(),
        shuffle_seed: given.shuffle_config.as_ref().map(|shuffle| shuffle.seed),
    })
}
