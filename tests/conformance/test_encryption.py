"""Encryption at rest: S3 with keys of the key store, and jobs whose inputs and outputs lie encrypted; unmodified boto3."""
import base64
import io
import json
import os
import tarfile
import urllib.request

import pytest
from botocore.exceptions import ClientError

from tests.conformance.test_processing import BASE, ended, source, start, target
from tests.harness.engine import ACCOUNT, REGION, execution_statements
from tests.harness.jobs import eventually, finished, training_request, with_program

MARKER = b"not to be found on the disk: 5d1c0f"
OWN = {"ServerSideEncryption": "aws:kms"}


@pytest.fixture(scope="module")
def kms(engine):
    return engine.client("kms")


@pytest.fixture
def key(kms):
    return kms.create_key()["KeyMetadata"]["Arn"]


@pytest.fixture(scope="module")
def s3(engine):
    return engine.client("s3")


@pytest.fixture
def vault(s3, name):
    """A bucket of the test's own."""
    s3.create_bucket(Bucket=name)
    return name


def refused(code, call, **arguments):
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    assert raised.value.response["Error"]["Code"] == code, raised.value
    return str(raised.value)


def marked(engine):
    """Files that hold the marker, among everything that the object store and the records have on the disk."""
    places = [engine.data / "buckets", engine.data / "escape", engine.data / "work"]
    files = [path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    found = []
    for path in [*files, *engine.data.glob("state.db*")]:
        try:
            if MARKER in path.read_bytes():
                found.append(path)
        except FileNotFoundError:
            pass
    return found


def read(s3, bucket, name, **more):
    return s3.get_object(Bucket=bucket, Key=name, **more)["Body"].read()


def test_objects_lie_encrypted_and_come_back_whole_and_in_ranges(engine, s3, vault, key):
    """Proves: CC-36
    """
    body = MARKER * 30_000
    plain = s3.put_object(Bucket=vault, Key="plain", Body=body)
    assert [path.name for path in marked(engine)] == ["plain"], "control: what is not encrypted is found"
    s3.delete_object(Bucket=vault, Key="plain")
    context = base64.b64encode(b'{"team":"ml"}').decode()
    put = s3.put_object(Bucket=vault, Key="a/b", Body=body, SSEKMSKeyId=key, SSEKMSEncryptionContext=context, BucketKeyEnabled=True, **OWN)
    assert (put["ServerSideEncryption"], put["SSEKMSKeyId"], put["BucketKeyEnabled"]) == ("aws:kms", key, True)
    assert put["SSEKMSEncryptionContext"] == context
    assert put["ETag"] != plain["ETag"], "an ETag tells nothing of the bytes"
    got = s3.get_object(Bucket=vault, Key="a/b", ChecksumMode="ENABLED")
    assert got["Body"].read() == body, "and its checksum was right"
    assert (got["ServerSideEncryption"], got["SSEKMSKeyId"], got["ETag"]) == ("aws:kms", key, put["ETag"])
    head = s3.head_object(Bucket=vault, Key="a/b")
    assert (head["ContentLength"], head["SSEKMSKeyId"], head["BucketKeyEnabled"]) == (len(body), key, True)
    for first, last in [(0, 0), (65_530, 65_545), (len(body) - 5, len(body) - 1), (1, 700_000)]:
        assert read(s3, vault, "a/b", Range=f"bytes={first}-{last}") == body[first:last + 1]
    managed = s3.put_object(Bucket=vault, Key="managed", Body=body, ServerSideEncryption="AES256")
    assert managed["ServerSideEncryption"] == "AES256" and managed["ETag"] == plain["ETag"]
    assert read(s3, vault, "managed") == body
    s3.put_object(Bucket=vault, Key="empty", Body=b"", SSEKMSKeyId=key, **OWN)
    assert read(s3, vault, "empty") == b""
    assert marked(engine) == []
    engine.stop()
    engine.start()
    assert read(s3, vault, "a/b") == body and read(s3, vault, "managed") == body, "after a restart too"
    # Whoever changes the bytes on the disk is noticed.
    path = engine.data / "buckets" / vault / "managed"
    times, mode = path.stat(), path.stat().st_mode
    changed = bytearray(path.read_bytes())
    changed[10] ^= 1
    path.chmod(0o600)
    path.write_bytes(changed)
    path.chmod(mode)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    refused("InternalError", s3.get_object, Bucket=vault, Key="managed", Range="bytes=0-10")
    assert read(s3, vault, "managed", Range="bytes=65536-65540") == body[65536:65541], "the rest is read"


def test_uploads_in_parts_copies_and_defaults_are_encrypted(engine, s3, kms, vault, key):
    part = MARKER * 150_000
    assert len(part) >= 5 << 20
    begun = s3.create_multipart_upload(Bucket=vault, Key="big", SSEKMSKeyId=key, **OWN)
    assert begun["SSEKMSKeyId"] == key
    parts = []
    for number, piece in [(1, part), (2, part), (3, b"the end")]:
        sent = s3.upload_part(Bucket=vault, Key="big", UploadId=begun["UploadId"], PartNumber=number, Body=piece)
        assert sent["SSEKMSKeyId"] == key
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
    assert marked(engine) == [], "not even a part"
    done = s3.complete_multipart_upload(Bucket=vault, Key="big", UploadId=begun["UploadId"], MultipartUpload={"Parts": parts})
    assert done["SSEKMSKeyId"] == key and done["ETag"].endswith('-3"')
    whole = part + part + b"the end"
    assert read(s3, vault, "big") == whole
    assert read(s3, vault, "big", Range=f"bytes={len(part) - 3}-{len(part) + 3}") == whole[len(part) - 3:len(part) + 4]
    assert read(s3, vault, "big", PartNumber=3) == b"the end"

    # A copy is encrypted as its own request or bucket says, not as its source is.
    other = kms.create_key()["KeyMetadata"]["Arn"]
    copied = s3.copy_object(Bucket=vault, Key="copy", CopySource=f"{vault}/big", SSEKMSKeyId=other, **OWN)
    assert copied["SSEKMSKeyId"] == other and read(s3, vault, "copy") == whole
    s3.copy_object(Bucket=vault, Key="copy", CopySource=f"{vault}/copy", ServerSideEncryption="AES256")
    assert s3.head_object(Bucket=vault, Key="copy")["ServerSideEncryption"] == "AES256"
    assert marked(engine) == []
    s3.copy_object(Bucket=vault, Key="copy", CopySource=f"{vault}/big")
    assert "ServerSideEncryption" not in s3.head_object(Bucket=vault, Key="copy")
    assert marked(engine) != [], "control: the bucket encrypts nothing by default"
    s3.delete_object(Bucket=vault, Key="copy")

    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}, "BucketKeyEnabled": True}
    s3.put_bucket_encryption(Bucket=vault, ServerSideEncryptionConfiguration={"Rules": [rule]})
    assert s3.get_bucket_encryption(Bucket=vault)["ServerSideEncryptionConfiguration"]["Rules"] == [rule]
    put = s3.put_object(Bucket=vault, Key="default", Body=MARKER)
    assert (put["SSEKMSKeyId"], put["BucketKeyEnabled"]) == (key, True) and read(s3, vault, "default") == MARKER
    form = engine.client("s3", config={"signature_version": "s3v4"}).generate_presigned_post(Bucket=vault, Key="form")
    parts = "".join(f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in form["fields"].items())
    body = parts.encode() + b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + MARKER + b"\r\n--x--\r\n"
    posted = urllib.request.Request(form["url"], body, {"Content-Type": "multipart/form-data; boundary=x"})
    assert urllib.request.urlopen(posted).status == 204
    assert s3.head_object(Bucket=vault, Key="form")["SSEKMSKeyId"] == key and read(s3, vault, "form") == MARKER
    assert marked(engine) == []
    wrong = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256", "KMSMasterKeyID": key}}
    refused("InvalidArgument", s3.put_bucket_encryption, Bucket=vault, ServerSideEncryptionConfiguration={"Rules": [wrong]})
    s3.delete_bucket_encryption(Bucket=vault)
    refused("ServerSideEncryptionConfigurationNotFoundError", s3.get_bucket_encryption, Bucket=vault)
    assert "ServerSideEncryption" not in s3.put_object(Bucket=vault, Key="default", Body=b"plain again")


def test_the_key_is_asked_for_in_the_callers_name(engine, s3, kms, vault, key, name):
    """Proves: IAM-59
    """
    iam = engine.client("iam")
    iam.create_user(UserName=name)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    of_user = {"key": made["AccessKeyId"], "secret": made["SecretAccessKey"]}
    theirs = engine.client("s3", **of_user)

    def allow(*statements):
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}, *statements]}
        iam.put_user_policy(UserName=name, PolicyName="inline", PolicyDocument=json.dumps(document))

    s3.put_object(Bucket=vault, Key="secret", Body=MARKER, SSEKMSKeyId=key, **OWN)
    s3.put_object(Bucket=vault, Key="managed", Body=MARKER, ServerSideEncryption="AES256")
    allow()
    assert read(theirs, vault, "managed") == MARKER, "nobody is asked for a key of the engine's own"
    told = refused("AccessDenied", theirs.get_object, Bucket=vault, Key="secret")
    assert "kms:Decrypt" in told and key in told
    told = refused("AccessDenied", theirs.put_object, Bucket=vault, Key="new", Body=b"x", SSEKMSKeyId=key, **OWN)
    assert "kms:GenerateDataKey" in told
    refused("AccessDenied", theirs.copy_object, Bucket=vault, Key="new", CopySource=f"{vault}/secret")
    refused("AccessDenied", theirs.create_multipart_upload, Bucket=vault, Key="new", SSEKMSKeyId=key, **OWN)
    refused("403", theirs.head_object, Bucket=vault, Key="secret", ChecksumMode="ENABLED")
    assert theirs.head_object(Bucket=vault, Key="secret")["SSEKMSKeyId"] == key, "a head opens nothing"
    refused("404", s3.head_object, Bucket=vault, Key="new")

    through = {"StringEquals": {
        "kms:ViaService": f"s3.{REGION}.amazonaws.com", "kms:EncryptionContext:aws:s3:arn": f"arn:aws:s3:::{vault}/secret"}}
    allow({"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": key, "Condition": through})
    assert read(theirs, vault, "secret") == MARKER, "control: with the right to the key"
    theirs.put_object(Bucket=vault, Key="secret", Body=b"theirs", SSEKMSKeyId=key, **OWN)
    assert read(s3, vault, "secret") == b"theirs"
    told = refused("AccessDenied", theirs.put_object, Bucket=vault, Key="new", Body=b"x", SSEKMSKeyId=key, **OWN)
    assert "kms:GenerateDataKey" in told, "of another object"
    refused("AccessDeniedException", engine.client("kms", **of_user).generate_data_key, KeyId=key, KeySpec="AES_256")

    # The key's policy has the last word.
    policy = json.loads(kms.get_key_policy(KeyId=key)["Policy"])
    user = f"arn:aws:iam::{ACCOUNT}:user/{name}"
    deny = {"Effect": "Deny", "Principal": {"AWS": user}, "Action": "kms:Decrypt", "Resource": "*"}
    kms.put_key_policy(KeyId=key, Policy=json.dumps(policy | {"Statement": [*policy["Statement"], deny]}))
    assert "explicit deny" in refused("AccessDenied", theirs.get_object, Bucket=vault, Key="secret")
    assert read(s3, vault, "secret") == b"theirs"
    iam.delete_access_key(UserName=name, AccessKeyId=made["AccessKeyId"])
    iam.delete_user_policy(UserName=name, PolicyName="inline")
    iam.delete_user(UserName=name)


def test_keys_that_cannot_be_used_are_told_in_s3s_words(engine, s3, kms, vault, key, name):
    s3.put_object(Bucket=vault, Key="k", Body=MARKER, SSEKMSKeyId=key, **OWN)
    kms.disable_key(KeyId=key)
    assert "is disabled" in refused("KMS.DisabledException", s3.get_object, Bucket=vault, Key="k")
    refused("KMS.DisabledException", s3.put_object, Bucket=vault, Key="new", Body=b"x", SSEKMSKeyId=key, **OWN)
    kms.enable_key(KeyId=key)
    assert read(s3, vault, "k") == MARKER, "control"
    kms.schedule_key_deletion(KeyId=key)
    assert "pending deletion" in refused("KMS.KMSInvalidStateException", s3.get_object, Bucket=vault, Key="k")
    kms.cancel_key_deletion(KeyId=key)
    kms.enable_key(KeyId=key)
    assert read(s3, vault, "k") == MARKER
    refused("KMS.NotFoundException", s3.put_object, Bucket=vault, Key="x", Body=b"", SSEKMSKeyId=f"alias/{name}", **OWN)
    kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key)
    assert s3.put_object(Bucket=vault, Key="x", Body=b"", SSEKMSKeyId=f"alias/{name}", **OWN)["SSEKMSKeyId"] == key
    refused("InvalidArgument", s3.put_object, Bucket=vault, Key="x", Body=b"", SSEKMSKeyId=key, ServerSideEncryption="AES256")
    refused("InvalidArgument", s3.put_object, Bucket=vault, Key="x", Body=b"", SSEKMSEncryptionContext="e30x", **OWN)
    refused("NotImplemented", s3.put_object, Bucket=vault, Key="x", Body=b"", ServerSideEncryption="aws:kms:dsse")

    # Without a key it is the account's own for S3, which nobody changes.
    own = s3.put_object(Bucket=vault, Key="own", Body=MARKER, **OWN)["SSEKMSKeyId"]
    assert read(s3, vault, "own") == MARKER and own != key
    shown = kms.describe_key(KeyId="alias/aws/s3")["KeyMetadata"]
    assert shown["Arn"] == own and shown["KeyManager"] == "AWS"
    refused("AccessDeniedException", kms.disable_key, KeyId=own)
    refused("AccessDeniedException", kms.decrypt, CiphertextBlob=b"\x01\x00", KeyId=own)
    assert s3.put_object(Bucket=vault, Key="again", Body=b"", **OWN)["SSEKMSKeyId"] == own


def role_with(engine, name, bucket, key):
    """An execution role that may use the key through S3."""
    use = {"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": key,
           "Condition": {"StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}}}
    return engine.create_role(name, [*execution_statements(bucket), use])


READ = """
set -e
cd /opt/ml/input/data
cat file/rows > /opt/ml/model/file; cat fast/rows > /opt/ml/model/fast; cat pipe_0 > /opt/ml/model/pipe
cat file/rows > /opt/ml/checkpoints/step
"""


def channel(name, uri, **members):
    place = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": place}} | members


def test_a_training_job_reads_and_writes_encrypted_objects(engine, s3, sagemaker, small, vault, key, name):
    """Proves: CC-36
    """
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(Bucket=vault, ServerSideEncryptionConfiguration={"Rules": [rule]})
    s3.put_object(Bucket=vault, Key="in/rows", Body=MARKER)
    uri = f"s3://{vault}/in/"

    def request(job, role, **members):
        made = training_request(job, small, role, vault, uri, **members)
        made["InputDataConfig"] = [
            channel("file", uri), channel("fast", uri, InputMode="FastFile"), channel("pipe", uri, InputMode="Pipe")]
        made["CheckpointConfig"] = {"S3Uri": f"s3://{vault}/checkpoints/{job}"}
        return with_program(engine, vault, made, READ, interpreter="/bin/sh")

    # A key of the job's own, which is not the bucket's.
    output = engine.client("kms").create_key()["KeyMetadata"]["Arn"]
    told = request(f"{name}-gone", role_with(engine, f"{name}-gone", vault, [key, output]))
    told["OutputDataConfig"] = told["OutputDataConfig"] | {"KmsKeyId": "alias/nobody"}
    assert "is not found" in refused("ValidationException", sagemaker.create_training_job, **told)

    allowed = request(name, role_with(engine, name, vault, [key, output]))
    allowed["OutputDataConfig"] = allowed["OutputDataConfig"] | {"KmsKeyId": output}
    sagemaker.create_training_job(**allowed)
    denied = request(f"{name}-no", engine.create_role(f"{name}-no", execution_statements(vault)))
    sagemaker.create_training_job(**denied)
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    assert done["OutputDataConfig"]["KmsKeyId"] == output
    artifact = f"jobs/{name}/output/model.tar.gz"
    assert s3.head_object(Bucket=vault, Key=artifact)["SSEKMSKeyId"] == output
    assert s3.head_object(Bucket=vault, Key=f"checkpoints/{name}/step")["SSEKMSKeyId"] == output
    with tarfile.open(fileobj=io.BytesIO(read(s3, vault, artifact))) as archive:
        for member in ("file", "fast", "pipe"):
            assert archive.extractfile(member).read() == MARKER, member
    done = finished(sagemaker, f"{name}-no")
    assert done["TrainingJobStatus"] == "Failed" and "kms:Decrypt" in done["FailureReason"], done
    eventually(lambda: marked(engine) == [], 30)


def test_processing_and_transform_jobs_read_and_write_encrypted_objects(engine, s3, sagemaker, small, vault, key, name):
    """Proves: CC-36
    """
    s3.put_object(Bucket=vault, Key=f"{name}/in/rows", Body=MARKER, SSEKMSKeyId=key, **OWN)
    role = role_with(engine, name, vault, key)
    start(engine, vault, name, small, role, f"cat {BASE}/input/rows/rows > {BASE}/out/copy",
          [source("rows", f"s3://{vault}/{name}/in/", "input/rows")], [],
          ProcessingOutputConfig={"Outputs": [target("out", f"s3://{vault}/{name}/processed", "out")], "KmsKeyId": key})
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": small})
    sagemaker.create_transform_job(
        TransformJobName=name, ModelName=name, TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{vault}/{name}/in/"}}},
        TransformOutput={"S3OutputPath": f"s3://{vault}/{name}/out", "KmsKeyId": key})
    done = ended(sagemaker, name)
    assert done["ProcessingJobStatus"] == "Completed", done
    assert done["ProcessingOutputConfig"]["KmsKeyId"] == key
    assert read(s3, vault, f"{name}/processed/copy") == MARKER
    assert s3.head_object(Bucket=vault, Key=f"{name}/processed/copy")["SSEKMSKeyId"] == key

    def transformed():
        job = sagemaker.describe_transform_job(TransformJobName=name)
        return job if job["TransformJobStatus"] not in ("InProgress", "Stopping") else None

    done = eventually(transformed, 120)
    assert done["TransformJobStatus"] == "Completed", done
    assert done["TransformOutput"]["KmsKeyId"] == key
    assert s3.head_object(Bucket=vault, Key=f"{name}/out/rows.out")["SSEKMSKeyId"] == key
    eventually(lambda: marked(engine) == [], 30)


def test_what_cannot_be_encrypted_is_refused(sagemaker, small, role, key, name):
    """Volumes of endpoints and notebook instances are directories of the host: none takes a key."""
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": small})
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    told = refused("ValidationException", sagemaker.create_endpoint_config, EndpointConfigName=name, ProductionVariants=[variant], KmsKeyId=key)
    assert "KmsKeyId" in told
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
