//! Points in time as AWS exchanges them.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z. Only the wiring reads a clock (style rule 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Seconds since the epoch, with the milliseconds as fraction (SM-4).
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The time `wait` later; saturates.
    pub fn after(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// Time elapsed since `earlier`; zero when it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Where time comes from. Only the wiring makes one; tests pass a clock they move themselves.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// Where random identifiers come from.
pub trait IdSource: Send + Sync {
    /// `digits` lower-case hexadecimal digits that cannot be guessed.
    fn hex(&self, digits: usize) -> String;
}

/// An id of the form that ECR and the audit records of AWS use: hexadecimal digits in groups of 8, 4, 4, 4 and 12.
pub fn uuid(ids: &dyn IdSource) -> String {
    [8, 4, 4, 4, 12].map(|digits| ids.hex(digits)).join("-")
}

/// Where the digits of each byte of a UUID stand in its text.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The text of a random UUID (version 4) that is made of these bytes.
pub fn uuid_of(mut bytes: [u8; 16]) -> String {
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let mut text = [b'-'; 36];
    let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
    for (place, byte) in PLACES.into_iter().zip(bytes) {
        if let Some([high, low]) = text.get_mut(place..).and_then(|rest| rest.first_chunk_mut()) {
            (*high, *low) = (digit(byte >> 4), digit(byte & 0x0f));
        }
    }
    std::str::from_utf8(&text).unwrap_or_default().to_owned()
}
