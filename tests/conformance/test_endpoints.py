"""Models and endpoints through unmodified boto3 and aws CLI."""
import json
import os
import signal
import subprocess
import threading

import pytest
from botocore.exceptions import ClientError

from tests.harness.jobs import eventually, gone, settled

SAMPLE = ",".join(["0"] * 64)


def create_model(sagemaker, name, image, role, trained, isolated=True, **container):
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=isolated,
        PrimaryContainer={"Image": image, "ModelDataUrl": trained["ModelArtifacts"]["S3ModelArtifacts"]} | container,
    )


def create_endpoint(sagemaker, name, model, **variant):
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[{"VariantName": "AllTraffic", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1} | variant],
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def delete_endpoint(sagemaker, name):
    sagemaker.delete_endpoint(EndpointName=name)
    assert "Could not find endpoint" in gone(sagemaker, name)


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


def test_an_update_to_an_isolated_model_loses_no_request(sagemaker, runtime, name, image, role, trained):
    """The remedy of the finding: new isolated model, new configuration, UpdateEndpoint.
    Proves: SM-23, AU-8
    """
    create_model(sagemaker, f"{name}-open", image, role, trained, isolated=False)
    create_model(sagemaker, f"{name}-sealed", image, role, trained, isolated=True)
    create_endpoint(sagemaker, name, f"{name}-open")
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    failures, answers, stop = [], [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                answers.append(runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=SAMPLE)["Body"].read())
            except ClientError as error:
                failures.append(str(error))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        sagemaker.create_endpoint_config(
            EndpointConfigName=f"{name}-2",
            ProductionVariants=[{"VariantName": "AllTraffic", "ModelName": f"{name}-sealed", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}],
        )
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2")
        assert sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Updating"
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
            sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2")
        endpoint = settled(sagemaker, name)
    finally:
        stop.set()
        thread.join()
    assert endpoint["EndpointStatus"] == "InService" and endpoint["EndpointConfigName"] == f"{name}-2"
    assert not failures, failures[:3]
    assert len(answers) > 10
    delete_endpoint(sagemaker, name)


def test_an_update_to_a_broken_model_rolls_back(sagemaker, runtime, name, image, role, trained):
    """Proves: SM-22
    """
    create_model(sagemaker, name, image, role, trained)
    create_model(sagemaker, f"{name}-bad", image, role, trained, Environment={"PYTHONHOME": "/nowhere"})
    create_endpoint(sagemaker, name, name)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    sagemaker.create_endpoint_config(
        EndpointConfigName=f"{name}-bad",
        ProductionVariants=[{"VariantName": "AllTraffic", "ModelName": f"{name}-bad", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1, "ContainerStartupHealthCheckTimeoutInSeconds": 60}],
    )
    sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-bad")
    endpoint = settled(sagemaker, name)
    assert endpoint["EndpointStatus"] == "InService" and endpoint["EndpointConfigName"] == name
    assert "FailureReason" in endpoint
    assert runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=SAMPLE)["Body"].read()
    delete_endpoint(sagemaker, name)


def test_an_endpoint_whose_container_never_answers_fails(sagemaker, name, image, role, trained):
    """Proves: SM-63, CC-49
    """
    create_model(sagemaker, name, image, role, trained, Environment={"PYTHONHOME": "/nowhere"})
    create_endpoint(sagemaker, name, name, ContainerStartupHealthCheckTimeoutInSeconds=60)
    endpoint = settled(sagemaker, name)
    assert endpoint["EndpointStatus"] == "Failed"
    assert endpoint["FailureReason"].startswith("The primary container for production variant AllTraffic did not pass the ping health check.")
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


def aws(engine, *arguments):
    """The aws CLI of the pinned environment."""
    import sys
    from pathlib import Path

    done = subprocess.run([str(Path(sys.executable).parent / "aws"), *arguments], env=engine.environment(), text=True, capture_output=True, timeout=120)
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


def test_listing_150_models_pages_completely(engine, sagemaker, image, role, name):
    """Proves: AU-19, SM-10, SM-11
    """
    prefix = name[-6:]
    for index in range(150):
        sagemaker.create_model(ModelName=f"{prefix}-{index:03d}", ExecutionRoleArn=role, PrimaryContainer={"Image": image}, EnableNetworkIsolation=index % 2 == 0)
    pages = list(sagemaker.get_paginator("list_models").paginate(NameContains=prefix.upper()))
    names = [model["ModelName"] for page in pages for model in page["Models"]]
    assert len(names) == 150 and len(set(names)) == 150 and len(pages) > 1
    listed = aws(engine, "sagemaker", "list-models", "--region", "us-east-1", "--name-contains", prefix, "--query", "Models[].ModelName", "--output", "text").split()
    assert sorted(listed) == sorted(names)
    status = {model: sagemaker.describe_model(ModelName=model)["EnableNetworkIsolation"] for model in names}
    assert sum(status.values()) == 75 and set(status.values()) == {True, False}


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


def test_a_dead_container_is_started_again(engine, sagemaker, runtime, name, image, role, trained):
    create_model(sagemaker, name, image, role, trained)
    create_endpoint(sagemaker, name, name)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    report = json.loads(engine.run("report", name, "--json").stdout)
    assert report["attempts"] == []
    killed = [pid for pid in container_pids() if b"serve" in open(f"/proc/{pid}/cmdline", "rb").read()]
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    def answers():
        try:
            return runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=SAMPLE)["Body"].read()
        except ClientError:
            return None

    assert eventually(answers, 60)
    delete_endpoint(sagemaker, name)


def container_pids():
    """Processes in user namespaces of workloads: uid 600000000 and above."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.stat(f"/proc/{entry}").st_uid >= 600_000_000:
                    yield int(entry)
            except OSError:
                continue
