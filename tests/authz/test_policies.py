"""The policies of the seed documents and the conditions of the guides, on the public side, through unmodified boto3."""
import json
import re
import uuid

import pytest
from botocore.exceptions import ClientError

from tests.harness.engine import ACCOUNT, REGION, TRUST
from tests.harness.wire import refused

ALLOW_ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
ROLE = f"arn:aws:iam::{ACCOUNT}:role/passed"
P2 = ["arn:aws:s3:::packages.*.amazonaws.com/*", "arn:aws:s3:::repo.*.amazonaws.com/*"]
P3 = ["arn:aws:s3:::amazonlinux.*.amazonaws.com/*"]
P5 = {
    "Effect": "Allow", "Resource": "*", "Action": [
        "sagemaker:CreateModel", "sagemaker:DeleteModel", "sagemaker:DescribeModel", "sagemaker:ListModels",
        "sagemaker:CreateEndpointConfig", "sagemaker:UpdateEndpoint", "iam:PassRole",
    ],
}
DENIALS = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")


@pytest.fixture(scope="module")
def iam(engine):
    iam = engine.client("iam")
    iam.create_role(RoleName="passed", AssumeRolePolicyDocument=json.dumps(TRUST))
    return iam


@pytest.fixture
def caller(engine, iam):
    """Makes clients of a user with the given statements."""
    def make(*statements, version="2012-10-17"):
        name = f"caller-{uuid.uuid4().hex[:8]}"
        iam.create_user(UserName=name)
        if statements:
            document = json.dumps({"Version": version, "Statement": list(statements)})
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]

        def client(service):
            return engine.client(service, key=key["AccessKeyId"], secret=key["SecretAccessKey"], config={"retries": {"max_attempts": 1}})

        client.arn = f"arn:aws:iam::{ACCOUNT}:user/{name}"
        return client

    return make


def outcome(call, **members):
    """`denied` with the text, or `allowed` with the code of what happened then."""
    try:
        call(**members)
    except ClientError as error:
        told = error.response["Error"]
        return ("denied" if told["Code"] in DENIALS else "allowed"), told["Message"]
    return "allowed", ""


def model(name="m", **more):
    return {"ModelName": name, "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": "none"}} | more


def job(name="j", **more):
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1} | more.pop("resources", {})
    return {
        "TrainingJobName": name, "RoleArn": ROLE, "OutputDataConfig": {"S3OutputPath": "s3://none/o"}, "ResourceConfig": resources,
        "AlgorithmSpecification": {"TrainingImage": "none", "TrainingInputMode": "File"}, "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    } | more


def configuration(name="c", **variant):
    variants = [{"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"} | variant]
    return {"EndpointConfigName": name, "ProductionVariants": variants}


VPC = {"Subnets": ["subnet-0123456789abcdef0"], "SecurityGroupIds": ["sg-0123456789abcdef0"]}


def test_exactly_p5_may_do_its_seven_actions_and_nothing_else(caller):
    """Proves: AU-10, D-19, IAM-58"""
    client = caller(P5)
    sagemaker, iam, s3, logs, ecr, sts = (client(service) for service in ("sagemaker", "iam", "s3", "logs", "ecr", "sts"))
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/m"
    allowed = [
        (sagemaker.create_model, model()), (sagemaker.delete_model, {"ModelName": "m"}), (sagemaker.describe_model, {"ModelName": "m"}),
        (sagemaker.list_models, {}), (sagemaker.create_endpoint_config, configuration()),
        (sagemaker.update_endpoint, {"EndpointName": "e", "EndpointConfigName": "c"}), (sts.get_caller_identity, {}),
    ]
    denied = [
        (sagemaker.create_model, model(Tags=[{"Key": "a", "Value": "b"}])), (sagemaker.create_training_job, job()),
        (sagemaker.describe_training_job, {"TrainingJobName": "j"}), (sagemaker.stop_training_job, {"TrainingJobName": "j"}),
        (sagemaker.list_training_jobs, {}), (sagemaker.create_endpoint, {"EndpointName": "e", "EndpointConfigName": "c"}),
        (sagemaker.describe_endpoint, {"EndpointName": "e"}), (sagemaker.list_endpoints, {}), (sagemaker.delete_endpoint, {"EndpointName": "e"}),
        (sagemaker.describe_endpoint_config, {"EndpointConfigName": "c"}), (sagemaker.list_endpoint_configs, {}),
        (sagemaker.delete_endpoint_config, {"EndpointConfigName": "c"}), (sagemaker.add_tags, {"ResourceArn": arn, "Tags": [{"Key": "a", "Value": "b"}]}),
        (sagemaker.list_tags, {"ResourceArn": arn}), (sagemaker.delete_tags, {"ResourceArn": arn, "TagKeys": ["a"]}),
        (client("sagemaker-runtime").invoke_endpoint, {"EndpointName": "e", "Body": b""}),
        (iam.get_role, {"RoleName": "passed"}), (iam.list_roles, {}), (iam.create_user, {"UserName": "x"}), (iam.list_users, {}),
        (iam.put_role_policy, {"RoleName": "passed", "PolicyName": "p", "PolicyDocument": json.dumps({"Statement": ALLOW_ALL})}),
        (sts.assume_role, {"RoleArn": ROLE, "RoleSessionName": "session"}),
        (s3.list_buckets, {}), (s3.create_bucket, {"Bucket": "p5-bucket"}), (logs.describe_log_groups, {}),
        (logs.create_log_group, {"logGroupName": "p5"}), (ecr.get_authorization_token, {}), (ecr.describe_repositories, {}),
        (ecr.create_repository, {"repositoryName": "p5"}),
    ]
    got = [(call.__name__, outcome(call, **members)[0]) for call, members in allowed + denied]
    want = [(call.__name__, "allowed") for call, _ in allowed] + [(call.__name__, "denied") for call, _ in denied]
    assert got == want
    assert len(want) >= 30


def test_without_pass_role_p5_makes_no_model(caller, engine):
    """Proves: AU-11, IAM-51"""
    client = caller(P5 | {"Action": [action for action in P5["Action"] if action != "iam:PassRole"]})
    verdict, text = outcome(client("sagemaker").create_model, **model())
    assert verdict == "denied" and text == (
        f"User: {client.arn} is not authorized to perform: iam:PassRole on resource: {ROLE} "
        "because no identity-based policy allows the iam:PassRole action"
    )
    assert outcome(caller(P5)("sagemaker").create_model, **model())[0] == "allowed", "control"


def test_a_role_may_be_passed_to_the_service_that_the_policy_names(caller):
    """Proves: IAM-51"""
    create = {"Effect": "Allow", "Action": ["sagemaker:CreateModel", "sagemaker:CreateTrainingJob"], "Resource": "*"}
    passing = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": ROLE}
    for service, verdict in (("sagemaker.amazonaws.com", "allowed"), ("cloudformation.amazonaws.com", "denied")):
        only = passing | {"Condition": {"StringEquals": {"iam:PassedToService": service}}}
        sagemaker = caller(create, only)("sagemaker")
        for call, members in ((sagemaker.create_model, model()), (sagemaker.create_training_job, job())):
            assert outcome(call, **members)[0] == verdict, (service, call)
    of_jobs = {"Condition": {"ArnLike": {"iam:AssociatedResourceARN": f"arn:aws:sagemaker:*:{ACCOUNT}:training-job/*"}}}
    sagemaker = caller(create, passing | of_jobs)("sagemaker")
    assert outcome(sagemaker.create_training_job, **job())[0] == "allowed"
    assert outcome(sagemaker.create_model, **model())[0] == "denied"


def test_isolation_can_be_required(caller):
    """Proves: IAM-40"""
    need = {"Bool": {"sagemaker:NetworkIsolation": "true"}}
    action = ["sagemaker:CreateModel", "sagemaker:CreateTrainingJob"]
    sagemaker = caller(
        {"Effect": "Allow", "Action": action, "Resource": "*", "Condition": need},
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*"},
    )("sagemaker")
    for call, members in ((sagemaker.create_model, model()), (sagemaker.create_training_job, job())):
        assert outcome(call, **members, EnableNetworkIsolation=True)[0] == "allowed"
        assert outcome(call, **members, EnableNetworkIsolation=False)[0] == "denied"
        assert outcome(call, **members)[0] == "denied", "missing means false"


def test_a_vpc_can_be_required_before_the_engine_has_its_own_say(caller):
    """Proves: IAM-40, IAM-59"""
    need = {
        "ForAllValues:StringEquals": {"sagemaker:VpcSubnets": VPC["Subnets"], "sagemaker:VpcSecurityGroupIds": VPC["SecurityGroupIds"]},
        "Null": {"sagemaker:VpcSubnets": "false", "sagemaker:VpcSecurityGroupIds": "false"},
    }
    action = ["sagemaker:CreateModel", "sagemaker:CreateTrainingJob"]
    passing = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*"}
    sagemaker = caller({"Effect": "Allow", "Action": action, "Resource": "*", "Condition": need}, passing)("sagemaker")
    elsewhere = VPC | {"Subnets": [*VPC["Subnets"], "subnet-0fedcba9876543210"]}
    for call, members in ((sagemaker.create_model, model()), (sagemaker.create_training_job, job())):
        assert outcome(call, **members, VpcConfig=VPC)[0] == "allowed"
        assert outcome(call, **members, VpcConfig=elsewhere)[0] == "denied"
        assert outcome(call, **members)[0] == "denied"
    # Without the Null test a request that has no VpcConfig gets through (IAM-70 j).
    open_ended = {key: value for key, value in need.items() if key != "Null"}
    sagemaker = caller({"Effect": "Allow", "Action": action, "Resource": "*", "Condition": open_ended}, passing)("sagemaker")
    assert outcome(sagemaker.create_training_job, **job())[0] == "allowed"


def test_instance_types_and_times_can_be_limited(caller):
    """Proves: IAM-40"""
    limits = {
        "ForAllValues:StringLike": {"sagemaker:InstanceTypes": ["ml.t3.*", "ml.m5.large"]},
        "NumericLessThanEqualsIfExists": {"sagemaker:MaxRuntimeInSeconds": "3600"},
    }
    action = ["sagemaker:CreateTrainingJob", "sagemaker:CreateEndpointConfig"]
    sagemaker = caller(
        {"Effect": "Allow", "Action": action, "Resource": "*", "Condition": limits},
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*"},
    )("sagemaker")
    assert outcome(sagemaker.create_training_job, **job())[0] == "allowed"
    assert outcome(sagemaker.create_training_job, **job(resources={"InstanceType": "ml.p3.2xlarge"}))[0] == "denied"
    assert outcome(sagemaker.create_training_job, **job(StoppingCondition={"MaxRuntimeInSeconds": 3601}))[0] == "denied"
    assert outcome(sagemaker.create_endpoint_config, **configuration())[0] == "allowed"
    assert outcome(sagemaker.create_endpoint_config, **configuration(InstanceType="ml.c5.large"))[0] == "denied"


def test_tags_of_requests_and_resources_decide(caller, engine):
    """Proves: IAM-16, IAM-58"""
    root = {service: engine.client(service) for service in ("logs", "ecr", "iam")}
    logs_arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group"
    for team in ("ml", "web"):
        tags = [{"Key": "team", "Value": team}]
        root["logs"].create_log_group(logGroupName=f"tags-{team}", tags={"team": team})
        root["ecr"].create_repository(repositoryName=f"tags-{team}", tags=tags)
        root["iam"].create_user(UserName=f"tags-{team}", Tags=tags)
    of_ml = {"Effect": "Allow", "Action": ["logs:*", "ecr:*", "iam:*"], "Resource": "*", "Condition": {"StringEquals": {"aws:ResourceTag/team": "ml"}}}
    client = caller(of_ml)
    logs, ecr, iam = client("logs"), client("ecr"), client("iam")
    for team, verdict in (("ml", "allowed"), ("web", "denied")):
        for call, members in [
            (logs.describe_log_streams, {"logGroupName": f"tags-{team}"}), (logs.list_tags_for_resource, {"resourceArn": f"{logs_arn}:tags-{team}"}),
            (logs.create_log_stream, {"logGroupName": f"tags-{team}", "logStreamName": "s"}),
            (ecr.list_images, {"repositoryName": f"tags-{team}"}), (iam.get_user, {"UserName": f"tags-{team}"}),
        ]:
            assert outcome(call, **members)[0] == verdict, (team, call)
    own_spelling = {"StringEquals": {"ecr:ResourceTag/team": "ml", "iam:ResourceTag/team": "ml"}}
    for key, (service, call, member) in zip(own_spelling["StringEquals"], (("ecr", "list_images", "repositoryName"), ("iam", "get_user", "UserName"))):
        client = caller({"Effect": "Allow", "Action": f"{service}:*", "Resource": "*", "Condition": {"StringEquals": {key: "ml"}}})(service)
        assert outcome(getattr(client, call), **{member: "tags-ml"})[0] == "allowed"
        assert outcome(getattr(client, call), **{member: "tags-web"})[0] == "denied"
    # What a request sets: the tag must be there, and no other.
    must = {
        "StringEquals": {"aws:RequestTag/team": "ml"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team", "stage"]},
    }
    client = caller({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": must})
    made = client("sagemaker").create_endpoint_config
    for tags, verdict in (({"team": "ml"}, "allowed"), ({"team": "ml", "cost": "1"}, "denied"), ({"team": "web"}, "denied"), ({}, "denied")):
        given = [{"Key": key, "Value": value} for key, value in tags.items()]
        # The models of a configuration are asked about without request tags: allowed apart.
        members = configuration() | ({"Tags": given} if given else {})
        del members["ProductionVariants"][0]["ModelName"]
        assert outcome(made, **members)[0] == verdict, tags
    name = f"tagged-{uuid.uuid4().hex[:6]}"
    assert outcome(client("logs").create_log_group, logGroupName=name)[0] == "denied"
    assert outcome(client("logs").create_log_group, logGroupName=name, tags={"team": "ml"})[0] == "allowed"


def test_a_vpc_condition_keeps_the_public_side_out(caller, engine):
    """Proves: IAM-38, PL-28"""
    for condition in (
        {"StringEquals": {"aws:SourceVpc": "vpc-0123456789abcdef0"}}, {"StringEquals": {"aws:SourceVpce": ["vpce-1", "vpce-2"]}},
        {"ForAnyValue:StringEquals": {"aws:SourceVpce": ["vpce-1", "vpce-2"]}},
    ):
        client = caller({"Effect": "Allow", "Action": "sagemaker:*", "Resource": "*", "Condition": condition})
        assert outcome(client("sagemaker").list_models)[0] == "denied"
        assert outcome(client("sagemaker-runtime").invoke_endpoint, EndpointName="e", Body=b"")[0] == "denied"
    outside = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"StringNotEquals": {"aws:SourceVpc": "vpc-0123456789abcdef0"}}}
    verdict, text = outcome(caller(ALLOW_ALL, outside)("sagemaker").list_models)
    assert verdict == "denied" and text.endswith("with an explicit deny in an identity-based policy")
    public = {"Effect": "Allow", "Action": "sagemaker:*", "Resource": "*", "Condition": {"Null": {"aws:SourceVpce": "true"}, "IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}}
    assert outcome(caller(public)("sagemaker").list_models)[0] == "allowed", "control: the public side, from this address"


def test_a_bucket_that_wants_its_vpc_refuses_administrators_on_the_public_side(engine, caller):
    """Proves: IAM-39"""
    s3 = engine.client("s3")
    s3.create_bucket(Bucket="only-by-vpc")
    s3.put_object(Bucket="only-by-vpc", Key="k", Body=b"x")
    administrator = caller(ALLOW_ALL)("s3")
    assert outcome(administrator.get_object, Bucket="only-by-vpc", Key="k")[0] == "allowed", "control"
    everything = ["arn:aws:s3:::only-by-vpc/*"]
    for condition in (
        {"StringNotEquals": {"aws:SourceVpc": "vpc-0123456789abcdef0"}}, {"StringNotEquals": {"aws:SourceVpce": "vpce-0123456789abcdef0"}},
        {"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}},
    ):
        statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": everything, "Condition": condition}
        s3.put_bucket_policy(Bucket="only-by-vpc", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
        verdict, text = outcome(administrator.get_object, Bucket="only-by-vpc", Key="k")
        assert verdict == "denied" and text.endswith("with an explicit deny in a resource-based policy"), condition
        assert outcome(s3.get_object, Bucket="only-by-vpc", Key="k")[0] == "denied", "root as well"
    s3.delete_bucket_policy(Bucket="only-by-vpc")
    assert outcome(administrator.get_object, Bucket="only-by-vpc", Key="k")[0] == "allowed"


def test_package_buckets_are_denied_for_any_region_and_all_others_stay_open(engine, caller):
    """P2 and P3 beside an allow, as statements of a caller.

    Proves: IAM-37, VPC-23, VPC-24
    """
    s3 = engine.client("s3")
    shut = ["packages.us-east-1.amazonaws.com", "repo.eu-west-1.amazonaws.com", "amazonlinux.us-west-2.amazonaws.com"]
    for bucket in [*shut, "mydata", "packages.amazonaws.com"]:
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key="a/b", Body=b"x")
    deny = [{"Effect": "Deny", "Action": "s3:GetObject", "Resource": resources} for resources in (P2, P3)]
    client = caller(ALLOW_ALL, *deny)("s3")
    for bucket in shut:
        verdict, text = outcome(client.get_object, Bucket=bucket, Key="a/b")
        assert verdict == "denied" and text.endswith("with an explicit deny in an identity-based policy"), bucket
        assert outcome(client.put_object, Bucket=bucket, Key="new", Body=b"x")[0] == "allowed", "only reads are denied"
    for bucket in ("mydata", "packages.amazonaws.com"):
        assert outcome(client.get_object, Bucket=bucket, Key="a/b")[0] == "allowed", bucket
    alone = caller(*deny)("s3")
    for bucket in [*shut, "mydata"]:
        assert outcome(alone.get_object, Bucket=bucket, Key="a/b")[0] == "denied", bucket


def test_p1_of_the_old_version_covers_exactly_its_seven_actions(engine, caller):
    """P1 as statements of a caller: what it covers is the same wherever it is attached.

    Proves: IAM-36, VPC-16, VPC-17
    """
    actions = ["GetObject", "PutObject", "ListBucket", "GetBucketLocation", "DeleteObject", "ListMultipartUploadParts", "AbortMultipartUpload"]
    root = engine.client("s3")
    for bucket in ("p1-mine", "p1-other"):
        root.create_bucket(Bucket=bucket)
        root.put_object(Bucket=bucket, Key="k", Body=b"x")
    statement = {"Sid": "Access", "Effect": "Allow", "Action": [f"s3:{action}" for action in actions]}
    s3 = caller(statement | {"Resource": ["arn:aws:s3:::p1-mine", "arn:aws:s3:::p1-mine/*"]}, version="2008-10-17")("s3")
    started = s3.create_multipart_upload(Bucket="p1-mine", Key="parts")["UploadId"]
    part = {"Bucket": "p1-mine", "Key": "parts", "UploadId": started}
    for call, members in [
        (s3.get_object, {"Key": "k"}), (s3.head_object, {"Key": "k"}), (s3.put_object, {"Key": "n", "Body": b"y"}), (s3.list_objects_v2, {}),
        (s3.head_bucket, {}), (s3.get_bucket_location, {}), (s3.delete_object, {"Key": "n"}), (s3.upload_part, part | {"PartNumber": 1, "Body": b"z"}),
        (s3.list_parts, part), (s3.copy_object, {"Key": "copy", "CopySource": "p1-mine/k"}), (s3.abort_multipart_upload, part),
    ]:
        assert outcome(call, **({"Bucket": "p1-mine"} | members)) == ("allowed", ""), call
    blocked = {"BlockPublicAcls": True}
    for call, members in [
        (s3.delete_bucket, {}), (s3.get_bucket_policy, {}), (s3.put_bucket_policy, {"Policy": "{}"}),
        (s3.get_object_tagging, {"Key": "k"}), (s3.put_object_acl, {"Key": "k", "ACL": "bucket-owner-full-control"}),
        (s3.get_bucket_versioning, {}), (s3.list_object_versions, {}), (s3.list_multipart_uploads, {}),
        (s3.put_public_access_block, {"PublicAccessBlockConfiguration": blocked}),
        (s3.get_object, {"Key": "k", "VersionId": "null"}),
    ]:
        assert outcome(call, **({"Bucket": "p1-mine"} | members))[0] == "denied", call
    assert outcome(s3.list_buckets)[0] == "denied" and outcome(s3.create_bucket, Bucket="p1-new")[0] == "denied"
    for call, members in ((s3.get_object, {"Key": "k"}), (s3.list_objects_v2, {}), (s3.put_object, {"Key": "n", "Body": b"y"})):
        assert outcome(call, Bucket="p1-other", **members)[0] == "denied", call


def test_p4_lets_invoke_one_endpoint_whatever_the_case_of_its_name(caller):
    """P4 as statements of a caller.

    Proves: IAM-9, IAM-35, PL-24, PL-25, PL-26, PL-27
    """
    resource = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/myEndpoint"
    client = caller({"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": resource})
    runtime, sagemaker = client("sagemaker-runtime"), client("sagemaker")
    for name in ("myEndpoint", "myendpoint"):
        assert outcome(runtime.invoke_endpoint, EndpointName=name, Body=b"")[0] == "allowed"
    for call, members in [
        (runtime.invoke_endpoint, {"EndpointName": "other", "Body": b""}),
        (runtime.invoke_endpoint_with_response_stream, {"EndpointName": "myEndpoint", "Body": b""}),
        (sagemaker.describe_endpoint, {"EndpointName": "myEndpoint"}), (sagemaker.create_training_job, job()),
        (sagemaker.create_endpoint, {"EndpointName": "myEndpoint", "EndpointConfigName": "c"}),
    ]:
        assert outcome(call, **members)[0] == "denied", call
    # P4 binds whom it is attached to and nobody else: the same calls by whoever is allowed them.
    client = caller(ALLOW_ALL)
    runtime, sagemaker = client("sagemaker-runtime"), client("sagemaker")
    for call, members in [
        (runtime.invoke_endpoint, {"EndpointName": "other", "Body": b""}),
        (runtime.invoke_endpoint_with_response_stream, {"EndpointName": "myEndpoint", "Body": b""}),
        (sagemaker.describe_endpoint, {"EndpointName": "myEndpoint"}), (sagemaker.create_training_job, job()),
        (sagemaker.create_endpoint, {"EndpointName": "myEndpoint", "EndpointConfigName": "c"}),
    ]:
        assert outcome(call, **members)[0] == "allowed", call


def test_what_an_invocation_aims_at_is_visible_to_policies(caller):
    """Proves: IAM-16"""
    allow = {"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": "*"}
    for key, member in (("sagemaker:TargetModel", "TargetModel"), ("sagemaker:TargetContainerHostname", "TargetContainerHostname")):
        runtime = caller(allow | {"Condition": {"StringLike": {key: "team-*"}}})("sagemaker-runtime")
        assert outcome(runtime.invoke_endpoint, EndpointName="e", Body=b"", **{member: "team-a"})[0] == "allowed"
        assert outcome(runtime.invoke_endpoint, EndpointName="e", Body=b"", **{member: "other"})[0] == "denied"
        assert outcome(runtime.invoke_endpoint, EndpointName="e", Body=b"")[0] == "denied"


def test_a_denial_comes_before_not_found_and_names_session_action_and_reason(engine, iam, caller):
    """Proves: IAM-59, IAM-60, IAM-61, IAM-62, IAM-63"""
    client = caller()
    error = refused("AccessDeniedException", client("sagemaker").describe_model, ModelName="Nobody-Made-It")
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/nobody-made-it"
    because = "because no identity-based policy allows the sagemaker:DescribeModel action"
    told = error.response["Error"]["Message"]
    assert told == f"User: {client.arn} is not authorized to perform: sagemaker:DescribeModel on resource: {arn} {because}"
    error = refused("AccessDenied", client("iam").get_role, RoleName="no-such-role")
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403 and "iam:GetRole" in str(error)
    error = refused("AccessDenied", client("s3").get_object, Bucket="no-such-bucket-here", Key="k")
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    refused("ValidationException", engine.client("sagemaker").describe_model, ModelName="Nobody-Made-It")  # control: root learns it
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}
    role = iam.create_role(RoleName="narrow", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName="narrow", PolicyName="p", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": ALLOW_ALL}))
    assume = caller(ALLOW_ALL)("sts").assume_role
    narrow = json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sagemaker:List*", "Resource": "*"}})
    keys = assume(RoleArn=role, RoleSessionName="who", Policy=narrow)["Credentials"]
    session = engine.client("sagemaker", key=keys["AccessKeyId"], secret=keys["SecretAccessKey"], aws_session_token=keys["SessionToken"])
    assert outcome(session.list_models)[0] == "allowed"
    verdict, told = outcome(session.describe_model, ModelName="m")
    assert verdict == "denied" and told.startswith(f"User: arn:aws:sts::{ACCOUNT}:assumed-role/narrow/who is not authorized to perform: ")
    assert re.search("because no session policy allows the sagemaker:DescribeModel action$", told)
