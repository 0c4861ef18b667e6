//! Tags of users, roles and managed policies.

use super::entity::{self, About};
use super::operation::operation;
use super::{error, managed, page};
use crate::Ctx;
use isolarium_model::Arn;
use isolarium_model::iam::{Policy, Role, User};
use isolarium_policy::Question;
use isolarium_wire::ApiError;
use isolarium_wire::shapes::iam as shapes;
use std::collections::BTreeMap;

/// By key; keys are unique without regard to case.
pub(super) type Tags = BTreeMap<String, String>;

/// Tags per entity.
const MOST: usize = 50;

/// Absent where there are none.
pub(super) fn shape(tags: &Tags) -> Option<Vec<shapes::Tag>> {
    let tag = |(key, value): (&String, &String)| shapes::Tag {
        key: key.clone(),
        value: value.clone(),
    };
    (!tags.is_empty()).then(|| tags.iter().map(tag).collect())
}

/// Tags of a request: each key once, none of AWS's own.
pub(super) fn read(given: Option<Vec<shapes::Tag>>) -> Result<Tags, ApiError> {
    let mut found = Tags::new();
    for tag in given.unwrap_or_default() {
        if tag.key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return Err(error::invalid_input(
                "Tag keys that begin with aws: are reserved for system use.",
            ));
        }
        if remove(&mut found, &tag.key) {
            let text = "Duplicate tag keys found. Please note that Tag keys are case insensitive.";
            return Err(error::invalid_input(text));
        }
        found.insert(tag.key, tag.value);
    }
    check_number(&found)?;
    Ok(found)
}

fn check_number(tags: &Tags) -> Result<(), ApiError> {
    if tags.len() <= MOST {
        return Ok(());
    }
    Err(error::limit_exceeded(format!(
        "The number of tags has reached the maximum limit: {MOST}."
    )))
}

/// Removes a tag, whatever the case of its key; says whether there was one.
fn remove(tags: &mut Tags, key: &str) -> bool {
    let before = tags.len();
    let folded = key.to_lowercase();
    tags.retain(|other, _| other.to_lowercase() != folded);
    tags.len() < before
}

/// Questions of creating something, which with tags is also tagging it.
pub(super) fn create_questions(kind: &str, arn: &Arn, tags: Option<&Vec<shapes::Tag>>) -> Vec<Question> {
    let tagged = |question: Question| {
        let given = tags.into_iter().flatten();
        question.with_request_tags(given.map(|tag| (&tag.key, &tag.value)))
    };
    let mut questions = vec![tagged(Question::on(&format!("iam:Create{kind}"), arn))];
    if tags.is_some_and(|tags| !tags.is_empty()) {
        questions.push(tagged(Question::on(&format!("iam:Tag{kind}"), arn)));
    }
    questions
}

/// Something that can be tagged, by the name or ARN that requests give.
trait Tagged {
    fn asks(ctx: &Ctx<'_>, action: &str, name: &str) -> Question;
    fn tags(ctx: &Ctx<'_>, name: &str) -> Result<Tags, ApiError>;
    fn change(
        ctx: &Ctx<'_>,
        action: &str,
        name: &str,
        apply: impl Fn(&mut Tags) -> Result<(), ApiError>,
    ) -> Result<(), ApiError>;
}

impl Tagged for User {
    fn asks(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
        About::named::<Self>(ctx, name).asks(action)
    }
    fn tags(ctx: &Ctx<'_>, name: &str) -> Result<Tags, ApiError> {
        entity::load::<Self>(ctx, name).map(|user| user.attachments.tags)
    }
    fn change(
        ctx: &Ctx<'_>,
        _: &str,
        name: &str,
        apply: impl Fn(&mut Tags) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        entity::change(ctx, name, |user: &mut Self| apply(&mut user.attachments.tags)).map(drop)
    }
}

impl Tagged for Role {
    fn asks(ctx: &Ctx<'_>, action: &str, name: &str) -> Question {
        About::named::<Self>(ctx, name).asks(action)
    }
    fn tags(ctx: &Ctx<'_>, name: &str) -> Result<Tags, ApiError> {
        entity::load::<Self>(ctx, name).map(|role| role.attachments.tags)
    }
    fn change(
        ctx: &Ctx<'_>,
        _: &str,
        name: &str,
        apply: impl Fn(&mut Tags) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        entity::change(ctx, name, |role: &mut Self| apply(&mut role.attachments.tags)).map(drop)
    }
}

impl Tagged for Policy {
    fn asks(_: &Ctx<'_>, action: &str, arn: &str) -> Question {
        managed::asks(action, arn)
    }
    fn tags(ctx: &Ctx<'_>, arn: &str) -> Result<Tags, ApiError> {
        managed::load(ctx, arn).map(|policy| policy.tags.clone())
    }
    fn change(
        ctx: &Ctx<'_>,
        action: &str,
        arn: &str,
        apply: impl Fn(&mut Tags) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        managed::edit(ctx, action, arn, |policy| apply(&mut policy.tags)).map(drop)
    }
}

macro_rules! tag_operations {
    (
        $entity:ty, $noun:literal, $name:ident, $tag:ident -> $tagged:ident, $untag:ident -> $untagged:ident,
        $list:ident -> $listed:ident
    ) => {
        operation!(
            concat!("Tag", $noun), $tag -> $tagged,
            asks |this, ctx| {
                let question = <$entity>::asks(ctx, concat!("iam:Tag", $noun), &this.$name);
                vec![question.with_request_tags(this.tags.iter().map(|tag| (&tag.key, &tag.value)))]
            },
            does |request, ctx| {
                let wanted = read(Some(request.tags))?;
                <$entity>::change(ctx, concat!("iam:Tag", $noun), &request.$name, |tags| {
                    for (key, value) in &wanted {
                        remove(tags, key);
                        tags.insert(key.clone(), value.clone());
                    }
                    check_number(tags)
                })?;
                Ok(shapes::$tagged {})
            },
        );

        operation!(
            concat!("Untag", $noun), $untag -> $untagged,
            asks |this, ctx| {
                let question = <$entity>::asks(ctx, concat!("iam:Untag", $noun), &this.$name);
                vec![question.with_tag_keys(&this.tag_keys)]
            },
            does |request, ctx| {
                <$entity>::change(ctx, concat!("iam:Untag", $noun), &request.$name, |tags| {
                    for key in &request.tag_keys {
                        remove(tags, key);
                    }
                    Ok(())
                })?;
                Ok(shapes::$untagged {})
            },
        );

        operation!(
            concat!("List", $noun, "Tags"), $list -> $listed,
            asks |this, ctx| vec![<$entity>::asks(ctx, concat!("iam:List", $noun, "Tags"), &this.$name)],
            does |request, ctx| {
                let tags = <$entity>::tags(ctx, &request.$name)?;
                let page = page::tags(&tags, request.marker.as_deref(), request.max_items);
                Ok(shapes::$listed {
                    is_truncated: page.truncated(),
                    tags: page.items,
                    marker: page.marker,
                })
            },
        );
    };
}

tag_operations!(
    User, "User", user_name,
    TagUserRequest -> TagUserOutput,
    UntagUserRequest -> UntagUserOutput,
    ListUserTagsRequest -> ListUserTagsResponse
);
tag_operations!(
    Role, "Role", role_name,
    TagRoleRequest -> TagRoleOutput,
    UntagRoleRequest -> UntagRoleOutput,
    ListRoleTagsRequest -> ListRoleTagsResponse
);
tag_operations!(
    Policy, "Policy", policy_arn,
    TagPolicyRequest -> TagPolicyOutput,
    UntagPolicyRequest -> UntagPolicyOutput,
    ListPolicyTagsRequest -> ListPolicyTagsResponse
);
