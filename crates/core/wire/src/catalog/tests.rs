use super::*;
use crate::catalog::service::Kind;
use flate2::read::GzDecoder;
use std::io::Read;

fn metadata(entry: &Entry) -> serde_json::Value {
    let mut text = String::new();
    GzDecoder::new(entry.packed).read_to_string(&mut text).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["metadata"].clone()
}

/// Proves: SM-1, SM-2
#[test]
fn the_table_of_services_says_what_the_models_say() {
    for entry in entries() {
        let metadata = metadata(entry);
        let signing = metadata["signingName"].as_str().or(metadata["endpointPrefix"].as_str());
        assert_eq!(signing, Some(entry.signing_name), "{}", entry.name);
        assert_eq!(metadata["targetPrefix"].as_str(), entry.target_prefix, "{}", entry.name);
        assert_eq!(metadata["apiVersion"], entry.api_version, "{}", entry.name);
        let protocols: Vec<_> = metadata["protocols"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| match name.as_str().unwrap() {
                "json" => Protocol::Json,
                "query" => Protocol::Query,
                "ec2" => Protocol::Ec2,
                "rest-json" => Protocol::RestJson,
                "smithy-rpc-v2-cbor" => Protocol::Cbor,
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(protocols, entry.protocols, "{}", entry.name);
    }
}

#[test]
fn every_model_loads_and_every_pattern_compiles() {
    let mut patterns = 0;
    for entry in entries() {
        let service = load::load(entry.name, entry.packed).unwrap();
        assert!(!service.operations().is_empty());
        for shape in service.shapes() {
            if let Kind::Text(text) = &shape.kind
                && let Some(pattern) = &text.pattern
            {
                pattern.compile().unwrap();
                patterns += 1;
            }
        }
    }
    assert!(patterns > 700, "{patterns}");
}

#[test]
fn operations_and_errors_are_found() {
    let iam = by_query("iam").unwrap().model();
    assert_eq!(
        iam.operation("CreateRole").unwrap().result_wrapper,
        Some("CreateRoleResult")
    );
    assert!(iam.operation("createrole").is_none());
    let error = iam.error("NoSuchEntity").unwrap();
    assert_eq!((error.name, error.status), ("NoSuchEntityException", Some(404)));
    let runtime = by_name("sagemaker-runtime").unwrap().model();
    assert_eq!(runtime.error("ModelError").unwrap().status, Some(424));
    let invoke = runtime.operation("InvokeEndpoint").unwrap();
    assert!(runtime.streams_input(invoke) && runtime.streams_output(invoke));
    let sagemaker = by_target("SageMaker").unwrap().model();
    assert!(!sagemaker.streams_input(sagemaker.operation("CreateModel").unwrap()));
}
