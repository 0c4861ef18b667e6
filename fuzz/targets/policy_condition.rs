//! Operators over values of policy and request. For one value on each side an operator and its negation are never both true,
//! and both false only when the value cannot be read; the request's own values never act as wildcards or variables.
#![no_main]

mod ask;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use std::collections::BTreeMap;

const PAIRS: [(&str, &str); 9] = [
    ("StringEquals", "StringNotEquals"),
    ("StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase"),
    ("StringLike", "StringNotLike"),
    ("NumericEquals", "NumericNotEquals"),
    ("NumericLessThan", "NumericGreaterThanEquals"),
    ("DateEquals", "DateNotEquals"),
    ("DateLessThan", "DateGreaterThanEquals"),
    ("IpAddress", "NotIpAddress"),
    ("ArnLike", "ArnNotLike"),
];

fn holds(operator: &str, wanted: &str, given: &str) -> bool {
    let text = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {operator: {"aws:PrincipalTag/fuzz": [wanted]}}}
    ]});
    let context = BTreeMap::from([("aws:principaltag/fuzz".to_owned(), vec![given.to_owned()])]);
    ask::allowed(&text.to_string(), "sagemaker:CreateModel", "*", context)
}

fuzz_target!(|input: (u8, &str, &str)| {
    let (pick, wanted, given) = input;
    let (positive, negative) = PAIRS[usize::from(pick) % PAIRS.len()];
    let (is, is_not) = (holds(positive, wanted, given), holds(negative, wanted, given));
    assert!(!(is && is_not), "{positive} and {negative} both hold");
    // Texts can always be compared. Patterns with variables have rules of their own for keys without a value.
    if positive.starts_with("String") && !wanted.contains("${") {
        assert!(is != is_not, "{positive} and {negative} both fail");
    }
    if positive == "StringEquals" && !wanted.contains("${") {
        assert_eq!(is, wanted == given);
    }
    // With IfExists the answer for a key that is there does not change; with set operators neither, for a single value.
    for form in [format!("{positive}IfExists"), format!("ForAnyValue:{positive}")] {
        assert_eq!(is, holds(&form, wanted, given), "{form}");
    }
});
