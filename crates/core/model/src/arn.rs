//! Amazon resource names: `arn:partition:service:region:account:resource`.

use crate::{AccountId, Region, Scope};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A well-formed ARN. Region and account may be empty (S3, IAM). Kept as its text, split on demand.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Arn(Box<str>);

/// The text does not have the six parts of an ARN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an ARN: expected arn:partition:service:region:account:resource")]
pub struct BadArn;

/// The six parts of an ARN's text, of which the last may hold colons; `None` when there are fewer. Every request asks for
/// them many times: the bytes are looked at one by one, for which they are short enough.
pub fn split(text: &str) -> Option<[&str; 6]> {
    let mut parts = [""; 6];
    let mut rest = text;
    let (last, first) = parts.split_last_mut()?;
    for part in first {
        let at = rest.bytes().position(|byte| byte == b':')?;
        (*part, rest) = (rest.get(..at)?, rest.get(at.checked_add(1)?..)?);
    }
    *last = rest;
    Some(parts)
}

impl FromStr for Arn {
    type Err = BadArn;
    fn from_str(text: &str) -> Result<Self, BadArn> {
        let [head, partition, service, _, _, resource] = split(text).ok_or(BadArn)?;
        let filled = [partition, service, resource].iter().all(|part| !part.is_empty());
        (head == "arn" && filled).then(|| Self(text.into())).ok_or(BadArn)
    }
}

impl TryFrom<String> for Arn {
    type Error = BadArn;
    fn try_from(text: String) -> Result<Self, BadArn> {
        text.parse()
    }
}

impl From<Arn> for String {
    fn from(arn: Arn) -> Self {
        arn.0.into()
    }
}

impl Arn {
    /// The ARN of a SageMaker resource: the name part is lower-cased (SM-7).
    pub fn sagemaker(scope: &Scope, kind: &str, name: &str) -> Self {
        let mut resource = [kind, "/", name].concat();
        // The kind is in small letters already.
        resource.make_ascii_lowercase();
        Self::regional("sagemaker", scope, &resource)
    }

    /// The ARN of a resource that lives in one account and region.
    pub fn regional(service: &str, scope: &Scope, resource: &str) -> Self {
        let parts = [
            "arn:aws:",
            service,
            ":",
            scope.region.as_str(),
            ":",
            scope.account.as_str(),
            ":",
            resource,
        ];
        Self(parts.concat().into())
    }

    /// The ARN of an IAM entity: no region.
    pub fn iam(account: &AccountId, resource: &str) -> Self {
        Self(["arn:aws:iam::", account.as_str(), ":", resource].concat().into())
    }

    /// The ARN of a bucket (`bucket`) or of an object (`bucket/key`): neither region nor account.
    pub fn s3(resource: &str) -> Self {
        Self(format!("arn:aws:s3:::{resource}").into())
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// All six parts of the text: `arn`, partition, service, region, account, resource. Who needs several asks for them once:
    /// each of the methods for one part looks through the text.
    pub fn parts(&self) -> [&str; 6] {
        split(&self.0).unwrap_or_default()
    }

    /// The service part, such as `sagemaker`.
    pub fn service(&self) -> &str {
        let [_, _, service, ..] = self.parts();
        service
    }

    /// The region part, if it is given.
    pub fn region(&self) -> Option<Region> {
        let [_, _, _, region, ..] = self.parts();
        region.parse().ok()
    }

    /// The account part, if it is given.
    pub fn account(&self) -> Option<AccountId> {
        let [_, _, _, _, account, _] = self.parts();
        account.parse().ok()
    }

    /// Everything after the fifth colon, such as `model/churn`.
    pub fn resource(&self) -> &str {
        let [_, _, _, _, _, resource] = self.parts();
        resource
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sagemaker_arns_lower_the_name_part() {
        let scope = Scope {
            account: "123456789012".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        let arn = Arn::sagemaker(&scope, "endpoint", "MyEndpoint");
        assert_eq!(
            arn.as_str(),
            "arn:aws:sagemaker:us-east-1:123456789012:endpoint/myendpoint"
        );
        assert_eq!(arn.as_str().parse::<Arn>().unwrap(), arn);
        assert_eq!(arn.resource(), "endpoint/myendpoint");
    }

    #[test]
    fn a_text_with_fewer_parts_is_no_arn() {
        for bad in [
            "",
            "arn:aws:s3",
            "arn:aws:s3::b",
            "arn::s3:::b",
            "arn:aws::::b",
            "arn:aws:s3:::",
            "urn:aws:s3:::b",
        ] {
            assert_eq!(bad.parse::<Arn>(), Err(BadArn), "{bad}");
        }
    }

    #[test]
    fn the_last_part_may_hold_colons() {
        let arn: Arn = "arn:aws:logs:us-east-1:123456789012:log-group:/é:log-stream:y"
            .parse()
            .unwrap();
        assert_eq!((arn.service(), arn.resource()), ("logs", "log-group:/é:log-stream:y"));
        assert_eq!(arn.region().unwrap().as_str(), "us-east-1");
        assert_eq!(arn.account().unwrap().as_str(), "123456789012");
        let bucket: Arn = "arn:aws:s3:::b".parse().unwrap();
        assert_eq!(
            (bucket.region(), bucket.account(), bucket.resource()),
            (None, None, "b")
        );
    }
}
