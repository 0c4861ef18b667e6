"""Models and endpoints through unmodified boto3 and aws CLI."""
import collections
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError, WaiterError

from tests.harness.engine import Engine, execution_statements
from tests.harness.jobs import eventually, gone, settled

SAMPLE = ",".join(["0"] * 64)


def create_model(sagemaker, name, image, role, trained, isolated=True, **container):
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=isolated,
        PrimaryContainer={"Image": image, "ModelDataUrl": trained["ModelArtifacts"]["S3ModelArtifacts"]} | container,
    )


def production(model, **members):
    """One production variant."""
    return {"VariantName": "AllTraffic", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1} | members


def create_endpoint(sagemaker, name, model, **members):
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[production(model, **members)])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def refused(call, **arguments):
    """The error of a call that must fail."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]


def delete_endpoint(sagemaker, name):
    sagemaker.delete_endpoint(EndpointName=name)
    assert "Could not find endpoint" in gone(sagemaker, name)


# Endpoints that take a minute to fail: started first, looked at last.


@pytest.fixture(scope="module")
def silent(engine, small_root):
    """An image whose container runs and never listens."""
    return engine.pack_image(small_root, "silent:1", "--entrypoint", "/bin/sh", "--entrypoint", "-c", "--entrypoint", "exec sleep 1000")


@pytest.fixture(scope="module", autouse=True)
def slow(sagemaker, silent, small, image, role, trained):
    """`never-healthy` is Creating for a minute, `rolls-back` is Updating to containers that end at once."""
    for name, model in (("never-healthy", silent), ("rolls-back", small)):
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": model}, EnableNetworkIsolation=True)
    create_endpoint(sagemaker, "never-healthy", "never-healthy", ContainerStartupHealthCheckTimeoutInSeconds=60)
    create_endpoint(sagemaker, "rolls-back", "rolls-back")
    create_model(sagemaker, "ends-at-once", image, role, trained, Environment={"PYTHONHOME": "/nowhere"})
    sagemaker.create_endpoint_config(EndpointConfigName="ends-at-once", ProductionVariants=[production("ends-at-once", ContainerStartupHealthCheckTimeoutInSeconds=60)])
    assert settled(sagemaker, "rolls-back")["EndpointStatus"] == "InService"
    sagemaker.update_endpoint(EndpointName="rolls-back", EndpointConfigName="ends-at-once")


@pytest.fixture(scope="module")
def served(engine, sagemaker, image, role, trained):
    """One isolated endpoint in service."""
    create_model(sagemaker, "served", image, role, trained)
    create_endpoint(sagemaker, "served", "served")
    endpoint = settled(sagemaker, "served")
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    yield endpoint
    delete_endpoint(sagemaker, "served")


@pytest.fixture(scope="module")
def runtime(engine):
    return engine.client("sagemaker-runtime")


def test_a_changing_endpoint_takes_no_other_change(sagemaker, runtime, slow):
    """Both stay as they are for a minute; other tests update and delete endpoints in service, the control.
    Proves: SM-23, SM-26, SM-56, SM-60
    """
    for name, status in (("never-healthy", "Creating"), ("rolls-back", "Updating")):
        calls = (
            (sagemaker.delete_endpoint, {}), (sagemaker.update_endpoint, {"EndpointConfigName": name}),
            (sagemaker.update_endpoint_weights_and_capacities, {"DesiredWeightsAndCapacities": [{"VariantName": "AllTraffic", "DesiredWeight": 2.0}]}),
        )
        for call, arguments in calls:
            error = refused(call, EndpointName=name, **arguments)
            assert error["Code"] == "ValidationException" and "Cannot update in-progress endpoint" in error["Message"], error
        assert sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == status
    assert refused(runtime.invoke_endpoint, EndpointName="never-healthy", Body=b"")["Code"] == "ValidationError"
    updating = sagemaker.describe_endpoint(EndpointName="rolls-back")
    assert updating["EndpointConfigName"] == "rolls-back" and updating["PendingDeploymentSummary"]["EndpointConfigName"] == "ends-at-once"
    assert runtime.invoke_endpoint(EndpointName="rolls-back", Body=b"x")["Body"].read() == b"fixed\n", "the old fleet serves on"


def test_a_sealed_endpoint_serves(runtime, served, sagemaker):
    """Proves: NI-21, CC-47, CC-50, CC-52, SM-22, SM-27
    """
    answer = runtime.invoke_endpoint(EndpointName="served", ContentType="text/csv", Body=SAMPLE)
    assert answer["ContentType"] == "text/csv" and answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["Body"].read().decode().strip().isdigit()
    variant = served["ProductionVariants"][0]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    assert variant["DeployedImages"][0]["ResolvedImage"].split("@")[1].startswith("sha256:")


def test_a_container_error_is_a_model_error(runtime, served):
    """Proves: SM-58, SM-62
    """
    with pytest.raises(ClientError) as refused:
        runtime.invoke_endpoint(EndpointName="served", ContentType="text/csv", Body=b"not,a,number")
    response = refused.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["Error"]["Code"] == "ModelError"
    assert response["OriginalStatusCode"] == 400 and response["OriginalMessage"]
    assert response["LogStreamArn"].startswith("arn:aws:logs:")
    assert 'Received client error (400) from primary with message "' in response["Error"]["Message"]


def test_an_unknown_endpoint_and_variant_are_validation_errors(runtime, served):
    """Proves: SM-61, SM-50, SM-8
    """
    for unknown in ("nobody", "SERVED"):
        with pytest.raises(ClientError) as refused:
            runtime.invoke_endpoint(EndpointName=unknown, Body=b"")
        assert refused.value.response["Error"]["Code"] == "ValidationError"
        assert f"Endpoint {unknown} of account 123456789012 not found." in str(refused.value)
    with pytest.raises(ClientError) as refused:
        runtime.invoke_endpoint(EndpointName="served", Body=b"", TargetVariant="Other")
    assert refused.value.response["Error"]["Code"] == "ValidationError"


def test_a_streamed_answer_arrives_as_payload_parts(runtime, served):
    """Proves: CC-53, SM-53
    """
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName="served", ContentType="text/csv", Body="\n".join([SAMPLE] * 20))
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert len(b"".join(parts).decode().split()) == 20


def test_an_update_to_an_isolated_model_loses_no_request(sagemaker, runtime, name, small, role):
    """The remedy of the finding: new isolated model, new configuration, UpdateEndpoint.
    Proves: SM-23, AU-8, D-22
    """
    for kind, isolated in (("open", False), ("sealed", True)):
        sagemaker.create_model(ModelName=f"{name}-{kind}", ExecutionRoleArn=role, PrimaryContainer={"Image": small}, EnableNetworkIsolation=isolated)
    create_endpoint(sagemaker, name, f"{name}-open")
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    failures, answers, stop = [], [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                answers.append(runtime.invoke_endpoint(EndpointName=name, Body=b"x")["Body"].read())
            except ClientError as error:
                failures.append(str(error))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        sagemaker.create_endpoint_config(EndpointConfigName=f"{name}-2", ProductionVariants=[production(f"{name}-sealed")])
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2")
        endpoint = settled(sagemaker, name)
    finally:
        stop.set()
        thread.join()
    assert endpoint["EndpointStatus"] == "InService" and endpoint["EndpointConfigName"] == f"{name}-2"
    assert not failures, failures[:3]
    assert len(answers) > 10 and set(answers) == {b"fixed\n"}
    delete_endpoint(sagemaker, name)


def test_models_are_immutable_and_texts_match(sagemaker, name, image, role, trained):
    """Proves: AU-8, SM-18, SM-60
    """
    create_model(sagemaker, name, image, role, trained)
    before = sagemaker.describe_model(ModelName=name)
    with pytest.raises(ClientError, match="Cannot create already existing model"):
        create_model(sagemaker, name, image, role, trained, isolated=False)
    after = sagemaker.describe_model(ModelName=name)
    after.pop("ResponseMetadata"), before.pop("ResponseMetadata")
    assert after == before and after["EnableNetworkIsolation"] is True and "VpcConfig" not in after
    assert not hasattr(sagemaker, "update_model")
    sagemaker.delete_model(ModelName=name)
    with pytest.raises(ClientError, match='Could not find model "arn:aws:sagemaker:us-east-1:123456789012:model/'):
        sagemaker.describe_model(ModelName=name)


def environment(engine):
    """The engine's environment with the pinned programs before all others."""
    programs = str(Path(sys.executable).parent)
    given = engine.environment()
    return given | {"PATH": f"{programs}:{given.get('PATH', os.environ['PATH'])}"}


def aws(engine, *arguments):
    """The aws CLI of the pinned environment."""
    done = subprocess.run(["aws", *arguments], env=environment(engine), text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(engine, script):
    """A line of bash that calls the same CLI."""
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=environment(engine), text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_remediation_commands_of_the_cli_work(engine, sagemaker, name, image, role):
    """Proves: AU-17, AU-18
    """
    aws(engine, "sagemaker", "create-model", "--model-name", name, "--execution-role-arn", role, "--primary-container", f"Image={image}", "--enable-network-isolation", "--region", "us-east-1")
    assert aws(engine, "sagemaker", "describe-model", "--model-name", name, "--query", "EnableNetworkIsolation").strip() == "true"
    aws(engine, "sagemaker", "create-model", "--model-name", f"{name}-open", "--execution-role-arn", role, "--primary-container", f"Image={image}")
    assert aws(engine, "sagemaker", "describe-model", "--model-name", f"{name}-open", "--query", "EnableNetworkIsolation").strip() == "false"
    assert aws(engine, "sagemaker", "describe-model", "--model-name", f"{name}-open", "--query", "EnableNetworkIsolation", "--output", "text").strip() == "False"


def test_the_remedy_of_the_finding_works_by_the_cli(engine, sagemaker, runtime, name, small, role):
    """The model that was found is not changed; its endpoint gets another one.
    Proves: AU-9
    """
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": small})
    create_endpoint(sagemaker, name, name)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    variant = f"VariantName=AllTraffic,ModelName={name}-sealed,InitialInstanceCount=1,InstanceType=ml.m5.large"
    shell(engine, f"""
aws sagemaker create-model --model-name {name}-sealed --execution-role-arn {role} --primary-container Image={small} --enable-network-isolation
aws sagemaker create-endpoint-config --endpoint-config-name {name}-sealed --production-variants {variant}
aws sagemaker update-endpoint --endpoint-name {name} --endpoint-config-name {name}-sealed
""")
    endpoint = settled(sagemaker, name)
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", f"{name}-sealed"), endpoint.get("FailureReason")
    serving = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])["ProductionVariants"][0]["ModelName"]
    assert sagemaker.describe_model(ModelName=serving)["EnableNetworkIsolation"] is True
    assert sagemaker.describe_model(ModelName=name)["EnableNetworkIsolation"] is False, "control"
    assert runtime.invoke_endpoint(EndpointName=name, Body=b"x")["Body"].read() == b"fixed\n"
    delete_endpoint(sagemaker, name)


def test_listing_150_models_pages_completely(engine, sagemaker, image, role, name):
    """Proves: AU-19, SM-10, SM-11
    """
    prefix = name[-6:]
    for index in range(150):
        sagemaker.create_model(ModelName=f"{prefix}-{'few-' * (index < 30)}{index:03d}", ExecutionRoleArn=role, PrimaryContainer={"Image": image}, EnableNetworkIsolation=index % 2 == 0)
    pages = list(sagemaker.get_paginator("list_models").paginate(NameContains=prefix.upper()))
    names = [model["ModelName"] for page in pages for model in page["Models"]]
    assert len(names) == 150 and len(set(names)) == 150 and len(pages) > 1
    listed = aws(engine, "sagemaker", "list-models", "--region", "us-east-1", "--name-contains", prefix, "--query", "Models[].ModelName", "--output", "text").split()
    assert sorted(listed) == sorted(names)
    status = {model: sagemaker.describe_model(ModelName=model)["EnableNetworkIsolation"] for model in names}
    assert sum(status.values()) == 75 and set(status.values()) == {True, False}
    # An auditor's loop, over three pages of models: a line of the CLI's text output is a page.
    loop = (
        f"aws sagemaker list-models --region us-east-1 --name-contains {prefix}-few- --page-size 10 --query 'Models[].ModelName' --output text "
        "| tr '\\t' '\\n' | while read model; do "
        "status=$(aws sagemaker describe-model --model-name \"$model\" --region us-east-1 --query 'EnableNetworkIsolation' --output text); "
        "echo \"$model: NetworkIsolation=$status\"; done"
    )
    lines = shell(engine, loop).splitlines()
    few = [model for model in listed if "-few-" in model]
    assert len(few) == 30 and lines == [f"{model}: NetworkIsolation={status[model]}" for model in few], lines
    assert {line.split("=")[1] for line in lines} == {"True", "False"}


def test_the_cli_runs_the_whole_life_of_an_endpoint(engine, sagemaker, name, image, role, trained):
    """Proves: SM-66, SM-21
    """
    create_model(sagemaker, name, image, role, trained)
    aws(engine, "sagemaker", "create-endpoint-config", "--endpoint-config-name", name, "--production-variants", f"VariantName=AllTraffic,ModelName={name},InitialInstanceCount=1,InstanceType=ml.m5.large")
    aws(engine, "sagemaker", "create-endpoint", "--endpoint-name", name, "--endpoint-config-name", name)
    settled(sagemaker, name)
    aws(engine, "sagemaker", "wait", "endpoint-in-service", "--endpoint-name", name)
    out = engine.directory / "prediction.txt"
    aws(engine, "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", name, "--content-type", "text/csv", "--body", SAMPLE, str(out))
    assert out.read_text().strip().isdigit()
    # The Python SDK deletes the configuration first; the endpoint goes on until it is deleted itself.
    aws(engine, "sagemaker", "delete-endpoint-config", "--endpoint-config-name", name)
    aws(engine, "sagemaker", "delete-endpoint", "--endpoint-name", name)
    gone(sagemaker, name)
    aws(engine, "sagemaker", "wait", "endpoint-deleted", "--endpoint-name", name)


def test_a_dead_container_is_started_again(engine, sagemaker, runtime, name, small, role):
    """Proves: CC-49
    """
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": small, "Environment": {"MARK": name}},
    )
    create_endpoint(sagemaker, name, name)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    assert engine.attempts(name) == []
    killed = processes_with(f"MARK={name}")
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    def answers():
        try:
            return runtime.invoke_endpoint(EndpointName=name, Body=b"x")["Body"].read()
        except ClientError:
            return None

    assert eventually(answers, 60)
    delete_endpoint(sagemaker, name)


def processes_with(variable):
    """Processes that were started with an environment variable."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/environ", "rb") as environment:
                if variable.encode() in environment.read().split(b"\0"):
                    found.append(int(entry))
        except OSError:
            continue
    return found


# What the scripted image serves with: told by the request what to do.
APP = """
import json, os, signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

go = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if body == b"fail":
            return self.answer(503, b"no weights today")
        if body == b"empty":
            return self.answer(204, b"")
        if body == b"die":
            os._exit(3)
        if body == b"go":
            go.set()
        if body == b"stream":
            self.send_response(200)
            self.send_header("Content-Type", "text/x-parts")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (b"first", b"second"):
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(part), part))
                self.wfile.flush()
                if not go.wait(20):
                    os._exit(4)
            return self.wfile.write(b"0\\r\\n\\r\\n")
        seen = {
            "headers": {name.lower(): value for name, value in self.headers.items()}, "body": body.decode("latin-1"), "path": self.path,
            "uid": os.getuid(), "environment": dict(os.environ), "argv": sys.argv, "peer": self.client_address[0],
            "files": sorted(os.path.relpath(os.path.join(top, one), "/opt/ml/model") for top, _, all in os.walk("/opt/ml/model") for one in all),
            "writable": os.access("/opt/ml/model", os.W_OK),
        }
        self.answer(200, json.dumps(seen).encode(), Content_Type="application/x-seen", X_Amzn_SageMaker_Custom_Attributes="from=container", X_Secret="kept inside")

    def log_message(self, *arguments):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def scripted(engine, sagemaker, rootfs, role, bucket):
    """An endpoint whose container runs APP as a user of its own. One variant unpacks it from an archive that only its
    packer may read, the other sees the objects of a prefix."""
    command = [word for part in ("/usr/bin/python3", "/opt/ml/model/app.py") for word in ("--entrypoint", part)]
    image = engine.pack_image(rootfs, "scripted:1", "--user", "65534:65534", *command)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in (("app.py", APP), ("deep/weights", "numbers")):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text), 0o600
            archive.addfile(entry, io.BytesIO(text.encode()))
    s3 = engine.client("s3")
    s3.put_object(Bucket=bucket, Key="scripted/model.tar.gz", Body=packed.getvalue())
    for path, text in (("app.py", APP), ("deep/weights", "numbers")):
        s3.put_object(Bucket=bucket, Key=f"scripted/loose/{path}", Body=text.encode())
    loose = {"S3DataSource": {"S3Uri": f"s3://{bucket}/scripted/loose/", "S3DataType": "S3Prefix", "CompressionType": "None"}}
    for name, data in (("archive", {"ModelDataUrl": f"s3://{bucket}/scripted/model.tar.gz"}), ("loose", {"ModelDataSource": loose})):
        sagemaker.create_model(
            ModelName=f"scripted-{name}", ExecutionRoleArn=role, EnableNetworkIsolation=True,
            PrimaryContainer={"Image": image, "Environment": {"MINE": "kept"}} | data,
        )
    sagemaker.create_endpoint_config(
        EndpointConfigName="scripted",
        ProductionVariants=[production(f"scripted-{name}", VariantName=name) for name in ("archive", "loose")],
    )
    sagemaker.create_endpoint(EndpointName="scripted", EndpointConfigName="scripted")
    endpoint = settled(sagemaker, "scripted")
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    yield "scripted"
    delete_endpoint(sagemaker, "scripted")


@pytest.mark.parametrize("variant", ["archive", "loose"])
def test_a_container_sees_the_hosting_contract(runtime, scripted, variant):
    """Proves: CC-3, CC-47, CC-48, CC-50, CC-52, SM-50, SM-52, NI-8, CC-84
    """
    answer = runtime.invoke_endpoint(
        EndpointName=scripted, TargetVariant=variant, ContentType="text/x-mine", Accept="application/x-seen",
        CustomAttributes="trace=7, x", InferenceId="request-9", Body=b"\x00payload\xff",
    )
    assert answer["ContentType"] == "application/x-seen" and answer["CustomAttributes"] == "from=container"
    assert answer["InvokedProductionVariant"] == variant
    assert "x-secret" not in answer["ResponseMetadata"]["HTTPHeaders"], "other headers stay inside"
    seen = json.loads(answer["Body"].read())
    assert seen["path"] == "/invocations" and seen["body"].encode("latin-1") == b"\x00payload\xff"
    headers = seen["headers"]
    assert (headers["content-type"], headers["accept"]) == ("text/x-mine", "application/x-seen")
    assert headers["x-amzn-sagemaker-custom-attributes"] == "trace=7, x"
    assert headers["x-amzn-sagemaker-inference-id"] == "request-9"
    assert not [one for one in headers if one.startswith(("authorization", "x-amz-", "amz-sdk"))], "nothing of the signature"
    assert seen["uid"] == 65534 and seen["argv"][1:] == ["serve"]
    assert seen["files"] == ["app.py", "deep/weights"] and seen["writable"] is False
    assert seen["environment"]["MINE"] == "kept" and seen["environment"]["AWS_REGION"] == "us-east-1"
    assert not [key for key in seen["environment"] if "CREDENTIALS" in key or "ACCESS_KEY" in key or "SESSION_TOKEN" in key]
    assert seen["peer"].startswith("127."), "the platform dials from inside"


def test_what_the_container_says_comes_back_unchanged(runtime, scripted):
    """Proves: CC-52, SM-58, SM-62
    """
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName=scripted, Body=b"fail")
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (503, "no weights today")
    assert 'Received server error (503) from primary with message "no weights today".' in response["Error"]["Message"]
    empty = runtime.invoke_endpoint(EndpointName=scripted, Body=b"empty")
    assert empty["Body"].read() == b"" and empty["ResponseMetadata"]["HTTPStatusCode"] in (200, 204)


def test_a_part_of_a_stream_arrives_before_the_next_one_is_written(runtime, scripted):
    """The container writes its second part only after it was told to, which happens once the first one has arrived.
    Proves: CC-53, SM-53
    """
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName=scripted, TargetVariant="loose", Body=b"stream")
    assert answer["ContentType"] == "text/x-parts" and answer["InvokedProductionVariant"] == "loose"
    parts = iter(answer["Body"])
    assert next(parts)["PayloadPart"]["Bytes"] == b"first"
    runtime.invoke_endpoint(EndpointName=scripted, TargetVariant="loose", Body=b"go")
    assert b"".join(event["PayloadPart"]["Bytes"] for event in parts) == b"second"
    # The same, when it was asked for at once: the whole body.
    whole = runtime.invoke_endpoint(EndpointName=scripted, TargetVariant="loose", Body=b"stream")
    assert whole["Body"].read() == b"firstsecond"


def test_a_container_that_ends_in_the_middle_of_a_request_is_a_model_error(runtime, scripted):
    """Proves: SM-58, CC-49
    """
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName=scripted, TargetVariant="archive", Body=b"die")
    assert caught.value.response["Error"]["Code"] == "ModelError", "told once, not sent a second time to another container"
    assert runtime.invoke_endpoint(EndpointName=scripted, TargetVariant="loose", Body=b"control")["Body"].read()

    def answers():
        try:
            return runtime.invoke_endpoint(EndpointName=scripted, TargetVariant="archive", Body=b"again")["Body"].read()
        except ClientError:
            return None

    assert eventually(answers, 60)


def test_a_container_that_does_not_answer_in_time_is_a_model_error(engine, sagemaker, small, role, small_root, name):
    """AWS waits for 60 seconds, which is the default of `invoke.timeout`; the second engine is told to wait for one.
    Proves: CC-51, SM-58
    """
    with Engine(os.environ["ISOLARIUM_BINARY"], {"invoke.timeout": "1s", "endpoints.ping_interval": "200ms"}, internet=False) as hasty:
        ours = hasty.create_role("execution", execution_statements("none"))
        for one, image, by in ((hasty, hasty.pack_image(small_root, "small:1"), ours), (engine, small, role)):
            client = one.client("sagemaker")
            client.create_model(ModelName=name, ExecutionRoleArn=by, PrimaryContainer={"Image": image}, EnableNetworkIsolation=True)
            create_endpoint(client, name, name)
            assert settled(client, name)["EndpointStatus"] == "InService"
        runtime = hasty.client("sagemaker-runtime")
        assert runtime.invoke_endpoint(EndpointName=name, Body=b"x")["Body"].read() == b"fixed\n", "control: it answers others"
        with pytest.raises(ClientError) as caught:
            runtime.invoke_endpoint(EndpointName=name, Body=b"wait")
        response = caught.value.response
        assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == ("ModelError", 424)
        assert "timed out" in response["Error"]["Message"]
        assert runtime.invoke_endpoint(EndpointName=name, Body=b"x")["Body"].read() == b"fixed\n", "and serves on"
    # Control: with the default the same container is still waited for when the client has had enough.
    patient = engine.client("sagemaker-runtime", config={"read_timeout": 3, "retries": {"max_attempts": 0}})
    with pytest.raises(ReadTimeoutError):
        patient.invoke_endpoint(EndpointName=name, Body=b"wait")
    assert patient.invoke_endpoint(EndpointName=name, Body=b"x")["Body"].read() == b"fixed\n"
    delete_endpoint(sagemaker, name)


def test_weights_divide_the_traffic_and_counts_follow(sagemaker, runtime, name, small, role):
    """Proves: SM-20, SM-25, SM-27, SM-50, CC-59
    """
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": small}, EnableNetworkIsolation=True)
    variants = [production(name, VariantName=variant, InitialVariantWeight=weight) for variant, weight in (("one", 1.0), ("three", 3.0))]
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"

    def shares(count):
        return collections.Counter(runtime.invoke_endpoint(EndpointName=name, Body=b"x")["InvokedProductionVariant"] for _ in range(count))

    def described():
        endpoint = settled(sagemaker, name)
        assert endpoint["EndpointStatus"] == "InService" and "FailureReason" not in endpoint
        return {
            one["VariantName"]: (one["CurrentWeight"], one["DesiredWeight"], one["CurrentInstanceCount"], one["DesiredInstanceCount"])
            for one in endpoint["ProductionVariants"]
        }

    seen = shares(300)
    # Five standard deviations around the expected 75: wrong once in a million runs.
    assert 37 <= seen["one"] <= 113 and seen["one"] + seen["three"] == 300, seen
    assert described() == {"one": (1.0, 1.0, 1, 1), "three": (3.0, 3.0, 1, 1)}
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name,
        DesiredWeightsAndCapacities=[{"VariantName": "one", "DesiredWeight": 0.0}, {"VariantName": "three", "DesiredInstanceCount": 2}],
    )
    assert described() == {"one": (0.0, 0.0, 1, 1), "three": (3.0, 3.0, 2, 2)}
    assert shares(40) == {"three": 40}
    target = runtime.invoke_endpoint(EndpointName=name, Body=b"x", TargetVariant="one")
    assert target["InvokedProductionVariant"] == "one", "a variant without traffic can be asked by name"
    error = refused(
        sagemaker.update_endpoint_weights_and_capacities, EndpointName=name,
        DesiredWeightsAndCapacities=[{"VariantName": "three", "DesiredInstanceCount": 1}, {"VariantName": "nobody", "DesiredWeight": 1.0}],
    )
    assert error["Code"] == "ValidationException" and "nobody" in error["Message"]
    assert described()["three"] == (3.0, 3.0, 2, 2), "nothing of a refused request was done"
    sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "three", "DesiredInstanceCount": 1}])
    assert described() == {"one": (0.0, 0.0, 1, 1), "three": (3.0, 3.0, 1, 1)}
    # A new configuration may keep what was set by hand.
    sagemaker.create_endpoint_config(EndpointConfigName=f"{name}-2", ProductionVariants=variants)
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2", RetainAllVariantProperties=True)
    assert described() == {"one": (0.0, 0.0, 1, 1), "three": (3.0, 3.0, 1, 1)}
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=name)
    assert described() == {"one": (1.0, 1.0, 1, 1), "three": (3.0, 3.0, 1, 1)}
    delete_endpoint(sagemaker, name)


def test_an_endpoint_serves_on_without_its_model_and_configuration(sagemaker, runtime, name, small, role):
    """Proves: SM-19, SM-20, SM-21, SM-60
    """
    for model in (name, f"{name}-2"):
        sagemaker.create_model(ModelName=model, ExecutionRoleArn=role, PrimaryContainer={"Image": small}, EnableNetworkIsolation=True)
    create_endpoint(sagemaker, name, name, ModelDataDownloadTimeoutInSeconds=900, ContainerStartupHealthCheckTimeoutInSeconds=120)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    described = sagemaker.describe_endpoint_config(EndpointConfigName=name)["ProductionVariants"]
    assert described == [production(
        name, InitialVariantWeight=1.0, ModelDataDownloadTimeoutInSeconds=900, ContainerStartupHealthCheckTimeoutInSeconds=120,
    )]
    sagemaker.create_endpoint_config(EndpointConfigName=f"{name}-2", ProductionVariants=[production(f"{name}-2")])
    for model in (name, f"{name}-2"):
        sagemaker.delete_model(ModelName=model)
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    assert "Could not find endpoint configuration" in refused(sagemaker.describe_endpoint_config, EndpointConfigName=name)["Message"]
    assert "Could not find model" in refused(sagemaker.update_endpoint, EndpointName=name, EndpointConfigName=f"{name}-2")["Message"]
    assert "Could not find endpoint configuration" in refused(sagemaker.update_endpoint, EndpointName=name, EndpointConfigName=name)["Message"]
    assert sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService"
    assert runtime.invoke_endpoint(EndpointName=name, Body=b"x")["Body"].read() == b"fixed\n"
    # Before the endpoint is gone its name is taken, and only in this spelling does it answer.
    assert "Cannot create already existing endpoint" in refused(sagemaker.create_endpoint, EndpointName=name, EndpointConfigName=f"{name}-2")["Message"]
    delete_endpoint(sagemaker, name)
    assert "Could not find endpoint" in refused(sagemaker.delete_endpoint, EndpointName=name)["Message"]


def test_endpoints_are_found_by_status_name_and_order(sagemaker, served):
    """Proves: SM-10, SM-11
    """
    def found(**filters):
        return [one["EndpointName"] for one in sagemaker.list_endpoints(**filters)["Endpoints"]]

    assert found(NameContains="SERVED", StatusEquals="InService") == ["served"]
    assert found(NameContains="served", StatusEquals="Failed") == []
    assert found(NameContains="er", SortBy="Name", SortOrder="Ascending") == sorted(found(NameContains="er"))
    pages = sagemaker.get_paginator("list_endpoints").paginate(NameContains="e", PaginationConfig={"PageSize": 1})
    names = [one["EndpointName"] for page in pages for one in page["Endpoints"]]
    assert set(found(NameContains="e", MaxResults=100)) == set(names) and len(names) == len(set(names))


def test_the_waiters_for_endpoints_end(sagemaker, name, small, role):
    """Proves: SM-66
    """
    quick = {"Delay": 1, "MaxAttempts": 60}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": small}, EnableNetworkIsolation=True)
    create_endpoint(sagemaker, name, name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=quick)
    assert sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService"
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig=quick)
    assert "Could not find endpoint" in refused(sagemaker.describe_endpoint, EndpointName=name)["Message"]
    with pytest.raises(WaiterError) as missing:
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=quick)
    assert missing.value.last_response["Error"]["Code"] == "ValidationException"


# The endpoints of the fixture `slow`.


def test_an_endpoint_whose_container_never_answers_fails(sagemaker, runtime, slow):
    """Proves: SM-22, SM-63, SM-66, CC-49
    """
    endpoint = settled(sagemaker, "never-healthy")
    assert endpoint["EndpointStatus"] == "Failed"
    assert endpoint["FailureReason"].startswith("The primary container for production variant AllTraffic did not pass the ping health check.")
    with pytest.raises(WaiterError) as failed:
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="never-healthy", WaiterConfig={"Delay": 1, "MaxAttempts": 3})
    assert failed.value.last_response["EndpointStatus"] == "Failed"
    with pytest.raises(WaiterError) as failed:
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="never-healthy", WaiterConfig={"Delay": 1, "MaxAttempts": 3})
    assert failed.value.last_response["EndpointStatus"] == "Failed"
    assert refused(runtime.invoke_endpoint, EndpointName="never-healthy", Body=b"")["Code"] == "ValidationError"
    assert "Cannot update" in refused(sagemaker.update_endpoint, EndpointName="never-healthy", EndpointConfigName="never-healthy")["Message"]
    delete_endpoint(sagemaker, "never-healthy")


def test_an_update_to_a_broken_model_rolls_back(sagemaker, runtime, slow):
    """Proves: SM-22
    """
    endpoint = settled(sagemaker, "rolls-back")
    assert endpoint["EndpointStatus"] == "InService" and endpoint["EndpointConfigName"] == "rolls-back"
    assert "did not pass the ping health check" in endpoint["FailureReason"]
    assert "PendingDeploymentSummary" not in endpoint
    assert runtime.invoke_endpoint(EndpointName="rolls-back", Body=b"x")["Body"].read() == b"fixed\n"
    delete_endpoint(sagemaker, "rolls-back")
