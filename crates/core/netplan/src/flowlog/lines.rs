//! Records as the lines that a flow log delivers.

use super::observed::Counts;
use super::records::{FlowRecord, Ranges};
use crate::id::{InterfaceId, SubnetId, VpcId};
use crate::reach::Direction;
use isolarium_model::ec2::flow_format::{Field, Format};
use isolarium_model::ec2::flow_log::TrafficType;
use isolarium_model::{Scope, Timestamp};

/// The time that a flow log's records are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub from: Timestamp,
    /// Not in it.
    pub until: Timestamp,
}

/// Where an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub scope: Scope,
    pub vpc: VpcId,
    pub subnet: SubnetId,
    pub interface: InterfaceId,
    /// Such as `use1-az1`.
    pub zone_id: String,
}

/// What a line says of the interval.
enum Status<'a> {
    Ok(&'a FlowRecord),
    NoData,
    SkipData,
}

/// The lines of one interface for one interval: its records that the flow log is about, `NODATA` when there was none, and
/// `SKIPDATA` beside them when records were lost. Each with the time of its first packet.
pub fn lines(
    format: &Format,
    traffic: TrafficType,
    place: &Place,
    interval: Interval,
    records: &[FlowRecord],
    lost: bool,
    ranges: &Ranges,
) -> Vec<(Timestamp, String)> {
    let wanted = |record: &&FlowRecord| match traffic {
        TrafficType::All => true,
        TrafficType::Accept => record.accepted,
        TrafficType::Reject => !record.accepted,
    };
    let own = records.iter().filter(|record| record.interface == place.interface);
    let write = |status: Status<'_>| line(format, place, interval, &status, ranges);
    let mut lines: Vec<(Timestamp, String)> = own
        .filter(wanted)
        .map(|record| (record.first, write(Status::Ok(record))))
        .collect();
    if lost {
        lines.push((interval.from, write(Status::SkipData)));
    } else if lines.is_empty() {
        lines.push((interval.from, write(Status::NoData)));
    }
    lines
}

fn line(format: &Format, place: &Place, interval: Interval, status: &Status<'_>, ranges: &Ranges) -> String {
    let values = format.fields().iter().map(|field| {
        let value = match *field {
            Field::Version => Some(format.version().to_string()),
            field => of_place(field, place).or_else(|| of_status(field, interval, status, ranges)),
        };
        value.unwrap_or_else(|| "-".to_owned())
    });
    values.collect::<Vec<_>>().join(" ")
}

fn of_place(field: Field, place: &Place) -> Option<String> {
    Some(match field {
        Field::AccountId => place.scope.account.to_string(),
        Field::InterfaceId => place.interface.to_string(),
        Field::VpcId => place.vpc.to_string(),
        Field::SubnetId => place.subnet.to_string(),
        Field::Region => place.scope.region.to_string(),
        Field::ZoneId => place.zone_id.clone(),
        _ => return None,
    })
}

fn seconds(time: Timestamp) -> i64 {
    time.0.div_euclid(1000)
}

fn of_status(field: Field, interval: Interval, status: &Status<'_>, ranges: &Ranges) -> Option<String> {
    let record = match (field, status) {
        (Field::LogStatus, Status::Ok(_)) => return Some("OK".into()),
        (Field::LogStatus, Status::NoData) => return Some("NODATA".into()),
        (Field::LogStatus, Status::SkipData) => return Some("SKIPDATA".into()),
        (Field::Start, Status::NoData | Status::SkipData) => return Some(seconds(interval.from).to_string()),
        (Field::End, Status::NoData | Status::SkipData) => return Some(seconds(interval.until).to_string()),
        (_, Status::NoData | Status::SkipData) => return None,
        (_, Status::Ok(record)) => record,
    };
    let Counts { packets, bytes } = record.counts;
    Some(match field {
        Field::SourceAddress => record.source.to_string(),
        Field::DestinationAddress => record.destination.to_string(),
        Field::SourcePort => record.source_port.to_string(),
        Field::DestinationPort => record.destination_port.to_string(),
        Field::Protocol => record.protocol.to_string(),
        Field::Packets => packets.to_string(),
        Field::Bytes => bytes.to_string(),
        Field::Start => seconds(record.first).to_string(),
        Field::End => seconds(record.last).to_string(),
        Field::Action => if record.accepted { "ACCEPT" } else { "REJECT" }.to_owned(),
        Field::TcpFlags => record.tcp_flags?.to_string(),
        Field::Type => "IPv4".into(),
        Field::PacketSource => record.packet_source.to_string(),
        Field::PacketDestination => record.packet_destination.to_string(),
        Field::PacketSourceService => ranges.service(record.packet_source)?.to_owned(),
        Field::PacketDestinationService => ranges.service(record.packet_destination)?.to_owned(),
        Field::Direction => match record.direction {
            Direction::Ingress => "ingress".into(),
            Direction::Egress => "egress".into(),
        },
        Field::TrafficPath => record.path?.to_string(),
        // Requester-managed interfaces belong to no instance, and the engine has no outposts and wavelengths.
        _ => return None,
    })
}
