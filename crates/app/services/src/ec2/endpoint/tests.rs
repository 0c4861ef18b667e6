//! Gateway endpoints on a store in memory.

use super::*;
use crate::ecr::fixture::{Fixture, refusal, scope};
use isolarium_store::StateStore;
use isolarium_store::state::Query;
use isolarium_wire::Document as Input;

const S3: &str = "com.amazonaws.us-east-1.s3";

fn call<O>(fixture: &Fixture, operation: &str, input: &str) -> Result<O, ApiError>
where
    O: TryFrom<Input>,
    O::Error: std::fmt::Debug,
{
    let input: Input = serde_json::from_str(input).unwrap();
    fixture.call("ec2", operation, input)
}

/// A VPC and its main route table.
fn vpc(fixture: &Fixture, block: &str) -> (String, String) {
    let made: shapes::CreateVpcResult = call(fixture, "CreateVpc", &format!(r#"{{"CidrBlock":"{block}"}}"#)).unwrap();
    let id = made.vpc.unwrap().vpc_id.unwrap();
    let store: &dyn StateStore = &fixture.store;
    let tables = store
        .query::<RouteTable>(&Query::all(&scope("123456789012")))
        .unwrap()
        .rows;
    let table = tables.iter().find(|found| found.record.vpc.to_string() == id).unwrap();
    (id, table.record.id.to_string())
}

fn create(fixture: &Fixture, members: &str) -> Result<shapes::VpcEndpoint, ApiError> {
    let made = call::<shapes::CreateVpcEndpointResult>(fixture, "CreateVpcEndpoint", &format!("{{{members}}}"));
    made.map(|made| made.vpc_endpoint.unwrap())
}

fn shown(fixture: &Fixture, id: &str) -> shapes::VpcEndpoint {
    let input = format!(r#"{{"VpcEndpointIds":["{id}"]}}"#);
    let all: shapes::DescribeVpcEndpointsResult = call(fixture, "DescribeVpcEndpoints", &input).unwrap();
    all.vpc_endpoints.unwrap().remove(0)
}

/// Proves: NET-32, NET-41, NET-85, BT-13, BT-16
#[test]
fn an_endpoint_is_of_type_gateway_unless_told_and_has_the_full_access_policy() {
    let fixture = Fixture::new();
    let (id, table) = vpc(&fixture, "10.0.0.0/16");
    let made = create(
        &fixture,
        &format!(r#""VpcId":"{id}","ServiceName":"{S3}","RouteTableIds":["{table}"]"#),
    )
    .unwrap();
    assert_eq!(made.vpc_endpoint_type, Some(shapes::VpcEndpointType::Gateway));
    assert_eq!(made.state.as_deref(), Some("available"));
    assert_eq!(made.route_table_ids, Some(vec![table]));
    let endpoint = made.vpc_endpoint_id.unwrap();
    let policy = shown(&fixture, &endpoint).policy_document.unwrap();
    assert_eq!(policy, FULL_ACCESS);
    let custom = r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"*"}]}"#;
    let modify = |rest: &str| {
        let input = format!(r#"{{"VpcEndpointId":"{endpoint}",{rest}}}"#);
        call::<shapes::ModifyVpcEndpointResult>(&fixture, "ModifyVpcEndpoint", &input)
    };
    modify(&format!(r#""PolicyDocument":{custom:?}"#)).unwrap();
    assert_eq!(shown(&fixture, &endpoint).policy_document.as_deref(), Some(custom));
    let both = format!(r#""PolicyDocument":{custom:?},"ResetPolicy":true"#);
    assert_eq!(refusal(modify(&both)).0, "InvalidParameterCombination");
    modify(r#""ResetPolicy":true"#).unwrap();
    assert_eq!(shown(&fixture, &endpoint).policy_document.as_deref(), Some(FULL_ACCESS));
    let delete = |id: &str| {
        let input = format!(r#"{{"VpcEndpointIds":["{id}"]}}"#);
        let answer = call::<shapes::DeleteVpcEndpointsResult>(&fixture, "DeleteVpcEndpoints", &input).unwrap();
        let failed = answer.unsuccessful.unwrap();
        failed
            .into_iter()
            .map(|one| one.error.unwrap().code.unwrap())
            .collect::<Vec<_>>()
    };
    assert!(delete(&endpoint).is_empty());
    assert_eq!(delete(&endpoint), ["InvalidVpcEndpointId.NotFound"]);
}

/// Proves: NET-35, VPC-25
#[test]
fn a_policy_is_one_document_that_can_be_evaluated() {
    let fixture = Fixture::new();
    let (id, _) = vpc(&fixture, "10.0.0.0/16");
    let with = |policy: &str| {
        create(
            &fixture,
            &format!(r#""VpcId":"{id}","ServiceName":"{S3}","PolicyDocument":{policy:?}"#),
        )
    };
    let deny = |sid: &str| {
        format!(
            r#"{{"Sid":"{sid}","Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::packages.*"}}"#
        )
    };
    let document = |statements: &str| format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
    let concatenated = format!("{}\n{}", document(&deny("a")), document(&deny("b")));
    let no_principal = r#"{"Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
    let long = document(&format!(
        r#"{{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::{}"]}}"#,
        "b".repeat(MAX_POLICY)
    ));
    for bad in ["", "{", "[]", "{}", &concatenated, no_principal, &long] {
        assert_eq!(refusal(with(bad)).0, "InvalidPolicyDocument", "{bad:.60}");
    }
    let store: &dyn StateStore = &fixture.store;
    let kept = store
        .query::<VpcEndpoint>(&Query::all(&scope("123456789012")))
        .unwrap()
        .rows;
    assert!(kept.is_empty(), "nothing was made");
    with(&document(&format!("{},{}", deny("a"), deny("b")))).expect("control: the two merged into one");
}

/// Proves: NET-32, NET-84, BT-14, BT-15
#[test]
fn a_table_has_one_endpoint_for_s3_and_tables_come_and_go() {
    let fixture = Fixture::new();
    let (id, table) = vpc(&fixture, "10.0.0.0/16");
    let (other, foreign) = vpc(&fixture, "10.1.0.0/16");
    let asked = |vpc: &str, table: &str| format!(r#""VpcId":"{vpc}","ServiceName":"{S3}","RouteTableIds":["{table}"]"#);
    assert_eq!(refusal(create(&fixture, &asked(&id, &foreign))).0, "InvalidParameter");
    assert_eq!(
        refusal(create(&fixture, &asked(&id, "rtb-00000000000000000"))).0,
        "InvalidRouteTableID.NotFound"
    );
    let first = create(&fixture, &asked(&id, &table)).unwrap().vpc_endpoint_id.unwrap();
    let list = prefix_list::s3(&"us-east-1".parse().unwrap());
    let taken = (
        "RouteAlreadyExists".to_owned(),
        format!("The route identified by {list} already exists"),
    );
    assert_eq!(refusal(create(&fixture, &asked(&id, &table))), taken);
    let second =
        create(&fixture, &format!(r#""VpcId":"{id}","ServiceName":"{S3}""#)).expect("control: without the table");
    let second = second.vpc_endpoint_id.unwrap();
    let modify = |endpoint: &str, what: &str, table: &str| {
        let input = format!(r#"{{"VpcEndpointId":"{endpoint}","{what}":["{table}"]}}"#);
        call::<shapes::ModifyVpcEndpointResult>(&fixture, "ModifyVpcEndpoint", &input)
    };
    assert_eq!(refusal(modify(&second, "AddRouteTableIds", &table)), taken);
    assert_eq!(
        refusal(modify(&second, "RemoveRouteTableIds", &table)).0,
        "InvalidParameter"
    );
    modify(&first, "RemoveRouteTableIds", &table).unwrap();
    modify(&second, "AddRouteTableIds", &table).expect("control: the table is free again");
    assert_eq!(shown(&fixture, &first).route_table_ids, Some(Vec::new()));
    assert_eq!(shown(&fixture, &second).route_table_ids, Some(vec![table]));
    create(&fixture, &asked(&other, &foreign)).expect("control: another VPC");
}

/// Proves: NET-84
#[test]
fn services_that_are_not_there_and_endpoints_that_are_no_gateways_are_refused() {
    let fixture = Fixture::new();
    let (id, _) = vpc(&fixture, "10.0.0.0/16");
    let named =
        |service: &str, rest: &str| create(&fixture, &format!(r#""VpcId":"{id}","ServiceName":"{service}"{rest}"#));
    let unknown = "com.amazonaws.us-east-1.nothing";
    assert_eq!(
        refusal(named(unknown, "")),
        (
            "InvalidServiceName".into(),
            format!("The Vpc Endpoint Service '{unknown}' does not exist")
        )
    );
    assert_eq!(
        refusal(named("com.amazonaws.eu-west-1.s3", "")).0,
        "InvalidServiceName",
        "another region"
    );
    let api = "com.amazonaws.us-east-1.sagemaker.api";
    assert_eq!(refusal(named(api, "")).0, "InvalidParameter");
    assert_eq!(
        refusal(named(api, r#","VpcEndpointType":"GatewayLoadBalancer""#)).0,
        "UnsupportedOperation"
    );
    assert_eq!(
        refusal(named(
            api,
            r#","VpcEndpointType":"Interface","RouteTableIds":["rtb-1"]"#
        ))
        .0,
        "InvalidParameter"
    );
    assert_eq!(refusal(named(S3, r#","SubnetIds":["subnet-1"]"#)).0, "InvalidParameter");
    assert_eq!(refusal(named(S3, r#","PrivateDnsEnabled":true"#)).0, "InvalidParameter");
    named(S3, r#","PrivateDnsEnabled":false"#).expect("control");
    let gateways = r#"{"Filters":[{"Name":"service-type","Values":["Gateway"]}]}"#;
    let services: shapes::DescribeVpcEndpointServicesResult =
        call(&fixture, "DescribeVpcEndpointServices", gateways).unwrap();
    assert_eq!(services.service_names, Some(vec![S3.to_owned()]));
}

/// Proves: NET-33
#[test]
fn the_prefix_list_of_s3_shows_its_ranges() {
    let fixture = Fixture::new();
    let lists: shapes::DescribePrefixListsResult = call(&fixture, "DescribePrefixLists", "{}").unwrap();
    let list = lists.prefix_lists.unwrap().remove(0);
    assert_eq!(list.prefix_list_name.as_deref(), Some(S3));
    assert_eq!(list.cidrs, Some(vec!["198.18.128.0/20".to_owned()]));
    let id = list.prefix_list_id.unwrap();
    let entries: shapes::GetManagedPrefixListEntriesResult = call(
        &fixture,
        "GetManagedPrefixListEntries",
        &format!(r#"{{"PrefixListId":"{id}"}}"#),
    )
    .unwrap();
    assert_eq!(entries.entries.unwrap()[0].cidr.as_deref(), Some("198.18.128.0/20"));
    let managed: shapes::DescribeManagedPrefixListsResult = call(
        &fixture,
        "DescribeManagedPrefixLists",
        r#"{"Filters":[{"Name":"owner-id","Values":["AWS"]}]}"#,
    )
    .unwrap();
    assert_eq!(managed.prefix_lists.unwrap()[0].prefix_list_id.as_ref(), Some(&id));
    let none: shapes::DescribePrefixListsResult = call(
        &fixture,
        "DescribePrefixLists",
        r#"{"Filters":[{"Name":"prefix-list-name","Values":["com.amazonaws.us-east-1.dynamodb"]}]}"#,
    )
    .unwrap();
    assert_eq!(none.prefix_lists, Some(Vec::new()));
    let unknown = r#"{"PrefixListIds":["pl-00000000000000000"]}"#;
    let refused = call::<shapes::DescribePrefixListsResult>(&fixture, "DescribePrefixLists", unknown);
    assert_eq!(refusal(refused).0, "InvalidPrefixListID.NotFound");
}
