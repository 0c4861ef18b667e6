//! The services that interface endpoints are made for, and their names (NET-40, NET-42).

use super::id::EndpointId;
use crate::Region;
use serde::{Deserialize, Serialize};

/// A service with interface endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointService {
    /// The SageMaker API.
    SagemakerApi,
    /// Invocations of endpoints.
    SagemakerRuntime,
    /// Invocations of endpoints, under the FIPS name: it takes no policy of its own (D-14).
    SagemakerRuntimeFips,
    /// Records of feature groups.
    FeaturestoreRuntime,
    /// Metrics of experiments.
    SagemakerMetrics,
    /// Browsers' way to notebook instances; the operator switches it on (D-12).
    Notebook,
    /// Identities.
    Sts,
    /// CloudWatch Logs.
    Logs,
    /// The registry's API.
    EcrApi,
    /// The registry's images.
    EcrDkr,
    /// EC2's API.
    Ec2,
    /// CloudWatch.
    Monitoring,
    /// S3, beside its gateway endpoints.
    S3,
}

/// What follows the region in an endpoint's own names.
const SUFFIX: &str = ".vpce.amazonaws.com";

impl EndpointService {
    /// Every service, in the order of NET-40.
    pub const ALL: [Self; 13] = [
        Self::SagemakerApi,
        Self::SagemakerRuntime,
        Self::SagemakerRuntimeFips,
        Self::FeaturestoreRuntime,
        Self::SagemakerMetrics,
        Self::Notebook,
        Self::Sts,
        Self::Logs,
        Self::EcrApi,
        Self::EcrDkr,
        Self::Ec2,
        Self::Monitoring,
        Self::S3,
    ];

    /// The last part of `ServiceName`.
    fn last(self) -> &'static str {
        match self {
            Self::SagemakerApi => "sagemaker.api",
            Self::SagemakerRuntime => "sagemaker.runtime",
            Self::SagemakerRuntimeFips => "sagemaker.runtime-fips",
            Self::FeaturestoreRuntime => "sagemaker.featurestore-runtime",
            Self::SagemakerMetrics => "sagemaker.metrics",
            Self::Notebook => "notebook",
            Self::Sts => "sts",
            Self::Logs => "logs",
            Self::EcrApi => "ecr.api",
            Self::EcrDkr => "ecr.dkr",
            Self::Ec2 => "ec2",
            Self::Monitoring => "monitoring",
            Self::S3 => "s3",
        }
    }

    /// `ServiceName`, such as `com.amazonaws.us-east-1.sagemaker.api`.
    pub fn name(self, region: &Region) -> String {
        match self {
            Self::Notebook => format!("aws.sagemaker.{region}.notebook"),
            _ => format!("com.amazonaws.{region}.{}", self.last()),
        }
    }

    /// The service of a `ServiceName`.
    pub fn named(name: &str, region: &Region) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name(region) == name)
    }

    /// What stands before the region in the service's own names: `api.sagemaker`.
    pub fn base(self) -> &'static str {
        match self {
            Self::SagemakerApi => "api.sagemaker",
            Self::SagemakerRuntime => "runtime.sagemaker",
            Self::SagemakerRuntimeFips => "runtime-fips.sagemaker",
            Self::FeaturestoreRuntime => "featurestore-runtime.sagemaker",
            Self::SagemakerMetrics => "metrics.sagemaker",
            Self::Notebook => "notebook.sagemaker",
            Self::Sts => "sts",
            Self::Logs => "logs",
            Self::EcrApi => "api.ecr",
            Self::EcrDkr => "dkr.ecr",
            Self::Ec2 => "ec2",
            Self::Monitoring => "monitoring",
            Self::S3 => "s3",
        }
    }

    /// [`Self::base`] and its other spellings in the names of endpoints: the SageMaker guide writes Feature Store's with an
    /// `.api.` in front (D-4).
    pub fn bases(self) -> &'static [&'static str] {
        match self {
            Self::FeaturestoreRuntime => &["featurestore-runtime.sagemaker", "api.featurestore-runtime.sagemaker"],
            Self::SagemakerApi => &["api.sagemaker"],
            Self::SagemakerRuntime => &["runtime.sagemaker"],
            Self::SagemakerRuntimeFips => &["runtime-fips.sagemaker"],
            Self::SagemakerMetrics => &["metrics.sagemaker"],
            Self::Notebook => &["notebook.sagemaker"],
            Self::Sts => &["sts"],
            Self::Logs => &["logs"],
            Self::EcrApi => &["api.ecr"],
            Self::EcrDkr => &["dkr.ecr"],
            Self::Ec2 => &["ec2"],
            Self::Monitoring => &["monitoring"],
            Self::S3 => &["s3"],
        }
    }

    /// The default names that private DNS takes over, the one that answers show first; a `*` stands for any labels
    /// (NET-40, D-1).
    pub fn private_names(self, region: &Region) -> Vec<String> {
        match self {
            Self::Notebook => vec![format!("*.notebook.{region}.sagemaker.aws")],
            Self::EcrDkr => vec![format!("*.dkr.ecr.{region}.amazonaws.com")],
            Self::S3 => vec![
                format!("s3.{region}.amazonaws.com"),
                format!("*.s3.{region}.amazonaws.com"),
            ],
            _ => vec![format!("{}.{region}.amazonaws.com", self.base())],
        }
    }

    /// Whether an endpoint may have a policy of its own (NET-47, D-14).
    pub fn takes_policy(self) -> bool {
        self != Self::SagemakerRuntimeFips
    }

    /// Whether private DNS answers only in zones where the endpoint has an interface (NET-45, D-10).
    pub fn is_zonal(self) -> bool {
        matches!(self, Self::SagemakerRuntime | Self::SagemakerRuntimeFips)
    }

    /// The domain under which an endpoint's own names lie: `api.sagemaker.us-east-1.vpce.amazonaws.com`.
    pub fn domain(self, region: &Region) -> String {
        format!("{}.{region}{SUFFIX}", self.base())
    }

    /// The regional name of an endpoint, then one for each of `zones` (NET-42, NET-43).
    pub fn own_names<'a>(
        self,
        region: &Region,
        endpoint: EndpointId,
        suffix: &str,
        zones: impl Iterator<Item = &'a str>,
    ) -> Vec<String> {
        let domain = self.domain(region);
        // S3's names are shown for any bucket.
        let any = if self == Self::S3 { "*." } else { "" };
        let mut names = vec![format!("{any}{endpoint}-{suffix}.{domain}")];
        names.extend(zones.map(|zone| format!("{any}{endpoint}-{suffix}-{zone}.{domain}")));
        names
    }
}

/// A name under `vpce.amazonaws.com`, taken apart; whether an endpoint has it is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnName {
    /// Labels before the endpoint's: of S3, `bucket` or a bucket and `bucket`.
    pub before: Option<String>,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The eight characters; none in the bare spelling of the SageMaker guide (D-3).
    pub suffix: Option<String>,
    /// The Availability Zone of a zonal name.
    pub zone: Option<String>,
    /// The service whose domain it lies in.
    pub service: EndpointService,
    /// The region of that domain.
    pub region: Region,
}

impl OwnName {
    /// Reads a name in lower case, without a final dot.
    pub fn read(name: &str) -> Option<Self> {
        let head = name.strip_suffix(SUFFIX)?;
        let (head, region) = head.rsplit_once('.')?;
        let region: Region = region.parse().ok()?;
        // The longest spelling first: one is the end of another.
        let mut found: Vec<(&str, EndpointService, usize)> = EndpointService::ALL
            .into_iter()
            .flat_map(|service| service.bases().iter().map(move |base| (service, *base)))
            .filter_map(|(service, base)| {
                let rest = head.strip_suffix(base)?.strip_suffix('.')?;
                Some((rest, service, base.len()))
            })
            .collect();
        found.sort_by_key(|(.., length)| std::cmp::Reverse(*length));
        let (rest, service, _) = *found.first()?;
        let (before, label) = match rest.rsplit_once('.') {
            Some((before, label)) => (Some(before.to_owned()), label),
            None => (None, rest),
        };
        if before.is_some() && service != EndpointService::S3 {
            return None;
        }
        // `vpce-` and 17 digits.
        let (id, more) = label.split_at_checked(22)?;
        let endpoint: EndpointId = id.parse().ok()?;
        let (suffix, zone) = match more.strip_prefix('-') {
            None if more.is_empty() => (None, None),
            None => return None,
            Some(more) => match more.split_once('-') {
                Some((suffix, zone)) => (Some(suffix.to_owned()), Some(zone.to_owned())),
                None => (Some(more.to_owned()), None),
            },
        };
        Some(Self {
            before,
            endpoint,
            suffix,
            zone,
            service,
            region,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        "us-east-1".parse().unwrap()
    }

    /// Proves: NET-40
    #[test]
    fn services_have_the_names_and_private_names_that_aws_gives_them() {
        let shown: Vec<(String, String)> = EndpointService::ALL
            .into_iter()
            .map(|service| (service.name(&region()), service.private_names(&region()).remove(0)))
            .collect();
        for (name, private) in [
            (
                "com.amazonaws.us-east-1.sagemaker.api",
                "api.sagemaker.us-east-1.amazonaws.com",
            ),
            (
                "com.amazonaws.us-east-1.sagemaker.runtime",
                "runtime.sagemaker.us-east-1.amazonaws.com",
            ),
            (
                "com.amazonaws.us-east-1.sagemaker.runtime-fips",
                "runtime-fips.sagemaker.us-east-1.amazonaws.com",
            ),
            (
                "com.amazonaws.us-east-1.sagemaker.featurestore-runtime",
                "featurestore-runtime.sagemaker.us-east-1.amazonaws.com",
            ),
            (
                "com.amazonaws.us-east-1.sagemaker.metrics",
                "metrics.sagemaker.us-east-1.amazonaws.com",
            ),
            ("aws.sagemaker.us-east-1.notebook", "*.notebook.us-east-1.sagemaker.aws"),
            ("com.amazonaws.us-east-1.sts", "sts.us-east-1.amazonaws.com"),
            ("com.amazonaws.us-east-1.logs", "logs.us-east-1.amazonaws.com"),
            ("com.amazonaws.us-east-1.ecr.api", "api.ecr.us-east-1.amazonaws.com"),
            ("com.amazonaws.us-east-1.ecr.dkr", "*.dkr.ecr.us-east-1.amazonaws.com"),
            ("com.amazonaws.us-east-1.ec2", "ec2.us-east-1.amazonaws.com"),
            (
                "com.amazonaws.us-east-1.monitoring",
                "monitoring.us-east-1.amazonaws.com",
            ),
            ("com.amazonaws.us-east-1.s3", "s3.us-east-1.amazonaws.com"),
        ] {
            assert!(
                shown.contains(&(name.to_owned(), private.to_owned())),
                "{name} is {private}: {shown:?}"
            );
            let service = EndpointService::named(name, &region()).unwrap();
            assert_eq!(service.name(&region()), name);
            assert_eq!(EndpointService::named(name, &"eu-west-1".parse().unwrap()), None);
        }
        assert_eq!(shown.len(), 13);
    }

    /// Proves: NET-42, NET-43, D-3, D-4
    #[test]
    fn the_names_of_an_endpoint_can_be_read_back() {
        let endpoint = EndpointId::of(0x1a2b);
        for service in EndpointService::ALL {
            let names = service.own_names(
                &region(),
                endpoint,
                "0123abcd",
                ["us-east-1a", "us-east-1b"].into_iter(),
            );
            assert_eq!(names.len(), 3, "regional before zonal");
            for (name, zone) in names.iter().zip([None, Some("us-east-1a"), Some("us-east-1b")]) {
                let name = name.replace('*', "bucket");
                let read = OwnName::read(&name).unwrap();
                assert_eq!((read.endpoint, read.service), (endpoint, service), "{name}");
                assert_eq!(
                    (read.suffix.as_deref(), read.zone.as_deref()),
                    (Some("0123abcd"), zone),
                    "{name}"
                );
                assert_eq!(read.region, region());
            }
            let bare = format!("{endpoint}.{}", service.domain(&region()));
            let read = OwnName::read(&bare).unwrap();
            assert_eq!((read.suffix, read.zone), (None, None), "{bare}");
        }
        let alias = format!("{endpoint}.api.featurestore-runtime.sagemaker.us-east-1.vpce.amazonaws.com");
        assert_eq!(
            OwnName::read(&alias).unwrap().service,
            EndpointService::FeaturestoreRuntime
        );
        let primary = alias.replace(".api.", ".");
        assert_eq!(
            OwnName::read(&primary).unwrap().service,
            EndpointService::FeaturestoreRuntime
        );
        for bad in [
            "api.sagemaker.us-east-1.vpce.amazonaws.com".to_owned(),
            format!("{endpoint}.api.sagemaker.us-east-1.amazonaws.com"),
            format!("{endpoint}x.api.sagemaker.us-east-1.vpce.amazonaws.com"),
            format!("evil.{endpoint}.api.sagemaker.us-east-1.vpce.amazonaws.com"),
            format!("{endpoint}.other.us-east-1.vpce.amazonaws.com"),
            "vpce-é.api.sagemaker.us-east-1.vpce.amazonaws.com".to_owned(),
        ] {
            assert_eq!(OwnName::read(&bad), None, "{bad}");
        }
    }
}
