//! Lanes: threads that serve connections, each with a runtime of its own. A connection stays on its lane, and so does all
//! that its requests wait for: no thread has to wake another one, which costs more than most requests do.

use isolarium_node::turns;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Threads of all lanes together that may block at one time, as many as tokio gives one runtime.
const BLOCKING: usize = 512;
/// Turns of a lane on its processor: so short that a request that comes in while another thread has its turn there need not
/// wait for the end of it. The kernel gives none that are shorter.
const TURN: Duration = Duration::from_micros(100);
/// How long a lane waits at its end for threads that block: whoever asked has gone, and what a container does not answer may take
/// minutes.
const LEFT: Duration = Duration::from_secs(10);
/// How long a lane sleeps at most. A timer that is nearer than everything a runtime sleeps for wakes its thread, even if it
/// is that very thread that sets it; the timers of requests are all further away than this.
const NAP: Duration = Duration::from_secs(1);

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The lane of this thread, counted from 1; 0 on every other thread.
pub fn here() -> usize {
    NUMBER.get()
}

/// One thread.
struct Lane {
    handle: Handle,
    /// Tasks that were given to it and have not ended.
    busy: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// All of them. Dropping it ends their tasks and waits for the threads.
pub struct Lanes(Vec<Lane>);

impl Lanes {
    /// Starts `count` threads, 0 as many as the machine has processors.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(count: usize) -> io::Result<Self> {
        let count = match count {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        (1..=count)
            .map(|number| Lane::start(number, BLOCKING.div_ceil(count)))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Runs the task that `make` makes on the lane that has the fewest. `make` runs there too: what it opens wakes the task
    /// on its own thread.
    pub fn spawn<F>(&self, make: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(lane) = self.0.iter().min_by_key(|lane| lane.busy.load(Ordering::Relaxed)) else {
            return;
        };
        let busy = Busy::one_more(&lane.busy);
        lane.handle.spawn(async move {
            let _busy = busy;
            make().await;
        });
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for lane in &mut self.0 {
            lane.stop.take();
        }
        for lane in &mut self.0 {
            // A thread that panicked has said so.
            let _ = lane.thread.take().map(JoinHandle::join);
        }
    }
}

impl Lane {
    fn start(number: usize, blocking: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(blocking)
            // They are made by the lane, and would have its turns.
            .on_thread_start(|| drop(turns::ask(Duration::ZERO)))
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(format!("lane-{number}"))
            .spawn(move || {
                NUMBER.set(number);
                if let Err(error) = turns::ask(TURN) {
                    tracing::debug!(%error, "a lane takes turns as every thread does");
                }
                runtime.block_on(until(stopped));
                runtime.shutdown_timeout(LEFT);
            })?;
        Ok(Self {
            handle,
            busy: Arc::default(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// Waits for the end of the sender, which says nothing, with naps.
async fn until(stopped: oneshot::Receiver<()>) {
    let mut stopped = pin!(stopped);
    while tokio::time::timeout(NAP, &mut stopped).await.is_err() {}
}

/// Counts a task for as long as it lives.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn tasks_spread_over_the_lanes_and_stay_there() {
        let lanes = Lanes::start(3).unwrap();
        let (tell, told) = mpsc::channel();
        let (_open, closed) = tokio::sync::watch::channel(());
        for _ in 0..6 {
            let (tell, mut closed) = (tell.clone(), closed.clone());
            lanes.spawn(move || async move {
                let first = here();
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                tell.send((first, here())).unwrap();
                // Holds its place until the end.
                let _ = closed.changed().await;
            });
        }
        let mut seen: Vec<(usize, usize)> = (0..6).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, [(1, 1), (1, 1), (2, 2), (2, 2), (3, 3), (3, 3)]);
        assert_eq!(here(), 0, "control: this thread is no lane");
    }

    #[test]
    fn a_task_that_panics_takes_neither_its_lane_nor_its_place_with_it() {
        let lanes = Lanes::start(1).unwrap();
        lanes.spawn(|| async { panic!("on purpose") });
        let (tell, told) = mpsc::channel();
        lanes.spawn(move || async move { tell.send(here()).unwrap() });
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), 1);
        let busy = lanes.0[0].busy.clone();
        drop(lanes);
        assert_eq!(busy.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn dropping_the_lanes_ends_their_tasks() {
        let lanes = Lanes::start(2).unwrap();
        let held = Arc::new(());
        let kept = Arc::clone(&held);
        lanes.spawn(move || async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        drop(lanes);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
