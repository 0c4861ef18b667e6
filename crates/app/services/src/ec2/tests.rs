//! EC2's operations on a store in memory, as the root of an account.

use super::*;
use crate::Dispatch;
use crate::ecr::fixture::{Fixture, refusal, root};
use isolarium_model::ec2::{NatGateway, NatState, Subnet, key};
use isolarium_store::state::{Batch, Expect, StateStore};
use isolarium_wire::{ApiError, Document};
use std::sync::atomic::Ordering;

const ACCOUNT: &str = "123456789012";

/// Calls an operation with an input in JSON and gives the answer in JSON.
fn call(lab: &Fixture, operation: &str, input: serde_json::Value) -> Result<serde_json::Value, ApiError> {
    called(lab, ACCOUNT, operation, input)
}

fn called(
    lab: &Fixture,
    account: &str,
    operation: &str,
    input: serde_json::Value,
) -> Result<serde_json::Value, ApiError> {
    let caller = root(account);
    let input: Document = serde_json::from_value(input).unwrap();
    let answer = Dispatch::default().call("ec2", operation, input, &lab.ctx(&caller));
    answer
        .expect("a served operation")
        .map(|document| serde_json::to_value(document).unwrap())
}

macro_rules! ok {
    ($lab:expr, $operation:literal, $($input:tt)+) => {
        call($lab, $operation, serde_json::json!($($input)+)).unwrap_or_else(|error| panic!("{}: {error}", $operation))
    };
}

/// The code of a refusal, and that it has a text.
macro_rules! no {
    ($lab:expr, $operation:literal, $($input:tt)+) => {{
        let (code, message) = refusal(call($lab, $operation, serde_json::json!($($input)+)));
        assert!(!message.is_empty());
        code
    }};
}

fn text(value: &serde_json::Value, path: &str) -> String {
    let found = value.pointer(path).and_then(|value| value.as_str());
    found.unwrap_or_else(|| panic!("no {path} in {value}")).to_owned()
}

fn new_vpc(lab: &Fixture) -> String {
    text(&ok!(lab, "CreateVpc", {"CidrBlock": "10.0.0.0/16"}), "/Vpc/VpcId")
}

fn new_subnet(lab: &Fixture, vpc: &str, block: &str) -> String {
    let made = ok!(lab, "CreateSubnet", {"VpcId": vpc, "CidrBlock": block});
    text(&made, "/Subnet/SubnetId")
}

fn main_table(lab: &Fixture, vpc: &str) -> serde_json::Value {
    let filters = serde_json::json!([
        {"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}
    ]);
    ok!(lab, "DescribeRouteTables", {"Filters": filters})["RouteTables"][0].clone()
}

/// Proves: NET-1
#[test]
fn a_vpc_has_a_block_from_16_to_28_and_four_more() {
    let lab = Fixture::new();
    for bad in [
        "10.0.0.0/15",
        "10.0.0.0/29",
        "127.0.0.0/16",
        "169.254.0.0/16",
        "198.19.0.0/16",
        "198.18.128.0/20",
    ] {
        let (code, message) = refusal(call(&lab, "CreateVpc", serde_json::json!({"CidrBlock": bad})));
        assert_eq!(
            (code.as_str(), message),
            ("InvalidVpc.Range", format!("The CIDR '{bad}' is invalid."))
        );
    }
    assert_eq!(
        no!(&lab, "CreateVpc", {"CidrBlock": "10.0.0/16"}),
        "InvalidParameterValue"
    );
    assert_eq!(no!(&lab, "CreateVpc", {}), "MissingParameter");
    let made = ok!(&lab, "CreateVpc", {"CidrBlock": "10.0.77.5/16"});
    assert_eq!(text(&made, "/Vpc/CidrBlock"), "10.0.0.0/16", "host bits are cleared");
    let vpc = text(&made, "/Vpc/VpcId");
    for n in 1..5 {
        ok!(&lab, "AssociateVpcCidrBlock", {"VpcId": vpc, "CidrBlock": format!("10.{n}.0.0/16")});
    }
    assert_eq!(
        no!(&lab, "AssociateVpcCidrBlock", {"VpcId": vpc, "CidrBlock": "10.9.0.0/16"}),
        "CidrLimitExceeded"
    );
    assert_eq!(
        no!(&lab, "AssociateVpcCidrBlock", {"VpcId": vpc, "CidrBlock": "10.1.4.0/24"}),
        "InvalidVpc.Range"
    );
    let seen = ok!(&lab, "DescribeVpcs", {"VpcIds": [vpc]});
    let blocks = seen
        .pointer("/Vpcs/0/CidrBlockAssociationSet")
        .unwrap()
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(blocks.len(), 5);
    let (primary, last) = (text(&blocks[0], "/AssociationId"), text(&blocks[4], "/AssociationId"));
    new_subnet(&lab, &vpc, "10.3.0.0/24");
    let third = text(&blocks[3], "/AssociationId");
    assert_eq!(
        no!(&lab, "DisassociateVpcCidrBlock", {"AssociationId": primary}),
        "OperationNotPermitted"
    );
    assert_eq!(
        no!(&lab, "DisassociateVpcCidrBlock", {"AssociationId": third}),
        "InvalidCidr.InUse"
    );
    ok!(&lab, "DisassociateVpcCidrBlock", {"AssociationId": last});
    assert_eq!(
        no!(&lab, "DisassociateVpcCidrBlock", {"AssociationId": last}),
        "InvalidVpcCidrBlockAssociationID.NotFound"
    );
    // Another VPC may have the same block.
    ok!(&lab, "CreateVpc", {"CidrBlock": "10.0.0.0/16"});
}

/// Proves: NET-1
#[test]
fn no_vpc_has_addresses_of_the_engines_own_networks() {
    let mut settings = Ec2Settings::default();
    let block = |settings: &Ec2Settings, text: &str| super::block::for_vpc(settings, "CidrBlock", Some(text));
    for own in ["100.64.0.0/16", "172.31.128.0/18"] {
        assert!(block(&settings, own).is_ok(), "control: {own}");
        settings.reserved.push(own.parse().unwrap());
        let (code, _) = refusal(block(&settings, own));
        assert_eq!(code, "InvalidVpc.Range");
    }
    let (code, _) = refusal(block(&settings, "172.31.0.0/16"));
    assert_eq!(code, "InvalidVpc.Range", "a block around one");
    assert!(block(&settings, "172.31.0.0/17").is_ok(), "control: a block beside it");
}

/// Proves: NET-5
#[test]
fn a_new_vpc_has_its_main_table_its_default_group_its_default_acl_and_dhcp_options() {
    let lab = Fixture::new();
    let made = ok!(&lab, "CreateVpc", {"CidrBlock": "10.0.0.0/16"});
    let vpc = text(&made, "/Vpc/VpcId");
    let table = main_table(&lab, &vpc);
    assert_eq!(table["Routes"].as_array().unwrap().len(), 1);
    assert_eq!(text(&table, "/Routes/0/GatewayId"), "local");
    assert_eq!(text(&table, "/Routes/0/DestinationCidrBlock"), "10.0.0.0/16");
    assert_eq!(text(&table, "/Routes/0/State"), "active");
    let dhcp = text(&made, "/Vpc/DhcpOptionsId");
    let options = ok!(&lab, "DescribeDhcpOptions", {"DhcpOptionsIds": [dhcp]});
    assert!(options.to_string().contains("AmazonProvidedDNS"));
    for (attribute, member, value) in [
        ("enableDnsSupport", "EnableDnsSupport", true),
        ("enableDnsHostnames", "EnableDnsHostnames", false),
    ] {
        let seen = ok!(&lab, "DescribeVpcAttribute", {"VpcId": vpc, "Attribute": attribute});
        assert_eq!(seen[member]["Value"], value);
    }
    let store: &dyn StateStore = &lab.store;
    let all = isolarium_store::state::Query::all(&crate::ecr::fixture::scope(ACCOUNT));
    let groups = store.query::<isolarium_model::ec2::SecurityGroup>(&all).unwrap().rows;
    assert_eq!(groups.len(), 1);
    assert!(groups[0].record.is_default());
    assert_eq!(
        groups[0].record.rules.len(),
        2,
        "everything from itself, everything out"
    );
    assert!(groups[0].record.names(groups[0].record.id));
    let acls = store.query::<isolarium_model::ec2::NetworkAcl>(&all).unwrap().rows;
    assert_eq!(acls.len(), 1);
    assert!(acls[0].record.is_default && acls[0].record.ingress[&100].allow);
    // The second VPC of the region has the same options.
    let other = ok!(&lab, "CreateVpc", {"CidrBlock": "10.0.0.0/16"});
    assert_eq!(text(&other, "/Vpc/DhcpOptionsId"), dhcp);
    // A deletion takes all of it along.
    ok!(&lab, "DeleteVpc", {"VpcId": vpc});
    assert_eq!(no!(&lab, "DescribeVpcs", {"VpcIds": [vpc]}), "InvalidVpcID.NotFound");
    let left = store.query::<isolarium_model::ec2::SecurityGroup>(&all).unwrap().rows;
    assert_eq!(left.len(), 1, "the other VPC's");
}

/// Proves: NET-6
#[test]
fn a_default_vpc_has_a_public_subnet_per_zone_and_comes_once() {
    let lab = Fixture::new();
    let (scope, settings) = (crate::ecr::fixture::scope(ACCOUNT), Ec2Settings::default());
    let caller = root(ACCOUNT);
    let ensure = || {
        let ctx = lab.ctx(&caller);
        default_vpc::ensure(ctx.store, ctx.clock, ctx.ids, &settings, &scope).unwrap();
    };
    ensure();
    ensure();
    let seen = ok!(&lab, "DescribeVpcs", {"Filters": [{"Name": "is-default", "Values": ["true"]}]});
    assert_eq!(seen["Vpcs"].as_array().unwrap().len(), 1);
    assert_eq!(text(&seen, "/Vpcs/0/CidrBlock"), "172.31.0.0/16");
    let vpc = text(&seen, "/Vpcs/0/VpcId");
    assert_eq!(no!(&lab, "CreateDefaultVpc", {}), "DefaultVpcAlreadyExists");
    let subnets = ok!(&lab, "DescribeSubnets", {"Filters": [{"Name": "default-for-az", "Values": ["true"]}]});
    let subnets = subnets["Subnets"].as_array().unwrap().clone();
    let zones: Vec<_> = subnets.iter().map(|one| text(one, "/AvailabilityZone")).collect();
    assert_eq!(zones, ["us-east-1a", "us-east-1b", "us-east-1c"]);
    assert!(subnets.iter().all(|one| text(one, "/CidrBlock").ends_with("/20")));
    let table = main_table(&lab, &vpc);
    assert!(text(&table, "/Routes/1/GatewayId").starts_with("igw-"));
    assert_eq!(text(&table, "/Routes/1/State"), "active");
    for attribute in ["enableDnsSupport", "enableDnsHostnames"] {
        let seen = ok!(&lab, "DescribeVpcAttribute", {"VpcId": vpc, "Attribute": attribute});
        assert!(seen.to_string().contains("true"), "{attribute}");
    }
    // Deleted by its owner, it does not come back by itself, and does when asked for.
    for subnet in &subnets {
        ok!(&lab, "DeleteSubnet", {"SubnetId": text(subnet, "/SubnetId")});
    }
    let gateway = text(&table, "/Routes/1/GatewayId");
    ok!(&lab, "DetachInternetGateway", {"InternetGatewayId": gateway, "VpcId": vpc});
    ok!(&lab, "DeleteVpc", {"VpcId": vpc});
    ensure();
    assert_eq!(ok!(&lab, "DescribeVpcs", {})["Vpcs"], serde_json::json!([]));
    ok!(&lab, "CreateDefaultVpc", {});
}

/// Proves: NET-2, NET-3
#[test]
fn a_subnet_lies_in_its_vpc_beside_the_others_in_one_zone() {
    let lab = Fixture::new();
    let vpc = new_vpc(&lab);
    for bad in ["10.1.0.0/24", "10.0.0.0/29", "10.0.0.0/15"] {
        assert_eq!(
            no!(&lab, "CreateSubnet", {"VpcId": vpc, "CidrBlock": bad}),
            "InvalidSubnet.Range",
            "{bad}"
        );
    }
    let made = ok!(&lab, "CreateSubnet", {"VpcId": vpc, "CidrBlock": "10.0.1.0/24", "AvailabilityZone": "us-east-1b"});
    assert_eq!(text(&made, "/Subnet/AvailabilityZoneId"), "use1-az2");
    assert_eq!(made["Subnet"]["AvailableIpAddressCount"], 251);
    assert_eq!(
        refusal(call(
            &lab,
            "CreateSubnet",
            serde_json::json!({"VpcId": vpc, "CidrBlock": "10.0.1.128/25"})
        )),
        (
            "InvalidSubnet.Conflict".into(),
            "The CIDR '10.0.1.128/25' conflicts with another subnet".into()
        )
    );
    let small = ok!(&lab, "CreateSubnet", {"VpcId": vpc, "CidrBlock": "10.0.2.0/28", "AvailabilityZoneId": "use1-az3"});
    assert_eq!(small["Subnet"]["AvailableIpAddressCount"], 11);
    assert_eq!(text(&small, "/Subnet/AvailabilityZone"), "us-east-1c");
    let elsewhere = serde_json::json!({"VpcId": vpc, "CidrBlock": "10.0.3.0/24", "AvailabilityZone": "us-east-1x"});
    assert_eq!(
        refusal(call(&lab, "CreateSubnet", elsewhere)).0,
        "InvalidParameterValue"
    );
    assert_eq!(
        no!(&lab, "CreateSubnet", {"VpcId": "vpc-00000000000000fff", "CidrBlock": "10.0.3.0/24"}),
        "InvalidVpcID.NotFound"
    );
}

/// Proves: NET-4, NET-10, NET-84
#[test]
fn an_interface_gets_the_address_it_asks_for_or_a_free_one_and_gives_it_back() {
    let lab = Fixture::new();
    let vpc = new_vpc(&lab);
    let subnet = new_subnet(&lab, &vpc, "10.0.1.0/28");
    let made = ok!(&lab, "CreateNetworkInterface", {"SubnetId": subnet, "PrivateIpAddress": "10.0.1.9"});
    let interface = &made["NetworkInterface"];
    assert_eq!(text(interface, "/PrivateIpAddress"), "10.0.1.9");
    assert_eq!(text(interface, "/Groups/0/GroupName"), "default");
    assert_eq!(text(interface, "/Status"), "available");
    assert_eq!(text(interface, "/MacAddress"), "06:6a:0a:00:01:09");
    assert_eq!(interface["SourceDestCheck"], true);
    assert_eq!(text(interface, "/PrivateDnsName"), "ip-10-0-1-9.ec2.internal");
    let first = text(interface, "/NetworkInterfaceId");
    for (address, code) in [
        ("10.0.1.9", "InvalidIPAddress.InUse"),
        ("10.0.1.3", "InvalidParameterValue"),
        ("10.0.1.15", "InvalidParameterValue"),
        ("10.0.9.9", "InvalidParameterValue"),
    ] {
        let found = no!(&lab, "CreateNetworkInterface", {"SubnetId": subnet, "PrivateIpAddress": address});
        assert_eq!(found, code, "{address}");
    }
    let more = ok!(&lab, "CreateNetworkInterface", {"SubnetId": subnet, "SecondaryPrivateIpAddressCount": 9});
    assert_eq!(
        more["NetworkInterface"]["PrivateIpAddresses"].as_array().unwrap().len(),
        10
    );
    assert_eq!(
        refusal(call(
            &lab,
            "CreateNetworkInterface",
            serde_json::json!({"SubnetId": subnet})
        )),
        (
            "InsufficientFreeAddressesInSubnet".into(),
            "The specified subnet does not have enough free addresses to satisfy the request.".into()
        )
    );
    let seen = ok!(&lab, "DescribeSubnets", {"SubnetIds": [subnet]});
    assert_eq!(seen["Subnets"][0]["AvailableIpAddressCount"], 0);
    assert_eq!(no!(&lab, "DeleteSubnet", {"SubnetId": subnet}), "DependencyViolation");
    ok!(&lab, "DeleteNetworkInterface", {"NetworkInterfaceId": first});
    let again = ok!(&lab, "CreateNetworkInterface", {"SubnetId": subnet});
    assert_eq!(
        text(&again, "/NetworkInterface/PrivateIpAddress"),
        "10.0.1.9",
        "the one that came back"
    );
    assert_eq!(
        no!(&lab, "DeleteNetworkInterface", {"NetworkInterfaceId": first}),
        "InvalidNetworkInterfaceID.NotFound"
    );
}

/// Proves: NET-10, NET-63
#[test]
fn groups_of_an_interface_are_of_its_vpc() {
    let lab = Fixture::new();
    let (vpc, other) = (new_vpc(&lab), new_vpc(&lab));
    let (here, there) = (
        new_subnet(&lab, &vpc, "10.0.1.0/24"),
        new_subnet(&lab, &other, "10.0.1.0/24"),
    );
    let made = ok!(&lab, "CreateNetworkInterface", {"SubnetId": there});
    let foreign = text(&made, "/NetworkInterface/Groups/0/GroupId");
    let refused = refusal(call(
        &lab,
        "CreateNetworkInterface",
        serde_json::json!({"SubnetId": here, "Groups": [foreign]}),
    ));
    assert_eq!(refused.0, "InvalidParameter");
    assert_eq!(
        refused.1,
        format!("Security group {foreign} and subnet {here} belong to different networks.")
    );
    assert_eq!(
        no!(&lab, "CreateNetworkInterface", {"SubnetId": here, "Groups": ["sg-00000000000000fff"]}),
        "InvalidGroup.NotFound"
    );
    // Control: its own VPC's group is taken, and attributes change one by one.
    let id = text(
        &ok!(&lab, "CreateNetworkInterface", {"SubnetId": here}),
        "/NetworkInterface/NetworkInterfaceId",
    );
    ok!(&lab, "ModifyNetworkInterfaceAttribute", {"NetworkInterfaceId": id, "SourceDestCheck": {"Value": false}});
    ok!(&lab, "ModifyNetworkInterfaceAttribute", {"NetworkInterfaceId": id, "Description": {"Value": "mine"}});
    assert_eq!(
        no!(&lab, "ModifyNetworkInterfaceAttribute", {"NetworkInterfaceId": id, "Groups": [foreign]}),
        "InvalidParameter"
    );
    let both = serde_json::json!({"NetworkInterfaceId": id, "Description": {"Value": "x"}, "SourceDestCheck": {"Value": true}});
    assert_eq!(
        refusal(call(&lab, "ModifyNetworkInterfaceAttribute", both)).0,
        "InvalidParameterCombination"
    );
    let seen = ok!(&lab, "DescribeNetworkInterfaces", {"Filters": [{"Name": "description", "Values": ["m?ne"]}]});
    assert_eq!(seen["NetworkInterfaces"][0]["SourceDestCheck"], false);
    assert_eq!(
        no!(&lab, "AttachNetworkInterface", {"NetworkInterfaceId": id, "InstanceId": "i-0123456789abcdef0", "DeviceIndex": 1}),
        "InvalidInstanceID.NotFound"
    );
    assert_eq!(
        no!(&lab, "DetachNetworkInterface", {"AttachmentId": "eni-attach-1"}),
        "InvalidAttachmentID.NotFound"
    );
}

/// Proves: NET-24
#[test]
fn a_subnet_uses_the_associated_table_or_else_the_main_one() {
    let lab = Fixture::new();
    let vpc = new_vpc(&lab);
    let subnet = new_subnet(&lab, &vpc, "10.0.1.0/24");
    let table = |lab: &Fixture| {
        text(
            &ok!(lab, "CreateRouteTable", {"VpcId": vpc}),
            "/RouteTable/RouteTableId",
        )
    };
    let (one, other) = (table(&lab), table(&lab));
    let made = ok!(&lab, "AssociateRouteTable", {"RouteTableId": one, "SubnetId": subnet});
    let association = text(&made, "/AssociationId");
    assert_eq!(
        text(
            &ok!(&lab, "AssociateRouteTable", {"RouteTableId": one, "SubnetId": subnet}),
            "/AssociationId"
        ),
        association
    );
    assert_eq!(
        no!(&lab, "AssociateRouteTable", {"RouteTableId": other, "SubnetId": subnet}),
        "Resource.AlreadyAssociated"
    );
    assert_eq!(
        no!(&lab, "DeleteRouteTable", {"RouteTableId": one}),
        "DependencyViolation"
    );
    let moved = ok!(&lab, "ReplaceRouteTableAssociation", {"AssociationId": association, "RouteTableId": other});
    let moved = text(&moved, "/NewAssociationId");
    ok!(&lab, "DeleteRouteTable", {"RouteTableId": one});
    ok!(&lab, "DisassociateRouteTable", {"AssociationId": moved});
    assert_eq!(
        no!(&lab, "DisassociateRouteTable", {"AssociationId": moved}),
        "InvalidAssociationID.NotFound"
    );
    let main = main_table(&lab, &vpc);
    let (main, of_main) = (
        text(&main, "/RouteTableId"),
        text(&main, "/Associations/0/RouteTableAssociationId"),
    );
    assert_eq!(
        no!(&lab, "DeleteRouteTable", {"RouteTableId": main}),
        "DependencyViolation"
    );
    assert_eq!(
        no!(&lab, "DisassociateRouteTable", {"AssociationId": of_main}),
        "InvalidParameterValue"
    );
    ok!(&lab, "ReplaceRouteTableAssociation", {"AssociationId": of_main, "RouteTableId": other});
    assert_eq!(
        text(&main_table(&lab, &vpc), "/RouteTableId"),
        other,
        "another table is the main one now"
    );
    ok!(&lab, "DeleteRouteTable", {"RouteTableId": main});
    let foreign = new_subnet(&lab, &new_vpc(&lab), "10.0.1.0/24");
    assert_eq!(
        no!(&lab, "AssociateRouteTable", {"RouteTableId": other, "SubnetId": foreign}),
        "InvalidParameterValue"
    );
}

/// Proves: NET-24, NET-25, NET-26, NET-27, NET-84
#[test]
fn routes_have_targets_of_their_vpc_and_turn_into_blackholes() {
    let lab = Fixture::new();
    let vpc = new_vpc(&lab);
    let subnet = new_subnet(&lab, &vpc, "10.0.1.0/24");
    let table = text(&main_table(&lab, &vpc), "/RouteTableId");
    let gateway = text(
        &ok!(&lab, "CreateInternetGateway", {}),
        "/InternetGateway/InternetGatewayId",
    );
    let everywhere = |gateway: &str| serde_json::json!({"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": gateway});
    assert_eq!(
        refusal(call(&lab, "CreateRoute", everywhere(&gateway))).0,
        "InvalidParameterValue",
        "not attached"
    );
    ok!(&lab, "AttachInternetGateway", {"InternetGatewayId": gateway, "VpcId": vpc});
    assert_eq!(
        no!(&lab, "AttachInternetGateway", {"InternetGatewayId": gateway, "VpcId": vpc}),
        "Resource.AlreadyAssociated"
    );
    call(&lab, "CreateRoute", everywhere(&gateway)).unwrap();
    assert_eq!(
        refusal(call(&lab, "CreateRoute", everywhere(&gateway))),
        (
            "RouteAlreadyExists".into(),
            "The route identified by 0.0.0.0/0 already exists".into()
        )
    );
    let to = |destination: &str| serde_json::json!({"RouteTableId": table, "DestinationCidrBlock": destination, "GatewayId": gateway});
    assert_eq!(
        refusal(call(&lab, "CreateRoute", to("169.254.169.0/24"))).0,
        "InvalidParameterValue"
    );
    assert_eq!(
        refusal(call(&lab, "CreateRoute", to("10.0.0.0/16"))).0,
        "RouteAlreadyExists",
        "the local route"
    );
    assert_eq!(
        refusal(call(&lab, "CreateRoute", to("10.0.1.0/24"))).0,
        "UnsupportedOperation"
    );
    assert_eq!(
        no!(&lab, "CreateRoute", {"RouteTableId": table, "DestinationCidrBlock": "192.0.2.0/24"}),
        "MissingParameter"
    );
    assert_eq!(
        no!(&lab, "DeleteRoute", {"RouteTableId": table, "DestinationCidrBlock": "10.0.0.0/16"}),
        "InvalidParameterValue"
    );
    assert_eq!(
        refusal(call(
            &lab,
            "DeleteRoute",
            serde_json::json!({"RouteTableId": table, "DestinationCidrBlock": "192.0.2.0/24"})
        )),
        (
            "InvalidRoute.NotFound".into(),
            format!("no route with destination-cidr-block 192.0.2.0/24 in route table {table}")
        )
    );
    let made = ok!(&lab, "CreateNetworkInterface", {"SubnetId": subnet});
    let interface = text(&made, "/NetworkInterface/NetworkInterfaceId");
    ok!(&lab, "CreateRoute", {"RouteTableId": table, "DestinationCidrBlock": "192.0.2.0/24", "NetworkInterfaceId": interface});
    let state = |destination: &str| {
        let routes = main_table(&lab, &vpc)["Routes"].as_array().unwrap().clone();
        let route = routes
            .into_iter()
            .find(|route| route["DestinationCidrBlock"] == destination);
        text(&route.unwrap(), "/State")
    };
    assert_eq!(state("192.0.2.0/24"), "blackhole", "nothing holds the interface");
    assert_eq!(state("0.0.0.0/0"), "active");
    ok!(&lab, "DetachInternetGateway", {"InternetGatewayId": gateway, "VpcId": vpc});
    assert_eq!(state("0.0.0.0/0"), "blackhole");
    ok!(&lab, "DeleteInternetGateway", {"InternetGatewayId": gateway});
    assert_eq!(state("0.0.0.0/0"), "blackhole", "the target is gone, the route is not");
    ok!(&lab, "ReplaceRoute", {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0", "NetworkInterfaceId": interface});
    ok!(&lab, "DeleteRoute", {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"});
}

/// Proves: NET-28, NET-84
#[test]
fn a_vpc_has_one_internet_gateway_and_keeps_it_while_addresses_are_mapped() {
    let lab = Fixture::new();
    let vpc = new_vpc(&lab);
    let subnet = new_subnet(&lab, &vpc, "10.0.1.0/24");
    let gateway = |lab: &Fixture| {
        text(
            &ok!(lab, "CreateInternetGateway", {}),
            "/InternetGateway/InternetGatewayId",
        )
    };
    let (one, other) = (gateway(&lab), gateway(&lab));
    assert_eq!(
        no!(&lab, "DetachInternetGateway", {"InternetGatewayId": one, "VpcId": vpc}),
        "Gateway.NotAttached"
    );
    let made = ok!(&lab, "CreateNetworkInterface", {"SubnetId": subnet});
    let interface = text(&made, "/NetworkInterface/NetworkInterfaceId");
    let allocation = text(&ok!(&lab, "AllocateAddress", {"Domain": "vpc"}), "/AllocationId");
    let associate = serde_json::json!({"AllocationId": allocation, "NetworkInterfaceId": interface});
    assert_eq!(
        refusal(call(&lab, "AssociateAddress", associate.clone())).0,
        "Gateway.NotAttached"
    );
    ok!(&lab, "AttachInternetGateway", {"InternetGatewayId": one, "VpcId": vpc});
    assert_eq!(
        no!(&lab, "AttachInternetGateway", {"InternetGatewayId": other, "VpcId": vpc}),
        "InvalidParameterValue"
    );
    let association = text(&call(&lab, "AssociateAddress", associate).unwrap(), "/AssociationId");
    let seen = ok!(&lab, "DescribeNetworkInterfaces", {"Filters": [{"Name": "association.allocation-id", "Values": [allocation]}]});
    assert_eq!(
        text(&seen, "/NetworkInterfaces/0/Association/AssociationId"),
        association
    );
    assert_eq!(
        no!(&lab, "DetachInternetGateway", {"InternetGatewayId": one, "VpcId": vpc}),
        "DependencyViolation"
    );
    assert_eq!(
        no!(&lab, "DeleteInternetGateway", {"InternetGatewayId": one}),
        "DependencyViolation"
    );
    assert_eq!(
        no!(&lab, "ReleaseAddress", {"AllocationId": allocation}),
        "InvalidIPAddress.InUse"
    );
    // The interface takes its association along.
    ok!(&lab, "DeleteNetworkInterface", {"NetworkInterfaceId": interface});
    ok!(&lab, "DetachInternetGateway", {"InternetGatewayId": one, "VpcId": vpc});
    ok!(&lab, "ReleaseAddress", {"AllocationId": allocation});
    assert_eq!(
        no!(&lab, "ReleaseAddress", {"AllocationId": allocation}),
        "InvalidAllocationID.NotFound"
    );
    ok!(&lab, "DeleteInternetGateway", {"InternetGatewayId": one});
}

/// Proves: NET-30, NET-86
#[test]
fn public_addresses_come_from_the_pool_and_have_one_owner() {
    let mut lab = Fixture::new();
    lab.platform.settings.ec2.public_pool = "198.19.0.0/29".parse().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for account in ["123456789012", "210987654321"] {
        for _ in 0..3 {
            let made = called(&lab, account, "AllocateAddress", serde_json::json!({})).unwrap();
            let address: std::net::Ipv4Addr = text(&made, "/PublicIp").parse().unwrap();
            assert!(lab.platform.settings.ec2.public_pool.contains(&address));
            assert!(seen.insert(address), "{address} was given twice");
        }
    }
    assert_eq!(no!(&lab, "AllocateAddress", {}), "InsufficientAddressCapacity");
    let mine = ok!(&lab, "DescribeAddresses", {});
    assert_eq!(
        mine["Addresses"].as_array().unwrap().len(),
        3,
        "an account sees its own"
    );
    ok!(&lab, "ReleaseAddress", {"AllocationId": text(&mine, "/Addresses/0/AllocationId")});
    ok!(&lab, "AllocateAddress", {});
    lab.platform.settings.ec2.public_pool = "198.19.0.0/16".parse().unwrap();
    for _ in 0..2 {
        ok!(&lab, "AllocateAddress", {});
    }
    assert_eq!(no!(&lab, "AllocateAddress", {}), "AddressLimitExceeded");
}

/// Proves: NET-11, NET-12, NET-29
#[test]
fn a_nat_gateway_waits_for_the_kernel_and_holds_what_it_needs() {
    let lab = Fixture::new();
    let vpc = new_vpc(&lab);
    let subnet = new_subnet(&lab, &vpc, "10.0.1.0/24");
    let allocation = text(&ok!(&lab, "AllocateAddress", {}), "/AllocationId");
    assert_eq!(no!(&lab, "CreateNatGateway", {"SubnetId": subnet}), "MissingParameter");
    assert_eq!(
        no!(&lab, "CreateNatGateway", {"SubnetId": subnet, "AllocationId": "eipalloc-00000000000000fff"}),
        "InvalidAllocationID.NotFound"
    );
    let request = serde_json::json!({"SubnetId": subnet, "AllocationId": allocation, "ClientToken": "once"});
    let made = call(&lab, "CreateNatGateway", request.clone()).unwrap();
    assert_eq!(text(&made, "/NatGateway/State"), "pending");
    let nat = text(&made, "/NatGateway/NatGatewayId");
    assert_eq!(
        text(
            &call(&lab, "CreateNatGateway", request).unwrap(),
            "/NatGateway/NatGatewayId"
        ),
        nat
    );
    assert_eq!(
        no!(&lab, "CreateNatGateway", {"SubnetId": subnet, "AllocationId": allocation}),
        "Resource.AlreadyAssociated"
    );
    let seen =
        ok!(&lab, "DescribeNetworkInterfaces", {"Filters": [{"Name": "interface-type", "Values": ["nat_gateway"]}]});
    let interface = &seen["NetworkInterfaces"][0];
    assert_eq!(
        text(interface, "/Description"),
        format!("Interface for NAT Gateway {nat}")
    );
    assert_eq!(interface["RequesterManaged"], true);
    assert!(!text(interface, "/RequesterId").is_empty());
    assert_eq!(interface["SourceDestCheck"], false);
    assert_eq!(interface["Groups"].as_array().unwrap().len(), 0);
    assert_eq!(interface["Association"]["AllocationId"], allocation.as_str());
    let id = text(interface, "/NetworkInterfaceId");
    // Its owner sees it and cannot touch it.
    assert_eq!(
        no!(&lab, "DeleteNetworkInterface", {"NetworkInterfaceId": id}),
        "OperationNotPermitted"
    );
    assert_eq!(
        no!(&lab, "ModifyNetworkInterfaceAttribute", {"NetworkInterfaceId": id, "Description": {"Value": "x"}}),
        "OperationNotPermitted"
    );
    let attachment = text(interface, "/Attachment/AttachmentId");
    assert_eq!(
        no!(&lab, "DetachNetworkInterface", {"AttachmentId": attachment}),
        "OperationNotPermitted"
    );
    let association = text(interface, "/Association/AssociationId");
    assert_eq!(
        no!(&lab, "DisassociateAddress", {"AssociationId": association}),
        "OperationNotPermitted"
    );
    assert_eq!(no!(&lab, "DeleteSubnet", {"SubnetId": subnet}), "DependencyViolation");
    // A route to it, which is a blackhole as soon as the gateway goes.
    let table = text(&main_table(&lab, &vpc), "/RouteTableId");
    ok!(&lab, "CreateRoute", {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": nat});
    assert_eq!(text(&main_table(&lab, &vpc), "/Routes/1/State"), "active");
    ok!(&lab, "DeleteNatGateway", {"NatGatewayId": nat});
    ok!(&lab, "DeleteNatGateway", {"NatGatewayId": nat});
    let seen = ok!(&lab, "DescribeNatGateways", {"Filter": [{"Name": "state", "Values": ["deleting"]}]});
    assert_eq!(text(&seen, "/NatGateways/0/NatGatewayId"), nat);
    assert_eq!(text(&main_table(&lab, &vpc), "/Routes/1/State"), "blackhole");
    assert_eq!(no!(&lab, "DeleteVpc", {"VpcId": vpc}), "DependencyViolation");
    // The reconciler ends it; it is shown for an hour.
    let at = key(&crate::ecr::fixture::scope(ACCOUNT), &nat);
    let store: &dyn StateStore = &lab.store;
    let mut found = store.get::<NatGateway>(&at).unwrap().unwrap();
    found.record.state = NatState::Deleted;
    found.record.ended = Some(isolarium_model::Timestamp(lab.clock.0.load(Ordering::Relaxed)));
    store
        .commit(
            Batch::default()
                .put(&at, Expect::At(found.revision), &found.record)
                .unwrap(),
        )
        .unwrap();
    assert_eq!(
        text(
            &ok!(&lab, "DescribeNatGateways", {"NatGatewayIds": [nat]}),
            "/NatGateways/0/State"
        ),
        "deleted"
    );
    lab.clock.0.fetch_add(3_601_000, Ordering::Relaxed);
    assert_eq!(
        no!(&lab, "DescribeNatGateways", {"NatGatewayIds": [nat]}),
        "NatGatewayNotFound"
    );
    assert_eq!(
        ok!(&lab, "DescribeNatGateways", {})["NatGateways"],
        serde_json::json!([])
    );
}

/// Proves: NET-53
#[test]
fn dhcp_options_are_checked_and_stay_while_a_vpc_has_them() {
    let lab = Fixture::new();
    let vpc = new_vpc(&lab);
    let one = |key: &str, values: &[&str]| serde_json::json!({"DhcpConfigurations": [{"Key": key, "Values": values}]});
    for (key, values) in [
        ("domain-name-servers", vec!["not an address"]),
        (
            "domain-name-servers",
            vec!["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"],
        ),
        ("domain-name", vec![]),
        ("netbios-node-type", vec!["3"]),
        ("colour", vec!["red"]),
    ] {
        let refused = refusal(call(&lab, "CreateDhcpOptions", one(key, &values)));
        assert_eq!(refused.0, "InvalidParameterValue", "{key} {values:?}");
    }
    let made = call(&lab, "CreateDhcpOptions", one("domain-name-servers", &["10.0.1.53"])).unwrap();
    let options = text(&made, "/DhcpOptions/DhcpOptionsId");
    ok!(&lab, "AssociateDhcpOptions", {"DhcpOptionsId": options, "VpcId": vpc});
    let seen = ok!(&lab, "DescribeVpcs", {"Filters": [{"Name": "dhcp-options-id", "Values": [options]}]});
    assert_eq!(text(&seen, "/Vpcs/0/VpcId"), vpc);
    assert_eq!(
        no!(&lab, "DeleteDhcpOptions", {"DhcpOptionsId": options}),
        "DependencyViolation"
    );
    ok!(&lab, "AssociateDhcpOptions", {"DhcpOptionsId": "default", "VpcId": vpc});
    ok!(&lab, "DeleteDhcpOptions", {"DhcpOptionsId": options});
    assert_eq!(
        no!(&lab, "DeleteDhcpOptions", {"DhcpOptionsId": options}),
        "InvalidDhcpOptionID.NotFound"
    );
}

/// Proves: NET-80, NET-82
#[test]
fn a_dry_run_changes_nothing_and_a_token_counts_once() {
    let lab = Fixture::new();
    let caller = root(ACCOUNT);
    let input: Document =
        serde_json::from_value(serde_json::json!({"CidrBlock": "10.0.0.0/16", "DryRun": true})).unwrap();
    let dry = Dispatch::default()
        .call("ec2", "CreateVpc", input, &lab.ctx(&caller))
        .unwrap()
        .unwrap_err();
    assert_eq!((dry.code.as_str(), dry.status), ("DryRunOperation", 412));
    assert_eq!(ok!(&lab, "DescribeVpcs", {})["Vpcs"], serde_json::json!([]));
    let vpc = new_vpc(&lab);
    let with = |tags: &str| {
        serde_json::json!({"VpcId": vpc, "ClientToken": "t", "TagSpecifications": [
            {"ResourceType": "route-table", "Tags": [{"Key": "name", "Value": tags}]}]})
    };
    let one = call(&lab, "CreateRouteTable", with("a")).unwrap();
    let two = call(&lab, "CreateRouteTable", with("a")).unwrap();
    assert_eq!(
        text(&one, "/RouteTable/RouteTableId"),
        text(&two, "/RouteTable/RouteTableId")
    );
    assert_eq!(text(&one, "/ClientToken"), "t");
    assert_eq!(
        refusal(call(&lab, "CreateRouteTable", with("b"))).0,
        "IdempotentParameterMismatch"
    );
    lab.clock.0.fetch_add(25 * 60 * 60 * 1000, Ordering::Relaxed);
    let later = call(&lab, "CreateRouteTable", with("b")).unwrap();
    assert_ne!(
        text(&later, "/RouteTable/RouteTableId"),
        text(&one, "/RouteTable/RouteTableId")
    );
    let seen = ok!(&lab, "DescribeRouteTables", {"Filters": [{"Name": "tag:name", "Values": ["*"]}]});
    assert_eq!(seen["RouteTables"].as_array().unwrap().len(), 2);
}

/// Proves: NET-86
#[test]
fn quotas_are_the_operators() {
    let mut lab = Fixture::new();
    let quotas = &mut lab.platform.settings.ec2.quotas;
    (
        quotas.vpcs,
        quotas.subnets_per_vpc,
        quotas.routes_per_table,
        quotas.nat_gateways_per_zone,
    ) = (2, 1, 1, 1);
    let vpc = new_vpc(&lab);
    new_vpc(&lab);
    assert_eq!(no!(&lab, "CreateVpc", {"CidrBlock": "10.0.0.0/16"}), "VpcLimitExceeded");
    called(
        &lab,
        "210987654321",
        "CreateVpc",
        serde_json::json!({"CidrBlock": "10.0.0.0/16"}),
    )
    .unwrap();
    let subnet = new_subnet(&lab, &vpc, "10.0.1.0/24");
    assert_eq!(
        no!(&lab, "CreateSubnet", {"VpcId": vpc, "CidrBlock": "10.0.2.0/24"}),
        "SubnetLimitExceeded"
    );
    let table = text(&main_table(&lab, &vpc), "/RouteTableId");
    let made = ok!(&lab, "CreateNetworkInterface", {"SubnetId": subnet});
    let interface = text(&made, "/NetworkInterface/NetworkInterfaceId");
    let route = |to: &str| serde_json::json!({"RouteTableId": table, "DestinationCidrBlock": to, "NetworkInterfaceId": interface});
    call(&lab, "CreateRoute", route("192.0.2.0/24")).unwrap();
    assert_eq!(
        refusal(call(&lab, "CreateRoute", route("192.0.3.0/24"))).0,
        "RouteLimitExceeded"
    );
    for code in ["", "NatGatewayLimitExceeded"] {
        let allocation = text(&ok!(&lab, "AllocateAddress", {}), "/AllocationId");
        let made = call(
            &lab,
            "CreateNatGateway",
            serde_json::json!({"SubnetId": subnet, "AllocationId": allocation}),
        );
        assert_eq!(made.map_or_else(|error| error.code, |_| String::new()), code);
    }
}

/// Proves: NET-83
#[test]
fn zones_regions_and_attributes_are_the_configured_ones() {
    let mut lab = Fixture::new();
    lab.platform.settings.ec2.zone_letters = "ab".into();
    let zones = ok!(&lab, "DescribeAvailabilityZones", {});
    assert_eq!(zones["AvailabilityZones"].as_array().unwrap().len(), 2);
    let one = ok!(&lab, "DescribeAvailabilityZones", {"Filters": [{"Name": "zone-id", "Values": ["use1-az2"]}]});
    assert_eq!(text(&one, "/AvailabilityZones/0/ZoneName"), "us-east-1b");
    assert_eq!(
        no!(&lab, "DescribeAvailabilityZones", {"ZoneNames": ["us-east-1c"]}),
        "InvalidParameterValue"
    );
    let regions = ok!(&lab, "DescribeRegions", {});
    assert_eq!(regions["Regions"].as_array().unwrap().len(), 1);
    assert_eq!(text(&regions, "/Regions/0/Endpoint"), "ec2.us-east-1.amazonaws.com");
    assert_eq!(
        no!(&lab, "DescribeRegions", {"RegionNames": ["eu-west-1"]}),
        "InvalidParameterValue"
    );
    let attributes = ok!(&lab, "DescribeAccountAttributes", {"AttributeNames": ["default-vpc"]});
    assert_eq!(
        text(&attributes, "/AccountAttributes/0/AttributeValues/0/AttributeValue"),
        "none"
    );
}

/// Proves: NET-81
#[test]
fn nothing_of_another_account_is_found() {
    let lab = Fixture::new();
    let vpc = new_vpc(&lab);
    let other = called(
        &lab,
        "210987654321",
        "DescribeVpcs",
        serde_json::json!({"VpcIds": [vpc]}),
    );
    assert_eq!(
        refusal(other),
        (
            "InvalidVpcID.NotFound".into(),
            format!("The vpc ID '{vpc}' does not exist")
        )
    );
    let all = called(&lab, "210987654321", "DescribeVpcs", serde_json::json!({})).unwrap();
    assert_eq!(all["Vpcs"], serde_json::json!([]));
    let gone = called(&lab, "210987654321", "DeleteVpc", serde_json::json!({"VpcId": vpc}));
    assert_eq!(refusal(gone).0, "InvalidVpcID.NotFound");
    assert_eq!(
        text(&ok!(&lab, "DescribeVpcs", {"VpcIds": [vpc]}), "/Vpcs/0/OwnerId"),
        ACCOUNT,
        "control"
    );
}

/// Two writers never get one address, and whoever deletes a subnet meets no interface in it.
///
/// Proves: NET-4
#[test]
fn writers_at_the_same_time_get_different_addresses() {
    let lab = Fixture::new();
    let vpc = new_vpc(&lab);
    let subnet = new_subnet(&lab, &vpc, "10.0.1.0/24");
    let addresses: Vec<String> = std::thread::scope(|threads| {
        let one = || {
            let create = || {
                let made = ok!(&lab, "CreateNetworkInterface", {"SubnetId": subnet});
                text(&made, "/NetworkInterface/PrivateIpAddress")
            };
            (0..20).map(|_| create()).collect::<Vec<_>>()
        };
        let running: Vec<_> = (0..4).map(|_| threads.spawn(one)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: std::collections::BTreeSet<&String> = addresses.iter().collect();
    assert_eq!((addresses.len(), distinct.len()), (80, 80));
    let store: &dyn StateStore = &lab.store;
    let found = store
        .get::<Subnet>(&key(&crate::ecr::fixture::scope(ACCOUNT), &subnet))
        .unwrap()
        .unwrap();
    assert_eq!(found.record.available(), 251 - 80);
}
