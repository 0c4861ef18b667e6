"""Training jobs with several instances: boto3 against the real engine, containers that look for each other."""
import ctypes
import io
import json
import os
import select
import signal
import socket
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from tests.conformance.test_vpc_jobs import Network, completed, run, said
from tests.harness.engine import WEB
from tests.harness.jobs import eventually, finished, training_request, with_program

XGBOOST = "xgboost-cpu==3.2.0"
ALL_REDUCE = (Path(__file__).resolve().parent / "all_reduce.py").read_text()
PROBE = (Path(__file__).resolve().parent / "peer_probe.py").read_text()
HOSTS = ["algo-1", "algo-2", "algo-3"]


@pytest.fixture(scope="module")
def parts(engine, bucket):
    """Seven objects."""
    for number in range(7):
        engine.client("s3").put_object(Bucket=bucket, Key=f"several/parts/{number}.txt", Body=f"{number}".encode())
    return f"s3://{bucket}/several/parts/"


@pytest.fixture
def network(ec2):
    made = Network(ec2, block="10.30.0.0/16", subnet="10.30.1.0/24")
    yield made
    made.remove()


def probe(engine, sagemaker, bucket, name, image, role, uri, instances=3, isolated=True, hyper=None, **members):
    """Starts a job whose instances probe each other; the input is dealt among them."""
    request = training_request(name, image, role, bucket, uri, isolated=isolated)
    request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3DataDistributionType"] = "ShardedByS3Key"
    request["ResourceConfig"]["InstanceCount"] = instances
    request["HyperParameters"] = {"token": name} | (hyper or {})
    sagemaker.create_training_job(**with_program(engine, bucket, request, PROBE) | members)


def scripted(engine, bucket, name, image, role, instances, script, isolated=True):
    """A job whose instances run a shell script."""
    request = training_request(name, image, role, bucket, "s3://none/", isolated=isolated, InputDataConfig=[], HyperParameters={})
    request["ResourceConfig"]["InstanceCount"] = instances
    return with_program(engine, bucket, request, script, "/bin/sh")


def streams(engine, name):
    """Lines of a job's log by instance."""
    logs = engine.client("logs")
    try:
        found = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/")
    except logs.exceptions.ResourceNotFoundException:
        return {}
    lines = {}
    for event in found["events"]:
        stream = event["logStreamName"].split("/", 1)[1]
        lines.setdefault(stream, []).append(event["message"])
    return lines


def results(engine, name, instances):
    """What every instance found, by host; waits for all."""
    def all_of_them():
        told = {}
        for stream, lines in streams(engine, name).items():
            for line in lines:
                if line.startswith("RESULT "):
                    told["-".join(stream.split("-")[:2])] = json.loads(line.removeprefix("RESULT "))
        return told if len(told) == instances else None

    return eventually(all_of_them, timeout=90)


def archive(engine, bucket, name, file="model.tar.gz"):
    body = engine.client("s3").get_object(Bucket=bucket, Key=f"jobs/{name}/output/{file}")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as packed:
        return {member.name: packed.extractfile(member).read().decode() for member in packed if member.isfile()}


def met(one, token, ping=False):
    """Whether an instance reached every peer in every way, and only its own job's."""
    answers = [*one["tcp"].values(), *one["udp"].values()]
    return set(answers) == {token} and (not ping or set(one["ping"].values()) == {"echo"})


def test_isolated_instances_reach_each_other_and_nothing_else(engine, sagemaker, image, role, bucket, parts, name):
    """
    Two jobs at once with the same inner addresses: each meets its own peers in every way, and nobody else by any.
    Proves: NI-9, NI-10, NI-12, D-11, CC-19, CC-20, CC-28, CC-31, CC-32, CC-85, CC-86, CC-87, CC-90
    """
    before = len(engine.internet.arrivals())
    out = ",".join([WEB, "169.254.170.2", "169.254.169.254", "100.64.0.1", "10.0.0.1", "198.18.0.1"])
    hyper = {"ping": "1", "others": "10.0.0.77,100.64.0.2", "web": out, "names": "example.com,algo-4,localhost.localdomain"}
    jobs = [f"{name[:40]}-{which}" for which in ("a", "b")]
    for job in jobs:
        probe(engine, sagemaker, bucket, job, image, role, parts, hyper=hyper)
    for job in jobs:
        done = completed(sagemaker, job)
        assert done["ResourceConfig"]["InstanceCount"] == 3
        told = results(engine, job, 3)
        assert sorted(told) == HOSTS
        for host, one in told.items():
            assert one["host"] == host == one["config"]["current_host"] and one["config"]["hosts"] == HOSTS
            assert one["interfaces"] == ["eth0", "lo"] and one["config"]["network_interface_name"] == "eth0"
            assert one["addresses"] == {f"algo-{n}": f"10.0.0.{3 + n}" for n in (1, 2, 3)}, "the same in both jobs"
            assert met(one, job, ping=True), one
            refused = [*one["others"].values(), *one["others_udp"].values(), *one["web"].values()]
            assert set(refused) == {"error 101"}, refused
            assert all(told.startswith("no name") and soon for told, soon in one["names"].values()), one["names"]
            assert not one["credentials"]
        shares = [told[host]["data"]["train"] for host in HOSTS]
        assert sorted(len(share) for share in shares) == [2, 2, 3]
        assert sorted(sum(shares, [])) == [f"{n}.txt" for n in range(7)]
        assert archive(engine, bucket, job) == {host: job for host in HOSTS}
        created = int(done["CreationTime"].timestamp())
        own = [stream for stream in streams(engine, job) if not stream.endswith("network-isolation")]
        assert sorted(own) == [f"{host}-{created}" for host in HOSTS]
        report = json.loads(engine.run("report", job, "--json").stdout)
        assert len(report["workloads"]) == 3
        for workload in report["workloads"]:
            kinds = {(attempt["protocol"], attempt["address"]) for attempt in workload["attempts"]}
            assert ("tcp", WEB) in kinds, "every instance has its own report"
            assert not any(address.startswith("10.0.0.") and address[7:] in "456" for _, address in kinds), "peers are no attempts"
    assert len(engine.internet.arrivals()) == before


def test_instances_in_the_platform_network_meet_their_own_peers_alone(engine, sagemaker, image, role, bucket, parts, name):
    """
    Proves: CC-20, CC-85, NI-1
    """
    first, second = f"{name[:40]}-a", f"{name[:40]}-b"
    probe(engine, sagemaker, bucket, first, image, role, parts, instances=2, isolated=False, hyper={"stay": "1"})
    told = results(engine, first, 2)
    assert all(met(one, first) and one["credentials"] for one in told.values()), told
    addresses = sorted(set(told["algo-1"]["addresses"].values()))
    assert len(addresses) == 2 and all(address.startswith("100.64.") for address in addresses)
    hyper = {"others": ",".join(addresses), "web": WEB}
    probe(engine, sagemaker, bucket, second, image, role, parts, instances=2, isolated=False, hyper=hyper)
    completed(sagemaker, second)
    for one in results(engine, second, 2).values():
        assert met(one, second), "control: its own peers answer"
        assert set(one["web"].values()) == {"connected"}, "control: and so does the internet"
        assert all(answer.startswith("error") for answer in [*one["others"].values(), *one["others_udp"].values()]), one
    sagemaker.stop_training_job(TrainingJobName=first)
    assert finished(sagemaker, first)["TrainingJobStatus"] == "Stopped"


# Asks the other instance again and again, and says each change of what it sees.
ASK = """
me=$(sed -n 's/.*"current_host":"\\([^"]*\\)".*/\\1/p' /opt/ml/input/config/resourceconfig.json)
case $me in algo-1) other=algo-2;; *) other=algo-1;; esac
for port in 7000 9000; do (while true; do echo served | nc -l -p $port >/dev/null 2>&1; done) & done
last=
while true; do
  now=$(for port in 7000 9000; do nc -w 1 $other $port </dev/null 2>/dev/null | grep -q served && echo "$port yes" || echo "$port no"; done)
  now=$(echo $now)
  [ "$now" = "$last" ] || echo "STATE $now"
  last=$now
  sleep 0.2
done
"""


def states(engine, name):
    """The last state that each instance told."""
    told = {}
    for stream, lines in streams(engine, name).items():
        seen = [line for line in lines if line.startswith("STATE ")]
        if seen:
            told["-".join(stream.split("-")[:2])] = seen[-1].removeprefix("STATE ")
    return told


@pytest.mark.parametrize("isolated", [False, True])
def test_in_a_vpc_the_groups_decide_whether_peers_meet(engine, ec2, sagemaker, small, vpc_role, bucket, network, name, isolated):
    """
    Without a rule for the group's own members nobody meets, and the job says so; with one they do, without a restart.
    Proves: VPC-26, VPC-27, D-24, VPC-10, CC-20
    """
    free = network.free()
    request = scripted(engine, bucket, name, small, vpc_role, 2, ASK, isolated)
    sagemaker.create_training_job(**request, VpcConfig=network.config)
    both = lambda state: lambda: states(engine, name) == {"algo-1": state, "algo-2": state}  # noqa: E731
    eventually(both("7000 no 9000 no"), timeout=90)
    assert network.free() == free - 4, "two addresses for each"
    described = sagemaker.describe_training_job(TrainingJobName=name)
    messages = {one["Status"]: one["StatusMessage"] for one in described["SecondaryStatusTransitions"]}
    for phase in ("Starting", "Training"):
        assert "no inbound rule of" in messages[phase] and network.group in messages[phase], messages
    pair = {"UserIdGroupPairs": [{"GroupId": network.group}]}
    everything = [{"IpProtocol": "-1"} | pair]
    ranged = [{"IpProtocol": "tcp", "FromPort": 6000, "ToPort": 8000} | pair]
    ec2.authorize_security_group_ingress(GroupId=network.group, IpPermissions=everything)
    eventually(both("7000 yes 9000 yes"), timeout=60)
    ec2.revoke_security_group_ingress(GroupId=network.group, IpPermissions=everything)
    eventually(both("7000 no 9000 no"), timeout=60)
    ec2.authorize_security_group_ingress(GroupId=network.group, IpPermissions=ranged)
    eventually(both("7000 yes 9000 no"), timeout=60)
    sagemaker.stop_training_job(TrainingJobName=name)
    assert finished(sagemaker, name)["TrainingJobStatus"] == "Stopped"
    eventually(lambda: network.free() == free, timeout=60)


def test_a_job_whose_group_admits_its_own_members_is_not_warned_about(ec2, sagemaker, small, vpc_role, bucket, network, name):
    """
    Proves: VPC-26
    """
    pair = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": network.group}]}]
    ec2.authorize_security_group_ingress(GroupId=network.group, IpPermissions=pair)
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    run(sagemaker, name, small, vpc_role, bucket, None, "echo done", VpcConfig=network.config, ResourceConfig=resources)
    done = completed(sagemaker, name)
    assert not any("Warning" in one["StatusMessage"] for one in done["SecondaryStatusTransitions"])


def test_the_first_failure_ends_the_others_and_names_its_instance(engine, sagemaker, small, role, bucket, name):
    """
    Proves: CC-31, CC-33, CC-34, SM-65
    """
    script = """
me=$(sed -n 's/.*"current_host":"\\([^"]*\\)".*/\\1/p' /opt/ml/input/config/resourceconfig.json)
if [ $me = algo-2 ]; then nc -l -p 7000 >/dev/null; nc -l -p 7001 >/dev/null; echo no data > /opt/ml/output/failure; exit 3; fi
trap "echo $me > /opt/ml/output/data/$me; echo told; exit 0" TERM
case $me in algo-1) port=7000;; *) port=7001;; esac
until echo ready | nc -w 1 algo-2 $port; do sleep 0.1; done
while true; do sleep 0.1; done
"""
    sagemaker.create_training_job(**scripted(engine, bucket, name, small, role, 3, script))
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Failed"
    assert done["FailureReason"] == "AlgorithmError: algo-2: no data\n, exit code: 3", done["FailureReason"]
    assert archive(engine, bucket, name, "output.tar.gz") == {"algo-1": "algo-1\n", "algo-3": "algo-3\n"}
    assert said(engine, name).count("told") == 2


def test_what_a_job_cannot_have_is_refused(sagemaker, small, role, bucket, name):
    """
    Alone there is nothing to encrypt.
    """
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 251, "VolumeSizeInGB": 1}
    with pytest.raises(sagemaker.exceptions.ClientError) as refused:
        run(sagemaker, name, small, role, bucket, None, "true", ResourceConfig=resources)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(sagemaker.exceptions.ClientError):
        sagemaker.describe_training_job(TrainingJobName=name)
    alone = {"EnableInterContainerTrafficEncryption": True}
    run(sagemaker, name, small, role, bucket, None, "true", **alone)
    assert completed(sagemaker, name)["EnableInterContainerTrafficEncryption"] is True


def test_groups_of_instances_have_their_own_types_and_channels(engine, sagemaker, image, role, bucket, parts, name):
    """
    Proves: CC-19, CC-20, CC-28, NI-9
    """
    group = lambda name, kind, count: {"InstanceGroupName": name, "InstanceType": kind, "InstanceCount": count}  # noqa: E731
    resources = {"InstanceGroups": [group("lead", "ml.m5.large", 1), group("workers", "ml.m5.xlarge", 2)], "VolumeSizeInGB": 1}
    source = {"S3DataType": "S3Prefix", "S3Uri": parts, "S3DataDistributionType": "ShardedByS3Key"}
    channels = [
        {"ChannelName": "dealt", "DataSource": {"S3DataSource": source | {"InstanceGroupNames": ["workers"]}}},
        {"ChannelName": "shared", "DataSource": {"S3DataSource": source | {"InstanceGroupNames": ["lead", "workers"]}}},
    ]
    request = training_request(name, image, role, bucket, parts, isolated=True, InputDataConfig=channels)
    request |= {"ResourceConfig": resources, "HyperParameters": {"token": name}}
    request = with_program(engine, bucket, request, PROBE)
    for wrong, text in (
        ({"ResourceConfig": resources | {"InstanceCount": 2, "InstanceType": "ml.m5.large"}}, "either InstanceGroups"),
        ({"ResourceConfig": resources | {"InstanceGroups": resources["InstanceGroups"][:1]}}, "workers"),
    ):
        with pytest.raises(sagemaker.exceptions.ClientError) as refused:
            sagemaker.create_training_job(**request | wrong)
        error = refused.value.response["Error"]
        assert error["Code"] == "ValidationException" and text in error["Message"], error
    sagemaker.create_training_job(**request)
    done = completed(sagemaker, name)
    assert done["ResourceConfig"] == resources
    told = results(engine, name, 3)
    groups = [
        {"instance_group_name": "lead", "instance_type": "ml.m5.large", "hosts": ["algo-1"]},
        {"instance_group_name": "workers", "instance_type": "ml.m5.xlarge", "hosts": ["algo-2", "algo-3"]},
    ]
    for host, one in told.items():
        assert met(one, name) and one["config"]["hosts"] == HOSTS and one["config"]["instance_groups"] == groups
        own = groups[0 if host == "algo-1" else 1]
        assert one["config"]["current_group_name"] == own["instance_group_name"]
        assert one["config"]["current_instance_type"] == own["instance_type"]
    assert sorted(told["algo-1"]["data"]) == ["code", "shared"]
    every = [f"{n}.txt" for n in range(7)]
    assert sorted(sum((one["data"]["shared"] for one in told.values()), [])) == every
    assert sorted(told["algo-2"]["data"]["dealt"] + told["algo-3"]["data"]["dealt"]) == every


class Wires:
    """Every packet between instances: what crosses the platform's and the VPCs' routers while this is open."""

    def __init__(self, engine):
        self.folder = engine.data / "run/netns"
        self.sockets, self.packets, self.over = {}, [], threading.Event()
        self.thread = threading.Thread(target=self._listen)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        for one in self.sockets.values():
            one.close()

    def _open(self, path):
        with open(path) as space:
            if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), 0x4000_0000):
                return None
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(0x0800))
        made.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
        return made

    def _listen(self):
        # This thread alone moves from namespace to namespace.
        while not self.over.is_set():
            for path in self.folder.iterdir():
                if path.name not in self.sockets and (path.name == "platform" or path.name.startswith("vpc-") and "." not in path.name):
                    try:
                        opened = self._open(path)
                    except OSError:
                        continue
                    if opened:
                        self.sockets[path.name] = opened
            ready, _, _ = select.select(list(self.sockets.values()), [], [], 0.02)
            for one in ready:
                try:
                    while True:
                        self.packets.append(one.recv(65536))
                except BlockingIOError:
                    pass

    def between(self, addresses):
        """Packets among these addresses: protocol, destination port, bytes."""
        chosen = {socket.inet_aton(address) for address in addresses}
        for packet in list(self.packets):
            if packet[12:16] in chosen and packet[16:20] in chosen and packet[12:16] != packet[16:20]:
                begin = 4 * (packet[0] & 15)
                yield packet[9], int.from_bytes(packet[begin + 2:begin + 4], "big"), packet


@pytest.mark.parametrize("shape", ["isolated", "platform", "vpc", "isolated in a vpc"])
def test_encrypted_peers_meet_and_nothing_of_it_is_readable_on_the_wire(
        engine, ec2, sagemaker, image, role, vpc_role, bucket, parts, network, name, shape):
    """
    Two jobs at once, one of them encrypted: both meet their peers in every way, the plain one's words are on the wire, the
    other's are not, and nothing but UDP 500 passes between its instances. In a VPC the group admits that alone.
    Proves: CC-89, NI-9, VPC-26, VPC-27, D-24, CC-20, NET-69
    """
    isolated, in_vpc = shape.startswith("isolated"), shape.endswith("vpc")
    plain, secret = f"plain-{name[-8:]}", f"secret-{name[-8:]}"
    members = {"VpcConfig": network.config} if in_vpc else {}
    # Beyond the peers, an isolated container reaches nothing, and one in the platform's network, the control, does.
    tries = {} if shape == "vpc" else {"web": WEB, "names": "s3.us-east-1.amazonaws.com"} | ({"ping": "1"} if isolated else {})
    jobs = [plain, secret]
    if in_vpc:
        pair = {"UserIdGroupPairs": [{"GroupId": network.group}]}
        udp = [{"IpProtocol": "udp", "FromPort": 500, "ToPort": 500} | pair]
        ec2.authorize_security_group_ingress(GroupId=network.group, IpPermissions=udp)
    with Wires(engine) as wires:
        used = {}
        for job in jobs:
            encrypted = {"EnableInterContainerTrafficEncryption": True} if job == secret else {}
            if in_vpc and job == plain:
                # The control needs what the encrypted one does without.
                every = [{"IpProtocol": "-1"} | pair]
                ec2.authorize_security_group_ingress(GroupId=network.group, IpPermissions=every)
            probe(engine, sagemaker, bucket, job, image, vpc_role if in_vpc else role, parts, instances=2, isolated=isolated,
                  hyper=tries, **members, **encrypted)
            if in_vpc and job == plain:
                completed(sagemaker, plain)
                ec2.revoke_security_group_ingress(GroupId=network.group, IpPermissions=every)
        for job in jobs:
            done = completed(sagemaker, job)
            assert done["EnableInterContainerTrafficEncryption"] is (job == secret)
            told = results(engine, job, 2)
            assert all(met(one, job, ping=isolated) for one in told.values()), told
            expected = ["eth0", "lo", "peers0"] if job == secret else ["eth0", "lo"]
            assert all(one["interfaces"] == expected for one in told.values()), told
            for one in told.values() if isolated or shape == "platform" else ():
                assert (one["web"][WEB] == "connected") is not isolated and one["names"]["s3.us-east-1.amazonaws.com"][0].startswith("no name") is isolated, one
            used[job] = set(told["algo-1"]["addresses"].values())
    everything = b"".join(wires.packets)
    assert plain.encode() in everything, "control: the same capture shows what is said in the clear"
    assert secret.encode() not in everything
    if used[plain] != used[secret]:
        seen = {(protocol, port) for protocol, port, _ in wires.between(used[secret])}
        assert seen == {(17, 500)}, seen
    else:
        assert any((protocol, port) == (17, 500) for protocol, port, _ in wires.between(used[secret]))
    # Keys go with their containers.
    eventually(lambda: not any((engine.data / "run/tunnels").iterdir()), timeout=60)


def tunnels(engine):
    """The processes that encrypt for this engine's containers, by the folder that they are shut into."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "root") == str(engine.data / "run/tunnels"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_encryption_outlives_the_engine_and_a_job_does_not_outlive_it(engine, sagemaker, small, role, bucket, name):
    """
    The processes that encrypt hold no privilege, go on through kills of node and service, and take their job along when they
    die: what they carried is not said in the clear meanwhile.
    Proves: CC-89, NI-9, NET-72
    """
    request = scripted(engine, bucket, name, small, role, 2, ASK)
    sagemaker.create_training_job(**request, EnableInterContainerTrafficEncryption=True)
    both = lambda state: lambda: states(engine, name) == {"algo-1": state, "algo-2": state}  # noqa: E731
    eventually(both("7000 yes 9000 yes"), timeout=90)
    running = sorted(tunnels(engine))
    assert len(running) == 2
    for pid in running:
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["65534"] * 4 and fields["CapEff"] == fields["CapPrm"] == "0" * 16
        assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    os.kill(engine.pids()["serve"], signal.SIGKILL)
    os.kill(engine.pids()["node"], signal.SIGKILL)
    engine.process.wait()
    engine.start()
    assert sorted(tunnels(engine)) == running, "nobody started them anew"
    assert sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "InProgress"
    assert both("7000 yes 9000 yes")(), "nobody missed anything"
    with Wires(engine) as wires:
        eventually(lambda: any(port == 500 for _, port, _ in wires.between({"10.0.0.4", "10.0.0.5"})), timeout=30)
        os.kill(running[0], signal.SIGKILL)
        done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Failed", done
    assert {(protocol, port) for protocol, port, _ in wires.between({"10.0.0.4", "10.0.0.5"})} == {(17, 500)}
    assert b"served" not in b"".join(wires.packets)
    assert any("encryption of the traffic between the instances ended" in line for lines in streams(engine, name).values() for line in lines)
    eventually(lambda: not tunnels(engine), timeout=30)


LAST_BYTES = """
import json, os, socket, time
host = json.load(open("/opt/ml/input/config/resourceconfig.json"))["current_host"]
size = 20_000_000
if host == "algo-2":
    while True:
        try:
            stream = socket.create_connection(("algo-1", 7000), timeout=60)
            break
        except OSError:
            time.sleep(0.1)
    stream.sendall(bytes(size))
    os._exit(0)
stream, _ = socket.create_server(("", 7000)).accept()
got = 0
while piece := stream.recv(1 << 16):
    got += len(piece)
    time.sleep(0.001)
print("RESULT", json.dumps(got), flush=True)
"""


def test_the_last_bytes_of_an_instance_that_has_ended_reach_its_peers(engine, sagemaker, image, role, bucket, name):
    """
    A program writes 20 MB and ends at once, long before its peer has read them: encrypted or not, the peer gets all of them.
    Proves: CC-89, CC-85
    """
    for kind in ("plain", "secret"):
        job = f"{kind}-{name[-8:]}"
        request = training_request(job, image, role, bucket, "s3://none/", InputDataConfig=[], HyperParameters={})
        request["ResourceConfig"]["InstanceCount"] = 2
        request = with_program(engine, bucket, request, LAST_BYTES)
        sagemaker.create_training_job(**request, EnableInterContainerTrafficEncryption=kind == "secret")
        completed(sagemaker, job)
        assert results(engine, job, 1) == {"algo-1": 20_000_000}


@pytest.fixture(scope="module")
def xgboost(engine, bucket):
    """The library's wheel from PyPI as a channel: what installs the demo's wheels fetches it once."""
    cache = Path(os.environ.get("ISOLARIUM_CACHE", Path.home() / ".cache/isolarium"))
    wheels = cache / "wheels"
    if not list(wheels.glob("xgboost_cpu-3.2.0-*.whl")):
        machine = "aarch64" if os.uname().machine == "aarch64" else "x86_64"
        subprocess.run(
            [cache / "venv/pip/bin/pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
             "--python-version", "3.11", "--implementation", "cp", "--platform", f"manylinux_2_28_{machine}", "-d", wheels, XGBOOST],
            check=True)
    wheel = next(wheels.glob("xgboost_cpu-3.2.0-*.whl"))
    engine.client("s3").put_object(Bucket=bucket, Key=f"several/lib/{wheel.name}", Body=wheel.read_bytes())
    return f"s3://{bucket}/several/lib/"


def test_a_public_library_trains_one_model_across_isolated_instances(engine, sagemaker, image, role, bucket, digits, xgboost, name):
    """
    xgboost's tracker and all-reduce over TCP, unchanged: three workers, each with a third of the rows, end with one model.
    Proves: NI-9, NI-10, CC-20
    """
    request = training_request(name, image, role, bucket, digits)
    request["ResourceConfig"]["InstanceCount"] = 3
    lib = {"S3DataType": "S3Prefix", "S3Uri": xgboost, "S3DataDistributionType": "FullyReplicated"}
    request["InputDataConfig"].append({"ChannelName": "lib", "DataSource": {"S3DataSource": lib}})
    sagemaker.create_training_job(**with_program(engine, bucket, request, ALL_REDUCE))
    # Three interpreters load a large library, on as few processors as the machine has.
    done = finished(sagemaker, name, timeout=400)
    assert done["TrainingJobStatus"] == "Completed", (done.get("FailureReason"), streams(engine, name))
    told = results(engine, name, 3)
    rows = sum(one["rows"] for one in told.values())
    assert {one["model"] for one in told.values()} == {told["algo-1"]["model"]}, "one model"
    for one in told.values():
        assert one["world"] == 3 and one["sum"] == [3.0, 111.0, 3.0 * rows], one
        assert one["accuracy"] > 0.85, "learned from the rows of all"
