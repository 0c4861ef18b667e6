//! Warm pools: the room of a training job that has ended, kept for a while for a job that fits.

use super::training_job::TrainingJob;
use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Members of `ResourceConfig` that two jobs must have in common beside type and number of instances.
const SAME_RESOURCES: [&str; 2] = ["VolumeSizeInGB", "VolumeKmsKeyId"];

/// The warm pool of a training job that asked for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmPool {
    /// `KeepAlivePeriodInSeconds`: how long the room is kept once the job has ended.
    pub keep_alive: u64,
    /// When the job ended and left its room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Set once nobody can take the room over any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<PoolEnd>,
}

/// How a warm pool ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolEnd {
    pub at: Timestamp,
    /// The job that has the room now; `None`: nobody took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_by: Option<String>,
}

/// `WarmPoolResourceStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmPoolState {
    /// The job has its room itself.
    InUse,
    /// The job has ended, and its room waits for a job that fits.
    Available,
    /// A job that fits has the room.
    Reused,
    /// The room was given back.
    Terminated,
}

impl WarmPoolState {
    /// AWS's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InUse => "InUse",
            Self::Available => "Available",
            Self::Reused => "Reused",
            Self::Terminated => "Terminated",
        }
    }
}

impl WarmPool {
    /// Of a new job. `None` when it asks for no pool.
    pub fn asked(keep_alive: u64) -> Option<Self> {
        (keep_alive > 0).then_some(Self {
            keep_alive,
            since: None,
            over: None,
        })
    }

    /// Where the pool stands.
    pub fn state(&self) -> WarmPoolState {
        match (&self.over, self.since) {
            (Some(end), _) if end.reused_by.is_some() => WarmPoolState::Reused,
            (Some(_), _) => WarmPoolState::Terminated,
            (None, Some(_)) => WarmPoolState::Available,
            (None, None) => WarmPoolState::InUse,
        }
    }

    /// Until when the room is kept, of an available pool.
    pub fn until(&self) -> Option<Timestamp> {
        match self.state() {
            WarmPoolState::Available => Some(self.since?.after(Duration::from_secs(self.keep_alive))),
            WarmPoolState::InUse | WarmPoolState::Reused | WarmPoolState::Terminated => None,
        }
    }

    /// `ResourceRetainedBillableTimeInSeconds`: whole seconds for which the room was kept. `None` while the job has it.
    pub fn retained(&self, now: Timestamp) -> Option<u64> {
        let end = self.over.as_ref().map_or(now, |end| end.at);
        Some(end.since(self.since?).as_secs())
    }

    /// The job has ended. A cluster that may be broken, or that never was, is not kept.
    pub fn job_ended(&mut self, healthy: bool, now: Timestamp) {
        if self.state() != WarmPoolState::InUse {
            return;
        }
        if healthy && self.keep_alive > 0 {
            self.since = Some(now);
        } else {
            self.end(None, now);
        }
    }

    /// Nobody can take the room any more. The first end stays.
    pub fn end(&mut self, reused_by: Option<String>, now: Timestamp) {
        self.over.get_or_insert(PoolEnd { at: now, reused_by });
    }
}

impl TrainingJob {
    /// Whether this job may run in the warm pool of another one: with the same role, network and instances.
    pub fn fits_pool_of(&self, other: &Self) -> bool {
        let (own, its) = (&self.spec, &other.spec);
        let resource = |job: &Self, member: &str| {
            let resources = job.echo.get("ResourceConfig");
            resources.and_then(|all| all.get(member)).cloned()
        };
        let encrypted = |job: &Self| {
            let given = job.echo.get("EnableInterContainerTrafficEncryption");
            given.and_then(serde_json::Value::as_bool).unwrap_or(false)
        };
        own.role_arn == its.role_arn
            && own.instance_type == its.instance_type
            && own.groups == its.groups
            && self.run.instances() == other.run.instances()
            && own.network.isolated() == its.network.isolated()
            && self.places() == other.places()
            && encrypted(self) == encrypted(other)
            && SAME_RESOURCES
                .iter()
                .all(|member| resource(self, member) == resource(other, member))
    }

    /// Subnets and security groups, in whichever order they were given.
    fn places(&self) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
        let vpc = self.spec.network.vpc()?;
        let subnets = vpc.subnets.iter().map(ToString::to_string).collect();
        Some((subnets, vpc.groups.iter().map(ToString::to_string).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_goes_from_use_to_available_to_one_end() {
        let at = |seconds: i64| Timestamp(seconds * 1000);
        assert_eq!(WarmPool::asked(0), None);
        let mut pool = WarmPool::asked(60).unwrap();
        assert_eq!((pool.state(), pool.retained(at(5))), (WarmPoolState::InUse, None));
        pool.job_ended(true, at(10));
        assert_eq!((pool.state(), pool.until()), (WarmPoolState::Available, Some(at(70))));
        assert_eq!(pool.retained(at(35)), Some(25));
        let mut reused = pool.clone();
        reused.end(Some("next".into()), at(40));
        reused.end(None, at(50));
        assert_eq!(
            (reused.state(), reused.retained(at(99))),
            (WarmPoolState::Reused, Some(30))
        );
        pool.end(None, at(70));
        assert_eq!((pool.state(), pool.until()), (WarmPoolState::Terminated, None));
        // What broke keeps no room.
        let mut broken = WarmPool::asked(60).unwrap();
        broken.job_ended(false, at(10));
        assert_eq!(
            (broken.state(), broken.retained(at(99))),
            (WarmPoolState::Terminated, None)
        );
    }
}
