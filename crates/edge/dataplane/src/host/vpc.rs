//! Routers of VPCs and the interfaces attached to them.
//!
//! A router is a namespace pinned at `DIR/run/netns/<vpc>`, an attached transfer or program interface one pinned at
//! `<vpc>.<interface>` beside it: both outlive the process and are found again (NET-72). Everything that changes one router
//! happens under its lock; routers do not wait for each other.

use super::{Host, HostError, generation_of, listen, system};
use crate::flow;
use crate::kernel::handle::Handle;
use crate::kernel::{KernelHost, Known, netns, route};
use crate::net_host::{ApplyError, NetHost, verify};
use crate::seal::{self, SealError, SealedNetns};
use isolarium_model::WorkloadId;
use isolarium_netplan::compile::vpc::TABLE;
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::{CheckedVpc, Door, Holder, Interface};
use isolarium_netplan::intent::{Transport, Tunnel};
use isolarium_netplan::plan::{HostSeen, LinkName, NamespacePlan, Place, Route, Scope, WorkloadPlan};
use isolarium_netplan::withdrawal::{Connection, Withdrawal};
use isolarium_netplan::{Edge, Step, compile_interface, compile_vpc, diff, encrypt};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The routers of this machine's VPCs.
#[derive(Debug, Default)]
pub(super) struct Routers {
    all: Mutex<BTreeMap<VpcId, Arc<Mutex<Router>>>>,
    flows: Mutex<BTreeMap<VpcId, Arc<flow::Source>>>,
    /// See [`KernelHost::left`].
    #[cfg(test)]
    left: Mutex<Option<usize>>,
}

/// One VPC's router.
#[derive(Debug)]
struct Router {
    id: VpcId,
    handle: Arc<Handle>,
    /// What stands. `None` until this process has applied the VPC, and from a failed attempt to the next that succeeds:
    /// nothing is attached meanwhile.
    standing: Option<Standing>,
    /// The last intent that was tried.
    intent: Option<CheckedVpc>,
    /// What connections have to be forgotten for, since that was last done.
    owed: Owed,
    /// Public addresses of intents that were tried, to which the platform may lead.
    claims: BTreeSet<Ipv4Addr>,
    /// The namespace was given up.
    removed: bool,
}

/// Connections that must not go on. A failed attempt leaves it as it is, so that the next one settles it.
#[derive(Debug, Default)]
struct Owed {
    /// Addresses that changed hands: who gets one next must not inherit what another interface was allowed.
    stale: BTreeSet<Ipv4Addr>,
    /// Intents that stood or were tried: their rules may have admitted what EC2 does not track (NET-16).
    tried: Vec<CheckedVpc>,
}

/// More intents than this in a row that failed are not remembered one by one: every connection is forgotten.
const TRIED: usize = 16;

#[derive(Debug)]
struct Standing {
    vpc: CheckedVpc,
    known: Known,
}

/// What kind of network an interface must belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// An owner's. `anew`: a link of the interface that is left over belongs to nobody.
    Vpc { anew: bool },
    /// A job's own: a container that must not get out is never put anywhere else (NI-9).
    Peers,
}

/// Where routers lead.
struct Beyond {
    edge: Edge,
    platform: Arc<Handle>,
    #[cfg(test)]
    left: Option<usize>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// Brings a VPC's router in line with the intent, and the attached interfaces with it; makes it when it is absent.
    ///
    /// # Errors
    /// See [`HostError`]. What stood before still stands or nothing passes, and nothing is attached until an attempt
    /// succeeds.
    pub fn apply_vpc(&self, vpc: CheckedVpc) -> Result<(), HostError> {
        let beyond = self.beyond()?;
        loop {
            let router = self.router(vpc.id, true)?;
            let mut router = held(&router);
            // Somebody may have removed it while this waited for the lock.
            if router.removed {
                continue;
            }
            let (id, now): (_, BTreeSet<_>) = (vpc.id, vpc.public_addresses().collect());
            router.claims.extend(&now);
            router.apply(vpc, &beyond)?;
            let released: BTreeSet<_> = router.claims.difference(&now).copied().collect();
            drop(router);
            self.lead_back(id, &released, &beyond)?;
            if let Ok(router) = self.router(id, false) {
                held(&router).claims.retain(|address| !released.contains(address));
            }
            return Ok(());
        }
    }

    /// Public addresses that a VPC gave up may be another's already: a late attempt of the first may have taken the route
    /// to them back, and it went with them.
    fn lead_back(&self, from: VpcId, released: &BTreeSet<Ipv4Addr>, beyond: &Beyond) -> Result<(), HostError> {
        if released.is_empty() {
            return Ok(());
        }
        let others: Vec<_> = held(&self.routers.all)
            .iter()
            .filter(|(id, _)| **id != from)
            .map(|(_, router)| Arc::clone(router))
            .collect();
        for router in others {
            let mut router = held(&router);
            let standing = router.standing.as_ref().map(|standing| standing.vpc.clone());
            if let Some(vpc) = standing.filter(|vpc| vpc.public_addresses().any(|one| released.contains(&one))) {
                router.apply(vpc, beyond)?;
            }
        }
        Ok(())
    }

    /// What the kernel has other than the intent asks for, as the steps that would mend it (NET-72). Everything is listed
    /// anew and nothing is changed. Attached interfaces that have no link yet are no difference.
    ///
    /// # Errors
    /// [`HostError::NoVpc`] when there is no router; when the kernel cannot be read.
    pub fn compare_vpc(&self, vpc: &CheckedVpc) -> Result<Vec<String>, HostError> {
        let beyond = self.beyond()?;
        let router = self.router(vpc.id, false)?;
        held(&router).compare(vpc, &beyond)
    }

    /// Removes a VPC's router and everything attached to it. One that is not there is a success.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove_vpc(&self, vpc: VpcId) -> Result<(), HostError> {
        held(&self.routers.flows).remove(&vpc);
        let path = self.router_path(vpc);
        let known = held(&self.routers.all).remove(&vpc);
        let mut router = known.as_deref().map(held);
        let mut released = BTreeSet::new();
        if let Some(router) = &mut router {
            router.removed = true;
            router.standing = None;
            released = std::mem::take(&mut router.claims);
        }
        // The engine's own sockets would keep the namespace: its links go by themselves.
        if let Ok(fd) = netns::open(&path) {
            let gone = Handle::open(fd).and_then(|handle| route::delete_links(&mut handle.socket()));
            gone.map_err(system(format!("the interfaces of {vpc}")))?;
        }
        for interface in self.pinned()?.remove(&vpc).unwrap_or_default() {
            let interface = self.interface_path(vpc, interface);
            netns::unpin(&interface).map_err(system(interface.display().to_string()))?;
        }
        netns::unpin(&path).map_err(system(path.display().to_string()))?;
        drop(router);
        match self.beyond() {
            Ok(beyond) => self.lead_back(vpc, &released, &beyond),
            // Nothing stands that an address could lead to.
            Err(_) => Ok(()),
        }
    }

    /// The VPCs that have a router, whoever made it, each with its interfaces of [`Self::attach_interface`].
    ///
    /// # Errors
    /// When the directory of namespaces cannot be read.
    pub fn vpcs(&self) -> Result<BTreeMap<VpcId, BTreeSet<InterfaceId>>, HostError> {
        let mut all = self.pinned()?;
        all.retain(|vpc, _| netns::open(&self.router_path(*vpc)).is_ok());
        for (vpc, interfaces) in &mut all {
            interfaces.retain(|interface| netns::open(&self.interface_path(*vpc, *interface)).is_ok());
        }
        Ok(all)
    }

    /// Opens a door of an applied VPC.
    ///
    /// # Errors
    /// [`HostError::NoVpc`] before [`Self::apply_vpc`], [`HostError::Door`] for one that the VPC does not have.
    pub fn open_door(&self, vpc: VpcId, door: Door) -> Result<OwnedFd, HostError> {
        let router = self.router(vpc, false)?;
        let router = held(&router);
        let standing = router.standing.as_ref().ok_or(HostError::NoVpc(vpc))?;
        let (address, port, transport) = door_of(&standing.vpc, door).ok_or(HostError::Door(vpc))?;
        let address = SocketAddrV4::new(address, port);
        let opened = router.handle.run(|| listen::bind_shared(address, transport));
        opened.and_then(|done| done).map_err(|source| HostError::Listen {
            address: (*address.ip()).into(),
            port,
            source,
        })
    }

    /// Makes and keeps the namespace of an interface that the platform or a program holds.
    ///
    /// # Errors
    /// See [`SealError`]; nothing is left behind.
    pub fn attach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), SealError> {
        let path = self.interface_path(vpc, interface);
        if netns::open(&path).is_ok() {
            let router = self.router(vpc, false);
            let router = router.map_err(|error| SealError::Platform(Box::new(error)))?;
            let linked = route::has_link(&mut held(&router).handle.socket(), &LinkName::of_interface(interface));
            if linked.map_err(SealError::Namespace)? {
                return Ok(());
            }
            // An intent without the interface took its link away: what is left reaches nothing and never will.
            netns::unpin(&path).map_err(SealError::Namespace)?;
        }
        let sealed = self.seal_interface(vpc, interface, Sort::Vpc { anew: true }, None, &|holder| {
            matches!(holder, Holder::Transfer(_) | Holder::Program)
        })?;
        netns::pin(sealed.as_fd().as_raw_fd(), &path).map_err(SealError::Namespace)
    }

    /// Gives up the namespace of [`Self::attach_interface`]. Connections that were dialed from it hold it until they are
    /// closed, and reach nothing any more once the interface is not part of the VPC.
    ///
    /// # Errors
    /// When it could not be removed.
    pub fn detach_interface(&self, vpc: VpcId, interface: InterfaceId) -> Result<(), HostError> {
        let path = self.interface_path(vpc, interface);
        netns::unpin(&path).map_err(system(path.display().to_string()))
    }

    /// Connects from inside the namespace of [`Self::attach_interface`].
    ///
    /// # Errors
    /// `NotFound` when there is none; else what the process inside would see.
    pub fn dial_from(
        &self,
        vpc: VpcId,
        interface: InterfaceId,
        to: (SocketAddrV4, Transport),
        timeout: Duration,
    ) -> io::Result<OwnedFd> {
        let fd = netns::open(&self.interface_path(vpc, interface))?;
        crate::dial::dial_to(fd.as_fd(), to.0, to.1, timeout)
    }

    /// The namespace of [`Self::attach_interface`], for programs that the operator runs there.
    pub fn interface_path(&self, vpc: VpcId, interface: InterfaceId) -> PathBuf {
        self.netns_dir().join(format!("{vpc}.{interface}"))
    }

    /// What passed and what was refused, see [`isolarium_netplan::flowlog`].
    ///
    /// # Errors
    /// [`HostError::NoVpc`] when there is no router.
    pub fn read_flows(
        &self,
        vpc: VpcId,
        since: u64,
        timeout: Duration,
    ) -> Result<isolarium_netplan::flowlog::Flows, HostError> {
        let handle = Arc::clone(&held(&*self.router(vpc, false)?).handle);
        let source = {
            let mut all = held(&self.routers.flows);
            match all.get(&vpc).filter(|source| !source.is_over()) {
                Some(source) => Arc::clone(source),
                None => {
                    let begun = flow::Source::begin(handle).map_err(system(format!("the flows of {vpc}")))?;
                    let begun = Arc::new(begun);
                    all.insert(vpc, Arc::clone(&begun));
                    begun
                }
            }
        };
        source
            .read(since, timeout)
            .map_err(system(format!("the flows of {vpc}")))
    }

    /// The addresses of a network of peers, for the report, which lets nothing else pass; none for other networks.
    pub fn peers(&self, network: VpcId) -> BTreeSet<Ipv4Addr> {
        let Ok(router) = self.router(network, false) else {
            return BTreeSet::new();
        };
        let router = held(&router);
        let standing = router.standing.as_ref().filter(|standing| standing.vpc.peers_only);
        let interfaces = standing
            .into_iter()
            .flat_map(|standing| standing.vpc.interfaces.values());
        interfaces.flat_map(|one| one.addresses()).collect()
    }

    /// Seals the namespace of an interface whose holder is admitted, in a network of this sort.
    pub(super) fn seal_interface(
        &self,
        vpc: VpcId,
        interface: InterfaceId,
        sort: Sort,
        tunnel: Option<&Tunnel>,
        admitted: &dyn Fn(&Holder) -> bool,
    ) -> Result<SealedNetns, SealError> {
        let fail = |error: HostError| SealError::Platform(Box::new(error));
        let beyond = self.beyond().map_err(fail)?;
        let router = self.router(vpc, false).map_err(fail)?;
        seal::while_leaving(|| {
            let mut router = held(&router);
            router.still_stands(&beyond).map_err(fail)?;
            let standing = router.standing.as_ref().ok_or(HostError::NoVpc(vpc)).map_err(fail)?;
            let fits = standing.vpc.peers_only == (sort == Sort::Peers);
            let holder = standing
                .vpc
                .interfaces
                .get(&interface)
                .filter(|_| fits)
                .map(|one| &one.holder);
            let plan = holder
                .filter(|holder| admitted(holder))
                .and_then(|_| compile_interface(&standing.vpc, interface));
            let mut plan = plan.ok_or(SealError::Interface(interface))?;
            if let Some(tunnel) = tunnel {
                encrypt(&mut plan, tunnel)?;
            }
            if sort == (Sort::Vpc { anew: true }) {
                let left = route::delete_link(&mut router.handle.socket(), &LinkName::of_interface(interface));
                left.map_err(SealError::Namespace)?;
            }
            seal::seal_by(&plan, Some(Arc::clone(&router.handle)), |host| host)
        })
    }

    /// The plan of an interface that this workload holds.
    pub(super) fn interface_plan(
        &self,
        vpc: VpcId,
        interface: InterfaceId,
        workload: &WorkloadId,
    ) -> Result<WorkloadPlan, SealError> {
        let fail = |error: HostError| SealError::Platform(Box::new(error));
        let router = self.router(vpc, false).map_err(fail)?;
        let router = held(&router);
        let standing = router.standing.as_ref().ok_or(HostError::NoVpc(vpc)).map_err(fail)?;
        let held = standing
            .vpc
            .interfaces
            .get(&interface)
            .is_some_and(|one| matches!(&one.holder, Holder::Container(holder) if holder == workload));
        let plan = held.then(|| compile_interface(&standing.vpc, interface)).flatten();
        plan.ok_or(SealError::Interface(interface))
    }

    /// Removes every router, for [`Host::teardown`].
    pub(super) fn remove_vpcs(&self) -> Result<(), HostError> {
        let mut first = Ok(());
        for vpc in self.pinned()?.into_keys() {
            let removed = self.remove_vpc(vpc);
            first = first.and(removed);
        }
        first
    }

    fn router_path(&self, vpc: VpcId) -> PathBuf {
        self.netns_dir().join(vpc.to_string())
    }

    /// What the directory's names say. A crash can leave a name without a namespace.
    fn pinned(&self) -> Result<BTreeMap<VpcId, BTreeSet<InterfaceId>>, HostError> {
        let dir = self.netns_dir();
        let failed = || system(dir.display().to_string());
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries.map_err(failed())?,
        };
        let mut all: BTreeMap<VpcId, BTreeSet<InterfaceId>> = BTreeMap::new();
        for entry in entries {
            let name = entry.map_err(failed())?.file_name();
            let name = name.to_string_lossy();
            match name.split_once('.') {
                None => {
                    if let Ok(vpc) = name.parse() {
                        all.entry(vpc).or_default();
                    }
                }
                Some((vpc, interface)) => {
                    if let (Ok(vpc), Ok(interface)) = (vpc.parse(), interface.parse()) {
                        all.entry(vpc).or_default().insert(interface);
                    }
                }
            }
        }
        Ok(all)
    }

    fn beyond(&self) -> Result<Beyond, HostError> {
        let ready = self.ready();
        let ready = ready.as_ref().ok_or(HostError::NotReady)?;
        Ok(Beyond {
            edge: ready.network.vpc_edge(),
            platform: Arc::clone(&ready.platform),
            #[cfg(test)]
            left: *held(&self.routers.left),
        })
    }

    /// The router of a VPC: known, adopted, or made.
    fn router(&self, id: VpcId, make: bool) -> Result<Arc<Mutex<Router>>, HostError> {
        let mut all = held(&self.routers.all);
        if let Some(known) = all.get(&id) {
            return Ok(Arc::clone(known));
        }
        let path = self.router_path(id);
        let fd = match netns::open(&path) {
            Ok(fd) => Ok(fd),
            Err(_) if make => netns::create_pinned(&path),
            Err(_) => return Err(HostError::NoVpc(id)),
        };
        let handle = fd.and_then(Handle::open);
        let handle = handle.map_err(system(format!("the router of {id} cannot be made")))?;
        let router = Arc::new(Mutex::new(Router {
            id,
            handle: Arc::new(handle),
            standing: None,
            intent: None,
            owed: Owed::default(),
            claims: BTreeSet::new(),
            removed: false,
        }));
        all.insert(id, Arc::clone(&router));
        Ok(router)
    }
}

/// Address, port and transport of a door that the VPC has.
fn door_of(vpc: &CheckedVpc, door: Door) -> Option<(Ipv4Addr, u16, Transport)> {
    use isolarium_netplan::compile::CREDENTIALS;
    use isolarium_netplan::compile::vpc::LINK_LOCAL_RESOLVER;
    if vpc.peers_only {
        return None;
    }
    match door {
        Door::Resolver { address, transport } => {
            let own = Some(address) == vpc.resolver() || address == LINK_LOCAL_RESOLVER;
            (own && vpc.dns.support).then_some((address, 53, transport))
        }
        Door::S3 { port } => matches!(port, 80 | 443).then_some((Ipv4Addr::UNSPECIFIED, port, Transport::Tcp)),
        Door::Credentials => Some((CREDENTIALS, 80, Transport::Tcp)),
        Door::Endpoint { address } => {
            let served = |one: &Interface| {
                matches!(&one.holder, Holder::Endpoint(id) if vpc.interface_endpoints.contains_key(id))
                    && one.addresses().any(|own| own == address)
            };
            let served = vpc.interfaces.values().any(served);
            served.then_some((address, 443, Transport::Tcp))
        }
    }
}

impl Router {
    fn place(&self) -> Place {
        Place::Vpc(self.id)
    }

    /// Looks, changes and looks again. A container that ends meanwhile takes its link away between two looks: what there is
    /// is looked at anew then, a few times.
    fn apply(&mut self, vpc: CheckedVpc, beyond: &Beyond) -> Result<(), HostError> {
        const TRIES: usize = 4;
        for _ in 1..TRIES {
            match self.try_apply(vpc.clone(), beyond) {
                Err(HostError::Apply(ApplyError::Drift(_))) => {}
                Err(HostError::Apply(ApplyError::Refused { source, .. })) if route::is_absent(&source) => {}
                outcome => return outcome,
            }
        }
        self.try_apply(vpc, beyond)
    }

    fn try_apply(&mut self, vpc: CheckedVpc, beyond: &Beyond) -> Result<(), HostError> {
        let before = self.standing.take();
        let first = before.is_none();
        let here = self.place();
        let mut plan = compile_vpc(&vpc, Some(&beyond.edge)).places;
        let mut kernel = self.kernel(beyond);
        let generation = generation_of(&self.handle)?;
        let unchanged = before.filter(|before| before.known.generation == generation);
        kernel.known.extend(unchanged.map(|before| (here, before.known)));
        let seen = kernel.observe(&plan).map_err(ApplyError::from)?;
        if let Some(router) = plan.get_mut(&here) {
            follow(&vpc, router, &seen);
        }
        let mut steps = diff(&seen, &plan);
        // It exists: `Host::router` made it.
        steps.retain(|step| !matches!(step, Step::CreateNamespace { .. }));
        let stale = stale_addresses(self.intent.as_ref(), &vpc, here, &seen, &steps);
        self.owed.stale.extend(stale);
        if self.intent.as_ref() != Some(&vpc) {
            self.owed.tried.extend(self.intent.replace(vpc.clone()));
        }
        kernel.apply(&steps)?;
        // What an earlier process let pass for addresses that nobody holds now is not known.
        let present = first.then(|| present(&vpc, &seen, here));
        kernel.permit().map_err(system("connections"))?;
        self.settle(&vpc, present.as_ref())?;
        kernel.permit().map_err(system("reading back"))?;
        let known = self.read_back(&mut kernel, &plan, generation, &steps)?;
        self.standing = Some(Standing { vpc, known });
        Ok(())
    }

    fn kernel(&self, beyond: &Beyond) -> KernelHost {
        KernelHost {
            places: BTreeMap::from([
                (self.place(), Arc::clone(&self.handle)),
                (Place::Platform, Arc::clone(&beyond.platform)),
            ]),
            #[cfg(test)]
            left: std::cell::Cell::new(beyond.left),
            ..KernelHost::default()
        }
    }

    fn compare(&self, vpc: &CheckedVpc, beyond: &Beyond) -> Result<Vec<String>, HostError> {
        let mut plan = compile_vpc(vpc, Some(&beyond.edge)).places;
        let seen = self.kernel(beyond).observe(&plan).map_err(ApplyError::from)?;
        if let Some(router) = plan.get_mut(&self.place()) {
            follow(vpc, router, &seen);
        }
        let steps = diff(&seen, &plan);
        // It exists: there is a router to ask.
        let mended = steps
            .iter()
            .filter(|step| !matches!(step, Step::CreateNamespace { .. }));
        Ok(mended.map(ToString::to_string).collect())
    }

    /// Believes the kernel, not its answers. Tables that were not touched, or of which single elements were changed and
    /// asked for one by one, are not listed again while the generation says that nobody else changed anything.
    fn read_back(
        &self,
        kernel: &mut KernelHost,
        plan: &BTreeMap<Place, NamespacePlan>,
        generation: u32,
        steps: &[Step],
    ) -> Result<Known, HostError> {
        let here = self.place();
        let table_steps = steps
            .iter()
            .filter(|step| matches!(step, Step::ReplaceTable { .. } | Step::DeleteTable { .. }));
        let transactions = u32::try_from(table_steps.count()).unwrap_or(u32::MAX);
        let generation_now = generation_of(&self.handle)?;
        let wanted = plan.get(&here).and_then(|router| router.tables.get(TABLE));
        let tables = BTreeMap::from_iter(wanted.map(|table| (TABLE.to_owned(), table.seen())));
        let trusted = kernel.known.contains_key(&here)
            && generation_now == generation.wrapping_add(transactions)
            && (transactions == 0 || kernel.by_elements.get());
        kernel.known.clear();
        if trusted {
            let known = Known {
                generation: generation_now,
                tables: tables.clone(),
            };
            kernel.known.insert(here, known);
        }
        verify(kernel, plan)?;
        Ok(Known {
            generation: generation_now,
            tables,
        })
    }

    /// Puts things right when somebody else changed the router's rules since they were read back.
    fn still_stands(&mut self, beyond: &Beyond) -> Result<(), HostError> {
        let standing = self.standing.as_ref().ok_or(HostError::NoVpc(self.id))?;
        if generation_of(&self.handle)? == standing.known.generation {
            return Ok(());
        }
        let vpc = standing.vpc.clone();
        self.apply(vpc, beyond)
    }

    /// Forgets the connections that must not go on under the rules of `vpc`, which stand. `present`: addresses that are
    /// held, where nothing is known of the others.
    fn settle(&mut self, vpc: &CheckedVpc, present: Option<&BTreeSet<Ipv4Addr>>) -> Result<(), HostError> {
        let Owed { stale, tried } = &self.owed;
        let withdrawals: Vec<Withdrawal<'_>> = tried
            .iter()
            .filter_map(|before| Withdrawal::between(before, vpc))
            .collect();
        let everything = tried.len() > TRIED;
        if present.is_some() || everything || !stale.is_empty() || !withdrawals.is_empty() {
            let nobodys = |address: &Ipv4Addr| {
                present.is_some_and(|present| vpc.contains(*address) && !present.contains(address))
                    || stale.contains(address)
            };
            let chosen = |one: &Connection| {
                let ends = [one.path, one.answers].map(|path| [path.source, path.destination]);
                everything
                    || ends.as_flattened().iter().any(nobodys)
                    || withdrawals.iter().any(|withdrawal| withdrawal.cuts(one))
            };
            flow::forget(&self.handle, &chosen).map_err(system(format!("connections of {}", self.id)))?;
        }
        drop(withdrawals);
        self.owed = Owed::default();
        Ok(())
    }
}

/// Adds what the attached interfaces have in the router to its plan, so that nothing else is left there.
fn follow(vpc: &CheckedVpc, router: &mut NamespacePlan, seen: &HostSeen) {
    let here = Place::Vpc(vpc.id);
    let links = seen.places.get(&here).map(|seen| &seen.links);
    for id in vpc.interfaces.keys() {
        if !links.is_some_and(|links| links.contains_key(&LinkName::of_interface(*id))) {
            continue;
        }
        let Some(mut plan) = compile_interface(vpc, *id) else {
            continue;
        };
        if let Some(beside) = plan.places.remove(&here) {
            router.links.extend(beside.links);
            router.neighbours.extend(beside.neighbours);
            router.routes.extend(beside.routes);
        }
    }
    router.scope = Scope::Whole { attachments: false };
}

/// Private addresses of interfaces that are attached and stay so.
fn present(vpc: &CheckedVpc, seen: &HostSeen, here: Place) -> BTreeSet<Ipv4Addr> {
    let links = seen.places.get(&here).map(|seen| &seen.links);
    let attached = vpc.interfaces.iter().filter(|(id, interface)| {
        interface.is_attached() && links.is_some_and(|links| links.contains_key(&LinkName::of_interface(**id)))
    });
    attached.flat_map(|(_, interface)| interface.addresses()).collect()
}

/// Addresses that change hands: of interfaces that lose them, and of links that go.
fn stale_addresses(
    before: Option<&CheckedVpc>,
    vpc: &CheckedVpc,
    here: Place,
    seen: &HostSeen,
    steps: &[Step],
) -> BTreeSet<Ipv4Addr> {
    let mut stale = BTreeSet::new();
    for (id, interface) in before.into_iter().flat_map(|before| &before.interfaces) {
        let now: BTreeSet<Ipv4Addr> = match vpc.interfaces.get(id) {
            Some(now) if now.holder == interface.holder => now.addresses().collect(),
            _ => BTreeSet::new(),
        };
        stale.extend(interface.addresses().filter(|address| !now.contains(address)));
    }
    let routes = seen.places.get(&here).into_iter().flat_map(|seen| &seen.routes);
    for Route {
        destination,
        table,
        link,
        ..
    } in routes
    {
        let goes = |step: &Step| matches!(step, Step::DeleteLink { place, link: gone } if *place == here && Some(gone) == link.as_ref());
        if *table == Route::MAIN && destination.prefix_len() == 32 && steps.iter().any(goes) {
            stale.insert(destination.addr());
        }
    }
    stale
}

#[cfg(test)]
mod tests;
