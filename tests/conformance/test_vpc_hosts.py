"""`isolarium vpc exec`: commands that stand in a VPC as hosts, with unmodified programs of this machine."""
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.test_vpc_jobs import Network
from tests.harness.engine import REGION, WEB
from tests.harness.jobs import eventually

AWS = str(Path(sys.executable).parent / "aws")


class Hosts(Network):
    """A VPC with a gateway endpoint for S3 and no other way out, in which commands run."""

    def __init__(self, engine, ec2, **options):
        super().__init__(ec2, block="10.40.0.0/16", subnet="10.40.1.0/24", **options)
        self.engine, self.started = engine, []

    def line(self, *command, options=(), group=None):
        groups = ["--security-group", group or self.group]
        where = ["--subnet", self.subnet, *groups, "--data-dir", str(self.engine.data)]
        return [self.engine.binary, "vpc", "exec", *where, *options, "--", *command]

    def run(self, *command, check=True, timeout=60, **more):
        done = subprocess.run(self.line(*command, **more), text=True, capture_output=True, timeout=timeout)
        assert not check or done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done

    def start(self, *command, **more):
        """A command that is running: it has written its first line."""
        process = subprocess.Popen(self.line(*command, **more), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.started.append(process)
        process.first = process.stdout.readline().strip()
        assert process.first, process.communicate(timeout=20)
        return process

    def left(self):
        """What the engine and the kernel still have of hosts."""
        pinned = [name for name in os.listdir(self.engine.data / "run/netns") if name.startswith(f"{self.vpc}.")]
        return pinned + self.interfaces()

    def remove(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate(timeout=30)
        eventually(lambda: not self.left(), timeout=60)
        super().remove()


@pytest.fixture
def hosts(engine, ec2):
    made = Hosts(engine, ec2)
    yield made
    made.remove()


LOOK = """
import json, os, pathlib, socket
print(json.dumps({
    "links": sorted(os.listdir("/sys/class/net")), "name": socket.gethostname(), "own": socket.gethostbyname(socket.gethostname()),
    "servers": pathlib.Path("/etc/resolv.conf").read_text().split(), "processes": len([one for one in os.listdir("/proc") if one.isdigit()]),
    "sockets": os.listdir(DATA + "/run"),
}), flush=True)
input()
"""


def test_a_host_has_an_interface_of_its_own_and_gives_it_back(engine, ec2, hosts):
    """
    Proves: PL-5, NET-10
    """
    free = hosts.free()
    program = LOOK.replace("DATA", repr(str(engine.data)))
    host = hosts.start(sys.executable, "-c", program)
    seen = json.loads(host.first)
    [interface] = hosts.interfaces()
    address = interface["PrivateIpAddress"]
    assert address.startswith("10.40.1.") and hosts.free() == free - 1
    assert (interface["Status"], interface["RequesterManaged"]) == ("in-use", False)
    assert [group["GroupId"] for group in interface["Groups"]] == [hosts.group] and "Association" not in interface
    assert seen["links"] == ["eth0", "lo"] and seen["own"] == address
    assert seen["name"] == "ip-" + address.replace(".", "-")
    assert seen["servers"][-2:] == ["nameserver", "10.40.0.2"]
    # The process that set everything up, and the command; nothing of the engine's to speak to.
    assert seen["processes"] == 2 and not any("sock" in name for name in seen["sockets"])
    with pytest.raises(ec2.exceptions.ClientError) as refused:
        ec2.delete_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"])
    assert "in use" in str(refused.value)
    with pytest.raises(ec2.exceptions.ClientError) as refused:
        ec2.delete_subnet(SubnetId=hosts.subnet)
    assert refused.value.response["Error"]["Code"] == "DependencyViolation"
    host.communicate("\n", timeout=30)
    assert host.returncode == 0
    eventually(lambda: not hosts.left())
    assert hosts.free() == free


def test_an_unmodified_client_reaches_what_the_vpc_reaches_and_nothing_else(engine, bucket, hosts):
    """
    Proves: PL-5
    """
    engine.client("s3").put_object(Bucket=bucket, Key="vpc/hosts/a.txt", Body=b"seen from a host")
    copied = hosts.run(AWS, "s3", "cp", f"s3://{bucket}/vpc/hosts/a.txt", "-", options=["--env-from-engine"])
    assert copied.stdout == "seen from a host", copied
    # No endpoint leads to the API, and nothing to the internet; a service's public name resolves all the same.
    name = f"api.sagemaker.{REGION}.amazonaws.com"
    found = hosts.run("getent", "ahostsv4", name).stdout.split()[0]
    assert found.startswith("198.18."), found
    dial = "import socket,sys\ntry: socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)\nexcept OSError: print('closed')\nelse: print('open')"
    before = len(engine.internet.arrivals())
    s3 = f"s3.{REGION}.amazonaws.com"
    for target, port, want in [(s3, "443", "open"), (name, "443", "closed"), (WEB, "80", "closed"), ("169.254.169.254", "80", "closed"), ("127.0.0.1", engine.url.rpartition(":")[2], "closed")]:
        assert hosts.run(sys.executable, "-c", dial, target, port).stdout.strip() == want, target
    assert len(engine.internet.arrivals()) == before


FETCH = "import socket,sys\ntry:\n s = socket.create_connection((sys.argv[1], 80), 5)\n s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n print(b'hello' in b''.join(iter(lambda: s.recv(999), b'')))\nexcept OSError: print('closed')"


def test_a_host_with_a_public_address_is_on_the_internet_and_keeps_nothing_of_it(engine, ec2, hosts):
    """
    Proves: NET-28
    """
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    address = ec2.allocate_address(Domain="vpc")
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=hosts.vpc)
    ec2.create_route(RouteTableId=hosts.table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    # Asks when it is told to: the address is associated with an interface that is there.
    loop = f"import sys\nprint('begun', flush=True)\nfor line in sys.stdin:\n exec({FETCH!r})\n sys.stdout.flush()"
    try:
        host = hosts.start(sys.executable, "-c", loop, WEB)

        def asked():
            host.stdin.write("\n")
            host.stdin.flush()
            return host.stdout.readline().strip()

        assert asked() == "closed"
        before = len(engine.internet.arrivals())
        [interface] = hosts.interfaces()
        ec2.associate_address(AllocationId=address["AllocationId"], NetworkInterfaceId=interface["NetworkInterfaceId"])
        eventually(lambda: asked() == "True", timeout=60)
        arrived = engine.internet.arrivals()[before:]
        assert arrived and {one["peer"] for one in arrived} == {address["PublicIp"]}
        host.communicate(timeout=30)
        eventually(lambda: not hosts.left())
        [kept] = ec2.describe_addresses(AllocationIds=[address["AllocationId"]])["Addresses"]
        assert "AssociationId" not in kept and "NetworkInterfaceId" not in kept, kept
    finally:
        ec2.delete_route(RouteTableId=hosts.table, DestinationCidrBlock="0.0.0.0/0")
        for process in hosts.started:
            process.kill()
        eventually(lambda: not hosts.left(), timeout=60)
        ec2.release_address(AllocationId=address["AllocationId"])
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=hosts.vpc)
        ec2.delete_internet_gateway(InternetGatewayId=gateway)


def test_hosts_reach_each_other_as_their_groups_say(engine, ec2, hosts):
    """
    Proves: PL-5
    """
    listen = "import socket\ns = socket.create_server(('', 8080))\nprint(socket.gethostbyname(socket.gethostname()), flush=True)\nwhile True: s.accept()[0].sendall(b'hello')"
    dial = "import socket,sys\ntry: print(socket.create_connection((sys.argv[1], 8080), 1).recv(5).decode())\nexcept OSError: print('refused')"
    server = hosts.start(sys.executable, "-c", listen)
    try:
        def asked():
            return hosts.run(sys.executable, "-c", dial, server.first).stdout.strip()

        assert asked() == "refused"
        rule = {"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "UserIdGroupPairs": [{"GroupId": hosts.group}]}
        ec2.authorize_security_group_ingress(GroupId=hosts.group, IpPermissions=[rule])
        eventually(lambda: asked() == "hello")
        # The VPC's default group is another one: no rule names it.
        others = [one["GroupId"] for one in ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [hosts.vpc]}])["SecurityGroups"] if one["GroupName"] == "default"]
        assert hosts.run(sys.executable, "-c", dial, server.first, group=others[0]).stdout.strip() == "refused"
    finally:
        server.terminate()
        server.communicate(timeout=30)


def command(pid):
    """The command line of a process, which may have ended since it was listed."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_every_end_gives_the_place_back(hosts):
    """
    Proves: PL-5
    """
    free = hosts.free()
    assert hosts.run("sh", "-c", "exit 41", check=False).returncode == 41
    missing = hosts.run("/no/such/command", check=False)
    assert missing.returncode == 127 and "/no/such/command" in missing.stderr
    for number, code in [(signal.SIGTERM, 9), (signal.SIGKILL, -signal.SIGKILL)]:
        process = hosts.start("sh", "-c", "trap 'exit 9' TERM; sleep 300.41 & echo begun; wait")
        assert hosts.left(), "control: it has a place"
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode == code
        eventually(lambda: not hosts.left())
    assert hosts.free() == free
    assert not any(b"300.41" in command(pid) for pid in os.listdir("/proc") if pid.isdigit())


def test_the_terminal_is_the_commands(hosts):
    """Ctrl-C ends the command, not what watches it: the exit code is the command's own answer."""
    line = hosts.line(sys.executable, "-c", "import os, signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: os._exit(23))\nprint('tty', os.isatty(0), flush=True)\ntime.sleep(300)")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(line[0], line)
    try:
        said = b""
        while b"tty True" not in said:
            said += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 23
    finally:
        os.close(terminal)


def test_a_folder_can_be_the_hosts_file_system(engine, small_root, bucket, hosts):
    before = sorted(os.listdir(small_root))
    inside = "cat /etc/resolv.conf; ls /opt/isolarium; echo x > /made; test -e /root/../proc/1/root/usr/bin/python3 || echo apart; ls /sys/class/net"
    done = hosts.run("/bin/sh", "-c", inside, options=["--rootfs", str(small_root), "--env-from-engine"])
    assert done.stdout.split() == ["search", "ec2.internal", "nameserver", "10.40.0.2", "ca-bundle.pem", "apart", "eth0", "lo"], done
    assert sorted(os.listdir(small_root)) == before
    wrong = hosts.run("/bin/sh", options=["--rootfs", str(small_root / "nothing")], check=False)
    assert wrong.returncode == 1 and "opening" in wrong.stderr, wrong


def test_what_cannot_be_is_refused_and_changes_nothing(engine, ec2, hosts, tmp_path):
    other = Network(ec2, block="10.41.0.0/16", subnet="10.41.1.0/24", endpoint=False)
    try:
        def refusal(*options, data=engine.data):
            line = [engine.binary, "vpc", "exec", *options, "--data-dir", str(data), "--", "true"]
            done = subprocess.run(line, text=True, capture_output=True)
            return done.returncode, done.stderr

        code, text = refusal("--subnet", "subnet-0123456789abcdef0")
        assert code == 1 and "The subnet ID 'subnet-0123456789abcdef0' does not exist" in text
        code, text = refusal("--subnet", hosts.subnet, "--security-group", other.group)
        assert code == 1 and f"The security group '{other.group}' does not exist in {hosts.vpc}" in text
        code, text = refusal("--subnet", hosts.subnet, *(["--security-group", hosts.group] * 6))
        assert code == 1 and "at most 5" in text
        assert refusal("--subnet", "x")[0] == 1 and refusal("--subnet", hosts.subnet, data=tmp_path)[0] == 3
        assert not hosts.left() and not other.interfaces()
    finally:
        other.remove()
