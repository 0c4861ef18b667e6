//! Flow logs: CreateFlowLogs, DeleteFlowLogs, DescribeFlowLogs (NET-55).

use super::change::{again, put, remove};
use super::endpoint::unsuccessful_item;
use super::noun::{every, find, new_id, referred};
use super::operation::operation;
use super::page::{self, Asked};
use super::questions::Kind;
use super::token::{Outcome, once};
use super::{FLOW_LOGS_SERVICE, error, shapes, tags};
use crate::Ctx;
use crate::audit::Inquiry;
use crate::dispatch::{Handler, handler};
use crate::iam::credentials::{AssumeError, ExecutionRole, check_service_role};
use isolarium_model::ec2::flow_format::Format;
use isolarium_model::ec2::flow_log::{FlowLogDestination, FlowLogResource, TrafficType};
use isolarium_model::ec2::id::{FlowLogId, VpcId};
use isolarium_model::ec2::{FlowLog, NetworkInterface, Subnet, Tags, Vpc};
use isolarium_model::{Arn, Scope};
use isolarium_store::state::{Batch, Expect};
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most resources of one request.
const MAX_RESOURCES: usize = 1000;

pub(super) fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::CreateFlowLogsRequest>(),
        handler::<shapes::DeleteFlowLogsRequest>(),
        handler::<shapes::DescribeFlowLogsRequest>(),
    ]
}

operation!("CreateFlowLogs", CreateFlowLogsRequest -> CreateFlowLogsResult, create);
operation!("DeleteFlowLogs", DeleteFlowLogsRequest -> DeleteFlowLogsResult, delete);
operation!("DescribeFlowLogs", DescribeFlowLogsRequest -> DescribeFlowLogsResult, describe);

fn parameter(text: impl Into<String>) -> ApiError {
    ApiError::client("InvalidParameter", text)
}

/// What all flow logs of a request have in common.
struct Wanted {
    traffic: TrafficType,
    destination: FlowLogDestination,
    interval: u32,
    format: Format,
    tags: Tags,
}

fn wanted(request: &shapes::CreateFlowLogsRequest, ctx: &Ctx<'_>) -> Result<Wanted, ApiError> {
    error::refuse(&[
        (request.deliver_cross_account_role.is_some(), "DeliverCrossAccountRole"),
        (
            request
                .tag_field_specifications
                .as_ref()
                .is_some_and(|all| !all.is_empty()),
            "TagFieldSpecifications",
        ),
    ])?;
    let traffic = match request.traffic_type.ok_or_else(|| error::missing("TrafficType"))? {
        shapes::TrafficType::Accept => TrafficType::Accept,
        shapes::TrafficType::Reject => TrafficType::Reject,
        shapes::TrafficType::All => TrafficType::All,
    };
    let interval = match request.max_aggregation_interval.unwrap_or(600) {
        60 => 60,
        600 => 600,
        _ => return Err(parameter("Invalid Flow Log Max Aggregation Interval")),
    };
    let format = match request.log_format.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => text
            .parse()
            .map_err(|error| parameter(format!("Invalid LogFormat: {error}.")))?,
        None => Format::default(),
    };
    let destination = match request
        .log_destination_type
        .unwrap_or(shapes::LogDestinationType::CloudWatchLogs)
    {
        shapes::LogDestinationType::CloudWatchLogs => to_logs(request, &ctx.caller.scope)?,
        shapes::LogDestinationType::S3 => to_s3(request)?,
        shapes::LogDestinationType::KinesisDataFirehose => {
            return Err(error::unsupported("LogDestinationType kinesis-data-firehose"));
        }
    };
    Ok(Wanted {
        traffic,
        destination,
        interval,
        format,
        tags: tags::specified(request.tag_specifications.as_ref(), Kind::FlowLog.name())?,
    })
}

/// A log group of the caller's account, and the role that writes there.
fn to_logs(request: &shapes::CreateFlowLogsRequest, scope: &Scope) -> Result<FlowLogDestination, ApiError> {
    if request.destination_options.is_some() {
        return Err(parameter(
            "DestinationOptions can only be specified if LogDestinationType is s3.",
        ));
    }
    let group = match (&request.log_group_name, &request.log_destination) {
        (Some(_), Some(_)) => {
            return Err(parameter(
                "Please only provide LogGroupName or only provide LogDestination.",
            ));
        }
        (None, None) => {
            return Err(parameter(
                "LogDestination can't be empty if LogGroupName is not provided.",
            ));
        }
        (Some(name), None) => name.clone(),
        (None, Some(destination)) => group_of(destination, scope)?,
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-/.#".contains(c);
    if group.is_empty() || group.chars().count() > 512 || !group.chars().all(allowed) {
        return Err(parameter(format!("'{group}' cannot be the name of a log group.")));
    }
    let role = request.deliver_logs_permission_arn.as_deref().ok_or_else(|| {
        parameter("DeliverLogsPermissionArn can't be empty if LogDestinationType is cloud-watch-logs.")
    })?;
    let role_arn: Arn = role
        .parse()
        .map_err(|_| parameter(format!("'{role}' is not the ARN of a role.")))?;
    Ok(FlowLogDestination::CloudWatchLogs { group, role_arn })
}

/// The name in `arn:aws:logs:REGION:ACCOUNT:log-group:NAME`, with or without `:*`.
fn group_of(destination: &str, scope: &Scope) -> Result<String, ApiError> {
    let arn: Option<Arn> = destination.parse().ok();
    let own = arn.filter(|arn| {
        arn.service() == "logs"
            && arn.account().as_ref() == Some(&scope.account)
            && arn.region().as_ref() == Some(&scope.region)
    });
    let name = own.and_then(|arn| {
        let name = arn.resource().strip_prefix("log-group:")?.to_owned();
        Some(name.strip_suffix(":*").map_or(name.clone(), str::to_owned))
    });
    name.ok_or_else(|| {
        parameter(format!(
            "LogDestination {destination} is no log group of this account and region."
        ))
    })
}

fn to_s3(request: &shapes::CreateFlowLogsRequest) -> Result<FlowLogDestination, ApiError> {
    if request.log_group_name.is_some() {
        return Err(parameter(
            "LogDestination type must be cloud-watch-logs if LogGroupName is provided.",
        ));
    }
    if request.deliver_logs_permission_arn.is_some() {
        return Err(parameter(
            "DeliverLogsPermissionArn can only be specified if LogDestinationType is cloud-watch-logs.",
        ));
    }
    let destination = request
        .log_destination
        .as_deref()
        .ok_or_else(|| parameter("LogDestination can't be empty if LogDestinationType is s3."))?;
    let path = destination
        .strip_prefix("arn:aws:s3:::")
        .ok_or_else(|| parameter(format!("LogDestination {destination} is not the ARN of a bucket.")))?;
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let prefix = prefix.trim_matches('/');
    if prefix.split('/').any(|part| part == "AWSLogs") {
        return Err(parameter(
            "LogDestination must not contain AWSLogs, which is a reserved term.",
        ));
    }
    let options = request.destination_options.clone().unwrap_or_default();
    if options
        .file_format
        .is_some_and(|format| format != shapes::DestinationFileFormat::PlainText)
    {
        return Err(error::unsupported("FileFormat parquet"));
    }
    Ok(FlowLogDestination::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        per_hour: options.per_hour_partition == Some(true),
        hive: options.hive_compatible_partitions == Some(true),
    })
}

/// The resource of an id, and the VPC that its traffic is in.
fn resource(ctx: &Ctx<'_>, kind: shapes::FlowLogsResourceType, id: &str) -> Result<(FlowLogResource, VpcId), ApiError> {
    Ok(match kind {
        shapes::FlowLogsResourceType::Vpc => {
            let vpc = find::<Vpc>(ctx, id)?.record.id;
            (FlowLogResource::Vpc(vpc), vpc)
        }
        shapes::FlowLogsResourceType::Subnet => {
            let subnet = find::<Subnet>(ctx, id)?.record;
            (FlowLogResource::Subnet(subnet.id), subnet.vpc)
        }
        shapes::FlowLogsResourceType::NetworkInterface => {
            let interface = find::<NetworkInterface>(ctx, id)?.record;
            (FlowLogResource::Interface(interface.id), interface.vpc)
        }
        other => return Err(error::unsupported(&format!("A flow log of a {other}"))),
    })
}

/// Whether the role can be assumed by flow logs (NET-55). What it may do counts at each delivery.
fn check_role(ctx: &Ctx<'_>, role_arn: &Arn, log: FlowLogId) -> Result<(), ApiError> {
    let scope = &ctx.caller.scope;
    let source_arn = Kind::FlowLog.arn(scope, &log.to_string());
    let wanted = ExecutionRole {
        role_arn,
        scope,
        source_arn: &source_arn,
        session_name: "flow-logs",
        lasts: Duration::ZERO,
        inquiry: &Inquiry::default(),
    };
    match check_service_role(ctx.store, ctx.clock.now(), &wanted, FLOW_LOGS_SERVICE) {
        Ok(_) => Ok(()),
        Err(AssumeError::Role(_)) => Err(parameter(format!(
            "Access error: the role {role_arn} does not exist, or does not trust '{FLOW_LOGS_SERVICE}' to assume it."
        ))),
        Err(error @ AssumeError::Store(_)) => Err(ApiError::internal(error)),
    }
}

fn already() -> ApiError {
    let text = "Error. There is an existing Flow Log with the same configuration and log destination.";
    ApiError::client("FlowLogAlreadyExists", text)
}

fn create(request: shapes::CreateFlowLogsRequest, ctx: &Ctx<'_>) -> Result<shapes::CreateFlowLogsResult, ApiError> {
    let wanted = wanted(&request, ctx)?;
    if request.resource_ids.is_empty() {
        return Err(error::missing("ResourceIds"));
    }
    if request.resource_ids.len() > MAX_RESOURCES {
        return Err(error::invalid(format!(
            "A request names at most {MAX_RESOURCES} resources."
        )));
    }
    let (token, ids, kind) = (
        request.client_token.clone(),
        request.resource_ids.clone(),
        request.resource_type,
    );
    if let FlowLogDestination::S3 { bucket, .. } = &wanted.destination {
        let there = ctx.platform.has_bucket(bucket).map_err(ApiError::internal)?;
        if !there {
            let fault = || ApiError::client("400", format!("LogDestination: {bucket} does not exist."));
            let failed = ids.iter().map(|id| unsuccessful_item(id, fault())).collect();
            return Ok(shapes::CreateFlowLogsResult {
                client_token: token,
                flow_log_ids: Some(Vec::new()),
                unsuccessful: Some(failed),
            });
        }
    }
    let outcome = once(ctx, "CreateFlowLogs", token.as_deref(), request, || {
        // The VPCs first: two requests for one resource change one of them, so the later one sees the earlier log.
        let vpcs_of = |id: &String| resource(ctx, kind, id).and_then(|(_, vpc)| Ok((vpc, referred::<Vpc>(ctx, vpc)?)));
        let vpcs = ids.iter().map(vpcs_of).collect::<Result<BTreeMap<_, _>, _>>()?;
        let present = every::<FlowLog>(ctx)?;
        let mut about = BTreeSet::new();
        let mut batch = Batch::default();
        let mut made = Vec::new();
        for id in &ids {
            let (resource, vpc) = resource(ctx, kind, id)?;
            let same = |log: &FlowLog| log.about == resource && log.destination == wanted.destination;
            if present.iter().any(|found| same(&found.record)) || !about.insert(id) {
                return Err(already());
            }
            let log = FlowLog {
                id: new_id(ctx)?,
                vpc,
                about: resource,
                traffic: wanted.traffic,
                destination: wanted.destination.clone(),
                interval: wanted.interval,
                format: wanted.format.to_string(),
                error: None,
                created: ctx.clock.now(),
                tags: wanted.tags.clone(),
            };
            if let FlowLogDestination::CloudWatchLogs { role_arn, .. } = &log.destination {
                check_role(ctx, role_arn, log.id)?;
            }
            let key = isolarium_model::ec2::key(&ctx.caller.scope, log.id);
            batch = batch.put(&key, Expect::Absent, &log).map_err(error::stored)?;
            made.push(log.id.to_string());
        }
        for mut vpc in vpcs.into_values() {
            vpc.record.generation = vpc.record.generation.saturating_add(1);
            batch = put(batch, &vpc)?;
        }
        Ok((batch, (made.join(","), made)))
    })?;
    let made = match outcome {
        Outcome::Made(made) => made,
        Outcome::Before(ids) => ids.split(',').map(str::to_owned).collect(),
    };
    Ok(shapes::CreateFlowLogsResult {
        client_token: token,
        flow_log_ids: Some(made),
        unsuccessful: Some(Vec::new()),
    })
}

fn delete(request: shapes::DeleteFlowLogsRequest, ctx: &Ctx<'_>) -> Result<shapes::DeleteFlowLogsResult, ApiError> {
    let ids: BTreeSet<&String> = request.flow_log_ids.iter().collect();
    if ids.is_empty() {
        return Err(error::missing("FlowLogId"));
    }
    again(ctx, || {
        let mut batch = Batch::default();
        let mut unknown = Vec::new();
        for id in &ids {
            match find::<FlowLog>(ctx, id) {
                Ok(found) => batch = remove(batch, &found),
                Err(fault) if fault.status >= 500 => return Err(fault),
                Err(_) => unknown.push(id.as_str()),
            }
        }
        if !unknown.is_empty() {
            let text = format!(
                "These flow log ids in the input list are not found: [TotalCount: {}] {}",
                unknown.len(),
                unknown.join(" ")
            );
            return Err(ApiError::client("InvalidFlowLogId.NotFound", text));
        }
        Ok((batch, ()))
    })?;
    Ok(shapes::DeleteFlowLogsResult {
        unsuccessful: Some(Vec::new()),
    })
}

const FILTERS: &[&str] = &[
    "deliver-log-status",
    "flow-log-id",
    "log-destination-type",
    "log-group-name",
    "resource-id",
    "traffic-type",
];

fn describe(
    request: shapes::DescribeFlowLogsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeFlowLogsResult, ApiError> {
    let asked = Asked {
        ids: request.flow_log_ids,
        filters: request.filter,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let (found, next_token) = page::records::<FlowLog>(ctx, asked, FILTERS, |log, name| {
        let shown = view(&ctx.caller.scope, log);
        let value = match name {
            "deliver-log-status" => shown.deliver_logs_status,
            "flow-log-id" => shown.flow_log_id,
            "log-destination-type" => shown.log_destination_type.map(|kind| kind.to_string()),
            "log-group-name" => shown.log_group_name,
            "resource-id" => shown.resource_id,
            _ => shown.traffic_type.map(|kind| kind.to_string()),
        };
        value.into_iter().collect()
    })?;
    Ok(shapes::DescribeFlowLogsResult {
        flow_logs: Some(found.iter().map(|log| view(&ctx.caller.scope, log)).collect()),
        next_token,
    })
}

fn view(scope: &Scope, log: &FlowLog) -> shapes::FlowLog {
    let failed = log.error.is_some();
    let mut view = shapes::FlowLog {
        creation_time: Some(log.created.0),
        deliver_logs_error_message: log.error.clone(),
        deliver_logs_status: Some(if failed { "FAILED" } else { "SUCCESS" }.into()),
        flow_log_id: Some(log.id.to_string()),
        flow_log_status: Some("ACTIVE".into()),
        resource_id: Some(log.about.to_string()),
        traffic_type: Some(match log.traffic {
            TrafficType::Accept => shapes::TrafficType::Accept,
            TrafficType::Reject => shapes::TrafficType::Reject,
            TrafficType::All => shapes::TrafficType::All,
        }),
        log_format: Some(log.format.clone()),
        tags: tags::shown(&log.tags),
        max_aggregation_interval: Some(log.interval.into()),
        ..Default::default()
    };
    match &log.destination {
        FlowLogDestination::CloudWatchLogs { group, role_arn } => {
            view.log_destination_type = Some(shapes::LogDestinationType::CloudWatchLogs);
            view.log_group_name = Some(group.clone());
            view.log_destination = Some(Arn::regional("logs", scope, &format!("log-group:{group}")).to_string());
            view.deliver_logs_permission_arn = Some(role_arn.to_string());
        }
        FlowLogDestination::S3 {
            bucket,
            prefix,
            per_hour,
            hive,
        } => {
            let slash = if prefix.is_empty() { "" } else { "/" };
            view.log_destination_type = Some(shapes::LogDestinationType::S3);
            view.log_destination = Some(format!("arn:aws:s3:::{bucket}{slash}{prefix}"));
            view.destination_options = Some(shapes::DestinationOptionsResponse {
                file_format: Some(shapes::DestinationFileFormat::PlainText),
                hive_compatible_partitions: Some(*hive),
                per_hour_partition: Some(*per_hour),
            });
        }
    }
    view
}

#[cfg(test)]
mod tests;
