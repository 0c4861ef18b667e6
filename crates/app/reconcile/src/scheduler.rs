//! Who may have room on this machine now: jobs and endpoints reserve what their instance types stand for, and wait for it in a
//! fair order ([`queue`]). cgroups hold containers to what was reserved.
//!
//! The queue is in memory alone. What holds room follows from the records and the host ([`Scheduler::adopt_job`] and its
//! siblings, before the loops begin), the order from the times at which owners were created: a restart changes neither.
//!
//! # The seam
//!
//! A noun asks with [`Scheduler::ask`] before it brings anything to the host, and goes on when it is told; `Deps::remove` and the
//! driver, for an owner that is done with, give the room back. Nouns that run through `job` need nothing but a line in the
//! driver's `adopt`, and their kind in `Subject::of`.

pub mod queue;

use crate::container::UnknownInstanceType;
use crate::deps::Deps;
use crate::job::Job;
use crate::workdir::WorkDir;
use isolarium_model::sagemaker::training_job::SecondaryStatus;
use isolarium_model::sagemaker::{
    Endpoint, EndpointStatus, NotebookInstance, NotebookStatus, TransformJob, TransformJobStatus,
};
use isolarium_model::{Key, Record, Scope, Timestamp, WorkloadId};
use queue::{Amount, Answer, Capacity, Owner, Queue, Request, Wanted};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the owner of a job or endpoint reads that found no room and will find none, or has waited long enough.
pub(crate) const NO_CAPACITY: &str = "Unable to provision requested ML compute capacity due to \
    InsufficientInstanceCapacity error. Please retry using a different ML instance type or after some time.";

/// The queue, shared by all loops.
pub struct Scheduler {
    state: Mutex<State>,
    /// The queue's time counts from here.
    began: Instant,
}

impl Default for Scheduler {
    /// Without limit.
    fn default() -> Self {
        Self::new(Capacity::default())
    }
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Those that got room and have not been woken yet.
    granted: Vec<Owner>,
    /// Which accelerators each instance has that needs some.
    devices: BTreeMap<WorkloadId, Vec<String>>,
    /// Those that containers got before this process began which nobody answers for any more. `None`: nobody can say.
    before: Option<BTreeMap<WorkloadId, Vec<String>>>,
}

impl Scheduler {
    /// Nobody holds anything yet.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            state: Mutex::new(State {
                queue: Queue::new(capacity),
                ..State::default()
            }),
            began: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.queue.at(self.began.elapsed());
        state
    }

    /// Asks for room. May be repeated: what has room keeps it.
    pub fn ask(&self, request: Request) -> Answer {
        let mut state = self.lock();
        let State { queue, granted, .. } = &mut *state;
        queue.ask(request, granted)
    }

    /// The room of a workload that is gone.
    pub fn release(&self, workload: &WorkloadId) {
        let mut state = self.lock();
        state.queue.release(workload);
        state.devices.remove(workload);
        state.admit();
    }

    /// All the room of an owner that is done with, and its place in the order.
    pub fn leave(&self, owner: &Owner) {
        let mut state = self.lock();
        state.queue.leave(owner);
        let State { queue, devices, .. } = &mut *state;
        devices.retain(|workload, _| queue.held().contains_key(workload));
        state.admit();
    }

    /// The accelerators of an instance, `count` of those that nobody has; the same again when asked again. What a container
    /// got before this process began is not free while its directory is there: it may run yet. `None`: there are not as
    /// many, or nobody can say.
    pub(crate) fn devices(
        &self,
        work: &WorkDir,
        workload: &WorkloadId,
        count: u64,
        all: &[String],
    ) -> Option<Vec<String>> {
        let count = usize::try_from(count).ok()?;
        let mut state = self.lock();
        if let Some(own) = state.devices.get(workload).filter(|own| own.len() == count) {
            return Some(own.clone());
        }
        state.before.as_mut()?.retain(|left, _| work.of(left).exists());
        let State { before, devices, .. } = &*state;
        let taken = |name: &&String| {
            let held = devices.iter().chain(before.iter().flatten());
            let others = held.filter(|(other, _)| *other != workload);
            others.flat_map(|(_, own)| own).any(|other| other == *name)
        };
        let own: Vec<String> = all.iter().filter(|name| !taken(name)).take(count).cloned().collect();
        if own.len() < count {
            return None;
        }
        state.devices.insert(workload.clone(), own.clone());
        Some(own)
    }

    /// Notes which accelerators a container got before this process began.
    fn adopt_devices(&self, deps: &Deps, workload: &WorkloadId, amount: Amount) {
        if amount.accelerators > 0 {
            match deps.work.noted_devices(workload) {
                Ok(own) if own.is_empty() => {}
                Ok(own) => drop(self.lock().devices.insert(workload.clone(), own)),
                // Whoever asks for accelerators meets the same and is refused.
                Err(error) => tracing::error!(%workload, %error, "its accelerators cannot be read"),
            }
        }
    }

    /// Whether an instance has room.
    pub(crate) fn holds(&self, workload: &WorkloadId) -> bool {
        self.lock().queue.held().contains_key(workload)
    }

    /// A container takes the place of another of the same owner, which no queue may come between.
    pub fn succeed(&self, old: &WorkloadId, new: &WorkloadId) {
        let mut state = self.lock();
        state.queue.succeed(old, new);
        // The old container may still have its devices open: the new one gets the same, as on a machine of its own.
        if let Some(own) = state.devices.remove(old) {
            state.devices.insert(new.clone(), own);
        }
    }

    /// Instances of an endpoint take the places of others of it, which are on their way out (AU-28). Whether there is room
    /// for that; else nothing changes.
    pub(crate) fn exchange(&self, old: &[WorkloadId], request: &Request) -> bool {
        let mut state = self.lock();
        let done = state.queue.exchange(old, request);
        if done {
            for workload in old {
                state.devices.remove(workload);
            }
            state.admit();
        }
        done
    }

    /// Gives back what the instances of a request hold above what it says: the way back is not needed any more.
    pub(crate) fn trim(&self, request: &Request) {
        let mut state = self.lock();
        for one in &request.instances {
            state.queue.trim(&one.workload, one.amount);
        }
        state.admit();
    }

    /// The job has ended, and its room is kept for one that fits, as long as nobody else needs it.
    pub(crate) fn shelve(&self, owner: &Owner, since: Timestamp) {
        let mut state = self.lock();
        state.queue.shelve(owner, since);
        let State { queue, devices, .. } = &mut *state;
        devices.retain(|workload, _| queue.held().contains_key(workload));
        state.admit();
    }

    /// As [`Self::shelve`], as the engine starts.
    pub(crate) fn adopt_pool<J: Job>(&self, deps: &Deps, key: &Key, job: &J, since: Timestamp) {
        if let Some(request) = request_of(deps, key, job) {
            self.lock().queue.keep_pool(request, since);
        }
    }

    /// Owners of a kind in an account and region whose room is kept, the longest kept first.
    pub(crate) fn pools(&self, kind: &str, scope: &Scope) -> Vec<Owner> {
        let state = self.lock();
        let own = state.queue.pools().into_iter();
        own.filter(|owner| owner.kind == kind && owner.key.scope == *scope)
            .collect()
    }

    /// Whether an owner's room is kept still.
    pub(crate) fn has_pool(&self, owner: &Owner) -> bool {
        self.lock().queue.pools().contains(owner)
    }

    /// Gives the room that is kept for `pool` to a request, whoever waits. `false`: it is not kept any more, or the account
    /// has its part already.
    pub(crate) fn reuse(&self, pool: &Owner, request: &Request) -> bool {
        self.lock().queue.reuse(pool, request)
    }

    /// Owners that have got room since the last call, or whose kept room somebody needed: to be woken. Called after every step, so at least as often as the host
    /// is swept, it also ends the turn of a request that others are kept back for.
    pub fn take_granted(&self) -> Vec<Owner> {
        let mut state = self.lock();
        if state.queue.overdue() {
            state.admit();
        }
        let mut woken = std::mem::take(&mut state.granted);
        woken.extend(state.queue.take_given_up());
        woken
    }

    /// Lets those in who were enrolled while the records were read. Containers that no record speaks of any more, or that are
    /// on their way out, keep their accelerators until they are swept.
    pub(crate) fn open(&self, work: &WorkDir) {
        let noted = work.workloads().and_then(|all| {
            let each = |workload: WorkloadId| Ok((workload.clone(), work.noted_devices(&workload)?));
            all.into_iter().map(each).collect::<io::Result<BTreeMap<_, _>>>()
        });
        let mut state = self.lock();
        state.before = match noted {
            Ok(mut noted) => {
                noted.retain(|workload, _| !state.devices.contains_key(workload));
                Some(noted)
            }
            Err(error) => {
                tracing::error!(%error, "who has which accelerators cannot be read: nobody gets any until the next start");
                None
            }
        };
        state.admit();
    }

    /// What is held and who waits, for the operator.
    pub fn usage(&self) -> Usage {
        let state = self.lock();
        let mut running: BTreeMap<(&Owner, &str), Holder> = BTreeMap::new();
        for hold in state.queue.held().values() {
            let place = (&hold.owner, hold.instance_type.as_str());
            let holder = running
                .entry(place)
                .or_insert_with(|| Holder::new(&hold.owner, &hold.instance_type, None));
            holder.add(hold.amount);
        }
        let mut running: Vec<Holder> = running.into_values().collect();
        running.extend(state.queue.kept().map(|(owner, pool)| {
            let mut holder = Holder::new(owner, &pool.instance_type, None);
            holder.kind = "warm_pool".into();
            holder.instances = pool.instances;
            (holder.vcpus, holder.memory_mib) = (pool.amount.vcpus, pool.amount.memory_mib);
            holder
        }));
        let waiting = state.queue.order().into_iter().map(|request| {
            let first = request.instances.first().map(|one| one.instance_type.clone());
            let mut holder = Holder::new(&request.owner, &first.unwrap_or_default(), Some(request.since));
            for one in &request.instances {
                holder.add(one.amount);
            }
            holder
        });
        let (capacity, total) = (state.queue.capacity(), state.queue.total());
        Usage {
            vcpus: total.vcpus,
            memory_mib: total.memory_mib,
            capacity_vcpus: capacity.vcpus,
            capacity_memory_mib: capacity.memory_mib,
            waiting: waiting.collect(),
            running,
        }
    }

    /// A job that has not ended, as the engine starts: what is on the host or has begun has room, what has not waits.
    pub(crate) fn adopt_job<J: Job>(&self, deps: &Deps, key: &Key, job: &J) {
        let on_host = job.run().placements().any(|one| deps.seen.get(&one.workload).is_some());
        let waits = match job.phase() {
            SecondaryStatus::Starting | SecondaryStatus::Pending | SecondaryStatus::Restarting => !on_host,
            SecondaryStatus::Stopping if !on_host => return,
            _ => false,
        };
        let Some(request) = request_of(deps, key, job) else {
            return;
        };
        self.adopt(deps, request, waits);
    }

    /// As [`Self::adopt_job`].
    pub(crate) fn adopt_transform(&self, deps: &Deps, key: &Key, job: &TransformJob) {
        let on_host = job.placements().any(|one| deps.seen.get(&one.workload).is_some());
        let begun = on_host || job.run.instances.iter().any(|instance| instance.launched.is_some());
        if job.status == TransformJobStatus::InProgress || begun {
            let workloads = job.placements().map(|one| one.workload.clone());
            let instance_type = &job.spec.instance_type;
            if let Ok(request) = deps.request::<TransformJob>(key, job.created, [(workloads.collect(), instance_type)])
            {
                self.adopt(deps, request, !begun);
            }
        }
    }

    /// As [`Self::adopt_job`]. A container that is to be removed keeps its room until it is.
    pub(crate) fn adopt_notebook(&self, deps: &Deps, key: &Key, notebook: &NotebookInstance) {
        let (run, instance_type) = (&notebook.run, &notebook.spec.instance_type);
        let on_host: Vec<WorkloadId> = notebook
            .placements()
            .map(|placement| placement.workload.clone())
            .filter(|workload| deps.seen.get(workload).is_some())
            .collect();
        let waits = on_host.is_empty();
        if waits && (notebook.status != NotebookStatus::Pending || run.placement.is_none()) {
            return;
        }
        let placed = run.placement.iter().map(|placement| placement.workload.clone());
        let workloads = if waits { placed.collect() } else { on_host };
        if let Ok(request) = deps.request::<NotebookInstance>(key, run.since, [(workloads, instance_type)]) {
            self.adopt(deps, request, waits);
        }
    }

    /// What serves keeps its room, also where a container is to be replaced; the rest waits.
    pub(crate) fn adopt_endpoint(&self, deps: &Deps, key: &Key, endpoint: &Endpoint) {
        let owner = Owner {
            kind: Endpoint::KIND,
            key: key.clone(),
        };
        let serves = matches!(
            endpoint.status,
            EndpointStatus::InService | EndpointStatus::UpdateRollbackFailed
        );
        for fleet in endpoint.active.iter().chain(&endpoint.pending) {
            for (variant, instance) in fleet.instances() {
                let workload = &instance.placement.workload;
                let holds = serves || instance.healthy || deps.seen.get(workload).is_some();
                let instance_type = &variant.variant.instance_type;
                if let (true, Ok(amount)) = (holds, deps.amount(instance_type)) {
                    self.adopt_devices(deps, workload, amount);
                    let mut state = self.lock();
                    for one in Wanted::each([workload.clone()], instance_type, amount) {
                        state.queue.keep(&owner, one);
                    }
                }
            }
        }
    }

    fn adopt(&self, deps: &Deps, request: Request, waits: bool) {
        if waits {
            self.lock().queue.enrol(request);
            return;
        }
        for one in &request.instances {
            self.adopt_devices(deps, &one.workload, one.amount);
        }
        let mut state = self.lock();
        for one in request.instances {
            state.queue.keep(&request.owner, one);
        }
    }
}

impl State {
    fn admit(&mut self) {
        let more = self.queue.admit();
        self.granted.extend(more);
    }
}

/// What a job asks for. `None`: its instance type is known no more, which its launch tells.
pub(crate) fn request_of<J: Job>(deps: &Deps, key: &Key, job: &J) -> Option<Request> {
    let all = job.run().placements().enumerate();
    let each = all.map(|(number, one)| (vec![one.workload.clone()], job.instance_type(number)));
    deps.request::<J>(key, job.facets().created, each).ok()
}

impl Deps {
    /// What an instance of a type takes.
    pub(crate) fn amount(&self, instance_type: &str) -> Result<Amount, UnknownInstanceType> {
        let shape = self.settings.instances.shape(instance_type);
        let shape = shape.ok_or_else(|| UnknownInstanceType::Name(instance_type.into()))?;
        Ok(Amount {
            vcpus: shape.vcpus,
            memory_mib: shape.memory_mib,
            accelerators: shape.accelerators,
        })
    }

    /// A request for workloads of these instance types, together.
    pub(crate) fn request<'a, R: Record>(
        &self,
        key: &Key,
        since: Timestamp,
        wanted: impl IntoIterator<Item = (Vec<WorkloadId>, impl AsRef<str> + 'a)>,
    ) -> Result<Request, UnknownInstanceType> {
        let mut instances = Vec::new();
        for (workloads, instance_type) in wanted {
            let instance_type = instance_type.as_ref();
            instances.extend(Wanted::each(workloads, instance_type, self.amount(instance_type)?));
        }
        Ok(Request {
            owner: Owner {
                kind: R::KIND,
                key: key.clone(),
            },
            since,
            instances,
        })
    }
}

/// What is reserved on this machine, for `isolarium top`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Held by all that run.
    pub vcpus: u64,
    pub memory_mib: u64,
    /// What may be held; none: no limit.
    pub capacity_vcpus: Option<u64>,
    pub capacity_memory_mib: Option<u64>,
    /// Jobs and endpoints with room, by kind and name; one with several instance types has a row for each. Last the warm
    /// pools, whose room is not part of the sums above: whoever needs it gets it.
    pub running: Vec<Holder>,
    /// Those that wait, the next one first.
    pub waiting: Vec<Holder>,
}

/// A job or endpoint with what it holds or waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// `training_job`, `transform_job`, `endpoint`, `warm_pool` and so on.
    pub kind: String,
    pub account: String,
    pub region: String,
    /// In small letters, as records are keyed.
    pub name: String,
    pub instance_type: String,
    pub instances: u64,
    /// Of all instances together.
    pub vcpus: u64,
    pub memory_mib: u64,
    /// Milliseconds since 1970: waits since then. None: it has room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
}

impl Holder {
    fn new(owner: &Owner, instance_type: &str, since: Option<Timestamp>) -> Self {
        let kind = owner.kind.rsplit_once('.').map_or(owner.kind, |(_, kind)| kind);
        Self {
            kind: kind.into(),
            account: owner.key.scope.account.to_string(),
            region: owner.key.scope.region.to_string(),
            name: owner.key.name.to_string(),
            instance_type: instance_type.into(),
            instances: 0,
            vcpus: 0,
            memory_mib: 0,
            since: since.map(|time| time.0),
        }
    }

    fn add(&mut self, amount: Amount) {
        self.instances = self.instances.saturating_add(1);
        self.vcpus = self.vcpus.saturating_add(amount.vcpus);
        self.memory_mib = self.memory_mib.saturating_add(amount.memory_mib);
    }
}

#[cfg(test)]
mod tests;
