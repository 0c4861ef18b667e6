//! From a record to programs that run: places, inputs, containers, and one moment at which all of them begin.

use super::{Job, Memory, Outcome, Site, Trouble, Work, host, hosts, staged};
use crate::deps::{AttachError, NOT_STARTED, Next, StepError, log_not_started};
use crate::driver::with_slow;
use crate::network::place::Wanted;
use crate::scheduler::queue::Answer;
use crate::scheduler::{NO_CAPACITY, request_of};
use crate::stage::{self, StageError};
use crate::transfer::Image;
use crate::volume;
use isolarium_model::sagemaker::model::ResolvedImage;
use isolarium_model::sagemaker::training_job::{JobEvent, JobRun, SecondaryStatus};
use isolarium_model::sagemaker::{Attachment, BlockedDestination, FailureKind, FailureReason, Placement};
use isolarium_model::{Arn, Timestamp};
use isolarium_netplan::intent::Tunnel;
use isolarium_runtime::executor::ExecutorError;

/// Nothing of this attempt is on the host yet, as far as the record knows.
fn before_the_instance(phase: SecondaryStatus) -> bool {
    matches!(
        phase,
        SecondaryStatus::Starting | SecondaryStatus::Pending | SecondaryStatus::Restarting
    )
}

/// Why there is no encrypted volume.
fn unencrypted(arn: &Arn, error: StageError) -> Trouble {
    match volume::lacking(arn, error) {
        Ok(text) => Trouble::Final(FailureKind::Internal, text.into()),
        Err(error) => staged(arn, error, volume::WHAT),
    }
}

/// Encryption of what an instance says to the others, where the job asks for it.
///
/// # Errors
/// When an instance has no address: it would say everything in the clear.
fn tunnel(run: &JobRun, own: &Placement) -> Result<Option<Tunnel>, &'static str> {
    const NO_ADDRESS: &str = "An instance has no address to encrypt traffic for.";
    if !run.encrypted {
        return Ok(None);
    }
    let peers = run.placements().filter(|one| one.workload != own.workload);
    let peers = peers.map(|peer| Some((peer.inner_address()?, peer.workload.clone())));
    let peers: Option<Vec<_>> = peers.collect();
    let (own, peers) = own.inner_address().zip(peers).ok_or(NO_ADDRESS)?;
    Ok(Some(Tunnel { own, peers }))
}

impl Work<'_> {
    pub(super) fn start<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Next, StepError> {
        let mut missing = false;
        for placement in job.run().placements() {
            let known = match self.deps.seen.get(&placement.workload) {
                None if job.run().launched => self.deps.state_of(&placement.workload)?,
                other => other,
            };
            missing |= known.is_none();
        }
        let mut image = job.run().image.clone();
        if !missing && !job.run().launched {
            // An earlier process launched them all, and may have died before it let all of them go.
            self.release(job).map_err(StepError::Executor)?;
        }
        if missing {
            if let Some(due) = self.pause(job) {
                return Ok(Next::At(due));
            }
            if let Some(waits) = self.room(job, memory)? {
                return Ok(waits);
            }
            memory.touched = true;
            let attached = match self.attach(job) {
                Ok(Some(attached)) => attached,
                Ok(None) => return Ok(Next::At(self.deps.now())),
                Err(AttachError::Step(error)) => return Err(error),
                Err(AttachError::Refused(text)) => return self.fail(job, memory, FailureKind::Client, &text),
                Err(AttachError::Host(error)) => {
                    log_not_started(job.arn(), &crate::driver::chain(&error));
                    return self.fail(job, memory, FailureKind::Internal, NOT_STARTED);
                }
            };
            let launched = with_slow(
                self.deps.settings.slow_phase,
                || {
                    self.show::<J>(
                        JobEvent::InstanceReady,
                        &[
                            SecondaryStatus::Starting,
                            SecondaryStatus::Pending,
                            SecondaryStatus::Restarting,
                        ],
                    )
                },
                || self.launch(&attached, &mut memory.kept),
            );
            match launched {
                Ok(Some(resolved)) => image = Some(resolved),
                Ok(None) => {}
                Err(Trouble::Retry(error)) => return Err(StepError::Executor(error)),
                Err(Trouble::Final(kind, text)) => return self.fail(job, memory, kind, &text),
            }
        }
        if image.is_none() {
            // An earlier process launched it and died before it could say with which.
            image = self.deps.work.noted_image(&job.run().placement.workload);
        }
        // One commit for all phases that are over: nothing waits for the disk before the containers run.
        self.deps.update::<J>(self.key, |job, batch| {
            let now = self.deps.now();
            job.run_mut().launched = true;
            job.run_mut().image.clone_from(&image);
            if before_the_instance(job.phase()) {
                job.apply(JobEvent::InstanceReady, now)?;
            }
            if job.phase() == SecondaryStatus::Downloading {
                job.apply(JobEvent::ContainerRuns, now)?;
            }
            Ok(Some(batch))
        })?;
        Ok(Next::At(self.deps.now()))
    }

    /// Asks for the job's room on the machine. `None`: it has it; else the step ends here, because the job waits, or has ended
    /// for want of room.
    fn room<J: Job>(&self, job: &J, memory: &mut Memory<J>) -> Result<Option<Next>, StepError> {
        let Some(request) = request_of(self.deps, self.key, job) else {
            return Ok(None);
        };
        let created = request.since;
        let answer = match self.reuse(job, &request)? {
            true => Answer::Granted,
            false => self.deps.scheduler.ask(request),
        };
        match answer {
            Answer::Granted => Ok(None),
            Answer::Never => self.fail(job, memory, FailureKind::Capacity, NO_CAPACITY).map(Some),
            Answer::Waits => {
                let limit = job.patience().map(|(patience, over)| (created.after(patience), over));
                let now = self.deps.now();
                if let Some((_, over)) = limit.filter(|(at, _)| now >= *at) {
                    self.deps.update::<J>(self.key, |job, batch| {
                        if !before_the_instance(job.phase()) {
                            return Ok(None);
                        }
                        job.run_mut().stop = Some((over, now));
                        job.apply(JobEvent::StopRequested, now)?;
                        Ok(Some(batch))
                    })?;
                    return Ok(Some(Next::At(now)));
                }
                if matches!(job.phase(), SecondaryStatus::Starting | SecondaryStatus::Restarting) {
                    let from = [SecondaryStatus::Starting, SecondaryStatus::Restarting];
                    self.show::<J>(JobEvent::NoCapacity, &from);
                }
                Ok(Some(Next::At(limit.map_or(Timestamp(i64::MAX), |(at, _)| at))))
            }
        }
    }

    /// The job with its instances' places in the VPC, if they are to have any (NET-66). `None`: the job's record has gone on
    /// meanwhile.
    fn attach<J: Job>(&self, job: &J) -> Result<Option<J>, AttachError> {
        let mut placed = job.clone();
        let Some(attachment) = job.network().vpc() else {
            return Ok(Some(placed));
        };
        for (number, placement) in job.run().placements().enumerate() {
            let wanted = Wanted {
                attachment,
                isolated: job.network().isolated(),
                peers: placement.peer_network(),
                workload: &placement.workload,
                owner: self.key,
                owner_arn: job.arn(),
                instance: &job.host(number),
            };
            let actor = self.actor(job, placement);
            let placement = self.deps.attach(&actor, &wanted, placement, &mut |plan| {
                let stored = self.deps.update::<J>(self.key, |job, batch| {
                    let starting = before_the_instance(job.phase()) || job.phase() == SecondaryStatus::Downloading;
                    let Some(own) = job.run_mut().placement_mut(number) else {
                        return Ok(None);
                    };
                    if !starting || !matches!(own.attachment, Attachment::Unattached { .. }) {
                        return Ok(None);
                    }
                    let Some((place, batch)) = plan(batch)? else {
                        return Ok(None);
                    };
                    own.attachment = Attachment::Vpc(place);
                    Ok(Some(batch))
                })?;
                let placement = stored.and_then(|stored| stored.record.run().placements().nth(number).cloned());
                Ok(placement.filter(|placement| placement.vpc().is_some()))
            })?;
            match (placement, placed.run_mut().placement_mut(number)) {
                (Some(placement), Some(own)) => *own = placement,
                _ => return Ok(None),
            }
        }
        Ok(Some(placed))
    }

    /// Makes a phase visible that lasts longer than a moment. A failure here is not the job's: the phase is committed
    /// with the next one.
    pub(super) fn show<J: Job>(&self, event: JobEvent, from: &[SecondaryStatus]) {
        let shown = self.deps.update::<J>(self.key, |job, batch| {
            if !from.contains(&job.phase()) {
                return Ok(None);
            }
            job.apply(event, self.deps.now())?;
            Ok(Some(batch))
        });
        if let Err(error) = shown {
            tracing::warn!(job = %self.key.name, %error, "a phase could not be shown");
        }
    }

    /// Launches every instance that is not on the host. `None` when launches that an earlier process began turn out to have
    /// worked: their inputs are in use.
    fn launch<J: Job>(&self, job: &J, kept: &mut J::Kept) -> Result<Option<ResolvedImage>, Trouble> {
        self.deps
            .connect(&self.key.scope, job.run())
            .map_err(|error| host(job.arn(), error))?;
        let mut image = None;
        for site in self.sites(job) {
            let workload = &site.placement.workload;
            let failed = |error| host(job.arn(), error);
            self.deps.executor.prepare(workload).map_err(failed)?;
            if self.deps.is_launched(workload).map_err(failed)? {
                continue;
            }
            if let Some(volume) = job.volume() {
                let made = volume::make(self.deps, &site.actor, workload, volume);
                made.map_err(|error| unencrypted(job.arn(), error))?;
            }
            let image = match &image {
                Some(image) => image,
                None => image.insert(self.image(job, &site)?),
            };
            self.one(job, &site, image, kept)?;
        }
        self.release(job).map_err(|error| host(job.arn(), error))?;
        Ok(image.map(|image| ResolvedImage {
            specified: job.image().into(),
            digest: image.digest,
        }))
    }

    /// No program of a job begins before all of its containers are there (CC-20). Repeatable: what has begun goes on.
    fn release<J: Job>(&self, job: &J) -> Result<(), ExecutorError> {
        if job.run().instances() > 1 {
            for placement in job.run().placements() {
                self.deps.executor.release(&placement.workload)?;
            }
        }
        Ok(())
    }

    fn one<J: Job>(&self, job: &J, site: &Site<'_>, image: &Image, kept: &mut J::Kept) -> Result<(), Trouble> {
        let inputs = stage::ca_bundle(self.deps, site.placement).and_then(|()| job.stage(site, kept));
        inputs.map_err(|error| staged(job.arn(), error, "Data download failed:"))?;
        let spec = job.container(site, image);
        let mut spec = spec.map_err(|error| Trouble::Final(FailureKind::Client, error.to_string()))?;
        if spec.process.argv.is_empty() {
            let text = format!(
                "The image {} has neither an entry point nor a command, and the job names none.",
                job.image()
            );
            return Err(Trouble::Final(FailureKind::Client, text));
        }
        if job.volume().is_some() {
            volume::mounts(self.deps, &mut spec).map_err(|error| unencrypted(job.arn(), error))?;
        }
        spec.hostname = job.host(site.number);
        spec.hosts = hosts(job);
        spec.held = site.of > 1;
        spec.tunnel =
            tunnel(job.run(), site.placement).map_err(|text| Trouble::Final(FailureKind::Internal, text.into()))?;
        let resolved = ResolvedImage {
            specified: job.image().into(),
            digest: image.digest.clone(),
        };
        self.deps
            .work
            .note_image(&site.placement.workload, &resolved)
            .map_err(|error| staged(job.arn(), StageError::from(error), "Data download failed:"))?;
        self.deps
            .launch(&self.key.scope, site.placement, &spec)
            .map_err(|error| host(job.arn(), error))
    }

    fn image<J: Job>(&self, job: &J, site: &Site<'_>) -> Result<Image, Trouble> {
        let reference = job.image();
        let failed = |error| staged(job.arn(), error, &format!("Cannot pull the image {reference}: "));
        let image = self
            .deps
            .transfer
            .resolve_image(&site.actor, reference)
            .map_err(|error| failed(error.into()))?;
        stage::layers(self.deps, &image).map_err(failed)?;
        Ok(image)
    }

    pub(super) fn fail<J: Job>(
        &self,
        job: &J,
        memory: &mut Memory<J>,
        kind: FailureKind,
        text: &str,
    ) -> Result<Next, StepError> {
        if kind == FailureKind::Internal && job.may_restart() {
            return self.restart(job, memory, text);
        }
        let first = self.first_attempt(job);
        let reason = FailureReason::job(kind, text, first.as_ref().map(BlockedDestination::note).as_ref());
        self.conclude(job, memory, &Outcome::Failed(reason))
    }
}
