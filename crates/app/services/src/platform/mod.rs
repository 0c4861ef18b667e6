//! The platform acting for an execution role: transfers, image pulls, log writes (IAM-52, NI-12).

pub mod acts;
pub mod flow_logs;
pub mod image_aliases;
pub mod managed_images;
pub mod notebooks;
pub mod roles;

#[cfg(test)]
pub(crate) mod fake;

use crate::ec2::Ec2Settings;
use isolarium_model::sagemaker::{InstanceTable, S3Uri};
use isolarium_model::{Arn, Scope};
use managed_images::ManagedImages;
use notebooks::NotebookSettings;

/// For whom the platform acts: the execution role of one job, model or endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Account and region of the job or endpoint.
    pub scope: Scope,
    pub role_arn: Arn,
    /// The job or endpoint: `aws:SourceArn` when the role is assumed (IAM-50).
    pub owner_arn: Arn,
}

/// Why the platform could not do something as a role. `Display` is what callers may read, but for `Engine`.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The role is missing or does not trust `sagemaker.amazonaws.com` (SM-60).
    #[error(
        "Could not assume role {0}. Please ensure that the role exists and allows principal \
         'sagemaker.amazonaws.com' to assume the role."
    )]
    Role(Arn),
    /// The role may not: IAM-60's text, which names the action.
    #[error("{0}")]
    Denied(String),
    /// No such bucket, object, repository or image, or a form that cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The engine's own fault.
    #[error("the platform failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What creation checks need of the operator's configuration.
#[derive(Clone, Debug)]
pub struct PlatformSettings {
    /// Images that need S3 at run time and cannot be isolated (NI-20, CC-12).
    pub managed_images: ManagedImages,
    /// Local images that stand for managed ones (CC-11).
    pub image_aliases: image_aliases::ImageAliases,
    /// Addresses of containers with a way out come from here.
    pub platform_network: ipnet::Ipv4Net,
    /// Training instances an account may run at once per type; `None` means no limit (SM-60, quota).
    pub training_instances: Option<u32>,
    /// What instance types stand for (CC-7).
    pub instances: InstanceTable,
    /// Networks: regions, zones, public addresses, quotas (NET-30, NET-86).
    pub ec2: Ec2Settings,
    /// Notebook instances (SM-46).
    pub notebooks: NotebookSettings,
    /// Updates of endpoints take down what serves before the new fleet starts (AU-28).
    pub in_place: bool,
}

impl Default for PlatformSettings {
    fn default() -> Self {
        Self {
            managed_images: ManagedImages::default(),
            image_aliases: image_aliases::ImageAliases::default(),
            platform_network: ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(100, 64, 0, 0), 16),
            training_instances: None,
            instances: InstanceTable::default(),
            ec2: Ec2Settings::default(),
            notebooks: NotebookSettings::default(),
            in_place: false,
        }
    }
}

/// What an execution role may do and see, asked before a job or model is accepted (SM-17).
pub trait AsRole: Send + Sync {
    /// The operator's choices.
    fn settings(&self) -> &PlatformSettings;

    /// Whether the role can be assumed (IAM-50).
    ///
    /// # Errors
    /// `Role` when it cannot.
    fn assume(&self, actor: &Actor) -> Result<(), PlatformError>;

    /// Whether the role may attach to a VPC: the actions that the platform needs of EC2 (NET-61, IAM-55, BT-6).
    ///
    /// # Errors
    /// `Role`; `Denied` with the first action that the role lacks.
    fn check_network(&self, actor: &Actor) -> Result<(), PlatformError>;

    /// Whether the image exists and the role may pull it (CC-11).
    ///
    /// # Errors
    /// `Denied`, `Unusable`.
    fn check_image(&self, actor: &Actor, reference: &str) -> Result<(), PlatformError>;

    /// Whether any object's key begins with the prefix.
    ///
    /// # Errors
    /// `Denied`; `Unusable` when there is no such bucket.
    fn any_object(&self, actor: &Actor, prefix: &S3Uri) -> Result<bool, PlatformError>;

    /// Whether the object exists and the role may read it.
    ///
    /// # Errors
    /// `Denied`, `Unusable`.
    fn check_object(&self, actor: &Actor, object: &S3Uri) -> Result<(), PlatformError>;

    /// Whether a key of the key store, as a request names it, could be used now: it is another account's, or there and
    /// enabled. Whether a role may use it shows when it does (CC-36).
    ///
    /// # Errors
    /// `Unusable` in the key store's words.
    fn check_key(&self, scope: &Scope, key: &str) -> Result<(), PlatformError>;

    /// Whether there is a bucket of that name, whoever's it is (NET-55).
    ///
    /// # Errors
    /// `Engine`.
    fn has_bucket(&self, name: &str) -> Result<bool, PlatformError>;
}
