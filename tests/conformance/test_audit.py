"""The audit trail, as callers and the operator see it: LookupEvents, explain-denied, audit-log verify, kill -9, secrets."""
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.harness.engine import REGION, Engine

AWS = str(Path(sys.executable).parent / "aws")


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def lines(engine):
    """Every line of the trail that has ended."""
    found = []
    for path in sorted((engine.data / "audit").glob("*.jsonl")):
        text = path.read_text()
        found += [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return found


def events(engine, **wanted):
    """Records whose members are as wanted, with the engine's part beside them."""
    matches = lambda event: all(event.get(name) == value for name, value in wanted.items())
    return [(line["event"], line.get("engine")) for line in lines(engine) if matches(line["event"])]


def user(engine, statements=None):
    """An IAM user; returns its name, its key and clients of its own."""
    iam, name = engine.client("iam"), unique("auditee")
    iam.create_user(UserName=name)
    if statements:
        document = {"Version": "2012-10-17", "Statement": statements}
        iam.put_user_policy(UserName=name, PolicyName="inline", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return name, key, lambda service, **options: engine.client(
        service, key=key["AccessKeyId"], secret=key["SecretAccessKey"], **options
    )


def refused(call, **parameters):
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return caught.value.response


def request_id(response):
    return response["ResponseMetadata"]["RequestId"]


def explained(engine, wanted):
    done = engine.run("explain-denied", wanted, "--json")
    return json.loads(done.stdout)


def test_lookup_events_finds_a_call_by_every_attribute_and_never_shows_the_engines_part(engine, role, image):
    name = unique("audited")
    sagemaker, trail = engine.client("sagemaker"), engine.client("cloudtrail")
    made = sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": image}, ExecutionRoleArn=role)
    sagemaker.describe_model(ModelName=name)
    key, _ = engine.credentials()
    by = lambda attribute, value: trail.lookup_events(
        LookupAttributes=[{"AttributeKey": attribute, "AttributeValue": value}]
    )["Events"]
    found = by("ResourceName", name)
    assert {event["EventName"] for event in found} >= {"CreateModel", "DescribeModel"}
    event = next(event for event in found if event["EventName"] == "CreateModel")
    record = json.loads(event["CloudTrailEvent"])
    assert record["requestID"] == request_id(made)
    assert record["requestParameters"]["modelName"] == name
    assert record["responseElements"] == {"modelArn": made["ModelArn"]}
    assert record["userIdentity"]["type"] == "Root" and record["userIdentity"]["accessKeyId"] == key
    assert (record["eventSource"], record["awsRegion"], record["readOnly"]) == ("sagemaker.amazonaws.com", REGION, False)
    assert record["sourceIPAddress"] == "127.0.0.1" and "boto" in record["userAgent"].lower()
    assert {"ResourceType": "AWS::SageMaker::Model", "ResourceName": name} in event["Resources"]
    assert "engine" not in record and "decision" not in event["CloudTrailEvent"]
    for attribute, value in [
        ("EventId", record["eventID"]), ("EventName", "CreateModel"), ("ReadOnly", "false"), ("Username", "root"),
        ("ResourceType", "AWS::SageMaker::Model"), ("EventSource", "sagemaker.amazonaws.com"), ("AccessKeyId", key),
    ]:
        assert record["eventID"] in {event["EventId"] for event in by(attribute, value)}, attribute
    assert by("ResourceName", unique("never")) == []
    times = [event["EventTime"] for event in trail.lookup_events(MaxResults=20)["Events"]]
    assert times == sorted(times, reverse=True)
    pages = trail.get_paginator("lookup_events").paginate(
        LookupAttributes=[{"AttributeKey": "ResourceName", "AttributeValue": name}], PaginationConfig={"PageSize": 1}
    )
    assert [event["EventId"] for page in pages for event in page["Events"]] == [event["EventId"] for event in found]
    # The operator's file has what the caller's answer has not.
    (_, verdict), = events(engine, eventID=record["eventID"])
    assert verdict["decision"] == "allow"


def test_the_aws_cli_looks_events_up(engine):
    name = unique("cli")
    engine.client("iam").create_user(UserName=name)
    done = subprocess.run(
        [AWS, "cloudtrail", "lookup-events", "--lookup-attributes", f"AttributeKey=ResourceName,AttributeValue={name}", "--output", "json"],
        env=engine.environment(), capture_output=True, text=True, check=True,
    )
    found = json.loads(done.stdout)["Events"]
    assert [event["EventName"] for event in found] == ["CreateUser"]
    assert found[0]["Username"] == "root"


def test_lookup_events_needs_its_permission_and_another_account_sees_nothing(engine):
    name, _, client = user(engine)
    response = refused(client("cloudtrail").lookup_events)
    assert response["Error"]["Code"] == "AccessDeniedException"
    done = engine.run("account", "create")
    values = dict(line.split(" = ") for line in done.stdout.splitlines() if " = " in line)
    other = engine.client("cloudtrail", key=values["aws_access_key_id"], secret=values["aws_secret_access_key"])
    ask = {"LookupAttributes": [{"AttributeKey": "ResourceName", "AttributeValue": name}]}
    assert other.lookup_events(**ask)["Events"] == []
    assert engine.client("cloudtrail").lookup_events(**ask)["Events"], "control: its own account sees it"


def test_operations_of_cloudtrail_that_are_not_served_say_so(engine):
    response = refused(engine.client("cloudtrail").describe_trails)
    assert response["Error"]["Code"] == "UnsupportedOperation"


# Proves: IAM-27
def test_explain_denied_names_the_statement_that_denied_and_the_allow_that_was_missing(engine, role, image):
    deny = {"Sid": "NoModels", "Effect": "Deny", "Action": "sagemaker:CreateModel", "Resource": "*"}
    name, _, client = user(engine, [{"Effect": "Allow", "Action": "*", "Resource": "*"}, deny])
    model = {"ModelName": unique("m"), "PrimaryContainer": {"Image": image}, "ExecutionRoleArn": role}
    response = refused(client("sagemaker").create_model, **model)
    explicit, = explained(engine, request_id(response))
    assert explicit["action"] == "sagemaker:CreateModel"
    assert explicit["principal"].endswith(f":user/{name}")
    assert explicit["resource"].lower().endswith(model["ModelName"].lower())
    assert "NoModels" in explicit["deniedBy"][0] and "inline" in explicit["deniedBy"][0]
    assert explicit["context"]["aws:sourceip"] == ["127.0.0.1"]
    assert explicit["context"]["sagemaker:networkisolation"] == ["false"]
    table = engine.run("explain-denied", request_id(response)).stdout
    assert "NoModels" in table and model["ModelName"].lower() in table.lower()

    _, _, nobody = user(engine)
    response = refused(nobody("sagemaker").create_model, **model)
    implicit, = explained(engine, request_id(response))
    assert implicit["deniedBy"] == [] and "identity-based" in implicit["missingAllow"]
    assert '"Effect":"Allow"' in implicit["remedy"]

    allowed = engine.client("sagemaker").create_model(**model)
    done = engine.run("explain-denied", request_id(allowed), check=False)
    assert done.returncode == 1 and "no denial" in done.stderr, "control: an allowed request is no denial"


# Proves: IAM-27
def test_denials_of_every_service_are_in_the_trail_with_their_decision(engine, bucket):
    _, _, client = user(engine)
    calls = {
        "sagemaker": (client("sagemaker").list_models, {}),
        "iam": (client("iam").list_users, {}),
        "sts": (client("sts").assume_role, {"RoleArn": "arn:aws:iam::123456789012:role/conformance-execution", "RoleSessionName": "session"}),
        "logs": (client("logs").describe_log_groups, {}),
        "ecr": (client("ecr").describe_repositories, {}),
        "cloudtrail": (client("cloudtrail").lookup_events, {}),
        "s3": (client("s3").get_object, {"Bucket": bucket, "Key": "k"}),
        "runtime": (client("sagemaker-runtime").invoke_endpoint, {"EndpointName": "e", "Body": b"x"}),
    }
    for service, (call, parameters) in calls.items():
        response = refused(call, **parameters)
        wanted = request_id(response)
        (event, verdict), = events(engine, requestID=wanted)
        assert verdict["decision"] == "deny", service
        assert event["errorCode"] == response["Error"]["Code"], service
        report, = explained(engine, wanted)
        assert report["missingAllow"] or report["deniedBy"], service


# Proves: IAM-27
def test_a_denied_transfer_of_an_execution_role_is_explained(engine, bucket, image):
    """The create call asks whether the role may read the input: the role's denial is the platform's action."""
    allowed = [{"Effect": "Allow", "Action": ["ecr:*", "logs:*"], "Resource": "*"}]
    name = unique("role")
    arn = engine.create_role(name, allowed)
    response = refused(
        engine.client("sagemaker").create_training_job,
        TrainingJobName=unique("job"), RoleArn=arn, AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/train/"}}}],
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}, StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    assert "s3:ListBucket" in response["Error"]["Message"]
    acted = [
        (event, verdict) for event, verdict in events(engine, eventName="ListObjectsV2")
        if event["userIdentity"].get("arn", "").find(f"assumed-role/{name}/") > 0
    ]
    (event, verdict), = acted
    assert event["userIdentity"]["invokedBy"] == "sagemaker.amazonaws.com"
    assert event["sourceIPAddress"] == "sagemaker.amazonaws.com"
    report, = explained(engine, event["requestID"])
    assert report["action"] == "s3:ListBucket" and report["actedFor"] == verdict["actedFor"]
    assert ":training-job/" in report["actedFor"]
    pulls = [event for event, _ in events(engine, eventName="BatchGetImage") if name in event["userIdentity"].get("arn", "")]
    assert pulls and "errorCode" not in pulls[0], "control: the pull of the image was allowed and told"
    assumed = [event for event, _ in events(engine, eventName="AssumeRole") if any(arn == one["ARN"] for one in event.get("resources", []))]
    assert assumed and assumed[0]["userIdentity"]["type"] == "AWSService"


def test_requests_that_nobody_signed_or_signed_wrongly_are_told(engine, bucket):
    key, _ = engine.credentials()
    response = refused(engine.client("iam", secret="wrong").list_users)
    (event, _), = events(engine, requestID=request_id(response))
    assert event["userIdentity"] == {"type": "Unknown", "accessKeyId": key}
    assert event["errorCode"] == "SignatureDoesNotMatch"
    path = unique("nobody")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{engine.url}/{bucket}/{path}")
    anonymous = [event for event, _ in events(engine, eventName="GetObject") if event["requestParameters"].get("key") == path]
    assert anonymous[0]["userIdentity"]["accountId"] == "anonymous"
    assert anonymous[0]["errorCode"] == "AccessDenied" and anonymous[0]["eventCategory"] == "Data"


def test_no_secret_is_in_the_audit_files(engine, bucket, role):
    name, key, client = user(engine, [{"Effect": "Allow", "Action": "*", "Resource": "*"}])
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    assumable = engine.client("iam").create_role(RoleName=unique("assumable"), AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    marker = unique("private-policy")
    policy = {"Version": "2012-10-17", "Statement": [{"Sid": "".join(c for c in marker if c.isalnum()), "Effect": "Allow", "Action": "*", "Resource": "*"}]}
    session = client("sts").assume_role(RoleArn=assumable, RoleSessionName=name, Policy=json.dumps(policy))["Credentials"]
    temporary = boto3.session.Session().client(
        "sts", endpoint_url=engine.url, region_name=REGION, aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"], aws_session_token=session["SessionToken"],
    )
    assert temporary.get_caller_identity()["Arn"].endswith(f"/{name}")
    token = client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    body, line = unique("object-body"), unique("log-line")
    client("s3").put_object(Bucket=bucket, Key=name, Body=body.encode())
    url = client("s3").generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": name})
    assert urllib.request.urlopen(url).read().decode() == body
    logs = client("logs")
    logs.create_log_group(logGroupName=name)
    logs.create_log_stream(logGroupName=name, logStreamName="s")
    logs.put_log_events(logGroupName=name, logStreamName="s", logEvents=[{"timestamp": int(time.time() * 1000), "message": line}])
    variable = unique("api-key")
    client("sagemaker").create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={
        "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/digits:1", "Environment": {"TOKEN": variable},
    })
    secrets = {
        "secret key": key["SecretAccessKey"], "session's secret key": session["SecretAccessKey"],
        "session token": session["SessionToken"], "session policy": policy["Statement"][0]["Sid"], "registry token": token,
        "object": body, "log line": line, "environment": variable, "root's secret key": engine.credentials()[1],
        "presigned signature": url.split("Signature=")[1].split("&")[0],
    }
    text = "".join(path.read_text() for path in sorted((engine.data / "audit").glob("*.jsonl")))
    for what, secret in secrets.items():
        assert secret not in text, what
    for control in [name, key["AccessKeyId"], session["AccessKeyId"], "PutObject", "PutLogEvents"]:
        assert control in text, f"control: {control}"


def test_pushes_and_pulls_are_told(engine, image):
    pushed = {event["eventName"] for event, _ in events(engine, eventSource="ecr.amazonaws.com")}
    assert {"PutImage", "InitiateLayerUpload", "BatchCheckLayerAvailability"} <= pushed


def test_the_chain_is_whole_and_verify_says_where_it_breaks(engine, tmp_path):
    # The last line of a running server may still be on its way; verify says so and counts the whole ones.
    found = json.loads(engine.run("audit-log", "verify", "--json").stdout)
    assert found["head"]["events"] > 0
    again = engine.run("audit-log", "verify", "--head", found["head"]["hash"])
    assert "whole" in again.stdout
    unknown = engine.run("audit-log", "verify", "--head", "f" * 64, check=False)
    assert unknown.returncode == 1 and "cut off" in unknown.stderr

    copy = tmp_path / "data" / "audit"
    copy.mkdir(parents=True)
    for path in (engine.data / "audit").glob("*.jsonl"):
        text = path.read_text()
        (copy / path.name).write_text(text[: text.rfind("\n") + 1])
    verify = lambda: subprocess.run([engine.binary, "audit-log", "verify", "--data-dir", str(copy.parent)], capture_output=True, text=True)
    assert verify().returncode == 0, "control"
    first = sorted(copy.glob("*.jsonl"))[0]
    first.write_text(first.read_text().replace("CreateBucket", "DeleteBucket", 1))
    broken = verify()
    assert broken.returncode == 1
    assert f"{first} line" in broken.stderr


def test_every_acknowledged_change_is_in_the_trail_after_kill_9():
    with Engine(os.environ["ISOLARIUM_BINARY"], internet=False) as engine:
        acknowledged, stop = [], threading.Event()

        def change(worker):
            iam = engine.client("iam", config={"retries": {"max_attempts": 0}})
            for count in range(100_000):
                name = f"u-{worker}-{count}"
                try:
                    iam.create_user(UserName=name)
                except Exception:
                    if stop.is_set():
                        return
                    continue
                acknowledged.append(name)

        for _ in range(2):
            stop.clear()
            before = len(acknowledged)
            workers = [threading.Thread(target=change, args=(uuid.uuid4().hex[:8],)) for _ in range(4)]
            for worker in workers:
                worker.start()
            while len(acknowledged) < before + 40:
                assert all(worker.is_alive() for worker in workers)
                time.sleep(0.01)
            stop.set()
            for pid in engine.pids().values():
                os.kill(pid, signal.SIGKILL)
            for worker in workers:
                worker.join()
            engine.process.wait()
            engine.stop()
            engine.start()
            told = {
                event["requestParameters"]["userName"] for event, _ in events(engine, eventName="CreateUser")
                if "errorCode" not in event
            }
            assert set(acknowledged) <= told
            assert engine.run("audit-log", "verify").returncode == 0
        found = engine.client("cloudtrail").lookup_events(
            LookupAttributes=[{"AttributeKey": "ResourceName", "AttributeValue": acknowledged[0]}]
        )["Events"]
        assert [event["EventName"] for event in found] == ["CreateUser"], "and the index finds it after the restarts"
