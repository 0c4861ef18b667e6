use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn event(n: u64) -> AuditEvent {
    AuditEvent {
        principal: "arn:aws:iam::123456789012:root".into(),
        action: "sagemaker:CreateModel".into(),
        resources: vec![format!("arn:aws:sagemaker:us-east-1:123456789012:model/m{n}")],
        error: None,
        request_id: n.to_string(),
        source_address: Some("127.0.0.1".into()),
    }
}

/// A trail of twenty events in several files.
fn trail(folder: &Path) -> Head {
    let trail = AuditTrail::with_file_size(folder, 1500).unwrap();
    (0..20).map(|n| trail.append(&event(n), NOW).unwrap()).last().unwrap()
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let mut lines: Vec<String> = fs::read_to_string(path).unwrap().lines().map(Into::into).collect();
    change(&mut lines);
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

#[test]
fn the_chain_goes_on_across_files_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let head = trail(dir.path());
    assert!(files(dir.path()).unwrap().len() > 2);
    assert_eq!(verify(dir.path()).unwrap(), head);
    assert_eq!(head.events, 20);
    let again = AuditTrail::with_file_size(dir.path(), 1500).unwrap();
    assert_eq!(again.head(), head);
    again.append(&event(20), NOW).unwrap();
    assert_eq!(verify(dir.path()).unwrap().events, 21);
}

#[test]
fn every_change_of_the_past_is_noticed() {
    type Change = Box<dyn Fn(&Path, &[PathBuf])>;
    let changes: Vec<(&str, Change)> = vec![
        (
            "an edited event",
            Box::new(|_, f| edit(&f[0], |l| l[1] = l[1].replace("CreateModel", "DeleteModel"))),
        ),
        (
            "an edited time",
            Box::new(|_, f| edit(&f[0], |l| l[1] = l[1].replace("\"at\":17", "\"at\":16"))),
        ),
        ("a removed line", Box::new(|_, f| edit(&f[0], |l| drop(l.remove(1))))),
        ("swapped lines", Box::new(|_, f| edit(&f[1], |l| l.swap(0, 1)))),
        (
            "a repeated line",
            Box::new(|_, f| edit(&f[1], |l| l.insert(1, l[0].clone()))),
        ),
        ("a removed file", Box::new(|_, f| fs::remove_file(&f[1]).unwrap())),
        ("a removed first file", Box::new(|_, f| fs::remove_file(&f[0]).unwrap())),
        (
            "a shortened middle file",
            Box::new(|_, f| edit(&f[1], |l| drop(l.pop()))),
        ),
        ("nonsense", Box::new(|_, f| edit(&f[0], |l| l[0] = "{}".into()))),
    ];
    for (name, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        trail(dir.path());
        assert!(verify(dir.path()).is_ok(), "control");
        change(dir.path(), &files(dir.path()).unwrap());
        assert!(matches!(verify(dir.path()), Err(AuditError::Broken { .. })), "{name}");
    }
}

#[test]
fn a_line_that_a_crash_cut_short_is_dropped_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let head = trail(dir.path());
    let last = files(dir.path()).unwrap().pop().unwrap();
    let mut file = OpenOptions::new().append(true).open(&last).unwrap();
    file.write_all(b"{\"n\":20,\"at\":17000").unwrap();
    assert_eq!(verify(dir.path()).unwrap(), head);
    let again = AuditTrail::open(dir.path()).unwrap();
    assert_eq!(again.append(&event(20), NOW).unwrap().events, 21);
    assert_eq!(verify(dir.path()).unwrap().events, 21);
}

#[test]
fn cutting_off_the_end_is_noticed_by_whoever_kept_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let head = trail(dir.path());
    edit(&files(dir.path()).unwrap().pop().unwrap(), |lines| drop(lines.pop()));
    assert_ne!(verify(dir.path()).unwrap(), head);
}
