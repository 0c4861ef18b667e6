use super::super::chain::{Head, append_to, file_path};
use super::super::tests::{clock, event, names};
use super::super::verify;
use super::*;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// A file on a disk that is full until its owner makes room.
struct Disk {
    file: File,
    full: AtomicBool,
    attempts: AtomicU64,
}

impl Medium for Disk {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) {
            // A full disk takes what still fits.
            self.file.append(bytes.get(..bytes.len() / 2).unwrap())?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.append(bytes)
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        self.file.cut(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

struct Lab {
    disk: Arc<Disk>,
    shared: Arc<Shared>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Lab {
    fn new(folder: &Path, queue_bytes: usize) -> Self {
        let path = file_path(folder, 0);
        let disk = Arc::new(Disk {
            file: append_to(&path).unwrap(),
            full: AtomicBool::new(false),
            attempts: AtomicU64::new(0),
        });
        let settings = AuditSettings {
            queue_bytes,
            ..AuditSettings::default()
        };
        let shared = Arc::new(Shared::new(disk.clone(), Head::origin(), settings));
        let writer = Writer {
            shared: Arc::clone(&shared),
            folder: folder.into(),
            clock: clock(),
            file: disk.clone(),
            path,
            size: 0,
            head: Head::origin(),
            torn: false,
        };
        let writer = Some(std::thread::spawn(move || writer.run()));
        Self { disk, shared, writer }
    }

    fn until(&self, what: impl Fn(&State) -> bool) {
        let begun = Instant::now();
        while !what(&self.shared.lock()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never came");
            std::thread::yield_now();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.shared.close();
        self.writer.take().unwrap().join().unwrap();
    }
}

#[test]
fn while_nothing_can_be_written_changes_are_refused_and_memory_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path(), 64 << 10);
    assert!(lab.shared.submit(event(0), Keep::Change).wait().is_ok(), "control");
    assert!(lab.shared.ready().is_ok(), "control");
    lab.disk.full.store(true, Ordering::SeqCst);
    let refused = lab.shared.submit(event(1), Keep::Change).wait().unwrap_err();
    assert!(refused.to_string().contains("free space"), "{refused}");
    assert!(lab.shared.ready().is_err());
    for n in 2..5000 {
        assert!(
            lab.shared.submit(event(n), Keep::Later).wait().is_ok(),
            "a read goes on"
        );
        assert!(lab.shared.submit(event(n), Keep::Refusal).wait().is_err());
    }
    let state = lab.shared.lock();
    assert!(state.weight <= 64 << 10, "{}", state.weight);
    assert!(state.queue.len() < 100, "{}", state.queue.len());
    assert!(
        state.lost.reads > 4000 && state.lost.refusals > 4000,
        "{:?}",
        state.lost
    );
    drop(state);
    assert_eq!(verify(dir.path(), None).unwrap().head.events, 1);
}

#[test]
fn what_waited_is_written_and_what_was_lost_is_told_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path(), 4096);
    assert!(lab.shared.submit(event(0), Keep::Change).wait().is_ok());
    lab.disk.full.store(true, Ordering::SeqCst);
    assert!(lab.shared.submit(event(1), Keep::Change).wait().is_err());
    for n in 2..12 {
        assert!(lab.shared.submit(event(n), Keep::Later).wait().is_ok());
    }
    let lost = lab.shared.lock().lost;
    assert!((1..10).contains(&lost.reads), "{lost:?}");
    lab.disk.full.store(false, Ordering::SeqCst);
    lab.until(|state| state.down.is_none() && state.weight == 0);
    assert!(lab.shared.ready().is_ok());
    let told = names(dir.path());
    assert_eq!(told.iter().filter(|name| *name == "EventsLost").count(), 1);
    assert_eq!(told.len(), 12 + 1 - usize::try_from(lost.reads).unwrap());
    let text = std::fs::read_to_string(file_path(dir.path(), 0)).unwrap();
    assert!(
        text.contains(&format!(
            "\"serviceEventDetails\":{{\"reads\":{},\"refusals\":0}}",
            lost.reads
        )),
        "{text}"
    );
    assert!(
        text.contains("\"request-1\""),
        "the change that could not be told at once is told now"
    );
    assert_eq!(
        verify(dir.path(), None).unwrap().head.events,
        u64::try_from(told.len()).unwrap()
    );
}

#[test]
fn a_full_queue_makes_readers_wait_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path(), 1);
    for n in 0..200 {
        lab.shared.submit(event(n), Keep::Later).wait().unwrap();
        assert_eq!(lab.shared.lock().weight, 0, "each had to wait until it was written");
    }
    assert_eq!(verify(dir.path(), None).unwrap().head.events, 200);
}

#[test]
fn what_waits_shares_writes() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path(), 16 << 20);
    lab.disk.full.store(true, Ordering::SeqCst);
    assert!(lab.shared.submit(event(0), Keep::Change).wait().is_err());
    for n in 1..300 {
        let _ = lab.shared.submit(event(n), Keep::Later).wait();
    }
    lab.disk.full.store(false, Ordering::SeqCst);
    let before = lab.disk.attempts.load(Ordering::SeqCst);
    lab.until(|state| state.weight == 0);
    let writes = lab.disk.attempts.load(Ordering::SeqCst) - before;
    assert!(writes <= 15, "{writes} writes");
    assert_eq!(verify(dir.path(), None).unwrap().head.events, 300);
}

#[test]
fn the_writer_pauses_only_while_no_answer_waits() {
    let file: Arc<dyn Medium> = Arc::new(tempfile::tempfile().unwrap());
    let shared = Shared::new(file, Head::origin(), AuditSettings::default());
    let mut group = VecDeque::new();
    for n in 0..10 {
        shared.submit(event(n), Keep::Later).wait().unwrap();
    }
    assert!(shared.next(&mut group).is_some() && group.len() == 10);
    assert!(shared.has_time(), "reads alone");
    group.clear();
    for keep in [Keep::Change, Keep::Refusal] {
        let receipt = shared.submit(event(10), keep);
        assert!(!shared.has_time(), "{keep:?} is queued");
        assert!(shared.next(&mut group).is_some());
        assert!(!shared.has_time(), "{keep:?} is written");
        group.clear();
        drop(receipt);
        shared.submit(event(11), Keep::Later).wait().unwrap();
        assert!(
            shared.next(&mut group).is_some() && shared.has_time(),
            "control: reads again"
        );
        group.clear();
    }
    let later = u64::try_from(GROUP).unwrap();
    for n in 0..later {
        shared.submit(event(n), Keep::Later).wait().unwrap();
    }
    assert!(!shared.has_time(), "a whole group more has come in");
    let _ = shared.next(&mut group);
    assert!(shared.has_time(), "control: it is taken");
    shared.close();
    assert!(!shared.has_time(), "the trail is being closed");
}
