"""Feature groups and the records of their online stores, as boto3 and the aws CLI use them."""
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.harness.engine import ACCOUNT, REGION

AWS = str(Path(sys.executable).parent / "aws")


@pytest.fixture(scope="module")
def records(engine):
    return engine.client("sagemaker-featurestore-runtime")


def definitions(**kinds):
    return [{"FeatureName": name, "FeatureType": kind} for name, kind in kinds.items()]


@pytest.fixture
def group(sagemaker, name):
    made = sagemaker.create_feature_group(
        FeatureGroupName=name, RecordIdentifierFeatureName="customer", EventTimeFeatureName="at",
        FeatureDefinitions=definitions(customer="String", at="String", visits="Integral", spent="Fractional"),
        OnlineStoreConfig={"EnableOnlineStore": True}, Tags=[{"Key": "team", "Value": "ml"}],
    )
    assert made["FeatureGroupArn"] == f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:feature-group/{name}"
    return name


def record(**values):
    return [{"FeatureName": name, "ValueAsString": value} for name, value in values.items()]


def code(raised):
    return raised.value.response["Error"]["Code"], raised.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_records_of_an_online_store_are_ordered_by_event_time(records, group):
    """Proves: SM-2, SM-10"""
    whole = record(customer="c/1 é", at="2024-05-01T10:00:00Z", visits="3", spent="1.5")
    records.put_record(FeatureGroupName=group, Record=whole)
    records.put_record(FeatureGroupName=group, Record=record(customer="c/1 é", at="2024-05-01T09:59:59Z", visits="2"))
    found = records.get_record(FeatureGroupName=group, RecordIdentifierValueAsString="c/1 é")
    assert found["Record"] == whole and "ExpiresAt" not in found
    some = records.get_record(FeatureGroupName=group, RecordIdentifierValueAsString="c/1 é", FeatureNames=["visits", "at"])
    assert [one["FeatureName"] for one in some["Record"]] == ["at", "visits"]
    records.delete_record(FeatureGroupName=group, RecordIdentifierValueAsString="c/1 é", EventTime="2024-05-01T11:00:00.000Z")
    assert "Record" not in records.get_record(FeatureGroupName=group, RecordIdentifierValueAsString="c/1 é")
    with pytest.raises(ClientError) as raised:
        records.delete_record(
            FeatureGroupName=group, RecordIdentifierValueAsString="c/1 é", EventTime="2024-05-01T10:30:00Z", DeletionMode="HardDelete")
    assert code(raised) == ("ValidationError", 400)
    records.delete_record(
        FeatureGroupName=group, RecordIdentifierValueAsString="c/1 é", EventTime="2024-05-01T12:00:00Z", DeletionMode="HardDelete")
    records.put_record(FeatureGroupName=group, Record=whole)
    assert records.get_record(FeatureGroupName=group, RecordIdentifierValueAsString="c/1 é")["Record"] == whole


def test_what_does_not_fit_is_refused_in_the_services_words(records, sagemaker, group):
    fit = record(customer="a", at="2024-05-01T10:00:00Z", visits="3")
    for wrong in (record(customer="a", visits="1"), record(customer="a", at="soon"), fit + record(other="1"), record(customer="a", at="2024-05-01T10:00:00Z", visits="x")):
        with pytest.raises(ClientError) as raised:
            records.put_record(FeatureGroupName=group, Record=wrong)
        assert code(raised) == ("ValidationError", 400)
    assert "Record" not in records.get_record(FeatureGroupName=group, RecordIdentifierValueAsString="a")
    records.put_record(FeatureGroupName=group, Record=fit)
    assert records.get_record(FeatureGroupName=group, RecordIdentifierValueAsString="a")["Record"] == fit
    with pytest.raises(ClientError) as raised:
        records.get_record(FeatureGroupName="no-such-group", RecordIdentifierValueAsString="a")
    assert code(raised) == ("ResourceNotFound", 404)
    batch = records.batch_get_record(Identifiers=[
        {"FeatureGroupName": group, "RecordIdentifiersValueAsString": ["a", "b"], "FeatureNames": ["visits"]},
        {"FeatureGroupName": "no-such-group", "RecordIdentifiersValueAsString": ["a"]},
    ])
    assert [one["Record"] for one in batch["Records"]] == [record(visits="3")]
    assert [one["ErrorCode"] for one in batch["Errors"]] == ["ResourceNotFound"] and batch["UnprocessedIdentifiers"] == []
    for refused in (
        {"OfflineStoreConfig": {"S3StorageConfig": {"S3Uri": "s3://conformance/offline"}}},
        {"OnlineStoreConfig": {"EnableOnlineStore": True, "SecurityConfig": {"KmsKeyId": "alias/x"}}},
        {"OnlineStoreConfig": {"EnableOnlineStore": False}},
        {"RecordIdentifierFeatureName": "missing"},
    ):
        sound = {
            "FeatureGroupName": f"{group}-2", "RecordIdentifierFeatureName": "id", "EventTimeFeatureName": "at",
            "FeatureDefinitions": definitions(id="String", at="String"), "OnlineStoreConfig": {"EnableOnlineStore": True},
        }
        with pytest.raises(ClientError) as raised:
            sagemaker.create_feature_group(**sound | refused)
        assert code(raised) == ("ValidationException", 400), refused


def test_a_group_is_described_listed_extended_tagged_and_deleted(engine, records, sagemaker, group):
    """Proves: SM-7, SM-10, SM-13"""
    told = sagemaker.describe_feature_group(FeatureGroupName=group)
    assert told["FeatureGroupStatus"] == "Created" and told["OnlineStoreConfig"] == {"EnableOnlineStore": True, "StorageType": "Standard"}
    assert "OfflineStoreConfig" not in told and "LastUpdateStatus" not in told
    with pytest.raises(ClientError) as raised:
        sagemaker.create_feature_group(
            FeatureGroupName=group.upper(), RecordIdentifierFeatureName="id", EventTimeFeatureName="at",
            FeatureDefinitions=definitions(id="String", at="String"), OnlineStoreConfig={"EnableOnlineStore": True})
    assert code(raised) == ("ResourceInUse", 400)
    sagemaker.update_feature_group(
        FeatureGroupName=group, FeatureAdditions=definitions(city="String"),
        OnlineStoreConfig={"TtlDuration": {"Unit": "Hours", "Value": 1}})
    told = sagemaker.describe_feature_group(FeatureGroupName=told["FeatureGroupArn"])
    assert told["FeatureDefinitions"][-1] == {"FeatureName": "city", "FeatureType": "String"}
    assert told["LastUpdateStatus"] == {"Status": "Successful"}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for at in (now, "2024-05-01T10:00:00Z"):
        records.put_record(FeatureGroupName=group, Record=record(customer=at, at=at, city="Bern"))
    asked = {"FeatureGroupName": group, "ExpirationTimeResponse": "Enabled"}
    assert records.get_record(RecordIdentifierValueAsString=now, **asked)["ExpiresAt"] > now
    assert "Record" not in records.get_record(RecordIdentifierValueAsString="2024-05-01T10:00:00Z", **asked)
    sagemaker.update_feature_metadata(
        FeatureGroupName=group, FeatureName="city", Description="where", ParameterAdditions=[{"Key": "source", "Value": "crm"}])
    told = sagemaker.describe_feature_metadata(FeatureGroupName=group, FeatureName="city")
    assert (told["Description"], told["Parameters"]) == ("where", [{"Key": "source", "Value": "crm"}])
    sagemaker.add_tags(ResourceArn=told["FeatureGroupArn"], Tags=[{"Key": "stage", "Value": "test"}])
    tags = sagemaker.list_tags(ResourceArn=told["FeatureGroupArn"])["Tags"]
    assert tags == [{"Key": "stage", "Value": "test"}, {"Key": "team", "Value": "ml"}]
    listed = sagemaker.list_feature_groups(NameContains=group, FeatureGroupStatusEquals="Created")["FeatureGroupSummaries"]
    assert [one["FeatureGroupName"] for one in listed] == [group]
    said = subprocess.run(
        [AWS, "sagemaker-featurestore-runtime", "get-record", "--feature-group-name", group, "--record-identifier-value-as-string", now,
         "--feature-names", "city"], env=engine.environment(), check=True, capture_output=True, text=True)
    assert json.loads(said.stdout) == {"Record": record(city="Bern")}
    sagemaker.delete_feature_group(FeatureGroupName=group)
    with pytest.raises(ClientError) as raised:
        sagemaker.describe_feature_group(FeatureGroupName=group)
    assert code(raised) == ("ResourceNotFound", 400)


def test_rights_and_tags_of_groups_decide_and_the_trail_keeps_no_values(engine, records, group):
    """Proves: IAM-7, IAM-16"""
    iam = engine.client("iam")
    iam.create_user(UserName=group)
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:feature-group/{group}"
    may = {"Effect": "Allow", "Action": "sagemaker:PutRecord", "Resource": "*", "Condition": {"StringEquals": {"aws:ResourceTag/team": "ml"}}}
    iam.put_user_policy(UserName=group, PolicyName="own", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [may]}))
    key = iam.create_access_key(UserName=group)["AccessKey"]
    mine = engine.client("sagemaker-featurestore-runtime", key=key["AccessKeyId"], secret=key["SecretAccessKey"])
    secret = "canary-4711"
    mine.put_record(FeatureGroupName=group, Record=record(customer="a", at="2024-05-01T10:00:00Z", spent="1.0"))
    with pytest.raises(ClientError) as raised:
        mine.get_record(FeatureGroupName=group, RecordIdentifierValueAsString="a")
    assert code(raised) == ("AccessDeniedException", 403) and f"sagemaker:GetRecord on resource: {arn}" in str(raised.value)
    engine.client("sagemaker").delete_tags(ResourceArn=arn, TagKeys=["team"])
    with pytest.raises(ClientError) as raised:
        mine.put_record(FeatureGroupName=group, Record=record(customer=secret, at="2024-05-01T10:00:00Z"))
    assert code(raised) == ("AccessDeniedException", 403)
    records.put_record(FeatureGroupName=group, Record=record(customer=secret, at="2024-05-01T10:00:00Z"))
    files = [path for path in (engine.data / "audit").rglob("*") if path.is_file()]
    text = b"".join(path.read_bytes() for path in files)
    assert b"PutRecord" in text and secret.encode() not in text


def test_records_survive_a_restart(engine, records, group):
    whole = record(customer="a", at="2024-05-01T10:00:00Z", visits="3")
    records.put_record(FeatureGroupName=group, Record=whole)
    engine.stop()
    engine.start()
    assert records.get_record(FeatureGroupName=group, RecordIdentifierValueAsString="a")["Record"] == whole
