//! Another attempt after the host or the engine lost one (SM-34): a container that vanished, one that could not be sealed or
//! started, or data that the engine could not move. How a program ended, and what the caller asked for, is never repeated.

use super::{Job, Memory, Work};
use crate::deps::{Next, StepError};
use isolarium_model::Timestamp;
use isolarium_model::sagemaker::training_job::{JobRun, SecondaryStatus};

impl Work<'_> {
    /// Ends what is left of the attempt and begins the next one in new workloads, which keep the room. Nothing of the old
    /// ones is used again but checkpoints in S3.
    pub(super) fn restart<J: Job>(&self, job: &J, memory: &mut Memory<J>, why: &str) -> Result<Next, StepError> {
        memory.touched = true;
        job.leave(&mut memory.kept);
        let reports = self.reports(job, memory)?;
        // Before the record lets go of them: what runs may not meet its successor.
        for placement in job.run().placements() {
            self.deps.remove_container(&placement.workload)?;
        }
        let metrics = memory.metrics.as_ref();
        let mut again = false;
        let stored = self.deps.update::<J>(self.key, |job, batch| {
            again = job.may_restart();
            if !again {
                return Ok(None);
            }
            if let Some(metrics) = metrics {
                job.keep_metrics(metrics);
            }
            let instances = job.run().instances();
            let (places, mut batch) = self.deps.places(job.network(), self.key, job.arn(), instances, batch)?;
            let run = JobRun::new(places).ok_or(StepError::Identifier)?;
            job.restart(run, why, self.deps.now())?;
            for (placement, attempts) in &reports {
                batch = self
                    .deps
                    .keep_attempts(&self.key.scope, placement, job.arn(), attempts, batch)?;
            }
            Ok(Some(batch))
        })?;
        if let Some(stored) = stored.filter(|_| again) {
            tracing::warn!(job = %job.arn(), why, "an attempt was lost; the job begins again");
            let (old, new) = (job.run().placements(), stored.record.run().placements());
            for (old, new) in old.zip(new) {
                self.deps.scheduler.succeed(&old.workload, &new.workload);
            }
            self.deps
                .remove_all(job.run(), &|placement| self.actor(job, placement))?;
        }
        // Where the job was told to stop meanwhile, the next step sees it.
        Ok(Next::At(self.deps.now()))
    }

    /// Until when the next attempt is to wait: a host that loses everything at once is not asked all the time.
    pub(super) fn pause<J: Job>(&self, job: &J) -> Option<Timestamp> {
        let lost = job.run().restarts;
        if job.phase() != SecondaryStatus::Restarting || lost == 0 {
            return None;
        }
        let pause = self.deps.settings.retry.saturating_mul(lost.min(60));
        let due = job.modified().after(pause);
        (self.deps.now() < due).then_some(due)
    }
}
