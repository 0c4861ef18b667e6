"""Channels in Pipe and FastFile mode: boto3 against the real engine, shell scripts in real containers that read them."""
import gzip
import io
import json
import struct
import tarfile

import pytest
from botocore.exceptions import ClientError

from tests.conformance.test_vpc_jobs import SM_64, Network
from tests.harness.engine import execution_statements
from tests.harness.jobs import P6, eventually, finished, training_request, with_program

MAGIC = 0xCED7230A


def request_for(engine, bucket, name, image, role, uri, script, mode, **channel):
    """A job whose channel `train` has this input mode, and which runs a shell script."""
    request = training_request(name, image, role, bucket, uri, HyperParameters={})
    given = request["InputDataConfig"][0]
    given["DataSource"]["S3DataSource"] |= channel.pop("source", {})
    given |= {"InputMode": mode} | channel
    return with_program(engine, bucket, request, script, "/bin/sh")


def model(engine, sagemaker, bucket, name):
    """The files that a completed job left, by name."""
    done = finished(sagemaker, name)
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    body = engine.client("s3").get_object(Bucket=bucket, Key=f"jobs/{name}/output/model.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return {one.name.removeprefix("./"): archive.extractfile(one).read() for one in archive if one.isfile()}


def records(stream):
    """What RecordIO's frames hold; the parts of a record are joined by the mark, as MXNet's reader does it."""
    found, at = [], 0
    while at < len(stream):
        magic, word = struct.unpack_from("<II", stream, at)
        assert magic == MAGIC
        flag, length = word >> 29, word & 0x1FFFFFFF
        part = stream[at + 8 : at + 8 + length]
        if flag in (0, 1):
            found.append(part)
        else:
            found[-1] += struct.pack("<I", MAGIC) + part
        at += 8 + (length + 3) // 4 * 4
    return found


@pytest.fixture(scope="module")
def parts(engine, bucket):
    """Eight objects of a letter and a number each."""
    for number in range(8):
        engine.client("s3").put_object(Bucket=bucket, Key=f"modes/parts/{number}", Body=f"{'abcdefgh'[number]}{number};".encode())
    return f"s3://{bucket}/modes/parts/"


WHOLE = b"a0;b1;c2;d3;e4;f5;g6;h7;"
TWO_EPOCHS = "cd /opt/ml/input/data; cat train_0 > /opt/ml/model/0; cat train_1 > /opt/ml/model/1"


def test_a_pipe_carries_the_objects_of_an_isolated_job_once_in_each_epoch(engine, sagemaker, small_user, role, bucket, parts, name):
    """The container's user is not root, and the second epoch is left early.
    Proves: CC-16, CC-18, CC-22, CC-25, CC-29
    """
    script = (
        "cd /opt/ml/input/data; set -e; echo *; test -p train_0; cat train_0 > /opt/ml/model/0; cat /opt/ml/input/config/inputdataconfig.json > /opt/ml/model/config;"
        "busybox head -c 5 train_1 > /opt/ml/model/1; until test -p train_2; do sleep 0.05; done; cat train_2 > /opt/ml/model/2"
    ).replace("busybox", "/bin/busybox").replace("test -p", "/bin/busybox test -p")
    request = request_for(engine, bucket, name, small_user, role, parts, script, "Pipe")
    sagemaker.create_training_job(**request)
    left = model(engine, sagemaker, bucket, name)
    assert (left["0"], left["1"], left["2"]) == (WHOLE, WHOLE[:5], WHOLE)
    config = json.loads(left["config"])
    assert config["train"] == {"TrainingInputMode": "Pipe", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None", "ContentType": "text/csv"}
    assert config["code"]["TrainingInputMode"] == "File"
    shown = sagemaker.describe_training_job(TrainingJobName=name)
    assert shown["InputDataConfig"] == request["InputDataConfig"]
    assert shown["EnableNetworkIsolation"] is True


def test_pipes_are_shuffled_by_the_seed_anew_in_each_epoch_and_dealt_to_the_instances(engine, sagemaker, small, role, bucket, parts, name):
    """
    Proves: CC-25, CC-28
    """
    def run(name, seed):
        script = "cd /opt/ml/input/data; host=$(cat /etc/hostname); for n in 0 1 2; do cat train_$n > /opt/ml/model/$host.$n; done"
        source = {"S3DataDistributionType": "ShardedByS3Key"}
        request = request_for(engine, bucket, name, small, role, parts, script, "Pipe", source=source, ShuffleConfig={"Seed": seed})
        request["ResourceConfig"]["InstanceCount"] = 2
        sagemaker.create_training_job(**request)
        return model(engine, sagemaker, bucket, name)

    one, again = run(name, 5), run(f"{name}-again", 5)
    assert one == again
    orders = []
    for epoch in range(3):
        shares = [one[f"algo-{number}.{epoch}"].split(b";")[:-1] for number in (1, 2)]
        assert sorted(shares[0] + shares[1]) == WHOLE.split(b";")[:-1]
        assert [len(share) for share in shares] == [4, 4]
        orders.append(shares)
    assert orders[0] != orders[1] or orders[1] != orders[2]


def test_instances_beyond_the_number_of_objects_get_none(engine, sagemaker, small, role, bucket, parts, name):
    """
    Proves: CC-28
    """
    script = "cd /opt/ml/input/data; for one in *; do echo $one $(ls $one); done > /opt/ml/model/$(cat /etc/hostname)"
    source = {"S3DataDistributionType": "ShardedByS3Key", "S3Uri": f"{parts}4"}
    request = request_for(engine, bucket, name, small, role, parts, script, "File", source=source)
    request["ResourceConfig"]["InstanceCount"] = 3
    sagemaker.create_training_job(**request)
    left = model(engine, sagemaker, bucket, name)
    assert left == {"algo-1": b"code main\ntrain 4\n", "algo-2": b"code main\ntrain\n", "algo-3": b"code main\ntrain\n"}


def test_an_augmented_manifest_is_sent_as_recordio_and_objects_are_decompressed(engine, sagemaker, small, role, bucket, name):
    """
    Proves: CC-26, CC-27
    """
    s3 = engine.client("s3")
    # A record in the data: its mark stands at a multiple of four, where the frame is cut.
    images = [b"first image", struct.pack("<II", MAGIC, 4) + b"data", b""]
    lines = []
    for number, image in enumerate(images):
        s3.put_object(Bucket=bucket, Key=f"{name}/{number}.gz", Body=gzip.compress(image))
        lines.append(json.dumps({"label": number, "x": "left out", "image-ref": f"s3://{bucket}/{name}/{number}.gz", "text": f"no {number}"}))
    s3.put_object(Bucket=bucket, Key=f"{name}/list.jsonl", Body="\n".join(lines).encode())
    source = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["image-ref", "label", "text"]}
    request = request_for(
        engine, bucket, name, small, role, f"s3://{bucket}/{name}/list.jsonl", TWO_EPOCHS, "Pipe",
        source=source, RecordWrapperType="RecordIO", CompressionType="Gzip",
    )
    sagemaker.create_training_job(**request)
    left = model(engine, sagemaker, bucket, name)
    wanted = [part for number, image in enumerate(images) for part in (image, str(number).encode(), f"no {number}".encode())]
    assert records(left["0"]) == wanted
    assert left["1"] == left["0"]
    # The same in a mode that has no stream.
    refused = {**request, "TrainingJobName": f"{name}-file"}
    refused["InputDataConfig"] = [request["InputDataConfig"][0] | {"InputMode": "File", "CompressionType": "None", "RecordWrapperType": "None"}]
    with pytest.raises(ClientError, match="AugmentedManifestFile of channel \"train\" is only valid with input mode Pipe"):
        sagemaker.create_training_job(**refused)


def test_a_fast_file_channel_of_many_gigabytes_is_there_without_a_copy(engine, sagemaker, small, role, bucket, name):
    """A hundred keys share one object: the container sees a hundred files with one inode, and reads wherever it likes.
    Proves: CC-24, CC-29
    """
    s3, size = engine.client("s3"), 32 << 20
    body = bytearray(size)
    body[20 << 20 : (20 << 20) + 6] = b"middle"
    s3.put_object(Bucket=bucket, Key=f"{name}/data/00", Body=bytes(body))
    for number in range(1, 100):
        s3.copy_object(Bucket=bucket, Key=f"{name}/data/{number:02}", CopySource={"Bucket": bucket, "Key": f"{name}/data/00"})
    s3.put_object(Bucket=bucket, Key=f"{name}/data2", Body=b"another's")
    script = (
        "cd /opt/ml/input/data/train; out=/opt/ml/model; ls -i | sed 's/ *\\([0-9]*\\) .*/\\1/' | /bin/busybox sort | /bin/busybox uniq -c > $out/inodes;"
        "/bin/busybox stat -c %s 57 > $out/size; /bin/busybox tail -c +20971521 57 | /bin/busybox head -c 6 > $out/middle;"
        "if echo x > 57; then echo written; else echo refused; fi > $out/write; ls | grep -v '^[0-9][0-9]$' > $out/beside || true"
    )
    request = request_for(engine, bucket, name, small, role, f"s3://{bucket}/{name}/data", script, "FastFile")
    sagemaker.create_training_job(**request)
    left = model(engine, sagemaker, bucket, name)
    assert left["inodes"].split()[0] == b"100" and len(left["inodes"].splitlines()) == 1
    assert int(left["size"]) == size and left["middle"] == b"middle"
    assert left["write"].strip() == b"refused"
    assert left["beside"] == b"", "the address names a folder, not the beginning of a name"
    with pytest.raises(ClientError, match="No S3 objects found under S3 URL"):
        sagemaker.create_training_job(**{**request, "TrainingJobName": f"{name}-2", "InputDataConfig": [
            {"ChannelName": "train", "InputMode": "FastFile", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{name}/dat"}}}]})


@pytest.mark.parametrize("mode", ["File", "FastFile", "Pipe"])
def test_what_one_role_has_read_is_no_other_roles(engine, sagemaker, small, role, bucket, parts, name, mode):
    """Nothing is kept of the first job's data: the second one's role is asked for every object.
    Proves: NI-12, NI-14, CC-30
    """
    read = "cat train_0" if mode == "Pipe" else "cat train/*"
    script = f"cd /opt/ml/input/data; {read} > /opt/ml/model/seen"
    sagemaker.create_training_job(**request_for(engine, bucket, name, small, role, parts, script, mode))
    assert model(engine, sagemaker, bucket, name)["seen"] == WHOLE
    allowed = execution_statements(bucket)
    deny = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/modes/parts/4"}
    other = engine.create_role(f"{name}-role", [*allowed, deny])
    sagemaker.create_training_job(**request_for(engine, bucket, f"{name}-2", small, other, parts, script, mode))
    done = finished(sagemaker, f"{name}-2")
    assert done["TrainingJobStatus"] == "Failed"
    assert done["FailureReason"].startswith("ClientError: Data download failed:")
    assert "s3:GetObject" in done["FailureReason"]


def test_a_stopped_job_leaves_its_pipes(engine, sagemaker, small, role, bucket, parts, name):
    """The container waits in the middle of an epoch, and then for one that nobody writes.
    Proves: CC-25, CC-34
    """
    script = "exec 3< /opt/ml/input/data/train_0; read -n 3 line <&3; echo started; while true; do sleep 1; done"
    sagemaker.create_training_job(**request_for(engine, bucket, name, small, role, parts, script, "Pipe"))
    eventually(lambda: sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == "Training", timeout=60)
    sagemaker.stop_training_job(TrainingJobName=name)
    assert finished(sagemaker, name)["SecondaryStatus"] == "Stopped"
    eventually(lambda: not list((engine.data / "work").rglob("train_*")), timeout=60)


def test_in_a_vpc_pipes_are_filled_through_the_subnet(engine, sagemaker, small, bucket, parts, name):
    """With a way to S3 the bytes arrive in an isolated container; without one they do not.
    Proves: NI-18, CC-25
    """
    ec2 = engine.client("ec2")
    role = engine.create_role(f"{name}-role", [*execution_statements(bucket), {"Effect": "Allow", "Action": P6, "Resource": "*"}])
    network = Network(ec2, block="10.77.0.0/16", subnet="10.77.1.0/24")
    try:
        request = request_for(engine, bucket, name, small, role, parts, TWO_EPOCHS, "Pipe") | {"VpcConfig": network.config}
        sagemaker.create_training_job(**request)
        left = model(engine, sagemaker, bucket, name)
        assert (left["0"], left["1"]) == (WHOLE, WHOLE)
        fast = {**request, "TrainingJobName": f"{name}-fast"}
        fast["InputDataConfig"] = [request["InputDataConfig"][0] | {"InputMode": "FastFile"}]
        with pytest.raises(ClientError, match="Input mode FastFile with VpcConfig is not supported"):
            sagemaker.create_training_job(**fast)
        ec2.delete_vpc_endpoints(VpcEndpointIds=[network.endpoint])
        network.endpoint = None
        sagemaker.create_training_job(**{**request, "TrainingJobName": f"{name}-closed"})
        done = finished(sagemaker, f"{name}-closed")
        assert done["TrainingJobStatus"] == "Failed" and done["FailureReason"].startswith(SM_64)
    finally:
        network.remove()
