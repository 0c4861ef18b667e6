use super::sagemaker::{CreateModelInput, DescribeModelOutput, TrainingJobStatus, VpcConfig};
use crate::Document;
use indexmap::IndexMap;

fn model() -> CreateModelInput {
    CreateModelInput {
        model_name: "m".into(),
        enable_network_isolation: Some(true),
        vpc_config: Some(VpcConfig {
            security_group_ids: vec!["sg-1".into()],
            subnets: vec!["subnet-1".into()],
        }),
        ..Default::default()
    }
}

#[test]
fn a_struct_survives_its_document_and_its_stored_form() {
    let document = Document::from(model());
    assert_eq!(CreateModelInput::try_from(document).unwrap(), model());
    let stored = serde_json::to_string(&model()).unwrap();
    assert_eq!(
        stored,
        r#"{"ModelName":"m","VpcConfig":{"SecurityGroupIds":["sg-1"],"Subnets":["subnet-1"]},"EnableNetworkIsolation":true}"#
    );
    assert_eq!(serde_json::from_str::<CreateModelInput>(&stored).unwrap(), model());
}

/// Proves: SM-4
#[test]
fn absent_members_are_absent_from_the_document() {
    let output = DescribeModelOutput {
        model_name: "m".into(),
        creation_time: 5,
        model_arn: "a".into(),
        ..Default::default()
    };
    let Document::Map(members) = Document::from(output) else {
        panic!("a structure")
    };
    assert_eq!(
        members.keys().collect::<Vec<_>>(),
        ["ModelName", "CreationTime", "ModelArn"]
    );
}

#[test]
fn a_missing_required_member_and_a_wrong_type_are_named() {
    let error = CreateModelInput::try_from(Document::Map(IndexMap::new())).unwrap_err();
    assert_eq!(error.to_string(), "ModelName is not present");
    let wrong = IndexMap::from([("ModelName".to_owned(), Document::Bool(true))]);
    assert_eq!(
        CreateModelInput::try_from(Document::Map(wrong))
            .unwrap_err()
            .to_string(),
        "ModelName: value is not a string"
    );
}

#[test]
fn enums_keep_aws_spelling() {
    assert_eq!(
        "InProgress".parse::<TrainingJobStatus>().unwrap(),
        TrainingJobStatus::InProgress
    );
    assert_eq!(
        serde_json::to_string(&TrainingJobStatus::Completed).unwrap(),
        "\"Completed\""
    );
    assert!("inprogress".parse::<TrainingJobStatus>().is_err());
}
