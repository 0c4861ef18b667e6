use super::check;
use crate::catalog::by_name;
use crate::protocol::Protocol;
use crate::{ApiError, Document};
use indexmap::IndexMap;

fn document(json: &str) -> Document {
    serde_json::from_str(json).unwrap()
}

fn checked(service: &str, operation: &str, protocol: Protocol, input: &Document) -> Result<(), ApiError> {
    let service = by_name(service).unwrap().model();
    check(
        service,
        protocol,
        service.operation(operation).unwrap().input.unwrap(),
        input,
    )
}

fn refused(service: &str, operation: &str, protocol: Protocol, json: &str) -> (String, String) {
    let error = checked(service, operation, protocol, &document(json)).expect_err("the request is refused");
    (error.code, error.message)
}

fn sagemaker(operation: &str, json: &str) -> String {
    let (code, message) = refused("sagemaker", operation, Protocol::Json, json);
    assert_eq!(code, "ValidationException");
    message
}

/// Proves: SM-6
#[test]
fn one_failure_has_aws_text() {
    let valid = r#"{"ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/r"}"#;
    assert!(
        checked("sagemaker", "CreateModel", Protocol::Json, &document(valid)).is_ok(),
        "control"
    );
    assert_eq!(
        sagemaker("CreateModel", r#"{}"#),
        "1 validation error detected: Value null at 'modelName' failed to satisfy constraint: Member must not be null"
    );
    let message = sagemaker("CreateModel", r#"{"ModelName": "a_b"}"#);
    assert_eq!(
        message,
        "1 validation error detected: Value 'a_b' at 'modelName' failed to satisfy constraint: Member must satisfy \
         regular expression pattern: [a-zA-Z0-9]([\\-a-zA-Z0-9]*[a-zA-Z0-9])?"
    );
    assert_eq!(
        sagemaker("ListModels", r#"{"MaxResults": 0}"#),
        "1 validation error detected: Value '0' at 'maxResults' failed to satisfy constraint: Member must have value \
         greater than or equal to 1"
    );
    assert_eq!(
        sagemaker("ListModels", r#"{"SortBy": "Size"}"#),
        "1 validation error detected: Value 'Size' at 'sortBy' failed to satisfy constraint: Member must satisfy enum \
         value set: [Name, CreationTime]"
    );
}

/// Proves: SM-6
#[test]
fn several_failures_are_counted_and_joined() {
    let message = sagemaker(
        "CreateEndpointConfig",
        r#"{"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "ok"}, {"VariantName": "-"}, {}]}"#,
    );
    assert_eq!(
        message,
        "2 validation errors detected: Value '-' at 'productionVariants.2.member.variantName' failed to satisfy \
         constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}; Value \
         null at 'productionVariants.3.member.variantName' failed to satisfy constraint: Member must not be null"
    );
}

/// Proves: SM-6
#[test]
fn lists_and_maps_are_refused_as_a_whole() {
    assert!(
        sagemaker("CreateEndpointConfig", r#"{"EndpointConfigName": "c", "ProductionVariants": []}"#)
            .contains("Value '[]' at 'productionVariants' failed to satisfy constraint: Member must have length greater than or equal to 1")
    );
    let message = sagemaker(
        "CreateModel",
        r#"{"ModelName": "m", "VpcConfig": {"SecurityGroupIds": ["x y"], "Subnets": ["s"]}}"#,
    );
    assert!(message.contains("Value '[x y]' at 'vpcConfig.securityGroupIds' failed to satisfy constraint: Member must satisfy constraint: ["), "{message}");
    let message = sagemaker(
        "CreateModel",
        r#"{"ModelName": "m", "PrimaryContainer": {"Image": "i", "Environment": {"a b": "v"}}}"#,
    );
    assert!(message.contains("Value '{a b=v}' at 'primaryContainer.environment' failed to satisfy constraint: Map keys must satisfy constraint: ["), "{message}");
}

#[test]
fn each_service_has_its_own_code() {
    assert_eq!(refused("iam", "GetRole", Protocol::Query, "{}").0, "ValidationError");
    assert_eq!(
        refused("logs", "CreateLogGroup", Protocol::Json, "{}").0,
        "InvalidParameterException"
    );
    assert_eq!(
        refused("ecr", "CreateRepository", Protocol::Json, "{}").0,
        "InvalidParameterException"
    );
    assert_eq!(
        refused("sagemaker-runtime", "InvokeEndpoint", Protocol::RestJson, "{}").0,
        "ValidationError"
    );
    let (code, message) = refused("ec2", "DeleteVpc", Protocol::Ec2, "{}");
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("MissingParameter", "The request must contain the parameter vpcId")
    );
    assert_eq!(
        refused("ec2", "CreateVpc", Protocol::Ec2, r#"{"InstanceTenancy": "x"}"#).0,
        "InvalidParameterValue"
    );
}

#[test]
fn messages_stay_short_and_secrets_stay_secret() {
    let many = format!(
        r#"{{"ModelName": "m", "Tags": [{}]}}"#,
        vec![r#"{"Key": "k"}"#; 50].join(",")
    );
    assert!(sagemaker("CreateModel", &many).starts_with("10 validation errors detected: "));
    let long = format!(r#"{{"ModelName": "{}"}}"#, "!".repeat(1 << 20));
    assert!(sagemaker("CreateModel", &long).len() < 8192);
    let (_, message) = refused(
        "iam",
        "CreateLoginProfile",
        Protocol::Query,
        r#"{"UserName": "u", "Password": ""}"#,
    );
    assert!(message.contains("Value at 'password' failed"), "{message}");
}

#[test]
fn deep_documents_do_not_exhaust_the_stack() {
    let mut deep = Document::Map(IndexMap::new());
    for _ in 0..10_000 {
        deep = Document::List(vec![deep]);
    }
    let input = Document::Map(IndexMap::from([("ModelName".to_owned(), Document::String("m".into()))]));
    assert!(checked("sagemaker", "CreateModel", Protocol::Json, &input).is_ok());
    assert!(
        checked("sagemaker", "CreateModel", Protocol::Json, &deep).is_ok(),
        "a list is no structure: the decoder's business"
    );
    std::mem::forget(deep);
}
