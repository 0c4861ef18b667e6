//! Accounts and regions: the two coordinates every resource has.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A 12-digit AWS account id. It cannot hold anything else, and copies cost no memory of their own: every request makes
/// many.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountId([u8; 12]);

/// Why a text is not an account id or region.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadScope {
    #[error("an account id has 12 digits")]
    Account,
    #[error("a region is 1 to 32 lower-case letters, digits and hyphens")]
    Region,
}

impl FromStr for AccountId {
    type Err = BadScope;
    fn from_str(text: &str) -> Result<Self, BadScope> {
        let digits: [u8; 12] = text.as_bytes().try_into().map_err(|_| BadScope::Account)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then_some(Self(digits))
            .ok_or(BadScope::Account)
    }
}

impl TryFrom<String> for AccountId {
    type Error = BadScope;
    fn try_from(text: String) -> Result<Self, BadScope> {
        text.parse()
    }
}

impl From<AccountId> for String {
    fn from(id: AccountId) -> Self {
        id.as_str().into()
    }
}

impl AccountId {
    /// The twelve digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Longest name of a region, bytes.
const LONGEST_REGION: usize = 32;

/// A region name such as `us-east-1`. Copies cost no memory of their own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region {
    /// The name, and zeros behind it: names are in the order of their bytes.
    name: [u8; LONGEST_REGION],
    length: u8,
}

impl FromStr for Region {
    type Err = BadScope;
    fn from_str(text: &str) -> Result<Self, BadScope> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let length = u8::try_from(text.len()).map_err(|_| BadScope::Region)?;
        let mut name = [0; LONGEST_REGION];
        match name.get_mut(..text.len()) {
            Some(place) if length > 0 && text.bytes().all(allowed) => place.copy_from_slice(text.as_bytes()),
            _ => return Err(BadScope::Region),
        }
        Ok(Self { name, length })
    }
}

impl TryFrom<String> for Region {
    type Error = BadScope;
    fn try_from(text: String) -> Result<Self, BadScope> {
        text.parse()
    }
}

impl From<Region> for String {
    fn from(region: Region) -> Self {
        region.as_str().into()
    }
}

impl Region {
    /// The region's name.
    pub fn as_str(&self) -> &str {
        let name = self.name.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a resource lives: one account in one region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    pub account: AccountId,
    pub region: Region,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_id_has_twelve_digits() {
        assert_eq!("123456789012".parse::<AccountId>().unwrap().as_str(), "123456789012");
        for bad in ["", "12345678901", "1234567890123", "12345678901a"] {
            assert_eq!(bad.parse::<AccountId>(), Err(BadScope::Account));
        }
    }

    #[test]
    fn a_region_is_lower_case() {
        let longest = "a".repeat(32);
        for good in ["us-east-1", "a", &longest] {
            assert_eq!(good.parse::<Region>().unwrap().as_str(), good);
        }
        let mut sorted: Vec<Region> = ["us-east-10", "us-east-1", "eu-west-1"]
            .map(|text| text.parse().unwrap())
            .into();
        sorted.sort();
        let sorted: Vec<&str> = sorted.iter().map(Region::as_str).collect();
        assert_eq!(sorted, ["eu-west-1", "us-east-1", "us-east-10"], "as their texts");
        let long = "a".repeat(33);
        let longer = "a".repeat(289);
        for bad in ["", "US-EAST-1", "us east", "us\0", &long, &longer] {
            assert_eq!(bad.parse::<Region>(), Err(BadScope::Region));
        }
    }
}
