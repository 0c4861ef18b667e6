"""Walls and ways of a VPC, tried from inside containers with their positive controls: one VPC for the whole module, with a
program that serves in it, a NAT gateway, a gateway endpoint and a group that lets everything through.
"""
import gzip
import json
import subprocess
import sys

import boto3
import pytest
from botocore.config import Config

from tests.conformance import test_transform as transform
from tests.conformance import test_tuning as tuning
from tests.conformance.test_audit import events
from tests.conformance.test_transform import server  # noqa: F401
from tests.conformance.test_tuning import tuned  # noqa: F401
from tests.conformance.test_vpc_jobs import Network, completed, failed, reads, run, said
from tests.conformance.test_vpc_services import ALL, FETCH, FLOW_ACTIONS, P1, lines, presigned, statement
from tests.harness.engine import REGION, WEB, execution_statements
from tests.harness.jobs import P6, eventually, finished, gone, settled, training_request, with_program
from tests.harness.wire import printed

EVERYTHING = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
S3_NAME = f"s3.{REGION}.amazonaws.com"
# Serves TCP at 9000, and answers every question for an address with S3's.
SERVER = f"""
import socket, threading
S3 = socket.gethostbyname("{S3_NAME}")

def web():
    server = socket.create_server(("", 9000))
    while True:
        connection, _ = server.accept()
        connection.sendall(b"served\\n")
        connection.close()

def names():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", 53))
    while True:
        question, peer = server.recvfrom(2048)
        at = 12
        while question[at]:
            at += 1 + question[at]
        is_a = question[at + 2] == 1
        record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + socket.inet_aton(S3) if is_a else b""
        server.sendto(question[:2] + b"\\x81\\x80\\0\\1\\0" + bytes([is_a]) + b"\\0\\0\\0\\0" + question[12:at + 5] + record, peer)

threading.Thread(target=names, daemon=True).start()
print("S3", S3, flush=True)
web()
"""


def tcp(port, **peer):
    return [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peer}]


def play(engine, sagemaker, name, image, role, bucket, uri, script, interpreter="/bin/sh", **members):
    """Starts a job that runs a program too long for an entry point."""
    request = training_request(name, image, role, bucket, uri, isolated=members.pop("isolated", False)) | {"HyperParameters": {}}
    sagemaker.create_training_job(**with_program(engine, bucket, request, script, interpreter) | members)


class Place(Network):
    """The module's VPC. Jobs run in `subnet` with `group`, which is open both ways; `server` has a group of its own."""

    def __init__(self, engine, sagemaker, image, role, bucket, uri):
        ec2 = engine.client("ec2")
        super().__init__(ec2, block="10.60.0.0/16", subnet="10.60.1.0/24")
        self.engine, self.sagemaker, self.name = engine, sagemaker, "vpc-proofs-server"
        ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=EVERYTHING)
        self.servers = ec2.create_security_group(VpcId=self.vpc, GroupName="servers", Description="servers")["GroupId"]
        pair = {"UserIdGroupPairs": [{"GroupId": self.group}]}
        ec2.authorize_security_group_ingress(GroupId=self.servers, IpPermissions=tcp(9000, **pair))
        self.names = [{"IpProtocol": "udp", "FromPort": 53, "ToPort": 53, **pair}]
        self.public = ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.60.2.0/24")["Subnet"]["SubnetId"]
        self.public_table = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        ec2.associate_route_table(RouteTableId=self.public_table, SubnetId=self.public)
        self.internet = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=self.internet, VpcId=self.vpc)
        self.elastic = ec2.allocate_address(Domain="vpc")
        made = ec2.create_nat_gateway(SubnetId=self.public, AllocationId=self.elastic["AllocationId"])
        self.nat = made["NatGateway"]["NatGatewayId"]
        ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[self.nat], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
        self.everywhere = {"DestinationCidrBlock": "0.0.0.0/0"}
        ec2.create_route(RouteTableId=self.public_table, GatewayId=self.internet, **self.everywhere)
        ec2.create_route(RouteTableId=self.table, NatGatewayId=self.nat, **self.everywhere)
        config = {"Subnets": [self.subnet], "SecurityGroupIds": [self.servers]}
        play(engine, sagemaker, self.name, image, role, bucket, uri, SERVER, "/usr/bin/python3", VpcConfig=config)
        [told] = eventually(lambda: lines(engine, self.name, "S3"), timeout=90)
        self.s3 = told.split()[1]
        self.address = self.of(self.name)["Container"]["PrivateIpAddress"]

    def of(self, name):
        """The interfaces of a job that runs, by what they are for."""
        arn = self.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobArn"]
        held = [one for one in self.interfaces() if arn in one["Description"]]
        return {"Container" if "] Container" in one["Description"] else "Transfer": one for one in held}

    def remove(self):
        self.sagemaker.stop_training_job(TrainingJobName=self.name)
        finished(self.sagemaker, self.name)
        self.ec2.delete_route(RouteTableId=self.table, **self.everywhere)
        self.ec2.delete_nat_gateway(NatGatewayId=self.nat)
        self.ec2.get_waiter("nat_gateway_deleted").wait(NatGatewayIds=[self.nat], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
        self.ec2.release_address(AllocationId=self.elastic["AllocationId"])
        self.ec2.detach_internet_gateway(InternetGatewayId=self.internet, VpcId=self.vpc)
        self.ec2.delete_internet_gateway(InternetGatewayId=self.internet)
        self.ec2.delete_subnet(SubnetId=self.public)
        self.ec2.delete_route_table(RouteTableId=self.public_table)
        eventually(lambda: not [one for one in self.interfaces() if one.get("RequesterManaged")], timeout=60)
        self.ec2.delete_security_group(GroupId=self.servers)
        super().remove()


@pytest.fixture(scope="module")
def uri(engine, bucket):
    engine.client("s3").put_object(Bucket=bucket, Key="vpc/proofs/a.txt", Body=b"by the endpoint")
    return f"s3://{bucket}/vpc/proofs/"


@pytest.fixture(scope="module")
def place(engine, sagemaker, image, vpc_role, bucket, uri):
    made = Place(engine, sagemaker, image, vpc_role, bucket, uri)
    yield made
    made.remove()


def probes(place, role):
    """A script that tries every target of the VPC and beyond it, and says how each went."""
    own = "http://169.254.170.2${AWS_CONTAINER_CREDENTIALS_RELATIVE_URI:-/none}"
    tries = {
        "server": f"nc -w 2 {place.address} 9000 </dev/null | grep -q served",
        "resolver": f"busybox nslookup {S3_NAME} 10.60.0.2 | grep -q 198.18",
        "nat": f"echo GET / | nc -w 3 {WEB} 80 | grep -q hello",
        "endpoint": f"nc -w 3 {place.s3} 80 -e /bin/true",
        "credentials": f"wget -q -O - {own} | grep -q {role}",
    }
    tried = [f"if {command} 2>/dev/null; then echo TRY {target} reached; else echo TRY {target} cut; fi" for target, command in tries.items()]
    return list(tries), "; ".join(["busybox ip -o addr | busybox awk '{print \"ON\", $2}'", "busybox ip route | busybox awk '{print \"ROUTE\", $0}'", *tried, "sleep 2"])


def flow_log(engine, ec2, name, resource, kind="Subnet", traffic="ALL"):
    """A flow log of a resource to CloudWatch Logs; returns its id and a reader of (stream, fields)."""
    iam, logs, group = engine.client("iam"), engine.client("logs"), f"flows-{name}"
    trust = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"Service": "vpc-flow-logs.amazonaws.com"}, "Action": "sts:AssumeRole"}}
    role = iam.create_role(RoleName=f"flows-{name}"[-60:], AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    allow = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": FLOW_ACTIONS, "Resource": "*"}}
    iam.put_role_policy(RoleName=role["RoleName"], PolicyName="p", PolicyDocument=json.dumps(allow))
    made = ec2.create_flow_logs(
        ResourceType=kind, ResourceIds=[resource], TrafficType=traffic, LogGroupName=group,
        DeliverLogsPermissionArn=role["Arn"], MaxAggregationInterval=60)
    assert not made.get("Unsuccessful"), made

    def read():
        try:
            return [(event["logStreamName"], event["message"].split()) for event in logs.filter_log_events(logGroupName=group)["events"]]
        except logs.exceptions.ResourceNotFoundException:
            return []

    return made["FlowLogIds"], read


def test_an_isolated_job_reaches_nothing_of_its_vpc_where_another_with_the_same_config_reaches_everything(
    engine, ec2, sagemaker, small, vpc_role, bucket, uri, place, name
):
    """
    Both have the group that allows everything; the isolated one's data travel through the subnet all the same. What it tried
    is in its report, and that the other one fetched its credentials is in no flow log.
    Proves: NI-18, NI-19, VPC-5, NET-69, AU-32, CC-83
    """
    ids, records = flow_log(engine, ec2, name, place.subnet)
    targets, script = probes(place, vpc_role)
    jobs = {f"{name}-open": False, f"{name}-shut": True}
    held = {}
    for job, isolated in jobs.items():
        play(engine, sagemaker, job, small, vpc_role, bucket, uri, script, isolated=isolated, VpcConfig=place.config)
    for job in jobs:
        held[job] = eventually(lambda job=job: len(found := place.of(job)) == 2 and found, timeout=90)
    for job, isolated in jobs.items():
        completed(sagemaker, job)
        word = "cut" if isolated else "reached"
        assert eventually(lambda job=job: len(found := lines(engine, job, "TRY")) == len(targets) and found) == [f"TRY {target} {word}" for target in targets], job
        routes = lines(engine, job, "ROUTE")
        assert {line.split()[1] for line in lines(engine, job, "ON")} == ({"lo"} if isolated else {"lo", "eth0"}), job
        assert all(" dev eth0 " in f"{line} " for line in routes), routes
        assert routes == [] if isolated else any(line.startswith("ROUTE default") for line in routes), routes

    def to_s3(job, use):
        one = held[job][use]
        stream = f"{one['NetworkInterfaceId']}-all"
        return [line for where, line in records() if where == stream and line[3] == one["PrivateIpAddress"] and line[4].startswith("198.18.") and line[12:] == ["ACCEPT", "OK"]]

    for job in jobs:
        assert {line[6] for line in eventually(lambda job=job: to_s3(job, "Transfer"), timeout=60)} == {"443"}, job
    assert eventually(lambda: to_s3(f"{name}-open", "Container"), timeout=60), "control: a container's flows are recorded"
    assert to_s3(f"{name}-shut", "Container") == []
    assert not [line for _, line in records() if "169.254.170.2" in line], "the credentials' address is recorded nowhere"
    tried = {(one["protocol"], one["address"], one["port"]) for one in engine.attempts(f"{name}-shut")}
    assert tried >= {
        ("tcp", place.address, 9000), ("udp", "10.60.0.2", 53), ("tcp", WEB, 80), ("tcp", place.s3, 80), ("tcp", "169.254.170.2", 80)}
    ec2.delete_flow_logs(FlowLogIds=ids)


def test_flow_logs_of_an_interface_a_subnet_and_a_vpc_tell_of_it_alone(
    engine, ec2, sagemaker, small, vpc_role, bucket, uri, place, name
):
    """
    Two jobs ask S3 all the time, which their group allows, and a host of the internet, which it does not.
    Proves: VPC-9, NET-55, NET-56, NET-57
    """
    s3, store, short = engine.client("s3"), f"flows-{name[-40:]}", name[-40:]
    group = ec2.create_security_group(VpcId=place.vpc, GroupName=name, Description="to S3 alone")["GroupId"]
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=EVERYTHING)
    listed = ec2.describe_prefix_lists()["PrefixLists"][0]["PrefixListId"]
    ec2.authorize_security_group_egress(
        GroupId=group, IpPermissions=[rule for port in (80, 443) for rule in tcp(port, PrefixListIds=[{"PrefixListId": listed}])])
    config = {"Subnets": [place.subnet], "SecurityGroupIds": [group]}
    script = f"while true; do nc -w 1 {WEB} 80 </dev/null; nc -w 1 {place.s3} 80 </dev/null; busybox sleep 0.3; done >/dev/null 2>&1"
    jobs = (f"{name}-a", f"{name}-b")
    for job in jobs:
        run(sagemaker, job, small, vpc_role, bucket, None, script, VpcConfig=config)
    first, second = (
        eventually(lambda job=job: place.of(job).get("Container"), timeout=90) for job in jobs)
    [gateway] = ec2.describe_network_interfaces(Filters=[{"Name": "subnet-id", "Values": [place.public]}])["NetworkInterfaces"]
    s3.create_bucket(Bucket=store)
    lets = {"Effect": "Allow", "Principal": {"Service": "delivery.logs.amazonaws.com"}, "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{store}/*"}
    s3.put_bucket_policy(Bucket=store, Policy=json.dumps({"Version": "2012-10-17", "Statement": lets}))
    ids, of_first = flow_log(engine, ec2, f"{short}-eni", first["NetworkInterfaceId"], "NetworkInterface", "REJECT")
    more, of_public = flow_log(engine, ec2, f"{short}-public", place.public)
    ids += more
    fields = "version vpc-id subnet-id interface-id dstaddr dstport tcp-flags pkt-dst-aws-service flow-direction traffic-path action".split()
    made = ec2.create_flow_logs(
        ResourceType="VPC", ResourceIds=[place.vpc], TrafficType="ACCEPT", LogDestinationType="s3", LogDestination=f"arn:aws:s3:::{store}",
        LogFormat=" ".join(f"${{{field}}}" for field in fields), MaxAggregationInterval=60)
    assert not made.get("Unsuccessful"), made
    ids += made["FlowLogIds"]

    def stored():
        keys = [one["Key"] for one in s3.list_objects_v2(Bucket=store).get("Contents", [])]
        texts = [gzip.decompress(s3.get_object(Bucket=store, Key=key)["Body"].read()).decode().splitlines() for key in keys]
        assert all(text[0].split() == fields for text in texts), texts
        return [dict(zip(fields, line.split())) for text in texts for line in text[1:]]

    def to_s3(interface):
        want = {
            "version": "5", "vpc-id": place.vpc, "subnet-id": place.subnet, "interface-id": interface["NetworkInterfaceId"], "dstport": "80",
            "pkt-dst-aws-service": "S3", "flow-direction": "egress", "traffic-path": "7", "action": "ACCEPT"}
        return [line for line in stored() if want.items() <= line.items() and line["dstaddr"].startswith("198.18.") and int(line["tcp-flags"]) & 2]

    eventually(lambda: to_s3(first) and to_s3(second), timeout=90, pause=0.5)
    assert not [line for line in stored() if line["dstaddr"] == WEB], "what was refused is none of this one's"
    rejected = eventually(lambda: [line for _, line in of_first() if line[12] == "REJECT"], timeout=60)
    assert {tuple(line[2:5] + line[6:7]) for line in rejected} == {(first["NetworkInterfaceId"], first["PrivateIpAddress"], WEB, "80")}
    assert {(stream, *line[12:]) for stream, line in of_first()} <= {
        (f"{first['NetworkInterfaceId']}-reject", *ends) for ends in (("REJECT", "OK"), ("-", "NODATA"))}
    eventually(of_public, timeout=60)
    assert {stream for stream, _ in of_public()} == {f"{gateway['NetworkInterfaceId']}-all"}, "that subnet's, and of no job"
    ec2.delete_flow_logs(FlowLogIds=ids)
    for job in jobs:
        sagemaker.stop_training_job(TrainingJobName=job)
        finished(sagemaker, job)
    eventually(lambda: not [one for one in place.interfaces() if group in str(one["Groups"])], timeout=60)
    ec2.delete_security_group(GroupId=group)


def dial(engine, address, port):
    """Connects from the internet, under an address of its own that answers find; 0 when somebody answered."""
    program = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1, source_address=(sys.argv[3], 0))"
    inside = ["ip", "netns", "exec", engine.internet.name, sys.executable, "-c", program, address, str(port), WEB]
    return subprocess.run(inside, capture_output=True).returncode


def test_a_nat_gateway_leads_a_job_to_the_internet_and_nobody_in(
    engine, ec2, sagemaker, small, vpc_role, bucket, uri, place, name
):
    """
    One job tries all the time, and says whenever the answer changes.
    Proves: VPC-6, VPC-8, VPC-29, VPC-30, VPC-31, NET-22, NET-28, NET-29, D-15
    """
    script = f"""(while true; do echo inside | nc -l -p 9001; done) >/dev/null 2>&1 &
while true; do now=$(echo GET / | nc -w 2 {WEB} 80 2>/dev/null | grep -q hello && echo REACHED || echo CUT)
[ "$now" = "$last" ] || echo SEES $now; last=$now; busybox sleep 0.1; done"""
    before = len(engine.internet.arrivals())
    play(engine, sagemaker, name, small, vpc_role, bucket, uri, script, VpcConfig=place.config)
    told = ["REACHED"]

    def sees(change, word):
        change()
        told.append(word)
        eventually(lambda: [line.split()[1] for line in lines(engine, name, "SEES")] == told, timeout=30)

    eventually(lambda: lines(engine, name, "SEES") == ["SEES REACHED"], timeout=90)
    held = place.of(name)
    assert "Association" not in held["Container"] and "Association" not in held["Transfer"]
    address = held["Container"]["PrivateIpAddress"]
    route, public = {"RouteTableId": place.table, **place.everywhere}, {"RouteTableId": place.public_table, **place.everywhere}
    group = {"GroupId": place.group, "IpPermissions": EVERYTHING}
    sees(lambda: ec2.revoke_security_group_egress(**group), "CUT")
    sees(lambda: ec2.authorize_security_group_egress(**group), "REACHED")
    # The subnet's network ACL: one more entry, then another ACL, which has none.
    [acl] = ec2.describe_network_acls(Filters=[{"Name": "association.subnet-id", "Values": [place.subnet]}])["NetworkAcls"]
    [own] = [one["NetworkAclAssociationId"] for one in acl["Associations"] if one["SubnetId"] == place.subnet]
    entry = {"NetworkAclId": acl["NetworkAclId"], "RuleNumber": 50, "Egress": True}
    sees(lambda: ec2.create_network_acl_entry(Protocol="-1", RuleAction="deny", CidrBlock=f"{WEB}/32", **entry), "CUT")
    sees(lambda: ec2.delete_network_acl_entry(**entry), "REACHED")
    empty = ec2.create_network_acl(VpcId=place.vpc)["NetworkAcl"]["NetworkAclId"]

    def associate(to):
        nonlocal own
        own = ec2.replace_network_acl_association(AssociationId=own, NetworkAclId=to)["NewAssociationId"]

    sees(lambda: associate(empty), "CUT")
    sees(lambda: associate(acl["NetworkAclId"]), "REACHED")
    ec2.delete_network_acl(NetworkAclId=empty)
    sees(lambda: ec2.delete_route(**route), "CUT")
    # D-15: an internet gateway is no way for an interface without a public address.
    ec2.create_route(GatewayId=place.internet, **route)
    gateway = subprocess.run(["ip", "-n", engine.internet.name, "-j", "route", "show", "198.19.0.0/16"], check=True, capture_output=True, text=True)
    via = json.loads(gateway.stdout)[0]
    inward = [*("ip", "-n", engine.internet.name, "route"), "{}", "10.60.0.0/16", "via", via["gateway"], "dev", via["dev"]]
    subprocess.run([word.format("add") for word in inward], check=True)
    assert dial(engine, address, 9001) != 0, "nobody comes in, not even with a route to the private address"
    subprocess.run([word.format("del") for word in inward], check=True)
    assert [line.split()[1] for line in lines(engine, name, "SEES")] == told, "and nothing gets out"
    ec2.replace_route(NatGatewayId=place.nat, **route)
    sees(lambda: None, "REACHED")
    sees(lambda: ec2.delete_route(**public), "CUT")
    sees(lambda: ec2.create_route(GatewayId=place.internet, **public), "REACHED")
    seen = {one["peer"] for one in engine.internet.arrivals()[before:]}
    assert seen == {place.elastic["PublicIp"]}, "the source is the gateway's Elastic IP"
    assert dial(engine, WEB, 80) == 0, "control: it dials"
    for port in (9001, 80):
        assert dial(engine, place.elastic["PublicIp"], port) != 0
    ask = f"nc -w 3 {address} 9001 </dev/null | grep inside || echo CUT"
    run(sagemaker, f"{name}-in", small, vpc_role, bucket, None, ask, VpcConfig=place.config)
    completed(sagemaker, f"{name}-in")
    assert eventually(lambda: said(engine, f"{name}-in"))[-1] == "inside", "control: it listens, and its group lets everybody in"
    sagemaker.stop_training_job(TrainingJobName=name)
    finished(sagemaker, name)


def test_a_resolver_of_the_owners_serves_jobs_when_routes_and_groups_let_it(
    engine, ec2, sagemaker, small, vpc_role, bucket, uri, place, name
):
    """
    The VPC's own resolver is off; the server of the DHCP options knows every name, and is a member of the VPC.
    Proves: VPC-21, NET-53
    """
    options = ec2.create_dhcp_options(DhcpConfigurations=[
        {"Key": "domain-name-servers", "Values": [place.address]}, {"Key": "domain-name", "Values": ["corp.example"]}])
    options = options["DhcpOptions"]["DhcpOptionsId"]
    look = "cat /etc/resolv.conf; busybox nslookup nobody-else-knows.corp.example | busybox awk '/^Address/ {a=$NF} END {print \"FOUND\", a}'"
    ec2.associate_dhcp_options(DhcpOptionsId=options, VpcId=place.vpc)
    ec2.modify_vpc_attribute(VpcId=place.vpc, EnableDnsSupport={"Value": False})
    try:
        run(sagemaker, f"{name}-a", small, vpc_role, bucket, uri, look, VpcConfig=place.config)
        reason = failed(sagemaker, f"{name}-a")
        assert reason.startswith("ClientError: Data download failed"), reason
        ec2.authorize_security_group_ingress(GroupId=place.servers, IpPermissions=place.names)
        run(sagemaker, f"{name}-b", small, vpc_role, bucket, uri, look, VpcConfig=place.config)
        completed(sagemaker, f"{name}-b")
        seen = said(engine, f"{name}-b")
        assert f"nameserver {place.address}" in seen and f"FOUND {place.s3}" in seen and "search corp.example" in seen, seen
    finally:
        ec2.modify_vpc_attribute(VpcId=place.vpc, EnableDnsSupport={"Value": True})
        ec2.associate_dhcp_options(DhcpOptionsId="default", VpcId=place.vpc)
        ec2.delete_dhcp_options(DhcpOptionsId=options)


def test_s3_that_is_cut_during_a_job_lets_open_connections_finish_and_no_new_ones(
    engine, ec2, sagemaker, image, vpc_role, bucket, uri, place, name
):
    """
    The container reads on through a connection that stands. The transfer has none, because the job has no input: its program
    is a hyperparameter.
    Proves: NET-68, NET-16
    """
    size = 48 << 20
    engine.client("s3").put_object(Bucket=bucket, Key="vpc/large", Body=bytes(size))
    group = ec2.create_security_group(VpcId=place.vpc, GroupName=name, Description="to S3 alone")["GroupId"]
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=EVERYTHING)
    listed = ec2.describe_prefix_lists()["PrefixLists"][0]["PrefixListId"]
    rules = [rule for port in (80, 443) for rule in tcp(port, PrefixListIds=[{"PrefixListId": listed}])]
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=rules)
    program = """
import http.client, socket, time, urllib.parse
to = urllib.parse.urlsplit(given["url"])
open("/opt/ml/model/kept", "w").write("x")
connection = http.client.HTTPConnection(socket.gethostbyname(to.hostname), 80)
connection.sock = socket.create_connection((connection.host, 80))
connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
connection.request("GET", to.path + "?" + to.query, headers={"Host": to.hostname})
answer = connection.getresponse()
read = len(answer.read(65536))
for again in range(2):
    socket.create_connection((connection.host, 80), 2).close()
print("OPEN", answer.status, flush=True)
while True:
    try:
        socket.create_connection((connection.host, 80), 1).close()
        time.sleep(0.1)
    except OSError:
        break
print("CUT", flush=True)
while piece := answer.read(1 << 20):
    read += len(piece)
print("REST", read, flush=True)
"""
    config = {"Subnets": [place.subnet], "SecurityGroupIds": [group]}
    request = training_request(name, image, vpc_role, bucket, uri, isolated=False, VpcConfig=config, HyperParameters={"program": json.dumps(program), "url": presigned(engine, bucket, S3_NAME, True, "vpc/large")})
    del request["InputDataConfig"]
    line = "import json; given = json.load(open('/opt/ml/input/config/hyperparameters.json')); exec(json.loads(given['program']))"
    request["AlgorithmSpecification"]["ContainerEntrypoint"] = ["/usr/bin/python3", "-c", line]
    sagemaker.create_training_job(**request)
    assert eventually(lambda: lines(engine, name, "OPEN"), timeout=90) == ["OPEN 200"], "control: both ways are open"
    assert not lines(engine, name, "CUT"), "control"
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=rules)
    assert eventually(lambda: lines(engine, name, "REST"), timeout=60) == [f"REST {size}"]
    reason = failed(sagemaker, name)
    assert f"no egress rule of {group} allows it" in reason, reason
    eventually(lambda: not [one for one in place.interfaces() if group in str(one["Groups"])], timeout=60)
    ec2.delete_security_group(GroupId=group)


# Sends the calls and prints their statuses, again whenever the policy has changed. `calls`, `denied` and `policy` come before it.
CALLS = """
import time, urllib.error, urllib.request

def call(name):
    method, url = calls[name]
    data = {"put": b"body", "put policy": policy.encode()}.get(name, b"") if method in ("PUT", "POST") else None
    headers = {"x-amz-acl": "private"} if name == "acl" else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code

def until(name, status):
    while call(name) != status:
        time.sleep(0.1)

def told(phase, names):
    print("PHASE", phase, "|".join(f"{name}={call(name)}" for name in names), flush=True)

told("p1", calls)
until("get other", 403)
told("narrowed", ("get", "list", "get other", "list other"))
until("get", 403)
told("deny-only", ("get", "list", "get other", "list other"))
until("get", 200)
told("full", denied)
"""


def signed_calls(engine, wanted):
    """Calls of S3 that whoever holds them may send, by the legacy name: (method, URL) by what they are called."""
    key, secret = engine.credentials()
    client = boto3.client(
        "s3", region_name=REGION, endpoint_url=f"http://s3-{REGION}.amazonaws.com", aws_access_key_id=key, aws_secret_access_key=secret,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}))
    made = {}

    def note(request, **_):
        made["method"] = request.method

    client.meta.events.register("before-sign.s3", note)
    return {name: (lambda url: (made["method"], url))(client.generate_presigned_url(operation, Params=parameters, ExpiresIn=900))
            for name, (operation, parameters) in wanted.items()}


def test_the_guides_policy_lets_seven_actions_through_and_a_job_works_with_them_alone(
    engine, ec2, sagemaker, small, image, vpc_role, bucket, uri, place, name
):
    """
    Presigned by the account's root, so that the endpoint's policy alone decides what a container may.
    Proves: VPC-16, VPC-17, VPC-18, VPC-19, VPC-24, IAM-36, BT-16
    """
    s3, short = engine.client("s3"), name[-40:]
    own, other, empty = f"own-{short}", f"other-{short}", f"empty-{short}"
    for one in (own, other, empty):
        s3.create_bucket(Bucket=one)
    for one in (own, other):
        s3.put_object(Bucket=one, Key="k", Body=b"x")
    at, upload = {"Bucket": own, "Key": "k"}, {"Bucket": own, "Key": "parts"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    public = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{empty}/*"}]})
    allowed = {
        "get": ("get_object", at), "head": ("head_object", at), "list": ("list_objects_v2", {"Bucket": own}),
        "location": ("get_bucket_location", {"Bucket": own}), "put": ("put_object", at | {"Key": "new"}),
        "create upload": ("create_multipart_upload", at | {"Key": "more"}), "parts": ("list_parts", upload),
        "abort": ("abort_multipart_upload", upload), "delete": ("delete_object", at | {"Key": "new"}),
        "get other": ("get_object", {"Bucket": other, "Key": "k"}), "list other": ("list_objects_v2", {"Bucket": other}),
    }
    denied = {
        "buckets": ("list_buckets", {}), "create bucket": ("create_bucket", {"Bucket": f"new-{short}"}),
        "tagging": ("get_object_tagging", at), "acl": ("put_object_acl", at | {"ACL": "private"}),
        "policy": ("get_bucket_policy", {"Bucket": empty}), "put policy": ("put_bucket_policy", {"Bucket": empty, "Policy": public}),
        "delete policy": ("delete_bucket_policy", {"Bucket": empty}), "delete bucket": ("delete_bucket", {"Bucket": empty}),
    }
    s3.put_bucket_policy(Bucket=empty, Policy=public)
    calls = signed_calls(engine, allowed | denied)
    p1 = {"Effect": "Allow", "Principal": "*", "Action": P1, "Resource": "*"}

    def attach(*statements, version="2008-10-17"):
        ec2.modify_vpc_endpoint(VpcEndpointId=place.endpoint, PolicyDocument=json.dumps({"Version": version, "Statement": list(statements)}))

    def phase(word):
        [line] = eventually(lambda: lines(engine, name, f"PHASE {word} "), timeout=60)
        return dict(one.rsplit("=", 1) for one in line.removeprefix(f"PHASE {word} ").split("|"))

    attach(p1)
    program = f"calls, denied, policy = {calls!r}, {list(denied)!r}, {public!r}\n{CALLS}"
    try:
        play(engine, sagemaker, name, image, vpc_role, bucket, uri, program, "/usr/bin/python3", VpcConfig=place.config)
        seen = phase("p1")
        assert {one: seen[one] for one in allowed} == {one: "204" if one in ("abort", "delete") else "200" for one in allowed}
        assert {one: seen[one] for one in denied} == dict.fromkeys(denied, "403")
        # A job of its own with input, checkpoints and output; and one whose role may not read.
        s3.put_object(Bucket=bucket, Key=f"checkpoints/{name}/before", Body=b"earlier")
        script = "cat /opt/ml/checkpoints/before /opt/ml/input/data/train/a.txt > /opt/ml/model/seen; echo two > /opt/ml/checkpoints/step"
        checkpoints = {"S3Uri": f"s3://{bucket}/checkpoints/{name}"}
        run(sagemaker, f"{name}-job", small, vpc_role, bucket, uri, script, VpcConfig=place.config, CheckpointConfig=checkpoints)
        blind = [one for one in execution_statements(bucket) if "s3:GetObject" not in one["Action"]]
        blind = engine.create_role(f"blind-{short}", [*blind, {"Effect": "Allow", "Action": P6, "Resource": "*"}])
        run(sagemaker, f"{name}-blind", small, blind, bucket, uri, script, VpcConfig=place.config)
        completed(sagemaker, f"{name}-job")
        assert reads(engine, bucket, f"{name}-job") == b"earlierby the endpoint"
        assert s3.get_object(Bucket=bucket, Key=f"checkpoints/{name}/step")["Body"].read() == b"two\n"
        reason = failed(sagemaker, f"{name}-blind")
        assert "s3:GetObject" in reason and "identity-based policy" in reason, reason
        attach(p1 | {"Resource": [f"arn:aws:s3:::{own}", f"arn:aws:s3:::{own}/*"]})
        assert phase("narrowed") == {"get": "200", "list": "200", "get other": "403", "list other": "403"}
        attach({"Sid": "AmazonLinuxAMIRepositoryAccess", "Effect": "Deny", "Principal": "*", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::packages.*.amazonaws.com/*"]})
        assert phase("deny-only") == dict.fromkeys(("get", "list", "get other", "list other"), "403")
        statement(engine, ec2, place, ALL)
        assert "403" not in phase("full").values(), "control: without the policy they are let through"
        completed(sagemaker, name)
    finally:
        statement(engine, ec2, place, ALL)


def test_a_bucket_that_wants_the_vpc_admits_a_job_in_it_and_the_same_role_from_nowhere_else(
    engine, sagemaker, small, vpc_role, place, name
):
    """
    Proves: VPC-15, VPC-19
    """
    s3, kept = engine.client("s3"), f"kept-{name[-40:]}"
    s3.create_bucket(Bucket=kept)
    s3.put_object(Bucket=kept, Key="in/a.txt", Body=b"of the VPC")
    role = engine.create_role(f"kept-{name[-40:]}", [*execution_statements(kept), {"Effect": "Allow", "Action": P6, "Resource": "*"}])
    outside = {
        "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{kept}/*",
        "Condition": {"StringNotEquals": {"aws:SourceVpc": place.vpc}, "ArnEquals": {"aws:PrincipalArn": role}},
    }
    s3.put_bucket_policy(Bucket=kept, Policy=json.dumps({"Version": "2012-10-17", "Statement": [outside]}))
    script = "cat /opt/ml/input/data/train/a.txt > /opt/ml/model/seen"
    run(sagemaker, f"{name}-in", small, role, kept, f"s3://{kept}/in/", script, VpcConfig=place.config)
    completed(sagemaker, f"{name}-in")
    assert reads(engine, kept, f"{name}-in") == b"of the VPC"
    run(sagemaker, f"{name}-out", small, role, kept, f"s3://{kept}/in/", script)
    reason = failed(sagemaker, f"{name}-out")
    assert "s3:GetObject" in reason and "explicit deny in a resource-based policy" in reason, reason


def test_a_bucket_of_another_account_is_read_through_the_endpoint_while_its_policy_is_the_default_one(
    engine, ec2, sagemaker, small, vpc_role, bucket, place, name
):
    """
    The owner of the bucket lets the role in, and the role's own policy does.
    Proves: BT-17, VPC-17
    """
    made = printed(engine.run("account", "create", "666677778888").stdout)
    theirs = engine.client("s3", key=made["aws_access_key_id"], secret=made["aws_secret_access_key"])
    kept = f"theirs-{name[-40:]}"
    theirs.create_bucket(Bucket=kept)
    theirs.put_object(Bucket=kept, Key="in/a.txt", Body=b"of another account")
    allow = {"Effect": "Allow", "Action": P6, "Resource": "*"}
    role = engine.create_role(f"crossing-{name[-40:]}", [*execution_statements(bucket), *execution_statements(kept)[:2], allow])
    lets = [
        {"Effect": "Allow", "Principal": {"AWS": role}, "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{kept}/*"},
        {"Effect": "Allow", "Principal": {"AWS": role}, "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{kept}"}]
    theirs.put_bucket_policy(Bucket=kept, Policy=json.dumps({"Version": "2012-10-17", "Statement": lets}))
    script = "cat /opt/ml/input/data/train/a.txt > /opt/ml/model/seen"

    def start(suffix, by=role):
        job = f"{name}-{suffix}"
        run(sagemaker, job, small, by, bucket, f"s3://{kept}/in/", script, VpcConfig=place.config)
        return job

    shown = ec2.describe_vpc_endpoints(VpcEndpointIds=[place.endpoint])["VpcEndpoints"][0]["PolicyDocument"]
    assert json.loads(shown)["Statement"] in ([ALL], ALL), "control: full access"
    job = start("full")
    completed(sagemaker, job)
    assert reads(engine, bucket, job) == b"of another account"
    reason = failed(sagemaker, start("other", vpc_role))
    assert "s3:ListBucket" in reason or "s3:GetObject" in reason, reason
    try:
        statement(engine, ec2, place, ALL | {"Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]})
        reason = failed(sagemaker, start("narrow"))
        assert "no VPC endpoint policy allows" in reason, reason
    finally:
        statement(engine, ec2, place, ALL)


def test_package_repositories_are_open_by_default_and_shut_by_policy_and_s3_sees_where_a_request_is_from(
    engine, ec2, sagemaker, image, vpc_role, bucket, uri, place, name
):
    """
    The same program without a VPC is the control of both.
    Proves: VPC-2, VPC-22, VPC-23, NET-34, D-18
    """
    s3, key = engine.client("s3"), f"proofs/{name}"
    shut = ["packages.us-east-1.amazonaws.com", "repo.eu-west-1.amazonaws.com", "amazonlinux.us-west-2.amazonaws.com"]
    buckets = [*shut, f"mydata-{name}"[-60:]]
    for one in buckets:
        s3.create_bucket(Bucket=one)
        s3.put_object(Bucket=one, Key=key, Body=b"by the endpoint")
    # The legacy name with a dash, path style, plain HTTP, as the package tools of these distributions ask.
    urls = {one: presigned(engine, one, f"s3-{REGION}.amazonaws.com", True, key=key) for one in buckets}
    program = f"""{FETCH}
urls = {urls!r}
seen = None
while True:
    now = [fetch(url) == "by the endpoint" for url in urls.values()]
    if now != seen:
        print("READS", now, flush=True)
    seen = now
    time.sleep(0.2)
"""
    jobs = (f"{name}-in", f"{name}-out")
    for job, members in zip(jobs, ({"VpcConfig": place.config}, {})):
        play(engine, sagemaker, job, image, vpc_role, bucket, uri, program, "/usr/bin/python3", **members)
    for job in jobs:
        eventually(lambda job=job: lines(engine, job, "READS") == [f"READS {[True] * 4}"], timeout=90)
    own = place.of(jobs[0])["Container"]["PrivateIpAddress"]
    found = [event for event, _ in events(engine, eventName="GetObject") if event["requestParameters"].get("key") == key]
    ways = {(event["sourceIPAddress"], event.get("vpcEndpointId")) for event in found}
    inside = {way for way in ways if way[1]}
    assert inside == {(own, place.endpoint)}, ways
    [(source, _)] = ways - inside
    assert source != own and not source.startswith("10."), "the platform's address, and nothing of a VPC"
    p2 = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": ["arn:aws:s3:::packages.*.amazonaws.com/*", "arn:aws:s3:::repo.*.amazonaws.com/*"]}
    p3 = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": ["arn:aws:s3:::amazonlinux.*.amazonaws.com/*"]}
    statement(engine, ec2, place, ALL, p2, p3)
    want = [f"READS {[True] * 4}", f"READS {[False] * 3 + [True]}"]
    eventually(lambda: lines(engine, jobs[0], "READS") == want, timeout=30)
    statement(engine, ec2, place, ALL)
    eventually(lambda: lines(engine, jobs[0], "READS")[-1] == want[0], timeout=30)
    assert lines(engine, jobs[1], "READS") == want[:1], "control: the policy is the endpoint's"
    for job in jobs:
        sagemaker.stop_training_job(TrainingJobName=job)
        finished(sagemaker, job)


def test_groups_and_routes_bind_models_and_isolation_shuts_them_in(
    engine, ec2, sagemaker, server, small, vpc_role, bucket, uri, place, name  # noqa: F811
):
    """
    One image three times: where group and routes open everything, where another group and another subnet open nothing, and
    isolated where everything is open. Hosted and in transform jobs, each asks, and each is asked at its port.
    Proves: NI-5, NI-21, BT-5, NET-12
    """
    asked = [f"ask {place.address}:9000", f"out {WEB}"]
    kinds = {
        "open": {"VpcConfig": place.config}, "shut": {"VpcConfig": {"Subnets": [place.public], "SecurityGroupIds": [place.servers]}},
        "sealed": {"VpcConfig": place.config, "EnableNetworkIsolation": True},
    }
    short, arns = name[-40:].strip("-"), {}
    for kind, members in kinds.items():
        one = f"{short}-{kind}"
        transform.model(sagemaker, one, server, vpc_role, **members)
        variant = {"VariantName": "v", "ModelName": one, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=one, ProductionVariants=[variant])
        arns["endpoint", kind] = sagemaker.create_endpoint(EndpointName=one, EndpointConfigName=one)["EndpointArn"]
        if kind != "shut":
            transform.Data(engine, bucket, one).put("a.csv", "".join(f"{line}\n" for line in [*asked, "wait"]))
            arns["job", kind] = sagemaker.create_transform_job(**transform.request(one, bucket))["TransformJobArn"]
    runtime = engine.client("sagemaker-runtime")

    def invoke(kind, body):
        return runtime.invoke_endpoint(EndpointName=f"{short}-{kind}", Body=body)["Body"].read().decode()

    for kind in kinds:
        ready = settled(sagemaker, f"{short}-{kind}")
        assert ready["EndpointStatus"] == "InService", ready.get("FailureReason")
        assert invoke(kind, "x") == "X", "the platform's own requests work"
        told = [invoke(kind, line).split()[0] for line in asked]
        assert told == ["reached" if kind == "open" else "closed"] * 2, (kind, told)
    for kind in ("open", "sealed"):
        def answers():
            # Askers that hang up once they know the status make Python complain; that is not looked at.
            logs = transform.streams(engine, f"{short}-{kind}")  # noqa: B023
            told = [line for lines in logs.values() for line in lines if line in ("reached", "closed")]
            return told if len(told) == 2 else None

        assert eventually(answers, timeout=90) == ["reached" if kind == "open" else "closed"] * 2, kind
    of_vpc = ec2.describe_network_interfaces(Filters=[{"Name": "vpc-id", "Values": [place.vpc]}])["NetworkInterfaces"]
    addresses = {}
    for what, arn in arns.items():
        [held] = [one for one in of_vpc if arn in one["Description"] and "] Container" in one["Description"]]
        assert held["RequesterManaged"] and held["InterfaceType"] == "interface"
        addresses[what] = held["PrivateIpAddress"]
    dials = "; ".join(
        f"if nc -w 3 {address} 8080 -e /bin/true 2>/dev/null; then echo PORT {what} {kind} reached; else echo PORT {what} {kind} cut; fi"
        for (what, kind), address in addresses.items())
    play(engine, sagemaker, name, small, vpc_role, bucket, uri, dials, VpcConfig=place.config)
    completed(sagemaker, name)
    want = {f"PORT {what} {kind} {'reached' if kind == 'open' else 'cut'}" for what, kind in arns}
    assert set(eventually(lambda: len(found := lines(engine, name, "PORT")) == len(arns) and found)) == want
    for what, kind in arns:
        if what == "job":
            sagemaker.stop_transform_job(TransformJobName=f"{short}-{kind}")
            assert transform.ended(sagemaker, f"{short}-{kind}")["TransformJobStatus"] == "Stopped"
        else:
            sagemaker.delete_endpoint(EndpointName=f"{short}-{kind}")
            gone(sagemaker, f"{short}-{kind}")
    tried = {(one["address"], one["port"]) for one in engine.attempts(f"{short}-sealed")}
    assert tried >= {(place.address, 9000), (WEB, 80)}, tried


def test_each_definition_of_a_tuning_job_is_bound_by_its_own_groups_and_routes(
    engine, sagemaker, tuned, vpc_role, bucket, place, name  # noqa: F811
):
    """
    Proves: NI-5, VPC-33
    """
    short = name[-32:].strip("-")
    shut = {"Subnets": [place.public], "SecurityGroupIds": [place.servers]}
    own = {
        "TuningObjective": {"Type": "Minimize", "MetricName": "loss"}, "EnableNetworkIsolation": False,
        "StaticHyperParameters": {"server": place.address, "web": WEB},
        "HyperParameterRanges": {"IntegerParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "10"}]},
    }
    several = [
        tuning.definition(tuned, vpc_role, bucket, DefinitionName=kind, VpcConfig=config, **own)
        for kind, config in (("open", place.config), ("shut", shut))]
    config = tuning.configuration("Random", jobs=2)
    del config["HyperParameterTuningJobObjective"], config["ParameterRanges"]
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=short, HyperParameterTuningJobConfig=config, TrainingJobDefinitions=several)
    tuning.ended(sagemaker, short)
    seen = {row["TrainingJobDefinitionName"]: row["TrainingJobName"] for row in tuning.children(sagemaker, short)}
    assert set(seen) == {"open", "shut"}
    for kind, word in (("open", "reached"), ("shut", "cut")):
        told = [line for line in tuning.log(engine, seen[kind]) if line.startswith(("server ", "web "))]
        assert told == [f"server {word}", f"web {word}"], (kind, told)
