"""Several accounts on one engine: the operator's commands, what is separate, and what may cross by AWS's rules."""
import json
import re
import subprocess

import pytest

from tests.harness.engine import ACCOUNT, REGION, TRUST, execution_statements
from tests.harness.jobs import finished, training_request
from tests.harness.wire import printed, refused

OTHER = "444455556666"


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*", **members):
    return {"Effect": "Allow", "Action": action, "Resource": resource} | members


class Account:
    """An account with its root's clients and its users."""

    def __init__(self, engine, account_id, keys):
        self.engine, self.id, self.keys = engine, account_id, keys

    def client(self, service, keys=None, token=None):
        key, secret = keys or self.keys
        return self.engine.client(service, key=key, secret=secret, aws_session_token=token)

    def user(self, name, *statements):
        """The keys of a new user with one inline policy."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        if statements:
            iam.put_user_policy(UserName=name, PolicyName="inline", PolicyDocument=policy(*statements))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    def role(self, name, trust, *statements):
        iam = self.client("iam")
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=policy(*statements))
        return arn


def trusting(principal):
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}]}


@pytest.fixture(scope="module")
def home(engine):
    return Account(engine, ACCOUNT, engine.credentials())


@pytest.fixture(scope="module")
def other(engine):
    made = printed(engine.run("account", "create", OTHER).stdout)
    return Account(engine, OTHER, (made["aws_access_key_id"], made["aws_secret_access_key"]))


def test_the_operator_makes_and_lists_accounts_and_finds_their_keys_again(engine, other, tmp_path):
    """Proves: IAM-68"""
    path = engine.data / "credentials"
    assert path.stat().st_mode & 0o777 == 0o600
    assert engine.profile(OTHER) == other.keys != engine.credentials()
    assert other.client("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{OTHER}:root"
    listed = {line["account"]: line for line in json.loads(engine.run("account", "list", "--json").stdout)}
    assert listed[OTHER]["root_keys"] == [other.keys[0]] and not listed[OTHER]["default"]
    assert listed[ACCOUNT]["default"]
    assert re.search(rf"^{OTHER} .* {other.keys[0]}$", engine.run("account", "list").stdout, re.M)

    def exported(*arguments):
        return dict(re.findall(r"^export (\w+)=(.*)$", engine.run("env", *arguments).stdout, re.M))

    theirs = exported("--account", OTHER)
    assert (theirs["AWS_ACCESS_KEY_ID"], theirs["AWS_SECRET_ACCESS_KEY"]) == other.keys
    assert exported("--account", ACCOUNT) == exported() and exported()["AWS_ACCESS_KEY_ID"] == engine.credentials()[0]
    unknown = engine.run("env", "--account", "999999999999", check=False)
    assert unknown.returncode == 1 and "no profile named 999999999999" in unknown.stderr

    again = engine.run("account", "create", OTHER, check=False)
    assert again.returncode == 1 and f"account {OTHER} exists already" in again.stderr
    assert engine.run("account", "create", "12345", check=False).returncode == 2
    assert engine.run("account", "create", "000000000000", check=False).returncode == 1
    made = printed(engine.run("account", "key", OTHER).stdout)
    second = (made["aws_access_key_id"], made["aws_secret_access_key"])
    assert second[0] != other.keys[0] and other.client("sts", second).get_caller_identity()["Account"] == OTHER
    assert engine.profile(OTHER) == other.keys, "the oldest key is the file's"
    third = engine.run("account", "key", OTHER, check=False)
    assert third.returncode == 1 and "2 access keys" in third.stderr

    nobody = subprocess.run([engine.binary, "account", "list", "--data-dir", str(tmp_path)], text=True, capture_output=True)
    assert nobody.returncode == 3 and "start it with `isolarium serve`" in nobody.stderr


def test_the_same_names_are_different_things_in_different_accounts(engine, home, other, name, bucket):
    """Proves: IAM-8, IAM-23"""
    seen = {}
    for account in (home, other):
        logs, ecr, iam = (account.client(service) for service in ("logs", "ecr", "iam"))
        role = account.role(name, TRUST, *execution_statements(bucket))
        assert role == f"arn:aws:iam::{account.id}:role/{name}"
        repository = ecr.create_repository(repositoryName=name)["repository"]
        assert repository["repositoryUri"] == f"{account.id}.dkr.ecr.{REGION}.amazonaws.com/{name}"
        logs.create_log_group(logGroupName=name)
        (group,) = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        assert group["arn"] == f"arn:aws:logs:{REGION}:{account.id}:log-group:{name}:*"
        assert [r["RoleName"] for r in iam.list_roles()["Roles"]].count(name) == 1
        seen[account.id] = (iam.get_role(RoleName=name)["Role"]["RoleId"], group["creationTime"])
    assert len({role_id for role_id, _ in seen.values()}) == 2
    other.client("logs").delete_log_group(logGroupName=name)
    assert other.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"] == []
    assert home.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"], "the other account's group stays"


def test_buckets_cross_accounts_only_when_both_sides_allow(home, other, name):
    """Proves: IAM-23"""
    mine = home.client("s3")
    mine.create_bucket(Bucket=name)
    mine.put_object(Bucket=name, Key="shared/x", Body=b"mine")
    refused("BucketAlreadyExists", other.client("s3").create_bucket, Bucket=name)
    assert name not in [each["Name"] for each in other.client("s3").list_buckets()["Buckets"]]
    read = {"Bucket": name, "Key": "shared/x"}
    reader = other.client("s3", other.user(f"{name}-r"[:64], allow("s3:GetObject")))
    powerless = other.client("s3", other.user(f"{name}-p"[:64]))
    root = other.client("s3")
    for stranger in (reader, powerless, root):
        error = refused("AccessDenied", stranger.get_object, **read)
        assert "because no resource-based policy allows the s3:GetObject action" in str(error)
    shared = policy(allow("s3:GetObject", f"arn:aws:s3:::{name}/shared/*", Principal={"AWS": OTHER}))
    mine.put_bucket_policy(Bucket=name, Policy=shared)
    for allowed in (reader, root):
        assert allowed.get_object(**read)["Body"].read() == b"mine"
    error = refused("AccessDenied", powerless.get_object, **read)
    assert "because no identity-based policy allows the s3:GetObject action" in str(error)
    refused("AccessDenied", reader.put_object, **read, Body=b"theirs")
    mine.delete_bucket_policy(Bucket=name)
    refused("AccessDenied", reader.get_object, **read)


def test_a_role_is_assumed_across_accounts_only_when_both_sides_allow(home, other, name):
    """Proves: IAM-23, IAM-53"""
    role = home.role(name, trusting({"AWS": OTHER}), allow("logs:DescribeLogGroups"))
    closed = home.role(f"{name}-closed"[:64], trusting({"AWS": ACCOUNT}), allow("logs:DescribeLogGroups"))
    may = other.client("sts", other.user(f"{name}-may"[:64], allow("sts:AssumeRole")))
    may_not = other.client("sts", other.user(f"{name}-not"[:64]))
    wanted = {"RoleArn": role, "RoleSessionName": "visitor"}
    session = may.assume_role(**wanted)["Credentials"]
    error = refused("AccessDenied", may_not.assume_role, **wanted)
    assert "no identity-based policy allows" in str(error)
    error = refused("AccessDenied", may.assume_role, RoleArn=closed, RoleSessionName="visitor")
    assert "no role trust policy allows" in str(error)
    keys = (session["AccessKeyId"], session["SecretAccessKey"])
    visitor = home.client("logs", keys, session["SessionToken"])
    home.client("logs").create_log_group(logGroupName=name)
    (group,) = visitor.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    assert f":{ACCOUNT}:" in group["arn"], "the visitor acts in the role's account"
    refused("AccessDeniedException", visitor.create_log_group, logGroupName=f"{name}-more")


def test_a_job_runs_with_the_role_image_and_bucket_of_its_own_account(engine, home, other, small_root, small, name):
    """Proves: IAM-23, IAM-50, IAM-52"""
    theirs = other.client("s3")
    theirs.create_bucket(Bucket=name)
    theirs.put_object(Bucket=name, Key="in/x", Body=b"1")
    image = engine.run("image", "pack", str(small_root), "--name", "small:1", "--account", OTHER).stdout.split()[-1]
    assert image == f"{OTHER}.dkr.ecr.{REGION}.amazonaws.com/small:1"
    role = other.role(name, TRUST, *execution_statements(name))
    sagemaker = other.client("sagemaker")

    def request(job, image, role):
        made = training_request(job, image, role, name, f"s3://{name}/in/")
        made["AlgorithmSpecification"]["ContainerEntrypoint"] = ["/bin/sh", "-c", "echo built > /opt/ml/model/m && echo ran in $TRAINING_JOB_ARN"]
        return made

    arn = sagemaker.create_training_job(**request(name, image, role))["TrainingJobArn"]
    assert arn == f"arn:aws:sagemaker:{REGION}:{OTHER}:training-job/{name}"
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    keys = [each["Key"] for each in theirs.list_objects_v2(Bucket=name, Prefix="jobs/")["Contents"]]
    assert f"jobs/{name}/output/model.tar.gz" in keys
    found = other.client("logs").filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/")["events"]
    assert [event["message"] for event in found] == [f"ran in {arn}"]
    refused("ValidationException", home.client("sagemaker").describe_training_job, TrainingJobName=name)
    mine = home.client("logs").filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/") \
        if home.client("logs").describe_log_groups(logGroupNamePrefix="/aws/sagemaker/TrainingJobs")["logGroups"] else {"events": []}
    assert mine["events"] == []

    foreign = home.role(name, TRUST, *execution_statements(name))
    error = refused("AccessDeniedException", sagemaker.create_training_job, **request(f"{name}-r"[:63], image, foreign))
    assert "iam:PassRole" in str(error) and foreign in str(error)
    error = refused("ValidationException", sagemaker.create_training_job, **request(f"{name}-i"[:63], small, role))
    assert "no resource-based policy allows the ecr:" in str(error)
