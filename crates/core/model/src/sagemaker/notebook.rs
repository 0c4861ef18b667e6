//! Notebook instances and their lifecycle configurations: records and lifecycle (SM-46).

use super::failure::FailureReason;
use super::network::{JobNetwork, Placement};
use super::{IllegalTransition, Tags};
use crate::record::Facets;
use crate::{Arn, Key, Record, Scope, Timestamp, WorkloadId};
use serde::{Deserialize, Serialize};

/// `NotebookInstanceStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NotebookStatus {
    Pending,
    InService,
    Stopping,
    Stopped,
    Failed,
    Deleting,
    Updating,
}

/// What happens to a notebook instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotebookEvent {
    /// Its scripts have run and its server answers.
    Ready,
    /// It will not come up, or its container has ended.
    Broke,
    /// StartNotebookInstance.
    StartRequested,
    /// StopNotebookInstance.
    StopRequested,
    /// Its container is gone after that.
    StopFinished,
    /// UpdateNotebookInstance.
    UpdateRequested,
    /// Nothing of the former settings is on the host any more.
    UpdateFinished,
    /// DeleteNotebookInstance.
    DeleteRequested,
}

impl NotebookStatus {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InService => "InService",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
            Self::Failed => "Failed",
            Self::Deleting => "Deleting",
            Self::Updating => "Updating",
        }
    }

    /// The lifecycle (SM-46): every pair is written out.
    ///
    /// # Errors
    /// When the event cannot happen in this status.
    pub fn on(self, event: NotebookEvent) -> Result<Self, IllegalTransition> {
        use NotebookEvent as E;
        use NotebookStatus as S;
        match (self, event) {
            (S::Pending, E::Ready) => Ok(S::InService),
            (S::Pending | S::InService, E::Broke) => Ok(S::Failed),
            (S::Stopped | S::Failed, E::StartRequested) => Ok(S::Pending),
            (S::InService, E::StopRequested) => Ok(S::Stopping),
            (S::Stopping, E::StopFinished) | (S::Updating, E::UpdateFinished) => Ok(S::Stopped),
            (S::Stopped | S::Failed, E::UpdateRequested) => Ok(S::Updating),
            (S::Stopped | S::Failed, E::DeleteRequested) => Ok(S::Deleting),
            (
                S::Pending,
                E::StartRequested
                | E::StopRequested
                | E::StopFinished
                | E::UpdateRequested
                | E::UpdateFinished
                | E::DeleteRequested,
            )
            | (
                S::InService,
                E::Ready
                | E::StartRequested
                | E::StopFinished
                | E::UpdateRequested
                | E::UpdateFinished
                | E::DeleteRequested,
            )
            | (
                S::Stopping,
                E::Ready
                | E::Broke
                | E::StartRequested
                | E::StopRequested
                | E::UpdateRequested
                | E::UpdateFinished
                | E::DeleteRequested,
            )
            | (S::Stopped | S::Failed, E::Ready | E::Broke | E::StopRequested | E::StopFinished | E::UpdateFinished)
            | (
                S::Updating,
                E::Ready
                | E::Broke
                | E::StartRequested
                | E::StopRequested
                | E::StopFinished
                | E::UpdateRequested
                | E::DeleteRequested,
            )
            | (S::Deleting, _) => Err(IllegalTransition {
                from: self.as_str().into(),
                event: format!("{event:?}"),
            }),
        }
    }
}

/// Everything the engine acts on, as accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotebookSpec {
    pub instance_type: String,
    pub role_arn: Arn,
    /// The platform network with `DirectInternetAccess` Enabled, the VPC's interface alone with Disabled.
    pub network: JobNetwork,
    /// `RootAccess`: whether the container's user is its root. Lifecycle scripts run as root either way.
    pub root_access: bool,
    /// `VolumeSizeInGB`, 5..=16384. Shown, not enforced.
    pub volume_gb: u32,
    /// `PlatformIdentifier`, as given or the default.
    pub platform: String,
    /// Looked up at each start, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle_config: Option<String>,
    /// `MinimumInstanceMetadataServiceVersion`: shown; there is no such service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_version: Option<String>,
}

/// What has happened so far; survives restarts of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotebookRun {
    /// Since when it is to run, or is to stop.
    pub since: Timestamp,
    /// Whose directory holds the home volume; nothing of that name is ever launched. None before the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<WorkloadId>,
    /// The container; none while it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The container was launched, or may have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched: Option<Timestamp>,
    /// A container that failed and is to be removed, before another one gets the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Placement>,
    /// The OnCreate script has run, or there was none: it never runs again.
    #[serde(default)]
    pub created: bool,
}

impl NotebookRun {
    /// Of an instance that is to run since `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            volume: None,
            placement: None,
            launched: None,
            leaving: None,
            created: false,
        }
    }
}

/// A notebook instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotebookInstance {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub modified: Timestamp,
    pub status: NotebookStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<FailureReason>,
    pub spec: NotebookSpec,
    pub run: NotebookRun,
    pub tags: Tags,
}

impl Record for NotebookInstance {
    const KIND: &'static str = "sagemaker.notebook_instance";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.name.clone(),
            created: self.created,
            modified: self.modified,
            status: self.status.as_str().into(),
        }
    }
}

impl NotebookInstance {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The instance's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "notebook-instance", name)
    }

    /// Moves the instance along its lifecycle.
    ///
    /// # Errors
    /// When the lifecycle has no such step.
    pub fn apply(&mut self, event: NotebookEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        self.status = self.status.on(event)?;
        self.modified = now;
        match event {
            NotebookEvent::Broke => {
                self.run.leaving = self.run.placement.take();
                self.run.launched = None;
            }
            NotebookEvent::StopFinished => {
                self.run.placement = None;
                self.run.launched = None;
            }
            NotebookEvent::StartRequested | NotebookEvent::StopRequested => {
                self.run.since = now;
                self.failure_reason = None;
            }
            NotebookEvent::UpdateRequested | NotebookEvent::DeleteRequested => self.failure_reason = None,
            NotebookEvent::Ready | NotebookEvent::UpdateFinished => {}
        }
        Ok(())
    }

    /// Every container the record knows.
    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.run.placement.iter().chain(&self.run.leaving)
    }

    /// Every workload the record knows: what gc must leave alone.
    pub fn workloads(&self) -> impl Iterator<Item = &WorkloadId> {
        let placed = self.placements().map(|placement| &placement.workload);
        self.run.volume.iter().chain(placed)
    }
}

/// A notebook instance lifecycle configuration: scripts as base64, as they were given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotebookLifecycleConfig {
    /// As the caller spelled it (SM-8).
    pub name: String,
    pub arn: Arn,
    pub created: Timestamp,
    pub modified: Timestamp,
    /// Runs once, before the first start is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_create: Option<String>,
    /// Runs at every start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_start: Option<String>,
    pub tags: Tags,
}

impl Record for NotebookLifecycleConfig {
    const KIND: &'static str = "sagemaker.notebook_lifecycle_config";

    fn facets(&self) -> Facets {
        Facets {
            display_name: self.name.clone(),
            created: self.created,
            modified: self.modified,
            status: String::new(),
        }
    }
}

impl NotebookLifecycleConfig {
    /// The record's key: unique without regard to case (SM-8).
    pub fn key(scope: &Scope, name: &str) -> Key {
        Key::folded(scope, name)
    }

    /// The configuration's ARN (SM-7).
    pub fn arn(scope: &Scope, name: &str) -> Arn {
        Arn::sagemaker(scope, "notebook-instance-lifecycle-config", name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NotebookEvent as E;
    use NotebookStatus as S;

    const ALL: [E; 8] = [
        E::Ready,
        E::Broke,
        E::StartRequested,
        E::StopRequested,
        E::StopFinished,
        E::UpdateRequested,
        E::UpdateFinished,
        E::DeleteRequested,
    ];

    /// Proves: SM-46
    #[test]
    fn a_notebook_instance_moves_only_along_its_table() {
        let legal = [
            (S::Pending, E::Ready, S::InService),
            (S::Pending, E::Broke, S::Failed),
            (S::InService, E::Broke, S::Failed),
            (S::InService, E::StopRequested, S::Stopping),
            (S::Stopping, E::StopFinished, S::Stopped),
            (S::Stopped, E::StartRequested, S::Pending),
            (S::Failed, E::StartRequested, S::Pending),
            (S::Stopped, E::UpdateRequested, S::Updating),
            (S::Failed, E::UpdateRequested, S::Updating),
            (S::Updating, E::UpdateFinished, S::Stopped),
            (S::Stopped, E::DeleteRequested, S::Deleting),
            (S::Failed, E::DeleteRequested, S::Deleting),
        ];
        for from in [
            S::Pending,
            S::InService,
            S::Stopping,
            S::Stopped,
            S::Failed,
            S::Deleting,
            S::Updating,
        ] {
            for event in ALL {
                let want = legal.iter().find(|(a, e, _)| *a == from && *e == event);
                assert_eq!(from.on(event).ok(), want.map(|(_, _, to)| *to), "{from:?} on {event:?}");
            }
        }
    }
}
