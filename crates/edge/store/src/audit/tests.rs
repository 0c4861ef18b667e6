use super::*;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub(super) struct At(AtomicI64);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

pub(super) fn clock() -> Arc<At> {
    Arc::new(At(AtomicI64::new(NOW.0)))
}

fn small() -> AuditSettings {
    AuditSettings {
        file_bytes: 2500,
        ..AuditSettings::default()
    }
}

pub(super) fn event(n: u64) -> AuditEvent<'static> {
    AuditEvent {
        event_source: "sagemaker.amazonaws.com".into(),
        event_name: "CreateModel".into(),
        aws_region: "us-east-1".into(),
        recipient_account_id: "123456789012".into(),
        request_id: format!("request-{n}").into(),
        resources: vec![EventResource {
            arn: format!("arn:aws:sagemaker:us-east-1:123456789012:model/m{n}"),
            account_id: Some("123456789012".into()),
            kind: Some("AWS::SageMaker::Model".into()),
        }],
        ..AuditEvent::api_call(Timestamp(NOW.0 + i64::try_from(n).unwrap()))
    }
}

fn open(folder: &Path) -> AuditTrail {
    AuditTrail::open(folder, small(), clock()).unwrap()
}

/// A trail of twenty events in several files.
fn trail(folder: &Path) -> Head {
    let trail = open(folder);
    for n in 0..20 {
        trail.submit(event(n), Keep::Change).wait().unwrap();
    }
    trail.head()
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let mut lines: Vec<String> = fs::read_to_string(path).unwrap().lines().map(Into::into).collect();
    change(&mut lines);
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

pub(super) fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(folder).unwrap() {
        for line in fs::read_to_string(path).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            found.push(line["event"]["eventName"].as_str().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn the_chain_goes_on_across_files_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let head = trail(dir.path());
    assert!(files(dir.path()).unwrap().len() > 2);
    let whole = verify(dir.path(), None).unwrap();
    assert_eq!((whole.head.clone(), whole.first, whole.torn), (head.clone(), 0, 0));
    assert_eq!(head.events, 20);
    let again = open(dir.path());
    assert_eq!(again.head(), head);
    again.submit(event(20), Keep::Change).wait().unwrap();
    assert_eq!(verify(dir.path(), None).unwrap().head.events, 21);
    assert_eq!(verify(dir.path(), Some(&head.hash)).unwrap().head, again.head());
}

#[test]
fn every_change_of_the_past_is_noticed() {
    type Change = Box<dyn Fn(&[PathBuf])>;
    let changes: Vec<(&str, Change)> = vec![
        (
            "an edited event",
            Box::new(|f| edit(&f[0], |l| l[1] = l[1].replace("CreateModel", "DeleteModel"))),
        ),
        (
            "an edited time",
            Box::new(|f| edit(&f[0], |l| l[1] = l[1].replace("\"at\":17", "\"at\":16"))),
        ),
        (
            "an engine's part added",
            Box::new(|f| edit(&f[0], |l| l[1] = l[1].replace(",\"hash\"", ",\"engine\":{},\"hash\""))),
        ),
        ("a removed line", Box::new(|f| edit(&f[0], |l| drop(l.remove(1))))),
        ("a removed first line", Box::new(|f| edit(&f[0], |l| drop(l.remove(0))))),
        ("swapped lines", Box::new(|f| edit(&f[1], |l| l.swap(0, 1)))),
        (
            "a repeated line",
            Box::new(|f| edit(&f[1], |l| l.insert(1, l[0].clone()))),
        ),
        ("a removed file", Box::new(|f| fs::remove_file(&f[1]).unwrap())),
        ("a removed first file", Box::new(|f| fs::remove_file(&f[0]).unwrap())),
        ("a shortened middle file", Box::new(|f| edit(&f[1], |l| drop(l.pop())))),
        ("nonsense", Box::new(|f| edit(&f[0], |l| l[0] = "{}".into()))),
    ];
    for (name, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        trail(dir.path());
        assert!(verify(dir.path(), None).is_ok(), "control");
        change(&files(dir.path()).unwrap());
        let found = verify(dir.path(), None);
        assert!(matches!(found, Err(AuditError::Broken { .. })), "{name}: {found:?}");
    }
}

#[test]
fn a_broken_last_file_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    trail(dir.path());
    let last = files(dir.path()).unwrap().pop().unwrap();
    drop(open(dir.path()));
    edit(&last, |lines| lines[0] = lines[0].replace("CreateModel", "DeleteModel"));
    let outcome = AuditTrail::open(dir.path(), small(), clock());
    assert!(matches!(outcome, Err(AuditError::Broken { line: 1, .. })));
}

#[test]
fn a_line_that_a_crash_cut_short_is_dropped_said_so_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let head = trail(dir.path());
    let last = files(dir.path()).unwrap().pop().unwrap();
    let mut file = OpenOptions::new().append(true).open(&last).unwrap();
    file.write_all(b"{\"n\":20,\"at\":17000").unwrap();
    let seen = verify(dir.path(), None).unwrap();
    assert_eq!((seen.head, seen.torn), (head, 18));
    let again = open(dir.path());
    again.submit(event(20), Keep::Change).wait().unwrap();
    assert_eq!(verify(dir.path(), None).unwrap().head.events, 22);
    let told = names(dir.path());
    assert_eq!(told[19..], ["CreateModel", "TrailRecovered", "CreateModel"]);
    drop(again);
    drop(open(dir.path()));
    assert_eq!(
        verify(dir.path(), None).unwrap().head.events,
        22,
        "control: a whole trail needs no recovery"
    );
}

#[test]
fn cutting_off_the_end_is_noticed_by_whoever_kept_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let head = trail(dir.path());
    assert!(verify(dir.path(), Some(&head.hash)).is_ok(), "control");
    edit(&files(dir.path()).unwrap().pop().unwrap(), |lines| drop(lines.pop()));
    assert!(verify(dir.path(), None).is_ok());
    assert!(matches!(
        verify(dir.path(), Some(&head.hash)),
        Err(AuditError::Unknown { .. })
    ));
}

#[test]
fn the_retention_removes_whole_files_and_the_trail_still_proves_itself() {
    let dir = tempfile::tempdir().unwrap();
    trail(dir.path());
    let clock = clock();
    let again = AuditTrail::open(dir.path(), small(), clock.clone()).unwrap();
    assert_eq!(
        again.prune(Duration::from_secs(60)).unwrap(),
        0,
        "control: nothing is old"
    );
    let before = files(dir.path()).unwrap();
    clock.0.store(NOW.0 + 61_000, Ordering::SeqCst);
    let gone = again.prune(Duration::from_secs(60)).unwrap();
    assert!(gone >= 2 && gone < u64::try_from(before.len()).unwrap());
    let seen = verify(dir.path(), None).unwrap();
    assert!(seen.first > 0);
    assert_eq!(seen.head.events, 21);
    assert_eq!(names(dir.path()).last().unwrap(), PRUNED);
    again.submit(event(21), Keep::Change).wait().unwrap();
    drop(again);
    let again = open(dir.path());
    again.submit(event(22), Keep::Change).wait().unwrap();
    assert_eq!(verify(dir.path(), None).unwrap().head.events, 23);
    // Somebody else's removal has no record.
    fs::remove_file(&files(dir.path()).unwrap()[0]).unwrap();
    assert!(matches!(verify(dir.path(), None), Err(AuditError::Broken { .. })));
}

#[test]
fn a_caller_cannot_write_a_record_of_removal() {
    let dir = tempfile::tempdir().unwrap();
    let forged = open(dir.path());
    for n in 0..20 {
        forged.submit(event(n), Keep::Change).wait().unwrap();
    }
    let second = files(dir.path()).unwrap().remove(1);
    let (first_kept, (_, previous)) = (first_event(&second).unwrap(), first_of(&second).unwrap().unwrap());
    let details = serde_json::json!({"firstKept": first_kept, "previous": previous, "files": 1});
    let parameters = serde_json::value::to_raw_value(&serde_json::json!({
        "eventType": "AwsServiceEvent", "eventName": PRUNED, "serviceEventDetails": details,
    }));
    let text = format!("{{\"eventName\":\"{PRUNED}\",\"eventType\":\"AwsServiceEvent\"}}");
    let event = AuditEvent {
        request_parameters: Some(parameters.unwrap()),
        event_name: text.into(),
        ..event(20)
    };
    forged.submit(event, Keep::Change).wait().unwrap();
    fs::remove_file(&files(dir.path()).unwrap()[0]).unwrap();
    assert!(matches!(verify(dir.path(), None), Err(AuditError::Broken { .. })));
}

#[test]
fn many_threads_write_one_chain_and_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let trail = AuditTrail::open(
        dir.path(),
        AuditSettings {
            queue_bytes: 8 << 10,
            ..small()
        },
        clock(),
    )
    .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let trail = &trail;
            scope.spawn(move || {
                for n in 0..100 {
                    let keep = [Keep::Later, Keep::Refusal, Keep::Change][usize::try_from(n % 3).unwrap()];
                    trail.submit(event(thread * 1000 + n), keep).wait().unwrap();
                }
            });
        }
    });
    drop(trail);
    assert_eq!(verify(dir.path(), None).unwrap().head.events, 800);
}

#[test]
fn a_change_is_with_the_kernel_when_its_receipt_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let trail = open(dir.path());
    for n in 0..50 {
        trail.submit(event(n), Keep::Change).wait().unwrap();
        let last = files(dir.path()).unwrap().pop().unwrap();
        assert!(fs::read_to_string(last).unwrap().contains(&format!("\"request-{n}\"")));
    }
}

fn lookup(attribute: Option<Attribute>) -> Lookup {
    Lookup {
        account: "123456789012".into(),
        region: "us-east-1".into(),
        attribute,
        from: Timestamp(0),
        to: Timestamp(i64::MAX),
        before: None,
        limit: 50,
    }
}

fn requests(found: &[Recorded]) -> Vec<String> {
    let id = |found: &Recorded| {
        let event: serde_json::Value = serde_json::from_str(&found.event).unwrap();
        event["requestID"].as_str().unwrap().to_owned()
    };
    found.iter().map(id).collect()
}

#[test]
fn what_nobody_waited_for_is_found_as_soon_as_somebody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let trail = open(dir.path());
    // Reads linger for company: each question finds the one before it all the same.
    for n in 0..20 {
        trail.submit(event(n), Keep::Later).wait().unwrap();
        let found = requests(&trail.lookup(&lookup(None)).unwrap());
        assert_eq!(found.first(), Some(&format!("request-{n}")));
        assert_eq!(trail.request(&format!("request-{n}")).unwrap().len(), 1);
    }
}

#[test]
fn events_are_found_by_their_attributes_newest_first_across_files_restarts_and_a_lost_index() {
    let dir = tempfile::tempdir().unwrap();
    let trail = open(dir.path());
    for n in 0..10 {
        trail.submit(event(n), Keep::Change).wait().unwrap();
    }
    let other = |change: &dyn Fn(&mut AuditEvent<'_>)| {
        let mut other = event(50);
        change(&mut other);
        trail.submit(other, Keep::Change).wait().unwrap();
    };
    other(&|e| e.recipient_account_id = "210987654321".into());
    other(&|e| e.aws_region = "eu-west-1".into());
    other(&|e| *e = e.clone().as_data());
    let all = trail.lookup(&lookup(None)).unwrap();
    assert_eq!(
        requests(&all),
        (0..10).rev().map(|n| format!("request-{n}")).collect::<Vec<_>>()
    );
    let one = |trail: &AuditTrail, attribute| requests(&trail.lookup(&lookup(Some(attribute))).unwrap());
    assert_eq!(one(&trail, Attribute::ResourceName("m4".into())), ["request-4"]);
    let arn = "arn:aws:sagemaker:us-east-1:123456789012:model/m7";
    assert_eq!(one(&trail, Attribute::ResourceName(arn.into())), ["request-7"]);
    assert_eq!(
        one(&trail, Attribute::ResourceType("AWS::SageMaker::Model".into())).len(),
        10
    );
    assert_eq!(one(&trail, Attribute::EventName("CreateModel".into())).len(), 10);
    assert!(one(&trail, Attribute::EventName("DeleteModel".into())).is_empty());
    assert!(one(&trail, Attribute::ReadOnly(true)).is_empty());
    let page = Lookup {
        before: Some(all[2].n),
        limit: 2,
        ..lookup(None)
    };
    assert_eq!(requests(&trail.lookup(&page).unwrap()), ["request-6", "request-5"]);
    let span = Lookup {
        from: Timestamp(NOW.0 + 2),
        to: Timestamp(NOW.0 + 3),
        ..lookup(None)
    };
    assert_eq!(requests(&trail.lookup(&span).unwrap()), ["request-3", "request-2"]);
    drop(trail);
    for lost in [false, true] {
        if lost {
            for name in ["index.db", "index.db-wal", "index.db-shm"] {
                let _ = fs::remove_file(dir.path().join(name));
            }
        }
        let again = open(dir.path());
        assert_eq!(
            one(&again, Attribute::ResourceName("m4".into())),
            ["request-4"],
            "index lost: {lost}"
        );
    }
}

#[test]
fn denials_of_data_events_are_found_by_their_request_and_not_by_lookups() {
    let dir = tempfile::tempdir().unwrap();
    let trail = open(dir.path());
    let engine = |text: &str| Some(text.to_owned());
    let denied = AuditEvent {
        engine: engine(r#"{"decision":"deny"}"#),
        ..event(1)
    };
    let allowed = AuditEvent {
        engine: engine(r#"{"decision":"allow"}"#),
        ..event(2)
    };
    trail.submit(denied.as_data(), Keep::Refusal).wait().unwrap();
    trail.submit(allowed.as_data(), Keep::Change).wait().unwrap();
    let found = trail.request("request-1").unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].engine.as_deref(), Some(r#"{"decision":"deny"}"#));
    assert!(trail.request("request-2").unwrap().is_empty());
    assert!(trail.lookup(&lookup(None)).unwrap().is_empty());
}
