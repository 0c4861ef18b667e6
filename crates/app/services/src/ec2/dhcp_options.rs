//! DHCP options (NET-53).

use super::change::{add, again, in_vpc, put, remove};
use super::error;
use super::noun::{every, find, new_id};
use super::operation::operation;
use super::page::{Asked, records, shown};
use super::shapes;
use super::tags;
use crate::Ctx;
use isolarium_model::Scope;
use isolarium_model::ec2::dhcp::AMAZON_PROVIDED;
use isolarium_model::ec2::{DhcpOptions, Resource, Vpc};
use isolarium_store::state::Batch;
use isolarium_wire::ApiError;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

operation!("CreateDhcpOptions", CreateDhcpOptionsRequest -> CreateDhcpOptionsResult, create);
operation!("DeleteDhcpOptions", DeleteDhcpOptionsRequest -> DeleteDhcpOptionsOutput, delete);
operation!("AssociateDhcpOptions", AssociateDhcpOptionsRequest -> AssociateDhcpOptionsOutput, associate);
operation!("DescribeDhcpOptions", DescribeDhcpOptionsRequest -> DescribeDhcpOptionsResult, describe);

/// Most servers of one option.
const MOST_SERVERS: usize = 4;

fn create(
    request: shapes::CreateDhcpOptionsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::CreateDhcpOptionsResult, ApiError> {
    let configurations = configurations(request.dhcp_configurations)?;
    let tags = tags::specified(request.tag_specifications.as_ref(), DhcpOptions::TYPE)?;
    let made = again(ctx, || {
        let options = DhcpOptions {
            id: new_id(ctx)?,
            configurations: configurations.clone(),
            created: ctx.clock.now(),
            tags: tags.clone(),
        };
        Ok((add(ctx, Batch::default(), &options)?, options))
    })?;
    Ok(shapes::CreateDhcpOptionsResult {
        dhcp_options: Some(view(&ctx.caller.scope, &made)),
    })
}

fn configurations(given: Vec<shapes::NewDhcpConfiguration>) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
    let mut all = BTreeMap::new();
    for one in given {
        let key = one.key.ok_or_else(|| error::missing("dhcpConfiguration.key"))?;
        let values = one.values.unwrap_or_default();
        check(&key, &values)?;
        if all.insert(key.clone(), values).is_some() {
            return Err(error::invalid(format!("The DHCP option '{key}' is given twice.")));
        }
    }
    if all.is_empty() {
        return Err(error::missing("dhcpConfiguration"));
    }
    Ok(all)
}

/// Refuses an option that is unknown, or a value that it cannot have.
fn check(key: &str, values: &[String]) -> Result<(), ApiError> {
    let bad = |value: &str| error::bad_value(key, value, "The DHCP option cannot have this value.");
    let first = values
        .first()
        .ok_or_else(|| error::invalid(format!("The DHCP option '{key}' has no value.")))?;
    let servers = |also: Option<&str>| {
        if values.len() > MOST_SERVERS {
            let text = format!("The DHCP option '{key}' has more than {MOST_SERVERS} values.");
            return Err(error::invalid(text));
        }
        let good = |value: &&String| value.parse::<Ipv4Addr>().is_ok() || also == Some(value.as_str());
        let wrong = values.iter().find(|value| !good(value));
        wrong.map_or(Ok(()), |value| Err(bad(value)))
    };
    match key {
        "domain-name-servers" => servers(Some(AMAZON_PROVIDED)),
        "ntp-servers" | "netbios-name-servers" => servers(None),
        "domain-name" => {
            let letters = |c: char| c.is_ascii_alphanumeric() || "-._ ".contains(c);
            let good = !first.is_empty() && first.len() <= 253 && first.chars().all(letters);
            if good && values.len() == 1 {
                Ok(())
            } else {
                Err(bad(first))
            }
        }
        "netbios-node-type" => match first.as_str() {
            "1" | "2" | "4" | "8" if values.len() == 1 => Ok(()),
            other => Err(bad(other)),
        },
        _ => Err(error::bad_value("dhcpConfiguration.key", key, "Unknown DHCP option.")),
    }
}

fn delete(
    request: shapes::DeleteDhcpOptionsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DeleteDhcpOptionsOutput, ApiError> {
    again(ctx, || {
        let found = find::<DhcpOptions>(ctx, &request.dhcp_options_id)?;
        let id = found.record.id;
        // Who associates the set writes its record, so the revision read here tells.
        if every::<Vpc>(ctx)?.iter().any(|vpc| vpc.record.dhcp_options == Some(id)) {
            return Err(error::has_dependencies("dhcpOptions", id));
        }
        Ok((remove(Batch::default(), &found), ()))
    })?;
    Ok(shapes::DeleteDhcpOptionsOutput::default())
}

fn associate(
    request: shapes::AssociateDhcpOptionsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::AssociateDhcpOptionsOutput, ApiError> {
    let vpc = find::<Vpc>(ctx, &request.vpc_id)?.record.id;
    in_vpc(ctx, vpc, |vpc, batch| {
        if request.dhcp_options_id == "default" {
            vpc.dhcp_options = None;
            return Ok((batch, ()));
        }
        let options = find::<DhcpOptions>(ctx, &request.dhcp_options_id)?;
        vpc.dhcp_options = Some(options.record.id);
        Ok((put(batch, &options)?, ()))
    })?;
    Ok(shapes::AssociateDhcpOptionsOutput::default())
}

/// Filters of DescribeDhcpOptions.
const FILTERS: &[&str] = &["dhcp-options-id", "key", "owner-id", "value"];

fn describe(
    request: shapes::DescribeDhcpOptionsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeDhcpOptionsResult, ApiError> {
    let asked = Asked {
        ids: request.dhcp_options_ids,
        filters: request.filters,
        next_token: request.next_token,
        max_results: request.max_results,
    };
    let scope = &ctx.caller.scope;
    let (sets, next_token) = records(ctx, asked, FILTERS, |options: &DhcpOptions, filter| match filter {
        "dhcp-options-id" => vec![options.id.to_string()],
        "key" => options.configurations.keys().cloned().collect(),
        "value" => options.configurations.values().flatten().cloned().collect(),
        _ => vec![scope.account.to_string()],
    })?;
    Ok(shapes::DescribeDhcpOptionsResult {
        dhcp_options: shown(sets.iter().map(|options| view(scope, options)).collect()),
        next_token,
    })
}

/// A set of DHCP options as answers have it.
fn view(scope: &Scope, options: &DhcpOptions) -> shapes::DhcpOptions {
    let value = |value: &String| shapes::AttributeValue {
        value: Some(value.clone()),
    };
    let configurations = options
        .configurations
        .iter()
        .map(|(key, values)| shapes::DhcpConfiguration {
            key: Some(key.clone()),
            values: Some(values.iter().map(value).collect()),
        });
    shapes::DhcpOptions {
        owner_id: Some(scope.account.to_string()),
        tags: tags::shown(&options.tags),
        dhcp_options_id: Some(options.id.to_string()),
        dhcp_configurations: Some(configurations.collect()),
    }
}
