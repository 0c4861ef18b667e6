//! Faults of a document in AWS's words.

use crate::document::DocumentKind;

/// What can be wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::document) enum Wrong {
    NotJson(String),
    /// JSON, but not of a policy's shape.
    Shape(String),
    Unknown(String),
    Missing(&'static str),
    /// An element that this kind of document has not.
    Prohibited(String),
    Effect(String),
    Sid(String),
    SameSid(String),
    Principal(String),
    NoVendor(String),
    TwoColons(String),
    Vendor(String),
    /// A trust policy about something else than STS.
    NotSts(String),
    NotArn(String),
    Partition {
        partition: String,
        completed: String,
    },
    ResourceVendor(String),
    /// An ARN of IAM or S3 with a region.
    Region(String),
    /// An ARN of IAM about something that IAM has not.
    IamPath(String),
    Operator(String),
    Legacy(String),
}

/// What resources of IAM begin with.
pub(in crate::document) const IAM_PATHS: &[&str] = &[
    "user/",
    "federated-user/",
    "role/",
    "group/",
    "instance-profile/",
    "mfa/",
    "server-certificate/",
    "policy/",
    "sms-mfa/",
    "saml-provider/",
    "oidc-provider/",
    "report/",
    "access-report/",
];

impl Wrong {
    /// What is wrong at its place.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::NotJson(detail) | Self::Shape(detail) | Self::Principal(detail) | Self::Legacy(detail) => {
                detail.clone()
            }
            Self::Unknown(element) => format!("unknown element {element}"),
            Self::Missing(element) => format!("{element} is missing or empty"),
            Self::Prohibited(element) => format!("{element} cannot stand here"),
            Self::Effect(_) => "Effect is neither Allow nor Deny".into(),
            Self::Sid(sid) => format!("the Sid {sid:?} has other characters than letters and digits"),
            Self::SameSid(sid) => format!("the Sid {sid} appears twice"),
            Self::NoVendor(action) | Self::TwoColons(action) | Self::NotSts(action) => format!("the action {action:?}"),
            Self::Vendor(service) => format!("the action's service {service:?}"),
            Self::NotArn(resource)
            | Self::ResourceVendor(resource)
            | Self::Region(resource)
            | Self::IamPath(resource) => {
                format!("the resource {resource:?}")
            }
            Self::Partition { partition, .. } => format!("the partition {partition:?}"),
            Self::Operator(operator) => format!("unknown condition operator {operator}"),
        }
    }

    /// The message that AWS gives: IAM for its own documents, S3 for those of resources.
    pub(super) fn message(&self, kind: DocumentKind) -> String {
        match kind {
            DocumentKind::Identity => self.by_iam(),
            DocumentKind::Trust => self.of_trust(),
            DocumentKind::Resource | DocumentKind::Endpoint => self.by_s3(),
        }
    }

    fn by_iam(&self) -> String {
        match self {
            Self::NotJson(_) | Self::Shape(_) | Self::Unknown(_) | Self::Effect(_) | Self::Operator(_) => {
                "Syntax errors in policy.".into()
            }
            Self::Missing("Action") => "Policy statement must contain actions.".into(),
            Self::Missing("Resource") => "Policy statement must contain resources.".into(),
            Self::Missing(_) => "Syntax errors in policy.".into(),
            Self::Prohibited(_) | Self::Principal(_) => "Policy document should not specify a principal.".into(),
            Self::Sid(_) => "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular \
                             expression [0-9A-Za-z]*"
                .into(),
            Self::SameSid(_) => "Statement IDs (SID) in a single policy must be unique.".into(),
            Self::NoVendor(_) => "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.".into(),
            Self::TwoColons(_) => "Actions/Condition can contain only one colon.".into(),
            Self::Vendor(service) => format!("Vendor {service} is not valid"),
            Self::NotSts(_) => "AssumeRole policy may only specify STS AssumeRole actions.".into(),
            Self::NotArn(resource) => format!("Resource {resource} must be in ARN format or \"*\"."),
            Self::Partition { partition, completed } => {
                format!("Partition \"{partition}\" is not valid for resource \"{completed}\".")
            }
            Self::ResourceVendor(_) => "Resource vendor must be fully qualified and cannot contain regexes.".into(),
            Self::Region(resource) if resource.contains(":iam:") => {
                format!("IAM resource {resource} cannot contain region information.")
            }
            Self::Region(resource) => format!("Resource {resource} can not contain region information."),
            Self::IamPath(_) => format!(
                "IAM resource path must either be \"*\" or start with {}.",
                IAM_PATHS.join(", ")
            ),
            Self::Legacy(_) => "The policy failed legacy parsing".into(),
        }
    }

    fn of_trust(&self) -> String {
        match self {
            Self::NotJson(_) => "This policy contains invalid Json".into(),
            Self::Missing(element) => format!("Missing required field {element}"),
            Self::Prohibited(element) => format!("Has prohibited field {element}"),
            Self::Unknown(element) => format!("Unknown field {element}"),
            Self::Effect(effect) => format!("Invalid effect: {effect}"),
            Self::Principal(detail) if detail.starts_with("Invalid principal") => detail.clone(),
            Self::Principal(_) => "Invalid principal in policy".into(),
            other => other.by_iam(),
        }
    }

    fn by_s3(&self) -> String {
        match self {
            Self::NotJson(_) => "Policies must be valid JSON and the first byte must be '{'".into(),
            Self::Shape(_) | Self::Legacy(_) => "Invalid policy syntax.".into(),
            Self::Principal(_) => "Invalid principal in policy".into(),
            Self::NoVendor(_) | Self::TwoColons(_) | Self::Vendor(_) => "Policy has invalid action".into(),
            Self::NotArn(_) | Self::Partition { .. } | Self::ResourceVendor(_) | Self::Region(_) | Self::IamPath(_) => {
                "Policy has invalid resource".into()
            }
            Self::Operator(operator) => format!("Invalid Condition type : {operator}"),
            other => other.of_trust(),
        }
    }
}
