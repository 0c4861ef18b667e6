use super::*;
use proptest::prelude::*;

const PLAIN: Rules = Rules {
    wildcards: true,
    variables: false,
};
const FULL: Rules = Rules {
    wildcards: true,
    variables: true,
};

fn like(pattern: &str, text: &str) -> bool {
    let pattern = Pattern::parse(pattern, PLAIN).unwrap();
    Subject::resource(text).matched_by(&pattern, &|_| None).unwrap()
}

fn arn_like(pattern: &str, text: &str) -> bool {
    ArnPattern::parse(pattern, PLAIN)
        .unwrap()
        .matches(text, &|_| None)
        .unwrap()
}

/// Proves: IAM-4
#[test]
fn wildcards_match_runs_and_single_characters() {
    for (pattern, text) in [
        ("*", ""),
        ("*", "a/b:c"),
        ("a*c", "abbc"),
        ("a*c*", "acc"),
        ("?", "ü"),
        ("a?c", "abc"),
        ("a*ü?", "aüüü"),
        ("**", "x"),
    ] {
        assert!(like(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [
        ("", "a"),
        ("?", ""),
        ("a?c", "ac"),
        ("a*c", "ab"),
        ("A", "a"),
        ("a", "ab"),
    ] {
        assert!(!like(pattern, text), "{pattern} {text}");
    }
}

/// Proves: IAM-4, IAM-13
#[test]
fn arn_wildcards_stay_within_their_part() {
    let arn = "arn:aws:iam::123456789012:role/a:b/c";
    for pattern in [
        "arn:aws:iam::*:role/*",
        "arn:*:*:*:*:*",
        "arn:aws:iam::123456789012:role/a:b/c",
    ] {
        assert!(arn_like(pattern, arn), "{pattern}");
    }
    for pattern in [
        "*",
        "arn:*",
        "arn:aws:*:role/a:b/c",
        "arn:aws:iam:*",
        "arn:aws:iam::*:user/*",
    ] {
        assert!(!arn_like(pattern, arn), "{pattern}");
    }
}

/// Proves: IAM-6, IAM-13
#[test]
fn a_variable_cannot_carry_a_colon_into_an_arn() {
    let pattern = ArnPattern::parse("arn:aws:iam::${aws:PrincipalTag/account}:role/x", FULL).unwrap();
    let (good, bad) = (["111122223333".to_owned()], ["444455556666:role/a".to_owned()]);
    let arn = "arn:aws:iam::111122223333:role/x";
    assert_eq!(pattern.matches(arn, &|_| Some(&good)), Some(true), "control");
    let crafted = "arn:aws:iam::444455556666:role/a:role/x";
    assert_eq!(pattern.matches(crafted, &|_| Some(&bad)), Some(false));
    assert_eq!(pattern.matches(arn, &|_| None), None);
}

/// Proves: IAM-9, D-8
#[test]
fn only_names_of_sagemaker_resources_fold_case() {
    let arn = "arn:aws:sagemaker:us-west-2:123456789012:endpoint/myendpoint";
    assert!(like(
        "arn:aws:sagemaker:us-west-2:123456789012:endpoint/myEndpoint",
        arn
    ));
    assert!(like("arn:aws:sagemaker:*:endpoint/MY*", arn));
    assert!(arn_like("arn:aws:sagemaker:*:*:endpoint/MyEndpoint", arn));
    assert!(!like(
        "arn:aws:SageMaker:us-west-2:123456789012:endpoint/myendpoint",
        arn
    ));
    assert!(like("arn:aws:s3:::b/Key", "arn:aws:s3:::b/Key"), "control");
    assert!(!like("arn:aws:s3:::b/Key", "arn:aws:s3:::b/key"));
}

#[test]
fn many_stars_do_not_take_exponential_time() {
    let pattern = "*a".repeat(200);
    assert!(!like(&format!("{pattern}b"), &"a".repeat(2_000)));
}

/// Proves: IAM-6
#[test]
fn variables_are_replaced_by_literal_text() {
    let (one, several) = (["a*".to_owned()], ["a".to_owned(), "b".to_owned()]);
    let matched = |pattern: &str, text: &str| {
        let lookup = |key: &str| match key {
            "aws:username" => Some(one.as_slice()),
            "aws:tagkeys" => Some(several.as_slice()),
            _ => None,
        };
        Pattern::parse(pattern, FULL).unwrap().matches(text, EXACT, &lookup)
    };
    assert_eq!(matched("home/${aws:UserName}/*", "home/a*/x"), Some(true));
    assert_eq!(
        matched("home/${aws:username}", "home/abc"),
        Some(false),
        "the value's star is no wildcard"
    );
    assert_eq!(matched("${aws:none}", "x"), None);
    assert_eq!(matched("${aws:none, 'x'}", "x"), Some(true));
    assert_eq!(matched("${aws:none, 'a}b'}", "a}b"), Some(true));
    assert_eq!(matched("${aws:none,''}x", "x"), Some(true));
    assert_eq!(
        matched("${aws:username, 'x'}", "x"),
        Some(false),
        "a value hides the default"
    );
    assert_eq!(matched("${aws:TagKeys}", "a"), None, "several values are no text");
    assert_eq!(
        matched("${aws:TagKeys, 'x'}", "x"),
        None,
        "nor is there a default for them"
    );
    assert_eq!(matched("${*}${?}${$}", "*?$"), Some(true));
    assert_eq!(matched("${*}", "x"), Some(false));
    for bad in [
        "${aws:username",
        "${}",
        "${plain}",
        "${aws:a, b}",
        "${${aws:a}}",
        "${aws:a, 'b",
    ] {
        assert_eq!(Pattern::parse(bad, FULL), Err(BadVariable), "{bad}");
        assert!(ArnPattern::parse(&format!("arn:{bad}:x"), FULL).is_err(), "{bad}");
    }
    let literal = Pattern::parse("${aws:username}", PLAIN).unwrap();
    assert_eq!(literal.matches("${aws:username}", EXACT, &|_| None), Some(true));
}

/// The definition, spelled out: slow, and plainly right.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), None) => naive(rest, text),
        (Some(('*', rest)), Some((_, after))) => naive(rest, text) || naive(pattern, after),
        (Some(('?', rest)), Some((_, after))) => naive(rest, after),
        (Some((wanted, rest)), Some((given, after))) => wanted == given && naive(rest, after),
        _ => false,
    }
}

proptest! {
    /// Proves: IAM-4
    #[test]
    fn the_matcher_agrees_with_the_definition(pattern in "[abü*?]{0,9}", text in "[abü]{0,12}") {
        let wanted: Vec<char> = pattern.chars().collect();
        let given: Vec<char> = text.chars().collect();
        prop_assert_eq!(like(&pattern, &text), naive(&wanted, &given));
    }

    #[test]
    fn no_text_breaks_the_reader(text in ".{0,40}") {
        let _ = Pattern::parse(&text, FULL);
        let _ = ArnPattern::parse(&text, FULL);
    }
}
