"""Stopping and starting: what stays, what is adopted, what ends when the operator says so."""
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine, execution_statements  # noqa: E402
from tests.harness.jobs import eventually, finished, gone, settled, training_request, with_program  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402
from tests.harness.traces import Traces  # noqa: E402
from tests.recovery.test_crash import crash  # noqa: E402

SETTINGS = {
    "jobs.stop_grace": "1s", "jobs.checkpoint_interval": "500ms", "endpoints.ping_interval": "200ms", "endpoints.startup_timeout": "60s",
    "endpoints.restart_backoff": "100ms",
}


@pytest.fixture(scope="module")
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"], SETTINGS, internet=False) as running:
        running.client("s3").create_bucket(Bucket="restart")
        running.client("s3").put_object(Bucket="restart", Key="input/a", Body=b"input data")
        yield running


@pytest.fixture(scope="module")
def role(engine):
    return engine.create_role("restart", execution_statements("restart"))


@pytest.fixture(scope="module")
def image(engine, tmp_path_factory):
    return engine.pack_image(small_rootfs(tmp_path_factory.mktemp("image")), "small:1")


@pytest.fixture
def traces(engine):
    with Traces(engine) as traces:
        yield traces


@pytest.fixture
def endpoint(engine, role, image, request):
    """An endpoint in service with one sealed container; gone afterwards."""
    sagemaker, name = engine.client("sagemaker"), request.node.name.replace("_", "-")[:40].strip("-")
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": image})
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    yield name
    sagemaker.delete_endpoint(EndpointName=name)
    gone(sagemaker, name)


def invoke(engine, endpoint):
    return engine.client("sagemaker-runtime").invoke_endpoint(EndpointName=endpoint, Body=b"x")["Body"].read()


def test_a_restart_keeps_records_and_adopts_running_containers(engine, role, image, endpoint, traces):
    """Proves: NET-72
    """
    sagemaker, s3 = engine.client("sagemaker"), engine.client("s3")
    serving, models = traces.containers(), sagemaker.list_models()["Models"]
    sagemaker.create_training_job(**training_request("over-restart", image, role, "restart", "s3://restart/input/", HyperParameters={"seconds": "2"}))
    eventually(lambda: sagemaker.describe_training_job(TrainingJobName="over-restart")["SecondaryStatus"] == "Training")
    engine.stop()
    assert serving and serving.items() <= traces.containers().items(), "containers live on without the server"
    engine.start()
    assert invoke(engine, endpoint) == b"fixed\n", "served by the first request after the start"
    assert serving.items() <= traces.containers().items(), "adopted, not restarted"
    assert sagemaker.list_models()["Models"] == models
    assert s3.get_object(Bucket="restart", Key="input/a")["Body"].read() == b"input data"
    assert finished(sagemaker, "over-restart")["TrainingJobStatus"] == "Completed"


def test_a_container_whose_shim_is_killed_is_replaced_and_leaves_nothing(engine, endpoint, traces):
    """Proves: NET-72
    """
    before = set(traces.containers())
    for pid, name in (traces.helpers() | traces.waiting()).items():
        assert name == "shim"
        os.kill(pid, signal.SIGKILL)

    def replaced():
        now = set(traces.containers())
        return now and not now & before

    eventually(replaced, 30)
    eventually(lambda: answer(engine, endpoint) == b"fixed\n", 30)
    eventually(lambda: len(traces.helpers()) == 1 and len(list((engine.data / "work").iterdir())) == 1, 30)


def answer(engine, endpoint):
    try:
        return invoke(engine, endpoint)
    except (ClientError, BotoCoreError):
        return None


def test_teardown_ends_every_container_and_the_next_start_continues(engine, endpoint, traces):
    """Proves: NET-72
    """
    assert traces.containers()
    engine.stop()
    engine.run("teardown")
    assert not traces.containers() and not traces.helpers() and not traces.waiting()
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert [point for point in points if point.startswith(str(engine.data))] == []
    engine.start()
    eventually(lambda: answer(engine, endpoint) == b"fixed\n", 30)
    assert settled(engine.client("sagemaker"), endpoint)["EndpointStatus"] == "InService"


def test_sigterm_lets_a_running_upload_end(engine):
    """A request whose body is half sent when SIGTERM comes is answered, and what it stored is there after the start."""
    s3, body = engine.client("s3"), bytes(range(256)) * 4096
    half, go_on = threading.Event(), threading.Event()

    class Slow:
        """Stops in the middle until told to go on."""

        def __init__(self):
            self.at = 0

        def read(self, size=-1):
            if self.at >= len(body) // 2 and not go_on.is_set():
                half.set()
                go_on.wait(20)
            end = len(body) if size < 0 else self.at + min(size, 16384)
            piece = body[self.at:end]
            self.at += len(piece)
            return piece

        def __len__(self):
            return len(body)

    import urllib.request

    url = s3.generate_presigned_url("put_object", Params={"Bucket": "restart", "Key": "slow"})
    statuses = []

    def upload():
        request = urllib.request.Request(url, data=Slow(), method="PUT", headers={"Content-Length": str(len(body)), "Content-Type": ""})
        statuses.append(urllib.request.urlopen(request, timeout=30).status)

    thread = threading.Thread(target=upload)
    thread.start()
    assert half.wait(20)
    engine.process.send_signal(signal.SIGTERM)
    # The listener closes first: a new connection is refused while the old one goes on.
    eventually(lambda: answerless(engine), 20)
    assert engine.process.poll() is None
    go_on.set()
    thread.join(30)
    assert statuses == [200]
    assert engine.process.wait(30) == 0
    engine.stop()
    engine.start()
    assert engine.client("s3").get_object(Bucket="restart", Key="slow")["Body"].read() == body


def answerless(engine):
    import socket

    host, port = engine.url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
        return False
    except OSError:
        return True


def test_ctrl_c_in_the_foreground_stops_both_halves_and_leaves_containers(engine, endpoint, traces):
    """SIGINT goes to the whole group of a terminal's foreground job; containers live on and are adopted."""
    before, pids = traces.containers(), engine.pids()
    os.killpg(engine.process.pid, signal.SIGINT)
    assert engine.process.wait(30) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
    assert traces.containers() == before
    engine.stop()
    engine.start()
    assert invoke(engine, endpoint) == b"fixed\n"
    assert before.items() <= traces.containers().items()


def test_a_full_disk_is_said_and_nothing_is_torn(tmp_path):
    """Objects, records and jobs on a disk of 64 MiB that fills: clear errors, everything acknowledged is whole, and work
    goes on when there is room again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        with Engine(os.environ["ISOLARIUM_BINARY"], SETTINGS, internet=False, directory=disk) as engine:
            s3, sagemaker = engine.client("s3", config={"retries": {"max_attempts": 0}}), engine.client("sagemaker")
            s3.create_bucket(Bucket="full")
            s3.put_object(Bucket="full", Key="input/a", Body=b"input data")
            role = engine.create_role("full", execution_statements("full"))
            image = engine.pack_image(small_rootfs(tmp_path), "small:1")
            stored, refused = [], None
            while refused is None:
                key = f"fill/{len(stored)}"
                try:
                    s3.put_object(Bucket="full", Key=key, Body=key.encode() * 200_000)
                    stored.append(key)
                    assert len(stored) < 64
                except ClientError as error:
                    refused = error.response["Error"]
            assert refused["Code"] == "InternalError" and "disk" in refused["Message"] and "full" in refused["Message"], refused
            for key in stored:
                assert s3.get_object(Bucket="full", Key=key)["Body"].read() == key.encode() * 200_000
            # A kill on the full disk: the next start reads everything, and deleting makes room.
            os.kill(engine.pids()["node"], signal.SIGKILL)
            engine.process.wait(20)
            engine.start()
            s3 = engine.client("s3")
            for key in stored:
                assert s3.get_object(Bucket="full", Key=key)["Body"].read() == key.encode() * 200_000
                s3.delete_object(Bucket="full", Key=key)
            sagemaker.create_training_job(**training_request("room", image, role, "full", "s3://full/input/"))
            done = finished(sagemaker, "room")
            assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


RING = """
me=$(sed -n 's/.*"current_host":"\\([^"]*\\)".*/\\1/p' /opt/ml/input/config/resourceconfig.json)
case $me in algo-1) next=algo-2;; algo-2) next=algo-3;; *) next=algo-1;; esac
(while true; do echo served | nc -l -p 7000 >/dev/null 2>&1; done) &
until [ -e /tmp/told ]; do
  nc -w 1 $next 7000 </dev/null 2>/dev/null | grep -q served && echo met || echo cut
  sleep 0.3
done
"""


def test_several_instances_live_through_kills_of_both_halves_and_end_together(engine, role, image, traces):
    """
    Isolated instances meet before and after both halves of the engine were killed; then one shim is killed, which is the end
    of its instance, and so of the job.
    Proves: NI-9, NET-72, CC-31
    """
    sagemaker, logs, name = engine.client("sagemaker"), engine.client("logs"), "ring"
    request = training_request(name, image, role, "restart", "s3://restart/input/")
    request["ResourceConfig"]["InstanceCount"] = 3
    sagemaker.create_training_job(**with_program(engine, "restart", request, RING, "/bin/sh"))

    def meetings():
        try:
            found = engine.client("logs").filter_log_events(
                logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/", filterPattern="met")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return {}
        counted = {}
        for event in found:
            counted[event["logStreamName"]] = counted.get(event["logStreamName"], 0) + 1
        return counted

    eventually(lambda: len(meetings()) == 3, 60)

    def inits():
        """The first process of each container; the others come and go."""
        first = {}
        for pid, workload in traces.containers().items():
            first[workload] = min(pid, first.get(workload, pid))
        return first

    running, pids = inits(), engine.pids()
    assert len(running) == 3
    for pid in (pids["serve"], pids["node"]):
        os.kill(pid, signal.SIGKILL)
    engine.process.wait(20)
    engine.start()
    sagemaker = engine.client("sagemaker")
    before = meetings()
    assert inits() == running, "adopted, not restarted"
    eventually(lambda: all(meetings().get(stream, 0) >= count + 2 for stream, count in before.items()), 60)
    victim = next(pid for pid, kind in traces.helpers().items() if kind == "shim")
    os.kill(victim, signal.SIGKILL)
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Failed"
    # What happened to the program nobody knows: the engine lost it.
    assert done["FailureReason"] == "InternalServerError: The instance that ran the job was lost.", done["FailureReason"]
    eventually(lambda: not traces.containers() and not list((engine.data / "work").iterdir()), 30)


COUNT = """
trap 'echo counted > /opt/ml/output/message; exit 0' TERM
n=0
while true; do n=$((n + 1)); echo $n > /opt/ml/processing/live/n; sleep 0.1; done
"""


def test_a_processing_job_is_adopted_by_the_next_server_and_its_output_goes_on(engine, role, image, traces):
    """Proves: NET-72, CC-42, CC-45
    """
    sagemaker, s3, name = engine.client("sagemaker"), engine.client("s3"), "count"
    s3.put_object(Bucket="restart", Key="code/main", Body=COUNT.encode())
    base = "/opt/ml/processing"
    sagemaker.create_processing_job(
        ProcessingJobName=name, RoleArn=role, NetworkConfig={"EnableNetworkIsolation": True},
        AppSpecification={"ImageUri": image, "ContainerEntrypoint": ["/bin/sh", f"{base}/code/main"]},
        ProcessingResources={"ClusterConfig": {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}},
        ProcessingInputs=[{"InputName": "code", "S3Input": {
            "S3Uri": "s3://restart/code/main", "LocalPath": f"{base}/code", "S3DataType": "S3Prefix", "S3InputMode": "File"}}],
        ProcessingOutputConfig={"Outputs": [{"OutputName": "live", "S3Output": {
            "S3Uri": "s3://restart/live", "LocalPath": f"{base}/live", "S3UploadMode": "Continuous"}}]},
    )

    def counted():
        try:
            return int(s3.get_object(Bucket="restart", Key="live/n")["Body"].read() or 0)
        except s3.exceptions.NoSuchKey:
            return 0

    eventually(counted, 60)
    running = traces.containers()
    # The supervisor starts another server, which finds the container.
    crash(engine, "serve")
    before = counted()
    eventually(lambda: counted() > before, 60)
    assert set(running.values()) == set(traces.containers().values()), "adopted, not restarted"
    sagemaker.stop_processing_job(ProcessingJobName=name)
    status = lambda: sagemaker.describe_processing_job(ProcessingJobName=name)  # noqa: E731
    eventually(lambda: status()["ProcessingJobStatus"] not in ("InProgress", "Stopping"), 60)
    done = status()
    assert (done["ProcessingJobStatus"], done["ExitMessage"]) == ("Stopped", "counted\n"), done
    eventually(lambda: not traces.containers() and not list((engine.data / "work").iterdir()), 30)


def test_pipes_are_served_again_after_a_kill_or_the_job_says_what_was_cut(engine, role, image, traces):
    """Between two epochs nothing is lost. Within one, the container cannot know that there would have been more.
    Proves: CC-25
    """
    sagemaker, s3, work = engine.client("sagemaker"), engine.client("s3"), engine.data / "work"
    s3.put_object(Bucket="restart", Key="piped/large", Body=bytes(8 << 20))

    def pipes():
        return sorted(path.name for path in work.rglob("train_*"))

    def killed_while(name, before, after, wanted):
        """A job that goes on when the engine is back; the pipes that are there when it is killed."""
        wait = "until /bin/busybox test -e go; do sleep 0.1; done"
        request = training_request(name, image, role, "restart", "s3://restart/piped/", HyperParameters={})
        request["InputDataConfig"][0]["InputMode"] = "Pipe"
        request = with_program(engine, "restart", request, f"cd /opt/ml/input/data; {before}; {wait}; {after}", "/bin/sh")
        sagemaker.create_training_job(**request)
        eventually(lambda: pipes() == wanted, timeout=60)
        for pid in engine.pids().values():
            os.kill(pid, signal.SIGKILL)
        engine.process.wait(20)
        # Seen by the container, which waits for it.
        (data,) = work.glob("*/input/data")
        (data / "go").touch()
        (data / "go").chmod(0o644)
        engine.start()
        done = finished(engine.client("sagemaker"), name)
        eventually(lambda: not list(work.iterdir()) and not traces.containers(), 60)
        return done

    done = killed_while("between-epochs", "cat train_0 > /dev/null", "cat train_1 > /opt/ml/model/1", ["train_1"])
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    body = s3.get_object(Bucket="restart", Key="jobs/between-epochs/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert archive.getmember("1").size == 8 << 20
    done = killed_while("within-an-epoch", "exec 3< train_0; read -n 3 line <&3", "cat <&3 > /dev/null", ["train_0", "train_1"])
    assert done["TrainingJobStatus"] == "Failed"
    assert done["FailureReason"].startswith("InternalServerError: Data download failed:The engine was restarted while epoch 0"), done["FailureReason"]
