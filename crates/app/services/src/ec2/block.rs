//! CIDR blocks of requests (NET-1, NET-2).

use super::error;
use super::settings::Ec2Settings;
use ipnet::Ipv4Net;
use isolarium_model::ec2::address::overlap;
use isolarium_model::ec2::vpc::fits;
use isolarium_wire::ApiError;
use std::net::Ipv4Addr;

/// Ranges that no VPC can have: they mean something of their own to every host.
const SPECIAL: [Ipv4Net; 5] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// A block as a request has it, host bits cleared.
///
/// # Errors
/// `InvalidParameterValue` for a text that is no block.
pub(super) fn read(parameter: &str, text: &str) -> Result<Ipv4Net, ApiError> {
    text.parse::<Ipv4Net>()
        .map(|block| block.trunc())
        .map_err(|_| error::bad_value(parameter, text, "This is not a valid CIDR block."))
}

/// A block for a VPC (NET-1): /16 to /28, outside the ranges that mean something else here.
///
/// # Errors
/// `InvalidVpc.Range`.
pub(super) fn for_vpc(settings: &Ec2Settings, parameter: &str, text: Option<&str>) -> Result<Ipv4Net, ApiError> {
    let text = text.ok_or_else(|| error::missing(parameter))?;
    let block = read(parameter, text)?;
    let own = [settings.public_pool, settings.s3_prefix_list, settings.services];
    let taken = SPECIAL
        .iter()
        .chain(&own)
        .chain(&settings.reserved)
        .any(|range| overlap(range, &block));
    if taken || !fits(&block) {
        return Err(range("InvalidVpc.Range", text));
    }
    Ok(block)
}

/// `The CIDR '10.0.0.0/8' is invalid.` under a code.
pub(super) fn range(code: &str, text: &str) -> ApiError {
    ApiError::client(code, format!("The CIDR '{text}' is invalid."))
}

/// An address as a request has it.
///
/// # Errors
/// `InvalidParameterValue` for a text that is no address.
pub(super) fn address(parameter: &str, text: &str) -> Result<Ipv4Addr, ApiError> {
    let read = text.parse::<Ipv4Addr>();
    read.map_err(|_| error::bad_value(parameter, text, "This is not a valid IPv4 address."))
}
