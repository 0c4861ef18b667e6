//! Whatever arrives, the decoder answers and does not panic.

use super::*;
use proptest::prelude::*;

fn heads() -> Vec<(Parts, Option<&'static str>)> {
    vec![
        (json_head("SageMaker.CreateTrainingJob"), Some("sagemaker")),
        (json_head("Logs_20140328.PutLogEvents"), None),
        (json_head("AmazonEC2ContainerRegistry_V20150921.UploadLayerPart"), None),
        (form_head(), Some("iam")),
        (form_head(), Some("ec2")),
        (form_head(), None),
        (cbor_head("PutMetricData"), None),
        (
            head("PUT", "/FeatureGroup/g", &[("content-type", "application/json")]),
            Some("sagemaker"),
        ),
        (head("POST", "/endpoints/e/invocations", &[]), None),
    ]
}

/// Bytes, and texts that come close to what each protocol takes.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let key = "(Action|Version|Filter|Tags|member|entry|[0-9]{1,12}|key|value|[a-zA-Z%+]{0,6})(\\.(1|member|Value|[0-9]{1,11})){0,9}";
    let pairs = proptest::collection::vec((key, "(RunInstances|CreateRole|2016-11-15|[ -~]{0,9})"), 0..12);
    let form = pairs.prop_map(|pairs| {
        pairs
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join("&")
            .into_bytes()
    });
    let named = "(Action=RunInstances&Version=2016-11-15|Action=CreateRole&Version=2010-05-08)";
    let named_form = (named, form.clone()).prop_map(|(head, rest)| [head.as_bytes(), b"&", &rest].concat());
    let json = "\\{(\"(TrainingJobName|Tags|InputDataConfig|logEvents|Record)\":([\\[\\]{}0-9\",:a-zA-Z\\\\. -]{0,40}),?){0,4}\\}";
    let cbor = proptest::collection::vec(
        prop_oneof![
            any::<u8>(),
            Just(0xbf),
            Just(0x9f),
            Just(0x7f),
            Just(0xff),
            Just(0xc1),
            Just(0xfb),
            Just(0x9b),
            Just(0xbb)
        ],
        0..64,
    );
    let started = cbor
        .clone()
        .prop_map(|rest| [b"\xa1\x6aMetricData".as_slice(), &rest].concat());
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        form,
        named_form,
        json.prop_map(String::into_bytes),
        cbor,
        started
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_never_panics_and_every_refusal_can_be_sent(body in bodies()) {
        for (head, signing_name) in heads() {
            let dialect = Dialect::of(&head, signing_name);
            if let Err(error) = decode(&dialect, &head, &body, LIMIT) {
                let answer = refuse(&dialect, &error, "id");
                prop_assert!(answer.status().is_client_error(), "{error}");
            }
        }
    }

    #[test]
    fn heads_of_any_kind_have_a_dialect(
        path in "(/[a-zA-Z%{}.]{0,6}){1,5}", target in "[ -~]{0,20}", media in "[ -~]{0,20}", signing in "[a-z0-9]{0,8}",
    ) {
        let Ok(uri) = path.parse::<http::Uri>() else { return Ok(()) };
        let head = head("POST", &uri.to_string(), &[("x-amz-target", &target), ("content-type", &media)]);
        let dialect = Dialect::of(&head, Some(&signing));
        let accepted = decode(&dialect, &head, b"{}", LIMIT).is_ok();
        prop_assert!(!accepted || target.contains('.'));
    }
}

#[test]
fn deep_nesting_is_refused_in_every_protocol() {
    let json = format!(
        r#"{{"SearchExpression":{}{}}}"#,
        r#"{"SubExpressions":["#.repeat(5000),
        "]}".repeat(5000)
    );
    let error = decoded(&json_head("SageMaker.Search"), None, json.as_bytes()).unwrap_err();
    assert_eq!(error.code, "SerializationException");
    let cbor = [b"\xa1\x67Unknown".as_slice(), &vec![0x81; 500_000], b"\x01"].concat();
    // An unknown member is skipped without recursion.
    assert!(decoded(&cbor_head("DescribeAlarms"), None, &cbor).is_ok());
    let long = format!(
        "Action=RunInstances&Version=2016-11-15&{}=1",
        "Filter.1.".repeat(50_000)
    );
    assert!(
        decoded(&form_head(), Some("ec2"), long.as_bytes()).is_err(),
        "required parameters are missing"
    );
}
