use super::lines::Lines;
use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_123);

fn texts(records: &[u8]) -> Vec<String> {
    let mut rest = records;
    let mut found = Vec::new();
    while let Some((line, length)) = parse(rest) {
        assert_eq!(line.time, NOW);
        found.push(line.text);
        rest = &rest[length..];
    }
    assert!(rest.is_empty(), "torn record");
    found
}

/// Proves: CC-6
#[test]
fn lines_come_out_whole_however_the_bytes_arrive() {
    let text = "first\n\nthird, longer\nlast without newline";
    for size in 1..=text.len() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            lines.push(piece, NOW, &mut out);
        }
        lines.flush(NOW, &mut out);
        assert_eq!(
            texts(&out),
            ["first", "", "third, longer", "last without newline"],
            "pieces of {size}"
        );
    }
}

/// Proves: CC-6
#[test]
fn a_line_over_256_kib_is_split_between_characters() {
    let text = format!("{}é{}\nnext\n", "a".repeat(LONGEST_LINE - 1), "b".repeat(LONGEST_LINE));
    for size in [1 << 16, 65_521, text.len()] {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            lines.push(piece, NOW, &mut out);
        }
        let found = texts(&out);
        assert!(
            found
                .iter()
                .all(|line| line.len() <= LONGEST_LINE && !line.contains('\u{fffd}'))
        );
        assert_eq!(found.last().unwrap(), "next");
        assert_eq!(found[..found.len() - 1].concat() + "\nnext\n", text);
    }
    let (mut lines, mut out) = (Lines::default(), Vec::new());
    lines.push(format!("{}\n", "a".repeat(LONGEST_LINE)).as_bytes(), NOW, &mut out);
    assert_eq!(texts(&out).len(), 1, "exactly 256 KiB is one line");
}

fn write_lines(writer: &mut Writer, numbers: std::ops::Range<u32>) {
    let (mut lines, mut out) = (Lines::default(), Vec::new());
    for number in numbers {
        lines.push(
            format!("line {number} {}\n", "x".repeat(1000)).as_bytes(),
            NOW,
            &mut out,
        );
    }
    writer.append(&mut out).unwrap();
    assert!(out.is_empty());
}

fn read_all(folder: &Path, max: usize) -> Vec<String> {
    let (mut offset, mut found) = (0, Vec::new());
    loop {
        let chunk = read(folder, offset, max).unwrap();
        if chunk.lines.is_empty() {
            return found;
        }
        assert!(chunk.next > offset);
        offset = chunk.next;
        found.extend(
            chunk
                .lines
                .into_iter()
                .map(|line| line.text.split(' ').take(2).collect::<Vec<_>>().join(" ")),
        );
    }
}

#[test]
fn reading_in_pieces_gives_every_line_once_and_in_order_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path()).unwrap();
    for hundred in 0..100 {
        write_lines(&mut writer, hundred * 100..hundred * 100 + 100);
    }
    assert!(segments(folder.path()).unwrap().len() > 2, "the log rolled");
    let expected: Vec<String> = (0..10_000).map(|number| format!("line {number}")).collect();
    for max in [1, 5000, 1 << 20, 1 << 30] {
        assert_eq!(read_all(folder.path(), max), expected, "pieces of {max}");
    }
}

#[test]
fn a_record_that_a_crash_cut_off_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path()).unwrap();
    write_lines(&mut writer, 0..3);
    let path = segment_path(folder.path(), 0);
    let whole = fs::metadata(&path).unwrap().len();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(whole - 5)
        .unwrap();
    assert_eq!(read_all(folder.path(), 1 << 20), ["line 0", "line 1"]);
}

#[test]
fn segments_far_behind_the_reader_go_and_a_reader_far_behind_makes_the_writer_wait() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path()).unwrap();
    let mut total = 0;
    while writer.end() < AHEAD_FOR_TEST {
        assert!(!writer.must_wait(), "at {}", writer.end());
        write_lines(&mut writer, total..total + 8000);
        total += 8000;
    }
    assert!(writer.must_wait(), "control: nobody has read");
    assert_eq!(segments(folder.path()).unwrap()[0], 0, "nothing unread was dropped");
    mark_read(folder.path(), writer.end()).unwrap();
    assert!(!writer.must_wait());
    write_lines(&mut writer, 0..5000);
    let oldest = segments(folder.path()).unwrap()[0];
    assert!(
        oldest > 0 && writer.end() - oldest >= 16 << 20,
        "a margin stays for a reader that crashed"
    );
}

const AHEAD_FOR_TEST: u64 = 256 << 20;
