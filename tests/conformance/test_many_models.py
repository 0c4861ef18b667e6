"""Multi-model endpoints: containers that load models when callers name them, through unmodified boto3."""
import concurrent.futures
import io
import json
import tarfile

import pytest
from botocore.exceptions import ClientError

from tests.harness.jobs import eventually, gone, settled

# Loads, unloads and lists models; has room for as many as CAPACITY says.
APP = """
import json, os, signal, socket, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOM, LOADED, TOLD, LOCK = int(os.environ["CAPACITY"]), {}, [], threading.Lock()


def reached(address, port):
    with socket.socket() as probe:
        probe.settimeout(2)
        try:
            probe.connect((address, port))
            return "connected"
        except OSError as error:
            return type(error).__name__


def written(path):
    try:
        open(path, "w").close()
        return "written"
    except OSError as error:
        return error.strerror


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/ping":
            return self.answer(200)
        if self.path == "/models":
            return self.answer(200, json.dumps({"models": [{"modelName": one, "modelUrl": "-"} for one in LOADED]}).encode())
        self.answer(200 if self.path.split("/")[2] in LOADED else 404)

    def do_DELETE(self):
        with LOCK:
            known = LOADED.pop(self.path.split("/")[2], None)
            TOLD.append(["unload", known])
        self.answer(200 if known else 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path == "/models":
            asked = json.loads(body)
            with LOCK:
                if asked["model_name"] in LOADED:
                    return self.answer(409)
                text = open(asked["url"] + "/weights").read()
                if text == "broken":
                    return self.answer(500, b"cannot be parsed")
                if len(LOADED) >= ROOM:
                    TOLD.append(["full", text])
                    return self.answer(507, b"no room")
                LOADED[asked["model_name"]] = text
                TOLD.append(["load", text])
            return self.answer(200)
        name = self.path.split("/")[2]
        if name not in LOADED:
            return self.answer(404, b"not loaded")
        if body == b"lose":
            LOADED.clear()
            return self.answer(200)
        if body == b"absent":
            return self.answer(404, b"no such row")
        if body == b"look":
            seen = {
                "told": TOLD, "environment": dict(os.environ), "interfaces": [name for _, name in socket.if_nameindex()],
                "outside": reached("203.0.113.10", 80), "own": reached("127.0.0.1", 8080),
                "written": [written("/opt/ml/models/x"), written("/opt/ml/models/%s/model/weights" % name), written("/opt/ml/control")],
                "folders": sorted(os.listdir("/opt/ml/models")), "names": sorted(LOADED), "model": os.listdir("/opt/ml/model") if os.path.exists("/opt/ml/model") else None,
                "files": sorted(os.listdir("/opt/ml/models/%s/model" % name)), "uid": os.stat("/opt/ml/models/%s/model" % name).st_uid,
            }
            return self.answer(200, json.dumps(seen).encode(), "application/json")
        told = "%s(%s|%s|%s)" % (LOADED[name], body.decode(), self.headers.get("X-Amzn-SageMaker-Target-Model"), self.headers.get("Content-Type"))
        self.answer(200, told.encode(), "text/from-model")

    def log_message(self, *arguments):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
LABEL = "com.amazonaws.sagemaker.capabilities.multi-models=true"
PROGRAM = [word for part in ("/usr/bin/python3", "-c", APP) for word in ("--entrypoint", part)]


@pytest.fixture(scope="module")
def runtime(engine):
    return engine.client("sagemaker-runtime")


@pytest.fixture(scope="module")
def many(engine, rootfs):
    return engine.pack_image(rootfs, "many:1", "--label", LABEL, *PROGRAM)


def packed(weights, path="weights"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        entry = tarfile.TarInfo(path)
        entry.size = len(weights)
        archive.addfile(entry, io.BytesIO(weights.encode()))
    return out.getvalue()


@pytest.fixture(scope="module")
def shelf(engine, bucket):
    """The prefix of the models."""
    s3 = engine.client("s3")
    for model in ("a", "b", "c", "broken"):
        s3.put_object(Bucket=bucket, Key=f"many/{model}.tar.gz", Body=packed(model))
    s3.put_object(Bucket=bucket, Key="many/deeper/a.tar.gz", Body=packed("deep"))
    s3.put_object(Bucket=bucket, Key="many/evil.tar.gz", Body=packed("evil", "../../../../escaped"))
    s3.put_object(Bucket=bucket, Key="many/text.tar.gz", Body=b"no archive")
    s3.put_object(Bucket=bucket, Key="beside.tar.gz", Body=packed("beside"))
    return f"s3://{bucket}/many/"


def create(sagemaker, name, role, image, shelf, capacity=2, count=1, **container):
    sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=role, EnableNetworkIsolation=True,
        PrimaryContainer={"Image": image, "Mode": "MultiModel", "ModelDataUrl": shelf, "Environment": {"CAPACITY": str(capacity)}} | container,
    )
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
    return caught.value.response


def test_models_are_loaded_when_named_and_make_room(engine, sagemaker, runtime, name, many, shelf, role):
    """Proves: CC-58, SM-15, SM-18, NI-6, NI-8, NI-12, NI-21"""
    endpoint = create(sagemaker, name, role, many, shelf)
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    described = sagemaker.describe_model(ModelName=name)["PrimaryContainer"]
    assert described["Mode"] == "MultiModel" and described["ModelDataUrl"] == shelf and "MultiModelConfig" not in described

    def invoke(model, body=b"x", **members):
        return runtime.invoke_endpoint(EndpointName=name, TargetModel=model, Body=body, ContentType="t/t", **members)

    def seen(model):
        return json.loads(invoke(model, b"look")["Body"].read())

    answer = invoke("a.tar.gz")
    assert answer["Body"].read() == b"a(x|a.tar.gz|t/t)" and answer["ContentType"] == "text/from-model"
    assert answer["InvokedProductionVariant"] == "v"
    assert invoke("deeper/a.tar.gz")["Body"].read() == b"deep(x|deeper/a.tar.gz|t/t)", "the same name elsewhere is another model"
    found = seen("a.tar.gz")
    assert found["told"] == [["load", "a"], ["load", "deep"]], "each once, and none before it was asked for"
    assert found["environment"]["SAGEMAKER_MULTI_MODEL"] == "true" and found["files"] == ["weights"] and found["uid"] == 0
    assert found["interfaces"] == ["lo"] and found["outside"] != "connected" and found["own"] == "connected"
    assert not any("CREDENTIALS" in one for one in found["environment"]) and found["model"] in (None, [])
    assert found["written"] == ["Read-only file system"] * 2 + ["written"], "the last is the control"
    assert found["folders"] == found["names"] and len(found["names"]) == 2
    # Room for two: the one that was not used for longest goes, and comes back when it is asked for.
    assert invoke("c.tar.gz")["Body"].read().startswith(b"c(")
    assert invoke("a.tar.gz")["Body"].read().startswith(b"a(")
    found = seen("deeper/a.tar.gz")
    assert found["told"][2:] == [["full", "c"], ["unload", "deep"], ["load", "c"], ["full", "deep"], ["unload", "c"], ["load", "deep"]]
    assert found["folders"] == found["names"] and len(found["names"]) == 2, "files go with their model"
    # A container that has lost its models gets them again; its own 404 is its answer.
    assert invoke("a.tar.gz", b"lose")["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert invoke("a.tar.gz")["Body"].read().startswith(b"a(")
    told = len(seen("a.tar.gz")["told"])
    error = refused(invoke, model="a.tar.gz", body=b"absent")
    assert (error["Error"]["Code"], error["OriginalStatusCode"], error["OriginalMessage"]) == ("ModelError", 404, "no such row")
    assert len(seen("a.tar.gz")["told"]) == told, "nothing was loaded for it"
    # Many at once: a model is loaded once, whoever asks for it.
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        bodies = list(pool.map(lambda number: invoke("ab"[number % 2] + ".tar.gz")["Body"].read()[:2], range(40)))
    assert bodies == [b"a(", b"b("] * 20
    delete(sagemaker, name)


def test_what_a_caller_may_not_name(engine, sagemaker, runtime, name, many, small, shelf, role, bucket):
    """Proves: CC-58, SM-58"""
    assert create(sagemaker, name, role, many, shelf, capacity=5)["EndpointStatus"] == "InService"

    def failed(model):
        error = refused(runtime.invoke_endpoint, EndpointName=name, TargetModel=model, Body=b"x")["Error"]
        return error["Code"], error["Message"]

    assert runtime.invoke_endpoint(EndpointName=name, TargetModel="a.tar.gz", Body=b"x")["Body"].read().startswith(b"a("), "control"
    for outside in ("../beside.tar.gz", "/beside.tar.gz", "deeper/../../beside.tar.gz", "..", "deeper//a.tar.gz"):
        code, text = failed(outside)
        assert code == "ValidationError" and "must be the path of an archive below" in text, (outside, text)
    code, text = failed("none.tar.gz")
    assert code == "ValidationError" and text.startswith(f"Failed to download model data(bucket: {bucket}, key: many/none.tar.gz)."), text
    for unusable in ("evil.tar.gz", "text.tar.gz"):
        code, text = failed(unusable)
        assert code == "ValidationError" and "The archive cannot be used" in text, text
    error = refused(runtime.invoke_endpoint, EndpointName=name, TargetModel="broken.tar.gz", Body=b"x")
    assert (error["Error"]["Code"], error["OriginalStatusCode"], error["OriginalMessage"]) == ("ModelError", 500, "cannot be parsed")
    found = json.loads(runtime.invoke_endpoint(EndpointName=name, TargetModel="a.tar.gz", Body=b"look")["Body"].read())
    assert found["folders"] == found["names"] and len(found["names"]) == 1, "nothing of what was refused stays"
    code, text = (lambda error: (error["Code"], error["Message"]))(refused(runtime.invoke_endpoint, EndpointName=name, Body=b"x")["Error"])
    assert code == "ValidationError" and "requires the target model header" in text
    # What the role may not read is not read, whoever asks.
    engine.client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/many/c.tar.gz"}]}))
    try:
        code, text = failed("c.tar.gz")
        assert code == "ValidationError" and "s3:GetObject" in text, text
    finally:
        engine.client("s3").delete_bucket_policy(Bucket=bucket)
    assert runtime.invoke_endpoint(EndpointName=name, TargetModel="c.tar.gz", Body=b"x")["Body"].read().startswith(b"c("), "control"
    delete(sagemaker, name)


def test_models_that_are_not_cached_go_after_each_use(engine, sagemaker, runtime, name, many, small, shelf, role):
    """Proves: CC-58"""
    unlabelled = create(sagemaker, f"{name}-2", role, small, shelf)
    assert unlabelled["EndpointStatus"] == "Failed" and "does not contain required com.amazonaws.sagemaker.capabilities.multi-models=true" in unlabelled["FailureReason"]
    delete(sagemaker, f"{name}-2")
    setting = {"MultiModelConfig": {"ModelCacheSetting": "Disabled"}}
    assert create(sagemaker, name, role, many, shelf, capacity=5, **setting)["EndpointStatus"] == "InService"
    assert sagemaker.describe_model(ModelName=name)["PrimaryContainer"]["MultiModelConfig"] == {"ModelCacheSetting": "Disabled"}

    def told():
        return json.loads(runtime.invoke_endpoint(EndpointName=name, TargetModel="b.tar.gz", Body=b"look")["Body"].read())["told"]

    assert runtime.invoke_endpoint(EndpointName=name, TargetModel="a.tar.gz", Body=b"x")["Body"].read().startswith(b"a(")
    assert eventually(lambda: ["unload", "a"] in told(), 30)
    delete(sagemaker, name)
    good = {"Image": many, "Mode": "MultiModel", "ModelDataUrl": shelf}
    for container, text in (
        ({"Image": many, "Mode": "MultiModel"}, "ModelDataUrl"),
        ({"Image": many, "ModelDataUrl": f"{shelf}a.tar.gz"} | setting, "MultiModelConfig"),
        (good | {"ModelDataUrl": "s3://nobodys-bucket-of-many/"}, "Could not access model data"),
    ):
        error = refused(sagemaker.create_model, ModelName=f"{name}-3", ExecutionRoleArn=role, PrimaryContainer=container)["Error"]
        assert error["Code"] == "ValidationException" and text in error["Message"], error
    error = refused(sagemaker.create_model, ModelName=f"{name}-3", ExecutionRoleArn=role, Containers=[good, good])["Error"]
    assert error["Code"] == "ValidationException" and "MultiModel" in error["Message"]
