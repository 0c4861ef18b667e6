"""Encrypted storage volumes of jobs whose engine, or whose machine, is killed under them."""
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.conformance.test_volumes import gone, images, known, role_with  # noqa: E402
from tests.harness.engine import Engine  # noqa: E402
from tests.harness.jobs import eventually, finished, training_request  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402
from tests.harness.traces import Traces  # noqa: E402
from tests.recovery.test_crash import crash  # noqa: E402


@pytest.fixture(scope="module")
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"], {"jobs.stop_grace": "1s"}, internet=False) as running:
        s3 = running.client("s3")
        s3.create_bucket(Bucket="volumes")
        s3.put_object(Bucket="volumes", Key="input/a", Body=b"input data")
        yield running


@pytest.fixture(scope="module")
def image(engine, tmp_path_factory):
    return engine.pack_image(small_rootfs(tmp_path_factory.mktemp("image")), "small:1")


@pytest.fixture(scope="module")
def key(engine):
    return engine.client("kms").create_key()["KeyMetadata"]["Arn"]


@pytest.fixture(scope="module")
def role(engine, key):
    return role_with(engine, "volumes", "volumes", key)


def begin(engine, image, role, key, name, seconds):
    request = training_request(name, image, role, "volumes", "s3://volumes/input/", HyperParameters={"seconds": seconds})
    request["ResourceConfig"] = request["ResourceConfig"] | {"VolumeKmsKeyId": key}
    engine.client("sagemaker").create_training_job(**request)


def trains(engine, name):
    return engine.client("sagemaker").describe_training_job(TrainingJobName=name)["SecondaryStatus"] == "Training"


def test_a_job_on_an_encrypted_volume_outlives_the_engine(engine, image, role, key):
    """Proves: NET-72, CC-36
    """
    begin(engine, image, role, key, "outlives", "4")
    eventually(lambda: trains(engine, "outlives"), 120)
    for choice in ("both", "serve", "node"):
        crash(engine, choice)
    done = finished(engine.client("sagemaker"), "outlives")
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    assert engine.client("s3").head_object(Bucket="volumes", Key="jobs/outlives/output/model.tar.gz")["ContentLength"] > 0
    gone(engine)


def end(*pids):
    """Kills processes; the end of one may be that of the next."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_volume_does_not_outlive_its_key(engine, image, role, key):
    """The machine ends: nothing runs any more, nothing is mounted, and the key was in memory alone. The image that is left
    is nobody's, and goes.

    Proves: NET-72, CC-36
    """
    begin(engine, image, role, key, "lost", "600")
    eventually(lambda: trains(engine, "lost"), 120)
    with Traces(engine) as traces:
        assert images(engine) and known(engine)
        end(engine.pids()["node"], engine.pids()["serve"])
        engine.process.wait(20)
        end(*traces.containers())
        eventually(lambda: not traces.containers(), 60)
        for image_path in images(engine):
            subprocess.run(["umount", "-l", str(image_path.with_suffix(""))], check=True)
        eventually(lambda: not known(engine), 60)
        engine.start()
        done = finished(engine.client("sagemaker"), "lost")
        assert done["TrainingJobStatus"] == "Failed", done
        gone(engine)
