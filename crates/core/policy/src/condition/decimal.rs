//! Numbers of conditions, compared exactly: a binary fraction would call 9007199254740993 and 9007199254740992 equal.

use std::cmp::Ordering;
use std::str::FromStr;

/// A finite decimal number in the one form that makes equal numbers equal values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// Power of ten of the place before the first digit: 0.5 has 0, 5 has 1.
    scale: i64,
    /// Without zeros at either end; empty for zero.
    digits: Box<[u8]>,
}

/// The text is not a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotANumber;

impl FromStr for Decimal {
    type Err = NotANumber;

    /// An optional sign, digits with or without a point, and an optional exponent of at most six digits.
    fn from_str(text: &str) -> Result<Self, NotANumber> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            None => (rest, 0),
            Some((mantissa, exponent)) if exponent.len() <= 7 => {
                let signed = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if signed.is_empty() || !signed.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(NotANumber);
                }
                (mantissa, exponent.parse::<i64>().map_err(|_| NotANumber)?)
            }
            Some(_) => return Err(NotANumber),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if all.is_empty() || !all.iter().all(u8::is_ascii_digit) {
            return Err(NotANumber);
        }
        let is_zero = |digit: &&u8| **digit == b'0';
        let leading = all.iter().take_while(is_zero).count();
        if leading == all.len() {
            let digits = Box::default();
            return Ok(Self {
                negative: false,
                scale: 0,
                digits,
            });
        }
        let trailing = all.iter().rev().take_while(is_zero).count();
        let digits = all.get(leading..all.len() - trailing).ok_or(NotANumber)?;
        let place = |length: usize| i64::try_from(length).map_err(|_| NotANumber);
        Ok(Self {
            negative,
            scale: place(whole.len())? - place(leading)? + exponent,
            digits: digits.into(),
        })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let magnitude = || {
            self.scale
                .cmp(&other.scale)
                .then_with(|| self.digits.cmp(&other.digits))
        };
        match sign(self).cmp(&sign(other)) {
            Ordering::Equal if self.negative => magnitude().reverse(),
            Ordering::Equal => magnitude(),
            unequal => unequal,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Decimal {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    /// Proves: IAM-13
    #[test]
    fn numbers_compare_by_value_and_exactly() {
        for (one, other) in [
            ("1", "1.0"),
            ("0", "-0.00"),
            ("1e3", "1000"),
            ("+5", "5"),
            ("0.05", "5E-2"),
            ("007", "7"),
            (".5", "0.5"),
        ] {
            assert_eq!(number(one), number(other), "{one} {other}");
        }
        let ascending = [
            "-1e3",
            "-12",
            "-2",
            "-0.5",
            "0",
            "0.05",
            "0.5",
            "2",
            "12",
            "9007199254740992",
            "9007199254740993",
        ];
        for (nth, one) in ascending.iter().enumerate() {
            for (mth, other) in ascending.iter().enumerate() {
                assert_eq!(number(one).cmp(&number(other)), nth.cmp(&mth), "{one} {other}");
            }
        }
        for bad in [
            "",
            ".",
            "-",
            "1e",
            "e5",
            "1e+",
            "1e12345678",
            "0x10",
            "NaN",
            "inf",
            "1 ",
            "1,0",
            "--1",
            "1e--1",
        ] {
            assert_eq!(bad.parse::<Decimal>(), Err(NotANumber), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_doubles_where_they_are_exact(one in -1_000_000i32..1_000_000, other in -1_000_000i32..1_000_000) {
            let text = |value: i32| format!("{}", f64::from(value) / 64.0);
            proptest::prop_assert_eq!(number(&text(one)).cmp(&number(&text(other))), one.cmp(&other));
        }
    }
}
