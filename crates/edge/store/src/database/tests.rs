use super::*;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

const SCHEMA: Schema = Schema {
    module: "t",
    steps: &["CREATE TABLE t_row (n INTEGER PRIMARY KEY, text TEXT NOT NULL);"],
};

fn open(dir: &tempfile::TempDir) -> Database {
    Database::open(&dir.path().join("state.db"), &[SCHEMA]).unwrap()
}

fn insert(n: i64) -> impl FnOnce(&Connection) -> Result<i64, StoreError> + Send + 'static {
    move |c| {
        c.execute("INSERT INTO t_row VALUES (?1, 'x')", [n])?;
        Ok(n)
    }
}

fn count(database: &Database) -> i64 {
    database
        .read::<_, StoreError>(|c| Ok(c.query_row("SELECT count(*) FROM t_row", [], |r| r.get(0))?))
        .unwrap()
}

#[test]
fn a_write_is_read_back_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    assert_eq!(database.write(insert(1)).unwrap(), 1);
    drop(database);
    assert_eq!(count(&open(&dir)), 1);
}

#[test]
fn a_failed_write_takes_back_its_own_changes_and_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let database = Arc::new(open(&dir));
    let gate = Arc::new(Barrier::new(9));
    let kept = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // Holds the writer until every other closure is queued, so that all share one transaction.
        let hold = Arc::clone(&gate);
        let holder = Arc::clone(&database);
        scope.spawn(move || {
            holder
                .write::<_, StoreError>(move |_| {
                    hold.wait();
                    std::thread::sleep(Duration::from_millis(50));
                    Ok(())
                })
                .unwrap()
        });
        for n in 0..8 {
            let (database, gate, kept) = (Arc::clone(&database), Arc::clone(&gate), &kept);
            scope.spawn(move || {
                gate.wait();
                let outcome = database.write::<(), StoreError>(move |c| {
                    c.execute("INSERT INTO t_row VALUES (?1, 'x')", [n])?;
                    if n % 2 == 0 { Err(StoreError::BadToken) } else { Ok(()) }
                });
                assert_eq!(outcome.is_ok(), n % 2 == 1, "{n}");
                kept.fetch_add(usize::from(outcome.is_ok()), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(kept.load(Ordering::Relaxed), 4);
    assert_eq!(count(&database), 4);
}

#[test]
fn a_panicking_write_leaves_the_writer_alive() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    let outcome = database.write::<(), StoreError>(|c| {
        c.execute("INSERT INTO t_row VALUES (7, 'x')", [])?;
        panic!("caller's bug");
    });
    assert!(matches!(outcome, Err(StoreError::Database(_))));
    assert_eq!(count(&database), 0);
    assert_eq!(database.write(insert(8)).unwrap(), 8);
}

#[test]
fn a_full_disk_is_named_and_what_was_committed_stays() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    database.write(insert(1)).unwrap();
    // SQLite's own limit on pages fails exactly as a file system without space does.
    database
        .write::<(), StoreError>(|c| {
            let pages: i64 = c.query_row("PRAGMA page_count", [], |r| r.get(0))?;
            let _: i64 = c.query_row(&format!("PRAGMA max_page_count = {}", pages + 1), [], |r| r.get(0))?;
            Ok(())
        })
        .unwrap();
    let full = database.write::<(), StoreError>(|c| {
        c.execute("INSERT INTO t_row VALUES (2, ?1)", ["y".repeat(1 << 20)])?;
        Ok(())
    });
    assert!(matches!(full, Err(StoreError::DiskFull)), "{full:?}");
    assert_eq!(count(&database), 1);
    assert_eq!(
        database.write(insert(3)).unwrap(),
        3,
        "the writer goes on where a small write still fits"
    );
}

#[test]
fn migrations_run_once_and_a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    const NEWER: Schema = Schema {
        module: "t",
        steps: &[SCHEMA.steps[0], "ALTER TABLE t_row ADD COLUMN more INTEGER DEFAULT 5;"],
    };
    open(&dir).write(insert(1)).unwrap();
    let database = Database::open(&path, &[NEWER]).unwrap();
    let more: i64 = database
        .read::<_, StoreError>(|c| Ok(c.query_row("SELECT more FROM t_row", [], |r| r.get(0))?))
        .unwrap();
    assert_eq!(more, 5);
    drop(database);
    assert!(matches!(
        Database::open(&path, &[SCHEMA]),
        Err(StoreError::TooNew { found: 2, known: 1, .. })
    ));
}

#[test]
fn readers_beyond_the_pool_wait_and_a_read_sees_one_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir);
    database.write(insert(1)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..READERS * 2 {
            scope.spawn(|| {
                database
                    .read::<_, StoreError>(|c| {
                        let before: i64 = c.query_row("SELECT count(*) FROM t_row", [], |r| r.get(0))?;
                        std::thread::sleep(Duration::from_millis(5));
                        let after: i64 = c.query_row("SELECT count(*) FROM t_row", [], |r| r.get(0))?;
                        assert_eq!(before, after);
                        Ok(())
                    })
                    .unwrap();
            });
        }
        for n in 2..20 {
            database.write(insert(n)).unwrap();
        }
    });
    let refused = database.read::<usize, StoreError>(|c| Ok(c.execute("DELETE FROM t_row", [])?));
    assert!(refused.is_err(), "a read connection cannot write");
    assert_eq!(count(&database), 19);
}
