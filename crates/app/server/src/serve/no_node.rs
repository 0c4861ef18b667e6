//! A machine without a node process: the API works, workloads do not.

use isolarium_model::sagemaker::network::Sight;
use isolarium_model::{Sha256Digest, WorkloadId};
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::Vpc;
use isolarium_netplan::intent::{HostNetwork, ListenerSpec};
use isolarium_node::{Network, NodeHost};
use isolarium_runtime::executor::{
    Archives, BlockedAttempt, Dial, EgressReport, Executor, ExecutorError, LaunchSpec, LogChunk, Observed, PackFormat,
    Packed, VolumeKey, VolumeSpec,
};
use isolarium_runtime::vpcs::{Destination, Door, Flows, VpcSeen, Vpcs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Refuses everything that needs privilege, saying what the operator should do.
#[derive(Clone, Debug)]
pub struct NoNode {
    credentials: PathBuf,
}

impl NoNode {
    /// For a data directory that the starter owns.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            credentials: data_dir.join("credentials"),
        }
    }
}

fn refused<T>() -> Result<T, ExecutorError> {
    Err(ExecutorError::Host(
        "this server runs without a node process and cannot run containers; start it as root".into(),
    ))
}

impl Executor for NoNode {
    fn launch(&self, _: &LaunchSpec) -> Result<(), ExecutorError> {
        refused()
    }
    fn release(&self, _: &WorkloadId) -> Result<(), ExecutorError> {
        Ok(())
    }
    fn observe(&self) -> Result<Vec<Observed>, ExecutorError> {
        Ok(Vec::new())
    }
    fn observe_one(&self, _: &WorkloadId) -> Result<Observed, ExecutorError> {
        Err(ExecutorError::Unknown)
    }
    fn terminate(&self, _: &WorkloadId, _: bool) -> Result<(), ExecutorError> {
        Ok(())
    }
    fn remove(&self, _: &WorkloadId) -> Result<(), ExecutorError> {
        Ok(())
    }
    fn changed(&self, timeout: Duration) -> Result<(), ExecutorError> {
        std::thread::sleep(timeout);
        Ok(())
    }
    fn read_log(&self, _: &WorkloadId, _: u64, _: usize) -> Result<LogChunk, ExecutorError> {
        Err(ExecutorError::Unknown)
    }
    fn prepare(&self, _: &WorkloadId) -> Result<(), ExecutorError> {
        refused()
    }
    fn make_volume(&self, _: &WorkloadId, _: &VolumeSpec, _: &VolumeKey) -> Result<(), ExecutorError> {
        refused()
    }
    fn open_volume(&self, _: &WorkloadId) -> Result<OwnedFd, ExecutorError> {
        Err(ExecutorError::Unknown)
    }
    fn close_volume(&self, _: &WorkloadId) -> Result<(), ExecutorError> {
        Ok(())
    }
}

impl Archives for NoNode {
    fn unpack_layer(&self, _: OwnedFd, _: &Sha256Digest) -> Result<(), ExecutorError> {
        refused()
    }
    fn unpack_archive(&self, _: OwnedFd, _: &WorkloadId, _: &str, _: Option<Duration>) -> Result<(), ExecutorError> {
        refused()
    }
    fn unpack_model(
        &self,
        _: OwnedFd,
        _: &WorkloadId,
        _: &str,
        _: &str,
        _: Option<Duration>,
    ) -> Result<(), ExecutorError> {
        refused()
    }
    fn remove_model(&self, _: &WorkloadId, _: &str, _: &str) -> Result<(), ExecutorError> {
        refused()
    }
    fn pack(&self, _: &WorkloadId, _: &str, _: PackFormat, _: OwnedFd) -> Result<Packed, ExecutorError> {
        refused()
    }
    fn read_file(&self, _: &WorkloadId, _: &str, _: &str, _: usize) -> Result<Option<Vec<u8>>, ExecutorError> {
        refused()
    }
}

impl Dial for NoNode {
    fn dial(&self, _: &WorkloadId, _: u16, _: Duration) -> Result<OwnedFd, ExecutorError> {
        refused()
    }
}

impl EgressReport for NoNode {
    fn attempts(&self, _: &WorkloadId) -> Result<Vec<BlockedAttempt>, ExecutorError> {
        Ok(Vec::new())
    }
    fn sight(&self, _: &WorkloadId) -> Result<Sight, ExecutorError> {
        refused()
    }
}

impl Network for NoNode {
    fn ensure_network(&self, _: &HostNetwork) -> Result<(), ExecutorError> {
        refused()
    }
    fn listen(&self, _: &ListenerSpec) -> Result<OwnedFd, ExecutorError> {
        refused()
    }
}

impl NodeHost for NoNode {
    fn write_credentials(&self, text: &str) -> Result<(), ExecutorError> {
        crate::layout::write_whole(&self.credentials, text.as_bytes(), 0o600)
            .map_err(|error| ExecutorError::Host(format!("cannot write {}: {error}", self.credentials.display())))
    }
}

impl Vpcs for NoNode {
    fn set_peers(
        &self,
        _: &std::collections::BTreeSet<std::collections::BTreeSet<std::net::Ipv4Addr>>,
    ) -> Result<(), ExecutorError> {
        Ok(())
    }
    fn apply_vpc(&self, _: &Vpc) -> Result<(), ExecutorError> {
        refused()
    }
    fn compare_vpc(&self, _: &Vpc) -> Result<Vec<String>, ExecutorError> {
        refused()
    }
    fn remove_vpc(&self, _: VpcId) -> Result<(), ExecutorError> {
        refused()
    }
    fn list_vpcs(&self) -> Result<Vec<VpcSeen>, ExecutorError> {
        Ok(Vec::new())
    }
    fn listen_vpc(&self, _: VpcId, _: Door) -> Result<OwnedFd, ExecutorError> {
        refused()
    }
    fn attach_interface(&self, _: VpcId, _: InterfaceId) -> Result<(), ExecutorError> {
        refused()
    }
    fn detach_interface(&self, _: VpcId, _: InterfaceId) -> Result<(), ExecutorError> {
        refused()
    }
    fn dial_from(&self, _: VpcId, _: InterfaceId, _: Destination, _: Duration) -> Result<OwnedFd, ExecutorError> {
        refused()
    }
    fn read_flows(&self, _: VpcId, _: u64, _: Duration) -> Result<Flows, ExecutorError> {
        refused()
    }
}
