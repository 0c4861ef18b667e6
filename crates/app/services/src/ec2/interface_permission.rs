//! Permissions on network interfaces (IAM-55).

use super::change::{add, in_vpc, remove};
use super::elastic_ip::own;
use super::error;
use super::noun::{find, new_id, parts_of};
use super::operation::operation;
use super::page::{Asked, records, shown};
use super::shapes;
use crate::Ctx;
use isolarium_model::ec2::interface::{Grantee, Permission};
use isolarium_model::ec2::{InterfacePermission, NetworkInterface, Tags};
use isolarium_wire::ApiError;

operation!(
    "CreateNetworkInterfacePermission",
    CreateNetworkInterfacePermissionRequest -> CreateNetworkInterfacePermissionResult,
    create
);
operation!(
    "DeleteNetworkInterfacePermission",
    DeleteNetworkInterfacePermissionRequest -> DeleteNetworkInterfacePermissionResult,
    delete
);
operation!(
    never dry "DescribeNetworkInterfacePermissions",
    DescribeNetworkInterfacePermissionsRequest -> DescribeNetworkInterfacePermissionsResult,
    describe
);

fn create(
    request: shapes::CreateNetworkInterfacePermissionRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::CreateNetworkInterfacePermissionResult, ApiError> {
    let grantee = match (&request.aws_account_id, &request.aws_service) {
        (Some(account), None) => {
            let account = account.parse();
            let account = account.map_err(|_| error::bad_value("awsAccountId", "", "It is no account id."))?;
            Grantee::Account(account)
        }
        (None, Some(service)) => Grantee::Service(service.clone()),
        (None, None) => return Err(error::missing("awsAccountId or awsService")),
        (Some(_), Some(_)) => {
            let text = "awsAccountId and awsService cannot be used together";
            return Err(error::combination(text));
        }
    };
    let permission = match request.permission {
        shapes::InterfacePermissionType::InstanceAttach => Permission::InstanceAttach,
        shapes::InterfacePermissionType::EipAssociate => Permission::EipAssociate,
    };
    let id = &request.network_interface_id;
    let vpc = find::<NetworkInterface>(ctx, id)?.record.vpc;
    let made = in_vpc(ctx, vpc, |vpc, batch| {
        let interface = find::<NetworkInterface>(ctx, id)?.record;
        own(&interface)?;
        let same = |one: &InterfacePermission| one.grantee == grantee && one.permission == permission;
        if parts_of::<InterfacePermission>(ctx, interface.id)?
            .iter()
            .any(|one| same(&one.record))
        {
            let text = format!("The permission on the network interface {id} already exists.");
            return Err(ApiError::client("InvalidPermission.Duplicate", text));
        }
        let made = InterfacePermission {
            id: new_id(ctx)?,
            interface: interface.id,
            vpc: vpc.id,
            grantee: grantee.clone(),
            permission,
            created: ctx.clock.now(),
            tags: Tags::new(),
        };
        Ok((add(ctx, batch, &made)?, made))
    })?;
    Ok(shapes::CreateNetworkInterfacePermissionResult {
        interface_permission: Some(view(&made)),
    })
}

fn delete(
    request: shapes::DeleteNetworkInterfacePermissionRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DeleteNetworkInterfacePermissionResult, ApiError> {
    let id = &request.network_interface_permission_id;
    let vpc = find::<InterfacePermission>(ctx, id)?.record.vpc;
    in_vpc(ctx, vpc, |_, batch| {
        let found = find::<InterfacePermission>(ctx, id)?;
        let interface = super::noun::referred::<NetworkInterface>(ctx, found.record.interface)?.record;
        own(&interface)?;
        if interface.attachment.is_some() && request.force != Some(true) {
            return Err(error::not_permitted(format!(
                "The network interface {} is attached; use force to remove the permission.",
                interface.id
            )));
        }
        Ok((remove(batch, &found), ()))
    })?;
    Ok(shapes::DeleteNetworkInterfacePermissionResult { r#return: Some(true) })
}

/// Filters of DescribeNetworkInterfacePermissions.
const FILTERS: &[&str] = &[
    "network-interface-permission.aws-account-id",
    "network-interface-permission.aws-service",
    "network-interface-permission.network-interface-id",
    "network-interface-permission.network-interface-permission-id",
    "network-interface-permission.permission",
];

fn describe(
    request: shapes::DescribeNetworkInterfacePermissionsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeNetworkInterfacePermissionsResult, ApiError> {
    let asked = Asked {
        ids: request.network_interface_permission_ids,
        filters: request.filters,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let (permissions, next_token) = records(ctx, asked, FILTERS, |one: &InterfacePermission, filter| {
        let view = view(one);
        let value = match filter.trim_start_matches("network-interface-permission.") {
            "aws-account-id" => view.aws_account_id,
            "aws-service" => view.aws_service,
            "network-interface-id" => view.network_interface_id,
            "permission" => view.permission.map(|permission| permission.to_string()),
            _ => view.network_interface_permission_id,
        };
        value.into_iter().collect()
    })?;
    Ok(shapes::DescribeNetworkInterfacePermissionsResult {
        network_interface_permissions: shown(permissions.iter().map(view).collect()),
        next_token,
    })
}

/// A permission as answers have it.
fn view(one: &InterfacePermission) -> shapes::NetworkInterfacePermission {
    let (account, service) = match &one.grantee {
        Grantee::Account(account) => (Some(account.to_string()), None),
        Grantee::Service(service) => (None, Some(service.clone())),
    };
    shapes::NetworkInterfacePermission {
        network_interface_permission_id: Some(one.id.to_string()),
        network_interface_id: Some(one.interface.to_string()),
        aws_account_id: account,
        aws_service: service,
        permission: Some(match one.permission {
            Permission::InstanceAttach => shapes::InterfacePermissionType::InstanceAttach,
            Permission::EipAssociate => shapes::InterfacePermissionType::EipAssociate,
        }),
        permission_state: Some(shapes::NetworkInterfacePermissionState {
            state: Some(shapes::NetworkInterfacePermissionStateCode::Granted),
            status_message: None,
        }),
    }
}
