"""A transform job while the engine is killed: every object is transformed, no output is torn, nothing is left."""
import os
import random
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine, execution_statements  # noqa: E402
from tests.harness.jobs import eventually  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402
from tests.recovery.test_crash import crash  # noqa: E402

SEED = int(os.environ.get("SEED", "1"))
OBJECTS, ROWS = 300, 40


@pytest.fixture(scope="module")
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"], {"jobs.stop_grace": "1s"}, internet=False) as running:
        running.client("s3").create_bucket(Bucket="transform")
        yield running


def test_kills_repeat_objects_and_tear_no_output(engine, tmp_path):
    """Proves: SM-39, CC-73, NET-72"""
    sagemaker, s3, chance = engine.client("sagemaker"), engine.client("s3"), random.Random(SEED)
    role = engine.create_role("transform", execution_statements("transform"))
    image = engine.pack_image(small_rootfs(tmp_path), "small:1")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": image})
    for number in range(OBJECTS):
        s3.put_object(Bucket="transform", Key=f"in/{number:03}.csv", Body=b"row\n" * ROWS)
    sagemaker.create_transform_job(
        TransformJobName="t", ModelName="m", BatchStrategy="SingleRecord",
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://transform/in/"}}, "SplitType": "Line"},
        TransformOutput={"S3OutputPath": "s3://transform/out"}, TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 2},
    )

    def outputs():
        return {one["Key"] for one in s3.list_objects_v2(Bucket="transform", Prefix="out/").get("Contents", [])}

    kills = 0
    for choice in ("serve", "both", "node", "serve"):
        # Each kill comes while objects are transformed: some are there and some are not.
        before = len(outputs())
        eventually(lambda before=before: len(outputs()) > before, 60, pause=0.01)
        if sagemaker.describe_transform_job(TransformJobName="t")["TransformJobStatus"] != "InProgress":
            break
        time.sleep(chance.uniform(0, 0.1))
        crash(engine, choice)
        kills += 1
    assert kills >= 2, "the job was over before it was killed twice"

    def status():
        return sagemaker.describe_transform_job(TransformJobName="t")

    done = eventually(lambda: (lambda job: job if job["TransformJobStatus"] != "InProgress" else None)(status()), 120)
    assert done["TransformJobStatus"] == "Completed", done
    assert len(outputs()) == OBJECTS
    for key in sorted(outputs()):
        assert s3.get_object(Bucket="transform", Key=key)["Body"].read() == b"fixed\n" * ROWS, key
    eventually(lambda: not list((engine.data / "work").iterdir()), 30)
