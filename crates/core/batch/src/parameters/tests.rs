use super::*;
use isolarium_model::sagemaker::JobNetwork;
use isolarium_model::sagemaker::model::{ContainerSpec, ModelSpec};
use isolarium_model::sagemaker::training_job::S3DataType;
use isolarium_model::sagemaker::transform_job::{
    AssembleWith, DataProcessing, ModelClient, SplitType, TransformInput, TransformOutput,
};
use std::collections::BTreeMap;

fn spec() -> TransformSpec {
    TransformSpec {
        model_name: "m".into(),
        model: ModelSpec {
            package: None,
            container: ContainerSpec {
                image: "i".into(),
                environment: BTreeMap::new(),
            },
            data: None,
            role_arn: "arn:aws:iam::123456789012:role/r".parse().unwrap(),
            network: JobNetwork::new(Some(true), None),
            several: None,
        },
        environment: BTreeMap::new(),
        instance_type: "ml.m5.large".into(),
        volume: None,
        instance_count: 1,
        input: TransformInput {
            uri: "s3://b/in/".parse().unwrap(),
            data_type: S3DataType::S3Prefix,
            content_type: None,
            gzip: false,
            split: SplitType::None,
        },
        output: TransformOutput {
            kms_key: None,
            uri: "s3://b/out".parse().unwrap(),
            accept: None,
            assemble: AssembleWith::None,
        },
        client: ModelClient::default(),
        max_concurrent: None,
        max_payload_mb: None,
        strategy: None,
        processing: DataProcessing::default(),
    }
}

/// Proves: CC-66
#[test]
fn the_request_goes_before_the_container_and_the_container_before_the_defaults() {
    let none = ExecutionParameters::default();
    let defaults = Parameters::of(&spec(), none);
    assert_eq!((defaults.max_concurrent, defaults.max_payload_mb), (1, 6));
    assert_eq!(defaults.strategy, BatchStrategy::MultiRecord);
    let said = ExecutionParameters::parse(
        br#"{"MaxConcurrentTransforms": 8, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 3}"#,
    );
    let of_container = Parameters::of(&spec(), said);
    assert_eq!((of_container.max_concurrent, of_container.max_payload_mb), (8, 3));
    assert_eq!(of_container.strategy, BatchStrategy::SingleRecord);
    let asked = TransformSpec {
        max_concurrent: Some(2),
        max_payload_mb: Some(0),
        strategy: Some(BatchStrategy::MultiRecord),
        ..spec()
    };
    let of_request = Parameters::of(&asked, said);
    assert_eq!(
        (of_request.max_concurrent, of_request.payload_bytes()),
        (2, None),
        "0 is without limit"
    );
    assert_eq!(of_request.strategy, BatchStrategy::MultiRecord);
    let zero = TransformSpec {
        max_concurrent: Some(0),
        ..spec()
    };
    assert_eq!(Parameters::of(&zero, said).max_concurrent, 8, "0 counts as unset");
}

/// Proves: CC-65
#[test]
fn what_a_container_says_badly_counts_as_not_said() {
    for body in [
        "",
        "[]",
        "nope",
        "{}",
        r#"{"MaxConcurrentTransforms": -1, "MaxPayloadInMB": "6", "BatchStrategy": "MultiRecord"}"#,
    ] {
        assert_eq!(
            ExecutionParameters::parse(body.as_bytes()),
            ExecutionParameters::default(),
            "{body}"
        );
    }
    let greedy = ExecutionParameters::parse(br#"{"MaxConcurrentTransforms": 1000000, "MaxPayloadInMB": 50}"#);
    assert_eq!(
        Parameters::of(&spec(), greedy).max_concurrent,
        2,
        "what is on its way stays within 100 MB"
    );
}

/// Proves: CC-66, CC-70
#[test]
fn requests_at_once_follow_from_the_payload_that_is_used() {
    let said = |body: &str| ExecutionParameters::parse(body.as_bytes());
    let none = ExecutionParameters::default();
    let asked = |concurrent, payload| TransformSpec {
        max_concurrent: Some(concurrent),
        max_payload_mb: payload,
        ..spec()
    };
    let width = |spec: &TransformSpec, container| Parameters::of(spec, container).max_concurrent;
    // The container names the payload of a request that names the concurrency.
    assert_eq!(width(&asked(16, None), said(r#"{"MaxPayloadInMB": 100}"#)), 1);
    assert_eq!(width(&asked(16, None), said(r#"{"MaxPayloadInMB": 25}"#)), 4);
    assert_eq!(width(&asked(16, None), said(r#"{"MaxPayloadInMB": 6}"#)), 16, "control");
    assert_eq!(width(&asked(50, Some(2)), none), 50, "control");
    // Without limit: what is cut is cut at 100 MB, what streams is not held.
    let unlimited = asked(100, Some(0));
    assert_eq!(width(&unlimited, none), 100, "streams");
    let lines = TransformSpec {
        input: TransformInput {
            split: SplitType::Line,
            ..unlimited.input.clone()
        },
        ..unlimited.clone()
    };
    assert_eq!(width(&lines, none), 100, "several records in one request stream too");
    let one = TransformSpec {
        strategy: Some(BatchStrategy::SingleRecord),
        ..lines.clone()
    };
    assert_eq!(width(&one, none), 1, "record by record");
    assert_eq!(width(&lines, said(r#"{"BatchStrategy": "SINGLE_RECORD"}"#)), 1);
    let filtered = TransformSpec {
        processing: DataProcessing {
            input_filter: "$[0]".into(),
            ..DataProcessing::default()
        },
        ..unlimited
    };
    assert_eq!(width(&filtered, none), 1, "filtered");
    let container = TransformSpec {
        max_concurrent: None,
        max_payload_mb: None,
        ..filtered
    };
    let both = said(r#"{"MaxConcurrentTransforms": 100, "MaxPayloadInMB": 0}"#);
    assert_eq!(width(&container, both), 1, "the container says both");
}
