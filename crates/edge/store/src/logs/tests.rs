use super::*;
use crate::Database;
use std::sync::Arc;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const ANY: TimeRange = TimeRange { start: None, end: None };

fn open(dir: &tempfile::TempDir) -> DiskLogs {
    let database = Arc::new(Database::open(&dir.path().join("state.db"), &[disk::SCHEMA]).unwrap());
    DiskLogs::open(database, &dir.path().join("logs")).unwrap()
}

fn group() -> GroupName {
    let scope = isolarium_model::Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    };
    GroupName::new(&scope, "/aws/sagemaker/TrainingJobs")
}

fn event(time: i64, message: impl Into<String>) -> LogEvent {
    LogEvent {
        timestamp: Timestamp(time),
        message: message.into(),
    }
}

fn texts(events: &[StoredEvent]) -> Vec<&str> {
    events.iter().map(|e| e.event.message.as_str()).collect()
}

fn filter_all(logs: &DiskLogs, mut query: FilterQuery) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = logs.filter(&group(), &query, NOW).unwrap();
        pages.push(page.events.iter().map(|e| e.event.message.clone()).collect());
        assert!(pages.len() < 1000, "the tokens go in a circle");
        match page.next {
            Some(next) => query.after = Some(next),
            None => return pages,
        }
    }
}

fn looking_for(pattern: &str) -> FilterQuery {
    FilterQuery {
        streams: Vec::new(),
        stream_prefix: None,
        range: ANY,
        pattern: Pattern::parse(pattern).unwrap(),
        after: None,
        limit: PAGE_EVENTS,
    }
}

/// Proves: IAM-66, CC-92
#[test]
fn a_stream_is_read_forward_and_backward_and_the_same_token_means_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    logs.ensure_stream(&group(), "job/algo-1", NOW).unwrap();
    let read = |from: &ReadFrom, limit| logs.read(&group(), "job/algo-1", from, ANY, limit, NOW).unwrap();
    let empty = read(&ReadFrom::Head, 10);
    assert!(empty.events.is_empty());
    for n in 0..10 {
        logs.append(&group(), "job/algo-1", &[event(n / 3, format!("line {n}"))], NOW)
            .unwrap();
    }
    assert_eq!(
        read(&ReadFrom::Token(empty.forward), 10).events.len(),
        10,
        "a token taken while empty sees what comes"
    );
    let first = read(&ReadFrom::Head, 4);
    assert_eq!(texts(&first.events), ["line 0", "line 1", "line 2", "line 3"]);
    let second = read(&ReadFrom::Token(first.forward.clone()), 100);
    assert_eq!(second.events.len(), 6);
    let end = read(&ReadFrom::Token(second.forward.clone()), 100);
    assert!(end.events.is_empty());
    assert_eq!(end.forward, second.forward);
    assert_eq!(
        texts(&read(&ReadFrom::Token(end.backward), 2).events),
        ["line 8", "line 9"]
    );
    let tail = read(&ReadFrom::Tail, 3);
    assert_eq!(texts(&tail.events), ["line 7", "line 8", "line 9"]);
    let before = read(&ReadFrom::Token(tail.backward), 3);
    assert_eq!(texts(&before.events), ["line 4", "line 5", "line 6"]);
    let top = read(
        &ReadFrom::Token(read(&ReadFrom::Token(before.backward), 10).backward),
        10,
    );
    assert!(top.events.is_empty());
    assert_eq!(texts(&read(&ReadFrom::Token(top.forward), 1).events), ["line 0"]);
    logs.append(&group(), "job/algo-1", &[event(9, "later")], NOW).unwrap();
    assert_eq!(
        texts(&read(&ReadFrom::Token(end.forward), 10).events),
        ["later"],
        "following picks up what is new"
    );
    for bad in ["", "x/1.2", "f/1", "f/a.b", "f/1.2.3"] {
        let outcome = logs.read(&group(), "job/algo-1", &ReadFrom::Token(bad.into()), ANY, 1, NOW);
        assert!(matches!(outcome, Err(LogError::BadToken)), "{bad}");
    }
}

/// Proves: IAM-66
#[test]
fn a_time_range_includes_its_start_and_excludes_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    logs.ensure_stream(&group(), "s", NOW).unwrap();
    let events: Vec<_> = (0..5).map(|n| event(n * 10, n.to_string())).collect();
    logs.append(&group(), "s", &events, NOW).unwrap();
    let range = TimeRange {
        start: Some(Timestamp(10)),
        end: Some(Timestamp(30)),
    };
    for from in [ReadFrom::Head, ReadFrom::Tail] {
        assert_eq!(
            texts(&logs.read(&group(), "s", &from, range, 10, NOW).unwrap().events),
            ["1", "2"],
            "{from:?}"
        );
    }
    assert_eq!(
        filter_all(
            &logs,
            FilterQuery {
                range,
                ..looking_for("")
            }
        ),
        [["1", "2"]]
    );
}

#[test]
fn events_that_arrive_out_of_order_are_read_in_order_of_time() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    logs.ensure_stream(&group(), "s", NOW).unwrap();
    let mut times: Vec<i64> = (0..400).map(|n| (n * 7919) % 400).collect();
    for chunk in times.chunks(3) {
        // Two thousand bytes each, so that many blocks overlap.
        let events: Vec<_> = chunk
            .iter()
            .map(|t| event(*t, format!("{t:04}{}", "x".repeat(2000))))
            .collect();
        logs.append(&group(), "s", &events, NOW).unwrap();
    }
    times.sort_unstable();
    for latest in [false, true] {
        let mut from = if latest { ReadFrom::Tail } else { ReadFrom::Head };
        let mut seen = Vec::new();
        loop {
            let page = logs.read(&group(), "s", &from, ANY, 37, NOW).unwrap();
            if page.events.is_empty() {
                break;
            }
            let mut page_times: Vec<_> = page.events.iter().map(|e| e.event.timestamp.0).collect();
            assert!(page_times.is_sorted());
            if latest {
                page_times.reverse();
            }
            seen.extend(page_times);
            from = ReadFrom::Token(if latest { page.backward } else { page.forward });
        }
        if latest {
            seen.reverse();
        }
        assert_eq!(seen, times, "latest first: {latest}");
    }
    assert_eq!(
        filter_all(
            &logs,
            FilterQuery {
                limit: 41,
                ..looking_for("")
            }
        )
        .concat()
        .len(),
        400
    );
}

/// Proves: IAM-66
#[test]
fn filtering_interleaves_streams_by_time_and_pages_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    for stream in ["a/1", "a/2", "b/1"] {
        logs.ensure_stream(&group(), stream, NOW).unwrap();
    }
    for n in 0..30 {
        let stream = ["a/1", "a/2", "b/1"][n % 3];
        let n = i64::try_from(n).unwrap();
        logs.append(
            &group(),
            stream,
            &[event(n, format!("{} {n}", if n % 2 == 0 { "even" } else { "odd" }))],
            NOW,
        )
        .unwrap();
    }
    let pages = filter_all(
        &logs,
        FilterQuery {
            limit: 4,
            ..looking_for("even")
        },
    );
    let wanted: Vec<String> = (0..30).step_by(2).map(|n| format!("even {n}")).collect();
    assert_eq!(pages.concat(), wanted);
    assert!(pages.iter().all(|page| page.len() <= 4));
    let one = filter_all(
        &logs,
        FilterQuery {
            streams: vec!["b/1".into()],
            ..looking_for("")
        },
    );
    assert_eq!(one.concat().len(), 10);
    let two = filter_all(
        &logs,
        FilterQuery {
            stream_prefix: Some("a/".into()),
            ..looking_for("odd")
        },
    );
    assert_eq!(two.concat().len(), 10);
    let missing = logs.filter(
        &group(),
        &FilterQuery {
            streams: vec!["c".into()],
            ..looking_for("")
        },
        NOW,
    );
    assert!(matches!(missing, Err(LogError::NoStream)));
    let page = logs.filter(&group(), &looking_for(""), NOW).unwrap();
    let ids: Vec<_> = page.events.iter().map(|e| e.id.clone()).collect();
    assert!(ids.is_sorted() && ids.iter().all(|id| id.len() == 56));
    assert_eq!(page.next, None, "a token only where there is more");
}

#[test]
fn a_page_ends_at_a_megabyte_and_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    logs.ensure_stream(&group(), "s", NOW).unwrap();
    for n in 0..12 {
        logs.append(&group(), "s", &[event(n, "x".repeat(250_000))], NOW)
            .unwrap();
    }
    let page = logs.read(&group(), "s", &ReadFrom::Head, ANY, 100, NOW).unwrap();
    assert_eq!(page.events.len(), 4);
    let rest = logs
        .read(&group(), "s", &ReadFrom::Token(page.forward), ANY, 100, NOW)
        .unwrap();
    assert_eq!(rest.events[0].event.timestamp, Timestamp(4));
    assert_eq!(
        filter_all(&logs, looking_for(""))
            .iter()
            .map(Vec::len)
            .collect::<Vec<_>>(),
        [4, 4, 4]
    );
}

/// Proves: CC-91
#[test]
fn a_source_is_ingested_exactly_once_whatever_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    logs.ensure_stream(&group(), "s", NOW).unwrap();
    let take = |from, to, text: &str| {
        logs.append_from(
            &group(),
            "s",
            &Source {
                id: "w-1/stdout",
                from,
                to,
            },
            &[event(1, text)],
            NOW,
        )
        .unwrap()
    };
    assert_eq!(logs.source_offset("w-1/stdout").unwrap(), 0);
    assert_eq!(take(0, 5, "one"), 5);
    assert_eq!(take(0, 5, "one"), 5, "repeated after a crash");
    assert_eq!(take(3, 9, "torn"), 5, "not where the source is");
    assert_eq!(take(5, 9, "two"), 9);
    assert_eq!(
        texts(&logs.read(&group(), "s", &ReadFrom::Head, ANY, 10, NOW).unwrap().events),
        ["one", "two"]
    );
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(take(9, 12, "three"), 12));
        }
    });
    assert_eq!(
        logs.read(&group(), "s", &ReadFrom::Head, ANY, 10, NOW)
            .unwrap()
            .events
            .len(),
        3
    );
    logs.forget_source("w-1/stdout").unwrap();
    assert_eq!(logs.source_offset("w-1/stdout").unwrap(), 0);
}

#[test]
fn bytes_of_an_append_that_was_never_acknowledged_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    logs.ensure_stream(&group(), "s", NOW).unwrap();
    logs.append(&group(), "s", &[event(1, "kept")], NOW).unwrap();
    let folder = std::fs::read_dir(dir.path().join("logs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend_from_slice(b"half an event from a crash");
    std::fs::write(&file, bytes).unwrap();
    drop(logs);
    let logs = open(&dir);
    logs.append(&group(), "s", &[event(2, "next")], NOW).unwrap();
    assert_eq!(
        texts(&logs.read(&group(), "s", &ReadFrom::Head, ANY, 10, NOW).unwrap().events),
        ["kept", "next"]
    );
}

#[test]
fn concurrent_appends_to_one_stream_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    logs.ensure_stream(&group(), "s", NOW).unwrap();
    std::thread::scope(|scope| {
        for t in 0..4 {
            let logs = &logs;
            scope.spawn(move || {
                for n in 0..20 {
                    logs.append(&group(), "s", &[event(n, format!("{t}-{n}"))], NOW)
                        .unwrap();
                }
            });
        }
    });
    let page = logs.read(&group(), "s", &ReadFrom::Head, ANY, 1000, NOW).unwrap();
    let mut seen = texts(&page.events);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 80);
}

/// Proves: IAM-66
#[test]
fn retention_hides_old_events_at_once_and_pruning_frees_their_segments() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    logs.ensure_stream(&group(), "s", NOW).unwrap();
    let old = NOW.0 - 3 * 86_400_000;
    for _ in 0..10 {
        let events: Vec<_> = (0..5).map(|_| event(old, "y".repeat(200_000))).collect();
        logs.append(&group(), "s", &events, NOW).unwrap();
    }
    logs.append(&group(), "s", &[event(NOW.0, "new")], NOW).unwrap();
    assert_eq!(logs.prune(NOW).unwrap(), 0, "control: without retention nothing goes");
    assert!(filter_all(&logs, looking_for("")).concat().len() > 50);
    logs.set_retention(&group(), Some(1)).unwrap();
    assert_eq!(filter_all(&logs, looking_for("")), [["new"]]);
    assert_eq!(
        texts(&logs.read(&group(), "s", &ReadFrom::Head, ANY, 10, NOW).unwrap().events),
        ["new"]
    );
    assert!(logs.prune(NOW).unwrap() > 8 << 20);
    assert_eq!(filter_all(&logs, looking_for("")), [["new"]]);
    logs.set_retention(&group(), None).unwrap();
    assert!(
        logs.read(&group(), "s", &ReadFrom::Head, ANY, 100, NOW).is_ok(),
        "what is pruned is gone, not an error"
    );
}

/// Proves: IAM-66
#[test]
fn groups_and_streams_are_made_once_listed_in_pages_and_removed_with_their_events() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    let none = BTreeMap::new();
    logs.create_group(&group(), &BTreeMap::from([("team".into(), "ml".into())]), NOW)
        .unwrap();
    assert!(matches!(logs.create_group(&group(), &none, NOW), Err(LogError::Exists)));
    let other = GroupName::new(&group().scope, "/aws/other");
    assert!(matches!(logs.create_stream(&other, "s", NOW), Err(LogError::NoGroup)));
    logs.create_group(&other, &none, NOW).unwrap();
    let query = GroupQuery {
        prefix: Some("/aws/".into()),
        contains: None,
        after: None,
        limit: 1,
    };
    let first = logs.groups(&group().scope, &query).unwrap();
    assert_eq!((first.rows[0].name.clone(), first.more), (other.clone(), true));
    let query = GroupQuery {
        after: Some("/aws/other".into()),
        ..query
    };
    let second = logs.groups(&group().scope, &query).unwrap();
    assert_eq!((second.rows[0].name.clone(), second.more), (group(), false));
    let query = GroupQuery {
        prefix: None,
        contains: Some("TRAININGj".into()),
        after: None,
        limit: 5,
    };
    assert_eq!(logs.groups(&group().scope, &query).unwrap().rows.len(), 1);
    logs.tag(&group(), &BTreeMap::from([("a".into(), "1".into())]), &["team".into()])
        .unwrap();
    assert_eq!(
        logs.group(&group()).unwrap().unwrap().tags,
        BTreeMap::from([("a".into(), "1".into())])
    );
    for (n, stream) in ["j/b", "j/a", "k"].into_iter().enumerate() {
        logs.create_stream(&group(), stream, NOW).unwrap();
        assert!(matches!(
            logs.create_stream(&group(), stream, NOW),
            Err(LogError::Exists)
        ));
        logs.append(&group(), stream, &[event(10 * i64::try_from(n).unwrap() + 1, "x")], NOW)
            .unwrap();
    }
    let list = |by_last_event, descending, prefix: Option<&str>| {
        let mut names = Vec::new();
        let mut query = StreamQuery {
            prefix: prefix.map(Into::into),
            by_last_event,
            descending,
            after: None,
            limit: 2,
        };
        loop {
            let page = logs.streams(&group(), &query).unwrap();
            let last = page.rows.last().cloned();
            names.extend(page.rows.into_iter().map(|s| s.name.to_string()));
            match last.filter(|_| page.more) {
                Some(s) => {
                    query.after = Some(StreamPosition {
                        last_event: s.last_event.map_or(0, |t| t.0),
                        name: s.name.to_string(),
                    });
                }
                None => return names,
            }
        }
    };
    assert_eq!(list(false, false, None), ["j/a", "j/b", "k"]);
    assert_eq!(list(false, true, None), ["k", "j/b", "j/a"]);
    assert_eq!(list(true, false, None), ["j/b", "j/a", "k"]);
    assert_eq!(list(true, true, None), ["k", "j/a", "j/b"]);
    assert_eq!(list(false, false, Some("j/")), ["j/a", "j/b"]);
    logs.delete_stream(&group(), "k").unwrap();
    assert!(matches!(
        logs.append(&group(), "k", &[event(1, "x")], NOW),
        Err(LogError::NoStream)
    ));
    logs.delete_group(&group()).unwrap();
    assert!(matches!(
        logs.read(&group(), "j/a", &ReadFrom::Head, ANY, 1, NOW),
        Err(LogError::NoGroup)
    ));
    assert_eq!(
        std::fs::read_dir(dir.path().join("logs")).unwrap().count(),
        0,
        "no segment is left over"
    );
    assert!(logs.group(&other).unwrap().is_some(), "control: the other group stays");
}

#[test]
fn folders_of_streams_that_were_forgotten_before_a_crash_are_swept_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open(&dir);
    logs.ensure_stream(&group(), "s", NOW).unwrap();
    logs.append(&group(), "s", &[event(1, "x")], NOW).unwrap();
    let orphan = dir.path().join("logs/999");
    std::fs::create_dir(&orphan).unwrap();
    drop(logs);
    let logs = open(&dir);
    assert!(!orphan.exists());
    assert_eq!(
        logs.read(&group(), "s", &ReadFrom::Head, ANY, 1, NOW)
            .unwrap()
            .events
            .len(),
        1,
        "control"
    );
}
