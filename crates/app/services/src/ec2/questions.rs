//! What IAM is asked about each EC2 operation: one table for all of them (IAM-7, IAM-16, IAM-58).
//!
//! The keys that describe a resource are added by [`super::facts`] where the question is put, because they are read from
//! the store; here are those that the request itself gives.

use super::facts::{Found, leads_to};
use super::settled::Led;
use crate::{Asked, Ctx, Operation};
use isolarium_model::{Arn, Scope};
use isolarium_policy::Question;
use isolarium_wire::{ApiError, Document};
use std::collections::BTreeMap;

/// A kind of resource, with its name in ARNs and in the `ResourceType` of tags, and what its ids begin with.
macro_rules! kinds {
    ($($kind:ident $name:literal $prefix:literal;)+) => {
        /// A kind of resource, as ARNs, tag specifications and ids name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($kind,)+
        }

        use Kind::{$($kind),+};

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$($kind),+];

            /// The name in ARNs and the `ResourceType` of tags.
            pub const fn name(self) -> &'static str {
                match self {
                    $($kind => $name,)+
                }
            }

            /// What ids of the kind begin with.
            pub const fn prefix(self) -> &'static str {
                match self {
                    $($kind => $prefix,)+
                }
            }
        }
    };
}

kinds! {
    DhcpOptions "dhcp-options" "dopt-";
    ElasticIp "elastic-ip" "eipalloc-";
    FlowLog "vpc-flow-log" "fl-";
    Instance "instance" "i-";
    InternetGateway "internet-gateway" "igw-";
    NatGateway "natgateway" "nat-";
    NetworkAcl "network-acl" "acl-";
    NetworkInterface "network-interface" "eni-";
    PrefixList "prefix-list" "pl-";
    RouteTable "route-table" "rtb-";
    SecurityGroup "security-group" "sg-";
    SecurityGroupRule "security-group-rule" "sgr-";
    Subnet "subnet" "subnet-";
    Vpc "vpc" "vpc-";
    VpcEndpoint "vpc-endpoint" "vpce-";
}

impl Kind {
    /// The kind that an id is of.
    pub fn of_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| id.starts_with(kind.prefix()))
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The ARN of a resource. AWS's own prefix lists have an account of AWS's.
    pub fn arn(self, scope: &Scope, id: &str) -> Arn {
        let own = || Arn::regional("ec2", scope, &format!("{}/{id}", self.name()));
        let aws = format!("arn:aws:ec2:{}:aws:prefix-list/{id}", scope.region)
            .parse()
            .ok();
        aws.filter(|_| self == PrefixList).unwrap_or_else(own)
    }
}

/// A resource that an operation is about.
enum About {
    /// Made by the request: asked as `kind/*`, with the tags of the request.
    New(Kind),
    /// Made by the request, and AWS asks about it only for its tags.
    Tagged(Kind),
    /// Those whose ids stand in a member. A dot leads into structures and lists.
    Of(Kind, &'static str),
    /// Those that a member names by something else, such as an association's id.
    By(Kind, &'static str),
    /// Those whose ids stand in a member, of whatever kind.
    Any(&'static str),
}

use About::{Any, By, New, Of, Tagged};

/// Operations that are about resources; the others are asked on `*`.
const TABLE: &[(&str, &[About])] = &[
    ("AllocateAddress", &[New(ElasticIp)]),
    (
        "AssociateAddress",
        &[
            Of(ElasticIp, "AllocationId"),
            By(ElasticIp, "PublicIp"),
            Of(NetworkInterface, "NetworkInterfaceId"),
            Of(Instance, "InstanceId"),
        ],
    ),
    (
        "AssociateDhcpOptions",
        &[Of(DhcpOptions, "DhcpOptionsId"), Of(Vpc, "VpcId")],
    ),
    (
        "AssociateRouteTable",
        &[
            Of(RouteTable, "RouteTableId"),
            Of(Subnet, "SubnetId"),
            Of(InternetGateway, "GatewayId"),
        ],
    ),
    ("AssociateVpcCidrBlock", &[Of(Vpc, "VpcId")]),
    (
        "AttachInternetGateway",
        &[Of(InternetGateway, "InternetGatewayId"), Of(Vpc, "VpcId")],
    ),
    (
        "AttachNetworkInterface",
        &[Of(NetworkInterface, "NetworkInterfaceId"), Of(Instance, "InstanceId")],
    ),
    (
        "AuthorizeSecurityGroupEgress",
        &[Of(SecurityGroup, "GroupId"), Tagged(SecurityGroupRule)],
    ),
    (
        "AuthorizeSecurityGroupIngress",
        &[
            Of(SecurityGroup, "GroupId"),
            By(SecurityGroup, "GroupName"),
            Tagged(SecurityGroupRule),
        ],
    ),
    ("CreateDhcpOptions", &[New(DhcpOptions)]),
    ("CreateFlowLogs", &[New(FlowLog), Any("ResourceIds")]),
    ("CreateInternetGateway", &[New(InternetGateway)]),
    (
        "CreateNatGateway",
        &[
            New(NatGateway),
            Of(Subnet, "SubnetId"),
            Of(Vpc, "VpcId"),
            Of(ElasticIp, "AllocationId"),
            Of(ElasticIp, "SecondaryAllocationIds"),
        ],
    ),
    ("CreateNetworkAcl", &[New(NetworkAcl), Of(Vpc, "VpcId")]),
    ("CreateNetworkAclEntry", &[Of(NetworkAcl, "NetworkAclId")]),
    (
        "CreateNetworkInterface",
        &[
            New(NetworkInterface),
            Of(Subnet, "SubnetId"),
            Of(SecurityGroup, "Groups"),
        ],
    ),
    (
        "CreateNetworkInterfacePermission",
        &[Of(NetworkInterface, "NetworkInterfaceId")],
    ),
    ("CreateRoute", &[Of(RouteTable, "RouteTableId")]),
    ("CreateRouteTable", &[New(RouteTable), Of(Vpc, "VpcId")]),
    ("CreateSecurityGroup", &[New(SecurityGroup), Of(Vpc, "VpcId")]),
    ("CreateSubnet", &[New(Subnet), Of(Vpc, "VpcId")]),
    ("CreateTags", &[Any("Resources")]),
    ("CreateVpc", &[New(Vpc)]),
    (
        "CreateVpcEndpoint",
        &[
            New(VpcEndpoint),
            Of(Vpc, "VpcId"),
            Of(RouteTable, "RouteTableIds"),
            Of(Subnet, "SubnetIds"),
            Of(SecurityGroup, "SecurityGroupIds"),
        ],
    ),
    ("DeleteDhcpOptions", &[Of(DhcpOptions, "DhcpOptionsId")]),
    ("DeleteFlowLogs", &[Of(FlowLog, "FlowLogIds")]),
    ("DeleteInternetGateway", &[Of(InternetGateway, "InternetGatewayId")]),
    ("DeleteNatGateway", &[Of(NatGateway, "NatGatewayId")]),
    ("DeleteNetworkAcl", &[Of(NetworkAcl, "NetworkAclId")]),
    ("DeleteNetworkAclEntry", &[Of(NetworkAcl, "NetworkAclId")]),
    ("DeleteNetworkInterface", &[Of(NetworkInterface, "NetworkInterfaceId")]),
    (
        "DeleteNetworkInterfacePermission",
        &[By(NetworkInterface, "NetworkInterfacePermissionId")],
    ),
    ("DeleteRoute", &[Of(RouteTable, "RouteTableId")]),
    ("DeleteRouteTable", &[Of(RouteTable, "RouteTableId")]),
    (
        "DeleteSecurityGroup",
        &[Of(SecurityGroup, "GroupId"), By(SecurityGroup, "GroupName")],
    ),
    ("DeleteSubnet", &[Of(Subnet, "SubnetId")]),
    ("DeleteTags", &[Any("Resources")]),
    ("DeleteVpc", &[Of(Vpc, "VpcId")]),
    ("DeleteVpcEndpoints", &[Of(VpcEndpoint, "VpcEndpointIds")]),
    ("DescribeVpcAttribute", &[Of(Vpc, "VpcId")]),
    (
        "DetachInternetGateway",
        &[Of(InternetGateway, "InternetGatewayId"), Of(Vpc, "VpcId")],
    ),
    (
        "DetachNetworkInterface",
        &[By(NetworkInterface, "AttachmentId"), By(Instance, "AttachmentId")],
    ),
    (
        "DisassociateAddress",
        &[
            By(ElasticIp, "AssociationId"),
            By(ElasticIp, "PublicIp"),
            By(NetworkInterface, "AssociationId"),
        ],
    ),
    (
        "DisassociateRouteTable",
        &[By(RouteTable, "AssociationId"), By(Subnet, "AssociationId")],
    ),
    ("DisassociateVpcCidrBlock", &[By(Vpc, "AssociationId")]),
    ("GetManagedPrefixListEntries", &[Of(PrefixList, "PrefixListId")]),
    (
        "ModifyNetworkInterfaceAttribute",
        &[Of(NetworkInterface, "NetworkInterfaceId"), Of(SecurityGroup, "Groups")],
    ),
    (
        "ModifySecurityGroupRules",
        &[
            Of(SecurityGroup, "GroupId"),
            Of(SecurityGroupRule, "SecurityGroupRules.SecurityGroupRuleId"),
            Of(PrefixList, "SecurityGroupRules.SecurityGroupRule.PrefixListId"),
        ],
    ),
    ("ModifySubnetAttribute", &[Of(Subnet, "SubnetId")]),
    ("ModifyVpcAttribute", &[Of(Vpc, "VpcId")]),
    (
        "ModifyVpcEndpoint",
        &[
            Of(VpcEndpoint, "VpcEndpointId"),
            Of(RouteTable, "AddRouteTableIds"),
            Of(RouteTable, "RemoveRouteTableIds"),
            Of(Subnet, "AddSubnetIds"),
            Of(Subnet, "RemoveSubnetIds"),
            Of(SecurityGroup, "AddSecurityGroupIds"),
            Of(SecurityGroup, "RemoveSecurityGroupIds"),
        ],
    ),
    (
        "ReleaseAddress",
        &[Of(ElasticIp, "AllocationId"), By(ElasticIp, "PublicIp")],
    ),
    (
        "ReplaceNetworkAclAssociation",
        &[Of(NetworkAcl, "NetworkAclId"), By(Subnet, "AssociationId")],
    ),
    ("ReplaceNetworkAclEntry", &[Of(NetworkAcl, "NetworkAclId")]),
    ("ReplaceRoute", &[Of(RouteTable, "RouteTableId")]),
    (
        "ReplaceRouteTableAssociation",
        &[Of(RouteTable, "RouteTableId"), By(Subnet, "AssociationId")],
    ),
    ("RevokeSecurityGroupEgress", &[Of(SecurityGroup, "GroupId")]),
    (
        "RevokeSecurityGroupIngress",
        &[Of(SecurityGroup, "GroupId"), By(SecurityGroup, "GroupName")],
    ),
    (
        "UpdateSecurityGroupRuleDescriptionsEgress",
        &[Of(SecurityGroup, "GroupId"), By(SecurityGroup, "GroupName")],
    ),
    (
        "UpdateSecurityGroupRuleDescriptionsIngress",
        &[Of(SecurityGroup, "GroupId"), By(SecurityGroup, "GroupName")],
    ),
];

/// Members of modifications that name a resource instead of setting an attribute.
const NO_ATTRIBUTE: &[&str] = &["DryRun", "NetworkInterfaceId", "SubnetId", "VpcEndpointId", "VpcId"];

/// Every question of a request, in the order of the table: its own action first, then `ec2:CreateTags` for the tags of what
/// it makes, then `iam:PassRole`. What associations, addresses and names lead to is not looked up: they stand for any
/// resource of their kind.
pub fn questions<Op>(request: &Op, ctx: &Ctx<'_>) -> Vec<Question>
where
    Op: Operation + Clone + Into<Document>,
{
    let input: Document = request.clone().into();
    listed(Op::NAME, &input, &ctx.caller.scope, &[])
}

/// As [`questions`], about the resources that associations, addresses and names lead to at this moment.
///
/// # Errors
/// When that cannot be read: a resource that is not known must not let a caller past a Deny of it.
pub(crate) fn asked<Op>(request: &Op, ctx: &Ctx<'_>) -> Result<Asked, ApiError>
where
    Op: Operation + Clone + Into<Document>,
{
    let input: Document = request.clone().into();
    let scope = &ctx.caller.scope;
    let led = by_others(Op::NAME, &input).into_iter().map(|(kind, text)| {
        let found = leads_to(ctx.store, scope, kind, text).map_err(super::error::stored)?;
        Ok(Led {
            kind,
            text: text.to_owned(),
            found,
        })
    });
    let led: Vec<Led> = led.collect::<Result<_, ApiError>>()?;
    let questions = listed(Op::NAME, &input, scope, &led);
    Ok(Asked { questions, led })
}

/// What a request names by something else than its id.
fn by_others<'a>(operation: &str, input: &'a Document) -> Vec<(Kind, &'a str)> {
    let rows = TABLE.iter().filter(|(name, _)| *name == operation);
    let abouts = rows.flat_map(|(_, abouts)| abouts.iter());
    let named = abouts.filter_map(|about| match about {
        By(kind, member) => Some(texts(input, member).into_iter().map(|text| (*kind, text))),
        New(_) | Tagged(_) | Of(..) | Any(_) => None,
    });
    named.flatten().collect()
}

fn listed(operation: &str, input: &Document, scope: &Scope, led: &[Led]) -> Vec<Question> {
    let find = |kind: Kind, text: &str| {
        let found = led.iter().find(|led| led.kind == kind && led.text == text);
        found.map_or(&Found::Unknown, |led| &led.found)
    };
    let rows = TABLE.iter().find(|(name, _)| *name == operation);
    let Some((_, abouts)) = rows else {
        return vec![with_region(Question::any(&format!("ec2:{operation}")), scope)];
    };
    let asking = Asking {
        operation,
        input,
        scope,
        tags: tag_specifications(input),
    };
    let mut asked: Vec<Question> = Vec::new();
    let mut add = |question: Question| {
        // One resource may be named twice, such as a table to add and to remove.
        if !asked.contains(&question) {
            asked.push(question);
        }
    };
    for about in *abouts {
        match about {
            New(kind) => add(asking.made(*kind)),
            Tagged(kind) if asking.tags.contains_key(kind) => add(asking.made(*kind)),
            Tagged(_) => {}
            Of(kind, member) => texts(input, member)
                .into_iter()
                .for_each(|id| add(asking.existing(*kind, id))),
            By(kind, member) => texts(input, member)
                .into_iter()
                .for_each(|text| match find(*kind, text) {
                    Found::Is(id) => add(asking.existing(*kind, id)),
                    Found::Unknown => add(asking.existing(*kind, "*")),
                    Found::Nothing => {}
                }),
            Any(member) => texts(input, member).into_iter().for_each(|id| {
                match Kind::of_id(id).or_else(|| asking.named_type()) {
                    Some(kind) => add(asking.existing(kind, id)),
                    // A flow log itself is asked about in any case.
                    None if operation == "CreateFlowLogs" => {}
                    None => add(asking.unknown()),
                }
            }),
        }
    }
    if asked.is_empty() {
        asked.push(asking.nameless(abouts));
    }
    asked.extend(asking.tags.iter().map(|(kind, tags)| asking.tagging(*kind, tags)));
    asked.extend(asking.passed_role());
    asked
}

/// `ec2:Region` is part of every question to EC2.
fn with_region(question: Question, scope: &Scope) -> Question {
    question.with("ec2:Region", scope.region.to_string())
}

type Tags = BTreeMap<String, String>;

struct Asking<'a> {
    operation: &'a str,
    input: &'a Document,
    scope: &'a Scope,
    /// What `TagSpecifications` says of each kind.
    tags: BTreeMap<Kind, Tags>,
}

impl Asking<'_> {
    fn on(&self, action: &str, kind: Kind, id: &str) -> Question {
        let question = Question::on(&format!("ec2:{action}"), &kind.arn(self.scope, id));
        with_region(question, self.scope)
    }

    fn made(&self, kind: Kind) -> Question {
        let mut question = self.on(self.operation, kind, "*");
        if let Some(tags) = self.tags.get(&kind) {
            question = question.with_request_tags(tags);
        }
        if kind == VpcEndpoint {
            if let Some(service) = text(self.input, "ServiceName") {
                question = question.with("ec2:VpceServiceName", service);
                // Only AWS's services exist here.
                question = question.with("ec2:VpceServiceOwner", "amazon");
            }
            let region = text(self.input, "ServiceRegion").map_or_else(|| self.scope.region.to_string(), str::to_owned);
            question = question.with("ec2:VpceServiceRegion", region);
        }
        question
    }

    fn existing(&self, kind: Kind, id: &str) -> Question {
        let mut question = self.on(self.operation, kind, id);
        match (self.operation, kind) {
            ("CreateTags" | "DeleteTags", _) => question = self.with_own_tags(question),
            ("CreateNetworkInterfacePermission", _) => {
                if let Some(service) = text(self.input, "AwsService") {
                    question = question.with("ec2:AuthorizedService", service);
                }
                if let Some(account) = text(self.input, "AwsAccountId") {
                    question = question.with("ec2:AuthorizedUser", format!("arn:aws:iam::{account}:root"));
                }
                if let Some(permission) = text(self.input, "Permission") {
                    question = question.with("ec2:Permission", permission);
                }
            }
            ("ModifyNetworkInterfaceAttribute", NetworkInterface)
            | ("ModifySubnetAttribute", Subnet)
            | ("ModifyVpcAttribute", Vpc)
            | ("ModifyVpcEndpoint", VpcEndpoint) => question = self.with_attributes(question),
            _ => {}
        }
        question
    }

    /// `ec2:Attribute` and `ec2:Attribute/NAME` of what a modification sets.
    fn with_attributes(&self, mut question: Question) -> Question {
        let Document::Map(members) = self.input else {
            return question;
        };
        for (name, value) in members
            .iter()
            .filter(|(name, _)| !NO_ATTRIBUTE.contains(&name.as_str()))
        {
            question = question.with("ec2:Attribute", name.as_str());
            for value in values(value) {
                question = question.with(&format!("ec2:Attribute/{name}"), value);
            }
        }
        question
    }

    /// The tags that CreateTags sets or DeleteTags removes.
    fn with_own_tags(&self, mut question: Question) -> Question {
        for (key, value) in tags(self.input) {
            if self.operation == "CreateTags" {
                question = question.with(&format!("aws:RequestTag/{key}"), value.unwrap_or_default());
            } else if let Some(value) = value {
                question = question.with(&format!("aws:RequestTag/{key}"), value);
            }
            question = question.with("aws:TagKeys", key);
        }
        question
    }

    /// A resource that no id names is asked about as any of its kind; the handler refuses it afterwards (IAM-59).
    fn nameless(&self, abouts: &[About]) -> Question {
        let kind = abouts.iter().find_map(|about| match about {
            New(kind) | Tagged(kind) | Of(kind, _) | By(kind, _) => Some(*kind),
            Any(_) => None,
        });
        kind.map_or_else(|| self.unknown(), |kind| self.existing(kind, "*"))
    }

    /// The kind that `ResourceType` of CreateFlowLogs names.
    fn named_type(&self) -> Option<Kind> {
        match text(self.input, "ResourceType")? {
            "VPC" => Some(Vpc),
            "Subnet" => Some(Subnet),
            "NetworkInterface" => Some(NetworkInterface),
            _ => None,
        }
    }

    fn unknown(&self) -> Question {
        let question = with_region(Question::any(&format!("ec2:{}", self.operation)), self.scope);
        // Of the two, AWS gives only this one a key without a resource.
        if self.operation == "DeleteTags" {
            question.with_tag_keys(
                &tags(self.input)
                    .into_iter()
                    .map(|(key, _)| key.to_owned())
                    .collect::<Vec<_>>(),
            )
        } else {
            question
        }
    }

    /// Tagging what a request makes needs `ec2:CreateTags` too; `ec2:CreateAction` names the request.
    fn tagging(&self, kind: Kind, tags: &Tags) -> Question {
        self.on("CreateTags", kind, "*")
            .with("ec2:CreateAction", self.operation)
            .with_request_tags(tags)
    }

    /// Handing a role to flow logs (IAM-51). A text that is no ARN is asked about as it is, and refused later.
    fn passed_role(&self) -> Option<Question> {
        let role = text(self.input, "DeliverLogsPermissionArn").filter(|_| self.operation == "CreateFlowLogs")?;
        Some(match role.parse::<Arn>() {
            Ok(arn) => crate::iam::pass_role_question(&arn, super::FLOW_LOGS_SERVICE),
            Err(_) => Question {
                resource: role.into(),
                ..Question::any("iam:PassRole")
            },
        })
    }
}

/// The texts that a path such as `SecurityGroupRules.SecurityGroupRuleId` leads to, through lists.
fn texts<'a>(document: &'a Document, path: &str) -> Vec<&'a str> {
    match (document, path.split_once('.')) {
        (Document::List(items), _) => items.iter().flat_map(|item| texts(item, path)).collect(),
        (Document::String(text), _) if path.is_empty() => vec![text],
        (Document::Map(members), Some((first, rest))) => {
            members.get(first).map(|value| texts(value, rest)).unwrap_or_default()
        }
        (Document::Map(members), None) => members.get(path).map(|value| texts(value, "")).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn text<'a>(document: &'a Document, member: &str) -> Option<&'a str> {
    texts(document, member).into_iter().next()
}

/// The scalars of an attribute: plain, in a list, or in a structure such as `{Value: true}`.
fn values(document: &Document) -> Vec<String> {
    match document {
        Document::String(text) => vec![text.clone()],
        Document::Bool(value) => vec![value.to_string()],
        Document::Integer(value) => vec![value.to_string()],
        Document::List(items) => items.iter().flat_map(values).collect(),
        Document::Map(members) => members.get("Value").map(values).unwrap_or_default(),
        Document::Float(_) | Document::Blob(_) | Document::Timestamp(_) => Vec::new(),
    }
}

/// The pairs in a member `Tags`; DeleteTags may leave the value out.
fn tags(document: &Document) -> Vec<(&str, Option<&str>)> {
    let Document::Map(members) = document else {
        return Vec::new();
    };
    let Some(Document::List(items)) = members.get("Tags") else {
        return Vec::new();
    };
    items
        .iter()
        .filter_map(|tag| Some((text(tag, "Key")?, text(tag, "Value"))))
        .collect()
}

/// The tags of `TagSpecifications` by kind. A kind that does not exist is refused by the handler.
fn tag_specifications(input: &Document) -> BTreeMap<Kind, Tags> {
    let mut by_kind: BTreeMap<Kind, Tags> = BTreeMap::new();
    if let Document::Map(members) = input
        && let Some(Document::List(items)) = members.get("TagSpecifications")
    {
        for item in items {
            if let Some(kind) = text(item, "ResourceType").and_then(Kind::named) {
                let pairs = tags(item).into_iter();
                let pairs = pairs.map(|(key, value)| (key.to_owned(), value.unwrap_or_default().to_owned()));
                by_kind.entry(kind).or_default().extend(pairs);
            }
        }
    }
    by_kind.retain(|_, tags| !tags.is_empty());
    by_kind
}

#[cfg(test)]
mod tests;
