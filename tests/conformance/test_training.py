"""Training jobs through unmodified boto3 and aws CLI."""
import io
import json
import subprocess
import tarfile
import threading
import time

import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.harness.jobs import eventually, finished, settled, training_request, with_program
from tests.harness.wire import empty_members


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


def test_absent_members_stay_absent_and_isolation_is_never_null(engine, trained, name, small, role):
    """Proves: NI-4, SM-4
    """
    sagemaker, bodies = engine.client("sagemaker"), {}

    # As they are sent: botocore leaves nulls out while it parses.
    def keep(response_dict, operation_model, **_):
        bodies[operation_model.name] = json.loads(response_dict["body"]) if response_dict["body"] else {}
        if operation_model.output_shape:
            assert list(empty_members(bodies[operation_model.name], operation_model.output_shape)) == [], operation_model.name

    sagemaker.meta.events.register("before-parse.sagemaker", keep)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": small})
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    sagemaker.describe_training_job(TrainingJobName=trained["TrainingJobName"])
    sagemaker.describe_model(ModelName=name)
    sagemaker.describe_endpoint_config(EndpointConfigName=name)
    sagemaker.describe_endpoint(EndpointName=name)
    for list_all in (sagemaker.list_training_jobs, sagemaker.list_models, sagemaker.list_endpoint_configs, sagemaker.list_endpoints):
        list_all(MaxResults=2)
    sagemaker.delete_endpoint(EndpointName=name)
    assert bodies["DescribeTrainingJob"]["EnableNetworkIsolation"] is True and bodies["DescribeModel"]["EnableNetworkIsolation"] is False
    for absent in ("VpcConfig", "CheckpointConfig", "FailureReason", "TuningJobArn", "AutoMLJobArn", "DebugHookConfig"):
        assert absent not in bodies["DescribeTrainingJob"], absent
    assert len(bodies) == 12


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
    """Proves: CC-90"""
    done = subprocess.run(
        ["/usr/bin/aws", "--endpoint-url", engine.url, "logs", "tail", "/aws/sagemaker/TrainingJobs", "--since", "1h", "--log-stream-name-prefix", "conformance-base/"],
        env=engine.environment(), text=True, capture_output=True, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy=" in done.stdout


def test_aws_logs_tail_follows_a_running_job(engine, sagemaker, name, image, role, bucket, digits):
    """Proves: CC-90"""
    sagemaker.create_training_job(**training_request(name, image, role, bucket, digits))
    tail = subprocess.Popen(
        ["/usr/bin/aws", "--endpoint-url", engine.url, "logs", "tail", "/aws/sagemaker/TrainingJobs", "--follow", "--log-stream-name-prefix", f"{name}/"],
        env=engine.environment() | {"PYTHONUNBUFFERED": "1"}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    # A tail that says nothing is ended, which ends the reading too.
    patience = threading.Timer(90, tail.kill)
    patience.start()
    try:
        seen = []
        for line in tail.stdout:
            seen.append(line)
            if "accuracy=" in line:
                break
    finally:
        patience.cancel()
        tail.kill()
        tail.wait()
    assert seen and "accuracy=" in seen[-1], seen
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
    listed = sagemaker.list_training_jobs(NameContains=name[1:])["TrainingJobSummaries"]
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
    request = with_program(engine, bucket, request, program)
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
    assert seen["data"] == ["code", "code/main", "train", "train/a.txt", "train/sub", "train/sub/b.txt"]


def test_a_default_job_has_its_roles_credentials_and_the_public_side(engine, sagemaker, name, role, bucket, digits, image):
    """Proves: NI-1, NI-3, CC-80, CC-81
    """
    program = (
        "import json,os,urllib.request; "
        "c=json.load(urllib.request.urlopen('http://169.254.170.2'+os.environ['AWS_CONTAINER_CREDENTIALS_RELATIVE_URI'],timeout=5)); "
        "web=urllib.request.urlopen('http://203.0.113.10/',timeout=5).read().decode().strip(); "
        "print('SEEN '+json.dumps({'keys': sorted(c), 'id': c['AccessKeyId'][:4], 'role': c['RoleArn'], 'web': web}))"
    )
    request = with_program(engine, bucket, training_request(name, image, role, bucket, digits, isolated=False), program)
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


def log_lines(engine, prefix, ending):
    """Messages of the one stream of training jobs with this beginning and end."""
    logs, group = engine.client("logs"), "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]
    (stream,) = [one["logStreamName"] for one in streams if one["logStreamName"].endswith(ending)]
    return [event["message"] for event in logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]]


def test_a_failed_isolated_job_names_the_first_blocked_destination(engine, sagemaker, name, role, bucket, digits, image):
    """Proves: NI-6, NI-7, NI-22
    """
    program = """
import socket, urllib.request
for attempt in (
    lambda: socket.create_connection(("203.0.113.10", 443), 2),
    lambda: socket.getaddrinfo("s3.us-east-1.amazonaws.com", 443),
    lambda: urllib.request.urlopen("http://169.254.170.2/", timeout=2),
):
    try:
        attempt()
        raise SystemExit("reached")
    except OSError as error:
        print(error)
raise SystemExit(3)
"""
    before = len(engine.internet.arrivals())
    sagemaker.create_training_job(**with_program(engine, bucket, training_request(name, image, role, bucket, digits), program))
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "exit code: 3" in job["FailureReason"]
    assert job["FailureReason"].endswith("[network isolation blocked tcp 203.0.113.10:443 first]")
    attempts = engine.attempts(name)
    kinds = {(entry["protocol"], entry["address"], entry["port"]) for entry in attempts}
    assert ("tcp", "203.0.113.10", 443) in kinds and ("tcp", "169.254.170.2", 80) in kinds
    assert any(entry["name"] == "s3.us-east-1.amazonaws.com" for entry in attempts)
    # The same in the account's logs, a line of JSON for each kind.
    told = [json.loads(line) for line in log_lines(engine, f"{name}/algo-1", "/network-isolation")]
    assert {(entry["blocked"], entry["address"], entry["port"]) for entry in told} == kinds, told
    (workload,) = json.loads(engine.run("report", name, "--json").stdout)["workloads"]
    assert workload["source"] == "ebpf" and workload["left_out"] == 0
    assert len(engine.internet.arrivals()) == before, "nothing arrived"
    # Control: the same program without isolation does reach the target.
    control = training_request(f"{name}-open", image, role, bucket, digits, isolated=False)
    sagemaker.create_training_job(**with_program(engine, bucket, control, program))
    finished(sagemaker, f"{name}-open")
    assert len(engine.internet.arrivals()) > before, "control"


# A shell program that runs until it is stopped.
WAITS = "trap 'exit 0' TERM\nwhile :; do sleep 0.1; done"


def channel(name, uri, kind="S3Prefix", distribution="FullyReplicated"):
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": kind, "S3Uri": uri, "S3DataDistributionType": distribution}}}


@pytest.fixture
def run_shell(engine, sagemaker, name, role, bucket, small):
    """Starts a job of the small image that runs a shell program; more members go into the request."""

    def start(program, image=small, job=name, channels=(), **members):
        request = training_request(job, image, role, bucket, "unused", **members) | {"InputDataConfig": list(channels)}
        sagemaker.create_training_job(**with_program(engine, bucket, request, program, "/bin/sh"))
        return job

    return start


def keys(engine, bucket, prefix):
    """Keys below a prefix, relative to it."""
    listed = engine.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return {entry["Key"].removeprefix(prefix) for entry in listed}


def refused(call, **arguments):
    """The error of a call that must fail."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]


def test_an_image_with_a_user_of_its_own_reads_its_inputs_and_leaves_a_model(engine, sagemaker, name, bucket, small_user, run_shell):
    """Proves: CC-3, CC-16, CC-23, CC-35
    """
    s3 = engine.client("s3")
    for key in ("a.txt", "deep/er/b.txt"):
        s3.put_object(Bucket=bucket, Key=f"owned/{name}/{key}", Body=key.encode())
    for key in ("step", "old/step"):
        s3.put_object(Bucket=bucket, Key=f"owned-checkpoints/{name}/{key}", Body=b"resumed")
    program = """
set -e
id -u > /opt/ml/model/who
cat /opt/ml/input/data/train/a.txt /opt/ml/input/data/train/deep/er/b.txt /opt/ml/checkpoints/step > /opt/ml/model/seen
cat /opt/ml/input/config/hyperparameters.json /opt/ml/input/config/inputdataconfig.json /opt/ml/input/config/resourceconfig.json > /dev/null
if echo x > /opt/ml/input/data/train/a.txt; then exit 9; fi
echo other > /opt/ml/output/data/other
echo next > /opt/ml/checkpoints/step
busybox rm -r /opt/ml/checkpoints/old
"""
    run_shell(
        program, image=small_user, channels=[channel("train", f"s3://{bucket}/owned/{name}/")],
        CheckpointConfig={"S3Uri": f"s3://{bucket}/owned-checkpoints/{name}"},
    )
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    uri = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert member(engine, bucket, uri, "who") == b"65534\n", "control: it was not root"
    assert member(engine, bucket, uri, "seen") == b"a.txtdeep/er/b.txtresumed"
    assert keys(engine, bucket, f"jobs/{name}/output/") == {"model.tar.gz", "output.tar.gz"}
    assert keys(engine, bucket, f"owned-checkpoints/{name}/") == {"step"}
    assert s3.get_object(Bucket=bucket, Key=f"owned-checkpoints/{name}/step")["Body"].read() == b"next\n"
    assert s3.get_object(Bucket=bucket, Key=f"owned/{name}/a.txt")["Body"].read() == b"a.txt"


def test_channels_of_every_kind_appear_side_by_side(engine, sagemaker, name, bucket, run_shell):
    """Proves: CC-18, CC-21, CC-23, CC-27, CC-28
    """
    s3 = engine.client("s3")
    base = f"kinds/{name}"
    for key in ("set/part-1", "set/part-2", "set/more/part-3", "set-aside", "list/x/1", "list/x/2", "list/x/3"):
        s3.put_object(Bucket=bucket, Key=f"{base}/{key}", Body=key.encode())
    manifest = [{"prefix": f"s3://{bucket}/{base}/list/"}, "x/3", "x/1"]
    s3.put_object(Bucket=bucket, Key=f"{base}/manifest.json", Body=json.dumps(manifest).encode())
    channels = [
        channel("folder", f"s3://{bucket}/{base}/set/"),
        channel("prefix", f"s3://{bucket}/{base}/set"),
        channel("single", f"s3://{bucket}/{base}/set/part-2"),
        channel("listed", f"s3://{bucket}/{base}/manifest.json", "ManifestFile"),
        channel("sharded", f"s3://{bucket}/{base}/set/", distribution="ShardedByS3Key"),
    ]
    program = """
cd /opt/ml/input/data
busybox find . -type f | busybox sort > /opt/ml/model/tree
cat listed/x/3 single/part-2 > /opt/ml/model/text
cat /opt/ml/input/config/inputdataconfig.json > /opt/ml/model/config
"""
    run_shell(program, channels=channels)
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    uri = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert member(engine, bucket, uri, "tree").decode().split() == [
        "./code/main",
        "./folder/more/part-3", "./folder/part-1", "./folder/part-2",
        "./listed/x/1", "./listed/x/3",
        "./prefix/more/part-3", "./prefix/part-1", "./prefix/part-2", "./prefix/set-aside",
        "./sharded/more/part-3", "./sharded/part-1", "./sharded/part-2",
        "./single/part-2",
    ]
    assert member(engine, bucket, uri, "text") == b"list/x/3set/part-2"
    config = json.loads(member(engine, bucket, uri, "config"))
    assert {one: kind["S3DistributionType"] for one, kind in config.items()} == {
        "folder": "FullyReplicated", "prefix": "FullyReplicated", "single": "FullyReplicated", "listed": "FullyReplicated",
        "code": "FullyReplicated", "sharded": "ShardedByS3Key",
    }


def test_a_manifest_that_names_a_missing_object_fails_the_download(engine, sagemaker, name, bucket, run_shell):
    """Proves: CC-27, CC-30, SM-41
    """
    manifest = [{"prefix": f"s3://{bucket}/nothing/"}, "here"]
    engine.client("s3").put_object(Bucket=bucket, Key=f"manifests/{name}", Body=json.dumps(manifest).encode())
    run_shell("true", channels=[channel("train", f"s3://{bucket}/manifests/{name}", "ManifestFile")])
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data download failed:")
    assert f"s3://{bucket}/nothing/here" in job["FailureReason"]
    assert "ModelArtifacts" in job and keys(engine, bucket, f"jobs/{name}/") == set()


def test_other_output_is_kept_after_a_failure_and_the_model_is_not(engine, sagemaker, name, bucket, run_shell):
    """Proves: CC-31, CC-32, CC-33, SM-31, SM-65
    """
    program = """
echo weights > /opt/ml/model/weights
echo half > /opt/ml/output/data/report
ends=$(sed -n 's/.*"ends": *"\\([0-9]*\\)".*/\\1/p' /opt/ml/input/config/hyperparameters.json)
[ "$ends" = 0 ] || printf 'line one\\nline two' > /opt/ml/output/failure
exit "$ends"
"""
    run_shell(program, HyperParameters={"ends": "7"})
    job = finished(sagemaker, name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    assert job["FailureReason"] == "AlgorithmError: line one\nline two, exit code: 7"
    assert keys(engine, bucket, f"jobs/{name}/output/") == {"output.tar.gz"}
    output = f"s3://{bucket}/jobs/{name}/output/output.tar.gz"
    assert member(engine, bucket, output, "report") == b"half\n"
    # Control: the same program, ending well.
    control = run_shell(program, job=f"{name}-well", HyperParameters={"ends": "0"})
    assert finished(sagemaker, control)["TrainingJobStatus"] == "Completed"
    assert keys(engine, bucket, f"jobs/{control}/output/") == {"model.tar.gz", "output.tar.gz"}


def test_artifacts_may_be_left_unpacked_and_links_out_of_the_model_are_not_followed(engine, sagemaker, name, bucket, run_shell):
    """Proves: CC-32, CC-37
    """
    program = """
mkdir() { busybox mkdir "$@"; }
mkdir -p /opt/ml/model/sub /opt/ml/output/data
echo weights > /opt/ml/model/sub/weights
echo other > /opt/ml/output/data/other
busybox ln -s /etc/passwd /opt/ml/model/stolen
busybox ln -s sub/weights /opt/ml/model/latest
"""
    loose = run_shell(program, OutputDataConfig={"S3OutputPath": f"s3://{bucket}/loose", "CompressionType": "NONE"})
    packed = run_shell(program, job=f"{name}-packed")
    for job in (loose, packed):
        assert finished(sagemaker, job)["TrainingJobStatus"] == "Completed"
    assert keys(engine, bucket, f"loose/{name}/output/") == {"model/sub/weights", "data/other"}
    body = engine.client("s3").get_object(Bucket=bucket, Key=f"jobs/{packed}/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert b"root" not in b"".join(archive.extractfile(one).read() for one in archive if one.isfile())
        assert archive.extractfile("sub/weights").read() == b"weights\n"


def test_a_job_has_at_most_twenty_channels_and_without_any_no_data(engine, sagemaker, name, bucket, role, small, run_shell):
    """Proves: CC-21
    """
    s3, many = engine.client("s3"), [f"c{number:02}" for number in range(20)]
    for one in many:
        s3.put_object(Bucket=bucket, Key=f"channels/{name}/{one}/data", Body=one.encode())
    channels = [channel(one, f"s3://{bucket}/channels/{name}/{one}/") for one in many]
    # The program is a channel too.
    program = "cd /opt/ml/input/data; for one in *; do echo $one $(ls $one); done > /opt/ml/model/seen"
    error = refused(run_shell, program=program, channels=channels)
    assert error["Code"] == "ValidationException", error
    assert "'inputDataConfig' failed to satisfy constraint: Member must have length less than or equal to 20" in error["Message"], error
    assert refused(sagemaker.describe_training_job, TrainingJobName=name)["Message"] == "Requested resource not found."
    run_shell(program, channels=channels[1:])
    bare = training_request(f"{name}-none", small, role, bucket, "unused")
    del bare["InputDataConfig"]
    bare["AlgorithmSpecification"]["ContainerEntrypoint"] = ["/bin/sh", "-c", "ls -A /opt/ml/input/data > /opt/ml/model/seen; true"]
    sagemaker.create_training_job(**bare)
    seen = []
    for job in (name, f"{name}-none"):
        done = finished(sagemaker, job)
        assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
        seen.append(member(engine, bucket, done["ModelArtifacts"]["S3ModelArtifacts"], "seen").decode().splitlines())
    assert seen == [[*(f"{one} data" for one in many[1:]), "code main"], []]


def test_sigterm_reaches_the_container_which_saves_its_work(engine, sagemaker, name, bucket, run_shell):
    """Proves: CC-4, CC-34, SM-28, SM-33
    """
    program = """
trap 'echo saved > /opt/ml/model/weights; echo part > /opt/ml/output/data/report; echo caught; exit 0' TERM
echo waiting
while :; do sleep 0.05; done
"""
    run_shell(program)
    eventually(lambda: "waiting" in messages(engine, name))
    sagemaker.stop_training_job(TrainingJobName=name)
    job = finished(sagemaker, name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "FailureReason" not in job
    assert [step["Status"] for step in job["SecondaryStatusTransitions"]][-2:] == ["Stopping", "Stopped"]
    assert member(engine, bucket, job["ModelArtifacts"]["S3ModelArtifacts"], "weights") == b"saved\n"
    assert member(engine, bucket, f"s3://{bucket}/jobs/{name}/output/output.tar.gz", "report") == b"part\n"
    assert "caught" in messages(engine, name)


def test_a_container_that_ignores_sigterm_is_killed_and_its_artifacts_are_kept(engine, sagemaker, name, bucket, run_shell):
    """Proves: CC-34
    """
    run_shell("trap 'echo ignored' TERM\necho early > /opt/ml/model/weights\necho waiting\nwhile :; do sleep 0.05; done\n")
    eventually(lambda: "waiting" in messages(engine, name))
    sagemaker.stop_training_job(TrainingJobName=name)
    job = finished(sagemaker, name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "ignored" in messages(engine, name), "SIGTERM came first"
    stopping, stopped = job["SecondaryStatusTransitions"][-2:]
    grace = (stopped["StartTime"] - stopping["StartTime"]).total_seconds()
    assert grace >= 2, "the grace time of this engine, jobs.stop_grace, was waited for"
    assert member(engine, bucket, job["ModelArtifacts"]["S3ModelArtifacts"], "weights") == b"early\n"


def test_the_time_limit_asks_the_container_to_save_its_work(engine, sagemaker, name, bucket, run_shell):
    """Proves: SM-32, CC-34
    """
    program = "trap 'echo saved > /opt/ml/model/weights; exit 1' TERM\nwhile :; do sleep 0.05; done\n"
    run_shell(program, StoppingCondition={"MaxRuntimeInSeconds": 1})
    job = finished(sagemaker, name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert member(engine, bucket, job["ModelArtifacts"]["S3ModelArtifacts"], "weights") == b"saved\n"


def messages(engine, job):
    """Lines of a job's container so far."""
    logs = engine.client("logs")
    try:
        events = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{job}/algo-1-")["events"]
    except logs.exceptions.ResourceNotFoundException:
        return []
    return [event["message"] for event in events]


def test_a_container_beyond_its_memory_says_so_in_the_failure_reason(engine, sagemaker, name, role, bucket, digits, image):
    """Proves: CC-7, SM-41
    """
    resources = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
    program = "import json; keep = bytes([1]) * (int(json.load(open('/opt/ml/input/config/hyperparameters.json'))['mib']) << 20)"
    jobs = {name: "320", f"{name}-control": "128"}
    for job, mib in jobs.items():
        request = training_request(job, image, role, bucket, digits, ResourceConfig=resources, HyperParameters={"mib": mib})
        sagemaker.create_training_job(**with_program(engine, bucket, request, program))
    assert finished(sagemaker, f"{name}-control")["TrainingJobStatus"] == "Completed", "control: half of it is fine"
    job = finished(sagemaker, name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: The container used more memory than ml.t3.medium has, exit code: 137"


def test_training_jobs_are_found_by_status_name_and_time(sagemaker, name, run_shell):
    """Proves: SM-10, SM-11, SM-12
    """
    stem = name[-6:]
    ends = {f"{stem}-a-done": "exit 0", f"{stem}-b-failed": "exit 1", f"{stem}-c-runs": WAITS}
    for job, program in ends.items():
        run_shell(program, job=job)
    done, failed, runs = ends
    first, second = finished(sagemaker, done), finished(sagemaker, failed)

    def found(**filters):
        jobs = sagemaker.list_training_jobs(NameContains=stem.upper(), **filters)["TrainingJobSummaries"]
        return [job["TrainingJobName"] for job in jobs]

    try:
        assert found() == [done, failed, runs], "oldest first unless asked otherwise"
        assert found(StatusEquals="Completed") == [done]
        assert found(StatusEquals="Failed") == [failed]
        assert found(StatusEquals="InProgress") == [runs]
        assert found(StatusEquals="Stopped") == []
        assert found(SortBy="Name", SortOrder="Descending") == [runs, failed, done]
        assert found(SortBy="Status") == [done, failed, runs]
        assert found(CreationTimeAfter=first["CreationTime"]) == [failed, runs]
        assert found(CreationTimeBefore=second["CreationTime"]) == [done]
        assert found(LastModifiedTimeBefore=first["CreationTime"]) == []
        pages = sagemaker.get_paginator("list_training_jobs").paginate(NameContains=stem, PaginationConfig={"PageSize": 1})
        assert [[job["TrainingJobName"] for job in page["TrainingJobSummaries"]] for page in pages][:3] == [[done], [failed], [runs]]
        summary = sagemaker.list_training_jobs(NameContains=failed)["TrainingJobSummaries"][0]
        assert summary["TrainingJobStatus"] == "Failed" and summary["TrainingEndTime"] == second["TrainingEndTime"]
        assert refused(sagemaker.list_training_jobs, NextToken="not-a-token")["Code"] == "ValidationException"
    finally:
        sagemaker.stop_training_job(TrainingJobName=runs)
    assert finished(sagemaker, runs)["TrainingJobStatus"] == "Stopped"
    assert found(StatusEquals="Stopped") == [runs]


def test_a_finished_job_can_be_deleted_and_its_name_is_free_again(sagemaker, name, run_shell):
    """Proves: SM-33
    """
    run_shell(WAITS)
    error = refused(sagemaker.delete_training_job, TrainingJobName=name)
    assert error["Code"] == "ValidationException" and "InProgress" in error["Message"]
    sagemaker.stop_training_job(TrainingJobName=name)
    finished(sagemaker, name)
    sagemaker.delete_training_job(TrainingJobName=name)
    assert refused(sagemaker.describe_training_job, TrainingJobName=name)["Message"] == "Requested resource not found."
    run_shell("exit 0")
    assert finished(sagemaker, name)["TrainingJobStatus"] == "Completed"


def test_the_waiter_succeeds_for_stopped_jobs_and_fails_for_failed_and_missing_ones(sagemaker, name, run_shell):
    """Proves: SM-66
    """
    quick = {"Delay": 1, "MaxAttempts": 60}
    waiter = sagemaker.get_waiter("training_job_completed_or_stopped")
    run_shell(WAITS)
    failing = run_shell("exit 1", job=f"{name}-fails")
    sagemaker.stop_training_job(TrainingJobName=name)
    waiter.wait(TrainingJobName=name, WaiterConfig=quick)
    assert sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Stopped"
    with pytest.raises(WaiterError) as failed:
        waiter.wait(TrainingJobName=failing, WaiterConfig=quick)
    assert failed.value.last_response["TrainingJobStatus"] == "Failed"
    with pytest.raises(WaiterError) as missing:
        waiter.wait(TrainingJobName="never-made", WaiterConfig=quick)
    assert missing.value.last_response["Error"]["Code"] == "ValidationException"
