"""Training jobs through unmodified boto3 and aws CLI."""
import io
import json
import subprocess
import tarfile
import time

import pytest
from botocore.exceptions import ClientError

from tests.harness.jobs import eventually, finished, training_request


def member(engine, bucket, uri, name):
    """One file of a tar.gz object."""
    body = engine.client("s3").get_object(Bucket=bucket, Key=uri.removeprefix(f"s3://{bucket}/"))["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return archive.extractfile(name).read()


def test_an_isolated_job_trains_and_leaves_its_model_in_s3(engine, bucket, trained):
    """Proves: NI-12, SM-28, SM-29, SM-30, SM-31, CC-32, CC-38, CC-39
    """
    assert trained["TrainingJobStatus"] == "Completed"
    assert trained["EnableNetworkIsolation"] is True
    uri = trained["ModelArtifacts"]["S3ModelArtifacts"]
    assert uri == f"s3://{bucket}/jobs/conformance-base/output/model.tar.gz"
    assert len(member(engine, bucket, uri, "model.joblib")) > 10_000
    steps = [step["Status"] for step in trained["SecondaryStatusTransitions"]]
    assert steps == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all(step["StartTime"] <= step["EndTime"] for step in trained["SecondaryStatusTransitions"][:-1])
    metric = trained["FinalMetricDataList"][0]
    assert metric["MetricName"] == "accuracy" and metric["Value"] > 0.95
    assert trained["TrainingStartTime"] <= trained["TrainingEndTime"]
    assert trained["BillableTimeInSeconds"] <= trained["TrainingTimeInSeconds"]


def test_absent_members_stay_absent_and_isolation_is_never_null(sagemaker, trained):
    """Proves: NI-4, SM-4
    """
    for absent in ("VpcConfig", "CheckpointConfig", "FailureReason", "TuningJobArn", "AutoMLJobArn", "DebugHookConfig"):
        assert absent not in trained, absent


@pytest.mark.parametrize("flag, expected", [(True, True), (False, False), (None, False)])
def test_network_isolation_is_accepted_given_and_absent(sagemaker, name, image, role, bucket, digits, flag, expected):
    """Proves: NI-4
    """
    request = training_request(name, image, role, bucket, digits)
    request.pop("EnableNetworkIsolation")
    if flag is not None:
        request["EnableNetworkIsolation"] = flag
    sagemaker.create_training_job(**request)
    assert sagemaker.describe_training_job(TrainingJobName=name)["EnableNetworkIsolation"] is expected
    sagemaker.stop_training_job(TrainingJobName=name)
    finished(sagemaker, name)


def test_logs_of_an_isolated_job_are_collected(engine, sagemaker, trained):
    """Proves: NI-24, CC-90
    """
    logs = engine.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="conformance-base/", orderBy="LogStreamName")["logStreams"]
    names = [stream["logStreamName"] for stream in streams if "/algo-1-" in stream["logStreamName"]]
    assert names
    lines = eventually(lambda: [e["message"] for e in logs.get_log_events(logGroupName=group, logStreamName=names[0], startFromHead=True)["events"]])
    assert any(line.startswith("accuracy=") for line in lines)


def test_aws_logs_tail_shows_a_job(engine, trained):
    done = subprocess.run(
        ["/usr/bin/aws", "--endpoint-url", engine.url, "logs", "tail", "/aws/sagemaker/TrainingJobs", "--since", "1h", "--log-stream-name-prefix", "conformance-base/"],
        env=engine.environment(), text=True, capture_output=True, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy=" in done.stdout


def test_aws_logs_tail_follows_a_running_job(engine, sagemaker, name, image, role, bucket, digits):
    sagemaker.create_training_job(**training_request(name, image, role, bucket, digits))
    tail = subprocess.Popen(
        ["/usr/bin/aws", "--endpoint-url", engine.url, "logs", "tail", "/aws/sagemaker/TrainingJobs", "--follow", "--log-stream-name-prefix", f"{name}/"],
        env=engine.environment() | {"PYTHONUNBUFFERED": "1"}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    seen = []
    try:
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            line = tail.stdout.readline()
            seen.append(line)
            if "accuracy=" in line:
                break
    finally:
        tail.kill()
        tail.wait()
    assert "accuracy=" in seen[-1], seen
    finished(sagemaker, name)


def test_the_containers_failure_file_becomes_the_failure_reason(sagemaker, name, image, role, bucket, digits):
    """Proves: CC-31, CC-33, SM-41, SM-65
    """
    request = training_request(name, image, role, bucket, digits, HyperParameters={"trees": "5", "least_accuracy": "1.5"})
    sagemaker.create_training_job(**request)
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Failed" and job["SecondaryStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: accuracy 0.")
    assert "is below 1.5, exit code: 1" in job["FailureReason"]


def test_stop_ends_a_job_and_keeps_its_artifacts(sagemaker, name, image, role, bucket, digits):
    """Proves: CC-34, SM-33
    """
    sagemaker.create_training_job(**training_request(name, image, role, bucket, digits, HyperParameters={"trees": "100000"}))
    eventually(lambda: sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == "Training")
    sagemaker.stop_training_job(TrainingJobName=name)
    assert sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] in ("Stopping", "Stopped")
    job = finished(sagemaker, name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    with pytest.raises(ClientError) as refused:
        sagemaker.stop_training_job(TrainingJobName=name)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert "The request was rejected because the training job is in status Stopped" in str(refused.value)


def test_the_time_limit_stops_a_job(sagemaker, name, image, role, bucket, digits):
    """Proves: SM-32
    """
    request = training_request(name, image, role, bucket, digits, HyperParameters={"trees": "100000"}, StoppingCondition={"MaxRuntimeInSeconds": 1})
    sagemaker.create_training_job(**request)
    job = finished(sagemaker, name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_job_name_is_used_once(sagemaker, image, role, bucket, digits, trained):
    """Proves: SM-60
    """
    with pytest.raises(ClientError) as refused:
        sagemaker.create_training_job(**training_request("conformance-base", image, role, bucket, digits))
    error = refused.value.response["Error"]
    assert error["Code"] == "ResourceInUse"
    assert error["Message"].startswith("Training job names must be unique within an AWS account and region")


def test_missing_things_have_the_texts_that_clients_match(sagemaker, name, image, role, bucket, digits):
    """Proves: SM-60, CC-30
    """
    with pytest.raises(ClientError, match="Requested resource not found."):
        sagemaker.describe_training_job(TrainingJobName="never-made")
    with pytest.raises(ClientError, match="No S3 objects found under S3 URL"):
        sagemaker.create_training_job(**training_request(name, image, role, bucket, f"s3://{bucket}/nothing-here/"))
    with pytest.raises(ClientError, match="Could not assume role"):
        sagemaker.create_training_job(**training_request(name, image, role + "-missing", bucket, digits))
    with pytest.raises(ClientError, match="Requested resource not found."):
        sagemaker.describe_training_job(TrainingJobName=name)


def test_requests_are_checked_against_the_model_with_awss_texts(engine):
    """Proves: SM-6
    """
    client = engine.client("sagemaker", config={"parameter_validation": False})
    with pytest.raises(ClientError) as refused:
        client.create_model(ModelName="bad name!", ExecutionRoleArn="x")
    error = refused.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert "validation errors detected" in error["Message"]
    assert "Value 'bad name!' at 'modelName' failed to satisfy constraint: Member must satisfy regular expression pattern" in error["Message"]


def test_a_transfer_needs_the_execution_roles_permission(engine, sagemaker, name, image, bucket, digits):
    """The caller is root and may read everything; the role may not (control: the base job's role may).
    Proves: NI-14
    """
    from tests.harness.engine import execution_statements

    statements = [s for s in execution_statements(bucket) if s["Action"] != ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]]
    bare = engine.create_role(f"{name}-role", statements)
    sagemaker.create_training_job(**training_request(name, image, bare, bucket, digits))
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data download failed")
    assert "s3:GetObject" in job["FailureReason"]
    engine.client("iam").put_role_policy(
        RoleName=f"{name}-role", PolicyName="inline",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": execution_statements(bucket)}),
    )
    sagemaker.create_training_job(**training_request(f"{name}-2", image, bare, bucket, digits))
    assert finished(sagemaker, f"{name}-2")["TrainingJobStatus"] == "Completed"


def test_training_jobs_are_listed_filtered_and_tagged(sagemaker, name, image, role, bucket, digits, trained):
    """Proves: SM-10, SM-11, SM-13
    """
    request = training_request(name, image, role, bucket, digits, Tags=[{"Key": "team", "Value": "a"}])
    arn = sagemaker.create_training_job(**request)["TrainingJobArn"]
    listed = sagemaker.list_training_jobs(NameContains=name[:12])["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in listed] == [name]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "b"}, {"Key": "x", "Value": ""}])
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["x", "unknown"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "b"}]
    assert finished(sagemaker, name)["TrainingJobStatus"] == "Completed"
    completed = sagemaker.list_training_jobs(StatusEquals="Completed", SortBy="CreationTime", SortOrder="Descending", MaxResults=1)
    assert [job["TrainingJobName"] for job in completed["TrainingJobSummaries"]] == [name]


def test_the_waiter_for_training_jobs_ends(sagemaker, trained):
    """Proves: SM-66
    """
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName="conformance-base", WaiterConfig={"Delay": 1, "MaxAttempts": 2})


def test_checkpoints_travel_both_ways(engine, sagemaker, name, role, bucket, digits, image):
    """Proves: CC-35
    """
    s3 = engine.client("s3")
    s3.put_object(Bucket=bucket, Key=f"checkpoints/{name}/before.txt", Body=b"earlier")
    program = (
        "import pathlib,time; root=pathlib.Path('/opt/ml/checkpoints'); "
        "assert (root/'before.txt').read_text()=='earlier'; (root/'step-1').write_text('one'); time.sleep(1.5); "
        "(root/'step-1').unlink(); (root/'sub').mkdir(); (root/'sub'/'step-2').write_text('two')"
    )
    request = training_request(name, image, role, bucket, digits, CheckpointConfig={"S3Uri": f"s3://{bucket}/checkpoints/{name}"})
    request["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["/usr/bin/python3", "-c", program]}
    sagemaker.create_training_job(**request)
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    keys = {o["Key"].removeprefix(f"checkpoints/{name}/") for o in s3.list_objects_v2(Bucket=bucket, Prefix=f"checkpoints/{name}/")["Contents"]}
    assert keys == {"before.txt", "sub/step-2"}
    assert s3.get_object(Bucket=bucket, Key=f"checkpoints/{name}/sub/step-2")["Body"].read() == b"two"


def test_the_container_sees_the_contract(engine, sagemaker, name, role, bucket, digits, image):
    """Proves: CC-14, CC-15, CC-16, CC-17, CC-18, CC-19, CC-20, CC-23, NI-8, CC-84
    """
    program = (
        "import json,os,pathlib,socket; config=pathlib.Path('/opt/ml/input/config'); "
        "print('SEEN '+json.dumps({'files': {p.name: json.loads(p.read_text()) for p in config.iterdir()}, 'env': dict(os.environ), "
        "'host': socket.gethostname(), 'self': socket.gethostbyname('algo-1'), 'data': sorted(str(p.relative_to('/opt/ml/input/data')) for p in pathlib.Path('/opt/ml/input/data').rglob('*'))}))"
    )
    s3 = engine.client("s3")
    for key in ("a.txt", "sub/b.txt", "sub/"):
        s3.put_object(Bucket=bucket, Key=f"tree/{name}/{key}", Body=b"" if key.endswith("/") else key.encode())
    request = training_request(name, image, role, bucket, f"s3://{bucket}/tree/{name}/", Environment={"MINE": "kept"}, HyperParameters={"json": '"quoted"'})
    request["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["/usr/bin/python3"], "ContainerArguments": ["-c", program]}
    sagemaker.create_training_job(**request)
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    logs = engine.client("logs")
    events = eventually(lambda: [
        e["message"] for e in logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/algo-1-")["events"]
        if e["message"].startswith("SEEN ")
    ])
    seen = json.loads(events[0].removeprefix("SEEN "))
    assert seen["files"]["hyperparameters.json"] == {"json": '"quoted"'}
    channel = seen["files"]["inputdataconfig.json"]["train"]
    assert channel["TrainingInputMode"] == "File" and channel["ContentType"] == "text/csv"
    resources = seen["files"]["resourceconfig.json"]
    assert resources["current_host"] == "algo-1" and resources["hosts"] == ["algo-1"]
    assert seen["host"] == "algo-1" and seen["self"].startswith("127.")
    assert seen["env"]["TRAINING_JOB_NAME"] == name and seen["env"]["MINE"] == "kept"
    assert seen["env"]["TRAINING_JOB_ARN"].endswith(name) and seen["env"]["AWS_REGION"] == "us-east-1"
    assert not [key for key in seen["env"] if "CREDENTIALS" in key or "ACCESS_KEY" in key or "SESSION_TOKEN" in key]
    assert seen["data"] == ["train", "train/a.txt", "train/sub", "train/sub/b.txt"]


def test_a_default_job_has_its_roles_credentials_and_the_public_side(engine, sagemaker, name, role, bucket, digits, image):
    """Proves: NI-1, NI-3, CC-80, CC-81
    """
    program = (
        "import json,os,urllib.request; "
        "c=json.load(urllib.request.urlopen('http://169.254.170.2'+os.environ['AWS_CONTAINER_CREDENTIALS_RELATIVE_URI'],timeout=5)); "
        "web=urllib.request.urlopen('http://203.0.113.10/',timeout=5).read().decode().strip(); "
        "print('SEEN '+json.dumps({'keys': sorted(c), 'id': c['AccessKeyId'][:4], 'role': c['RoleArn'], 'web': web}))"
    )
    request = training_request(name, image, role, bucket, digits, isolated=False)
    request["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["/usr/bin/python3", "-c", program]}
    sagemaker.create_training_job(**request)
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    logs = engine.client("logs")
    events = eventually(lambda: [
        e["message"] for e in logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/algo-1-")["events"]
        if e["message"].startswith("SEEN ")
    ])
    seen = json.loads(events[0].removeprefix("SEEN "))
    assert seen["keys"] == ["AccessKeyId", "Expiration", "RoleArn", "SecretAccessKey", "Token"]
    assert seen["id"] == "ASIA" and seen["role"] == role
    assert seen["web"] == "hello"


def test_a_failed_isolated_job_names_the_first_blocked_destination(engine, sagemaker, name, role, bucket, digits, image):
    """Proves: NI-6, NI-7, NI-22
    """
    program = (
        "import socket,urllib.request\n"
        "for attempt in (lambda: socket.create_connection(('203.0.113.10', 443), 2), lambda: socket.getaddrinfo('s3.us-east-1.amazonaws.com', 443), "
        "lambda: urllib.request.urlopen('http://169.254.170.2/', timeout=2)):\n"
        "    try:\n        attempt(); raise SystemExit('reached')\n    except OSError as error: print(error)\n"
        "raise SystemExit(3)"
    )
    before = len(engine.internet.arrivals())
    request = training_request(name, image, role, bucket, digits)
    request["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["/usr/bin/python3", "-c", program]}
    sagemaker.create_training_job(**request)
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "exit code: 3" in job["FailureReason"]
    assert job["FailureReason"].endswith("[network isolation blocked tcp 203.0.113.10:443 first]")
    report = json.loads(engine.run("report", name, "--json").stdout)
    kinds = {(entry["protocol"], entry["address"], entry["port"]) for entry in report["attempts"]}
    assert ("tcp", "203.0.113.10", 443) in kinds and ("tcp", "169.254.170.2", 80) in kinds
    assert any(entry["name"] == "s3.us-east-1.amazonaws.com" for entry in report["attempts"])
    assert len(engine.internet.arrivals()) == before, "nothing arrived"
    # Control: the same program without isolation does reach the target.
    open_request = training_request(f"{name}-open", image, role, bucket, digits, isolated=False)
    open_request["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["/usr/bin/python3", "-c", program]}
    sagemaker.create_training_job(**open_request)
    finished(sagemaker, f"{name}-open")
    assert len(engine.internet.arrivals()) > before, "control"
