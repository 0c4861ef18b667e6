//! Subnets (NET-2, NET-3).

use super::block;
use super::change::{add, again, in_vpc, put, remove};
use super::error;
use super::noun::{find, new_id, of_vpc};
use super::operation::operation;
use super::page::{Asked, records, shown};
use super::shapes;
use super::tags;
use crate::Ctx;
use isolarium_model::Scope;
use isolarium_model::ec2::address::overlap;
use isolarium_model::ec2::flow_log::FlowLogResource;
use isolarium_model::ec2::route_table::Associated;
use isolarium_model::ec2::subnet::LaunchNames;
use isolarium_model::ec2::vpc::fits;
use isolarium_model::ec2::zone::Zone;
use isolarium_model::ec2::{FlowLog, NetworkAcl, Resource, RouteTable, Subnet, Vpc};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;

operation!("CreateSubnet", CreateSubnetRequest -> CreateSubnetResult, create);
operation!("DeleteSubnet", DeleteSubnetRequest -> DeleteSubnetOutput, delete);
operation!("DescribeSubnets", DescribeSubnetsRequest -> DescribeSubnetsResult, describe);
operation!(never dry "ModifySubnetAttribute", ModifySubnetAttributeRequest -> ModifySubnetAttributeOutput, modify);

fn create(request: shapes::CreateSubnetRequest, ctx: &Ctx<'_>) -> Result<shapes::CreateSubnetResult, ApiError> {
    let ipv6 = request.ipv6_cidr_block.is_some()
        || request.ipv6_native == Some(true)
        || request.ipv6_ipam_pool_id.is_some()
        || request.ipv6_netmask_length.is_some();
    let ipam = request.ipv4_ipam_pool_id.is_some() || request.ipv4_netmask_length.is_some();
    error::refuse(&[
        (ipv6, "IPv6"),
        (ipam, "Allocation of CIDR blocks by IPAM"),
        (request.outpost_arn.is_some(), "An Outpost"),
    ])?;
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record.id;
    let text = request
        .cidr_block
        .as_deref()
        .ok_or_else(|| error::missing("cidrBlock"))?;
    let block = block::read("cidrBlock", text)?;
    let zone = zone(
        ctx,
        request.availability_zone.as_deref(),
        request.availability_zone_id.as_deref(),
    )?;
    let tags = tags::specified(request.tag_specifications.as_ref(), Subnet::TYPE)?;
    let made = in_vpc(ctx, vpc, |vpc, batch| {
        if !fits(&block) || !vpc.contains(&block) {
            return Err(block::range("InvalidSubnet.Range", text));
        }
        let subnets = of_vpc::<Subnet>(ctx, vpc.id)?;
        if subnets.iter().any(|one| overlap(&one.record.block, &block)) {
            let text = format!("The CIDR '{text}' conflicts with another subnet");
            return Err(ApiError::client("InvalidSubnet.Conflict", text));
        }
        if subnets.len() >= ctx.platform.settings().ec2.quotas.subnets_per_vpc {
            let text = "The maximum number of subnets has been reached.";
            return Err(error::limit("SubnetLimitExceeded", text));
        }
        let subnet = Subnet {
            id: new_id(ctx)?,
            vpc: vpc.id,
            block,
            zone: zone.clone(),
            addresses: BTreeMap::new(),
            map_public_ip: false,
            launch_names: LaunchNames::default(),
            is_default: false,
            created: ctx.clock.now(),
            tags: tags.clone(),
        };
        // A new subnet is in the default network ACL (NET-22).
        let acls = of_vpc::<NetworkAcl>(ctx, vpc.id)?;
        let mut acl = acls
            .into_iter()
            .find(|acl| acl.record.is_default)
            .ok_or_else(|| ApiError::internal(format!("{} has no default network ACL", vpc.id)))?;
        acl.record.associations.insert(new_id(ctx)?, subnet.id);
        let batch = put(batch, &acl)?;
        Ok((add(ctx, batch, &subnet)?, subnet))
    })?;
    Ok(shapes::CreateSubnetResult {
        subnet: Some(view(&ctx.caller.scope, &made)),
    })
}

/// The zone of a request; the first one where it names none.
fn zone(ctx: &Ctx<'_>, name: Option<&str>, id: Option<&str>) -> Result<Zone, ApiError> {
    let zones = ctx.platform.settings().ec2.zones(&ctx.caller.scope.region);
    let names: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
    let bad = |parameter: &str, value: &str| {
        let which = format!(
            "Subnets can currently only be created in the following availability zones: {}.",
            names.join(", ")
        );
        error::bad_value(parameter, value, &which)
    };
    let named = |zone: &&Zone| name.is_none_or(|name| zone.name == name) && id.is_none_or(|id| zone.id == id);
    let found = zones.iter().find(named).cloned();
    found.ok_or_else(|| match (name, id) {
        (None, Some(id)) => bad("availabilityZoneId", id),
        (name, _) => bad("availabilityZone", name.unwrap_or_default()),
    })
}

fn delete(request: shapes::DeleteSubnetRequest, ctx: &Ctx<'_>) -> Result<shapes::DeleteSubnetOutput, ApiError> {
    let subnet = find::<Subnet>(ctx, &request.subnet_id)?.record;
    in_vpc(ctx, subnet.vpc, |vpc, batch| {
        let found = find::<Subnet>(ctx, &request.subnet_id)?;
        let id = found.record.id;
        if !found.record.addresses.is_empty() {
            return Err(error::has_dependencies("subnet", id));
        }
        let mut batch = remove(batch, &found);
        for mut acl in of_vpc::<NetworkAcl>(ctx, vpc.id)? {
            if acl.record.associations.values().any(|one| *one == id) {
                acl.record.associations.retain(|_, one| *one != id);
                batch = put(batch, &acl)?;
            }
        }
        for mut table in of_vpc::<RouteTable>(ctx, vpc.id)? {
            if table.record.subnets().any(|one| one == id) {
                let associations = &mut table.record.associations;
                associations.retain(|_, with| *with != Associated::Subnet(id));
                batch = put(batch, &table)?;
            }
        }
        let logs = of_vpc::<FlowLog>(ctx, vpc.id)?;
        let about = logs
            .iter()
            .filter(|log| log.record.about == FlowLogResource::Subnet(id));
        Ok((about.fold(batch, remove), ()))
    })?;
    Ok(shapes::DeleteSubnetOutput::default())
}

/// Filters of DescribeSubnets.
const FILTERS: &[&str] = &[
    "availability-zone",
    "availability-zone-id",
    "availabilityZone",
    "availabilityZoneId",
    "available-ip-address-count",
    "cidr",
    "cidr-block",
    "cidrBlock",
    "default-for-az",
    "defaultForAz",
    "enable-dns64",
    "ipv6-cidr-block-association.association-id",
    "ipv6-cidr-block-association.ipv6-cidr-block",
    "ipv6-cidr-block-association.state",
    "ipv6-native",
    "map-public-ip-on-launch",
    "outpost-arn",
    "owner-id",
    "private-dns-name-options-on-launch.enable-resource-name-dns-a-record",
    "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record",
    "private-dns-name-options-on-launch.hostname-type",
    "state",
    "subnet-arn",
    "subnet-id",
    "vpc-id",
];

fn describe(request: shapes::DescribeSubnetsRequest, ctx: &Ctx<'_>) -> Result<shapes::DescribeSubnetsResult, ApiError> {
    let asked = Asked {
        ids: request.subnet_ids,
        filters: request.filters,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let scope = &ctx.caller.scope;
    let (subnets, next_token) = records(ctx, asked, FILTERS, |subnet: &Subnet, filter| {
        let one = match filter {
            "availability-zone" | "availabilityZone" => subnet.zone.name.clone(),
            "availability-zone-id" | "availabilityZoneId" => subnet.zone.id.clone(),
            "available-ip-address-count" => subnet.available().to_string(),
            "cidr" | "cidr-block" | "cidrBlock" => subnet.block.to_string(),
            "default-for-az" | "defaultForAz" => subnet.is_default.to_string(),
            "enable-dns64" | "ipv6-native" => "false".into(),
            "map-public-ip-on-launch" => subnet.map_public_ip.to_string(),
            "owner-id" => scope.account.to_string(),
            "private-dns-name-options-on-launch.enable-resource-name-dns-a-record" => {
                subnet.launch_names.a_record.to_string()
            }
            "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record" => "false".into(),
            "private-dns-name-options-on-launch.hostname-type" => hostname_type(subnet).to_string(),
            "state" => "available".into(),
            "subnet-arn" => subnet.arn(scope).to_string(),
            "subnet-id" => subnet.id.to_string(),
            "vpc-id" => subnet.vpc.to_string(),
            _ => return Vec::new(),
        };
        vec![one]
    })?;
    Ok(shapes::DescribeSubnetsResult {
        subnets: shown(subnets.iter().map(|subnet| view(scope, subnet)).collect()),
        next_token,
    })
}

fn hostname_type(subnet: &Subnet) -> shapes::HostnameType {
    match subnet.launch_names.by_resource {
        true => shapes::HostnameType::ResourceName,
        false => shapes::HostnameType::IpName,
    }
}

/// A subnet as answers have it.
fn view(scope: &Scope, subnet: &Subnet) -> shapes::Subnet {
    shapes::Subnet {
        availability_zone_id: Some(subnet.zone.id.clone()),
        map_customer_owned_ip_on_launch: Some(false),
        owner_id: Some(scope.account.to_string()),
        assign_ipv6_address_on_creation: Some(false),
        tags: tags::shown(&subnet.tags),
        subnet_arn: Some(subnet.arn(scope).to_string()),
        enable_dns64: Some(false),
        ipv6_native: Some(false),
        private_dns_name_options_on_launch: Some(shapes::PrivateDnsNameOptionsOnLaunch {
            hostname_type: Some(hostname_type(subnet)),
            enable_resource_name_dns_a_record: Some(subnet.launch_names.a_record),
            enable_resource_name_dns_aaaa_record: Some(false),
        }),
        subnet_id: Some(subnet.id.to_string()),
        state: Some(shapes::SubnetState::Available),
        vpc_id: Some(subnet.vpc.to_string()),
        cidr_block: Some(subnet.block.to_string()),
        available_ip_address_count: Some(subnet.available().into()),
        availability_zone: Some(subnet.zone.name.clone()),
        default_for_az: Some(subnet.is_default),
        map_public_ip_on_launch: Some(subnet.map_public_ip),
        ..Default::default()
    }
}

fn modify(
    request: shapes::ModifySubnetAttributeRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::ModifySubnetAttributeOutput, ApiError> {
    let value = |given: &Option<shapes::AttributeBooleanValue>| given.as_ref().and_then(|given| given.value);
    let set = |given: &Option<shapes::AttributeBooleanValue>| value(given) == Some(true);
    error::refuse(&[
        (set(&request.assign_ipv6_address_on_creation), "IPv6"),
        (set(&request.enable_dns64), "DNS64"),
        (set(&request.enable_resource_name_dns_aaaa_record_on_launch), "IPv6"),
        (
            set(&request.map_customer_owned_ip_on_launch) || request.customer_owned_ipv4_pool.is_some(),
            "An Outpost",
        ),
        (
            request.enable_lni_at_device_index.is_some() || set(&request.disable_lni_at_device_index),
            "A local network interface",
        ),
    ])?;
    let (public, a_record) = (
        value(&request.map_public_ip_on_launch),
        value(&request.enable_resource_name_dns_a_record_on_launch),
    );
    let ignored = [
        value(&request.assign_ipv6_address_on_creation),
        value(&request.enable_dns64),
        value(&request.enable_resource_name_dns_aaaa_record_on_launch),
        value(&request.map_customer_owned_ip_on_launch),
        value(&request.disable_lni_at_device_index),
    ];
    let host = request.private_dns_hostname_type_on_launch;
    let given = [public, a_record, host.map(|_| true)]
        .into_iter()
        .chain(ignored)
        .flatten();
    match given.count() {
        0 => return Err(error::missing("attribute value")),
        1 => {}
        _ => return Err(error::combination("Fields for multiple attribute types specified")),
    }
    again(ctx, || {
        let mut found = find::<Subnet>(ctx, &request.subnet_id)?;
        let subnet = &mut found.record;
        subnet.map_public_ip = public.unwrap_or(subnet.map_public_ip);
        subnet.launch_names.a_record = a_record.unwrap_or(subnet.launch_names.a_record);
        if let Some(host) = host {
            subnet.launch_names.by_resource = host == shapes::HostnameType::ResourceName;
        }
        Ok((put(isolarium_store::state::Batch::default(), &found)?, ()))
    })?;
    Ok(shapes::ModifySubnetAttributeOutput::default())
}
