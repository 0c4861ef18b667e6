//! An instance's container: as an endpoint's, with the batch variables (CC-64).

use super::run::{self, Running};
use super::{Trouble, Work};
use crate::collect::FailureText;
use crate::container::{self, Serving};
use crate::deps::{AttachError, NOT_STARTED, StepError, log_not_started};
use crate::network::place::Wanted;
use crate::scheduler::NO_CAPACITY;
use crate::scheduler::queue::Answer;
use crate::stage::{self, StageError};
use crate::volume;
use isolarium_model::sagemaker::model::ResolvedImage;
use isolarium_model::sagemaker::transform_job::{TransformInstance, TransformSpec};
use isolarium_model::sagemaker::{Attachment, FailureKind, TransformJob, TransformJobStatus};
use isolarium_runtime::executor::ExecutorError;
use std::collections::BTreeMap;

impl Work<'_> {
    /// Whether the job has its room on the machine; it waits for all of it. An instance type that is known no more is its
    /// launch's to tell.
    pub(super) fn room(&self, job: &TransformJob) -> Result<bool, Trouble> {
        let workloads = job.placements().map(|one| one.workload.clone()).collect();
        let wanted = [(workloads, &job.spec.instance_type)];
        let Ok(request) = self.deps.request::<TransformJob>(self.key, job.created, wanted) else {
            return Ok(true);
        };
        match self.deps.scheduler.ask(request) {
            Answer::Granted => Ok(true),
            Answer::Waits => Ok(false),
            Answer::Never => Err(Trouble::Final(FailureKind::Capacity, NO_CAPACITY.into())),
        }
    }

    /// The instance with its place in the VPC, if it is to have one (NET-66, BT-2). `None`: the job goes on no more.
    pub(super) fn attach(
        &self,
        job: &TransformJob,
        instance: &TransformInstance,
    ) -> Result<Option<TransformInstance>, Trouble> {
        let network = &job.spec.model.network;
        let Some(attachment) = network.vpc() else {
            return Ok(Some(instance.clone()));
        };
        let wanted = Wanted {
            peers: None,
            attachment,
            isolated: network.isolated(),
            workload: &instance.placement.workload,
            owner: self.key,
            owner_arn: &job.arn,
            instance: &instance.id,
        };
        let of = |job: &TransformJob| {
            let own = job.run.instances.iter().find(|one| one.id == instance.id);
            own.map(|own| own.placement.clone())
        };
        let placed = self
            .deps
            .attach(&self.actor(job, instance), &wanted, &instance.placement, &mut |plan| {
                let stored = self.deps.update::<TransformJob>(self.key, |job, batch| {
                    let running = job.status == TransformJobStatus::InProgress;
                    let own = job.run.instances.iter_mut().find(|one| one.id == instance.id);
                    let Some(own) = own.filter(|_| running) else {
                        return Ok(None);
                    };
                    if !matches!(own.placement.attachment, Attachment::Unattached { .. }) {
                        return Ok(None);
                    }
                    let Some((place, batch)) = plan(batch)? else {
                        return Ok(None);
                    };
                    own.placement.attachment = Attachment::Vpc(place);
                    Ok(Some(batch))
                })?;
                let placement = stored.and_then(|stored| of(&stored.record));
                Ok(placement.filter(|placement| placement.vpc().is_some()))
            });
        match placed {
            Ok(placed) => Ok(placed.map(|placement| TransformInstance {
                placement,
                ..instance.clone()
            })),
            Err(AttachError::Step(error)) => Err(Trouble::Retry(error)),
            Err(AttachError::Refused(text)) => Err(Trouble::Final(FailureKind::Client, text)),
            Err(AttachError::Host(error)) => {
                log_not_started(&job.arn, &crate::driver::chain(&error));
                Err(Trouble::Final(FailureKind::Internal, NOT_STARTED.into()))
            }
        }
    }

    /// Puts the container on the host and says so in the record.
    pub(super) fn launch(&self, job: &TransformJob, instance: &TransformInstance) -> Result<(), Trouble> {
        let Some(instance) = self.attach(job, instance)? else {
            return Ok(());
        };
        let image = self.start(job, &instance)?;
        Ok(self.note_launch(&instance, image)?)
    }

    /// Writes into the record that an instance was launched, and which image it runs.
    pub(super) fn note_launch(
        &self,
        instance: &TransformInstance,
        image: Option<ResolvedImage>,
    ) -> Result<(), StepError> {
        let image = image.or_else(|| self.deps.work.noted_image(&instance.placement.workload));
        self.deps.update::<TransformJob>(self.key, |job, batch| {
            let now = self.deps.now();
            let own = job.run.instances.iter_mut().find(|one| one.id == instance.id);
            let Some(own) = own.filter(|own| own.launched.is_none()) else {
                return Ok(None);
            };
            own.launched = Some(now);
            job.run.image = job.run.image.take().or_else(|| image.clone());
            job.started.get_or_insert(now);
            job.modified = now;
            Ok(Some(batch))
        })?;
        Ok(())
    }

    /// `None` when a launch that an earlier process began turns out to have worked: its model data is in use.
    fn start(&self, job: &TransformJob, instance: &TransformInstance) -> Result<Option<ResolvedImage>, Trouble> {
        let deps = self.deps;
        let (actor, workload) = (self.actor(job, instance), &instance.placement.workload);
        let model = &job.spec.model;
        let reference = &model.container.image;
        let host = |error| self.host(job, error);
        deps.executor.prepare(workload).map_err(host)?;
        if deps.is_launched(workload).map_err(host)? {
            return Ok(None);
        }
        if let Some(volume) = &job.spec.volume {
            let made = volume::make(deps, &actor, workload, volume);
            made.map_err(|error| self.unencrypted(job, error))?;
        }
        let pull = |error| self.staged(job, error, &format!("Cannot pull the image {reference}: "));
        let image = deps
            .transfer
            .resolve_image(&actor, reference)
            .map_err(|error| pull(error.into()))?;
        stage::layers(deps, &image).map_err(pull)?;
        let loaded = stage::model(deps, &actor, &instance.placement, model.data.as_ref(), None);
        let loaded = loaded.map_err(|error| self.staged(job, error, "Data download failed:"))?;
        let serving = Serving {
            placement: &instance.placement,
            environment: &environment(&job.spec),
            platform: platform(&job.spec, &self.key.scope.region),
            instance_type: &job.spec.instance_type,
            model: loaded,
            part: None,
        };
        let mut spec = container::serving(deps, &job.arn, serving, &image)
            .map_err(|error| Trouble::Final(FailureKind::Client, error.to_string()))?;
        if job.spec.volume.is_some() {
            volume::mounts(deps, &mut spec).map_err(|error| self.unencrypted(job, error))?;
        }
        let resolved = ResolvedImage {
            specified: reference.clone(),
            digest: image.digest,
        };
        deps.work
            .note_image(workload, &resolved)
            .map_err(|error| self.staged(job, error.into(), "Data download failed:"))?;
        deps.launch(&self.key.scope, &instance.placement, &spec).map_err(host)?;
        Ok(Some(resolved))
    }

    /// Lets the objects of an instance that answers its pings be sent.
    pub(super) fn begin(&self, job: &TransformJob, instance: &TransformInstance) -> Result<Running, Trouble> {
        let Some(share) = self.noted(&instance.placement.workload) else {
            return Err(Trouble::Final(
                FailureKind::Internal,
                "The list of the objects to transform was lost.".into(),
            ));
        };
        run::begin(self.deps, self.key, self.actor(job, instance), job, instance, share).map_err(Trouble::Retry)
    }

    fn host(&self, job: &TransformJob, error: ExecutorError) -> Trouble {
        match error {
            ExecutorError::Unreachable(_) | ExecutorError::Busy(_) => Trouble::Retry(StepError::Executor(error)),
            ExecutorError::Unstartable(why) => Trouble::Final(
                FailureKind::Client,
                format!("The container could not be started: {why}"),
            ),
            ExecutorError::Refused(why) => Trouble::Final(FailureKind::Client, why),
            ExecutorError::Seal(_) | ExecutorError::Unknown | ExecutorError::Host(_) => {
                log_not_started(&job.arn, &error);
                Trouble::Final(FailureKind::Internal, NOT_STARTED.into())
            }
        }
    }

    /// Why there is no encrypted volume.
    fn unencrypted(&self, job: &TransformJob, error: StageError) -> Trouble {
        match volume::lacking(&job.arn, error) {
            Ok(text) => Trouble::Final(FailureKind::Internal, text.into()),
            Err(error) => self.staged(job, error, volume::WHAT),
        }
    }

    pub(super) fn staged(&self, job: &TransformJob, error: StageError, what: &str) -> Trouble {
        let error = match error.away() {
            Ok(away) => return Trouble::Retry(StepError::Executor(away)),
            Err(error) => error,
        };
        match FailureText::from(error) {
            FailureText::Client(text) => Trouble::Final(FailureKind::Client, format!("{what}{text}")),
            FailureText::Engine(cause) => {
                tracing::error!(job = %job.arn, cause = crate::driver::chain(&*cause), "a transfer failed");
                let text = format!("{what}the engine could not move the data");
                Trouble::Final(FailureKind::Internal, text)
            }
        }
    }
}

/// The model's variables, over which the job's own go.
fn environment(spec: &TransformSpec) -> BTreeMap<String, String> {
    let mut all = spec.model.container.environment.clone();
    all.extend(spec.environment.clone());
    all
}

/// The platform's variables; those about requests only where the request set them (CC-64).
fn platform(spec: &TransformSpec, region: &isolarium_model::Region) -> Vec<(String, String)> {
    let mut all = vec![
        ("AWS_REGION".to_string(), region.to_string()),
        ("SAGEMAKER_BATCH".to_string(), "true".to_string()),
    ];
    let mut set = |name: &str, value: Option<String>| all.extend(value.map(|value| (name.to_string(), value)));
    set(
        "SAGEMAKER_MAX_PAYLOAD_IN_MB",
        spec.max_payload_mb.map(|size| size.to_string()),
    );
    set(
        "SAGEMAKER_BATCH_STRATEGY",
        spec.strategy.map(|strategy| strategy.in_container().to_string()),
    );
    let concurrent = spec.max_concurrent.filter(|count| *count > 0);
    set(
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS",
        concurrent.map(|count| count.to_string()),
    );
    all
}
