"""Storage volumes that are encrypted at rest (VolumeKmsKeyId), read as they lie on the disk; unmodified boto3."""
import io
import os
import tarfile
from pathlib import Path

from tests.conformance.test_encryption import MARKER, OWN, channel, key, kms, marked, read, refused, s3, vault  # noqa: F401
from tests.conformance.test_processing import BASE, ended, source, start, target
from tests.harness.engine import REGION, execution_statements
from tests.harness.jobs import eventually, finished, training_request, with_program

# Its input, what it makes of it, and how much it may: with the volume's size as an argument of one GB.
PROGRAM = """
set -ex
b=/bin/busybox
cat /opt/ml/input/data/file/rows > /opt/ml/model/seen
cat /opt/ml/input/data/fast/rows > /opt/ml/output/data/seen
$b mkdir /opt/ml/model/folder-of-{marker}
$b ln /opt/ml/model/seen /opt/ml/model/link
[ "$($b stat -c %u:%a /opt/ml/model)" = 0:777 ]
[ "$($b id -u)" = 0 ]
limit=no
if $b fallocate -l 400000000 /opt/ml/output/some && ! $b fallocate -l 800000000 /opt/ml/output/more; then limit=yes; fi
$b rm -f /opt/ml/output/some /opt/ml/output/more
echo $limit > /opt/ml/model/limit
$b sync
cat /opt/ml/input/data/file/rows > /opt/ml/checkpoints/ready
if [ -n "{wait}" ]; then trap 'exit 0' TERM; while :; do $b sleep 1; done; fi
"""


def lies_on(path):
    """Whether the marker is in a file as it lies on the disk, holes left out."""
    with open(path, "rb") as file:
        at, end = 0, os.fstat(file.fileno()).st_size
        tail = b""
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return False
            file.seek(at)
            piece = file.read(1 << 20)
            if not piece:
                return False
            if MARKER in tail + piece:
                return True
            tail, at = piece[-len(MARKER):], at + len(piece)
    return False


def images(engine):
    return list((engine.data / "volumes").glob("*.img"))


def known(engine):
    """Mounts and loop devices of the engine's volumes."""
    own = str(engine.data)
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{own}/volumes/" in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            mounts += [line for line in [backing.read_text()] if own in line]
        except OSError:
            pass
    return mounts


def said(engine, job):
    """The container's output."""
    events = engine.client("logs").filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=job)["events"]
    return [event["message"] for event in events]


def gone(engine):
    """No image, mount, device or key is left. The kernel lets go of a device a moment after its last user."""
    eventually(lambda: not known(engine) and not list((engine.data / "volumes").iterdir()), 60)


def role_with(engine, name, bucket, key, grant=True):  # noqa: F811
    """An execution role that may use the key through S3, and give SageMaker a grant of it."""
    use = {"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": key,
           "Condition": {"StringEquals": {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}}}
    allow = {"Effect": "Allow", "Action": "kms:CreateGrant", "Resource": key, "Condition": {
        "StringEquals": {"kms:ViaService": f"sagemaker.{REGION}.amazonaws.com"}, "Bool": {"kms:GrantIsForAWSResource": "true"}}}
    return engine.create_role(name, [*execution_statements(bucket), use, *([allow] if grant else [])])


def request(engine, image, role, bucket, job, volume_key=None, wait=""):
    """A job that reads what lies encrypted, or does not, below `in/`."""
    uri = f"s3://{bucket}/in/"
    made = training_request(job, image, role, bucket, uri)
    made["InputDataConfig"] = [channel("file", uri), channel("fast", uri, InputMode="FastFile")]
    made["CheckpointConfig"] = {"S3Uri": f"s3://{bucket}/checkpoints/{job}"}
    if volume_key:
        made["ResourceConfig"] = made["ResourceConfig"] | {"VolumeKmsKeyId": volume_key}
    program = PROGRAM.format(marker=MARKER.decode()[:20].replace(" ", "-"), wait=wait)
    return with_program(engine, bucket, made, program, interpreter="/bin/sh")


def test_nothing_of_a_job_lies_in_the_clear(engine, s3, sagemaker, small, vault, key, name):  # noqa: F811
    """The control is the same job without the key, whose files hold what it was given.

    Proves: CC-36
    """
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(Bucket=vault, ServerSideEncryptionConfiguration={"Rules": [rule]})
    s3.put_object(Bucket=vault, Key="in/rows", Body=MARKER)
    role = role_with(engine, name, vault, key)
    ready = {}

    def wait_until_written(job):
        described = sagemaker.describe_training_job(TrainingJobName=job)
        assert described["TrainingJobStatus"] == "InProgress", f"{described.get('FailureReason')} {said(engine, job)[-6:]}"
        listed = s3.list_objects_v2(Bucket=vault, Prefix=f"checkpoints/{job}/")
        ready[job] = listed.get("KeyCount", 0) > 0
        return ready[job]

    sagemaker.create_training_job(**request(engine, small, role, vault, name, key, wait="yes"))
    eventually(lambda: wait_until_written(name), 120)
    described = sagemaker.describe_training_job(TrainingJobName=name)
    assert described["ResourceConfig"]["VolumeKmsKeyId"] == key
    [image] = images(engine)
    os.sync()
    assert image.stat().st_blocks * 512 > 1 << 16, "control: there is something on it"
    assert not lies_on(image)
    assert marked(engine) == [], "neither is it anywhere else"
    assert known(engine)

    plain = f"{name}-plain"
    sagemaker.create_training_job(**request(engine, small, role, vault, plain, wait="yes"))
    eventually(lambda: wait_until_written(plain), 120)
    assert {path.name for path in marked(engine)} >= {"seen", "rows", "ready"}, "control: a job without the key"
    for job in (name, plain):
        sagemaker.stop_training_job(TrainingJobName=job)
    for job in (name, plain):
        assert finished(sagemaker, job)["TrainingJobStatus"] == "Stopped"
        with tarfile.open(fileobj=io.BytesIO(read(s3, vault, f"jobs/{job}/output/model.tar.gz"))) as archive:
            assert archive.extractfile("seen").read() == MARKER
            limit = archive.extractfile("limit").read()
        assert limit == (b"yes\n" if job == name else b"no\n"), "the size is a limit where there is a volume"
        with tarfile.open(fileobj=io.BytesIO(read(s3, vault, f"jobs/{job}/output/output.tar.gz"))) as archive:
            assert archive.extractfile("seen").read() == MARKER
    gone(engine)
    eventually(lambda: marked(engine) == [], 30)


def test_a_role_that_may_not_grant_the_key_gets_no_volume(engine, s3, kms, sagemaker, small, vault, key, name):  # noqa: F811
    """Proves: CC-36
    """
    s3.put_object(Bucket=vault, Key="in/rows", Body=b"1")
    denied = role_with(engine, f"{name}-no", vault, key, grant=False)
    sagemaker.create_training_job(**request(engine, small, denied, vault, f"{name}-no", key))
    done = finished(sagemaker, f"{name}-no")
    assert done["TrainingJobStatus"] == "Failed", done
    assert done["FailureReason"].startswith("ClientError") and "kms:CreateGrant" in done["FailureReason"], done
    gone(engine)
    role = role_with(engine, name, vault, key)
    sagemaker.create_training_job(**request(engine, small, role, vault, name, key))
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    # What would fail at the start is told at the creation.
    told = request(engine, small, role, vault, f"{name}-gone", f"alias/{name}")
    assert "is not found" in refused("ValidationException", sagemaker.create_training_job, **told)
    kms.disable_key(KeyId=key)
    told = request(engine, small, role, vault, f"{name}-off", key)
    assert "is disabled" in refused("ValidationException", sagemaker.create_training_job, **told)
    told["ResourceConfig"] = told["ResourceConfig"] | {"InstanceType": "ml.r5d.large"}
    assert "VolumeKmsKeyId" in refused("ValidationException", sagemaker.create_training_job, **told)
    gone(engine)


def test_a_processing_job_keeps_its_files_on_an_encrypted_volume(engine, s3, sagemaker, small, vault, key, name):  # noqa: F811
    """An input that lies encrypted, one that does not, and one in the other's directory.

    Proves: CC-36
    """
    s3.put_object(Bucket=vault, Key="sealed/rows", Body=MARKER, SSEKMSKeyId=key, **OWN)
    s3.put_object(Bucket=vault, Key="plain/rows", Body=b"in the clear")
    role = role_with(engine, name, vault, key)
    cluster = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1, "VolumeKmsKeyId": key}
    program = f"cat {BASE}/sealed/rows {BASE}/sealed/inner/rows {BASE}/plain/rows > {BASE}/out/all"
    start(engine, vault, name, small, role, program, [
        source("sealed", f"s3://{vault}/sealed/", "sealed"), source("inner", f"s3://{vault}/plain/", "sealed/inner"),
        source("plain", f"s3://{vault}/plain/", "plain")], [],
        ProcessingResources={"ClusterConfig": cluster},
        ProcessingOutputConfig={"Outputs": [target("out", f"s3://{vault}/processed", "out")], "KmsKeyId": key})
    done = ended(sagemaker, name)
    assert done["ProcessingJobStatus"] == "Completed", done
    assert done["ProcessingResources"]["ClusterConfig"] == cluster
    assert read(s3, vault, "processed/all") == MARKER + b"in the clear" * 2
    gone(engine)


def test_a_transform_job_keeps_its_files_on_an_encrypted_volume(engine, s3, sagemaker, small, vault, key, name):  # noqa: F811
    """Model and input lie encrypted. A role that may not decrypt them is the control, and fails clearly.

    Proves: CC-36
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as packed:
        member = tarfile.TarInfo("weights")
        member.size = len(MARKER)
        packed.addfile(member, io.BytesIO(MARKER))
    s3.put_object(Bucket=vault, Key="model.tar.gz", Body=archive.getvalue(), SSEKMSKeyId=key, **OWN)
    s3.put_object(Bucket=vault, Key="in/rows", Body=MARKER, SSEKMSKeyId=key, **OWN)
    role = role_with(engine, name, vault, key)
    container = {"Image": small, "ModelDataUrl": f"s3://{vault}/model.tar.gz"}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
    told = refused(
        "ValidationException", sagemaker.create_model, ModelName=f"{name}-no", PrimaryContainer=container,
        ExecutionRoleArn=engine.create_role(f"{name}-no", execution_statements(vault)))
    assert "Could not access model data" in told
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeKmsKeyId": key}
    sagemaker.create_transform_job(
        TransformJobName=name, ModelName=name, TransformResources=resources,
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{vault}/in/"}}},
        TransformOutput={"S3OutputPath": f"s3://{vault}/out", "KmsKeyId": key})

    def transformed():
        job = sagemaker.describe_transform_job(TransformJobName=name)
        return job if job["TransformJobStatus"] not in ("InProgress", "Stopping") else None

    done = eventually(transformed, 120)
    assert done["TransformJobStatus"] == "Completed", done
    assert done["TransformResources"] == resources
    assert read(s3, vault, "out/rows.out")
    gone(engine)
