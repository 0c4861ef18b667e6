//! Log groups and their retention.

use super::{Noun, ask_group, chosen_group, invalid, page_size, position, refuse, shapes, token};
use crate::{Ctx, Operation};
use isolarium_model::logs::{GroupName, LogGroup};
use isolarium_policy::{Granted, Question};
use isolarium_store::logs::GroupQuery;
use isolarium_wire::ApiError;

/// Retention periods AWS accepts, in days.
const RETENTION_DAYS: [u32; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];
const PAGE: usize = 50;

impl Operation for shapes::CreateLogGroupRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "CreateLogGroup";
    type Output = shapes::CreateLogGroupOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let group = || chosen_group(ctx, Some(&self.log_group_name), None);
        let mut questions = ask_group("logs:CreateLogGroup", group());
        for question in &mut questions {
            *question = question.clone().with_request_tags(self.tags.iter().flatten());
        }
        questions
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        if request.kms_key_id.is_some() {
            return Err(invalid("Log groups encrypted with a KMS key are not supported."));
        }
        if request
            .log_group_class
            .is_some_and(|class| class != shapes::LogGroupClass::Standard)
        {
            return Err(invalid("Only the log group class STANDARD is supported."));
        }
        if request.deletion_protection_enabled == Some(true) {
            return Err(invalid("Deletion protection of log groups is not supported."));
        }
        let group = GroupName::new(&ctx.caller.scope, &request.log_group_name);
        let tags = request.tags.unwrap_or_default().into_iter().collect();
        ctx.logs
            .create_group(&group, &tags, ctx.clock.now())
            .map_err(|error| refuse(error, Noun::Group))?;
        Ok(shapes::CreateLogGroupOutput {})
    }
}

impl Operation for shapes::DeleteLogGroupRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "DeleteLogGroup";
    type Output = shapes::DeleteLogGroupOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask_group(
            "logs:DeleteLogGroup",
            chosen_group(ctx, Some(&self.log_group_name), None),
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let group = GroupName::new(&ctx.caller.scope, &request.get().log_group_name);
        ctx.logs
            .delete_group(&group)
            .map_err(|error| refuse(error, Noun::Group))?;
        Ok(shapes::DeleteLogGroupOutput {})
    }
}

impl Operation for shapes::DescribeLogGroupsRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "DescribeLogGroups";
    type Output = shapes::DescribeLogGroupsResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask_group("logs:DescribeLogGroups", chosen_group(ctx, Some(""), None))
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        if request.log_group_name_prefix.is_some() && request.log_group_name_pattern.is_some() {
            return Err(invalid(
                "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.",
            ));
        }
        let refused = |error| refuse(error, Noun::Group);
        if let Some(identifiers) = request.log_group_identifiers {
            let mut found = Vec::new();
            for identifier in identifiers {
                let name = chosen_group(ctx, None, Some(&identifier))?;
                found.extend(ctx.logs.group(&name).map_err(refused)?.map(described));
            }
            return Ok(shapes::DescribeLogGroupsResponse {
                log_groups: Some(found),
                next_token: None,
            });
        }
        let query = GroupQuery {
            prefix: request.log_group_name_prefix,
            contains: request.log_group_name_pattern,
            after: position(request.next_token.as_deref())?,
            limit: page_size(request.limit, PAGE),
        };
        let page = ctx.logs.groups(&ctx.caller.scope, &query).map_err(refused)?;
        let last = page.rows.last().filter(|_| page.more);
        Ok(shapes::DescribeLogGroupsResponse {
            next_token: last.and_then(|group| token(&group.name.name)),
            log_groups: Some(page.rows.into_iter().map(described).collect()),
        })
    }
}

fn described(group: LogGroup) -> shapes::LogGroup {
    shapes::LogGroup {
        arn: Some(group.name.streams_arn().to_string()),
        log_group_arn: Some(group.name.arn().to_string()),
        log_group_name: Some(group.name.name.to_string()),
        creation_time: Some(group.created.0),
        retention_in_days: group.retention_days.map(i64::from),
        metric_filter_count: Some(0),
        stored_bytes: Some(i64::try_from(group.stored_bytes).unwrap_or(i64::MAX)),
        log_group_class: Some(shapes::LogGroupClass::Standard),
        ..Default::default()
    }
}

impl Operation for shapes::PutRetentionPolicyRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "PutRetentionPolicy";
    type Output = shapes::PutRetentionPolicyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask_group(
            "logs:PutRetentionPolicy",
            chosen_group(ctx, Some(&self.log_group_name), None),
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let days = u32::try_from(request.retention_in_days)
            .ok()
            .filter(|days| RETENTION_DAYS.contains(days));
        let Some(days) = days else {
            return Err(invalid(format!(
                "Retention {} is not supported; supported are {RETENTION_DAYS:?} days.",
                request.retention_in_days
            )));
        };
        let group = GroupName::new(&ctx.caller.scope, &request.log_group_name);
        ctx.logs
            .set_retention(&group, Some(days))
            .map_err(|error| refuse(error, Noun::Group))?;
        Ok(shapes::PutRetentionPolicyOutput {})
    }
}

impl Operation for shapes::DeleteRetentionPolicyRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "DeleteRetentionPolicy";
    type Output = shapes::DeleteRetentionPolicyOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask_group(
            "logs:DeleteRetentionPolicy",
            chosen_group(ctx, Some(&self.log_group_name), None),
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let group = GroupName::new(&ctx.caller.scope, &request.get().log_group_name);
        ctx.logs
            .set_retention(&group, None)
            .map_err(|error| refuse(error, Noun::Group))?;
        Ok(shapes::DeleteRetentionPolicyOutput {})
    }
}
