//! Rules of security groups: Authorize, Revoke, Modify, Describe and their descriptions (NET-15..18, NET-20).

use super::group::{change, default_vpc, named, rules};
use super::noun::new_id;
use super::operation::operation;
use super::permission::{Known, Wanted, checked_description, revoked_view, rule_view};
use super::questions::Kind;
use super::{error, shapes, tags};
use crate::Ctx;
use crate::dispatch::{Handler, handler};
use isolarium_model::ec2::group::{Direction, Rule};
use isolarium_model::ec2::id::GroupRuleId;
use isolarium_model::ec2::{SecurityGroup, Tags, prefix_list};
use isolarium_wire::ApiError;

pub(super) fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::AuthorizeSecurityGroupEgressRequest>(),
        handler::<shapes::AuthorizeSecurityGroupIngressRequest>(),
        handler::<shapes::DescribeSecurityGroupRulesRequest>(),
        handler::<shapes::ModifySecurityGroupRulesRequest>(),
        handler::<shapes::RevokeSecurityGroupEgressRequest>(),
        handler::<shapes::RevokeSecurityGroupIngressRequest>(),
        handler::<shapes::UpdateSecurityGroupRuleDescriptionsEgressRequest>(),
        handler::<shapes::UpdateSecurityGroupRuleDescriptionsIngressRequest>(),
    ]
}

operation!("AuthorizeSecurityGroupEgress",
    AuthorizeSecurityGroupEgressRequest -> AuthorizeSecurityGroupEgressResult, authorize_egress);
operation!("AuthorizeSecurityGroupIngress",
    AuthorizeSecurityGroupIngressRequest -> AuthorizeSecurityGroupIngressResult, authorize_ingress);
operation!("DescribeSecurityGroupRules",
    DescribeSecurityGroupRulesRequest -> DescribeSecurityGroupRulesResult, rules);
operation!("ModifySecurityGroupRules", ModifySecurityGroupRulesRequest -> ModifySecurityGroupRulesResult, modify);
operation!("RevokeSecurityGroupEgress",
    RevokeSecurityGroupEgressRequest -> RevokeSecurityGroupEgressResult, revoke_egress);
operation!("RevokeSecurityGroupIngress",
    RevokeSecurityGroupIngressRequest -> RevokeSecurityGroupIngressResult, revoke_ingress);
operation!("UpdateSecurityGroupRuleDescriptionsEgress",
    UpdateSecurityGroupRuleDescriptionsEgressRequest -> UpdateSecurityGroupRuleDescriptionsEgressResult,
    describe_egress);
operation!("UpdateSecurityGroupRuleDescriptionsIngress",
    UpdateSecurityGroupRuleDescriptionsIngressRequest -> UpdateSecurityGroupRuleDescriptionsIngressResult,
    describe_ingress);

/// The members that could describe one rule before there were permissions.
struct Plain {
    protocol: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    cidr: Option<String>,
    group_name: Option<String>,
    group_owner: Option<String>,
}

impl Plain {
    /// The permissions of a request, in whichever of the two forms it has them.
    ///
    /// # Errors
    /// `InvalidParameterCombination` when it has both.
    fn permissions(
        self,
        given: Option<Vec<shapes::IpPermission>>,
    ) -> Result<Option<Vec<shapes::IpPermission>>, ApiError> {
        let given = given.filter(|all| !all.is_empty());
        let nothing = [&self.protocol, &self.cidr, &self.group_name, &self.group_owner]
            .iter()
            .all(|member| member.is_none())
            && self.from.is_none()
            && self.to.is_none();
        if nothing {
            return Ok(given);
        }
        if given.is_some() {
            return Err(error::combination(
                "The parameter 'ipPermissions' may not be used in combination with 'ipProtocol', 'cidrIp' or 'sourceSecurityGroupName'",
            ));
        }
        // A source group without a protocol means all of tcp, udp and icmp: EC2's oldest form, which -1 covers.
        let protocol = self
            .protocol
            .or_else(|| self.group_name.as_ref().map(|_| "-1".to_owned()));
        Ok(Some(vec![shapes::IpPermission {
            ip_protocol: protocol,
            from_port: self.from,
            to_port: self.to,
            ip_ranges: self.cidr.map(|cidr| {
                vec![shapes::IpRange {
                    cidr_ip: Some(cidr),
                    description: None,
                }]
            }),
            user_id_group_pairs: self.group_name.map(|name| {
                vec![shapes::UserIdGroupPair {
                    group_name: Some(name),
                    user_id: self.group_owner,
                    ..Default::default()
                }]
            }),
            ..Default::default()
        }]))
    }
}

macro_rules! plain {
    ($request:ident) => {
        Plain {
            protocol: $request.ip_protocol,
            from: $request.from_port,
            to: $request.to_port,
            cidr: $request.cidr_ip,
            group_name: $request.source_security_group_name,
            group_owner: $request.source_security_group_owner_id,
        }
    };
}

/// What rules of a group may name.
fn known<'a>(ctx: &'a Ctx<'_>, groups: &'a [SecurityGroup], by_name: bool) -> Known<'a> {
    Known {
        scope: &ctx.caller.scope,
        groups,
        prefix_list: prefix_list::s3(&ctx.caller.scope.region),
        by_name,
    }
}

fn duplicate() -> ApiError {
    ApiError::client("InvalidPermission.Duplicate", "The specified rule already exists")
}

fn not_found() -> ApiError {
    let text = "The specified rule does not exist in this security group";
    ApiError::client("InvalidPermission.NotFound", text)
}

/// The rule of a group that a request describes.
fn matching(group: &SecurityGroup, direction: Direction, wanted: &Wanted) -> Option<GroupRuleId> {
    let mut rules = group.rules.iter();
    rules
        .find(|(_, rule)| rule.direction == direction && wanted.is(rule))
        .map(|(id, _)| *id)
}

fn rule_of<'g>(
    group: &'g mut SecurityGroup,
    id: &str,
    direction: Option<Direction>,
) -> Result<(GroupRuleId, &'g mut Rule), ApiError> {
    let unknown = || super::permission::rule_not_found(id);
    let id: GroupRuleId = id.parse().map_err(|_| unknown())?;
    let rule = group.rules.get_mut(&id);
    let rule = rule.filter(|rule| direction.is_none_or(|direction| rule.direction == direction));
    Ok((id, rule.ok_or_else(unknown)?))
}

fn in_default(ctx: &Ctx<'_>, group: &SecurityGroup) -> Result<bool, ApiError> {
    Ok(default_vpc(ctx)? == Some(group.vpc))
}

fn authorize(
    ctx: &Ctx<'_>,
    group: &SecurityGroup,
    direction: Direction,
    permissions: Option<Vec<shapes::IpPermission>>,
    tags: &Tags,
) -> Result<Vec<shapes::SecurityGroupRule>, ApiError> {
    let permissions = permissions.ok_or_else(|| error::missing("ipPermissions"))?;
    let by_name = in_default(ctx, group)?;
    change(ctx, group, |group, groups| {
        let wanted = known(ctx, groups, by_name).wanted(&permissions)?;
        if wanted.iter().any(|one| matching(group, direction, one).is_some()) {
            return Err(duplicate());
        }
        let present = group.rules.values().filter(|rule| rule.direction == direction).count();
        if present + wanted.len() > ctx.platform.settings().ec2.quotas.rules_per_direction {
            let text = "The maximum number of rules per security group has been reached.";
            return Err(error::limit("RulesPerSecurityGroupLimitExceeded", text));
        }
        let mut made = Vec::new();
        for one in wanted {
            let id = new_id(ctx)?;
            let rule = Rule {
                tags: tags.clone(),
                ..one.rule(direction)
            };
            made.push(rule_view(&ctx.caller.scope, group, id, &rule));
            group.rules.insert(id, rule);
        }
        Ok(made)
    })
}

fn authorize_egress(
    request: shapes::AuthorizeSecurityGroupEgressRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::AuthorizeSecurityGroupEgressResult, ApiError> {
    let tags = tags::specified(request.tag_specifications.as_ref(), Kind::SecurityGroupRule.name())?;
    let group = named(ctx, Some(&request.group_id), None)?.record;
    let permissions = plain!(request).permissions(request.ip_permissions)?;
    let made = authorize(ctx, &group, Direction::Egress, permissions, &tags)?;
    Ok(shapes::AuthorizeSecurityGroupEgressResult {
        r#return: Some(true),
        security_group_rules: Some(made),
    })
}

fn authorize_ingress(
    request: shapes::AuthorizeSecurityGroupIngressRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::AuthorizeSecurityGroupIngressResult, ApiError> {
    let tags = tags::specified(request.tag_specifications.as_ref(), Kind::SecurityGroupRule.name())?;
    let group = named(ctx, request.group_id.as_deref(), request.group_name.as_deref())?.record;
    let permissions = plain!(request).permissions(request.ip_permissions)?;
    let made = authorize(ctx, &group, Direction::Ingress, permissions, &tags)?;
    Ok(shapes::AuthorizeSecurityGroupIngressResult {
        r#return: Some(true),
        security_group_rules: Some(made),
    })
}

/// Takes rules out: all that are named, or none (NET-16).
fn revoke(
    ctx: &Ctx<'_>,
    group: &SecurityGroup,
    direction: Direction,
    permissions: Option<&[shapes::IpPermission]>,
    ids: Option<&[String]>,
) -> Result<Vec<shapes::RevokedSecurityGroupRule>, ApiError> {
    let ids = ids.filter(|ids| !ids.is_empty());
    match (permissions, ids) {
        (None, None) => return Err(error::missing("ipPermissions or securityGroupRuleIds")),
        (Some(_), Some(_)) => {
            return Err(error::combination(
                "The parameter 'securityGroupRuleIds' may not be used in combination with 'ipPermissions'",
            ));
        }
        _ => {}
    }
    // No rule has IPv6 ranges, so one that does is not there. Terraform revokes EC2's default one and expects this answer.
    let ipv6 = |one: &shapes::IpPermission| one.ipv6_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty());
    if permissions.into_iter().flatten().any(ipv6) {
        return Err(not_found());
    }
    let by_name = in_default(ctx, group)?;
    change(ctx, group, |group, groups| {
        let mut gone = Vec::new();
        for id in ids.into_iter().flatten() {
            gone.push(rule_of(group, id, Some(direction))?.0);
        }
        for one in known(ctx, groups, by_name).wanted(permissions.unwrap_or_default())? {
            gone.push(matching(group, direction, &one).ok_or_else(not_found)?);
        }
        let removed = gone.into_iter().filter_map(|id| Some((id, group.rules.remove(&id)?)));
        let removed: Vec<_> = removed.collect();
        Ok(removed
            .iter()
            .map(|(id, rule)| revoked_view(group, *id, rule))
            .collect())
    })
}

fn revoke_egress(
    request: shapes::RevokeSecurityGroupEgressRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::RevokeSecurityGroupEgressResult, ApiError> {
    let group = named(ctx, Some(&request.group_id), None)?.record;
    let permissions = plain!(request).permissions(request.ip_permissions)?;
    let ids = request.security_group_rule_ids.as_deref();
    let gone = revoke(ctx, &group, Direction::Egress, permissions.as_deref(), ids)?;
    Ok(shapes::RevokeSecurityGroupEgressResult {
        r#return: Some(true),
        unknown_ip_permissions: None,
        revoked_security_group_rules: Some(gone),
    })
}

fn revoke_ingress(
    request: shapes::RevokeSecurityGroupIngressRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::RevokeSecurityGroupIngressResult, ApiError> {
    let group = named(ctx, request.group_id.as_deref(), request.group_name.as_deref())?.record;
    let permissions = plain!(request).permissions(request.ip_permissions)?;
    let ids = request.security_group_rule_ids.as_deref();
    let gone = revoke(ctx, &group, Direction::Ingress, permissions.as_deref(), ids)?;
    Ok(shapes::RevokeSecurityGroupIngressResult {
        r#return: Some(true),
        unknown_ip_permissions: None,
        revoked_security_group_rules: Some(gone),
    })
}

fn modify(
    request: shapes::ModifySecurityGroupRulesRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::ModifySecurityGroupRulesResult, ApiError> {
    let group = named(ctx, Some(&request.group_id), None)?.record;
    change(ctx, &group, |group, groups| {
        for update in &request.security_group_rules {
            let given = update.security_group_rule.as_ref();
            let given = given.ok_or_else(|| error::missing("SecurityGroupRule"))?;
            let wanted = known(ctx, groups, false).replacement(given)?;
            let (id, direction) = {
                let (id, rule) = rule_of(group, &update.security_group_rule_id, None)?;
                (id, rule.direction)
            };
            if matching(group, direction, &wanted).is_some_and(|other| other != id) {
                return Err(duplicate());
            }
            if let Some(rule) = group.rules.get_mut(&id) {
                let tags = std::mem::take(&mut rule.tags);
                *rule = Rule {
                    tags,
                    ..wanted.rule(direction)
                };
            }
        }
        Ok(())
    })?;
    Ok(shapes::ModifySecurityGroupRulesResult { r#return: Some(true) })
}

/// Sets descriptions of rules, named by their content or by their ids.
fn redescribe(
    ctx: &Ctx<'_>,
    group: &SecurityGroup,
    direction: Direction,
    permissions: Option<&[shapes::IpPermission]>,
    descriptions: Option<&[shapes::SecurityGroupRuleDescription]>,
) -> Result<(), ApiError> {
    let permissions = permissions.filter(|all| !all.is_empty());
    let descriptions = descriptions.filter(|all| !all.is_empty());
    if permissions.is_none() && descriptions.is_none() {
        return Err(error::missing("ipPermissions or securityGroupRuleDescriptions"));
    }
    let by_name = in_default(ctx, group)?;
    change(ctx, group, |group, groups| {
        for one in known(ctx, groups, by_name).wanted(permissions.unwrap_or_default())? {
            let id = matching(group, direction, &one).ok_or_else(not_found)?;
            if let Some(rule) = group.rules.get_mut(&id) {
                rule.description = one.description;
            }
        }
        for one in descriptions.into_iter().flatten() {
            let id = one.security_group_rule_id.as_deref();
            let id = id.ok_or_else(|| error::missing("SecurityGroupRuleId"))?;
            let description = checked_description(one.description.as_ref())?;
            rule_of(group, id, Some(direction))?.1.description = description;
        }
        Ok(())
    })
}

fn describe_egress(
    request: shapes::UpdateSecurityGroupRuleDescriptionsEgressRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::UpdateSecurityGroupRuleDescriptionsEgressResult, ApiError> {
    let group = named(ctx, request.group_id.as_deref(), request.group_name.as_deref())?.record;
    let (permissions, descriptions) = (&request.ip_permissions, &request.security_group_rule_descriptions);
    redescribe(
        ctx,
        &group,
        Direction::Egress,
        permissions.as_deref(),
        descriptions.as_deref(),
    )?;
    Ok(shapes::UpdateSecurityGroupRuleDescriptionsEgressResult { r#return: Some(true) })
}

fn describe_ingress(
    request: shapes::UpdateSecurityGroupRuleDescriptionsIngressRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::UpdateSecurityGroupRuleDescriptionsIngressResult, ApiError> {
    let group = named(ctx, request.group_id.as_deref(), request.group_name.as_deref())?.record;
    let (permissions, descriptions) = (&request.ip_permissions, &request.security_group_rule_descriptions);
    redescribe(
        ctx,
        &group,
        Direction::Ingress,
        permissions.as_deref(),
        descriptions.as_deref(),
    )?;
    Ok(shapes::UpdateSecurityGroupRuleDescriptionsIngressResult { r#return: Some(true) })
}

#[cfg(test)]
mod tests;
