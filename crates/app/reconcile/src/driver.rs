//! Wakes the loops: on commits, on changes of the host, on time. A wake-up carries no data (style rule 7). The only
//! place of this crate that starts threads.

use crate::cut::{Begun, Cut};
use crate::deps::{Deps, Next, StepError};
use crate::endpoint::{self, EndpointMemory};
use crate::gc;
use crate::job::{self, Job, JobMemory, ProcessingMemory};
use crate::network;
use crate::notebook::{self, NotebookMemory};
use crate::scheduler::queue::Owner as Holder;
use crate::transform::{self, TransformMemory};
use crate::tuning::{self, TuningMemory};
use isolarium_model::sagemaker::async_inference::AsyncInvocation;
use isolarium_model::sagemaker::{Endpoint, NotebookInstance, ProcessingJob, TrainingJob, TransformJob, TuningJob};
use isolarium_model::{AccountId, Key, Record, Timestamp};
use isolarium_store::StateStore;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longest sleep of the thread that watches the host: bounds how late a missed wake-up is noticed.
const WATCH: Duration = Duration::from_secs(1);

/// Stack of a worker: transfers and archives need little.
const STACK: usize = 1 << 20;

/// What one loop looks after.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Subject {
    Job(Key),
    Processing(Key),
    Transform(Key),
    Endpoint(Key),
    Tuning(Key),
    Notebook(Key),
    /// All VPCs: a change of one may be a change of what others need.
    Network,
    Sweep,
}

/// Who steps a subject. Steps that move data may last as long as a transfer; a rule that was revoked must not wait for
/// them (VPC-30, NET-16), so networks have a thread of their own. And how long a transfer through a VPC lasts is for its
/// owner to say, so steps that may make one have threads of their own too, of which each account has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Workloads,
    Networks,
    Transfers,
}

impl Subject {
    /// Where it comes first. A worker of `Workloads` hands on what belongs to `Transfers`.
    fn lane(&self) -> Lane {
        match self {
            Self::Job(_)
            | Self::Processing(_)
            | Self::Transform(_)
            | Self::Endpoint(_)
            | Self::Tuning(_)
            | Self::Notebook(_)
            | Self::Sweep => Lane::Workloads,
            Self::Network => Lane::Networks,
        }
    }

    /// Whose room on the machine it looks after.
    fn holder(&self) -> Option<Holder> {
        let (kind, key) = match self {
            Self::Job(key) => (TrainingJob::KIND, key),
            Self::Processing(key) => (ProcessingJob::KIND, key),
            Self::Transform(key) => (TransformJob::KIND, key),
            Self::Endpoint(key) => (Endpoint::KIND, key),
            Self::Notebook(key) => (NotebookInstance::KIND, key),
            Self::Tuning(_) | Self::Network | Self::Sweep => return None,
        };
        let key = key.clone();
        Some(Holder { kind, key })
    }

    /// The other way round.
    fn of(holder: Holder) -> Option<Self> {
        let all = [
            Self::Job,
            Self::Processing,
            Self::Transform,
            Self::Endpoint,
            Self::Notebook,
        ];
        let mut all = all.into_iter().map(|subject| subject(holder.key.clone()));
        all.find(|subject| subject.holder().as_ref() == Some(&holder))
    }

    fn account(&self) -> Option<&AccountId> {
        match self {
            Self::Job(key)
            | Self::Processing(key)
            | Self::Transform(key)
            | Self::Endpoint(key)
            | Self::Tuning(key)
            | Self::Notebook(key) => Some(&key.scope.account),
            Self::Network | Self::Sweep => None,
        }
    }
}

/// What a loop remembers between steps.
enum Memory {
    Job(Box<JobMemory>),
    Processing(Box<ProcessingMemory>),
    Transform(Box<TransformMemory>),
    Endpoint(Box<EndpointMemory>),
    Tuning(Box<TuningMemory>),
    Notebook(Box<NotebookMemory>),
    Network,
    Sweep,
}

impl Memory {
    fn of(subject: &Subject) -> Self {
        match subject {
            Subject::Job(_) => Self::Job(Box::default()),
            Subject::Processing(_) => Self::Processing(Box::default()),
            Subject::Transform(_) => Self::Transform(Box::default()),
            Subject::Endpoint(_) => Self::Endpoint(Box::default()),
            Subject::Tuning(_) => Self::Tuning(Box::default()),
            Subject::Notebook(_) => Self::Notebook(Box::default()),
            Subject::Network => Self::Network,
            Subject::Sweep => Self::Sweep,
        }
    }
}

/// One subject in the queue. `memory` is away while a worker steps it, so no subject is stepped twice at once.
struct Slot {
    memory: Option<Memory>,
    queued: bool,
    /// Woken while it was being stepped: step again.
    again: bool,
    /// The earliest timer that counts; older ones in the heap are stale.
    due: Option<Instant>,
    /// Who is to step it next.
    lane: Lane,
    /// While it is stepped: what ends its transfers, unless the step began with the end of its subject.
    cut: Option<Arc<Cut>>,
}

impl Slot {
    fn new(subject: &Subject, memory: Memory) -> Self {
        Self {
            memory: Some(memory),
            queued: false,
            again: false,
            due: None,
            lane: subject.lane(),
            cut: None,
        }
    }
}

#[derive(Default)]
struct Queue {
    slots: HashMap<Subject, Slot>,
    ready: VecDeque<Subject>,
    timers: BinaryHeap<Reverse<(Instant, Subject)>>,
    /// Threads of [`Lane::Transfers`] that each account holds.
    held: BTreeMap<AccountId, usize>,
    /// Subjects whose record changed while they were stepped.
    changed: Vec<Subject>,
}

struct Shared {
    deps: Deps,
    queue: Mutex<Queue>,
    /// Something for the workers may be ready.
    changed: Condvar,
    /// Something for the networks' thread may be ready.
    networks_changed: Condvar,
    /// Something for the threads of transfers may be ready.
    transfers_changed: Condvar,
    /// A record changed whose subject is stepped now.
    records_changed: Condvar,
    stopping: AtomicBool,
}

/// The running loops. Dropping it lets the current steps finish and ends the threads; containers live on.
pub struct Driver {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Why the loops did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the resource records cannot be read")]
    Records(#[source] StepError),
    #[error("a thread could not be started; check the limits of the service")]
    Thread(#[source] std::io::Error),
}

impl Driver {
    /// Looks at the host, adopts every job and endpoint from its record and starts the loops.
    ///
    /// # Errors
    /// When records cannot be read or threads not be started. A host that is not reachable yet is no error.
    pub fn start(deps: Deps) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            deps,
            queue: Mutex::default(),
            changed: Condvar::new(),
            networks_changed: Condvar::new(),
            transfers_changed: Condvar::new(),
            records_changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&shared);
        shared.deps.store.subscribe(Box::new(move |changes| {
            if let Some(shared) = weak.upgrade() {
                shared.committed(changes);
            }
        }));
        if let Err(error) = shared.look() {
            tracing::warn!(%error, "the host cannot be observed yet");
        }
        shared.adopt().map_err(StartError::Records)?;
        let mut driver = Self {
            shared,
            threads: Vec::new(),
        };
        for n in 0..driver.shared.deps.settings.workers.max(1) {
            driver.thread(&format!("reconcile-{n}"), |shared| shared.work(Lane::Workloads))?;
        }
        for n in 0..driver.shared.deps.settings.vpc_workers.max(1) {
            driver.thread(&format!("transfer-{n}"), |shared| shared.work(Lane::Transfers))?;
        }
        driver.thread("reconcile-vpcs", |shared| shared.work(Lane::Networks))?;
        driver.thread("reconcile-cuts", Shared::cut)?;
        driver.thread("reconcile-watch", Shared::watch)?;
        Ok(driver)
    }

    fn thread(&mut self, name: &str, run: fn(&Shared)) -> Result<(), StartError> {
        let shared = Arc::clone(&self.shared);
        let spawned = thread::Builder::new()
            .name(name.into())
            .stack_size(STACK)
            .spawn(move || run(&shared));
        self.threads.push(spawned.map_err(StartError::Thread)?);
        Ok(())
    }

    /// The shared values, for the parts of the server that read them.
    pub fn deps(&self) -> &Deps {
        &self.shared.deps
    }

    /// Looks at everything again now: after the operator changed something outside.
    pub fn wake_all(&self) {
        self.shared.wake_all();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.end_transfers();
        for condition in self.shared.conditions() {
            condition.notify_all();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reconcile thread panicked");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn conditions(&self) -> [&Condvar; 4] {
        [
            &self.changed,
            &self.networks_changed,
            &self.transfers_changed,
            &self.records_changed,
        ]
    }

    fn committed(&self, changes: &[(&'static str, Key)]) {
        for (kind, key) in changes {
            if *kind == TrainingJob::KIND {
                self.record_changed(Subject::Job(key.clone()));
                if let Some(parent) = tuning::parent_of(key) {
                    self.wake_known(&Subject::Tuning(parent));
                }
            } else if *kind == ProcessingJob::KIND {
                self.record_changed(Subject::Processing(key.clone()));
            } else if *kind == TransformJob::KIND {
                self.record_changed(Subject::Transform(key.clone()));
            } else if *kind == TuningJob::KIND {
                self.wake(&Subject::Tuning(key.clone()));
            } else if *kind == Endpoint::KIND {
                self.record_changed(Subject::Endpoint(key.clone()));
            } else if *kind == AsyncInvocation::KIND {
                if let Some(endpoint) = AsyncInvocation::endpoint_of(key) {
                    self.wake_known(&Subject::Endpoint(endpoint));
                }
            } else if *kind == NotebookInstance::KIND {
                self.record_changed(Subject::Notebook(key.clone()));
            } else if network::concerns(kind) {
                self.deps.networks.note(kind, key);
                self.wake(&Subject::Network);
            }
        }
    }

    /// Every job that has not ended, every endpoint, and the search for left-overs.
    fn adopt(&self) -> Result<(), StepError> {
        let store: &dyn StateStore = &*self.deps.store;
        for job in store.all::<TrainingJob>()? {
            if !job.record.status().is_final() {
                self.deps.scheduler.adopt_job(&self.deps, &job.key, &job.record);
                self.wake(&Subject::Job(job.key));
            } else if let Some(pool) = job.record.warm_pool.as_ref().filter(|pool| pool.until().is_some()) {
                let since = pool.since.unwrap_or(job.record.modified);
                self.deps.scheduler.adopt_pool(&self.deps, &job.key, &job.record, since);
                self.wake(&Subject::Job(job.key));
            }
        }
        for job in store.all::<ProcessingJob>()? {
            if !job.record.status().is_final() {
                self.deps.scheduler.adopt_job(&self.deps, &job.key, &job.record);
                self.wake(&Subject::Processing(job.key));
            }
        }
        for job in store.all::<TransformJob>()? {
            if !job.record.status.is_final() {
                self.deps.scheduler.adopt_transform(&self.deps, &job.key, &job.record);
                self.wake(&Subject::Transform(job.key));
            }
        }
        for tuning in store.all::<TuningJob>()? {
            if !tuning.record.status.is_final() {
                self.wake(&Subject::Tuning(tuning.key));
            }
        }
        for notebook in store.all::<NotebookInstance>()? {
            self.deps
                .scheduler
                .adopt_notebook(&self.deps, &notebook.key, &notebook.record);
            self.wake(&Subject::Notebook(notebook.key));
        }
        for endpoint in store.all::<Endpoint>()? {
            self.deps
                .scheduler
                .adopt_endpoint(&self.deps, &endpoint.key, &endpoint.record);
            // Requests find what serves already before anybody has looked after it.
            let memory = endpoint::adopt(&self.deps, &endpoint.key, &endpoint.record);
            self.lock()
                .adopt(Subject::Endpoint(endpoint.key), Memory::Endpoint(Box::new(memory)));
        }
        self.deps.scheduler.open(&self.deps.work);
        self.wake(&Subject::Network);
        self.wake(&Subject::Sweep);
        Ok(())
    }

    fn wake(&self, subject: &Subject) {
        let mut queue = self.lock();
        queue.wake(subject);
        drop(queue);
        self.waits(subject.lane()).notify_one();
    }

    /// Wakes the subject; whether its transfers are to end is found out by a thread that may read the record.
    fn record_changed(&self, subject: Subject) {
        self.wake(&subject);
        let mut queue = self.lock();
        if queue.slots.get(&subject).is_some_and(|slot| slot.cut.is_some()) {
            queue.changed.push(subject);
            drop(queue);
            self.records_changed.notify_one();
        }
    }

    /// Wakes a subject that is being looked after; others stay unknown.
    fn wake_known(&self, subject: &Subject) {
        let mut queue = self.lock();
        let known = queue.slots.contains_key(subject);
        if known {
            queue.wake(subject);
        }
        drop(queue);
        if known {
            self.waits(subject.lane()).notify_one();
        }
    }

    /// On what the threads of a lane wait.
    fn waits(&self, lane: Lane) -> &Condvar {
        match lane {
            Lane::Workloads => &self.changed,
            Lane::Networks => &self.networks_changed,
            Lane::Transfers => &self.transfers_changed,
        }
    }

    /// Ends the transfers of subjects that are to stop while they are stepped.
    fn cut(&self) {
        while !self.stopping() {
            let mut queue = self.lock();
            let changed = std::mem::take(&mut queue.changed);
            if changed.is_empty() {
                let waited = self.records_changed.wait_timeout(queue, WATCH);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            drop(queue);
            for subject in changed {
                match self.owner(&subject) {
                    Ok(Some(owner)) if !owner.ends => {}
                    // Gone, to stop, or not to be read: the next step sees it for itself.
                    Ok(_) => self.end_transfers_of(&subject),
                    Err(error) => {
                        tracing::warn!(?subject, cause = chain(&error), "a changed record cannot be read");
                        self.end_transfers_of(&subject);
                    }
                }
            }
        }
    }

    fn end_transfers_of(&self, subject: &Subject) {
        if let Some(cut) = self.lock().slots.get(subject).and_then(|slot| slot.cut.as_ref()) {
            cut.make();
        }
    }

    /// The loops end: nothing is waited for that a peer in a VPC could draw out.
    fn end_transfers(&self) {
        for slot in self.lock().slots.values() {
            if let Some(cut) = &slot.cut {
                cut.make();
            }
        }
    }

    /// What the record of a job or endpoint says about its transfers. `None`: there is none.
    fn owner(&self, subject: &Subject) -> Result<Option<Owner>, StepError> {
        let store: &dyn StateStore = &*self.deps.store;
        Ok(match subject {
            Subject::Job(key) => store
                .shared::<TrainingJob>(key)?
                .map(|job| Owner::of_job(&job.record, &self.deps)),
            Subject::Processing(key) => store
                .shared::<ProcessingJob>(key)?
                .map(|job| Owner::of_job(&job.record, &self.deps)),
            Subject::Transform(key) => store
                .shared::<TransformJob>(key)?
                .map(|job| Owner::of_transform(&job.record, &self.deps)),
            Subject::Endpoint(key) => store
                .shared::<Endpoint>(key)?
                .map(|endpoint| Owner::of_endpoint(&endpoint.record, &self.deps)),
            Subject::Notebook(key) => store
                .shared::<NotebookInstance>(key)?
                .map(|notebook| Owner::of_notebook(&notebook.record)),
            Subject::Tuning(_) | Subject::Network | Subject::Sweep => None,
        })
    }

    /// Lets the transfers of this subject's next step be ended from outside.
    fn begin(&self, lane: Lane, subject: &Subject) -> Option<(Begun, Arc<Cut>)> {
        subject.account()?;
        let cut = Arc::new(Cut::within(self.deps.settings.transfer_limit));
        let shown = |cut: Option<Arc<Cut>>| {
            if let Some(slot) = self.lock().slots.get_mut(subject) {
                slot.cut = cut;
            }
        };
        // In place before the record is read: a change after that finds it.
        shown(Some(Arc::clone(&cut)));
        let owner = self.owner(subject).ok()??;
        if owner.ends {
            // What a step moves that begins with the end is part of the end.
            shown(None);
        }
        let left = owner.until.map(|until| until.since(self.deps.now()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            cut.end_after(left);
        }
        // A container that exits between the choice of the lane and the step would have its output moved here.
        let elsewhere = lane == Lane::Workloads && owner.in_vpc;
        if self.stopping() || elsewhere {
            cut.make();
        }
        let begun = self.deps.cuts.begin(&owner.arn, Arc::clone(&cut));
        Some((begun, cut))
    }

    /// Hands a subject whose step may move data through a VPC to the threads for that.
    fn hand_on(&self, subject: Subject, memory: Memory) {
        let mut queue = self.lock();
        if let Some(slot) = queue.slots.get_mut(&subject) {
            slot.memory = Some(memory);
            slot.again = false;
            slot.queued = true;
            slot.lane = Lane::Transfers;
            queue.ready.push_back(subject);
        }
        drop(queue);
        self.transfers_changed.notify_one();
    }

    fn wake_all(&self) {
        let mut queue = self.lock();
        let subjects: Vec<Subject> = queue
            .slots
            .keys()
            .filter(|subject| !matches!(subject, Subject::Sweep | Subject::Network))
            .cloned()
            .collect();
        for subject in &subjects {
            queue.wake(subject);
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Takes a fresh picture of the host; says whether it differs from the last one.
    fn look(&self) -> Result<bool, StepError> {
        let seen = self.deps.executor.observe().map_err(StepError::Executor)?;
        let states: BTreeMap<_, _> = seen.into_iter().map(|one| (one.workload, one.state)).collect();
        Ok(!self.deps.seen.replace(states).is_empty())
    }

    fn watch(&self) {
        while !self.stopping() {
            let before = Instant::now();
            let waited = self
                .deps
                .executor
                .changed(WATCH)
                .map_err(StepError::Executor)
                .and_then(|()| self.look());
            match waited {
                // A full wait without a difference means that nothing happened: nobody is woken, an idle engine costs
                // nothing. A change between two waits shows as a difference.
                Ok(false) if before.elapsed() >= WATCH => {}
                Ok(_) => self.wake_all(),
                Err(error) => {
                    tracing::warn!(cause = chain(&error), "the host cannot be observed");
                    self.sleep(self.deps.settings.retry);
                }
            }
        }
    }

    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.stopping() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20).min(wait));
        }
    }

    fn work(&self, lane: Lane) {
        while let Some((subject, mut memory)) = self.take(lane) {
            if lane == Lane::Workloads && matches!(self.owner(&subject), Ok(Some(owner)) if owner.moves_through_vpc) {
                self.hand_on(subject, memory);
                continue;
            }
            let begun = self.begin(lane, &subject);
            // A bug in one subject's step must not take the others' workers away.
            let result = catch_unwind(AssertUnwindSafe(|| self.step(&subject, &mut memory)));
            let next = match result {
                Ok(Ok(next)) => next,
                Ok(Err(_)) if begun.as_ref().is_some_and(|(_, cut)| cut.why().is_some()) => {
                    tracing::info!(?subject, "a transfer was ended; looking again");
                    Next::At(self.deps.now().after(self.deps.settings.retry))
                }
                Ok(Err(error)) => {
                    tracing::warn!(?subject, cause = chain(&error), "a step failed and is repeated");
                    Next::At(self.deps.now().after(self.deps.settings.retry))
                }
                Err(_) => {
                    tracing::error!(?subject, "a step panicked and is repeated");
                    memory = Memory::of(&subject);
                    Next::At(self.deps.now().after(self.deps.settings.retry))
                }
            };
            drop(begun);
            self.put_back(lane, subject, memory, next);
        }
    }

    fn step(&self, subject: &Subject, memory: &mut Memory) -> Result<Next, StepError> {
        match (subject, memory) {
            (Subject::Job(key), Memory::Job(memory)) => job::step(&self.deps, key, &mut **memory),
            (Subject::Processing(key), Memory::Processing(memory)) => job::step(&self.deps, key, &mut **memory),
            (Subject::Transform(key), Memory::Transform(memory)) => transform::step(&self.deps, key, memory),
            (Subject::Endpoint(key), Memory::Endpoint(memory)) => endpoint::step(&self.deps, key, memory),
            (Subject::Tuning(key), Memory::Tuning(memory)) => tuning::step(&self.deps, key, memory),
            (Subject::Notebook(key), Memory::Notebook(memory)) => notebook::step(&self.deps, key, memory),
            (Subject::Network, _) => network::step(&self.deps),
            (Subject::Sweep, _) => {
                let removed = gc::sweep(&self.deps)?;
                if removed > 0 {
                    tracing::info!(removed, "left-overs removed");
                }
                Ok(Next::At(self.deps.now().after(self.deps.settings.gc_interval)))
            }
            (
                Subject::Job(_)
                | Subject::Processing(_)
                | Subject::Transform(_)
                | Subject::Endpoint(_)
                | Subject::Tuning(_)
                | Subject::Notebook(_),
                _,
            ) => Ok(Next::Done),
        }
    }

    /// Waits for a subject of the lane that is ready; `None` when the driver stops.
    fn take(&self, lane: Lane) -> Option<(Subject, Memory)> {
        let mut queue = self.lock();
        loop {
            if self.stopping() {
                return None;
            }
            let (rang, wait) = queue.ring(Instant::now());
            // A timer that rang here may be another lane's.
            for other in rang.into_iter().filter(|other| *other != lane) {
                self.waits(other).notify_one();
            }
            if let Some(subject) = queue.first(lane, self.deps.settings.vpc_workers_per_account) {
                let memory = queue.slots.get_mut(&subject).and_then(|slot| {
                    slot.queued = false;
                    slot.due = None;
                    slot.memory.take()
                });
                if let Some(memory) = memory {
                    if lane == Lane::Transfers {
                        queue.hold(&subject);
                    }
                    return Some((subject, memory));
                }
                continue;
            }
            let wait = wait.unwrap_or(WATCH).min(WATCH);
            queue = self
                .waits(lane)
                .wait_timeout(queue, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn put_back(&self, stepped_in: Lane, subject: Subject, memory: Memory, next: Next) {
        let lane = subject.lane();
        let mut queue = self.lock();
        if stepped_in == Lane::Transfers {
            queue.release(&subject);
            // Another subject of the account may have been waiting.
            self.transfers_changed.notify_one();
        }
        let Some(slot) = queue.slots.get_mut(&subject) else {
            return;
        };
        slot.cut = None;
        slot.lane = lane;
        slot.memory = Some(memory);
        let again = std::mem::take(&mut slot.again);
        let mut done = None;
        if again {
            queue.wake(&subject);
        } else {
            match next {
                Next::Done => {
                    queue.slots.remove(&subject);
                    done = subject.holder();
                }
                Next::At(time) => {
                    let wait = time.since(self.deps.now());
                    if wait.is_zero() {
                        queue.wake(&subject);
                    } else if time != Timestamp(i64::MAX)
                        && let Some(due) = Instant::now().checked_add(wait)
                    {
                        if let Some(slot) = queue.slots.get_mut(&subject) {
                            slot.due = Some(due);
                        }
                        queue.timers.push(Reverse((due, subject)));
                    }
                }
            }
        }
        drop(queue);
        self.waits(lane).notify_one();
        if let Some(holder) = done {
            self.deps.scheduler.leave(&holder);
        }
        for holder in self.deps.scheduler.take_granted() {
            if let Some(subject) = Subject::of(holder) {
                self.wake_known(&subject);
            }
        }
    }
}

impl Queue {
    /// As [`Self::wake`], with what is known already; a subject that a commit woke meanwhile keeps its own memory, which
    /// the first step fills the same way.
    fn adopt(&mut self, subject: Subject, memory: Memory) {
        let slot = Slot::new(&subject, memory);
        self.slots.entry(subject.clone()).or_insert(slot);
        self.wake(&subject);
    }

    fn wake(&mut self, subject: &Subject) {
        let new = || Slot::new(subject, Memory::of(subject));
        let slot = self.slots.entry(subject.clone()).or_insert_with(new);
        if slot.memory.is_none() {
            slot.again = true;
        } else if !slot.queued {
            slot.queued = true;
            self.ready.push_back(subject.clone());
        } else {
            // What waits for a thread that moves data may have nothing to move any more.
            slot.lane = subject.lane();
        }
    }

    /// Takes the first subject out that a lane may step now.
    fn first(&mut self, lane: Lane, share: usize) -> Option<Subject> {
        let (slots, held) = (&self.slots, &self.held);
        let free = |subject: &Subject| {
            let held = subject.account().and_then(|account| held.get(account)).copied();
            lane != Lane::Transfers || held.unwrap_or(0) < share.max(1)
        };
        let may = |subject: &Subject| slots.get(subject).is_none_or(|slot| slot.lane == lane) && free(subject);
        let at = self.ready.iter().position(may)?;
        self.ready.remove(at)
    }

    fn hold(&mut self, subject: &Subject) {
        if let Some(account) = subject.account() {
            let held = self.held.entry(account.clone()).or_default();
            *held = held.saturating_add(1);
        }
    }

    fn release(&mut self, subject: &Subject) {
        if let Some(account) = subject.account()
            && let Some(held) = self.held.get_mut(account)
        {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(account);
            }
        }
    }

    /// Wakes everything that is due; tells the lanes it belongs to, and how long the next one has.
    fn ring(&mut self, now: Instant) -> (Vec<Lane>, Option<Duration>) {
        let mut rang = Vec::new();
        while let Some(Reverse((due, _))) = self.timers.peek() {
            if *due > now {
                return (rang, Some(due.saturating_duration_since(now)));
            }
            let Some(Reverse((due, subject))) = self.timers.pop() else {
                break;
            };
            if self.slots.get(&subject).is_some_and(|slot| slot.due == Some(due)) {
                self.wake(&subject);
                rang.push(subject.lane());
            }
        }
        (rang, None)
    }
}

/// What a record says about the transfers of its job or endpoint.
struct Owner {
    arn: isolarium_model::Arn,
    /// It is to stop, to be deleted, or over.
    ends: bool,
    /// When its stopping condition ends what is under way now.
    until: Option<Timestamp>,
    /// The next step may move data through a VPC.
    moves_through_vpc: bool,
    /// What moves through a VPC in a step that was not thought to is ended there, and the next step is stepped elsewhere.
    in_vpc: bool,
}

impl Owner {
    fn of_job<J: Job>(job: &J, deps: &Deps) -> Self {
        use isolarium_model::sagemaker::training_job::SecondaryStatus::{
            Completed, Downloading, Failed, MaxRuntimeExceeded, MaxWaitTimeExceeded, Pending, Restarting, Starting,
            Stopped, Stopping, Training, Uploading,
        };
        let running = || {
            // All of them: the end of one may be the end of the job.
            job.run().placements().all(|placement| {
                let seen = deps.seen.get(&placement.workload);
                matches!(seen, Some(isolarium_runtime::executor::WorkloadState::Running { .. }))
            })
        };
        let (phase, in_vpc) = (job.phase(), job.network().vpc().is_some());
        let moves = match phase {
            Starting | Pending | Restarting | Downloading | Uploading => true,
            Training => job.tends_objects() || !running(),
            Stopping => !running(),
            Completed | Failed | Stopped | MaxRuntimeExceeded | MaxWaitTimeExceeded => false,
        };
        Self {
            arn: job.arn().clone(),
            ends: phase == Stopping || phase.status().is_final(),
            until: (phase == Training).then(|| job.deadline()),
            moves_through_vpc: moves && in_vpc,
            in_vpc,
        }
    }

    /// Objects are moved by the run's own thread; a step brings the model.
    fn of_transform(job: &TransformJob, deps: &Deps) -> Self {
        let ends = job.status != isolarium_model::sagemaker::TransformJobStatus::InProgress;
        let absent = |placement: &isolarium_model::sagemaker::Placement| deps.seen.get(&placement.workload).is_none();
        let missing = job.run.instances.is_empty() || job.placements().any(absent);
        Self {
            arn: job.arn.clone(),
            ends,
            until: None,
            moves_through_vpc: job.spec.model.network.vpc().is_some() && missing && !ends,
            in_vpc: false,
        }
    }

    /// The platform moves no data for it.
    fn of_notebook(notebook: &NotebookInstance) -> Self {
        use isolarium_model::sagemaker::NotebookStatus::{InService, Pending};
        Self {
            arn: notebook.arn.clone(),
            ends: !matches!(notebook.status, Pending | InService),
            until: None,
            moves_through_vpc: false,
            in_vpc: false,
        }
    }

    fn of_endpoint(endpoint: &Endpoint, deps: &Deps) -> Self {
        let ends = endpoint.status == isolarium_model::sagemaker::EndpointStatus::Deleting;
        let fleets = endpoint.active.iter().chain(&endpoint.pending);
        let mut in_vpc = fleets
            .flat_map(|fleet| &fleet.variants)
            .filter(|variant| variant.model.network.vpc().is_some())
            .peekable();
        let any = in_vpc.peek().is_some();
        // A container that is not on the host is to be brought there, with its model data.
        let moves = in_vpc.any(|variant| {
            let absent = |workload| deps.seen.get(workload).is_none();
            let missing = variant.instances.iter().flat_map(|one| one.workloads()).any(absent);
            missing || u32::try_from(variant.instances.len()) != Ok(variant.desired_count)
        });
        Self {
            arn: endpoint.arn.clone(),
            ends,
            until: None,
            moves_through_vpc: moves && !ends,
            in_vpc: any,
        }
    }
}

/// Does `work` here, and `on_slow` beside it if it takes longer than `after`.
pub(crate) fn with_slow<T>(after: Duration, on_slow: impl FnOnce() + Send, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (done, wait) = channel::<()>();
        scope.spawn(move || {
            if wait.recv_timeout(after) == Err(RecvTimeoutError::Timeout) {
                on_slow();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Does the same to every item, several at a time: pings and downloads of one fleet do not wait for each other.
pub(crate) fn side_by_side<T: Send, R: Send>(items: Vec<T>, act: impl Fn(T) -> R + Sync) -> Vec<R> {
    /// At most this many at once.
    const WIDTH: usize = 8;
    if items.len() < 2 {
        return items.into_iter().map(act).collect();
    }
    let queue: Mutex<VecDeque<(usize, T)>> = Mutex::new(items.into_iter().enumerate().collect());
    let done: Mutex<Vec<(usize, R)>> = Mutex::default();
    let width = queue.lock().unwrap_or_else(PoisonError::into_inner).len().min(WIDTH);
    thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((at, item)) = next else { break };
                    let result = act(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// A thread of its own for what lasts longer than a step may.
pub(crate) fn beside(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(run)
}

/// Things to do and what became of them, both in order.
pub(crate) trait Pipeline {
    type Item: Send;
    type Done: Send;
    /// The next thing to do; `None` when there is none left.
    fn next(&mut self) -> Option<Self::Item>;
    /// What became of the next one; `None` when that is not known, for the act broke off.
    fn take(&mut self, done: Option<Self::Done>);
}

/// What the threads of [`in_order`] are to do, by number.
struct Waiting<T> {
    items: VecDeque<(u64, T)>,
    /// Nothing is added any more.
    over: bool,
}

/// Does what a pipeline gives, `width` things at a time, and hands the outcomes back in the order of the things. At most
/// twice as many are under way, so that a slow one does not let the others pile up.
pub(crate) fn in_order<P: Pipeline>(width: usize, pipeline: &mut P, act: impl Fn(P::Item) -> P::Done + Sync) {
    let width = width.max(1);
    let queue = Mutex::new(Waiting {
        items: VecDeque::new(),
        over: false,
    });
    let ready = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let work = |send: std::sync::mpsc::Sender<(u64, Option<P::Done>)>| {
        loop {
            let mut queue = lock();
            let (number, item) = loop {
                match queue.items.pop_front() {
                    Some(found) => break found,
                    None if queue.over => return,
                    None => queue = ready.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            let done = catch_unwind(AssertUnwindSafe(|| act(item))).ok();
            if send.send((number, done)).is_err() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        let (send, outcomes) = channel();
        let mut workers = 0;
        for _ in 0..width {
            let (send, work) = (send.clone(), &work);
            let name = thread::Builder::new().name("transform-send".into()).stack_size(STACK);
            match name.spawn_scoped(scope, move || work(send)) {
                Ok(_) => workers += 1,
                Err(error) => {
                    tracing::warn!(%error, workers, "a thread could not be started; fewer requests run at once");
                    break;
                }
            }
        }
        let most = u64::try_from(width).unwrap_or(u64::MAX).saturating_mul(2);
        let (mut begun, mut taken, mut early) = (0_u64, 0_u64, BTreeMap::new());
        loop {
            let mut left = true;
            while left && begun.saturating_sub(taken) < most {
                match pipeline.next() {
                    None => left = false,
                    Some(item) if workers == 0 => {
                        early.insert(begun, Some(act(item)));
                        begun += 1;
                        break;
                    }
                    Some(item) => {
                        lock().items.push_back((begun, item));
                        ready.notify_one();
                        begun += 1;
                    }
                }
            }
            if begun == taken {
                break;
            }
            if workers > 0 {
                match outcomes.recv() {
                    Ok((number, done)) => {
                        early.insert(number, done);
                    }
                    Err(_) => break,
                }
            }
            while let Some(done) = early.remove(&taken) {
                taken += 1;
                pipeline.take(done);
            }
        }
        lock().over = true;
        ready.notify_all();
    });
}

/// An error with all its causes, for the log (style rule 9).
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
