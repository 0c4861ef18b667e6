"""Models of several containers: pipelines and direct invocation, through unmodified boto3."""
import io
import json
import os
import signal
import tarfile

import pytest
from botocore.exceptions import ClientError

from tests.conformance.test_vpc_jobs import Network
from tests.harness.engine import execution_statements
from tests.harness.jobs import P6, eventually, gone, settled

# Serves on the port that it is told, and says what it sees.
APP = """
import json, os, signal, socket, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ["MARK"]
print(NAME + " serves", flush=True)


def reached(address, port):
    with socket.socket() as probe:
        probe.settimeout(2)
        try:
            probe.connect((address, port))
            return "connected"
        except OSError as error:
            return type(error).__name__


def resolved(name):
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, b"", "text/plain")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if body == b"fail in " + NAME.encode():
            return self.answer(503, b"not today", "text/plain")
        if body == b"look":
            seen = {
                "name": NAME, "host": socket.gethostname(), "environment": dict(os.environ),
                "files": sorted(os.listdir("/opt/ml/model")),
                "netns": os.readlink("/proc/self/ns/net"), "interfaces": sorted(name for _, name in socket.if_nameindex()),
                "processes": sorted(int(one) for one in os.listdir("/proc") if one.isdigit()),
                "outside": reached("203.0.113.10", 80), "platform": reached("100.64.0.1", 53),
                "own": reached("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), "resolved": resolved("example.com"),
            }
            return self.answer(200, json.dumps(seen).encode(), "application/json")
        if body.startswith(b"reach "):
            told = {address: reached(address, 8080) for address in body.decode().split()[1:]}
            return self.answer(200, json.dumps(told).encode(), "application/json")
        if body.startswith(b"fail in "):
            return self.answer(200, body, "text/plain")
        told = "%s(%s|%s|%s)" % (NAME, body.decode(), self.headers.get("Content-Type"), self.headers.get("Accept"))
        self.answer(200, told.encode(), "text/from-" + NAME)

    def log_message(self, *arguments):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer(("0.0.0.0", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""
NAMES = ("clean", "infer", "finish")
LABEL = "com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true"


@pytest.fixture(scope="module")
def runtime(engine):
    return engine.client("sagemaker-runtime")


@pytest.fixture(scope="module")
def binding(engine, rootfs):
    """An image that says that it listens where it is told."""
    command = [word for part in ("/usr/bin/python3", "/opt/ml/model/app.py") for word in ("--entrypoint", part)]
    return engine.pack_image(rootfs, "binding:1", "--label", LABEL, *command)


@pytest.fixture(scope="module")
def programs(engine, bucket):
    """A model archive for each container: its own file beside the program."""
    found = {}
    for name in NAMES:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path, text in (("app.py", APP), (f"only-{name}", name)):
                entry = tarfile.TarInfo(path)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        engine.client("s3").put_object(Bucket=bucket, Key=f"several-containers/{name}.tar.gz", Body=packed.getvalue())
        found[name] = f"s3://{bucket}/several-containers/{name}.tar.gz"
    return found


def containers(image, programs, names=NAMES):
    return [
        {"ContainerHostname": name, "Image": image, "ModelDataUrl": programs[name], "Environment": {"MARK": name}} for name in names
    ]


def create(sagemaker, name, role, listed, isolated=True, count=1, **members):
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=isolated, Containers=listed, **members)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return settled(sagemaker, name)


def delete(sagemaker, name):
    sagemaker.delete_endpoint(EndpointName=name)
    gone(sagemaker, name)


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]


def streams(engine, endpoint):
    """Log streams of an endpoint with their first message."""
    logs, group = engine.client("logs"), f"/aws/sagemaker/Endpoints/{endpoint}"
    names = [one["logStreamName"] for one in logs.describe_log_streams(logGroupName=group)["logStreams"]]
    return {name: [event["message"] for event in logs.get_log_events(logGroupName=group, logStreamName=name, startFromHead=True)["events"]] for name in names}


def processes_with(variables):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/environ", "rb") as environment:
                if variables <= set(environment.read().decode(errors="replace").split("\0")):
                    found.append(int(entry))
        except OSError:
            continue
    return found


def test_a_pipeline_passes_each_answer_on(engine, sagemaker, runtime, name, binding, programs, role):
    """Proves: SM-15, SM-16, SM-18, SM-51, SM-62, CC-56, CC-57, CC-90"""
    endpoint = create(sagemaker, name, role, containers(binding, programs))
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    assert len(endpoint["ProductionVariants"][0]["DeployedImages"]) == 3
    described = sagemaker.describe_model(ModelName=name)
    assert [one["ContainerHostname"] for one in described["Containers"]] == list(NAMES) and "PrimaryContainer" not in described
    answer = runtime.invoke_endpoint(EndpointName=name, ContentType="text/mine", Accept="text/wanted", Body=b"x")
    # What the caller accepts is for the last one alone.
    assert answer["Body"].read() == b"finish(infer(clean(x|text/mine|None)|text/from-clean|None)|text/from-infer|text/wanted)"
    assert answer["ContentType"] == "text/from-finish" and answer["InvokedProductionVariant"] == "v"
    streamed = runtime.invoke_endpoint_with_response_stream(EndpointName=name, ContentType="a/b", Body=b"y")
    assert b"".join(event["PayloadPart"]["Bytes"] for event in streamed["Body"]).startswith(b"finish(infer(clean(y|a/b|None)|")
    for at in NAMES:
        with pytest.raises(ClientError) as caught:
            runtime.invoke_endpoint(EndpointName=name, Body=b"fail in " + at.encode())
        response = caught.value.response
        assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (503, "not today")
        assert f"Received server error (503) from {at} with message" in response["Error"]["Message"]
        assert response["LogStreamArn"].endswith(f"/{at}"), response["LogStreamArn"]
    error = refused(runtime.invoke_endpoint, EndpointName=name, Body=b"x", TargetContainerHostname="infer")
    assert error["Code"] == "ValidationError" and "direct invocation" in error["Message"]

    def told():
        # Askers that hang up once they know the status make Python complain; that is not looked at.
        found = {
            stream.split("/")[-1]: [line for line in lines if line.endswith(" serves")]
            for stream, lines in streams(engine, name).items() if not stream.endswith("network-isolation")
        }
        return found if len(found) == 3 and all(found.values()) else None

    assert eventually(told, 30) == {one: [f"{one} serves"] for one in NAMES}
    delete(sagemaker, name)


def test_direct_invocation_asks_one_container_and_all_are_sealed_together(engine, sagemaker, runtime, name, binding, programs, role):
    """The same model without isolation is the control: its containers do reach the outside.

    Proves: SM-16, SM-51, CC-10, CC-48, CC-56, CC-57, NI-6, NI-8, NI-21, CC-84
    """
    for kind, isolated in (("sealed", True), ("open", False)):
        direct = {"InferenceExecutionConfig": {"Mode": "Direct"}}
        endpoint = create(sagemaker, f"{name}-{kind}", role, containers(binding, programs), isolated=isolated, **direct)
        assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
        assert sagemaker.describe_model(ModelName=f"{name}-{kind}")["InferenceExecutionConfig"] == {"Mode": "Direct"}
        seen = {}
        for one in NAMES:
            answer = runtime.invoke_endpoint(EndpointName=f"{name}-{kind}", Body=b"look", TargetContainerHostname=one)
            seen[one] = json.loads(answer["Body"].read())
        assert [seen[one]["name"] for one in NAMES] == list(NAMES) and [seen[one]["host"] for one in NAMES] == list(NAMES)
        assert {one: found["files"] for one, found in seen.items()} == {one: ["app.py", f"only-{one}"] for one in NAMES}
        assert len({found["netns"] for found in seen.values()}) == 1, "one instance, one namespace"
        ports = [found["environment"]["SAGEMAKER_BIND_TO_PORT"] for found in seen.values()]
        ranges = [found["environment"]["SAGEMAKER_SAFE_PORT_RANGE"].split("-") for found in seen.values()]
        assert len(set(ports)) == 3 and ports[0] == "8080"
        taken = [set(range(int(first), int(last) + 1)) | {int(port)} for (first, last), port in zip(ranges, ports)]
        assert len(set.union(*taken)) == sum(map(len, taken)), "nobody's ports are another one's"
        for found in seen.values():
            assert found["own"] == "connected", "control"
            assert len(found["processes"]) <= 2, "processes of the others are not seen"
            keyed = [key for key in found["environment"] if "CREDENTIALS" in key]
            if isolated:
                assert found["interfaces"] == ["lo"] and found["outside"] != "connected" and found["platform"] != "connected"
                assert found["resolved"] is None and keyed == []
            else:
                assert "eth0" in found["interfaces"] and found["outside"] == "connected" and keyed, found
        if isolated:
            assert {attempt["address"] for attempt in engine.attempts(f"{name}-{kind}")} >= {"203.0.113.10"}
        for target, text in (({}, "must be given"), ({"TargetContainerHostname": "nobody"}, "nobody")):
            error = refused(runtime.invoke_endpoint, EndpointName=f"{name}-{kind}", Body=b"x", **target)
            assert error["Code"] == "ValidationError" and text in error["Message"], error
        delete(sagemaker, f"{name}-{kind}")


def test_in_a_vpc_the_containers_of_an_instance_share_its_interface_and_its_groups(engine, sagemaker, runtime, name, bucket, binding, programs):
    """Two addresses for each instance, however many containers it has; what the group lets one of them reach, it lets all.

    Proves: CC-10, CC-56, NET-66, NET-73, VPC-4, VPC-10
    """
    ec2 = engine.client("ec2")
    allow = {"Effect": "Allow", "Action": P6, "Resource": "*"}
    role = engine.create_role("several-containers-vpc", [*execution_statements(bucket), allow])
    network = Network(ec2, block="10.40.0.0/16", subnet="10.40.1.0/24")
    free = network.free()
    members = {"VpcConfig": network.config, "InferenceExecutionConfig": {"Mode": "Direct"}}
    endpoint = create(sagemaker, name, role, containers(binding, programs), isolated=False, count=2, **members)
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    assert network.free() == free - 4
    own = [one for one in network.interfaces() if one["Description"].startswith("[Do not delete] Container")]
    addresses = sorted(one["PrivateIpAddress"] for one in own)
    assert len(addresses) == 2

    def ask(one, body):
        answer = runtime.invoke_endpoint(EndpointName=name, Body=body, TargetContainerHostname=one)
        return json.loads(answer["Body"].read())

    def reached(one):
        return sorted(ask(one, b"reach " + " ".join(addresses).encode()).values())

    for one in NAMES:
        seen = ask(one, b"look")
        assert seen["name"] == one and seen["interfaces"] == ["eth0", "lo"] and seen["outside"] != "connected"
        assert seen["platform"] != "connected", "nothing of the platform's network is there"
        outcomes = reached(one)
        assert outcomes.count("connected") == 1, f"its own address, and not the other instance's: {outcomes}"
    pair = {"UserIdGroupPairs": [{"GroupId": network.group}]}
    rule = [{"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080} | pair]
    ec2.authorize_security_group_ingress(GroupId=network.group, IpPermissions=rule)
    for one in NAMES:
        eventually(lambda: reached(one) == ["connected", "connected"], 60)  # noqa: B023
    ec2.revoke_security_group_ingress(GroupId=network.group, IpPermissions=rule)
    for one in NAMES:
        eventually(lambda: reached(one).count("connected") == 1, 60)  # noqa: B023
    delete(sagemaker, name)
    eventually(lambda: network.free() == free, 60)
    network.remove()


def test_a_container_that_dies_takes_its_instance_along(sagemaker, runtime, name, binding, programs, role):
    """Whichever it is, all of its instance are started anew, and nothing of the old ones stays.

    Proves: CC-10, CC-49
    """
    listed = containers(binding, programs)
    for one in listed:
        one["Environment"]["TEST"] = name
    assert create(sagemaker, name, role, listed)["EndpointStatus"] == "InService"
    for victim in ("finish", "clean"):
        before = processes_with({f"TEST={name}"})
        assert len(before) == 3
        for pid in processes_with({f"TEST={name}", f"MARK={victim}"}):
            os.kill(pid, signal.SIGKILL)

        def renewed():
            now = processes_with({f"TEST={name}"})
            return len(now) == 3 and not set(now) & set(before)

        eventually(renewed, 60)

        def answers():
            try:
                return runtime.invoke_endpoint(EndpointName=name, ContentType="t/t", Body=b"x")["Body"].read()
            except ClientError:
                return None

        assert eventually(answers, 60).startswith(b"finish(infer(clean(")
    delete(sagemaker, name)
    assert processes_with({f"TEST={name}"}) == []


def test_containers_without_names_are_numbered_in_the_log(engine, sagemaker, name, binding, programs, role):
    """Proves: CC-91"""
    bare = [{key: value for key, value in one.items() if key != "ContainerHostname"} for one in containers(binding, programs)[:2]]
    endpoint = create(sagemaker, name, role, bare)
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")

    def told():
        found = {stream.split("/")[-1] for stream in streams(engine, name) if not stream.endswith("network-isolation")}
        return found if len(found) == 2 else None

    assert eventually(told, 30) == {"container-1", "container-2"}
    delete(sagemaker, name)


def test_what_a_model_of_several_containers_must_not_be(sagemaker, name, binding, small, programs, role):
    """Proves: SM-15, SM-16, CC-56"""
    good = containers(binding, programs)
    bare = [{key: value for key, value in one.items() if key != "ContainerHostname"} for one in good]
    direct = {"InferenceExecutionConfig": {"Mode": "Direct"}}

    def model(**members):
        return {"ModelName": name, "ExecutionRoleArn": role, "EnableNetworkIsolation": True} | members

    for members, text in (
        ({"Containers": [good[0], *bare[1:]]}, "ContainerHostname"),
        ({"Containers": bare} | direct, "ContainerHostname"),
        ({"Containers": [good[0], good[0]]}, "unique"),
        ({"PrimaryContainer": good[0], "Containers": good}, "not both"),
        ({"PrimaryContainer": good[0]} | direct, "InferenceExecutionConfig"),
        ({"Containers": good * 6}, "15"),
    ):
        error = refused(sagemaker.create_model, **model(**members))
        assert error["Code"] == "ValidationException" and text in error["Message"], error
    sagemaker.create_model(**model(Containers=bare))
    error = refused(
        sagemaker.create_transform_job, TransformJobName=name, ModelName=name,
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": programs["clean"]}}},
        TransformOutput={"S3OutputPath": programs["clean"]}, TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )
    assert error["Code"] == "ValidationException" and "several containers" in error["Message"]
    # The image has not said that it listens where it is told.
    unlabelled = create(sagemaker, f"{name}-2", role, [{"Image": small}, {"Image": binding, "ModelDataUrl": programs["clean"]}])
    assert unlabelled["EndpointStatus"] == "Failed" and "accept-bind-to-port" in unlabelled["FailureReason"]
    delete(sagemaker, f"{name}-2")
