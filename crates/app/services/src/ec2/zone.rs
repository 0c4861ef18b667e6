//! Regions, Availability Zones and account attributes (NET-2).

use super::error;
use super::filter::Filters;
use super::noun::every;
use super::operation::operation;
use super::page::shown;
use super::shapes;
use crate::Ctx;
use isolarium_model::ec2::{Tags, Vpc};
use isolarium_wire::ApiError;

operation!(
    "DescribeAvailabilityZones",
    DescribeAvailabilityZonesRequest -> DescribeAvailabilityZonesResult,
    zones
);
operation!("DescribeRegions", DescribeRegionsRequest -> DescribeRegionsResult, regions);
operation!(
    "DescribeAccountAttributes",
    DescribeAccountAttributesRequest -> DescribeAccountAttributesResult,
    attributes
);

/// Filters of DescribeAvailabilityZones.
const ZONE_FILTERS: &[&str] = &[
    "group-long-name",
    "group-name",
    "message",
    "opt-in-status",
    "parent-zone-id",
    "parent-zone-name",
    "region-name",
    "state",
    "zone-id",
    "zone-name",
    "zone-type",
];

fn zones(
    request: shapes::DescribeAvailabilityZonesRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeAvailabilityZonesResult, ApiError> {
    let filters = Filters::read(request.filters.as_ref(), ZONE_FILTERS)?;
    let region = &ctx.caller.scope.region;
    let all = ctx.platform.settings().ec2.zones(region);
    let names = request.zone_names.unwrap_or_default();
    let ids = request.zone_ids.unwrap_or_default();
    let unknown: Vec<&str> = names
        .iter()
        .filter(|name| !all.iter().any(|zone| zone.name == **name))
        .chain(ids.iter().filter(|id| !all.iter().any(|zone| zone.id == **id)))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        return Err(error::invalid(format!(
            "Invalid availability zone: [{}]",
            unknown.join(", ")
        )));
    }
    let mut wanted = all;
    wanted.retain(|zone| {
        let named = names.is_empty() && ids.is_empty() || names.contains(&zone.name) || ids.contains(&zone.id);
        named
            && filters.pass(&Tags::new(), |filter| {
                let one = match filter {
                    "group-name" | "region-name" => region.to_string(),
                    "opt-in-status" => "opt-in-not-required".into(),
                    "state" => "available".into(),
                    "zone-id" => zone.id.clone(),
                    "zone-name" => zone.name.clone(),
                    "zone-type" => "availability-zone".into(),
                    _ => return Vec::new(),
                };
                vec![one]
            })
    });
    let zones = wanted.into_iter().map(|zone| shapes::AvailabilityZone {
        opt_in_status: Some(shapes::AvailabilityZoneOptInStatus::OptInNotRequired),
        region_name: Some(region.to_string()),
        zone_name: Some(zone.name),
        zone_id: Some(zone.id),
        group_name: Some(region.to_string()),
        network_border_group: Some(region.to_string()),
        zone_type: Some("availability-zone".into()),
        state: Some(shapes::AvailabilityZoneState::Available),
        ..Default::default()
    });
    Ok(shapes::DescribeAvailabilityZonesResult {
        availability_zones: shown(zones.collect()),
    })
}

/// Filters of DescribeRegions.
const REGION_FILTERS: &[&str] = &["endpoint", "opt-in-status", "region-name"];

fn regions(request: shapes::DescribeRegionsRequest, ctx: &Ctx<'_>) -> Result<shapes::DescribeRegionsResult, ApiError> {
    let filters = Filters::read(request.filters.as_ref(), REGION_FILTERS)?;
    let names = request.region_names.unwrap_or_default();
    let all = &ctx.platform.settings().ec2.regions;
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|one| one.as_str() == **name)) {
        return Err(error::invalid(format!("Invalid region provided: {unknown}")));
    }
    let endpoint = |name: &str| format!("ec2.{name}.amazonaws.com");
    let wanted = all.iter().map(|region| region.as_str()).filter(|name| {
        let named = names.is_empty() || names.iter().any(|one| one == name);
        named
            && filters.pass(&Tags::new(), |filter| match filter {
                "endpoint" => vec![endpoint(name)],
                "opt-in-status" => vec!["opt-in-not-required".into()],
                _ => vec![(*name).to_owned()],
            })
    });
    let regions = wanted.map(|name| shapes::Region {
        opt_in_status: Some("opt-in-not-required".into()),
        region_name: Some(name.to_owned()),
        endpoint: Some(endpoint(name)),
        ..Default::default()
    });
    Ok(shapes::DescribeRegionsResult {
        regions: shown(regions.collect()),
    })
}

fn attributes(
    request: shapes::DescribeAccountAttributesRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeAccountAttributesResult, ApiError> {
    let quotas = ctx.platform.settings().ec2.quotas;
    let vpcs = every::<Vpc>(ctx)?;
    let default = vpcs.iter().find(|vpc| vpc.record.is_default);
    let all = [
        ("supported-platforms", "VPC".to_owned()),
        (
            "default-vpc",
            default.map_or("none".into(), |vpc| vpc.record.id.to_string()),
        ),
        (
            "vpc-max-security-groups-per-interface",
            quotas.groups_per_interface.to_string(),
        ),
        ("max-elastic-ips", quotas.elastic_ips.to_string()),
        ("vpc-max-elastic-ips", quotas.elastic_ips.to_string()),
    ];
    let names = request.attribute_names.unwrap_or_default();
    let wanted = all
        .into_iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|one| one.as_str() == *name));
    let attributes = wanted.map(|(name, value)| shapes::AccountAttribute {
        attribute_name: Some(name.into()),
        attribute_values: Some(vec![shapes::AccountAttributeValue {
            attribute_value: Some(value),
        }]),
    });
    Ok(shapes::DescribeAccountAttributesResult {
        account_attributes: shown(attributes.collect()),
    })
}
