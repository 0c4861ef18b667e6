//! From a CreateTransformJob request to what the engine acts on. What it does not carry out yet is refused here.

use super::check::{encrypted_volume, given_key, refuse, s3_uri};
use super::training_spec::instance_type;
use super::{keep, shapes};
use isolarium_batch::Processing;
use isolarium_model::sagemaker::training_job::S3DataType;
use isolarium_model::sagemaker::transform_job::{
    AssembleWith, BatchStrategy, DEFAULT_PAYLOAD_MB, DataProcessing, MAX_IN_FLIGHT_MB, ModelClient, SplitType,
    TransformInput, TransformOutput, TransformSpec,
};
use isolarium_model::sagemaker::{Echo, EncryptedVolume, InstanceTable, Model};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;

type Request = shapes::CreateTransformJobRequest;

/// Most instances of one job.
const MAX_INSTANCES: u32 = 100;

/// Everything of a job but its model.
pub(super) struct Asked {
    environment: BTreeMap<String, String>,
    instance_type: String,
    instance_count: u32,
    volume: Option<EncryptedVolume>,
    input: TransformInput,
    output: TransformOutput,
    client: ModelClient,
    max_concurrent: Option<u64>,
    max_payload_mb: Option<u64>,
    strategy: Option<BatchStrategy>,
    processing: DataProcessing,
}

impl Asked {
    /// The job with its model.
    pub(super) fn with(self, model: Model) -> TransformSpec {
        TransformSpec {
            model_name: model.name,
            model: model.spec,
            environment: self.environment,
            instance_type: self.instance_type,
            instance_count: self.instance_count,
            volume: self.volume,
            input: self.input,
            output: self.output,
            client: self.client,
            max_concurrent: self.max_concurrent,
            max_payload_mb: self.max_payload_mb,
            strategy: self.strategy,
            processing: self.processing,
        }
    }
}

/// The typed part of a request.
pub(super) fn asked(request: &Request, table: &InstanceTable) -> Result<Asked, ApiError> {
    let resources = &request.transform_resources;
    refuse(&[
        (request.data_capture_config.is_some(), "DataCaptureConfig"),
        (resources.transform_ami_version.is_some(), "TransformAmiVersion"),
    ])?;
    let instance_count = u32::try_from(resources.instance_count).unwrap_or(u32::MAX);
    if instance_count == 0 || instance_count > MAX_INSTANCES {
        return Err(ApiError::validation(format!(
            "InstanceCount must be between 1 and {MAX_INSTANCES}."
        )));
    }
    let (input, output) = (input(request)?, output(request)?);
    let processing = processing(request);
    Processing::new(
        &processing,
        input.content_type.as_deref(),
        output.accept.as_deref(),
        input.split,
        output.assemble,
    )
    .map_err(|refused| ApiError::validation(refused.to_string()))?;
    let (max_concurrent, max_payload_mb) = in_flight(request)?;
    let environment = request.environment.iter().flatten();
    let instance_type = instance_type(Some(&resources.instance_type), table)?;
    Ok(Asked {
        volume: encrypted_volume(resources.volume_kms_key_id.as_ref(), None, &[&instance_type])?,
        environment: environment.map(|(name, value)| (name.clone(), value.clone())).collect(),
        instance_type,
        instance_count,
        input,
        output,
        client: client(request.model_client_config.as_ref()),
        max_concurrent,
        max_payload_mb,
        strategy: request.batch_strategy.map(|strategy| match strategy {
            shapes::BatchStrategy::MultiRecord => BatchStrategy::MultiRecord,
            shapes::BatchStrategy::SingleRecord => BatchStrategy::SingleRecord,
        }),
        processing,
    })
}

/// `MaxConcurrentTransforms` and `MaxPayloadInMB`, whose product has a limit (SM-39).
fn in_flight(request: &Request) -> Result<(Option<u64>, Option<u64>), ApiError> {
    let number = |given: Option<i64>| given.and_then(|given| u64::try_from(given).ok());
    let (concurrent, payload) = (
        number(request.max_concurrent_transforms),
        number(request.max_payload_in_mb),
    );
    if payload.is_some_and(|payload| payload > MAX_IN_FLIGHT_MB) {
        return Err(ApiError::validation(format!(
            "MaxPayloadInMB must not be greater than {MAX_IN_FLIGHT_MB}."
        )));
    }
    let size = payload.unwrap_or(DEFAULT_PAYLOAD_MB);
    let product = concurrent.unwrap_or(1).saturating_mul(size.max(1));
    if product > MAX_IN_FLIGHT_MB {
        return Err(ApiError::validation(format!(
            "The product of MaxConcurrentTransforms ({}) and MaxPayloadInMB ({size}) must not be greater than \
             {MAX_IN_FLIGHT_MB} MB.",
            concurrent.unwrap_or(1)
        )));
    }
    Ok((concurrent, payload))
}

fn client(given: Option<&shapes::ModelClientConfig>) -> ModelClient {
    let default = ModelClient::default();
    let timeout = given.and_then(|given| given.invocations_timeout_in_seconds);
    let retries = given.and_then(|given| given.invocations_max_retries);
    ModelClient {
        timeout: timeout
            .and_then(|seconds| u64::try_from(seconds).ok())
            .unwrap_or(default.timeout),
        retries: retries
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(default.retries),
    }
}

fn input(request: &Request) -> Result<TransformInput, ApiError> {
    let given = &request.transform_input;
    let source = &given.data_source.s3_data_source;
    let data_type = match source.s3_data_type {
        shapes::S3DataType::S3Prefix => S3DataType::S3Prefix,
        shapes::S3DataType::ManifestFile => S3DataType::ManifestFile,
        other @ (shapes::S3DataType::AugmentedManifestFile | shapes::S3DataType::Converse) => {
            return Err(ApiError::validation(format!(
                "S3DataType {other} is not valid for a transform job. Valid are ManifestFile and S3Prefix."
            )));
        }
    };
    Ok(TransformInput {
        uri: s3_uri("S3Uri", &source.s3_uri)?,
        data_type,
        content_type: given.content_type.clone().filter(|kind| !kind.is_empty()),
        gzip: given.compression_type == Some(shapes::CompressionType::Gzip),
        split: match given.split_type {
            None | Some(shapes::SplitType::None) => SplitType::None,
            Some(shapes::SplitType::Line) => SplitType::Line,
            Some(shapes::SplitType::RecordIO) => SplitType::RecordIo,
            Some(shapes::SplitType::TFRecord) => SplitType::TfRecord,
        },
    })
}

fn output(request: &Request) -> Result<TransformOutput, ApiError> {
    let given = &request.transform_output;
    Ok(TransformOutput {
        uri: s3_uri("S3OutputPath", &given.s3_output_path)?,
        accept: given.accept.clone().filter(|kind| !kind.is_empty()),
        assemble: match given.assemble_with {
            None | Some(shapes::AssemblyType::None) => AssembleWith::None,
            Some(shapes::AssemblyType::Line) => AssembleWith::Line,
        },
        kms_key: given_key(given.kms_key_id.as_ref()),
    })
}

fn processing(request: &Request) -> DataProcessing {
    let given = request.data_processing.as_ref();
    let everything = DataProcessing::default();
    let path = |given: Option<&String>, or: &str| given.filter(|path| !path.is_empty()).map_or(or.into(), Clone::clone);
    DataProcessing {
        input_filter: path(
            given.and_then(|one| one.input_filter.as_ref()),
            &everything.input_filter,
        ),
        output_filter: path(
            given.and_then(|one| one.output_filter.as_ref()),
            &everything.output_filter,
        ),
        join: given.and_then(|one| one.join_source) == Some(shapes::JoinSource::Input),
    }
}

/// Members that Describe gives back as they came.
pub(super) fn echo(request: &Request) -> Result<Echo, ApiError> {
    let mut echo = Echo::new();
    keep(
        &mut echo,
        "MaxConcurrentTransforms",
        request.max_concurrent_transforms.as_ref(),
    )?;
    keep(&mut echo, "ModelClientConfig", request.model_client_config.as_ref())?;
    keep(&mut echo, "MaxPayloadInMB", request.max_payload_in_mb.as_ref())?;
    keep(&mut echo, "BatchStrategy", request.batch_strategy.as_ref())?;
    keep(&mut echo, "Environment", request.environment.as_ref())?;
    keep(&mut echo, "TransformInput", Some(&request.transform_input))?;
    keep(&mut echo, "TransformOutput", Some(&request.transform_output))?;
    keep(&mut echo, "TransformResources", Some(&request.transform_resources))?;
    keep(&mut echo, "DataProcessing", request.data_processing.as_ref())?;
    keep(&mut echo, "ExperimentConfig", request.experiment_config.as_ref())?;
    Ok(echo)
}
