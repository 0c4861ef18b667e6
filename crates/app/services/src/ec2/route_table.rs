//! Route tables and their associations (NET-24).

use super::change::{add, in_vpc, put, remove, stepped};
use super::error;
use super::noun::{every, find, new_id, of_vpc};
use super::operation::operation;
use super::page::{Asked, records, shown};
use super::shapes;
use super::tags;
use super::token::{Outcome, once};
use crate::Ctx;
use isolarium_model::Scope;
use isolarium_model::ec2::endpoint::EndpointKind;
use isolarium_model::ec2::id::{InterfaceId, InternetGatewayId, NatGatewayId, RouteTableAssociationId, VpcId};
use isolarium_model::ec2::route_table::{Associated, Targets};
use isolarium_model::ec2::{
    InternetGateway, NatGateway, NetworkInterface, Resource, RouteState, RouteTable, RouteTarget, Subnet, Vpc,
    VpcEndpoint,
};
use isolarium_store::state::Stored;
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};

operation!("CreateRouteTable", CreateRouteTableRequest -> CreateRouteTableResult, create);
operation!("DeleteRouteTable", DeleteRouteTableRequest -> DeleteRouteTableOutput, delete);
operation!("DescribeRouteTables", DescribeRouteTablesRequest -> DescribeRouteTablesResult, describe);
operation!("AssociateRouteTable", AssociateRouteTableRequest -> AssociateRouteTableResult, associate);
operation!("DisassociateRouteTable", DisassociateRouteTableRequest -> DisassociateRouteTableOutput, disassociate);
operation!(
    "ReplaceRouteTableAssociation",
    ReplaceRouteTableAssociationRequest -> ReplaceRouteTableAssociationResult,
    replace_association
);

fn create(request: shapes::CreateRouteTableRequest, ctx: &Ctx<'_>) -> Result<shapes::CreateRouteTableResult, ApiError> {
    let tags = tags::specified(request.tag_specifications.as_ref(), RouteTable::TYPE)?;
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record.id;
    let token = request.client_token.clone();
    let outcome = once(ctx, "CreateRouteTable", token.as_deref(), request, || {
        stepped(ctx, vpc, |vpc, batch| {
            if of_vpc::<RouteTable>(ctx, vpc.id)?.len() >= ctx.platform.settings().ec2.quotas.route_tables_per_vpc {
                let text = "The maximum number of route tables has been reached.";
                return Err(error::limit("RouteTableLimitExceeded", text));
            }
            let table = RouteTable {
                id: new_id(ctx)?,
                vpc: vpc.id,
                routes: BTreeMap::new(),
                associations: BTreeMap::new(),
                created: ctx.clock.now(),
                tags: tags.clone(),
            };
            Ok((add(ctx, batch, &table)?, (table.id.to_string(), table)))
        })
    })?;
    let made = match outcome {
        Outcome::Made(made) => made,
        Outcome::Before(id) => find::<RouteTable>(ctx, &id)?.record,
    };
    Ok(shapes::CreateRouteTableResult {
        route_table: Some(Known::read(ctx)?.view(&made)),
        client_token: token,
    })
}

fn delete(request: shapes::DeleteRouteTableRequest, ctx: &Ctx<'_>) -> Result<shapes::DeleteRouteTableOutput, ApiError> {
    let vpc = find::<RouteTable>(ctx, &request.route_table_id)?.record.vpc;
    in_vpc(ctx, vpc, |vpc, batch| {
        let found = find::<RouteTable>(ctx, &request.route_table_id)?;
        let id = found.record.id;
        if !found.record.associations.is_empty() {
            return Err(error::has_dependencies("routeTable", id));
        }
        let mut batch = remove(batch, &found);
        // Its association with gateway endpoints goes with it (NET-32).
        for mut endpoint in of_vpc::<VpcEndpoint>(ctx, vpc.id)? {
            if let EndpointKind::Gateway { route_tables, .. } = &mut endpoint.record.kind
                && route_tables.remove(&id)
            {
                batch = put(batch, &endpoint)?;
            }
        }
        Ok((batch, ()))
    })?;
    Ok(shapes::DeleteRouteTableOutput::default())
}

fn associated() -> Option<shapes::RouteTableAssociationState> {
    Some(shapes::RouteTableAssociationState {
        state: Some(shapes::RouteTableAssociationStateCode::Associated),
        status_message: None,
    })
}

fn associate(
    request: shapes::AssociateRouteTableRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::AssociateRouteTableResult, ApiError> {
    error::refuse(&[(
        request.gateway_id.is_some() || request.public_ipv4_pool.is_some(),
        "Association of a route table with a gateway",
    )])?;
    let wanted = request.subnet_id.as_deref().ok_or_else(|| error::missing("subnetId"))?;
    let vpc = find::<RouteTable>(ctx, &request.route_table_id)?.record.vpc;
    find::<Subnet>(ctx, wanted)?;
    let made = in_vpc(ctx, vpc, |vpc, batch| {
        let mut table = find::<RouteTable>(ctx, &request.route_table_id)?;
        let subnet = find::<Subnet>(ctx, wanted)?.record;
        if subnet.vpc != vpc.id {
            return Err(error::invalid(format!(
                "Route table {} and subnet {} belong to different networks",
                table.record.id, subnet.id
            )));
        }
        for other in of_vpc::<RouteTable>(ctx, vpc.id)? {
            let mut all = other.record.associations.iter();
            match all.find(|(_, with)| **with == Associated::Subnet(subnet.id)) {
                Some((id, _)) if other.record.id == table.record.id => return Ok((batch, *id)),
                Some(_) => {
                    let text = format!(
                        "the specified association for route table {} conflicts with an existing association",
                        table.record.id
                    );
                    return Err(ApiError::client("Resource.AlreadyAssociated", text));
                }
                None => {}
            }
        }
        let id: RouteTableAssociationId = new_id(ctx)?;
        table.record.associations.insert(id, Associated::Subnet(subnet.id));
        Ok((put(batch, &table)?, id))
    })?;
    Ok(shapes::AssociateRouteTableResult {
        association_id: Some(made.to_string()),
        association_state: associated(),
    })
}

/// The table with an association.
fn with_association(ctx: &Ctx<'_>, id: &str) -> Result<(Stored<RouteTable>, RouteTableAssociationId), ApiError> {
    let unknown = || error::association_not_found(id);
    let association: RouteTableAssociationId = id.parse().map_err(|_| unknown())?;
    let tables = every::<RouteTable>(ctx)?;
    let table = tables
        .into_iter()
        .find(|table| table.record.associations.contains_key(&association));
    Ok((table.ok_or_else(unknown)?, association))
}

fn disassociate(
    request: shapes::DisassociateRouteTableRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DisassociateRouteTableOutput, ApiError> {
    let vpc = with_association(ctx, &request.association_id)?.0.record.vpc;
    in_vpc(ctx, vpc, |_, batch| {
        let (mut table, association) = with_association(ctx, &request.association_id)?;
        if table.record.associations.remove(&association) == Some(Associated::Main) {
            return Err(error::invalid(format!(
                "cannot disassociate the main route table association {association}"
            )));
        }
        Ok((put(batch, &table)?, ()))
    })?;
    Ok(shapes::DisassociateRouteTableOutput::default())
}

fn replace_association(
    request: shapes::ReplaceRouteTableAssociationRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::ReplaceRouteTableAssociationResult, ApiError> {
    let vpc = with_association(ctx, &request.association_id)?.0.record.vpc;
    find::<RouteTable>(ctx, &request.route_table_id)?;
    let made = in_vpc(ctx, vpc, |vpc, batch| {
        let (mut old, association) = with_association(ctx, &request.association_id)?;
        let mut new = find::<RouteTable>(ctx, &request.route_table_id)?;
        if new.record.vpc != vpc.id {
            return Err(error::invalid(format!(
                "Route table {} and association {association} belong to different networks",
                new.record.id
            )));
        }
        if new.record.id == old.record.id {
            return Ok((batch, association));
        }
        let with = old.record.associations.remove(&association);
        let id: RouteTableAssociationId = new_id(ctx)?;
        new.record.associations.extend(with.map(|with| (id, with)));
        let batch = put(batch, &old)?;
        Ok((put(batch, &new)?, id))
    })?;
    Ok(shapes::ReplaceRouteTableAssociationResult {
        new_association_id: Some(made.to_string()),
        association_state: associated(),
    })
}

/// What a table's view needs beside the table, read once for all of them.
pub(super) struct Known {
    scope: Scope,
    vpcs: BTreeMap<VpcId, Vpc>,
    gateways: BTreeSet<(InternetGatewayId, VpcId)>,
    nats: BTreeMap<NatGatewayId, NatGateway>,
    held: BTreeSet<(InterfaceId, VpcId)>,
    endpoints: Vec<VpcEndpoint>,
}

/// The targets of one VPC's routes.
struct InVpc<'a>(&'a Known, VpcId);

impl Targets for InVpc<'_> {
    fn attached(&self, gateway: InternetGatewayId) -> bool {
        self.0.gateways.contains(&(gateway, self.1))
    }

    fn serves(&self, gateway: NatGatewayId) -> bool {
        let nat = self.0.nats.get(&gateway).filter(|nat| nat.vpc == self.1);
        nat.is_some_and(|nat| nat.state.serves())
    }

    fn held(&self, interface: InterfaceId) -> bool {
        self.0.held.contains(&(interface, self.1))
    }
}

impl Known {
    pub(super) fn read(ctx: &Ctx<'_>) -> Result<Self, ApiError> {
        let gateways = every::<InternetGateway>(ctx)?.into_iter().map(|found| found.record);
        let interfaces = every::<NetworkInterface>(ctx)?.into_iter().map(|found| found.record);
        let nats = every::<NatGateway>(ctx)?.into_iter().map(|found| found.record);
        let vpcs = every::<Vpc>(ctx)?.into_iter().map(|found| found.record);
        Ok(Self {
            scope: ctx.caller.scope.clone(),
            vpcs: vpcs.map(|vpc| (vpc.id, vpc)).collect(),
            gateways: gateways
                .filter_map(|one| one.attached.map(|vpc| (one.id, vpc)))
                .collect(),
            nats: nats.map(|nat| (nat.id, nat)).collect(),
            held: interfaces
                .filter(|one| one.attachment.is_some())
                .map(|one| (one.id, one.vpc))
                .collect(),
            endpoints: every::<VpcEndpoint>(ctx)?
                .into_iter()
                .map(|found| found.record)
                .collect(),
        })
    }

    /// The routes of a table: the local ones, those that the owner made, those of gateway endpoints.
    fn routes(&self, table: &RouteTable) -> Vec<shapes::Route> {
        let blocks = self.vpcs.get(&table.vpc).into_iter().flat_map(|vpc| &vpc.blocks);
        let local = blocks.map(|block| shapes::Route {
            destination_cidr_block: Some(block.block.to_string()),
            gateway_id: Some("local".into()),
            origin: Some(shapes::RouteOrigin::CreateRouteTable),
            state: Some(shapes::RouteState::Active),
            ..Default::default()
        });
        let made = table.routes.iter().map(|(destination, target)| {
            let state = match target.state(&InVpc(self, table.vpc)) {
                RouteState::Active => shapes::RouteState::Active,
                RouteState::Blackhole => shapes::RouteState::Blackhole,
            };
            let mut route = shapes::Route {
                destination_cidr_block: Some(destination.to_string()),
                origin: Some(shapes::RouteOrigin::CreateRoute),
                state: Some(state),
                ..Default::default()
            };
            match target {
                RouteTarget::InternetGateway(id) => route.gateway_id = Some(id.to_string()),
                RouteTarget::NatGateway(id) => route.nat_gateway_id = Some(id.to_string()),
                RouteTarget::Interface(id) => route.network_interface_id = Some(id.to_string()),
            }
            route
        });
        let endpoints = self.endpoints.iter().filter_map(|endpoint| match &endpoint.kind {
            EndpointKind::Gateway {
                prefix_list,
                route_tables,
            } if route_tables.contains(&table.id) => Some(shapes::Route {
                destination_prefix_list_id: Some(prefix_list.to_string()),
                gateway_id: Some(endpoint.id.to_string()),
                origin: Some(shapes::RouteOrigin::CreateRoute),
                state: Some(shapes::RouteState::Active),
                ..Default::default()
            }),
            _ => None,
        });
        local.chain(made).chain(endpoints).collect()
    }

    fn associations(table: &RouteTable) -> Vec<shapes::RouteTableAssociation> {
        let view = |(id, with): (&RouteTableAssociationId, &Associated)| shapes::RouteTableAssociation {
            main: Some(*with == Associated::Main),
            route_table_association_id: Some(id.to_string()),
            route_table_id: Some(table.id.to_string()),
            subnet_id: match with {
                Associated::Main => None,
                Associated::Subnet(subnet) => Some(subnet.to_string()),
            },
            association_state: associated(),
            ..Default::default()
        };
        table.associations.iter().map(view).collect()
    }

    /// A table as answers have it. Clients index the lists, so they are there even when empty.
    pub(super) fn view(&self, table: &RouteTable) -> shapes::RouteTable {
        shapes::RouteTable {
            associations: Some(Self::associations(table)),
            propagating_vgws: Some(Vec::new()),
            route_table_id: Some(table.id.to_string()),
            routes: Some(self.routes(table)),
            tags: tags::shown(&table.tags),
            vpc_id: Some(table.vpc.to_string()),
            owner_id: Some(self.scope.account.to_string()),
        }
    }
}

/// Filters of DescribeRouteTables.
const FILTERS: &[&str] = &[
    "association.gateway-id",
    "association.main",
    "association.route-table-association-id",
    "association.route-table-id",
    "association.subnet-id",
    "owner-id",
    "route-table-id",
    "route.destination-cidr-block",
    "route.destination-ipv6-cidr-block",
    "route.destination-prefix-list-id",
    "route.egress-only-internet-gateway-id",
    "route.gateway-id",
    "route.instance-id",
    "route.nat-gateway-id",
    "route.network-interface-id",
    "route.origin",
    "route.state",
    "route.transit-gateway-id",
    "route.vpc-peering-connection-id",
    "vpc-id",
];

fn describe(
    request: shapes::DescribeRouteTablesRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeRouteTablesResult, ApiError> {
    let asked = Asked {
        ids: request.route_table_ids,
        filters: request.filters,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let known = Known::read(ctx)?;
    let (tables, next_token) = records(ctx, asked, FILTERS, |table: &RouteTable, filter| {
        let of_routes = |value: fn(shapes::Route) -> Option<String>| {
            let values = known.routes(table).into_iter().filter_map(value);
            values.collect()
        };
        match filter {
            "association.main" if table.associations.is_empty() => vec!["false".into()],
            "association.main" => {
                let main = table
                    .associations
                    .values()
                    .map(|with| (*with == Associated::Main).to_string());
                main.collect()
            }
            "association.route-table-association-id" => table.associations.keys().map(ToString::to_string).collect(),
            "association.route-table-id" if !table.associations.is_empty() => vec![table.id.to_string()],
            "association.subnet-id" => table.subnets().map(|subnet| subnet.to_string()).collect(),
            "owner-id" => vec![known.scope.account.to_string()],
            "route-table-id" => vec![table.id.to_string()],
            "route.destination-cidr-block" => of_routes(|route| route.destination_cidr_block),
            "route.destination-prefix-list-id" => of_routes(|route| route.destination_prefix_list_id),
            "route.gateway-id" => of_routes(|route| route.gateway_id),
            "route.nat-gateway-id" => of_routes(|route| route.nat_gateway_id),
            "route.network-interface-id" => of_routes(|route| route.network_interface_id),
            "route.origin" => of_routes(|route| route.origin.map(|origin| origin.to_string())),
            "route.state" => of_routes(|route| route.state.map(|state| state.to_string())),
            "vpc-id" => vec![table.vpc.to_string()],
            _ => Vec::new(),
        }
    })?;
    Ok(shapes::DescribeRouteTablesResult {
        route_tables: shown(tables.iter().map(|table| known.view(table)).collect()),
        next_token,
    })
}
