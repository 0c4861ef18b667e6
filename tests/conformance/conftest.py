"""One engine for the whole run of client suites; every test uses names of its own."""
import os
import socket
import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine, digits_csv, execution_statements  # noqa: E402
from tests.harness.jobs import P6  # noqa: E402
from tests.harness.notebook import PROGRAM  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402

CACHE = Path(os.environ.get("ISOLARIUM_CACHE", Path.home() / ".cache/isolarium"))


def free_port():
    """A port of loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


METRICS = f"127.0.0.1:{free_port()}"
PROXY = f"127.0.0.1:{free_port()}"
SETTINGS = {
    "tls.inject_ca": True,
    "jobs.stop_grace": "2s",
    "jobs.checkpoint_interval": "1s",
    "endpoints.ping_interval": "200ms",
    "endpoints.startup_timeout": "60s",
    "endpoints.restart_backoff": "200ms",
    "endpoints.capture_interval": "1s",
    # Suites share the engine; the default quotas have a test of their own.
    "ec2.vpcs": 200,
    "ec2.elastic_ips": 100,
    "flow_logs.read": "300ms",
    "flow_logs.minute": "2s",
    "metrics.listen": METRICS,
    "proxy_listen": PROXY,
    "metrics.interval": "300ms",
    # The demo's image has a Python; what it is asked to run stands in for Jupyter.
    "notebooks.image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/digits:1",
    "notebooks.command": ["/usr/bin/python3", "-u", "-c", PROGRAM],
    "notebooks.lifecycle_timeout": "15s",
    # Small enough to be filled in a moment on any machine.
    "instances": [{"type": "ml.t3.medium", "vcpus": 1, "memory_mib": 256, "accelerators": 0}],
}


@pytest.fixture(scope="session")
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"], SETTINGS) as running:
        yield running


@pytest.fixture(scope="session")
def metrics_page(engine):
    """Where the operator's metrics are."""
    return f"http://{METRICS}/metrics"


@pytest.fixture(scope="session")
def rootfs():
    return CACHE / "demo-rootfs"


@pytest.fixture(scope="session")
def bucket(engine):
    engine.client("s3").create_bucket(Bucket="conformance")
    return "conformance"


@pytest.fixture(scope="session")
def role(engine, bucket):
    return engine.create_role("conformance-execution", execution_statements(bucket))


@pytest.fixture(scope="session")
def vpc_role(engine, bucket):
    """An execution role that may also join VPCs."""
    return engine.create_role("conformance-vpc", [*execution_statements(bucket), {"Effect": "Allow", "Action": P6, "Resource": "*"}])


@pytest.fixture(scope="session")
def ec2(engine):
    return engine.client("ec2")


@pytest.fixture(scope="session")
def image(engine, rootfs):
    """The demo's image: a real train/serve container."""
    return engine.pack_image(rootfs, "digits:1")


@pytest.fixture(scope="session")
def small_root(tmp_path_factory):
    """A container root that starts in no time: busybox, and a server with one fixed answer."""
    return small_rootfs(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small(engine, small_root):
    return engine.pack_image(small_root, "small:1")


@pytest.fixture(scope="session")
def small_user(engine, small_root):
    """The same, run by a user other than root."""
    return engine.pack_image(small_root, "small:user", "--user", "nobody")


@pytest.fixture(scope="session")
def digits(engine, rootfs, bucket):
    """S3 URI of the training data."""
    engine.client("s3").put_object(Bucket=bucket, Key="digits/digits.csv", Body="\n".join(digits_csv(rootfs)).encode())
    return f"s3://{bucket}/digits/"


@pytest.fixture
def name(request):
    """A resource name that no other test uses."""
    stem = request.node.name.removeprefix("test_").replace("_", "-").split("[")[0][:40].strip("-")
    return f"{stem}-{uuid.uuid4().hex[:6]}"


@pytest.fixture(scope="session")
def sagemaker(engine):
    return engine.client("sagemaker")


@pytest.fixture(scope="session")
def trained(engine, sagemaker, image, role, bucket, digits):
    """One finished isolated training job; its description."""
    from tests.harness.jobs import finished, training_request

    sagemaker.create_training_job(**training_request("conformance-base", image, role, bucket, digits))
    done = finished(sagemaker, "conformance-base")
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    return done
