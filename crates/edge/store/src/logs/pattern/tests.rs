use super::*;

fn matches(pattern: &str, message: &str) -> bool {
    Pattern::parse(pattern).unwrap().matches(message)
}

/// Proves: IAM-66
#[test]
fn terms_quotes_exclusions_and_alternatives_select_messages() {
    for (pattern, yes, no) in [
        ("", "anything", None),
        ("ERROR", "an ERROR here", Some("an error here")),
        ("ERROR disk", "disk ERROR", Some("ERROR only")),
        ("\"disk full\"", "the disk full", Some("disk is full")),
        ("\"say \\\"no\\\"\"", "say \"no\"", Some("say no")),
        ("ERROR -retry", "ERROR", Some("ERROR retry")),
        ("-\"not this\"", "this", Some("not this")),
        ("?ERROR ?WARN", "WARN", Some("INFO")),
        ("?ERROR ?WARN -x", "WARN y", Some("WARN x")),
        ("must ?ERROR", "must", Some("ERROR")),
    ] {
        assert!(matches(pattern, yes), "{pattern} {yes}");
        assert!(no.is_none_or(|no| !matches(pattern, no)), "{pattern} {no:?}");
    }
    assert_eq!(Pattern::parse("\"open").unwrap_err(), BadPattern::OpenQuote);
    assert_eq!(Pattern::parse("[a, b]").unwrap_err(), BadPattern::Unsupported);
}

/// Proves: IAM-66
#[test]
fn json_conditions_select_events() {
    let event = r#"{"level":"ERROR","ms":120.5,"user":{"ids":[7,"x"]},"on":true,"none":null}"#;
    for yes in [
        "{ $.level = ERROR }",
        "{ $.level = \"ERR*\" }",
        "{ $.level = *RR* }",
        "{ $.level != \"INFO\" }",
        "{ $.ms > 100 && $.ms<=120.5 }",
        "{ ($.ms < 1 || $.user.ids[0] = 7) && $.on IS TRUE }",
        "{ $.none IS NULL }",
        "{ $.absent NOT EXISTS }",
        "{ $.user.ids[1] = x }",
    ] {
        assert!(matches(yes, event), "{yes}");
    }
    for no in [
        "{ $.level = error }",
        "{ $.level = \"ERROR?\" }",
        "{ $.absent != \"x\" }",
        "{ $.ms = 1 }",
        "{ $.on IS FALSE }",
        "{ $.user.ids[9] = 7 }",
        "{ $.level NOT EXISTS }",
    ] {
        assert!(!matches(no, event), "{no}");
        assert!(!matches(no, "not json"), "{no}");
    }
    for bad in [
        "{",
        "{}",
        "{ $.a }",
        "{ $.a = }",
        "{ $.a < \"x\" }",
        "{ $.a = 1 } x",
        "{ $. = 1 }",
        "{ $[x] = 1 }",
    ] {
        assert!(matches!(Pattern::parse(bad), Err(BadPattern::Json(_))), "{bad}");
    }
    let deep = format!("{{ {}$.a = 1{} }}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(
        matches!(Pattern::parse(&deep), Err(BadPattern::Json(_))),
        "nesting is bounded"
    );
}
