//! The seam between plans and kernels.

use isolarium_netplan::plan::{HostSeen, NamespacePlan, Place};
use isolarium_netplan::{Step, diff};
use std::collections::BTreeMap;
use std::io;

/// A machine whose network can be looked at and changed.
pub trait NetHost {
    /// What is there now of what the plan talks about.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn observe(&mut self, plan: &BTreeMap<Place, NamespacePlan>) -> Result<HostSeen, ObserveError>;

    /// Takes the steps in order and stops at the first that fails. What was done stays done.
    ///
    /// # Errors
    /// See [`ApplyError`].
    fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError>;
}

/// The kernel could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{what} of {place} cannot be read")]
pub struct ObserveError {
    /// What was asked for.
    pub what: &'static str,
    /// Where.
    pub place: Place,
    /// The kernel's or nft's answer.
    #[source]
    pub source: io::Error,
}

/// The network is not as planned. Every cause leaves the deny rules that stood standing.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A step failed.
    #[error("could not {step}")]
    Refused {
        /// What was tried.
        step: Box<Step>,
        /// The kernel's or nft's answer.
        #[source]
        source: io::Error,
    },
    /// Something is there that no plan made.
    #[error(
        "{what} in {place} was not made by this engine and is refused; remove it (a tunnel's fallback interface goes \
         away with `sysctl net.core.fb_tunnels_only_for_init_net=1` set before the engine starts)"
    )]
    Foreign {
        /// What it is.
        what: String,
        /// Where it is.
        place: Place,
    },
    /// The kernel accepted every step and still shows something else.
    #[error("the kernel does not hold what it accepted: {} still to do, first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Drift(Vec<Step>),
    /// The kernel could not be asked.
    #[error("the network cannot be observed")]
    Observe(#[from] ObserveError),
}

impl ApplyError {
    /// See [`crate::HostError::is_passing`]: something else changed meanwhile, is going away, or the kernel was short of
    /// memory or buffers.
    pub fn is_passing(&self) -> bool {
        let passing = |source: &io::Error| {
            use crate::kernel::netlink::errno;
            let code = errno(source);
            matches!(
                code,
                Some(
                    libc::EEXIST
                        | libc::EAGAIN
                        | libc::EBUSY
                        | libc::EINTR
                        | libc::ENOMEM
                        | libc::ENOBUFS
                        | libc::ERESTART
                )
            ) || crate::kernel::route::is_absent(source)
        };
        match self {
            Self::Drift(_) => true,
            Self::Refused { source, .. } => passing(source),
            Self::Observe(error) => passing(&error.source),
            Self::Foreign { .. } => false,
        }
    }
}

/// Makes the machine hold the plan, and believes what the kernel shows afterwards, not what it answered (style rule 4).
///
/// # Errors
/// See [`ApplyError`].
pub fn converge(host: &mut impl NetHost, plan: &BTreeMap<Place, NamespacePlan>) -> Result<(), ApplyError> {
    let steps = diff(&host.observe(plan)?, plan);
    if steps.is_empty() {
        return Ok(());
    }
    host.apply(&steps)?;
    verify(host, plan)
}

/// Reads everything back and compares it with the plan.
pub(crate) fn verify(host: &mut impl NetHost, plan: &BTreeMap<Place, NamespacePlan>) -> Result<(), ApplyError> {
    let left = diff(&host.observe(plan)?, plan);
    if let Some(Step::Refuse { place, what }) = left.first() {
        return Err(ApplyError::Foreign {
            what: what.clone(),
            place: *place,
        });
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(ApplyError::Drift(left))
    }
}
