"""Data capture of endpoints: what was asked and answered as JSON lines in S3, through unmodified boto3."""
import base64
import datetime
import json
import re

import pytest
from botocore.exceptions import ClientError

from tests.harness.engine import execution_statements
from tests.harness.jobs import eventually, gone, settled


@pytest.fixture(scope="module")
def runtime(engine):
    return engine.client("sagemaker-runtime")


def captures(destination, percentage=100, modes=("Input", "Output"), **members):
    return {
        "EnableCapture": True, "InitialSamplingPercentage": percentage, "DestinationS3Uri": destination,
        "CaptureOptions": [{"CaptureMode": mode} for mode in modes], "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
    } | members


def configure(sagemaker, name, model, capture):
    variant = {"VariantName": "v", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **({"DataCaptureConfig": capture} if capture else {}))


def kept(engine, bucket, prefix):
    """Keys of the files below a prefix, and all their lines."""
    s3 = engine.client("s3")
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]
    return keys, [json.loads(line) for key in keys for line in s3.get_object(Bucket=bucket, Key=key)["Body"].read().splitlines()]


def test_requests_and_answers_are_kept_as_the_configuration_says(engine, sagemaker, runtime, name, small, role, bucket):
    """The container is sealed: the platform writes, as the execution role. Configurations without capture, and with a share
    of nothing, are the control.

    Proves: CC-60, CC-61, CC-62, CC-63, SM-23, SM-52
    """
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": small}, EnableNetworkIsolation=True)
    there = f"s3://{bucket}/captured/{name}"
    for kind, capture in (
        ("all", captures(there)), ("half", captures(f"{there}-half", 50, ("Input",))),
        ("none", captures(f"{there}-none", 0)), ("off", captures(f"{there}-off", EnableCapture=False)),
    ):
        configure(sagemaker, f"{name}-{kind}", name, capture)
    shown = sagemaker.describe_endpoint_config(EndpointConfigName=f"{name}-all")["DataCaptureConfig"]
    assert shown == captures(there)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"{name}-all")
    endpoint = settled(sagemaker, name)
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    summary = endpoint["DataCaptureConfig"]
    assert (summary["EnableCapture"], summary["CaptureStatus"], summary["CurrentSamplingPercentage"], summary["DestinationS3Uri"]) == (True, "Started", 100, there)

    def invoke(body=b"x", **members):
        return runtime.invoke_endpoint(EndpointName=name, Body=body, **members)["Body"].read()

    assert invoke(b"1,2", ContentType="text/csv", InferenceId="mine") == b"fixed\n"
    assert invoke(b"\x00\xff", ContentType="application/x-bytes") == b"fixed\n"
    # An update delivers what waits, and a new configuration counts from then on.
    for kind in ("none", "off"):
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-{kind}")
        assert settled(sagemaker, name)["EndpointConfigName"] == f"{name}-{kind}"
        invoke()
    assert sagemaker.describe_endpoint(EndpointName=name)["DataCaptureConfig"]["CaptureStatus"] == "Stopped"
    keys, lines = eventually(lambda: (lambda seen: seen if len(seen[1]) == 2 else None)(kept(engine, bucket, f"captured/{name}/")), 60)
    for key in keys:
        assert re.fullmatch(rf"captured/{name}/{name}/v/\d{{4}}/\d\d/\d\d/\d\d/[0-9a-f-]+\.jsonl", key), key
    by_kind = {line["captureData"]["endpointInput"]["observedContentType"]: line for line in lines}
    csv, raw = by_kind["text/csv"], by_kind["application/x-bytes"]
    assert csv["captureData"]["endpointInput"] == {"observedContentType": "text/csv", "mode": "INPUT", "data": "1,2", "encoding": "CSV"}
    output = csv["captureData"]["endpointOutput"]
    assert (output["mode"], output["encoding"], base64.b64decode(output["data"])) == ("OUTPUT", "BASE64", b"fixed\n")
    assert base64.b64decode(raw["captureData"]["endpointInput"]["data"]) == b"\x00\xff"
    assert csv["eventVersion"] == "0" and csv["eventMetadata"]["inferenceId"] == "mine" and "inferenceId" not in raw["eventMetadata"]
    when = datetime.datetime.strptime(csv["eventMetadata"]["inferenceTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    assert abs(datetime.datetime.now(datetime.timezone.utc) - when) < datetime.timedelta(minutes=15)
    assert len({line["eventMetadata"]["eventId"] for line in lines}) == 2
    # The settings stay when properties are retained, unless they are excluded.
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-half", RetainAllVariantProperties=True)
    settled(sagemaker, name)
    assert sagemaker.describe_endpoint(EndpointName=name)["DataCaptureConfig"]["CaptureStatus"] == "Stopped"
    sagemaker.update_endpoint(
        EndpointName=name, EndpointConfigName=f"{name}-half", RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DataCaptureConfig"}],
    )
    settled(sagemaker, name)
    for _ in range(200):
        invoke(b"1,2", ContentType="text/csv")
    # The end of an endpoint delivers what waits, too.
    sagemaker.delete_endpoint(EndpointName=name)
    gone(sagemaker, name)
    _, half = kept(engine, bucket, f"captured/{name}-half/")
    # Five standard deviations around the expected 100: wrong once in a million runs.
    assert 65 <= len(half) <= 135, len(half)
    assert all(set(line["captureData"]) == {"endpointInput"} for line in half)
    assert kept(engine, bucket, f"captured/{name}-none/") == ([], []) and kept(engine, bucket, f"captured/{name}-off/") == ([], [])


def test_capture_that_the_role_may_not_write_fails_no_invocation(engine, sagemaker, runtime, name, small, bucket):
    """The same role keeps what goes where it may write, the control.

    Proves: CC-63
    """
    deny = {"Effect": "Deny", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/denied/*"}
    role = engine.create_role(f"{name[:50]}-role", [*execution_statements(bucket), deny])
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": small}, EnableNetworkIsolation=True)
    configure(sagemaker, f"{name}-denied", name, captures(f"s3://{bucket}/denied/{name}"))
    configure(sagemaker, f"{name}-allowed", name, captures(f"s3://{bucket}/allowed/{name}"))
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"{name}-denied")
    for kind in ("denied", "allowed"):
        assert settled(sagemaker, name)["EndpointStatus"] == "InService"
        for _ in range(3):
            assert runtime.invoke_endpoint(EndpointName=name, Body=b"x")["Body"].read() == b"fixed\n"
        if kind == "denied":
            sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-allowed")
    sagemaker.delete_endpoint(EndpointName=name)
    gone(sagemaker, name)
    assert len(kept(engine, bucket, f"allowed/{name}/")[1]) == 3
    assert kept(engine, bucket, f"denied/{name}/") == ([], [])
    with pytest.raises(ClientError, match="alias/mine is not found"):
        configure(sagemaker, f"{name}-kms", name, captures(f"s3://{bucket}/x", KmsKeyId="alias/mine"))
