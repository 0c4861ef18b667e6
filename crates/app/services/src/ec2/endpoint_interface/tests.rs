//! Interface endpoints on a store in memory.

use super::*;
use crate::ecr::fixture::{Fixture, refusal, scope};
use isolarium_store::StateStore;
use isolarium_store::state::Query;
use isolarium_wire::Document as Input;

const API: &str = "com.amazonaws.us-east-1.sagemaker.api";
const RUNTIME: &str = "com.amazonaws.us-east-1.sagemaker.runtime";
const FIPS: &str = "com.amazonaws.us-east-1.sagemaker.runtime-fips";
const S3: &str = "com.amazonaws.us-east-1.s3";

fn call<O>(fixture: &Fixture, operation: &str, input: &str) -> Result<O, ApiError>
where
    O: TryFrom<Input>,
    O::Error: std::fmt::Debug,
{
    let input: Input = serde_json::from_str(input).unwrap();
    fixture.call("ec2", operation, input)
}

/// A VPC with both DNS attributes and a subnet in each of three zones.
struct Place {
    fixture: Fixture,
    vpc: String,
    subnets: Vec<String>,
}

impl Place {
    fn new() -> Self {
        let fixture = Fixture::new();
        let made: shapes::CreateVpcResult = call(&fixture, "CreateVpc", r#"{"CidrBlock":"10.0.0.0/16"}"#).unwrap();
        let vpc = made.vpc.unwrap().vpc_id.unwrap();
        let mut place = Self {
            fixture,
            vpc,
            subnets: Vec::new(),
        };
        place.hostnames(true);
        place.subnets = ["a", "b", "c"]
            .into_iter()
            .enumerate()
            .map(|(n, zone)| place.subnet(n, zone))
            .collect();
        place
    }

    fn subnet(&self, n: usize, zone: &str) -> String {
        let input = format!(
            r#"{{"VpcId":"{}","CidrBlock":"10.0.{n}.0/24","AvailabilityZone":"us-east-1{zone}"}}"#,
            self.vpc
        );
        let made: shapes::CreateSubnetResult = call(&self.fixture, "CreateSubnet", &input).unwrap();
        made.subnet.unwrap().subnet_id.unwrap()
    }

    fn hostnames(&self, value: bool) {
        let input = format!(r#"{{"VpcId":"{}","EnableDnsHostnames":{{"Value":{value}}}}}"#, self.vpc);
        call::<shapes::ModifyVpcAttributeOutput>(&self.fixture, "ModifyVpcAttribute", &input).unwrap();
    }

    fn group(&self, name: &str) -> String {
        let input = format!(r#"{{"VpcId":"{}","GroupName":"{name}","Description":"d"}}"#, self.vpc);
        let made: shapes::CreateSecurityGroupResult = call(&self.fixture, "CreateSecurityGroup", &input).unwrap();
        made.group_id.unwrap()
    }

    fn create(&self, service: &str, rest: &str) -> Result<shapes::VpcEndpoint, ApiError> {
        let input = format!(
            r#"{{"VpcId":"{}","ServiceName":"{service}","VpcEndpointType":"Interface"{rest}}}"#,
            self.vpc
        );
        let made = call::<shapes::CreateVpcEndpointResult>(&self.fixture, "CreateVpcEndpoint", &input);
        made.map(|made| made.vpc_endpoint.unwrap())
    }

    fn in_subnets(&self, which: &[usize]) -> String {
        let ids: Vec<String> = which.iter().map(|n| format!("{:?}", self.subnets[*n])).collect();
        format!(r#","SubnetIds":[{}]"#, ids.join(","))
    }

    fn modify(&self, endpoint: &str, rest: &str) -> Result<shapes::ModifyVpcEndpointResult, ApiError> {
        let input = format!(r#"{{"VpcEndpointId":"{endpoint}"{rest}}}"#);
        call(&self.fixture, "ModifyVpcEndpoint", &input)
    }

    fn shown(&self, endpoint: &str) -> shapes::VpcEndpoint {
        let input = format!(r#"{{"VpcEndpointIds":["{endpoint}"]}}"#);
        let all: shapes::DescribeVpcEndpointsResult = call(&self.fixture, "DescribeVpcEndpoints", &input).unwrap();
        all.vpc_endpoints.unwrap().remove(0)
    }

    fn interfaces(&self) -> Vec<shapes::NetworkInterface> {
        let all: shapes::DescribeNetworkInterfacesResult =
            call(&self.fixture, "DescribeNetworkInterfaces", "{}").unwrap();
        all.network_interfaces.unwrap()
    }

    fn endpoints(&self) -> usize {
        let store: &dyn StateStore = &self.fixture.store;
        let all = store.query::<VpcEndpoint>(&Query::all(&scope("123456789012")));
        all.unwrap().rows.len()
    }
}

fn names(endpoint: &shapes::VpcEndpoint) -> Vec<String> {
    let entries = endpoint.dns_entries.clone().unwrap();
    entries.into_iter().map(|entry| entry.dns_name.unwrap()).collect()
}

/// Proves: NET-11, NET-12, NET-41, NET-42, NET-43, PL-3, PL-6, PL-33
#[test]
fn an_endpoint_has_an_interface_in_each_subnet_names_and_the_full_access_policy() {
    let place = Place::new();
    let made = place.create(API, &place.in_subnets(&[1, 0])).unwrap();
    let id = made.vpc_endpoint_id.clone().unwrap();
    assert_eq!(made.state.as_deref(), Some("pending"));
    assert_eq!(made.vpc_endpoint_type, Some(shapes::VpcEndpointType::Interface));
    assert_eq!(made.policy_document.as_deref(), Some(FULL_ACCESS));
    assert_eq!(made.private_dns_enabled, Some(true), "the API's default");
    let groups = made.groups.clone().unwrap();
    assert_eq!(groups[0].group_name.as_deref(), Some("default"), "the VPC's own group");
    let own = names(&made);
    let stem = own[0]
        .strip_suffix(".api.sagemaker.us-east-1.vpce.amazonaws.com")
        .unwrap();
    assert_eq!(stem.len(), id.len() + 9);
    assert!(stem.starts_with(&format!("{id}-")));
    assert_eq!(
        own[1..],
        [
            format!("{stem}-us-east-1a.api.sagemaker.us-east-1.vpce.amazonaws.com"),
            format!("{stem}-us-east-1b.api.sagemaker.us-east-1.vpce.amazonaws.com"),
            "api.sagemaker.us-east-1.amazonaws.com".to_owned(),
        ]
    );
    let held = place.interfaces();
    assert_eq!(held.len(), 2);
    for one in &held {
        assert_eq!(one.description, Some(format!("VPC Endpoint Interface {id}")));
        assert_eq!(one.interface_type.as_deref(), Some("vpc_endpoint"));
        assert_eq!(one.requester_managed, Some(true));
        assert!(
            made.network_interface_ids
                .as_ref()
                .unwrap()
                .contains(one.network_interface_id.as_ref().unwrap())
        );
        let input = format!(
            r#"{{"NetworkInterfaceId":"{}"}}"#,
            one.network_interface_id.as_ref().unwrap()
        );
        let refused = call::<shapes::DeleteNetworkInterfaceOutput>(&place.fixture, "DeleteNetworkInterface", &input);
        assert_eq!(refusal(refused).0, "OperationNotPermitted");
    }
    assert_eq!(place.shown(&id), made);
}

/// Proves: NET-41
#[test]
fn a_subnet_is_chosen_once_in_each_zone_and_its_address_too() {
    let place = Place::new();
    let second = place.subnet(7, "a");
    let both = format!(r#","SubnetIds":["{}","{second}"]"#, place.subnets[0]);
    assert_eq!(refusal(place.create(API, &both)).0, "DuplicateSubnetsInSameZone");
    let configured = |address: &str| {
        format!(
            r#"{},"SubnetConfigurations":[{{"SubnetId":"{}","Ipv4":"{address}"}}]"#,
            place.in_subnets(&[0]),
            place.subnets[0]
        )
    };
    assert_eq!(
        refusal(place.create(API, &configured("10.0.0.2"))).0,
        "InvalidParameterValue"
    );
    assert_eq!(
        refusal(place.create(API, &configured("10.0.9.9"))).0,
        "InvalidParameterValue"
    );
    let stray = format!(
        r#"{},"SubnetConfigurations":[{{"SubnetId":"{}","Ipv4":"10.0.1.9"}}]"#,
        place.in_subnets(&[0]),
        place.subnets[1]
    );
    assert_eq!(refusal(place.create(API, &stray)).0, "InvalidParameter");
    assert_eq!(
        refusal(place.create(API, r#","SubnetIds":["subnet-00000000000000000"]"#)).0,
        "InvalidSubnetID.NotFound"
    );
    assert_eq!(place.endpoints(), 0, "nothing was made");
    assert!(place.interfaces().is_empty());
    place.create(API, &configured("10.0.0.9")).unwrap();
    assert_eq!(place.interfaces()[0].private_ip_address.as_deref(), Some("10.0.0.9"));
    let taken = place.create(RUNTIME, &configured("10.0.0.9"));
    assert_eq!(refusal(taken).0, "InvalidIPAddress.InUse");
}

/// Proves: NET-44, PL-12
#[test]
fn private_dns_needs_both_attributes_and_one_endpoint_for_a_name() {
    let place = Place::new();
    place.hostnames(false);
    let (code, text) = refusal(place.create(API, &place.in_subnets(&[0])));
    assert_eq!(code, "InvalidParameter");
    assert!(
        text.contains("requires both enableDnsSupport and enableDnsHostnames"),
        "{text}"
    );
    let without = format!(r#"{},"PrivateDnsEnabled":false"#, place.in_subnets(&[0]));
    let open = place.create(API, &without).expect("control: without private DNS");
    assert_eq!(names(&open).len(), 2, "no private name");
    let id = open.vpc_endpoint_id.unwrap();
    let enable = r#","PrivateDnsEnabled":true"#;
    assert_eq!(refusal(place.modify(&id, enable)).0, "InvalidParameter");
    place.hostnames(true);
    place.modify(&id, enable).unwrap();
    assert_eq!(
        names(&place.shown(&id)).last().unwrap(),
        "api.sagemaker.us-east-1.amazonaws.com"
    );
    let (_, text) = refusal(place.create(API, &place.in_subnets(&[1])));
    assert!(text.starts_with("private-dns-enabled cannot be set because"), "{text}");
    place
        .create(RUNTIME, &place.in_subnets(&[1]))
        .expect("control: another service");
    place.modify(&id, r#","PrivateDnsEnabled":false"#).unwrap();
    place
        .create(API, &place.in_subnets(&[1]))
        .expect("control: the name is free again");
}

/// Proves: NET-47, PL-29, D-14
#[test]
fn an_endpoint_takes_a_policy_unless_it_leads_to_the_fips_runtime() {
    let place = Place::new();
    let policy = r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"sagemaker:*","Resource":"*"}]}"#;
    let with = |service: &str, policy: &str| {
        place.create(
            service,
            &format!(r#"{},"PolicyDocument":{policy:?}"#, place.in_subnets(&[0])),
        )
    };
    assert_eq!(refusal(with(FIPS, policy)).0, "InvalidParameter");
    assert_eq!(refusal(with(RUNTIME, "{}")).0, "InvalidPolicyDocument");
    let made = with(RUNTIME, policy).expect("control: another service");
    assert_eq!(made.policy_document.as_deref(), Some(policy));
    let fips = place.create(FIPS, &place.in_subnets(&[0])).unwrap();
    assert_eq!(fips.policy_document.as_deref(), Some(FULL_ACCESS));
    let id = fips.vpc_endpoint_id.unwrap();
    let given = format!(r#","PolicyDocument":{policy:?}"#);
    assert_eq!(refusal(place.modify(&id, &given)).0, "InvalidParameter");
    place.modify(&id, r#","ResetPolicy":true"#).unwrap();
    let changed = made.vpc_endpoint_id.unwrap();
    place.modify(&changed, r#","ResetPolicy":true"#).unwrap();
    assert_eq!(place.shown(&changed).policy_document.as_deref(), Some(FULL_ACCESS));
}

/// Proves: NET-47, NET-67
#[test]
fn subnets_and_groups_come_and_go_and_hold_what_they_are_made_of() {
    let place = Place::new();
    let (one, two) = (place.group("one"), place.group("two"));
    let made = place
        .create(
            API,
            &format!(r#"{},"SecurityGroupIds":["{one}"]"#, place.in_subnets(&[0, 1])),
        )
        .unwrap();
    let id = made.vpc_endpoint_id.unwrap();
    let swap = format!(
        r#","AddSubnetIds":["{}"],"RemoveSubnetIds":["{}"],"AddSecurityGroupIds":["{two}"],"RemoveSecurityGroupIds":["{one}"]"#,
        place.subnets[2], place.subnets[0]
    );
    place.modify(&id, &swap).unwrap();
    let shown = place.shown(&id);
    let mut subnets = shown.subnet_ids.clone().unwrap();
    subnets.sort();
    let mut wanted = place.subnets[1..].to_vec();
    wanted.sort();
    assert_eq!(subnets, wanted);
    let held = place.interfaces();
    assert_eq!(held.len(), 2);
    assert!(
        held.iter()
            .all(|held| held.groups.as_ref().unwrap()[0].group_id.as_ref() == Some(&two))
    );
    let last = format!(r#","RemoveSecurityGroupIds":["{two}"]"#);
    assert_eq!(
        refusal(place.modify(&id, &last)).0,
        "InvalidParameter",
        "one is left at least"
    );
    let again = format!(r#","AddSubnetIds":["{}"]"#, place.subnets[1]);
    assert_eq!(refusal(place.modify(&id, &again)).0, "DuplicateSubnetsInSameZone");
    let never = format!(r#","RemoveSubnetIds":["{}"]"#, place.subnets[0]);
    assert_eq!(refusal(place.modify(&id, &never)).0, "InvalidParameter");
    let delete = |operation: &str, member: &str, what: &str| {
        call::<Input>(&place.fixture, operation, &format!(r#"{{"{member}":"{what}"}}"#)).map_err(|error| error.code)
    };
    for (operation, member, what) in [
        ("DeleteSubnet", "SubnetId", &place.subnets[1]),
        ("DeleteSecurityGroup", "GroupId", &two),
        ("DeleteVpc", "VpcId", &place.vpc),
    ] {
        assert_eq!(
            delete(operation, member, what),
            Err("DependencyViolation".into()),
            "{operation}"
        );
    }
    delete("DeleteSubnet", "SubnetId", &place.subnets[0]).expect("control: it was given back");
    delete("DeleteSecurityGroup", "GroupId", &one).expect("control: nothing carries it");
}

/// Proves: NET-85
#[test]
fn a_deleted_endpoint_is_deleting_until_the_host_has_let_it_go() {
    let place = Place::new();
    let id = place
        .create(API, &place.in_subnets(&[0]))
        .unwrap()
        .vpc_endpoint_id
        .unwrap();
    let input = format!(r#"{{"VpcEndpointIds":["{id}","vpce-00000000000000000"]}}"#);
    let answer: shapes::DeleteVpcEndpointsResult = call(&place.fixture, "DeleteVpcEndpoints", &input).unwrap();
    let failed = answer.unsuccessful.unwrap();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].resource_id.as_deref(), Some("vpce-00000000000000000"));
    assert_eq!(place.shown(&id).state.as_deref(), Some("deleting"));
    assert_eq!(place.interfaces().len(), 1, "the host may serve it still");
    let refused = place.modify(&id, r#","PrivateDnsEnabled":false"#);
    assert_eq!(refusal(refused).0, "IncorrectState");
    place
        .create(API, &place.in_subnets(&[1]))
        .expect("control: its name is free");
}

/// Proves: NET-40, NET-82, NET-86
#[test]
fn services_are_described_tokens_make_one_endpoint_and_quotas_hold() {
    let place = Place::new();
    let services: shapes::DescribeVpcEndpointServicesResult =
        call(&place.fixture, "DescribeVpcEndpointServices", "{}").unwrap();
    let offered = services.service_details.unwrap();
    let named = |name: &str| {
        offered
            .iter()
            .filter(|one| one.service_name.as_deref() == Some(name))
            .count()
    };
    assert_eq!((named(API), named(S3), offered.len()), (1, 2, 13), "S3 has both types");
    let fips = offered
        .iter()
        .find(|one| one.service_name.as_deref() == Some(FIPS))
        .unwrap();
    assert_eq!(fips.vpc_endpoint_policy_supported, Some(false));
    assert_eq!(
        fips.private_dns_name.as_deref(),
        Some("runtime-fips.sagemaker.us-east-1.amazonaws.com")
    );
    let notebook = place.create("aws.sagemaker.us-east-1.notebook", &place.in_subnets(&[0]));
    assert_eq!(refusal(notebook).0, "InvalidServiceName", "off by default");
    let with_token = format!(r#"{},"ClientToken":"t1""#, place.in_subnets(&[0]));
    let first = place.create(API, &with_token).unwrap();
    let again = place.create(API, &with_token).unwrap();
    assert_eq!(first.vpc_endpoint_id, again.vpc_endpoint_id);
    let other = format!(r#"{},"ClientToken":"t1""#, place.in_subnets(&[1]));
    assert_eq!(refusal(place.create(API, &other)).0, "IdempotentParameterMismatch");
    let most = super::super::Quotas::default().interface_endpoints_per_vpc;
    let plain = r#","PrivateDnsEnabled":false"#;
    for _ in 1..most {
        place.create(API, plain).unwrap();
    }
    assert_eq!(refusal(place.create(API, plain)).0, "VpcEndpointLimitExceeded");
}

/// Only the VPC's own resolver keeps to the gateway endpoint, so there has to be one.
#[test]
fn names_for_inbound_resolvers_alone_need_a_gateway_endpoint() {
    let place = Place::new();
    let inbound = format!(
        r#"{},"DnsOptions":{{"PrivateDnsOnlyForInboundResolverEndpoint":true}}"#,
        place.in_subnets(&[0])
    );
    assert_eq!(refusal(place.create(API, &inbound)).0, "InvalidParameter", "S3's alone");
    assert_eq!(refusal(place.create(S3, &inbound)).0, "InvalidParameter");
    let gateway = format!(r#"{{"VpcId":"{}","ServiceName":"{S3}"}}"#, place.vpc);
    call::<shapes::CreateVpcEndpointResult>(&place.fixture, "CreateVpcEndpoint", &gateway).unwrap();
    let made = place.create(S3, &inbound).expect("control: with a gateway endpoint");
    assert!(names(&made)[0].starts_with("*.vpce-"), "{:?}", names(&made));
    let options = made.dns_options.unwrap();
    assert_eq!(options.private_dns_only_for_inbound_resolver_endpoint, Some(true));
}
