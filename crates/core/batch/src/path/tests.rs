use super::*;
use proptest::prelude::*;
use serde_json::json;

fn path(text: &str) -> JsonPath {
    text.parse().unwrap()
}

/// Proves: CC-78
#[test]
fn each_documented_form_selects_what_it_names() {
    let document = json!({"id": 7, "features": [1, 2, 3, 4], "a": {"b": {"c": true}}, "rows": [{"x": 1}, {"x": 2}]});
    for (text, want) in [
        ("$", document.clone()),
        ("$.features", json!([1, 2, 3, 4])),
        ("$['features']", json!([1, 2, 3, 4])),
        ("$.['features']", json!([1, 2, 3, 4])),
        ("$.a.b.c", json!(true)),
        ("$.a['b'].c", json!(true)),
        ("$['id','a']", json!({"id": 7, "a": {"b": {"c": true}}})),
        ("$.a.['b']", json!({"c": true})),
        ("$.features[0]", json!(1)),
        ("$.features[-1]", json!(4)),
        ("$.features[0,2]", json!([1, 3])),
        ("$.features[1:3]", json!([2, 3])),
        ("$.features[:2]", json!([1, 2])),
        ("$.features[2:]", json!([3, 4])),
        ("$.features[-2:]", json!([3, 4])),
        ("$.features[0,2:]", json!([1, 3, 4])),
        ("$.features[*]", json!([1, 2, 3, 4])),
        ("$.rows[*].x", json!([1, 2])),
        ("$.rows[0:1].x", json!([1])),
        ("$.a.*", json!([{"c": true}])),
        ("$.features[4:]", json!([])),
    ] {
        assert_eq!(path(text).select(document.clone()).unwrap(), want, "{text}");
    }
}

/// Proves: CC-78
#[test]
fn what_is_not_there_is_an_error() {
    let document = json!({"features": [1, 2]});
    for text in [
        "$.missing",
        "$['features','missing']",
        "$.features[2]",
        "$.features[-3]",
        "$.features[0:3]",
        "$.features[3:]",
        "$.features.x",
        "$[0]",
        "$.features[0].x",
    ] {
        assert!(path(text).select(document.clone()).is_err(), "{text}");
    }
    assert!(path("$.features[1]").select(document).is_ok(), "control");
}

/// Proves: CC-78
#[test]
fn other_languages_are_refused() {
    for text in [
        "",
        "features",
        "$features",
        "$..x",
        "$.",
        "$[",
        "$[]",
        "$['a]",
        "$['a'",
        "$[1",
        "$[a]",
        "$[?(@.x>1)]",
        "$.x()",
        "$[1;2]",
        "$.a b",
        "$[99999999999999999999]",
        "$['a',1]",
        "$[1,]",
        "$[::2]",
        "$[0,0]",
        "$[:,:]",
        "$ ",
        "@",
    ] {
        assert!(text.parse::<JsonPath>().is_err(), "{text}");
    }
}

/// Proves: CC-78
#[test]
fn rows_take_indexes_alone() {
    assert_eq!(path("$").columns(3).unwrap(), [0, 1, 2]);
    assert_eq!(path("$[1:]").columns(3).unwrap(), [1, 2]);
    assert_eq!(path("$[0,-1]").columns(3).unwrap(), [0, 2]);
    assert_eq!(path("$[0]").columns(3).unwrap(), [0]);
    assert!(path("$[3]").columns(3).is_err());
    assert!(
        path("$[0,5:]").columns(3).is_err(),
        "an index outside of the row is an error"
    );
    assert!(path("$[0,5:]").columns(6).is_ok(), "control");
    assert!(!path("$.x").is_for_rows() && !path("$[0][0]").is_for_rows());
    assert!(path("$[*]").is_for_rows() && path("$").is_for_rows());
}

/// Eight steps that each pick everything three times would make 6561 copies of a value that stands deep enough.
///
/// Proves: CC-78
#[test]
fn an_element_is_never_picked_twice() {
    let mut deep = json!("x".repeat(64));
    for _ in 0..9 {
        deep = json!([deep]);
    }
    let greedy = format!("${}", "[:,0:,-1:]".repeat(8));
    assert_eq!(path(&greedy).select(deep.clone()), Err(Absent::Twice(0)));
    assert_eq!(path("$[0,-3:]").columns(3), Err(Absent::Twice(0)));
    let plain = format!("${}", "[:]".repeat(8));
    assert!(path(&plain).select(deep).is_ok(), "control");
    assert_eq!(
        path("$[2,0,1:2]").select(json!([1, 2, 3])).unwrap(),
        json!([3, 1, 2]),
        "any order"
    );
    assert_eq!(path("$[0,-3:]").columns(4).unwrap(), [0, 1, 2, 3], "control");
}

proptest! {
    /// Whatever a filter of any number of brackets picks of a deep document, it is no larger than the document.
    #[test]
    fn a_selection_is_never_larger_than_its_document(
        steps in proptest::collection::vec("\\[(:|0:|-1:|0|\\*)(,(:|0:|:1|-1:|1:|-1)){0,3}\\]", 0..10),
        depth in 8usize..14,
        wide in any::<bool>(),
    ) {
        let mut document = json!("0123456789abcdef");
        for level in 0..depth {
            document = if wide && level < 6 { json!([document, document]) } else { json!([document]) };
        }
        let size = document.to_string().len();
        if let Ok(path) = format!("${}", steps.concat()).parse::<JsonPath>()
            && let Ok(selected) = path.select(document)
        {
            prop_assert!(selected.to_string().len() <= size);
        }
        let row = format!("${}", steps.first().map_or("", String::as_str));
        if let Ok(columns) = row.parse::<JsonPath>().map_err(|_| ()).and_then(|path| path.columns(7).map_err(|_| ())) {
            prop_assert!(columns.len() <= 7);
        }
    }

    #[test]
    fn no_text_and_no_document_can_break_it(text in "[$.*'\\[\\]:,a-c0-3-]{0,16}", depth in 0usize..4) {
        if let Ok(path) = text.parse::<JsonPath>() {
            let mut document = json!([1, {"a": [0, 1, 2], "b": null}, "c"]);
            for _ in 0..depth {
                document = json!({"a": document, "b": [1, 2, 3]});
            }
            let _ = path.select(document);
            let _ = path.columns(4);
        }
    }

    /// A slice of a row is what Rust's own ranges give.
    #[test]
    fn slices_agree_with_ranges(count in 0usize..8, from in -9i64..9, to in -9i64..9) {
        let place = |at: i64| if at < 0 { i64::try_from(count).unwrap() + at } else { at };
        let (low, high) = (place(from), place(to));
        let inside = |at: i64| (0..=i64::try_from(count).unwrap()).contains(&at);
        let got = path(&format!("$[{from}:{to}]")).columns(count);
        if inside(low) && inside(high) {
            let want: Vec<usize> = (low..high).map(|at| usize::try_from(at).unwrap()).collect();
            prop_assert_eq!(got.unwrap(), want);
        } else {
            prop_assert!(got.is_err());
        }
    }
}
