"""Hyperparameter tuning jobs through unmodified boto3 and aws CLI: real containers, whose metric is read from their logs."""
import json
import re
import shutil
import subprocess

import pytest
from botocore.exceptions import ClientError

from tests.conformance.test_vpc_jobs import Network, SM_64
from tests.harness.engine import ACCOUNT, execution_statements
from tests.harness import jobs
from tests.harness.jobs import P6, eventually, training_request

# Tells (x - 3)^2 as its loss, or `level` once for each epoch, what network the container sees, and, if asked, whom it reaches.
TRAIN = r"""#!/bin/sh
set -e
value() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' /opt/ml/input/config/hyperparameters.json; }
echo "objective $(value _tuning_objective_metric)"
echo "interfaces $(busybox ip -o -4 addr | sed 's/^[0-9]*: *//' | sed 's/ .*inet */=/' | sed 's/ .*//' | busybox tr '\n' ',')"
level=$(value level) epochs=$(value epochs) x=$(value x)
if [ -n "$x" ]; then echo "loss=$(( (x - 3) * (x - 3) ));"; fi
while [ "${epochs:-0}" -gt 0 ]; do
  echo "loss=$level;"
  epochs=$((epochs - 1))
done
server=$(value server) web=$(value web)
if [ -n "$server" ]; then
  if nc -w 3 "$server" 9000 </dev/null 2>/dev/null | grep -q served; then echo "server reached"; else echo "server cut"; fi
  if echo GET / | nc -w 3 "$web" 80 2>/dev/null | grep -q hello; then echo "web reached"; else echo "web cut"; fi
fi
if [ "$level" = 90 ] || [ -n "$(value wait)" ]; then sleep 600; fi
"""


@pytest.fixture(scope="module")
def tuned(engine, small_root, tmp_path_factory):
    """An image that tells a metric."""
    root = tmp_path_factory.mktemp("tuned") / "root"
    shutil.copytree(small_root, root, symlinks=True)
    (root / "usr/bin/train").write_text(TRAIN)
    return engine.pack_image(root, "tuned:1")


@pytest.fixture
def short(name):
    """A name that fits a tuning job's 32 characters."""
    return name[-32:].strip("-")


def definition(image, role, bucket, **members):
    return {
        "AlgorithmSpecification": {
            "TrainingImage": image, "TrainingInputMode": "File", "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*?);"}],
        },
        "RoleArn": role,
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/tuning"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 900},
        "EnableNetworkIsolation": True,
        "StaticHyperParameters": {"fixed": "7"},
    } | members


def configuration(strategy="Bayesian", jobs=5, parallel=2, **members):
    limits = {"MaxParallelTrainingJobs": parallel} | ({"MaxNumberOfTrainingJobs": jobs} if jobs else {})
    return {
        "Strategy": strategy,
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": limits,
        "ParameterRanges": {"IntegerParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "10"}]},
        "RandomSeed": 3,
    } | members


def ended(sagemaker, name, timeout=180):
    return jobs.ended(lambda: sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name), "HyperParameterTuningJobStatus", timeout)


def children(sagemaker, name, **members):
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=name, PaginationConfig={"PageSize": 2}, **members)
    return [row for page in pages for row in page["TrainingJobSummaries"]]


def log(engine, job):
    logs, group = engine.client("logs"), "/aws/sagemaker/TrainingJobs"
    (stream,) = [
        one["logStreamName"] for one in logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/algo-1-")["logStreams"]
        if not one["logStreamName"].endswith("network-isolation")]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
    return [event["message"] for event in events]


def interfaces(engine, job):
    """What the container said of its interfaces: names and addresses."""
    (said,) = [line for line in log(engine, job) if line.startswith("interfaces ")]
    return dict(one.split("=") for one in said.removeprefix("interfaces ").strip(",").split(",") if one)


def test_the_training_jobs_of_a_definition_have_its_instances(engine, sagemaker, tuned, role, bucket, short):
    """Proves: SM-35, SM-38, NI-9, CC-20, CC-89
    """
    members = {
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        "EnableInterContainerTrafficEncryption": True,
    }
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=short, HyperParameterTuningJobConfig=configuration(jobs=2, parallel=2),
        TrainingJobDefinition=definition(tuned, role, bucket, **members))
    job = ended(sagemaker, short)
    assert job["HyperParameterTuningJobStatus"] == "Completed", job.get("FailureReason")
    rows = children(sagemaker, short)
    assert len(rows) == 2
    for row in rows:
        described = sagemaker.describe_training_job(TrainingJobName=row["TrainingJobName"])
        assert described["ResourceConfig"]["InstanceCount"] == 2 and described["EnableInterContainerTrafficEncryption"] is True
        streams = engine.client("logs").describe_log_streams(
            logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{row['TrainingJobName']}/algo-")["logStreams"]
        own = [one["logStreamName"].split("/")[1] for one in streams if not one["logStreamName"].endswith("network-isolation")]
        assert sorted(one[:6] for one in own) == ["algo-1", "algo-2"]
        assert interfaces(engine, row["TrainingJobName"]) == {"lo": "127.0.0.1/8", "eth0": "10.0.0.4/32"}


def test_a_sealed_tuning_job_finds_the_best_value_and_tells_all_of_it(engine, sagemaker, tuned, role, bucket, short):
    """Proves: SM-35, SM-38, SM-9, SM-11, NI-4, CC-17, CC-39
    """
    made = sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=short, HyperParameterTuningJobConfig=configuration(jobs=6),
        TrainingJobDefinition=definition(tuned, role, bucket), Tags=[{"Key": "team", "Value": "ml"}])
    job = ended(sagemaker, short)
    assert job["HyperParameterTuningJobStatus"] == "Completed", job.get("FailureReason")
    assert job["TrainingJobStatusCounters"] == {"Completed": 6, "InProgress": 0, "RetryableError": 0, "NonRetryableError": 0, "Stopped": 0}
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 6, "Pending": 0, "Failed": 0}
    assert job["HyperParameterTuningEndTime"] >= job["CreationTime"]
    rows = children(sagemaker, short, SortBy="FinalObjectiveMetricValue", SortOrder="Ascending")
    losses = [row["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for row in rows]
    assert len(rows) == 6 and losses == sorted(losses)
    assert job["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"] == {"MetricName": "loss", "Value": losses[0]}
    assert len({row["TunedHyperParameters"]["x"] for row in rows}) == 6, "no value is tried twice"
    for row in rows:
        assert re.fullmatch(rf"{short}-\d\d\d-[0-9a-f]{{8}}", row["TrainingJobName"]) and row["ObjectiveStatus"] == "Succeeded"
        x = int(row["TunedHyperParameters"]["x"])
        assert 0 <= x <= 10 and row["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == (x - 3) ** 2
        child = sagemaker.describe_training_job(TrainingJobName=row["TrainingJobName"])
        assert child["TuningJobArn"] == made["HyperParameterTuningJobArn"] and child["EnableNetworkIsolation"] is True
        assert child["HyperParameters"] == {"fixed": "7", "x": str(x), "_tuning_objective_metric": "loss"}
        assert "objective loss" in log(engine, row["TrainingJobName"])
        assert set(interfaces(engine, row["TrainingJobName"])) == {"lo"}
    tags = sagemaker.list_tags(ResourceArn=rows[0]["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "ml"}]
    shown = subprocess.run(
        ["/usr/bin/aws", "--endpoint-url", engine.url, "sagemaker", "describe-hyper-parameter-tuning-job", "--hyper-parameter-tuning-job-name", short],
        env=engine.environment(), text=True, capture_output=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["BestTrainingJob"]["TrainingJobName"] == job["BestTrainingJob"]["TrainingJobName"]
    assert short in [row["HyperParameterTuningJobName"] for row in sagemaker.list_hyper_parameter_tuning_jobs(NameContains=short)["HyperParameterTuningJobSummaries"]]
    with pytest.raises(ClientError) as taken:
        sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=short, HyperParameterTuningJobConfig=configuration(), TrainingJobDefinition=definition(tuned, role, bucket))
    assert taken.value.response["Error"]["Code"] == "ResourceInUse"
    sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName=short)
    with pytest.raises(ClientError) as missing:
        sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=short)
    assert missing.value.response["Error"]["Code"] == "ResourceNotFound"
    assert sagemaker.describe_training_job(TrainingJobName=rows[0]["TrainingJobName"])["TrainingJobStatus"] == "Completed"


def test_each_definition_has_its_own_isolation(engine, sagemaker, tuned, role, bucket, short):
    """Proves: NI-4, SM-38
    """
    own = {
        "TuningObjective": {"Type": "Minimize", "MetricName": "loss"},
        "HyperParameterRanges": {"IntegerParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "10"}]},
    }
    several = [
        definition(tuned, role, bucket, DefinitionName="sealed", **own),
        definition(tuned, role, bucket, DefinitionName="open", EnableNetworkIsolation=False, **own),
    ]
    config = configuration("Random", jobs=2)
    del config["HyperParameterTuningJobObjective"], config["ParameterRanges"]
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=short, HyperParameterTuningJobConfig=config, TrainingJobDefinitions=several)
    assert ended(sagemaker, short)["HyperParameterTuningJobStatus"] == "Completed"
    seen = {row["TrainingJobDefinitionName"]: row["TrainingJobName"] for row in children(sagemaker, short)}
    assert set(seen) == {"sealed", "open"}
    assert set(interfaces(engine, seen["sealed"])) == {"lo"}
    assert len(interfaces(engine, seen["open"])) == 2, "control: a container with a way out"
    for which, isolated in (("sealed", True), ("open", False)):
        assert sagemaker.describe_training_job(TrainingJobName=seen[which])["EnableNetworkIsolation"] is isolated


def test_every_training_job_of_a_tuning_job_is_in_its_vpc(engine, sagemaker, tuned, bucket, short):
    """Proves: NI-5, VPC-33
    """
    allow = {"Effect": "Allow", "Action": P6, "Resource": "*"}
    role = engine.create_role("tuning-vpc-execution", [*execution_statements(bucket), allow])
    network = Network(engine.client("ec2"))
    free = network.free()
    try:
        sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=short, HyperParameterTuningJobConfig=configuration("Random", jobs=2),
            TrainingJobDefinition=definition(tuned, role, bucket, EnableNetworkIsolation=False, VpcConfig=network.config))
        job = ended(sagemaker, short)
        assert job["HyperParameterTuningJobStatus"] == "Completed", job
        rows = children(sagemaker, short)
        assert len(rows) == 2
        addresses = set()
        for row in rows:
            assert sagemaker.describe_training_job(TrainingJobName=row["TrainingJobName"])["VpcConfig"] == network.config
            seen = interfaces(engine, row["TrainingJobName"])
            (address,) = [address for which, address in seen.items() if which != "lo"]
            assert address.startswith("10.20.1."), seen
            addresses.add(address)
        assert addresses
        eventually(lambda: network.free() == free, timeout=60)
        # One that waits holds two interfaces with exactly the group of the definition.
        inside = definition(tuned, role, bucket, EnableNetworkIsolation=False, VpcConfig=network.config, StaticHyperParameters={"wait": "1"})
        waiting, cut = f"{short[-27:].strip('-')}-wait", f"{short[-27:].strip('-')}-cut"
        sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=waiting, HyperParameterTuningJobConfig=configuration("Random", jobs=1, parallel=1),
            TrainingJobDefinition=inside)
        held = eventually(lambda: len(found := [one for one in network.interfaces() if one.get("RequesterManaged")]) == 2 and found, timeout=90)
        assert [[group["GroupId"] for group in one["Groups"]] for one in held] == [[network.group]] * 2
        assert network.free() == free - 2
        sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=waiting)
        assert ended(sagemaker, waiting)["HyperParameterTuningJobStatus"] == "Stopped"
        eventually(lambda: network.free() == free, timeout=60)
        # And without a way to S3 they fail, as any training job does.
        network.ec2.delete_vpc_endpoints(VpcEndpointIds=[network.endpoint])
        network.endpoint = None
        engine.client("s3").put_object(Bucket=bucket, Key="tuning/in/a", Body=b"x")
        channel = training_request(cut, tuned, role, bucket, f"s3://{bucket}/tuning/in/")["InputDataConfig"]
        sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=cut, HyperParameterTuningJobConfig=configuration("Random", jobs=1, parallel=1),
            TrainingJobDefinition=inside | {"InputDataConfig": channel, "StaticHyperParameters": {"fixed": "7"}})
        assert ended(sagemaker, cut)["HyperParameterTuningJobStatus"] == "Failed"
        [row] = children(sagemaker, cut)
        assert row["TrainingJobStatus"] == "Failed" and row["FailureReason"].startswith(SM_64), row
        eventually(lambda: network.free() == free, timeout=60)
    finally:
        network.remove()


def test_stopping_a_tuning_job_stops_its_training_jobs(sagemaker, tuned, role, bucket, short):
    """Proves: SM-37
    """
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=short, HyperParameterTuningJobConfig=configuration("Random", jobs=9),
        TrainingJobDefinition=definition(tuned, role, bucket, StaticHyperParameters={"wait": "1"}))
    eventually(lambda: len(children(sagemaker, short, StatusEquals="InProgress")) == 2)
    sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=short)
    job = ended(sagemaker, short)
    assert job["HyperParameterTuningJobStatus"] == "Stopped"
    assert {row["TrainingJobStatus"] for row in children(sagemaker, short)} == {"Stopped"}
    assert job["TrainingJobStatusCounters"]["Stopped"] == 2 and job["TrainingJobStatusCounters"]["Completed"] == 0
    with pytest.raises(ClientError) as refused:
        sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=short)
    assert "is in status Stopped" in str(refused.value)


def test_a_training_job_that_is_worse_than_the_median_is_stopped_early(sagemaker, tuned, role, bucket, short):
    """Proves: SM-36, SM-35
    """
    levels = ["1", "2", "3", "4", "90"]
    config = configuration(
        "Grid", jobs=None, parallel=1, TrainingJobEarlyStoppingType="Auto",
        ParameterRanges={"CategoricalParameterRanges": [{"Name": "level", "Values": levels}]})
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=short, HyperParameterTuningJobConfig=config,
        TrainingJobDefinition=definition(tuned, role, bucket, StaticHyperParameters={"epochs": "3"}))
    job = ended(sagemaker, short)
    ends = {row["TunedHyperParameters"]["level"]: row["TrainingJobStatus"] for row in children(sagemaker, short)}
    assert ends == {level: "Stopped" if level == "90" else "Completed" for level in levels}
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"level": "1"}


def test_a_tuning_job_whose_training_jobs_tell_nothing_fails(sagemaker, tuned, role, bucket, short):
    """Proves: SM-37
    """
    silent = definition(tuned, role, bucket)
    silent["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": "never=(.*?);"}]
    sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=short, HyperParameterTuningJobConfig=configuration("Random", jobs=2), TrainingJobDefinition=silent)
    job = ended(sagemaker, short)
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert "No objective metrics found after running 2 training jobs." in job["FailureReason"]
    assert job["ObjectiveStatusCounters"]["Failed"] == 2 and "BestTrainingJob" not in job


def test_policies_see_all_definitions_together(engine, sagemaker, tuned, role, bucket, short):
    """Proves: IAM-17, IAM-51
    """
    iam = engine.client("iam")
    user = f"tuner-{short[-6:]}"
    iam.create_user(UserName=user)
    statements = [
        {"Effect": "Allow", "Action": "sagemaker:CreateHyperParameterTuningJob", "Resource": "*",
         "Condition": {"Bool": {"sagemaker:NetworkIsolation": "true"}, "ForAllValues:StringEquals": {"sagemaker:InstanceTypes": ["ml.m5.large"]}}},
        {"Effect": "Allow", "Action": ["sagemaker:StopHyperParameterTuningJob", "sagemaker:DescribeHyperParameterTuningJob"], "Resource": "*"},
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": role},
    ]
    iam.put_user_policy(UserName=user, PolicyName="own", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}))
    key = iam.create_access_key(UserName=user)["AccessKey"]
    client = engine.client("sagemaker", key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    other = engine.create_role(f"other-{short[-6:]}", execution_statements(bucket))
    own = {
        "TuningObjective": {"Type": "Minimize", "MetricName": "loss"},
        "HyperParameterRanges": {"IntegerParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "10"}]},
    }
    config = configuration("Random", jobs=2)
    del config["HyperParameterTuningJobObjective"], config["ParameterRanges"]

    def create(suffix, **second):
        both = [definition(tuned, role, bucket, DefinitionName="a", **own), definition(tuned, role, bucket, DefinitionName="b", **own) | second]
        client.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=f"{short[-24:].strip('-')}-{suffix}", HyperParameterTuningJobConfig=config, TrainingJobDefinitions=both)

    resources = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
    for suffix, second, action in (
        ("open", {"EnableNetworkIsolation": False}, "sagemaker:CreateHyperParameterTuningJob"),
        ("type", {"ResourceConfig": resources}, "sagemaker:CreateHyperParameterTuningJob"),
        ("role", {"RoleArn": other}, "iam:PassRole"),
    ):
        with pytest.raises(ClientError) as denied:
            create(suffix, **second)
        assert denied.value.response["Error"]["Code"] == "AccessDeniedException"
        assert action in str(denied.value) and f"arn:aws:iam::{ACCOUNT}:user/{user}" in str(denied.value)
    create("both")
    assert ended(sagemaker, f"{short[-24:].strip('-')}-both")["HyperParameterTuningJobStatus"] == "Completed", "control"
