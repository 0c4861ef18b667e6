//! One suite for disk and memory: every promise of [`StateStore`] is checked on both.

use super::*;
use crate::database::Database;
use isolarium_model::record::Facets;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Thing {
    name: String,
    created: i64,
    modified: i64,
    status: String,
}

impl Thing {
    pub(crate) fn created(&self) -> i64 {
        self.created
    }
}

impl Record for Thing {
    const KIND: &'static str = "test.thing";
    fn facets(&self) -> Facets {
        Facets {
            display_name: self.name.clone(),
            created: Timestamp(self.created),
            modified: Timestamp(self.modified),
            status: self.status.clone(),
        }
    }

    fn part_of(&self) -> Option<String> {
        self.name.split_once('@').map(|(_, whole)| whole.to_owned())
    }
}

pub(crate) fn thing(name: &str, created: i64, status: &str) -> Thing {
    Thing {
        name: name.into(),
        created,
        modified: created * 2,
        status: status.into(),
    }
}

fn scope(account: &str) -> Scope {
    Scope {
        account: account.parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

pub(crate) fn home() -> Scope {
    scope("123456789012")
}

fn put(store: &dyn StateStore, thing: &Thing, expect: Expect) -> Result<Revision, StoreError> {
    store.commit(Batch::default().put(&Key::folded(&home(), &thing.name), expect, thing)?)
}

fn on_both(suite: impl Fn(&dyn StateStore)) {
    suite(&MemoryState::new());
    let dir = tempfile::tempdir().unwrap();
    suite(&disk(dir.path()));
}

fn disk(dir: &std::path::Path) -> SqliteState {
    SqliteState::new(Arc::new(
        Database::open(&dir.join("state.db"), &[sqlite::SCHEMA]).unwrap(),
    ))
}

fn names(store: &dyn StateStore, query: &Query) -> Vec<String> {
    let page = store.query::<Thing>(query).unwrap();
    page.rows.into_iter().map(|row| row.record.name).collect()
}

fn pages(store: &dyn StateStore, mut query: Query) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    loop {
        let page = store.query::<Thing>(&query).unwrap();
        all.push(page.rows.into_iter().map(|row| row.record.name).collect());
        match page.next {
            Some(next) => query.after = Some(next),
            None => return all,
        }
    }
}

#[test]
fn a_write_that_names_an_old_revision_conflicts_and_changes_nothing() {
    on_both(|store| {
        let first = put(store, &thing("A", 1, "x"), Expect::Absent).unwrap();
        assert!(matches!(
            put(store, &thing("a", 2, "x"), Expect::Absent),
            Err(StoreError::Conflict { .. })
        ));
        let second = put(store, &thing("A", 3, "y"), Expect::At(first)).unwrap();
        assert!(second > first);
        let batch = Batch::default()
            .put(&Key::folded(&home(), "b"), Expect::Absent, &thing("b", 1, "x"))
            .unwrap()
            .put(&Key::folded(&home(), "A"), Expect::At(first), &thing("A", 9, "x"))
            .unwrap();
        assert!(matches!(store.commit(batch), Err(StoreError::Conflict { name, .. }) if name == "a"));
        assert_eq!(
            store.get::<Thing>(&Key::folded(&home(), "b")).unwrap(),
            None,
            "the whole batch is taken back"
        );
        let read = store.get::<Thing>(&Key::folded(&home(), "A")).unwrap().unwrap();
        assert_eq!((read.revision, read.record.created), (second, 3));
        assert_eq!(
            put(store, &thing("c", 1, "x"), Expect::Absent).unwrap(),
            second + 1,
            "a conflict uses no revision"
        );
    });
}

/// Proves: IAM-26
#[test]
fn a_read_sees_the_last_commit_however_often_the_record_was_read_before() {
    on_both(|store| {
        let key = Key::folded(&home(), "a");
        let read = || store.get::<Thing>(&key).unwrap().map(|found| found.record.created);
        for round in 0..3 {
            assert_eq!(read(), None);
            let first = put(store, &thing("a", round, "x"), Expect::Absent).unwrap();
            assert_eq!((read(), read()), (Some(round), Some(round)));
            put(store, &thing("a", round + 10, "x"), Expect::At(first)).unwrap();
            assert_eq!((read(), read()), (Some(round + 10), Some(round + 10)));
            let one = store.shared::<Thing>(&key).unwrap().unwrap();
            let other = store.shared::<Thing>(&key).unwrap().unwrap();
            assert!(Arc::ptr_eq(&one, &other), "control: the second read is of memory");
            assert!(put(store, &thing("a", 99, "x"), Expect::Absent).is_err());
            assert_eq!(read(), Some(round + 10), "a refused commit changes nothing");
            store
                .commit(Batch::default().delete::<Thing>(&key, Expect::Any))
                .unwrap();
        }
    });
}

#[test]
fn deleting_names_a_revision_too() {
    on_both(|store| {
        let key = Key::folded(&home(), "a");
        let delete = |expect| store.commit(Batch::default().delete::<Thing>(&key, expect));
        assert!(matches!(delete(Expect::At(1)), Err(StoreError::Conflict { .. })));
        delete(Expect::Any).unwrap();
        let revision = put(store, &thing("a", 1, "x"), Expect::Any).unwrap();
        assert!(matches!(
            delete(Expect::At(revision + 7)),
            Err(StoreError::Conflict { .. })
        ));
        assert!(matches!(delete(Expect::Absent), Err(StoreError::Conflict { .. })));
        delete(Expect::At(revision)).unwrap();
        assert_eq!(store.get::<Thing>(&key).unwrap(), None);
    });
}

#[test]
fn scopes_and_kinds_do_not_see_each_other() {
    on_both(|store| {
        put(store, &thing("a", 1, "x"), Expect::Absent).unwrap();
        let other = Key::folded(&scope("000000000001"), "a");
        assert_eq!(store.get::<Thing>(&other).unwrap(), None);
        store
            .commit(
                Batch::default()
                    .put(&other, Expect::Absent, &thing("a", 7, "x"))
                    .unwrap(),
            )
            .unwrap();
        assert_eq!(names(store, &Query::all(&home())), ["a"]);
        assert_eq!(store.get_raw("test.other", &other).unwrap(), None);
        let all: Vec<_> = store
            .all::<Thing>()
            .unwrap()
            .into_iter()
            .map(|row| (row.key.scope.account.to_string(), row.record.created))
            .collect();
        assert_eq!(all, [("000000000001".to_owned(), 7), ("123456789012".to_owned(), 1)]);
        put(store, &thing("b", 2, "y"), Expect::Absent).unwrap();
        put(store, &thing("c", 3, "z"), Expect::Absent).unwrap();
        let with = |statuses: &[&str]| -> Vec<_> {
            let rows = store.all_with::<Thing>(statuses).unwrap();
            rows.into_iter().map(|row| row.record.created).collect()
        };
        assert_eq!(with(&["x", "z"]), [7, 1, 3]);
        assert_eq!(with(&["y"]), [2]);
        assert!(with(&["w"]).is_empty());
    });
}

/// Proves: SM-10, SM-12
#[test]
fn listings_filter_by_name_status_and_exclusive_times() {
    on_both(|store| {
        for (name, created, status) in [
            ("Alpha", 10, "Failed"),
            ("beta-ALPHA", 20, "Completed"),
            ("gamma", 30, "Completed"),
            ("100%_x", 40, "Stopped"),
        ] {
            put(store, &thing(name, created, status), Expect::Absent).unwrap();
        }
        let query = |change: &dyn Fn(&mut Query)| {
            let mut query = Query::all(&home());
            change(&mut query);
            names(store, &query)
        };
        assert_eq!(
            query(&|q| q.name_contains = Some("aLpHa".into())),
            ["Alpha", "beta-ALPHA"]
        );
        assert_eq!(
            query(&|q| q.name_contains = Some("%_".into())),
            ["100%_x"],
            "no pattern characters"
        );
        assert_eq!(query(&|q| q.name_prefix = Some("be".into())), ["beta-ALPHA"]);
        assert_eq!(
            query(&|q| q.statuses = vec!["Completed".into()]),
            ["beta-ALPHA", "gamma"]
        );
        assert_eq!(
            query(&|q| q.statuses = vec!["Stopped".into(), "Failed".into()]),
            ["100%_x", "Alpha"]
        );
        assert_eq!(query(&|q| q.created_after = Some(Timestamp(20))), ["100%_x", "gamma"]);
        assert_eq!(query(&|q| q.created_before = Some(Timestamp(20))), ["Alpha"]);
        assert_eq!(query(&|q| q.modified_after = Some(Timestamp(60))), ["100%_x"]);
        assert_eq!(query(&|q| q.modified_before = Some(Timestamp(40))), ["Alpha"]);
        assert_eq!(
            query(&|q| {
                q.created_after = Some(Timestamp(10));
                q.statuses = vec!["Completed".into()];
                q.name_contains = Some("a".into());
                q.limit = 1;
            }),
            ["beta-ALPHA"]
        );
    });
}

/// Proves: SM-10, SM-11
#[test]
fn every_sort_order_pages_through_all_records_with_ties_broken_by_name() {
    on_both(|store| {
        let mut expected = Vec::new();
        for n in 0..23i64 {
            let thing = thing(
                &format!("t{:02}", (n * 7) % 23),
                n % 4,
                if n % 3 == 0 { "A" } else { "B" },
            );
            put(store, &thing, Expect::Absent).unwrap();
            expected.push(thing);
        }
        for (sort_by, descending) in [SortBy::Name, SortBy::Created, SortBy::Modified, SortBy::Status]
            .into_iter()
            .flat_map(|sort_by| [(sort_by, false), (sort_by, true)])
        {
            expected.sort_by_key(|t| match sort_by {
                SortBy::Name => (0, String::new(), t.name.clone()),
                SortBy::Created => (t.created, String::new(), t.name.clone()),
                SortBy::Modified => (t.modified, String::new(), t.name.clone()),
                SortBy::Status => (0, t.status.clone(), t.name.clone()),
            });
            if descending {
                expected.reverse();
            }
            let query = Query {
                sort_by,
                descending,
                limit: 5,
                ..Query::all(&home())
            };
            let pages = pages(store, query);
            assert_eq!(
                pages.iter().map(Vec::len).collect::<Vec<_>>(),
                [5, 5, 5, 5, 3],
                "{sort_by:?}"
            );
            let wanted: Vec<_> = expected.iter().map(|t| t.name.clone()).collect();
            assert_eq!(pages.concat(), wanted, "{sort_by:?} {descending}");
        }
    });
}

/// Proves: SM-11
#[test]
fn tokens_stay_valid_when_records_come_and_go_and_a_foreign_token_is_refused() {
    on_both(|store| {
        for n in 0..10 {
            put(store, &thing(&format!("t{n}"), n, "x"), Expect::Absent).unwrap();
        }
        let mut query = Query {
            sort_by: SortBy::Created,
            limit: 3,
            ..Query::all(&home())
        };
        let page = store.query::<Thing>(&query).unwrap();
        query.after = page.next;
        // The row the token names goes away, one appears before it and one after it.
        store
            .commit(Batch::default().delete::<Thing>(&Key::folded(&home(), "t2"), Expect::Any))
            .unwrap();
        put(store, &thing("early", 0, "x"), Expect::Absent).unwrap();
        put(store, &thing("late", 4, "x"), Expect::Absent).unwrap();
        query.limit = 3;
        assert_eq!(names(store, &query), ["t3", "late", "t4"]);
        let token = query.after.clone();
        for (after, sort_by, descending) in [
            (Some("nonsense".into()), SortBy::Created, false),
            (Some(String::new()), SortBy::Created, false),
            (Some("e30".into()), SortBy::Created, false),
            (token.clone(), SortBy::Name, false),
            (token.clone(), SortBy::Created, true),
        ] {
            let query = Query {
                after,
                sort_by,
                descending,
                ..query.clone()
            };
            assert!(
                matches!(store.query::<Thing>(&query), Err(StoreError::BadToken)),
                "{query:?}"
            );
        }
        assert!(
            store.query::<Thing>(&query).is_ok(),
            "control: the token itself is good"
        );
    });
}

#[test]
fn the_last_page_that_is_just_full_has_no_token() {
    on_both(|store| {
        for n in 0..4 {
            put(store, &thing(&format!("t{n}"), n, "x"), Expect::Absent).unwrap();
        }
        let query = Query {
            limit: 2,
            ..Query::all(&home())
        };
        assert_eq!(pages(store, query), [["t0", "t1"], ["t2", "t3"]]);
    });
}

#[test]
fn listeners_hear_of_commits_after_they_can_be_read_and_never_of_conflicts() {
    on_both(|store| {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        store.subscribe(Box::new(move |changed| ear.lock().unwrap().extend(changed.to_vec())));
        put(store, &thing("A", 1, "x"), Expect::Absent).unwrap();
        let _ = put(store, &thing("A", 1, "x"), Expect::Absent);
        assert_eq!(*heard.lock().unwrap(), [(Thing::KIND, Key::folded(&home(), "a"))]);
    });
}

#[test]
fn concurrent_commits_get_distinct_revisions_and_lose_nothing() {
    on_both(|store| {
        let seen = Mutex::new(BTreeSet::new());
        std::thread::scope(|threads| {
            for t in 0..4 {
                let seen = &seen;
                threads.spawn(move || {
                    for n in 0..25 {
                        let revision = put(store, &thing(&format!("t{t}-{n}"), n, "x"), Expect::Absent).unwrap();
                        assert!(seen.lock().unwrap().insert(revision));
                    }
                });
            }
        });
        assert_eq!(store.all::<Thing>().unwrap().len(), 100);
    });
}

#[test]
fn records_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let revision = put(&disk(dir.path()), &thing("a", 1, "x"), Expect::Absent).unwrap();
    let again = disk(dir.path());
    let read = (&again as &dyn StateStore)
        .get::<Thing>(&Key::folded(&home(), "a"))
        .unwrap()
        .unwrap();
    assert_eq!(read.revision, revision);
    assert!(put(&again, &thing("b", 1, "x"), Expect::Absent).unwrap() > revision);
}

/// A page costs the same whether it comes from 1,000 records or from 100,000: the promise behind paging "in
/// milliseconds", measured as a ratio within one run.
///
/// Proves: SM-10
#[test]
fn a_page_of_a_hundred_thousand_records_costs_no_more_than_one_of_a_thousand() {
    let dir = tempfile::tempdir().unwrap();
    let store = disk(dir.path());
    let store: &dyn StateStore = &store;
    let fill = |scope: &Scope, count: i64| {
        for chunk in 0..count / 1000 {
            let mut batch = Batch::default();
            for n in chunk * 1000..(chunk + 1) * 1000 {
                let thing = thing(&format!("model-{n:06}"), (n * 7919) % count, "InService");
                batch = batch
                    .put(&Key::folded(scope, &thing.name), Expect::Absent, &thing)
                    .unwrap();
            }
            store.commit(batch).unwrap();
        }
    };
    let (small, large) = (scope("000000000001"), scope("000000000002"));
    fill(&small, 1_000);
    fill(&large, 100_000);
    let walk = |scope: &Scope| {
        let mut query = Query {
            sort_by: SortBy::Created,
            descending: true,
            limit: 100,
            ..Query::all(scope)
        };
        let start = std::time::Instant::now();
        for _ in 0..10 {
            let page = store.query::<Thing>(&query).unwrap();
            assert_eq!(page.rows.len(), 100);
            query.after = page.next;
        }
        start.elapsed()
    };
    walk(&small);
    let best = |scope: &Scope| (0..5).map(|_| walk(scope)).min().unwrap();
    let (few, many) = (best(&small), best(&large));
    assert!(
        many < few * 10,
        "10 pages of 100: {few:?} from 1,000 records, {many:?} from 100,000"
    );
}

#[test]
fn parts_are_found_by_what_they_are_a_part_of() {
    on_both(|store| {
        for name in ["c@one", "a@one", "b@two", "d@three", "e"] {
            put(store, &thing(name, 1, "x"), Expect::Absent).unwrap();
        }
        let parts = |of: &[&str]| {
            let of: Vec<String> = of.iter().map(|one| (*one).to_owned()).collect();
            let found = store.parts::<Thing>(&home(), &of).unwrap();
            found.into_iter().map(|one| one.record.name).collect::<Vec<_>>()
        };
        assert_eq!(parts(&["one"]), ["a@one", "c@one"]);
        assert_eq!(parts(&["one", "two", "four"]), ["a@one", "b@two", "c@one"]);
        assert_eq!(parts(&["four"]), [""; 0]);
        assert_eq!(parts(&[]), [""; 0], "nothing is part of nothing");
        let first = Query {
            part_of: vec!["one".into(), "two".into()],
            limit: 1,
            ..Query::all(&home())
        };
        assert_eq!(pages(store, first), [["a@one"], ["b@two"], ["c@one"]]);
        let late = Query {
            part_of: vec!["one".into()],
            sort_by: SortBy::Created,
            descending: true,
            ..Query::all(&home())
        };
        assert_eq!(names(store, &late), ["c@one", "a@one"]);
        store
            .commit(Batch::default().delete::<Thing>(&Key::folded(&home(), "a@one"), Expect::Any))
            .unwrap();
        assert_eq!(parts(&["one"]), ["c@one"]);
    });
}

/// A data directory of before parts were known.
#[test]
fn records_of_networks_that_are_there_already_learn_what_they_are_a_part_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let old = crate::Schema {
        steps: sqlite::SCHEMA.steps.get(..1).unwrap(),
        ..sqlite::SCHEMA
    };
    let database = Database::open(&path, &[old]).unwrap();
    let rows = [
        ("ec2.subnet", "subnet-1", r#"{"vpc":"vpc-1"}"#),
        ("ec2.vpc", "vpc-1", r#"{"id":"vpc-1"}"#),
        ("ec2.internet_gateway", "igw-1", r#"{"attached":null}"#),
        ("ec2.internet_gateway", "igw-2", r#"{"attached":"vpc-1"}"#),
        (
            "ec2.elastic_ip",
            "eipalloc-1",
            r#"{"association":{"interface":"eni-1"}}"#,
        ),
        ("ec2.elastic_ip", "eipalloc-2", r#"{"association":null}"#),
        (
            "ec2.interface_permission",
            "eni-perm-1",
            r#"{"vpc":"vpc-1","interface":"eni-1"}"#,
        ),
        ("sagemaker.model", "m", r#"{"vpc":"vpc-1"}"#),
    ];
    database
        .write(move |c| -> Result<(), StoreError> {
            for (kind, name, body) in rows {
                c.execute(
                    "INSERT OR IGNORE INTO state_shelf (kind, account, region) VALUES (?1, '123456789012', 'us-east-1')",
                    [kind],
                )?;
                c.execute(
                    "INSERT INTO state_record (shelf, name, revision, name_folded, created, modified, status, body) \
                     SELECT id, ?2, 1, '', 0, 0, '', ?3 FROM state_shelf WHERE kind = ?1",
                    (kind, name, body.as_bytes()),
                )?;
            }
            Ok(())
        })
        .unwrap();
    drop(database);
    let store = disk(dir.path());
    let found = |kind: &'static str, of: &str| {
        let query = Query {
            part_of: vec![of.into()],
            ..Query::all(&home())
        };
        let page = store.query_raw(kind, &query).unwrap();
        page.rows
            .into_iter()
            .map(|(key, ..)| key.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(found("ec2.subnet", "vpc-1"), ["subnet-1"]);
    assert_eq!(found("ec2.vpc", "vpc-1"), ["vpc-1"]);
    assert_eq!(found("ec2.internet_gateway", "vpc-1"), ["igw-2"]);
    assert_eq!(found("ec2.elastic_ip", "eni-1"), ["eipalloc-1"]);
    assert_eq!(found("ec2.interface_permission", "eni-1"), ["eni-perm-1"]);
    assert_eq!(found("sagemaker.model", "vpc-1"), [""; 0]);
}
