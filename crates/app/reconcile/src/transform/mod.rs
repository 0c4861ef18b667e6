//! Batch transform jobs: containers that serve, to which the objects of the input go in requests (CC-64..79, SM-39).
//!
//! A step gives every instance its place and its container, waits until it answers its pings, and lets [`run`] send the
//! instance's share of the objects from a thread of its own, for that may take days. What the run has done is noted in the
//! record about once a second: a process that is killed repeats the objects of that second, and an output appears whole or
//! not at all.

mod end;
mod invoke;
mod launch;
mod run;
mod share;

#[cfg(test)]
mod tests;

use crate::deps::{Deps, Next, StepError};
use crate::logs::{self, Drained, LogCursor, Sink};
use crate::transfer::Actor;
use isolarium_model::sagemaker::transform_job::{ObjectFault, TransformInstance};
use isolarium_model::sagemaker::{FailureKind, TransformJob, TransformJobStatus};
use isolarium_model::{Key, Timestamp};
use isolarium_runtime::executor::WorkloadState;
use run::Running;
use std::collections::BTreeMap;
use std::time::Duration;

/// The log group of transform jobs (CC-90).
const LOG_GROUP: &str = "/aws/sagemaker/TransformJobs";

/// Time between two notes of how far a run is.
const NOTE: Duration = Duration::from_secs(1);

/// Time between looks for new blocked attempts.
const REPORT: Duration = Duration::from_secs(10);

/// What the loop remembers between steps; all of it can be found again.
#[derive(Default)]
pub(crate) struct TransformMemory {
    /// By the instance's id.
    instances: BTreeMap<String, InstanceMemory>,
    ending: Option<Ending>,
    /// This process did something on the host for the job.
    touched: bool,
}

#[derive(Default)]
struct InstanceMemory {
    logs: LogCursor,
    last_ping: Option<Timestamp>,
    last_report: Option<Timestamp>,
    last_note: Option<Timestamp>,
    run: Option<Running>,
    killed: Option<Timestamp>,
    ended_seen: Option<Timestamp>,
}

/// The job ends, and its containers are to go.
struct Ending {
    outcome: Outcome,
    since: Timestamp,
    /// Until SIGKILL.
    grace: Duration,
    terminated: bool,
}

/// How a job ends.
#[derive(Clone)]
enum Outcome {
    Succeeded,
    Stopped,
    Failed(FailureKind, String),
}

/// Why the job cannot go on.
enum Trouble {
    /// It will not, whatever is repeated.
    Final(FailureKind, String),
    /// The step is repeated.
    Retry(StepError),
}

impl From<StepError> for Trouble {
    fn from(error: StepError) -> Self {
        Self::Retry(error)
    }
}

/// Takes one job as far as it goes now.
pub(crate) fn step(deps: &Deps, key: &Key, memory: &mut TransformMemory) -> Result<Next, StepError> {
    let Some(stored) = deps.store.get::<TransformJob>(key)? else {
        return Ok(Next::Done);
    };
    let work = Work { deps, key };
    let job = stored.record;
    match job.status {
        TransformJobStatus::Completed | TransformJobStatus::Failed | TransformJobStatus::Stopped => {
            work.clean(&job, memory)
        }
        TransformJobStatus::Stopping => {
            let since = job.run.stop.unwrap_or(job.modified);
            let stopping = matches!(&memory.ending, Some(ending) if matches!(ending.outcome, Outcome::Stopped));
            if !stopping {
                memory.ending = Some(Ending {
                    outcome: Outcome::Stopped,
                    since,
                    grace: deps.settings.hosting_grace,
                    terminated: false,
                });
            }
            work.wind_down(&job, memory)
        }
        TransformJobStatus::InProgress if memory.ending.is_some() => work.wind_down(&job, memory),
        TransformJobStatus::InProgress => {
            if let Some((kind, text)) = &job.run.failing {
                // The others have nothing to wait for.
                memory.end(Outcome::Failed(*kind, text.clone()), deps.now(), Duration::ZERO);
                return work.wind_down(&job, memory);
            }
            let job = work.fit(job)?;
            match work.tend(&job, memory) {
                Ok(next) => Ok(next),
                Err(Trouble::Retry(error)) => Err(error),
                Err(Trouble::Final(kind, text)) => {
                    work.note_failure(kind, &text)?;
                    Ok(Next::At(deps.now()))
                }
            }
        }
    }
}

impl TransformMemory {
    fn end(&mut self, outcome: Outcome, since: Timestamp, grace: Duration) {
        self.ending = Some(Ending {
            outcome,
            since,
            grace,
            terminated: false,
        });
    }

    fn instance(&mut self, id: &str) -> &mut InstanceMemory {
        self.instances.entry(id.to_owned()).or_default()
    }
}

/// One job's steps.
struct Work<'a> {
    deps: &'a Deps,
    key: &'a Key,
}

impl Work<'_> {
    /// The model's execution role, moving data as the instance's placement wants.
    fn actor(&self, job: &TransformJob, instance: &TransformInstance) -> Actor {
        Deps::actor(self.key, &job.spec.model.role_arn, &job.arn)
            .sealing(job.spec.output.kms_key.as_ref())
            .copying_to(job.spec.volume.as_ref(), &instance.placement.workload)
            .of(&instance.placement)
    }

    /// Gives every instance an id, a workload and a network. Nothing of it is on the host before this is committed.
    fn fit(&self, job: TransformJob) -> Result<TransformJob, StepError> {
        let wanted = usize::try_from(job.spec.instance_count).unwrap_or(usize::MAX);
        if job.run.instances.len() >= wanted {
            return Ok(job);
        }
        let stored = self.deps.update::<TransformJob>(self.key, |job, batch| {
            if job.status != TransformJobStatus::InProgress {
                return Ok(None);
            }
            let mut batch = batch;
            while job.run.instances.len() < wanted {
                let (placement, more) = self.deps.place(&job.spec.model.network, self.key, &job.arn, batch)?;
                batch = more;
                job.run.instances.push(TransformInstance {
                    id: format!("i-{}", self.deps.ids.hex(17)),
                    placement,
                    launched: None,
                    done: 0,
                    finished: false,
                    failed: 0,
                    fault: None,
                    why: None,
                });
            }
            Ok(Some(batch))
        })?;
        Ok(stored.map_or(job, |stored| stored.record))
    }

    /// Looks after every instance, and draws the consequence when all of them have finished.
    fn tend(&self, job: &TransformJob, memory: &mut TransformMemory) -> Result<Next, Trouble> {
        if !self.room(job)? {
            return Ok(Next::At(Timestamp(i64::MAX)));
        }
        memory.touched = true;
        let mut next = Timestamp(i64::MAX);
        for instance in &job.run.instances {
            if !instance.finished && self.deps.state_of(&instance.placement.workload)?.is_none() {
                self.deal(job)?;
                break;
            }
        }
        for instance in &job.run.instances {
            let again = match self.deps.state_of(&instance.placement.workload)? {
                _ if instance.finished => Timestamp(i64::MAX),
                None if instance.launched.is_some() => {
                    return Err(Trouble::Final(
                        FailureKind::Internal,
                        "The instance that ran the job was lost.".into(),
                    ));
                }
                None => {
                    self.launch(job, instance)?;
                    self.deps.now()
                }
                Some(WorkloadState::Running { started }) => {
                    if instance.launched.is_none() {
                        // An earlier process launched it and died before it could say so.
                        self.note_launch(instance, None)?;
                    }
                    self.running(job, instance, memory.instance(&instance.id), started)?
                }
                Some(WorkloadState::Exited(status)) => {
                    let mut text = format!("The model container ended with exit code {}", status.code);
                    if status.out_of_memory {
                        text = format!("The container used more memory than {} has", job.spec.instance_type);
                    }
                    return Err(Trouble::Final(FailureKind::Algorithm, text));
                }
                Some(WorkloadState::NotStarted { reason }) => {
                    crate::deps::log_not_started(&job.arn, &reason);
                    return Err(Trouble::Final(FailureKind::Internal, crate::deps::NOT_STARTED.into()));
                }
            };
            next = next.min(again);
        }
        if job.run.instances.iter().all(|instance| instance.finished) {
            memory.end(
                outcome(job),
                self.deps.now(),
                end::GRACE.min(self.deps.settings.hosting_grace),
            );
            return Ok(Next::At(self.deps.now()));
        }
        Ok(Next::At(next))
    }

    /// A container that runs: pings until the first good one, then its share of the objects.
    fn running(
        &self,
        job: &TransformJob,
        instance: &TransformInstance,
        memory: &mut InstanceMemory,
        started: Timestamp,
    ) -> Result<Timestamp, Trouble> {
        let (settings, now) = (&self.deps.settings, self.deps.now());
        let mut again = self.read_output(job, instance, memory)?;
        if memory.run.is_none() {
            let due = memory
                .last_ping
                .map_or(now, |last| last.after(settings.startup_ping_interval));
            if now < due {
                return Ok(again.min(due));
            }
            let workload = &instance.placement.workload;
            let answered = crate::ping::healthy(
                &*self.deps.dial,
                workload,
                crate::ping::SERVING_PORT,
                settings.ping_timeout,
            );
            memory.last_ping = Some(self.deps.now());
            if answered {
                memory.run = Some(self.begin(job, instance)?);
                return Ok(self.deps.now());
            }
            let deadline = started.after(settings.startup_deadline);
            if self.deps.now() >= deadline {
                return Err(Trouble::Final(
                    FailureKind::Algorithm,
                    "The primary container did not pass the ping health check. Please check CloudWatch logs for this \
                     transform job."
                        .into(),
                ));
            }
            return Ok(again
                .min(self.deps.now().after(settings.startup_ping_interval))
                .min(deadline));
        }
        let (progress, due) = match &memory.run {
            Some(run) => (
                run.progress(),
                memory.last_note.is_none_or(|last| now >= last.after(NOTE)),
            ),
            None => return Ok(again),
        };
        let changed = progress.done != instance.done || progress.finished;
        if changed && (due || progress.finished) {
            self.note(instance, &progress)?;
            memory.last_note = Some(now);
            if progress.finished {
                self.write_data_log(job, instance, memory);
                again = now;
            }
        }
        Ok(again.min(now.after(settings.log_interval)))
    }

    /// Writes into the record why the job fails, before anything is done about it.
    fn note_failure(&self, kind: FailureKind, text: &str) -> Result<(), StepError> {
        self.deps.update::<TransformJob>(self.key, |job, batch| {
            if job.status != TransformJobStatus::InProgress || job.run.failing.is_some() {
                return Ok(None);
            }
            job.run.failing = Some((kind, text.to_owned()));
            Ok(Some(batch))
        })?;
        Ok(())
    }

    /// Writes into the record how far a run is.
    fn note(&self, instance: &TransformInstance, progress: &run::Progress) -> Result<(), StepError> {
        self.deps.update::<TransformJob>(self.key, |job, batch| {
            let own = job.run.instances.iter_mut().find(|one| one.id == instance.id);
            let Some(own) = own.filter(|own| !own.finished) else {
                return Ok(None);
            };
            own.done = progress.done;
            own.failed = progress.failed;
            own.fault = progress.fault;
            own.why.clone_from(&progress.why);
            own.finished = progress.finished;
            Ok(Some(batch))
        })?;
        Ok(())
    }

    /// Reads what the container wrote, its attempts to leave, and what the run says of the data.
    fn read_output(
        &self,
        job: &TransformJob,
        instance: &TransformInstance,
        memory: &mut InstanceMemory,
    ) -> Result<Timestamp, StepError> {
        let now = self.deps.now();
        self.write_data_log(job, instance, memory);
        if memory.logs.is_fresh(self.deps) {
            return Ok(now.after(self.deps.settings.log_interval));
        }
        let stream = job.log_stream(instance);
        let actor = self.actor(job, instance);
        let sink = Sink {
            job: None,
            actor: &actor,
            group: LOG_GROUP,
            stream: &stream,
        };
        let placement = &instance.placement;
        if placement.isolated() && memory.last_report.is_none_or(|last| now >= last.after(REPORT)) {
            logs::report(self.deps, &sink, placement, &mut memory.logs)?;
            memory.last_report = Some(now);
        }
        Ok(
            match logs::pump(self.deps, &sink, &placement.workload, &mut memory.logs, None)? {
                Drained::More => now,
                Drained::Idle | Drained::Complete => now.after(Duration::from_secs(1)),
            },
        )
    }

    /// What the run says of the data goes to `<stream>/data-log` (CC-90).
    fn write_data_log(&self, job: &TransformJob, instance: &TransformInstance, memory: &mut InstanceMemory) {
        let Some(run) = &mut memory.run else { return };
        let stream = format!("{}/data-log", job.log_stream(instance));
        let actor = self.actor(job, instance);
        let sink = Sink {
            job: None,
            actor: &actor,
            group: LOG_GROUP,
            stream: &stream,
        };
        let lines = run.lines();
        if !lines.is_empty() {
            logs::say(
                self.deps,
                &sink,
                &logs::data_source(&instance.placement.workload),
                &mut run.said,
                &lines,
            );
        }
    }
}

/// What came of the job, once all instances have finished.
fn outcome(job: &TransformJob) -> Outcome {
    let failed: Vec<_> = job
        .run
        .instances
        .iter()
        .filter(|instance| instance.failed > 0)
        .collect();
    let Some(first) = failed.first() else {
        return Outcome::Succeeded;
    };
    let kind = match first.fault {
        Some(ObjectFault::Algorithm) => FailureKind::Algorithm,
        Some(ObjectFault::Internal) => FailureKind::Internal,
        Some(ObjectFault::Client) | None => FailureKind::Client,
    };
    let why = first.why.clone();
    Outcome::Failed(kind, why.unwrap_or_else(|| "See job logs for more information".into()))
}
