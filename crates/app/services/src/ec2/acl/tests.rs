//! Network ACLs on a store in memory.

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

fn shown(fixture: &Fixture, id: &str) -> shapes::NetworkAcl {
    let input = format!(r#"{{"NetworkAclIds":["{id}"]}}"#);
    let all: shapes::DescribeNetworkAclsResult = call(fixture, "DescribeNetworkAcls", &input).unwrap();
    all.network_acls.unwrap().remove(0)
}

/// Proves: NET-22
#[test]
fn entries_are_numbered_and_every_acl_ends_in_a_deny() {
    let fixture = Fixture::new();
    let made: shapes::CreateVpcResult = call(&fixture, "CreateVpc", r#"{"CidrBlock":"10.0.0.0/16"}"#).unwrap();
    let vpc = made.vpc.unwrap().vpc_id.unwrap();
    let filter = format!(r#"{{"Filters":[{{"Name":"vpc-id","Values":["{vpc}"]}}]}}"#);
    let all: shapes::DescribeNetworkAclsResult = call(&fixture, "DescribeNetworkAcls", &filter).unwrap();
    let default = all.network_acls.unwrap().remove(0);
    assert_eq!(default.is_default, Some(true));
    let rules = |acl: &shapes::NetworkAcl, egress: bool| -> Vec<(i64, String)> {
        let own = acl
            .entries
            .iter()
            .flatten()
            .filter(|entry| entry.egress == Some(egress));
        own.map(|entry| (entry.rule_number.unwrap(), entry.rule_action.unwrap().to_string()))
            .collect()
    };
    let (allow, deny) = ((100, "allow".to_owned()), (32767, "deny".to_owned()));
    assert_eq!(
        rules(&default, true),
        [allow.clone(), deny.clone()],
        "NET-5: it allows all"
    );
    let made: shapes::CreateNetworkAclResult = call(
        &fixture,
        "CreateNetworkAcl",
        &format!(r#"{{"VpcId":"{vpc}","ClientToken":"t"}}"#),
    )
    .unwrap();
    let id = made.network_acl.unwrap().network_acl_id.unwrap();
    let again: shapes::CreateNetworkAclResult = call(
        &fixture,
        "CreateNetworkAcl",
        &format!(r#"{{"VpcId":"{vpc}","ClientToken":"t"}}"#),
    )
    .unwrap();
    assert_eq!(
        again.network_acl.unwrap().network_acl_id.as_ref(),
        Some(&id),
        "one token, one ACL"
    );
    assert_eq!(
        rules(&shown(&fixture, &id), false),
        std::slice::from_ref(&deny),
        "a new one allows nothing"
    );
    let entry = |number: i64, rest: &str| {
        format!(r#"{{"NetworkAclId":"{id}","RuleNumber":{number},"RuleAction":"allow","Egress":false,{rest}}}"#)
    };
    let web = r#""Protocol":"6","PortRange":{"From":443,"To":443},"CidrBlock":"10.0.0.9/8""#;
    let create = |input: &str| call::<shapes::CreateNetworkAclEntryOutput>(&fixture, "CreateNetworkAclEntry", input);
    for (bad, code) in [
        (entry(0, web), "InvalidParameterValue"),
        (entry(32767, web), "InvalidParameterValue"),
        (
            entry(1, r#""Protocol":"6","CidrBlock":"0.0.0.0/0""#),
            "MissingParameter",
        ),
        (
            entry(1, r#""Protocol":"1","CidrBlock":"0.0.0.0/0""#),
            "MissingParameter",
        ),
        (entry(1, r#""Protocol":"-1""#), "MissingParameter"),
        (
            entry(1, r#""Protocol":"-1","Ipv6CidrBlock":"::/0""#),
            "InvalidParameterValue",
        ),
        (
            entry(1, r#""Protocol":"47","CidrBlock":"0.0.0.0/0""#),
            "InvalidParameterValue",
        ),
    ] {
        assert_eq!(refusal(create(&bad)).0, code, "{bad}");
    }
    create(&entry(90, web)).unwrap();
    assert_eq!(refusal(create(&entry(90, web))).0, "NetworkAclEntryAlreadyExists");
    let found = shown(&fixture, &id);
    assert_eq!(rules(&found, false), [(90, "allow".into()), deny.clone()]);
    let first = found
        .entries
        .as_ref()
        .unwrap()
        .iter()
        .find(|entry| entry.rule_number == Some(90))
        .unwrap();
    assert_eq!(first.cidr_block.as_deref(), Some("10.0.0.0/8"), "host bits are cleared");
    let replaced = entry(90, r#""Protocol":"-1","CidrBlock":"0.0.0.0/0""#).replace("allow", "deny");
    call::<shapes::ReplaceNetworkAclEntryOutput>(&fixture, "ReplaceNetworkAclEntry", &replaced).unwrap();
    assert_eq!(rules(&shown(&fixture, &id), false), [(90, "deny".into()), deny.clone()]);
    let gone = format!(r#"{{"NetworkAclId":"{id}","RuleNumber":90,"Egress":false}}"#);
    let other_way = gone.replace("false", "true");
    let delete = |input: &str| call::<shapes::DeleteNetworkAclEntryOutput>(&fixture, "DeleteNetworkAclEntry", input);
    assert_eq!(refusal(delete(&other_way)).0, "InvalidNetworkAclEntry.NotFound");
    delete(&gone).unwrap();
    assert_eq!(rules(&shown(&fixture, &id), false), [deny]);
    let delete = |id: &str| {
        let input = format!(r#"{{"NetworkAclId":"{id}"}}"#);
        call::<shapes::DeleteNetworkAclOutput>(&fixture, "DeleteNetworkAcl", &input)
    };
    assert_eq!(
        refusal(delete(default.network_acl_id.as_ref().unwrap())).0,
        "InvalidParameterValue"
    );
    delete(&id).unwrap();
    assert_eq!(refusal(delete(&id)).0, "InvalidNetworkAclID.NotFound");
}
