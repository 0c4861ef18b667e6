//! The seam to what the engine serves inside VPCs: the resolver, S3 for gateway endpoints, credentials.

use isolarium_model::Scope;
use isolarium_netplan::id::VpcId;
use isolarium_netplan::intent::vpc::CheckedVpc;
use isolarium_runtime::executor::ExecutorError;
use std::sync::Arc;

/// The engine's own listeners inside VPCs. Every call may be repeated, from several threads.
pub trait Doors: Send + Sync {
    /// The host has just applied this VPC of `scope`'s account and region: opens what it is to have, tells what is open of
    /// the change, closes what it has no more. When this returns, containers that are started next find everything open.
    ///
    /// # Errors
    /// When the host refuses a listener: the call is repeated, and no container is started in the VPC before it succeeds.
    fn open(&self, scope: &Scope, vpc: &Arc<CheckedVpc>) -> Result<(), ExecutorError>;

    /// The VPC is about to be removed from the host, or the host has lost it: closes everything.
    fn close(&self, vpc: VpcId);
}

/// Serves nothing: for hosts without VPCs.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDoors;

impl Doors for NoDoors {
    fn open(&self, _: &Scope, _: &Arc<CheckedVpc>) -> Result<(), ExecutorError> {
        Ok(())
    }

    fn close(&self, _: VpcId) {}
}
