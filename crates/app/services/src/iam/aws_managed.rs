//! Managed policies that AWS's names stand for (IAM-56): written for this engine from the permissions that AWS publishes
//! for them, not copied, so their texts and version numbers are the engine's own.

use isolarium_model::iam::{Policy, PolicyVersion};
use isolarium_model::{Arn, Timestamp};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// When these texts were written: 2026-01-01.
const WRITTEN: Timestamp = Timestamp(1_767_225_600_000);

/// (path and name, number of the version, description, text), by name.
const TEXTS: &[(&str, u32, &str, &str)] = &[
    (
        "/AdministratorAccess",
        1,
        "Everything, on every resource.",
        include_str!("aws_managed/AdministratorAccess.json"),
    ),
    (
        "/AmazonEC2ContainerRegistryFullAccess",
        1,
        "Everything in the image registry.",
        include_str!("aws_managed/AmazonEC2ContainerRegistryFullAccess.json"),
    ),
    (
        "/AmazonEC2ContainerRegistryPowerUser",
        1,
        "Pulling and pushing images.",
        include_str!("aws_managed/AmazonEC2ContainerRegistryPowerUser.json"),
    ),
    (
        "/AmazonEC2ContainerRegistryReadOnly",
        1,
        "Pulling images.",
        include_str!("aws_managed/AmazonEC2ContainerRegistryReadOnly.json"),
    ),
    (
        "/AmazonS3FullAccess",
        1,
        "Everything in S3.",
        include_str!("aws_managed/AmazonS3FullAccess.json"),
    ),
    (
        "/AmazonS3ReadOnlyAccess",
        1,
        "Reading buckets and objects.",
        include_str!("aws_managed/AmazonS3ReadOnlyAccess.json"),
    ),
    (
        "/AmazonSageMakerFullAccess",
        1,
        "Everything in SageMaker, and what it needs of other services.",
        include_str!("aws_managed/AmazonSageMakerFullAccess.json"),
    ),
    (
        "/AmazonSageMakerReadOnly",
        1,
        "Reading SageMaker.",
        include_str!("aws_managed/AmazonSageMakerReadOnly.json"),
    ),
    (
        "/AmazonVPCFullAccess",
        1,
        "Everything about VPCs.",
        include_str!("aws_managed/AmazonVPCFullAccess.json"),
    ),
    (
        "/AmazonVPCReadOnlyAccess",
        1,
        "Reading VPCs.",
        include_str!("aws_managed/AmazonVPCReadOnlyAccess.json"),
    ),
    (
        "/CloudWatchLogsFullAccess",
        1,
        "Everything in CloudWatch Logs.",
        include_str!("aws_managed/CloudWatchLogsFullAccess.json"),
    ),
    (
        "/CloudWatchLogsReadOnlyAccess",
        1,
        "Reading logs.",
        include_str!("aws_managed/CloudWatchLogsReadOnlyAccess.json"),
    ),
    (
        "/IAMFullAccess",
        1,
        "Everything in IAM.",
        include_str!("aws_managed/IAMFullAccess.json"),
    ),
    (
        "/IAMReadOnlyAccess",
        1,
        "Reading IAM.",
        include_str!("aws_managed/IAMReadOnlyAccess.json"),
    ),
    (
        "/PowerUserAccess",
        1,
        "Everything but managing users, groups and the account.",
        include_str!("aws_managed/PowerUserAccess.json"),
    ),
    (
        "/ReadOnlyAccess",
        1,
        "Reading everything, content included.",
        include_str!("aws_managed/ReadOnlyAccess.json"),
    ),
    (
        "/SecurityAudit",
        1,
        "Reading settings that matter to security, without content.",
        include_str!("aws_managed/SecurityAudit.json"),
    ),
    (
        "/job-function/ViewOnlyAccess",
        1,
        "Seeing what there is, without content.",
        include_str!("aws_managed/ViewOnlyAccess.json"),
    ),
];

static ALL: LazyLock<Vec<Policy>> = LazyLock::new(|| TEXTS.iter().filter_map(made).collect());

fn made((name, number, description, text): &(&str, u32, &str, &str)) -> Option<Policy> {
    Some(Policy {
        arn: format!("arn:aws:iam::aws:policy{name}").parse().ok()?,
        id: id(name),
        created: WRITTEN,
        updated: WRITTEN,
        description: Some((*description).into()),
        default: PolicyVersion {
            number: *number,
            document: (*text).into(),
            created: WRITTEN,
        },
        others: Vec::new(),
        next_version: number + 1,
        tags: BTreeMap::new(),
    })
}

/// The same on every engine.
fn id(name: &str) -> String {
    let digest = hex::encode_upper(Sha256::digest(name));
    format!("ANPA{}", digest.get(..17).unwrap_or_default())
}

/// All of them, by name.
pub(super) fn all() -> &'static [Policy] {
    &ALL
}

/// The one with this ARN.
pub(super) fn find(arn: &Arn) -> Option<&'static Policy> {
    all().iter().find(|policy| policy.arn == *arn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolarium_policy::{Document, DocumentKind};

    #[test]
    fn every_text_can_be_read_and_is_found_by_its_arn() {
        assert_eq!(all().len(), TEXTS.len());
        assert!(all().is_sorted_by_key(|policy| policy.name()));
        for policy in all() {
            let read = Document::parse(&policy.default.document, DocumentKind::Identity);
            assert!(read.is_ok(), "{}: {read:?}", policy.name());
            assert_eq!(find(&policy.arn), Some(policy));
            assert_eq!(policy.id.len(), 21);
        }
        let foreign = "arn:aws:iam::123456789012:policy/AdministratorAccess".parse();
        assert_eq!(find(&foreign.unwrap()), None);
    }
}
