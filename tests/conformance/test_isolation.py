"""Isolation as a user of the API sees it: the same hosted code with and without EnableNetworkIsolation."""
import json

from tests.harness.jobs import eventually, finished, gone, settled, training_request, with_program

SAMPLE = ",".join(["0"] * 64)


def endpoint_with_planted_code(sagemaker, name, image, role, trained, isolated):
    """Serves a model whose dependency tries to send every request's body away."""
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=isolated,
        PrimaryContainer={"Image": image, "ModelDataUrl": trained["ModelArtifacts"]["S3ModelArtifacts"], "Environment": {"PLANTED": "true"}},
    )
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"


def reached(engine, name):
    """What the planted code says it reached, from the endpoint's log."""
    logs = engine.client("logs")

    def line():
        try:
            events = logs.filter_log_events(logGroupName=f"/aws/sagemaker/Endpoints/{name}", logStreamNamePrefix="AllTraffic/")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return None
        return next((event["message"] for event in events if event["message"].startswith("reached=")), None)

    return eventually(line)


def test_a_hosted_container_reaches_the_internet_only_without_isolation(engine, sagemaker, name, image, role, trained):
    """Proves: NI-2, NI-6, NI-21, NI-22, NI-24
    """
    runtime = engine.client("sagemaker-runtime")
    for isolated in (True, False):
        endpoint = f"{name[:50]}-{'sealed' if isolated else 'open'}"
        endpoint_with_planted_code(sagemaker, endpoint, image, role, trained, isolated)
        before = len(engine.internet.arrivals())
        answer = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Body=SAMPLE)
        assert answer["Body"].read().decode().strip().isdigit(), "the platform's own requests work either way"
        said, arrived = reached(engine, endpoint), len(engine.internet.arrivals()) - before
        if isolated:
            assert said.startswith("reached=0;") and arrived == 0, said
            report = json.loads(engine.run("report", endpoint, "--json").stdout)
            kinds = {(a["protocol"], a["address"]) for workload in report["workloads"] for a in workload["attempts"]}
            assert ("tcp", "203.0.113.10") in kinds and ("udp", "198.51.100.53") in kinds
        else:
            assert not said.startswith("reached=0;") and arrived > 0, f"control: {said}"
        sagemaker.delete_endpoint(EndpointName=endpoint)
        gone(sagemaker, endpoint)


def test_an_isolated_and_a_default_job_side_by_side_do_not_influence_each_other(engine, sagemaker, name, image, role, bucket, digits):
    """Proves: NI-26
    """
    program = (
        "import socket,time\n"
        "for _ in range(10):\n"
        "    try: socket.create_connection(('203.0.113.10', 80), 1).close(); print('got=out;', flush=True)\n"
        "    except OSError as error: print('got=%s;' % error.errno, flush=True)\n"
        "    time.sleep(0.1)\n"
    )
    names = {True: f"{name[:50]}-sealed", False: f"{name[:50]}-open"}
    for isolated, job in names.items():
        request = training_request(job, image, role, bucket, digits, isolated=isolated)
        sagemaker.create_training_job(**with_program(engine, bucket, request, program))
    logs, seen = engine.client("logs"), {}
    for isolated, job in names.items():
        assert finished(sagemaker, job)["TrainingJobStatus"] == "Completed"
        events = eventually(lambda job=job: logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{job}/algo-1-", filterPattern='"got="')["events"])
        seen[isolated] = {event["message"] for event in events if event["message"].startswith("got=")}
    assert seen == {True: {"got=101;"}, False: {"got=out;"}}
