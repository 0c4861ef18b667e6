//! Network ACLs and their entries (NET-22).

use super::change::{Made, add, in_vpc, put, remove};
use super::noun::{every, find, new_id, of_vpc, referred};
use super::operation::operation;
use super::page::{self, Asked};
use super::permission::{Protocol, block, icmp, no_ipv6};
use super::questions::Kind;
use super::token::{Outcome, once};
use super::{error, shapes, tags};
use crate::Ctx;
use crate::dispatch::{Handler, handler};
use isolarium_model::ec2::id::{AclAssociationId, AclId, SubnetId};
use isolarium_model::ec2::traffic::{AclEntry, Match, RangeInclusive16};
use isolarium_model::ec2::{NetworkAcl, Vpc};
use isolarium_store::state::{Batch, Stored};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;

/// The number of the final deny that every ACL has in both directions.
const LAST: u16 = 32767;

pub(super) fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::CreateNetworkAclEntryRequest>(),
        handler::<shapes::CreateNetworkAclRequest>(),
        handler::<shapes::DeleteNetworkAclEntryRequest>(),
        handler::<shapes::DeleteNetworkAclRequest>(),
        handler::<shapes::DescribeNetworkAclsRequest>(),
        handler::<shapes::ReplaceNetworkAclAssociationRequest>(),
        handler::<shapes::ReplaceNetworkAclEntryRequest>(),
    ]
}

operation!("CreateNetworkAcl", CreateNetworkAclRequest -> CreateNetworkAclResult, create);
operation!("CreateNetworkAclEntry", CreateNetworkAclEntryRequest -> CreateNetworkAclEntryOutput, create_entry);
operation!("DeleteNetworkAcl", DeleteNetworkAclRequest -> DeleteNetworkAclOutput, delete);
operation!("DeleteNetworkAclEntry", DeleteNetworkAclEntryRequest -> DeleteNetworkAclEntryOutput, delete_entry);
operation!("DescribeNetworkAcls", DescribeNetworkAclsRequest -> DescribeNetworkAclsResult, describe);
operation!("ReplaceNetworkAclAssociation",
    ReplaceNetworkAclAssociationRequest -> ReplaceNetworkAclAssociationResult, associate);
operation!("ReplaceNetworkAclEntry", ReplaceNetworkAclEntryRequest -> ReplaceNetworkAclEntryOutput, replace_entry);

fn create(request: shapes::CreateNetworkAclRequest, ctx: &Ctx<'_>) -> Result<shapes::CreateNetworkAclResult, ApiError> {
    let tags = tags::specified(request.tag_specifications.as_ref(), Kind::NetworkAcl.name())?;
    let token = request.client_token.clone();
    let most = ctx.platform.settings().ec2.quotas.acls_per_vpc;
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record.id;
    let outcome = once(ctx, "CreateNetworkAcl", token.as_deref(), request, || {
        let mut found = referred::<Vpc>(ctx, vpc)?;
        let acls = of_vpc::<NetworkAcl>(ctx, vpc)?;
        if acls.len() >= most {
            let text = "The maximum number of network ACLs has been reached.";
            return Err(error::limit("NetworkAclLimitExceeded", text));
        }
        let acl = NetworkAcl {
            id: new_id(ctx)?,
            vpc,
            is_default: false,
            ingress: BTreeMap::new(),
            egress: BTreeMap::new(),
            associations: BTreeMap::new(),
            created: ctx.clock.now(),
            tags: tags.clone(),
        };
        found.record.generation = found.record.generation.saturating_add(1);
        let batch = put(add(ctx, Batch::default(), &acl)?, &found)?;
        Ok((batch, (acl.id.to_string(), acl)))
    })?;
    let acl = match outcome {
        Outcome::Made(acl) => acl,
        Outcome::Before(id) => find::<NetworkAcl>(ctx, &id)?.record,
    };
    Ok(shapes::CreateNetworkAclResult {
        network_acl: Some(view(ctx, &acl)),
        client_token: token,
    })
}

/// Changes an ACL that is read after its VPC.
fn change<T>(ctx: &Ctx<'_>, id: &str, change: impl Fn(Stored<NetworkAcl>, Batch) -> Made<T>) -> Result<T, ApiError> {
    let acl = find::<NetworkAcl>(ctx, id)?.record;
    in_vpc(ctx, acl.vpc, |_, batch| {
        change(referred::<NetworkAcl>(ctx, acl.id)?, batch)
    })
}

fn delete(request: shapes::DeleteNetworkAclRequest, ctx: &Ctx<'_>) -> Result<shapes::DeleteNetworkAclOutput, ApiError> {
    change(ctx, &request.network_acl_id, |found, batch| {
        let acl = &found.record;
        if acl.is_default {
            let text = format!("cannot delete default network ACL {}", acl.id);
            return Err(ApiError::client("InvalidParameterValue", text));
        }
        if !acl.associations.is_empty() {
            let text = format!("The networkAcl '{}' has dependencies and cannot be deleted.", acl.id);
            return Err(error::dependency(text));
        }
        Ok((remove(batch, &found), ()))
    })?;
    Ok(shapes::DeleteNetworkAclOutput {})
}

/// An entry as a request describes it.
struct Given {
    number: u16,
    egress: bool,
    entry: AclEntry,
}

struct Asking<'a> {
    number: i64,
    egress: bool,
    protocol: &'a str,
    action: shapes::RuleAction,
    cidr: Option<&'a String>,
    ipv6: bool,
    ports: Option<&'a shapes::PortRange>,
    icmp: Option<&'a shapes::IcmpTypeCode>,
}

macro_rules! asking {
    ($request:ident) => {
        Asking {
            number: $request.rule_number,
            egress: $request.egress,
            protocol: &$request.protocol,
            action: $request.rule_action,
            cidr: $request.cidr_block.as_ref(),
            ipv6: $request.ipv6_cidr_block.is_some(),
            ports: $request.port_range.as_ref(),
            icmp: $request.icmp_type_code.as_ref(),
        }
    };
}

fn number(given: i64) -> Result<u16, ApiError> {
    let number = u16::try_from(given).ok().filter(|number| (1..LAST).contains(number));
    number.ok_or_else(|| error::bad_value("ruleNumber", given, "Rule numbers are 1 to 32766."))
}

impl Asking<'_> {
    fn read(&self) -> Result<Given, ApiError> {
        let ports = || {
            let range = self.ports.ok_or_else(|| error::missing("PortRange"))?;
            let (Some(from), Some(to)) = (range.from, range.to) else {
                return Err(error::missing("PortRange.From and PortRange.To"));
            };
            let port = |value: i64| {
                u16::try_from(value).map_err(|_| error::bad_value("portRange", value, "Ports are 0 to 65535."))
            };
            let range = RangeInclusive16::try_from((port(from)?, port(to)?));
            range.map_err(|_| error::bad_value("portRange", format!("{from}-{to}"), "It ends before it begins."))
        };
        if self.ipv6 {
            return Err(no_ipv6());
        }
        let traffic = match Protocol::read(self.protocol)? {
            Protocol::All => Match::All,
            Protocol::Tcp => Match::Tcp { ports: ports()? },
            Protocol::Udp => Match::Udp { ports: ports()? },
            Protocol::Icmp => {
                let given = self.icmp.ok_or_else(|| error::missing("IcmpTypeCode"))?;
                Match::Icmp {
                    kind: icmp(given.r#type.unwrap_or(-1), given.code.unwrap_or(-1))?,
                }
            }
        };
        Ok(Given {
            number: number(self.number)?,
            egress: self.egress,
            entry: AclEntry {
                allow: self.action == shapes::RuleAction::Allow,
                traffic,
                peer: block(self.cidr.ok_or_else(|| error::missing("CidrBlock"))?)?,
            },
        })
    }
}

fn entries(acl: &mut NetworkAcl, egress: bool) -> &mut BTreeMap<u16, AclEntry> {
    if egress { &mut acl.egress } else { &mut acl.ingress }
}

fn create_entry(
    request: shapes::CreateNetworkAclEntryRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::CreateNetworkAclEntryOutput, ApiError> {
    let given = asking!(request).read()?;
    change(ctx, &request.network_acl_id, |mut found, batch| {
        let most = ctx.platform.settings().ec2.quotas.entries_per_direction;
        let entries = entries(&mut found.record, given.egress);
        if entries.contains_key(&given.number) {
            let text = format!("The network acl entry identified by {} already exists.", given.number);
            return Err(ApiError::client("NetworkAclEntryAlreadyExists", text));
        }
        if entries.len() >= most {
            let text = "The maximum number of network ACL entries has been reached.";
            return Err(error::limit("NetworkAclEntryLimitExceeded", text));
        }
        entries.insert(given.number, given.entry.clone());
        Ok((put(batch, &found)?, ()))
    })?;
    Ok(shapes::CreateNetworkAclEntryOutput {})
}

fn no_entry(number: u16) -> ApiError {
    let text = format!("The network acl entry identified by {number} does not exist.");
    ApiError::client("InvalidNetworkAclEntry.NotFound", text)
}

fn replace_entry(
    request: shapes::ReplaceNetworkAclEntryRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::ReplaceNetworkAclEntryOutput, ApiError> {
    let given = asking!(request).read()?;
    change(ctx, &request.network_acl_id, |mut found, batch| {
        let entry = entries(&mut found.record, given.egress).get_mut(&given.number);
        *entry.ok_or_else(|| no_entry(given.number))? = given.entry.clone();
        Ok((put(batch, &found)?, ()))
    })?;
    Ok(shapes::ReplaceNetworkAclEntryOutput {})
}

fn delete_entry(
    request: shapes::DeleteNetworkAclEntryRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DeleteNetworkAclEntryOutput, ApiError> {
    let number = number(request.rule_number)?;
    change(ctx, &request.network_acl_id, |mut found, batch| {
        let gone = entries(&mut found.record, request.egress).remove(&number);
        gone.ok_or_else(|| no_entry(number))?;
        Ok((put(batch, &found)?, ()))
    })?;
    Ok(shapes::DeleteNetworkAclEntryOutput {})
}

/// The ACL that holds an association, and the subnet it is of.
fn holder(ctx: &Ctx<'_>, id: &str) -> Result<(Stored<NetworkAcl>, AclAssociationId, SubnetId), ApiError> {
    let unknown = || error::association_not_found(id);
    let id: AclAssociationId = id.parse().map_err(|_| unknown())?;
    let mut all = every::<NetworkAcl>(ctx)?.into_iter();
    let found = all.find_map(|acl| {
        acl.record
            .associations
            .get(&id)
            .copied()
            .map(|subnet| (acl, id, subnet))
    });
    found.ok_or_else(unknown)
}

fn associate(
    request: shapes::ReplaceNetworkAclAssociationRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::ReplaceNetworkAclAssociationResult, ApiError> {
    let target: AclId = find::<NetworkAcl>(ctx, &request.network_acl_id)?.record.id;
    let vpc = holder(ctx, &request.association_id)?.0.record.vpc;
    let made = in_vpc(ctx, vpc, |_, batch| {
        let (mut from, association, subnet) = holder(ctx, &request.association_id)?;
        let mut to = referred::<NetworkAcl>(ctx, target)?;
        if to.record.vpc != from.record.vpc {
            let text = format!("{target} and {subnet} belong to different networks");
            return Err(error::invalid(text));
        }
        let made: AclAssociationId = new_id(ctx)?;
        from.record.associations.remove(&association);
        if from.record.id == target {
            from.record.associations.insert(made, subnet);
            return Ok((put(batch, &from)?, made));
        }
        to.record.associations.insert(made, subnet);
        Ok((put(put(batch, &from)?, &to)?, made))
    })?;
    Ok(shapes::ReplaceNetworkAclAssociationResult {
        new_association_id: Some(made.to_string()),
    })
}

const FILTERS: &[&str] = &[
    "association.association-id",
    "association.network-acl-id",
    "association.subnet-id",
    "default",
    "entry.cidr",
    "entry.egress",
    "entry.icmp.code",
    "entry.icmp.type",
    "entry.port-range.from",
    "entry.port-range.to",
    "entry.protocol",
    "entry.rule-action",
    "entry.rule-number",
    "network-acl-id",
    "owner-id",
    "vpc-id",
];

fn describe(
    request: shapes::DescribeNetworkAclsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeNetworkAclsResult, ApiError> {
    let asked = Asked {
        ids: request.network_acl_ids,
        filters: request.filters,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let (found, next_token) = page::records::<NetworkAcl>(ctx, asked, FILTERS, |acl, name| {
        let each = |value: &dyn Fn(&shapes::NetworkAclEntry) -> Option<String>| -> Vec<String> {
            shown(acl).iter().filter_map(value).collect()
        };
        let number = |value: Option<i64>| value.map(|value| value.to_string());
        match name {
            "association.association-id" => acl.associations.keys().map(ToString::to_string).collect(),
            "association.network-acl-id" if acl.associations.is_empty() => Vec::new(),
            "association.network-acl-id" | "network-acl-id" => vec![acl.id.to_string()],
            "association.subnet-id" => acl.associations.values().map(ToString::to_string).collect(),
            "default" => vec![acl.is_default.to_string()],
            "entry.cidr" => each(&|entry| entry.cidr_block.clone()),
            "entry.egress" => each(&|entry| entry.egress.map(|egress| egress.to_string())),
            "entry.icmp.code" => each(&|entry| number(entry.icmp_type_code.as_ref()?.code)),
            "entry.icmp.type" => each(&|entry| number(entry.icmp_type_code.as_ref()?.r#type)),
            "entry.port-range.from" => each(&|entry| number(entry.port_range.as_ref()?.from)),
            "entry.port-range.to" => each(&|entry| number(entry.port_range.as_ref()?.to)),
            "entry.protocol" => each(&|entry| entry.protocol.clone()),
            "entry.rule-action" => each(&|entry| entry.rule_action.map(|action| action.to_string())),
            "entry.rule-number" => each(&|entry| number(entry.rule_number)),
            "owner-id" => vec![ctx.caller.scope.account.to_string()],
            _ => vec![acl.vpc.to_string()],
        }
    })?;
    Ok(shapes::DescribeNetworkAclsResult {
        network_acls: Some(found.iter().map(|acl| view(ctx, acl)).collect()),
        next_token,
    })
}

/// All entries as answers have them, with the final denies.
fn shown(acl: &NetworkAcl) -> Vec<shapes::NetworkAclEntry> {
    let last = AclEntry {
        allow: false,
        traffic: Match::All,
        peer: ipnet::Ipv4Net::default(),
    };
    let direction = |entries: &BTreeMap<u16, AclEntry>, egress: bool| -> Vec<shapes::NetworkAclEntry> {
        let all = entries.iter().map(|(number, entry)| (*number, entry));
        all.chain([(LAST, &last)])
            .map(|(number, entry)| entry_view(number, entry, egress))
            .collect()
    };
    let mut all = direction(&acl.egress, true);
    all.extend(direction(&acl.ingress, false));
    all
}

fn entry_view(number: u16, entry: &AclEntry, egress: bool) -> shapes::NetworkAclEntry {
    let range = |ports: &RangeInclusive16| {
        let (from, to): (u16, u16) = (*ports).into();
        Some(shapes::PortRange {
            from: Some(from.into()),
            to: Some(to.into()),
        })
    };
    // Protocols are numbers here, unlike in security groups.
    let (protocol, port_range, icmp_type_code) = match &entry.traffic {
        Match::All => ("-1", None, None),
        Match::Tcp { ports } => ("6", range(ports), None),
        Match::Udp { ports } => ("17", range(ports), None),
        Match::Icmp { kind } => {
            let (kind, code) = kind.map_or((-1, -1), |(kind, code)| (kind.into(), code.map_or(-1, i64::from)));
            let given = shapes::IcmpTypeCode {
                code: Some(code),
                r#type: Some(kind),
            };
            ("1", None, Some(given))
        }
    };
    shapes::NetworkAclEntry {
        cidr_block: Some(entry.peer.to_string()),
        egress: Some(egress),
        icmp_type_code,
        ipv6_cidr_block: None,
        port_range,
        protocol: Some(protocol.into()),
        rule_action: Some(if entry.allow {
            shapes::RuleAction::Allow
        } else {
            shapes::RuleAction::Deny
        }),
        rule_number: Some(number.into()),
    }
}

fn view(ctx: &Ctx<'_>, acl: &NetworkAcl) -> shapes::NetworkAcl {
    let associations = acl
        .associations
        .iter()
        .map(|(id, subnet)| shapes::NetworkAclAssociation {
            network_acl_association_id: Some(id.to_string()),
            network_acl_id: Some(acl.id.to_string()),
            subnet_id: Some(subnet.to_string()),
        });
    shapes::NetworkAcl {
        associations: Some(associations.collect()),
        entries: Some(shown(acl)),
        is_default: Some(acl.is_default),
        network_acl_id: Some(acl.id.to_string()),
        tags: tags::shown(&acl.tags),
        vpc_id: Some(acl.vpc.to_string()),
        owner_id: Some(ctx.caller.scope.account.to_string()),
    }
}

#[cfg(test)]
mod tests;
