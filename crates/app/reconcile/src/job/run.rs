//! While the programs run: their output, their time limit, and the first one that fails.

use super::{Job, Memory, Trouble, Work, staged};
use crate::deps::{NOT_STARTED, Next, StepError, log_not_started};
use crate::logs::{self, Drained};
use crate::metrics::MetricScanner;
use crate::stage::StageError;
use isolarium_model::Timestamp;
use isolarium_model::sagemaker::training_job::{JobEvent, SecondaryStatus};
use isolarium_model::sagemaker::{FailureKind, Placement};
use isolarium_runtime::executor::{ExitStatus, WorkloadState};
use std::time::Duration;

/// How long the last lines of an ended container are waited for.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Longest time between two looks at a running container's output.
const OUTPUT_POLL: Duration = Duration::from_secs(1);

/// The instance that failed first, and how.
pub(super) struct Failed {
    pub number: usize,
    pub how: Failure,
}

pub(super) enum Failure {
    Exited(ExitStatus),
    NotStarted(String),
    Lost,
}

/// Of several that failed the one that did so first: the others may have failed for want of it (CC-31).
fn first_failure(states: &[Option<WorkloadState>]) -> Option<Failed> {
    let mut first: Option<Failed> = None;
    for (number, state) in states.iter().enumerate() {
        let how = match state {
            Some(WorkloadState::Running { .. }) => continue,
            Some(WorkloadState::Exited(status)) if status.code == 0 => continue,
            // The platform's loss, not the program's end (SM-34).
            Some(WorkloadState::Exited(status)) if status.lost => Failure::Lost,
            Some(WorkloadState::Exited(status)) => Failure::Exited(status.clone()),
            Some(WorkloadState::NotStarted { reason }) => Failure::NotStarted(reason.clone()),
            None => Failure::Lost,
        };
        let earlier = match (first.as_ref().map(|first| &first.how), &how) {
            (None, _) => true,
            (Some(Failure::Exited(first)), Failure::Exited(this)) => this.ended < first.ended,
            // What is lost or never began did not follow from an exit.
            (Some(Failure::Exited(_)), _) => true,
            (Some(_), _) => false,
        };
        if earlier {
            first = Some(Failed { number, how });
        }
    }
    first
}

impl Work<'_> {
    pub(super) fn states<J: Job>(&self, job: &J) -> Result<Vec<Option<WorkloadState>>, StepError> {
        let all = job.run().placements();
        all.map(|placement| self.deps.state_of(&placement.workload)).collect()
    }

    pub(super) fn watch<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Next, StepError> {
        memory.touched = true;
        let states = self.states(job)?;
        let running = states
            .iter()
            .any(|state| matches!(state, Some(WorkloadState::Running { .. })));
        if let Some((kind, text)) = job.feed(&self.sites(job), running, &mut memory.kept) {
            return self.starved(job, memory, (kind, &text), running.then_some(&states));
        }
        match first_failure(&states) {
            None if running => self.running(job, memory),
            None => self.finish(job, memory),
            Some(failed) if running => self.end_the_others(job, memory, &failed, &states),
            Some(failed) => match failed.how {
                Failure::Exited(status) => self.crashed(job, memory, failed.number, &status),
                Failure::NotStarted(reason) => {
                    log_not_started(job.arn(), &reason);
                    self.fail(job, memory, FailureKind::Internal, NOT_STARTED)
                }
                Failure::Lost => {
                    if !job.may_restart() && states.iter().all(Option::is_some) {
                        if let Some(next) = self.drain(job, memory)? {
                            return Ok(next);
                        }
                        self.rescue(job, memory)?;
                    }
                    self.lost(job, memory)
                }
            },
        }
    }

    /// Their input cannot be brought to them: those that run get SIGTERM and their grace, and how they end says nothing.
    fn starved<J: Job>(
        &self,
        job: &J,
        memory: &mut Memory<J>,
        (kind, text): (FailureKind, &str),
        running: Option<&Vec<Option<WorkloadState>>>,
    ) -> Result<Next, StepError> {
        if let Some(states) = running {
            let since = *memory.starved.get_or_insert(self.deps.now());
            return self.terminate(job, memory, states, since, self.deps.settings.training_grace);
        }
        if let Some(next) = self.drain(job, memory)? {
            return Ok(next);
        }
        self.rescue(job, memory)?;
        self.fail(job, memory, kind, text)
    }

    pub(super) fn lost<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Next, StepError> {
        let text = "The instance that ran the job was lost.";
        self.fail(job, memory, FailureKind::Internal, text)
    }

    /// One has failed, which ends the job: the others get SIGTERM and their grace (CC-31, CC-34).
    fn end_the_others<J: Job>(
        &self,
        job: &J,
        memory: &mut Memory<J>,
        failed: &Failed,
        states: &[Option<WorkloadState>],
    ) -> Result<Next, StepError> {
        let since = match &failed.how {
            Failure::Exited(status) => status.ended,
            Failure::NotStarted(_) | Failure::Lost => {
                let own = memory.instance(failed.number);
                *own.ended_seen.get_or_insert(self.deps.now())
            }
        };
        self.terminate(job, memory, states, since, self.deps.settings.training_grace)
    }

    fn running<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Next, StepError> {
        let mut again = self.read_output(job, memory)?;
        let now = self.deps.now();
        let deadline = job.deadline();
        if now >= deadline {
            self.deps.update::<J>(self.key, |job, batch| {
                if job.phase() != SecondaryStatus::Training {
                    return Ok(None);
                }
                job.run_mut().stop = Some((job.limit(), now));
                job.apply(JobEvent::StopRequested, now)?;
                Ok(Some(batch))
            })?;
            return Ok(Next::At(now));
        }
        again = again.min(deadline);
        if let Some(due) = job.tend(&self.sites(job), &mut memory.kept) {
            again = again.min(now.max(due).after(Duration::from_millis(1)));
        }
        Ok(Next::At(again))
    }

    /// Reads what the containers wrote, and says when to read again at the latest.
    pub(super) fn read_output<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Timestamp, StepError> {
        let now = self.deps.now();
        let mut again = now.after(OUTPUT_POLL);
        for (number, placement) in job.run().placements().enumerate() {
            if memory.instance(number).logs.is_fresh(self.deps) {
                again = again.min(now.after(self.deps.settings.log_interval));
                continue;
            }
            match self.pump(job, memory, number, placement)? {
                Drained::More => again = now,
                // A new line wakes the loop; a wake-up that was missed is made good after this time.
                Drained::Idle | Drained::Complete => {}
            }
        }
        Ok(again)
    }

    fn pump<J: Job>(
        &self,
        job: &J,
        memory: &mut Memory<J>,
        number: usize,
        placement: &Placement,
    ) -> Result<Drained, StepError> {
        let mut metrics = memory
            .metrics
            .take()
            .unwrap_or_else(|| MetricScanner::new(job.metrics()));
        let cursor = &mut memory.instance(number).logs;
        let drained = self.with_sink(job, number, placement, |sink| {
            logs::pump(self.deps, sink, &placement.workload, cursor, Some(&mut metrics))
        });
        memory.metrics = Some(metrics);
        drained
    }

    /// The containers have ended: waits for their last lines. `Some` means look again then.
    pub(super) fn drain<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Option<Next>, StepError> {
        memory.touched = true;
        let now = self.deps.now();
        let mut again = None;
        for (number, placement) in job.run().placements().enumerate() {
            let seen = *memory.instance(number).ended_seen.get_or_insert(now);
            loop {
                match self.pump(job, memory, number, placement)? {
                    Drained::Complete => break,
                    Drained::More => {}
                    Drained::Idle if now.since(seen) >= DRAIN_LIMIT => {
                        tracing::warn!(job = %job.arn(), "the end of the container's output did not arrive");
                        break;
                    }
                    Drained::Idle => {
                        again = Some(Next::At(now.after(Duration::from_millis(10))));
                        break;
                    }
                }
            }
        }
        Ok(again)
    }

    pub(super) fn upload_failed<J: Job>(
        &self,
        job: &J,
        memory: &mut Memory<J>,
        error: StageError,
    ) -> Result<Next, StepError> {
        match staged(job.arn(), error, "Artifact upload failed:") {
            Trouble::Retry(error) => Err(StepError::Executor(error)),
            Trouble::Final(kind, text) => self.fail(job, memory, kind, &text),
        }
    }
}
