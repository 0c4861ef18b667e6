"""Requests and waits that several suites share."""
import time

# What an execution role needs in a VPC.
P6 = [f"ec2:{action}" for action in (
    "CreateNetworkInterface", "CreateNetworkInterfacePermission", "DeleteNetworkInterface", "DeleteNetworkInterfacePermission",
    "DescribeNetworkInterfaces", "DescribeVpcs", "DescribeDhcpOptions", "DescribeSubnets", "DescribeSecurityGroups",
)]


def training_request(name, image, role, bucket, uri, isolated=True, **members):
    """A CreateTrainingJob request for the digits image."""
    request = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": image, "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "accuracy", "Regex": "accuracy=(.*?);"}],
        },
        "RoleArn": role,
        "InputDataConfig": [{
            "ChannelName": "train", "ContentType": "text/csv",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}},
        }],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/jobs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        "EnableNetworkIsolation": isolated,
        "HyperParameters": {"trees": "50"},
    }
    return request | members


def with_program(engine, bucket, request, source, interpreter="/usr/bin/python3"):
    """Has the container run `source`, which reaches it as the channel `code`: an entry point is too short for programs."""
    key = f"programs/{request['TrainingJobName']}/main"
    engine.client("s3").put_object(Bucket=bucket, Key=key, Body=source.encode())
    code = {
        "ChannelName": "code",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{key}", "S3DataDistributionType": "FullyReplicated"}},
    }
    algorithm = {"ContainerEntrypoint": [interpreter, "/opt/ml/input/data/code/main"]}
    return request | {
        "InputDataConfig": request["InputDataConfig"] + [code],
        "AlgorithmSpecification": request["AlgorithmSpecification"] | algorithm,
    }


def ended(describe, status, timeout=120):
    """What `describe` answers once its `status` is neither InProgress nor Stopping, without botocore's long steps."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        job = describe()
        if job[status] not in ("InProgress", "Stopping"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"still {job[status]} after {timeout} s: {job}")


def finished(sagemaker, name, timeout=120):
    """Waits for a training job's end."""
    return ended(lambda: sagemaker.describe_training_job(TrainingJobName=name), "TrainingJobStatus", timeout)


def settled(sagemaker, name, timeout=120):
    """Waits until an endpoint is neither Creating nor Updating nor RollingBack."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        endpoint = sagemaker.describe_endpoint(EndpointName=name)
        if endpoint["EndpointStatus"] not in ("Creating", "Updating", "RollingBack", "SystemUpdating"):
            return endpoint
        time.sleep(0.1)
    raise AssertionError(f"endpoint {name} is still {endpoint['EndpointStatus']} after {timeout} s")


def gone(sagemaker, name, timeout=60):
    """Waits until DescribeEndpoint no longer knows the endpoint; returns the error's text."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            sagemaker.describe_endpoint(EndpointName=name)
        except sagemaker.exceptions.ClientError as error:
            return error.response["Error"]["Message"]
        time.sleep(0.1)
    raise AssertionError(f"endpoint {name} still exists after {timeout} s")


def eventually(probe, timeout=20, pause=0.1):
    """Polls until `probe()` is truthy and returns it."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        seen = probe()
        if seen:
            return seen
        time.sleep(pause)
    raise AssertionError("the expected state did not come")
