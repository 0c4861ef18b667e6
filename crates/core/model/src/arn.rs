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

impl FromStr for Arn {
    type Err = BadArn;
    fn from_str(text: &str) -> Result<Self, BadArn> {
        let mut parts = text.splitn(6, ':');
        let head = parts.next() == Some("arn");
        let partition = parts.next().is_some_and(|p| !p.is_empty());
        let service = parts.next().is_some_and(|p| !p.is_empty());
        let rest = parts.next().is_some() && parts.next().is_some() && parts.next().is_some_and(|p| !p.is_empty());
        (head && partition && service && rest)
            .then(|| Self(text.into()))
            .ok_or(BadArn)
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

    fn part(&self, index: usize) -> &str {
        self.0.splitn(6, ':').nth(index).unwrap_or("")
    }

    /// The service part, such as `sagemaker`.
    pub fn service(&self) -> &str {
        self.part(2)
    }

    /// The region part, if it is given.
    pub fn region(&self) -> Option<Region> {
        self.part(3).parse().ok()
    }

    /// The account part, if it is given.
    pub fn account(&self) -> Option<AccountId> {
        self.part(4).parse().ok()
    }

    /// Everything after the fifth colon, such as `model/churn`.
    pub fn resource(&self) -> &str {
        self.part(5)
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
        for bad in ["", "arn:aws:s3", "arn:aws:s3:::", "urn:aws:s3:::b"] {
            assert_eq!(bad.parse::<Arn>(), Err(BadArn), "{bad}");
        }
    }
}
