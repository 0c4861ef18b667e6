"""IAM through unmodified boto3 and the aws CLI: every served operation, and what policies give at the next request."""
import json
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import WaiterError

from tests.harness.engine import ACCOUNT, TRUST
from tests.harness.jobs import finished, training_request
from tests.harness.wire import refused

ROOT = Path(__file__).resolve().parents[2]
AWS = "arn:aws:iam::aws:policy"


def document(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action, resource="*"):
    return {"Effect": "Allow", "Action": action, "Resource": resource}


READ = document(allow("s3:Get*", "arn:aws:s3:::*/*"))
LIST_MODELS = document(allow("sagemaker:ListModels"))
NOTHING = document(allow("sagemaker:ListEndpoints"))
ALL = document(allow("*"))


@pytest.fixture(scope="module")
def iam(engine):
    return engine.client("iam")


@pytest.fixture
def short(name):
    """A name that fits everywhere: users and roles have 64 characters."""
    return name[-40:].lstrip("-")


@pytest.fixture
def user(engine, iam, short):
    """A user without any policy, and SageMaker as that user."""
    iam.create_user(UserName=short)
    key = iam.create_access_key(UserName=short)["AccessKey"]
    return short, engine.client("sagemaker", key=key["AccessKeyId"], secret=key["SecretAccessKey"])


def make_policy(iam, name, text, **members):
    return iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(text), **members)["Policy"]["Arn"]


def may(sagemaker):
    """Whether the caller may list models, asked over the wire now."""
    try:
        sagemaker.list_models(MaxResults=1)
    except sagemaker.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDeniedException", error
        return False
    return True


def names(pages, member, key):
    return [entry[key] for page in pages for entry in page[member]]


def test_a_policy_counts_from_the_next_request_on(iam, user, short):
    """Proves: IAM-25, IAM-26"""
    name, sagemaker = user
    policy = make_policy(iam, short, LIST_MODELS)
    assert not may(sagemaker)
    for _ in range(3):
        iam.attach_user_policy(UserName=name, PolicyArn=policy)
        assert may(sagemaker)
        iam.detach_user_policy(UserName=name, PolicyArn=policy)
        assert not may(sagemaker)
    iam.attach_user_policy(UserName=name, PolicyArn=policy)
    second = iam.create_policy_version(PolicyArn=policy, PolicyDocument=json.dumps(NOTHING))["PolicyVersion"]["VersionId"]
    assert may(sagemaker), "a version that is not the default says nothing"
    for _ in range(3):
        iam.set_default_policy_version(PolicyArn=policy, VersionId=second)
        assert not may(sagemaker)
        iam.set_default_policy_version(PolicyArn=policy, VersionId="v1")
        assert may(sagemaker)
    iam.create_policy_version(PolicyArn=policy, PolicyDocument=json.dumps(NOTHING), SetAsDefault=True)
    assert not may(sagemaker)


def test_a_group_gives_to_its_users_while_they_belong_to_it(iam, user, short):
    """Proves: IAM-25, IAM-26"""
    name, sagemaker = user
    policy = make_policy(iam, short, LIST_MODELS)
    iam.create_group(GroupName=short)
    iam.attach_group_policy(GroupName=short, PolicyArn=policy)
    assert not may(sagemaker)
    for _ in range(3):
        iam.add_user_to_group(GroupName=short, UserName=name)
        assert may(sagemaker)
        iam.remove_user_from_group(GroupName=short, UserName=name)
        assert not may(sagemaker)
    iam.add_user_to_group(GroupName=short, UserName=name)
    iam.detach_group_policy(GroupName=short, PolicyArn=policy)
    assert not may(sagemaker)
    iam.put_group_policy(GroupName=short, PolicyName="inline", PolicyDocument=json.dumps(LIST_MODELS))
    assert may(sagemaker)
    iam.delete_group_policy(GroupName=short, PolicyName="inline")
    assert not may(sagemaker)


def test_a_boundary_narrows_at_once_and_says_so(iam, user, short):
    """Proves: IAM-24, IAM-26, IAM-61"""
    name, sagemaker = user
    narrow = make_policy(iam, short, NOTHING)
    iam.attach_user_policy(UserName=name, PolicyArn=f"{AWS}/AmazonSageMakerReadOnly")
    assert may(sagemaker)
    for _ in range(3):
        iam.put_user_permissions_boundary(UserName=name, PermissionsBoundary=narrow)
        error = refused("AccessDeniedException", sagemaker.list_models)
        assert "because no permissions boundary allows the sagemaker:ListModels action" in str(error)
        sagemaker.list_endpoints(MaxResults=1)
        iam.delete_user_permissions_boundary(UserName=name)
        assert may(sagemaker)
    iam.put_user_permissions_boundary(UserName=name, PermissionsBoundary=f"{AWS}/AdministratorAccess")
    assert may(sagemaker)
    iam.detach_user_policy(UserName=name, PolicyArn=f"{AWS}/AmazonSageMakerReadOnly")
    assert not may(sagemaker), "a boundary gives nothing"


def test_an_administrator_can_be_kept_to_handing_out_one_boundary(engine, iam, user, short):
    """Delegation as AWS documents it: users may be made only with the boundary, and it cannot be taken off.

    Proves: IAM-16, IAM-24
    """
    name, _ = user
    boundary = make_policy(iam, short, NOTHING)
    condition = {"StringEquals": {"iam:PermissionsBoundary": boundary}}
    users = f"arn:aws:iam::{ACCOUNT}:user/*"
    iam.put_user_policy(UserName=name, PolicyName="delegate", PolicyDocument=json.dumps(document(
        allow(["iam:CreateUser", "iam:AttachUserPolicy", "iam:PutUserPermissionsBoundary"], users) | {"Condition": condition},
    )))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    theirs = engine.client("iam", key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    made = f"{short}-x"
    refused("AccessDenied", theirs.create_user, UserName=made)
    refused("AccessDenied", theirs.create_user, UserName=made, PermissionsBoundary=f"{AWS}/AdministratorAccess")
    theirs.create_user(UserName=made, PermissionsBoundary=boundary)
    theirs.attach_user_policy(UserName=made, PolicyArn=f"{AWS}/AdministratorAccess")
    refused("AccessDenied", theirs.delete_user_permissions_boundary, UserName=made)
    iam.delete_user_permissions_boundary(UserName=made)
    refused("AccessDenied", theirs.attach_user_policy, UserName=made, PolicyArn=f"{AWS}/ReadOnlyAccess")


def test_resource_paths_and_tags_decide_whose_entities_may_be_changed(engine, iam, user, short):
    """Proves: IAM-8, IAM-16, IAM-64"""
    name, _ = user
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(document(
        allow("iam:DeletePolicy", f"arn:aws:iam::{ACCOUNT}:policy/{short}/*"),
        allow("iam:TagUser") | {"Condition": {"StringEquals": {"aws:ResourceTag/team": short}}},
    )))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    theirs = engine.client("iam", key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    inside, outside = (make_policy(iam, f"{short}-{n}", READ, Path=path) for n, path in ((1, f"/{short}/"), (2, "/")))
    refused("AccessDenied", theirs.delete_policy, PolicyArn=outside)
    refused("AccessDenied", theirs.get_policy, PolicyArn=inside)
    theirs.delete_policy(PolicyArn=inside)
    tag = {"UserName": f"{short}-t", "Tags": [{"Key": "stage", "Value": "x"}]}
    iam.create_user(UserName=tag["UserName"])
    refused("AccessDenied", theirs.tag_user, **tag)
    iam.tag_user(UserName=tag["UserName"], Tags=[{"Key": "Team", "Value": short}])
    theirs.tag_user(**tag)
    # Authorization comes before existence (IAM-59).
    refused("AccessDenied", theirs.tag_user, **tag | {"UserName": f"{short}-none"})


def test_an_inactive_key_signs_nothing_until_it_is_active_again(iam, user):
    """Proves: IAM-47, IAM-64"""
    name, sagemaker = user
    iam.attach_user_policy(UserName=name, PolicyArn=f"{AWS}/AmazonSageMakerReadOnly")
    (key,) = iam.list_access_keys(UserName=name)["AccessKeyMetadata"]
    assert key["Status"] == "Active" and may(sagemaker)
    iam.update_access_key(UserName=name, AccessKeyId=key["AccessKeyId"], Status="Inactive")
    refused("UnrecognizedClientException", sagemaker.list_models)
    iam.update_access_key(UserName=name, AccessKeyId=key["AccessKeyId"], Status="Active")
    assert may(sagemaker)
    iam.create_access_key(UserName=name)
    refused("LimitExceeded", iam.create_access_key, UserName=name)


def test_waiters_find_what_exists_and_give_up_on_what_does_not(iam, short):
    """Proves: IAM-64"""
    policy = make_policy(iam, short, READ)
    iam.create_user(UserName=short)
    iam.create_role(RoleName=short, AssumeRolePolicyDocument=json.dumps(TRUST))
    once = {"WaiterConfig": {"Delay": 0, "MaxAttempts": 1}}
    for waiter, there, missing in (
        ("user_exists", {"UserName": short}, {"UserName": f"{short}-no"}),
        ("role_exists", {"RoleName": short}, {"RoleName": f"{short}-no"}),
        ("policy_exists", {"PolicyArn": policy}, {"PolicyArn": f"{policy}-no"}),
    ):
        iam.get_waiter(waiter).wait(**there, **once)
        with pytest.raises(WaiterError):
            iam.get_waiter(waiter).wait(**missing, **once)


def test_every_paginator_tells_everything_once(iam, short):
    """Proves: IAM-64"""
    path = f"/{short}/"
    made = [f"{short}-{n}" for n in range(5)]
    policies = [make_policy(iam, each, READ, Path=path) for each in made]
    for each in made:
        iam.create_user(UserName=each, Path=path)
        iam.create_group(GroupName=each, Path=path)
        iam.add_user_to_group(GroupName=made[0], UserName=each)
        iam.add_user_to_group(GroupName=each, UserName=made[0])
        iam.attach_user_policy(UserName=each, PolicyArn=policies[0])
        iam.put_user_policy(UserName=made[0], PolicyName=each, PolicyDocument=json.dumps(READ))
        iam.attach_user_policy(UserName=made[0], PolicyArn=f"arn:aws:iam::{ACCOUNT}:policy{path}{each}")
        iam.tag_user(UserName=made[0], Tags=[{"Key": each, "Value": ""}])
        if each != made[0]:
            iam.create_policy_version(PolicyArn=policies[0], PolicyDocument=json.dumps(READ))
    by_name = {"PathPrefix": path}
    for operation, member, key, members, expected in (
        ("list_users", "Users", "UserName", by_name, made),
        ("list_groups", "Groups", "GroupName", by_name, made),
        ("list_policies", "Policies", "PolicyName", by_name, made),
        ("get_group", "Users", "UserName", {"GroupName": made[0]}, made),
        ("list_groups_for_user", "Groups", "GroupName", {"UserName": made[0]}, made),
        ("list_attached_user_policies", "AttachedPolicies", "PolicyName", {"UserName": made[0]}, made),
        ("list_user_tags", "Tags", "Key", {"UserName": made[0]}, made),
        ("list_policy_versions", "Versions", "VersionId", {"PolicyArn": policies[0]}, ["v5", "v4", "v3", "v2", "v1"]),
        ("list_entities_for_policy", "PolicyUsers", "UserName", {"PolicyArn": policies[0]}, made),
    ):
        for size, count in ((2, 3), (5, 1), (1000, 1)):
            pages = list(iam.get_paginator(operation).paginate(**members, PaginationConfig={"PageSize": size}))
            assert names(pages, member, key) == expected, operation
            assert len(pages) == count and [page["IsTruncated"] for page in pages] == [True] * (count - 1) + [False], operation
    inline = list(iam.get_paginator("list_user_policies").paginate(UserName=made[0], PaginationConfig={"PageSize": 2}))
    assert [each for page in inline for each in page["PolicyNames"]] == made and len(inline) == 3

    def whole(size):
        pages = list(iam.get_paginator("get_account_authorization_details").paginate(PaginationConfig={"PageSize": size}))
        return {kind: names(pages, kind, "Arn") for kind in ("UserDetailList", "GroupDetailList", "RoleDetailList", "Policies")}

    at_once = whole(1000)
    assert whole(3) == at_once and set(policies) <= set(at_once["Policies"])
    assert all(len(set(told)) == len(told) for told in at_once.values())


def test_many_callers_change_the_same_policy_and_group_at_once(iam, short):
    """As Terraform does, ten at a time.

    Proves: IAM-25
    """
    policy = make_policy(iam, short, READ)
    roles = [f"{short}-{n}" for n in range(10)]

    def make(role):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(TRUST))
        iam.attach_role_policy(RoleName=role, PolicyArn=policy)

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(make, roles))
    assert names([iam.list_entities_for_policy(PolicyArn=policy)], "PolicyRoles", "RoleName") == roles
    assert iam.get_policy(PolicyArn=policy)["Policy"]["AttachmentCount"] == 10
    refused("DeleteConflict", iam.delete_policy, PolicyArn=policy)


def test_the_aws_cli_manages_users_groups_and_policies(engine, short, tmp_path):
    """Proves: IAM-64"""
    text = tmp_path / "policy.json"
    text.write_text(json.dumps(READ))

    def aws(*arguments, fails=None):
        cli = Path(sys.executable).parent / "aws"
        done = subprocess.run([cli, "iam", *arguments, "--output", "json"], env=engine.environment(), capture_output=True, text=True)
        if fails:
            assert done.returncode != 0 and f"({fails})" in done.stderr, done
            return None
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    policy = aws("create-policy", "--policy-name", short, "--policy-document", f"file://{text}")["Policy"]["Arn"]
    aws("create-user", "--user-name", short, "--tags", "Key=team,Value=ml", "--permissions-boundary", policy)
    aws("create-group", "--group-name", short)
    aws("add-user-to-group", "--group-name", short, "--user-name", short)
    aws("attach-group-policy", "--group-name", short, "--policy-arn", f"{AWS}/ReadOnlyAccess")
    assert aws("get-user", "--user-name", short)["User"]["PermissionsBoundary"]["PermissionsBoundaryArn"] == policy
    shown = aws("get-policy-version", "--policy-arn", policy, "--version-id", "v1")["PolicyVersion"]
    assert shown["Document"] == READ and shown["IsDefaultVersion"] is True
    listed = aws("list-policies", "--scope", "Local", "--query", f"Policies[?PolicyName=='{short}'].PermissionsBoundaryUsageCount")
    assert listed == [1]
    aws("delete-policy", "--policy-arn", policy, fails="DeleteConflict")
    aws("delete-user", "--user-name", short, fails="DeleteConflict")
    aws("delete-user-permissions-boundary", "--user-name", short)
    aws("remove-user-from-group", "--group-name", short, "--user-name", short)
    aws("delete-user", "--user-name", short)
    aws("delete-policy", "--policy-arn", policy)
    aws("get-policy", "--policy-arn", policy, fails="NoSuchEntity")
    aws("get-account-password-policy", fails="NoSuchEntity")


def rounds(iam, short):
    """Every operation once, each with the part of its answer that says what it did."""
    text, other = json.dumps(READ), json.dumps(ALL)
    user, group, role = {"UserName": short}, {"GroupName": short}, {"RoleName": short}
    named, tags = {"PolicyName": "inline"}, [{"Key": "team", "Value": "ml"}]
    aliases = iam.list_account_aliases()["AccountAliases"]
    assert aliases == []
    iam.create_account_alias(AccountAlias=short.lower().replace("_", "-")[:63])
    assert len(iam.list_account_aliases()["AccountAliases"]) == 1
    iam.delete_account_alias(AccountAlias=short.lower().replace("_", "-")[:63])

    made = iam.create_policy(PolicyName=short, PolicyDocument=text, Description="reads", Tags=tags)["Policy"]
    policy = {"PolicyArn": made["Arn"]}
    assert made["PolicyId"].startswith("ANPA") and made["Tags"] == tags
    assert iam.get_policy(**policy)["Policy"]["Description"] == "reads"
    assert made["Arn"] in names(iam.get_paginator("list_policies").paginate(Scope="Local"), "Policies", "Arn")
    second = iam.create_policy_version(**policy, PolicyDocument=other)["PolicyVersion"]
    assert (second["VersionId"], second["IsDefaultVersion"]) == ("v2", False)
    assert iam.get_policy_version(**policy, VersionId="v2")["PolicyVersion"]["Document"] == ALL
    iam.set_default_policy_version(**policy, VersionId="v2")
    assert [each["VersionId"] for each in iam.list_policy_versions(**policy)["Versions"]] == ["v2", "v1"]
    iam.delete_policy_version(**policy, VersionId="v1")
    iam.tag_policy(**policy, Tags=[{"Key": "stage", "Value": "x"}])
    iam.untag_policy(**policy, TagKeys=["team"])
    assert iam.list_policy_tags(**policy)["Tags"] == [{"Key": "stage", "Value": "x"}]

    assert iam.create_user(**user, Tags=tags)["User"]["UserId"].startswith("AIDA")
    assert iam.get_user(**user)["User"]["Tags"] == tags
    assert short in names(iam.get_paginator("list_users").paginate(), "Users", "UserName")
    iam.update_user(**user, NewPath="/moved/")
    assert iam.get_user(**user)["User"]["Path"] == "/moved/"
    iam.tag_user(**user, Tags=[{"Key": "stage", "Value": "x"}])
    iam.untag_user(**user, TagKeys=["team"])
    assert iam.list_user_tags(**user)["Tags"] == [{"Key": "stage", "Value": "x"}]
    key = {"AccessKeyId": iam.create_access_key(**user)["AccessKey"]["AccessKeyId"]}
    iam.update_access_key(**user, **key, Status="Inactive")
    assert iam.list_access_keys(**user)["AccessKeyMetadata"][0]["Status"] == "Inactive"
    iam.delete_access_key(**user, **key)

    assert iam.create_group(**group)["Group"]["GroupId"].startswith("AGPA")
    iam.update_group(**group, NewPath="/moved/")
    assert short in names(iam.get_paginator("list_groups").paginate(), "Groups", "GroupName")
    iam.add_user_to_group(**group, **user)
    assert names([iam.get_group(**group)], "Users", "UserName") == [short]
    assert names([iam.list_groups_for_user(**user)], "Groups", "Path") == ["/moved/"]

    assert iam.create_role(**role, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["RoleId"].startswith("AROA")
    assert short in names(iam.get_paginator("list_roles").paginate(), "Roles", "RoleName")
    iam.update_role(**role, Description="one", MaxSessionDuration=7200)
    assert iam.update_role_description(**role, Description="two")["Role"]["Description"] == "two"
    iam.update_assume_role_policy(**role, PolicyDocument=json.dumps(TRUST))
    shown = iam.get_role(**role)["Role"]
    assert (shown["MaxSessionDuration"], shown["AssumeRolePolicyDocument"]) == (7200, TRUST)
    iam.tag_role(**role, Tags=tags)
    iam.untag_role(**role, TagKeys=["none"])
    assert iam.list_role_tags(**role)["Tags"] == tags
    assert iam.list_instance_profiles_for_role(**role)["InstanceProfiles"] == []

    for noun, of in (("user", user), ("group", group), ("role", role)):
        call = lambda operation, **members: getattr(iam, operation)(**of, **members)  # noqa: B023, E731
        call(f"put_{noun}_policy", **named, PolicyDocument=text)
        assert call(f"get_{noun}_policy", **named)["PolicyDocument"] == READ
        assert call(f"list_{noun}_policies")["PolicyNames"] == ["inline"]
        call(f"delete_{noun}_policy", **named)
        call(f"attach_{noun}_policy", **policy)
        assert names([call(f"list_attached_{noun}_policies")], "AttachedPolicies", "PolicyArn") == [made["Arn"]]
    for noun, of in (("user", user), ("role", role)):
        getattr(iam, f"put_{noun}_permissions_boundary")(**of, PermissionsBoundary=made["Arn"])
    used = iam.list_entities_for_policy(**policy)
    assert [len(used[f"Policy{kind}"]) for kind in ("Users", "Groups", "Roles")] == [1, 1, 1]
    assert iam.get_policy(**policy)["Policy"]["PermissionsBoundaryUsageCount"] == 2
    details = iam.get_account_authorization_details(Filter=["Role"], MaxItems=1000)["RoleDetailList"]
    (detail,) = [each for each in details if each["RoleName"] == short]
    assert detail["PermissionsBoundary"]["PermissionsBoundaryArn"] == made["Arn"] and detail["Tags"] == tags
    summary = iam.get_account_summary()["SummaryMap"]
    assert summary["Users"] >= 1 and summary["AccessKeysPerUserQuota"] == 2 and summary["AccountMFAEnabled"] == 0

    for noun, of in (("user", user), ("role", role)):
        getattr(iam, f"delete_{noun}_permissions_boundary")(**of)
    for noun, of in (("user", user), ("group", group), ("role", role)):
        getattr(iam, f"detach_{noun}_policy")(**of, **policy)
    for operation, member, members in (
        ("list_instance_profiles", "InstanceProfiles", {}), ("list_virtual_mfa_devices", "VirtualMFADevices", {}),
        ("list_server_certificates", "ServerCertificateMetadataList", {}), ("list_saml_providers", "SAMLProviderList", {}),
        ("list_open_id_connect_providers", "OpenIDConnectProviderList", {}), ("list_mfa_devices", "MFADevices", user),
        ("list_signing_certificates", "Certificates", user), ("list_ssh_public_keys", "SSHPublicKeys", user),
        ("list_service_specific_credentials", "ServiceSpecificCredentials", user),
    ):
        assert getattr(iam, operation)(**members)[member] == [], operation
        if members:
            refused("NoSuchEntity", getattr(iam, operation), UserName=f"{short}-none")
    refused("NoSuchEntity", iam.get_login_profile, **user)
    refused("NoSuchEntity", iam.get_account_password_policy)
    iam.remove_user_from_group(**group, **user)
    iam.delete_user(**user)
    iam.delete_group(**group)
    iam.delete_role(**role)
    iam.delete_policy(**policy)
    for gone, members in ((iam.get_user, user), (iam.get_group, group), (iam.get_role, role), (iam.get_policy, policy)):
        error = refused("NoSuchEntity", gone, **members)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_every_served_operation_makes_its_round_through_boto3(engine, short):
    """Proves: IAM-64"""
    iam = engine.client("iam")
    called = set()
    iam.meta.events.register("before-call.iam.*", lambda model, **_: called.add(model.name))
    rounds(iam, short)
    served = tomllib.loads((ROOT / "models/served-operations.toml").read_text())["iam"]["operations"]
    # Simulation has a suite of its own.
    elsewhere = {name for name in served if name.startswith(("Simulate", "GetContextKeys"))}
    assert set(served) - elsewhere == called


def job(engine, name, role, image, bucket, key, output):
    """A job of the small image whose one input is one object: the program that it runs."""
    request = training_request(name, image, role, bucket, "unused", HyperParameters={}) | {
        "InputDataConfig": [], "OutputDataConfig": {"S3OutputPath": output},
        "AlgorithmSpecification": {
            "TrainingImage": image, "TrainingInputMode": "File", "ContainerEntrypoint": ["/bin/sh", "/opt/ml/input/data/code/main"],
        },
    }
    request["InputDataConfig"].append({"ChannelName": "code", "DataSource": {"S3DataSource": {
        "S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{key}", "S3DataDistributionType": "FullyReplicated"}}})
    engine.client("s3").put_object(Bucket=bucket, Key=key, Body=b"echo made > /opt/ml/model/made\n")
    sagemaker = engine.client("sagemaker")
    sagemaker.create_training_job(**request)
    done = finished(sagemaker, name)
    return done["TrainingJobStatus"], done.get("FailureReason", "")


def test_a_role_for_one_object_and_one_output_runs_that_job_and_no_other(engine, iam, name, short, bucket, small):
    """Proves: IAM-54, IAM-57"""
    key, output = f"least/{short}/main", f"least/{short}/out"
    repository = f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/small"
    role = engine.create_role(short, [
        allow("s3:GetObject", f"arn:aws:s3:::{bucket}/{key}"),
        allow("s3:ListBucket", f"arn:aws:s3:::{bucket}") | {"Condition": {"StringEquals": {"s3:prefix": key}}},
        allow("s3:PutObject", f"arn:aws:s3:::{bucket}/{output}/*"),
        allow(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]),
        allow("ecr:GetAuthorizationToken"),
        allow(["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"], repository),
    ])
    assert job(engine, name, role, small, bucket, key, f"s3://{bucket}/{output}") == ("Completed", "")
    error = refused("ValidationException", job, engine, f"{name}-in", role, small, bucket, f"least/{short}/other", f"s3://{bucket}/{output}")
    assert f'role "{role}" has "s3:ListBucket" permissions' in str(error)
    status, reason = job(engine, f"{name}-out", role, small, bucket, key, f"s3://{bucket}/{output}-other")
    assert status == "Failed" and "s3:PutObject" in reason, reason
    assert engine.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{output}-other")["KeyCount"] == 0


def test_the_policy_for_sagemaker_runs_jobs_on_objects_named_for_it(engine, iam, name, short, bucket, small):
    """Proves: IAM-25, IAM-54, IAM-56"""
    role = iam.create_role(RoleName=short, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    iam.attach_role_policy(RoleName=short, PolicyArn=f"{AWS}/AmazonSageMakerFullAccess")
    named, plain = f"sagemaker-{short}", short.replace("sagemaker", "it")
    assert job(engine, name, role, small, bucket, f"{named}/main", f"s3://{bucket}/{named}/out") == ("Completed", "")
    status, reason = job(engine, f"{name}-in", role, small, bucket, f"{plain}/main", f"s3://{bucket}/{named}/out")
    assert status == "Failed" and "s3:GetObject" in reason, reason
    iam.detach_role_policy(RoleName=short, PolicyArn=f"{AWS}/AmazonSageMakerFullAccess")
    refused("ValidationException", job, engine, f"{name}-off", role, small, bucket, f"{named}/main", f"s3://{bucket}/{named}/out")
