//! Further blocks of a VPC (NET-1).

use super::block;
use super::change::in_vpc;
use super::error;
use super::noun::{every, find, new_id, of_vpc};
use super::operation::operation;
use super::shapes;
use crate::Ctx;
use isolarium_model::ec2::address::overlap;
use isolarium_model::ec2::vpc::{Block, MAX_BLOCKS};
use isolarium_model::ec2::{RouteTable, Subnet, Vpc};
use isolarium_wire::ApiError;

operation!(never dry "AssociateVpcCidrBlock", AssociateVpcCidrBlockRequest -> AssociateVpcCidrBlockResult, associate);
operation!(
    never dry "DisassociateVpcCidrBlock",
    DisassociateVpcCidrBlockRequest -> DisassociateVpcCidrBlockResult,
    disassociate
);

fn associate(
    request: shapes::AssociateVpcCidrBlockRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::AssociateVpcCidrBlockResult, ApiError> {
    let ipv6 = request.amazon_provided_ipv6_cidr_block == Some(true)
        || request.ipv6_pool.is_some()
        || request.ipv6_cidr_block.is_some()
        || request.ipv6_ipam_pool_id.is_some()
        || request.ipv6_netmask_length.is_some();
    let ipam = request.ipv4_ipam_pool_id.is_some() || request.ipv4_netmask_length.is_some();
    error::refuse(&[(ipv6, "IPv6"), (ipam, "Allocation of CIDR blocks by IPAM")])?;
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record.id;
    let block = block::for_vpc(&ctx.platform.settings().ec2, "cidrBlock", request.cidr_block.as_deref())?;
    let made = in_vpc(ctx, vpc, |vpc, batch| {
        if vpc.blocks.iter().any(|one| overlap(&one.block, &block)) {
            return Err(ApiError::client(
                "InvalidVpc.Range",
                format!(
                    "The CIDR '{block}' conflicts with another CIDR block of the VPC '{}'.",
                    vpc.id
                ),
            ));
        }
        // A route into the VPC cannot stand beside the local one (NET-24).
        let tables = of_vpc::<RouteTable>(ctx, vpc.id)?;
        let routes = tables.iter().flat_map(|table| table.record.routes.keys());
        if let Some(route) = routes.into_iter().find(|route| block.contains(*route)) {
            return Err(ApiError::client(
                "InvalidVpc.Range",
                format!("The CIDR '{block}' conflicts with the route to {route} in a route table of the VPC."),
            ));
        }
        if vpc.blocks.len() >= MAX_BLOCKS {
            let text = format!(
                "This network '{}' has met its maximum number of allowed CIDRs: {MAX_BLOCKS}",
                vpc.id
            );
            return Err(error::limit("CidrLimitExceeded", text));
        }
        let made = Block {
            id: new_id(ctx)?,
            block,
        };
        vpc.blocks.push(made);
        Ok((batch, made))
    })?;
    Ok(shapes::AssociateVpcCidrBlockResult {
        cidr_block_association: Some(view(&made)),
        vpc_id: Some(vpc.to_string()),
        ..Default::default()
    })
}

fn disassociate(
    request: shapes::DisassociateVpcCidrBlockRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DisassociateVpcCidrBlockResult, ApiError> {
    let id = &request.association_id;
    let missing = || {
        let text = format!("The vpc CIDR block association ID '{id}' does not exist");
        ApiError::client("InvalidVpcCidrBlockAssociationID.NotFound", text)
    };
    let has = |vpc: &Vpc| vpc.blocks.iter().position(|block| block.id.to_string() == *id);
    let vpcs = every::<Vpc>(ctx)?;
    let vpc = vpcs.iter().find(|vpc| has(&vpc.record).is_some()).ok_or_else(missing)?;
    let vpc = vpc.record.id;
    let gone = in_vpc(ctx, vpc, |vpc, batch| {
        let at = has(vpc).ok_or_else(missing)?;
        if at == 0 {
            return Err(error::not_permitted(format!(
                "The vpc CIDR block with association ID {id} may not be disassociated. It is the primary IPv4 CIDR block \
                 of the VPC"
            )));
        }
        let gone = vpc.blocks.remove(at);
        let subnets = of_vpc::<Subnet>(ctx, vpc.id)?;
        if let Some(subnet) = subnets.iter().find(|subnet| gone.block.contains(&subnet.record.block)) {
            let text = format!(
                "The CIDR '{}' is in use by the subnet '{}'.",
                gone.block, subnet.record.id
            );
            return Err(ApiError::client("InvalidCidr.InUse", text));
        }
        Ok((batch, gone))
    })?;
    Ok(shapes::DisassociateVpcCidrBlockResult {
        cidr_block_association: Some(shapes::VpcCidrBlockAssociation {
            cidr_block_state: state(shapes::VpcCidrBlockStateCode::Disassociated),
            ..view(&gone)
        }),
        vpc_id: Some(vpc.to_string()),
        ..Default::default()
    })
}

fn state(state: shapes::VpcCidrBlockStateCode) -> Option<shapes::VpcCidrBlockState> {
    Some(shapes::VpcCidrBlockState {
        state: Some(state),
        status_message: None,
    })
}

/// A block as answers have it.
pub(super) fn view(block: &Block) -> shapes::VpcCidrBlockAssociation {
    shapes::VpcCidrBlockAssociation {
        association_id: Some(block.id.to_string()),
        cidr_block: Some(block.block.to_string()),
        cidr_block_state: state(shapes::VpcCidrBlockStateCode::Associated),
    }
}
