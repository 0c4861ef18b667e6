//! Tags of log groups.

use super::{Noun, ask_group, chosen_group, group_of_arn, not_found, refuse, shapes};
use crate::{Ctx, Operation};
use isolarium_model::logs::GroupName;
use isolarium_policy::{Granted, Question};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;

fn ask_arn(action: &str, ctx: &Ctx<'_>, arn: &str) -> Question {
    match group_of_arn(ctx, arn) {
        Ok(group) => Question::on(action, &group.arn()),
        Err(_) => Question::any(action),
    }
}

fn tags_of(ctx: &Ctx<'_>, group: &GroupName) -> Result<BTreeMap<String, String>, ApiError> {
    let found = ctx.logs.group(group).map_err(|error| refuse(error, Noun::Group))?;
    let found = found.ok_or_else(|| not_found("The specified log group does not exist."))?;
    Ok(found.tags)
}

impl Operation for shapes::ListTagsForResourceRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "ListTagsForResource";
    type Output = shapes::ListTagsForResourceResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask_arn("logs:ListTagsForResource", ctx, &self.resource_arn)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let group = group_of_arn(ctx, &request.get().resource_arn)?;
        Ok(shapes::ListTagsForResourceResponse {
            tags: Some(tags_of(ctx, &group)?.into_iter().collect()),
        })
    }
}

impl Operation for shapes::ListTagsLogGroupRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "ListTagsLogGroup";
    type Output = shapes::ListTagsLogGroupResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        ask_group(
            "logs:ListTagsLogGroup",
            chosen_group(ctx, Some(&self.log_group_name), None),
        )
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let group = GroupName::new(&ctx.caller.scope, &request.get().log_group_name);
        Ok(shapes::ListTagsLogGroupResponse {
            tags: Some(tags_of(ctx, &group)?.into_iter().collect()),
        })
    }
}

impl Operation for shapes::TagResourceRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "TagResource";
    type Output = shapes::TagResourceOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask_arn("logs:TagResource", ctx, &self.resource_arn).with_request_tags(&self.tags)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let group = group_of_arn(ctx, &request.resource_arn)?;
        let add = request.tags.into_iter().collect();
        ctx.logs
            .tag(&group, &add, &[])
            .map_err(|error| refuse(error, Noun::Group))?;
        Ok(shapes::TagResourceOutput {})
    }
}

impl Operation for shapes::UntagResourceRequest {
    const SERVICE: &'static str = "logs";
    const NAME: &'static str = "UntagResource";
    type Output = shapes::UntagResourceOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let question = ask_arn("logs:UntagResource", ctx, &self.resource_arn);
        vec![question.with_tag_keys(&self.tag_keys)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let group = group_of_arn(ctx, &request.resource_arn)?;
        ctx.logs
            .tag(&group, &BTreeMap::new(), &request.tag_keys)
            .map_err(|error| refuse(error, Noun::Group))?;
        Ok(shapes::UntagResourceOutput {})
    }
}
