//! TagResource, UntagResource, ListResourceTags, and tags in creations.

use super::{ask, find, shapes, update};
use crate::{Ctx, Operation};
use isolarium_policy::{Granted, Question};
use isolarium_wire::ApiError;
use std::collections::BTreeMap;

/// Most tags of a key.
const MOST: usize = 50;

fn wrong(text: impl Into<String>) -> ApiError {
    ApiError::client("TagException", text)
}

/// The tags of a request.
pub(super) fn of_request(tags: Vec<shapes::Tag>) -> Result<BTreeMap<String, String>, ApiError> {
    let mut merged = BTreeMap::new();
    for tag in tags {
        if tag.tag_key.to_ascii_lowercase().starts_with("aws:") {
            return Err(wrong("Tag keys may not begin with \"aws:\"."));
        }
        if merged.insert(tag.tag_key, tag.tag_value).is_some() {
            return Err(wrong("Duplicate tag keys"));
        }
    }
    within(merged)
}

fn within(tags: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ApiError> {
    if tags.len() > MOST {
        return Err(ApiError::client(
            "LimitExceededException",
            format!("A key can have at most {MOST} tags."),
        ));
    }
    Ok(tags)
}

impl Operation for shapes::TagResourceRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "TagResource";
    type Output = shapes::TagResourceOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        let question = ask(ctx, "kms:TagResource", &self.key_id);
        vec![question.with_request_tags(self.tags.iter().map(|tag| (&tag.tag_key, &tag.tag_value)))]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        let added = of_request(request.tags)?;
        update(ctx, &request.key_id, |key| {
            let mut tags = key.tags.clone();
            tags.extend(added.clone());
            key.tags = within(tags)?;
            Ok(())
        })?;
        Ok(shapes::TagResourceOutput {})
    }
}

impl Operation for shapes::UntagResourceRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "UntagResource";
    type Output = shapes::UntagResourceOutput;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "kms:UntagResource", &self.key_id).with_tag_keys(&self.tag_keys)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let request = request.into_inner();
        update(ctx, &request.key_id, |key| {
            key.tags.retain(|name, _| !request.tag_keys.contains(name));
            Ok(())
        })?;
        Ok(shapes::UntagResourceOutput {})
    }
}

impl Operation for shapes::ListResourceTagsRequest {
    const SERVICE: &'static str = "kms";
    const NAME: &'static str = "ListResourceTags";
    type Output = shapes::ListResourceTagsResponse;

    fn questions(&self, ctx: &Ctx<'_>) -> Vec<Question> {
        vec![ask(ctx, "kms:ListResourceTags", &self.key_id)]
    }

    fn execute(request: Granted<Self>, ctx: &Ctx<'_>) -> Result<Self::Output, ApiError> {
        let key = find(ctx, &request.get().key_id)?.record;
        let tags = key.tags.into_iter();
        Ok(shapes::ListResourceTagsResponse {
            tags: Some(
                tags.map(|(tag_key, tag_value)| shapes::Tag { tag_key, tag_value })
                    .collect(),
            ),
            next_marker: None,
            truncated: Some(false),
        })
    }
}
