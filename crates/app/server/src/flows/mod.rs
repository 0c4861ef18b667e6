//! Flow logs (NET-55..NET-57): what VPCs' routers counted is read, attributed, kept, and delivered when an interval is over.
//!
//! The order makes a restart harmless: what was read is on disk before the node is told so by the next read, with what is owed
//! to the records of owners; such a record names the reading that it got last; a delivery to CloudWatch Logs commits with
//! its position, and one to S3 writes the same object again.

mod deliver;
mod journal;
mod kept;

#[cfg(test)]
mod tests;

use crate::vpc::View;
use isolarium_model::ec2::{FlowLog, NetworkInterface, Vpc, key};
use isolarium_model::sagemaker::flows::{OwnerFlow, OwnerFlows};
use isolarium_model::time::Clock;
use isolarium_model::{Key, Scope, Timestamp};
use isolarium_netplan::flowlog::{FlowRecord, Ranges, attribute, explain};
use isolarium_netplan::id::{FlowLogId, InterfaceId, SubnetId, VpcId};
use isolarium_netplan::intent::vpc::{Holder, Interface};
use isolarium_netplan::reach::Direction;
use isolarium_runtime::executor::ExecutorError;
use isolarium_runtime::vpcs::Vpcs;
use isolarium_services::platform::roles::ExecutionRoles;
use isolarium_store::{Batch, Expect, Query, StateStore, StoreError, Stored};
use kept::{Kept, Owed, Reading};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How flow logs keep time.
#[derive(Clone, Copy, Debug)]
pub struct FlowSettings {
    /// Pause between reads.
    pub read: Duration,
    /// What an aggregation interval of 60 seconds lasts.
    pub minute: Duration,
}

/// Tells the VPCs of this moment.
pub type Views = Arc<dyn Fn() -> Vec<Arc<View>> + Send + Sync>;

/// The loop of flow logs.
pub struct FlowLogs {
    pub host: Arc<dyn Vpcs>,
    /// The VPCs that stand on the host, as they are now.
    pub views: Views,
    pub store: Arc<dyn StateStore>,
    pub roles: Arc<ExecutionRoles>,
    pub clock: Arc<dyn Clock>,
    pub ranges: Ranges,
    /// Where the journals lie.
    pub folder: PathBuf,
    pub settings: FlowSettings,
}

/// Why a VPC's traffic was not read or told this time; it is tried again.
#[derive(Debug, thiserror::Error)]
enum FlowError {
    #[error("the node process did not tell what passed")]
    Host(#[from] ExecutorError),
    #[error("the records cannot be read or written")]
    Store(#[from] StoreError),
    #[error("the journal in {path} cannot be read or written; check the disk")]
    Journal {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What the loop keeps between rounds.
#[derive(Default)]
struct Rounds {
    journals: HashMap<VpcId, Kept>,
    /// As the VPC was when it was last read: interfaces that went since then are in no newer view.
    views: HashMap<VpcId, Arc<View>>,
    /// For whom interfaces were made: their records go before their last flows are read.
    owners: HashMap<InterfaceId, Owner>,
    /// Those of them that were in no VPC any more at the end of the last round.
    gone: HashSet<InterfaceId>,
    /// Journals of VPCs that are gone were looked for.
    swept: bool,
    /// The flow logs when positions of others were last looked for.
    flow_logs: Option<HashSet<FlowLogId>>,
}

/// The job or endpoint of an interface, if it has one.
type Owner = Option<(Key, String)>;

impl FlowLogs {
    /// Goes round for ever.
    pub async fn run(self: Arc<Self>) {
        let mut rounds = Rounds::default();
        loop {
            tokio::time::sleep(self.settings.read).await;
            let this = self.clone();
            let round = tokio::task::spawn_blocking(move || {
                this.round(&mut rounds);
                rounds
            });
            rounds = round.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a round of the flow logs failed");
                Rounds::default()
            });
        }
    }

    fn round(&self, rounds: &mut Rounds) {
        let views = (self.views)();
        let standing: HashSet<VpcId> = views.iter().map(|view| view.vpc().id).collect();
        let before = rounds.journals.len();
        rounds.journals.retain(|vpc, _| standing.contains(vpc));
        rounds.views.retain(|vpc, _| standing.contains(vpc));
        if !rounds.swept || rounds.journals.len() < before {
            match self.sweep(&standing) {
                Ok(()) => rounds.swept = true,
                Err(error) => tracing::warn!(%error, "journals of VPCs that are gone could not be removed"),
            }
        }
        // Read once for all VPCs.
        let mut logs: HashMap<(Scope, VpcId), Vec<Stored<FlowLog>>> = HashMap::new();
        match self.store.all::<FlowLog>() {
            Ok(all) => {
                self.forget_others(rounds, all.iter().map(|log| log.record.id).collect());
                all.into_iter().for_each(|log| {
                    let at = (log.key.scope.clone(), log.record.vpc);
                    logs.entry(at).or_default().push(log);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "flow logs cannot be read");
                return;
            }
        }
        for view in &views {
            let vpc = view.vpc().id;
            let own = logs.remove(&(view.scope().clone(), vpc)).unwrap_or_default();
            if let Err(error) = self.vpc(rounds, view, &own) {
                tracing::warn!(%vpc, error = &error as &dyn std::error::Error, "flow logs wait");
            }
        }
        let present = |id: &InterfaceId| views.iter().any(|view| view.vpc().interfaces.contains_key(id));
        let last: HashSet<InterfaceId> = rounds.owners.keys().filter(|id| !present(id)).copied().collect();
        // Kept for one round more than the interface: that is when its last flows are read.
        rounds.owners.retain(|id, _| !rounds.gone.contains(id));
        rounds.gone = last;
    }

    /// Forgets how far flow logs that are gone had been delivered. `known` are those that exist.
    fn forget_others(&self, rounds: &mut Rounds, known: HashSet<FlowLogId>) {
        if rounds.flow_logs.as_ref().is_some_and(|before| before.is_subset(&known)) {
            rounds.flow_logs = Some(known);
            return;
        }
        let gone = |source: &String| deliver::flow_log_of(source).is_some_and(|id| !known.contains(&id));
        let forgotten = self.roles.log_sources().and_then(|sources| {
            let mut gone = sources.iter().filter(|source| gone(source));
            gone.try_for_each(|source| self.roles.forget_log(source))
        });
        match forgotten {
            Ok(()) => rounds.flow_logs = Some(known),
            Err(error) => tracing::warn!(%error, "positions of flow logs that are gone could not be removed"),
        }
    }

    /// Removes the journals of VPCs that nobody has any more.
    fn sweep(&self, standing: &HashSet<VpcId>) -> Result<(), FlowError> {
        let failed = |source| FlowError::Journal {
            path: self.folder.clone(),
            source,
        };
        let files = match std::fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let known: HashSet<VpcId> = self.store.all::<Vpc>()?.into_iter().map(|vpc| vpc.record.id).collect();
        for file in files {
            let path = file.map_err(failed)?.path();
            let named: Option<VpcId> = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse().ok());
            if named.is_some_and(|vpc| !known.contains(&vpc) && !standing.contains(&vpc)) {
                std::fs::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn vpc(&self, rounds: &mut Rounds, view: &Arc<View>, logs: &[Stored<FlowLog>]) -> Result<(), FlowError> {
        let vpc = view.vpc().id;
        let before = rounds.views.insert(vpc, view.clone()).unwrap_or_else(|| view.clone());
        if logs.is_empty() && !has_workload(view) && !has_workload(&before) {
            return Ok(());
        }
        let path = self.folder.join(format!("{vpc}.log"));
        let failed = |source| FlowError::Journal {
            path: path.clone(),
            source,
        };
        let kept = match rounds.journals.entry(vpc) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => place.insert(Kept::open(&path).map_err(failed)?),
        };
        self.pay(kept, &failed)?;
        let told = self.host.read_flows(vpc, kept.journal().next, Duration::ZERO)?;
        let now = self.clock.now();
        // An interface that came or went in between is in one of the two.
        let mut records = attribute(view.vpc(), &told.flows);
        let gone = |record: &FlowRecord| !view.vpc().interfaces.contains_key(&record.interface);
        records.extend(
            attribute(before.vpc(), &told.flows)
                .into_iter()
                .filter(|record| gone(record)),
        );
        let reading = format!("{vpc} {} {}", now.0, told.next);
        let owed = self.owed(&mut rounds.owners, &before, view, &records, &reading)?;
        let mut interfaces = interfaces(&before);
        interfaces.extend(self::interfaces(view));
        let reading = Reading {
            now,
            minute: self.settings.minute,
            records,
            lost: told.lost > 0,
            interfaces,
            next: told.next,
            owed,
        };
        kept.read(reading).map_err(failed)?;
        self.pay(kept, &failed)?;
        for log in logs {
            self.deliver(kept, view, log, &failed)?;
        }
        let ids: Vec<FlowLogId> = logs.iter().map(|log| log.record.id).collect();
        kept.forget(ids, self.settings.minute).map_err(failed)
    }

    /// Gives the owners' records what they lack. Nothing more is read of the VPC before they have it.
    fn pay(&self, kept: &mut Kept, failed: &dyn Fn(io::Error) -> FlowError) -> Result<(), FlowError> {
        for owed in kept.owed() {
            self.add_to_owner(owed)?;
        }
        kept.paid().map_err(failed)
    }

    /// The traffic of jobs and endpoints by owner, with what decided about it now.
    fn owed(
        &self,
        known: &mut HashMap<InterfaceId, Owner>,
        before: &View,
        view: &View,
        records: &[FlowRecord],
        reading: &str,
    ) -> Result<Vec<Owed>, FlowError> {
        let of_workload = |holder: &Holder| match holder {
            Holder::Transfer(_) => Some(true),
            Holder::Container(_) | Holder::Isolated(_) => Some(false),
            Holder::Nobody | Holder::Program | Holder::Nat(_) | Holder::Endpoint(_) => None,
        };
        // Known before there are flows: when those come, the record may be gone.
        for (id, interface) in &view.vpc().interfaces {
            if of_workload(&interface.holder).is_some() && !known.contains_key(id) {
                known.insert(*id, self.owner(view, *id)?);
            }
        }
        let mut by_owner: BTreeMap<Key, Owed> = BTreeMap::new();
        for record in records {
            let at = [view, before]
                .into_iter()
                .find(|one| one.vpc().interfaces.contains_key(&record.interface));
            let Some(at) = at else { continue };
            let interface = at.vpc().interfaces.get(&record.interface);
            let Some(transfer) = interface.and_then(|one| of_workload(&one.holder)) else {
                continue;
            };
            let owner = match known.entry(record.interface) {
                std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => place.insert(self.owner(view, record.interface)?),
            };
            let Some((owner_key, owner_arn)) = owner else { continue };
            let key = OwnerFlows::key(owner_key, owner_arn);
            let owed = by_owner.entry(key.clone()).or_insert_with(|| Owed {
                key,
                owner_arn: owner_arn.clone(),
                flows: Vec::new(),
                reading: reading.into(),
            });
            owed.flows.push(OwnerFlow {
                interface: record.interface,
                transfer,
                egress: record.direction == Direction::Egress,
                accepted: record.accepted,
                protocol: record.protocol,
                source: record.packet_source,
                source_port: record.source_port,
                destination: record.packet_destination,
                destination_port: record.destination_port,
                packets: record.counts.packets,
                bytes: record.counts.bytes,
                first: record.first,
                last: record.last,
                decided_by: explain(at.vpc(), &self.ranges.all(), record),
            });
        }
        Ok(by_owner.into_values().collect())
    }

    /// For whom an interface was made. Its record may be gone already; its owner's flows know it then.
    fn owner(&self, view: &View, interface: InterfaceId) -> Result<Owner, FlowError> {
        let found = self.store.get::<NetworkInterface>(&key(view.scope(), interface))?;
        if let Some(requester) = found.and_then(|stored| stored.record.requester) {
            return Ok(requester.owner.zip(requester.owner_arn));
        }
        let all = self.store.query::<OwnerFlows>(&Query::all(view.scope()))?;
        let seen = all
            .rows
            .into_iter()
            .find(|stored| stored.record.flows.iter().any(|flow| flow.interface == interface));
        Ok(seen.map(|stored| (stored.key, stored.record.owner_arn)))
    }

    fn add_to_owner(&self, owed: &Owed) -> Result<(), FlowError> {
        let stored = self.store.get::<OwnerFlows>(&owed.key)?;
        let (expect, mut record) = match stored {
            Some(stored) => (Expect::At(stored.revision), stored.record),
            None => {
                let record = OwnerFlows {
                    owner_arn: owed.owner_arn.clone(),
                    began: self.clock.now(),
                    flows: Vec::new(),
                    left_out: 0,
                    reading: None,
                };
                (Expect::Absent, record)
            }
        };
        if record.reading.as_ref() == Some(&owed.reading) {
            return Ok(());
        }
        record.reading = Some(owed.reading.clone());
        owed.flows.iter().for_each(|flow| record.add(flow.clone()));
        self.store.commit(Batch::default().put(&owed.key, expect, &record)?)?;
        Ok(())
    }

    /// Delivers what is due; a flow log that cannot says why in `DeliverLogsErrorMessage`.
    fn deliver(
        &self,
        kept: &mut Kept,
        view: &View,
        log: &Stored<FlowLog>,
        failed: &dyn Fn(io::Error) -> FlowError,
    ) -> Result<(), FlowError> {
        let minutes = log.record.interval.div_ceil(60).max(1);
        let length = self.settings.minute.saturating_mul(minutes);
        let mut error = log.record.error.clone();
        for due in kept.journal().due(log.record.id, log.record.created, length) {
            match deliver::deliver(&self.roles, view.scope(), &log.record, &due, &self.ranges) {
                Ok(()) => {
                    kept.delivered(log.record.id, due.interval.until).map_err(failed)?;
                    error = None;
                    // The journal knows how far; an interface that is gone needs a position of its own no longer.
                    let gone = |id: &&InterfaceId| !view.vpc().interfaces.contains_key(id);
                    for interface in due.interfaces.keys().filter(gone) {
                        if let Err(error) = self.roles.forget_log(&deliver::source(log.record.id, *interface)) {
                            tracing::warn!(%interface, %error, "the position of a flow log could not be removed");
                        }
                    }
                }
                Err(told) => {
                    tracing::warn!(flow_log = %log.record.id, error = &told as &dyn std::error::Error, "not delivered");
                    error = Some(deliver::message(&told));
                    break;
                }
            }
        }
        if error != log.record.error
            && let Err(error) = self.note(log, error)
        {
            tracing::warn!(%error, "the state of a flow log could not be noted");
        }
        Ok(())
    }

    fn note(&self, log: &Stored<FlowLog>, error: Option<String>) -> Result<(), StoreError> {
        let record = FlowLog {
            error,
            ..log.record.clone()
        };
        let batch = Batch::default().put(&log.key, Expect::At(log.revision), &record)?;
        match self.store.commit(batch) {
            // Deleted or changed meanwhile: the next round sees it.
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Interfaces that flow logs speak of: those that somebody holds.
fn interfaces(view: &View) -> BTreeMap<InterfaceId, SubnetId> {
    let held = |one: &Interface| !matches!(one.holder, Holder::Nobody | Holder::Isolated(_));
    let all = view.vpc().interfaces.iter();
    all.filter(|(_, one)| held(one))
        .map(|(id, one)| (*id, one.subnet))
        .collect()
}

/// Whether a job or endpoint runs in it.
fn has_workload(view: &View) -> bool {
    let mut all = view.vpc().interfaces.values();
    all.any(|one| matches!(one.holder, Holder::Container(_) | Holder::Transfer(_)))
}

/// Time of a flow log's interval, for names.
fn utc(time: Timestamp) -> jiff::Zoned {
    jiff::Timestamp::from_millisecond(time.0)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_zoned(jiff::tz::TimeZone::UTC)
}
