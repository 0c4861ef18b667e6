//! The queue of an asynchronous endpoint: its records in the order of their acceptance, as many of them under way as its
//! healthy instances take (SM-55). What runs is known to this process alone: after a restart it runs again.

use super::{Container, EndpointMemory, Work, actor_of};
use crate::asynchronous::{self, Outcome, Running, Task};
use crate::deps::StepError;
use isolarium_model::sagemaker::async_inference::AsyncInvocation;
use isolarium_model::sagemaker::endpoint::Instance;
use isolarium_model::sagemaker::{Endpoint, VariantFleet};
use isolarium_model::{Timestamp, WorkloadId};
use isolarium_runtime::executor::ExecutorError;
use isolarium_store::Batch;
use isolarium_store::state::{Query, SortBy};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Containers that may break a request off before it is given up.
const TRIES: u32 = 3;

/// The pause before another try; doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Requests at the front of the queue that are looked at even where nothing can begin: they may have waited too long.
const FRONT: usize = 16;

/// How often the end of what runs is looked for, besides the commits that tell of it.
const LOOK: Duration = Duration::from_secs(1);

/// What this process knows of the requests of one endpoint.
#[derive(Default)]
pub(super) struct Queue {
    running: BTreeMap<String, Running>,
    pauses: BTreeMap<String, Pause>,
}

/// A request that did not end and waits for another try.
#[derive(Clone, Copy)]
struct Pause {
    tries: u32,
    broken: u32,
    until: Timestamp,
}

impl Pause {
    /// Of a request that was not tried.
    const NONE: Self = Self {
        tries: 0,
        broken: 0,
        until: Timestamp(0),
    };
}

impl Queue {
    /// Takes what has ended out of what runs.
    fn gather(&mut self, now: Timestamp) {
        let ended: Vec<_> = self
            .running
            .iter()
            .filter_map(|(id, running)| Some((id.clone(), running.outcome()?)))
            .collect();
        for (id, outcome) in ended {
            self.running.remove(&id);
            if outcome == Outcome::Over {
                self.pauses.remove(&id);
                continue;
            }
            let pause = self.pauses.entry(id).or_insert(Pause::NONE);
            let factor = 1u32.checked_shl(pause.tries.min(16)).unwrap_or(u32::MAX);
            pause.until = now.after(PAUSE.saturating_mul(factor).min(LONGEST_PAUSE));
            pause.tries = pause.tries.saturating_add(1);
            pause.broken = pause.broken.saturating_add(u32::from(outcome == Outcome::Broken));
        }
    }
}

impl Work<'_> {
    /// Begins with as many requests as the instances take. Says when to look again.
    pub(super) fn queue(&self, endpoint: &Endpoint, memory: &mut EndpointMemory) -> Result<Timestamp, StepError> {
        let fleet = endpoint.active.as_ref().filter(|_| endpoint.status.serves());
        let Some((fleet, settings)) = fleet.and_then(|fleet| Some((fleet, fleet.asynchronous.as_ref()?))) else {
            return Ok(Timestamp(i64::MAX));
        };
        let Some(variant) = fleet.variants.first() else {
            return Ok(Timestamp(i64::MAX));
        };
        let now = self.deps.now();
        let EndpointMemory { containers, queue, .. } = memory;
        queue.gather(now);
        let mut free = free(variant, containers, &queue.running, settings.concurrency());
        let room: usize = free.values().map(|(_, room)| room).sum();
        let looked = queue.running.len().saturating_add(queue.pauses.len());
        let query = Query {
            sort_by: SortBy::Created,
            part_of: vec![self.key.name.to_string()],
            limit: looked.saturating_add(room).saturating_add(FRONT),
            ..Query::all(&self.key.scope)
        };
        let rows = self.deps.store.query::<AsyncInvocation>(&query)?.rows;
        let known: HashMap<&str, ()> = rows.iter().map(|row| (row.record.id.as_str(), ())).collect();
        queue.pauses.retain(|id, _| known.contains_key(id.as_str()));
        let mut next = Timestamp(i64::MAX);
        for row in &rows {
            let request = &row.record;
            if queue.running.contains_key(&request.id) {
                continue;
            }
            let pause = queue.pauses.get(&request.id).copied().unwrap_or(Pause::NONE);
            // One that a container was sent may be run already.
            let waits = pause.broken == 0;
            let expired = now >= request.expires && waits;
            if now < pause.until {
                next = next.min(pause.until);
                continue;
            }
            if waits && !expired {
                next = next.min(request.expires);
            }
            let task = if expired {
                Some(Task::GiveUp(
                    "The request expired: it waited in the queue for longer than its RequestTTLSeconds.".into(),
                ))
            } else if pause.broken >= TRIES {
                let text = "The container broke the request off each time that it was sent.";
                Some(Task::GiveUp(text.into()))
            } else {
                self.freest(&mut free)
            };
            let Some(task) = task else { continue };
            let Some(place) = self.deps.asynchronous.take(&self.key.scope.account) else {
                next = next.min(now.after(LOOK));
                break;
            };
            let sealing = settings.kms_key.as_ref();
            let actor = actor_of(self.key, endpoint, variant).sealing(sealing);
            let desk = variant.instances.first().map(|one| &one.placement.workload);
            let desk = match &task {
                Task::Ask(busy) => Some(busy.workload()),
                Task::GiveUp(_) => desk,
            };
            let Some(desk) = desk.cloned() else { break };
            let begun = asynchronous::begin(self.deps, actor, &desk, request.clone(), task, place);
            let begun = begun.map_err(|error| StepError::Executor(ExecutorError::Host(error.to_string())))?;
            queue.running.insert(request.id.clone(), begun);
        }
        if !queue.running.is_empty() {
            next = next.min(now.after(LOOK));
        }
        Ok(next)
    }

    /// The container with the most room, which has one request more from now on.
    fn freest(&self, free: &mut BTreeMap<&WorkloadId, (&Container, usize)>) -> Option<Task> {
        let (container, room) = free.values_mut().max_by_key(|(_, room)| *room)?;
        *room = room.checked_sub(1)?;
        Some(Task::Ask(container.target.busy()))
    }

    /// Deletes what waits for an endpoint that is deleted.
    pub(super) fn forget_requests(&self, batch: Batch) -> Result<Batch, StepError> {
        let waiting = self
            .deps
            .store
            .parts::<AsyncInvocation>(&self.key.scope, &[self.key.name.to_string()])?;
        if !waiting.is_empty() {
            tracing::info!(endpoint = %self.key.name, requests = waiting.len(), "requests that waited go with their endpoint");
        }
        let gone = waiting.iter().fold(batch, |batch, one| {
            batch.delete::<AsyncInvocation>(&one.key, isolarium_store::Expect::Any)
        });
        Ok(gone)
    }
}

/// The healthy containers and how many requests more they take.
fn free<'a>(
    variant: &'a VariantFleet,
    containers: &'a BTreeMap<WorkloadId, Container>,
    running: &BTreeMap<String, Running>,
    most: usize,
) -> BTreeMap<&'a WorkloadId, (&'a Container, usize)> {
    let own = |instance: &'a Instance| {
        let workload = &instance.placement.workload;
        let container = containers.get(workload).filter(|container| container.healthy)?;
        let busy = running
            .values()
            .filter(|one| one.workload.as_ref() == Some(workload))
            .count();
        Some((workload, (container, most.saturating_sub(busy))))
    };
    variant.instances.iter().filter_map(own).collect()
}

#[cfg(test)]
mod tests;
