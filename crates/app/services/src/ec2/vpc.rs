//! VPCs and their attributes (NET-1, NET-5).

use super::block;
use super::change::{again, in_vpc, remove};
use super::default_vpc::{Maker, attributes, put_attributes};
use super::error;
use super::noun::{every, find, of_vpc};
use super::operation::operation;
use super::page::{Asked, records, shown};
use super::shapes;
use super::tags;
use crate::Ctx;
use isolarium_model::Scope;
use isolarium_model::ec2::vpc::Tenancy;
use isolarium_model::ec2::{
    FlowLog, InternetGateway, NatGateway, NetworkAcl, NetworkInterface, Resource, RouteTable, SecurityGroup, Subnet,
    Vpc, VpcEndpoint,
};
use isolarium_store::state::Batch;
use isolarium_wire::ApiError;

operation!("CreateVpc", CreateVpcRequest -> CreateVpcResult, create);
operation!("CreateDefaultVpc", CreateDefaultVpcRequest -> CreateDefaultVpcResult, create_default);
operation!("DeleteVpc", DeleteVpcRequest -> DeleteVpcOutput, delete);
operation!("DescribeVpcs", DescribeVpcsRequest -> DescribeVpcsResult, describe);
operation!("DescribeVpcAttribute", DescribeVpcAttributeRequest -> DescribeVpcAttributeResult, describe_attribute);
operation!(never dry "ModifyVpcAttribute", ModifyVpcAttributeRequest -> ModifyVpcAttributeOutput, modify_attribute);

impl<'a> Maker<'a> {
    /// From what an operation sees.
    pub(super) fn of(ctx: &'a Ctx<'_>) -> Self {
        Self {
            ids: ctx.ids,
            now: ctx.clock.now(),
            scope: &ctx.caller.scope,
            settings: &ctx.platform.settings().ec2,
        }
    }
}

/// Counts the VPCs against the quota (NET-86).
fn quota(ctx: &Ctx<'_>) -> Result<(), ApiError> {
    if every::<Vpc>(ctx)?.len() >= ctx.platform.settings().ec2.quotas.vpcs {
        let text = "The maximum number of VPCs has been reached.";
        return Err(error::limit("VpcLimitExceeded", text));
    }
    Ok(())
}

fn create(request: shapes::CreateVpcRequest, ctx: &Ctx<'_>) -> Result<shapes::CreateVpcResult, ApiError> {
    let ipv6 = request.amazon_provided_ipv6_cidr_block == Some(true)
        || request.ipv6_pool.is_some()
        || request.ipv6_cidr_block.is_some()
        || request.ipv6_ipam_pool_id.is_some()
        || request.ipv6_netmask_length.is_some();
    error::refuse(&[
        (ipv6, "IPv6"),
        (
            request.ipv4_ipam_pool_id.is_some() || request.ipv4_netmask_length.is_some(),
            "Allocation of CIDR blocks by IPAM",
        ),
        (request.vpc_encryption_control.is_some(), "VpcEncryptionControl"),
    ])?;
    let block = block::for_vpc(&ctx.platform.settings().ec2, "cidrBlock", request.cidr_block.as_deref())?;
    let tenancy = match request.instance_tenancy {
        None | Some(shapes::Tenancy::Default) => Tenancy::Default,
        Some(shapes::Tenancy::Dedicated) => Tenancy::Dedicated,
        Some(other @ shapes::Tenancy::Host) => {
            return Err(error::bad_value(
                "instanceTenancy",
                other,
                "A VPC is default or dedicated.",
            ));
        }
    };
    let tags = tags::specified(request.tag_specifications.as_ref(), Vpc::TYPE)?;
    let made = again(ctx, || {
        let mut account = attributes(ctx.store, &ctx.caller.scope)?;
        quota(ctx)?;
        let maker = Maker::of(ctx);
        let (batch, dhcp) = maker.dhcp_options(ctx.store, &mut account.record, Batch::default())?;
        let mut new = maker.vpc(block, tenancy, dhcp)?;
        new.vpc.tags = tags.clone();
        let batch = maker.add_vpc(batch, &new)?;
        Ok((put_attributes(batch, account)?, new.vpc))
    })?;
    Ok(shapes::CreateVpcResult {
        vpc: Some(view(&ctx.caller.scope, &made)),
    })
}

fn create_default(
    _: shapes::CreateDefaultVpcRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::CreateDefaultVpcResult, ApiError> {
    let made = again(ctx, || {
        let mut account = attributes(ctx.store, &ctx.caller.scope)?;
        if every::<Vpc>(ctx)?.iter().any(|vpc| vpc.record.is_default) {
            let text = "A Default VPC already exists for this account in this region.";
            return Err(ApiError::client("DefaultVpcAlreadyExists", text));
        }
        quota(ctx)?;
        let made = Maker::of(ctx).default_vpc(ctx.store, &mut account.record, Batch::default());
        let (batch, vpc) = made?;
        account.record.default_vpc_made = true;
        Ok((put_attributes(batch, account)?, vpc))
    })?;
    Ok(shapes::CreateDefaultVpcResult {
        vpc: Some(view(&ctx.caller.scope, &made)),
    })
}

fn delete(request: shapes::DeleteVpcRequest, ctx: &Ctx<'_>) -> Result<shapes::DeleteVpcOutput, ApiError> {
    again(ctx, || {
        // Read first: every change of its parts moves its revision (vpc-generation).
        let vpc = find::<Vpc>(ctx, &request.vpc_id)?;
        let id = vpc.record.id;
        let (tables, acls, groups) = (
            of_vpc::<RouteTable>(ctx, id)?,
            of_vpc::<NetworkAcl>(ctx, id)?,
            of_vpc::<SecurityGroup>(ctx, id)?,
        );
        let busy = !of_vpc::<Subnet>(ctx, id)?.is_empty()
            || !of_vpc::<NetworkInterface>(ctx, id)?.is_empty()
            || !of_vpc::<InternetGateway>(ctx, id)?.is_empty()
            || !of_vpc::<VpcEndpoint>(ctx, id)?.is_empty()
            || of_vpc::<NatGateway>(ctx, id)?
                .iter()
                .any(|nat| nat.record.state.holds())
            || tables.iter().any(|table| !table.record.is_main())
            || acls.iter().any(|acl| !acl.record.is_default)
            || groups.iter().any(|group| !group.record.is_default());
        if busy {
            return Err(error::has_dependencies("vpc", id));
        }
        let batch = remove(Batch::default(), &vpc);
        let batch = tables.iter().fold(batch, remove);
        let batch = acls.iter().fold(batch, remove);
        let batch = groups.iter().fold(batch, remove);
        let logs = of_vpc::<FlowLog>(ctx, id)?;
        Ok((logs.iter().fold(batch, remove), ()))
    })?;
    Ok(shapes::DeleteVpcOutput::default())
}

/// Filters of DescribeVpcs.
const FILTERS: &[&str] = &[
    "cidr",
    "cidr-block",
    "cidr-block-association.association-id",
    "cidr-block-association.cidr-block",
    "cidr-block-association.state",
    "dhcp-options-id",
    "ipv6-cidr-block-association.association-id",
    "ipv6-cidr-block-association.ipv6-cidr-block",
    "ipv6-cidr-block-association.ipv6-pool",
    "ipv6-cidr-block-association.state",
    "is-default",
    "isDefault",
    "owner-id",
    "state",
    "vpc-id",
];

fn describe(request: shapes::DescribeVpcsRequest, ctx: &Ctx<'_>) -> Result<shapes::DescribeVpcsResult, ApiError> {
    let asked = Asked {
        ids: request.vpc_ids,
        filters: request.filters,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let scope = &ctx.caller.scope;
    let (vpcs, next_token) = records(ctx, asked, FILTERS, |vpc: &Vpc, filter| match filter {
        "cidr" | "cidr-block" => vpc.primary().map(|block| block.to_string()).into_iter().collect(),
        "cidr-block-association.association-id" => vpc.blocks.iter().map(|block| block.id.to_string()).collect(),
        "cidr-block-association.cidr-block" => vpc.blocks.iter().map(|block| block.block.to_string()).collect(),
        "cidr-block-association.state" => vec!["associated".into()],
        "dhcp-options-id" => vec![dhcp_options_id(vpc)],
        "is-default" | "isDefault" => vec![vpc.is_default.to_string()],
        "owner-id" => vec![scope.account.to_string()],
        "state" => vec!["available".into()],
        "vpc-id" => vec![vpc.id.to_string()],
        _ => Vec::new(),
    })?;
    Ok(shapes::DescribeVpcsResult {
        vpcs: shown(vpcs.iter().map(|vpc| view(scope, vpc)).collect()),
        next_token,
    })
}

fn dhcp_options_id(vpc: &Vpc) -> String {
    vpc.dhcp_options.map_or("default".into(), |id| id.to_string())
}

/// A VPC as answers have it.
pub(super) fn view(scope: &Scope, vpc: &Vpc) -> shapes::Vpc {
    shapes::Vpc {
        owner_id: Some(scope.account.to_string()),
        instance_tenancy: Some(match vpc.tenancy {
            Tenancy::Default => shapes::Tenancy::Default,
            Tenancy::Dedicated => shapes::Tenancy::Dedicated,
        }),
        cidr_block_association_set: Some(vpc.blocks.iter().map(super::vpc_block::view).collect()),
        is_default: Some(vpc.is_default),
        tags: tags::shown(&vpc.tags),
        vpc_id: Some(vpc.id.to_string()),
        state: Some(shapes::VpcState::Available),
        cidr_block: vpc.primary().map(|block| block.to_string()),
        dhcp_options_id: Some(dhcp_options_id(vpc)),
        ..Default::default()
    }
}

fn describe_attribute(
    request: shapes::DescribeVpcAttributeRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeVpcAttributeResult, ApiError> {
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record;
    let value = |value: bool| Some(shapes::AttributeBooleanValue { value: Some(value) });
    let mut answer = shapes::DescribeVpcAttributeResult {
        vpc_id: Some(request.vpc_id),
        ..Default::default()
    };
    match request.attribute {
        shapes::VpcAttributeName::EnableDnsSupport => answer.enable_dns_support = value(vpc.dns_support),
        shapes::VpcAttributeName::EnableDnsHostnames => answer.enable_dns_hostnames = value(vpc.dns_hostnames),
        shapes::VpcAttributeName::EnableNetworkAddressUsageMetrics => {
            answer.enable_network_address_usage_metrics = value(vpc.address_usage_metrics);
        }
    }
    Ok(answer)
}

fn modify_attribute(
    request: shapes::ModifyVpcAttributeRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::ModifyVpcAttributeOutput, ApiError> {
    let value = |given: &Option<shapes::AttributeBooleanValue>| given.as_ref().map(|given| given.value);
    let given = [
        value(&request.enable_dns_support),
        value(&request.enable_dns_hostnames),
        value(&request.enable_network_address_usage_metrics),
    ];
    if given.iter().flatten().count() > 1 {
        return Err(error::combination("Fields for multiple attribute types specified"));
    }
    if given.iter().flatten().flatten().count() == 0 {
        return Err(error::missing("attribute value"));
    }
    let [support, hostnames, metrics] = given.map(Option::flatten);
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record;
    in_vpc(ctx, vpc.id, |vpc, batch| {
        vpc.dns_support = support.unwrap_or(vpc.dns_support);
        vpc.dns_hostnames = hostnames.unwrap_or(vpc.dns_hostnames);
        vpc.address_usage_metrics = metrics.unwrap_or(vpc.address_usage_metrics);
        Ok((batch, ()))
    })?;
    Ok(shapes::ModifyVpcAttributeOutput::default())
}
