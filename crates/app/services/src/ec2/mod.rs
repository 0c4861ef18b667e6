//! EC2's network: VPCs and what is in them (NET-80..86), a file per noun. Handlers commit records; the reconciler makes
//! them real. What the engine cannot enforce is refused, never stored without a word.

mod acl;
mod block;
mod change;
pub mod default_vpc;
mod dhcp_options;
mod elastic_ip;
pub mod endpoint;
mod endpoint_interface;
mod endpoint_service;
mod error;
pub(crate) mod facts;
mod filter;
mod flow_log;
mod group;
mod group_rule;
mod interface;
mod interface_permission;
mod interface_view;
mod internet_gateway;
mod nat_gateway;
mod noun;
mod operation;
mod page;
mod permission;
mod prefix;
pub mod questions;
mod route;
mod route_table;
mod settings;
pub(crate) mod settled;
mod subnet;
mod tag;
mod tags;
mod token;
mod vpc;
mod vpc_block;
mod zone;

use crate::dispatch::{Handler, handler};
use isolarium_wire::shapes::ec2 as shapes;

pub use settings::{Ec2Settings, Quotas};

/// What IAM calls flow logs when a role is passed to them (IAM-51).
pub(crate) use crate::platform::flow_logs::FLOW_LOGS as FLOW_LOGS_SERVICE;

/// Every served operation of this service.
pub fn handlers() -> Vec<Handler> {
    let mut all = vec![
        handler::<shapes::AllocateAddressRequest>(),
        handler::<shapes::AssociateAddressRequest>(),
        handler::<shapes::AssociateDhcpOptionsRequest>(),
        handler::<shapes::AssociateRouteTableRequest>(),
        handler::<shapes::AssociateVpcCidrBlockRequest>(),
        handler::<shapes::AttachInternetGatewayRequest>(),
        handler::<shapes::AttachNetworkInterfaceRequest>(),
        handler::<shapes::CreateDefaultVpcRequest>(),
        handler::<shapes::CreateDhcpOptionsRequest>(),
        handler::<shapes::CreateInternetGatewayRequest>(),
        handler::<shapes::CreateNatGatewayRequest>(),
        handler::<shapes::CreateNetworkInterfacePermissionRequest>(),
        handler::<shapes::CreateNetworkInterfaceRequest>(),
        handler::<shapes::CreateRouteRequest>(),
        handler::<shapes::CreateRouteTableRequest>(),
        handler::<shapes::CreateSubnetRequest>(),
        handler::<shapes::CreateVpcRequest>(),
        handler::<shapes::DeleteDhcpOptionsRequest>(),
        handler::<shapes::DeleteInternetGatewayRequest>(),
        handler::<shapes::DeleteNatGatewayRequest>(),
        handler::<shapes::DeleteNetworkInterfacePermissionRequest>(),
        handler::<shapes::DeleteNetworkInterfaceRequest>(),
        handler::<shapes::DeleteRouteRequest>(),
        handler::<shapes::DeleteRouteTableRequest>(),
        handler::<shapes::DeleteSubnetRequest>(),
        handler::<shapes::DeleteVpcRequest>(),
        handler::<shapes::DescribeAccountAttributesRequest>(),
        handler::<shapes::DescribeAddressesAttributeRequest>(),
        handler::<shapes::DescribeAddressesRequest>(),
        handler::<shapes::DescribeAvailabilityZonesRequest>(),
        handler::<shapes::DescribeDhcpOptionsRequest>(),
        handler::<shapes::DescribeInternetGatewaysRequest>(),
        handler::<shapes::DescribeNatGatewaysRequest>(),
        handler::<shapes::DescribeNetworkInterfacePermissionsRequest>(),
        handler::<shapes::DescribeNetworkInterfacesRequest>(),
        handler::<shapes::DescribeRegionsRequest>(),
        handler::<shapes::DescribeRouteTablesRequest>(),
        handler::<shapes::DescribeSubnetsRequest>(),
        handler::<shapes::DescribeVpcAttributeRequest>(),
        handler::<shapes::DescribeVpcsRequest>(),
        handler::<shapes::DetachInternetGatewayRequest>(),
        handler::<shapes::DetachNetworkInterfaceRequest>(),
        handler::<shapes::DisassociateAddressRequest>(),
        handler::<shapes::DisassociateRouteTableRequest>(),
        handler::<shapes::DisassociateVpcCidrBlockRequest>(),
        handler::<shapes::ModifyNetworkInterfaceAttributeRequest>(),
        handler::<shapes::ModifySubnetAttributeRequest>(),
        handler::<shapes::ModifyVpcAttributeRequest>(),
        handler::<shapes::ReleaseAddressRequest>(),
        handler::<shapes::ReplaceRouteRequest>(),
        handler::<shapes::ReplaceRouteTableAssociationRequest>(),
    ];
    all.extend(acl::handlers());
    all.extend(endpoint::handlers());
    all.extend(flow_log::handlers());
    all.extend(group::handlers());
    all.extend(group_rule::handlers());
    all.extend(prefix::handlers());
    all.extend(tag::handlers());
    all
}

#[cfg(test)]
mod tests;
