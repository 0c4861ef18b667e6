//! Values of conditions, read as their operator wants them.

use super::decimal::Decimal;
use super::{BadCondition, Comparison};
use crate::pattern::{ArnPattern, Pattern, Rules};
use base64::Engine;
use ipnet::{IpNet, Ipv4Net};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A value that a policy names.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Text(Pattern),
    Arn(ArnPattern),
    Number(Decimal),
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
        let rules = Rules {
            wildcards: matches!(comparison, Comparison::StringLike | Comparison::Arn),
            variables,
        };
        let found = match comparison {
            Comparison::String | Comparison::StringFolded | Comparison::StringLike => {
                Some(Self::Text(Pattern::parse(value, rules)?))
            }
            Comparison::Arn => Some(Self::Arn(ArnPattern::parse(value, rules)?)),
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

    pub(super) fn collect_keys(&self, keys: &mut BTreeSet<String>) {
        match self {
            Self::Text(pattern) => keys.extend(pattern.keys().map(str::to_owned)),
            Self::Arn(pattern) => keys.extend(pattern.keys().map(str::to_owned)),
            _ => {}
        }
    }
}

pub(super) fn number(text: &str) -> Option<Decimal> {
    text.parse().ok()
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("true") {
        Some(true)
    } else if is("false") {
        Some(false)
    } else {
        None
    }
}

/// ISO 8601 in the forms of its W3C profile, from a year to a full time with offset, or seconds since the epoch. Four
/// digits are a year. A time without offset is UTC.
pub(super) fn date(text: &str) -> Option<i64> {
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

/// An address; one of IPv4 written as IPv6 is one of IPv4.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// A network, or an address as the network that holds it alone. Host bits are ignored.
fn net(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net.trunc(),
        Err(_) => IpNet::from(address(text)?),
    };
    // ::ffff:0:0/96 and narrower is IPv4.
    if let IpNet::V6(six) = net
        && let Some(length) = six.prefix_len().checked_sub(96)
        && let Some(four) = six.addr().to_ipv4_mapped()
    {
        return Ipv4Net::new(four, length).ok().map(IpNet::V4);
    }
    Some(net)
}

/// Standard base64 with padding.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
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

    /// Proves: IAM-13
    #[test]
    fn networks_read_with_and_without_length() {
        let within = |net_text: &str, text: &str| net(net_text).unwrap().contains(&address(text).unwrap());
        for (wanted, given) in [
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.9.9.9/8", "10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("10.0.0.0/8", "::ffff:10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3"),
            ("2001:db8::/32", "2001:DB8:0:0::1"),
            ("::/0", "2001:db8::1"),
        ] {
            assert!(within(wanted, given), "{wanted} {given}");
        }
        for (wanted, given) in [
            ("10.1.2.3", "10.1.2.4"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("0.0.0.0/0", "2001:db8::1"),
            ("::/0", "10.1.2.3"),
        ] {
            assert!(!within(wanted, given), "{wanted} {given}");
        }
        for bad in ["", "10.0/8", "10.0.0.0/33", "host", "10.0.0.1 "] {
            assert_eq!(net(bad), None, "{bad}");
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
