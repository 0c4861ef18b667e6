"""The key store: keys, aliases, policies, encryption, as boto3 and the aws CLI use them."""
import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.harness.engine import ACCOUNT, REGION

AWS = str(Path(sys.executable).parent / "aws")


@pytest.fixture(scope="module")
def kms(engine):
    return engine.client("kms")


def code(raised):
    return raised.value.response["Error"]["Code"]


def test_a_key_encrypts_for_those_who_know_its_context(engine, kms, name):
    made = kms.create_key(Description="d", Tags=[{"TagKey": "team", "TagValue": "ml"}])["KeyMetadata"]
    assert made["Arn"] == f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{made['KeyId']}" and made["KeyState"] == "Enabled"
    assert kms.describe_key(KeyId=made["Arn"])["KeyMetadata"] == made
    assert made["KeyId"] in [key["KeyId"] for page in kms.get_paginator("list_keys").paginate(Limit=1) for key in page["Keys"]]
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=made["KeyId"])
    said = {"EncryptionContext": {"job": name}}
    blob = kms.encrypt(KeyId=f"alias/{name}", Plaintext=b"\x00secret", **said)["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob, **said)["Plaintext"] == b"\x00secret"
    with pytest.raises(ClientError) as raised:
        kms.decrypt(CiphertextBlob=blob)
    assert code(raised) == "InvalidCiphertextException"
    data = kms.generate_data_key(KeyId=made["KeyId"], KeySpec="AES_256", **said)
    assert len(data["Plaintext"]) == 32 and kms.decrypt(CiphertextBlob=data["CiphertextBlob"], **said)["Plaintext"] == data["Plaintext"]
    assert "Plaintext" not in kms.generate_data_key_without_plaintext(KeyId=made["KeyId"], NumberOfBytes=16)
    path = engine.directory / f"{name}.bin"
    path.write_bytes(blob)
    told = subprocess.run(
        [AWS, "kms", "decrypt", "--ciphertext-blob", f"fileb://{path}", "--encryption-context", f"job={name}"],
        env=engine.environment(), check=True, capture_output=True, text=True)
    assert base64.b64decode(json.loads(told.stdout)["Plaintext"]) == b"\x00secret"
    engine.stop()
    engine.start()
    assert kms.decrypt(CiphertextBlob=blob, **said)["Plaintext"] == b"\x00secret"
    assert kms.list_resource_tags(KeyId=made["KeyId"])["Tags"] == [{"TagKey": "team", "TagValue": "ml"}]
    assert [one["AliasName"] for one in kms.list_aliases(KeyId=made["KeyId"])["Aliases"]] == [f"alias/{name}"]
    kms.delete_alias(AliasName=f"alias/{name}")
    with pytest.raises(ClientError) as raised:
        kms.encrypt(KeyId=f"alias/{name}", Plaintext=b"x")
    assert code(raised) == "NotFoundException"


def test_keys_are_disabled_and_deleted_after_a_wait(kms):
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    kms.disable_key(KeyId=key)
    with pytest.raises(ClientError) as raised:
        kms.decrypt(CiphertextBlob=blob)
    assert code(raised) == "DisabledException"
    kms.enable_key(KeyId=key)
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"
    assert kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)["KeyState"] == "PendingDeletion"
    with pytest.raises(ClientError) as raised:
        kms.decrypt(CiphertextBlob=blob)
    assert code(raised) == "KMSInvalidStateException"
    kms.cancel_key_deletion(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"


def test_key_policies_and_iam_decide_together(engine, kms, name):
    """Proves: IAM-7, IAM-22"""
    iam = engine.client("iam")
    iam.create_user(UserName=name)
    pair = iam.create_access_key(UserName=name)["AccessKey"]
    mine = engine.client("kms", key=pair["AccessKeyId"], secret=pair["SecretAccessKey"])
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    with pytest.raises(ClientError) as raised:
        mine.encrypt(KeyId=key, Plaintext=b"x")
    assert code(raised) == "AccessDeniedException" and "kms:Encrypt on resource" in str(raised.value)
    root = {"Sid": "root", "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*"}
    user = {
        "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/{name}"}, "Action": "kms:Encrypt", "Resource": "*",
        "Condition": {"StringEquals": {"kms:EncryptionContext:job": "mine"}},
    }
    document = {"Version": "2012-10-17", "Statement": [root, user]}
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(document))
    assert json.loads(kms.get_key_policy(KeyId=key)["Policy"]) == document
    assert mine.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"job": "mine"})["KeyId"].endswith(key)
    with pytest.raises(ClientError) as raised:
        mine.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"job": "yours"})
    assert code(raised) == "AccessDeniedException"
    with pytest.raises(ClientError) as raised:
        kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps({"Version": "2012-10-17", "Statement": [user]}))
    assert code(raised) == "MalformedPolicyDocumentException"


def test_neither_material_nor_plaintext_is_on_the_disk(engine, kms):
    canary = b"plain-canary-5531"
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=canary)["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == canary
    files = [path for folder in ("audit", "logs") for path in (engine.data / folder).rglob("*") if path.is_file()]
    files += list(engine.data.glob("state.db*"))
    text = b"".join(path.read_bytes() for path in files)
    assert key.encode() in text
    for spelled in (canary, base64.b64encode(canary), base64.b64encode(canary)[:-4]):
        assert spelled not in text
    assert (engine.data / "master.key").stat().st_mode & 0o777 == 0o600
