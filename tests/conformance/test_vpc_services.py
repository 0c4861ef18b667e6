"""What the engine serves inside a VPC, asked by containers: names, S3 by a gateway endpoint, and the flow logs of both."""
import json
import os
import subprocess
import urllib.parse

import boto3
import pytest
from botocore.config import Config

from tests.conformance.test_audit import events
from tests.conformance.test_vpc_jobs import Network, completed, said
from tests.harness.engine import ACCOUNT, REGION, Engine, execution_statements
from tests.harness.jobs import P6, eventually, finished, training_request, with_program

FLOW_ACTIONS = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogGroups", "logs:DescribeLogStreams"]
ALL = {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}
# The seven actions that the guide's access policy lets through.
P1 = [
    "s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:GetBucketLocation", "s3:DeleteObject", "s3:ListMultipartUploadParts",
    "s3:AbortMultipartUpload",
]


@pytest.fixture
def network(ec2):
    made = Network(ec2, block="10.30.0.0/16", subnet="10.30.1.0/24")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def uri(engine, bucket):
    engine.client("s3").put_object(Bucket=bucket, Key="vpc/services/a.txt", Body=b"by the endpoint")
    return f"s3://{bucket}/vpc/services/"


FETCH = """
import socket, time, urllib.request

def fetch(url):
    try:
        return urllib.request.urlopen(url, timeout=10).read().decode()
    except OSError as error:
        return str(error)
"""


def presigned(engine, bucket, host, path_style, key="vpc/services/a.txt", scheme="http", operation="get_object"):
    """A URL that whoever holds it may fetch, under one of S3's names."""
    access_key, secret = engine.credentials()
    style = {"addressing_style": "path" if path_style else "virtual"}
    client = boto3.client(
        "s3", region_name=REGION, endpoint_url=f"{scheme}://{host}", aws_access_key_id=access_key, aws_secret_access_key=secret,
        config=Config(signature_version="s3v4", s3=style))
    return client.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": key}, ExpiresIn=900)


def start(engine, sagemaker, name, image, role, bucket, uri, network, program, interpreter="/usr/bin/python3"):
    request = training_request(name, image, role, bucket, uri, isolated=False)
    request["HyperParameters"] = {}
    request = with_program(engine, bucket, request, program, interpreter)
    sagemaker.create_training_job(**request | {"VpcConfig": network.config})


def lines(engine, name, word):
    return [line for line in said(engine, name) if line.startswith(word)]


def statement(engine, ec2, network, *statements, version="2012-10-17"):
    document = {"Version": version, "Statement": list(statements)}
    ec2.modify_vpc_endpoint(VpcEndpointId=network.endpoint, PolicyDocument=json.dumps(document))


def test_every_name_of_s3_leads_through_the_endpoint_and_its_policy_binds_the_next_request(
    engine, ec2, sagemaker, image, vpc_role, bucket, uri, network, name
):
    """
    Proves: VPC-14, VPC-15, VPC-20, NET-32, NET-34, NET-35, NET-52, D-18
    """
    s3 = engine.client("s3")
    kept = f"kept-{name}"[:60].lower()
    s3.create_bucket(Bucket=kept)
    s3.put_object(Bucket=kept, Key="vpc/services/a.txt", Body=b"by the endpoint")
    outside = {
        "Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{kept}/*",
        "Condition": {"StringNotEquals": {"aws:SourceVpc": network.vpc, "aws:SourceVpce": network.endpoint}},
    }
    s3.put_bucket_policy(Bucket=kept, Policy=json.dumps({"Version": "2012-10-17", "Statement": [outside]}))
    with pytest.raises(s3.exceptions.ClientError) as refused:
        s3.get_object(Bucket=kept, Key="vpc/services/a.txt")
    assert refused.value.response["Error"]["Code"] == "AccessDenied", "control: not from outside the VPC"
    # Each name by TLS, which the engine's own authority vouches for; as the page of the training guide writes it too.
    hosts = {"regional": f"s3.{REGION}.amazonaws.com", "dashed": f"s3-{REGION}.amazonaws.com", "global": "s3.amazonaws.com"}
    urls = {"dash": presigned(engine, kept, hosts["dashed"], True), "plain": presigned(engine, kept, hosts["regional"], False)}
    for label, host in hosts.items():
        for style in ("path", "virtual"):
            urls[f"{label}-{style}"] = presigned(engine, kept, host, style == "path", scheme="https")
    parts = urllib.parse.urlsplit(urls["dashed-virtual"])
    assert (parts.scheme, parts.hostname) == ("https", f"{kept}.s3-{REGION}.amazonaws.com")
    program = f"""{FETCH}
urls = {urls!r}
for label, url in urls.items():
    print("GOT", label, fetch(url), flush=True)
while fetch(urls["dash"]) == "by the endpoint":
    time.sleep(0.2)
print("DENIED", fetch(urls["dash"]), flush=True)
while fetch(urls["dash"]) != "by the endpoint":
    time.sleep(0.2)
print("ALLOWED", flush=True)
host = urllib.request.urlsplit(urls["dash"]).hostname
for word in ("GONE", "BACK"):
    while True:
        try:
            socket.create_connection((host, 80), 1).close()
            found = "BACK"
        except OSError:
            found = "GONE"
        if found == word:
            break
        time.sleep(0.2)
    print(word, flush=True)
print("OTHER", fetch(urls["dash"]), flush=True)
while fetch(urls["dash"]) != "by the endpoint":
    time.sleep(0.2)
print("OWN", flush=True)
"""
    start(engine, sagemaker, name, image, vpc_role, bucket, uri, network, program)
    want = [f"GOT {label} by the endpoint" for label in urls]
    assert eventually(lambda: len(found := lines(engine, name, "GOT")) == len(urls) and found, timeout=90) == want
    assert not lines(engine, name, "DENIED"), "control"
    statement(engine, ec2, network, ALL, {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{kept}/*"})
    eventually(lambda: lines(engine, name, "DENIED"), timeout=60)
    statement(engine, ec2, network, ALL)
    eventually(lambda: lines(engine, name, "ALLOWED"), timeout=60)
    # Deleted and replaced while the job runs: a policy that names the old one does not mean the new one.
    assert not lines(engine, name, "GONE"), "control"
    first = network.endpoint
    ec2.delete_vpc_endpoints(VpcEndpointIds=[first])
    network.endpoint = None
    eventually(lambda: lines(engine, name, "GONE"), timeout=60)

    def admit(endpoint):
        outside["Condition"] = {"StringNotEquals": {"aws:SourceVpce": endpoint}}
        s3.put_bucket_policy(Bucket=kept, Policy=json.dumps({"Version": "2012-10-17", "Statement": [outside]}))

    admit(first)
    network.endpoint = network.add_endpoint()
    assert network.endpoint != first
    [told] = eventually(lambda: lines(engine, name, "OTHER"), timeout=60)
    assert "403" in told and lines(engine, name, "BACK"), told
    assert not lines(engine, name, "OWN")
    admit(network.endpoint)
    eventually(lambda: lines(engine, name, "OWN"), timeout=60)
    completed(sagemaker, name)


def test_a_containers_names_are_its_vpcs_and_end_with_its_dns_support(
    engine, ec2, sagemaker, small, vpc_role, bucket, uri, network, name
):
    """
    Proves: VPC-21, NET-50, NET-51, NET-52
    """
    ec2.modify_vpc_attribute(VpcId=network.vpc, EnableDnsHostnames={"Value": True})
    look = f"busybox nslookup s3-{REGION}.amazonaws.com 10.30.0.2 2>/dev/null"
    script = f"""
own=ip-$(busybox ip -o -4 addr show eth0 | busybox awk '{{print $4}}' | busybox cut -d/ -f1 | busybox tr . -).ec2.internal
busybox nslookup $own 10.30.0.2 | busybox awk -v n=$own '/^Address/ {{a=$NF}} END {{print "OWN", n, a}}'
{look} | busybox awk '/^Address/ {{a=$NF}} END {{print "S3", a}}'
busybox nslookup nobody.ec2.internal 169.254.169.253 2>/dev/null | busybox grep -q '^Name' || echo "MISSING"
while {look} | busybox grep -q 198.18.12; do busybox sleep 0.2; done
echo OFF
until {look} | busybox grep -q 198.18.12; do busybox sleep 0.2; done
echo ON
"""
    start(engine, sagemaker, name, small, vpc_role, bucket, uri, network, script, interpreter="/bin/sh")
    eventually(lambda: lines(engine, name, "MISSING"), timeout=90)
    own = network.job_interface()["PrivateIpAddress"]
    assert lines(engine, name, "OWN") == [f"OWN ip-{own.replace('.', '-')}.ec2.internal {own}"]
    assert lines(engine, name, "S3")[0].split()[1].startswith("198.18.12"), lines(engine, name, "S3")
    assert not lines(engine, name, "OFF"), "control"
    ec2.modify_vpc_attribute(VpcId=network.vpc, EnableDnsSupport={"Value": False})
    eventually(lambda: lines(engine, name, "OFF"), timeout=60)
    ec2.modify_vpc_attribute(VpcId=network.vpc, EnableDnsSupport={"Value": True})
    eventually(lambda: lines(engine, name, "ON"), timeout=60)
    completed(sagemaker, name)


def test_flow_logs_tell_what_passed_and_what_was_refused_and_the_report_says_by_what(
    engine, ec2, sagemaker, image, vpc_role, bucket, uri, network, name
):
    """
    Proves: VPC-9, NET-55, NET-56, NET-57, AU-32
    """
    iam, logs = engine.client("iam"), engine.client("logs")
    trust = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"Service": "vpc-flow-logs.amazonaws.com"}, "Action": "sts:AssumeRole"}}
    role = iam.create_role(RoleName=f"flows-{name}"[:60], AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    allow = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": FLOW_ACTIONS, "Resource": "*"}}
    iam.put_role_policy(RoleName=role["RoleName"], PolicyName="p", PolicyDocument=json.dumps(allow))
    group = f"flows-{name}"
    made = ec2.create_flow_logs(
        ResourceType="VPC", ResourceIds=[network.vpc], TrafficType="ALL", LogGroupName=group,
        DeliverLogsPermissionArn=role["Arn"], MaxAggregationInterval=60)
    assert len(made["FlowLogIds"]) == 1 and not made.get("Unsuccessful"), made
    host, told_key = f"s3-{REGION}.amazonaws.com", f"vpc/told/{name}"
    # The group lets nobody in, its own members neither (VPC-26): the neighbour is the platform's own transfer interface.
    program = f"""{FETCH}
print("FETCHED", fetch({presigned(engine, bucket, host, True)!r}), flush=True)
while not (neighbour := fetch({presigned(engine, bucket, host, True, told_key)!r})).startswith("10."):
    time.sleep(0.2)
try:
    socket.create_connection((neighbour, 8099), 1)
except OSError as error:
    print("TRIED", error, flush=True)
time.sleep(8)
"""
    start(engine, sagemaker, name, image, vpc_role, bucket, uri, network, program)
    assert eventually(lambda: lines(engine, name, "FETCHED"), timeout=90) == ["FETCHED by the endpoint"], "control: the way to S3 is open"
    held = {one["PrivateIpAddress"]: one["NetworkInterfaceId"] for one in network.interfaces()}
    own = network.job_interface()["PrivateIpAddress"]
    [transfer] = [address for address in held if address != own]
    engine.client("s3").put_object(Bucket=bucket, Key=told_key, Body=transfer.encode())
    eventually(lambda: lines(engine, name, "TRIED"), timeout=60)

    def records():
        try:
            events = logs.filter_log_events(logGroupName=group)["events"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [(event["logStreamName"], event["message"].split()) for event in events]

    def found(interface, source, destination, port, action):
        stream = f"{held[interface]}-all"
        return [
            line for where, line in records()
            if where == stream and line[3:5] == [source, destination] and port in line[5:7] and line[12:] == [action, "OK"]
        ]

    def is_told():
        to_s3 = [line for where, line in records() if where == f"{held[own]}-all" and line[3] == own and line[6] == "80" and line[4].startswith("198.18.")]
        return to_s3 and found(transfer, own, transfer, "8099", "REJECT") and found(own, own, transfer, "8099", "ACCEPT")

    eventually(is_told, timeout=60)
    assert all(line[:2] == ["2", ACCOUNT] and len(line) == 14 for _, line in records())
    assert not [line for _, line in records() if "169.254.170.2" in line or "10.30.0.2" in line], "the platform's own services are not logged"
    completed(sagemaker, name)
    told = json.loads(subprocess.run(
        [engine.binary, "report", name, "--flows", "--json", "--data-dir", str(engine.data)], check=True, capture_output=True, text=True).stdout)
    rejected = [flow for flow in told["flows"] if not flow["accepted"] and flow["destination_port"] == 8099]
    assert rejected and rejected[0]["transfer"] and rejected[0]["decided_by"] == [f"no inbound rule of {network.group}"], told
    assert [flow for flow in told["flows"] if flow["egress"] and not flow["transfer"] and flow["destination_port"] == 80]
    table = subprocess.run([engine.binary, "report", name, "--flows", "--data-dir", str(engine.data)], check=True, capture_output=True, text=True).stdout
    assert f"no inbound rule of {network.group}" in table and "REJECT" in table
    ec2.delete_flow_logs(FlowLogIds=made["FlowLogIds"])


def test_a_bucket_of_another_region_is_reached_by_other_routes_and_not_through_the_endpoint(small_root):
    """
    One container asks for an object here and one there, and says whenever an answer changes.
    Proves: NET-38
    """
    far = "eu-west-1"
    with Engine(os.environ["ISOLARIUM_BINARY"], {"regions": [REGION, far], "jobs.stop_grace": "1s"}) as engine:
        key, secret = engine.credentials()

        def s3(region, endpoint):
            return boto3.client(
                "s3", region_name=region, endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret,
                config=Config(signature_version="s3v4", s3={"addressing_style": "path"}))

        urls = {}
        for region, bucket, where in ((REGION, "near", {}), (far, "far", {"CreateBucketConfiguration": {"LocationConstraint": far}})):
            client = s3(region, engine.url)
            client.create_bucket(Bucket=bucket, **where)
            client.put_object(Bucket=bucket, Key="k", Body=bucket.encode())
            public = s3(region, f"http://s3.{region}.amazonaws.com")
            urls[bucket] = public.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=900)
        ec2, sagemaker = engine.client("ec2"), engine.client("sagemaker")
        network = Network(ec2, block="10.30.0.0/16", subnet="10.30.1.0/24")
        role = engine.create_role("far", [*execution_statements("near"), {"Effect": "Allow", "Action": P6, "Resource": "*"}])
        asks = " ".join(f"$(busybox timeout 3 wget -q -O - '{url}' 2>/dev/null || echo cut)" for url in urls.values())
        script = f"""trap 'exit 0' TERM; while true; do now="{asks}"; [ "$now" = "$last" ] || echo "SEES $now"; last=$now; busybox sleep 0.3; done"""
        request = training_request("far", engine.pack_image(small_root, "small:1"), role, "near", "unused", isolated=False)
        request |= {"VpcConfig": network.config, "InputDataConfig": []}
        sagemaker.create_training_job(**with_program(engine, "near", request, script, "/bin/sh"))
        eventually(lambda: lines(engine, "far", "SEES")[-1:] == ["SEES near cut"], timeout=90)
        public = ec2.create_subnet(VpcId=network.vpc, CidrBlock="10.30.2.0/24")["Subnet"]["SubnetId"]
        table = ec2.create_route_table(VpcId=network.vpc)["RouteTable"]["RouteTableId"]
        ec2.associate_route_table(RouteTableId=table, SubnetId=public)
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=network.vpc)
        ec2.create_route(RouteTableId=table, GatewayId=gateway, DestinationCidrBlock="0.0.0.0/0")
        nat = ec2.create_nat_gateway(SubnetId=public, AllocationId=ec2.allocate_address(Domain="vpc")["AllocationId"])["NatGateway"]["NatGatewayId"]
        ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[nat], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
        route = {"RouteTableId": network.table, "DestinationCidrBlock": "0.0.0.0/0"}
        ec2.create_route(NatGatewayId=nat, **route)
        eventually(lambda: lines(engine, "far", "SEES")[-1:] == ["SEES near far"], timeout=60)
        ec2.delete_route(**route)
        eventually(lambda: lines(engine, "far", "SEES")[-1:] == ["SEES near cut"], timeout=60)
        sagemaker.stop_training_job(TrainingJobName="far")
        finished(sagemaker, "far")
        found = [event for event, _ in events(engine, eventName="GetObject") if event["requestParameters"].get("key") == "k"]
        assert {event.get("vpcEndpointId") for event in found if event["requestParameters"]["bucketName"] == "near"} == {network.endpoint}
        assert {event.get("vpcEndpointId") for event in found if event["requestParameters"]["bucketName"] == "far"} == {None}
