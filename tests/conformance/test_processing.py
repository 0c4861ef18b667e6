"""Processing jobs: boto3 against the real engine, containers with inputs, outputs and a message."""
import json

import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.conformance.test_vpc_jobs import Network
from tests.harness.engine import WEB
from tests.harness import jobs
from tests.harness.jobs import eventually

GROUP = "/aws/sagemaker/ProcessingJobs"
BASE = "/opt/ml/processing"


@pytest.fixture(scope="module")
def rows(engine, bucket):
    """Three objects."""
    for key in ("a", "b", "c"):
        engine.client("s3").put_object(Bucket=bucket, Key=f"processing/rows/{key}.txt", Body=f"row {key}\n".encode())
    return f"s3://{bucket}/processing/rows"


@pytest.fixture
def network(ec2):
    made = Network(ec2, block="10.31.0.0/16", subnet="10.31.1.0/24")
    yield made
    made.remove()


def source(name, uri, below, **members):
    s3 = {"S3Uri": uri, "LocalPath": f"{BASE}/{below}", "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": s3 | members}


def target(name, uri, below, mode="EndOfJob"):
    return {"OutputName": name, "S3Output": {"S3Uri": uri, "LocalPath": f"{BASE}/{below}", "S3UploadMode": mode}}


def start(engine, bucket, name, image, role, script, inputs=(), outputs=(), instances=1, network=None, client=None, **members):
    """Starts a job that runs a shell script, which reaches it as an input: an entry point is too short for programs."""
    code = f"processing/{name}/code/main"
    engine.client("s3").put_object(Bucket=bucket, Key=code, Body=script.encode())
    request = {
        "ProcessingJobName": name, "RoleArn": role,
        "AppSpecification": {"ImageUri": image, "ContainerEntrypoint": ["/bin/sh", f"{BASE}/input/code/main"]},
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 1}},
        "ProcessingInputs": [source("code", f"s3://{bucket}/{code}", "input/code"), *inputs],
        "ProcessingOutputConfig": {"Outputs": list(outputs)},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }
    if network is not None:
        request["NetworkConfig"] = network
    return (client or engine.client("sagemaker")).create_processing_job(**request | members)


def ended(sagemaker, name, timeout=120):
    return jobs.ended(lambda: sagemaker.describe_processing_job(ProcessingJobName=name), "ProcessingJobStatus", timeout)


def completed(sagemaker, name):
    done = ended(sagemaker, name)
    assert done["ProcessingJobStatus"] == "Completed", done.get("FailureReason")
    return done


def stored(engine, bucket, prefix):
    """Objects below a prefix, by the rest of their keys."""
    s3 = engine.client("s3")
    found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return {one["Key"].removeprefix(prefix): s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read().decode() for one in found}


def lines(engine, name):
    """Lines of a job's log by stream."""
    logs = engine.client("logs")
    try:
        events = logs.filter_log_events(logGroupName=GROUP, logStreamNamePrefix=f"{name}/")["events"]
    except logs.exceptions.ResourceNotFoundException:
        return {}
    told = {}
    for event in events:
        told.setdefault(event["logStreamName"].split("/", 1)[1], []).append(event["message"])
    return told


def test_a_job_gets_its_inputs_and_leaves_its_outputs_and_its_message(engine, sagemaker, small, role, bucket, rows, name):
    """
    Proves: SM-40, SM-66, SM-71, CC-40, CC-41, CC-42, CC-43, CC-44, CC-90, SM-13
    """
    manifest = json.dumps([{"prefix": f"{rows}/"}, "c.txt", "a.txt"])
    engine.client("s3").put_object(Bucket=bucket, Key=f"processing/{name}/list", Body=manifest.encode())
    script = f"""
cd {BASE}
cat input/*.txt > out/rows; busybox mkdir out/deep; cat listed/*.txt > out/deep/listed
busybox ln -s /etc/passwd out/link
cp() {{ cat $1 > $2; }}
cp /opt/ml/config/processingjobconfig.json out/config; cp /opt/ml/config/resourceconfig.json out/resources
echo "$COLOUR $AWS_REGION $(busybox hostname)"; echo 'three rows, ünd so weiter' > /opt/ml/output/message
"""
    inputs = [source("rows", rows, "input"), source("listed", f"s3://{bucket}/processing/{name}/list", "listed", S3DataType="ManifestFile")]
    arn = start(
        engine, bucket, name, small, role, script, inputs, [target("out", f"s3://{bucket}/processed/{name}", "out")],
        network={"EnableNetworkIsolation": True}, Environment={"COLOUR": "blue"}, Tags=[{"Key": "team", "Value": "x"}])["ProcessingJobArn"]
    sagemaker.get_waiter("processing_job_completed_or_stopped").wait(ProcessingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    done = sagemaker.describe_processing_job(ProcessingJobName=name)
    assert done["ProcessingJobStatus"] == "Completed" and "FailureReason" not in done, done
    assert done["ExitMessage"] == "three rows, ünd so weiter\n"
    assert done["CreationTime"] <= done["ProcessingStartTime"] <= done["ProcessingEndTime"]
    assert done["NetworkConfig"]["EnableNetworkIsolation"] is True
    kept = stored(engine, bucket, f"processed/{name}/")
    assert kept.pop("rows") == "row a\nrow b\nrow c\n" and kept.pop("deep/listed") == "row a\nrow c\n"
    config, resources = json.loads(kept.pop("config")), json.loads(kept.pop("resources"))
    assert not kept, "links are not followed"
    assert resources == {"current_host": "algo-1", "hosts": ["algo-1"]}
    assert config["ProcessingJobArn"] == arn and config["ProcessingJobName"] == name and config["Environment"] == {"COLOUR": "blue"}
    assert config["AppSpecification"] == done["AppSpecification"] | {"ContainerArguments": None}
    assert [one["InputName"] for one in config["ProcessingInputs"]] == ["code", "rows", "listed"]
    assert config["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"] is None
    created = int(done["CreationTime"].timestamp())
    assert eventually(lambda: lines(engine, name)) == {f"algo-1-{created}": ["blue us-east-1 algo-1"]}
    (listed,) = sagemaker.list_processing_jobs(NameContains=name, StatusEquals="Completed")["ProcessingJobSummaries"]
    assert (listed["ProcessingJobArn"], listed["ExitMessage"]) == (arn, done["ExitMessage"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "x"}]
    sagemaker.delete_processing_job(ProcessingJobName=name)
    with pytest.raises(sagemaker.exceptions.ClientError, match=f"Could not find requested job with name: {name}"):
        sagemaker.describe_processing_job(ProcessingJobName=name)
    eventually(lambda: not [place for place in (engine.data / "work").iterdir() if (place / "processing").exists()], 30)


FETCH = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {WEB} 80 | grep hello || exit 7"


def test_isolation_is_a_wall_for_processing_jobs_too(engine, sagemaker, small, role, bucket, name):
    """
    One script, twice: without isolation it fetches a page, with isolation nothing leaves and the reason names where it went.
    Proves: NI-12, NI-24, SM-65, CC-42
    """
    arrived = lambda: len(engine.internet.arrivals())  # noqa: E731
    script = f"echo tried > {BASE}/out/tried; echo going > /opt/ml/output/message; {FETCH}"
    outputs = [target("out", f"s3://{bucket}/processed/{name}", "out")]
    before = arrived()
    start(engine, bucket, f"{name}-open", small, role, script, outputs=outputs)
    opened = ended(sagemaker, f"{name}-open")
    assert opened["ProcessingJobStatus"] == "Completed" and "NetworkConfig" not in opened, (opened, lines(engine, f"{name}-open"))
    reached = eventually(lambda: arrived() - before, 20)
    assert reached >= 1, "control: the page is there"
    before = arrived()
    start(engine, bucket, name, small, role, script, outputs=outputs, network={"EnableNetworkIsolation": True})
    done = ended(sagemaker, name)
    assert done["ProcessingJobStatus"] == "Failed" and done["ExitMessage"] == "going\n"
    assert done["FailureReason"] == f"AlgorithmError: , exit code: 7 [network isolation blocked tcp {WEB}:80 first]", done["FailureReason"]
    assert arrived() == before
    assert ("tcp", WEB, 80) in {(one["protocol"], one["address"], one["port"]) for one in engine.attempts(name)}
    assert stored(engine, bucket, f"processed/{name}/") == {"tried": "tried\n"}, "a failed job's output is kept"


@pytest.mark.parametrize("isolated", [False, True])
def test_in_a_vpc_data_travels_through_the_subnet(engine, sagemaker, small, vpc_role, bucket, rows, network, name, isolated):
    """
    Proves: VPC-10, NI-17, NI-18, NET-66, NET-69
    """
    free = network.free()
    script = f"cat {BASE}/input/*.txt > {BASE}/out/rows; busybox ip -o -4 addr; echo SEEN; until [ -e {BASE}/out/never ]; do sleep 0.2; done"
    start(
        engine, bucket, name, small, vpc_role, script, [source("rows", rows, "input")],
        [target("out", f"s3://{bucket}/processed/{name}", "out")],
        network={"EnableNetworkIsolation": isolated, "VpcConfig": network.config})
    seen = eventually(lambda: [one for all in lines(engine, name).values() for one in all if "SEEN" in all], 90)
    addresses = [line for line in seen if " inet " in line and " lo " not in line]
    assert (not addresses) if isolated else any("10.31.1." in line for line in addresses), addresses
    assert network.free() == free - 2
    sagemaker.stop_processing_job(ProcessingJobName=name)
    done = ended(sagemaker, name)
    assert done["ProcessingJobStatus"] == "Stopped" and done["NetworkConfig"]["VpcConfig"] == network.config
    assert stored(engine, bucket, f"processed/{name}/") == {"rows": "row a\nrow b\nrow c\n"}
    eventually(lambda: network.free() == free, 60)


def test_in_a_vpc_instances_meet_when_their_group_admits_its_own_members(engine, ec2, sagemaker, small, vpc_role, bucket, network, name):
    """
    Each instance says whenever it finds the other one, or finds it no longer.
    Proves: CC-46
    """
    script = """
me=$(busybox hostname) last=
(while true; do echo there | nc -l -p 7000; done) >/dev/null 2>&1 &
while true; do
  now=met
  for peer in algo-1 algo-2; do
    if [ $peer != $me ]; then nc -w 1 $peer 7000 </dev/null 2>/dev/null | grep -q there || now=cut; fi
  done
  [ $now = "$last" ] || echo PEER $now; last=$now; sleep 0.2
done
"""
    start(engine, bucket, name, small, vpc_role, script, instances=2, network={"EnableNetworkIsolation": False, "VpcConfig": network.config})

    def both(state):
        told = [[line for line in all if line.startswith("PEER")] for all in lines(engine, name).values()]
        return len(told) == 2 and all(one and one[-1] == f"PEER {state}" for one in told)

    eventually(lambda: both("cut"), 90)
    rule = {"GroupId": network.group, "IpPermissions": [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": network.group}]}]}
    ec2.authorize_security_group_ingress(**rule)
    eventually(lambda: both("met"), 60)
    ec2.revoke_security_group_ingress(**rule)
    eventually(lambda: both("cut"), 60)
    sagemaker.stop_processing_job(ProcessingJobName=name)
    assert ended(sagemaker, name)["ProcessingJobStatus"] == "Stopped"


def test_a_message_has_1024_characters_at_most_and_time_limits_have_bounds(engine, sagemaker, small, role, bucket, name):
    """
    Proves: SM-40, CC-44, SM-66
    """
    for wrong in (0, 777_601):
        client = engine.client("sagemaker", config={"parameter_validation": False})
        with pytest.raises(ClientError, match="maxRuntimeInSeconds") as refused:
            start(engine, bucket, name, small, role, "true", client=client, StoppingCondition={"MaxRuntimeInSeconds": wrong})
        assert refused.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError, match="Could not find requested job"):
        sagemaker.describe_processing_job(ProcessingJobName=name)
    script = "busybox seq 1000 1999 | busybox tr -d '\\n' > /opt/ml/output/message; exit 3"
    start(engine, bucket, name, small, role, script, StoppingCondition={"MaxRuntimeInSeconds": 777_600})
    waiter, quick = sagemaker.get_waiter("processing_job_completed_or_stopped"), {"Delay": 1, "MaxAttempts": 120}
    with pytest.raises(WaiterError) as failed:
        waiter.wait(ProcessingJobName=name, WaiterConfig=quick)
    assert failed.value.last_response["ProcessingJobStatus"] == "Failed"
    assert failed.value.last_response["ExitMessage"] == "".join(map(str, range(1000, 1256)))
    with pytest.raises(WaiterError) as missing:
        waiter.wait(ProcessingJobName="never-made", WaiterConfig=quick)
    assert missing.value.last_response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_isolated_instances_share_the_objects_and_meet(engine, sagemaker, small, role, bucket, rows, name, encrypted):
    """
    Proves: NI-9, CC-20, CC-28, CC-31, CC-43, CC-44, CC-89
    """
    script = f"""
me=$(busybox hostname)
case $me in
  algo-1) nc -l -p 7000 > {BASE}/out/heard; test -s {BASE}/out/heard || exit 3;;
  algo-2) until echo "from $me" | nc -w 30 algo-1 7000; do sleep 0.2; done;;
esac
ls {BASE}/input/rows > {BASE}/out/share-$me
grep -c peers0: /proc/net/dev > {BASE}/out/tunnels-$me
echo -n "$me. " > /opt/ml/output/message
"""
    network = {"EnableNetworkIsolation": True} | ({"EnableInterContainerTrafficEncryption": True} if encrypted else {})
    start(
        engine, bucket, name, small, role, script, [source("rows", rows, "input/rows", S3DataDistributionType="ShardedByS3Key")],
        [target("out", f"s3://{bucket}/processed/{name}", "out")], instances=2, network=network)
    done = completed(sagemaker, name)
    assert done["ExitMessage"] == "algo-1. algo-2. "
    kept = stored(engine, bucket, f"processed/{name}/")
    tunnels = {f"tunnels-algo-{at}": f"{int(encrypted)}\n" for at in (1, 2)}
    assert kept == {"heard": "from algo-2\n", "share-algo-1": "a.txt\nc.txt\n", "share-algo-2": "b.txt\n"} | tunnels


def test_continuous_output_is_there_while_the_job_runs_and_a_stop_is_heard(engine, sagemaker, small, role, bucket, name):
    """
    Proves: CC-42, CC-45, SM-40
    """
    script = f"""
trap 'echo late > {BASE}/live/step; echo whole > {BASE}/end/result; echo stopped > /opt/ml/output/message; exit 0' TERM
echo early > {BASE}/live/step
while true; do sleep 0.1; done
"""
    outputs = [
        target("live", f"s3://{bucket}/processed/{name}/live", "live", "Continuous"), target("end", f"s3://{bucket}/processed/{name}/end", "end")]
    start(engine, bucket, name, small, role, script, outputs=outputs, network={"EnableNetworkIsolation": True})
    kept = lambda: stored(engine, bucket, f"processed/{name}/")  # noqa: E731
    eventually(lambda: kept() == {"live/step": "early\n"}, 60)
    assert sagemaker.describe_processing_job(ProcessingJobName=name)["ProcessingJobStatus"] == "InProgress"
    with pytest.raises(sagemaker.exceptions.ClientError, match="is in status InProgress"):
        sagemaker.delete_processing_job(ProcessingJobName=name)
    sagemaker.stop_processing_job(ProcessingJobName=name)
    done = ended(sagemaker, name)
    assert done["ProcessingJobStatus"] == "Stopped" and "FailureReason" not in done
    assert done["ExitMessage"] == "stopped\n" and kept() == {"live/step": "late\n", "end/result": "whole\n"}
    with pytest.raises(sagemaker.exceptions.ClientError, match="is in status Stopped"):
        sagemaker.stop_processing_job(ProcessingJobName=name)


def test_the_time_limit_stops_a_job(engine, sagemaker, small, role, bucket, name):
    """
    Proves: SM-40, SM-66, CC-45
    """
    script = f"echo half > {BASE}/out/half; while true; do sleep 0.1; done"
    start(
        engine, bucket, name, small, role, script, outputs=[target("out", f"s3://{bucket}/processed/{name}", "out")],
        StoppingCondition={"MaxRuntimeInSeconds": 1})
    sagemaker.get_waiter("processing_job_completed_or_stopped").wait(ProcessingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    assert sagemaker.describe_processing_job(ProcessingJobName=name)["ProcessingJobStatus"] == "Stopped"
    assert stored(engine, bucket, f"processed/{name}/") == {"half": "half\n"}


def test_policies_may_demand_isolation_and_decide_who_passes_the_role(engine, sagemaker, small, role, bucket, network, name):
    """
    Proves: IAM-16, IAM-40, IAM-51, IAM-60
    """
    iam, user = engine.client("iam"), name[:60]
    iam.create_user(UserName=user)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    client = engine.client("sagemaker", key=key["AccessKeyId"], secret=key["SecretAccessKey"])

    def may(*statements):
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        iam.put_user_policy(UserName=user, PolicyName="own", PolicyDocument=document)

    def denied(**asked):
        with pytest.raises(client.exceptions.ClientError) as refused:
            start(engine, bucket, name, small, role, "true", client=client, **asked)
        assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
        return refused.value.response["Error"]["Message"]

    isolated = {"EnableNetworkIsolation": True}
    create = {
        "Effect": "Allow", "Action": "sagemaker:CreateProcessingJob", "Resource": "*",
        "Condition": {"Bool": {"sagemaker:NetworkIsolation": "true"}},
    }
    in_vpc = create | {"Condition": {"ForAllValues:StringEquals": {"sagemaker:VpcSubnets": [network.subnet]}, "Null": {"sagemaker:VpcSubnets": "false"}}}
    passing = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": role, "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}}
    may(create)
    assert "iam:PassRole" in denied(network=isolated)
    may(in_vpc, passing)
    assert "sagemaker:CreateProcessingJob" in denied(network=isolated)
    may(create, passing)
    for asked in ({}, {"network": {"EnableNetworkIsolation": False}}):
        assert "sagemaker:CreateProcessingJob" in denied(**asked)
    with pytest.raises(sagemaker.exceptions.ClientError, match="Could not find requested job"):
        sagemaker.describe_processing_job(ProcessingJobName=name)
    start(engine, bucket, name, small, role, "true", client=client, network=isolated)
    completed(sagemaker, name)
