//! Jobs whose containers run to their own end: Starting, Downloading, Training, Uploading, end (SM-28). Every step may be
//! repeated; after a restart of the engine the record and the host together say where the job stands.
//!
//! # The seam
//!
//! The phases do not know what a job is for. [`start`] gives every instance its place in the network, stages and launches
//! all of them and lets their programs go together; [`run`] watches them and reads their output; [`stop`] ends them the
//! patient way; [`end`] collects, writes the end and removes what was on the host. What they need of a noun is [`Job`]: data
//! (names, image, time limit, log stream), its files and container ([`Job::stage`], [`Job::container`]), what it does beside
//! running containers ([`Job::tend`]), and what leaves them ([`Job::collect`]). [`training`] is the first one, [`processing`] the second.
//!
//! To add a noun: store the phase as a [`SecondaryStatus`] and the run as a [`JobRun`] in its record (a noun without
//! secondary statuses shows `SecondaryStatus::status` alone), implement [`Job`] in a file beside `training`, add a subject and
//! a memory to the driver, and add the kind where all jobs are listed: `gc::wanted`, `network::peers`, the credentials
//! endpoint and the operator's report.
//!
//! Rules that the phases rely on:
//! - A workload's id is in the record before anything of it is on the host.
//! - Every hook may run again after it worked, in this process or another. What it kept in [`Job::Kept`] may be gone.
//! - A record changes inside `Deps::update` alone, in one commit with everything that must be true together with it.
//! - A hook never ends a container; the phases do.

mod end;
mod pool;
pub(crate) mod processing;
mod restart;
mod run;
mod start;
mod stop;
pub(crate) mod training;

use crate::collect::FailureText;
use crate::deps::{Deps, NOT_STARTED, Next, StepError, log_not_started};
use crate::logs::{LogCursor, Sink};
use crate::metrics::MetricScanner;
use crate::stage::StageError;
use crate::transfer::{Actor, Image};
use isolarium_model::sagemaker::training_job::{
    JobEvent, JobRun, MetricDefinition, SecondaryStatus, StopCause, TrainingJob,
};
use isolarium_model::sagemaker::{
    EncryptedVolume, FailureKind, FailureReason, IllegalTransition, JobNetwork, Placement, ProcessingJob,
    TrainingJobStatus,
};
use isolarium_model::{Arn, Key, Record, Scope, Timestamp, WorkloadId};
use isolarium_runtime::executor::{ExecutorError, LaunchSpec};
use isolarium_store::{StateStore, StoreError};
use std::net::IpAddr;
use std::time::Duration;

/// What the phases ask of a noun.
pub(crate) trait Job: Record {
    /// What the noun's own upkeep remembers between steps; all of it can be found again.
    type Kept: Default + Send;
    /// The log group of such jobs (CC-90).
    const LOG_GROUP: &'static str;

    fn arn(&self) -> &Arn;
    fn role_arn(&self) -> &Arn;
    /// The key of the key store under which it stores (CC-36).
    fn kms_key(&self) -> Option<&String>;
    /// The storage volume of each instance, where it is encrypted.
    fn volume(&self) -> Option<&EncryptedVolume>;
    /// When the last phase began.
    fn modified(&self) -> Timestamp;
    fn network(&self) -> &JobNetwork;
    /// The image reference of the request.
    fn image(&self) -> &str;
    /// Of an instance, counted from 0.
    fn instance_type(&self, instance: usize) -> &str;
    fn run(&self) -> &JobRun;
    fn run_mut(&mut self) -> &mut JobRun;

    /// What an instance, counted from 0, is called by the others and in descriptions.
    fn host(&self, instance: usize) -> String;
    fn log_stream(&self, instance: usize) -> String;
    /// When the containers must have ended.
    fn deadline(&self) -> Timestamp;
    /// What [`Self::deadline`] is the end of.
    fn limit(&self) -> StopCause {
        StopCause::MaxRuntime
    }
    /// How long the job may wait for room, and what is over then.
    fn patience(&self) -> Option<(Duration, StopCause)> {
        None
    }
    /// What is searched for in the output.
    fn metrics(&self) -> &[MetricDefinition] {
        &[]
    }

    fn phase(&self) -> SecondaryStatus;
    /// Moves the record along its lifecycle.
    fn apply(&mut self, event: JobEvent, now: Timestamp) -> Result<(), IllegalTransition>;
    fn fail(&mut self, reason: FailureReason, now: Timestamp) -> Result<(), IllegalTransition>;
    /// Whether the job begins again where the host or the engine lost it (SM-34).
    fn may_restart(&self) -> bool {
        false
    }
    /// Begins again at new places; called where [`Self::may_restart`] says so.
    fn restart(&mut self, _run: JobRun, _why: &str, _now: Timestamp) -> Result<(), IllegalTransition> {
        Ok(())
    }
    /// Its room after the end, where the job may leave it to others: since when, and until when.
    fn pool(&self) -> Option<(Timestamp, Timestamp)> {
        None
    }
    /// Whether this job fits into the room that another one left.
    fn fits_pool_of(&self, _other: &Self) -> bool {
        false
    }
    /// In the commit of the end: what becomes of the room. An instance that may be broken is not kept.
    fn leave_room(&mut self, _healthy: bool, _now: Timestamp) {}
    /// The room is another job's, or nobody's.
    fn end_pool(&mut self, _reused_by: Option<String>, _now: Timestamp) {}
    /// The last values of [`Self::metrics`], in the commit of the end.
    fn keep_metrics(&mut self, _scanner: &MetricScanner) {}
    /// What [`Self::collect`] found that the record is to tell, in the commit of the end.
    fn keep_words(&mut self, _kept: &Self::Kept) {}

    /// Puts an instance's inputs into its work directory. What an interrupted attempt left is replaced.
    fn stage(&self, site: &Site<'_>, kept: &mut Self::Kept) -> Result<(), StageError>;
    /// The container of an instance: program, files, mounts, limits. Hosts and start are the phases' to fill in.
    fn container(&self, site: &Site<'_>, image: &Image) -> Result<LaunchSpec, crate::UnknownInstanceType>;
    /// Brings the containers what they read on the way, such as named pipes; called at each look at them, also when all of
    /// them have ended since the last one. What it answers ends the job: they cannot go on, or read what was not whole.
    fn feed(&self, _sites: &[Site<'_>], _running: bool, _kept: &mut Self::Kept) -> Option<(FailureKind, String)> {
        None
    }
    /// The job is about to end: nothing more is brought.
    fn leave(&self, _kept: &mut Self::Kept) {}
    /// What is done beside the running containers, such as synchronising checkpoints; says when it is due again.
    fn tend(&self, _sites: &[Site<'_>], _kept: &mut Self::Kept) -> Option<Timestamp> {
        None
    }
    /// Whether [`Self::tend`] moves objects.
    fn tends_objects(&self) -> bool {
        false
    }
    /// Uploads what the containers left. All of them have ended.
    fn collect(&self, sites: &[Site<'_>], kept: &mut Self::Kept, end: End) -> Result<(), StageError>;
    /// Why the job fails although all containers succeeded, as [`Self::collect`] found.
    fn objection(&self, _kept: &Self::Kept) -> Option<String> {
        None
    }
    /// A container's own words about its failure; empty when it left none.
    fn failure_text(&self, site: &Site<'_>) -> String;
}

/// How the containers ended, for [`Job::collect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All of them with success.
    Succeeded,
    /// They were told to.
    Stopped,
    /// One of them failed.
    Failed,
}

/// One instance of a job, for the hooks of [`Job`].
pub(crate) struct Site<'a> {
    pub deps: &'a Deps,
    /// The job's.
    pub key: &'a Key,
    /// The execution role, whose objects travel as this instance's placement wants.
    pub actor: Actor,
    /// Counted from 0.
    pub number: usize,
    /// How many instances the job has.
    pub of: usize,
    pub placement: &'a Placement,
}

/// What the loop remembers of a job between steps; all of it can be found again.
pub(crate) struct Memory<J: Job> {
    /// The first instance of the job that this is about: a deleted job's name may have a new one.
    of: Option<WorkloadId>,
    /// By number of the instance.
    instances: Vec<InstanceMemory>,
    metrics: Option<MetricScanner>,
    kept: J::Kept,
    /// When [`Job::feed`] said that the job cannot go on.
    starved: Option<Timestamp>,
    /// This process did something on the host for the job.
    touched: bool,
}

#[derive(Default)]
struct InstanceMemory {
    logs: LogCursor,
    terminated: bool,
    killed: Option<Timestamp>,
    ended_seen: Option<Timestamp>,
}

/// The memory of a training job.
pub(crate) type JobMemory = Memory<TrainingJob>;
/// The memory of a processing job.
pub(crate) type ProcessingMemory = Memory<ProcessingJob>;

impl<J: Job> Default for Memory<J> {
    fn default() -> Self {
        Self {
            of: None,
            instances: Vec::new(),
            metrics: None,
            kept: J::Kept::default(),
            starved: None,
            touched: false,
        }
    }
}

impl<J: Job> Memory<J> {
    fn instance(&mut self, number: usize) -> &mut InstanceMemory {
        if self.instances.len() <= number {
            self.instances.resize_with(number + 1, InstanceMemory::default);
        }
        // There since the line above.
        #[expect(clippy::indexing_slicing, reason = "the list was made long enough")]
        &mut self.instances[number]
    }
}

/// Runs of the jobs of a noun that have not ended. Costs nothing for those that have.
pub(crate) fn runs<J: Job>(store: &dyn StateStore) -> Result<Vec<(Scope, JobRun)>, StoreError> {
    let alive = [TrainingJobStatus::InProgress, TrainingJobStatus::Stopping].map(TrainingJobStatus::as_str);
    let jobs = store.all_with::<J>(&alive)?.into_iter();
    Ok(jobs.map(|job| (job.key.scope, job.record.run().clone())).collect())
}

/// Takes one job as far as it goes now.
pub(crate) fn step<J: Job>(deps: &Deps, key: &Key, memory: &mut Memory<J>) -> Result<Next, StepError> {
    let Some(stored) = deps.store.get::<J>(key)? else {
        return Ok(Next::Done);
    };
    let job = stored.record;
    let own = &job.run().placement.workload;
    if memory.of.as_ref() != Some(own) {
        *memory = Memory {
            of: Some(own.clone()),
            ..Memory::default()
        };
    }
    let work = Work { deps, key };
    match job.phase() {
        SecondaryStatus::Starting
        | SecondaryStatus::Pending
        | SecondaryStatus::Restarting
        | SecondaryStatus::Downloading => work.start(&job, memory),
        SecondaryStatus::Training => work.watch(&job, memory),
        SecondaryStatus::Uploading => work.finish(&job, memory),
        SecondaryStatus::Stopping => work.stop(&job, memory),
        SecondaryStatus::Completed
        | SecondaryStatus::Failed
        | SecondaryStatus::Stopped
        | SecondaryStatus::MaxRuntimeExceeded
        | SecondaryStatus::MaxWaitTimeExceeded => work.over(&job, memory),
    }
}

/// The phases of one job.
struct Work<'a> {
    deps: &'a Deps,
    key: &'a Key,
}

/// How a job ends.
enum Outcome {
    Succeeded,
    Stopped,
    Failed(FailureReason),
}

/// Why a step cannot be done.
enum Trouble {
    /// It will not work, whatever is repeated.
    Final(FailureKind, String),
    /// The host was away; the step is repeated.
    Retry(ExecutorError),
}

impl<'a> Work<'a> {
    /// The execution role, moving data as a placement wants.
    fn actor<J: Job>(&self, job: &J, placement: &Placement) -> Actor {
        Deps::actor(self.key, job.role_arn(), job.arn())
            .sealing(job.kms_key())
            .copying_to(job.volume(), &placement.workload)
            .of(placement)
    }

    fn sites<'b, J: Job>(&self, job: &'b J) -> Vec<Site<'b>>
    where
        'a: 'b,
    {
        let of = job.run().instances();
        let all = job.run().placements().enumerate();
        let site = |(number, placement)| Site {
            deps: self.deps,
            key: self.key,
            actor: self.actor(job, placement),
            number,
            of,
            placement,
        };
        all.map(site).collect()
    }

    /// Does `act` with the log sink of an instance.
    fn with_sink<J: Job, R>(
        &self,
        job: &J,
        number: usize,
        placement: &Placement,
        act: impl FnOnce(&Sink<'_>) -> R,
    ) -> R {
        let stream = job.log_stream(number);
        let name = (!job.metrics().is_empty()).then(|| job.facets().display_name);
        act(&Sink {
            job: name.as_deref(),
            actor: &self.actor(job, placement),
            group: J::LOG_GROUP,
            stream: &stream,
        })
    }
}

/// The names by which the containers of a job find each other, for `/etc/hosts` (CC-20, NI-10).
fn hosts<J: Job>(job: &J) -> Vec<(IpAddr, Vec<String>)> {
    let all = job.run().placements().enumerate();
    let line = |(number, placement): (usize, &Placement)| {
        let address = placement.inner_address().unwrap_or(std::net::Ipv4Addr::LOCALHOST);
        (IpAddr::V4(address), vec![job.host(number)])
    };
    all.map(line).collect()
}

/// What a failed call of the executor means for the job.
fn host(arn: &Arn, error: ExecutorError) -> Trouble {
    match error {
        ExecutorError::Unreachable(_) | ExecutorError::Busy(_) => Trouble::Retry(error),
        ExecutorError::Unstartable(why) => Trouble::Final(
            FailureKind::Client,
            format!("The container could not be started: {why}"),
        ),
        ExecutorError::Refused(why) => Trouble::Final(FailureKind::Client, why),
        ExecutorError::Seal(_) | ExecutorError::Unknown | ExecutorError::Host(_) => {
            log_not_started(arn, &error);
            Trouble::Final(FailureKind::Internal, NOT_STARTED.into())
        }
    }
}

/// What a failed transfer means for the job.
fn staged(arn: &Arn, error: StageError, what: &str) -> Trouble {
    let error = match error.away() {
        Ok(away) => return Trouble::Retry(away),
        Err(error) => error,
    };
    match FailureText::from(error) {
        FailureText::Client(text) => Trouble::Final(FailureKind::Client, format!("{what}{text}")),
        FailureText::Engine(cause) => {
            tracing::error!(job = %arn, cause = crate::driver::chain(&*cause), "a transfer failed");
            let text = format!("{what}the engine could not move the data");
            Trouble::Final(FailureKind::Internal, text)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
