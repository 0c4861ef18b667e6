use super::*;

const CSV: Option<&str> = Some("text/csv");
const JSON: Option<&str> = Some("application/json");
const LINES: Option<&str> = Some("application/jsonlines");

fn asked(input: &str, output: &str, join: bool) -> DataProcessing {
    DataProcessing {
        input_filter: input.into(),
        output_filter: output.into(),
        join,
    }
}

fn by_line(kind: Option<&str>, asked: &DataProcessing) -> Processing {
    Processing::new(asked, kind, kind, SplitType::Line, AssembleWith::Line)
        .unwrap()
        .unwrap()
}

fn whole(kind: Option<&str>, asked: &DataProcessing) -> Processing {
    Processing::new(asked, kind, kind, SplitType::None, AssembleWith::None)
        .unwrap()
        .unwrap()
}

fn output(processing: &Processing, input: &str, result: &str) -> Result<String, Unreadable> {
    let bytes = processing.output(input.as_bytes(), result.as_bytes())?;
    Ok(String::from_utf8(bytes).unwrap())
}

fn input(processing: &Processing, record: &str) -> Result<Option<String>, Unreadable> {
    let bytes = processing.input(record.as_bytes())?;
    Ok(bytes.map(|bytes| String::from_utf8(bytes).unwrap()))
}

/// Proves: CC-77, CC-79
#[test]
fn rows_get_their_results_behind_them() {
    let id_and_score = by_line(CSV, &asked("$[1:]", "$[0,-1]", true));
    assert_eq!(input(&id_and_score, "id1,5,\"a,b\"").unwrap().unwrap(), "5,\"a,b\"");
    assert_eq!(
        output(&id_and_score, "id1,5,6\nid2,7,8", "0.1\n0.9\n").unwrap(),
        "id1,0.1\nid2,0.9"
    );
    assert_eq!(input(&id_and_score, " \r").unwrap(), None, "an empty line is no row");
    assert!(
        output(&id_and_score, "id1,5,6\nid2,7,8", "0.1\n").is_err(),
        "a row without a result"
    );
    let everything = by_line(CSV, &asked("$", "$", true));
    assert_eq!(output(&everything, "1,2", "x,y").unwrap(), "1,2,x,y");
    let far = by_line(CSV, &asked("$[9]", "$", false));
    assert!(input(&far, "1,2").is_err(), "an index outside of the row");
    let columns = whole(CSV, &asked("$[0]", "$", false));
    assert_eq!(
        input(&columns, "1,2\n3,4\n").unwrap().unwrap(),
        "1\n3",
        "an object that is not split has rows too"
    );
}

/// Proves: CC-77, CC-79
#[test]
fn objects_get_their_results_as_a_member() {
    let joined = by_line(LINES, &asked("$.features", "$['id','SageMakerOutput']", true));
    let records = "{\"id\":1,\"features\":[1,2]}\n{\"id\":2,\"features\":[3,4]}";
    assert_eq!(
        input(&joined, records.lines().next().unwrap()).unwrap().unwrap(),
        "[1,2]"
    );
    assert_eq!(
        output(&joined, records, "{\"score\":0.5}\n{\"score\":0.25}\n").unwrap(),
        "{\"id\":1,\"SageMakerOutput\":{\"score\":0.5}}\n{\"id\":2,\"SageMakerOutput\":{\"score\":0.25}}"
    );
    let one = whole(JSON, &asked("$", "$", true));
    assert_eq!(
        output(&one, "{\"key\": 1}", "{\n  \"p\": 3\n}\n").unwrap(),
        "{\"key\":1,\"SageMakerOutput\":{\"p\":3}}"
    );
    assert_eq!(
        output(&one, "[1,2]", "[3]").unwrap(),
        "{\"SageMakerInput\":[1,2],\"SageMakerOutput\":[3]}",
        "an input that is no object"
    );
    assert!(output(&one, "{\"key\": 1}", "no json").is_err());
    assert_eq!(
        output(&joined, "{\"id\":1,\"features\":[]}", "{\n\"score\": 1\n}").unwrap(),
        "{\"id\":1,\"SageMakerOutput\":{\"score\":1}}",
        "one record's result may be written over several lines"
    );
}

/// Proves: CC-77
#[test]
fn the_output_filter_works_alone() {
    let predictions = whole(JSON, &asked("$", "$.predictions[*].score", false));
    let result = "{\"predictions\":[{\"score\":1},{\"score\":2}]}";
    assert_eq!(output(&predictions, "", result).unwrap(), "[1,2]");
    let first = by_line(CSV, &asked("$", "$[0]", false));
    assert_eq!(output(&first, "", "a,b\nc,d\n").unwrap(), "a\nc\n");
    assert_eq!(output(&first, "", "a,b\nc,d").unwrap(), "a\nc");
    let sent_alone = by_line(LINES, &asked("$.x", "$", false));
    assert_eq!(
        output(&sent_alone, "", "whatever \u{1}").unwrap(),
        "whatever \u{1}",
        "an unfiltered result passes"
    );
}

/// Proves: CC-77, CC-78
#[test]
fn combinations_that_make_no_sense_are_refused() {
    let new = |asked: &DataProcessing, content, accept, split, assemble| {
        Processing::new(asked, content, accept, split, assemble).map(|made| made.is_some())
    };
    let nothing = DataProcessing::default();
    let png = Some("image/png");
    assert_eq!(
        new(&nothing, png, None, SplitType::RecordIo, AssembleWith::None),
        Ok(false),
        "data of any kind"
    );
    let join = asked("$", "$", true);
    assert_eq!(new(&join, CSV, CSV, SplitType::Line, AssembleWith::Line), Ok(true));
    assert_eq!(
        new(
            &join,
            Some("text/csv; header=absent"),
            Some("Text/CSV"),
            SplitType::Line,
            AssembleWith::Line
        ),
        Ok(true)
    );
    assert_eq!(
        new(&join, CSV, JSON, SplitType::Line, AssembleWith::Line),
        Err(Refused::Accept)
    );
    assert_eq!(
        new(&join, CSV, CSV, SplitType::Line, AssembleWith::None),
        Err(Refused::Assembly)
    );
    assert_eq!(
        new(&join, CSV, CSV, SplitType::None, AssembleWith::Line),
        Err(Refused::Assembly)
    );
    assert_eq!(
        new(&join, CSV, CSV, SplitType::TfRecord, AssembleWith::None),
        Err(Refused::Split)
    );
    assert!(matches!(
        new(&join, png, png, SplitType::None, AssembleWith::None),
        Err(Refused::Format { .. })
    ));
    assert!(matches!(
        new(&join, None, None, SplitType::None, AssembleWith::None),
        Err(Refused::Format { .. })
    ));
    let name = asked("$.name", "$", false);
    assert_eq!(
        new(&name, CSV, CSV, SplitType::Line, AssembleWith::Line),
        Err(Refused::Rows { member: "InputFilter" })
    );
    assert_eq!(
        new(&name, LINES, None, SplitType::Line, AssembleWith::None),
        Ok(true),
        "control"
    );
    assert!(matches!(
        new(
            &asked("$", "$..x", false),
            JSON,
            JSON,
            SplitType::None,
            AssembleWith::None
        ),
        Err(Refused::Path {
            member: "OutputFilter",
            ..
        })
    ));
}
