"""Containers beside interface endpoints: what a job in a VPC reaches by them, and what it does not once it is isolated."""
import ipaddress
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conformance.test_notebooks import notebooks, settled  # noqa: F401
from tests.conformance.test_vpc_jobs import Network, completed, said
from tests.harness.engine import ACCOUNT, REGION
from tests.harness.inside import Inside
from tests.harness.jobs import eventually, training_request, with_program

PROBE = (Path(__file__).resolve().parent / "platform_probe.py").read_text().partition("\ndef main():")[0]
PROGRAM = PROBE + """
def tried(target, port=443):
    try:
        socket.create_connection((target, port), 5).close()
        return "reached"
    except socket.gaierror:
        return "no name"
    except OSError as error:
        return type(error).__name__

def named(server, name):
    try:
        return over_udp(server, name)
    except OSError as error:
        return type(error).__name__

given = json.load(open("/opt/ml/input/config/hyperparameters.json"))
result = {"targets": {target: tried(target) for target in given["targets"].split(",")}}
result["resolver"] = named(given["resolver"], given["name"])
if "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" in os.environ:
    session = json.loads(credentials(os.environ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"])[1])
    form = {"content-type": "application/x-www-form-urlencoded"}
    sts = f"sts.{REGION}.amazonaws.com"
    asked = signed(session, "sts", sts, "/", b"Action=GetCallerIdentity&Version=2011-06-15", form)
    # The image knows none of the engine's authorities.
    result["identity"] = fetch(asked, ssl._create_unverified_context())
print("RESULT " + json.dumps(result), flush=True)
"""


@pytest.fixture
def network(ec2):
    """A VPC without a way to the internet: a gateway endpoint for S3, interface endpoints for STS and the API."""
    made = Network(ec2, block="10.90.0.0/16", subnet="10.90.1.0/24")
    ec2.modify_vpc_attribute(VpcId=made.vpc, EnableDnsHostnames={"Value": True})
    rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "UserIdGroupPairs": [{"GroupId": made.group}]}
    ec2.authorize_security_group_ingress(GroupId=made.group, IpPermissions=[rule])
    made.doors = {}
    for service, private in (("sts", True), ("sagemaker.api", False)):
        endpoint = ec2.create_vpc_endpoint(
            VpcId=made.vpc, ServiceName=f"com.amazonaws.{REGION}.{service}", VpcEndpointType="Interface", SubnetIds=[made.subnet],
            SecurityGroupIds=[made.group], PrivateDnsEnabled=private)["VpcEndpoint"]["VpcEndpointId"]
        made.doors[service] = endpoint
    shown = lambda: ec2.describe_vpc_endpoints(VpcEndpointIds=list(made.doors.values()))["VpcEndpoints"]  # noqa: E731
    eventually(lambda: {one["State"] for one in shown()} == {"available"}, timeout=60)
    made.shown = {one["VpcEndpointId"]: one for one in shown()}
    yield made
    ec2.delete_vpc_endpoints(VpcEndpointIds=list(made.doors.values()))
    left = [{"Name": "vpc-endpoint-id", "Values": list(made.doors.values())}]
    eventually(lambda: not ec2.describe_vpc_endpoints(Filters=left)["VpcEndpoints"], timeout=60)
    made.remove()


def test_a_job_calls_a_service_through_its_endpoint_unless_it_is_isolated(engine, ec2, sagemaker, image, vpc_role, bucket, network, name):
    """
    A VPC without internet: a training container calls STS by its default name, and reaches the API endpoint by name and address.
    The same container under isolation reaches none of them, by no spelling, although group and resolver would let it.
    Proves: NI-7, NI-19, VPC-28, PL-21, PL-22
    """
    api = network.shown[network.doors["sagemaker.api"]]
    [door] = ec2.describe_network_interfaces(NetworkInterfaceIds=api["NetworkInterfaceIds"])["NetworkInterfaces"]
    targets = [f"sts.{REGION}.amazonaws.com", f"s3.{REGION}.amazonaws.com", door["PrivateIpAddress"]]
    targets += [entry["DnsName"] for entry in api["DnsEntries"]]
    told = {}
    for isolated in (False, True):
        job = f"{name[:40]}-{'shut' if isolated else 'open'}"
        own = {"targets": ",".join(targets), "resolver": "10.90.0.2", "name": targets[0]}
        request = training_request(job, image, vpc_role, bucket, "s3://none/", isolated=isolated, InputDataConfig=[], HyperParameters=own)
        sagemaker.create_training_job(**with_program(engine, bucket, request, PROGRAM) | {"VpcConfig": network.config})
        completed(sagemaker, job)
        [line] = eventually(lambda: [line for line in said(engine, job) if line.startswith("RESULT ")], timeout=60)  # noqa: B023
        told[isolated] = json.loads(line.removeprefix("RESULT "))
    assert set(told[False]["targets"].values()) == {"reached"}, told[False]
    [sts] = network.shown[network.doors["sts"]]["NetworkInterfaceIds"]
    private = ec2.describe_network_interfaces(NetworkInterfaceIds=[sts])["NetworkInterfaces"][0]["PrivateIpAddress"]
    assert told[False]["resolver"] == private
    status, text = told[False]["identity"]
    assert status == 200 and f"arn:aws:sts::{ACCOUNT}:assumed-role/" in text
    assert "reached" not in told[True]["targets"].values(), told[True]
    assert told[True]["resolver"] != private and "identity" not in told[True]


def test_a_notebooks_url_is_made_by_the_endpoint_and_opened_over_the_public_side(engine, ec2, sagemaker, network, notebooks, name):  # noqa: F811
    """
    A host with interface endpoints alone has the URL made, and cannot open it: its name leads to a public address. With an
    internet gateway and an address of its own it can.
    Proves: PL-15, PL-16, D-12
    """
    lab = "public-side-" + name[-6:].strip("-")
    notebooks(lab)
    settled(sagemaker, lab, "InService")
    api = network.shown[network.doors["sagemaker.api"]]["DnsEntries"][0]["DnsName"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=network.vpc)
    try:
        with Inside(engine, network.subnet, network.group) as host:
            made = host.call("sagemaker", "create_presigned_notebook_instance_url", url=f"https://{api}", NotebookInstanceName=lab)
            url = urlsplit(made["AuthorizedUrl"])
            assert url.scheme == "https" and url.hostname == f"{lab}.notebook.{REGION}.sagemaker.aws"
            [public] = host.ask("lookup", name=url.hostname)
            assert ipaddress.ip_address(public) not in ipaddress.ip_network("10.90.0.0/16")
            asked = f"GET {url.path or '/'}?{url.query} HTTP/1.1\r\nHost: {url.hostname}\r\nConnection: close\r\n\r\n"
            opened = lambda: host.ask("raw", address=public, name=url.hostname, text=asked)  # noqa: E731
            assert host.refused("raw", address=public, name=url.hostname, text=asked).kind != "AssertionError"
            ec2.create_route(RouteTableId=network.table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
            found = ec2.describe_network_interfaces(Filters=[{"Name": "addresses.private-ip-address", "Values": [host.address]}])
            [own] = found["NetworkInterfaces"]
            ec2.associate_address(AllocationId=address, NetworkInterfaceId=own["NetworkInterfaceId"])
            eventually(lambda: host.ask("connects", address=public, port=443), timeout=60)
            assert opened().split("\r\n")[0] == "HTTP/1.1 302 Found"
    finally:
        ec2.delete_route(RouteTableId=network.table, DestinationCidrBlock="0.0.0.0/0")
        ec2.release_address(AllocationId=address)
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=network.vpc)
        ec2.delete_internet_gateway(InternetGatewayId=gateway)
