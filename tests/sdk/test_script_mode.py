"""The SDK's framework classes, unmodified: the managed images they name are run by local ones, script mode gets its code.

The local image is the digits image with a small runner of our own that follows the convention of the public training toolkit:
`sagemaker_program` out of `sagemaker_submit_directory`, the other hyperparameters as arguments, `SM_*` variables.
"""
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.engine import ACCOUNT, REGION, Engine, execution_statements  # noqa: E402
from harness.jobs import finished  # noqa: E402

LOCAL = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/script-mode:1"
SETTINGS = {
    "tls.inject_ca": True,
    "images.aliases": [
        {"repository": "sagemaker-xgboost", "tag": "1.7-*", "image": LOCAL},
        {"repository": "sagemaker-scikit-learn", "tag": "1.2-1-cpu-*", "image": LOCAL},
    ],
}
RUNNER = '''#!/usr/bin/python3
"""Runs a user's script as the public training toolkit does."""
import json, os, subprocess, sys, tarfile

given = {name: json.loads(value) for name, value in json.load(open("/opt/ml/input/config/hyperparameters.json")).items()}
code, source = "/opt/ml/code", given["sagemaker_submit_directory"]
os.makedirs(code, exist_ok=True)
if source.startswith("s3://"):
    import boto3

    bucket, key = source.removeprefix("s3://").split("/", 1)
    source = "/tmp/sourcedir.tar.gz"
    boto3.client("s3", region_name=given["sagemaker_region"]).download_file(bucket, key, source)
with tarfile.open(source) as archive:
    archive.extractall(code)
channels = {f"SM_CHANNEL_{name.upper()}": f"/opt/ml/input/data/{name}" for name in os.listdir("/opt/ml/input/data")}
arguments = [word for name, value in given.items() if not name.startswith("sagemaker_") for word in (f"--{name}", str(value))]
environment = os.environ | channels | {"SM_MODEL_DIR": "/opt/ml/model", "PYTHONPATH": code}
sys.exit(subprocess.run([sys.executable, os.path.join(code, given["sagemaker_program"]), *arguments], env=environment).returncode)
'''
SCRIPT = '''
import argparse, os

parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int)
rows = [list(map(float, row.split(","))) for row in open(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "rows.csv"))]
slope = 0.0
for _ in range(parser.parse_args().rounds):
    slope += 0.0001 * sum((label - slope * value) * value for label, value, _ in rows)
open(os.path.join(os.environ["SM_MODEL_DIR"], "slope"), "w").write(str(slope))
print(f"learned from {len(rows)} rows")
'''


def other_services(folder, names):
    """botocore's models of services that the runner does not call."""
    if Path(folder).name != "data":
        return [name for name in names if name == "__pycache__"]
    return [name for name in names if (Path(folder) / name).is_dir() and name != "s3"]


@pytest.fixture(scope="module")
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"], SETTINGS) as running:
        cache = Path(os.environ.get("ISOLARIUM_CACHE", Path.home() / ".cache/isolarium"))
        rootfs = running.directory / "rootfs"
        # Python without what the digits need: the smaller an image, the sooner it is packed.
        left_out = shutil.ignore_patterns("numpy*", "scipy*", "sklearn", "scikit_learn*", "joblib*")
        shutil.copytree(cache / "demo-rootfs", rootfs, symlinks=True, ignore=left_out)
        (rootfs / "usr/bin/train").unlink()
        (rootfs / "usr/bin/train").write_text(RUNNER)
        (rootfs / "usr/bin/train").chmod(0o755)
        import botocore

        packages, target = Path(botocore.__file__).parents[1], rootfs / "usr/lib/python3/dist-packages"
        for name in ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3"):
            shutil.copytree(packages / name, target / name, ignore=other_services)
        shutil.copy(packages / "six.py", target)
        assert running.pack_image(rootfs, "script-mode:1") == LOCAL
        shutil.rmtree(rootfs)
        running.client("s3").create_bucket(Bucket="scripts")
        yield running


@pytest.fixture(scope="module")
def session(engine):
    defaults = engine.directory / "sdk.yaml"
    defaults.write_text('SchemaVersion: "1.0"\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n')
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(engine.environment() | {"SAGEMAKER_USER_CONFIG_OVERRIDE": str(defaults), "SAGEMAKER_SUPPRESS_V2_WARNING": "1"})
    try:
        import boto3
        import sagemaker

        rows = "\n".join(f"{label},{label * 2 + number % 3},{number}" for number in range(40) for label in (0, 1))
        boto3.client("s3", region_name=REGION).put_object(Bucket="scripts", Key="in/rows.csv", Body=rows.encode())
        yield sagemaker.Session(boto_session=boto3.Session(region_name=REGION), default_bucket="scripts")
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def common(engine, session, tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    (source / "learn.py").write_text(SCRIPT)
    return {
        "entry_point": "learn.py", "source_dir": str(source), "role": engine.create_role("scripts", execution_statements("scripts")),
        "instance_count": 1, "instance_type": "ml.m5.large", "sagemaker_session": session, "hyperparameters": {"rounds": 200},
        "output_path": "s3://scripts/jobs", "code_location": "s3://scripts/code",
    }


def run(engine, estimator):
    """Runs a job without the SDK's half minutes of waiting; returns its description and log."""
    estimator.fit({"train": "s3://scripts/in/"}, wait=False)
    name = estimator.latest_training_job.name
    job = finished(engine.client("sagemaker"), name)
    events = engine.client("logs").filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/")["events"]
    return job, "\n".join(event["message"] for event in events)


def test_a_framework_class_runs_isolated_with_its_managed_images_name(engine, common):
    """Proves: CC-11, NI-4"""
    from sagemaker.xgboost import XGBoost

    job, log = run(engine, XGBoost(framework_version="1.7-1", enable_network_isolation=True, **common))
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), log)
    assert "learned from 80 rows" in log
    image = job["AlgorithmSpecification"]["TrainingImage"]
    assert image.endswith("/sagemaker-xgboost:1.7-1") and not image.startswith(ACCOUNT), "as it was asked for"
    assert "code" in [channel["ChannelName"] for channel in job["InputDataConfig"]]
    objects = engine.client("s3").list_objects_v2(Bucket="scripts", Prefix="code/")["Contents"]
    sources = [found["Key"] for found in objects if found["Key"].endswith("/sourcedir.tar.gz")]
    heads = [engine.client("s3").head_object(Bucket="scripts", Key=source) for source in sources]
    assert sources and all(head["ServerSideEncryption"] == "aws:kms" for head in heads), "the SDK has its uploads encrypted"
    directory = json.loads(job["HyperParameters"]["sagemaker_submit_directory"])
    assert directory == "/opt/ml/input/data/code/sourcedir.tar.gz", "the code came by a channel"
    assert engine.internet.arrivals() == []


def test_the_families_that_need_s3_run_open_and_refuse_isolation(engine, common):
    """Proves: CC-11, NI-20, D-6"""
    from botocore.exceptions import ClientError
    from sagemaker.sklearn import SKLearn

    isolated = SKLearn(framework_version="1.2-1", py_version="py3", enable_network_isolation=True, **common)
    with pytest.raises(ClientError) as refused:
        isolated.fit({"train": "s3://scripts/in/"}, wait=False)
    assert refused.value.response["Error"]["Code"] == "ValidationException" and "scikit-learn" in str(refused.value)
    job, log = run(engine, SKLearn(framework_version="1.2-1", py_version="py3", **common))
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), log)
    assert "learned from 80 rows" in log
    assert json.loads(job["HyperParameters"]["sagemaker_submit_directory"]).startswith("s3://scripts/code/"), "fetched by the container"
