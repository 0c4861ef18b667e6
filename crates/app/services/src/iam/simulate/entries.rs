//! Context entries: condition keys as the caller of a simulation gives them.

use crate::iam::error;
use isolarium_policy::question::Context;
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam::{ContextEntry, ContextKeyTypeEnum as Kind};

/// Reads the entries; every value must be of its key's type, and only lists have several.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn read(entries: &[ContextEntry]) -> Result<Context, ApiError> {
    let mut context = Context::new();
    for entry in entries {
        let name = entry.context_key_name.clone().unwrap_or_default();
        let values = entry.context_key_values.clone().unwrap_or_default();
        let refused = |why: &str| error::invalid_input(format!("Invalid Context Entry {name}: {why}"));
        let kind = entry
            .context_key_type
            .as_ref()
            .ok_or_else(|| refused("it has no type"))?;
        let (fits, list): (fn(&str) -> bool, bool) = match kind {
            Kind::String => (|_| true, false),
            Kind::StringList => (|_| true, true),
            Kind::Numeric => (is_number, false),
            Kind::NumericList => (is_number, true),
            Kind::Boolean => (is_boolean, false),
            Kind::BooleanList => (is_boolean, true),
            Kind::Ip => (is_address, false),
            Kind::IpList => (is_address, true),
            Kind::Binary => (is_base64, false),
            Kind::BinaryList => (is_base64, true),
            Kind::Date => (is_date, false),
            Kind::DateList => (is_date, true),
        };
        if name.is_empty() || (!list && values.len() != 1) {
            return Err(refused("it has the wrong number of values"));
        }
        if let Some(bad) = values.iter().find(|value| !fits(value)) {
            return Err(refused(&format!("{bad} is not of its type")));
        }
        context.insert(name.to_lowercase(), values);
    }
    Ok(context)
}

fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
}

fn is_boolean(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok() || text.parse::<ipnet::IpNet>().is_ok()
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn is_date(text: &str) -> bool {
    text.parse::<jiff::Timestamp>().is_ok() || text.parse::<i64>().is_ok()
}
