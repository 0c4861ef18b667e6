//! One tuning job: starts training jobs as the search suggests, follows them, and ends when enough is known (SM-35..38).
//!
//! The record holds every trial, and a trial commits together with its training job: whatever step is the last of a process,
//! the next process finds either both or none. Training jobs go their own way (`job`); here they are started, read and told
//! to stop.

mod curves;
mod launch;

use crate::deps::{Deps, Next, StepError};
use curves::Curves;
use isolarium_model::sagemaker::training_job::{JobEvent, StopCause, TrainingJob};
use isolarium_model::sagemaker::tuning_job::{
    Enough, FinalStatus, Strategy, TrialEnd, TuningEvent, TuningJob, TuningStatus,
};
use isolarium_model::sagemaker::{FailureKind, FailureReason};
use isolarium_model::{Key, Timestamp};
use isolarium_store::Expect;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest time between two looks at metrics of running training jobs, where early stopping compares them.
const METRICS_POLL: Duration = Duration::from_secs(1);

/// How long a tuning job waits that has no room for a training job, before it looks again.
const ROOM_POLL: Duration = Duration::from_secs(2);

/// Training jobs without an objective metric after which a tuning job gives up, if none had one.
const WITHOUT_OBJECTIVE: usize = 5;

/// What the loop remembers between steps; all of it can be found again.
#[derive(Default)]
pub(crate) struct TuningMemory {
    curves: Curves,
    /// How many trials had ended when convergence was last looked for.
    looked: usize,
}

/// Takes one tuning job as far as it goes now.
pub(crate) fn step(deps: &Deps, key: &Key, memory: &mut TuningMemory) -> Result<Next, StepError> {
    let Some(stored) = deps.store.get::<TuningJob>(key)? else {
        return Ok(Next::Done);
    };
    if stored.record.status.is_final() {
        return Ok(Next::Done);
    }
    let work = Work { deps, key };
    let job = work.settle(stored.record, memory)?;
    let job = work.judge(job, memory)?;
    if job.is_over() {
        return work.wind_down(&job);
    }
    if tells_early(&job) {
        work.stop_early(&job, memory)?;
    }
    work.advance(job)
}

/// The tuning job that a training job of this name would be of, by the way children are named: to wake its loop.
pub(crate) fn parent_of(child: &Key) -> Option<Key> {
    let mut parts = child.name.rsplitn(3, '-');
    let (hex, number, name) = (parts.next()?, parts.next()?, parts.next()?);
    let shaped = hex.len() == 8 && number.len() >= 3 && number.bytes().all(|byte| byte.is_ascii_digit());
    shaped.then(|| Key {
        scope: child.scope.clone(),
        name: name.into(),
    })
}

/// Whether training jobs may be stopped by what they tell while they run.
fn tells_early(job: &TuningJob) -> bool {
    job.early_stopping || job.hyperband.is_some()
}

struct Work<'a> {
    deps: &'a Deps,
    key: &'a Key,
}

impl Work<'_> {
    /// Notes how training jobs ended. DeleteTrainingJob does the same; where a record is gone without that, it had ended: only
    /// such a one can be deleted.
    fn settle(&self, job: TuningJob, memory: &mut TuningMemory) -> Result<TuningJob, StepError> {
        let mut ends: BTreeMap<String, TrialEnd> = BTreeMap::new();
        for trial in job.trials.iter().filter(|trial| trial.end.is_none()) {
            let found = self.child(&job, &trial.job_name)?;
            let end = match &found {
                None => Some(TrialEnd {
                    status: FinalStatus::Stopped,
                    started: None,
                    ended: None,
                    objective: None,
                    failure_reason: None,
                }),
                Some(child) => job.end_of(trial, child),
            };
            if let Some(end) = end {
                ends.insert(trial.job_name.clone(), end);
            }
        }
        if ends.is_empty() {
            return Ok(job);
        }
        let curves = if tells_early(&job) {
            memory.curves.of_ended(self.deps, self.key, &job, &ends)?
        } else {
            Vec::new()
        };
        let now = self.deps.now();
        let settled = self.deps.update::<TuningJob>(self.key, |job, mut batch| {
            for trial in &mut job.trials {
                if let (None, Some(end)) = (&trial.end, ends.get(&trial.job_name)) {
                    trial.end = Some(end.clone());
                }
            }
            job.modified = now;
            for curve in &curves {
                batch = batch.put(&curve.0, Expect::Any, &curve.1)?;
            }
            Ok(Some(batch))
        })?;
        Ok(settled.map_or(job, |stored| stored.record))
    }

    /// Whether enough is known, or no more may be tried.
    fn judge(&self, job: TuningJob, memory: &mut TuningMemory) -> Result<TuningJob, StepError> {
        if job.is_over() {
            return Ok(job);
        }
        let Some(enough) = self.is_enough(&job, memory) else {
            return Ok(job);
        };
        let now = self.deps.now();
        let judged = self.deps.update::<TuningJob>(self.key, |job, batch| {
            if job.is_over() {
                return Ok(None);
            }
            job.enough = Some((enough, now));
            job.modified = now;
            Ok(Some(batch))
        })?;
        Ok(judged.map_or(job, |stored| stored.record))
    }

    fn is_enough(&self, job: &TuningJob, memory: &mut TuningMemory) -> Option<Enough> {
        if deadline(job).is_some_and(|at| self.deps.now() >= at) {
            return Some(Enough::Runtime);
        }
        let ended = job.trials.iter().filter(|trial| trial.end.is_some()).count();
        let parallel = usize::try_from(job.limits.parallel).unwrap_or(usize::MAX);
        let Some(best) = job.best().and_then(|trial| trial.objective()) else {
            let told = job.trials.iter().any(|trial| trial.objective().is_some());
            return (!told && ended >= WITHOUT_OBJECTIVE.max(parallel)).then_some(Enough::NoObjective);
        };
        let goal = job.definitions.first()?.objective.goal;
        if job.criteria.target.is_some_and(|target| !goal.is_better(target, best)) {
            return Some(Enough::Target);
        }
        if job
            .criteria
            .not_improving
            .is_some_and(|most| job.not_improving() >= most)
        {
            return Some(Enough::NotImproving);
        }
        if job.criteria.convergence && memory.looked != ended {
            memory.looked = ended;
            if launch::has_converged(job) {
                return Some(Enough::Converged);
            }
        }
        None
    }

    /// Stops what runs; ends the job when nothing does.
    fn wind_down(&self, job: &TuningJob) -> Result<Next, StepError> {
        let mut running = false;
        for trial in job.trials.iter().filter(|trial| trial.end.is_none()) {
            running = true;
            self.stop(job, &trial.job_name)?;
        }
        if running {
            // The last training job's end wakes the loop.
            return Ok(Next::At(Timestamp(i64::MAX)));
        }
        self.finish()
    }

    fn child(&self, job: &TuningJob, name: &str) -> Result<Option<TrainingJob>, StepError> {
        let key = TrainingJob::key(&self.key.scope, name);
        let found = self.deps.store.get::<TrainingJob>(&key)?;
        Ok(found.map(|stored| stored.record).filter(|child| job.owns(child)))
    }

    /// As StopTrainingJob does; nothing where the job stops or has ended already.
    fn stop(&self, job: &TuningJob, name: &str) -> Result<(), StepError> {
        let now = self.deps.now();
        self.deps
            .update::<TrainingJob>(&TrainingJob::key(&self.key.scope, name), |child, batch| {
                if !job.owns(child) || child.status().is_final() || child.run.stop.is_some() {
                    return Ok(None);
                }
                child.apply(JobEvent::StopRequested, now)?;
                child.run.stop = Some((StopCause::Asked, now));
                Ok(Some(batch))
            })?;
        Ok(())
    }

    /// Stops training jobs that are unlikely to be the best, by what they told so far (SM-36).
    fn stop_early(&self, job: &TuningJob, memory: &mut TuningMemory) -> Result<(), StepError> {
        for (at, trial) in job.trials.iter().enumerate() {
            if trial.end.is_none()
                && let Some(child) = self.child(job, &trial.job_name)?
                && !child.status().is_final()
            {
                memory.curves.follow(self.deps, job, at, &child)?;
            }
        }
        for name in memory.curves.hopeless(self.deps, self.key, job)? {
            tracing::info!(tuning_job = %job.arn, training_job = name, "a training job is stopped early");
            self.stop(job, &name)?;
        }
        Ok(())
    }

    /// Starts what may run, and says when to look again.
    fn advance(&self, mut job: TuningJob) -> Result<Next, StepError> {
        let mut again = deadline(&job).unwrap_or(Timestamp(i64::MAX));
        loop {
            let running = job.trials.iter().filter(|trial| trial.end.is_none()).count();
            let started = u32::try_from(job.trials.len()).unwrap_or(u32::MAX);
            let most = usize::try_from(job.limits.parallel).unwrap_or(usize::MAX);
            let next = if started < job.limits.jobs {
                launch::next(&job)
            } else {
                None
            };
            let Some((definition, values)) = next else {
                if running == 0 {
                    return self.finish();
                }
                break;
            };
            if running >= most {
                break;
            }
            if !launch::has_room(self.deps, self.key, &job, definition)? {
                again = again.min(self.deps.now().after(ROOM_POLL));
                break;
            }
            match launch::start(self.deps, self.key, &job, definition, &values)? {
                Some(newer) => job = newer,
                // Something else changed the record: look again.
                None => return Ok(Next::At(self.deps.now())),
            }
        }
        if tells_early(&job) {
            again = again.min(self.deps.now().after(METRICS_POLL));
        }
        Ok(Next::At(again))
    }

    /// Every training job has ended and no more is wanted.
    fn finish(&self) -> Result<Next, StepError> {
        let now = self.deps.now();
        self.deps.update::<TuningJob>(self.key, |job, batch| {
            if job.status.is_final() || job.trials.iter().any(|trial| trial.end.is_none()) {
                return Ok(None);
            }
            match failure(job) {
                Some(reason) if job.status == TuningStatus::InProgress => {
                    job.apply(TuningEvent::Failed, now)?;
                    job.failure_reason = Some(reason);
                }
                Some(_) | None => job.apply(TuningEvent::Finished, now)?,
            }
            Ok(Some(batch))
        })?;
        Ok(Next::Done)
    }
}

/// When the tuning job's own time is over.
fn deadline(job: &TuningJob) -> Option<Timestamp> {
    job.limits
        .runtime
        .map(|seconds| job.created.after(Duration::from_secs(seconds)))
}

/// Why a tuning job without any objective value failed (SM-37).
fn failure(job: &TuningJob) -> Option<FailureReason> {
    if job.trials.iter().any(|trial| trial.objective().is_some()) {
        return None;
    }
    let failed = |trial: &isolarium_model::sagemaker::tuning_job::Trial| {
        trial.end.as_ref().is_some_and(|end| end.status == FinalStatus::Failed)
    };
    let text = if !job.trials.is_empty() && job.trials.iter().all(failed) {
        "All training jobs failed. Please take a look at the training jobs failures to get more details.".to_owned()
    } else {
        format!(
            "No objective metrics found after running {} training jobs. Please ensure that the custom algorithm is emitting \
             the objective metric as defined by the regular expression provided.",
            job.trials.len()
        )
    };
    Some(FailureReason::job(FailureKind::Client, &text, None))
}

/// Whether the strategy learns from values, so that it is worth telling it those of parents.
fn learns(job: &TuningJob) -> bool {
    match job.strategy {
        Strategy::Bayesian => true,
        Strategy::Random | Strategy::Grid | Strategy::Hyperband => false,
    }
}

#[cfg(test)]
mod tests;
