//! One instance of a variant: launched, pinged, its output read.

use super::{Container, REPORT_INTERVAL, Room, actor_of};
use crate::collect::FailureText;
use crate::container::{self, Serving};
use crate::deps::{AttachError, Deps, NOT_STARTED, StepError, log_not_started};
use crate::logs::{self, Drained, Sink};
use crate::network::place::Wanted;
use crate::ping;
use crate::scheduler::NO_CAPACITY;
use crate::stage::{self, StageError};
use isolarium_model::sagemaker::endpoint::{Instance, VariantFleet};
use isolarium_model::sagemaker::model::ResolvedImage;
use isolarium_model::sagemaker::{Attachment, Endpoint, EndpointStatus};
use isolarium_model::{Key, Timestamp};
use isolarium_runtime::executor::{ExecutorError, WorkloadState};
use std::time::Duration;

/// What was found about one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// On its way, or healthy before and in doubt now.
    Starting,
    /// Answers its pings.
    Healthy,
    /// Its container ended or stopped answering: replace it.
    Dead,
    /// It will not come up: the reason, for the caller.
    Broken(String),
}

/// One instance with everything that speaks to it.
pub(super) struct Tending<'a> {
    pub deps: &'a Deps,
    pub key: &'a Key,
    pub endpoint: &'a Endpoint,
    pub variant: &'a VariantFleet,
    pub instance: &'a Instance,
    pub container: &'a mut Container,
    pub room: Room,
}

impl Tending<'_> {
    /// Looks after the instance; says what it found and when to look again.
    pub(super) fn look(&mut self) -> Result<(Verdict, Timestamp), StepError> {
        let deps = self.deps;
        let now = deps.now();
        let workload = &self.instance.placement.workload;
        match deps.state_of(workload)? {
            None if self.instance.healthy || self.container.launched => {
                self.container.healthy = false;
                Ok((Verdict::Dead, now))
            }
            None if now < self.instance.not_before => {
                if let Some(verdict) = self.too_late(now) {
                    return Ok((verdict, now));
                }
                Ok((Verdict::Starting, self.instance.not_before.min(self.deadline())))
            }
            None => match self.room {
                Room::WaitsUntil(limit) if !deps.scheduler.holds(workload) => Ok(self.no_room(now, limit)),
                Room::There | Room::WaitsUntil(_) => self.launch(now),
            },
            Some(WorkloadState::Running { .. }) => self.running(now),
            Some(WorkloadState::Exited(_)) => {
                self.container.healthy = false;
                // The deadline passes while a container that ends at once is started again and again.
                let verdict = self.too_late(now).unwrap_or(Verdict::Dead);
                Ok((verdict, now))
            }
            Some(WorkloadState::NotStarted { reason }) => {
                log_not_started(&self.endpoint.arn, &reason);
                Ok((Verdict::Broken(NOT_STARTED.into()), now))
            }
        }
    }

    /// Waits until the owner has waited long enough (SM-22); what served already waits for ever.
    fn no_room(&self, now: Timestamp, limit: Timestamp) -> (Verdict, Timestamp) {
        if self.endpoint.status == EndpointStatus::InService {
            return (Verdict::Starting, Timestamp(i64::MAX));
        }
        if now >= limit {
            return (Verdict::Broken(NO_CAPACITY.into()), now);
        }
        (Verdict::Starting, limit)
    }

    fn launch(&mut self, now: Timestamp) -> Result<(Verdict, Timestamp), StepError> {
        let attached = match self.attach() {
            Ok(Some(attached)) => attached,
            // The record has gone on without this instance.
            Ok(None) => return Ok((Verdict::Starting, now)),
            Err(AttachError::Step(error)) => return Err(error),
            Err(AttachError::Refused(text)) => return Ok((Verdict::Broken(text), now)),
            Err(AttachError::Host(error)) => {
                log_not_started(&self.endpoint.arn, &crate::driver::chain(&error));
                return Ok((Verdict::Broken(NOT_STARTED.into()), now));
            }
        };
        match self.start(&attached) {
            Ok(image) => {
                self.container.launched = true;
                self.container.started = Some(self.deps.now());
                if image.is_some() {
                    self.container.image = image;
                }
                Ok((Verdict::Starting, now.after(self.deps.settings.startup_ping_interval)))
            }
            Err(Start::Away(error)) => Err(StepError::Executor(error)),
            Err(Start::Broken(why)) => Ok((Verdict::Broken(why), now)),
        }
    }

    /// The instance with its place in the VPC, if it is to have one (NET-66). `None`: the endpoint wants it no more.
    fn attach(&self) -> Result<Option<Instance>, AttachError> {
        let network = &self.variant.model.network;
        let Some(attachment) = network.vpc() else {
            return Ok(Some(self.instance.clone()));
        };
        let workload = &self.instance.placement.workload;
        let wanted = Wanted {
            attachment,
            isolated: network.isolated(),
            peers: None,
            workload,
            owner: self.key,
            owner_arn: &self.endpoint.arn,
            instance: &self.instance.id,
        };
        let actor = actor_of(self.key, self.endpoint, self.variant);
        let placed = self
            .deps
            .attach(&actor, &wanted, &self.instance.placement, &mut |plan| {
                let stored = self.deps.update::<Endpoint>(self.key, |endpoint, batch| {
                    let Some(instance) = instance_of(endpoint, workload) else {
                        return Ok(None);
                    };
                    if !matches!(instance.placement.attachment, Attachment::Unattached { .. }) {
                        return Ok(None);
                    }
                    let Some((place, batch)) = plan(batch)? else {
                        return Ok(None);
                    };
                    instance.placement.attachment = Attachment::Vpc(place);
                    Ok(Some(batch))
                })?;
                let mut endpoint = match stored {
                    Some(stored) => stored.record,
                    None => return Ok(None),
                };
                let placement = instance_of(&mut endpoint, workload).map(|instance| instance.placement.clone());
                Ok(placement.filter(|placement| placement.vpc().is_some()))
            })?;
        Ok(placed.map(|placement| Instance {
            placement,
            ..self.instance.clone()
        }))
    }

    /// `None` when a launch that an earlier process began turns out to have worked: its model data is in use.
    fn start(&self, instance: &Instance) -> Result<Option<ResolvedImage>, Start> {
        let deps = self.deps;
        let actor = actor_of(self.key, self.endpoint, self.variant).of(&instance.placement);
        let workload = &instance.placement.workload;
        let reference = &self.variant.model.container.image;
        deps.executor.prepare(workload).map_err(|error| self.host(error))?;
        if deps.is_launched(workload).map_err(|error| self.host(error))? {
            return Ok(None);
        }
        let pull = |error| self.staged(error, &format!("The image {reference} could not be pulled: "));
        let image = deps
            .transfer
            .resolve_image(&actor, reference)
            .map_err(|error| pull(error.into()))?;
        stage::layers(deps, &image).map_err(pull)?;
        let variant = self.variant;
        let limit = variant.variant.download_timeout.map(Duration::from_secs);
        let model = stage::model(deps, &actor, &instance.placement, variant.model.data.as_ref(), limit)
            .map_err(|error| self.staged(error, "The model data could not be loaded: "))?;
        let serving = Serving {
            placement: &instance.placement,
            environment: &variant.model.container.environment,
            platform: vec![("AWS_REGION".into(), self.key.scope.region.to_string())],
            instance_type: &variant.variant.instance_type,
            model,
        };
        let spec = container::serving(deps, &self.endpoint.arn, serving, &image)
            .map_err(|error| Start::Broken(error.to_string()))?;
        let resolved = ResolvedImage {
            specified: reference.clone(),
            digest: image.digest,
        };
        deps.work
            .note_image(workload, &resolved)
            .map_err(|error| self.staged(error.into(), "The model data could not be loaded: "))?;
        deps.launch(&self.key.scope, &instance.placement, &spec)
            .map_err(|error| self.host(error))?;
        Ok(Some(resolved))
    }

    fn running(&mut self, now: Timestamp) -> Result<(Verdict, Timestamp), StepError> {
        if self.container.image.is_none() && !self.instance.healthy {
            // An earlier process launched it and died before it could say with which.
            self.container.image = self.deps.work.noted_image(&self.instance.placement.workload);
        }
        let settings = &self.deps.settings;
        let mut again = self.read_output(now)?;
        let interval = if self.container.healthy {
            settings.ping_interval
        } else {
            settings.startup_ping_interval
        };
        let due = self.container.last_ping.map(|last| last.after(interval));
        if due.is_none_or(|due| now >= due) {
            let answered = ping::healthy(
                &*self.deps.dial,
                &self.instance.placement.workload,
                settings.ping_timeout,
            );
            self.container.last_ping = Some(self.deps.now());
            if answered {
                self.container.failures = 0;
                self.container.healthy = true;
            } else {
                self.container.failures = self.container.failures.saturating_add(1);
            }
        }
        if self.container.failures >= settings.ping_failures && self.instance.healthy {
            self.container.healthy = false;
            return Ok((Verdict::Dead, now));
        }
        let interval = if self.container.healthy {
            settings.ping_interval
        } else {
            settings.startup_ping_interval
        };
        again = again.min(self.container.last_ping.unwrap_or(now).after(interval));
        if self.container.healthy {
            return Ok((Verdict::Healthy, again));
        }
        match self.too_late(self.deps.now()) {
            Some(broken) => Ok((broken, now)),
            None => Ok((Verdict::Starting, again.min(self.deadline()))),
        }
    }

    fn read_output(&mut self, now: Timestamp) -> Result<Timestamp, StepError> {
        let actor = actor_of(self.key, self.endpoint, self.variant);
        let stream = format!("{}/{}", self.variant.variant.name, self.instance.id);
        let group = self.endpoint.log_group();
        let sink = Sink {
            job: None,
            actor: &actor,
            group: &group,
            stream: &stream,
        };
        let mut again = Timestamp(i64::MAX);
        let placement = &self.instance.placement;
        if placement.isolated() {
            let due = self
                .container
                .last_report
                .map_or(now, |last| last.after(REPORT_INTERVAL));
            if now >= due {
                logs::report(self.deps, &sink, placement, &mut self.container.logs)?;
                self.container.last_report = Some(now);
            }
        }
        if self.container.logs.is_fresh(self.deps) {
            return Ok(now.after(self.deps.settings.log_interval));
        }
        if logs::pump(self.deps, &sink, &placement.workload, &mut self.container.logs, None)? == Drained::More {
            again = now;
        }
        Ok(again)
    }

    fn deadline(&self) -> Timestamp {
        self.instance.since.after(
            self.variant
                .variant
                .startup_deadline(self.deps.settings.startup_deadline),
        )
    }

    /// SM-63, once the start-up deadline has passed without a good ping.
    fn too_late(&self, now: Timestamp) -> Option<Verdict> {
        let late = !self.instance.healthy && now >= self.deadline();
        late.then(|| {
            Verdict::Broken(format!(
                "The primary container for production variant {} did not pass the ping health check. Please check \
                 CloudWatch logs for this endpoint.",
                self.variant.variant.name
            ))
        })
    }

    fn host(&self, error: ExecutorError) -> Start {
        match error {
            ExecutorError::Unreachable(_) | ExecutorError::Busy(_) => Start::Away(error),
            ExecutorError::Unstartable(why) => Start::Broken(format!(
                "The primary container for production variant {} could not be started: {why}",
                self.variant.variant.name
            )),
            ExecutorError::Refused(why) => Start::Broken(why),
            ExecutorError::Seal(_) | ExecutorError::Unknown | ExecutorError::Host(_) => {
                log_not_started(&self.endpoint.arn, &error);
                Start::Broken(NOT_STARTED.into())
            }
        }
    }

    fn staged(&self, error: StageError, what: &str) -> Start {
        let error = match error.away() {
            Ok(away) => return Start::Away(away),
            Err(error) => error,
        };
        match FailureText::from(error) {
            FailureText::Client(text) => Start::Broken(format!("{what}{text}")),
            FailureText::Engine(cause) => {
                tracing::error!(endpoint = %self.endpoint.arn, cause = crate::driver::chain(&*cause), "a transfer failed");
                Start::Broken(NOT_STARTED.into())
            }
        }
    }
}

/// The instance that serves or is to serve with this workload.
fn instance_of<'a>(endpoint: &'a mut Endpoint, workload: &isolarium_model::WorkloadId) -> Option<&'a mut Instance> {
    let fleets = endpoint.active.iter_mut().chain(endpoint.pending.iter_mut());
    let mut all = fleets
        .flat_map(|fleet| &mut fleet.variants)
        .flat_map(|variant| &mut variant.instances);
    all.find(|instance| instance.placement.workload == *workload)
}

/// Why a container was not started.
enum Start {
    /// The host was away; the step is repeated.
    Away(ExecutorError),
    /// It will not run: the reason, for the caller.
    Broken(String),
}
