//! Security groups and their rules on a store in memory.

use super::*;
use crate::ecr::fixture::{Fixture, refusal};
use isolarium_wire::Document;

type Answer<T> = Result<T, ApiError>;

fn call<I: Into<Document>, O>(fixture: &Fixture, operation: &str, input: I) -> Answer<O>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    fixture.call("ec2", operation, input)
}

fn json<O>(fixture: &Fixture, operation: &str, input: &str) -> Answer<O>
where
    O: TryFrom<Document>,
    O::Error: std::fmt::Debug,
{
    let input: Document = serde_json::from_str(input).unwrap();
    call(fixture, operation, input)
}

/// A VPC's id.
fn vpc(fixture: &Fixture, block: &str) -> String {
    let made: shapes::CreateVpcResult = json(fixture, "CreateVpc", &format!(r#"{{"CidrBlock":"{block}"}}"#)).unwrap();
    made.vpc.unwrap().vpc_id.unwrap()
}

fn group(fixture: &Fixture, vpc: &str, name: &str) -> String {
    let input = format!(r#"{{"GroupName":"{name}","Description":"d","VpcId":"{vpc}"}}"#);
    let made: shapes::CreateSecurityGroupResult = json(fixture, "CreateSecurityGroup", &input).unwrap();
    made.group_id.unwrap()
}

fn shown(fixture: &Fixture, id: &str) -> shapes::SecurityGroup {
    let input = format!(r#"{{"GroupIds":["{id}"]}}"#);
    let all: shapes::DescribeSecurityGroupsResult = json(fixture, "DescribeSecurityGroups", &input).unwrap();
    all.security_groups.unwrap().remove(0)
}

fn ingress(fixture: &Fixture, group: &str, permissions: &str) -> Answer<shapes::AuthorizeSecurityGroupIngressResult> {
    let input = format!(r#"{{"GroupId":"{group}","IpPermissions":[{permissions}]}}"#);
    json(fixture, "AuthorizeSecurityGroupIngress", &input)
}

const SSH: &str =
    r#"{"IpProtocol":"tcp","FromPort":22,"ToPort":22,"IpRanges":[{"CidrIp":"10.1.2.3/16","Description":"a"}]}"#;

/// Proves: NET-15, NET-17
#[test]
fn a_new_group_lets_nothing_in_and_everything_out_and_rules_come_and_go() {
    let fixture = Fixture::new();
    let vpc = vpc(&fixture, "10.0.0.0/16");
    let id = group(&fixture, &vpc, "web");
    let fresh = shown(&fixture, &id);
    assert_eq!(fresh.ip_permissions, Some(Vec::new()));
    let out = fresh.ip_permissions_egress.unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].ip_protocol.as_deref(), Some("-1"));
    assert_eq!(
        out[0].ip_ranges.as_ref().unwrap()[0].cidr_ip.as_deref(),
        Some("0.0.0.0/0")
    );
    let made = ingress(&fixture, &id, SSH)
        .unwrap()
        .security_group_rules
        .unwrap()
        .remove(0);
    assert_eq!(made.cidr_ipv4.as_deref(), Some("10.1.0.0/16"), "host bits are cleared");
    assert_eq!((made.from_port, made.is_egress), (Some(22), Some(false)));
    let same = r#"{"IpProtocol":"6","FromPort":22,"ToPort":22,"IpRanges":[{"CidrIp":"10.1.0.0/16"}]}"#;
    assert_eq!(refusal(ingress(&fixture, &id, same)).0, "InvalidPermission.Duplicate");
    // The same rule is another one in the other direction.
    let input = format!(r#"{{"GroupId":"{id}","IpPermissions":[{same}]}}"#);
    json::<shapes::AuthorizeSecurityGroupEgressResult>(&fixture, "AuthorizeSecurityGroupEgress", &input).unwrap();
    let gone: shapes::RevokeSecurityGroupEgressResult = json(&fixture, "RevokeSecurityGroupEgress", &input).unwrap();
    assert_eq!(gone.revoked_security_group_rules.unwrap().len(), 1);
    let again = json::<shapes::RevokeSecurityGroupEgressResult>(&fixture, "RevokeSecurityGroupEgress", &input);
    assert_eq!(
        refusal(again),
        (
            "InvalidPermission.NotFound".into(),
            "The specified rule does not exist in this security group".into()
        )
    );
    let by_id = format!(
        r#"{{"GroupId":"{id}","SecurityGroupRuleIds":["{}"]}}"#,
        made.security_group_rule_id.unwrap()
    );
    json::<shapes::RevokeSecurityGroupIngressResult>(&fixture, "RevokeSecurityGroupIngress", &by_id).unwrap();
    assert_eq!(shown(&fixture, &id).ip_permissions, Some(Vec::new()));
    let everything = r#"{"IpProtocol":"-1","IpRanges":[{"CidrIp":"0.0.0.0/0"}]}"#;
    let input = format!(r#"{{"GroupId":"{id}","IpPermissions":[{everything}]}}"#);
    json::<shapes::RevokeSecurityGroupEgressResult>(&fixture, "RevokeSecurityGroupEgress", &input).unwrap();
    assert_eq!(
        shown(&fixture, &id).ip_permissions_egress,
        Some(Vec::new()),
        "NET-15: revocable"
    );
}

/// Proves: NET-17, NET-18, NET-20
#[test]
fn rules_that_cannot_be_are_refused_and_change_nothing() {
    let fixture = Fixture::new();
    let home = vpc(&fixture, "10.0.0.0/16");
    let away = vpc(&fixture, "10.1.0.0/16");
    let id = group(&fixture, &home, "web");
    let foreign = group(&fixture, &away, "web");
    let range = r#""IpRanges":[{"CidrIp":"0.0.0.0/0"}]"#;
    let cases = [
        (format!(r#"{{"IpProtocol":"tcp",{range}}}"#), "InvalidParameterValue"),
        (
            format!(r#"{{"IpProtocol":"tcp","FromPort":2,"ToPort":1,{range}}}"#),
            "InvalidParameterValue",
        ),
        (
            format!(r#"{{"IpProtocol":"udp","FromPort":0,"ToPort":65536,{range}}}"#),
            "InvalidParameterValue",
        ),
        (
            format!(r#"{{"IpProtocol":"icmp","FromPort":-1,"ToPort":3,{range}}}"#),
            "InvalidParameterValue",
        ),
        (format!(r#"{{"IpProtocol":"50",{range}}}"#), "InvalidParameterValue"),
        (
            format!(r#"{{"IpProtocol":"carrier-pigeon",{range}}}"#),
            "InvalidParameterValue",
        ),
        (r#"{"IpProtocol":"-1"}"#.into(), "MissingParameter"),
        (
            r#"{"IpProtocol":"-1","IpRanges":[{"CidrIp":"10.0.0.0/33"}]}"#.into(),
            "InvalidParameterValue",
        ),
        (
            r#"{"IpProtocol":"-1","Ipv6Ranges":[{"CidrIpv6":"::/0"}]}"#.into(),
            "InvalidParameterValue",
        ),
        (
            format!(r#"{{"IpProtocol":"-1","UserIdGroupPairs":[{{"GroupId":"{foreign}"}}]}}"#),
            "InvalidGroup.NotFound",
        ),
        (
            r#"{"IpProtocol":"-1","PrefixListIds":[{"PrefixListId":"pl-00000000000000000"}]}"#.into(),
            "InvalidPrefixListID.NotFound",
        ),
        (format!(r#"{SSH},{SSH}"#), "InvalidParameterValue"),
        (
            format!(r#"{SSH},{{"IpProtocol":"tcp",{range}}}"#),
            "InvalidParameterValue",
        ),
    ];
    for (permissions, code) in cases {
        assert_eq!(refusal(ingress(&fixture, &id, &permissions)).0, code, "{permissions}");
    }
    assert_eq!(
        shown(&fixture, &id).ip_permissions,
        Some(Vec::new()),
        "nothing was changed"
    );
    let own = format!(r#"{{"IpProtocol":"-1","UserIdGroupPairs":[{{"GroupId":"{id}"}}]}}"#);
    let list = prefix_list::s3(&"us-east-1".parse().unwrap());
    let lists = format!(r#"{{"IpProtocol":"-1","PrefixListIds":[{{"PrefixListId":"{list}"}}]}}"#);
    let ping = format!(r#"{{"IpProtocol":"icmp","FromPort":8,"ToPort":-1,{range}}}"#);
    ingress(&fixture, &id, &format!("{own},{lists},{ping}")).expect("control: itself, a prefix list and a type");
    let view = shown(&fixture, &id).ip_permissions.unwrap();
    assert_eq!(
        view.len(),
        2,
        "permissions of one kind of traffic stand together: {view:?}"
    );
}

/// Proves: NET-20
#[test]
fn a_direction_has_sixty_rules_and_no_more() {
    let fixture = Fixture::new();
    let id = group(&fixture, &vpc(&fixture, "10.0.0.0/16"), "full");
    let ranges: Vec<String> = (0..60).map(|n| format!(r#"{{"CidrIp":"10.0.{n}.0/24"}}"#)).collect();
    let permission = |ranges: &[String]| {
        format!(
            r#"{{"IpProtocol":"tcp","FromPort":1,"ToPort":1,"IpRanges":[{}]}}"#,
            ranges.join(",")
        )
    };
    let more = permission(&[ranges.clone(), vec![r#"{"CidrIp":"10.1.0.0/24"}"#.into()]].concat());
    assert_eq!(
        refusal(ingress(&fixture, &id, &more)).0,
        "RulesPerSecurityGroupLimitExceeded"
    );
    ingress(&fixture, &id, &permission(&ranges)).expect("control: sixty fit");
    let one = permission(&[r#"{"CidrIp":"10.1.0.0/24"}"#.into()]);
    assert_eq!(
        refusal(ingress(&fixture, &id, &one)).0,
        "RulesPerSecurityGroupLimitExceeded"
    );
}

/// Proves: NET-20, NET-84
#[test]
fn names_are_checked_and_unique_in_a_vpc_and_a_group_in_use_stays() {
    let fixture = Fixture::new();
    let home = vpc(&fixture, "10.0.0.0/16");
    let away = vpc(&fixture, "10.1.0.0/16");
    let create = |name: &str, vpc: &str| {
        let input = format!(r#"{{"GroupName":{name:?},"Description":"d","VpcId":"{vpc}"}}"#);
        json::<shapes::CreateSecurityGroupResult>(&fixture, "CreateSecurityGroup", &input)
    };
    let long = "n".repeat(256);
    for bad in ["", "sg-mine", "with\ttab", "größe", &long] {
        let (code, _) = refusal(create(bad, &home));
        assert!(
            ["InvalidParameterValue", "MissingParameter"].contains(&code.as_str()),
            "{bad}: {code}"
        );
    }
    assert_eq!(refusal(create("default", &home)).0, "InvalidGroup.Reserved");
    assert_eq!(
        refusal(create("web", "vpc-00000000000000000")).0,
        "InvalidVpcID.NotFound"
    );
    let id = create("web", &home).unwrap().group_id.unwrap();
    assert_eq!(
        refusal(create("web", &home)),
        (
            "InvalidGroup.Duplicate".into(),
            format!("The security group 'web' already exists for VPC '{home}'")
        )
    );
    create("web", &away).expect("control: another VPC");
    let peer = create("peer", &home).unwrap().group_id.unwrap();
    let from_it = format!(r#"{{"IpProtocol":"-1","UserIdGroupPairs":[{{"GroupId":"{id}"}}]}}"#);
    ingress(&fixture, &peer, &from_it).unwrap();
    let delete = |id: &str| {
        let input = format!(r#"{{"GroupId":"{id}"}}"#);
        json::<shapes::DeleteSecurityGroupResult>(&fixture, "DeleteSecurityGroup", &input)
    };
    assert_eq!(refusal(delete(&id)).0, "DependencyViolation");
    delete(&peer).unwrap();
    delete(&id).expect("control: nothing names it any more");
    assert_eq!(
        refusal(delete(&id)),
        (
            "InvalidGroup.NotFound".into(),
            format!("The security group '{id}' does not exist")
        )
    );
    let input = format!(r#"{{"Filters":[{{"Name":"vpc-id","Values":["{home}"]}}]}}"#);
    let left: shapes::DescribeSecurityGroupsResult = json(&fixture, "DescribeSecurityGroups", &input).unwrap();
    let left = left.security_groups.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(refusal(delete(left[0].group_id.as_ref().unwrap())).0, "CannotDelete");
}

/// Proves: NET-82, NET-83
#[test]
fn rules_are_modified_described_and_redescribed() {
    let fixture = Fixture::new();
    let id = group(&fixture, &vpc(&fixture, "10.0.0.0/16"), "web");
    let tags = r#""TagSpecifications":[{"ResourceType":"security-group-rule","Tags":[{"Key":"team","Value":"ml"}]}]"#;
    let input = format!(r#"{{"GroupId":"{id}","IpPermissions":[{SSH}],{tags}}}"#);
    let made: shapes::AuthorizeSecurityGroupIngressResult =
        json(&fixture, "AuthorizeSecurityGroupIngress", &input).unwrap();
    let rule = made.security_group_rules.unwrap()[0]
        .security_group_rule_id
        .clone()
        .unwrap();
    let rules = |input: &str| {
        let all: Answer<shapes::DescribeSecurityGroupRulesResult> = json(&fixture, "DescribeSecurityGroupRules", input);
        all.map(|all| all.security_group_rules.unwrap())
    };
    assert_eq!(
        rules(r#"{"Filters":[{"Name":"tag:team","Values":["ml"]}]}"#)
            .unwrap()
            .len(),
        1
    );
    let input = format!(
        r#"{{"GroupId":"{id}","SecurityGroupRules":[{{"SecurityGroupRuleId":"{rule}","SecurityGroupRule":
            {{"IpProtocol":"udp","FromPort":53,"ToPort":53,"CidrIpv4":"10.9.0.0/16"}}}}]}}"#
    );
    json::<shapes::ModifySecurityGroupRulesResult>(&fixture, "ModifySecurityGroupRules", &input).unwrap();
    let found = rules(&format!(r#"{{"SecurityGroupRuleIds":["{rule}"]}}"#))
        .unwrap()
        .remove(0);
    assert_eq!((found.ip_protocol.as_deref(), found.from_port), (Some("udp"), Some(53)));
    assert_eq!(found.tags.unwrap().len(), 1, "the tags stay");
    let input = format!(
        r#"{{"GroupId":"{id}","SecurityGroupRuleDescriptions":[{{"SecurityGroupRuleId":"{rule}","Description":"dns"}}]}}"#
    );
    let name = "UpdateSecurityGroupRuleDescriptionsIngress";
    json::<shapes::UpdateSecurityGroupRuleDescriptionsIngressResult>(&fixture, name, &input).unwrap();
    let found = rules(&format!(r#"{{"SecurityGroupRuleIds":["{rule}"]}}"#))
        .unwrap()
        .remove(0);
    assert_eq!(found.description.as_deref(), Some("dns"));
    let other = "UpdateSecurityGroupRuleDescriptionsEgress";
    let refused = json::<shapes::UpdateSecurityGroupRuleDescriptionsEgressResult>(&fixture, other, &input);
    assert_eq!(
        refusal(refused).0,
        "InvalidSecurityGroupRuleId.NotFound",
        "it is no egress rule"
    );
    assert_eq!(
        refusal(rules(r#"{"SecurityGroupRuleIds":["sgr-00000000000000000"]}"#)).0,
        "InvalidSecurityGroupRuleId.NotFound"
    );
}
