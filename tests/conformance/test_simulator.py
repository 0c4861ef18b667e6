"""The policy simulator by unmodified boto3: what it says is what the next request gets."""
import json

from tests.harness.engine import ACCOUNT, REGION
from tests.harness.wire import refused

OBJECTS = "arn:aws:s3:::simulated/*"


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def decisions(answer):
    return {one["EvalActionName"]: one["EvalDecision"] for one in answer["EvaluationResults"]}


def test_custom_policies_are_decided_without_being_attached(engine):
    """Proves: IAM-21, IAM-64"""
    iam = engine.client("iam")
    allow = {"Effect": "Allow", "Action": "s3:*", "Resource": OBJECTS, "Condition": {"StringEquals": {"aws:SourceVpc": "vpc-1"}}}
    texts = [document(allow), document({"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"})]
    asked = {
        "PolicyInputList": texts, "ActionNames": ["s3:GetObject", "s3:DeleteObject", "ec2:CreateVpc"],
        "ResourceArns": ["arn:aws:s3:::simulated/a"],
    }
    without = iam.simulate_custom_policy(**asked)
    assert decisions(without) == {"s3:GetObject": "implicitDeny", "s3:DeleteObject": "explicitDeny", "ec2:CreateVpc": "implicitDeny"}
    first = next(one for one in without["EvaluationResults"] if one["EvalActionName"] == "s3:GetObject")
    assert [key.lower() for key in first["MissingContextValues"]] == ["aws:sourcevpc"]
    vpc = [{"ContextKeyName": "aws:SourceVpc", "ContextKeyValues": ["vpc-1"], "ContextKeyType": "string"}]
    inside = iam.simulate_custom_policy(ContextEntries=vpc, **asked)
    assert decisions(inside)["s3:GetObject"] == "allowed" and decisions(inside)["s3:DeleteObject"] == "explicitDeny"
    keys = iam.get_context_keys_for_custom_policy(PolicyInputList=texts)["ContextKeyNames"]
    assert [key.lower() for key in keys] == ["aws:sourcevpc"]


def test_a_principals_own_policies_are_simulated_as_they_decide(engine, name):
    """Proves: IAM-21, IAM-64"""
    iam, user = engine.client("iam"), name[-40:].lstrip("-")
    arn = iam.create_user(UserName=user)["User"]["Arn"]
    iam.put_user_policy(UserName=user, PolicyName="own", PolicyDocument=document(
        {"Effect": "Allow", "Action": ["ec2:DescribeVpcs", "ec2:DeleteVpc"], "Resource": "*"},
        {"Effect": "Deny", "Action": "ec2:DeleteVpc", "Resource": "*", "Condition": {"StringEquals": {"ec2:ResourceTag/keep": "yes"}}},
    ))
    key = iam.create_access_key(UserName=user)["AccessKey"]
    mine = engine.client("ec2", key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    names = ["ec2:DescribeVpcs", "ec2:CreateVpc"]
    said = decisions(iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=names))
    assert said == {"ec2:DescribeVpcs": "allowed", "ec2:CreateVpc": "implicitDeny"}
    mine.describe_vpcs()
    refused("UnauthorizedOperation", mine.create_vpc, CidrBlock="10.62.0.0/16")
    about = {"ActionNames": ["ec2:DeleteVpc"], "ResourceArns": [f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/vpc-1"]}
    tag = [{"ContextKeyName": "ec2:ResourceTag/keep", "ContextKeyValues": ["yes"], "ContextKeyType": "string"}]
    assert decisions(iam.simulate_principal_policy(PolicySourceArn=arn, **about)) == {"ec2:DeleteVpc": "allowed"}
    kept = iam.simulate_principal_policy(PolicySourceArn=arn, ContextEntries=tag, **about)
    assert decisions(kept) == {"ec2:DeleteVpc": "explicitDeny"}
    refused("NoSuchEntity", iam.simulate_principal_policy, PolicySourceArn=f"{arn}-gone", ActionNames=names)
