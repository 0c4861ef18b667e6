//! The services that endpoints can be made for (NET-32, NET-40).

use super::endpoint::no_service;
use super::operation::operation;
use super::{filter, page, shapes};
use crate::Ctx;
use isolarium_model::ec2::{EndpointService, prefix_list};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;

operation!("DescribeVpcEndpointServices",
    DescribeVpcEndpointServicesRequest -> DescribeVpcEndpointServicesResult, services);

/// The service of a name in the caller's region, if the engine has endpoints for it.
pub(super) fn offered(ctx: &Ctx<'_>, name: &str) -> Option<EndpointService> {
    EndpointService::named(name, &ctx.caller.scope.region).filter(|service| is_offered(ctx, *service))
}

fn is_offered(ctx: &Ctx<'_>, service: EndpointService) -> bool {
    service != EndpointService::Notebook || ctx.platform.settings().ec2.notebook_endpoints
}

const FILTERS: [&str; 5] = [
    "owner",
    "service-name",
    "service-region",
    "service-type",
    "supported-ip-address-types",
];

fn services(
    request: shapes::DescribeVpcEndpointServicesRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeVpcEndpointServicesResult, ApiError> {
    let region = &ctx.caller.scope.region;
    let named = request.service_names.as_ref().filter(|names| !names.is_empty());
    if let Some(unknown) = named.into_iter().flatten().find(|name| offered(ctx, name).is_none()) {
        return Err(no_service(unknown));
    }
    let filters = filter::Filters::read(request.filters.as_ref(), &FILTERS)?;
    let here = request.service_regions.as_ref().filter(|regions| !regions.is_empty());
    let here = here.is_none_or(|regions| regions.contains(&region.to_string()));
    let gateway = (EndpointService::S3, shapes::ServiceType::Gateway);
    let interfaces = EndpointService::ALL
        .into_iter()
        .filter(|service| is_offered(ctx, *service))
        .map(|service| (service, shapes::ServiceType::Interface));
    let all = std::iter::once(gateway).chain(interfaces).filter(|(service, kind)| {
        let name = service.name(region);
        let passes = filters.pass(&BTreeMap::new(), |filter| {
            vec![match filter {
                "owner" => "amazon".to_owned(),
                "service-name" => name.clone(),
                "service-region" => region.to_string(),
                "service-type" => kind.to_string(),
                _ => "ipv4".to_owned(),
            }]
        });
        here && passes && named.is_none_or(|names| names.contains(&name))
    });
    let items = all.map(|(service, kind)| (format!("{} {kind}", service.name(region)), detail(ctx, service, kind)));
    let (details, next_token) = page::page(items.collect(), request.next_token.as_deref(), request.max_results)?;
    Ok(shapes::DescribeVpcEndpointServicesResult {
        service_names: Some(
            details
                .iter()
                .filter_map(|one: &shapes::ServiceDetail| one.service_name.clone())
                .collect(),
        ),
        service_details: Some(details),
        next_token,
    })
}

fn detail(ctx: &Ctx<'_>, service: EndpointService, kind: shapes::ServiceType) -> shapes::ServiceDetail {
    let region = &ctx.caller.scope.region;
    let zones = ctx.platform.settings().ec2.zones(region);
    let private = service.private_names(region);
    let is_interface = kind == shapes::ServiceType::Interface;
    let base = match is_interface {
        true => service.domain(region),
        false => format!("s3.{region}.amazonaws.com"),
    };
    let private_details = private.iter().map(|name| shapes::PrivateDnsDetails {
        private_dns_name: Some(name.clone()),
    });
    // One id for each service, type and region, at every start.
    let spread = format!("{} {kind}", service.name(region))
        .bytes()
        .fold(prefix_list::s3(region).number(), |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        });
    let digits = format!("{spread:032x}");
    shapes::ServiceDetail {
        service_name: Some(service.name(region)),
        service_id: digits.get(..17).map(|digits| format!("vpce-svc-{digits}")),
        service_type: Some(vec![shapes::ServiceTypeDetail {
            service_type: Some(kind),
        }]),
        service_region: Some(region.to_string()),
        availability_zone_ids: Some(zones.iter().map(|zone| zone.id.clone()).collect()),
        availability_zones: Some(zones.iter().map(|zone| zone.name.clone()).collect()),
        owner: Some("amazon".into()),
        base_endpoint_dns_names: Some(vec![base]),
        private_dns_name: private.first().filter(|_| is_interface).cloned(),
        private_dns_names: is_interface.then(|| private_details.collect()),
        private_dns_name_verification_state: is_interface.then_some(shapes::DnsNameState::Verified),
        vpc_endpoint_policy_supported: Some(service.takes_policy()),
        acceptance_required: Some(false),
        manages_vpc_endpoints: Some(false),
        supported_ip_address_types: Some(vec![shapes::ServiceConnectivityType::Ipv4]),
        ..Default::default()
    }
}
