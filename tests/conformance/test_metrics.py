"""CloudWatch metrics: those of callers in every protocol, and those of training jobs and endpoints."""
import contextlib
import datetime
import http.client
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.harness.jobs import eventually, gone, settled
from tests.harness.models import Speaker, model_of

AWS = str(Path(sys.executable).parent / "aws")


@pytest.fixture(scope="module")
def cloudwatch(engine):
    return engine.client("cloudwatch")


def span():
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"StartTime": now - datetime.timedelta(hours=1), "EndTime": now + datetime.timedelta(hours=1)}


def test_values_come_back_as_statistics(engine, cloudwatch, name):
    dimensions = [{"Name": "Stage", "Value": "test"}]
    cloudwatch.put_metric_data(Namespace=name, MetricData=[
        {"MetricName": "m", "Dimensions": dimensions, "Value": 4.0, "Unit": "Seconds"},
        {"MetricName": "m", "Dimensions": dimensions, "Values": [1.0, 2.0], "Counts": [2.0, 1.0], "Unit": "Seconds"},
        {"MetricName": "m", "Dimensions": dimensions, "Unit": "Seconds",
         "StatisticValues": {"SampleCount": 2, "Sum": 12.0, "Minimum": 5.0, "Maximum": 7.0}},
    ])
    asked = {"Namespace": name, "MetricName": "m", "Dimensions": dimensions, "Period": 3600, **span()}
    points = cloudwatch.get_metric_statistics(Statistics=["SampleCount", "Sum", "Minimum", "Maximum"], **asked)["Datapoints"]
    assert [(p["SampleCount"], p["Sum"], p["Minimum"], p["Maximum"], p["Unit"]) for p in points] == [(6.0, 20.0, 1.0, 7.0, "Seconds")]
    queries = [
        {"Id": "double", "Expression": "m1 * 2"},
        {"Id": "m1", "MetricStat": {"Metric": {"Namespace": name, "MetricName": "m", "Dimensions": dimensions}, "Period": 3600, "Stat": "Sum"}},
    ]
    results = {one["Id"]: one["Values"] for one in cloudwatch.get_metric_data(MetricDataQueries=queries, **span())["MetricDataResults"]}
    assert results == {"double": [40.0], "m1": [20.0]}
    assert cloudwatch.list_metrics(Namespace=name)["Metrics"] == [{"Namespace": name, "MetricName": "m", "Dimensions": dimensions}]
    said = subprocess.run(
        [AWS, "cloudwatch", "list-metrics", "--namespace", name], env=engine.environment(), check=True, capture_output=True, text=True)
    assert json.loads(said.stdout)["Metrics"][0]["MetricName"] == "m"
    with pytest.raises(ClientError) as raised:
        cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=[{"MetricName": "m", "Value": 1.0}])
    assert raised.value.response["Error"]["Code"] == "InvalidParameterValue"


@pytest.mark.parametrize("protocol", ["smithy-rpc-v2-cbor", "json", "query"])
def test_every_protocol_of_the_service_is_spoken(engine, name, protocol):
    """Proves: SM-2"""
    key, secret = engine.credentials()
    keys = {"aws_access_key_id": key, "aws_secret_access_key": secret}
    with contextlib.closing(http.client.HTTPConnection(urlsplit(engine.url).netloc, timeout=30)) as connection:
        speaker = Speaker(engine, connection, keys, "cloudwatch", "monitoring", protocol)
        operation = model_of("cloudwatch").operation_model
        put = {"Namespace": name, "MetricData": [{"MetricName": "m", "Value": 2.5}]}
        assert speaker.say(operation("PutMetricData"), put)[0].status == 200
        asked = {"Namespace": name, "MetricName": "m", "Period": 3600, "Statistics": ["Average"], **span()}
        answer, told = speaker.say(operation("GetMetricStatistics"), asked)
        assert answer.status == 200 and [point["Average"] for point in told["Datapoints"]] == [2.5], answer


def test_metrics_of_a_training_job_are_read_by_the_sdks_request(cloudwatch, trained):
    """Proves: CC-38"""
    definitions = trained["AlgorithmSpecification"]["MetricDefinitions"]
    final = {one["MetricName"]: one["Value"] for one in trained["FinalMetricDataList"]}
    assert final
    for metric in final:
        points = cloudwatch.get_metric_statistics(
            Namespace="/aws/sagemaker/TrainingJobs", MetricName=metric, Period=60, Statistics=["Average", "Maximum", "SampleCount"],
            Dimensions=[{"Name": "TrainingJobName", "Value": trained["TrainingJobName"]}],
            StartTime=trained["TrainingStartTime"] - datetime.timedelta(minutes=2), EndTime=trained["TrainingEndTime"] + datetime.timedelta(minutes=2),
        )["Datapoints"]
        assert points and any(point["Maximum"] >= final[metric] for point in points), (metric, definitions)


@pytest.fixture(scope="module")
def invoked(engine, sagemaker, small, role):
    """An endpoint that was invoked three times."""
    name = "metrics-of-invocations"
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=True, PrimaryContainer={"Image": small})
    variant = {"VariantName": "one", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert settled(sagemaker, name)["EndpointStatus"] == "InService"
    runtime = engine.client("sagemaker-runtime")
    for _ in range(3):
        runtime.invoke_endpoint(EndpointName=name, Body=b"x")
    yield name
    sagemaker.delete_endpoint(EndpointName=name)
    gone(sagemaker, name)


def test_invocations_are_counted_by_endpoint_and_variant(cloudwatch, invoked):
    dimensions = [{"Name": "EndpointName", "Value": invoked}, {"Name": "VariantName", "Value": "one"}]

    def total(metric, statistic):
        points = cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker", MetricName=metric, Dimensions=dimensions, Period=3600, Statistics=[statistic], **span())["Datapoints"]
        return sum(point[statistic] for point in points)

    eventually(lambda: total("Invocations", "Sum") == 3)
    assert total("Invocation5XXErrors", "SampleCount") == 3 and total("Invocation5XXErrors", "Sum") == 0
    assert total("ModelLatency", "SampleCount") == 3 and total("ModelLatency", "Sum") > 0 and total("OverheadLatency", "SampleCount") == 3
    names = {one["MetricName"] for one in cloudwatch.list_metrics(Namespace="AWS/SageMaker", Dimensions=dimensions)["Metrics"]}
    assert names == {"Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors", "ModelLatency", "OverheadLatency"}


def test_the_operators_page_is_text_on_loopback_alone(tmp_path, engine, metrics_page, invoked):
    text = urllib.request.urlopen(metrics_page, timeout=10).read().decode()
    assert 'isolarium_info{version="' in text and "isolarium_store_bytes " in text
    assert 'isolarium_records{kind="sagemaker.endpoint",status="InService"} ' in text
    labels = f'region="us-east-1",endpoint="{invoked}",variant="one"'
    assert f"{labels}}} 3\n" in text and f'{labels},le="+Inf"}} 3\n' in text
    strange = urllib.request.Request(metrics_page, headers={"Host": "attacker.example"})
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(strange, timeout=10)
    assert raised.value.code == 403
    # The public port knows no such page, and no other address may be configured.
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{engine.url}/metrics", timeout=10)
    config = tmp_path / "refused.toml"
    config.write_text('metrics.listen = "0.0.0.0:9464"\n')
    refused = subprocess.run(
        [engine.binary, "serve", "--data-dir", str(tmp_path / "data"), "--config", str(config)], capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0 and "must be a loopback address" in refused.stderr + refused.stdout
