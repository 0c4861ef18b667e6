//! The table against AWS's authorization reference.

use super::*;
use crate::authorization::input::{Extent, Writer};
use crate::authorization::{Fault, Reference};
use std::collections::BTreeSet;

fn scope() -> Scope {
    Scope {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

fn document(json: &str) -> Document {
    serde_json::from_str(json).unwrap()
}

fn ask(operation: &str, json: &str) -> Vec<Question> {
    listed(operation, &document(json), &scope(), &[])
}

fn served() -> Vec<&'static str> {
    let text = include_str!("../../../../../../models/served-operations.toml");
    let (_, rest) = text.split_once("[ec2]\n").unwrap();
    let (list, _) = rest.split_once(']').unwrap();
    list.split('"').skip(1).step_by(2).collect()
}

/// Ids as requests have them, by member.
const TEXTS: &[(&str, &str)] = &[
    ("ResourceIds", "vpc-0123456789abcdef0"),
    ("Resources", "subnet-0123456789abcdef0"),
    ("ResourceType", "vpc"),
    ("DeliverLogsPermissionArn", "arn:aws:iam::123456789012:role/thing"),
    ("AwsAccountId", "123456789012"),
];

/// Proves: IAM-7, IAM-16, IAM-58
#[test]
fn every_question_about_a_network_is_one_that_aws_asks() {
    let reference = Reference::load();
    let mut faults = BTreeSet::new();
    let operations = served();
    assert!(operations.len() > 80, "control: the list was read");
    for operation in operations {
        let own = format!("ec2:{operation}");
        for extent in [Extent::Least, Extent::Full] {
            let writer = Writer {
                service: isolarium_wire::catalog::by_name("ec2").unwrap().model(),
                extent,
                texts: TEXTS,
                always: &[],
                without: &[],
            };
            let questions = listed(operation, &writer.input(operation), &scope(), &[]);
            faults.extend(questions.iter().flat_map(|question| reference.faults(question)));
            faults.extend(reference.unasked(&own, &questions));
            if !questions.iter().any(|question| question.action == own) {
                faults.insert(Fault::new(&own, "not asked"));
            }
            if extent == Extent::Full {
                faults.extend(reference.unsupplied(&own, &questions));
            }
        }
    }
    // ec2:CreateAction is there when a creation with tags asks; see below.
    let expected = BTreeSet::from([Fault::new("ec2:CreateTags", "no ec2:CreateAction")]);
    assert_eq!(faults, expected);
}

#[test]
fn every_row_of_the_table_is_a_served_operation_and_names_members_it_has() {
    let model = isolarium_wire::catalog::by_name("ec2").unwrap().model();
    let operations = served();
    for (operation, abouts) in TABLE {
        assert!(operations.contains(operation), "{operation}");
        let input = model.operation(operation).unwrap().input.unwrap();
        let structure = model.structure(input).unwrap();
        for about in *abouts {
            if let Of(_, path) | By(_, path) | Any(path) = about {
                let first = path.split('.').next().unwrap();
                assert!(structure.member(first).is_some(), "{operation} has no {first}");
            }
        }
    }
}

/// Proves: IAM-16, IAM-58
#[test]
fn tagging_what_a_request_makes_is_asked_with_the_request_that_makes_it() {
    let tags = r#""TagSpecifications":[{"ResourceType":"subnet","Tags":[{"Key":"team","Value":"ml"}]}]"#;
    let tagged = ask(
        "CreateSubnet",
        &format!(r#"{{"VpcId":"vpc-1","CidrBlock":"10.0.0.0/24",{tags}}}"#),
    );
    let shown: Vec<(&str, &str)> = tagged
        .iter()
        .map(|question| (question.action.as_str(), question.resource.as_str()))
        .collect();
    let (subnets, vpc) = (
        "arn:aws:ec2:us-east-1:123456789012:subnet/*",
        "arn:aws:ec2:us-east-1:123456789012:vpc/vpc-1",
    );
    assert_eq!(
        shown,
        [
            ("ec2:CreateSubnet", subnets),
            ("ec2:CreateSubnet", vpc),
            ("ec2:CreateTags", subnets)
        ]
    );
    for asked in [&tagged[0], &tagged[2]] {
        assert_eq!(asked.context["aws:requesttag/team"], ["ml"]);
        assert_eq!(asked.context["aws:tagkeys"], ["team"]);
    }
    assert_eq!(tagged[2].context["ec2:createaction"], ["CreateSubnet"]);
    assert!(
        !tagged[1].context.contains_key("aws:requesttag/team"),
        "the VPC is not tagged"
    );
    assert_eq!(Reference::load().faults(&tagged[2]), []);
    let untagged = ask("CreateSubnet", r#"{"VpcId":"vpc-1","CidrBlock":"10.0.0.0/24"}"#);
    assert!(untagged.iter().all(|question| question.action == "ec2:CreateSubnet"));
    // A rule is asked about only where it is tagged.
    let authorize = |tags: &str| {
        ask(
            "AuthorizeSecurityGroupEgress",
            &format!(r#"{{"GroupId":"sg-1"{tags}}}"#),
        )
    };
    assert_eq!(authorize("").len(), 1);
    let tags = r#","TagSpecifications":[{"ResourceType":"security-group-rule","Tags":[{"Key":"a","Value":"b"}]}]"#;
    assert_eq!(authorize(tags).len(), 3);
}

/// Proves: IAM-16
#[test]
fn an_endpoint_is_asked_about_with_its_service_and_a_flow_log_with_its_role() {
    let endpoint = ask(
        "CreateVpcEndpoint",
        r#"{"VpcId":"vpc-1","ServiceName":"com.amazonaws.us-east-1.s3","RouteTableIds":["rtb-1","rtb-2"]}"#,
    );
    assert_eq!(
        endpoint[0].context["ec2:vpceservicename"],
        ["com.amazonaws.us-east-1.s3"]
    );
    assert_eq!(endpoint[0].context["ec2:vpceserviceregion"], ["us-east-1"]);
    assert_eq!(endpoint.len(), 4, "endpoint, VPC and two tables");
    let log = ask(
        "CreateFlowLogs",
        r#"{"ResourceIds":["eni-1"],"ResourceType":"NetworkInterface","DeliverLogsPermissionArn":"arn:aws:iam::123456789012:role/r"}"#,
    );
    let passed = log.last().unwrap();
    assert_eq!(passed.action, "iam:PassRole");
    assert_eq!(passed.context["iam:passedtoservice"], ["vpc-flow-logs.amazonaws.com"]);
    assert!(
        log.iter()
            .any(|question| question.resource.ends_with(":network-interface/eni-1"))
    );
    let modified = ask(
        "ModifyVpcAttribute",
        r#"{"VpcId":"vpc-1","EnableDnsSupport":{"Value":false}}"#,
    );
    assert_eq!(modified[0].context["ec2:attribute"], ["EnableDnsSupport"]);
    assert_eq!(modified[0].context["ec2:attribute/enablednssupport"], ["false"]);
}
