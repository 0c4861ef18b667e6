"""Asynchronous endpoints and serverless variants, through unmodified boto3."""
import concurrent.futures
import json

import pytest
from botocore.exceptions import ClientError

from tests.harness.jobs import eventually, gone, settled

# Answers with what it was asked, fails when it is told to, holds requests until all that are expected are there.
APP = """
import json, os, signal, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK, HELD, SEEN = threading.Condition(), [], {"now": 0, "most": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with LOCK:
            SEEN["now"] += 1
            SEEN["most"] = max(SEEN["most"], SEEN["now"])
            if body.startswith(b"hold"):
                HELD.append(body)
                LOCK.notify_all()
                LOCK.wait_for(lambda: len(HELD) >= int(body.split()[1]), 30)
        try:
            if body == b"fail":
                return self.answer(503, b"not today")
            if body == b"seen":
                return self.answer(200, json.dumps(SEEN).encode())
            told = "|".join([body[:99].decode(), *(str(self.headers.get(one)) for one in ("Content-Type", "Accept", "X-Amzn-SageMaker-Custom-Attributes", "X-Amzn-SageMaker-Inference-Id"))])
            self.answer(200, told.encode())
        finally:
            with LOCK:
                SEEN["now"] -= 1

    def log_message(self, *arguments):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
PROGRAM = [word for part in ("/usr/bin/python3", "-c", APP) for word in ("--entrypoint", part)]


@pytest.fixture(scope="module")
def runtime(engine):
    return engine.client("sagemaker-runtime")


@pytest.fixture(scope="module")
def asked(engine, rootfs):
    return engine.pack_image(rootfs, "asked:1", *PROGRAM)


def variant(model, **members):
    return {"VariantName": "v", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1} | members


def create(sagemaker, name, variants, **members):
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants, **members)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    endpoint = settled(sagemaker, name)
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    return endpoint


def delete(sagemaker, name):
    sagemaker.delete_endpoint(EndpointName=name)
    gone(sagemaker, name)


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]


def stored(s3, uri):
    """The object at an address, once it is there."""
    bucket, key = uri.removeprefix("s3://").split("/", 1)

    def look():
        try:
            return s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except s3.exceptions.NoSuchKey:
            return None

    return eventually(look, 90)


def test_a_queued_request_is_answered_in_s3(engine, sagemaker, runtime, name, asked, role, bucket):
    """Proves: SM-55, NI-12, NI-13, IAM-35"""
    s3 = engine.client("s3")
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": asked})
    config = {
        "OutputConfig": {"S3OutputPath": f"s3://{bucket}/{name}/out/", "S3FailurePath": f"s3://{bucket}/{name}/failed"},
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
    }
    endpoint = create(sagemaker, name, [variant(name)], AsyncInferenceConfig=config)
    assert sagemaker.describe_endpoint_config(EndpointConfigName=name)["AsyncInferenceConfig"] == config
    assert endpoint["AsyncInferenceConfig"] == config

    def put(body):
        key = f"{name}/in/{body[:20].decode().replace(' ', '-')}"
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        return f"s3://{bucket}/{key}"

    def ask(body, **members):
        return runtime.invoke_endpoint_async(EndpointName=name, InputLocation=put(body), **members)

    answer = ask(b"one", ContentType="t/in", Accept="t/out", CustomAttributes="c=1", InferenceId="mine", RequestTTLSeconds=60, InvocationTimeoutSeconds=30)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202 and answer["InferenceId"] == "mine"
    assert answer["OutputLocation"].startswith(f"s3://{bucket}/{name}/out/") and answer["OutputLocation"].endswith(".out")
    assert answer["FailureLocation"].startswith(f"s3://{bucket}/{name}/failed/") and answer["FailureLocation"].endswith("-error.out")
    assert stored(s3, answer["OutputLocation"]) == b"one|t/in|t/out|c=1|mine"
    placed = ask(b"two", S3OutputPathExtension="deep/er", Filename="named.txt")
    assert placed["OutputLocation"] == f"s3://{bucket}/{name}/out/deep/er/named.txt" and placed["InferenceId"]
    assert stored(s3, placed["OutputLocation"]).startswith(b"two|")
    large = ask(b"x" * (8 << 20))
    assert stored(s3, large["OutputLocation"]).startswith(b"x" * 99), "larger than any body of InvokeEndpoint"
    # Two at once, never more: each of them waits until the other one is there.
    many = [ask(b"hold 2 %d" % number) for number in range(2)] + [ask(b"more %d" % number) for number in range(6)]
    for one in many:
        stored(s3, one["OutputLocation"])
    assert json.loads(stored(s3, ask(b"seen")["OutputLocation"]))["most"] == 2
    # Failures are told, and told apart.
    failed = ask(b"fail")
    assert stored(s3, failed["FailureLocation"]) == b'Received server error (503) from primary with message "not today".'
    missing = runtime.invoke_endpoint_async(EndpointName=name, InputLocation=f"s3://{bucket}/{name}/nothing")
    assert stored(s3, missing["FailureLocation"]).startswith(b"The input could not be read: ")
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Deny", "Principal": {"AWS": role}, "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/{name}/out/*"}]}))
    try:
        assert b"s3:PutObject" in stored(s3, ask(b"denied")["FailureLocation"])
    finally:
        s3.delete_bucket_policy(Bucket=bucket)
    listed = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=f"{name}/")["Contents"]]
    for one in (failed, missing):
        assert one["OutputLocation"].removeprefix(f"s3://{bucket}/") not in listed
    # The other way of asking is not this endpoint's.
    error = refused(runtime.invoke_endpoint, EndpointName=name, Body=b"x")
    assert error["Code"] == "ValidationError" and "InvokeEndpointAsync" in error["Message"]
    for location, text in (("s3://", "inputLocation"), (f"s3://{bucket}", "object")):
        error = refused(runtime.invoke_endpoint_async, EndpointName=name, InputLocation=location)
        assert error["Code"] == "ValidationError" and text in error["Message"], error
    error = refused(runtime.invoke_endpoint_async, EndpointName=f"{name}-none", InputLocation=f"s3://{bucket}/x")
    assert error["Code"] == "ValidationError" and "not found" in error["Message"]
    delete(sagemaker, name)


def test_who_may_queue_is_asked_by_its_own_action(engine, sagemaker, name, asked, role, bucket):
    """Proves: IAM-35, SM-55"""
    iam, s3 = engine.client("iam"), engine.client("s3")
    for kind, members in (("queued", {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": f"s3://{bucket}/{name}/out"}}}), ("plain", {})):
        sagemaker.create_model(ModelName=f"{name}-{kind}", ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": asked})
        create(sagemaker, f"{name}-{kind}", [variant(f"{name}-{kind}")], **members)
    s3.put_object(Bucket=bucket, Key=f"{name}/in", Body=b"x")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    theirs = engine.client("sagemaker-runtime", key=key["AccessKeyId"], secret=key["SecretAccessKey"])

    def allow(action):
        statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))

    asked_for = {"EndpointName": f"{name}-queued", "InputLocation": f"s3://{bucket}/{name}/in"}
    allow("sagemaker:InvokeEndpoint")
    assert refused(theirs.invoke_endpoint_async, **asked_for)["Code"] == "AccessDeniedException"
    allow("sagemaker:InvokeEndpointAsync")
    answer = theirs.invoke_endpoint_async(**asked_for)
    assert "FailureLocation" not in answer and stored(s3, answer["OutputLocation"]).startswith(b"x|"), "control"
    error = refused(theirs.invoke_endpoint_async, **asked_for | {"EndpointName": f"{name}-plain"})
    assert error["Code"] == "ValidationError" and "AsyncInferenceConfig" in error["Message"]
    error = refused(sagemaker.update_endpoint, EndpointName=f"{name}-plain", EndpointConfigName=f"{name}-queued")
    assert error["Code"] == "ValidationException" and "AsyncInferenceConfig" in error["Message"]
    output = {"OutputConfig": {"S3OutputPath": f"s3://{bucket}/{name}/out"}}
    topic = {"SuccessTopic": "arn:aws:sns:us-east-1:123456789012:t"}
    capture = {"EnableCapture": True, "InitialSamplingPercentage": 100, "DestinationS3Uri": f"s3://{bucket}/x", "CaptureOptions": [{"CaptureMode": "Input"}]}
    one = variant(f"{name}-plain")
    for variants, members, text in (
        ([one], {"AsyncInferenceConfig": {"OutputConfig": output["OutputConfig"] | {"NotificationConfig": topic}}}, "SNS"),
        ([one], {"AsyncInferenceConfig": {"OutputConfig": {}}}, "S3OutputPath"),
        ([one, one | {"VariantName": "w"}], {"AsyncInferenceConfig": output}, "several production variants"),
        ([one], {"AsyncInferenceConfig": output, "DataCaptureConfig": capture}, "DataCaptureConfig"),
    ):
        error = refused(sagemaker.create_endpoint_config, EndpointConfigName=f"{name}-bad", ProductionVariants=variants, **members)
        assert error["Code"] == "ValidationException" and text in error["Message"], error
    iam.delete_user_policy(UserName=name, PolicyName="p")
    for kind in ("queued", "plain"):
        delete(sagemaker, f"{name}-{kind}")


def test_a_serverless_variant_takes_so_many_requests_at_once(engine, sagemaker, name, asked, role, bucket):
    """Proves: SM-20, CC-7"""
    impatient = engine.client("sagemaker-runtime", config={"retries": {"max_attempts": 0}})
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": asked})
    serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 2, "ProvisionedConcurrency": 1}
    bare = {"VariantName": "v", "ModelName": name}
    endpoint = create(sagemaker, name, [bare | {"ServerlessConfig": serverless}])
    found = endpoint["ProductionVariants"][0]
    assert found["CurrentServerlessConfig"] == serverless and "CurrentInstanceCount" not in found
    config = sagemaker.describe_endpoint_config(EndpointConfigName=name)["ProductionVariants"][0]
    assert config["ServerlessConfig"] == serverless and "InstanceType" not in config and "InitialInstanceCount" not in config

    def ask(body):
        try:
            return impatient.invoke_endpoint(EndpointName=name, Body=body)["Body"].read()
        except ClientError as error:
            return error.response["Error"]["Code"]

    # The two that are held wait for one more, which is refused while they run: then nothing would ever release them but
    # the third one that gets in.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        # Each is sent until it gets in: what asks whether there is room may be there at that moment.
        held = [pool.submit(eventually, lambda body=b"hold 3 %d" % number: (lambda got: got != "ThrottlingException" and got)(ask(body)), 60) for number in range(2)]
        assert eventually(lambda: ask(b"x") == "ThrottlingException", 30)
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "v", "ServerlessUpdateConfig": {"MaxConcurrency": 3}}])
        assert eventually(lambda: ask(b"hold 3 last") != "ThrottlingException", 60), "control"
        assert [one.result()[:4] for one in held] == [b"hold"] * 2
    assert settled(sagemaker, name)["ProductionVariants"][0]["CurrentServerlessConfig"]["MaxConcurrency"] == 3
    delete(sagemaker, name)
    sagemaker.create_model(ModelName=f"{name}-sealed", ExecutionRoleArn=role, PrimaryContainer={"Image": asked}, EnableNetworkIsolation=True)
    for given, text in (
        (bare | {"ServerlessConfig": serverless, "InstanceType": "ml.m5.large"}, "InstanceType"),
        (bare | {"ServerlessConfig": serverless | {"MemorySizeInMB": 1500}}, "MemorySizeInMB"),
        (bare | {"ServerlessConfig": serverless | {"ProvisionedConcurrency": 3}}, "ProvisionedConcurrency"),
        (bare | {"ServerlessConfig": serverless, "ModelName": f"{name}-sealed"}, "EnableNetworkIsolation"),
    ):
        error = refused(sagemaker.create_endpoint_config, EndpointConfigName=f"{name}-bad", ProductionVariants=[given])
        assert error["Code"] == "ValidationException" and text in error["Message"], error
