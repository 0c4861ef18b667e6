"""Batch transform: boto3 and the aws CLI against the real engine, with real sealed containers."""
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.exceptions import WaiterError

from tests.conformance.test_vpc_jobs import SM_64, Network
from tests.conformance.test_vpc_services import ALL, P1, presigned, statement
from tests.harness.engine import REGION, WEB, execution_statements
from tests.harness import jobs
from tests.harness.jobs import P6, eventually

GROUP = "/aws/sagemaker/TransformJobs"
# A server of the container contract, in one argument: answers each body in upper case, refuses `bad`, calls out for `out`,
# asks for `ask`, fetches for `get` and answers `until` when it can no longer connect.
PROGRAM = """
import http.server, os, signal, socket, sys, threading, time, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, body=b""):
        self.send_response(status); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"bad":
            return self.answer(400, b"this row is bad")
        if body.startswith(b"out "):
            try:
                with socket.create_connection((body[4:].decode(), 80), timeout=3) as there:
                    there.sendall(b"GET /transform HTTP/1.0\\r\\n\\r\\n"); body = b"reached " + there.recv(8)
            except OSError as error:
                body = b"closed"
            print(body[:7].decode(), flush=True)
        if body.startswith(b"ask "):
            try:
                with socket.create_connection(body[4:].decode().split(":"), timeout=3) as there:
                    body = b"reached " + there.recv(6)
            except OSError as error:
                body = b"closed"
            print(body[:7].decode(), flush=True)
        if body.startswith(b"get "):
            try:
                body = b"reached " + urllib.request.urlopen(body[4:].decode(), timeout=5).read()[:7]
            except OSError as error:
                body = b"closed " + str(getattr(error, "code", "")).encode()
        if body.startswith(b"until "):
            host = body[6:].decode()
            try:
                while True:
                    socket.create_connection((host, 80), timeout=1).close()
                    print("connected", flush=True); time.sleep(0.2)
            except OSError:
                body = b"closed"
        if body == b"environment":
            body = ",".join(f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("SAGEMAKER_")).encode()
        if body == b"wait":
            threading.Event().wait(60)
        self.answer(200, body.upper() if not body.startswith((b"reached", b"SAGEMAKER", b"closed")) else body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("serving", flush=True)
Server(("0.0.0.0", 8080), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def server(engine, rootfs):
    return engine.pack_image(rootfs, "upper:1", "--entrypoint", "/usr/bin/python3", "--entrypoint", "-c", "--entrypoint", PROGRAM)


@pytest.fixture
def network(engine):
    made = Network(engine.client("ec2"), block="10.31.0.0/16", subnet="10.31.1.0/24")
    yield made
    made.remove()


def model(sagemaker, name, image, role, **members):
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": image}, **members)
    return name


def request(name, bucket, **members):
    return {
        "TransformJobName": name, "ModelName": name, "BatchStrategy": "SingleRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{name}/in/"}},
            "ContentType": "text/csv", "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": f"s3://{bucket}/{name}/out", "Accept": "text/csv", "AssembleWith": "Line"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    } | members


def ended(sagemaker, name, timeout=90):
    return jobs.ended(lambda: sagemaker.describe_transform_job(TransformJobName=name), "TransformJobStatus", timeout)


class Data:
    """The input and the output of one job."""

    def __init__(self, engine, bucket, name):
        self.s3, self.bucket, self.name = engine.client("s3"), bucket, name

    def put(self, key, body):
        self.s3.put_object(Bucket=self.bucket, Key=f"{self.name}/in/{key}", Body=body)

    def outputs(self):
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.name}/out/").get("Contents", [])
        read = lambda key: self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read().decode()  # noqa: E731
        return {one["Key"].removeprefix(f"{self.name}/out/"): read(one["Key"]) for one in listed}


@pytest.fixture
def data(engine, bucket, name):
    return Data(engine, bucket, name)


def streams(engine, name):
    """Messages of a job's log streams, by the stream's name behind the job's."""
    logs = engine.client("logs")
    found = logs.filter_log_events(logGroupName=GROUP, logStreamNamePrefix=f"{name}/")["events"]
    by_stream = {}
    for event in found:
        by_stream.setdefault(event["logStreamName"].removeprefix(f"{name}/"), []).append(event["message"])
    return by_stream


def test_a_sealed_model_transforms_objects_and_reaches_nothing(engine, sagemaker, server, role, bucket, data, name):
    """Proves: CC-64, CC-67, CC-69, CC-73, CC-75, CC-76, CC-90, NI-21, NI-2, SM-39, SM-41, SM-66, BT-1"""
    model(sagemaker, name, server, role, EnableNetworkIsolation=True)
    rows = "".join(f"row-{n}\n" for n in range(500))
    data.put("many.csv", rows)
    data.put("deep/out.csv", f"out {WEB}\nenvironment\n")
    data.put("bad.csv", "good\nbad\n")
    sagemaker.create_transform_job(**request(name, bucket, MaxConcurrentTransforms=4, MaxPayloadInMB=1))
    done = ended(sagemaker, name)
    assert done["TransformJobStatus"] == "Failed", done
    reason = done["FailureReason"]
    assert reason.startswith("ClientError: See job logs for more information [network isolation blocked tcp " + WEB), reason
    outputs = data.outputs()
    assert outputs["many.csv.out"] == rows.upper()
    assert "bad.csv.out" not in outputs and len(outputs) == 2
    said = outputs["deep/out.csv.out"].splitlines()
    assert said[0] == "CLOSED" or said[0] == "closed", said
    assert said[1] == (
        "SAGEMAKER_BATCH=true,SAGEMAKER_BATCH_STRATEGY=SINGLE_RECORD,SAGEMAKER_MAX_CONCURRENT_TRANSFORMS=4,"
        "SAGEMAKER_MAX_PAYLOAD_IN_MB=1"
    )
    assert [one["address"] for one in engine.attempts(name)] == [WEB]
    logs = streams(engine, name)
    container = next(stream for stream in logs if "/" not in stream)
    assert logs[container][:1] == ["serving"] and container.startswith("i-")
    told = "\n".join(logs[f"{container}/data-log"])
    assert "MaxConcurrentTransforms=4, MaxPayloadInMB=1, BatchStrategy=SINGLE_RECORD" in told
    assert f"{bucket}/{name}/in/bad.csv: ClientError: 400" in told and "this row is bad" in told
    # Control: without isolation the same model reaches the internet, and the job completes.
    open_name = f"{name}-open"
    model(sagemaker, open_name, server, role)
    other = Data(engine, bucket, open_name)
    other.put("a.csv.gz", gzip.compress(f"out {WEB}\nx\n".encode()))
    asked = request(open_name, bucket)
    asked["TransformInput"]["CompressionType"] = "Gzip"
    sagemaker.create_transform_job(**asked)
    done = ended(sagemaker, open_name)
    assert done["TransformJobStatus"] == "Completed", done
    assert other.outputs()["a.csv.gz.out"].startswith("reached"), other.outputs()
    listed = sagemaker.list_transform_jobs(NameContains=name, SortBy="Name", SortOrder="Ascending")["TransformJobSummaries"]
    assert [(one["TransformJobName"], one["TransformJobStatus"]) for one in listed] == [(name, "Failed"), (open_name, "Completed")]
    waiter, quick = sagemaker.get_waiter("transform_job_completed_or_stopped"), {"Delay": 1, "MaxAttempts": 3}
    waiter.wait(TransformJobName=open_name, WaiterConfig=quick)
    with pytest.raises(WaiterError) as failed:
        waiter.wait(TransformJobName=name, WaiterConfig=quick)
    assert failed.value.last_response["TransformJobStatus"] == "Failed"
    with pytest.raises(WaiterError) as missing:
        waiter.wait(TransformJobName="never-made", WaiterConfig=quick)
    assert missing.value.last_response["Error"]["Code"] == "ValidationException"


def test_results_are_joined_to_their_rows_and_the_aws_cli_tells(engine, sagemaker, server, role, bucket, data, name):
    """Proves: CC-77, CC-79, SM-60"""
    model(sagemaker, name, server, role, EnableNetworkIsolation=True)
    data.put("a.csv", "id1,x,y\nid2,z,w\n")
    processing = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    sagemaker.create_transform_job(**request(name, bucket, BatchStrategy="MultiRecord", DataProcessing=processing))
    assert ended(sagemaker, name)["TransformJobStatus"] == "Completed"
    assert data.outputs() == {"a.csv.out": "id1,Y\nid2,W\n"}
    aws = Path(sys.executable).with_name("aws")
    told = subprocess.run(
        [aws, "sagemaker", "describe-transform-job", "--transform-job-name", name, "--output", "json"],
        env=engine.environment(), capture_output=True, text=True, check=True,
    )
    shown = json.loads(told.stdout)
    assert shown["TransformJobStatus"] == "Completed" and shown["DataProcessing"] == processing
    assert shown["TransformStartTime"] <= shown["TransformEndTime"]
    with pytest.raises(sagemaker.exceptions.ClientError) as taken:
        sagemaker.create_transform_job(**request(name, bucket))
    assert taken.value.response["Error"]["Code"] == "ResourceInUse"
    with pytest.raises(sagemaker.exceptions.ClientError) as absent:
        sagemaker.describe_transform_job(TransformJobName="absent")
    assert absent.value.response["Error"]["Message"] == "Could not find requested job with name: absent"


def test_a_job_is_stopped_while_it_waits(engine, sagemaker, server, role, bucket, data, name):
    """Proves: SM-39, SM-66"""
    model(sagemaker, name, server, role, EnableNetworkIsolation=True)
    data.put("a.csv", "wait\n")
    sagemaker.create_transform_job(**request(name, bucket))
    eventually(lambda: "TransformStartTime" in sagemaker.describe_transform_job(TransformJobName=name))
    sagemaker.stop_transform_job(TransformJobName=name)
    sagemaker.get_waiter("transform_job_completed_or_stopped").wait(TransformJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 40})
    assert sagemaker.describe_transform_job(TransformJobName=name)["TransformJobStatus"] == "Stopped"
    assert data.outputs() == {}


def test_a_model_in_a_vpc_is_transformed_through_its_subnets(engine, sagemaker, server, vpc_role, bucket, data, name, network):
    """Proves: BT-1, BT-2, BT-6, BT-11, BT-22, BT-24, NI-18, NI-19"""
    free = network.free()
    model(sagemaker, name, server, vpc_role, EnableNetworkIsolation=True, VpcConfig=network.config)
    data.put("a.csv", f"out {WEB}\nwait\n")
    sagemaker.create_transform_job(**request(name, bucket))
    interfaces = eventually(lambda: [one for one in network.interfaces() if one.get("RequesterManaged")], timeout=60)
    assert len(interfaces) == 2 and network.free() == free - 2, "two addresses of the subnet for one instance"
    assert all([group["GroupId"] for group in one["Groups"]] == [network.group] for one in interfaces)
    eventually(lambda: engine.attempts(name), timeout=60)
    sagemaker.stop_transform_job(TransformJobName=name)
    assert ended(sagemaker, name)["TransformJobStatus"] == "Stopped"
    eventually(lambda: network.free() == free, timeout=60)
    # The same data without the row that waits: in and out through the gateway endpoint of the subnet's route table.
    data.put("a.csv", f"out {WEB}\nx\n")
    again = f"{name}-again"
    sagemaker.create_transform_job(**request(name, bucket) | {"TransformJobName": again})
    done = ended(sagemaker, again)
    assert done["TransformJobStatus"] == "Completed", done
    assert data.outputs()["a.csv.out"].upper() == "CLOSED\nX\n"
    flows = json.loads(engine.run("report", again, "--flows", "--json").stdout)
    assert any(flow["transfer"] and flow["destination_port"] == 443 for flow in flows["flows"]), flows


def test_policies_of_the_endpoint_and_the_bucket_bind_transform_jobs_and_without_a_way_nothing_passes(
    engine, sagemaker, server, vpc_role, bucket, data, name, network
):
    """
    Without isolation the container is in the VPC, which has no way to the internet.
    Proves: BT-4, BT-12, BT-15, BT-18, BT-20, D-9, NET-35
    """
    s3, free, number = engine.client("s3"), network.free(), iter(range(20))
    packages, images = "packages.ap-south-1.amazonaws.com", "amazonlinux.ap-south-1.amazonaws.com"
    for one in (packages, images):
        s3.create_bucket(Bucket=one)
        s3.put_object(Bucket=one, Key=name, Body=b"package")
    legacy = f"s3-{REGION}.amazonaws.com"
    urls = [presigned(engine, one, legacy, True, key=name) for one in (packages, images)]
    urls.append(presigned(engine, packages, legacy, True, key=name, operation="get_object_tagging"))
    urls.append(presigned(engine, packages, f"s3.{REGION}.amazonaws.com", False, key=name))
    model(sagemaker, name, server, vpc_role, VpcConfig=network.config)
    model(sagemaker, f"{name}-out", server, vpc_role)
    blind = [one for one in execution_statements(bucket) if "s3:GetObject" not in one["Action"]]
    blind = engine.create_role(f"{name}-blind", [*blind, {"Effect": "Allow", "Action": P6, "Resource": "*"}])
    model(sagemaker, f"{name}-blind", server, blind, VpcConfig=network.config)
    data.put("a.csv", f"out {WEB}\n" + "".join(f"get {url}\n" for url in urls))

    def run(model_name=name):
        job = f"{name}-{next(number)}"
        sagemaker.create_transform_job(**request(name, bucket) | {"TransformJobName": job, "ModelName": model_name})
        return job

    def completes(job):
        done = ended(sagemaker, job)
        assert done["TransformJobStatus"] == "Completed", done
        return data.outputs()["a.csv.out"]

    def fails(job):
        done = ended(sagemaker, job)
        assert done["TransformJobStatus"] == "Failed", done
        return done["FailureReason"]

    everything = ["closed", "reached package", "reached package", "reached <?xml v", "reached package"]
    assert completes(run()).splitlines() == everything, "control"
    p1 = {"Effect": "Allow", "Principal": "*", "Action": P1, "Resource": "*"}
    statement(engine, network.ec2, network, p1, version="2008-10-17")
    assert completes(run()).splitlines() == [*everything[:3], "closed 403", everything[4]], "seven actions, and no eighth"
    reason = fails(run(f"{name}-blind"))
    assert "s3:GetObject" in reason and "identity-based policy" in reason, reason
    own = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement(engine, network.ec2, network, p1 | {"Resource": own}, version="2008-10-17")
    assert completes(run()).splitlines() == ["closed"] + ["closed 403"] * 4
    p2, p3 = (
        {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{kind}.*.amazonaws.com/*"}
        for kind in ("packages", "amazonlinux"))
    statement(engine, network.ec2, network, ALL, p2)
    assert completes(run()).splitlines() == ["closed", "closed 403", *everything[2:4], "closed 403"]
    statement(engine, network.ec2, network, ALL, p2, p3)
    assert completes(run()).splitlines() == ["closed", "closed 403", "closed 403", everything[3], "closed 403"]
    statement(engine, network.ec2, network, p2)
    reason = fails(run())
    assert "no VPC endpoint policy allows" in reason, "a policy that denies alone"
    inputs = f"arn:aws:s3:::{bucket}/{name}/in/*"
    statement(engine, network.ec2, network, ALL, {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": inputs})
    reason = fails(run())
    assert "s3:GetObject" in reason and "explicit deny in a VPC endpoint policy" in reason, reason
    statement(engine, network.ec2, network, ALL)
    outside = {
        "Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": inputs,
        "Condition": {"StringNotEquals": {"aws:SourceVpc": network.vpc}, "ArnEquals": {"aws:PrincipalArn": vpc_role}},
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": outside}))
    try:
        assert completes(run()).splitlines() == everything
        reason = fails(run(f"{name}-out"))
        assert "s3:GetObject" in reason and "explicit deny in a resource-based policy" in reason, reason
    finally:
        s3.delete_bucket_policy(Bucket=bucket)
    # Names end with the VPC's DNS support, and come back with it.
    network.ec2.modify_vpc_attribute(VpcId=network.vpc, EnableDnsSupport={"Value": False})
    reason = fails(run())
    assert reason.startswith(SM_64) and "enableDnsSupport is false" in reason, reason
    network.ec2.modify_vpc_attribute(VpcId=network.vpc, EnableDnsSupport={"Value": True})
    assert completes(run()).splitlines() == everything
    # A subnet whose route table was not selected has no such way, until the table is.
    aside = network.ec2.create_subnet(VpcId=network.vpc, CidrBlock="10.31.2.0/24")["Subnet"]["SubnetId"]
    table = network.ec2.create_route_table(VpcId=network.vpc)["RouteTable"]["RouteTableId"]
    network.ec2.associate_route_table(RouteTableId=table, SubnetId=aside)
    model(sagemaker, f"{name}-aside", server, vpc_role, VpcConfig=network.config | {"Subnets": [aside]})
    reason = fails(run(f"{name}-aside"))
    assert reason.startswith(SM_64) and f"the route table {table} has no route to" in reason, reason
    network.ec2.modify_vpc_endpoint(VpcEndpointId=network.endpoint, AddRouteTableIds=[table])
    assert completes(run(f"{name}-aside")).splitlines() == everything, "control"
    network.ec2.modify_vpc_endpoint(VpcEndpointId=network.endpoint, RemoveRouteTableIds=[table])
    of_aside = [{"Name": "subnet-id", "Values": [aside]}]
    eventually(lambda: not network.ec2.describe_network_interfaces(Filters=of_aside)["NetworkInterfaces"], timeout=60)
    network.ec2.delete_subnet(SubnetId=aside)
    network.ec2.delete_route_table(RouteTableId=table)
    # The way goes while the model works on the object: what it answers cannot be written.
    data.put("a.csv", f"until s3.{REGION}.amazonaws.com\n")
    s3.delete_object(Bucket=bucket, Key=f"{name}/out/a.csv.out")
    job = run()
    eventually(lambda: "connected" in str(streams(engine, job)), timeout=60)
    network.ec2.delete_vpc_endpoints(VpcEndpointIds=[network.endpoint])
    network.endpoint = None
    reason = fails(job)
    assert "upload failed" in reason and "has no route to" in reason, reason
    assert data.outputs() == {}
    reason = fails(run())
    assert reason.startswith("ClientError: Data download failed:Please ensure that the subnet's route table"), reason
    eventually(lambda: network.free() == free, timeout=60)


def test_a_transform_job_needs_two_addresses_of_its_subnets(engine, sagemaker, server, vpc_role, bucket, data, name):
    """
    Proves: BT-11, NET-65, D-17
    """
    ec2 = engine.client("ec2")
    network = Network(ec2, block="10.31.0.0/16", subnet="10.31.1.0/28")
    taken = []
    try:
        for _ in range(10):
            taken.append(ec2.create_network_interface(SubnetId=network.subnet)["NetworkInterface"]["NetworkInterfaceId"])
        assert network.free() == 1
        model(sagemaker, name, server, vpc_role, EnableNetworkIsolation=True, VpcConfig=network.config)
        data.put("a.csv", "x\n")
        sagemaker.create_transform_job(**request(name, bucket))
        done = ended(sagemaker, name)
        assert done["TransformJobStatus"] == "Failed", done
        reason = done["FailureReason"]
        assert reason.startswith("ClientError: ") and "enough free addresses" in reason and network.subnet in reason, reason
        assert network.free() == 1, "nothing is half taken"
        ec2.delete_network_interface(NetworkInterfaceId=taken.pop())
        sagemaker.create_transform_job(**request(name, bucket) | {"TransformJobName": f"{name}-again"})
        done = ended(sagemaker, f"{name}-again")
        assert done["TransformJobStatus"] == "Completed", done
        eventually(lambda: network.free() == 2, timeout=60)
    finally:
        for one in taken:
            ec2.delete_network_interface(NetworkInterfaceId=one)
        network.remove()
