//! Room that a job leaves to others like it: kept after its end, taken over before the queue is asked.

use super::{Job, Memory, Work};
use crate::deps::{Next, StepError};
use crate::scheduler::queue::{Owner, Request};

impl Work<'_> {
    /// The job has ended. Its room may be kept for a while; all else of it leaves the host.
    pub(super) fn over<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Next, StepError> {
        let Some((since, until)) = job.pool() else {
            return self.clean(job, memory);
        };
        let owner = Owner {
            kind: J::KIND,
            key: self.key.clone(),
        };
        self.deps.scheduler.shelve(&owner, since);
        self.clean(job, memory)?;
        let now = self.deps.now();
        if now < until && self.deps.scheduler.has_pool(&owner) {
            return Ok(Next::At(until));
        }
        // Its time is over, or somebody needed the room.
        self.deps.update::<J>(self.key, |job, batch| {
            if job
                .pool()
                .is_none_or(|(_, until)| now < until && self.deps.scheduler.has_pool(&owner))
            {
                return Ok(None);
            }
            job.end_pool(None, now);
            Ok(Some(batch))
        })?;
        Ok(Next::Done)
    }

    /// Takes over the room that a job like this one left. A death between the room and the record of it forgets the room, and
    /// the job asks again.
    pub(super) fn reuse<J: Job>(&self, job: &J, request: &Request) -> Result<bool, StepError> {
        let held = |request: &Request| {
            let mut workloads = request.instances.iter().map(|one| &one.workload);
            workloads.any(|workload| self.deps.scheduler.holds(workload))
        };
        if held(request) {
            return Ok(false);
        }
        for pool in self.deps.scheduler.pools(J::KIND, &self.key.scope) {
            let Some(found) = self.deps.store.get::<J>(&pool.key)? else {
                continue;
            };
            let kept = found.record.pool().is_some();
            if !kept || !job.fits_pool_of(&found.record) || !self.deps.scheduler.reuse(&pool, request) {
                continue;
            }
            let now = self.deps.now();
            self.deps.update::<J>(&pool.key, |left, batch| {
                if left.pool().is_none() {
                    return Ok(None);
                }
                left.end_pool(Some(job.facets().display_name), now);
                Ok(Some(batch))
            })?;
            return Ok(true);
        }
        Ok(false)
    }
}
