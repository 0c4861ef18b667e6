//! Bucket names in host names (IAM-65): `BUCKET.s3.REGION.amazonaws.com` and its older and endpoint spellings.

use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

/// Host names under which buckets are subdomains.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    /// Further base names, such as a name of the operator's own, without port.
    pub(super) bases: Vec<String>,
}

/// The bucket that a host name carries.
pub(super) fn bucket_of<'a>(host: &'a str, bases: &[String]) -> Option<&'a str> {
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(n, _)| n);
    if let Some(bucket) = bases
        .iter()
        .find_map(|base| name.strip_suffix(base.as_str())?.strip_suffix('.'))
    {
        return (!bucket.is_empty()).then_some(bucket);
    }
    let aws = name.strip_suffix(".amazonaws.com")?;
    let labels: Vec<&str> = aws.split('.').collect();
    // The service's label is the last one that can be it: a bucket's own name may hold labels such as `s3` too.
    let service = labels
        .iter()
        .rposition(|label| *label == "s3" || label.starts_with("s3-"))?;
    let after = labels.get(service + 1..)?;
    // s3.REGION, s3, s3-REGION, s3.dualstack.REGION, and within a VPC endpoint's name s3.REGION.vpce.
    let known = matches!(after, [] | [_] | ["dualstack", _] | [_, "vpce"]);
    let mut before = labels.get(..service)?;
    if after.last() == Some(&"vpce") {
        // BUCKET.bucket.vpce-ID.s3.REGION.vpce: the endpoint's own labels are not the bucket's.
        let marker = before.iter().rposition(|label| *label == "bucket")?;
        before = before.get(..marker)?;
    }
    let length = before
        .iter()
        .map(|label| label.len() + 1)
        .sum::<usize>()
        .checked_sub(1)?;
    if known { name.get(..length) } else { None }
}

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let found = VirtualHost::new(host);
        Ok(match bucket_of(host, &self.bases) {
            Some(bucket) => found.with_bucket(bucket),
            None => found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::bucket_of;

    #[test]
    fn buckets_are_read_from_every_spelling_of_the_host() {
        let bases = vec!["s3.example.test".to_owned()];
        for (host, bucket) in [
            ("data.s3.us-east-1.amazonaws.com", Some("data")),
            ("my.data.s3.us-east-1.amazonaws.com:4599", Some("my.data")),
            ("data.s3.amazonaws.com", Some("data")),
            ("data.s3-us-west-2.amazonaws.com", Some("data")),
            ("data.s3.dualstack.us-east-1.amazonaws.com", Some("data")),
            ("data.bucket.vpce-0a1b.s3.us-east-1.vpce.amazonaws.com", Some("data")),
            ("bucket.vpce-0a1b.s3.us-east-1.vpce.amazonaws.com", None),
            ("data.s3.example.test:80", Some("data")),
            ("s3.example.test", None),
            ("s3.us-east-1.amazonaws.com", None),
            ("s3-us-east-1.amazonaws.com", None),
            ("localhost:4599", None),
            ("127.0.0.1:4599", None),
            ("s3.evil.us-east-1.internal.amazonaws.com", None),
        ] {
            assert_eq!(bucket_of(host, &bases), bucket, "{host}");
        }
    }
}
