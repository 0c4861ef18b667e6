//! The real clock and the real source of ids. Only the wiring makes them (style rule 10).

use isolarium_model::Timestamp;
use isolarium_model::time::{Clock, IdSource, uuid_of};
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The kernel's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIds;

/// Random bytes from the kernel.
///
/// # Panics
/// When the kernel gives none: nothing that follows could be secret.
#[expect(
    clippy::expect_used,
    reason = "an id or key that can be guessed is worse than a stop"
)]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random numbers");
    bytes
}

impl IdSource for SystemIds {
    fn hex(&self, digits: usize) -> String {
        let mut text = String::with_capacity(digits.saturating_add(64));
        while text.len() < digits {
            text.push_str(&hex::encode(random::<32>()));
        }
        text.truncate(digits);
        text
    }
}

/// Random bytes that were fetched for this thread and not yet given out.
const FETCHED: usize = 1024;

thread_local! {
    static STOCK: RefCell<([u8; FETCHED], usize)> = const { RefCell::new(([0; FETCHED], FETCHED)) };
}

/// As [`random`], for what every request needs and nobody keeps secret: one call to the kernel serves many.
pub fn passing<const N: usize>() -> [u8; N] {
    STOCK.with_borrow_mut(|(bytes, given)| {
        let mut taken = [0; N];
        let end = given.saturating_add(N);
        if let Some(next) = bytes.get(*given..end) {
            taken.copy_from_slice(next);
            *given = end;
            return taken;
        }
        *bytes = random();
        *given = 0;
        random()
    })
}

/// A random UUID, as request ids are written.
pub fn request_id() -> String {
    uuid_of(passing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids() {
        let id = request_id();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"));
        assert_ne!(id, request_id());
    }

    /// Also across the moments when new bytes are fetched.
    #[test]
    fn passing_bytes_are_given_out_once() {
        let given: std::collections::HashSet<[u8; 8]> = (0..10_000).map(|_| passing()).collect();
        assert_eq!(given.len(), 10_000);
    }

    #[test]
    fn ids_have_the_digits_asked_for() {
        for digits in [0, 1, 17, 64, 65, 200] {
            let id = SystemIds.hex(digits);
            assert_eq!(id.len(), digits);
            assert!(id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        }
    }
}
