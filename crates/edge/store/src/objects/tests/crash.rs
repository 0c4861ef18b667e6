//! A writer process is killed at random moments; whatever it had acknowledged is there and whole. The writer is this
//! test's own program, started again for the same test with [`DIR`] set.

use super::*;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

const DIR: &str = "ISOLARIUM_CRASH_TEST_DIR";
const ROUNDS: u64 = 24;

/// Bytes that anyone can make again from their name.
fn bytes(key: &str, sequence: u64) -> Vec<u8> {
    let size = usize::try_from((sequence * 7919) % 300_000).unwrap();
    let seed = format!("{key} {sequence};");
    seed.bytes().cycle().take(size.max(seed.len())).collect()
}

fn say(what: char, key: &str, sequence: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{what} {key} {sequence}").unwrap();
    out.flush().unwrap();
}

/// The process that gets killed.
fn write_until_killed(dir: &Path) -> ! {
    let store = open(dir);
    std::thread::scope(|scope| {
        for writer in 0..3_u64 {
            let store = &store;
            scope.spawn(move || {
                let mut sequence = u64::from(std::process::id()) * 1000;
                loop {
                    sequence += 1;
                    let plain = format!("w{writer}/k{}", sequence % 5);
                    let key = if sequence % 7 == 0 {
                        format!("{plain}/..")
                    } else {
                        plain
                    };
                    say('S', &key, sequence);
                    match sequence % 11 {
                        3 => {
                            let target = Target {
                                key: super::key(&key),
                                version: None,
                                etag: None,
                            };
                            store.delete(&bucket(), &[target], &account(), Timestamp(1)).unwrap();
                            say('D', &key, sequence);
                        }
                        5 => {
                            in_parts(store, &key, &bytes(&key, sequence));
                            say('P', &key, sequence);
                        }
                        _ => {
                            put_into(store, &key, &bytes(&key, sequence), attributes()).unwrap();
                            say('P', &key, sequence);
                        }
                    }
                }
            });
        }
    });
    unreachable!("a writer ends only by being killed or by a panic")
}

fn in_parts(store: &ObjectStore, name: &str, bytes: &[u8]) {
    let now = Timestamp(1);
    let headers = ObjectHeaders::default();
    let id = store
        .begin_upload(
            &bucket(),
            &key(name),
            headers,
            &vec![],
            &account(),
            "me",
            None,
            None,
            now,
        )
        .unwrap();
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    let mut parts = Vec::new();
    for (number, mut piece) in [(1, head), (2, tail)] {
        let data = store.receive_all(&mut piece, &[], now, None).unwrap();
        let part = store.put_part(&bucket(), &id, number, data, now).unwrap();
        parts.push(PartRef {
            number,
            etag: part.etag,
            checksum: None,
        });
    }
    let how = Completion {
        parts,
        condition: WriteCondition::None,
        checksum: None,
        size: None,
        least: 0,
        now,
    };
    store.complete(&bucket(), &id, how).unwrap();
}

/// What the child said about a key: the last acknowledged state and what it had begun since.
#[derive(Default)]
struct Known {
    acknowledged: Option<(char, u64)>,
    begun: Option<u64>,
}

fn run_and_kill(dir: &Path, after: Duration, known: &mut HashMap<String, Known>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "objects::tests::crash::acknowledged_writes_survive_being_killed_at_any_moment",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = output.lines();
    let mut note = |line: &str| {
        let Some(said) = line.split_once('@').map(|(_, said)| said) else {
            return false;
        };
        let mut words = said.split(' ');
        let (what, key, sequence) = (words.next(), words.next(), words.next().and_then(|n| n.parse().ok()));
        let (Some(what), Some(key), Some(sequence)) = (what.and_then(|w| w.chars().next()), key, sequence) else {
            return false;
        };
        let entry = known.entry(key.to_owned()).or_default();
        match what {
            'S' => entry.begun = Some(sequence),
            acknowledged => {
                entry.acknowledged = Some((acknowledged, sequence));
                entry.begun = None;
            }
        }
        true
    };
    while let Some(Ok(line)) = lines.next() {
        if note(&line) {
            break;
        }
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    // What was said before the kill is still in the pipe. A torn last line was never an acknowledgement.
    let mut rest: Vec<String> = lines.map_while(Result::ok).collect();
    let torn = rest.pop();
    rest.iter().for_each(|line| {
        note(line);
    });
    torn.filter(|line| line.split(' ').nth(2).is_some_and(|n| n.len() >= 4))
        .iter()
        .for_each(|line| {
            note(line);
        });
}

fn check(lab: &Lab, known: &mut HashMap<String, Known>) {
    assert!(
        lab.files("escape/new").is_empty(),
        "nothing stays on the move after recovery"
    );
    for (key, told) in known.iter_mut() {
        let found = match lab.get(key, None) {
            Ok(bytes) => Some(bytes),
            Err(ObjectError::NoSuchKey) => None,
            Err(error) => panic!("{key}: {error:?}"),
        };
        let acknowledged = match told.acknowledged {
            Some(('P', sequence)) => Some(bytes(key, sequence)),
            _ => None,
        };
        // The one write that was under way when the kill came happened wholly or not at all.
        let possible = |found: &Option<Vec<u8>>| {
            *found == acknowledged
                || told.begun.is_some_and(|sequence| match found {
                    Some(found) => *found == bytes(key, sequence),
                    None => sequence % 11 == 3,
                })
        };
        assert!(
            possible(&found),
            "{key}: neither the acknowledged state nor the one begun; {:?}",
            told.acknowledged
        );
        // What is there now is the state the next round starts from.
        if found != acknowledged {
            let what = if found.is_some() { 'P' } else { 'D' };
            told.acknowledged = told.begun.map(|sequence| (what, sequence));
        }
        told.begun = None;
    }
    let objects = lab.store.list(&bucket(), &all(1000)).unwrap().objects;
    let parts: usize = lab
        .store
        .list_uploads(&bucket(), "", None, 1000)
        .unwrap()
        .uploads
        .iter()
        .map(|upload| lab.store.list_parts(&bucket(), &upload.id, 0, 100).unwrap().parts.len())
        .sum();
    let files = lab.files("buckets").len() + lab.files("escape/kept").len();
    assert_eq!(
        files,
        objects.len() + parts,
        "every file has an index entry and every entry a file"
    );
    for object in objects {
        assert!(known.contains_key(object.key.as_str()));
        let mut digests = Digests::new(&[]);
        digests.update(&lab.get(object.key.as_str(), None).unwrap());
        if !object.etag.contains('-') {
            assert_eq!(object.etag, hex::encode(digests.finish().0));
        }
    }
}

/// After `kill -9` at any moment an acknowledged PUT is whole, and an unacknowledged one whole or absent.
#[test]
fn acknowledged_writes_survive_being_killed_at_any_moment() {
    if let Some(dir) = std::env::var_os(DIR) {
        write_until_killed(Path::new(&dir));
    }
    let mut lab = Lab::new();
    let mut known = HashMap::new();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..ROUNDS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        run_and_kill(lab.dir.path(), Duration::from_micros(random % 60_000), &mut known);
        lab.reopen();
        check(&lab, &mut known);
        assert!(round < 3 || !known.is_empty());
    }
    let acknowledged = known.values().filter(|told| told.acknowledged.is_some()).count();
    assert!(
        acknowledged > 10,
        "the writer got far enough to be worth killing: {acknowledged} keys"
    );
}
