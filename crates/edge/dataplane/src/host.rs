//! The shared network of the machine: the platform namespace, which routes for workloads without isolation and without
//! VpcConfig, and its uplink.
//!
//! The platform namespace outlives the process by a mount: `DIR/run/netns/platform` (NET-72). A restarted node finds it
//! there, with the interfaces of the workloads that ran on. The mount belongs to the mount namespace in which the node
//! runs, so this must be one that outlives the node: the host's own.

mod listen;
mod tunnel;
mod uplink;
mod vpc;

use crate::kernel::handle::Handle;
use crate::kernel::{KernelHost, netns, observe};
use crate::net_host::{ApplyError, NetHost, converge};
use crate::seal::{self, SealError, SealedNetns};
use isolarium_netplan::compile::compile_nothing;
use isolarium_netplan::id::VpcId;
use isolarium_netplan::intent::vpc::Holder;
use isolarium_netplan::intent::{HostNetwork, ListenerSpec, Reach, Tunnel, Uplink, WorkloadNetwork};
use isolarium_netplan::plan::{HostPlan, LinkName, NamespacePlan, Place, Scope};
use isolarium_netplan::{BadNetwork, Step, Tag, compile_host_with, compile_workload, encrypt, peers_seen};
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use tunnel::TunnelEnds;

/// Where the shared network keeps its handles.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// `DIR/run`: `netns/` below it holds the platform namespace's mount. It must be in a mount namespace that outlives
    /// the node process (the host's own), else a restarted node makes a new platform namespace.
    pub run_dir: PathBuf,
    /// The namespace that counts as the host. `None`: the one of the calling process.
    pub host_netns: Option<PathBuf>,
}

/// The machine's network. Share it by `Arc`; every method takes `&self` and may be called from any thread.
#[derive(Debug)]
pub struct Host {
    options: HostOptions,
    tag: Tag,
    ready: Mutex<Option<Ready>>,
    /// Which workloads of the platform network talk to each other; `None` until this process was told or has looked.
    /// Taken after `ready`.
    peers: Mutex<Option<Groups>>,
    routers: vpc::Routers,
}

/// Groups of addresses whose holders talk to each other.
type Groups = BTreeSet<BTreeSet<Ipv4Addr>>;

/// What stands since [`Host::ensure`].
#[derive(Debug)]
struct Ready {
    network: HostNetwork,
    plan: HostPlan,
    kernel: KernelHost,
    platform: Arc<Handle>,
    /// The generation of the platform's rules when they were read back.
    generation: u32,
}

/// Why the shared network is not as intended. What was there before still stands, deny included.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The configuration contradicts itself or the host.
    #[error("the network configuration cannot be carried out")]
    Network(#[from] BadNetwork),
    /// [`Host::ensure`] has not succeeded yet.
    #[error("the platform network has not been set up")]
    NotReady,
    /// A directory, mount or namespace could not be made or found.
    #[error("{what}; the engine must run as root (CAP_SYS_ADMIN, CAP_NET_ADMIN)")]
    System {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The network could not be brought in line.
    #[error("the shared network is not as planned")]
    Apply(#[from] ApplyError),
    /// No VPC of this id was applied.
    #[error("{0} has not been applied")]
    NoVpc(VpcId),
    /// The VPC does not serve what was asked for.
    #[error("{0} has no such door")]
    Door(VpcId),
    /// A listener was asked for on an address that the platform does not serve.
    #[error("{0} is not an address of the platform")]
    Address(std::net::IpAddr),
    /// The socket could not be opened.
    #[error("no socket on {address} port {port}")]
    Listen {
        /// Where it should have been.
        address: std::net::IpAddr,
        /// Its port.
        port: u16,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl HostError {
    /// Whether the same attempt may succeed a moment later with nobody's help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Apply(error) => error.is_passing(),
            _ => false,
        }
    }
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> HostError {
    let what = what.into();
    move |source| HostError::System { what, source }
}

impl Host {
    /// Takes the options; touches nothing.
    pub fn new(options: HostOptions) -> Self {
        let tag = tag_of(&options.run_dir);
        Self {
            options,
            tag,
            ready: Mutex::new(None),
            peers: Mutex::new(None),
            routers: vpc::Routers::default(),
        }
    }

    /// What tells this installation's names in shared namespaces apart (see [`Tag`]).
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Creates or adopts the platform namespace and the uplink, and reads both back. Repeating it changes nothing.
    /// With `Uplink::None` and `Uplink::Netns` nothing in the host's own namespace is made or changed.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn ensure(&self, network: &HostNetwork) -> Result<(), HostError> {
        let mut ready = self.ready();
        *ready = None;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plan = compile_host_with(network, &self.tag, &peers.clone().unwrap_or_default())?;
        let host = self.host_handle()?;
        let routes = observe::destinations(&host).map_err(system("the host's routes cannot be read"))?;
        network.check_host_routes(&routes)?;
        let platform = Arc::new(self.platform()?);
        let mut kernel = KernelHost {
            places: BTreeMap::from([(Place::Platform, Arc::clone(&platform))]),
            ..KernelHost::default()
        };
        match &network.uplink {
            Uplink::None => {}
            Uplink::Host => {
                uplink::remember(&self.record(), &host)?;
                kernel.places.insert(Place::Host, Arc::clone(&host));
            }
            Uplink::Netns { path } => {
                let fd = netns::open(Path::new(path)).map_err(system(format!("the uplink namespace {path}")))?;
                let handle = Handle::open(fd).map_err(system(format!("the uplink namespace {path}")))?;
                kernel.places.insert(Place::Uplink, Arc::new(handle));
            }
        }
        if peers.is_none() {
            // An earlier process let jobs talk; they go on until somebody who knows the jobs says otherwise.
            let mut found = peers_seen(&kernel.observe(&plan.places).map_err(ApplyError::from)?);
            found.retain(|pair| pair.iter().all(|address| network.is_workload_address(*address)));
            plan = compile_host_with(network, &self.tag, &found)?;
            *peers = Some(found);
        }
        converge(&mut kernel, &plan.places)?;
        if network.uplink != Uplink::Host {
            // Only now is the interface of an earlier uplink through the host gone, and its rules without use.
            uplink::undo(&self.record(), &host, &self.tag)?;
        }
        let generation = generation_of(&platform)?;
        *ready = Some(Ready {
            network: network.clone(),
            plan,
            kernel,
            platform,
            generation,
        });
        Ok(())
    }

    /// Says which workloads of the platform network may talk to each other, and no others: groups of addresses, one for the
    /// containers of each job (CC-85).
    ///
    /// # Errors
    /// Before [`Self::ensure`], and as it.
    pub fn set_peers(&self, groups: &BTreeSet<BTreeSet<Ipv4Addr>>) -> Result<(), HostError> {
        let mut held = self.ready();
        let ready = held.as_mut().ok_or(HostError::NotReady)?;
        let plan = compile_host_with(&ready.network, &self.tag, groups)?;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        *peers = Some(groups.clone());
        if plan == ready.plan {
            return ready.still_stands();
        }
        // Not a number that the kernel gives soon: should this fail, whatever is attached next puts things right first.
        (ready.plan, ready.generation) = (plan, ready.generation.wrapping_sub(1));
        ready.still_stands()
    }

    /// Opens a listening socket (TCP) or a bound socket (UDP) inside the platform namespace. Allowed are the unspecified
    /// address (any address of the platform, AnyIP ranges included; port 0 for a client's socket) and single addresses
    /// that the platform serves. One port has either one listener on the unspecified address, which tells destinations
    /// apart by the accepted socket's own address, or listeners on single addresses; the kernel refuses a mixture.
    ///
    /// # Errors
    /// Before [`Self::ensure`], when the address is not one the platform serves, or when the port is taken.
    pub fn listen(&self, listener: &ListenerSpec) -> Result<OwnedFd, HostError> {
        let (network, platform) = {
            let ready = self.ready();
            let ready = ready.as_ref().ok_or(HostError::NotReady)?;
            (ready.network.clone(), Arc::clone(&ready.platform))
        };
        listen::open(&network, &platform, listener)
    }

    /// Makes, reads back and hands out the namespace of one workload (NI-6, NI-11, NET-73). Isolation needs no shared
    /// network; [`Reach::ServiceNetwork`] needs [`Self::ensure`] before, [`Reach::Vpc`] and [`Reach::Peers`] also [`Self::apply_vpc`].
    ///
    /// # Errors
    /// See [`SealError`]; nothing is left behind.
    pub fn seal(&self, network: &WorkloadNetwork) -> Result<SealedNetns, SealError> {
        self.seal_for(network, None)
    }

    /// As [`Self::seal`]; with a tunnel everything between the workload and its peers goes through the tunnel's ends, and
    /// nothing while nobody reads them.
    ///
    /// # Errors
    /// See [`SealError`]; nothing is left behind.
    pub fn seal_for(&self, network: &WorkloadNetwork, tunnel: Option<&Tunnel>) -> Result<SealedNetns, SealError> {
        let sealed = self.sealed(network, tunnel)?;
        match tunnel {
            None => Ok(sealed),
            Some(tunnel) => {
                let ends = tunnel::ends(sealed.as_fd(), tunnel).map_err(SealError::Tunnel)?;
                Ok(sealed.with_tunnel(ends))
            }
        }
    }

    fn sealed(&self, network: &WorkloadNetwork, tunnel: Option<&Tunnel>) -> Result<SealedNetns, SealError> {
        match network.reach {
            Reach::Nothing => match tunnel {
                None => seal::seal(&compile_nothing(), None),
                Some(tunnel) => Err(BadNetwork::Tunnel(tunnel.own).into()),
            },
            Reach::Vpc { vpc, interface } => self.seal_interface(
                vpc,
                interface,
                vpc::Sort::Vpc { anew: false },
                tunnel,
                &|holder| matches!(holder, Holder::Container(workload) if *workload == network.workload),
            ),
            Reach::Peers {
                network: peers,
                interface,
            } => self.seal_interface(
                peers,
                interface,
                vpc::Sort::Peers,
                tunnel,
                &|holder| matches!(holder, Holder::Container(workload) if *workload == network.workload),
            ),
            Reach::ServiceNetwork { .. } => {
                let (plan, platform) = {
                    let mut ready = self.ready();
                    let none = || SealError::Platform(Box::new(HostError::NotReady));
                    let ready = ready.as_mut().ok_or_else(none)?;
                    ready
                        .still_stands()
                        .map_err(|error| SealError::Platform(Box::new(error)))?;
                    let mut plan = compile_workload(&ready.network, network)?;
                    if let Some(tunnel) = tunnel {
                        encrypt(&mut plan, tunnel)?;
                    }
                    (plan, Arc::clone(&ready.platform))
                };
                seal::seal(&plan, Some(&platform))
            }
        }
    }

    /// The namespace of a workload for a further container in it, proven again to reach no more than `network` says
    /// (CC-10, NET-73). `netns` is the namespace of a running workload, `network` that workload's.
    ///
    /// # Errors
    /// See [`SealError`]; a namespace that is not as planned stays as it is, and is not handed out.
    pub fn join(&self, netns: OwnedFd, network: &WorkloadNetwork) -> Result<SealedNetns, SealError> {
        let plan = match network.reach {
            Reach::Nothing => compile_nothing(),
            Reach::ServiceNetwork { .. } => {
                let ready = self.ready();
                let ready = ready
                    .as_ref()
                    .ok_or_else(|| SealError::Platform(Box::new(HostError::NotReady)))?;
                compile_workload(&ready.network, network)?
            }
            Reach::Vpc { vpc, interface }
            | Reach::Peers {
                network: vpc,
                interface,
            } => self.interface_plan(vpc, interface, &network.workload)?,
        };
        seal::joined(netns, &plan)
    }

    /// Removes everything [`Self::ensure`] made, cuts the workloads that are attached to it, and restores what was changed
    /// on the host (NET-72). Works after a restart too.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest was still tried.
    pub fn teardown(&self) -> Result<(), HostError> {
        let mut first = Ok(());
        let mut note = |outcome: Result<(), HostError>| {
            if first.is_ok() {
                first = outcome;
            }
        };
        note(self.remove_vpcs());
        let mut ready = self.ready();
        *ready = None;
        let platform = self.netns_dir().join("platform");
        if let Ok(fd) = netns::open(&platform) {
            note(cut(fd));
        }
        note(
            self.host_handle()
                .and_then(|host| uplink::undo(&self.record(), &host, &self.tag)),
        );
        note(netns::unpin(&platform).map_err(system("the platform namespace's mount")));
        note(netns::unpin_dir(&self.netns_dir()).map_err(system("the namespaces' directory")));
        first
    }

    fn ready(&self) -> MutexGuard<'_, Option<Ready>> {
        // `None` is written before anything is changed, so a panic in between leaves `None`.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn netns_dir(&self) -> PathBuf {
        self.options.run_dir.join("netns")
    }

    fn record(&self) -> PathBuf {
        // In a directory of its own, where nobody but root can put anything.
        self.options.run_dir.join("host/before.json")
    }

    fn host_handle(&self) -> Result<Arc<Handle>, HostError> {
        let path = self
            .options
            .host_netns
            .as_deref()
            .unwrap_or(Path::new("/proc/self/ns/net"));
        let handle = netns::open(path).and_then(Handle::open);
        handle
            .map(Arc::new)
            .map_err(system("the host's network namespace cannot be used"))
    }

    /// Adopts the namespace or makes it.
    fn platform(&self) -> Result<Handle, HostError> {
        let dir = self.netns_dir();
        let path = dir.join("platform");
        let fd = match netns::open(&path) {
            Ok(fd) => Ok(fd),
            Err(_) => {
                let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
                made.and_then(|()| share(&dir))
                    .map_err(system(dir.display().to_string()))?;
                netns::create_pinned(&path)
            }
        };
        fd.and_then(Handle::open)
            .map_err(system("the platform namespace cannot be made"))
    }
}

/// A file system of its own, in memory as what it names is, and shared: when the namespace is given up, copies of its mount
/// elsewhere go too. A name on a disk would cost a third of an attachment's time.
fn share(dir: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", dir, "tmpfs", flags, Some(c"mode=700"))?;
    rustix::mount::mount_change(dir, MountPropagationFlags::SHARED)?;
    Ok(())
}

/// The number of a namespace's rules; it changes with every transaction, whoever made it.
fn generation_of(handle: &Handle) -> Result<u32, HostError> {
    let asked = handle.netfilter().and_then(|mut socket| socket.generation());
    asked.map_err(system("nftables cannot be watched"))
}

impl Ready {
    /// Fails, or puts things right, when somebody else changed the platform's rules since they were read back: a workload
    /// is never attached to a router that no longer denies.
    fn still_stands(&mut self) -> Result<(), HostError> {
        if generation_of(&self.platform)? == self.generation {
            return Ok(());
        }
        converge(&mut self.kernel, &self.plan.places)?;
        self.generation = generation_of(&self.platform)?;
        Ok(())
    }
}

/// Removes every interface of a namespace but loopback.
fn cut(fd: OwnedFd) -> Result<(), HostError> {
    let handle = Handle::open(fd).map_err(system("the platform namespace cannot be entered"))?;
    let mut kernel = KernelHost {
        places: BTreeMap::from([(Place::Platform, Arc::new(handle))]),
        ..KernelHost::default()
    };
    let everything = NamespacePlan {
        scope: Scope::Whole { attachments: true },
        sysctls: BTreeMap::new(),
        links: BTreeMap::new(),
        neighbours: BTreeSet::new(),
        routes: BTreeSet::new(),
        rules: BTreeSet::new(),
        tables: BTreeMap::new(),
    };
    let seen = kernel
        .observe(&BTreeMap::from([(Place::Platform, everything)]))
        .map_err(ApplyError::from)?;
    let links = seen.places.into_values().flat_map(|here| here.links.into_keys());
    let steps: Vec<Step> = links
        .filter(|name| *name != LinkName::lo())
        .map(|link| Step::DeleteLink {
            place: Place::Platform,
            link,
        })
        .collect();
    Ok(kernel.apply(&steps)?)
}

/// FNV-1a of the path, folded to 32 bits: stable over restarts, different for different installations.
fn tag_of(run_dir: &Path) -> Tag {
    let path = fs::canonicalize(run_dir).unwrap_or_else(|_| run_dir.to_owned());
    let bytes = path.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    Tag::of((hash ^ (hash >> 32)) & 0xffff_ffff)
}

#[cfg(test)]
mod tests;
