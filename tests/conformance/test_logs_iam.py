"""CloudWatch Logs, IAM and STS through unmodified boto3, and the operator's `user create`."""
import json
import time

import boto3
import pytest
from botocore.config import Config

from tests.harness.engine import ACCOUNT, REGION, TRUST
from tests.harness.wire import exchange, printed, refused, signed

START = int(time.time() * 1000) - 3_600_000


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*"):
    return {"Effect": "Allow", "Action": action, "Resource": resource}


@pytest.fixture(scope="module")
def logs(engine):
    return engine.client("logs")


@pytest.fixture(scope="module")
def iam(engine):
    return engine.client("iam")


@pytest.fixture(scope="module")
def sts(engine):
    return engine.client("sts")


@pytest.fixture
def group(logs, name):
    logs.create_log_group(logGroupName=f"/test/{name}", tags={"team": "ml"})
    return f"/test/{name}"


def acting(engine, service, credentials):
    """A client with the temporary credentials of AssumeRole."""
    return boto3.client(
        service, endpoint_url=engine.url, region_name=REGION, aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"], aws_session_token=credentials["SessionToken"],
        config=Config(retries={"max_attempts": 0}),
    )


def test_groups_have_retention_tags_and_pages(logs, group):
    """Proves: IAM-66"""
    refused("ResourceAlreadyExistsException", logs.create_log_group, logGroupName=group)
    (found,) = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert found["arn"] == f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:*" and "retentionInDays" not in found
    logs.put_retention_policy(logGroupName=group, retentionInDays=7)
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]["retentionInDays"] == 7
    refused("InvalidParameterException", logs.put_retention_policy, logGroupName=group, retentionInDays=8)
    logs.delete_retention_policy(logGroupName=group)
    assert "retentionInDays" not in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0]
    arn = found["arn"].removesuffix(":*")
    logs.tag_resource(resourceArn=arn, tags={"stage": "test"})
    assert logs.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "ml", "stage": "test"}
    logs.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert logs.list_tags_log_group(logGroupName=group)["tags"] == {"stage": "test"}
    names = [f"{group}/{n:02}" for n in range(12)]
    for each in names:
        logs.create_log_group(logGroupName=each)
    pages = list(logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=f"{group}/", PaginationConfig={"PageSize": 5}))
    assert [entry["logGroupName"] for page in pages for entry in page["logGroups"]] == names and len(pages) == 3
    for each in [*names, group]:
        logs.delete_log_group(logGroupName=each)
    assert logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"] == []
    refused("ResourceNotFoundException", logs.delete_log_group, logGroupName=group)
    refused("ResourceNotFoundException", logs.describe_log_streams, logGroupName=group)


def test_a_stream_is_read_both_ways_until_the_token_stays(logs, group):
    """Proves: IAM-66"""
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    refused("ResourceAlreadyExistsException", logs.create_log_stream, logGroupName=group, logStreamName="s")
    sent = [{"timestamp": START + n, "message": f"line {n} ünï"} for n in range(25)]
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=sent[:10])
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=sent[10:], sequenceToken="ignored since 2023")

    def walk(forward):
        told, token, key = [], {}, "nextForwardToken" if forward else "nextBackwardToken"
        while True:
            page = logs.get_log_events(logGroupName=group, logStreamName="s", startFromHead=forward, limit=7, **token)
            messages = [event["message"] for event in page["events"]]
            told = told + messages if forward else messages + told
            if page[key] == token.get("nextToken"):
                assert messages == []
                return told
            token = {"nextToken": page[key]}

    everything = [event["message"] for event in sent]
    assert walk(True) == everything and walk(False) == everything
    middle = logs.get_log_events(logGroupName=group, logStreamName="s", startTime=START + 5, endTime=START + 8, startFromHead=True)
    assert [event["timestamp"] for event in middle["events"]] == [START + 5, START + 6, START + 7]
    (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="s")["logStreams"]
    assert (stream["firstEventTimestamp"], stream["lastEventTimestamp"]) == (START, START + 24)
    refused("InvalidParameterException", logs.get_log_events, logGroupName=group, logStreamName="s", nextToken="f/made-up")
    refused("ResourceNotFoundException", logs.get_log_events, logGroupName=group, logStreamName="none")
    backwards = [{"timestamp": START + 1, "message": "b"}, {"timestamp": START, "message": "a"}]
    refused("InvalidParameterException", logs.put_log_events, logGroupName=group, logStreamName="s", logEvents=backwards)


def test_streams_are_ordered_and_filtered_over_pages(logs, group):
    """Proves: IAM-66"""
    for number, stream in enumerate(("job/a", "job/b", "other")):
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        events = [{"timestamp": START + 10 * line + number, "message": f"{'ERROR' if line % 2 else 'ok'} {stream} {line}"} for line in range(10)]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    newest = logs.describe_log_streams(logGroupName=group, orderBy="LastEventTime", descending=True)["logStreams"]
    assert [stream["logStreamName"] for stream in newest] == ["other", "job/b", "job/a"]
    pages = logs.get_paginator("describe_log_streams").paginate(logGroupName=group, PaginationConfig={"PageSize": 2})
    assert [stream["logStreamName"] for page in pages for stream in page["logStreams"]] == ["job/a", "job/b", "other"]

    def found(**members):
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, PaginationConfig={"PageSize": 4}, **members)
        return [event["message"] for page in pages for event in page["events"]]

    assert len(found()) == 30
    assert found(logStreamNamePrefix="job/", filterPattern="ERROR") == [f"ERROR {stream} {line}" for line in (1, 3, 5, 7, 9) for stream in ("job/a", "job/b")]
    assert found(logStreamNames=["other"], startTime=START + 42, endTime=START + 63) == ["ok other 4", "ERROR other 5", "ok other 6"]
    assert found(filterPattern='"job/b 3"') == ["ERROR job/b 3"]
    assert found(filterPattern="nothing") == []
    logs.delete_log_stream(logGroupName=group, logStreamName="other")
    assert len(found()) == 20


def test_resource_policies_are_kept_listed_and_limited(logs, name):
    """Proves: IAM-66"""
    document = policy(allow("logs:PutLogEvents") | {"Principal": {"Service": "delivery.logs.amazonaws.com"}})
    names = sorted(f"{name}-{n}" for n in range(10))
    for each in names:
        kept = logs.put_resource_policy(policyName=each, policyDocument=document)["resourcePolicy"]
        assert kept["policyName"] == each and kept["policyDocument"] == document
    refused("LimitExceededException", logs.put_resource_policy, policyName=f"{name}-more", policyDocument=document)
    logs.put_resource_policy(policyName=names[0], policyDocument=document)
    pages = logs.get_paginator("describe_resource_policies").paginate(PaginationConfig={"PageSize": 3})
    assert [each["policyName"] for page in pages for each in page["resourcePolicies"]] == names
    for each in names:
        logs.delete_resource_policy(policyName=each)
    refused("ResourceNotFoundException", logs.delete_resource_policy, policyName=names[0])
    assert logs.describe_resource_policies()["resourcePolicies"] == []
    for broken in ("no", policy(allow("logs:PutLogEvents"))):
        refused("InvalidParameterException", logs.put_resource_policy, policyName=name, policyDocument=broken)


def test_users_get_what_their_inline_policy_says(engine, iam, group):
    """Proves: IAM-20, IAM-26, IAM-60, IAM-64"""
    user = group.removeprefix("/test/")[:64]
    made = iam.create_user(UserName=user, Path="/team/")["User"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/team/{user}" and made["UserId"].startswith("AIDA")
    iam.get_waiter("user_exists").wait(UserName=user)
    refused("EntityAlreadyExists", iam.create_user, UserName=user)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    keys = {"key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    mine, me = engine.client("logs", **keys), engine.client("sts", **keys)
    identity = me.get_caller_identity()
    assert (identity["Arn"], identity["UserId"], identity["Account"]) == (made["Arn"], made["UserId"], ACCOUNT)
    error = refused("AccessDeniedException", mine.describe_log_streams, logGroupName=group)
    assert f"User: {made['Arn']} is not authorized to perform: logs:DescribeLogStreams" in str(error)
    assert "because no identity-based policy allows the logs:DescribeLogStreams action" in str(error)
    document = policy(allow("logs:*"), {"Effect": "Deny", "Action": "logs:DeleteLogGroup", "Resource": "*"})
    iam.put_user_policy(UserName=user, PolicyName="inline", PolicyDocument=document)
    assert json.loads(json.dumps(iam.get_user_policy(UserName=user, PolicyName="inline")["PolicyDocument"])) == json.loads(document)
    assert iam.list_user_policies(UserName=user)["PolicyNames"] == ["inline"]
    mine.describe_log_streams(logGroupName=group)
    error = refused("AccessDeniedException", mine.delete_log_group, logGroupName=group)
    assert "with an explicit deny in an identity-based policy" in str(error)
    refused("MalformedPolicyDocument", iam.put_user_policy, UserName=user, PolicyName="bad", PolicyDocument="{}")
    error = refused("AccessDenied", engine.client("iam", **keys).list_users)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403 and error.response["Error"]["Type"] == "Sender"
    refused("DeleteConflict", iam.delete_user, UserName=user)
    iam.delete_user_policy(UserName=user, PolicyName="inline")
    refused("AccessDeniedException", mine.describe_log_streams, logGroupName=group)
    iam.delete_access_key(UserName=user, AccessKeyId=key["AccessKeyId"])
    refused("InvalidClientTokenId", me.get_caller_identity)
    iam.delete_user(UserName=user)
    error = refused("NoSuchEntity", iam.get_user, UserName=user)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_lists_of_users_and_roles_come_in_pages(iam, name):
    """Proves: IAM-64"""
    users = [f"{name[:40]}-{n:02}" for n in range(7)]
    for user in users:
        iam.create_user(UserName=user, Path=f"/{name}/")
        iam.create_role(RoleName=user, Path=f"/{name}/", AssumeRolePolicyDocument=json.dumps(TRUST))
    for operation, member, key in (("list_users", "Users", "UserName"), ("list_roles", "Roles", "RoleName")):
        pages = list(iam.get_paginator(operation).paginate(PathPrefix=f"/{name}/", PaginationConfig={"PageSize": 3}))
        assert [entry[key] for page in pages for entry in page[member]] == users and len(pages) == 3
        assert [page["IsTruncated"] for page in pages] == [True, True, False]
    role = iam.get_role(RoleName=users[0])["Role"]
    assert role["AssumeRolePolicyDocument"] == TRUST and role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/{name}/{users[0]}"
    for user in users:
        iam.delete_user(UserName=user)
        iam.delete_role(RoleName=user)
    refused("NoSuchEntity", iam.get_role, RoleName=users[0])


def test_an_assumed_role_works_on_s3_and_sagemaker_within_its_policies(engine, iam, sts, name):
    """Proves: IAM-24, IAM-45, IAM-53, IAM-63"""
    role, bucket = name[:40], name
    s3 = engine.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="open/k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="shut/k", Body=b"x")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}
    made = iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    iam.put_role_policy(RoleName=role, PolicyName="inline", PolicyDocument=policy(
        allow(["s3:GetObject", "s3:PutObject"], f"arn:aws:s3:::{bucket}/*"), allow("sagemaker:ListModels")))

    user = iam.create_user(UserName=role)["User"]
    key = iam.create_access_key(UserName=role)["AccessKey"]
    caller = engine.client("sts", key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    assume = {"RoleArn": made["Arn"], "RoleSessionName": "one"}
    refused("AccessDenied", caller.assume_role, **assume)
    iam.put_user_policy(UserName=role, PolicyName="inline", PolicyDocument=policy(allow("sts:AssumeRole", made["Arn"])))
    given = caller.assume_role(**assume, DurationSeconds=900)
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/one"
    assert given["AssumedRoleUser"]["Arn"] == session and given["Credentials"]["AccessKeyId"].startswith("ASIA")
    left = given["Credentials"]["Expiration"].timestamp() - time.time()
    assert 800 < left <= 901
    identity = acting(engine, "sts", given["Credentials"]).get_caller_identity()
    assert identity["Arn"] == session and identity["UserId"] == f"{made['RoleId']}:one" and identity["Account"] == ACCOUNT

    theirs = acting(engine, "s3", given["Credentials"])
    assert theirs.get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"x"
    theirs.put_object(Bucket=bucket, Key="open/n", Body=b"y")
    assert session in str(refused("AccessDenied", theirs.delete_object, Bucket=bucket, Key="open/k"))
    assert acting(engine, "sagemaker", given["Credentials"]).list_models()["Models"] is not None
    error = refused("AccessDeniedException", acting(engine, "sagemaker", given["Credentials"]).list_endpoints)
    assert f"User: {session} is not authorized to perform: sagemaker:ListEndpoints" in str(error)

    narrowed = caller.assume_role(**assume, Policy=policy(allow("s3:GetObject", f"arn:aws:s3:::{bucket}/open/*")))["Credentials"]
    fewer = acting(engine, "s3", narrowed)
    assert fewer.get_object(Bucket=bucket, Key="open/k")["Body"].read() == b"x"
    refused("AccessDenied", fewer.get_object, Bucket=bucket, Key="shut/k")
    refused("AccessDenied", fewer.put_object, Bucket=bucket, Key="open/k", Body=b"z")
    unchecked = engine.client("sts", key=key["AccessKeyId"], secret=key["SecretAccessKey"], config={"parameter_validation": False})
    for seconds in (60, 43201):
        refused("ValidationError", unchecked.assume_role, **assume, DurationSeconds=seconds)
    refused("AccessDenied", caller.assume_role, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/none", RoleSessionName="one")
    assert user["Arn"].endswith(role)


def test_tampered_foreign_and_missing_session_tokens_are_refused(engine, iam, sts, name):
    """Proves: IAM-45, IAM-47"""
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}
    arn = iam.create_role(RoleName=name[:40], AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    user = iam.create_user(UserName=name[:40])["User"]["UserName"]
    iam.put_user_policy(UserName=user, PolicyName="inline", PolicyDocument=policy(allow("sts:AssumeRole")))
    key = iam.create_access_key(UserName=user)["AccessKey"]
    caller = engine.client("sts", key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    one, two = (caller.assume_role(RoleArn=arn, RoleSessionName=session)["Credentials"] for session in ("one", "two"))
    acting(engine, "sts", one).get_caller_identity()
    token = one["SessionToken"]
    middle = len(token) // 2
    tampered = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1:]
    for wrong in (tampered, two["SessionToken"], token[:-4], token + "AAAA", "x"):
        forged = one | {"SessionToken": wrong}
        refused("InvalidClientTokenId", acting(engine, "sts", forged).get_caller_identity)
        refused("UnrecognizedClientException", acting(engine, "sagemaker", forged).list_models)
        refused("InvalidToken", acting(engine, "s3", forged).list_buckets)
    keys = {"key": one["AccessKeyId"], "secret": one["SecretAccessKey"]}
    refused("InvalidClientTokenId", engine.client("sts", **keys).get_caller_identity)
    refused("UnrecognizedClientException", engine.client("sagemaker", **keys).list_models)
    iam.delete_role(RoleName=name[:40])
    refused("InvalidAccessKeyId", acting(engine, "s3", one).list_buckets)


def test_the_root_is_told_who_it_is_and_nobody_is_told_nothing(engine, sts):
    """Proves: IAM-20, IAM-53"""
    identity = sts.get_caller_identity()
    assert (identity["Account"], identity["Arn"], identity["UserId"]) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT)
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = signed(engine, "sts", "POST", "/", form, body)
    assert answer.headers["content-type"].startswith("text/xml") and b"<GetCallerIdentityResult>" in answer.body
    nobody = exchange(engine.url, "POST", "/", form, body)
    assert (nobody.status, nobody.code) == (403, "MissingAuthenticationToken")


def test_the_operator_makes_users_with_and_without_a_policy(engine, iam, name, tmp_path):
    """Proves: IAM-64, IAM-68"""
    document = tmp_path / "policy.json"
    document.write_text(policy(allow("sagemaker:List*")))
    for user, options, allowed in ((f"{name[:40]}-a", ["--policy", str(document)], True), (f"{name[:40]}-b", [], False)):
        made = printed(engine.run("user", "create", user, *options).stdout)
        keys = {"key": made["aws_access_key_id"], "secret": made["aws_secret_access_key"]}
        assert engine.client("sts", **keys).get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/{user}"
        assert iam.get_user(UserName=user)["User"]["UserName"] == user
        sagemaker = engine.client("sagemaker", **keys)
        if allowed:
            sagemaker.list_models()
        else:
            refused("AccessDeniedException", sagemaker.list_models)
        refused("AccessDeniedException", sagemaker.delete_model, ModelName="none")
        again = engine.run("user", "create", user, check=False)
        assert again.returncode == 1 and user in again.stderr, again
    document.write_text("{}")
    assert engine.run("user", "create", f"{name[:40]}-c", "--policy", str(document), check=False).returncode != 0
    refused("NoSuchEntity", iam.get_user, UserName=f"{name[:40]}-c")
