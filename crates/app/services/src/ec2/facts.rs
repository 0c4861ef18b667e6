//! What records say of the resource that a question is about, as condition keys (IAM-16).

use super::questions::Kind;
use isolarium_model::ec2::route_table::Associated;
use isolarium_model::ec2::{
    self, DhcpOptions, ElasticIp, FlowLog, InterfacePermission, InternetGateway, NatGateway, NetworkAcl,
    NetworkInterface, Resource, RouteTable, SecurityGroup, Subnet, Tags, Vpc, VpcEndpoint, vpc::Tenancy,
};
use isolarium_model::{Arn, Scope};
use isolarium_policy::Question;
use isolarium_store::state::Query;
use isolarium_store::{StateStore, StoreError};
use isolarium_wire::ApiError;

/// Keys that describe a resource to an action: AWS gives some actions fewer than the kind has.
fn keys(action: &str, kind: Kind) -> &'static [&'static str] {
    match (action, kind) {
        ("DeleteTags", _) => &[],
        ("CreateVpcEndpoint", Kind::RouteTable) => &["ec2:RouteTableID"],
        ("CreateVpcEndpoint", Kind::SecurityGroup) => &["ec2:SecurityGroupID"],
        ("CreateVpcEndpoint", Kind::Subnet) => &["ec2:SubnetID"],
        ("CreateVpcEndpoint", Kind::Vpc) => &["ec2:VpcID"],
        ("CreateFlowLogs", Kind::Subnet) => &["ec2:AvailabilityZone", "ec2:SubnetID", "ec2:Vpc"],
        ("CreateFlowLogs", Kind::NatGateway) => &["ec2:Vpc"],
        ("DeleteVpcEndpoints", Kind::VpcEndpoint) => &["ec2:VpceServiceName", "ec2:VpceServiceRegion"],
        ("ModifyVpcEndpoint", Kind::VpcEndpoint) => &["ec2:VpceServiceRegion"],
        (_, Kind::DhcpOptions) => &["ec2:DhcpOptionsID"],
        (_, Kind::ElasticIp) => &["ec2:AllocationId", "ec2:Domain", "ec2:PublicIpAddress"],
        (_, Kind::Instance) => &["ec2:InstanceID"],
        (_, Kind::InternetGateway) => &["ec2:InternetGatewayID"],
        (_, Kind::NetworkAcl) => &["ec2:NetworkAclID", "ec2:Vpc"],
        (_, Kind::NetworkInterface) => &[
            "ec2:AvailabilityZone",
            "ec2:NetworkInterfaceID",
            "ec2:Subnet",
            "ec2:Vpc",
        ],
        (_, Kind::RouteTable) => &["ec2:RouteTableID", "ec2:Vpc"],
        (_, Kind::SecurityGroup) => &["ec2:SecurityGroupID", "ec2:Vpc"],
        (_, Kind::Subnet) => &[
            "ec2:AvailabilityZone",
            "ec2:AvailabilityZoneId",
            "ec2:SubnetID",
            "ec2:Vpc",
        ],
        (_, Kind::Vpc) => &["ec2:Tenancy", "ec2:VpcID"],
        (_, Kind::FlowLog | Kind::NatGateway | Kind::PrefixList | Kind::SecurityGroupRule | Kind::VpcEndpoint) => &[],
    }
}

/// What a record says: condition keys with their values, and tags.
#[derive(Default)]
struct Facts {
    keys: Vec<(&'static str, String)>,
    tags: Tags,
}

/// Adds keys and tags of the resource to a question about EC2. What the request makes has none yet, and neither has what
/// does not exist, but for its id.
///
/// # Errors
/// When the record cannot be read: an unread tag must not let a caller past a Deny.
pub(crate) fn added(store: &dyn StateStore, question: Question, arn: &Arn) -> Result<Question, ApiError> {
    let about = arn.resource().split_once('/');
    let kind = about.and_then(|(kind, id)| Some((Kind::named(kind)?, id)));
    let scope = arn.region().zip(arn.account());
    let (Some((kind, id)), Some((region, account))) = (kind, scope) else {
        return Ok(question);
    };
    if id == "*" {
        return Ok(question);
    }
    let facts = facts(store, &Scope { account, region }, kind, id).map_err(ApiError::internal)?;
    let wanted = keys(question.action.trim_start_matches("ec2:"), kind);
    let mut question = question;
    for (key, value) in facts.keys {
        if wanted.contains(&key) {
            question = question.with(key, value);
        }
    }
    for (key, value) in &facts.tags {
        question = question
            .with(&format!("aws:ResourceTag/{key}"), value.clone())
            .with(&format!("ec2:ResourceTag/{key}"), value.clone());
    }
    Ok(question)
}

fn record<R: Resource>(store: &dyn StateStore, scope: &Scope, id: &str) -> Result<Option<R>, StoreError> {
    Ok(store.get::<R>(&ec2::key(scope, id))?.map(|found| found.record))
}

/// All records of a kind in an account and region.
fn every<R: Resource>(store: &dyn StateStore, scope: &Scope) -> Result<Vec<R>, StoreError> {
    let page = store.query::<R>(&Query::all(scope))?;
    Ok(page.rows.into_iter().map(|found| found.record).collect())
}

fn facts(store: &dyn StateStore, scope: &Scope, kind: Kind, id: &str) -> Result<Facts, StoreError> {
    let mut facts = Facts::default();
    let mut set = |key: &'static str, value: String| facts.keys.push((key, value));
    let vpc_arn = |id: ec2::id::VpcId| ec2::arn(scope, Vpc::TYPE, &id.to_string()).to_string();
    let own = id.to_owned();
    let tags = match kind {
        Kind::DhcpOptions => {
            set("ec2:DhcpOptionsID", own);
            record::<DhcpOptions>(store, scope, id)?.map(|found| found.tags)
        }
        Kind::ElasticIp => {
            set("ec2:AllocationId", own);
            record::<ElasticIp>(store, scope, id)?.map(|found| {
                set("ec2:Domain", "vpc".into());
                set("ec2:PublicIpAddress", found.address.to_string());
                found.tags
            })
        }
        Kind::FlowLog => record::<FlowLog>(store, scope, id)?.map(|found| found.tags),
        Kind::Instance => {
            set("ec2:InstanceID", own);
            None
        }
        Kind::InternetGateway => {
            set("ec2:InternetGatewayID", own);
            record::<InternetGateway>(store, scope, id)?.map(|found| found.tags)
        }
        Kind::NatGateway => record::<NatGateway>(store, scope, id)?.map(|found| {
            set("ec2:Vpc", vpc_arn(found.vpc));
            found.tags
        }),
        Kind::NetworkAcl => {
            set("ec2:NetworkAclID", own);
            record::<NetworkAcl>(store, scope, id)?.map(|found| {
                set("ec2:Vpc", vpc_arn(found.vpc));
                found.tags
            })
        }
        Kind::NetworkInterface => {
            set("ec2:NetworkInterfaceID", own);
            record::<NetworkInterface>(store, scope, id)?.map(|found| {
                set("ec2:Vpc", vpc_arn(found.vpc));
                let subnet = ec2::arn(scope, Subnet::TYPE, &found.subnet.to_string());
                set("ec2:Subnet", subnet.to_string());
                set("ec2:AvailabilityZone", found.zone.name);
                found.tags
            })
        }
        // AWS's own: nobody tags them.
        Kind::PrefixList => None,
        Kind::RouteTable => {
            set("ec2:RouteTableID", own);
            record::<RouteTable>(store, scope, id)?.map(|found| {
                set("ec2:Vpc", vpc_arn(found.vpc));
                found.tags
            })
        }
        Kind::SecurityGroup => {
            set("ec2:SecurityGroupID", own);
            record::<SecurityGroup>(store, scope, id)?.map(|found| {
                set("ec2:Vpc", vpc_arn(found.vpc));
                found.tags
            })
        }
        Kind::SecurityGroupRule => {
            let rule = id.parse().ok();
            let groups = rule.map(|_| every::<SecurityGroup>(store, scope)).transpose()?;
            let mut groups = groups.into_iter().flatten();
            groups
                .find_map(|mut group| group.rules.remove(&rule?))
                .map(|rule| rule.tags)
        }
        Kind::Subnet => {
            set("ec2:SubnetID", own);
            record::<Subnet>(store, scope, id)?.map(|found| {
                set("ec2:Vpc", vpc_arn(found.vpc));
                set("ec2:AvailabilityZone", found.zone.name);
                set("ec2:AvailabilityZoneId", found.zone.id);
                found.tags
            })
        }
        Kind::Vpc => {
            set("ec2:VpcID", own);
            record::<Vpc>(store, scope, id)?.map(|found| {
                let tenancy = match found.tenancy {
                    Tenancy::Default => "default",
                    Tenancy::Dedicated => "dedicated",
                };
                set("ec2:Tenancy", tenancy.into());
                found.tags
            })
        }
        Kind::VpcEndpoint => record::<VpcEndpoint>(store, scope, id)?.map(|found| {
            set("ec2:VpceServiceName", found.service_name);
            set("ec2:VpceServiceRegion", scope.region.to_string());
            found.tags
        }),
    };
    facts.tags = tags.unwrap_or_default();
    Ok(facts)
}

/// What something that is no id leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// This resource.
    Is(String),
    /// Something known, and no resource of that kind belongs to it.
    Nothing,
    /// Nothing known: the question is about any resource of the kind, and the handler refuses what it does not find.
    Unknown,
}

/// The resource that an association, an attachment, an address or a name leads to.
///
/// # Errors
/// When the records cannot be read.
pub(super) fn leads_to(store: &dyn StateStore, scope: &Scope, kind: Kind, text: &str) -> Result<Found, StoreError> {
    let is = |id: Option<String>| id.map_or(Found::Unknown, Found::Is);
    Ok(match kind {
        Kind::ElasticIp => is(elastic_ip(store, scope, text)?.map(|found| found.id.to_string())),
        Kind::NetworkInterface if text.starts_with("eni-attach-") => {
            let interfaces = every::<NetworkInterface>(store, scope)?;
            let held = |one: &&NetworkInterface| one.attachment.as_ref().is_some_and(|at| at.id.to_string() == text);
            is(interfaces.iter().find(held).map(|one| one.id.to_string()))
        }
        Kind::NetworkInterface if text.starts_with("eni-perm-") => {
            let permission = record::<InterfacePermission>(store, scope, text)?;
            is(permission.map(|one| one.interface.to_string()))
        }
        Kind::NetworkInterface => match elastic_ip(store, scope, text)? {
            Some(found) => found
                .association
                .map_or(Found::Nothing, |with| Found::Is(with.interface.to_string())),
            None => Found::Unknown,
        },
        Kind::RouteTable | Kind::Subnet if text.starts_with("rtbassoc-") => {
            let tables = every::<RouteTable>(store, scope)?;
            let mut all = tables
                .iter()
                .flat_map(|table| table.associations.iter().map(move |(id, with)| (table.id, id, *with)));
            match (all.find(|(_, id, _)| id.to_string() == text), kind) {
                (None, _) => Found::Unknown,
                (Some((table, ..)), Kind::RouteTable) => Found::Is(table.to_string()),
                (Some((.., Associated::Subnet(subnet))), _) => Found::Is(subnet.to_string()),
                (Some((.., Associated::Main)), _) => Found::Nothing,
            }
        }
        Kind::Subnet => {
            let acls = every::<NetworkAcl>(store, scope)?;
            let mut all = acls.iter().flat_map(|acl| &acl.associations);
            is(all
                .find(|(id, _)| id.to_string() == text)
                .map(|(_, subnet)| subnet.to_string()))
        }
        Kind::Vpc => {
            let vpcs = every::<Vpc>(store, scope)?;
            let has = |vpc: &&Vpc| vpc.blocks.iter().any(|block| block.id.to_string() == text);
            is(vpcs.iter().find(has).map(|vpc| vpc.id.to_string()))
        }
        Kind::SecurityGroup => {
            let vpc = every::<Vpc>(store, scope)?.into_iter().find(|vpc| vpc.is_default);
            let groups = every::<SecurityGroup>(store, scope)?;
            let named =
                |group: &&SecurityGroup| vpc.as_ref().is_some_and(|vpc| vpc.id == group.vpc) && group.name == text;
            is(groups.iter().find(named).map(|group| group.id.to_string()))
        }
        _ => Found::Unknown,
    })
}

/// An Elastic IP by its address or by its association's id.
fn elastic_ip(store: &dyn StateStore, scope: &Scope, text: &str) -> Result<Option<ElasticIp>, StoreError> {
    let named = |one: &ElasticIp| {
        one.address.to_string() == text || one.association.is_some_and(|with| with.id.to_string() == text)
    };
    Ok(every::<ElasticIp>(store, scope)?.into_iter().find(named))
}
