//! The end of a job: its containers go, its record gets its last word, the host is empty again.

use super::{LOG_GROUP, Outcome, TransformMemory, Work};
use crate::deps::{Next, StepError};
use crate::logs::{self, Drained, Sink};
use isolarium_model::sagemaker::transform_job::TransformEvent;
use isolarium_model::sagemaker::{BlockedDestination, FailureKind, FailureReason, TransformJob, TransformJobStatus};
use isolarium_runtime::executor::WorkloadState;
use std::time::Duration;

/// SIGTERM to SIGKILL once everything is stored: nothing is left for the containers to do.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// How long the last lines of an ended container, and the end of its run, are waited for.
const LAST_LINES: Duration = Duration::from_secs(10);

/// Time between two tries to kill a container.
const KILL_AGAIN: Duration = Duration::from_secs(1);

impl Work<'_> {
    /// SIGTERM, grace, SIGKILL, last lines, the end.
    pub(super) fn wind_down(&self, job: &TransformJob, memory: &mut TransformMemory) -> Result<Next, StepError> {
        memory.touched = true;
        let Some(ending) = &mut memory.ending else {
            return Ok(Next::At(self.deps.now()));
        };
        let (outcome, now) = (ending.outcome.clone(), self.deps.now());
        let limit = ending.since.after(ending.grace);
        let first = !std::mem::replace(&mut ending.terminated, true);
        let mut next = None;
        let later = |next: Option<isolarium_model::Timestamp>, at| Some(next.map_or(at, |one| one.min(at)));
        for instance in &job.run.instances {
            let own = memory.instances.entry(instance.id.clone()).or_default();
            if let Some(run) = &own.run {
                run.cancel();
            }
            let workload = &instance.placement.workload;
            if let Some(WorkloadState::Running { .. }) = self.deps.state_of(workload)? {
                let over = now >= limit;
                let kill = over && own.killed.is_none_or(|last| now.since(last) >= KILL_AGAIN);
                if kill || first {
                    let told = self.deps.executor.terminate(workload, kill);
                    told.map_err(StepError::Executor)?;
                }
                if kill {
                    own.killed = Some(now);
                }
                self.read_output(job, instance, own)?;
                next = later(next, if over { now.after(KILL_AGAIN) } else { limit });
                continue;
            }
            let seen = *own.ended_seen.get_or_insert(now);
            let patient = now.since(seen) < LAST_LINES;
            self.write_data_log(job, instance, own);
            let stream = job.log_stream(instance);
            let actor = self.actor(job, instance);
            let sink = Sink {
                job: None,
                actor: &actor,
                group: LOG_GROUP,
                stream: &stream,
            };
            let drained = logs::pump(self.deps, &sink, workload, &mut own.logs, None)? == Drained::Complete;
            let over = own.run.as_ref().is_none_or(super::Running::is_over);
            if patient && !(drained && over) {
                next = later(next, now.after(Duration::from_millis(10)));
            }
        }
        match next {
            Some(next) => Ok(Next::At(next)),
            None => self.conclude(job, memory, &outcome),
        }
    }

    /// Writes the end, with everything that must outlive the workloads, in one commit; then removes the workloads.
    fn conclude(&self, job: &TransformJob, memory: &mut TransformMemory, outcome: &Outcome) -> Result<Next, StepError> {
        let mut reports = Vec::new();
        for instance in &job.run.instances {
            let stream = job.log_stream(instance);
            let actor = self.actor(job, instance);
            let sink = Sink {
                job: None,
                actor: &actor,
                group: LOG_GROUP,
                stream: &stream,
            };
            let cursor = &mut memory.instances.entry(instance.id.clone()).or_default().logs;
            let attempts = logs::report(self.deps, &sink, &instance.placement, cursor)?;
            reports.push((instance.placement.clone(), attempts));
        }
        let attempts = reports.iter().flat_map(|(_, attempts)| attempts);
        let first = attempts
            .min_by_key(|attempt| attempt.first)
            .map(BlockedDestination::note);
        let ended = self.deps.update::<TransformJob>(self.key, |job, batch| {
            if job.status.is_final() {
                return Ok(None);
            }
            let now = self.deps.now();
            match (job.status, outcome) {
                (TransformJobStatus::Stopping, _) => job.apply(TransformEvent::StopFinished, now)?,
                (_, Outcome::Succeeded) => job.apply(TransformEvent::Succeeded, now)?,
                (_, Outcome::Failed(kind, text)) => {
                    job.apply(TransformEvent::Failed, now)?;
                    job.failure_reason = Some(FailureReason::job(*kind, text, first.as_ref()));
                }
                (_, Outcome::Stopped) => {
                    job.apply(TransformEvent::Failed, now)?;
                    let text = "The job was ended.";
                    job.failure_reason = Some(FailureReason::job(FailureKind::Internal, text, None));
                }
            }
            let mut batch = batch;
            for (placement, attempts) in &reports {
                batch = self
                    .deps
                    .keep_attempts(&self.key.scope, placement, &job.arn, attempts, batch)?;
            }
            Ok(Some(batch))
        })?;
        // The record knows of interfaces that were made after `job` was read.
        match ended {
            Some(ended) => self.clean(&ended.record, memory),
            None => self.clean(job, memory),
        }
    }

    pub(super) fn clean(&self, job: &TransformJob, memory: &mut TransformMemory) -> Result<Next, StepError> {
        for own in memory.instances.values() {
            if let Some(run) = &own.run {
                run.cancel();
            }
        }
        for instance in &job.run.instances {
            // A job that ended before this process began is the sweep's, which looks at the host itself.
            if memory.touched || self.deps.seen.get(&instance.placement.workload).is_some() {
                self.deps.remove(&instance.placement, &self.actor(job, instance))?;
            }
        }
        Ok(Next::Done)
    }
}
