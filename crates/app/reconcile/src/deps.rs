//! What every step works with.

use crate::asynchronous::Bounds;
use crate::capture::Budget;
use crate::cut::Cuts;
use crate::fleets::Fleets;
use crate::held::Held;
use crate::network::peers;
use crate::network::place::{self, PlaceError, Wanted};
use crate::network::{NetworkError, Networks};
use crate::scheduler::Scheduler;
use crate::settings::ReconcileSettings;
use crate::transfer::{Actor, Layer, Transfer, Via};
use crate::workdir::WorkDir;
use isolarium_model::ec2::id::VpcId;
use isolarium_model::sagemaker::network::{IsolationRecord, Sight};
use isolarium_model::sagemaker::training_job::JobRun;
use isolarium_model::sagemaker::{
    AddressLease, Attachment, BlockedDestination, EncryptedVolume, JobNetwork, Placement, Reach,
};
use isolarium_model::time::{Clock, IdSource};
use isolarium_model::{Arn, Key, Record, Scope, Timestamp, WorkloadId};
use isolarium_runtime::executor::{ExecutorError, WorkloadState};
use isolarium_runtime::{Archives, Dial, EgressReport, Executor};
use isolarium_store::{Batch, Expect, StateStore, StoreError, Stored};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The outside world and the settings, shared by all loops.
pub struct Deps {
    pub store: Arc<dyn StateStore>,
    pub executor: Arc<dyn Executor>,
    pub archives: Arc<dyn Archives>,
    pub dial: Arc<dyn Dial>,
    pub egress: Arc<dyn EgressReport>,
    pub transfer: Arc<dyn Transfer>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdSource>,
    pub work: WorkDir,
    pub settings: ReconcileSettings,
    /// The VPCs on the host.
    pub networks: Arc<Networks>,
    /// What ends the transfers of those that are stepped now.
    pub cuts: Arc<Cuts>,
    /// Who may have room on this machine.
    pub scheduler: Arc<Scheduler>,
    /// What bounds the results that are held whole.
    pub held: Arc<Held>,
    /// What bounds the captured data that waits for delivery.
    pub captured: Arc<Budget>,
    /// What bounds the asynchronous requests that run at once.
    pub asynchronous: Arc<Bounds>,
    /// The live routing table, shared with the inference proxy.
    pub fleets: Arc<Fleets>,
    /// What the host was last seen to run.
    pub seen: Seen,
    /// Layers that are known to be unpacked, each with the blob that proved to be it: an image can name the layers of
    /// other accounts, it cannot have their bytes.
    pub unpacked: Mutex<HashSet<Layer>>,
}

/// Why a step could not be finished now. The driver logs it and repeats the step: nothing is recorded.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("the state store failed")]
    Store(#[from] StoreError),
    #[error("the executor failed")]
    Executor(#[source] ExecutorError),
    #[error("a record took a step its lifecycle does not have")]
    Lifecycle(#[from] isolarium_model::sagemaker::IllegalTransition),
    #[error("the platform network {0} has no free address; end workloads or configure a larger network")]
    NoAddress(ipnet::Ipv4Net),
    #[error("an identifier could not be made")]
    Identifier,
    #[error("the rights of an execution role could not be asked for")]
    Rights(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("a VPC is not in line with its records")]
    Network(#[from] NetworkError),
}

/// What the caller reads about a container that this host could not start; the operator's part is in the log (NET-73).
pub(crate) const NOT_STARTED: &str =
    "The container could not be started. The operator finds the cause in the engine's log.";

/// Tells the operator why a container was not started. The reasons of the host say what is missing.
pub(crate) fn log_not_started(owner_arn: &Arn, reason: &dyn std::fmt::Display) {
    tracing::error!(
        %owner_arn,
        %reason,
        "a container could not be started; `isolarium doctor` checks what this host needs"
    );
}

/// What planning a place gave: `None` when it was refused.
pub(crate) type PlanResult = Result<Option<(isolarium_model::sagemaker::VpcPlace, Batch)>, StepError>;

/// Writes a planned place into its owner's record; calls the planner with the batch that it commits.
pub(crate) type CommitPlace<'a> =
    dyn FnMut(&mut dyn FnMut(Batch) -> PlanResult) -> Result<Option<Placement>, StepError> + 'a;

/// Why a workload is not attached to its VPC.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// For the owner of the job to mend (D-17, BT-6).
    #[error("{0}")]
    Refused(String),
    /// The host could not carry the VPC: nothing is started (NET-73).
    #[error("the VPC could not be brought to the host")]
    Host(#[source] NetworkError),
    /// To be repeated.
    #[error(transparent)]
    Step(#[from] StepError),
}

impl AttachError {
    fn of(error: NetworkError) -> Self {
        match error {
            NetworkError::Host(away @ (ExecutorError::Unreachable(_) | ExecutorError::Busy(_))) => {
                Self::Step(StepError::Executor(away))
            }
            NetworkError::Store(error) => Self::Step(error.into()),
            NetworkError::Gone(vpc) => Self::Refused(format!("The vpc ID '{vpc}' does not exist")),
            other @ (NetworkError::Plan { .. } | NetworkError::Host(_)) => Self::Host(other),
        }
    }
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At this time, or when something changes; `Timestamp(i64::MAX)` waits for a change alone.
    At(Timestamp),
    /// Never: forget the resource.
    Done,
}

/// The last look at the host.
#[derive(Default)]
pub struct Seen {
    states: Mutex<BTreeMap<WorkloadId, WorkloadState>>,
}

impl Seen {
    /// What was last seen of a workload.
    pub fn get(&self, workload: &WorkloadId) -> Option<WorkloadState> {
        self.lock().get(workload).cloned()
    }

    /// Replaces the whole picture and returns the workloads whose state is new or gone.
    pub fn replace(&self, now: BTreeMap<WorkloadId, WorkloadState>) -> Vec<WorkloadId> {
        let mut states = self.lock();
        let mut changed: Vec<WorkloadId> = now
            .iter()
            .filter(|(id, state)| states.get(*id) != Some(*state))
            .map(|(id, _)| id.clone())
            .collect();
        changed.extend(states.keys().filter(|id| !now.contains_key(*id)).cloned());
        *states = now;
        changed
    }

    /// Notes one workload.
    pub fn set(&self, workload: &WorkloadId, state: WorkloadState) {
        self.lock().insert(workload.clone(), state);
    }

    /// Forgets one workload.
    pub fn forget(&self, workload: &WorkloadId) {
        self.lock().remove(workload);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkloadId, WorkloadState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deps {
    /// The current time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The workload's state: as last seen, else by asking. `None` when the host does not know it.
    pub(crate) fn state_of(&self, workload: &WorkloadId) -> Result<Option<WorkloadState>, StepError> {
        if let Some(state) = self.seen.get(workload) {
            return Ok(Some(state));
        }
        match self.executor.observe_one(workload) {
            Ok(observed) => {
                self.seen.set(workload, observed.state.clone());
                Ok(Some(observed.state))
            }
            Err(ExecutorError::Unknown) => Ok(None),
            Err(error) => Err(StepError::Executor(error)),
        }
    }

    /// Asks the host, now that no launch of the workload is on its way, whether one worked.
    pub(crate) fn is_launched(&self, workload: &WorkloadId) -> Result<bool, ExecutorError> {
        match self.executor.observe_one(workload) {
            Ok(observed) => {
                self.seen.set(workload, observed.state);
                Ok(true)
            }
            Err(ExecutorError::Unknown) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Changes a record until the write meets the revision it read. `change` returns whether there is anything to
    /// write; it sees the newest record each time.
    pub(crate) fn update<R: Record>(
        &self,
        key: &Key,
        mut change: impl FnMut(&mut R, Batch) -> Result<Option<Batch>, StepError>,
    ) -> Result<Option<Stored<R>>, StepError> {
        loop {
            let Some(mut stored) = self.store.get::<R>(key)? else {
                return Ok(None);
            };
            let Some(batch) = change(&mut stored.record, Batch::default())? else {
                return Ok(Some(stored));
            };
            match self
                .store
                .commit(batch.put(key, Expect::At(stored.revision), &stored.record)?)
            {
                Ok(revision) => {
                    stored.revision = revision;
                    return Ok(Some(stored));
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// An id that no workload has had.
    pub(crate) fn fresh_workload(&self) -> Result<WorkloadId, StepError> {
        let id = format!("w-{}", self.ids.hex(17));
        id.parse().map_err(|_| StepError::Identifier)
    }

    /// A new workload with its network. A container with a way out gets an address, whose lease is added to the batch
    /// as "absent until now": if somebody else took it meanwhile, the commit fails and is tried with another.
    pub(crate) fn place(
        &self,
        network: &JobNetwork,
        owner: &Key,
        owner_arn: &Arn,
        batch: Batch,
    ) -> Result<(Placement, Batch), StepError> {
        let workload = self.fresh_workload()?;
        if network.vpc().is_some() {
            // Its addresses are taken when it starts: too few of them are told by its failure (D-17).
            let attachment = Attachment::Unattached {
                isolated: network.isolated(),
                peers: None,
            };
            return Ok((Placement { workload, attachment }, batch));
        }
        match network.container {
            Reach::Nothing | Reach::Vpc(_) => Ok((
                Placement {
                    workload,
                    attachment: Attachment::Isolated,
                },
                batch,
            )),
            Reach::ServiceNetwork => {
                let network = self.settings.platform_network;
                // A full network must end in an error, not in an endless search.
                for _ in 0..256 {
                    let chance = u64::from_str_radix(&self.ids.hex(15), 16).map_err(|_| StepError::Identifier)?;
                    let address = AddressLease::candidate(network, chance).ok_or(StepError::NoAddress(network))?;
                    let key = AddressLease::key(address).map_err(|_| StepError::Identifier)?;
                    if self.store.get::<AddressLease>(&key)?.is_some() {
                        continue;
                    }
                    let lease = AddressLease {
                        workload: workload.clone(),
                        owner_arn: owner_arn.to_string(),
                        owner: owner.clone(),
                        leased: self.now(),
                    };
                    let batch = batch.put(&key, Expect::Absent, &lease)?;
                    let attachment = Attachment::ServiceNetwork {
                        address,
                        credentials_token: self.ids.hex(32),
                    };
                    return Ok((Placement { workload, attachment }, batch));
                }
                Err(StepError::NoAddress(network))
            }
        }
    }

    /// The instances of a job that begins, or begins again, with their networks, as [`Self::place`]; isolated ones among several get a network of their
    /// own (NI-9).
    pub(crate) fn places(
        &self,
        network: &JobNetwork,
        owner: &Key,
        owner_arn: &Arn,
        instances: usize,
        batch: Batch,
    ) -> Result<(Vec<Placement>, Batch), StepError> {
        let (mut all, mut batch, mut shared): (Vec<Placement>, _, Option<VpcId>) = (Vec::new(), batch, None);
        while all.len() < instances {
            let (mut placement, with) = self.place(network, owner, owner_arn, batch.clone())?;
            // A random address may come twice.
            let own = placement.platform_address();
            if own.is_some() && all.iter().any(|one| one.platform_address() == own) {
                continue;
            }
            batch = with;
            if instances > 1 && network.isolated() {
                let own = *shared.get_or_insert(VpcId::of(placement.workload.number()));
                match &mut placement.attachment {
                    Attachment::Unattached { peers, .. } => *peers = Some(own),
                    attachment => {
                        let peer = Attachment::peer(own, &placement.workload, all.len());
                        *attachment = peer.ok_or(StepError::Identifier)?;
                    }
                }
            }
            all.push(placement);
        }
        Ok((all, batch))
    }

    /// Gives a workload its place in the VPC, if it has none yet, and brings VPC and transfer interface to the host. `commit`
    /// writes the place into the owner's record, with the batch that makes the interfaces; it says whether the record still
    /// wants it. `None`: the owner is gone.
    pub(crate) fn attach(
        &self,
        actor: &Actor,
        wanted: &Wanted<'_>,
        placement: &Placement,
        commit: &mut CommitPlace<'_>,
    ) -> Result<Option<Placement>, AttachError> {
        let mut placed = placement.clone();
        if let Attachment::Unattached { .. } = placement.attachment {
            let mut refused = None;
            let committed = commit(&mut |batch| match place::plan(self, actor, wanted, batch) {
                Ok(planned) => Ok(Some(planned)),
                Err(PlaceError::Refused(text)) => {
                    refused = Some(text);
                    Ok(None)
                }
                Err(PlaceError::Step(error)) => Err(error),
            });
            let committed = committed?;
            if let Some(text) = refused {
                return Err(AttachError::Refused(text));
            }
            match committed {
                Some(committed) => placed = committed,
                None => return Ok(None),
            }
        }
        if let Some(at) = placed.vpc() {
            self.networks
                .attach(&actor.scope, at.vpc, at.transfer)
                .map_err(AttachError::of)?;
            place::attached(self, &actor.scope, at)?;
        }
        Ok(Some(placed))
    }

    /// Starts a container. A host that has forgotten the container's VPC is told of it again.
    pub(crate) fn launch(
        &self,
        scope: &Scope,
        placement: &Placement,
        spec: &isolarium_runtime::executor::LaunchSpec,
    ) -> Result<(), ExecutorError> {
        let again = match (self.executor.launch(spec), placement.peer_network(), placement.vpc()) {
            (Err(ExecutorError::Unknown), Some(network), _) => self.networks.peers_again(network),
            (Err(ExecutorError::Unknown), None, Some(at)) => self.networks.again(scope, at.vpc).map(drop),
            (done, ..) => return done,
        };
        again.map_err(host_error)?;
        self.executor.launch(spec)
    }

    /// Attempts to leave that isolation stopped, oldest first; none for containers with a way out, and none when the
    /// source cannot be read: the report never decides anything.
    pub(crate) fn attempts(&self, placement: &Placement) -> Vec<BlockedDestination> {
        if !placement.isolated() {
            return Vec::new();
        }
        let attempts = match self.egress.attempts(&placement.workload) {
            Ok(attempts) => attempts,
            Err(error) => {
                tracing::warn!(workload = %placement.workload, %error, "blocked attempts cannot be read");
                return Vec::new();
            }
        };
        let kept = attempts.into_iter().map(|a| BlockedDestination {
            first: a.first,
            last: a.last,
            count: a.count,
            pid: a.pid,
            process: a.process,
            protocol: a.protocol,
            address: a.address,
            port: a.port,
            name: a.name,
        });
        kept.collect()
    }

    /// Adds the isolation report of an ended workload to a batch; nothing for containers with a way out.
    pub(crate) fn keep_attempts(
        &self,
        scope: &Scope,
        placement: &Placement,
        owner_arn: &Arn,
        attempts: &[BlockedDestination],
        batch: Batch,
    ) -> Result<Batch, StepError> {
        if !placement.isolated() {
            return Ok(batch);
        }
        let record = IsolationRecord {
            workload: placement.workload.clone(),
            owner_arn: owner_arn.to_string(),
            ended: self.now(),
            attempts: attempts.to_vec(),
            // What cannot be asked was not watched, for all that is known.
            sight: self.egress.sight(&placement.workload).unwrap_or_else(|error| {
                tracing::warn!(workload = %placement.workload, %error, "how much of the attempts was seen cannot be read");
                Sight::default()
            }),
        };
        Ok(batch.put(&Key::exact(scope, placement.workload.as_str()), Expect::Any, &record)?)
    }

    /// Makes the ways between the containers of a job, before the first of them is there (NI-9, CC-85).
    pub(crate) fn connect(&self, scope: &Scope, run: &JobRun) -> Result<(), ExecutorError> {
        if run.instances() < 2 {
            return Ok(());
        }
        if let Some(network) = peers::of(scope, run) {
            self.networks.ensure_peers(&network).map_err(host_error)?;
        }
        if run.placements().any(|placement| placement.platform_address().is_some()) {
            self.networks.let_peers_talk().map_err(host_error)?;
        }
        Ok(())
    }

    /// Removes all workloads of a job, and the ways between them. The record says that the job has ended.
    pub(crate) fn remove_all(&self, run: &JobRun, actor: &dyn Fn(&Placement) -> Actor) -> Result<(), StepError> {
        for placement in run.placements() {
            match self.executor.remove(&placement.workload) {
                Ok(()) | Err(ExecutorError::Unknown) => {}
                Err(error) => return Err(StepError::Executor(error)),
            }
        }
        // Before an address has another holder, whom nobody of this job may reach.
        if run.instances() > 1 && run.placements().any(|placement| placement.platform_address().is_some()) {
            self.networks.let_peers_talk()?;
        }
        if let Some(network) = run.placement.peer_network() {
            self.networks.remove(network)?;
        }
        for placement in run.placements() {
            self.remove(placement, &actor(placement))?;
        }
        Ok(())
    }

    /// Removes a workload from the host that has no addresses of its own, or before these are given back.
    pub(crate) fn remove_container(&self, workload: &WorkloadId) -> Result<(), StepError> {
        match self.executor.remove(workload) {
            Ok(()) | Err(ExecutorError::Unknown) => {}
            Err(error) => return Err(StepError::Executor(error)),
        }
        self.seen.forget(workload);
        crate::logs::forget(self, workload);
        Ok(())
    }

    /// Removes a workload from the host, then gives its addresses back: never the other way round, or a new container
    /// could get an address that still answers.
    pub(crate) fn remove(&self, placement: &Placement, actor: &Actor) -> Result<(), StepError> {
        self.remove_container(&placement.workload)?;
        self.scheduler.release(&placement.workload);
        if let Some(at) = placement.vpc() {
            self.transfer.leave(Via {
                vpc: at.vpc,
                interface: at.transfer,
            });
            self.networks.detach(at.vpc, at.transfer)?;
            place::removed(self, actor, at)?;
        }
        if let Some(address) = placement.platform_address() {
            let key = AddressLease::key(address).map_err(|_| StepError::Identifier)?;
            if let Some(lease) = self.store.get::<AddressLease>(&key)?
                && lease.record.workload == placement.workload
            {
                match self
                    .store
                    .commit(Batch::default().delete::<AddressLease>(&key, Expect::At(lease.revision)))
                {
                    Ok(_) | Err(StoreError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Who moves data for a job or endpoint.
    pub(crate) fn actor(key: &Key, role_arn: &Arn, owner_arn: &Arn) -> Actor {
        Actor {
            scope: key.scope.clone(),
            role_arn: role_arn.clone(),
            owner_arn: owner_arn.clone(),
            via: None,
            kms_key: None,
            copies: None,
        }
    }
}

fn host_error(error: NetworkError) -> ExecutorError {
    match error {
        NetworkError::Host(error) => error,
        other => ExecutorError::Host(crate::driver::chain(&other)),
    }
}

impl Actor {
    /// The same actor, which encrypts what it stores under this key.
    pub(crate) fn sealing(mut self, kms_key: Option<&String>) -> Self {
        self.kms_key = kms_key.cloned();
        self
    }

    /// The same actor, of whose objects plain copies lie on this workload's encrypted volume alone, if it has one.
    pub(crate) fn copying_to(mut self, volume: Option<&EncryptedVolume>, workload: &WorkloadId) -> Self {
        self.copies = volume.map(|_| workload.clone());
        self
    }

    /// The same actor, whose objects travel as those of this placement must.
    pub(crate) fn of(mut self, placement: &Placement) -> Self {
        self.via = placement.vpc().map(|at| Via {
            vpc: at.vpc,
            interface: at.transfer,
        });
        self
    }
}
