use super::*;
use proptest::prelude::*;

/// Room for anything in these tests.
const ROOM: usize = 1 << 20;

/// Every record of an object that arrives in pieces of these sizes.
pub(crate) fn records(
    kind: SplitType,
    framed: bool,
    limit: usize,
    object: &[u8],
    sizes: &[usize],
) -> Result<Vec<Vec<u8>>, Unreadable> {
    let mut splitter = Splitter::new(kind, framed, limit);
    let mut all = Vec::new();
    let (mut rest, mut sizes) = (object, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
        let (now, after) = rest.split_at(size);
        splitter.feed(now, &mut |record| {
            all.push(record.to_vec());
            Ok(())
        })?;
        assert!(
            splitter.held.len() <= limit.saturating_add(32) || kind != SplitType::Line,
            "no more than one record is held"
        );
        assert!(splitter.held.len() + splitter.parts.as_ref().map_or(0, Vec::len) <= 2 * limit + 32);
        rest = after;
    }
    splitter.finish(&mut |record| {
        all.push(record.to_vec());
        Ok(())
    })?;
    Ok(all)
}

fn whole(kind: SplitType, framed: bool, object: &[u8]) -> Result<Vec<Vec<u8>>, Unreadable> {
    records(kind, framed, ROOM, object, &[])
}

/// RecordIO as MXNet writes it: data that holds the mark at a multiple of four is cut there.
pub(crate) fn record_io(data: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at + 4 <= data.len() {
        if data[at..at + 4] == MAGIC {
            parts.push(&data[start..at]);
            start = at + 4;
        }
        at += 4;
    }
    parts.push(&data[start..]);
    let mut all = Vec::new();
    let last = parts.len() - 1;
    for (n, part) in parts.iter().enumerate() {
        let flag: u32 = match (n, last) {
            (0, 0) => 0,
            (0, _) => 1,
            (n, last) if n == last => 3,
            _ => 2,
        };
        all.extend_from_slice(&MAGIC);
        all.extend_from_slice(&(flag << 29 | u32::try_from(part.len()).unwrap()).to_le_bytes());
        all.extend_from_slice(part);
        all.resize(all.len() + padding(part.len()), 0);
    }
    all
}

pub(crate) fn tf_record(data: &[u8]) -> Vec<u8> {
    let length = u64::try_from(data.len()).unwrap().to_le_bytes();
    let mut all = length.to_vec();
    all.extend_from_slice(&masked(&length).to_le_bytes());
    all.extend_from_slice(data);
    all.extend_from_slice(&masked(data).to_le_bytes());
    all
}

/// Proves: CC-68
#[test]
fn lines_end_at_newlines_and_the_last_one_needs_none() {
    let lines = |object: &str| {
        let all = whole(SplitType::Line, false, object.as_bytes()).unwrap();
        all.into_iter()
            .map(|line| String::from_utf8(line).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines("a\nb\n"), ["a", "b"]);
    assert_eq!(lines("a\nb"), ["a", "b"]);
    assert_eq!(lines("a\n\nb\n"), ["a", "", "b"]);
    assert_eq!(lines("\n"), [""]);
    assert!(lines("").is_empty());
    assert_eq!(
        whole(SplitType::None, false, b"a\nb\n").unwrap(),
        [b"a\nb\n"],
        "not split"
    );
}

/// Proves: CC-68
#[test]
fn frames_go_with_single_records_and_stay_with_several() {
    // The checksum of TensorFlow's own writer for an empty length: a known value.
    assert_eq!(masked(&[]).to_be_bytes(), 0xa282_ead8_u32.to_be_bytes());
    assert_eq!(
        masked(b"123456789"),
        0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8)
    );
    for (kind, frame) in [
        (SplitType::RecordIo, record_io as fn(&[u8]) -> Vec<u8>),
        (SplitType::TfRecord, tf_record),
    ] {
        let object = [frame(b"one"), frame(b""), frame(b"three")].concat();
        assert_eq!(
            whole(kind, false, &object).unwrap(),
            [b"one".to_vec(), vec![], b"three".to_vec()]
        );
        assert_eq!(
            whole(kind, true, &object).unwrap(),
            [frame(b"one"), frame(b""), frame(b"three")]
        );
        assert!(whole(kind, true, b"").unwrap().is_empty());
    }
    let cut = [&b"abcd"[..], &MAGIC, b"efgh", &MAGIC].concat();
    let object = [record_io(&cut), record_io(b"x")].concat();
    assert_eq!(
        whole(SplitType::RecordIo, false, &object).unwrap(),
        [cut.clone(), b"x".to_vec()]
    );
    assert_eq!(
        whole(SplitType::RecordIo, true, &object).unwrap(),
        [record_io(&cut), record_io(b"x")]
    );
}

/// Proves: CC-68, CC-69
#[test]
fn damage_and_excess_are_told() {
    let mut object = tf_record(b"data");
    object[13] ^= 1;
    assert!(matches!(
        whole(SplitType::TfRecord, false, &object),
        Err(Unreadable::Format("TFRecord", _))
    ));
    object[0] ^= 1;
    assert!(matches!(
        whole(SplitType::TfRecord, true, &object),
        Err(Unreadable::Format("TFRecord", _))
    ));
    assert!(matches!(
        whole(SplitType::RecordIo, true, b"not a record"),
        Err(Unreadable::Format("RecordIO", _))
    ));
    let mut middle = record_io(b"data");
    middle[7] |= 2 << 5;
    assert!(matches!(
        whole(SplitType::RecordIo, false, &middle),
        Err(Unreadable::Format("RecordIO", _))
    ));
    for (kind, object) in [
        (SplitType::RecordIo, record_io(b"data")),
        (SplitType::TfRecord, tf_record(b"data")),
    ] {
        for cut in 1..object.len() {
            assert_eq!(
                whole(kind, false, &object[..cut]),
                Err(Unreadable::Truncated),
                "{kind:?} {cut}"
            );
        }
        assert_eq!(records(kind, false, 3, &object, &[]), Err(Unreadable::TooLarge(3)));
        assert!(records(kind, false, 4, &object, &[]).is_ok(), "control");
    }
    for kind in [SplitType::None, SplitType::Line] {
        assert_eq!(records(kind, false, 3, b"four", &[2]), Err(Unreadable::TooLarge(3)));
        assert_eq!(records(kind, false, 3, b"four\n", &[]), Err(Unreadable::TooLarge(3)));
        assert!(records(kind, false, 5, b"four\n", &[2]).is_ok(), "control");
    }
}

fn kinds() -> impl Strategy<Value = SplitType> {
    prop_oneof![
        Just(SplitType::None),
        Just(SplitType::Line),
        Just(SplitType::RecordIo),
        Just(SplitType::TfRecord)
    ]
}

proptest! {
    /// However an object arrives, its records are the same.
    #[test]
    fn records_do_not_depend_on_pieces(
        kind in kinds(),
        framed: bool,
        data in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..40), 0..8),
        sizes in prop::collection::vec(1usize..20, 1..8),
        cut in 0usize..200,
    ) {
        let object: Vec<u8> = match kind {
            SplitType::None | SplitType::Line => data.join(&b'\n'),
            SplitType::RecordIo => data.iter().flat_map(|one| record_io(one)).collect(),
            SplitType::TfRecord => data.iter().flat_map(|one| tf_record(one)).collect(),
        };
        let object = &object[..cut.min(object.len())];
        prop_assert_eq!(records(kind, framed, 60, object, &sizes), records(kind, framed, 60, object, &[]));
    }

    /// What was framed comes out, the mark in it or not.
    #[test]
    fn frames_are_taken_off_again(data in prop::collection::vec(
        prop::collection::vec(prop_oneof![3 => any::<u8>().prop_map(|b| vec![b]), 1 => Just(MAGIC.to_vec())], 0..12), 0..6))
    {
        let data: Vec<Vec<u8>> = data.into_iter().map(|parts| parts.concat()).collect();
        let object: Vec<u8> = data.iter().flat_map(|one| record_io(one)).collect();
        prop_assert_eq!(whole(SplitType::RecordIo, false, &object).unwrap(), data.clone());
        let object: Vec<u8> = data.iter().flat_map(|one| tf_record(one)).collect();
        prop_assert_eq!(whole(SplitType::TfRecord, false, &object).unwrap(), data);
    }

    /// Strangers' bytes break nothing.
    #[test]
    fn any_bytes_are_cut_or_refused(kind in kinds(), framed: bool, object: Vec<u8>, sizes in prop::collection::vec(1usize..9, 1..3)) {
        let _ = records(kind, framed, 16, &object, &sizes);
    }
}
