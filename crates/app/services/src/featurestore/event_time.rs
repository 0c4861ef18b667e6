//! Event times: what tells the versions of a record apart, to the millisecond.

use super::invalid;
use isolarium_model::Timestamp;
use isolarium_model::sagemaker::feature_group::FeatureType;
use isolarium_wire::ApiError;

/// Seconds of the year 9999's end: what AWS's calendar and ours can tell.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// Reads an event time as its feature's type has it: ISO 8601 with seconds or milliseconds in UTC or with an offset, or
/// seconds since the epoch.
///
/// # Errors
/// `ValidationError` when the text is no time of that form.
pub(super) fn read(kind: FeatureType, text: &str) -> Result<Timestamp, ApiError> {
    let time = match kind {
        FeatureType::String => iso(text),
        FeatureType::Fractional | FeatureType::Integral => seconds(text),
    };
    time.ok_or_else(|| {
        invalid(format_args!(
            "The event time {text} must be seconds since the epoch for a Fractional feature, or a time such as \
             2024-01-31T12:00:00Z or 2024-01-31T12:00:00.000Z for a String feature."
        ))
    })
}

fn iso(text: &str) -> Option<Timestamp> {
    // jiff reads more than AWS does, such as a space for the T.
    if text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(|time| Timestamp(time.as_millisecond()))
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn seconds(text: &str) -> Option<Timestamp> {
    let seconds: f64 = text.parse().ok()?;
    (0.0..=LAST_SECOND)
        .contains(&seconds)
        .then(|| Timestamp((seconds * 1000.0).round() as i64))
}

/// A time as `ExpiresAt` has it.
pub(super) fn shown(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.0)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
        .unwrap_or_default()
}
