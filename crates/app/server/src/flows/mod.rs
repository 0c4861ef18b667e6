//! Flow logs (NET-55..NET-57): what VPCs' routers counted is read, attributed, kept, and delivered when an interval is over.
//!
//! The order makes a restart harmless: what was read is on disk before the node is told so by the next read, a delivery
//! to CloudWatch Logs commits with its position, and one to S3 writes the same object again.

mod deliver;
mod journal;

#[cfg(test)]
mod tests;

use crate::layout;
use crate::vpc::View;
use isolarium_model::ec2::{FlowLog, NetworkInterface, key};
use isolarium_model::sagemaker::flows::{OwnerFlow, OwnerFlows};
use isolarium_model::time::Clock;
use isolarium_model::{Key, Timestamp};
use isolarium_netplan::flowlog::{FlowRecord, Ranges, attribute, explain};
use isolarium_netplan::id::{FlowLogId, InterfaceId, SubnetId, VpcId};
use isolarium_netplan::intent::vpc::{Holder, Interface};
use isolarium_netplan::reach::Direction;
use isolarium_runtime::executor::ExecutorError;
use isolarium_runtime::vpcs::Vpcs;
use isolarium_services::platform::roles::ExecutionRoles;
use isolarium_store::{Batch, Expect, StateStore, StoreError, Stored};
use journal::Journal;
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
    journals: HashMap<VpcId, Journal>,
    /// As the VPC was when it was last read: interfaces that went since then are in no newer view.
    views: HashMap<VpcId, Arc<View>>,
}

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
        rounds.journals.retain(|vpc, _| standing.contains(vpc));
        rounds.views.retain(|vpc, _| standing.contains(vpc));
        for view in views {
            let vpc = view.vpc().id;
            if let Err(error) = self.vpc(rounds, &view) {
                tracing::warn!(%vpc, error = &error as &dyn std::error::Error, "flow logs wait");
            }
        }
    }

    fn vpc(&self, rounds: &mut Rounds, view: &Arc<View>) -> Result<(), FlowError> {
        let vpc = view.vpc().id;
        let logs: Vec<Stored<FlowLog>> = self.store.all::<FlowLog>()?;
        let logs: Vec<Stored<FlowLog>> = logs
            .into_iter()
            .filter(|log| log.record.vpc == vpc && log.key.scope == *view.scope())
            .collect();
        let before = rounds.views.insert(vpc, view.clone()).unwrap_or_else(|| view.clone());
        if logs.is_empty() && !has_workload(view) && !has_workload(&before) {
            return Ok(());
        }
        let journal = match rounds.journals.entry(vpc) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => place.insert(self.load(vpc)?),
        };
        let told = self.host.read_flows(vpc, journal.next, Duration::ZERO)?;
        let now = self.clock.now();
        // An interface that came or went in between is in one of the two.
        let mut records = attribute(view.vpc(), &told.flows);
        let gone = |record: &FlowRecord| !view.vpc().interfaces.contains_key(&record.interface);
        records.extend(
            attribute(before.vpc(), &told.flows)
                .into_iter()
                .filter(|record| gone(record)),
        );
        self.keep_for_owners(&before, view, &records)?;
        let mut interfaces = interfaces(&before);
        interfaces.extend(self::interfaces(view));
        journal.add(now, self.settings.minute, records, told.lost > 0, &interfaces);
        journal.next = told.next;
        self.save(vpc, journal)?;
        for log in &logs {
            self.deliver(journal, view, log);
        }
        let ids: Vec<FlowLogId> = logs.iter().map(|log| log.record.id).collect();
        journal.forget(&ids, self.settings.minute);
        self.save(vpc, journal)
    }

    fn path(&self, vpc: VpcId) -> PathBuf {
        self.folder.join(format!("{vpc}.json"))
    }

    fn load(&self, vpc: VpcId) -> Result<Journal, FlowError> {
        let path = self.path(vpc);
        let failed = |source| FlowError::Journal {
            path: path.clone(),
            source,
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Journal::default()),
            Err(error) => Err(failed(error)),
        }
    }

    fn save(&self, vpc: VpcId, journal: &Journal) -> Result<(), FlowError> {
        let path = self.path(vpc);
        let failed = |source| FlowError::Journal {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        let bytes = serde_json::to_vec(journal).map_err(|error| failed(error.into()))?;
        layout::write_whole(&path, &bytes, 0o600).map_err(failed)
    }

    /// Notes the traffic of jobs and endpoints under their owner, with what decided about it now.
    fn keep_for_owners(&self, before: &View, view: &View, records: &[FlowRecord]) -> Result<(), FlowError> {
        let mut by_owner: BTreeMap<Key, (String, Vec<OwnerFlow>)> = BTreeMap::new();
        let mut known: HashMap<InterfaceId, Option<(Key, String)>> = HashMap::new();
        for record in records {
            let at = [view, before]
                .into_iter()
                .find(|one| one.vpc().interfaces.contains_key(&record.interface));
            let Some(at) = at else { continue };
            let interface = at.vpc().interfaces.get(&record.interface);
            let transfer = match interface.map(|one| &one.holder) {
                Some(Holder::Transfer(_)) => true,
                Some(Holder::Container(_) | Holder::Isolated(_)) => false,
                _ => continue,
            };
            let owner = match known.entry(record.interface) {
                std::collections::hash_map::Entry::Occupied(found) => found.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => place.insert(self.owner(view, record.interface)?),
            };
            let Some((owner_key, owner_arn)) = owner else { continue };
            let key = OwnerFlows::key(owner_key, owner_arn);
            let all = &mut by_owner.entry(key).or_insert_with(|| (owner_arn.clone(), Vec::new())).1;
            all.push(OwnerFlow {
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
        for (key, (owner_arn, flows)) in by_owner {
            self.add_to_owner(&key, &owner_arn, flows)?;
        }
        Ok(())
    }

    /// For whom an interface was made; its record may be gone already, its owner's flows know it then.
    fn owner(&self, view: &View, interface: InterfaceId) -> Result<Option<(Key, String)>, FlowError> {
        let found = self.store.get::<NetworkInterface>(&key(view.scope(), interface))?;
        if let Some(requester) = found.and_then(|stored| stored.record.requester) {
            return Ok(requester.owner.zip(requester.owner_arn));
        }
        let all = self.store.all::<OwnerFlows>()?;
        let seen = all
            .into_iter()
            .find(|stored| stored.record.flows.iter().any(|flow| flow.interface == interface));
        Ok(seen.map(|stored| (stored.key, stored.record.owner_arn)))
    }

    fn add_to_owner(&self, key: &Key, owner_arn: &str, flows: Vec<OwnerFlow>) -> Result<(), FlowError> {
        let stored = self.store.get::<OwnerFlows>(key)?;
        let (expect, mut record) = match stored {
            Some(stored) => (Expect::At(stored.revision), stored.record),
            None => {
                let record = OwnerFlows {
                    owner_arn: owner_arn.to_owned(),
                    began: self.clock.now(),
                    flows: Vec::new(),
                    left_out: 0,
                };
                (Expect::Absent, record)
            }
        };
        flows.into_iter().for_each(|flow| record.add(flow));
        self.store.commit(Batch::default().put(key, expect, &record)?)?;
        Ok(())
    }

    /// Delivers what is due; a flow log that cannot says why in `DeliverLogsErrorMessage`.
    fn deliver(&self, journal: &mut Journal, view: &View, log: &Stored<FlowLog>) {
        let minutes = log.record.interval.div_ceil(60).max(1);
        let length = self.settings.minute.saturating_mul(minutes);
        let mut error = log.record.error.clone();
        for due in journal.due(log.record.id, log.record.created, length) {
            match deliver::deliver(&self.roles, view.scope(), &log.record, &due, &self.ranges) {
                Ok(()) => {
                    journal.deliver(log.record.id, due.interval.until);
                    error = None;
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
