"""Interface endpoints: unmodified clients in a VPC that has no other way, over the engine's endpoints (issue: PrivateLink).

One VPC for the module: two subnets in two zones with a host each, no gateway of any kind.
"""
import json
import subprocess
import sys
import uuid

import pytest

from tests.conformance.test_vpc_jobs import Uplink
from tests.conformance.test_vpc_services import FLOW_ACTIONS
from tests.harness.engine import ACCOUNT, REGION
from tests.harness.inside import Inside, Refused, each
from tests.harness.jobs import eventually, settled
from tests.harness.models import SERVED

ZONES = [f"{REGION}a", f"{REGION}b"]
API = f"com.amazonaws.{REGION}.sagemaker.api"
RUNTIME = f"com.amazonaws.{REGION}.sagemaker.runtime"
FIPS = f"{RUNTIME}-fips"
API_NAME, RUNTIME_NAME = (f"{head}.sagemaker.{REGION}.amazonaws.com" for head in ("api", "runtime"))
HTTPS = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}


class Place:
    """The VPC, its groups and what is made in it."""

    def __init__(self, ec2, block="10.80.0.0/16"):
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock=block)["Vpc"]["VpcId"]
        ec2.modify_vpc_attribute(VpcId=self.vpc, EnableDnsHostnames={"Value": True})
        self.block = block
        first, second, *_ = block.split(".")
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"{first}.{second}.{n + 1}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
            for n, zone in enumerate(ZONES)]
        self.clients, self.doors = (
            ec2.create_security_group(VpcId=self.vpc, GroupName=name, Description=name)["GroupId"] for name in ("clients", "doors"))
        self.rule = [HTTPS | {"UserIdGroupPairs": [{"GroupId": self.clients}]}]
        ec2.authorize_security_group_ingress(GroupId=self.doors, IpPermissions=self.rule)
        self.endpoints = []

    def make(self, service, subnets=None, private=False, **more):
        """An endpoint, once it is available."""
        made = self.ec2.create_vpc_endpoint(
            VpcId=self.vpc, ServiceName=service, VpcEndpointType="Interface", SubnetIds=subnets or self.subnets,
            SecurityGroupIds=[self.doors], PrivateDnsEnabled=private, **more)["VpcEndpoint"]
        self.endpoints.append(made["VpcEndpointId"])
        return self.available(made["VpcEndpointId"])

    def shown(self, endpoint):
        return self.ec2.describe_vpc_endpoints(VpcEndpointIds=[endpoint])["VpcEndpoints"][0]

    def available(self, endpoint):
        eventually(lambda: self.shown(endpoint)["State"] == "available", timeout=60)
        return self.shown(endpoint)

    def interfaces(self, endpoint):
        ids = self.shown(endpoint)["NetworkInterfaceIds"]
        return self.ec2.describe_network_interfaces(NetworkInterfaceIds=ids)["NetworkInterfaces"]

    def addresses(self, endpoint):
        """By zone."""
        return {one["AvailabilityZone"]: one["PrivateIpAddress"] for one in self.interfaces(endpoint)}

    def drop(self, *endpoints):
        self.ec2.delete_vpc_endpoints(VpcEndpointIds=list(endpoints))
        self.endpoints = [one for one in self.endpoints if one not in endpoints]

        def over():
            found = self.ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-endpoint-id", "Values": list(endpoints)}])
            return not found["VpcEndpoints"]

        eventually(over, timeout=60)

    def remove(self):
        if self.endpoints:
            self.drop(*self.endpoints)
        of_vpc = [{"Name": "vpc-id", "Values": [self.vpc]}]
        eventually(lambda: not self.ec2.describe_network_interfaces(Filters=of_vpc)["NetworkInterfaces"], timeout=60)
        for group in (self.doors, self.clients):
            self.ec2.delete_security_group(GroupId=group)
        for subnet in self.subnets:
            self.ec2.delete_subnet(SubnetId=subnet)
        self.ec2.delete_vpc(VpcId=self.vpc)


def url(endpoint, which=0):
    """An endpoint's own URL: the regional one, then the zonal ones."""
    return f"https://{endpoint['DnsEntries'][which]['DnsName']}"


@pytest.fixture(scope="module")
def place(ec2):
    made = Place(ec2)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def hosts(engine, place):
    """A host in each subnet."""
    first, second = (Inside(engine, subnet, place.clients) for subnet in place.subnets)
    with first, second:
        yield first, second


@pytest.fixture(scope="module")
def served(sagemaker, small, role):
    """Two endpoints that answer."""
    names = ["privatelink-mine", "privatelink-other"]
    sagemaker.create_model(ModelName=names[0], ExecutionRoleArn=role, PrimaryContainer={"Image": small}, EnableNetworkIsolation=True)
    variant = {"VariantName": "AllTraffic", "ModelName": names[0], "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=names[0], ProductionVariants=[variant])
    for name in names:
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=names[0])
    for name in names:
        assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    yield names
    for name in names:
        sagemaker.delete_endpoint(EndpointName=name)


def test_the_api_is_called_by_the_endpoints_own_names_and_no_packet_leaves(engine, ec2, place, hosts, sagemaker):
    """
    Proves: PL-1, PL-2, PL-3, PL-5, PL-6, PL-7, PL-8, PL-11, PL-33, NET-12, NET-41, NET-42, NET-43, NET-48, D-2, D-3, D-5
    """
    host, _ = hosts
    made = ec2.create_vpc_endpoint(
        VpcId=place.vpc, ServiceName=API, VpcEndpointType="Interface", SubnetIds=place.subnets, SecurityGroupIds=[place.doors],
        PrivateDnsEnabled=False)["VpcEndpoint"]
    endpoint = made["VpcEndpointId"]
    place.endpoints.append(endpoint)
    assert made["State"] == "pending"
    shown = place.available(endpoint)
    assert json.loads(shown["PolicyDocument"])["Statement"] == [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}]
    domain = f"api.sagemaker.{REGION}.vpce.amazonaws.com"
    regional, *zonal = [one["DnsName"] for one in shown["DnsEntries"]]
    stem = regional.removesuffix(f".{domain}")
    assert stem.startswith(f"{endpoint}-") and len(stem) == len(endpoint) + 9, regional
    assert zonal == [f"{stem}-{zone}.{domain}" for zone in ZONES]
    held = place.interfaces(endpoint)
    assert sorted(one["SubnetId"] for one in held) == sorted(place.subnets)
    for one in held:
        assert one["Description"] == f"VPC Endpoint Interface {endpoint}" and one["InterfaceType"] == "vpc_endpoint"
        assert one["RequesterManaged"] and [group["GroupId"] for group in one["Groups"]] == [place.doors]
    at = place.addresses(endpoint)
    bare = f"{endpoint}.{domain}"
    assert host.ask("lookup", name=regional) == [at[zone] for zone in ZONES], "the same zone first"
    assert hosts[1].ask("lookup", name=regional) == [at[zone] for zone in reversed(ZONES)]
    assert host.ask("lookup", name=zonal[1]) == [at[ZONES[1]]]
    group = f"privatelink-{uuid.uuid4().hex[:8]}"
    sagemaker.create_model_package_group(ModelPackageGroupName=group)
    with Uplink(engine) as uplink:
        assert "TrainingJobSummaries" in host.aws("sagemaker", "list-training-jobs", "--endpoint-url", f"https://{regional}")
        assert "NotebookInstances" in host.aws("sagemaker", "list-notebook-instances", "--endpoint-url", f"https://{bare}")
        for name in (*zonal, bare):
            told = host.call("sagemaker", "describe_model_package_group", url=f"https://{name}", ModelPackageGroupName=group)
            assert told["ModelPackageGroupName"] == group
        # The default name is a public one here, and nothing leads there.
        assert not set(host.ask("lookup", name=API_NAME)) & set(at.values())
        assert host.refused("call", service="sagemaker", operation="list_models").kind == "EndpointConnectionError"
        assert not uplink.frames(), "traffic between the VPC and the service left the platform"
    covered = host.ask("handshake", address=at[ZONES[0]], name=regional, alpn=["h2", "http/1.1"])
    assert f"*.{domain}" in covered["names"] and API_NAME in covered["names"] and covered["alpn"] == "h2"
    sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    place.drop(endpoint)
    assert host.refused("lookup", name=regional).kind == "gaierror"


def test_with_private_dns_the_default_names_lead_to_the_endpoints(engine, ec2, place, hosts, served):
    """
    Proves: PL-4, PL-9, PL-10, PL-12, PL-19, NET-44, NET-45, D-1, D-10
    """
    here, there = hosts
    hostnames = {"VpcId": place.vpc, "EnableDnsHostnames": {"Value": False}}
    ec2.modify_vpc_attribute(**hostnames)
    with pytest.raises(ec2.exceptions.ClientError, match="requires both enableDnsSupport and enableDnsHostnames"):
        place.make(API, private=True)
    ec2.modify_vpc_attribute(**hostnames | {"EnableDnsHostnames": {"Value": True}})
    api = place.make(API, private=True)
    # In the first zone alone.
    runtime = place.make(RUNTIME, subnets=place.subnets[:1], private=True)
    assert api["DnsEntries"][-1]["DnsName"] == API_NAME and runtime["DnsEntries"][-1]["DnsName"] == RUNTIME_NAME
    with pytest.raises(ec2.exceptions.ClientError, match="conflicting DNS domain"):
        place.make(API, subnets=place.subnets[1:], private=True)
    at, only = place.addresses(api["VpcEndpointId"]), place.addresses(runtime["VpcEndpointId"])
    assert here.ask("lookup", name=API_NAME) == [at[zone] for zone in ZONES]
    assert there.ask("lookup", name=API_NAME) == [at[zone] for zone in reversed(ZONES)]
    assert here.ask("lookup", name=RUNTIME_NAME) == [only[ZONES[0]]]
    assert there.refused("lookup", name=RUNTIME_NAME).kind == "gaierror"
    assert served[0] in {one["EndpointName"] for one in here.aws("sagemaker", "list-endpoints")["Endpoints"]}
    told = here.call("sagemaker-runtime", "invoke_endpoint", EndpointName=served[0], Body="x")
    assert told["Body"] == "fixed\n"
    refusal = there.refused("call", service="sagemaker-runtime", operation="invoke_endpoint", EndpointName=served[0], Body="x")
    assert refusal.kind == "EndpointConnectionError", refusal
    # By its own name it is reached from any zone: the rule is about the default name.
    told = there.call("sagemaker-runtime", "invoke_endpoint", url=url(runtime), EndpointName=served[0], Body="x")
    assert told["Body"] == "fixed\n"
    place.drop(api["VpcEndpointId"], runtime["VpcEndpointId"])


P4 = {
    "Action": "sagemaker:InvokeEndpoint", "Effect": "Allow", "Principal": "*",
    "Resource": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/PrivateLink-Mine",
}


def test_the_policy_of_an_endpoint_binds_everybody_who_comes_through_it(engine, ec2, place, hosts, served, sagemaker):
    """
    P4 with another name, in the mixed case of its document, for the account's root.
    Proves: PL-23, PL-24, PL-25, PL-26, PL-27, PL-28, PL-29, NET-46, NET-47, D-8, D-14
    """
    host, _ = hosts
    mine, other = served
    document = json.dumps({"Version": "2012-10-17", "Statement": [P4]})
    runtime = place.make(RUNTIME, subnets=place.subnets[:1], PolicyDocument=document)
    api = place.make(API, subnets=place.subnets[:1], PolicyDocument=document)
    with pytest.raises(ec2.exceptions.ClientError, match="not supported for the service"):
        place.make(FIPS, subnets=place.subnets[:1], PolicyDocument=document)
    fips = place.make(FIPS, subnets=place.subnets[:1])
    runtime_url, api_url = url(runtime), url(api)
    invoke = {"service": "sagemaker-runtime", "operation": "invoke_endpoint", "Body": "x"}
    assert host.call(**invoke, url=runtime_url, EndpointName=mine)["Body"] == "fixed\n"
    refusal = host.refused("call", **invoke, url=runtime_url, EndpointName=other)
    words = "because no VPC endpoint policy allows the sagemaker:InvokeEndpoint action"
    assert (refusal.code, refusal.status) == ("AccessDeniedException", 403) and words in refusal.text, refusal
    assert host.call(**invoke, url=url(fips), EndpointName=other)["Body"] == "fixed\n", "the FIPS Runtime takes no policy"
    create = {"EndpointName": other, "EndpointConfigName": mine}
    for operation, members in (("create_endpoint", create), ("list_training_jobs", {}), ("describe_endpoint", {"EndpointName": mine})):
        refusal = host.refused("call", service="sagemaker", operation=operation, url=api_url, **members)
        assert refusal.code == "AccessDeniedException" and "VPC endpoint policy" in refusal.text, refusal
    # Outside, the same caller does what its own policy allows.
    outside = engine.client("sagemaker-runtime")
    assert outside.invoke_endpoint(EndpointName=other, Body=b"x")["Body"].read() == b"fixed\n"
    assert sagemaker.describe_endpoint(EndpointName=mine)["EndpointStatus"] == "InService"
    # The current policy counts, for the next request.
    ec2.modify_vpc_endpoint(VpcEndpointId=runtime["VpcEndpointId"], ResetPolicy=True)
    assert host.call(**invoke, url=runtime_url, EndpointName=other)["Body"] == "fixed\n"
    nobody = engine.client("iam")
    user = f"privatelink-{uuid.uuid4().hex[:8]}"
    nobody.create_user(UserName=user)
    key = nobody.create_access_key(UserName=user)["AccessKey"]
    held = (key["AccessKeyId"], key["SecretAccessKey"])
    refusal = host.refused("call", **invoke, url=runtime_url, EndpointName=other, key=held)
    assert "no identity-based policy allows" in refusal.text, refusal
    # By principal, and by action.
    principal = {"AWS": f"arn:aws:iam::{ACCOUNT}:user/{user}"}
    only = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": principal, "Action": "sagemaker:List*", "Resource": "*"}]}
    ec2.modify_vpc_endpoint(VpcEndpointId=api["VpcEndpointId"], PolicyDocument=json.dumps(only))
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sagemaker:*", "Resource": "*"}]}
    nobody.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=json.dumps(allow))
    listed = {"service": "sagemaker", "operation": "list_models", "url": api_url}
    assert "Models" in host.call(**listed, key=held)
    assert "VPC endpoint policy" in host.refused("call", **listed).text, "another principal"
    described = listed | {"operation": "describe_endpoint", "EndpointName": mine}
    assert "VPC endpoint policy" in host.refused("call", **described, key=held).text, "another action"
    # PL-28: an identity policy that keeps its user to the VPC or to one endpoint.
    for keys in ({"aws:SourceVpc": place.vpc}, {"aws:SourceVpce": api["VpcEndpointId"]}):
        allow["Statement"][0]["Condition"] = {"StringEquals": keys}
        nobody.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=json.dumps(allow))
        assert "Models" in host.call(**listed, key=held), keys
        with pytest.raises(sagemaker.exceptions.ClientError, match="AccessDenied"):
            engine.client("sagemaker", key=held[0], secret=held[1]).list_models()
    for condition in ({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}, {"StringEquals": {"aws:SourceVpce": runtime["VpcEndpointId"]}}):
        allow["Statement"][0]["Condition"] = condition
        nobody.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=json.dumps(allow))
        assert "identity-based policy" in host.refused("call", **listed, key=held).text, condition
    nobody.delete_user_policy(UserName=user, PolicyName="all")
    nobody.delete_access_key(UserName=user, AccessKeyId=held[0])
    nobody.delete_user(UserName=user)
    place.drop(*(one["VpcEndpointId"] for one in (runtime, api, fips)))


def test_groups_protect_an_endpoint_and_nobody_else_reaches_it(engine, ec2, place, hosts):
    """
    Proves: PL-31, PL-32, NET-46
    """
    host, _ = hosts
    endpoint = place.make(API, subnets=place.subnets[:1])
    [at] = place.addresses(endpoint["VpcEndpointId"]).values()
    assert host.ask("connect", address=at, port=443)
    for port in (80, 22, 8080):
        assert host.refused("connect", address=at, port=port).kind in ("TimeoutError", "OSError", "ConnectionRefusedError"), port
    ec2.revoke_security_group_ingress(GroupId=place.doors, IpPermissions=place.rule)
    eventually(lambda: not_reached(host, at), timeout=30)
    ec2.authorize_security_group_ingress(GroupId=place.doors, IpPermissions=place.rule)
    eventually(lambda: reached(host, at), timeout=30)
    # A host of another VPC with the very same block has its own addresses there, and no way to these.
    twin = Place(ec2, block=place.block)
    try:
        with Inside(engine, twin.subnets[0], twin.clients) as stranger:
            assert stranger.ask("lookup", name=endpoint["DnsEntries"][0]["DnsName"]) == [at], "names are public, addresses are not"
            assert not_reached(stranger, at)
            own = twin.make(API, subnets=twin.subnets[:1])
            assert "Models" in stranger.call("sagemaker", "list_models", url=url(own)), "control: its own endpoint"
    finally:
        twin.remove()
    own = endpoint["DnsEntries"][0]["DnsName"]
    assert host.ask("handshake", address=at, name=own), "control"
    for enter in ([], ["nsenter", f"--net={engine.internet.path}"]):
        assert not trusted(engine, at, own, *enter), enter
    place.drop(endpoint["VpcEndpointId"])


def test_an_endpoint_gains_and_loses_subnets_while_it_is_called(ec2, place, hosts):
    """
    Proves: PL-3, NET-41, NET-47
    """
    host, other = hosts
    endpoint = place.make(API, subnets=place.subnets[:1])
    id, name = endpoint["VpcEndpointId"], endpoint["DnsEntries"][0]["DnsName"]
    [first] = place.addresses(id).values()

    def is_called():
        return "Models" in host.call("sagemaker", "list_models", url=f"https://{name}")

    assert is_called() and host.ask("lookup", name=name) == [first]
    ec2.modify_vpc_endpoint(VpcEndpointId=id, AddSubnetIds=place.subnets[1:])
    second = place.addresses(id)[ZONES[1]]
    eventually(lambda: other.ask("lookup", name=name) == [second, first], timeout=30)
    assert place.addresses(id)[ZONES[0]] == first, "an address is kept"
    assert is_called() and reached(host, first) and reached(host, second)
    ec2.modify_vpc_endpoint(VpcEndpointId=id, RemoveSubnetIds=place.subnets[:1])
    eventually(lambda: host.ask("lookup", name=name) == [second], timeout=30)
    assert is_called()
    eventually(lambda: not_reached(host, first), timeout=30)
    place.drop(id)


def reached(host, address):
    try:
        return host.ask("connect", address=address, port=443, timeout=2)
    except Refused:
        return False


def not_reached(host, address):
    return not reached(host, address)


def trusted(engine, address, name, *enter):
    """Whether somebody with the engine's certificate for a name answers there, seen from a namespace of this machine."""
    script = """
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
with socket.create_connection((sys.argv[2], 443), 3) as plain, context.wrap_socket(plain, server_hostname=sys.argv[3]):
    pass
"""
    bundle = str(engine.data / "ca/ca.pem")
    done = subprocess.run([*enter, sys.executable, "-c", script, bundle, address, name], capture_output=True)
    return done.returncode == 0


def test_an_endpoint_serves_one_service_under_its_own_names(engine, ec2, place, hosts, sagemaker):
    """
    Proves: NET-40, NET-46, NET-48, PL-30, D-4
    """
    host, _ = hosts
    sts = place.make(f"com.amazonaws.{REGION}.sts", subnets=place.subnets[:1], private=True)
    records = place.make(f"com.amazonaws.{REGION}.sagemaker.featurestore-runtime", subnets=place.subnets[:1])
    [at] = place.addresses(sts["VpcEndpointId"]).values()
    assert host.call("sts", "get_caller_identity")["Account"] == ACCOUNT
    own, foreign = sts["DnsEntries"][0]["DnsName"], records["DnsEntries"][0]["DnsName"]
    assert f"sts.{REGION}.amazonaws.com" in host.ask("handshake", address=at, name=own)["names"]
    for name in (API_NAME, foreign, f"s3.{REGION}.amazonaws.com"):
        assert host.refused("handshake", address=at, name=name).kind == "SSLError", name
    said = host.ask("raw", address=at, name=own, text=f"GET / HTTP/1.1\r\nHost: {API_NAME}\r\nConnection: close\r\n\r\n")
    assert said.startswith("HTTP/1.1 421 "), said
    # A request for another service, signed for it, by the names of this one.
    refusal = host.refused("call", service="sagemaker", operation="list_models", url=f"https://{own}")
    assert refusal.code in ("UnknownOperationException", "InvalidSignatureException", "SignatureDoesNotMatch"), refusal
    # Feature Store in both spellings.
    group = f"privatelink-{uuid.uuid4().hex[:8]}"
    definitions = [{"FeatureName": name, "FeatureType": "String"} for name in ("customer", "at")]
    sagemaker.create_feature_group(
        FeatureGroupName=group, RecordIdentifierFeatureName="customer", EventTimeFeatureName="at", FeatureDefinitions=definitions,
        OnlineStoreConfig={"EnableOnlineStore": True})
    record = [{"FeatureName": "customer", "ValueAsString": "c1"}, {"FeatureName": "at", "ValueAsString": "2024-05-01T10:00:00Z"}]
    primary = url(records)
    alias = f"https://{records['VpcEndpointId']}.api.featurestore-runtime.sagemaker.{REGION}.vpce.amazonaws.com"
    store = "sagemaker-featurestore-runtime"
    host.call(store, "put_record", url=primary, FeatureGroupName=group, Record=record)
    found = host.call(store, "get_record", url=alias, FeatureGroupName=group, RecordIdentifierValueAsString="c1")
    assert found["Record"] == record
    sagemaker.delete_feature_group(FeatureGroupName=group)
    place.drop(sts["VpcEndpointId"], records["VpcEndpointId"])


def test_every_operation_of_the_api_is_answered_through_the_endpoint_as_by_the_public_side(engine, place, hosts):
    """
    Proves: PL-14
    """
    host, _ = hosts
    endpoint = place.make(API, subnets=place.subnets[:1])
    operations = SERVED["sagemaker"]["operations"]
    key, secret = engine.credentials()
    asked = {"service": "sagemaker", "operations": operations, "region": REGION, "key": key, "secret": secret}
    inside = host.ask("each", url=url(endpoint), **asked)
    assert inside == each(url=engine.url, **asked) and len(inside) == len(operations) > 60
    assert "answered" in inside.values() and "UnknownOperationException" not in inside.values()
    place.drop(endpoint["VpcEndpointId"])


def test_other_services_are_reached_by_their_default_names(engine, ec2, place, hosts, bucket, image):
    """
    Proves: NET-40, NET-44, NET-46, NET-55, NET-57
    """
    host, _ = hosts
    made = [place.make(f"com.amazonaws.{REGION}.{last}", subnets=place.subnets[:1], private=True)
            for last in ("logs", "ecr.api", "ecr.dkr", "ec2", "monitoring", "s3")]
    group, iam = f"/privatelink/{uuid.uuid4().hex[:8]}", engine.client("iam")
    trust = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"Service": "vpc-flow-logs.amazonaws.com"}, "Action": "sts:AssumeRole"}}
    role = iam.create_role(RoleName=f"flows-{uuid.uuid4().hex[:8]}", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    allow = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": FLOW_ACTIONS, "Resource": "*"}}
    iam.put_role_policy(RoleName=role["RoleName"], PolicyName="p", PolicyDocument=json.dumps(allow))
    [door] = made[-1]["NetworkInterfaceIds"]
    log = ec2.create_flow_logs(
        ResourceType="NetworkInterface", ResourceIds=[door], TrafficType="ALL", LogGroupName=group,
        DeliverLogsPermissionArn=role["Arn"], MaxAggregationInterval=60)["FlowLogIds"]
    host.call("logs", "create_log_group", logGroupName=f"{group}/own")
    assert host.call("logs", "describe_log_groups", logGroupNamePrefix=f"{group}/own")["logGroups"]
    assert place.vpc in {one["VpcId"] for one in host.call("ec2", "describe_vpcs")["Vpcs"]}
    assert "Metrics" in host.call("cloudwatch", "list_metrics")
    registry, _, repository = image.partition("/")
    assert host.call("ecr", "describe_repositories", repositoryNames=[repository.split(":")[0]])["repositories"]
    token = host.call("ecr", "get_authorization_token")["authorizationData"][0]["authorizationToken"]
    head = f"GET /v2/{repository.replace(':', '/manifests/')} HTTP/1.1\r\nHost: {registry}\r\nAuthorization: Basic {token}\r\nConnection: close\r\n\r\n"
    [at] = host.ask("lookup", name=registry)
    assert host.ask("raw", address=at, name=registry, text=head).startswith("HTTP/1.1 200 ")
    key = f"privatelink/{uuid.uuid4().hex}"
    host.call("s3", "put_object", Bucket=bucket, Key=key, Body="by the interface")
    assert host.call("s3", "get_object", Bucket=bucket, Key=key)["Body"] == "by the interface"
    own = made[-1]["DnsEntries"][0]["DnsName"].replace("*", "bucket")
    assert host.call("s3", "get_object", url=f"https://{own}", Bucket=bucket, Key=key)["Body"] == "by the interface"
    [at] = place.addresses(made[-1]["VpcEndpointId"]).values()
    assert host.refused("connect", address=at, port=22)

    def told(action, port):
        try:
            events = engine.client("logs").filter_log_events(logGroupName=group, logStreamNames=[f"{door}-all"])["events"]
        except ec2.exceptions.ClientError:
            return []
        lines = [event["message"].split() for event in events]
        return [line for line in lines if line[3:5] == [host.address, at] and line[6] == port and line[12] == action]

    eventually(lambda: told("ACCEPT", "443") and told("REJECT", "22"), timeout=60)
    ec2.delete_flow_logs(FlowLogIds=log)
    place.drop(*(one["VpcEndpointId"] for one in made))
