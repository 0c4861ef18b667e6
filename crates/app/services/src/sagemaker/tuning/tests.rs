use crate::ecr::fixture::{Fixture, START, refusal, scope};
use isolarium_model::Timestamp;
use isolarium_model::sagemaker::training_job::{MetricValue, TrainingJob};
use isolarium_model::sagemaker::tuning_job::{
    Domain, FinalStatus, Strategy, Trial, TrialEnd, TuningJob as Job, Values,
};
use isolarium_model::sagemaker::{FailureKind, FailureReason, SecondaryStatus, TuningEvent};
use isolarium_store::{Batch, Expect, StateStore};
use isolarium_wire::{ApiError, Document};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const ARN: &str = "arn:aws:sagemaker:us-east-1:123456789012:hyper-parameter-tuning-job/";

fn call(fixture: &Fixture, operation: &str, input: Value) -> Result<Value, ApiError> {
    let input: Document = serde_json::from_value(input).expect("a document");
    let answer: Document = fixture.call("sagemaker", operation, input)?;
    Ok(serde_json::to_value(&answer).expect("JSON"))
}

fn state(fixture: &Fixture) -> &dyn StateStore {
    &fixture.store
}

fn definition() -> Value {
    json!({
        "StaticHyperParameters": {"fixed": "7"},
        "AlgorithmSpecification": {
            "TrainingImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1", "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*?);"}],
        },
        "RoleArn": "arn:aws:iam::123456789012:role/exec",
        "OutputDataConfig": {"S3OutputPath": "s3://out/jobs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        "EnableNetworkIsolation": true,
    })
}

fn request(name: &str) -> Value {
    json!({
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 10, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "ContinuousParameterRanges": [
                    {"Name": "rate", "MinValue": "1e-5", "MaxValue": "0.1", "ScalingType": "Logarithmic"},
                ],
                "IntegerParameterRanges": [{"Name": "depth", "MinValue": "2", "MaxValue": "9"}],
                "CategoricalParameterRanges": [{"Name": "kind", "Values": ["a", "b"]}],
            },
            "RandomSeed": 11,
        },
        "TrainingJobDefinition": definition(),
    })
}

/// A request with one member changed; null removes it.
fn with(path: &str, value: Value) -> Value {
    changed(request("t"), path, value)
}

fn changed(mut request: Value, path: &str, value: Value) -> Value {
    let (parent, member) = path.rsplit_once('/').expect("a path");
    let parent = request
        .pointer_mut(parent)
        .expect(path)
        .as_object_mut()
        .expect("an object");
    match value {
        Value::Null => parent.remove(member),
        value => parent.insert(member.into(), value),
    };
    request
}

fn create(fixture: &Fixture, request: Value) -> Result<Value, ApiError> {
    call(fixture, "CreateHyperParameterTuningJob", request)
}

fn describe(fixture: &Fixture, name: &str) -> Result<Value, ApiError> {
    call(
        fixture,
        "DescribeHyperParameterTuningJob",
        json!({"HyperParameterTuningJobName": name}),
    )
}

fn record(fixture: &Fixture, name: &str) -> Job {
    let key = Job::key(&scope("123456789012"), name);
    state(fixture).get::<Job>(&key).unwrap().unwrap().record
}

fn edit(fixture: &Fixture, name: &str, change: impl FnOnce(&mut Job)) {
    let key = Job::key(&scope("123456789012"), name);
    let mut found = state(fixture).get::<Job>(&key).unwrap().unwrap();
    change(&mut found.record);
    let batch = Batch::default()
        .put(&key, Expect::At(found.revision), &found.record)
        .unwrap();
    fixture.store.commit(batch).unwrap();
}

fn trial(number: usize, end: Option<(FinalStatus, Option<f64>)>) -> Trial {
    let at = Timestamp(START + i64::try_from(number).unwrap() * 1000);
    Trial {
        job_name: format!("t-{number:03}-0000000{number}"),
        definition: 0,
        values: Values::from([("rate".into(), format!("0.0{number}")), ("depth".into(), "3".into())]),
        created: at,
        end: end.map(|(status, objective)| TrialEnd {
            status,
            started: Some(at),
            ended: Some(at),
            objective,
            failure_reason: (status == FinalStatus::Failed)
                .then(|| FailureReason::job(FailureKind::Internal, "lost", None)),
        }),
    }
}

/// Proves: SM-35, SM-38, NI-4
#[test]
fn a_tuning_job_is_kept_with_what_its_training_jobs_are_made_of() {
    let fixture = Fixture::new();
    let made = create(&fixture, request("Tune-1")).unwrap();
    assert_eq!(made["HyperParameterTuningJobArn"], format!("{ARN}tune-1"));
    let job = record(&fixture, "tune-1");
    assert_eq!(
        (job.strategy, job.seed, job.limits.jobs, job.limits.parallel),
        (Strategy::Bayesian, 11, 10, 2)
    );
    let [definition] = job.definitions.as_slice() else {
        panic!("one definition")
    };
    assert!(definition.spec.network.isolated());
    assert_eq!(definition.spec.hyperparameters["fixed"], "7");
    assert_eq!(definition.ranges.len(), 3);
    assert!(matches!(definition.ranges[0].domain, Domain::Continuous { min, .. } if min == 1e-5));
    let shown = describe(&fixture, "Tune-1").unwrap();
    let given = request("Tune-1");
    for member in ["HyperParameterTuningJobConfig", "TrainingJobDefinition"] {
        assert_eq!(shown[member], given[member], "{member}");
    }
    assert_eq!(shown["HyperParameterTuningJobStatus"], "InProgress");
    assert_eq!(shown["TrainingJobStatusCounters"]["Completed"], 0);
    for absent in [
        "BestTrainingJob",
        "FailureReason",
        "HyperParameterTuningEndTime",
        "WarmStartConfig",
    ] {
        assert!(shown.get(absent).is_none(), "{absent}");
    }
    let isolation = "/TrainingJobDefinition/EnableNetworkIsolation";
    for (name, given, expected) in [
        ("yes", json!(true), true),
        ("no", json!(false), false),
        ("absent", Value::Null, false),
    ] {
        let request = changed(request(name), isolation, given);
        create(&fixture, request).unwrap();
        let shown = describe(&fixture, name).unwrap();
        assert_eq!(shown.pointer(isolation), Some(&json!(expected)), "{name}");
        assert_eq!(record(&fixture, name).definitions[0].spec.network.isolated(), expected);
    }
    let taken = refusal(create(&fixture, request("TUNE-1")));
    assert_eq!(taken.0, "ResourceInUse");
    assert!(taken.1.contains(&format!("{ARN}tune-1")), "{taken:?}");
}

/// Proves: SM-35, SM-38
#[test]
fn what_cannot_be_searched_is_refused_and_changes_nothing() {
    let fixture = Fixture::new();
    let config = "/HyperParameterTuningJobConfig";
    let metric = "/TrainingJobDefinition/AlgorithmSpecification/MetricDefinitions";
    let range = |min: &str, max: &str, scaling: &str| json!({"ContinuousParameterRanges": [{"Name": "x", "MinValue": min, "MaxValue": max, "ScalingType": scaling}]});
    let many: Vec<Value> = (0..21)
        .map(|n| json!({"Name": format!("m{n}"), "Regex": "(.)"}))
        .collect();
    let grid = json!({"Strategy": "Grid", "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 5, "MaxParallelTrainingJobs": 2},
        "ParameterRanges": {"CategoricalParameterRanges": [{"Name": "kind", "Values": ["a", "b", "c"]}]}});
    let hyperband = |more: Value| {
        let mut config = request("t")["HyperParameterTuningJobConfig"].clone();
        config["Strategy"] = json!("Hyperband");
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config
    };
    let resources = |min: i64, max: i64| json!({"StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": min, "MaxResource": max}}});
    for (request, text) in [
        (
            with(
                metric,
                json!([{"Name": "loss", "Regex": "loss=(.*?);"}, {"Name": "odd", "Regex": "odd=(["}]),
            ),
            "The Regex \"odd=([\" of the metric definition \"odd\" is not a valid regular expression.",
        ),
        (
            with("/TrainingJobDefinition", Value::Null),
            "either TrainingJobDefinition or",
        ),
        (
            with("/TrainingJobDefinitions", json!([definition()])),
            "either TrainingJobDefinition or",
        ),
        (
            with(&format!("{config}/ParameterRanges"), Value::Null),
            "At least one hyperparameter range",
        ),
        (
            with(&format!("{config}/ParameterRanges"), range("2", "1", "Auto")),
            "minimum value",
        ),
        (
            with(&format!("{config}/ParameterRanges"), range("0", "1", "Logarithmic")),
            "greater than 0",
        ),
        (
            with(
                &format!("{config}/ParameterRanges"),
                range("0.1", "1", "ReverseLogarithmic"),
            ),
            "0 <= x < 1",
        ),
        (
            with(&format!("{config}/ParameterRanges"), range("zero", "1", "Auto")),
            "not a number",
        ),
        (
            with(
                &format!("{config}/ParameterRanges/AutoParameters"),
                json!([{"Name": "a", "ValueHint": "1"}]),
            ),
            "AutoParameters",
        ),
        (
            with(&format!("{config}/HyperParameterTuningJobObjective"), Value::Null),
            "objective metric is required",
        ),
        (
            with(metric, json!([{"Name": "other", "Regex": "(.)"}])),
            "A metric is required for this hyperparameter tuning job objective.",
        ),
        (with(metric, json!(many)), "at most 20 metric definitions"),
        (
            with("/TrainingJobDefinition/StaticHyperParameters/rate", json!("1")),
            "rate is specified as a static",
        ),
        (
            with(
                "/TrainingJobDefinition/StaticHyperParameters/_tuning_objective_metric",
                json!("1"),
            ),
            "reserved",
        ),
        (
            with(&format!("{config}/ResourceLimits/MaxNumberOfTrainingJobs"), Value::Null),
            "MaxNumberOfTrainingJobs is required",
        ),
        (
            with(&format!("{config}/ResourceLimits/MaxNumberOfTrainingJobs"), json!(1)),
            "cannot be larger",
        ),
        (with(config, grid.clone()), "which is 3"),
        (with(&format!("{config}/Strategy"), json!("Grid")), "Grid search needs"),
        (with(config, hyperband(json!({}))), "MaxResource is required"),
        (with(config, hyperband(resources(5, 4))), "MinResource must be"),
        (with(config, hyperband(resources(1, 20_001))), "at most 20000"),
        (
            with(
                &format!("{config}/StrategyConfig"),
                resources(1, 3)["StrategyConfig"].clone(),
            ),
            "only be specified with the Hyperband",
        ),
        (
            with(
                config,
                hyperband(
                    json!({"TrainingJobEarlyStoppingType": "Auto", "StrategyConfig": resources(1, 9)["StrategyConfig"]}),
                ),
            ),
            "TrainingJobEarlyStoppingType must be Off",
        ),
        (with("/Autotune", json!({"Mode": "Enabled"})), "Autotune"),
        (
            with(
                "/WarmStartConfig",
                json!({"WarmStartType": "TransferLearning", "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "none"}]}),
            ),
            "none",
        ),
    ] {
        let (code, message) = refusal(create(&fixture, request));
        assert!(
            ["ValidationException", "ResourceNotFound"].contains(&code.as_str()),
            "{code}: {message}"
        );
        assert!(message.contains(text), "{text}: {message}");
    }
    for (path, value, most) in [
        ("MaxParallelTrainingJobs", 11, "is 10"),
        ("MaxNumberOfTrainingJobs", 751, "is 750"),
    ] {
        let request = with(&format!("{config}/ResourceLimits/{path}"), json!(value));
        let (code, message) = refusal(create(&fixture, request));
        assert_eq!(code, "ResourceLimitExceeded");
        assert!(message.contains(most), "{message}");
    }
    assert!(state(&fixture).all::<Job>().unwrap().is_empty());
    let mut control = with(config, grid);
    control["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] = json!(3);
    create(&fixture, control).unwrap();
    let inferred = changed(
        with(config, hyperband(json!({}))),
        "/TrainingJobDefinition/StaticHyperParameters/epochs",
        json!("27"),
    );
    create(&fixture, changed(inferred, "/HyperParameterTuningJobName", json!("h"))).unwrap();
    assert_eq!(
        record(&fixture, "h").hyperband.map(|one| (one.min, one.max)),
        Some((1, 27))
    );
}

/// Proves: SM-38
#[test]
fn several_definitions_have_names_objectives_and_ranges_of_their_own() {
    let fixture = Fixture::new();
    let named = |name: &str| {
        let mut one = definition();
        one["DefinitionName"] = json!(name);
        one["TuningObjective"] = json!({"Type": "Maximize", "MetricName": "loss"});
        one["HyperParameterRanges"] =
            json!({"IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "5"}]});
        one
    };
    let several = |definitions: Value| {
        let mut request = request("many");
        let members = request.as_object_mut().unwrap();
        members.remove("TrainingJobDefinition");
        members.insert("TrainingJobDefinitions".into(), definitions);
        let config = request["HyperParameterTuningJobConfig"].as_object_mut().unwrap();
        config.remove("ParameterRanges");
        config.remove("HyperParameterTuningJobObjective");
        request
    };
    let nameless = changed(
        several(json!([named("a")])),
        "/TrainingJobDefinitions/0/DefinitionName",
        Value::Null,
    );
    assert!(refusal(create(&fixture, nameless)).1.contains("needs a DefinitionName"));
    let twice = several(json!([named("a"), named("a")]));
    assert!(refusal(create(&fixture, twice)).1.contains("more than once"));
    let mut both = several(json!([named("a")]));
    both["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"] =
        json!({"Type": "Maximize", "MetricName": "loss"});
    assert!(refusal(create(&fixture, both)).1.contains("TrainingJobDefinitions"));
    create(&fixture, several(json!([named("a"), named("b")]))).unwrap();
    let shown = describe(&fixture, "many").unwrap();
    assert_eq!(shown["TrainingJobDefinitions"][1]["DefinitionName"], "b");
    assert!(shown.get("TrainingJobDefinition").is_none());
}

/// Proves: SM-35, SM-10, SM-11
#[test]
fn training_jobs_are_listed_sorted_filtered_and_paged() {
    let fixture = Fixture::new();
    create(&fixture, request("t")).unwrap();
    edit(&fixture, "t", |job| {
        job.trials = vec![
            trial(1, Some((FinalStatus::Completed, Some(0.5)))),
            trial(2, Some((FinalStatus::Failed, None))),
            trial(3, Some((FinalStatus::Stopped, Some(0.25)))),
            trial(4, None),
            trial(5, Some((FinalStatus::Completed, Some(0.75)))),
        ];
    });
    let list = |more: Value| {
        let mut input = json!({"HyperParameterTuningJobName": "t"});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call(&fixture, "ListTrainingJobsForHyperParameterTuningJob", input).unwrap()
    };
    let numbers = |answer: &Value| {
        let rows = answer["TrainingJobSummaries"].as_array().unwrap();
        let names = rows
            .iter()
            .map(|row| row["TrainingJobName"].as_str().unwrap().to_owned());
        names.map(|name| name[4..5].to_owned()).collect::<String>()
    };
    assert_eq!(numbers(&list(json!({}))), "12345");
    assert_eq!(
        numbers(&list(json!({"SortBy": "CreationTime", "SortOrder": "Descending"}))),
        "54321"
    );
    let by_value = json!({"SortBy": "FinalObjectiveMetricValue"});
    assert_eq!(numbers(&list(by_value)), "31524", "those without a value come last");
    let falling = json!({"SortBy": "FinalObjectiveMetricValue", "SortOrder": "Descending"});
    assert_eq!(numbers(&list(falling.clone())), "51324");
    assert_eq!(numbers(&list(json!({"StatusEquals": "Completed"}))), "15");
    let mut seen = String::new();
    let mut token = Value::Null;
    loop {
        let mut input = falling.clone();
        input["MaxResults"] = json!(2);
        if !token.is_null() {
            input["NextToken"] = token;
        }
        let answer = list(input);
        seen.push_str(&numbers(&answer));
        token = answer.get("NextToken").cloned().unwrap_or_default();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(seen, "51324");
    let bad = call(
        &fixture,
        "ListTrainingJobsForHyperParameterTuningJob",
        json!({"HyperParameterTuningJobName": "t", "NextToken": "zz"}),
    );
    assert_eq!(refusal(bad).0, "ValidationException");
    let shown = list(json!({}));
    let row = &shown["TrainingJobSummaries"][0];
    assert_eq!(
        row["TunedHyperParameters"],
        json!({"rate": "0.01", "depth": "3"}),
        "the tuned ones alone"
    );
    assert_eq!(
        row["FinalHyperParameterTuningJobObjectiveMetric"],
        json!({"MetricName": "loss", "Value": 0.5})
    );
    assert_eq!(row["ObjectiveStatus"], "Succeeded");
    assert_eq!(shown["TrainingJobSummaries"][3]["ObjectiveStatus"], "Pending");
    let described = describe(&fixture, "t").unwrap();
    assert_eq!(described["BestTrainingJob"]["TrainingJobName"], "t-003-00000003");
    assert_eq!(
        described["TrainingJobStatusCounters"],
        json!({"Completed": 2, "InProgress": 1, "RetryableError": 1, "NonRetryableError": 0, "Stopped": 1})
    );
    assert_eq!(
        described["ObjectiveStatusCounters"],
        json!({"Succeeded": 3, "Pending": 1, "Failed": 1})
    );
    let none = call(
        &fixture,
        "ListTrainingJobsForHyperParameterTuningJob",
        json!({"HyperParameterTuningJobName": "nobody"}),
    );
    assert_eq!(refusal(none).0, "ResourceNotFound");
}

/// Proves: SM-10, SM-12, SM-37
#[test]
fn tuning_jobs_are_listed_stopped_and_deleted() {
    let fixture = Fixture::new();
    for name in ["b", "a", "c"] {
        create(&fixture, request(name)).unwrap();
        fixture.clock.0.fetch_add(1000, Ordering::Relaxed);
    }
    let list = |input: Value| {
        let answer = call(&fixture, "ListHyperParameterTuningJobs", input).unwrap();
        let rows = answer["HyperParameterTuningJobSummaries"].as_array().unwrap().clone();
        let names = rows
            .iter()
            .map(|row| row["HyperParameterTuningJobName"].as_str().unwrap().to_owned());
        names.collect::<String>()
    };
    assert_eq!(list(json!({})), "abc");
    assert_eq!(
        list(json!({"SortBy": "CreationTime", "SortOrder": "Descending"})),
        "cab"
    );
    assert_eq!(list(json!({"NameContains": "b"})), "b");
    let named = |name: &str| json!({"HyperParameterTuningJobName": name});
    let (code, message) = refusal(call(&fixture, "DeleteHyperParameterTuningJob", named("a")));
    assert_eq!(code, "ValidationException");
    assert!(message.contains("status InProgress"), "{message}");
    call(&fixture, "StopHyperParameterTuningJob", named("a")).unwrap();
    assert_eq!(
        describe(&fixture, "a").unwrap()["HyperParameterTuningJobStatus"],
        "Stopping"
    );
    call(&fixture, "StopHyperParameterTuningJob", named("a")).unwrap();
    assert_eq!(list(json!({"StatusEquals": "Stopping"})), "a");
    edit(&fixture, "a", |job| {
        job.apply(TuningEvent::Finished, Timestamp(START)).unwrap()
    });
    assert_eq!(
        describe(&fixture, "a").unwrap()["HyperParameterTuningJobStatus"],
        "Stopped"
    );
    let again = refusal(call(&fixture, "StopHyperParameterTuningJob", named("a")));
    assert!(again.1.contains("status Stopped"), "{again:?}");
    call(&fixture, "DeleteHyperParameterTuningJob", named("a")).unwrap();
    for operation in [
        "DescribeHyperParameterTuningJob",
        "StopHyperParameterTuningJob",
        "DeleteHyperParameterTuningJob",
    ] {
        assert_eq!(
            refusal(call(&fixture, operation, named("a"))).0,
            "ResourceNotFound",
            "{operation}"
        );
    }
    create(&fixture, request("a")).unwrap();
}

/// Proves: SM-13
#[test]
fn a_tuning_job_carries_tags() {
    let fixture = Fixture::new();
    let tag = |key: &str, value: &str| json!({"Key": key, "Value": value});
    create(&fixture, with("/Tags", json!([tag("team", "ml")]))).unwrap();
    let arn = format!("{ARN}t");
    call(
        &fixture,
        "AddTags",
        json!({"ResourceArn": arn, "Tags": [tag("cost", "9")]}),
    )
    .unwrap();
    let listed = call(&fixture, "ListTags", json!({"ResourceArn": arn})).unwrap();
    assert_eq!(listed["Tags"], json!([tag("cost", "9"), tag("team", "ml")]));
}

/// Proves: SM-35
#[test]
fn a_warm_start_takes_what_parents_learnt_and_tells_the_best_of_all() {
    let fixture = Fixture::new();
    create(&fixture, request("parent")).unwrap();
    let child = |kind: &str, name: &str| {
        let config = json!({"WarmStartType": kind, "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "parent"}]});
        changed(
            changed(request(name), "/WarmStartConfig", config),
            "/HyperParameterTuningJobName",
            json!(name),
        )
    };
    let early = refusal(create(&fixture, child("IdenticalDataAndAlgorithm", "early")));
    assert!(early.1.contains("has not ended"), "{early:?}");
    edit(&fixture, "parent", |job| {
        job.trials = vec![
            trial(1, Some((FinalStatus::Completed, Some(0.5)))),
            trial(2, Some((FinalStatus::Completed, Some(0.25)))),
            trial(3, Some((FinalStatus::Failed, None))),
        ];
        job.apply(TuningEvent::Finished, Timestamp(START)).unwrap();
    });
    create(&fixture, child("IdenticalDataAndAlgorithm", "same")).unwrap();
    let start = record(&fixture, "same").warm_start.unwrap();
    assert_eq!(start.trials.len(), 2);
    assert_eq!(
        start.trials[0].values["fixed"], "7",
        "static values are part of a trial"
    );
    let shown = describe(&fixture, "same").unwrap();
    assert_eq!(shown["OverallBestTrainingJob"]["TrainingJobName"], "t-002-00000002");
    assert_eq!(shown["OverallBestTrainingJob"]["TuningJobName"], "parent");
    assert!(shown.get("BestTrainingJob").is_none());
    edit(&fixture, "same", |job| {
        job.trials = vec![trial(4, Some((FinalStatus::Completed, Some(0.1))))]
    });
    let shown = describe(&fixture, "same").unwrap();
    assert_eq!(shown["OverallBestTrainingJob"]["TrainingJobName"], "t-004-00000004");
    create(&fixture, child("TransferLearning", "other")).unwrap();
    assert!(
        describe(&fixture, "other")
            .unwrap()
            .get("OverallBestTrainingJob")
            .is_none()
    );
    let image = "/TrainingJobDefinition/AlgorithmSpecification/TrainingImage";
    let newer = json!("123456789012.dkr.ecr.us-east-1.amazonaws.com/app:2");
    let refused = refusal(create(
        &fixture,
        changed(child("IdenticalDataAndAlgorithm", "new"), image, newer.clone()),
    ));
    assert!(refused.1.contains("IdenticalDataAndAlgorithm"), "{refused:?}");
    create(&fixture, changed(child("TransferLearning", "new"), image, newer)).unwrap();
    let objective = "/HyperParameterTuningJobConfig/HyperParameterTuningJobObjective/Type";
    let refused = refusal(create(
        &fixture,
        changed(child("TransferLearning", "up"), objective, json!("Maximize")),
    ));
    assert!(refused.1.contains("objective metric must be the same"), "{refused:?}");
    let more = changed(
        child("TransferLearning", "more"),
        "/TrainingJobDefinition/StaticHyperParameters/extra",
        json!("1"),
    );
    assert!(
        refusal(create(&fixture, more))
            .1
            .contains("total number of static and tunable")
    );
}

/// Proves: SM-35
#[test]
fn a_training_job_that_is_deleted_leaves_its_end_with_its_tuning_job() {
    for foreign in [false, true] {
        let fixture = Fixture::new();
        create(&fixture, request("t")).unwrap();
        edit(&fixture, "t", |job| job.trials = vec![trial(1, None)]);
        let name = "t-001-00000001";
        let mut asked = definition();
        let members = asked.as_object_mut().unwrap();
        members.remove("StaticHyperParameters");
        members.insert("TrainingJobName".into(), json!(name));
        call(&fixture, "CreateTrainingJob", asked).unwrap();
        let key = TrainingJob::key(&scope("123456789012"), name);
        let mut child = state(&fixture).get::<TrainingJob>(&key).unwrap().unwrap().record;
        child.tuning_job = (!foreign).then(|| record(&fixture, "t").arn);
        child.secondary = SecondaryStatus::Completed;
        let value = MetricValue {
            value: 0.125,
            time: Timestamp(START),
        };
        child.final_metrics.insert("loss".into(), value);
        let batch = Batch::default().put(&key, Expect::Any, &child).unwrap();
        fixture.store.commit(batch).unwrap();
        call(&fixture, "DeleteTrainingJob", json!({"TrainingJobName": name})).unwrap();
        assert!(state(&fixture).get::<TrainingJob>(&key).unwrap().is_none());
        let end = record(&fixture, "t").trials.remove(0).end;
        let want = (!foreign).then_some((FinalStatus::Completed, Some(0.125)));
        assert_eq!(end.map(|end| (end.status, end.objective)), want);
    }
}
