use super::shapes::*;
use crate::ecr::fixture::{Fixture, START, refusal, root, scope};
use indexmap::IndexMap;
use isolarium_model::sagemaker as records;
use isolarium_model::sagemaker::{AddressLease, EndpointEvent, FailureKind, FailureReason};
use isolarium_model::{Key, Record, Timestamp};
use isolarium_store::{Batch, Expect, StateStore};
use isolarium_wire::{ApiError, Document};
use std::sync::atomic::Ordering;

const ACCOUNT: &str = "123456789012";
const IMAGE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1";
const ROLE: &str = "arn:aws:iam::123456789012:role/exec";

fn call<I: Into<Document>, O>(fixture: &Fixture, operation: &str, input: I) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    fixture.call("sagemaker", operation, input)
}

fn state(fixture: &Fixture) -> &dyn StateStore {
    &fixture.store
}

fn invalid(text: impl Into<String>) -> (String, String) {
    ("ValidationException".into(), text.into())
}

fn arn(kind: &str, name: &str) -> String {
    format!("arn:aws:sagemaker:us-east-1:123456789012:{kind}/{name}")
}

fn job(name: &str) -> CreateTrainingJobRequest {
    CreateTrainingJobRequest {
        training_job_name: name.into(),
        algorithm_specification: Some(AlgorithmSpecification {
            training_image: Some(IMAGE.into()),
            training_input_mode: TrainingInputMode::File,
            algorithm_name: None,
            metric_definitions: None,
            enable_sage_maker_metrics_time_series: None,
            container_entrypoint: None,
            container_arguments: None,
            training_image_config: None,
        }),
        role_arn: ROLE.into(),
        input_data_config: Some(vec![channel("train", "s3://data/train/")]),
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
        stopping_condition: Some(StoppingCondition {
            max_runtime_in_seconds: Some(600),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn channel(name: &str, uri: &str) -> Channel {
    Channel {
        channel_name: name.into(),
        data_source: DataSource {
            s3_data_source: Some(S3DataSource {
                s3_data_type: S3DataType::S3Prefix,
                s3_uri: uri.into(),
                s3_data_distribution_type: None,
                attribute_names: None,
                instance_group_names: None,
                model_access_config: None,
                hub_access_config: None,
            }),
            file_system_data_source: None,
            dataset_source: None,
        },
        content_type: None,
        compression_type: None,
        record_wrapper_type: None,
        input_mode: None,
        shuffle_config: None,
    }
}

fn create_job(fixture: &Fixture, request: CreateTrainingJobRequest) -> Result<CreateTrainingJobResponse, ApiError> {
    call(fixture, "CreateTrainingJob", request)
}

fn describe_job(fixture: &Fixture, name: &str) -> Result<DescribeTrainingJobResponse, ApiError> {
    call(
        fixture,
        "DescribeTrainingJob",
        DescribeTrainingJobRequest {
            training_job_name: name.into(),
        },
    )
}

fn model(name: &str) -> CreateModelInput {
    CreateModelInput {
        model_name: name.into(),
        primary_container: Some(ContainerDefinition {
            image: Some(IMAGE.into()),
            model_data_url: Some("s3://models/m.tar.gz".into()),
            ..Default::default()
        }),
        execution_role_arn: Some(ROLE.into()),
        ..Default::default()
    }
}

fn create_model(fixture: &Fixture, request: CreateModelInput) -> Result<CreateModelOutput, ApiError> {
    call(fixture, "CreateModel", request)
}

fn describe_model(fixture: &Fixture, name: &str) -> Result<DescribeModelOutput, ApiError> {
    call(
        fixture,
        "DescribeModel",
        DescribeModelInput {
            model_name: name.into(),
        },
    )
}

fn config(name: &str, model: &str) -> CreateEndpointConfigInput {
    CreateEndpointConfigInput {
        endpoint_config_name: name.into(),
        production_variants: vec![ProductionVariant {
            variant_name: "AllTraffic".into(),
            model_name: Some(model.into()),
            initial_instance_count: Some(1),
            instance_type: Some("ml.m5.large".into()),
            enable_ssm_access: Some(false),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn create_config(fixture: &Fixture, name: &str, model: &str) -> Result<CreateEndpointConfigOutput, ApiError> {
    call(fixture, "CreateEndpointConfig", config(name, model))
}

fn create_endpoint(fixture: &Fixture, name: &str, config: &str) -> Result<CreateEndpointOutput, ApiError> {
    let request = CreateEndpointInput {
        endpoint_name: name.into(),
        endpoint_config_name: config.into(),
        deployment_config: None,
        tags: None,
    };
    call(fixture, "CreateEndpoint", request)
}

fn describe_endpoint(fixture: &Fixture, name: &str) -> Result<DescribeEndpointOutput, ApiError> {
    call(
        fixture,
        "DescribeEndpoint",
        DescribeEndpointInput {
            endpoint_name: name.into(),
        },
    )
}

fn update_endpoint(fixture: &Fixture, name: &str, config: &str) -> Result<UpdateEndpointOutput, ApiError> {
    let request = UpdateEndpointInput {
        endpoint_name: name.into(),
        endpoint_config_name: config.into(),
        ..Default::default()
    };
    call(fixture, "UpdateEndpoint", request)
}

/// Proves: CC-22
#[test]
fn a_channels_mode_goes_before_the_jobs() {
    use TrainingInputMode::{FastFile, File, Pipe};
    let fixture = Fixture::new();
    for (name, of_job, of_channel, wanted) in [
        ("own", Pipe, Some(File), "File"),
        ("other", File, Some(FastFile), "FastFile"),
        ("jobs", Pipe, None, "Pipe"),
        ("omitted", File, None, "File"),
    ] {
        let mut request = job(name);
        request.algorithm_specification.as_mut().unwrap().training_input_mode = of_job;
        request.input_data_config.as_mut().unwrap()[0].input_mode = of_channel;
        let given = request.input_data_config.clone();
        call::<_, CreateTrainingJobResponse>(&fixture, "CreateTrainingJob", request).unwrap();
        let key = Key::folded(&scope(ACCOUNT), name);
        let stored = state(&fixture).get::<records::TrainingJob>(&key).unwrap().unwrap();
        assert_eq!(stored.record.spec.channels[0].mode.as_str(), wanted, "{name}");
        let shown: DescribeTrainingJobResponse = call(
            &fixture,
            "DescribeTrainingJob",
            DescribeTrainingJobRequest {
                training_job_name: name.into(),
            },
        )
        .unwrap();
        assert_eq!(shown.input_data_config, given, "{name}");
    }
}

/// Proves: CC-24, CC-26, CC-27
#[test]
fn input_modes_refuse_what_they_do_not_have() {
    let fixture = Fixture::new();
    let try_with = |name: &str, mode, change: &dyn Fn(&mut Channel)| {
        let mut request = job(name);
        request.algorithm_specification.as_mut().unwrap().training_input_mode = mode;
        change(&mut request.input_data_config.as_mut().unwrap()[0]);
        call::<_, CreateTrainingJobResponse>(&fixture, "CreateTrainingJob", request)
    };
    let gzip = |one: &mut Channel| one.compression_type = Some(CompressionType::Gzip);
    let framed = |one: &mut Channel| one.record_wrapper_type = Some(RecordWrapper::RecordIO);
    let source = |one: &mut Channel, kind, names: &[&str]| {
        let source = one.data_source.s3_data_source.as_mut().unwrap();
        source.s3_data_type = kind;
        source.attribute_names = Some(names.iter().map(ToString::to_string).collect());
    };
    let augmented = |one: &mut Channel| source(one, S3DataType::AugmentedManifestFile, &["image-ref", "label"]);
    let everything = |one: &mut Channel| {
        gzip(one);
        framed(one);
        augmented(one);
        one.shuffle_config = Some(ShuffleConfig { seed: 7 });
    };
    type Change<'a> = &'a dyn Fn(&mut Channel);
    let changes: [(&str, Change<'_>); 3] = [
        ("CompressionType Gzip", &gzip),
        ("RecordWrapperType RecordIO", &framed),
        ("AugmentedManifestFile", &augmented),
    ];
    for (what, change) in changes {
        for mode in [TrainingInputMode::File, TrainingInputMode::FastFile] {
            let refused = refusal(try_with("refused", mode, change));
            let wanted = format!("{what} of channel \"train\" is only valid with input mode Pipe.");
            assert_eq!(refused, ("ValidationException".into(), wanted));
        }
        try_with(&what.replace(' ', "-"), TrainingInputMode::Pipe, change).unwrap();
    }
    try_with("all", TrainingInputMode::Pipe, &everything).unwrap();
    let stored = state(&fixture)
        .get::<records::TrainingJob>(&Key::folded(&scope(ACCOUNT), "all"))
        .unwrap()
        .unwrap();
    let channel = &stored.record.spec.channels[0];
    assert_eq!(channel.shuffle_seed, Some(7));
    let wanted = records::training_job::PipeInput {
        gzip: true,
        record_io: true,
        attributes: Some(vec!["image-ref".into(), "label".into()]),
    };
    assert_eq!(channel.mode, records::training_job::InputMode::Pipe(wanted));

    let nameless = |one: &mut Channel| source(one, S3DataType::AugmentedManifestFile, &[]);
    let refused = refusal(try_with("refused", TrainingInputMode::Pipe, &nameless));
    assert!(refused.1.contains("AttributeNames are required"), "{refused:?}");
    let named = |one: &mut Channel| source(one, S3DataType::S3Prefix, &["label"]);
    let refused = refusal(try_with("refused", TrainingInputMode::Pipe, &named));
    assert!(
        refused.1.contains("only valid with AugmentedManifestFile"),
        "{refused:?}"
    );
    let listed = |one: &mut Channel| source(one, S3DataType::ManifestFile, &[]);
    let refused = refusal(try_with("refused", TrainingInputMode::FastFile, &listed));
    assert!(refused.1.contains("only valid with S3DataType S3Prefix"), "{refused:?}");
    try_with("listed", TrainingInputMode::Pipe, &listed).unwrap();

    let mut request = job("clash");
    request.algorithm_specification.as_mut().unwrap().training_input_mode = TrainingInputMode::Pipe;
    let channels = request.input_data_config.as_mut().unwrap();
    channels.push(channel_of("train_12", "s3://data/train/", TrainingInputMode::File));
    let refused = refusal(call::<_, CreateTrainingJobResponse>(
        &fixture,
        "CreateTrainingJob",
        request.clone(),
    ));
    assert!(
        refused.1.contains("the name of a pipe of the channel \"train\""),
        "{refused:?}"
    );
    let channels = request.input_data_config.as_mut().unwrap();
    channels.pop();
    channels.push(channel_of("train_x", "s3://data/train/", TrainingInputMode::File));
    call::<_, CreateTrainingJobResponse>(&fixture, "CreateTrainingJob", request).unwrap();

    let mut request = job("in-a-vpc");
    request.algorithm_specification.as_mut().unwrap().training_input_mode = TrainingInputMode::FastFile;
    request.vpc_config = Some(VpcConfig {
        security_group_ids: vec!["sg-0123456789abcdef0".into()],
        subnets: vec!["subnet-0123456789abcdef0".into()],
    });
    let refused = refusal(call::<_, CreateTrainingJobResponse>(
        &fixture,
        "CreateTrainingJob",
        request,
    ));
    assert!(
        refused.1.starts_with("Input mode FastFile with VpcConfig"),
        "{refused:?}"
    );
}

/// Proves: CC-25
#[test]
fn pipes_are_limited_for_each_job_and_each_account() {
    let fixture = Fixture::new();
    let piped = |name: &str, channels: usize, instances: i64| {
        let mut request = job(name);
        let named = |number| channel_of(&format!("c{number}"), "s3://data/train/", TrainingInputMode::Pipe);
        let given = request.input_data_config.as_mut().unwrap();
        given.extend((0..channels).map(named));
        request.resource_config.as_mut().unwrap().instance_count = Some(instances);
        create_job(&fixture, request)
    };
    // The channel in File mode that each of them has counts for nothing.
    let wanted = |pipes| {
        invalid(format!(
            "A training job can have at most 64 channels with input mode Pipe times instances. This one has {pipes}."
        ))
    };
    assert_eq!(refusal(piped("many", 19, 250)), wanted(4750));
    assert_eq!(refusal(piped("many", 5, 13)), wanted(65));
    assert!(describe_job(&fixture, "many").is_err(), "nothing was stored");
    for number in 0..16 {
        piped(&format!("full-{number}"), 16, 4).unwrap();
    }
    let (code, text) = refusal(piped("one-more", 1, 1));
    assert_eq!(code, "ResourceLimitExceeded");
    assert!(
        text.contains("is 1024, with current utilization of 1024 and a request delta of 1."),
        "{text}"
    );
    create_job(&fixture, job("without")).unwrap();
    let key = Key::folded(&scope(ACCOUNT), "full-3");
    let batch = Batch::default().delete::<records::TrainingJob>(&key, Expect::Any);
    state(&fixture).commit(batch).unwrap();
    piped("one-more", 1, 1).unwrap();
}

fn channel_of(name: &str, uri: &str, mode: TrainingInputMode) -> Channel {
    Channel {
        input_mode: Some(mode),
        ..channel(name, uri)
    }
}

/// Proves: CC-21
#[test]
fn a_job_has_up_to_twenty_channels() {
    let fixture = Fixture::new();
    let with = |name: &str, count: usize| {
        let mut request = job(name);
        let channels = (0..count).map(|n| channel(&format!("c{n}"), "s3://data/train/"));
        request.input_data_config = Some(channels.collect());
        create_job(&fixture, request)
    };
    // More are refused against the model, before any handler runs.
    with("j", 20).unwrap();
    assert_eq!(
        describe_job(&fixture, "j").unwrap().input_data_config.unwrap().len(),
        20
    );
}

/// Proves: CC-38
#[test]
fn a_metric_whose_pattern_cannot_be_used_is_refused() {
    let fixture = Fixture::new();
    let with = |name: &str, regex: &str| {
        let mut request = job(name);
        let metrics = serde_json::json!([{"Name": "loss", "Regex": regex}]);
        request.algorithm_specification.as_mut().unwrap().metric_definitions = serde_json::from_value(metrics).unwrap();
        create_job(&fixture, request)
    };
    let text = "The Regex \"loss=([\" of the metric definition \"loss\" is not a valid regular expression.";
    assert_eq!(refusal(with("j", "loss=([")), invalid(text));
    assert!(describe_job(&fixture, "j").is_err(), "nothing was stored");
    for (name, regex) in [
        ("j", "loss=([0-9.]+)"),
        ("look", "(?<=loss=)([0-9.]+)"),
        ("none", "loss"),
    ] {
        with(name, regex).unwrap();
    }
}

#[test]
fn the_deployment_configuration_is_echoed_only_if_given() {
    let fixture = Fixture::new();
    create_model(&fixture, model("m")).unwrap();
    create_config(&fixture, "c", "m").unwrap();
    let given: DeploymentConfig = serde_json::from_value(serde_json::json!({
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
            "MaximumExecutionTimeoutInSeconds": 1800,
        }
    }))
    .unwrap();
    for (name, deployment_config) in [("With", Some(given)), ("Without", None)] {
        let request = CreateEndpointInput {
            endpoint_name: name.into(),
            endpoint_config_name: "c".into(),
            deployment_config: deployment_config.clone(),
            tags: None,
        };
        call::<_, CreateEndpointOutput>(&fixture, "CreateEndpoint", request).unwrap();
        let shown = describe_endpoint(&fixture, name).unwrap();
        assert_eq!(shown.last_deployment_config, deployment_config, "{name}");
    }
}

fn delete_endpoint(fixture: &Fixture, name: &str) -> Result<DeleteEndpointOutput, ApiError> {
    call(
        fixture,
        "DeleteEndpoint",
        DeleteEndpointInput {
            endpoint_name: name.into(),
        },
    )
}

fn pass(fixture: &Fixture, milliseconds: i64) {
    fixture.clock.0.fetch_add(milliseconds, Ordering::Relaxed);
}

/// Changes a record as the reconcile loops do.
fn edit<R: Record>(fixture: &Fixture, name: &str, edit: impl Fn(&mut R)) {
    let key = Key::folded(&scope(ACCOUNT), name);
    let mut stored = state(fixture).get::<R>(&key).unwrap().unwrap();
    edit(&mut stored.record);
    state(fixture)
        .commit(Batch::default().put(&key, Expect::Any, &stored.record).unwrap())
        .unwrap();
}

/// An endpoint in service, with its configuration `one` and model `m`.
fn in_service() -> Fixture {
    let fixture = Fixture::new();
    create_model(&fixture, model("m")).unwrap();
    create_config(&fixture, "one", "m").unwrap();
    create_endpoint(&fixture, "Ep", "one").unwrap();
    edit::<records::Endpoint>(&fixture, "Ep", |endpoint| {
        endpoint
            .apply(EndpointEvent::FleetHealthy, Timestamp(START + 1))
            .unwrap();
        endpoint.active = endpoint.pending.take();
    });
    fixture
}

/// Proves: NI-4, SM-18, AU-18
#[test]
fn isolation_is_always_a_boolean_in_describe() {
    let fixture = Fixture::new();
    for (name, given, wanted) in [("a", Some(true), true), ("b", Some(false), false), ("c", None, false)] {
        create_job(
            &fixture,
            CreateTrainingJobRequest {
                enable_network_isolation: given,
                ..job(name)
            },
        )
        .unwrap();
        assert_eq!(
            describe_job(&fixture, name).unwrap().enable_network_isolation,
            Some(wanted),
            "job {name}"
        );
        create_model(
            &fixture,
            CreateModelInput {
                enable_network_isolation: given,
                ..model(name)
            },
        )
        .unwrap();
        assert_eq!(
            describe_model(&fixture, name).unwrap().enable_network_isolation,
            Some(wanted),
            "model {name}"
        );
    }
}

/// Proves: SM-7, SM-8
#[test]
fn names_keep_their_case_arns_lose_it_and_uniqueness_ignores_it() {
    let fixture = Fixture::new();
    let created = create_model(&fixture, model("MyModel")).unwrap();
    assert_eq!(created.model_arn, arn("model", "mymodel"));
    assert_eq!(describe_model(&fixture, "mymodel").unwrap().model_name, "MyModel");
    let again = create_model(&fixture, model("MYMODEL"));
    let text = format!("Cannot create already existing model \"{}\".", arn("model", "mymodel"));
    assert_eq!(refusal(again), invalid(text));
}

/// Proves: AU-8
#[test]
fn a_second_model_of_the_same_name_leaves_the_first_unchanged() {
    let fixture = Fixture::new();
    create_model(
        &fixture,
        CreateModelInput {
            enable_network_isolation: Some(true),
            ..model("m")
        },
    )
    .unwrap();
    let before = describe_model(&fixture, "m").unwrap();
    assert!(create_model(&fixture, model("m")).is_err());
    assert_eq!(describe_model(&fixture, "m").unwrap(), before);
    assert!(
        create_model(&fixture, model("other")).is_ok(),
        "control: another name is free"
    );
}

/// Proves: SM-59, SM-60
#[test]
fn what_is_missing_is_said_in_the_words_clients_match() {
    let fixture = Fixture::new();
    let no_model = format!("Could not find model \"{}\".", arn("model", "x"));
    let no_config = format!(
        "Could not find endpoint configuration \"{}\".",
        arn("endpoint-config", "x")
    );
    let no_endpoint = format!("Could not find endpoint \"{}\".", arn("endpoint", "x"));
    assert_eq!(refusal(describe_model(&fixture, "X")), invalid(&no_model));
    let delete = DeleteModelInput { model_name: "X".into() };
    assert_eq!(
        refusal(call::<_, DeleteModelOutput>(&fixture, "DeleteModel", delete)),
        invalid(&no_model)
    );
    assert_eq!(refusal(create_config(&fixture, "c", "X")), invalid(&no_model));
    let describe = DescribeEndpointConfigInput {
        endpoint_config_name: "X".into(),
    };
    let found = call::<_, DescribeEndpointConfigOutput>(&fixture, "DescribeEndpointConfig", describe);
    assert_eq!(refusal(found), invalid(&no_config));
    assert_eq!(refusal(create_endpoint(&fixture, "e", "X")), invalid(&no_config));
    assert_eq!(refusal(describe_endpoint(&fixture, "X")), invalid(&no_endpoint));
    assert_eq!(refusal(delete_endpoint(&fixture, "X")), invalid(&no_endpoint));
    assert_eq!(refusal(update_endpoint(&fixture, "X", "c")), invalid(&no_endpoint));
    assert_eq!(
        refusal(describe_job(&fixture, "X")),
        invalid("Requested resource not found.")
    );
    let stop = StopTrainingJobRequest {
        training_job_name: "X".into(),
    };
    let stopped = call::<_, StopTrainingJobOutput>(&fixture, "StopTrainingJob", stop);
    assert_eq!(refusal(stopped), invalid("Requested resource not found."));
}

/// Proves: SM-59, SM-60
#[test]
fn a_taken_name_is_refused_in_the_words_clients_match() {
    let fixture = in_service();
    let taken = |noun: &str, arn: String| invalid(format!("Cannot create already existing {noun} \"{arn}\"."));
    let config = create_config(&fixture, "ONE", "m");
    assert_eq!(
        refusal(config),
        taken("endpoint configuration", arn("endpoint-config", "one"))
    );
    assert_eq!(
        refusal(create_endpoint(&fixture, "EP", "one")),
        taken("endpoint", arn("endpoint", "ep"))
    );
    create_job(&fixture, job("Job")).unwrap();
    let (code, text) = refusal(create_job(&fixture, job("job")));
    assert_eq!(code, "ResourceInUse");
    assert_eq!(
        text,
        format!(
            "Training job names must be unique within an AWS account and region, and a training job with this name \
             already exists ({})",
            arn("training-job", "job")
        )
    );
}

/// Proves: SM-17, SM-60
#[test]
fn creation_is_checked_as_the_execution_role_in_order() {
    let mut fixture = Fixture::new();
    fixture.platform.unusable_roles = vec![ROLE.into()];
    fixture.platform.missing_images = vec![IMAGE.into()];
    fixture.platform.missing_objects = vec!["s3://data/train/".into(), "s3://models/m.tar.gz".into()];
    let role = format!(
        "Could not assume role {ROLE}. Please ensure that the role exists and allows principal \
         'sagemaker.amazonaws.com' to assume the role."
    );
    let managed = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2";
    let mut request = job("j");
    request.enable_network_isolation = Some(true);
    request.algorithm_specification.as_mut().unwrap().training_image = Some(managed.into());
    assert_eq!(
        refusal(create_job(&fixture, request.clone())),
        invalid(&role),
        "the role comes before the image"
    );
    assert_eq!(refusal(create_model(&fixture, model("m"))), invalid(&role));
    fixture.platform.unusable_roles.clear();
    assert!(
        refusal(create_job(&fixture, request)).1.contains("PyTorch"),
        "isolation comes before the pull"
    );
    assert_eq!(
        refusal(create_job(&fixture, job("j"))),
        invalid(format!("Requested image {IMAGE} not found."))
    );
    fixture.platform.missing_images.clear();
    let (_, text) = refusal(create_job(&fixture, job("j")));
    assert!(text.starts_with("No S3 objects found under S3 URL \"s3://data/train/\" given in input data source. "));
    let (_, text) = refusal(create_model(&fixture, model("m")));
    assert!(
        text.starts_with("Could not access model data at s3://models/m.tar.gz."),
        "{text}"
    );
    fixture.platform.missing_objects.clear();
    fixture.platform.denied_objects = vec!["s3://models/m.tar.gz".into()];
    let (_, text) = refusal(create_model(&fixture, model("m")));
    assert!(
        text.starts_with("Could not access model data at s3://models/m.tar.gz."),
        "{text}"
    );
    fixture.platform.denied_objects.clear();
    assert!(create_job(&fixture, job("j")).is_ok(), "control");
    assert!(create_model(&fixture, model("m")).is_ok(), "control");
}

/// Proves: SM-17, BT-6, BT-10
#[test]
fn a_role_that_may_not_attach_is_refused_after_isolation_and_before_the_image() {
    let mut fixture = Fixture::new();
    fixture.platform.unattached_roles = vec![ROLE.into()];
    fixture.platform.missing_images = vec![IMAGE.into()];
    let vpc = VpcConfig {
        security_group_ids: vec!["sg-12345678".into()],
        subnets: vec!["subnet-12345678".into()],
    };
    let attached_model = CreateModelInput {
        vpc_config: Some(vpc.clone()),
        ..model("m")
    };
    let attached_job = CreateTrainingJobRequest {
        vpc_config: Some(vpc),
        ..job("j")
    };
    let mut managed = attached_job.clone();
    managed.enable_network_isolation = Some(true);
    managed.algorithm_specification.as_mut().unwrap().training_image =
        Some("763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2".into());
    assert!(refusal(create_job(&fixture, managed)).1.contains("PyTorch"));
    let lacking = invalid(format!("{ROLE} is not authorized to perform: ec2:DescribeSubnets"));
    assert_eq!(refusal(create_model(&fixture, attached_model.clone())), lacking);
    assert_eq!(refusal(create_job(&fixture, attached_job.clone())), lacking);
    fixture.platform.unattached_roles.clear();
    let unknown = invalid("The subnet ID 'subnet-12345678' does not exist");
    assert_eq!(
        refusal(create_model(&fixture, attached_model)),
        unknown,
        "control: the role may, and the parts are looked for"
    );
    assert_eq!(refusal(create_job(&fixture, attached_job)), unknown);
    fixture.platform.unattached_roles = vec![ROLE.into()];
    fixture.platform.missing_images.clear();
    assert!(
        create_model(&fixture, model("m")).is_ok(),
        "control: without a VPC nothing is asked"
    );
    assert!(
        create_job(&fixture, job("j")).is_ok(),
        "control: without a VPC nothing is asked"
    );
}

/// Proves: NI-20, SM-45
#[test]
fn managed_images_that_need_s3_cannot_be_isolated() {
    let fixture = Fixture::new();
    for (n, (repository, family)) in [
        ("sagemaker-chainer", "Chainer"),
        ("pytorch-inference", "PyTorch"),
        ("sagemaker-scikit-learn", "scikit-learn"),
        ("sagemaker-rl-coach-container", "Reinforcement learning"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("n{n}");
        let image = |account: &str| format!("{account}.dkr.ecr.us-east-1.amazonaws.com/{repository}:1");
        let model_of = |account: &str, isolated: bool| {
            let mut request = CreateModelInput {
                enable_network_isolation: Some(isolated),
                ..model(&name)
            };
            request.primary_container.as_mut().unwrap().image = Some(image(account));
            request
        };
        let job_of = |account: &str, isolated: bool| {
            let mut request = CreateTrainingJobRequest {
                enable_network_isolation: Some(isolated),
                ..job(&name)
            };
            request.algorithm_specification.as_mut().unwrap().training_image = Some(image(account));
            request
        };
        let managed = "763104351884";
        let (code, text) = refusal(create_model(&fixture, model_of(managed, true)));
        assert_eq!(code, "ValidationException");
        assert!(
            text.contains(family) && text.contains("EnableNetworkIsolation"),
            "{text}"
        );
        assert!(text.contains(&arn("model", &name)), "{text}");
        let (_, text) = refusal(create_job(&fixture, job_of(managed, true)));
        assert!(
            text.contains(family) && text.contains(&arn("training-job", &name)),
            "{text}"
        );
        assert!(
            create_job(&fixture, job_of(ACCOUNT, true)).is_ok(),
            "a custom image of the same framework"
        );
        assert!(
            create_model(&fixture, model_of(managed, false)).is_ok(),
            "control: without isolation"
        );
    }
}

#[test]
fn what_is_not_enforced_is_refused_and_not_stored() {
    let mut fixture = Fixture::new();
    fixture.platform.missing_keys.push("gone".into());
    type Edit = Box<dyn Fn(&mut CreateTrainingJobRequest)>;
    let edits: Vec<(&str, Edit)> = vec![
        (
            "InstanceCount",
            Box::new(|r| r.resource_config.as_mut().unwrap().instance_count = Some(0)),
        ),
        (
            "InstanceCount above 250",
            Box::new(|r| r.resource_config.as_mut().unwrap().instance_count = Some(251)),
        ),
        (
            "MaxWaitTimeInSeconds",
            Box::new(|r| r.enable_managed_spot_training = Some(true)),
        ),
        (
            "EnableManagedSpotTraining",
            Box::new(|r| r.stopping_condition.get_or_insert_default().max_wait_time_in_seconds = Some(86_400)),
        ),
        (
            "MaxWaitTimeInSeconds",
            Box::new(|r| {
                r.enable_managed_spot_training = Some(true);
                let condition = r.stopping_condition.get_or_insert_default();
                condition.max_runtime_in_seconds = Some(600);
                condition.max_wait_time_in_seconds = Some(599);
            }),
        ),
        (
            "Key 'gone' does not exist",
            Box::new(|r| r.output_data_config.kms_key_id = Some("gone".into())),
        ),
        (
            "Key 'gone' does not exist",
            Box::new(|r| r.resource_config.as_mut().unwrap().volume_kms_key_id = Some("gone".into())),
        ),
        (
            "VolumeKmsKeyId cannot be used with the instance type ml.r5d.large",
            Box::new(|r| {
                let resources = r.resource_config.as_mut().unwrap();
                resources.volume_kms_key_id = Some("key".into());
                resources.instance_type = Some("ml.r5d.large".into());
            }),
        ),
        (
            "KeepAlivePeriodInSeconds",
            Box::new(|r| {
                r.resource_config.as_mut().unwrap().keep_alive_period_in_seconds = Some(3601);
            }),
        ),
        (
            "accelerators",
            Box::new(|r| {
                r.resource_config.as_mut().unwrap().instance_type = Some("ml.p3.2xlarge".into());
            }),
        ),
        (
            "AugmentedManifestFile",
            Box::new(|r| {
                let source = &mut r.input_data_config.as_mut().unwrap()[0].data_source.s3_data_source;
                source.as_mut().unwrap().s3_data_type = S3DataType::AugmentedManifestFile;
            }),
        ),
        (
            "LocalPath",
            Box::new(|r| {
                r.checkpoint_config = Some(CheckpointConfig {
                    s3_uri: "s3://c/x".into(),
                    local_path: Some("/opt/ml/input/../x".into()),
                });
            }),
        ),
        (
            "LocalPath",
            Box::new(|r| {
                r.checkpoint_config = Some(CheckpointConfig {
                    s3_uri: "s3://c/x".into(),
                    local_path: Some("/opt/ml".into()),
                });
            }),
        ),
    ];
    for (named, edit) in edits {
        let mut request = job("j");
        edit(&mut request);
        let (code, text) = refusal(create_job(&fixture, request));
        assert_eq!(code, "ValidationException", "{named}");
        assert!(text.contains(named), "{named}: {text}");
    }
    assert!(describe_job(&fixture, "j").is_err(), "nothing was stored");
    assert!(create_job(&fixture, job("j")).is_ok(), "control");
}

/// Proves: SM-32
#[test]
fn the_time_limit_of_a_job_is_a_day_unless_said_and_28_days_at_most() {
    let fixture = Fixture::new();
    let with = |name: &str, limit: Option<i64>| {
        let mut request = job(name);
        request
            .stopping_condition
            .get_or_insert_default()
            .max_runtime_in_seconds = limit;
        create_job(&fixture, request)
    };
    let longest = 28 * 86_400;
    let (code, text) = refusal(with("j", Some(longest + 1)));
    assert_eq!(code, "ValidationException");
    assert!(
        text.contains("MaxRuntimeInSeconds") && text.contains("2419200"),
        "{text}"
    );
    assert!(describe_job(&fixture, "j").is_err(), "nothing was stored");
    for (name, given, kept) in [("longest", Some(longest), longest), ("unsaid", None, 86_400)] {
        with(name, given).unwrap();
        let shown = describe_job(&fixture, name).unwrap();
        assert_eq!(shown.stopping_condition.max_runtime_in_seconds, Some(kept), "{name}");
    }
}

/// Proves: SM-32
#[test]
fn managed_spot_training_is_kept_with_its_wait_time() {
    let fixture = Fixture::new();
    let mut request = job("spot");
    request.enable_managed_spot_training = Some(true);
    let condition = request.stopping_condition.get_or_insert_default();
    condition.max_runtime_in_seconds = Some(600);
    condition.max_wait_time_in_seconds = Some(600);
    create_job(&fixture, request).unwrap();
    let shown = describe_job(&fixture, "spot").unwrap();
    assert_eq!(shown.enable_managed_spot_training, Some(true));
    assert_eq!(shown.stopping_condition.max_wait_time_in_seconds, Some(600));
    create_job(&fixture, job("plain")).unwrap();
    let shown = describe_job(&fixture, "plain").unwrap();
    assert_eq!(shown.enable_managed_spot_training, Some(false));
}

/// The fleet on trial of an endpoint serves.
fn serves(fixture: &Fixture, name: &str) {
    edit::<records::Endpoint>(fixture, name, |endpoint| {
        endpoint
            .apply(EndpointEvent::FleetHealthy, Timestamp(START + 1))
            .unwrap();
        endpoint.active = endpoint.pending.take();
    });
}

/// Two VPCs with a subnet and a group each, ids by number.
fn vpcs(fixture: &Fixture) {
    use isolarium_model::ec2::id::{CidrAssociationId, GroupId, SubnetId, VpcId};
    use isolarium_model::ec2::{self, SecurityGroup, Subnet, Vpc, subnet, vpc, zone};
    for n in [1u128, 2] {
        let block: ipnet::Ipv4Net = format!("10.{n}.0.0/24").parse().unwrap();
        let of = VpcId::of(n);
        let vpc = Vpc {
            id: of,
            blocks: vec![vpc::Block {
                id: CidrAssociationId::of(n),
                block,
            }],
            tenancy: if n == 2 {
                vpc::Tenancy::Dedicated
            } else {
                vpc::Tenancy::Default
            },
            dns_support: true,
            dns_hostnames: false,
            address_usage_metrics: false,
            dhcp_options: None,
            is_default: false,
            generation: 1,
            created: Timestamp(0),
            tags: ec2::Tags::new(),
        };
        let subnet = Subnet {
            id: SubnetId::of(n),
            vpc: of,
            block,
            zone: zone::Zone {
                name: "us-east-1a".into(),
                id: "use1-az1".into(),
            },
            addresses: Default::default(),
            map_public_ip: false,
            launch_names: subnet::LaunchNames::default(),
            is_default: false,
            created: Timestamp(0),
            tags: ec2::Tags::new(),
        };
        let group = SecurityGroup {
            id: GroupId::of(n),
            vpc: of,
            name: "jobs".into(),
            description: "jobs".into(),
            rules: Default::default(),
            created: Timestamp(0),
            tags: ec2::Tags::new(),
        };
        let scope = &scope(ACCOUNT);
        let batch = Batch::default()
            .put(&ec2::key(scope, vpc.id), Expect::Absent, &vpc)
            .and_then(|batch| batch.put(&ec2::key(scope, subnet.id), Expect::Absent, &subnet))
            .and_then(|batch| batch.put(&ec2::key(scope, group.id), Expect::Absent, &group));
        fixture.store.commit(batch.unwrap()).unwrap();
    }
}

fn attachment(subnets: &[u128], groups: &[u128]) -> VpcConfig {
    use isolarium_model::ec2::id::{GroupId, SubnetId};
    VpcConfig {
        security_group_ids: groups.iter().map(|n| GroupId::of(*n).to_string()).collect(),
        subnets: subnets.iter().map(|n| SubnetId::of(*n).to_string()).collect(),
    }
}

/// Proves: VPC-3, NI-17, NET-60, NET-65, SM-18
#[test]
fn a_vpc_config_is_kept_and_given_back_with_and_without_isolation() {
    let fixture = Fixture::new();
    vpcs(&fixture);
    let config = attachment(&[1], &[1]);
    for (name, isolated) in [("a", None), ("b", Some(true))] {
        let request = CreateTrainingJobRequest {
            vpc_config: Some(config.clone()),
            enable_network_isolation: isolated,
            ..job(name)
        };
        create_job(&fixture, request).unwrap();
        let shown = describe_job(&fixture, name).unwrap();
        assert_eq!(shown.vpc_config.as_ref(), Some(&config));
        assert_eq!(shown.enable_network_isolation, Some(isolated.unwrap_or(false)));
        let request = CreateModelInput {
            vpc_config: Some(config.clone()),
            enable_network_isolation: isolated,
            ..model(name)
        };
        create_model(&fixture, request).unwrap();
        let shown = describe_model(&fixture, name).unwrap();
        assert_eq!(shown.vpc_config.as_ref(), Some(&config));
        assert_eq!(shown.enable_network_isolation, Some(isolated.unwrap_or(false)));
    }
}

/// Captured data would have to leave through the VPC. Capture that is off, models outside, and a VPC without capture are
/// the controls.
///
/// Proves: CC-60
#[test]
fn data_capture_of_a_model_in_a_vpc_is_refused_wherever_they_meet() {
    let fixture = Fixture::new();
    vpcs(&fixture);
    let inside = |name: &str| CreateModelInput {
        vpc_config: Some(attachment(&[1], &[1])),
        ..model(name)
    };
    let captured = |name: &str, model: &str, enabled: bool| {
        let capture = DataCaptureConfig {
            enable_capture: Some(enabled),
            initial_sampling_percentage: 100,
            destination_s3_uri: "s3://kept/here".into(),
            kms_key_id: None,
            capture_options: vec![CaptureOption::new(CaptureMode::Input)],
            capture_content_type_header: None,
        };
        let request = CreateEndpointConfigInput {
            data_capture_config: Some(capture),
            ..config(name, model)
        };
        call::<_, CreateEndpointConfigOutput>(&fixture, "CreateEndpointConfig", request)
    };
    create_model(&fixture, inside("in")).unwrap();
    create_model(&fixture, model("out")).unwrap();
    let text =
        "DataCaptureConfig of a model with VpcConfig is not supported by this engine yet; see docs/known-limits.md.";
    assert_eq!(refusal(captured("c", "in", true)), invalid(text));
    captured("off", "in", false).unwrap();
    captured("on", "out", true).unwrap();
    create_config(&fixture, "plain", "in").unwrap();
    create_endpoint(&fixture, "off", "off").unwrap();
    create_endpoint(&fixture, "on", "on").unwrap();
    create_endpoint(&fixture, "plain", "plain").unwrap();
    // Another model under the name of the one that the configuration was made with.
    let gone = DeleteModelInput {
        model_name: "out".into(),
    };
    call::<_, DeleteModelOutput>(&fixture, "DeleteModel", gone).unwrap();
    create_model(&fixture, inside("out")).unwrap();
    assert_eq!(refusal(create_endpoint(&fixture, "late", "on")), invalid(text));
    // An update that brings the settings, and one that retains them.
    for name in ["plain", "on"] {
        serves(&fixture, name);
    }
    assert_eq!(refusal(update_endpoint(&fixture, "plain", "on")), invalid(text));
    let retaining = |excluded: bool| {
        let request = UpdateEndpointInput {
            endpoint_name: "on".into(),
            endpoint_config_name: "plain".into(),
            retain_all_variant_properties: Some(true),
            exclude_retained_variant_properties: excluded.then(|| {
                vec![VariantProperty {
                    variant_property_type: VariantPropertyType::DataCaptureConfig,
                }]
            }),
            ..Default::default()
        };
        call::<_, UpdateEndpointOutput>(&fixture, "UpdateEndpoint", request)
    };
    assert_eq!(refusal(retaining(false)), invalid(text));
    retaining(true).unwrap();
    update_endpoint(&fixture, "plain", "off").unwrap();
}

/// Proves: NET-7, NET-62, NET-63, NET-64
#[test]
fn parts_that_are_not_there_or_do_not_belong_together_are_refused_by_name() {
    use isolarium_model::ec2::id::{GroupId, SubnetId, VpcId};
    let fixture = Fixture::new();
    vpcs(&fixture);
    let (one, two) = (SubnetId::of(1), SubnetId::of(2));
    let unknown = |text: &str| VpcConfig {
        subnets: vec![text.into()],
        ..attachment(&[], &[1])
    };
    let cases = [
        (
            attachment(&[1, 7], &[1]),
            format!("The subnet ID '{}' does not exist", SubnetId::of(7)),
        ),
        (unknown("sub"), "The subnet ID 'sub' does not exist".into()),
        (
            unknown(&VpcId::of(1).to_string()),
            format!("The subnet ID '{}' does not exist", VpcId::of(1)),
        ),
        (
            attachment(&[1], &[7]),
            format!("The security group '{}' does not exist", GroupId::of(7)),
        ),
        (
            attachment(&[1, 2], &[1]),
            format!(
                "All subnets of VpcConfig must belong to one VPC: subnet {one} belongs to {}, subnet {two} to {}.",
                VpcId::of(1),
                VpcId::of(2)
            ),
        ),
        (
            attachment(&[1], &[1, 2]),
            format!(
                "Security group {} and subnet {one} belong to different networks: the group belongs to {}, the subnet to {}.",
                GroupId::of(2),
                VpcId::of(2),
                VpcId::of(1)
            ),
        ),
    ];
    for (config, text) in cases {
        let attached_job = CreateTrainingJobRequest {
            vpc_config: Some(config.clone()),
            ..job("j")
        };
        let attached_model = CreateModelInput {
            vpc_config: Some(config),
            ..model("m")
        };
        assert_eq!(refusal(create_job(&fixture, attached_job)), invalid(text.clone()));
        assert_eq!(refusal(create_model(&fixture, attached_model)), invalid(text));
    }
    let dedicated = CreateTrainingJobRequest {
        vpc_config: Some(attachment(&[2], &[2])),
        ..job("j")
    };
    assert!(refusal(create_job(&fixture, dedicated)).1.contains("dedicated tenancy"));
    let hosted = CreateModelInput {
        vpc_config: Some(attachment(&[2], &[2])),
        ..model("m")
    };
    assert!(create_model(&fixture, hosted).is_ok(), "control: hosting may");
    let good = CreateTrainingJobRequest {
        vpc_config: Some(attachment(&[1], &[1])),
        ..job("j")
    };
    assert!(create_job(&fixture, good).is_ok(), "control");
}

/// A bucket may ask for the VPC; the role from elsewhere is no measure then.
/// Proves: VPC-15
#[test]
fn data_that_the_role_may_read_from_the_vpc_alone_is_no_reason_to_refuse() {
    let mut fixture = Fixture::new();
    vpcs(&fixture);
    fixture.platform.denied_objects = vec!["s3://data/train/".into()];
    let attached = |name: &str| CreateTrainingJobRequest {
        vpc_config: Some(attachment(&[1], &[1])),
        ..job(name)
    };
    assert!(
        refusal(create_job(&fixture, job("j"))).1.contains("No S3 objects"),
        "control"
    );
    assert!(create_job(&fixture, attached("j")).is_ok());
    fixture.platform.denied_objects.clear();
    fixture.platform.missing_objects = vec!["s3://data/train/".into()];
    assert!(
        refusal(create_job(&fixture, attached("k"))).1.contains("No S3 objects"),
        "what is not there is not there"
    );
}

/// What SDKs always send is accepted and given back; absent members stay absent.
#[test]
fn describe_gives_back_what_was_sent_and_nothing_else() {
    let fixture = Fixture::new();
    let mut request = job("j");
    request.hyper_parameters = Some(IndexMap::from([("epochs".to_string(), "\"3\"".to_string())]));
    request.environment = Some(IndexMap::new());
    request.debug_hook_config = Some(DebugHookConfig {
        s3_output_path: "s3://out/debug".into(),
        ..Default::default()
    });
    request.profiler_config = Some(ProfilerConfig {
        disable_profiler: Some(false),
        ..Default::default()
    });
    request.enable_inter_container_traffic_encryption = Some(true);
    create_job(&fixture, request.clone()).unwrap();
    let shown = describe_job(&fixture, "j").unwrap();
    assert_eq!(shown.hyper_parameters, request.hyper_parameters);
    assert_eq!(shown.algorithm_specification, request.algorithm_specification);
    assert_eq!(shown.input_data_config, request.input_data_config);
    assert_eq!(shown.resource_config, request.resource_config);
    assert_eq!(shown.debug_hook_config, request.debug_hook_config);
    assert_eq!(shown.profiler_config, request.profiler_config);
    assert_eq!(shown.enable_inter_container_traffic_encryption, Some(true));
    assert_eq!(shown.environment, None, "an empty map is left out");
    assert_eq!(shown.stopping_condition.max_runtime_in_seconds, Some(600));
    let Document::Map(members) = Document::from(shown) else {
        panic!("a structure")
    };
    for absent in [
        "VpcConfig",
        "CheckpointConfig",
        "FailureReason",
        "FinalMetricDataList",
        "TrainingEndTime",
    ] {
        assert!(!members.contains_key(absent), "{absent}");
    }
    for needed in [
        "SecondaryStatusTransitions",
        "ModelArtifacts",
        "CreationTime",
        "LastModifiedTime",
    ] {
        assert!(members.contains_key(needed), "{needed}");
    }
}

/// Proves: SM-18
#[test]
fn a_container_shows_its_mode_and_vpc_config_stays_absent() {
    let fixture = Fixture::new();
    let mut request = model("m");
    request.primary_container.as_mut().unwrap().environment = Some(IndexMap::new());
    create_model(&fixture, request).unwrap();
    let shown = describe_model(&fixture, "m").unwrap();
    let container = shown.primary_container.unwrap();
    assert_eq!(container.mode, Some(ContainerMode::SingleModel));
    assert_eq!(container.environment, None);
    assert_eq!((shown.vpc_config, shown.containers), (None, None));
}

/// Proves: SM-15
#[test]
fn exactly_one_form_of_containers_and_model_data_is_given() {
    let fixture = Fixture::new();
    let both = CreateModelInput {
        containers: Some(vec![ContainerDefinition::default()]),
        ..model("m")
    };
    assert!(refusal(create_model(&fixture, both)).1.contains("not both"));
    let none = CreateModelInput {
        primary_container: None,
        ..model("m")
    };
    assert!(
        refusal(create_model(&fixture, none))
            .1
            .contains("either PrimaryContainer or Containers")
    );
    let source = |s3_uri: &str, s3_data_type, compression_type| ModelDataSource {
        s3_data_source: Some(S3ModelDataSource {
            s3_uri: s3_uri.into(),
            s3_data_type,
            compression_type,
            model_access_config: None,
            hub_access_config: None,
            manifest_s3_uri: None,
            e_tag: None,
            manifest_etag: None,
        }),
    };
    let with = |url: Option<&str>, source: Option<ModelDataSource>| {
        let mut request = model("m");
        let container = request.primary_container.as_mut().unwrap();
        container.model_data_url = url.map(String::from);
        container.model_data_source = source;
        request
    };
    let (prefix, none, gzip) = (
        S3ModelDataType::S3Prefix,
        ModelCompressionType::None,
        ModelCompressionType::Gzip,
    );
    let twice = with(Some("s3://b/m.tar.gz"), Some(source("s3://b/m/", prefix, none)));
    assert!(refusal(create_model(&fixture, twice)).1.contains("not both"));
    let open = with(None, Some(source("s3://b/m", prefix, none)));
    assert!(refusal(create_model(&fixture, open)).1.contains("must end with"));
    let packed = with(None, Some(source("s3://b/m/", prefix, gzip)));
    assert!(
        refusal(create_model(&fixture, packed))
            .1
            .contains("only valid with S3DataType S3Object")
    );
    assert!(
        create_model(&fixture, with(None, Some(source("s3://b/m/", prefix, none)))).is_ok(),
        "control"
    );
}

/// Proves: SM-33, SM-60
#[test]
fn stop_moves_the_job_once_and_an_ended_job_refuses() {
    let fixture = Fixture::new();
    create_job(&fixture, job("j")).unwrap();
    let stop = || StopTrainingJobRequest {
        training_job_name: "j".into(),
    };
    let delete = || DeleteTrainingJobRequest {
        training_job_name: "j".into(),
    };
    let (_, text) = refusal(call::<_, DeleteTrainingJobOutput>(
        &fixture,
        "DeleteTrainingJob",
        delete(),
    ));
    assert_eq!(
        text,
        "The request was rejected because the training job is in status InProgress."
    );
    pass(&fixture, 5000);
    call::<_, StopTrainingJobOutput>(&fixture, "StopTrainingJob", stop()).unwrap();
    call::<_, StopTrainingJobOutput>(&fixture, "StopTrainingJob", stop()).unwrap();
    let shown = describe_job(&fixture, "j").unwrap();
    assert_eq!(shown.training_job_status, TrainingJobStatus::Stopping);
    assert_eq!(shown.secondary_status_transitions.unwrap().len(), 2);
    edit::<records::TrainingJob>(&fixture, "j", |job| {
        job.fail(FailureReason::job(FailureKind::Client, "x", None), Timestamp(START))
            .unwrap();
    });
    let (code, text) = refusal(call::<_, StopTrainingJobOutput>(&fixture, "StopTrainingJob", stop()));
    assert_eq!(code, "ValidationException");
    assert_eq!(
        text,
        "The request was rejected because the training job is in status Failed."
    );
    assert_eq!(
        describe_job(&fixture, "j").unwrap().failure_reason.as_deref(),
        Some("ClientError: x")
    );
    assert!(create_job(&fixture, job("j")).is_err(), "the name is taken");
    call::<_, DeleteTrainingJobOutput>(&fixture, "DeleteTrainingJob", delete()).unwrap();
    assert!(create_job(&fixture, job("j")).is_ok(), "the name is free again");
}

/// Proves: SM-10, SM-11, SM-12, AU-19
#[test]
fn lists_page_sort_and_filter_over_150_models() {
    let fixture = Fixture::new();
    for n in 0..150 {
        create_model(&fixture, model(&format!("Model-{n:03}"))).unwrap();
        pass(&fixture, 1000);
    }
    let list = |request: ListModelsInput| call::<_, ListModelsOutput>(&fixture, "ListModels", request);
    let first = list(ListModelsInput::default()).unwrap();
    assert_eq!(first.models.len(), 10, "the default page");
    assert_eq!(first.models[0].model_name, "Model-149", "newest first");
    let mut names = Vec::new();
    let mut token = None;
    loop {
        let page = list(ListModelsInput {
            next_token: token,
            max_results: Some(40),
            sort_by: Some(ModelSortKey::Name),
            sort_order: Some(OrderKey::Ascending),
            ..Default::default()
        })
        .unwrap();
        names.extend(page.models.into_iter().map(|one| one.model_name));
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names, (0..150).map(|n| format!("Model-{n:03}")).collect::<Vec<_>>());
    let found = list(ListModelsInput {
        name_contains: Some("MODEL-14".into()),
        ..Default::default()
    })
    .unwrap();
    assert_eq!(found.models.len(), 10);
    assert_eq!(found.next_token, None, "a token only when there is more");
    let bounds = ListModelsInput {
        creation_time_after: Some(START + 2000),
        creation_time_before: Some(START + 6000),
        ..Default::default()
    };
    assert_eq!(list(bounds).unwrap().models.len(), 3, "bounds are exclusive");
    let bad = ListModelsInput {
        next_token: Some("nonsense".into()),
        ..Default::default()
    };
    assert_eq!(refusal(list(bad)).0, "ValidationException");
}

/// Proves: SM-11
#[test]
fn jobs_are_listed_oldest_first_and_filtered_by_status() {
    let fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        create_job(&fixture, job(name)).unwrap();
        pass(&fixture, 1000);
    }
    edit::<records::TrainingJob>(&fixture, "b", |job| {
        job.fail(
            FailureReason::job(FailureKind::Client, "x", None),
            Timestamp(START + 9000),
        )
        .unwrap();
    });
    let list = |status| {
        let request = ListTrainingJobsRequest {
            status_equals: status,
            ..Default::default()
        };
        let answer = call::<_, ListTrainingJobsResponse>(&fixture, "ListTrainingJobs", request).unwrap();
        answer
            .training_job_summaries
            .into_iter()
            .map(|one| one.training_job_name)
            .collect::<Vec<_>>()
    };
    assert_eq!(list(None), ["a", "b", "c"]);
    assert_eq!(list(Some(TrainingJobStatus::Failed)), ["b"]);
    assert_eq!(list(Some(TrainingJobStatus::InProgress)), ["a", "c"]);
}

/// Proves: SM-13
#[test]
fn tags_are_merged_listed_and_deleted_on_every_noun() {
    let fixture = in_service();
    create_job(&fixture, job("j")).unwrap();
    let tag = |key: &str, value: &str| Tag {
        key: key.into(),
        value: value.into(),
    };
    for resource in [
        arn("model", "m"),
        arn("endpoint-config", "one"),
        arn("endpoint", "ep"),
        arn("training-job", "j"),
    ] {
        let add = |tags| {
            let request = AddTagsInput {
                resource_arn: resource.clone(),
                tags,
            };
            call::<_, AddTagsOutput>(&fixture, "AddTags", request)
        };
        add(vec![tag("a", "1"), tag("b", "2")]).unwrap();
        assert_eq!(
            add(vec![tag("b", "3")]).unwrap().tags.unwrap(),
            [tag("a", "1"), tag("b", "3")]
        );
        let delete = DeleteTagsInput {
            resource_arn: resource.clone(),
            tag_keys: vec!["a".into(), "none".into()],
        };
        call::<_, DeleteTagsOutput>(&fixture, "DeleteTags", delete).unwrap();
        let list = ListTagsInput {
            resource_arn: resource.clone(),
            next_token: None,
            max_results: None,
        };
        let listed = call::<_, ListTagsOutput>(&fixture, "ListTags", list).unwrap();
        assert_eq!(listed.tags.unwrap(), [tag("b", "3")]);
        let many = (0..50).map(|n| tag(&format!("k{n}"), "v")).collect();
        assert!(refusal(add(many)).1.contains("at most 50"));
    }
    let list = ListTagsInput {
        resource_arn: arn("model", "none"),
        next_token: None,
        max_results: None,
    };
    assert_eq!(
        refusal(call::<_, ListTagsOutput>(&fixture, "ListTags", list)).0,
        "ValidationException"
    );
}

/// Proves: SM-19, SM-21
#[test]
fn models_and_configurations_in_use_can_be_deleted() {
    let fixture = in_service();
    let delete = DeleteModelInput { model_name: "m".into() };
    call::<_, DeleteModelOutput>(&fixture, "DeleteModel", delete).unwrap();
    let delete = DeleteEndpointConfigInput {
        endpoint_config_name: "one".into(),
    };
    call::<_, DeleteEndpointConfigOutput>(&fixture, "DeleteEndpointConfig", delete).unwrap();
    let shown = describe_endpoint(&fixture, "ep").unwrap();
    assert_eq!(shown.endpoint_status, EndpointStatus::InService);
    assert_eq!(shown.endpoint_config_name.as_deref(), Some("one"));
}

/// Proves: SM-19
#[test]
fn an_update_that_needs_a_deleted_model_is_refused_and_changes_nothing() {
    let fixture = in_service();
    create_model(&fixture, model("n")).unwrap();
    create_config(&fixture, "two", "n").unwrap();
    let delete = DeleteModelInput { model_name: "n".into() };
    call::<_, DeleteModelOutput>(&fixture, "DeleteModel", delete).unwrap();
    assert!(
        refusal(update_endpoint(&fixture, "Ep", "two"))
            .1
            .starts_with("Could not find model")
    );
    assert_eq!(
        describe_endpoint(&fixture, "Ep").unwrap().endpoint_status,
        EndpointStatus::InService
    );
}

/// Proves: SM-20
#[test]
fn a_configuration_gives_back_its_variants_with_the_default_weight() {
    let fixture = in_service();
    let describe = DescribeEndpointConfigInput {
        endpoint_config_name: "one".into(),
    };
    let shown: DescribeEndpointConfigOutput = call(&fixture, "DescribeEndpointConfig", describe).unwrap();
    let [variant] = &shown.production_variants[..] else {
        panic!("one variant")
    };
    assert_eq!(variant.initial_variant_weight, Some(1.0));
    assert_eq!(variant.enable_ssm_access, Some(false));
    assert_eq!(variant.volume_size_in_gb, None, "unset members stay absent");
    let mut twice = config("two", "m");
    twice.production_variants.push(twice.production_variants[0].clone());
    let (_, text) = refusal(call::<_, CreateEndpointConfigOutput>(
        &fixture,
        "CreateEndpointConfig",
        twice,
    ));
    assert!(text.contains("unique"), "{text}");
}

/// Proves: NET-64
#[test]
fn an_update_to_one_zone_is_taken_with_a_warning_and_to_two_without() {
    use isolarium_model::ec2::{self, Subnet, id::SubnetId};
    let fixture = in_service();
    vpcs(&fixture);
    let scope = scope(ACCOUNT);
    let store: &dyn isolarium_store::StateStore = &fixture.store;
    let first = store
        .get::<Subnet>(&ec2::key(&scope, SubnetId::of(1)))
        .unwrap()
        .unwrap();
    let mut other = Subnet {
        id: SubnetId::of(3),
        ..first.record
    };
    other.zone.name = "us-east-1b".into();
    let batch = isolarium_store::Batch::default().put(
        &ec2::key(&scope, SubnetId::of(3)),
        isolarium_store::Expect::Absent,
        &other,
    );
    store.commit(batch.unwrap()).unwrap();
    for (name, subnets) in [("one-zone", vec![1]), ("two-zones", vec![1, 3])] {
        let request = CreateModelInput {
            vpc_config: Some(attachment(&subnets, &[1])),
            ..model(name)
        };
        create_model(&fixture, request).unwrap();
        create_config(&fixture, name, name).unwrap();
    }
    let warned = |config: &str| {
        let endpoint = format!("ep-{config}");
        create_endpoint(&fixture, &endpoint, "one").unwrap();
        edit::<records::Endpoint>(&fixture, &endpoint, |endpoint| {
            endpoint
                .apply(EndpointEvent::FleetHealthy, Timestamp(START + 1))
                .unwrap();
            endpoint.active = endpoint.pending.take();
        });
        update_endpoint(&fixture, &endpoint, config).unwrap();
        let shown = describe_endpoint(&fixture, &endpoint).unwrap();
        let pending = shown.pending_deployment_summary.unwrap().production_variants.unwrap();
        pending[0].variant_status.clone()
    };
    assert_eq!(warned("two-zones"), None);
    let told = warned("one-zone").unwrap();
    let text = told[0].status_message.as_deref().unwrap();
    assert!(
        text.contains("us-east-1a") && text.contains("two Availability Zones"),
        "{text}"
    );
}

/// Proves: SM-23, SM-26, SM-27
#[test]
fn an_update_shows_the_old_configuration_and_the_pending_one_until_it_is_done() {
    let fixture = in_service();
    create_config(&fixture, "two", "m").unwrap();
    update_endpoint(&fixture, "Ep", "two").unwrap();
    let shown = describe_endpoint(&fixture, "Ep").unwrap();
    assert_eq!(shown.endpoint_status, EndpointStatus::Updating);
    assert_eq!(shown.endpoint_config_name.as_deref(), Some("one"));
    assert_eq!(shown.pending_deployment_summary.unwrap().endpoint_config_name, "two");
    let busy = invalid(format!(
        "Cannot update in-progress endpoint \"{}\".",
        arn("endpoint", "ep")
    ));
    assert_eq!(refusal(update_endpoint(&fixture, "Ep", "two")), busy);
    assert_eq!(refusal(delete_endpoint(&fixture, "Ep")), busy);
    create_endpoint(&fixture, "new", "one").unwrap();
    let creating = describe_endpoint(&fixture, "new").unwrap();
    assert_eq!(
        (creating.endpoint_status, creating.production_variants),
        (EndpointStatus::Creating, None)
    );
}

/// Proves: SM-25
#[test]
fn weights_and_counts_change_by_variant_and_unknown_names_are_refused() {
    let fixture = in_service();
    let change = |name: &str, count: Option<i64>| {
        let request = UpdateEndpointWeightsAndCapacitiesInput {
            endpoint_name: "Ep".into(),
            desired_weights_and_capacities: vec![DesiredWeightAndCapacity {
                variant_name: name.into(),
                desired_weight: Some(0.5),
                desired_instance_count: count,
                serverless_update_config: None,
            }],
        };
        call::<_, UpdateEndpointWeightsAndCapacitiesOutput>(&fixture, "UpdateEndpointWeightsAndCapacities", request)
    };
    assert!(
        refusal(change("none", None))
            .1
            .contains("Could not find variant \"none\"")
    );
    assert_eq!(
        describe_endpoint(&fixture, "Ep").unwrap().endpoint_status,
        EndpointStatus::InService
    );
    change("AllTraffic", Some(3)).unwrap();
    let shown = describe_endpoint(&fixture, "Ep").unwrap();
    assert_eq!(shown.endpoint_status, EndpointStatus::Updating);
    let variants = shown.production_variants.unwrap();
    assert_eq!(
        (variants[0].current_weight, variants[0].desired_instance_count),
        (Some(0.5), Some(3))
    );
}

/// Proves: SM-60
#[test]
fn the_operators_quota_is_off_by_default_and_named_when_it_is_reached() {
    let mut fixture = Fixture::new();
    for n in 0..5 {
        create_job(&fixture, job(&format!("free-{n}"))).unwrap();
    }
    fixture.platform.settings.training_instances = Some(5);
    let (code, text) = refusal(create_job(&fixture, job("over")));
    assert_eq!(code, "ResourceLimitExceeded");
    assert!(
        text.starts_with(
            "The account-level service limit 'ml.m5.large for training job usage' is 5 Instances, with current \
             utilization of 5 Instances and a request delta of 1 Instances."
        ),
        "{text}"
    );
}

/// Proves: CC-7
#[test]
fn a_type_with_accelerators_runs_where_the_operator_says_that_it_needs_none() {
    let mut fixture = Fixture::new();
    let gpu = |name: &str| {
        let mut request = job(name);
        request.resource_config.as_mut().unwrap().instance_type = Some("ml.p3.2xlarge".into());
        request
    };
    let (_, text) = refusal(create_job(&fixture, gpu("refused")));
    assert!(text.contains("accelerators"), "control: {text}");
    let shape = isolarium_model::sagemaker::InstanceShape {
        vcpus: 2,
        memory_mib: 4096,
        accelerators: 0,
    };
    fixture.platform.settings.instances =
        isolarium_model::sagemaker::InstanceTable::new([("ml.p3.2xlarge".to_string(), shape)]);
    create_job(&fixture, gpu("taken")).unwrap();
}

/// Proves: CC-84
#[test]
fn only_open_jobs_hold_an_address_and_no_two_the_same() {
    let mut fixture = Fixture::new();
    fixture.platform.settings.platform_network = "100.64.0.0/28".parse().unwrap();
    create_job(
        &fixture,
        CreateTrainingJobRequest {
            enable_network_isolation: Some(true),
            ..job("sealed")
        },
    )
    .unwrap();
    assert_eq!(state(&fixture).all::<AddressLease>().unwrap().len(), 0);
    for n in 0..11 {
        create_job(&fixture, job(&format!("open-{n}"))).unwrap();
    }
    let leases = state(&fixture).all::<AddressLease>().unwrap();
    assert_eq!(leases.len(), 11, "all usable addresses, each once");
    let network = fixture.platform.settings.platform_network;
    for lease in &leases {
        let address = lease.key.name.parse().unwrap();
        assert!(AddressLease::may_hold(network, address), "{address}");
    }
    let (code, _) = refusal(create_job(&fixture, job("full")));
    assert_eq!(code, "ResourceLimitExceeded");
    assert!(
        describe_job(&fixture, "full").is_err(),
        "neither job nor address was kept"
    );
}

/// Proves: IAM-51, IAM-58
#[test]
fn a_creation_asks_about_the_resource_its_tags_and_the_role() {
    use crate::Operation;
    let fixture = Fixture::new();
    let caller = root(ACCOUNT);
    let ctx = fixture.ctx(&caller);
    let tags = Some(vec![Tag {
        key: "team".into(),
        value: "x".into(),
    }]);
    let request = CreateTrainingJobRequest {
        enable_network_isolation: Some(true),
        tags,
        ..job("J")
    };
    let questions = request.questions(&ctx);
    let asked: Vec<(&str, &str)> = questions
        .iter()
        .map(|q| (q.action.as_str(), q.resource.as_str()))
        .collect();
    let job_arn = arn("training-job", "j");
    assert_eq!(
        asked,
        [
            ("sagemaker:CreateTrainingJob", &*job_arn),
            ("sagemaker:AddTags", &*job_arn),
            ("iam:PassRole", ROLE)
        ]
    );
    let value = |at: usize, key: &str| questions[at].context.get(&key.to_ascii_lowercase()).cloned();
    assert_eq!(value(0, "sagemaker:NetworkIsolation"), Some(vec!["true".into()]));
    assert_eq!(value(0, "sagemaker:InstanceTypes"), Some(vec!["ml.m5.large".into()]));
    assert_eq!(value(0, "sagemaker:MaxRuntimeInSeconds"), Some(vec!["600".into()]));
    assert_eq!(value(0, "aws:RequestTag/team"), Some(vec!["x".into()]));
    assert_eq!(value(1, "aws:TagKeys"), Some(vec!["team".into()]));
    assert_eq!(
        value(2, "iam:PassedToService"),
        Some(vec!["sagemaker.amazonaws.com".into()])
    );
    let absent = job("J").questions(&ctx);
    assert_eq!(
        absent[0].context.get("sagemaker:networkisolation"),
        Some(&vec!["false".to_string()])
    );
    let config = config("C", "M").questions(&ctx);
    assert!(config.iter().any(|question| question.resource == arn("model", "m")));
}
