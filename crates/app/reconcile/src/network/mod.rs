//! VPCs from records to the host's kernel: level-triggered, like everything here (style rule 7).
//!
//! [`Networks`] brings one VPC in line when somebody needs it now (a job that starts) or when the loop finds it changed.
//! A VPC comes to the host with its first interface that needs the kernel, and stays until its record goes: an owner's
//! VPCs without workloads cost nothing.

mod doors;
mod intent;
pub(crate) mod peers;
pub(crate) mod place;
mod program;
pub(crate) mod records;
mod tend;
mod words;

#[cfg(test)]
pub(crate) mod tests;

pub use doors::{Doors, NoDoors};
pub use intent::intent;
pub use program::{ProgramError, ProgramPlace};
pub use words::{NO_PATH, Port, blocked};

pub(crate) use tend::step;

use ipnet::Ipv4Net;
use isolarium_model::ec2::Parts;
use isolarium_model::ec2::id::{InterfaceId, PrefixListId, VpcId};
use isolarium_model::{Key, Scope, Timestamp};
use isolarium_netplan::intent::vpc::CheckedVpc;
use isolarium_runtime::Vpcs;
use isolarium_runtime::executor::ExecutorError;
use isolarium_runtime::vpcs::Destination;
use isolarium_store::{StateStore, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Addresses that the operator's configuration gives to services.
#[derive(Clone, Debug, Default)]
pub struct ServiceRanges {
    /// The ranges of the prefix lists that there are (NET-33).
    pub prefix_lists: BTreeMap<PrefixListId, BTreeSet<Ipv4Net>>,
    /// Ranges of public service names: they count as internet (NET-30).
    pub public: Vec<Ipv4Net>,
}

/// Why a VPC is not in line with its records.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("the records of a VPC cannot be read")]
    Store(#[from] StoreError),
    /// Nobody has this VPC any more.
    #[error("the VPC {0} does not exist")]
    Gone(VpcId),
    #[error("the VPC {vpc} cannot be planned")]
    Plan {
        vpc: VpcId,
        #[source]
        cause: isolarium_netplan::intent::vpc::BadVpc,
    },
    #[error("the host could not carry a VPC")]
    Host(#[source] ExecutorError),
}

/// How the kernel has one VPC of those that it should have or has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    pub vpc: VpcId,
    /// Sentences; none: the kernel has what the records ask for.
    pub differences: Vec<String>,
}

/// What the host has of one VPC. The lock is held while it is changed, so that plans reach the host in order.
type Standing = Arc<Mutex<Option<Arc<CheckedVpc>>>>;

/// The VPCs on the host.
pub struct Networks {
    store: Arc<dyn StateStore>,
    host: Arc<dyn Vpcs>,
    doors: Arc<dyn Doors>,
    ranges: ServiceRanges,
    standing: Mutex<BTreeMap<VpcId, Standing>>,
    changes: Mutex<Changes>,
    /// Whoever tells the host which jobs' containers talk.
    talking: Mutex<()>,
    /// The networks of jobs that this process was asked to bring, in line or not.
    peers: Mutex<BTreeMap<VpcId, peers::PeerNetwork>>,
    /// Interfaces of programs whose operator is still there.
    programs: Mutex<BTreeSet<InterfaceId>>,
}

/// What was committed since the loop looked last.
#[derive(Default)]
struct Changes {
    records: BTreeSet<(&'static str, Key)>,
    /// When the loop last looked at everything.
    whole: Option<Timestamp>,
}

/// What the loop is to look at.
enum Look {
    /// The VPCs of these records.
    These(BTreeSet<(&'static str, Key)>),
    /// All records, and the host.
    Everything,
}

impl Networks {
    /// Over a host that may hold VPCs of an earlier process.
    pub fn new(
        store: Arc<dyn StateStore>,
        host: Arc<dyn Vpcs>,
        doors: Arc<dyn Doors>,
        ranges: ServiceRanges,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            host,
            doors,
            ranges,
            standing: Mutex::default(),
            changes: Mutex::default(),
            talking: Mutex::default(),
            peers: Mutex::default(),
            programs: Mutex::default(),
        })
    }

    /// Ranges of public service names.
    pub fn public_ranges(&self) -> &[Ipv4Net] {
        &self.ranges.public
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record of a kind that [`concerns`] networks was committed.
    pub(crate) fn note(&self, kind: &'static str, key: &Key) {
        self.changes().records.insert((kind, key.clone()));
    }

    /// What is to be looked at now: what changed, and everything when nothing did or when that is due after `period`.
    fn look(&self, now: Timestamp, period: Duration) -> Look {
        let mut changes = self.changes();
        let records = std::mem::take(&mut changes.records);
        let fresh = changes.whole.is_some_and(|last| now.since(last) < period);
        match fresh && !records.is_empty() {
            true => Look::These(records),
            false => Look::Everything,
        }
    }

    /// Everything was looked at then, or is to be looked at again; tells when that is due at the latest.
    fn looked(&self, whole: Option<Timestamp>, period: Duration, again: bool) -> Timestamp {
        let mut changes = self.changes();
        changes.whole = whole.or(changes.whole).filter(|_| !again);
        changes.whole.map_or(Timestamp(0), |last| last.after(period))
    }

    fn standing(&self, vpc: VpcId) -> Standing {
        let mut all = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(vpc).or_default().clone()
    }

    /// The VPC as the host has it, if this process applied it.
    pub fn known(&self, vpc: VpcId) -> Option<Arc<CheckedVpc>> {
        let all = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = all.get(&vpc).cloned();
        drop(all);
        standing.and_then(|standing| locked(&standing).clone())
    }

    /// Whether the host has what these records ask for already.
    fn is_in_line(&self, read: &records::VpcRecords) -> bool {
        let wanted = intent(&read.parts, read.dhcp.as_ref(), &self.ranges).check();
        let known = self.known(read.parts.vpc.id);
        wanted.is_ok_and(|wanted| known.is_some_and(|known| *known == wanted))
    }

    /// Brings the VPC on the host in line with the records of this moment, with its listeners. Nothing is done when it is.
    ///
    /// # Errors
    /// See [`NetworkError`]; what stood before still stands, or nothing passes.
    pub fn ensure(&self, scope: &Scope, vpc: VpcId) -> Result<Arc<CheckedVpc>, NetworkError> {
        let standing = self.standing(vpc);
        let mut standing = locked(&standing);
        let read = records::of_vpc(&*self.store, scope, vpc)?.ok_or(NetworkError::Gone(vpc))?;
        self.bring(scope, &read, &mut standing)
    }

    /// As [`Self::ensure`], with the host asked again even if it is believed to be in line: after it has lost something.
    pub(crate) fn again(&self, scope: &Scope, vpc: VpcId) -> Result<Arc<CheckedVpc>, NetworkError> {
        let standing = self.standing(vpc);
        // Held to the end: another caller must not close what this one has opened.
        let mut standing = locked(&standing);
        *standing = None;
        // The old listeners hear nobody: they are in the namespace that went.
        self.doors.close(vpc);
        let read = records::of_vpc(&*self.store, scope, vpc)?.ok_or(NetworkError::Gone(vpc))?;
        self.bring(scope, &read, &mut standing)
    }

    fn bring(
        &self,
        scope: &Scope,
        read: &records::VpcRecords,
        standing: &mut Option<Arc<CheckedVpc>>,
    ) -> Result<Arc<CheckedVpc>, NetworkError> {
        let vpc = read.parts.vpc.id;
        let wanted = intent(&read.parts, read.dhcp.as_ref(), &self.ranges).check();
        let wanted = wanted.map_err(|cause| NetworkError::Plan { vpc, cause })?;
        if let Some(known) = standing.as_ref().filter(|known| ***known == wanted) {
            return Ok(Arc::clone(known));
        }
        let wanted = Arc::new(wanted);
        // Not known to be right until everything is done: a failure in between is made good by the next call.
        *standing = None;
        self.host.apply_vpc(&wanted).map_err(NetworkError::Host)?;
        self.doors.open(scope, &wanted).map_err(NetworkError::Host)?;
        *standing = Some(Arc::clone(&wanted));
        Ok(wanted)
    }

    /// Compares the kernel, read back in full, with the records of this moment: every VPC that is on the host or should be.
    /// Nothing is changed. What workloads that start or end have half done can show as a difference.
    ///
    /// # Errors
    /// When the records or the list of VPCs cannot be read; trouble with one VPC is told as its difference.
    pub fn compare(&self) -> Result<Vec<Compared>, NetworkError> {
        let all = records::every_vpc(&*self.store)?;
        let mut on_host: BTreeSet<VpcId> = self
            .host
            .list_vpcs()
            .map_err(NetworkError::Host)?
            .into_iter()
            .map(|seen| seen.vpc)
            .collect();
        let mut found = Vec::new();
        for (scope, read) in all {
            let vpc = read.parts.vpc.id;
            let hosted = on_host.remove(&vpc);
            let differences = match (hosted, needs_host(&read.parts)) {
                (true, _) => self
                    .differences(&scope, vpc)
                    .unwrap_or_else(|error| vec![crate::driver::chain(&error)]),
                (false, true) => vec!["it is not on the host".into()],
                (false, false) => continue,
            };
            found.push(Compared { vpc, differences });
        }
        for network in peers::all(&*self.store)? {
            // One that is not there yet belongs to a job that begins.
            if on_host.remove(&network.id) {
                let differences = peers::wanted(&network, &*self.store, &self.ranges)
                    .and_then(|wanted| self.host.compare_vpc(&wanted).map_err(NetworkError::Host));
                found.push(Compared {
                    vpc: network.id,
                    differences: differences.unwrap_or_else(|error| vec![crate::driver::chain(&error)]),
                });
            }
        }
        let left = on_host.into_iter().map(|vpc| Compared {
            vpc,
            differences: vec!["it is on the host without a record".into()],
        });
        found.extend(left);
        Ok(found)
    }

    fn differences(&self, scope: &Scope, vpc: VpcId) -> Result<Vec<String>, NetworkError> {
        let standing = self.standing(vpc);
        // Nobody applies a newer plan between the look at the records and the look at the kernel.
        let _held = locked(&standing);
        let read = records::of_vpc(&*self.store, scope, vpc)?.ok_or(NetworkError::Gone(vpc))?;
        let wanted = intent(&read.parts, read.dhcp.as_ref(), &self.ranges);
        self.host.compare_vpc(&wanted).map_err(NetworkError::Host)
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<VpcId, peers::PeerNetwork>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The networks of jobs in which this VPC's groups and ACLs count.
    pub(crate) fn peers_of(&self, vpc: VpcId) -> Vec<peers::PeerNetwork> {
        let all = self.peers();
        all.values().filter(|network| network.follows(vpc)).cloned().collect()
    }

    /// Brings the network of a job's isolated containers in line with the records of this moment.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub(crate) fn ensure_peers(&self, network: &peers::PeerNetwork) -> Result<(), NetworkError> {
        let standing = self.standing(network.id);
        let mut standing = locked(&standing);
        self.peers().insert(network.id, network.clone());
        let wanted = peers::wanted(network, &*self.store, &self.ranges)?;
        if standing.as_ref().is_some_and(|known| **known == wanted) {
            return Ok(());
        }
        *standing = None;
        self.host.apply_vpc(&wanted).map_err(NetworkError::Host)?;
        *standing = Some(Arc::new(wanted));
        Ok(())
    }

    /// As [`Self::ensure_peers`], with the host asked again even if it is believed to be in line. `Gone` when no job that has
    /// not ended has this network.
    pub(crate) fn peers_again(&self, network: VpcId) -> Result<(), NetworkError> {
        let all = peers::all(&*self.store)?;
        let wanted = all
            .iter()
            .find(|one| one.id == network)
            .ok_or(NetworkError::Gone(network))?;
        *locked(&self.standing(network)) = None;
        self.ensure_peers(wanted)
    }

    /// Lets the containers of each job of the platform network talk to each other, and no others.
    ///
    /// # Errors
    /// The store's and the host's.
    pub(crate) fn let_peers_talk(&self) -> Result<(), NetworkError> {
        // Held from reading to telling: an older picture never replaces a newer one.
        let _turn = self.talking.lock().unwrap_or_else(PoisonError::into_inner);
        let groups = peers::platform(&*self.store)?;
        self.host.set_peers(&groups).map_err(NetworkError::Host)
    }

    /// Takes a VPC off the host: its record is gone.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn remove(&self, vpc: VpcId) -> Result<(), NetworkError> {
        let standing = self.standing(vpc);
        let mut standing = locked(&standing);
        self.doors.close(vpc);
        *standing = None;
        self.peers().remove(&vpc);
        self.host.remove_vpc(vpc).map_err(NetworkError::Host)?;
        self.standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&vpc);
        Ok(())
    }

    /// Makes the namespace of a transfer interface, in a VPC that is in line with the records.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub fn attach(&self, scope: &Scope, vpc: VpcId, interface: InterfaceId) -> Result<(), NetworkError> {
        self.ensure(scope, vpc)?;
        match self.host.attach_interface(vpc, interface) {
            // The host's process was restarted and has yet to hear of the VPC.
            Err(ExecutorError::Unknown) => {
                self.again(scope, vpc)?;
                self.host.attach_interface(vpc, interface).map_err(NetworkError::Host)
            }
            done => done.map_err(NetworkError::Host),
        }
    }

    /// Removes the namespace of a transfer interface. One that is not there is a success.
    ///
    /// # Errors
    /// The host's.
    pub fn detach(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), NetworkError> {
        match self.host.detach_interface(vpc, interface) {
            Ok(()) | Err(ExecutorError::Unknown) => Ok(()),
            Err(error) => Err(NetworkError::Host(error)),
        }
    }

    /// Connects from inside the namespace of a transfer interface, which is made again if the host has lost it.
    ///
    /// # Errors
    /// `Refused` when nobody answers; the host's.
    pub fn dial(
        &self,
        scope: &Scope,
        vpc: VpcId,
        interface: InterfaceId,
        to: Destination,
        timeout: Duration,
    ) -> Result<OwnedFd, ExecutorError> {
        match self.host.dial_from(vpc, interface, to, timeout) {
            Err(ExecutorError::Unknown) => {
                let again = self.again(scope, vpc).and_then(|_| self.attach(scope, vpc, interface));
                again.map_err(|error| match error {
                    NetworkError::Host(error) => error,
                    other => ExecutorError::Host(crate::driver::chain(&other)),
                })?;
                self.host.dial_from(vpc, interface, to, timeout)
            }
            done => done,
        }
    }
}

/// Whom a program in the VPC asks for names: the owner's servers, else the VPC's resolver (NET-53, CC-86).
pub fn name_servers(vpc: &CheckedVpc) -> Vec<std::net::Ipv4Addr> {
    match vpc.dns.servers.as_slice() {
        [] => vpc.resolver().into_iter().collect(),
        own => own.to_vec(),
    }
}

fn locked(standing: &Standing) -> MutexGuard<'_, Option<Arc<CheckedVpc>>> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the host must carry this VPC: something in it moves packets.
fn needs_host(parts: &Parts) -> bool {
    use isolarium_model::ec2::Holder;
    let moves = |holder: &Holder| match holder {
        Holder::Container(_) | Holder::Transfer(_) | Holder::Program | Holder::Nat(_) | Holder::Endpoint(_) => true,
        // Reserved, configured nowhere.
        Holder::Nobody | Holder::Isolated(_) => false,
    };
    parts.interfaces.values().any(|one| moves(&one.holder))
}

/// Whether a commit of this kind of record concerns the network.
pub(crate) fn concerns(kind: &str) -> bool {
    records::KINDS.contains(&kind)
}

/// The key of a VPC's part.
pub(crate) fn key(scope: &Scope, id: impl std::fmt::Display) -> Key {
    isolarium_model::ec2::key(scope, id)
}
