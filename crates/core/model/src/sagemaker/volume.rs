//! ML storage volumes that are encrypted under a key of the key store.

use crate::Arn;
use serde::{Deserialize, Serialize};

/// Size of a volume of which the request does not say it, GB.
const DEFAULT_SIZE: u64 = 30;

/// A `VolumeKmsKeyId` with the volume's size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptedVolume {
    /// The key as the request names it: id, ARN, alias or ARN of an alias.
    pub kms_key: String,
    /// `VolumeSizeInGB`, at least 1.
    pub size_gb: u64,
}

impl EncryptedVolume {
    /// A volume of the size that a request gives, or of 30 GB. `None` without a key.
    pub fn asked(kms_key: Option<&String>, size_gb: Option<i64>) -> Option<Self> {
        let kms_key = kms_key.filter(|key| !key.is_empty())?.clone();
        let size_gb = size_gb
            .and_then(|size| u64::try_from(size).ok())
            .filter(|size| *size > 0);
        Some(Self {
            kms_key,
            size_gb: size_gb.unwrap_or(DEFAULT_SIZE),
        })
    }

    /// The size in bytes: a GB is 2^30 of them, as on AWS.
    pub fn bytes(&self) -> u64 {
        self.size_gb.saturating_mul(1 << 30)
    }
}

/// The data key of a volume as it is kept: only the key store opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedVolumeKey {
    /// The key that seals it.
    pub key_arn: Arn,
    /// Base64.
    pub sealed: String,
}

/// Families of instance types whose storage is local: it has a key of its own, and none can be named.
const LOCAL_STORAGE: [&str; 29] = [
    "c5ad", "c5d", "c6gd", "c6id", "c7gd", "c8gd", "g4ad", "g4dn", "g5", "g5g", "g6", "g6e", "gr6", "i3", "i3en",
    "i4i", "m5ad", "m5d", "m6gd", "m6id", "m7gd", "p3dn", "p4d", "p4de", "p5", "r5d", "trn1", "trn1n", "trn2",
];

/// Whether volumes of an instance type can be encrypted under a key that a request names.
pub fn takes_volume_key(instance_type: &str) -> bool {
    let family = instance_type
        .strip_prefix("ml.")
        .unwrap_or(instance_type)
        .split('.')
        .next();
    family.is_none_or(|family| !LOCAL_STORAGE.contains(&family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_the_size_of_the_request_or_a_default() {
        let key = "k".to_owned();
        let asked = |size| EncryptedVolume::asked(Some(&key), size).unwrap().size_gb;
        assert_eq!((asked(Some(1)), asked(Some(0)), asked(None)), (1, 30, 30));
        assert_eq!(EncryptedVolume::asked(Some(&String::new()), Some(1)), None);
        assert_eq!(EncryptedVolume::asked(Some(&key), Some(2)).unwrap().bytes(), 2 << 30);
    }

    #[test]
    fn local_storage_takes_no_key() {
        for (instance_type, takes) in [
            ("ml.m5.large", true),
            ("ml.m5d.large", false),
            ("ml.g5.xlarge", false),
            ("x", true),
        ] {
            assert_eq!(takes_volume_key(instance_type), takes, "{instance_type}");
        }
    }
}
