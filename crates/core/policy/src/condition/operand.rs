//! Values of conditions, read as their operator wants them.

use super::{BadCondition, Comparison, Given};
use crate::pattern::{Pattern, Rules};
use base64::Engine;
use ipnet::IpNet;
use std::net::IpAddr;

/// A value that a policy names.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Text(Pattern),
    Number(f64),
    /// Milliseconds since the epoch.
    Date(i64),
    Bool(bool),
    Binary(Vec<u8>),
    Net(IpNet),
}

impl Operand {
    pub(super) fn parse(
        comparison: Comparison,
        operator: &str,
        value: &str,
        variables: bool,
    ) -> Result<Self, BadCondition> {
        let wildcards = matches!(comparison, Comparison::StringLike | Comparison::Arn);
        let found = match comparison {
            Comparison::String | Comparison::StringFolded | Comparison::StringLike | Comparison::Arn => {
                Some(Self::Text(Pattern::parse(value, Rules { wildcards, variables })?))
            }
            Comparison::Number(_) => number(value).map(Self::Number),
            Comparison::Date(_) => date(value).map(Self::Date),
            Comparison::Bool => boolean(value).map(Self::Bool),
            Comparison::Binary => base64(value).map(Self::Binary),
            Comparison::Ip => net(value).map(Self::Net),
        };
        found.ok_or_else(|| BadCondition::Value {
            operator: operator.into(),
            value: value.into(),
        })
    }

    /// Reads a value of the request; `None` when it has not the operator's type.
    pub(super) fn read(comparison: Comparison, value: &str) -> Option<Given> {
        Some(match comparison {
            Comparison::String | Comparison::StringFolded | Comparison::StringLike | Comparison::Arn => {
                Given::Text(value.into())
            }
            Comparison::Number(_) => Given::Number(number(value)?),
            Comparison::Date(_) => Given::Date(date(value)?),
            Comparison::Bool => Given::Bool(boolean(value)?),
            Comparison::Binary => Given::Binary(base64(value)?),
            Comparison::Ip => Given::Ip(value.parse().ok()?),
        })
    }
}

fn number(text: &str) -> Option<f64> {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse::<f64>().ok().filter(|value| plain && value.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// ISO 8601 in the forms of its W3C profile, from a year to a full time with offset, or seconds since the epoch. Four
/// digits are a year. A time without offset is UTC.
fn date(text: &str) -> Option<i64> {
    if text.len() > 4
        && let Ok(seconds) = text.parse::<i64>()
    {
        return seconds.checked_mul(1000);
    }
    let whole = match text.len() {
        4 => format!("{text}-01-01T00:00:00Z"),
        7 => format!("{text}-01T00:00:00Z"),
        10 => format!("{text}T00:00:00Z"),
        _ => {
            let (_, time) = text.split_once(['T', 't'])?;
            let zoned = time.ends_with(['Z', 'z']) || time.contains(['+', '-']);
            if zoned { text.to_owned() } else { format!("{text}Z") }
        }
    };
    whole.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond())
}

/// A network, or an address as the network that holds it alone. Host bits are ignored.
fn net(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(net) => Some(net.trunc()),
        Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

/// Standard base64 with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_in_iso_and_epoch_form() {
        let newyear = 1_767_225_600_000;
        for text in [
            "2026",
            "2026-01",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            "2026-01-01T01:00:00+01:00",
            "1767225600",
        ] {
            assert_eq!(date(text), Some(newyear), "{text}");
        }
        for bad in ["", "soon", "2026-13-01", "2026-1-1", "26"] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }

    #[test]
    fn base64_reads_padding() {
        assert_eq!(base64("aGVsbG8=").as_deref(), Some(&b"hello"[..]));
        assert_eq!(base64("aGk=").as_deref(), Some(&b"hi"[..]));
        assert_eq!(base64("").as_deref(), Some(&b""[..]));
        for bad in ["a", "a===", "aG k", "!!!!"] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }
}
