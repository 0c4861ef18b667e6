//! Data, images and logs as the loops need them. The implementation acts as the execution role and asks the policy
//! engine for every single access (NI-12..14, IAM-52).

use isolarium_model::ec2::id::{InterfaceId, VpcId};
use isolarium_model::metrics::Sample;
use isolarium_model::sagemaker::S3Uri;
use isolarium_model::sagemaker::volume::SealedVolumeKey;
use isolarium_model::{Arn, Scope, Sha256Digest, WorkloadId};
use isolarium_runtime::executor::{LogLine, VolumeKey};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

/// For whom the platform acts: the execution role of one job or endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Account and region of the job or endpoint.
    pub scope: Scope,
    pub role_arn: Arn,
    /// The job or endpoint: the session's `aws:SourceArn`.
    pub owner_arn: Arn,
    /// How objects travel: inside the engine, or through the caller's VPC (NI-18).
    pub via: Option<Via>,
    /// The key of the key store under which everything it stores is encrypted (CC-36); `None`: as the bucket does.
    pub kms_key: Option<String>,
    /// The workload on whose encrypted volume, and nowhere else, plain copies of objects may come into being; `None`: anywhere.
    pub copies: Option<WorkloadId>,
}

/// A new data key of a storage volume, and what is kept of it.
#[derive(Debug)]
pub struct NewVolumeKey {
    pub key: VolumeKey,
    pub sealed: SealedVolumeKey,
}

/// The transfer interface through which the bytes of a workload in a VPC travel (NET-66).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Via {
    pub vpc: VpcId,
    pub interface: InterfaceId,
}

/// An image as it is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The manifest's digest.
    pub digest: Sha256Digest,
    /// Lowest first.
    pub layers: Vec<Layer>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Empty means `/`.
    pub workdir: String,
    pub user: String,
    pub labels: BTreeMap<String, String>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layer {
    /// Digest of the unpacked tar: the name under which the layer is unpacked once.
    pub diff_id: Sha256Digest,
    /// Digest of the blob in the registry.
    pub blob: Sha256Digest,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEntry {
    pub key: String,
    pub bytes: u64,
}

/// Why data, an image or a log line did not move. `Display` is what FailureReason repeats, but for `Engine`, whose
/// cause is for the log alone.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The execution role may not. The text is IAM-60's and names the denied action.
    #[error("{0}")]
    Denied(String),
    /// No such bucket, object, repository or image; or data in a form that cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The role is gone or does not trust the platform any more (IAM-52).
    #[error("{0}")]
    Role(String),
    /// S3 cannot be reached from the subnet: SM-64's text, with the setting that stands in the way where it is known.
    #[error("{0}")]
    NoPath(String),
    /// Whoever asked for it is to stop, or has no time left ([`crate::Cut`]): the same call is not worth another try before
    /// the record was looked at.
    #[error("the transfer was ended because nobody waits for it any more")]
    Cut,
    /// The privileged process is away; the same call may work when it is back.
    #[error("the node process is not reachable: {0}")]
    Away(String),
    /// The engine's own fault.
    #[error("the data could not be moved")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Moves data for an execution role. All calls block and may be repeated safely.
pub trait Transfer: Send + Sync {
    /// What a reference means now, if the role may pull it (CC-1, CC-11).
    fn resolve_image(&self, actor: &Actor, reference: &str) -> Result<Image, TransferError>;
    /// A layer's blob.
    fn open_layer(&self, layer: &Layer) -> Result<OwnedFd, TransferError>;
    /// Whether the role may do this at EC2, such as `CreateNetworkInterface`, now (NET-66, IAM-55). No resources mean
    /// `*`. What it may not is in the audit trail, and so is what it did.
    fn may_at_ec2(&self, actor: &Actor, action: &'static str, resources: &[Arn]) -> Result<(), TransferError>;
    /// The interface is about to go: what is kept open from it is closed.
    fn leave(&self, via: Via);
    /// Every object whose key begins with the prefix, sorted by key (`s3:ListBucket`).
    fn list(&self, actor: &Actor, prefix: &S3Uri) -> Result<Vec<ObjectEntry>, TransferError>;
    /// A small object's bytes; refused above `max` (`s3:GetObject`).
    fn read(&self, actor: &Actor, object: &S3Uri, max: usize) -> Result<Vec<u8>, TransferError>;
    /// An object's bytes as a file (`s3:GetObject`).
    fn open(&self, actor: &Actor, object: &S3Uri) -> Result<OwnedFd, TransferError>;
    /// Shows an object at `to` without copying it, unless it lies encrypted (`s3:GetObject`); `to` does not exist, its directory does.
    /// Where copies may not lie anywhere and the object must be copied, because it is encrypted or comes through a subnet,
    /// nothing is done: `false`.
    fn link(&self, actor: &Actor, object: &S3Uri, to: &Path) -> Result<bool, TransferError>;
    /// Copies an object's plain bytes to the new file `to` (`s3:GetObject`).
    fn copy(&self, actor: &Actor, object: &S3Uri, to: &Path) -> Result<(), TransferError>;
    /// A new data key for a storage volume under a key of the key store, by a grant of the role's (`kms:CreateGrant`).
    fn volume_key(&self, actor: &Actor, key: &str) -> Result<NewVolumeKey, TransferError>;
    /// Opens the data key of a volume that lasts, by that grant.
    fn open_volume_key(&self, actor: &Actor, sealed: &SealedVolumeKey) -> Result<VolumeKey, TransferError>;
    /// Stores a file as an object (`s3:PutObject`), under the actor's key if it has one; the file may be moved away.
    fn put(&self, actor: &Actor, object: &S3Uri, from: &Path) -> Result<(), TransferError>;
    /// Deletes an object (`s3:DeleteObject`); not an error when it is gone.
    fn delete(&self, actor: &Actor, object: &S3Uri) -> Result<(), TransferError>;
    /// Appends what was read from a source between two of its offsets, exactly once: when the source is not at `from`,
    /// nothing is appended. Either way the answer is the offset from which the source is to be read next. Group and
    /// stream are made where they are missing, with the role's permission (CC-90, CC-91).
    fn append_log(&self, actor: &Actor, group: &str, stream: &str, piece: &LogPiece<'_>) -> Result<u64, TransferError>;
    /// Puts metrics of a job, all of one namespace (`cloudwatch:PutMetricData`).
    fn put_metrics(&self, actor: &Actor, namespace: &str, samples: Vec<Sample>) -> Result<(), TransferError>;
    /// Every source of which an offset is kept.
    fn log_sources(&self) -> Result<Vec<String>, TransferError>;
    /// The sources of a workload will not be read again.
    fn forget_log(&self, source: &str) -> Result<(), TransferError>;
}

/// Lines of one source between two offsets.
#[derive(Clone, Copy, Debug)]
pub struct LogPiece<'a> {
    /// Names the source; never used twice.
    pub source: &'a str,
    /// Offset of the first line in its source.
    pub from: u64,
    /// Offset behind the last line.
    pub next: u64,
    pub lines: &'a [LogLine],
}
