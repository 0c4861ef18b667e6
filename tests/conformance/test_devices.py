"""Accelerators: devices that a CDI file describes, one holder at a time. The device is a harmless one of every machine."""
import json
import os
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine, execution_statements  # noqa: E402
from tests.harness.jobs import eventually, finished, training_request  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402

LOOK = "[ -c /dev/fuse ] && echo device || echo none; echo gpu=$GPU_NAME; cat /opt/models/notes 2>/dev/null; while [ ! -e /opt/ml/input/data/train/end ] && [ $1 = long ]; do sleep 0.1; done"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cdi")
    (folder / "notes").write_text("from the driver\n")
    (folder / "gpu.json").write_text(json.dumps({
        "cdiVersion": "0.6.0", "kind": "example.com/gpu",
        "devices": [{"name": "0", "containerEdits": {
            "env": ["GPU_NAME=first"], "deviceNodes": [{"path": "/dev/fuse"}],
            "mounts": [{"hostPath": str(folder / "notes"), "containerPath": "/opt/models/notes", "options": ["ro", "bind"]}],
        }}],
    }))
    (folder / "broken.json").write_text("{")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in folder.parents:
        if parent != Path("/tmp") and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    with Engine(os.environ["ISOLARIUM_BINARY"], {"runtime.cdi_folders": [str(folder)], "runtime.accelerators": "example.com/gpu", "jobs.stop_grace": "1s"}, internet=False) as running:
        yield running


def test_a_type_with_accelerators_gets_devices_that_exist_and_others_are_refused(engine, tmp_path):
    """Proves: CC-7"""
    s3, sagemaker, logs = engine.client("s3"), engine.client("sagemaker"), engine.client("logs")
    s3.create_bucket(Bucket="devices")
    s3.put_object(Bucket="devices", Key="in/a", Body=b"x")
    role = engine.create_role("devices", execution_statements("devices"))
    image = engine.pack_image(small_rootfs(tmp_path), "small:1")

    def create(name, instance_type, mode):
        request = training_request(name, image, role, "devices", "s3://devices/in/")
        request["ResourceConfig"]["InstanceType"] = instance_type
        request["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["/bin/sh", "-c", LOOK], "ContainerArguments": ["sh", mode]}
        sagemaker.create_training_job(**request)

    def lines(name):
        events = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/algo-1-")["events"]
        return [event["message"] for event in events]

    with pytest.raises(ClientError) as refused:
        create("four", "ml.p3.8xlarge", "short")
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert "needs 4 accelerators where this machine offers 1" in str(refused.value)
    create("plain", "ml.m5.large", "short")
    assert finished(sagemaker, "plain")["TrainingJobStatus"] == "Completed"
    assert lines("plain") == ["none", "gpu="], "control: without a device"
    create("first", "ml.p3.2xlarge", "long")
    assert eventually(lambda: len(lines("first")) >= 3 and lines("first"), 60) == ["device", "gpu=first", "from the driver"]
    create("second", "ml.p3.2xlarge", "short")
    eventually(lambda: sagemaker.describe_training_job(TrainingJobName="second")["SecondaryStatus"] == "Pending", 60)
    (waits,) = json.loads(engine.run("top", "--json").stdout)["waiting"]
    assert (waits["name"], waits["instance_type"]) == ("second", "ml.p3.2xlarge")
    # A restart neither forgets who has the device nor gives it twice.
    engine.stop()
    engine.start()
    assert sagemaker.describe_training_job(TrainingJobName="second")["SecondaryStatus"] == "Pending"
    sagemaker.stop_training_job(TrainingJobName="first")
    assert finished(sagemaker, "first")["TrainingJobStatus"] == "Stopped"
    assert finished(sagemaker, "second")["TrainingJobStatus"] == "Completed"
    assert lines("second") == ["device", "gpu=first", "from the driver"]
