"""Training jobs and endpoints in a VPC: boto3 against the real engine, packets through the real kernel.

What a container sees is told by the container itself, through its log, which needs no way out.
"""
import ctypes
import json
import socket
import threading

import pytest

from tests.harness.engine import DNS, REGION, WEB
from tests.harness.jobs import eventually, finished, gone, settled, training_request, with_program

SM_64 = (
    "ClientError: Data download failed:Please ensure that the subnet's route table has a route to an S3 VPC endpoint or a NAT "
    "device, and both the security groups and the subnet's network ACL allow outbound traffic to S3."
)
# Says how the container is attached, in words that are easy to compare.
LOOK = "busybox ip -o -4 addr; busybox ip route; cat /etc/resolv.conf; echo SEEN"


@pytest.fixture(scope="module")
def data(engine, bucket):
    engine.client("s3").put_object(Bucket=bucket, Key="vpc/data/a.txt", Body=b"from the bucket")
    return f"s3://{bucket}/vpc/data/"


class Network:
    """A VPC with one subnet, a group without ingress, and, if wanted, a gateway endpoint for S3."""

    def __init__(self, ec2, block="10.20.0.0/16", subnet="10.20.1.0/24", endpoint=True):
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock=block)["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock=subnet)["Subnet"]["SubnetId"]
        group = ec2.create_security_group(VpcId=self.vpc, GroupName="jobs", Description="jobs")
        self.group = group["GroupId"]
        of_vpc = [{"Name": "vpc-id", "Values": [self.vpc]}]
        self.table = ec2.describe_route_tables(Filters=of_vpc)["RouteTables"][0]["RouteTableId"]
        self.endpoint = self.add_endpoint() if endpoint else None

    def add_endpoint(self, **more):
        made = self.ec2.create_vpc_endpoint(
            VpcId=self.vpc, ServiceName=f"com.amazonaws.{REGION}.s3", RouteTableIds=[self.table], **more)
        return made["VpcEndpoint"]["VpcEndpointId"]

    @property
    def config(self):
        return {"Subnets": [self.subnet], "SecurityGroupIds": [self.group]}

    def free(self):
        return self.ec2.describe_subnets(SubnetIds=[self.subnet])["Subnets"][0]["AvailableIpAddressCount"]

    def interfaces(self):
        of_subnet = [{"Name": "subnet-id", "Values": [self.subnet]}]
        return self.ec2.describe_network_interfaces(Filters=of_subnet)["NetworkInterfaces"]

    def job_interface(self):
        """The container's interface of the one job."""
        found = [one for one in self.interfaces() if one["Description"].startswith("[Do not delete] Container")]
        assert len(found) == 1, found
        return found[0]

    def remove(self):
        eventually(lambda: not [one for one in self.interfaces() if one.get("RequesterManaged")], timeout=60)
        if self.endpoint:
            self.ec2.delete_vpc_endpoints(VpcEndpointIds=[self.endpoint])
        self.ec2.delete_security_group(GroupId=self.group)
        self.ec2.delete_subnet(SubnetId=self.subnet)
        self.ec2.delete_vpc(VpcId=self.vpc)


@pytest.fixture
def network(ec2):
    made = Network(ec2)
    yield made
    made.remove()


@pytest.fixture
def closed(ec2):
    """A VPC without a way to S3."""
    made = Network(ec2, endpoint=False)
    yield made
    made.remove()


class Uplink:
    """Sees every IPv4 packet that comes out of the engine by its uplink, in the namespace that stands for the internet."""

    NAMES = {1: "icmp", 6: "tcp", 17: "udp"}

    def __init__(self, engine):
        made = []

        def make():
            with open(engine.internet.path) as space:
                if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), 0x4000_0000):
                    raise OSError(ctypes.get_errno(), "cannot enter the internet")
            made.append(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(0x0800)))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        [self.socket] = made
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def frames(self):
        """What came since the last call: protocol, destination, port."""
        found = []
        while True:
            try:
                packet, (link, _, kind, *_) = self.socket.recvfrom(65536)
            except BlockingIOError:
                return found
            if link == "lo" or kind == socket.PACKET_OUTGOING:
                continue
            begin = 4 * (packet[0] & 15)
            port = int.from_bytes(packet[begin + 2:begin + 4], "big") if packet[9] in (6, 17) else None
            found.append((self.NAMES.get(packet[9], packet[9]), socket.inet_ntoa(packet[16:20]), port))


def run(sagemaker, name, image, role, bucket, uri, script=None, **members):
    """Starts a job that runs a shell script, or the image's own program; without a URI it has no input."""
    request = training_request(name, image, role, bucket, uri or "s3://none/", isolated=members.pop("isolated", False))
    request["HyperParameters"] = members.pop("hyper", {})
    if uri is None:
        del request["InputDataConfig"]
    if script:
        request["AlgorithmSpecification"]["ContainerEntrypoint"] = ["/bin/sh", "-c", script]
    sagemaker.create_training_job(**request | members)


def said(engine, name):
    """Lines of a job's log."""
    logs = engine.client("logs")
    try:
        found = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/")
    except logs.exceptions.ResourceNotFoundException:
        return []
    return [event["message"] for event in found["events"]]


def completed(sagemaker, name):
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    return done


def failed(sagemaker, name):
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Failed", done
    return done["FailureReason"]


def reads(engine, bucket, name):
    """What the small image copied from its input into the model."""
    import io
    import tarfile

    body = engine.client("s3").get_object(Bucket=bucket, Key=f"jobs/{name}/output/model.tar.gz")["Body"].read()
    return tarfile.open(fileobj=io.BytesIO(body)).extractfile("seen").read()


def test_without_a_vpc_config_no_interface_appears(engine, ec2, sagemaker, small, vpc_role, bucket, data, name):
    """
    Proves: VPC-1
    """
    before = ec2.describe_network_interfaces()["NetworkInterfaces"]
    run(sagemaker, name, small, vpc_role, bucket, data, f"{LOOK}; sleep 2")
    eventually(lambda: "SEEN" in said(engine, name), timeout=60)
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == before
    assert any("100.64." in line for line in said(engine, name)), "control: it has an interface of the platform's"
    assert "VpcConfig" not in completed(sagemaker, name)


def test_a_job_has_two_interfaces_in_its_subnet_while_it_runs(engine, ec2, sagemaker, small, vpc_role, bucket, data, network, name):
    """
    Proves: VPC-3, VPC-4, VPC-5, VPC-10, VPC-32, NET-4, NET-11, NET-66, NET-67, NET-69, CC-86, D-16
    """
    free = network.free()
    # D-16: both addresses in the subnet that has the most of them.
    tiny = ec2.create_subnet(VpcId=network.vpc, CidrBlock="10.20.2.0/28")["Subnet"]["SubnetId"]
    config = {"Subnets": [tiny, network.subnet], "SecurityGroupIds": [network.group]}
    six = "echo IPV6 $(cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6) $(busybox ip -6 -o addr | busybox grep -v ' lo ')"
    run(sagemaker, name, small, vpc_role, bucket, data, f"{six}; {LOOK}; sleep 3", VpcConfig=config)
    eventually(lambda: "SEEN" in said(engine, name), timeout=60)
    assert said(engine, name)[0].strip() == "IPV6 1"
    assert network.free() == free - 2
    held = network.interfaces()
    arn = sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobArn"]
    assert len(held) == 2
    for one in held:
        assert [group["GroupId"] for group in one["Groups"]] == [network.group]
        assert one["RequesterManaged"] and one["RequesterId"] and one["Status"] == "in-use"
        assert one["InterfaceType"] == "interface" and arn in one["Description"]
        assert "Association" not in one, "D-15: never a public address"
        with pytest.raises(ec2.exceptions.ClientError) as refused:
            ec2.delete_network_interface(NetworkInterfaceId=one["NetworkInterfaceId"])
        assert refused.value.response["Error"]["Code"] == "OperationNotPermitted"
    with pytest.raises(ec2.exceptions.ClientError) as refused:
        ec2.delete_subnet(SubnetId=network.subnet)
    assert refused.value.response["Error"]["Code"] == "DependencyViolation"
    own = network.job_interface()["PrivateIpAddress"]
    lines = said(engine, name)
    addresses = [line for line in lines if " inet " in line and " lo " not in line]
    assert len(addresses) == 1 and f" {own}/" in addresses[0], addresses
    routes = [line for line in lines if " dev " in line]
    assert any(line.startswith("default") for line in routes) and all(" dev eth0" in line for line in routes), routes
    assert "nameserver 10.20.0.2" in lines
    done = completed(sagemaker, name)
    assert done["VpcConfig"] == config
    eventually(lambda: network.interfaces() == [], timeout=60)
    assert network.free() == free
    ec2.delete_subnet(SubnetId=tiny)


@pytest.mark.parametrize("end", ["Failed", "Stopped"])
def test_the_interfaces_go_in_every_end_state(engine, sagemaker, small, vpc_role, bucket, data, network, name, end):
    """
    Proves: VPC-32
    """
    script = f"{LOOK}; exit 3" if end == "Failed" else f"{LOOK}; sleep 300"
    run(sagemaker, name, small, vpc_role, bucket, data, script, VpcConfig=network.config)
    if end == "Stopped":
        eventually(lambda: "SEEN" in said(engine, name), timeout=60)
        assert len(network.interfaces()) == 2, "control"
        sagemaker.stop_training_job(TrainingJobName=name)
    assert finished(sagemaker, name)["TrainingJobStatus"] == end
    eventually(lambda: network.interfaces() == [], timeout=60)


def test_without_a_way_to_s3_the_job_fails_and_an_endpoint_makes_it_succeed(engine, sagemaker, small, vpc_role, bucket, data, closed, name):
    """
    Proves: VPC-12, VPC-13, SM-64
    """
    run(sagemaker, f"{name}-a", small, vpc_role, bucket, data, VpcConfig=closed.config)
    reason = failed(sagemaker, f"{name}-a")
    assert reason.startswith(SM_64) and f"the route table {closed.table} has no route to" in reason, reason
    closed.endpoint = closed.add_endpoint()
    run(sagemaker, f"{name}-b", small, vpc_role, bucket, data, VpcConfig=closed.config)
    completed(sagemaker, f"{name}-b")
    assert reads(engine, bucket, f"{name}-b") == b"from the bucket"


def test_the_setting_that_keeps_s3_away_is_named(ec2, sagemaker, small, vpc_role, bucket, data, network, name):
    """
    Proves: SM-64, NET-37
    """
    every = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.revoke_security_group_egress(GroupId=network.group, IpPermissions=every)
    run(sagemaker, f"{name}-a", small, vpc_role, bucket, data, VpcConfig=network.config)
    reason = failed(sagemaker, f"{name}-a")
    assert reason.startswith(SM_64) and f"no egress rule of {network.group} allows it" in reason, reason
    lists = ec2.describe_prefix_lists()["PrefixLists"]
    web = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}
    ec2.authorize_security_group_egress(
        GroupId=network.group, IpPermissions=[web | {"PrefixListIds": [{"PrefixListId": lists[0]["PrefixListId"]}]}])
    run(sagemaker, f"{name}-b", small, vpc_role, bucket, data, VpcConfig=network.config)
    completed(sagemaker, f"{name}-b")


def test_an_endpoint_policy_that_denies_is_named(engine, ec2, sagemaker, small, vpc_role, bucket, data, closed, name):
    """
    Proves: NET-35, IAM-32
    """
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:ListBucket", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    closed.endpoint = closed.add_endpoint(PolicyDocument=json.dumps(policy))
    run(sagemaker, f"{name}-a", small, vpc_role, bucket, data, VpcConfig=closed.config)
    reason = failed(sagemaker, f"{name}-a")
    assert "s3:GetObject" in reason and "VPC endpoint policy" in reason, reason
    statement["Action"] = "s3:*"
    ec2.modify_vpc_endpoint(VpcEndpointId=closed.endpoint, PolicyDocument=json.dumps(policy))
    run(sagemaker, f"{name}-b", small, vpc_role, bucket, data, VpcConfig=closed.config)
    completed(sagemaker, f"{name}-b")


def test_too_few_addresses_fail_the_job_and_not_its_creation(ec2, sagemaker, small, vpc_role, bucket, data, name):
    """
    Proves: VPC-11, NET-65, D-17
    """
    small_net = Network(ec2, subnet="10.20.1.0/28")
    try:
        taken = [
            ec2.create_network_interface(SubnetId=small_net.subnet)["NetworkInterface"]["NetworkInterfaceId"] for _ in range(10)]
        assert small_net.free() == 1
        run(sagemaker, f"{name}-a", small, vpc_role, bucket, data, VpcConfig=small_net.config)
        reason = failed(sagemaker, f"{name}-a")
        assert reason.startswith("ClientError: ") and "enough free addresses" in reason and small_net.subnet in reason, reason
        assert small_net.free() == 1, "nothing is half taken"
        ec2.delete_network_interface(NetworkInterfaceId=taken.pop())
        run(sagemaker, f"{name}-b", small, vpc_role, bucket, data, VpcConfig=small_net.config)
        completed(sagemaker, f"{name}-b")
        ec2.delete_network_interface(NetworkInterfaceId=taken.pop())
        eventually(lambda: small_net.free() == 3)
        two = {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}}
        run(sagemaker, f"{name}-c", small, vpc_role, bucket, data, VpcConfig=small_net.config, **two)
        reason = failed(sagemaker, f"{name}-c")
        assert "enough free addresses" in reason, reason
        eventually(lambda: small_net.free() == 3)
        ec2.delete_network_interface(NetworkInterfaceId=taken.pop())
        run(sagemaker, f"{name}-d", small, vpc_role, bucket, data, VpcConfig=small_net.config, **two)
        completed(sagemaker, f"{name}-d")
    finally:
        for one in taken:
            ec2.delete_network_interface(NetworkInterfaceId=one)
        small_net.remove()


def test_a_route_to_the_internet_gateway_serves_no_job(engine, ec2, sagemaker, small, vpc_role, bucket, data, network, name):
    """
    Proves: VPC-6, VPC-8, VPC-35, D-15
    """
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=network.vpc)
    ec2.create_route(RouteTableId=network.table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    side = f"side-{name}.example"
    # By TCP to ports that are served and one that is not, by UDP, ICMP, and by names; the VPC's own resolver may ask.
    tries = f"""for port in 443 1234; do nc -w 1 {WEB} $port </dev/null >/dev/null 2>&1; done
busybox ping -c 1 -W 1 {WEB} >/dev/null 2>&1
busybox nslookup {side} {DNS} >/dev/null 2>&1
busybox nslookup asked-{name}.example 10.20.0.2 >/dev/null 2>&1
echo GET / | nc -w 3 {WEB} 80 2>/dev/null | grep -q hello && echo REACHED || echo CUT"""

    def start(case, **members):
        request = training_request(f"{name}-{case}", small, vpc_role, bucket, data, isolated=False, HyperParameters={}, **members)
        sagemaker.create_training_job(**with_program(engine, bucket, request, tries, "/bin/sh"))

    try:
        before = len(engine.internet.arrivals())
        with Uplink(engine) as uplink:
            start("a", VpcConfig=network.config)
            completed(sagemaker, f"{name}-a")
            assert eventually(lambda: said(engine, f"{name}-a"))[-1] == "CUT"
            passed = uplink.frames()
            assert {one for one in passed if one != ("udp", DNS, 53)} == set(), "nothing but the resolver's own questions"
            arrived = engine.internet.arrivals()[before:]
            assert {one["name"] for one in arrived} <= {f"asked-{name}.example"}, arrived
            start("b")
            completed(sagemaker, f"{name}-b")
            assert eventually(lambda: said(engine, f"{name}-b"))[-1] == "REACHED", "control: the way exists for others"
            passed = set(uplink.frames())
            want = {("tcp", WEB, 80), ("tcp", WEB, 443), ("tcp", WEB, 1234), ("udp", DNS, 53)}
            assert want <= passed, passed
            assert side in {one.get("name") for one in engine.internet.arrivals()[before:]}
    finally:
        ec2.delete_route(RouteTableId=network.table, DestinationCidrBlock="0.0.0.0/0")
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=network.vpc)
        ec2.delete_internet_gateway(InternetGatewayId=gateway)


def test_groups_of_both_sides_decide_what_a_job_reaches_in_the_vpc(engine, ec2, sagemaker, small, vpc_role, bucket, network, name):
    """
    A job that serves, and jobs that ask it; one outside of the VPC reaches nothing.
    Proves: VPC-7, NI-25
    """
    rule = [{"IpProtocol": "tcp", "FromPort": 9000, "ToPort": 9000, "UserIdGroupPairs": [{"GroupId": network.group}]}]
    ec2.authorize_security_group_ingress(GroupId=network.group, IpPermissions=rule)
    server = "echo SEEN; while true; do echo served | nc -l -p 9000; done"
    run(sagemaker, f"{name}-server", small, vpc_role, bucket, None, server, VpcConfig=network.config)
    eventually(lambda: "SEEN" in said(engine, f"{name}-server"), timeout=60)
    address = network.job_interface()["PrivateIpAddress"]
    ask = f"nc -w 3 {address} 9000 </dev/null 2>/dev/null | grep served || echo CUT"
    told = {}
    for case, members in (("allowed", {"VpcConfig": network.config}), ("outside", {})):
        run(sagemaker, f"{name}-{case}", small, vpc_role, bucket, None, ask, **members)
        completed(sagemaker, f"{name}-{case}")
        told[case] = eventually(lambda case=case: said(engine, f"{name}-{case}"))[-1]
    ec2.revoke_security_group_ingress(GroupId=network.group, IpPermissions=rule)
    run(sagemaker, f"{name}-revoked", small, vpc_role, bucket, None, ask, VpcConfig=network.config)
    completed(sagemaker, f"{name}-revoked")
    told["revoked"] = eventually(lambda: said(engine, f"{name}-revoked"))[-1]
    sagemaker.stop_training_job(TrainingJobName=f"{name}-server")
    finished(sagemaker, f"{name}-server")
    assert told == {"allowed": "served", "outside": "CUT", "revoked": "CUT"}


def test_isolation_and_a_vpc_combine(engine, sagemaker, small, vpc_role, bucket, data, network, name):
    """
    Data travels through the subnet, and the container has loopback alone.
    Proves: NI-17, NI-18, NET-69
    """
    free = network.free()
    look = "cat /opt/ml/input/data/train/a.txt > /opt/ml/model/seen; busybox ip -o -4 addr; busybox ip route; echo SEEN; sleep 3"
    run(sagemaker, name, small, vpc_role, bucket, data, look, isolated=True, VpcConfig=network.config)
    eventually(lambda: "SEEN" in said(engine, name), timeout=60)
    assert network.free() == free - 2, "the container's address is reserved too"
    done = completed(sagemaker, name)
    assert done["EnableNetworkIsolation"] is True and done["VpcConfig"] == network.config
    assert reads(engine, bucket, name) == b"from the bucket"
    lines = said(engine, name)
    assert [line for line in lines if " inet " in line and " lo " not in line] == [], lines
    assert not any("10.20." in line for line in lines)
    eventually(lambda: network.interfaces() == [], timeout=60)


def test_without_a_way_to_s3_an_isolated_job_fails_too(engine, sagemaker, small, vpc_role, bucket, data, closed, name):
    """
    Proves: NI-18
    """
    run(sagemaker, f"{name}-a", small, vpc_role, bucket, data, isolated=True, VpcConfig=closed.config)
    assert failed(sagemaker, f"{name}-a").startswith(SM_64)
    run(sagemaker, f"{name}-b", small, vpc_role, bucket, data, isolated=True)
    completed(sagemaker, f"{name}-b")


def test_names_resolve_by_the_vpcs_settings(engine, ec2, sagemaker, small, vpc_role, bucket, data, network, name):
    """
    Proves: VPC-21, NET-50
    """
    ec2.modify_vpc_attribute(VpcId=network.vpc, EnableDnsSupport={"Value": False})
    run(sagemaker, f"{name}-a", small, vpc_role, bucket, data, VpcConfig=network.config)
    reason = failed(sagemaker, f"{name}-a")
    assert reason.startswith(SM_64) and "enableDnsSupport is false" in reason, reason
    ec2.modify_vpc_attribute(VpcId=network.vpc, EnableDnsSupport={"Value": True})
    run(sagemaker, f"{name}-b", small, vpc_role, bucket, data, VpcConfig=network.config)
    completed(sagemaker, f"{name}-b")


def test_the_containers_own_requests_use_the_gateway_endpoint(engine, sagemaker, image, vpc_role, network, name):
    """
    A bucket whose objects everybody may read through this endpoint alone.
    Proves: VPC-14, NET-34
    """
    s3 = engine.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="open.txt", Body=b"through the endpoint")
    through = {"StringEquals": {"aws:SourceVpce": network.endpoint, "aws:SourceVpc": network.vpc}}
    s3.delete_public_access_block(Bucket=name)
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*", "Condition": through}
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    address = f"http://s3.{REGION}.amazonaws.com/{name}/open.txt"
    fetch = f"python3 -c 'import urllib.request as u; print(u.urlopen(\"{address}\").read().decode())' 2>/dev/null || echo CUT"
    run(sagemaker, f"{name}-a", image, vpc_role, name, None, fetch, VpcConfig=network.config)
    completed(sagemaker, f"{name}-a")
    assert eventually(lambda: said(engine, f"{name}-a"))[-1] == "through the endpoint"
    run(sagemaker, f"{name}-b", image, vpc_role, name, None, fetch)
    completed(sagemaker, f"{name}-b")
    assert eventually(lambda: said(engine, f"{name}-b"))[-1] == "CUT", "control: not from elsewhere"


def test_unknown_and_foreign_parts_are_refused(ec2, sagemaker, small, vpc_role, bucket, data, network, name):
    """
    Proves: NET-60, NET-62, NET-63
    """
    other = Network(ec2, block="10.30.0.0/16", subnet="10.30.1.0/24", endpoint=False)
    no_subnet, no_group = "subnet-0123456789abcdef0", "sg-0123456789abcdef0"
    cases = [
        ({"Subnets": [no_subnet], "SecurityGroupIds": [network.group]}, f"The subnet ID '{no_subnet}' does not exist"),
        ({"Subnets": [network.subnet], "SecurityGroupIds": [no_group]}, f"The security group '{no_group}' does not exist"),
        ({"Subnets": [network.subnet, other.subnet], "SecurityGroupIds": [network.group]}, other.vpc),
        ({"Subnets": [network.subnet], "SecurityGroupIds": [other.group]}, "different networks"),
    ]
    try:
        for config, text in cases:
            with pytest.raises(sagemaker.exceptions.ClientError) as refused:
                run(sagemaker, name, small, vpc_role, bucket, data, VpcConfig=config)
            error = refused.value.response["Error"]
            assert error["Code"] == "ValidationException" and text in error["Message"], error
            with pytest.raises(sagemaker.exceptions.ClientError) as refused:
                sagemaker.create_model(
                    ModelName=name, PrimaryContainer={"Image": small}, ExecutionRoleArn=vpc_role, VpcConfig=config)
            assert text in refused.value.response["Error"]["Message"]
        run(sagemaker, name, small, vpc_role, bucket, data, VpcConfig=network.config)
        completed(sagemaker, name)
    finally:
        other.remove()


def test_an_endpoint_holds_its_interfaces_as_long_as_its_instances(engine, ec2, sagemaker, small, vpc_role, network, name):
    """
    The runtime's requests do not come through the VPC: the group has no ingress rule.
    Proves: NET-66, NET-67, NET-71
    """
    free = network.free()
    sagemaker.create_model(
        ModelName=name, PrimaryContainer={"Image": small}, ExecutionRoleArn=vpc_role, VpcConfig=network.config)
    assert sagemaker.describe_model(ModelName=name)["VpcConfig"] == network.config
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    ready = settled(sagemaker, name)
    assert ready["EndpointStatus"] == "InService", ready.get("FailureReason")
    assert network.free() == free - 4
    answer = engine.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=b"x")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 1}])
    settled(sagemaker, name)
    eventually(lambda: network.free() == free - 2, timeout=60)
    sagemaker.delete_endpoint(EndpointName=name)
    gone(sagemaker, name)
    eventually(lambda: network.free() == free, timeout=60)


def test_model_data_comes_through_the_subnet(engine, sagemaker, image, trained, vpc_role, network, closed, name):
    """
    Proves: BT-12
    """
    data = trained["ModelArtifacts"]["S3ModelArtifacts"]
    for case, net in (("a", closed), ("b", network)):
        sagemaker.create_model(
            ModelName=f"{name}-{case}", PrimaryContainer={"Image": image, "ModelDataUrl": data}, ExecutionRoleArn=vpc_role,
            VpcConfig=net.config)
        variant = {"VariantName": "AllTraffic", "ModelName": f"{name}-{case}", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=f"{name}-{case}", ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=f"{name}-{case}", EndpointConfigName=f"{name}-{case}")
        ready = settled(sagemaker, f"{name}-{case}")
        if case == "a":
            assert ready["EndpointStatus"] == "Failed" and "route to an S3 VPC endpoint" in ready["FailureReason"], ready
        else:
            assert ready["EndpointStatus"] == "InService", ready.get("FailureReason")
        sagemaker.delete_endpoint(EndpointName=f"{name}-{case}")
        gone(sagemaker, f"{name}-{case}")
