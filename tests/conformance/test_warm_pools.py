"""Attempts that the host loses, and warm pools, through unmodified boto3."""
import os
import signal

import pytest
from botocore.exceptions import ClientError

from tests.harness.jobs import eventually, finished, training_request
from tests.harness.traces import Traces

# Says what it found of an earlier job, leaves something everywhere, and ends.
LEAVE = (
    "for p in /opt/ml/model /opt/ml/output /opt/ml/checkpoints /opt/ml/sagemaker /tmp /var/tmp /dev/shm; "
    'do mkdir -p $p; [ -e $p/left ] && echo "found $p/left"; echo secret > $p/left; done; echo searched'
)
# Lives until it is the second attempt, which the checkpoint tells.
LIVE = (
    "echo began; if [ -e /opt/ml/checkpoints/lived ]; then echo again > /opt/ml/model/attempt; exit 0; fi; "
    "echo yes > /opt/ml/checkpoints/lived; sleep 600 & wait"
)


def request(name, image, role, bucket, uri, program, keep_alive=None, **members):
    made = training_request(name, image, role, bucket, uri, **members)
    made["AlgorithmSpecification"]["ContainerEntrypoint"] = ["/bin/sh", "-c", program]
    if keep_alive is not None:
        made["ResourceConfig"]["KeepAlivePeriodInSeconds"] = keep_alive
    return made


@pytest.fixture
def data(engine, bucket, name):
    engine.client("s3").put_object(Bucket=bucket, Key=f"{name}/in/x", Body=b"x")
    return f"s3://{bucket}/{name}/in/"


def pool(sagemaker, name):
    return sagemaker.describe_training_job(TrainingJobName=name).get("WarmPoolStatus")


def lines(engine, name):
    events = engine.client("logs").filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/")["events"]
    return [event["message"] for event in events]


def test_a_warm_pool_is_reused_by_a_matching_job_that_finds_nothing_of_the_first(engine, sagemaker, small, role, bucket, name, data):
    """Proves: CC-7"""
    first, second, stranger = (f"{name[:50]}-{suffix}" for suffix in ("a", "b", "c"))
    other = engine.create_role(f"{name[-20:]}-other", [
        {"Effect": "Allow", "Action": ["s3:*", "ecr:*", "logs:*"], "Resource": "*"}])
    sagemaker.create_training_job(**request(first, small, role, bucket, data, LEAVE, keep_alive=600))
    assert finished(sagemaker, first)["TrainingJobStatus"] == "Completed"
    kept = pool(sagemaker, first)
    assert kept["Status"] == "Available" and "ReusedByJob" not in kept and kept["ResourceRetainedBillableTimeInSeconds"] >= 0
    listed = sagemaker.list_training_jobs(WarmPoolStatusEquals="Available", NameContains=name[:50])["TrainingJobSummaries"]
    assert [(job["TrainingJobName"], job["WarmPoolStatus"]["Status"]) for job in listed] == [(first, "Available")]
    with pytest.raises(ClientError, match="Available warm pool"):
        sagemaker.delete_training_job(TrainingJobName=first)
    # Another role, and another network: neither gets what the first one left.
    for member in ({"role": other}, {"role": role, "isolated": False}):
        own = f"{stranger}-{len(member)}"
        sagemaker.create_training_job(**request(own, small, bucket=bucket, uri=data, program=LEAVE, keep_alive=0, **member))
        assert finished(sagemaker, own)["TrainingJobStatus"] == "Completed"
        assert "WarmPoolStatus" not in sagemaker.describe_training_job(TrainingJobName=own)
        assert pool(sagemaker, first)["Status"] == "Available"
        assert "searched" in lines(engine, own) and not [line for line in lines(engine, own) if line.startswith("found")]
    sagemaker.create_training_job(**request(second, small, role, bucket, data, LEAVE, keep_alive=600))
    assert finished(sagemaker, second)["TrainingJobStatus"] == "Completed"
    reused = pool(sagemaker, first)
    assert (reused["Status"], reused["ReusedByJob"]) == ("Reused", second)
    assert "searched" in lines(engine, second) and not [line for line in lines(engine, second) if line.startswith("found")]
    # 0 ends the pool at once; what has ended is not made longer.
    sagemaker.update_training_job(TrainingJobName=second, ResourceConfig={"KeepAlivePeriodInSeconds": 0})
    assert pool(sagemaker, second)["Status"] == "Terminated"
    for ended, status in ((first, "Reused"), (second, "Terminated")):
        with pytest.raises(ClientError, match=f"in status {status}"):
            sagemaker.update_training_job(TrainingJobName=ended, ResourceConfig={"KeepAlivePeriodInSeconds": 60})
    sagemaker.delete_training_job(TrainingJobName=first)


def test_a_pool_ends_with_its_time_and_only_whoever_asked_for_one_has_one(engine, sagemaker, small, role, bucket, name, data):
    """Proves: CC-7"""
    sagemaker.create_training_job(**request(name, small, role, bucket, data, "exit 3", keep_alive=1))
    done = finished(sagemaker, name)
    assert done["FailureReason"].startswith("AlgorithmError")
    ended = eventually(lambda: (seen := pool(sagemaker, name))["Status"] == "Terminated" and seen, 30)
    assert ended["ResourceRetainedBillableTimeInSeconds"] >= 1, "it was kept: the program was at fault, not the instance"
    plain = f"{name[:50]}-plain"
    sagemaker.create_training_job(**request(plain, small, role, bucket, data, "true"))
    assert "WarmPoolStatus" not in finished(sagemaker, plain)
    with pytest.raises(ClientError, match="without a warm pool"):
        sagemaker.update_training_job(TrainingJobName=plain, ResourceConfig={"KeepAlivePeriodInSeconds": 60})


def test_a_job_begins_again_when_its_shim_dies_and_finds_its_checkpoints(engine, sagemaker, small, role, bucket, name, data):
    """Proves: SM-34"""
    traces = Traces(engine)
    before = set(traces.helpers())
    made = request(name, small, role, bucket, data, LIVE, RetryStrategy={"MaximumRetryAttempts": 3})
    made["CheckpointConfig"] = {"S3Uri": f"s3://{bucket}/{name}/checkpoints"}
    sagemaker.create_training_job(**made)
    s3 = engine.client("s3")
    saved = lambda: s3.list_objects_v2(Bucket=bucket, Prefix=f"{name}/checkpoints/").get("Contents")
    eventually(saved, 60)
    for pid in set(traces.helpers()) - before:
        os.kill(pid, signal.SIGKILL)
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    assert done["RetryStrategy"] == {"MaximumRetryAttempts": 3}
    steps = [step["Status"] for step in done["SecondaryStatusTransitions"]]
    assert steps.count("Restarting") == 1 and steps[-1] == "Completed", steps
    assert lines(engine, name).count("began") == 2


def test_a_program_that_fails_is_never_tried_again(engine, sagemaker, small, role, bucket, name, data):
    """Proves: SM-34"""
    sagemaker.create_training_job(**request(name, small, role, bucket, data, "exit 7", RetryStrategy={"MaximumRetryAttempts": 30}))
    done = finished(sagemaker, name)
    assert done["FailureReason"].startswith("AlgorithmError: ") and done["FailureReason"].endswith("exit code: 7")
    assert "Restarting" not in [step["Status"] for step in done["SecondaryStatusTransitions"]]
