//! Internet gateways (NET-28).

use super::change::{add, again, in_vpc, put, remove};
use super::default_vpc::{attributes, put_attributes};
use super::error;
use super::noun::{every, find, new_id, of_vpc};
use super::operation::operation;
use super::page::{Asked, records, shown};
use super::shapes;
use super::tags;
use crate::Ctx;
use isolarium_model::Scope;
use isolarium_model::ec2::{ElasticIp, InternetGateway, NetworkInterface, Resource, Vpc};
use isolarium_store::state::Batch;
use isolarium_wire::ApiError;

operation!("CreateInternetGateway", CreateInternetGatewayRequest -> CreateInternetGatewayResult, create);
operation!("DeleteInternetGateway", DeleteInternetGatewayRequest -> DeleteInternetGatewayOutput, delete);
operation!("AttachInternetGateway", AttachInternetGatewayRequest -> AttachInternetGatewayOutput, attach);
operation!("DetachInternetGateway", DetachInternetGatewayRequest -> DetachInternetGatewayOutput, detach);
operation!("DescribeInternetGateways", DescribeInternetGatewaysRequest -> DescribeInternetGatewaysResult, describe);

fn create(
    request: shapes::CreateInternetGatewayRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::CreateInternetGatewayResult, ApiError> {
    let tags = tags::specified(request.tag_specifications.as_ref(), InternetGateway::TYPE)?;
    let made = again(ctx, || {
        let account = attributes(ctx.store, &ctx.caller.scope)?;
        if every::<InternetGateway>(ctx)?.len() >= ctx.platform.settings().ec2.quotas.internet_gateways {
            let text = "The maximum number of internet gateways has been reached.";
            return Err(error::limit("InternetGatewayLimitExceeded", text));
        }
        let gateway = InternetGateway {
            id: new_id(ctx)?,
            attached: None,
            created: ctx.clock.now(),
            tags: tags.clone(),
        };
        let batch = put_attributes(Batch::default(), account)?;
        Ok((add(ctx, batch, &gateway)?, gateway))
    })?;
    Ok(shapes::CreateInternetGatewayResult {
        internet_gateway: Some(view(&ctx.caller.scope, &made)),
    })
}

fn delete(
    request: shapes::DeleteInternetGatewayRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DeleteInternetGatewayOutput, ApiError> {
    again(ctx, || {
        let found = find::<InternetGateway>(ctx, &request.internet_gateway_id)?;
        if found.record.attached.is_some() {
            return Err(error::has_dependencies("internetGateway", found.record.id));
        }
        Ok((remove(Batch::default(), &found), ()))
    })?;
    Ok(shapes::DeleteInternetGatewayOutput::default())
}

fn attach(
    request: shapes::AttachInternetGatewayRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::AttachInternetGatewayOutput, ApiError> {
    find::<InternetGateway>(ctx, &request.internet_gateway_id)?;
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record.id;
    in_vpc(ctx, vpc, |vpc, batch| {
        let mut gateway = find::<InternetGateway>(ctx, &request.internet_gateway_id)?;
        if let Some(other) = gateway.record.attached {
            let text = format!("resource {} is already attached to network {other}", gateway.record.id);
            return Err(ApiError::client("Resource.AlreadyAssociated", text));
        }
        if !of_vpc::<InternetGateway>(ctx, vpc.id)?.is_empty() {
            return Err(error::invalid(format!(
                "Network {} already has an internet gateway attached",
                vpc.id
            )));
        }
        gateway.record.attached = Some(vpc.id);
        Ok((put(batch, &gateway)?, ()))
    })?;
    Ok(shapes::AttachInternetGatewayOutput::default())
}

fn detach(
    request: shapes::DetachInternetGatewayRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DetachInternetGatewayOutput, ApiError> {
    find::<InternetGateway>(ctx, &request.internet_gateway_id)?;
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record.id;
    in_vpc(ctx, vpc, |vpc, batch| {
        let mut gateway = find::<InternetGateway>(ctx, &request.internet_gateway_id)?;
        if gateway.record.attached != Some(vpc.id) {
            let text = format!("resource {} is not attached to network {}", gateway.record.id, vpc.id);
            return Err(ApiError::client("Gateway.NotAttached", text));
        }
        let inside = of_vpc::<NetworkInterface>(ctx, vpc.id)?;
        let inside: Vec<String> = inside.iter().map(|one| one.record.id.to_string()).collect();
        let mapped = ctx.store.parts::<ElasticIp>(&ctx.caller.scope, &inside);
        if !mapped.map_err(error::stored)?.is_empty() {
            return Err(error::dependency(format!(
                "Network {} has some mapped public address(es). Please unmap those public address(es) before detaching \
                 the gateway.",
                vpc.id
            )));
        }
        gateway.record.attached = None;
        Ok((put(batch, &gateway)?, ()))
    })?;
    Ok(shapes::DetachInternetGatewayOutput::default())
}

/// Filters of DescribeInternetGateways.
const FILTERS: &[&str] = &[
    "attachment.state",
    "attachment.vpc-id",
    "internet-gateway-id",
    "owner-id",
];

fn describe(
    request: shapes::DescribeInternetGatewaysRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeInternetGatewaysResult, ApiError> {
    let asked = Asked {
        ids: request.internet_gateway_ids,
        filters: request.filters,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let scope = &ctx.caller.scope;
    let (gateways, next_token) = records(ctx, asked, FILTERS, |gateway: &InternetGateway, filter| {
        let attached = gateway.attached.map(|vpc| vpc.to_string());
        match filter {
            "attachment.state" => attached.map(|_| "available".to_owned()).into_iter().collect(),
            "attachment.vpc-id" => attached.into_iter().collect(),
            "internet-gateway-id" => vec![gateway.id.to_string()],
            _ => vec![scope.account.to_string()],
        }
    })?;
    Ok(shapes::DescribeInternetGatewaysResult {
        internet_gateways: shown(gateways.iter().map(|gateway| view(scope, gateway)).collect()),
        next_token,
    })
}

/// An internet gateway as answers have it. EC2 says `available` of one that is attached.
fn view(scope: &Scope, gateway: &InternetGateway) -> shapes::InternetGateway {
    let attachment = |vpc: isolarium_model::ec2::id::VpcId| shapes::InternetGatewayAttachment {
        state: Some("available".into()),
        vpc_id: Some(vpc.to_string()),
    };
    shapes::InternetGateway {
        attachments: Some(gateway.attached.map(attachment).into_iter().collect()),
        internet_gateway_id: Some(gateway.id.to_string()),
        owner_id: Some(scope.account.to_string()),
        tags: tags::shown(&gateway.tags),
    }
}
