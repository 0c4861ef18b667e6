use super::shapes::*;
use crate::ecr::fixture::{Fixture, refusal};
use isolarium_wire::{ApiError, Document};

const IMAGE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1";

fn call<O>(fixture: &Fixture, operation: &str, input: serde_json::Value) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    let input: Document = serde_json::from_value(input).unwrap();
    fixture.call("sagemaker", operation, input)
}

/// Three jobs: epochs 5, 10 and 20, the middle one of team ops, reading two channels.
fn furnished() -> Fixture {
    let fixture = Fixture::new();
    for (name, epochs, team) in [("a", "5", "ml"), ("b", "10", "ops"), ("c", "20", "ml")] {
        let channel = |name: &str, uri: &str| serde_json::json!({"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}});
        let mut channels = vec![channel("train", &format!("s3://data/{name}/"))];
        if name == "b" {
            channels.push(channel("test", "s3://data/shared/"));
        }
        let job = serde_json::json!({
            "TrainingJobName": name, "HyperParameters": {"epochs": epochs},
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "RoleArn": "arn:aws:iam::123456789012:role/exec", "OutputDataConfig": {"S3OutputPath": "s3://out/jobs"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600}, "InputDataConfig": channels,
            "Tags": [{"Key": "team", "Value": team}],
        });
        let _: CreateTrainingJobResponse = call(&fixture, "CreateTrainingJob", job).unwrap();
        fixture.clock.0.fetch_add(1000, std::sync::atomic::Ordering::Relaxed);
    }
    fixture
}

fn search(fixture: &Fixture, more: serde_json::Value) -> Result<(Vec<String>, serde_json::Value), ApiError> {
    let mut request =
        serde_json::json!({"Resource": "TrainingJob", "SortBy": "TrainingJobName", "SortOrder": "Ascending"});
    for (key, value) in more.as_object().unwrap() {
        request[key] = value.clone();
    }
    let answer: Document = call(fixture, "Search", request)?;
    let answer = serde_json::to_value(answer).unwrap();
    let results = answer["Results"].as_array().unwrap().iter();
    let names = results.map(|one| one["TrainingJob"]["TrainingJobName"].as_str().unwrap().to_owned());
    Ok((names.collect(), answer.clone()))
}

fn filtered(fixture: &Fixture, filters: serde_json::Value) -> Vec<String> {
    search(fixture, serde_json::json!({"SearchExpression": {"Filters": filters}}))
        .unwrap()
        .0
}

/// Proves: SM-14
#[test]
fn filters_compare_properties_tags_and_hyperparameters() {
    let fixture = furnished();
    for (name, operator, value, want) in [
        ("TrainingJobName", "Equals", Some("b"), "b"),
        ("TrainingJobName", "NotEquals", Some("b"), "ac"),
        ("TrainingJobName", "In", Some("a, c"), "ac"),
        ("RoleArn", "Contains", Some("role/ex"), "abc"),
        ("Tags.team", "Equals", Some("ml"), "ac"),
        ("Tags.team", "Exists", None, "abc"),
        ("Tags.stage", "NotExists", None, "abc"),
        ("HyperParameters.epochs", "GreaterThan", Some("5"), "bc"),
        ("HyperParameters.epochs", "LessThanOrEqualTo", Some("10"), "ab"),
        (
            "ResourceConfig.VolumeSizeInGB",
            "GreaterThanOrEqualTo",
            Some("5"),
            "abc",
        ),
        ("CreationTime", "LessThan", Some("2023-11-14T22:13:21"), "a"),
        ("CreationTime", "GreaterThan", Some("2023-11-14T22:13:21Z"), "c"),
        ("EnableNetworkIsolation", "Equals", Some("True"), ""),
        ("FailureReason", "Exists", None, ""),
        ("Metrics.loss", "LessThan", Some("1"), ""),
    ] {
        let mut filter = serde_json::json!({"Name": name, "Operator": operator});
        if let Some(value) = value {
            filter["Value"] = value.into();
        }
        assert_eq!(
            filtered(&fixture, serde_json::json!([filter])).concat(),
            want,
            "{name} {operator}"
        );
    }
    for wrong in [
        serde_json::json!({"Name": "Colour", "Value": "red"}),
        serde_json::json!({"Name": "ResourceConfig.Colour", "Value": "red"}),
        serde_json::json!({"Name": "TrainingJobName"}),
        serde_json::json!({"Name": "TrainingJobName", "Operator": "Exists", "Value": "x"}),
    ] {
        let refused = search(&fixture, serde_json::json!({"SearchExpression": {"Filters": [wrong]}}));
        assert_eq!(refusal(refused).0, "ValidationException", "{wrong}");
    }
    let experiments = search(&fixture, serde_json::json!({"Resource": "Experiment"}));
    assert!(refusal(experiments).1.contains("not supported"));
}

/// Proves: SM-14
#[test]
fn models_endpoints_packages_and_their_groups_are_found_as_they_are_described() {
    let fixture = Fixture::new();
    let made = |operation: &str, request: serde_json::Value| {
        let _: Document = call(&fixture, operation, request).unwrap();
    };
    let tags = |team: &str| serde_json::json!([{"Key": "team", "Value": team}]);
    let role = "arn:aws:iam::123456789012:role/exec";
    for (name, team) in [("one", "ml"), ("two", "web")] {
        made(
            "CreateModel",
            serde_json::json!({"ModelName": name, "ExecutionRoleArn": role, "PrimaryContainer": {"Image": IMAGE}, "Tags": tags(team)}),
        );
        let variant = serde_json::json!({"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1});
        made(
            "CreateEndpointConfig",
            serde_json::json!({"EndpointConfigName": name, "ProductionVariants": [variant]}),
        );
        made(
            "CreateEndpoint",
            serde_json::json!({"EndpointName": name, "EndpointConfigName": name, "Tags": tags(team)}),
        );
        made(
            "CreateModelPackageGroup",
            serde_json::json!({"ModelPackageGroupName": name, "Tags": tags(team)}),
        );
    }
    let inference = serde_json::json!({
        "Containers": [{"Image": IMAGE}], "SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"],
    });
    for approval in ["Approved", "Rejected"] {
        made(
            "CreateModelPackage",
            serde_json::json!({"ModelPackageGroupName": "one", "InferenceSpecification": inference, "ModelApprovalStatus": approval}),
        );
    }
    made(
        "CreateModelPackage",
        serde_json::json!({"ModelPackageName": "alone", "InferenceSpecification": inference, "Tags": tags("ml")}),
    );
    let found = |resource: &str, sort: &str, filter: serde_json::Value, path: &str| {
        let request = serde_json::json!({
            "Resource": resource, "SortBy": sort, "SortOrder": "Ascending", "SearchExpression": {"Filters": [filter]},
        });
        let answer: Document = call(&fixture, "Search", request).unwrap();
        let answer = serde_json::to_value(answer).unwrap();
        let results = answer["Results"].as_array().unwrap().iter();
        let texts = results.map(|one| {
            assert_eq!(
                one.as_object().unwrap().len(),
                1,
                "the resource's own member alone: {one}"
            );
            one.pointer(path)
                .unwrap_or_else(|| panic!("{one}"))
                .to_string()
                .replace('"', "")
        });
        texts.collect::<Vec<_>>().join(" ")
    };
    let of = |name: &str, value: &str| serde_json::json!({"Name": name, "Value": value});
    let ml = of("Tags.team", "ml");
    for (resource, name, path, want) in [
        ("Model", "Model.ModelName", "/Model/Model/ModelName", "one"),
        ("Endpoint", "EndpointName", "/Endpoint/EndpointName", "one"),
        (
            "ModelPackageGroup",
            "ModelPackageGroupName",
            "/ModelPackageGroup/ModelPackageGroupName",
            "one",
        ),
        (
            "ModelPackage",
            "ModelPackageName",
            "/ModelPackage/ModelPackageName",
            "alone",
        ),
    ] {
        assert_eq!(found(resource, name, ml.clone(), path), want, "{resource}");
        let everything = serde_json::json!({"Name": "CreationTime", "Operator": "Exists"});
        assert!(
            matches!(resource, "Model") || found(resource, name, everything, path).contains(' '),
            "control: there are others of type {resource}"
        );
    }
    let version = "/ModelPackage/ModelPackageVersion";
    let sorted = "ModelPackageVersion";
    assert_eq!(
        found("ModelPackage", sorted, of("ModelPackageGroupName", "one"), version),
        "1 2"
    );
    assert_eq!(
        found("ModelPackage", sorted, of("ModelApprovalStatus", "Rejected"), version),
        "2"
    );
    assert_eq!(
        found(
            "ModelPackage",
            sorted,
            of("InferenceSpecification.Containers.Image", IMAGE),
            "/ModelPackage/ModelPackageStatus"
        ),
        "Completed Completed Completed"
    );
}

/// Proves: SM-14
#[test]
fn expressions_nest_and_one_element_must_fit_all_of_a_nested_filter() {
    let fixture = furnished();
    let equals = |name: &str, value: &str| serde_json::json!({"Name": name, "Value": value});
    let either = serde_json::json!({"SearchExpression": {"Operator": "Or", "SubExpressions": [
        {"Filters": [equals("TrainingJobName", "a"), equals("Tags.team", "ml")]},
        {"Filters": [equals("TrainingJobName", "c"), equals("Tags.team", "ops")]},
        {"Filters": [equals("TrainingJobName", "b")]},
    ]}});
    assert_eq!(search(&fixture, either).unwrap().0.concat(), "ab");
    let channel = |name: &str, uri: &str| {
        serde_json::json!({"SearchExpression": {"NestedFilters": [{"NestedPropertyName": "InputDataConfig", "Filters": [
            equals("InputDataConfig.ChannelName", name), equals("InputDataConfig.DataSource.S3DataSource.S3Uri", uri),
        ]}]}})
    };
    assert_eq!(
        search(&fixture, channel("test", "s3://data/shared/"))
            .unwrap()
            .0
            .concat(),
        "b"
    );
    assert_eq!(
        search(&fixture, channel("train", "s3://data/shared/"))
            .unwrap()
            .0
            .concat(),
        ""
    );
    let flat = serde_json::json!([
        equals("InputDataConfig.ChannelName", "train"),
        equals("InputDataConfig.DataSource.S3DataSource.S3Uri", "s3://data/shared/"),
    ]);
    assert_eq!(
        filtered(&fixture, flat).concat(),
        "b",
        "control: any elements will do outside"
    );
    let mut deep = serde_json::json!({"Filters": [equals("TrainingJobName", "a")]});
    for _ in 0..6 {
        deep = serde_json::json!({"SubExpressions": [deep]});
    }
    let refused = search(&fixture, serde_json::json!({"SearchExpression": deep}));
    assert!(refusal(refused).1.contains("nested at most"));
    let conditions = serde_json::json!({"VisibilityConditions": [{"Key": "Tags.team", "Value": "ops"}]});
    assert_eq!(search(&fixture, conditions).unwrap().0.concat(), "b");
}

/// Proves: SM-11, SM-14
#[test]
fn results_are_sorted_paged_and_shown_as_records() {
    let fixture = furnished();
    let (newest, answer) = search(
        &fixture,
        serde_json::json!({"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": 2}),
    )
    .unwrap();
    assert_eq!(newest.concat(), "cb");
    assert_eq!(answer["TotalHits"]["Value"], 3);
    let request = serde_json::json!({"TrainingJobName": "c"});
    let next =
        serde_json::json!({"SortBy": "CreationTime", "SortOrder": "Descending", "NextToken": answer["NextToken"]});
    let _: StopTrainingJobOutput = call(&fixture, "StopTrainingJob", request).unwrap();
    let (rest, answer) = search(&fixture, next).unwrap();
    assert_eq!((rest.concat().as_str(), answer.get("NextToken")), ("a", None));
    let bad = search(&fixture, serde_json::json!({"NextToken": "?"}));
    assert_eq!(refusal(bad).0, "ValidationException");
    let model = serde_json::json!({
        "ModelName": "m", "PrimaryContainer": {"Image": IMAGE}, "ExecutionRoleArn": "arn:aws:iam::123456789012:role/exec",
    });
    let _: CreateModelOutput = call(&fixture, "CreateModel", model).unwrap();
    let wanted = serde_json::json!({"Filters": [{"Name": "ModelName", "Value": "m"}]});
    let request = serde_json::json!({"Resource": "Model", "SearchExpression": wanted});
    let found: Document = call(&fixture, "Search", request).unwrap();
    let found = serde_json::to_value(found).unwrap();
    let models = found["Results"].as_array().unwrap();
    assert_eq!(models.len(), 1);
    assert_eq!(models[0]["Model"]["Model"]["EnableNetworkIsolation"], false);
}
