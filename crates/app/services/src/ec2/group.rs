//! Security groups: CreateSecurityGroup, DeleteSecurityGroup, DescribeSecurityGroups (NET-15, NET-20).

use super::change::{add, in_vpc, put, remove};
use super::noun::{every, find, new_id, of_vpc};
use super::operation::operation;
use super::page::{Asked, place};
use super::permission::permissions;
use super::questions::Kind;
use super::{error, filter, page, shapes, tags};
use crate::Ctx;
use crate::dispatch::{Handler, handler};
use isolarium_model::Record;
use isolarium_model::ec2::group::{DEFAULT_NAME, Direction, Peer, Rule};
use isolarium_model::ec2::id::VpcId;
use isolarium_model::ec2::traffic::Match;
use isolarium_model::ec2::{EndpointKind, NetworkInterface, SecurityGroup, Vpc, VpcEndpoint};
use isolarium_store::state::{Batch, Stored};
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};

/// Most characters of a name and of a description (NET-20).
const MAX_NAME: usize = 255;

pub(super) fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::CreateSecurityGroupRequest>(),
        handler::<shapes::DeleteSecurityGroupRequest>(),
        handler::<shapes::DescribeSecurityGroupsRequest>(),
    ]
}

operation!("CreateSecurityGroup", CreateSecurityGroupRequest -> CreateSecurityGroupResult, create);
operation!("DeleteSecurityGroup", DeleteSecurityGroupRequest -> DeleteSecurityGroupResult, delete);
operation!("DescribeSecurityGroups", DescribeSecurityGroupsRequest -> DescribeSecurityGroupsResult, describe);

/// A name or description: 1 to 255 of the characters that EC2 allows (NET-20).
fn checked(parameter: &str, text: &str) -> Result<(), ApiError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    if text.is_empty() {
        return Err(error::missing(parameter));
    }
    if text.chars().count() > MAX_NAME || !text.chars().all(allowed) {
        return Err(error::bad_value(
            parameter,
            text,
            "Character sets beyond ASCII are not supported: up to 255 of a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*.",
        ));
    }
    Ok(())
}

/// The region's default VPC, where requests that name none go (NET-6).
pub(super) fn default_vpc(ctx: &Ctx<'_>) -> Result<Option<VpcId>, ApiError> {
    let all = every::<Vpc>(ctx)?;
    Ok(all
        .into_iter()
        .find(|found| found.record.is_default)
        .map(|found| found.record.id))
}

fn create(
    request: shapes::CreateSecurityGroupRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::CreateSecurityGroupResult, ApiError> {
    checked("GroupName", &request.group_name)?;
    checked("GroupDescription", &request.description)?;
    if request.group_name.to_ascii_lowercase().starts_with("sg-") {
        let why = "Group names may not be in the format sg-*";
        return Err(error::bad_value("GroupName", &request.group_name, why));
    }
    if request.group_name == DEFAULT_NAME {
        let text = format!("The security group '{DEFAULT_NAME}' is reserved");
        return Err(ApiError::client("InvalidGroup.Reserved", text));
    }
    let tags = tags::specified(request.tag_specifications.as_ref(), Kind::SecurityGroup.name())?;
    let vpc = match &request.vpc_id {
        Some(id) => find::<Vpc>(ctx, id)?.record.id,
        None => {
            default_vpc(ctx)?.ok_or_else(|| ApiError::client("VPCIdNotSpecified", "No default VPC for this user"))?
        }
    };
    let made = in_vpc(ctx, vpc, |vpc, batch| {
        let groups = of_vpc::<SecurityGroup>(ctx, vpc.id)?;
        if groups.iter().any(|found| found.record.name == request.group_name) {
            let text = format!(
                "The security group '{}' already exists for VPC '{}'",
                request.group_name, vpc.id
            );
            return Err(ApiError::client("InvalidGroup.Duplicate", text));
        }
        if groups.len() >= ctx.platform.settings().ec2.quotas.security_groups_per_vpc {
            let text = "The maximum number of security groups has been reached.";
            return Err(error::limit("SecurityGroupLimitExceeded", text));
        }
        let group = SecurityGroup {
            id: new_id(ctx)?,
            vpc: vpc.id,
            name: request.group_name.clone(),
            description: request.description.clone(),
            rules: BTreeMap::from([(new_id(ctx)?, Rule::everything_out())]),
            created: ctx.clock.now(),
            tags: tags.clone(),
        };
        Ok((add(ctx, batch, &group)?, group))
    })?;
    Ok(shapes::CreateSecurityGroupResult {
        group_id: Some(made.id.to_string()),
        tags: tags::shown(&made.tags),
        security_group_arn: Some(
            Kind::SecurityGroup
                .arn(&ctx.caller.scope, &made.id.to_string())
                .to_string(),
        ),
    })
}

/// The group that a request names: by its id, or by its name in the default VPC.
pub(super) fn named(ctx: &Ctx<'_>, id: Option<&str>, name: Option<&str>) -> Result<Stored<SecurityGroup>, ApiError> {
    match (id, name) {
        (Some(id), _) => find::<SecurityGroup>(ctx, id),
        (None, Some(name)) => in_default(ctx, name)?.ok_or_else(|| error::group_not_found(name)),
        (None, None) => Err(error::missing("groupName or groupId")),
    }
}

fn in_default(ctx: &Ctx<'_>, name: &str) -> Result<Option<Stored<SecurityGroup>>, ApiError> {
    let Some(vpc) = default_vpc(ctx)? else {
        let text = "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.";
        return Err(ApiError::client("VPCIdNotSpecified", text));
    };
    let groups = of_vpc::<SecurityGroup>(ctx, vpc)?;
    Ok(groups.into_iter().find(|found| found.record.name == name))
}

/// A group read again after its VPC, with every group of the VPC: what a change of its rules may name.
pub(super) struct Reread {
    pub(super) own: Stored<SecurityGroup>,
    pub(super) all: Vec<SecurityGroup>,
}

pub(super) fn reread(ctx: &Ctx<'_>, group: &SecurityGroup) -> Result<Reread, ApiError> {
    let found = of_vpc::<SecurityGroup>(ctx, group.vpc)?;
    let own = found.iter().find(|found| found.record.id == group.id).cloned();
    Ok(Reread {
        own: own.ok_or_else(|| error::group_not_found(&group.id.to_string()))?,
        all: found.into_iter().map(|found| found.record).collect(),
    })
}

/// Changes the rules of a group. The VPC's generation grows with them, so no group that a new rule names is gone when the
/// rule is written.
pub(super) fn change<T>(
    ctx: &Ctx<'_>,
    group: &SecurityGroup,
    change: impl Fn(&mut SecurityGroup, &[SecurityGroup]) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    in_vpc(ctx, group.vpc, |_, batch: Batch| {
        let mut found = reread(ctx, group)?;
        let made = change(&mut found.own.record, &found.all)?;
        Ok((put(batch, &found.own)?, made))
    })
}

fn delete(
    request: shapes::DeleteSecurityGroupRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DeleteSecurityGroupResult, ApiError> {
    let group = named(ctx, request.group_id.as_deref(), request.group_name.as_deref())?.record;
    if group.is_default() {
        let text = format!(
            "the specified group: \"{}\" name: \"{}\" cannot be deleted by a user",
            group.id, group.name
        );
        return Err(ApiError::client("CannotDelete", text));
    }
    in_vpc(ctx, group.vpc, |_, batch| {
        let found = reread(ctx, &group)?;
        let interfaces = of_vpc::<NetworkInterface>(ctx, group.vpc)?;
        let endpoints = of_vpc::<VpcEndpoint>(ctx, group.vpc)?;
        let carried = interfaces.iter().any(|found| found.record.groups.contains(&group.id))
            || endpoints.iter().any(|found| uses(&found.record, &group));
        let named = found
            .all
            .iter()
            .any(|other| other.id != group.id && other.names(group.id));
        if carried || named {
            return Err(error::dependency(format!(
                "resource {} has a dependent object",
                group.id
            )));
        }
        Ok((remove(batch, &found.own), ()))
    })?;
    Ok(shapes::DeleteSecurityGroupResult {
        r#return: Some(true),
        group_id: Some(group.id.to_string()),
    })
}

fn uses(endpoint: &VpcEndpoint, group: &SecurityGroup) -> bool {
    match &endpoint.kind {
        EndpointKind::Gateway { .. } => false,
        EndpointKind::Interface { groups, .. } => groups.contains(&group.id),
    }
}

/// Filters of DescribeSecurityGroups; those about rules also exist with `egress.` before them.
const FILTERS: &[&str] = &[
    "description",
    "egress.ip-permission.cidr",
    "egress.ip-permission.from-port",
    "egress.ip-permission.group-id",
    "egress.ip-permission.group-name",
    "egress.ip-permission.ipv6-cidr",
    "egress.ip-permission.prefix-list-id",
    "egress.ip-permission.protocol",
    "egress.ip-permission.to-port",
    "egress.ip-permission.user-id",
    "group-id",
    "group-name",
    "ip-permission.cidr",
    "ip-permission.from-port",
    "ip-permission.group-id",
    "ip-permission.group-name",
    "ip-permission.ipv6-cidr",
    "ip-permission.prefix-list-id",
    "ip-permission.protocol",
    "ip-permission.to-port",
    "ip-permission.user-id",
    "owner-id",
    "vpc-id",
];

fn describe(
    request: shapes::DescribeSecurityGroupsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeSecurityGroupsResult, ApiError> {
    let mut ids = request.group_ids.clone().unwrap_or_default();
    for name in request.group_names.iter().flatten() {
        let found = in_default(ctx, name)?.ok_or_else(|| error::group_not_found(name))?;
        ids.push(found.record.id.to_string());
    }
    let account = ctx.caller.scope.account.to_string();
    let asked = Asked {
        ids: Some(ids),
        filters: request.filters,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    // Rules name groups by id; a filter may ask for the name.
    let names: BTreeMap<_, _> = every::<SecurityGroup>(ctx)?
        .into_iter()
        .map(|found| (found.record.id, found.record.name))
        .collect();
    let (found, next_token) = page::records::<SecurityGroup>(ctx, asked, FILTERS, |group, name| match name {
        "description" => vec![group.description.clone()],
        "group-id" => vec![group.id.to_string()],
        "group-name" => vec![group.name.clone()],
        "owner-id" => vec![account.clone()],
        "vpc-id" => vec![group.vpc.to_string()],
        about_rules => {
            let (direction, about) = match about_rules.strip_prefix("egress.") {
                Some(rest) => (Direction::Egress, rest),
                None => (Direction::Ingress, about_rules),
            };
            let rules = group.rules.values().filter(|rule| rule.direction == direction);
            let values = rules
                .flat_map(|rule| rule_values(rule, about, &account, |id| names.get(&id).cloned().unwrap_or_default()));
            values.collect()
        }
    })?;
    Ok(shapes::DescribeSecurityGroupsResult {
        next_token,
        security_groups: Some(found.iter().map(|group| view(ctx, group)).collect()),
    })
}

/// What a rule has for a filter such as `ip-permission.cidr`.
fn rule_values(
    rule: &Rule,
    about: &str,
    account: &str,
    name: impl Fn(isolarium_model::ec2::id::GroupId) -> String,
) -> Vec<String> {
    let ports = match &rule.traffic {
        Match::Tcp { ports } | Match::Udp { ports } => {
            let (from, to): (u16, u16) = (*ports).into();
            Some((i64::from(from), i64::from(to)))
        }
        Match::Icmp { kind } => {
            Some(kind.map_or((-1, -1), |(kind, code)| (i64::from(kind), code.map_or(-1, i64::from))))
        }
        Match::All => None,
    };
    let one = match (about, &rule.peer) {
        ("ip-permission.cidr", Peer::Block(block)) => Some(block.to_string()),
        ("ip-permission.group-id", Peer::Group(group)) => Some(group.to_string()),
        ("ip-permission.group-name", Peer::Group(group)) => Some(name(*group)),
        ("ip-permission.user-id", Peer::Group(_)) => Some(account.to_owned()),
        ("ip-permission.prefix-list-id", Peer::PrefixList(list)) => Some(list.to_string()),
        ("ip-permission.from-port", _) => ports.map(|(from, _)| from.to_string()),
        ("ip-permission.to-port", _) => ports.map(|(_, to)| to.to_string()),
        ("ip-permission.protocol", _) => Some(super::permission::protocol(&rule.traffic).to_owned()),
        _ => None,
    };
    one.into_iter().collect()
}

fn view(ctx: &Ctx<'_>, group: &SecurityGroup) -> shapes::SecurityGroup {
    let scope = &ctx.caller.scope;
    let rules = |direction| group.rules.values().filter(move |rule| rule.direction == direction);
    shapes::SecurityGroup {
        group_id: Some(group.id.to_string()),
        ip_permissions_egress: Some(permissions(scope, rules(Direction::Egress))),
        tags: tags::shown(&group.tags),
        vpc_id: Some(group.vpc.to_string()),
        security_group_arn: Some(Kind::SecurityGroup.arn(scope, &group.id.to_string()).to_string()),
        owner_id: Some(scope.account.to_string()),
        group_name: Some(group.name.clone()),
        description: Some(group.description.clone()),
        ip_permissions: Some(permissions(scope, rules(Direction::Ingress))),
    }
}

/// Every rule of the caller's groups that is asked for, a page of them: `DescribeSecurityGroupRules`.
pub(super) fn rules(
    request: shapes::DescribeSecurityGroupRulesRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeSecurityGroupRulesResult, ApiError> {
    let filters = filter::Filters::read(request.filters.as_ref(), &["group-id", "security-group-rule-id"])?;
    let groups = every::<SecurityGroup>(ctx)?;
    let wanted: Option<BTreeSet<&String>> = request.security_group_rule_ids.as_ref().map(|ids| ids.iter().collect());
    let wanted = wanted.filter(|ids| !ids.is_empty());
    let all = || {
        let all = groups.iter().map(|found| &found.record);
        all.flat_map(|group| group.rules.iter().map(move |(id, rule)| (group, *id, rule)))
    };
    for id in wanted.iter().flatten() {
        if !all().any(|(_, known, _)| known.to_string() == **id) {
            return Err(super::permission::rule_not_found(id));
        }
    }
    let mut found = Vec::new();
    for (group, id, rule) in all() {
        let asked = wanted.as_ref().is_none_or(|ids| ids.contains(&id.to_string()));
        let passes = filters.pass(&rule.tags, |name| match name {
            "group-id" => vec![group.id.to_string()],
            _ => vec![id.to_string()],
        });
        if asked && passes {
            let at = place(group.facets().created, &format!("{}/{id}", group.id));
            found.push((at, super::permission::rule_view(&ctx.caller.scope, group, id, rule)));
        }
    }
    let (rules, next_token) = page::page(found, request.next_token.as_deref(), request.max_results)?;
    Ok(shapes::DescribeSecurityGroupRulesResult {
        security_group_rules: Some(rules),
        next_token,
    })
}
