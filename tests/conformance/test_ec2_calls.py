"""What every call of EC2's Query API has in common: dry runs, client tokens and pages, for each operation that the service
model says it of.
"""
import json
import tomllib
from pathlib import Path

import pytest

from tests.conformance.test_ec2_security import FLOW_TRUST
from tests.harness.engine import REGION
from tests.harness.wire import refused

SERVED = tomllib.loads((Path(__file__).resolve().parents[2] / "models/served-operations.toml").read_text())["ec2"]["operations"]


def operations(ec2, member):
    """Served operations whose input has this member, as names of the client's methods."""
    methods = {api: method for method, api in ec2.meta.method_to_api_mapping.items()}
    has = lambda api: member in (ec2.meta.service_model.operation_model(api).input_shape.members if ec2.meta.service_model.operation_model(api).input_shape else {})
    return {methods[api] for api in SERVED if has(api)}


class Things:
    """One of each noun in a VPC of its own, and the parameters of a good call of every operation."""

    def __init__(self, engine, ec2, name):
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock="10.70.0.0/16")["Vpc"]["VpcId"]
        own = [{"Name": "vpc-id", "Values": [self.vpc]}]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.70.1.0/24")["Subnet"]["SubnetId"]
        self.group = ec2.create_security_group(VpcId=self.vpc, GroupName=name, Description="d")["GroupId"]
        self.rule = ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=self.permissions(22))["SecurityGroupRules"][0]["SecurityGroupRuleId"]
        self.main = ec2.describe_route_tables(Filters=own)["RouteTables"][0]
        self.table = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        self.association = ec2.associate_route_table(RouteTableId=self.table, SubnetId=self.subnet)["AssociationId"]
        self.internet = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.stray = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=self.internet, VpcId=self.vpc)
        ec2.create_route(RouteTableId=self.table, DestinationCidrBlock="192.0.2.0/24", GatewayId=self.internet)
        self.address = ec2.allocate_address(Domain="vpc")["AllocationId"]
        self.interface = ec2.create_network_interface(SubnetId=self.subnet)["NetworkInterface"]["NetworkInterfaceId"]
        self.acl = ec2.create_network_acl(VpcId=self.vpc)["NetworkAcl"]["NetworkAclId"]
        ec2.create_network_acl_entry(NetworkAclId=self.acl, RuleNumber=100, Protocol="-1", RuleAction="allow", Egress=False, CidrBlock="10.0.0.0/8")
        default = ec2.describe_network_acls(Filters=own + [{"Name": "default", "Values": ["true"]}])["NetworkAcls"][0]
        self.acl_association = default["Associations"][0]["NetworkAclAssociationId"]
        self.endpoint = ec2.create_vpc_endpoint(VpcId=self.vpc, ServiceName=f"com.amazonaws.{REGION}.s3")["VpcEndpoint"]["VpcEndpointId"]
        self.options = ec2.create_dhcp_options(DhcpConfigurations=[{"Key": "domain-name", "Values": ["x.example"]}])["DhcpOptions"]["DhcpOptionsId"]
        self.role = engine.client("iam").create_role(RoleName=name[-60:], AssumeRolePolicyDocument=json.dumps(FLOW_TRUST))["Role"]["Arn"]
        self.flows = {"ResourceIds": [self.vpc], "ResourceType": "VPC", "TrafficType": "ALL", "LogGroupName": name, "DeliverLogsPermissionArn": self.role}
        self.prefix_list = ec2.describe_prefix_lists()["PrefixLists"][0]["PrefixListId"]

    @staticmethod
    def permissions(port):
        return [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]

    def calls(self):
        """Good parameters; operations that need none are left out."""
        group, table, acl, eni = {"GroupId": self.group}, {"RouteTableId": self.table}, {"NetworkAclId": self.acl}, {"NetworkInterfaceId": self.interface}
        vpc, entry = {"VpcId": self.vpc}, {"RuleNumber": 100, "Egress": False}
        route = {**table, "DestinationCidrBlock": "192.0.2.0/24"}
        allow = {"Protocol": "-1", "RuleAction": "allow", "CidrBlock": "10.0.0.0/8"}
        changed = {"IpProtocol": "tcp", "FromPort": 23, "ToPort": 23, "CidrIpv4": "10.0.0.0/8"}
        return {
            "allocate_address": {"Domain": "vpc"},
            "associate_address": {"AllocationId": self.address, **eni},
            "associate_dhcp_options": {"DhcpOptionsId": "default", **vpc},
            "associate_route_table": {**table, "SubnetId": self.subnet},
            "associate_vpc_cidr_block": {**vpc, "CidrBlock": "10.71.0.0/16"},
            "attach_internet_gateway": {"InternetGatewayId": self.stray, **vpc},
            "attach_network_interface": None,
            "authorize_security_group_egress": {**group, "IpPermissions": self.permissions(80)},
            "authorize_security_group_ingress": {**group, "IpPermissions": self.permissions(80)},
            "create_dhcp_options": {"DhcpConfigurations": [{"Key": "domain-name", "Values": ["y.example"]}]},
            "create_flow_logs": self.flows,
            "create_nat_gateway": {"SubnetId": self.subnet, "AllocationId": self.address},
            "create_network_acl": vpc,
            "create_network_acl_entry": {**acl, **allow, "RuleNumber": 110, "Egress": False},
            "create_network_interface": {"SubnetId": self.subnet},
            "create_network_interface_permission": None,
            "create_route": {**table, "DestinationCidrBlock": "198.51.100.0/24", "GatewayId": self.internet},
            "create_route_table": vpc,
            "create_security_group": {**vpc, "GroupName": "another", "Description": "d"},
            "create_subnet": {**vpc, "CidrBlock": "10.70.2.0/24"},
            "create_tags": {"Resources": [self.vpc], "Tags": [{"Key": "dry", "Value": "run"}]},
            "create_vpc": {"CidrBlock": "10.72.0.0/16"},
            "create_vpc_endpoint": {**vpc, "ServiceName": f"com.amazonaws.{REGION}.s3"},
            "delete_dhcp_options": {"DhcpOptionsId": self.options},
            "delete_internet_gateway": {"InternetGatewayId": self.stray},
            "delete_nat_gateway": None,
            "delete_flow_logs": None,
            "delete_network_acl": acl,
            "delete_network_acl_entry": {**acl, **entry},
            "delete_network_interface": eni,
            "delete_network_interface_permission": None,
            "delete_route": route,
            "delete_route_table": {"RouteTableId": self.table},
            "delete_security_group": group,
            "delete_subnet": {"SubnetId": self.subnet},
            "delete_tags": {"Resources": [self.vpc]},
            "delete_vpc": vpc,
            "delete_vpc_endpoints": {"VpcEndpointIds": [self.endpoint]},
            "describe_network_interface_attribute": {**eni, "Attribute": "description"},
            "describe_vpc_attribute": {**vpc, "Attribute": "enableDnsSupport"},
            "detach_internet_gateway": {"InternetGatewayId": self.internet, **vpc},
            "detach_network_interface": None,
            "disassociate_address": None,
            "disassociate_route_table": {"AssociationId": self.association},
            "disassociate_vpc_cidr_block": None,
            "get_managed_prefix_list_entries": {"PrefixListId": self.prefix_list},
            "modify_network_interface_attribute": {**eni, "Description": {"Value": "dry"}},
            "modify_security_group_rules": {**group, "SecurityGroupRules": [{"SecurityGroupRuleId": self.rule, "SecurityGroupRule": changed}]},
            "modify_vpc_endpoint": {"VpcEndpointId": self.endpoint, "AddRouteTableIds": [self.table]},
            "release_address": {"AllocationId": self.address},
            "replace_network_acl_association": {"AssociationId": self.acl_association, **acl},
            "replace_network_acl_entry": {**acl, **allow, **entry},
            "replace_route": {**route, "NetworkInterfaceId": self.interface},
            "replace_route_table_association": {"AssociationId": self.association, "RouteTableId": self.main["RouteTableId"]},
            "reset_network_interface_attribute": {**eni, "SourceDestCheck": "true"},
            "revoke_security_group_egress": {**group, "SecurityGroupRuleIds": ["sgr-00000000000000000"]},
            "revoke_security_group_ingress": {**group, "SecurityGroupRuleIds": [self.rule]},
            "update_security_group_rule_descriptions_egress": {**group, "SecurityGroupRuleDescriptions": []},
            "update_security_group_rule_descriptions_ingress": {**group, "IpPermissions": self.permissions(22)},
        }

    def state(self):
        """Everything of the account that a call could change."""
        ec2, own = self.ec2, [{"Name": "vpc-id", "Values": [self.vpc]}]
        seen = {
            "vpcs": ec2.describe_vpcs()["Vpcs"], "addresses": ec2.describe_addresses()["Addresses"],
            "internet": ec2.describe_internet_gateways()["InternetGateways"], "options": ec2.describe_dhcp_options()["DhcpOptions"],
            "tags": ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [self.vpc]}])["Tags"],
            "dns": ec2.describe_vpc_attribute(VpcId=self.vpc, Attribute="enableDnsSupport")["EnableDnsSupport"],
        }
        for noun, key in (
            ("subnets", "Subnets"), ("security_groups", "SecurityGroups"), ("route_tables", "RouteTables"), ("network_acls", "NetworkAcls"),
            ("network_interfaces", "NetworkInterfaces"), ("vpc_endpoints", "VpcEndpoints"), ("nat_gateways", "NatGateways"),
        ):
            seen[noun] = getattr(ec2, f"describe_{noun}")(Filters=own)[key]
        return seen


@pytest.fixture(scope="module")
def things(engine, ec2):
    return Things(engine, ec2, "ec2-calls")


def test_a_dry_run_of_every_operation_says_what_would_happen_and_changes_nothing(ec2, things):
    """Proves: NET-80, NET-83"""
    calls, before, asked = things.calls(), things.state(), []
    for operation in sorted(operations(ec2, "DryRun")):
        parameters = calls.get(operation, {})
        if parameters is None:
            # It needs what only a running workload or another call has; any id will do where nobody looks for it first.
            continue
        error = refused("DryRunOperation", getattr(ec2, operation), DryRun=True, **parameters)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412, operation
        asked.append(operation)
    assert len(asked) > 60, asked
    assert things.state() == before


def test_a_client_token_makes_one_of_every_kind(ec2, things):
    """Proves: NET-82, NET-83"""
    calls, made = things.calls(), {}
    tokened = {operation for operation in operations(ec2, "ClientToken") if operation.startswith("create_")}

    def id_of(answer):
        """The first id in an answer."""
        for value in answer.values():
            if isinstance(value, dict):
                found = id_of(value)
            else:
                found = value[0] if isinstance(value, list) and value and isinstance(value[0], str) else value
            if isinstance(found, str) and "-" in found and len(found.split("-")[-1]) == 17:
                return found
        return None

    for operation in sorted(tokened):
        parameters = {"ClientToken": f"token-{operation}", **calls[operation]}
        answers = [getattr(ec2, operation)(**parameters) for _ in range(2)]
        first, second = ({key: value for key, value in answer.items() if key != "ResponseMetadata"} for answer in answers)
        assert id_of(first) and id_of(first) == id_of(second), (operation, first, second)
        made[operation] = id_of(first)
    assert {"create_flow_logs", "create_nat_gateway", "create_network_acl", "create_network_interface", "create_route_table", "create_vpc_endpoint"} <= set(made), made
    refused("IdempotentParameterMismatch", ec2.create_route_table, ClientToken="token-create_route_table", VpcId=ec2.create_vpc(CidrBlock="10.73.0.0/16")["Vpc"]["VpcId"])


def test_every_list_comes_in_pages(ec2, things):
    """Proves: NET-81, NET-83"""
    calls, paged = things.calls(), []
    for n in range(6):
        ec2.create_subnet(VpcId=things.vpc, CidrBlock=f"10.70.{10 + n}.0/24")
        ec2.create_security_group(VpcId=things.vpc, GroupName=f"page-{n}", Description="d")
        ec2.create_route_table(VpcId=things.vpc)
        ec2.create_network_acl(VpcId=things.vpc)
        ec2.create_network_interface(SubnetId=things.subnet)
        ec2.create_tags(Resources=[things.vpc], Tags=[{"Key": f"page-{n}", "Value": ""}])
    for operation in sorted(operations(ec2, "NextToken")):
        if not ec2.can_paginate(operation) or calls.get(operation, {}) is None:
            continue
        paginator = ec2.get_paginator(operation)
        key = paginator.result_keys[0].expression
        parameters = calls.get(operation, {})
        whole = getattr(ec2, operation)(**parameters).get(key, [])
        pages = [page.get(key, []) for page in paginator.paginate(**parameters, PaginationConfig={"PageSize": 5})]
        assert [one for page in pages for one in page] == whole, operation
        assert all(len(page) <= 5 for page in pages), operation
        if len(pages) > 1:
            paged.append(operation)
    many = {f"describe_{noun}" for noun in ("subnets", "security_groups", "route_tables", "network_acls", "network_interfaces", "tags", "security_group_rules")}
    assert many <= set(paged), paged
