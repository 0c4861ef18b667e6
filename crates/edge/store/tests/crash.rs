//! What was acknowledged survives `kill -9` at any moment: a child process commits records and ingests a log, is killed
//! in the middle, and what it leaves is compared with what it had acknowledged. The child is this test's own program,
//! started again for the same test with [`DIR`] set.

#![expect(clippy::unwrap_used, reason = "a failing step is a failing test")]

use isolarium_model::logs::{GroupName, LogEvent};
use isolarium_model::record::Facets;
use isolarium_model::time::Clock;
use isolarium_model::{Key, Record, Scope, Timestamp};
use isolarium_store::audit::{self, AuditEvent, AuditSettings, AuditTrail, Keep};
use isolarium_store::logs::{LogStore, ReadFrom, Source, TimeRange};
use isolarium_store::state::{SqliteState, sqlite};
use isolarium_store::{Batch, Database, DiskLogs, Expect, StateStore, logs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const DIR: &str = "ISOLARIUM_CRASH_DIR";
const SOURCE: &str = "w-1/stdout";

/// Two of these are committed together; they say the same or the batch was torn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Half {
    count: u64,
}

impl Record for Half {
    const KIND: &'static str = "test.half";
    fn facets(&self) -> Facets {
        let time = Timestamp(0);
        Facets {
            display_name: "half".into(),
            created: time,
            modified: time,
            status: String::new(),
        }
    }
}

/// The trail's clock.
struct Standing;

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }
}

fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

fn group() -> GroupName {
    GroupName::new(&scope(), "g")
}

fn open(dir: &Path) -> (SqliteState, DiskLogs) {
    let path = dir.join("state.db");
    let database = Arc::new(Database::open(&path, &[sqlite::SCHEMA, logs::disk::SCHEMA]).unwrap());
    (
        SqliteState::new(Arc::clone(&database)),
        DiskLogs::open(database, &dir.join("logs")).unwrap(),
    )
}

fn acknowledge(what: &str, count: u64) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\nack {what} {count}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Commits, ingests and records until it is killed, telling each success.
fn work(dir: &Path) -> ! {
    let (state, logs) = open(dir);
    logs.ensure_stream(&group(), "s", Timestamp(0)).unwrap();
    let trail = AuditTrail::open(&dir.join("audit"), AuditSettings::default(), Arc::new(Standing)).unwrap();
    std::thread::scope(|threads| {
        for thread in 0..2_u64 {
            let state = &state as &dyn StateStore;
            threads.spawn(move || {
                let [left, right] = ["l", "r"].map(|side| Key::exact(&scope(), &format!("{side}{thread}")));
                let mut count = state.get::<Half>(&left).unwrap().map_or(0, |half| half.record.count);
                loop {
                    count += 1;
                    let half = Half { count };
                    let batch = Batch::default().put(&left, Expect::Any, &half).unwrap();
                    state.commit(batch.put(&right, Expect::Any, &half).unwrap()).unwrap();
                    acknowledge(&format!("state{thread}"), count);
                }
            });
        }
        threads.spawn(|| {
            loop {
                let from = logs.source_offset(SOURCE).unwrap();
                let to = from + 3;
                let lines: Vec<LogEvent> = (from..to)
                    .map(|n| LogEvent {
                        timestamp: Timestamp(0),
                        message: n.to_string(),
                    })
                    .collect();
                let source = Source { id: SOURCE, from, to };
                logs.append_from(&group(), "s", &source, &lines, Timestamp(0)).unwrap();
                acknowledge("log", to);
            }
        });
        threads.spawn(|| {
            loop {
                let event = AuditEvent::api_call(Timestamp(0));
                trail.submit(event, Keep::Change).wait().unwrap();
                acknowledge("audit", trail.head().events);
            }
        });
    });
    unreachable!("a writer ends only by being killed or by a panic")
}

/// Runs the child until it has acknowledged `acks` things, kills it, and returns the last count of each kind.
fn run_and_kill(dir: &Path, acks: usize) -> BTreeMap<String, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "what_was_acknowledged_survives_kill_9_whole_and_once",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut last = BTreeMap::new();
    let mut seen = 0;
    // What was written to the pipe before the kill was acknowledged as well, so it is read to its end.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((what, count)) = line.strip_prefix("ack ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        // A line may be cut short by the kill; a shorter number only asks for less.
        let Ok(count) = count.parse::<u64>() else { continue };
        let known = last.entry(what.to_owned()).or_insert(0);
        *known = count.max(*known);
        seen += 1;
        if seen == acks {
            child.kill().unwrap(); // SIGKILL
        }
    }
    child.wait().unwrap();
    assert!(seen >= acks, "the child ended by itself after {seen} acknowledgements");
    last
}

#[test]
fn what_was_acknowledged_survives_kill_9_whole_and_once() {
    if let Some(dir) = std::env::var_os(DIR) {
        work(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 0..6_usize {
        let acknowledged = run_and_kill(dir.path(), 40 + round * 37);
        let known = |what: &str| acknowledged.get(what).copied().unwrap_or(0);
        let (state, logs) = open(dir.path());
        let state = &state as &dyn StateStore;
        for thread in 0..2 {
            let [left, right] = ["l", "r"].map(|side| {
                let key = Key::exact(&scope(), &format!("{side}{thread}"));
                state.get::<Half>(&key).unwrap().map(|half| half.record.count)
            });
            assert_eq!(left, right, "a batch is kept whole or not at all");
            assert!(
                left.unwrap_or(0) >= known(&format!("state{thread}")),
                "acknowledged and lost"
            );
        }
        let offset = logs.source_offset(SOURCE).unwrap();
        assert!(offset >= known("log"), "acknowledged and lost");
        let any = TimeRange { start: None, end: None };
        let (mut from, mut lines) = (ReadFrom::Head, Vec::new());
        loop {
            let page = logs.read(&group(), "s", &from, any, 10_000, Timestamp(0)).unwrap();
            if page.events.is_empty() {
                break;
            }
            lines.extend(page.events.into_iter().map(|event| event.event.message));
            from = ReadFrom::Token(page.forward);
        }
        let wanted: Vec<String> = (0..offset).map(|n| n.to_string()).collect();
        assert_eq!(lines, wanted, "every line once and in order");
        assert!(audit::verify(&dir.path().join("audit"), None).unwrap().head.events >= known("audit"));
    }
}
