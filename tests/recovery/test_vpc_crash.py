"""kill -9 while VPCs change and jobs start in them: no interface, address, rule, namespace or listener is left over.

VPC_CRASHES and SEED choose how often and where; a failure prints its seed.
"""
import json
import os
import random
import sys
import time
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
    with Engine(os.environ["ISOLARIUM_BINARY"], SETTINGS, internet=False) as running:
        yield running
        if request.session.testsfailed:
            print(f"\nseed {SEED}; the end of the engine's log:\n{running.tail(60)}")


class Load(Work):
    """Jobs that start in a VPC, and changes of its group's rules, through the crashes."""

    def __init__(self, engine, image, role, vpc, subnets, group):
        self.engine, self.image, self.role = engine, image, role
        self.vpc, self.subnets, self.group = vpc, subnets, group
        self.jobs, self.changes = [], 0
        super().__init__(self.train, self.change)

    def train(self, chance):
        sagemaker, index = self.engine.client("sagemaker"), 0
        config = {"Subnets": self.subnets, "SecurityGroupIds": [self.group]}
        while not self.stop.is_set():
            name, index = f"vpc-crash-{index}", index + 1
            request = training_request(
                name, self.image, self.role, BUCKET, f"s3://{BUCKET}/input/", chance.random() < 0.5,
                HyperParameters={"seconds": f"{chance.choice((0, 0.3)):.1f}"}, VpcConfig=config)
            try:
                sagemaker.create_training_job(**request)
                self.jobs.append(name)
            except REFUSED:
                time.sleep(0.05)
            time.sleep(0.5)

    def change(self, chance):
        """Rules come and go; none of them concerns the way to S3."""
        ec2 = self.engine.client("ec2")
        while not self.stop.is_set():
            port = 9000 + chance.randrange(20)
            rule = [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]
            change = chance.choice((ec2.authorize_security_group_ingress, ec2.revoke_security_group_ingress))
            try:
                change(GroupId=self.group, IpPermissions=rule)
                self.changes += 1
            except REFUSED:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.2))


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
        vpc = ec2.create_vpc(CidrBlock="10.40.0.0/16")["Vpc"]["VpcId"]
        subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.40.{n}.0/24")["Subnet"]["SubnetId"] for n in (1, 2)]
        group = ec2.create_security_group(VpcId=vpc, GroupName="jobs", Description="jobs")["GroupId"]
        tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
        endpoint = ec2.create_vpc_endpoint(
            VpcId=vpc, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[tables[0]["RouteTableId"]])["VpcEndpoint"]["VpcEndpointId"]

        def free():
            return [one["AvailableIpAddressCount"] for one in ec2.describe_subnets(SubnetIds=subnets)["Subnets"]]

        assert free() == [251, 251]
        chance = random.Random(SEED)
        with Load(engine, image, role, vpc, subnets, group) as load:
            for _ in range(CRASHES):
                time.sleep(chance.uniform(0.05, 1.0))
                crash(engine, chance.choice(("serve", "node", "both")))
        print(f"\nseed {SEED}: {len(load.jobs)} jobs, {load.changes} changes of rules")
        assert load.broken == []
        assert len(load.jobs) > CRASHES // 4 and load.changes > CRASHES
        for job in load.jobs:
            done = finished(sagemaker, job)
            assert done["TrainingJobStatus"] == "Completed", (job, done.get("FailureReason"))
        eventually(lambda: ec2.describe_network_interfaces()["NetworkInterfaces"] == [], 90)
        assert free() == [251, 251]
        spaces = engine.data / "run" / "netns"
        assert any(vpc.removeprefix("vpc-") in one.name for one in spaces.iterdir()), "control: the router is where it is looked for"
        ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint])
        ec2.delete_security_group(GroupId=group)
        for subnet in subnets:
            ec2.delete_subnet(SubnetId=subnet)
        ec2.delete_vpc(VpcId=vpc)
        eventually(lambda: [one.name for one in spaces.iterdir()] == ["platform"], 30)
        try:
            eventually(lambda: not traces.left(), 30)
        except AssertionError:
            assert traces.left() == []
        engine.stop()
        engine.run("teardown")
        assert traces.left(running=False) == []
