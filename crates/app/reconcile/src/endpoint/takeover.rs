//! Which fleet an endpoint is to have, and how the one on trial takes the place of the one that serves: as soon as it is
//! healthy, in steps (SM-24), or after it where there is no room for both (AU-28).

use super::tend::Verdict;
use super::{Room, Work, retire_fleet};
use crate::deps::{Deps, StepError};
use crate::scheduler::NO_CAPACITY;
use crate::scheduler::queue::Answer;
use crate::settings::Updates;
use isolarium_model::sagemaker::endpoint::{Instance, VariantFleet};
use isolarium_model::sagemaker::takeover::{Progress, Takeover};
use isolarium_model::sagemaker::{BlockedDestination, Endpoint, EndpointEvent, EndpointStatus, FailureReason, Fleet};
use isolarium_model::{Timestamp, WorkloadId};
use std::collections::BTreeMap;

/// How many instances a variant is to have: of the pending fleet or of the one that serves, while the first takes over
/// in this way.
pub(super) fn wanted(way: Option<&Takeover>, pending: bool, variant: &VariantFleet) -> usize {
    let all = usize::try_from(variant.desired_count).unwrap_or(usize::MAX);
    match (way, pending) {
        (None, _) | (Some(Takeover::InPlace), true) => all,
        (Some(Takeover::InPlace), false) => 0,
        (Some(Takeover::Shift(shift)), true) => shift.fresh(all),
        (Some(Takeover::Shift(shift)), false) => shift.old(all),
    }
}

fn way(endpoint: &Endpoint) -> Option<&Takeover> {
    endpoint.pending.as_ref()?.takeover.as_ref()
}

/// Both fleets, the pending one marked.
fn sides(endpoint: &Endpoint) -> impl Iterator<Item = (&Fleet, bool)> {
    let active = endpoint.active.iter().map(|fleet| (fleet, false));
    active.chain(endpoint.pending.iter().map(|fleet| (fleet, true)))
}

/// Whether both fleets have as many instances as they are to have.
pub(super) fn fits(endpoint: &Endpoint) -> bool {
    let way = way(endpoint);
    sides(endpoint).all(|(fleet, pending)| {
        let mut variants = fleet.variants.iter();
        variants.all(|variant| variant.instances.len() == wanted(way, pending, variant))
    })
}

/// Whether every instance that a fleet is to have is healthy.
fn whole(fleet: &Fleet, pending: bool, way: Option<&Takeover>) -> bool {
    fleet.variants.iter().all(|variant| {
        variant.instances.len() == wanted(way, pending, variant)
            && variant.instances.iter().all(|instance| instance.healthy)
    })
}

fn serves_whole(endpoint: &Endpoint) -> bool {
    endpoint
        .active
        .as_ref()
        .is_some_and(|fleet| whole(fleet, false, way(endpoint)))
}

/// Whether what a failed update started is gone and what it took down is back.
pub(super) fn rolled_back(endpoint: &Endpoint) -> bool {
    endpoint.status == EndpointStatus::RollingBack && endpoint.retiring.is_empty() && serves_whole(endpoint)
}

/// Whether what leaves has to be gone before anything is launched: there may be no room for both.
pub(super) fn goes_first(endpoint: &Endpoint) -> bool {
    endpoint.status == EndpointStatus::RollingBack || way(endpoint) == Some(&Takeover::InPlace)
}

/// Why an instance that a roll back needs does not come up again, if that is so.
pub(super) fn lost(endpoint: &Endpoint, verdicts: &BTreeMap<WorkloadId, Verdict>) -> Option<String> {
    if endpoint.status != EndpointStatus::RollingBack {
        return None;
    }
    let mut active = endpoint.active.iter().flat_map(Fleet::instances);
    active.find_map(|(_, instance)| match verdicts.get(&instance.placement.workload) {
        Some(Verdict::Broken(why)) => Some(why.clone()),
        Some(Verdict::Dead | Verdict::Ready | Verdict::Starting | Verdict::Healthy) | None => None,
    })
}

/// When a shift is to be looked at again.
pub(super) fn due(endpoint: &Endpoint, now: Timestamp) -> Timestamp {
    let never = Timestamp(i64::MAX);
    let Some((fleet, Takeover::Shift(shift))) = endpoint.pending.as_ref().zip(way(endpoint)) else {
        return never;
    };
    let limit = shift.deadline(fleet.started).unwrap_or(never);
    // A fleet that is not whole goes no further, however late it is: its replacements' verdicts say when to look again.
    if shift.since().is_none() || !whole(fleet, true, way(endpoint)) {
        return limit;
    }
    match shift.clone().go_on(now) {
        Progress::Waits(until) => until.min(limit),
        Progress::Moved | Progress::Over => now,
    }
}

impl Work<'_> {
    /// Asks for room for what has none, all of it together: half a fleet serves nobody. Says until when the rest may wait.
    pub(super) fn room(&self, endpoint: &Endpoint) -> Room {
        // A fleet that waits for the room of the one that serves does not stand in line.
        let aside = self.deps.settings.updates == Updates::InPlace && awaits_way(endpoint);
        let fleets = sides(endpoint).filter(|(_, pending)| !(aside && *pending));
        let (mut since, mut wanted) = (Timestamp(i64::MAX), Vec::new());
        for (variant, instance) in fleets.flat_map(|(fleet, _)| fleet.instances()) {
            let workload = &instance.placement.workload;
            if !self.deps.scheduler.holds(workload) {
                since = since.min(instance.since);
                wanted.push((vec![workload.clone()], &variant.variant.instance_type));
            }
        }
        // Asked without anything, too: what waited and is wanted no more gives its place up.
        let Ok(request) = self.deps.request::<Endpoint>(self.key, since, wanted) else {
            // The launch says that an instance type is known no more.
            return Room::There;
        };
        if goes_first(endpoint) && self.deps.scheduler.exchange(&leaving(endpoint), &request) {
            return Room::There;
        }
        match self.deps.scheduler.ask(request) {
            Answer::Granted => Room::There,
            Answer::Waits => Room::WaitsUntil(since.after(self.deps.settings.endpoint_patience)),
            Answer::Never => Room::WaitsUntil(self.deps.now()),
        }
    }

    /// Whether the fleet that serves is to make way for the pending one (AU-28), of which only what it runs is brought here
    /// until then.
    pub(super) fn makes_way(&self, endpoint: &Endpoint, room: Room) -> bool {
        awaits_way(endpoint)
            && match self.deps.settings.updates {
                Updates::BlueGreen => false,
                Updates::InPlace => true,
                Updates::InPlaceWhenFull => matches!(room, Room::WaitsUntil(_)),
            }
    }

    /// Whether everything is here that the pending fleet runs, so that the one that serves may be taken down now: its room
    /// has gone over. Where even both rooms are too small the update fails in the end, and nothing was taken down.
    pub(super) fn displaces(
        &self,
        endpoint: &Endpoint,
        verdicts: &mut BTreeMap<WorkloadId, Verdict>,
        room: Room,
        next: &mut Timestamp,
    ) -> bool {
        let Some(pending) = endpoint.pending.as_ref().filter(|_| self.makes_way(endpoint, room)) else {
            return false;
        };
        let waiting = || {
            pending
                .instances()
                .filter(|(_, one)| !self.deps.scheduler.holds(&one.placement.workload))
        };
        let is_ready =
            |(_, one): (&VariantFleet, &Instance)| verdicts.get(&one.placement.workload) == Some(&Verdict::Ready);
        if !waiting().all(is_ready) {
            return false;
        }
        let wanted =
            waiting().map(|(variant, one)| (vec![one.placement.workload.clone()], &variant.variant.instance_type));
        let Ok(request) = self.deps.request::<Endpoint>(self.key, pending.started, wanted) else {
            return false;
        };
        let old = endpoint.active.iter().flat_map(Fleet::instances);
        let old: Vec<WorkloadId> = old.map(|(_, one)| one.placement.workload.clone()).collect();
        if self.deps.scheduler.exchange(&old, &request) {
            return true;
        }
        let (now, limit) = (
            self.deps.now(),
            pending.started.after(self.deps.settings.endpoint_patience),
        );
        *next = (*next).min(now.after(self.deps.settings.retry));
        if now >= limit {
            let broken = request.instances.into_iter();
            verdicts.extend(broken.map(|one| (one.workload, Verdict::Broken(NO_CAPACITY.into()))));
        }
        false
    }

    /// Moves the endpoint along its lifecycle. `lost`: why a roll back does not succeed; `displaces`: the fleet that serves
    /// goes down now.
    pub(super) fn settle(
        &self,
        endpoint: &mut Endpoint,
        verdicts: &BTreeMap<WorkloadId, Verdict>,
        now: Timestamp,
        lost: Option<String>,
        displaces: bool,
    ) -> Result<(), StepError> {
        match endpoint.status {
            EndpointStatus::Creating | EndpointStatus::Updating => {}
            EndpointStatus::RollingBack => {
                if let Some(why) = lost {
                    endpoint.apply(EndpointEvent::FleetFailed, now)?;
                    let first = endpoint.failure_reason.as_ref().map(ToString::to_string);
                    let text = format!("{} The roll back failed: {why}", first.unwrap_or_default());
                    endpoint.failure_reason = Some(FailureReason::endpoint(text.trim_start(), None));
                }
                return Ok(());
            }
            EndpointStatus::UpdateRollbackFailed => {
                if serves_whole(endpoint) {
                    endpoint.apply(EndpointEvent::FleetHealthy, now)?;
                }
                return Ok(());
            }
            EndpointStatus::InService | EndpointStatus::Failed | EndpointStatus::Deleting => return Ok(()),
        }
        let Some(fleet) = endpoint.pending.as_ref().or(endpoint.active.as_ref()) else {
            return Ok(());
        };
        let broken = fleet
            .instances()
            .find_map(|(_, instance)| match verdicts.get(&instance.placement.workload) {
                Some(Verdict::Broken(why)) => Some((why.clone(), instance.clone())),
                Some(Verdict::Dead | Verdict::Ready | Verdict::Starting | Verdict::Healthy) | None => None,
            });
        if let Some((why, instance)) = broken {
            return self.fail(endpoint, &why, Some(&instance), now);
        }
        if displaces && awaits_way(endpoint) {
            if let Some(fleet) = &mut endpoint.pending {
                fleet.takeover = Some(Takeover::InPlace);
            }
            return Ok(());
        }
        if !self.take_over(endpoint, now)? {
            return Ok(());
        }
        endpoint.apply(EndpointEvent::FleetHealthy, now)?;
        endpoint.failure_reason = None;
        let Some(mut fresh) = endpoint.pending.take() else {
            return Ok(());
        };
        if fresh.takeover.take() == Some(Takeover::InPlace) {
            self.trim(&fresh);
        }
        endpoint.config_name.clone_from(&fresh.config_name);
        if let Some(old) = endpoint.active.replace(fresh) {
            retire_fleet(endpoint, old, now);
        }
        Ok(())
    }

    /// Goes on with the takeover as far as it can now. Whether the fleet on trial has all of the traffic, and the old one may go.
    fn take_over(&self, endpoint: &mut Endpoint, now: Timestamp) -> Result<bool, StepError> {
        loop {
            let way = way(endpoint).cloned();
            let pending = endpoint.pending.is_some();
            let on_trial = endpoint.pending.as_ref().or(endpoint.active.as_ref());
            let healthy = on_trial.is_some_and(|fleet| whole(fleet, pending, way.as_ref()));
            let Some(fleet) = &mut endpoint.pending else {
                return Ok(healthy);
            };
            let Some(Takeover::Shift(shift)) = &mut fleet.takeover else {
                return Ok(healthy);
            };
            if shift.deadline(fleet.started).is_some_and(|limit| now >= limit) {
                let why = "The deployment took longer than its MaximumExecutionTimeoutInSeconds.";
                self.fail(endpoint, why, None, now)?;
                return Ok(false);
            }
            if !healthy {
                return Ok(false);
            }
            match shift.go_on(now) {
                Progress::Moved => endpoint.modified = now,
                Progress::Waits(_) => return Ok(false),
                Progress::Over => return Ok(true),
            }
        }
    }

    /// What was kept for the way back is needed no more.
    pub(super) fn trim(&self, fleet: &Fleet) {
        let wanted = fleet.instances().map(|(variant, one)| {
            let workload = one.placement.workload.clone();
            (vec![workload], &variant.variant.instance_type)
        });
        // An instance type that is known no more reserves nothing new.
        if let Ok(request) = self.deps.request::<Endpoint>(self.key, fleet.started, wanted) {
            self.deps.scheduler.trim(&request);
        }
    }

    /// The fleet on trial cannot come up: nothing of it stays; a fleet that serves goes on serving, and what was taken down
    /// of it comes back (SM-22, AU-29).
    fn fail(
        &self,
        endpoint: &mut Endpoint,
        why: &str,
        instance: Option<&Instance>,
        now: Timestamp,
    ) -> Result<(), StepError> {
        let deps: &Deps = self.deps;
        let placements = instance.into_iter().flat_map(Instance::placements);
        let attempts: Vec<BlockedDestination> = placements.flat_map(|placement| deps.attempts(&placement)).collect();
        let note = attempts.first().map(BlockedDestination::note);
        endpoint.apply(EndpointEvent::FleetFailed, now)?;
        endpoint.failure_reason = Some(FailureReason::endpoint(why, note.as_ref()));
        if let Some(failed) = endpoint.pending.take() {
            retire_fleet(endpoint, failed, now);
        } else if let Some(active) = &mut endpoint.active {
            // More capacity was asked for and did not come up: back to what serves.
            for variant in &mut active.variants {
                let healthy = variant.instances.iter().filter(|instance| instance.healthy).count();
                variant.desired_count = u32::try_from(healthy).unwrap_or(u32::MAX).max(1);
            }
        }
        Ok(())
    }
}

/// Whether there is an update that may be done in place and is not yet.
fn awaits_way(endpoint: &Endpoint) -> bool {
    let pending = endpoint.pending.as_ref();
    endpoint.status == EndpointStatus::Updating
        && endpoint.active.is_some()
        && pending.is_some_and(|fleet| fleet.takeover.is_none())
}

/// The first containers of what leaves: they hold its room.
fn leaving(endpoint: &Endpoint) -> Vec<WorkloadId> {
    let leaving = endpoint.retiring.iter();
    leaving.map(|one| one.instance.placement.workload.clone()).collect()
}
