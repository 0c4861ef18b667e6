//! Requests and answers. JSON, so that an operator can read a trace; every type checks itself while it is parsed.

use isolarium_model::sagemaker::network::Sight;
use isolarium_model::{Sha256Digest, WorkloadId};
use isolarium_netplan::id::{InterfaceId, VpcId};
use isolarium_netplan::intent::vpc::Vpc;
use isolarium_netplan::intent::{HostNetwork, ListenerSpec};
use isolarium_runtime::executor::{BlockedAttempt, LaunchSpec, LogChunk, Observed, PackFormat, Packed, VolumeSpec};
use isolarium_runtime::vpcs::{Destination, Door, Flows, VpcSeen};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Version of the messages. Both halves are one binary; a mismatch means that one of them was not restarted.
pub const PROTOCOL: u32 = 1;

/// What `serve` may ask. `+fd` marks requests that carry a descriptor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// First message of every connection.
    Hello {
        protocol: u32,
    },
    /// Keeps the connection open and says nothing more: its end tells the asker that this process died.
    Lifeline,
    /// Brings the shared network in line with the intent.
    EnsureNetwork {
        network: HostNetwork,
    },
    /// Opens a listener inside the platform namespace; the answer carries it.
    Listen {
        listener: ListenerSpec,
    },
    /// Writes the file of the root keys for the person who started the engine (mode 0600).
    WriteCredentials {
        text: String,
    },
    Prepare {
        workload: WorkloadId,
    },
    /// +fd: the key, which stands in no message.
    MakeVolume {
        workload: WorkloadId,
        volume: VolumeSpec,
    },
    /// The answer carries the directory.
    OpenVolume {
        workload: WorkloadId,
    },
    CloseVolume {
        workload: WorkloadId,
    },
    Launch {
        spec: Box<LaunchSpec>,
    },
    Release {
        workload: WorkloadId,
    },
    Observe,
    ObserveOne {
        workload: WorkloadId,
    },
    Terminate {
        workload: WorkloadId,
        kill: bool,
    },
    Remove {
        workload: WorkloadId,
    },
    Changed {
        timeout_ms: u64,
    },
    ReadLog {
        workload: WorkloadId,
        offset: u64,
        max_bytes: usize,
    },
    /// +fd: the layer blob.
    UnpackLayer {
        diff_id: Sha256Digest,
    },
    /// +fd: the archive.
    UnpackArchive {
        workload: WorkloadId,
        scratch: String,
        limit_ms: Option<u64>,
    },
    /// +fd: the archive.
    UnpackModel {
        workload: WorkloadId,
        scratch: String,
        folder: String,
        limit_ms: Option<u64>,
    },
    RemoveModel {
        workload: WorkloadId,
        scratch: String,
        folder: String,
    },
    /// +fd: where the archive goes.
    Pack {
        workload: WorkloadId,
        scratch: String,
        format: PackFormat,
    },
    ReadFile {
        workload: WorkloadId,
        scratch: String,
        path: String,
        max: usize,
    },
    /// The answer carries the connection.
    Dial {
        workload: WorkloadId,
        port: u16,
        timeout_ms: u64,
    },
    Attempts {
        workload: WorkloadId,
    },
    Sight {
        workload: WorkloadId,
    },
    /// See [`Vpcs`](isolarium_runtime::Vpcs) for this and the following ones.
    ApplyVpc {
        vpc: Box<Vpc>,
    },
    CompareVpc {
        vpc: Box<Vpc>,
    },
    SetPeers {
        groups: BTreeSet<BTreeSet<Ipv4Addr>>,
    },
    RemoveVpc {
        vpc: VpcId,
    },
    ListVpcs,
    /// The answer carries the socket.
    ListenVpc {
        vpc: VpcId,
        door: Door,
    },
    AttachInterface {
        vpc: VpcId,
        interface: InterfaceId,
    },
    DetachInterface {
        vpc: VpcId,
        interface: InterfaceId,
    },
    /// The answer carries the connection.
    DialFrom {
        vpc: VpcId,
        interface: InterfaceId,
        to: Destination,
        timeout_ms: u64,
    },
    ReadFlows {
        vpc: VpcId,
        since: u64,
        timeout_ms: u64,
    },
}

/// What `node` answers. `+fd` marks answers that carry a descriptor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    Done,
    /// +fd
    Descriptor,
    Observed {
        all: Vec<Observed>,
    },
    One {
        observed: Observed,
    },
    Log {
        chunk: LogChunk,
    },
    Packed {
        packed: Packed,
    },
    /// Base64 is avoided: files read this way are small texts; bytes as numbers would be large, so hexadecimal.
    File {
        hex: Option<String>,
    },
    Attempts {
        attempts: Vec<BlockedAttempt>,
    },
    Sight {
        sight: Sight,
    },
    Vpcs {
        all: Vec<VpcSeen>,
    },
    Differences {
        differences: Vec<String>,
    },
    Flows {
        flows: Flows,
    },
    Failed {
        failure: Failure,
    },
}

/// An executor error in transit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "failure", content = "text", rename_all = "snake_case")]
pub enum Failure {
    Seal(String),
    Unstartable(String),
    Unknown,
    Refused(String),
    Host(String),
    Busy(String),
}

impl From<isolarium_runtime::executor::ExecutorError> for Failure {
    fn from(error: isolarium_runtime::executor::ExecutorError) -> Self {
        use isolarium_runtime::executor::ExecutorError as E;
        match error {
            E::Seal(text) => Self::Seal(text),
            E::Unstartable(text) => Self::Unstartable(text),
            E::Unknown => Self::Unknown,
            E::Refused(text) => Self::Refused(text),
            E::Busy(text) => Self::Busy(text),
            E::Host(text) | E::Unreachable(text) => Self::Host(text),
        }
    }
}

impl From<Failure> for isolarium_runtime::executor::ExecutorError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Seal(text) => Self::Seal(text),
            Failure::Unstartable(text) => Self::Unstartable(text),
            Failure::Unknown => Self::Unknown,
            Failure::Refused(text) => Self::Refused(text),
            Failure::Busy(text) => Self::Busy(text),
            Failure::Host(text) => Self::Host(text),
        }
    }
}
