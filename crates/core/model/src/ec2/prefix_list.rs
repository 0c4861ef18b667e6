//! Prefix lists of AWS's services: the engine has that of S3 (NET-33).

use super::id::PrefixListId;
use crate::Region;

/// The name of S3's prefix list and of its gateway service, such as `com.amazonaws.us-east-1.s3` (NET-32).
pub fn s3_service_name(region: &Region) -> String {
    format!("com.amazonaws.{region}.s3")
}

/// The id of S3's prefix list in a region: the same in every account and at every start, because rules name it.
pub fn s3(region: &Region) -> PrefixListId {
    // FNV-1a: any fixed spread will do, nothing is kept apart by it but regions.
    let spread = s3_service_name(region)
        .bytes()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        });
    PrefixListId::of(spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: NET-33
    #[test]
    fn the_list_of_a_region_keeps_its_id() {
        let id = |region: &str| s3(&region.parse().unwrap()).to_string();
        assert_eq!(id("us-east-1"), id("us-east-1"));
        assert_ne!(id("us-east-1"), id("eu-west-1"));
        assert!(id("us-east-1").parse::<PrefixListId>().is_ok());
        assert_ne!(s3(&"us-east-1".parse().unwrap()).number(), 0);
    }
}
