//! Namespaces proven to reach no more than their plan says.

use crate::kernel::KernelHost;
use crate::kernel::handle::Handle;
use crate::kernel::netns;
use crate::net_host::{ApplyError, NetHost, verify};
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
    /// The platform network does not stand, so nothing may be attached to it.
    #[error("the platform network does not stand")]
    Platform(#[source] Box<crate::HostError>),
    /// The kernel gives no namespace.
    #[error("no network namespace could be made; the engine must run as root (CAP_SYS_ADMIN, CAP_NET_ADMIN)")]
    Namespace(#[source] io::Error),
    /// A step failed, or the kernel shows something else than what was asked for.
    #[error("the workload's namespace is not as planned")]
    Install(#[from] ApplyError),
}

/// How long the interface and address of a workload that is gone may be in the way: the kernel takes a namespace apart
/// some time after its last process ended.
const LEAVING: Duration = Duration::from_secs(2);

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Makes the namespace of a plan. `platform` is needed when the plan attaches to it.
pub(crate) fn seal(plan: &WorkloadPlan, platform: Option<&Arc<Handle>>) -> Result<SealedNetns, SealError> {
    while_leaving(|| seal_by(plan, platform.cloned(), |host| host))
}

/// Tries again, for at most [`LEAVING`], while what the plan wants to make is there already. One that belongs to a living
/// workload stays there, and the last refusal is the answer.
fn while_leaving<R>(mut attempt: impl FnMut() -> Result<R, SealError>) -> Result<R, SealError> {
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
fn seal_by<H: NetHost>(
    plan: &WorkloadPlan,
    platform: Option<Arc<Handle>>,
    wrap: impl FnOnce(KernelHost) -> H + Send,
) -> Result<SealedNetns, SealError> {
    netns::within_fresh(|fd| {
        let own = fd.try_clone().map_err(SealError::Namespace)?;
        let handle = Arc::new(Handle::resident(own).map_err(SealError::Namespace)?);
        let places = BTreeMap::from([(Place::Workload, handle)]);
        let places: BTreeMap<_, _> = places
            .into_iter()
            .chain(platform.map(|handle| (Place::Platform, handle)))
            .collect();
        let undo = KernelHost { places: places.clone() };
        match install(&mut wrap(KernelHost { places }), plan) {
            Ok(()) => Ok(SealedNetns { fd }),
            Err(error) => {
                // The namespace's end takes its interfaces along, but some time later; the address must be free at once.
                leave_nothing(undo);
                Err(error.into())
            }
        }
    })
    .map_err(SealError::Namespace)?
}

/// A fresh namespace is known, so it is not looked at before; what was made of it is.
fn install(host: &mut impl NetHost, plan: &WorkloadPlan) -> Result<(), ApplyError> {
    let lo = LinkSeen {
        kind: KindSeen::Loopback,
        up: false,
        mac: None,
        addresses: BTreeSet::new(),
    };
    let fresh = NamespaceSeen {
        links: BTreeMap::from([(LinkName::lo(), lo)]),
        ..NamespaceSeen::default()
    };
    let places = BTreeMap::from([(Place::Workload, fresh), (Place::Platform, NamespaceSeen::default())]);
    host.apply(&diff(&HostSeen { places }, &plan.places))?;
    verify(host, &plan.places)
}

fn leave_nothing(mut host: KernelHost) {
    // By its end inside: the name on the platform's side may be another workload's, which is why this one failed.
    let step = Step::DeleteLink {
        place: Place::Workload,
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
