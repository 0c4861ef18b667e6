"""Who acts for whom: the execution role's rights, the caller's rights, and that neither becomes the other."""
import json
import os

import pytest

from tests.harness.engine import ACCOUNT, REGION, TRUST, Engine, execution_statements
from tests.harness.jobs import P6, ended, eventually, finished, training_request, with_program
from tests.harness.wire import refused

IMAGE_ACTIONS = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken", "ecr:GetDownloadUrlForLayer"]
LOG_ACTIONS = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **members):
    return {"Effect": "Allow", "Action": action, "Resource": resource} | members


def request(name, image, role, bucket, uri, program="cat /opt/ml/input/data/train/* > /opt/ml/model/seen", **members):
    made = training_request(name, image, role, bucket, uri, **members)
    made["AlgorithmSpecification"]["ContainerEntrypoint"] = ["/bin/sh", "-c", program]
    return made


@pytest.fixture
def prefix(engine, bucket, name):
    """An S3 prefix with two objects."""
    for key in ("x", "y"):
        engine.client("s3").put_object(Bucket=bucket, Key=f"{name}/in/{key}", Body=key.encode())
    return f"{name}/in/"


def rewrite(engine, role, *statements):
    engine.client("iam").put_role_policy(RoleName=role.split("/")[-1], PolicyName="inline", PolicyDocument=policy(*statements))


def exact_statements(bucket, name):
    """A role that may read one object, write below one output path, and nothing else that can be narrowed."""
    return [
        allow("s3:GetObject", f"arn:aws:s3:::{bucket}/{name}/in/x"),
        allow("s3:ListBucket", f"arn:aws:s3:::{bucket}", Condition={"StringLike": {"s3:prefix": f"{name}/in/x*"}}),
        allow("s3:PutObject", f"arn:aws:s3:::{bucket}/jobs/{name}/*"),
        allow(LOG_ACTIONS, f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs:*"),
        allow(IMAGE_ACTIONS, f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/small"),
        allow("ecr:GetAuthorizationToken"),
    ]


def test_a_role_for_one_object_and_one_path_runs_a_job_and_no_other(engine, sagemaker, small, bucket, name, prefix):
    """Proves: IAM-57, NI-14"""
    role = engine.create_role(name, exact_statements(bucket, name))
    one = f"s3://{bucket}/{prefix}x"
    sagemaker.create_training_job(**request(name, small, role, bucket, one))
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    keys = [each["Key"] for each in engine.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"jobs/{name}/")["Contents"]]
    assert keys == [f"jobs/{name}/output/model.tar.gz"]

    beside = f"{name}-b"[:63]
    sagemaker.create_training_job(**request(beside, small, role, bucket, one))
    done = finished(sagemaker, beside)
    assert done["TrainingJobStatus"] == "Failed"
    assert "s3:PutObject" in done["FailureReason"] and f"jobs/{beside}/" in done["FailureReason"], done["FailureReason"]
    assert "Contents" not in engine.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"jobs/{beside}/")

    error = refused("ValidationException", sagemaker.create_training_job, **request(f"{name}-p"[:63], small, role, bucket, f"s3://{bucket}/{prefix}"))
    assert "s3:ListBucket" in str(error)
    wider = exact_statements(bucket, name)
    wider[1] = allow("s3:ListBucket", f"arn:aws:s3:::{bucket}")
    rewrite(engine, role, *wider)
    sagemaker.create_training_job(**request(f"{name}-y"[:63], small, role, bucket, f"s3://{bucket}/{prefix}y"))
    done = finished(sagemaker, f"{name}-y"[:63])
    assert done["TrainingJobStatus"] == "Failed"
    assert "s3:GetObject" in done["FailureReason"] and f"{prefix}y" in done["FailureReason"], done["FailureReason"]


def test_the_callers_rights_are_no_rights_of_the_job_and_the_jobs_none_of_the_caller(engine, sagemaker, small, bucket, name, prefix):
    """
    The caller of the first job is root and may do everything. The caller of the second one may start jobs and nothing else.
    Proves: IAM-52, NI-12, NI-14
    """
    powerless = engine.create_role(f"{name}-role"[:64], [each for each in execution_statements(bucket) if "s3:GetObject" not in each["Action"]])
    uri = f"s3://{bucket}/{prefix}"
    assert engine.client("s3").get_object(Bucket=bucket, Key=f"{prefix}x")["Body"].read() == b"x", "control: the caller may read"
    sagemaker.create_training_job(**request(name, small, powerless, bucket, uri))
    done = finished(sagemaker, name)
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/{powerless.split('/')[-1]}/SageMaker"
    assert done["TrainingJobStatus"] == "Failed"
    assert f"User: {session} is not authorized to perform: s3:GetObject" in done["FailureReason"], done["FailureReason"]

    rewrite(engine, powerless, *execution_statements(bucket))
    iam, user = engine.client("iam"), f"{name}-user"[:64]
    iam.create_user(UserName=user)
    starts = [allow(["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob"]), allow("iam:PassRole", powerless)]
    iam.put_user_policy(UserName=user, PolicyName="starts", PolicyDocument=policy(*starts))
    key = iam.create_access_key(UserName=user)["AccessKey"]
    keys = {"key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    theirs, their_s3 = engine.client("sagemaker", **keys), engine.client("s3", **keys)
    denied = lambda: refused("AccessDenied", their_s3.get_object, Bucket=bucket, Key=f"{prefix}x")  # noqa: E731
    denied()
    second = f"{name}-2"[:63]
    theirs.create_training_job(**request(second, small, powerless, bucket, uri))
    denied()
    done = finished(theirs, second)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    denied()
    refused("AccessDenied", their_s3.get_object, Bucket=bucket, Key=f"jobs/{second}/output/model.tar.gz")
    refused("AccessDeniedException", engine.client("logs", **keys).get_log_events, logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=f"{second}/algo-1")


@pytest.mark.parametrize("missing, told", [
    ("ecr", "assumed-role/{role}/SageMaker is not authorized to perform: ecr:"),
    ("s3:ListBucket", 'role/{role}" has "s3:ListBucket" permissions on bucket'),
])
def test_what_the_role_lacks_is_named_when_the_job_is_made(engine, sagemaker, small, bucket, name, prefix, missing, told):
    """Proves: IAM-54"""
    having = execution_statements(bucket)
    role = engine.create_role(name, [each for each in having if missing not in str(each["Action"])])
    wanted = request(name, small, role, bucket, f"s3://{bucket}/{prefix}")
    error = refused("ValidationException", sagemaker.create_training_job, **wanted)
    assert told.format(role=name) in str(error), error
    rewrite(engine, role, *having)
    sagemaker.create_training_job(**wanted)
    assert finished(sagemaker, name)["TrainingJobStatus"] == "Completed", "control: with the permission"


VPC = {"VpcConfig": {"Subnets": ["subnet-00000000000000000"], "SecurityGroupIds": ["sg-00000000000000000"]}}
# What is said of this VPC when nothing else is wrong.
PASSED = "The subnet ID 'subnet-00000000000000000' does not exist"


def in_a_vpc(sagemaker, role, image, bucket, name, prefix):
    """The refusals of a model and of a training, a tuning and a processing job in a VPC."""
    model = {"ModelName": name, "PrimaryContainer": {"Image": image}, "ExecutionRoleArn": role}
    job = request(name, image, role, bucket, f"s3://{bucket}/{prefix}")
    parts = ("RoleArn", "InputDataConfig", "OutputDataConfig", "ResourceConfig", "StoppingCondition")
    algorithm = {key: value for key, value in job["AlgorithmSpecification"].items() if key != "ContainerEntrypoint"}
    tuning = {
        "HyperParameterTuningJobName": name[-32:].strip("-"),
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random", "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "accuracy"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {"IntegerParameterRanges": [{"Name": "trees", "MinValue": "5", "MaxValue": "9"}]},
        },
        "TrainingJobDefinition": {part: job[part] for part in parts} | VPC | {"AlgorithmSpecification": algorithm},
    }
    processing = {
        "ProcessingJobName": name, "RoleArn": role, "AppSpecification": {"ImageUri": image}, "NetworkConfig": VPC,
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
    }
    made = (
        (sagemaker.create_model, model | VPC), (sagemaker.create_training_job, job | VPC),
        (sagemaker.create_hyper_parameter_tuning_job, tuning), (sagemaker.create_processing_job, processing),
    )
    return [str(refused("ValidationException", create, **wanted)) for create, wanted in made]


def test_each_of_the_nine_actions_that_the_role_lacks_is_named(engine, sagemaker, small, bucket, name, prefix):
    """
    The role is a given one with a path, and stays as it was.
    Proves: BT-6, BT-10, IAM-55, NET-61
    """
    iam = engine.client("iam")
    role = iam.create_role(RoleName=name, Path="/teams/ml/", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    assert f"role/teams/ml/{name}" in role
    having = execution_statements(bucket)
    for missing in P6:
        rewrite(engine, role, *having, allow([action for action in P6 if action != missing]))
        for told in in_a_vpc(sagemaker, role, small, bucket, name, prefix):
            assert f"assumed-role/{name}/SageMaker is not authorized to perform: {missing} on resource: * because" in told, told
    for narrowed in (
        allow(P6, f"arn:aws:ec2:{REGION}:{ACCOUNT}:*"),
        allow(P6, Condition={"ArnLike": {"ec2:Vpc": f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/*"}}),
    ):
        rewrite(engine, role, *having, narrowed)
        assert all("is not authorized to perform: ec2:" in told for told in in_a_vpc(sagemaker, role, small, bucket, name, prefix))
    rewrite(engine, role, *having, allow(P6))
    for told in in_a_vpc(sagemaker, role, small, bucket, name, prefix):
        assert PASSED in told, f"control: the role may, {told}"
    ec2 = engine.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.63.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.63.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName=name, Description="d")["GroupId"]
    there = {"Subnets": [subnet], "SecurityGroupIds": [group]}
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": small}, ExecutionRoleArn=role, VpcConfig=there)
    assert sagemaker.describe_model(ModelName=name)["VpcConfig"] == there, "control: a VPC that exists"
    of_model = {
        "TransformJobName": name, "ModelName": name, "TransformOutput": {"S3OutputPath": f"s3://{bucket}/{name}/out"},
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{prefix}"}}},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    for missing in P6:
        rewrite(engine, role, *having, allow([action for action in P6 if action != missing]))
        told = str(refused("ValidationException", sagemaker.create_transform_job, **of_model))
        assert f"assumed-role/{name}/SageMaker is not authorized to perform: {missing} on resource: * because" in told, told
    rewrite(engine, role, *having, allow(P6))
    sagemaker.create_transform_job(**of_model)
    sagemaker.stop_transform_job(TransformJobName=name)
    ended(lambda: sagemaker.describe_transform_job(TransformJobName=name), "TransformJobStatus")
    sagemaker.delete_model(ModelName=name)
    kept = iam.get_role_policy(RoleName=name, PolicyName="inline")["PolicyDocument"]
    assert kept == json.loads(policy(*having, allow(P6))) and iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == []
    refused("ValidationException", sagemaker.describe_model, ModelName=name)
    rewrite(engine, role, *having)
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": small}, ExecutionRoleArn=role)
    assert sagemaker.describe_model(ModelName=name)["ExecutionRoleArn"] == role, "control: without a VPC none of the nine is needed"


def test_the_policy_for_sagemaker_holds_the_nine_actions(engine, sagemaker, small, bucket, name, prefix):
    """Proves: BT-9, IAM-56"""
    iam, full = engine.client("iam"), "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    for told in in_a_vpc(sagemaker, role, small, bucket, name, prefix):
        assert "is not authorized to perform: ec2:" in told, f"control: without the policy, {told}"
    iam.attach_role_policy(RoleName=name, PolicyArn=full)
    for told in in_a_vpc(sagemaker, role, small, bucket, name, prefix):
        assert PASSED in told, told
    boundary = allow([action for action in P6 if action != "ec2:DescribeVpcs"])
    arn = iam.create_policy(PolicyName=name, PolicyDocument=policy(boundary))["Policy"]["Arn"]
    iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=arn)
    for told in in_a_vpc(sagemaker, role, small, bucket, name, prefix):
        assert "because no permissions boundary allows the ec2:DescribeVpcs action" in told, told


def test_the_guides_statement_is_a_policy_when_it_is_completed_and_none_as_it_stands(engine, name):
    """It is cut off after its actions, and names no resource.
    Proves: BT-8
    """
    iam = engine.client("iam")
    role = engine.create_role(name, [allow("s3:ListAllMyBuckets")])
    listed = ", ".join(f'"{action}"' for action in P6)
    cut = '{ "Effect": "Allow", "Action": [ ' + listed
    for bad in (cut, cut + " ] }", '{"Version": "2012-10-17", "Statement": [' + cut + " ] }]}"):
        refused("MalformedPolicyDocument", iam.put_role_policy, RoleName=name, PolicyName="p6", PolicyDocument=bad)
    assert iam.list_role_policies(RoleName=name)["PolicyNames"] == ["inline"]
    whole = '{"Version": "2012-10-17", "Statement": [' + cut + ' ], "Resource": "*" }]}'
    iam.put_role_policy(RoleName=name, PolicyName="p6", PolicyDocument=whole)
    asked = iam.simulate_principal_policy(PolicySourceArn=role, ActionNames=[*P6, "ec2:AttachNetworkInterface"])["EvaluationResults"]
    assert [one["EvalDecision"] for one in asked] == ["allowed"] * len(P6) + ["implicitDeny"]


def test_what_a_models_role_lacks_of_its_image_and_its_model_data_is_named(engine, sagemaker, small, bucket, name, prefix):
    """The rights to images and objects, beside the nine actions. Logs are asked for when a container writes; nobody asks for
    cloudwatch:PutMetricData and logs:DescribeLogStreams.

    Proves: BT-7, IAM-54
    """
    having = [{**each, "Action": [each["Action"]] if isinstance(each["Action"], str) else each["Action"]} for each in execution_statements(bucket)]
    role = engine.create_role(name, having + [allow(P6)])
    archive = {"Image": small, "ModelDataUrl": f"s3://{bucket}/{prefix}x"}
    tree = {"Image": small, "ModelDataSource": {"S3DataSource": {
        "S3Uri": f"s3://{bucket}/{prefix}", "S3DataType": "S3Prefix", "CompressionType": "None"}}}
    session = f"assumed-role/{name}/SageMaker is not authorized to perform:"
    cases = [(action, container, f"{session} {action}") for action in IMAGE_ACTIONS for container in (archive, tree)]
    cases += [
        ("s3:GetObject", archive, f"Could not access model data at s3://{bucket}/{prefix}x"),
        ("s3:ListBucket", tree, f"Could not access model data at s3://{bucket}/{prefix}"),
    ]
    for at, (missing, container, told) in enumerate(cases):
        model = {"ModelName": f"{at}-{name}"[:63].rstrip("-"), "PrimaryContainer": container, "ExecutionRoleArn": role}
        left = [{**each, "Action": [action for action in each["Action"] if action != missing]} for each in having]
        rewrite(engine, role, *[each for each in left if each["Action"]], allow(P6))
        error = refused("ValidationException", sagemaker.create_model, **model)
        assert told in str(error), (missing, error)
        rewrite(engine, role, *having, allow(P6))
        sagemaker.create_model(**model)


def test_without_rights_to_logs_a_job_runs_and_its_lines_are_lost(engine, sagemaker, small, bucket, name, prefix):
    """Proves: CC-91"""
    having, logs = execution_statements(bucket), engine.client("logs")
    role = engine.create_role(name, [each for each in having if "logs:" not in str(each["Action"])])

    def lines(job):
        try:
            found = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{job}/")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [event["message"] for event in found]

    jobs = [name, f"{name}-2"[:63]]
    for job in jobs:
        sagemaker.create_training_job(**request(job, small, role, bucket, f"s3://{bucket}/{prefix}", program=f"echo said by {job}"))
        done = finished(sagemaker, job)
        assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
        rewrite(engine, role, *having)
    assert eventually(lambda: lines(jobs[1])) == [f"said by {jobs[1]}"], "control: with the rights"
    assert lines(jobs[0]) == []


def trust(**condition):
    statement = TRUST["Statement"][0] | ({"Condition": condition} if condition else {})
    return json.dumps(TRUST | {"Statement": [statement]})


def test_a_trust_policy_can_ask_for_whom_the_platform_acts(engine, sagemaker, small, bucket, name, prefix):
    """Proves: IAM-50"""
    role, iam = engine.create_role(name, execution_statements(bucket)), engine.client("iam")
    wanted = lambda job: request(job, small, role, bucket, f"s3://{bucket}/{prefix}")  # noqa: E731
    for conditions in (
        {"StringEquals": {"aws:SourceAccount": "444455556666"}},
        {"ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:{REGION}:444455556666:*"}},
        {"ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/*"}},
    ):
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust(**conditions))
        error = refused("ValidationException", sagemaker.create_training_job, **wanted(name))
        assert f"Could not assume role {role}" in str(error), error
    good = {"StringEquals": {"aws:SourceAccount": ACCOUNT}, "ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:*"}}
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust(**good))
    sagemaker.create_training_job(**wanted(name))
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")


@pytest.mark.parametrize("vanishes", ["role", "trust"])
def test_a_job_whose_role_vanishes_fails(engine, sagemaker, small, bucket, name, prefix, vanishes):
    """Proves: IAM-52"""
    role, iam = engine.create_role(name, execution_statements(bucket)), engine.client("iam")
    program = "echo waiting; until [ -e /opt/ml/checkpoints/go ]; do sleep 0.1; done; echo built > /opt/ml/model/m"
    checkpoints = {"S3Uri": f"s3://{bucket}/{name}/checkpoints"}
    sagemaker.create_training_job(**request(name, small, role, bucket, f"s3://{bucket}/{prefix}", program, CheckpointConfig=checkpoints))
    logs = engine.client("logs")

    def waiting():
        try:
            found = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return False
        return any(event["message"] == "waiting" for event in found)

    eventually(waiting, timeout=60)
    if vanishes == "role":
        iam.delete_role_policy(RoleName=name, PolicyName="inline")
        iam.delete_role(RoleName=name)
    else:
        other = trust().replace("sagemaker.amazonaws.com", "ec2.amazonaws.com")
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=other)
    places = [path for path in (engine.data / "work").rglob("checkpoints") if path.is_dir()]
    for place in places:
        (place / "go").touch()
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Failed", done
    assert f"Could not assume role {role}" in done["FailureReason"], done["FailureReason"]
    assert "Contents" not in engine.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"jobs/{name}/")


# Asks until it was given two different keys, and prints each.
CREDENTIALS = """
import json, os, time, urllib.request
path, given = os.environ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"], []
while len(given) < 2:
    document = json.load(urllib.request.urlopen(f"http://169.254.170.2{path}", timeout=10))
    if document["AccessKeyId"] not in given:
        given.append(document["AccessKeyId"])
        print("GIVEN " + json.dumps(document), flush=True)
    time.sleep(0.2)
"""
# Says whether there is a path to credentials, and whether anything answers where they would be.
LOOK = """
import os, urllib.error, urllib.request
print("named" if any(name.startswith("AWS_CONTAINER_CREDENTIALS") for name in os.environ) else "not named")
try:
    urllib.request.urlopen("http://169.254.170.2/", timeout=2)
except urllib.error.HTTPError as error:
    print("answered", error.code)
except OSError:
    print("unreachable")
"""


def test_credentials_in_a_container_are_replaced_before_they_end(rootfs):
    """
    The role's session, never the caller's; and the one before stays good until its own end.
    Proves: IAM-52, CC-81, CC-82
    """
    settings = {"credentials.lifetime": "20s", "credentials.refresh_before": "17s"}
    with Engine(os.environ["ISOLARIUM_BINARY"], settings, internet=False) as engine:
        s3, sagemaker, logs = (engine.client(service) for service in ("s3", "sagemaker", "logs"))
        s3.create_bucket(Bucket="own")
        s3.put_object(Bucket="own", Key="in/x", Body=b"1")
        image = engine.pack_image(rootfs, "digits:1")
        role = engine.create_role("short", execution_statements("own"))
        wanted = training_request("short", image, role, "own", "s3://own/in/", isolated=False)
        sagemaker.create_training_job(**with_program(engine, "own", wanted, CREDENTIALS))

        def given():
            try:
                events = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", filterPattern="GIVEN")["events"]
            except logs.exceptions.ResourceNotFoundException:
                return []
            return [json.loads(event["message"].removeprefix("GIVEN ")) for event in events]

        first = eventually(given, timeout=60)[0]
        second = eventually(lambda: given()[1:], timeout=60)[0]
        assert first["AccessKeyId"] != second["AccessKeyId"] and first["Expiration"] < second["Expiration"]
        assert first["RoleArn"] == second["RoleArn"] == role
        found = engine.client("sts", key=second["AccessKeyId"], secret=second["SecretAccessKey"], aws_session_token=second["Token"]).get_caller_identity()
        assert found["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/short/SageMaker"
        done = finished(sagemaker, "short")
        assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
        theirs = engine.client("s3", key=first["AccessKeyId"], secret=first["SecretAccessKey"], aws_session_token=first["Token"])
        eventually(lambda: expired(theirs), timeout=30)


def expired(s3):
    try:
        s3.get_object(Bucket="own", Key="in/x")
    except s3.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "ExpiredToken", error
        return True
    return False


def test_an_isolated_container_is_given_no_credentials_and_finds_none(engine, sagemaker, image, role, bucket, name, prefix):
    """
    The same program in a container with a way out is the control.
    Proves: NI-8, CC-84
    """
    told = {}
    for isolated in (True, False):
        job = f"{name}-{'sealed' if isolated else 'open'}"[-63:].lstrip("-")
        wanted = training_request(job, image, role, bucket, f"s3://{bucket}/{prefix}", isolated=isolated)
        sagemaker.create_training_job(**with_program(engine, bucket, wanted, LOOK))
        done = finished(sagemaker, job)
        assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
        events = engine.client("logs").filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{job}/")["events"]
        # What the isolation report adds to the log of a sealed container is JSON.
        told[isolated] = [event["message"] for event in events if not event["message"].startswith("{")]
    assert told == {True: ["not named", "unreachable"], False: ["named", "answered 404"]}
