//! One endpoint: bring the wanted fleet up, switch to it, keep it healthy, let the old one go (SM-22, SM-23, CC-49,
//! CC-54). A new fleet serves before an old one is touched, so an update loses no request (AU-27).

use crate::capture::Capture;
use crate::deps::{Deps, Next, StepError};
use crate::driver::side_by_side;
use crate::fleets::{EndpointRoutes, Shifted, Target, VariantRoute};
use crate::logs::{self, Drained, LogCursor, Sink};
use crate::many_models::Shelf;
use crate::transfer::Actor;
use isolarium_model::sagemaker::endpoint::{Instance, Retiring, VariantFleet};
use isolarium_model::sagemaker::model::{ModelSpec, ResolvedImage};
use isolarium_model::sagemaker::{Endpoint, EndpointEvent, EndpointStatus, Fleet, Takeover};
use isolarium_model::{Arn, Key, Timestamp, WorkloadId};
use isolarium_runtime::executor::WorkloadState;
use isolarium_store::{Batch, Expect};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod queue;
mod takeover;
mod tend;

use takeover::wanted;
use tend::{Ready, Tending, Verdict};

/// Time between looks at a container whose running requests are waited for.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Time between looks for new blocked attempts of a serving container.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// How long the last lines of an ended container are waited for.
const LAST_LINES: Duration = Duration::from_secs(10);

/// What the loop remembers between steps; all of it can be found again.
#[derive(Default)]
pub(crate) struct EndpointMemory {
    containers: BTreeMap<WorkloadId, Container>,
    /// What is kept of invocations; those of fleets that are gone stay until they are delivered.
    captures: Vec<(String, Arc<Capture>)>,
    /// Requests of an asynchronous endpoint.
    queue: queue::Queue,
}

/// Captures of fleets that serve no more which an endpoint keeps until they are delivered; the oldest go first.
const OLD_CAPTURES: usize = 16;

/// One container of the endpoint.
pub(crate) struct Container {
    logs: LogCursor,
    /// Requests that run on it; shared with the routing table.
    target: Arc<Target>,
    /// It answered its last pings.
    healthy: bool,
    failures: u32,
    last_ping: Option<Timestamp>,
    last_report: Option<Timestamp>,
    /// This process launched it.
    launched: bool,
    /// When it did, which is after the model data was loaded.
    started: Option<Timestamp>,
    image: Option<ResolvedImage>,
    /// SIGTERM was sent at this time.
    terminated: Option<Timestamp>,
    ended_seen: Option<Timestamp>,
    /// The instance's further containers, in the model's order.
    others: Vec<Beside>,
    /// What its containers are to run, by their numbers, where that was brought here before they may be launched.
    ready: BTreeMap<usize, Ready>,
    /// The one of several that did not answer the last pings.
    silent: Option<String>,
}

/// A container in the network namespace of an instance's first one.
#[derive(Default)]
struct Beside {
    logs: LogCursor,
    /// This process launched it.
    launched: bool,
    image: Option<ResolvedImage>,
}

impl Container {
    /// `model` is what it serves, `None` when it serves no more.
    fn new(deps: &Deps, key: &Key, model: Option<&ModelSpec>, instance: &Instance) -> Self {
        let target = match model {
            Some(model) => Target::of(model, instance, Shelf::of(deps, key, model, instance)),
            None => Target::new(instance.placement.workload.clone(), instance.id.clone()),
        };
        Self {
            logs: LogCursor::default(),
            target,
            others: instance.others.iter().map(|_| Beside::default()).collect(),
            ready: BTreeMap::new(),
            silent: None,
            // A container that was healthy before a restart of the engine keeps serving while it is looked at.
            healthy: instance.healthy,
            failures: 0,
            last_ping: None,
            last_report: None,
            launched: false,
            started: None,
            image: None,
            terminated: None,
            ended_seen: None,
        }
    }

    /// How far the output of the instance's container was read.
    fn cursor(&mut self, number: usize) -> Option<&mut LogCursor> {
        match number.checked_sub(1) {
            None => Some(&mut self.logs),
            Some(other) => self.others.get_mut(other).map(|beside| &mut beside.logs),
        }
    }
}

/// The stream of a container: one of several has its name behind the instance's (CC-90).
fn stream(variant: &str, instance: &str, name: Option<&str>) -> String {
    match name {
        None => format!("{variant}/{instance}"),
        Some(name) => format!("{variant}/{instance}/{name}"),
    }
}

/// Takes one endpoint as far as it goes now.
pub(crate) fn step(deps: &Deps, key: &Key, memory: &mut EndpointMemory) -> Result<Next, StepError> {
    let Some(stored) = deps.store.get::<Endpoint>(key)? else {
        deps.fleets.withdraw(key);
        return Ok(Next::Done);
    };
    let work = Work { deps, key };
    let mut endpoint = stored.record;
    if endpoint.status == EndpointStatus::Deleting {
        deps.fleets.withdraw(key);
        return work.delete(endpoint, memory);
    }
    (endpoint, _) = work.fit(endpoint)?;
    let room = work.room(&endpoint);
    for (model, instance) in instances(&endpoint) {
        memory
            .containers
            .entry(instance.placement.workload.clone())
            .or_insert_with(|| Container::new(deps, key, model, instance));
    }
    let (mut verdicts, mut next) = work.tend(&endpoint, memory, room)?;
    let displaces = work.displaces(&endpoint, &mut verdicts, room, &mut next);
    endpoint = work.decide(endpoint, memory, &verdicts, displaces)?;
    let fitted;
    (endpoint, fitted) = work.fit(endpoint)?;
    if fitted {
        // What comes back has its room before what goes gives it to others.
        work.room(&endpoint);
        next = deps.now();
    }
    next = next.min(takeover::due(&endpoint, deps.now()));
    work.publish(&endpoint, memory);
    next = next.min(work.deliver(&endpoint, memory));
    next = next.min(work.queue(&endpoint, memory)?);
    next = next.min(work.retire(&endpoint, memory)?);
    if takeover::rolled_back(&endpoint) {
        work.change(|endpoint, now| Ok(roll_back_done(endpoint, now)?))?;
        endpoint.active.iter().for_each(|fleet| work.trim(fleet));
    }
    Ok(Next::At(next))
}

/// What the loop knows of an endpoint before its first step: the containers of its record. Shows those that served
/// before a restart of the engine to the proxy, if they still run.
pub(crate) fn adopt(deps: &Deps, key: &Key, endpoint: &Endpoint) -> EndpointMemory {
    let mut memory = EndpointMemory::default();
    for (model, instance) in instances(endpoint) {
        let mut container = Container::new(deps, key, model, instance);
        let runs = |workload| matches!(deps.seen.get(workload), Some(WorkloadState::Running { .. }));
        container.healthy &= instance.workloads().all(runs);
        memory.containers.insert(instance.placement.workload.clone(), container);
    }
    Work { deps, key }.publish(endpoint, &mut memory);
    memory
}

fn roll_back_done(
    endpoint: &mut Endpoint,
    now: Timestamp,
) -> Result<bool, isolarium_model::sagemaker::IllegalTransition> {
    if !takeover::rolled_back(endpoint) {
        return Ok(false);
    }
    endpoint.apply(EndpointEvent::RolledBack, now)?;
    Ok(true)
}

/// Every instance with what it serves, if it does.
fn instances(endpoint: &Endpoint) -> impl Iterator<Item = (Option<&ModelSpec>, &Instance)> {
    let fleets = endpoint.active.iter().chain(&endpoint.pending);
    let serving = fleets.flat_map(Fleet::instances);
    let serving = serving.map(|(variant, instance)| (Some(&variant.model), instance));
    serving.chain(endpoint.retiring.iter().map(|retiring| (None, &retiring.instance)))
}

struct Work<'a> {
    deps: &'a Deps,
    key: &'a Key,
}

/// Whether the instances of an endpoint have room on the machine.
#[derive(Clone, Copy, Debug)]
enum Room {
    There,
    /// Those that have none yet may wait until then.
    WaitsUntil(Timestamp),
}

impl Work<'_> {
    /// Changes the record; `change` says whether there is anything to write.
    fn change(
        &self,
        mut change: impl FnMut(&mut Endpoint, Timestamp) -> Result<bool, StepError>,
    ) -> Result<Option<Endpoint>, StepError> {
        let stored = self.deps.update::<Endpoint>(self.key, |endpoint, batch| {
            let changed = change(endpoint, self.deps.now())?;
            Ok(changed.then_some(batch))
        })?;
        Ok(stored.map(|stored| stored.record))
    }

    /// Gives every wanted instance an id, a workload and a network, and lets surplus ones go. Nothing of an instance is
    /// on the host before this is committed. Says whether anything changed.
    fn fit(&self, endpoint: Endpoint) -> Result<(Endpoint, bool), StepError> {
        if takeover::fits(&endpoint) || matches!(endpoint.status, EndpointStatus::Failed | EndpointStatus::Deleting) {
            return Ok((endpoint, false));
        }
        let stored = self.deps.update::<Endpoint>(self.key, |endpoint, batch| {
            let (arn, now) = (endpoint.arn.clone(), self.deps.now());
            let mut batch = batch;
            let mut surplus = Vec::new();
            let way = endpoint.pending.as_ref().and_then(|fleet| fleet.takeover.clone());
            let active = endpoint.active.iter_mut().map(|fleet| (fleet, false));
            for (fleet, pending) in active.chain(endpoint.pending.iter_mut().map(|fleet| (fleet, true))) {
                for variant in &mut fleet.variants {
                    let most = wanted(way.as_ref(), pending, variant);
                    batch = self.grow(variant, most, &arn, now, batch)?;
                    while variant.instances.len() > most {
                        // Whatever is not healthy goes first.
                        let at = variant.instances.iter().position(|i| !i.healthy).unwrap_or(most);
                        let gone = variant.instances.remove(at);
                        surplus.push(retiring(variant, gone, now));
                    }
                }
            }
            endpoint.retiring.extend(surplus);
            Ok(Some(batch))
        })?;
        Ok(match stored {
            Some(stored) => (stored.record, true),
            None => (endpoint, false),
        })
    }

    fn grow(
        &self,
        variant: &mut VariantFleet,
        most: usize,
        arn: &Arn,
        now: Timestamp,
        batch: Batch,
    ) -> Result<Batch, StepError> {
        let mut batch = batch;
        while variant.instances.len() < most {
            let (instance, more) = self.instance(variant, arn, now, now, 0, batch)?;
            variant.instances.push(instance);
            batch = more;
        }
        Ok(batch)
    }

    fn instance(
        &self,
        variant: &VariantFleet,
        arn: &Arn,
        since: Timestamp,
        not_before: Timestamp,
        restarts: u32,
        batch: Batch,
    ) -> Result<(Instance, Batch), StepError> {
        let (placement, batch) = self.deps.place(&variant.model.network, self.key, arn, batch)?;
        let id = format!("i-{}", self.deps.ids.hex(17));
        let others = (1..variant.model.count()).map(|_| self.deps.fresh_workload());
        let others = others.collect::<Result<_, _>>()?;
        Ok((
            Instance {
                id,
                placement,
                since,
                not_before,
                healthy: false,
                restarts,
                others,
            },
            batch,
        ))
    }

    /// Looks after every instance: launches, pings, reads output. Returns what was found and when to look again.
    fn tend(
        &self,
        endpoint: &Endpoint,
        memory: &mut EndpointMemory,
        room: Room,
    ) -> Result<(BTreeMap<WorkloadId, Verdict>, Timestamp), StepError> {
        if endpoint.status == EndpointStatus::Failed {
            return Ok((BTreeMap::new(), Timestamp(i64::MAX)));
        }
        let makes_way = self.makes_way(endpoint, room);
        let waits_for_old = takeover::goes_first(endpoint) && !endpoint.retiring.is_empty();
        let on_trial = |workload: &WorkloadId| {
            let pending = endpoint.pending.iter().flat_map(Fleet::instances);
            pending.into_iter().any(|(_, one)| one.placement.workload == *workload)
        };
        let fleets = endpoint.active.iter().chain(&endpoint.pending);
        let mut pairs: BTreeMap<&WorkloadId, (&VariantFleet, &Instance)> = fleets
            .flat_map(Fleet::instances)
            .map(|pair| (&pair.1.placement.workload, pair))
            .collect();
        let work = memory.containers.iter_mut().filter_map(|(workload, container)| {
            let (variant, instance) = pairs.remove(workload)?;
            Some(Tending {
                deps: self.deps,
                key: self.key,
                endpoint,
                variant,
                instance,
                only_ready: makes_way && on_trial(workload) && !self.deps.scheduler.holds(workload),
                waits_for_old,
                container,
                room,
            })
        });
        let mut verdicts = BTreeMap::new();
        let mut next = Timestamp(i64::MAX);
        let mut failed = None;
        for (workload, result) in side_by_side(work.collect(), |mut tending: Tending<'_>| {
            (tending.instance.placement.workload.clone(), tending.look())
        }) {
            match result {
                Ok((verdict, again)) => {
                    next = next.min(again);
                    verdicts.insert(workload, verdict);
                }
                // One instance's trouble must not keep the others from being looked after.
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            if verdicts.is_empty() {
                return Err(error);
            }
            tracing::warn!(endpoint = %endpoint.arn, cause = crate::driver::chain(&error), "an instance could not be looked after");
            next = next.min(self.deps.now().after(self.deps.settings.retry));
        }
        Ok((verdicts, next))
    }

    /// Draws the consequences of what was found, in one commit.
    fn decide(
        &self,
        endpoint: Endpoint,
        memory: &EndpointMemory,
        verdicts: &BTreeMap<WorkloadId, Verdict>,
        displaces: bool,
    ) -> Result<Endpoint, StepError> {
        let mut replaced = Vec::new();
        let stored = self.deps.update::<Endpoint>(self.key, |endpoint, batch| {
            replaced.clear();
            if matches!(endpoint.status, EndpointStatus::Deleting | EndpointStatus::Failed) {
                return Ok(None);
            }
            let now = self.deps.now();
            let before = endpoint.clone();
            note_starts(endpoint, memory);
            note_health(endpoint, memory, verdicts);
            let lost = takeover::lost(endpoint, verdicts);
            let batch = self.replace_dead(endpoint, verdicts, now, batch, &mut replaced)?;
            self.settle(endpoint, verdicts, now, lost, displaces)?;
            Ok((*endpoint != before).then_some(batch))
        })?;
        for (old, new) in &replaced {
            self.deps.scheduler.succeed(old, new);
        }
        Ok(stored.map_or(endpoint, |stored| stored.record))
    }

    /// A dead container is replaced by a new one under a new id, after a wait that doubles. It keeps its room: `replaced` says
    /// which workload takes whose.
    fn replace_dead(
        &self,
        endpoint: &mut Endpoint,
        verdicts: &BTreeMap<WorkloadId, Verdict>,
        now: Timestamp,
        batch: Batch,
        replaced: &mut Vec<(WorkloadId, WorkloadId)>,
    ) -> Result<Batch, StepError> {
        let arn = endpoint.arn.clone();
        let mut batch = batch;
        let mut gone = Vec::new();
        let serving = endpoint.status.serves();
        for (is_active, fleet) in endpoint
            .active
            .iter_mut()
            .map(|f| (true, f))
            .chain(endpoint.pending.iter_mut().map(|f| (false, f)))
        {
            for variant in &mut fleet.variants {
                for at in 0..variant.instances.len() {
                    let Some(old) = variant.instances.get(at).cloned() else {
                        continue;
                    };
                    let dead = match verdicts.get(&old.placement.workload) {
                        Some(Verdict::Dead) => true,
                        // An instance of the serving fleet is tried for ever; one of a new fleet fails the fleet.
                        Some(Verdict::Broken(why))
                            if is_active && serving && endpoint.status != EndpointStatus::Updating =>
                        {
                            tracing::warn!(endpoint = %arn, why, "an instance does not come up again; trying on");
                            true
                        }
                        Some(Verdict::Broken(_) | Verdict::Ready | Verdict::Starting | Verdict::Healthy) | None => {
                            false
                        }
                    };
                    if !dead {
                        continue;
                    }
                    let wait = backoff(&self.deps.settings, old.restarts);
                    // Before its first good ping the start-up deadline goes on; afterwards it begins anew.
                    let since = if old.healthy || is_active {
                        now.after(wait)
                    } else {
                        old.since
                    };
                    let restarts = if old.healthy { 0 } else { old.restarts.saturating_add(1) };
                    let (fresh, more) = self.instance(variant, &arn, since, now.after(wait), restarts, batch)?;
                    batch = more;
                    replaced.push((old.placement.workload.clone(), fresh.placement.workload.clone()));
                    if let Some(slot) = variant.instances.get_mut(at) {
                        *slot = fresh;
                    }
                    gone.push(retiring(variant, old, now));
                }
            }
        }
        endpoint.retiring.extend(gone);
        Ok(batch)
    }

    /// Shows the proxy which containers serve now.
    fn publish(&self, endpoint: &Endpoint, memory: &mut EndpointMemory) {
        let Some(active) = endpoint.active.as_ref().filter(|_| endpoint.status.serves()) else {
            self.deps.fleets.withdraw(self.key);
            return;
        };
        let pending = endpoint.pending.as_ref();
        let shift = pending.and_then(|fleet| match fleet.takeover.as_ref()? {
            Takeover::Shift(shift) => Some((fleet, shift.share())),
            Takeover::InPlace => None,
        });
        let mut captures = Vec::new();
        let variants = self.variant_routes(endpoint, active, memory, &mut captures);
        let shifted = shift.map(|(fleet, share)| Shifted {
            share,
            variants: self.variant_routes(endpoint, fleet, memory, &mut captures),
        });
        bound(&mut memory.captures, &captures);
        let routes = EndpointRoutes {
            name: endpoint.name.clone(),
            variants,
            asynchronous: active.asynchronous.is_some(),
            shifted,
        };
        self.deps.fleets.publish(self.key, routes);
    }

    /// The healthy containers of a fleet. What keeps its invocations is added to `captures`.
    fn variant_routes(
        &self,
        endpoint: &Endpoint,
        fleet: &Fleet,
        memory: &mut EndpointMemory,
        captures: &mut Vec<Option<Arc<Capture>>>,
    ) -> Vec<VariantRoute> {
        let EndpointMemory {
            containers,
            captures: known,
            ..
        } = memory;
        let target = |instance: &Instance| {
            let container = containers.get(&instance.placement.workload)?;
            container.healthy.then(|| Arc::clone(&container.target))
        };
        let routes = fleet.variants.iter().map(|variant| {
            let capture = self.capture(endpoint, fleet, variant, known);
            captures.push(capture.clone());
            VariantRoute {
                capture,
                name: variant.variant.name.clone(),
                weight: variant.current_weight,
                most: most_requests(variant),
                targets: variant.instances.iter().filter_map(target).collect(),
            }
        });
        routes.collect()
    }

    /// Where a variant's invocations are kept: as before while what is asked for, and who delivers it, is the same. Nothing
    /// of a variant in a VPC: its data would have to travel through that. Creations refuse it.
    fn capture(
        &self,
        endpoint: &Endpoint,
        active: &Fleet,
        variant: &VariantFleet,
        known: &mut Vec<(String, Arc<Capture>)>,
    ) -> Option<Arc<Capture>> {
        let wanted = active.capture.as_ref().filter(|capture| capture.enabled)?;
        if variant.model.network.vpc().is_some() {
            return None;
        }
        let actor = actor_of(self.key, endpoint, variant).sealing(wanted.kms_key.as_ref());
        let variant = variant.variant.name.as_str();
        let same = known
            .iter()
            .find(|(name, capture)| name == variant && capture.is_for(wanted, &actor));
        if let Some((_, capture)) = same {
            return Some(Arc::clone(capture));
        }
        let clock = Arc::clone(&self.deps.clock);
        let budget = Arc::clone(&self.deps.captured);
        let capture = Capture::new(wanted.clone(), actor, &endpoint.name, variant, clock, budget);
        known.push((variant.to_owned(), Arc::clone(&capture)));
        Some(capture)
    }

    /// Delivers what was captured and has waited long enough; at once what nobody adds to any more (CC-61, CC-63).
    fn deliver(&self, endpoint: &Endpoint, memory: &mut EndpointMemory) -> Timestamp {
        let (now, mut next) = (self.deps.now(), Timestamp(i64::MAX));
        let ending = endpoint.status == EndpointStatus::Deleting;
        memory.captures.retain(|(variant, capture)| {
            // The other holder is the routing table, or a request that runs.
            let alone = Arc::strong_count(capture) == 1;
            let Some(due) = capture.due(self.deps.settings.capture_interval) else {
                return !alone;
            };
            let at_once = ending || (alone && capture.moves());
            if now < due && !at_once {
                next = next.min(due);
                return true;
            }
            let Some(workload) = work_place(endpoint, variant) else {
                return !alone;
            };
            capture.deliver(self.deps, workload, alone);
            if let Some(due) = capture.due(self.deps.settings.capture_interval) {
                next = next.min(due);
                return true;
            }
            !alone
        });
        next
    }

    /// Running requests finish, SIGTERM, grace, SIGKILL, gone (CC-54). Traffic was withdrawn before.
    fn retire(&self, endpoint: &Endpoint, memory: &mut EndpointMemory) -> Result<Timestamp, StepError> {
        let mut next = Timestamp(i64::MAX);
        for leaving in &endpoint.retiring {
            let workload = &leaving.instance.placement.workload;
            let container = memory
                .containers
                .entry(workload.clone())
                .or_insert_with(|| Container::new(self.deps, self.key, None, &leaving.instance));
            if let Some(again) = self.retire_one(endpoint, leaving, container)? {
                next = next.min(again);
            } else {
                memory.containers.remove(workload);
            }
        }
        Ok(next)
    }

    fn retire_one(
        &self,
        endpoint: &Endpoint,
        leaving: &Retiring,
        container: &mut Container,
    ) -> Result<Option<Timestamp>, StepError> {
        let deps = self.deps;
        let actor = Deps::actor(self.key, &leaving.role_arn, &endpoint.arn);
        let group = endpoint.log_group();
        let now = deps.now();
        let mut alive = Vec::new();
        let mut complete = true;
        for (number, workload) in leaving.instance.workloads().enumerate() {
            if let Some(WorkloadState::Running { .. }) = deps.state_of(workload)? {
                alive.push(workload);
            }
            let stream = leaving_stream(leaving, number);
            let sink = Sink {
                job: None,
                actor: &actor,
                group: &group,
                stream: &stream,
            };
            if let Some(cursor) = container.cursor(number) {
                complete &= logs::pump(deps, &sink, workload, cursor, None)? == Drained::Complete;
            }
        }
        if alive.is_empty() {
            let seen = *container.ended_seen.get_or_insert(now);
            if !complete && now.since(seen) < LAST_LINES {
                return Ok(Some(now.after(Duration::from_millis(10))));
            }
            self.forget(endpoint, leaving, &actor, container)?;
            return Ok(None);
        }
        let overdue = now >= leaving.since.after(deps.settings.drain_limit);
        if container.target.in_flight() > 0 && !overdue && container.terminated.is_none() {
            return Ok(Some(now.after(DRAIN_POLL)));
        }
        let end = |kill| {
            let ended = alive
                .iter()
                .try_for_each(|workload| deps.executor.terminate(workload, kill));
            ended.map_err(StepError::Executor)
        };
        let Some(asked) = container.terminated else {
            end(false)?;
            container.terminated = Some(now);
            return Ok(Some(now.after(deps.settings.hosting_grace)));
        };
        let limit = asked.after(deps.settings.hosting_grace);
        if now < limit {
            return Ok(Some(limit));
        }
        end(true)?;
        Ok(Some(now.after(Duration::from_secs(1))))
    }

    /// Keeps the isolation report, removes the workloads, and only then drops them from the record: a crash in between
    /// repeats the removal. The first container goes last: its addresses are those of all of them.
    fn forget(
        &self,
        endpoint: &Endpoint,
        leaving: &Retiring,
        actor: &Actor,
        container: &mut Container,
    ) -> Result<(), StepError> {
        let group = endpoint.log_group();
        let mut batch = Batch::default();
        for (number, placement) in leaving.instance.placements().enumerate() {
            let stream = leaving_stream(leaving, number);
            let sink = Sink {
                job: None,
                actor,
                group: &group,
                stream: &stream,
            };
            let Some(cursor) = container.cursor(number) else {
                continue;
            };
            let attempts = logs::report(self.deps, &sink, &placement, cursor)?;
            batch = self
                .deps
                .keep_attempts(&self.key.scope, &placement, &endpoint.arn, &attempts, batch)?;
        }
        if !batch.changes.is_empty() {
            self.deps.store.commit(batch)?;
        }
        for other in &leaving.instance.others {
            self.deps.remove_container(other)?;
        }
        let placement = &leaving.instance.placement;
        self.deps.remove(placement, actor)?;
        self.change(|endpoint, _| {
            endpoint
                .retiring
                .retain(|one| one.instance.placement.workload != placement.workload);
            Ok(true)
        })?;
        Ok(())
    }

    fn delete(&self, endpoint: Endpoint, memory: &mut EndpointMemory) -> Result<Next, StepError> {
        let mut endpoint = endpoint;
        if endpoint.active.is_some() || endpoint.pending.is_some() {
            let changed = self.change(|endpoint, now| {
                let fleets = [endpoint.active.take(), endpoint.pending.take()];
                for fleet in fleets.into_iter().flatten() {
                    retire_fleet(endpoint, fleet, now);
                }
                Ok(true)
            })?;
            let Some(changed) = changed else { return Ok(Next::Done) };
            endpoint = changed;
        }
        self.deliver(&endpoint, memory);
        let next = self.retire(&endpoint, memory)?;
        let Some(stored) = self.deps.store.get::<Endpoint>(self.key)? else {
            return Ok(Next::Done);
        };
        if !stored.record.retiring.is_empty() {
            return Ok(Next::At(next));
        }
        let batch = Batch::default().delete::<Endpoint>(self.key, Expect::At(stored.revision));
        self.deps.store.commit(self.forget_requests(batch)?)?;
        Ok(Next::Done)
    }
}

/// The workload in whose directory captured data is put together: one of the variant if there still is any.
fn work_place<'a>(endpoint: &'a Endpoint, variant: &str) -> Option<&'a WorkloadId> {
    let all = || {
        let fleets = endpoint.active.iter().chain(&endpoint.pending);
        let serving = fleets.flat_map(Fleet::instances);
        let serving = serving.map(|(of, instance)| (&of.variant.name, instance));
        serving.chain(endpoint.retiring.iter().map(|one| (&one.variant, &one.instance)))
    };
    let own = all().find(|(name, _)| name.as_str() == variant);
    own.or_else(|| all().next())
        .map(|(_, instance)| &instance.placement.workload)
}

/// Lets the oldest captures go that serve no more where there are too many: an update a moment must not keep data without end.
fn bound(known: &mut Vec<(String, Arc<Capture>)>, serving: &[Option<Arc<Capture>>]) {
    let serves = |capture: &Arc<Capture>| serving.iter().flatten().any(|one| Arc::ptr_eq(one, capture));
    let old = known.iter().filter(|(_, capture)| !serves(capture)).count();
    let mut surplus = old.saturating_sub(OLD_CAPTURES);
    known.retain(|(_, capture)| {
        let goes = surplus > 0 && !serves(capture);
        surplus = surplus.saturating_sub(usize::from(goes));
        !goes
    });
}

/// How many requests a serverless variant takes at once.
fn most_requests(variant: &VariantFleet) -> Option<usize> {
    let serverless = variant.variant.serverless.as_ref()?;
    Some(usize::try_from(serverless.concurrency).unwrap_or(usize::MAX))
}

fn retiring(variant: &VariantFleet, instance: Instance, now: Timestamp) -> Retiring {
    let role_arn = variant.model.role_arn.clone();
    Retiring {
        variant: variant.variant.name.clone(),
        instance,
        names: variant.model.names(),
        role_arn,
        since: now,
    }
}

fn leaving_stream(leaving: &Retiring, number: usize) -> String {
    let name = leaving.names.get(number).map(String::as_str);
    stream(&leaving.variant, &leaving.instance.id, name)
}

fn retire_fleet(endpoint: &mut Endpoint, fleet: Fleet, now: Timestamp) {
    for mut variant in fleet.variants {
        for instance in std::mem::take(&mut variant.instances) {
            let leaving = retiring(&variant, instance, now);
            endpoint.retiring.push(leaving);
        }
    }
}

/// The start-up deadline counts from the start of the first container (CC-49): pulling the image and loading the model
/// take no time away from it. A container that is started again in the place of one that never answered gets no more.
fn note_starts(endpoint: &mut Endpoint, memory: &EndpointMemory) {
    for fleet in endpoint.active.iter_mut().chain(endpoint.pending.iter_mut()) {
        for instance in fleet.variants.iter_mut().flat_map(|variant| &mut variant.instances) {
            let container = memory.containers.get(&instance.placement.workload);
            if let Some(started) = container.and_then(|one| one.started)
                && !instance.healthy
                && instance.restarts == 0
            {
                instance.since = started;
            }
        }
    }
}

/// Writes into the record which instances have become healthy, and which image they run.
fn note_health(endpoint: &mut Endpoint, memory: &EndpointMemory, verdicts: &BTreeMap<WorkloadId, Verdict>) {
    for fleet in endpoint.active.iter_mut().chain(endpoint.pending.iter_mut()) {
        for variant in &mut fleet.variants {
            for instance in &mut variant.instances {
                let workload = &instance.placement.workload;
                if verdicts.get(workload) == Some(&Verdict::Healthy) && !instance.healthy {
                    instance.healthy = true;
                    instance.restarts = 0;
                    let Some(container) = memory.containers.get(workload) else {
                        continue;
                    };
                    if let Some(image) = container.image.clone() {
                        variant.image = Some(image);
                    }
                    let others: Option<Vec<_>> = container.others.iter().map(|one| one.image.clone()).collect();
                    if let Some(images) = others {
                        variant.other_images = images;
                    }
                }
            }
        }
    }
}

fn backoff(settings: &crate::settings::ReconcileSettings, restarts: u32) -> Duration {
    let factor = 1u32.checked_shl(restarts.min(16)).unwrap_or(u32::MAX);
    settings
        .restart_backoff
        .saturating_mul(factor)
        .min(settings.restart_backoff_max)
}

/// For whom a variant's containers are served.
fn actor_of(key: &Key, endpoint: &Endpoint, variant: &VariantFleet) -> Actor {
    Deps::actor(key, &variant.model.role_arn, &endpoint.arn)
}

#[cfg(test)]
pub(crate) mod tests;
