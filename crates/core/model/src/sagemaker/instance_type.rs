//! What an instance type name promises: CPUs, memory, accelerators (CC-7). Data, from the public instance tables.

use std::collections::BTreeMap;

/// The resources behind `ml.<family>.<size>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceShape {
    pub vcpus: u64,
    pub memory_mib: u64,
    /// GPUs or other accelerators the type needs on the host.
    pub accelerators: u64,
}

/// What every instance type stands for on this installation: the operator's own words, then the public tables (CC-7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceTable {
    own: BTreeMap<String, InstanceShape>,
    accelerators: u64,
}

impl InstanceTable {
    /// `own` replaces the public shape of the types it names.
    pub fn new(own: impl IntoIterator<Item = (String, InstanceShape)>) -> Self {
        Self {
            own: own.into_iter().collect(),
            accelerators: 0,
        }
    }

    /// The same table on a machine with this many accelerators.
    pub fn with_accelerators(self, accelerators: u64) -> Self {
        Self { accelerators, ..self }
    }

    /// Accelerators of the machine.
    pub fn accelerators(&self) -> u64 {
        self.accelerators
    }

    /// The shape of an instance type; `None` for one that neither knows.
    pub fn shape(&self, instance_type: &str) -> Option<InstanceShape> {
        let own = self.own.get(instance_type).copied();
        own.or_else(|| InstanceShape::of(instance_type))
    }
}

/// Families whose memory follows from the CPU count: (family, MiB per vCPU).
const REGULAR: &[(&str, u64)] = &[
    ("m4", 4096),
    ("m5", 4096),
    ("m5d", 4096),
    ("m6g", 4096),
    ("m6gd", 4096),
    ("m6i", 4096),
    ("m6id", 4096),
    ("m7i", 4096),
    ("m8g", 4096),
    ("c4", 1920),
    ("c5", 2048),
    ("c5d", 2048),
    ("c5n", 2688),
    ("c6g", 2048),
    ("c6gd", 2048),
    ("c6gn", 2048),
    ("c6i", 2048),
    ("c6id", 2048),
    ("c7g", 2048),
    ("c7i", 2048),
    ("c8g", 2048),
    ("r5", 8192),
    ("r5d", 8192),
    ("r6g", 8192),
    ("r6gd", 8192),
    ("r6i", 8192),
    ("r6id", 8192),
    ("r7gd", 8192),
    ("r7i", 8192),
    ("r8g", 8192),
];

/// CPU count of a size in the regular families.
const SIZES: &[(&str, u64)] = &[
    ("medium", 1),
    ("large", 2),
    ("xlarge", 4),
    ("2xlarge", 8),
    ("3xlarge", 12),
    ("4xlarge", 16),
    ("8xlarge", 32),
    ("9xlarge", 36),
    ("10xlarge", 40),
    ("12xlarge", 48),
    ("16xlarge", 64),
    ("18xlarge", 72),
    ("24xlarge", 96),
    ("32xlarge", 128),
    ("48xlarge", 192),
];

/// Types that follow no rule: (name without `ml.`, vCPUs, GiB, accelerators).
const IRREGULAR: &[(&str, u64, u64, u64)] = &[
    ("t2.medium", 2, 4, 0),
    ("t2.large", 2, 8, 0),
    ("t2.xlarge", 4, 16, 0),
    ("t2.2xlarge", 8, 32, 0),
    ("t3.medium", 2, 4, 0),
    ("t3.large", 2, 8, 0),
    ("t3.xlarge", 4, 16, 0),
    ("t3.2xlarge", 8, 32, 0),
    ("c4.8xlarge", 36, 60, 0),
    ("g4dn.xlarge", 4, 16, 1),
    ("g4dn.2xlarge", 8, 32, 1),
    ("g4dn.4xlarge", 16, 64, 1),
    ("g4dn.8xlarge", 32, 128, 1),
    ("g4dn.12xlarge", 48, 192, 4),
    ("g4dn.16xlarge", 64, 256, 1),
    ("g5.xlarge", 4, 16, 1),
    ("g5.2xlarge", 8, 32, 1),
    ("g5.4xlarge", 16, 64, 1),
    ("g5.8xlarge", 32, 128, 1),
    ("g5.12xlarge", 48, 192, 4),
    ("g5.16xlarge", 64, 256, 1),
    ("g5.24xlarge", 96, 384, 4),
    ("g5.48xlarge", 192, 768, 8),
    ("p2.xlarge", 4, 61, 1),
    ("p2.8xlarge", 32, 488, 8),
    ("p2.16xlarge", 64, 732, 16),
    ("p3.2xlarge", 8, 61, 1),
    ("p3.8xlarge", 32, 244, 4),
    ("p3.16xlarge", 64, 488, 8),
    ("p4d.24xlarge", 96, 1152, 8),
    ("p5.48xlarge", 192, 2048, 8),
    ("inf1.xlarge", 4, 8, 1),
    ("inf1.2xlarge", 8, 16, 1),
    ("trn1.2xlarge", 8, 32, 1),
];

/// What stands before the memory of a serverless variant in place of an instance type. The API's own types begin with `ml.`.
pub(super) const SERVERLESS: &str = "serverless.";

/// Memory for which a serverless variant gets one CPU, MiB.
const SERVERLESS_MIB: u64 = 1024;

impl InstanceShape {
    /// The public shape of an instance type; `None` for a type the tables above do not know.
    fn of(instance_type: &str) -> Option<Self> {
        if let Some(memory) = instance_type.strip_prefix(SERVERLESS) {
            let memory_mib: u64 = memory.parse().ok()?;
            return Some(Self {
                vcpus: memory_mib.div_ceil(SERVERLESS_MIB),
                memory_mib,
                accelerators: 0,
            });
        }
        let name = instance_type.strip_prefix("ml.")?;
        if let Some((_, vcpus, gib, accelerators)) = IRREGULAR.iter().find(|(known, ..)| *known == name) {
            return Some(Self {
                vcpus: *vcpus,
                memory_mib: gib * 1024,
                accelerators: *accelerators,
            });
        }
        let (family, size) = name.split_once('.')?;
        let (_, mib_per_vcpu) = REGULAR.iter().find(|(known, _)| *known == family)?;
        let (_, vcpus) = SIZES.iter().find(|(known, _)| *known == size)?;
        Some(Self {
            vcpus: *vcpus,
            memory_mib: vcpus * mib_per_vcpu,
            accelerators: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: CC-7
    #[test]
    fn the_operators_shape_replaces_the_public_one() {
        let own = InstanceShape {
            vcpus: 1,
            memory_mib: 512,
            accelerators: 0,
        };
        let table = InstanceTable::new([("ml.m5.large".to_string(), own)]);
        assert_eq!(table.shape("ml.m5.large"), Some(own));
        assert_eq!(
            table.shape("ml.m5.xlarge").map(|shape| shape.vcpus),
            Some(4),
            "control: others stay"
        );
        assert_eq!(
            InstanceTable::default().shape("ml.m5.large").map(|shape| shape.vcpus),
            Some(2)
        );
        assert_eq!(table.shape("ml.z9.large"), None);
    }

    /// Proves: CC-7
    #[test]
    fn a_type_name_gives_cpus_memory_and_accelerators() {
        let shape = |name: &str| InstanceShape::of(name).map(|s| (s.vcpus, s.memory_mib / 1024, s.accelerators));
        assert_eq!(shape("ml.m5.large"), Some((2, 8, 0)));
        assert_eq!(shape("ml.m5.xlarge"), Some((4, 16, 0)));
        assert_eq!(shape("ml.c5.2xlarge"), Some((8, 16, 0)));
        assert_eq!(shape("ml.t3.medium"), Some((2, 4, 0)));
        assert_eq!(
            shape("ml.c4.8xlarge"),
            Some((36, 60, 0)),
            "an irregular size wins over its family's rule"
        );
        assert_eq!(shape("ml.g4dn.12xlarge"), Some((48, 192, 4)));
        assert_eq!(shape("serverless.3072"), Some((3, 3, 0)));
        for unknown in ["m5.large", "ml.m5", "ml.m5.tiny", "ml.z9.large", ""] {
            assert_eq!(shape(unknown), None, "{unknown}");
        }
    }
}
