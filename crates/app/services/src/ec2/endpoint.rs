//! VPC endpoints: gateway endpoints for S3 (NET-32..38, BT-13..16), and what they share with interface endpoints.

use super::change::{in_vpc, put, remove};
use super::noun::{every, find, new_id, of_vpc, referred};
use super::operation::operation;
use super::page::{self, Asked};
use super::questions::Kind;
use super::token::{Outcome, once};
use super::{endpoint_interface, endpoint_service, error, shapes, tags};
use crate::Ctx;
use crate::dispatch::{Handler, handler};
use isolarium_model::ec2::id::{EndpointId, GroupId, PrefixListId, RouteTableId, SubnetId, VpcId};
use isolarium_model::ec2::{
    EndpointKind, EndpointService, EndpointState, RouteTable, SecurityGroup, Subnet, Vpc, VpcEndpoint, key, prefix_list,
};
use isolarium_policy::{Document, DocumentKind};
use isolarium_store::state::{Batch, Expect};
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};

/// Most characters of a policy (NET-35).
const MAX_POLICY: usize = 20_480;

/// What an endpoint without a policy of its own has: everyone, everything (NET-35, BT-16).
pub const FULL_ACCESS: &str =
    r#"{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}"#;

pub(super) fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::CreateVpcEndpointRequest>(),
        handler::<shapes::DeleteVpcEndpointsRequest>(),
        handler::<shapes::DescribeVpcEndpointServicesRequest>(),
        handler::<shapes::DescribeVpcEndpointsRequest>(),
        handler::<shapes::ModifyVpcEndpointRequest>(),
    ]
}

operation!("CreateVpcEndpoint", CreateVpcEndpointRequest -> CreateVpcEndpointResult, create);
operation!("DeleteVpcEndpoints", DeleteVpcEndpointsRequest -> DeleteVpcEndpointsResult, delete);
operation!("DescribeVpcEndpoints", DescribeVpcEndpointsRequest -> DescribeVpcEndpointsResult, describe);
operation!("ModifyVpcEndpoint", ModifyVpcEndpointRequest -> ModifyVpcEndpointResult, modify);

pub(super) fn no_service(name: &str) -> ApiError {
    let text = format!("The Vpc Endpoint Service '{name}' does not exist");
    ApiError::client("InvalidServiceName", text)
}

pub(super) fn parameter(text: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameter", text)
}

/// A policy document that can be evaluated: exactly one, of the right size, with principals (NET-35, IAM-31, VPC-25).
pub(super) fn policy(text: &str) -> Result<String, ApiError> {
    let invalid = |why: String| {
        let text = format!("The specified policy document is not a valid JSON policy document. {why}");
        ApiError::client("InvalidPolicyDocument", text)
    };
    if text.chars().count() > MAX_POLICY {
        return Err(invalid(format!("It has more than {MAX_POLICY} characters.")));
    }
    Document::parse(text, DocumentKind::Endpoint).map_err(|error| invalid(format!("{error}.")))?;
    Ok(text.to_owned())
}

/// Refuses what only interface endpoints have.
fn gateway_only(given: &[(bool, &str)]) -> Result<(), ApiError> {
    let interface = given.iter().find(|(present, _)| *present);
    interface.map_or(Ok(()), |(_, what)| {
        Err(parameter(format!(
            "{what} can only be specified for Interface type VPC Endpoints."
        )))
    })
}

pub(super) fn some<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

/// What a new endpoint is to lead to.
enum Wanted {
    /// S3 by routes.
    Gateway(String),
    /// A service by interfaces.
    Interface(EndpointService),
}

/// The service of a new endpoint, which must be offered by endpoints of the wanted type (NET-32, NET-40).
fn wanted(request: &shapes::CreateVpcEndpointRequest, ctx: &Ctx<'_>) -> Result<Wanted, ApiError> {
    let region = &ctx.caller.scope.region;
    let name = request
        .service_name
        .as_deref()
        .ok_or_else(|| error::missing("ServiceName"))?;
    let service = endpoint_service::offered(ctx, name).ok_or_else(|| no_service(name))?;
    match request.vpc_endpoint_type.unwrap_or(shapes::VpcEndpointType::Gateway) {
        shapes::VpcEndpointType::Gateway if service == EndpointService::S3 => {
            Ok(Wanted::Gateway(prefix_list::s3_service_name(region)))
        }
        shapes::VpcEndpointType::Gateway => Err(parameter(format!(
            "Endpoint type (Gateway) does not match available service types ([Interface]) of {name}."
        ))),
        shapes::VpcEndpointType::Interface => Ok(Wanted::Interface(service)),
        other => Err(error::unsupported(&format!("A VPC endpoint of type {other}"))),
    }
}

/// Tables of the VPC that may get the route of an endpoint (NET-32): none of them has one of another endpoint.
fn tables(
    ctx: &Ctx<'_>,
    vpc: VpcId,
    own: Option<EndpointId>,
    list: PrefixListId,
    given: Option<&Vec<String>>,
) -> Result<BTreeSet<RouteTableId>, ApiError> {
    let mut wanted = BTreeSet::new();
    for id in given.into_iter().flatten() {
        let table = find::<RouteTable>(ctx, id)?.record;
        if table.vpc != vpc {
            return Err(parameter(format!("Route table {id} does not belong to VPC {vpc}")));
        }
        wanted.insert(table.id);
    }
    for other in of_vpc::<VpcEndpoint>(ctx, vpc)? {
        let other = other.record;
        let taken = other.route_tables().filter(|_| Some(other.id) != own);
        if taken.is_some_and(|taken| !taken.is_disjoint(&wanted)) {
            let text = format!("The route identified by {list} already exists");
            return Err(ApiError::client("RouteAlreadyExists", text));
        }
    }
    Ok(wanted)
}

fn create(
    request: shapes::CreateVpcEndpointRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::CreateVpcEndpointResult, ApiError> {
    let wanted = wanted(&request, ctx)?;
    let region = ctx.caller.scope.region.to_string();
    error::refuse(&[
        (
            request
                .ip_address_type
                .is_some_and(|kind| kind != shapes::IpAddressType::Ipv4),
            "IPv6 on a VPC endpoint",
        ),
        (request.service_network_arn.is_some(), "ServiceNetworkArn"),
        (request.resource_configuration_arn.is_some(), "ResourceConfigurationArn"),
        (
            request.service_region.as_ref().is_some_and(|other| *other != region),
            "A VPC endpoint for a service of another region",
        ),
    ])?;
    match wanted {
        Wanted::Gateway(service_name) => create_gateway(request, ctx, &service_name),
        Wanted::Interface(service) => endpoint_interface::create(request, ctx, service),
    }
}

fn create_gateway(
    request: shapes::CreateVpcEndpointRequest,
    ctx: &Ctx<'_>,
    service_name: &str,
) -> Result<shapes::CreateVpcEndpointResult, ApiError> {
    gateway_only(&[
        (some(request.subnet_ids.as_ref()), "Subnets"),
        (some(request.security_group_ids.as_ref()), "Security groups"),
        (some(request.subnet_configurations.as_ref()), "Subnet configurations"),
        (request.private_dns_enabled == Some(true), "Private DNS"),
        (request.dns_options.is_some(), "DNS options"),
    ])?;
    let policy = policy(request.policy_document.as_deref().unwrap_or(FULL_ACCESS))?;
    let tags = tags::specified(request.tag_specifications.as_ref(), Kind::VpcEndpoint.name())?;
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record.id;
    let list = prefix_list::s3(&ctx.caller.scope.region);
    let (token, given) = (request.client_token.clone(), request.route_table_ids.clone());
    let outcome = once(ctx, "CreateVpcEndpoint", token.as_deref(), request, || {
        // The VPC first: whatever of it is read afterwards is unchanged when the batch commits (vpc-generation).
        let mut found = referred::<Vpc>(ctx, vpc)?;
        let route_tables = tables(ctx, vpc, None, list, given.as_ref())?;
        let gateways = every::<VpcEndpoint>(ctx)?;
        let gateways = gateways
            .iter()
            .filter(|found| found.record.route_tables().is_some())
            .count();
        if gateways >= ctx.platform.settings().ec2.quotas.gateway_endpoints {
            let text = "The maximum number of VPC endpoints has been reached.";
            return Err(error::limit("VpcEndpointLimitExceeded", text));
        }
        let endpoint = VpcEndpoint {
            id: new_id(ctx)?,
            vpc,
            service_name: service_name.to_owned(),
            kind: EndpointKind::Gateway {
                prefix_list: list,
                route_tables,
            },
            state: EndpointState::Available,
            policy: policy.clone(),
            created: ctx.clock.now(),
            tags: tags.clone(),
        };
        found.record.generation = found.record.generation.saturating_add(1);
        let batch = Batch::default()
            .put(&key(&ctx.caller.scope, endpoint.id), Expect::Absent, &endpoint)
            .map_err(error::stored)?;
        Ok((put(batch, &found)?, (endpoint.id.to_string(), endpoint)))
    })?;
    let endpoint = match outcome {
        Outcome::Made(endpoint) => endpoint,
        Outcome::Before(id) => find::<VpcEndpoint>(ctx, &id)?.record,
    };
    Ok(shapes::CreateVpcEndpointResult {
        vpc_endpoint: Some(view(ctx, &endpoint, &Known::default())),
        client_token: token,
    })
}

fn modify(
    request: shapes::ModifyVpcEndpointRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::ModifyVpcEndpointResult, ApiError> {
    let endpoint = find::<VpcEndpoint>(ctx, &request.vpc_endpoint_id)?.record;
    let other_addresses = request
        .ip_address_type
        .is_some_and(|kind| kind != shapes::IpAddressType::Ipv4);
    error::refuse(&[(other_addresses, "IPv6 on a VPC endpoint")])?;
    let reset = request.reset_policy == Some(true);
    if reset && request.policy_document.is_some() {
        return Err(error::combination("ResetPolicy and PolicyDocument exclude each other."));
    }
    let text = if reset {
        Some(FULL_ACCESS)
    } else {
        request.policy_document.as_deref()
    };
    let policy = text.map(policy).transpose()?;
    if endpoint.route_tables().is_none() {
        return endpoint_interface::modify(&request, ctx, &endpoint, policy);
    }
    gateway_only(&[
        (
            some(request.add_subnet_ids.as_ref()) || some(request.remove_subnet_ids.as_ref()),
            "Subnets",
        ),
        (
            some(request.add_security_group_ids.as_ref()) || some(request.remove_security_group_ids.as_ref()),
            "Security groups",
        ),
        (some(request.subnet_configurations.as_ref()), "Subnet configurations"),
        (request.private_dns_enabled == Some(true), "Private DNS"),
        (request.dns_options.is_some(), "DNS options"),
    ])?;
    in_vpc(ctx, endpoint.vpc, |vpc, batch| {
        let mut found = referred::<VpcEndpoint>(ctx, endpoint.id)?;
        let record = &mut found.record;
        if let Some(policy) = &policy {
            record.policy.clone_from(policy);
        }
        if let EndpointKind::Gateway {
            prefix_list,
            route_tables,
        } = &mut record.kind
        {
            for id in request.remove_route_table_ids.iter().flatten() {
                let table = find::<RouteTable>(ctx, id)?.record.id;
                if !route_tables.remove(&table) {
                    let text = format!("Route table {id} is not associated with VPC endpoint {}", endpoint.id);
                    return Err(parameter(text));
                }
            }
            let added = request.add_route_table_ids.as_ref();
            route_tables.extend(tables(ctx, vpc.id, Some(endpoint.id), *prefix_list, added)?);
        }
        Ok((put(batch, &found)?, ()))
    })?;
    Ok(shapes::ModifyVpcEndpointResult { r#return: Some(true) })
}

/// Removes each endpoint by itself; what cannot be removed is told, and the others go.
fn delete(
    request: shapes::DeleteVpcEndpointsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DeleteVpcEndpointsResult, ApiError> {
    let mut unsuccessful = Vec::new();
    for id in &request.vpc_endpoint_ids {
        let gone = find::<VpcEndpoint>(ctx, id).and_then(|found| {
            if found.record.route_tables().is_none() {
                return endpoint_interface::delete(ctx, &found.record);
            }
            in_vpc(ctx, found.record.vpc, |_, batch| {
                let found = referred::<VpcEndpoint>(ctx, found.record.id)?;
                Ok((remove(batch, &found), ()))
            })
        });
        match gone {
            Ok(()) => {}
            Err(fault) if fault.status >= 500 => return Err(fault),
            Err(fault) => unsuccessful.push(unsuccessful_item(id, fault)),
        }
    }
    Ok(shapes::DeleteVpcEndpointsResult {
        unsuccessful: Some(unsuccessful),
    })
}

/// A part of a request that was not carried out.
pub(super) fn unsuccessful_item(id: &str, fault: ApiError) -> shapes::UnsuccessfulItem {
    shapes::UnsuccessfulItem {
        error: Some(shapes::UnsuccessfulItemError {
            code: Some(fault.code),
            message: Some(fault.message),
        }),
        resource_id: Some(id.to_owned()),
    }
}

const FILTERS: &[&str] = &[
    "ip-address-type",
    "service-name",
    "service-region",
    "vpc-endpoint-id",
    "vpc-endpoint-state",
    "vpc-endpoint-type",
    "vpc-id",
];

fn describe(
    request: shapes::DescribeVpcEndpointsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeVpcEndpointsResult, ApiError> {
    let asked = Asked {
        ids: request.vpc_endpoint_ids,
        filters: request.filters,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let (found, next_token) = page::records::<VpcEndpoint>(ctx, asked, FILTERS, |endpoint, name| {
        vec![match name {
            "ip-address-type" => "ipv4".to_owned(),
            "service-name" => endpoint.service_name.clone(),
            "service-region" => ctx.caller.scope.region.to_string(),
            "vpc-endpoint-id" => endpoint.id.to_string(),
            "vpc-endpoint-state" => endpoint.state.to_string(),
            "vpc-endpoint-type" => kind(endpoint).to_string(),
            _ => endpoint.vpc.to_string(),
        }]
    })?;
    let known = Known::read(ctx)?;
    Ok(shapes::DescribeVpcEndpointsResult {
        vpc_endpoints: Some(found.iter().map(|endpoint| view(ctx, endpoint, &known)).collect()),
        next_token,
    })
}

fn kind(endpoint: &VpcEndpoint) -> shapes::VpcEndpointType {
    match endpoint.kind {
        EndpointKind::Gateway { .. } => shapes::VpcEndpointType::Gateway,
        EndpointKind::Interface { .. } => shapes::VpcEndpointType::Interface,
    }
}

/// What views of interface endpoints need beside the record, read once for all of them.
#[derive(Default)]
pub(super) struct Known {
    /// Names of security groups.
    groups: BTreeMap<GroupId, String>,
    /// Names of subnets' zones.
    zones: BTreeMap<SubnetId, String>,
}

impl Known {
    pub(super) fn read(ctx: &Ctx<'_>) -> Result<Self, ApiError> {
        let groups = every::<SecurityGroup>(ctx)?.into_iter().map(|found| found.record);
        let subnets = every::<Subnet>(ctx)?.into_iter().map(|found| found.record);
        Ok(Self {
            groups: groups.map(|group| (group.id, group.name)).collect(),
            zones: subnets.map(|subnet| (subnet.id, subnet.zone.name)).collect(),
        })
    }
}

/// An endpoint as answers have it.
pub(super) fn view(ctx: &Ctx<'_>, endpoint: &VpcEndpoint, known: &Known) -> shapes::VpcEndpoint {
    let scope = &ctx.caller.scope;
    let mut view = shapes::VpcEndpoint {
        vpc_endpoint_id: Some(endpoint.id.to_string()),
        vpc_endpoint_type: Some(kind(endpoint)),
        vpc_id: Some(endpoint.vpc.to_string()),
        service_name: Some(endpoint.service_name.clone()),
        state: Some(endpoint.state.to_string()),
        policy_document: Some(endpoint.policy.clone()),
        // EC2 answers empty lists here, and its clients index them.
        route_table_ids: Some(Vec::new()),
        subnet_ids: Some(Vec::new()),
        groups: Some(Vec::new()),
        ip_address_type: Some(shapes::IpAddressType::Ipv4),
        private_dns_enabled: Some(false),
        requester_managed: Some(false),
        network_interface_ids: Some(Vec::new()),
        dns_entries: Some(Vec::new()),
        creation_timestamp: Some(endpoint.created.0),
        tags: tags::shown(&endpoint.tags),
        owner_id: Some(scope.account.to_string()),
        service_region: Some(scope.region.to_string()),
        ..Default::default()
    };
    match &endpoint.kind {
        EndpointKind::Gateway { route_tables, .. } => {
            view.route_table_ids = Some(route_tables.iter().map(ToString::to_string).collect());
        }
        EndpointKind::Interface {
            service,
            interfaces,
            groups,
            private_dns,
            only_inbound,
            suffix,
        } => {
            view.subnet_ids = Some(interfaces.keys().map(ToString::to_string).collect());
            view.network_interface_ids = Some(interfaces.values().map(ToString::to_string).collect());
            view.private_dns_enabled = Some(*private_dns);
            let groups = groups.iter().map(|id| shapes::SecurityGroupIdentifier {
                group_id: Some(id.to_string()),
                group_name: known.groups.get(id).cloned(),
            });
            view.groups = Some(groups.collect());
            view.dns_options = Some(shapes::DnsOptions {
                dns_record_ip_type: Some(shapes::DnsRecordIpType::Ipv4),
                private_dns_only_for_inbound_resolver_endpoint: (*service == EndpointService::S3)
                    .then_some(*only_inbound),
                ..Default::default()
            });
            // NET-43: regional, zonal, private.
            let zones: BTreeSet<&str> = interfaces
                .keys()
                .filter_map(|subnet| known.zones.get(subnet))
                .map(String::as_str)
                .collect();
            let mut names = service.own_names(&scope.region, endpoint.id, suffix, zones.into_iter());
            if *private_dns {
                names.extend(service.private_names(&scope.region));
            }
            let entry = |name| shapes::DnsEntry {
                dns_name: Some(name),
                hosted_zone_id: None,
            };
            view.dns_entries = Some(names.into_iter().map(entry).collect());
        }
    }
    view
}

#[cfg(test)]
mod tests;
