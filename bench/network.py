"""VPCs: what an interface and a rule cost in the kernel, what a changed rule takes through the API, what many VPCs cost.

The first part is crates/edge/dataplane/examples/vpc-bench.rs, which measures ours, a raw veth pair and podman's bridge network
in one process, pinned, one beside the other. The others run the real engine.
"""
import ctypes
import http.client
import json
import re
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from bench import names, wrk
from bench.bridge import Bridge
from bench.processes import containers, favour, memory_mib
from tests.harness.engine import Engine, execution_statements
from tests.harness.jobs import eventually, training_request
from tests.harness.small_image import small_rootfs

REPOSITORY = Path(__file__).resolve().parents[1]
BARE, VETH = "bare namespace + veth by netlink", "raw veth pair"
CLONE_NEWNET = 0x4000_0000
FIGURES = (("trip", "TCP round trip", "us", "<= 1.4"), ("connect", "TCP connect", "us", "<= 1.5"), ("rate", "TCP throughput", "B/s", ">= 0.8"))


def row(name, unit, ours, reference=None, reference_name=None, budget=None):
    return {"name": name, "unit": unit, "ours": ours, "reference": reference, "reference_name": reference_name, "budget": budget}


def run(binary, cache, quick):
    yield from kernel(quick)
    yield from changes(binary, quick)
    yield from many(binary, quick)


def kernel(quick):
    """Without the API: the host's own calls and packets."""
    build = ["cargo", "build", "--release", "--locked", "-q", "-p", "isolarium-dataplane", "--example", "vpc-bench"]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    with Bridge() as bridge:
        command = [REPOSITORY / "target/release/examples/vpc-bench", "--peer", bridge.client, bridge.server, bridge.address]
        done = subprocess.run([*command, *(["--quick"] if quick else [])], check=True, capture_output=True, text=True)
    found, peer = json.loads(done.stdout), bridge.name
    count = int(found["many"])
    for name, told in (("few", "VPC interface attach"), ("many", f"VPC interface attach, {count} attached")):
        yield row(told, "us", found[f"attach_{name}"], found[f"bare_{name}"], BARE, "<= 1.6")
    yield row("VPC interfaces attached a second, one after the other", "1/s", 1e6 / found["attach_few"])
    yield row("VPC interfaces detached a second, one after the other", "1/s", 1e6 / found["detach"])
    yield row(f"VPC intent with one more interface, {count} in it", "us", found["apply_interface_many"])
    for rules in (1, 100, 10_000):
        for name, told, unit, budget in FIGURES:
            ours = found[f"{name}_{rules}"]
            yield row(f"filtered {told}, {rules} rules", unit, ours, found[f"raw_{name}_{rules}"], VETH, budget if rules == 10_000 else None)
            yield row(f"filtered {told}, {rules} rules, against a bridge", unit, ours, found[f"peer_{name}_{rules}"], peer)
    for name, told, unit, _ in FIGURES:
        yield row(f"{told} while every flow is recorded, 100 rules", unit, found[f"flows_{name}"], found[f"no_flows_{name}"], "the same without flow logs")
    yield row("rule change to next packet, 10,000 rules, 200 interfaces", "us", found["rule_to_packet"])
    vpcs = int(found["vpcs"])
    yield row(f"rule change of one VPC, {vpcs} VPCs of 20 interfaces", "us", found["change_among_many"], found["change_alone"], "one VPC alone")
    yield row(f"VPC interfaces attached a second while {vpcs} VPCs of 20 fill", "1/s", 1e6 / found["fill"])
    yield row(f"an attached interface among {vpcs} VPCs of 20: memory of the machine", "KiB", found["memory"])


class Ec2:
    """EC2's Query API on a kept connection: the time is the engine's, not a client library's."""

    def __init__(self, engine):
        self.engine = engine
        self.connection = http.client.HTTPConnection(urlsplit(engine.url).netloc)

    def call(self, action, **parameters):
        """Sends one request; returns the answer's text."""
        names = {name.replace("__", "."): value for name, value in parameters.items()}
        body = urlencode({"Action": action, "Version": "2016-11-15", **names})
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        headers = wrk.signed(self.engine.url + "/", body, "ec2", form, *self.engine.credentials())
        self.connection.request("POST", "/", body=body, headers=headers)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise RuntimeError(f"{action}: {text}")
        return text

    def made(self, action, member, **parameters):
        return re.search(f"<{member}>(.*?)</{member}>", self.call(action, **parameters)).group(1)

    def rule(self, action, group, port, protocol="udp"):
        """A rule for one port of the whole VPC."""
        permission = {"IpProtocol": protocol, "FromPort": port, "ToPort": port, "IpRanges__1__CidrIp": "10.0.0.0/8"}
        self.call(action, GroupId=group, **{f"IpPermissions__1__{name}": value for name, value in permission.items()})


def socket_inside(space):
    """A UDP socket of the namespace at this path."""
    made = []

    def make():
        with open(space) as handle:
            if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {space}")
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def until_packet(ec2, group, sender, receiver, address, port):
    """Microseconds from the answer to AuthorizeSecurityGroupIngress until the first packet that it lets through; none, when
    the packet was there before the answer."""
    receiver.bind((address, port))
    arrived, over = [], threading.Event()

    def send():
        while not over.is_set():
            try:
                sender.sendto(b"x", (address, port))
            except OSError:
                pass
            time.sleep(0.0002)

    def receive():
        receiver.recv(8)
        arrived.append(time.monotonic_ns())

    threads = [threading.Thread(target=send), threading.Thread(target=receive)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    if arrived:
        raise RuntimeError("a packet arrived before any rule let it")
    ec2.rule("AuthorizeSecurityGroupIngress", group, port)
    answered = time.monotonic_ns()
    threads[1].join(30)
    over.set()
    threads[0].join()
    if not arrived:
        raise RuntimeError("no packet arrived within 30 s of the rule")
    return max(0, arrived[0] - answered) / 1000


def until_cut(ec2, group, sender, receiver, address, port):
    """Microseconds from the answer to RevokeSecurityGroupIngress until the last packet that came in by the rule; none, when
    the last one came before the answer."""
    receiver.bind((address, port))
    receiver.settimeout(30)
    last, over = [0], threading.Event()

    def send():
        while not over.is_set():
            try:
                sender.sendto(b"x", (address, port))
            except OSError:
                pass
            time.sleep(0.0002)

    def receive():
        # Quiet for a second while the sender goes on: cut.
        while True:
            try:
                receiver.recv(8)
            except TimeoutError:
                return
            last[0] = time.monotonic_ns()
            receiver.settimeout(1)

    threads = [threading.Thread(target=send), threading.Thread(target=receive)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while not last[0]:
        if time.monotonic() - began > 30:
            raise RuntimeError("no packet arrived within 30 s while the rule stood")
        time.sleep(0.001)
    ec2.rule("RevokeSecurityGroupIngress", group, port)
    answered = time.monotonic_ns()
    threads[1].join(60)
    over.set()
    threads[0].join()
    if threads[1].is_alive():
        raise RuntimeError("packets arrive a minute after their rule was revoked")
    return max(0, last[0] - answered) / 1000


def changes(binary, quick):
    """A rule through the API to the first packet, and names, while jobs run and start."""
    with tempfile.TemporaryDirectory() as directory, Engine(binary, internet=False) as engine:
        favour(*engine.pids().values())
        bucket, sagemaker, ec2 = "network", engine.client("sagemaker"), Ec2(engine)
        engine.client("s3").create_bucket(Bucket=bucket)
        engine.client("s3").put_object(Bucket=bucket, Key="in/a", Body=b"x")
        role = engine.create_role("exec", [*execution_statements(bucket), {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}])
        image = engine.pack_image(small_rootfs(directory), "small:1")
        vpc = ec2.made("CreateVpc", "vpcId", CidrBlock="10.0.0.0/16")
        subnet = ec2.made("CreateSubnet", "subnetId", VpcId=vpc, CidrBlock="10.0.1.0/24")
        group = ec2.made("CreateSecurityGroup", "groupId", VpcId=vpc, GroupName="jobs", GroupDescription="jobs")
        table = ec2.made("DescribeRouteTables", "routeTableId", Filter__1__Name="vpc-id", Filter__1__Value__1=vpc)
        ec2.call("CreateVpcEndpoint", VpcId=vpc, ServiceName="com.amazonaws.us-east-1.s3", RouteTableId__1=table)

        def start(name, *command):
            request = training_request(name, image, role, bucket, f"s3://{bucket}/in/", isolated=False)
            request["VpcConfig"] = {"Subnets": [subnet], "SecurityGroupIds": [group]}
            request["AlgorithmSpecification"] |= {"ContainerEntrypoint": list(command)}
            sagemaker.create_training_job(**request)

        count = 4 if quick else 10
        for index in range(count):
            start(f"rest-{index}", "/bin/sleep", "3600")
        eventually(lambda: len(containers(engine)) == count, timeout=120)
        spaces = [f"/proc/{init}/ns/net" for init, _ in containers(engine).values()]
        shown = subprocess.run(["nsenter", f"--net={spaces[1]}", "ip", "-4", "-o", "addr", "show", "dev", "eth0"], check=True, capture_output=True, text=True).stdout
        address, over = shown.split()[3].split("/")[0], threading.Event()

        def churn():
            index = 0
            while not over.is_set():
                start(f"short-{index}", "/bin/true")
                index += 1
                over.wait(0.5)

        def times(rounds, base):
            found = []
            for index in range(rounds):
                found.append(until_packet(ec2, group, socket_inside(spaces[0]), socket_inside(spaces[1]), address, base + index))
                ec2.rule("RevokeSecurityGroupIngress", group, base + index)
            return found

        def cuts(rounds, base):
            found = []
            for index in range(rounds):
                ec2.rule("AuthorizeSecurityGroupIngress", group, base + index)
                found.append(until_cut(ec2, group, socket_inside(spaces[0]), socket_inside(spaces[1]), address, base + index))
            return found

        rounds = 20 if quick else 100
        quiet, cut = times(rounds, 20_000), cuts(rounds // 5, 22_000)
        starting = threading.Thread(target=churn)
        starting.start()
        busy, cut_busy = times(rounds, 21_000), cuts(rounds // 5, 23_000)
        over.set()
        starting.join()
        for told, found, lost in ((f"{count} jobs run", quiet, cut), (f"{count} jobs run and one starts every 0.5 s", busy, cut_busy)):
            for share, word in ((0.5, "p50"), (0.99, "p99")):
                yield row(f"AuthorizeSecurityGroupIngress answered to first packet, {told}, {word}", "us", percentile(found, share), 50_000, "aim of 50 ms")
                yield row(f"RevokeSecurityGroupIngress answered to last packet, {told}, {word}", "us", percentile(lost, share), 50_000, "aim of 50 ms")
        ec2.rule("AuthorizeSecurityGroupIngress", group, 53)
        seconds = 2 if quick else 8
        ours = names.rate(spaces[0], "10.0.0.2", 53, seconds)
        with names.Peer(spaces[1], address, 53) as peer:
            theirs = names.rate(spaces[0], address, 53, seconds)
        yield row("DNS answers/s of a VPC's resolver, one client, 32 on their way", "1/s", ours, theirs, f"{peer.name}, in another container of the VPC")


def many(binary, quick):
    """Many VPCs with 20 interfaces each, every one on the host by its NAT gateway."""
    count, each = (20 if quick else 200), 20
    room = {"ec2.vpcs": count + 1, "ec2.elastic_ips": count + 1, "ec2.nat_gateways_per_zone": count + 1}
    with Engine(binary, room, internet=False) as engine:
        favour(*engine.pids().values())
        ec2 = Ec2(engine)

        def fill():
            vpc = ec2.made("CreateVpc", "vpcId", CidrBlock="10.0.0.0/16")
            subnet = ec2.made("CreateSubnet", "subnetId", VpcId=vpc, CidrBlock="10.0.1.0/24")
            gateway = ec2.made("CreateInternetGateway", "internetGatewayId")
            ec2.call("AttachInternetGateway", InternetGatewayId=gateway, VpcId=vpc)
            address = ec2.made("AllocateAddress", "allocationId", Domain="vpc")
            nat = ec2.made("CreateNatGateway", "natGatewayId", SubnetId=subnet, AllocationId=address)
            for _ in range(each - 1):
                ec2.call("CreateNetworkInterface", SubnetId=subnet)
            return vpc, nat

        def served(nat):
            return "<state>available</state>" in ec2.call("DescribeNatGateways", NatGatewayId__1=nat)

        def latency(vpc):
            group = ec2.made("DescribeSecurityGroups", "groupId", Filter__1__Name="vpc-id", Filter__1__Value__1=vpc)
            told, rules = [], []
            for index in range(40):
                began = time.monotonic_ns()
                text = ec2.call("DescribeNetworkInterfaces", Filter__1__Name="vpc-id", Filter__1__Value__1=vpc)
                told.append((time.monotonic_ns() - began) / 1000)
                assert text.count("<networkInterfaceId>") == each, text[:500]
                began = time.monotonic_ns()
                ec2.rule("AuthorizeSecurityGroupIngress", group, 20_000 + index)
                rules.append((time.monotonic_ns() - began) / 1000)
            for index in range(40):
                ec2.rule("RevokeSecurityGroupIngress", group, 20_000 + index)
            return told, rules

        first, nat = fill()
        eventually(lambda: served(nat), timeout=60)
        alone, small = latency(first), memory_mib(engine.pids().values())
        began = time.monotonic()
        nats = [fill()[1] for _ in range(count - 1)]
        took = (time.monotonic() - began) / (count - 1)
        eventually(lambda: all(served(one) for one in nats[-3:]), timeout=120)
        eventually(lambda: ec2.call("DescribeNatGateways").count("<state>available</state>") == count, timeout=120, pause=1)
        among, large = latency(first), memory_mib(engine.pids().values())
        vpcs = f"{count} VPCs of {each} interfaces"
        yield row(f"{vpcs}: made through the API, each VPC", "ms", took * 1000)
        yield row(f"{vpcs}: serve + node (PSS)", "MiB", large, small, "one VPC")
        for told, at in (("DescribeNetworkInterfaces of one VPC", 0), ("AuthorizeSecurityGroupIngress", 1)):
            for share, word in ((0.5, "p50"), (0.99, "p99")):
                yield row(f"{vpcs}: {told}, {word}", "us", percentile(among[at], share), percentile(alone[at], share), "one VPC")
