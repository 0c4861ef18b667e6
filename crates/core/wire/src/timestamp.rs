//! Timestamps on the wire: milliseconds since the epoch inside, AWS's forms outside (SM-4).

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// Seconds with three decimals: JSON bodies.
pub fn to_seconds(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let (seconds, rest) = (millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000);
    format!("{sign}{seconds}.{rest:03}")
}

/// ISO 8601 in UTC; milliseconds only where they are not zero, always with `always_millis` (EC2).
pub fn to_iso8601(millis: i64, always_millis: bool) -> String {
    let Ok(timestamp) = Timestamp::from_millisecond(millis) else {
        return to_seconds(millis);
    };
    let format = if always_millis || millis.rem_euclid(1000) != 0 {
        "%Y-%m-%dT%H:%M:%S.%3fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    timestamp.strftime(format).to_string()
}

/// The date form of HTTP headers.
pub fn to_http_date(millis: i64) -> String {
    let Ok(timestamp) = Timestamp::from_millisecond(millis) else {
        return to_seconds(millis);
    };
    timestamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Seconds with fraction, as a number. `None` outside of the years 0001 to 9999.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the value was checked against the calendar's range"
)]
pub fn from_seconds(seconds: f64) -> Option<i64> {
    const LAST: f64 = 253_402_300_799.999;
    const FIRST: f64 = -62_135_596_800.0;
    (FIRST..=LAST)
        .contains(&seconds)
        .then(|| (seconds * 1000.0).round() as i64)
}

/// Any of AWS's textual forms: ISO 8601 with or without time and offset (UTC then), an HTTP date, seconds.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_millisecond());
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return from_seconds(seconds);
    }
    let civil = text
        .parse::<DateTime>()
        .ok()
        .or_else(|| text.parse::<Date>().ok().map(Date::into));
    if let Some(zoned) = civil.and_then(|civil: DateTime| civil.to_zoned(TimeZone::UTC).ok()) {
        return Some(zoned.timestamp().as_millisecond());
    }
    let http = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(http.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_written() {
        assert_eq!(to_seconds(1_732_188_000_007), "1732188000.007");
        assert_eq!(to_seconds(-1_500), "-1.500");
        assert_eq!(to_iso8601(1_732_188_000_000, false), "2024-11-21T11:20:00Z");
        assert_eq!(to_iso8601(1_732_188_000_007, false), "2024-11-21T11:20:00.007Z");
        assert_eq!(to_iso8601(1_732_188_000_000, true), "2024-11-21T11:20:00.000Z");
        assert_eq!(to_http_date(1_732_188_000_000), "Thu, 21 Nov 2024 11:20:00 GMT");
    }

    #[test]
    fn every_form_is_read() {
        for text in [
            "2024-11-21T11:20:00Z",
            "2024-11-21T12:20:00+01:00",
            "2024-11-21T11:20:00.000",
            "1732188000",
            "1732188000.0",
            "Thu, 21 Nov 2024 11:20:00 GMT",
        ] {
            assert_eq!(parse(text), Some(1_732_188_000_000), "{text}");
        }
        assert_eq!(parse("2024-11-21"), Some(1_732_147_200_000));
        for text in ["", "soon", "NaN", "inf", "1e300", "2024-13-01"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
