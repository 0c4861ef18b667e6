//! SIGTERM, grace, SIGKILL; artifacts afterwards (CC-34).

use super::{End, Job, Memory, Outcome, Work};
use crate::deps::{Next, StepError};
use isolarium_model::Timestamp;
use isolarium_runtime::executor::WorkloadState;
use std::time::Duration;

/// Time between two tries to kill a container.
const KILL_AGAIN: Duration = Duration::from_secs(1);

impl Work<'_> {
    pub(super) fn stop<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Next, StepError> {
        let states = self.states(job)?;
        let any = |wanted: fn(&WorkloadState) -> bool| states.iter().flatten().any(wanted);
        if any(|state| matches!(state, WorkloadState::Running { .. })) {
            memory.touched = true;
            let asked = job.run().stop.map_or(job.modified(), |(_, at)| at);
            // Programs that wait for the others have not begun, and hear nothing but SIGKILL.
            let waiting = job.run().instances() > 1 && !job.run().launched;
            let grace = if waiting {
                Duration::ZERO
            } else {
                self.deps.settings.training_grace
            };
            return self.terminate(job, memory, &states, asked, grace);
        }
        if !any(|state| matches!(state, WorkloadState::Exited(_))) {
            return self.conclude(job, memory, &Outcome::Stopped);
        }
        if let Some(next) = self.drain(job, memory)? {
            return Ok(next);
        }
        match job.collect(&self.sites(job), &mut memory.kept, End::Stopped) {
            Ok(()) => self.conclude(job, memory, &Outcome::Stopped),
            Err(error) => self.upload_failed(job, memory, error),
        }
    }

    /// Ends those that run: SIGTERM now, SIGKILL when `grace` after `since` is over. Reads what they write meanwhile.
    pub(super) fn terminate<J: Job>(
        &self,
        job: &J,
        memory: &mut Memory<J>,
        states: &[Option<WorkloadState>],
        since: Timestamp,
        grace: Duration,
    ) -> Result<Next, StepError> {
        let now = self.deps.now();
        let limit = since.after(grace);
        let runs = |state: &Option<WorkloadState>| matches!(state, Some(WorkloadState::Running { .. }));
        let all = job.run().placements().zip(states).enumerate();
        let left = all.filter(|(_, (_, state))| runs(state));
        for (number, (placement, _)) in left {
            let own = memory.instance(number);
            if !own.terminated {
                self.deps
                    .executor
                    .terminate(&placement.workload, false)
                    .map_err(StepError::Executor)?;
                own.terminated = true;
            }
            if now >= limit && own.killed.is_none_or(|last| now.since(last) >= KILL_AGAIN) {
                self.deps
                    .executor
                    .terminate(&placement.workload, true)
                    .map_err(StepError::Executor)?;
                own.killed = Some(now);
            }
        }
        let again = self.read_output(job, memory)?;
        let next = if now < limit { limit } else { now.after(KILL_AGAIN) };
        Ok(Next::At(again.min(next)))
    }
}
