use super::*;
use crate::split::tests::{record_io, tf_record};
use isolarium_model::sagemaker::transform_job::{AssembleWith, DataProcessing};
use proptest::prelude::*;

fn payloads(
    split: SplitType,
    strategy: BatchStrategy,
    limit: usize,
    object: &[u8],
) -> Result<Vec<Vec<u8>>, Unreadable> {
    let mut batcher = Batcher::new(split, strategy, limit, None);
    let mut all = Vec::new();
    for piece in object.chunks(7) {
        batcher.feed(piece)?;
        all.extend(std::iter::from_fn(|| batcher.next_ready()));
    }
    batcher.finish()?;
    all.extend(std::iter::from_fn(|| batcher.next_ready()));
    Ok(all.into_iter().map(|payload| payload.bytes).collect())
}

/// Proves: CC-69
#[test]
fn one_record_or_as_many_whole_ones_as_fit() {
    use BatchStrategy::{MultiRecord, SingleRecord};
    let object = b"one\ntwo\nthree\nfour\n";
    let text = |all: Vec<Vec<u8>>| {
        all.into_iter()
            .map(|one| String::from_utf8(one).unwrap())
            .collect::<Vec<_>>()
    };
    let run = |strategy, limit| payloads(SplitType::Line, strategy, limit, object).map(text);
    assert_eq!(run(SingleRecord, 5).unwrap(), ["one", "two", "three", "four"]);
    assert_eq!(run(MultiRecord, 7).unwrap(), ["one\ntwo", "three", "four"]);
    assert_eq!(run(MultiRecord, 10).unwrap(), ["one\ntwo", "three\nfour"]);
    assert_eq!(run(MultiRecord, 100).unwrap(), ["one\ntwo\nthree\nfour"]);
    assert_eq!(
        run(MultiRecord, 4),
        Err(Unreadable::TooLarge(4)),
        "a record above the limit fails the object"
    );
    assert_eq!(run(SingleRecord, 4), Err(Unreadable::TooLarge(4)));
    assert_eq!(payloads(SplitType::None, MultiRecord, 100, object).unwrap(), [object]);
    for (kind, frame) in [
        (SplitType::RecordIo, record_io as fn(&[u8]) -> Vec<u8>),
        (SplitType::TfRecord, tf_record),
    ] {
        let object = [frame(b"aaa"), frame(b"bbb"), frame(b"ccc")].concat();
        let two = frame(b"aaa").len() * 2;
        let several = payloads(kind, MultiRecord, two, &object).unwrap();
        assert_eq!(
            several,
            [[frame(b"aaa"), frame(b"bbb")].concat(), frame(b"ccc")],
            "padding stays"
        );
        let single = payloads(kind, SingleRecord, 3, &object).unwrap();
        assert_eq!(single, [b"aaa", b"bbb", b"ccc"], "padding goes");
    }
}

/// Proves: CC-77
#[test]
fn what_is_filtered_is_sent_and_what_is_joined_is_kept() {
    let asked = DataProcessing {
        input_filter: "$[1:]".into(),
        output_filter: "$".into(),
        join: true,
    };
    let csv = Some("text/csv");
    let processing = Processing::new(&asked, csv, csv, SplitType::Line, AssembleWith::Line)
        .unwrap()
        .unwrap();
    let mut batcher = Batcher::new(SplitType::Line, BatchStrategy::MultiRecord, 100, Some(&processing));
    batcher.feed(b"id1,1,2\n\nid2,3,4\n").unwrap();
    batcher.finish().unwrap();
    let payload = batcher.next_ready().unwrap();
    assert_eq!((payload.bytes.as_slice(), payload.records), (&b"1,2\n3,4"[..], 2));
    assert_eq!(payload.input, b"id1,1,2\nid2,3,4");
    assert_eq!(
        processing.output(&payload.input, b"0.5\n0.25\n").unwrap(),
        b"id1,1,2,0.5\nid2,3,4,0.25"
    );
    let mut narrow = Batcher::new(SplitType::Line, BatchStrategy::MultiRecord, 5, Some(&processing));
    assert_eq!(
        narrow.feed(b"id1,1,2\n"),
        Err(Unreadable::TooLarge(5)),
        "the record itself counts"
    );
}

proptest! {
    /// An echo, assembled with newlines, gives the object back; whatever the limit and the strategy.
    /// Proves: CC-71, CC-72
    #[test]
    fn lines_that_are_echoed_and_assembled_are_the_object(
        lines in prop::collection::vec("[a-z,]{0,12}", 0..20),
        limit in 12usize..60,
        single: bool,
    ) {
        let object: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let strategy = if single { BatchStrategy::SingleRecord } else { BatchStrategy::MultiRecord };
        let sent = payloads(SplitType::Line, strategy, limit, object.as_bytes()).unwrap();
        prop_assert!(sent.iter().all(|payload| payload.len() <= limit));
        let assembled: Vec<u8> = sent.into_iter().flat_map(|mut payload| { payload.push(b'\n'); payload }).collect();
        prop_assert_eq!(assembled, object.as_bytes());
    }

    /// Frames that are echoed and put together give the object back.
    /// Proves: CC-72
    #[test]
    fn frames_that_are_echoed_are_the_object(data in prop::collection::vec(any::<[u8; 9]>(), 0..12), limit in 32usize..120) {
        for (kind, frame) in [(SplitType::RecordIo, record_io as fn(&[u8]) -> Vec<u8>), (SplitType::TfRecord, tf_record)] {
            let object: Vec<u8> = data.iter().flat_map(|one| frame(one)).collect();
            let sent = payloads(kind, BatchStrategy::MultiRecord, limit, &object).unwrap();
            prop_assert!(sent.iter().all(|payload| payload.len() <= limit && !payload.is_empty()));
            prop_assert_eq!(sent.concat(), object);
        }
    }
}
