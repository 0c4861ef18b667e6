//! The end of a job: what leaves the containers, the record's last word, and an empty host.

use super::{End, Job, Memory, Outcome, Trouble, Work, staged};
use crate::deps::{Next, StepError};
use crate::driver::with_slow;
use crate::logs;
use isolarium_model::Timestamp;
use isolarium_model::sagemaker::training_job::{JobEvent, SecondaryStatus, StopCause};
use isolarium_model::sagemaker::{BlockedDestination, FailureKind, FailureReason, Placement};
use isolarium_runtime::executor::ExitStatus;

/// Each instance with what it tried to reach.
pub(super) type Reports<'a> = Vec<(&'a Placement, Vec<BlockedDestination>)>;

impl Work<'_> {
    /// After exit code 0 of all, and again after a restart in Uploading.
    pub(super) fn finish<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Next, StepError> {
        if self.states(job)?.iter().any(Option::is_none) {
            return self.lost(job, memory);
        }
        if let Some(next) = self.drain(job, memory)? {
            return Ok(next);
        }
        let uploaded = with_slow(
            self.deps.settings.slow_phase,
            || self.show::<J>(JobEvent::ContainerSucceeded, &[SecondaryStatus::Training]),
            || job.collect(&self.sites(job), &mut memory.kept, End::Succeeded),
        );
        match uploaded {
            Ok(()) => match job.objection(&memory.kept) {
                Some(text) => self.fail(job, memory, FailureKind::Client, &text),
                None => self.conclude(job, memory, &Outcome::Succeeded),
            },
            Err(error) => self.upload_failed(job, memory, error),
        }
    }

    /// After another exit code (CC-31): the failure text, and what output there is (CC-33).
    pub(super) fn crashed<J: Job>(
        &self,
        job: &J,
        memory: &mut Memory<J>,
        number: usize,
        status: &ExitStatus,
    ) -> Result<Next, StepError> {
        if let Some(next) = self.drain(job, memory)? {
            return Ok(next);
        }
        let sites = self.sites(job);
        let own = sites.get(number);
        let mut text = own.map(|site| job.failure_text(site)).unwrap_or_default();
        if text.is_empty() && status.out_of_memory {
            text = format!("The container used more memory than {} has", job.instance_type(number));
        }
        if sites.len() > 1 {
            // Whose words they are.
            let host = job.host(number);
            text = if text.is_empty() {
                host
            } else {
                format!("{host}: {text}")
            };
        }
        self.rescue(job, memory)?;
        let first = self.first_attempt(job);
        let reason = FailureReason::container(
            &text,
            status.code,
            first.as_ref().map(BlockedDestination::note).as_ref(),
        );
        self.conclude(job, memory, &Outcome::Failed(reason))
    }

    /// Uploads what a failed job leaves (CC-33).
    pub(super) fn rescue<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<(), StepError> {
        let Err(error) = job.collect(&self.sites(job), &mut memory.kept, End::Failed) else {
            return Ok(());
        };
        match staged(job.arn(), error, "Artifact upload failed:") {
            Trouble::Retry(error) => Err(StepError::Executor(error)),
            Trouble::Final(_, cause) => {
                tracing::warn!(job = %job.arn(), cause, "output of a failed job could not be uploaded");
                Ok(())
            }
        }
    }

    /// The first attempt to leave, of whichever instance.
    pub(super) fn first_attempt<J: Job>(&self, job: &J) -> Option<BlockedDestination> {
        let all = job.run().placements();
        let first = all.filter_map(|placement| self.deps.attempts(placement).into_iter().next());
        first.min_by_key(|attempt| attempt.first)
    }

    /// Writes the end, with everything that must outlive the workloads, in one commit; then removes the workloads.
    pub(super) fn conclude<J: Job>(
        &self,
        job: &J,
        memory: &mut Memory<J>,
        outcome: &Outcome,
    ) -> Result<Next, StepError> {
        memory.touched = true;
        job.leave(&mut memory.kept);
        let reports = self.reports(job, memory)?;
        let (metrics, kept) = (memory.metrics.as_ref(), &memory.kept);
        let ended = self.deps.update::<J>(self.key, |job, mut batch| {
            if job.phase().status().is_final() {
                return Ok(None);
            }
            let now = self.deps.now();
            let begun = job.run().launched;
            if let Some(metrics) = metrics {
                job.keep_metrics(metrics);
            }
            job.keep_words(kept);
            match outcome {
                Outcome::Failed(reason) => job.fail(reason.clone(), now)?,
                Outcome::Succeeded if job.phase() == SecondaryStatus::Stopping => stopped(job, now)?,
                Outcome::Stopped => stopped(job, now)?,
                Outcome::Succeeded => {
                    if job.phase() == SecondaryStatus::Training {
                        job.apply(JobEvent::ContainerSucceeded, now)?;
                    }
                    job.apply(JobEvent::Uploaded, now)?;
                }
            }
            // SM-34: what the host broke is not kept for others, nor what never was.
            let broken = matches!(outcome, Outcome::Failed(reason) if !reason.leaves_instances_whole());
            job.leave_room(!broken && begun, now);
            for (placement, attempts) in &reports {
                batch = self
                    .deps
                    .keep_attempts(&self.key.scope, placement, job.arn(), attempts, batch)?;
            }
            Ok(Some(batch))
        })?;
        // The record knows of interfaces that were made after `job` was read.
        match ended {
            Some(ended) => self.over(&ended.record, memory),
            None => self.clean(job, memory),
        }
    }

    /// The attempts to leave of every instance, after they were written to its log.
    pub(super) fn reports<'b, J: Job>(&self, job: &'b J, memory: &mut Memory<J>) -> Result<Reports<'b>, StepError> {
        let mut reports = Vec::new();
        for (number, placement) in job.run().placements().enumerate() {
            let cursor = &mut memory.instance(number).logs;
            let attempts = self.with_sink(job, number, placement, |sink| {
                logs::report(self.deps, sink, placement, cursor)
            })?;
            reports.push((placement, attempts));
        }
        Ok(reports)
    }

    pub(super) fn clean<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Next, StepError> {
        let seen = |workload| self.deps.seen.get(workload).is_some();
        let all = || job.run().placements();
        // A job that ended before this process began is the sweep's, which looks at the host itself.
        if memory.touched || all().any(|placement| seen(&placement.workload)) {
            self.deps
                .remove_all(job.run(), &|placement| self.actor(job, placement))?;
            memory.touched = false;
        }
        Ok(Next::Done)
    }
}

fn stopped<J: Job>(job: &mut J, now: Timestamp) -> Result<(), StepError> {
    let cause = job.run().stop.map_or(StopCause::Asked, |(cause, _)| cause);
    Ok(job.apply(JobEvent::StopFinished(cause), now)?)
}
