"""Security groups, network ACLs, prefix lists, gateway endpoints, flow logs and tags by unmodified boto3 and the aws CLI."""
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.harness.engine import ACCOUNT, REGION, TRUST
from tests.harness.wire import refused

S3 = f"com.amazonaws.{REGION}.s3"
ANYWHERE = [{"CidrIp": "0.0.0.0/0"}]
FLOW_TRUST = json.loads(json.dumps(TRUST).replace("sagemaker", "vpc-flow-logs"))
DEFAULT_FORMAT = (
    "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} "
    "${start} ${end} ${action} ${log-status}"
)


@pytest.fixture(scope="module")
def vpc(ec2):
    """One VPC for the tests of this file: an account has five."""
    made = ec2.create_vpc(CidrBlock="10.61.0.0/16")["Vpc"]["VpcId"]
    yield made


@pytest.fixture
def group(ec2, vpc, name):
    return ec2.create_security_group(GroupName=name, Description="by a test", VpcId=vpc)["GroupId"]


def shown(ec2, group):
    return ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]


def main_table(ec2, vpc):
    own = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}]
    return ec2.describe_route_tables(Filters=own)["RouteTables"][0]


def cli(engine, *arguments, ok=True):
    """What the aws CLI prints, or the error it shows."""
    aws = Path(sys.executable).parent / "aws"
    done = subprocess.run([aws, "ec2", *arguments, "--output", "json"], env=engine.environment(), capture_output=True, text=True)
    assert (done.returncode == 0) == ok, done.stderr
    return (json.loads(done.stdout) if done.stdout.strip() else {}) if ok else done.stderr


def tcp(port, **peers):
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peers}


def test_a_new_group_lets_nothing_in_and_everything_out(ec2, vpc, group):
    """Proves: NET-15, NET-20"""
    fresh = shown(ec2, group)
    assert fresh["IpPermissions"] == [] and fresh["VpcId"] == vpc and fresh["OwnerId"] == ACCOUNT
    assert fresh["SecurityGroupArn"] == f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/{group}"
    everything = {"IpProtocol": "-1", "UserIdGroupPairs": [], "IpRanges": ANYWHERE, "Ipv6Ranges": [], "PrefixListIds": []}
    assert fresh["IpPermissionsEgress"] == [everything]
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": ANYWHERE}])
    assert shown(ec2, group)["IpPermissionsEgress"] == []
    waited = ec2.get_waiter("security_group_exists")
    waited.wait(GroupIds=[group], WaiterConfig={"Delay": 1, "MaxAttempts": 3})


def test_rules_name_blocks_groups_and_the_prefix_list_of_s3(ec2, group):
    """Proves: NET-17, NET-18"""
    listed = ec2.describe_prefix_lists()["PrefixLists"]
    assert [one["PrefixListName"] for one in listed] == [S3]
    prefix_list = listed[0]["PrefixListId"]
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[
        tcp(443, IpRanges=[{"CidrIp": "10.1.2.3/8", "Description": "office"}], UserIdGroupPairs=[{"GroupId": group}]),
        {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": ANYWHERE},
    ])
    assert made["Return"] and len(made["SecurityGroupRules"]) == 3
    blocks = {rule.get("CidrIpv4") for rule in made["SecurityGroupRules"]}
    assert "10.0.0.0/8" in blocks, "host bits are cleared"
    to_s3 = [tcp(443, PrefixListIds=[{"PrefixListId": prefix_list}])]
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=to_s3)
    refused("InvalidPermission.Duplicate", ec2.authorize_security_group_egress, GroupId=group, IpPermissions=to_s3)
    view = shown(ec2, group)
    assert [one["FromPort"] for one in view["IpPermissions"] if one["IpProtocol"] == "icmp"] == [8]
    web = next(one for one in view["IpPermissions"] if one["IpProtocol"] == "tcp")
    assert web["IpRanges"] == [{"CidrIp": "10.0.0.0/8", "Description": "office"}]
    assert web["UserIdGroupPairs"] == [{"GroupId": group, "UserId": ACCOUNT}]
    assert any(one["PrefixListIds"] == [{"PrefixListId": prefix_list}] for one in view["IpPermissionsEgress"])
    by_rule = {"Filters": [{"Name": "ip-permission.cidr", "Values": ["10.0.0.0/8"]}]}
    assert group in [one["GroupId"] for one in ec2.describe_security_groups(**by_rule)["SecurityGroups"]]
    gone = ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[tcp(443, UserIdGroupPairs=[{"GroupId": group}])])
    assert gone["Return"] and gone["RevokedSecurityGroupRules"][0]["ReferencedGroupId"] == group
    error = refused(
        "InvalidPermission.NotFound", ec2.revoke_security_group_ingress, GroupId=group, IpPermissions=[tcp(22, IpRanges=ANYWHERE)],
    )
    assert error.response["Error"]["Message"] == "The specified rule does not exist in this security group"


def test_rules_have_ids_tags_and_descriptions(ec2, group):
    """Proves: NET-82, NET-83"""
    tags = [{"ResourceType": "security-group-rule", "Tags": [{"Key": "team", "Value": group}]}]
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(22, IpRanges=ANYWHERE)], TagSpecifications=tags)
    rule = made["SecurityGroupRules"][0]["SecurityGroupRuleId"]
    found = ec2.describe_security_group_rules(Filters=[{"Name": "tag:team", "Values": [group]}])["SecurityGroupRules"]
    assert [one["SecurityGroupRuleId"] for one in found] == [rule] and found[0]["Tags"] == tags[0]["Tags"]
    update = {"SecurityGroupRuleId": rule, "SecurityGroupRule": {"IpProtocol": "udp", "FromPort": 53, "ToPort": 54, "CidrIpv4": "10.0.0.0/9"}}
    assert ec2.modify_security_group_rules(GroupId=group, SecurityGroupRules=[update])["Return"]
    ec2.update_security_group_rule_descriptions_ingress(
        GroupId=group, SecurityGroupRuleDescriptions=[{"SecurityGroupRuleId": rule, "Description": "names"}])
    found = ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule])["SecurityGroupRules"][0]
    assert (found["IpProtocol"], found["ToPort"], found["Description"], found["IsEgress"]) == ("udp", 54, "names", False)
    unknown = "sgr-00000000000000000"
    refused("InvalidSecurityGroupRuleId.NotFound", ec2.describe_security_group_rules, SecurityGroupRuleIds=[unknown])
    refused("InvalidSecurityGroupRuleId.NotFound", ec2.revoke_security_group_egress, GroupId=group, SecurityGroupRuleIds=[rule])
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule])
    assert shown(ec2, group)["IpPermissions"] == []


def test_groups_are_named_once_and_stay_while_they_are_used(ec2, vpc, group, name):
    """Proves: NET-20, NET-84"""
    error = refused("InvalidGroup.Duplicate", ec2.create_security_group, GroupName=name, Description="d", VpcId=vpc)
    assert error.response["Error"]["Message"] == f"The security group '{name}' already exists for VPC '{vpc}'"
    for bad in ("sg-mine", "tab\there", "n" * 256):
        refused("InvalidParameterValue", ec2.create_security_group, GroupName=bad, Description="d", VpcId=vpc)
    peer = ec2.create_security_group(GroupName=f"{name}-peer", Description="d", VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=peer, IpPermissions=[tcp(1, UserIdGroupPairs=[{"GroupId": group}])])
    refused("DependencyViolation", ec2.delete_security_group, GroupId=group)
    ec2.delete_security_group(GroupId=peer)
    assert ec2.delete_security_group(GroupId=group)["GroupId"] == group, "control: nothing names it any more"
    error = refused("InvalidGroup.NotFound", ec2.describe_security_groups, GroupIds=[group])
    assert error.response["Error"]["Message"] == f"The security group '{group}' does not exist"
    own = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["default"]}]
    default = ec2.describe_security_groups(Filters=own)["SecurityGroups"][0]
    assert default["IpPermissions"][0]["UserIdGroupPairs"][0]["GroupId"] == default["GroupId"], "NET-5: from itself"
    refused("CannotDelete", ec2.delete_security_group, GroupId=default["GroupId"])


def test_a_direction_has_sixty_rules(ec2, group):
    """Proves: NET-20"""
    ranges = [{"CidrIp": f"10.{n}.0.0/16"} for n in range(61)]
    refused("RulesPerSecurityGroupLimitExceeded", ec2.authorize_security_group_ingress, GroupId=group,
            IpPermissions=[tcp(1, IpRanges=ranges)])
    assert shown(ec2, group)["IpPermissions"] == []
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp(1, IpRanges=ranges[:60])])
    refused("RulesPerSecurityGroupLimitExceeded", ec2.authorize_security_group_ingress, GroupId=group,
            IpPermissions=[tcp(1, IpRanges=ranges[60:])])


def test_writers_at_once_neither_take_one_name_nor_pass_a_limit(engine, ec2, vpc, group, name):
    """Proves: NET-20, NET-32"""
    clients = [engine.client("ec2") for _ in range(8)]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]

    def code(call, **members):
        try:
            call(**members)
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "done"

    def at_once(calls):
        with ThreadPoolExecutor(len(calls)) as pool:
            return sorted(done.result() for done in [pool.submit(*call) for call in calls])

    same = {"GroupName": f"{name}-one", "Description": "d", "VpcId": vpc}
    assert at_once([(lambda c=c: code(c.create_security_group, **same),) for c in clients]) == ["InvalidGroup.Duplicate"] * 7 + ["done"]
    ranges = [[tcp(1, IpRanges=[{"CidrIp": f"10.{n}.{m}.0/24"} for m in range(20)])] for n in range(8)]
    rules = [(lambda c=c, r=r: code(c.authorize_security_group_ingress, GroupId=group, IpPermissions=r),) for c, r in zip(clients, ranges)]
    assert at_once(rules) == ["RulesPerSecurityGroupLimitExceeded"] * 5 + ["done"] * 3
    assert len(shown(ec2, group)["IpPermissions"][0]["IpRanges"]) == 60
    asked = {"VpcId": vpc, "ServiceName": S3, "RouteTableIds": [table]}
    assert at_once([(lambda c=c: code(c.create_vpc_endpoint, **asked),) for c in clients]) == ["RouteAlreadyExists"] * 7 + ["done"]
    mine = [{"Name": "vpc-id", "Values": [vpc]}]
    for endpoint in ec2.describe_vpc_endpoints(Filters=mine)["VpcEndpoints"]:
        ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint["VpcEndpointId"]])
    ec2.delete_route_table(RouteTableId=table)


def test_the_aws_cli_manages_groups(engine, vpc, name):
    """Proves: NET-15, NET-80"""
    group = cli(engine, "create-security-group", "--group-name", name, "--description", "by the CLI", "--vpc-id", vpc)["GroupId"]
    cli(engine, "authorize-security-group-ingress", "--group-id", group, "--protocol", "tcp", "--port", "22", "--cidr", "10.0.0.0/8")
    view = cli(engine, "describe-security-groups", "--group-ids", group)["SecurityGroups"][0]
    assert view["IpPermissions"][0]["IpRanges"] == [{"CidrIp": "10.0.0.0/8"}]
    assert "DryRunOperation" in cli(engine, "delete-security-group", "--group-id", group, "--dry-run", ok=False)
    cli(engine, "create-tags", "--resources", group, "--tags", "Key=team,Value=ml")
    tags = cli(engine, "describe-tags", "--filters", f"Name=resource-id,Values={group}")["Tags"]
    assert tags == [{"Key": "team", "ResourceId": group, "ResourceType": "security-group", "Value": "ml"}]
    cli(engine, "delete-security-group", "--group-id", group)
    assert "InvalidGroup.NotFound" in cli(engine, "describe-security-groups", "--group-ids", group, ok=False)


def test_network_acls_are_ordered_and_end_in_a_deny(ec2, vpc):
    """Proves: NET-22"""
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.61.200.0/24")["Subnet"]["SubnetId"]
    own = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "default", "Values": ["true"]}]
    default = ec2.describe_network_acls(Filters=own)["NetworkAcls"][0]
    assert sorted(entry["RuleNumber"] for entry in default["Entries"]) == [100, 100, 32767, 32767]
    association = next(one for one in default["Associations"] if one["SubnetId"] == subnet)
    acl = ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["NetworkAclId"]
    entry = {"NetworkAclId": acl, "Protocol": "6", "RuleAction": "allow", "Egress": False, "CidrBlock": "10.0.0.9/8"}
    ec2.create_network_acl_entry(RuleNumber=90, PortRange={"From": 443, "To": 443}, **entry)
    refused("NetworkAclEntryAlreadyExists", ec2.create_network_acl_entry, RuleNumber=90, PortRange={"From": 1, "To": 1}, **entry)
    refused("InvalidParameterValue", ec2.create_network_acl_entry, RuleNumber=32767, PortRange={"From": 1, "To": 1}, **entry)
    ec2.replace_network_acl_entry(RuleNumber=90, PortRange={"From": 80, "To": 81}, **entry)
    moved = ec2.replace_network_acl_association(AssociationId=association["NetworkAclAssociationId"], NetworkAclId=acl)
    view = ec2.describe_network_acls(NetworkAclIds=[acl])["NetworkAcls"][0]
    assert view["Associations"] == [
        {"NetworkAclAssociationId": moved["NewAssociationId"], "NetworkAclId": acl, "SubnetId": subnet}]
    ingress = sorted((one for one in view["Entries"] if not one["Egress"]), key=lambda one: one["RuleNumber"])
    assert [(one["RuleNumber"], one["RuleAction"], one["Protocol"]) for one in ingress] == [(90, "allow", "6"), (32767, "deny", "-1")]
    assert ingress[0]["CidrBlock"] == "10.0.0.0/8" and ingress[0]["PortRange"] == {"From": 80, "To": 81}
    refused("DependencyViolation", ec2.delete_network_acl, NetworkAclId=acl)
    refused("InvalidAssociationID.NotFound", ec2.replace_network_acl_association,
            AssociationId=association["NetworkAclAssociationId"], NetworkAclId=default["NetworkAclId"])
    ec2.replace_network_acl_association(AssociationId=moved["NewAssociationId"], NetworkAclId=default["NetworkAclId"])
    ec2.delete_network_acl_entry(NetworkAclId=acl, RuleNumber=90, Egress=False)
    refused("InvalidNetworkAclEntry.NotFound", ec2.delete_network_acl_entry, NetworkAclId=acl, RuleNumber=90, Egress=False)
    ec2.delete_network_acl(NetworkAclId=acl)
    refused("InvalidNetworkAclID.NotFound", ec2.describe_network_acls, NetworkAclIds=[acl])
    refused("InvalidParameterValue", ec2.delete_network_acl, NetworkAclId=default["NetworkAclId"])


def test_the_prefix_list_of_s3_is_shown_with_its_ranges(ec2):
    """Proves: NET-33"""
    own = [{"Name": "prefix-list-name", "Values": [S3]}]
    listed = ec2.describe_prefix_lists(Filters=own)["PrefixLists"][0]
    assert listed["Cidrs"] == ["198.18.128.0/20"]
    managed = ec2.describe_managed_prefix_lists(Filters=own)["PrefixLists"][0]
    assert managed["PrefixListId"] == listed["PrefixListId"] and managed["OwnerId"] == "AWS"
    entries = ec2.get_managed_prefix_list_entries(PrefixListId=listed["PrefixListId"])["Entries"]
    assert [entry["Cidr"] for entry in entries] == listed["Cidrs"]
    assert ec2.describe_prefix_lists(Filters=[{"Name": "prefix-list-name", "Values": ["x"]}])["PrefixLists"] == []
    refused("InvalidPrefixListID.NotFound", ec2.describe_prefix_lists, PrefixListIds=["pl-00000000000000000"])


def test_a_gateway_endpoint_puts_a_route_into_each_selected_table(engine, ec2, vpc):
    """Proves: NET-32, NET-35, NET-41, NET-85, BT-13, BT-14, BT-15, BT-16"""
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    other = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    made = ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=S3, RouteTableIds=[table], ClientToken="once")["VpcEndpoint"]
    endpoint = made["VpcEndpointId"]
    again = ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=S3, RouteTableIds=[table], ClientToken="once")["VpcEndpoint"]
    assert again["VpcEndpointId"] == endpoint
    assert (made["VpcEndpointType"], made["State"], made["RouteTableIds"]) == ("Gateway", "available", [table])
    full = json.loads(made["PolicyDocument"])["Statement"]
    assert full == [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}]
    prefix_list = ec2.describe_prefix_lists()["PrefixLists"][0]["PrefixListId"]

    def routes(id):
        found = ec2.describe_route_tables(RouteTableIds=[id])["RouteTables"][0]["Routes"]
        return [(route["GatewayId"], route["State"]) for route in found if route.get("DestinationPrefixListId") == prefix_list]

    assert routes(table) == [(endpoint, "active")]
    assert routes(other) == [], "BT-15: a table that was not selected"
    refused("RouteAlreadyExists", ec2.create_vpc_endpoint, VpcId=vpc, ServiceName=S3, RouteTableIds=[table])
    refused("InvalidParameterValue", ec2.delete_route, RouteTableId=table, DestinationPrefixListId=prefix_list)
    ec2.modify_vpc_endpoint(VpcEndpointId=endpoint, AddRouteTableIds=[other], RemoveRouteTableIds=[table])
    assert (routes(table), routes(other)) == ([], [(endpoint, "active")])
    custom = json.dumps({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}]})
    ec2.modify_vpc_endpoint(VpcEndpointId=endpoint, PolicyDocument=custom)
    found = cli(engine, "describe-vpc-endpoints", "--vpc-endpoint-ids", endpoint)["VpcEndpoints"][0]
    assert found["PolicyDocument"] == custom and found["State"] == "available"
    ec2.modify_vpc_endpoint(VpcEndpointId=endpoint, ResetPolicy=True)
    found = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["VpcEndpoints"]
    assert [json.loads(one["PolicyDocument"])["Statement"] for one in found] == [full]
    assert ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint])["Unsuccessful"] == []
    assert routes(other) == [], "its routes went with it"
    failed = ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint])["Unsuccessful"]
    assert failed[0]["Error"]["Code"] == "InvalidVpcEndpointId.NotFound"
    refused("InvalidVpcEndpointId.NotFound", ec2.describe_vpc_endpoints, VpcEndpointIds=[endpoint])
    for id in (table, other):
        ec2.delete_route_table(RouteTableId=id)


def test_an_endpoint_policy_is_one_readable_document(ec2, vpc):
    """Proves: NET-35, VPC-25"""
    def deny(sid, bucket):
        return {"Sid": sid, "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}"}

    p2, p3 = ({"Version": "2012-10-17", "Statement": [deny(*one)]} for one in (("a", "packages.*"), ("b", "amazonlinux.*")))
    concatenated = json.dumps(p2) + json.dumps(p3)
    no_principal = json.dumps({"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})
    long = json.dumps({"Statement": [deny("a", "b" * 20480)]})
    for bad in (concatenated, no_principal, long, "{", "[]"):
        refused("InvalidPolicyDocument", ec2.create_vpc_endpoint, VpcId=vpc, ServiceName=S3, PolicyDocument=bad)
    assert ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["VpcEndpoints"] == []
    merged = json.dumps({"Version": "2012-10-17", "Statement": p2["Statement"] + p3["Statement"]})
    made = ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=S3, PolicyDocument=merged)["VpcEndpoint"]
    assert made["PolicyDocument"] == merged, "control: merged into one, it is accepted"
    refused("InvalidPolicyDocument", ec2.modify_vpc_endpoint, VpcEndpointId=made["VpcEndpointId"], PolicyDocument=concatenated)
    ec2.delete_vpc_endpoints(VpcEndpointIds=[made["VpcEndpointId"]])


def test_services_without_a_gateway_are_refused(ec2, vpc):
    """Proves: NET-32, NET-84"""
    gateways = [{"Name": "service-type", "Values": ["Gateway"]}]
    assert ec2.describe_vpc_endpoint_services(Filters=gateways)["ServiceNames"] == [S3]
    unknown = f"com.amazonaws.{REGION}.nothing"
    error = refused("InvalidServiceName", ec2.create_vpc_endpoint, VpcId=vpc, ServiceName=unknown)
    assert error.response["Error"]["Message"] == f"The Vpc Endpoint Service '{unknown}' does not exist"
    refused("InvalidServiceName", ec2.describe_vpc_endpoint_services, ServiceNames=[unknown])
    refused("InvalidVpcID.NotFound", ec2.create_vpc_endpoint, VpcId="vpc-00000000000000000", ServiceName=S3)
    api = f"com.amazonaws.{REGION}.sagemaker.api"
    refused("InvalidParameter", ec2.create_vpc_endpoint, VpcId=vpc, ServiceName=api)
    refused("UnsupportedOperation", ec2.create_vpc_endpoint, VpcId=vpc, ServiceName=api, VpcEndpointType="GatewayLoadBalancer")


def test_flow_logs_are_checked_when_they_are_made(engine, ec2, vpc, name):
    """Proves: NET-55, NET-84"""
    iam = engine.client("iam")
    roles = {}
    for kind, trust in (("flows", FLOW_TRUST), ("other", TRUST)):
        made = iam.create_role(RoleName=f"{name}-{kind}"[-60:], AssumeRolePolicyDocument=json.dumps(trust))
        roles[kind] = made["Role"]["Arn"]
    log = {"ResourceIds": [vpc], "ResourceType": "VPC", "TrafficType": "ALL", "LogGroupName": name}
    refused("InvalidParameter", ec2.create_flow_logs, **log)
    refused("InvalidParameter", ec2.create_flow_logs, DeliverLogsPermissionArn=roles["other"], **log)
    refused("InvalidParameter", ec2.create_flow_logs, DeliverLogsPermissionArn=roles["flows"], MaxAggregationInterval=61, **log)
    refused("InvalidParameter", ec2.create_flow_logs, DeliverLogsPermissionArn=roles["flows"], LogFormat="${colour}", **log)
    refused("InvalidVpcID.NotFound", ec2.create_flow_logs, DeliverLogsPermissionArn=roles["flows"],
            **log | {"ResourceIds": ["vpc-00000000000000000"]})
    made = ec2.create_flow_logs(DeliverLogsPermissionArn=roles["flows"], **log)
    assert made["Unsuccessful"] == []
    shown = ec2.describe_flow_logs(FlowLogIds=made["FlowLogIds"])["FlowLogs"][0]
    assert (shown["LogGroupName"], shown["MaxAggregationInterval"], shown["LogFormat"]) == (name, 600, DEFAULT_FORMAT)
    assert (shown["FlowLogStatus"], shown["TrafficType"], shown["ResourceId"]) == ("ACTIVE", "ALL", vpc)
    error = refused("FlowLogAlreadyExists", ec2.create_flow_logs, DeliverLogsPermissionArn=roles["flows"], **log)
    assert error.response["Error"]["Message"] == (
        "Error. There is an existing Flow Log with the same configuration and log destination.")
    to_s3 = {"ResourceIds": [vpc], "ResourceType": "VPC", "TrafficType": "REJECT", "LogDestinationType": "s3", "MaxAggregationInterval": 60}
    gone = ec2.create_flow_logs(LogDestination=f"arn:aws:s3:::{name}-absent", **to_s3)
    assert gone["FlowLogIds"] == [] and "does not exist" in gone["Unsuccessful"][0]["Error"]["Message"]
    engine.client("s3").create_bucket(Bucket=name)
    stored = ec2.create_flow_logs(LogDestination=f"arn:aws:s3:::{name}/flows/", LogFormat="${version} ${vpc-id}", **to_s3)
    shown = ec2.describe_flow_logs(Filters=[{"Name": "log-destination-type", "Values": ["s3"]}])["FlowLogs"][-1]
    assert (shown["LogDestination"], shown["LogFormat"]) == (f"arn:aws:s3:::{name}/flows", "${version} ${vpc-id}")
    ec2.delete_flow_logs(FlowLogIds=made["FlowLogIds"] + stored["FlowLogIds"])
    refused("InvalidFlowLogId.NotFound", ec2.delete_flow_logs, FlowLogIds=made["FlowLogIds"])


def test_tags_of_every_kind_are_set_found_and_removed(ec2, vpc, group):
    """Proves: NET-82"""
    table = main_table(ec2, vpc)["RouteTableId"]
    kinds = {vpc: "vpc", group: "security-group", table: "route-table"}
    ec2.create_tags(Resources=list(kinds), Tags=[{"Key": "batch", "Value": group}, {"Key": "empty", "Value": ""}])
    found = ec2.describe_tags(Filters=[{"Name": "tag:batch", "Values": [group]}])["Tags"]
    assert {tag["ResourceId"]: tag["ResourceType"] for tag in found} == kinds
    found = ec2.describe_security_groups(Filters=[{"Name": "tag:batch", "Values": [f"{group[:8]}*"]}])["SecurityGroups"]
    assert [one["GroupId"] for one in found] == [group]
    refused("InvalidVpcID.NotFound", ec2.create_tags, Resources=[group, "vpc-00000000000000000"], Tags=[{"Key": "late", "Value": ""}])
    refused("InvalidID", ec2.create_tags, Resources=["thing"], Tags=[{"Key": "late", "Value": ""}])
    refused("InvalidParameterValue", ec2.create_tags, Resources=[group], Tags=[{"Key": "aws:x", "Value": ""}])
    assert "late" not in [tag["Key"] for tag in shown(ec2, group)["Tags"]]
    ec2.delete_tags(Resources=list(kinds), Tags=[{"Key": "batch", "Value": "another"}])
    assert len(shown(ec2, group)["Tags"]) == 2, "control: another value removes nothing"
    ec2.delete_tags(Resources=list(kinds), Tags=[{"Key": "batch"}])
    assert [tag["Key"] for tag in shown(ec2, group)["Tags"]] == ["empty"]
    ec2.delete_tags(Resources=list(kinds))
    assert "Tags" not in shown(ec2, group)


def test_policies_on_networks_count(engine, ec2, vpc, group, name):
    """Proves: IAM-16, IAM-59, IAM-62, NET-80"""
    iam, short = engine.client("iam"), name[-40:].lstrip("-")
    iam.create_user(UserName=short)
    key = iam.create_access_key(UserName=short)["AccessKey"]
    mine = engine.client("ec2", key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    rule = {"GroupId": group, "IpPermissions": [tcp(22, IpRanges=ANYWHERE)]}

    def allow(*actions, resource="*", **condition):
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource} | ({"Condition": condition} if condition else {})
        document = {"Version": "2012-10-17", "Statement": [statement]}
        iam.put_user_policy(UserName=short, PolicyName="own", PolicyDocument=json.dumps(document))

    allow("ec2:DescribeVpcs")
    error = refused("UnauthorizedOperation", mine.authorize_security_group_ingress, **rule)
    text = error.response["Error"]["Message"]
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert text.startswith("You are not authorized to perform this operation. User: ")
    assert f"security-group/{group}" in text and "Encoded authorization failure message: " in text
    story = engine.client("sts").decode_authorization_message(EncodedMessage=text.rsplit(" ", 1)[1])["DecodedMessage"]
    assert json.loads(story)["context"]["action"] == "ec2:AuthorizeSecurityGroupIngress"
    # A caller that may not learns nothing of what exists, and nothing of what a dry run would say.
    refused("UnauthorizedOperation", mine.authorize_security_group_ingress, **rule | {"GroupId": "sg-00000000000000000"})
    refused("UnauthorizedOperation", mine.authorize_security_group_ingress, DryRun=True, **rule)
    in_vpc = {"ArnEquals": {"ec2:Vpc": f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/{vpc}"}}
    allow("ec2:AuthorizeSecurityGroupIngress", **{"ArnEquals": {"ec2:Vpc": f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/vpc-other"}})
    refused("UnauthorizedOperation", mine.authorize_security_group_ingress, **rule)
    allow("ec2:AuthorizeSecurityGroupIngress", **in_vpc)
    error = refused("DryRunOperation", mine.authorize_security_group_ingress, DryRun=True, **rule)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    mine.authorize_security_group_ingress(**rule)
    allow("ec2:DeleteSecurityGroup", **{"StringEquals": {"aws:ResourceTag/team": "ml", "ec2:ResourceTag/team": "ml"}})
    refused("UnauthorizedOperation", mine.delete_security_group, GroupId=group)
    ec2.create_tags(Resources=[group], Tags=[{"Key": "team", "Value": "ml"}])
    mine.delete_security_group(GroupId=group)
    # Tagging on creation needs ec2:CreateTags, which may be limited to the creation.
    new = {"GroupName": f"{name}-new", "Description": "d", "VpcId": vpc}
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "team", "Value": "ml"}]}]
    allow("ec2:CreateSecurityGroup")
    refused("UnauthorizedOperation", mine.create_security_group, TagSpecifications=tags, **new)
    allow("ec2:CreateSecurityGroup", "ec2:CreateTags",
          **{"StringEqualsIfExists": {"ec2:CreateAction": "CreateSecurityGroup"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}})
    made = mine.create_security_group(TagSpecifications=tags, **new)
    assert shown(ec2, made["GroupId"])["Tags"] == tags[0]["Tags"]
