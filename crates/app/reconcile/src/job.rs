//! One training job: Starting, Downloading, Training, Uploading, end (SM-28). Every step may be repeated; after a
//! restart of the engine the record and the host together say where the job stands.

use crate::checkpoints::{self, Checkpoints};
use crate::collect::{self, FailureText};
use crate::container;
use crate::deps::{AttachError, Deps, NOT_STARTED, Next, StepError, log_not_started};
use crate::driver::with_slow;
use crate::logs::{self, Drained, LogCursor, Sink};
use crate::metrics::MetricScanner;
use crate::network::place::Wanted;
use crate::stage::{self, StageError};
use crate::transfer::{Actor, Image};
use crate::workdir;
use isolarium_model::sagemaker::model::ResolvedImage;
use isolarium_model::sagemaker::training_job::{JobEvent, SecondaryStatus, StopCause, TrainingJob};
use isolarium_model::sagemaker::{Attachment, BlockedDestination, FailureKind, FailureReason};
use isolarium_model::{Key, Timestamp};
use isolarium_runtime::executor::{ExecutorError, ExitStatus, WorkloadState};
use std::time::Duration;

/// The log group of training jobs (CC-90).
pub(crate) const LOG_GROUP: &str = "/aws/sagemaker/TrainingJobs";

/// How long the last lines of an ended container are waited for.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Longest time between two looks at a running container's output.
const OUTPUT_POLL: Duration = Duration::from_secs(1);

/// What the loop remembers between steps; all of it can be found again.
#[derive(Default)]
pub(crate) struct JobMemory {
    logs: LogCursor,
    metrics: Option<MetricScanner>,
    checkpoints: Checkpoints,
    terminated: bool,
    killed: Option<Timestamp>,
    ended_seen: Option<Timestamp>,
    /// This process did something on the host for the job.
    touched: bool,
}

/// Takes one job as far as it goes now.
pub(crate) fn step(deps: &Deps, key: &Key, memory: &mut JobMemory) -> Result<Next, StepError> {
    let Some(stored) = deps.store.get::<TrainingJob>(key)? else {
        return Ok(Next::Done);
    };
    let work = Work {
        deps,
        key,
        actor: Deps::actor(key, &stored.record.spec.role_arn, &stored.record.arn).of(&stored.record.run.placement),
    };
    let job = stored.record;
    match job.secondary {
        SecondaryStatus::Starting | SecondaryStatus::Downloading => work.start(&job, memory),
        SecondaryStatus::Training => work.watch(&job, memory),
        SecondaryStatus::Uploading => work.finish(&job, memory),
        SecondaryStatus::Stopping => work.stop(&job, memory),
        SecondaryStatus::Completed
        | SecondaryStatus::Failed
        | SecondaryStatus::Stopped
        | SecondaryStatus::MaxRuntimeExceeded => work.clean(&job, memory),
    }
}

struct Work<'a> {
    deps: &'a Deps,
    key: &'a Key,
    actor: Actor,
}

/// How a job ends.
enum Outcome {
    Succeeded,
    Stopped,
    Failed(FailureReason),
}

/// Why the container does not run.
enum LaunchFailure {
    /// It will not run, whatever is repeated.
    Final(FailureKind, String),
    /// The host was away; the step is repeated.
    Retry(ExecutorError),
}

impl Work<'_> {
    fn start(&self, job: &TrainingJob, memory: &mut JobMemory) -> Result<Next, StepError> {
        let workload = &job.run.placement.workload;
        let known = match self.deps.seen.get(workload) {
            None if job.run.launched => self.deps.state_of(workload)?,
            other => other,
        };
        let mut image = job.run.image.clone();
        if known.is_none() {
            memory.touched = true;
            let attached = match self.attach(job) {
                Ok(Some(attached)) => attached,
                Ok(None) => return Ok(Next::At(self.deps.now())),
                Err(AttachError::Step(error)) => return Err(error),
                Err(AttachError::Refused(text)) => return self.fail(job, memory, FailureKind::Client, &text),
                Err(AttachError::Host(error)) => {
                    log_not_started(&job.arn, &crate::driver::chain(&error));
                    return self.fail(job, memory, FailureKind::Internal, NOT_STARTED);
                }
            };
            let (work, job) = (self.for_placement(&attached), &attached);
            let launched = with_slow(
                self.deps.settings.slow_phase,
                || self.show(JobEvent::InstanceReady, SecondaryStatus::Starting),
                || work.launch(job, &mut memory.checkpoints),
            );
            match launched {
                Ok(Some(resolved)) => image = Some(resolved),
                Ok(None) => {}
                Err(LaunchFailure::Retry(error)) => return Err(StepError::Executor(error)),
                Err(LaunchFailure::Final(kind, text)) => return self.fail(job, memory, kind, &text),
            }
        }
        if image.is_none() {
            // An earlier process launched it and died before it could say with which.
            image = self.deps.work.noted_image(workload);
        }
        // One commit for all phases that are over: nothing waits for the disk before the container runs.
        self.deps.update::<TrainingJob>(self.key, |job, batch| {
            let now = self.deps.now();
            job.run.launched = true;
            job.run.image = image.clone();
            if job.secondary == SecondaryStatus::Starting {
                job.apply(JobEvent::InstanceReady, now)?;
            }
            if job.secondary == SecondaryStatus::Downloading {
                job.apply(JobEvent::ContainerRuns, now)?;
            }
            Ok(Some(batch))
        })?;
        Ok(Next::At(self.deps.now()))
    }

    /// The same work, with data that travels as the job's placement wants.
    fn for_placement(&self, job: &TrainingJob) -> Self {
        Work {
            deps: self.deps,
            key: self.key,
            actor: self.actor.clone().of(&job.run.placement),
        }
    }

    /// The job with its place in the VPC, if it is to have one (NET-66). `None`: the job's record has gone on meanwhile.
    fn attach(&self, job: &TrainingJob) -> Result<Option<TrainingJob>, AttachError> {
        let Some(attachment) = job.spec.network.vpc() else {
            return Ok(Some(job.clone()));
        };
        let wanted = Wanted {
            attachment,
            isolated: job.spec.network.isolated(),
            workload: &job.run.placement.workload,
            owner: self.key,
            owner_arn: &job.arn,
            instance: container::FIRST_HOST,
        };
        let placed = self
            .deps
            .attach(&self.actor, &wanted, &job.run.placement, &mut |plan| {
                let stored = self.deps.update::<TrainingJob>(self.key, |job, batch| {
                    let starting = matches!(job.secondary, SecondaryStatus::Starting | SecondaryStatus::Downloading);
                    if !starting || !matches!(job.run.placement.attachment, Attachment::Unattached { .. }) {
                        return Ok(None);
                    }
                    let Some((place, batch)) = plan(batch)? else {
                        return Ok(None);
                    };
                    job.run.placement.attachment = Attachment::Vpc(place);
                    Ok(Some(batch))
                })?;
                let placement = stored.map(|stored| stored.record.run.placement);
                Ok(placement.filter(|placement| placement.vpc().is_some()))
            })?;
        Ok(placed.map(|placement| {
            let mut job = job.clone();
            job.run.placement = placement;
            job
        }))
    }

    /// Makes a phase visible that lasts longer than a moment. A failure here is not the job's: the phase is committed
    /// with the next one.
    fn show(&self, event: JobEvent, from: SecondaryStatus) {
        let shown = self.deps.update::<TrainingJob>(self.key, |job, batch| {
            if job.secondary != from {
                return Ok(None);
            }
            job.apply(event, self.deps.now())?;
            Ok(Some(batch))
        });
        if let Err(error) = shown {
            tracing::warn!(job = %self.key.name, %error, "a phase could not be shown");
        }
    }

    /// `None` when a launch that an earlier process began turns out to have worked: its inputs are in use.
    fn launch(&self, job: &TrainingJob, checkpoints: &mut Checkpoints) -> Result<Option<ResolvedImage>, LaunchFailure> {
        let deps = self.deps;
        let workload = &job.run.placement.workload;
        deps.executor.prepare(workload).map_err(|error| host(job, error))?;
        if deps.is_launched(workload).map_err(|error| host(job, error))? {
            return Ok(None);
        }
        let image = self.image(job)?;
        self.inputs(job, checkpoints)
            .map_err(|error| staged(job, error, "Data download failed:"))?;
        let spec = container::training(deps, job, &image, &self.key.scope.region)
            .map_err(|error| LaunchFailure::Final(FailureKind::Client, error.to_string()))?;
        let resolved = ResolvedImage {
            specified: job.spec.container.image.clone(),
            digest: image.digest,
        };
        deps.work
            .note_image(workload, &resolved)
            .map_err(|error| staged(job, error.into(), "Data download failed:"))?;
        deps.launch(&self.key.scope, &job.run.placement, &spec)
            .map_err(|error| host(job, error))?;
        Ok(Some(resolved))
    }

    fn image(&self, job: &TrainingJob) -> Result<Image, LaunchFailure> {
        let reference = &job.spec.container.image;
        let failed = |error| staged(job, error, &format!("Cannot pull the image {reference}: "));
        let image = self
            .deps
            .transfer
            .resolve_image(&self.actor, reference)
            .map_err(|error| failed(error.into()))?;
        stage::layers(self.deps, &image).map_err(failed)?;
        Ok(image)
    }

    fn inputs(&self, job: &TrainingJob, checkpoints: &mut Checkpoints) -> Result<(), StageError> {
        let workload = &job.run.placement.workload;
        stage::ca_bundle(self.deps, &job.run.placement)?;
        let config = self.deps.work.make(workload, "input/config")?;
        for (name, bytes) in container::config_files(job) {
            workdir::write_readable(&config.join(name), &bytes)?;
        }
        if !job.spec.channels.is_empty() {
            self.deps.work.make(workload, "input/data")?;
        }
        for channel in &job.spec.channels {
            stage::channel(self.deps, &self.actor, workload, channel)?;
        }
        checkpoints::restore(self.deps, &self.actor, job, checkpoints)
    }

    fn watch(&self, job: &TrainingJob, memory: &mut JobMemory) -> Result<Next, StepError> {
        memory.touched = true;
        match self.deps.state_of(&job.run.placement.workload)? {
            Some(WorkloadState::Running { .. }) => self.running(job, memory),
            Some(WorkloadState::Exited(status)) if status.code == 0 => self.finish(job, memory),
            Some(WorkloadState::Exited(status)) => self.crashed(job, memory, &status),
            Some(WorkloadState::NotStarted { reason }) => {
                log_not_started(&job.arn, &reason);
                self.fail(job, memory, FailureKind::Internal, NOT_STARTED)
            }
            None => self.fail(
                job,
                memory,
                FailureKind::Internal,
                "The instance that ran the job was lost.",
            ),
        }
    }

    fn running(&self, job: &TrainingJob, memory: &mut JobMemory) -> Result<Next, StepError> {
        let mut again = self.read_output(job, memory)?;
        let now = self.deps.now();
        let deadline = job
            .training_start
            .unwrap_or(job.created)
            .after(Duration::from_secs(job.spec.max_runtime));
        if now >= deadline {
            self.deps.update::<TrainingJob>(self.key, |job, batch| {
                if job.secondary != SecondaryStatus::Training {
                    return Ok(None);
                }
                job.run.stop = Some((StopCause::MaxRuntime, now));
                job.apply(JobEvent::StopRequested, now)?;
                Ok(Some(batch))
            })?;
            return Ok(Next::At(now));
        }
        again = again.min(deadline);
        if job.spec.checkpoints.is_some() {
            let due = memory
                .checkpoints
                .last
                .unwrap_or(job.created)
                .after(self.deps.settings.checkpoint_interval);
            if now >= due {
                self.save_checkpoints(job, memory);
            }
            again = again.min(now.max(due).after(Duration::from_millis(1)));
        }
        Ok(Next::At(again))
    }

    /// Reads what the container wrote, and says when to read again at the latest.
    fn read_output(&self, job: &TrainingJob, memory: &mut JobMemory) -> Result<Timestamp, StepError> {
        let now = self.deps.now();
        if memory.logs.is_fresh(self.deps) {
            return Ok(now.after(self.deps.settings.log_interval));
        }
        match self.pump(job, memory)? {
            Drained::More => Ok(now),
            // A new line wakes the loop; a wake-up that was missed is made good after this time.
            Drained::Idle | Drained::Complete => Ok(now.after(OUTPUT_POLL)),
        }
    }

    fn pump(&self, job: &TrainingJob, memory: &mut JobMemory) -> Result<Drained, StepError> {
        let stream = job.log_stream();
        let sink = Sink {
            actor: &self.actor,
            group: LOG_GROUP,
            stream: &stream,
        };
        let metrics = memory
            .metrics
            .get_or_insert_with(|| MetricScanner::new(&job.spec.metrics));
        logs::pump(
            self.deps,
            &sink,
            &job.run.placement.workload,
            &mut memory.logs,
            Some(metrics),
        )
    }

    /// A checkpoint that cannot be saved now is saved later; the job goes on.
    fn save_checkpoints(&self, job: &TrainingJob, memory: &mut JobMemory) {
        if let Err(error) = checkpoints::sync(self.deps, &self.actor, job, &mut memory.checkpoints) {
            tracing::warn!(job = %job.arn, %error, "checkpoints could not be synchronised");
            memory.checkpoints.last = Some(self.deps.now());
        }
    }

    /// The container has ended: waits for its last lines. `Some` means look again then.
    fn drain(&self, job: &TrainingJob, memory: &mut JobMemory) -> Result<Option<Next>, StepError> {
        memory.touched = true;
        let now = self.deps.now();
        let seen = *memory.ended_seen.get_or_insert(now);
        loop {
            match self.pump(job, memory)? {
                Drained::Complete => return Ok(None),
                Drained::More => {}
                Drained::Idle if now.since(seen) >= DRAIN_LIMIT => {
                    tracing::warn!(job = %job.arn, "the end of the container's output did not arrive");
                    return Ok(None);
                }
                Drained::Idle => return Ok(Some(Next::At(now.after(Duration::from_millis(10))))),
            }
        }
    }

    /// After exit code 0, and again after a restart in Uploading.
    fn finish(&self, job: &TrainingJob, memory: &mut JobMemory) -> Result<Next, StepError> {
        if self.deps.state_of(&job.run.placement.workload)?.is_none() {
            return self.fail(
                job,
                memory,
                FailureKind::Internal,
                "The instance that ran the job was lost.",
            );
        }
        if let Some(next) = self.drain(job, memory)? {
            return Ok(next);
        }
        let uploaded = with_slow(
            self.deps.settings.slow_phase,
            || self.show(JobEvent::ContainerSucceeded, SecondaryStatus::Training),
            || self.upload(job, memory, true),
        );
        match uploaded {
            Ok(()) => self.conclude(job, memory, &Outcome::Succeeded),
            Err(error) => self.upload_failed(job, memory, error),
        }
    }

    fn upload(&self, job: &TrainingJob, memory: &mut JobMemory, with_model: bool) -> Result<(), StageError> {
        checkpoints::sync(self.deps, &self.actor, job, &mut memory.checkpoints)?;
        collect::artifacts(self.deps, &self.actor, job, with_model)
    }

    fn upload_failed(&self, job: &TrainingJob, memory: &mut JobMemory, error: StageError) -> Result<Next, StepError> {
        match staged(job, error, "Artifact upload failed:") {
            LaunchFailure::Retry(error) => Err(StepError::Executor(error)),
            LaunchFailure::Final(kind, text) => self.fail(job, memory, kind, &text),
        }
    }

    /// After another exit code (CC-31): the failure text, and what output there is (CC-33).
    fn crashed(&self, job: &TrainingJob, memory: &mut JobMemory, status: &ExitStatus) -> Result<Next, StepError> {
        if let Some(next) = self.drain(job, memory)? {
            return Ok(next);
        }
        let mut text = collect::failure_text(self.deps, job);
        if text.is_empty() && status.out_of_memory {
            text = format!("The container used more memory than {} has", job.spec.instance_type);
        }
        if let Err(error) = self.upload(job, memory, false) {
            tracing::warn!(job = %job.arn, %error, "output of a failed job could not be uploaded");
        }
        let attempts = self.deps.attempts(&job.run.placement);
        let first = attempts.first().map(BlockedDestination::note);
        let reason = FailureReason::container(&text, status.code, first.as_ref());
        self.conclude(job, memory, &Outcome::Failed(reason))
    }

    /// SIGTERM, grace, SIGKILL; artifacts afterwards (CC-34).
    fn stop(&self, job: &TrainingJob, memory: &mut JobMemory) -> Result<Next, StepError> {
        let workload = &job.run.placement.workload;
        match self.deps.state_of(workload)? {
            Some(WorkloadState::Running { .. }) => {
                memory.touched = true;
                let now = self.deps.now();
                if !memory.terminated {
                    self.deps
                        .executor
                        .terminate(workload, false)
                        .map_err(StepError::Executor)?;
                    memory.terminated = true;
                }
                let asked = job.run.stop.map_or(job.modified, |(_, at)| at);
                let mut again = self.read_output(job, memory)?;
                let limit = asked.after(self.deps.settings.training_grace);
                if now < limit {
                    again = again.min(limit);
                } else {
                    if memory
                        .killed
                        .is_none_or(|last| now.since(last) >= Duration::from_secs(1))
                    {
                        self.deps
                            .executor
                            .terminate(workload, true)
                            .map_err(StepError::Executor)?;
                        memory.killed = Some(now);
                    }
                    again = again.min(now.after(Duration::from_secs(1)));
                }
                Ok(Next::At(again))
            }
            Some(WorkloadState::Exited(_)) => {
                if let Some(next) = self.drain(job, memory)? {
                    return Ok(next);
                }
                match self.upload(job, memory, true) {
                    Ok(()) => self.conclude(job, memory, &Outcome::Stopped),
                    Err(error) => self.upload_failed(job, memory, error),
                }
            }
            Some(WorkloadState::NotStarted { .. }) | None => self.conclude(job, memory, &Outcome::Stopped),
        }
    }

    fn fail(
        &self,
        job: &TrainingJob,
        memory: &mut JobMemory,
        kind: FailureKind,
        text: &str,
    ) -> Result<Next, StepError> {
        let attempts = self.deps.attempts(&job.run.placement);
        let first = attempts.first().map(BlockedDestination::note);
        self.conclude(
            job,
            memory,
            &Outcome::Failed(FailureReason::job(kind, text, first.as_ref())),
        )
    }

    /// Writes the end, with everything that must outlive the workload, in one commit; then removes the workload.
    fn conclude(&self, job: &TrainingJob, memory: &mut JobMemory, outcome: &Outcome) -> Result<Next, StepError> {
        memory.touched = true;
        let stream = job.log_stream();
        let sink = Sink {
            actor: &self.actor,
            group: LOG_GROUP,
            stream: &stream,
        };
        let attempts = logs::report(self.deps, &sink, &job.run.placement, &mut memory.logs)?;
        let metrics = memory
            .metrics
            .as_ref()
            .map(|scanner| scanner.last().clone())
            .unwrap_or_default();
        let ended = self.deps.update::<TrainingJob>(self.key, |job, batch| {
            if job.status().is_final() {
                return Ok(None);
            }
            let now = self.deps.now();
            job.final_metrics.clone_from(&metrics);
            match outcome {
                Outcome::Failed(reason) => job.fail(reason.clone(), now)?,
                Outcome::Succeeded if job.secondary == SecondaryStatus::Stopping => stopped(job, now)?,
                Outcome::Stopped => stopped(job, now)?,
                Outcome::Succeeded => {
                    if job.secondary == SecondaryStatus::Training {
                        job.apply(JobEvent::ContainerSucceeded, now)?;
                    }
                    job.apply(JobEvent::Uploaded, now)?;
                }
            }
            let batch = self
                .deps
                .keep_attempts(&self.key.scope, &job.run.placement, &job.arn, &attempts, batch)?;
            Ok(Some(batch))
        })?;
        // The record knows of interfaces that were made after `job` was read.
        match ended {
            Some(ended) => self.clean(&ended.record, memory),
            None => self.clean(job, memory),
        }
    }

    fn clean(&self, job: &TrainingJob, memory: &JobMemory) -> Result<Next, StepError> {
        // A job that ended before this process began is the sweep's, which looks at the host itself.
        if memory.touched || self.deps.seen.get(&job.run.placement.workload).is_some() {
            self.deps.remove(&job.run.placement, &self.actor)?;
        }
        Ok(Next::Done)
    }
}

fn stopped(job: &mut TrainingJob, now: Timestamp) -> Result<(), StepError> {
    let cause = job.run.stop.map_or(StopCause::Asked, |(cause, _)| cause);
    Ok(job.apply(JobEvent::StopFinished(cause), now)?)
}

/// What a failed call of the executor means for the job.
fn host(job: &TrainingJob, error: ExecutorError) -> LaunchFailure {
    match error {
        ExecutorError::Unreachable(_) => LaunchFailure::Retry(error),
        ExecutorError::Unstartable(why) => LaunchFailure::Final(
            FailureKind::Client,
            format!("The container could not be started: {why}"),
        ),
        ExecutorError::Refused(why) => LaunchFailure::Final(FailureKind::Client, why),
        ExecutorError::Seal(_) | ExecutorError::Unknown | ExecutorError::Host(_) => {
            log_not_started(&job.arn, &error);
            LaunchFailure::Final(FailureKind::Internal, NOT_STARTED.into())
        }
    }
}

/// What a failed transfer means for the job.
fn staged(job: &TrainingJob, error: StageError, what: &str) -> LaunchFailure {
    let error = match error.away() {
        Ok(away) => return LaunchFailure::Retry(away),
        Err(error) => error,
    };
    match FailureText::from(error) {
        FailureText::Client(text) => LaunchFailure::Final(FailureKind::Client, format!("{what}{text}")),
        FailureText::Engine(cause) => {
            tracing::error!(job = %job.arn, cause = crate::driver::chain(&*cause), "a transfer failed");
            let text = format!("{what}the engine could not move the data");
            LaunchFailure::Final(FailureKind::Internal, text)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
