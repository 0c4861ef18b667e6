//! The prefix list of S3: DescribePrefixLists, DescribeManagedPrefixLists, GetManagedPrefixListEntries (NET-33).

use super::filter::Filters;
use super::operation::operation;
use super::questions::Kind;
use super::{error, page, shapes};
use crate::Ctx;
use crate::dispatch::{Handler, handler};
use isolarium_model::ec2::{Tags, prefix_list};
use isolarium_wire::ApiError;

pub(super) fn handlers() -> Vec<Handler> {
    vec![
        handler::<shapes::DescribeManagedPrefixListsRequest>(),
        handler::<shapes::DescribePrefixListsRequest>(),
        handler::<shapes::GetManagedPrefixListEntriesRequest>(),
    ]
}

operation!("DescribeManagedPrefixLists",
    DescribeManagedPrefixListsRequest -> DescribeManagedPrefixListsResult, describe_managed);
operation!("DescribePrefixLists", DescribePrefixListsRequest -> DescribePrefixListsResult, describe);
operation!("GetManagedPrefixListEntries",
    GetManagedPrefixListEntriesRequest -> GetManagedPrefixListEntriesResult, entries);

/// The one list of a region.
struct List {
    id: String,
    name: String,
    cidrs: Vec<String>,
}

fn list(ctx: &Ctx<'_>) -> List {
    let region = &ctx.caller.scope.region;
    List {
        id: prefix_list::s3(region).to_string(),
        name: prefix_list::s3_service_name(region),
        cidrs: vec![ctx.platform.settings().ec2.s3_prefix_list.to_string()],
    }
}

/// The list, if a request asks for it.
fn asked(
    ctx: &Ctx<'_>,
    ids: Option<&Vec<String>>,
    filters: Option<&Vec<shapes::Filter>>,
    names: &[&str],
) -> Result<Option<List>, ApiError> {
    let list = list(ctx);
    if let Some(unknown) = ids.into_iter().flatten().find(|id| **id != list.id) {
        return Err(error::prefix_list_not_found(unknown));
    }
    let filters = Filters::read(filters, names)?;
    let passes = filters.pass(&Tags::new(), |name| match name {
        "owner-id" => vec!["AWS".to_owned()],
        "prefix-list-id" => vec![list.id.clone()],
        _ => vec![list.name.clone()],
    });
    Ok(passes.then_some(list))
}

fn describe(
    request: shapes::DescribePrefixListsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribePrefixListsResult, ApiError> {
    let names = ["prefix-list-id", "prefix-list-name"];
    let found = asked(ctx, request.prefix_list_ids.as_ref(), request.filters.as_ref(), &names)?;
    let shown = found.map(|list| {
        (
            list.id.clone(),
            shapes::PrefixList {
                cidrs: Some(list.cidrs),
                prefix_list_id: Some(list.id),
                prefix_list_name: Some(list.name),
            },
        )
    });
    let all = shown.into_iter().collect();
    let (lists, next_token) = page::page(all, request.next_token.as_deref(), request.max_results)?;
    Ok(shapes::DescribePrefixListsResult {
        next_token,
        prefix_lists: Some(lists),
    })
}

fn describe_managed(
    request: shapes::DescribeManagedPrefixListsRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::DescribeManagedPrefixListsResult, ApiError> {
    let names = ["owner-id", "prefix-list-id", "prefix-list-name"];
    let found = asked(ctx, request.prefix_list_ids.as_ref(), request.filters.as_ref(), &names)?;
    let shown = found.map(|list| {
        let arn = Kind::PrefixList.arn(&ctx.caller.scope, &list.id);
        // AWS's lists have no version and no limit of entries.
        (
            list.id.clone(),
            shapes::ManagedPrefixList {
                prefix_list_id: Some(list.id),
                address_family: Some("IPv4".into()),
                state: Some(shapes::PrefixListState::CreateComplete),
                prefix_list_arn: Some(arn.to_string()),
                prefix_list_name: Some(list.name),
                owner_id: Some("AWS".into()),
                ..Default::default()
            },
        )
    });
    let all = shown.into_iter().collect();
    let (lists, next_token) = page::page(all, request.next_token.as_deref(), request.max_results)?;
    Ok(shapes::DescribeManagedPrefixListsResult {
        next_token,
        prefix_lists: Some(lists),
    })
}

fn entries(
    request: shapes::GetManagedPrefixListEntriesRequest,
    ctx: &Ctx<'_>,
) -> Result<shapes::GetManagedPrefixListEntriesResult, ApiError> {
    let list = list(ctx);
    if request.prefix_list_id != list.id {
        return Err(error::prefix_list_not_found(&request.prefix_list_id));
    }
    if request.target_version.is_some() {
        return Err(error::invalid("AWS-managed prefix lists have no versions."));
    }
    let all = list.cidrs.into_iter().map(|cidr| {
        (
            cidr.clone(),
            shapes::PrefixListEntry {
                cidr: Some(cidr),
                description: None,
            },
        )
    });
    let (entries, next_token) = page::page(all.collect(), request.next_token.as_deref(), request.max_results)?;
    Ok(shapes::GetManagedPrefixListEntriesResult {
        entries: Some(entries),
        next_token,
    })
}
