"""kill -9 at random moments: nothing acknowledged is lost, nothing is left over, every resource ends in a legal state."""
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine, execution_statements  # noqa: E402
from tests.harness.jobs import eventually, finished, gone, settled, training_request  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402

CRASHES = int(os.environ.get("CRASHES", "50"))
SEED = int(os.environ.get("SEED", "20260101"))
LEGAL = {"InProgress", "Stopping", "Completed", "Failed", "Stopped"}
SETTINGS = {"jobs.stop_grace": "1s", "endpoints.ping_interval": "200ms", "endpoints.startup_timeout": "60s", "endpoints.restart_backoff": "100ms"}


def leftovers(data):
    """Everything on the host that belongs to workloads of this data directory."""
    found = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if str(data) in line and "/run/" not in line.split()[1]]
    for root in Path("/sys/fs/cgroup").iterdir():
        found += [str(path) for path in root.glob("isolarium*/**/w-*")]
    found += [name for name in os.listdir("/sys/class/net") if name.startswith("iso")]
    found += [str(path) for path in (data / "work").glob("*")]
    for bucket in (data / "buckets").glob("*"):
        found += [str(path) for path in bucket.rglob(".tmp*")]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if os.stat(f"/proc/{pid}").st_uid >= 600_000_000 or (b"\0shim\0" in command and str(data).encode() in command):
                found.append(f"process {pid} {command!r}")
        except OSError:
            continue
    return found


class Load:
    """Uploads, jobs and invocations that go on through the crashes; remembers what was acknowledged."""

    def __init__(self, engine, image, role, bucket):
        self.engine, self.image, self.role, self.bucket = engine, image, role, bucket
        self.stop = threading.Event()
        self.objects, self.jobs, self.answers = {}, [], 0
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self.upload, self.train, self.invoke)]

    def upload(self):
        generator, s3, index = random.Random(SEED), self.engine.client("s3"), 0
        while not self.stop.is_set():
            key, body = f"load/{index % 40}", generator.randbytes(generator.choice((10, 5_000, 300_000)))
            index += 1
            try:
                s3.put_object(Bucket=self.bucket, Key=key, Body=body)
                self.objects[key] = {hashlib.sha256(body).hexdigest()}
            except (ClientError, BotoCoreError):
                # Not acknowledged: old and new are both right, a torn object is not.
                self.objects.setdefault(key, {None}).add(hashlib.sha256(body).hexdigest())
                time.sleep(0.05)

    def train(self):
        sagemaker, index = self.engine.client("sagemaker"), 0
        while not self.stop.is_set():
            name, index = f"crash-{index}", index + 1
            request = training_request(name, self.image, self.role, self.bucket, f"s3://{self.bucket}/input/", HyperParameters={"seconds": f"{index % 3 * 0.2:.1f}"})
            try:
                sagemaker.create_training_job(**request)
                self.jobs.append(name)
            except (ClientError, BotoCoreError):
                pass
            time.sleep(0.15)

    def invoke(self):
        runtime = self.engine.client("sagemaker-runtime")
        while not self.stop.is_set():
            try:
                assert runtime.invoke_endpoint(EndpointName="crash", Body=b"x")["Body"].read() == b"fixed\n"
                self.answers += 1
            except (ClientError, BotoCoreError):
                time.sleep(0.02)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(90)


def crash(engine, choice):
    """Kills one half or both; brings the engine back."""
    pids = engine.pids()
    victims = {"serve": ["serve"], "node": ["node"], "both": ["node", "serve"]}[choice]
    for victim in victims:
        try:
            os.kill(pids[victim], signal.SIGKILL)
        except (ProcessLookupError, KeyError):
            pass
    if "node" in victims:
        engine.process.wait(20)
        # The other half sees its lifeline end and exits by itself.
        eventually(lambda: not Path(f"/proc/{pids['serve']}").exists() or b"serve" not in Path(f"/proc/{pids['serve']}/cmdline").read_bytes(), 20)
        engine.start()
    else:
        s3 = engine.client("s3")

        def up():
            try:
                return s3.list_buckets()
            except (ClientError, BotoCoreError):
                return None

        eventually(up, 30)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with Engine(os.environ["ISOLARIUM_BINARY"], SETTINGS, internet=False) as running:
        yield running


def test_a_killed_server_loses_nothing_and_leaves_nothing(engine, tmp_path):
    """Proves: NET-72
    """
    s3, sagemaker = engine.client("s3"), engine.client("sagemaker")
    bucket = "crash"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="input/a", Body=b"input data")
    role = engine.create_role("crash", execution_statements(bucket))
    image = engine.pack_image(small_rootfs(tmp_path), "small:1")
    sagemaker.create_model(ModelName="crash", ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": image})
    variant = {"VariantName": "AllTraffic", "ModelName": "crash", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="crash", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="crash", EndpointConfigName="crash")
    assert settled(sagemaker, "crash")["EndpointStatus"] == "InService"
    generator = random.Random(SEED)
    with Load(engine, image, role, bucket) as load:
        for round_number in range(CRASHES):
            time.sleep(generator.uniform(0.02, 0.8))
            crash(engine, generator.choice(("serve", "node", "both")))
            for job in load.jobs[-5:]:
                status = sagemaker.describe_training_job(TrainingJobName=job)["TrainingJobStatus"]
                assert status in LEGAL, (round_number, job, status)
    assert load.answers > CRASHES, "the endpoint went on answering between crashes"
    assert len(load.jobs) > CRASHES // 4
    for key, allowed in load.objects.items():
        try:
            seen = hashlib.sha256(s3.get_object(Bucket=bucket, Key=key)["Body"].read()).hexdigest()
        except s3.exceptions.NoSuchKey:
            seen = None
        assert seen in allowed, key
    for job in load.jobs:
        done = finished(sagemaker, job)
        assert done["TrainingJobStatus"] == "Completed", (job, done.get("FailureReason"))
        key = done["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{bucket}/")
        assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] > 0
    assert settled(sagemaker, "crash")["EndpointStatus"] == "InService"
    sagemaker.delete_endpoint(EndpointName="crash")
    gone(sagemaker, "crash")
    eventually(lambda: not leftovers(engine.data), 30) if leftovers(engine.data) else None
    assert leftovers(engine.data) == []


def test_a_running_endpoint_survives_a_restart_of_the_server(engine, tmp_path):
    s3, sagemaker, runtime = engine.client("s3"), engine.client("sagemaker"), engine.client("sagemaker-runtime")
    role = engine.create_role("restart", execution_statements("restart"))
    image = engine.pack_image(small_rootfs(tmp_path), "small:2")
    sagemaker.create_model(ModelName="restart", ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": image})
    variant = {"VariantName": "AllTraffic", "ModelName": "restart", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="restart", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="restart", EndpointConfigName="restart")
    assert settled(sagemaker, "restart")["EndpointStatus"] == "InService"
    before = container_pids()
    engine.stop()
    assert container_pids() == before, "containers live on without the server"
    engine.start()

    def answer():
        try:
            return runtime.invoke_endpoint(EndpointName="restart", Body=b"x")["Body"].read()
        except (ClientError, BotoCoreError):
            return None

    assert eventually(answer) == b"fixed\n"
    assert container_pids() == before, "adopted, not restarted"
    sagemaker.delete_endpoint(EndpointName="restart")
    gone(sagemaker, "restart")
    assert s3.list_buckets()["Buckets"] is not None


def container_pids():
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid >= 600_000_000:
                found.add(int(pid))
        except OSError:
            continue
    return found


def test_teardown_ends_every_container(engine, tmp_path):
    """The operator's way to stop everything: containers end, data stays, the next start continues."""
    sagemaker = engine.client("sagemaker")
    role = engine.create_role("teardown", execution_statements("teardown"))
    image = engine.pack_image(small_rootfs(tmp_path), "small:3")
    sagemaker.create_model(ModelName="teardown", ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": image})
    variant = {"VariantName": "AllTraffic", "ModelName": "teardown", "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="teardown", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="teardown", EndpointConfigName="teardown")
    assert settled(sagemaker, "teardown")["EndpointStatus"] == "InService"
    assert container_pids()
    engine.stop()
    done = subprocess.run([engine.binary, "teardown", "--data-dir", str(engine.data)], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not container_pids()
    engine.start()
    eventually(lambda: container_pids(), 30)
    assert settled(sagemaker, "teardown")["EndpointStatus"] == "InService"
    sagemaker.delete_endpoint(EndpointName="teardown")
    gone(sagemaker, "teardown")
