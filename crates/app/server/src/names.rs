//! The public names of the services: which host means what, and at which address containers find it.
//!
//! One table serves the front door (services told apart by host), the resolver and the certificates.

use isolarium_model::{AccountId, Region};
use std::net::Ipv4Addr;

#[cfg(test)]
mod tests;

/// What a host name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMeaning {
    /// An API: the signing name of its service, and the region where the name carries one.
    Service {
        signing_name: &'static str,
        region: Option<Region>,
    },
    /// S3 with the bucket in the path.
    S3 { region: Option<Region> },
    /// S3 with the bucket in the host.
    S3Bucket { bucket: String, region: Option<Region> },
    /// The image registry of an account.
    Registry { account: AccountId, region: Region },
    /// A notebook instance (SM-47); which one, `NotebookSettings::named` tells.
    Notebook { region: Region },
}

/// First labels of a service's hosts and the signing name behind them. A `*` stands for the region.
const SERVICES: &[(&str, &str)] = &[
    ("api.sagemaker.*", "sagemaker"),
    ("api-fips.sagemaker.*", "sagemaker"),
    ("runtime.sagemaker.*", "sagemaker"),
    ("runtime-fips.sagemaker.*", "sagemaker"),
    ("featurestore-runtime.sagemaker.*", "sagemaker"),
    ("featurestore-runtime.sagemaker-fips.*", "sagemaker"),
    ("metrics.sagemaker.*", "sagemaker"),
    ("sts.*", "sts"),
    ("sts", "sts"),
    ("iam", "iam"),
    ("logs.*", "logs"),
    ("api.ecr.*", "ecr"),
    ("monitoring.*", "monitoring"),
    ("ec2.*", "ec2"),
    ("cloudformation.*", "cloudformation"),
    ("kms.*", "kms"),
    ("cloudtrail.*", "cloudtrail"),
];

/// The last one is the legacy spelling `s3-REGION` (NET-52).
const S3_PREFIXES: &[&str] = &["s3.dualstack.", "s3-fips.dualstack.", "s3-fips.", "s3.", "s3-"];

/// Suffixes of the partitions' names.
const SUFFIXES: &[&str] = &[".amazonaws.com", ".amazonaws.com.cn"];

/// Domain of the names of notebook instances.
const NOTEBOOKS: &str = ".sagemaker.aws";

/// Reads a host name (no port, any case, one trailing dot allowed). `None`: not a name of any service.
pub fn meaning(host: &str) -> Option<HostMeaning> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if let Some((whose, at)) = host
        .strip_suffix(NOTEBOOKS)
        .and_then(|head| head.rsplit_once(".notebook."))
    {
        let region = region(at).filter(|_| !whose.is_empty())?;
        return Some(HostMeaning::Notebook { region });
    }
    let head = SUFFIXES.iter().find_map(|suffix| host.strip_suffix(suffix))?;
    if let Some(found) = registry(head) {
        return Some(found);
    }
    for (pattern, signing_name) in SERVICES {
        match pattern.strip_suffix('*') {
            None if *pattern == head => {
                return Some(HostMeaning::Service {
                    signing_name,
                    region: None,
                });
            }
            Some(prefix) => {
                if let Some(region) = head.strip_prefix(prefix).and_then(region) {
                    return Some(HostMeaning::Service {
                        signing_name,
                        region: Some(region),
                    });
                }
            }
            None => {}
        }
    }
    s3(head)
}

fn registry(head: &str) -> Option<HostMeaning> {
    let (account, rest) = head.split_once(".dkr.ecr")?;
    let at = rest.strip_prefix('.').or_else(|| rest.strip_prefix("-fips."))?;
    Some(HostMeaning::Registry {
        account: account.parse().ok()?,
        region: region(at)?,
    })
}

/// `s3`, `s3.REGION`, `s3-REGION`, `BUCKET.s3`, `BUCKET.s3.REGION`, `BUCKET.s3-REGION` and their dual-stack and FIPS
/// spellings. A bucket name may hold
/// dots, so the last occurrence of the prefix counts.
fn s3(head: &str) -> Option<HostMeaning> {
    if head == "s3" {
        return Some(HostMeaning::S3 { region: None });
    }
    if let Some(bucket) = head.strip_suffix(".s3") {
        return bucket_name(bucket).map(|bucket| HostMeaning::S3Bucket { bucket, region: None });
    }
    for prefix in S3_PREFIXES {
        if let Some(at) = head.strip_prefix(prefix).and_then(region) {
            return Some(HostMeaning::S3 { region: Some(at) });
        }
        if let Some((bucket, at)) = head.rsplit_once(&format!(".{prefix}"))
            && let Some(at) = region(at)
        {
            return bucket_name(bucket).map(|bucket| HostMeaning::S3Bucket {
                bucket,
                region: Some(at),
            });
        }
    }
    None
}

/// A region as it can stand in a name: it has at least two hyphens, which tells it from a bucket or a service.
fn region(text: &str) -> Option<Region> {
    (text.matches('-').count() >= 2).then(|| text.parse().ok()).flatten()
}

fn bucket_name(text: &str) -> Option<String> {
    let fits = (3..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.' || b == b'_');
    fits.then(|| text.to_owned())
}

/// The address at which containers find a name, inside the configured ranges.
pub fn address(of: &HostMeaning, services: ipnet::Ipv4Net, s3_prefix_list: ipnet::Ipv4Net) -> Ipv4Addr {
    let nth = |net: ipnet::Ipv4Net, n: u32| Ipv4Addr::from(u32::from(net.network()).saturating_add(n));
    match of {
        HostMeaning::S3 { .. } | HostMeaning::S3Bucket { .. } => nth(s3_prefix_list, 1),
        HostMeaning::Registry { .. } => nth(services, 1),
        // Public names, as the API's (PL-15).
        HostMeaning::Notebook { .. } => nth(services, 2),
        HostMeaning::Service { signing_name, .. } => {
            let order = SIGNING_NAMES.iter().position(|name| name == signing_name).unwrap_or(0);
            nth(services, u32::try_from(order).unwrap_or(0).saturating_add(2))
        }
    }
}

/// As [`address`], seen from a VPC of a region: S3 of other regions has an address outside the prefix list, so that
/// the routes of a gateway endpoint do not lead there (NET-38).
pub fn address_seen_from(
    home: Option<&Region>,
    of: &HostMeaning,
    services: ipnet::Ipv4Net,
    s3_prefix_list: ipnet::Ipv4Net,
) -> Ipv4Addr {
    let at = match of {
        HostMeaning::S3 { region } | HostMeaning::S3Bucket { region, .. } => region.as_ref(),
        HostMeaning::Service { .. } | HostMeaning::Registry { .. } | HostMeaning::Notebook { .. } => None,
    };
    match (home, at) {
        (Some(home), Some(at)) if at != home => s3_of_other_regions(services),
        _ => address(of, services, s3_prefix_list),
    }
}

/// At the other end of the range, away from the services' own addresses.
fn s3_of_other_regions(services: ipnet::Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(services.broadcast()).saturating_sub(1))
}

/// Order of the addresses; new services go to the end, so that addresses stay.
const SIGNING_NAMES: &[&str] = &[
    "sagemaker",
    "sts",
    "iam",
    "logs",
    "ecr",
    "monitoring",
    "ec2",
    "cloudformation",
    "kms",
];

/// Every address of [`address`] and [`address_seen_from`]: what the engine listens on inside the platform network.
pub fn addresses(services: ipnet::Ipv4Net, s3_prefix_list: ipnet::Ipv4Net) -> Vec<Ipv4Addr> {
    let apis = SIGNING_NAMES.iter().map(|signing_name| HostMeaning::Service {
        signing_name,
        region: None,
    });
    let mut all: Vec<Ipv4Addr> = apis.map(|name| address(&name, services, s3_prefix_list)).collect();
    all.push(address(&HostMeaning::S3 { region: None }, services, s3_prefix_list));
    all.push(s3_of_other_regions(services));
    if let (Ok(account), Ok(region)) = ("000000000000".parse(), "us-east-1".parse()) {
        all.push(address(
            &HostMeaning::Registry { account, region },
            services,
            s3_prefix_list,
        ));
    }
    all
}
