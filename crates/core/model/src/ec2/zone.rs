//! Availability Zones: names and ids, fixed for every region (NET-2).

use crate::Region;
use serde::{Deserialize, Serialize};

/// An Availability Zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Zone {
    /// Such as `us-east-1a`.
    pub name: String,
    /// Such as `use1-az1`.
    pub id: String,
}

/// The zones of a region: `letters` such as `abc` make `us-east-1a` (`use1-az1`) and so on.
pub fn zones(region: &Region, letters: &str) -> Vec<Zone> {
    let short = short(region);
    let zone = |(at, letter): (usize, char)| Zone {
        name: format!("{region}{letter}"),
        id: format!("{short}-az{}", at + 1),
    };
    letters.chars().enumerate().map(zone).collect()
}

/// A region's short name as zone ids have it: `use1` of `us-east-1`, `apse2` of `ap-southeast-2`.
fn short(region: &Region) -> String {
    let direction = |word: &str| match word {
        "northeast" => "ne".to_owned(),
        "northwest" => "nw".to_owned(),
        "southeast" => "se".to_owned(),
        "southwest" => "sw".to_owned(),
        "gov" => "g".to_owned(),
        other => other.chars().take(1).collect(),
    };
    let mut words = region.as_str().split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |short, word| {
        let part = if word.bytes().all(|byte| byte.is_ascii_digit()) {
            word.to_owned()
        } else {
            direction(word)
        };
        short + &part
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: NET-2
    #[test]
    fn zones_have_names_and_ids_of_their_region() {
        let cases = [
            ("us-east-1", "us-east-1a", "use1-az1"),
            ("eu-central-1", "eu-central-1a", "euc1-az1"),
            ("ap-southeast-2", "ap-southeast-2a", "apse2-az1"),
            ("us-gov-west-1", "us-gov-west-1a", "usgw1-az1"),
        ];
        for (region, name, id) in cases {
            let all = zones(&region.parse().unwrap(), "abc");
            assert_eq!(all.len(), 3);
            assert_eq!((all[0].name.as_str(), all[0].id.as_str()), (name, id));
        }
    }
}
