"""A container without network isolation: what it reaches, as whom, and what it does not reach."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.engine import ACCOUNT, WEB, execution_statements
from tests.harness.jobs import eventually, finished, training_request

PROBE = Path(__file__).with_name("platform_probe.py")
PORT = 8088
PRIVATE = ["10.99.0.1", "172.16.99.1", "192.168.99.1", "100.127.0.1", "169.254.169.254"]
# One socket on all addresses, so that only the address makes the difference.
SINK = """
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    print(connection.getsockname()[0], flush=True)
    connection.close()
"""


class Sink:
    """A server in the internet's namespace on public and private addresses; knows on which one a connection arrived."""

    def __init__(self, namespace, directory):
        self.inside = ["ip", "netns", "exec", namespace]
        self.log = Path(directory) / "sink.log"

    def __enter__(self):
        for address in PRIVATE:
            subprocess.run([*self.inside, "ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
        self.process = subprocess.Popen([*self.inside, sys.executable, "-c", SINK, str(PORT)], stdout=self.log.open("w"))
        eventually(lambda: self.arrivals() == ["ready"])
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for address in PRIVATE:
            subprocess.run([*self.inside, "ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)

    def arrivals(self):
        return self.log.read_text().split()

    def control(self, address):
        """A connection from beside the server, past the platform's rules."""
        program = f"import socket; socket.create_connection(({address!r}, {PORT}), 5).close()"
        subprocess.run([*self.inside, sys.executable, "-c", program], check=True)


@pytest.fixture(scope="module")
def sink(engine):
    with Sink(engine.internet.name, engine.directory) as running:
        yield running


@pytest.fixture(scope="module")
def probe_role(engine, bucket):
    describe = {"Effect": "Allow", "Action": "sagemaker:DescribeTrainingJob", "Resource": "*"}
    return engine.create_role("probe-execution", [*execution_statements(bucket), describe])


@pytest.fixture(scope="module")
def probe(engine, bucket):
    """S3 URI of the probe, as a channel of its own."""
    s3 = engine.client("s3")
    s3.put_object(Bucket=bucket, Key="probe/code/platform_probe.py", Body=PROBE.read_bytes())
    s3.put_object(Bucket=bucket, Key="probe/object.txt", Body=b"from the platform")
    s3.create_bucket(Bucket="not-mine")
    return f"s3://{bucket}/probe/code/"


def start(sagemaker, name, image, role, bucket, uri, stop, **environment):
    request = training_request(name, image, role, bucket, uri, isolated=False)
    request["AlgorithmSpecification"]["ContainerEntrypoint"] = ["python3", "/opt/ml/input/data/train/platform_probe.py"]
    request["Environment"] = {
        "BUCKET": bucket, "KEY": "probe/object.txt", "STOP": stop, "PORT": str(PORT), "TARGETS": ",".join([WEB, *PRIVATE]),
    } | environment
    sagemaker.create_training_job(**request)


def results(engine, name):
    """What the probe of a job printed so far."""
    logs = engine.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    try:
        events = logs.filter_log_events(logGroupName=group, logStreamNamePrefix=f"{name}/", filterPattern="RESULT")["events"]
    except logs.exceptions.ResourceNotFoundException:
        return []
    return [json.loads(event["message"].removeprefix("RESULT ")) for event in events]


def test_a_default_container_reaches_the_platform_as_its_role_and_no_private_address(
    engine, sagemaker, image, probe_role, bucket, probe, sink, name
):
    """
    Proves: NI-1, NI-3, NI-25, CC-80, CC-81, CC-82, CC-85, CC-86
    """
    stop = f"probe/stop/{name}"
    first, second = f"{name}-a", f"{name}-b"
    start(sagemaker, first, image, probe_role, bucket, probe, stop)
    seen = eventually(lambda: results(engine, first), timeout=60)[0]
    # The second one asks for the first one's credentials while the first one still gets them.
    start(sagemaker, second, image, probe_role, bucket, probe, stop, OTHER=seen["path"])
    thief = eventually(lambda: results(engine, second), timeout=60)[0]
    engine.client("s3").put_object(Bucket=bucket, Key=stop, Body=b"")
    for job in (first, second):
        done = finished(sagemaker, job)
        assert done["TrainingJobStatus"] == "Completed", (done.get("FailureReason"), results(engine, job))
        assert results(engine, job)[-1] == {"still": 200}

    assert seen["credentials"] == 200 and seen["role"] == probe_role
    assert {"AccessKeyId", "SecretAccessKey", "Token", "Expiration", "RoleArn"} <= set(seen["members"])
    assert seen["wrong_path"] == 404
    assert thief["credentials"] == 200 and thief["path"] != seen["path"], "control: its own path answers"
    assert thief["other"] == 404, "nobody else's does"

    assert seen["object"] == [200, "from the platform"]
    assert (seen["foreign_object"], seen["unsigned_object"]) == (403, 403), "control: it is the role that may read"
    assert seen["trusts_nobody"], "control: certificates are checked"
    assert set(seen["bundle"].values()) == {"/opt/isolarium/ca-bundle.pem"} and not seen["bundle_writable"]
    assert seen["identity"][0] == 200 and f"arn:aws:sts::{ACCOUNT}:assumed-role/probe-execution/" in seen["identity"][1]
    assert seen["described"] == [200, "InProgress"]

    assert seen["resolv"] == ["nameserver", "100.64.0.2"]
    service, outside = seen["dns"]["over_udp"]
    assert service.startswith("198.18.") and outside == WEB
    assert seen["dns"]["over_tcp"] == [service, outside]

    assert seen["connected"] == [WEB], "the public address alone"
    assert set(sink.arrivals()) == {"ready", WEB}
    for address in PRIVATE:
        sink.control(address)
        eventually(lambda: address in sink.arrivals())


def test_an_isolated_container_is_shown_no_certificates(engine, sagemaker, image, role, bucket, probe, name):
    """The counterpart: it can reach nobody to trust."""
    s3 = engine.client("s3")
    program = """
import json, os
names = [name for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if name in os.environ]
print("RESULT " + json.dumps([names, os.path.exists("/opt/isolarium")]))
"""
    s3.put_object(Bucket=bucket, Key=f"{name}/look.py", Body=program.encode())
    request = training_request(name, image, role, bucket, f"s3://{bucket}/{name}/")
    request["AlgorithmSpecification"]["ContainerEntrypoint"] = ["python3", "/opt/ml/input/data/train/look.py"]
    sagemaker.create_training_job(**request)
    assert finished(sagemaker, name)["TrainingJobStatus"] == "Completed"
    assert eventually(lambda: results(engine, name)) == [[[], False]]


SERVICES = """
import json, os, socket

def connects(address):
    try:
        socket.create_connection((address, 443), 5).close()
        return True
    except OSError:
        return False

def resolved(name):
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None

names = [f"{service}.us-east-1.amazonaws.com" for service in
         ("s3", "api.sagemaker", "runtime.sagemaker", "sts", "logs", "api.ecr")]
found = {name: resolved(name) for name in names}
known = json.loads(os.environ.get("KNOWN", "null")) or found
print("RESULT " + json.dumps({"found": found, "connected": {name: connects(known[name]) for name in names}}))
"""


def test_isolation_covers_every_service_of_the_platform_by_name_and_by_address(engine, sagemaker, image, role, bucket, name):
    """The control, a job without isolation, finds the addresses that the isolated one then tries.
    Proves: NI-7
    """
    engine.client("s3").put_object(Bucket=bucket, Key=f"{name}/services.py", Body=SERVICES.encode())

    def run(job, isolated, **environment):
        request = training_request(job, image, role, bucket, f"s3://{bucket}/{name}/", isolated=isolated)
        request["AlgorithmSpecification"]["ContainerEntrypoint"] = ["python3", "/opt/ml/input/data/train/services.py"]
        request["Environment"] = environment
        sagemaker.create_training_job(**request)
        assert finished(sagemaker, job)["TrainingJobStatus"] == "Completed"
        return eventually(lambda: results(engine, job))[0]

    control = run(f"{name}-open", False)
    assert len(control["found"]) == 6 and all(control["found"].values()) and all(control["connected"].values()), control
    sealed = run(f"{name}-sealed", True, KNOWN=json.dumps(control["found"]))
    assert set(sealed["found"].values()) == {None} and set(sealed["connected"].values()) == {False}, sealed
    blocked = {attempt["address"] for attempt in engine.attempts(f"{name}-sealed")}
    assert set(control["found"].values()) <= blocked
