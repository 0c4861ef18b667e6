//! Endpoints: the record with its fleets, and the lifecycle as one table (SM-22).

use super::async_inference::AsyncInference;
use super::data_capture::DataCapture;
use super::endpoint_config::ProductionVariant;
use super::failure::FailureReason;
use super::model::{ModelSpec, ResolvedImage};
use super::network::Placement;
use super::takeover::Takeover;
use super::{IllegalTransition, Tags};
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp, WorkloadId};
use serde::{Deserialize, Serialize};

/// `EndpointStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndpointStatus {
    Creating,
    InService,
    Updating,
    RollingBack,
    Failed,
    /// Neither the new fleet came up nor, in time, the old one again: what is healthy serves, the rest is tried on.
    UpdateRollbackFailed,
    Deleting,
}

/// What happens to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointEvent {
    /// Every instance of the wanted fleet answered its ping.
    FleetHealthy,
    /// The wanted fleet cannot come up: image, data, network or health.
    FleetFailed,
    /// What a failed update had started is gone again, and what it had taken down is back.
    RolledBack,
    /// UpdateEndpoint or UpdateEndpointWeightsAndCapacities.
    UpdateRequested,
    /// DeleteEndpoint.
    DeleteRequested,
}

impl EndpointStatus {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::InService => "InService",
            Self::Updating => "Updating",
            Self::RollingBack => "RollingBack",
            Self::Failed => "Failed",
            Self::UpdateRollbackFailed => "UpdateRollbackFailed",
            Self::Deleting => "Deleting",
        }
    }

    /// The lifecycle (SM-22, SM-26): every pair is written out.
    ///
    /// # Errors
    /// When the event cannot happen in this status.
    pub fn on(self, event: EndpointEvent) -> Result<Self, IllegalTransition> {
        use EndpointEvent as E;
        use EndpointStatus as S;
        match (self, event) {
            (S::Creating | S::Updating | S::UpdateRollbackFailed, E::FleetHealthy) => Ok(S::InService),
            (S::Creating, E::FleetFailed) => Ok(S::Failed),
            (S::Updating, E::FleetFailed) => Ok(S::RollingBack),
            (S::RollingBack, E::FleetFailed) => Ok(S::UpdateRollbackFailed),
            (S::RollingBack, E::RolledBack) => Ok(S::InService),
            (S::InService | S::UpdateRollbackFailed, E::UpdateRequested) => Ok(S::Updating),
            (S::InService | S::Failed | S::UpdateRollbackFailed, E::DeleteRequested) => Ok(S::Deleting),
            (S::InService | S::RollingBack | S::Failed | S::Deleting, E::FleetHealthy)
            | (S::InService | S::Failed | S::UpdateRollbackFailed | S::Deleting, E::FleetFailed)
            | (
                S::Creating | S::InService | S::Updating | S::Failed | S::UpdateRollbackFailed | S::Deleting,
                E::RolledBack,
            )
            | (S::Creating | S::Updating | S::RollingBack | S::Failed | S::Deleting, E::UpdateRequested)
            | (S::Creating | S::Updating | S::RollingBack | S::Deleting, E::DeleteRequested) => {
                Err(IllegalTransition {
                    from: self.as_str().into(),
                    event: format!("{event:?}"),
                })
            }
        }
    }

    /// Whether invocations may be routed.
    pub fn serves(self) -> bool {
        match self {
            Self::InService | Self::Updating | Self::RollingBack | Self::UpdateRollbackFailed => true,
            Self::Creating | Self::Failed | Self::Deleting => false,
        }
    }
}

/// One instance of a variant: one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `i-` and 17 hexadecimal digits; second half of the log stream's name (CC-90). Stays when the container is
    /// replaced.
    pub id: String,
    pub placement: Placement,
    /// The start-up deadline counts from here (CC-49); kept when a container that was never healthy is replaced.
    pub since: Timestamp,
    /// Not launched before this time: the back-off after a container died.
    pub not_before: Timestamp,
    /// It answered a ping since its launch.
    #[serde(default)]
    pub healthy: bool,
    /// Replacements since the last healthy spell: sets the back-off.
    #[serde(default)]
    pub restarts: u32,
    /// The containers behind the first one, in the model's order. They are in the network namespace of `placement` and go
    /// before it (CC-10).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<WorkloadId>,
}

impl Instance {
    /// Its containers in the model's order.
    pub fn workloads(&self) -> impl Iterator<Item = &WorkloadId> {
        std::iter::once(&self.placement.workload).chain(&self.others)
    }

    /// The same with where they are: all in one place.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        let attachment = &self.placement.attachment;
        self.workloads().map(|workload| Placement {
            workload: workload.clone(),
            attachment: attachment.clone(),
        })
    }
}

/// The instances of one variant with what they run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantFleet {
    pub variant: ProductionVariant,
    /// A copy, because models may be deleted while they serve (SM-19).
    pub model: ModelSpec,
    pub current_weight: f64,
    pub desired_weight: f64,
    pub desired_count: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ResolvedImage>,
    /// Images of the further containers, in the model's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_images: Vec<ResolvedImage>,
    pub instances: Vec<Instance>,
}

/// All variants of one configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    pub config_name: String,
    pub variants: Vec<VariantFleet>,
    /// What is kept of requests and answers (CC-60).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<DataCapture>,
    /// Requests are queued and answered in S3 (SM-55).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<AsyncInference>,
    /// When this fleet was asked for.
    pub started: Timestamp,
    /// How it takes the place of the fleet that serves. `None`: as soon as all of it is healthy beside that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<Takeover>,
}

impl Fleet {
    /// Every instance with its variant.
    pub fn instances(&self) -> impl Iterator<Item = (&VariantFleet, &Instance)> {
        self.variants
            .iter()
            .flat_map(|variant| variant.instances.iter().map(move |instance| (variant, instance)))
    }
}

/// An instance that serves no more and is being stopped (CC-54).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retiring {
    pub variant: String,
    pub instance: Instance,
    /// Names of its containers (CC-90); none where it has one alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The role whose permission its last log lines need (CC-91).
    pub role_arn: Arn,
    /// Traffic was withdrawn at this time.
    pub since: Timestamp,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// As the caller spelled it; InvokeEndpoint needs exactly this (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub modified: Timestamp,
    pub status: EndpointStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    /// The configuration that Describe shows: the serving fleet's, or the first one's (SM-23).
    pub config_name: String,
    /// The fleet that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<Fleet>,
    /// The fleet that is to replace it, or the first one while Creating.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Fleet>,
    /// Containers on their way out.
    #[serde(default)]
    pub retiring: Vec<Retiring>,
    /// `LastDeploymentConfig`, only if an update gave one (SM-74).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_deployment_config: Option<serde_json::Value>,
    pub tags: Tags,
}

impl Record for Endpoint {
    const KIND: &'static str = "sagemaker.endpoint";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.name.clone(),
            created: self.created,
            modified: self.modified,
            status: self.status.as_str().into(),
        }
    }
}

impl Endpoint {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The endpoint's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "endpoint", name)
    }

    /// Moves the endpoint along its lifecycle.
    ///
    /// # Errors
    /// When the lifecycle has no such step.
    pub fn apply(&mut self, event: EndpointEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        self.status = self.status.on(event)?;
        self.modified = now;
        Ok(())
    }

    /// The endpoint's log group (CC-90).
    pub fn log_group(&self) -> String {
        format!("/aws/sagemaker/Endpoints/{}", self.name)
    }

    /// Every placement the record knows: what gc must leave alone.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        let fleets = self.active.iter().chain(&self.pending);
        fleets
            .flat_map(|fleet| fleet.instances().map(|(_, instance)| instance))
            .chain(self.retiring.iter().map(|retiring| &retiring.instance))
            .flat_map(Instance::placements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EndpointEvent as E;
    use EndpointStatus as S;

    const ALL: [S; 7] = [
        S::Creating,
        S::InService,
        S::Updating,
        S::RollingBack,
        S::Failed,
        S::UpdateRollbackFailed,
        S::Deleting,
    ];

    /// Proves: SM-22
    #[test]
    fn an_endpoint_moves_only_along_its_table() {
        assert_eq!(S::Creating.on(E::FleetHealthy), Ok(S::InService));
        assert_eq!(S::Creating.on(E::FleetFailed), Ok(S::Failed));
        assert_eq!(S::InService.on(E::UpdateRequested), Ok(S::Updating));
        assert_eq!(S::Updating.on(E::FleetHealthy), Ok(S::InService));
        assert_eq!(S::Updating.on(E::FleetFailed), Ok(S::RollingBack));
        assert_eq!(S::RollingBack.on(E::RolledBack), Ok(S::InService));
        assert_eq!(S::RollingBack.on(E::FleetFailed), Ok(S::UpdateRollbackFailed));
        assert_eq!(S::UpdateRollbackFailed.on(E::FleetHealthy), Ok(S::InService));
        assert_eq!(S::UpdateRollbackFailed.on(E::UpdateRequested), Ok(S::Updating));
        for status in ALL {
            let deletable = matches!(status, S::InService | S::Failed | S::UpdateRollbackFailed);
            assert_eq!(status.on(E::DeleteRequested).is_ok(), deletable, "{status:?}");
        }
    }

    /// Proves: SM-26
    #[test]
    fn an_endpoint_in_progress_takes_neither_update_nor_delete() {
        for busy in [S::Creating, S::Updating, S::RollingBack, S::Deleting] {
            assert!(busy.on(E::UpdateRequested).is_err(), "{busy:?}");
            assert!(busy.on(E::DeleteRequested).is_err(), "{busy:?}");
        }
        assert!(S::InService.on(E::UpdateRequested).is_ok(), "control");
        assert!(S::InService.on(E::DeleteRequested).is_ok(), "control");
        assert!(
            S::Failed.on(E::UpdateRequested).is_err(),
            "a failed endpoint can only be deleted"
        );
    }
}
