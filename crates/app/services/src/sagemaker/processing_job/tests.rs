use super::super::shapes::*;
use crate::ecr::fixture::{Fixture, START, refusal, scope};
use isolarium_model::Timestamp;
use isolarium_model::sagemaker as records;
use isolarium_model::sagemaker::processing_job::UploadMode;
use isolarium_model::sagemaker::training_job::{Distribution, JobEvent, S3DataType};
use isolarium_model::sagemaker::{FailureKind, FailureReason, JobNetwork};
use isolarium_store::{Batch, Expect, StateStore};
use isolarium_wire::{ApiError, Document};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const ACCOUNT: &str = "123456789012";
const ROLE: &str = "arn:aws:iam::123456789012:role/exec";
const IMAGE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1";

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

fn arn(name: &str) -> String {
    format!("arn:aws:sagemaker:us-east-1:{ACCOUNT}:processing-job/{name}")
}

fn named(operation: &str, name: &str) -> (String, Value) {
    (format!("{operation}ProcessingJob"), json!({"ProcessingJobName": name}))
}

fn source(more: Value) -> Value {
    let mut source = json!({
        "S3Uri": "s3://data/in/", "LocalPath": "/opt/ml/processing/input", "S3DataType": "S3Prefix", "S3InputMode": "File",
    });
    source
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    source
}

fn target(more: Value) -> Value {
    let mut target = json!({
        "S3Uri": "s3://data/out", "LocalPath": "/opt/ml/processing/output", "S3UploadMode": "EndOfJob",
    });
    target
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    target
}

/// A request with members of its own.
fn request(name: &str, more: Value) -> Value {
    let mut request = json!({
        "ProcessingJobName": name, "RoleArn": ROLE, "AppSpecification": {"ImageUri": IMAGE},
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5}},
        "ProcessingInputs": [{"InputName": "in", "S3Input": source(json!({}))}],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "out", "S3Output": target(json!({}))}]},
    });
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request
}

fn create(fixture: &Fixture, request: Value) -> Result<CreateProcessingJobResponse, ApiError> {
    call(fixture, "CreateProcessingJob", request)
}

fn describe(fixture: &Fixture, name: &str) -> Result<DescribeProcessingJobResponse, ApiError> {
    let (operation, input) = named("Describe", name);
    call(fixture, &operation, input)
}

fn stop(fixture: &Fixture, name: &str) -> Result<StopProcessingJobOutput, ApiError> {
    let (operation, input) = named("Stop", name);
    call(fixture, &operation, input)
}

fn delete(fixture: &Fixture, name: &str) -> Result<DeleteProcessingJobOutput, ApiError> {
    let (operation, input) = named("Delete", name);
    call(fixture, &operation, input)
}

fn stored(fixture: &Fixture, name: &str) -> records::ProcessingJob {
    let store: &dyn StateStore = &fixture.store;
    let key = records::ProcessingJob::key(&scope(ACCOUNT), name);
    store.get::<records::ProcessingJob>(&key).unwrap().unwrap().record
}

fn change(fixture: &Fixture, name: &str, edit: impl FnOnce(&mut records::ProcessingJob)) {
    let store: &dyn StateStore = &fixture.store;
    let mut job = stored(fixture, name);
    edit(&mut job);
    let key = records::ProcessingJob::key(&scope(ACCOUNT), name);
    store
        .commit(Batch::default().put(&key, Expect::Any, &job).unwrap())
        .unwrap();
}

/// Proves: SM-7, SM-13, SM-40, CC-41
#[test]
fn a_processing_job_is_kept_as_it_was_asked_for() {
    let fixture = Fixture::new();
    let more = json!({
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "x.py"], "ContainerArguments": ["--fast"]},
        "Environment": {"A": "b"},
        "NetworkConfig": {"EnableNetworkIsolation": true},
        "Tags": [{"Key": "team", "Value": "x"}],
        "ProcessingInputs": [
            {"InputName": "in", "S3Input": source(json!({"S3DataDistributionType": "ShardedByS3Key"}))},
            {"InputName": "code", "S3Input": source(json!({"LocalPath": "/opt/ml/processing/input/code", "S3DataType": "ManifestFile"}))},
            {"InputName": "own", "AppManaged": true, "S3Input": {"S3Uri": "s3://data/x", "S3DataType": "S3Prefix"}},
        ],
        "ProcessingOutputConfig": {"Outputs": [
            {"OutputName": "out", "S3Output": target(json!({"S3UploadMode": "Continuous"}))},
            {"OutputName": "own", "AppManaged": true, "S3Output": {"S3Uri": "s3://data/y", "S3UploadMode": "EndOfJob"}},
        ]},
    });
    let made = create(&fixture, request("Job-1", more)).unwrap();
    assert_eq!(made.processing_job_arn, arn("job-1"));
    let job = stored(&fixture, "job-1");
    assert_eq!(job.spec.network, JobNetwork::new(Some(true), None));
    let inputs: Vec<_> = job
        .spec
        .inputs
        .iter()
        .map(|one| (one.data_type, one.distribution))
        .collect();
    assert_eq!(
        inputs,
        [
            (S3DataType::S3Prefix, Distribution::ShardedByS3Key),
            (S3DataType::ManifestFile, Distribution::FullyReplicated),
        ],
        "the application's own input is not the platform's"
    );
    assert_eq!(job.spec.outputs.len(), 1);
    assert_eq!(job.spec.outputs[0].mode, UploadMode::Continuous);
    let shown = describe(&fixture, "JOB-1").unwrap();
    assert_eq!(shown.processing_job_name, "Job-1");
    assert_eq!(shown.processing_job_status, ProcessingJobStatus::InProgress);
    assert_eq!(shown.stopping_condition.unwrap().max_runtime_in_seconds, 86_400);
    assert_eq!(shown.processing_inputs.unwrap().len(), 3);
    assert_eq!(shown.processing_output_config.unwrap().outputs.len(), 2);
    assert_eq!(shown.network_config.unwrap().enable_network_isolation, Some(true));
    assert_eq!(
        (shown.exit_message, shown.failure_reason, shown.processing_start_time),
        (None, None, None)
    );
    assert_eq!((shown.creation_time, shown.role_arn.as_deref()), (START, Some(ROLE)));
    let tags: ListTagsOutput = call(&fixture, "ListTags", json!({"ResourceArn": arn("job-1")})).unwrap();
    assert_eq!(tags.tags.unwrap()[0].key, "team");
    let plain = create(&fixture, request("plain", json!({}))).unwrap();
    assert_eq!(plain.processing_job_arn, arn("plain"));
    assert!(
        describe(&fixture, "plain").unwrap().network_config.is_none(),
        "absent members stay absent"
    );
    assert!(!stored(&fixture, "plain").spec.network.isolated());
}

/// Proves: SM-33, SM-60
#[test]
fn what_is_missing_taken_or_too_late_is_said_in_the_words_clients_match() {
    let fixture = Fixture::new();
    let absent = invalid("Could not find requested job with name: p");
    assert_eq!(refusal(describe(&fixture, "p")), absent);
    assert_eq!(refusal(stop(&fixture, "p")), absent);
    assert_eq!(refusal(delete(&fixture, "p")), absent);
    create(&fixture, request("p", json!({}))).unwrap();
    let (code, text) = refusal(create(&fixture, request("P", json!({}))));
    assert_eq!(code, "ResourceInUse");
    assert!(text.ends_with(&format!("already exists ({})", arn("p"))), "{text}");
    let status = |status: &str| {
        invalid(format!(
            "The request was rejected because the processing job is in status {status}."
        ))
    };
    assert_eq!(refusal(delete(&fixture, "p")), status("InProgress"));
    stop(&fixture, "p").unwrap();
    stop(&fixture, "p").unwrap();
    assert_eq!(
        describe(&fixture, "p").unwrap().processing_job_status,
        ProcessingJobStatus::Stopping
    );
    change(&fixture, "p", |job| {
        let reason = FailureReason::job(FailureKind::Client, "no", None);
        job.fail(reason, Timestamp(START + 5)).unwrap();
        job.exit_message = Some("bye".into());
    });
    assert_eq!(refusal(stop(&fixture, "p")), status("Failed"));
    let shown = describe(&fixture, "p").unwrap();
    assert_eq!(
        (shown.failure_reason.as_deref(), shown.exit_message.as_deref()),
        (Some("ClientError: no"), Some("bye"))
    );
    assert_eq!(shown.processing_end_time, Some(START + 5));
    delete(&fixture, "p").unwrap();
    assert_eq!(refusal(describe(&fixture, "p")), absent);
    assert!(
        create(&fixture, request("p", json!({}))).is_ok(),
        "its name is free again"
    );
}

/// Proves: SM-17, IAM-51
#[test]
fn creation_is_checked_as_the_execution_role() {
    let mut fixture = Fixture::new();
    let refused = |fixture: &Fixture| refusal(create(fixture, request("p", json!({})))).1;
    fixture.platform.unusable_roles = vec![ROLE.into()];
    assert!(refused(&fixture).starts_with("Could not assume role"));
    fixture.platform.unusable_roles.clear();
    fixture.platform.missing_images = vec![IMAGE.into()];
    assert!(!refused(&fixture).is_empty());
    fixture.platform.missing_images.clear();
    fixture.platform.missing_objects = vec!["s3://data/in/".into()];
    assert!(refused(&fixture).starts_with("No S3 objects found under S3 URL \"s3://data/in/\""));
    fixture.platform.missing_objects.clear();
    let foreign = request("p", json!({"RoleArn": "arn:aws:iam::222222222222:role/exec"}));
    let (code, text) = refusal(create(&fixture, foreign));
    assert_eq!(code, "AccessDeniedException");
    assert!(text.contains("iam:PassRole"), "{text}");
    assert!(create(&fixture, request("p", json!({}))).is_ok(), "control");
}

/// Proves: CC-41
#[test]
fn what_cannot_be_done_is_refused_when_the_job_is_created() {
    let mut fixture = Fixture::new();
    fixture.platform.missing_keys.push("gone".into());
    let input = |more: Value| json!({"ProcessingInputs": [{"InputName": "in", "S3Input": source(more)}]});
    let second = |kind: &str, path: &str| {
        let output = json!({"OutputName": "two", "S3Output": target(json!({"LocalPath": path}))});
        match kind {
            "input" => json!({"ProcessingInputs": [
                {"InputName": "in", "S3Input": source(json!({}))},
                {"InputName": "two", "S3Input": source(json!({"LocalPath": path}))},
            ]}),
            _ => json!({"ProcessingOutputConfig": {"Outputs": [
                {"OutputName": "out", "S3Output": target(json!({}))}, output,
            ]}}),
        }
    };
    let cluster = |more: Value| {
        let mut cluster = json!({"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5});
        cluster
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"ProcessingResources": {"ClusterConfig": cluster}})
    };
    let outputs = |output: Value| json!({"ProcessingOutputConfig": {"Outputs": [output]}});
    for (more, about) in [
        (
            input(json!({"S3InputMode": "Pipe"})),
            "S3InputMode Pipe is not supported",
        ),
        (
            input(json!({"S3CompressionType": "Gzip"})),
            "only valid with S3InputMode Pipe",
        ),
        (
            input(json!({"LocalPath": "/opt/ml/input/x"})),
            "must be a directory below /opt/ml/processing/",
        ),
        (
            input(json!({"LocalPath": "/opt/ml/processing/../model"})),
            "must be a directory below",
        ),
        (input(json!({"LocalPath": ""})), "needs a LocalPath"),
        (second("input", "/opt/ml/processing/input/"), "is or overlaps"),
        (second("output", "/opt/ml/processing/output/deep"), "is or overlaps"),
        (second("output", "/opt/ml/processing/input/deep"), "is or overlaps"),
        (json!({"ProcessingInputs": [{"InputName": "in"}]}), "needs an S3Input"),
        (
            json!({"ProcessingInputs": [{"InputName": "in", "DatasetDefinition": {"LocalPath": "/opt/ml/processing/d"}}]}),
            "DatasetDefinition is not supported",
        ),
        (
            outputs(json!({"OutputName": "out"})),
            "needs an S3Output or a FeatureStoreOutput",
        ),
        (
            outputs(json!({"OutputName": "out", "FeatureStoreOutput": {"FeatureGroupName": "g"}})),
            "only valid with AppManaged",
        ),
        (
            outputs(json!({"OutputName": "out", "AppManaged": true, "FeatureStoreOutput": {"FeatureGroupName": "g"}})),
            "The feature group \"g\" of output \"out\" does not exist",
        ),
        (cluster(json!({"VolumeKmsKeyId": "gone"})), "Key 'gone' does not exist"),
        (
            cluster(json!({"VolumeKmsKeyId": "1234", "InstanceType": "ml.r5d.large"})),
            "VolumeKmsKeyId cannot be used",
        ),
        (cluster(json!({"InstanceType": "ml.p3.2xlarge"})), "ml.p3.2xlarge"),
        (
            json!({"ProcessingOutputConfig": {"KmsKeyId": "gone", "Outputs": []}}),
            "Key 'gone' does not exist",
        ),
    ] {
        let (code, text) = refusal(create(&fixture, request("p", more)));
        assert_eq!(code, "ValidationException", "{about}");
        assert!(text.contains(about), "{about}: {text}");
    }
    assert!(describe(&fixture, "p").is_err(), "nothing was kept");
    let group = json!({
        "FeatureGroupName": "g", "RecordIdentifierFeatureName": "id", "EventTimeFeatureName": "at",
        "FeatureDefinitions": [{"FeatureName": "id", "FeatureType": "String"}, {"FeatureName": "at", "FeatureType": "String"}],
        "OnlineStoreConfig": {"EnableOnlineStore": true},
    });
    call::<CreateFeatureGroupResponse>(&fixture, "CreateFeatureGroup", group).unwrap();
    let own =
        outputs(json!({"OutputName": "out", "AppManaged": true, "FeatureStoreOutput": {"FeatureGroupName": "g"}}));
    create(&fixture, request("p", own)).unwrap();
    assert!(
        stored(&fixture, "p").spec.outputs.is_empty(),
        "the application stores the records"
    );
}

/// Proves: SM-10, SM-11, SM-12
#[test]
fn processing_jobs_are_listed_oldest_first_and_by_filters() {
    let fixture = Fixture::new();
    for (n, name) in ["alpha", "beta", "gamma"].into_iter().enumerate() {
        let at = START + 1000 * i64::try_from(n).unwrap();
        fixture.clock.0.store(at, Ordering::SeqCst);
        create(&fixture, request(name, json!({}))).unwrap();
    }
    change(&fixture, "beta", |job| {
        job.apply(JobEvent::StopRequested, Timestamp(START + 9000)).unwrap();
    });
    let list = |input: Value| {
        let page: ListProcessingJobsResponse = call(&fixture, "ListProcessingJobs", input).unwrap();
        let names: Vec<String> = page
            .processing_job_summaries
            .into_iter()
            .map(|one| one.processing_job_name)
            .collect();
        (names, page.next_token)
    };
    let names = |input: Value| list(input).0;
    assert_eq!(names(json!({})), ["alpha", "beta", "gamma"]);
    assert_eq!(names(json!({"SortOrder": "Descending"})), ["gamma", "beta", "alpha"]);
    assert_eq!(names(json!({"StatusEquals": "Stopping"})), ["beta"]);
    assert_eq!(names(json!({"NameContains": "MM"})), ["gamma"]);
    assert_eq!(names(json!({"CreationTimeAfter": START + 500})), ["beta", "gamma"]);
    assert_eq!(names(json!({"LastModifiedTimeAfter": START + 5000})), ["beta"]);
    let (first, token) = list(json!({"MaxResults": 2}));
    assert_eq!(first, ["alpha", "beta"]);
    assert_eq!(
        list(json!({"MaxResults": 2, "NextToken": token.unwrap()})),
        (vec!["gamma".to_string()], None)
    );
}
