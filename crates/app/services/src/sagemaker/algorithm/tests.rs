use super::super::import_product;
use super::super::shapes::*;
use super::*;
use crate::ecr::fixture::{Fixture, refusal, scope};
use isolarium_wire::Document;

const ROLE: &str = "arn:aws:iam::123456789012:role/exec";
const IMAGE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1";

fn call<I: Into<Document>, O>(fixture: &Fixture, operation: &str, input: I) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    fixture.call("sagemaker", operation, input)
}

fn algorithm(name: &str) -> CreateAlgorithmInput {
    CreateAlgorithmInput {
        algorithm_name: name.into(),
        training_specification: TrainingSpecification {
            training_image: IMAGE.into(),
            supported_training_instance_types: vec!["ml.m5.large".into()],
            training_channels: vec![ChannelSpecification {
                name: "train".into(),
                description: None,
                is_required: Some(false),
                supported_content_types: vec!["text/csv".into()],
                supported_compression_types: None,
                supported_input_modes: vec![TrainingInputMode::File],
            }],
            ..Default::default()
        },
        inference_specification: Some(InferenceSpecification {
            containers: vec![ModelPackageContainerDefinition {
                image: Some(IMAGE.into()),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn job(name: &str, isolated: Option<bool>) -> CreateTrainingJobRequest {
    CreateTrainingJobRequest {
        training_job_name: name.into(),
        algorithm_specification: Some(AlgorithmSpecification {
            algorithm_name: Some("Forest".into()),
            ..AlgorithmSpecification::new(TrainingInputMode::File)
        }),
        role_arn: ROLE.into(),
        output_data_config: OutputDataConfig {
            s3_output_path: "s3://out/jobs".into(),
            ..Default::default()
        },
        resource_config: Some(ResourceConfig {
            instance_type: Some("ml.m5.large".into()),
            instance_count: Some(1),
            volume_size_in_gb: Some(5),
            ..Default::default()
        }),
        enable_network_isolation: isolated,
        ..Default::default()
    }
}

fn model(name: &str, package: &str, isolated: Option<bool>) -> CreateModelInput {
    CreateModelInput {
        model_name: name.into(),
        execution_role_arn: Some(ROLE.into()),
        primary_container: Some(ContainerDefinition {
            model_package_name: Some(package.into()),
            ..Default::default()
        }),
        enable_network_isolation: isolated,
        ..Default::default()
    }
}

/// Proves: NI-15, NI-16, D-13, SM-45
#[test]
fn products_of_the_marketplace_are_isolated_in_jobs_and_models() {
    let fixture = Fixture::new();
    let _: CreateAlgorithmOutput = call(&fixture, "CreateAlgorithm", algorithm("Forest")).unwrap();
    let create = |name: &str, isolated| -> Result<CreateTrainingJobResponse, ApiError> {
        call(&fixture, "CreateTrainingJob", job(name, isolated))
    };
    assert!(create("open", None).is_ok(), "control: it is no product yet");
    let store = &fixture.store;
    assert!(import_product(store, &scope("123456789012"), "algorithm/absent", "prod-1").is_err());
    assert!(import_product(store, &scope("123456789012"), "algorithm/Forest", "-prod").is_err());
    let arn = import_product(store, &scope("123456789012"), "algorithm/Forest", "prod-1").unwrap();
    for isolated in [None, Some(false)] {
        let (code, text) = refusal(create("sealed", isolated));
        assert_eq!(code, "ValidationException");
        assert!(
            text.contains("EnableNetworkIsolation") && text.contains(arn.as_str()),
            "{text}"
        );
    }
    assert!(create("sealed", Some(true)).is_ok());
    let package = CreateModelPackageInput {
        model_package_name: Some("forest-model".into()),
        source_algorithm_specification: Some(SourceAlgorithmSpecification {
            source_algorithms: vec![SourceAlgorithm {
                algorithm_name: "Forest".into(),
                ..Default::default()
            }],
        }),
        ..Default::default()
    };
    let made: CreateModelPackageOutput = call(&fixture, "CreateModelPackage", package).unwrap();
    let create = |isolated| -> Result<CreateModelOutput, ApiError> {
        call(&fixture, "CreateModel", model("m", &made.model_package_arn, isolated))
    };
    for isolated in [None, Some(false)] {
        let (code, text) = refusal(create(isolated));
        assert_eq!(code, "ValidationException");
        assert!(
            text.contains("EnableNetworkIsolation") && text.contains(&made.model_package_arn),
            "{text}"
        );
    }
    assert!(create(Some(true)).is_ok());
}

/// Proves: SM-44
#[test]
fn ranges_that_do_not_fit_their_type_and_names_given_twice_are_refused() {
    let fixture = Fixture::new();
    let parameter = |kind, range| HyperParameterSpecification {
        name: "p".into(),
        r#type: kind,
        description: None,
        range,
        is_tunable: None,
        is_required: None,
        default_value: Some("5".into()),
    };
    let integers = |min: &str, max: &str| {
        Some(ParameterRange {
            integer_parameter_range_specification: Some(IntegerParameterRangeSpecification {
                min_value: min.into(),
                max_value: max.into(),
            }),
            ..Default::default()
        })
    };
    let create = |parameters: Vec<HyperParameterSpecification>| -> Result<CreateAlgorithmOutput, ApiError> {
        let mut request = algorithm("Forest");
        request.training_specification.supported_hyper_parameters = Some(parameters);
        call(&fixture, "CreateAlgorithm", request)
    };
    for wrong in [
        vec![parameter(ParameterType::Integer, integers("9", "1"))],
        vec![parameter(ParameterType::Integer, integers("1", "4"))],
        vec![parameter(ParameterType::Continuous, integers("1", "9"))],
        vec![parameter(ParameterType::FreeText, integers("1", "9"))],
        vec![
            parameter(ParameterType::FreeText, None),
            parameter(ParameterType::FreeText, None),
        ],
    ] {
        assert_eq!(refusal(create(wrong.clone())).0, "ValidationException", "{wrong:?}");
    }
    assert!(
        create(vec![parameter(ParameterType::Integer, integers("1", "9"))]).is_ok(),
        "control"
    );
}
