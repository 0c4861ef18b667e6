//! Routes (NET-25..27).

use super::block;
use super::change::{in_vpc, put};
use super::error;
use super::noun::find;
use super::operation::operation;
use super::shapes;
use crate::Ctx;
use ipnet::Ipv4Net;
use isolarium_model::ec2::address::LINK_LOCAL_SERVICES;
use isolarium_model::ec2::id::VpcId;
use isolarium_model::ec2::{InternetGateway, NatGateway, NetworkInterface, RouteTable, RouteTarget, Vpc};
use isolarium_wire::ApiError;

operation!("CreateRoute", CreateRouteRequest -> CreateRouteResult, create);
operation!("ReplaceRoute", ReplaceRouteRequest -> ReplaceRouteOutput, replace);
operation!("DeleteRoute", DeleteRouteRequest -> DeleteRouteOutput, delete);

/// What CreateRoute and ReplaceRoute have in common.
struct Wanted {
    table: String,
    destination: Ipv4Net,
    internet_gateway: Option<String>,
    nat_gateway: Option<String>,
    interface: Option<String>,
}

/// The destination of a request: an IPv4 block. Routes to the prefix lists of endpoints come and go with them (NET-32).
fn destination(block: Option<&str>, prefix_list: Option<&String>, ipv6: Option<&String>) -> Result<Ipv4Net, ApiError> {
    error::refuse(&[(ipv6.is_some(), "IPv6")])?;
    match (block, prefix_list) {
        (Some(_), Some(_)) => Err(error::combination(
            "Only one of destinationCidrBlock and destinationPrefixListId may be given.",
        )),
        (Some(text), None) => block::read("destinationCidrBlock", text),
        (None, Some(list)) => Err(error::invalid(format!(
            "The route to the prefix list {list} belongs to a VPC endpoint: it comes and goes with the endpoint's \
             association."
        ))),
        (None, None) => Err(error::missing("destinationCidrBlock")),
    }
}

macro_rules! wanted {
    ($request:ident) => {{
        error::refuse(&[
            ($request.transit_gateway_id.is_some(), "A transit gateway"),
            ($request.local_gateway_id.is_some(), "A local gateway"),
            ($request.carrier_gateway_id.is_some(), "A carrier gateway"),
            ($request.core_network_arn.is_some(), "A core network"),
            ($request.odb_network_arn.is_some(), "An ODB network"),
            ($request.vpc_peering_connection_id.is_some(), "VPC peering"),
            ($request.egress_only_internet_gateway_id.is_some(), "IPv6"),
            ($request.instance_id.is_some(), "An EC2 instance"),
            ($request.vpc_endpoint_id.is_some(), "A Gateway Load Balancer endpoint"),
        ])?;
        Wanted {
            destination: destination(
                $request.destination_cidr_block.as_deref(),
                $request.destination_prefix_list_id.as_ref(),
                $request.destination_ipv6_cidr_block.as_ref(),
            )?,
            table: $request.route_table_id,
            internet_gateway: $request.gateway_id,
            nat_gateway: $request.nat_gateway_id,
            interface: $request.network_interface_id,
        }
    }};
}

impl Wanted {
    /// The target of the request: of the table's own VPC (NET-26).
    fn target(&self, ctx: &Ctx<'_>, vpc: VpcId) -> Result<RouteTarget, ApiError> {
        let given = [&self.internet_gateway, &self.nat_gateway, &self.interface];
        match given.iter().filter(|one| one.is_some()).count() {
            0 => return Err(error::missing("gatewayId, natGatewayId or networkInterfaceId")),
            1 => {}
            _ => return Err(error::combination("A route has exactly one target.")),
        }
        let foreign = |what: &str, id: &str| {
            let text = format!(
                "route table {} and network {what} {id} belong to different networks",
                self.table
            );
            error::invalid(text)
        };
        if let Some(id) = &self.internet_gateway {
            if id.starts_with("vgw-") {
                return Err(error::unsupported("A virtual private gateway"));
            }
            if id.starts_with("vpce-") {
                return Err(error::invalid(
                    "Cannot create or replace a prefix list route targeting a VPC Endpoint.",
                ));
            }
            let gateway = find::<InternetGateway>(ctx, id)?.record;
            if gateway.attached != Some(vpc) {
                return Err(foreign("gateway", id));
            }
            return Ok(RouteTarget::InternetGateway(gateway.id));
        }
        if let Some(id) = &self.nat_gateway {
            let gateway = find::<NatGateway>(ctx, id)?.record;
            if gateway.vpc != vpc {
                return Err(foreign("NAT gateway", id));
            }
            if !gateway.state.serves() {
                let text = format!(
                    "NAT gateway {id} is in the state {} and cannot be a target.",
                    gateway.state
                );
                return Err(error::invalid(text));
            }
            return Ok(RouteTarget::NatGateway(gateway.id));
        }
        let id = self.interface.as_deref().unwrap_or_default();
        let interface = find::<NetworkInterface>(ctx, id)?.record;
        if interface.vpc != vpc {
            return Err(foreign("interface", id));
        }
        Ok(RouteTarget::Interface(interface.id))
    }

    fn not_found(&self) -> ApiError {
        not_found(self.destination, &self.table)
    }
}

fn not_found(destination: Ipv4Net, table: &str) -> ApiError {
    let text = format!("no route with destination-cidr-block {destination} in route table {table}");
    ApiError::client("InvalidRoute.NotFound", text)
}

fn create(request: shapes::CreateRouteRequest, ctx: &Ctx<'_>) -> Result<shapes::CreateRouteResult, ApiError> {
    let wanted = wanted!(request);
    let vpc = find::<RouteTable>(ctx, &wanted.table)?.record.vpc;
    in_vpc(ctx, vpc, |vpc, batch| {
        let mut table = find::<RouteTable>(ctx, &wanted.table)?;
        let destination = wanted.destination;
        let local = vpc.blocks.iter().any(|block| block.block == destination);
        if local || table.record.routes.contains_key(&destination) {
            let text = format!("The route identified by {destination} already exists");
            return Err(ApiError::client("RouteAlreadyExists", text));
        }
        allowed(vpc, destination)?;
        let target = wanted.target(ctx, vpc.id)?;
        if table.record.routes.len() >= ctx.platform.settings().ec2.quotas.routes_per_table {
            let text = "The maximum number of routes has been reached.";
            return Err(error::limit("RouteLimitExceeded", text));
        }
        table.record.routes.insert(destination, target);
        Ok((put(batch, &table)?, ()))
    })?;
    Ok(shapes::CreateRouteResult { r#return: Some(true) })
}

/// Refuses destinations that no route of a customer may have (NET-27).
fn allowed(vpc: &Vpc, destination: Ipv4Net) -> Result<(), ApiError> {
    if LINK_LOCAL_SERVICES.contains(&destination) {
        let why = format!("Routes into {LINK_LOCAL_SERVICES} are not allowed.");
        return Err(error::bad_value("destinationCidrBlock", destination, &why));
    }
    if vpc.contains(&destination) {
        return Err(error::unsupported("A route more specific than the local route"));
    }
    Ok(())
}

fn replace(request: shapes::ReplaceRouteRequest, ctx: &Ctx<'_>) -> Result<shapes::ReplaceRouteOutput, ApiError> {
    error::refuse(&[(request.local_target == Some(true), "A route to a target within the VPC")])?;
    let wanted = wanted!(request);
    let vpc = find::<RouteTable>(ctx, &wanted.table)?.record.vpc;
    in_vpc(ctx, vpc, |vpc, batch| {
        let mut table = find::<RouteTable>(ctx, &wanted.table)?;
        if vpc.blocks.iter().any(|block| block.block == wanted.destination) {
            return Err(error::unsupported("Another target for the local route"));
        }
        let target = wanted.target(ctx, vpc.id)?;
        let route = table.record.routes.get_mut(&wanted.destination);
        *route.ok_or_else(|| wanted.not_found())? = target;
        Ok((put(batch, &table)?, ()))
    })?;
    Ok(shapes::ReplaceRouteOutput::default())
}

fn delete(request: shapes::DeleteRouteRequest, ctx: &Ctx<'_>) -> Result<shapes::DeleteRouteOutput, ApiError> {
    let vpc = find::<RouteTable>(ctx, &request.route_table_id)?.record.vpc;
    let destination = destination(
        request.destination_cidr_block.as_deref(),
        request.destination_prefix_list_id.as_ref(),
        request.destination_ipv6_cidr_block.as_ref(),
    )?;
    in_vpc(ctx, vpc, |vpc, batch| {
        let mut table = find::<RouteTable>(ctx, &request.route_table_id)?;
        if vpc.blocks.iter().any(|block| block.block == destination) {
            return Err(error::invalid(format!(
                "cannot remove local route {destination} in route table {}",
                table.record.id
            )));
        }
        if table.record.routes.remove(&destination).is_none() {
            return Err(not_found(destination, &request.route_table_id));
        }
        Ok((put(batch, &table)?, ()))
    })?;
    Ok(shapes::DeleteRouteOutput::default())
}
