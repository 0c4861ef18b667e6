//! `Resource` and `NotResource`: what an ARN in a policy may look like (IAM-4, IAM-6, IAM-8).

use super::DocumentKind;
use super::read::wrong::{IAM_PATHS, Wrong};
use crate::pattern::{Pattern, Rules, has_variable};

const PARTITIONS: &[&str] = &[
    "*",
    "aws",
    "aws-cn",
    "aws-us-gov",
    "aws-iso",
    "aws-iso-b",
    "aws-iso-e",
    "aws-iso-f",
    "aws-eusc",
];

/// Reads `*` or an ARN; missing parts are completed by `*`.
pub(super) fn read(text: &str, kind: DocumentKind, variables: bool) -> Result<Pattern, Wrong> {
    let rules = Rules {
        wildcards: true,
        variables,
    };
    let legacy = |detail: &dyn ToString| Wrong::Legacy(detail.to_string());
    if text == "*" {
        return Pattern::parse(text, rules).map_err(|error| legacy(&error));
    }
    let Some(("arn", rest)) = text.split_once(':') else {
        return Err(Wrong::NotArn(text.into()));
    };
    let mut parts = rest.splitn(5, ':');
    let partition = parts.next().unwrap_or_default();
    let after: Vec<&str> = parts.collect();
    if !PARTITIONS.contains(&partition) {
        let part = |nth: usize| after.get(nth).copied().unwrap_or("*");
        let completed = format!("arn:{partition}:{}:{}:{}:{}", part(0), part(1), part(2), part(3));
        let partition = partition.into();
        return Err(Wrong::Partition { partition, completed });
    }
    let service = after.first().copied().unwrap_or_default();
    if service.is_empty() || service.contains(['*', '?', '$']) {
        return Err(Wrong::ResourceVendor(text.into()));
    }
    // A variable stands in the resource's own part alone.
    if variables
        && after
            .iter()
            .take(3)
            .any(|part| part.contains("${") || has_variable(part))
    {
        return Err(legacy(&"a policy variable stands before the resource's own part"));
    }
    // A `*` that ends a part reaches across the colons behind it, so that nothing is missing.
    let reaches = after.iter().skip(1).any(|part| part.ends_with('*'));
    if after.len() == 3 && !reaches {
        return Err(legacy(&format!("the ARN {text} has five parts")));
    }
    if kind == DocumentKind::Identity {
        names(text, service, &after)?;
    }
    let missing = if reaches { 0 } else { 4usize.saturating_sub(after.len()) };
    let completed = format!("{text}{}", ":*".repeat(missing));
    Pattern::parse(&completed, rules).map_err(|error| legacy(&error))
}

/// What IAM knows of its own and of S3's names.
fn names(text: &str, service: &str, after: &[&str]) -> Result<(), Wrong> {
    let [_, region, _, resource] = after else { return Ok(()) };
    let regional = !region.is_empty() && *region != "*";
    match service {
        "iam" if regional => Err(Wrong::Region(text.into())),
        "s3" if regional && !resource.starts_with("accesspoint/") => Err(Wrong::Region(text.into())),
        "iam" => {
            // Up to its first wildcard or variable it must be the beginning of a name that IAM has.
            let fixed = resource.split(['*', '?', '$']).next().unwrap_or_default();
            let open = fixed.len() < resource.len();
            let fits = |path: &&str| fixed.starts_with(*path) || (open && path.starts_with(fixed));
            let known = *resource == "root" || IAM_PATHS.iter().any(fits);
            known.then_some(()).ok_or_else(|| Wrong::IamPath(text.into()))
        }
        _ => Ok(()),
    }
}
