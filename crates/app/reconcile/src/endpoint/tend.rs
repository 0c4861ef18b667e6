//! One instance of a variant: launched, pinged, its output read.

use super::{Container, DRAIN_POLL, REPORT_INTERVAL, Room, actor_of};
use crate::collect::FailureText;
use crate::container::{self, BINDS_TO_PORT, LOADS_MODELS, ModelMount, Part, Serving};
use crate::deps::{AttachError, Deps, NOT_STARTED, StepError, log_not_started};
use crate::logs::{self, Drained, Sink};
use crate::network::place::Wanted;
use crate::ping;
use crate::scheduler::NO_CAPACITY;
use crate::stage::{self, StageError};
use crate::transfer::Image;
use isolarium_model::sagemaker::endpoint::{Instance, VariantFleet};
use isolarium_model::sagemaker::model::{ModelData, ResolvedImage};
use isolarium_model::sagemaker::{Attachment, Endpoint, EndpointStatus, Placement};
use isolarium_model::{Key, Timestamp};
use isolarium_runtime::executor::{ExecutorError, WorkloadState};
use std::time::Duration;

/// What was found about one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// On its way, or healthy before and in doubt now.
    Starting,
    /// What it runs is here; it may not be launched yet.
    Ready,
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
    /// What it runs is brought here, and no more: the fleet that serves is to make way first (AU-28).
    pub only_ready: bool,
    /// Nothing is launched yet: what leaves goes first.
    pub waits_for_old: bool,
    pub container: &'a mut Container,
    pub room: Room,
}

/// What a container is to run, on the engine's disk.
pub(crate) struct Ready {
    image: Image,
    model: ModelMount,
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
            None if self.only_ready => self.make_ready(),
            None if self.waits_for_old => Ok((Verdict::Starting, now.after(DRAIN_POLL))),
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
        let serves = [EndpointStatus::InService, EndpointStatus::UpdateRollbackFailed];
        if serves.contains(&self.endpoint.status) {
            return (Verdict::Starting, Timestamp(i64::MAX));
        }
        if now >= limit {
            return (Verdict::Broken(NO_CAPACITY.into()), now);
        }
        (Verdict::Starting, limit)
    }

    fn launch(&mut self, now: Timestamp) -> Result<(Verdict, Timestamp), StepError> {
        let attached = match self.placed()? {
            Ok(attached) => attached,
            Err(verdict) => return Ok((verdict, now)),
        };
        match self.start(&attached, 0) {
            Ok(image) => {
                self.container.launched = true;
                self.container.started = Some(self.deps.now());
                if image.is_some() {
                    self.container.image = image;
                }
                let several = !self.instance.others.is_empty();
                let pause = self.deps.settings.startup_ping_interval;
                Ok((Verdict::Starting, if several { now } else { now.after(pause) }))
            }
            Err(Start::Away(error)) => Err(StepError::Executor(error)),
            Err(Start::Broken(why)) => Ok((Verdict::Broken(why), now)),
        }
    }

    /// Brings everything here that the instance runs, so that it starts at once when it may.
    fn make_ready(&mut self) -> Result<(Verdict, Timestamp), StepError> {
        let never = Timestamp(i64::MAX);
        if self.container.ready.len() == self.variant.model.count() {
            return Ok((Verdict::Ready, never));
        }
        let attached = match self.placed()? {
            Ok(attached) => attached,
            Err(verdict) => return Ok((verdict, never)),
        };
        for (number, placement) in attached.placements().enumerate() {
            match self.bring(&placement, number) {
                Ok(ready) => drop(self.container.ready.insert(number, ready)),
                Err(Start::Away(error)) => return Err(StepError::Executor(error)),
                Err(Start::Broken(why)) => return Ok((Verdict::Broken(why), never)),
            }
        }
        Ok((Verdict::Ready, never))
    }

    /// The instance where it is to be, or what is to be said of it instead.
    fn placed(&self) -> Result<Result<Instance, Verdict>, StepError> {
        match self.attach() {
            Ok(Some(attached)) => Ok(Ok(attached)),
            // The record has gone on without this instance.
            Ok(None) => Ok(Err(Verdict::Starting)),
            Err(AttachError::Step(error)) => Err(error),
            Err(AttachError::Refused(text)) => Ok(Err(Verdict::Broken(text))),
            Err(AttachError::Host(error)) => {
                log_not_started(&self.endpoint.arn, &crate::driver::chain(&error));
                Ok(Err(Verdict::Broken(NOT_STARTED.into())))
            }
        }
    }

    /// Looks after the containers beside a running first one. `None`: they all run.
    fn others(&mut self, now: Timestamp) -> Result<Option<(Verdict, Timestamp)>, StepError> {
        for (number, workload) in self.instance.others.iter().enumerate() {
            let launched = self.container.others.get(number).is_some_and(|one| one.launched);
            match self.deps.state_of(workload)? {
                Some(WorkloadState::Running { .. }) => {}
                None if self.instance.healthy || launched => {
                    self.container.healthy = false;
                    return Ok(Some((Verdict::Dead, now)));
                }
                Some(WorkloadState::Exited(_)) => {
                    self.container.healthy = false;
                    return Ok(Some((self.too_late(now).unwrap_or(Verdict::Dead), now)));
                }
                Some(WorkloadState::NotStarted { reason }) => {
                    log_not_started(&self.endpoint.arn, &reason);
                    return Ok(Some((Verdict::Broken(NOT_STARTED.into()), now)));
                }
                None => {
                    let attached = match self.placed()? {
                        Ok(attached) => attached,
                        Err(verdict) => return Ok(Some((verdict, now))),
                    };
                    return match self.start(&attached, number.saturating_add(1)) {
                        Ok(image) => {
                            // The deadline counts from the last one's start: loading its model takes no time away.
                            self.container.started = Some(self.deps.now());
                            if let Some(beside) = self.container.others.get_mut(number) {
                                beside.launched = true;
                                beside.image = image.or(beside.image.take());
                            }
                            Ok(Some((Verdict::Starting, now)))
                        }
                        Err(Start::Away(error)) => Err(StepError::Executor(error)),
                        Err(Start::Broken(why)) => Ok(Some((Verdict::Broken(why), now))),
                    };
                }
            }
        }
        Ok(None)
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

    /// Starts a container of the instance, 0 being the first. `None` when a launch that an earlier process began turns
    /// out to have worked: its model data is in use.
    fn start(&mut self, instance: &Instance, number: usize) -> Result<Option<ResolvedImage>, Start> {
        let Some(placement) = instance.placements().nth(number) else {
            return Err(self.miscounted());
        };
        let (deps, workload) = (self.deps, &placement.workload);
        deps.executor.prepare(workload).map_err(|error| self.host(error))?;
        if deps.is_launched(workload).map_err(|error| self.host(error))? {
            return Ok(None);
        }
        let Ready { image, model: loaded } = match self.container.ready.remove(&number) {
            Some(ready) => ready,
            None => self.bring(&placement, number)?,
        };
        let (variant, model) = (self.variant, &self.variant.model);
        let Some(one) = model.containers().nth(number) else {
            return Err(self.miscounted());
        };
        let reference = &one.container.image;
        let serving = Serving {
            placement: &placement,
            environment: &one.container.environment,
            platform: vec![("AWS_REGION".into(), self.key.scope.region.to_string())],
            instance_type: &variant.variant.instance_type,
            model: loaded,
            part: one.name.map(|hostname| Part {
                hostname,
                beside: (number > 0).then_some(&instance.placement.workload),
                of: model.count(),
                port: one.port,
                safe_ports: one.safe_ports(),
            }),
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
        deps.launch(&self.key.scope, &placement, &spec)
            .map_err(|error| self.host(error))?;
        Ok(Some(resolved))
    }

    /// Brings the image and the model data of a container of the instance here.
    fn bring(&self, placement: &Placement, number: usize) -> Result<Ready, Start> {
        let (deps, workload) = (self.deps, &placement.workload);
        let Some(one) = self.variant.model.containers().nth(number) else {
            return Err(self.miscounted());
        };
        let actor = actor_of(self.key, self.endpoint, self.variant).of(placement);
        let reference = &one.container.image;
        deps.executor.prepare(workload).map_err(|error| self.host(error))?;
        let pull = |error| self.staged(error, &format!("The image {reference} could not be pulled: "));
        let image = deps
            .transfer
            .resolve_image(&actor, reference)
            .map_err(|error| pull(error.into()))?;
        if one.name.is_some() && image.labels.get(BINDS_TO_PORT).map(String::as_str) != Some("true") {
            return Err(Start::Broken(format!(
                "The image {reference} cannot be used in a model of several containers: it lacks the label \
                 {BINDS_TO_PORT}=true."
            )));
        }
        let many = matches!(one.data, Some(ModelData::Many { .. }));
        if many && image.labels.get(LOADS_MODELS).map(String::as_str) != Some("true") {
            return Err(Start::Broken(format!(
                "Your Ecr Image {reference} does not contain required {LOADS_MODELS}=true Docker label(s)."
            )));
        }
        stage::layers(deps, &image).map_err(pull)?;
        let limit = self.variant.variant.download_timeout.map(Duration::from_secs);
        let model = stage::model(deps, &actor, placement, one.data, limit)
            .map_err(|error| self.staged(error, "The model data could not be loaded: "))?;
        Ok(Ready { image, model })
    }

    fn miscounted(&self) -> Start {
        log_not_started(
            &self.endpoint.arn,
            &"the instance has another number of containers than its model",
        );
        Start::Broken(NOT_STARTED.into())
    }

    fn running(&mut self, now: Timestamp) -> Result<(Verdict, Timestamp), StepError> {
        if self.container.image.is_none() && !self.instance.healthy {
            // An earlier process launched it and died before it could say with which.
            self.container.image = self.deps.work.noted_image(&self.instance.placement.workload);
        }
        if let Some(found) = self.others(now)? {
            return Ok(found);
        }
        for (beside, workload) in self.container.others.iter_mut().zip(&self.instance.others) {
            if beside.image.is_none() && !self.instance.healthy {
                beside.image = self.deps.work.noted_image(workload);
            }
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
            let mut all = self.variant.model.containers().zip(self.instance.workloads());
            let silent =
                all.find(|(one, workload)| !ping::healthy(&*self.deps.dial, workload, one.port, settings.ping_timeout));
            let answered = silent.is_none();
            self.container.silent = silent.and_then(|(one, _)| one.name.map(str::to_owned));
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
        let group = self.endpoint.log_group();
        let mut again = Timestamp(i64::MAX);
        let due = self
            .container
            .last_report
            .map_or(now, |last| last.after(REPORT_INTERVAL));
        let reports = self.instance.placement.isolated() && now >= due;
        let fresh = self.container.logs.is_fresh(self.deps);
        let containers = self.variant.model.containers().zip(self.instance.placements());
        for (number, (one, placement)) in containers.enumerate() {
            let stream = super::stream(&self.variant.variant.name, &self.instance.id, one.name);
            let sink = Sink {
                job: None,
                actor: &actor,
                group: &group,
                stream: &stream,
            };
            let Some(cursor) = self.container.cursor(number) else {
                continue;
            };
            if reports {
                logs::report(self.deps, &sink, &placement, cursor)?;
            }
            if !fresh && logs::pump(self.deps, &sink, &placement.workload, cursor, None)? == Drained::More {
                again = now;
            }
        }
        if reports {
            self.container.last_report = Some(now);
        }
        if fresh {
            return Ok(now.after(self.deps.settings.log_interval));
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
                "The {} container for production variant {} did not pass the ping health check. Please check \
                 CloudWatch logs for this endpoint.",
                self.container.silent.as_deref().unwrap_or("primary"),
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
