//! NAT gateways (NET-29). A gateway is `pending` until the reconciler has it in the kernel, and holds its interface and
//! its Elastic IP until the reconciler has taken it out again.

use super::block;
use super::change::{add, in_vpc, put, remove, stepped};
use super::error;
use super::interface::taken;
use super::noun::{every, find, new_id, of_vpc};
use super::operation::operation;
use super::page::{Asked, records, shown};
use super::shapes;
use super::tags;
use super::token::{Outcome, once};
use crate::Ctx;
use isolarium_model::ec2::elastic_ip::EipAssociation;
use isolarium_model::ec2::gateway::NatFailure;
use isolarium_model::ec2::interface::Attachment;
use isolarium_model::ec2::{
    ElasticIp, Holder, NatEvent, NatGateway, NatState, NetworkInterface, Requester, Resource, Subnet, Tags,
};
use isolarium_wire::ApiError;
use std::collections::BTreeSet;
use std::time::Duration;

operation!("CreateNatGateway", CreateNatGatewayRequest -> CreateNatGatewayResult, create);
operation!("DeleteNatGateway", DeleteNatGatewayRequest -> DeleteNatGatewayResult, delete);
operation!("DescribeNatGateways", DescribeNatGatewaysRequest -> DescribeNatGatewaysResult, describe);

/// How long a gateway that is over is still shown.
const SHOWN: Duration = Duration::from_secs(60 * 60);
/// `RequesterId` of the interfaces of NAT gateways (NET-11).
const REQUESTER: &str = "amazon-nat-gateway";

fn create(request: shapes::CreateNatGatewayRequest, ctx: &Ctx<'_>) -> Result<shapes::CreateNatGatewayResult, ApiError> {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let regional = request.availability_mode == Some(shapes::AvailabilityMode::Regional)
        || request.vpc_id.is_some()
        || request
            .availability_zone_addresses
            .as_ref()
            .is_some_and(|list| !list.is_empty());
    let several = some(&request.secondary_allocation_ids)
        || some(&request.secondary_private_ip_addresses)
        || request
            .secondary_private_ip_address_count
            .is_some_and(|count| count > 0);
    error::refuse(&[
        (
            request.connectivity_type == Some(shapes::ConnectivityType::Private),
            "A private NAT gateway",
        ),
        (regional, "A regional NAT gateway"),
        (several, "A NAT gateway with several addresses"),
    ])?;
    let subnet_id = request.subnet_id.clone().ok_or_else(|| error::missing("SubnetId"))?;
    let allocation = request.allocation_id.clone().ok_or_else(|| {
        let text =
            "The request must include the AllocationId parameter. Add the required parameter and retry the request.";
        ApiError::client("MissingParameter", text)
    })?;
    let wanted = request.private_ip_address.as_deref();
    let wanted = wanted
        .map(|text| block::address("privateIpAddress", text))
        .transpose()?;
    let tags = tags::specified(request.tag_specifications.as_ref(), NatGateway::TYPE)?;
    let vpc = find::<Subnet>(ctx, &subnet_id)?.record.vpc;
    let token = request.client_token.clone();
    let outcome = once(ctx, "CreateNatGateway", token.as_deref(), request, || {
        stepped(ctx, vpc, |vpc, batch| {
            let mut subnet = find::<Subnet>(ctx, &subnet_id)?;
            let mut ip = find::<ElasticIp>(ctx, &allocation)?;
            if ip.record.association.is_some() {
                let text = format!("Elastic IP address [{}] is already associated", ip.record.id);
                return Err(ApiError::client("Resource.AlreadyAssociated", text));
            }
            quota(ctx, &subnet.record.zone.name)?;
            let (id, interface) = (new_id(ctx)?, new_id(ctx)?);
            let address = taken(ctx, &mut subnet.record, interface, wanted)?;
            let association = EipAssociation {
                id: new_id(ctx)?,
                interface,
                private_address: address,
            };
            ip.record.association = Some(association);
            let nat = NatGateway {
                id,
                vpc: vpc.id,
                subnet: subnet.record.id,
                interface,
                private_address: address,
                allocation: ip.record.id,
                association: association.id,
                public_address: ip.record.address,
                state: NatState::Pending,
                failure: None,
                ended: None,
                created: ctx.clock.now(),
                tags: tags.clone(),
            };
            let interface = own_interface(ctx, &nat, &subnet.record)?;
            let batch = forget(ctx, batch)?;
            let batch = put(put(batch, &subnet)?, &ip)?;
            let batch = add(ctx, add(ctx, batch, &interface)?, &nat)?;
            Ok((batch, (nat.id.to_string(), nat)))
        })
    })?;
    let made = match outcome {
        Outcome::Made(made) => made,
        Outcome::Before(id) => find::<NatGateway>(ctx, &id)?.record,
    };
    Ok(shapes::CreateNatGatewayResult {
        client_token: token,
        nat_gateway: Some(view(&made)),
    })
}

/// Counts the gateways of a zone against the quota (NET-86).
fn quota(ctx: &Ctx<'_>, zone: &str) -> Result<(), ApiError> {
    let subnets = every::<Subnet>(ctx)?;
    let here = |nat: &NatGateway| {
        let subnet = subnets.iter().find(|subnet| subnet.record.id == nat.subnet);
        subnet.is_some_and(|subnet| subnet.record.zone.name == zone)
    };
    let gateways = every::<NatGateway>(ctx)?;
    let count = gateways
        .iter()
        .filter(|nat| nat.record.state.holds() && here(&nat.record))
        .count();
    if count >= ctx.platform.settings().ec2.quotas.nat_gateways_per_zone {
        let text = format!("The maximum number of NAT gateways has been reached for the Availability Zone {zone}.");
        return Err(error::limit("NatGatewayLimitExceeded", text));
    }
    Ok(())
}

/// The requester-managed interface of a gateway: without groups and without source/destination check (NET-11, NET-29).
fn own_interface(ctx: &Ctx<'_>, nat: &NatGateway, subnet: &Subnet) -> Result<NetworkInterface, ApiError> {
    Ok(NetworkInterface {
        id: nat.interface,
        vpc: nat.vpc,
        subnet: nat.subnet,
        zone: subnet.zone.clone(),
        primary: nat.private_address,
        secondary: BTreeSet::new(),
        groups: BTreeSet::new(),
        description: format!("Interface for NAT Gateway {}", nat.id),
        source_dest_check: false,
        requester: Some(Requester {
            id: REQUESTER.into(),
            owner: None,
            owner_arn: Some(nat.arn(&ctx.caller.scope).to_string()),
        }),
        holder: Holder::Nat(nat.id),
        attachment: Some(Attachment {
            id: new_id(ctx)?,
            attached: nat.created,
            device: 1,
        }),
        created: nat.created,
        tags: Tags::new(),
    })
}

/// Whether a gateway is still to be seen: one that is over is, for an hour.
fn seen(ctx: &Ctx<'_>, nat: &NatGateway) -> bool {
    nat.ended.is_none_or(|ended| ctx.clock.now().since(ended) <= SHOWN)
}

/// Removes gateways that nobody sees any more.
fn forget(ctx: &Ctx<'_>, batch: isolarium_store::state::Batch) -> Result<isolarium_store::state::Batch, ApiError> {
    let over = every::<NatGateway>(ctx)?;
    let gone = over
        .iter()
        .filter(|nat| !nat.record.state.holds() && !seen(ctx, &nat.record));
    Ok(gone.fold(batch, remove))
}

fn delete(request: shapes::DeleteNatGatewayRequest, ctx: &Ctx<'_>) -> Result<shapes::DeleteNatGatewayResult, ApiError> {
    let nat = find::<NatGateway>(ctx, &request.nat_gateway_id)?.record;
    // Deleting what is over, or going, changes nothing.
    if matches!(nat.state, NatState::Pending | NatState::Available) {
        in_vpc(ctx, nat.vpc, |vpc, batch| {
            let all = of_vpc::<NatGateway>(ctx, vpc.id)?;
            let mut found = all
                .into_iter()
                .find(|one| one.record.id == nat.id)
                .ok_or_else(|| <NatGateway as super::noun::Noun>::not_found(&request.nat_gateway_id))?;
            let Ok(next) = found.record.state.next(NatEvent::DeleteRequested) else {
                return Ok((batch, ()));
            };
            found.record.state = next;
            Ok((put(batch, &found)?, ()))
        })?;
    }
    Ok(shapes::DeleteNatGatewayResult {
        nat_gateway_id: Some(nat.id.to_string()),
    })
}

/// Filters of DescribeNatGateways.
const FILTERS: &[&str] = &["nat-gateway-id", "state", "subnet-id", "vpc-id"];

fn describe(
    request: shapes::DescribeNatGatewaysRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeNatGatewaysResult, ApiError> {
    for id in request.nat_gateway_ids.iter().flatten() {
        let found = find::<NatGateway>(ctx, id)?.record;
        if !seen(ctx, &found) {
            return Err(<NatGateway as super::noun::Noun>::not_found(id));
        }
    }
    let asked = Asked {
        ids: request.nat_gateway_ids,
        filters: request.filter,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let (gateways, next_token) = records(ctx, asked, FILTERS, |nat: &NatGateway, filter| {
        vec![match filter {
            "nat-gateway-id" => nat.id.to_string(),
            "state" => nat.state.to_string(),
            "subnet-id" => nat.subnet.to_string(),
            _ => nat.vpc.to_string(),
        }]
    })?;
    let seen = gateways.iter().filter(|nat| seen(ctx, nat));
    Ok(shapes::DescribeNatGatewaysResult {
        nat_gateways: shown(seen.map(view).collect()),
        next_token,
    })
}

/// A NAT gateway as answers have it.
fn view(nat: &NatGateway) -> shapes::NatGateway {
    let status = match nat.state {
        NatState::Pending => shapes::NatGatewayAddressStatus::Associating,
        NatState::Available => shapes::NatGatewayAddressStatus::Succeeded,
        NatState::Failed => shapes::NatGatewayAddressStatus::Failed,
        NatState::Deleting | NatState::Deleted => shapes::NatGatewayAddressStatus::Disassociating,
    };
    let address = shapes::NatGatewayAddress {
        allocation_id: Some(nat.allocation.to_string()),
        network_interface_id: Some(nat.interface.to_string()),
        private_ip: Some(nat.private_address.to_string()),
        public_ip: Some(nat.public_address.to_string()),
        association_id: Some(nat.association.to_string()),
        is_primary: Some(true),
        status: Some(status),
        ..Default::default()
    };
    shapes::NatGateway {
        create_time: Some(nat.created.0),
        delete_time: nat.ended.map(|ended| ended.0),
        failure_code: nat.failure.as_ref().map(|NatFailure { code, .. }| code.clone()),
        failure_message: nat.failure.as_ref().map(|NatFailure { message, .. }| message.clone()),
        nat_gateway_addresses: Some(vec![address]),
        nat_gateway_id: Some(nat.id.to_string()),
        state: Some(match nat.state {
            NatState::Pending => shapes::NatGatewayState::Pending,
            NatState::Available => shapes::NatGatewayState::Available,
            NatState::Failed => shapes::NatGatewayState::Failed,
            NatState::Deleting => shapes::NatGatewayState::Deleting,
            NatState::Deleted => shapes::NatGatewayState::Deleted,
        }),
        subnet_id: Some(nat.subnet.to_string()),
        vpc_id: Some(nat.vpc.to_string()),
        tags: tags::shown(&nat.tags),
        connectivity_type: Some(shapes::ConnectivityType::Public),
        ..Default::default()
    }
}
