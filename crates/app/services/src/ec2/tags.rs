//! Tags in requests and answers (NET-82).

use super::error;
use super::shapes;
use isolarium_model::ec2::{MAX_TAGS, Tags};
use isolarium_wire::ApiError;

/// Most characters of a key.
const MAX_KEY: usize = 127;
/// Most characters of a value.
const MAX_VALUE: usize = 255;

/// The tags that a creation gives to what it makes, a resource of the type `resource_type`.
///
/// # Errors
/// `InvalidParameterValue` for another resource type and for tags that cannot be; `TagLimitExceeded`.
pub(super) fn specified(given: Option<&Vec<shapes::TagSpecification>>, resource_type: &str) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for specification in given.into_iter().flatten() {
        let named = specification
            .resource_type
            .as_deref()
            .ok_or_else(|| error::missing("ResourceType"))?;
        if named != resource_type {
            return Err(error::invalid(format!(
                "'{named}' is not a valid taggable resource type for this operation."
            )));
        }
        add(&mut tags, specification.tags.as_deref().unwrap_or_default())?;
    }
    Ok(tags)
}

/// Adds tags of one request to those of a resource; a key that is there gets the new value, and no key comes twice in the
/// request.
///
/// # Errors
/// As [`specified`]. Nothing is changed then.
pub(super) fn add(tags: &mut Tags, given: &[shapes::Tag]) -> Result<(), ApiError> {
    let mut fresh = Tags::new();
    for tag in given {
        let key = tag.key.clone().unwrap_or_default();
        let value = tag.value.clone().unwrap_or_default();
        if key.is_empty() {
            return Err(error::invalid("Tag key cannot be empty."));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(error::invalid(
                "Tag keys starting with 'aws:' are reserved for internal use",
            ));
        }
        if key.chars().count() > MAX_KEY {
            return Err(error::invalid(format!(
                "Tag key exceeds the maximum length of {MAX_KEY} characters"
            )));
        }
        if value.chars().count() > MAX_VALUE {
            return Err(error::invalid(format!(
                "Tag value exceeds the maximum length of {MAX_VALUE} characters"
            )));
        }
        if fresh.insert(key.clone(), value).is_some() {
            return Err(error::invalid(format!("Duplicate tag key '{key}' specified.")));
        }
    }
    let added = fresh.keys().filter(|key| !tags.contains_key(*key)).count();
    if tags.len() + added > MAX_TAGS {
        let text = "The maximum number of Tags for a resource has been reached.";
        return Err(error::limit("TagLimitExceeded", text));
    }
    tags.extend(fresh);
    Ok(())
}

/// Tags as answers have them: absent where there are none.
pub(super) fn shown(tags: &Tags) -> Option<Vec<shapes::Tag>> {
    let tag = |(key, value): (&String, &String)| shapes::Tag {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    (!tags.is_empty()).then(|| tags.iter().map(tag).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> shapes::Tag {
        shapes::Tag {
            key: Some(key.into()),
            value: Some(value.into()),
        }
    }

    /// Proves: NET-82
    #[test]
    fn tags_that_cannot_be_change_nothing() {
        let mut tags = Tags::from([("kept".into(), "1".into())]);
        let long = "k".repeat(MAX_KEY + 1);
        for bad in [
            vec![tag("a", "1"), tag("a", "2")],
            vec![tag("b", "1"), tag("aws:x", "1")],
            vec![tag("", "1")],
            vec![tag(&long, "1")],
            vec![tag("v", &"v".repeat(MAX_VALUE + 1))],
        ] {
            assert_eq!(add(&mut tags, &bad).unwrap_err().code, "InvalidParameterValue");
        }
        let many: Vec<_> = (0..MAX_TAGS).map(|n| tag(&n.to_string(), "")).collect();
        assert_eq!(add(&mut tags, &many).unwrap_err().code, "TagLimitExceeded");
        assert_eq!(tags.len(), 1);
        add(&mut tags, &[tag("kept", "2"), tag("new", "")]).unwrap();
        assert_eq!(
            tags,
            Tags::from([("kept".into(), "2".into()), ("new".into(), String::new())])
        );
    }

    /// Proves: NET-82
    #[test]
    fn a_creation_tags_what_it_makes_and_nothing_else() {
        let specification = |kind: &str| {
            vec![shapes::TagSpecification {
                resource_type: Some(kind.into()),
                tags: Some(vec![tag("team", "ml")]),
            }]
        };
        assert_eq!(specified(Some(&specification("vpc")), "vpc").unwrap().len(), 1);
        assert_eq!(specified(None, "vpc").unwrap().len(), 0);
        let refused = specified(Some(&specification("subnet")), "vpc").unwrap_err();
        assert_eq!(refused.code, "InvalidParameterValue");
    }
}
