//! Elastic IPs (NET-30).

use super::block;
use super::change::{Made, add, again, in_vpc, put, remove};
use super::default_vpc::{attributes, put_attributes};
use super::error;
use super::filter::Filters;
use super::noun::{Noun, every, find, get, new_id, of_vpc, parts_of, referred};
use super::operation::operation;
use super::page::{place, shown};
use super::shapes;
use super::tags;
use crate::Ctx;
use ipnet::Ipv4Net;
use isolarium_model::Scope;
use isolarium_model::ec2::elastic_ip::EipAssociation;
use isolarium_model::ec2::id::{EipAssociationId, InterfaceId, VpcId};
use isolarium_model::ec2::{ElasticIp, InternetGateway, NetworkInterface, PublicAddress, Resource, Vpc};
use isolarium_model::sagemaker::network::platform_scope;
use isolarium_store::state::{Batch, Expect, Query, Stored};
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

operation!("AllocateAddress", AllocateAddressRequest -> AllocateAddressResult, allocate);
operation!("ReleaseAddress", ReleaseAddressRequest -> ReleaseAddressOutput, release);
operation!("DescribeAddresses", DescribeAddressesRequest -> DescribeAddressesResult, describe);
operation!(
    "DescribeAddressesAttribute",
    DescribeAddressesAttributeRequest -> DescribeAddressesAttributeResult,
    describe_attribute
);
operation!("AssociateAddress", AssociateAddressRequest -> AssociateAddressResult, associate);
operation!("DisassociateAddress", DisassociateAddressRequest -> DisassociateAddressOutput, disassociate);

/// The name of the pool that every address here comes from.
const POOL: &str = "amazon";

fn allocate(request: shapes::AllocateAddressRequest, ctx: &Ctx<'_>) -> Result<shapes::AllocateAddressResult, ApiError> {
    let region = &ctx.caller.scope.region;
    let own_pool = request.public_ipv4_pool.as_deref().is_some_and(|pool| pool != POOL);
    let border = request.network_border_group.as_deref();
    error::refuse(&[
        (request.domain == Some(shapes::DomainType::Standard), "EC2-Classic"),
        (
            own_pool || request.customer_owned_ipv4_pool.is_some() || request.ipam_pool_id.is_some(),
            "An address pool of one's own",
        ),
        (request.address.is_some(), "Recovery of a released address"),
        (
            border.is_some_and(|group| group != region.as_str()),
            "A network border group",
        ),
    ])?;
    let tags = tags::specified(request.tag_specifications.as_ref(), ElasticIp::TYPE)?;
    let settings = &ctx.platform.settings().ec2;
    let made = again(ctx, || {
        let account = attributes(ctx.store, &ctx.caller.scope)?;
        if every::<ElasticIp>(ctx)?.len() >= settings.quotas.elastic_ips {
            let text = "The maximum number of addresses has been reached.";
            return Err(error::limit("AddressLimitExceeded", text));
        }
        let ip = ElasticIp {
            id: new_id(ctx)?,
            address: unused(ctx, settings.public_pool)?,
            association: None,
            created: ctx.clock.now(),
            tags: tags.clone(),
        };
        let lease = PublicAddress {
            allocation: ip.id,
            owner: ctx.caller.scope.clone(),
            allocated: ip.created,
        };
        let at = PublicAddress::key(ip.address).map_err(ApiError::internal)?;
        let batch = put_attributes(Batch::default(), account)?;
        let batch = batch.put(&at, Expect::Absent, &lease).map_err(error::stored)?;
        Ok((add(ctx, batch, &ip)?, ip))
    })?;
    Ok(shapes::AllocateAddressResult {
        allocation_id: Some(made.id.to_string()),
        public_ipv4_pool: Some(POOL.into()),
        network_border_group: Some(region.to_string()),
        domain: Some(shapes::DomainType::Vpc),
        public_ip: Some(made.address.to_string()),
        ..Default::default()
    })
}

/// An address of the pool that nobody has: a random one, or the next one after it.
fn unused(ctx: &Ctx<'_>, pool: Ipv4Net) -> Result<Ipv4Addr, ApiError> {
    let full = || {
        let text = "Insufficient Elastic IP addresses are available.";
        ApiError::client("InsufficientAddressCapacity", text)
    };
    let start = PublicAddress::candidate(pool, chance(ctx)?).ok_or_else(full)?;
    let scope = platform_scope().map_err(ApiError::internal)?;
    let leases = ctx
        .store
        .query_raw(<PublicAddress as isolarium_model::Record>::KIND, &Query::all(&scope));
    let rows = leases.map_err(error::stored)?.rows;
    let taken: BTreeSet<Ipv4Addr> = rows.iter().filter_map(|(key, ..)| key.name.parse().ok()).collect();
    let (first, last) = (u32::from(pool.network()) + 1, u32::from(pool.broadcast()));
    let (before, after) = (first..u32::from(start), u32::from(start)..last);
    let mut all = after.chain(before).map(Ipv4Addr::from);
    all.find(|address| !taken.contains(address)).ok_or_else(full)
}

/// A number that cannot be guessed.
pub(super) fn chance(ctx: &Ctx<'_>) -> Result<u64, ApiError> {
    u64::from_str_radix(&ctx.ids.hex(15), 16).map_err(ApiError::internal)
}

fn release(request: shapes::ReleaseAddressRequest, ctx: &Ctx<'_>) -> Result<shapes::ReleaseAddressOutput, ApiError> {
    let id = match (&request.allocation_id, &request.public_ip) {
        (Some(id), _) => id,
        (None, Some(_)) => {
            return Err(error::invalid(
                "You must specify an allocation id when releasing a VPC elastic IP address",
            ));
        }
        (None, None) => return Err(error::missing("allocationId")),
    };
    again(ctx, || {
        let found = find::<ElasticIp>(ctx, id)?;
        if found.record.association.is_some() {
            let text = format!("Address {} is in use.", found.record.address);
            return Err(ApiError::client("InvalidIPAddress.InUse", text));
        }
        let lease = PublicAddress::key(found.record.address).map_err(ApiError::internal)?;
        let batch = remove(Batch::default(), &found);
        Ok((batch.delete::<PublicAddress>(&lease, Expect::Any), ()))
    })?;
    Ok(shapes::ReleaseAddressOutput::default())
}

fn address_not_found(address: &str) -> ApiError {
    ApiError::client("InvalidAddress.NotFound", format!("Address '{address}' not found."))
}

/// Filters of DescribeAddresses.
const FILTERS: &[&str] = &[
    "allocation-id",
    "association-id",
    "domain",
    "instance-id",
    "network-border-group",
    "network-interface-id",
    "network-interface-owner-id",
    "private-ip-address",
    "public-ip",
];

fn describe(
    request: shapes::DescribeAddressesRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeAddressesResult, ApiError> {
    let filters = Filters::read(request.filters.as_ref(), FILTERS)?;
    let scope = &ctx.caller.scope;
    let mut all: Vec<ElasticIp> = every::<ElasticIp>(ctx)?.into_iter().map(|found| found.record).collect();
    all.sort_by_key(|ip| place(ip.created, &ip.id.to_string()));
    let ids = request.allocation_ids.unwrap_or_default();
    let addresses = request.public_ips.unwrap_or_default();
    if let Some(unknown) = ids.iter().find(|id| !all.iter().any(|ip| ip.id.to_string() == **id)) {
        return Err(ElasticIp::not_found(unknown));
    }
    let has = |address: &String| all.iter().any(|ip| ip.address.to_string() == *address);
    if let Some(unknown) = addresses.iter().find(|address| !has(address)) {
        return Err(address_not_found(unknown));
    }
    let everything = ids.is_empty() && addresses.is_empty();
    all.retain(|ip| {
        let named = everything || ids.contains(&ip.id.to_string()) || addresses.contains(&ip.address.to_string());
        named
            && filters.pass(&ip.tags, |filter| {
                let with = ip.association.as_ref();
                match filter {
                    "allocation-id" => vec![ip.id.to_string()],
                    "association-id" => with.map(|with| with.id.to_string()).into_iter().collect(),
                    "domain" => vec!["vpc".into()],
                    "network-border-group" => vec![scope.region.to_string()],
                    "network-interface-id" => with.map(|with| with.interface.to_string()).into_iter().collect(),
                    "network-interface-owner-id" => with.map(|_| scope.account.to_string()).into_iter().collect(),
                    "private-ip-address" => with.map(|with| with.private_address.to_string()).into_iter().collect(),
                    "public-ip" => vec![ip.address.to_string()],
                    _ => Vec::new(),
                }
            })
    });
    Ok(shapes::DescribeAddressesResult {
        addresses: shown(all.iter().map(|ip| view(scope, ip)).collect()),
    })
}

/// The one attribute that there is, a name in reverse DNS, no address here has.
fn describe_attribute(
    request: shapes::DescribeAddressesAttributeRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeAddressesAttributeResult, ApiError> {
    for id in request.allocation_ids.iter().flatten() {
        find::<ElasticIp>(ctx, id)?;
    }
    Ok(shapes::DescribeAddressesAttributeResult {
        addresses: shown(Vec::new()),
        next_token: None,
    })
}

/// An Elastic IP as answers have it.
fn view(scope: &Scope, ip: &ElasticIp) -> shapes::Address {
    let with = ip.association.as_ref();
    shapes::Address {
        allocation_id: Some(ip.id.to_string()),
        association_id: with.map(|with| with.id.to_string()),
        domain: Some(shapes::DomainType::Vpc),
        network_interface_id: with.map(|with| with.interface.to_string()),
        network_interface_owner_id: with.map(|_| scope.account.to_string()),
        private_ip_address: with.map(|with| with.private_address.to_string()),
        tags: tags::shown(&ip.tags),
        public_ipv4_pool: Some(POOL.into()),
        network_border_group: Some(scope.region.to_string()),
        public_ip: Some(ip.address.to_string()),
        ..Default::default()
    }
}

/// The Elastic IP that a request names by its id or by its address.
fn named(ctx: &Ctx<'_>, id: Option<&str>, address: Option<&str>) -> Result<Stored<ElasticIp>, ApiError> {
    match (id, address) {
        (Some(id), _) => find::<ElasticIp>(ctx, id),
        (None, Some(address)) => {
            let all = every::<ElasticIp>(ctx)?;
            let found = all.into_iter().find(|ip| ip.record.address.to_string() == address);
            found.ok_or_else(|| address_not_found(address))
        }
        (None, None) => Err(error::missing("allocationId")),
    }
}

/// Refuses what would touch an interface that a service holds (NET-11).
pub(super) fn own(interface: &NetworkInterface) -> Result<(), ApiError> {
    match interface.requester {
        None => Ok(()),
        Some(_) => Err(error::not_permitted(format!(
            "The network interface {} is managed by a service; you do not have permission to change it.",
            interface.id
        ))),
    }
}

fn associate(
    request: shapes::AssociateAddressRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::AssociateAddressResult, ApiError> {
    let ip = |ctx: &Ctx<'_>| named(ctx, request.allocation_id.as_deref(), request.public_ip.as_deref());
    ip(ctx)?;
    if let Some(id) = &request.instance_id {
        return Err(no_instance(id));
    }
    let id = request
        .network_interface_id
        .as_deref()
        .ok_or_else(|| error::missing("networkInterfaceId"))?;
    let vpc = find::<NetworkInterface>(ctx, id)?.record.vpc;
    let made = in_vpc(ctx, vpc, |vpc, batch| {
        let mut ip = ip(ctx)?;
        let interface = find::<NetworkInterface>(ctx, id)?.record;
        own(&interface)?;
        let private_address = match request.private_ip_address.as_deref() {
            None => interface.primary,
            Some(text) => block::address("privateIpAddress", text)?,
        };
        if !interface.addresses().any(|one| one == private_address) {
            let why = format!("The address is not one of the interface {}.", interface.id);
            return Err(error::bad_value("privateIpAddress", private_address, &why));
        }
        if of_vpc::<InternetGateway>(ctx, vpc.id)?.is_empty() {
            let text = format!("Network {} is not attached to any internet gateway", vpc.id);
            return Err(ApiError::client("Gateway.NotAttached", text));
        }
        let here = |with: EipAssociation| with.interface == interface.id && with.private_address == private_address;
        if let Some(with) = ip.record.association.filter(|with| here(*with)) {
            return Ok((batch, with.id));
        }
        let mut batch = free(ctx, &ip, request.allow_reassociation, vpc.id, batch)?;
        for mut other in parts_of::<ElasticIp>(ctx, interface.id)? {
            if other.record.association.is_some_and(here) {
                if request.allow_reassociation == Some(false) {
                    return Err(already(&other.record));
                }
                other.record.association = None;
                batch = put(batch, &other)?;
            }
        }
        let association = EipAssociation {
            id: new_id(ctx)?,
            interface: interface.id,
            private_address,
        };
        ip.record.association = Some(association);
        Ok((put(batch, &ip)?, association.id))
    })?;
    Ok(shapes::AssociateAddressResult {
        association_id: Some(made.to_string()),
    })
}

fn already(ip: &ElasticIp) -> ApiError {
    let with = ip.association.map(|with| with.id.to_string()).unwrap_or_default();
    let text = format!("resource {} is already associated with associate-id {with}", ip.id);
    ApiError::client("Resource.AlreadyAssociated", text)
}

/// Whether an Elastic IP may leave the interface that it is associated with now; that interface's VPC changes with it.
fn free(
    ctx: &Ctx<'_>,
    ip: &Stored<ElasticIp>,
    allowed: Option<bool>,
    to: VpcId,
    batch: Batch,
) -> Result<Batch, ApiError> {
    let Some(with) = ip.record.association else {
        return Ok(batch);
    };
    if allowed == Some(false) {
        return Err(already(&ip.record));
    }
    let Some(interface) = get::<NetworkInterface>(ctx, with.interface)? else {
        return Ok(batch);
    };
    own(&interface.record)?;
    if interface.record.vpc == to {
        return Ok(batch);
    }
    let mut from = referred::<Vpc>(ctx, interface.record.vpc)?;
    from.record.generation = from.record.generation.saturating_add(1);
    put(batch, &from)
}

/// There are no EC2 instances here.
pub(super) fn no_instance(id: &str) -> ApiError {
    let text = format!("The instance ID '{id}' does not exist");
    ApiError::client("InvalidInstanceID.NotFound", text)
}

fn disassociate(
    request: shapes::DisassociateAddressRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DisassociateAddressOutput, ApiError> {
    let found = associated(ctx, &request)?;
    let Some(with) = found.record.association else {
        return Ok(shapes::DisassociateAddressOutput::default());
    };
    let change = |batch: Batch| -> Made<()> {
        let mut ip = associated(ctx, &request)?;
        if let Some(with) = ip.record.association
            && let Some(interface) = get::<NetworkInterface>(ctx, with.interface)?
        {
            own(&interface.record)?;
        }
        ip.record.association = None;
        Ok((put(batch, &ip)?, ()))
    };
    match get::<NetworkInterface>(ctx, with.interface)? {
        Some(interface) => in_vpc(ctx, interface.record.vpc, |_, batch| change(batch))?,
        None => again(ctx, || change(Batch::default()))?,
    }
    Ok(shapes::DisassociateAddressOutput::default())
}

fn associated(ctx: &Ctx<'_>, request: &shapes::DisassociateAddressRequest) -> Result<Stored<ElasticIp>, ApiError> {
    let Some(id) = &request.association_id else {
        let address = request
            .public_ip
            .as_deref()
            .ok_or_else(|| error::missing("associationId"))?;
        return named(ctx, None, Some(address));
    };
    let unknown = || error::association_not_found(id);
    let wanted: EipAssociationId = id.parse().map_err(|_| unknown())?;
    let all = every::<ElasticIp>(ctx)?;
    let found = all
        .into_iter()
        .find(|ip| ip.record.association.is_some_and(|with| with.id == wanted));
    found.ok_or_else(unknown)
}

/// The Elastic IPs of interfaces, by interface and private address.
pub(super) fn by_interface(ctx: &Ctx<'_>) -> Result<BTreeMap<(InterfaceId, Ipv4Addr), ElasticIp>, ApiError> {
    let all = every::<ElasticIp>(ctx)?.into_iter().map(|found| found.record);
    let associated = all.filter_map(|ip| {
        let with = ip.association?;
        Some(((with.interface, with.private_address), ip))
    });
    Ok(associated.collect())
}

/// Frees every Elastic IP of an interface that goes.
pub(super) fn leave(ctx: &Ctx<'_>, interface: InterfaceId, mut batch: Batch) -> Result<Batch, ApiError> {
    for mut ip in parts_of::<ElasticIp>(ctx, interface)? {
        ip.record.association = None;
        batch = put(batch, &ip)?;
    }
    Ok(batch)
}
