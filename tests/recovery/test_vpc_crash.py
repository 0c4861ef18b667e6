"""kill -9 while VPCs change and jobs start in them: after each one the kernel equals the plan, and in the end no interface,
address, rule, namespace or listener is left over.

VPC_CRASHES and SEED choose how often and where; a failure prints its seed.
"""
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import REGION, Engine, execution_statements  # noqa: E402
from tests.harness.jobs import eventually, finished, training_request  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402
from tests.harness.traces import Traces  # noqa: E402
from tests.recovery.test_crash import REFUSED, SETTINGS, Work, crash  # noqa: E402

CRASHES = int(os.environ.get("VPC_CRASHES", "40"))
SEED = int(os.environ.get("SEED", "20260101"))
BUCKET = "vpc-crash"


@pytest.fixture(scope="module")
def engine(request):
    settings = SETTINGS | {"flow_logs.read": "300ms", "flow_logs.minute": "2s"}
    with Engine(os.environ["ISOLARIUM_BINARY"], settings, internet=False) as running:
        yield running
        if request.session.testsfailed:
            print(f"\nseed {SEED}; the end of the engine's log:\n{running.tail(60)}")


class Load(Work):
    """Jobs that start in a VPC, and changes of everything around it, through the crashes. None of the changes concerns the
    way to S3."""

    def __init__(self, engine, image, role, place):
        self.engine, self.image, self.role, self.place = engine, image, role, place
        self.jobs, self.changes, self.several = [], Counter(), 0
        self.pause = threading.Event()
        super().__init__(self.train, self.change)

    def train(self, chance):
        sagemaker, index = self.engine.client("sagemaker"), 0
        config = {"Subnets": self.place.subnets, "SecurityGroupIds": [self.place.group]}
        while not self.stop.is_set():
            if self.pause.is_set():
                time.sleep(0.02)
                continue
            name, index = f"vpc-crash-{index}", index + 1
            isolated = chance.random() < 0.5
            request = training_request(
                name, self.image, self.role, BUCKET, f"s3://{BUCKET}/input/", isolated,
                HyperParameters={"seconds": f"{chance.choice((0, 0.3)):.1f}"}, VpcConfig=config)
            # Isolated containers of one job have a network of their own.
            several = isolated and chance.random() < 0.34
            if several:
                request["ResourceConfig"]["InstanceCount"] = 2
            try:
                sagemaker.create_training_job(**request)
                self.jobs.append(name)
                self.several += several
            except REFUSED:
                time.sleep(0.05)
            time.sleep(0.5)

    def change(self, chance):
        ec2 = self.engine.client("ec2")
        kinds = (self.rule, self.rule, self.route, self.entry, self.policy, self.gateway, self.names)
        while not self.stop.is_set():
            if self.pause.is_set():
                time.sleep(0.02)
                continue
            kind = chance.choice(kinds)
            try:
                kind(ec2, chance)
                self.changes[kind.__name__] += 1
            except REFUSED:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.2))

    def rule(self, ec2, chance):
        port = 9000 + chance.randrange(20)
        rule = [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]
        change = chance.choice((ec2.authorize_security_group_ingress, ec2.revoke_security_group_ingress))
        change(GroupId=self.place.group, IpPermissions=rule)

    def route(self, ec2, chance):
        """To the internet gateway and back: blocks that nothing else is in."""
        route = {"RouteTableId": self.place.table, "DestinationCidrBlock": f"192.0.2.{chance.randrange(4) * 64}/26"}
        if chance.random() < 0.5:
            ec2.create_route(GatewayId=self.place.internet, **route)
        else:
            ec2.delete_route(**route)

    def entry(self, ec2, chance):
        entry = {"NetworkAclId": self.place.acl, "RuleNumber": 200 + chance.randrange(10), "Egress": chance.random() < 0.5}
        if chance.random() < 0.5:
            ec2.create_network_acl_entry(Protocol="-1", RuleAction="deny", CidrBlock=f"192.0.2.{chance.randrange(256)}/32", **entry)
        else:
            ec2.delete_network_acl_entry(**entry)

    def policy(self, ec2, chance):
        allow = {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}
        deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::no-{chance.randrange(100)}"}
        ec2.modify_vpc_endpoint(VpcEndpointId=self.place.endpoint, PolicyDocument=json.dumps({"Statement": [allow, deny]}))

    def gateway(self, ec2, chance):
        """A NAT gateway comes or goes; until the next one the route leads nowhere."""
        held = self.place.gateways("pending", "available")
        if held:
            ec2.delete_nat_gateway(NatGatewayId=held[0])
            return
        made = ec2.create_nat_gateway(SubnetId=self.place.subnets[1], AllocationId=self.place.address)
        route = {"RouteTableId": self.place.table, "DestinationCidrBlock": "198.51.100.0/24", "NatGatewayId": made["NatGateway"]["NatGatewayId"]}
        try:
            ec2.create_route(**route)
        except ec2.exceptions.ClientError:
            ec2.replace_route(**route)

    def names(self, ec2, chance):
        ec2.modify_vpc_attribute(VpcId=self.place.vpc, EnableDnsHostnames={"Value": chance.random() < 0.5})


def flow_log(engine, ec2, vpc):
    """A flow log of the VPC; returns a reader of (stream, line)."""
    iam, logs, group = engine.client("iam"), engine.client("logs"), "crash-flows"
    trust = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": {"Service": "vpc-flow-logs.amazonaws.com"}, "Action": "sts:AssumeRole"}}
    role = iam.create_role(RoleName=group, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    allow = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "logs:*", "Resource": "*"}}
    iam.put_role_policy(RoleName=group, PolicyName="p", PolicyDocument=json.dumps(allow))
    made = ec2.create_flow_logs(
        ResourceType="VPC", ResourceIds=[vpc], TrafficType="ALL", LogGroupName=group, DeliverLogsPermissionArn=role["Arn"],
        MaxAggregationInterval=60)
    assert not made.get("Unsuccessful"), made

    def read():
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        return [(event["logStreamName"], event["message"]) for page in pages for event in page["events"]]

    return read


class Place:
    """The VPC of the test."""

    def __init__(self, ec2):
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock="10.40.0.0/16")["Vpc"]["VpcId"]
        own = [{"Name": "vpc-id", "Values": [self.vpc]}]
        self.subnets = [ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.40.{n}.0/24")["Subnet"]["SubnetId"] for n in (1, 2)]
        self.group = ec2.create_security_group(VpcId=self.vpc, GroupName="jobs", Description="jobs")["GroupId"]
        self.table = ec2.describe_route_tables(Filters=own)["RouteTables"][0]["RouteTableId"]
        self.acl = ec2.describe_network_acls(Filters=own)["NetworkAcls"][0]["NetworkAclId"]
        self.internet = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=self.internet, VpcId=self.vpc)
        self.address = ec2.allocate_address(Domain="vpc")["AllocationId"]
        self.endpoint = ec2.create_vpc_endpoint(
            VpcId=self.vpc, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[self.table])["VpcEndpoint"]["VpcEndpointId"]

    def gateways(self, *states):
        found = self.ec2.describe_nat_gateways(Filters=[{"Name": "vpc-id", "Values": [self.vpc]}, {"Name": "state", "Values": list(states)}])
        return [one["NatGatewayId"] for one in found["NatGateways"]]

    def free(self):
        return [one["AvailableIpAddressCount"] for one in self.ec2.describe_subnets(SubnetIds=self.subnets)["Subnets"]]

    def remove(self):
        self.ec2.delete_vpc_endpoints(VpcEndpointIds=[self.endpoint])
        self.ec2.release_address(AllocationId=self.address)
        self.ec2.detach_internet_gateway(InternetGatewayId=self.internet, VpcId=self.vpc)
        self.ec2.delete_internet_gateway(InternetGatewayId=self.internet)
        self.ec2.delete_security_group(GroupId=self.group)
        for subnet in self.subnets:
            self.ec2.delete_subnet(SubnetId=subnet)
        self.ec2.delete_vpc(VpcId=self.vpc)


# The doors of a router: names, S3 and credentials.
DOORS = sorted([
    *(f"{transport} {address}:53" for transport in ("udp", "tcp") for address in ("10.40.0.2", "169.254.169.253")),
    "tcp 0.0.0.0:80", "tcp 0.0.0.0:443", "tcp 169.254.170.2:80",
])


def differs(engine, vpc):
    """What is not as the records say: the router, read back in full by the engine, and the listeners in it. Other routers
    and namespaces of interfaces that nobody has show as differences too. Networks of jobs' isolated containers come and go."""
    done = engine.run("doctor", "--vpcs", "--json", check=False)
    try:
        all = json.loads(done.stdout)
    except json.JSONDecodeError:
        return [done.stderr]
    found = [f"{one['vpc_id']}: {difference}" for one in all for difference in one["differences"]]
    if vpc not in [one["vpc_id"] for one in all]:
        return found + [f"VPCs: {all}"]
    listening = subprocess.run(
        ["nsenter", f"--net={engine.data}/run/netns/{vpc}", "ss", "-Hlntu"], check=True, capture_output=True, text=True).stdout
    doors = sorted(f"{line.split()[0]} {line.split()[4]}" for line in listening.splitlines())
    return found + ([f"listeners {doors}"] if doors != DOORS else [])


def test_a_killed_engine_leaves_no_trace_in_its_vpcs(engine, tmp_path):
    """Proves: NET-72
    """
    s3, ec2, sagemaker = engine.client("s3"), engine.client("ec2"), engine.client("sagemaker")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="input/a", Body=b"input data")
    with Traces(engine) as traces:
        allow = {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}
        role = engine.create_role("crash", [*execution_statements(BUCKET), allow])
        image = engine.pack_image(small_rootfs(tmp_path), "small:1")
        place = Place(ec2)
        assert place.free() == [251, 251]
        told = flow_log(engine, ec2, place.vpc)
        chance = random.Random(SEED)
        with Load(engine, image, role, place) as load:
            # The router comes with the first job.
            eventually(lambda: load.jobs and not differs(engine, place.vpc), 60)
            for _ in range(CRASHES):
                time.sleep(chance.uniform(0.05, 1.0))
                crash(engine, chance.choice(("serve", "node", "both")))
                load.pause.set()
                try:
                    eventually(lambda: not differs(engine, place.vpc), 60)
                except AssertionError:
                    assert differs(engine, place.vpc) == []
                load.pause.clear()
        print(f"\nseed {SEED}: {len(load.jobs)} jobs, {load.several} of two instances, changes: {dict(load.changes)}")
        assert load.broken == []
        assert len(load.jobs) > CRASHES // 4 and sum(load.changes.values()) > CRASHES and len(load.changes) == 6
        assert load.several or CRASHES < 40, "control: networks of jobs were there"
        for job in load.jobs:
            done = finished(sagemaker, job)
            assert done["TrainingJobStatus"] == "Completed", (job, done.get("FailureReason"))
        for gateway in place.gateways("pending", "available"):
            ec2.delete_nat_gateway(NatGatewayId=gateway)
        eventually(lambda: ec2.describe_network_interfaces()["NetworkInterfaces"] == [], 90)
        assert place.free() == [251, 251]
        eventually(lambda: not differs(engine, place.vpc), 60)
        assert [one["vpc_id"] for one in json.loads(engine.run("doctor", "--vpcs", "--json").stdout)] == [place.vpc], "no job's network"
        lines = Counter(told())
        assert any(line.endswith("ACCEPT OK") for _, line in lines), "control: flows were told"
        assert [one for one, times in lines.items() if times > 1] == [], "and none twice"
        spaces = engine.data / "run" / "netns"
        assert any(place.vpc.removeprefix("vpc-") in one.name for one in spaces.iterdir()), "control: the router is where it is looked for"
        router = ["nsenter", f"--net={spaces}/{place.vpc}"]

        def is_seen(*change):
            """Whether a change by hand shows. The engine may mend it first, when it brings the VPC in line for another reason."""
            subprocess.run([*router, *change], check=False, capture_output=True)
            return differs(engine, place.vpc)

        eventually(lambda: is_seen("ip", "addr", "add", "192.0.2.1/32", "dev", "lo"), 30)
        subprocess.run([*router, "ip", "addr", "del", "192.0.2.1/32", "dev", "lo"], check=False, capture_output=True)
        eventually(lambda: is_seen("nft", "flush", "ruleset"), 30)
        place.remove()
        eventually(lambda: [one.name for one in spaces.iterdir()] == ["platform"], 30)
        try:
            eventually(lambda: not traces.left(), 30)
        except AssertionError:
            assert traces.left() == []
        engine.stop()
        engine.run("teardown")
        assert traces.left(running=False) == []
