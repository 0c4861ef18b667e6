//! One interval of one flow log to where it goes.

use super::journal::Due;
use super::utc;
use flate2::Compression;
use flate2::write::GzEncoder;
use isolarium_model::ec2::FlowLog;
use isolarium_model::ec2::flow_format::Format;
use isolarium_model::ec2::flow_log::{FlowLogDestination, FlowLogResource, TrafficType};
use isolarium_model::ec2::zone::zones;
use isolarium_model::ec2::{Resource, Subnet, key};
use isolarium_model::logs::LogEvent;
use isolarium_model::{Scope, Timestamp};
use isolarium_netplan::flowlog::{Place, Ranges, lines::lines};
use isolarium_netplan::id::{FlowLogId, InterfaceId, SubnetId};
use isolarium_services::platform::PlatformError;
use isolarium_services::platform::flow_logs::Delivering;
use isolarium_services::platform::roles::{ExecutionRoles, LogPiece};
use std::collections::BTreeMap;
use std::io::Write;

/// What `DeliverLogsErrorMessage` says.
pub(super) fn message(error: &PlatformError) -> String {
    match error {
        PlatformError::Engine(_) => "Unknown error".into(),
        PlatformError::Unusable(text) => text.clone(),
        PlatformError::Role(_) | PlatformError::Denied(_) => "Access error".into(),
    }
}

/// What the log store knows an interface's lines of a flow log by.
pub(super) fn source(flow_log: FlowLogId, interface: InterfaceId) -> String {
    format!("{flow_log}/{interface}")
}

/// The flow log of a [`source`]; none for other sources.
pub(super) fn flow_log_of(source: &str) -> Option<FlowLogId> {
    source.split_once('/')?.0.parse().ok()
}

/// Lines of one interface, each with its time.
type Told = BTreeMap<InterfaceId, Vec<(Timestamp, String)>>;

/// Delivers an interval.
///
/// # Errors
/// When the role, the bucket's policy or the engine is in the way; repeated, it goes on where it stopped.
pub(super) fn deliver(
    roles: &ExecutionRoles,
    scope: &Scope,
    log: &FlowLog,
    due: &Due,
    ranges: &Ranges,
) -> Result<(), PlatformError> {
    let Ok(format) = log.format.parse::<Format>() else {
        return Err(PlatformError::Unusable("The log format cannot be read.".into()));
    };
    let told = told(roles, scope, log, &format, due, ranges)?;
    let arn = log.arn(scope);
    let flow_log = Delivering {
        scope,
        flow_log_arn: &arn,
    };
    match &log.destination {
        FlowLogDestination::CloudWatchLogs { group, role_arn } => {
            for (interface, lines) in &told {
                to_logs(roles, flow_log, log, (group, role_arn), *interface, lines, due)?;
            }
            Ok(())
        }
        FlowLogDestination::S3 {
            bucket,
            prefix,
            per_hour,
            hive,
        } => {
            let unusable = |error: std::io::Error| PlatformError::Engine(error.into());
            let bytes = file(&format, &told).map_err(unusable)?;
            let key = object_key(scope, log, due.interval.until, prefix, *per_hour, *hive);
            roles.deliver_to_s3(flow_log, bucket, &key, &bytes)
        }
    }
}

/// Whether a flow log tells of an interface of its VPC (NET-55).
fn concerns(about: FlowLogResource, subnet: SubnetId, interface: InterfaceId) -> bool {
    match about {
        FlowLogResource::Vpc(_) => true,
        FlowLogResource::Subnet(id) => id == subnet,
        FlowLogResource::Interface(id) => id == interface,
    }
}

fn told(
    roles: &ExecutionRoles,
    scope: &Scope,
    log: &FlowLog,
    format: &Format,
    due: &Due,
    ranges: &Ranges,
) -> Result<Told, PlatformError> {
    let mut zone_of: BTreeMap<SubnetId, String> = BTreeMap::new();
    let mut told = Told::new();
    for (interface, subnet) in &due.interfaces {
        if !concerns(log.about, *subnet, *interface) {
            continue;
        }
        let zone_id = match zone_of.get(subnet) {
            Some(known) => known.clone(),
            None => {
                let found = roles.store.get::<Subnet>(&key(scope, subnet));
                let found = found.map_err(|error| PlatformError::Engine(error.into()))?;
                let first = || zones(&scope.region, "a").into_iter().next();
                let zone = found.map(|stored| stored.record.zone).or_else(first);
                let id = zone.map(|zone| zone.id).unwrap_or_default();
                zone_of.insert(*subnet, id.clone());
                id
            }
        };
        let place = Place {
            scope: scope.clone(),
            vpc: log.vpc,
            subnet: *subnet,
            interface: *interface,
            zone_id,
        };
        let mut own = lines(
            format,
            log.traffic,
            &place,
            due.interval,
            &due.records,
            due.lost,
            ranges,
        );
        own.sort_by_key(|(time, _)| *time);
        told.insert(*interface, own);
    }
    Ok(told)
}

/// One stream per interface (NET-56).
fn to_logs(
    roles: &ExecutionRoles,
    flow_log: Delivering<'_>,
    log: &FlowLog,
    (group, role_arn): (&str, &isolarium_model::Arn),
    interface: InterfaceId,
    lines: &[(Timestamp, String)],
    due: &Due,
) -> Result<(), PlatformError> {
    let source = source(log.id, interface);
    let from = roles.delivered(&source)?;
    let to = u64::try_from(due.interval.until.0).unwrap_or_default();
    if from >= to {
        return Ok(());
    }
    let events: Vec<LogEvent> = lines
        .iter()
        .map(|(time, line)| LogEvent {
            timestamp: *time,
            message: line.clone(),
        })
        .collect();
    let suffix = match log.traffic {
        TrafficType::All => "all",
        TrafficType::Accept => "accept",
        TrafficType::Reject => "reject",
    };
    let piece = LogPiece {
        source: &source,
        from,
        to,
        events: &events,
    };
    roles.deliver_to_logs(flow_log, role_arn, group, &format!("{interface}-{suffix}"), &piece)
}

/// A header line and every interface's lines, compressed.
fn file(format: &Format, told: &Told) -> std::io::Result<Vec<u8>> {
    let mut file = GzEncoder::new(Vec::new(), Compression::default());
    writeln!(file, "{}", format.header())?;
    for (_, line) in told.values().flatten() {
        writeln!(file, "{line}")?;
    }
    file.finish()
}

/// NET-56. Names end in a hash of what they are about, so that a delivery that is repeated writes the same object.
fn object_key(scope: &Scope, log: &FlowLog, until: Timestamp, prefix: &str, per_hour: bool, hive: bool) -> String {
    let at = utc(until);
    let (account, region) = (&scope.account, &scope.region);
    let mut path = match hive {
        false => format!("AWSLogs/{account}/vpcflowlogs/{region}/{}/", at.strftime("%Y/%m/%d")),
        true => format!(
            "AWSLogs/aws-account-id={account}/aws-service=vpcflowlogs/aws-region={region}/{}/",
            at.strftime("year=%Y/month=%m/day=%d")
        ),
    };
    if per_hour {
        path += &at.strftime(if hive { "hour=%H/" } else { "%H/" }).to_string();
    }
    if !prefix.is_empty() {
        path = format!("{prefix}/{path}");
    }
    let spread = format!("{} {}", log.id, until.0)
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let hash = spread >> 32;
    let time = at.strftime("%Y%m%dT%H%MZ");
    format!(
        "{path}{account}_vpcflowlogs_{region}_{}_{time}_{hash:08x}.log.gz",
        log.id
    )
}

#[cfg(test)]
mod tests;
