//! Tags of every noun on a store in memory.

use super::*;
use crate::ecr::fixture::{Fixture, refusal};
use isolarium_wire::Document;

fn call<O>(fixture: &Fixture, operation: &str, input: &str) -> Result<O, ApiError>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    let input: Document = serde_json::from_str(input).unwrap();
    fixture.call("ec2", operation, input)
}

fn shown(fixture: &Fixture, filter: &str) -> Vec<String> {
    let all: shapes::DescribeTagsResult = call(fixture, "DescribeTags", filter).unwrap();
    let text = |tag: shapes::TagDescription| {
        let (kind, key, value) = (tag.resource_type.unwrap(), tag.key.unwrap(), tag.value.unwrap());
        format!("{kind} {key}={value}")
    };
    all.tags.unwrap().into_iter().map(text).collect()
}

/// Proves: NET-82
#[test]
fn tags_are_set_shown_and_removed_on_all_resources_or_on_none() {
    let fixture = Fixture::new();
    let made: shapes::CreateVpcResult = call(&fixture, "CreateVpc", r#"{"CidrBlock":"10.0.0.0/16"}"#).unwrap();
    let vpc = made.vpc.unwrap().vpc_id.unwrap();
    let groups: shapes::DescribeSecurityGroupsResult = call(&fixture, "DescribeSecurityGroups", "{}").unwrap();
    let group = groups.security_groups.unwrap().remove(0).group_id.unwrap();
    let rules: shapes::DescribeSecurityGroupRulesResult = call(&fixture, "DescribeSecurityGroupRules", "{}").unwrap();
    let rule = rules
        .security_group_rules
        .unwrap()
        .remove(0)
        .security_group_rule_id
        .unwrap();
    let create = |resources: &[&str], tags: &str| {
        let input = format!(r#"{{"Resources":{resources:?},"Tags":[{tags}]}}"#);
        call::<shapes::CreateTagsOutput>(&fixture, "CreateTags", &input)
    };
    let team = r#"{"Key":"team","Value":"ml"}"#;
    for (unknown, code) in [
        ("vpc-00000000000000000", "InvalidVpcID.NotFound"),
        ("sgr-00000000000000000", "InvalidSecurityGroupRuleId.NotFound"),
        ("i-00000000000000000", "InvalidInstanceID.NotFound"),
        ("pl-00000000000000000", "OperationNotPermitted"),
        ("thing", "InvalidID"),
    ] {
        assert_eq!(refusal(create(&[&vpc, unknown], team)).0, code);
    }
    assert_eq!(shown(&fixture, "{}"), Vec::<String>::new(), "none was tagged");
    // A group and its rule are one record.
    create(
        &[&vpc, &group, &rule, &group],
        &format!(r#"{team},{{"Key":"stage","Value":"test"}}"#),
    )
    .unwrap();
    let teams = shown(&fixture, r#"{"Filters":[{"Name":"key","Values":["team"]}]}"#);
    assert_eq!(
        teams,
        ["security-group team=ml", "security-group-rule team=ml", "vpc team=ml"]
    );
    let of_rule = r#"{"Filters":[{"Name":"resource-type","Values":["security-group-rule"]},{"Name":"tag:stage","Values":["t*"]}]}"#;
    assert_eq!(shown(&fixture, of_rule), ["security-group-rule stage=test"]);
    let delete = |tags: &str| {
        let input = format!(r#"{{"Resources":["{vpc}"]{tags}}}"#);
        call::<shapes::DeleteTagsOutput>(&fixture, "DeleteTags", &input).unwrap();
        shown(
            &fixture,
            &format!(r#"{{"Filters":[{{"Name":"resource-id","Values":["{vpc}"]}}]}}"#),
        )
    };
    assert_eq!(
        delete(r#","Tags":[{"Key":"team","Value":"other"}]"#).len(),
        2,
        "another value"
    );
    assert_eq!(delete(r#","Tags":[{"Key":"team"}]"#), ["vpc stage=test"]);
    assert_eq!(delete(""), Vec::<String>::new(), "all of them");
}
