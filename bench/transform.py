"""Rows per second of a transform job, a row per request, against direct calls to the same server and against curl in a loop.

The server is the static responder in a sealed container, for all three; the direct client and curl run inside its namespace.
A job's time is what DescribeTransformJob tells: from the start of its container to its end, with cutting, joining in order and
storing the output.
"""
import subprocess
import tempfile
import time

from bench import wrk
from bench.invoke import live_endpoint
from bench.processes import containers, favour
from tests.harness.engine import Engine, execution_statements

ROW = "x" * 128 + "\n"


def job_rate(sagemaker, name, rows, **members):
    """Rows per second of one job."""
    sagemaker.create_transform_job(**{
        "TransformJobName": name, "ModelName": "t",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://transform/in/{rows}.csv"}},
            "ContentType": "text/csv", "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": "s3://transform/out", "AssembleWith": "None"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    } | members)
    while (job := sagemaker.describe_transform_job(TransformJobName=name))["TransformJobStatus"] == "InProgress":
        time.sleep(0.05)
    assert job["TransformJobStatus"] == "Completed", job
    return rows / (job["TransformEndTime"] - job["TransformStartTime"]).total_seconds()


def curl_rate(inside, calls):
    """Calls per second of curl, started anew for each, as a shell loop does."""
    line = f"curl -s -o /dev/null --data-binary {ROW.strip()} http://127.0.0.1:8080/invocations"
    began = time.monotonic()
    subprocess.run([*inside, "sh", "-c", f"i=0; while [ $i -lt {calls} ]; do {line}; i=$((i+1)); done"], check=True)
    return calls / (time.monotonic() - began)


def run(binary, cache, quick):
    rows, seconds = (20_000, 3) if quick else (200_000, 10)
    with tempfile.TemporaryDirectory() as directory, Engine(binary, {"endpoints.ping_interval": "5s"}, internet=False) as engine:
        live_endpoint(engine, directory)
        ((container, _),) = containers(engine).values()
        favour(*engine.pids().values(), container)
        inside = ["nsenter", "-t", str(container), "-n"]
        sagemaker, s3 = engine.client("sagemaker"), engine.client("s3")
        s3.create_bucket(Bucket="transform")
        s3.put_object(Bucket="transform", Key=f"in/{rows}.csv", Body=(ROW * rows).encode())
        role = engine.create_role("transform", execution_statements("transform"))
        image = sagemaker.describe_model(ModelName="m")["PrimaryContainer"]["Image"]
        sagemaker.create_model(ModelName="t", ExecutionRoleArn=role, PrimaryContainer={"Image": image}, EnableNetworkIsolation=True)
        curl = curl_rate(inside, 100 if quick else 500)
        for at_once in (1, 8):
            direct = wrk.run("http://127.0.0.1:8080/invocations", ROW.strip(), {}, at_once, seconds, inside)["rate"]
            ours = job_rate(sagemaker, f"single-{at_once}", rows, BatchStrategy="SingleRecord", MaxConcurrentTransforms=at_once)
            name = f"transform, a row per request, {at_once} at once: rows/s"
            yield {"name": name, "unit": "1/s", "ours": ours, "reference": direct, "reference_name": "direct calls, as many connections"}
            if at_once == 1:
                yield {"name": name, "unit": "1/s", "ours": ours, "reference": curl, "reference_name": "curl in a loop", "budget": ">= 5"}
        sagemaker.delete_endpoint(EndpointName="e")
