"""An asynchronous endpoint while the engine is killed: what was accepted is answered."""
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.harness.engine import Engine, execution_statements  # noqa: E402
from tests.harness.jobs import eventually, gone, settled  # noqa: E402
from tests.harness.small_image import small_rootfs  # noqa: E402
from tests.recovery.test_crash import crash  # noqa: E402

REQUESTS = 60


@pytest.fixture(scope="module")
def engine():
    with Engine(os.environ["ISOLARIUM_BINARY"], {"jobs.stop_grace": "1s"}, internet=False) as running:
        running.client("s3").create_bucket(Bucket="queue")
        yield running


def test_kills_lose_no_accepted_request(engine, tmp_path):
    """Proves: SM-55, NET-72"""
    sagemaker, s3, runtime = engine.client("sagemaker"), engine.client("s3"), engine.client("sagemaker-runtime")
    role = engine.create_role("queue", execution_statements("queue"))
    image = engine.pack_image(small_rootfs(tmp_path), "small:1")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": image})
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    config = {"OutputConfig": {"S3OutputPath": "s3://queue/out", "S3FailurePath": "s3://queue/failed"}, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1}}
    sagemaker.create_endpoint_config(EndpointConfigName="e", ProductionVariants=[variant], AsyncInferenceConfig=config)
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="e")
    assert settled(sagemaker, "e")["EndpointStatus"] == "InService"
    s3.put_object(Bucket="queue", Key="in", Body=b"row")
    # Requests that were not acknowledged are no promise; those that were are all kept.
    accepted = []
    for choice in ("serve", "both", "serve"):
        for _ in range(REQUESTS // 3):
            accepted.append(runtime.invoke_endpoint_async(EndpointName="e", InputLocation="s3://queue/in")["OutputLocation"])
        crash(engine, choice)

    def missing():
        stored = {f"s3://queue/{one['Key']}" for one in s3.list_objects_v2(Bucket="queue", Prefix="out/").get("Contents", [])}
        return set(accepted) - stored

    eventually(lambda: not missing(), 180)
    for output in accepted:
        assert s3.get_object(Bucket="queue", Key=output.removeprefix("s3://queue/"))["Body"].read() == b"fixed\n"
    assert "Contents" not in s3.list_objects_v2(Bucket="queue", Prefix="failed/")
    sagemaker.delete_endpoint(EndpointName="e")
    gone(sagemaker, "e")
