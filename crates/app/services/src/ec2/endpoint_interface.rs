//! Interface endpoints (NET-40..47): an interface in each chosen subnet, under groups of their own, and names that lead to
//! them. The reconciler brings them to the host and takes them off it; the state says which.

use super::block;
use super::change::{Made, add, in_vpc, put, stepped};
use super::endpoint::{FULL_ACCESS, Known, parameter, policy, some, view};
use super::interface::{gone, groups, taken};
use super::noun::{every, find, new_id, of_vpc, referred};
use super::questions::Kind;
use super::token::{Outcome, once};
use super::{error, shapes, tags};
use crate::Ctx;
use isolarium_model::ec2::id::{EndpointId, InterfaceId, SubnetId};
use isolarium_model::ec2::interface::Attachment;
use isolarium_model::ec2::{
    EndpointKind, EndpointService, EndpointState, Holder, NetworkInterface, Requester, Resource, Subnet, Tags, Vpc,
    VpcEndpoint,
};
use isolarium_store::state::Batch;
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// `RequesterId` of the interfaces of endpoints (NET-11).
const REQUESTER: &str = "amazon-vpc-endpoint";

/// What a request says of names.
#[derive(Clone, Copy)]
struct Dns {
    private: Option<bool>,
    only_inbound: Option<bool>,
}

impl Dns {
    fn read(
        service: EndpointService,
        private: Option<bool>,
        options: Option<&shapes::DnsOptionsSpecification>,
    ) -> Result<Self, ApiError> {
        let only_inbound = options.and_then(|given| given.private_dns_only_for_inbound_resolver_endpoint);
        if let Some(options) = options {
            let other = options.dns_record_ip_type.is_some_and(|kind| {
                !matches!(
                    kind,
                    shapes::DnsRecordIpType::Ipv4 | shapes::DnsRecordIpType::ServiceDefined
                )
            });
            error::refuse(&[
                (other, "IPv6 on a VPC endpoint"),
                (
                    options.private_dns_preference.is_some() || options.private_dns_specified_domains.is_some(),
                    "Private DNS for chosen domains",
                ),
            ])?;
        }
        if only_inbound.is_some() && service != EndpointService::S3 {
            let text =
                "PrivateDnsOnlyForInboundResolverEndpoint is available for services with gateway endpoints alone.";
            return Err(parameter(text));
        }
        Ok(Self { private, only_inbound })
    }
}

/// Addresses that a request wants in subnets.
fn wanted_addresses(
    configurations: Option<&Vec<shapes::SubnetConfiguration>>,
    subnets: &[String],
) -> Result<BTreeMap<String, Ipv4Addr>, ApiError> {
    let mut wanted = BTreeMap::new();
    for one in configurations.into_iter().flatten() {
        let subnet = one.subnet_id.as_ref().ok_or_else(|| error::missing("SubnetId"))?;
        error::refuse(&[(one.ipv6.is_some(), "IPv6 on a VPC endpoint")])?;
        if !subnets.contains(subnet) {
            let text =
                format!("The subnet {subnet} of a subnet configuration is not among the subnets of the request.");
            return Err(parameter(text));
        }
        if let Some(text) = &one.ipv4
            && wanted.insert(subnet.clone(), block::address("Ipv4", text)?).is_some()
        {
            return Err(parameter(format!("The subnet {subnet} has two configurations.")));
        }
    }
    Ok(wanted)
}

/// An endpoint in the making or changing, with what its interfaces are made of.
struct Placing<'a> {
    ctx: &'a Ctx<'a>,
    vpc: &'a Vpc,
    id: EndpointId,
    addresses: &'a BTreeMap<String, Ipv4Addr>,
}

impl Placing<'_> {
    /// An interface in each of `subnets`, one in each zone at most beside those of `held` (NET-41).
    fn place(
        &self,
        subnets: &[String],
        carried: &BTreeSet<isolarium_model::ec2::id::GroupId>,
        held: &BTreeMap<SubnetId, InterfaceId>,
        mut batch: Batch,
    ) -> Made<BTreeMap<SubnetId, InterfaceId>> {
        let Self { ctx, vpc, .. } = *self;
        let mut zones = BTreeSet::new();
        for subnet in held.keys() {
            zones.insert(referred::<Subnet>(ctx, *subnet)?.record.zone.name);
        }
        let count = every::<NetworkInterface>(ctx)?.len() + subnets.len();
        if !subnets.is_empty() && count > ctx.platform.settings().ec2.quotas.network_interfaces {
            let text = "The maximum number of network interfaces has been reached.";
            return Err(error::limit("NetworkInterfaceLimitExceeded", text));
        }
        let mut made = BTreeMap::new();
        for given in subnets {
            let mut subnet = find::<Subnet>(ctx, given)?;
            if subnet.record.vpc != vpc.id {
                return Err(parameter(format!(
                    "The subnet {given} does not belong to VPC {}",
                    vpc.id
                )));
            }
            if !zones.insert(subnet.record.zone.name.clone()) {
                let text = format!("Found another VPC endpoint subnet in the availability zone of {given}");
                return Err(ApiError::client("DuplicateSubnetsInSameZone", text));
            }
            let interface = new_id(ctx)?;
            let wanted = self.addresses.get(given).copied();
            let address = taken(ctx, &mut subnet.record, interface, wanted)?;
            let now = ctx.clock.now();
            let record = NetworkInterface {
                id: interface,
                vpc: vpc.id,
                subnet: subnet.record.id,
                zone: subnet.record.zone.clone(),
                primary: address,
                secondary: BTreeSet::new(),
                groups: carried.clone(),
                description: format!("VPC Endpoint Interface {}", self.id),
                source_dest_check: true,
                requester: Some(Requester {
                    id: REQUESTER.into(),
                    owner: None,
                    owner_arn: Some(
                        isolarium_model::ec2::arn(&ctx.caller.scope, VpcEndpoint::TYPE, &self.id.to_string())
                            .to_string(),
                    ),
                }),
                holder: Holder::Endpoint(self.id),
                attachment: Some(Attachment {
                    id: new_id(ctx)?,
                    attached: now,
                    device: 1,
                }),
                created: now,
                tags: Tags::new(),
            };
            batch = add(ctx, put(batch, &subnet)?, &record)?;
            made.insert(subnet.record.id, interface);
        }
        Ok((batch, made))
    }
}

/// Private DNS as it may be (NET-44): both attributes of the VPC, and no other endpoint with the same names.
fn check_private_dns(ctx: &Ctx<'_>, vpc: &Vpc, own: EndpointId, service: EndpointService) -> Result<(), ApiError> {
    if !(vpc.dns_support && vpc.dns_hostnames) {
        let text = format!(
            "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to true for {}",
            vpc.id
        );
        return Err(parameter(text));
    }
    let region = &ctx.caller.scope.region;
    for other in of_vpc::<VpcEndpoint>(ctx, vpc.id)? {
        let other = other.record;
        let EndpointKind::Interface {
            service: same,
            private_dns: true,
            ..
        } = other.kind
        else {
            continue;
        };
        if other.id != own && same == service && other.is_wanted() {
            let name = service.private_names(region).into_iter().next().unwrap_or_default();
            let text = format!(
                "private-dns-enabled cannot be set because there is already a conflicting DNS domain for {name} in the VPC {}",
                vpc.id
            );
            return Err(parameter(text));
        }
    }
    Ok(())
}

/// The VPC's resolver goes on by the gateway endpoint, so there must be one.
fn check_only_inbound(ctx: &Ctx<'_>, vpc: &Vpc, private: bool) -> Result<(), ApiError> {
    let endpoints = of_vpc::<VpcEndpoint>(ctx, vpc.id)?;
    let gateway = endpoints.iter().any(|found| found.record.route_tables().is_some());
    if private && gateway {
        return Ok(());
    }
    let text = "PrivateDnsOnlyForInboundResolverEndpoint needs private DNS and a gateway endpoint for S3 in the VPC.";
    Err(parameter(text))
}

/// CreateVpcEndpoint with type Interface.
pub(super) fn create(
    request: shapes::CreateVpcEndpointRequest,
    ctx: &Ctx<'_>,
    service: EndpointService,
) -> Result<shapes::CreateVpcEndpointResult, ApiError> {
    let region = &ctx.caller.scope.region;
    if some(request.route_table_ids.as_ref()) {
        let text = "Route tables can only be specified for Gateway type VPC Endpoints.";
        return Err(parameter(text));
    }
    let given = request.policy_document.as_deref();
    if given.is_some() && !service.takes_policy() {
        return Err(no_policy(service, ctx));
    }
    let policy = policy(given.unwrap_or(FULL_ACCESS))?;
    let tags = tags::specified(request.tag_specifications.as_ref(), Kind::VpcEndpoint.name())?;
    let dns = Dns::read(service, request.private_dns_enabled, request.dns_options.as_ref())?;
    let subnets = distinct(request.subnet_ids.as_ref());
    let addresses = wanted_addresses(request.subnet_configurations.as_ref(), &subnets)?;
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record.id;
    let (token, chosen) = (request.client_token.clone(), request.security_group_ids.clone());
    let outcome = once(ctx, "CreateVpcEndpoint", token.as_deref(), request, || {
        stepped(ctx, vpc, |vpc, batch| {
            let endpoints = of_vpc::<VpcEndpoint>(ctx, vpc.id)?;
            let interfaces = endpoints.iter().filter(|found| found.record.interfaces().is_some());
            if interfaces.count() >= ctx.platform.settings().ec2.quotas.interface_endpoints_per_vpc {
                let text = "The maximum number of VPC endpoints has been reached.";
                return Err(error::limit("VpcEndpointLimitExceeded", text));
            }
            let id = new_id(ctx)?;
            let groups = groups(ctx, vpc, &format!("VPC {}", vpc.id), chosen.as_deref())?;
            // NET-44: the API's default.
            let private_dns = dns.private.unwrap_or(true);
            let only_inbound = dns.only_inbound.unwrap_or(false);
            if private_dns {
                check_private_dns(ctx, vpc, id, service)?;
            }
            if only_inbound {
                check_only_inbound(ctx, vpc, private_dns)?;
            }
            let placing = Placing {
                ctx,
                vpc,
                id,
                addresses: &addresses,
            };
            let (batch, interfaces) = placing.place(&subnets, &groups, &BTreeMap::new(), batch)?;
            let endpoint = VpcEndpoint {
                id,
                vpc: vpc.id,
                service_name: service.name(region),
                kind: EndpointKind::Interface {
                    service,
                    interfaces,
                    groups,
                    private_dns,
                    only_inbound,
                    suffix: ctx.ids.hex(8),
                },
                state: EndpointState::Pending,
                policy: policy.clone(),
                created: ctx.clock.now(),
                tags: tags.clone(),
            };
            Ok((add(ctx, batch, &endpoint)?, (id.to_string(), endpoint)))
        })
    })?;
    let endpoint = match outcome {
        Outcome::Made(endpoint) => endpoint,
        Outcome::Before(id) => find::<VpcEndpoint>(ctx, &id)?.record,
    };
    Ok(shapes::CreateVpcEndpointResult {
        vpc_endpoint: Some(view(ctx, &endpoint, &Known::read(ctx)?)),
        client_token: token,
    })
}

/// D-14.
fn no_policy(service: EndpointService, ctx: &Ctx<'_>) -> ApiError {
    let name = service.name(&ctx.caller.scope.region);
    parameter(format!("Endpoint policies are not supported for the service {name}."))
}

fn distinct(given: Option<&Vec<String>>) -> Vec<String> {
    let all: BTreeSet<&String> = given.into_iter().flatten().collect();
    all.into_iter().cloned().collect()
}

/// ModifyVpcEndpoint of an interface endpoint; `policy` is the new one, read already.
pub(super) fn modify(
    request: &shapes::ModifyVpcEndpointRequest,
    ctx: &Ctx<'_>,
    endpoint: &VpcEndpoint,
    policy: Option<String>,
) -> Result<shapes::ModifyVpcEndpointResult, ApiError> {
    if some(request.add_route_table_ids.as_ref()) || some(request.remove_route_table_ids.as_ref()) {
        let text = "Route tables can only be specified for Gateway type VPC Endpoints.";
        return Err(parameter(text));
    }
    let added = distinct(request.add_subnet_ids.as_ref());
    let addresses = wanted_addresses(request.subnet_configurations.as_ref(), &added)?;
    in_vpc(ctx, endpoint.vpc, |vpc, batch| {
        let mut found = referred::<VpcEndpoint>(ctx, endpoint.id)?;
        let record = &mut found.record;
        if !record.is_wanted() {
            let text = format!("The VPC endpoint {} is in the state {}.", record.id, record.state);
            return Err(ApiError::client("IncorrectState", text));
        }
        let EndpointKind::Interface {
            service,
            interfaces,
            groups: carried,
            private_dns,
            only_inbound,
            ..
        } = &mut record.kind
        else {
            return Err(ApiError::internal("an endpoint changed its type"));
        };
        if let Some(policy) = &policy {
            if !service.takes_policy() && request.policy_document.is_some() {
                return Err(no_policy(*service, ctx));
            }
            record.policy.clone_from(policy);
        }
        let dns = Dns::read(*service, request.private_dns_enabled, request.dns_options.as_ref())?;
        if dns.private == Some(true) && !*private_dns {
            check_private_dns(ctx, vpc, record.id, *service)?;
        }
        *private_dns = dns.private.unwrap_or(*private_dns);
        *only_inbound = dns.only_inbound.unwrap_or(*only_inbound && *private_dns);
        if *only_inbound {
            check_only_inbound(ctx, vpc, *private_dns)?;
        }
        let mut batch = batch;
        for id in distinct(request.remove_subnet_ids.as_ref()) {
            let subnet = find::<Subnet>(ctx, &id)?.record.id;
            let Some(interface) = interfaces.remove(&subnet) else {
                let text = format!("The subnet {id} is not associated with VPC endpoint {}", record.id);
                return Err(parameter(text));
            };
            if added.contains(&id) {
                return Err(parameter(format!(
                    "The subnet {id} is to be added and removed at once."
                )));
            }
            let interface = referred::<NetworkInterface>(ctx, interface)?;
            batch = gone(ctx, &interface, batch)?.0;
        }
        let before = carried.clone();
        for id in request.remove_security_group_ids.iter().flatten() {
            let known = id.parse().is_ok_and(|id| carried.remove(&id));
            if !known {
                let text = format!(
                    "The security group {id} is not associated with VPC endpoint {}",
                    record.id
                );
                return Err(parameter(text));
            }
        }
        let mut wanted: Vec<String> = carried.iter().map(ToString::to_string).collect();
        wanted.extend(request.add_security_group_ids.iter().flatten().cloned());
        if wanted.is_empty() {
            return Err(parameter("An interface endpoint needs at least one security group."));
        }
        *carried = groups(ctx, vpc, &format!("VPC {}", vpc.id), Some(&wanted))?;
        if *carried != before {
            for interface in interfaces.values() {
                let mut interface = referred::<NetworkInterface>(ctx, *interface)?;
                interface.record.groups.clone_from(carried);
                batch = put(batch, &interface)?;
            }
        }
        let placing = Placing {
            ctx,
            vpc,
            id: record.id,
            addresses: &addresses,
        };
        let (batch, made) = placing.place(&added, carried, interfaces, batch)?;
        interfaces.extend(made);
        Ok((put(batch, &found)?, ()))
    })?;
    Ok(shapes::ModifyVpcEndpointResult { r#return: Some(true) })
}

/// Begins the end of an endpoint: the reconciler takes it off the host and removes the records.
pub(super) fn delete(ctx: &Ctx<'_>, endpoint: &VpcEndpoint) -> Result<(), ApiError> {
    in_vpc(ctx, endpoint.vpc, |_, batch| {
        let mut found = referred::<VpcEndpoint>(ctx, endpoint.id)?;
        found.record.state = EndpointState::Deleting;
        Ok((put(batch, &found)?, ()))
    })
}

#[cfg(test)]
mod tests;
