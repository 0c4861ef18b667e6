//! CreateModelPackageGroup, Describe, List, Delete.

use super::listing::{Listing, page};
use super::model_package::author;
use super::{create, creating, find, shapes, stored, tag};
use crate::{Ctx, Operation};
use isolarium_model::Arn;
use isolarium_model::sagemaker::model_package::{ModelPackage, ModelPackageGroup as Group};
use isolarium_policy::{Granted, Question};
use isolarium_store::state::SortBy;
use isolarium_store::{Batch, Expect, Query, StoreError};
use isolarium_wire::ApiError;

pub(super) fn missing(arn: &Arn) -> ApiError {
    ApiError::validation(format!("Could not find model package group \"{arn}\"."))
}

/// The name in a member that takes a name or an ARN; an ARN of another account or region names nothing here.
pub(super) fn named<'a>(ctx: &Ctx<'_>, given: &'a str) -> Option<&'a str> {
    if !given.starts_with("arn:") {
        return Some(given);
    }
    let (_, name) = given.rsplit_once('/')?;
    let own = Group::arn(&ctx.caller.scope, name);
    own.as_str().eq_ignore_ascii_case(given).then_some(name)
}

/// The ARN of a group that is given by name or ARN.
fn arn_of(ctx: &Ctx<'_>, given: &str) -> Arn {
    given.parse().unwrap_or_else(|_| Group::arn(&ctx.caller.scope, given))
}

impl Operation for shapes::CreateModelPackageGroupInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "CreateModelPackageGroup";
    type Output = shapes::CreateModelPackageGroupOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let arn = Group::arn(&ctx.caller.scope, &self.model_package_group_name);
        let question = Question::on("sagemaker:CreateModelPackageGroup", &arn);
        creating(question, &arn, self.tags.as_ref())
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let scope = &ctx.caller.scope;
        super::check::refuse(&[(request.managed_configuration.is_some(), "ManagedConfiguration")])?;
        let arn = Group::arn(scope, &request.model_package_group_name);
        let group = Group {
            arn: arn.clone(),
            created: ctx.clock.now(),
            created_by: ctx.caller.principal.arn(),
            description: request.model_package_group_description,
            last_version: 0,
            tags: tag::of_request(request.tags)?,
            name: request.model_package_group_name,
        };
        create(ctx, &Group::key(scope, &group.name), &group, || {
            ApiError::validation(format!("Model Package Group already exists: {arn}"))
        })?;
        Ok(shapes::CreateModelPackageGroupOutput {
            model_package_group_arn: arn.to_string(),
        })
    }
}

impl Operation for shapes::DescribeModelPackageGroupInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DescribeModelPackageGroup";
    type Output = shapes::DescribeModelPackageGroupOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let arn = arn_of(ctx, &self.model_package_group_name);
        vec![Question::on("sagemaker:DescribeModelPackageGroup", &arn)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let given = &request.get().model_package_group_name;
        let absent = || missing(&arn_of(ctx, given));
        let name = named(ctx, given).ok_or_else(absent)?;
        let group = find::<Group>(ctx, &Group::key(&ctx.caller.scope, name))?
            .ok_or_else(absent)?
            .record;
        Ok(described(group))
    }
}

/// What DescribeModelPackageGroup tells of a group.
pub(super) fn described(group: Group) -> shapes::DescribeModelPackageGroupOutput {
    shapes::DescribeModelPackageGroupOutput {
        model_package_group_arn: group.arn.to_string(),
        model_package_group_description: group.description,
        creation_time: group.created.0,
        created_by: author(group.created_by.as_ref()),
        model_package_group_status: shapes::ModelPackageGroupStatus::Completed,
        managed_configuration: None,
        model_package_group_name: group.name,
    }
}

impl Operation for shapes::ListModelPackageGroupsInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "ListModelPackageGroups";
    type Output = shapes::ListModelPackageGroupsOutput;

    fn questions(&self, _ctx: &Ctx<'_>) -> Vec<Question> {
        vec![Question::any("sagemaker:ListModelPackageGroups")]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let across = request.cross_account_filter_option.map(|one| one.as_str());
        super::check::refuse(&[(across == Some("CrossAccount"), "CrossAccountFilterOption CrossAccount")])?;
        let listing = Listing {
            sort_by: request.sort_by.map(|by| match by.as_str() {
                "Name" => SortBy::Name,
                _ => SortBy::Created,
            }),
            descending: request.sort_order == Some(shapes::SortOrder::Descending),
            next_token: request.next_token,
            max_results: request.max_results,
            name_contains: request.name_contains,
            created_after: request.creation_time_after,
            created_before: request.creation_time_before,
            ..Listing::default()
        };
        let (rows, next_token) = page::<Group>(ctx, listing)?;
        let each = rows.into_iter().map(|row| shapes::ModelPackageGroupSummary {
            model_package_group_arn: row.record.arn.to_string(),
            model_package_group_description: row.record.description,
            creation_time: row.record.created.0,
            model_package_group_status: shapes::ModelPackageGroupStatus::Completed,
            managed_configuration: None,
            model_package_group_name: row.record.name,
        });
        Ok(shapes::ListModelPackageGroupsOutput {
            model_package_group_summary_list: each.collect(),
            next_token,
        })
    }
}

impl Operation for shapes::DeleteModelPackageGroupInput {
    const SERVICE: &'static str = "sagemaker";
    const NAME: &'static str = "DeleteModelPackageGroup";
    type Output = shapes::DeleteModelPackageGroupOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let arn = arn_of(ctx, &self.model_package_group_name);
        vec![Question::on("sagemaker:DeleteModelPackageGroup", &arn)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let given = &request.get().model_package_group_name;
        let absent = || missing(&arn_of(ctx, given));
        let name = named(ctx, given).ok_or_else(absent)?;
        let key = Group::key(&ctx.caller.scope, name);
        loop {
            let found = find::<Group>(ctx, &key)?.ok_or_else(absent)?;
            let query = Query {
                name_prefix: Some(format!("{}/", name.to_ascii_lowercase())),
                ..Query::all(&ctx.caller.scope)
            };
            let versions = ctx.store.query::<ModelPackage>(&query).map_err(stored)?.rows;
            if !versions.is_empty() {
                return Err(ApiError::validation(format!(
                    "Cannot delete Model Package Group \"{}\" because it contains Model Packages.",
                    found.record.arn
                )));
            }
            // A version that comes meanwhile changes the group's record too.
            match ctx
                .store
                .commit(Batch::default().delete::<Group>(&key, Expect::At(found.revision)))
            {
                Ok(_) => return Ok(shapes::DeleteModelPackageGroupOutput {}),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(stored(error)),
            }
        }
    }
}
