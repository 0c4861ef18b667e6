//! CreateTags, DeleteTags, DescribeTags: the same for every noun (NET-82).

use super::change::again;
use super::filter::Filters;
use super::noun::{Noun, every, find};
use super::operation::operation;
use super::questions::Kind;
use super::{error, page, shapes, tags};
use crate::Ctx;
use crate::dispatch::{Handler, handler};
use isolarium_model::Key;
use isolarium_model::ec2::{
    DhcpOptions, ElasticIp, FlowLog, InternetGateway, NatGateway, NetworkAcl, NetworkInterface, Resource, RouteTable,
    SecurityGroup, Subnet, Tags, Vpc, VpcEndpoint,
};
use isolarium_store::state::{Batch, Expect, Revision, Stored};
use isolarium_wire::ApiError;
use std::collections::{BTreeMap, BTreeSet};

/// Most resources of one request.
const MAX_RESOURCES: usize = 1000;

pub(super) fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::CreateTagsRequest>(),
        handler::<shapes::DeleteTagsRequest>(),
        handler::<shapes::DescribeTagsRequest>(),
    ]
}

operation!("CreateTags", CreateTagsRequest -> CreateTagsOutput, create);
operation!("DeleteTags", DeleteTagsRequest -> DeleteTagsOutput, delete);
operation!("DescribeTags", DescribeTagsRequest -> DescribeTagsResult, describe);

/// How the tags of one resource change.
type Change<'a> = &'a dyn Fn(&mut Tags) -> Result<(), ApiError>;

/// What a request changes: groups apart, because a group and its rules are one record.
#[derive(Default)]
struct Changes {
    groups: BTreeMap<Key, Stored<SecurityGroup>>,
    others: Batch,
    /// Names and revisions of what stands in `others`.
    seen: BTreeSet<(Key, Revision)>,
}

impl Changes {
    fn one<N: Noun>(&mut self, ctx: &Ctx<'_>, id: &str, change: Change<'_>) -> Result<(), ApiError> {
        let mut found = find::<N>(ctx, id)?;
        change(found.record.tags_mut())?;
        if self.seen.insert((found.key.clone(), found.revision)) {
            let batch = std::mem::take(&mut self.others);
            self.others = super::change::put(batch, &found)?;
        }
        Ok(())
    }

    /// A group that may have been changed already.
    fn group(&mut self, found: Stored<SecurityGroup>) -> &mut SecurityGroup {
        &mut self.groups.entry(found.key.clone()).or_insert(found).record
    }

    fn resource(&mut self, ctx: &Ctx<'_>, id: &str, change: Change<'_>) -> Result<(), ApiError> {
        let kind = Kind::of_id(id);
        match kind.ok_or_else(|| ApiError::client("InvalidID", format!("The ID '{id}' is not valid")))? {
            Kind::DhcpOptions => self.one::<DhcpOptions>(ctx, id, change),
            Kind::ElasticIp => self.one::<ElasticIp>(ctx, id, change),
            Kind::FlowLog => self.one::<FlowLog>(ctx, id, change),
            Kind::InternetGateway => self.one::<InternetGateway>(ctx, id, change),
            Kind::NatGateway => self.one::<NatGateway>(ctx, id, change),
            Kind::NetworkAcl => self.one::<NetworkAcl>(ctx, id, change),
            Kind::NetworkInterface => self.one::<NetworkInterface>(ctx, id, change),
            Kind::RouteTable => self.one::<RouteTable>(ctx, id, change),
            Kind::Subnet => self.one::<Subnet>(ctx, id, change),
            Kind::Vpc => self.one::<Vpc>(ctx, id, change),
            Kind::VpcEndpoint => self.one::<VpcEndpoint>(ctx, id, change),
            Kind::SecurityGroup => {
                let found = find::<SecurityGroup>(ctx, id)?;
                change(&mut self.group(found).tags)
            }
            Kind::SecurityGroupRule => {
                let unknown = || super::permission::rule_not_found(id);
                let rule = id.parse().map_err(|_| unknown())?;
                let groups = every::<SecurityGroup>(ctx)?;
                let found = groups.into_iter().find(|group| group.record.rules.contains_key(&rule));
                let group = self.group(found.ok_or_else(unknown)?);
                change(&mut group.rules.get_mut(&rule).ok_or_else(unknown)?.tags)
            }
            Kind::PrefixList => Err(error::not_permitted(format!(
                "The prefix list '{id}' is managed by AWS and cannot be tagged."
            ))),
            Kind::Instance => {
                let text = format!("The instance ID '{id}' does not exist");
                Err(ApiError::client("InvalidInstanceID.NotFound", text))
            }
        }
    }

    fn batch(self) -> Result<Batch, ApiError> {
        let mut groups = self.groups.into_values();
        groups.try_fold(self.others, |batch, found| {
            batch
                .put(&found.key, Expect::At(found.revision), &found.record)
                .map_err(error::stored)
        })
    }
}

/// Changes the tags of all resources, or of none.
fn change(ctx: &Ctx<'_>, resources: &[String], change: Change<'_>) -> Result<(), ApiError> {
    let distinct: BTreeSet<&String> = resources.iter().collect();
    if distinct.is_empty() {
        return Err(error::missing("resourceIdSet"));
    }
    if distinct.len() > MAX_RESOURCES {
        return Err(error::invalid(format!(
            "A request names at most {MAX_RESOURCES} resources."
        )));
    }
    again(ctx, || {
        let mut changes = Changes::default();
        for id in &distinct {
            changes.resource(ctx, id, change)?;
        }
        Ok((changes.batch()?, ()))
    })
}

fn create(request: shapes::CreateTagsRequest, ctx: &Ctx<'_>) -> Result<shapes::CreateTagsOutput, ApiError> {
    if request.tags.is_empty() {
        return Err(error::missing("tagSet"));
    }
    change(ctx, &request.resources, &|own| tags::add(own, &request.tags))?;
    Ok(shapes::CreateTagsOutput {})
}

/// Removes the named tags, those with a value only where it is the one; without any name, all of them.
fn delete(request: shapes::DeleteTagsRequest, ctx: &Ctx<'_>) -> Result<shapes::DeleteTagsOutput, ApiError> {
    let given = request.tags.filter(|tags| !tags.is_empty());
    change(ctx, &request.resources, &|own| {
        match &given {
            None => own.clear(),
            Some(given) => own.retain(|key, value| {
                let named = |tag: &&shapes::Tag| tag.key.as_ref() == Some(key);
                !given
                    .iter()
                    .filter(named)
                    .any(|tag| tag.value.as_ref().is_none_or(|wanted| wanted == value))
            }),
        }
        Ok(())
    })?;
    Ok(shapes::DeleteTagsOutput {})
}

/// Id, kind and tags of every resource of a noun.
fn tagged<N: Resource>(ctx: &Ctx<'_>, out: &mut Vec<(String, &'static str, Tags)>) -> Result<(), ApiError> {
    let all = every::<N>(ctx)?.into_iter().map(|found| found.record);
    out.extend(all.map(|record| (record.id_text(), N::TYPE, record.tags().clone())));
    Ok(())
}

fn describe(request: shapes::DescribeTagsRequest, ctx: &Ctx<'_>) -> Result<shapes::DescribeTagsResult, ApiError> {
    let names = ["key", "resource-id", "resource-type", "tag-value", "value"];
    let filters = Filters::read(request.filters.as_ref(), &names)?;
    let mut all = Vec::new();
    tagged::<DhcpOptions>(ctx, &mut all)?;
    tagged::<ElasticIp>(ctx, &mut all)?;
    tagged::<FlowLog>(ctx, &mut all)?;
    tagged::<InternetGateway>(ctx, &mut all)?;
    tagged::<NatGateway>(ctx, &mut all)?;
    tagged::<NetworkAcl>(ctx, &mut all)?;
    tagged::<NetworkInterface>(ctx, &mut all)?;
    tagged::<RouteTable>(ctx, &mut all)?;
    tagged::<SecurityGroup>(ctx, &mut all)?;
    tagged::<Subnet>(ctx, &mut all)?;
    tagged::<Vpc>(ctx, &mut all)?;
    tagged::<VpcEndpoint>(ctx, &mut all)?;
    for group in every::<SecurityGroup>(ctx)? {
        let rules = group.record.rules.into_iter();
        all.extend(rules.map(|(id, rule)| (id.to_string(), Kind::SecurityGroupRule.name(), rule.tags)));
    }
    let mut found = Vec::new();
    for (id, kind, own) in all {
        for (tag, content) in own {
            // Each pair passes by itself: `tag:KEY` asks for this very tag.
            let pair = Tags::from([(tag.clone(), content.clone())]);
            let passes = filters.pass(&pair, |name| {
                vec![match name {
                    "key" => tag.clone(),
                    "resource-id" => id.clone(),
                    "resource-type" => kind.to_owned(),
                    _ => content.clone(),
                }]
            });
            if passes {
                let description = shapes::TagDescription {
                    key: Some(tag.clone()),
                    resource_id: Some(id.clone()),
                    resource_type: Some(kind.to_owned()),
                    value: Some(content),
                };
                found.push((format!("{id} {tag}"), description));
            }
        }
    }
    let (tags, next_token) = page::page(found, request.next_token.as_deref(), request.max_results)?;
    Ok(shapes::DescribeTagsResult {
        next_token,
        tags: Some(tags),
    })
}

#[cfg(test)]
mod tests;
