//! Namespaces proven to reach no more than their plan says.

use crate::host::TunnelEnds;
use crate::kernel::KernelHost;
use crate::kernel::handle::Handle;
use crate::kernel::netns;
use crate::net_host::{ApplyError, NetHost, verify};
use isolarium_netplan::id::InterfaceId;
use isolarium_netplan::plan::{HostSeen, KindSeen, LinkName, LinkSeen, NamespaceSeen, Place, WorkloadPlan};
use isolarium_netplan::{BadNetwork, Step, diff};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A workload's network namespace, installed and read back. [`crate::Host::seal`] is the only source (style rule 6).
/// The namespace lives as long as this value, a process in it or a socket of it; nothing else keeps it.
#[derive(Debug)]
pub struct SealedNetns {
    fd: OwnedFd,
    tunnel: Option<TunnelEnds>,
}

impl SealedNetns {
    /// What encrypts between the containers of a job works with, where the namespace is sealed for that.
    pub fn tunnel(&self) -> Option<&TunnelEnds> {
        self.tunnel.as_ref()
    }

    /// Gives the ends of the tunnel that the namespace was sealed for.
    pub(crate) fn with_tunnel(mut self, ends: TunnelEnds) -> Self {
        self.tunnel = Some(ends);
        self
    }
}

impl From<SealedNetns> for OwnedFd {
    fn from(sealed: SealedNetns) -> Self {
        sealed.fd
    }
}

impl AsFd for SealedNetns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why a namespace was not handed out. Nothing of it is left (NET-73).
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The intent contradicts the host's network.
    #[error("the workload's network cannot be planned")]
    Plan(#[from] BadNetwork),
    /// The network that it attaches to does not stand.
    #[error("the network to attach to does not stand")]
    Platform(#[source] Box<crate::HostError>),
    /// The interface is not one of the VPC, or somebody else holds it.
    #[error("{0} is not an interface of this holder")]
    Interface(InterfaceId),
    /// The kernel gives no namespace.
    #[error("no network namespace could be made; the engine must run as root (CAP_SYS_ADMIN, CAP_NET_ADMIN)")]
    Namespace(#[source] io::Error),
    /// There is no tun device or socket for encrypted peers.
    #[error("peers cannot be encrypted; the host needs /dev/net/tun (the kernel module tun)")]
    Tunnel(#[source] io::Error),
    /// A step failed, or the kernel shows something else than what was asked for.
    #[error("the workload's namespace is not as planned")]
    Install(#[from] ApplyError),
}

/// How long the interface and address of a workload that is gone may be in the way: the kernel takes a namespace apart
/// some time after its last process ended.
const LEAVING: Duration = Duration::from_secs(2);

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Makes the namespace of a plan. `router` is needed when the plan attaches to one.
pub(crate) fn seal(plan: &WorkloadPlan, router: Option<&Arc<Handle>>) -> Result<SealedNetns, SealError> {
    while_leaving(|| seal_by(plan, router.cloned(), |host| host))
}

/// Tries again, for at most [`LEAVING`], while what the plan wants to make is there already. One that belongs to a living
/// workload stays there, and the last refusal is the answer.
pub(crate) fn while_leaving<R>(mut attempt: impl FnMut() -> Result<R, SealError>) -> Result<R, SealError> {
    let deadline = Instant::now() + LEAVING;
    loop {
        match attempt() {
            Err(SealError::Install(ApplyError::Refused { source, .. }))
                if source.kind() == io::ErrorKind::AlreadyExists && Instant::now() < deadline =>
            {
                thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// [`seal`] by a host that `wrap` made of the kernel's.
pub(crate) fn seal_by<H: NetHost>(
    plan: &WorkloadPlan,
    router: Option<Arc<Handle>>,
    wrap: impl FnOnce(KernelHost) -> H + Send,
) -> Result<SealedNetns, SealError> {
    let is_fresh = |place: &Place| matches!(place, Place::Workload | Place::Interface(_));
    let fresh = plan.places.keys().copied().find(is_fresh).unwrap_or(Place::Workload);
    let beside = plan.places.keys().copied().find(|place| *place != fresh);
    netns::within_fresh(|fd| {
        let own = fd.try_clone().map_err(SealError::Namespace)?;
        let handle = Arc::new(Handle::resident(own).map_err(SealError::Namespace)?);
        let places: BTreeMap<_, _> = [(fresh, handle)].into_iter().chain(beside.zip(router)).collect();
        let host = |places| KernelHost {
            places,
            ..KernelHost::default()
        };
        let undo = host(places.clone());
        match install(&mut wrap(host(places)), plan, fresh) {
            Ok(()) => Ok(SealedNetns { fd, tunnel: None }),
            Err(error) => {
                // The namespace's end takes its interfaces along, but some time later; the address must be free at once.
                leave_nothing(undo, fresh);
                Err(error.into())
            }
        }
    })
    .map_err(SealError::Namespace)?
}

/// Hands out a namespace that was sealed before, for a further container in it, once the kernel shows that it still is
/// what its plan says (CC-10, NET-73).
pub(crate) fn joined(netns: OwnedFd, plan: &WorkloadPlan) -> Result<SealedNetns, SealError> {
    let own = netns.try_clone().map_err(SealError::Namespace)?;
    let handle = Arc::new(Handle::open(own).map_err(SealError::Namespace)?);
    let is_inside = |place: &Place| matches!(place, Place::Workload | Place::Interface(_));
    let inside: BTreeMap<_, _> = plan
        .places
        .iter()
        .filter(|(place, _)| is_inside(place))
        .map(|(place, plan)| (*place, plan.clone()))
        .collect();
    let mut host = KernelHost {
        places: inside.keys().map(|place| (*place, Arc::clone(&handle))).collect(),
        ..KernelHost::default()
    };
    verify(&mut host, &inside)?;
    Ok(SealedNetns {
        fd: netns,
        tunnel: None,
    })
}

/// A fresh namespace is known, so it is not looked at before; what was made of it is.
fn install(host: &mut impl NetHost, plan: &WorkloadPlan, fresh: Place) -> Result<(), ApplyError> {
    let lo = LinkSeen {
        kind: KindSeen::Loopback,
        up: false,
        strict: false,
        mac: None,
        addresses: BTreeSet::new(),
    };
    let inside = NamespaceSeen {
        links: BTreeMap::from([(LinkName::lo(), lo)]),
        ..NamespaceSeen::default()
    };
    let mut places: BTreeMap<Place, NamespaceSeen> = plan
        .places
        .keys()
        .map(|place| (*place, NamespaceSeen::default()))
        .collect();
    places.insert(fresh, inside);
    host.apply(&diff(&HostSeen { places }, &plan.places))?;
    verify(host, &plan.places)
}

fn leave_nothing(mut host: KernelHost, fresh: Place) {
    // By its end inside: the name on the router's side may be another workload's, which is why this one failed.
    let step = Step::DeleteLink {
        place: fresh,
        link: LinkName::eth0(),
    };
    if let Err(error) = host.apply(&[step]) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "an interface of a refused namespace is left to the kernel"
        );
    }
}

#[cfg(test)]
mod tests;
