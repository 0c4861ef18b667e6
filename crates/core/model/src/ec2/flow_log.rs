//! Flow logs (NET-55..57).

use super::id::{FlowLogId, InterfaceId, SubnetId, VpcId};
use super::{Tags, resource};
use crate::{Arn, Timestamp};
use serde::{Deserialize, Serialize};

/// A flow log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLog {
    pub id: FlowLogId,
    /// The VPC that the traffic is in.
    pub vpc: VpcId,
    pub about: FlowLogResource,
    pub traffic: TrafficType,
    pub destination: FlowLogDestination,
    /// `MaxAggregationInterval`: 60 or 600 seconds.
    pub interval: u32,
    /// `LogFormat` as given or the default one: `${version} ${account-id} …`.
    pub format: String,
    /// `DeliverLogsErrorMessage`: why the last delivery failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub created: Timestamp,
    pub tags: Tags,
}

/// Whose traffic is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowLogResource {
    Vpc(VpcId),
    Subnet(SubnetId),
    Interface(InterfaceId),
}

/// `TrafficType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TrafficType {
    Accept,
    Reject,
    All,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FlowLogDestination {
    CloudWatchLogs {
        group: String,
        role_arn: Arn,
    },
    S3 {
        bucket: String,
        /// Below the bucket, without slashes at its ends; may be empty.
        prefix: String,
        /// `PerHourPartition`.
        #[serde(default)]
        per_hour: bool,
        /// `HiveCompatiblePartitions`.
        #[serde(default)]
        hive: bool,
    },
}

resource!(
    FlowLog,
    "ec2.flow_log",
    "vpc-flow-log",
    |this| Some(this.vpc),
    status | _ | "ACTIVE"
);

impl std::fmt::Display for FlowLogResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vpc(id) => id.fmt(f),
            Self::Subnet(id) => id.fmt(f),
            Self::Interface(id) => id.fmt(f),
        }
    }
}
