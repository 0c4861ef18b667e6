"""EC2's topology over the wire: VPCs, subnets, routes, gateways, addresses, interfaces, with boto3 and the aws CLI."""
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.harness.engine import ACCOUNT, REGION, Engine


def refused(call, *arguments, **parameters):
    """Code, message and HTTP status of a refusal."""
    with pytest.raises(ClientError) as raised:
        call(*arguments, **parameters)
    answer = raised.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


def code(call, **parameters):
    return refused(call, **parameters)[0]


def tagged(kind, name):
    return [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": name}]}]


@pytest.fixture
def vpc(ec2, name):
    """A VPC of one test; nobody else's resources are in it."""
    made = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=tagged("vpc", name))["Vpc"]
    ec2.get_waiter("vpc_available").wait(VpcIds=[made["VpcId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    return made["VpcId"]


@pytest.fixture
def subnet(ec2, vpc):
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    ec2.get_waiter("subnet_available").wait(SubnetIds=[made], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    return made


def aws(engine, *arguments, check=True):
    """The aws CLI's answer as JSON, or its error text."""
    cli = os.path.join(os.path.dirname(os.sys.executable), "aws")
    done = subprocess.run([cli, "ec2", *arguments, "--output", "json"], env=engine.environment(), capture_output=True, text=True)
    if not check:
        return done.returncode, done.stderr
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else {}


# Proves: NET-1, NET-2, NET-3, NET-5, NET-80, NET-82
def test_a_vpc_and_its_subnets_by_the_cli(engine):
    made = aws(engine, "create-vpc", "--cidr-block", "10.1.2.3/16", "--tag-specifications", "ResourceType=vpc,Tags=[{Key=team,Value=ml}]")["Vpc"]
    assert made["CidrBlock"] == "10.1.0.0/16" and made["State"] == "available" and made["OwnerId"] == ACCOUNT
    assert made["IsDefault"] is False and made["InstanceTenancy"] == "default"
    assert made["Tags"] == [{"Key": "team", "Value": "ml"}]
    vpc = made["VpcId"]
    aws(engine, "wait", "vpc-available", "--vpc-ids", vpc)
    subnet = aws(engine, "create-subnet", "--vpc-id", vpc, "--cidr-block", "10.1.1.0/24", "--availability-zone", f"{REGION}b")["Subnet"]
    assert subnet["AvailableIpAddressCount"] == 251 and subnet["AvailabilityZoneId"] == "use1-az2"
    assert subnet["SubnetArn"] == f"arn:aws:ec2:{REGION}:{ACCOUNT}:subnet/{subnet['SubnetId']}"
    aws(engine, "modify-vpc-attribute", "--vpc-id", vpc, "--enable-dns-hostnames")
    shown = aws(engine, "describe-vpc-attribute", "--vpc-id", vpc, "--attribute", "enableDnsHostnames")
    assert shown["EnableDnsHostnames"] == {"Value": True}
    status, text = aws(engine, "delete-vpc", "--vpc-id", vpc, check=False)
    assert status != 0 and "DependencyViolation" in text
    aws(engine, "delete-subnet", "--subnet-id", subnet["SubnetId"])
    aws(engine, "delete-vpc", "--vpc-id", vpc)
    status, text = aws(engine, "describe-vpcs", "--vpc-ids", vpc, check=False)
    assert status != 0 and f"The vpc ID '{vpc}' does not exist" in text


# Proves: NET-80
def test_a_dry_run_is_answered_412_and_a_stranger_403(engine, ec2):
    before = len(ec2.describe_vpcs().get("Vpcs", []))
    answer = refused(ec2.create_vpc, CidrBlock="10.0.0.0/16", DryRun=True)
    assert answer == ("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
    iam = engine.client("iam")
    iam.create_user(UserName="no-network")
    keys = iam.create_access_key(UserName="no-network")["AccessKey"]
    stranger = engine.client("ec2", key=keys["AccessKeyId"], secret=keys["SecretAccessKey"])
    found, text, status = refused(stranger.create_vpc, CidrBlock="10.0.0.0/16", DryRun=True)
    assert (found, status) == ("UnauthorizedOperation", 403)
    assert text.startswith("You are not authorized to perform this operation. User: arn:aws:iam::")
    assert len(ec2.describe_vpcs().get("Vpcs", [])) == before


# Proves: NET-81
def test_describes_take_ids_filters_with_wildcards_and_pages(ec2, vpc, name):
    made = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", TagSpecifications=tagged("subnet", f"{name}-{n}"))["Subnet"]["SubnetId"] for n in range(12)]
    mine = [{"Name": "vpc-id", "Values": [vpc]}]
    pages = list(ec2.get_paginator("describe_subnets").paginate(Filters=mine, PaginationConfig={"PageSize": 5}))
    assert [len(page["Subnets"]) for page in pages] == [5, 5, 2]
    assert [one["SubnetId"] for page in pages for one in page["Subnets"]] == made, "in the order of creation, none twice"
    by_tag = ec2.describe_subnets(Filters=mine + [{"Name": "tag:Name", "Values": [f"{name}-1?", f"{name}-3"]}])["Subnets"]
    assert {one["CidrBlock"] for one in by_tag} == {"10.0.10.0/24", "10.0.11.0/24", "10.0.3.0/24"}
    assert len(ec2.describe_subnets(Filters=mine + [{"Name": "cidr-block", "Values": ["10.0.1*"]}])["Subnets"]) == 3
    assert ec2.describe_subnets(Filters=mine + [{"Name": "state", "Values": ["pending"]}])["Subnets"] == []
    assert len(ec2.describe_subnets(SubnetIds=made[:2])["Subnets"]) == 2
    assert code(ec2.describe_subnets, SubnetIds=[made[0], "subnet-0fffffffffffffff0"]) == "InvalidSubnetID.NotFound"
    assert code(ec2.describe_subnets, Filters=[{"Name": "colour", "Values": ["red"]}]) == "InvalidParameterValue"
    assert code(ec2.describe_subnets, NextToken="nonsense", MaxResults=5) == "InvalidNextToken"


# Proves: NET-84
def test_unknown_ids_and_wrong_values_are_refused_in_ec2s_words(ec2, vpc, subnet):
    none = "0fffffffffffffff0"
    assert refused(ec2.describe_vpcs, VpcIds=[f"vpc-{none}"]) == ("InvalidVpcID.NotFound", f"The vpc ID 'vpc-{none}' does not exist", 400)
    cases = [
        (ec2.describe_subnets, {"SubnetIds": [f"subnet-{none}"]}, "InvalidSubnetID.NotFound", f"The subnet ID 'subnet-{none}' does not exist"),
        (ec2.describe_route_tables, {"RouteTableIds": [f"rtb-{none}"]}, "InvalidRouteTableID.NotFound", f"The routeTable ID 'rtb-{none}' does not exist"),
        (ec2.describe_network_interfaces, {"NetworkInterfaceIds": [f"eni-{none}"]}, "InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID 'eni-{none}' does not exist"),
        (ec2.describe_internet_gateways, {"InternetGatewayIds": [f"igw-{none}"]}, "InvalidInternetGatewayID.NotFound", None),
        (ec2.describe_nat_gateways, {"NatGatewayIds": [f"nat-{none}"]}, "NatGatewayNotFound", None),
        (ec2.describe_addresses, {"AllocationIds": [f"eipalloc-{none}"]}, "InvalidAllocationID.NotFound", None),
        (ec2.describe_dhcp_options, {"DhcpOptionsIds": [f"dopt-{none}"]}, "InvalidDhcpOptionID.NotFound", None),
        (ec2.create_network_interface, {"SubnetId": subnet, "Groups": [f"sg-{none}"]}, "InvalidGroup.NotFound", f"The security group 'sg-{none}' does not exist"),
        (ec2.create_vpc, {"CidrBlock": "10.0.0.0/8"}, "InvalidVpc.Range", "The CIDR '10.0.0.0/8' is invalid."),
        (ec2.create_subnet, {"VpcId": vpc, "CidrBlock": "192.168.0.0/24"}, "InvalidSubnet.Range", "The CIDR '192.168.0.0/24' is invalid."),
        (ec2.create_subnet, {"VpcId": vpc, "CidrBlock": "10.0.1.0/25"}, "InvalidSubnet.Conflict", "The CIDR '10.0.1.0/25' conflicts with another subnet"),
        (ec2.create_vpc, {}, "MissingParameter", "The request must contain the parameter cidrBlock"),
        (ec2.create_nat_gateway, {"SubnetId": subnet}, "MissingParameter", None),
        (ec2.create_vpc, {"CidrBlock": "10.0.0.0/16", "AmazonProvidedIpv6CidrBlock": True}, "UnsupportedOperation", None),
    ]
    for call, parameters, expected, text in cases:
        found, message, status = refused(call, **parameters)
        assert (found, status) == (expected, 400), (call, message)
        assert text is None or message == text


# Proves: NET-80, NET-84
def test_bad_credentials_are_401(engine):
    stranger = engine.client("ec2", key="AKIAIOSFODNN7EXAMPLE", secret="wrong")
    assert refused(stranger.describe_vpcs)[::2] == ("AuthFailure", 401)


# Proves: NET-82
def test_a_client_token_makes_one_and_tags_are_there_from_the_start(ec2, subnet, name):
    asked = {"SubnetId": subnet, "ClientToken": name, "TagSpecifications": tagged("network-interface", name)}
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ec2.create_network_interface(**asked)["NetworkInterface"]["NetworkInterfaceId"], range(16)))
    assert len(set(made)) == 1, "sixteen requests, one interface"
    found = ec2.describe_network_interfaces(Filters=[{"Name": "tag:Name", "Values": [name]}])["NetworkInterfaces"]
    assert [one["NetworkInterfaceId"] for one in found] == made[:1]
    assert found[0]["TagSet"] == [{"Key": "Name", "Value": name}]
    assert code(ec2.create_network_interface, **asked | {"Description": "other"}) == "IdempotentParameterMismatch"
    wrong = {"SubnetId": subnet, "TagSpecifications": tagged("subnet", name)}
    assert code(ec2.create_network_interface, **wrong) == "InvalidParameterValue"


# Proves: NET-3, NET-4, NET-10
def test_addresses_are_taken_once_and_come_back(ec2, vpc):
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.2.0/28")["Subnet"]["SubnetId"]

    def free():
        return ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailableIpAddressCount"]

    assert free() == 11
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"], range(11)))
    assert {one["PrivateIpAddress"] for one in made} == {f"10.0.2.{n}" for n in range(4, 15)}
    assert len({one["MacAddress"] for one in made}) == 11
    assert free() == 0
    full = refused(ec2.create_network_interface, SubnetId=subnet)
    assert full == ("InsufficientFreeAddressesInSubnet", "The specified subnet does not have enough free addresses to satisfy the request.", 400)
    assert code(ec2.delete_subnet, SubnetId=subnet) == "DependencyViolation"
    ec2.get_waiter("network_interface_available").wait(NetworkInterfaceIds=[one["NetworkInterfaceId"] for one in made], WaiterConfig={"Delay": 1, "MaxAttempts": 5})
    back = made[3]
    ec2.delete_network_interface(NetworkInterfaceId=back["NetworkInterfaceId"])
    assert free() == 1
    again = ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress=back["PrivateIpAddress"])["NetworkInterface"]
    assert code(ec2.create_network_interface, SubnetId=subnet, PrivateIpAddress=back["PrivateIpAddress"]) == "InvalidIPAddress.InUse"
    for one in [again, *made]:
        if one["NetworkInterfaceId"] != back["NetworkInterfaceId"]:
            ec2.delete_network_interface(NetworkInterfaceId=one["NetworkInterfaceId"])
    assert free() == 11
    ec2.delete_subnet(SubnetId=subnet)


# Proves: NET-24, NET-26, NET-27, NET-28, NET-85
def test_routes_and_the_internet_gateway(ec2, vpc, subnet):
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.get_waiter("internet_gateway_exists").wait(InternetGatewayIds=[gateway], WaiterConfig={"Delay": 1, "MaxAttempts": 5})
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]
    assert [route["GatewayId"] for route in table["Routes"]] == ["local"] and table["Associations"] == []
    table = table["RouteTableId"]
    everywhere = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
    assert code(ec2.create_route, GatewayId=gateway, **everywhere) == "InvalidParameterValue"
    assert code(ec2.detach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc) == "Gateway.NotAttached"
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    assert code(ec2.attach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc) == "Resource.AlreadyAssociated"
    assert ec2.create_route(GatewayId=gateway, **everywhere)["Return"] is True
    twice = refused(ec2.create_route, GatewayId=gateway, **everywhere)
    assert twice == ("RouteAlreadyExists", "The route identified by 0.0.0.0/0 already exists", 400)
    assert code(ec2.create_route, RouteTableId=table, DestinationCidrBlock="169.254.169.0/24", GatewayId=gateway) == "InvalidParameterValue"
    assert code(ec2.delete_route, RouteTableId=table, DestinationCidrBlock="10.0.0.0/16") == "InvalidParameterValue"
    missing = refused(ec2.delete_route, RouteTableId=table, DestinationCidrBlock="192.0.2.0/24")
    assert missing == ("InvalidRoute.NotFound", f"no route with destination-cidr-block 192.0.2.0/24 in route table {table}", 400)
    association = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
    found = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [subnet]}])["RouteTables"]
    assert [one["RouteTableId"] for one in found] == [table]
    assert found[0]["Associations"][0]["RouteTableAssociationId"] == association

    def state():
        routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
        return next(route["State"] for route in routes if route["DestinationCidrBlock"] == "0.0.0.0/0")

    assert state() == "active"
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    assert state() == "blackhole"
    blackholes = ec2.describe_route_tables(Filters=[{"Name": "route.state", "Values": ["blackhole"]}, {"Name": "vpc-id", "Values": [vpc]}])
    assert [one["RouteTableId"] for one in blackholes["RouteTables"]] == [table]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    assert state() == "active"
    assert code(ec2.delete_route_table, RouteTableId=table) == "DependencyViolation"
    ec2.disassociate_route_table(AssociationId=association)
    ec2.delete_route(**everywhere)
    ec2.delete_route_table(RouteTableId=table)
    assert code(ec2.delete_internet_gateway, InternetGatewayId=gateway) == "DependencyViolation"
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    ec2.delete_internet_gateway(InternetGatewayId=gateway)


# Proves: NET-11, NET-12, NET-29, NET-30, NET-85
def test_a_nat_gateway_comes_with_its_interface_and_goes_with_it(ec2, vpc, subnet, name):
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    address = ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip", name))
    assert address["PublicIp"].startswith("198.19."), "from the configured pool"
    free = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailableIpAddressCount"]
    nat = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address["AllocationId"])["NatGateway"]
    assert nat["State"] == "pending" and nat["ConnectivityType"] == "public"
    nat = nat["NatGatewayId"]
    ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[nat], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    shown = ec2.describe_nat_gateways(NatGatewayIds=[nat])["NatGateways"][0]["NatGatewayAddresses"][0]
    assert shown["PublicIp"] == address["PublicIp"]
    interface = ec2.describe_network_interfaces(NetworkInterfaceIds=[shown["NetworkInterfaceId"]])["NetworkInterfaces"][0]
    assert interface["RequesterManaged"] is True and interface["RequesterId"]
    assert interface["InterfaceType"] == "nat_gateway" and interface["Status"] == "in-use"
    assert interface["Description"] == f"Interface for NAT Gateway {nat}" and interface["SourceDestCheck"] is False
    assert interface["Association"]["PublicIp"] == address["PublicIp"] and interface["Groups"] == []
    untouchable = [
        (ec2.delete_network_interface, {"NetworkInterfaceId": interface["NetworkInterfaceId"]}),
        (ec2.detach_network_interface, {"AttachmentId": interface["Attachment"]["AttachmentId"]}),
        (ec2.disassociate_address, {"AssociationId": interface["Association"]["AssociationId"]}),
        (ec2.modify_network_interface_attribute, {"NetworkInterfaceId": interface["NetworkInterfaceId"], "SourceDestCheck": {"Value": True}}),
    ]
    for call, parameters in untouchable:
        assert code(call, **parameters) == "OperationNotPermitted", call
    assert code(ec2.release_address, AllocationId=address["AllocationId"]) == "InvalidIPAddress.InUse"
    assert code(ec2.detach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc) == "DependencyViolation"
    ec2.delete_nat_gateway(NatGatewayId=nat)
    ec2.get_waiter("nat_gateway_deleted").wait(NatGatewayIds=[nat], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    assert ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailableIpAddressCount"] == free
    ec2.release_address(AllocationId=address["AllocationId"])
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    ec2.delete_internet_gateway(InternetGatewayId=gateway)


# Proves: NET-29, NET-85
def test_a_nat_gateway_without_internet_gateway_fails(ec2, subnet):
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address)["NatGateway"]["NatGatewayId"]
    with pytest.raises(WaiterError):
        ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[nat], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    shown = ec2.describe_nat_gateways(NatGatewayIds=[nat])["NatGateways"][0]
    assert (shown["State"], shown["FailureCode"]) == ("failed", "Gateway.NotAttached")
    ec2.release_address(AllocationId=address)


# Proves: NET-10, NET-28
def test_an_elastic_ip_follows_its_interface(ec2, vpc, subnet):
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    address = ec2.allocate_address(Domain="vpc")
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    asked = {"AllocationId": address["AllocationId"], "NetworkInterfaceId": interface}
    assert code(ec2.associate_address, **asked) == "Gateway.NotAttached"
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    first = ec2.associate_address(**asked)["AssociationId"]
    shown = ec2.describe_addresses(Filters=[{"Name": "network-interface-id", "Values": [interface]}])["Addresses"]
    assert [(one["AssociationId"], one["PublicIp"]) for one in shown] == [(first, address["PublicIp"])]
    other = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    assert code(ec2.associate_address, **asked | {"NetworkInterfaceId": other, "AllowReassociation": False}) == "Resource.AlreadyAssociated"
    ec2.associate_address(**asked | {"NetworkInterfaceId": other})
    assert "Association" not in ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]
    ec2.disassociate_address(PublicIp=address["PublicIp"])
    assert code(ec2.disassociate_address, AssociationId=first) == "InvalidAssociationID.NotFound"
    assert code(ec2.associate_address, AllocationId=address["AllocationId"], InstanceId="i-0123456789abcdef0") == "InvalidInstanceID.NotFound"
    ec2.release_address(AllocationId=address["AllocationId"])


# Proves: NET-53
def test_dhcp_options_are_associated_and_go(ec2, vpc):
    made = ec2.create_dhcp_options(DhcpConfigurations=[{"Key": "domain-name", "Values": ["ml.internal"]}, {"Key": "domain-name-servers", "Values": ["10.0.1.53", "AmazonProvidedDNS"]}])
    options = made["DhcpOptions"]["DhcpOptionsId"]
    before = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["DhcpOptionsId"]
    assert {"Key": "domain-name-servers", "Values": [{"Value": "AmazonProvidedDNS"}]} in ec2.describe_dhcp_options(DhcpOptionsIds=[before])["DhcpOptions"][0]["DhcpConfigurations"]
    ec2.associate_dhcp_options(DhcpOptionsId=options, VpcId=vpc)
    assert ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["DhcpOptionsId"] == options
    assert code(ec2.delete_dhcp_options, DhcpOptionsId=options) == "DependencyViolation"
    ec2.associate_dhcp_options(DhcpOptionsId="default", VpcId=vpc)
    assert ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["DhcpOptionsId"] == "default"
    ec2.delete_dhcp_options(DhcpOptionsId=options)
    assert code(ec2.create_dhcp_options, DhcpConfigurations=[{"Key": "colour", "Values": ["red"]}]) == "InvalidParameterValue"


# Proves: NET-83
def test_a_subnets_attributes_are_changed_one_at_a_time(ec2, subnet):
    assert ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["MapPublicIpOnLaunch"] is False
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    assert ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["MapPublicIpOnLaunch"] is True
    unknown = "subnet-00000000000000000"
    assert code(ec2.modify_subnet_attribute, SubnetId=unknown, MapPublicIpOnLaunch={"Value": True}) == "InvalidSubnetID.NotFound"


# Proves: NET-83
def test_permissions_on_interfaces(ec2, subnet):
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    asked = {"NetworkInterfaceId": interface, "AwsAccountId": "210987654321", "Permission": "INSTANCE-ATTACH"}
    made = ec2.create_network_interface_permission(**asked)["InterfacePermission"]
    assert made["PermissionState"] == {"State": "granted"}
    assert code(ec2.create_network_interface_permission, **asked) == "InvalidPermission.Duplicate"
    shown = ec2.describe_network_interface_permissions(Filters=[{"Name": "network-interface-permission.network-interface-id", "Values": [interface]}])
    assert [one["NetworkInterfacePermissionId"] for one in shown["NetworkInterfacePermissions"]] == [made["NetworkInterfacePermissionId"]]
    assert ec2.delete_network_interface_permission(NetworkInterfacePermissionId=made["NetworkInterfacePermissionId"])["Return"] is True
    assert code(ec2.delete_network_interface_permission, NetworkInterfacePermissionId=made["NetworkInterfacePermissionId"]) == "InvalidPermissionID.NotFound"


# Proves: NET-2, NET-83
def test_zones_regions_and_account_attributes(engine):
    zones = aws(engine, "describe-availability-zones")["AvailabilityZones"]
    assert [(one["ZoneName"], one["ZoneId"], one["State"]) for one in zones] == [(f"{REGION}{letter}", f"use1-az{n}", "available") for n, letter in enumerate("abc", 1)]
    assert [one["RegionName"] for one in aws(engine, "describe-regions")["Regions"]] == [REGION]
    names = {one["AttributeName"] for one in aws(engine, "describe-account-attributes")["AccountAttributes"]}
    assert {"supported-platforms", "default-vpc"} <= names


# Proves: NET-6, NET-86
def test_default_quotas_and_the_configured_default_vpc():
    settings = {"ec2.default_vpc": True, "ec2.subnets_per_vpc": 4}
    with Engine(os.environ["ISOLARIUM_BINARY"], settings, internet=False) as running:
        ec2 = running.client("ec2")
        default = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        assert [one["CidrBlock"] for one in default] == ["172.31.0.0/16"]
        mine = [{"Name": "vpc-id", "Values": [default[0]["VpcId"]]}]
        subnets = ec2.describe_subnets(Filters=mine)["Subnets"]
        assert sorted(one["AvailabilityZone"] for one in subnets) == [f"{REGION}{letter}" for letter in "abc"]
        assert all(one["CidrBlock"].endswith("/20") and one["MapPublicIpOnLaunch"] for one in subnets)
        routes = ec2.describe_route_tables(Filters=mine)["RouteTables"][0]["Routes"]
        assert any(route["DestinationCidrBlock"] == "0.0.0.0/0" and route["State"] == "active" for route in routes)
        assert code(ec2.create_default_vpc) == "DefaultVpcAlreadyExists"
        ec2.create_subnet(VpcId=default[0]["VpcId"], CidrBlock="172.31.128.0/24")
        assert code(ec2.create_subnet, VpcId=default[0]["VpcId"], CidrBlock="172.31.129.0/24") == "SubnetLimitExceeded"
        with ThreadPoolExecutor(8) as pool:
            def attempt(_):
                try:
                    return ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
                except ClientError as error:
                    return error.response["Error"]["Code"]
            made = list(pool.map(attempt, range(8)))
        assert made.count("VpcLimitExceeded") == 4 and len(ec2.describe_vpcs()["Vpcs"]) == 5
        addresses = [ec2.allocate_address()["AllocationId"] for _ in range(5)]
        assert len(set(addresses)) == 5 and code(ec2.allocate_address) == "AddressLimitExceeded"
        # A restart makes no second default VPC, and everything is still there.
        running.stop()
        running.start()
        ec2 = running.client("ec2")
        assert len(ec2.describe_vpcs()["Vpcs"]) == 5 and len(ec2.describe_addresses()["Addresses"]) == 5
