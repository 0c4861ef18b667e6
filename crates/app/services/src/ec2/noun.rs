//! Finding EC2's records by the ids of requests, and what an unknown id is answered (NET-81, NET-84).

use super::error;
use crate::Ctx;
use isolarium_model::ec2::id::{self, Id};
use isolarium_model::ec2::{
    DhcpOptions, ElasticIp, FlowLog, InterfacePermission, InternetGateway, NatGateway, NetworkAcl, NetworkInterface,
    Resource, RouteTable, SecurityGroup, Subnet, Vpc, VpcEndpoint, key,
};
use isolarium_model::time::IdSource;
use isolarium_store::state::{Query, Stored};
use isolarium_wire::ApiError;
use std::fmt::Display;

/// A record that requests name by its id.
pub(super) trait Noun: Resource {
    /// What its id is an id of.
    type Kind: id::Kind;

    /// The error of an id that is not there.
    fn not_found(id: &str) -> ApiError;
}

macro_rules! nouns {
    ($($noun:ident $kind:ident $code:literal $before:literal $after:literal;)+) => {$(
        impl Noun for $noun {
            type Kind = id::$kind;

            fn not_found(id: &str) -> ApiError {
                ApiError::client($code, format!("{}{id}{}", $before, $after))
            }
        }
    )+};
}

nouns! {
    Vpc VpcKind "InvalidVpcID.NotFound" "The vpc ID '" "' does not exist";
    Subnet SubnetKind "InvalidSubnetID.NotFound" "The subnet ID '" "' does not exist";
    SecurityGroup GroupKind "InvalidGroup.NotFound" "The security group '" "' does not exist";
    NetworkAcl AclKind "InvalidNetworkAclID.NotFound" "The networkAcl ID '" "' does not exist";
    RouteTable RouteTableKind "InvalidRouteTableID.NotFound" "The routeTable ID '" "' does not exist";
    NetworkInterface InterfaceKind "InvalidNetworkInterfaceID.NotFound"
        "The networkInterface ID '" "' does not exist";
    InterfacePermission InterfacePermissionKind "InvalidPermissionID.NotFound"
        "The networkInterface permission ID '" "' does not exist";
    InternetGateway InternetGatewayKind "InvalidInternetGatewayID.NotFound"
        "The internetGateway ID '" "' does not exist";
    NatGateway NatGatewayKind "NatGatewayNotFound" "The Nat Gateway " " was not found";
    ElasticIp AllocationKind "InvalidAllocationID.NotFound" "The allocation ID '" "' does not exist";
    VpcEndpoint EndpointKind "InvalidVpcEndpointId.NotFound" "The Vpc Endpoint Id '" "' does not exist";
    DhcpOptions DhcpOptionsKind "InvalidDhcpOptionID.NotFound" "The dhcpOption ID '" "' does not exist";
    FlowLog FlowLogKind "InvalidFlowLogId.NotFound" "The flow log ID '" "' does not exist";
}

/// A new id that cannot be guessed and is never used twice (NET-80).
///
/// # Errors
/// Never in practice: the source gives hexadecimal digits.
pub(super) fn new_id<K: id::Kind>(ctx: &Ctx<'_>) -> Result<Id<K>, ApiError> {
    fresh(ctx.ids)
}

/// As [`new_id`], from any source of ids.
pub(super) fn fresh<K: id::Kind>(ids: &dyn IdSource) -> Result<Id<K>, ApiError> {
    let text = format!("{}{}", K::PREFIX, ids.hex(17));
    text.parse().map_err(ApiError::internal)
}

/// The record of an id, in the caller's account and region. A text that is no id of the kind is an unknown one.
pub(super) fn find<N: Noun>(ctx: &Ctx<'_>, id: &str) -> Result<Stored<N>, ApiError> {
    let unknown = || N::not_found(id);
    let id: Id<N::Kind> = id.parse().map_err(|_| unknown())?;
    get(ctx, id)?.ok_or_else(unknown)
}

/// The record of an id in the caller's account and region, if it is there.
pub(super) fn get<N: Noun>(ctx: &Ctx<'_>, id: Id<N::Kind>) -> Result<Option<Stored<N>>, ApiError> {
    let key = key(&ctx.caller.scope, id);
    ctx.store.get::<N>(&key).map_err(error::stored)
}

/// The record of a reference that another record holds.
pub(super) fn referred<N: Noun>(ctx: &Ctx<'_>, id: Id<N::Kind>) -> Result<Stored<N>, ApiError> {
    get(ctx, id)?.ok_or_else(|| N::not_found(&id.to_string()))
}

/// Every record of a kind in the caller's account and region.
pub(super) fn every<N: Resource>(ctx: &Ctx<'_>) -> Result<Vec<Stored<N>>, ApiError> {
    let page = ctx.store.query::<N>(&Query::all(&ctx.caller.scope));
    Ok(page.map_err(error::stored)?.rows)
}

/// Every record of a kind in one VPC: of those kinds that are parts of VPCs.
pub(super) fn of_vpc<N: Resource>(ctx: &Ctx<'_>, vpc: id::VpcId) -> Result<Vec<Stored<N>>, ApiError> {
    parts_of(ctx, vpc)
}

/// Every record of a kind that is a part of another one ([`isolarium_model::Record::part_of`]).
pub(super) fn parts_of<N: Resource>(ctx: &Ctx<'_>, whole: impl Display) -> Result<Vec<Stored<N>>, ApiError> {
    let parts = ctx.store.parts::<N>(&ctx.caller.scope, &[whole.to_string()]);
    parts.map_err(error::stored)
}
