use super::super::shapes::*;
use crate::ecr::fixture::{Fixture, START, refusal, scope};
use isolarium_model::Timestamp;
use isolarium_model::sagemaker as records;
use isolarium_model::sagemaker::transform_job::{BatchStrategy as Strategy, TransformEvent};
use isolarium_model::sagemaker::{FailureKind, FailureReason, JobNetwork};
use isolarium_store::{Batch, Expect, StateStore};
use isolarium_wire::{ApiError, Document};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const ACCOUNT: &str = "123456789012";
const ROLE: &str = "arn:aws:iam::123456789012:role/exec";

fn call<O>(fixture: &Fixture, operation: &str, input: Value) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    let input: Document = serde_json::from_value(input).unwrap();
    fixture.call("sagemaker", operation, input)
}

fn invalid(text: impl Into<String>) -> (String, String) {
    ("ValidationException".into(), text.into())
}

fn arn(kind: &str, name: &str) -> String {
    format!("arn:aws:sagemaker:us-east-1:{ACCOUNT}:{kind}/{name}")
}

/// With a model called `m`.
fn furnished() -> Fixture {
    let fixture = Fixture::new();
    let model = json!({
        "ModelName": "m", "ExecutionRoleArn": ROLE, "EnableNetworkIsolation": true,
        "PrimaryContainer": {"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1"},
    });
    call::<CreateModelOutput>(&fixture, "CreateModel", model).unwrap();
    fixture
}

/// A request with members of its own, by dotted path.
fn request(name: &str, more: &[(&str, Value)]) -> Value {
    let mut request = json!({
        "TransformJobName": name, "ModelName": "m",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/in/"}},
            "ContentType": "text/csv", "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": "s3://data/out", "Accept": "text/csv", "AssembleWith": "Line"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    });
    for (path, value) in more {
        request[path.split('.').next().unwrap()] = match path.split_once('.') {
            None => value.clone(),
            Some((outer, inner)) => {
                let mut outer = request[outer].clone();
                outer[inner] = value.clone();
                outer
            }
        };
    }
    request
}

fn create(fixture: &Fixture, request: Value) -> Result<CreateTransformJobResponse, ApiError> {
    call(fixture, "CreateTransformJob", request)
}

fn describe(fixture: &Fixture, name: &str) -> Result<DescribeTransformJobResponse, ApiError> {
    call(fixture, "DescribeTransformJob", json!({"TransformJobName": name}))
}

fn stored(fixture: &Fixture, name: &str) -> records::TransformJob {
    let store: &dyn StateStore = &fixture.store;
    let key = records::TransformJob::key(&scope(ACCOUNT), name);
    store.get::<records::TransformJob>(&key).unwrap().unwrap().record
}

fn apply(fixture: &Fixture, name: &str, event: TransformEvent, at: i64) {
    let store: &dyn StateStore = &fixture.store;
    let mut job = stored(fixture, name);
    job.apply(event, Timestamp(START + at)).unwrap();
    let key = records::TransformJob::key(&scope(ACCOUNT), name);
    store
        .commit(Batch::default().put(&key, Expect::Any, &job).unwrap())
        .unwrap();
}

/// Proves: BT-1, SM-7, SM-39
#[test]
fn a_transform_job_takes_role_isolation_and_network_from_its_model() {
    let fixture = furnished();
    let processing = json!({"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"});
    let client = json!({"InvocationsTimeoutInSeconds": 30, "InvocationsMaxRetries": 0});
    let made = create(
        &fixture,
        request(
            "Job-1",
            &[
                ("MaxConcurrentTransforms", json!(16)),
                ("BatchStrategy", json!("SingleRecord")),
                ("DataProcessing", processing),
                ("ModelClientConfig", client),
                ("Environment", json!({"A": "b"})),
                ("TransformInput.CompressionType", json!("Gzip")),
                ("Tags", json!([{"Key": "team", "Value": "x"}])),
            ],
        ),
    );
    assert_eq!(made.unwrap().transform_job_arn, arn("transform-job", "job-1"));
    let job = stored(&fixture, "job-1");
    assert_eq!(job.spec.model.role_arn.to_string(), ROLE);
    assert_eq!(job.spec.model.network, JobNetwork::new(Some(true), None));
    assert_eq!((job.spec.max_concurrent, job.spec.max_payload_mb), (Some(16), None));
    assert_eq!(job.spec.strategy, Some(Strategy::SingleRecord));
    assert_eq!((job.spec.client.timeout, job.spec.client.retries), (30, 0));
    assert!(job.spec.input.gzip && job.spec.processing.join);
    let shown = describe(&fixture, "JOB-1").unwrap();
    assert_eq!(shown.transform_job_name, "Job-1");
    assert_eq!(shown.transform_job_status, TransformJobStatus::InProgress);
    assert_eq!(
        (shown.max_concurrent_transforms, shown.max_payload_in_mb),
        (Some(16), None)
    );
    assert_eq!(shown.transform_input.split_type, Some(SplitType::Line));
    assert_eq!(shown.data_processing.unwrap().output_filter.as_deref(), Some("$[0,-1]"));
    assert_eq!((shown.transform_start_time, shown.transform_end_time), (None, None));
    assert_eq!(shown.creation_time, START);
    let tags: ListTagsOutput = call(
        &fixture,
        "ListTags",
        json!({"ResourceArn": arn("transform-job", "job-1")}),
    )
    .unwrap();
    assert_eq!(tags.tags.unwrap()[0].key, "team");
    call::<DeleteModelOutput>(&fixture, "DeleteModel", json!({"ModelName": "m"})).unwrap();
    assert!(describe(&fixture, "job-1").is_ok(), "the job has a copy of its model");
}

/// Proves: SM-60
#[test]
fn what_is_missing_or_taken_is_said_in_the_words_clients_match() {
    let fixture = furnished();
    let absent = create(&fixture, request("t", &[("ModelName", json!("X"))]));
    assert_eq!(
        refusal(absent),
        invalid(format!("Could not find model \"{}\".", arn("model", "x")))
    );
    assert_eq!(
        refusal(describe(&fixture, "t")),
        invalid("Could not find requested job with name: t")
    );
    let stop =
        |name: &str| call::<StopTransformJobOutput>(&fixture, "StopTransformJob", json!({"TransformJobName": name}));
    assert_eq!(refusal(stop("t")), invalid("Could not find job to update with name t"));
    create(&fixture, request("t", &[])).unwrap();
    let (code, text) = refusal(create(&fixture, request("T", &[])));
    assert_eq!(code, "ResourceInUse");
    assert!(
        text.ends_with(&format!("already exists ({})", arn("transform-job", "t"))),
        "{text}"
    );
    stop("t").unwrap();
    assert_eq!(
        describe(&fixture, "t").unwrap().transform_job_status,
        TransformJobStatus::Stopping
    );
    assert_eq!(
        refusal(stop("t")),
        invalid("The request was rejected because the transform job is in status Stopping.")
    );
}

/// Proves: SM-17, BT-6
#[test]
fn creation_is_checked_as_the_models_role() {
    let mut fixture = furnished();
    fixture.platform.unusable_roles = vec![ROLE.into()];
    assert!(
        refusal(create(&fixture, request("t", &[])))
            .1
            .starts_with("Could not assume role")
    );
    fixture.platform.unusable_roles.clear();
    fixture.platform.missing_objects = vec!["s3://data/in/".into()];
    let (_, text) = refusal(create(&fixture, request("t", &[])));
    assert!(
        text.starts_with("No S3 objects found under S3 URL \"s3://data/in/\" given in input data source."),
        "{text}"
    );
    fixture.platform.missing_objects.clear();
    assert!(create(&fixture, request("t", &[])).is_ok(), "control");
}

/// Proves: SM-39
#[test]
fn what_is_on_its_way_at_once_has_a_limit() {
    let fixture = furnished();
    let with = |concurrent: Value, payload: Value| {
        request(
            "t",
            &[("MaxConcurrentTransforms", concurrent), ("MaxPayloadInMB", payload)],
        )
    };
    for (concurrent, payload) in [
        (json!(17), Value::Null),
        (json!(1), json!(101)),
        (json!(2), json!(51)),
        (json!(101), json!(1)),
    ] {
        let (code, text) = refusal(create(&fixture, with(concurrent.clone(), payload.clone())));
        assert_eq!(code, "ValidationException", "{concurrent} {payload}");
        assert!(text.contains("MaxPayloadInMB") && text.contains("100"), "{text}");
    }
    for (n, (concurrent, payload)) in [
        (json!(16), Value::Null),
        (json!(100), json!(1)),
        (json!(2), json!(50)),
        (json!(100), json!(0)),
        (Value::Null, json!(100)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = with(concurrent, payload);
        request["TransformJobName"] = json!(format!("t{n}"));
        create(&fixture, request).unwrap();
    }
}

/// Proves: CC-77, CC-78
#[test]
fn what_cannot_be_done_is_refused_when_the_job_is_created() {
    let mut fixture = furnished();
    fixture.platform.missing_keys.push("gone".into());
    let join = json!({"JoinSource": "Input"});
    for (more, about) in [
        (
            vec![("DataProcessing", json!({"InputFilter": "$..x"}))],
            "InputFilter \"$..x\"",
        ),
        (
            vec![("DataProcessing", json!({"InputFilter": "$.name"}))],
            "InputFilter of CSV",
        ),
        (
            vec![
                ("DataProcessing", join.clone()),
                ("TransformOutput.Accept", json!("application/json")),
            ],
            "Accept must be the same",
        ),
        (
            vec![
                ("DataProcessing", join.clone()),
                ("TransformOutput.AssembleWith", json!("None")),
            ],
            "AssembleWith must be the same",
        ),
        (
            vec![
                ("DataProcessing", join.clone()),
                ("TransformInput.ContentType", json!("image/png")),
            ],
            "image/png",
        ),
        (
            vec![
                ("DataProcessing", join),
                ("TransformInput.SplitType", json!("RecordIO")),
            ],
            "SplitType None or Line",
        ),
        (
            vec![(
                "TransformInput.DataSource",
                json!({"S3DataSource": {"S3DataType": "AugmentedManifestFile", "S3Uri": "s3://data/m"}}),
            )],
            "AugmentedManifestFile is not valid",
        ),
        (
            vec![("DataCaptureConfig", json!({"DestinationS3Uri": "s3://data/captured"}))],
            "DataCaptureConfig is not supported",
        ),
        (
            vec![("TransformOutput.KmsKeyId", json!("gone"))],
            "Key 'gone' does not exist",
        ),
        (
            vec![("TransformResources.VolumeKmsKeyId", json!("gone"))],
            "Key 'gone' does not exist",
        ),
        (
            vec![("TransformResources.InstanceCount", json!(101))],
            "InstanceCount must be between 1 and 100",
        ),
        (
            vec![("TransformResources.InstanceType", json!("ml.p3.2xlarge"))],
            "ml.p3.2xlarge",
        ),
        (
            vec![("TransformOutput.S3OutputPath", json!("https://example.com/x"))],
            "S3OutputPath",
        ),
    ] {
        let (code, text) = refusal(create(&fixture, request("t", &more)));
        assert_eq!(code, "ValidationException", "{about}");
        assert!(text.contains(about), "{text}");
    }
    assert!(describe(&fixture, "t").is_err(), "nothing was kept");
    assert!(create(&fixture, request("t", &[])).is_ok(), "control");
}

/// Proves: SM-10, SM-11, SM-12, SM-41
#[test]
fn transform_jobs_are_listed_newest_first_and_by_filters() {
    let fixture = furnished();
    for (n, name) in ["alpha", "beta", "gamma"].into_iter().enumerate() {
        let at = START + 1000 * i64::try_from(n).unwrap();
        fixture.clock.0.store(at, Ordering::SeqCst);
        create(&fixture, request(name, &[])).unwrap();
    }
    apply(&fixture, "alpha", TransformEvent::Succeeded, 9000);
    let mut failed = stored(&fixture, "beta");
    failed.apply(TransformEvent::Failed, Timestamp(START + 9500)).unwrap();
    failed.failure_reason = Some(FailureReason::job(
        FailureKind::Algorithm,
        "See job logs for more information",
        None,
    ));
    let store: &dyn StateStore = &fixture.store;
    let key = records::TransformJob::key(&scope(ACCOUNT), "beta");
    store
        .commit(Batch::default().put(&key, Expect::Any, &failed).unwrap())
        .unwrap();
    let list = |more: Value| call::<ListTransformJobsResponse>(&fixture, "ListTransformJobs", more).unwrap();
    let names = |more: Value| {
        let page = list(more).transform_job_summaries.into_iter();
        page.map(|job| job.transform_job_name).collect::<Vec<_>>()
    };
    assert_eq!(names(json!({})), ["gamma", "beta", "alpha"]);
    assert_eq!(
        names(json!({"SortBy": "Name", "SortOrder": "Ascending"})),
        ["alpha", "beta", "gamma"]
    );
    assert_eq!(names(json!({"NameContains": "et"})), ["beta"]);
    assert_eq!(names(json!({"StatusEquals": "Completed"})), ["alpha"]);
    assert_eq!(names(json!({"CreationTimeAfter": START + 500})), ["gamma", "beta"]);
    let first = list(json!({"MaxResults": 2}));
    let rest = list(json!({"MaxResults": 2, "NextToken": first.next_token.unwrap()}));
    assert_eq!(
        (first.transform_job_summaries.len(), rest.transform_job_summaries.len()),
        (2, 1)
    );
    let summary = &list(json!({"StatusEquals": "Failed"})).transform_job_summaries[0];
    assert_eq!(
        summary.failure_reason.as_deref(),
        Some("AlgorithmError: See job logs for more information")
    );
    assert_eq!(summary.transform_end_time, Some(START + 9500));
    assert_eq!(
        describe(&fixture, "beta").unwrap().failure_reason,
        summary.failure_reason
    );
}
