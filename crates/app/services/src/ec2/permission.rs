//! Rules of security groups between their two forms: EC2's permissions, and ours (NET-15, NET-17, NET-18).

use super::error::{invalid, missing};
use super::shapes;
use ipnet::Ipv4Net;
use isolarium_model::Scope;
use isolarium_model::ec2::group::{Direction, Peer, Rule, SecurityGroup};
use isolarium_model::ec2::id::{GroupId, GroupRuleId, PrefixListId};
use isolarium_model::ec2::traffic::{Match, RangeInclusive16};
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};

/// Most characters of a rule's description.
const MAX_DESCRIPTION: usize = 255;

/// Whom rules may name: the groups of the VPC, and the prefix list of S3.
pub(super) struct Known<'a> {
    pub(super) scope: &'a Scope,
    pub(super) groups: &'a [SecurityGroup],
    pub(super) prefix_list: PrefixListId,
    /// Groups have unique names everywhere, but only those of the default VPC are known by them.
    pub(super) by_name: bool,
}

/// A rule as a request describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) traffic: Match,
    pub(super) peer: Peer,
    pub(super) description: Option<String>,
}

impl Wanted {
    /// Whether a rule is this one: a description is not part of a rule's identity.
    pub(super) fn is(&self, rule: &Rule) -> bool {
        self.traffic == rule.traffic && self.peer == rule.peer
    }

    pub(super) fn rule(self, direction: Direction) -> Rule {
        Rule {
            direction,
            traffic: self.traffic,
            peer: self.peer,
            description: self.description,
            tags: BTreeMap::new(),
        }
    }
}

/// An unknown rule.
pub(super) fn rule_not_found(id: &str) -> ApiError {
    let text = format!("The security group rule ID '{id}' does not exist");
    ApiError::client("InvalidSecurityGroupRuleId.NotFound", text)
}

/// A protocol as requests write it: a name or a number. Others than these four are not filtered by the engine.
pub(super) enum Protocol {
    All,
    Tcp,
    Udp,
    Icmp,
}

impl Protocol {
    /// Reads `tcp`, `6`, `-1` and the like.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a protocol that is unknown or not supported.
    pub(super) fn read(text: &str) -> Result<Self, ApiError> {
        match text.to_ascii_lowercase().as_str() {
            "-1" | "all" => Ok(Self::All),
            "tcp" | "6" => Ok(Self::Tcp),
            "udp" | "17" => Ok(Self::Udp),
            "icmp" | "1" => Ok(Self::Icmp),
            "icmpv6" | "58" => Err(no_ipv6()),
            other if other.parse::<u8>().is_ok() => Err(invalid(format!(
                "Invalid value '{text}' for IP protocol. This engine filters tcp, udp, icmp and -1; see docs/known-limits.md."
            ))),
            _ => Err(invalid(format!(
                "Invalid value '{text}' for IP protocol. Unknown protocol."
            ))),
        }
    }
}

/// What IPv6 is answered (NET-4).
pub(super) fn no_ipv6() -> ApiError {
    invalid("IPv6 is not supported by this engine; see docs/known-limits.md.")
}

/// Traffic of a protocol with the two numbers that EC2 calls ports: for ICMP they are type and code (NET-18).
pub(super) fn traffic(protocol: &str, from: Option<i64>, to: Option<i64>) -> Result<Match, ApiError> {
    let ports = || {
        let (Some(from), Some(to)) = (from, to) else {
            return Err(invalid(
                "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.",
            ));
        };
        let port =
            |value: i64| u16::try_from(value).map_err(|_| invalid(format!("TCP/UDP port ({value}) out of range")));
        RangeInclusive16::try_from((port(from)?, port(to)?))
            .map_err(|_| invalid(format!("Invalid TCP/UDP port range ({from}:{to})")))
    };
    Ok(match Protocol::read(protocol)? {
        Protocol::All => Match::All,
        Protocol::Tcp => Match::Tcp { ports: ports()? },
        Protocol::Udp => Match::Udp { ports: ports()? },
        Protocol::Icmp => Match::Icmp {
            kind: icmp(from.unwrap_or(-1), to.unwrap_or(-1))?,
        },
    })
}

/// Type and code of ICMP; -1 is any.
pub(super) fn icmp(kind: i64, code: i64) -> Result<Option<(u8, Option<u8>)>, ApiError> {
    let number = |value: i64, what: &str| {
        let given = u8::try_from(value).map(Some);
        given
            .or_else(|error| if value == -1 { Ok(None) } else { Err(error) })
            .map_err(|_| invalid(format!("ICMP {what} ({value}) out of range")))
    };
    match (number(kind, "type")?, number(code, "code")?) {
        (None, Some(_)) => Err(invalid("ICMP code may only be given with an ICMP type.")),
        (None, None) => Ok(None),
        (Some(kind), code) => Ok(Some((kind, code))),
    }
}

/// A CIDR block; host bits are cleared (NET-17).
pub(super) fn block(text: &str) -> Result<Ipv4Net, ApiError> {
    let read: Result<Ipv4Net, _> = text.parse();
    read.map(|net| net.trunc())
        .map_err(|_| invalid(format!("CIDR block {text} is malformed")))
}

fn description(text: Option<&String>) -> Result<Option<String>, ApiError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    match text {
        Some(text) if text.chars().count() > MAX_DESCRIPTION || !text.chars().all(allowed) => Err(invalid(
            "Invalid rule description. Valid descriptions are strings less than 256 characters from the following set: \
             a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
        )),
        other => Ok(other.filter(|text| !text.is_empty()).cloned()),
    }
}

impl Known<'_> {
    fn group(&self, pair: &shapes::UserIdGroupPair) -> Result<GroupId, ApiError> {
        if pair.vpc_peering_connection_id.is_some() {
            return Err(invalid(
                "VPC peering is not supported by this engine; see docs/known-limits.md.",
            ));
        }
        let foreign = pair
            .user_id
            .as_deref()
            .is_some_and(|user| user != self.scope.account.to_string());
        let found = match (&pair.group_id, &pair.group_name) {
            (Some(id), _) => self.groups.iter().find(|group| group.id.to_string() == *id),
            (None, Some(name)) if self.by_name => self.groups.iter().find(|group| group.name == *name),
            (None, Some(_)) => {
                return Err(invalid(
                    "Invalid value for groupName: groups of a VPC that is not the default one are named by their id.",
                ));
            }
            (None, None) => return Err(missing("groupId")),
        };
        let named = pair.group_id.as_ref().or(pair.group_name.as_ref());
        let absent = || super::error::group_not_found(named.map_or("", String::as_str));
        found.filter(|_| !foreign).map(|group| group.id).ok_or_else(absent)
    }

    fn list(&self, id: &str) -> Result<Peer, ApiError> {
        let known = id.parse::<PrefixListId>().ok().filter(|id| *id == self.prefix_list);
        known
            .map(Peer::PrefixList)
            .ok_or_else(|| super::error::prefix_list_not_found(id))
    }

    /// The rules of a request's permissions.
    ///
    /// # Errors
    /// What EC2 says of the first permission that cannot be read, or that names what is not there.
    pub(super) fn wanted(&self, permissions: &[shapes::IpPermission]) -> Result<Vec<Wanted>, ApiError> {
        let mut all = Vec::new();
        for permission in permissions {
            let protocol = permission.ip_protocol.as_deref().ok_or_else(|| missing("ipProtocol"))?;
            let traffic = traffic(protocol, permission.from_port, permission.to_port)?;
            if permission.ipv6_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()) {
                return Err(no_ipv6());
            }
            let mut peers = Vec::new();
            for range in permission.ip_ranges.iter().flatten() {
                let cidr = range.cidr_ip.as_deref().ok_or_else(|| missing("cidrIp"))?;
                peers.push((Peer::Block(block(cidr)?), description(range.description.as_ref())?));
            }
            for pair in permission.user_id_group_pairs.iter().flatten() {
                peers.push((Peer::Group(self.group(pair)?), description(pair.description.as_ref())?));
            }
            for list in permission.prefix_list_ids.iter().flatten() {
                let id = list.prefix_list_id.as_deref().ok_or_else(|| missing("prefixListId"))?;
                peers.push((self.list(id)?, description(list.description.as_ref())?));
            }
            if peers.is_empty() {
                return Err(missing("ipRanges, groups or prefixListIds"));
            }
            all.extend(peers.into_iter().map(|(peer, description)| Wanted {
                traffic: traffic.clone(),
                peer,
                description,
            }));
        }
        let mut seen = BTreeSet::new();
        match all.iter().find(|one| !seen.insert((&one.traffic, one.peer))) {
            Some(_) => Err(invalid("The same permission must not appear multiple times")),
            None => Ok(all),
        }
    }

    /// The rule of ModifySecurityGroupRules.
    ///
    /// # Errors
    /// As [`Self::wanted`]; exactly one peer must be given.
    pub(super) fn replacement(&self, request: &shapes::SecurityGroupRuleRequest) -> Result<Wanted, ApiError> {
        let protocol = request.ip_protocol.as_deref().ok_or_else(|| missing("ipProtocol"))?;
        if request.cidr_ipv6.is_some() {
            return Err(no_ipv6());
        }
        let pair = |id: &String| shapes::UserIdGroupPair {
            group_id: Some(id.clone()),
            ..Default::default()
        };
        let peers = [
            request.cidr_ipv4.as_deref().map(|cidr| block(cidr).map(Peer::Block)),
            request.prefix_list_id.as_deref().map(|id| self.list(id)),
            request
                .referenced_group_id
                .as_ref()
                .map(|id| self.group(&pair(id)).map(Peer::Group)),
        ];
        let mut peers = peers.into_iter().flatten();
        let peer = peers
            .next()
            .ok_or_else(|| missing("CidrIpv4, PrefixListId or ReferencedGroupId"))??;
        if peers.next().is_some() {
            return Err(ApiError::client(
                "InvalidParameterCombination",
                "A security group rule has exactly one of CidrIpv4, CidrIpv6, PrefixListId and ReferencedGroupId.",
            ));
        }
        Ok(Wanted {
            traffic: traffic(protocol, request.from_port, request.to_port)?,
            peer,
            description: description(request.description.as_ref())?,
        })
    }
}

/// The checked description of UpdateSecurityGroupRuleDescriptions.
///
/// # Errors
/// `InvalidParameterValue` when it is too long or has other characters.
pub(super) fn checked_description(text: Option<&String>) -> Result<Option<String>, ApiError> {
    description(text)
}

/// Protocol and the two numbers as answers have them; `None` where a permission leaves them out.
fn numbers(traffic: &Match) -> (&'static str, Option<(i64, i64)>) {
    let range = |ports: &RangeInclusive16| {
        let (from, to): (u16, u16) = (*ports).into();
        Some((from.into(), to.into()))
    };
    match traffic {
        Match::All => ("-1", None),
        Match::Tcp { ports } => ("tcp", range(ports)),
        Match::Udp { ports } => ("udp", range(ports)),
        Match::Icmp { kind } => {
            let (kind, code) = kind.map_or((-1, -1), |(kind, code)| (i64::from(kind), code.map_or(-1, i64::from)));
            ("icmp", Some((kind, code)))
        }
    }
}

/// The name of a protocol in answers.
pub(super) fn protocol(traffic: &Match) -> &'static str {
    numbers(traffic).0
}

/// Rules as permissions: those of the same traffic together, in the order of traffic.
pub(super) fn permissions<'r>(scope: &Scope, rules: impl Iterator<Item = &'r Rule>) -> Vec<shapes::IpPermission> {
    let mut by_traffic: BTreeMap<&Match, shapes::IpPermission> = BTreeMap::new();
    for rule in rules {
        let permission = by_traffic.entry(&rule.traffic).or_insert_with(|| {
            let (protocol, numbers) = numbers(&rule.traffic);
            shapes::IpPermission {
                ip_protocol: Some(protocol.into()),
                from_port: numbers.map(|(from, _)| from),
                to_port: numbers.map(|(_, to)| to),
                // EC2 answers empty lists here, and its clients index them.
                user_id_group_pairs: Some(Vec::new()),
                ip_ranges: Some(Vec::new()),
                ipv6_ranges: Some(Vec::new()),
                prefix_list_ids: Some(Vec::new()),
            }
        });
        let description = rule.description.clone();
        match rule.peer {
            Peer::Block(block) => permission.ip_ranges.get_or_insert_default().push(shapes::IpRange {
                description,
                cidr_ip: Some(block.to_string()),
            }),
            Peer::Group(group) => {
                permission
                    .user_id_group_pairs
                    .get_or_insert_default()
                    .push(shapes::UserIdGroupPair {
                        description,
                        user_id: Some(scope.account.to_string()),
                        group_id: Some(group.to_string()),
                        ..Default::default()
                    });
            }
            Peer::PrefixList(list) => permission
                .prefix_list_ids
                .get_or_insert_default()
                .push(shapes::PrefixListId {
                    description,
                    prefix_list_id: Some(list.to_string()),
                }),
        }
    }
    by_traffic.into_values().collect()
}

/// Requested rules in the form of the request: what UnknownIpPermissions would hold, and what messages show.
pub(super) fn rule_view(
    scope: &Scope,
    group: &SecurityGroup,
    id: GroupRuleId,
    rule: &Rule,
) -> shapes::SecurityGroupRule {
    let (protocol, numbers) = numbers(&rule.traffic);
    let (from, to) = numbers.unwrap_or((-1, -1));
    let mut view = shapes::SecurityGroupRule {
        security_group_rule_id: Some(id.to_string()),
        group_id: Some(group.id.to_string()),
        group_owner_id: Some(scope.account.to_string()),
        is_egress: Some(rule.direction == Direction::Egress),
        ip_protocol: Some(protocol.into()),
        from_port: Some(from),
        to_port: Some(to),
        description: rule.description.clone(),
        tags: super::tags::shown(&rule.tags),
        security_group_rule_arn: Some(
            super::questions::Kind::SecurityGroupRule
                .arn(scope, &id.to_string())
                .to_string(),
        ),
        ..Default::default()
    };
    match rule.peer {
        Peer::Block(block) => view.cidr_ipv4 = Some(block.to_string()),
        Peer::PrefixList(list) => view.prefix_list_id = Some(list.to_string()),
        Peer::Group(peer) => {
            view.referenced_group_info = Some(shapes::ReferencedSecurityGroup {
                group_id: Some(peer.to_string()),
                user_id: Some(scope.account.to_string()),
                vpc_id: Some(group.vpc.to_string()),
                ..Default::default()
            });
        }
    }
    view
}

/// A rule that a Revoke removed.
pub(super) fn revoked_view(group: &SecurityGroup, id: GroupRuleId, rule: &Rule) -> shapes::RevokedSecurityGroupRule {
    let (protocol, numbers) = numbers(&rule.traffic);
    let (from, to) = numbers.unwrap_or((-1, -1));
    let mut view = shapes::RevokedSecurityGroupRule {
        security_group_rule_id: Some(id.to_string()),
        group_id: Some(group.id.to_string()),
        is_egress: Some(rule.direction == Direction::Egress),
        ip_protocol: Some(protocol.into()),
        from_port: Some(from),
        to_port: Some(to),
        description: rule.description.clone(),
        ..Default::default()
    };
    match rule.peer {
        Peer::Block(block) => view.cidr_ipv4 = Some(block.to_string()),
        Peer::PrefixList(list) => view.prefix_list_id = Some(list.to_string()),
        Peer::Group(peer) => view.referenced_group_id = Some(peer.to_string()),
    }
    view
}
