//! Internet gateways and NAT gateways (NET-28, NET-29).

use super::id::{AllocationId, EipAssociationId, InterfaceId, InternetGatewayId, NatGatewayId, SubnetId, VpcId};
use super::{Tags, resource};
use crate::Timestamp;
use crate::sagemaker::IllegalTransition;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;

/// An internet gateway; attached to one VPC at most, and a VPC has one at most (NET-28).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternetGateway {
    pub id: InternetGatewayId,
    pub attached: Option<VpcId>,
    pub created: Timestamp,
    pub tags: Tags,
}

resource!(
    InternetGateway,
    "ec2.internet_gateway",
    "internet-gateway",
    |this| this.attached,
    status | _ | ""
);

/// A public NAT gateway (NET-29). Its interface is a record of its own until it is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatGateway {
    pub id: NatGatewayId,
    pub vpc: VpcId,
    pub subnet: SubnetId,
    pub interface: InterfaceId,
    pub private_address: Ipv4Addr,
    pub allocation: AllocationId,
    pub association: EipAssociationId,
    pub public_address: Ipv4Addr,
    pub state: NatState,
    /// `FailureCode` and `FailureMessage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<NatFailure>,
    /// When it came to `deleted` or `failed`; it is shown for an hour after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    pub created: Timestamp,
    pub tags: Tags,
}

/// Why a NAT gateway failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatFailure {
    /// Such as `Gateway.NotAttached` or `InternalError`.
    pub code: String,
    pub message: String,
}

/// States of a NAT gateway, in the wire's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NatState {
    /// Accepted; the kernel does not have it yet.
    Pending,
    /// The kernel has it.
    Available,
    Failed,
    /// To be taken out of the kernel; address and interface are still held.
    Deleting,
    Deleted,
}

/// What happens to a NAT gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatEvent {
    /// The node applied a plan with it, and read it back.
    Applied,
    /// It cannot work: no internet gateway is attached, or the node refused.
    Refused,
    /// DeleteNatGateway.
    DeleteRequested,
    /// The node applied a plan without it; interface and Elastic IP were given back in the same batch.
    Removed,
}

impl fmt::Display for NatState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Available => "available",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        })
    }
}

impl NatState {
    /// The state after an event.
    ///
    /// # Errors
    /// When the event cannot happen in this state.
    pub fn next(self, event: NatEvent) -> Result<Self, IllegalTransition> {
        use NatEvent::{Applied, DeleteRequested, Refused, Removed};
        match (self, event) {
            (Self::Pending | Self::Available, Applied) => Ok(Self::Available),
            (Self::Pending, Refused) => Ok(Self::Failed),
            (Self::Pending | Self::Available | Self::Failed | Self::Deleting, DeleteRequested) => Ok(Self::Deleting),
            // A plan that still had it may be reported after the request to delete it.
            (Self::Deleting, Applied | Refused) => Ok(Self::Deleting),
            (Self::Deleting, Removed) => Ok(Self::Deleted),
            (Self::Failed, Removed) => Ok(Self::Failed),
            (Self::Deleted, _)
            | (Self::Available, Refused)
            | (Self::Failed, Applied | Refused)
            | (Self::Pending | Self::Available, Removed) => Err(IllegalTransition {
                from: self.to_string(),
                event: format!("{event:?}"),
            }),
        }
    }

    /// Whether routes to it are active: from its creation on, so that the plan which brings it has them too.
    pub fn serves(self) -> bool {
        matches!(self, Self::Pending | Self::Available)
    }

    /// Whether it holds its interface and its Elastic IP.
    pub fn holds(self) -> bool {
        matches!(self, Self::Pending | Self::Available | Self::Deleting)
    }
}

resource!(
    NatGateway,
    "ec2.nat_gateway",
    "natgateway",
    |this| Some(this.vpc),
    status | this | this.state
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: NET-29
    #[test]
    fn a_nat_gateway_is_available_only_when_the_kernel_has_it() {
        use NatEvent::*;
        let walk = |events: &[NatEvent]| {
            events
                .iter()
                .try_fold(NatState::Pending, |state, event| state.next(*event))
        };
        assert_eq!(walk(&[]), Ok(NatState::Pending));
        assert_eq!(walk(&[Applied]), Ok(NatState::Available));
        assert_eq!(walk(&[Refused]), Ok(NatState::Failed));
        assert_eq!(walk(&[Applied, DeleteRequested]), Ok(NatState::Deleting));
        assert_eq!(walk(&[DeleteRequested, Applied, Removed]), Ok(NatState::Deleted));
        assert_eq!(walk(&[Refused, DeleteRequested, Removed]), Ok(NatState::Deleted));
        assert!(walk(&[Removed]).is_err());
        assert!(walk(&[Applied, Removed]).is_err());
        assert!(walk(&[DeleteRequested, Removed, Applied]).is_err());
    }
}
