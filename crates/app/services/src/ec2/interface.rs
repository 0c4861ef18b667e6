//! Network interfaces (NET-10..13).

use super::block;
use super::change::{Made, add, in_vpc, put, remove, stepped};
use super::elastic_ip::{chance, leave, no_instance, own};
use super::error;
use super::interface_view::Known;
use super::noun::{every, find, new_id, of_vpc, parts_of};
use super::operation::operation;
use super::shapes;
use super::tags;
use super::token::{Outcome, once};
use crate::Ctx;
use isolarium_model::ec2::flow_log::FlowLogResource;
use isolarium_model::ec2::id::{GroupId, InterfaceId};
use isolarium_model::ec2::{
    AddressFault, FlowLog, Holder, InterfacePermission, NetworkInterface, Resource, SecurityGroup, Subnet, Vpc,
};
use isolarium_store::state::{Batch, Stored};
use isolarium_wire::ApiError;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

operation!("CreateNetworkInterface", CreateNetworkInterfaceRequest -> CreateNetworkInterfaceResult, create);
operation!("DeleteNetworkInterface", DeleteNetworkInterfaceRequest -> DeleteNetworkInterfaceOutput, delete);
operation!(
    "ModifyNetworkInterfaceAttribute",
    ModifyNetworkInterfaceAttributeRequest -> ModifyNetworkInterfaceAttributeOutput,
    modify
);
operation!("AttachNetworkInterface", AttachNetworkInterfaceRequest -> AttachNetworkInterfaceResult, attach);
operation!("DetachNetworkInterface", DetachNetworkInterfaceRequest -> DetachNetworkInterfaceOutput, detach);

/// Most secondary addresses of an interface.
const MOST_SECONDARY: usize = 49;

/// Takes an address of a subnet for an interface, and words what goes wrong (NET-4).
pub(super) fn taken(
    ctx: &Ctx<'_>,
    subnet: &mut Subnet,
    interface: InterfaceId,
    wanted: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, ApiError> {
    subnet
        .take(interface, wanted, chance(ctx)?)
        .map_err(|fault| match fault {
            AddressFault::Unusable(address) if subnet.block.contains(&address) => {
                error::invalid(format!("Address {address} is in subnet's reserved address range"))
            }
            AddressFault::Unusable(address) => error::invalid(format!(
                "Address {address} does not fall within the subnet's address range"
            )),
            AddressFault::InUse(address) => {
                ApiError::client("InvalidIPAddress.InUse", format!("Address {address} is in use."))
            }
            AddressFault::Full => ApiError::client(
                "InsufficientFreeAddressesInSubnet",
                "The specified subnet does not have enough free addresses to satisfy the request.",
            ),
        })
}

/// The addresses that a request wants: the primary one, the named secondary ones, and how many more.
struct Addresses {
    primary: Option<Ipv4Addr>,
    secondary: Vec<Ipv4Addr>,
    more: usize,
}

impl Addresses {
    fn read(request: &shapes::CreateNetworkInterfaceRequest) -> Result<Self, ApiError> {
        let single = request.private_ip_address.as_deref();
        let mut primary = single
            .map(|text| block::address("privateIpAddress", text))
            .transpose()?;
        let mut secondary = Vec::new();
        for one in request.private_ip_addresses.iter().flatten() {
            let text = one
                .private_ip_address
                .as_deref()
                .ok_or_else(|| error::missing("privateIpAddress"))?;
            let address = block::address("privateIpAddress", text)?;
            if one.primary != Some(true) {
                secondary.push(address);
            } else if primary.replace(address).is_some() {
                return Err(error::combination(
                    "Only one primary private IP address can be specified",
                ));
            }
        }
        let more = request.secondary_private_ip_address_count.unwrap_or(0);
        let more = usize::try_from(more)
            .ok()
            .filter(|more| more + secondary.len() <= MOST_SECONDARY);
        let more = more.ok_or_else(|| {
            let text = "The interface would have more private addresses than are possible.";
            ApiError::client("PrivateIpAddressLimitExceeded", text)
        })?;
        if more > 0 && !secondary.is_empty() {
            return Err(error::combination(
                "secondaryPrivateIpAddressCount cannot be used together with secondary privateIpAddresses",
            ));
        }
        Ok(Self {
            primary,
            secondary,
            more,
        })
    }
}

fn create(
    request: shapes::CreateNetworkInterfaceRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::CreateNetworkInterfaceResult, ApiError> {
    let ipv6 = request.ipv6_address_count.is_some_and(|count| count > 0)
        || request.ipv6_addresses.as_ref().is_some_and(|list| !list.is_empty())
        || request.ipv6_prefixes.is_some()
        || request.ipv6_prefix_count.is_some()
        || request.enable_primary_ipv6 == Some(true);
    let prefixes = request.ipv4_prefixes.is_some() || request.ipv4_prefix_count.is_some();
    error::refuse(&[
        (ipv6, "IPv6"),
        (prefixes, "A prefix of private addresses"),
        (
            request.interface_type.is_some(),
            "Another InterfaceType than an interface",
        ),
        (
            request.connection_tracking_specification.is_some(),
            "ConnectionTrackingSpecification",
        ),
        (request.operator.is_some(), "An operator of an interface"),
    ])?;
    let addresses = Addresses::read(&request)?;
    let tags = tags::specified(request.tag_specifications.as_ref(), NetworkInterface::TYPE)?;
    let vpc = find::<Subnet>(ctx, &request.subnet_id)?.record.vpc;
    let (token, asked) = (request.client_token.clone(), request.clone());
    let outcome = once(ctx, "CreateNetworkInterface", token.as_deref(), request, || {
        stepped(ctx, vpc, |vpc, batch| {
            let mut subnet = find::<Subnet>(ctx, &asked.subnet_id)?;
            if every::<NetworkInterface>(ctx)?.len() >= ctx.platform.settings().ec2.quotas.network_interfaces {
                let text = "The maximum number of network interfaces has been reached.";
                return Err(error::limit("NetworkInterfaceLimitExceeded", text));
            }
            let groups = groups(
                ctx,
                vpc,
                &format!("subnet {}", subnet.record.id),
                asked.groups.as_deref(),
            )?;
            let id = new_id(ctx)?;
            let primary = taken(ctx, &mut subnet.record, id, addresses.primary)?;
            let mut secondary = BTreeSet::new();
            for wanted in &addresses.secondary {
                secondary.insert(taken(ctx, &mut subnet.record, id, Some(*wanted))?);
            }
            for _ in 0..addresses.more {
                secondary.insert(taken(ctx, &mut subnet.record, id, None)?);
            }
            let interface = NetworkInterface {
                id,
                vpc: vpc.id,
                subnet: subnet.record.id,
                zone: subnet.record.zone.clone(),
                primary,
                secondary,
                groups,
                description: asked.description.clone().unwrap_or_default(),
                source_dest_check: true,
                requester: None,
                holder: Holder::Nobody,
                attachment: None,
                created: ctx.clock.now(),
                tags: tags.clone(),
            };
            let batch = put(batch, &subnet)?;
            Ok((add(ctx, batch, &interface)?, (id.to_string(), interface)))
        })
    })?;
    let made = match outcome {
        Outcome::Made(made) => made,
        Outcome::Before(id) => find::<NetworkInterface>(ctx, &id)?.record,
    };
    Ok(shapes::CreateNetworkInterfaceResult {
        network_interface: Some(Known::read(ctx)?.view(&made)),
        client_token: token,
    })
}

/// The groups of an interface: 1 to 5 of its VPC, the default one where none is named (NET-10, NET-20). `what` they are for, as
/// in `subnet subnet-1`.
pub(super) fn groups(
    ctx: &Ctx<'_>,
    vpc: &Vpc,
    what: &str,
    given: Option<&[String]>,
) -> Result<BTreeSet<GroupId>, ApiError> {
    let given = given.unwrap_or_default();
    if given.is_empty() {
        let all = of_vpc::<SecurityGroup>(ctx, vpc.id)?;
        let default = all.iter().find(|group| group.record.is_default());
        let default = default.ok_or_else(|| ApiError::internal(format!("{} has no default group", vpc.id)))?;
        return Ok(BTreeSet::from([default.record.id]));
    }
    let mut groups = BTreeSet::new();
    for id in given {
        let group = find::<SecurityGroup>(ctx, id)?.record;
        if group.vpc != vpc.id {
            let text = format!("Security group {} and {what} belong to different networks.", group.id);
            return Err(ApiError::client("InvalidParameter", text));
        }
        groups.insert(group.id);
    }
    let most = ctx.platform.settings().ec2.quotas.groups_per_interface;
    if groups.len() > most {
        let text = format!("The maximum number of security groups per interface ({most}) has been reached.");
        return Err(error::limit("SecurityGroupsPerInterfaceLimitExceeded", text));
    }
    Ok(groups)
}

fn in_use(interface: &NetworkInterface) -> Result<(), ApiError> {
    if interface.attachment.is_none() {
        return Ok(());
    }
    let text = format!("Network interface '{}' is currently in use.", interface.id);
    Err(ApiError::client("InvalidNetworkInterface.InUse", text))
}

fn delete(
    request: shapes::DeleteNetworkInterfaceRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DeleteNetworkInterfaceOutput, ApiError> {
    let vpc = find::<NetworkInterface>(ctx, &request.network_interface_id)?.record.vpc;
    in_vpc(ctx, vpc, |_, batch| {
        let found = find::<NetworkInterface>(ctx, &request.network_interface_id)?;
        own(&found.record)?;
        in_use(&found.record)?;
        gone(ctx, &found, batch)
    })?;
    Ok(shapes::DeleteNetworkInterfaceOutput::default())
}

/// Removes an interface with everything that hangs on it.
pub(super) fn gone(ctx: &Ctx<'_>, found: &Stored<NetworkInterface>, batch: Batch) -> Made<()> {
    let interface = &found.record;
    let mut subnet = super::noun::referred::<Subnet>(ctx, interface.subnet)?;
    subnet.record.release(interface.id);
    let batch = put(remove(batch, found), &subnet)?;
    let batch = leave(ctx, interface.id, batch)?;
    let permissions = parts_of::<InterfacePermission>(ctx, interface.id)?;
    let batch = permissions.iter().fold(batch, remove);
    let logs = of_vpc::<FlowLog>(ctx, interface.vpc)?;
    let about = FlowLogResource::Interface(interface.id);
    let logs = logs.iter().filter(|log| log.record.about == about);
    Ok((logs.fold(batch, remove), ()))
}

fn modify(
    request: shapes::ModifyNetworkInterfaceAttributeRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::ModifyNetworkInterfaceAttributeOutput, ApiError> {
    error::refuse(&[
        (request.ena_srd_specification.is_some(), "ENA Express"),
        (request.enable_primary_ipv6.is_some(), "IPv6"),
        (
            request.connection_tracking_specification.is_some(),
            "ConnectionTrackingSpecification",
        ),
        (
            request.associate_public_ip_address.is_some(),
            "AssociatePublicIpAddress",
        ),
        (request.associated_subnet_ids.is_some(), "AssociatedSubnetIds"),
    ])?;
    let description = request.description.map(|given| given.value.unwrap_or_default());
    let check = request.source_dest_check.and_then(|given| given.value);
    let groups_given = request.groups.filter(|groups| !groups.is_empty());
    let given = [
        description.is_some(),
        check.is_some(),
        groups_given.is_some(),
        request.attachment.is_some(),
    ];
    match given.iter().filter(|given| **given).count() {
        0 => return Err(error::missing("attribute value")),
        1 => {}
        _ => return Err(error::combination("Fields for multiple attribute types specified")),
    }
    let id = &request.network_interface_id;
    let vpc = find::<NetworkInterface>(ctx, id)?.record.vpc;
    in_vpc(ctx, vpc, |vpc, batch| {
        let mut found = find::<NetworkInterface>(ctx, id)?;
        own(&found.record)?;
        if request.attachment.is_some() {
            // The engine alone attaches, and it removes what it attached.
            return Err(error::not_permitted(format!(
                "The attachment of {id} cannot be changed."
            )));
        }
        if let Some(given) = &groups_given {
            let subnet = super::noun::referred::<Subnet>(ctx, found.record.subnet)?.record;
            found.record.groups = groups(ctx, vpc, &format!("subnet {}", subnet.id), Some(given))?;
        }
        if let Some(description) = &description {
            found.record.description.clone_from(description);
        }
        found.record.source_dest_check = check.unwrap_or(found.record.source_dest_check);
        Ok((put(batch, &found)?, ()))
    })?;
    Ok(shapes::ModifyNetworkInterfaceAttributeOutput::default())
}

/// There are no EC2 instances: only the engine attaches interfaces, to containers and to programs of its operator.
fn attach(
    request: shapes::AttachNetworkInterfaceRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::AttachNetworkInterfaceResult, ApiError> {
    let found = find::<NetworkInterface>(ctx, &request.network_interface_id)?.record;
    own(&found)?;
    in_use(&found)?;
    Err(no_instance(&request.instance_id))
}

fn detach(
    request: shapes::DetachNetworkInterfaceRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DetachNetworkInterfaceOutput, ApiError> {
    let id = &request.attachment_id;
    let all = every::<NetworkInterface>(ctx)?;
    let with = |found: &&Stored<NetworkInterface>| {
        let attachment = found.record.attachment.as_ref();
        attachment.is_some_and(|attachment| attachment.id.to_string() == *id)
    };
    let found = all.iter().find(with).ok_or_else(|| {
        let text = format!("The attachment ID '{id}' does not exist");
        ApiError::client("InvalidAttachmentID.NotFound", text)
    })?;
    own(&found.record)?;
    Err(error::not_permitted(format!(
        "The attachment {id} belongs to a program that the operator runs; it ends with the program."
    )))
}
