//! EC2's network: VPCs and what is in them (NET-80..86), a file per noun. Handlers commit records; the reconciler makes
//! them real. What the engine cannot enforce is refused, never stored without a word.

mod block;
mod change;
pub mod default_vpc;
mod error;
pub(crate) mod facts;
mod filter;
mod noun;
mod operation;
mod page;
pub mod questions;
mod settings;
mod tags;
mod token;
mod vpc;
mod vpc_block;

use crate::dispatch::{Handler, handler};
use isolarium_wire::shapes::ec2 as shapes;

pub use settings::{Ec2Settings, Quotas};

/// What IAM calls flow logs when a role is passed to them (IAM-51).
pub(crate) const FLOW_LOGS_SERVICE: &str = "vpc-flow-logs.amazonaws.com";

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::AssociateVpcCidrBlockRequest>(),
        handler::<shapes::CreateDefaultVpcRequest>(),
        handler::<shapes::CreateVpcRequest>(),
        handler::<shapes::DeleteVpcRequest>(),
        handler::<shapes::DescribeVpcAttributeRequest>(),
        handler::<shapes::DescribeVpcsRequest>(),
        handler::<shapes::DisassociateVpcCidrBlockRequest>(),
        handler::<shapes::ModifyVpcAttributeRequest>(),
    ]
}

#[cfg(test)]
mod tests;
