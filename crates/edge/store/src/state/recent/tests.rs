use super::*;
use crate::state::tests::Thing;
use crate::state::{Batch, Expect, MemoryState, StateStore, tests};
use std::sync::atomic::{AtomicI64, Ordering};

fn stored(name: &str) -> Arc<Stored<Thing>> {
    Arc::new(Stored {
        key: Key::folded(&tests::home(), name),
        revision: 1,
        record: tests::thing(name, 1, "x"),
    })
}

fn begun(recent: &Recent, key: &Key) -> Moment {
    recent.find::<Thing>(key).expect_err("it is not kept")
}

#[test]
fn a_record_that_changed_while_it_was_read_is_not_kept() {
    let (recent, thing) = (Recent::default(), stored("a"));
    let changed = [(Thing::KIND, thing.key.clone())];
    let moment = begun(&recent, &thing.key);
    recent.forget(&changed);
    recent.keep(moment, &thing, 10);
    let moment = begun(&recent, &thing.key);
    recent.keep(moment, &thing, 10);
    assert!(
        recent.find::<Thing>(&thing.key).is_ok(),
        "control: undisturbed, it is kept"
    );
    recent.forget(&changed);
    begun(&recent, &thing.key);
}

#[test]
fn what_is_kept_has_a_bound() {
    let recent = Recent::default();
    let kept = || {
        let shards = recent.shards.iter().map(|shard| shard.read().unwrap());
        shards.fold((0, 0), |(bytes, count), shard| {
            let records = shard.kinds.values().map(HashMap::len).sum::<usize>();
            (bytes + shard.bytes, count + records)
        })
    };
    for n in 0..1_000 {
        let thing = stored(&format!("thing-{n}"));
        // Twice: a record that replaces itself counts once.
        for _ in 0..2 {
            recent.keep(Moment(0), &thing, 100 << 10);
        }
        let (bytes, count) = kept();
        assert!(count > 0 && bytes == count * (100 << 10));
        assert!(bytes <= SHARDS * SHARD_BYTES);
    }
    let large = stored("large");
    recent.keep(Moment(0), &large, SHARD_BYTES + 1);
    begun(&recent, &large.key);
}

/// Proves: IAM-26
#[test]
fn no_reader_gets_what_a_finished_commit_replaced() {
    let state = MemoryState::new();
    let store: &dyn StateStore = &state;
    let key = Key::folded(&tests::home(), "a");
    let write = |value| {
        let record = tests::thing("a", value, "x");
        store
            .commit(Batch::default().put(&key, Expect::Any, &record).unwrap())
            .unwrap();
    };
    write(0);
    let (finished, last) = (AtomicI64::new(0), 5_000);
    std::thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                loop {
                    let least = finished.load(Ordering::Acquire);
                    let seen = store.shared::<Thing>(&key).unwrap().unwrap().record.created();
                    assert!(seen >= least, "read {seen} after {least} was written");
                    if least == last {
                        break;
                    }
                }
            });
        }
        for value in 1..=last {
            write(value);
            finished.store(value, Ordering::Release);
        }
    });
    assert!(store.recent().find::<Thing>(&key).is_ok(), "control: reads were kept");
}
